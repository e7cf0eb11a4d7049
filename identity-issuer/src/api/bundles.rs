//! `signet.admin.v1`, as far as it is about what is trusted.

use signet_proto::admin::v1::{ListBundlesResponse, PublishedBundle};
use time::OffsetDateTime;
use tonic::Status;

use super::{store_status, timestamp};
use crate::bundles::{ForgetError, Shared};

pub(super) fn list(bundles: &Shared, now: OffsetDateTime) -> ListBundlesResponse {
    let mut told = Vec::new();
    for said in bundles.said() {
        told.extend(said.bundles.iter().map(|bundle| PublishedBundle {
            issuer: said.issuer.clone(),
            own: said.is_own,
            published_at: Some(timestamp(said.at.unwrap_or(now))),
            trust_domain: bundle.trust_domain().to_string(),
            x509_authorities: u32::try_from(bundle.authorities().len()).unwrap_or(u32::MAX),
            expires_at: bundle.expires_at().map(timestamp),
        }));
    }
    ListBundlesResponse { bundles: told }
}

pub(super) async fn forget(bundles: &Shared, issuer: String) -> Result<(), Status> {
    bundles.forget(issuer).await.map_err(|error| match error {
        ForgetError::Unknown => Status::not_found(format!("issuer: {error}")),
        ForgetError::Alive { .. } => Status::failed_precondition(format!("issuer: {error}")),
        ForgetError::Store(error) => store_status(&error),
    })
}
