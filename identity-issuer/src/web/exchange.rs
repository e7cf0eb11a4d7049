//! `POST /oauth2/token`: an access token for whoever holds an X.509-SVID (RFC 6749 §4.4, RFC 8693), bound to it (RFC 8705 §3).
//!
//! ```text
//! mTLS ─► standing ─► request ─► what policy gives ─► audience and scope ─► token, on record before it leaves
//! ```
//! The client authenticates itself by the connection's certificate and by nothing else. It may ask as itself (`client_credentials`), or
//! show a JWT-SVID of its own (`token-exchange`): one of somebody else is worth nothing here.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use http::request::Parts;
use http::{Method, StatusCode};
use serde_json::{Map, json};
use signet_identity::{PeerIdentity, SharedClock, TrustDomain, WorkloadId};
use tokio::sync::watch;

use super::Answer;
use super::answer::{JSON, not_allowed, typed};
use super::body::Unread;
use crate::admission::{Admission, Refused};
use crate::agents::{Agents, NoStanding};
use crate::audit::Refusals;
use crate::config::AccessTokens;
use crate::entitlement::{TokenGrant, tokens};
use crate::jwt::{JwtBundles, Kind, NotIssued, Tokens, Wanted, verify_own};
use crate::policy::Policies;
use crate::store::StoreError;

/// Gives out access tokens. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Exchange {
    pub(crate) trust_domain: TrustDomain,
    /// The issuer's own name.
    pub(crate) issuer: WorkloadId,
    pub(crate) profiles: Arc<[AccessTokens]>,
    pub(crate) tokens: Tokens,
    /// By which shown tokens are verified.
    pub(crate) keys: watch::Receiver<JwtBundles>,
    pub(crate) agents: Agents,
    pub(crate) policies: Policies,
    pub(crate) admission: Admission,
    pub(crate) refusals: Refusals,
    pub(crate) clock: SharedClock,
}

const MAX_PARAMETERS: usize = 32;

const CLIENT_CREDENTIALS: &str = "client_credentials";
const TOKEN_EXCHANGE: &str = "urn:ietf:params:oauth:grant-type:token-exchange";
const JWT: &str = "urn:ietf:params:oauth:token-type:jwt";
const ACCESS_TOKEN: &str = "urn:ietf:params:oauth:token-type:access_token";

/// As OAuth tells them (RFC 6749 §5.2, RFC 8693 §2.2.2).
#[derive(Debug)]
enum Error {
    InvalidRequest(Cow<'static, str>),
    InvalidClient(Cow<'static, str>),
    InvalidGrant(Cow<'static, str>),
    UnauthorizedClient(Cow<'static, str>),
    UnsupportedGrantType,
    InvalidTarget(Cow<'static, str>),
    InvalidScope(Cow<'static, str>),
    TooMany(Duration),
    Unavailable,
}

/// What is asked for.
#[derive(Debug, Default, Eq, PartialEq)]
struct Asked {
    /// Of the caller itself.
    subject_token: Option<String>,
    audiences: Vec<String>,
    scopes: Vec<String>,
}

/// What is given of that.
struct Chosen<'a> {
    grant: &'a TokenGrant,
    profile: &'a AccessTokens,
    audience: Vec<String>,
    scopes: Vec<String>,
}

impl Exchange {
    pub(super) async fn answer(
        &self,
        head: &Parts,
        body: Result<Bytes, Unread>,
        peer: Option<&Arc<PeerIdentity>>,
    ) -> Answer {
        if head.method != Method::POST {
            return not_allowed("POST");
        }
        self.exchange(head, body, peer).await.unwrap_or_else(|error| {
            // Whoever is known and has not what was asked for. What was signed and refused is in the log already.
            if let (
                Error::UnauthorizedClient(cause) | Error::InvalidTarget(cause) | Error::InvalidScope(cause),
                Some(peer),
            ) = (&error, peer)
            {
                self.refusals.tell("access token", peer.id().as_str(), cause);
            }
            error.answer()
        })
    }

    async fn exchange(
        &self,
        head: &Parts,
        body: Result<Bytes, Unread>,
        peer: Option<&Arc<PeerIdentity>>,
    ) -> Result<Answer, Error> {
        let peer = peer.filter(|peer| self.clock.now() <= peer.expires_at());
        let peer = peer.ok_or(Error::InvalidClient("a valid client certificate is needed".into()))?;
        let serial = peer.serial().as_bytes().to_vec();
        self.admission.certificate(&serial)?;
        let asked = Asked::read(head, body, peer.id())?;
        let origin = self.agents.standing(peer).await?;
        if origin.attested != *peer.id() {
            return Err(Error::InvalidClient(format!("ask as {}, which was attested", origin.attested).into()));
        }
        if let Some(token) = &asked.subject_token {
            self.check_subject(token, peer.id())?;
        }
        self.admission.token(origin.number)?;
        let given = tokens(&self.policies.current(), &origin, self.clock.now());
        let given = given.map_err(|error| Error::UnauthorizedClient(error.to_string().into()))?;
        let Chosen { grant, profile, audience, scopes } = self.choose(&given, &asked, peer.id())?;
        let scope = scopes.join(" ");
        let mut more = Map::new();
        more.insert("client_id".to_owned(), json!(peer.id().as_str()));
        more.insert("cnf".to_owned(), json!({"x5t#S256": URL_SAFE_NO_PAD.encode(peer.leaf_sha256())}));
        if !scope.is_empty() {
            more.insert("scope".to_owned(), json!(scope));
        }
        // Without the certificate that it is bound to, it is of no use.
        let until = grant.until.map_or(peer.expires_at(), |until| until.min(peer.expires_at()));
        let wanted = Wanted {
            kind: Kind::Access,
            id: grant.id.clone(),
            audience,
            ttl: grant.ttl.map_or(profile.ttl, |ttl| ttl.min(profile.ttl)),
            until: Some(until),
            more,
            serial,
            attestation: origin.number,
        };
        let jwt = self.tokens.issue(wanted).await?.release();
        let mut answer = json!({
            "access_token": jwt.token.as_str(),
            "issued_token_type": ACCESS_TOKEN,
            "token_type": "Bearer",
            "expires_in": (jwt.expires_at - jwt.issued_at).whole_seconds(),
        });
        if !scope.is_empty() {
            answer["scope"] = json!(scope);
        }
        let mut answer = typed(StatusCode::OK, JSON, answer.to_string());
        answer.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        Ok(answer)
    }

    /// A token of its own, for this issuer, now.
    fn check_subject(&self, token: &str, caller: &WorkloadId) -> Result<(), Error> {
        let keys = self.keys.borrow().get(&self.trust_domain).cloned().unwrap_or_default();
        let audiences = [self.issuer.as_str(), self.tokens.issuer.as_deref().unwrap_or_default()];
        let subject = verify_own(token, &keys, &audiences, self.clock.now());
        match subject {
            Ok(subject) if subject == caller.as_str() => Ok(()),
            Ok(_) => Err(Error::InvalidGrant("subject_token: it is of somebody else than the certificate".into())),
            Err(what) => Err(Error::InvalidGrant(format!("subject_token: {what}").into())),
        }
    }

    /// What is given and asked for: by one profile, so that nobody has a token with the audience of one and the scopes of another.
    fn choose<'a>(&'a self, given: &'a [TokenGrant], asked: &Asked, caller: &WorkloadId) -> Result<Chosen<'a>, Error> {
        let profile_of = |grant: &TokenGrant| self.profiles.iter().find(|profile| profile.profile == grant.profile);
        let mut given: Vec<_> = given.iter().filter_map(|grant| Some((grant, profile_of(grant)?))).collect();
        if given.is_empty() {
            return Err(Error::UnauthorizedClient(format!("the policy gives no token to {caller}").into()));
        }
        // In its own name before any other.
        given.sort_by_key(|(grant, _)| (grant.id != *caller, grant.id.clone(), grant.profile.clone()));
        let has_audiences = |profile: &AccessTokens| asked.audiences.iter().all(|one| profile.audiences.contains(one));
        let audiences: Vec<_> = given.iter().filter(|(_, profile)| has_audiences(profile)).collect();
        if audiences.is_empty() {
            return Err(Error::InvalidTarget("the policy gives no token for this audience".into()));
        }
        let has_scopes = |profile: &AccessTokens| asked.scopes.iter().all(|one| profile.scopes.contains(one));
        let Some((grant, profile)) = audiences.iter().find(|(_, profile)| has_scopes(profile)) else {
            return Err(Error::InvalidScope("the policy gives no token of this scope".into()));
        };
        let audience = match (asked.audiences.is_empty(), profile.audiences.len(), audiences.len()) {
            (false, ..) => asked.audiences.clone(),
            (true, 1, 1) => profile.audiences.clone(),
            (true, ..) => {
                return Err(Error::InvalidRequest("audience: there are several; name the one that is meant".into()));
            }
        };
        let scopes = if asked.scopes.is_empty() { profile.scopes.clone() } else { asked.scopes.clone() };
        Ok(Chosen { grant, profile, audience, scopes })
    }
}

impl Asked {
    fn read(head: &Parts, body: Result<Bytes, Unread>, caller: &WorkloadId) -> Result<Self, Error> {
        let content_type = head.headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let media_type = content_type.split(';').next().unwrap_or_default().trim();
        if !media_type.eq_ignore_ascii_case("application/x-www-form-urlencoded") {
            return Err(Error::InvalidRequest("its body is not application/x-www-form-urlencoded".into()));
        }
        let body = body.map_err(|unread| Error::InvalidRequest(unread.to_string().into()))?;
        Self::parse(&body, caller)
    }

    fn parse(body: &[u8], caller: &WorkloadId) -> Result<Self, Error> {
        let mut asked = Self::default();
        let mut once: HashMap<String, String> = HashMap::new();
        for (number, (name, value)) in form_urlencoded::parse(body).enumerate() {
            if number == MAX_PARAMETERS {
                return Err(Error::InvalidRequest("it has too many parameters".into()));
            }
            match &*name {
                // RFC 6749 §3.2: without a value it counts as left out.
                _ if value.is_empty() => {}
                "audience" | "resource" => asked.audiences.push(value.into_owned()),
                "scope" => asked.scopes.extend(value.split(' ').filter(|scope| !scope.is_empty()).map(str::to_owned)),
                _ => {
                    if once.insert(name.into_owned(), value.into_owned()).is_some() {
                        return Err(Error::InvalidRequest("a parameter stands there twice".into()));
                    }
                }
            }
        }
        asked.audiences.sort_unstable();
        asked.audiences.dedup();
        let mut take = |name: &str| once.remove(name);
        if take("client_id").is_some_and(|client| client != caller.as_str()) {
            return Err(Error::InvalidClient("client_id: it is not the SPIFFE ID of the certificate".into()));
        }
        let unknown_type =
            |wanted: Option<String>| wanted.is_some_and(|wanted| wanted != ACCESS_TOKEN && wanted != JWT);
        match take("grant_type").as_deref() {
            Some(CLIENT_CREDENTIALS) => {}
            Some(TOKEN_EXCHANGE) => {
                if take("actor_token").is_some() || take("actor_token_type").is_some() {
                    return Err(Error::InvalidRequest("actor_token: nobody acts for another here".into()));
                }
                if unknown_type(take("requested_token_type")) {
                    return Err(Error::InvalidRequest("requested_token_type: there are access tokens only".into()));
                }
                let (token, of_type) = (take("subject_token"), take("subject_token_type"));
                if of_type.as_deref() != Some(JWT) {
                    return Err(Error::InvalidRequest(format!("subject_token_type: not {JWT}").into()));
                }
                let missing = || Error::InvalidRequest("subject_token: missing".into());
                asked.subject_token = Some(token.ok_or_else(missing)?);
            }
            Some(_) => return Err(Error::UnsupportedGrantType),
            None => return Err(Error::InvalidRequest("grant_type: missing".into())),
        }
        Ok(asked)
    }
}

impl Error {
    fn answer(&self) -> Answer {
        let (status, error, description): (_, _, &str) = match self {
            Self::InvalidRequest(what) => (StatusCode::BAD_REQUEST, "invalid_request", what),
            Self::InvalidClient(what) => (StatusCode::UNAUTHORIZED, "invalid_client", what),
            Self::InvalidGrant(what) => (StatusCode::BAD_REQUEST, "invalid_grant", what),
            Self::UnauthorizedClient(what) => (StatusCode::BAD_REQUEST, "unauthorized_client", what),
            Self::UnsupportedGrantType => (
                StatusCode::BAD_REQUEST,
                "unsupported_grant_type",
                "there are client_credentials and urn:ietf:params:oauth:grant-type:token-exchange",
            ),
            Self::InvalidTarget(what) => (StatusCode::BAD_REQUEST, "invalid_target", what),
            Self::InvalidScope(what) => (StatusCode::BAD_REQUEST, "invalid_scope", what),
            Self::TooMany(_) => (StatusCode::TOO_MANY_REQUESTS, "temporarily_unavailable", "too many requests"),
            Self::Unavailable => (StatusCode::SERVICE_UNAVAILABLE, "temporarily_unavailable", "try again later"),
        };
        let body = json!({"error": error, "error_description": ascii(description)});
        let mut answer = typed(status, JSON, body.to_string());
        answer.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if let Self::TooMany(after) = self {
            answer.headers_mut().insert(RETRY_AFTER, HeaderValue::from(after.as_secs() + 1));
        }
        answer
    }
}

/// The characters that a description may have (RFC 6749 §5.2).
fn ascii(text: &str) -> String {
    let allowed = |character: char| matches!(character, ' '..='~') && !matches!(character, '"' | '\\');
    text.chars().map(|character| if allowed(character) { character } else { '?' }).collect()
}

impl From<Refused> for Error {
    fn from(refused: Refused) -> Self {
        Self::TooMany(refused.after)
    }
}

impl From<NoStanding> for Error {
    fn from(error: NoStanding) -> Self {
        match error {
            NoStanding::Store(_) => Self::Unavailable,
            error => Self::InvalidClient(error.to_string().into()),
        }
    }
}

impl From<NotIssued> for Error {
    fn from(error: NotIssued) -> Self {
        match error {
            NotIssued::Banned | NotIssued::Evicted | NotIssued::Revoked => {
                Self::InvalidClient(error.to_string().into())
            }
            NotIssued::Expired => Self::UnauthorizedClient(error.to_string().into()),
            NotIssued::Store(StoreError::Busy) => Self::TooMany(Duration::from_secs(1)),
            NotIssued::NoKey
            | NotIssued::Randomness
            | NotIssued::Key(_)
            | NotIssued::BrokenOff
            | NotIssued::Store(_) => {
                let cause = signet_process::start::Report::of(&error).cause;
                tracing::error!(cause, "no access token issued");
                Self::Unavailable
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn parse(body: &str) -> Result<Asked, String> {
        let caller = "spiffe://example.org/shop".parse().unwrap();
        Asked::parse(body.as_bytes(), &caller).map_err(|error| {
            let text = format!("{error:?}");
            text.split('(').next().unwrap_or_default().to_owned()
        })
    }

    #[test]
    fn a_form_is_read_as_oauth_writes_it() {
        let asked =
            parse("grant_type=client_credentials&audience=a%3A%2F%2Fb&resource=c&audience=c&scope=x+y&foreign=1");
        let list = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
        let expected = Asked { subject_token: None, audiences: list(&["a://b", "c"]), scopes: list(&["x", "y"]) };
        assert_eq!(asked, Ok(expected));
        let exchange = format!(
            "grant_type={TOKEN_EXCHANGE}&subject_token_type={JWT}&subject_token=t&client_id=spiffe%3A%2F%2Fexample.org%2Fshop"
        );
        assert_eq!(parse(&exchange).unwrap().subject_token.as_deref(), Some("t"));
        for (body, expected) in [
            (String::new(), "InvalidRequest"),
            ("grant_type=".to_owned(), "InvalidRequest"),
            ("grant_type=password".to_owned(), "UnsupportedGrantType"),
            ("grant_type=client_credentials&grant_type=client_credentials".to_owned(), "InvalidRequest"),
            ("grant_type=client_credentials&client_id=spiffe://example.org/other".to_owned(), "InvalidClient"),
            (format!("grant_type={TOKEN_EXCHANGE}"), "InvalidRequest"),
            (format!("grant_type={TOKEN_EXCHANGE}&subject_token=t"), "InvalidRequest"),
            (format!("grant_type={TOKEN_EXCHANGE}&subject_token_type={JWT}"), "InvalidRequest"),
            (format!("{exchange}&actor_token=t"), "InvalidRequest"),
            (format!("{exchange}&requested_token_type=urn:ietf:params:oauth:token-type:saml2"), "InvalidRequest"),
            ("a=b&".repeat(40), "InvalidRequest"),
        ] {
            assert_eq!(parse(&body).unwrap_err(), expected, "{body}");
        }
    }

    #[test]
    fn a_description_has_no_character_that_it_may_not_have() {
        assert_eq!(ascii("a \"b\" \\ ä\n"), "a ?b? ? ??");
    }
}
