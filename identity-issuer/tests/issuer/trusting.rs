//! What clients are told to trust: by the issuer's files, by the other issuers, and by the policy.

use std::path::Path;
use std::time::Duration;

use futures_util::FutureExt as _;
use signet_identity::TrustBundle;
use signet_proto::admin::v1::{ForgetIssuerRequest, ListBundlesRequest, PublishedBundle, RequestRenewalRequest};
use signet_proto::identity::v1::watch_response::Event;
use signet_proto::identity::v1::{TrustBundles, WatchResponse};
use signet_test_pki::Authority;
use sqlx::Connection as _;
use tonic::{Code, Streaming};

use crate::harness::{ID, Identity, Issuer, Place, csr, eventually, hello, new_key, renew};
use crate::proving::{PODS, TOKENS, TokenMaker, of_cluster, prove};

async fn watch(issuer: &Issuer, identity: &Identity) -> (Streaming<WatchResponse>, TrustBundles) {
    let mut stream = issuer.client_of(identity).await.watch(hello()).await.unwrap().into_inner();
    let told = next_bundles(&mut stream).await;
    (stream, told)
}

async fn next_bundles(stream: &mut Streaming<WatchResponse>) -> TrustBundles {
    let next = async {
        loop {
            if let Some(Event::Bundles(bundles)) = stream.message().await.unwrap().unwrap().event {
                return bundles;
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(15), next).await.expect("bundles in time")
}

/// Trust domains, and how many authorities each has.
fn summary(told: &TrustBundles) -> Vec<(&str, usize)> {
    told.bundles.iter().map(|bundle| (bundle.trust_domain.as_str(), bundle.x509_authorities.len())).collect()
}

/// As an operator's program does: whole or not at all.
fn replace(file: &Path, text: &str) {
    let new = file.with_extension("new");
    std::fs::write(&new, text).unwrap();
    std::fs::rename(&new, file).unwrap();
}

fn root_of(place: &Place) -> String {
    std::fs::read_to_string(place.path("root/root.pem")).unwrap()
}

fn pem_of(trust_domain: &str) -> String {
    let root = Authority::root(trust_domain).certificate().clone();
    TrustBundle::new(trust_domain.parse().unwrap(), vec![root]).unwrap().to_pem()
}

const OTHER: &str = "spiffe://example.org/other";

async fn published(issuer: &Issuer) -> Vec<PublishedBundle> {
    issuer.admin().await.list_bundles(ListBundlesRequest {}).await.unwrap().into_inner().bundles
}

#[tokio::test(flavor = "multi_thread")]
async fn a_root_that_is_added_to_the_file_reaches_whoever_is_connected() {
    let place = Place::new();
    let issuer = place.serve().await;
    let holder = issuer.join(ID).await;
    let (mut stream, told) = watch(&issuer, &holder).await;
    assert_eq!(summary(&told), [("example.org", 1)]);
    let (file, before) = (place.path("root/root.pem"), root_of(&place));
    replace(&file, &(before.clone() + &pem_of("example.org")));
    assert_eq!(summary(&next_bundles(&mut stream).await), [("example.org", 2)]);
    // At once for whoever comes.
    let answer = renew(&mut issuer.client_of(&holder).await, csr(&new_key())).await.unwrap().into_inner();
    assert_eq!(summary(&answer.bundles.unwrap()), [("example.org", 2)]);
    eventually("it is published", async || published(&issuer).await[0].x509_authorities == 2).await;
    replace(&file, &before);
    assert_eq!(next_bundles(&mut stream).await, told);
    issuer.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_is_no_good_leaves_what_is_trusted() {
    let place = Place::new();
    let issuer = place.serve().await;
    let holder = issuer.join(ID).await;
    let (mut stream, _) = watch(&issuer, &holder).await;
    let (file, before) = (place.path("root/root.pem"), root_of(&place));
    let (good, refused) =
        ("signet_issuer_bundles_refused{source=\"file\"} 0", "signet_issuer_bundles_refused{source=\"file\"} 1");
    issuer.until_metric(good).await;
    // In part, nothing, another's, and one under which the issuer itself is nobody.
    for bad in [&before[..before.len() / 2], "", &pem_of("partner.example"), &pem_of("example.org")] {
        replace(&file, bad);
        issuer.until_metric(refused).await;
        replace(&file, &before);
        issuer.until_metric(good).await;
    }
    std::fs::remove_file(&file).unwrap();
    issuer.until_metric(refused).await;
    let more = before + &pem_of("example.org");
    replace(&file, &more);
    issuer.until_metric(good).await;
    // Nobody was told of anything between the first and the last.
    assert_eq!(summary(&next_bundles(&mut stream).await), [("example.org", 2)]);
    issuer.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_federates_and_nobody_else_is_told_of_another_trust_domain() {
    let place =
        Place::with(&format!("{TOKENS}\nfederation:\n  - {{ trust_domain: partner.example, bundle: partner.pem }}"));
    std::fs::write(place.path("partner.pem"), pem_of("partner.example")).unwrap();
    let maker = TokenMaker::at(&place);
    let issuer = place.serve().await;
    issuer.apply(PODS).await;
    let pod = prove(&issuer, of_cluster("prod", &maker.pod("shop", "cart"))).await.unwrap();
    let plain = issuer.join(ID).await;
    let ((mut of_pod, told), (mut of_plain, _)) = (watch(&issuer, &pod).await, watch(&issuer, &plain).await);
    assert_eq!(summary(&told), [("example.org", 1)]);

    issuer.apply(&format!("{PODS}\n    federates_with: [partner.example]")).await;
    assert_eq!(summary(&next_bundles(&mut of_pod).await), [("example.org", 1), ("partner.example", 1)]);
    let answer = renew(&mut issuer.client_of(&pod).await, csr(&new_key())).await.unwrap().into_inner();
    assert_eq!(summary(&answer.bundles.unwrap()), [("example.org", 1), ("partner.example", 1)]);

    replace(&place.path("partner.pem"), &(pem_of("partner.example") + &pem_of("partner.example")));
    assert_eq!(summary(&next_bundles(&mut of_pod).await), [("example.org", 1), ("partner.example", 2)]);
    issuer.apply(PODS).await;
    assert_eq!(next_bundles(&mut of_pod).await, told);
    // All of that went by those whom it is nothing to: their next word is of their own trust domain.
    replace(&place.path("root/root.pem"), &(root_of(&place) + &pem_of("example.org")));
    assert_eq!(summary(&next_bundles(&mut of_plain).await), [("example.org", 2)]);
    issuer.stop().await;
}

fn place_on(url: &str) -> Place {
    Place::with(&format!("database: {{ url: \"{url}\" }}"))
}

async fn sql(url: &str, statement: &'static str) {
    let mut connection = sqlx::PgConnection::connect(url).await.unwrap();
    sqlx::raw_sql(statement).execute(&mut connection).await.unwrap();
}

/// Two issuers on a database of their own. The first one's file names the root of the second, whose file names its own alone.
async fn two() -> (String, [(Place, Issuer); 2]) {
    let url = signet_test_postgres::shared().database();
    let (here, there) = (place_on(&url), place_on(&url));
    let both = root_of(&here) + &root_of(&there);
    let (one, two) = (here.serve().await, there.serve().await);
    replace(&here.path("root/root.pem"), &both);
    (url, [(here, one), (there, two)])
}

#[tokio::test(flavor = "multi_thread")]
async fn what_one_issuer_is_told_to_trust_reaches_the_clients_of_those_who_believe_it() {
    let (_, [(here, one), (there, mut two)]) = two().await;
    let (of_one, of_two) = (one.join(ID).await, two.join(OTHER).await);
    let is_union = async || summary(&watch(&one, &of_one).await.1) == [("example.org", 2)];
    eventually("the first trusts both", is_union).await;
    // The second has never heard of the first one's root: whatever stands in the database, it believes nothing of it.
    eventually("the first has said so", async || published(&one).await.len() == 2).await;
    assert_eq!(summary(&watch(&two, &of_two).await.1), [("example.org", 1)]);
    two.until_metric("signet_issuer_bundles_refused{source=\"record\"} 1").await;

    // Told of it, it has its clients trust what the first one says, too.
    replace(&there.path("root/root.pem"), &(root_of(&there) + &root_of_place(&here)));
    let third = pem_of("example.org");
    replace(&here.path("root/root.pem"), &(root_of(&here) + &third));
    let is_union = async || summary(&watch(&two, &of_two).await.1) == [("example.org", 3)];
    eventually("the second trusts what the first is told", is_union).await;
    two.until_metric("signet_issuer_bundles_refused{source=\"record\"} 0").await;
    // What is equal at both is of one version, and what one has issued the other renews.
    let (_, at_two) = watch(&two, &of_two).await;
    let whole = root_of(&there);
    two.bundle = TrustBundle::from_pem("example.org".parse().unwrap(), whole.as_bytes()).unwrap();
    let answer = renew(&mut two.client_of(&of_one).await, csr(&new_key())).await.unwrap().into_inner();
    assert_eq!(answer.bundles.unwrap(), at_two);
    tokio::join!(one.stop(), two.stop());
}

/// That which the place was made with.
fn root_of_place(place: &Place) -> String {
    let file = root_of(place);
    let end = "-----END CERTIFICATE-----\n";
    file.split_inclusive(end).next().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_writes_to_the_database_has_nobody_trust_anything() {
    let (url, [(_here, one), (there, two)]) = two().await;
    let of_one = one.join(ID).await;
    eventually("the first knows of the second", async || published(&one).await.iter().any(|bundle| !bundle.own)).await;
    sql(&url, "CREATE TABLE older AS SELECT * FROM issuer_bundles").await;
    replace(&there.path("root/root.pem"), &(root_of(&there) + &pem_of("example.org")));
    let is_union = async || summary(&watch(&one, &of_one).await.1) == [("example.org", 3)];
    eventually("the first trusts what both say", is_union).await;
    let other = published(&one).await.into_iter().find(|bundle| !bundle.own).unwrap().issuer;
    let (mut stream, before) = watch(&one, &of_one).await;
    two.stop().await;
    sql(&url, "CREATE TABLE saved AS SELECT * FROM issuer_bundles").await;
    let (good, refused) =
        ("signet_issuer_bundles_refused{source=\"record\"} 0", "signet_issuer_bundles_refused{source=\"record\"} 1");
    for attack in [
        // Under the name of another, under a name of its own, and by another authority.
        "INSERT INTO issuer_bundles SELECT issuer, replace(statement, 'example.org', 'evil.example'), signature, chain, 0 \
         FROM saved ON CONFLICT DO NOTHING",
        "INSERT INTO issuer_bundles SELECT 'ff', statement, signature, chain, 0 FROM saved LIMIT 1",
        "INSERT INTO issuer_bundles SELECT issuer, statement, signature, 'junk', 0 FROM saved ON CONFLICT DO NOTHING",
        // By the right one, and taken back by it since.
        "INSERT INTO issuer_bundles SELECT issuer, statement, signature, chain, 0 FROM older ON CONFLICT DO NOTHING",
    ] {
        // What is lost, also by a backup that comes back, is trusted as before.
        sql(&url, "DELETE FROM issuer_bundles").await;
        one.until_metric(good).await;
        assert_eq!(watch(&one, &of_one).await.1, before);
        sql(&url, attack).await;
        one.until_metric(refused).await;
        assert_eq!(watch(&one, &of_one).await.1, before, "{attack}");
    }
    // It is as it was, until an operator takes it back.
    let forget = async |issuer: &str| {
        let request = ForgetIssuerRequest { issuer: issuer.to_owned() };
        one.admin().await.forget_issuer(request).await.map(drop)
    };
    assert_eq!(forget(&other).await.unwrap_err().code(), Code::FailedPrecondition);
    assert_eq!(forget("0123").await.unwrap_err().code(), Code::NotFound);
    while let Some(told) = stream.message().now_or_never() {
        assert!(!matches!(told.unwrap().unwrap().event, Some(Event::Bundles(_))), "nobody was told of anything");
    }
    one.stop().await;
}

/// As an issuer does that has heard nothing of the other for long.
async fn revoke_authority_of(url: &str, issuer: &str) {
    let mut connection = sqlx::PgConnection::connect(url).await.unwrap();
    let chain: String = sqlx::query_scalar("SELECT chain FROM issuer_bundles WHERE issuer = $1")
        .bind(issuer)
        .fetch_one(&mut connection)
        .await
        .unwrap();
    let (_, pem) = x509_parser::pem::parse_x509_pem(chain.as_bytes()).unwrap();
    let key = signet_identity::KeySha256::of(pem.parse_x509().unwrap().public_key().raw);
    sqlx::raw_sql(
        "INSERT INTO revocations (revoked_at, reason, actor, comment, kind, target) \
         VALUES (0, 2, 'an administrator', '', 'authority', ''); UPDATE revocation_epoch SET epoch = epoch + 1",
    )
    .execute(&mut connection)
    .await
    .unwrap();
    sqlx::query(
        "INSERT INTO revoked SELECT epoch, (SELECT max(number) FROM revocations), 2, 'an id', $1, 4102444800 \
         FROM revocation_epoch",
    )
    .bind(key.as_bytes().to_vec())
    .execute(&mut connection)
    .await
    .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_issuer_says_whose_authority_is_revoked_is_believed_no_more() {
    let (url, [(here, one), (there, two)]) = two().await;
    let of_one = one.join(ID).await;
    let has = async |issuer: &Issuer, roots| summary(&watch(issuer, &of_one).await.1) == [("example.org", roots)];
    replace(&there.path("root/root.pem"), &(root_of(&there) + &pem_of("example.org")));
    eventually("the first trusts what both say", async || has(&one, 3).await).await;
    let other = published(&one).await.into_iter().find(|bundle| !bundle.own).unwrap().issuer;
    revoke_authority_of(&url, &other).await;
    eventually("what it said is trusted no more", async || has(&one, 2).await).await;
    one.until_metric("signet_issuer_bundles_refused{source=\"record\"} 1").await;

    // Whoever has its key goes on.
    let more = root_of(&there) + &pem_of("example.org");
    replace(&there.path("root/root.pem"), &more);
    let says_so = async || published(&two).await.iter().any(|said| said.own && said.x509_authorities == 3);
    eventually("it says more", says_so).await;
    let is_heard = async || published(&one).await.iter().any(|said| !said.own && said.x509_authorities == 3);
    eventually("the first has heard it", is_heard).await;
    assert!(has(&one, 2).await);
    one.stop().await;
    // Nor is it believed from the first moment on of one that starts.
    let one = here.serve().await;
    one.until_metric("signet_issuer_bundles_refused{source=\"record\"} 1").await;
    assert!(has(&one, 2).await);
    tokio::join!(one.stop(), two.stop());
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_is_to_renew_is_told_so_by_another_issuer_and_after_a_restart() {
    let url = signet_test_postgres::shared().database();
    let place = place_on(&url);
    let issuer = place.serve().await;
    let holder = issuer.join(ID).await;
    let renew_now = async |stream: &mut Streaming<WatchResponse>| {
        let next =
            async { while !matches!(stream.message().await.unwrap().unwrap().event, Some(Event::RenewNow(_))) {} };
        tokio::time::timeout(Duration::from_secs(15), next).await.expect("a wish in time");
    };
    // As another issuer writes it whose notification is lost.
    let (mut stream, _) = watch(&issuer, &holder).await;
    sql(
        &url,
        "INSERT INTO renewal_requests SELECT 'spiffe://example.org/shop/cart', issued_at, position, 0 FROM issued \
         ORDER BY position DESC LIMIT 1",
    )
    .await;
    renew_now(&mut stream).await;
    drop(stream);
    issuer.stop().await;

    let issuer = place.serve().await;
    renew_now(&mut watch(&issuer, &holder).await.0).await;
    // Whoever has renewed since is not told.
    let key = new_key();
    let answer = renew(&mut issuer.client_of(&holder).await, csr(&key)).await.unwrap().into_inner();
    let renewed = Identity::new(answer.svid.unwrap(), key);
    let (mut stream, _) = watch(&issuer, &renewed).await;
    let request = RequestRenewalRequest {
        spiffe_id: ID.to_owned(),
        within: Some(prost_types::Duration { seconds: 9, nanos: 0 }),
    };
    issuer.admin().await.request_renewal(request).await.unwrap();
    let next = async {
        loop {
            if let Some(Event::RenewNow(now)) = stream.message().await.unwrap().unwrap().event {
                return now.within.unwrap().seconds;
            }
        }
    };
    assert_eq!(tokio::time::timeout(Duration::from_secs(15), next).await.expect("a wish in time"), 9);
    issuer.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_issuer_goes_over_to_another_root_without_a_restart() {
    let place = Place::new();
    let mut issuer = place.serve().await;
    let holder = issuer.join(ID).await;
    let (mut stream, _) = watch(&issuer, &holder).await;
    place.make_root("next", "example.org");
    let next = std::fs::read_to_string(place.path("next/root.pem")).unwrap();
    replace(&place.path("root/root.pem"), &(root_of(&place) + &next));
    assert_eq!(summary(&next_bundles(&mut stream).await), [("example.org", 2)]);
    place.sign_with("next", Duration::from_secs(3600));
    // It renews its own SVID at once, by what is in force now.
    let first = issuer.bundle.clone();
    issuer.bundle = TrustBundle::from_pem("example.org".parse().unwrap(), next.as_bytes()).unwrap();
    eventually("it proves itself under the next root", async || issuer.can_be_joined().await).await;
    replace(&place.path("root/root.pem"), &next);
    assert_eq!(summary(&next_bundles(&mut stream).await), [("example.org", 1)]);
    issuer.join(ID).await;
    issuer.bundle = first;
    assert!(!issuer.can_be_joined().await);
    issuer.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn root_and_intermediate_may_be_replaced_at_one_time() {
    let place = Place::new();
    let mut issuer = place.serve().await;
    place.make_root("next", "example.org");
    let next = std::fs::read_to_string(place.path("next/root.pem")).unwrap();
    replace(&place.path("root/root.pem"), &next);
    issuer.until_metric("signet_issuer_bundles_refused{source=\"file\"} 1").await;
    place.sign_with("next", Duration::from_secs(3600));
    issuer.bundle = TrustBundle::from_pem("example.org".parse().unwrap(), next.as_bytes()).unwrap();
    eventually("it proves itself under the next root", async || issuer.can_be_joined().await).await;
    issuer.join(ID).await;
    issuer.stop().await;
}
