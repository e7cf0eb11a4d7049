//! `signet.identity.v1.IdentityService.IssueJwt`: a token for somebody who has an identity.

use std::collections::HashSet;
use std::time::Duration;

use signet_proto::identity::v1::{IssueJwtRequest, IssueJwtResponse, JwtSvid};
use tonic::{Request, Response, Status};

use super::identity::{IdentityApi, serial_of};
use super::{report, span, store_status, timestamp};
use crate::authority::SignError;
use crate::entitlement::{Grounds, Wanted, entitle};
use crate::jwt::{self, Kind, NotIssued};

const MOST_AUDIENCES: usize = 16;
const MAX_AUDIENCE: usize = 512;
const SHORTEST: Duration = Duration::from_secs(10);

impl IdentityApi {
    pub(super) async fn issue_token(
        &self,
        request: Request<IssueJwtRequest>,
    ) -> Result<Response<IssueJwtResponse>, Status> {
        let (peer, _) = self.peer(&request)?;
        let tokens = self.tokens.as_ref().ok_or_else(|| Status::unimplemented("this issuer makes no tokens"))?;
        let serial = serial_of(&peer);
        self.admission.certificate(&serial)?;
        let IssueJwtRequest { audience, ttl } = request.into_inner();
        check_audience(&audience)?;
        check_is_free(&audience, &tokens.access_audiences).map_err(|status| self.told("token", peer.id(), status))?;
        let ttl = ttl.map(|ttl| shorter(ttl, tokens.longest)).transpose()?.unwrap_or(tokens.longest);
        let refused = |status| self.told("token", peer.id(), status);
        let origin = self.agents.standing(&peer).await.map_err(|error| refused(error.into()))?;
        self.admission.token(origin.number)?;
        let (grounds, wanted) = (Grounds::to_keep(peer.id(), &origin), Wanted::identity(Some(peer.id())));
        let entitled = entitle(&self.policies.current(), &grounds, wanted, self.clock.now());
        let entitlement = entitled.map_err(|error| refused(error.into()))?;
        let wanted = jwt::Wanted {
            kind: Kind::Svid,
            id: entitlement.id,
            audience,
            ttl,
            until: entitlement.expires,
            more: serde_json::Map::new(),
            serial,
            attestation: origin.number,
        };
        let jwt = tokens.issue(wanted).await?.release();
        Ok(Response::new(IssueJwtResponse {
            svid: Some(JwtSvid {
                spiffe_id: jwt.id.as_str().to_owned(),
                token: jwt.token.to_string(),
                issued_at: Some(timestamp(jwt.issued_at)),
                expires_at: Some(timestamp(jwt.expires_at)),
                hint: entitlement.hint.unwrap_or_default(),
            }),
        }))
    }
}

fn check_audience(audience: &[String]) -> Result<(), Status> {
    if audience.is_empty() || audience.len() > MOST_AUDIENCES {
        return Err(Status::invalid_argument(format!("audience: not between 1 and {MOST_AUDIENCES}")));
    }
    let mut known = HashSet::new();
    for (index, one) in audience.iter().enumerate() {
        let wrong = |what: &str| Err(Status::invalid_argument(format!("audience[{index}]: {what}")));
        match one.len() {
            0 => return wrong("it is empty"),
            1..=MAX_AUDIENCE if one.chars().any(char::is_control) => return wrong("it has a control character"),
            1..=MAX_AUDIENCE if known.insert(one) => {}
            1..=MAX_AUDIENCE => return wrong("it stands there twice"),
            _ => return wrong(&format!("it is longer than {MAX_AUDIENCE} bytes")),
        }
    }
    Ok(())
}

/// Who takes access tokens may not look at `typ`, by which the two kinds are told apart (RFC 8725 §3.11).
fn check_is_free(audience: &[String], access_audiences: &HashSet<String>) -> Result<(), Status> {
    match audience.iter().position(|one| access_audiences.contains(one)) {
        None => Ok(()),
        Some(index) => Err(Status::permission_denied(format!(
            "audience[{index}]: it takes access tokens alone, which the policy gives by profile; ask POST /oauth2/token for one"
        ))),
    }
}

fn shorter(ttl: prost_types::Duration, longest: Duration) -> Result<Duration, Status> {
    let ttl = span(ttl).filter(|ttl| (SHORTEST.min(longest)..=longest).contains(ttl));
    let range = format!("ttl: not between {} s and {} s", SHORTEST.min(longest).as_secs(), longest.as_secs());
    ttl.ok_or_else(|| Status::invalid_argument(range))
}

impl From<NotIssued> for Status {
    fn from(error: NotIssued) -> Self {
        match error {
            NotIssued::Banned | NotIssued::Evicted | NotIssued::Revoked | NotIssued::Expired => {
                Self::permission_denied(error.to_string())
            }
            NotIssued::NoKey => Self::unavailable(error.to_string()),
            NotIssued::Key(SignError::Token(_)) => {
                tracing::error!(cause = report(&error), "no token issued");
                Self::unavailable(error.to_string())
            }
            NotIssued::Randomness | NotIssued::Key(_) | NotIssued::BrokenOff => {
                tracing::error!(cause = report(&error), "no token issued");
                Self::internal("the token could not be made")
            }
            NotIssued::Store(error) => store_status(&error),
        }
    }
}
