//! A SPIFFE bundle of another trust domain, as it is read: refused whole, or taken whole.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rustls_pki_types::CertificateDer;
use serde::Deserialize;
use serde_json::Value;
use signet_identity::{TrustBundle, TrustDomain};

use crate::bundles::bounded;
use crate::jwt::{JwksError, JwtAuthorities};

/// What another trust domain says is to be trusted of it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Document {
    pub(crate) bundle: TrustBundle,
    pub(crate) jwt: JwtAuthorities,
    /// None of one that counts nothing.
    pub(crate) sequence: Option<u64>,
    pub(crate) refresh_hint: Option<Duration>,
}

/// Why it is not taken.
#[derive(Debug, Eq, PartialEq, thiserror::Error)]
pub(crate) enum DocumentError {
    #[error("it is larger than {} KiB", MAX_BYTES >> 10)]
    TooLarge,
    #[error("it is no SPIFFE bundle: {0}")]
    Malformed(String),
    #[error("it has no X.509 authority: whoever took it would trust nobody of {trust_domain}")]
    Empty { trust_domain: TrustDomain },
    #[error("X.509 authority {position} has {count} certificates in `x5c`, and not one")]
    SeveralCertificates { position: usize, count: usize },
    #[error("`x5c` of X.509 authority {position} is no certificate")]
    Certificate { position: usize },
    #[error("it is no bundle of {trust_domain}: {what}")]
    Bundle { trust_domain: TrustDomain, what: String },
    #[error(transparent)]
    Jwt(#[from] JwksError),
    #[error("its sequence {found} is one that no other could follow for long")]
    LastSequence { found: u64 },
    #[error("its sequence {found} is before {known}, which was taken already")]
    GoesBack { found: u64, known: u64 },
}

pub(crate) const MAX_BYTES: usize = 256 << 10;
const MAX_KEYS: usize = 256;
/// Far beyond the nanoseconds of Unix time that some count by.
const MAX_SEQUENCE: u64 = i64::MAX as u64;

#[derive(Deserialize)]
struct Read {
    spiffe_sequence: Option<u64>,
    spiffe_refresh_hint: Option<u64>,
    keys: Vec<Value>,
}

impl Document {
    /// Keys of kinds and uses that are not known here are passed over (SPIFFE Trust Domain and Bundle §4.2.2).
    pub(crate) fn parse(trust_domain: &TrustDomain, json: &[u8]) -> Result<Self, DocumentError> {
        if json.len() > MAX_BYTES {
            return Err(DocumentError::TooLarge);
        }
        let read: Read = serde_json::from_slice(json).map_err(|error| DocumentError::Malformed(error.to_string()))?;
        if read.keys.len() > MAX_KEYS {
            return Err(DocumentError::Malformed(format!("it has more than {MAX_KEYS} keys")));
        }
        if let Some(found) = read.spiffe_sequence.filter(|found| *found > MAX_SEQUENCE) {
            return Err(DocumentError::LastSequence { found });
        }
        let (mut certificates, mut jwt) = (Vec::new(), Vec::new());
        for key in read.keys {
            match key.get("use").and_then(Value::as_str) {
                Some("x509-svid") => certificates.push(certificate(&key, certificates.len() + 1)?),
                Some("jwt-svid") => jwt.push(key),
                _ => {}
            }
        }
        if certificates.is_empty() {
            return Err(DocumentError::Empty { trust_domain: trust_domain.clone() });
        }
        let bundle = bounded(trust_domain.clone(), certificates);
        Ok(Self {
            bundle: bundle.map_err(|what| DocumentError::Bundle { trust_domain: trust_domain.clone(), what })?,
            jwt: JwtAuthorities::read(jwt)?,
            sequence: read.spiffe_sequence,
            refresh_hint: read.spiffe_refresh_hint.map(Duration::from_secs),
        })
    }

    /// Whether it may follow the one that was taken last.
    pub(crate) fn check_follows(&self, known: &Self) -> Result<(), DocumentError> {
        match (self.sequence, known.sequence) {
            (Some(found), Some(known)) if found < known => Err(DocumentError::GoesBack { found, known }),
            _ => Ok(()),
        }
    }

    /// How many X.509 authorities of `known` are gone in it.
    pub(crate) fn gone_since(&self, known: &Self) -> usize {
        let is_there = |der: &&CertificateDer<'_>| !self.bundle.authorities().contains(der);
        known.bundle.authorities().iter().filter(is_there).count()
    }
}

fn certificate(key: &Value, position: usize) -> Result<CertificateDer<'static>, DocumentError> {
    let chain = key.get("x5c").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    // Which of several it is would be for each reader to guess.
    let [only] = chain else { return Err(DocumentError::SeveralCertificates { position, count: chain.len() }) };
    let der = only.as_str().and_then(|text| STANDARD.decode(text).ok());
    der.map(CertificateDer::from).ok_or(DocumentError::Certificate { position })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::json;
    use signet_test_pki::Authority;

    use super::*;

    fn domain() -> TrustDomain {
        "partner.example".parse().unwrap()
    }

    fn key(authority: &Authority) -> Value {
        json!({"use": "x509-svid", "kty": "EC", "x5c": [STANDARD.encode(authority.certificate())]})
    }

    fn parse(document: &Value) -> Result<Document, DocumentError> {
        Document::parse(&domain(), document.to_string().as_bytes())
    }

    #[test]
    fn what_is_known_of_it_is_read_and_the_rest_passed_over() {
        let root = Authority::root("partner.example");
        let others = [json!({"use": "wit-svid", "kid": "a"}), json!({"kty": "EC"}), json!(1)];
        let keys: Vec<_> = others.into_iter().chain([key(&root)]).collect();
        let document = json!({"spiffe_sequence": 7, "spiffe_refresh_hint": 60, "keys": keys, "more": true});
        let read = parse(&document).unwrap();
        assert_eq!(read.bundle.authorities(), [root.certificate().clone()]);
        assert_eq!((read.sequence, read.refresh_hint), (Some(7), Some(Duration::from_secs(60))));
        assert!(read.jwt.is_empty());
    }

    #[test]
    fn what_would_make_others_trust_the_wrong_ones_is_refused_with_the_reason() {
        let (root, foreign) = (Authority::root("partner.example"), Authority::root("evil.example"));
        let one = STANDARD.encode(root.certificate());
        let refused = |keys: Value| parse(&json!({"keys": keys})).unwrap_err().to_string();
        let with = |x5c: Value| refused(json!([{"use": "x509-svid", "x5c": x5c}]));
        for (reason, expected) in [
            (refused(json!([])), "it has no X.509 authority"),
            (refused(json!([{"use": "jwt-svid"}])), "it has no X.509 authority"),
            (with(json!([one, one])), "X.509 authority 1 has 2 certificates in `x5c`"),
            (with(json!([])), "X.509 authority 1 has 0 certificates in `x5c`"),
            (refused(json!([key(&root), {"use": "x509-svid"}])), "X.509 authority 2 has 0 certificates"),
            (with(json!(["!"])), "`x5c` of X.509 authority 1 is no certificate"),
            (with(json!(["MAA="])), "it is no bundle of partner.example: "),
            (refused(json!([key(&foreign)])), "it is no bundle of partner.example: "),
            (refused(json!([key(&root), key(&foreign)])), "it is no bundle of partner.example: "),
            (refused(json!([key(&root), {"use": "jwt-svid", "kty": "EC"}])), "a JWT key has no `kid`"),
            (refused(json!({})), "it is no SPIFFE bundle: "),
            (refused(Value::from(vec![json!({}); 257])), "it is no SPIFFE bundle: it has more than 256 keys"),
        ] {
            assert!(reason.starts_with(expected), "{reason}");
        }
        let twice = r#"{"keys": [], "keys": []}"#;
        assert!(matches!(Document::parse(&domain(), twice.as_bytes()), Err(DocumentError::Malformed(_))));
        assert_eq!(Document::parse(&domain(), &vec![b' '; MAX_BYTES + 1]), Err(DocumentError::TooLarge));
        assert!(matches!(Document::parse(&domain(), b"{"), Err(DocumentError::Malformed(_))));
    }

    #[test]
    fn a_sequence_that_goes_back_is_refused_and_one_that_is_not_there_is_not_missed() {
        let (one, two) = (Authority::root("partner.example"), Authority::root("partner.example"));
        let of = |sequence: Option<u64>, keys: &[Value]| {
            let mut document = json!({"keys": keys});
            sequence.into_iter().for_each(|sequence| document["spiffe_sequence"] = json!(sequence));
            parse(&document).unwrap()
        };
        // Nor is one that nothing could come after: it would be the bundle for ever.
        let last = parse(&json!({"spiffe_sequence": u64::MAX, "keys": [key(&one)]})).unwrap_err();
        assert_eq!(last, DocumentError::LastSequence { found: u64::MAX });
        let known = of(Some(7), &[key(&one), key(&two)]);
        let before = of(Some(6), &[key(&one)]);
        assert_eq!(before.check_follows(&known), Err(DocumentError::GoesBack { found: 6, known: 7 }));
        for next in [of(Some(7), &[key(&one)]), of(Some(8), &[key(&one)]), of(None, &[key(&one)])] {
            next.check_follows(&known).unwrap();
            assert_eq!((next.gone_since(&known), known.gone_since(&next)), (1, 0));
        }
    }
}
