//! `signet.admin.v1`: what operators ask for, on this machine and over mTLS.

use std::sync::Arc;
use std::time::Duration;

use signet_identity::{SharedClock, TrustDomain, WorkloadId};
use signet_proto::admin::v1::admin_service_server::{AdminService, AdminServiceServer};
use signet_proto::admin::v1::{
    AddFederationRequest, Federation as FederationDetail, ListFederationsRequest, ListFederationsResponse,
    RefreshFederationRequest, RemoveFederationRequest, RemoveFederationResponse,
};
use signet_proto::admin::v1::{
    ApplyPolicyRequest, ApplyPolicyResponse, AuditReportRequest, Authority, BackupRequest, BanRequest, BanResponse,
    CreateJoinTokenRequest, CreateJoinTokenResponse, EvictAgentsRequest, EvictAgentsResponse, ExplainPolicyRequest,
    ExplainPolicyResponse, ForgetIssuerRequest, ForgetIssuerResponse, GetPolicyRequest, GetPolicyResponse,
    GetRevocationProgressRequest, GetRevocationProgressResponse, GetStatusRequest, GetStatusResponse,
    ListAgentsRequest, ListAgentsResponse, ListBansRequest, ListBansResponse, ListBundlesRequest, ListBundlesResponse,
    ListPolicyRevisionsRequest, ListPolicyRevisionsResponse, ListRevocationsRequest, ListRevocationsResponse,
    RequestRenewalRequest, RequestRenewalResponse, RevokeRequest, RevokeResponse, RollbackPolicyRequest, UnbanRequest,
    UnbanResponse,
};
use signet_proto::admin::v1::{
    CancelRotationRequest, CancelRotationResponse, GetRotationRequest, ImportAuthoritiesRequest,
    ImportAuthoritiesResponse, ListAuthoritiesRequest, ListAuthoritiesResponse, RequestAuthoritiesRequest,
    RequestAuthoritiesResponse, RotateRequest, RotationStatus, TaintAuthorityRequest, TaintAuthorityResponse,
};
use signet_proto::admin::v1::{GetSvidRequest, ListSvidsRequest, ListSvidsResponse, SvidDetails};
use signet_proto::admin::v1::{
    ListJwtKeysRequest, ListJwtKeysResponse, RevokeJwtKeyRequest, RotateJwtKeyRequest, TaintJwtKeyRequest,
};
use tonic::service::Routes;
use tonic::service::interceptor::InterceptedService;
use tonic::{Code, Request, Response, Status};

use super::authorities::AuthorityCalls;
use super::calls::Call;
use super::doorkeeper::{Bounded, Doorkeeper, MAX_POLICY, Places};
use super::explanation::Explaining;
use super::jwt_keys::{JwtKeyCalls, reason_of};
use super::naming::Naming;
use super::revocations::Revoking;
use super::unattended::Unattended;
use super::{
    agents, backups, bundles, companions, federation, parse_own_id, policy, reports, revocations, span, store_status,
    svids, timestamp,
};
use crate::administration::{Administrators, Role, Target};
use crate::admission::Admission;
use crate::agents::Agents;
use crate::attestation::JoinTokens;
use crate::audit::Reports;
use crate::backup::Backups;
use crate::bundles::Shared;
use crate::certificate::is_reserved;
use crate::distribution::Distribution;
use crate::federation::Federation;
use crate::policy::{Actor, Policies};
use crate::revocation::Revoker;
use crate::store::{NewRenewalRequest, Store, Whose};

#[derive(Debug)]
pub(crate) struct AdminApi {
    pub(crate) trust_domain: TrustDomain,
    pub(crate) administrators: Administrators,
    pub(crate) join_tokens: JoinTokens,
    pub(crate) authorities: AuthorityCalls,
    pub(crate) jwt_keys: JwtKeyCalls,
    pub(crate) distribution: Distribution,
    pub(crate) policies: Policies,
    pub(crate) agents: Agents,
    pub(crate) revoker: Revoker,
    pub(crate) bundles: Shared,
    pub(crate) federation: Federation,
    pub(crate) admission: Admission,
    pub(crate) backups: Backups,
    pub(crate) reports: Reports,
    pub(crate) store: Store,
    pub(crate) clock: SharedClock,
}

const DEFAULT_TOKEN_TTL: Duration = Duration::from_secs(10 * 60);
const MAX_TOKEN_TTL: Duration = Duration::from_secs(24 * 3600);
const MAX_SPREAD: Duration = Duration::from_secs(24 * 3600);

/// Behind the doorkeeper; at each address where it is served.
pub(crate) type GuardedAdmin = Unattended<InterceptedService<Bounded<AdminServiceServer<AdminApi>>, Doorkeeper>>;

impl AdminApi {
    pub(crate) fn guarded(self: Arc<Self>) -> GuardedAdmin {
        let administrators = self.administrators.clone();
        let doorkeeper = Doorkeeper {
            administrators: administrators.clone(),
            admission: self.admission.clone(),
            clock: self.clock.clone(),
            places: Places::default(),
        };
        let service = AdminServiceServer::from_arc(self).max_decoding_message_size(MAX_POLICY);
        let service = InterceptedService::new(Bounded(service), doorkeeper);
        Unattended { service, administrators, knocks: Arc::default() }
    }

    /// For the local socket, where nothing else is served.
    pub(crate) async fn routes(admin: GuardedAdmin) -> Result<Routes, tonic_reflection::server::Error> {
        let (health, reflection) = companions::<AdminServiceServer<Self>>().await?;
        Ok(Routes::new(admin).add_service(health).add_service(reflection).prepare())
    }

    async fn admit<T: Naming>(
        &self,
        request: &Request<T>,
        action: &'static str,
        role: Role,
        target: Target<'_>,
    ) -> Result<Call, Status> {
        let mut call = Call::admit(&self.agents, request, action, (role, target), target).await?;
        if role == Role::Viewer {
            call.turn = self.admission.read(|| self.store.has_line()).await;
        }
        Ok(call)
    }

    /// The same for a call that decides over an identity.
    async fn admit_over<T: Naming>(
        &self,
        request: &Request<T>,
        action: &'static str,
        id: &str,
    ) -> Result<(Call, WorkloadId), Status> {
        self.admit_id(request, action, self.grantable_id(id)).await
    }

    /// A call about what is no identity is written down too.
    async fn admit_id<T: Naming>(
        &self,
        request: &Request<T>,
        action: &'static str,
        id: Result<WorkloadId, Status>,
    ) -> Result<(Call, WorkloadId), Status> {
        match id {
            Ok(id) => {
                // Whoever decides over an identity that a role is bound to decides over the role.
                let path = Target::Path(id.path());
                let needed = match self.administrators.is_bound(&id) {
                    true => (Role::Administrator, Target::Everything),
                    false => (Role::Operator, path),
                };
                Ok((Call::admit(&self.agents, request, action, needed, path).await?, id))
            }
            Err(status) => Err(self.admit(request, action, Role::Viewer, Target::Issuer).await?.refuse(status)),
        }
    }

    /// An ID that a workload may have: in our trust domain, and none of the issuer's own.
    fn grantable_id(&self, text: &str) -> Result<WorkloadId, Status> {
        let id = parse_own_id(text, "spiffe_id", &self.trust_domain)?;
        if is_reserved(&id) {
            return Err(Status::invalid_argument(format!("spiffe_id: {id} is reserved for the issuer itself")));
        }
        Ok(id)
    }
}

#[tonic::async_trait]
impl AdminService for AdminApi {
    async fn create_join_token(
        &self,
        request: Request<CreateJoinTokenRequest>,
    ) -> Result<Response<CreateJoinTokenResponse>, Status> {
        let (call, id) = self.admit_over(&request, "CreateJoinToken", &request.get_ref().spiffe_id).await?;
        let actor = call.permissions.actor.clone();
        call.end(self.create_token(id, request.into_inner().ttl, actor).await)
    }

    async fn list_authorities(
        &self,
        request: Request<ListAuthoritiesRequest>,
    ) -> Result<Response<ListAuthoritiesResponse>, Status> {
        let call = self.admit(&request, "ListAuthorities", Role::Viewer, Target::Issuer).await?;
        call.end(self.authorities.list(self.clock.now()).await)
    }

    async fn request_authorities(
        &self,
        request: Request<RequestAuthoritiesRequest>,
    ) -> Result<Response<RequestAuthoritiesResponse>, Status> {
        let call = self.admit(&request, "RequestAuthorities", Role::Administrator, Target::Everything).await?;
        call.end(self.authorities.request(request.get_ref()).await)
    }

    async fn import_authorities(
        &self,
        request: Request<ImportAuthoritiesRequest>,
    ) -> Result<Response<ImportAuthoritiesResponse>, Status> {
        let call = self.admit(&request, "ImportAuthorities", Role::Administrator, Target::Everything).await?;
        let bundle = self.bundles.own(&self.trust_domain);
        let pem = &request.get_ref().certificates_pem;
        call.end(self.authorities.import(pem, bundle, self.clock.now()).await)
    }

    async fn rotate(&self, request: Request<RotateRequest>) -> Result<Response<RotationStatus>, Status> {
        let action = if request.get_ref().dry_run { "Rotate (dry run)" } else { "Rotate" };
        let call = self.admit(&request, action, Role::Administrator, Target::Everything).await?;
        let actor = call.permissions.actor.clone();
        call.end(self.authorities.rotate(request.into_inner(), &actor, self.clock.now()).await)
    }

    async fn get_rotation(&self, request: Request<GetRotationRequest>) -> Result<Response<RotationStatus>, Status> {
        // It names those who have not acknowledged, wherever they are.
        let call = self.admit(&request, "GetRotation", Role::Viewer, Target::Everything).await?;
        call.end(self.authorities.status(None, self.clock.now()).await)
    }

    async fn cancel_rotation(
        &self,
        request: Request<CancelRotationRequest>,
    ) -> Result<Response<CancelRotationResponse>, Status> {
        let call = self.admit(&request, "CancelRotation", Role::Administrator, Target::Everything).await?;
        call.end(self.authorities.cancel().map(|()| CancelRotationResponse {}))
    }

    async fn taint_authority(
        &self,
        request: Request<TaintAuthorityRequest>,
    ) -> Result<Response<TaintAuthorityResponse>, Status> {
        let call = self.admit(&request, "TaintAuthority", Role::Administrator, Target::Everything).await?;
        let TaintAuthorityRequest { key, comment } = request.into_inner();
        call.end(self.authorities.taint(&key, comment).await)
    }

    async fn list_jwt_keys(
        &self,
        request: Request<ListJwtKeysRequest>,
    ) -> Result<Response<ListJwtKeysResponse>, Status> {
        // It names those who have not acknowledged, wherever they are.
        let call = self.admit(&request, "ListJwtKeys", Role::Viewer, Target::Everything).await?;
        call.end(self.jwt_keys.list().await)
    }

    async fn rotate_jwt_key(
        &self,
        request: Request<RotateJwtKeyRequest>,
    ) -> Result<Response<ListJwtKeysResponse>, Status> {
        let action = if request.get_ref().dry_run { "RotateJwtKey (dry run)" } else { "RotateJwtKey" };
        let call = self.admit(&request, action, Role::Administrator, Target::Everything).await?;
        let actor = call.permissions.actor.clone();
        call.end(self.jwt_keys.rotate(request.into_inner(), &actor).await)
    }

    async fn taint_jwt_key(
        &self,
        request: Request<TaintJwtKeyRequest>,
    ) -> Result<Response<ListJwtKeysResponse>, Status> {
        let call = self.admit(&request, "TaintJwtKey", Role::Administrator, Target::Everything).await?;
        let actor = call.permissions.actor.clone();
        let TaintJwtKeyRequest { kid, comment } = request.into_inner();
        call.end(self.jwt_keys.taint(&kid, comment, &actor).await)
    }

    async fn revoke_jwt_key(
        &self,
        request: Request<RevokeJwtKeyRequest>,
    ) -> Result<Response<ListJwtKeysResponse>, Status> {
        let action = if request.get_ref().dry_run { "RevokeJwtKey (dry run)" } else { "RevokeJwtKey" };
        let mut call = self.admit(&request, action, Role::Administrator, Target::Everything).await?;
        let (actor, request) = (call.permissions.actor.clone(), request.into_inner());
        match reason_of(request.reason) {
            Ok(reason) => {
                call.because(reason);
                call.end(self.jwt_keys.revoke(request, reason, &actor).await)
            }
            Err(status) => Err(call.refuse(status)),
        }
    }

    async fn request_renewal(
        &self,
        request: Request<RequestRenewalRequest>,
    ) -> Result<Response<RequestRenewalResponse>, Status> {
        const ACTION: &str = "RequestRenewal";
        let (call, id) = match request.get_ref().spiffe_id.as_str() {
            "" => (self.admit(&request, ACTION, Role::Operator, Target::Everything).await?, None),
            text => self.admit_over(&request, ACTION, text).await.map(|(call, id)| (call, Some(id)))?,
        };
        let within = duration(request.into_inner().within, "within", MAX_SPREAD);
        match within {
            Ok(within) => call.end(self.ask_to_renew(id, within.unwrap_or_default()).await),
            Err(status) => Err(call.refuse(status)),
        }
    }

    async fn get_status(&self, request: Request<GetStatusRequest>) -> Result<Response<GetStatusResponse>, Status> {
        let call = self.admit(&request, "GetStatus", Role::Viewer, Target::Issuer).await?;
        call.end(self.status().await)
    }

    async fn apply_policy(
        &self,
        request: Request<ApplyPolicyRequest>,
    ) -> Result<Response<ApplyPolicyResponse>, Status> {
        // Of what, the rules say.
        let action = if request.get_ref().dry_run { "ApplyPolicy (dry run)" } else { "ApplyPolicy" };
        let call = self.admit(&request, action, Role::Operator, Target::Issuer).await?;
        let applied = policy::apply(&self.policies, call.permissions.clone(), request.into_inner()).await;
        call.changed(applied)
    }

    async fn get_policy(&self, request: Request<GetPolicyRequest>) -> Result<Response<GetPolicyResponse>, Status> {
        let call = self.admit(&request, "GetPolicy", Role::Viewer, Target::Issuer).await?;
        let policy = policy::get(&self.policies, &call.permissions, request.into_inner()).await;
        call.end(policy)
    }

    async fn list_policy_revisions(
        &self,
        request: Request<ListPolicyRevisionsRequest>,
    ) -> Result<Response<ListPolicyRevisionsResponse>, Status> {
        let call = self.admit(&request, "ListPolicyRevisions", Role::Viewer, Target::Issuer).await?;
        let history = policy::history(&self.policies, &call.permissions, request.into_inner()).await;
        call.end(history)
    }

    async fn rollback_policy(
        &self,
        request: Request<RollbackPolicyRequest>,
    ) -> Result<Response<ApplyPolicyResponse>, Status> {
        let action = if request.get_ref().dry_run { "RollbackPolicy (dry run)" } else { "RollbackPolicy" };
        let call = self.admit(&request, action, Role::Operator, Target::Issuer).await?;
        let applied = policy::roll_back(&self.policies, call.permissions.clone(), request.into_inner()).await;
        call.changed(applied)
    }

    async fn explain_policy(
        &self,
        request: Request<ExplainPolicyRequest>,
    ) -> Result<Response<ExplainPolicyResponse>, Status> {
        let call = self.admit(&request, "ExplainPolicy", Role::Viewer, Target::Issuer).await?;
        let explaining = Explaining {
            trust_domain: &self.trust_domain,
            policies: &self.policies,
            agents: &self.agents,
            administrators: &self.administrators,
            permissions: &call.permissions,
            place: call.place.clone(),
            now: self.clock.now(),
        };
        let explained = explaining.answer(request.into_inner()).await;
        call.end(explained)
    }

    async fn list_agents(&self, request: Request<ListAgentsRequest>) -> Result<Response<ListAgentsResponse>, Status> {
        let call = self.admit(&request, "ListAgents", Role::Viewer, Target::Issuer).await?;
        let listed = agents::list(&self.agents, &self.bundles.issuer(), &call.permissions, request.into_inner()).await;
        call.end(listed)
    }

    async fn evict_agents(
        &self,
        request: Request<EvictAgentsRequest>,
    ) -> Result<Response<EvictAgentsResponse>, Status> {
        let grantable = |text: &str| self.grantable_id(text);
        let id = agents::whose(&self.agents, grantable, request.get_ref()).await;
        // Whose a number is, is nothing for those who may not decide over it.
        let by_number = agents::number_of(request.get_ref());
        let admitted = self.admit_id(&request, "EvictAgents", id).await;
        let (call, id) = admitted.map_err(|status| match (status.code(), by_number) {
            (Code::PermissionDenied, Some(number)) => agents::no_agent("number", number),
            _ => status,
        })?;
        call.end(agents::evict(&self.agents, id, request.get_ref()).await)
    }

    async fn ban(&self, request: Request<BanRequest>) -> Result<Response<BanResponse>, Status> {
        let (call, id) = self.admit_over(&request, "Ban", &request.get_ref().spiffe_id).await?;
        let banned = agents::ban(&self.agents, call.permissions.actor.clone(), id, request.into_inner()).await;
        call.end(banned.map(|()| BanResponse {}))
    }

    async fn unban(&self, request: Request<UnbanRequest>) -> Result<Response<UnbanResponse>, Status> {
        let (call, id) = self.admit_over(&request, "Unban", &request.get_ref().spiffe_id).await?;
        call.end(agents::unban(&self.agents, id).await.map(|()| UnbanResponse {}))
    }

    async fn list_bans(&self, request: Request<ListBansRequest>) -> Result<Response<ListBansResponse>, Status> {
        let call = self.admit(&request, "ListBans", Role::Viewer, Target::Issuer).await?;
        let listed = agents::bans(&self.agents, &call.permissions, request.into_inner()).await;
        call.end(listed)
    }

    async fn list_bundles(
        &self,
        request: Request<ListBundlesRequest>,
    ) -> Result<Response<ListBundlesResponse>, Status> {
        // All of the trust domain trusts them.
        let call = self.admit(&request, "ListBundles", Role::Viewer, Target::Everything).await?;
        call.end(Ok(bundles::list(&self.bundles, self.clock.now())))
    }

    async fn forget_issuer(
        &self,
        request: Request<ForgetIssuerRequest>,
    ) -> Result<Response<ForgetIssuerResponse>, Status> {
        // What its clients hold is trusted no more, wherever they are in the trust domain.
        let call = self.admit(&request, "ForgetIssuer", Role::Administrator, Target::Everything).await?;
        let forgotten = bundles::forget(&self.bundles, request.into_inner().issuer).await;
        call.end(forgotten.map(|()| ForgetIssuerResponse {}))
    }

    async fn add_federation(
        &self,
        request: Request<AddFederationRequest>,
    ) -> Result<Response<FederationDetail>, Status> {
        // Whoever says what others trust speaks for all of the trust domain.
        let call = self.admit(&request, "AddFederation", Role::Administrator, Target::Everything).await?;
        call.end(federation::add(&self.federation, request.into_inner()).await)
    }

    async fn list_federations(
        &self,
        request: Request<ListFederationsRequest>,
    ) -> Result<Response<ListFederationsResponse>, Status> {
        let call = self.admit(&request, "ListFederations", Role::Viewer, Target::Everything).await?;
        call.end(Ok(federation::list(&self.federation)))
    }

    async fn refresh_federation(
        &self,
        request: Request<RefreshFederationRequest>,
    ) -> Result<Response<FederationDetail>, Status> {
        // To say that other authorities are right is as much as to begin with them.
        let role = if request.get_ref().accept { Role::Administrator } else { Role::Operator };
        let call = self.admit(&request, "RefreshFederation", role, Target::Everything).await?;
        call.end(federation::refresh(&self.federation, request.get_ref()).await)
    }

    async fn remove_federation(
        &self,
        request: Request<RemoveFederationRequest>,
    ) -> Result<Response<RemoveFederationResponse>, Status> {
        let call = self.admit(&request, "RemoveFederation", Role::Administrator, Target::Everything).await?;
        let removed = federation::remove(&self.federation, &request.get_ref().trust_domain).await;
        call.end(removed.map(|()| RemoveFederationResponse {}))
    }

    async fn revoke(&self, request: Request<RevokeRequest>) -> Result<Response<RevokeResponse>, Status> {
        let action = if request.get_ref().dry_run { "Revoke (dry run)" } else { "Revoke" };
        // Of what, the certificates say that it comes to.
        let call = self.admit(&request, action, Role::Operator, Target::Issuer).await?;
        let revoking = Revoking { revoker: &self.revoker, agents: &self.agents, administrators: &self.administrators };
        let revoked = revoking.answer(&call.permissions, request.into_inner(), |id| self.grantable_id(id)).await;
        call.revoked(revoked)
    }

    async fn get_revocation_progress(
        &self,
        request: Request<GetRevocationProgressRequest>,
    ) -> Result<Response<GetRevocationProgressResponse>, Status> {
        let call = self.admit(&request, "GetRevocationProgress", Role::Viewer, Target::Issuer).await?;
        let own = self.bundles.issuer();
        call.end(revocations::progress(&self.revoker, &own, request.into_inner().epoch).await)
    }

    async fn list_revocations(
        &self,
        request: Request<ListRevocationsRequest>,
    ) -> Result<Response<ListRevocationsResponse>, Status> {
        let call = self.admit(&request, "ListRevocations", Role::Viewer, Target::Issuer).await?;
        let listed = revocations::list(&self.revoker, &call.permissions, request.into_inner()).await;
        call.end(listed)
    }

    async fn list_svids(&self, request: Request<ListSvidsRequest>) -> Result<Response<ListSvidsResponse>, Status> {
        let call = self.admit(&request, "ListSvids", Role::Viewer, Target::Issuer).await?;
        let listed = svids::list(&self.store, &call.permissions, request.into_inner(), self.clock.now()).await;
        call.end(listed)
    }

    async fn get_svid(&self, request: Request<GetSvidRequest>) -> Result<Response<SvidDetails>, Status> {
        let call = self.admit(&request, "GetSvid", Role::Viewer, Target::Issuer).await?;
        let found = svids::get(&self.store, &call.permissions, &request.get_ref().serial, self.clock.now()).await;
        call.end(found)
    }

    type BackupStream = backups::Pieces;

    async fn backup(&self, request: Request<BackupRequest>) -> Result<Response<backups::Pieces>, Status> {
        let call = self.admit(&request, "Backup", Role::Administrator, Target::Everything).await?;
        call.end(backups::begin(&self.backups, request.get_ref()))
    }

    type AuditReportStream = reports::Pieces;

    async fn audit_report(&self, request: Request<AuditReportRequest>) -> Result<Response<reports::Pieces>, Status> {
        // It has all identities, whatever the path of who asks.
        let call = self.admit(&request, "AuditReport", Role::Viewer, Target::Everything).await?;
        call.end(reports::begin(&self.reports, request.get_ref()).await)
    }
}

impl AdminApi {
    async fn create_token(
        &self,
        id: WorkloadId,
        ttl: Option<prost_types::Duration>,
        created_by: Actor,
    ) -> Result<CreateJoinTokenResponse, Status> {
        let ttl = duration(ttl, "ttl", MAX_TOKEN_TTL)?.unwrap_or(DEFAULT_TOKEN_TTL);
        if ttl < Duration::from_secs(1) {
            return Err(Status::invalid_argument("ttl: less than a second"));
        }
        let created = self.join_tokens.create(id, ttl, created_by).await;
        let (token, expires_at) = created.map_err(|error| store_status(&error))?;
        Ok(CreateJoinTokenResponse { join_token: token.expose().to_owned(), expires_at: Some(timestamp(expires_at)) })
    }

    /// At each issuer on this database; told is how many there are at this one.
    async fn ask_to_renew(&self, id: Option<WorkloadId>, within: Duration) -> Result<RequestRenewalResponse, Status> {
        let whose = id.map_or(Whose::Everybody, Whose::Id);
        let request = NewRenewalRequest { whose, at: self.clock.now(), within };
        let request = self.store.record_renewal_request(request).await.map_err(|error| store_status(&error))?;
        let clients = self.distribution.request_renewal(&request);
        Ok(RequestRenewalResponse { clients: u32::try_from(clients).unwrap_or(u32::MAX) })
    }

    async fn status(&self) -> Result<GetStatusResponse, Status> {
        let counts = self.store.counts(self.clock.now()).await.map_err(|error| store_status(&error))?;
        Ok(GetStatusResponse {
            trust_domain: self.trust_domain.as_str().to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            authority: self.authorities.active().map(|authority| Authority {
                key_id: authority.key_id().to_string(),
                not_before: Some(timestamp(authority.not_before())),
                not_after: Some(timestamp(authority.not_after())),
                longest_life: prost_types::Duration::try_from(authority.longest_leaf()).ok(),
                successor_due: Some(timestamp(authority.successor_due())),
                gives_way: Some(timestamp(authority.gives_way())),
            }),
            lives_cut: u32::try_from(self.authorities.cut().map_or(0, |cut| cut.count())).unwrap_or(u32::MAX),
            connected_clients: u32::try_from(self.distribution.client_count()).unwrap_or(u32::MAX),
            live_svids: counts.valid + counts.expiring,
            successors: self.authorities.successors(),
        })
    }
}

/// None when unset; negative, malformed or longer than `max` is the caller's mistake.
fn duration(value: Option<prost_types::Duration>, field: &str, max: Duration) -> Result<Option<Duration>, Status> {
    let Some(value) = value else { return Ok(None) };
    match span(value) {
        Some(duration) if duration <= max => Ok(Some(duration)),
        Some(_) => Err(Status::invalid_argument(format!("{field}: longer than {} h", max.as_secs() / 3600))),
        None => Err(Status::invalid_argument(format!("{field}: negative or malformed"))),
    }
}
