//! A limit on log lines that strangers cause, so that they cannot flood the log.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Lets a number of lines through each second, and counts the others.
#[derive(Debug)]
pub struct LogLimit {
    state: Mutex<Second>,
}

#[derive(Debug)]
struct Second {
    began: Instant,
    written: u32,
    suppressed: u64,
}

const LINES_PER_SECOND: u32 = 20;

impl LogLimit {
    pub fn new() -> Self {
        Self { state: Mutex::new(Second { began: Instant::now(), written: 0, suppressed: 0 }) }
    }

    /// Whether a line may be written now; if so, how many were not since the last one.
    pub fn admit(&self) -> Option<u64> {
        self.admit_at(Instant::now())
    }

    fn admit_at(&self, now: Instant) -> Option<u64> {
        let mut second = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if now.saturating_duration_since(second.began) >= Duration::from_secs(1) {
            (second.began, second.written) = (now, 0);
        }
        if second.written == LINES_PER_SECOND {
            second.suppressed += 1;
            return None;
        }
        second.written += 1;
        Some(std::mem::take(&mut second.suppressed))
    }
}

impl Default for LogLimit {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_cut_and_counted() {
        let limit = LogLimit::new();
        let now = Instant::now();
        let admitted = (0..1_000).filter(|_| limit.admit_at(now).is_some()).count();
        assert_eq!(admitted, LINES_PER_SECOND as usize);
        let later = now + Duration::from_secs(1);
        assert_eq!(limit.admit_at(later), Some(980));
        assert_eq!(limit.admit_at(later), Some(0));
    }
}
