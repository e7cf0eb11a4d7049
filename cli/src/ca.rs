//! `signet ca`: the offline root.

mod listing;
mod record;
mod signing;

use std::fs::{File, OpenOptions};
use std::io::Read as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use identity_issuer::root::{self, CaSummary};
use identity_issuer::{SealStrength, TokenName, TokenPlace};
use serde::Serialize;
use signet_identity::SystemClock;
use time::OffsetDateTime;

use crate::args::{CaInitOptions, CaShowOptions};
use crate::failure::Failure;
use crate::output::{self, Format, Report};
use crate::passphrase::Opener;

pub(crate) use listing::crl;
pub(crate) use record::{log, verify_log};
pub(crate) use signing::sign;

/// A request is a public key and a signature; this is ten times that.
const MAX_REQUEST_BYTES: u64 = 16 * 1024;

pub(crate) fn init(options: &CaInitOptions, format: Format) -> Result<(), Failure> {
    let made = match (Opener::read(&options.unlock)?, &options.token.pkcs11_module, &options.token.pkcs11_token) {
        (Opener::Passphrase(passphrase), None, _) => {
            let strength = SealStrength::STANDARD;
            root::init(&options.dir, &options.trust_domain, &passphrase, strength, options.life, &SystemClock)
        }
        (Opener::PinFile(pin_file), Some(module), Some(label)) => {
            let token = TokenName::Label(label.clone());
            let place = TokenPlace { module: module.clone(), token, pin_file, sessions: 1 };
            root::init_in_token(&options.dir, &options.trust_domain, &place, options.life, &SystemClock)
        }
        _ => {
            return Err(Failure::new("it is not clear where the root's key is to be").remedy(
                "give a passphrase for a file, or --pkcs11-module, --pkcs11-token and --pin-file for a token",
            ));
        }
    };
    let made = made.map_err(|error| Failure::from_error(&error))?;
    output::print(format, &Ca::new(&made, Some(options.dir.join("root.pem"))))
}

pub(crate) fn show(options: &CaShowOptions, format: Format) -> Result<(), Failure> {
    let shown = root::show(&options.dir).map_err(|error| Failure::from_error(&error))?;
    output::print(format, &Ca::new(&shown, None))
}

pub(crate) fn read_request(path: &Path, remedy: &str) -> Result<Vec<u8>, Failure> {
    read_requests(path, 1, remedy)
}

/// A file with so many requests at most.
fn read_requests(path: &Path, most: usize, remedy: &str) -> Result<Vec<u8>, Failure> {
    let failure = |error: std::io::Error| Failure::new(format!("{}: {error}", path.display())).remedy(remedy);
    let limit = MAX_REQUEST_BYTES * most as u64;
    let mut requests = Vec::new();
    File::open(path).map_err(failure)?.take(limit + 1).read_to_end(&mut requests).map_err(failure)?;
    if requests.len() as u64 > limit {
        return Err(Failure::new(format!("{}: too large for {most} certificate request(s)", path.display()))
            .remedy("give a file that holds requests and nothing else"));
    }
    Ok(requests)
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
