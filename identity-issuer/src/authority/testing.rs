//! A root for tests, and authorities under it.

#![allow(clippy::unwrap_used)]

use std::time::Duration;

use rcgen::{Issuer, KeyIdMethod, PublicKeyData as _};
use signet_identity::{TrustBundle, TrustDomain};
use time::OffsetDateTime;

use super::hierarchy::{Level, ca_certificate, ca_validity};
use super::{Authority, CaKey, intermediate};
use crate::key::P256Key;
use crate::pem_files;

pub(crate) use super::intermediate::check as check_intermediate;

pub(crate) struct Root {
    issuer: Issuer<'static, P256Key>,
    bundle: TrustBundle,
}

const LIFE: Duration = Duration::from_secs(100 * 86_400);

impl Root {
    pub(crate) fn new(trust_domain: &str, now: OffsetDateTime) -> Self {
        let trust_domain: TrustDomain = trust_domain.parse().unwrap();
        let key = P256Key::generate().unwrap();
        let params = ca_certificate(Level::Root, &trust_domain, &key, ca_validity(now, LIFE, None)).unwrap();
        let certificate = params.self_signed(&key).unwrap().der().clone();
        Self { issuer: Issuer::new(params, key), bundle: TrustBundle::new(trust_domain, vec![certificate]).unwrap() }
    }

    pub(crate) fn bundle(&self) -> TrustBundle {
        self.bundle.clone()
    }

    /// A certificate for this key, PEM.
    pub(crate) fn sign(&self, key: &CaKey, now: OffsetDateTime, life: Duration) -> String {
        let level = Level::Intermediate { path_length: 0 };
        let params = ca_certificate(level, self.bundle.trust_domain(), key, ca_validity(now, life, None)).unwrap();
        pem_files::encode(pem_files::CERTIFICATE, params.signed_by(key, &self.issuer).unwrap().der())
    }

    /// The same, with another subject key identifier than Signet's.
    pub(crate) fn sign_as(&self, key_id: [u8; 20], key: &CaKey, now: OffsetDateTime, life: Duration) -> String {
        let level = Level::Intermediate { path_length: 0 };
        let mut params = ca_certificate(level, self.bundle.trust_domain(), key, ca_validity(now, life, None)).unwrap();
        params.key_identifier_method = KeyIdMethod::PreSpecified(key_id.to_vec());
        pem_files::encode(pem_files::CERTIFICATE, params.signed_by(key, &self.issuer).unwrap().der())
    }

    /// With a key of its own.
    pub(crate) fn authority(&self, now: OffsetDateTime) -> Authority {
        let key = CaKey::from(P256Key::generate().unwrap());
        let pem = self.sign(&key, now, LIFE);
        let checked =
            intermediate::check(pem.as_bytes(), &key.subject_public_key_info(), &self.bundle, 0, now).unwrap();
        Authority::new(key, checked).unwrap()
    }
}
