//! With whom, where, and how whoever answers there is believed.

use std::sync::Arc;

use http::Uri;
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use serde::{Deserialize, Serialize};
use signet_identity::{
    BundleSet, RevocationSet, SharedClock, SpiffeIdPatterns, TrustBundle, TrustDomain, WorkloadId,
    bootstrap_client_config,
};

/// One relationship of federation.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Relationship {
    pub(crate) trust_domain: TrustDomain,
    pub(crate) url: Uri,
    pub(crate) profile: Profile,
}

/// How the endpoint proves that it is the right one (SPIFFE Federation §5.2).
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(tag = "profile", deny_unknown_fields)]
pub(crate) enum Profile {
    /// As any server of the web does.
    #[serde(rename = "https_web")]
    Web {
        /// PEM: whom to believe instead of the system's authorities.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        ca: Option<String>,
    },
    /// By its SVID.
    #[serde(rename = "https_spiffe")]
    Spiffe {
        #[serde(with = "text")]
        spiffe_id: WorkloadId,
        /// PEM, of the trust domain of `spiffe_id`: by which it is believed until there is a bundle.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        bootstrap: Option<String>,
    },
}

/// What is no relationship.
#[derive(Debug, Eq, PartialEq, thiserror::Error)]
pub(crate) enum RelationshipError {
    #[error("url: `{0}` is no https URL without user and password")]
    Url(Uri),
    #[error("ca: {0}")]
    Ca(String),
    #[error("bootstrap: {0}")]
    Bootstrap(String),
    #[error("bootstrap: {spiffe_id} is of the trust domain itself: its first bundle has to be given")]
    NoBootstrap { spiffe_id: WorkloadId },
    #[error("there is no bundle of {trust_domain}, by which the endpoint would be believed")]
    NoBundle { trust_domain: TrustDomain },
    #[error("this system has no authorities to believe")]
    NoRoots,
    #[error("TLS cannot be set up")]
    Tls,
}

impl Relationship {
    pub(crate) fn check(&self) -> Result<(), RelationshipError> {
        let has_user = self.url.authority().is_some_and(|authority| authority.as_str().contains('@'));
        let is_https = self.url.scheme() == Some(&http::uri::Scheme::HTTPS);
        if !is_https || has_user || self.url.host().is_none_or(str::is_empty) {
            return Err(RelationshipError::Url(self.url.clone()));
        }
        match &self.profile {
            Profile::Web { ca } => ca.as_deref().map_or(Ok(()), |ca| roots(Some(ca)).map(drop)),
            Profile::Spiffe { spiffe_id, bootstrap } => match self.bootstrap()? {
                None if bootstrap.is_none() && *spiffe_id.trust_domain() == self.trust_domain => {
                    Err(RelationshipError::NoBootstrap { spiffe_id: spiffe_id.clone() })
                }
                _ => Ok(()),
            },
        }
    }

    /// The bundle to begin with, where there is one.
    pub(crate) fn bootstrap(&self) -> Result<Option<TrustBundle>, RelationshipError> {
        let Profile::Spiffe { spiffe_id, bootstrap: Some(pem) } = &self.profile else { return Ok(None) };
        let bundle = crate::bundles::read(spiffe_id.trust_domain().clone(), pem.as_bytes());
        bundle.map(Some).map_err(RelationshipError::Bootstrap)
    }

    /// How the endpoint is believed. `known`: what there is of all trust domains, the last good bundle of this one among it.
    pub(super) fn tls(&self, known: &BundleSet, clock: &SharedClock) -> Result<Arc<ClientConfig>, RelationshipError> {
        let alpn = vec![b"http/1.1".to_vec()];
        match &self.profile {
            Profile::Web { ca } => {
                let builder = ClientConfig::builder_with_provider(Arc::new(default_provider()));
                let builder = builder.with_safe_default_protocol_versions().map_err(|_| RelationshipError::Tls)?;
                let mut config = builder.with_root_certificates(roots(ca.as_deref())?).with_no_client_auth();
                config.alpn_protocols = alpn;
                Ok(Arc::new(config))
            }
            Profile::Spiffe { spiffe_id, .. } => {
                let trust_domain = spiffe_id.trust_domain();
                let bundle = match known.get(trust_domain) {
                    Some(bundle) => Some(bundle.clone()),
                    None => self.bootstrap()?,
                };
                let bundle =
                    bundle.ok_or_else(|| RelationshipError::NoBundle { trust_domain: trust_domain.clone() })?;
                let servers = spiffe_id.as_str().parse().map(|pattern| SpiffeIdPatterns::from_iter([pattern]));
                let servers = servers.map_err(|_| RelationshipError::Tls)?;
                // What is revoked there, it says to its own clients alone.
                let (bundles, revocations) = (BundleSet::from_iter([bundle]), RevocationSet::default());
                Ok(bootstrap_client_config(&bundles, &revocations, &servers, alpn, clock.clone()))
            }
        }
    }
}

fn roots(ca: Option<&str>) -> Result<RootCertStore, RelationshipError> {
    let mut roots = RootCertStore::empty();
    match ca {
        None => {
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        }
        Some(pem) => {
            for certificate in CertificateDer::pem_slice_iter(pem.as_bytes()) {
                let certificate = certificate.map_err(|error| RelationshipError::Ca(error.to_string()))?;
                roots.add(certificate).map_err(|error| RelationshipError::Ca(error.to_string()))?;
            }
        }
    }
    match (roots.is_empty(), ca) {
        (false, _) => Ok(roots),
        (true, None) => Err(RelationshipError::NoRoots),
        (true, Some(_)) => Err(RelationshipError::Ca("it holds no certificate".to_owned())),
    }
}

/// An ID as its text.
mod text {
    use serde::{Deserialize as _, Deserializer, Serializer, de::Error as _};
    use signet_identity::WorkloadId;

    pub(super) fn serialize<S: Serializer>(id: &WorkloadId, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(id.as_str())
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<WorkloadId, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}
