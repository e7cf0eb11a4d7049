//! The section `jwt`: tokens, for whoever takes no certificates.
//!
//! ```yaml
//! jwt:
//!   algorithm: ES256                     # or RS256, for those who verify nothing else
//!   ttl: 5m                              # life of each token, at most
//!   key_life: 7d
//!   publish_ahead: 20m                   # how long a key is published before it signs; default: 4 times `web.refresh_hint`
//!   passphrase_file: jwt-passphrase      # seals the keys in the state folder; default: they rest where the authority's do
//!   issuer: https://oidc.example.org     # `iss` of each token, and where OIDC discovery is found
//!   domains: [oidc.example.org]          # names by which discovery is asked for; default: the issuer's
//!   access_tokens:                       # what `POST /oauth2/token` gives out; a rule's `profile` names one
//!     - { profile: warehouse, audiences: [https://warehouse.example.org], scopes: [read], ttl: 5m }
//! ```
//! Without the section no tokens are made.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use http::Uri;
use serde::Deserialize;
use signet_process::config::{self, ConfigError, Located, Parsed};

use super::file::{seconds, within};
use crate::authority::custody::Algorithm;
use crate::jwt::Schedule;

/// How tokens are made.
#[derive(Clone, Debug)]
pub(crate) struct Jwt {
    pub(crate) algorithm: Algorithm,
    pub(crate) ttl: Duration,
    pub(crate) key_life: Duration,
    pub(crate) publish_ahead: Duration,
    /// Where there is none, keys rest where the authority's do: in files with its passphrase, or in its token.
    pub(crate) passphrase_file: Option<PathBuf>,
    pub(crate) oidc: Option<Oidc>,
    pub(crate) access_tokens: Vec<AccessTokens>,
}

/// A kind of access token, which policy gives to some.
#[derive(Clone, Debug)]
pub(crate) struct AccessTokens {
    /// What a rule's `profile` names.
    pub(crate) profile: String,
    /// Who may be meant. Not empty.
    pub(crate) audiences: Vec<String>,
    pub(crate) scopes: Vec<String>,
    pub(crate) ttl: Duration,
}

/// By what name tokens are issued.
#[derive(Clone, Debug)]
pub(crate) struct Oidc {
    /// An https URL without query, and without a slash at its end.
    pub(crate) issuer: String,
    /// Of the issuer: what stands before the documents' own paths. Empty, or `/…`.
    pub(crate) path: String,
    /// Hosts, without ports.
    pub(crate) domains: Vec<String>,
}

#[derive(Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct JwtFile {
    algorithm: Algorithm,
    ttl: Located<config::Duration>,
    key_life: Located<config::Duration>,
    publish_ahead: Option<Located<config::Duration>>,
    passphrase_file: Option<PathBuf>,
    issuer: Option<Located<Parsed<Uri>>>,
    domains: Option<Located<Vec<String>>>,
    access_tokens: Vec<AccessTokensFile>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct AccessTokensFile {
    profile: Located<String>,
    audiences: Located<Vec<String>>,
    #[serde(default)]
    scopes: Vec<Located<String>>,
    ttl: Option<Located<config::Duration>>,
}

const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(86_400);

impl Default for JwtFile {
    fn default() -> Self {
        let (ttl, key_life) = (seconds(300), seconds(7 * 86_400));
        Self {
            algorithm: Algorithm::Es256,
            ttl,
            key_life,
            publish_ahead: None,
            passphrase_file: None,
            issuer: None,
            domains: None,
            access_tokens: Vec::new(),
        }
    }
}

impl Jwt {
    pub(crate) fn schedule(&self) -> Schedule {
        Schedule { key_life: self.key_life, publish_ahead: self.publish_ahead, longest_token: self.ttl }
    }
}

impl JwtFile {
    /// `is_taken`: whether a profile of certificates has this name.
    pub(super) fn resolve(
        self,
        path: &Path,
        refresh_hint: Duration,
        is_taken: impl Fn(&str) -> bool,
    ) -> Result<Jwt, ConfigError> {
        let ttl = within(path, &self.ttl, "ttl", SECOND..=HOUR)?;
        let key_life = within(path, &self.key_life, "key_life", 4 * SECOND..=365 * DAY)?;
        let publish_ahead = match &self.publish_ahead {
            Some(ahead) => within(path, ahead, "publish_ahead", Duration::ZERO..=30 * DAY)?,
            None => (4 * refresh_hint).min(key_life / 4),
        };
        // Else a key would have to sign before that, or a token would live longer than its key.
        if publish_ahead > key_life / 4 || ttl > key_life / 4 {
            let what = "`key_life` is less than 4 times `publish_ahead` or `ttl`";
            return Err(self.key_life.error(path, what, "have keys live longer"));
        }
        let oidc = match (&self.issuer, &self.domains) {
            (Some(issuer), domains) => Some(oidc(path, issuer, domains.as_ref())?),
            (None, None) => None,
            (None, Some(domains)) => {
                let fix = "name the issuer of tokens, `issuer: https://HOST`, or leave it out";
                return Err(domains.error(path, "`domains` without `issuer`", fix));
            }
        };
        let passphrase_file = self.passphrase_file.as_ref().map(|file| config::beside(path, file));
        let mut access_tokens: Vec<AccessTokens> = Vec::with_capacity(self.access_tokens.len());
        for tokens in self.access_tokens {
            let name = &tokens.profile;
            if oidc.is_none() {
                let fix = "name the issuer of tokens, `issuer: https://HOST`: whoever takes one asks for it";
                return Err(name.error(path, "`access_tokens` without `issuer`", fix));
            }
            if is_taken(name) || access_tokens.iter().any(|other| other.profile == **name) {
                let fix = "give it a name that no other profile has";
                return Err(name.error(path, format!("there is another profile `{}`", name.escape_debug()), fix));
            }
            access_tokens.push(tokens.resolve(path, ttl)?);
        }
        Ok(Jwt { algorithm: self.algorithm, ttl, key_life, publish_ahead, passphrase_file, oidc, access_tokens })
    }
}

impl AccessTokensFile {
    fn resolve(self, path: &Path, longest: Duration) -> Result<AccessTokens, ConfigError> {
        let name = &self.profile;
        let allowed = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-');
        if name.is_empty() || name.len() > MAX_NAME || !name.bytes().all(allowed) {
            let fix = format!("write 1 to {MAX_NAME} of a-z, 0-9 and dash");
            return Err(name.error(path, format!("`{}` is no name of a profile", name.escape_debug()), fix));
        }
        let is_audience = |audience: &String| !audience.is_empty() && !audience.chars().any(char::is_control);
        if self.audiences.is_empty() || !self.audiences.iter().all(is_audience) {
            let fix = "name who takes the token, for example `https://warehouse.example.org`";
            return Err(self.audiences.error(path, "`audiences` names nobody", fix));
        }
        // RFC 6749 §3.3.
        let is_scope = |scope: &str| {
            !scope.is_empty() && scope.bytes().all(|byte| matches!(byte, 0x21 | 0x23..=0x5b | 0x5d..=0x7e))
        };
        if let Some(scope) = self.scopes.iter().find(|scope| !is_scope(scope)) {
            let what = format!("`{}` is no scope", scope.escape_debug());
            return Err(scope.error(path, what, "write it without spaces, quotes and backslashes"));
        }
        let ttl = self.ttl.map(|ttl| within(path, &ttl, "ttl", SECOND..=longest)).transpose()?.unwrap_or(longest);
        let scopes = self.scopes.into_iter().map(|scope| scope.value).collect();
        Ok(AccessTokens { profile: self.profile.value, audiences: self.audiences.value, scopes, ttl })
    }
}

const MAX_NAME: usize = 64;

fn oidc(
    path: &Path,
    issuer: &Located<Parsed<Uri>>,
    domains: Option<&Located<Vec<String>>>,
) -> Result<Oidc, ConfigError> {
    let uri = &issuer.value.0;
    let host = uri.host().filter(|host| !host.is_empty());
    let has_user = uri.authority().is_some_and(|authority| authority.as_str().contains('@'));
    // OpenID Connect Discovery §3.
    let (Some(host), true) =
        (host, uri.scheme() == Some(&http::uri::Scheme::HTTPS) && uri.query().is_none() && !has_user)
    else {
        let fix = "write https://HOST, where others find the keys";
        return Err(issuer.error(path, format!("`{uri}` cannot be an issuer of tokens"), fix));
    };
    let domains = match domains {
        None => vec![host.to_ascii_lowercase()],
        Some(domains) if domains.is_empty() || domains.iter().any(|domain| domain.is_empty()) => {
            return Err(domains.error(path, "`domains` names no host", "leave it out, or name one at least"));
        }
        Some(domains) => domains.iter().map(|domain| domain.to_ascii_lowercase()).collect(),
    };
    let written = uri.to_string();
    let issuer = written.trim_end_matches('/').to_owned();
    Ok(Oidc { issuer, path: uri.path().trim_end_matches('/').to_owned(), domains })
}

/// As it would be written in a file. Empty when there is nothing.
pub(super) fn shown(jwt: Option<&Jwt>) -> String {
    let Some(Jwt { algorithm, ttl, key_life, publish_ahead, passphrase_file, oidc, access_tokens }) = jwt else {
        return String::new();
    };
    let [ttl, key_life, publish_ahead] = [ttl, key_life, publish_ahead].map(|time| config::Duration(*time));
    let mut text = format!(
        "jwt:\n  algorithm: {}\n  ttl: {ttl}\n  key_life: {key_life}\n  publish_ahead: {publish_ahead}\n",
        algorithm.as_str()
    );
    if let Some(file) = passphrase_file {
        let _ = writeln!(text, "  passphrase_file: {:?}", file.display().to_string());
    }
    if let Some(Oidc { issuer, domains, .. }) = oidc {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "  issuer: {issuer:?}\n  domains: {domains:?}");
    }
    for (index, AccessTokens { profile, audiences, scopes, ttl }) in access_tokens.iter().enumerate() {
        let key = if index == 0 { "  access_tokens:\n" } else { "" };
        let ttl = config::Duration(*ttl);
        let _ = writeln!(
            text,
            "{key}    - {{ profile: {profile}, audiences: {audiences:?}, scopes: {scopes:?}, ttl: {ttl} }}"
        );
    }
    text
}
