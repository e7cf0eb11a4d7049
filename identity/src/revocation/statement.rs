use std::sync::Arc;

use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1, UnparsedPublicKey};
use rustls_pki_types::CertificateDer;
use time::OffsetDateTime;

use super::{
    Entries, KeySha256, Position, RevocationSet, Revocations, Revoked,
    chain::signer_key,
    layers::{Entry, GRACE, Until},
    serials::Serials,
};
use crate::{AuthorityError, BundleSet, TrustDomain};

/// What stands before a statement where it is signed, so that no signature of anything else passes for one of it: the form
/// of RFC 8446 §4.4.3.
const CONTEXT: &[u8] = b"signet revocations v1\0";
const CONTEXT_PADDING: [u8; 64] = [0x20; 64];

const MAX_STATEMENT_BYTES: usize = 1 << 20;
const MAX_SIGNATURE_BYTES: usize = 80;
/// Of all kinds together.
const MAX_ENTRIES_OF_A_STATEMENT: usize = 16_384;
/// Of one trust domain: 250 MB of serial numbers.
const MAX_ENTRIES: usize = 10_000_000;
/// No row of numbers is longer: it is kept in a database, as 64 bits with a sign.
const MAX_EPOCH: u64 = i64::MAX as u64;
/// Whose certificates are revoked one by one.
const MAX_AUTHORITIES: usize = 4_096;
const MAX_KEY_ID_BYTES: usize = 64;

/// A statement of what is revoked, as it was received.
#[derive(Clone, Copy, Debug)]
pub struct SignedRevocations<'a> {
    /// The very bytes that were signed.
    pub statement: &'a [u8],
    /// ECDSA with P-256 and SHA-256, ASN.1.
    pub signature: &'a [u8],
    /// The CA certificate of who signed, and those that lead to a root of the bundle.
    pub chain: &'a [CertificateDer<'a>],
}

/// A statement that an authority of `trust_domain` has signed. Nothing but its bytes may be decoded.
#[derive(Clone, Copy, Debug)]
pub struct VerifiedRevocations<'a> {
    trust_domain: &'a TrustDomain,
    statement: &'a [u8],
}

/// A statement as it was decoded. What it says is checked by [`RevocationSet::with`].
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct RevocationStatement {
    pub trust_domain: String,
    /// Which database numbers the revocations: 8 bytes.
    pub lineage: Vec<u8>,
    /// It has all that came after this one,
    pub after: u64,
    /// up to this one.
    pub epoch: u64,
    /// The last one that there is.
    pub latest: u64,
    /// When it was made, in seconds of Unix time.
    pub at: i64,
    pub serials: Vec<RevokedSerials>,
    pub keys: Vec<RevokedKey>,
    pub authorities: Vec<RevokedKey>,
}

/// Certificates that one authority has signed.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct RevokedSerials {
    pub authority_key_id: Vec<u8>,
    /// Big endian, 1 to 20 bytes, positive.
    pub serials: Vec<Vec<u8>>,
    /// Of each of them, in seconds of Unix time.
    pub not_after: Vec<i64>,
}

/// A key, or an authority's.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct RevokedKey {
    /// Of its SubjectPublicKeyInfo, DER: 32 bytes.
    pub sha256: Vec<u8>,
    /// Seconds of Unix time.
    pub not_after: i64,
}

/// Why a statement is not believed, or not applied. What was known stays.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum RevocationError {
    #[error("the statement has {bytes} bytes; the limit is 1 MiB")]
    TooLarge { bytes: usize },
    #[error("the signer's chain is too large: the limits are 4 certificates and 8 KiB for each of them")]
    ChainTooLarge,
    #[error("no bundle is known for trust domain `{trust_domain}`")]
    UnknownTrustDomain { trust_domain: TrustDomain },
    #[error("there is no certificate of who signed the statement")]
    NoSigner,
    #[error("certificate {position} of the signer's chain is not an authority's")]
    Signer { position: usize, source: AuthorityError },
    #[error("certificate {position} of the signer's chain is not valid now")]
    SignerNotValidNow { position: usize },
    #[error("certificate {position} of the signer's chain is not signed by the one after it")]
    ChainSignature { position: usize },
    #[error(
        "certificate {position} of the signer's chain does not allow what is below it, or has an extension that is unknown"
    )]
    SignerConstrained { position: usize },
    #[error("no root of trust domain `{trust_domain}` vouches for who signed the statement")]
    NotUnderBundle { trust_domain: TrustDomain },
    #[error("who signed the statement is revoked: {0}")]
    SignerRevoked(Revoked),
    #[error("the key of who signed the statement is not for ECDSA with P-256")]
    SignerKey,
    #[error("the statement's signature is not that of its signer")]
    Signature,
    #[error("the statement is of trust domain `{said}`, and signed by an authority of `{signed_by}`")]
    OtherTrustDomain { said: String, signed_by: TrustDomain },
    #[error("the statement's {what} cannot be")]
    Malformed { what: &'static str },
    #[error("the statement was made {} s ahead of this clock, and leaves out what expires until then", .ahead)]
    FromTheFuture { ahead: i64 },
    #[error("the statement has {count} entries; the limit is 16,384")]
    TooMany { count: usize },
    #[error("{count} entries of one trust domain would be known; the limits are 10,000,000, of 4,096 authorities")]
    Full { count: usize },
    #[error("the statement goes back to {epoch}; {known} is known already")]
    GoesBack { epoch: u64, known: u64 },
    #[error("the statement begins after {after}, so that what is between {known} and that would be missed")]
    WouldMiss { after: u64, known: u64 },
    #[error("the statement leaps from {from} to {epoch}; no statement is of more than 16,777,216 revocations")]
    Leaps { from: u64, epoch: u64 },
    #[error("the statement is of another database and does not begin at its beginning, but after {after}")]
    OtherLineage { after: u64 },
}

impl<'a> SignedRevocations<'a> {
    /// Whether an authority of the trust domain has signed the statement: its chain leads to a root of that domain's own bundle,
    /// and none of it is `revoked`. Nothing of the statement is looked into.
    pub fn verify(
        &self,
        trust_domain: &'a TrustDomain,
        bundles: &BundleSet,
        revoked: &RevocationSet,
        now: OffsetDateTime,
    ) -> Result<VerifiedRevocations<'a>, RevocationError> {
        let statement = self.statement;
        if statement.len() > MAX_STATEMENT_BYTES {
            return Err(RevocationError::TooLarge { bytes: statement.len() });
        }
        if self.signature.len() > MAX_SIGNATURE_BYTES {
            return Err(RevocationError::Signature);
        }
        let unknown = || RevocationError::UnknownTrustDomain { trust_domain: trust_domain.clone() };
        let bundle = bundles.get(trust_domain).ok_or_else(unknown)?;
        let key = signer_key(self.chain, bundle, revoked.get(trust_domain), now)?;
        UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, key)
            .verify(&Self::signed_bytes(statement), self.signature)
            .map_err(|_| RevocationError::Signature)?;
        Ok(VerifiedRevocations { trust_domain, statement })
    }

    /// What is signed of a statement.
    pub fn signed_bytes(statement: &[u8]) -> Vec<u8> {
        [&CONTEXT_PADDING, CONTEXT, statement].concat()
    }
}

impl<'a> VerifiedRevocations<'a> {
    /// What was signed, to be decoded.
    pub fn statement(&self) -> &'a [u8] {
        self.statement
    }
}

impl RevocationSet {
    /// With what a statement adds, which was decoded from the bytes that are `verified`: all of it, or an error and nothing.
    pub fn with(
        &self,
        verified: VerifiedRevocations<'_>,
        statement: RevocationStatement,
        now: OffsetDateTime,
    ) -> Result<Self, RevocationError> {
        let trust_domain = verified.trust_domain;
        if statement.trust_domain != trust_domain.as_str() {
            // What a peer sends may be long; who reads this needs its beginning.
            let said = statement.trust_domain.chars().take(128).collect();
            return Err(RevocationError::OtherTrustDomain { said, signed_by: trust_domain.clone() });
        }
        let known = self.get(trust_domain);
        let ahead = statement.at.saturating_sub(now.unix_timestamp());
        if ahead > i64::from(GRACE) {
            return Err(RevocationError::FromTheFuture { ahead });
        }
        let position = statement.position(known)?;
        statement.check_size()?;
        let mut entries = known.map_or_else(Entries::new, |known| (*known.entries).clone());
        let is_new = entries.add(&statement, now)?;
        let entries = match known {
            Some(known) if !is_new => known.entries.clone(),
            Some(_) | None => Arc::new(entries),
        };
        Ok(self.replaced(trust_domain, Revocations { position, latest: statement.latest, entries }))
    }
}

impl RevocationStatement {
    /// How many numbers one statement goes on at most, of which most may have expired: none uses up those that there are, so that
    /// nothing could come after it.
    pub const MAX_EPOCHS: u64 = 1 << 24;

    /// So long what has expired is remembered, and told: no two clocks that work together are further apart.
    pub const GRACE: std::time::Duration = std::time::Duration::from_secs(GRACE as u64);

    /// How far all is known with this statement, if nothing is missed and nothing forgotten with it.
    fn position(&self, known: Option<&Revocations>) -> Result<Position, RevocationError> {
        let Self { after, epoch, latest, .. } = *self;
        let malformed = |what| RevocationError::Malformed { what };
        let lineage = self.lineage[..].try_into().map_err(|_| malformed("lineage"))?;
        if !(after <= epoch && epoch <= latest && latest <= MAX_EPOCH) {
            return Err(malformed("row of numbers"));
        }
        match known.map(|known| known.position) {
            Some(known) if known.lineage == lineage => {
                let known = known.epoch;
                if epoch < known {
                    return Err(RevocationError::GoesBack { epoch, known });
                }
                if after > known {
                    return Err(RevocationError::WouldMiss { after, known });
                }
            }
            Some(_) if after > 0 => return Err(RevocationError::OtherLineage { after }),
            None if after > 0 => return Err(RevocationError::WouldMiss { after, known: 0 }),
            Some(_) | None => {}
        }
        if epoch - after > Self::MAX_EPOCHS {
            return Err(RevocationError::Leaps { from: after, epoch });
        }
        Ok(Position { lineage, epoch })
    }

    fn check_size(&self) -> Result<(), RevocationError> {
        let serials: usize = self.serials.iter().map(|of_authority| of_authority.serials.len()).sum();
        let count = serials + self.keys.len() + self.authorities.len();
        if count > MAX_ENTRIES_OF_A_STATEMENT || self.serials.len() > MAX_ENTRIES_OF_A_STATEMENT {
            return Err(RevocationError::TooMany { count });
        }
        Ok(())
    }
}

impl Entries {
    /// Whether there was anything new. What is half added after an error is thrown away whole by whoever called.
    fn add(&mut self, statement: &RevocationStatement, now: OffsetDateTime) -> Result<bool, RevocationError> {
        let mut is_new = false;
        for of_authority in &statement.serials {
            is_new |= self.add_serials(of_authority, now)?;
        }
        is_new |= self.keys.add(keys(&statement.keys)?, now);
        is_new |= self.authorities.add(keys(&statement.authorities)?, now);
        let count = self.counts().all();
        if count > MAX_ENTRIES || self.serials.len() > MAX_AUTHORITIES {
            return Err(RevocationError::Full { count });
        }
        Ok(is_new)
    }

    fn add_serials(&mut self, revoked: &RevokedSerials, now: OffsetDateTime) -> Result<bool, RevocationError> {
        let malformed = |what| RevocationError::Malformed { what };
        let RevokedSerials { authority_key_id, serials, not_after } = revoked;
        if authority_key_id.is_empty() || authority_key_id.len() > MAX_KEY_ID_BYTES {
            return Err(malformed("authority key identifier"));
        }
        if serials.len() != not_after.len() {
            return Err(malformed("number of expiry times"));
        }
        let entries = serials.iter().map(Vec::as_slice).zip(not_after.iter().copied());
        match self.serials.get_mut(&authority_key_id[..]) {
            Some(known) => known.add(entries, now),
            None => {
                let mut added = Serials::new();
                let is_new = added.add(entries, now)?;
                if is_new {
                    self.serials.insert(authority_key_id[..].into(), added);
                }
                Ok(is_new)
            }
        }
    }
}

fn keys(revoked: &[RevokedKey]) -> Result<Vec<Entry<32>>, RevocationError> {
    let entry = |revoked: &RevokedKey| {
        let key = revoked.sha256[..].try_into().map_err(|_| RevocationError::Malformed { what: "key" })?;
        Ok(Entry { key, until: Until::from_unix(revoked.not_after) })
    };
    revoked.iter().map(entry).collect()
}

impl RevokedKey {
    pub fn new(key: KeySha256, not_after: OffsetDateTime) -> Self {
        Self { sha256: key.as_bytes().to_vec(), not_after: not_after.unix_timestamp() }
    }
}

#[cfg(any(fuzzing, test))]
impl<'a> VerifiedRevocations<'a> {
    /// As if it was verified, for those who look at what follows.
    pub fn of(trust_domain: &'a TrustDomain) -> Self {
        Self { trust_domain, statement: &[] }
    }
}
