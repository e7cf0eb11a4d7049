//! `signet.admin.v1`: what an operator on this machine asks for.

use std::time::Duration;

use signet_identity::{SharedClock, TrustDomain, WorkloadId};
use signet_proto::admin::v1::admin_service_server::{AdminService, AdminServiceServer};
use signet_proto::admin::v1::{
    ApplyPolicyRequest, ApplyPolicyResponse, Authority, BanRequest, BanResponse, CreateJoinTokenRequest,
    CreateJoinTokenResponse, EvictAgentsRequest, EvictAgentsResponse, ExplainPolicyRequest, ExplainPolicyResponse,
    GetPolicyRequest, GetPolicyResponse, GetStatusRequest, GetStatusResponse, ListAgentsRequest, ListAgentsResponse,
    ListBansRequest, ListBansResponse, ListPolicyRevisionsRequest, ListPolicyRevisionsResponse, RequestRenewalRequest,
    RequestRenewalResponse, RollbackPolicyRequest, UnbanRequest, UnbanResponse,
};
use tonic::service::Routes;
use tonic::{Request, Response, Status};

use super::{agents, companions, parse_id, policy, store_status, timestamp};
use crate::agents::Agents;
use crate::attestation::JoinTokens;
use crate::authority::Authorities;
use crate::certificate::is_reserved;
use crate::distribution::Distribution;
use crate::policy::{Actor, Policies};
use crate::server::Caller;
use crate::store::Store;
use crate::utc::Utc;

#[derive(Debug)]
pub(crate) struct AdminApi {
    pub(crate) trust_domain: TrustDomain,
    pub(crate) join_tokens: JoinTokens,
    pub(crate) authorities: Authorities,
    pub(crate) distribution: Distribution,
    pub(crate) policies: Policies,
    pub(crate) agents: Agents,
    pub(crate) store: Store,
    pub(crate) clock: SharedClock,
}

/// For a policy with as many rules as there may be.
const MAX_MESSAGE: usize = 16 * 1024 * 1024;
const DEFAULT_TOKEN_TTL: Duration = Duration::from_secs(10 * 60);
const MAX_TOKEN_TTL: Duration = Duration::from_secs(24 * 3600);
const MAX_SPREAD: Duration = Duration::from_secs(24 * 3600);

impl AdminApi {
    pub(crate) async fn into_routes(self) -> Result<Routes, tonic_reflection::server::Error> {
        let (health, reflection) = companions::<AdminServiceServer<Self>>().await?;
        let service = AdminServiceServer::new(self).max_decoding_message_size(MAX_MESSAGE);
        Ok(Routes::new(service).add_service(health).add_service(reflection).prepare())
    }

    /// An ID that a workload may have: in our trust domain, and none of the issuer's own.
    fn grantable_id(&self, text: &str) -> Result<WorkloadId, Status> {
        let id = parse_id(text, "spiffe_id")?;
        if *id.trust_domain() != self.trust_domain {
            let text = format!("spiffe_id: {id} is not in the trust domain {} of this issuer", self.trust_domain);
            return Err(Status::invalid_argument(text));
        }
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
        let CreateJoinTokenRequest { spiffe_id, ttl } = request.into_inner();
        let id = self.grantable_id(&spiffe_id)?;
        let ttl = duration(ttl, "ttl", MAX_TOKEN_TTL)?.unwrap_or(DEFAULT_TOKEN_TTL);
        if ttl < Duration::from_secs(1) {
            return Err(Status::invalid_argument("ttl: less than a second"));
        }
        let created = self.join_tokens.create(id.clone(), ttl).await;
        let (token, expires_at) = created.map_err(|error| store_status(&error))?;
        tracing::info!(spiffe_id = %id, expires_at = %Utc(expires_at), "join token made");
        Ok(Response::new(CreateJoinTokenResponse {
            join_token: token.expose().to_owned(),
            expires_at: Some(timestamp(expires_at)),
        }))
    }

    async fn request_renewal(
        &self,
        request: Request<RequestRenewalRequest>,
    ) -> Result<Response<RequestRenewalResponse>, Status> {
        let RequestRenewalRequest { spiffe_id, within } = request.into_inner();
        let id = match spiffe_id.as_str() {
            "" => None,
            text => Some(self.grantable_id(text)?),
        };
        let within = duration(within, "within", MAX_SPREAD)?.unwrap_or_default();
        let clients = self.distribution.request_renewal(id.as_ref(), within);
        tracing::info!(spiffe_id = id.map(|id| id.to_string()), clients, "renewal requested");
        Ok(Response::new(RequestRenewalResponse { clients: u32::try_from(clients).unwrap_or(u32::MAX) }))
    }

    async fn get_status(&self, _: Request<GetStatusRequest>) -> Result<Response<GetStatusResponse>, Status> {
        let counts = self.store.counts(self.clock.now()).await.map_err(|error| store_status(&error))?;
        Ok(Response::new(GetStatusResponse {
            trust_domain: self.trust_domain.as_str().to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            authority: self.authorities.active().map(|authority| Authority {
                key_id: authority.key_id().to_string(),
                not_before: Some(timestamp(authority.not_before())),
                not_after: Some(timestamp(authority.not_after())),
            }),
            connected_clients: u32::try_from(self.distribution.client_count()).unwrap_or(u32::MAX),
            live_svids: counts.valid + counts.expiring,
        }))
    }

    async fn apply_policy(
        &self,
        request: Request<ApplyPolicyRequest>,
    ) -> Result<Response<ApplyPolicyResponse>, Status> {
        policy::apply(&self.policies, actor(&request)?, request.into_inner()).await.map(Response::new)
    }

    async fn get_policy(&self, request: Request<GetPolicyRequest>) -> Result<Response<GetPolicyResponse>, Status> {
        policy::get(&self.policies, request.into_inner()).await.map(Response::new)
    }

    async fn list_policy_revisions(
        &self,
        request: Request<ListPolicyRevisionsRequest>,
    ) -> Result<Response<ListPolicyRevisionsResponse>, Status> {
        policy::history(&self.policies, request.into_inner()).await.map(Response::new)
    }

    async fn rollback_policy(
        &self,
        request: Request<RollbackPolicyRequest>,
    ) -> Result<Response<ApplyPolicyResponse>, Status> {
        policy::roll_back(&self.policies, actor(&request)?, request.into_inner()).await.map(Response::new)
    }

    async fn explain_policy(
        &self,
        request: Request<ExplainPolicyRequest>,
    ) -> Result<Response<ExplainPolicyResponse>, Status> {
        policy::explain(&self.policies, request.into_inner(), self.clock.now()).map(Response::new)
    }

    async fn list_agents(&self, request: Request<ListAgentsRequest>) -> Result<Response<ListAgentsResponse>, Status> {
        agents::list(&self.agents, request.into_inner()).await.map(Response::new)
    }

    async fn evict_agents(
        &self,
        request: Request<EvictAgentsRequest>,
    ) -> Result<Response<EvictAgentsResponse>, Status> {
        let actor = actor(&request)?;
        let grantable = |text: &str| self.grantable_id(text);
        agents::evict(&self.agents, actor, grantable, request.into_inner()).await.map(Response::new)
    }

    async fn ban(&self, request: Request<BanRequest>) -> Result<Response<BanResponse>, Status> {
        let (actor, request) = (actor(&request)?, request.into_inner());
        let id = self.grantable_id(&request.spiffe_id)?;
        agents::ban(&self.agents, actor, id, request).await?;
        Ok(Response::new(BanResponse {}))
    }

    async fn unban(&self, request: Request<UnbanRequest>) -> Result<Response<UnbanResponse>, Status> {
        let (actor, request) = (actor(&request)?, request.into_inner());
        agents::unban(&self.agents, actor, self.grantable_id(&request.spiffe_id)?).await?;
        Ok(Response::new(UnbanResponse {}))
    }

    async fn list_bans(&self, request: Request<ListBansRequest>) -> Result<Response<ListBansResponse>, Status> {
        agents::bans(&self.agents, request.into_inner()).await.map(Response::new)
    }
}

/// Who calls, as the kernel says.
fn actor<T>(request: &Request<T>) -> Result<Actor, Status> {
    let user = request.extensions().get::<Caller>().and_then(|caller| caller.local_user);
    user.map(Actor::user).ok_or_else(|| Status::internal("a connection without a user"))
}

/// None when unset; negative, malformed or longer than `max` is the caller's mistake.
fn duration(value: Option<prost_types::Duration>, field: &str, max: Duration) -> Result<Option<Duration>, Status> {
    let Some(value) = value else { return Ok(None) };
    match Duration::try_from(value) {
        Ok(duration) if duration <= max => Ok(Some(duration)),
        Ok(_) => Err(Status::invalid_argument(format!("{field}: longer than {} h", max.as_secs() / 3600))),
        Err(_) => Err(Status::invalid_argument(format!("{field}: negative or malformed"))),
    }
}
