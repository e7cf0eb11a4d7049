//! `signet audit monitor`: follows logs, each as it grows, and raises its voice.
//!
//! ```text
//! source ──► checkpoint ──► is it later than the one before, and does it follow the head? ──► new entries, verified ──► watch list
//!    one thread for each        (consistency proofs; `heads` has the largest tree of each log that any source has shown)
//!
//! gateway ──► certificates that were presented to it since the last look ──► is each of them in a log that was read to after that?
//!    one thread for each
//! ```
//! A source that is slow or away holds up nobody else. Memory does not grow with the logs: of each there is one checkpoint, and
//! where gateways are followed, the hashes of certificates that have not ended.

mod alert;
mod certificates;
mod gateway;
mod heads;
mod source;
mod telling;

use std::path::Path;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::time::Duration;

use signet_audit::VerifierKey;

use super::key_in;
use super::place::Place;
use crate::args::AuditMonitorOptions;
use crate::failure::Failure;
use crate::output::Format;

use alert::Alert;
use certificates::Certificates;
use gateway::Gateway;
use heads::Heads;
use source::{Followed, Unheard};
use telling::Telling;

/// What all threads need.
struct Watching<'a> {
    options: &'a AuditMonitorOptions,
    keys: Vec<VerifierKey>,
    heads: Heads<'a>,
    /// Of all logs; empty where no gateway is followed.
    certificates: Certificates,
}

impl Watching<'_> {
    fn follows_gateways(&self) -> bool {
        !self.options.gateway.is_empty()
    }
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
    let state = |source: &str| options.state.as_ref().map(|folder| state_file(folder, source, "peers"));
    let gateways = options.gateway.iter().map(|gateway| Gateway::new(gateway, state(gateway)));
    let gateways: Vec<Gateway<'_>> = gateways.collect::<Result<_, _>>()?;
    let watching = Watching { options, keys, heads: Heads::default(), certificates: Certificates::default() };
    let mut followed: Vec<Followed<'_>> = places.iter().map(|(name, place)| Followed::new(name, place)).collect();
    for source in &mut followed {
        source.remember(&watching)?;
    }
    let (alerts, raised) = sync_channel(MOST_WAITING);
    std::thread::scope(|scope| {
        let watching = &watching;
        scope.spawn(move || match options.once {
            // They end with whoever hears.
            true => drop(look_once(watching, followed, gateways, &alerts)),
            false => look_on(watching, followed, gateways, &alerts),
        });
        telling.tell_all(&raised)
    })?;
    match telling.told() {
        0 => Ok(()),
        1 => Err(Failure::new("1 alert, which stands above")),
        count => Err(Failure::new(format!("{count} alerts, which stand above"))),
    }
}

/// Gateways first: what was presented to them by then is in the logs as they are after that.
fn look_once<'a>(
    watching: &Watching<'a>,
    mut followed: Vec<Followed<'a>>,
    mut gateways: Vec<Gateway<'_>>,
    alerts: &SyncSender<Alert>,
) -> Result<(), Unheard> {
    let unread: Vec<_> = gateways.iter_mut().map(|gateway| gateway.read().err()).collect();
    std::thread::scope(|scope| {
        let looking: Vec<_> =
            followed.iter_mut().map(|source| scope.spawn(move || source.look(watching, alerts))).collect();
        // None of them panics.
        looking.into_iter().try_for_each(|looked| looked.join().unwrap_or(Err(Unheard)))
    })?;
    gateways.iter_mut().zip(unread).try_for_each(|(gateway, unread)| gateway.judge(watching, unread, alerts))
}

/// Each in a thread of its own, as long as somebody hears.
fn look_on<'a>(
    watching: &Watching<'a>,
    followed: Vec<Followed<'a>>,
    gateways: Vec<Gateway<'_>>,
    alerts: &SyncSender<Alert>,
) {
    std::thread::scope(|scope| {
        for mut source in followed {
            scope.spawn(move || each_interval(watching, || source.look(watching, alerts)));
        }
        for mut gateway in gateways {
            scope.spawn(move || each_interval(watching, || gateway.look(watching, alerts)));
        }
    });
}

fn each_interval(watching: &Watching<'_>, mut look: impl FnMut() -> Result<(), Unheard>) {
    while look().is_ok() {
        std::thread::sleep(watching.options.interval);
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
fn state_file(folder: &Path, source: &str, what: &str) -> std::path::PathBuf {
    folder.join(format!("{}.{what}", hex::encode(&signet_audit::sha256(source.as_bytes())[..8])))
}

/// Seconds since 1970.
fn now() -> u64 {
    u64::try_from(time::OffsetDateTime::now_utc().unix_timestamp()).unwrap_or(0)
}

/// How far a clock may be off that signs checkpoints.
const SKEW: Duration = super::SKEW;
