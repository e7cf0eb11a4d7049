//! The entries that reports are about, read without more copies than needed: a log has far more entries than a report has rows.

use std::borrow::Cow;

use serde::Deserialize;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::Window;
use crate::entry::{Act, Entry};

/// A certificate as its entry has it ([`X509`](crate::X509)), whatever else the entry says.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq)]
pub(super) struct Certificate<'a> {
    /// Lower-case hexadecimal.
    #[serde(borrow)]
    pub(super) serial: Cow<'a, str>,
    #[serde(borrow)]
    pub(super) spiffe_id: Cow<'a, str>,
    #[serde(borrow)]
    pub(super) profile: Cow<'a, str>,
    #[serde(borrow, default)]
    pub(super) rule: Cow<'a, str>,
    /// Unix seconds.
    pub(super) not_before: i64,
    pub(super) not_after: i64,
    #[serde(borrow)]
    pub(super) authority: Cow<'a, str>,
    #[serde(borrow)]
    pub(super) attestation: Cow<'a, str>,
    #[serde(borrow, default)]
    pub(super) evidence: Cow<'a, str>,
}

/// What the second reading is after.
#[derive(Debug)]
pub(super) enum Told<'a> {
    Issued { issued_at: OffsetDateTime, certificate: Certificate<'a> },
    Refused { at: OffsetDateTime, reason: Cow<'a, str> },
}

/// What the first reading is after.
#[derive(Debug)]
pub(super) enum Found<'a> {
    Revoked {
        at: OffsetDateTime,
        act: Box<Act>,
    },
    /// A certificate of the window was asked for by whoever showed the one with this serial number.
    Shown {
        serial: Cow<'a, str>,
    },
}

/// How an entry begins that we wrote; others are read at more cost.
#[derive(Deserialize)]
struct Head<'a> {
    v: u32,
    #[serde(borrow)]
    time: Cow<'a, str>,
    #[serde(borrow)]
    act: Cow<'a, str>,
}

#[derive(Deserialize)]
struct Refused<'a> {
    #[serde(borrow)]
    reason: Cow<'a, str>,
}

/// How an entry says that a certificate was shown, or how that begins: for a successor, or for what is given beside it.
const SHOWN: &str = "x509_svid";

pub(super) fn first_look<'a>(entry: &'a [u8], window: &Window) -> Option<Found<'a>> {
    let head = Head::of(entry)?;
    match &*head.act {
        "revoked" | "revoked_serials" => {
            Some(Found::Revoked { at: head.time()?, act: Box::new(Entry::decode(entry)?.act) })
        }
        "x509_issued" if head.time().is_some_and(|time| window.holds(time)) => {
            let certificate: Certificate<'_> = serde_json::from_slice(entry).ok()?;
            let is_shown = certificate.attestation.starts_with(SHOWN) && !certificate.evidence.is_empty();
            is_shown.then_some(Found::Shown { serial: certificate.evidence })
        }
        _ => None,
    }
}

/// Certificates of other times count where `matters` says so of their serial numbers.
pub(super) fn second_look<'a>(entry: &'a [u8], window: &Window, matters: impl Fn(&str) -> bool) -> Option<Told<'a>> {
    let head = Head::of(entry)?;
    let is_issued = head.act == "x509_issued";
    let is_refused = matches!(&*head.act, "x509_refused" | "jwt_refused" | "refused");
    if !is_issued && !is_refused {
        return None;
    }
    let time = head.time()?;
    let is_in = window.holds(time);
    if is_refused {
        let refused: Option<Refused<'_>> = is_in.then(|| serde_json::from_slice(entry).ok()).flatten();
        return refused.map(|refused| Told::Refused { at: time, reason: refused.reason });
    }
    if !is_in && !serial_as_we_write_it(entry).is_none_or(&matters) {
        return None;
    }
    let certificate: Certificate<'_> = serde_json::from_slice(entry).ok()?;
    (is_in || matters(&certificate.serial)).then_some(Told::Issued { issued_at: time, certificate })
}

impl<'a> Head<'a> {
    /// None where it is of no version that is known here.
    fn of(entry: &'a [u8]) -> Option<Self> {
        Self::as_we_write_it(entry).or_else(|| serde_json::from_slice(entry).ok()).filter(|head| head.v == 1)
    }

    fn as_we_write_it(entry: &'a [u8]) -> Option<Self> {
        let (time, rest) = until_quote(entry.strip_prefix(br#"{"v":1,"time":""#)?)?;
        let (act, _) = until_quote(rest.strip_prefix(br#"","act":""#)?)?;
        Some(Self { v: 1, time: Cow::Borrowed(time), act: Cow::Borrowed(act) })
    }

    fn time(&self) -> Option<OffsetDateTime> {
        OffsetDateTime::parse(&self.time, &Rfc3339).ok()
    }
}

/// Of a certificate that was issued, without reading more of its entry.
fn serial_as_we_write_it(entry: &[u8]) -> Option<&str> {
    let (_, rest) = until_quote(entry.strip_prefix(br#"{"v":1,"time":""#)?)?;
    let (serial, _) = until_quote(rest.strip_prefix(br#"","act":"x509_issued","serial":""#)?)?;
    Some(serial)
}

/// A plain word, and what comes from the quote on that ends it.
fn until_quote(text: &[u8]) -> Option<(&str, &[u8])> {
    let end = text.iter().position(|byte| *byte == b'"')?;
    let word = std::str::from_utf8(&text[..end]).ok().filter(|word| !word.contains('\\'))?;
    Some((word, &text[end..]))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]
    use super::*;
    use crate::entry::X509;

    #[test]
    fn a_certificate_is_read_as_its_entry_was_written() {
        let written = X509 {
            serial: "6d".repeat(16),
            spiffe_id: "spiffe://example.org/\"\u{1}ö".to_owned(),
            profile: "workload".to_owned(),
            rule: String::new(),
            not_before: 1_795_837_052,
            not_after: 1_795_840_652,
            authority: "3f".repeat(20),
            certificate: "ab".repeat(32),
            key: "cd".repeat(32),
            attestation: "join_token".to_owned(),
            evidence: String::new(),
        };
        let time = OffsetDateTime::from_unix_timestamp(1_795_837_052).unwrap();
        let entry = Entry::new(time, Act::X509Issued(written.clone())).unwrap().encode().unwrap();
        let window = Window::new(time, time + time::Duration::SECOND).unwrap();
        let Some(Told::Issued { issued_at, certificate: read }) = second_look(&entry, &window, |_| false) else {
            panic!("{entry:?}");
        };
        assert_eq!((issued_at, read.not_before, read.not_after), (time, written.not_before, written.not_after));
        let texts = [&read.serial, &read.spiffe_id, &read.profile, &read.rule, &read.authority, &read.attestation];
        let expected =
            [written.serial, written.spiffe_id, written.profile, written.rule, written.authority, written.attestation];
        assert!(texts.into_iter().eq(&expected));
    }

    #[test]
    fn an_entry_in_another_order_says_the_same_and_another_version_says_nothing() {
        let entry = br#"{"act":"x509_refused", "reason":"banned", "v":1, "time":"2026-11-28T03:37:32Z"}"#;
        let from = Window::time("2026-11-28").unwrap();
        let window = Window::new(from, from + time::Duration::DAY).unwrap();
        assert!(
            matches!(second_look(entry, &window, |_| false), Some(Told::Refused { reason, .. }) if reason == "banned")
        );
        let newer = String::from_utf8(entry.to_vec()).unwrap().replace("\"v\":1", "\"v\":2");
        assert!(second_look(newer.as_bytes(), &window, |_| false).is_none());
        let later = Window::new(from + time::Duration::DAY, from + time::Duration::WEEK).unwrap();
        assert!(second_look(entry, &later, |_| true).is_none());
    }
}
