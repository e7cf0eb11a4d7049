use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use signet_proto::admin::v1::{CreateJoinTokenRequest, GetStatusRequest};
use signet_proto::identity::v1::IssueJwtRequest;
use tonic::Code;

use crate::exchanging;
use crate::harness::{ID, Place};

#[tokio::test(flavor = "multi_thread")]
async fn tokens_are_made_only_for_what_a_workload_may_be() {
    let place = Place::new();
    let issuer = place.serve().await;
    let mut admin = issuer.admin().await;
    for (id, seconds, code, field) in [
        ("spiffe://example.org/signet/issuer", 60, Code::InvalidArgument, "spiffe_id: "),
        ("spiffe://example.org/signet", 60, Code::InvalidArgument, "spiffe_id: "),
        ("spiffe://example.org/signet/x/y", 60, Code::InvalidArgument, "spiffe_id: "),
        ("spiffe://other.org/shop/cart", 60, Code::InvalidArgument, "spiffe_id: "),
        ("spiffe://example.org", 60, Code::InvalidArgument, "spiffe_id: "),
        ("https://example.org/shop", 60, Code::InvalidArgument, "spiffe_id: "),
        ("", 60, Code::InvalidArgument, "spiffe_id: "),
        (ID, 0, Code::InvalidArgument, "ttl: "),
        (ID, -1, Code::InvalidArgument, "ttl: "),
        (ID, 86_401, Code::InvalidArgument, "ttl: "),
        (ID, i64::MAX, Code::InvalidArgument, "ttl: "),
    ] {
        let ttl = Some(prost_types::Duration { seconds, nanos: 0 });
        let request = CreateJoinTokenRequest { spiffe_id: id.to_owned(), ttl };
        let refused = admin.create_join_token(request).await.unwrap_err();
        assert_eq!(refused.code(), code, "{id} {seconds}: {refused}");
        assert!(refused.message().starts_with(field), "{refused}");
    }
    assert_eq!(place.count("SELECT count(*) FROM join_tokens").await, 0);
    issuer.token("spiffe://example.org/signets/x").await;
    issuer.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_store_never_sees_a_token() {
    let place = Place::with(exchanging::CONFIGURATION);
    let issuer = place.serve().await;
    issuer.apply(exchanging::RULES).await;
    let cart = issuer.join(ID).await;
    let to_join = issuer.token(ID).await;
    let request = IssueJwtRequest { audience: vec!["db".to_owned()], ttl: None };
    let svid = issuer.client_of(&cart).await.issue_jwt(request).await.unwrap().into_inner().svid.unwrap().token;
    let answer = exchanging::post(&issuer, Some(&cart), "grant_type=client_credentials&scope=read").await.json();
    assert_eq!(place.count("SELECT count(*) FROM issued_jwts").await, 2);
    issuer.stop().await;
    // The beginning of a join token says what it is; nobody takes a JWT without its signature.
    let signatures = [&svid, answer["access_token"].as_str().unwrap()].map(|jwt| jwt.rsplit('.').next().unwrap());
    let octets = signatures.map(|signature| URL_SAFE_NO_PAD.decode(signature).unwrap());
    let [one, other] = signatures.map(str::as_bytes);
    let secrets = [&to_join.as_bytes()[12..], one, other, &octets[0], &octets[1]];
    let mut folders = vec![place.path("state")];
    let mut seen = 0;
    while let Some(folder) = folders.pop() {
        for path in std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
            if path.is_dir() {
                folders.push(path);
            } else if path.is_file() {
                let bytes = std::fs::read(&path).unwrap();
                for secret in secrets {
                    let is_there = bytes.windows(secret.len()).any(|window| window == secret);
                    assert!(!is_there, "{}: {}", path.display(), String::from_utf8_lossy(secret));
                }
                seen += bytes.len();
            }
        }
    }
    assert!(seen > 4096, "{seen} octets");
}

#[tokio::test(flavor = "multi_thread")]
async fn status_tells_of_authority_and_certificates() {
    let place = Place::new();
    let issuer = place.serve().await;
    issuer.join(ID).await;
    let status = issuer.admin().await.get_status(GetStatusRequest {}).await.unwrap().into_inner();
    assert_eq!(status.trust_domain, "example.org");
    assert_eq!(status.live_svids, 2, "the issuer's own and the one that joined");
    let authority = status.authority.unwrap();
    assert_eq!(authority.key_id.len(), 40);
    let at = |time: Option<prost_types::Timestamp>| time.expect("a time").seconds;
    let (from, to) = (at(authority.not_before), at(authority.not_after));
    let [due, gives_way] = [authority.successor_due, authority.gives_way].map(at);
    assert!((due - from).abs_diff(to - due) <= 2 && (gives_way - due).abs_diff(to - gives_way) <= 2, "{authority:?}");
    let expiration = format!(
        "signet_ca_expiration_timestamp_seconds{{authority=\"{}\",state=\"active\"}} {}",
        authority.key_id,
        authority.not_after.unwrap().seconds
    );
    assert!(issuer.has_metric(&expiration).await);
    for line in [
        "signet_issuer_issued_total{profile=\"workload\",result=\"issued\"} 2",
        "signet_issuer_issued_total{profile=\"workload\",result=\"refused\"} 0",
        "signet_issuer_issue_duration_seconds_count 2",
        "signet_issuer_identities{state=\"valid\"}",
        "signet_svid_expiration_timestamp_seconds{spiffe_id=\"spiffe://example.org/signet/issuer\"}",
    ] {
        assert!(issuer.has_metric(line).await, "{line}");
    }
    issuer.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn health_and_reflection_answer() {
    use tonic_health::pb::health_client::HealthClient;
    use tonic_health::pb::{HealthCheckRequest, health_check_response::ServingStatus};
    use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
    use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
    use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;
    use tonic_reflection::pb::v1::{ServerReflectionRequest, ServiceResponse};

    let place = Place::new();
    let issuer = place.serve().await;
    let channel = issuer.channel_of_stranger().await;
    let service = "signet.identity.v1.IdentityService".to_owned();
    let check = HealthCheckRequest { service: service.clone() };
    let health = HealthClient::new(channel.clone()).check(check).await.unwrap().into_inner();
    assert_eq!(health.status(), ServingStatus::Serving);
    let list = ServerReflectionRequest {
        host: String::new(),
        message_request: Some(MessageRequest::ListServices(String::new())),
    };
    let answer = ServerReflectionClient::new(channel).server_reflection_info(tokio_stream::iter([list])).await;
    let answer = answer.unwrap().into_inner().message().await.unwrap().unwrap().message_response;
    let Some(MessageResponse::ListServicesResponse(list)) = answer else { panic!("a list of services") };
    assert!(list.service.contains(&ServiceResponse { name: service }));
    assert!(!list.service.iter().any(|found| found.name.contains("admin")));
    issuer.stop().await;
}
