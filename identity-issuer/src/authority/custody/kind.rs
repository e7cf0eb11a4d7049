//! What a key signs, and nothing else: each kind is told from all others by its form, so that what was signed as one passes for no
//! other. Tokens have keys of their own, which sign nothing else, and so have audit logs.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;
use serde_json::{Map, Value};
use signet_audit::Statement;
use x509_parser::certificate::TbsCertificate;
use x509_parser::certification_request::X509CertificationRequestInfo;
use x509_parser::prelude::FromDer as _;
use x509_parser::revocation_list::TbsCertList;
use x509_parser::x509::X509Version;

use super::checkpoint::is_checkpoint;
use super::{Algorithm, KeyName};

#[derive(Copy, Clone, Debug, Eq, PartialEq)]
pub(crate) enum Kind {
    /// TBSCertificate of version 3 (RFC 5280 §4.1.2).
    Certificate,
    /// TBSCertList of version 2 (RFC 5280 §5.1.2).
    RevocationList,
    /// CertificationRequestInfo (RFC 2986 §4.1), for the key itself.
    Request,
    /// 64 bytes 0x20, one of [`CONTEXTS`], a byte 0, and what is said: the form of RFC 8446 §4.4.3.
    Statement,
    /// The signing input of a token (RFC 7515 §5.1): `base64url(header).base64url(claims)`, with a header of ours.
    Jwt,
    /// The text of a log's checkpoint, or what is signed with a time over one (C2SP tlog-checkpoint, tlog-cosignature).
    Checkpoint,
    /// What an issuer says about a part of its log (`signet_audit::Statement`).
    LogStatement,
}

/// Of a token: these three parameters, and no other (RFC 7515 §4.1).
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct JwsHeader {
    alg: Algorithm,
    kid: String,
    typ: Type,
}

/// A JWT-SVID's, or an access token's (RFC 9068 §2.1).
#[derive(Debug, Deserialize)]
enum Type {
    #[serde(rename = "JWT")]
    Svid,
    #[serde(rename = "at+jwt")]
    Access,
}

/// Whatever is signed in an authority's name beside certificates has its own.
const CONTEXTS: [&str; 4] =
    ["signet issuer bundles v1", "signet revocations v1", "signet ceremony record v1", "signet key check v1"];

const PADDING: [u8; 64] = [0x20; 64];

impl Kind {
    /// That of a message, if a key may sign it at all.
    pub(super) fn of(message: &[u8]) -> Option<Self> {
        // Lines of text. DER has control characters, a statement begins with spaces, and a token is one line without an end.
        if is_checkpoint(message) {
            return Some(Self::Checkpoint);
        }
        if std::str::from_utf8(message).is_ok_and(|text| Statement::parse(text).is_some()) {
            return Some(Self::LogStatement);
        }
        match message.first()? {
            // A SEQUENCE: all three parse in one way only, and to their end.
            0x30 => Self::of_der(message),
            0x20 => is_statement(message).then_some(Self::Statement),
            // What `{"` begins with in base64url.
            b'e' => jws_header(message).map(|_| Self::Jwt),
            _ => None,
        }
    }

    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Certificate => "certificate",
            Self::RevocationList => "revocation list",
            Self::Request => "certificate request",
            Self::Statement => "statement",
            Self::Jwt => "token",
            Self::Checkpoint => "checkpoint",
            Self::LogStatement => "statement about a log",
        }
    }

    /// Whether a CA's key signs it.
    pub(super) fn is_for_authorities(self) -> bool {
        match self {
            Self::Certificate | Self::RevocationList | Self::Request | Self::Statement => true,
            Self::Jwt | Self::Checkpoint | Self::LogStatement => false,
        }
    }

    fn of_der(message: &[u8]) -> Option<Self> {
        if let Ok(([], certificate)) = TbsCertificate::from_der(message) {
            return (certificate.version == X509Version::V3).then_some(Self::Certificate);
        }
        if let Ok(([], list)) = TbsCertList::from_der(message) {
            return (list.version == Some(X509Version::V2)).then_some(Self::RevocationList);
        }
        matches!(X509CertificationRequestInfo::from_der(message), Ok(([], _))).then_some(Self::Request)
    }
}

impl JwsHeader {
    pub(super) fn is_of(&self, name: &KeyName, algorithm: Algorithm) -> bool {
        // Which of the two it is, the token's own user says.
        match self.typ {
            Type::Svid | Type::Access => self.kid == name.as_str() && self.alg == algorithm,
        }
    }
}

/// None where it is no signing input of a token of ours.
pub(super) fn jws_header(message: &[u8]) -> Option<JwsHeader> {
    let (header, claims) = std::str::from_utf8(message).ok()?.split_once('.')?;
    let [header, claims] = [header, claims].map(|part| URL_SAFE_NO_PAD.decode(part).ok());
    serde_json::from_slice::<Map<String, Value>>(&claims?).ok()?;
    serde_json::from_slice(&header?).ok()
}

/// What is signed for a statement.
pub(crate) fn statement(context: &str, said: &[u8]) -> Vec<u8> {
    [&PADDING[..], context.as_bytes(), &[0], said].concat()
}

fn is_statement(message: &[u8]) -> bool {
    let Some(rest) = message.strip_prefix(&PADDING) else { return false };
    CONTEXTS.iter().any(|context| rest.strip_prefix(context.as_bytes()).is_some_and(|rest| rest.first() == Some(&0)))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use rcgen::{
        CertificateParams, CertificateRevocationListParams, IsCa, Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose,
        SerialNumber,
    };
    use serde_json::json;
    use time::OffsetDateTime;

    use super::super::{CaKey, JwtKey, JwtPair, LogPair, SignError};
    use super::*;
    use crate::key::P256Key;

    const KINDS: [Kind; 7] = [
        Kind::Certificate,
        Kind::RevocationList,
        Kind::Request,
        Kind::Statement,
        Kind::Jwt,
        Kind::Checkpoint,
        Kind::LogStatement,
    ];
    const OF_LOGS: [Kind; 2] = [Kind::Checkpoint, Kind::LogStatement];
    const CHECKPOINT: &str = "example.org/audit/1\n20852163\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n";

    fn input(header: &Value, claims: &Value) -> Vec<u8> {
        let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        format!("{}.{}", part(header), part(claims)).into_bytes()
    }

    /// As this key is to sign it.
    fn token(key: &JwtKey) -> Vec<u8> {
        let header = json!({"alg": key.algorithm().as_str(), "kid": key.name().as_str(), "typ": "JWT"});
        input(&header, &json!({"sub": "a"}))
    }

    /// One message of each kind, and both of a checkpoint.
    fn messages(jwt: &JwtKey) -> [(Kind, Vec<u8>); 8] {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(["a.example".to_owned()]).unwrap();
        params.is_ca = IsCa::Ca(rcgen::BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::CrlSign, KeyUsagePurpose::KeyCertSign];
        let certificate = params.self_signed(&key).unwrap();
        let request = params.serialize_request(&key).unwrap();
        let now = OffsetDateTime::from_unix_timestamp(1_800_000_000).unwrap();
        let list = CertificateRevocationListParams {
            this_update: now,
            next_update: now + time::Duration::days(1),
            crl_number: SerialNumber::from(1_u64),
            issuing_distribution_point: None,
            revoked_certs: Vec::new(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        let list = list.signed_by(&Issuer::new(params, key)).unwrap();
        [
            (Kind::Certificate, to_be_signed(certificate.der())),
            (Kind::RevocationList, to_be_signed(list.der())),
            (Kind::Request, to_be_signed(request.der())),
            (Kind::Statement, statement("signet revocations v1", b"...")),
            (Kind::Jwt, token(jwt)),
            (Kind::Checkpoint, CHECKPOINT.into()),
            (Kind::Checkpoint, format!("cosignature/v1\ntime 1679315147\n{CHECKPOINT}").into()),
            (Kind::LogStatement, "signet/audit-digest/v1\nlog example.org/audit/1\nsize 3\n".into()),
        ]
    }

    /// The first element of a SEQUENCE, as X.509 puts it.
    fn to_be_signed(der: &[u8]) -> Vec<u8> {
        yasna::parse_der(der, |reader| {
            reader.read_sequence(|reader| {
                let first = reader.next().read_der()?;
                reader.next().read_der()?;
                reader.next().read_der()?;
                Ok(first)
            })
        })
        .unwrap()
    }

    #[test]
    fn a_certificate_cannot_be_signed_by_way_of_another_kind_nor_any_other_by_way_of_a_certificate() {
        let key = CaKey::from(P256Key::generate().unwrap());
        let (jwt, _) = JwtPair::generate(Algorithm::Es256).unwrap();
        for (kind, message) in messages(&jwt) {
            assert_eq!(Kind::of(&message), Some(kind));
            for other in KINDS {
                let signed = key.sign(other, &message);
                assert_eq!(
                    signed.is_ok(),
                    other == kind && kind != Kind::Jwt && !OF_LOGS.contains(&kind),
                    "{kind:?} as {other:?}"
                );
                assert!(matches!(signed, Ok(_) | Err(SignError::NotOfKind { .. })));
            }
        }
    }

    #[test]
    fn a_key_for_tokens_signs_nothing_else_and_an_authoritys_key_signs_no_token() {
        let authority = P256Key::generate().unwrap();
        let ca = CaKey::from(authority.clone());
        for algorithm in [Algorithm::Es256, Algorithm::Rs256] {
            let (key, _) = JwtPair::generate(algorithm).unwrap();
            for (kind, message) in messages(&key) {
                assert_eq!(key.sign(&message).is_ok(), kind == Kind::Jwt, "{kind:?}");
            }
            assert!(ca.sign(Kind::Jwt, &token(&key)).is_err());
        }
        // Nor one that names it.
        let header = json!({"alg": "ES256", "kid": ca.name().as_str(), "typ": "JWT"});
        for kind in KINDS {
            assert!(ca.sign(kind, &input(&header, &json!({}))).is_err());
        }
    }

    #[test]
    fn the_key_of_a_log_signs_checkpoints_and_statements_alone_and_no_other_key_signs_one() {
        let (log, _) = LogPair::generate().unwrap();
        let ca = CaKey::from(P256Key::generate().unwrap());
        for algorithm in [Algorithm::Es256, Algorithm::Rs256] {
            let (jwt, _) = JwtPair::generate(algorithm).unwrap();
            for (kind, message) in messages(&jwt) {
                let signed = log.sign(&message);
                assert_eq!(signed.is_ok(), OF_LOGS.contains(&kind), "{kind:?}");
                assert!(matches!(signed, Ok(_) | Err(SignError::NotOfKind { wanted: "checkpoint" })));
                if OF_LOGS.contains(&kind) {
                    assert!(jwt.sign(&message).is_err());
                    assert!(KINDS.iter().all(|kind| ca.sign(*kind, &message).is_err()));
                }
            }
        }
        // Nor a token that names it.
        let header = json!({"alg": "ES256", "kid": log.name().as_str(), "typ": "JWT"});
        assert!(log.sign(&input(&header, &json!({}))).is_err());
    }

    #[test]
    fn a_token_names_the_key_that_signs_it_and_has_a_header_of_ours() {
        let (key, _) = JwtPair::generate(Algorithm::Es256).unwrap();
        let (other, _) = JwtPair::generate(Algorithm::Es256).unwrap();
        let header = json!({"alg": "ES256", "kid": key.name().as_str(), "typ": "at+jwt"});
        key.sign(&input(&header, &json!({}))).unwrap();
        let with = |name: &str, value: Value| {
            let mut header = header.clone();
            header[name] = value;
            header
        };
        for wrong in [
            with("alg", json!("RS256")),
            with("alg", json!("none")),
            with("kid", json!(other.name().as_str())),
            with("typ", json!("JOSE")),
            with("crit", json!(["exp"])),
            with("jwk", json!({})),
            json!({"alg": "ES256", "kid": key.name().as_str()}),
            json!([]),
        ] {
            assert!(key.sign(&input(&wrong, &json!({}))).is_err(), "{wrong}");
        }
        let whole = token(&key);
        for wrong in [
            input(&header, &json!("claims")),
            [&whole[..], b"."].concat(),
            [&whole[..], b".e30"].concat(),
            [&whole[..], b"="].concat(),
            whole[..whole.len() - 1].to_vec(),
            b"eyJ".to_vec(),
        ] {
            assert!(key.sign(&wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn what_is_of_no_kind_is_not_signed() {
        let key = CaKey::from(P256Key::generate().unwrap());
        let (jwt, _) = JwtPair::generate(Algorithm::Es256).unwrap();
        let (log, _) = LogPair::generate().unwrap();
        let mut wrong: Vec<Vec<u8>> = vec![
            Vec::new(),
            vec![0; 32],
            b"signet revocations v1\0...".to_vec(),
            statement("somebody else's v1", b""),
            [&PADDING[..], b"signet revocations v10"].concat(),
            b"eyJhbGciOiJFUzI1NiJ9.eyJzdWIiOiJhIn0".to_vec(),
        ];
        // A statement may have any end; the others have one.
        for (_, message) in messages(&jwt).into_iter().filter(|(kind, _)| *kind != Kind::Statement) {
            wrong.push([&message[..], &[0]].concat());
            wrong.push(message[..message.len() / 3].to_vec());
        }
        for message in wrong {
            for kind in KINDS {
                assert!(key.sign(kind, &message).is_err(), "{message:?} as {kind:?}");
            }
            assert!(jwt.sign(&message).is_err(), "{message:?}");
            assert!(log.sign(&message).is_err(), "{message:?}");
        }
    }
}
