//! Who may administer what, over mTLS.

use signet_proto::admin::v1::admin_service_client::AdminServiceClient;
use signet_proto::admin::v1::evict_agents_request::Agents;
use signet_proto::admin::v1::rotate_request::What;
use signet_proto::admin::v1::{
    ApplyPolicyRequest, Attribute, AttributeList, BackupRequest, BanRequest, CreateJoinTokenRequest,
    EvictAgentsRequest, ExplainPolicyRequest, GetPolicyRequest, GetRotationRequest, GetStatusRequest,
    ListAgentsRequest, ListBansRequest, ListPolicyRevisionsRequest, PolicyFile, RequestRenewalRequest,
    RollbackPolicyRequest, RootRotation, RotateRequest, explain_policy_request,
};
use tonic::transport::Channel;
use tonic::{Code, Status};

use crate::harness::{Identity, Issuer, Place};

const ROLES: &str = "administration:
  - { role: operator, scope: /shop, spiffe_ids: [\"spiffe://example.org/people/ann\"] }
  - { role: administrator, scope: /people, spiffe_ids: [\"spiffe://example.org/boss\"] }
  - { role: viewer, spiffe_ids: [\"spiffe://example.org/people/eve\"] }";
const ANN: &str = "spiffe://example.org/people/ann";

async fn admin(issuer: &Issuer, identity: &Identity) -> AdminServiceClient<Channel> {
    AdminServiceClient::new(issuer.channel_of(identity).await)
}

fn rule(name: &str, path: &str) -> String {
    format!("- {{ name: {name}, match: {{ k8s.pod: {name} }}, spiffe_id: 'spiffe://example.org{path}' }}\n")
}

async fn apply(client: &mut AdminServiceClient<Channel>, rules: &[String], prune: bool) -> Result<u64, Status> {
    let file = PolicyFile { name: "policy.yaml".to_owned(), text: format!("rules:\n{}", rules.concat()) };
    let request = ApplyPolicyRequest { files: vec![file], prune, ..Default::default() };
    Ok(client.apply_policy(request).await?.into_inner().revision)
}

async fn token(client: &mut AdminServiceClient<Channel>, id: &str) -> Result<(), Status> {
    client.create_join_token(CreateJoinTokenRequest { spiffe_id: id.to_owned(), ttl: None }).await.map(drop)
}

#[track_caller]
fn denied<T: std::fmt::Debug>(outcome: Result<T, Status>) {
    assert_eq!(outcome.unwrap_err().code(), Code::PermissionDenied);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_of_shop_cannot_touch_billing() {
    let place = Place::with(ROLES);
    let issuer = place.serve().await;
    issuer.apply(&format!("rules:\n{}", rule("billing", "/billing/pay"))).await;
    let ann = issuer.join(ANN).await;
    let mut ann = admin(&issuer, &ann).await;

    token(&mut ann, "spiffe://example.org/shop/cart").await.unwrap();
    for id in ["spiffe://example.org/billing/pay", "spiffe://example.org/shops", "spiffe://example.org/people/bob"] {
        denied(token(&mut ann, id).await);
    }
    // Her own rules she changes, also where pruning would take others along.
    assert_eq!(apply(&mut ann, &[rule("cart", "/shop/cart"), rule("web", "/shop/{k8s.pod}")], true).await.unwrap(), 2);
    assert_eq!(apply(&mut ann, &[rule("cart", "/shop/cart")], true).await.unwrap(), 3);
    for rules in [
        rule("pay", "/billing/other"),
        rule("wide", "/{k8s.pod}"),
        rule("near", "/shop{k8s.pod}/a"),
        // Another's rule made hers, and hers made another's.
        rule("billing", "/shop/billing"),
        rule("cart", "/billing/cart"),
    ] {
        denied(apply(&mut ann, std::slice::from_ref(&rules), false).await);
    }
    let policy = ann.get_policy(GetPolicyRequest::default()).await.unwrap().into_inner().yaml;
    assert!(policy.contains("/shop/cart") && !policy.contains("billing"), "{policy}");
    // Everything else is as it was.
    let whole = issuer.admin().await.get_policy(GetPolicyRequest::default()).await.unwrap().into_inner().yaml;
    assert!(whole.contains("/billing/pay") && whole.contains("/shop/cart"), "{whole}");
    denied(ann.rollback_policy(RollbackPolicyRequest { revision: Some(0), ..Default::default() }).await);
    denied(ann.request_renewal(RequestRenewalRequest::default()).await);
    issuer.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_bans_and_sees_in_its_own_part_only() {
    let place = Place::with(ROLES);
    let issuer = place.serve().await;
    issuer.join("spiffe://example.org/shop/cart").await;
    issuer.join("spiffe://example.org/billing/pay").await;
    let ann = issuer.join(ANN).await;
    let mut ann = admin(&issuer, &ann).await;
    let agents = ann.list_agents(ListAgentsRequest::default()).await.unwrap().into_inner().agents;
    assert_eq!(
        agents.iter().map(|agent| agent.spiffe_id.as_str()).collect::<Vec<_>>(),
        ["spiffe://example.org/shop/cart"]
    );
    let all = issuer.admin().await.list_agents(ListAgentsRequest::default()).await.unwrap().into_inner().agents;
    let foreign = all.iter().find(|agent| agent.spiffe_id.ends_with("/pay")).unwrap().number;
    // She is not told whose it is, nor that there is one.
    for number in [foreign, 4711] {
        let subject = Some(explain_policy_request::Subject::Agent(number));
        let refused = ann.explain_policy(ExplainPolicyRequest { subject }).await.unwrap_err();
        assert_eq!(refused.message(), format!("agent: there is no agent {number}"));
        let refused = ann.evict_agents(EvictAgentsRequest { agents: Some(Agents::Number(number)) }).await.unwrap_err();
        assert_eq!(refused.code(), Code::NotFound);
        assert_eq!(refused.message(), format!("number: there is no agent {number}"));
    }
    let pay = Agents::SpiffeId("spiffe://example.org/billing/pay".to_owned());
    denied(ann.evict_agents(EvictAgentsRequest { agents: Some(pay) }).await);
    let ban = |id: &str| BanRequest { spiffe_id: id.to_owned(), reason: String::new() };
    denied(ann.ban(ban("spiffe://example.org/billing/pay")).await);
    ann.ban(ban("spiffe://example.org/shop/cart")).await.unwrap();
    issuer.admin().await.ban(ban("spiffe://example.org/billing/pay")).await.unwrap();
    let bans = ann.list_bans(ListBansRequest::default()).await.unwrap().into_inner().bans;
    assert_eq!((bans.len(), bans[0].actor.as_str()), (1, ANN));
    // Whoever is banned is no administrator any more, whatever its certificate says.
    issuer.admin().await.ban(ban(ANN)).await.unwrap();
    denied(ann.get_status(GetStatusRequest {}).await);
    issuer.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_viewer_changes_nothing_and_a_stranger_is_let_in_nowhere() {
    let place = Place::with(ROLES);
    let issuer = place.serve().await;
    let eve = issuer.join("spiffe://example.org/people/eve").await;
    let mut eve = admin(&issuer, &eve).await;
    eve.get_status(GetStatusRequest {}).await.unwrap();
    denied(token(&mut eve, "spiffe://example.org/shop/cart").await);
    denied(apply(&mut eve, &[rule("cart", "/shop/cart")], false).await);
    let workload = issuer.join("spiffe://example.org/shop/cart").await;
    denied(admin(&issuer, &workload).await.get_status(GetStatusRequest {}).await);
    let nobody = AdminServiceClient::new(issuer.channel_of_stranger().await).get_status(GetStatusRequest {}).await;
    assert_eq!(nobody.unwrap_err().code(), Code::Unauthenticated);
    issuer.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_rule_gives_a_role_away() {
    let place = Place::with(ROLES);
    let issuer = place.serve().await;
    for path in ["/people/ann", "/people/{k8s.pod}"] {
        let refused = apply(&mut issuer.admin().await, &[rule("a", path)], false).await.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument, "{path}");
    }
    issuer.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_decides_over_a_part_gives_no_role_of_another() {
    let place = Place::with(ROLES);
    let issuer = place.serve().await;
    let boss = issuer.join("spiffe://example.org/boss").await;
    let mut boss = admin(&issuer, &boss).await;
    token(&mut boss, "spiffe://example.org/people/bob").await.unwrap();
    // Ann has a say in `/shop`.
    denied(token(&mut boss, ANN).await);
    denied(boss.ban(BanRequest { spiffe_id: ANN.to_owned(), reason: String::new() }).await);
    denied(boss.evict_agents(EvictAgentsRequest { agents: Some(Agents::SpiffeId(ANN.to_owned())) }).await);
    issuer.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_is_for_administrators_of_the_whole_trust_domain() {
    let place = Place::with(ROLES);
    let issuer = place.serve().await;
    let key = "signet-backup-v1+6d3b67a5+AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=".to_owned();
    let ann = issuer.join(ANN).await;
    let mut ann = admin(&issuer, &ann).await;
    denied(ann.backup(BackupRequest { key }).await.map(drop));
    // The owner's.
    let mut owner = issuer.admin().await;
    let wrong = owner.backup(BackupRequest { key: "signet-backup-v1".to_owned() }).await.unwrap_err();
    assert_eq!(wrong.code(), Code::InvalidArgument);
    issuer.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_of_a_part_learns_nothing_of_others() {
    let place = Place::with(ROLES);
    let issuer = place.serve().await;
    let mut owner = issuer.admin().await;
    apply(&mut owner, &[rule("pay", "/billing/secret"), rule("cart", "/shop/cart")], false).await.unwrap();
    apply(&mut owner, &[rule("pay", "/billing/other")], false).await.unwrap();
    let ann = issuer.join(ANN).await;
    let mut ann = admin(&issuer, &ann).await;

    let refused = apply(&mut ann, &[rule("pay", "/shop/pay")], false).await.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied);
    assert!(!refused.message().contains("billing"), "{}", refused.message());
    for dry_run in [true, false] {
        let request = RollbackPolicyRequest { revision: Some(1), dry_run, ..Default::default() };
        let refused = ann.rollback_policy(request).await.unwrap_err();
        assert_eq!(refused.message(), "that revision differs in rules that are not yours");
    }
    let text = format!("rules:\n{}", rule("cart", "/shop/cart"));
    let files = vec![PolicyFile { name: "policy.yaml".to_owned(), text }];
    let same = ann.apply_policy(ApplyPolicyRequest { files, ..Default::default() }).await.unwrap().into_inner();
    assert_eq!((same.changes.len(), same.unchanged), (0, 1));
    let own = apply(&mut ann, &[rule("web", "/shop/web")], false).await.unwrap();
    let history = ann.list_policy_revisions(ListPolicyRevisionsRequest::default()).await.unwrap().into_inner();
    for revision in history.revisions {
        let expected = if revision.revision == own { ANN } else { "" };
        assert_eq!((revision.actor.as_str(), revision.rules), (expected, 0));
    }
    let seen = ann.get_policy(GetPolicyRequest::default()).await.unwrap().into_inner();
    assert_eq!(seen.revision.unwrap().rules, 2);
    issuer.join("spiffe://example.org/billing/other").await;
    let subject = explain_policy_request::Subject::SpiffeId("spiffe://example.org/billing/other".to_owned());
    let explained = ann.explain_policy(ExplainPolicyRequest { subject: Some(subject) }).await.unwrap().into_inner();
    assert!(explained.outcomes.is_empty() && explained.issued.is_empty() && explained.seen_by.is_empty());
    let pod = Attribute { name: "k8s.pod".to_owned(), value: "pay".to_owned() };
    let subject = explain_policy_request::Subject::Attributes(AttributeList { attributes: vec![pod] });
    let explained = ann.explain_policy(ExplainPolicyRequest { subject: Some(subject) }).await.unwrap().into_inner();
    assert_eq!(explained.outcomes.iter().map(|outcome| outcome.rule.as_str()).collect::<Vec<_>>(), ["cart", "web"]);
    issuer.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_administrator_says_is_bounded() {
    let place = Place::with(ROLES);
    let issuer = place.serve().await;
    let eve = issuer.join("spiffe://example.org/people/eve").await;
    let mut eve = admin(&issuer, &eve).await;
    // Two bytes of a message each, and forty-eight of memory.
    let subject =
        explain_policy_request::Subject::Attributes(AttributeList { attributes: vec![Attribute::default(); 40_000] });
    let refused = eve.explain_policy(ExplainPolicyRequest { subject: Some(subject) }).await.unwrap_err();
    assert_eq!(refused.code(), Code::OutOfRange, "{refused:?}");
    // The places of what was refused are free again.
    for _ in 0..10 {
        eve.get_status(GetStatusRequest {}).await.unwrap();
    }
    let mut owner = issuer.admin().await;
    let file = |name: String| PolicyFile { name, text: "rules: []".to_owned() };
    for name in ["a".repeat(5000), "a\u{1b}[2J".to_owned()] {
        let request = ApplyPolicyRequest { files: vec![file(name)], ..Default::default() };
        assert_eq!(owner.apply_policy(request).await.unwrap_err().code(), Code::InvalidArgument);
    }
    let ban = BanRequest { spiffe_id: "spiffe://example.org/x".to_owned(), reason: "\u{1b}]0;x".to_owned() };
    assert_eq!(owner.ban(ban).await.unwrap_err().code(), Code::InvalidArgument);
    let page = ListBansRequest { after: "\0".to_owned(), limit: 1 };
    assert_eq!(owner.list_bans(page).await.unwrap_err().code(), Code::InvalidArgument);
    issuer.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_hurries_a_rotation_that_somebody_else_has_begun_is_the_one_who_is_on_record_for_it() {
    const EVE: &str = "spiffe://example.org/people/eve";
    let place = Place::with(&format!("administration: [{{ role: administrator, spiffe_ids: [\"{EVE}\"] }}]"));
    let issuer = place.serve().await;
    let eve = issuer.join(EVE).await;
    let mut eve = admin(&issuer, &eve).await;
    place.make_root("next", "example.org");
    let root_pem = std::fs::read_to_string(place.path("next/root.pem")).unwrap();
    let what = Some(What::Root(RootRotation { root_pem }));
    let begin = RotateRequest { what: what.clone(), ..RotateRequest::default() };
    let begun = issuer.admin().await.rotate(begin).await.unwrap().into_inner().rotation.unwrap();
    assert!(begun.actor.starts_with("uid:") && begun.overridden_by.is_empty(), "{begun:?}");
    let hurry = RotateRequest { what, override_acknowledgements: true, ..RotateRequest::default() };
    let hurried = eve.rotate(hurry).await.unwrap().into_inner().rotation.unwrap();
    assert_eq!((&hurried.actor, hurried.overridden_by.as_str()), (&begun.actor, EVE));
    issuer.stop().await;
    // Nor does a restart forget it.
    let issuer = place.serve().await;
    let status = issuer.admin().await.get_rotation(GetRotationRequest {}).await.unwrap().into_inner();
    assert_eq!(status.rotation.unwrap().overridden_by, EVE);
    issuer.stop().await;
}
