//! The trust domain's SPIFFE bundle, as others fetch it (SPIFFE Trust Domain and Bundle §4).
//!
//! ```json
//! {"spiffe_sequence": 1800000000, "spiffe_refresh_hint": 300, "keys": [{"use": "x509-svid", "kty": "EC", …, "x5c": ["MIIB…"]}]}
//! ```
//! Its sequence is on record, so that it never goes back: not at a restart, and not from one issuer on the database to another.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::HeaderMap;
use serde_json::{Value, json};
use signet_identity::{BundleSet, TrustDomain};
use tokio::sync::watch;
use x509_parser::prelude::{FromDer as _, X509Certificate};

use super::Answer;
use super::OidcPages;
use super::answer::{Document, Freshness, JSON, not_yet};
use crate::bundles::Bundles;
use crate::complaint::Complaint;
use crate::jwt::{JwtBundles, key_parameters};
use crate::store::{Store, StoreError};

/// The document as it is now. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub(crate) struct BundlePage(Arc<ArcSwapOption<Document>>);

/// Keeps the document in step with what is trusted.
#[derive(Debug)]
pub(crate) struct Publisher {
    pub(crate) trust_domain: TrustDomain,
    pub(crate) bundles: Bundles,
    pub(crate) store: Store,
    pub(crate) refresh_hint: Duration,
    pub(crate) page: BundlePage,
    pub(crate) oidc: Option<OidcPages>,
}

/// What is published.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
struct Published {
    content: [u8; 32],
    sequence: u64,
}

/// Between two looks at what the other issuers have published; and before another attempt.
const LOOK: Duration = Duration::from_secs(15);
const RETRY: Duration = Duration::from_secs(1);

impl BundlePage {
    pub(super) fn answer(&self, asked: &HeaderMap) -> Answer {
        self.0.load().as_ref().map_or_else(not_yet, |document| document.answer(asked))
    }
}

impl Publisher {
    /// Until cancelled.
    pub(crate) async fn run(self) {
        let mut in_force = self.bundles.in_force();
        let mut jwt = self.bundles.jwt_in_force();
        let mut published = None;
        let mut complaint = Complaint::default();
        loop {
            let wait = match self.publish(&mut in_force, &mut jwt, &mut published).await {
                Ok(()) => {
                    complaint.clear();
                    LOOK
                }
                Err(error) => {
                    if let Some(cause) = complaint.of(&error) {
                        tracing::warn!(cause, "the bundle is not published; the last one stays");
                    }
                    RETRY
                }
            };
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                // The senders live in `bundles`.
                _ = in_force.changed() => {}
                _ = jwt.changed() => {}
            }
        }
    }

    async fn publish(
        &self,
        in_force: &mut watch::Receiver<BundleSet>,
        jwt: &mut watch::Receiver<JwtBundles>,
        published: &mut Option<Published>,
    ) -> Result<(), StoreError> {
        let bundles = in_force.borrow_and_update().clone();
        let jwt = jwt.borrow_and_update().get(&self.trust_domain).cloned().unwrap_or_default();
        if let Some(oidc) = &self.oidc {
            oidc.publish(&jwt);
        }
        let mut keys = self.keys(&bundles);
        keys.extend(jwt.to_bundle_keys());
        let hint = self.refresh_hint.as_secs();
        let content = content_of(&keys, hint);
        let next = match *published {
            Some(present) if present.content == content => {
                // Another issuer may have come to the same by a longer way.
                let recorded = self.store.bundle_sequence().await?;
                let later = recorded.filter(|(of, sequence)| *of == content && *sequence > present.sequence);
                later.map_or(present, |(content, sequence)| Published { content, sequence })
            }
            _ => Published { content, sequence: self.store.next_bundle_sequence(content).await? },
        };
        if *published != Some(next) {
            let document = json!({"spiffe_sequence": next.sequence, "spiffe_refresh_hint": hint, "keys": keys});
            // A quarter of the hint, as SPIRE polls: no cache makes it older than that by much.
            let document = Document::new(JSON, document.to_string(), Freshness::Seconds(hint / 4));
            self.page.0.store(Some(Arc::new(document)));
            tracing::info!(sequence = next.sequence, "bundle published");
            *published = Some(next);
        }
        Ok(())
    }

    fn keys(&self, bundles: &BundleSet) -> Vec<Value> {
        let authorities = bundles.get(&self.trust_domain).map(|bundle| bundle.authorities()).unwrap_or_default();
        let mut keys: Vec<_> = authorities.iter().filter_map(|der| x509_key(der)).collect();
        // In an order that says nothing, so that equal contents are equal.
        keys.sort_by_key(Value::to_string);
        keys
    }
}

/// By which equal contents are known.
fn content_of(keys: &[Value], hint: u64) -> [u8; 32] {
    let text = json!({"hint": hint, "keys": keys}).to_string();
    let mut content = [0; 32];
    content.copy_from_slice(digest(&SHA256, text.as_bytes()).as_ref());
    content
}

/// An authority as a JSON Web Key (RFC 7517, RFC 7518 §6). None of one whose key has no form there.
fn x509_key(der: &[u8]) -> Option<Value> {
    let (_, certificate) = X509Certificate::from_der(der).ok()?;
    let mut key = key_parameters(certificate.public_key())?;
    key["use"] = json!("x509-svid");
    key["x5c"] = json!([STANDARD.encode(der)]);
    Some(key)
}
