//! A SPIFFE bundle of another trust domain, as it is read: refused whole, or taken whole.

use std::collections::BTreeSet;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rustls_pki_types::CertificateDer;
use serde::Deserialize;
use serde_json::Value;
use signet_identity::{TrustBundle, TrustDomain};
use time::OffsetDateTime;
use x509_parser::prelude::{FromDer as _, X509Certificate};

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
    #[error(
        "none of the {known} X.509 authorities that are trusted now is in it, as one would be while {trust_domain} replaces them: where it says \
         so itself, `signet federate refresh {trust_domain} --accept`"
    )]
    NothingInCommon { trust_domain: TrustDomain, known: usize },
    #[error(
        "{gone} of the {known} X.509 authorities that are trusted now are not in it: where {trust_domain} says so itself, \
         `signet federate refresh {trust_domain} --accept`"
    )]
    LosesMost { trust_domain: TrustDomain, gone: usize, known: usize },
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
    ///
    /// A trust domain that replaces its authorities publishes the next ones beside those before, for several refresh hints (the
    /// security considerations of SPIFFE Trust Domain and Bundle, "refresh hint"). So one that shares none with what is trusted, or lacks most of it, is no rotation: somebody else answers, or something is broken there.
    pub(crate) fn check_follows(&self, known: &Self, now: OffsetDateTime) -> Result<(), DocumentError> {
        if let (Some(found), Some(known)) = (self.sequence, known.sequence)
            && found < known
        {
            return Err(DocumentError::GoesBack { found, known });
        }
        let trust_domain = self.bundle.trust_domain().clone();
        match (self.gone_since(known, now), known.living(now).len()) {
            (0, _) => Ok(()),
            (gone, known) if gone == known => Err(DocumentError::NothingInCommon { trust_domain, known }),
            (gone, known) if gone * 2 > known => Err(DocumentError::LosesMost { trust_domain, gone, known }),
            _ => Ok(()),
        }
    }

    /// How many X.509 authorities of `known`, that would still be good, are not in it.
    pub(crate) fn gone_since(&self, known: &Self, now: OffsetDateTime) -> usize {
        known.living(now).difference(&self.living(now)).count()
    }

    /// The keys of those authorities that have not expired: a certificate that is made anew for the same key takes nothing away.
    fn living(&self, now: OffsetDateTime) -> BTreeSet<&[u8]> {
        self.bundle.authorities().iter().filter_map(|der| living_key(der, now)).collect()
    }
}

/// The public key of a certificate, unless that has expired.
fn living_key<'der>(der: &'der CertificateDer<'_>, now: OffsetDateTime) -> Option<&'der [u8]> {
    let (_, certificate) = X509Certificate::from_der(der).ok()?;
    let is_over = certificate.validity().not_after.to_datetime() < now;
    (!is_over).then_some(certificate.tbs_certificate.subject_pki.raw)
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

    fn now() -> OffsetDateTime {
        OffsetDateTime::now_utc()
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
        assert_eq!(before.check_follows(&known, now()), Err(DocumentError::GoesBack { found: 6, known: 7 }));
        for next in [of(Some(7), &[key(&one)]), of(Some(8), &[key(&one)]), of(None, &[key(&one)])] {
            next.check_follows(&known, now()).unwrap();
            assert_eq!((next.gone_since(&known, now()), known.gone_since(&next, now())), (1, 0));
        }
    }

    #[test]
    fn a_bundle_that_lacks_most_of_what_is_trusted_is_no_rotation() {
        let root = || Authority::root("partner.example");
        let (one, two, three, other) = (root(), root(), root(), root());
        let of = |authorities: &[&Authority]| {
            parse(&json!({"keys": authorities.iter().map(|authority| key(authority)).collect::<Vec<_>>()})).unwrap()
        };
        let follows = |next: &[&Authority], known: &[&Authority]| of(next).check_follows(&of(known), now());
        for (next, known) in [
            // The steps of a rotation, and each of them back.
            (&[&one, &two][..], &[&one][..]),
            (&[&two], &[&one, &two]),
            (&[&one, &two, &three], &[&one]),
            (&[&two, &three], &[&one, &two, &three]),
            (&[&two, &other], &[&one, &two]),
        ] {
            follows(next, known).unwrap();
        }
        let trust_domain = domain();
        for (next, known) in [(&[&other][..], &[&one][..]), (&[&other, &three], &[&one, &two])] {
            let refused = DocumentError::NothingInCommon { trust_domain: domain(), known: known.len() };
            assert_eq!(follows(next, known), Err(refused));
        }
        let refused = follows(&[&three, &other], &[&one, &two, &three]).unwrap_err();
        assert_eq!(refused, DocumentError::LosesMost { trust_domain, gone: 2, known: 3 });
        assert!(refused.to_string().contains("`signet federate refresh partner.example --accept`"), "{refused}");
    }

    #[test]
    fn what_has_expired_is_not_missed_and_a_certificate_made_anew_for_a_key_is_the_same_authority() {
        let hour = Duration::from_secs(3600);
        let (short, other) =
            (Authority::root_until("partner.example", now() + hour), Authority::root("partner.example"));
        let of = |key: Value| parse(&json!({"keys": [key]})).unwrap();
        let (known, next) = (of(key(&short)), of(key(&other)));
        assert!(next.check_follows(&known, now()).is_err());
        next.check_follows(&known, now() + 2 * hour).unwrap();
        // What comes with nothing that is good takes away as much as an empty one.
        assert!(known.check_follows(&next, now() + 2 * hour).is_err());

        let anew = other.reissued_with(|params| params.serial_number = Some(7.into()));
        let anew = of(json!({"use": "x509-svid", "kty": "EC", "x5c": [STANDARD.encode(&anew)]}));
        assert_ne!(anew.bundle, next.bundle);
        anew.check_follows(&next, now()).unwrap();
    }
}
