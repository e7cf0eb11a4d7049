//! `GET /audit/…`: the files of the audit log, as C2SP tlog-tiles has them.

use std::io::ErrorKind;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use http::{Response, StatusCode};
use http_body_util::Full;
use signet_audit::Resource;
use tokio::sync::watch;

use super::Answer;
use super::answer::text;
use crate::audit::Published;

/// The log of this issuer. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct AuditFiles {
    /// The folder that it is published in.
    pub(crate) files: PathBuf,
    pub(crate) latest: watch::Receiver<Option<Arc<Published>>>,
}

const TEXT: &str = "text/plain; charset=utf-8";
/// What has its name never changes.
const FOR_EVER: &str = "public, max-age=31536000, immutable";

/// The file that a path names.
pub(super) fn resource(path: &str) -> Option<Resource> {
    Resource::parse(path.strip_prefix("/audit/")?)
}

impl AuditFiles {
    pub(super) async fn answer(&self, resource: Resource) -> Answer {
        if resource == Resource::Checkpoint {
            let latest = self.latest.borrow().clone();
            return match latest {
                Some(latest) => file(latest.note.clone(), TEXT, "no-cache"),
                None => text(StatusCode::SERVICE_UNAVAILABLE, "nothing is published yet\n"),
            };
        }
        let (kind, caching) = match resource {
            Resource::Digest(_) => (TEXT, FOR_EVER),
            Resource::LatestDigest | Resource::Witnessed => (TEXT, "no-cache"),
            _ => ("application/octet-stream", FOR_EVER),
        };
        match tokio::fs::read(self.files.join(resource.to_string())).await {
            Ok(bytes) => file(bytes.into(), kind, caching),
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
                text(StatusCode::NOT_FOUND, "the log has no such file\n")
            }
            Err(error) => {
                tracing::error!(file = %resource, %error, "a file of the audit log cannot be read");
                text(StatusCode::INTERNAL_SERVER_ERROR, "it cannot be read\n")
            }
        }
    }
}

fn file(bytes: Bytes, kind: &'static str, caching: &'static str) -> Answer {
    let mut answer = Response::new(Full::new(bytes));
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    answer.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static(caching));
    answer
}
