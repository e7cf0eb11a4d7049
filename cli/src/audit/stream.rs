//! `signet audit stream`: a log is handed on to a receiver as it grows, each entry verified before it leaves, and none left out.
//!
//! ```text
//! log ── verified, in order ──► batch ── send ──► receiver
//!                                 └── once the receiver has it ──► cursor
//! ```
//! A process of its own beside the issuer, which reads what is published: no receiver can hold up issuing. One batch is in memory at a time.
//! What was sent since the cursor was written is sent again after a start: twice perhaps, never not at all.

mod cursor;
mod item;
mod jsonl;
mod otlp;
mod syslog;
mod tls;

use std::ops::ControlFlow;
use std::thread::sleep;
use std::time::{Duration, Instant};

use signet_audit::{Checkpoint, Origin};
use signet_process::start::Report;

use super::following::{EACH, Following, Stopped};
use super::key_of;
use super::place::Place;
use crate::args::{AuditStreamOptions, Target};
use crate::failure::Failure;
use crate::output;

use cursor::Cursor;
use item::Item;
use jsonl::Lines;
use otlp::Otlp;
use syslog::Syslog;

/// Whoever entries are sent to.
trait Receiver {
    /// Comes back once the receiver has them all. After an error it may have any part of them.
    fn send(&mut self, log: &Origin, items: &[Item]) -> Result<(), Failure>;
}

/// Between lines that say how far it is.
const STATUS: Duration = Duration::from_secs(60);
/// A batch is sent once it has so much, whatever the number of its entries. Bytes.
const MAX_BATCH: usize = 1 << 20;

pub(crate) fn stream(options: &AuditStreamOptions) -> Result<(), Failure> {
    let AuditStreamOptions { log, to, cursor, once, batch, .. } = options;
    let (key, place) = (key_of(&log.key)?, Place::of(&log.log)?);
    let mut cursor = Cursor::open(cursor, &key)?;
    let mut receiver = receiver(options)?;
    let mut following = Following::new(&place, &key, &log.log);
    if let Some((size, root)) = cursor.seen() {
        following = following.after(size, root);
    }
    output::tell(&format!("{} goes to {to}, from entry {} on", key.origin(), cursor.next()))?;
    let mut troubles = Troubles::default();
    let mut told = Instant::now();
    loop {
        let done = following.look().and_then(|now| {
            hand_on(&following, &now.checkpoint, &mut cursor, *batch as usize, |items| {
                receiver.send(key.origin(), items)?;
                troubles.end()
            })
        });
        match done {
            Ok(()) if *once => return Ok(()),
            Ok(()) => sleep(EACH),
            Err(Stopped::Away(error)) if !once => troubles.wait(&Report::of(&error).cause)?,
            Err(Stopped::Told(failure)) if !once => troubles.wait(failure.cause())?,
            Err(stopped) => return Err(stopped.into()),
        }
        if told.elapsed() > STATUS {
            told = Instant::now();
            output::tell(&format!("{} entries are at {to}", cursor.next()))?;
        }
    }
}

fn receiver(options: &AuditStreamOptions) -> Result<Box<dyn Receiver>, Failure> {
    Ok(match &options.to {
        Target::Lines(path) => Box::new(Lines::new(path.clone())),
        Target::Syslog(address) => Box::new(Syslog::new(address.clone(), options)?),
        Target::Otlp { address, is_plain } => Box::new(Otlp::new(address.clone(), *is_plain, options)?),
    })
}

/// What the log has beyond the cursor, batch by batch; the cursor moves behind each batch that was sent.
fn hand_on(
    following: &Following<'_>,
    log: &Checkpoint,
    cursor: &mut Cursor,
    batch: usize,
    mut send: impl FnMut(&[Item]) -> Result<(), Failure>,
) -> Result<(), Stopped> {
    if cursor.next() >= log.size {
        return Ok(());
    }
    let (mut items, mut bytes) = (Vec::new(), 0);
    following.read(log, cursor.next(), |index, entry| {
        items.push(Item::new(index, entry));
        bytes += entry.len();
        if items.len() >= batch || bytes >= MAX_BATCH || index + 1 == log.size {
            send(&items)?;
            cursor.write(index + 1, log)?;
            items.clear();
            bytes = 0;
        }
        Ok(ControlFlow::Continue(()))
    })
}

/// What is in the way, for as long as it is.
#[derive(Default)]
struct Troubles {
    /// None where nothing is.
    pause: Option<Duration>,
    told: String,
}

impl Troubles {
    /// Between attempts.
    const FIRST: Duration = Duration::from_millis(500);
    const LONGEST: Duration = Duration::from_secs(30);

    fn wait(&mut self, cause: &str) -> Result<(), Failure> {
        let pause = self.pause.map_or(Self::FIRST, |pause| (pause * 2).min(Self::LONGEST));
        if self.told != cause {
            output::warn(&format!("it waits, and tries again: {cause}"))?;
            cause.clone_into(&mut self.told);
        }
        self.pause = Some(pause);
        sleep(pause);
        Ok(())
    }

    fn end(&mut self) -> Result<(), Failure> {
        self.told.clear();
        match self.pause.take() {
            Some(_) => output::tell("it goes on"),
            None => Ok(()),
        }
    }
}
