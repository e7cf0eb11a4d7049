//! `Expect: 100-continue`: the caller's body is not asked for before the upstream asks for it, so that an upstream that
//! refuses spares both sides the upload (RFC 9110 §10.1.1).

use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use http::StatusCode;

use crate::deadlines::{Deadline, Deadlines};

/// Opens when the upstream says 100, or has said nothing for a second: it may know nothing of the matter.
#[derive(Debug)]
pub(crate) struct Gate {
    open: Arc<AtomicBool>,
    patience: Deadline,
}

impl Gate {
    /// For a request over HTTP/1.1, whose connection polls the body again after each 1xx answer.
    pub(crate) fn of<B>(request: &mut http::Request<B>, deadlines: &Rc<Deadlines>) -> Self {
        let open = Arc::new(AtomicBool::new(false));
        let opener = open.clone();
        hyper::ext::on_informational(request, move |answer| {
            if answer.status() == StatusCode::CONTINUE {
                opener.store(true, Ordering::Relaxed);
            }
        });
        Self { open, patience: deadlines.after(PATIENCE) }
    }

    pub(super) fn poll_open(&self, cx: &Context<'_>) -> Poll<()> {
        if self.open.load(Ordering::Relaxed) { Poll::Ready(()) } else { self.patience.poll(cx).map(drop) }
    }
}

const PATIENCE: Duration = Duration::from_secs(1);
