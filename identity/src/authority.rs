use x509_parser::certificate::X509Certificate;

use crate::{
    TrustDomain,
    certificate::{Malformed, uris},
};

/// Why a certificate is not one of an authority of a trust domain (X509-SVID §3.2, §4).
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum AuthorityError {
    #[error("not a well-formed X.509 certificate")]
    Malformed,
    #[error("the certificate is not a CA's: basicConstraints does not say cA")]
    NotACa,
    #[error("the CA's keyUsage does not allow keyCertSign")]
    KeyUsage,
    #[error("the CA's certificate has {count} URIs; it may have at most one")]
    SeveralUris { count: usize },
    #[error("the CA's certificate has a URI that is not the ID of trust domain `{trust_domain}`")]
    Foreign { trust_domain: TrustDomain },
}

/// Whether the certificate may sign for `trust_domain`. A URI need not be there, but one that is must be the domain's
/// ID.
pub(crate) fn check(certificate: &X509Certificate<'_>, trust_domain: &TrustDomain) -> Result<(), AuthorityError> {
    if !certificate.basic_constraints().map_err(|_| Malformed)?.is_some_and(|constraints| constraints.value.ca) {
        return Err(AuthorityError::NotACa);
    }
    if !certificate.key_usage().map_err(|_| Malformed)?.is_some_and(|usage| usage.value.key_cert_sign()) {
        return Err(AuthorityError::KeyUsage);
    }
    match uris(certificate)?[..] {
        [] => Ok(()),
        [uri] if uri == trust_domain.id().as_str() => Ok(()),
        [_] => Err(AuthorityError::Foreign { trust_domain: trust_domain.clone() }),
        ref uris => Err(AuthorityError::SeveralUris { count: uris.len() }),
    }
}

/// How many intermediates may stand below the CA.
pub(crate) fn path_length(certificate: &X509Certificate<'_>) -> Option<u32> {
    certificate.basic_constraints().ok().flatten().and_then(|constraints| constraints.value.path_len_constraint)
}

impl From<Malformed> for AuthorityError {
    fn from(_: Malformed) -> Self {
        Self::Malformed
    }
}
