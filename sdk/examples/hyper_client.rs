//! An HTTP client that asks the `hyper_server` example each second. Its certificate is renewed meanwhile, and no request
//! notices.
//!
//! ```text
//! signet token create spiffe://example.org/me --out me.token
//! cargo run -p signet-sdk --example hyper_client -- 127.0.0.1:8081 .signet/root/root.pem me.token
//! ```

use std::{sync::Arc, time::Duration};

use anyhow::Context as _;
use http_body_util::{BodyExt as _, Empty};
use hyper::{Request, body::Bytes};
use signet_identity::{ClientCredentials, ClientPolicy, SystemClock, TlsPolicies, TrustBundle};
use signet_sdk::{IssuerSource, JoinToken, hyper::MtlsClient};
use tokio_util::sync::CancellationToken;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    tracing_subscriber::fmt().init();
    let [issuer, bundle, token, server] = arguments()?;

    let mut policies = TlsPolicies::new(Arc::new(SystemClock));
    let greeter = policies.client(ClientPolicy {
        alpn: vec![b"h2".to_vec(), b"http/1.1".to_vec()],
        servers: ["spiffe://example.org/hello".parse()?].into_iter().collect(),
        credentials: ClientCredentials::Svid,
    });

    let bundle = TrustBundle::from_pem("example.org".parse()?, &std::fs::read(&bundle).context(bundle)?)?;
    let source = IssuerSource::new(&issuer, bundle, JoinToken::File(token.into()))?;
    let identity = signet_sdk::start(source, policies, CancellationToken::new()).await?;

    let client = MtlsClient::new(identity.connector(greeter));
    loop {
        let request = Request::get(format!("https://{server}/")).body(Empty::<Bytes>::new())?;
        let answer = client.request(request).await?.into_body().collect().await?.to_bytes();
        print!("{}", String::from_utf8_lossy(&answer));
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

fn arguments() -> anyhow::Result<[String; 4]> {
    let mut arguments: Vec<_> = std::env::args().skip(1).collect();
    if arguments.len() == 3 {
        arguments.push("127.0.0.1:9443".to_owned());
    }
    arguments.try_into().ok().context("usage: hyper_client ISSUER-ADDRESS BUNDLE.PEM TOKEN-FILE [SERVER]")
}
