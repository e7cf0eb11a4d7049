//! What is asked of the root: a file with one certificate request after another.

use aws_lc_rs::digest::{SHA256, digest};
use rcgen::PublicKeyData as _;
use signet_identity::{SpiffeId, TrustDomain};
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::prelude::FromDer as _;

use super::RootError;
use crate::csr::{CsrError, ProvenKey};
use crate::key_type::KeyType;
use crate::pem_files;

/// As many as one person can look at before signing.
pub const MAX_REQUESTS: usize = 32;

/// What is wrong with a file that should hold certificate requests, or with one of them.
#[derive(Debug, Eq, PartialEq, thiserror::Error)]
pub enum RequestFault {
    #[error("holds no PEM block `CERTIFICATE REQUEST`")]
    None,
    #[error("is not PEM, or holds something else than certificate requests")]
    NotRequests,
    #[error("holds {count} certificate requests, and {MAX_REQUESTS} at most are signed at once")]
    TooMany { count: usize },
    #[error("holds {count} certificate requests, and one is wanted")]
    NotOne { count: usize },
    #[error(transparent)]
    Csr(CsrError),
    #[error("is for {found}, and this root is that of {expected}")]
    OtherTrustDomain { found: String, expected: TrustDomain },
    #[error("is for the same key as request {first}")]
    SameKey { first: usize },
    #[error("is for the key of the root itself")]
    RootKey,
}

/// One of them, in order.
#[derive(Debug)]
pub(super) struct Request {
    /// All that is taken of it.
    pub(super) key: ProvenKey,
    /// SHA-256 of its DER, lower-case hexadecimal.
    pub(super) sha256: String,
}

/// All of the file, or none. `root_spki` is the root's own key.
pub(super) fn read(text: &[u8], trust_domain: &TrustDomain, root_spki: &[u8]) -> Result<Vec<Request>, RootError> {
    let whole = |what| RootError::Requests { what };
    let blocks = pem::parse_many(text).map_err(|_| whole(RequestFault::NotRequests))?;
    if blocks.len() > MAX_REQUESTS {
        return Err(whole(RequestFault::TooMany { count: blocks.len() }));
    }
    if blocks.is_empty() {
        return Err(whole(RequestFault::None));
    }
    // One that is cut off is no block, and would be left out in silence.
    if blocks.len() != String::from_utf8_lossy(text).matches("-----BEGIN ").count() {
        return Err(whole(RequestFault::NotRequests));
    }
    if blocks.iter().any(|block| block.tag() != pem_files::REQUEST) {
        return Err(whole(RequestFault::NotRequests));
    }
    let mut requests: Vec<Request> = Vec::new();
    for (index, block) in blocks.iter().enumerate() {
        let at = |what| RootError::Request { number: index + 1, what };
        let request = read_one(block.contents(), trust_domain).map_err(at)?;
        if request.key.subject_public_key_info() == root_spki {
            return Err(at(RequestFault::RootKey));
        }
        if let Some(first) = requests.iter().position(|earlier| earlier.key == request.key) {
            return Err(at(RequestFault::SameKey { first: first + 1 }));
        }
        requests.push(request);
    }
    Ok(requests)
}

fn read_one(der: &[u8], trust_domain: &TrustDomain) -> Result<Request, RequestFault> {
    let key = ProvenKey::from_csr(der, &KeyType::ELLIPTIC).map_err(RequestFault::Csr)?;
    check_trust_domain(der, trust_domain)?;
    Ok(Request { key, sha256: hex::encode(digest(&SHA256, der)) })
}

/// Names in a request are never taken over. One that names another trust domain is from somebody who came to the wrong root.
fn check_trust_domain(der: &[u8], expected: &TrustDomain) -> Result<(), RequestFault> {
    let malformed = |_| RequestFault::Csr(CsrError::Malformed);
    let (_, request) = X509CertificationRequest::from_der(der).map_err(malformed)?;
    let names = request.requested_extensions().into_iter().flatten().filter_map(|extension| match extension {
        ParsedExtension::SubjectAlternativeName(names) => Some(&names.general_names),
        _ => None,
    });
    let uris = names.flatten().filter_map(|name| match name {
        GeneralName::URI(uri) if uri.starts_with("spiffe:") => Some(*uri),
        _ => None,
    });
    for uri in uris {
        let is_ours = uri.parse::<SpiffeId>().is_ok_and(|id| id.trust_domain() == expected);
        if !is_ours {
            return Err(RequestFault::OtherTrustDomain { found: uri.to_owned(), expected: expected.clone() });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use rcgen::{CertificateParams, KeyPair, PublicKeyData as _, SanType};

    use super::*;

    fn request_for(key: &KeyPair, uri: Option<&str>) -> String {
        let mut params = CertificateParams::new(["evil.example".to_owned()]).unwrap();
        params.subject_alt_names.extend(uri.map(|uri| SanType::URI(uri.try_into().unwrap())));
        params.serialize_request(key).unwrap().pem().unwrap()
    }

    fn request(uri: Option<&str>) -> String {
        request_for(&KeyPair::generate().unwrap(), uri)
    }

    fn read(text: &str) -> Result<Vec<Request>, RequestFault> {
        super::read(text.as_bytes(), &"example.org".parse().unwrap(), &[]).map_err(|error| match error {
            RootError::Request { what, .. } | RootError::Requests { what } => what,
            error => unreachable!("{error}"),
        })
    }

    #[test]
    fn one_request_or_several_are_read_in_order() {
        let keys = [KeyPair::generate().unwrap(), KeyPair::generate().unwrap()];
        let text: String = keys.iter().map(|key| request_for(key, Some("spiffe://example.org"))).collect();
        let read = read(&text).unwrap();
        let found: Vec<_> = read.iter().map(|request| request.key.subject_public_key_info()).collect();
        assert_eq!(found, keys.map(|key| key.subject_public_key_info()));
    }

    #[test]
    fn a_request_for_another_trust_domain_is_refused_with_both_names() {
        for uri in ["spiffe://other.org", "spiffe://other.org/a", "spiffe://EXAMPLE.org", "spiffe:", "spiffe://"] {
            let error = read(&request(Some(uri))).unwrap_err();
            assert!(matches!(error, RequestFault::OtherTrustDomain { .. }), "{uri}: {error}");
            assert!(error.to_string().contains("example.org"), "{error}");
        }
        for uri in [None, Some("spiffe://example.org"), Some("https://other.org/")] {
            read(&request(uri)).unwrap();
        }
    }

    #[test]
    fn what_is_no_list_of_requests_is_refused() {
        let one = request(None);
        assert_eq!(read("").unwrap_err(), RequestFault::None);
        assert_eq!(read("half a file").unwrap_err(), RequestFault::None);
        assert_eq!(read(&one.replace("CERTIFICATE REQUEST", "PRIVATE KEY")).unwrap_err(), RequestFault::NotRequests);
        assert_eq!(read(&one[..100]).unwrap_err(), RequestFault::None);
        assert_eq!(read(&(one.clone() + &request(None)[..100])).unwrap_err(), RequestFault::NotRequests);
        let junk = pem_files::encode(pem_files::REQUEST, b"junk");
        assert_eq!(read(&(one.clone() + &junk)).unwrap_err(), RequestFault::Csr(CsrError::Malformed));
        assert_eq!(read(&one.repeat(2)).unwrap_err(), RequestFault::SameKey { first: 1 });
        assert_eq!(read(&one.repeat(100)).unwrap_err(), RequestFault::TooMany { count: 100 });
    }

    #[test]
    fn the_root_does_not_sign_itself_again() {
        let key = KeyPair::generate().unwrap();
        let text = request_for(&key, None);
        let spki = key.subject_public_key_info();
        let error = super::read(text.as_bytes(), &"example.org".parse().unwrap(), &spki).unwrap_err();
        assert!(matches!(error, RootError::Request { number: 1, what: RequestFault::RootKey }), "{error}");
    }
}
