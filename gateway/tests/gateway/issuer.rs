//! An issuer that attests everybody and says what is revoked.

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use prost::Message as _;
use rcgen::{PKCS_ECDSA_P256_SHA256, PublicKeyData, SignatureAlgorithm};
use signet_identity::{
    ClientAuthentication, Material, RevocationSet, ServerPolicy, SignedRevocations, Snapshot, SystemClock, TlsPolicies,
    TrustBundle, X509Svid, live,
};
use signet_proto::identity::v1::identity_service_server::{IdentityService, IdentityServiceServer};
use signet_proto::identity::v1::{self, attest_request::Proof, watch_response::Event};
use signet_sdk::server::MtlsListener;
use signet_test_pki::Issued;
use tempfile::TempDir;
use tokio::sync::watch;
use tokio_stream::{Stream, StreamExt as _, wrappers::WatchStream};
use tonic::{Request, Response, Status, Streaming, transport::Server};
use x509_parser::extensions::ParsedExtension;
use x509_parser::prelude::{FromDer as _, X509CertificationRequest};

use crate::harness::*;

/// Cheap to clone: copies are of the same issuer.
#[derive(Clone)]
pub(crate) struct Issuer {
    pki: Arc<Pki>,
    pub(crate) address: SocketAddr,
    revoked: watch::Sender<Revoked>,
    /// Certificates that were issued, with the names that were asked for.
    issued: Arc<Mutex<Vec<Vec<u8>>>>,
}

/// What is revoked, in the order in which that happened.
#[derive(Clone, Default)]
struct Revoked(Vec<v1::RevocationStatement>);

impl Issuer {
    pub(crate) async fn start() -> Self {
        let pki = Arc::new(Pki::new());
        let issued = pki.issuing.leaf("spiffe://example.org/signet/issuer").issue();
        let svid = X509Svid::from_der(issued.chain.clone(), issued.key()).unwrap();
        let clock = Arc::new(SystemClock);
        let mut policies = TlsPolicies::new(clock.clone());
        let key = policies.server(ServerPolicy { alpn: vec![b"h2".to_vec()], clients: ClientAuthentication::Optional });
        let bundle = TrustBundle::new("example.org".parse().unwrap(), vec![pki.root.certificate().clone()]).unwrap();
        let revocations = RevocationSet::default();
        let material = Material { svid, bundles: [bundle].into_iter().collect(), revocations };
        let (publisher, identity) = live(Snapshot::build(material, &policies, None).unwrap());
        let listener = MtlsListener::bind("127.0.0.1:0", identity, key, clock).await.unwrap();
        let address = listener.local_addr().unwrap();
        let issuer = Self { pki, address, revoked: watch::Sender::default(), issued: Arc::default() };
        let service = IdentityServiceServer::new(issuer.clone());
        tokio::spawn(async move {
            let _live_as_long_as_the_server = publisher;
            Server::builder().add_service(service).serve_with_incoming(listener).await
        });
        issuer
    }

    /// A caller's identity, which no gateway has seen yet.
    pub(crate) fn caller(&self, name: &str) -> Issued {
        self.pki.issuing.leaf(&format!("spiffe://example.org/shop/{name}")).issue()
    }

    /// Revokes by serial number.
    pub(crate) fn revoke(&self, certificate: &[u8]) {
        let (_, certificate) = x509_parser::parse_x509_certificate(certificate).unwrap();
        let authority_key_id = certificate.iter_extensions().find_map(|extension| match extension.parsed_extension() {
            ParsedExtension::AuthorityKeyIdentifier(id) => Some(id.key_identifier.as_ref().unwrap().0.to_vec()),
            _ => None,
        });
        let serials = vec![certificate.raw_serial().to_vec()];
        let (authority_key_id, not_after) = (authority_key_id.unwrap(), vec![i64::MAX]);
        let serials = vec![v1::RevokedSerials { authority_key_id, serials, not_after }];
        self.add(v1::RevocationStatement { serials, ..Default::default() });
    }

    /// Revokes the authority that signs for everybody.
    pub(crate) fn revoke_key(&self, certificate: &[u8]) {
        let (_, certificate) = x509_parser::parse_x509_certificate(certificate).unwrap();
        let sha256 = signet_identity::KeySha256::of(certificate.public_key().raw).as_bytes().to_vec();
        let keys = vec![v1::RevokedKey { sha256, not_after: i64::MAX }];
        self.add(v1::RevocationStatement { keys, ..Default::default() });
    }

    fn add(&self, statement: v1::RevocationStatement) {
        self.revoked.send_modify(|revoked| revoked.0.push(statement));
    }

    /// The leaf that this issuer gave to a gateway: the one that was asked for at `place`.
    pub(crate) fn issued(&self, place: usize) -> Vec<u8> {
        self.issued.lock().unwrap()[place].clone()
    }

    /// Runs a gateway that gets its identity here: `spiffe://example.org/gateway/NAME`.
    pub(crate) async fn gateway(&self, name: &str, rest: &str) -> Running {
        let running = self.begin_gateway(name, rest).await;
        eventually(async || running.started.readiness.reasons().is_empty(), "ready").await;
        running
    }

    pub(crate) async fn begin_gateway(&self, name: &str, rest: &str) -> Running {
        let dir = TempDir::new().unwrap();
        std::fs::write(dir.path().join("token"), name).unwrap();
        let root = signet_test_pki::pem("CERTIFICATE", self.pki.root.certificate());
        std::fs::write(dir.path().join("bundle.pem"), root).unwrap();
        let text = format!(
            "identity: {{ issuer: {{ address: \"{}\", trust_domain: example.org, bundle: bundle.pem, \
             join_token_file: token }} }}\nadmin: 127.0.0.1:0\n{rest}",
            self.address
        );
        start(dir, &text).await
    }

    fn events(&self, revoked: &Revoked, after: usize) -> Event {
        let mut all = v1::RevocationStatement {
            trust_domain: "example.org".to_owned(),
            lineage: b"lineage1".to_vec(),
            after: after as u64,
            epoch: revoked.0.len() as u64,
            latest: revoked.0.len() as u64,
            ..Default::default()
        };
        for statement in &revoked.0[after..] {
            all.serials.extend_from_slice(&statement.serials);
            all.keys.extend_from_slice(&statement.keys);
        }
        let version = [&all.lineage[..], &all.epoch.to_be_bytes()].concat();
        let statement = all.encode_to_vec();
        let signature = self.pki.issuing.sign(&SignedRevocations::signed_bytes(&statement));
        let chain = self.pki.issuing.chain().iter().map(|der| der.to_vec()).collect();
        Event::Revocations(v1::Revocations { statement, signature, chain, version })
    }

    fn bundles(&self) -> v1::TrustBundles {
        let x509_authorities = vec![self.pki.root.certificate().to_vec()];
        let bundle =
            v1::TrustBundle { trust_domain: "example.org".to_owned(), x509_authorities, ..v1::TrustBundle::default() };
        v1::TrustBundles { bundles: vec![bundle], ..Default::default() }
    }

    fn certify(&self, id: &str, csr: &[u8]) -> v1::X509Svid {
        let (_, request) = X509CertificationRequest::from_der(csr).unwrap();
        let key = request.certification_request_info.subject_pki.subject_public_key.data.to_vec();
        let chain = self.pki.issuing.leaf(id).ttl(Duration::from_secs(3600)).issue_for(&PublicKey(key));
        self.issued.lock().unwrap().push(chain[0].to_vec());
        let chain = chain.iter().map(|der| der.to_vec()).collect();
        v1::X509Svid { spiffe_id: id.to_owned(), chain, ..Default::default() }
    }
}

#[tonic::async_trait]
impl IdentityService for Issuer {
    /// A token is the name of who shows it.
    async fn attest(&self, request: Request<v1::AttestRequest>) -> Result<Response<v1::AttestResponse>, Status> {
        let v1::AttestRequest { proof: Some(Proof::JoinToken(name)), csr, .. } = request.into_inner() else {
            return Err(Status::unauthenticated("no token"));
        };
        let svid = Some(self.certify(&format!("spiffe://example.org/gateway/{name}"), &csr));
        Ok(Response::new(v1::AttestResponse { svid, bundles: Some(self.bundles()) }))
    }

    async fn renew(&self, _: Request<v1::RenewRequest>) -> Result<Response<v1::RenewResponse>, Status> {
        Err(Status::permission_denied("nobody renews here"))
    }

    async fn issue(&self, _: Request<v1::IssueRequest>) -> Result<Response<v1::IssueResponse>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn issue_jwt(&self, _: Request<v1::IssueJwtRequest>) -> Result<Response<v1::IssueJwtResponse>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn challenge(&self, _: Request<v1::ChallengeRequest>) -> Result<Response<v1::ChallengeResponse>, Status> {
        Err(Status::unimplemented(""))
    }

    type WatchStream = Pin<Box<dyn Stream<Item = Result<v1::WatchResponse, Status>> + Send>>;

    async fn watch(
        &self,
        request: Request<Streaming<v1::WatchRequest>>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let mut says = request.into_inner();
        let first = says.message().await?.unwrap_or_default();
        let known = first.applied.iter().find(|applied| applied.resource() == v1::Resource::Revocations);
        let mut after = known.map_or(0, |known| usize::from(*known.version.last().unwrap()));
        let issuer = self.clone();
        let events = WatchStream::new(self.revoked.subscribe()).map(move |revoked| {
            let event = issuer.events(&revoked, after);
            after = revoked.0.len();
            Ok(v1::WatchResponse { event: Some(event) })
        });
        // As long as the stream is open, so is what the client says on it.
        let listening = async move { while let Ok(Some(_)) = says.message().await {} };
        tokio::spawn(listening);
        Ok(Response::new(Box::pin(events)))
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
