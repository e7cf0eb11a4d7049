//! How soon a server presents a new certificate: handshake after handshake, one at a time, until it is seen.

use std::io;
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::server::ParsedCertificate;
use rustls::{ClientConfig, ClientConnection, DigitallySignedStruct, RootCertStore, SignatureScheme, version};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use signet_test_pki::Issued;

/// A server that hangs is a failure, not the end of the measurement.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(2);

/// A client that asks a server who it is.
#[derive(Debug)]
pub struct Probe {
    server: SocketAddr,
    config: Arc<ClientConfig>,
}

/// What came before the new certificate was seen.
#[derive(Clone, Copy, Debug, Default)]
pub struct Seen {
    /// From the start to the begin of the first handshake that had the new certificate: the upper bound of when it was live.
    pub begun_after: Option<Duration>,
    /// From the start to the end of that handshake.
    pub done_after: Option<Duration>,
    /// Handshakes with another certificate.
    pub old: u64,
    pub failed: u64,
}

impl Probe {
    /// `client` must be trusted by `server`, which must stand under `root`.
    pub fn new(server: SocketAddr, client: &Issued, root: &CertificateDer<'static>) -> anyhow::Result<Self> {
        let provider = Arc::new(CryptoProvider {
            cipher_suites: vec![aws_lc_rs::cipher_suite::TLS13_AES_128_GCM_SHA256],
            kx_groups: vec![aws_lc_rs::kx_group::X25519],
            ..aws_lc_rs::default_provider()
        });
        let mut roots = RootCertStore::empty();
        roots.add(root.clone())?;
        let mut config = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(&[&version::TLS13])?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(UnderRoots::new(roots, provider)?))
            .with_client_auth_cert(client.chain.clone(), client.key())?;
        config.resumption = rustls::client::Resumption::disabled();
        config.enable_sni = false;
        Ok(Self { server, config: Arc::new(config) })
    }

    /// Waits until the server answers at all.
    pub fn wait_until_up(&self, patience: Duration) -> io::Result<()> {
        let start = Instant::now();
        loop {
            match self.presented() {
                Ok(_) => return Ok(()),
                Err(error) if start.elapsed() > patience => return Err(error),
                Err(_) => std::thread::sleep(Duration::from_millis(20)),
            }
        }
    }

    /// Makes handshakes until `leaf` is presented, at most for `patience`.
    pub fn until(&self, leaf: &CertificateDer<'_>, patience: Duration) -> Seen {
        let start = Instant::now();
        let mut seen = Seen::default();
        while start.elapsed() < patience {
            let begun_after = start.elapsed();
            match self.presented() {
                Ok(presented) if presented == *leaf => {
                    return Seen { begun_after: Some(begun_after), done_after: Some(start.elapsed()), ..seen };
                }
                Ok(_) => seen.old += 1,
                Err(_) => seen.failed += 1,
            }
        }
        seen
    }

    /// The leaf of one handshake.
    fn presented(&self) -> io::Result<CertificateDer<'static>> {
        let mut tcp = TcpStream::connect_timeout(&self.server, HANDSHAKE_TIMEOUT)?;
        tcp.set_nodelay(true)?;
        tcp.set_read_timeout(Some(HANDSHAKE_TIMEOUT))?;
        // Closed without the minute of TIME_WAIT.
        socket2::SockRef::from(&tcp).set_linger(Some(Duration::ZERO))?;
        let name = ServerName::IpAddress(self.server.ip().into());
        let mut tls = ClientConnection::new(Arc::clone(&self.config), name).map_err(io::Error::other)?;
        while tls.is_handshaking() {
            tls.complete_io(&mut tcp)?;
        }
        let leaf = tls.peer_certificates().and_then(|chain| chain.first()).map(|leaf| leaf.clone().into_owned());
        leaf.ok_or_else(|| io::Error::other("no certificate"))
    }
}

/// Believes every server under the roots: a SPIFFE server has no name that could be compared.
#[derive(Debug)]
struct UnderRoots {
    roots: RootCertStore,
    provider: Arc<CryptoProvider>,
    signatures: Arc<WebPkiServerVerifier>,
}

impl UnderRoots {
    fn new(roots: RootCertStore, provider: Arc<CryptoProvider>) -> anyhow::Result<Self> {
        let signatures =
            WebPkiServerVerifier::builder_with_provider(Arc::new(roots.clone()), Arc::clone(&provider)).build()?;
        Ok(Self { roots, provider, signatures })
    }
}

impl ServerCertVerifier for UnderRoots {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        rest: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let parsed = ParsedCertificate::try_from(leaf)?;
        let algorithms = self.provider.signature_verification_algorithms.all;
        rustls::client::verify_server_cert_signed_by_trust_anchor(&parsed, &self.roots, rest, now, algorithms)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.signatures.verify_tls12_signature(message, leaf, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.signatures.verify_tls13_signature(message, leaf, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.signatures.supported_verify_schemes()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use super::*;
    use crate::origin::{self, Identity, Offer};
    use crate::pki::BenchPki;

    const LIFE: Duration = Duration::from_secs(60);

    /// A server with the leaf that is returned, for as long as the test runs.
    fn server(pki: &BenchPki) -> (SocketAddr, CertificateDer<'static>) {
        let issued = pki.server(LIFE);
        let (leaf, key) = (issued.chain[0].clone(), issued.key());
        let mut roots = RootCertStore::empty();
        roots.add(pki.root().clone()).unwrap();
        let identity = Identity { chain: issued.chain, key, roots: Arc::new(roots) };
        let tls = origin::tls(identity, Offer::Http1).unwrap();
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let listener = tokio::net::TcpListener::from_std(listener).unwrap();
                origin::serve(listener, Some(tls)).await
            })
        });
        (address, leaf)
    }

    #[test]
    fn the_expected_certificate_is_seen_and_another_is_counted_as_old() {
        let pki = BenchPki::new();
        let (address, leaf) = server(&pki);
        let probe = Probe::new(address, &pki.client(0, LIFE), pki.root()).unwrap();
        probe.wait_until_up(Duration::from_secs(10)).unwrap();
        let seen = probe.until(&leaf, Duration::from_secs(10));
        assert!(seen.begun_after.is_some() && seen.old + seen.failed == 0, "{seen:?}");

        let never = probe.until(&pki.server(LIFE).chain[0], Duration::from_millis(100));
        assert!(never.begun_after.is_none() && never.old > 0 && never.failed == 0, "{never:?}");
    }

    #[test]
    fn a_server_under_another_root_is_not_believed() {
        let (pki, other) = (BenchPki::new(), BenchPki::new());
        let (address, leaf) = server(&pki);
        let probe = Probe::new(address, &pki.client(0, LIFE), other.root()).unwrap();
        let seen = probe.until(&leaf, Duration::from_millis(200));
        assert!(seen.begun_after.is_none() && seen.failed > 0, "{seen:?}");
    }
}
