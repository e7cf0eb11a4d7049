//! Authorities that follow each other, and roots: what is waited for, and what is not.

use std::time::Duration;

use identity_issuer::{Config, SealStrength, root};
use rcgen::KeyPair;
use signet_identity::{SystemClock, TrustBundle};
use signet_proto::admin::v1::rotate_request::What;
use signet_proto::admin::v1::{
    AuthorityDetail, AuthorityRotation, CancelRotationRequest, GetRotationRequest, ImportAuthoritiesRequest,
    ListAuthoritiesRequest, RequestAuthoritiesRequest, RootRotation, RotateRequest, RotationStatus,
    TaintAuthorityRequest,
};
use signet_proto::identity::v1::watch_response::Event;
use signet_proto::identity::v1::{Applied, Authorities, Resource, WatchRequest, WatchResponse};
use signet_test_pki::Authority;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status, Streaming};

use crate::harness::{ID, Identity, Issuer, Place, csr, eventually, new_key, renew, write};

const HOUR: Duration = Duration::from_secs(3600);

/// A client that is told of authorities.
struct Watcher {
    stream: Streaming<WatchResponse>,
    say: mpsc::Sender<WatchRequest>,
}

impl Watcher {
    async fn new(issuer: &Issuer, identity: &Identity) -> Self {
        let (say, said) = mpsc::channel(8);
        let also = vec![Resource::Authorities.into()];
        say.send(WatchRequest { also, ..WatchRequest::default() }).await.unwrap();
        let stream = issuer.client_of(identity).await.watch(ReceiverStream::new(said)).await.unwrap().into_inner();
        Self { stream, say }
    }

    async fn until<T>(&mut self, mut wanted: impl FnMut(Event) -> Option<T>) -> T {
        let next = async {
            loop {
                let message = self.stream.message().await.unwrap().unwrap();
                if let Some(found) = message.event.and_then(&mut wanted) {
                    return found;
                }
            }
        };
        tokio::time::timeout(Duration::from_secs(20), next).await.expect("an event in time")
    }

    async fn authorities(&mut self) -> Authorities {
        self.until(|event| if let Event::Authorities(told) = event { Some(told) } else { None }).await
    }

    async fn renew_now(&mut self) {
        self.until(|event| matches!(event, Event::RenewNow(_)).then_some(())).await;
    }

    async fn say(&self, version: &[u8], refused: &str) {
        let resource = Resource::Authorities.into();
        let applied = vec![Applied { resource, version: version.to_vec(), refused: refused.to_owned() }];
        self.say.send(WatchRequest { applied, ..WatchRequest::default() }).await.unwrap();
    }
}

/// What an operator does.
trait Operate {
    async fn authorities(&self) -> Vec<AuthorityDetail>;
    async fn stages(&self) -> Vec<String>;
    async fn import(&self, pem: &str) -> Result<Vec<AuthorityDetail>, Status>;
    async fn rotate(&self, what: What, hurry: bool) -> Result<RotationStatus, Status>;
    async fn status(&self) -> RotationStatus;
}

impl Operate for Issuer {
    async fn authorities(&self) -> Vec<AuthorityDetail> {
        self.admin().await.list_authorities(ListAuthoritiesRequest {}).await.unwrap().into_inner().authorities
    }

    async fn stages(&self) -> Vec<String> {
        self.authorities().await.into_iter().map(|authority| authority.stage).collect()
    }

    async fn import(&self, pem: &str) -> Result<Vec<AuthorityDetail>, Status> {
        let request = ImportAuthoritiesRequest { certificates_pem: pem.to_owned() };
        Ok(self.admin().await.import_authorities(request).await?.into_inner().authorities)
    }

    async fn rotate(&self, what: What, hurry: bool) -> Result<RotationStatus, Status> {
        let request = RotateRequest { what: Some(what), override_acknowledgements: hurry, ..RotateRequest::default() };
        Ok(self.admin().await.rotate(request).await?.into_inner())
    }

    async fn status(&self) -> RotationStatus {
        self.admin().await.get_rotation(GetRotationRequest {}).await.unwrap().into_inner()
    }
}

fn to_next() -> What {
    What::Authority(AuthorityRotation::default())
}

/// As long as the issuer looks twice at what can be done next.
async fn nothing_happens() {
    tokio::time::sleep(Duration::from_millis(600)).await;
}

async fn request(issuer: &Issuer, count: u32) -> Vec<String> {
    let answer = issuer
        .admin()
        .await
        .request_authorities(RequestAuthoritiesRequest { count, discard: Vec::new() })
        .await
        .unwrap();
    let requests = answer.into_inner().requests_pem;
    requests.split_inclusive("-----END CERTIFICATE REQUEST-----\n").map(str::to_owned).collect()
}

fn sign(place: &Place, folder: &str, request: &str, life: Duration) -> String {
    let signed = root::sign(&place.path(folder), &place.passphrase(), request.as_bytes(), 0, life, &SystemClock);
    signed.unwrap().to_pem()
}

/// Who signed its certificate.
fn authority_of(identity: &Identity) -> Vec<u8> {
    identity.svid.chain()[1].to_vec()
}

async fn renewed(issuer: &Issuer, identity: &Identity) -> Identity {
    let key = new_key();
    let answer = renew(&mut issuer.client_of(identity).await, csr(&key)).await.unwrap().into_inner();
    Identity::new(answer.svid.unwrap(), key)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_successor_signs_once_all_that_are_connected_would_believe_it() {
    let place = Place::new();
    let issuer = place.serve().await;
    let (one, other) = (issuer.join(ID).await, issuer.join("spiffe://example.org/shop/till").await);
    let (mut first, mut second) = (Watcher::new(&issuer, &one).await, Watcher::new(&issuer, &other).await);
    for watcher in [&mut first, &mut second] {
        let told = watcher.authorities().await;
        assert_eq!(told.authorities[0].chain, [authority_of(&one)]);
        watcher.say(&told.version, "").await;
    }
    assert_eq!(issuer.rotate(to_next(), false).await.unwrap_err().code(), Code::FailedPrecondition);

    let requests = request(&issuer, 1).await;
    let imported = issuer.import(&sign(&place, "root", &requests[0], HOUR)).await.unwrap();
    assert_eq!((imported[0].stage.as_str(), imported[0].key.as_str()), ("prepared", imported[0].key_id.as_str()));
    let told = [first.authorities().await, second.authorities().await];
    assert_eq!((told[0].authorities.len(), &told[0].version), (2, &told[1].version));
    first.say(&told[0].version, "").await;
    issuer.rotate(to_next(), false).await.unwrap();
    assert_eq!(issuer.rotate(to_next(), false).await.unwrap_err().code(), Code::FailedPrecondition, "one at a time");

    eventually("one of two", async || issuer.status().await.acknowledgements.unwrap().acknowledged == 1).await;
    let missing = issuer.status().await.acknowledgements.unwrap().missing;
    assert_eq!(missing[0].spiffe_id, "spiffe://example.org/shop/till");
    // Not what it was sent, and not what it says of another version.
    second.say(&[7; 16], "").await;
    second.say(&told[1].version, "not valid yet by this clock").await;
    let refused = async || {
        let acknowledgements = issuer.status().await.acknowledgements.unwrap();
        acknowledgements.missing.iter().any(|missing| missing.refused.contains("by this clock"))
    };
    eventually("the refusal", refused).await;
    nothing_happens().await;
    assert_eq!(issuer.stages().await, ["active", "prepared"]);
    assert_eq!(authority_of(&issuer.join("spiffe://example.org/shop/new").await), authority_of(&one));

    second.say(&told[1].version, "").await;
    eventually("it signs", async || issuer.stages().await == ["retired", "active"]).await;
    assert!(issuer.status().await.rotation.is_none());
    let next = renewed(&issuer, &one).await;
    assert_ne!(authority_of(&next), authority_of(&one));
    // What the one before signed is good until it expires.
    renewed(&issuer, &other).await;
    issuer
        .until_metric(&format!(
            "signet_ca_expiration_timestamp_seconds{{authority=\"{}\",state=\"active\"}}",
            imported[0].key_id
        ))
        .await;
    issuer.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_goes_on_with_a_rotation_and_an_override_is_a_persons() {
    let place = Place::new();
    let issuer = place.serve().await;
    let holder = issuer.join(ID).await;
    let requests = request(&issuer, 2).await;
    assert_eq!(requests.len(), 2);
    let both: String = requests.iter().map(|request| sign(&place, "root", request, HOUR)).collect();
    issuer.import(&both).await.unwrap();
    let wanted = issuer.authorities().await[2].key.clone();
    let watcher = Watcher::new(&issuer, &holder).await;
    eventually("somebody to wait for", async || issuer.status().await.acknowledgements.unwrap().connected == 1).await;
    let successor = What::Authority(AuthorityRotation { successor: wanted.clone() });
    issuer.rotate(successor.clone(), false).await.unwrap();
    drop(watcher);
    issuer.stop().await;

    // Nobody is connected: nobody is waited for.
    let issuer = place.serve().await;
    eventually("it went on", async || issuer.stages().await == ["retired", "prepared", "active"]).await;
    assert_eq!(issuer.status().await.active.unwrap().key, wanted);

    let _silent = Watcher::new(&issuer, &renewed(&issuer, &holder).await).await;
    eventually("somebody to wait for", async || issuer.status().await.acknowledgements.unwrap().connected == 1).await;
    issuer.rotate(to_next(), false).await.unwrap();
    nothing_happens().await;
    assert_eq!(issuer.stages().await, ["retired", "prepared", "active"]);
    issuer.rotate(to_next(), true).await.unwrap();
    eventually("it did not wait", async || issuer.stages().await == ["retired", "active", "retired"]).await;
    issuer.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_says_nothing_is_waited_for_until_the_deadline_and_a_rotation_can_be_given_up() {
    let place = Place::new();
    let requested = {
        let text = place.config().redacted;
        let text =
            text.replace("deadline: 10m\n", "deadline: 1s\n").replace("quorum_percent: 95", "quorum_percent: 50");
        let mut impatient = Config::parse(&place.path("issuer.yaml"), &text).unwrap();
        impatient.authority.seal_strength = SealStrength::MINIMAL;
        impatient
    };
    let mut issuer = place.start_with(requested).await.unwrap();
    place.sign_with("root", HOUR);
    issuer.serving().await;
    let (one, other) = (issuer.join(ID).await, issuer.join("spiffe://example.org/shop/till").await);
    let (mut answers, silent) = (Watcher::new(&issuer, &one).await, Watcher::new(&issuer, &other).await);
    let requests = request(&issuer, 1).await;
    issuer.import(&sign(&place, "root", &requests[0], HOUR)).await.unwrap();
    issuer.rotate(to_next(), false).await.unwrap();
    assert_eq!(issuer.status().await.rotation.unwrap().quorum, 50);
    // Neither of two is no quorum.
    let late = async || issuer.status().await.rotation.unwrap().deadline.is_some_and(|at| at.seconds < now() - 1);
    eventually("the deadline is over", late).await;
    assert_eq!(issuer.stages().await, ["active", "prepared"]);
    issuer.admin().await.cancel_rotation(CancelRotationRequest {}).await.unwrap();
    let again = issuer.admin().await.cancel_rotation(CancelRotationRequest {}).await.unwrap_err();
    assert_eq!(again.code(), Code::FailedPrecondition);

    let told = loop {
        let told = answers.authorities().await;
        if told.authorities.len() == 2 {
            break told;
        }
    };
    answers.say(&told.version, "").await;
    issuer.rotate(to_next(), false).await.unwrap();
    eventually("half of them do", async || issuer.stages().await == ["retired", "active"]).await;
    drop(silent);
    issuer.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_successor_that_expires_while_it_waits_is_given_up_and_another_may_follow() {
    let place = Place::new();
    let issuer = place.serve().await;
    let holder = issuer.join(ID).await;
    let requests = request(&issuer, 2).await;
    let short = sign(&place, "root", &requests[0], Duration::from_secs(5));
    issuer.import(&(short + &sign(&place, "root", &requests[1], HOUR))).await.unwrap();
    let keys: Vec<_> = issuer.authorities().await.into_iter().map(|authority| authority.key).collect();
    let _silent = Watcher::new(&issuer, &holder).await;
    eventually("somebody to wait for", async || issuer.status().await.acknowledgements.unwrap().connected == 1).await;
    issuer.rotate(to_next(), false).await.unwrap();
    assert_eq!(issuer.status().await.successor.unwrap().key, keys[1]);
    eventually("it is given up", async || issuer.status().await.rotation.is_none()).await;
    assert_eq!(issuer.stages().await, ["active", "prepared", "prepared"]);
    assert_eq!(issuer.status().await.successor.unwrap().key, keys[2]);
    let expired = What::Authority(AuthorityRotation { successor: keys[1].clone() });
    assert_eq!(issuer.rotate(expired, true).await.unwrap_err().code(), Code::NotFound);
    issuer.rotate(to_next(), true).await.unwrap();
    eventually("the other one", async || issuer.stages().await == ["retired", "prepared", "active"]).await;
    issuer.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_authority_gives_way_by_itself_in_the_last_quarter_of_its_life_to_one_that_outlives_it() {
    let place = Place::new();
    let mut issuer = place.start_with(place.config()).await.unwrap();
    place.sign_with("root", Duration::from_secs(24));
    issuer.serving().await;
    let requests = request(&issuer, 1).await;
    // A spare that is of no use by then.
    issuer.import(&sign(&place, "root", &requests[0], Duration::from_secs(16))).await.unwrap();
    let asks = async || issuer.stages().await == ["active", "prepared", "requested"];
    eventually("a request for another one", asks).await;
    let requests = request(&issuer, 1).await;
    issuer.import(&sign(&place, "root", &requests[0], HOUR)).await.unwrap();
    eventually("it follows", async || issuer.stages().await == ["retired", "prepared", "active"]).await;
    issuer.stop().await;
}

fn now() -> i64 {
    time::OffsetDateTime::now_utc().unix_timestamp()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_taint_asks_those_to_renew_who_hold_what_that_authority_signed() {
    let place = Place::new();
    let issuer = place.serve().await;
    let old = issuer.join(ID).await;
    let requests = request(&issuer, 1).await;
    issuer.import(&sign(&place, "root", &requests[0], HOUR)).await.unwrap();
    let first = issuer.authorities().await[0].key.clone();
    let taint = async |key: &str| {
        let request = TaintAuthorityRequest { key: key.to_owned(), comment: String::new() };
        issuer.admin().await.taint_authority(request).await.map(tonic::Response::into_inner)
    };
    assert_eq!(taint(&first).await.unwrap_err().code(), Code::FailedPrecondition, "it signs");
    assert_eq!(taint(&"0".repeat(40)).await.unwrap_err().code(), Code::NotFound);
    assert_eq!(taint("../../x").await.unwrap_err().code(), Code::InvalidArgument);
    issuer.rotate(to_next(), false).await.unwrap();
    eventually("it signs", async || issuer.stages().await == ["retired", "active"]).await;
    let new = issuer.join("spiffe://example.org/shop/till").await;
    let (mut of_old, mut of_new) = (Watcher::new(&issuer, &old).await, Watcher::new(&issuer, &new).await);
    of_old.authorities().await;
    of_new.authorities().await;

    let tainted = taint(&first).await.unwrap();
    assert_eq!((tainted.live_certificates, tainted.clients, tainted.within.unwrap().seconds), (1, 1, 1));
    of_old.renew_now().await;
    assert_eq!(issuer.stages().await, ["tainted", "active"]);
    let successor = renewed(&issuer, &old).await;
    assert_eq!(authority_of(&successor), authority_of(&new));
    // Whoever was not there is asked when it comes; whoever has renewed is not.
    drop(of_old);
    Watcher::new(&issuer, &old).await.renew_now().await;
    let mut of_successor = Watcher::new(&issuer, &successor).await;
    of_successor.authorities().await;
    let quiet = tokio::time::timeout(Duration::from_millis(300), of_successor.renew_now()).await;
    assert!(quiet.is_err() && tokio::time::timeout(Duration::from_millis(10), of_new.renew_now()).await.is_err());
    issuer.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_root_gives_way_to_another_once_nobody_needs_it() {
    let place = Place::new();
    let mut issuer = place.serve().await;
    let holder = issuer.join(ID).await;
    let mut watcher = Watcher::new(&issuer, &holder).await;
    watcher.authorities().await;
    place.make_root("next", "example.org");
    let next = std::fs::read_to_string(place.path("next/root.pem")).unwrap();
    let to_root = |pem: &str| What::Root(RootRotation { root_pem: pem.to_owned() });
    let first = std::fs::read_to_string(place.path("root/root.pem")).unwrap();
    let root_of = |from: i64, until: i64| {
        let at = |seconds| time::OffsetDateTime::now_utc() + time::Duration::seconds(seconds);
        let root = Authority::root_with("example.org", |params| {
            (params.not_before, params.not_after) = (at(from), at(until));
        });
        signet_test_pki::pem("CERTIFICATE", root.certificate())
    };
    // One that expired by the clock that was an hour back when it was made, and one of a clock that is ahead.
    let (expired, of_tomorrow) = (root_of(-7200, -60), root_of(3600, 7200));
    for wrong in [first.as_str(), "", "junk", &expired, &of_tomorrow, &format!("{next}{expired}")] {
        assert_eq!(issuer.rotate(to_root(wrong), false).await.unwrap_err().code(), Code::InvalidArgument, "{wrong}");
    }
    // The request that the authority in force was signed by.
    let own = std::fs::read_to_string(place.path("state/authority.csr")).unwrap();
    let status = issuer.rotate(to_root(&next), false).await.unwrap();
    // Whoever hurries another one hurries nothing.
    assert_eq!(issuer.rotate(to_next(), true).await.unwrap_err().code(), Code::FailedPrecondition);
    assert_eq!(issuer.status().await.rotation.unwrap().overridden_by, "");
    // The authority in force does not go over to the next root unasked.
    let refused = issuer.import(&sign(&place, "next", &own, HOUR)).await.unwrap_err();
    assert!(
        refused.code() == Code::FailedPrecondition && refused.message().contains("is being rotated"),
        "{refused:?}"
    );
    assert_eq!(status.rotation.unwrap().kind, "root");
    let bundles = watcher.until(|event| if let Event::Bundles(told) = event { Some(told) } else { None }).await;
    assert_eq!(bundles.bundles[0].x509_authorities.len(), 2);
    // The request for an authority below it is made by itself.
    eventually("a request", async || issuer.stages().await == ["active", "requested"]).await;
    let requests = request(&issuer, 2).await;
    // One below the root before is not what is waited for.
    issuer.import(&sign(&place, "root", &requests[0], HOUR)).await.unwrap();
    let told = watcher.authorities().await;
    watcher.say(&told.version, "").await;
    nothing_happens().await;
    assert_eq!(issuer.stages().await, ["active", "prepared", "requested"]);
    issuer.import(&sign(&place, "next", &requests[1], HOUR)).await.unwrap();
    let told = watcher.authorities().await;
    assert_eq!(told.authorities.len(), 3);
    nothing_happens().await;
    assert_eq!(issuer.stages().await, ["active", "prepared", "prepared"]);
    watcher.say(&told.version, "").await;
    // The one that was to follow below the root before is given up.
    let is_over = async || issuer.stages().await == ["tainted", "tainted", "active"];
    eventually("it signs, and those before are tainted", is_over).await;
    watcher.renew_now().await;
    nothing_happens().await;
    assert!(issuer.status().await.rotation.is_some(), "somebody has only a certificate below the root before");
    issuer.bundle = TrustBundle::from_pem("example.org".parse().unwrap(), (first + &next).as_bytes()).unwrap();
    let holder = renewed(&issuer, &holder).await;
    eventually("nobody needs it", async || issuer.status().await.rotation.is_none()).await;
    let only = |told: signet_proto::identity::v1::TrustBundles| told.bundles[0].x509_authorities.len() == 1;
    watcher.until(|event| if let Event::Bundles(told) = event { Some(only(told)) } else { None }).await;
    issuer.stop().await;

    // After a restart, what the file says counts as little as before.
    let mut issuer = place.serve().await;
    issuer.bundle = TrustBundle::from_pem("example.org".parse().unwrap(), next.as_bytes()).unwrap();
    assert!(issuer.can_be_joined().await);
    renewed(&issuer, &holder).await;
    // The file may follow.
    write(&place.path("root/root.pem"), &next);
    issuer.join("spiffe://example.org/shop/new").await;
    issuer.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_that_does_not_fit_is_not_taken_and_changes_nothing() {
    let place = Place::new();
    let issuer = place.serve().await;
    let requests = request(&issuer, 2).await;
    place.make_root("stranger", "example.org");
    let good = sign(&place, "root", &requests[0], HOUR);
    let strange = sign(&place, "stranger", &requests[1], HOUR);
    let foreign = {
        let key = KeyPair::generate().unwrap();
        let request = rcgen::CertificateParams::default().serialize_request(&key).unwrap().pem().unwrap();
        sign(&place, "root", &request, HOUR)
    };
    for (pem, told) in [
        (good.clone() + &strange, "is signed by no root of the trust bundle"),
        (foreign, "is for another key than this issuer's"),
        (good.replace("BEGIN CERTIFICATE", "BEGIN NOTHING"), ""),
        (String::new(), "holds no PEM block"),
    ] {
        let refused = issuer.import(&pem).await.unwrap_err();
        assert!(refused.code() == Code::InvalidArgument && refused.message().contains(told), "{refused:?}");
        assert_eq!(issuer.stages().await, ["active", "requested", "requested"]);
    }
    issuer.import(&good).await.unwrap();
    assert_eq!(issuer.stages().await, ["active", "prepared", "requested"]);
    let too_many = issuer
        .admin()
        .await
        .request_authorities(RequestAuthoritiesRequest { count: 17, discard: Vec::new() })
        .await
        .unwrap_err();
    assert_eq!(too_many.code(), Code::InvalidArgument);
    issuer.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_is_given_up_gives_way_to_another_and_nothing_else_can_be() {
    let place = Place::new();
    let issuer = place.serve().await;
    let first = request(&issuer, 1).await;
    let keys = async || issuer.authorities().await.into_iter().map(|authority| authority.key).collect::<Vec<_>>();
    let discard = async |keys: Vec<String>| {
        let request = RequestAuthoritiesRequest { count: 1, discard: keys };
        issuer.admin().await.request_authorities(request).await
    };
    let listed = issuer.authorities().await;
    assert_eq!((listed[1].request_pem.as_str(), listed[0].request_pem.as_str()), (first[0].as_str(), ""));
    assert!(listed[0].certificates_pem.contains("BEGIN CERTIFICATE") && listed[1].certificates_pem.is_empty());
    // All of them or none: not the one that signs, and none that there never was.
    assert_eq!(discard(keys().await).await.unwrap_err().code(), Code::FailedPrecondition);
    let waits = keys().await[1].clone();
    let unknown = discard(vec![waits.clone(), "0".repeat(40)]).await.unwrap_err();
    assert_eq!(unknown.code(), Code::NotFound);
    assert_eq!(issuer.stages().await, ["active", "requested"]);
    let second = discard(vec![waits.clone()]).await.unwrap().into_inner();
    assert_eq!(second.count, 1);
    assert_ne!(second.requests_pem, first[0]);
    assert_eq!(discard(vec![waits]).await.unwrap().into_inner(), second, "it is given up already");
    assert_eq!(issuer.stages().await, ["active", "revoked", "requested"]);
    for wrong in [vec!["../../x".to_owned()], vec!["0".repeat(40); 17]] {
        assert_eq!(discard(wrong).await.unwrap_err().code(), Code::InvalidArgument);
    }
    issuer.stop().await;
    // Its key is gone, and nobody misses it.
    let issuer = place.serve().await;
    eventually("it is forgotten", async || issuer.stages().await == ["active", "requested"]).await;
    issuer.stop().await;
}
