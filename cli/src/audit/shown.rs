//! One entry of a log, on one line.

use serde_json::{Map, Value};
use signet_audit::Entry;
use signet_policy::Pattern;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::args::EntryFilter;
use crate::failure::Failure;
use crate::output::{self, Format};

/// An entry as it stands in the log, and where.
pub(super) struct Shown {
    index: u64,
    /// Null where it is no entry of a log of Signet.
    entry: Value,
}

/// Members that say whom an entry is about, the first that is there.
const ABOUT: [&str; 8] = ["spiffe_id", "whom", "agent", "whose", "target", "authority", "key", "trust_domain"];
/// What stands in columns of its own.
const IN_COLUMNS: [&str; 4] = ["v", "time", "act", "actor"];
/// Of a hash or an identifier, as much as tells it from others.
const SHORT: usize = 12;

impl Shown {
    pub(super) fn new(index: u64, entry: &[u8]) -> Self {
        // Numbers and names of what is not known here are shown as well.
        let entry = if Entry::is_one(entry) { serde_json::from_slice(entry).unwrap_or_default() } else { Value::Null };
        Self { index, entry }
    }

    pub(super) fn print(&self, format: Format) -> Result<(), Failure> {
        let as_logged = || serde_json::json!({ "index": self.index, "entry": self.entry });
        output::print_text(&match format {
            Format::Table => format!("{}\n", output::harmless(&self.line())),
            // One to a line: nobody knows when it ends.
            Format::Json => output::json_line(&as_logged())?,
            Format::Yaml => format!("---\n{}", output::serialized(format, &as_logged())?),
        })
    }

    fn line(&self) -> String {
        let Value::Object(entry) = &self.entry else {
            return format!("{:>10}  no entry of a log of Signet", self.index);
        };
        let text = |name: &str| entry.get(name).and_then(Value::as_str).unwrap_or_default();
        let about = ABOUT.iter().find(|name| !text(name).is_empty());
        let actor = if text("actor").is_empty() { "-" } else { text("actor") };
        let time = text("time").get(..19).unwrap_or_default();
        let whom = about.map_or("-", |name| text(name));
        let more = rest(entry, about.copied());
        format!("{time}Z {:>10}  {:<18} {actor}  {whom}  {more}", self.index, text("act"))
    }

    /// Whether it is one that is asked for.
    pub(super) fn fits(&self, filter: &EntryFilter) -> bool {
        let EntryFilter { act, actor, identity, serial } = filter;
        let text = |name: &str| self.entry.get(name).and_then(Value::as_str);
        let is_act = act.is_empty() || text("act").is_some_and(|found| act.iter().any(|act| act == found));
        let is_actor = actor.as_ref().is_none_or(|actor| text("actor") == Some(actor));
        let names = ["spiffe_id", "whom", "whose", "target", "agent"];
        let is_about = |pattern: &Pattern| names.iter().filter_map(|name| text(name)).any(|id| pattern.matches(id));
        let is_serial = |serial: &String| {
            let many = self.entry.get("serials").and_then(Value::as_array);
            text("serial") == Some(serial) || many.is_some_and(|many| many.iter().any(|one| one == serial))
        };
        is_act && is_actor && identity.as_ref().is_none_or(is_about) && serial.as_ref().is_none_or(is_serial)
    }

    /// None where it does not say when it was.
    pub(super) fn time(&self) -> Option<OffsetDateTime> {
        OffsetDateTime::parse(self.entry.get("time")?.as_str()?, &Rfc3339).ok()
    }
}

fn rest(entry: &Map<String, Value>, about: Option<&str>) -> String {
    let is_shown = |name: &str| !IN_COLUMNS.contains(&name) && about != Some(name);
    let of = |(name, value): (&String, &Value)| match value {
        Value::String(text) if is_hexadecimal(text) => format!("{name}={}…", &text[..SHORT]),
        Value::String(text) if text.is_empty() || text.contains(' ') => format!("{name}={text:?}"),
        Value::String(text) => format!("{name}={text}"),
        Value::Array(many) => format!("{name}={}", many.len()),
        value => format!("{name}={value}"),
    };
    let shown: Vec<_> = entry.iter().filter(|(name, _)| is_shown(name)).map(of).collect();
    shown.join(" ")
}

fn is_hexadecimal(text: &str) -> bool {
    text.len() > 2 * SHORT && text.len() != 32 && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const ISSUED: &str = r#"{"v":1,"time":"2026-11-28T03:37:32.123456Z","act":"x509_issued","serial":"6d6d6d6d6d6d6d6d6d6d6d6d6d6d6d6d","spiffe_id":"spiffe://example.org/shop/cart","profile":"workload","not_after":1795840652,"certificate":"abababababababababababababababababababababababababababababababab"}"#;

    fn filter() -> EntryFilter {
        EntryFilter { act: Vec::new(), actor: None, identity: None, serial: None }
    }

    #[test]
    fn an_entry_is_one_line_whatever_it_says() {
        let line = Shown::new(7, ISSUED.as_bytes()).line();
        assert_eq!(
            line,
            "2026-11-28T03:37:32Z          7  x509_issued        -  spiffe://example.org/shop/cart  certificate=abababababab… \
             not_after=1795840652 profile=workload serial=6d6d6d6d6d6d6d6d6d6d6d6d6d6d6d6d"
        );
        let hostile =
            r#"{"v":1,"time":"2026-11-28T03:37:32Z","act":"refused","whom":"a\n\u001b[2Jb\u202ec","reason":"x y"}"#;
        let line = output::harmless(&Shown::new(8, hostile.as_bytes()).line());
        assert!(!line.contains(['\n', '\u{1b}', '\u{202e}']), "{line}");
        for none in ["", "[]", "{}", "\u{1b}[2J"] {
            assert!(Shown::new(9, none.as_bytes()).line().contains("no entry"), "{none}");
        }
    }

    #[test]
    fn what_fits_a_filter_fits_all_of_it() {
        let shown = Shown::new(7, ISSUED.as_bytes());
        let pattern = |text: &str| Some(text.parse().unwrap());
        assert!(shown.fits(&filter()));
        assert!(shown.fits(&EntryFilter { act: vec!["banned".into(), "x509_issued".into()], ..filter() }));
        assert!(!shown.fits(&EntryFilter { act: vec!["banned".into()], ..filter() }));
        assert!(shown.fits(&EntryFilter { identity: pattern("spiffe://example.org/shop/*"), ..filter() }));
        assert!(!shown.fits(&EntryFilter { identity: pattern("spiffe://example.org/web/*"), ..filter() }));
        assert!(shown.fits(&EntryFilter { serial: Some("6d".repeat(16)), ..filter() }));
        assert!(!shown.fits(&EntryFilter { actor: Some("uid:0".into()), ..filter() }));
        let revoked = r#"{"v":1,"time":"2026-11-28T03:37:32Z","act":"revoked_serials","serials":["6d","6e"]}"#;
        assert!(Shown::new(8, revoked.as_bytes()).fits(&EntryFilter { serial: Some("6e".into()), ..filter() }));
    }
}
