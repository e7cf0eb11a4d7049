//! The section `inventory`: what has been issued, as long as it is on record.
//!
//! ```yaml
//! inventory:
//!   keep_expired: 90d                    # how long a certificate stays on record after its end
//! ```

use std::path::Path;
use std::time::Duration;

use serde::Deserialize;
use signet_process::config::{self, ConfigError, Located};

use super::file::{seconds, within};

#[derive(Copy, Clone, Debug)]
pub(crate) struct Inventory {
    pub(crate) keep_expired: Duration,
}

#[derive(Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct InventoryFile {
    keep_expired: Located<config::Duration>,
}

impl Default for InventoryFile {
    fn default() -> Self {
        Self { keep_expired: seconds(90 * DAY) }
    }
}

const DAY: u64 = 86_400;
/// Ten years.
const LONGEST: Duration = Duration::from_secs(3_650 * DAY);

impl InventoryFile {
    pub(super) fn resolve(&self, path: &Path) -> Result<Inventory, ConfigError> {
        let keep_expired = within(path, &self.keep_expired, "keep_expired", Duration::from_secs(DAY)..=LONGEST)?;
        Ok(Inventory { keep_expired })
    }
}

pub(super) fn shown(inventory: Inventory) -> String {
    format!("inventory:\n  keep_expired: {}\n", config::Duration(inventory.keep_expired))
}
