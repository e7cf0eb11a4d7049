//! Callers of an issuer: strangers that attest, and holders of an SVID.

use std::sync::Arc;
use std::time::Duration;

use hyper_util::rt::TokioIo;
use rcgen::{CertificateParams, KeyPair};
use rustls::ClientConfig;
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls_pki_types::{CertificateDer, PrivatePkcs8KeyDer, ServerName};
use signet_identity::{BundleSet, RevocationSet, SpiffeIdPatterns, SystemClock, TrustBundle, bootstrap_client_config};
use signet_proto::identity::v1::identity_service_client::IdentityServiceClient;
use signet_proto::identity::v1::{AttestRequest, KubernetesToken, X509Svid, attest_request::Proof};
use tokio::net::TcpStream;
use tonic::transport::{Channel, Endpoint};

use crate::place::Place;

/// An SVID with its key.
#[derive(Debug)]
pub(crate) struct Held {
    chain: Vec<CertificateDer<'static>>,
    key: Vec<u8>,
}

/// A key, and a request for it.
pub(crate) fn new_request() -> anyhow::Result<(KeyPair, Vec<u8>)> {
    let key = KeyPair::generate()?;
    let csr = CertificateParams::default().serialize_request(&key)?.der().to_vec();
    Ok((key, csr))
}

/// So many requests for keys that nobody needs afterwards.
pub(crate) fn requests(count: usize) -> anyhow::Result<Vec<Vec<u8>>> {
    let half = std::thread::spawn(move || {
        (0..count / 2).map(|_| new_request().map(|(_, csr)| csr)).collect::<anyhow::Result<Vec<_>>>()
    });
    let mut all = (count / 2..count).map(|_| new_request().map(|(_, csr)| csr)).collect::<anyhow::Result<Vec<_>>>()?;
    all.extend(half.join().map_err(|_| anyhow::anyhow!("no requests"))??);
    Ok(all)
}

/// For a token that is good for whatever identity there is.
pub(crate) fn attestation(token: String, csr: Vec<u8>, wait: Option<Duration>) -> AttestRequest {
    let proof = Proof::K8sSaToken(KubernetesToken { cluster: String::new(), token });
    let wait = wait.and_then(|wait| prost_types::Duration::try_from(wait).ok());
    AttestRequest { proof: Some(proof), csr, wait, ..AttestRequest::default() }
}

/// Of whoever has no certificate yet.
pub(crate) fn strangers_config(bundle: TrustBundle) -> anyhow::Result<Arc<ClientConfig>> {
    let bundles = BundleSet::from_iter([bundle]);
    let servers = SpiffeIdPatterns::from_iter(["spiffe://example.org/signet/issuer".parse()?]);
    Ok(bootstrap_client_config(
        &bundles,
        &RevocationSet::default(),
        &servers,
        vec![b"h2".to_vec()],
        Arc::new(SystemClock),
    ))
}

impl Place {
    /// A connection without a certificate.
    pub(crate) async fn stranger(&self) -> anyhow::Result<IdentityServiceClient<Channel>> {
        self.connect(Arc::clone(&self.strangers)).await
    }

    /// A connection of the holder of an SVID.
    pub(crate) async fn client_of(&self, held: &Held) -> anyhow::Result<IdentityServiceClient<Channel>> {
        let key = PrivatePkcs8KeyDer::from(held.key.clone()).into();
        let key = rustls::crypto::aws_lc_rs::sign::any_supported_type(&key)?;
        let mut config = self.strangers.as_ref().clone();
        let shown = CertifiedKey::new(held.chain.clone(), key);
        config.client_auth_cert_resolver = Arc::new(SingleCertAndKey::from(shown));
        self.connect(Arc::new(config)).await
    }

    async fn connect(&self, config: Arc<ClientConfig>) -> anyhow::Result<IdentityServiceClient<Channel>> {
        let address = self.address;
        let connector = tower::service_fn(move |_: http::Uri| {
            let connector = tokio_rustls::TlsConnector::from(Arc::clone(&config));
            async move {
                let tcp = TcpStream::connect(address).await?;
                tcp.set_nodelay(true)?;
                let tls = connector.connect(ServerName::IpAddress(address.ip().into()), tcp).await?;
                std::io::Result::Ok(TokioIo::new(tls))
            }
        });
        let channel = Endpoint::from_static("http://issuer").connect_with_connector(connector).await?;
        Ok(IdentityServiceClient::new(channel))
    }

    /// The identity of a service account.
    pub(crate) async fn attest(
        &self,
        client: &mut IdentityServiceClient<Channel>,
        namespace: &str,
        account: &str,
    ) -> anyhow::Result<Held> {
        let (key, csr) = new_request()?;
        let request = attestation(self.tokens.token(namespace, account)?, csr, None);
        let svid = client.attest(request).await?.into_inner().svid;
        Ok(Held::of(svid.ok_or_else(|| anyhow::anyhow!("an answer without an SVID"))?, &key))
    }
}

impl Held {
    pub(crate) fn of(svid: X509Svid, key: &KeyPair) -> Self {
        Self { chain: svid.chain.into_iter().map(CertificateDer::from).collect(), key: key.serialize_der() }
    }
}
