//! A log as it grows: each checkpoint is verified, and follows the one before, before anything under it is shown.

use std::ops::ControlFlow;
use std::time::Duration;

use signet_audit::{
    Checkpoint, Hash, ReadError, SignedCheckpoint, Source as _, Unread, VerifierKey, consistency, read_in_order_from,
};
use signet_process::start::Report;

use super::place::Place;
use crate::failure::Failure;

/// How often it is looked at; a checkpoint is signed twice a second.
pub(super) const EACH: Duration = Duration::from_millis(500);

pub(super) struct Following<'a> {
    place: &'a Place,
    key: &'a VerifierKey,
    name: &'a str,
    /// How many entries there were, and their root.
    last: Option<(u64, Hash)>,
}

/// Why there is nothing new to see.
pub(super) enum Stopped {
    /// It cannot be read now.
    Away(ReadError),
    /// It is not the log any more that it was, or was changed.
    Broken(Failure),
    /// Of whoever was shown its entries.
    Told(Failure),
}

impl<'a> Following<'a> {
    pub(super) fn new(place: &'a Place, key: &'a VerifierKey, name: &'a str) -> Self {
        Self { place, key, name, last: None }
    }

    /// After somebody has seen this many entries with this root.
    pub(super) fn after(mut self, size: u64, root: Hash) -> Self {
        self.last = Some((size, root));
        self
    }

    /// The log as it is now, if that is what follows from what was seen before.
    pub(super) fn look(&mut self) -> Result<SignedCheckpoint, Stopped> {
        let broken = |cause: &dyn std::fmt::Display| {
            Stopped::Broken(
                Failure::new(format!("{}: {cause}", self.name))
                    .remedy("this log cannot be relied on: keep a copy of it, and ask whoever runs the issuer"),
            )
        };
        let note = self.place.checkpoint().map_err(Stopped::Away)?;
        let signed = SignedCheckpoint::open(&note, self.key).map_err(|error| broken(&error))?;
        if let Some(before) = self.last {
            if signed.checkpoint.size < before.0 {
                return Err(broken(&format_args!(
                    "it was set back: it had {} entries, and has {}",
                    before.0, signed.checkpoint.size
                )));
            }
            consistency(self.place, before, &signed.checkpoint).map_err(|error| match error {
                signet_audit::ProofError::Read(error) => Stopped::Away(error),
                error => broken(&error),
            })?;
        }
        self.last = Some((signed.checkpoint.size, signed.checkpoint.root));
        Ok(signed)
    }

    /// Entries from `from` on, as they are in a log that was looked at, each with its index. As long as whoever is shown them wants more.
    pub(super) fn read(
        &self,
        log: &Checkpoint,
        from: u64,
        mut show: impl FnMut(u64, &[u8]) -> Result<ControlFlow<()>, Failure>,
    ) -> Result<(), Stopped> {
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        let read = read_in_order_from(self.place, log, from, threads, |first, entries| {
            entries.enumerate().try_for_each(|(number, entry)| match show(first + number as u64, entry) {
                Ok(ControlFlow::Continue(())) => Ok(()),
                Ok(ControlFlow::Break(())) => Err(None),
                Err(failure) => Err(Some(failure)),
            })
        });
        read.or_else(|unread| match unread {
            Unread::Told(None) => Ok(()),
            Unread::Told(Some(failure)) => Err(Stopped::Told(failure)),
            Unread::Faults(faults) => match faults.into_iter().next() {
                Some(signet_audit::Fault::Read(error)) => Err(Stopped::Away(error)),
                fault => {
                    let cause = fault.map(|fault| Report::of(&fault).cause).unwrap_or_default();
                    Err(Stopped::Broken(Failure::new(format!("{}: {cause}", self.name))))
                }
            },
        })
    }
}

impl From<Stopped> for Failure {
    fn from(stopped: Stopped) -> Self {
        match stopped {
            Stopped::Away(error) => Self::from_error(&error),
            Stopped::Broken(failure) | Stopped::Told(failure) => failure,
        }
    }
}
