//! A wall clock that is believed once it goes on as a monotonic one does: what is signed of an hour that was not over stays signed.

use tokio::time::Instant;

/// What it takes a wall clock that was set to be believed.
#[derive(Debug)]
pub(super) struct SteadyTime {
    /// Unix seconds, and when it was so.
    believed: (u64, Instant),
    /// How far it is ahead of what was to be expected, and since when.
    ahead: Option<(u64, Instant)>,
}

/// So many seconds a clock may be corrected by at once, and a program sleep in between.
const SLACK: u64 = 30;
/// For which a clock that was set on has to go on from there, in seconds: one that is ahead for a moment is seldom so for longer.
pub(super) const PROVEN: u64 = 300;

impl SteadyTime {
    /// From what the wall clock shows first: nothing else is known there.
    pub(super) fn new(wall: u64, at: Instant) -> Self {
        Self { believed: (wall, at), ahead: None }
    }

    /// In Unix seconds: what the wall clock shows, or less where that may be of the future.
    pub(super) fn at(&mut self, wall: u64, at: Instant) -> u64 {
        let (believed, since) = self.believed;
        let expected = believed.saturating_add(at.saturating_duration_since(since).as_secs());
        let ahead = wall.saturating_sub(expected);
        if ahead <= SLACK {
            // Where it was set back, it is no later than it shows.
            (self.believed, self.ahead) = ((wall, at), None);
            return wall;
        }
        match self.ahead {
            Some((before, since)) if before.abs_diff(ahead) <= SLACK => {
                if at.saturating_duration_since(since).as_secs() >= PROVEN {
                    (self.believed, self.ahead) = ((wall, at), None);
                    return wall;
                }
            }
            _ => self.ahead = Some((ahead, at)),
        }
        expected
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const WALL: u64 = 1_800_000_000;
    const HOUR: u64 = 3600;

    /// What is believed of clocks that show so much after the beginning, each at its time.
    fn believed(shown: &[(u64, u64)]) -> Vec<u64> {
        let begin = Instant::now();
        let mut steady = SteadyTime::new(WALL, begin);
        let at = |after| begin + Duration::from_secs(after);
        shown.iter().map(|(after, wall)| steady.at(WALL + wall, at(*after)) - WALL).collect()
    }

    #[test]
    fn a_clock_that_goes_on_is_believed() {
        assert_eq!(believed(&[(1, 1), (2, 2), (3602, 3603), (3603, 3602)]), [1, 2, 3603, 3602]);
    }

    #[test]
    fn a_clock_that_is_ahead_for_a_while_is_not() {
        let shown = [(10, 10), (11, 11 * HOUR), (20, 11 * HOUR + 9), (26, 26), (27, 27)];
        assert_eq!(believed(&shown), [10, 11, 20, 26, 27]);
    }

    #[test]
    fn one_that_was_set_on_is_believed_after_some_minutes() {
        let set = |after: u64| (after, after + HOUR);
        assert_eq!(
            believed(&[set(10), set(200), set(309), set(310), set(311)]),
            [10, 200, 309, 310 + HOUR, 311 + HOUR]
        );
        // Each time it is set anew, from then on.
        let again = |after: u64| (after, after + 2 * HOUR);
        assert_eq!(believed(&[set(10), again(300), again(599), again(600)]), [10, 300, 599, 600 + 2 * HOUR]);
    }

    #[test]
    fn one_that_was_set_back_is_believed_at_once() {
        assert_eq!(believed(&[(1, 5), (7200, 7200), (7201, 100), (7202, 101)]), [5, 7200, 100, 101]);
    }
}
