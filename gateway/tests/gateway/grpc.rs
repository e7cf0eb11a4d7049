use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Empty};
use hyper::body::{Body as _, Incoming};
use signet_test_pki::Issued;
use tokio::net::TcpListener;

use crate::harness::*;

async fn call(gateway: &Running, identity: &Issued, content_type: &str) -> Response<Incoming> {
    let stream = connect(gateway.address(), Some(identity), &[b"h2"]).await.unwrap();
    let request =
        Request::post("https://a/shop.Cart/Add").header("content-type", content_type).header("te", "trailers");
    http2(stream).await.send_request(request.body(Empty::<Bytes>::new()).unwrap()).await.unwrap()
}

#[tokio::test]
async fn a_refused_call_is_answered_as_grpc_is_with_trailers_alone() {
    let pki = Pki::new();
    let gone = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let gateway = inbound(&pki, gone).await;
    let stranger = pki.issuing.leaf("spiffe://example.org/billing/api").issue();
    for (identity, status, message) in [(&stranger, "7", "denied"), (&pki.client(), "14", "upstream_unreachable")] {
        let answer = call(&gateway, identity, "application/grpc+proto").await;
        assert_eq!(answer.status(), StatusCode::OK);
        assert_eq!(answer.headers()["content-type"], "application/grpc");
        assert_eq!(answer.headers()["grpc-status"], status);
        assert_eq!(answer.headers()["grpc-message"], message);
        assert_eq!(answer.headers()["x-signet-reason"], message);
        assert!(answer.body().is_end_stream());
    }
    // Counted as what it is.
    gateway.counts("signet_gateway_requests_total{code=\"403\",listener=\"inbound\"} 1").await;
    gateway.counts("signet_gateway_requests_total{code=\"503\",listener=\"inbound\"} 1").await;
}

#[tokio::test]
async fn a_refused_request_that_is_not_grpc_is_answered_by_its_status() {
    let pki = Pki::new();
    let gateway = inbound(&pki, mirror().await).await;
    let stranger = pki.issuing.leaf("spiffe://example.org/billing/api").issue();
    for content_type in ["application/json", "application/grpc-web"] {
        let answer = call(&gateway, &stranger, content_type).await;
        assert_eq!(answer.status(), StatusCode::FORBIDDEN);
        assert!(!answer.headers().contains_key("grpc-status"));
        assert_eq!(answer.into_body().collect().await.unwrap().to_bytes(), "forbidden\n");
    }
}

#[tokio::test]
async fn what_the_service_answers_to_a_call_is_left_as_it_is() {
    let pki = Pki::new();
    let address = service(|_| async {
        let mut answer = Response::new(full(""));
        *answer.status_mut() = StatusCode::FORBIDDEN;
        answer
    })
    .await;
    let gateway = inbound(&pki, address).await;
    let answer = call(&gateway, &pki.client(), "application/grpc").await;
    assert_eq!(answer.status(), StatusCode::FORBIDDEN);
    assert!(!answer.headers().contains_key("grpc-status"));
}
