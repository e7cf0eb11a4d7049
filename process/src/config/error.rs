//! Why a configuration is refused, where, and what to write instead.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use serde_saphyr::MessageFormatter as _;

use super::Budget;
use super::place::Place;

/// A configuration that cannot be used.
///
/// Displays as `gateway.yaml:14:7: unknown key `upstrem` in listener `orders``; the fix, when there is one, follows on
/// a second line, which [`start`](crate::start) prints below the cause.
#[derive(Debug)]
pub struct ConfigError {
    path: PathBuf,
    position: Option<(u32, u32)>,
    what: String,
    fix: Option<String>,
    source: Option<io::Error>,
}

impl ConfigError {
    /// An error that concerns the whole file.
    pub fn new(path: &Path, what: impl Into<String>) -> Self {
        Self { path: path.to_owned(), position: None, what: what.into(), fix: None, source: None }
    }

    /// The same error at a line and a column, both counted from 1.
    #[must_use]
    pub fn at(mut self, line: u32, column: u32) -> Self {
        self.position = Some((line, column));
        self
    }

    /// The same error with what to do about it, on one line.
    #[must_use]
    pub fn with_fix(mut self, fix: impl Into<String>) -> Self {
        self.fix = Some(fix.into());
        self
    }

    /// The file as the caller named it.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Line and column, counted from 1; none when the whole file is meant.
    pub fn position(&self) -> Option<(u32, u32)> {
        self.position
    }

    /// What is wrong, without the place.
    pub fn what(&self) -> &str {
        &self.what
    }

    /// What to do about it.
    pub fn fix(&self) -> Option<&str> {
        self.fix.as_deref()
    }

    pub(super) fn unreadable(path: &Path, cause: io::Error) -> Self {
        let fix = match cause.kind() {
            io::ErrorKind::NotFound => "give the path of an existing file with `--config`",
            io::ErrorKind::PermissionDenied => "let the user of this process read the file",
            _ => "check the path given with `--config`",
        };
        Self { source: Some(cause), ..Self::new(path, "not readable").with_fix(fix) }
    }

    pub(super) fn of_yaml(path: &Path, text: &str, budget: &Budget, cause: &serde_saphyr::Error) -> Self {
        let cause = innermost(cause);
        let position = cause.location().filter(|at| at.line() > 0);
        let find = |at: serde_saphyr::Location| Place::find(text, budget, at.line() as u32, at.column() as u32);
        let place = position.map(find).unwrap_or_default();
        let error = explain(path, &place, cause);
        match position {
            Some(at) => error.at(at.line() as u32, at.column() as u32),
            None => error,
        }
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.path.display())?;
        if let Some((line, column)) = self.position {
            write!(f, ":{line}:{column}")?;
        }
        write!(f, ": {}", self.what)?;
        match &self.fix {
            Some(fix) => write!(f, "\n{fix}"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for ConfigError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_ref().map(|cause| cause as _)
    }
}

/// Says in an operator's words what the parser found.
fn explain(path: &Path, place: &Place, cause: &serde_saphyr::Error) -> ConfigError {
    use serde_saphyr::Error as Yaml;
    let of_value = |what: String| ConfigError::new(path, format!("{}{what}", place.value_prefix()));
    match cause {
        Yaml::SerdeUnknownField { field, expected, .. } => {
            ConfigError::new(path, format!("unknown key `{}`{}", field.escape_debug(), place.container_suffix()))
                .with_fix(suggest(field, expected, "known keys"))
        }
        Yaml::SerdeUnknownVariant { variant, expected, .. } => of_value(format!(
            "unknown value `{}`",
            variant.escape_debug()
        ))
        .with_fix(suggest(variant, expected, "known values")),
        Yaml::SerdeMissingField { field, .. } => {
            ConfigError::new(path, format!("missing key `{field}`{}", place.inside_suffix()))
                .with_fix(format!("add `{field}:` with its value"))
        }
        Yaml::DuplicateMappingKey { key, .. } => {
            let key = key.as_deref().unwrap_or("?").escape_debug();
            ConfigError::new(path, format!("key `{key}` stands twice{}", place.container_suffix()))
                .with_fix("keep one of the two")
        }
        Yaml::SerdeInvalidType { unexpected, expected, .. } | Yaml::SerdeInvalidValue { unexpected, expected, .. } => {
            of_value(format!("found {unexpected}")).with_fix(format!("write {expected}"))
        }
        Yaml::InvalidBooleanStrict { .. } => of_value("not a truth value".into()).with_fix("write `true` or `false`"),
        Yaml::InvalidScalar { ty, .. } => of_value(format!("not a valid {ty}")).with_fix(format!("write a {ty}")),
        Yaml::MergeKeyNotAllowed { .. } => {
            ConfigError::new(path, "merge keys (`<<`) are not allowed").with_fix("write the keys out")
        }
        Yaml::Budget { breach, .. } => {
            let (what, fix) = excess(breach);
            ConfigError::new(path, what).with_fix(fix)
        }
        Yaml::Eof { .. } => ConfigError::new(path, "the file is empty").with_fix("write the configuration into it"),
        // Our own value types and `TryFrom`s speak here: the cause, and after a line break what to write.
        Yaml::Message { msg, .. } => match msg.split_once('\n') {
            Some((what, fix)) => of_value(what.to_owned()).with_fix(fix),
            // Of the types of std that a file may hold, this one alone is not understood at sight.
            None if msg.ends_with("socket address syntax") => {
                of_value(msg.clone()).with_fix("write an IP address and a port, such as `127.0.0.1:8080`")
            }
            None => of_value(msg.clone()),
        },
        other => ConfigError::new(path, serde_saphyr::UserMessageFormatter.format_message(other).into_owned())
            .with_fix("check the YAML syntax around this place"),
    }
}

/// What there is too much of, and what to do about it.
fn excess(breach: &serde_saphyr::budget::BudgetBreach) -> (&'static str, &'static str) {
    use serde_saphyr::budget::BudgetBreach as Breach;
    match breach {
        Breach::Aliases { .. } | Breach::Anchors { .. } | Breach::AliasAnchorRatio { .. } => {
            ("there are more anchors (`&`) or aliases (`*`) than may be here", "write out what they stand for")
        }
        Breach::Depth { .. } => ("it is nested too deep", "check the indentation around this place"),
        _ => ("there is more in it than may be in one document", "write less of it"),
    }
}

/// `did you mean `upstream`? known keys: …`, with the guess only when it is near enough to be one.
fn suggest(found: &str, known: &[&'static str], label: &str) -> String {
    if known.is_empty() {
        return "remove it: nothing may stand here".to_owned();
    }
    let list = known.join(", ");
    let guess = known
        .iter()
        .map(|candidate| (strsim::damerau_levenshtein(found, candidate), candidate))
        .filter(|(distance, candidate)| *distance <= 1 + candidate.len() / 4)
        .min_by_key(|(distance, _)| *distance);
    match guess {
        Some((_, candidate)) => format!("did you mean `{candidate}`? {label}: {list}"),
        None => format!("{label}: {list}"),
    }
}

/// The error itself, out of the wrappers that tell of aliases and snippets.
fn innermost(mut error: &serde_saphyr::Error) -> &serde_saphyr::Error {
    use serde_saphyr::Error as Yaml;
    while let Yaml::AliasError { error: inner, .. } | Yaml::WithSnippet { error: inner, .. } = error {
        error = inner;
    }
    error
}
