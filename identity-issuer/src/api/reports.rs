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

pub(super) fn begin(reports: &Reports, request: &AuditReportRequest) -> Result<Pieces, Status> {
    let terms = terms(request)?;
    let parts = reports.begin(terms).map_err(|error| told(&error))?;
    Ok(Box::pin(stream::unfold(parts, |mut parts| async {
        let part = match parts.recv().await? {
            Ok(part) => Ok(AuditReportResponse { part: Some(wire(part)) }),
            Err(error) => Err(told(&error)),
        };
        Some((part, parts))
    })))
}

fn terms(request: &AuditReportRequest) -> Result<Terms, Status> {
    let time = |field: &str, at: Option<prost_types::Timestamp>| {
        let at = at.and_then(|at| OffsetDateTime::from_unix_timestamp(at.seconds).ok());
        at.ok_or_else(|| Status::invalid_argument(format!("{field}: no time")))
    };
    let (from, to) = (time("from", request.from)?, time("to", request.to)?);
    let window = Window::new(from, to).map_err(|error| Status::invalid_argument(format!("to: {error}")))?;
    let format = request.format.parse().map_err(|error| Status::invalid_argument(format!("format: {error}")))?;
    Ok(Terms { window, format })
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
        MakeError::Busy | MakeError::Unpublished => Status::failed_precondition(cause),
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
