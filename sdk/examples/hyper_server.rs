//! An HTTP server that knows who asks: it greets each client by its SPIFFE ID.
//!
//! Beside a running `signet dev`:
//! ```text
//! signet token create spiffe://example.org/hello --out hello.token
//! cargo run -p signet-sdk --example hyper_server -- 127.0.0.1:8081 .signet/root/root.pem hello.token
//! ```
//! Then run the `hyper_client` example.

use std::{convert::Infallible, sync::Arc, time::Duration};

use anyhow::Context as _;
use http_body_util::Full;
use hyper::{Request, Response, body::Bytes, body::Incoming, service::service_fn};
use signet_identity::{ClientAuthentication, ServerPolicy, SystemClock, TlsPolicies, TrustBundle};
use signet_sdk::{IssuerSource, JoinToken, server};
use tokio_util::sync::CancellationToken;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    tracing_subscriber::fmt().init();
    let [issuer, bundle, token, address] = arguments()?;
    let shutdown = CancellationToken::new();

    let mut policies = TlsPolicies::new(Arc::new(SystemClock));
    let alpn = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    let clients = policies.server(ServerPolicy { alpn, clients: ClientAuthentication::Required });

    let bundle = TrustBundle::from_pem("example.org".parse()?, &std::fs::read(&bundle).context(bundle)?)?;
    let source = IssuerSource::new(&issuer, bundle, JoinToken::File(token.into()))?;
    let identity = signet_sdk::start(source, policies, shutdown.clone()).await?;

    let listener = identity.listen(&address, clients).await?;
    println!("listening on {}", listener.local_addr()?);
    let serving = server::serve(listener, service_fn(greet), shutdown.clone(), Duration::from_secs(4));
    let serving = tokio::spawn(serving);
    tokio::signal::ctrl_c().await?;
    // What is under way may end.
    shutdown.cancel();
    Ok(serving.await?)
}

async fn greet(request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let caller = server::peer_identity(request.extensions()).map(|peer| peer.id().to_string());
    let greeting = format!("hello, {}\n", caller.unwrap_or_default());
    Ok(Response::new(Full::new(Bytes::from(greeting))))
}

fn arguments() -> anyhow::Result<[String; 4]> {
    let mut arguments: Vec<_> = std::env::args().skip(1).collect();
    if arguments.len() == 3 {
        arguments.push("127.0.0.1:9443".to_owned());
    }
    arguments.try_into().ok().context("usage: hyper_server ISSUER-ADDRESS BUNDLE.PEM TOKEN-FILE [LISTEN]")
}
