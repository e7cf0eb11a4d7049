//! Two trust domains that federate, and what is not taken of another one.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rcgen::{CertificateParams, KeyPair};
use rustls_pki_types::PrivatePkcs8KeyDer;
use serde_json::{Value, json};
use signet_proto::admin::v1::add_federation_request::Profile;
use signet_proto::admin::v1::{
    AddFederationRequest, Federation, ListFederationsRequest, RefreshFederationRequest, RemoveFederationRequest,
    SpiffeProfile, WebProfile,
};
use signet_proto::identity::v1::watch_response::Event;
use signet_proto::identity::v1::{TrustBundles, WatchResponse};
use signet_test_pki::Authority;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tonic::{Code, Status, Streaming};

use crate::harness::{Identity, Issuer, Place, eventually, hello, write};
use crate::proving::{TOKENS, TokenMaker, of_cluster, prove};

const PARTNER: &str = "partner.example";

fn request(url: String, profile: Profile) -> AddFederationRequest {
    AddFederationRequest { trust_domain: PARTNER.to_owned(), url, profile: Some(profile) }
}

/// The endpoint of an issuer of Signet, by its SVID.
fn by_spiffe(partner: &Issuer, root: &str) -> AddFederationRequest {
    let url = format!("https://{}/", partner.started.web.spiffe.unwrap());
    let spiffe_id = format!("spiffe://{PARTNER}/signet/issuer");
    request(url, Profile::HttpsSpiffe(SpiffeProfile { spiffe_id, bundle_pem: root.to_owned() }))
}

async fn add(issuer: &Issuer, request: AddFederationRequest) -> Result<Federation, Status> {
    issuer.admin().await.add_federation(request).await.map(tonic::Response::into_inner)
}

async fn refresh(issuer: &Issuer) -> Result<Federation, Status> {
    refresh_by(issuer, RefreshFederationRequest { trust_domain: PARTNER.to_owned(), accept: false }).await
}

async fn refresh_by(issuer: &Issuer, request: RefreshFederationRequest) -> Result<Federation, Status> {
    issuer.admin().await.refresh_federation(request).await.map(tonic::Response::into_inner)
}

async fn remove(issuer: &Issuer) -> Result<(), Status> {
    let request = RemoveFederationRequest { trust_domain: PARTNER.to_owned() };
    issuer.admin().await.remove_federation(request).await.map(drop)
}

async fn list(issuer: &Issuer) -> Vec<Federation> {
    issuer.admin().await.list_federations(ListFederationsRequest {}).await.unwrap().into_inner().federations
}

fn root_of(place: &Place) -> String {
    std::fs::read_to_string(place.path("root/root.pem")).unwrap()
}

/// Two identities by policy, of which one federates.
const RULES: &str = "rules:
  - { name: a, match: { k8s.cluster: prod, k8s.service_account: one }, spiffe_id: spiffe://example.org/one, federates_with: [partner.example] }
  - { name: b, match: { k8s.cluster: prod, k8s.service_account: two }, spiffe_id: spiffe://example.org/two }
";

async fn next(stream: &mut Streaming<WatchResponse>) -> TrustBundles {
    let next = async {
        loop {
            if let Some(Event::Bundles(bundles)) = stream.message().await.unwrap().unwrap().event {
                return bundles;
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(15), next).await.expect("bundles in time")
}

async fn watch(issuer: &Issuer, holder: &Identity) -> (Streaming<WatchResponse>, TrustBundles) {
    let mut stream = issuer.client_of(holder).await.watch(hello()).await.unwrap().into_inner();
    let told = next(&mut stream).await;
    (stream, told)
}

/// Trust domains, with how many authorities each has, and whether it has keys of JWT-SVIDs.
fn summary(told: &TrustBundles) -> Vec<(&str, usize, bool)> {
    let of = |bundle: &'_ signet_proto::identity::v1::TrustBundle| {
        (bundle.x509_authorities.len(), !bundle.jwt_authorities.is_empty())
    };
    told.bundles.iter().map(|bundle| (bundle.trust_domain.as_str(), of(bundle).0, of(bundle).1)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_partners_bundle_is_told_to_those_whom_policy_lets_federate_and_outlives_the_partner() {
    let partner_place = Place::of(PARTNER, "web: { listen: 127.0.0.1:0, spiffe_listen: 127.0.0.1:0 }\njwt: {}");
    let partner = partner_place.serve().await;
    let place = Place::with(TOKENS);
    let maker = TokenMaker::at(&place);
    let issuer = place.serve().await;
    eventually("the partner's bundle", async || {
        add(&issuer, by_spiffe(&partner, &root_of(&partner_place))).await.is_ok()
    })
    .await;
    issuer.apply(RULES).await;
    let attest = async |account| prove(&issuer, of_cluster("prod", &maker.pod("shop", account))).await.unwrap();
    let (one, two) = (attest("one").await, attest("two").await);
    let (mut stream, told) = watch(&issuer, &one).await;
    assert_eq!(summary(&told), [("example.org", 1, false), (PARTNER, 1, true)]);
    assert_eq!(summary(&watch(&issuer, &two).await.1), [("example.org", 1, false)]);

    // The partner has another root beside the first.
    partner_place.make_root("next", PARTNER);
    let next_root = std::fs::read_to_string(partner_place.path("next/root.pem")).unwrap();
    write(&partner_place.path("root/root.pem"), &(root_of(&partner_place) + &next_root));
    eventually("both roots", async || refresh(&issuer).await.unwrap().x509_authorities == 2).await;
    assert_eq!(summary(&next(&mut stream).await), [("example.org", 1, false), (PARTNER, 2, true)]);

    // The partner is gone: what it said last stays, with its age, and after a restart too.
    partner.stop().await;
    assert_eq!(refresh(&issuer).await.unwrap_err().code(), Code::FailedPrecondition);
    let [known] = &list(&issuer).await[..] else { panic!("one") };
    assert_eq!((known.x509_authorities, known.jwt_authorities, known.configured), (2, 1, false));
    let at = known.refreshed_at.unwrap().seconds;
    let metric = format!("signet_bundle_refreshed_timestamp_seconds{{trust_domain=\"{PARTNER}\"}} {at}");
    assert!(issuer.has_metric(&metric).await);
    assert!(issuer.has_metric(&format!("signet_issuer_federation_refused{{trust_domain=\"{PARTNER}\"}} 1")).await);
    issuer.stop().await;
    let issuer = place.serve().await;
    assert!(issuer.has_metric(&metric).await);
    let (mut stream, told) = watch(&issuer, &one).await;
    assert_eq!(summary(&told), [("example.org", 1, false), (PARTNER, 2, true)]);

    remove(&issuer).await.unwrap();
    // Its keys of tokens and its roots may go one after the other.
    while summary(&next(&mut stream).await) != [("example.org", 1, false)] {}
    assert!(
        !issuer.has_metric(&format!("signet_bundle_refreshed_timestamp_seconds{{trust_domain=\"{PARTNER}\"}}")).await
    );
    assert_eq!(remove(&issuer).await.unwrap_err().code(), Code::NotFound);
    issuer.stop().await;
    let issuer = place.serve().await;
    assert!(list(&issuer).await.is_empty());
    issuer.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_endpoint_that_does_not_prove_itself_is_not_believed() {
    let partner_place = Place::of(PARTNER, "web: { listen: 127.0.0.1:0, spiffe_listen: 127.0.0.1:0 }");
    let partner = partner_place.serve().await;
    let issuer_place = Place::new();
    let issuer = issuer_place.serve().await;
    // Under another root of the same trust domain, which is what somebody in between has.
    let impostor = Place::of(PARTNER, "");
    let refused = add(&issuer, by_spiffe(&partner, &root_of(&impostor))).await.unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition, "{refused}");
    let mut other_id = by_spiffe(&partner, &root_of(&partner_place));
    if let Some(Profile::HttpsSpiffe(profile)) = &mut other_id.profile {
        profile.spiffe_id = format!("spiffe://{PARTNER}/somebody");
    }
    assert_eq!(add(&issuer, other_id).await.unwrap_err().code(), Code::FailedPrecondition);
    let url = format!("https://{}/", partner.started.web.spiffe.unwrap());
    let by_web = request(url.clone(), Profile::HttpsWeb(WebProfile { ca_pem: root_of(&partner_place) }));
    assert_eq!(add(&issuer, by_web).await.unwrap_err().code(), Code::FailedPrecondition);
    for (request, expected) in [
        (request("http://a/".to_owned(), Profile::HttpsWeb(WebProfile::default())), "url: `http://a/`"),
        (request("https://me@a/".to_owned(), Profile::HttpsWeb(WebProfile::default())), "url: `https://me@a/`"),
        (
            request(url.clone(), Profile::HttpsWeb(WebProfile { ca_pem: "junk".to_owned() })),
            "ca: it holds no certificate",
        ),
        (by_spiffe(&partner, ""), "bootstrap: spiffe://partner.example/signet/issuer is of the trust domain itself"),
        (by_spiffe(&partner, "junk"), "bootstrap: "),
        (
            AddFederationRequest { profile: None, ..request(url.clone(), Profile::HttpsWeb(WebProfile::default())) },
            "profile: missing",
        ),
        (
            AddFederationRequest {
                trust_domain: "example.org".to_owned(),
                ..by_spiffe(&partner, &root_of(&partner_place))
            },
            "trust_domain: example.org is this issuer's own",
        ),
        (
            AddFederationRequest { trust_domain: "A".to_owned(), ..by_spiffe(&partner, &root_of(&partner_place)) },
            "trust_domain: ",
        ),
    ] {
        let refused = add(&issuer, request).await.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument, "{refused}");
        assert!(refused.message().starts_with(expected), "{refused}");
    }
    assert!(list(&issuer).await.is_empty());
    partner.stop().await;
    issuer.stop().await;
}

/// A server of the web whose document a test writes.
struct Endpoint {
    url: String,
    ca: String,
    answer: Arc<Mutex<(u16, String)>>,
    fetched: Arc<AtomicUsize>,
}

impl Endpoint {
    async fn start() -> Self {
        let key = KeyPair::generate().unwrap();
        let certificate = CertificateParams::new(["127.0.0.1".to_owned()]).unwrap().self_signed(&key).unwrap();
        let secret = PrivatePkcs8KeyDer::from(key.serialize_der()).into();
        let config = rustls::ServerConfig::builder_with_provider(Arc::clone(signet_identity::provider()))
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], secret)
            .unwrap();
        let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("https://{}/bundle.json", listener.local_addr().unwrap());
        let answer = Arc::new(Mutex::new((200, String::new())));
        let fetched = Arc::new(AtomicUsize::new(0));
        let (served, count) = (Arc::clone(&answer), Arc::clone(&fetched));
        tokio::spawn(async move {
            loop {
                let (tcp, _) = listener.accept().await.unwrap();
                let Ok(mut tls) = acceptor.accept(tcp).await else { continue };
                let (status, body) = served.lock().unwrap().clone();
                count.fetch_add(1, Ordering::Relaxed);
                // Its request is one packet.
                let _ = tls.read(&mut [0; 4096]).await;
                let head = format!(
                    "HTTP/1.1 {status} A\r\nlocation: https://127.0.0.1:1/\r\ncontent-length: {}\r\n\r\n",
                    body.len()
                );
                let _ = tls.write_all((head + &body).as_bytes()).await;
                let _ = tls.shutdown().await;
            }
        });
        Self { url, ca: certificate.pem(), answer, fetched }
    }

    fn say(&self, sequence: u64, keys: &[Value]) {
        self.say_hinting(60, sequence, keys);
    }

    fn say_hinting(&self, hint: u64, sequence: u64, keys: &[Value]) {
        let document = json!({"spiffe_sequence": sequence, "spiffe_refresh_hint": hint, "keys": keys});
        *self.answer.lock().unwrap() = (200, document.to_string());
    }

    /// Where an issuer's configuration names it.
    fn place(&self) -> Place {
        let mut place = Place::new();
        write(&place.path("web-ca.pem"), &self.ca);
        let at = format!("url: \"{}\", profile: https_web, ca: web-ca.pem", self.url);
        place.settings = format!("federation: [{{ trust_domain: {PARTNER}, endpoint: {{ {at} }} }}]");
        place
    }
}

fn key(authority: &Authority) -> Value {
    json!({"use": "x509-svid", "kty": "EC", "x5c": [STANDARD.encode(authority.certificate())]})
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_bundle_never_replaces_a_good_one() {
    let endpoint = Endpoint::start().await;
    let (one, two, other) = (Authority::root(PARTNER), Authority::root(PARTNER), Authority::root(PARTNER));
    let foreign = Authority::root("evil.example");
    let place = endpoint.place();
    endpoint.say(7, &[key(&one), key(&two)]);
    let issuer = place.serve().await;
    eventually("the first bundle", async || list(&issuer).await[0].x509_authorities == 2).await;
    let known = list(&issuer).await;
    let answer = |status: u16, body: &str| *endpoint.answer.lock().unwrap() = (status, body.to_owned());
    let twice = json!({"use": "x509-svid", "x5c": vec![STANDARD.encode(one.certificate()); 2]});
    type Say<'a> = &'a dyn Fn();
    let cases: [(Say<'_>, &str); 9] = [
        (&|| endpoint.say(8, &[]), "it has no X.509 authority"),
        (&|| endpoint.say(8, std::slice::from_ref(&twice)), "X.509 authority 1 has 2 certificates"),
        (&|| endpoint.say(6, &[key(&one)]), "its sequence 6 is before 7"),
        (&|| endpoint.say(8, &[key(&foreign)]), "it is no bundle of partner.example"),
        (&|| endpoint.say(8, &[key(&other)]), "none of the 2 X.509 authorities that are trusted now is in it"),
        (&|| answer(200, &" ".repeat(300 << 10)), "length limit exceeded"),
        (&|| answer(200, "<html>"), "it is no SPIFFE bundle"),
        (&|| answer(302, ""), "the answer is 302"),
        (&|| answer(500, ""), "the answer is 500"),
    ];
    for (say, expected) in cases {
        say();
        let refused = refresh(&issuer).await.unwrap_err();
        assert!(refused.code() == Code::FailedPrecondition && refused.message().contains(expected), "{refused}");
        let [now] = &list(&issuer).await[..] else { panic!("one") };
        assert_eq!((now.sequence, now.x509_authorities, now.refreshed_at), (7, 2, known[0].refreshed_at));
        assert!(now.refused.contains(expected), "{}", now.refused);
    }
    // Fewer is what a partner does that takes a root out.
    endpoint.say(8, &[key(&two)]);
    let now = refresh(&issuer).await.unwrap();
    assert_eq!((now.sequence, now.x509_authorities, now.refused.as_str()), (8, 1, ""));
    assert!(issuer.has_metric(&format!("signet_issuer_federation_refused{{trust_domain=\"{PARTNER}\"}} 0")).await);

    // Another one alone is none that it went over to; a restart forgets nothing of that.
    endpoint.say(9, &[key(&other)]);
    refresh(&issuer).await.unwrap_err();
    issuer.stop().await;
    let issuer = place.serve().await;
    let is_refused = async || list(&issuer).await[0].refused.contains("none of the 1 X.509 authorities");
    eventually("it is refused again", is_refused).await;
    assert!(issuer.has_metric(&format!("signet_issuer_federation_refused{{trust_domain=\"{PARTNER}\"}} 1")).await);
    assert_eq!(list(&issuer).await[0].sequence, 8);
    // Somebody has asked the partner.
    let accepted = RefreshFederationRequest { trust_domain: PARTNER.to_owned(), accept: true };
    let now = refresh_by(&issuer, accepted.clone()).await.unwrap();
    assert_eq!((now.sequence, now.x509_authorities, now.refused.as_str()), (9, 1, ""));
    // That is no word for what is none at all, nor for the next time.
    endpoint.say(10, &[]);
    refresh_by(&issuer, accepted).await.unwrap_err();
    endpoint.say(10, &[key(&one), key(&two)]);
    refresh(&issuer).await.unwrap_err();
    assert_eq!(list(&issuer).await[0].sequence, 9);
    let refused = remove(&issuer).await.unwrap_err();
    assert_eq!(refused.message(), "the configuration of this issuer names it: take it out there");
    let again = request(endpoint.url.clone(), Profile::HttpsWeb(WebProfile { ca_pem: endpoint.ca.clone() }));
    assert_eq!(add(&issuer, again).await.unwrap_err().code(), Code::AlreadyExists);
    issuer.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_partner_that_takes_most_of_its_authorities_away_at_once_keeps_all_until_somebody_accepts_it() {
    let endpoint = Endpoint::start().await;
    let roots = [Authority::root(PARTNER), Authority::root(PARTNER), Authority::root(PARTNER)];
    let keys: Vec<_> = roots.iter().map(key).collect();
    let place = endpoint.place();
    endpoint.say(7, &keys);
    let issuer = place.serve().await;
    eventually("the first bundle", async || list(&issuer).await[0].x509_authorities == 3).await;
    endpoint.say(8, &keys[..1]);
    let refused = refresh(&issuer).await.unwrap_err();
    let expected = "2 of the 3 X.509 authorities that are trusted now are not in it: where partner.example says so \
                    itself, `signet federate refresh partner.example --accept`";
    assert!(refused.code() == Code::FailedPrecondition && refused.message().contains(expected), "{refused}");
    let now = &list(&issuer).await[0];
    assert_eq!((now.sequence, now.x509_authorities), (7, 3));
    assert!(now.refused.contains(expected), "{}", now.refused);
    // One after the other is a rotation.
    endpoint.say(8, &keys[..2]);
    assert_eq!(refresh(&issuer).await.unwrap().x509_authorities, 2);
    endpoint.say(9, &keys);
    assert_eq!(refresh(&issuer).await.unwrap().x509_authorities, 3);
    endpoint.say(10, &keys[..1]);
    let accepted = RefreshFederationRequest { trust_domain: PARTNER.to_owned(), accept: true };
    let now = refresh_by(&issuer, accepted).await.unwrap();
    assert_eq!((now.sequence, now.x509_authorities, now.refused.as_str()), (10, 1, ""));
    issuer.stop().await;
}

/// All that waits for a time finds that so much of it has gone by.
async fn later(by: Duration) {
    tokio::time::pause();
    tokio::time::advance(by).await;
    tokio::time::resume();
}

#[tokio::test]
async fn a_partners_bundle_is_fetched_again_by_its_hint_and_a_minute_after_it_was_not_to_be_had() {
    const HINT: u64 = 3600;
    let endpoint = Endpoint::start().await;
    let roots = [Authority::root(PARTNER), Authority::root(PARTNER), Authority::root(PARTNER)];
    let keys: Vec<_> = roots.iter().map(key).collect();
    let fetched = || endpoint.fetched.load(Ordering::Relaxed);
    endpoint.say_hinting(HINT, 1, &keys[..1]);
    let place = endpoint.place();
    let issuer = place.serve().await;
    eventually("the first bundle", async || list(&issuer).await[0].x509_authorities == 1).await;

    // Not before a quarter of the hint: what came then would be the bundle for as long again.
    later(Duration::from_secs(HINT / 4 - 100)).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    endpoint.say_hinting(HINT, 2, &keys[..2]);
    later(Duration::from_secs(100)).await;
    eventually("the second root", async || list(&issuer).await[0].x509_authorities == 2).await;
    assert_eq!(fetched(), 2);

    *endpoint.answer.lock().unwrap() = (500, String::new());
    later(Duration::from_secs(HINT / 4)).await;
    eventually("the refusal", async || !list(&issuer).await[0].refused.is_empty()).await;
    assert_eq!(list(&issuer).await[0].x509_authorities, 2);
    endpoint.say_hinting(HINT, 3, &keys);
    later(Duration::from_secs(60)).await;
    eventually("the third root", async || list(&issuer).await[0].x509_authorities == 3).await;
    assert_eq!((fetched(), list(&issuer).await[0].refused.as_str()), (4, ""));
    issuer.stop().await;
}
