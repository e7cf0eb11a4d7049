//! An issuer for tests: real TLS, real certificates, and every misdeed that a test asks for.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::{
    net::SocketAddr,
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering::SeqCst},
        mpsc,
    },
    time::Duration,
};

use futures_util::{Stream, StreamExt as _, stream};
use prost::Message as _;
use rcgen::{PKCS_ECDSA_P256_SHA256, PublicKeyData, SignatureAlgorithm};
use rustls_pki_types::CertificateDer;
use signet_identity::{
    BundleSet, ClientAuthentication, Material, RevocationSet, ServerPolicy, SignedRevocations, Snapshot, SystemClock,
    TlsPolicies, TrustBundle, X509Svid, live,
};
use signet_proto::identity::v1::{
    self, Applied, AttestRequest, AttestResponse, ChallengeRequest, ChallengeResponse, IssueRequest, IssueResponse,
    RenewNow, RenewRequest, RenewResponse, WatchRequest, WatchResponse,
    attest_request::Proof,
    identity_service_server::{IdentityService, IdentityServiceServer},
    watch_response::Event,
};
use signet_test_pki::Authority;
use tokio::{
    net::TcpListener,
    runtime::{Builder, Runtime},
    sync::broadcast,
};
use tokio_stream::wrappers::BroadcastStream;
use tonic::{Request, Response, Status, Streaming, transport::Server};
use x509_parser::prelude::{FromDer as _, X509CertificationRequest};

use crate::server::{MtlsListener, peer_identity};

pub(super) const WORKLOAD: &str = "spiffe://example.org/shop/cart";
pub(super) const ISSUER: &str = "spiffe://example.org/signet/issuer";

/// What is wrong with an answer.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Misdeed {
    OtherIdentity,
    OtherNameThanCertified,
    OtherKey,
    OtherAuthority,
    Expired,
    NoCertificate,
    Garbage,
    NoBundles,
    EmptyBundle,
    BundleOfOtherAuthority,
    BundleTwice,
    TooManyBundles,
    Oversize,
    Silence,
    Unavailable,
    /// Of renewals alone: what the holder was attested as was taken from it.
    Evicted,
    /// It has no time, and says when it will.
    Busy,
    /// Of streams alone.
    NoStreams,
    /// The same, and it says when it will have them.
    BusyStreams,
    /// The stream says nothing of what is revoked.
    NoRevocations,
    /// Or not all of it.
    HalfOfRevocations,
}

#[derive(Clone)]
pub(super) struct FakeIssuer {
    pub(super) root: Arc<Authority>,
    issuing: Arc<Authority>,
    state: Arc<Mutex<State>>,
    pub(super) attested: Arc<AtomicUsize>,
    pub(super) renewed: Arc<AtomicUsize>,
    pub(super) watched: Arc<AtomicUsize>,
    pub(super) streams_refused: Arc<AtomicUsize>,
    /// What clients say of what they were sent.
    pub(super) said: Arc<Mutex<Vec<Applied>>>,
    /// Shared with its siblings.
    pub(super) record: Arc<Mutex<Record>>,
    wishes: broadcast::Sender<Event>,
}

/// What is revoked.
#[derive(Clone)]
pub(super) struct Record {
    pub(super) lineage: [u8; 8],
    /// Serial numbers of this trust domain's authority.
    pub(super) serials: Vec<Vec<u8>>,
    /// How many one statement may have.
    pub(super) most: usize,
}

struct State {
    tokens: Vec<String>,
    ttl: Duration,
    misdeed: Option<Misdeed>,
    /// In milliseconds, as it is sent.
    pushback: &'static str,
}

/// A server that runs until it is dropped, with its connections.
pub(super) struct Serving {
    pub(super) address: SocketAddr,
    /// Of the issuer's own certificate.
    pub(super) serial: Vec<u8>,
    runtime: Option<Runtime>,
    stopped: Option<mpsc::Sender<()>>,
}

impl Serving {
    /// As by SIGSTOP: the kernel takes connections still, and nobody answers anything.
    pub(super) fn stop(&mut self) {
        let (until_dropped, wait) = mpsc::channel::<()>();
        // It has this one thread. The end of the wait is an error, as nothing is ever sent.
        self.runtime.as_ref().unwrap().spawn(async move { wait.recv().is_err() });
        self.stopped = Some(until_dropped);
    }
}

impl FakeIssuer {
    pub(super) fn new(ttl: Duration) -> Self {
        let root = Authority::root("example.org");
        let record = Record { lineage: *b"lineage1", serials: Vec::new(), most: 1000 };
        Self::of(Arc::new(root.intermediate()), Arc::new(root), ttl, Arc::new(Mutex::new(record)))
    }

    /// Another one of the same trust domain, which behaves and counts by itself.
    pub(super) fn sibling(&self) -> Self {
        Self::of(self.issuing.clone(), self.root.clone(), self.state.lock().unwrap().ttl, self.record.clone())
    }

    fn of(issuing: Arc<Authority>, root: Arc<Authority>, ttl: Duration, record: Arc<Mutex<Record>>) -> Self {
        let state = State { tokens: vec!["good-token".to_owned()], ttl, misdeed: None, pushback: "1500" };
        Self {
            issuing,
            root,
            state: Arc::new(Mutex::new(state)),
            attested: Arc::default(),
            renewed: Arc::default(),
            watched: Arc::default(),
            streams_refused: Arc::default(),
            said: Arc::default(),
            record,
            wishes: broadcast::Sender::new(16),
        }
    }

    pub(super) fn bundle(&self) -> TrustBundle {
        TrustBundle::new("example.org".parse().unwrap(), vec![self.root.root_certificate().clone()]).unwrap()
    }

    pub(super) async fn serve(&self) -> Serving {
        self.serve_as(ISSUER, "127.0.0.1:0".parse().unwrap()).await
    }

    /// Serves with a certificate of `id`.
    pub(super) async fn serve_as(&self, id: &str, address: SocketAddr) -> Serving {
        let issued = self.issuing.leaf(id).issue();
        let svid = X509Svid::from_der(issued.chain.clone(), issued.key()).unwrap();
        let serial = svid.serial().as_bytes().to_vec();
        let clock = Arc::new(SystemClock);
        let mut policies = TlsPolicies::new(clock.clone());
        let key = policies.server(ServerPolicy { alpn: vec![b"h2".to_vec()], clients: ClientAuthentication::Optional });
        let material =
            Material { svid, bundles: BundleSet::from_iter([self.bundle()]), revocations: RevocationSet::default() };
        let (publisher, identity) = live(Snapshot::build(material, &policies, None).unwrap());
        let service = IdentityServiceServer::new(self.clone());
        let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let (bound, address) = runtime
            .spawn(async move {
                let tcp = bind(address).await;
                let address = tcp.local_addr().unwrap();
                (MtlsListener::new(tcp, identity, key, clock), address)
            })
            .await
            .unwrap();
        runtime.spawn(async move {
            let _live_as_long_as_the_server = publisher;
            Server::builder().add_service(service).serve_with_incoming(bound).await
        });
        Serving { address, serial, runtime: Some(runtime), stopped: None }
    }

    pub(super) fn misbehave(&self, misdeed: impl Into<Option<Misdeed>>) {
        self.state.lock().unwrap().misdeed = misdeed.into();
    }

    /// Whoever is told to come again is told so, in milliseconds.
    pub(super) fn push_back(&self, pushback: &'static str) {
        self.state.lock().unwrap().pushback = pushback;
    }

    fn busy(&self) -> Status {
        let mut status = Status::resource_exhausted("too much at once");
        let pushback = self.state.lock().unwrap().pushback;
        status.metadata_mut().insert("grpc-retry-pushback-ms", pushback.parse().unwrap());
        status
    }

    pub(super) fn add_token(&self, token: &str) {
        self.state.lock().unwrap().tokens.push(token.to_owned());
    }

    pub(super) fn set_ttl(&self, ttl: Duration) {
        self.state.lock().unwrap().ttl = ttl;
    }

    /// Asks the holder of certificate number `holds` to renew, once it listens.
    pub(super) async fn wish_renewal(&self, holds: u64) {
        while (self.watched.load(SeqCst) as u64) < holds {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let within = Some(prost_types::Duration { seconds: 0, nanos: 0 });
        self.wishes.send(Event::RenewNow(RenewNow { within, ..RenewNow::default() })).unwrap();
    }

    pub(super) fn wish_bundles(&self, bundles: v1::TrustBundles) {
        self.wishes.send(Event::Bundles(bundles)).unwrap();
    }

    pub(super) fn wish_authorities(&self, authorities: v1::Authorities) {
        self.wishes.send(Event::Authorities(authorities)).unwrap();
    }

    /// Under the same root.
    pub(super) fn another_authority(&self) -> Authority {
        self.root.intermediate()
    }

    pub(super) fn good_bundles(&self) -> v1::TrustBundles {
        v1::TrustBundles {
            bundles: vec![bundle("example.org", &[self.root.root_certificate()])],
            ..v1::TrustBundles::default()
        }
    }

    /// Notes one more, and tells those who are connected here.
    pub(super) fn revoke(&self, serial: &[u8]) {
        let after = {
            let mut record = self.record.lock().unwrap();
            record.serials.push(serial.to_vec());
            record.serials.len() as u64 - 1
        };
        self.statements(after).into_iter().for_each(|statement| self.tell(statement));
    }

    /// Tells those who are connected something that may be wrong.
    pub(super) fn tell(&self, statement: v1::Revocations) {
        // Nobody need listen.
        let _ = self.wishes.send(Event::Revocations(statement));
    }

    /// All after this number; one at least.
    pub(super) fn statements(&self, mut after: u64) -> Vec<v1::Revocations> {
        let record = self.record.lock().unwrap().clone();
        let latest = record.serials.len() as u64;
        let mut statements = Vec::new();
        loop {
            let epoch = latest.min(after + record.most as u64);
            statements.push(self.signed(&self.statement(&record, after, epoch)));
            if epoch == latest {
                return statements;
            }
            after = epoch;
        }
    }

    pub(super) fn statement(&self, record: &Record, after: u64, epoch: u64) -> v1::RevocationStatement {
        let (_, authority) = x509_parser::parse_x509_certificate(self.issuing.certificate()).unwrap();
        let ids = authority.iter_extensions().filter_map(|extension| match extension.parsed_extension() {
            x509_parser::extensions::ParsedExtension::SubjectKeyIdentifier(id) => Some(id.0.to_vec()),
            _ => None,
        });
        let authority_key_id = ids.last().unwrap();
        let serials = record.serials[after as usize..epoch as usize].to_vec();
        let end = time::OffsetDateTime::now_utc() + Duration::from_secs(7200);
        let not_after = vec![end.unix_timestamp(); serials.len()];
        v1::RevocationStatement {
            trust_domain: "example.org".to_owned(),
            lineage: record.lineage.to_vec(),
            after,
            epoch,
            latest: record.serials.len() as u64,
            serials: vec![v1::RevokedSerials { authority_key_id, serials, not_after }],
            ..v1::RevocationStatement::default()
        }
    }

    pub(super) fn signed(&self, statement: &v1::RevocationStatement) -> v1::Revocations {
        signed_by(&self.issuing, statement)
    }

    /// What a stream begins with, by what its client has.
    fn missed(&self, first: &WatchRequest) -> Vec<v1::Revocations> {
        if !first.also.contains(&v1::Resource::Revocations.into()) {
            return Vec::new();
        }
        let (lineage, latest) = {
            let record = self.record.lock().unwrap();
            (record.lineage, record.serials.len() as u64)
        };
        let said = first.applied.iter().find(|applied| applied.resource() == v1::Resource::Revocations);
        let has = said.and_then(|said| said.version.strip_prefix(&lineage));
        match has.map(|epoch| u64::from_be_bytes(epoch.try_into().unwrap())) {
            Some(has) if has >= latest => Vec::new(),
            has => self.statements(has.unwrap_or(0)),
        }
    }

    async fn answer(&self, id: &str, csr: &[u8]) -> Result<(Option<v1::X509Svid>, Option<v1::TrustBundles>), Status> {
        let (ttl, misdeed) = {
            let state = self.state.lock().unwrap();
            (state.ttl, state.misdeed)
        };
        match misdeed {
            Some(Misdeed::Silence) => std::future::pending().await,
            Some(Misdeed::Busy) => return Err(self.busy()),
            Some(Misdeed::Unavailable) => return Err(Status::unavailable("no authority yet")),
            _ => {}
        }
        let (_, request) = X509CertificationRequest::from_der(csr).expect("a CSR");
        request.verify_signature().expect("proof of possession");
        let key = PublicKey(request.certification_request_info.subject_pki.subject_public_key.data.to_vec());
        let foreign = Authority::root("example.org");
        let authority = if misdeed == Some(Misdeed::OtherAuthority) { &foreign } else { &*self.issuing };
        let certified = if misdeed == Some(Misdeed::OtherIdentity) { "spiffe://example.org/shop/till" } else { id };
        let mut leaf = authority.leaf(certified).ttl(ttl);
        if misdeed == Some(Misdeed::Expired) {
            let now = time::OffsetDateTime::now_utc();
            leaf = leaf.valid(now - Duration::from_secs(60), now - Duration::from_secs(30));
        }
        let mut chain = match misdeed {
            Some(Misdeed::OtherKey) => leaf.issue().chain,
            _ => leaf.issue_for(&key),
        };
        match misdeed {
            Some(Misdeed::NoCertificate) => chain.clear(),
            Some(Misdeed::Garbage) => chain = vec![CertificateDer::from(vec![0x30, 0x03, 0x02, 0x01])],
            Some(Misdeed::Oversize) => chain.push(CertificateDer::from(vec![0; 2 << 20])),
            _ => {}
        }
        let said =
            if misdeed == Some(Misdeed::OtherNameThanCertified) { "spiffe://example.org/admin" } else { certified };
        let svid = v1::X509Svid {
            spiffe_id: said.to_owned(),
            chain: chain.iter().map(|der| der.to_vec()).collect(),
            ..v1::X509Svid::default()
        };
        let mut bundles = self.good_bundles();
        match misdeed {
            Some(Misdeed::EmptyBundle) => {
                bundles = v1::TrustBundles { bundles: vec![bundle("example.org", &[])], ..v1::TrustBundles::default() }
            }
            Some(Misdeed::BundleOfOtherAuthority) => {
                bundles = v1::TrustBundles {
                    bundles: vec![bundle("example.org", &[foreign.root_certificate()])],
                    ..v1::TrustBundles::default()
                };
            }
            Some(Misdeed::BundleTwice) => bundles.bundles.extend(bundles.bundles.clone()),
            Some(Misdeed::TooManyBundles) => {
                bundles.bundles.extend((0..64).map(|number| bundle(&format!("other{number}.org"), &[])));
            }
            _ => {}
        }
        Ok((Some(svid), (misdeed != Some(Misdeed::NoBundles)).then_some(bundles)))
    }
}

pub(super) fn bundle(trust_domain: &str, authorities: &[&CertificateDer<'_>]) -> v1::TrustBundle {
    v1::TrustBundle {
        trust_domain: trust_domain.to_owned(),
        x509_authorities: authorities.iter().map(|der| der.to_vec()).collect(),
        ..v1::TrustBundle::default()
    }
}

pub(super) fn signed_by(authority: &Authority, statement: &v1::RevocationStatement) -> v1::Revocations {
    let encoded = statement.encode_to_vec();
    v1::Revocations {
        signature: authority.sign(&SignedRevocations::signed_bytes(&encoded)),
        chain: authority.chain().iter().map(|der| der.to_vec()).collect(),
        version: [&statement.lineage[..], &statement.epoch.to_be_bytes()].concat(),
        statement: encoded,
    }
}

/// P-256, as it stands in a request.
struct PublicKey(Vec<u8>);

impl PublicKeyData for PublicKey {
    fn der_bytes(&self) -> &[u8] {
        &self.0
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        &PKCS_ECDSA_P256_SHA256
    }
}

#[tonic::async_trait]
impl IdentityService for FakeIssuer {
    async fn attest(&self, request: Request<AttestRequest>) -> Result<Response<AttestResponse>, Status> {
        self.attested.fetch_add(1, SeqCst);
        assert!(peer_identity(request.extensions()).is_none(), "whoever attests has no certificate");
        let AttestRequest { proof, csr, .. } = request.into_inner();
        let Some(Proof::JoinToken(token)) = proof else { return Err(Status::unauthenticated("")) };
        let known = {
            let mut state = self.state.lock().unwrap();
            let known = state.tokens.iter().position(|known| *known == token);
            known.map(|index| state.tokens.remove(index))
        };
        known.ok_or_else(|| Status::unauthenticated(""))?;
        let (svid, bundles) = self.answer(WORKLOAD, &csr).await?;
        Ok(Response::new(AttestResponse { svid, bundles }))
    }

    async fn issue(&self, _: Request<IssueRequest>) -> Result<Response<IssueResponse>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn issue_jwt(&self, _: Request<v1::IssueJwtRequest>) -> Result<Response<v1::IssueJwtResponse>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn challenge(&self, _: Request<ChallengeRequest>) -> Result<Response<ChallengeResponse>, Status> {
        Err(Status::unimplemented("no challenges here"))
    }

    async fn renew(&self, request: Request<RenewRequest>) -> Result<Response<RenewResponse>, Status> {
        self.renewed.fetch_add(1, SeqCst);
        let peer = peer_identity(request.extensions()).cloned().ok_or_else(|| Status::unauthenticated(""))?;
        if self.state.lock().unwrap().misdeed == Some(Misdeed::Evicted) {
            return Err(Status::permission_denied("it was evicted"));
        }
        let (svid, bundles) = self.answer(peer.id().as_str(), &request.into_inner().csr).await?;
        Ok(Response::new(RenewResponse { svid, bundles }))
    }

    type WatchStream = Pin<Box<dyn Stream<Item = Result<WatchResponse, Status>> + Send>>;

    async fn watch(&self, request: Request<Streaming<WatchRequest>>) -> Result<Response<Self::WatchStream>, Status> {
        peer_identity(request.extensions()).ok_or_else(|| Status::unauthenticated(""))?;
        let misdeed = self.state.lock().unwrap().misdeed;
        if matches!(misdeed, Some(Misdeed::NoStreams | Misdeed::BusyStreams)) {
            self.streams_refused.fetch_add(1, SeqCst);
            let unavailable = Status::unavailable("no streams here");
            return Err(if misdeed == Some(Misdeed::BusyStreams) { self.busy() } else { unavailable });
        }
        let wishes = BroadcastStream::new(self.wishes.subscribe()).filter_map(async |wish| wish.ok());
        let mut says = request.into_inner();
        let first = says.message().await?.unwrap_or_default();
        let mut missed = self.missed(&first);
        match misdeed {
            Some(Misdeed::NoRevocations) => missed.clear(),
            Some(Misdeed::HalfOfRevocations) => missed.truncate(missed.len() / 2),
            _ => {}
        }
        let said = self.said.clone();
        said.lock().unwrap().extend(first.applied);
        tokio::spawn(async move {
            while let Ok(Some(more)) = says.message().await {
                said.lock().unwrap().extend(more.applied);
            }
        });
        self.watched.fetch_add(1, SeqCst);
        let beginning = std::iter::once(Event::Bundles(self.good_bundles()));
        let beginning: Vec<_> = beginning.chain(missed.into_iter().map(Event::Revocations)).collect();
        let events = stream::iter(beginning).chain(wishes);
        Ok(Response::new(Box::pin(events.map(|event| Ok(WatchResponse { event: Some(event) })))))
    }
}

/// The port may still be in use by a server that was killed.
async fn bind(address: SocketAddr) -> TcpListener {
    loop {
        match TcpListener::bind(address).await {
            Ok(tcp) => return tcp,
            Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    }
}

/// Ends the server and every connection, as a killed process would.
impl Drop for Serving {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}
