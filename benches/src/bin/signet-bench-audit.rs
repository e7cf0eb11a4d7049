//! Makes an audit log as large as wanted, and measures what it costs to verify it and to prove from it.

#![forbid(unsafe_code)]

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context as _, bail};
use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
use clap::{Parser, Subcommand};
use hdrhistogram::Histogram;
use signet_audit::report::{Format, Terms, Window, write};
use signet_audit::{
    Act, Checkpoint, Edge, Entry, Folder, InclusionProof, Resource, SignedCheckpoint, Source as _, VerifierKey, X509,
    inclusion, sha256, sign, verify,
};
use time::OffsetDateTime;

/// Measure what an audit log costs
#[derive(Debug, Parser)]
struct Options {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Make a log in a folder that is not there yet: of certificates, one each millisecond. Its public key is `DIR/key.pub`
    Make {
        dir: PathBuf,
        #[arg(long, default_value_t = 1_000_000)]
        entries: u64,
    },
    /// Verify all of it, and prove entries of it
    Measure {
        dir: PathBuf,
        #[arg(long, default_value_t = 2)]
        threads: usize,
        #[arg(long, default_value_t = 1000)]
        proofs: u64,
    },
    /// Make a report of all of it, in each format
    Report {
        dir: PathBuf,
        #[arg(long, default_value_t = 2)]
        threads: usize,
    },
}

/// The same in each run: nobody relies on it.
const SEED: [u8; 32] = [7; 32];
const ORIGIN: &str = "example.org/audit/bench";
/// 2026-01-01.
const BEGIN: i64 = 1_767_225_600;

fn main() -> anyhow::Result<()> {
    match Options::parse().what {
        What::Make { dir, entries } => make(&dir, entries),
        What::Measure { dir, threads, proofs } => measure(&dir, threads, proofs),
        What::Report { dir, threads } => report(&dir, threads),
    }
}

fn pair() -> anyhow::Result<(Ed25519KeyPair, VerifierKey)> {
    let pair = Ed25519KeyPair::from_seed_unchecked(&SEED).map_err(|_| anyhow::anyhow!("no key"))?;
    let key = VerifierKey::new(ORIGIN.parse()?, pair.public_key().as_ref().try_into()?);
    Ok((pair, key))
}

fn make(dir: &Path, entries: u64) -> anyhow::Result<()> {
    fs::create_dir(dir).with_context(|| format!("{}", dir.display()))?;
    let ((pair, key), folder) = (pair()?, Folder::new(dir));
    let mut edge = Edge::default();
    let mut failed = None;
    for number in 0..entries {
        edge.append(&entry(number)?, |resource, bytes| {
            failed = failed.take().or_else(|| folder.write(resource, &bytes).err());
        })?;
        if let Some(error) = failed.take() {
            bail!(error);
        }
    }
    for (resource, bytes) in edge.partial() {
        folder.write(resource, &bytes)?;
    }
    let checkpoint = Checkpoint { origin: key.origin().clone(), size: edge.size(), root: edge.root() };
    let time = (BEGIN + i64::try_from(entries / 1000)? + 1).unsigned_abs();
    let signing = |message: &[u8]| pair.sign(message).as_ref().try_into();
    let note = sign(&checkpoint, &key, time, signing)?;
    folder.write(Resource::Checkpoint, note.as_bytes())?;
    fs::write(dir.join("key.pub"), format!("{key}\n"))?;
    let bytes = size_of(dir)?;
    let told =
        serde_json::json!({ "entries": entries, "bytes": bytes, "bytes_per_entry": bytes as f64 / entries as f64 });
    writeln!(std::io::stdout(), "{told}")?;
    Ok(())
}

/// A certificate's, as long as those of an issuer.
fn entry(number: u64) -> anyhow::Result<Vec<u8>> {
    let hash = hex::encode(sha256(&number.to_be_bytes()));
    let time = OffsetDateTime::from_unix_timestamp(BEGIN)? + time::Duration::milliseconds(i64::try_from(number)?);
    let not_before = time.unix_timestamp() - 60;
    let issued = X509 {
        serial: hash[..32].to_owned(),
        spiffe_id: format!("spiffe://example.org/shop/orders/backend-{:04}", number % 10_000),
        profile: "workload".to_owned(),
        rule: format!("rule-{}", number % 20),
        not_before,
        not_after: not_before + 3660,
        authority: "3f".repeat(20),
        certificate: hash.clone(),
        key: hex::encode(sha256(hash.as_bytes())),
        attestation: "x509_svid".to_owned(),
        evidence: hash[32..].to_owned(),
    };
    Ok(Entry::new(time, Act::X509Issued(issued))?.encode()?)
}

fn measure(dir: &Path, threads: usize, proofs: u64) -> anyhow::Result<()> {
    let ((_, key), folder) = (pair()?, Folder::new(dir));
    let note = folder.checkpoint()?;
    let signed = SignedCheckpoint::open(&note, &key)?;
    let note = String::from_utf8(note)?;
    let began = Instant::now();
    let verified = verify(&folder, &signed.checkpoint, 0, threads, &());
    let took = began.elapsed();
    if let Err(faults) = verified {
        bail!("{faults:?}");
    }
    let peak = peak()?;
    let (mut times, mut number) = (Histogram::<u64>::new(3)?, 1_u64);
    for _ in 0..proofs {
        number = number.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let began = Instant::now();
        let proof = inclusion(&folder, &signed.checkpoint, &note, (number >> 16) % signed.checkpoint.size)?;
        times.record(u64::try_from(began.elapsed().as_micros())?)?;
        InclusionProof::parse(&proof.to_text())?.verify(&key)?;
    }
    let told = serde_json::json!({
        "entries": signed.checkpoint.size,
        "threads": threads,
        "seconds": took.as_secs_f64(),
        "entries_per_second": signed.checkpoint.size as f64 / took.as_secs_f64(),
        "peak_bytes": peak,
        "proof_microseconds": { "p50": times.value_at_quantile(0.5), "p99": times.value_at_quantile(0.99), "max": times.max() },
    });
    writeln!(std::io::stdout(), "{told}")?;
    Ok(())
}

fn report(dir: &Path, threads: usize) -> anyhow::Result<()> {
    let ((_, key), folder) = (pair()?, Folder::new(dir));
    let checkpoint = SignedCheckpoint::open(&folder.checkpoint()?, &key)?.checkpoint;
    let from = OffsetDateTime::from_unix_timestamp(BEGIN)?;
    let window = Window::new(from, from + time::Duration::days(3650))?;
    for format in Format::ALL {
        let began = Instant::now();
        let made = write(&folder, &checkpoint, Terms { window, format }, threads, &mut std::io::sink(), &())?;
        let told = serde_json::json!({
            "format": format.as_str(),
            "threads": threads,
            "rows": made.rows,
            "bytes": made.bytes,
            "seconds": began.elapsed().as_secs_f64(),
            "peak_bytes": peak()?,
        });
        writeln!(std::io::stdout(), "{told}")?;
    }
    Ok(())
}

/// The most memory that this process has had, in bytes (proc(5), `VmHWM`).
fn peak() -> anyhow::Result<u64> {
    let status = fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).context("no VmHWM")?;
    Ok(line.trim().trim_end_matches("kB").trim().parse::<u64>()? * 1024)
}

fn size_of(dir: &Path) -> anyhow::Result<u64> {
    let mut bytes = 0;
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let metadata = entry.metadata()?;
        bytes += if metadata.is_dir() { size_of(&entry.path())? } else { metadata.len() };
    }
    Ok(bytes)
}
