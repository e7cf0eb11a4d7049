//! Certificate profiles: what a certificate is for, and so what is in it.
//!
//! A profile is the issuer's word on what its authority signs; the policy's rules choose among profiles. So whoever may change the
//! policy cannot have anything signed that no profile describes. What is signed in the end is checked against the profile once more
//! ([`lint`]).

mod builtin;
pub(crate) mod lint;
mod permit;
mod validity;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::digest::{SHA256, digest};
use rcgen::{
    CertificateParams, CustomExtension, DistinguishedName, DnType, DnValue, ExtendedKeyUsagePurpose, IsCa,
    KeyUsagePurpose, PublicKeyData, SanType, SerialNumber,
};
use signet_identity::{TrustDomain, WorkloadId};
use signet_policy::{DEFAULT_PROFILE, MAX_COMMON_NAME, ProfileTerms};

use crate::authority::hierarchy::{self, INTERMEDIATE, Level, ca_certificate};
use crate::csr::ProvenKey;
use crate::distribution::Version;
use crate::entitlement::Entitlement;
use crate::key_type::KeyType;

pub(crate) use builtin::{BUILTIN, builtin};
pub(crate) use permit::{Permit, PermitError, Request};
pub(crate) use validity::{Lifetime, Validity};

#[derive(Clone, Debug)]
pub(crate) struct Profile {
    pub(crate) name: Box<str>,
    pub(crate) form: Form,
    pub(crate) keys: Vec<KeyType>,
    /// Where a rule says nothing.
    pub(crate) ttl: Duration,
    pub(crate) max_ttl: Duration,
    pub(crate) backdate: Duration,
    /// What the names must be like.
    pub(crate) permit: Option<Permit>,
    /// Of one that is written in the configuration: how, so that a change of it is one.
    pub(crate) written: Option<Box<str>>,
}

#[derive(Clone, Debug)]
pub(crate) enum Form {
    Leaf(Leaf),
    /// Signs certificates of the same trust domain.
    SubordinateCa,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Leaf {
    pub(crate) key_usages: Vec<KeyUsagePurpose>,
    pub(crate) extended_key_usages: Vec<ExtendedKeyUsagePurpose>,
    /// Beside the name.
    pub(crate) subject: Vec<(DnType, String)>,
    /// Beyond those that a leaf has anyway.
    pub(crate) extensions: Vec<CustomExtension>,
}

/// All that there are. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Profiles {
    by_name: Arc<BTreeMap<Box<str>, Arc<Profile>>>,
    default: Arc<Profile>,
    /// Of access tokens: what rules have to know of them.
    tokens: Arc<[ProfileTerms]>,
}

impl Profiles {
    /// Those that every issuer has, and these. `identities` is the life of what workloads renew.
    pub(crate) fn new(identities: (Duration, Duration), custom: impl IntoIterator<Item = Profile>) -> Self {
        let (ttl, backdate) = identities;
        let built_in = BUILTIN.into_iter().filter_map(|name| builtin(name, ttl, backdate));
        let all = built_in.chain(custom).map(|profile| (profile.name.clone(), Arc::new(profile)));
        let default = Arc::new(builtin::workload(ttl, backdate));
        Self { by_name: Arc::new(all.collect()), default, tokens: Arc::default() }
    }

    /// With these profiles of access tokens, which rules name as they name the others: each with its longest life.
    pub(crate) fn with_tokens(self, tokens: impl Iterator<Item = (String, Duration)>) -> Self {
        let terms = |(name, max_ttl)| ProfileTerms { name, max_ttl, is_identity: false, has_common_name: false };
        Self { tokens: tokens.map(terms).collect(), ..self }
    }

    pub(crate) fn get(&self, name: &str) -> Option<&Arc<Profile>> {
        self.by_name.get(name)
    }

    /// That of whoever is given a name and nothing else.
    pub(crate) fn workload(&self) -> Arc<Profile> {
        Arc::clone(&self.default)
    }

    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.by_name.keys().map(|name| &**name)
    }

    /// What rules have to know of them.
    pub(crate) fn terms(&self) -> Vec<ProfileTerms> {
        let terms = |profile: &Arc<Profile>| ProfileTerms {
            name: profile.name.to_string(),
            max_ttl: profile.max_ttl,
            is_identity: profile.is_identity(),
            has_common_name: profile.has_common_name(),
        };
        self.by_name.values().map(terms).chain(self.tokens.iter().cloned()).collect()
    }
}

impl Profile {
    /// Whether its certificates are X.509-SVIDs (X509-SVID §4.4: of servers and clients both): with one of them its holder is known
    /// to every peer, and to the issuer, where it renews it.
    pub(crate) fn is_identity(&self) -> bool {
        let both = [ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        match &self.form {
            Form::Leaf(leaf) => both.iter().all(|purpose| leaf.extended_key_usages.contains(purpose)),
            Form::SubordinateCa => false,
        }
    }

    /// Whether the name stands in the subject: beside the subject alternative name that makes an identity, it would be another one.
    pub(crate) fn has_common_name(&self) -> bool {
        matches!(self.form, Form::Leaf(_)) && !self.is_identity()
    }

    pub(crate) fn is_default(&self) -> bool {
        *self.name == *DEFAULT_PROFILE
    }

    pub(crate) fn lifetime(&self, ttl: Option<Duration>) -> Lifetime {
        Lifetime::new(ttl.unwrap_or(self.ttl).min(self.max_ttl), self.backdate)
    }

    /// Tells it from what it was before.
    pub(crate) fn version(&self) -> Version {
        Version::of(self.written.as_deref().unwrap_or(&self.name).as_bytes())
    }

    /// keyUsage, for a key of this type (RFC 5280 §4.2.1.3).
    pub(crate) fn key_usages(&self, key: KeyType) -> Vec<KeyUsagePurpose> {
        match &self.form {
            Form::SubordinateCa => vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign],
            Form::Leaf(leaf) => {
                let mut usages = leaf.key_usages.clone();
                let serves = leaf.extended_key_usages.contains(&ExtendedKeyUsagePurpose::ServerAuth);
                // The key exchange of TLS 1.2 in which the client encrypts to the server's key.
                if key.is_rsa() && serves && !usages.contains(&KeyUsagePurpose::KeyEncipherment) {
                    usages.push(KeyUsagePurpose::KeyEncipherment);
                }
                usages
            }
        }
    }

    /// What is to be signed. `path_length` is that of the authority: for a CA below it there is one less.
    pub(crate) fn params(
        &self,
        entitlement: &Entitlement,
        key: &ProvenKey,
        serial: &[u8],
        validity: Validity,
        path_length: u8,
    ) -> Result<CertificateParams, rcgen::Error> {
        let mut params = match &self.form {
            Form::SubordinateCa => subordinate(entitlement.id.trust_domain(), key, validity, path_length)?,
            Form::Leaf(leaf) => self.leaf(leaf, entitlement)?,
        };
        params.key_usages = self.key_usages(key.key_type());
        params.use_authority_key_identifier_extension = true;
        params.serial_number = Some(SerialNumber::from_slice(serial));
        params.not_before = validity.not_before;
        params.not_after = validity.not_after;
        Ok(params)
    }

    /// For a holder's key, as DER (SubjectPublicKeyInfo). Empty for most: the SPIFFE ID is the name.
    ///
    /// What is no identity has no SPIFFE ID for a name: some that verify X.509-SVIDs look at no purpose, and would take it for one.
    pub(crate) fn subject(&self, entitlement: &Entitlement, spki: &[u8]) -> Vec<(DnType, String)> {
        match &self.form {
            Form::Leaf(leaf) => {
                let mut subject = leaf.subject.clone();
                if self.has_common_name() {
                    subject.push((DnType::CommonName, common_name(&entitlement.id)));
                }
                subject
            }
            Form::SubordinateCa => hierarchy::subject(INTERMEDIATE, digest(&SHA256, spki).as_ref()).to_vec(),
        }
    }

    fn leaf(&self, leaf: &Leaf, entitlement: &Entitlement) -> Result<CertificateParams, rcgen::Error> {
        let mut params = CertificateParams::default();
        // An empty subject makes rcgen write the SAN as critical (RFC 5280 §4.2.1.6).
        params.distinguished_name = DistinguishedName::new();
        for (attribute, value) in self.subject(entitlement, &[]) {
            let value = match attribute {
                DnType::CountryName => DnValue::PrintableString(value.as_str().try_into()?),
                _ => value.into(),
            };
            params.distinguished_name.push(attribute, value);
        }
        if self.is_identity() {
            params.subject_alt_names = vec![SanType::URI(entitlement.id.as_str().try_into()?)];
        }
        for name in &entitlement.dns_names {
            params.subject_alt_names.push(SanType::DnsName(name.as_str().try_into()?));
        }
        // Written out: SPIFFE libraries in Rust and Python refuse leaves without basicConstraints.
        params.is_ca = IsCa::ExplicitNoCa;
        params.extended_key_usages = leaf.extended_key_usages.clone();
        params.custom_extensions = leaf.extensions.clone();
        Ok(params)
    }
}

/// A SPIFFE ID without its scheme, for a certificate that is to be none.
fn common_name(id: &WorkloadId) -> String {
    format!("{}{}", id.trust_domain(), id.path())
}

pub(crate) fn fits_common_name(id: &WorkloadId) -> bool {
    common_name(id).chars().count() <= MAX_COMMON_NAME
}

/// A CA certificate names its trust domain and no path (X509-SVID §3); whose it is, the record tells.
fn subordinate(
    trust_domain: &TrustDomain,
    key: &impl PublicKeyData,
    validity: Validity,
    path_length: u8,
) -> Result<CertificateParams, rcgen::Error> {
    let level = Level::Intermediate { path_length: path_length.saturating_sub(1) };
    ca_certificate(level, trust_domain, key, (validity.not_before, validity.not_after))
}

impl fmt::Display for Profile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

impl PartialEq for Profile {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name && self.version() == other.version()
    }
}

impl Eq for Profile {}
