//! `signet token create`.

use std::fs::OpenOptions;
use std::io::Write as _;
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
    let answer = admin::call(&options.issuer, async |client| request(client, &options.spiffe_id, options.ttl).await)?;
    if let Some(file) = &options.out {
        write_new(file, &answer.join_token)?;
    }
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
    let failure = |error: std::io::Error| Failure::new(format!("{}: {error}", path.display()));
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).map_err(failure)?;
    writeln!(file, "{secret}").and_then(|()| file.sync_all()).map_err(failure)
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
