//! What is taken from those who attested themselves: eviction and bans.

use signet_proto::admin::v1::evict_agents_request::Agents;
use signet_proto::admin::v1::explain_policy_request::Subject;
use signet_proto::admin::v1::{
    Attribute, AttributeList, BanRequest, EvictAgentsRequest, ExplainPolicyRequest, ListAgentsRequest, ListBansRequest,
    UnbanRequest, rule_outcome,
};
use signet_proto::identity::v1::WatchResponse;
use tonic::{Code, Status, Streaming};

use crate::harness::{ID, Identity, Issuer, Place, attest, csr, eventually, hello, new_key, renew};
use crate::proving::{PODS, TOKENS, TokenMaker, of_cluster, prove};

async fn watch(issuer: &Issuer, identity: &Identity) -> Result<Streaming<WatchResponse>, Status> {
    Ok(issuer.client_of(identity).await.watch(hello()).await?.into_inner())
}

async fn evict(issuer: &Issuer, agents: Agents) -> u32 {
    let request = EvictAgentsRequest { agents: Some(agents) };
    issuer.admin().await.evict_agents(request).await.unwrap().into_inner().agents
}

/// The stream has its first message behind it, and ends.
async fn has_ended(mut stream: Streaming<WatchResponse>) -> bool {
    while let Ok(Some(_)) = stream.message().await {}
    true
}

#[tokio::test(flavor = "multi_thread")]
async fn a_banned_gateway_loses_its_stream_and_gets_nothing_more() {
    let place = Place::new();
    let issuer = place.serve().await;
    let (gateway, other) = (issuer.join(ID).await, issuer.join("spiffe://example.org/other").await);
    let (stream, mut kept) = (watch(&issuer, &gateway).await.unwrap(), watch(&issuer, &other).await.unwrap());
    let token = issuer.token(ID).await;
    let reason = "stolen".to_owned();
    issuer.admin().await.ban(BanRequest { spiffe_id: ID.to_owned(), reason }).await.unwrap();
    assert!(has_ended(stream).await);

    assert_eq!(watch(&issuer, &gateway).await.unwrap_err().code(), Code::PermissionDenied);
    let mut client = issuer.client_of(&gateway).await;
    assert_eq!(renew(&mut client, csr(&new_key())).await.unwrap_err().code(), Code::PermissionDenied);
    let refused = attest(&mut issuer.stranger().await, &token, csr(&new_key())).await.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied);
    assert!(kept.message().await.unwrap().is_some());
    renew(&mut issuer.client_of(&other).await, csr(&new_key())).await.unwrap();

    let bans = issuer.admin().await.list_bans(ListBansRequest::default()).await.unwrap().into_inner().bans;
    assert_eq!((bans.len(), bans[0].spiffe_id.as_str(), bans[0].reason.as_str()), (1, ID, "stolen"));
    assert!(bans[0].actor.starts_with("uid:"));
    issuer.admin().await.unban(UnbanRequest { spiffe_id: ID.to_owned() }).await.unwrap();
    let again = issuer.admin().await.unban(UnbanRequest { spiffe_id: ID.to_owned() }).await.unwrap_err();
    assert_eq!(again.code(), Code::NotFound);
    renew(&mut client, csr(&new_key())).await.unwrap();
    // The ban cost no token.
    attest(&mut issuer.stranger().await, &token, csr(&new_key())).await.unwrap();
    issuer.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ban_outlives_a_restart() {
    let place = Place::new();
    let issuer = place.serve().await;
    let gateway = issuer.join(ID).await;
    issuer.admin().await.ban(BanRequest { spiffe_id: ID.to_owned(), reason: String::new() }).await.unwrap();
    issuer.stop().await;
    let issuer = place.serve().await;
    let refused = renew(&mut issuer.client_of(&gateway).await, csr(&new_key())).await.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied);
    issuer.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_of_an_identity_is_evicted_and_the_others_stay() {
    let place = Place::new();
    let issuer = place.serve().await;
    let (one, two) = (issuer.join(ID).await, issuer.join(ID).await);
    let (stream, _kept) = (watch(&issuer, &one).await.unwrap(), watch(&issuer, &two).await.unwrap());
    let list = async || {
        let request = ListAgentsRequest { spiffe_id: ID.to_owned(), ..Default::default() };
        issuer.admin().await.list_agents(request).await.unwrap().into_inner().agents
    };
    eventually("both are connected", async || list().await.iter().filter(|agent| agent.connected).count() == 2).await;
    let agents = list().await;
    let number = agents.iter().find(|agent| agent.serial == one.svid.serial().to_string()).unwrap().number;
    assert!(agents.iter().all(|agent| agent.method == "join_token" && agent.spiffe_id == ID));

    assert_eq!(evict(&issuer, Agents::Number(number)).await, 1);
    assert!(has_ended(stream).await);
    let mut client = issuer.client_of(&one).await;
    assert_eq!(renew(&mut client, csr(&new_key())).await.unwrap_err().code(), Code::PermissionDenied);
    assert_eq!(watch(&issuer, &one).await.unwrap_err().code(), Code::PermissionDenied);
    assert_eq!(list().await.len(), 1);
    // A renewal of the other one is of the same attestation.
    let renewed = renew(&mut issuer.client_of(&two).await, csr(&new_key())).await.unwrap();
    let serial = list().await[0].serial.clone();
    assert_ne!(serial, two.svid.serial().to_string());
    assert_eq!(renewed.into_inner().svid.unwrap().spiffe_id, ID);

    assert_eq!(evict(&issuer, Agents::SpiffeId(ID.to_owned())).await, 1);
    assert!(list().await.is_empty());
    // Whoever was evicted may come back with another proof.
    issuer.join(ID).await;
    assert_eq!(list().await.len(), 1);
    issuer.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_issuer_itself_is_not_banned() {
    let place = Place::new();
    let issuer = place.serve().await;
    for id in ["spiffe://example.org/signet/issuer", "spiffe://other.org/a", "cart", ""] {
        let request = BanRequest { spiffe_id: id.to_owned(), reason: String::new() };
        assert_eq!(issuer.admin().await.ban(request).await.unwrap_err().code(), Code::InvalidArgument);
        let evict = EvictAgentsRequest { agents: Some(Agents::SpiffeId(id.to_owned())) };
        assert_eq!(issuer.admin().await.evict_agents(evict).await.unwrap_err().code(), Code::InvalidArgument);
    }
    let long = BanRequest { spiffe_id: ID.to_owned(), reason: "x".repeat(1025) };
    assert_eq!(issuer.admin().await.ban(long).await.unwrap_err().code(), Code::InvalidArgument);
    issuer.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_is_explained_with_what_was_issued_and_who_may_see_it() {
    let place = Place::with("administration: [{ role: viewer, scope: /shop, users: [4711] }]");
    let issuer = place.serve().await;
    let gateway = issuer.join(ID).await;
    renew(&mut issuer.client_of(&gateway).await, csr(&new_key())).await.unwrap();
    let explain =
        async |subject| issuer.admin().await.explain_policy(ExplainPolicyRequest { subject: Some(subject) }).await;
    let number =
        issuer.admin().await.list_agents(ListAgentsRequest::default()).await.unwrap().into_inner().agents[0].number;
    let told = explain(Subject::Agent(number)).await.unwrap().into_inner();
    let attestation = told.attestation.unwrap();
    assert_eq!(
        (attestation.spiffe_id.as_str(), attestation.method.as_str(), attestation.banned),
        (ID, "join_token", false)
    );
    assert_eq!(
        told.issued.iter().map(|issued| issued.attestation.as_str()).collect::<Vec<_>>(),
        ["x509_svid", "join_token"]
    );
    assert_eq!(told.issued[1].serial, gateway.svid.serial().to_string());
    let seen_by: Vec<_> = told.seen_by.iter().map(|seer| (seer.role.as_str(), seer.scope.as_str())).collect();
    assert_eq!(seen_by, [("administrator", "/"), ("viewer", "/shop")]);

    evict(&issuer, Agents::Number(number)).await;
    let told = explain(Subject::Agent(number)).await.unwrap().into_inner();
    assert!(told.attestation.unwrap().evicted_at.is_some());
    let of_id = explain(Subject::SpiffeId(ID.to_owned())).await.unwrap().into_inner();
    assert_eq!((of_id.issued.len(), of_id.seen_by.len()), (2, 2));
    assert_eq!(of_id.attestation.unwrap().number, number);
    let refused = explain(Subject::Agent(4711)).await.unwrap_err();
    assert_eq!((refused.code(), refused.message()), (Code::NotFound, "agent: there is no agent 4711"));
    issuer.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_identity_that_is_given_no_more_is_explained_by_the_attribute_that_failed() {
    let place = Place::with(TOKENS);
    let maker = TokenMaker::at(&place);
    let issuer = place.serve().await;
    let id = "spiffe://example.org/ns/shop/sa/cart";
    issuer.apply(PODS).await;
    let explain = async |subject| {
        let request = ExplainPolicyRequest { subject: Some(subject) };
        issuer.admin().await.explain_policy(request).await.unwrap().into_inner()
    };
    // Nobody has had it: for whom it is.
    let told = explain(Subject::SpiffeId(id.to_owned())).await;
    assert!(matches!(told.outcomes[0].outcome, Some(rule_outcome::Outcome::Possible(_))) && told.attestation.is_none());
    let pod = prove(&issuer, of_cluster("prod", &maker.pod("shop", "cart"))).await.unwrap();
    let told = explain(Subject::SpiffeId(id.to_owned())).await;
    assert!(matches!(told.outcomes[0].outcome, Some(rule_outcome::Outcome::Granted(_))));
    // What it was given is told of whoever has these attributes, too.
    let pairs = [("k8s.cluster", "prod"), ("k8s.namespace", "shop"), ("k8s.service_account", "cart")];
    let pair = |(name, value): (&str, &str)| Attribute { name: name.to_owned(), value: value.to_owned() };
    let told = explain(Subject::Attributes(AttributeList { attributes: pairs.map(pair).to_vec() })).await;
    assert_eq!(told.issued[0].serial, pod.svid.serial().to_string());

    issuer.apply(&PODS.replace("[prod, lab]", "lab")).await;
    let told = explain(Subject::SpiffeId(id.to_owned())).await;
    let failed = told.outcomes[0].outcome.clone().unwrap();
    let rule_outcome::Outcome::NoMatch(failed) = failed else { panic!("{failed:?}") };
    assert_eq!(
        (failed.attribute.as_str(), failed.wanted, failed.found),
        ("k8s.cluster", vec!["lab".to_owned()], vec!["prod".to_owned()])
    );
    assert_eq!(told.attestation.unwrap().spiffe_id, id);
    issuer.stop().await;
}
