//! What each path of the admin address answers.

use bytes::Bytes;
use http::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderValue, ORIGIN, X_CONTENT_TYPE_OPTIONS};
use http::{Method, Request, Response, StatusCode};
use http_body_util::Full;
use prometheus::TextEncoder;
use serde::Serialize;
use signet_identity::{RevocationCounts, Revocations, Snapshot};
use time::OffsetDateTime;

use super::AdminBuilder;
use crate::identity_slot::rfc3339;
use crate::logging::{LogLevel, UnknownLevel};

type Answer = Response<Full<Bytes>>;

/// Answers one request; its body, if it has one, is not read.
pub(super) fn answer<B>(admin: &AdminBuilder, request: &Request<B>) -> Answer {
    let read = matches!(*request.method(), Method::GET | Method::HEAD);
    match request.uri().path() {
        "/log" if request.method() == Method::POST => set_level(admin, request),
        "/log" if read => level(admin),
        "/log" => not_allowed("GET, HEAD, POST"),
        "/metrics" | "/live" | "/ready" | "/identity" | "/config" | "/build" if !read => not_allowed("GET, HEAD"),
        "/metrics" => metrics(admin),
        "/live" => text(StatusCode::OK, "live\n"),
        "/ready" => ready(admin),
        "/identity" => identity(admin),
        "/config" => typed(StatusCode::OK, "application/yaml", admin.config.clone()),
        "/build" => build(admin),
        path => match page(admin, path) {
            Some(_) if !read => not_allowed("GET, HEAD"),
            Some(answer) => json(StatusCode::OK, &answer),
            None => not_found(admin),
        },
    }
}

/// Of those that only this process has.
fn page(admin: &AdminBuilder, path: &str) -> Option<serde_json::Value> {
    admin.pages.iter().find_map(|page| {
        let below = path.strip_prefix(page.path).filter(|below| below.is_empty() || below.starts_with('/'))?;
        (page.answer)(below)
    })
}

fn not_found(admin: &AdminBuilder) -> Answer {
    let own: String = admin.pages.iter().map(|page| format!(", {}", page.path)).collect();
    text(
        StatusCode::NOT_FOUND,
        format!("not found; there are /metrics, /live, /ready, /identity, /config, /log, /build{own}\n"),
    )
}

fn metrics(admin: &AdminBuilder) -> Answer {
    match TextEncoder::new().encode_to_string(&admin.registry.gather()) {
        Ok(text) => typed(StatusCode::OK, prometheus::TEXT_FORMAT, text),
        Err(cause) => {
            tracing::error!(%cause, "cannot encode metrics");
            text(StatusCode::INTERNAL_SERVER_ERROR, "metrics cannot be encoded; see the log\n")
        }
    }
}

#[derive(Serialize)]
struct Ready {
    ready: bool,
    reasons: Vec<Reason>,
}

#[derive(Serialize)]
struct Reason {
    component: &'static str,
    reason: String,
}

fn ready(admin: &AdminBuilder) -> Answer {
    let mut reasons: Vec<Reason> =
        admin.readiness.reasons().into_iter().map(|(component, reason)| Reason { component, reason }).collect();
    match (admin.identity.unusable(), reasons.iter().position(|reason| reason.component == IDENTITY)) {
        // A working identity is worth more than what was last said of its source.
        (None, Some(told)) => drop(reasons.remove(told)),
        // Of an identity that ran out, both count: that it did, and why there is no newer one.
        (Some(reason), Some(told)) if admin.identity.live().is_some() => {
            reasons[told].reason = format!("{reason}; {}", reasons[told].reason);
        }
        (Some(reason), None) => reasons.push(Reason { component: IDENTITY, reason }),
        (None, None) | (Some(_), Some(_)) => {}
    }
    let status = if reasons.is_empty() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    json(status, &Ready { ready: reasons.is_empty(), reasons })
}

#[derive(Serialize)]
struct Identity<'a> {
    spiffe_id: &'a str,
    serial: String,
    not_before: String,
    not_after: String,
    renew_at: String,
    seconds_left: i64,
    generation: u64,
    trust_epoch: u64,
    /// What of its own chain is revoked; left out when nothing is.
    #[serde(skip_serializing_if = "Option::is_none")]
    revoked: Option<String>,
    trust_domains: Vec<TrustDomain<'a>>,
}

#[derive(Serialize)]
struct TrustDomain<'a> {
    trust_domain: &'a str,
    authorities: usize,
    /// When the last of its authorities expires; none when it has none.
    expires_at: Option<String>,
    seconds_left: i64,
    /// None where the trust domain has told nothing of what is revoked.
    revocations: Option<Revoked>,
}

#[derive(Serialize)]
struct Revoked {
    epoch: u64,
    serials: usize,
    keys: usize,
    authorities: usize,
}

fn identity(admin: &AdminBuilder) -> Answer {
    let Some(live) = admin.identity.live() else {
        let reasons = admin.readiness.reasons();
        let told = reasons.iter().find(|(component, _)| *component == IDENTITY);
        let reason = told.map_or("no identity yet", |(_, reason)| reason);
        return json(StatusCode::SERVICE_UNAVAILABLE, &serde_json::json!({ "error": reason }));
    };
    let snapshot = live.load_full();
    json(StatusCode::OK, &Identity::of(&snapshot, admin.identity.now()))
}

impl<'a> Identity<'a> {
    fn of(snapshot: &'a Snapshot, now: OffsetDateTime) -> Self {
        let svid = snapshot.svid();
        let domains = snapshot.bundles().iter().map(|bundle| {
            let end = bundle.expires_at();
            let revocations = snapshot.revocations().get(bundle.trust_domain()).map(Revoked::of);
            TrustDomain {
                trust_domain: bundle.trust_domain().as_str(),
                authorities: bundle.authorities().len(),
                expires_at: end.map(rfc3339),
                seconds_left: end.map_or(0, |end| seconds_between(now, end)),
                revocations,
            }
        });
        Self {
            spiffe_id: svid.id().as_str(),
            serial: svid.serial().to_string(),
            not_before: rfc3339(svid.not_before()),
            not_after: rfc3339(svid.not_after()),
            renew_at: rfc3339(svid.renew_at()),
            seconds_left: seconds_between(now, svid.not_after()),
            generation: snapshot.generation().get(),
            trust_epoch: snapshot.trust_epoch().get(),
            revoked: snapshot.own_revoked().map(ToString::to_string),
            trust_domains: domains.collect(),
        }
    }
}

impl Revoked {
    fn of(known: &Revocations) -> Self {
        let RevocationCounts { serials, keys, authorities } = known.counts();
        Self { epoch: known.epoch(), serials, keys, authorities }
    }
}

/// Whole seconds left until `end`, never below 0.
fn seconds_between(now: OffsetDateTime, end: OffsetDateTime) -> i64 {
    (end - now).whole_seconds().max(0)
}

fn level(admin: &AdminBuilder) -> Answer {
    match &admin.log {
        Some(log) => text(StatusCode::OK, format!("{}\n", log.level())),
        None => text(StatusCode::NOT_FOUND, NOT_OURS),
    }
}

fn set_level<B>(admin: &AdminBuilder, request: &Request<B>) -> Answer {
    // A page in an operator's browser can post here across origins; nothing that is meant to does it with an origin.
    if request.headers().contains_key(ORIGIN) {
        return text(StatusCode::FORBIDDEN, "not for browsers\n");
    }
    let asked = request.uri().query().unwrap_or_default().strip_prefix("level=").unwrap_or_default();
    let level = match asked.parse::<LogLevel>() {
        Ok(level) => level,
        Err(UnknownLevel) => return text(StatusCode::BAD_REQUEST, format!("{UnknownLevel}: POST /log?level=debug\n")),
    };
    match &admin.log {
        Some(log) if log.set_level(level) => {
            tracing::warn!(%level, "log level changed");
            text(StatusCode::OK, format!("{level}\n"))
        }
        Some(_) | None => text(StatusCode::CONFLICT, NOT_OURS),
    }
}

fn build(admin: &AdminBuilder) -> Answer {
    json(
        StatusCode::OK,
        &serde_json::json!({
            "process": admin.process,
            "version": env!("CARGO_PKG_VERSION"),
            "rustc": env!("SIGNET_RUSTC"),
            "target": env!("SIGNET_TARGET"),
            "profile": if cfg!(debug_assertions) { "debug" } else { "release" },
        }),
    )
}

fn not_allowed(allowed: &'static str) -> Answer {
    let mut answer = text(StatusCode::METHOD_NOT_ALLOWED, format!("allowed: {allowed}\n"));
    answer.headers_mut().insert(ALLOW, HeaderValue::from_static(allowed));
    answer
}

fn json(status: StatusCode, body: &impl Serialize) -> Answer {
    match serde_json::to_string_pretty(body) {
        Ok(body) => typed(status, "application/json", body + "\n"),
        Err(cause) => {
            tracing::error!(%cause, "cannot encode an admin answer");
            text(StatusCode::INTERNAL_SERVER_ERROR, "the answer cannot be encoded; see the log\n")
        }
    }
}

fn text(status: StatusCode, body: impl Into<Bytes>) -> Answer {
    typed(status, "text/plain; charset=utf-8", body)
}

fn typed(status: StatusCode, content_type: &'static str, body: impl Into<Bytes>) -> Answer {
    let mut answer = Response::new(Full::new(body.into()));
    *answer.status_mut() = status;
    let headers = answer.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    answer
}

const IDENTITY: &str = "identity";

const NOT_OURS: &str = "this process's log belongs to the program that embeds it\n";
