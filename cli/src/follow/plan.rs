//! What is to be done next for an issuer, by what it has.

use rustls_pki_types::CertificateDer;
use time::{Duration, OffsetDateTime};

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
    Nothing,
}

/// After a certificate below an authority that the parent has not told of, before the next is asked for: it may tell of it any moment.
const UNTOLD: Duration = Duration::minutes(1);
const UNTOLD_AT_MOST: Duration = Duration::hours(1);

/// `told`: the chains of the authorities that sign at the parent, or may soon; none where it has said nothing.
pub(super) fn next<'a>(
    authorities: &'a [Authority],
    told: &[Vec<CertificateDer<'_>>],
    now: OffsetDateTime,
) -> Step<'a> {
    let at = |stage| authorities.iter().filter(move |authority| authority.stage == stage);
    let requested = at(Stage::Requested).next();
    let Some(active) = at(Stage::Active).next() else { return requested.map_or(Step::Nothing, Step::Sign) };
    // The one above it has retired, or worse: what is below it may be gone any moment.
    if !told.is_empty() && active.above.as_ref().is_some_and(|above| !signs(told, above)) {
        let is_below = |next: &&Authority| {
            next.not_after.is_some_and(|end| end > now) && next.above.as_ref().is_some_and(|above| signs(told, above))
        };
        return match at(Stage::Prepared).find(is_below) {
            Some(successor) => Step::Rotate(successor),
            None if is_untold(active, at(Stage::Prepared), told, now) => Step::Nothing,
            None => requested.map_or(Step::Ask, Step::Sign),
        };
    }
    match requested {
        Some(requested) if !is_in_vain(active, at(Stage::Prepared), now) => Step::Sign(requested),
        Some(_) | None => Step::Nothing,
    }
}

/// Whether the parent's last certificate was no use, as it does not outlive the one in force, and another would hardly be. The issuer asks
/// again and again then: so do we, at two thirds of what is left each time.
fn is_in_vain<'a>(active: &Authority, prepared: impl Iterator<Item = &'a Authority>, now: OffsetDateTime) -> bool {
    let Some(end) = active.not_after else { return false };
    let in_vain = prepared.filter(|one| one.not_after.is_some_and(|not_after| not_after <= end));
    in_vain.map(|one| one.since).max().is_some_and(|since| (now - since) * 2 < end - now)
}

/// Whether the parent has signed, a moment ago, below an authority that it tells of as little as of the one before: what it told is older
/// than what it does, and whatever it signs now would be no use either. The more of them there are, the longer a moment is.
fn is_untold<'a>(
    active: &Authority,
    prepared: impl Iterator<Item = &'a Authority>,
    told: &[Vec<CertificateDer<'_>>],
    now: OffsetDateTime,
) -> bool {
    let is_one =
        |one: &&Authority| one.above != active.above && one.above.as_ref().is_some_and(|above| !signs(told, above));
    let since: Vec<OffsetDateTime> = prepared.filter(is_one).map(|one| one.since).collect();
    let moment = (UNTOLD * (1_i32 << since.len().saturating_sub(1).min(6))).min(UNTOLD_AT_MOST);
    since.into_iter().max().is_some_and(|latest| now - latest < moment)
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
        match next(authorities, &told(parents), START + Duration::days(day)) {
            Step::Sign(authority) => ("sign", authority.key.clone()),
            Step::Ask => ("ask", String::new()),
            Step::Rotate(authority) => ("rotate", authority.key.clone()),
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
        let mut all = vec![authority("a", Active, 90, b"old"), authority("ahead", Prepared, 97, b"old")];
        let (mut signed, mut waits) = (Vec::new(), false);
        for second in 0..6 * 3600 {
            let now = START + Duration::seconds(second);
            match next(&all, &told(&[b"stale"]), now) {
                Step::Ask if !waits => (all, waits) = ([all, vec![authority("b", Requested, 0, b"")]].concat(), true),
                Step::Sign(_) => {
                    all.retain(|one| one.stage != Requested);
                    all.push(Authority { since: now, ..authority("b", Prepared, 97, b"new") });
                    signed.push(second);
                    waits = false;
                }
                Step::Nothing => {}
                other => panic!("{other:?}"),
            }
        }
        assert!((5..=12).contains(&signed.len()) && signed[0] < 5, "{signed:?}");
        is(step(&all, &[b"new"], 1), "rotate", "b");
    }

    #[test]
    fn certificates_that_do_not_outlive_the_one_in_force_are_not_asked_for_without_end() {
        use Stage::{Active, Prepared, Requested};
        let serving = authority("a", Active, 90, b"p");
        let mut all = vec![serving, authority("next", Requested, 0, b"")];
        let mut signed = Vec::new();
        for hour in 45 * 24..90 * 24 {
            let now = START + Duration::hours(hour);
            if matches!(next(&all, &told(&[b"p"]), now), Step::Sign(_)) {
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
    }
}
