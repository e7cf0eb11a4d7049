//! `signet backup` and `signet restore`: all that an issuer has, encrypted to a key that rests elsewhere.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{BufReader, IsTerminal as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use identity_issuer::RESTORED;
use serde::Serialize;
use signet_audit::{Checkpoint, Folder, ReadError, SignedCheckpoint, Source as _, VerifierKey, consistency};
use signet_backup::{BackupKey, BackupSecret, Manifest, Opener, unpack};
use signet_proto::admin::v1::BackupRequest;
use time::OffsetDateTime;
use zeroize::Zeroizing;

use crate::admin;
use crate::args::{BackupCommand, BackupKeygenOptions, BackupOptions, IssuerOptions, RestoreOptions};
use crate::audit::{Place, key_of};
use crate::failure::Failure;
use crate::output::{self, Format, Report};
use crate::token::write_new;

/// In bytes.
const MAX_SECRET: u64 = 4096;

pub(crate) fn run(options: &BackupOptions, format: Format) -> Result<(), Failure> {
    match (&options.command, &options.to, &options.out) {
        (Some(BackupCommand::Keygen(options)), ..) => keygen(options, format),
        (None, Some(to), Some(out)) => {
            // Not by clap, which would show a private key again.
            let to = to.parse().map_err(|error| {
                Failure::new(format!("--to: {error}")).remedy("give the public key that `signet backup keygen` showed")
            })?;
            create(&options.issuer, &to, out, format)
        }
        // clap demands both.
        _ => Err(Failure::new("--to and --out are missing")),
    }
}

fn keygen(options: &BackupKeygenOptions, format: Format) -> Result<(), Failure> {
    let secret = BackupSecret::generate().map_err(|error| Failure::from_error(&error))?;
    write_new(&options.out, &secret.to_text())?;
    let told = Made { public_key: secret.public().to_string(), secret_file: options.out.display().to_string() };
    output::print(format, &told)
}

fn create(issuer: &IssuerOptions, to: &BackupKey, out: &Path, format: Format) -> Result<(), Failure> {
    if out.exists() {
        return Err(Failure::new(format!("{} is there already", out.display()))
            .remedy("nothing is overwritten; remove it, or name a new file"));
    }
    // A backup has its name once it is whole.
    let part = beside(out, ".part");
    let failed = |error: std::io::Error| Failure::new(format!("{}: {error}", part.display()));
    let mut file =
        OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&part).map_err(failed)?;
    let mut progress = Progress::new();
    let written = admin::call(issuer, async |mut client| {
        let mut pieces = client.backup(BackupRequest { key: to.to_string() }).await?.into_inner();
        while let Some(piece) = pieces.message().await? {
            if let Err(error) = file.write_all(&piece.data) {
                return Ok(Err(failed(error)));
            }
            progress.show(piece.data.len());
        }
        Ok(Ok(()))
    });
    let bytes = progress.end();
    let kept = written.flatten().and_then(|()| {
        let kept = file.sync_all().and_then(|()| std::fs::rename(&part, out));
        kept.map_err(failed)
    });
    if kept.is_err() {
        // Nothing of it is worth keeping; why, is what the operator must hear of.
        let _ = std::fs::remove_file(&part);
    }
    kept?;
    output::print(format, &Written { backup: out.display().to_string(), bytes, encrypted_to: to.to_string() })
}

pub(crate) fn restore(options: &RestoreOptions, format: Format) -> Result<(), Failure> {
    let RestoreOptions { backup, secret_file, key, to, log } = options;
    let key = key_of(key)?;
    let secret = read_secret(secret_file)?;
    // Before anything is written.
    let published = log.as_ref().map(|log| published_at(log, &key)).transpose()?;
    let wrong = |cause: &dyn std::fmt::Display| Failure::new(format!("{}: {cause}", backup.display()));
    let file = File::open(backup).map_err(|error| wrong(&error))?;
    let opener = Opener::new(BufReader::new(file), &secret).map_err(|error| wrong(&error))?;

    let part = beside(to, ".restoring");
    let made = empty_folder(to).and_then(|()| new_folder(&part));
    made?;
    let unpacked = unpack(opener, &key, &part)
        .map_err(|error| wrong(&signet_process::start::Report::of(&error).cause))
        .and_then(|manifest| mark(&part, &key, published.as_ref()).map(|()| manifest))
        .and_then(|manifest| {
            // An empty folder gives way.
            let renamed = std::fs::rename(&part, to);
            renamed.map(|()| manifest).map_err(|error| Failure::new(format!("{}: {error}", to.display())))
        });
    let manifest = match unpacked {
        Ok(manifest) => manifest,
        Err(failure) => {
            // What was unpacked before something was found wrong is not to be used.
            let _ = std::fs::remove_dir_all(&part);
            return Err(failure);
        }
    };
    output::print(format, &Restored::of(manifest, to, published.is_some()))
}

/// The newest checkpoint that others have seen, as far as whoever restores knows.
fn published_at(log: &str, key: &VerifierKey) -> Result<(Vec<u8>, SignedCheckpoint), Failure> {
    let wrong = |cause: &dyn std::fmt::Display| Failure::new(format!("{log}: {cause}"));
    let note = Place::of(log)?.checkpoint().map_err(|error| wrong(&error))?;
    let signed = SignedCheckpoint::open(&note, key).map_err(|error| wrong(&error))?;
    Ok((note, signed))
}

/// Has the issuer see to it, at its start, that it does not go another way than what was published: as far as is known here, and further
/// where its configuration says where that is.
fn mark(state: &Path, key: &VerifierKey, published: Option<&(Vec<u8>, SignedCheckpoint)>) -> Result<(), Failure> {
    let own = Folder::new(state.join("audit/log"));
    let note = match published {
        None => &[][..],
        Some((note, published)) => {
            begins_with(&own, key, &published.checkpoint)?;
            note
        }
    };
    let path = state.join("audit").join(RESTORED);
    std::fs::write(&path, note).map_err(|error| Failure::new(format!("{}: {error}", path.display())))
}

/// That what was published is no other history than what the backup has of it, where that goes further.
fn begins_with(own: &Folder, key: &VerifierKey, published: &Checkpoint) -> Result<(), Failure> {
    let checkpoint = match own.checkpoint() {
        Err(ReadError::Missing { .. }) => return Ok(()),
        Err(error) => return Err(Failure::from_error(&error)),
        Ok(note) => SignedCheckpoint::open(&note, key).map_err(|error| Failure::from_error(&error))?.checkpoint,
    };
    if checkpoint.size < published.size {
        return Ok(());
    }
    let begins = consistency(own, (published.size, published.root), &checkpoint);
    begins.map(drop).map_err(|error| {
        Failure::new(format!("the backup is not of the log that `--log` names: {error}"))
            .remedy("one of both was made by somebody else who has the log's key: find out who, before you go on")
    })
}

fn read_secret(path: &Path) -> Result<BackupSecret, Failure> {
    use std::io::Read as _;
    let wrong = |cause: &dyn std::fmt::Display| Failure::new(format!("{}: {cause}", path.display()));
    let mut text = Zeroizing::new(String::with_capacity(MAX_SECRET as usize));
    let read = File::open(path).and_then(|file| file.take(MAX_SECRET).read_to_string(&mut text));
    read.map_err(|error| wrong(&error))?;
    BackupSecret::parse(text.trim())
        .map_err(|error| wrong(&error).remedy("give the file that `signet backup keygen` wrote"))
}

fn empty_folder(path: &Path) -> Result<(), Failure> {
    match std::fs::read_dir(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(Failure::new(format!("{}: {error}", path.display()))),
        Ok(mut entries) => match entries.next() {
            None => Ok(()),
            Some(_) => Err(Failure::new(format!("{} is not empty", path.display()))
                .remedy("nothing is overwritten; move it away, or name another folder")),
        },
    }
}

fn new_folder(path: &Path) -> Result<(), Failure> {
    let made = DirBuilder::new().mode(0o700).create(path);
    made.map_err(|error| {
        Failure::new(format!("{}: {error}", path.display()))
            .remedy("see that its parent is there and may be written to; remove what an earlier try left")
    })
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// Tells a person how far it is.
struct Progress {
    bytes: u64,
    began: Instant,
    told: Instant,
    shows: bool,
}

impl Progress {
    const EACH: Duration = Duration::from_millis(500);

    fn new() -> Self {
        let now = Instant::now();
        Self { bytes: 0, began: now, told: now, shows: std::io::stderr().is_terminal() }
    }

    fn show(&mut self, more: usize) {
        self.bytes += more as u64;
        if self.shows && self.told.elapsed() >= Self::EACH {
            self.told = Instant::now();
            let mib = self.bytes as f64 / f64::from(1 << 20);
            // Whoever watches no more loses nothing.
            let _ = write!(std::io::stderr(), "\r{mib:.0} MiB, {:.0} MiB/s ", mib / self.began.elapsed().as_secs_f64());
        }
    }

    fn end(self) -> u64 {
        if self.shows {
            let _ = write!(std::io::stderr(), "\r\x1b[K");
        }
        self.bytes
    }
}

#[derive(Serialize)]
struct Made {
    public_key: String,
    secret_file: String,
}

impl Report for Made {
    fn rows(&self) -> Vec<(&'static str, String)> {
        vec![
            ("public key", self.public_key.clone()),
            ("private key", format!("{}; keep it away from the issuer, and a copy of it", self.secret_file)),
        ]
    }
}

#[derive(Serialize)]
struct Written {
    backup: String,
    bytes: u64,
    encrypted_to: String,
}

impl Report for Written {
    fn rows(&self) -> Vec<(&'static str, String)> {
        vec![
            ("backup", self.backup.clone()),
            ("bytes", self.bytes.to_string()),
            ("encrypted to", self.encrypted_to.clone()),
        ]
    }
}

#[derive(Serialize)]
struct Restored {
    state: String,
    trust_domain: String,
    software: String,
    made_at: String,
    log: String,
    entries: u64,
    files: usize,
    /// False where the records are in a database that has backups of its own.
    records: bool,
    next: String,
}

impl Restored {
    fn of(manifest: Manifest, to: &Path, is_known: bool) -> Self {
        let next = match is_known {
            true => {
                "start the issuer: it refuses where its log was published further than the backup goes, there or at `audit.export`"
            }
            false => {
                "say where the log was published (`audit.export`), or begin another one: `signet audit new-log --state …`"
            }
        };
        let made = OffsetDateTime::from_unix_timestamp(manifest.made).unwrap_or(OffsetDateTime::UNIX_EPOCH);
        Self {
            state: to.display().to_string(),
            trust_domain: manifest.trust_domain,
            software: manifest.software,
            made_at: output::timestamp(made),
            log: manifest.log,
            entries: manifest.entries,
            files: manifest.files.len(),
            records: manifest.records,
            next: next.to_owned(),
        }
    }
}

impl Report for Restored {
    fn rows(&self) -> Vec<(&'static str, String)> {
        let records = if self.records { "as they were" } else { "none: they are in PostgreSQL" };
        vec![
            ("state", self.state.clone()),
            ("trust domain", self.trust_domain.clone()),
            ("made at", format!("{} by {}", self.made_at, self.software)),
            ("audit log", format!("{}, {} entries", self.log, self.entries)),
            ("records", records.to_owned()),
            ("files", self.files.to_string()),
            ("next", self.next.clone()),
        ]
    }
}
