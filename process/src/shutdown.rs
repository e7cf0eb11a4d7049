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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::io::{BufRead as _, BufReader};
    use std::process::{Child, Command, ExitStatus, Stdio};

    use super::*;

    /// What the child process does: says when it listens, and again when it is asked to end; then it hangs, unless it
    /// is to end well.
    #[test]
    fn child() {
        let Some(ends) = std::env::var_os("SIGNET_TEST_SHUTDOWN") else { return };
        let token = signals().unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        println!("listening");
        runtime.block_on(token.cancelled());
        println!("asked");
        if ends != "well" {
            std::thread::sleep(std::time::Duration::from_secs(60));
        }
        std::process::exit(0);
    }

    /// Runs [`child`] and sends it `signals`, each one after it has spoken again.
    fn signalled(ends: &str, signals: &[&str]) -> ExitStatus {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "shutdown::tests::child", "--nocapture"])
            .env("SIGNET_TEST_SHUTDOWN", ends)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
        for (signal, word) in signals.iter().zip(["listening", "asked"]) {
            assert!(lines.any(|line| line.ends_with(word)), "the child says {word}");
            send(&child, signal);
        }
        child.wait().unwrap()
    }

    fn send(child: &Child, signal: &str) {
        let sent = Command::new("sh").args(["-c", "kill -\"$0\" \"$1\"", signal, &child.id().to_string()]).status();
        assert!(sent.unwrap().success());
    }

    #[test]
    fn the_first_signal_asks_and_the_process_ends_in_its_own_time() {
        assert_eq!(signalled("well", &["INT"]).code(), Some(0));
        assert_eq!(signalled("well", &["TERM"]).code(), Some(0));
    }

    #[test]
    fn the_second_signal_ends_a_process_that_hangs_with_the_signals_code() {
        assert_eq!(signalled("never", &["TERM", "INT"]).code(), Some(130));
        assert_eq!(signalled("never", &["INT", "TERM"]).code(), Some(143));
    }
}
