//! `signet ca`: the offline root.

use std::fs::{File, OpenOptions};
use std::io::{Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use identity_issuer::SealStrength;
use identity_issuer::root::{self, CaSummary};
use serde::Serialize;
use signet_identity::SystemClock;
use time::OffsetDateTime;

use crate::args::{CaInitOptions, CaShowOptions, CaSignOptions};
use crate::failure::Failure;
use crate::output::{self, Format, Report};
use crate::passphrase;

/// A request is a public key and a signature; this is ten times that.
const MAX_REQUEST_BYTES: u64 = 16 * 1024;

pub(crate) fn init(options: &CaInitOptions, format: Format) -> Result<(), Failure> {
    let passphrase = passphrase::read(&options.passphrase)?;
    let strength = SealStrength::STANDARD;
    let made = root::init(&options.dir, &options.trust_domain, &passphrase, strength, options.life, &SystemClock)
        .map_err(|error| Failure::from_error(&error))?;
    output::print(format, &Ca::new(&made, Some(options.dir.join("root.pem"))))
}

pub(crate) fn sign(options: &CaSignOptions, format: Format) -> Result<(), Failure> {
    let passphrase = passphrase::read(&options.passphrase)?;
    let request = read_request(&options.csr, "the issuer writes its request when it starts")?;
    // Taken before anything is signed: a certificate that can't be kept should not exist.
    let mut out = create(&options.out)?;
    let signed = root::sign(&options.dir, &passphrase, &request, options.path_length, options.life, &SystemClock)
        .map_err(|error| Failure::from_error(&error))
        .and_then(|signed| {
            let written = out.write_all(signed.to_pem().as_bytes()).and_then(|()| out.sync_all());
            written.map(|()| signed).map_err(|error| Failure::new(format!("{}: {error}", options.out.display())))
        });
    match signed {
        Ok(signed) => output::print(format, &Ca::new(&signed, Some(options.out.clone()))),
        Err(failure) => {
            // The file is ours and empty; the failure is what the operator must hear of.
            let _ = std::fs::remove_file(&options.out);
            Err(failure)
        }
    }
}

pub(crate) fn show(options: &CaShowOptions, format: Format) -> Result<(), Failure> {
    let shown = root::show(&options.dir).map_err(|error| Failure::from_error(&error))?;
    output::print(format, &Ca::new(&shown, None))
}

pub(crate) fn read_request(path: &Path, remedy: &str) -> Result<Vec<u8>, Failure> {
    let failure = |error: std::io::Error| Failure::new(format!("{}: {error}", path.display())).remedy(remedy);
    let mut request = Vec::new();
    File::open(path).map_err(failure)?.take(MAX_REQUEST_BYTES + 1).read_to_end(&mut request).map_err(failure)?;
    if request.len() as u64 > MAX_REQUEST_BYTES {
        return Err(Failure::new(format!("{}: too large for a certificate request", path.display()))
            .remedy("give a file that holds one request and nothing else"));
    }
    Ok(request)
}

/// A file for a certificate that was not there before.
pub(crate) fn create(path: &Path) -> Result<File, Failure> {
    OpenOptions::new().write(true).create_new(true).mode(0o644).open(path).map_err(|error| {
        let failure = Failure::new(format!("{}: {error}", path.display()));
        match error.kind() {
            std::io::ErrorKind::AlreadyExists => failure.remedy("nothing is overwritten; name a new file by --out"),
            _ => failure.remedy("name a file in a folder that is there and that you may write to"),
        }
    })
}

/// A CA certificate, for people.
#[derive(Serialize)]
struct Ca {
    trust_domain: String,
    subject: String,
    key_id: String,
    sha256: String,
    not_before: String,
    not_after: String,
    #[serde(skip)]
    expires: OffsetDateTime,
    #[serde(skip_serializing_if = "Option::is_none")]
    written_to: Option<PathBuf>,
}

impl Ca {
    fn new(summary: &CaSummary, written_to: Option<PathBuf>) -> Self {
        Self {
            trust_domain: summary.trust_domain.to_string(),
            subject: summary.subject.clone(),
            key_id: summary.key_id.clone(),
            sha256: summary.sha256.clone(),
            not_before: output::timestamp(summary.not_before),
            not_after: output::timestamp(summary.not_after),
            expires: summary.not_after,
            written_to,
        }
    }
}

impl Report for Ca {
    fn rows(&self) -> Vec<(&'static str, String)> {
        let left = output::distance(OffsetDateTime::now_utc(), self.expires);
        let mut rows = vec![
            ("trust domain", self.trust_domain.clone()),
            ("subject", self.subject.clone()),
            ("key id", self.key_id.clone()),
            ("SHA-256", self.sha256.clone()),
            ("not before", self.not_before.clone()),
            ("not after", format!("{} ({left})", self.not_after)),
        ];
        rows.extend(self.written_to.as_ref().map(|path| ("written to", path.display().to_string())));
        rows
    }
}
