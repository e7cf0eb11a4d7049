//! `signet.admin.v1`, as far as it is about authorities, and how one follows the other.

use std::sync::Arc;

use signet_identity::{TrustBundle, TrustDomain};
use signet_proto::admin::v1::{
    self as wire, Acknowledgements, AuthorityDetail, AuthorityRotation, ImportAuthoritiesResponse,
    ListAuthoritiesResponse, RequestAuthoritiesRequest, RequestAuthoritiesResponse, RootRotation, RotateRequest,
    RotationStatus, RotationStep, TaintAuthorityResponse, Unacknowledged, rotate_request::What,
};
use time::OffsetDateTime;
use tonic::Status;

use super::{comment, report, store_status, timestamp};
use crate::authority::{
    Authorities, Authority, AuthorityError, ImportError, KeyName, Member, Rotation, Stage, StepError,
};
use crate::lives::Cut;
use crate::policy::{Actor, Policies};
use crate::rotation::{BeginError, Missing, Rotations, StepState, TaintError, Wanted};
use crate::store::Store;
use crate::utc::of_microseconds;

/// What these calls are carried out by.
#[derive(Clone, Debug)]
pub(crate) struct AuthorityCalls {
    pub(crate) rotations: Rotations,
    pub(crate) policies: Policies,
    pub(crate) store: Store,
    pub(crate) trust_domain: TrustDomain,
}

const COMMAND: &str = "signet get authorities";
/// Of requests at once.
const MOST_REQUESTS: u32 = 16;
/// Of clients that have not acknowledged.
const MOST_MISSING: usize = 100;

impl AuthorityCalls {
    /// The one that signs now.
    pub(super) fn active(&self) -> Option<Arc<Authority>> {
        self.authorities().active()
    }

    /// What it does not sign for as long as the policy says.
    pub(super) fn cut(&self) -> Option<Cut> {
        self.active().map(|authority| Cut::of(&self.policies.current(), &authority))
    }

    /// How many are ready to follow it.
    pub(super) fn successors(&self) -> u32 {
        u32::try_from(self.rotations.ready().len()).unwrap_or(u32::MAX)
    }

    fn authorities(&self) -> &Authorities {
        self.rotations.authorities()
    }

    pub(super) async fn list(&self, now: OffsetDateTime) -> Result<ListAuthoritiesResponse, Status> {
        Ok(ListAuthoritiesResponse { authorities: self.details(self.authorities().all(), now).await? })
    }

    async fn details(&self, members: Vec<Member>, now: OffsetDateTime) -> Result<Vec<AuthorityDetail>, Status> {
        let live = self.store.live_by_authority(now).await.map_err(|error| store_status(&error))?;
        let detail = |member: Member| {
            let authority = member.authority.as_ref();
            let key_id = authority.map(|authority| authority.key_id());
            AuthorityDetail {
                key: member.name().to_string(),
                stage: member.stage.label().to_owned(),
                since: Some(timestamp(member.since)),
                key_id: key_id.map(ToString::to_string).unwrap_or_default(),
                not_before: authority.map(|authority| timestamp(authority.not_before())),
                not_after: authority.map(|authority| timestamp(authority.not_after())),
                live_certificates: key_id.and_then(|id| live.get(id.as_bytes())).copied().unwrap_or_default(),
                request_pem: member.request().to_owned(),
                certificates_pem: authority.map(|authority| authority.chain_pem()).unwrap_or_default(),
                longest_life: authority
                    .and_then(|authority| prost_types::Duration::try_from(authority.longest_leaf()).ok()),
            }
        };
        Ok(members.into_iter().map(detail).collect())
    }

    /// Custody may take its time: not on a worker of the runtime.
    pub(super) async fn request(
        &self,
        request: &RequestAuthoritiesRequest,
    ) -> Result<RequestAuthoritiesResponse, Status> {
        let RequestAuthoritiesRequest { count, discard } = request;
        let count = *count;
        if !(1..=MOST_REQUESTS).contains(&count) {
            return Err(Status::invalid_argument(format!("count: {count}; there are 1 to {MOST_REQUESTS}")));
        }
        if discard.len() > MOST_REQUESTS as usize {
            return Err(Status::invalid_argument(format!("discard: more than {MOST_REQUESTS}")));
        }
        let discard = discard.iter().map(|key| parse_key(key, "discard", COMMAND)).collect::<Result<Vec<_>, _>>()?;
        let authorities = self.authorities().clone();
        let made = tokio::task::spawn_blocking(move || {
            authorities.discard(&discard)?;
            authorities.request(count as usize)?;
            Ok(authorities.requests().borrow().clone())
        });
        let requests_pem = made.await.map_err(|_| Status::internal("making keys broke off"))?.map_err(step)?;
        let count = requests_pem.matches("-----BEGIN").count();
        Ok(RequestAuthoritiesResponse { requests_pem, count: u32::try_from(count).unwrap_or(u32::MAX) })
    }

    pub(super) async fn import(
        &self,
        pem: &str,
        bundle: Option<TrustBundle>,
        now: OffsetDateTime,
    ) -> Result<ImportAuthoritiesResponse, Status> {
        let bundle = bundle.ok_or_else(|| Status::failed_precondition("there is no trust bundle"))?;
        let imported = self.authorities().import(pem.as_bytes(), &bundle).map_err(|error| match error {
            ImportError::Intermediate(error) => Status::invalid_argument(format!("certificates_pem: {error}")),
            ImportError::Step(error) => step(error),
            ImportError::Keep(error) => kept(error),
        })?;
        let members = self.authorities().all().into_iter();
        let members = members.filter(|member| imported.iter().any(|imported| imported.name == member.name()));
        let members: Vec<_> = members.collect();
        let policy = self.policies.current();
        let cut = members.iter().filter_map(|member| Some(Cut::of(&policy, member.authority.as_deref()?)));
        // Signed in one ceremony, they have one life.
        let mut warnings: Vec<_> = cut.filter_map(|cut| cut.warning()).collect();
        warnings.dedup();
        let over = members.iter().filter(|member| member.stage == Stage::Revoked);
        warnings.extend(over.map(|member| format!("{} is given up or revoked: it will not sign", member.name())));
        Ok(ImportAuthoritiesResponse { authorities: self.details(members, now).await?, warnings })
    }

    pub(super) async fn rotate(
        &self,
        request: RotateRequest,
        actor: &Actor,
        now: OffsetDateTime,
    ) -> Result<RotationStatus, Status> {
        let RotateRequest { what, dry_run, override_acknowledgements, comment: said } = request;
        let comment = comment(said)?;
        let wanted = self.wanted(what)?;
        if dry_run {
            self.rotations.check(&wanted).map_err(begin)?;
            return self.status(Some(&wanted), now).await;
        }
        self.rotations.begin(&wanted, actor, &comment, override_acknowledgements).map_err(begin)?;
        self.status(None, now).await
    }

    fn wanted(&self, what: Option<What>) -> Result<Wanted, Status> {
        match what {
            None => Err(Status::invalid_argument("what: missing")),
            Some(What::Authority(AuthorityRotation { successor })) => match successor.as_str() {
                "" => Ok(Wanted::Authority(None)),
                name => parse_key(name, "authority.successor", COMMAND).map(|name| Wanted::Authority(Some(name))),
            },
            Some(What::Root(RootRotation { root_pem })) => {
                let wrong = |what: String| Status::invalid_argument(format!("root.root_pem: {what}"));
                let roots = crate::bundles::read(self.trust_domain.clone(), root_pem.as_bytes()).map_err(wrong)?;
                Ok(Wanted::Root(roots))
            }
        }
    }

    pub(super) async fn status(&self, plan: Option<&Wanted>, now: OffsetDateTime) -> Result<RotationStatus, Status> {
        let store = |error| store_status(&error);
        let rotation = self.rotations.under_way();
        let acknowledgements = self.rotations.acknowledgements().await.map_err(store)?;
        let active = self.authorities().inspect(|kept| kept.active().cloned());
        let named = match plan {
            Some(Wanted::Authority(Some(name))) => self.authorities().inspect(|kept| kept.get(name).cloned()),
            Some(Wanted::Root(_)) => None,
            Some(Wanted::Authority(None)) | None => self.rotations.successor(),
        };
        let one = async |member: Option<Member>| {
            Ok::<_, Status>(self.details(member.into_iter().collect(), now).await?.pop())
        };
        let steps = self.rotations.steps(plan).await.map_err(store)?;
        let step = |step: crate::rotation::Step| RotationStep {
            description: step.description,
            state: match step.state {
                StepState::Done => "done",
                StepState::Now => "now",
                StepState::ToCome => "to come",
            }
            .to_owned(),
        };
        Ok(RotationStatus {
            rotation: rotation.map(|rotation| self.rotation(rotation)),
            active: one(active).await?,
            successor: one(named).await?,
            acknowledgements: Some(told(acknowledgements)),
            steps: steps.into_iter().map(step).collect(),
        })
    }

    fn rotation(&self, rotation: Rotation) -> wire::Rotation {
        let patience = self.rotations.patience();
        let told_at = rotation.told_at.and_then(of_microseconds);
        wire::Rotation {
            kind: if rotation.root.is_some() { "root" } else { "authority" }.to_owned(),
            begun_at: of_microseconds(rotation.begun_at).map(timestamp),
            actor: rotation.actor,
            deadline: told_at.map(|at| timestamp(at + patience.deadline)),
            quorum: patience.quorum.into(),
            overridden_by: rotation.overridden_by.unwrap_or_default(),
        }
    }

    pub(super) fn cancel(&self) -> Result<(), Status> {
        match self.rotations.cancel().map_err(kept)? {
            true => Ok(()),
            false => Err(Status::failed_precondition("no rotation is under way")),
        }
    }

    pub(super) async fn taint(&self, key: &str, said: String) -> Result<TaintAuthorityResponse, Status> {
        let comment = comment(said)?;
        let name = parse_key(key, "key", COMMAND)?;
        let (live_certificates, clients, within) = self.rotations.taint(&name).await.map_err(|error| match error {
            TaintError::Step(error) => step(error),
            TaintError::Store(error) => store_status(&error),
        })?;
        tracing::info!(authority = %name, comment, live_certificates, clients, ?within, "authority tainted");
        Ok(TaintAuthorityResponse {
            live_certificates,
            clients: u32::try_from(clients).unwrap_or(u32::MAX),
            within: prost_types::Duration::try_from(within).ok(),
        })
    }
}

/// `command`: by which whoever asks finds it.
pub(super) fn parse_key(text: &str, field: &str, command: &str) -> Result<KeyName, Status> {
    KeyName::parse(text)
        .ok_or_else(|| Status::invalid_argument(format!("{field}: 40 hexadecimal digits, as `{command}` has them")))
}

pub(super) fn told(acknowledgements: crate::rotation::Acknowledgements) -> Acknowledgements {
    let missing = acknowledgements.missing.len();
    let count = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
    Acknowledgements {
        connected: count(acknowledgements.connected),
        acknowledged: count(acknowledgements.connected - missing),
        missing: acknowledgements.missing.into_iter().take(MOST_MISSING).map(unacknowledged).collect(),
    }
}

fn unacknowledged(missing: Missing) -> Unacknowledged {
    let Missing { acknowledgement, elsewhere } = missing;
    Unacknowledged {
        agent: u64::try_from(acknowledgement.agent.0).unwrap_or_default(),
        spiffe_id: acknowledgement.id.to_string(),
        refused: acknowledgement.refused,
        connected_to: elsewhere.unwrap_or_default(),
    }
}

fn step(error: StepError) -> Status {
    match error {
        StepError::Unknown { .. } => Status::not_found(error.to_string()),
        StepError::Stage { .. } | StepError::Rotating { .. } | StepError::OtherKeyId { .. } => {
            Status::failed_precondition(error.to_string())
        }
        StepError::Keep(error) => kept(error),
    }
}

fn begin(error: BeginError) -> Status {
    match error {
        BeginError::Root(_) => Status::invalid_argument(error.to_string()),
        BeginError::NotPrepared(_) => Status::not_found(error.to_string()),
        BeginError::UnderWay | BeginError::NoAuthority | BeginError::NoSuccessor => {
            Status::failed_precondition(error.to_string())
        }
        BeginError::Keep(error) => kept(error),
    }
}

/// What is wrong with the issuer's own files is told to its operators.
fn kept(error: AuthorityError) -> Status {
    let text = report(&error);
    match error {
        AuthorityError::TooMany => Status::resource_exhausted(text),
        AuthorityError::Custody(_) | AuthorityError::Write { .. } => {
            tracing::error!(cause = text, "authorities are not changed");
            Status::unavailable(text)
        }
        AuthorityError::Journal { .. } | AuthorityError::MakeRequest(_) => Status::internal(text),
    }
}
