//! What is revoked, as a signed statement: its form, and the signing of it.

use prost::Message as _;
use signet_identity::TrustDomain;
use signet_proto::identity::v1 as wire;
use time::OffsetDateTime;

use super::{Entry, What};
use crate::authority::{Authority, SignError};
use crate::distribution::Version;

/// What tells the row of revocations of one database from that of another.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Lineage([u8; 8]);

/// Which revocations are in a statement.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub(super) struct Span {
    /// After this epoch,
    pub(super) after: u64,
    /// up to this one.
    pub(super) epoch: u64,
}

/// What is to be signed.
#[derive(Debug)]
pub(super) struct Unsigned {
    span: Span,
    latest: u64,
    at: OffsetDateTime,
    /// A RevocationStatement, encoded.
    statement: Vec<u8>,
    version: Version,
}

/// Ready to be sent, to as many as want it.
#[derive(Clone, Debug)]
pub(crate) struct SignedStatement {
    pub(super) span: Span,
    /// The latest there was.
    pub(super) latest: u64,
    pub(super) at: OffsetDateTime,
    pub(crate) told: wire::Revocations,
}

impl Lineage {
    pub(crate) fn draw() -> Result<Self, aws_lc_rs::error::Unspecified> {
        let mut lineage = [0; 8];
        aws_lc_rs::rand::fill(&mut lineage)?;
        Ok(Self(lineage))
    }

    pub(crate) fn read(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Self)
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// By which a client says how far it has come.
    pub(crate) fn version(&self, epoch: u64) -> Version {
        let mut version = [0; 16];
        version[..8].copy_from_slice(&self.0);
        version[8..].copy_from_slice(&epoch.to_be_bytes());
        Version::of_bytes(version)
    }

    /// The epoch of a version; none where it is of another lineage, or no epoch that a record can come to.
    pub(crate) fn epoch_of(&self, version: Version) -> Option<u64> {
        let bytes = version.to_bytes();
        let (lineage, epoch) = bytes.split_first_chunk::<8>()?;
        let epoch = u64::from_be_bytes(epoch.try_into().ok()?);
        (*lineage == self.0 && i64::try_from(epoch).is_ok()).then_some(epoch)
    }
}

impl Unsigned {
    /// `entries` are those of `span` that have not expired.
    pub(super) fn new<'a>(
        (trust_domain, lineage): (&TrustDomain, Lineage),
        (span, latest): (Span, u64),
        entries: impl Iterator<Item = &'a Entry>,
        now: OffsetDateTime,
    ) -> Self {
        let mut statement = wire::RevocationStatement {
            trust_domain: trust_domain.to_string(),
            lineage: lineage.as_bytes().to_vec(),
            after: span.after,
            epoch: span.epoch,
            latest,
            at: Some(prost_types::Timestamp { seconds: now.unix_timestamp(), nanos: now.nanosecond().cast_signed() }),
            ..wire::RevocationStatement::default()
        };
        entries.for_each(|entry| add(&mut statement, entry));
        Self { span, latest, at: now, statement: statement.encode_to_vec(), version: lineage.version(span.epoch) }
    }

    pub(super) fn sign(self, authority: &Authority) -> Result<SignedStatement, SignError> {
        let Self { span, latest, at, statement, version } = self;
        let signature = authority.sign_statement(&to_be_signed(&statement))?;
        let chain = authority.chain().iter().map(|der| der.to_vec()).collect();
        let told = wire::Revocations { statement, signature, chain, version: version.to_vec() };
        Ok(SignedStatement { span, latest, at, told })
    }
}

impl SignedStatement {
    pub(crate) fn epoch(&self) -> u64 {
        self.span.epoch
    }

    /// Of the parts that grow.
    pub(super) fn bytes(&self) -> usize {
        self.told.statement.len()
    }
}

fn add(statement: &mut wire::RevocationStatement, entry: &Entry) {
    let not_after = entry.not_after;
    match &entry.what {
        What::Serial(authority, serial) => {
            // There are few authorities, and those of one revocation mostly have the same.
            let of_authority = |found: &&mut wire::RevokedSerials| found.authority_key_id == authority.as_bytes();
            let of_authority = match statement.serials.iter_mut().rev().find(of_authority) {
                Some(found) => found,
                None => {
                    let authority_key_id = authority.as_bytes().to_vec();
                    statement.serials.push_mut(wire::RevokedSerials { authority_key_id, ..Default::default() })
                }
            };
            of_authority.serials.push(serial.as_bytes().to_vec());
            of_authority.not_after.push(not_after);
        }
        What::Key(hash) => {
            statement.keys.push(wire::RevokedKey { sha256: hash.as_bytes().to_vec(), not_after });
        }
        What::Authority(_, hash) => {
            statement.authorities.push(wire::RevokedAuthority { sha256: hash.as_bytes().to_vec(), not_after });
        }
    }
}

/// The form of RFC 8446 §4.4.3, so that no signature of a certificate passes for it, nor the other way.
fn to_be_signed(statement: &[u8]) -> Vec<u8> {
    [&[0x20; 64][..], b"signet revocations v1\0", statement].concat()
}
