//! Authorities and leaves for tests, made on the spot and never checked in. What is built without further words follows
//! the X.509 profile of Signet; each method of [`Leaf`] then breaks or changes one thing.
//!
//! ```
//! use signet_test_pki::Authority;
//!
//! let root = Authority::root("example.org");
//! let issuing = root.intermediate();
//! let leaf = issuing.leaf("spiffe://example.org/shop/cart").issue();
//! assert_eq!(leaf.chain.len(), 2);
//! ```

#![forbid(unsafe_code)]
// A factory for tests: what cannot be built is a fault of the test, told at once.
#![allow(clippy::expect_used, clippy::missing_panics_doc)]

use rcgen::{
    BasicConstraints, CertificateParams, CustomExtension, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, PublicKeyData, SanType, SerialNumber, SigningKey as _,
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use time::{Duration, OffsetDateTime};

/// A CA that can sign leaves and further CAs.
#[derive(Debug)]
pub struct Authority {
    params: CertificateParams,
    issuer: Issuer<'static, KeyPair>,
    trust_domain: String,
    /// This CA and those above it, the self-signed root last.
    path: Vec<CertificateDer<'static>>,
}

/// What [`Leaf::issue`] returns: a chain (leaf first, no root) and its key.
#[derive(Debug)]
pub struct Issued {
    pub chain: Vec<CertificateDer<'static>>,
    key: Vec<u8>,
}

/// A certificate to be issued.
#[derive(Debug)]
pub struct Leaf<'a> {
    authority: &'a Authority,
    params: CertificateParams,
    key: KeyPair,
}

impl Authority {
    /// A self-signed root of `trust_domain`, valid from an hour ago for ten years.
    pub fn root(trust_domain: &str) -> Self {
        Self::root_until(trust_domain, OffsetDateTime::now_utc() + Duration::days(3650))
    }

    /// The same with a notAfter of the test's choice.
    pub fn root_until(trust_domain: &str, not_after: OffsetDateTime) -> Self {
        Self::root_with(trust_domain, |params| params.not_after = not_after)
    }

    /// A root with something changed.
    pub fn root_with(trust_domain: &str, change: impl FnOnce(&mut CertificateParams)) -> Self {
        let key = new_key();
        let mut params = ca_params(trust_domain, "test root", &key);
        params.not_after = OffsetDateTime::now_utc() + Duration::days(3650);
        change(&mut params);
        let certificate = params.self_signed(&key).expect("a root");
        Self {
            path: vec![certificate.der().clone()],
            issuer: Issuer::new(params.clone(), key),
            params,
            trust_domain: trust_domain.to_owned(),
        }
    }

    /// Another self-signed certificate for this CA's name and key, with something changed.
    pub fn reissued_with(&self, change: impl FnOnce(&mut CertificateParams)) -> CertificateDer<'static> {
        let mut params = self.params.clone();
        change(&mut params);
        params.self_signed(self.issuer.key()).expect("a root").der().clone()
    }

    /// A certificate by this CA for the name and key of another.
    pub fn cross_signed(&self, other: &Self) -> CertificateDer<'static> {
        other.params.signed_by(other.issuer.key(), &self.issuer).expect("an intermediate").der().clone()
    }

    /// An intermediate of the same trust domain with pathLen 0.
    pub fn intermediate(&self) -> Self {
        self.intermediate_with(|params| params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0)))
    }

    /// An intermediate with something changed.
    pub fn intermediate_with(&self, change: impl FnOnce(&mut CertificateParams)) -> Self {
        let key = new_key();
        let mut params = ca_params(&self.trust_domain, "test intermediate", &key);
        change(&mut params);
        let certificate = params.signed_by(&key, &self.issuer).expect("an intermediate");
        let mut path = vec![certificate.der().clone()];
        path.extend_from_slice(&self.path);
        let issuer = Issuer::new(params.clone(), key);
        Self { params, issuer, trust_domain: self.trust_domain.clone(), path }
    }

    /// A leaf for `uri`, valid from a minute ago for an hour.
    pub fn leaf(&self, uri: &str) -> Leaf<'_> {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.subject_alt_names = vec![uri_san(uri)];
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.use_authority_key_identifier_extension = true;
        params.not_before = OffsetDateTime::now_utc() - Duration::minutes(1);
        params.not_after = OffsetDateTime::now_utc() + Duration::hours(1);
        Leaf { authority: self, params, key: new_key() }
    }

    /// This CA's certificate.
    pub fn certificate(&self) -> &CertificateDer<'static> {
        &self.path[0]
    }

    /// The self-signed root at the top, which a trust bundle holds.
    pub fn root_certificate(&self) -> &CertificateDer<'static> {
        &self.path[self.path.len() - 1]
    }

    /// This CA's certificate and those above it, without the root; of a root, its own.
    pub fn chain(&self) -> &[CertificateDer<'static>] {
        &self.path[..(self.path.len() - 1).max(1)]
    }

    /// ECDSA with P-256 and SHA-256, ASN.1, by this CA's key.
    pub fn sign(&self, message: &[u8]) -> Vec<u8> {
        self.issuer.key().sign(message).expect("a signature")
    }

    pub fn trust_domain(&self) -> &str {
        &self.trust_domain
    }
}

impl Leaf<'_> {
    pub fn valid(mut self, not_before: OffsetDateTime, not_after: OffsetDateTime) -> Self {
        self.params.not_before = not_before;
        self.params.not_after = not_after;
        self
    }

    /// Valid from a second ago for this long.
    pub fn ttl(self, life: std::time::Duration) -> Self {
        let now = OffsetDateTime::now_utc();
        self.valid(now - Duration::seconds(1), now + life)
    }

    pub fn uri(mut self, uri: &str) -> Self {
        self.params.subject_alt_names.push(uri_san(uri));
        self
    }

    pub fn dns(mut self, name: &str) -> Self {
        self.params.subject_alt_names.push(SanType::DnsName(name.try_into().expect("a DNS name")));
        self
    }

    pub fn without_names(mut self) -> Self {
        self.params.subject_alt_names.clear();
        self
    }

    pub fn with_key(mut self, key: KeyPair) -> Self {
        self.key = key;
        self
    }

    pub fn extension(mut self, extension: CustomExtension) -> Self {
        self.params.custom_extensions.push(extension);
        self
    }

    /// Any other change to what rcgen is asked to build.
    pub fn with(mut self, change: impl FnOnce(&mut CertificateParams)) -> Self {
        change(&mut self.params);
        self
    }

    pub fn issue(mut self) -> Issued {
        self.params.serial_number.get_or_insert_with(|| SerialNumber::from(serial_of(&self.key)));
        let certificate = self.params.signed_by(&self.key, &self.authority.issuer).expect("a leaf");
        let above = &self.authority.path[..self.authority.path.len() - 1];
        let chain = std::iter::once(certificate.der().clone()).chain(above.iter().cloned()).collect();
        Issued { chain, key: self.key.serialize_der() }
    }
}

impl Leaf<'_> {
    /// A chain for a key that somebody else holds, as an issuer makes it from a signing request.
    pub fn issue_for(mut self, key: &impl PublicKeyData) -> Vec<CertificateDer<'static>> {
        self.params.serial_number.get_or_insert_with(|| SerialNumber::from(serial_of(&self.key)));
        let certificate = self.params.signed_by(key, &self.authority.issuer).expect("a leaf");
        let above = &self.authority.path[..self.authority.path.len() - 1];
        std::iter::once(certificate.der().clone()).chain(above.iter().cloned()).collect()
    }
}

impl Issued {
    /// The private key, PKCS#8.
    pub fn key(&self) -> PrivateKeyDer<'static> {
        PrivatePkcs8KeyDer::from(self.key.clone()).into()
    }

    /// ECDSA with P-256 and SHA-256, ASN.1, by this key.
    pub fn sign(&self, message: &[u8]) -> Vec<u8> {
        let key = KeyPair::try_from(&self.key[..]).expect("a P-256 key");
        key.sign(message).expect("a signature")
    }

    pub fn chain_pem(&self) -> String {
        self.chain.iter().map(|der| pem("CERTIFICATE", der)).collect()
    }

    pub fn key_pem(&self) -> String {
        pem("PRIVATE KEY", &self.key)
    }
}

/// One PEM block (RFC 7468).
pub fn pem(label: &str, der: &[u8]) -> String {
    pem::encode(&pem::Pem::new(label, der))
}

fn ca_params(trust_domain: &str, name: &str, key: &KeyPair) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::OrganizationName, trust_domain);
    // Unique for each key: path builders that look up by name are confused otherwise.
    params.distinguished_name.push(DnType::CommonName, format!("{name} {:x}", u64_of(key)));
    params.subject_alt_names = vec![uri_san(&format!("spiffe://{trust_domain}"))];
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.use_authority_key_identifier_extension = true;
    params.serial_number = Some(SerialNumber::from(serial_of(key)));
    params.not_before = OffsetDateTime::now_utc() - Duration::hours(1);
    params.not_after = OffsetDateTime::now_utc() + Duration::days(365);
    params
}

fn new_key() -> KeyPair {
    KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).expect("a P-256 key")
}

fn uri_san(uri: &str) -> SanType {
    SanType::URI(uri.try_into().expect("an IA5 string"))
}

/// A positive serial, different for each key.
fn serial_of(key: &KeyPair) -> Vec<u8> {
    let mut serial = key.public_key_raw()[1..17].to_vec();
    serial[0] = serial[0] & 0x3f | 0x40;
    serial
}

fn u64_of(key: &KeyPair) -> u64 {
    key.public_key_raw()[1..9].iter().fold(0, |number, byte| number << 8 | u64::from(*byte))
}
