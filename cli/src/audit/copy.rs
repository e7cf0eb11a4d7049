//! `signet audit export`: a copy of a log, for auditors, for archives.

use serde::Serialize;
use signet_audit::{
    Folder, ReadError, Resource, SignedCheckpoint, Source, VerifierKey, consistency, digests_behind, latest_digest,
    resources,
};

use super::key_of;
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
    let mut files = 0;
    for resource in resources(from, signed.checkpoint.size) {
        let bytes = place.file(resource).map_err(|error| wrong(&error))?;
        copy.write(resource, &bytes).map_err(failed(resource))?;
        files += 1;
    }
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
