//! Why a command did not work: one line of cause, one of what to do.

use std::error::Error;
use std::fmt;

use signet_process::start::Report;

#[derive(Debug)]
pub(crate) struct Failure(Report);

impl Failure {
    pub(crate) fn new(cause: impl fmt::Display) -> Self {
        Self(Report { cause: cause.to_string(), fix: None })
    }

    /// An error with its sources, and the advice that they bring.
    pub(crate) fn from_error(error: &(dyn Error + 'static)) -> Self {
        Self(Report::of(error))
    }

    pub(crate) fn remedy(mut self, remedy: impl fmt::Display) -> Self {
        self.0.fix = Some(remedy.to_string());
        self
    }

    /// Advice for an error that brought none.
    pub(crate) fn or_remedy(self, remedy: impl fmt::Display) -> Self {
        if self.0.fix.is_some() { self } else { self.remedy(remedy) }
    }

    pub(crate) fn cause(&self) -> &str {
        &self.0.cause
    }
}

impl Error for Failure {}

/// In the form that [`signet_process::start::main`] reads: the cause, then on a line of its own what to do.
impl fmt::Display for Failure {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.0.cause)?;
        match &self.0.fix {
            Some(fix) => write!(out, "\n{fix}"),
            None => Ok(()),
        }
    }
}
