//! Asks a person before something is done.

use std::io::{self, BufRead as _, IsTerminal as _, Write as _};

use crate::failure::Failure;

/// Where there is nobody to ask, or the answer is another than yes, nothing is done.
pub(crate) fn confirm(question: &str) -> Result<(), Failure> {
    if !io::stdin().is_terminal() {
        return Err(
            Failure::new("nothing was changed: there is nobody to ask").remedy("add --yes to apply it as it is")
        );
    }
    let asked = write!(io::stderr(), "{question} [y/N] ").and_then(|()| io::stderr().flush());
    asked.map_err(|error| Failure::from_error(&error))?;
    let mut answer = String::new();
    io::stdin().lock().read_line(&mut answer).map_err(|error| Failure::from_error(&error))?;
    match answer.trim() {
        "y" | "Y" | "yes" => Ok(()),
        _ => Err(Failure::new("nothing was changed").remedy("answer y, or add --yes, to apply it")),
    }
}
