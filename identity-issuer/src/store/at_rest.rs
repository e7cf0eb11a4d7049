//! The records of an issuer that does not run.

use std::path::Path;

use sqlx::{AnyConnection, Connection as _};

use super::OpenError;
use super::database::{file_options, in_time, install_drivers};
use super::log::size_of;

/// How many entries the audit log of this origin has in the database of a state folder that no issuer runs on. None where the records are
/// in another database, or that does not know the log.
pub async fn entries_on_record(state: &Path, origin: &str) -> Result<Option<u64>, OpenError> {
    let path = state.join("issuer.db");
    if !path.exists() {
        return Ok(None);
    }
    install_drivers();
    // What a killed issuer has left in the write-ahead log is taken over by whoever may write.
    let options = file_options(&path, "mode=rw").ok_or_else(|| OpenError::Name { path: path.clone() })?;
    let reading = async {
        let mut connection = in_time(AnyConnection::connect_with(&options)).await?;
        let size = in_time(size_of(&mut connection, origin)).await?;
        connection.close().await?;
        Ok(size)
    };
    reading.await.map_err(|source| OpenError::Database { place: path.display().to_string(), source })
}
