use std::time::Duration;

use identity_issuer::{Phase, RunError};

use crate::harness::{ID, Place, attest, csr, eventually, new_key, renew, write};

#[tokio::test(flavor = "multi_thread")]
async fn an_issuer_waits_for_its_intermediate_and_says_how_to_make_it() {
    let place = Place::new();
    let mut issuer = place.start().await.unwrap();
    eventually("the reason", async || issuer.page("/ready").await.1.contains("signet ca sign")).await;
    let (status, reasons) = issuer.page("/ready").await;
    assert_eq!(status, 503);
    let command = format!(
        "signet ca sign --dir ROOT --passphrase-file FILE --csr {} --out {}",
        place.path("state/authority.csr").display(),
        place.path("authority.pem").display()
    );
    assert!(reasons.contains(&command), "{reasons}");
    assert!(tokio::net::TcpStream::connect(issuer.started.grpc).await.is_err(), "nobody is left waiting");

    // A file whose signer is at work is none yet, and not a wrong one.
    write(&place.path("authority.pem"), "");
    for _ in 0..20 {
        assert!(issuer.page("/ready").await.1.contains(&command));
        tokio::time::sleep(Duration::from_millis(40)).await;
    }

    // One of another root does not do.
    place.make_root("stranger", "example.org");
    place.sign_with("stranger", Duration::from_secs(3600));
    let refused = async || issuer.page("/ready").await.1.contains("is signed by no root of the trust bundle");
    eventually("the refusal", refused).await;
    assert_eq!(*issuer.started.phase.borrow(), Phase::AwaitingIntermediate);

    place.sign_with("root", Duration::from_secs(3600));
    issuer.serving().await;
    eventually("ready", async || issuer.page("/ready").await.0 == 200).await;
    issuer.join(ID).await;
    issuer.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_takes_up_the_state() {
    let place = Place::new();
    let first = place.serve().await;
    let joined = first.join(ID).await;
    let (used, unused) = (first.token(ID).await, first.token(ID).await);
    attest(&mut first.stranger().await, &used, csr(&new_key())).await.unwrap();
    first.stop().await;

    let second = place.serve().await;
    renew(&mut second.client_of(&joined).await, csr(&new_key())).await.unwrap();
    renew(&mut second.client_of(&joined).await, csr(&joined.key)).await.unwrap_err();
    attest(&mut second.stranger().await, &used, csr(&new_key())).await.unwrap_err();
    attest(&mut second.stranger().await, &unused, csr(&new_key())).await.unwrap();
    second.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_later_intermediate_of_the_same_key_is_taken_up() {
    let place = Place::new();
    let issuer = place.serve().await;
    place.sign_with("root", Duration::from_secs(7200));
    let end = async || {
        let page = issuer.page("/metrics").await.1;
        let line = page.lines().find(|line| line.starts_with("signet_ca_expiration")).map(str::to_owned);
        let seconds: f64 = line.and_then(|line| line.rsplit(' ').next()?.parse().ok()).unwrap_or_default();
        seconds - time::OffsetDateTime::now_utc().unix_timestamp() as f64
    };
    eventually("the longer life", async || end().await > 7000.0).await;
    write(&place.path("authority.pem"), "half a certif");
    issuer.join(ID).await;
    issuer.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_started_says_why() {
    let place = Place::new();
    let issuer = place.serve().await;
    let in_use = place.start().await.err().unwrap();
    assert!(matches!(in_use, RunError::StateInUse { .. }), "{in_use}");

    let other =
        Place::with(&format!("shutdown: {{ drain: 1s }}\nadmin_socket: {}", issuer.started.admin_socket.display()));
    let in_use = other.start().await.err().unwrap();
    assert!(matches!(in_use, RunError::AdminSocket(_)), "{in_use}");
    issuer.stop().await;

    write(&place.path("passphrase"), "open barley\n");
    let wrong = place.start().await.err().unwrap();
    assert!(wrong.to_string().starts_with("the passphrase does not open the key file"), "{wrong}");
    write(&place.path("passphrase"), "\n");
    let empty = place.start().await.err().unwrap();
    assert!(matches!(empty, RunError::Passphrase(_)), "{empty}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_port_in_use_is_one_clear_error() {
    let held = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let place = Place::new();
    let mut config = place.config();
    config.listen = held.local_addr().unwrap();
    let error = place.run(config).await;
    assert!(matches!(error, RunError::AddressInUse { .. }), "{error}");
    let mut config = place.config();
    config.admin = held.local_addr().unwrap();
    let error = place.run(config).await;
    assert!(matches!(error, RunError::Admin(_)), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_newer_or_foreign_state_is_refused() {
    let place = Place::new();
    place.serve().await.stop().await;
    place.sql("INSERT INTO _sqlx_migrations VALUES (9000, 'from the future', '2030-01-01', 1, x'00', 1)").await;
    let newer = place.start().await.err().unwrap();
    assert!(newer.to_string().contains("was written by a newer version"), "{newer}");
    place.sql("DELETE FROM _sqlx_migrations WHERE version = 9000; UPDATE issuer SET trust_domain = 'other.org'").await;
    let foreign = place.start().await.err().unwrap();
    assert!(foreign.to_string().contains("belongs to the trust domain other.org"), "{foreign}");

    std::fs::write(place.path("state/issuer.db"), [b'x'; 8192]).unwrap();
    let damaged = place.start().await.err().unwrap();
    assert!(damaged.to_string().contains("is damaged"), "{damaged}");
    for gone in [Some(""), None] {
        match gone {
            Some(nothing) => write(&place.path("state/issuer.db"), nothing),
            None => std::fs::remove_file(place.path("state/issuer.db")).unwrap(),
        }
        let forgetful = place.start().await.err().unwrap();
        assert!(forgetful.to_string().contains("key is there, but not its database"), "{forgetful}");
    }

    let place = Place::new();
    place.serve().await.stop().await;
    let key = std::fs::read_dir(place.path("state/authorities")).unwrap().next().unwrap().unwrap().path();
    std::fs::rename(&key, place.path("kept.key")).unwrap();
    let gone = place.start().await.err().unwrap();
    assert!(gone.to_string().contains("is not where the issuer's keys are kept"), "{gone}");
    write(&key, "-----BEGIN");
    let damaged = place.start().await.err().unwrap();
    assert!(damaged.to_string().contains("is not a sealed key"), "{damaged}");
    std::fs::rename(place.path("kept.key"), &key).unwrap();
    write(&place.path("state/authorities.json"), "{}");
    let damaged = place.start().await.err().unwrap();
    assert!(damaged.to_string().contains("remembers of its authorities"), "{damaged}");
}
