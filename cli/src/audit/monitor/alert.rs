//! What is worth waking somebody for.

use std::fmt;

use serde::Serialize;

use crate::output;

#[derive(Clone, Debug, Serialize)]
pub(super) struct Alert {
    /// Where it was seen.
    pub(super) source: String,
    #[serde(flatten)]
    pub(super) what: What,
    /// Signed checkpoints that prove it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) evidence: Vec<String>,
}

#[derive(Clone, Debug, Serialize)]
#[serde(tag = "alert", rename_all = "snake_case")]
pub(super) enum What {
    /// Two checkpoints that are not of one history.
    Fork {
        beside: String,
        cause: String,
    },
    SetBack {
        cause: String,
    },
    /// The files are not what the checkpoint says.
    Tampered {
        cause: String,
    },
    Unreadable {
        cause: String,
    },
    Late {
        age_seconds: u64,
    },
    Future {
        ahead_seconds: u64,
    },
    /// To an identity on the watch list.
    Issued {
        log: String,
        index: u64,
        spiffe_id: String,
        /// Of a certificate its serial number, of a token its identifier.
        id: String,
        at: String,
    },
    /// More of them than are told one by one.
    IssuedMore {
        log: String,
        count: u64,
    },
    /// A certificate that proved itself at a gateway and is in no log.
    Unlogged {
        spiffe_id: String,
        serial: String,
        /// SHA-256 of its DER.
        certificate: String,
        /// Whether a client or a server presented it.
        by: String,
        at: String,
    },
    UnloggedMore {
        count: u64,
    },
    /// Presented so long ago that their entries should have been read: a log is late, or away.
    Waiting {
        count: u64,
    },
    /// Nobody can say whether they are in a log.
    Missed {
        count: u64,
    },
}

impl What {
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Self::Fork { .. } => "fork",
            Self::SetBack { .. } => "set_back",
            Self::Tampered { .. } => "tampered",
            Self::Unreadable { .. } => "unreadable",
            Self::Late { .. } => "late",
            Self::Future { .. } => "future",
            Self::Issued { .. } | Self::IssuedMore { .. } => "issued",
            Self::Unlogged { .. } | Self::UnloggedMore { .. } => "unlogged",
            Self::Waiting { .. } => "waiting",
            Self::Missed { .. } => "missed",
        }
    }

    /// Whether it lasts until it is mended, and is told of once.
    pub(super) fn lasts(&self) -> bool {
        match self {
            Self::Issued { .. }
            | Self::IssuedMore { .. }
            | Self::Unlogged { .. }
            | Self::UnloggedMore { .. }
            | Self::Missed { .. } => false,
            Self::Fork { .. }
            | Self::SetBack { .. }
            | Self::Tampered { .. }
            | Self::Unreadable { .. }
            | Self::Waiting { .. }
            | Self::Late { .. }
            | Self::Future { .. } => true,
        }
    }
}

/// One line.
impl fmt::Display for Alert {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = match &self.what {
            What::Fork { beside, cause } => format!("a fork, beside {beside}: {cause}"),
            What::SetBack { cause } => format!("the log was set back: {cause}"),
            What::Tampered { cause } => format!("the log was changed: {cause}"),
            What::Unreadable { cause } => format!("it cannot be read: {cause}"),
            What::Late { age_seconds } => format!("the checkpoint is {} old", output::span(*age_seconds)),
            What::Future { ahead_seconds } => {
                format!("the checkpoint is of the future, {} ahead of this clock", output::span(*ahead_seconds))
            }
            What::Issued { log, index, spiffe_id, id, at } => {
                format!("issued for {spiffe_id}: {id}, {at}, entry {index} of {log}")
            }
            What::IssuedMore { log, count } => format!("issued for the watch list: {count} more, in {log}"),
            What::Unlogged { spiffe_id, serial, certificate, by, at } => format!(
                "a {by} presented a certificate that is in no log, {at}: {spiffe_id}, serial number {serial}, SHA-256 {certificate}"
            ),
            What::UnloggedMore { count } => format!("certificates that are in no log: {count} more"),
            What::Waiting { count } => {
                format!(
                    "{count} certificates wait to be looked for: not every log was read to after they were presented"
                )
            }
            What::Missed { count } => {
                format!(
                    "{count} certificates were presented that were listed no more, or had ended, when they were read"
                )
            }
        };
        f.write_str(&output::harmless(&format!("{}: {}: {text}", self.what.kind(), self.source)))
    }
}
