//! `signet.admin.v1`, as far as it is about the keys that sign tokens.

use std::collections::BTreeSet;

use signet_proto::admin::v1::{
    JwtKey, ListJwtKeysResponse, RevocationReason, RevokeJwtKeyRequest, RotateJwtKeyRequest,
};
use tonic::Status;

use super::authorities::{parse_key, told};
use super::{comment, report, store_status, timestamp};
use crate::authority::{KeyName, Stage};
use crate::bundles::Bundles;
use crate::jwt::{Act, ActError, Insistence, JwtKeys, Listed, Readers};
use crate::policy::Actor;
use crate::revocation::Reason;
use crate::utc::microseconds;

/// What these calls are carried out by.
#[derive(Clone, Debug)]
pub(crate) struct JwtKeyCalls {
    /// None where no tokens are made.
    pub(crate) keys: Option<JwtKeys>,
    pub(crate) bundles: Bundles,
    pub(crate) readers: Readers,
}

impl JwtKeyCalls {
    pub(super) async fn list(&self) -> Result<ListJwtKeysResponse, Status> {
        let own = self.keys.as_ref().map(JwtKeys::list).unwrap_or_default();
        let is_own = |kid: &KeyName| own.iter().any(|listed| listed.kid == *kid);
        let published = self.readers.published();
        let others = published.iter().filter(|(kid, _)| !is_own(kid)).map(|(kid, algorithm)| JwtKey {
            kid: kid.to_string(),
            algorithm: (*algorithm).to_owned(),
            stage: "published".to_owned(),
            ..JwtKey::default()
        });
        let others: Vec<_> = others.collect();
        let rotation = self.keys.as_ref().and_then(JwtKeys::rotation);
        let acknowledgements = self.readers.acknowledgements().await.map_err(|error| store_status(&error))?;
        Ok(ListJwtKeysResponse {
            keys: own.into_iter().map(wire).chain(others).collect(),
            signs_at: rotation.map(|(_, at)| timestamp(at)),
            acknowledgements: Some(told(acknowledgements)),
        })
    }

    pub(super) async fn rotate(
        &self,
        request: RotateJwtKeyRequest,
        actor: &Actor,
    ) -> Result<ListJwtKeysResponse, Status> {
        let act = self.act(actor, request.comment)?;
        match request.dry_run {
            true => drop(self.keys()?),
            false => self.carry_out(move |keys| keys.rotate(act)).await?,
        }
        self.list().await
    }

    pub(super) async fn taint(&self, kid: &str, said: String, actor: &Actor) -> Result<ListJwtKeysResponse, Status> {
        let (kid, act) = (parse_key(kid, "kid", COMMAND)?, self.act(actor, said)?);
        self.carry_out(move |keys| keys.taint(&kid, act)).await?;
        self.list().await
    }

    pub(super) async fn revoke(
        &self,
        request: RevokeJwtKeyRequest,
        reason: Reason,
        actor: &Actor,
    ) -> Result<ListJwtKeysResponse, Status> {
        let RevokeJwtKeyRequest { kid, comment, dry_run, force, .. } = request;
        let (kid, act) = (parse_key(&kid, "kid", COMMAND)?, self.act(actor, comment)?);
        let insistence = if force { Insistence::Force } else { Insistence::Careful };
        let published: BTreeSet<_> = self.readers.published().into_iter().map(|(kid, _)| kid).collect();
        match dry_run {
            true => self.keys()?.check_revoke(&kid, insistence, &published).map_err(status)?,
            false => {
                let revoke = move |keys: &JwtKeys| keys.revoke(&kid, &reason.to_string(), act, insistence, &published);
                self.carry_out(revoke).await?;
            }
        }
        self.list().await
    }

    fn keys(&self) -> Result<&JwtKeys, Status> {
        let nothing = || Status::failed_precondition("this issuer makes no tokens: its configuration has no `jwt`");
        self.keys.as_ref().ok_or_else(nothing)
    }

    fn act(&self, actor: &Actor, said: String) -> Result<Act, Status> {
        let at = microseconds(self.readers.clock.now());
        Ok(Act { at, actor: actor.as_str().to_owned(), comment: comment(said)? })
    }

    /// Custody may take its time: not on a worker of the runtime.
    async fn carry_out(
        &self,
        act: impl FnOnce(&JwtKeys) -> Result<(), ActError> + Send + 'static,
    ) -> Result<(), Status> {
        let keys = self.keys()?.clone();
        let done = tokio::task::spawn_blocking(move || act(&keys)).await;
        done.map_err(|_| Status::internal("work on the keys of tokens broke off"))?.map_err(status)?;
        // Whoever is answered finds it in force.
        self.keys()?.tell(&self.bundles, &self.readers.trust_domain);
        Ok(())
    }
}

const COMMAND: &str = "signet get jwt-keys";

/// There has to be one.
pub(super) fn reason_of(number: i32) -> Result<Reason, Status> {
    let reason = Reason::of_number(number.into());
    reason.ok_or_else(|| Status::invalid_argument("reason: missing, or unknown; nothing is revoked without one"))
}

fn wire(listed: Listed) -> JwtKey {
    let Listed { kid, algorithm, stage, since, not_after, act, reason } = listed;
    let reason = reason.and_then(|reason| Reason::ALL.into_iter().find(|known| known.as_str() == reason));
    let number = reason.and_then(|reason| i32::try_from(reason.number()).ok()).unwrap_or_default();
    let (actor, comment) = act.map(|act| (act.actor, act.comment)).unwrap_or_default();
    JwtKey {
        kid: kid.to_string(),
        algorithm: algorithm.map(|algorithm| algorithm.as_str().to_owned()).unwrap_or_default(),
        stage: stage.label().to_owned(),
        since: since.map(timestamp),
        not_after: not_after.map(timestamp),
        own: stage != Stage::Revoked || algorithm.is_some(),
        actor,
        comment,
        reason: RevocationReason::try_from(number).unwrap_or_default().into(),
    }
}

fn status(error: ActError) -> Status {
    let text = report(&error);
    match error {
        ActError::Unknown { .. } => Status::not_found(format!("kid: {error}")),
        ActError::Already { .. } | ActError::Signs { .. } | ActError::UnderWay => Status::failed_precondition(text),
        ActError::TooMany => Status::resource_exhausted(text),
        ActError::Keys(_) => {
            tracing::error!(cause = text, "keys of tokens are not changed");
            Status::unavailable(text)
        }
    }
}
