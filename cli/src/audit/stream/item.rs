//! One entry, as receivers are given it.

use serde_json::{Map, Value, json};
use signet_audit::{Entry, Origin};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// Of each line.
pub(super) const BEGINNING: &str = r#"{"log":"#;

pub(super) struct Item {
    pub(super) index: u64,
    /// As it stands in the log, on one line; `null` where it is no entry of a log of Signet.
    json: String,
    entry: Value,
}

impl Item {
    pub(super) fn new(index: u64, bytes: &[u8]) -> Self {
        let entry: Value =
            if Entry::is_one(bytes) { serde_json::from_slice(bytes).unwrap_or_default() } else { Value::Null };
        let as_it_stands =
            std::str::from_utf8(bytes).ok().filter(|text| !entry.is_null() && !text.contains(['\n', '\r']));
        let json = as_it_stands.map_or_else(|| entry.to_string(), str::to_owned);
        Self { index, json, entry }
    }

    /// A member that is a text.
    pub(super) fn text(&self, name: &str) -> Option<&str> {
        self.entry.get(name)?.as_str()
    }

    pub(super) fn act(&self) -> &str {
        self.text("act").unwrap_or("unknown")
    }

    /// None where it does not say when it was.
    pub(super) fn time(&self) -> Option<OffsetDateTime> {
        OffsetDateTime::parse(self.text("time")?, &Rfc3339).ok()
    }

    /// Somebody did not get what they asked for, or something is missing.
    pub(super) fn is_warning(&self) -> bool {
        self.act().ends_with("refused") || self.act() == "left_out"
    }

    pub(super) fn json(&self) -> &str {
        &self.json
    }

    /// The entry with its place, on one line and without the end of it.
    pub(super) fn line(&self, log: &Origin) -> String {
        format!(r#"{BEGINNING}{},"index":{},"entry":{}}}"#, Value::from(log.as_str()), self.index, self.json)
    }

    /// The same of an entry that is too long for a receiver: what it is about.
    pub(super) fn about(&self, log: &Origin) -> String {
        const MOST: usize = 128;
        let text = |name| Some(self.text(name)?.chars().take(MOST).collect::<String>());
        let members = ["time", "act", "spiffe_id", "serial", "actor"];
        let kept = members.into_iter().filter_map(|name| Some((name.to_owned(), text(name)?.into())));
        self.without(log, kept.collect::<Map<_, _>>().into())
    }

    /// Where it can be read, and nothing of it.
    pub(super) fn place(&self, log: &Origin) -> String {
        self.without(log, Value::Null)
    }

    fn without(&self, log: &Origin, kept: Value) -> String {
        json!({ "log": log.as_str(), "index": self.index, "entry": kept, "left_out_bytes": self.json.len() })
            .to_string()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn an_entry_is_one_line_with_its_place() {
        let log = "example.org/audit".parse().unwrap();
        let line = |bytes: &[u8]| Item::new(7, bytes).line(&log);
        let entry = r#"{"v":1,"time":"2026-11-28T03:37:32.5Z","act":"banned","reason":"a\nb"}"#;
        assert_eq!(line(entry.as_bytes()), format!(r#"{{"log":"example.org/audit","index":7,"entry":{entry}}}"#));
        let spread = entry.replace(',', ",\r\n");
        assert!(!line(spread.as_bytes()).contains(['\r', '\n']));
        assert_eq!(line(b"\xff"), r#"{"log":"example.org/audit","index":7,"entry":null}"#);
        assert_eq!(Item::new(7, entry.as_bytes()).time().unwrap().microsecond(), 500_000);
    }
}
