//! Where a log is found to have two histories, nothing more of it is signed.

use std::sync::{Arc, OnceLock};

use signet_process::admin::{Readiness, State};

use super::metrics::AuditMetrics;

/// Until the process ends: only people can tell which history is the right one. Clones share it.
#[derive(Clone, Debug)]
pub(crate) struct Halt {
    because: Arc<OnceLock<String>>,
    metrics: AuditMetrics,
    readiness: Readiness,
}

const AUDIT_LOG: &str = "audit_log";

impl Halt {
    pub(crate) fn new(metrics: AuditMetrics, readiness: Readiness) -> Self {
        Self { because: Arc::default(), metrics, readiness }
    }

    pub(super) fn halt(&self, because: &str) {
        if self.because.set(because.to_owned()).is_err() {
            return;
        }
        self.metrics.halted();
        self.readiness.set(AUDIT_LOG, State::NotReady { reason: format!("it is not signed any more: {because}") });
        tracing::error!(
            because,
            "the audit log has two histories, and no checkpoint is signed any more; end whoever else has this issuer's state, end this one, and begin another log: `signet audit new-log`"
        );
    }

    pub(super) fn because(&self) -> Option<&str> {
        self.because.get().map(String::as_str)
    }
}
