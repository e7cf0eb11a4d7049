//! JWT-SVIDs: who gets one, what is in it, and by which keys it is verified.

use std::collections::BTreeSet;

use jsonwebtoken::jwk::{Jwk, JwkSet};
use jsonwebtoken::{Algorithm, DecodingKey, Validation, decode, decode_header};
use serde_json::{Value, json};
use signet_proto::admin::v1::{BanRequest, EvictAgentsRequest, evict_agents_request::Agents};
use signet_proto::identity::v1::watch_response::Event;
use signet_proto::identity::v1::{IssueJwtRequest, JwtSvid, TrustBundles};
use tonic::{Code, Status};

use crate::harness::{ID, Identity, Issuer, Place, csr, eventually, hello, new_key, renew};
use crate::publishing::exchange;

const TOKENS: &str = "jwt: { ttl: 5m, issuer: \"https://oidc.example.org\" }";

pub(crate) async fn token(
    issuer: &Issuer,
    holder: &Identity,
    audience: &[&str],
    ttl: Option<i64>,
) -> Result<JwtSvid, Status> {
    let audience = audience.iter().map(|one| (*one).to_owned()).collect();
    let ttl = ttl.map(|seconds| prost_types::Duration { seconds, nanos: 0 });
    let answer = issuer.client_of(holder).await.issue_jwt(IssueJwtRequest { audience, ttl }).await?;
    Ok(answer.into_inner().svid.unwrap())
}

pub(crate) fn keys_of(bundles: &TrustBundles) -> JwkSet {
    serde_json::from_slice(&bundles.bundles[0].jwt_authorities).unwrap()
}

pub(crate) async fn told(issuer: &Issuer, holder: &Identity) -> JwkSet {
    let mut client = issuer.client_of(holder).await;
    keys_of(&renew(&mut client, csr(&new_key())).await.unwrap().into_inner().bundles.unwrap())
}

/// As somebody does who knows the key set and nothing else.
pub(crate) fn verify(token: &str, keys: &JwkSet, audience: &str) -> Result<Value, String> {
    let kid = decode_header(token).unwrap().kid.expect("a kid");
    let key: &Jwk = keys.find(&kid).ok_or("no such key")?;
    let mut validation = Validation::new(Algorithm::ES256);
    validation.set_audience(&[audience]);
    validation.set_required_spec_claims(&["exp", "aud", "sub"]);
    let read = decode::<Value>(token, &DecodingKey::from_jwk(key).unwrap(), &validation);
    read.map(|read| read.claims).map_err(|error| error.to_string())
}

async fn page(issuer: &Issuer, path: &str, host: &str) -> (u16, Value) {
    let tcp = tokio::net::TcpStream::connect(issuer.started.web.plain).await.unwrap();
    // The harness adds a host of its own, which HTTP takes one of: the one in the target counts.
    let answer = exchange(tcp, &format!("GET http://{host}{path} HTTP/1.1\r\n")).await;
    (answer.status, serde_json::from_str(&answer.body).unwrap_or_default())
}

#[tokio::test]
async fn a_token_says_who_its_holder_is_to_those_it_is_for() {
    let place = Place::with(TOKENS);
    let issuer = place.serve().await;
    let holder = issuer.join(ID).await;
    let svid = token(&issuer, &holder, &["db", "cloud"], None).await.unwrap();
    let header = decode_header(&svid.token).unwrap();
    assert_eq!((header.typ.as_deref(), header.alg), (Some("JWT"), Algorithm::ES256));
    let keys = told(&issuer, &holder).await;
    let claims = verify(&svid.token, &keys, "cloud").unwrap();
    assert_eq!((&claims["sub"], &claims["aud"]), (&json!(ID), &json!(["db", "cloud"])));
    assert_eq!(claims["iss"], "https://oidc.example.org");
    let [iat, exp] = ["iat", "exp"].map(|claim| claims[claim].as_i64().expect("an integer"));
    assert_eq!(exp - iat, 300);
    assert_eq!((svid.spiffe_id.as_str(), svid.expires_at.unwrap().seconds), (ID, exp));
    verify(&svid.token, &keys, "other").unwrap_err();

    let shorter = token(&issuer, &holder, &["db"], Some(30)).await.unwrap();
    let claims = verify(&shorter.token, &keys, "db").unwrap();
    assert_eq!(claims["exp"].as_i64().unwrap() - claims["iat"].as_i64().unwrap(), 30);
    assert_eq!(place.count("SELECT count(*) FROM issued_jwts WHERE kind = 'jwt_svid'").await, 2);
    assert!(issuer.has_metric("signet_issuer_jwts_total{kind=\"jwt_svid\",result=\"issued\"} 2").await);

    // The same keys for those who ask over HTTP.
    let (status, found) = page(&issuer, "/keys", "oidc.example.org").await;
    let kids = |keys: &JwkSet| keys.keys.iter().map(|key| key.common.key_id.clone()).collect::<BTreeSet<_>>();
    assert_eq!((status, kids(&serde_json::from_value(found.clone()).unwrap())), (200, kids(&keys)));
    assert_eq!((&found["keys"][0]["use"], &found["keys"][0]["alg"]), (&json!("sig"), &json!("ES256")));
    let (_, discovery) = page(&issuer, "/.well-known/openid-configuration", "oidc.example.org").await;
    assert_eq!(discovery["jwks_uri"], "https://oidc.example.org/keys");
    assert_eq!(page(&issuer, "/keys", "evil.example").await.0, 400);
    let (_, bundle) = page(&issuer, "/bundle.json", "anything").await;
    let uses: Vec<_> = bundle["keys"].as_array().unwrap().iter().map(|key| key["use"].as_str().unwrap()).collect();
    assert_eq!(uses, ["x509-svid", "jwt-svid"]);
    issuer.stop().await;
}

#[tokio::test]
async fn nobody_gets_a_token_who_would_get_no_certificate() {
    let place = Place::with(TOKENS);
    let issuer = place.serve().await;
    let (banned, evicted) = (issuer.join(ID).await, issuer.join("spiffe://example.org/evicted").await);
    let code = async |holder: &Identity| token(&issuer, holder, &["db"], None).await.map_err(|status| status.code());
    code(&banned).await.unwrap();
    code(&evicted).await.unwrap();
    let ban = BanRequest { spiffe_id: ID.to_owned(), reason: String::new() };
    issuer.admin().await.ban(ban).await.unwrap();
    let agents = Some(Agents::SpiffeId("spiffe://example.org/evicted".to_owned()));
    issuer.admin().await.evict_agents(EvictAgentsRequest { agents }).await.unwrap();
    assert_eq!(code(&banned).await.unwrap_err(), Code::PermissionDenied);
    assert_eq!(code(&evicted).await.unwrap_err(), Code::PermissionDenied);
    let request = IssueJwtRequest { audience: vec!["db".to_owned()], ttl: None };
    let stranger = issuer.stranger().await.issue_jwt(request).await.unwrap_err();
    assert_eq!(stranger.code(), Code::Unauthenticated);
    assert_eq!(place.count("SELECT count(*) FROM issued_jwts").await, 2);
    issuer.stop().await;
}

#[tokio::test]
async fn requests_that_make_no_sense_are_refused_by_name() {
    let place = Place::with(TOKENS);
    let issuer = place.serve().await;
    let holder = issuer.join(ID).await;
    let (long, many) = ("a".repeat(513), (0..17).map(|number| number.to_string()).collect::<Vec<_>>());
    let many: Vec<_> = many.iter().map(String::as_str).collect();
    for (audience, ttl, expected) in [
        (&[][..], None, "audience: not between 1 and 16"),
        (&many, None, "audience: not between 1 and 16"),
        (&["a", ""], None, "audience[1]: it is empty"),
        (&["a", "a"], None, "audience[1]: it stands there twice"),
        (&[&long], None, "audience[0]: it is longer than 512 bytes"),
        (&["a\n"], None, "audience[0]: it has a control character"),
        (&["a"], Some(-1), "ttl: not between 10 s and 300 s"),
        (&["a"], Some(301), "ttl: not between 10 s and 300 s"),
        (&["a"], Some(i64::MIN), "ttl: not between 10 s and 300 s"),
    ] {
        let refused = token(&issuer, &holder, audience, ttl).await.unwrap_err();
        assert_eq!((refused.code(), refused.message()), (Code::InvalidArgument, expected));
    }
    issuer.stop().await;
    let place = Place::new();
    let issuer = place.serve().await;
    let holder = issuer.join(ID).await;
    assert_eq!(token(&issuer, &holder, &["a"], None).await.unwrap_err().code(), Code::Unimplemented);
    issuer.stop().await;
}

#[tokio::test]
async fn keys_are_known_to_whoever_is_connected_before_they_sign_and_as_long_as_their_tokens_live() {
    let place = Place::with("jwt: { ttl: 2s, key_life: 12s, publish_ahead: 1s }");
    let issuer = place.serve().await;
    let holder = issuer.join(ID).await;
    let mut stream = issuer.client_of(&holder).await.watch(hello()).await.unwrap().into_inner();
    let mut known = JwkSet { keys: Vec::new() };
    let first = token(&issuer, &holder, &["db"], None).await.unwrap();
    let kid = |svid: &JwtSvid| decode_header(&svid.token).unwrap().kid.unwrap();
    let deadline = tokio::time::Instant::now() + std::time::Duration::from_secs(30);
    loop {
        assert!(tokio::time::Instant::now() < deadline, "another key never signed");
        while let Ok(event) = tokio::time::timeout(std::time::Duration::from_millis(300), stream.message()).await {
            if let Some(Event::Bundles(bundles)) = event.unwrap().unwrap().event {
                known = keys_of(&bundles);
            }
        }
        let svid = token(&issuer, &holder, &["db"], None).await.unwrap();
        verify(&svid.token, &known, "db").unwrap();
        if kid(&svid) != kid(&first) {
            break;
        }
    }
    // After a restart, the same keys.
    issuer.stop().await;
    let issuer = place.serve().await;
    let again = token(&issuer, &holder, &["db"], None).await.unwrap();
    verify(&again.token, &known, "db").unwrap();
    eventually("the first key is gone", async || {
        let keys = told(&issuer, &issuer.join(ID).await).await;
        keys.find(&kid(&first)).is_none()
    })
    .await;
    issuer.stop().await;
}
