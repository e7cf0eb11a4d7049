//! The frame of a binary's `main`: what it did wrong is said once, on stderr, with what to do.
//!
//! ```text
//! error: gateway.yaml:14:7: unknown key `upstrem` in listener `orders`
//!   did you mean `upstream`? known keys: listen, mode, protocol, allow, deny, upstream
//! ```
//!
//! An error type gives its fix as the second line of its `Display`.

use std::error::Error;
use std::process::ExitCode;

/// Runs a binary's body: 0 when it succeeds, 1 with the error on stderr when it fails, 2 when it fails by [`Usage`].
///
/// Arguments that clap refuses end the process with 2 by themselves.
///
/// ```no_run
/// fn main() -> std::process::ExitCode {
///     signet_process::start::main(|| Err("no certificate\ngive one with `--certificate`"))
/// }
/// ```
pub fn main<E: Into<Box<dyn Error + Send + Sync>>>(body: impl FnOnce() -> Result<(), E>) -> ExitCode {
    match body().map_err(Into::into) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{}", Report::of(error.as_ref()));
            if error.is::<Usage>() { ExitCode::from(2) } else { ExitCode::FAILURE }
        }
    }
}

/// Wrong usage that only shows after the arguments are parsed: exit code 2.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Usage(pub String);

/// An error as people are told of it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Report {
    /// The error and its causes on one line, from the outside in; a cause that the line already says is left out.
    pub cause: String,
    /// What to do: the outermost advice in the chain.
    pub fix: Option<String>,
}

impl Report {
    /// Flattens an error and all its sources.
    pub fn of(error: &(dyn Error + 'static)) -> Self {
        let mut report = Self { cause: String::new(), fix: None };
        let mut next = Some(error);
        while let Some(error) = next {
            let text = error.to_string();
            let (what, fix) = match text.split_once('\n') {
                Some((what, fix)) => (what.trim_end(), Some(one_line(fix))),
                None => (text.as_str(), None),
            };
            if report.cause.is_empty() {
                report.cause.push_str(what);
            } else if !report.cause.contains(what) {
                report.cause.push_str(": ");
                report.cause.push_str(what);
            }
            report.fix = report.fix.or(fix.filter(|fix| !fix.is_empty()));
            next = error.source();
        }
        report
    }
}

impl std::fmt::Display for Report {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "error: {}", harmless(&self.cause))?;
        match &self.fix {
            Some(fix) => write!(f, "\n  {}", harmless(fix)),
            None => Ok(()),
        }
    }
}

/// On one line, and nothing that a terminal takes for a command: much of what is shown was written by strangers.
pub fn harmless(text: &str) -> String {
    let plain = |character: char| character.escape_debug().count() == 1 || matches!(character, '"' | '\'' | '\\');
    text.chars().flat_map(|c| if plain(c) { vec![c] } else { c.escape_debug().collect() }).collect()
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("listener `orders`: cannot listen on 127.0.0.1:80")]
    struct Outer(#[source] Middle);

    #[derive(Debug, thiserror::Error)]
    #[error("cannot listen on 127.0.0.1:80\nchoose a port above 1023,\n   or grant CAP_NET_BIND_SERVICE")]
    struct Middle(#[source] io::Error);

    #[test]
    fn what_strangers_wrote_is_no_command_to_a_terminal() {
        assert_eq!(harmless("a\n\u{1b}[2J\u{202e}\u{9b}1mb"), "a\\n\\u{1b}[2J\\u{202e}\\u{9b}1mb");
        assert_eq!(harmless("é \"quoted\" it's C:\\ 日本"), "é \"quoted\" it's C:\\ 日本");
        let report = Report { cause: "of \u{9b}31m".to_owned(), fix: Some("ask \u{7f}".to_owned()) };
        assert_eq!(report.to_string(), "error: of \\u{9b}31m\n  ask \\u{7f}");
    }

    #[test]
    fn a_chain_of_causes_becomes_one_line_without_repetition_and_one_of_advice() {
        let error = Outer(Middle(io::Error::new(io::ErrorKind::PermissionDenied, "permission denied")));
        assert_eq!(
            Report::of(&error).to_string(),
            "error: listener `orders`: cannot listen on 127.0.0.1:80: permission denied\n  \
             choose a port above 1023, or grant CAP_NET_BIND_SERVICE"
        );
    }

    #[test]
    fn the_outermost_advice_wins() {
        #[derive(Debug, thiserror::Error)]
        #[error("no admin address\nset `admin:`")]
        struct Outermost(#[source] Outer);

        let error = Outermost(Outer(Middle(io::Error::other("x"))));
        assert_eq!(Report::of(&error).fix.as_deref(), Some("set `admin:`"));
    }

    #[test]
    fn success_is_0_failure_is_1_and_wrong_usage_is_2() {
        let code = |result: Result<(), Box<dyn Error + Send + Sync>>| format!("{:?}", main(|| result));
        assert_eq!(code(Ok(())), format!("{:?}", ExitCode::SUCCESS));
        assert_eq!(code(Err("broken".into())), format!("{:?}", ExitCode::from(1)));
        assert_eq!(code(Err(Usage("no such noun".to_owned()).into())), format!("{:?}", ExitCode::from(2)));
    }
}
