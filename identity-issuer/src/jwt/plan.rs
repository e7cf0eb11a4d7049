//! When a key comes, signs and goes: decided by its times and nothing else, so that a restart at any moment goes on.

use std::time::Duration;

use time::OffsetDateTime;

/// How long keys live, and how soon they are published.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Schedule {
    /// Of a key, from its making.
    pub(crate) key_life: Duration,
    /// Before it signs. At most a quarter of its life.
    pub(crate) publish_ahead: Duration,
    /// Of the longest token.
    pub(crate) longest_token: Duration,
}

/// The times of one key.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Times {
    pub(super) made_at: OffsetDateTime,
    pub(super) not_after: OffsetDateTime,
    pub(super) activated_at: Option<OffsetDateTime>,
    pub(super) retired_at: Option<OffsetDateTime>,
}

/// What is to be done next. One thing at a time.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Step {
    Nothing,
    /// Make a key.
    Make,
    /// Have this key sign, and retire whichever does.
    Activate(usize),
    /// Take this key away.
    Remove(usize),
}

impl Times {
    pub(super) fn is_active(&self) -> bool {
        self.activated_at.is_some() && self.retired_at.is_none()
    }

    fn is_prepared(&self) -> bool {
        self.activated_at.is_none() && self.retired_at.is_none()
    }
}

impl Schedule {
    /// Whether nothing that it signed is good any more.
    pub(super) fn is_over(&self, times: &Times, now: OffsetDateTime) -> bool {
        let retired = times.retired_at.map(|at| at + self.longest_token + MARGIN);
        now > times.not_after || retired.is_some_and(|end| now > end)
    }

    pub(super) fn next_step(&self, keys: &[Times], now: OffsetDateTime) -> Step {
        if let Some(index) = keys.iter().position(|times| self.is_over(times, now)) {
            return Step::Remove(index);
        }
        let prepared = keys.iter().position(Times::is_prepared);
        let Some(active) = keys.iter().find(|times| times.is_active()) else {
            // Nobody could sign anything meanwhile.
            return prepared.map_or(Step::Make, Step::Activate);
        };
        let left = active.not_after - now;
        match prepared {
            None if left < self.key_life / 2 => Step::Make,
            Some(index) if left < self.key_life / 4 && now >= keys[index].made_at + self.publish_ahead => {
                Step::Activate(index)
            }
            _ => Step::Nothing,
        }
    }
}

/// For clocks that differ.
const MARGIN: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: Duration = Duration::from_secs(86_400);
    const SCHEDULE: Schedule =
        Schedule { key_life: DAY, publish_ahead: Duration::from_secs(1200), longest_token: Duration::from_secs(3600) };

    /// Lives through this long as an issuer does that looks once a minute, and says when each key did what.
    fn live(days: u32, mut check: impl FnMut(&[Times], OffsetDateTime)) -> Vec<Times> {
        let (mut keys, mut now): (Vec<Times>, _) = (Vec::new(), OffsetDateTime::UNIX_EPOCH);
        while now < OffsetDateTime::UNIX_EPOCH + DAY * days {
            loop {
                match SCHEDULE.next_step(&keys, now) {
                    Step::Nothing => break,
                    step => take(&mut keys, step, now),
                }
            }
            check(&keys, now);
            now += Duration::from_secs(60);
        }
        keys
    }

    fn take(keys: &mut Vec<Times>, step: Step, now: OffsetDateTime) {
        match step {
            Step::Nothing => {}
            Step::Make => keys.push(Times {
                made_at: now,
                not_after: now + SCHEDULE.key_life,
                activated_at: None,
                retired_at: None,
            }),
            Step::Activate(index) => {
                let active = keys.iter_mut().find(|times| times.is_active());
                active.into_iter().for_each(|times| times.retired_at = Some(now));
                keys[index].activated_at = Some(now);
            }
            Step::Remove(index) => drop(keys.remove(index)),
        }
    }

    #[test]
    fn one_key_signs_at_any_time_and_was_published_before() {
        live(10, |keys, now| {
            let active: Vec<_> = keys.iter().filter(|times| times.is_active()).collect();
            assert_eq!(active.len(), 1, "at {now}");
            let since = active[0].made_at;
            let first = since == OffsetDateTime::UNIX_EPOCH;
            let published = active[0].activated_at.map(|at| at - since);
            assert!(first || published >= Some(time::Duration::seconds(1200)), "at {now}: {published:?}");
            // A token of the longest life always fits.
            assert!(active[0].not_after - now > SCHEDULE.longest_token, "at {now}");
            assert!(keys.len() <= 3, "at {now}");
        });
    }

    #[test]
    fn a_retired_key_stays_until_the_last_token_that_it_signed_has_expired() {
        let mut last_signed = std::collections::BTreeMap::new();
        live(4, |keys, now| {
            for times in keys.iter().filter(|times| times.is_active()) {
                last_signed.insert(times.made_at, now);
            }
            for (made_at, signed) in &last_signed {
                let is_there = keys.iter().any(|times| times.made_at == *made_at);
                assert!(is_there || now > *signed + SCHEDULE.longest_token, "at {now}: {made_at}");
            }
        });
    }

    #[test]
    fn after_a_long_sleep_there_is_a_key_that_signs() {
        let mut keys = live(1, |_, _| {});
        let now = OffsetDateTime::UNIX_EPOCH + DAY * 30;
        for _ in 0..8 {
            let step = SCHEDULE.next_step(&keys, now);
            take(&mut keys, step, now);
        }
        assert_eq!(keys.iter().filter(|times| times.is_active() && times.not_after > now).count(), 1);
        assert_eq!(keys.len(), 1);
    }

    #[test]
    fn a_clock_that_is_set_back_takes_no_key_away() {
        let keys = live(2, |_, _| {});
        let before = OffsetDateTime::UNIX_EPOCH;
        assert_eq!(SCHEDULE.next_step(&keys, before), Step::Nothing);
    }
}
