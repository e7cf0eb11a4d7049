//! The number of the bundle that is published: larger with each change, whichever issuer makes it.

use sqlx::AnyConnection;

use super::database::in_time;
use super::{Store, StoreError, Write};

impl Store {
    /// The number of this content: the same as before if it is the one that was published last.
    pub(crate) async fn next_bundle_sequence(&self, content: [u8; 32]) -> Result<u64, StoreError> {
        let (reply, outcome) = tokio::sync::oneshot::channel();
        self.queue.submit(Write::BundleSequence { content, reply })?;
        outcome.await.map_err(|_| StoreError::Closed)?
    }

    /// What was published last.
    pub(crate) async fn bundle_sequence(&self) -> Result<Option<([u8; 32], u64)>, StoreError> {
        let query = sqlx::query_as("SELECT content, sequence FROM bundle_sequence");
        let row: Option<(Vec<u8>, i64)> = in_time(query.fetch_optional(&self.database.lists)).await?;
        let wrong = StoreError::Record { what: "not a bundle's sequence" };
        let read = |(content, sequence): (Vec<u8>, i64)| Some((content.try_into().ok()?, sequence.try_into().ok()?));
        row.map(|row| read(row).ok_or(wrong)).transpose()
    }
}

/// It begins with the time in seconds, and does not fall behind it: where the record is lost or restored, it goes on all the same.
pub(super) async fn next(connection: &mut AnyConnection, content: &[u8; 32], now: i64) -> Result<u64, sqlx::Error> {
    let sequence: i64 = sqlx::query_scalar(
        "INSERT INTO bundle_sequence (only_row, content, sequence) VALUES (1, $1, $2) \
         ON CONFLICT (only_row) DO UPDATE SET content = excluded.content, sequence = CASE \
         WHEN bundle_sequence.content = excluded.content THEN bundle_sequence.sequence \
         WHEN bundle_sequence.sequence >= excluded.sequence THEN bundle_sequence.sequence + 1 \
         ELSE excluded.sequence END RETURNING sequence",
    )
    .bind(&content[..])
    .bind(now / MICROSECONDS)
    .fetch_one(connection)
    .await?;
    Ok(sequence.unsigned_abs())
}

const MICROSECONDS: i64 = 1_000_000;
