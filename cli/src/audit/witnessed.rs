//! What witnesses say of a log, and whether those that somebody trusts are enough.

use std::path::Path;

use serde::Serialize;
use signet_audit::{Quorum, ReadError, Resource, SignedCheckpoint, Source as _, VerifierKey, Witnessed, consistency};
use time::OffsetDateTime;

use super::place::Place;
use super::{SKEW, check_age_of};
use crate::args::WitnessOptions;
use crate::failure::Failure;
use crate::output;

/// None where nobody is asked for.
pub(super) fn quorum_of(options: &WitnessOptions, key: &VerifierKey) -> Result<Option<Quorum>, Failure> {
    let WitnessOptions { witness, quorum, policy } = options;
    if let Some(path) = policy {
        return policy_of(path, key).map(Some);
    }
    if witness.is_empty() {
        return Ok(None);
    }
    let least = quorum.unwrap_or(witness.len());
    let quorum = Quorum::at_least(least, witness.clone()).map_err(|error| {
        Failure::new(error.to_string()).remedy("give each --witness once, and a --quorum of as many at most")
    })?;
    Ok(Some(quorum))
}

fn policy_of(path: &Path, key: &VerifierKey) -> Result<Quorum, Failure> {
    let wrong = |cause: &dyn std::fmt::Display| {
        Failure::new(format!("{}: {cause}", path.display())).remedy("give a policy as c2sp.org/tlog-policy has it")
    };
    let text = super::proofs::read(path, MOST_BYTES).map_err(|error| wrong(&error))?;
    let quorum = Quorum::parse(&text).map_err(|error| wrong(&error))?;
    match quorum.is_for(key) {
        true => Ok(quorum),
        false => Err(wrong(&format!("it is for other logs than {}", key.origin()))),
    }
}

/// Of a policy.
const MOST_BYTES: u64 = 256 << 10;

/// What of a log a quorum vouches for.
#[derive(Serialize)]
pub(super) struct Vouched {
    entries: u64,
    /// When the last of a quorum has signed.
    #[serde(skip_serializing_if = "Option::is_none")]
    signed_at: Option<String>,
    by: Vec<String>,
}

impl Vouched {
    pub(super) fn shown(&self) -> String {
        let at = self.signed_at.as_ref().map_or_else(String::new, |at| format!(" at {at}"));
        format!("{} entries{at}, by {}", self.entries, self.by.join(", "))
    }
}

/// What a log shows of its witnesses. Read before its checkpoint, which has to go as far.
pub(super) fn note_of(place: &Place) -> Result<Option<Vec<u8>>, Failure> {
    match place.file(Resource::Witnessed) {
        Err(ReadError::Missing { .. }) => Ok(None),
        read => read.map(Some).map_err(|error| Failure::from_error(&error)),
    }
}

/// That a quorum has cosigned the checkpoint, or one that the log of the checkpoint begins with.
pub(super) fn demand_of_log(
    quorum: &Quorum,
    place: &Place,
    key: &VerifierKey,
    (signed, note): (&SignedCheckpoint, &[u8]),
    witnessed: Option<&[u8]>,
    most_age: Option<std::time::Duration>,
) -> Result<Vouched, Failure> {
    let latest = latest();
    let found = quorum.of(note, &signed.checkpoint, latest);
    let (found, seen) = match (found.is_met, witnessed) {
        (true, _) | (false, None) => (found, signed.clone()),
        (false, Some(witnessed)) => {
            let seen = SignedCheckpoint::open(witnessed, key)
                .map_err(|error| Failure::new(format!("{}: {error}", Resource::Witnessed)))?;
            (quorum.of(witnessed, &seen.checkpoint, latest), seen)
        }
    };
    let vouched = demand(&found, seen.checkpoint.size)?;
    let before = (seen.checkpoint.size, seen.checkpoint.root);
    consistency(place, before, &signed.checkpoint).map_err(|error| {
        Failure::new(format!("witnesses have seen another log: {error}")).remedy(format!(
            "keep both, checkpoint and {}: this is a fork, or the log was set back",
            Resource::Witnessed
        ))
    })?;
    if let Some(since) = found.since {
        let whose = "what a quorum of witnesses has cosigned";
        check_age_of(whose, since, OffsetDateTime::now_utc(), most_age)?;
    }
    Ok(vouched)
}

/// Until when a witness may have signed. Seconds since 1970.
pub(super) fn latest() -> u64 {
    u64::try_from(OffsetDateTime::now_utc().unix_timestamp()).unwrap_or(0).saturating_add(SKEW.as_secs())
}

/// That they are a quorum.
pub(super) fn demand(found: &Witnessed, entries: u64) -> Result<Vouched, Failure> {
    if !found.is_met {
        let missing: Vec<_> =
            found.missing.iter().map(|(name, why)| format!("{}: {why}", output::harmless(name))).collect();
        return Err(Failure::new(format!("no quorum of witnesses has cosigned this; {}", missing.join("; "))).remedy(
            "see whether the issuer reaches its witnesses; what they have not seen may be shown to you alone",
        ));
    }
    let at = |time: u64| OffsetDateTime::from_unix_timestamp(time.cast_signed()).map(output::timestamp).ok();
    let by = found.by.iter().map(|(name, _)| output::harmless(name).to_string()).collect();
    Ok(Vouched { entries, signed_at: found.since.and_then(at), by })
}
