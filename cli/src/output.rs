//! Results as a table for people, as JSON or YAML for programs.

use std::io::{self, Write as _};

use clap::ValueEnum;
use serde::Serialize;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::failure::Failure;

pub(crate) use signet_process::start::harmless;

#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, ValueEnum)]
pub(crate) enum Format {
    #[default]
    Table,
    Json,
    Yaml,
}

/// What a command found, with the rows that a person sees of it.
pub(crate) trait Report: Serialize {
    /// Name and value, in the order of reading.
    fn rows(&self) -> Vec<(&'static str, String)>;
}

pub(crate) fn print<R: Report>(format: Format, report: &R) -> Result<(), Failure> {
    print_text(&render(format, report)?)
}

/// As a person sees it.
pub(crate) fn rendered<R: Report>(report: &R) -> String {
    let rows = report.rows();
    let width = rows.iter().map(|(name, _)| name.len()).max().unwrap_or_default();
    rows.iter().map(|(name, value)| format!("{name:width$}  {}\n", harmless(value))).collect()
}

/// What a command found that is a list.
pub(crate) trait List: Serialize {
    const COLUMNS: &'static [&'static str];
    /// As many cells as there are columns, row by row.
    fn lines(&self) -> Vec<Vec<String>>;
    /// What a person is told when there is nothing.
    fn nothing(&self) -> &'static str;
}

pub(crate) fn print_list<L: List>(format: Format, list: &L) -> Result<(), Failure> {
    let text = match format {
        Format::Table => table(L::COLUMNS, &list.lines(), list.nothing()),
        Format::Json | Format::Yaml => serialized(format, list)?,
    };
    print_text(&text)
}

pub(crate) fn print_text(text: &str) -> Result<(), Failure> {
    match io::stdout().write_all(text.as_bytes()) {
        // Whoever reads has seen enough: `signet get rules | head`.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        written => written.map_err(|error| Failure::from_error(&error)),
    }
}

/// For people, beside what is printed.
pub(crate) fn warn(text: &str) -> Result<(), Failure> {
    writeln!(io::stderr(), "warning: {}", harmless(text)).map_err(|error| Failure::from_error(&error))
}

/// For people, beside what is printed: a line that says itself what it is.
pub(crate) fn tell(text: &str) -> Result<(), Failure> {
    writeln!(io::stderr(), "{}", harmless(text)).map_err(|error| Failure::from_error(&error))
}

/// For a program to read.
pub(crate) fn serialized<S: Serialize>(format: Format, value: &S) -> Result<String, Failure> {
    match format {
        Format::Yaml => serde_saphyr::to_string(value).map_err(|error| Failure::from_error(&error)),
        Format::Table | Format::Json => {
            let json = serde_json::to_string_pretty(value).map_err(|error| Failure::from_error(&error))?;
            Ok(escaped(&json) + "\n")
        }
    }
}

/// One object of several, of which nobody knows when they end.
pub(crate) fn json_line<S: Serialize>(value: &S) -> Result<String, Failure> {
    let json = serde_json::to_string(value).map_err(|error| Failure::from_error(&error))?;
    Ok(escaped(&json) + "\n")
}

/// What JSON lets stand in a text, and a terminal takes for a command or for another direction of writing.
fn escaped(json: &str) -> String {
    let is_command = |c| matches!(c, '\u{7f}'..='\u{9f}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    let mut text = String::with_capacity(json.len());
    for part in json.split_inclusive(is_command) {
        match part.chars().next_back().filter(|last| is_command(*last)) {
            Some(last) => {
                text.push_str(&part[..part.len() - last.len_utf8()]);
                text.push_str(&format!("\\u{:04x}", u32::from(last)));
            }
            None => text.push_str(part),
        }
    }
    text
}

pub(crate) fn table(columns: &[&str], lines: &[Vec<String>], nothing: &str) -> String {
    if lines.is_empty() {
        return format!("{nothing}\n");
    }
    let head: Vec<String> = columns.iter().map(|name| name.to_uppercase()).collect();
    let lines: Vec<Vec<String>> = lines.iter().map(|line| line.iter().map(|cell| harmless(cell)).collect()).collect();
    let rows: Vec<&Vec<String>> = std::iter::once(&head).chain(&lines).collect();
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or_default();
    let widths: Vec<usize> = (0..columns.len()).map(width).collect();
    let line = |row: &&Vec<String>| {
        let cells: Vec<String> = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        format!("{}\n", cells.join("  ").trim_end())
    };
    rows.iter().map(line).collect()
}

fn render<R: Report>(format: Format, report: &R) -> Result<String, Failure> {
    Ok(match format {
        Format::Table => rendered(report),
        Format::Json | Format::Yaml => serialized(format, report)?,
    })
}

/// RFC 3339, whole seconds, UTC.
pub(crate) fn timestamp(time: OffsetDateTime) -> String {
    let whole = time.replace_nanosecond(0).unwrap_or(time);
    whole.format(&Rfc3339).unwrap_or_else(|_| whole.to_string())
}

/// What an issuer sent as a time.
pub(crate) fn time_of(at: prost_types::Timestamp) -> Option<OffsetDateTime> {
    OffsetDateTime::from_unix_timestamp(at.seconds).ok()
}

pub(crate) fn shown(at: Option<prost_types::Timestamp>) -> Option<String> {
    at.and_then(time_of).map(timestamp)
}

/// `in 3 d 4 h`, `in 12 s`, `5 min ago`: the two largest units.
pub(crate) fn distance(from: OffsetDateTime, to: OffsetDateTime) -> String {
    let seconds = (to - from).whole_seconds();
    if seconds == 0 {
        return "now".to_owned();
    }
    let text = span(seconds.unsigned_abs());
    if seconds < 0 { format!("{text} ago") } else { format!("in {text}") }
}

/// The two largest units of a time.
pub(crate) fn span(seconds: u64) -> String {
    const UNITS: [(u64, &str); 4] = [(86_400, "d"), (3600, "h"), (60, "min"), (1, "s")];
    let mut left = seconds;
    let mut parts = Vec::new();
    for (size, unit) in UNITS {
        if left >= size {
            parts.push(format!("{} {unit}", left / size));
            left %= size;
        } else if !parts.is_empty() {
            break;
        }
        if parts.len() == 2 {
            break;
        }
    }
    if parts.is_empty() { "0 s".to_owned() } else { parts.join(" ") }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[derive(Serialize)]
    struct Sample {
        spiffe_id: &'static str,
    }

    impl Report for Sample {
        fn rows(&self) -> Vec<(&'static str, String)> {
            vec![("SPIFFE ID", self.spiffe_id.to_owned()), ("x", "1".to_owned())]
        }
    }

    #[test]
    fn what_strangers_wrote_drives_no_terminal() {
        let hostile = "é\u{9b}31m \u{202e}日本\u{7f}";
        let line = json_line(&hostile).unwrap();
        assert_eq!(line, "\"é\\u009b31m \\u202e日本\\u007f\"\n");
        assert_eq!(serde_json::from_str::<String>(&line).unwrap(), hostile);
        let told = table(&["a"], &[vec!["x\ny".to_owned()]], "");
        assert_eq!(told, "A\nx\\ny\n");
    }

    #[test]
    fn a_table_is_aligned_and_the_others_parse() {
        let sample = Sample { spiffe_id: "spiffe://example.org/a" };
        assert_eq!(render(Format::Table, &sample).unwrap(), "SPIFFE ID  spiffe://example.org/a\nx          1\n");
        let json: serde_json::Value = serde_json::from_str(&render(Format::Json, &sample).unwrap()).unwrap();
        assert_eq!(json["spiffe_id"], "spiffe://example.org/a");
        assert_eq!(render(Format::Yaml, &sample).unwrap().trim(), "spiffe_id: spiffe://example.org/a");
    }

    #[test]
    fn a_list_is_a_table_with_a_head() {
        let line = |one: &str, two: &str| vec![one.to_owned(), two.to_owned()];
        assert_eq!(
            table(&["rule", "b"], &[line("a", "1"), line("long name", "2")], "none"),
            "RULE       B\na          1\nlong name  2\n"
        );
        assert_eq!(table(&["rule"], &[], "none yet"), "none yet\n");
    }

    #[test]
    fn spans_show_their_two_largest_units() {
        for (seconds, text) in
            [(0, "0 s"), (59, "59 s"), (61, "1 min 1 s"), (3600, "1 h"), (90_061, "1 d 1 h"), (86_405, "1 d")]
        {
            assert_eq!(span(seconds), text);
        }
    }
}
