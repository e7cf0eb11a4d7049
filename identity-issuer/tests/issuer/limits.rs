//! Each field that a caller fills in, at its limit and past it: what is refused names the field, and leaves nothing on record.

use std::fmt::Debug;

use prost::Message as _;
use signet_proto::admin::v1::evict_agents_request::Agents;
use signet_proto::admin::v1::explain_policy_request::Subject;
use signet_proto::admin::v1::{
    ApplyPolicyRequest, Attribute, AttributeList, BanRequest, CreateJoinTokenRequest, EvictAgentsRequest,
    ExplainPolicyRequest, ForgetIssuerRequest, GetPolicyRequest, ListAgentsRequest, ListBansRequest,
    ListPolicyRevisionsRequest, PolicyFile, RequestRenewalRequest, RevokeRequest, RollbackPolicyRequest, RotateRequest,
    TaintAuthorityRequest, UnbanRequest,
};
use signet_proto::identity::v1::attest_request::Proof;
use signet_proto::identity::v1::{
    AttestRequest, CertificateRequest, IssueRequest, RenewRequest, X509Possession, issue_result,
};
use tonic::{Code, Response, Status};

use crate::harness::{ID, Place, attest, csr, new_key, renew, request};
use crate::proving::{Machine, TOKENS, TokenMaker, of_cluster};
use crate::raw;

const OTHER: &str = "spiffe://other.org/shop/cart";
const RESERVED: &str = "spiffe://example.org/signet/issuer";

/// The longest that there is, or longer by so much.
fn id_longer_by(more: usize) -> String {
    let begin = "spiffe://example.org/";
    format!("{begin}{}", "a".repeat(2048 - begin.len() + more))
}

fn seconds(seconds: i64) -> Option<prost_types::Duration> {
    Some(prost_types::Duration { seconds, nanos: 0 })
}

/// How many of each there are.
async fn records(place: &Place) -> [i64; 7] {
    [
        place.count("SELECT count(*) FROM issued WHERE attestation <> 'issuer'").await,
        place.count("SELECT count(*) FROM attestations").await,
        place.count("SELECT count(*) FROM join_tokens").await,
        place.count("SELECT count(*) FROM used_proofs").await,
        place.count("SELECT count(*) FROM bans").await,
        place.count("SELECT count(*) FROM policy_revisions").await,
        place.count("SELECT count(*) FROM renewal_requests").await,
    ]
}

#[track_caller]
fn refused<T: Debug>(answer: Result<Response<T>, Status>, code: Code, begin: &str) {
    let status = answer.unwrap_err();
    assert_eq!(status.code(), code, "{status:?}");
    assert!(status.message().starts_with(begin), "not `{begin}`: {}", status.message());
}

/// Requests for certificates that are none.
fn bad_requests() -> [Vec<u8>; 4] {
    let good = csr(&new_key());
    [Vec::new(), b"csr".to_vec(), [&good[..], &[0]].concat(), vec![0x30; 4097]]
}

#[tokio::test(flavor = "multi_thread")]
async fn what_somebody_without_an_identity_says_is_bounded() {
    let more = format!("{TOKENS}\n  x509_pop: [{{ authority: dc-1, ca: dc-1.pem }}]");
    let place = Place::with(&more);
    let (maker, machine) = (TokenMaker::at(&place), Machine::at(&place));
    let issuer = place.serve().await;
    let token = issuer.token(ID).await;
    let before = records(&place).await;
    let mut client = issuer.stranger().await;
    let good = || request(Proof::JoinToken(token.clone()), csr(&new_key()));
    for (asked, begin) in [
        (AttestRequest { proof: None, ..good() }, "proof: "),
        (AttestRequest { spiffe_id: "cart".to_owned(), ..good() }, "spiffe_id: "),
        (AttestRequest { spiffe_id: id_longer_by(1), ..good() }, "spiffe_id: "),
        (AttestRequest { spiffe_id: id_longer_by(50_000), ..good() }, "spiffe_id: "),
        (AttestRequest { wait: seconds(-1), ..good() }, "wait: "),
        (AttestRequest { wait: seconds(i64::MIN), ..good() }, "wait: "),
    ] {
        refused(client.attest(asked).await, Code::InvalidArgument, begin);
    }
    for csr in bad_requests() {
        refused(attest(&mut client, &token, csr).await, Code::InvalidArgument, "csr: ");
    }
    let asked = AttestRequest { spiffe_id: id_longer_by(0), ..good() };
    refused(client.attest(asked).await, Code::PermissionDenied, "spiffe_id: ");

    let possession = machine.prove(&issuer, &csr(&new_key())).await;
    let link = possession.chain[0].clone();
    let chain = |chain| Proof::X509Pop(X509Possession { chain, ..possession.clone() });
    let challenge = |challenge| Proof::X509Pop(X509Possession { challenge, ..possession.clone() });
    for (proof, begin) in [
        (Proof::JoinToken("a".repeat(50_000)), "join_token: not accepted"),
        (of_cluster("prod", &"a".repeat(8193)), "k8s_sa_token: it is 8193 bytes long"),
        (of_cluster("prod", &"a".repeat(8192)), "k8s_sa_token: it is not a JSON Web Token"),
        (of_cluster(&"a".repeat(50_000), &maker.pod("shop", "cart")), "k8s_sa_token: there is no cluster `aaa"),
        (chain(Vec::new()), "x509_pop.chain: it holds 0 certificates"),
        (chain(vec![link.clone(); 5]), "x509_pop.chain: it holds 5 certificates"),
        (chain(vec![vec![0x30; 8193]]), "x509_pop.chain: a certificate of it is 8193 bytes long"),
        (chain(vec![link; 4]), "x509_pop.signature: "),
        (challenge(Vec::new()), "x509_pop.challenge: "),
        (challenge(vec![0; 50_000]), "x509_pop.challenge: "),
        (Proof::X509Pop(X509Possession { scheme: 0, ..possession.clone() }), "x509_pop.scheme: "),
        (Proof::X509Pop(X509Possession { signature: vec![0; 50_000], ..possession.clone() }), "x509_pop.signature: "),
    ] {
        refused(client.attest(request(proof, csr(&new_key()))).await, Code::Unauthenticated, begin);
    }
    let long = Proof::JoinToken("a".repeat(64 << 10));
    refused(client.attest(request(long, csr(&new_key()))).await, Code::OutOfRange, "");
    assert_eq!(records(&place).await, before);
    // Nothing of that has used it up.
    let asked = AttestRequest { spiffe_id: ID.to_owned(), wait: seconds(i64::MAX), ..good() };
    client.attest(asked).await.unwrap();
    issuer.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_holder_of_an_identity_says_is_bounded() {
    let place = Place::new();
    let issuer = place.serve().await;
    issuer
        .apply(&format!(
            "rules: [{{ name: db, match: {{ svid.spiffe_id: '{ID}' }}, spiffe_id: '{ID}/db', profile: tls-server, ttl: 1h }}]"
        ))
        .await;
    let mut client = issuer.client_of(&issuer.join(ID).await).await;
    let before = records(&place).await;
    for csr in bad_requests() {
        refused(renew(&mut client, csr).await, Code::InvalidArgument, "csr: ");
    }
    refused(
        client.renew(RenewRequest { csr: vec![0; 64 << 10], ..RenewRequest::default() }).await,
        Code::OutOfRange,
        "",
    );
    for count in [0, 101] {
        let requests = vec![CertificateRequest::default(); count];
        refused(client.issue(IssueRequest { requests }).await, Code::InvalidArgument, "requests: ");
    }
    let good = || CertificateRequest { csr: csr(&new_key()), profile: "tls-server".to_owned(), ..Default::default() };
    let bad_csr = bad_requests().map(|csr| (CertificateRequest { csr, ..good() }, Code::InvalidArgument, "csr: "));
    let mut bad = vec![
        (CertificateRequest { spiffe_id: "cart".to_owned(), ..good() }, Code::InvalidArgument, "spiffe_id: "),
        (CertificateRequest { spiffe_id: id_longer_by(1), ..good() }, Code::InvalidArgument, "spiffe_id: "),
        (CertificateRequest { spiffe_id: id_longer_by(0), ..good() }, Code::PermissionDenied, "spiffe_id: "),
        (CertificateRequest { spiffe_id: OTHER.to_owned(), ..good() }, Code::PermissionDenied, "spiffe_id: "),
        (CertificateRequest { profile: "a".repeat(20_000), ..good() }, Code::InvalidArgument, "profile: "),
        (CertificateRequest { ttl: seconds(i64::MIN), ..good() }, Code::InvalidArgument, "ttl: "),
        (CertificateRequest { ttl: seconds(0), ..good() }, Code::InvalidArgument, "ttl: "),
        (CertificateRequest { ttl: seconds(9), ..good() }, Code::InvalidArgument, "ttl: "),
        (CertificateRequest { ttl: seconds(3601), ..good() }, Code::InvalidArgument, "ttl: "),
        (CertificateRequest { ttl: seconds(i64::MAX), ..good() }, Code::InvalidArgument, "ttl: "),
    ];
    bad.extend(bad_csr);
    let requests = bad.iter().map(|(request, ..)| request.clone()).collect();
    let answer = client.issue(IssueRequest { requests }).await.unwrap().into_inner();
    assert_eq!(answer.results.len(), bad.len());
    for (index, (result, (_, code, begin))) in answer.results.into_iter().zip(bad).enumerate() {
        let Some(issue_result::Result::Refusal(refusal)) = result.result else { panic!("{index}: {result:?}") };
        assert_eq!(refusal.code, i32::from(code), "{refusal:?}");
        assert!(refusal.message.starts_with(&format!("requests[{index}]: {begin}")), "{}", refusal.message);
    }
    assert_eq!(records(&place).await, before);
    let requests = vec![CertificateRequest { spiffe_id: format!("{ID}/db"), ttl: seconds(10), ..good() }];
    let answer = client.issue(IssueRequest { requests }).await.unwrap().into_inner();
    assert!(matches!(answer.results[0].result, Some(issue_result::Result::Certificate(_))), "{answer:?}");
    client.issue(IssueRequest { requests: vec![CertificateRequest::default(); 100] }).await.unwrap();
    issuer.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_operator_says_of_identities_is_bounded() {
    let place = Place::new();
    let issuer = place.serve().await;
    let mut admin = issuer.admin().await;
    let before = records(&place).await;
    let invalid = Code::InvalidArgument;
    let long = || "a".repeat(1025);
    for id in ["cart", OTHER, RESERVED, &id_longer_by(1), &id_longer_by(50_000), "spiffe://example.org"] {
        let spiffe_id = id.to_owned();
        let ban = BanRequest { spiffe_id: spiffe_id.clone(), reason: String::new() };
        refused(admin.ban(ban).await, invalid, "spiffe_id: ");
        refused(admin.unban(UnbanRequest { spiffe_id: spiffe_id.clone() }).await, invalid, "spiffe_id: ");
        let token = CreateJoinTokenRequest { spiffe_id: spiffe_id.clone(), ttl: None };
        refused(admin.create_join_token(token).await, invalid, "spiffe_id: ");
        let renewal = RequestRenewalRequest { spiffe_id: spiffe_id.clone(), within: None };
        refused(admin.request_renewal(renewal).await, invalid, "spiffe_id: ");
        let agents = Some(Agents::SpiffeId(spiffe_id.clone()));
        refused(admin.evict_agents(EvictAgentsRequest { agents }).await, invalid, "spiffe_id: ");
        if id != RESERVED {
            let subject = Some(Subject::SpiffeId(spiffe_id));
            refused(admin.explain_policy(ExplainPolicyRequest { subject }).await, invalid, "spiffe_id: ");
        }
    }
    refused(admin.ban(BanRequest::default()).await, invalid, "spiffe_id: ");
    refused(admin.unban(UnbanRequest::default()).await, invalid, "spiffe_id: ");
    refused(admin.unban(UnbanRequest { spiffe_id: ID.to_owned() }).await, Code::NotFound, "spiffe_id: ");
    refused(admin.create_join_token(CreateJoinTokenRequest::default()).await, invalid, "spiffe_id: ");
    refused(admin.evict_agents(EvictAgentsRequest::default()).await, invalid, "agents: ");
    for number in [0, 4711, u64::MAX] {
        let evict = EvictAgentsRequest { agents: Some(Agents::Number(number)) };
        refused(admin.evict_agents(evict).await, Code::NotFound, "number: ");
        let explain = ExplainPolicyRequest { subject: Some(Subject::Agent(number)) };
        refused(admin.explain_policy(explain).await, Code::NotFound, "agent: ");
    }
    let id = || ID.to_owned();
    for ttl in
        [seconds(0), seconds(-1), seconds(24 * 3600 + 1), seconds(25 * 3600), seconds(i64::MAX), seconds(i64::MIN)]
    {
        refused(admin.create_join_token(CreateJoinTokenRequest { spiffe_id: id(), ttl }).await, invalid, "ttl: ");
    }
    for within in [seconds(-1), seconds(24 * 3600 + 1), seconds(i64::MAX)] {
        refused(admin.request_renewal(RequestRenewalRequest { spiffe_id: id(), within }).await, invalid, "within: ");
    }
    for reason in [long(), "a\u{1b}[2J".to_owned()] {
        refused(admin.ban(BanRequest { spiffe_id: id(), reason }).await, invalid, "reason: ");
    }
    for issuer in [String::new(), "a".repeat(50_000), "\u{1b}[2J".to_owned()] {
        refused(admin.forget_issuer(ForgetIssuerRequest { issuer }).await, Code::NotFound, "issuer: ");
    }
    let page = |limit| ListAgentsRequest { limit, ..Default::default() };
    refused(admin.list_agents(page(1001)).await, invalid, "limit: ");
    let of = ListAgentsRequest { spiffe_id: "cart".to_owned(), ..Default::default() };
    refused(admin.list_agents(of).await, invalid, "spiffe_id: ");
    refused(admin.list_bans(ListBansRequest { limit: 1001, ..Default::default() }).await, invalid, "limit: ");
    refused(admin.list_bans(ListBansRequest { after: "cart".to_owned(), limit: 0 }).await, invalid, "after: ");
    assert_eq!(records(&place).await, before);

    admin.list_agents(ListAgentsRequest { after: u64::MAX, ..page(1000) }).await.unwrap();
    admin.list_bans(ListBansRequest { limit: 1000, after: ID.to_owned() }).await.unwrap();
    let day = seconds(24 * 3600);
    admin.create_join_token(CreateJoinTokenRequest { spiffe_id: id_longer_by(0), ttl: day }).await.unwrap();
    admin.request_renewal(RequestRenewalRequest { spiffe_id: id(), within: day }).await.unwrap();
    admin.ban(BanRequest { spiffe_id: id_longer_by(0), reason: "a".repeat(1024) }).await.unwrap();
    let [issued, attestations, tokens, proofs, bans, revisions, renewals] = before;
    let after = [issued, attestations, tokens + 1, proofs, bans + 1, revisions, renewals + 1];
    assert_eq!(records(&place).await, after);
    issuer.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_operator_says_of_authorities_and_revocations_is_bounded() {
    let place = Place::new();
    let issuer = place.serve().await;
    let mut admin = issuer.admin().await;
    for comment in ["a".repeat(1025), "\u{1b}[2J".to_owned()] {
        let of = |comment: &str| comment.to_owned();
        let taint = TaintAuthorityRequest { comment: of(&comment), ..Default::default() };
        refused(admin.taint_authority(taint).await, Code::InvalidArgument, "comment: ");
        let rotate = RotateRequest { comment: of(&comment), ..Default::default() };
        refused(admin.rotate(rotate).await, Code::InvalidArgument, "comment: ");
        let revoke = RevokeRequest { comment, reason: 1, ..Default::default() };
        refused(admin.revoke(revoke).await, Code::InvalidArgument, "comment: ");
    }
    issuer.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_operator_says_of_the_policy_is_bounded() {
    let place = Place::new();
    let issuer = place.serve().await;
    let mut admin = issuer.admin().await;
    let before = records(&place).await;
    let invalid = Code::InvalidArgument;
    let rule = |name: usize, pods: &str| {
        format!("- {{ name: r{name}, match: {{ k8s.pod: {pods} }}, spiffe_id: '{ID}/{name}' }}\n")
    };
    let file = |name: &str, rules: &str| PolicyFile { name: name.to_owned(), text: format!("rules:\n{rules}") };
    let apply = |files| ApplyPolicyRequest { files, ..Default::default() };
    let good = || apply(vec![file("p.yaml", &rule(0, "a"))]);
    for comment in ["a".repeat(1025), "\u{1b}[2J".to_owned()] {
        let roll_back = RollbackPolicyRequest { comment: comment.clone(), ..Default::default() };
        refused(admin.rollback_policy(roll_back).await, invalid, "comment: ");
        refused(admin.apply_policy(ApplyPolicyRequest { comment, ..good() }).await, invalid, "comment: ");
    }
    for name in ["a".repeat(4097), "\u{1b}[2J".to_owned()] {
        refused(admin.apply_policy(apply(vec![file(&name, "")])).await, invalid, "files: ");
    }
    let other = ApplyPolicyRequest { expected_revision: Some(7), ..good() };
    refused(admin.apply_policy(other).await, Code::Aborted, "expected_revision: ");
    let roll_back =
        |revision, expected_revision| RollbackPolicyRequest { revision, expected_revision, ..Default::default() };
    refused(admin.rollback_policy(roll_back(Some(0), Some(7))).await, Code::Aborted, "expected_revision: ");
    for revision in [1, u64::MAX] {
        let revision = Some(revision);
        refused(admin.get_policy(GetPolicyRequest { revision }).await, Code::NotFound, "revision: ");
        refused(admin.rollback_policy(roll_back(revision, None)).await, Code::NotFound, "revision: ");
    }
    refused(admin.rollback_policy(roll_back(None, None)).await, Code::NotFound, "revision: ");
    let history = |limit, before| ListPolicyRevisionsRequest { limit, before };
    refused(admin.list_policy_revisions(history(1001, None)).await, invalid, "limit: ");

    // A list of 16 KiB that each of 100 files has 90 times: 2 MB that would be 150.
    let values = vec!["a".repeat(1024); 16].join(",");
    let aliases: String = (1..90).map(|number| rule(number, "*all")).collect();
    let bombs = (0..100)
        .map(|number| file(&format!("{number}.yaml"), &format!("{}{aliases}", rule(0, &format!("&all [{values}]")))));
    let bombs = ApplyPolicyRequest { dry_run: true, ..apply(bombs.collect()) };
    refused(admin.apply_policy(bombs).await, invalid, "0.yaml:2:");
    let many: String = (0..20_001).map(|number| rule(number, "a")).collect();
    refused(admin.apply_policy(apply(vec![file("many.yaml", &many)])).await, invalid, "many.yaml:20002:");

    let explain = |subject| ExplainPolicyRequest { subject };
    let pairs = |count, name: &str, value: &str| {
        let attribute = Attribute { name: name.to_owned(), value: value.to_owned() };
        explain(Some(Subject::Attributes(AttributeList { attributes: vec![attribute; count] })))
    };
    refused(admin.explain_policy(explain(None)).await, invalid, "subject: ");
    refused(admin.explain_policy(pairs(65, "x509.dns", "a")).await, invalid, "attributes: ");
    refused(admin.explain_policy(pairs(1, "x509.dns", &"a".repeat(1025))).await, invalid, "attributes: ");
    refused(admin.explain_policy(pairs(1, "shoe.size", "43")).await, invalid, "attributes: ");
    refused(admin.explain_policy(pairs(1, &"a".repeat(50_000), "43")).await, invalid, "attributes: ");
    assert_eq!(records(&place).await, before);

    admin.explain_policy(pairs(64, "x509.dns", &"a".repeat(900))).await.unwrap();
    admin.list_policy_revisions(history(1000, Some(u64::MAX))).await.unwrap();
    let commented = ApplyPolicyRequest { comment: "a".repeat(1024), expected_revision: Some(0), ..good() };
    admin.apply_policy(commented).await.unwrap();
    admin.rollback_policy(roll_back(Some(0), Some(1))).await.unwrap();
    assert_eq!(records(&place).await[5], before[5] + 2);
    issuer.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_message_of_an_operator_is_longer_than_its_call_takes() {
    let place = Place::new();
    let issuer = place.serve().await;
    let before = records(&place).await;
    let described = prost_types::FileDescriptorSet::decode(signet_proto::FILE_DESCRIPTOR_SET).unwrap();
    let file = described.file.iter().find(|file| file.package() == "signet.admin.v1" && !file.service.is_empty());
    let service = &file.unwrap().service[0];
    assert!(service.method.len() >= 15, "{:?}", service.method);
    let channel = issuer.admin_channel().await;
    for method in &service.method {
        let path = format!("/signet.admin.v1.{}/{}", service.name(), method.name());
        let most: usize = match method.name() {
            "ApplyPolicy" => 8 << 20,
            "Revoke" => 512 << 10,
            _ => 64 << 10,
        };
        // A field that nobody knows, of this length.
        let message = |bytes: usize| {
            let mut message = vec![0xfa, 0x01];
            prost::encoding::encode_varint((bytes - message.len() - 4) as u64, &mut message);
            message.resize(bytes, 0);
            message
        };
        refused(raw::call(channel.clone(), &path, message(most + 1)).await, Code::OutOfRange, "");
        if let Err(status) = raw::call(channel.clone(), &path, message(most)).await {
            assert_ne!(status.code(), Code::OutOfRange, "{path}: {status:?}");
        }
    }
    assert_eq!(records(&place).await[2..], before[2..]);
    issuer.stop().await;
}
