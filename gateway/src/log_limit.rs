//! A limit on log lines that strangers cause, so that they cannot flood the log.

use std::cell::Cell;
use std::rc::Rc;

use crate::deadlines::Deadlines;

/// Lets a number of lines through each second, and counts the others.
#[derive(Debug)]
pub(crate) struct LogLimit {
    deadlines: Rc<Deadlines>,
    second: Cell<u64>,
    written: Cell<u32>,
    suppressed: Cell<u64>,
}

impl LogLimit {
    pub(crate) fn new(deadlines: Rc<Deadlines>) -> Self {
        Self { deadlines, second: Cell::new(0), written: Cell::new(0), suppressed: Cell::new(0) }
    }

    /// Whether a line may be written now; if so, how many were not since the last one.
    pub(crate) fn admit(&self) -> Option<u64> {
        let second = self.deadlines.uptime_ms() / 1_000;
        if self.second.replace(second) != second {
            self.written.set(0);
        }
        if self.written.get() == LINES_PER_SECOND {
            self.suppressed.set(self.suppressed.get() + 1);
            return None;
        }
        self.written.set(self.written.get() + 1);
        Some(self.suppressed.take())
    }
}

const LINES_PER_SECOND: u32 = 20;

#[cfg(test)]
mod tests {
    use signet_identity::ManualClock;
    use time::OffsetDateTime;

    use super::*;

    #[test]
    fn a_flood_is_cut_and_counted() {
        let limit = LogLimit::new(Deadlines::new(ManualClock::new(OffsetDateTime::UNIX_EPOCH).shared()));
        let admitted = (0..1_000).filter(|_| limit.admit().is_some()).count();
        assert_eq!(admitted, LINES_PER_SECOND as usize);
        std::thread::sleep(std::time::Duration::from_millis(1_001));
        limit.deadlines.tick();
        assert_eq!(limit.admit(), Some(980));
        assert_eq!(limit.admit(), Some(0));
    }
}
