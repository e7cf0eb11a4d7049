//! A client of the issuer that is none of ours: the wire contract, tonic and a key, so that what the issuer does is judged
//! without the SDK's help.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rcgen::{CertificateParams, KeyPair};
use rustls::ClientConfig;
use rustls::crypto::aws_lc_rs;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName};
use signet_proto::identity::v1::attest_request::Proof;
use signet_proto::identity::v1::identity_service_client::IdentityServiceClient;
use signet_proto::identity::v1::{AttestRequest, ChallengeRequest, RenewRequest, X509Svid};
use signet_test_pki::pem;
use tokio::net::TcpSocket;
use tokio_rustls::TlsConnector;
use tonic::Status;
use tonic::transport::{Channel, Endpoint};

use crate::files::{IdentityFiles, replace};
use crate::tls::any_server;
use crate::wait::{millis, secs};

/// A workload with its own thread's runtime: one call at a time.
#[derive(Debug)]
pub struct Workload {
    issuer: SocketAddr,
    runtime: tokio::runtime::Runtime,
    svid: Option<Svid>,
}

/// What the issuer gave, and the key it was given for.
#[derive(Clone, Debug)]
pub struct Svid {
    pub spiffe_id: String,
    pub chain: Vec<CertificateDer<'static>>,
    key: Vec<u8>,
    pub not_before: i64,
    pub not_after: i64,
}

impl Workload {
    pub fn of(issuer: SocketAddr) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        Self { issuer, runtime, svid: None }
    }

    /// Turns to another issuer.
    pub fn move_to(&mut self, issuer: SocketAddr) {
        self.issuer = issuer;
    }

    /// The current identity.
    pub fn svid(&self) -> &Svid {
        self.svid.as_ref().expect("attested")
    }

    /// Takes up its first identity.
    ///
    /// # Errors
    /// What the issuer, or the way to it, said.
    pub fn attest(&mut self, token: &str) -> Result<&Svid, Status> {
        self.prove(|_| Proof::JoinToken(token.trim().to_owned()))
    }

    /// The same by any proof, which may be of the request (PKCS#10) that it is sent with.
    ///
    /// # Errors
    /// As [`attest`](Self::attest).
    pub fn prove(&mut self, proof: impl FnOnce(&[u8]) -> Proof) -> Result<&Svid, Status> {
        let (key, csr) = new_request();
        let request = AttestRequest { proof: Some(proof(&csr)), csr, ..AttestRequest::default() };
        let issuer = self.issuer;
        let svid = self.runtime.block_on(async {
            let mut client = IdentityServiceClient::new(connect(ANYWHERE, issuer, None).await?);
            client.attest(request).await.map(|answer| answer.into_inner().svid)
        })?;
        Ok(self.svid.insert(Svid::of(svid, key)?))
    }

    /// What the issuer wants signed with a key.
    ///
    /// # Errors
    /// As [`attest`](Self::attest).
    pub fn challenge(&self) -> Result<Vec<u8>, Status> {
        self.runtime.block_on(async {
            let mut client = IdentityServiceClient::new(connect(ANYWHERE, self.issuer, None).await?);
            client.challenge(ChallengeRequest {}).await.map(|answer| answer.into_inner().challenge)
        })
    }

    /// Renews again and again until it is over, and leaves the files where a load with [`identities`](crate::Load::identities) follows them.
    ///
    /// # Panics
    /// Where it is refused.
    pub fn keep_renewing(mut self, link: &Path, every: Duration, over: &AtomicBool) {
        let mut next = Instant::now() + every;
        while !over.load(Ordering::Relaxed) {
            if Instant::now() >= next {
                next += every;
                self.renew().expect("a renewal").write_behind_link(link, "client");
            }
            thread::sleep(millis(50));
        }
    }

    /// Replaces the identity by its successor.
    ///
    /// # Errors
    /// What the issuer, or the way to it, said; the identity is then the old one.
    pub fn renew(&mut self) -> Result<&Svid, Status> {
        let current = self.svid().clone();
        self.renew_as(Some(&current))
    }

    /// The same with a certificate of the test's choice, or none.
    ///
    /// # Errors
    /// As [`renew`](Self::renew).
    pub fn renew_as(&mut self, current: Option<&Svid>) -> Result<&Svid, Status> {
        let (key, csr) = new_request();
        let issuer = self.issuer;
        let svid = self.runtime.block_on(async {
            let mut client = IdentityServiceClient::new(connect(ANYWHERE, issuer, current).await?);
            client.renew(RenewRequest { csr, ..RenewRequest::default() }).await.map(|answer| answer.into_inner().svid)
        })?;
        Ok(self.svid.insert(Svid::of(svid, key)?))
    }
}

impl Svid {
    fn of(svid: Option<X509Svid>, key: KeyPair) -> Result<Self, Status> {
        let svid = svid.ok_or_else(|| Status::internal("an answer without a certificate"))?;
        let seconds = |time: Option<prost_types::Timestamp>| time.map_or(0, |time| time.seconds);
        Ok(Self {
            spiffe_id: svid.spiffe_id,
            chain: svid.chain.into_iter().map(CertificateDer::from).collect(),
            key: key.serialize_der(),
            not_before: seconds(svid.not_before),
            not_after: seconds(svid.not_after),
        })
    }

    /// The leaf's serial in lower-case hexadecimal, without leading zeros.
    pub fn serial(&self) -> String {
        serial_of(&self.chain[0])
    }

    pub fn chain_pem(&self) -> String {
        self.chain.iter().map(|der| pem("CERTIFICATE", der)).collect()
    }

    pub fn key_pem(&self) -> String {
        pem("PRIVATE KEY", &self.key)
    }

    pub fn write(&self, folder: &Path, name: &str) -> IdentityFiles {
        IdentityFiles::write_pem(folder, name, &self.chain_pem(), &self.key_pem())
    }

    /// Writes it into a new folder and moves the link `current` onto that: whoever reads sees chain and key of one generation.
    pub fn write_behind_link(&self, current: &Path, name: &str) {
        let folder = current.with_file_name(format!("svid-{}", self.serial()));
        fs::create_dir_all(&folder).expect("a folder");
        replace(&folder.join(format!("{name}.key")), &self.key_pem());
        replace(&folder.join(format!("{name}.pem")), &self.chain_pem());
        let link = current.with_extension("new");
        std::os::unix::fs::symlink(&folder, &link).expect("a link");
        fs::rename(&link, current).expect("a link in place of the other");
    }
}

/// A certificate's serial in lower-case hexadecimal, without leading zeros.
pub fn serial_of(certificate: &CertificateDer<'_>) -> String {
    let (_, parsed) = x509_parser::parse_x509_certificate(certificate).expect("a certificate");
    hex::encode(parsed.raw_serial()).trim_start_matches('0').to_owned()
}

/// A key, and a request (PKCS#10) for it.
pub fn new_request() -> (KeyPair, Vec<u8>) {
    let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).expect("a key");
    let csr = CertificateParams::default().serialize_request(&key).expect("a request").der().to_vec();
    (key, csr)
}

/// Without a certificate, from an address of this machine.
///
/// # Errors
/// What TCP or TLS said.
pub async fn stranger_from(source: IpAddr, issuer: SocketAddr) -> Result<Channel, Status> {
    connect(source, issuer, None).await
}

/// With an identity.
///
/// # Errors
/// What TCP or TLS said.
pub async fn channel_of(svid: &Svid, issuer: SocketAddr) -> Result<Channel, Status> {
    connect(ANYWHERE, issuer, Some(svid)).await
}

/// The kernel chooses.
const ANYWHERE: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);

/// A fresh connection for each call, as long as that takes: nothing of an issuer that died is left in it.
async fn connect(source: IpAddr, issuer: SocketAddr, identity: Option<&Svid>) -> Result<Channel, Status> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .expect("versions")
        .dangerous()
        .with_custom_certificate_verifier(any_server(provider));
    let mut config = match identity {
        None => builder.with_no_client_auth(),
        Some(svid) => {
            let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(svid.key.clone()));
            builder.with_client_auth_cert(svid.chain.clone(), key).expect("an identity")
        }
    };
    config.alpn_protocols = vec![b"h2".to_vec()];
    let connector = TlsConnector::from(Arc::new(config));
    let connect = tower::service_fn(move |_: http::Uri| {
        let connector = connector.clone();
        async move {
            let tcp = TcpSocket::new_v4()?;
            tcp.bind((source, 0).into())?;
            let tcp = tcp.connect(issuer).await?;
            let tls = connector.connect(ServerName::IpAddress(issuer.ip().into()), tcp).await?;
            std::io::Result::Ok(hyper_util::rt::TokioIo::new(tls))
        }
    });
    let endpoint = Endpoint::from_static("http://issuer").timeout(secs(10)).connect_timeout(secs(10));
    // What is sent to a client that does not read: as much as HTTP/2 begins with (RFC 9113 §6.9.2), not megabytes.
    let endpoint = endpoint.initial_stream_window_size(65_535);
    endpoint.connect_with_connector(connect).await.map_err(|error| Status::unavailable(format!("{error:?}")))
}
