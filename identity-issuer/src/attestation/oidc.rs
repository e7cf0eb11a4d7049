//! `oidc`: an ID token of an OpenID Connect provider: a CI job's, or a person's machine's.
//!
//! What the token claims becomes attributes; the policy's rules say which claims make which identity.

use serde_json::{Map, Value};
use signet_policy::{AttributeName, Attributes};

use super::jwt::{Claims, TokenVerifier};
use super::{Attested, Attestor, Evidence, Method, NotAttested, Subject, named};

/// Whose tokens are believed.
#[derive(Clone, Debug, Default)]
pub(crate) struct Providers(pub(crate) Vec<Provider>);

#[derive(Clone, Debug)]
pub(crate) struct Provider {
    pub(crate) name: String,
    pub(crate) verifier: TokenVerifier,
    /// The claims that become attributes; all of them where none is named.
    pub(crate) claims: Vec<String>,
    /// Whether a token is good for one certificate, or until it expires.
    pub(crate) once: bool,
}

impl Attestor for Providers {
    type Proof = signet_proto::identity::v1::OidcToken;

    async fn attest(&self, proof: &Self::Proof, _: &[u8]) -> Result<Attested, NotAttested> {
        let provider = named(&self.0, |provider| &provider.name, &proof.provider, "provider")?;
        let (claims, hash) = provider.verifier.verify(&proof.token)?;
        let expires_at = claims.expires_at;
        Ok(Attested {
            shown: None,
            subject: Subject::Proved(provider.attributes_of(claims)?),
            evidence: Evidence::Proof { method: Method::Oidc, hash, once_until: provider.once.then_some(expires_at) },
        })
    }
}

impl Provider {
    pub(super) fn attributes_of(&self, claims: Claims) -> Result<Attributes, NotAttested> {
        let Claims { subject, all, .. } = claims;
        let wanted = |name: &str| match self.claims.as_slice() {
            [] => !OF_THE_TOKEN.contains(&name),
            wanted => wanted.iter().any(|wanted| wanted == name),
        };
        let mut pairs = Vec::new();
        let fixed = [("oidc.provider", self.name.clone()), ("oidc.subject", subject)];
        pairs.extend(fixed.into_iter().filter_map(|(name, value)| Some((name.parse().ok()?, value))));
        for (claim, value) in all.iter().filter(|(claim, _)| wanted(claim) && is_vouched_for(claim, &all)) {
            // A claim whose name no rule can write is none that a rule could want.
            let Ok(name) = format!("oidc.claim.{claim}").parse::<AttributeName>() else { continue };
            pairs.extend(values(value).map(|value| (name.clone(), value)));
        }
        Ok(Attributes::new(pairs)?)
    }
}

/// A scalar, or those of an array. Objects are nothing that a rule can match.
fn values(value: &Value) -> impl Iterator<Item = String> {
    let scalars = match value {
        Value::Array(values) => values.as_slice(),
        other => std::slice::from_ref(other),
    };
    scalars.iter().filter_map(|scalar| match scalar {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(yes) => Some(yes.to_string()),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    })
}

/// An address that the provider does not say it has verified may be whatever its user typed (OpenID Connect Core §5.7).
fn is_vouched_for(claim: &str, all: &Map<String, Value>) -> bool {
    claim != "email" || all.get("email_verified") == Some(&Value::Bool(true))
}

/// What a token says of itself (RFC 7519 §4.1), and not of its subject.
const OF_THE_TOKEN: [&str; 7] = ["iss", "sub", "aud", "exp", "nbf", "iat", "jti"];

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::json;
    use signet_proto::identity::v1::OidcToken;

    use super::super::jwt::tests::Signer;
    use super::*;

    async fn attest(signer: &Signer, wanted: &[&str], claims: Value) -> Result<Vec<String>, NotAttested> {
        let claims_wanted = wanted.iter().map(ToString::to_string).collect();
        let provider =
            Provider { name: "ci".to_owned(), verifier: signer.verifier(), claims: claims_wanted, once: true };
        let token = signer.sign(&signer.claims(claims));
        let attested = Providers(vec![provider]).attest(&OidcToken { provider: String::new(), token }, &[]).await?;
        let Subject::Proved(attributes) = attested.subject else { unreachable!() };
        Ok(attributes.iter().map(|(name, value)| format!("{name}={value}")).collect())
    }

    #[tokio::test]
    async fn claims_become_attributes() {
        let signer = Signer::new();
        let claims = json!({
            "repository": "acme/shop", "run": 7, "protected": true, "groups": ["a", "b", {"x": 1}], "actor": {"id": 1},
            "none": null, "https://acme.example/team": "x", "jti": "1",
        });
        let told = attest(&signer, &[], claims.clone()).await.unwrap();
        assert_eq!(
            told,
            [
                "oidc.claim.groups=a",
                "oidc.claim.groups=b",
                "oidc.claim.protected=true",
                "oidc.claim.repository=acme/shop",
                "oidc.claim.run=7",
                "oidc.provider=ci",
                "oidc.subject=me"
            ]
        );
        let told = attest(&signer, &["repository"], claims).await.unwrap();
        assert_eq!(told, ["oidc.claim.repository=acme/shop", "oidc.provider=ci", "oidc.subject=me"]);
    }

    #[tokio::test]
    async fn an_address_that_nobody_verified_is_not_believed() {
        let signer = Signer::new();
        let email = async |claims: Value| {
            let told = attest(&signer, &["email"], claims).await.unwrap();
            told.iter().any(|attribute| attribute.starts_with("oidc.claim.email="))
        };
        assert!(email(json!({"email": "a@acme.example", "email_verified": true})).await);
        assert!(!email(json!({"email": "a@acme.example"})).await);
        for verified in [json!(false), json!("false"), json!("true"), json!(null)] {
            assert!(!email(json!({"email": "a@acme.example", "email_verified": verified})).await);
        }
    }

    #[tokio::test]
    async fn a_flood_of_claims_is_refused() {
        let signer = Signer::new();
        let many: Vec<String> = (0..100).map(|number| number.to_string()).collect();
        let refused = attest(&signer, &[], json!({"groups": many})).await.unwrap_err();
        assert_eq!(refused.reason(), "attributes");
        // A claim cannot be made to look like what the provider is called.
        let told = attest(&signer, &[], json!({"provider": "other", "subject": "root"})).await.unwrap();
        assert!(told.contains(&"oidc.provider=ci".to_owned()) && told.contains(&"oidc.subject=me".to_owned()));
    }
}
