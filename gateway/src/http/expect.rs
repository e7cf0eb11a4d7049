//! `Expect: 100-continue`: the caller's body is not asked for before the upstream asks for it, so that an upstream that
//! refuses spares both sides the upload (RFC 9110 §10.1.1).

use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use crate::deadlines::{Deadline, Deadlines};

/// Opens by itself when the upstream has said nothing for a second: it may know nothing of the matter.
#[derive(Debug)]
pub(crate) struct Gate {
    patience: Deadline,
}

impl Gate {
    pub(crate) fn new(deadlines: &Rc<Deadlines>) -> Self {
        Self { patience: deadlines.after(PATIENCE) }
    }

    pub(super) fn poll_open(&self, cx: &Context<'_>) -> Poll<()> {
        self.patience.poll(cx).map(drop)
    }
}

const PATIENCE: Duration = Duration::from_secs(1);
