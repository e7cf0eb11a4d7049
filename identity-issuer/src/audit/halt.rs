//! Where a log is found to have two histories, nothing more of it is signed.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use signet_process::admin::{Readiness, State};

use super::metrics::AuditMetrics;

/// Until the process ends: only people can tell which history is the right one. Clones share it.
#[derive(Clone, Debug)]
pub(crate) struct Halt {
    is_halted: Arc<AtomicBool>,
    metrics: AuditMetrics,
    readiness: Readiness,
}

const AUDIT_LOG: &str = "audit_log";

impl Halt {
    pub(crate) fn new(metrics: AuditMetrics, readiness: Readiness) -> Self {
        Self { is_halted: Arc::default(), metrics, readiness }
    }

    pub(super) fn halt(&self, because: &str) {
        if self.is_halted.swap(true, Ordering::Relaxed) {
            return;
        }
        self.metrics.halted();
        self.readiness.set(AUDIT_LOG, State::NotReady { reason: format!("it is not signed any more: {because}") });
        tracing::error!(
            because,
            "the audit log has two histories, and no checkpoint is signed any more; end whoever else has this issuer's state, end this one, and begin another log: `signet audit new-log`"
        );
    }

    pub(super) fn is_halted(&self) -> bool {
        self.is_halted.load(Ordering::Relaxed)
    }
}
