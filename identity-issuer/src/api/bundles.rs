//! `signet.admin.v1`, as far as it is about what is trusted.

use signet_proto::admin::v1::{ListBundlesResponse, PublishedBundle};
use time::OffsetDateTime;
use tonic::Status;

use super::{store_status, timestamp};
use crate::bundles::{ForgetError, Shared};

pub(super) async fn list(bundles: &Shared, now: OffsetDateTime) -> Result<ListBundlesResponse, Status> {
    let published = bundles.published(now).await.map_err(|error| store_status(&error))?;
    let told = published.into_iter().map(|record| PublishedBundle {
        own: bundles.is_own(&record),
        issuer: record.issuer,
        published_at: Some(timestamp(record.published_at)),
        trust_domain: record.bundle.trust_domain().to_string(),
        x509_authorities: u32::try_from(record.bundle.authorities().len()).unwrap_or(u32::MAX),
        expires_at: record.bundle.expires_at().map(timestamp),
    });
    Ok(ListBundlesResponse { bundles: told.collect() })
}

pub(super) async fn forget(bundles: &Shared, issuer: String, now: OffsetDateTime) -> Result<(), Status> {
    bundles.forget(issuer, now).await.map_err(|error| match error {
        ForgetError::Unknown => Status::not_found(format!("issuer: {error}")),
        ForgetError::Alive { .. } => Status::failed_precondition(format!("issuer: {error}")),
        ForgetError::Store(error) => store_status(&error),
    })
}
