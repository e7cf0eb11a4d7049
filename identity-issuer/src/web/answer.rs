//! Answers, and what caches are told of them.

use aws_lc_rs::digest::{SHA256, digest};
use bytes::Bytes;
use http::header::{
    ALLOW, CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE, ETAG, HeaderMap, HeaderValue, IF_NONE_MATCH, RETRY_AFTER,
    X_CONTENT_TYPE_OPTIONS,
};
use http::{Response, StatusCode};
use http_body_util::Full;
use hyper::body::Body as _;

use super::Answer;

pub(super) const JSON: &str = "application/json";

/// How long caches may keep a document.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Freshness {
    Seconds(u64),
    /// As long as they ask each time whether there is another.
    Asked,
}

/// A document that is made ahead, and sent again and again.
#[derive(Clone, Debug)]
pub(crate) struct Document {
    content_type: &'static str,
    cache_control: HeaderValue,
    etag: HeaderValue,
    body: Bytes,
}

impl Document {
    pub(crate) fn new(content_type: &'static str, body: impl Into<Bytes>, freshness: Freshness) -> Self {
        let body = body.into();
        let hash = hex::encode(&digest(&SHA256, &body).as_ref()[..16]);
        // Digits and letters are what a header takes.
        let etag = HeaderValue::try_from(format!("\"{hash}\"")).unwrap_or(HeaderValue::from_static("\"\""));
        let cache_control = match freshness {
            Freshness::Seconds(seconds) => HeaderValue::try_from(format!("public, max-age={seconds}")).ok(),
            Freshness::Asked => None,
        };
        let cache_control = cache_control.unwrap_or(HeaderValue::from_static("no-cache"));
        Self { content_type, cache_control, etag, body }
    }

    /// Whole, or that it is what the caller has already (RFC 9110 §13.1.2).
    pub(crate) fn answer(&self, asked: &HeaderMap) -> Answer {
        let is_known = asked.get_all(IF_NONE_MATCH).iter().any(|value| names(value, &self.etag));
        let mut answer = match is_known {
            true => Response::new(Full::default()),
            false => typed(StatusCode::OK, self.content_type, self.body.clone()),
        };
        if is_known {
            *answer.status_mut() = StatusCode::NOT_MODIFIED;
        }
        let headers = answer.headers_mut();
        headers.insert(ETAG, self.etag.clone());
        headers.insert(CACHE_CONTROL, self.cache_control.clone());
        answer
    }
}

/// Whether a list of entity tags, weak or strong, has this one.
fn names(list: &HeaderValue, etag: &HeaderValue) -> bool {
    let Ok(list) = list.to_str() else { return false };
    let tags = list.split(',').map(|tag| tag.trim().trim_start_matches("W/"));
    tags.into_iter().any(|tag| tag == "*" || tag.as_bytes() == etag.as_bytes())
}

pub(super) fn text(status: StatusCode, body: impl Into<Bytes>) -> Answer {
    let mut answer = typed(status, "text/plain; charset=utf-8", body);
    answer.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    answer
}

/// For what is made in a moment.
pub(super) fn not_yet() -> Answer {
    let mut answer = text(StatusCode::SERVICE_UNAVAILABLE, "not yet\n");
    answer.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1"));
    answer
}

pub(super) fn not_allowed(allowed: &'static str) -> Answer {
    let mut answer = text(StatusCode::METHOD_NOT_ALLOWED, format!("allowed: {allowed}\n"));
    answer.headers_mut().insert(ALLOW, HeaderValue::from_static(allowed));
    answer
}

pub(super) fn typed(status: StatusCode, content_type: &'static str, body: impl Into<Bytes>) -> Answer {
    let mut answer = Response::new(Full::new(body.into()));
    *answer.status_mut() = status;
    let headers = answer.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    answer
}

/// For HEAD: what GET would say of it.
pub(super) fn without_body(answer: Answer) -> Answer {
    let (mut parts, body) = answer.into_parts();
    if let Some(length) = body.size_hint().exact().filter(|_| parts.status != StatusCode::NOT_MODIFIED) {
        parts.headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
    }
    Response::from_parts(parts, Full::default())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn what_a_caller_has_already_is_not_sent_again() {
        let document = Document::new(JSON, "{}", Freshness::Seconds(60));
        let whole = document.answer(&HeaderMap::new());
        assert_eq!((whole.status(), whole.body().size_hint().exact()), (StatusCode::OK, Some(2)));
        assert_eq!(whole.headers()[CACHE_CONTROL], "public, max-age=60");
        let etag = whole.headers()[ETAG].to_str().unwrap().to_owned();
        let asked = |value: &str| {
            let headers = HeaderMap::from_iter([(IF_NONE_MATCH, HeaderValue::from_str(value).unwrap())]);
            document.answer(&headers)
        };
        for known in [etag.clone(), format!("W/{etag}"), format!("\"a\", {etag}"), "*".to_owned()] {
            let answer = asked(&known);
            assert_eq!((answer.status(), answer.body().size_hint().exact()), (StatusCode::NOT_MODIFIED, Some(0)));
            assert_eq!(answer.headers()[ETAG].to_str().unwrap(), etag);
        }
        for other in ["\"a\"", "", etag.trim_matches('"')] {
            assert_eq!(asked(other).status(), StatusCode::OK, "{other}");
        }
        let other = Document::new(JSON, "{ }", Freshness::Asked);
        assert_ne!(other.answer(&HeaderMap::new()).headers()[ETAG].to_str().unwrap(), etag);
    }

    #[test]
    fn head_says_how_long_the_answer_would_be() {
        let answer = without_body(Document::new(JSON, "{}", Freshness::Seconds(60)).answer(&HeaderMap::new()));
        assert_eq!(
            (answer.body().size_hint().exact(), &answer.headers()[CONTENT_LENGTH]),
            (Some(0), &"2".parse().unwrap())
        );
    }
}
