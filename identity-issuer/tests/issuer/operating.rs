use signet_proto::admin::v1::{CreateJoinTokenRequest, GetStatusRequest};
use tonic::Code;

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
    let place = Place::new();
    let issuer = place.serve().await;
    let token = issuer.token(ID).await;
    issuer.stop().await;
    let files = std::fs::read_dir(place.path("state")).unwrap().map(|file| file.unwrap().path());
    for file in files.filter(|file| file.is_file()) {
        let bytes = std::fs::read(file).unwrap();
        assert!(!bytes.windows(token.len() - 12).any(|window| window == &token.as_bytes()[12..]));
    }
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
