//! Who may call what. What no rule allows is denied.

use http::{HeaderValue, Request};
use signet_identity::{PeerIdentity, Snapshot};

use crate::config::Mode;
use crate::http::body::CallerBody;

/// What a connection's caller may do, decided once: neither its identity nor the policy changes while it lives.
#[derive(Clone, Debug)]
pub(crate) enum Permission {
    /// The value of `x-forwarded-client-cert` for its requests; none for callers on this host.
    Granted {
        caller: Option<HeaderValue>,
    },
    Denied(Denial),
}

/// Why a request is denied: the label of `signet_gateway_denied_total`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Denial {
    /// No `allow` pattern matches the caller.
    NotAllowed,
}

impl Denial {
    pub(crate) fn reason(self) -> &'static str {
        match self {
            Self::NotAllowed => "not_allowed",
        }
    }
}

/// A request that the policy allows. Nothing else can be forwarded.
#[derive(Debug)]
pub(crate) struct Authorized<'a> {
    pub(crate) request: Request<CallerBody>,
    pub(crate) caller: Option<&'a HeaderValue>,
}

impl Permission {
    pub(crate) fn of_peer(mode: &Mode, peer: &PeerIdentity, identity: &Snapshot) -> Self {
        match mode {
            Mode::Inbound { allow } if allow.matches(peer.id()) => match forwarded_client_cert(peer, identity) {
                Some(caller) => Self::Granted { caller: Some(caller) },
                None => Self::Denied(Denial::NotAllowed),
            },
            Mode::Inbound { .. } | Mode::Outbound => Self::Denied(Denial::NotAllowed),
        }
    }

    /// A program on this host, which may use the gateway's identity.
    pub(crate) fn of_local(mode: &Mode) -> Self {
        match mode {
            Mode::Outbound => Self::Granted { caller: None },
            Mode::Inbound { .. } => Self::Denied(Denial::NotAllowed),
        }
    }

    #[inline]
    pub(crate) fn authorize(&self, request: Request<CallerBody>) -> Result<Authorized<'_>, Denial> {
        match self {
            Self::Granted { caller } => Ok(Authorized { request, caller: caller.as_ref() }),
            Self::Denied(denial) => Err(*denial),
        }
    }
}

/// `By=…;Hash=…;URI=…` in Envoy's format. SPIFFE IDs hold nothing that would need quotes.
fn forwarded_client_cert(peer: &PeerIdentity, identity: &Snapshot) -> Option<HeaderValue> {
    let text = format!("By={};Hash={};URI={}", identity.svid().id(), hex::encode(peer.leaf_sha256()), peer.id());
    // A SPIFFE ID is visible ASCII, so this is always a value.
    HeaderValue::try_from(text).ok()
}
