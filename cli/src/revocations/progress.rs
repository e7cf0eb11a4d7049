//! How many connected clients have put a revocation in force.

use std::fmt;
use std::io::{self, IsTerminal as _, Write as _};
use std::time::{Duration, Instant};

use serde::Serialize;
use signet_proto::admin::v1::{GetRevocationProgressRequest, GetRevocationProgressResponse};

use crate::admin;
use crate::args::RevokeOptions;
use crate::failure::Failure;

#[derive(Clone, Copy, Debug, Serialize)]
pub(super) struct Progress {
    /// Clients that have it in force.
    applied: u32,
    /// Of so many that ask for revocations.
    following: u32,
    /// Connected clients that do not ask.
    others: u32,
    waited_seconds: f64,
}

/// Between two looks.
const LOOK: Duration = Duration::from_millis(50);

/// Until all have it, or the time that somebody waits is over.
pub(super) fn wait(options: &RevokeOptions, epoch: u64) -> Result<Progress, Failure> {
    let began = Instant::now();
    let shows = io::stderr().is_terminal();
    admin::call(&options.issuer, async |mut client| {
        loop {
            let answer = client.get_revocation_progress(GetRevocationProgressRequest { epoch }).await?.into_inner();
            let GetRevocationProgressResponse { following, applied, others } = answer;
            let waited = began.elapsed();
            let is_over = applied >= following || waited >= options.wait;
            if shows {
                let end = if is_over { "\n" } else { "" };
                // Nothing hangs on it.
                let _ = write!(io::stderr(), "\rin force at {applied} of {following} clients{end}");
            }
            if is_over {
                return Ok(Progress { applied, following, others, waited_seconds: waited.as_secs_f64() });
            }
            tokio::time::sleep(LOOK).await;
        }
    })
}

impl fmt::Display for Progress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { applied, following, others, waited_seconds } = self;
        write!(f, "at {applied} of {following} connected clients, after {waited_seconds:.2} s")?;
        if *others > 0 {
            write!(f, "; {others} more do not ask for revocations")?;
        }
        Ok(())
    }
}
