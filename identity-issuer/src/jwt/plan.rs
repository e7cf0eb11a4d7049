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

/// When the key that signs is to give way.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Due {
    ByItsLife,
    /// Somebody wants it.
    Soon,
}

/// Whether those who are connected know the next key.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Known {
    Yes,
    /// Not by all, or nobody has asked yet.
    No,
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

    pub(super) fn next_step(&self, keys: &[Times], due: Due, known: Known, now: OffsetDateTime) -> Step {
        match self.next_signer(keys, due, known, now) {
            // Last: where a key cannot be destroyed now, the others follow each other all the same.
            Step::Nothing => {
                let over = keys.iter().position(|times| self.is_over(times, now));
                over.map_or(Step::Nothing, Step::Remove)
            }
            step => step,
        }
    }

    fn next_signer(&self, keys: &[Times], due: Due, known: Known, now: OffsetDateTime) -> Step {
        let prepared = keys.iter().position(|times| times.is_prepared() && !self.is_over(times, now));
        let Some(active) = keys.iter().find(|times| times.is_active() && !self.is_over(times, now)) else {
            // Nobody could sign anything meanwhile.
            return prepared.map_or(Step::Make, Step::Activate);
        };
        let left = active.not_after - now;
        let is_soon = due == Due::Soon;
        // Who says nothing for so long is not waited for.
        let is_known = known == Known::Yes || left < self.key_life / 8;
        match prepared {
            None if is_soon || left < self.key_life / 2 => Step::Make,
            Some(index)
                if (is_soon || left < self.key_life / 4)
                    && is_known
                    && now >= keys[index].made_at + self.publish_ahead =>
            {
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
    fn live(days: u32, known: Known, mut check: impl FnMut(&[Times], OffsetDateTime)) -> Vec<Times> {
        let (mut keys, mut now): (Vec<Times>, _) = (Vec::new(), OffsetDateTime::UNIX_EPOCH);
        while now < OffsetDateTime::UNIX_EPOCH + DAY * days {
            loop {
                match SCHEDULE.next_step(&keys, Due::ByItsLife, known, now) {
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
        for known in [Known::Yes, Known::No] {
            live(10, known, check_signer);
        }
    }

    fn check_signer(keys: &[Times], now: OffsetDateTime) {
        {
            let active: Vec<_> = keys.iter().filter(|times| times.is_active()).collect();
            assert_eq!(active.len(), 1, "at {now}");
            let since = active[0].made_at;
            let first = since == OffsetDateTime::UNIX_EPOCH;
            let published = active[0].activated_at.map(|at| at - since);
            assert!(first || published >= Some(time::Duration::seconds(1200)), "at {now}: {published:?}");
            // A token of the longest life always fits.
            assert!(active[0].not_after - now > SCHEDULE.longest_token, "at {now}");
            assert!(keys.len() <= 3, "at {now}");
        }
    }

    #[test]
    fn a_key_that_not_all_know_waits_for_them_until_the_one_before_nears_its_end() {
        let activated = |known| {
            let mut second = None;
            live(1, known, |keys, _| {
                second = second.or(keys
                    .iter()
                    .filter(|times| times.retired_at.is_none())
                    .find_map(|times| times.activated_at.filter(|at| *at > OffsetDateTime::UNIX_EPOCH)));
            });
            second.map(|at| at - OffsetDateTime::UNIX_EPOCH)
        };
        let minute = time::Duration::minutes(1);
        assert_eq!(activated(Known::Yes), Some(time::Duration::hours(18) + minute));
        assert_eq!(activated(Known::No), Some(time::Duration::hours(21) + minute));
    }

    #[test]
    fn whoever_wants_another_key_has_it_sign_once_it_was_published_and_is_known() {
        let at = |seconds| OffsetDateTime::UNIX_EPOCH + Duration::from_secs(seconds);
        let mut keys = Vec::new();
        take(&mut keys, Step::Make, at(0));
        take(&mut keys, Step::Activate(0), at(0));
        let next = |keys: &[Times], known, seconds| SCHEDULE.next_step(keys, Due::Soon, known, at(seconds));
        assert_eq!(SCHEDULE.next_step(&keys, Due::ByItsLife, Known::Yes, at(10)), Step::Nothing);
        assert_eq!(next(&keys, Known::No, 10), Step::Make);
        take(&mut keys, Step::Make, at(10));
        assert_eq!(next(&keys, Known::Yes, 1209), Step::Nothing);
        assert_eq!(next(&keys, Known::No, 1210), Step::Nothing);
        assert_eq!(next(&keys, Known::Yes, 1210), Step::Activate(1));
    }

    #[test]
    fn a_retired_key_stays_until_the_last_token_that_it_signed_has_expired() {
        let mut last_signed = std::collections::BTreeMap::new();
        live(4, Known::Yes, |keys, now| {
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
        let mut keys = live(1, Known::Yes, |_, _| {});
        let now = OffsetDateTime::UNIX_EPOCH + DAY * 30;
        for _ in 0..8 {
            let step = SCHEDULE.next_step(&keys, Due::ByItsLife, Known::Yes, now);
            take(&mut keys, step, now);
        }
        assert_eq!(keys.iter().filter(|times| times.is_active() && times.not_after > now).count(), 1);
        assert_eq!(keys.len(), 1);
    }

    #[test]
    fn a_key_that_cannot_be_destroyed_keeps_no_other_from_signing() {
        let mut keys = live(2, Known::Yes, |_, _| {});
        let mut now = OffsetDateTime::UNIX_EPOCH + DAY * 2;
        while now < OffsetDateTime::UNIX_EPOCH + DAY * 5 {
            for _ in 0..4 {
                match SCHEDULE.next_step(&keys, Due::ByItsLife, Known::Yes, now) {
                    Step::Remove(_) => {}
                    step => take(&mut keys, step, now),
                }
            }
            let signs = keys.iter().filter(|times| times.is_active() && times.not_after > now).count();
            assert_eq!(signs, 1, "at {now}");
            now += Duration::from_secs(600);
        }
    }

    #[test]
    fn a_clock_that_is_set_back_takes_no_key_away() {
        let keys = live(2, Known::Yes, |_, _| {});
        let before = OffsetDateTime::UNIX_EPOCH;
        assert_eq!(SCHEDULE.next_step(&keys, Due::ByItsLife, Known::Yes, before), Step::Nothing);
    }
}
