//! What an issuer has its clients trust, signed by its authority: whoever can write to the database, and nothing else, has nobody trust
//! anything.
//!
//! A statement is believed by those who trust the authority that signed it, by their own files. So issuers under one root have all of
//! their clients trust another root as soon as one of them is told of it, and a stranger's root comes in by nobody.

use std::collections::BTreeMap;

use rustls_pki_types::CertificateDer;
use serde::{Deserialize, Serialize};
use signet_identity::{BundleSet, TrustBundle};
use time::OffsetDateTime;

use super::read;
use crate::authority::custody;
use crate::authority::{Authority, IntermediateError, KeyName, MOST_AUTHORITIES, check_peer, read_chain};
use crate::jwt::{JwksError, JwtAuthorities, JwtTrust, MOST_NAMED, RevokedKeys};
use crate::revocation::{Revocations, Signers};
use crate::store::{SignedBundles, StoreError};
use crate::utc::{microseconds, of_microseconds};

/// A statement that was verified.
#[derive(Clone, Debug)]
pub(crate) struct Statement {
    /// Who says it, by the name of its authority's key.
    pub(crate) issuer: String,
    pub(crate) at: OffsetDateTime,
    pub(crate) bundles: BundleSet,
    /// Those that sign for it, or are ready to: their certificates and those above them.
    pub(crate) authorities: Vec<Vec<CertificateDer<'static>>>,
    /// The keys of JWT-SVIDs.
    pub(crate) jwt: JwtTrust,
    /// By whose word.
    signers: Signers,
    /// As it is on record.
    signed: SignedBundles,
}

/// Why a statement on record is not believed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StatementError {
    #[error("the authority that signed it {0}")]
    Authority(#[from] IntermediateError),
    #[error("it is signed by another authority than it names")]
    OtherIssuer,
    #[error("its signature is wrong")]
    Signature,
    #[error("it is no statement of this program, or of a newer version")]
    Malformed,
    #[error("what it says of {trust_domain} is no bundle: {what}")]
    Bundle { trust_domain: String, what: String },
}

/// What is signed.
#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Written {
    issuer: String,
    /// Microseconds, Unix time.
    at: i64,
    /// PEM, by trust domain.
    bundles: BTreeMap<String, String>,
    /// PEM, a chain each.
    authorities: Vec<String>,
    /// JSON Web Key Sets, by trust domain.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    jwt: BTreeMap<String, serde_json::Value>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    revoked_jwt: RevokedKeys,
}

/// What is signed in the end: the form of RFC 8446 §4.4.3, so that no signature of a certificate passes for it, nor the other way.
fn to_be_signed(text: &str) -> Vec<u8> {
    custody::statement("signet issuer bundles v1", text.as_bytes())
}

/// To be published.
pub(crate) fn sign(
    authority: &Authority,
    bundles: &BundleSet,
    jwt: &JwtTrust,
    authorities: Vec<String>,
    at: OffsetDateTime,
) -> Result<SignedBundles, StoreError> {
    let issuer = authority.name().to_string();
    let by_domain = bundles.iter().map(|bundle| (bundle.trust_domain().to_string(), bundle.to_pem()));
    let bundles = by_domain.collect();
    let revoked_jwt = jwt.revoked.clone();
    let jwt = jwt.keys.iter().map(|(trust_domain, keys)| (trust_domain.to_string(), keys.to_jwks())).collect();
    let written = Written { issuer: issuer.clone(), at: microseconds(at), bundles, authorities, jwt, revoked_jwt };
    let wrong = || StoreError::Record { what: "bundles that cannot be written" };
    let statement = serde_json::to_string(&written).map_err(|_| wrong())?;
    let signature = authority.sign_statement(&to_be_signed(&statement)).map_err(|_| wrong())?;
    Ok(SignedBundles { issuer, statement, signature, chain: authority.chain_pem() })
}

impl Statement {
    /// `own` is the bundle of this trust domain, by this issuer's own file.
    pub(crate) fn verify(
        record: &SignedBundles,
        own: &TrustBundle,
        now: OffsetDateTime,
    ) -> Result<Self, StatementError> {
        let SignedBundles { issuer, statement, signature, chain } = record;
        let path = check_peer(chain.as_bytes(), own, now)?;
        let signer = path.first().ok_or(IntermediateError::NoCertificate)?;
        if KeyName::of(&signer.spki).as_str() != *issuer {
            return Err(StatementError::OtherIssuer);
        }
        if !signer.has_signed(&to_be_signed(statement), signature) {
            return Err(StatementError::Signature);
        }
        let written: Written = serde_json::from_str(statement).map_err(|_| StatementError::Malformed)?;
        if written.issuer != *issuer {
            return Err(StatementError::OtherIssuer);
        }
        let bundle = |(name, pem): (String, String)| {
            let trust_domain = name.parse().map_err(|_| StatementError::Malformed)?;
            read(trust_domain, pem.as_bytes())
                .map_err(|what| StatementError::Bundle { trust_domain: name.chars().take(64).collect(), what })
        };
        if written.authorities.len() > MOST_AUTHORITIES || written.revoked_jwt.len() > MOST_NAMED {
            return Err(StatementError::Malformed);
        }
        let authorities = written.authorities.iter().map(|pem| read_chain(pem.as_bytes()));
        let authorities = authorities.collect::<Result<_, _>>()?;
        let jwt = |(name, jwks): (String, serde_json::Value)| {
            let trust_domain = name.parse().map_err(|_| StatementError::Malformed)?;
            let what =
                |error: JwksError| StatementError::Bundle { trust_domain: name.clone(), what: error.to_string() };
            Ok((trust_domain, JwtAuthorities::parse(&jwks).map_err(what)?))
        };
        let keys = written.jwt.into_iter().map(jwt).collect::<Result<_, StatementError>>()?;
        Ok(Self {
            jwt: JwtTrust { keys, revoked: written.revoked_jwt },
            issuer: written.issuer,
            at: of_microseconds(written.at).ok_or(StatementError::Malformed)?,
            bundles: written.bundles.into_iter().map(bundle).collect::<Result<_, _>>()?,
            authorities,
            signers: Signers::of(&path),
            signed: record.clone(),
        })
    }

    /// Whether its authority, or one above it, is revoked.
    pub(crate) fn is_of_revoked(&mut self, revocations: &Revocations) -> bool {
        self.signers.are_revoked(revocations)
    }

    /// What is known of its authority by what the same issuer said before.
    pub(crate) fn following(self, before: Option<&Self>) -> Self {
        match before {
            Some(before) if before.signed.chain == self.signed.chain => {
                Self { signers: before.signers.clone(), ..self }
            }
            Some(_) | None => self,
        }
    }

    /// Whether it is the very one on record.
    pub(crate) fn is(&self, record: &SignedBundles) -> bool {
        self.signed == *record
    }

    /// Whether its authority is still one to be believed.
    pub(crate) fn is_believed(&self, own: &TrustBundle, now: OffsetDateTime) -> bool {
        check_peer(self.signed.chain.as_bytes(), own, now).is_ok()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::time::Duration;

    use super::super::tests::{bundle, domain};
    use super::*;
    use crate::authority::testing;

    fn now() -> OffsetDateTime {
        OffsetDateTime::from_unix_timestamp(1_800_000_000).unwrap()
    }

    #[test]
    fn what_an_authority_under_ones_own_root_says_is_believed_and_nothing_else() {
        let (root, stranger) = (testing::Root::new("example.org", now()), testing::Root::new("example.org", now()));
        let authority = root.authority(now());
        let name = authority.name().to_string();
        let said = BundleSet::from_iter([root.bundle(), bundle("partner.example", 2)]);
        let jwt = JwtTrust { revoked: [(KeyName::of(b"a"), 7)].into(), ..JwtTrust::default() };
        let signed = sign(&authority, &said, &jwt, vec![authority.chain_pem()], now()).unwrap();
        let believed = Statement::verify(&signed, &root.bundle(), now()).unwrap();
        assert_eq!(believed.jwt, jwt);
        assert_eq!((believed.issuer.as_str(), &believed.bundles, believed.at), (name.as_str(), &said, now()));
        assert_eq!(believed.authorities, [authority.chain()]);
        assert!(believed.is(&signed) && believed.is_believed(&root.bundle(), now()));

        let reason = |record: &SignedBundles, bundle: &TrustBundle, at| {
            Statement::verify(record, bundle, at).map(drop).unwrap_err().to_string()
        };
        // By somebody who can write, and has no authority under this root.
        assert!(reason(&signed, &stranger.bundle(), now()).contains("signed by no root"));
        assert!(!believed.is_believed(&stranger.bundle(), now()));
        let late = now() + Duration::from_secs(400 * 86_400);
        assert!(reason(&signed, &root.bundle(), late).contains("expired"));
        assert!(!believed.is_believed(&root.bundle(), late));
        let more = BundleSet::from_iter([root.bundle(), bundle("example.org", 1), bundle("partner.example", 1)]);
        let other = sign(&root.authority(now()), &more, &JwtTrust::default(), Vec::new(), now()).unwrap();
        let posing = SignedBundles { issuer: name.clone(), ..other.clone() };
        assert_eq!(reason(&posing, &root.bundle(), now()), "it is signed by another authority than it names");
        let mixed = SignedBundles { statement: other.statement.clone(), ..signed.clone() };
        assert_eq!(reason(&mixed, &root.bundle(), now()), "its signature is wrong");
        let renamed = SignedBundles { issuer: "00".repeat(16), ..signed.clone() };
        assert_eq!(reason(&renamed, &root.bundle(), now()), "it is signed by another authority than it names");
        // A statement that names another than the one who signed it.
        let statement = r#"{"issuer": "another", "at": 0, "bundles": {}, "authorities": []}"#.to_owned();
        let signature = authority.sign_statement(&to_be_signed(&statement)).unwrap();
        let foreign = SignedBundles { issuer: name, statement, signature, chain: authority.chain_pem() };
        assert_eq!(reason(&foreign, &root.bundle(), now()), "it is signed by another authority than it names");
        assert_eq!(domain("example.org"), *root.bundle().trust_domain());
    }

    #[test]
    fn what_is_signed_and_is_no_bundle_is_refused() {
        let root = testing::Root::new("example.org", now());
        let authority = root.authority(now());
        let name = authority.name().to_string();
        for (bundles, expected) in [
            (r#"{"partner.example": "junk"}"#, "what it says of partner.example is no bundle: "),
            (r#"{"Partner": ""}"#, "it is no statement of this program"),
            (
                r#"{}, "jwt": {"a.example": {"keys": [{"kty": "oct", "kid": "a"}]}}"#,
                "what it says of a.example is no bundle: ",
            ),
            (r#"{}, "revoked_jwt": ["../a"]"#, "it is no statement of this program"),
            (r#"{"a.example": ""}, "more": 1"#, "it is no statement of this program"),
        ] {
            let statement = format!(r#"{{"issuer": "{name}", "at": 0, "bundles": {bundles}, "authorities": []}}"#);
            let signature = authority.sign_statement(&to_be_signed(&statement)).unwrap();
            let (issuer, chain) = (name.clone(), authority.chain_pem());
            let record = SignedBundles { issuer, statement, signature, chain };
            let refused = Statement::verify(&record, &root.bundle(), now()).unwrap_err().to_string();
            assert!(refused.starts_with(expected), "{refused}");
        }
    }
}
