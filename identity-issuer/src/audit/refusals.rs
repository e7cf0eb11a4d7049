//! Who was refused: in the log too, and not so often that strangers could fill it.

use std::sync::Arc;

use signet_audit::{Act, Text};
use signet_process::log_limit::LogLimit;

use crate::store::Outbox;

/// Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Refusals {
    outbox: Outbox,
    limit: Arc<LogLimit>,
}

impl Refusals {
    pub(crate) fn new(outbox: Outbox) -> Self {
        Self { outbox, limit: Arc::default() }
    }

    /// `what` was asked for, by or for `whom`. Returns how many were left out since the last that was written down; None where this one is.
    pub(crate) fn tell(&self, what: &str, whom: &str, reason: &str) -> Option<u64> {
        let left_out = self.limit.admit()?;
        let (whom, reason) = (Text::from(whom), Text::from(reason));
        self.outbox.post(Act::Refused { what: what.to_owned(), whom, reason, left_out });
        Some(left_out)
    }
}
