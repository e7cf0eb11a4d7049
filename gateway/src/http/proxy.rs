//! One request, from its head to the head of its answer.

use std::time::Instant;

use http::{Request, Response, Version};

use super::answer;
use super::body::{CallerBody, Record, ResponseBody};
use crate::authorization::Denial;
use crate::connection::{Caller, InFlight};
use crate::upstream::ForwardError;

/// Answers a request: authorized, then forwarded, with whatever goes wrong turned into an answer. Both bodies are still
/// flowing when it returns.
pub(crate) async fn serve_request(caller: &Caller, request: Request<CallerBody>) -> Response<ResponseBody> {
    let record = Record::new(Instant::now(), caller.listener.metrics.clone(), InFlight::of(&caller.activity));
    let version = request.version();
    let grpc = version == Version::HTTP_2 && answer::is_grpc(request.headers());
    let answered = answer_to(caller, request).await;
    let refused = answered.is_err();
    let mut answer = answered.unwrap_or_else(|error| error.answer(caller, version));
    // By the status that says what happened, whatever form the caller is told it in.
    caller.listener.metrics.answered(answer.status());
    if refused && grpc {
        answer = answer::in_grpc(answer);
    }
    answer.map(|body| body.recorded(record))
}

async fn answer_to(caller: &Caller, request: Request<CallerBody>) -> Result<Response<ResponseBody>, RequestError> {
    let granted = caller.permission.authorize(request)?;
    Ok(caller.listener.upstream.forward(granted).await?)
}

/// Why a request is answered by the gateway itself.
#[derive(Debug, thiserror::Error)]
enum RequestError {
    #[error("denied")]
    Denied(Denial),
    #[error(transparent)]
    Forward(#[from] ForwardError),
}

impl From<Denial> for RequestError {
    fn from(denial: Denial) -> Self {
        Self::Denied(denial)
    }
}

impl RequestError {
    fn answer(self, caller: &Caller, version: Version) -> Response<ResponseBody> {
        match self {
            Self::Denied(denial) => {
                caller.listener.metrics.denied(denial.reason());
                answer::refusal(http::StatusCode::FORBIDDEN, "denied")
            }
            Self::Forward(error) => {
                if !error.by_caller() {
                    caller.listener.log_failure(&error);
                }
                let (status, reason) = (error.status(), error.reason());
                if error.by_caller() && version != Version::HTTP_2 && status == http::StatusCode::BAD_REQUEST {
                    answer::last_refusal(status, reason)
                } else {
                    answer::refusal(status, reason)
                }
            }
        }
    }
}
