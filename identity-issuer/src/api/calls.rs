//! Administrative calls: whether whoever makes one may, and what is written down of it.

use signet_audit::{Act, Text};
use signet_proto::admin::v1::{ApplyPolicyResponse, RevokeResponse};
use tokio::sync::OwnedSemaphorePermit;
use tonic::{Request, Response, Status};

use super::doorkeeper::Admitted;
use super::naming::{Naming, listed};
use super::revocations::Revoked;
use super::store_status;
use super::unattended::Attention;
use crate::administration::{Permissions, Role, Target};
use crate::agents::Agents;
use crate::revocation::Reason;
use crate::server::Caller;

/// One call that was let in. One whose caller leaves before its end is written down too: what it began may be carried out.
#[derive(Debug)]
pub(super) struct Call {
    pub(super) permissions: Permissions,
    action: &'static str,
    target: String,
    written: bool,
    /// For which reason, and how many certificates.
    revoked: Option<(Reason, u64)>,
    /// Until it ends.
    pub(super) place: Admitted,
    /// Of what is only read.
    pub(super) turn: Option<OwnedSemaphorePermit>,
}

impl Call {
    /// Begins a call over `about`, if whoever makes it has the role for the target that it needs, and has not lost its standing.
    pub(super) async fn admit<T: Naming>(
        agents: &Agents,
        request: &Request<T>,
        action: &'static str,
        (role, needed_for): (Role, Target<'_>),
        about: Target<'_>,
    ) -> Result<Self, Status> {
        if let Some(attention) = request.extensions().get::<Attention>() {
            attention.give();
        }
        let admitted = request.extensions().get::<Admitted>();
        let place = admitted.ok_or_else(|| Status::internal("a call without a caller"))?.clone();
        let permissions = place.permissions().clone();
        let target = match (request.get_ref().named(), about) {
            (Some(named), Target::Path(_)) => format!("{named}, {about}"),
            (Some(named), Target::Issuer | Target::Everything) => named,
            (None, _) => about.to_string(),
        };
        let mut call = Self { permissions, action, target, written: false, revoked: None, place, turn: None };
        match call.may(agents, request.extensions().get(), role, needed_for).await {
            Ok(()) if role == Role::Viewer || action.ends_with(DRY_RUN) => Ok(call),
            Ok(()) => {
                let act = Act::Administered {
                    actor: call.permissions.actor.as_str().to_owned(),
                    action: action.to_owned(),
                    target: Text::from(call.target.as_str()),
                };
                // Before it has an effect.
                match agents.store.note(act).await {
                    Ok(()) => Ok(call),
                    Err(error) => Err(call.refuse(store_status(&error))),
                }
            }
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
            agents.standing(peer).await?;
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

    /// Ends a change of the policy: what it is about are rules.
    pub(super) fn changed(
        mut self,
        outcome: Result<ApplyPolicyResponse, Status>,
    ) -> Result<Response<ApplyPolicyResponse>, Status> {
        if let Ok(ApplyPolicyResponse { revision, changes, .. }) = &outcome {
            self.target = match changes.is_empty() {
                true => format!("no rule, revision {revision}"),
                false => {
                    let rules = listed(changes.iter().map(|change| change.rule.as_str()));
                    format!("rules {rules}, revision {revision}")
                }
            };
        }
        self.end(outcome)
    }

    /// Ends a revocation: how many certificates it came to, and why, is written down too.
    pub(super) fn revoked(mut self, outcome: Result<Revoked, Status>) -> Result<Response<RevokeResponse>, Status> {
        let outcome = outcome.map(|Revoked { told, reason }| {
            self.revoked = Some((reason, told.certificates));
            told
        });
        self.end(outcome)
    }

    /// Why something is revoked that is no certificate.
    pub(super) fn because(&mut self, reason: Reason) {
        self.revoked = Some((reason, 0));
    }

    /// Ends it with a refusal.
    pub(super) fn refuse(mut self, status: Status) -> Status {
        self.write_down(&format!("refused: {}", status.message()));
        status
    }

    /// Who did what to what, and how it went.
    fn write_down(&mut self, outcome: &str) {
        self.written = true;
        let Self { permissions, action, target, revoked, .. } = self;
        write_down(permissions.actor.as_str(), action, target, outcome, *revoked, 0);
    }
}

/// The event of a call: who did what to what, and how it went; what was revoked by it; and of how many before it nothing was written.
pub(super) fn write_down(
    actor: &str,
    action: &str,
    target: &str,
    outcome: &str,
    revoked: Option<(Reason, u64)>,
    suppressed: u64,
) {
    let outcome = &outcome[..outcome.floor_char_boundary(MAX_OUTCOME)];
    let suppressed = (suppressed > 0).then_some(suppressed);
    let (reason, certificates) = revoked.map(|(reason, count)| (reason.to_string(), count)).unzip();
    tracing::info!(target: signet_process::logging::ADMINISTRATION, actor, action, target, outcome, reason, certificates, suppressed, "administration");
}

impl Drop for Call {
    fn drop(&mut self) {
        if !self.written {
            self.write_down("its caller left before the end");
        }
    }
}

/// What the name of an action ends with that changes nothing.
const DRY_RUN: &str = "(dry run)";
/// In bytes. A refusal may repeat what the caller wrote.
const MAX_OUTCOME: usize = 1024;
