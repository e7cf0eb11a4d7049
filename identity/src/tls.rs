use std::{
    fmt,
    sync::{Arc, LazyLock},
};

use rustls::{
    ClientConfig, ConfigBuilder, ConfigSide, DigitallySignedStruct, DistinguishedName, ServerConfig, SignatureScheme,
    WantsVerifier, WantsVersions,
    client::{
        Resumption, WantsClientCert,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::{
        CryptoProvider,
        aws_lc_rs::{cipher_suite, default_provider, kx_group},
        verify_tls13_signature,
    },
    server::{
        NoServerSessionStorage, ProducesTickets,
        danger::{ClientCertVerified, ClientCertVerifier},
    },
    sign::SingleCertAndKey,
    time_provider::TimeProvider,
    version::TLS13,
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};

use crate::{
    BundleSet, ClientAuthentication, ClientCredentials, ClientPolicy, PeerError, PeerIdentity, RevocationSet,
    ServerPolicy, SharedClock, SpiffeIdPatterns, TlsPolicies, X509Svid,
    session_store::SessionStore,
    snapshot::TrustEpoch,
    verify::{Role, Trust, unix_time},
};

/// The one cryptographic provider: aws-lc, TLS 1.3, X25519MLKEM768 first.
pub fn provider() -> &'static Arc<CryptoProvider> {
    static PROVIDER: LazyLock<Arc<CryptoProvider>> = LazyLock::new(|| {
        Arc::new(CryptoProvider {
            cipher_suites: vec![
                cipher_suite::TLS13_AES_128_GCM_SHA256,
                cipher_suite::TLS13_AES_256_GCM_SHA384,
                cipher_suite::TLS13_CHACHA20_POLY1305_SHA256,
            ],
            kx_groups: vec![kx_group::X25519MLKEM768, kx_group::X25519, kx_group::SECP256R1, kx_group::SECP384R1],
            ..default_provider()
        })
    });
    &PROVIDER
}

/// A client configuration for the time before the first SVID: it presents nothing and verifies the server against
/// `bundles`, what is revoked, and `servers` within the handshake. It does not resume sessions.
pub fn bootstrap_client_config(
    bundles: &BundleSet,
    revocations: &RevocationSet,
    servers: &SpiffeIdPatterns,
    alpn: Vec<Vec<u8>>,
    clock: SharedClock,
) -> Arc<ClientConfig> {
    let trust = Arc::new(Trust::new(TrustEpoch::FIRST, bundles.clone(), revocations.clone()));
    let verifier = ServerVerifier { trust, clock: clock.clone(), servers: servers.clone(), sessions: None };
    let mut config = verifying(ClientConfig::builder_with_details, clock, verifier).with_no_client_auth();
    config.alpn_protocols = alpn;
    config.resumption = Resumption::disabled();
    config.enable_sni = false;
    Arc::new(config)
}

pub(crate) fn server_config(
    policy: &ServerPolicy,
    svid: &X509Svid,
    trust: &Arc<Trust>,
    tickets: &Arc<dyn ProducesTickets>,
    policies: &TlsPolicies,
) -> Arc<ServerConfig> {
    let clock = policies.clock();
    let verifier = ClientVerifier { trust: trust.clone(), clock: clock.clone(), clients: policy.clients };
    let mut config = tls13(ServerConfig::builder_with_details, clock.clone())
        .with_client_cert_verifier(Arc::new(verifier))
        .with_cert_resolver(Arc::new(SingleCertAndKey::from(svid.certified().clone())));
    config.alpn_protocols = policy.alpn.clone();
    config.ticketer = tickets.clone();
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 1;
    config.max_early_data_size = 0;
    config.enable_secret_extraction = policies.has_secret_extraction();
    Arc::new(config)
}

pub(crate) fn client_config(
    policy: &ClientPolicy,
    svid: &X509Svid,
    trust: &Arc<Trust>,
    policies: &TlsPolicies,
) -> Arc<ClientConfig> {
    let clock = policies.clock();
    let sessions = Arc::new(SessionStore::new(clock.clone()));
    let verifier = ServerVerifier {
        trust: trust.clone(),
        clock: clock.clone(),
        servers: policy.servers.clone(),
        sessions: Some(sessions.clone()),
    };
    let builder = verifying(ClientConfig::builder_with_details, clock.clone(), verifier);
    let mut config = match policy.credentials {
        ClientCredentials::Svid => {
            builder.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(svid.certified().clone())))
        }
        ClientCredentials::None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = policy.alpn.clone();
    config.resumption = Resumption::store(sessions);
    config.enable_sni = false;
    config.enable_early_data = false;
    config.enable_secret_extraction = policies.has_secret_extraction();
    Arc::new(config)
}

/// Whether the peer is one of the expected servers.
pub(crate) fn expect_server(servers: &SpiffeIdPatterns, peer: &PeerIdentity) -> Result<(), PeerError> {
    if servers.matches(peer.id()) { Ok(()) } else { Err(PeerError::Unexpected { id: peer.id().clone() }) }
}

type WithDetails<S> = fn(Arc<CryptoProvider>, Arc<dyn TimeProvider>) -> ConfigBuilder<S, WantsVersions>;

fn tls13<S: ConfigSide>(builder: WithDetails<S>, clock: SharedClock) -> ConfigBuilder<S, WantsVerifier> {
    #[expect(clippy::expect_used, reason = "the provider above has suites and groups for TLS 1.3")]
    builder(provider().clone(), Arc::new(Wall(clock))).with_protocol_versions(&[&TLS13]).expect("TLS 1.3")
}

fn verifying(
    builder: WithDetails<ClientConfig>,
    clock: SharedClock,
    verifier: ServerVerifier,
) -> ConfigBuilder<ClientConfig, WantsClientCert> {
    tls13(builder, clock).dangerous().with_custom_certificate_verifier(Arc::new(verifier))
}

/// The injected clock, for rustls.
#[derive(Debug)]
struct Wall(SharedClock);

impl TimeProvider for Wall {
    fn current_time(&self) -> Option<UnixTime> {
        Some(unix_time(self.0.now()))
    }
}

/// Believes clients.
struct ClientVerifier {
    trust: Arc<Trust>,
    clock: SharedClock,
    clients: ClientAuthentication,
}

impl ClientCertVerifier for ClientVerifier {
    fn client_auth_mandatory(&self) -> bool {
        self.clients == ClientAuthentication::Required
    }

    /// None: the names of our authorities are no one's business, and a workload has one identity to offer.
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        self.trust
            .judge(Role::Client, end_entity, intermediates, self.clock.now())
            .map(|_| ClientCertVerified::assertion())
            .map_err(PeerError::into_rustls)
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(only_tls13())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, dss, &provider().signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        provider().signature_verification_algorithms.supported_schemes()
    }
}

/// Believes servers by their SPIFFE ID; the name that the connection was made by plays no part.
struct ServerVerifier {
    trust: Arc<Trust>,
    clock: SharedClock,
    servers: SpiffeIdPatterns,
    sessions: Option<Arc<SessionStore>>,
}

impl ServerCertVerifier for ServerVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let peer = self
            .trust
            .judge(Role::Server, end_entity, intermediates, self.clock.now())
            .and_then(|peer| expect_server(&self.servers, &peer).map(|()| peer))
            .map_err(PeerError::into_rustls)?;
        if let Some(sessions) = &self.sessions {
            sessions.verified(server_name, peer.expires_at());
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(only_tls13())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, dss, &provider().signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        provider().signature_verification_algorithms.supported_schemes()
    }
}

/// No configuration of ours speaks TLS 1.2.
fn only_tls13() -> rustls::Error {
    rustls::PeerIncompatible::ServerDoesNotSupportTls12Or13.into()
}

impl fmt::Debug for ClientVerifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientVerifier").field("clients", &self.clients).finish_non_exhaustive()
    }
}

impl fmt::Debug for ServerVerifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerVerifier").field("servers", &self.servers).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
