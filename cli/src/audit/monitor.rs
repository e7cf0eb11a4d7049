//! `signet audit monitor`: follows logs, each as it grows, and raises its voice.
//!
//! ```text
//! source ──► checkpoint ──► is it later than the one before, and does it follow the head? ──► new entries, verified ──► watch list
//!    one thread for each        (consistency proofs; `heads` has the largest tree of each log that any source has shown)
//! ```
//! A source that is slow or away holds up nobody else. Memory does not grow with the logs: of each there is one checkpoint.

mod alert;
mod heads;
mod source;
mod telling;

use std::path::Path;
use std::sync::mpsc::sync_channel;
use std::time::Duration;

use signet_audit::VerifierKey;

use super::key_in;
use super::place::Place;
use crate::args::AuditMonitorOptions;
use crate::failure::Failure;
use crate::output::Format;

use heads::Heads;
use source::Followed;
use telling::Telling;

/// What all threads need.
struct Watching<'a> {
    options: &'a AuditMonitorOptions,
    keys: Vec<VerifierKey>,
    heads: Heads<'a>,
}

/// Alerts that wait to be written; whoever finds more waits.
const MOST_WAITING: usize = 64;

pub(crate) fn monitor(options: &AuditMonitorOptions, format: Format) -> Result<(), Failure> {
    let keys = keys_of(options)?;
    let mut telling = Telling::start(options, format)?;
    if let Some(folder) = &options.state {
        let made = std::fs::create_dir_all(folder);
        made.map_err(|error| Failure::new(format!("{}: {error}", folder.display())))?;
    }
    let places = options.logs.iter().map(|log| Place::of(log).map(|place| (log.clone(), place)));
    let places: Vec<(String, Place)> = places.collect::<Result<_, _>>()?;
    let watching = Watching { options, keys, heads: Heads::default() };
    let mut followed: Vec<Followed<'_>> = places.iter().map(|(name, place)| Followed::new(name, place)).collect();
    for source in &mut followed {
        source.remember(&watching)?;
    }
    let (alerts, raised) = sync_channel(MOST_WAITING);
    std::thread::scope(|scope| {
        for mut source in followed {
            let (alerts, watching) = (alerts.clone(), &watching);
            scope.spawn(move || {
                loop {
                    // It ends with whoever hears.
                    if source.look(watching, &alerts).is_err() || options.once {
                        return;
                    }
                    std::thread::sleep(options.interval);
                }
            });
        }
        drop(alerts);
        telling.tell_all(&raised)
    })?;
    match telling.told() {
        0 => Ok(()),
        1 => Err(Failure::new("1 alert, which stands above")),
        count => Err(Failure::new(format!("{count} alerts, which stand above"))),
    }
}

fn keys_of(options: &AuditMonitorOptions) -> Result<Vec<VerifierKey>, Failure> {
    let mut keys = options.key.clone();
    for path in &options.key_file {
        keys.push(key_in(path)?);
    }
    match keys.is_empty() {
        true => Err(Failure::new("no key").remedy("give --key or --key-file, for each log")),
        false => Ok(keys),
    }
}

/// A file for what was seen at a source.
fn state_file(folder: &Path, source: &str) -> std::path::PathBuf {
    folder.join(format!("{}.checkpoint", hex::encode(&signet_audit::sha256(source.as_bytes())[..8])))
}

/// Seconds since 1970.
fn now() -> u64 {
    u64::try_from(time::OffsetDateTime::now_utc().unix_timestamp()).unwrap_or(0)
}

/// How far a clock may be off that signs checkpoints.
const SKEW: Duration = super::SKEW;
