//! `signet audit digest verify`: that what was logged in each hour is what was said of it when the hour ended.

use serde::Serialize;
use signet_audit::{Hour, SignedCheckpoint, Source as _, verify_digests};

use super::key_of;
use super::place::Place;
use crate::args::AuditDigestVerifyOptions;
use crate::failure::Failure;
use crate::output::{self, Format, Report};

pub(crate) fn verify(options: &AuditDigestVerifyOptions, format: Format) -> Result<(), Failure> {
    let AuditDigestVerifyOptions { log, from } = options;
    let key = key_of(&log.key)?;
    let place = Place::of(&log.log)?;
    let wrong = |cause: &dyn std::fmt::Display| Failure::new(format!("{}: {cause}", log.log));
    let note = place.checkpoint().map_err(|error| wrong(&error))?;
    let today = SignedCheckpoint::open(&note, &key).map_err(|error| wrong(&format_args!("the checkpoint: {error}")))?;
    let from = from.map(|from| {
        let hour = u64::try_from(from.unix_timestamp()).ok().and_then(Hour::of);
        hour.ok_or_else(|| Failure::new("--from is no time that a log can have"))
    });
    let from = from.transpose()?;
    let found = verify_digests(&place, &today, &key, from, |_| ()).map_err(|error| {
        Failure::new(signet_process::start::Report::of(&error).cause)
            .remedy("this log cannot be relied on: keep a copy of it, and ask whoever runs the issuer")
    })?;
    let told = found.map_or(Told { log: key.origin().to_string(), ..Told::default() }, |found| Told {
        log: key.origin().to_string(),
        digests: found.count,
        empty: found.empty,
        from: found.from.to_string(),
        to: found.to.to_string(),
    });
    output::print(format, &told)
}

#[derive(Default, Serialize)]
struct Told {
    log: String,
    digests: u64,
    empty: u64,
    #[serde(skip_serializing_if = "String::is_empty")]
    from: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    to: String,
}

impl Report for Told {
    fn rows(&self) -> Vec<(&'static str, String)> {
        let digests = match self.digests {
            0 => "none yet: no hour has ended".to_owned(),
            count => format!(
                "{count}, each signed and chained to the one before; {} of them of hours without an entry",
                self.empty
            ),
        };
        let mut rows = vec![("log", self.log.clone()), ("digests", digests)];
        if self.digests > 0 {
            rows.push(("from", self.from.clone()));
            rows.push(("to", self.to.clone()));
        }
        rows
    }
}
