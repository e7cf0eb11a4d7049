use std::time::Duration;

use signet_proto::admin::v1::CreateJoinTokenRequest;
use signet_proto::identity::v1::AttestRequest;
use tonic::Code;
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

use crate::harness::{ID, Place, attest, csr, new_key};

#[tokio::test(flavor = "multi_thread")]
async fn a_join_token_becomes_an_svid_of_the_profile_and_a_record() {
    let place = Place::with("svid: { ttl: 1h }");
    let issuer = place.serve().await;
    let joined = issuer.join(ID).await;

    let (rest, leaf) = X509Certificate::from_der(joined.svid.leaf()).unwrap();
    assert!(rest.is_empty());
    assert_eq!(leaf.subject().as_raw(), [0x30, 0]);
    let names = leaf.subject_alternative_name().unwrap().unwrap();
    assert!(names.critical);
    assert_eq!(names.value.general_names, [GeneralName::URI(ID)]);
    let constraints = leaf.basic_constraints().unwrap().unwrap();
    assert!(constraints.critical && !constraints.value.ca);
    let usage = leaf.key_usage().unwrap().unwrap();
    assert!(usage.critical);
    assert_eq!(usage.value.flags, 1, "digitalSignature alone");
    let extended = leaf.extended_key_usage().unwrap().unwrap();
    assert!(!extended.critical && extended.value.server_auth && extended.value.client_auth);
    assert!(leaf.raw_serial().len() == 16 && leaf.raw_serial()[0] & 0xc0 == 0x40);
    assert_eq!(leaf.validity().not_after.timestamp() - leaf.validity().not_before.timestamp(), 3600);
    assert_eq!(key_ids(&leaf).1, key_ids(&X509Certificate::from_der(&joined.svid.chain()[1]).unwrap().1).0);
    assert!(key_ids(&leaf).0.is_some());

    assert_eq!(joined.svid.chain().len(), 2, "the root is not sent");
    let serial = format!(
        "SELECT count(*) FROM issued WHERE hex(serial) = '{}' AND spiffe_id = '{ID}' AND attestation = 'join_token'",
        joined.svid.serial().to_string().to_uppercase()
    );
    assert_eq!(place.count(serial.leak()).await, 1);
    issuer.stop().await;
}

/// Subject and authority key identifier.
fn key_ids(certificate: &X509Certificate<'_>) -> (Option<Vec<u8>>, Option<Vec<u8>>) {
    use x509_parser::extensions::ParsedExtension;
    let find = |wanted: fn(&ParsedExtension<'_>) -> Option<Vec<u8>>| {
        certificate.iter_extensions().find_map(|extension| wanted(extension.parsed_extension()))
    };
    let subject = find(|extension| match extension {
        ParsedExtension::SubjectKeyIdentifier(id) => Some(id.0.to_vec()),
        _ => None,
    });
    let authority = find(|extension| match extension {
        ParsedExtension::AuthorityKeyIdentifier(id) => id.key_identifier.as_ref().map(|id| id.0.to_vec()),
        _ => None,
    });
    (subject, authority)
}

#[tokio::test(flavor = "multi_thread")]
async fn no_leaf_outlives_its_issuer() {
    let place = Place::with("svid: { ttl: 1h }");
    let mut issuer = place.start().await.unwrap();
    // Less than a sixth of its life, of which five minutes are for clocks that are late.
    place.sign_with("root", Duration::from_secs(30));
    issuer.serving().await;
    let joined = issuer.join(ID).await;
    let end = |der| X509Certificate::from_der(der).unwrap().1.validity().not_after.timestamp();
    assert_eq!(end(joined.svid.leaf()), end(&joined.svid.chain()[1]));
    issuer.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn fifty_presentations_of_one_token_yield_one_svid() {
    let place = Place::new();
    let issuer = place.serve().await;
    let token = issuer.token(ID).await;
    let mut presentations = tokio::task::JoinSet::new();
    for _ in 0..50 {
        let (mut client, token) = (issuer.stranger().await, token.clone());
        presentations.spawn(async move { attest(&mut client, &token, csr(&new_key())).await });
    }
    let answers = presentations.join_all().await;
    assert_eq!(answers.iter().filter(|answer| answer.is_ok()).count(), 1);
    for refused in answers.into_iter().filter_map(Result::err) {
        assert_eq!((refused.code(), refused.message()), (Code::Unauthenticated, "join_token: not accepted"));
    }
    assert_eq!(place.count("SELECT count(*) FROM issued WHERE attestation = 'join_token'").await, 1);
    issuer.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_is_unknown_used_expired_or_malformed_is_refused_alike() {
    let place = Place::new();
    let issuer = place.serve().await;
    let used = issuer.token(ID).await;
    let mut client = issuer.stranger().await;
    attest(&mut client, &used, csr(&new_key())).await.unwrap();
    let ttl = prost_types::Duration { seconds: 1, nanos: 0 };
    let short = CreateJoinTokenRequest { spiffe_id: ID.to_owned(), ttl: Some(ttl) };
    let expired = issuer.admin().await.create_join_token(short).await.unwrap().into_inner().join_token;
    tokio::time::sleep(Duration::from_millis(2100)).await;
    let unknown = format!("signet_join_{}", "0".repeat(64));
    for token in [&used, &expired, &unknown, "signet_join_", ""] {
        let refused = attest(&mut client, token, csr(&new_key())).await.unwrap_err();
        assert_eq!((refused.code(), refused.message()), (Code::Unauthenticated, "join_token: not accepted"));
    }
    for reason in ["used", "expired", "unknown", "malformed"] {
        let line =
            format!("signet_issuer_attestations_refused_total{{attestation=\"join_token\",reason=\"{reason}\"}}");
        assert!(issuer.has_metric(&line).await, "{reason}");
    }
    issuer.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_csr_that_is_refused_names_its_field_and_costs_no_token() {
    let place = Place::new();
    let issuer = place.serve().await;
    let token = issuer.token(ID).await;
    let mut client = issuer.stranger().await;
    let rsa = rcgen::KeyPair::generate_for(&rcgen::PKCS_RSA_SHA256).unwrap();
    let mut forged = csr(&new_key());
    *forged.last_mut().unwrap() ^= 1;
    for (wrong, expected) in [
        (Vec::new(), "csr: is empty"),
        (vec![0x30; 4097], "csr: is 4097 bytes long, and may be 4096 at most"),
        (vec![0x30; 64], "csr: is not a PKCS#10 request in DER"),
        (csr(&rsa), "csr: is for another type of key than those accepted: p256, p384"),
        (forged, "csr: is not signed by the key it is for"),
    ] {
        let refused = attest(&mut client, &token, wrong).await.unwrap_err();
        assert_eq!((refused.code(), refused.message()), (Code::InvalidArgument, expected));
    }
    let nothing = client.attest(AttestRequest::default()).await.unwrap_err();
    assert_eq!((nothing.code(), nothing.message()), (Code::InvalidArgument, "proof: missing"));
    let proof = signet_proto::identity::v1::attest_request::Proof::JoinToken(token.clone());
    let wait = Some(prost_types::Duration { seconds: -1, nanos: 0 });
    let late = AttestRequest { wait, ..crate::harness::request(proof, csr(&new_key())) };
    let late = client.attest(late).await.unwrap_err();
    assert_eq!((late.code(), late.message()), (Code::InvalidArgument, "wait: negative, or no time"));
    assert_eq!(place.count("SELECT count(*) FROM issued WHERE attestation = 'join_token'").await, 0);
    attest(&mut client, &token, csr(&new_key())).await.unwrap();
    issuer.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_beyond_its_limit_is_refused() {
    let place = Place::new();
    let issuer = place.serve().await;
    let token = issuer.token(ID).await;
    for bytes in [70_000, 4 << 20] {
        let refused = attest(&mut issuer.stranger().await, &token, vec![0; bytes]).await.unwrap_err();
        assert_eq!(refused.code(), Code::OutOfRange, "{refused}");
    }
    issuer.stop().await;
}
