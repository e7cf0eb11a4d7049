//! What is written down of administrative calls that came to no handler: of whoever has no role, of one too many at once, of a message
//! that is none or too long.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use signet_process::log_limit::LogLimit;
use tonic::Status;
use tonic::body::Body;
use tonic::server::NamedService;
use tower_service::Service;

use super::calls;
use crate::administration::Administrators;
use crate::server::Caller;

/// Around all of the administration.
#[derive(Clone, Debug)]
pub(crate) struct Unattended<S> {
    pub(super) service: S,
    pub(super) administrators: Administrators,
    /// Any workload may knock, as often as it likes.
    pub(super) knocks: Arc<LogLimit>,
}

/// In the extensions of each request: whether a call writes itself down.
#[derive(Clone, Debug, Default)]
pub(super) struct Attention(Arc<AtomicBool>);

impl Attention {
    pub(super) fn give(&self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl<S, B> Service<http::Request<Body>> for Unattended<S>
where
    S: Service<http::Request<Body>, Response = http::Response<B>>,
    S::Future: Send + 'static,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<S::Response, S::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.service.poll_ready(context)
    }

    fn call(&mut self, mut request: http::Request<Body>) -> Self::Future {
        let attention = Attention::default();
        request.extensions_mut().insert(attention.clone());
        let (actor, has_role) = self.caller(request.extensions().get());
        let action = request.uri().path().rsplit('/').next().unwrap_or_default().chars().take(MOST_OF_ACTION);
        let action: String = action.flat_map(char::escape_debug).collect();
        let knocks = Arc::clone(&self.knocks);
        let answering = self.service.call(request);
        Box::pin(async move {
            let answer = answering.await?;
            let refused = Status::from_header_map(answer.headers());
            let refused = refused.filter(|_| !attention.0.load(Ordering::Relaxed));
            if let Some(refused) = refused {
                let suppressed = if has_role { Some(0) } else { knocks.admit() };
                if let Some(suppressed) = suppressed {
                    calls::write_down(
                        &actor,
                        &action,
                        "unknown",
                        &format!("refused: {}", refused.message()),
                        None,
                        suppressed,
                    );
                }
            }
            Ok(answer)
        })
    }
}

impl<S> Unattended<S> {
    fn caller(&self, caller: Option<&Caller>) -> (String, bool) {
        match caller.map(|caller| (&caller.peer, caller.local_user)) {
            Some((Some(peer), _)) => (peer.id().to_string(), self.administrators.peer(peer.id()).is_some()),
            Some((None, Some(user))) => (format!("uid:{user}"), self.administrators.user(user).is_some()),
            Some((None, None)) | None => ("nobody".to_owned(), false),
        }
    }
}

impl<S: NamedService> NamedService for Unattended<S> {
    const NAME: &'static str = S::NAME;
}

/// In characters. A caller may ask for methods that there are not.
const MOST_OF_ACTION: usize = 64;
