//! What is told of `signet ca follow` to whoever watches over it: metrics and health, where an address is given.

use std::net::SocketAddr;

use prometheus::{IntCounterVec, Opts, Registry};
use signet_identity::{LiveIdentity, SharedClock};
use signet_process::admin::{AdminBuilder, AdminServer, Readiness, State};
use signet_process::identity_metrics::IdentityMetrics;
use signet_process::identity_slot::IdentitySlot;
use signet_process::logging::LogHandle;
use signet_sdk::Monitor;

use crate::failure::Failure;

pub(super) struct Health {
    readiness: Readiness,
    identity: IdentitySlot,
    certificates: IntCounterVec,
    /// Serves until it is dropped.
    _server: Option<AdminServer>,
}

/// What became of a certificate.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Outcome {
    Signed,
    /// By the parent.
    Refused,
    /// The parent was not to be reached, or had none to give.
    Failed,
    /// By the issuer.
    NotTaken,
    /// No certificate was asked for.
    Other,
}

const FOLLOWING: &str = "following";
const IDENTITY: &str = "identity";

impl Health {
    pub(super) fn start(address: Option<SocketAddr>, clock: SharedClock, log: LogHandle) -> Result<Self, Failure> {
        let failed = |error: prometheus::Error| Failure::from_error(&error);
        let registry = Registry::new();
        let certificates = IntCounterVec::new(
            Opts::new(
                "signet_ca_follow_certificates_total",
                "Certificates for the issuer's authorities, by what became of them.",
            ),
            &["result"],
        );
        let certificates = certificates.map_err(failed)?;
        registry.register(Box::new(certificates.clone())).map_err(failed)?;
        for label in Outcome::ALL.iter().filter_map(|outcome| outcome.label()) {
            certificates.with_label_values(&[label]);
        }
        let identity = IdentitySlot::new(clock);
        IdentityMetrics::register(&registry, identity.clone()).map_err(failed)?;
        let readiness = Readiness::awaiting([IDENTITY, FOLLOWING]);
        let server = address.map(|address| {
            let (readiness, identity) = (readiness.clone(), identity.clone());
            let log = Some(log);
            let (config, pages) = (String::new(), Vec::new());
            AdminBuilder { process: "signet", address, registry, readiness, identity, config, log, pages }.start()
        });
        let server = server.transpose().map_err(|error| Failure::from_error(&error))?;
        Ok(Self { readiness, identity, certificates, _server: server })
    }

    pub(super) fn waits_for_identity(&self, monitor: &Monitor) {
        let reason = match monitor.state() {
            signet_sdk::State::Waiting { reason } => reason.to_string(),
            signet_sdk::State::Live { .. } | signet_sdk::State::Expired { .. } => return,
        };
        self.readiness.set(IDENTITY, State::NotReady { reason });
    }

    pub(super) fn has_identity(&self, live: &LiveIdentity) {
        self.identity.fill(live.clone());
        self.readiness.set(IDENTITY, State::Ready);
    }

    pub(super) fn did(&self, outcome: Outcome) {
        self.count(outcome);
    }

    pub(super) fn is_well(&self) {
        self.readiness.set(FOLLOWING, State::Ready);
    }

    pub(super) fn is_in_trouble(&self, cause: &str, outcome: Outcome) {
        self.count(outcome);
        self.readiness.set(FOLLOWING, State::NotReady { reason: cause.to_owned() });
    }

    fn count(&self, outcome: Outcome) {
        if let Some(label) = outcome.label() {
            self.certificates.with_label_values(&[label]).inc();
        }
    }

    #[cfg(test)]
    pub(super) fn count_of(&self, outcome: Outcome) -> u64 {
        outcome.label().map_or(0, |label| self.certificates.with_label_values(&[label]).get())
    }

    /// Empty where it follows.
    #[cfg(test)]
    pub(super) fn what_stands_in_the_way(&self) -> String {
        let reason = self.readiness.reasons().into_iter().find(|(component, _)| *component == FOLLOWING);
        reason.map(|(_, reason)| reason).unwrap_or_default()
    }
}

impl Outcome {
    const ALL: [Self; 5] = [Self::Signed, Self::Refused, Self::Failed, Self::NotTaken, Self::Other];

    fn label(self) -> Option<&'static str> {
        match self {
            Self::Signed => Some("signed"),
            Self::Refused => Some("refused"),
            Self::Failed => Some("failed"),
            Self::NotTaken => Some("not_taken"),
            Self::Other => None,
        }
    }
}
