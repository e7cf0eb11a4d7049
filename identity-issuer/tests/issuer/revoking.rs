//! What is revoked: who is told of it how, who loses what, and who may do it.

use std::time::Duration;

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1, UnparsedPublicKey};
use prost::Message as _;
use signet_proto::admin::v1::revoke_request::Target;
use signet_proto::admin::v1::{
    GetRevocationProgressRequest, ListAgentsRequest, ListRevocationsRequest, RevocationReason, RevokeRequest,
    RevokeResponse, Serials,
};
use signet_proto::identity::v1::watch_response::Event;
use signet_proto::identity::v1::{Applied, Resource, RevocationStatement, Revocations, WatchRequest, WatchResponse};
use tonic::{Code, Status, Streaming};
use x509_parser::prelude::{FromDer as _, X509Certificate};

use crate::harness::{ID, Identity, Issuer, Place, attest, csr, eventually, new_key, renew};
use crate::listing::list_of;

const OTHER: &str = "spiffe://example.org/shop/till";

/// A client that follows what is revoked.
pub struct Following {
    say: tokio::sync::mpsc::Sender<WatchRequest>,
    stream: Streaming<WatchResponse>,
}

impl Following {
    /// `has` is the version that it has come to.
    pub async fn new(issuer: &Issuer, identity: &Identity, has: Option<Vec<u8>>) -> Self {
        let (say, said) = tokio::sync::mpsc::channel(4);
        let applied = has.map(|version| applied(&version)).into_iter().collect();
        say.send(WatchRequest { applied, also: vec![Resource::Revocations.into()] }).await.unwrap();
        let said = tokio_stream::wrappers::ReceiverStream::new(said);
        let stream = issuer.client_of(identity).await.watch(said).await.unwrap().into_inner();
        Self { say, stream }
    }

    pub async fn next(&mut self) -> Revocations {
        loop {
            let message = tokio::time::timeout(Duration::from_secs(10), self.stream.message()).await;
            if let Some(Event::Revocations(told)) = message.expect("an event in time").unwrap().unwrap().event {
                return told;
            }
        }
    }

    pub async fn message(&mut self) -> Result<Option<WatchResponse>, Status> {
        self.stream.message().await
    }

    pub async fn applies(&self, version: &[u8]) {
        self.say.send(WatchRequest { applied: vec![applied(version)], ..WatchRequest::default() }).await.unwrap();
    }

    pub async fn end(mut self) -> Status {
        let ended = async {
            loop {
                if let Err(status) = self.stream.message().await {
                    return status;
                }
            }
        };
        tokio::time::timeout(Duration::from_secs(10), ended).await.expect("an end in time")
    }
}

fn applied(version: &[u8]) -> Applied {
    Applied { resource: Resource::Revocations.into(), version: version.to_vec(), refused: String::new() }
}

/// As anybody would who trusts the root: the chain, the signature over the very bytes, and only then what they say.
pub fn read(issuer: &Issuer, told: &Revocations) -> RevocationStatement {
    let signed = [&[0x20; 64][..], b"signet revocations v1\0", &told.statement].concat();
    let (_, signer) = X509Certificate::from_der(&told.chain[0]).unwrap();
    let root = &issuer.bundle.authorities()[0];
    let (_, root) = X509Certificate::from_der(root).unwrap();
    signer.verify_signature(Some(root.public_key())).unwrap();
    let key = UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, &signer.public_key().subject_public_key.data);
    key.verify(&signed, &told.signature).unwrap();
    let statement = RevocationStatement::decode(&told.statement[..]).unwrap();
    assert_eq!(statement.trust_domain, "example.org");
    assert_eq!(told.version, [&statement.lineage[..], &statement.epoch.to_be_bytes()].concat());
    statement
}

pub async fn revoke(issuer: &Issuer, target: Target) -> Result<RevokeResponse, Status> {
    let reason = RevocationReason::KeyCompromise.into();
    let request = RevokeRequest { target: Some(target), reason, comment: "ticket".to_owned(), ..Default::default() };
    Ok(issuer.admin().await.revoke(request).await?.into_inner())
}

pub fn serials(identities: &[&Identity]) -> Target {
    let serials = identities.iter().map(|identity| identity.svid.serial().as_bytes().to_vec());
    Target::Serials(Serials { serials: serials.collect() })
}

#[tokio::test(flavor = "multi_thread")]
async fn who_follows_is_told_at_once_and_whoever_is_revoked_loses_everything() {
    let place = Place::new();
    let issuer = place.serve().await;
    let (cart, till) = (issuer.join(ID).await, issuer.join(OTHER).await);
    let mut following = Following::new(&issuer, &till, None).await;
    let first = following.next().await;
    let statement = read(&issuer, &first);
    assert_eq!((statement.after, statement.epoch, statement.latest), (0, 0, 0));
    assert!(statement.serials.is_empty() && statement.lineage.len() == 8);
    let progress = async |epoch| {
        let request = GetRevocationProgressRequest { epoch };
        let told = issuer.admin().await.get_revocation_progress(request).await.unwrap().into_inner();
        (told.following, told.applied, told.others)
    };
    let theirs = Following::new(&issuer, &cart, None).await;
    let mut plain = issuer.client_of(&cart).await;

    let done = revoke(&issuer, serials(&[&cart])).await.unwrap();
    assert_eq!((done.epoch, done.certificates, done.connected), (1, 1, 1));
    let told = following.next().await;
    let statement = read(&issuer, &told);
    assert_eq!((statement.after, statement.epoch, statement.latest), (0, 1, 1));
    let [of_authority] = &statement.serials[..] else { panic!("{statement:?}") };
    assert_eq!(of_authority.serials, [cart.svid.serial().as_bytes()]);
    assert_eq!(of_authority.not_after, [cart.svid.not_after().unix_timestamp()]);
    let (_, signer) = X509Certificate::from_der(&told.chain[0]).unwrap();
    let key = digest(&SHA256, signer.public_key().raw);
    assert_eq!(of_authority.authority_key_id, &key.as_ref()[..20]);

    assert_eq!(theirs.end().await.code(), Code::PermissionDenied);
    eventually("one follows", async || progress(1).await == (1, 0, 0)).await;
    following.applies(&told.version).await;
    eventually("and has it in force", async || progress(1).await == (1, 1, 0)).await;
    // Of what it was not sent, it may say what it likes.
    following.applies(&[&statement.lineage[..], &7_u64.to_be_bytes()].concat()).await;
    following.applies(&[b"another!", &9_u64.to_be_bytes()[..]].concat()).await;
    following.applies(&told.version).await;
    eventually("the agent shows it", async || {
        let agents = issuer.admin().await.list_agents(ListAgentsRequest::default()).await.unwrap().into_inner().agents;
        agents.iter().any(|agent| agent.applied.as_ref().is_some_and(|applied| applied.revocations == Some(1)))
    })
    .await;
    assert_eq!(progress(2).await, (1, 0, 0));

    // On connections that were open before, and on new ones.
    for mut client in [plain.clone(), issuer.client_of(&cart).await] {
        let refused = renew(&mut client, csr(&new_key())).await.unwrap_err();
        assert_eq!((refused.code(), refused.message()), (Code::PermissionDenied, NO_STANDING));
        let refused = client.watch(crate::harness::hello()).await.unwrap_err();
        assert_eq!(refused.code(), Code::PermissionDenied);
    }
    drop(
        plain.issue(signet_proto::identity::v1::IssueRequest { requests: vec![Default::default()] }).await.unwrap_err(),
    );
    renew(&mut issuer.client_of(&till).await, csr(&new_key())).await.unwrap();
    // It may prove itself again.
    let token = issuer.token(ID).await;
    attest(&mut issuer.stranger().await, &token, csr(&new_key())).await.unwrap();
    issuer.stop().await;
}

const NO_STANDING: &str = "its certificate is revoked: it has to attest itself again";

#[tokio::test(flavor = "multi_thread")]
async fn whoever_comes_back_is_told_what_it_lacks_also_by_an_issuer_that_was_started_again() {
    let place = Place::new();
    let mut issuer = place.serve().await;
    let till = issuer.join(OTHER).await;
    let mut seen = Vec::new();
    for _ in 0..3 {
        let cart = issuer.join(ID).await;
        revoke(&issuer, serials(&[&cart])).await.unwrap();
        seen.push(cart.svid.serial().as_bytes().to_vec());
    }
    let mut following = Following::new(&issuer, &till, None).await;
    let all = following.next().await;
    assert_eq!(read(&issuer, &all).serials[0].serials, seen);
    issuer.stop().await;
    issuer = place.serve().await;
    let lineage = read(&issuer, &all).lineage;
    // It has all: the next that it hears is what comes then.
    let mut current = Following::new(&issuer, &till, Some(all.version.clone())).await;
    let mut behind = Following::new(&issuer, &till, Some([&lineage[..], &1_u64.to_be_bytes()].concat())).await;
    let mut strange = Following::new(&issuer, &till, Some([&[7; 8][..], &1_u64.to_be_bytes()].concat())).await;
    let told = read(&issuer, &behind.next().await);
    assert!(told.after <= 1 && told.epoch == 3 && told.lineage == lineage);
    assert!(seen[1..].iter().all(|serial| told.serials[0].serials.contains(serial)));
    let told = read(&issuer, &strange.next().await);
    assert_eq!((told.after, told.epoch), (0, 3));
    let cart = issuer.join(ID).await;
    let done = revoke(&issuer, Target::SpiffeId(ID.to_owned())).await.unwrap();
    assert_eq!((done.epoch, done.certificates), (4, 1));
    let told = read(&issuer, &current.next().await);
    assert_eq!((told.after, told.epoch, told.latest), (3, 4, 4));
    assert_eq!(told.serials[0].serials, [cart.svid.serial().as_bytes()]);
    issuer.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_revoked_without_a_reason_a_role_and_something_that_there_is() {
    let place =
        Place::with("administration: [{ role: operator, scope: /shop, spiffe_ids: ['spiffe://example.org/ops'] }]");
    let issuer = place.serve().await;
    let cart = issuer.join(ID).await;
    let bank = issuer.join("spiffe://example.org/bank").await;
    let ops = issuer.join("spiffe://example.org/ops").await;
    let mut admin = issuer.admin().await;
    let plain = RevokeRequest { target: Some(serials(&[&cart])), ..RevokeRequest::default() };
    for (request, code, told) in [
        (plain.clone(), Code::InvalidArgument, "reason: missing"),
        (RevokeRequest { reason: 6, ..plain.clone() }, Code::InvalidArgument, "reason: there is none with number 6"),
        (RevokeRequest { reason: 1, target: None, ..plain.clone() }, Code::InvalidArgument, "target: missing"),
        (RevokeRequest { reason: 1, comment: "x".repeat(1025), ..plain.clone() }, Code::InvalidArgument, "comment: "),
    ] {
        let refused = admin.revoke(request).await.unwrap_err();
        assert_eq!(refused.code(), code);
        assert!(refused.message().starts_with(told), "{}", refused.message());
    }
    let of = |serials: Vec<Vec<u8>>| Target::Serials(Serials { serials });
    for (target, code, told) in [
        (of(vec![]), Code::InvalidArgument, "serials: not between 1 and 16384"),
        (of(vec![vec![1]; 16_385]), Code::InvalidArgument, "serials: not between 1 and 16384"),
        (of(vec![vec![0]]), Code::InvalidArgument, "serials[0]: no serial number"),
        (of(vec![vec![1; 16]]), Code::NotFound, "serials: no valid certificate on record has 0101"),
        (of(vec![vec![1; 20]; 30_000]), Code::OutOfRange, "the message is longer than"),
        (Target::SpiffeId("cart".to_owned()), Code::InvalidArgument, "spiffe_id: "),
        (Target::SpiffeId("spiffe://example.org/signet/issuer".to_owned()), Code::InvalidArgument, "spiffe_id: "),
        (Target::Agent(4711), Code::NotFound, "agent: there is no agent 4711"),
        (Target::Rule("none".to_owned()), Code::NotFound, "rule: no certificate was issued"),
        (Target::KeySha256(vec![1; 31]), Code::InvalidArgument, "key_sha256: not 32 bytes"),
        (Target::Authority("xyz".to_owned()), Code::InvalidArgument, "authority: no key identifier"),
        (Target::Authority("00".repeat(20)), Code::NotFound, "authority: there is no authority 0000"),
    ] {
        let refused = revoke(&issuer, target).await.unwrap_err();
        assert_eq!(refused.code(), code, "{refused:?}");
        assert!(refused.message().starts_with(told), "{}", refused.message());
    }
    // What signs now, and the root, are revoked by nobody in passing.
    let status = admin.get_status(signet_proto::admin::v1::GetStatusRequest {}).await.unwrap().into_inner();
    let active = revoke(&issuer, Target::Authority(status.authority.unwrap().key_id)).await.unwrap_err();
    assert_eq!(active.code(), Code::FailedPrecondition);

    let mut operator =
        signet_proto::admin::v1::admin_service_client::AdminServiceClient::new(issuer.channel_of(&ops).await);
    let reason = RevocationReason::Superseded.into();
    let mut ask = async |target, dry_run| {
        let comment = String::new();
        let request = RevokeRequest { target: Some(target), reason, comment, dry_run, force: false };
        operator.revoke(request).await.map(tonic::Response::into_inner)
    };
    for (target, code) in [
        (Target::SpiffeId("spiffe://example.org/bank".to_owned()), Code::PermissionDenied),
        // Nor is it told of what there is elsewhere.
        (serials(&[&cart, &bank]), Code::NotFound),
        (Target::Agent(2), Code::NotFound),
        (Target::KeySha256(vec![1; 32]), Code::PermissionDenied),
        (Target::Authority("00".repeat(20)), Code::PermissionDenied),
    ] {
        assert_eq!(ask(target, false).await.unwrap_err().code(), code);
    }
    assert_eq!(ask(serials(&[&cart]), true).await.unwrap().certificates, 1, "only a plan");
    renew(&mut issuer.client_of(&cart).await, csr(&new_key())).await.unwrap();
    let done = ask(Target::SpiffeId(ID.to_owned()), false).await.unwrap();
    assert_eq!((done.certificates, done.agents), (2, 1));
    revoke(&issuer, serials(&[&bank])).await.unwrap();
    revoke(&issuer, Target::KeySha256(vec![1; 32])).await.unwrap();
    let list = |limit| ListRevocationsRequest { limit, ..ListRevocationsRequest::default() };
    let all = admin.list_revocations(list(0)).await.unwrap().into_inner().revocations;
    let told: Vec<_> = all.iter().map(|one| (one.epoch, one.kind.as_str(), one.reason, one.by.as_str())).collect();
    let bank = format!("serial {}", bank.svid.serial());
    let key = format!("key {}", "01".repeat(32));
    let id = format!("id {ID}");
    assert_eq!(told, [(1, "serial", 4, &*id), (2, "serial", 4, &*id), (3, "serial", 1, &*bank), (4, "key", 1, &*key)]);
    let theirs = operator.list_revocations(list(1)).await.unwrap().into_inner().revocations;
    assert_eq!(theirs.iter().map(|one| one.spiffe_id.as_str()).collect::<Vec<_>>(), [ID]);
    let next = ListRevocationsRequest { after: theirs[0].epoch, ..list(0) };
    let theirs = operator.list_revocations(next).await.unwrap().into_inner().revocations;
    assert_eq!(theirs.iter().map(|one| (one.epoch, one.by.as_str())).collect::<Vec<_>>(), [(2, "id")]);
    issuer.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn thousands_that_are_revoked_at_once_are_told_in_several_statements() {
    let place = Place::new();
    let issuer = place.serve().await;
    let till = issuer.join(OTHER).await;
    issuer.join(ID).await;
    // As if they had been issued: what is on record is what counts.
    place
        .sql(
            "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n WHERE x < 25000) \
             INSERT INTO issued (serial, spiffe_id, key_sha256, not_before, not_after, issued_at, attestation, \
             authority_key_id, certificate_sha256, rule) SELECT unhex(printf('41%030x', x)), 'spiffe://example.org/many', \
             unhex(printf('%064x', x)), not_before, not_after, issued_at, 'join_token', authority_key_id, x'00', 'many' \
             FROM n, (SELECT * FROM issued ORDER BY position DESC LIMIT 1)",
        )
        .await;
    let mut following = Following::new(&issuer, &till, None).await;
    following.next().await;
    let done = revoke(&issuer, Target::Rule("many".to_owned())).await.unwrap();
    assert_eq!((done.epoch, done.certificates), (25_000, 25_000));
    let mut told = std::collections::HashSet::new();
    let mut has = 0;
    loop {
        let revocations = following.next().await;
        assert!(revocations.statement.len() < 512 << 10);
        let statement = read(&issuer, &revocations);
        assert!(statement.after <= has && has < statement.epoch, "{} {has} {}", statement.after, statement.epoch);
        has = statement.epoch;
        told.extend(statement.serials.into_iter().flat_map(|of_authority| of_authority.serials));
        if statement.epoch == statement.latest && has == 25_000 {
            break;
        }
    }
    assert_eq!(told.len(), 25_000);
    // Whoever comes anew is told of all, too.
    let mut anew = Following::new(&issuer, &till, None).await;
    let first = read(&issuer, &anew.next().await);
    assert!(first.after == 0 && first.epoch < first.latest);
    issuer.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_knows_more_than_the_record_hears_of_that_and_so_does_the_operator() {
    let place = Place::new();
    let issuer = place.serve().await;
    let (cart, till) = (issuer.join(ID).await, issuer.join(OTHER).await);
    let lineage = read(&issuer, &Following::new(&issuer, &till, None).await.next().await).lineage;
    let version = |epoch: u64| Some([&lineage[..], &epoch.to_be_bytes()].concat());
    // As one does that was connected before a backup came back.
    let mut ahead = Following::new(&issuer, &till, version(7)).await;
    let told = ahead.next().await;
    let statement = read(&issuer, &told);
    assert_eq!((statement.after, statement.epoch, statement.latest), (0, 0, 0));
    issuer.until_metric("signet_issuer_revocations_ahead_clients 1").await;
    let refused = Applied { refused: "it goes back".to_owned(), ..applied(&told.version) };
    ahead.say.send(WatchRequest { applied: vec![refused], ..WatchRequest::default() }).await.unwrap();
    eventually("the operator sees it", async || {
        let agents = issuer.admin().await.list_agents(ListAgentsRequest::default()).await.unwrap().into_inner().agents;
        agents.iter().any(|agent| format!("{agent:?}").contains("it goes back"))
    })
    .await;
    // What is revoked next it is told of, and is not counted among those that have it in force.
    revoke(&issuer, serials(&[&cart])).await.unwrap();
    let statement = read(&issuer, &ahead.next().await);
    assert_eq!((statement.after, statement.epoch), (0, 1));
    let request = GetRevocationProgressRequest { epoch: 1 };
    let told = issuer.admin().await.get_revocation_progress(request).await.unwrap().into_inner();
    assert_eq!((told.following, told.applied), (1, 0));
    // Whoever knows as much as there is, or less, is none of those.
    let _level = Following::new(&issuer, &till, version(1)).await;
    Following::new(&issuer, &till, version(0)).await.next().await;
    issuer.until_metric("signet_issuer_revocations_ahead_clients 1").await;
    // It is one of those until it goes, or the record has come as far.
    let gone = Following::new(&issuer, &till, version(9)).await;
    issuer.until_metric("signet_issuer_revocations_ahead_clients 2").await;
    drop(gone);
    issuer.until_metric("signet_issuer_revocations_ahead_clients 1").await;
    for _ in 1..7 {
        let other = issuer.join(ID).await;
        revoke(&issuer, serials(&[&other])).await.unwrap();
    }
    issuer.until_metric("signet_issuer_revocations_ahead_clients 0").await;
    issuer.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_issuer_whose_own_certificate_is_revoked_has_another_at_once() {
    let place = Place::new();
    let issuer = place.serve().await;
    let till = issuer.join(OTHER).await;
    let own = "SELECT serial FROM issued WHERE attestation = 'issuer' ORDER BY position DESC LIMIT 1";
    let before = place.bytes(own).await;
    let mut following = Following::new(&issuer, &till, None).await;
    following.next().await;
    revoke(&issuer, Target::Serials(Serials { serials: vec![before.clone()] })).await.unwrap();
    assert_eq!(read(&issuer, &following.next().await).serials[0].serials, std::slice::from_ref(&before));
    eventually("another certificate", async || place.bytes(own).await != before).await;
    issuer.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_authority_is_revoked_once_another_signs_and_by_force_while_certificates_hang_on_it() {
    let place = Place::with("profiles: []\ncrl: { url: 'http://crl.example.org/crl' }");
    let issuer = place.serve().await;
    let cart = issuer.join(ID).await;
    assert_eq!(list_of(&issuer, &cart).await.serials, []);
    let mut admin = issuer.admin().await;
    let status = admin.get_status(signet_proto::admin::v1::GetStatusRequest {}).await.unwrap().into_inner();
    let first = status.authority.unwrap().key_id;
    // By its key it is not revoked either, nor is a root: nobody would be believed by anybody any more.
    for certificate in [&cart.svid.chain()[1], &issuer.bundle.authorities()[0]] {
        let (_, certificate) = X509Certificate::from_der(certificate).unwrap();
        let key = digest(&SHA256, certificate.public_key().raw).as_ref().to_vec();
        let refused = revoke(&issuer, Target::KeySha256(key)).await.unwrap_err();
        assert_eq!(refused.code(), Code::FailedPrecondition, "{refused:?}");
    }
    let request = signet_proto::admin::v1::RequestAuthoritiesRequest { count: 1, discard: Vec::new() };
    let csr = admin.request_authorities(request).await.unwrap().into_inner().requests_pem;
    let life = Duration::from_secs(3600);
    let clock = signet_identity::SystemClock;
    let signed = identity_issuer::root::sign(&place.path("root"), &place.passphrase(), csr.as_bytes(), 0, life, &clock);
    let certificates_pem = signed.unwrap().to_pem();
    let import = signet_proto::admin::v1::ImportAuthoritiesRequest { certificates_pem };
    admin.import_authorities(import).await.unwrap();
    let what = Some(signet_proto::admin::v1::rotate_request::What::Authority(Default::default()));
    let rotate = signet_proto::admin::v1::RotateRequest { what, override_acknowledgements: true, ..Default::default() };
    admin.rotate(rotate).await.unwrap();
    eventually("another signs", async || {
        let status =
            issuer.admin().await.get_status(signet_proto::admin::v1::GetStatusRequest {}).await.unwrap().into_inner();
        status.authority.unwrap().key_id != first
    })
    .await;
    let till = issuer.join(OTHER).await;
    let mut following = Following::new(&issuer, &till, None).await;
    following.next().await;
    let refused = revoke(&issuer, Target::Authority(first.clone())).await.unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition);
    assert!(refused.message().contains("have no successor yet: 1; taint it"), "{}", refused.message());
    let request = RevokeRequest {
        target: Some(Target::Authority(first.clone())),
        reason: RevocationReason::CaCompromise.into(),
        force: true,
        ..RevokeRequest::default()
    };
    let done = admin.revoke(request).await.unwrap().into_inner();
    assert_eq!((done.epoch, done.certificates), (1, 0));
    let told = read(&issuer, &following.next().await);
    let (_, signer) = X509Certificate::from_der(&cart.svid.chain()[1]).unwrap();
    assert_eq!(told.authorities[0].sha256, digest(&SHA256, signer.public_key().raw).as_ref());
    let refused = renew(&mut issuer.client_of(&cart).await, crate::harness::csr(&new_key())).await.unwrap_err();
    assert_eq!((refused.code(), refused.message()), (Code::PermissionDenied, NO_STANDING));
    renew(&mut issuer.client_of(&till).await, crate::harness::csr(&new_key())).await.unwrap();
    // Whoever goes by lists finds its last one, with all that it has signed on it, also after a restart.
    let cart_is_listed = async |issuer: &Issuer| {
        let listed = list_of(issuer, &cart).await;
        let is_there = listed.serials.contains(&(cart.svid.serial().as_bytes().to_vec(), 2));
        let end = X509Certificate::from_der(&cart.svid.chain()[1]).unwrap().1.validity().not_after.timestamp();
        is_there && listed.next_update == end
    };
    eventually("its last list", async || cart_is_listed(&issuer).await).await;
    assert!(!list_of(&issuer, &till).await.serials.contains(&(till.svid.serial().as_bytes().to_vec(), 2)));
    issuer.stop().await;
    let issuer = place.serve().await;
    eventually("its last list again", async || cart_is_listed(&issuer).await).await;
    issuer.stop().await;
}
