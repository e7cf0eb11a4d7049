//! `signet.admin.v1`, as far as it is about reports of the audit log.

use std::pin::Pin;

use futures_util::{Stream, stream};
use signet_audit::report::{ReportError, Terms, Window};
use signet_proto::admin::v1::audit_report_response::Part as Wire;
use signet_proto::admin::v1::{AuditReportProgress, AuditReportRequest, AuditReportResponse};
use time::OffsetDateTime;
use tonic::Status;

use crate::audit::{MakeError, Part, Reports};

pub(super) type Pieces = Pin<Box<dyn Stream<Item = Result<AuditReportResponse, Status>> + Send>>;

pub(super) async fn begin(reports: &Reports, request: &AuditReportRequest) -> Result<Pieces, Status> {
    let time = |field: &str, at: &prost_types::Timestamp| {
        let at = OffsetDateTime::from_unix_timestamp(at.seconds).ok();
        at.ok_or_else(|| no_time(field))
    };
    let from = request.from.as_ref().ok_or_else(|| no_time("from")).and_then(|from| time("from", from))?;
    let to = request.to.as_ref().map(|to| time("to", to)).transpose()?;
    let format = request.format.parse().map_err(|error| Status::invalid_argument(format!("format: {error}")))?;
    let window = |to| Window::new(from, to).map_err(|error| Status::invalid_argument(format!("to: {error}")));
    // What can never be is told at once.
    to.map(window).transpose()?;
    let (to, published) = reports.over(to).await.map_err(|error| told(&error))?;
    let terms = Terms { window: window(to)?, format };
    let parts = reports.begin(terms, published).map_err(|error| told(&error))?;
    Ok(Box::pin(stream::unfold(parts, |mut parts| async {
        let part = match parts.recv().await? {
            Ok(part) => Ok(AuditReportResponse { part: Some(wire(part)) }),
            Err(error) => Err(told(&error)),
        };
        Some((part, parts))
    })))
}

fn no_time(field: &str) -> Status {
    Status::invalid_argument(format!("{field}: no time"))
}

fn wire(part: Part) -> Wire {
    match part {
        Part::Data(data) => Wire::Data(data.into()),
        Part::Progress { read, of } => Wire::Progress(AuditReportProgress { read, of }),
        Part::Signature(note) => Wire::Signature(note),
    }
}

fn told(error: &MakeError) -> Status {
    let cause = signet_process::start::Report::of(error).cause;
    match error {
        MakeError::Busy | MakeError::Unpublished | MakeError::NotOver { .. } | MakeError::Stuck => {
            Status::failed_precondition(cause)
        }
        MakeError::Report(ReportError::Log { .. }) => {
            tracing::error!(cause, "a report was not made");
            Status::data_loss(cause)
        }
        MakeError::Report(ReportError::Write(_) | ReportError::TooManyRevoked) | MakeError::Sign(_) => {
            tracing::error!(cause, "a report was not made");
            Status::internal(cause)
        }
    }
}
