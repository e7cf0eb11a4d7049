//! Issuers that share a PostgreSQL database.

use signet_proto::admin::v1::{
    ApplyPolicyRequest, BanRequest, EvictAgentsRequest, GetPolicyRequest, GetRevocationProgressRequest,
    ListAgentsRequest, ListBundlesRequest, PolicyFile, RequestRenewalRequest, evict_agents_request::Agents,
};
use signet_proto::identity::v1::{WatchResponse, watch_response::Event};
use signet_test_postgres::Server;
use sqlx::Connection as _;
use tonic::{Code, Streaming};

use crate::harness::{ID, Identity, Issuer, Place, attest, csr, eventually, hello, new_key, renew};
use crate::jwt_keys;
use crate::publishing;
use crate::revoking::{Following, read, revoke, serials};
use crate::tokens;

const OTHER: &str = "spiffe://example.org/other";

fn place_on(url: &str) -> Place {
    Place::with(&format!("database: {{ url: \"{url}\" }}"))
}

/// Two issuers on a database of their own, whose address it is.
async fn two() -> (String, [(Place, Issuer); 2]) {
    let url = signet_test_postgres::shared().database();
    let one = place_on(&url);
    let two = one.beside();
    let issuers = tokio::join!(one.serve(), two.serve());
    (url, [(one, issuers.0), (two, issuers.1)])
}

async fn sql(url: &str, statement: &'static str) {
    let mut connection = sqlx::PgConnection::connect(url).await.unwrap();
    sqlx::raw_sql(statement).execute(&mut connection).await.unwrap();
}

async fn revision(issuer: &Issuer) -> u64 {
    let policy = issuer.admin().await.get_policy(GetPolicyRequest::default()).await.unwrap().into_inner();
    policy.revision.unwrap().revision
}

async fn watch(issuer: &Issuer, identity: &Identity) -> Streaming<WatchResponse> {
    let mut stream = issuer.client_of(identity).await.watch(hello()).await.unwrap().into_inner();
    assert!(matches!(stream.message().await.unwrap().unwrap().event, Some(Event::Bundles(_))));
    assert!(matches!(stream.message().await.unwrap().unwrap().event, Some(Event::Entitlement(_))));
    stream
}

fn rules(names: impl IntoIterator<Item = usize>) -> String {
    let rule = |number| {
        format!(
            "- {{ name: r{number}, match: {{ k8s.pod: p{number} }}, spiffe_id: 'spiffe://example.org/p/{number}' }}\n"
        )
    };
    format!("rules:\n{}", names.into_iter().map(rule).collect::<String>())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_one_issuer_attests_the_other_renews_and_a_token_is_good_at_one_of_them() {
    let (_, [(_a, one), (_b, two)]) = two().await;
    let token = one.token(ID).await;
    let mut presentations = tokio::task::JoinSet::new();
    for number in 0..50 {
        let issuer = if number % 2 == 0 { &one } else { &two };
        let (mut client, token) = (issuer.stranger().await, token.clone());
        presentations.spawn(async move { attest(&mut client, &token, csr(&new_key())).await });
    }
    let outcomes = presentations.join_all().await;
    assert_eq!(outcomes.iter().filter(|outcome| outcome.is_ok()).count(), 1);

    let workload = one.join(OTHER).await;
    let renewed = renew(&mut two.client_of(&workload).await, csr(&new_key())).await.unwrap().into_inner().svid.unwrap();
    // By the other's own intermediate, under the same root.
    assert_ne!(renewed.chain[1], workload.svid.chain()[1].to_vec());
    let agents = two.admin().await.list_agents(ListAgentsRequest::default()).await.unwrap().into_inner().agents;
    assert_eq!(agents.iter().map(|agent| agent.spiffe_id.as_str()).collect::<Vec<_>>(), [ID, OTHER]);
    tokio::join!(one.stop(), two.stop());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_changes_at_one_issuer_holds_at_the_other() {
    let (_, [(_a, one), (_b, two)]) = two().await;
    let (banned, evicted) = (one.join(ID).await, two.join(OTHER).await);
    let (mut of_banned, mut of_evicted) = (watch(&two, &banned).await, watch(&two, &evicted).await);
    one.apply(&rules([1])).await;
    eventually("the policy is at the other", async || revision(&two).await == 1).await;
    two.apply(&rules([1, 2])).await;
    eventually("and back", async || revision(&one).await == 2).await;

    let within = Some(prost_types::Duration { seconds: 3, nanos: 0 });
    let request = RequestRenewalRequest { spiffe_id: ID.to_owned(), within };
    one.admin().await.request_renewal(request).await.unwrap();
    let told = of_banned.message().await.unwrap().unwrap().event;
    assert!(matches!(&told, Some(Event::RenewNow(now)) if now.within == within), "{told:?}");

    one.admin().await.ban(BanRequest { spiffe_id: ID.to_owned(), reason: String::new() }).await.unwrap();
    assert_eq!(of_banned.message().await.unwrap_err().code(), Code::PermissionDenied);
    let agents = Some(Agents::SpiffeId(OTHER.to_owned()));
    one.admin().await.evict_agents(EvictAgentsRequest { agents }).await.unwrap();
    assert_eq!(of_evicted.message().await.unwrap_err().code(), Code::PermissionDenied);
    for identity in [&banned, &evicted] {
        let refused = renew(&mut two.client_of(identity).await, csr(&new_key())).await.unwrap_err();
        assert_eq!(refused.code(), Code::PermissionDenied);
    }
    tokio::join!(one.stop(), two.stop());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_revoked_at_one_issuer_is_so_at_the_other_and_either_tells_how_far_clients_have_come() {
    let (_, [(_a, one), (_b, two)]) = two().await;
    let (cart, till) = (one.join(ID).await, two.join(OTHER).await);
    let mut following = Following::new(&two, &till, None).await;
    following.next().await;
    let revoked = Following::new(&two, &cart, None).await;
    let done = revoke(&one, serials(&[&cart])).await.unwrap();
    assert_eq!((done.epoch, done.certificates), (1, 1));
    let told = following.next().await;
    let statement = read(&two, &told);
    assert_eq!((statement.epoch, &statement.serials[0].serials[0][..]), (1, cart.svid.serial().as_bytes()));
    assert_eq!(revoked.end().await.code(), Code::PermissionDenied);
    let refused = renew(&mut two.client_of(&cart).await, csr(&new_key())).await.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied);
    let progress = async |issuer: &Issuer| {
        let request = GetRevocationProgressRequest { epoch: 1 };
        let told = issuer.admin().await.get_revocation_progress(request).await.unwrap().into_inner();
        (told.following, told.applied)
    };
    for issuer in [&one, &two] {
        eventually("it follows", async || progress(issuer).await == (1, 0)).await;
    }
    following.applies(&told.version).await;
    for issuer in [&one, &two] {
        eventually("it has it in force", async || progress(issuer).await == (1, 1)).await;
    }
    // The same row of numbers: whoever comes to another issuer lacks nothing.
    let mut elsewhere = Following::new(&one, &till, Some(told.version)).await;
    let done = revoke(&two, serials(&[&till])).await.unwrap();
    assert_eq!(done.epoch, 2);
    let ended = async {
        loop {
            if let Err(status) = elsewhere.message().await {
                return status;
            }
        }
    };
    assert_eq!(ended.await.code(), Code::PermissionDenied);
    tokio::join!(one.stop(), two.stop());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_policy_that_goes_back_or_loses_rules_is_not_put_in_force() {
    const REFUSED: &str = "signet_issuer_policy_refused 1";
    const TAKEN: &str = "signet_issuer_policy_refused 0";
    let (url, [(here, one), (_b, two)]) = two().await;
    one.apply(&rules(0..20)).await;
    eventually("the policy is at the other", async || revision(&two).await == 1).await;
    // Somebody who takes rules out says so.
    one.apply(&rules(0..15)).await;
    eventually("fewer rules", async || revision(&two).await == 2).await;

    let told = async |metric: &str, number: u64| {
        for issuer in [&one, &two] {
            issuer.until_metric(metric).await;
            assert_eq!(revision(issuer).await, number);
        }
    };
    sql(
        &url,
        "CREATE TABLE kept AS SELECT * FROM policy_revisions WHERE revision = 2;
         DELETE FROM policy_revisions WHERE revision = 2",
    )
    .await;
    told(REFUSED, 2).await;
    sql(&url, "INSERT INTO policy_revisions SELECT * FROM kept").await;
    told(TAKEN, 2).await;

    sql(
        &url,
        "INSERT INTO policy_revisions SELECT 3, created_at, actor, comment, 1, 0, '[' || (rules::jsonb -> 0)::text || ']'
         FROM policy_revisions WHERE revision = 2",
    )
    .await;
    told(REFUSED, 2).await;
    // The same with a record that they were taken out.
    sql(&url, "UPDATE policy_revisions SET removed = 14 WHERE revision = 3").await;
    told(TAKEN, 3).await;
    // One of the same number that somebody else has made, of an older state of the database.
    sql(&url, "UPDATE policy_revisions SET actor = 'somebody else' WHERE revision = 3").await;
    told(REFUSED, 3).await;
    // Behind it, nothing is recorded: it would hold here alone.
    let file = PolicyFile { name: "policy.yaml".to_owned(), text: rules(0..2) };
    let request = ApplyPolicyRequest { files: vec![file], prune: true, ..Default::default() };
    let refused = one.admin().await.apply_policy(request).await.unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition);
    told(REFUSED, 3).await;
    sql(
        &url,
        "INSERT INTO policy_revisions SELECT 4, created_at, actor, comment, rule_count, 0, rules
         FROM policy_revisions WHERE revision = 3",
    )
    .await;
    told(REFUSED, 3).await;
    // A ban is heard all the same.
    let banned = one.join(ID).await;
    let mut stream = watch(&two, &banned).await;
    one.admin().await.ban(BanRequest { spiffe_id: ID.to_owned(), reason: String::new() }).await.unwrap();
    assert_eq!(stream.message().await.unwrap_err().code(), Code::PermissionDenied);
    // Nor is it by an issuer that is started in the meantime, until its operator says so.
    one.stop().await;
    let one = here.serve().await;
    one.until_metric(REFUSED).await;
    assert_eq!(revision(&one).await, 3);
    one.stop().await;
    std::fs::remove_file(here.path("state/policy.json")).unwrap();
    let one = here.serve().await;
    one.until_metric(TAKEN).await;
    assert_eq!(revision(&one).await, 4);
    tokio::join!(one.stop(), two.stop());
}

#[tokio::test(flavor = "multi_thread")]
async fn as_many_rules_may_be_lost_as_the_configuration_says() {
    for (percent, kept, is_taken) in [(0, 19, false), (0, 20, true), (50, 10, true), (50, 9, false)] {
        let url = signet_test_postgres::shared().database();
        let place = place_on(&url);
        let place = Place::with(&format!("{}\nlimits: {{ lost_rules_percent: {percent} }}", place.settings));
        let issuer = place.serve().await;
        issuer.apply(&rules(0..20)).await;
        let fewer = format!(
            "INSERT INTO policy_revisions SELECT 2, created_at, actor, comment, {kept}, 0, \
             jsonb_path_query_array(rules::jsonb, '$[0 to {}]')::text FROM policy_revisions WHERE revision = 1",
            kept - 1
        );
        sqlx::raw_sql(sqlx::AssertSqlSafe(fewer))
            .execute(&mut sqlx::PgConnection::connect(&url).await.unwrap())
            .await
            .unwrap();
        if is_taken {
            eventually("it is taken", async || revision(&issuer).await == 2).await;
        } else {
            issuer.until_metric("signet_issuer_policy_refused 1").await;
            assert_eq!(revision(&issuer).await, 1);
        }
        issuer.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn rules_of_a_newer_version_are_not_put_in_force() {
    let (url, [(_a, one), (_b, two)]) = two().await;
    one.apply(&rules(0..2)).await;
    eventually("the policy is at the other", async || revision(&two).await == 1).await;
    sql(
        &url,
        "INSERT INTO policy_revisions SELECT 2, created_at, actor, comment, rule_count, 0,
         jsonb_set(rules::jsonb, '{0,not_on_sundays}', 'true')::text FROM policy_revisions WHERE revision = 1",
    )
    .await;
    for issuer in [&one, &two] {
        issuer.until_metric("signet_issuer_policy_refused 1").await;
        assert_eq!(revision(issuer).await, 1);
    }
    tokio::join!(one.stop(), two.stop());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_comes_back_is_found_again() {
    let server = Server::start(false);
    let one = place_on(&server.database());
    let two = one.beside();
    let issuers = tokio::join!(one.serve(), two.serve());
    let workload = issuers.0.join(ID).await;
    let stream = watch(&issuers.1, &workload).await;
    server.down();
    let refused = renew(&mut issuers.0.client_of(&workload).await, csr(&new_key())).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unavailable, "{refused:?}");
    server.up();
    for issuer in [&issuers.0, &issuers.1] {
        eventually("renewals go on", async || {
            renew(&mut issuer.client_of(&workload).await, csr(&new_key())).await.is_ok()
        })
        .await;
    }
    // What was said while nobody listened, or is said now, arrives.
    issuers.0.admin().await.ban(BanRequest { spiffe_id: ID.to_owned(), reason: String::new() }).await.unwrap();
    let mut stream = stream;
    assert_eq!(stream.message().await.unwrap_err().code(), Code::PermissionDenied);
    tokio::join!(issuers.0.stop(), issuers.1.stop());
}

#[tokio::test(flavor = "multi_thread")]
async fn any_issuer_tells_who_is_connected_to_which_and_how_far_it_has_come() {
    let (_, [(_a, one), (_b, two)]) = two().await;
    let names = async || one.admin().await.list_bundles(ListBundlesRequest {}).await.unwrap().into_inner().bundles;
    eventually("the other is known", async || names().await.len() == 2).await;
    let other = names().await.into_iter().find(|bundle| !bundle.own).unwrap().issuer;
    let holder = one.join(ID).await;
    let told = async || {
        let agents = one.admin().await.list_agents(ListAgentsRequest::default()).await.unwrap().into_inner().agents;
        let agent = agents.into_iter().find(|agent| agent.spiffe_id == ID).unwrap();
        let applied = agent.applied.map(|applied| (applied.revision, applied.current));
        (agent.connected, agent.connected_to, applied)
    };
    assert_eq!(told().await, (false, String::new(), None));
    let elsewhere = watch(&two, &holder).await;
    // It has said nothing of what it was sent.
    eventually("it is at the other", async || told().await == (true, other.clone(), Some((0, false)))).await;
    let here = watch(&one, &holder).await;
    assert_eq!(told().await, (true, String::new(), Some((0, false))));
    drop(elsewhere);
    drop(here);
    eventually("it has left both", async || told().await == (false, String::new(), None)).await;
    // One that ends takes along what it has said.
    let _elsewhere = watch(&two, &holder).await;
    eventually("it is at the other again", async || told().await.0).await;
    two.stop().await;
    assert_eq!(told().await, (false, String::new(), None));
    one.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_of_one_issuer_are_verified_by_what_the_other_tells_and_nothing_unsigned_is_told() {
    let url = signet_test_postgres::shared().database();
    let a = Place::with(&format!("database: {{ url: \"{url}\" }}\njwt: {{}}"));
    let b = a.beside();
    let (one, two) = tokio::join!(a.serve(), b.serve());
    let workload = one.join(ID).await;
    let token = tokens::token(&one, &workload, &["db"], None).await.unwrap().token;
    eventually("the other has its keys", async || {
        let keys = tokens::told(&two, &workload).await;
        keys.keys.len() == 2 && tokens::verify(&token, &keys, "db").is_ok()
    })
    .await;
    let document = async |issuer: &Issuer| {
        let tcp = tokio::net::TcpStream::connect(issuer.started.web.plain).await.unwrap();
        publishing::exchange(tcp, "GET /bundle.json HTTP/1.1\r\n").await.body
    };
    eventually("both publish the same, under one number", async || document(&one).await == document(&two).await).await;

    // Whoever can write to the database puts a key of his own there.
    sql(
        &url,
        "UPDATE issuer_bundles SET statement = replace(statement, '\"jwt\":{', '\"jwt\":{\"evil.example\":{\"keys\":[]},')",
    )
    .await;
    two.until_metric("signet_issuer_bundles_refused{source=\"record\"} 1").await;
    let keys = tokens::told(&two, &workload).await;
    assert!(keys.keys.len() == 2 && tokens::verify(&token, &keys, "db").is_ok());
    one.stop().await;
    two.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_of_tokens_that_one_issuer_is_told_to_revoke_signs_nowhere_and_is_in_no_union() {
    let url = signet_test_postgres::shared().database();
    let a = Place::with(&format!("database: {{ url: \"{url}\" }}\njwt: {{}}"));
    let b = a.beside();
    let (one, two) = tokio::join!(a.serve(), b.serve());
    let workload = one.join(ID).await;
    let stolen = tokens::token(&one, &workload, &["db"], None).await.unwrap().token;
    let kid = jsonwebtoken::decode_header(&stolen).unwrap().kid.unwrap();
    let has = async |issuer: &Issuer| tokens::told(issuer, &workload).await.find(&kid).is_some();
    eventually("the other has it", async || has(&two).await).await;
    assert_eq!(jwt_keys::at(&jwt_keys::list(&two).await, "published").kid, kid);

    jwt_keys::revoke(&two, &kid, false).await.unwrap();
    eventually("neither has it", async || !has(&one).await && !has(&two).await).await;
    eventually("its issuer signs with another", async || {
        let token = tokens::token(&one, &workload, &["db"], None).await.unwrap().token;
        jsonwebtoken::decode_header(&token).unwrap().kid.unwrap() != kid
    })
    .await;
    assert_eq!(jwt_keys::at(&jwt_keys::list(&one).await, "revoked").actor, "another issuer");

    two.stop().await;
    let two = b.serve().await;
    assert!(!has(&two).await && !has(&one).await, "it is back after a restart");
    one.stop().await;
    two.stop().await;
}

/// Copies a folder, files and folders.
fn copy(from: &std::path::Path, to: &std::path::Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        match entry.file_type().unwrap() {
            kind if kind.is_dir() => copy(&entry.path(), &to.join(entry.file_name())),
            kind if kind.is_file() => drop(std::fs::copy(entry.path(), to.join(entry.file_name())).unwrap()),
            // Sockets.
            _ => {}
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_of_tokens_that_was_revoked_stays_so_though_its_issuer_comes_back_from_a_backup() {
    let url = signet_test_postgres::shared().database();
    let a = Place::with(&format!("database: {{ url: \"{url}\" }}\njwt: {{}}"));
    let b = a.beside();
    let (one, two) = tokio::join!(a.serve(), b.serve());
    let workload = one.join(ID).await;
    let signs = async |issuer: &Issuer| {
        let token = tokens::token(issuer, &workload, &["db"], None).await.unwrap().token;
        jsonwebtoken::decode_header(&token).unwrap().kid.unwrap()
    };
    let kid = signs(&one).await;
    copy(&a.path("state"), &a.path("backup"));
    jwt_keys::revoke(&one, &kid, true).await.unwrap();
    let is_heard = async || jwt_keys::list(&two).await.keys.iter().any(|key| key.kid == kid && key.stage == "revoked");
    eventually("the other has heard of it", is_heard).await;

    one.stop().await;
    std::fs::remove_dir_all(a.path("state")).unwrap();
    copy(&a.path("backup"), &a.path("state"));
    let one = a.serve().await;
    eventually("its issuer signs with another", async || signs(&one).await != kid).await;
    for issuer in [&one, &two] {
        let has = async || tokens::told(issuer, &workload).await.find(&kid).is_some();
        eventually("it is trusted nowhere", async || !has().await).await;
    }
    one.stop().await;
    two.stop().await;
}
