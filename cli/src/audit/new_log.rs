//! `signet audit new-log`: where a log cannot go on, another one begins, and says which it follows.

use std::fs::{File, TryLockError};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use identity_issuer::{LEAVES_UNPUBLISHED, PREVIOUS, RESTORED};
use rustix::fs::{CWD, RenameFlags};
use serde::Serialize;
use signet_audit::{Folder, Previous, ReadError, SignedCheckpoint, Source, VerifierKey};

use super::place::Place;
use crate::args::AuditNewLogOptions;
use crate::failure::Failure;
use crate::output::{self, Format, Report};

/// In bytes.
const MAX_KEY: usize = 4096;

pub(crate) fn new_log(options: &AuditNewLogOptions, format: Format) -> Result<(), Failure> {
    let AuditNewLogOptions { state, log, leave_unpublished } = options;
    let _lock = claim(state)?;
    let folder = state.join("audit");
    let next = state.join("audit.new");
    let finished = finish(state, &next)?;
    if (*leave_unpublished || finished.is_some())
        && let Some(previous) = previous_of(&folder)?
    {
        if *leave_unpublished {
            // It was begun already, and its issuer has not started for what waits.
            File::create(folder.join(LEAVES_UNPUBLISHED)).map_err(failed(&folder))?;
        }
        let kept = finished.map(|kept| kept.display().to_string());
        return output::print(format, &Ended { previous, kept, left: None });
    }
    let key = key_in(&folder)?;
    let own = checkpoint(&Folder::new(folder.join("log")), &key, &folder.display())?;
    let published = match log {
        Some(log) => checkpoint(&Place::of(log)?, &key, log)?
            .ok_or_else(|| Failure::new(format!("{log} has no checkpoint")).remedy("name where the log was published")),
        None => own.clone().ok_or_else(|| {
            Failure::new(format!("{} has no checkpoint", folder.display()))
                .remedy("nothing was published of it: name where it was by --log, or move the folder away by hand")
        }),
    }?;
    // What it was at its end is what most was seen of.
    let known = [own, restored(&folder, &key)?].into_iter().flatten();
    let last = known.fold(published, |last, known| match known.checkpoint.size > last.checkpoint.size {
        true => known,
        false => last,
    });
    let previous = Previous {
        origin: key.origin().to_string(),
        size: last.checkpoint.size,
        root: last.checkpoint.root.to_string(),
    };
    let left = unpublished(state, &previous)?;
    if left > 0 && !leave_unpublished {
        return Err(waits(left, &previous, folder.join(RESTORED).exists()));
    }
    let kept = unused(state)?;
    let written = std::fs::create_dir(&next).and_then(|()| {
        let json = serde_json::to_vec(&previous).map_err(std::io::Error::other)?;
        std::fs::write(next.join(PREVIOUS), json)?;
        File::open(next.join(PREVIOUS))?.sync_all()?;
        if *leave_unpublished {
            File::create(next.join(LEAVES_UNPUBLISHED))?.sync_all()?;
        }
        // At no time is there no folder: an issuer that finds none begins a log that names no other.
        rustix::fs::renameat_with(CWD, &next, CWD, &folder, RenameFlags::EXCHANGE)?;
        std::fs::rename(&next, &kept)?;
        File::open(state)?.sync_all()
    });
    written.map_err(failed(&folder))?;
    output::print(format, &Ended { previous, kept: Some(kept.display().to_string()), left: Some(left) })
}

fn failed(path: &Path) -> impl FnOnce(std::io::Error) -> Failure {
    let path = path.display().to_string();
    move |error| Failure::new(format!("{path}: {error}"))
}

/// How many entries of the log that ends are on record in the state folder, and were not published. Of a database elsewhere the issuer
/// finds out at its start.
fn unpublished(state: &Path, previous: &Previous) -> Result<u64, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| Failure::from_error(&error))?;
    let size = runtime.block_on(identity_issuer::entries_on_record(state, &previous.origin));
    Ok(size.map_err(|error| Failure::from_error(&error))?.unwrap_or(0).saturating_sub(previous.size))
}

fn waits(left: u64, previous: &Previous, is_restored: bool) -> Failure {
    let Previous { origin, size, .. } = previous;
    let failure =
        Failure::new(format!("{left} entries on record were not published: {origin} has {size} entries where it ends"));
    failure.remedy(match is_restored {
        true => "name the log as it was published last, by --log; or accept that they are in no log, by --leave-unpublished",
        false => {
            "start the issuer, wait until they are published, and end it; or accept that they are in no log, by --leave-unpublished"
        }
    })
}

/// Of a log that was begun by this command, and that no issuer has published anything of yet.
fn previous_of(folder: &Path) -> Result<Option<Previous>, Failure> {
    let path = folder.join(PREVIOUS);
    if !path.exists() || folder.join("log/checkpoint").exists() {
        return Ok(None);
    }
    let json = std::fs::read(&path).map_err(failed(&path))?;
    serde_json::from_slice(&json).map(Some).map_err(|error| Failure::new(format!("{}: {error}", path.display())))
}

/// What an earlier run has left that was broken off: a log that ended, which is put where it is kept, and is returned; or a folder that
/// did not become a log, which is removed.
fn finish(state: &Path, next: &Path) -> Result<Option<PathBuf>, Failure> {
    if !next.exists() {
        return Ok(None);
    }
    if next.join("log.json").exists() {
        let kept = unused(state)?;
        let renamed = std::fs::rename(next, &kept).and_then(|()| File::open(state)?.sync_all());
        return renamed.map(|()| Some(kept)).map_err(failed(next));
    }
    for file in [PREVIOUS, LEAVES_UNPUBLISHED] {
        match std::fs::remove_file(next.join(file)) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(failed(next)(error)),
            _ => {}
        }
    }
    // Whatever else is in there, this command has not put there.
    std::fs::remove_dir(next).map(|()| None).map_err(failed(next))
}

/// As the issuer does: the two never work on it at the same time.
fn claim(state: &Path) -> Result<File, Failure> {
    let failed = |error: std::io::Error| {
        Failure::new(format!("{}: {error}", state.display())).remedy("name the issuer's `state` folder")
    };
    let lock = File::options().write(true).open(state.join("lock")).map_err(failed);
    // A folder that was restored has none yet.
    let lock = match lock {
        Ok(lock) => lock,
        Err(_) if state.join("audit").is_dir() => File::create(state.join("lock")).map_err(failed)?,
        Err(failure) => return Err(failure),
    };
    match lock.try_lock() {
        Ok(()) => Ok(lock),
        Err(TryLockError::WouldBlock) => {
            Err(Failure::new(format!("an issuer runs on {}", state.display())).remedy("end it first"))
        }
        Err(TryLockError::Error(error)) => Err(failed(error)),
    }
}

fn key_in(folder: &Path) -> Result<VerifierKey, Failure> {
    let path = folder.join("log.key.pub");
    let wrong = |cause: &dyn std::fmt::Display| {
        Failure::new(format!("{}: {cause}", path.display())).remedy("the state folder has no log, or a new one already")
    };
    let text = std::fs::read_to_string(&path).map_err(|error| wrong(&error))?;
    let line = text.lines().next().filter(|_| text.len() <= MAX_KEY).unwrap_or_default();
    line.parse().map_err(|error| wrong(&error))
}

/// What was published of it, as `signet restore` was told.
fn restored(folder: &Path, key: &VerifierKey) -> Result<Option<SignedCheckpoint>, Failure> {
    let path = folder.join(RESTORED);
    match std::fs::read(&path) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(failed(&path)(error)),
        Ok(note) if note.is_empty() => Ok(None),
        Ok(note) => SignedCheckpoint::open(&note, key).map(Some).map_err(|error| Failure::from_error(&error)),
    }
}

fn checkpoint(
    log: &impl Source,
    key: &VerifierKey,
    name: &dyn std::fmt::Display,
) -> Result<Option<SignedCheckpoint>, Failure> {
    let wrong = |cause: &dyn std::fmt::Display| Failure::new(format!("{name}: {cause}"));
    match log.checkpoint() {
        Err(ReadError::Missing { .. }) => Ok(None),
        Err(error) => Err(wrong(&error)),
        Ok(note) => SignedCheckpoint::open(&note, key).map(Some).map_err(|error| wrong(&error)),
    }
}

/// `audit.1` and so on.
fn unused(state: &Path) -> Result<PathBuf, Failure> {
    let path = |number: u32| state.join(format!("audit.{number}"));
    (1..=999).map(path).find(|path| !path.exists()).ok_or_else(|| Failure::new("there are too many logs that ended"))
}

#[derive(Serialize)]
struct Ended {
    previous: Previous,
    /// Where the log that ended is now. None where that was so before.
    #[serde(skip_serializing_if = "Option::is_none")]
    kept: Option<String>,
    /// Entries on record that no log will have. None where that was not looked at.
    #[serde(skip_serializing_if = "Option::is_none")]
    left: Option<u64>,
}

impl Report for Ended {
    fn rows(&self) -> Vec<(&'static str, String)> {
        let mut rows = vec![
            ("ended", self.previous.origin.clone()),
            ("entries", self.previous.size.to_string()),
            ("root", self.previous.root.clone()),
        ];
        rows.extend(self.kept.iter().map(|kept| ("kept in", kept.clone())));
        let left = self.left.filter(|left| *left > 0);
        rows.extend(left.map(|left| ("in no log", format!("{left} entries that were not published"))));
        rows.push((
            "next",
            "start the issuer: it makes a key, and the new log's first entry names this one".to_owned(),
        ));
        rows
    }
}
