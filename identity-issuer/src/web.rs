//! What the issuer publishes over HTTP, for those who have no identity of it.
//!
//! | path | answer |
//! |---|---|
//! | `GET /`, `GET /bundle.json` | the SPIFFE bundle of the trust domain (SPIFFE Trust Domain and Bundle §4) |
//! | `POST /oauth2/token` | an access token for whoever holds an X.509-SVID; at the address for SVIDs only |
//! | `GET /audit/checkpoint`, `GET /audit/tile/…` | the audit log (C2SP tlog-tiles) |
//! | `GET /crl/KEY_ID/SHARD.crl` | what is revoked of an authority's certificates (RFC 5280 §5) |
//! | `GET /.well-known/openid-configuration`, `GET /keys` | OIDC discovery, and the keys of JWT-SVIDs |
//!
//! ```text
//! accept ─► place ─► TLS, or none ─► HTTP/1.1 or HTTP/2 ─► route ─► answer, made ahead
//!            │ the oldest gives way
//! ```
//! Whoever asks may be anybody: each route answers what was made ahead, so that a request costs no
//! signature and no query.

mod answer;
mod audit;
mod body;
mod bundle;
mod certificate;
mod crl;
mod exchange;
mod oidc;
mod server;

use std::sync::Arc;

use bytes::Bytes;
use http::request::Parts;
use http::{Method, Response, StatusCode};
use http_body_util::Full;
use signet_audit::Resource;
use signet_identity::PeerIdentity;

pub(crate) use audit::AuditFiles;
pub(crate) use bundle::{BundlePage, Publisher};
pub use certificate::CertificateFilesError;
pub(crate) use certificate::{CertificateFiles, ServedCertificate};
pub(crate) use exchange::Exchange;
pub(crate) use oidc::OidcPages;
pub(crate) use server::{Door, Server};

use crate::crl::{Crls, Place};
use crate::metrics::Metrics;
pub(crate) use answer::{Document, Freshness};
use answer::{not_allowed, text};
use body::Unread;
use oidc::OidcPage;

pub(crate) type Answer = Response<Full<Bytes>>;

/// What stands behind the routes. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Site {
    pub(crate) bundle: BundlePage,
    /// None where tokens have no issuer's name.
    pub(crate) oidc: Option<OidcPages>,
    /// None where no access tokens are given out.
    pub(crate) exchange: Option<Exchange>,
    pub(crate) crls: Crls,
    pub(crate) audit: AuditFiles,
    pub(crate) metrics: Metrics,
}

/// The routes that there are.
#[derive(Clone, Debug, Eq, PartialEq)]
enum Route {
    Bundle,
    Crl(Place),
    Audit(Resource),
    Oidc(OidcPage),
    Exchange,
    /// There is nothing.
    None,
}

impl Route {
    /// As metrics call it.
    fn label(&self) -> &'static str {
        match self {
            Self::Bundle => "bundle",
            Self::Crl(_) => "crl",
            Self::Audit(_) => "audit",
            Self::Oidc(OidcPage::Discovery) => "oidc_discovery",
            Self::Oidc(OidcPage::Keys) => "oidc_keys",
            Self::Exchange => "oauth2_token",
            Self::None => "none",
        }
    }
}

impl Site {
    fn route(&self, path: &str) -> Route {
        match (path, self.oidc.as_ref().and_then(|oidc| oidc.page(path))) {
            ("/" | "/bundle.json", _) => Route::Bundle,
            ("/oauth2/token", _) => Route::Exchange,
            (_, Some(page)) => Route::Oidc(page),
            (path, None) => match (crl::place(path), audit::resource(path)) {
                (Some(place), _) => Route::Crl(place),
                (None, Some(resource)) => Route::Audit(resource),
                (None, None) => Route::None,
            },
        }
    }

    async fn answer(&self, request: &Parts, body: Result<Bytes, Unread>, peer: Option<&Arc<PeerIdentity>>) -> Answer {
        let route = self.route(request.uri.path());
        let is_read = matches!(request.method, Method::GET | Method::HEAD);
        let answer = match (&route, &self.oidc) {
            (Route::Exchange, _) => match &self.exchange {
                Some(exchange) => exchange.answer(request, body, peer).await,
                None => text(StatusCode::NOT_FOUND, "no access tokens are given out here\n"),
            },
            (Route::None, _) | (Route::Oidc(_), None) => {
                text(StatusCode::NOT_FOUND, "not found; there is /bundle.json\n")
            }
            (Route::Bundle | Route::Oidc(_) | Route::Crl(_) | Route::Audit(_), _) if !is_read => {
                not_allowed("GET, HEAD")
            }
            (Route::Audit(resource), _) => self.audit.answer(*resource).await,
            (Route::Crl(place), _) => crl::answer(&self.crls, place, &request.headers),
            (Route::Bundle, _) => self.bundle.answer(&request.headers),
            (Route::Oidc(page), Some(oidc)) => oidc.answer(*page, request),
        };
        self.metrics.web_request(route.label(), answer.status());
        if request.method == Method::HEAD { answer::without_body(answer) } else { answer }
    }
}
