use std::time::Duration;

use prost::Message as _;
use signet_proto::admin::v1::{ListAgentsRequest, RequestRenewalRequest};
use signet_proto::identity::v1::identity_service_client::IdentityServiceClient;
use signet_proto::identity::v1::watch_response::Event;
use signet_proto::identity::v1::{
    Applied, AttestRequest, CertificateRequest, Entitlement, IssueRequest, Resource, WatchRequest, WatchResponse,
    issue_result,
};
use tonic::{Code, Streaming};

use crate::harness::{ID, Identity, Issuer, Place, csr, eventually, hello, new_key, renew};
use crate::proving::{PODS, TOKENS, TokenMaker, of_cluster, prove};
use crate::raw;

async fn watch(issuer: &Issuer, identity: &Identity) -> Streaming<WatchResponse> {
    issuer.client_of(identity).await.watch(hello()).await.unwrap().into_inner()
}

async fn next(stream: &mut Streaming<WatchResponse>) -> Event {
    let message = tokio::time::timeout(Duration::from_secs(10), stream.message()).await;
    message.expect("an event in time").unwrap().unwrap().event.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watcher_gets_the_bundles_at_once_and_is_asked_to_renew() {
    let place = Place::new();
    let issuer = place.serve().await;
    let (cart, till) = (issuer.join(ID).await, issuer.join("spiffe://example.org/shop/till").await);
    let (mut cart, mut till) = (watch(&issuer, &cart).await, watch(&issuer, &till).await);
    for stream in [&mut cart, &mut till] {
        let Event::Bundles(bundles) = next(stream).await else { panic!("bundles first") };
        assert_eq!(bundles.bundles[0].x509_authorities, [issuer.bundle.authorities()[0].to_vec()]);
        assert!(matches!(next(stream).await, Event::Entitlement(Entitlement { given: true, .. })));
    }
    assert!(issuer.has_metric("signet_issuer_connected_clients 2").await);
    let mut admin = issuer.admin().await;
    let mut ask = async |id: &str, seconds| {
        let within = Some(prost_types::Duration { seconds, nanos: 0 });
        let request = RequestRenewalRequest { spiffe_id: id.to_owned(), within };
        admin.request_renewal(request).await.unwrap().into_inner().clients
    };
    assert_eq!(ask(ID, 7).await, 1);
    assert_eq!(ask("", 9).await, 2);
    let Event::RenewNow(renew_now) = next(&mut till).await else { panic!("renew now") };
    assert_eq!(renew_now.within.unwrap().seconds, 9, "not what was meant for another");
    drop((cart, till));
    issuer.until_metric("signet_issuer_connected_clients 0").await;
    issuer.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_watches_without_a_certificate_and_places_are_bounded() {
    let place = Place::with("limits: { watchers: 1 }");
    let issuer = place.serve().await;
    let refused = issuer.stranger().await.watch(hello()).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unauthenticated);
    let joined = issuer.join(ID).await;
    let _first = watch(&issuer, &joined).await;
    let refused = issuer.client_of(&joined).await.watch(hello()).await.unwrap_err();
    assert_eq!(refused.code(), Code::ResourceExhausted);
    assert_eq!(refused.metadata().get("grpc-retry-pushback-ms").unwrap(), "1000");
    issuer.until_metric("signet_issuer_shed_total{limit=\"watchers\"} 1").await;
    issuer.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_and_its_stream_end_when_their_certificate_expires() {
    let place = Place::with("svid: { ttl: 5s }");
    let issuer = place.serve().await;
    let joined = issuer.join(ID).await;
    let mut client = issuer.client_of(&joined).await;
    let mut stream = client.watch(hello()).await.unwrap().into_inner();
    next(&mut stream).await;
    next(&mut stream).await;
    let ended = tokio::time::timeout(Duration::from_secs(10), stream.message()).await;
    assert_eq!(ended.expect("an end in time").unwrap_err().code(), Code::Unavailable);
    let late = time::OffsetDateTime::now_utc() - joined.svid.not_after();
    assert!(late >= time::Duration::ZERO && late < time::Duration::seconds(1), "{late}");
    renew(&mut client, csr(&new_key())).await.unwrap_err();
    issuer.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_issuers_own_svid_is_renewed_by_itself_and_on_record() {
    let place = Place::with("svid: { ttl: 5s }");
    let issuer = place.serve().await;
    let own =
        "SELECT count(*) FROM issued WHERE attestation = 'issuer' AND spiffe_id = 'spiffe://example.org/signet/issuer'";
    eventually("a renewed SVID of the issuer", async || place.count(own).await >= 3).await;
    issuer.until_metric("signet_svid_rotations_total{result=\"rotated\"} 3").await;
    issuer.join(ID).await;
    issuer.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn open_streams_do_not_hold_up_a_shutdown() {
    let place = Place::with("shutdown: { drain: 10s }");
    let issuer = place.serve().await;
    let joined = issuer.join(ID).await;
    let mut stream = watch(&issuer, &joined).await;
    next(&mut stream).await;
    next(&mut stream).await;
    let began = std::time::Instant::now();
    issuer.stop().await;
    assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
    assert_eq!(stream.message().await.unwrap_err().code(), Code::Unavailable);
}

/// A client that says what the test lets it say.
struct Talking {
    say: tokio::sync::mpsc::Sender<WatchRequest>,
    stream: Streaming<WatchResponse>,
}

impl Talking {
    async fn new(issuer: &Issuer, identity: &Identity, has: Vec<Applied>) -> Self {
        let (say, said) = tokio::sync::mpsc::channel(4);
        say.send(WatchRequest { applied: has, ..WatchRequest::default() }).await.unwrap();
        let said = tokio_stream::wrappers::ReceiverStream::new(said);
        let stream = issuer.client_of(identity).await.watch(said).await.unwrap().into_inner();
        Self { say, stream }
    }

    async fn say(&self, applied: Applied) {
        self.say.send(WatchRequest { applied: vec![applied], ..WatchRequest::default() }).await.unwrap();
    }
}

fn applied(resource: Resource, version: &[u8], refused: &str) -> Applied {
    Applied { resource: resource.into(), version: version.to_vec(), refused: refused.to_owned() }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_comes_back_is_sent_what_it_lacks_and_nothing_else() {
    let place = Place::new();
    let issuer = place.serve().await;
    let cart = issuer.join(ID).await;
    let mut first = Talking::new(&issuer, &cart, Vec::new()).await;
    let Event::Bundles(bundles) = next(&mut first.stream).await else { panic!("bundles first") };
    let Event::Entitlement(entitlement) = next(&mut first.stream).await else { panic!("then the entitlement") };
    let has = vec![
        applied(Resource::Bundles, &bundles.version, ""),
        applied(Resource::Entitlement, &entitlement.version, ""),
    ];
    let mut again = Talking::new(&issuer, &cart, has.clone()).await;
    // At once, and empty.
    assert_eq!(again.stream.message().await.unwrap().unwrap(), WatchResponse::default());
    let mut lacking = Talking::new(&issuer, &cart, has[1..].to_vec()).await;
    assert_eq!(next(&mut lacking.stream).await, Event::Bundles(bundles.clone()));
    // What it could not put in force, it does not have.
    let mut refusing =
        Talking::new(&issuer, &cart, vec![applied(Resource::Bundles, &bundles.version, "no"), has[1].clone()]).await;
    assert_eq!(next(&mut refusing.stream).await, Event::Bundles(bundles));
    issuer.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_sees_what_a_client_has_put_in_force() {
    let place = Place::new();
    let issuer = place.serve().await;
    let cart = issuer.join(ID).await;
    let told = async || {
        let agents = issuer.admin().await.list_agents(ListAgentsRequest::default()).await.unwrap().into_inner().agents;
        agents[0].applied.clone().unwrap()
    };
    let mut client = Talking::new(&issuer, &cart, Vec::new()).await;
    let Event::Bundles(bundles) = next(&mut client.stream).await else { panic!("bundles first") };
    let Event::Entitlement(entitlement) = next(&mut client.stream).await else { panic!("then the entitlement") };
    assert!(!told().await.current);
    client.say(applied(Resource::Entitlement, &entitlement.version, "")).await;
    client.say(applied(Resource::Bundles, b"another version!", "")).await;
    client.say(applied(Resource::Bundles, &bundles.version, "no room\u{1b}[2J")).await;
    eventually("the refusal is heard", async || told().await.refused == "no room\\u{1b}[2J").await;
    assert!(!told().await.current);
    client.say(applied(Resource::Bundles, &bundles.version, "")).await;
    eventually("all is in force", async || told().await.current).await;
    assert_eq!(told().await.refused, "");
    // Nobody has to listen for ever to a client that talks.
    let ended = async {
        loop {
            let said = vec![applied(Resource::Bundles, &bundles.version, "")];
            let _ = client.say.send(WatchRequest { applied: said, ..WatchRequest::default() }).await;
            if client.say.is_closed() {
                break;
            }
        }
        client.stream.message().await
    };
    let ended = tokio::time::timeout(Duration::from_secs(10), ended).await.expect("an end in time");
    assert_eq!(ended.unwrap_err().code(), Code::ResourceExhausted);
    issuer.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_says_what_is_no_message_is_told_so_and_loses_that_stream_alone() {
    const WATCH: &str = "/signet.identity.v1.IdentityService/Watch";
    let place = Place::new();
    let issuer = place.serve().await;
    let cart = issuer.join(ID).await;
    let channel = issuer.channel_of(&cart).await;
    let beside = IdentityServiceClient::new(channel.clone()).watch(hello()).await;
    let mut beside = beside.unwrap().into_inner();
    let word = |applied| WatchRequest { applied: vec![applied], ..WatchRequest::default() }.encode_to_vec();
    let unknown = Applied { resource: 77, version: b"new".to_vec(), refused: String::new() };
    let wrong = word(applied(Resource::Bundles, b"short", ""));
    for (bad, code, told) in [
        (vec![0x0a, 0x7f], Code::Internal, ""),
        (vec![0; 4 << 20], Code::OutOfRange, ""),
        (wrong, Code::InvalidArgument, "applied[0].version: 5 bytes, as no version has"),
    ] {
        // With its first word, and later.
        for before in [Vec::new(), vec![word(unknown.clone()), word(unknown.clone())]] {
            let (say, said) = tokio::sync::mpsc::channel(4);
            for message in before.into_iter().chain([bad.clone()]) {
                say.send(message).await.unwrap();
            }
            let ended = async {
                let mut stream = raw::stream(channel.clone(), WATCH, said).await.unwrap().into_inner();
                loop {
                    match stream.message().await {
                        Ok(event) => assert!(event.is_some(), "an end without a word"),
                        Err(status) => break status,
                    }
                }
            };
            let status = tokio::time::timeout(Duration::from_secs(10), ended).await.expect("an end in time");
            assert_eq!(status.code(), code, "{status:?}");
            assert!(status.message().starts_with(told), "{}", status.message());
        }
    }
    next(&mut beside).await;
    next(&mut beside).await;
    issuer.admin().await.request_renewal(RequestRenewalRequest::default()).await.unwrap();
    assert!(matches!(next(&mut beside).await, Event::RenewNow(_)));
    renew(&mut IdentityServiceClient::new(channel), csr(&new_key())).await.unwrap();
    issuer.stop().await;
}

/// What a client is given, as it is told of it.
async fn next_offers(stream: &mut Streaming<WatchResponse>) -> (Vec<(String, String)>, Vec<u8>) {
    loop {
        if let Event::Entitlements(told) = next(stream).await {
            assert!(!told.truncated);
            let offers = told.offers.into_iter().map(|offer| (offer.spiffe_id, offer.profile));
            return (offers.collect(), told.version);
        }
    }
}

fn asking(has: Vec<Applied>) -> impl tokio_stream::Stream<Item = WatchRequest> + Send + 'static {
    tokio_stream::iter([WatchRequest { applied: has, also: vec![Resource::Entitlements.into()] }])
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_asks_is_told_of_all_that_a_new_rule_gives_it() {
    let place = Place::with(TOKENS);
    let maker = TokenMaker::at(&place);
    let issuer = place.serve().await;
    issuer.apply(PODS).await;
    let pod = prove(&issuer, of_cluster("prod", &maker.pod("shop", "cart"))).await.unwrap();
    let own = ("spiffe://example.org/ns/shop/sa/cart".to_owned(), "workload".to_owned());
    let mut asks = issuer.client_of(&pod).await.watch(asking(Vec::new())).await.unwrap().into_inner();
    let mut silent = watch(&issuer, &pod).await;
    let (offers, version) = next_offers(&mut asks).await;
    assert_eq!(offers, std::slice::from_ref(&own));
    let more = format!(
        "{PODS}
  - {{ name: second, match: {{ k8s.namespace: shop }}, spiffe_id: 'spiffe://example.org/shop/node' }}
  - {{ name: server, match: {{ svid.spiffe_id: '{}' }}, spiffe_id: 'spiffe://example.org/db', profile: tls-server }}",
        own.0
    );
    issuer.apply(&more).await;
    let of = |id: &str, profile: &str| (format!("spiffe://example.org/{id}"), profile.to_owned());
    let all = [of("db", "tls-server"), own.clone(), of("shop/node", "workload")];
    let (offers, grown) = next_offers(&mut asks).await;
    assert_eq!(offers, all);
    assert_ne!(grown, version);
    // Whoever comes back with it is not sent it again, and whoever has not asked is sent nothing of it.
    let has = vec![applied(Resource::Entitlements, &grown, "")];
    let mut again = issuer.client_of(&pod).await.watch(asking(has)).await.unwrap().into_inner();
    issuer.apply(PODS).await;
    assert_eq!(next_offers(&mut again).await.0, std::slice::from_ref(&own));
    assert_eq!(next_offers(&mut asks).await.0, [own]);
    let till = issuer.admin().await.request_renewal(RequestRenewalRequest::default()).await.unwrap().into_inner();
    assert_eq!(till.clients, 3);
    loop {
        match next(&mut silent).await {
            Event::RenewNow(_) => break,
            told => assert!(!matches!(told, Event::Entitlements(_))),
        }
    }
    issuer.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_somebody_was_given_beside_its_identity_is_told_of_nothing() {
    let place = Place::new();
    let issuer = place.serve().await;
    issuer
        .apply(&format!(
            "rules: [{{ name: more, match: {{ svid.spiffe_id: '{ID}' }}, spiffe_id: 'spiffe://example.org/shop/more' }}]"
        ))
        .await;
    let cart = issuer.join(ID).await;
    let mut stream = issuer.client_of(&cart).await.watch(asking(Vec::new())).await.unwrap().into_inner();
    assert_eq!(next_offers(&mut stream).await.0.len(), 2);
    let key = new_key();
    let request = CertificateRequest {
        csr: csr(&key),
        spiffe_id: "spiffe://example.org/shop/more".to_owned(),
        ..CertificateRequest::default()
    };
    let issued = issuer.client_of(&cart).await.issue(IssueRequest { requests: vec![request] }).await.unwrap();
    let result = issued.into_inner().results.remove(0).result.unwrap();
    let issue_result::Result::Certificate(more) = result else { panic!("{result:?}") };
    let more = Identity::new(more, key);
    let mut stream = issuer.client_of(&more).await.watch(asking(Vec::new())).await.unwrap().into_inner();
    assert!(next_offers(&mut stream).await.0.is_empty());
    issuer.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_sees_the_revision_that_a_client_has_come_to() {
    let place = Place::with(TOKENS);
    let maker = TokenMaker::at(&place);
    let issuer = place.serve().await;
    issuer.apply(PODS).await;
    let pod = prove(&issuer, of_cluster("prod", &maker.pod("shop", "cart"))).await.unwrap();
    let revision = async || {
        let agents = issuer.admin().await.list_agents(ListAgentsRequest::default()).await.unwrap().into_inner().agents;
        let applied = agents[0].applied.clone().unwrap();
        (applied.revision, applied.current)
    };
    let mut client = Talking::new(&issuer, &pod, Vec::new()).await;
    let Event::Bundles(bundles) = next(&mut client.stream).await else { panic!("bundles first") };
    let Event::Entitlement(entitlement) = next(&mut client.stream).await else { panic!("then the entitlement") };
    client.say(applied(Resource::Bundles, &bundles.version, "")).await;
    client.say(applied(Resource::Entitlement, &entitlement.version, "")).await;
    eventually("the first revision", async || revision().await == (1, true)).await;
    // One that changes nothing for it, and one that does.
    let other = "\n  - { name: other, match: { k8s.pod: x }, spiffe_id: 'spiffe://example.org/x' }";
    issuer.apply(&format!("{PODS}{other}")).await;
    eventually("the second revision", async || revision().await == (2, true)).await;
    issuer.apply(&format!("{}{other}", PODS.replace("10m", "11m"))).await;
    let Event::Entitlement(entitlement) = next(&mut client.stream).await else { panic!("another entitlement") };
    assert_eq!(revision().await, (2, false));
    client.say(applied(Resource::Entitlement, &entitlement.version, "")).await;
    eventually("the third revision", async || revision().await == (3, true)).await;
    issuer.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rule_that_ends_is_told_of_as_it_does() {
    let place = Place::with(TOKENS);
    let maker = TokenMaker::at(&place);
    let issuer = place.serve().await;
    let end = (time::OffsetDateTime::now_utc() + Duration::from_secs(12)).replace_nanosecond(0).unwrap();
    let end = end.format(&time::format_description::well_known::Rfc3339).unwrap();
    let more = format!(
        "{PODS}
  - {{ name: second, match: {{ k8s.namespace: shop }}, spiffe_id: 'spiffe://example.org/shop/node', expires: '{end}' }}"
    );
    issuer.apply(&more).await;
    let id = "spiffe://example.org/ns/shop/sa/cart".to_owned();
    let proof = of_cluster("prod", &maker.pod("shop", "cart"));
    let key = new_key();
    let request = AttestRequest { proof: Some(proof), csr: csr(&key), spiffe_id: id, ..AttestRequest::default() };
    let svid = issuer.stranger().await.attest(request).await.unwrap().into_inner().svid.unwrap();
    let pod = Identity::new(svid, key);
    let mut stream = issuer.client_of(&pod).await.watch(asking(Vec::new())).await.unwrap().into_inner();
    assert_eq!(next_offers(&mut stream).await.0.len(), 2);
    let offers = tokio::time::timeout(Duration::from_secs(30), stream.message()).await.expect("in time");
    let Some(Event::Entitlements(told)) = offers.unwrap().unwrap().event else { panic!("what is left") };
    assert_eq!(told.offers.len(), 1);
    issuer.stop().await;
}
