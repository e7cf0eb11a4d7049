//! Whether the CA keys are within reach, looked at all the time: readiness tells, and metrics, before somebody asks for a certificate.

use std::time::Duration;

use signet_process::admin::{Readiness, State};

use super::Authorities;
use crate::complaint::Complaint;
use crate::metrics::Metrics;

/// Cheap for files, and one login for a token.
const LOOK: Duration = Duration::from_secs(2);

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
            match tokio::task::spawn_blocking(move || authorities.check_keys()).await {
                Ok(Ok(())) => {
                    self.readiness.set(KEYS, State::Ready);
                    if self.metrics.keys_out_of_reach(false) {
                        tracing::info!("the CA keys are within reach again");
                    }
                    complaint.clear();
                }
                Ok(Err(error)) => {
                    let cause = signet_process::start::Report::of(&error).cause;
                    self.readiness.set(KEYS, State::NotReady { reason: format!("nothing can be signed: {cause}") });
                    self.metrics.keys_out_of_reach(true);
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
}
