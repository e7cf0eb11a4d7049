//! What the log says: one JSON object (RFC 8259) for each act, which says itself what its parts are.
//!
//! ```json
//! {"v":1,"time":"2026-11-28T09:30:00.123456Z","act":"x509_issued","serial":"6d1f…","spiffe_id":"spiffe://example.org/shop/orders",…}
//! ```
//! Serial numbers, key identifiers and hashes are lower-case hexadecimal, other times than that of the act are Unix seconds. Nothing in it
//! is secret. Whoever reads passes over members that it does not know, and tells of acts that it does not know by their name.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::MAX_ENTRY;

/// The version of the form: another one for what older readers would misunderstand.
const VERSION: u32 = 1;

#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Entry {
    v: u32,
    /// RFC 3339, UTC, in microseconds.
    pub time: String,
    #[serde(flatten)]
    pub act: Act,
}

#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(tag = "act", rename_all = "snake_case")]
pub enum Act {
    /// The first entry of each log.
    LogBegun {
        trust_domain: String,
        software: String,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        previous: Option<Previous>,
    },
    /// The issuer was started.
    Started {
        software: String,
    },
    X509Issued(X509),
    /// Of a certificate that was signed and did not leave.
    X509Refused {
        #[serde(flatten)]
        certificate: X509,
        reason: String,
    },
    JwtIssued(Jwt),
    JwtRefused {
        #[serde(flatten)]
        token: Jwt,
        reason: String,
    },
    JoinTokenMade {
        token_sha256: String,
        spiffe_id: String,
        expires: i64,
        actor: String,
    },
    PolicyRevised {
        revision: u64,
        rules: u64,
        removed: u64,
        sha256: String,
        actor: String,
        comment: Text,
    },
    Banned {
        spiffe_id: String,
        actor: String,
        reason: Text,
    },
    Unbanned {
        spiffe_id: String,
    },
    /// What was attested so is good no more. `agents` says how many there were.
    Evicted {
        agent: String,
        agents: u64,
    },
    /// Certificates are to be renewed within so many seconds.
    RenewalAsked {
        whose: String,
        within: u64,
    },
    Revoked(Revocation),
    /// An authority came to another stage of its life, or has another certificate; or this is how it is as the issuer starts.
    AuthorityChanged {
        /// Of its key.
        authority: String,
        stage: String,
        /// SHA-256 of its DER.
        #[serde(default, skip_serializing_if = "String::is_empty")]
        certificate: String,
    },
    /// Another authority is to sign.
    RotationBegun {
        #[serde(default, skip_serializing_if = "String::is_empty")]
        successor: String,
        /// With another root above it.
        root: bool,
        actor: String,
        comment: Text,
        /// Who did not want to wait for all that are connected.
        #[serde(default, skip_serializing_if = "String::is_empty")]
        overridden_by: String,
    },
    /// The same of a key that signs tokens.
    JwtKeyChanged {
        key: String,
        stage: String,
    },
    CrlSigned {
        authority: String,
        shard: u32,
        number: String,
        this_update: i64,
        next_update: i64,
        entries: u64,
        /// SHA-256 of its DER.
        sha256: String,
    },
    /// Somebody with a role is about to do something. What it came to has an entry of its own, where it came to anything.
    Administered {
        actor: String,
        action: String,
        target: Text,
    },
    Refused {
        what: String,
        whom: Text,
        reason: Text,
        /// As many before it were not written down.
        #[serde(default, skip_serializing_if = "is_none")]
        left_out: u64,
    },
    /// So many entries were not written: the database was away for too long.
    LeftOut {
        count: u64,
    },
    /// What a revocation came to, in parts.
    RevokedSerials {
        revocation: i64,
        epoch: u64,
        authority: String,
        serials: Vec<String>,
    },
}

fn is_none(count: &u64) -> bool {
    *count == 0
}

/// A log that this one follows, and what it was when it ended.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Previous {
    pub origin: String,
    pub size: u64,
    pub root: String,
}

#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct X509 {
    pub serial: String,
    pub spiffe_id: String,
    pub profile: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub rule: String,
    pub not_before: i64,
    pub not_after: i64,
    /// Key identifier.
    pub authority: String,
    /// SHA-256 of its DER.
    pub certificate: String,
    /// SHA-256 of its SubjectPublicKeyInfo.
    pub key: String,
    /// A method of attestation, `x509_svid` or `issuer`.
    pub attestation: String,
    /// SHA-256 of the proof, or the serial number of the certificate that was shown.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub evidence: String,
}

#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Jwt {
    pub jti: String,
    /// `jwt_svid` or `access_token`.
    pub kind: String,
    pub spiffe_id: String,
    pub audience: Vec<Text>,
    pub expires: i64,
    pub key: String,
    /// Of the certificate that was shown.
    pub evidence: String,
}

#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Revocation {
    pub number: i64,
    /// What was asked to be revoked, and which.
    pub kind: String,
    pub target: Text,
    /// As RFC 5280 §5.3.1 numbers it.
    pub reason: i64,
    pub actor: String,
    pub comment: Text,
    pub certificates: u64,
    pub agents: u64,
    /// The epoch of the last that it came to.
    pub epoch: u64,
}

/// What somebody wrote: at most [`Text::MOST`] characters, the end of more than that is left out.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(from = "String")]
pub struct Text(String);

#[derive(Debug, thiserror::Error)]
pub enum EntryError {
    #[error("it has {length} bytes; {MAX_ENTRY} are the most")]
    TooLong { length: usize },
    #[error("it cannot be written as JSON")]
    Json(#[source] serde_json::Error),
    #[error("its time cannot be written")]
    Time,
}

impl Entry {
    pub fn new(time: OffsetDateTime, act: Act) -> Result<Self, EntryError> {
        let time = time.replace_nanosecond(time.nanosecond() / 1000 * 1000).map_err(|_| EntryError::Time)?;
        let time = time.to_offset(time::UtcOffset::UTC).format(&Rfc3339).map_err(|_| EntryError::Time)?;
        Ok(Self { v: VERSION, time, act })
    }

    /// As it stands in the log.
    pub fn encode(&self) -> Result<Vec<u8>, EntryError> {
        let json = serde_json::to_vec(self).map_err(EntryError::Json)?;
        match json.len() <= MAX_ENTRY {
            true => Ok(json),
            false => Err(EntryError::TooLong { length: json.len() }),
        }
    }

    /// Whether it is an entry of some version, though its act may not be known here. Each says when it was: what is of no time would be in no
    /// report and no search.
    pub fn is_one(json: &[u8]) -> bool {
        #[derive(Deserialize)]
        struct Head<'a> {
            v: u32,
            time: &'a str,
            act: &'a str,
        }
        serde_json::from_slice(json).is_ok_and(|head: Head<'_>| head.v > 0 && is_utc(head.time) && !head.act.is_empty())
    }

    /// When it was, also where its version and its act are not known here. None where it says no time.
    pub fn time_of(json: &[u8]) -> Option<OffsetDateTime> {
        #[derive(Deserialize)]
        struct Head<'a> {
            #[serde(borrow)]
            time: Cow<'a, str>,
        }
        let head: Head<'_> = serde_json::from_slice(json).ok()?;
        OffsetDateTime::parse(&head.time, &Rfc3339).ok()
    }

    /// None where it is not of this version, or of an act that is not known here.
    pub fn decode(json: &[u8]) -> Option<Self> {
        // Else a number would pass for the name of an act.
        let entry = Self::is_one(json).then(|| serde_json::from_slice(json).ok()).flatten();
        entry.filter(|entry: &Self| entry.v == VERSION)
    }
}

/// Whether a text is a time as entries have it: RFC 3339, UTC, in seconds or parts of them down to nanoseconds.
fn is_utc(text: &str) -> bool {
    const FORM: &[u8; 19] = b"0000-00-00T00:00:00";
    let Some((time, rest)) = text.as_bytes().split_first_chunk::<19>() else { return false };
    let is_formed = time.iter().zip(FORM).all(|(byte, form)| match form {
        b'0' => byte.is_ascii_digit(),
        form => byte == form,
    });
    let is_zulu = match rest {
        [b'Z'] => true,
        [b'.', parts @ .., b'Z'] => (1..=9).contains(&parts.len()) && parts.iter().all(u8::is_ascii_digit),
        _ => false,
    };
    let number = |digits: &[u8]| digits.iter().fold(0, |number, digit| number * 10 + u32::from(digit - b'0'));
    if !is_formed || !is_zulu {
        return false;
    }
    let (year, month, day) = (number(&time[..4]), number(&time[5..7]), number(&time[8..10]));
    let is_leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let days = match month {
        2 if is_leap => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        1..=12 => 31,
        _ => 0,
    };
    (1..=days).contains(&day) && number(&time[11..13]) < 24 && number(&time[14..16]) < 60 && number(&time[17..]) < 60
}

impl Text {
    /// Characters.
    pub const MOST: usize = 1024;

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<String> for Text {
    fn from(text: String) -> Self {
        Self::from(text.as_str())
    }
}

impl From<&str> for Text {
    fn from(text: &str) -> Self {
        match text.char_indices().nth(Self::MOST) {
            None => Self(text.to_owned()),
            Some((end, _)) => Self(format!("{}…", text[..end].trim_end_matches('…'))),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn issued() -> Act {
        Act::X509Issued(X509 {
            serial: "6d".repeat(16),
            spiffe_id: "spiffe://example.org/shop/orders/backend-0001".to_owned(),
            profile: "workload".to_owned(),
            rule: "shop".to_owned(),
            not_before: 1_795_837_052,
            not_after: 1_795_840_652,
            authority: "3f".repeat(20),
            certificate: "ab".repeat(32),
            key: "cd".repeat(32),
            attestation: "x509_svid".to_owned(),
            evidence: "6e".repeat(16),
        })
    }

    fn at(seconds: i64) -> OffsetDateTime {
        OffsetDateTime::from_unix_timestamp(seconds).unwrap()
    }

    #[test]
    fn an_entry_says_itself_what_it_is() {
        let time = at(1_795_837_052) + time::Duration::nanoseconds(123_456_789);
        let entry = Entry::new(time, issued()).unwrap();
        let json = entry.encode().unwrap();
        let text = String::from_utf8(json.clone()).unwrap();
        assert!(
            text.starts_with(r#"{"v":1,"time":"2026-11-28T03:37:32.123456Z","act":"x509_issued","serial":"6d6d"#),
            "{text}"
        );
        assert_eq!(Entry::decode(&json), Some(entry));
    }

    /// With its length, its hash in the lowest tiles, and its part of those above.
    #[test]
    fn a_certificate_takes_600_bytes_of_the_log_at_most() {
        let length = Entry::new(at(1_795_837_052), issued()).unwrap().encode().unwrap().len();
        assert!(length + 2 + 32 < 600, "{length}");
    }

    #[test]
    fn what_is_not_known_is_not_taken_for_something_else() {
        for unknown in [
            r#"{"v":2,"time":"2026-11-28T03:37:32Z","act":"started","software":"1"}"#,
            r#"{"v":1,"time":"2026-11-28T03:37:32Z","act":"something_new","software":"1"}"#,
            r#"{"v":1,"time":"2026-11-28T03:37:32Z","act":"started"}"#,
            r#"{"v":1,"time":"2026-11-28T03:37:32Z","act":1,"software":"1"}"#,
            "[]",
            "",
        ] {
            assert_eq!(Entry::decode(unknown.as_bytes()), None, "{unknown}");
        }
        let newer = r#"{"v":1,"time":"2026-11-28T03:37:32Z","act":"started","software":"1","more":[1]}"#;
        assert_eq!(Entry::decode(newer.as_bytes()).unwrap().act, Act::Started { software: "1".to_owned() });
    }

    #[test]
    fn an_entry_that_says_no_time_is_none() {
        let entry = |time: &str| format!(r#"{{"v":1,"time":"{time}","act":"started","software":"1"}}"#);
        for time in ["2026-11-28T03:37:32Z", "2026-11-28T23:59:59.999999Z", "2024-02-29T00:00:00.1Z"] {
            assert!(Entry::is_one(entry(time).as_bytes()), "{time}");
        }
        for time in [
            "",
            "tomorrow",
            "2026-11-28",
            "2026-11-28T03:37:32",
            "2026-11-28T03:37:32+00:00",
            "2026-11-28t03:37:32z",
            "2026-11-28T03:37:32.Z",
            "2026-11-28T03:37:32.1234567890Z",
            "2026-11-28T03:37:3 Z",
            "2026-02-29T03:37:32Z",
            "2026-11-31T03:37:32Z",
            "2026-13-01T03:37:32Z",
            "2026-00-01T03:37:32Z",
            "2026-11-00T03:37:32Z",
            "2026-11-28T24:00:00Z",
            "2026-11-28T03:60:32Z",
            "2026-12-31T23:59:60Z",
            "+2026-11-28T03:37:32Z",
        ] {
            assert!(!Entry::is_one(entry(time).as_bytes()), "{time}");
            assert_eq!(Entry::decode(entry(time).as_bytes()), None, "{time}");
        }
    }

    proptest::proptest! {
        #[test]
        fn what_is_taken_for_a_time_is_one(time in "[0-9]{4}-[01][0-9]-[0-3][0-9]T[0-2][0-9]:[0-6][0-9]:[0-6][0-9](\\.[0-9]{1,9})?Z") {
            let parsed = OffsetDateTime::parse(&time, &Rfc3339);
            // A leap second is none that our clocks show.
            proptest::prop_assert_eq!(is_utc(&time), parsed.is_ok() && !time[17..].starts_with("60"));
        }
    }

    #[test]
    fn what_somebody_wrote_makes_no_entry_too_long() {
        let long = "\u{1}".repeat(100_000);
        let act =
            Act::Banned { spiffe_id: "a".repeat(2048), actor: "b".repeat(2048), reason: Text::from(long.as_str()) };
        assert!(Entry::new(at(0), act).unwrap().encode().unwrap().len() < MAX_ENTRY);
        let text = Text::from("a".repeat(2000).as_str());
        assert_eq!(text, Text::from(text.as_str()));
        assert_eq!(Text::from("ö".repeat(Text::MOST).as_str()).as_str().chars().count(), Text::MOST);
    }

    #[test]
    fn an_entry_that_is_too_long_is_refused() {
        let act = Act::Started { software: "x".repeat(MAX_ENTRY) };
        assert!(matches!(Entry::new(at(0), act).unwrap().encode(), Err(EntryError::TooLong { .. })));
    }
}
