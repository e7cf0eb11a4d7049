//! OpenID Connect Discovery 1.0: what clouds, databases and API gateways need to verify JWT-SVIDs, and nothing of a login.
//!
//! It is told under the issuer's own names only: a proxy that passes on whatever it is sent makes nobody else an issuer.

use std::sync::Arc;

use arc_swap::ArcSwapOption;
use http::StatusCode;
use http::header::{ACCESS_CONTROL_ALLOW_ORIGIN, HOST, HeaderValue};
use http::request::Parts;
use serde_json::json;

use super::Answer;
use super::answer::{Document, Freshness, JSON, not_yet, text};
use crate::config::Oidc;
use crate::jwt::JwtAuthorities;

/// Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct OidcPages(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    oidc: Oidc,
    discovery: Document,
    keys: ArcSwapOption<Document>,
}

/// One of its two documents.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum OidcPage {
    Discovery,
    Keys,
}

impl OidcPages {
    pub(crate) fn new(oidc: Oidc) -> Self {
        let issuer = &oidc.issuer;
        // As SPIRE's provider says it, which those who verify know.
        let discovery = json!({
            "issuer": issuer,
            "jwks_uri": format!("{issuer}/keys"),
            "authorization_endpoint": "",
            "response_types_supported": ["id_token"],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": ["RS256", "ES256", "ES384"],
        });
        let discovery = Document::new(JSON, discovery.to_string(), Freshness::Asked);
        Self(Arc::new(Inner { oidc, discovery, keys: ArcSwapOption::empty() }))
    }

    pub(super) fn page(&self, path: &str) -> Option<OidcPage> {
        match path.strip_prefix(self.0.oidc.path.as_str())? {
            "/.well-known/openid-configuration" => Some(OidcPage::Discovery),
            "/keys" => Some(OidcPage::Keys),
            _ => None,
        }
    }

    pub(super) fn publish(&self, keys: &JwtAuthorities) {
        let document = Document::new(JSON, keys.to_oidc().to_string(), Freshness::Asked);
        self.0.keys.store(Some(Arc::new(document)));
    }

    pub(super) fn answer(&self, page: OidcPage, request: &Parts) -> Answer {
        if !host_of(request)
            .is_some_and(|host| self.0.oidc.domains.iter().any(|domain| domain.eq_ignore_ascii_case(host)))
        {
            return text(StatusCode::BAD_REQUEST, "this is not the issuer of tokens for that host\n");
        }
        let mut answer = match page {
            OidcPage::Discovery => self.0.discovery.answer(&request.headers),
            OidcPage::Keys => self.0.keys.load().as_ref().map_or_else(not_yet, |keys| keys.answer(&request.headers)),
        };
        // Browsers verify tokens too.
        answer.headers_mut().insert(ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
        answer
    }
}

/// Whom the request is for, without the port.
fn host_of(request: &Parts) -> Option<&str> {
    let authority = match request.uri.authority() {
        Some(authority) => authority.as_str(),
        None => {
            let mut hosts = request.headers.get_all(HOST).iter();
            let (host, None) = (hosts.next()?, hosts.next()) else { return None };
            host.to_str().ok()?
        }
    };
    match authority.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => Some(host),
        _ => Some(authority),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use http::Request;

    use super::*;

    fn pages(path: &str) -> OidcPages {
        OidcPages::new(Oidc {
            issuer: format!("https://oidc.example.org{path}"),
            path: path.to_owned(),
            domains: vec!["oidc.example.org".to_owned(), "[2001:db8::1]".to_owned()],
        })
    }

    fn status(pages: &OidcPages, uri: &str, hosts: &[&str]) -> StatusCode {
        let request = hosts.iter().fold(Request::get(uri), |request, host| request.header(HOST, *host));
        let (head, ()) = request.body(()).unwrap().into_parts();
        pages.answer(pages.page(head.uri.path()).unwrap(), &head).status()
    }

    #[test]
    fn it_answers_to_its_own_names_only() {
        let pages = pages("");
        pages.publish(&JwtAuthorities::default());
        for host in ["oidc.example.org", "OIDC.example.org", "oidc.example.org:443", "[2001:db8::1]", "[2001:db8::1]:8"]
        {
            assert_eq!(status(&pages, "/keys", &[host]), StatusCode::OK, "{host}");
        }
        for hosts in [
            &[][..],
            &["example.org"],
            &["oidc.example.org.evil.example"],
            &["oidc.example.org@evil.example"],
            &["oidc.example.org:80:80"],
            &["oidc.example.org", "oidc.example.org"],
        ] {
            assert_eq!(status(&pages, "/keys", hosts), StatusCode::BAD_REQUEST, "{hosts:?}");
        }
        assert_eq!(status(&pages, "https://oidc.example.org/keys", &[]), StatusCode::OK);
        assert_eq!(status(&pages, "https://evil.example/keys", &["oidc.example.org"]), StatusCode::BAD_REQUEST);
    }

    #[test]
    fn an_issuer_below_a_path_has_its_documents_there() {
        let pages = pages("/prod");
        assert_eq!(pages.page("/prod/.well-known/openid-configuration"), Some(OidcPage::Discovery));
        assert_eq!(pages.page("/prod/keys"), Some(OidcPage::Keys));
        assert_eq!(pages.page("/keys"), None);
        assert_eq!(status(&pages, "/prod/keys", &["oidc.example.org"]), StatusCode::SERVICE_UNAVAILABLE);
    }
}
