//! `signet token create`.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Serialize;
use signet_identity::WorkloadId;
use signet_proto::admin::v1::admin_service_client::AdminServiceClient;
use signet_proto::admin::v1::{CreateJoinTokenRequest, CreateJoinTokenResponse};
use time::OffsetDateTime;
use tonic::transport::Channel;

use crate::admin;
use crate::args::TokenCreateOptions;
use crate::failure::Failure;
use crate::output::{self, Format, Report};

pub(crate) fn create(options: &TokenCreateOptions, format: Format) -> Result<(), Failure> {
    // Taken before the token is made: one that can't be kept should not exist.
    let mut out = options.out.as_deref().map(create_secret).transpose()?;
    let created = admin::call(&options.issuer, async |client| request(client, &options.spiffe_id, options.ttl).await)
        .and_then(|answer| match &mut out {
            Some(out) => out.write(&answer.join_token).map(|()| answer),
            None => Ok(answer),
        });
    let answer = match created {
        Ok(answer) => answer,
        Err(failure) => {
            if let Some(out) = out {
                out.discard();
            }
            return Err(failure);
        }
    };
    let expires_at = answer.expires_at.and_then(|at| OffsetDateTime::from_unix_timestamp(at.seconds).ok());
    output::print(
        format,
        &Created {
            spiffe_id: options.spiffe_id.to_string(),
            join_token: options.out.is_none().then_some(answer.join_token),
            file: options.out.clone(),
            expires_at: expires_at.map(output::timestamp),
        },
    )
}

/// Asks for a token over an open connection.
pub(crate) async fn request(
    mut client: AdminServiceClient<Channel>,
    spiffe_id: &WorkloadId,
    ttl: Duration,
) -> Result<CreateJoinTokenResponse, tonic::Status> {
    let request = CreateJoinTokenRequest {
        spiffe_id: spiffe_id.to_string(),
        ttl: Some(prost_types::Duration {
            seconds: i64::try_from(ttl.as_secs()).unwrap_or(i64::MAX),
            // Below a thousand million by definition.
            nanos: i32::try_from(ttl.subsec_nanos()).unwrap_or_default(),
        }),
    };
    Ok(client.create_join_token(request).await?.into_inner())
}

/// Writes a secret to a file that was not there, readable by its owner alone.
pub(crate) fn write_new(path: &Path, secret: &str) -> Result<(), Failure> {
    create_secret(path)?.write(secret)
}

/// A file for a secret that was not there before, readable by its owner alone.
struct SecretFile<'a> {
    path: &'a Path,
    file: File,
}

fn create_secret(path: &Path) -> Result<SecretFile<'_>, Failure> {
    match OpenOptions::new().write(true).create_new(true).mode(0o600).open(path) {
        Ok(file) => Ok(SecretFile { path, file }),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            Err(Failure::new(format!("{} is there already", path.display()))
                .remedy("nothing is overwritten; remove it, or name a new file"))
        }
        Err(error) => Err(Failure::new(format!("{}: {error}", path.display()))
            .remedy("name a file in a folder that is there and that you may write to")),
    }
}

impl SecretFile<'_> {
    fn write(&mut self, secret: &str) -> Result<(), Failure> {
        writeln!(self.file, "{secret}")
            .and_then(|()| self.file.sync_all())
            .map_err(|error| Failure::new(format!("{}: {error}", self.path.display())))
    }

    /// Nothing of it is worth keeping; why, is what the operator must hear of.
    fn discard(self) {
        let _ = fs::remove_file(self.path);
    }
}

#[derive(Serialize)]
struct Created {
    spiffe_id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    join_token: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    file: Option<PathBuf>,
    expires_at: Option<String>,
}

impl Report for Created {
    fn rows(&self) -> Vec<(&'static str, String)> {
        let mut rows = vec![("SPIFFE ID", self.spiffe_id.clone())];
        rows.extend(self.join_token.clone().map(|token| ("join token", token)));
        rows.extend(self.file.as_ref().map(|file| ("written to", file.display().to_string())));
        rows.extend(self.expires_at.clone().map(|at| ("expires", at)));
        rows
    }
}
