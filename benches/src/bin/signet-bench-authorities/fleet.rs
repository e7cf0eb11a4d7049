//! Clients of the issuer as programs are: each with the SDK, an identity of its own, and a stream on which it is told.

use std::sync::Arc;

use rustls::ClientConfig;
use signet_benches::issuer::place::Place;
use signet_identity::{ClientCredentials, ClientKey, ClientPolicy, SystemClock, TlsPolicies};
use signet_sdk::{IssuerSource, JoinToken, Running};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_util::sync::{CancellationToken, DropGuard};

/// One of them. It ends when it is dropped.
#[derive(Debug)]
pub(crate) struct Client {
    pub(crate) running: Running,
    to_gateways: ClientKey,
    _alive: DropGuard,
}

/// That come at once.
const AT_ONCE: usize = 32;

/// As many, each with an identity that is in force.
pub(crate) async fn join(place: &Place, count: usize) -> anyhow::Result<Vec<Client>> {
    let turns = Arc::new(Semaphore::new(AT_ONCE));
    let mut joining = JoinSet::new();
    for number in 0..count {
        let turn = Arc::clone(&turns).acquire_owned().await?;
        let token = place.join_token(&format!("spiffe://example.org/client/c{number}")).await?;
        let (address, bundle) = (place.address.to_string(), place.bundle.clone());
        joining.spawn(async move {
            let mut policies = TlsPolicies::new(Arc::new(SystemClock));
            let to_gateways = policies.client(ClientPolicy {
                alpn: vec![b"http/1.1".to_vec()],
                servers: ["spiffe://example.org/gateway/**".parse()?].into_iter().collect(),
                credentials: ClientCredentials::Svid,
            });
            let source = IssuerSource::new(&address, bundle, JoinToken::Value(token.into()))?;
            let shutdown = CancellationToken::new();
            let running = signet_sdk::start(source, policies, shutdown.clone()).await?;
            drop(turn);
            anyhow::Ok(Client { running, to_gateways, _alive: shutdown.drop_guard() })
        });
    }
    let mut clients = Vec::with_capacity(count);
    while let Some(client) = joining.join_next().await {
        clients.push(client??);
    }
    Ok(clients)
}

impl Client {
    /// With its present identity. It does not end by itself what is connected by this: who does is the gateway.
    pub(crate) fn config(&self) -> Arc<ClientConfig> {
        Arc::clone(self.running.live.load().client(self.to_gateways))
    }

    /// Of its present certificate, big endian.
    pub(crate) fn serial(&self) -> anyhow::Result<Vec<u8>> {
        signet_benches::issuer::caller::serial_of(self.running.live.load().svid().leaf())
    }
}
