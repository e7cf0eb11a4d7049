//! Logs on stderr: lines for people at a terminal, JSON for everything else, at a level that can change while running.
//!
//! The level moves Signet's own crates. Libraries stay at `warn`, whatever is asked for: hyper and h2 write header
//! values at `debug` and `trace`, and those hold other people's tokens.

use std::fmt;
use std::io::{self, IsTerminal as _};
use std::str::FromStr;
use std::sync::{Arc, Mutex, PoisonError};

use tracing::Level;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::{Targets, filter_fn};
use tracing_subscriber::layer::{Layer as _, SubscriberExt as _};
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{Registry, fmt as lines, reload};

/// How an event is written.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Format {
    /// A line with colours.
    Terminal,
    /// One JSON object a line.
    Json,
}

impl Format {
    /// What suits the stderr of this process.
    pub fn auto() -> Self {
        if io::stderr().is_terminal() { Self::Terminal } else { Self::Json }
    }
}

/// How much is written: `off`, `error`, `warn`, `info`, `debug`, `trace`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct LogLevel(LevelFilter);

impl FromStr for LogLevel {
    type Err = UnknownLevel;

    fn from_str(text: &str) -> Result<Self, UnknownLevel> {
        let level = match text {
            "off" => LevelFilter::OFF,
            "error" => LevelFilter::ERROR,
            "warn" => LevelFilter::WARN,
            "info" => LevelFilter::INFO,
            "debug" => LevelFilter::DEBUG,
            "trace" => LevelFilter::TRACE,
            _ => return Err(UnknownLevel),
        };
        Ok(Self(level))
    }
}

impl fmt::Display for LogLevel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Text that names no level.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("no log level\nuse one of: off, error, warn, info, debug, trace")]
pub struct UnknownLevel;

/// Starts logging for the whole process, at the level in `SIGNET_LOG`, else `info`.
///
/// Where something else already logs (a test, a program that embeds Signet), that stays and the handle moves nothing.
pub fn init(format: Format) -> LogHandle {
    let asked = std::env::var("SIGNET_LOG").ok();
    let level = asked.as_deref().map(str::parse).and_then(Result::ok).unwrap_or(DEFAULT_LEVEL);
    let (filter, reload) = reload::Layer::new(targets(level));
    let output = match format {
        Format::Terminal => lines::layer().with_writer(io::stderr).boxed(),
        Format::Json => {
            let json = || lines::layer().json().flatten_event(true).with_writer(io::stderr);
            // What administrative events are about is their `target`. A second one in the same object would hide it from readers.
            let administration = json().with_target(false).with_filter(filter_fn(|of| of.target() == ADMINISTRATION));
            json().with_filter(filter_fn(|of| of.target() != ADMINISTRATION)).and_then(administration).boxed()
        }
    };
    let installed = tracing_subscriber::registry().with(output.with_filter(filter)).try_init().is_ok();
    let handle = LogHandle(Arc::new(Shared { reload: installed.then_some(reload), level: Mutex::new(level) }));
    if let Some(asked) = asked.filter(|asked| asked.parse::<LogLevel>().is_err()) {
        tracing::warn!(SIGNET_LOG = asked, level = %level, "no such log level; use one of: off, error, warn, info, debug, trace");
    }
    handle
}

/// Changes the level of the process that [`init`] began to log for. Clones move the same level.
#[derive(Clone)]
pub struct LogHandle(Arc<Shared>);

struct Shared {
    reload: Option<reload::Handle<Targets, Registry>>,
    level: Mutex<LogLevel>,
}

impl LogHandle {
    /// The level that events are written at.
    pub fn level(&self) -> LogLevel {
        *self.0.level.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes events up to `level` from now on. Says whether the logging is ours to change.
    pub fn set_level(&self, level: LogLevel) -> bool {
        let mut current = self.0.level.lock().unwrap_or_else(PoisonError::into_inner);
        let moved = self.0.reload.as_ref().is_some_and(|reload| reload.reload(targets(level)).is_ok());
        if moved {
            *current = level;
        }
        moved
    }
}

impl fmt::Debug for LogHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("LogHandle").field(&self.level()).finish()
    }
}

fn targets(level: LogLevel) -> Targets {
    let administration = if level.0 == LevelFilter::OFF { level.0 } else { level.0.max(LevelFilter::INFO) };
    Targets::new()
        .with_target(ADMINISTRATION, administration)
        .with_default(level.0.min(LevelFilter::from_level(Level::WARN)))
        .with_targets(OWN_TARGETS.map(|target| (target, level.0)))
}

/// The crates of this workspace; a target covers whatever begins with it, so `signet` is all but the issuer.
const OWN_TARGETS: [&str; 2] = ["signet", "identity_issuer"];

/// The target of the events that tell who administered what. They are written at any level but `off`: what an operator has done is no
/// detail.
pub const ADMINISTRATION: &str = "signet_administration";

const DEFAULT_LEVEL: LogLevel = LogLevel(LevelFilter::INFO);

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::process::Command;

    use super::*;

    /// Logs in a process of its own, where it is the only one that does.
    #[test]
    fn child() {
        if std::env::var_os("SIGNET_TEST_LOGGING").is_none() {
            return;
        }
        let log = init(Format::Json);
        tracing::debug!("too early");
        assert!(log.set_level("debug".parse().unwrap()));
        tracing::debug!(serial = "0a", "a fact");
        tracing::debug!(target: "h2::codec", authorization = "secret");
        assert!(!init(Format::Json).set_level("off".parse().unwrap()), "the second to begin moves nothing");
        tracing::info!(target: ADMINISTRATION, target = "/shop/cart", "administration");
        tracing::error!("still there");
    }

    fn lines_of_child(level: &str) -> Vec<serde_json::Value> {
        let output = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "logging::tests::child", "--nocapture"])
            .env("SIGNET_TEST_LOGGING", "1")
            .env("SIGNET_LOG", level)
            .output()
            .unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stderr).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    #[test]
    fn events_are_json_lines_whose_level_moves_while_running() {
        let lines = lines_of_child("info");
        let messages: Vec<_> = lines.iter().map(|line| line["message"].as_str().unwrap()).collect();
        assert_eq!(messages, ["a fact", "administration", "still there"]);
        assert_eq!((&lines[0]["serial"], &lines[0]["level"]), (&"0a".into(), &"DEBUG".into()));
        assert_eq!(lines[0]["target"], "signet_process::logging::tests");
        // Of two, this would be the last one.
        assert_eq!(lines[1]["target"], "/shop/cart");
    }

    #[test]
    fn a_wrong_level_in_the_environment_is_told_and_info_is_used() {
        let lines = lines_of_child("loud");
        assert_eq!(lines[0]["SIGNET_LOG"], "loud");
        assert_eq!(lines[1]["message"], "a fact");
    }

    #[test]
    fn a_level_is_one_of_six_words() {
        for text in ["off", "error", "warn", "info", "debug", "trace"] {
            assert_eq!(text.parse::<LogLevel>().map(|level| level.to_string()), Ok(text.to_owned()));
        }
        for text in ["", "DEBUG", "verbose", "hyper=trace", "info,h2=trace"] {
            assert_eq!(text.parse::<LogLevel>(), Err(UnknownLevel), "{text}");
        }
    }

    #[test]
    fn who_administered_what_is_written_at_any_level() {
        for level in ["error", "warn", "info", "trace"] {
            let LogLevel(level) = level.parse().unwrap();
            assert!(targets(LogLevel(level)).would_enable(ADMINISTRATION, &Level::INFO), "{level}");
        }
        assert!(!targets(LogLevel(LevelFilter::OFF)).would_enable(ADMINISTRATION, &Level::ERROR));
    }

    #[test]
    fn trace_is_for_our_own_crates_and_never_for_those_that_see_header_values() {
        let filter = targets(LogLevel(LevelFilter::TRACE));
        assert!(filter.would_enable("signet_gateway::http", &Level::TRACE));
        assert!(filter.would_enable("identity_issuer::issuance", &Level::TRACE));
        for library in ["h2::codec", "hyper::proto", "rustls::server", "tonic", "sqlx::query"] {
            assert!(filter.would_enable(library, &Level::WARN), "{library}");
            assert!(!filter.would_enable(library, &Level::INFO), "{library}");
        }
        assert!(!targets(LogLevel(LevelFilter::ERROR)).would_enable("h2", &Level::WARN));
    }
}
