use signet_proto::admin::v1::Serials;
use signet_proto::admin::v1::revoke_request::Target;
use tonic::Code;

use crate::harness::{ID, Place, attest, csr, eventually, new_key, renew};
use crate::revoking::revoke;

/// A row that points nowhere, which SQLite finds out at the commit, after all statements succeeded.
const COMMITS_FAIL: &str = "CREATE TABLE nowhere (id INTEGER PRIMARY KEY);
    CREATE TABLE dangling (id INTEGER REFERENCES nowhere (id) DEFERRABLE INITIALLY DEFERRED);
    CREATE TRIGGER fail_commit AFTER INSERT ON issued BEGIN INSERT INTO dangling VALUES (1); END";

#[tokio::test(flavor = "multi_thread")]
async fn nothing_leaves_when_the_commit_fails() {
    let place = Place::new();
    let issuer = place.serve().await;
    let joined = issuer.join(ID).await;
    let token = issuer.token(ID).await;
    let before = place.count("SELECT count(*) FROM issued").await;
    place.sql(COMMITS_FAIL).await;

    let key = new_key();
    let failed = attest(&mut issuer.stranger().await, &token, csr(&key)).await.unwrap_err();
    assert_eq!(failed.code(), Code::Unavailable, "{failed}");
    let failed = renew(&mut issuer.client_of(&joined).await, csr(&key)).await.unwrap_err();
    assert_eq!(failed.code(), Code::Unavailable, "{failed}");
    assert_eq!(place.count("SELECT count(*) FROM issued").await, before);
    assert!(issuer.has_metric("signet_issuer_issued_total{profile=\"workload\",result=\"failed\"} 2").await);
    assert!(issuer.page("/ready").await.1.contains("the last commit failed"));

    // Neither the token nor the key is lost.
    place.sql("DROP TRIGGER fail_commit").await;
    attest(&mut issuer.stranger().await, &token, csr(&key)).await.unwrap();
    eventually("ready again", async || issuer.page("/ready").await.0 == 200).await;
    issuer.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_own_svid_that_is_revoked_is_replaced_as_soon_as_another_can_be_had() {
    let place = Place::new();
    let issuer = place.serve().await;
    let serial = place.bytes("SELECT serial FROM issued WHERE spiffe_id LIKE '%/signet/issuer'").await;
    place.sql(COMMITS_FAIL).await;
    revoke(&issuer, Target::Serials(Serials { serials: vec![serial] })).await.unwrap();
    let none_failed = "signet_svid_rotations_total{result=\"failed\"} 0";
    eventually("a renewal failed", async || !issuer.has_metric(none_failed).await).await;
    place.sql("DROP TRIGGER fail_commit").await;
    issuer.until_metric("signet_svid_rotations_total{result=\"rotated\"} 2").await;
    // Those who refuse the one before follow it again.
    issuer.join(ID).await;
    issuer.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_statement_that_fails_takes_its_whole_transaction_back() {
    let place = Place::new();
    let issuer = place.serve().await;
    let token = issuer.token(ID).await;
    place.sql("CREATE TRIGGER fail BEFORE UPDATE ON join_tokens BEGIN SELECT RAISE(FAIL, 'disk full'); END").await;
    let before = place.count("SELECT count(*) FROM issued").await;
    let failed = attest(&mut issuer.stranger().await, &token, csr(&new_key())).await.unwrap_err();
    assert_eq!(failed.code(), Code::Unavailable, "{failed}");
    assert_eq!(place.count("SELECT count(*) FROM issued").await, before);
    place.sql("DROP TRIGGER fail").await;
    attest(&mut issuer.stranger().await, &token, csr(&new_key())).await.unwrap();
    issuer.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_that_sqlite_takes_back_by_itself_as_on_a_full_disk_fails_alone() {
    let place = Place::new();
    let issuer = place.serve().await;
    let token = issuer.token(ID).await;
    place.sql("CREATE TRIGGER fail BEFORE UPDATE ON join_tokens BEGIN SELECT RAISE(ROLLBACK, 'disk full'); END").await;
    for _ in 0..3 {
        let failed = attest(&mut issuer.stranger().await, &token, csr(&new_key())).await.unwrap_err();
        assert_eq!(failed.code(), Code::Unavailable, "{failed}");
        // What has nothing to do with it goes on.
        issuer.token(ID).await;
    }
    place.sql("DROP TRIGGER fail").await;
    attest(&mut issuer.stranger().await, &token, csr(&new_key())).await.unwrap();
    issuer.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_released_certificate_is_on_record_when_the_issuer_is_torn_down() {
    let place = Place::new();
    let issuer = place.serve().await;
    let joined = issuer.join(ID).await;
    let mut renewals = tokio::task::JoinSet::new();
    for _ in 0..8 {
        let mut client = issuer.client_of(&joined).await;
        renewals.spawn(async move {
            let mut released = 0;
            while renew(&mut client, csr(&new_key())).await.is_ok() {
                released += 1;
            }
            released
        });
    }
    tokio::time::sleep(std::time::Duration::from_millis(500)).await;
    issuer.stop().await;
    let released: i64 = renewals.join_all().await.into_iter().sum();
    let recorded = place.count("SELECT count(*) FROM issued WHERE attestation = 'x509_svid'").await;
    assert!(released > 0 && recorded >= released, "{released} released, {recorded} recorded");
}
