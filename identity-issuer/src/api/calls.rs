//! Administrative calls: who makes them, whether they may, and what is written down of each.

use std::sync::Arc;

use signet_identity::SharedClock;
use signet_process::log_limit::LogLimit;
use tonic::service::Interceptor;
use tonic::{Request, Response, Status};

use super::identity::serial_of;
use crate::administration::{Administrators, Permissions, Role, Target};
use crate::agents::Agents;
use crate::server::Caller;

/// Lets nobody near a request who has no role at all: such a caller's message is not even read.
#[derive(Clone, Debug)]
pub(crate) struct Doorkeeper {
    pub(super) administrators: Administrators,
    pub(super) clock: SharedClock,
    /// Any workload may knock.
    pub(super) knocks: Arc<LogLimit>,
}

impl Interceptor for Doorkeeper {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        let caller = request.extensions().get::<Caller>();
        let caller = caller.ok_or_else(|| Status::internal("a connection without a caller"))?;
        let permissions = match (&caller.peer, caller.local_user) {
            (Some(peer), _) if self.clock.now() > peer.expires_at() => {
                return Err(Status::unauthenticated("the client certificate has expired"));
            }
            (Some(peer), _) => self.administrators.peer(peer.id()).ok_or_else(|| peer.id().to_string()),
            (None, Some(user)) => self.administrators.user(user).ok_or_else(|| format!("uid:{user}")),
            (None, None) => return Err(Status::unauthenticated("a client certificate is needed")),
        };
        let permissions = permissions.map_err(|actor| {
            if let Some(suppressed) = self.knocks.admit() {
                tracing::info!(actor, outcome = "refused: it has no role", suppressed, "administration");
            }
            Status::permission_denied(format!("{actor} has no role at this issuer"))
        })?;
        request.extensions_mut().insert(permissions);
        Ok(request)
    }
}

/// One call that was let in. One whose caller leaves before its end is written down too: what it began may be carried out.
#[derive(Debug)]
pub(super) struct Call {
    pub(super) permissions: Permissions,
    action: &'static str,
    target: String,
    written: bool,
}

impl Call {
    /// Begins a call that needs `role` for `target`, if whoever makes it has that and has not lost its standing.
    pub(super) async fn admit<T>(
        agents: &Agents,
        request: &Request<T>,
        action: &'static str,
        role: Role,
        target: Target<'_>,
    ) -> Result<Self, Status> {
        let permissions = request.extensions().get::<Permissions>();
        let permissions = permissions.ok_or_else(|| Status::internal("a call without a caller"))?.clone();
        let mut call = Self { permissions, action, target: target.to_string(), written: false };
        match call.may(agents, request.extensions().get(), role, target).await {
            Ok(()) => Ok(call),
            Err(status) => {
                call.write_down(&format!("refused: {}", status.message()));
                Err(status)
            }
        }
    }

    async fn may(
        &self,
        agents: &Agents,
        caller: Option<&Caller>,
        role: Role,
        target: Target<'_>,
    ) -> Result<(), Status> {
        if let Some(peer) = caller.and_then(|caller| caller.peer.as_ref()) {
            agents.standing(peer.id(), &serial_of(peer)).await?;
        }
        self.permissions.need(role, target).map_err(|denied| Status::permission_denied(denied.to_string()))
    }

    /// Ends it: how, is written down.
    pub(super) fn end<T>(mut self, outcome: Result<T, Status>) -> Result<Response<T>, Status> {
        match &outcome {
            Ok(_) => self.write_down("done"),
            Err(status) => self.write_down(&format!("refused: {}", status.message())),
        }
        outcome.map(Response::new)
    }

    /// Ends it with a refusal.
    pub(super) fn refuse(mut self, status: Status) -> Status {
        self.write_down(&format!("refused: {}", status.message()));
        status
    }

    /// Who did what to what, and how it went.
    fn write_down(&mut self, outcome: &str) {
        self.written = true;
        let Self { permissions, action, target, .. } = self;
        tracing::info!(actor = permissions.actor.as_str(), action, target, outcome, "administration");
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        if !self.written {
            self.write_down("its caller left before the end");
        }
    }
}
