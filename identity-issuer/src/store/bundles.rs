//! What each issuer on this database has its clients trust.

use signet_identity::{BundleSet, TrustBundle};
use sqlx::AnyConnection;
use time::OffsetDateTime;

use super::database::in_time;
use super::{Store, StoreError, Write, microseconds, time};

/// What one issuer says that is to be trusted.
#[derive(Clone, Debug)]
pub(crate) struct PublishedBundles {
    /// Who: a hash of its authority's key.
    pub(crate) issuer: String,
    pub(crate) bundles: BundleSet,
    pub(crate) at: OffsetDateTime,
    /// When all has expired that it has issued.
    pub(crate) good_until: OffsetDateTime,
}

/// What is changed of that.
#[derive(Clone, Debug)]
pub(crate) enum BundlesChange {
    /// Replaces what the issuer had said before.
    Publish(PublishedBundles),
    /// Takes back what an issuer had said that was not heard of since.
    Forget { issuer: String, since: OffsetDateTime },
}

/// One bundle on record.
#[derive(Clone, Debug)]
pub(crate) struct BundleRecord {
    pub(crate) issuer: String,
    pub(crate) bundle: TrustBundle,
    pub(crate) published_at: OffsetDateTime,
}

type Row = (String, String, String, i64);

impl Store {
    /// Makes it durable; how many bundles it is about.
    pub(crate) async fn change_bundles(&self, change: BundlesChange) -> Result<u64, StoreError> {
        let (reply, outcome) = tokio::sync::oneshot::channel();
        self.queue.submit(Write::Bundles { change, reply })?;
        outcome.await.map_err(|_| StoreError::Closed)?
    }

    /// Of all issuers that may have issued something that is still valid.
    pub(crate) async fn published_bundles(&self, now: OffsetDateTime) -> Result<Vec<BundleRecord>, StoreError> {
        let rows: Vec<Row> = in_time(
            sqlx::query_as(
                "SELECT issuer, trust_domain, certificates, published_at FROM issuer_bundles WHERE good_until >= $1 \
                 ORDER BY issuer, trust_domain LIMIT $2",
            )
            .bind(microseconds(now))
            .bind(MOST)
            .fetch_all(&self.database.lists),
        )
        .await?;
        if rows.len() as i64 == MOST {
            return Err(StoreError::Record { what: "more trust bundles than issuers could have" });
        }
        rows.into_iter().map(record).collect()
    }
}

/// Of so many issuers and trust domains that none has them.
const MOST: i64 = 4096;

fn record((issuer, trust_domain, certificates, published_at): Row) -> Result<BundleRecord, StoreError> {
    let wrong = || StoreError::Record { what: "not a trust bundle" };
    let trust_domain = trust_domain.parse().map_err(|_| wrong())?;
    let bundle = TrustBundle::from_pem(trust_domain, certificates.as_bytes()).map_err(|_| wrong())?;
    Ok(BundleRecord { issuer, bundle, published_at: time(published_at)? })
}

/// Returns how many records it changed.
pub(super) async fn change(connection: &mut AnyConnection, change: &BundlesChange) -> Result<u64, sqlx::Error> {
    match change {
        BundlesChange::Publish(published) => publish(connection, published).await,
        BundlesChange::Forget { issuer, since } => {
            let removal = sqlx::query("DELETE FROM issuer_bundles WHERE issuer = $1 AND published_at < $2");
            Ok(removal.bind(issuer).bind(microseconds(*since)).execute(connection).await?.rows_affected())
        }
    }
}

async fn publish(connection: &mut AnyConnection, published: &PublishedBundles) -> Result<u64, sqlx::Error> {
    let PublishedBundles { issuer, bundles, at, good_until } = published;
    let removal = sqlx::query("DELETE FROM issuer_bundles WHERE issuer = $1 OR good_until < $2");
    removal.bind(issuer).bind(microseconds(*at)).execute(&mut *connection).await?;
    let mut written = 0;
    for bundle in bundles.iter() {
        let insertion = sqlx::query(
            "INSERT INTO issuer_bundles (issuer, trust_domain, certificates, published_at, good_until) \
             VALUES ($1, $2, $3, $4, $5)",
        );
        let insertion = insertion.bind(issuer).bind(bundle.trust_domain().as_str()).bind(bundle.to_pem());
        let insertion = insertion.bind(microseconds(*at)).bind(microseconds(*good_until));
        written += insertion.execute(&mut *connection).await?.rows_affected();
    }
    Ok(written)
}
