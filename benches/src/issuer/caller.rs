//! Callers of an issuer: strangers that attest, and holders of an SVID.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
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

use super::place::Place;

/// An SVID with its key.
#[derive(Debug)]
pub struct Held {
    chain: Vec<CertificateDer<'static>>,
    key: Vec<u8>,
}

/// A key, and a request for it.
pub fn new_request() -> anyhow::Result<(KeyPair, Vec<u8>)> {
    let key = KeyPair::generate()?;
    let csr = CertificateParams::default().serialize_request(&key)?.der().to_vec();
    Ok((key, csr))
}

/// So many requests for keys that nobody needs afterwards.
pub fn requests(count: usize) -> anyhow::Result<Vec<Vec<u8>>> {
    let half = std::thread::spawn(move || {
        (0..count / 2).map(|_| new_request().map(|(_, csr)| csr)).collect::<anyhow::Result<Vec<_>>>()
    });
    let mut all = (count / 2..count).map(|_| new_request().map(|(_, csr)| csr)).collect::<anyhow::Result<Vec<_>>>()?;
    all.extend(half.join().map_err(|_| anyhow::anyhow!("no requests"))??);
    Ok(all)
}

/// For a token that is good for whatever identity there is.
pub fn attestation(token: String, csr: Vec<u8>, wait: Option<Duration>) -> AttestRequest {
    let proof = Proof::K8sSaToken(KubernetesToken { cluster: String::new(), token });
    let wait = wait.and_then(|wait| prost_types::Duration::try_from(wait).ok());
    AttestRequest { proof: Some(proof), csr, wait, ..AttestRequest::default() }
}

/// The serial number of a certificate, big endian.
pub fn serial_of(certificate: &[u8]) -> anyhow::Result<Vec<u8>> {
    let (_, certificate) = x509_parser::parse_x509_certificate(certificate)?;
    let serial = certificate.raw_serial();
    let zeros = serial.iter().take_while(|byte| **byte == 0).count();
    Ok(serial[zeros..].to_vec())
}

/// Of whoever has no certificate yet, towards the issuer.
pub fn strangers_config(bundle: TrustBundle) -> anyhow::Result<Arc<ClientConfig>> {
    strangers_of(bundle, "spiffe://example.org/signet/issuer", b"h2")
}

/// Of whoever has no certificate, towards servers whose SPIFFE ID is one of a pattern. No session is resumed.
pub fn strangers_of(bundle: TrustBundle, servers: &str, protocol: &[u8]) -> anyhow::Result<Arc<ClientConfig>> {
    let bundles = BundleSet::from_iter([bundle]);
    let servers = SpiffeIdPatterns::from_iter([servers.parse()?]);
    let protocols = vec![protocol.to_vec()];
    Ok(bootstrap_client_config(&bundles, &RevocationSet::default(), &servers, protocols, Arc::new(SystemClock)))
}

impl Place {
    /// A connection without a certificate.
    pub async fn stranger(&self) -> anyhow::Result<IdentityServiceClient<Channel>> {
        self.connect(Arc::clone(&self.strangers)).await
    }

    /// A connection of the holder of an SVID.
    pub async fn client_of(&self, held: &Held) -> anyhow::Result<IdentityServiceClient<Channel>> {
        self.connect(held.shown_by(&self.strangers)?).await
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
    pub async fn attest(
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
    pub fn of(svid: X509Svid, key: &KeyPair) -> Self {
        Self { chain: svid.chain.into_iter().map(CertificateDer::from).collect(), key: key.serialize_der() }
    }

    /// What a connection is made with that shows this SVID, and for the rest is like one of `strangers`.
    pub fn shown_by(&self, strangers: &ClientConfig) -> anyhow::Result<Arc<ClientConfig>> {
        let key = PrivatePkcs8KeyDer::from(self.key.clone()).into();
        let key = rustls::crypto::aws_lc_rs::sign::any_supported_type(&key)?;
        let mut config = strangers.clone();
        let shown = CertifiedKey::new(self.chain.clone(), key);
        config.client_auth_cert_resolver = Arc::new(SingleCertAndKey::from(shown));
        Ok(Arc::new(config))
    }

    /// Its serial number, big endian.
    pub fn serial(&self) -> anyhow::Result<Vec<u8>> {
        serial_of(self.chain.first().context("a chain without a certificate")?)
    }
}
