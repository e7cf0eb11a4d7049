//! `signet audit prove`, `signet audit verify-proof`: that a log has an entry, for whoever has its key.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::path::Path;

use serde::Serialize;
use serde_json::Value;
use signet_audit::{
    Act, Checkpoint, Entry, InclusionProof, OfSize, Resource, SignedCheckpoint, Source, TILE, VerifierKey, Width,
    inclusion,
};
use signet_proto::admin::v1::{GetSvidRequest, Svid};
use time::OffsetDateTime;

use super::key_of;
use super::place::Place;
use super::witnessed::{Vouched, demand, latest, quorum_of};
use crate::admin;
use crate::args::{AuditProveOptions, AuditVerifyProofOptions, IssuerOptions};
use crate::failure::Failure;
use crate::output::{self, Format, Report};

pub(crate) fn prove(options: &AuditProveOptions) -> Result<(), Failure> {
    let AuditProveOptions { serial, index, log, key, issuer, out, witnessed } = options;
    let (key, place) = (key_of(key)?, Place::of(log)?);
    let note = place.checkpoint().map_err(|error| Failure::from_error(&error))?;
    let signed = SignedCheckpoint::open(&note, &key);
    let checkpoint = signed.map_err(|error| Failure::new(format!("{log}: the checkpoint: {error}")))?.checkpoint;
    // Its files are those of the whole log.
    let files = OfSize { source: &place, size: checkpoint.size };
    let (note, checkpoint) = match witnessed {
        true => witnessed_of(&place, &key)?,
        false => (note, checkpoint),
    };
    // What was verified is text.
    let note = String::from_utf8(note).map_err(|error| Failure::from_error(&error))?;
    let index = match (index, serial) {
        (Some(index), _) => *index,
        (None, serial) => {
            let serial = plain(serial.as_deref().unwrap_or_default());
            match known(issuer, &serial, &checkpoint)? {
                Some(index) if is_issuing_of(&files, &checkpoint, index, &serial)? => index,
                _ => find(&files, &checkpoint, &serial)?,
            }
        }
    };
    let proof = inclusion(&files, &checkpoint, &note, index).map_err(|error| Failure::from_error(&error))?;
    match out {
        None => output::print_text(&proof.to_text()),
        Some(path) => write_new(path, &proof.to_text()),
    }
}

/// As entries have it; reports and other programs put colons in between.
fn plain(serial: &str) -> String {
    serial.replace(':', "").to_lowercase()
}

/// Where the issuer says that it is, if one was named. One that was expired for long is on no record any more.
fn known(issuer: &IssuerOptions, serial: &str, checkpoint: &Checkpoint) -> Result<Option<u64>, Failure> {
    let Some(serial) = hex::decode(serial).ok().filter(|_| issuer.issuer.is_some()) else { return Ok(None) };
    let found = admin::call(issuer, async |mut client| match client.get_svid(GetSvidRequest { serial }).await {
        Ok(found) => Ok(found.into_inner().svid),
        Err(status) if status.code() == tonic::Code::NotFound => Ok(None),
        Err(status) => Err(status),
    })?;
    let is_here = |svid: &Svid| svid.log_origin == checkpoint.origin.as_str() && svid.log_index < checkpoint.size;
    Ok(found.filter(is_here).map(|svid| svid.log_index))
}

fn is_issuing_of(files: &impl Source, checkpoint: &Checkpoint, index: u64, serial: &str) -> Result<bool, Failure> {
    let bundle = index / TILE;
    let Some(width) = Width::of(checkpoint.size - bundle * TILE) else { return Ok(false) };
    let entries = files.entries(bundle, width).map_err(|error| Failure::from_error(&error))?;
    let entries = entries.map_err(|error| Failure::new(format!("entries from {} on: {error}", bundle * TILE)))?;
    Ok(entries.entries().nth((index % TILE) as usize).is_some_and(|entry| issues(entry, serial)))
}

fn issues(entry: &[u8], serial: &str) -> bool {
    matches!(Entry::decode(entry), Some(Entry { act: Act::X509Issued(issued), .. }) if issued.serial == serial)
}

/// The last checkpoint that witnesses have cosigned.
fn witnessed_of(place: &Place, key: &VerifierKey) -> Result<(Vec<u8>, Checkpoint), Failure> {
    let note = place.file(Resource::Witnessed).map_err(|error| {
        Failure::from_error(&error).or_remedy("this log has no witnesses, or no quorum of them has cosigned it yet")
    })?;
    let signed = SignedCheckpoint::open(&note, key);
    let signed = signed.map_err(|error| Failure::new(format!("{}: {error}", Resource::Witnessed)))?;
    Ok((note, signed.checkpoint))
}

/// The entry that says that a certificate was issued, from the end of the log: what somebody asks about is mostly new.
fn find(place: &impl Source, checkpoint: &Checkpoint, serial: &str) -> Result<u64, Failure> {
    let wanted = format!("\"serial\":\"{serial}\"");
    for bundle in (0..checkpoint.size.div_ceil(TILE)).rev() {
        let Some(width) = Width::of(checkpoint.size - bundle * TILE) else { continue };
        let entries = place.entries(bundle, width).map_err(|error| Failure::from_error(&error))?;
        let entries = entries.map_err(|error| Failure::new(format!("entries from {} on: {error}", bundle * TILE)))?;
        let is_it = |entry: &[u8]| {
            // Few are looked at closely.
            entry.windows(wanted.len()).any(|part| part == wanted.as_bytes()) && issues(entry, serial)
        };
        if let Some(number) = entries.entries().position(is_it) {
            return Ok(bundle * TILE + number as u64);
        }
    }
    Err(Failure::new(format!("no certificate {} was issued by the issuer of this log", output::harmless(serial)))
        .remedy("what was issued within the last second may not be published yet; `signet audit verify` says whether the log is whole"))
}

fn write_new(path: &Path, text: &str) -> Result<(), Failure> {
    let written =
        OpenOptions::new().write(true).create_new(true).open(path).and_then(|mut file| file.write_all(text.as_bytes()));
    written.map_err(|error| {
        Failure::new(format!("{}: {error}", path.display())).remedy("name a file that is not there yet")
    })
}

/// More than any proof has.
const MOST_BYTES: u64 = 256 << 10;

pub(crate) fn verify_proof(options: &AuditVerifyProofOptions, format: Format) -> Result<(), Failure> {
    let AuditVerifyProofOptions { proof: path, key, certificate, witnesses } = options;
    let key = key_of(key)?;
    let wrong = |cause: &dyn std::fmt::Display| Failure::new(format!("{}: {cause}", path.display()));
    let text = read(path, MOST_BYTES).map_err(|error| wrong(&error))?;
    let proof = InclusionProof::parse(&text).map_err(|error| wrong(&error))?;
    let signed = proof.verify(&key).map_err(|error| {
        wrong(&error).remedy("do not rely on it: it proves nothing, or is of a log with another key")
    })?;
    let quorum = quorum_of(witnesses, &key)?;
    let found = quorum.map(|quorum| quorum.of(proof.checkpoint().as_bytes(), &signed.checkpoint, latest()));
    let vouched = found.map(|found| demand(&found, signed.checkpoint.size)).transpose()?;
    let entry = Entry::decode(&proof.entry);
    if let Some(certificate) = certificate {
        let sha256 = sha256_of(certificate)?;
        let issued = match &entry {
            Some(Entry { act: Act::X509Issued(issued), .. }) => Some(&issued.certificate),
            _ => None,
        };
        if issued != Some(&sha256) {
            return Err(wrong(&format!("the entry is not the issuing of {}", certificate.display()))
                .remedy("ask for the proof of this certificate: `signet audit prove SERIAL`"));
        }
    }
    let shown = serde_json::from_slice(&proof.entry);
    let told = Proved {
        log: key.origin().to_string(),
        index: proof.index,
        size: signed.checkpoint.size,
        signed_at: OffsetDateTime::from_unix_timestamp(signed.time.cast_signed())
            .map(output::timestamp)
            .unwrap_or_default(),
        entry: shown.map_err(|error| wrong(&format!("the entry is logged so, and cannot be read: {error}")))?,
        text: String::from_utf8_lossy(&proof.entry).into_owned(),
        witnessed: vouched,
    };
    output::print(format, &told)
}

pub(super) fn read(path: &Path, most: u64) -> std::io::Result<String> {
    use std::io::Read as _;
    let mut text = String::new();
    std::fs::File::open(path)?.take(most).read_to_string(&mut text)?;
    Ok(text)
}

/// Of the first certificate in a file.
fn sha256_of(path: &Path) -> Result<String, Failure> {
    let wrong = |cause: &dyn std::fmt::Display| {
        Failure::new(format!("{}: {cause}", path.display())).remedy("give the certificate, PEM")
    };
    let text = read(path, MOST_BYTES).map_err(|error| wrong(&error))?;
    let block = pem::parse(text).map_err(|error| wrong(&error))?;
    match block.tag() {
        "CERTIFICATE" => Ok(hex::encode(signet_audit::sha256(block.contents()))),
        _ => Err(wrong(&"it is no certificate")),
    }
}

#[derive(Serialize)]
struct Proved {
    log: String,
    index: u64,
    size: u64,
    signed_at: String,
    entry: Value,
    /// The same, as it is logged.
    #[serde(skip)]
    text: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    witnessed: Option<Vouched>,
}

impl Report for Proved {
    fn rows(&self) -> Vec<(&'static str, String)> {
        let mut rows = vec![
            ("log", self.log.clone()),
            ("entry", format!("{} of {}", self.index, self.size)),
            ("signed at", self.signed_at.clone()),
            ("what", self.text.clone()),
        ];
        if let Some(vouched) = &self.witnessed {
            rows.push(("witnessed", vouched.shown()));
        }
        rows
    }
}
