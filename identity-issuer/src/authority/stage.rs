//! The life of an authority.
//!
//! ```text
//! requested ─ signed ─► prepared ─ acknowledged ─► active ─ a successor ─► retired ─► tainted ─► revoked
//! ```

use serde::{Deserialize, Serialize};

#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Stage {
    /// A key, and a request for its certificate.
    Requested,
    /// Known to all; signs nothing yet.
    Prepared,
    /// Signs.
    Active,
    /// What it signed is good until it expires; it signs no more certificates.
    Retired,
    /// All that it signed is being replaced.
    Tainted,
    /// Nothing that it signed is good.
    Revoked,
}

impl Stage {
    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::Requested => "requested",
            Self::Prepared => "prepared",
            Self::Active => "active",
            Self::Retired => "retired",
            Self::Tainted => "tainted",
            Self::Revoked => "revoked",
        }
    }
}
