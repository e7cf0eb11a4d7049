//! The calls to an issuer. Each has a timeout, and each answer a limit.

use std::{
    error::Error,
    fmt,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use http::Uri;
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use signet_identity::{BundleSet, ClientKey, LiveIdentity, SharedClock, WorkloadId, bootstrap_client_config};
use signet_proto::identity::v1::{
    Applied, AttestRequest, ChallengeRequest, RenewRequest, Resource, TrustBundles, WatchRequest, WatchResponse,
    X509Svid, identity_service_client::IdentityServiceClient,
};
use tokio::sync::mpsc;
use tonic::{Code, Status, Streaming, transport::Channel};

use super::{
    Endpoint,
    addresses::Addresses,
    answer::{self, AnswerError, Answered, MAX_MESSAGE_BYTES, Versions},
    credential::{CredentialError, Shown},
    request::{KeyError, NewKey},
};
use crate::hyper::{ConnectError, MtlsConnector, dial};

/// How often a silent connection is asked whether it lives, and how long it may think about that: a stream that is
/// dead without a word delivers no bundles.
const KEEP_ALIVE: Duration = Duration::from_secs(5);
/// The same where another issuer can be asked: it is found out within 2 s.
const KEEP_ALIVE_OF_SEVERAL: Duration = Duration::from_millis(900);
/// How long one of several may take to connect.
const ONE_OF_SEVERAL: Duration = Duration::from_secs(1);
/// What is said of what was sent, and waits to be sent.
const SAID: usize = 8;
const MAX_HEADER_BYTES: u32 = 16 << 10;

/// Why a call gave nothing.
#[derive(Debug, thiserror::Error)]
pub(super) enum CallError {
    #[error("issuer {address} cannot be reached")]
    Connect { address: String, source: Box<dyn Error + Send + Sync> },
    #[error("issuer {address} refused: {}", reason(.status))]
    Refused { address: String, status: Box<Status> },
    #[error("issuer {address} did not answer within {seconds} s")]
    Timeout { address: String, seconds: f64 },
    #[error("{refused}; nor does attesting again help")]
    NorAgain { refused: Box<CallError>, source: Box<CallError> },
    #[error("issuer {address} ended the stream")]
    Ended { address: String },
    #[error("the answer of issuer {address} is unusable")]
    Answer { address: String, source: AnswerError },
    #[error(transparent)]
    Key(#[from] KeyError),
    #[error(transparent)]
    Credential(#[from] CredentialError),
}

impl CallError {
    /// Of an attestation: whether the issuer was there and did not accept the proof.
    pub(super) fn is_proof_refused(&self) -> bool {
        matches!(self, Self::Refused { status, .. } if status.code() == Code::Unauthenticated)
    }

    /// How long the issuer wants to be left alone (gRPC A6); no longer than a minute is believed.
    pub(super) fn come_again(&self) -> Option<Duration> {
        let status = match self {
            Self::Refused { status, .. } => status,
            Self::NorAgain { source, .. } => return source.come_again(),
            _ => return None,
        };
        let told = status.metadata().get("grpc-retry-pushback-ms")?.to_str().ok()?.parse().ok()?;
        Some(Duration::from_millis(told).min(Duration::from_secs(60)))
    }

    /// Whether another connection may do better.
    pub(super) fn is_of_the_connection(&self) -> bool {
        match self {
            Self::Timeout { .. } | Self::Connect { .. } | Self::Ended { .. } => true,
            Self::Refused { status, .. } => matches!(status.code(), Code::Unavailable | Code::DeadlineExceeded),
            Self::NorAgain { .. } | Self::Answer { .. } | Self::Key(_) | Self::Credential(_) => false,
        }
    }

    /// Whether another issuer may do better: one that refuses, or answers what is of no use, may have an old policy or a wrong clock.
    pub(super) fn is_of_the_issuer(&self) -> bool {
        !matches!(self, Self::Key(_) | Self::Credential(_))
    }

    /// Of an attestation: whether the issuer believes the proof, and the policy gives nothing for it yet.
    pub(super) fn is_not_given_yet(&self) -> bool {
        matches!(self, Self::Refused { status, .. } if status.code() == Code::PermissionDenied)
    }

    /// Of a renewal: whether the issuer was there, and what it attested once does not entitle to it any more.
    pub(super) fn is_standing_refused(&self) -> bool {
        matches!(self, Self::Refused { status, .. } if status.code() == Code::PermissionDenied)
    }
}

/// A call that did not get to the issuer. A status prints its cause as for a debugger: this prints the cause alone.
#[derive(Debug)]
pub(super) struct Unreached(Box<Status>);

impl fmt::Display for Unreached {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.source() {
            Some(cause) => write!(f, "{cause}"),
            None => f.write_str(self.0.message()),
        }
    }
}

impl Error for Unreached {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.0.source()?.source()
    }
}

/// What a status says, in words: its message comes from the peer and may be empty.
fn reason(status: &Status) -> String {
    let hint = match status.code() {
        Code::Unauthenticated => "the proof of who this is, is unknown, used or expired",
        code => code.description(),
    };
    match status.message() {
        "" => hint.to_owned(),
        message => format!("{hint} ({})", message.chars().take(256).collect::<String>()),
    }
}

/// Exchanges a proof of who this is for the first SVID. The caller has no certificate: it believes the issuer by the
/// bootstrap bundle, and the issuer believes the proof.
pub(super) async fn attest(
    endpoint: &Endpoint,
    clock: &SharedClock,
    shown: Shown,
    wanted: Option<&WorkloadId>,
) -> Result<Answered, CallError> {
    let bundles = BundleSet::from_iter([endpoint.bootstrap.clone()]);
    let tls = bootstrap_client_config(&bundles, &endpoint.expected(), vec![b"h2".to_vec()], clock.clone());
    let key = NewKey::generate()?;
    let csr = key.request()?;
    let way = Way::to(endpoint);
    let mut calls = calls(bootstrap_channel(endpoint, &way, tls).await?);
    let attested = exchange(endpoint, &mut calls, shown, wanted, key, csr).await;
    if attested.as_ref().is_err_and(CallError::is_of_the_issuer) {
        way.give_up();
    }
    attested
}

async fn exchange(
    endpoint: &Endpoint,
    calls: &mut IdentityServiceClient<Channel>,
    shown: Shown,
    wanted: Option<&WorkloadId>,
    key: NewKey,
    csr: Vec<u8>,
) -> Result<Answered, CallError> {
    let proof = match shown {
        Shown::Proof(proof) => proof,
        Shown::Key(key) => {
            let given = within(endpoint, calls.challenge(ChallengeRequest {})).await?.into_inner();
            key.prove(given.challenge, &csr)?
        }
    };
    let spiffe_id = wanted.map(ToString::to_string).unwrap_or_default();
    // Shorter than the call may take, so that the answer comes within it.
    let wait = prost_types::Duration::try_from(endpoint.wait()).ok();
    let request = AttestRequest { proof: Some(proof), csr, spiffe_id, wait };
    let answer = within(endpoint, calls.attest(request)).await?.into_inner();
    material(endpoint, answer.svid, answer.bundles, key)
}

async fn bootstrap_channel(endpoint: &Endpoint, way: &Way, tls: Arc<ClientConfig>) -> Result<Channel, CallError> {
    let way = way.clone();
    let connector = tower::service_fn(move |_: Uri| {
        let (way, tls) = (way.clone(), tls.clone());
        let dial_to = move |uri: Uri| {
            let tls = tls.clone();
            async move { dial(&uri, tls).await }
        };
        async move { way.connect(dial_to).await.map(TokioIo::new) }
    });
    let connected = grpc(endpoint).connect_with_connector(connector).await;
    connected.map_err(|source| CallError::Connect { address: endpoint.address(), source: source.into() })
}

/// Calls as the holder of the live SVID, over one connection that is made again when it breaks. Whoever rotates drops
/// this and makes another: a connection stays with the certificate it was made with.
#[derive(Clone, Debug)]
pub(super) struct IssuerClient {
    endpoint: Endpoint,
    channel: Channel,
    way: Way,
}

/// How connections of one channel come about: to one issuer, or the next.
#[derive(Clone, Debug)]
struct Way {
    addresses: Addresses,
    /// For one of several.
    patience: Duration,
    /// Where the last one went.
    to: Arc<Mutex<Option<SocketAddr>>>,
}

/// One that was asked for a connection, and fails unless it answers.
struct Asked<'a> {
    addresses: &'a Addresses,
    address: SocketAddr,
    has_answered: bool,
}

impl Drop for Asked<'_> {
    fn drop(&mut self) {
        if !self.has_answered {
            self.addresses.failed_at(self.address);
        }
    }
}

impl Way {
    fn to(endpoint: &Endpoint) -> Self {
        let patience = if endpoint.addresses.is_one() { endpoint.timeouts.connect } else { ONE_OF_SEVERAL };
        let patience = patience.min(endpoint.timeouts.connect);
        Self { addresses: endpoint.addresses.clone(), patience, to: Arc::default() }
    }

    async fn connect<T, F>(self, dial: impl Fn(Uri) -> F) -> Result<T, ConnectError>
    where
        F: Future<Output = Result<T, ConnectError>>,
    {
        let named = self.addresses.to_string();
        let looked_up = self.addresses.in_order().await;
        let all = looked_up.map_err(|source| ConnectError::Tcp { address: named.clone(), source })?;
        let mut failure = ConnectError::Timeout { address: named, limit: self.patience };
        for address in all {
            // TLS is the connector's business, so that the scheme says nothing.
            let uri = Uri::builder().scheme("http").authority(address.to_string()).path_and_query("/").build();
            // An address of a socket is an authority.
            let Ok(uri) = uri else { continue };
            // Also when whoever wants the connection has no patience left.
            let mut asked = Asked { addresses: &self.addresses, address, has_answered: false };
            failure = match tokio::time::timeout(self.patience, dial(uri)).await {
                Ok(Ok(connected)) => {
                    asked.has_answered = true;
                    *self.last() = Some(address);
                    return Ok(connected);
                }
                Ok(Err(error)) => error,
                Err(_) => ConnectError::Timeout { address: address.to_string(), limit: self.patience },
            };
        }
        Err(failure)
    }

    /// The next connection goes elsewhere, if there is such.
    fn give_up(&self) {
        if let Some(address) = self.last().take() {
            self.addresses.failed_at(address);
        }
    }

    fn last(&self) -> MutexGuard<'_, Option<SocketAddr>> {
        self.to.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl IssuerClient {
    pub(super) fn new(endpoint: &Endpoint, live: LiveIdentity, key: ClientKey, clock: SharedClock) -> Self {
        let (connector, way) = (MtlsConnector::new(live, key, clock), Way::to(endpoint));
        let finding = way.clone();
        let connector = tower::service_fn(move |_: Uri| {
            let (connector, way) = (connector.clone(), finding.clone());
            let connect_to = move |uri: Uri| {
                let connector = connector.clone();
                async move { connector.connect(&uri).await }
            };
            async move { way.connect(connect_to).await.map(TokioIo::new) }
        });
        Self { endpoint: endpoint.clone(), channel: grpc(endpoint).connect_with_connector_lazy(connector), way }
    }

    /// The next connection goes to another issuer, if there is such.
    pub(super) fn give_up(&self) {
        self.way.give_up();
    }

    /// A successor of the live SVID, for a new key.
    pub(super) async fn renew(&self) -> Result<Answered, CallError> {
        let key = NewKey::generate()?;
        let request = RenewRequest { csr: key.request()? };
        let mut calls = calls(self.channel.clone());
        let answer = within(&self.endpoint, calls.renew(request)).await?.into_inner();
        material(&self.endpoint, answer.svid, answer.bundles, key)
    }

    /// The stream of what is to be in force. It has no end of its own: the timeout is for its beginning. What is said on the other way
    /// begins with what is in force here.
    pub(super) async fn watch(
        &self,
        versions: &Versions,
    ) -> Result<(Streaming<WatchResponse>, mpsc::Sender<WatchRequest>), CallError> {
        let (say, said) = mpsc::channel(SAID);
        let applied = [(Resource::Bundles, &versions.bundles), (Resource::Entitlement, &versions.entitlement)];
        let applied = applied.into_iter().filter(|(_, version)| !version.is_empty());
        let applied = applied.map(|(resource, version)| Applied {
            resource: resource.into(),
            version: version.clone(),
            refused: String::new(),
        });
        // There is room: nobody else has it yet.
        let _ = say.try_send(WatchRequest { applied: applied.collect(), ..WatchRequest::default() });
        let said = futures_util::stream::unfold(said, async |mut said| Some((said.recv().await?, said)));
        let mut calls = calls(self.channel.clone());
        let stream = within(&self.endpoint, calls.watch(said)).await?.into_inner();
        Ok((stream, say))
    }

    /// What a stream's message says of bundles.
    pub(super) fn bundles(&self, bundles: TrustBundles) -> Result<BundleSet, CallError> {
        answer::bundle_set(bundles).map_err(|source| CallError::Answer { address: self.endpoint.address(), source })
    }

    /// The stream ended.
    pub(super) fn ended(&self, status: Option<Status>) -> CallError {
        match status {
            Some(status) => failed(&self.endpoint, status),
            None => CallError::Ended { address: self.endpoint.address() },
        }
    }
}

fn grpc(endpoint: &Endpoint) -> tonic::transport::Endpoint {
    let keep_alive = if endpoint.addresses.is_one() { KEEP_ALIVE } else { KEEP_ALIVE_OF_SEVERAL };
    // The connector knows where to.
    tonic::transport::Endpoint::from_static("http://issuer.invalid")
        .connect_timeout(endpoint.timeouts.request)
        .http2_keep_alive_interval(keep_alive)
        .keep_alive_timeout(keep_alive)
        .keep_alive_while_idle(true)
        .http2_max_header_list_size(MAX_HEADER_BYTES)
}

fn calls(channel: Channel) -> IdentityServiceClient<Channel> {
    IdentityServiceClient::new(channel).max_decoding_message_size(MAX_MESSAGE_BYTES)
}

async fn within<T>(endpoint: &Endpoint, call: impl Future<Output = Result<T, Status>>) -> Result<T, CallError> {
    let limit = endpoint.timeouts.request;
    match tokio::time::timeout(limit, call).await {
        Ok(answered) => answered.map_err(|status| failed(endpoint, status)),
        Err(_) => Err(CallError::Timeout { address: endpoint.address(), seconds: limit.as_secs_f64() }),
    }
}

/// Tells a connection that failed from an issuer that answered.
fn failed(endpoint: &Endpoint, status: Status) -> CallError {
    let address = endpoint.address();
    match status.source().is_some() {
        true => CallError::Connect { address, source: Unreached(Box::new(status)).into() },
        false => CallError::Refused { address, status: Box::new(status) },
    }
}

fn material(
    endpoint: &Endpoint,
    svid: Option<X509Svid>,
    bundles: Option<TrustBundles>,
    key: NewKey,
) -> Result<Answered, CallError> {
    let key = key.into_private_key()?;
    answer::answered(svid, bundles, key).map_err(|source| CallError::Answer { address: endpoint.address(), source })
}
