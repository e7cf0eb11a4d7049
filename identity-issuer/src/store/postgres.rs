//! PostgreSQL's address, and how issuers on one database tell each other what has changed.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use sqlx::ConnectOptions as _;
use sqlx::any::AnyConnectOptions;
use sqlx::postgres::{PgConnectOptions, PgListener, PgPoolOptions, PgSslMode};
use zeroize::Zeroizing;

use super::database::{Kind, in_time};
use super::{Store, StoreError};
use crate::secret_file;

/// Where a database is, whose it is, and where the password is.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct PostgresUrl {
    /// `postgres://USER@HOST/DATABASE`, without a password.
    url: String,
    password_file: Option<PathBuf>,
}

/// What is no address of a database of ours.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub(crate) enum PostgresUrlError {
    #[error("it is no postgres:// URL")]
    Malformed,
    #[error("it holds a password")]
    Password,
    #[error("it has a parameter that is none of {}", PARAMETERS.join(", "))]
    Parameter,
    #[error("its sslmode lets anybody be the database")]
    Unverified,
}

/// What issuers tell each other. What is lost of it, they find by reading.
#[derive(Clone, Debug, Eq, PartialEq, Deserialize, Serialize)]
pub(crate) enum Change {
    /// There is another revision of the policy.
    Policy,
    /// Somebody was banned or evicted.
    Standing,
    /// An issuer has its clients trust something else.
    Bundles,
    /// Clients are to renew.
    RenewalRequest,
    /// Something is revoked.
    Revocations,
}

/// What is told, by whom.
#[derive(Debug, Deserialize, Serialize)]
struct Told {
    issuer: u64,
    change: Change,
}

/// The changes that others make.
pub(crate) struct Changes {
    listener: PgListener,
    own: u64,
}

/// What a URL may say, beside what stands before the question mark.
const PARAMETERS: [&str; 11] = [
    "application_name",
    "dbname",
    "host",
    "hostaddr",
    "port",
    "sslcert",
    "sslkey",
    "sslmode",
    "sslrootcert",
    "ssl-mode",
    "user",
];
const CHANNEL: &str = "signet";
const MAX_PASSWORD: usize = 4096;

impl PostgresUrl {
    /// TLS with a verified name is the default, and needed for any host but this one.
    pub(crate) fn new(url: &str, password_file: Option<PathBuf>) -> Result<Self, PostgresUrlError> {
        let mut options = AnyConnectOptions::from_str(url).map_err(|_| PostgresUrlError::Malformed)?;
        if !matches!(options.database_url.scheme(), "postgres" | "postgresql") {
            return Err(PostgresUrlError::Malformed);
        }
        if options.database_url.password().is_some()
            || options.database_url.query_pairs().any(|(key, _)| key == "password")
        {
            return Err(PostgresUrlError::Password);
        }
        // Not repeated: it may be a secret that was written in a wrong place.
        if !options.database_url.query_pairs().all(|(key, _)| PARAMETERS.contains(&&*key)) {
            return Err(PostgresUrlError::Parameter);
        }
        let is_set = options.database_url.query_pairs().any(|(key, _)| matches!(&*key, "sslmode" | "ssl-mode"));
        if !is_set {
            let mode = if is_local(&options)? { "prefer" } else { "verify-full" };
            options.database_url.query_pairs_mut().append_pair("sslmode", mode);
        }
        let read = PgConnectOptions::from_url(&options.database_url).map_err(|_| PostgresUrlError::Malformed)?;
        if !is_local(&options)? && !matches!(read.get_ssl_mode(), PgSslMode::VerifyFull) {
            return Err(PostgresUrlError::Unverified);
        }
        Ok(Self { url: options.database_url.to_string(), password_file })
    }

    pub(crate) fn password_file(&self) -> Option<&Path> {
        self.password_file.as_deref()
    }

    /// With the password, as it stands in its file now.
    pub(super) fn options(&self) -> Result<AnyConnectOptions, sqlx::Error> {
        let mut options = AnyConnectOptions::from_str(&self.url)?;
        if let Some(file) = &self.password_file {
            let text = secret_file::read(file, MAX_PASSWORD).map_err(sqlx::Error::Io)?;
            let password = text.trim_end_matches(['\r', '\n']);
            let encoded = Zeroizing::new(percent_encoded(password));
            // A URL without a host has no place for it.
            if options.database_url.set_password(Some(&encoded)).is_err() {
                options.database_url.query_pairs_mut().append_pair("password", password);
            }
        }
        Ok(options)
    }
}

/// The URL's own rules would leave a percent sign alone, which is then taken for the beginning of an encoded byte.
fn percent_encoded(text: &str) -> String {
    let encode = |byte: u8| match byte {
        byte if byte.is_ascii_alphanumeric() => char::from(byte).to_string(),
        byte => format!("%{byte:02X}"),
    };
    text.bytes().map(encode).collect()
}

/// Whether it is a socket of this machine, or its loopback.
fn is_local(options: &AnyConnectOptions) -> Result<bool, PostgresUrlError> {
    let read = PgConnectOptions::from_url(&options.database_url).map_err(|_| PostgresUrlError::Malformed)?;
    let host = read.get_host();
    let is_loopback =
        host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback());
    Ok(is_loopback || host.starts_with('/') || read.get_socket().is_some())
}

impl fmt::Display for PostgresUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.url)
    }
}

impl Store {
    /// What other issuers change from now on; none where there can be no others.
    pub(crate) async fn changes(&self) -> Result<Option<Changes>, StoreError> {
        let Kind::Postgres(url) = &self.database.kind else { return Ok(None) };
        let options = PgConnectOptions::from_url(&url.options()?.database_url)?;
        let pool = PgPoolOptions::new().max_connections(1).connect_lazy_with(options);
        let listening = async {
            let mut listener = PgListener::connect_with(&pool).await?;
            listener.listen(CHANNEL).await?;
            Ok(listener)
        };
        Ok(Some(Changes { listener: in_time(listening).await?, own: self.issuer }))
    }

    pub(crate) fn is_shared(&self) -> bool {
        matches!(self.database.kind, Kind::Postgres(_))
    }
}

/// Tells the others once the transaction is committed.
pub(super) async fn tell(
    kind: &Kind,
    issuer: u64,
    connection: &mut sqlx::AnyConnection,
    change: Change,
) -> Result<(), sqlx::Error> {
    let Kind::Postgres(_) = kind else { return Ok(()) };
    let told = serde_json::to_string(&Told { issuer, change }).map_err(|error| sqlx::Error::Encode(error.into()))?;
    sqlx::query("SELECT 1 FROM pg_notify($1, $2)").bind(CHANNEL).bind(told).execute(connection).await.map(drop)
}

impl Changes {
    /// The next of another issuer; none where some may have been missed.
    pub(crate) async fn next(&mut self) -> Result<Option<Change>, StoreError> {
        loop {
            let Some(notification) = self.listener.try_recv().await? else { return Ok(None) };
            match serde_json::from_str(notification.payload()) {
                Ok(Told { issuer, .. }) if issuer == self.own => {}
                Ok(Told { change, .. }) => return Ok(Some(change)),
                // Of a newer version: whatever it is, it can be read.
                Err(_) => return Ok(None),
            }
        }
    }
}

impl fmt::Debug for Changes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Changes").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_database_elsewhere_has_to_prove_its_name_and_no_password_stands_in_a_url() {
        let new = |url: &str| PostgresUrl::new(url, None);
        for (url, error) in [
            ("mysql://a@db/signet", PostgresUrlError::Malformed),
            ("db:5432", PostgresUrlError::Malformed),
            ("postgres://a:b@db/signet", PostgresUrlError::Password),
            ("postgres://a@db/signet?password=b", PostgresUrlError::Password),
            ("postgres://a@db/signet?sslpassword=b", PostgresUrlError::Parameter),
            ("postgres://a@db/signet?options=-c%20fsync=off", PostgresUrlError::Parameter),
            ("postgres://a@db/signet?sslmode=prefer", PostgresUrlError::Unverified),
            ("postgres://a@db/signet?sslmode=require", PostgresUrlError::Unverified),
            ("postgres://a@db/signet?sslmode=verify-ca", PostgresUrlError::Unverified),
        ] {
            assert_eq!(new(url), Err(error), "{url}");
        }
        assert!(new("postgres://a@db/signet").unwrap().to_string().ends_with("sslmode=verify-full"));
        new("postgres://a@db/signet?sslmode=verify-full&sslrootcert=/ca.pem").unwrap();
        for local in
            ["postgres://a@localhost/signet", "postgres://a@127.0.0.1/s", "postgres:///s?host=/run/postgresql&user=a"]
        {
            new(local).unwrap();
        }
    }

    #[test]
    fn a_password_arrives_as_it_stands_in_its_file_and_is_shown_nowhere() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("password");
        std::fs::write(&file, "a%41/@:?#&=é \n").unwrap();
        for url in ["postgres://signet@localhost/signet", "postgres:///signet?host=/run/postgresql&user=signet"] {
            let url = PostgresUrl::new(url, Some(file.clone())).unwrap();
            assert!(!format!("{url} {url:?}").contains("41"));
            let options = PgConnectOptions::from_url(&url.options().unwrap().database_url).unwrap();
            assert!(format!("{options:?}").contains("a%41/@:?#&=é "), "{options:?}");
        }
    }
}
