//! Whether the CA keys are within reach, looked at all the time: readiness tells, and metrics, before somebody asks for a certificate.

use std::time::Duration;

use signet_process::admin::{Readiness, State};

use super::Authorities;
use crate::complaint::Complaint;
use crate::metrics::Metrics;

/// Cheap for files, and one login for a token.
const LOOK: Duration = Duration::from_secs(2);

/// A look that takes longer says that nothing can be signed now.
const PATIENCE: Duration = Duration::from_secs(8);

const KEYS: &str = "keys";

#[derive(Debug)]
pub(crate) struct Reach {
    authorities: Authorities,
    readiness: Readiness,
    metrics: Metrics,
}

impl Reach {
    pub(crate) fn of(authorities: Authorities, readiness: Readiness, metrics: Metrics) -> Self {
        Self { authorities, readiness, metrics }
    }

    /// Until cancelled.
    pub(crate) async fn run(self) {
        let mut complaint = Complaint::default();
        loop {
            let authorities = self.authorities.clone();
            // A token may take its time.
            let mut looking = tokio::task::spawn_blocking(move || authorities.check_keys());
            let found = loop {
                match tokio::time::timeout(PATIENCE, &mut looking).await {
                    Ok(found) => break found,
                    // One look at a time: each that hangs is a thread.
                    Err(_) => self.out_of_reach("what keeps the keys does not answer"),
                }
            };
            match found {
                Ok(Ok(())) => {
                    self.readiness.set(KEYS, State::Ready);
                    if self.metrics.keys_out_of_reach(false) {
                        tracing::info!("the CA keys are within reach again");
                    }
                    complaint.clear();
                }
                Ok(Err(error)) => {
                    self.out_of_reach(&signet_process::start::Report::of(&error).cause);
                    if let Some(cause) = complaint.of(&error) {
                        tracing::error!(cause, "the CA keys are out of reach");
                    }
                }
                // The process ends.
                Err(_) => return,
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    fn out_of_reach(&self, why: &str) {
        self.readiness.set(KEYS, State::NotReady { reason: format!("nothing can be signed: {why}") });
        self.metrics.keys_out_of_reach(true);
    }
}
