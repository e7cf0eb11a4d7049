//! The end of a process: asked once it drains, asked twice it goes at once.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// Signals could not be taken over from the system.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen for signals")]
pub struct SignalError(#[from] io::Error);

/// A token that SIGINT or SIGTERM cancels. A second signal ends the process at once, with 130 or 143.
///
/// Signals are awaited on a thread of their own: they are heard however busy or stuck the process's runtimes are.
pub fn signals() -> Result<CancellationToken, SignalError> {
    let token = CancellationToken::new();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    let (mut interrupt, mut terminate) = {
        let _inside = runtime.enter();
        (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?)
    };
    let asked = token.clone();
    std::thread::Builder::new().name("signet-signals".to_owned()).spawn(move || {
        runtime.block_on(async {
            let (name, _) = either(&mut interrupt, &mut terminate).await;
            tracing::info!(signal = name, "shutting down; a second signal ends at once");
            asked.cancel();
            let (name, code) = either(&mut interrupt, &mut terminate).await;
            tracing::warn!(signal = name, "ending at once");
            std::process::exit(code);
        });
    })?;
    Ok(token)
}

async fn either(interrupt: &mut Signal, terminate: &mut Signal) -> (&'static str, i32) {
    tokio::select! {
        _ = interrupt.recv() => ("SIGINT", 128 + SignalKind::interrupt().as_raw_value()),
        _ = terminate.recv() => ("SIGTERM", 128 + SignalKind::terminate().as_raw_value()),
    }
}
