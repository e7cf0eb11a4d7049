//! A copy of the records, as they are at one moment.

use std::path::Path;

use super::database::Kind;
use super::{Store, StoreError};

impl Store {
    /// Into a file that is not there yet. Those who write go on meanwhile, however long it takes. False where the records are in a database
    /// that others back up.
    pub(crate) async fn copy_to(&self, path: &Path) -> Result<bool, StoreError> {
        match self.database.kind {
            Kind::Postgres(_) => Ok(false),
            Kind::Sqlite => {
                let path = path
                    .to_str()
                    .ok_or_else(|| sqlx::Error::Configuration("a folder whose name is not UTF-8".into()))?;
                sqlx::query("VACUUM INTO $1").bind(path).execute(&self.database.lists).await?;
                Ok(true)
            }
        }
    }
}
