//! The calls to an issuer. Each has a timeout, and each answer a limit.

use std::{error::Error, fmt, sync::Arc, time::Duration};

use http::Uri;
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use signet_identity::{BundleSet, ClientKey, LiveIdentity, Material, SharedClock, WorkloadId, bootstrap_client_config};
use signet_proto::identity::v1::{
    AttestRequest, ChallengeRequest, RenewRequest, TrustBundles, WatchRequest, WatchResponse, X509Svid,
    identity_service_client::IdentityServiceClient,
};
use tonic::{Code, Status, Streaming, transport::Channel};

use super::{
    Endpoint,
    answer::{self, AnswerError, MAX_MESSAGE_BYTES},
    credential::{CredentialError, Shown},
    request::{KeyError, NewKey},
};
use crate::hyper::{MtlsConnector, dial};

/// How often a silent connection is asked whether it lives, and how long it may think about that: a stream that is
/// dead without a word delivers no bundles.
const KEEP_ALIVE: Duration = Duration::from_secs(5);
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
) -> Result<Material, CallError> {
    let bundles = BundleSet::from_iter([endpoint.bootstrap.clone()]);
    let tls = bootstrap_client_config(&bundles, &endpoint.expected(), vec![b"h2".to_vec()], clock.clone());
    let key = NewKey::generate()?;
    let csr = key.request()?;
    let mut calls = calls(bootstrap_channel(endpoint, tls).await?);
    let proof = match shown {
        Shown::Proof(proof) => proof,
        Shown::Key(key) => {
            let given = within(endpoint, calls.challenge(ChallengeRequest {})).await?.into_inner();
            key.prove(given.challenge, &csr)?
        }
    };
    let spiffe_id = wanted.map(ToString::to_string).unwrap_or_default();
    let request = AttestRequest { proof: Some(proof), csr, spiffe_id };
    let answer = within(endpoint, calls.attest(request)).await?.into_inner();
    material(endpoint, answer.svid, answer.bundles, key)
}

async fn bootstrap_channel(endpoint: &Endpoint, tls: Arc<ClientConfig>) -> Result<Channel, CallError> {
    let connector = tower::service_fn(move |uri: Uri| {
        let tls = tls.clone();
        async move { dial(&uri, tls).await.map(TokioIo::new) }
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
}

impl IssuerClient {
    pub(super) fn new(endpoint: &Endpoint, live: LiveIdentity, key: ClientKey, clock: SharedClock) -> Self {
        let connector = MtlsConnector::new(live, key, clock);
        Self { endpoint: endpoint.clone(), channel: grpc(endpoint).connect_with_connector_lazy(connector) }
    }

    /// A successor of the live SVID, for a new key.
    pub(super) async fn renew(&self) -> Result<Material, CallError> {
        let key = NewKey::generate()?;
        let request = RenewRequest { csr: key.request()? };
        let mut calls = calls(self.channel.clone());
        let answer = within(&self.endpoint, calls.renew(request)).await?.into_inner();
        material(&self.endpoint, answer.svid, answer.bundles, key)
    }

    /// The stream of bundles and wishes. It has no end of its own: the timeout is for its beginning.
    pub(super) async fn watch(&self) -> Result<Streaming<WatchResponse>, CallError> {
        let mut calls = calls(self.channel.clone());
        Ok(within(&self.endpoint, calls.watch(WatchRequest {})).await?.into_inner())
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
    tonic::transport::Endpoint::from(endpoint.uri.clone())
        .connect_timeout(endpoint.timeouts.connect)
        .http2_keep_alive_interval(KEEP_ALIVE)
        .keep_alive_timeout(KEEP_ALIVE)
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
) -> Result<Material, CallError> {
    let key = key.into_private_key()?;
    answer::material(svid, bundles, key).map_err(|source| CallError::Answer { address: endpoint.address(), source })
}
