//! The audit log of an issuer: opened before anything else is, and tended for as long as it runs.

use std::path::Path;
use std::sync::Arc;

use signet_audit::{Checkpoint, Folder, ProofError, consistency};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::{RunError, until};
use crate::audit::{LogPlace, LogPublisher, Reports, checkpoint_at};
use crate::authority::custody::Custody;
use crate::config::{Audit, Config};

pub(super) async fn open_log(config: &Config, custody: Arc<dyn Custody>) -> Result<LogPlace, RunError> {
    let (state, trust_domain, origin) =
        (config.state.clone(), config.trust_domain.clone(), config.audit.origin.clone());
    let ml_dsa = config.audit.ml_dsa;
    let opening = tokio::task::spawn_blocking(move || {
        let log = LogPlace::open(&*custody, &state, &trust_domain, origin.as_ref())?;
        Ok::<_, RunError>(if ml_dsa { log.with_second_key(&*custody)? } else { log })
    });
    opening.await?
}

/// How many entries of the log the world has seen: in its own folder, or where it is exported to. Where that is away nothing is known of
/// it, and the export itself looks again; but whoever was restored does not go on before it is known, whatever it was told besides.
pub(super) async fn published(config: &Config, log: &LogPlace) -> Result<u64, RunError> {
    let own = log.published();
    let Some(export) = &config.audit.export else {
        return match (log.is_restored(), log.is_told()) {
            (false, _) => Ok(own),
            (true, true) => witnessed(config, log).await,
            (true, false) => Err(RunError::Restored { state: config.state.clone() }),
        };
    };
    let unknown = || RunError::RestoredBeforeExport { state: config.state.clone() };
    let copied = async { checkpoint_at(&export.to.open()?, &log.verifier).await };
    match copied.await {
        Ok(Some(copied)) => {
            goes_on(log, copied.checkpoint.clone()).await?;
            Ok(copied.checkpoint.size.max(own))
        }
        Ok(None) if log.is_restored() => Err(unknown()),
        Ok(None) => Ok(own),
        Err(error) => {
            let cause = signet_process::start::Report::of(&error).cause;
            tracing::warn!(cause, "the exported copy of the audit log was not looked at");
            if log.is_restored() { Err(unknown()) } else { Ok(own) }
        }
    }
}

/// The same for whoever was told, and has nowhere to look but at witnesses.
async fn witnessed(config: &Config, log: &LogPlace) -> Result<u64, RunError> {
    let own = log.published();
    let (Some(witnesses), Some(newest)) = (&config.audit.witnesses, log.newest()) else { return Ok(own) };
    let seen = witnesses.seen(newest).await;
    if let Some(witness) = seen.other {
        return Err(RunError::OtherWitnessed { witness, size: own });
    }
    match witnesses.is_majority(seen.answered) {
        true => Ok(own.max(seen.most)),
        false => Err(RunError::RestoredBeforeWitnesses {
            state: config.state.clone(),
            answered: seen.answered,
            all: witnesses.witnesses.len(),
        }),
    }
}

/// That what was signed here last begins with what was exported.
async fn goes_on(log: &LogPlace, copied: Checkpoint) -> Result<(), RunError> {
    let Some(last) = log.last.as_ref().map(|last| last.checkpoint.clone()) else { return Ok(()) };
    if last.size < copied.size {
        return Ok(());
    }
    let files = Folder::new(&log.files);
    let checking = tokio::task::spawn_blocking(move || consistency(&files, (copied.size, copied.root), &last));
    match checking.await? {
        Err(error @ ProofError::NotConsistent { .. }) => Err(RunError::Forked(error)),
        // What cannot be read is no other history; the export looks again.
        _ => Ok(()),
    }
}

/// Publishes it until `shutdown`, and whatever the configuration asks for beside that.
pub(super) fn tend(
    log: LogPublisher,
    reports: Reports,
    (config, state): (&Audit, &Path),
    shutdown: &CancellationToken,
    background: &mut JoinSet<()>,
) {
    if let Some(to) = config.export.clone() {
        until(shutdown, background, log.export(to).run());
    }
    if let Some(schedule) = config.reports.clone() {
        let scratch = state.join("audit/report.new");
        until(shutdown, background, log.scheduled(schedule, reports, scratch).run());
    }
    if let Some(witnesses) = config.witnesses.clone() {
        until(shutdown, background, log.witnessing(witnesses).run());
    }
    until(shutdown, background, log.run());
}
