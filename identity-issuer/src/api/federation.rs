//! `signet.admin.v1`, as far as it is about other trust domains.

use signet_identity::TrustDomain;
use signet_proto::admin::v1::{
    self as wire, AddFederationRequest, ListFederationsResponse, RefreshFederationRequest, SpiffeProfile, WebProfile,
    add_federation_request,
};
use tonic::Status;

use super::{parse_id, report, timestamp};
use crate::federation::{AddError, Continuity, Federation, Known, NoSuch, Profile, Relationship};

pub(super) async fn add(federation: &Federation, request: AddFederationRequest) -> Result<wire::Federation, Status> {
    let AddFederationRequest { trust_domain, url, profile } = request;
    let pem = |text: String| (!text.is_empty()).then_some(text);
    let profile = match profile {
        Some(add_federation_request::Profile::HttpsWeb(WebProfile { ca_pem })) => Profile::Web { ca: pem(ca_pem) },
        Some(add_federation_request::Profile::HttpsSpiffe(SpiffeProfile { spiffe_id, bundle_pem })) => {
            let spiffe_id = parse_id(&spiffe_id, "https_spiffe.spiffe_id")?;
            Profile::Spiffe { spiffe_id, bootstrap: pem(bundle_pem) }
        }
        None => return Err(Status::invalid_argument("profile: missing")),
    };
    let trust_domain = parse(&trust_domain)?;
    let url = url.parse().map_err(|_| Status::invalid_argument("url: it is no URL"))?;
    let added = federation.add(Relationship { trust_domain, url, profile }).await;
    added.map(shown).map_err(|error| {
        let text = error.to_string();
        match error {
            AddError::Relationship(_) => Status::invalid_argument(text),
            AddError::Own(_) => Status::invalid_argument(format!("trust_domain: {text}")),
            AddError::Known(_) => Status::already_exists(format!("trust_domain: {text}")),
            AddError::TooMany | AddError::Refused(_) => Status::failed_precondition(text),
            AddError::Keep(error) => Status::unavailable(report(&error)),
        }
    })
}

pub(super) fn list(federation: &Federation) -> ListFederationsResponse {
    ListFederationsResponse { federations: federation.list().into_iter().map(shown).collect() }
}

pub(super) async fn refresh(
    federation: &Federation,
    request: &RefreshFederationRequest,
) -> Result<wire::Federation, Status> {
    let continuity = if request.accept { Continuity::Waived } else { Continuity::Demanded };
    let refreshed = federation.refresh(&parse(&request.trust_domain)?, continuity).await;
    refreshed.map(shown).map_err(|error| refused(&error))
}

pub(super) async fn remove(federation: &Federation, trust_domain: &str) -> Result<(), Status> {
    federation.remove(&parse(trust_domain)?).await.map_err(|error| refused(&error))
}

fn parse(trust_domain: &str) -> Result<TrustDomain, Status> {
    trust_domain.parse().map_err(|error| Status::invalid_argument(format!("trust_domain: {error}")))
}

fn refused(error: &NoSuch) -> Status {
    match error {
        NoSuch::Unknown(_) => Status::not_found(format!("trust_domain: {error}")),
        NoSuch::Configured | NoSuch::Refused(_) => Status::failed_precondition(error.to_string()),
        NoSuch::Keep(error) => Status::unavailable(report(error)),
    }
}

fn shown(known: Known) -> wire::Federation {
    let Known { relationship, is_configured, document, refreshed_at, refused } = known;
    let (profile, spiffe_id) = match &relationship.profile {
        Profile::Web { .. } => ("https_web", String::new()),
        Profile::Spiffe { spiffe_id, .. } => ("https_spiffe", spiffe_id.to_string()),
    };
    let count = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
    wire::Federation {
        trust_domain: relationship.trust_domain.to_string(),
        url: relationship.url.to_string(),
        profile: profile.to_owned(),
        spiffe_id,
        configured: is_configured,
        refreshed_at: refreshed_at.map(timestamp),
        sequence: document.as_ref().and_then(|document| document.sequence).unwrap_or_default(),
        x509_authorities: document.as_ref().map_or(0, |document| count(document.bundle.authorities().len())),
        jwt_authorities: document.as_ref().map_or(0, |document| count(document.jwt.len())),
        refused: refused.unwrap_or_default(),
    }
}
