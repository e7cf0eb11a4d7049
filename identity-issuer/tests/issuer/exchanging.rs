//! Access tokens for whoever holds an X.509-SVID: by policy, bound to the certificate, and refused as OAuth says.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use http::Request;
use http_body_util::StreamBody;
use hyper::body::Frame;
use hyper_util::rt::{TokioExecutor, TokioIo};
use jsonwebtoken::jwk::JwkSet;
use jsonwebtoken::{Algorithm, DecodingKey, Validation, decode};
use rustls_pki_types::ServerName;
use serde_json::{Value, json};
use signet_identity::{
    BundleSet, ClientCredentials, ClientPolicy, Material, RevocationSet, Snapshot, SystemClock, TlsPolicies,
};
use signet_proto::admin::v1::BanRequest;
use signet_proto::identity::v1::IssueJwtRequest;
use tokio::net::TcpStream;

use crate::harness::{ID, Identity, Issuer, Place, eventually, issuer_only};
use crate::jwt_keys;
use crate::publishing::{Answer, exchange};

pub const CONFIGURATION: &str = "web: { listen: 127.0.0.1:0, spiffe_listen: 127.0.0.1:0 }
jwt:
  issuer: https://oidc.example.org
  access_tokens:
    - { profile: warehouse, audiences: [https://warehouse.example], scopes: [read, write], ttl: 2m }
    - { profile: cloud, audiences: [sts.example, sts2.example] }";

pub const RULES: &str = "rules:
  - name: cart-reads
    match: { svid.spiffe_id: spiffe://example.org/shop/cart }
    spiffe_id: spiffe://example.org/shop/cart
    profile: warehouse
    ttl: 60s
  - name: deployer
    match: { svid.spiffe_id: spiffe://example.org/ci/deploy }
    spiffe_id: spiffe://example.org/ci/deploy
    profile: cloud";

const EXCHANGE: &str = "urn:ietf:params:oauth:grant-type:token-exchange";
const ACCESS_TOKEN: &str = "urn:ietf:params:oauth:token-type:access_token";
const JWT: &str = "urn:ietf:params:oauth:token-type:jwt";

pub async fn post(issuer: &Issuer, holder: Option<&Identity>, body: &str) -> Answer {
    let mut policies = TlsPolicies::new(Arc::new(SystemClock));
    let key = policies.client(ClientPolicy {
        alpn: vec![b"http/1.1".to_vec()],
        servers: issuer_only(),
        credentials: ClientCredentials::Svid,
    });
    let config = match holder {
        None => issuer.stranger_config(),
        Some(holder) => {
            let bundles = BundleSet::from_iter([issuer.bundle.clone()]);
            let material = Material { svid: holder.svid.clone(), bundles, revocations: RevocationSet::default() };
            Arc::clone(Snapshot::build(material, &policies, None).unwrap().client(key))
        }
    };
    let mut config = config.as_ref().clone();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    let address = issuer.started.web.spiffe.unwrap();
    let tcp = TcpStream::connect(address).await.unwrap();
    let name = ServerName::IpAddress(address.ip().into());
    let tls = tokio_rustls::TlsConnector::from(Arc::new(config)).connect(name, tcp).await.unwrap();
    let head = format!(
        "POST /oauth2/token HTTP/1.1\r\ncontent-type: application/x-www-form-urlencoded\r\ncontent-length: {}\r\n",
        body.len()
    );
    crate::publishing::exchange_with_body(tls, &head, body).await
}

async fn keys(issuer: &Issuer) -> JwkSet {
    let tcp = TcpStream::connect(issuer.started.web.plain).await.unwrap();
    serde_json::from_value(exchange(tcp, "GET http://oidc.example.org/keys HTTP/1.1\r\n").await.json()).unwrap()
}

fn error(answer: &Answer) -> (u16, String) {
    (answer.status, answer.json()["error"].as_str().unwrap().to_owned())
}

#[tokio::test]
async fn a_token_is_bound_to_the_certificate_that_it_was_asked_for_by() {
    let place = Place::with(CONFIGURATION);
    let issuer = place.serve().await;
    issuer.apply(RULES).await;
    let cart = issuer.join(ID).await;
    let answer = post(&issuer, Some(&cart), "grant_type=client_credentials&scope=read").await;
    assert_eq!((answer.status, answer.header("cache-control")), (200, Some("no-store")), "{answer:?}");
    let told = answer.json();
    assert_eq!(
        (&told["token_type"], &told["expires_in"], &told["scope"]),
        (&json!("Bearer"), &json!(60), &json!("read"))
    );
    let token = told["access_token"].as_str().unwrap();
    let header = jsonwebtoken::decode_header(token).unwrap();
    assert_eq!(header.typ.as_deref(), Some("at+jwt"));
    let set = keys(&issuer).await;
    let key = DecodingKey::from_jwk(set.find(&header.kid.unwrap()).unwrap()).unwrap();
    let mut validation = Validation::new(Algorithm::ES256);
    validation.set_audience(&["https://warehouse.example"]);
    validation.set_issuer(&["https://oidc.example.org"]);
    let claims = decode::<Value>(token, &key, &validation).unwrap().claims;
    assert_eq!((&claims["sub"], &claims["client_id"], &claims["scope"]), (&json!(ID), &json!(ID), &json!("read")));
    let thumbprint = URL_SAFE_NO_PAD.encode(digest(&SHA256, &cart.svid.chain()[0]));
    assert_eq!(claims["cnf"]["x5t#S256"], thumbprint);
    assert_eq!(place.count("SELECT count(*) FROM issued_jwts WHERE kind = 'access_token'").await, 1);

    // Whatever the policy says of access tokens, a JWT-SVID gets nobody in where they are taken.
    let audience = vec!["db".to_owned(), "https://warehouse.example".to_owned()];
    let asked = IssueJwtRequest { audience, ttl: None };
    let refused = issuer.client_of(&cart).await.issue_jwt(asked).await.unwrap_err();
    assert_eq!(refused.code(), tonic::Code::PermissionDenied);
    assert!(refused.message().starts_with("audience[1]: it takes access tokens alone"), "{}", refused.message());
    // By a token of its own, made for this issuer.
    let own = async |audience: &str, holder: &Identity| {
        let request = IssueJwtRequest { audience: vec![audience.to_owned()], ttl: None };
        issuer.client_of(holder).await.issue_jwt(request).await.unwrap().into_inner().svid.unwrap().token
    };
    let shown = |token: &str| format!("grant_type={EXCHANGE}&subject_token_type={JWT}&subject_token={token}");
    let mine = own("https://oidc.example.org", &cart).await;
    let exchanged = post(&issuer, Some(&cart), &shown(&mine)).await;
    assert_eq!((exchanged.status, exchanged.header("cache-control")), (200, Some("no-store")), "{exchanged:?}");
    // RFC 8693 §2.2.1, and what is in the token is what is told of it.
    let told = exchanged.json();
    assert_eq!(
        (&told["issued_token_type"], &told["token_type"], &told["expires_in"], &told["scope"]),
        (&json!(ACCESS_TOKEN), &json!("Bearer"), &json!(60), &json!("read write"))
    );
    let given = told["access_token"].as_str().unwrap();
    assert_eq!(jsonwebtoken::decode_header(given).unwrap().typ.as_deref(), Some("at+jwt"));
    let claims = decode::<Value>(given, &key, &validation).unwrap().claims;
    assert_eq!((&claims["sub"], &claims["client_id"], &claims["scope"]), (&json!(ID), &json!(ID), &told["scope"]));
    assert_eq!(
        (&claims["aud"], &claims["iss"]),
        (&json!(["https://warehouse.example"]), &json!("https://oidc.example.org"))
    );
    assert_eq!(claims["cnf"], json!({"x5t#S256": thumbprint}));
    assert_eq!(claims["exp"].as_i64().unwrap() - claims["iat"].as_i64().unwrap(), 60);
    let other = issuer.join("spiffe://example.org/shop/other").await;
    for (what, wrong) in [
        ("another's", own("https://oidc.example.org", &other).await),
        ("for somebody else", own("db", &cart).await),
        ("an access token", token.to_owned()),
        ("altered", mine.replacen("eyJ", "eyK", 1)),
        ("no token", "junk".to_owned()),
    ] {
        let refused = post(&issuer, Some(&cart), &shown(&wrong)).await;
        assert_eq!(error(&refused), (400, "invalid_grant".to_owned()), "{what}");
    }
    issuer.stop().await;
}

#[tokio::test]
async fn nobody_gets_what_policy_does_not_give() {
    let place = Place::with(CONFIGURATION);
    let issuer = place.serve().await;
    issuer.apply(RULES).await;
    let (cart, deployer) = (issuer.join(ID).await, issuer.join("spiffe://example.org/ci/deploy").await);
    let other = issuer.join("spiffe://example.org/shop/other").await;
    let ask = "grant_type=client_credentials";
    for (holder, body, expected) in [
        (None, ask.to_owned(), (401, "invalid_client")),
        (Some(&other), ask.to_owned(), (400, "unauthorized_client")),
        (Some(&cart), format!("{ask}&audience=sts.example"), (400, "invalid_target")),
        (
            Some(&cart),
            format!("{ask}&audience=https://warehouse.example&audience=sts.example"),
            (400, "invalid_target"),
        ),
        (Some(&cart), format!("{ask}&scope=read+admin"), (400, "invalid_scope")),
        (Some(&deployer), ask.to_owned(), (400, "invalid_request")),
        (Some(&cart), "grant_type=password".to_owned(), (400, "unsupported_grant_type")),
        (Some(&cart), format!("{ask}&client_id=spiffe://example.org/ci/deploy"), (401, "invalid_client")),
        (Some(&cart), format!("{ask}&a={}", "a".repeat(17 << 10)), (400, "invalid_request")),
    ] {
        let answer = post(&issuer, holder, &body).await;
        assert_eq!(error(&answer), (expected.0, expected.1.to_owned()), "{body}: {answer:?}");
    }
    assert_eq!(post(&issuer, Some(&deployer), &format!("{ask}&audience=sts2.example")).await.status, 200);

    // No certificate of that name comes of the rule, and no token at the plain address.
    let certificate = crate::harness::new_key();
    let request = signet_proto::identity::v1::CertificateRequest {
        csr: crate::harness::csr(&certificate),
        profile: "warehouse".to_owned(),
        ..Default::default()
    };
    let request = signet_proto::identity::v1::IssueRequest { requests: vec![request] };
    let answer = issuer.client_of(&cart).await.issue(request).await.unwrap().into_inner();
    assert!(format!("{answer:?}").contains("there is no profile"), "{answer:?}");
    let plain = TcpStream::connect(issuer.started.web.plain).await.unwrap();
    let plain = exchange(plain, "POST /oauth2/token HTTP/1.1\r\ncontent-length: 0\r\n").await;
    assert_eq!(error(&plain), (401, "invalid_client".to_owned()));

    issuer.admin().await.ban(BanRequest { spiffe_id: ID.to_owned(), reason: String::new() }).await.unwrap();
    assert_eq!(error(&post(&issuer, Some(&cart), ask).await), (401, "invalid_client".to_owned()));
    issuer.stop().await;
}

/// Over HTTP/2, an answer ahead of the body would reset the stream: curl tells of that and of nothing else.
#[tokio::test]
async fn who_is_refused_is_told_so_once_its_request_has_come_whole() {
    let place = Place::with(CONFIGURATION);
    let issuer = place.serve().await;
    let tcp = TokioIo::new(TcpStream::connect(issuer.started.web.plain).await.unwrap());
    let (mut sender, connection) = hyper::client::conn::http2::handshake(TokioExecutor::new(), tcp).await.unwrap();
    tokio::spawn(connection);
    let (say, said) = tokio::sync::mpsc::channel::<Result<Frame<Bytes>, Infallible>>(1);
    let body = StreamBody::new(tokio_stream::wrappers::ReceiverStream::new(said));
    let request = Request::post("http://oidc.example.org/oauth2/token").body(body).unwrap();
    let answer = tokio::spawn(sender.send_request(request));
    for _ in 0..20 {
        say.send(Ok(Frame::data("scope=read&".into()))).await.expect("the server reads on");
        // Time for an answer that comes too early; none has to come.
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    drop(say);
    assert_eq!(answer.await.unwrap().unwrap().status(), 401);
    issuer.stop().await;
}

#[tokio::test]
async fn no_token_of_a_revoked_key_is_exchanged_nor_is_the_key_published() {
    let place = Place::with(CONFIGURATION);
    let issuer = place.serve().await;
    issuer.apply(RULES).await;
    let cart = issuer.join(ID).await;
    let own = async || {
        let request = IssueJwtRequest { audience: vec!["https://oidc.example.org".to_owned()], ttl: None };
        issuer.client_of(&cart).await.issue_jwt(request).await.unwrap().into_inner().svid.unwrap().token
    };
    let exchanged = async |token: &str| {
        let body = format!("grant_type={EXCHANGE}&subject_token_type={JWT}&subject_token={token}");
        post(&issuer, Some(&cart), &body).await
    };
    let sequence = async || {
        let tcp = TcpStream::connect(issuer.started.web.plain).await.unwrap();
        exchange(tcp, "GET /bundle.json HTTP/1.1\r\n").await.json()["spiffe_sequence"].as_u64().unwrap()
    };
    let (stolen, before) = (own().await, sequence().await);
    assert_eq!(exchanged(&stolen).await.status, 200);
    let kid = jsonwebtoken::decode_header(&stolen).unwrap().kid.unwrap();
    assert!(keys(&issuer).await.find(&kid).is_some());

    jwt_keys::revoke(&issuer, &kid, true).await.unwrap();
    // Once it is answered, nothing that the key has signed is good.
    assert_eq!(error(&exchanged(&stolen).await), (400, "invalid_grant".to_owned()));
    assert_eq!(exchanged(&own().await).await.status, 200);
    eventually("it is published no more", async || keys(&issuer).await.find(&kid).is_none()).await;
    eventually("the bundle says that it is another", async || sequence().await > before).await;
    issuer.stop().await;
}
