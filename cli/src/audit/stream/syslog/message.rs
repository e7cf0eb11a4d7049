//! One message (RFC 5424 §6), with its length before it (RFC 5425 §4.3).
//!
//! ```text
//! LENGTH <109>1 2026-11-28T03:37:32.123456Z example.org signet - x509_issued [origin software="signet" swVersion="0.1.0"][meta sequenceId="8"] {"log":…}
//! ```

use std::fmt::Write as _;

use signet_audit::Origin;
use time::format_description::well_known::Rfc3339;

use super::super::Item;
use crate::args::{Facility, SdId, SyslogOptions};

pub(super) struct Form {
    facility: Facility,
    /// Bytes.
    most: usize,
    sd_id: Option<SdId>,
}

const WARNING: u8 = 4;
const NOTICE: u8 = 5;
/// Of a value in structured data, as much as messages have room for. Characters.
const MAX_VALUE: usize = 256;
/// RFC 5424 §7.3.1.
const LAST_SEQUENCE_ID: u64 = 2_147_483_647;

impl Form {
    pub(super) fn new(options: &SyslogOptions) -> Self {
        let SyslogOptions { facility, max_message, sd_id, accept_tcp_close: _ } = options;
        Self { facility: *facility, most: *max_message as usize, sd_id: sd_id.clone() }
    }

    pub(super) fn push(&self, messages: &mut Vec<u8>, log: &Origin, item: &Item) {
        let fits = |text: &String| text.len() <= self.most;
        let whole = Some(self.message(log, item, self.sd_id.as_ref(), &item.line(log))).filter(fits);
        let about = || Some(self.message(log, item, self.sd_id.as_ref(), &item.about(log))).filter(fits);
        let message = whole.or_else(about).unwrap_or_else(|| self.message(log, item, None, &item.place(log)));
        messages.extend_from_slice(format!("{} {message}", message.len()).as_bytes());
    }

    fn message(&self, log: &Origin, item: &Item, sd_id: Option<&SdId>, json: &str) -> String {
        let priority = self.facility as u8 * 8 + if item.is_warning() { WARNING } else { NOTICE };
        let time = item.time().and_then(|time| time.format(&Rfc3339).ok()).unwrap_or_else(|| "-".to_owned());
        let host = name(log.as_str().split('/').next().unwrap_or_default(), 255);
        let data = structured_data(sd_id, log, item);
        format!("<{priority}>1 {time} {host} signet - {} {data} {}", name(item.act(), 32), ascii(json))
    }
}

/// The names without a number are IANA's; the numbers of enterprises are theirs who have them.
fn structured_data(sd_id: Option<&SdId>, log: &Origin, item: &Item) -> String {
    let version = env!("CARGO_PKG_VERSION");
    let number = item.index % LAST_SEQUENCE_ID + 1;
    let mut data = format!(r#"[origin software="signet" swVersion="{version}"][meta sequenceId="{number}"]"#);
    if let Some(id) = sd_id {
        let _ = write!(data, r#"[{} log="{}" index="{}""#, id.as_str(), value(log.as_str()), item.index);
        for member in ["act", "spiffe_id", "serial"] {
            if let Some(text) = item.text(member) {
                let _ = write!(data, r#" {member}="{}""#, value(text));
            }
        }
        data.push(']');
    }
    data
}

/// Of printable ASCII, `-` where nothing is left.
fn name(text: &str, most: usize) -> String {
    let name: String = text.chars().filter(char::is_ascii_graphic).take(most).collect();
    if name.is_empty() { "-".to_owned() } else { name }
}

/// RFC 5424 §6.3.3. Control characters, which it permits, drive terminals.
fn value(text: &str) -> String {
    let mut value = String::new();
    for character in text.chars().take(MAX_VALUE) {
        match character {
            '"' | '\\' | ']' => value.extend(['\\', character]),
            control if control.is_control() => value.push('\u{fffd}'),
            other => value.push(other),
        }
    }
    value
}

/// JSON says the same without any other characters, and needs no byte order mark (RFC 5424 §6.4), which readers of JSON trip over.
fn ascii(json: &str) -> String {
    let mut text = String::with_capacity(json.len());
    for character in json.chars() {
        if character.is_ascii() && character != '\u{7f}' {
            text.push(character);
            continue;
        }
        for unit in character.encode_utf16(&mut [0; 2]) {
            let _ = write!(text, "\\u{unit:04x}");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;

    fn form(most: usize, sd_id: Option<&str>) -> Form {
        Form { facility: Facility::Audit, most, sd_id: sd_id.map(|id| id.parse().unwrap()) }
    }

    fn message(form: &Form, entry: &str) -> String {
        let mut bytes = Vec::new();
        form.push(&mut bytes, &"example.org/audit/1".parse().unwrap(), &Item::new(7, entry.as_bytes()));
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn an_entry_is_a_message_with_its_length_before_it() {
        let entry =
            r#"{"v":1,"time":"2026-11-28T03:37:32.123456Z","act":"banned","actor":"uid:0","reason":"é😀\u007f"}"#;
        let found = message(&form(8192, None), entry);
        let (length, rest) = found.split_once(' ').unwrap();
        assert_eq!(length.parse::<usize>().unwrap(), rest.len());
        let head = format!(
            "<109>1 2026-11-28T03:37:32.123456Z example.org signet - banned [origin software=\"signet\" swVersion=\"{}\"][meta \
             sequenceId=\"8\"] {{\"log\":\"example.org/audit/1\",\"index\":7,\"entry\":{{",
            env!("CARGO_PKG_VERSION")
        );
        assert!(rest.starts_with(&head), "{rest}");
        let json: serde_json::Value = serde_json::from_str(&rest[rest.find("{\"log").unwrap()..]).unwrap();
        assert_eq!(json["entry"], serde_json::from_str::<serde_json::Value>(entry).unwrap());
        assert!(
            rest.is_ascii() && message(&form(8192, None), &entry.replace("banned", "jwt_refused")).contains("<108>1 ")
        );
        assert!(message(&form(8192, None), "none").contains("<109>1 - example.org signet - unknown ["));
    }

    #[test]
    fn structured_data_with_a_number_of_ones_own_is_escaped() {
        let entry = r#"{"v":1,"time":"2026-11-28T03:37:32Z","act":"x","spiffe_id":"a\"b\\c]\u001b\n"}"#;
        let found = message(&form(8192, Some("signet@1")), entry);
        let expected = "[signet@1 log=\"example.org/audit/1\" index=\"7\" act=\"x\" spiffe_id=\"a\\\"b\\\\c\\]\u{fffd}\u{fffd}\"] {";
        assert!(found.contains(expected), "{found}");
    }

    #[test]
    fn of_an_entry_that_is_too_long_what_it_is_about_is_sent() {
        let entry = format!(
            r#"{{"v":1,"time":"2026-11-28T03:37:32Z","act":"banned","spiffe_id":"spiffe://a/b","reason":"{}"}}"#,
            "é".repeat(1000)
        );
        let found = message(&form(2048, None), &entry);
        assert!(found.len() < 2048 && found.contains("left_out_bytes") && found.contains("spiffe://a/b"), "{found}");
    }

    proptest! {
        #[test]
        fn no_text_becomes_another_message_or_a_longer_one(act in "\\PC{0,40}", id in "[\\PC\n\u{0}\\]\"]{0,300}", reason: String) {
            let entry = serde_json::json!({ "v": 1, "time": "2026-11-28T03:37:32Z", "act": act, "spiffe_id": id, "reason": reason.repeat(99) });
            let found = message(&form(2048, Some("a@1")), &entry.to_string());
            let (length, rest) = found.split_once(' ').unwrap();
            prop_assert_eq!(length.parse::<usize>().unwrap(), rest.len());
            prop_assert!(rest.len() <= 2048);
            prop_assert!(!rest.contains(|character: char| character.is_control()));
        }
    }
}
