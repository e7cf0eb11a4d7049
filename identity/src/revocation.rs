//! What is revoked before its time.
//!
//! ```text
//! signed bytes ── SignedRevocations::verify ──► VerifiedRevocations ── decoded elsewhere ──► RevocationStatement
//!                 chain, then signature         the bytes that were signed                        │
//!                                                          RevocationSet::with ◄──────────────────┘
//!                                                          lineage and epoch, then every entry; all of it or nothing
//! ```
//! Each trust domain speaks for itself: what its authorities revoke are certificates of its own.

mod chain;
mod layers;
mod serials;
mod statement;

use std::{collections::BTreeMap, fmt, sync::Arc};

use aws_lc_rs::digest::{SHA256, digest};
use rustls_pki_types::CertificateDer;
use time::OffsetDateTime;
use x509_parser::{certificate::X509Certificate, extensions::ParsedExtension};

use self::{layers::Layers, serials::Serials};
use crate::{BundleSet, Serial, TrustDomain};

pub use self::statement::{
    RevocationError, RevocationStatement, RevokedKey, RevokedSerials, SignedRevocations, VerifiedRevocations,
};

/// SHA-256 of a SubjectPublicKeyInfo, DER. Displays as lower-case hexadecimal.
#[derive(Clone, Copy, Eq, PartialEq, Ord, PartialOrd, Hash)]
pub struct KeySha256([u8; 32]);

/// What is revoked, for each trust domain by itself. Immutable, and cheap to clone: copies share what they have in common.
///
/// Two are equal when nothing was told between them.
#[derive(Clone, Default, Eq, PartialEq)]
pub struct RevocationSet(Arc<BTreeMap<TrustDomain, Revocations>>);

/// What one trust domain has revoked, as far as it is known. Cheap to clone.
#[derive(Clone)]
pub struct Revocations {
    position: Position,
    latest: u64,
    entries: Arc<Entries>,
}

/// How far the revocations of one database are known.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
struct Position {
    lineage: [u8; 8],
    epoch: u64,
}

#[derive(Clone)]
struct Entries {
    /// By the key identifier of the authority that signed them.
    serials: BTreeMap<Box<[u8]>, Serials>,
    keys: Layers<32>,
    authorities: Layers<32>,
}

/// What of a chain is revoked.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Revoked {
    #[error("the certificate with serial number {serial}")]
    Certificate { serial: Serial },
    #[error("the key with SHA-256 {sha256}")]
    Key { sha256: KeySha256 },
    #[error("the authority whose key has SHA-256 {sha256}")]
    Authority { sha256: KeySha256 },
}

/// How many entries there are of each kind.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct RevocationCounts {
    pub serials: usize,
    pub keys: usize,
    pub authorities: usize,
}

/// By what a certificate may be revoked.
#[derive(Debug)]
pub(crate) struct Revocable {
    /// Of who signed it.
    authority_key_id: Option<Box<[u8]>>,
    serial: Serial,
    pub(crate) key: KeySha256,
}

impl RevocationSet {
    /// What the trust domain has revoked; none as long as it has told nothing.
    pub fn get(&self, trust_domain: &TrustDomain) -> Option<&Revocations> {
        self.0.get(trust_domain)
    }

    /// In the order of the trust domains' names.
    pub fn iter(&self) -> impl Iterator<Item = (&TrustDomain, &Revocations)> {
        self.0.iter()
    }

    /// Whether an authority's chain, its own certificate first, leads to a root of its trust domain's bundle, and none of it is revoked.
    pub(crate) fn check_authority(
        &self,
        trust_domain: &TrustDomain,
        chain: &[CertificateDer<'_>],
        bundles: &BundleSet,
        now: OffsetDateTime,
    ) -> Result<(), RevocationError> {
        let unknown = || RevocationError::UnknownTrustDomain { trust_domain: trust_domain.clone() };
        let bundle = bundles.get(trust_domain).ok_or_else(unknown)?;
        chain::signer_key(chain, bundle, self.get(trust_domain), now).map(drop)
    }

    /// Without what has expired, where that is worth the effort.
    pub(crate) fn forgetting(self, now: OffsetDateTime) -> Self {
        let forgetful = |(domain, known): (&TrustDomain, &Revocations)| Some((domain.clone(), known.forgetting(now)?));
        let changed: Vec<_> = self.0.iter().filter_map(forgetful).collect();
        if changed.is_empty() {
            return self;
        }
        let mut domains = (*self.0).clone();
        domains.extend(changed);
        Self(Arc::new(domains))
    }

    /// Whether both revoke the very same; how far each has come may differ.
    pub(crate) fn revokes_same(&self, other: &Self) -> bool {
        let same = |(domain, known): (&TrustDomain, &Revocations)| match other.get(domain) {
            Some(other) => Arc::ptr_eq(&known.entries, &other.entries) || known.is_empty() && other.is_empty(),
            None => known.is_empty(),
        };
        let is_known = |(domain, known): (&TrustDomain, &Revocations)| known.is_empty() || self.get(domain).is_some();
        Arc::ptr_eq(&self.0, &other.0) || self.iter().all(same) && other.iter().all(is_known)
    }

    fn replaced(&self, trust_domain: &TrustDomain, known: Revocations) -> Self {
        let mut domains = (*self.0).clone();
        domains.insert(trust_domain.clone(), known);
        Self(Arc::new(domains))
    }
}

impl Revocations {
    /// The number of the latest revocation that is known.
    pub fn epoch(&self) -> u64 {
        self.position.epoch
    }

    /// Which database numbers them.
    pub fn lineage(&self) -> [u8; 8] {
        self.position.lineage
    }

    /// Whether there was no later one when this was told.
    pub fn is_complete(&self) -> bool {
        self.position.epoch >= self.latest
    }

    pub fn counts(&self) -> RevocationCounts {
        self.entries.counts()
    }

    /// Whether the certificate with this number is revoked, of the authority with this key identifier.
    ///
    /// Budget: 200 ns among a million of them; benchmark: `revocation`.
    pub fn has_serial(&self, authority_key_id: &[u8], serial: &Serial) -> bool {
        self.entries.serials.get(authority_key_id).is_some_and(|serials| serials.contains(serial.as_bytes()))
    }

    fn is_empty(&self) -> bool {
        self.counts().all() == 0
    }

    fn forgetting(&self, now: OffsetDateTime) -> Option<Self> {
        let mut entries = (*self.entries).clone();
        let forgotten = entries.forget(now);
        forgotten.then(|| Self { entries: Arc::new(entries), ..self.clone() })
    }

    /// Whether the certificate itself is revoked: by its serial number or by its key.
    pub(crate) fn check(&self, certificate: &Revocable) -> Result<(), Revoked> {
        let Revocable { authority_key_id, serial, key } = certificate;
        if let Some(authority) = authority_key_id
            && self.has_serial(authority, serial)
        {
            return Err(Revoked::Certificate { serial: serial.clone() });
        }
        self.check_key(*key)
    }

    /// Whether no certificate for this key is good, and nothing that it has signed.
    pub(crate) fn check_key(&self, sha256: KeySha256) -> Result<(), Revoked> {
        if self.entries.authorities.contains(&sha256.0) {
            return Err(Revoked::Authority { sha256 });
        }
        if self.entries.keys.contains(&sha256.0) {
            return Err(Revoked::Key { sha256 });
        }
        Ok(())
    }
}

impl Entries {
    fn new() -> Self {
        Self { serials: BTreeMap::new(), keys: Layers::new(), authorities: Layers::new() }
    }

    fn counts(&self) -> RevocationCounts {
        RevocationCounts {
            serials: self.serials.values().map(Serials::len).sum(),
            keys: self.keys.len(),
            authorities: self.authorities.len(),
        }
    }

    /// Whether there was anything to forget.
    fn forget(&mut self, now: OffsetDateTime) -> bool {
        let mut forgotten = self.keys.forget(now) | self.authorities.forget(now);
        for serials in self.serials.values_mut() {
            forgotten |= serials.forget(now);
        }
        self.serials.retain(|_, serials| !serials.is_empty());
        forgotten
    }
}

impl RevocationCounts {
    pub fn all(&self) -> usize {
        self.serials + self.keys + self.authorities
    }
}

impl Revocable {
    /// Of a certificate that names no authority's key, `signer` says whose it is: the key identifier of who signed it.
    pub(crate) fn of(certificate: &X509Certificate<'_>, signer: Option<&[u8]>) -> Self {
        let named = certificate.iter_extensions().find_map(|extension| match extension.parsed_extension() {
            ParsedExtension::AuthorityKeyIdentifier(id) => id.key_identifier.as_ref().map(|id| id.0),
            _ => None,
        });
        Self {
            authority_key_id: named.or(signer).map(Into::into),
            serial: Serial::from_be_bytes(certificate.raw_serial()),
            key: KeySha256::of(certificate.tbs_certificate.subject_pki.raw),
        }
    }
}

/// The subject key identifier.
pub(crate) fn key_id<'a>(certificate: &'a X509Certificate<'_>) -> Option<&'a [u8]> {
    certificate.iter_extensions().find_map(|extension| match extension.parsed_extension() {
        ParsedExtension::SubjectKeyIdentifier(id) => Some(id.0),
        _ => None,
    })
}

impl KeySha256 {
    /// Of a SubjectPublicKeyInfo, DER.
    pub fn of(public_key: &[u8]) -> Self {
        let mut hash = [0; 32];
        hash.copy_from_slice(digest(&SHA256, public_key).as_ref());
        Self(hash)
    }

    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl Eq for Revocations {}

impl PartialEq for Revocations {
    fn eq(&self, other: &Self) -> bool {
        let is_as_far = (self.position, self.latest) == (other.position, other.latest);
        is_as_far && Arc::ptr_eq(&self.entries, &other.entries)
    }
}

impl fmt::Display for KeySha256 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for KeySha256 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeySha256({self})")
    }
}

impl fmt::Debug for Revocations {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Revocations")
            .field("position", &self.position)
            .field("latest", &self.latest)
            .field("counts", &self.counts())
            .finish()
    }
}

impl fmt::Debug for RevocationSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}

#[cfg(test)]
mod tests;
