//! A digest for each hour that has ended, also where nothing was logged in it.

use signet_audit::{Checkpoint, Digest, DigestFault, Folder, Hour, Link, Resource, latest_digest, sha256};

use super::place::LogPlace;
use super::writer::WriteError;
use crate::pem_files;

/// Where the chain of digests ends.
#[derive(Debug)]
pub(super) struct Hours {
    /// None before the first one.
    last: Option<Last>,
    /// The first hour that has none yet; None before the first checkpoint.
    next: Option<Hour>,
}

#[derive(Debug)]
struct Last {
    digest: Digest,
    hash: [u8; 32],
}

/// After a longer absence one digest is of all of it.
const MOST: u64 = 366 * 24;
/// Written at a time: checkpoints are due meanwhile.
const AT_ONCE: usize = 50;

impl Hours {
    /// Goes on behind what is there. `since` is when the last checkpoint was signed, in Unix seconds.
    pub(super) fn open(place: &LogPlace, since: Option<u64>) -> Result<Self, DigestFault> {
        let last = latest_digest(&Folder::new(&place.files), &place.verifier)?;
        let last = last.map(|(digest, note)| Last { hash: sha256(&note), digest });
        let next = match &last {
            Some(last) => Some(last.digest.to),
            None => since.and_then(Hour::of),
        };
        Ok(Self { last, next })
    }

    /// Of the hours that have ended at `now`, in Unix seconds: `log` is as it was signed last, before that.
    pub(super) fn end(&mut self, place: &LogPlace, log: &Checkpoint, now: u64) -> Result<(), WriteError> {
        let Some(now) = Hour::of(now) else { return Ok(()) };
        // A clock that was set back has no hour end twice.
        let mut from = *self.next.get_or_insert(now);
        for _ in 0..AT_ONCE {
            if from >= now {
                return Ok(());
            }
            let Some(next) = from.next() else { return Ok(()) };
            let to = if now.since(from) > MOST { now } else { next };
            self.write(place, log, (from, to))?;
            (self.next, from) = (Some(to), to);
        }
        Ok(())
    }

    fn write(&mut self, place: &LogPlace, log: &Checkpoint, (from, to): (Hour, Hour)) -> Result<(), WriteError> {
        // A checkpoint that a power cut has taken away is signed again; the digest over it is there.
        let (size, root) = match &self.last {
            Some(last) if last.digest.size > log.size => (last.digest.size, last.digest.root),
            _ => (log.size, log.root),
        };
        let before = self.last.as_ref().map_or(0, |last| last.digest.size);
        let digest = Digest {
            log: log.origin.clone(),
            from,
            to,
            entries: size.saturating_sub(before),
            size,
            root,
            previous: self.last.as_ref().map(|last| Link { from: last.digest.from, hash: last.hash }),
        };
        let note = digest.statement().sign(&place.verifier, |message| place.key.sign(message))?;
        // It stays, whatever happens to the power: the next one is made over it.
        for resource in [Resource::Digest(from), Resource::LatestDigest] {
            let path = place.files.join(resource.to_string());
            let written = path.parent().map_or(Ok(()), std::fs::create_dir_all);
            let written = written.and_then(|()| pem_files::write_whole(&path, note.as_bytes()));
            written.map_err(|source| WriteError::Io { path, source })?;
        }
        self.last = Some(Last { hash: sha256(note.as_bytes()), digest });
        Ok(())
    }
}
