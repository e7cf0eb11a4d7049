//! Why a root is not made, not used or not believed.

use std::path::PathBuf;
use std::time::Duration;

use time::OffsetDateTime;

use super::record::RecordError;
use super::requests::RequestFault;
use crate::authority::KeyFileError;
use crate::authority::custody::{CustodyError, SignError};
use crate::utc::Utc;

#[derive(Debug, thiserror::Error)]
pub enum RootError {
    #[error("{} holds a root already\nname another folder; a root is never overwritten", folder.display())]
    Exists { folder: PathBuf },
    #[error(
        "{} holds no root\nname its folder, or make one: `signet ca init --help`",
        folder.display()
    )]
    Missing { folder: PathBuf },
    #[error(
        "{} holds a root's key, but not its certificate\nput root.pem back: it is the trust bundle of every machine",
        folder.display()
    )]
    CertificateGone { folder: PathBuf },
    #[error("other users can enter {}\nrun `chmod 700 {}`", folder.display(), folder.display())]
    NotPrivate { folder: PathBuf },
    #[error("{} cannot be used", path.display())]
    Io { path: PathBuf, source: std::io::Error },
    #[error(transparent)]
    Key(#[from] KeyFileError),
    #[error(transparent)]
    Custody(#[from] CustodyError),
    #[error("the key in {} is {rests}\ngive {wanted}", folder.display())]
    WrongUnlock { folder: PathBuf, rests: &'static str, wanted: &'static str },
    #[error("{} does not say where the root's key is\nrestore it from a copy", path.display())]
    TokenFile { path: PathBuf },
    #[error("the root signed nothing")]
    Sign(#[from] SignError),
    #[error(transparent)]
    Record(#[from] RecordError),
    #[error("the root certificate {} is damaged: {what}\nrestore it from a copy of the trust bundle", path.display())]
    Certificate { path: PathBuf, what: &'static str },
    #[error("the root expired at {}\nmake a new one with `signet ca init` in another folder", Utc(*not_after))]
    Expired { not_after: OffsetDateTime },
    #[error(
        "the root is not valid before {}, and this machine's clock is at {}\nset the clock of this machine",
        Utc(*not_before), Utc(*now)
    )]
    NotYetValid { not_before: OffsetDateTime, now: OffsetDateTime },
    #[error("request {number} {what}\ngive the file that the issuer wrote, unchanged")]
    Request { number: usize, what: RequestFault },
    #[error("the file {what}\ngive the file that the issuer wrote, unchanged")]
    Requests { what: RequestFault },
    #[error("a life of {} s is not between a second and a hundred years", life.as_secs())]
    Life { life: Duration },
    #[error(
        "this root never signed an intermediate with the serial number {serial}\n`signet ca log` shows those that it signed"
    )]
    NeverSigned { serial: String },
    #[error("the intermediate with the serial number {serial} has expired\nit need not be revoked")]
    Ended { serial: String },
    #[error(
        "the intermediate with the serial number {serial} was revoked before, at {at}\nleave it away: it is on each list until it expires"
    )]
    RevokedBefore { serial: String, at: String },
    #[error("{what}")]
    Terms { what: String },
    #[error("a certificate that is not what was shown was not signed: {what}")]
    NotAsPlanned { what: &'static str },
    #[error("the certificate cannot be made")]
    Certify(#[source] rcgen::Error),
}
