//! The way to an issuer over the network: mTLS, with an identity from files.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use signet_identity::{
    BundleSet, ClientCredentials, ClientPolicy, Material, RevocationSet, SharedClock, Snapshot, SpiffeIdPatterns,
    SystemClock, TlsPolicies, TrustBundle, X509Svid, live,
};
use signet_sdk::FilePaths;
use signet_sdk::hyper::MtlsConnector;
use tonic::transport::{Channel, Endpoint};
use zeroize::Zeroizing;

use crate::failure::Failure;

/// To the issuer at `address`, as whoever the certificate in the folder is of. The issuer is the one of the same trust domain.
pub(crate) async fn connect(address: &str, folder: &Path, patience: Duration) -> Result<Channel, Failure> {
    let material = read_identity(folder)?;
    let domain = material.svid.id().trust_domain().clone();
    let issuer = format!("{}/signet/issuer", domain.id());
    let clock: SharedClock = Arc::new(SystemClock);
    let mut policies = TlsPolicies::new(Arc::clone(&clock));
    let key = policies.client(ClientPolicy {
        alpn: vec![b"h2".to_vec()],
        servers: SpiffeIdPatterns::from_iter([issuer.parse().map_err(|error| Failure::from_error(&error))?]),
        credentials: ClientCredentials::Svid,
    });
    let snapshot = Snapshot::build(material, &policies, None).map_err(|error| Failure::from_error(&error))?;
    let (_publisher, live) = live(snapshot);
    let endpoint = Endpoint::from_shared(format!("http://{address}"));
    let endpoint = endpoint.map_err(|_| Failure::new(format!("{address} is no host and port")))?;
    endpoint
        .connect_timeout(patience)
        .timeout(patience)
        .connect_with_connector(MtlsConnector::new(live, key, clock))
        .await
        .map_err(|error| {
            let cause = Failure::from_error(&error);
            Failure::new(format!("{address}: cannot reach the issuer ({})", cause.cause()))
                .remedy("is it there, and is your certificate still valid?")
        })
}

/// `svid.pem`, `svid.key` and `bundle.pem`.
fn read_identity(folder: &Path) -> Result<Material, Failure> {
    let FilePaths { certificate, key, bundle } = FilePaths::within(folder);
    let read = |path: &Path| {
        std::fs::read(path).map(Zeroizing::new).map_err(|error| Failure::new(format!("{}: {error}", path.display())))
    };
    let svid = X509Svid::from_pem(&read(&certificate)?, &read(&key)?).map_err(|error| Failure::from_error(&error))?;
    let domain = svid.id().trust_domain().clone();
    let bundle = TrustBundle::from_pem(domain, &read(&bundle)?).map_err(|error| Failure::from_error(&error))?;
    Ok(Material { svid, bundles: BundleSet::from_iter([bundle]), revocations: RevocationSet::default() })
}
