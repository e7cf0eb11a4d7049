//! What is to be done next for an issuer, by what it has.

use rustls_pki_types::CertificateDer;
use time::{Duration, OffsetDateTime};

use crate::failure::Failure;

/// One of the issuer's.
#[derive(Clone, Debug)]
pub(super) struct Authority {
    pub(super) key: String,
    pub(super) stage: Stage,
    /// Of its stage.
    pub(super) since: OffsetDateTime,
    /// None without a certificate that leads to a root.
    pub(super) not_after: Option<OffsetDateTime>,
    /// The certificate of whoever signed it, unless that is a root.
    pub(super) above: Option<Vec<u8>>,
    /// For its certificate, PEM.
    pub(super) request: String,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Stage {
    Requested,
    Prepared,
    Active,
    Over,
}

#[derive(Debug)]
pub(super) enum Step<'a> {
    /// Have the parent sign its request.
    Sign(&'a Authority),
    /// Have the issuer make a request.
    Ask,
    /// Have it take over.
    Rotate(&'a Authority),
    /// There would be something, but for this.
    Waits(Why),
    Nothing,
}

/// What stands in the way, of the parent's making.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Why {
    /// It has signed, a moment ago, below an authority that it does not tell of.
    Untold,
    /// What it has signed does not outlive the authority in force.
    InVain,
    /// Of what it has signed too many are of no use, and each takes a place at the issuer until it has expired.
    Useless,
    /// It goes over from one authority to another again and again, and each time one of the issuer's retires.
    ToAndFro,
}

impl Why {
    pub(super) fn told(self) -> Failure {
        match self {
            Self::Untold => Failure::new(
                "the parent has signed below an authority that it does not tell of: the issuer goes over to it once it is told",
            ),
            Self::InVain => Failure::new(
                "what the parent has signed ends before the authority that it is to follow: another one is asked for later",
            ),
            Self::Useless => Failure::new(format!(
                "the parent has signed {USELESS} authorities that are of no use: it does not tell of the one above them, or they end \
                 before the one that signs"
            ))
            .remedy("more are asked for once these are revoked (`signet revoke authority`) or a week has passed since they expired"),
            Self::ToAndFro => Failure::new("the parent goes from one authority to another too often: the issuer follows it later"),
        }
    }
}

/// Of those that are ready to follow and of no use, before no more are asked for.
const USELESS: usize = 4;
/// Of those that are ready to follow, whatever for. An issuer has places for 32 authorities.
const MOST: usize = 20;
/// After what was of no use, before it is done again, and twice that each time: an authority keeps its place at the issuer until a week
/// after its end.
const FIRST: Duration = Duration::minutes(1);
const LONGEST: Duration = Duration::days(7);

/// `told`: the chains of the authorities that sign at the parent, or may soon; none where it has said nothing. `gone_since`: from when on
/// the one above the issuer's authority has not been among them, if it is not now.
pub(super) fn next<'a>(
    authorities: &'a [Authority],
    told: &[Vec<CertificateDer<'_>>],
    gone_since: OffsetDateTime,
    now: OffsetDateTime,
) -> Step<'a> {
    let at = |stage| authorities.iter().filter(move |authority| authority.stage == stage);
    let requested = at(Stage::Requested).next();
    let Some(active) = at(Stage::Active).next() else { return requested.map_or(Step::Nothing, Step::Sign) };
    let end = active.not_after.filter(|end| *end > now);
    // The one above it has retired, or worse: what is below it may be gone any moment.
    if is_gone(authorities, told) {
        let is_below = |next: &&Authority| {
            next.not_after.is_some_and(|end| end > now) && next.above.as_ref().is_some_and(|above| signs(told, above))
        };
        let successor = at(Stage::Prepared).find(is_below);
        // Not those that were signed ahead, by the one above that is gone: they were of use.
        let in_vain = at(Stage::Prepared).filter(|one| one.since >= gone_since);
        let good = at(Stage::Prepared).filter(|one| one.not_after.is_some_and(|end| end > now));
        // Of one that has ended nothing is spared.
        let may_wait = end.is_some();
        return match successor {
            _ if may_wait && is_to_and_fro(authorities, active, now) => Step::Waits(Why::ToAndFro),
            Some(successor) => Step::Rotate(successor),
            None if may_wait && (in_vain.clone().count() >= USELESS || good.count() >= MOST) => {
                Step::Waits(Why::Useless)
            }
            None if may_wait && is_untold(in_vain, now) => Step::Waits(Why::Untold),
            None => requested.map_or(Step::Ask, Step::Sign),
        };
    }
    let Some(requested) = requested else { return Step::Nothing };
    let in_vain = at(Stage::Prepared).filter(|one| one.not_after.zip(end).is_some_and(|(own, end)| own <= end));
    match in_vain.clone().count() {
        USELESS.. => Step::Waits(Why::Useless),
        _ if is_in_vain(end, in_vain, now) => Step::Waits(Why::InVain),
        _ => Step::Sign(requested),
    }
}

/// Whether the parent tells of others than the one above the issuer's authority.
pub(super) fn is_gone(authorities: &[Authority], told: &[Vec<CertificateDer<'_>>]) -> bool {
    let above = authorities.iter().find(|one| one.stage == Stage::Active).and_then(|active| active.above.as_ref());
    !told.is_empty() && above.is_some_and(|above| !signs(told, above))
}

/// Whether the parent's last certificate was no use, as it does not outlive the one in force, and another would hardly be. The issuer asks
/// again and again then: so do we, at two thirds of what is left each time.
fn is_in_vain<'a>(
    end: Option<OffsetDateTime>,
    in_vain: impl Iterator<Item = &'a Authority>,
    now: OffsetDateTime,
) -> bool {
    latest(in_vain, now).zip(end).is_some_and(|(since, end)| (now - since) * 2 < end - now)
}

/// Whether the parent has signed, a moment ago, below an authority that it does not tell of: what it told is older than what it does, and
/// whatever it signs now would be no use either. The more of them there are, the longer a moment is.
fn is_untold<'a>(prepared: impl Iterator<Item = &'a Authority> + Clone, now: OffsetDateTime) -> bool {
    latest(prepared.clone(), now).is_some_and(|since| now - since < moment(prepared.count()))
}

/// Whether the issuer has gone over, a moment ago, because the parent did. The more often it has, of what it remembers, the longer a moment
/// is.
fn is_to_and_fro(authorities: &[Authority], active: &Authority, now: OffsetDateTime) -> bool {
    let served = authorities.iter().filter(|one| matches!(one.stage, Stage::Active | Stage::Over));
    let above: Vec<_> = served.filter_map(|one| one.above.as_ref()).collect();
    let changes = above.windows(2).filter(|pair| pair[0] != pair[1]).count();
    // It is followed while the issuer's own is good, however often that was.
    let half = active.not_after.map_or(Duration::ZERO, |end| (end - active.since) / 2);
    changes > 0 && (Duration::ZERO..moment(changes).min(half)).contains(&(now - active.since))
}

/// When the last of them was prepared. What is dated ahead comes of a clock that was, and says nothing.
fn latest<'a>(prepared: impl Iterator<Item = &'a Authority>, now: OffsetDateTime) -> Option<OffsetDateTime> {
    prepared.map(|one| one.since).filter(|since| *since <= now).max()
}

/// After so many.
fn moment(count: usize) -> Duration {
    // 2^14 minutes are longer than the longest.
    (FIRST * (1_i32 << count.saturating_sub(1).min(14))).min(LONGEST)
}

fn signs(told: &[Vec<CertificateDer<'_>>], certificate: &[u8]) -> bool {
    told.iter().filter_map(|chain| chain.first()).any(|own| own.as_ref() == certificate)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::panic)]
    use std::slice::from_ref;

    use super::*;

    const START: OffsetDateTime = OffsetDateTime::UNIX_EPOCH;

    fn authority(key: &str, stage: Stage, days: i64, above: &[u8]) -> Authority {
        let has_certificate = stage != Stage::Requested;
        Authority {
            key: key.to_owned(),
            stage,
            since: START,
            not_after: has_certificate.then(|| START + Duration::days(days)),
            above: has_certificate.then(|| above.to_vec()),
            request: String::new(),
        }
    }

    fn told(above: &[&'static [u8]]) -> Vec<Vec<CertificateDer<'static>>> {
        above.iter().map(|der| vec![CertificateDer::from(*der)]).collect()
    }

    /// The step and whom it is about.
    fn step(authorities: &[Authority], parents: &[&'static [u8]], day: i64) -> (&'static str, String) {
        match next(authorities, &told(parents), START, START + Duration::days(day)) {
            Step::Sign(authority) => ("sign", authority.key.clone()),
            Step::Ask => ("ask", String::new()),
            Step::Rotate(authority) => ("rotate", authority.key.clone()),
            Step::Waits(why) => ("waits", format!("{why:?}")),
            Step::Nothing => ("nothing", String::new()),
        }
    }

    fn is(step: (&'static str, String), what: &str, key: &str) {
        assert_eq!((step.0, step.1.as_str()), (what, key));
    }

    #[test]
    fn what_waits_is_signed_and_nothing_is_done_where_nothing_waits() {
        use Stage::{Active, Over, Prepared, Requested};
        is(step(&[], &[b"p"], 0), "nothing", "");
        is(step(&[authority("a", Requested, 0, b"")], &[], 0), "sign", "a");
        let serving = authority("a", Active, 7, b"p");
        is(step(from_ref(&serving), &[b"p"], 3), "nothing", "");
        is(step(&[serving.clone(), authority("b", Requested, 0, b"")], &[b"p"], 4), "sign", "b");
        is(step(&[serving.clone(), authority("b", Prepared, 11, b"p")], &[b"p"], 4), "nothing", "");
        is(step(&[authority("z", Over, 1, b"o"), serving], &[b"p"], 4), "nothing", "");
    }

    #[test]
    fn whoever_is_below_an_authority_that_signs_no_more_goes_over_to_one_that_does() {
        use Stage::{Active, Prepared, Requested};
        let serving = authority("a", Active, 7, b"old");
        is(step(from_ref(&serving), &[], 1), "nothing", "");
        is(step(from_ref(&serving), &[b"other", b"old"], 1), "nothing", "");
        is(step(from_ref(&serving), &[b"new"], 1), "ask", "");
        let requested = authority("b", Requested, 0, b"");
        is(step(&[serving.clone(), requested.clone()], &[b"new"], 1), "sign", "b");
        // One that was signed ahead, below the same authority as this.
        let ahead = authority("c", Prepared, 9, b"old");
        is(step(&[serving.clone(), ahead, requested], &[b"new"], 1), "sign", "b");
        let successor = authority("b", Prepared, 8, b"new");
        is(step(&[serving.clone(), successor.clone()], &[b"new"], 1), "rotate", "b");
        is(step(&[serving, successor], &[b"new"], 8), "ask", "");
        // The first one came from the root.
        let of_root = Authority { above: None, ..authority("a", Active, 90, b"") };
        is(step(&[of_root], &[b"new"], 1), "nothing", "");
    }

    #[test]
    fn a_parent_that_signs_below_what_it_does_not_tell_of_is_asked_now_and_then_and_followed_once_it_tells() {
        use Stage::{Active, Prepared, Requested};
        // What was signed ahead is below the same as this, and holds up nothing.
        let ahead = Authority { since: START - Duration::days(1), ..authority("ahead", Prepared, 97, b"old") };
        let (mut all, mut waits) = (vec![authority("a", Active, 90, b"old"), ahead], false);
        let mut signed = Vec::new();
        for second in 0..24 * 3600 {
            let now = START + Duration::seconds(second);
            match next(&all, &told(&[b"stale"]), START, now) {
                Step::Ask if !waits => (all, waits) = ([all, vec![authority("b", Requested, 0, b"")]].concat(), true),
                Step::Sign(_) => {
                    all.retain(|one| one.stage != Requested);
                    all.push(Authority { since: now, ..authority("b", Prepared, 97, b"new") });
                    signed.push(second);
                    waits = false;
                }
                Step::Nothing | Step::Waits(Why::Untold | Why::Useless) => {}
                other => panic!("{other:?}"),
            }
        }
        assert!(signed.len() == USELESS && signed[0] < 5, "{signed:?}");
        is(step(&all, &[b"stale"], 1), "waits", "Useless");
        is(step(&all, &[b"new"], 1), "rotate", "b");
    }

    #[test]
    fn a_parent_that_signs_below_the_one_that_it_no_longer_tells_of_fills_no_issuer() {
        use Stage::{Active, Prepared};
        let mut all = vec![authority("a", Active, 90, b"old")];
        for minute in 0..14 * 24 * 60 {
            let now = START + Duration::minutes(minute);
            if matches!(next(&all, &told(&[b"new"]), START, now), Step::Ask) {
                all.push(Authority { since: now, ..authority("b", Prepared, 97, b"old") });
            }
        }
        assert!((5..=17).contains(&all.len()), "{}", all.len());
    }

    #[test]
    fn what_was_signed_ahead_and_an_authority_that_has_ended_hold_up_nothing() {
        use Stage::{Active, Over, Prepared, Requested};
        let now = START + Duration::days(1);
        let requested = authority("next", Requested, 0, b"");
        let ahead = Authority { since: now - Duration::minutes(1), ..authority("ahead", Prepared, 97, b"old") };
        // As many as one command asks for, below the authority of the parent that gives way now, or one before.
        let all = [vec![authority("a", Active, 90, b"old"), requested.clone()], vec![ahead; 16]].concat();
        assert!(matches!(next(&all, &told(&[b"new"]), now, now), Step::Sign(_)));
        // Of those that it signs from then on, some.
        let late = Authority { since: now, ..authority("late", Prepared, 97, b"old") };
        let later = now + Duration::hours(2);
        for (count, is_asked) in [(3, true), (4, false), (5, false)] {
            let all = [&all[..2], &vec![late.clone(); count]].concat();
            assert_eq!(matches!(next(&all, &told(&[b"new"]), now, later), Step::Sign(_)), is_asked, "{count}");
        }
        assert!(matches!(next(&[&all[..], &vec![late; 3]].concat(), &told(&[b"new"]), now, later), Step::Sign(_)));

        // It went over again and again, long ago it seems, and is followed at half of its life at last, or once it has ended.
        let over = |above: &[u8]| authority("over", Over, 0, above);
        let mut all: Vec<_> = (0..20).map(|number| over(&[number])).collect();
        all.push(Authority { since: now, ..authority("a", Active, 3, b"old") });
        all.push(requested);
        let at = |hours| next(&all, &told(&[b"new"]), now, now + Duration::hours(hours));
        assert!(matches!(at(23), Step::Waits(Why::ToAndFro)));
        assert!(matches!(at(25), Step::Sign(_)) && matches!(at(49), Step::Sign(_)));
    }

    #[test]
    fn what_was_dated_by_a_clock_that_was_ahead_holds_nothing_up() {
        use Stage::{Active, Prepared, Requested};
        let (serving, requested) = (authority("a", Active, 90, b"p"), authority("b", Requested, 0, b""));
        let ahead = Authority { since: START + Duration::days(80), ..authority("ahead", Prepared, 60, b"q") };
        let now = Authority { since: START + Duration::days(50), ..ahead.clone() };
        for (parent, why) in [(b"p" as &[u8], "InVain"), (b"r", "Untold")] {
            let all = [serving.clone(), ahead.clone(), requested.clone()];
            is(step(&all, &[parent], 50), "sign", "b");
            is(step(&[&all[..], from_ref(&now)].concat(), &[parent], 50), "waits", why);
        }
        let [before, after] = [authority("z", Stage::Over, 90, b"o"), Authority { since: ahead.since, ..serving }];
        is(step(&[before, after, requested], &[b"r"], 50), "sign", "b");
    }

    #[test]
    fn whoever_goes_to_and_fro_is_followed_less_and_less_often_and_fills_no_issuer() {
        use Stage::{Active, Over, Prepared};
        let (mut all, mut taken) = (vec![authority("a", Active, 7, b"1")], Vec::new());
        for minute in 0..60 * 24 * 60 {
            let now = START + Duration::minutes(minute);
            let side: &'static [u8] = if minute % 2 == 0 { b"1" } else { b"2" };
            // Kept for a week after its end, and the active one is followed as ever meanwhile.
            all.retain(|one| one.stage == Active || one.not_after.is_some_and(|end| end + Duration::days(7) > now));
            let ends = Some(now + Duration::days(7));
            let step = match next(&all, &told(&[side]), now, now) {
                Step::Ask => "ask",
                Step::Rotate(_) => "rotate",
                Step::Nothing | Step::Waits(Why::ToAndFro) => "",
                other => panic!("{other:?}"),
            };
            match step {
                "ask" => all.push(Authority { since: now, not_after: ends, ..authority("b", Prepared, 0, side) }),
                "rotate" => {
                    taken.push(minute);
                    for one in &mut all {
                        (one.stage, one.since) = match one.stage {
                            Active => (Over, now),
                            Prepared => (Active, now),
                            stage => (stage, one.since),
                        };
                    }
                }
                _ => {}
            }
            assert!(all.len() <= 20, "{} at {minute}", all.len());
        }
        // The first time at once.
        assert!(taken[0] <= 3 && taken.len() > 10, "{taken:?}");
        is(step(&all, &[b"3"], 61), "ask", "");
    }

    #[test]
    fn certificates_that_do_not_outlive_the_one_in_force_are_not_asked_for_without_end() {
        use Stage::{Active, Prepared, Requested};
        let serving = authority("a", Active, 90, b"p");
        let mut all = vec![serving, authority("next", Requested, 0, b"")];
        let mut signed = Vec::new();
        for hour in 45 * 24..90 * 24 {
            let now = START + Duration::hours(hour);
            all.retain(|one| one.stage != Prepared || one.not_after.is_some_and(|end| end + Duration::days(7) > now));
            if matches!(next(&all, &told(&[b"p"]), START, now), Step::Sign(_)) {
                signed.push(hour);
                let ends = Some(now + Duration::days(7));
                all.push(Authority { since: now, not_after: ends, ..authority("x", Prepared, 0, b"p") });
                if ends > all[0].not_after {
                    break;
                }
            }
        }
        assert!((2..=8).contains(&signed.len()), "{signed:?}");
        assert!(signed.last().is_some_and(|hour| *hour > 83 * 24), "the last one outlives it: {signed:?}");

        // One that lives for a minute only.
        let mut all = vec![authority("a", Active, 90, b"p"), authority("next", Requested, 0, b"")];
        for minute in 45 * 24 * 60..90 * 24 * 60 {
            let now = START + Duration::minutes(minute);
            all.retain(|one| one.stage != Prepared || one.not_after.is_some_and(|end| end + Duration::days(7) > now));
            if matches!(next(&all, &told(&[b"p"]), START, now), Step::Sign(_)) {
                let ends = Some(now + Duration::minutes(1));
                all.push(Authority { since: now, not_after: ends, ..authority("x", Prepared, 0, b"p") });
            }
            assert!(all.len() <= 2 + USELESS, "{} at {minute}", all.len());
        }
        let useless = |one: &&Authority| one.stage == Prepared;
        assert_eq!(all.iter().filter(useless).count(), USELESS);
        is(step(&all, &[b"p"], 89), "waits", "Useless");
        // Any is of use then.
        is(step(&all, &[b"p"], 90), "sign", "next");
    }
}
