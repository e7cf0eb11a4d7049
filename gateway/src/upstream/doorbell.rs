//! A waker that can be silenced.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Wake, Waker};

use futures_util::task::AtomicWaker;

/// Wakes a task, but not while that task itself is at work on what would wake it.
///
/// Everything happens on one thread; the atomics are what a waker's type asks for.
#[derive(Debug)]
pub(super) struct Doorbell {
    bell: Arc<Bell>,
    waker: Waker,
}

#[derive(Debug, Default)]
struct Bell {
    task: AtomicWaker,
    silent: AtomicBool,
}

impl Doorbell {
    /// Polls something that will ring for the task of `cx`.
    pub(super) fn poll_with<T>(&self, cx: &Context<'_>, poll: impl FnOnce(&mut Context<'_>) -> T) -> T {
        self.bell.task.register(cx.waker());
        poll(&mut Context::from_waker(&self.waker))
    }

    /// Does something that may ring for nothing: whoever calls this polls what rings before it waits again.
    pub(super) fn silenced<T>(&self, act: impl FnOnce() -> T) -> T {
        self.bell.silent.store(true, Ordering::Relaxed);
        let result = act();
        self.bell.silent.store(false, Ordering::Relaxed);
        result
    }
}

impl Default for Doorbell {
    fn default() -> Self {
        let bell = Arc::new(Bell::default());
        Self { waker: Waker::from(bell.clone()), bell }
    }
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if !self.silent.load(Ordering::Relaxed) {
            self.task.wake();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use super::*;

    #[derive(Default)]
    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    #[test]
    fn it_rings_unless_it_is_silenced() {
        let count = Arc::new(Count::default());
        let task = Waker::from(count.clone());
        let doorbell = Doorbell::default();
        let ring = doorbell.poll_with(&Context::from_waker(&task), |cx| cx.waker().clone());
        doorbell.silenced(|| ring.wake_by_ref());
        assert_eq!(count.0.load(Ordering::SeqCst), 0);
        ring.wake_by_ref();
        assert_eq!(count.0.load(Ordering::SeqCst), 1);
    }
}
