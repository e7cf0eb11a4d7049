//! The running parts of the mesh: each starts from its configuration file, and all end in the order in which nobody
//! misses what is gone already.

use std::error::Error;
use std::future::Future;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use identity_issuer::{AuthorityState, Environment, Issued, Phase};
use signet_gateway::config::Gateway;
use signet_identity::{BundleSet, SharedClock};
use signet_process::admin::Readiness;
use signet_process::logging::LogHandle;
use signet_sdk::Monitor;
use tokio::sync::{broadcast, oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::ceremony::Ceremony;
use super::echo::Echo;
use super::state::{damaged, damaged_by};
use crate::failure::Failure;

/// What a part may take from its start to its first identity; it takes a fraction of a second.
const PATIENCE: Duration = Duration::from_secs(15);

/// Dropping it ends every part at once; [`Parts::end`] lets them finish what they are at.
#[derive(Default)]
pub(crate) struct Parts {
    gateways: Stage,
    /// Ends after the gateways, whose identities it renews.
    issuer: Stage,
    /// Ends last: requests that are drained end there.
    upstream: Stage,
}

/// Parts that end together.
#[derive(Default)]
struct Stage {
    tasks: JoinSet<Result<(), Failure>>,
    shutdown: CancellationToken,
}

pub(crate) struct RunningIssuer {
    pub(crate) grpc: SocketAddr,
    pub(crate) admin: SocketAddr,
    pub(crate) web: SocketAddr,
    pub(crate) certificate: PathBuf,
    pub(crate) requests: watch::Receiver<String>,
    pub(crate) trusted: watch::Receiver<BundleSet>,
    pub(crate) issued: broadcast::Receiver<Issued>,
    authority: watch::Receiver<AuthorityState>,
    phase: watch::Receiver<Phase>,
}

pub(crate) struct RunningGateway {
    pub(crate) address: SocketAddr,
    pub(crate) admin: SocketAddr,
    pub(crate) identity: Monitor,
}

impl Parts {
    pub(crate) async fn issuer(
        &mut self,
        file: &Path,
        clock: SharedClock,
        log: LogHandle,
    ) -> Result<RunningIssuer, Failure> {
        let config = identity_issuer::Config::load(file).map_err(|error| Failure::from_error(&error))?;
        let environment = Environment { clock, log: Some(log) };
        let (announce, announced) = oneshot::channel();
        // The receiver is gone only when this start is given up.
        let announce = move |started| drop(announce.send(started));
        let shutdown = self.issuer.shutdown.clone();
        self.issuer.spawn("the issuer", identity_issuer::run(config, environment, announce, shutdown));
        let started: identity_issuer::Started = self.issuer.started(announced).await?;
        Ok(RunningIssuer {
            grpc: started.grpc,
            admin: started.admin,
            web: started.web.plain,
            certificate: started.certificate,
            requests: started.requests,
            trusted: started.trusted,
            issued: started.issued,
            authority: started.authority,
            phase: started.phase,
        })
    }

    /// Starts a gateway of one listener and waits until it serves.
    pub(crate) async fn gateway(&mut self, file: &Path, log: LogHandle) -> Result<RunningGateway, Failure> {
        let config = Gateway::load(file).map_err(|error| Failure::from_error(&error))?;
        let (announce, announced) = oneshot::channel();
        let shutdown = self.gateways.shutdown.clone();
        self.gateways.spawn("a gateway", signet_gateway::run(config, Some(log), announce, shutdown));
        let started = self.gateways.started(announced).await?;
        let Some((name, address)) = started.listeners.first() else {
            return Err(Failure::new(format!("{}: no listener", file.display())));
        };
        if timeout(PATIENCE, ready(&started.readiness)).await.is_err() {
            let reasons: Vec<_> = started.readiness.reasons().into_iter().map(|(_, reason)| reason).collect();
            return Err(Failure::new(format!("gateway `{name}` is not ready: {}", reasons.join(", ")))
                .remedy(format!("see more with --log info, or ask `curl http://{}/ready`", started.admin)));
        }
        Ok(RunningGateway { address: *address, admin: started.admin, identity: started.identity })
    }

    /// Ends with the issuer.
    pub(crate) fn ceremony(&mut self, ceremony: Ceremony, issuer: &RunningIssuer) {
        let (requests, trusted) = (issuer.requests.clone(), issuer.trusted.clone());
        let shutdown = self.issuer.shutdown.clone();
        self.issuer.tasks.spawn(async move {
            // None: it was cancelled.
            let _ = shutdown.run_until_cancelled(ceremony.run(requests, trusted)).await;
            Ok(())
        });
    }

    pub(crate) fn echo(&mut self, echo: Echo) {
        let shutdown = self.upstream.shutdown.clone();
        self.upstream.tasks.spawn(async move {
            echo.serve(shutdown).await;
            Ok(())
        });
    }

    /// Waits until a part ends, which none does by itself.
    pub(crate) async fn failure(&mut self) -> Failure {
        tokio::select! {
            Some(failure) = self.gateways.failure() => failure,
            Some(failure) = self.issuer.failure() => failure,
            Some(failure) = self.upstream.failure() => failure,
            else => Failure::new("every part has ended"),
        }
    }

    /// Drains and ends everything; tells the first failure on the way.
    pub(crate) async fn end(mut self) -> Result<(), Failure> {
        let gateways = self.gateways.end().await;
        let issuer = self.issuer.end().await;
        let upstream = self.upstream.end().await;
        gateways.and(issuer).and(upstream)
    }
}

impl Stage {
    fn spawn<E: Error + 'static>(
        &mut self,
        name: &'static str,
        part: impl Future<Output = Result<(), E>> + Send + 'static,
    ) {
        self.tasks.spawn(async move {
            part.await.map_err(|error| {
                let failure = Failure::from_error(&error);
                failure.or_remedy(format!("see why {name} stopped with --log info, or begin anew with --fresh"))
            })
        });
    }

    /// What a part announces when it has started, or why it has ended instead.
    async fn started<T>(&mut self, announced: oneshot::Receiver<T>) -> Result<T, Failure> {
        match announced.await {
            Ok(started) => Ok(started),
            Err(_) => Err(self.failure().await.unwrap_or_else(|| Failure::new("a part ended at its start"))),
        }
    }

    /// Why a part of this stage has ended; none when it has no parts.
    async fn failure(&mut self) -> Option<Failure> {
        Some(match self.tasks.join_next().await? {
            Ok(Ok(())) => Failure::new("a part ended by itself"),
            Ok(Err(failure)) => failure,
            Err(broken) => Failure::from_error(&broken),
        })
    }

    async fn end(&mut self) -> Result<(), Failure> {
        self.shutdown.cancel();
        let mut outcome = Ok(());
        while let Some(ended) = self.tasks.join_next().await {
            outcome = outcome.and(ended.unwrap_or_else(|broken| Err(Failure::from_error(&broken))));
        }
        outcome
    }
}

impl RunningIssuer {
    /// Waits until it has its intermediate and serves. Fails at once when the intermediate does not do.
    pub(crate) async fn serving(&mut self) -> Result<(), Failure> {
        let certificate = &self.certificate;
        let refused = self.authority.wait_for(|state| matches!(state, AuthorityState::Refused { .. }));
        tokio::select! {
            serving = timeout(PATIENCE, self.phase.wait_for(|phase| *phase == Phase::Serving)) => match serving {
                Ok(Ok(_)) => Ok(()),
                Ok(Err(_)) => Err(Failure::new("the issuer ended at its start").remedy("see why with --log info")),
                Err(_) => Err(Failure::new("the issuer does not serve yet").remedy("see why with --log info")),
            },
            Ok(state) = refused => Err(match &*state {
                AuthorityState::Refused { reason } => damaged_by(reason),
                AuthorityState::Awaited { .. } | AuthorityState::Active => damaged(certificate, "not taken"),
            }),
        }
    }
}

async fn ready(readiness: &Readiness) {
    while !readiness.reasons().is_empty() {
        sleep(Duration::from_millis(20)).await;
    }
}
