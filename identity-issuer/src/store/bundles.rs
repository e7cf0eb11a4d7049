//! What each issuer on this database has its clients trust, as it has signed it.

use sqlx::AnyConnection;
use time::OffsetDateTime;

use super::database::in_time;
use super::{Store, StoreError, Write, microseconds};

/// What one issuer says. What is on record was verified by nobody.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct SignedBundles {
    pub(crate) issuer: String,
    pub(crate) statement: String,
    pub(crate) signature: Vec<u8>,
    /// Of the authority that signed it, PEM.
    pub(crate) chain: String,
}

/// What is changed of that.
#[derive(Clone, Debug)]
pub(crate) enum BundlesChange {
    /// Replaces what the issuer had said before.
    Publish(SignedBundles, OffsetDateTime),
    /// Takes back what an issuer had said by these authorities, as that issuer itself wants it.
    Withdraw(Vec<String>),
    /// Takes back what an issuer had said that was not heard of since; nor was it after `until`, which only a wrong clock tells.
    Forget { issuer: String, since: OffsetDateTime, until: OffsetDateTime },
}

/// Of one issuer.
#[derive(Clone, Debug)]
pub(crate) enum PublishedBundles {
    Said(SignedBundles),
    Forgotten { issuer: String },
}

type Row = (String, Option<String>, Option<Vec<u8>>, Option<String>);

impl Store {
    /// Makes it durable; how many records it is about.
    pub(crate) async fn change_bundles(&self, change: BundlesChange) -> Result<u64, StoreError> {
        let (reply, outcome) = tokio::sync::oneshot::channel();
        self.queue.submit(Write::Bundles { change, reply })?;
        outcome.await.map_err(|_| StoreError::Closed)?
    }

    /// Of all issuers that there ever were; those that were heard of last.
    pub(crate) async fn published_bundles(&self) -> Result<Vec<PublishedBundles>, StoreError> {
        let rows: Vec<Row> = in_time(
            sqlx::query_as(
                "SELECT issuer, statement, signature, chain FROM issuer_bundles \
                 ORDER BY published_at DESC LIMIT $1",
            )
            .bind(MOST)
            .fetch_all(&self.database.lists),
        )
        .await?;
        Ok(rows.into_iter().map(published).collect())
    }
}

/// More than there are issuers.
const MOST: i64 = 256;

fn published((issuer, statement, signature, chain): Row) -> PublishedBundles {
    match (statement, signature, chain) {
        (Some(statement), Some(signature), Some(chain)) => {
            PublishedBundles::Said(SignedBundles { issuer, statement, signature, chain })
        }
        _ => PublishedBundles::Forgotten { issuer },
    }
}

/// Returns how many records it changed.
pub(super) async fn change(connection: &mut AnyConnection, change: &BundlesChange) -> Result<u64, sqlx::Error> {
    let mut changed = 0;
    let statement = match change {
        BundlesChange::Publish(SignedBundles { issuer, statement, signature, chain }, at) => {
            let insertion = sqlx::query(
                "INSERT INTO issuer_bundles (issuer, statement, signature, chain, published_at) \
                 VALUES ($1, $2, $3, $4, $5) ON CONFLICT (issuer) DO UPDATE SET statement = excluded.statement, \
                 signature = excluded.signature, chain = excluded.chain, published_at = excluded.published_at",
            );
            insertion.bind(issuer).bind(statement).bind(signature).bind(chain).bind(microseconds(*at))
        }
        BundlesChange::Withdraw(issuers) => {
            for issuer in issuers {
                let change = sqlx::query(
                    "UPDATE issuer_bundles SET statement = NULL, signature = NULL, chain = NULL \
                     WHERE issuer = $1 AND statement IS NOT NULL",
                );
                changed += change.bind(issuer).execute(&mut *connection).await?.rows_affected();
            }
            return Ok(changed);
        }
        BundlesChange::Forget { issuer, since, until } => {
            let change = sqlx::query(
                "UPDATE issuer_bundles SET statement = NULL, signature = NULL, chain = NULL \
                 WHERE issuer = $1 AND statement IS NOT NULL AND (published_at < $2 OR published_at > $3)",
            );
            change.bind(issuer).bind(microseconds(*since)).bind(microseconds(*until))
        }
    };
    Ok(statement.execute(connection).await?.rows_affected())
}
