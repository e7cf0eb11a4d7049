//! An issuer of a test's own, and clients of it.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use hyper_util::rt::TokioIo;
use identity_issuer::{Config, Environment, Passphrase, Phase, RunError, SealStrength, Started, root};
use rcgen::{CertificateParams, KeyPair};
use rustls_pki_types::{CertificateDer, PrivatePkcs8KeyDer, ServerName};
use signet_identity::{
    BundleSet, ClientCredentials, ClientPolicy, Material, RevocationSet, Snapshot, SpiffeIdPatterns, SystemClock,
    TlsPolicies, TrustBundle, X509Svid, bootstrap_client_config,
};
use signet_proto::admin::v1::admin_service_client::AdminServiceClient;
use signet_proto::admin::v1::{ApplyPolicyRequest, CreateJoinTokenRequest, PolicyFile};
use signet_proto::identity::v1::identity_service_client::IdentityServiceClient;
use signet_proto::identity::v1::{
    AttestRequest, AttestResponse, RenewRequest, RenewResponse, WatchRequest, attest_request::Proof,
};
use tokio::net::{TcpStream, UnixStream};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tonic::transport::{Channel, Endpoint};
use tonic::{Response, Status};

pub const ID: &str = "spiffe://example.org/shop/cart";
const PATIENCE: Duration = Duration::from_secs(20);

/// A folder with a root and a configuration, in which issuers can be started one after the other.
pub struct Place {
    folder: tempfile::TempDir,
    pub settings: String,
    pub trust_domain: String,
    /// How many CAs there may be below its intermediate.
    pub path_length: u8,
}

pub struct Issuer {
    pub started: Started,
    pub bundle: TrustBundle,
    stop: CancellationToken,
    running: JoinHandle<Result<(), RunError>>,
}

/// A key, and what the issuer certified for it.
#[derive(Debug)]
pub struct Identity {
    pub svid: X509Svid,
    pub key: KeyPair,
}

impl Place {
    pub fn new() -> Self {
        Self::with("")
    }

    /// With further lines of configuration.
    pub fn with(settings: &str) -> Self {
        Self::of("example.org", settings)
    }

    /// The same of another trust domain.
    pub fn of(trust_domain: &str, settings: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("passphrase"), "open sesame\n").unwrap();
        let trust_domain = trust_domain.to_owned();
        let place = Self { folder, settings: settings.to_owned(), path_length: 0, trust_domain };
        place.make_root("root", &place.trust_domain);
        place
    }

    /// Another place of the same trust domain and settings: the same root, nothing else.
    pub fn beside(&self) -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("root")).unwrap();
        for entry in std::fs::read_dir(self.path("root")).unwrap() {
            let name = entry.unwrap().file_name();
            std::fs::copy(self.path("root").join(&name), folder.path().join("root").join(&name)).unwrap();
        }
        std::fs::copy(self.path("passphrase"), folder.path().join("passphrase")).unwrap();
        Self { folder, settings: self.settings.clone(), path_length: 0, trust_domain: self.trust_domain.clone() }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn make_root(&self, folder: &str, trust_domain: &str) {
        let life = Duration::from_secs(86_400);
        let (passphrase, strength) = (self.passphrase(), SealStrength::MINIMAL);
        let trust_domain = trust_domain.parse().unwrap();
        root::init(&self.path(folder), &trust_domain, &passphrase, strength, life, &SystemClock).unwrap();
    }

    pub fn passphrase(&self) -> Passphrase {
        Passphrase::from_file(&self.path("passphrase")).unwrap()
    }

    pub fn config(&self) -> Config {
        let text = format!(
            "trust_domain: {}\nstate: state\ntrust_bundle: root/root.pem\n\
             authority: {{ certificate: authority.pem, passphrase_file: passphrase, path_length: {} }}\n\
             listen: 127.0.0.1:0\nadmin: 127.0.0.1:0\n{}\n{}\n",
            self.trust_domain,
            self.path_length,
            if self.settings.contains("web:") { "" } else { "web: { listen: 127.0.0.1:0 }" },
            self.settings
        );
        let mut config = Config::parse(&self.path("issuer.yaml"), &text).unwrap();
        config.authority.seal_strength = SealStrength::MINIMAL;
        config
    }

    /// Signs the issuer's request with the root in `folder`.
    pub fn sign_with(&self, folder: &str, life: Duration) {
        let request = std::fs::read(self.path("state/authority.csr")).unwrap();
        let signed =
            root::sign(&self.path(folder), &self.passphrase(), &request, self.path_length, life, &SystemClock).unwrap();
        std::fs::write(self.path("authority.pem.new"), signed.to_pem()).unwrap();
        std::fs::rename(self.path("authority.pem.new"), self.path("authority.pem")).unwrap();
    }

    /// Starts an issuer that serves, walking the ceremony if it was not walked before.
    pub async fn serve(&self) -> Issuer {
        let mut issuer = self.start().await.unwrap();
        if !self.path("authority.pem").exists() {
            self.sign_with("root", Duration::from_secs(12 * 3600));
        }
        issuer.serving().await;
        issuer
    }

    /// The error of an issuer that cannot run on `config`.
    pub async fn run(&self, config: Config) -> RunError {
        self.start_with(config).await.err().expect("an issuer that does not start")
    }

    /// Starts an issuer that may still wait for its intermediate.
    pub async fn start(&self) -> Result<Issuer, RunError> {
        self.start_with(self.config()).await
    }

    pub async fn start_with(&self, config: Config) -> Result<Issuer, RunError> {
        let bundle = config.trust_bundle.bundle.clone();
        let environment = Environment { clock: Arc::new(SystemClock), log: None };
        let stop = CancellationToken::new();
        let (tell, told) = tokio::sync::oneshot::channel();
        let announce = move |started| drop(tell.send(started));
        let running = tokio::spawn(identity_issuer::run(config, environment, announce, stop.clone()));
        match told.await {
            Ok(started) => Ok(Issuer { started, bundle, stop, running }),
            Err(_) => Err(running.await.unwrap().unwrap_err()),
        }
    }

    /// Runs SQL in the issuer's database, beside the issuer.
    pub async fn sql(&self, statement: &'static str) {
        let mut connection = self.database().await;
        sqlx::raw_sql(statement).execute(&mut connection).await.unwrap();
    }

    pub async fn count(&self, query: &'static str) -> i64 {
        sqlx::query_scalar(query).fetch_one(&mut self.database().await).await.unwrap()
    }

    /// One value of its database.
    pub async fn bytes(&self, query: &'static str) -> Vec<u8> {
        sqlx::query_scalar(query).fetch_one(&mut self.database().await).await.unwrap()
    }

    async fn database(&self) -> sqlx::SqliteConnection {
        let options = sqlx::sqlite::SqliteConnectOptions::new().filename(self.path("state/issuer.db"));
        sqlx::ConnectOptions::connect(&options).await.unwrap()
    }
}

impl Issuer {
    pub async fn serving(&mut self) {
        let serving = self.started.phase.wait_for(|phase| *phase == Phase::Serving);
        tokio::time::timeout(PATIENCE, serving).await.expect("an issuer that serves").unwrap();
    }

    pub async fn stop(self) {
        self.stop.cancel();
        tokio::time::timeout(PATIENCE, self.running).await.expect("an issuer that ends").unwrap().unwrap();
    }

    pub async fn admin(&self) -> AdminServiceClient<Channel> {
        AdminServiceClient::new(self.admin_channel().await)
    }

    pub async fn admin_channel(&self) -> Channel {
        let path = self.started.admin_socket.clone();
        let connector = tower::service_fn(move |_| {
            let path = path.clone();
            async move { UnixStream::connect(path).await.map(TokioIo::new) }
        });
        Endpoint::from_static("http://issuer").connect_with_connector(connector).await.unwrap()
    }

    pub async fn token(&self, id: &str) -> String {
        let request = CreateJoinTokenRequest { spiffe_id: id.to_owned(), ttl: None };
        self.admin().await.create_join_token(request).await.unwrap().into_inner().join_token
    }

    /// Makes these rules the policy.
    pub async fn apply(&self, rules: &str) {
        let file = PolicyFile { name: "policy.yaml".to_owned(), text: rules.to_owned() };
        let request = ApplyPolicyRequest { files: vec![file], prune: true, ..Default::default() };
        self.admin().await.apply_policy(request).await.unwrap();
    }

    /// A client without a certificate.
    pub async fn stranger(&self) -> IdentityServiceClient<Channel> {
        IdentityServiceClient::new(self.channel_of_stranger().await)
    }

    /// Whether it proves itself under the bundle.
    pub async fn can_be_joined(&self) -> bool {
        self.connect(self.stranger_config()).await.is_ok()
    }

    pub async fn channel_of_stranger(&self) -> Channel {
        self.connect(self.stranger_config()).await.unwrap()
    }

    pub fn stranger_config(&self) -> Arc<rustls::ClientConfig> {
        bootstrap_client_config(
            &BundleSet::from_iter([self.bundle.clone()]),
            &RevocationSet::default(),
            &issuer_only(),
            vec![b"h2".to_vec()],
            Arc::new(SystemClock),
        )
    }

    pub async fn client_of(&self, identity: &Identity) -> IdentityServiceClient<Channel> {
        IdentityServiceClient::new(self.channel_of(identity).await)
    }

    pub async fn channel_of(&self, identity: &Identity) -> Channel {
        self.try_channel(identity.svid.clone(), self.bundle.clone()).await.unwrap()
    }

    pub async fn try_client(
        &self,
        svid: X509Svid,
        bundle: TrustBundle,
    ) -> Result<IdentityServiceClient<Channel>, tonic::transport::Error> {
        self.try_channel(svid, bundle).await.map(IdentityServiceClient::new)
    }

    async fn try_channel(&self, svid: X509Svid, bundle: TrustBundle) -> Result<Channel, tonic::transport::Error> {
        let mut policies = TlsPolicies::new(Arc::new(SystemClock));
        let key = policies.client(ClientPolicy {
            alpn: vec![b"h2".to_vec()],
            servers: issuer_only(),
            credentials: ClientCredentials::Svid,
        });
        // Whoever is no member of the trust domain knows its bundle all the same.
        let bundles = BundleSet::from_iter([self.bundle.clone(), bundle]);
        let snapshot =
            Snapshot::build(Material { svid, bundles, revocations: RevocationSet::default() }, &policies, None)
                .unwrap();
        self.connect(Arc::clone(snapshot.client(key))).await
    }

    /// Somebody who shows these certificates and holds their key, whatever they are.
    pub async fn channel_showing(
        &self,
        chain: Vec<Vec<u8>>,
        key: &KeyPair,
    ) -> Result<Channel, tonic::transport::Error> {
        let chain = chain.into_iter().map(CertificateDer::from).collect();
        let key = PrivatePkcs8KeyDer::from(key.serialize_der()).into();
        let key = rustls::crypto::aws_lc_rs::sign::any_supported_type(&key).unwrap();
        let mut config = self.stranger_config().as_ref().clone();
        let shown = rustls::sign::CertifiedKey::new(chain, key);
        config.client_auth_cert_resolver = Arc::new(rustls::sign::SingleCertAndKey::from(shown));
        self.connect(Arc::new(config)).await
    }

    async fn connect(&self, config: Arc<rustls::ClientConfig>) -> Result<Channel, tonic::transport::Error> {
        let address = self.started.grpc;
        let connector = tower::service_fn(move |_| {
            let config = tokio_rustls::TlsConnector::from(Arc::clone(&config));
            async move {
                let tcp = TcpStream::connect(address).await?;
                tcp.set_nodelay(true)?;
                let name = ServerName::IpAddress(address.ip().into());
                Ok::<_, std::io::Error>(TokioIo::new(config.connect(name, tcp).await?))
            }
        });
        Endpoint::from_static("http://issuer").connect_with_connector(connector).await
    }

    /// The first SVID of `id`, by a token made for it.
    pub async fn join(&self, id: &str) -> Identity {
        let token = self.token(id).await;
        let key = new_key();
        let answer = attest(&mut self.stranger().await, &token, csr(&key)).await.unwrap().into_inner();
        Identity::new(answer.svid.unwrap(), key)
    }

    /// Status and text of a page of the admin address.
    pub async fn page(&self, path: &str) -> (u16, String) {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let mut tcp = TcpStream::connect(self.started.admin).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nhost: issuer\r\nconnection: close\r\n\r\n");
        tcp.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        tcp.read_to_string(&mut answer).await.unwrap();
        (answer[9..12].parse().unwrap(), answer)
    }

    /// Whether a line of the metrics begins like this.
    pub async fn has_metric(&self, line: &str) -> bool {
        self.page("/metrics").await.1.lines().any(|found| found.starts_with(line))
    }

    pub async fn until_metric(&self, line: &str) {
        for _ in 0..PATIENCE.as_millis() / 20 {
            if self.has_metric(line).await {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("never exported: {line}; but:\n{}", self.page("/metrics").await.1);
    }
}

impl Identity {
    pub fn new(svid: signet_proto::identity::v1::X509Svid, key: KeyPair) -> Self {
        let chain = svid.chain.into_iter().map(CertificateDer::from).collect();
        let pkcs8 = PrivatePkcs8KeyDer::from(key.serialize_der());
        Self { svid: X509Svid::from_der(chain, pkcs8.into()).unwrap(), key }
    }
}

/// For whatever identity there is.
pub fn request(proof: Proof, csr: Vec<u8>) -> AttestRequest {
    AttestRequest { proof: Some(proof), csr, ..AttestRequest::default() }
}

pub async fn attest(
    client: &mut IdentityServiceClient<Channel>,
    token: &str,
    csr: Vec<u8>,
) -> Result<Response<AttestResponse>, Status> {
    client.attest(request(Proof::JoinToken(token.to_owned()), csr)).await
}

pub async fn renew(
    client: &mut IdentityServiceClient<Channel>,
    csr: Vec<u8>,
) -> Result<Response<RenewResponse>, Status> {
    client.renew(RenewRequest { csr, ..RenewRequest::default() }).await
}

/// The first word of a client that has nothing, and says nothing more.
pub fn hello() -> impl tokio_stream::Stream<Item = WatchRequest> + Send + 'static {
    tokio_stream::iter([WatchRequest::default()])
}

pub fn new_key() -> KeyPair {
    KeyPair::generate().unwrap()
}

pub fn csr(key: &KeyPair) -> Vec<u8> {
    CertificateParams::default().serialize_request(key).unwrap().der().to_vec()
}

pub fn issuer_only() -> SpiffeIdPatterns {
    SpiffeIdPatterns::from_iter(["spiffe://example.org/signet/issuer".parse().unwrap()])
}

/// Waits for a condition, not for a time.
pub async fn eventually(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    let wait = async {
        while !condition().await {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, wait).await.unwrap_or_else(|_| panic!("never happened: {what}"));
}

pub fn write(path: &Path, text: &str) {
    std::fs::write(path, text).unwrap();
}
