//! `signet audit tail` and `signet audit search`: what a log says, each entry verified before it is shown.

use std::collections::VecDeque;
use std::ops::ControlFlow;
use std::thread::sleep;

use signet_process::start::Report;

use super::following::{EACH, Following, Stopped};
use super::key_of;
use super::meter::Meter;
use super::place::Place;
use super::shown::Shown;
use crate::args::{AuditSearchOptions, AuditTailOptions, EntryFilter};
use crate::failure::Failure;
use crate::output::{self, Format};

/// Entries from the end among which those are looked for that fit a filter.
const AMONG: u64 = 100_000;

pub(crate) fn tail(options: &AuditTailOptions, format: Format) -> Result<(), Failure> {
    let AuditTailOptions { log, filter, lines, follow } = options;
    let (key, place) = (key_of(&log.key)?, Place::of(&log.log)?);
    let mut following = Following::new(&place, &key, &log.log);
    let now = following.look()?.checkpoint;
    let lines = *lines as usize;
    let among = if is_filtered(filter) { AMONG.max(lines as u64) } else { lines as u64 };
    let mut last = VecDeque::new();
    following.read(&now, now.size.saturating_sub(among), |index, entry| {
        let shown = Shown::new(index, entry);
        if shown.fits(filter) {
            last.push_back(shown);
        }
        if last.len() > lines {
            last.pop_front();
        }
        Ok(ControlFlow::Continue(()))
    })?;
    last.iter().try_for_each(|shown| shown.print(format))?;
    if *follow { go_on(&mut following, now.size, filter, format) } else { Ok(()) }
}

/// Until it is interrupted, or the log is not what it was any more.
fn go_on(following: &mut Following<'_>, mut from: u64, filter: &EntryFilter, format: Format) -> Result<(), Failure> {
    let mut told = None;
    loop {
        sleep(EACH);
        let looked = following.look().and_then(|now| {
            // So that what was shown is not shown again, where it breaks off.
            following.read(&now.checkpoint, from, |index, entry| {
                from = index + 1;
                let shown = Shown::new(index, entry);
                if shown.fits(filter) {
                    shown.print(format)?;
                }
                Ok(ControlFlow::Continue(()))
            })
        });
        match looked {
            Ok(()) => told = None,
            Err(Stopped::Away(error)) => {
                let cause = Report::of(&error).cause;
                if told.as_ref() != Some(&cause) {
                    output::warn(&format!("the log is away, and is tried again: {cause}"))?;
                    told = Some(cause);
                }
            }
            Err(stopped) => return Err(stopped.into()),
        }
    }
}

pub(crate) fn search(options: &AuditSearchOptions, format: Format) -> Result<(), Failure> {
    let AuditSearchOptions { log, filter, from, to, limit } = options;
    let (key, place) = (key_of(&log.key)?, Place::of(&log.log)?);
    let mut following = Following::new(&place, &key, &log.log);
    let now = following.look()?.checkpoint;
    let meter = Meter::new(now.size);
    let mut left = limit.unwrap_or(u64::MAX);
    let is_within = |shown: &Shown| match shown.time() {
        Some(time) => from.is_none_or(|from| time >= from) && to.is_none_or(|to| time < to),
        None => from.is_none() && to.is_none(),
    };
    let read = following.read(&now, 0, |index, entry| {
        if left == 0 {
            return Ok(ControlFlow::Break(()));
        }
        meter.add(1);
        let shown = Shown::new(index, entry);
        if shown.fits(filter) && is_within(&shown) {
            left -= 1;
            meter.end();
            shown.print(format)?;
        }
        Ok(ControlFlow::Continue(()))
    });
    meter.end();
    read?;
    // Whoever reads lines is told by none; a person wants to know that it was looked for.
    if left == limit.unwrap_or(u64::MAX) && format == Format::Table {
        output::tell(&format!("none of {} entries fits", now.size))?;
    }
    Ok(())
}

fn is_filtered(filter: &EntryFilter) -> bool {
    let EntryFilter { act, actor, identity, serial } = filter;
    !act.is_empty() || actor.is_some() || identity.is_some() || serial.is_some()
}
