//! The calls to an issuer. Each has a timeout, and each answer a limit.

use std::{
    error::Error,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use http::Uri;
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use signet_identity::{BundleSet, ClientKey, LiveIdentity, SharedClock, Snapshot, WorkloadId, bootstrap_client_config};
use signet_proto::identity::v1::{
    Applied, AttestRequest, ChallengeRequest, RenewRequest, Resource, TrustBundles, WatchRequest, WatchResponse,
    X509Svid, identity_service_client::IdentityServiceClient,
};
use tokio::sync::mpsc;
use tonic::{Code, Status, Streaming, transport::Channel};

use super::{
    Endpoint, OF_SEVERAL,
    answer::{self, AnswerError, Answered, MAX_MESSAGE_BYTES, Versions},
    credential::{CredentialError, Shown},
    logged,
    request::{KeyError, NewKey},
    revocations::{self, StatementError},
    way::Way,
};
use crate::{
    hyper::{MtlsConnector, dial},
    wall_clock,
};

/// How often a silent connection is asked whether it lives, and how long it may think about that: a stream that is
/// dead without a word delivers no bundles.
const KEEP_ALIVE: Duration = Duration::from_secs(5);
/// The same where another issuer can be asked: what is found out after 1.4 s leaves time to come to another within 2 s, past a silent
/// one too.
const KEEP_ALIVE_OF_SEVERAL: Duration = Duration::from_millis(700);
/// What is said of what was sent, and waits to be sent.
const SAID: usize = 8;
const MAX_HEADER_BYTES: u32 = 16 << 10;
const MOST_PUSHBACK: Duration = Duration::from_secs(60);

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
    #[error("what issuer {address} says is revoked cannot be relied on")]
    Revocations { address: String, source: StatementError },
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

    /// How long the issuer wants to be left alone (gRPC A6); no longer than a minute is believed. What is no such number would have a
    /// call not made again at all: an identity has to be asked for again, and is with the pauses of any other refusal.
    pub(super) fn come_again(&self) -> Option<Duration> {
        let Self::Refused { status, .. } = self else { return None };
        let told = status.metadata().get("grpc-retry-pushback-ms")?.to_str().ok()?.parse().ok()?;
        Some(Duration::from_millis(told).min(MOST_PUSHBACK))
    }

    /// Whether another connection may do better.
    pub(super) fn is_of_the_connection(&self) -> bool {
        match self {
            Self::Timeout { .. } | Self::Connect { .. } | Self::Ended { .. } => true,
            Self::Refused { status, .. } => matches!(status.code(), Code::Unavailable | Code::DeadlineExceeded),
            Self::NorAgain { .. }
            | Self::Answer { .. }
            | Self::Revocations { .. }
            | Self::Key(_)
            | Self::Credential(_) => false,
        }
    }

    /// Whether the issuer was away, or had no time: what another one says may differ, and costs nobody anything to find out at once.
    pub(super) fn is_not_served(&self) -> bool {
        match self {
            Self::Refused { status, .. } if status.code() == Code::ResourceExhausted => true,
            Self::NorAgain { source, .. } => source.is_not_served(),
            error => error.is_of_the_connection(),
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
/// bootstrap bundle, and by what was in force last and what is known to be revoked, and the issuer believes the proof. One that wants to be left alone is, for at most `longest`.
///
/// Not even where there are several is the call itself given up early: the issuer may be waiting for a rule, and a proof that it
/// uses up after that is lost. A connection that is dead ends the call; keep-alive finds that out.
pub(super) async fn attest(
    endpoint: &Endpoint,
    clock: &SharedClock,
    shown: Shown,
    held: Option<&Snapshot>,
    wanted: Option<&WorkloadId>,
    longest: Duration,
) -> Result<Answered, CallError> {
    let bundles = BundleSet::from_iter([endpoint.believed(held)]);
    let revocations = held.map(|held| held.revocations().clone()).unwrap_or_default();
    let alpn = vec![b"h2".to_vec()];
    let tls = bootstrap_client_config(&bundles, &revocations, &endpoint.expected(), alpn, clock.clone());
    let key = NewKey::generate()?;
    let csr = key.request()?;
    let way = Way::to(endpoint);
    let mut calls = calls(bootstrap_channel(endpoint, &way, tls).await?);
    let attested = exchange(endpoint, &mut calls, shown, wanted, key, csr).await;
    if let Err(error) = &attested
        && error.is_of_the_issuer()
    {
        way.give_up(error.come_again().map(|pause| pause.min(longest)));
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
            // No issuer has to wait for anything to give one.
            let limit = if endpoint.addresses.is_one() { endpoint.timeouts.request } else { OF_SEVERAL };
            let given = within(endpoint, limit, calls.challenge(ChallengeRequest {})).await?.into_inner();
            key.prove(given.challenge, &csr)?
        }
    };
    let spiffe_id = wanted.map(ToString::to_string).unwrap_or_default();
    // Shorter than the call may take, so that the answer comes within it.
    let wait = prost_types::Duration::try_from(endpoint.wait()).ok();
    let with_log_proof = endpoint.requires_log();
    let request = AttestRequest { proof: Some(proof), csr, spiffe_id, wait, with_log_proof };
    let answer = within(endpoint, endpoint.timeouts.request, calls.attest(request)).await?.into_inner();
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

/// The issuers, as the holder of the live SVID asks them: all calls go to one of them, until it is given up.
#[derive(Debug)]
pub(super) struct Issuers {
    endpoint: Endpoint,
    connector: MtlsConnector,
    live: LiveIdentity,
    clock: SharedClock,
    asked: Mutex<IssuerClient>,
}

impl Issuers {
    pub(super) fn new(endpoint: Endpoint, live: LiveIdentity, key: ClientKey, clock: SharedClock) -> Self {
        let connector = MtlsConnector::new(live.clone(), key, clock.clone());
        let asked = Mutex::new(IssuerClient::new(&endpoint, connector.clone()));
        Self { endpoint, connector, live, clock, asked }
    }

    /// The one to ask now.
    pub(super) fn asked(&self) -> IssuerClient {
        self.lock().clone()
    }

    /// Another is asked from now on, if there is such. One that wants to be left alone is, but for no longer than leaves time for
    /// several attempts before the SVID ends. Returns whether this one was asked until now.
    pub(super) fn give_up(&self, client: &IssuerClient, error: Option<&CallError>) -> bool {
        let left = wall_clock::remaining(&*self.clock, self.live.load().svid().not_after()).unwrap_or_default();
        client.way.give_up(error.and_then(CallError::come_again).map(|pause| pause.min(left / 4)));
        !self.endpoint.addresses.is_one() && self.connect_anew(client)
    }

    /// Whoever asks from now on uses another connection. Returns whether this one was used until now.
    pub(super) fn connect_anew(&self, client: &IssuerClient) -> bool {
        let mut asked = self.lock();
        let was_asked = asked.way.is(&client.way);
        if was_asked {
            *asked = IssuerClient::new(&self.endpoint, self.connector.clone());
        }
        was_asked
    }

    /// How far what is revoked is known here.
    pub(super) fn revocations_version(&self) -> Vec<u8> {
        revocations::version(&self.live.load(), self.endpoint.trust_domain())
    }

    /// For a renewal, when so many rounds of all issuers have come to nothing.
    pub(super) fn patience(&self, rounds: u32) -> Duration {
        self.endpoint.patience(rounds)
    }

    fn lock(&self) -> MutexGuard<'_, IssuerClient> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Calls as the holder of the live SVID, over one connection that is made again when it breaks. Whoever rotates drops
/// this and makes another: a connection stays with the certificate it was made with.
#[derive(Clone, Debug)]
pub(super) struct IssuerClient {
    endpoint: Endpoint,
    channel: Channel,
    way: Way,
}

impl IssuerClient {
    fn new(endpoint: &Endpoint, connector: MtlsConnector) -> Self {
        let way = Way::to(endpoint);
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

    /// A successor of the live SVID, for a new key.
    pub(super) async fn renew(&self, patience: Duration) -> Result<Answered, CallError> {
        let key = NewKey::generate()?;
        let request = RenewRequest { csr: key.request()?, with_log_proof: self.endpoint.requires_log() };
        let mut calls = calls(self.channel.clone());
        let answer = within(&self.endpoint, patience, calls.renew(request)).await?.into_inner();
        material(&self.endpoint, answer.svid, answer.bundles, key)
    }

    /// The stream of what is to be in force. It has no end of its own: the timeout is for its beginning. What is said on the other way
    /// begins with what is in force here, and how far `revocations` are known.
    pub(super) async fn watch(
        &self,
        versions: &Versions,
        revocations: &Vec<u8>,
    ) -> Result<(Streaming<WatchResponse>, mpsc::Sender<WatchRequest>), CallError> {
        let (say, said) = mpsc::channel(SAID);
        let applied = [
            (Resource::Bundles, &versions.bundles),
            (Resource::Entitlement, &versions.entitlement),
            (Resource::Revocations, revocations),
        ];
        let applied = applied.into_iter().filter(|(_, version)| !version.is_empty());
        let applied = applied.map(|(resource, version)| Applied {
            resource: resource.into(),
            version: version.clone(),
            refused: String::new(),
        });
        // There is room: nobody else has it yet.
        let also = vec![Resource::Revocations.into(), Resource::Authorities.into()];
        let _ = say.try_send(WatchRequest { applied: applied.collect(), also });
        let said = futures_util::stream::unfold(said, async |mut said| Some((said.recv().await?, said)));
        let mut calls = calls(self.channel.clone());
        let stream = within(&self.endpoint, self.endpoint.timeouts.request, calls.watch(said)).await?.into_inner();
        Ok((stream, say))
    }

    /// What a stream's message says of bundles.
    pub(super) fn bundles(&self, bundles: TrustBundles) -> Result<BundleSet, CallError> {
        answer::bundle_set(bundles).map_err(|source| CallError::Answer { address: self.endpoint.address(), source })
    }

    /// A statement of what is revoked is not in force.
    pub(super) fn unreliable(&self, source: StatementError) -> CallError {
        CallError::Revocations { address: self.endpoint.address(), source }
    }

    /// How long the stream may say nothing of what is revoked, to whoever has to know it before anybody is served.
    pub(super) fn patience(&self) -> Duration {
        self.endpoint.timeouts.request
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

async fn within<T>(
    endpoint: &Endpoint,
    limit: Duration,
    call: impl Future<Output = Result<T, Status>>,
) -> Result<T, CallError> {
    let limit = limit.min(endpoint.timeouts.request);
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
    let (key, log) = (key.into_private_key()?, svid.as_ref().and_then(|svid| svid.log.clone()));
    let answered = answer::answered(svid, bundles, key).and_then(|answered| {
        if endpoint.requires_log() {
            logged::check(log.as_ref(), answered.material.svid.leaf(), &endpoint.log_keys)?;
        }
        Ok(answered)
    });
    answered.map_err(|source| CallError::Answer { address: endpoint.address(), source })
}
