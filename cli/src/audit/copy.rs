//! `signet audit export`: a copy of a log, for auditors, for archives.

use serde::Serialize;
use signet_audit::{
    Checkpoint, Folder, ReadError, Resource, SignedCheckpoint, Source, VerifierKey, consistency, digests_behind,
    latest_digest, resources,
};

use super::key_of;
use super::meter::Meter;
use super::place::Place;
use crate::args::AuditExportOptions;
use crate::failure::Failure;
use crate::output::{self, Format, Report};

pub(crate) fn export(options: &AuditExportOptions, format: Format) -> Result<(), Failure> {
    let AuditExportOptions { log, to } = options;
    let (key, place) = (key_of(&log.key)?, Place::of(&log.log)?);
    let wrong = |cause: &dyn std::fmt::Display| Failure::new(format!("{}: {cause}", log.log));
    let note = place.checkpoint().map_err(|error| wrong(&error))?;
    let signed = SignedCheckpoint::open(&note, &key).map_err(|error| wrong(&error))?;
    std::fs::create_dir_all(to).map_err(|error| Failure::new(format!("{}: {error}", to.display())))?;
    let from = match Folder::new(to).checkpoint() {
        Err(ReadError::Missing { .. }) => 0,
        Err(error) => return Err(Failure::from_error(&error)),
        Ok(copied) => {
            let copied = SignedCheckpoint::open(&copied, &key.first()).map_err(|error| {
                Failure::new(format!("{}: the checkpoint: {error}", to.display())).remedy("name another folder")
            })?;
            let before = (copied.checkpoint.size, copied.checkpoint.root);
            consistency(&place, before, &signed.checkpoint).map_err(|error| {
                wrong(&error).remedy(format!("keep both: {} has a copy of what it was", to.display()))
            })?;
            copied.checkpoint.size
        }
    };
    let copy = Folder::new(to);
    let failed = |resource| move |error| Failure::new(format!("{}/{resource}: {error}", to.display()));
    let incoming = Incoming::of(&copy)?;
    let mut files = 0;
    for resource in resources(from, signed.checkpoint.size) {
        let bytes = place.file(resource).map_err(|error| wrong(&error))?;
        incoming.new.write(resource, &bytes).map_err(failed(resource))?;
        files += 1;
    }
    // What was copied before is proof, too: nothing takes its place that was not verified.
    incoming.verify(&signed.checkpoint, from).map_err(|cause| {
        wrong(&cause).remedy(format!("this log cannot be relied on: {} stays as it was, keep it", to.display()))
    })?;
    for resource in resources(from, signed.checkpoint.size) {
        let bytes = incoming.new.file(resource).map_err(|error| Failure::from_error(&error))?;
        copy.write(resource, &bytes).map_err(failed(resource))?;
    }
    drop(incoming);
    // Whoever reads the copy meanwhile sees what it was.
    copy.write(Resource::Checkpoint, &note).map_err(failed(Resource::Checkpoint))?;
    if let Some(witnessed) = witnessed_within(&place, &key, signed.checkpoint.size)? {
        copy.write(Resource::Witnessed, &witnessed).map_err(failed(Resource::Witnessed))?;
    }
    let known = latest_digest(&copy, &key).map_err(|error| Failure::from_error(&error))?;
    let behind = digests_behind(&place, &key, known.map(|(digest, _)| digest.from)).map_err(|error| wrong(&error))?;
    // Those beyond the checkpoint have ended meanwhile.
    for (digest, note) in behind.into_iter().take_while(|(digest, _)| digest.size <= signed.checkpoint.size) {
        for resource in [Resource::Digest(digest.from), Resource::LatestDigest] {
            copy.write(resource, &note).map_err(failed(resource))?;
        }
        files += 1;
    }
    let told = Copied {
        log: key.origin().to_string(),
        to: to.display().to_string(),
        entries: signed.checkpoint.size,
        new_entries: signed.checkpoint.size - from,
        files,
    };
    output::print(format, &told)
}

/// Files that are not verified yet, beside the copy that they are for. Removed when it is dropped.
struct Incoming<'a> {
    new: Folder,
    copy: &'a Folder,
}

impl<'a> Incoming<'a> {
    fn of(copy: &'a Folder) -> Result<Self, Failure> {
        let path = copy.path().join(".incoming");
        // Of an export that was interrupted.
        match std::fs::remove_dir_all(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(Failure::new(format!("{}: {error}", path.display())))
            }
            Ok(()) | Err(_) => Ok(Self { new: Folder::new(path), copy }),
        }
    }

    /// All entries from `from` on, as they are here. Why they are not those of the checkpoint.
    fn verify(&self, checkpoint: &Checkpoint, from: u64) -> Result<(), String> {
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        let meter = Meter::new(checkpoint.size.saturating_sub(from));
        let verified = signet_audit::verify(self, checkpoint, from, threads, &meter);
        meter.end();
        verified.map(drop).map_err(|faults| {
            let first = faults.first().map(|fault| signet_process::start::Report::of(fault).cause);
            first.unwrap_or_default()
        })
    }
}

impl Source for Incoming<'_> {
    fn read(&self, resource: Resource, most: usize) -> std::io::Result<Option<Vec<u8>>> {
        match self.new.read(resource, most)? {
            Some(bytes) => Ok(Some(bytes)),
            None => self.copy.read(resource, most),
        }
    }
}

impl Drop for Incoming<'_> {
    fn drop(&mut self) {
        // What is left does no harm, and is removed by the next export.
        let _ = std::fs::remove_dir_all(self.new.path());
    }
}

/// What witnesses have cosigned, unless the log went on meanwhile.
fn witnessed_within(place: &Place, key: &VerifierKey, size: u64) -> Result<Option<Vec<u8>>, Failure> {
    let note = match place.file(Resource::Witnessed) {
        Err(ReadError::Missing { .. }) => return Ok(None),
        read => read.map_err(|error| Failure::from_error(&error))?,
    };
    let signed = SignedCheckpoint::open(&note, &key.first());
    let signed = signed.map_err(|error| Failure::new(format!("{}: {error}", Resource::Witnessed)))?;
    Ok((signed.checkpoint.size <= size).then_some(note))
}

#[derive(Serialize)]
struct Copied {
    log: String,
    to: String,
    entries: u64,
    new_entries: u64,
    files: u64,
}

impl Report for Copied {
    fn rows(&self) -> Vec<(&'static str, String)> {
        vec![
            ("log", self.log.clone()),
            ("copied to", self.to.clone()),
            ("entries", format!("{}, of them new {}", self.entries, self.new_entries)),
            ("files", self.files.to_string()),
        ]
    }
}
