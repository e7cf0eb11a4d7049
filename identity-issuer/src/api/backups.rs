//! `signet.admin.v1`, as far as it is about backups.

use std::pin::Pin;

use futures_util::{Stream, stream};
use signet_proto::admin::v1::{BackupRequest, BackupResponse};
use tonic::Status;

use crate::backup::{BackupError, Backups};

pub(super) type Pieces = Pin<Box<dyn Stream<Item = Result<BackupResponse, Status>> + Send>>;

pub(super) fn begin(backups: &Backups, request: &BackupRequest) -> Result<Pieces, Status> {
    let key = request.key.parse().map_err(|error| Status::invalid_argument(format!("key: {error}")))?;
    let pieces = backups.begin(key).map_err(|error| told(&error))?;
    Ok(Box::pin(stream::unfold(pieces, |mut pieces| async {
        let piece = match pieces.recv().await? {
            Ok(data) => Ok(BackupResponse { data: data.into() }),
            Err(error) => Err(told(&error)),
        };
        Some((piece, pieces))
    })))
}

fn told(error: &BackupError) -> Status {
    let cause = signet_process::start::Report::of(error).cause;
    match error {
        BackupError::Busy => Status::failed_precondition(cause),
        _ => {
            tracing::error!(cause, "a backup was not made");
            Status::internal(cause)
        }
    }
}
