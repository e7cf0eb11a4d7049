//! The fleet and what it needs: authorities, identities, and the files of the gateway.

use std::fs;
use std::net::SocketAddr;
use std::sync::Arc;

use rustls::ClientConfig;
use signet_benches::pki::{SERVER_ID, TRUST_DOMAIN};
use signet_identity::{
    ClientCredentials, ClientKey, ClientPolicy, Material, RevocationSet, Snapshot, SystemClock, TlsPolicies,
    TrustBundle, X509Svid,
};
use signet_test_pki::{Authority, Issued, pem};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::connection::{self, Connection, ask};
use crate::origin::origin;
use crate::{AT_ONCE, Options};

/// The authorities of one trust domain, the fleet, and the files that the gateway reads.
pub(crate) struct Mesh {
    pub(crate) folder: tempfile::TempDir,
    pub(crate) staying: Authority,
    pub(crate) leaving: Authority,
    pub(crate) joining: Authority,
    pub(crate) clients: Vec<Client>,
}

pub(crate) struct Client {
    pub(crate) config: Arc<ClientConfig>,
    stays: bool,
}

impl Mesh {
    pub(crate) fn new(options: &Options) -> anyhow::Result<Self> {
        let [staying, leaving, joining] = [(); 3].map(|()| Authority::root(TRUST_DOMAIN).intermediate());
        let clients = clients(options.identities, &staying, &leaving)?;
        let mesh = Self { folder: tempfile::tempdir()?, staying, leaving, joining, clients };
        let own = mesh.staying.leaf(SERVER_ID).issue();
        let path = |name| mesh.folder.path().join(name);
        fs::write(path("own.pem"), own.chain_pem())?;
        fs::write(path("own.key"), own.key_pem())?;
        mesh.publish(&[&mesh.staying, &mesh.leaving])?;
        let config = GATEWAY
            .replace("@DIR@", &mesh.folder.path().display().to_string())
            .replace("@WORKERS@", &options.workers.to_string())
            .replace("@ORIGIN@", &origin()?.to_string());
        fs::write(path("gateway.yaml"), config)?;
        Ok(mesh)
    }

    /// Writes the bundle that the gateway is to trust, in one step.
    pub(crate) fn publish(&self, authorities: &[&Authority]) -> anyhow::Result<()> {
        let roots = authorities.iter().map(|authority| pem("CERTIFICATE", authority.root_certificate()));
        let next = self.folder.path().join("next");
        fs::write(&next, roots.collect::<String>())?;
        Ok(fs::rename(next, self.folder.path().join("roots.pem"))?)
    }

    /// Makes the fleet's connections, and proves each of them by a request.
    pub(crate) async fn connect(&self, address: SocketAddr, options: &Options) -> anyhow::Result<Vec<Connection>> {
        let places = Arc::new(Semaphore::new(AT_ONCE));
        let mut connecting = JoinSet::new();
        for number in 0..options.connections {
            let place = places.clone().acquire_owned().await?;
            let client = &self.clients[number % self.clients.len()];
            let (config, stays) = (client.config.clone(), client.stays);
            connecting.spawn(async move {
                let mut stream = connection::connect(config, address).await?;
                ask(&mut stream).await?;
                drop(place);
                anyhow::Ok(Connection { stream, stays })
            });
        }
        let mut fleet = Vec::with_capacity(options.connections);
        while let Some(connected) = connecting.join_next().await {
            fleet.push(connected??);
        }
        Ok(fleet)
    }
}

const GATEWAY: &str = r#"
identity:
  files: { certificate: "@DIR@/own.pem", key: "@DIR@/own.key", bundle: "@DIR@/roots.pem" }
admin: 127.0.0.1:0
workers: @WORKERS@
listeners:
  - { name: inbound, mode: inbound, listen: "127.0.0.1:0", allow: ["spiffe://example.org/**"], upstream: origin }
upstreams:
  - { name: origin, address: "http://@ORIGIN@" }
"#;

/// Every second identity has its certificate from the authority that leaves.
fn clients(count: usize, staying: &Authority, leaving: &Authority) -> anyhow::Result<Vec<Client>> {
    let mut policies = TlsPolicies::new(Arc::new(SystemClock));
    let key = policies.client(ClientPolicy {
        alpn: vec![b"http/1.1".to_vec()],
        servers: [SERVER_ID.parse()?].into_iter().collect(),
        credentials: ClientCredentials::Svid,
    });
    let roots = [staying, leaving].map(|authority| authority.root_certificate().clone());
    let bundle = TrustBundle::new(TRUST_DOMAIN.parse()?, roots.to_vec())?;
    // They share one chain cache, as what comes after the first goes on in its trust epoch.
    let mut first: Option<Snapshot> = None;
    let mut made = Vec::with_capacity(count);
    for number in 0..count {
        let stays = number % 2 == 0;
        let authority = if stays { staying } else { leaving };
        let issued = authority.leaf(&format!("spiffe://{TRUST_DOMAIN}/bench/client-{number:04}")).issue();
        let snapshot = snapshot(&issued, &bundle, &policies, first.as_ref())?;
        made.push(Client { config: config(&snapshot, key), stays });
        first.get_or_insert(snapshot);
    }
    Ok(made)
}

fn snapshot(
    issued: &Issued,
    bundle: &TrustBundle,
    policies: &TlsPolicies,
    previous: Option<&Snapshot>,
) -> anyhow::Result<Snapshot> {
    let svid = X509Svid::from_der(issued.chain.clone(), issued.key())?;
    let material =
        Material { svid, bundles: [bundle.clone()].into_iter().collect(), revocations: RevocationSet::default() };
    Ok(Snapshot::build(material, policies, previous)?)
}

fn config(snapshot: &Snapshot, key: ClientKey) -> Arc<ClientConfig> {
    snapshot.client(key).clone()
}
