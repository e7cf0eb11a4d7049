//! Proofs that others make: tokens of Kubernetes and of OpenID Connect, certificates of registered CAs. What comes of them is the
//! policy's word.

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, KeyPair, PublicKeyData};
use serde_json::{Value, json};
use signet_proto::identity::v1::attest_request::Proof;
use signet_proto::identity::v1::watch_response::Event;
use signet_proto::identity::v1::{
    AttestRequest, ChallengeRequest, KubernetesToken, OidcToken, X509Possession, X509Svid,
};
use tonic::{Code, Status};
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

use crate::harness::{Identity, Issuer, Place, csr, eventually, hello, new_key, renew, request};

/// Somebody who makes tokens, with a key set in `keys.json`.
pub struct TokenMaker {
    key: KeyPair,
}

pub const TOKENS: &str = "attestation:
  k8s_sa_token:
    - { cluster: prod, issuer: https://k8s.example, audience: signet, jwks: { file: keys.json } }
    - { cluster: lab, issuer: https://k8s.example, audience: signet, jwks: { file: keys.json }, once: false }
  oidc:
    - { provider: ci, issuer: https://ci.example, jwks: { file: keys.json } }";

pub const PODS: &str = "rules:
  - name: pods
    match: { k8s.cluster: [prod, lab] }
    spiffe_id: spiffe://example.org/ns/{k8s.namespace}/sa/{k8s.service_account}
    dns_names: ['{k8s.service_account}.{k8s.namespace}.svc']
    ttl: 10m";

impl TokenMaker {
    pub fn at(place: &Place) -> Self {
        let maker = Self { key: new_key() };
        maker.publish(place);
        maker
    }

    fn publish(&self, place: &Place) {
        let (x, y) = self.key.der_bytes()[1..].split_at(32);
        let part = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        let keys = json!({"keys": [{"kty": "EC", "crv": "P-256", "kid": part(x), "x": part(x), "y": part(y)}]});
        std::fs::write(place.path("keys.json.new"), keys.to_string()).unwrap();
        std::fs::rename(place.path("keys.json.new"), place.path("keys.json")).unwrap();
    }

    fn sign(&self, claims: Value) -> String {
        let now = time::OffsetDateTime::now_utc().unix_timestamp();
        let mut all = json!({"iat": now, "exp": now + 600, "jti": format!("{:?}", new_key().der_bytes())});
        let Value::Object(claims) = claims else { unreachable!() };
        all.as_object_mut().unwrap().extend(claims);
        let mut header = Header::new(Algorithm::ES256);
        header.kid = Some(URL_SAFE_NO_PAD.encode(&self.key.der_bytes()[1..33]));
        encode(&header, &all, &EncodingKey::from_ec_der(&self.key.serialize_der())).unwrap()
    }

    pub fn pod(&self, namespace: &str, account: &str) -> String {
        self.sign(json!({
            "iss": "https://k8s.example", "aud": ["signet"], "sub": format!("system:serviceaccount:{namespace}:{account}"),
            "kubernetes.io": {
                "namespace": namespace, "serviceaccount": {"name": account, "uid": "1"},
                "pod": {"name": format!("{account}-0"), "uid": "2"},
            },
        }))
    }
}

pub fn of_cluster(cluster: &str, token: &str) -> Proof {
    Proof::K8sSaToken(KubernetesToken { cluster: cluster.to_owned(), token: token.to_owned() })
}

async fn attest(issuer: &Issuer, request: AttestRequest) -> Result<X509Svid, Status> {
    let answer = issuer.stranger().await.attest(request).await?;
    Ok(answer.into_inner().svid.unwrap())
}

pub async fn prove(issuer: &Issuer, proof: Proof) -> Result<Identity, Status> {
    let key = new_key();
    Ok(Identity::new(attest(issuer, request(proof, csr(&key))).await?, key))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_gets_what_the_policy_gives_its_service_account() {
    let place = Place::with(TOKENS);
    let maker = TokenMaker::at(&place);
    let issuer = place.serve().await;
    let token = maker.pod("shop", "cart");
    let refused = prove(&issuer, of_cluster("prod", &token)).await.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied);
    assert!(refused.message().contains("k8s.service_account=cart"), "{}", refused.message());
    let metric = "signet_issuer_attestations_refused_total{attestation=\"k8s_sa_token\",reason=\"not_entitled\"} 1";
    assert!(issuer.has_metric(metric).await);

    issuer.apply(PODS).await;
    // The refusal did not use it up.
    let pod = prove(&issuer, of_cluster("prod", &token)).await.unwrap();
    assert_eq!(pod.svid.id().as_str(), "spiffe://example.org/ns/shop/sa/cart");
    let (_, leaf) = X509Certificate::from_der(pod.svid.leaf()).unwrap();
    let names = leaf.subject_alternative_name().unwrap().unwrap();
    assert!(names.value.general_names.contains(&GeneralName::DNSName("cart.shop.svc")));
    assert_eq!(leaf.validity().not_after.timestamp() - leaf.validity().not_before.timestamp(), 600);
    issuer.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn fifty_presentations_of_one_pods_token_yield_one_svid() {
    let place = Place::with(TOKENS);
    let maker = TokenMaker::at(&place);
    let issuer = place.serve().await;
    issuer.apply(PODS).await;
    let token = maker.pod("shop", "cart");
    let mut presentations = tokio::task::JoinSet::new();
    for _ in 0..50 {
        let (mut client, proof) = (issuer.stranger().await, of_cluster("prod", &token));
        presentations.spawn(async move { client.attest(request(proof, csr(&new_key()))).await });
    }
    let outcomes = presentations.join_all().await;
    assert_eq!(outcomes.iter().filter(|outcome| outcome.is_ok()).count(), 1);
    assert!(
        outcomes.iter().filter_map(|outcome| outcome.as_ref().err()).all(|error| error.code() == Code::Unauthenticated)
    );
    assert_eq!(place.count("SELECT count(*) FROM issued WHERE attestation = 'k8s_sa_token'").await, 1);
    // Where the operator says so, a token is good until it expires.
    for _ in 0..2 {
        prove(&issuer, of_cluster("lab", &token)).await.unwrap();
    }
    issuer.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_is_not_for_us_is_refused_and_says_why() {
    let place = Place::with(TOKENS);
    let maker = TokenMaker::at(&place);
    let issuer = place.serve().await;
    issuer.apply(PODS).await;
    let claims = json!({"iss": "https://k8s.example", "aud": "somebody", "sub": "system:serviceaccount:a:b"});
    let stranger = TokenMaker { key: new_key() };
    for (proof, reason, said) in [
        (of_cluster("prod", &maker.sign(claims)), "audience", "k8s_sa_token: its audience is somebody, not signet"),
        (of_cluster("prod", &stranger.pod("a", "b")), "unknown_key", "k8s_sa_token: none of the issuer's keys is"),
        (of_cluster("other", &maker.pod("a", "b")), "unknown", "k8s_sa_token: there is no cluster `other`"),
        (of_cluster("", &maker.pod("a", "b")), "unknown", "k8s_sa_token: its cluster is not named"),
        (of_cluster("prod", "no token"), "malformed", "k8s_sa_token: it is not a JSON Web Token"),
        (Proof::X509Pop(X509Possession::default()), "not_configured", "x509_pop: nothing is configured"),
    ] {
        let refused = prove(&issuer, proof.clone()).await.unwrap_err();
        assert_eq!(refused.code(), Code::Unauthenticated, "{proof:?}");
        assert!(refused.message().starts_with(said), "{}", refused.message());
        let kind = if matches!(proof, Proof::X509Pop(_)) { "x509_pop" } else { "k8s_sa_token" };
        let metric = format!("signet_issuer_attestations_refused_total{{attestation=\"{kind}\",reason=\"{reason}\"}}");
        assert!(issuer.has_metric(&metric).await, "{metric}");
    }
    assert_eq!(place.count("SELECT count(*) FROM issued WHERE attestation <> 'issuer'").await, 0);
    assert_eq!(place.count("SELECT count(*) FROM used_proofs").await, 0);
    issuer.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn new_keys_of_a_token_maker_are_taken_up() {
    let place = Place::with(TOKENS);
    TokenMaker::at(&place);
    let issuer = place.serve().await;
    issuer.apply(PODS).await;
    let next = TokenMaker::at(&place);
    eventually("the next key is known", async || {
        prove(&issuer, of_cluster("prod", &next.pod("shop", "cart"))).await.is_ok()
    })
    .await;
    issuer.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_renewal_asks_the_policy_again() {
    let place = Place::with(TOKENS);
    let maker = TokenMaker::at(&place);
    let issuer = place.serve().await;
    issuer.apply(PODS).await;
    let pod = prove(&issuer, of_cluster("prod", &maker.pod("shop", "cart"))).await.unwrap();
    let mut client = issuer.client_of(&pod).await;
    let renewed = renew(&mut client, csr(&new_key())).await.unwrap().into_inner().svid.unwrap();
    assert_eq!(renewed.spiffe_id, pod.svid.id().as_str());
    assert_eq!(renewed.not_after.unwrap().seconds - renewed.not_before.unwrap().seconds, 600);

    issuer.apply(&PODS.replace("ttl: 10m", "ttl: 5m")).await;
    let renewed = renew(&mut client, csr(&new_key())).await.unwrap().into_inner().svid.unwrap();
    assert_eq!(renewed.not_after.unwrap().seconds - renewed.not_before.unwrap().seconds, 300);

    issuer.apply(&PODS.replace("[prod, lab]", "[lab]")).await;
    let refused = renew(&mut client, csr(&new_key())).await.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied);
    assert!(refused.message().contains("no rule for k8s.cluster=prod"), "{}", refused.message());
    issuer.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_waits_for_a_rule_has_an_identity_as_soon_as_it_is_there() {
    let place = Place::with(TOKENS);
    let maker = TokenMaker::at(&place);
    let issuer = place.serve().await;
    let wait = |seconds| Some(prost_types::Duration { seconds, nanos: 0 });
    let ask = |wait| {
        let proof = of_cluster("prod", &maker.pod("shop", "cart"));
        AttestRequest { wait, ..request(proof, csr(&new_key())) }
    };
    let refused = attest(&issuer, ask(wait(1))).await.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied);
    let (mut client, waiting) = (issuer.stranger().await, ask(wait(60)));
    let waiting = tokio::spawn(async move { client.attest(waiting).await });
    // A rule for somebody else ends nothing.
    issuer.apply(&PODS.replace("[prod, lab]", "[lab]")).await;
    let began = std::time::Instant::now();
    issuer.apply(PODS).await;
    let svid = waiting.await.unwrap().unwrap().into_inner().svid.unwrap();
    assert_eq!(svid.spiffe_id, "spiffe://example.org/ns/shop/sa/cart");
    assert!(began.elapsed().as_secs() < 5, "{:?}", began.elapsed());
    issuer.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_watches_is_told_that_its_rule_has_changed() {
    let place = Place::with(TOKENS);
    let maker = TokenMaker::at(&place);
    let issuer = place.serve().await;
    issuer.apply(PODS).await;
    let pod = prove(&issuer, of_cluster("prod", &maker.pod("shop", "cart"))).await.unwrap();
    let mut stream = issuer.client_of(&pod).await.watch(hello()).await.unwrap().into_inner();
    let mut next = async || loop {
        if let Some(Event::Entitlement(entitlement)) = stream.message().await.unwrap().unwrap().event {
            return entitlement;
        }
    };
    let first = next().await;
    assert!(first.given);
    // Nothing that is about it.
    issuer
        .apply(&format!(
            "{PODS}\n  - {{ name: ci, match: {{ oidc.subject: x }}, spiffe_id: 'spiffe://example.org/ci/x' }}"
        ))
        .await;
    issuer.apply(&PODS.replace("ttl: 10m", "ttl: 5m")).await;
    let shorter = next().await;
    assert!(shorter.given && shorter.version != first.version);
    issuer.apply("rules: []").await;
    assert!(!next().await.given);
    issuer.apply(PODS).await;
    assert_eq!(next().await, first);
    issuer.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whom_a_source_vouched_for_that_is_believed_no_more_renews_nothing() {
    let mut place = Place::with(TOKENS);
    let maker = TokenMaker::at(&place);
    let issuer = place.serve().await;
    issuer.apply(PODS).await;
    let prod = prove(&issuer, of_cluster("prod", &maker.pod("shop", "cart"))).await.unwrap();
    let lab = prove(&issuer, of_cluster("lab", &maker.pod("shop", "cart"))).await.unwrap();
    issuer.stop().await;
    place.settings = TOKENS.replace("cluster: prod", "cluster: prod-2");
    let issuer = place.serve().await;
    let refused = renew(&mut issuer.client_of(&prod).await, csr(&new_key())).await.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied);
    assert!(refused.message().starts_with("`prod`, which vouched for it"), "{}", refused.message());
    let refused = issuer.client_of(&prod).await.watch(hello()).await.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied);
    renew(&mut issuer.client_of(&lab).await, csr(&new_key())).await.unwrap();
    issuer.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_may_be_several_says_which() {
    let place = Place::with(TOKENS);
    let maker = TokenMaker::at(&place);
    let issuer = place.serve().await;
    issuer
        .apply(
            "rules:
  - { name: deploy, match: { oidc.claim.repository: acme/shop }, spiffe_id: 'spiffe://example.org/ci/deploy' }
  - { name: test, match: { oidc.claim.repository: acme/shop }, spiffe_id: 'spiffe://example.org/ci/test' }",
        )
        .await;
    // Without `audience`, the issuer's own name.
    let claims = json!({
        "iss": "https://ci.example", "aud": "spiffe://example.org/signet/issuer", "sub": "job", "repository": "acme/shop",
    });
    let token = maker.sign(claims);
    let proof = || Proof::Oidc(OidcToken { provider: String::new(), token: token.clone() });
    let ask = async |id: &str| {
        let request = AttestRequest { spiffe_id: id.to_owned(), ..request(proof(), csr(&new_key())) };
        attest(&issuer, request).await
    };
    let several = ask("").await.unwrap_err();
    assert_eq!(several.code(), Code::InvalidArgument);
    assert!(several.message().contains("ci/deploy") && several.message().contains("ci/test"), "{}", several.message());
    assert_eq!(ask("spiffe://example.org/ci/admin").await.unwrap_err().code(), Code::PermissionDenied);
    assert_eq!(ask("ci/test").await.unwrap_err().code(), Code::InvalidArgument);
    assert_eq!(ask("spiffe://example.org/ci/test").await.unwrap().spiffe_id, "spiffe://example.org/ci/test");
    // Used up by now.
    assert_eq!(ask("spiffe://example.org/ci/test").await.unwrap_err().code(), Code::Unauthenticated);
    issuer.stop().await;
}

/// A data centre's CA, registered as `dc-1`, and a machine with a certificate of it.
pub struct Machine {
    certificate: Vec<u8>,
    key: KeyPair,
}

impl Machine {
    pub fn at(place: &Place) -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "DC 1");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let ca_key = new_key();
        std::fs::write(place.path("dc-1.pem"), params.self_signed(&ca_key).unwrap().pem()).unwrap();
        let key = new_key();
        let mut leaf = CertificateParams::default();
        leaf.distinguished_name.push(DnType::CommonName, "web-1");
        let certificate = leaf.signed_by(&key, &rcgen::Issuer::new(params, ca_key)).unwrap();
        Self { certificate: certificate.der().to_vec(), key }
    }

    pub async fn prove(&self, issuer: &Issuer, csr: &[u8]) -> X509Possession {
        let answer = issuer.stranger().await.challenge(ChallengeRequest {}).await.unwrap().into_inner();
        let context = [&[0x20; 64][..], b"signet x509_pop v1\0"].concat();
        let hash = |bytes: &[u8]| digest(&SHA256, bytes).as_ref().to_vec();
        let signed = [context, hash(&answer.challenge), hash(csr)].concat();
        let key = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &self.key.serialize_der()).unwrap();
        let signature = key.sign(&SystemRandom::new(), &signed).unwrap().as_ref().to_vec();
        X509Possession { chain: vec![self.certificate.clone()], challenge: answer.challenge, scheme: 0x0403, signature }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_proves_itself_by_its_certificate_once_for_each_challenge() {
    let place = Place::with("attestation: { x509_pop: [{ authority: dc-1, ca: dc-1.pem }] }");
    let machine = Machine::at(&place);
    let issuer = place.serve().await;
    issuer
        .apply(
            "rules: [{ name: machines, match: { x509.authority: dc-1 }, \
             spiffe_id: 'spiffe://example.org/machine/{x509.common_name}' }]",
        )
        .await;
    let key = new_key();
    let csr_of_machine = csr(&key);
    let proof = machine.prove(&issuer, &csr_of_machine).await;
    let ask = async |csr: &[u8]| attest(&issuer, request(Proof::X509Pop(proof.clone()), csr.to_vec())).await;
    // Whoever reads the proof on its way can do nothing with it.
    assert_eq!(ask(&csr(&new_key())).await.unwrap_err().code(), Code::Unauthenticated);
    let svid = ask(&csr_of_machine).await.unwrap();
    assert_eq!(svid.spiffe_id, "spiffe://example.org/machine/web-1");
    let again = ask(&csr_of_machine).await.unwrap_err();
    assert_eq!(again.code(), Code::Unauthenticated, "{}", again.message());
    // Another challenge, another certificate.
    let csr_of_machine = csr(&new_key());
    let proof = machine.prove(&issuer, &csr_of_machine).await;
    attest(&issuer, request(Proof::X509Pop(proof), csr_of_machine)).await.unwrap();
    issuer.stop().await;
}
