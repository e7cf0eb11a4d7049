//! The offline root: made, used and shown on a machine that no issuer runs on. It meets an issuer's key only as a
//! request, and an issuer meets it only as a certificate.
//!
//! ```text
//! DIR/                  mode 0700
//!   root.key            mode 0600, sealed by a passphrase (format: `authority/custody/sealed_file.rs`); or
//!   root.token          which token the key is in
//!   root.pem            the root certificate: the trust bundle of its domain
//!   ceremonies.jsonl    what the root signed, when and by whom (format: [`record`])
//!   ceremonies.head     how far that record went
//! ```
//!
//! [`Ceremony`] plans what is signed on which [`Terms`], and signs it once it is on [`record`]; [`Listing`] does the same for the list of
//! what is revoked.

mod ceremony;
mod error;
mod key;
mod listing;
pub mod record;
mod requests;
mod terms;

use std::fs::{DirBuilder, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use aws_lc_rs::digest::{SHA256, digest};
use rustls_pki_types::CertificateDer;
use signet_identity::{Clock, TrustDomain};
use time::OffsetDateTime;

pub use ceremony::{Ceremony, Planned};
pub use error::RootError;
pub use key::Unlock;
pub use listing::{ListTerms, Listing, PlannedList};
use record::{Record, Witness};
pub use requests::{MAX_REQUESTS, RequestFault};
pub use terms::{Label, Purpose, Terms, UriDomain};

use crate::authority::certificate::{CaCertificate, MalformedCertificate};
use crate::authority::custody::{CaKey, Kind, TokenPlace};
use crate::authority::hierarchy::{Level, ca_certificate, ca_validity};
use crate::authority::{Passphrase, SealStrength};
use crate::pem_files;
pub use crate::revocation::Reason;

/// A root or an intermediate, for people and for the commands that make one.
#[derive(Clone, Debug)]
pub struct CaSummary {
    pub trust_domain: TrustDomain,
    /// As RFC 4514 writes it.
    pub subject: String,
    /// The subject key identifier, lower-case hexadecimal.
    pub key_id: String,
    /// SHA-256 of the certificate, lower-case hexadecimal.
    pub sha256: String,
    pub not_before: OffsetDateTime,
    pub not_after: OffsetDateTime,
    pub certificate: CertificateDer<'static>,
}

const MAX_LIFE: Duration = Duration::from_secs(100 * 366 * 86_400);

/// Makes a root for `trust_domain` in `folder`, which is made too if it is not there.
pub fn init(
    folder: &Path,
    trust_domain: &TrustDomain,
    passphrase: &Passphrase,
    strength: SealStrength,
    life: Duration,
    clock: &dyn Clock,
) -> Result<CaSummary, RootError> {
    init_with(folder, trust_domain, life, clock, || key::make_sealed(folder, passphrase, strength))
}

/// The same, with a key that is made in a token and never leaves it.
pub fn init_in_token(
    folder: &Path,
    trust_domain: &TrustDomain,
    place: &TokenPlace,
    life: Duration,
    clock: &dyn Clock,
) -> Result<CaSummary, RootError> {
    init_with(folder, trust_domain, life, clock, || key::make_in_token(folder, place))
}

fn init_with(
    folder: &Path,
    trust_domain: &TrustDomain,
    life: Duration,
    clock: &dyn Clock,
    make_key: impl FnOnce() -> Result<CaKey, RootError>,
) -> Result<CaSummary, RootError> {
    check_life(life)?;
    make_private_folder(folder)?;
    let certificate_path = paths(folder).1;
    if certificate_path.exists() {
        return Err(RootError::Exists { folder: folder.to_owned() });
    }
    let key = make_key()?;
    let now = clock.now();
    let validity = ca_validity(now, life, None);
    let params = ca_certificate(Level::Root, trust_domain, &key, validity).map_err(RootError::Certify)?;
    let certificate = params.self_signed(&key.signer(Kind::Certificate)).map_err(RootError::Certify)?;
    let parsed = CaCertificate::parse(certificate.der().to_vec()).map_err(malformed(&certificate_path))?;
    Record::begin(folder, (&parsed, trust_domain.as_str()), &key, &Witness::of_this_process(), now)?;
    let io = |source| RootError::Io { path: certificate_path.clone(), source };
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o644).open(&certificate_path).map_err(io)?;
    file.write_all(pem_files::encode(pem_files::CERTIFICATE, certificate.der()).as_bytes())
        .and_then(|()| file.sync_all())
        .map_err(io)?;
    show(folder)
}

/// Turns one request (PEM) into an intermediate of `life`, cut off at the root's end, with `path_length` CAs below it, and asks nobody: for whoever
/// runs the root and the issuer in one process. Operators go by a [`Ceremony`].
pub fn sign(
    folder: &Path,
    passphrase: &Passphrase,
    request: &[u8],
    path_length: u8,
    life: Duration,
    clock: &dyn Clock,
) -> Result<CaSummary, RootError> {
    let terms = Terms { path_length: Some(path_length), ..Terms::of(life) };
    let ceremony = Ceremony::plan(folder, request, &terms, clock)?;
    let one = |count| RootError::Requests { what: RequestFault::NotOne { count } };
    if ceremony.planned().len() != 1 {
        return Err(one(ceremony.planned().len()));
    }
    ceremony.sign(&Unlock::Passphrase(passphrase), &Witness::of_this_process(), clock)?.pop().ok_or_else(|| one(0))
}

/// The root in `folder`. Needs no passphrase.
pub fn show(folder: &Path) -> Result<CaSummary, RootError> {
    let (certificate, trust_domain) = read_root(folder)?;
    Ok(CaSummary::new(certificate, trust_domain))
}

impl CaSummary {
    fn new(certificate: CaCertificate, trust_domain: TrustDomain) -> Self {
        Self {
            trust_domain,
            subject: certificate.subject,
            key_id: certificate.key_id.map(|id| id.to_string()).unwrap_or_default(),
            sha256: hex::encode(digest(&SHA256, &certificate.der)),
            not_before: certificate.not_before,
            not_after: certificate.not_after,
            certificate: certificate.der,
        }
    }

    /// The certificate as PEM.
    pub fn to_pem(&self) -> String {
        pem_files::encode(pem_files::CERTIFICATE, &self.certificate)
    }
}

/// The certificate in `folder`, and the trust domain that it is the root of.
fn read_root(folder: &Path) -> Result<(CaCertificate, TrustDomain), RootError> {
    let (key_path, path) = paths(folder);
    if !path.exists() {
        return Err(match key_path.exists() || key::token_path(folder).exists() {
            true => RootError::CertificateGone { folder: folder.to_owned() },
            false => RootError::Missing { folder: folder.to_owned() },
        });
    }
    read_certificate(&path)
}

fn read_certificate(path: &Path) -> Result<(CaCertificate, TrustDomain), RootError> {
    let text = pem_files::read(path).map_err(|source| RootError::Io { path: path.to_owned(), source })?;
    let damaged = |what| RootError::Certificate { path: path.to_owned(), what };
    let blocks = pem_files::decode(pem_files::CERTIFICATE, &text).map_err(|_| damaged("it is not PEM"))?;
    let [der] = <[Vec<u8>; 1]>::try_from(blocks).map_err(|_| damaged("it does not hold one certificate"))?;
    let certificate = CaCertificate::parse(der).map_err(malformed(path))?;
    if !certificate.is_signed_by(&certificate) {
        return Err(damaged("its signature is not its own"));
    }
    let trust_domain = match &certificate.uris[..] {
        [uri] => uri.strip_prefix("spiffe://").and_then(|name| name.parse().ok()),
        _ => None,
    };
    Ok((certificate, trust_domain.ok_or_else(|| damaged("it names no trust domain"))?))
}

fn paths(folder: &Path) -> (PathBuf, PathBuf) {
    (folder.join("root.key"), folder.join("root.pem"))
}

fn malformed(path: &Path) -> impl FnOnce(MalformedCertificate) -> RootError {
    move |_| RootError::Certificate { path: path.to_owned(), what: "it is no certificate" }
}

/// Whether it signs anything now.
fn check_is_valid(root: &CaCertificate, now: OffsetDateTime) -> Result<(), RootError> {
    if root.not_after <= now {
        return Err(RootError::Expired { not_after: root.not_after });
    }
    if now < root.not_before {
        return Err(RootError::NotYetValid { not_before: root.not_before, now });
    }
    Ok(())
}

fn check_life(life: Duration) -> Result<(), RootError> {
    match (Duration::from_secs(1)..=MAX_LIFE).contains(&life) {
        true => Ok(()),
        false => Err(RootError::Life { life }),
    }
}

fn make_private_folder(folder: &Path) -> Result<(), RootError> {
    let io = |source| RootError::Io { path: folder.to_owned(), source };
    DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(io)?;
    let mut permissions = std::fs::metadata(folder).map_err(io)?.permissions();
    if permissions.mode() & 0o077 == 0 {
        return Ok(());
    }
    // What others could enter until now must hold nothing that they may have left there.
    if std::fs::read_dir(folder).map_err(io)?.next().is_some() {
        return Err(RootError::NotPrivate { folder: folder.to_owned() });
    }
    permissions.set_mode(0o700);
    std::fs::set_permissions(folder, permissions).map_err(io)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use rcgen::KeyPair;
    use signet_identity::SystemClock;

    use super::*;
    use crate::authority::KeyFileError;
    use crate::authority::hierarchy::intermediate_request;
    use crate::key::P256Key;

    const YEAR: Duration = Duration::from_secs(365 * 86_400);

    fn passphrase() -> Passphrase {
        Passphrase::read(&b"open sesame"[..]).unwrap()
    }

    fn init_in(folder: &Path) -> Result<CaSummary, RootError> {
        let trust_domain = "example.org".parse().unwrap();
        init(folder, &trust_domain, &passphrase(), SealStrength::MINIMAL, YEAR, &SystemClock)
    }

    fn request() -> String {
        let key = P256Key::generate().unwrap();
        pem_files::encode(
            pem_files::REQUEST,
            &intermediate_request(&"example.org".parse().unwrap(), &key.into()).unwrap(),
        )
    }

    #[test]
    fn a_root_is_made_once_shown_and_private() {
        let parent = tempfile::tempdir().unwrap();
        let folder = parent.path().join("ca/root");
        let made = init_in(&folder).unwrap();
        let shown = show(&folder).unwrap();
        assert_eq!(shown.sha256, made.sha256);
        assert_eq!(shown.trust_domain.as_str(), "example.org");
        assert_eq!(std::fs::metadata(&folder).unwrap().permissions().mode() & 0o777, 0o700);
        assert_eq!(std::fs::metadata(folder.join("root.key")).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(matches!(init_in(&folder), Err(RootError::Exists { .. })));
        std::fs::remove_file(folder.join("root.pem")).unwrap();
        assert!(matches!(show(&folder), Err(RootError::CertificateGone { .. })));
        assert!(matches!(init_in(&folder), Err(RootError::Exists { .. })));
    }

    #[test]
    fn an_intermediate_signs_leaves_only_and_does_not_outlive_its_root() {
        let folder = tempfile::tempdir().unwrap();
        let root = init_in(folder.path()).unwrap();
        let signed = sign(folder.path(), &passphrase(), request().as_bytes(), 0, 2 * YEAR, &SystemClock).unwrap();
        assert_eq!(signed.not_after, root.not_after);
        let (rest, certificate) = x509_parser::parse_x509_certificate(&signed.certificate).unwrap();
        assert!(rest.is_empty());
        let constraints = certificate.basic_constraints().unwrap().unwrap();
        assert!(constraints.critical && constraints.value.ca);
        assert_eq!(constraints.value.path_len_constraint, Some(0));
        let usage = certificate.key_usage().unwrap().unwrap();
        assert!(usage.critical);
        assert_eq!(usage.value.flags, (1 << 5) | (1 << 6));
        let serial = certificate.raw_serial();
        assert!(serial.len() == 16 && serial[0] & 0xc0 == 0x40);
    }

    #[test]
    fn two_intermediates_never_share_a_subject() {
        let folder = tempfile::tempdir().unwrap();
        init_in(folder.path()).unwrap();
        let subject =
            || sign(folder.path(), &passphrase(), request().as_bytes(), 0, YEAR, &SystemClock).unwrap().subject;
        assert_ne!(subject(), subject());
    }

    #[test]
    fn names_in_a_request_do_not_count() {
        let folder = tempfile::tempdir().unwrap();
        init_in(folder.path()).unwrap();
        let key = KeyPair::generate().unwrap();
        let params = rcgen::CertificateParams::new(["evil.example".to_owned()]).unwrap();
        let request = params.serialize_request(&key).unwrap().pem().unwrap();
        let signed = sign(folder.path(), &passphrase(), request.as_bytes(), 0, YEAR, &SystemClock).unwrap();
        assert!(!signed.certificate.windows(4).any(|window| window == b"evil"));
    }

    #[test]
    fn what_cannot_be_signed_is_refused_with_the_reason() {
        let folder = tempfile::tempdir().unwrap();
        let request = request();
        let sign_with = |passphrase: &Passphrase, request: &str, life| {
            sign(folder.path(), passphrase, request.as_bytes(), 0, life, &SystemClock).unwrap_err()
        };
        assert!(matches!(sign_with(&passphrase(), &request, YEAR), RootError::Missing { .. }));
        init_in(folder.path()).unwrap();
        let wrong = Passphrase::read(&b"open barley"[..]).unwrap();
        assert!(matches!(sign_with(&wrong, &request, YEAR), RootError::Key(KeyFileError::WrongPassphrase { .. })));
        assert!(matches!(sign_with(&passphrase(), "", YEAR), RootError::Requests { .. }));
        assert!(matches!(sign_with(&passphrase(), &request.repeat(2), YEAR), RootError::Request { .. }));
        assert!(matches!(
            sign_with(&passphrase(), &(request.clone() + &self::request()), YEAR),
            RootError::Requests { .. }
        ));
        assert!(matches!(sign_with(&passphrase(), &request, Duration::ZERO), RootError::Life { .. }));
        assert!(matches!(sign_with(&passphrase(), &request, Duration::MAX), RootError::Life { .. }));
    }

    #[test]
    fn a_damaged_or_foreign_root_certificate_is_told_apart() {
        let (one, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        init_in(one.path()).unwrap();
        init_in(other.path()).unwrap();
        for public in ["root.pem", "ceremonies.jsonl", "ceremonies.head"] {
            std::fs::copy(other.path().join(public), one.path().join(public)).unwrap();
        }
        let error = sign(one.path(), &passphrase(), request().as_bytes(), 0, YEAR, &SystemClock).unwrap_err();
        assert!(matches!(error, RootError::Certificate { .. }), "{error}");
        std::fs::write(one.path().join("root.pem"), "").unwrap();
        assert!(matches!(show(one.path()), Err(RootError::Certificate { .. })));
    }

    #[test]
    fn a_folder_that_others_could_enter_is_taken_only_empty() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
        std::fs::write(folder.path().join("note"), "").unwrap();
        assert!(matches!(init_in(folder.path()), Err(RootError::NotPrivate { .. })));
        std::fs::remove_file(folder.path().join("note")).unwrap();
        init_in(folder.path()).unwrap();
        assert_eq!(std::fs::metadata(folder.path()).unwrap().permissions().mode() & 0o777, 0o700);
    }
}
