//! Workloads of one authority whose identities rotate when a test says so.

use std::{sync::Arc, time::Duration};

use signet_identity::{
    BundleSet, ClientAuthentication, ClientCredentials, ClientKey, ClientPolicy, LiveIdentity, Material, RevocationSet,
    ServerKey, ServerPolicy, SystemClock, TlsPolicies, TrustBundle, X509Svid,
};
use signet_sdk::{Delivery, Running, Source, start};
use signet_test_pki::Authority;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

pub const LONG: Duration = Duration::from_secs(3600);
pub const SERVER: &str = "spiffe://example.org/shop/orders";
pub const CLIENT: &str = "spiffe://example.org/shop/cart";

/// A workload: its identity, and what its connections demand.
pub struct Workload {
    pub identity: Running,
    pub server: ServerKey,
    pub client: ClientKey,
    pub http1_client: ClientKey,
    id: String,
    deliveries: mpsc::Sender<Material>,
    shutdown: CancellationToken,
}

/// Delivers what a test hands over.
struct Handed(mpsc::Receiver<Material>);

impl Source for Handed {
    type Keys = ();

    fn register(&self, _: &mut TlsPolicies) {}

    async fn run(mut self, (): (), mut delivery: Delivery) {
        while let Some(material) = self.0.recv().await {
            delivery.offer(material).expect("material that fits");
        }
    }
}

/// An SVID with the bundle of its own domain, made of `roots`.
pub fn material(authority: &Authority, id: &str, ttl: Duration, roots: &[&Authority]) -> Material {
    let issued = authority.leaf(id).ttl(ttl).issue();
    let svid = X509Svid::from_der(issued.chain.clone(), issued.key()).unwrap();
    let roots = roots.iter().map(|root| root.root_certificate().clone()).collect();
    let bundle = TrustBundle::new(svid.id().trust_domain().clone(), roots).unwrap();
    Material { svid, bundles: BundleSet::from_iter([bundle]), revocations: RevocationSet::default() }
}

impl Workload {
    /// Accepts any client of its domain, and as a client expects [`SERVER`].
    pub async fn start(authority: &Authority, id: &str, ttl: Duration) -> Self {
        Self::start_with(material(authority, id, ttl, &[authority])).await
    }

    pub async fn start_with(material: Material) -> Self {
        let mut policies = TlsPolicies::new(Arc::new(SystemClock));
        let alpn = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        let server = policies.server(ServerPolicy { alpn: alpn.clone(), clients: ClientAuthentication::Required });
        let mut client = |alpn| {
            let servers = [SERVER.parse().unwrap()].into_iter().collect();
            policies.client(ClientPolicy { alpn, servers, credentials: ClientCredentials::Svid })
        };
        let (client, http1_client) = (client(alpn), client(vec![b"http/1.1".to_vec()]));
        let id = material.svid.id().to_string();
        let (deliveries, handed) = mpsc::channel(1);
        deliveries.send(material).await.unwrap();
        let shutdown = CancellationToken::new();
        let identity = start(Handed(handed), policies, shutdown.clone()).await.unwrap();
        Self { identity, server, client, http1_client, id, deliveries, shutdown }
    }

    pub fn live(&self) -> &LiveIdentity {
        &self.identity.live
    }

    pub fn serial(&self) -> String {
        self.live().load().svid().serial().to_string()
    }

    /// Makes a new certificate live.
    pub async fn rotate(&self, authority: &Authority, ttl: Duration) {
        self.deliver(material(authority, &self.id, ttl, &[authority])).await;
    }

    pub async fn deliver(&self, material: Material) {
        let mut changed = self.live().changed();
        changed.mark_unchanged();
        self.deliveries.send(material).await.unwrap();
        changed.changed().await.unwrap();
    }
}

impl Drop for Workload {
    fn drop(&mut self) {
        self.shutdown.cancel();
    }
}
