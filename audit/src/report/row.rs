//! One certificate in a report, in the columns of AWS Private CA's audit reports and in ours.
//!
//! Whoever reads a report may open it with anything: no cell is a formula to a spreadsheet, no character of it a command to a terminal.

use std::fmt::Write as _;
use std::io::Write;
use std::rc::Rc;

use time::OffsetDateTime;
use time::format_description::BorrowedFormatItem;
use time::macros::format_description;

use super::act::Certificate;
use super::revocations::Revoked;

pub(super) struct Row<'a> {
    pub(super) certificate: Certificate<'a>,
    /// None, and most of the certificate empty, where another log has the certificate.
    pub(super) issued_at: Option<OffsetDateTime>,
    pub(super) index: Option<u64>,
    pub(super) revoked: Option<Revoked>,
    /// Whose certificate was shown to have this one.
    pub(super) requester: Option<Rc<str>>,
}

/// In their order: those of AWS Private CA as they are spelled there, `template` for its `templateArn`, and ours.
const COLUMNS: [&str; 15] = [
    "serial",
    "subject",
    "notBefore",
    "notAfter",
    "issuedAt",
    "revokedAt",
    "revocationReason",
    "template",
    "spiffeId",
    "requester",
    "attestation",
    "rule",
    "authority",
    "logIndex",
    "revokedLogIndex",
];
const NUMBERS: [&str; 2] = ["logIndex", "revokedLogIndex"];

/// As AWS has it: `2026-11-28T09:30:00+0000`.
const TIME: &[BorrowedFormatItem<'_>] = format_description!("[year]-[month]-[day]T[hour]:[minute]:[second]+0000");

pub(super) fn csv_header(out: &mut impl Write) -> std::io::Result<()> {
    writeln!(out, "{}", COLUMNS.join(","))
}

impl Row<'_> {
    pub(super) fn csv(&self, out: &mut impl Write) -> std::io::Result<()> {
        let mut line = String::with_capacity(512);
        for (number, cell) in self.cells().iter().enumerate() {
            if number > 0 {
                line.push(',');
            }
            push_cell(&mut line, cell);
        }
        line.push('\n');
        out.write_all(line.as_bytes())
    }

    /// Without what it does not have, as AWS has it.
    pub(super) fn json(&self, out: &mut impl Write) -> std::io::Result<()> {
        let mut line = String::with_capacity(768);
        let mut before = '{';
        for (name, cell) in COLUMNS.iter().zip(&self.cells()).filter(|(_, cell)| !cell.is_empty()) {
            line.extend([before, '"']);
            line.push_str(name);
            line.push_str("\":");
            match NUMBERS.contains(name) {
                true => line.push_str(cell),
                false => push_json(&mut line, cell),
            }
            before = ',';
        }
        line.push('}');
        out.write_all(line.as_bytes())
    }

    /// As `COLUMNS` names them.
    fn cells(&self) -> [String; COLUMNS.len()] {
        let Self { certificate, issued_at, index, revoked, .. } = self;
        let of_life = |seconds| issued_at.and_then(|_| OffsetDateTime::from_unix_timestamp(seconds).ok());
        [
            with_colons(&certificate.serial),
            // That of an SVID is empty: its name is a SPIFFE ID, and no entry has another.
            String::new(),
            of_life(certificate.not_before).map_or_else(String::new, shown),
            of_life(certificate.not_after).map_or_else(String::new, shown),
            issued_at.map_or_else(String::new, shown),
            revoked.map_or_else(String::new, |revoked| shown(revoked.at)),
            revoked.map_or_else(String::new, |revoked| reason(revoked.reason).to_owned()),
            certificate.profile.to_string(),
            certificate.spiffe_id.to_string(),
            self.requester.as_deref().map_or_else(String::new, str::to_owned),
            certificate.attestation.to_string(),
            certificate.rule.to_string(),
            certificate.authority.to_string(),
            index.map_or_else(String::new, |index| index.to_string()),
            revoked.map_or_else(String::new, |revoked| revoked.index.to_string()),
        ]
    }
}

/// As AWS Private CA names those of RFC 5280 §5.3.1.
pub(super) fn reason(number: i64) -> &'static str {
    match number {
        1 => "KEY_COMPROMISE",
        2 => "CERTIFICATE_AUTHORITY_COMPROMISE",
        3 => "AFFILIATION_CHANGED",
        4 => "SUPERSEDED",
        5 => "CESSATION_OF_OPERATION",
        6 => "CERTIFICATE_HOLD",
        8 => "REMOVE_FROM_CRL",
        9 => "PRIVILEGE_WITHDRAWN",
        10 => "A_A_COMPROMISE",
        _ => "UNSPECIFIED",
    }
}

fn shown(time: OffsetDateTime) -> String {
    time.format(TIME).unwrap_or_default()
}

/// A serial number as AWS has it; without colons, a spreadsheet takes some for numbers and rounds them.
fn with_colons(hex: &str) -> String {
    let mut text = String::with_capacity(hex.len() * 3 / 2);
    for (number, digit) in hex.chars().enumerate() {
        if number > 0 && number % 2 == 0 {
            text.push(':');
        }
        text.push(digit);
    }
    text
}

/// One row is one line, whatever is in it. What begins like a formula gets an apostrophe, by which spreadsheets take it for text (OWASP,
/// “CSV Injection”).
fn push_cell(line: &mut String, cell: &str) {
    let cell: String =
        cell.chars().map(|character| if is_hostile(character) { '\u{fffd}' } else { character }).collect();
    let is_formula = cell.trim_start().starts_with(['=', '+', '-', '@', '＝', '＋', '－', '＠', '\u{fffd}', '|', '%']);
    let needs_quotes =
        is_formula || cell.contains([',', '"', ';', '\'']) || cell.starts_with(' ') || cell.ends_with(' ');
    if !needs_quotes {
        return line.push_str(&cell);
    }
    line.push_str(if is_formula { "\"'" } else { "\"" });
    line.push_str(&cell.replace('"', "\"\""));
    line.push('"');
}

fn push_json(line: &mut String, text: &str) {
    line.push('"');
    for character in text.chars() {
        match character {
            '"' | '\\' => line.extend(['\\', character]),
            hostile if is_hostile(hostile) => {
                let mut units = [0; 2];
                for unit in hostile.encode_utf16(&mut units) {
                    // Writing to a String cannot fail.
                    let _ = write!(line, "\\u{unit:04x}");
                }
            }
            plain => line.push(plain),
        }
    }
    line.push('"');
}

/// What moves a terminal's cursor, ends a line, or turns the direction of writing.
pub(super) fn is_hostile(character: char) -> bool {
    character.is_control()
        || matches!(character, '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}')
        || matches!(character, '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn cell(text: &str) -> String {
        let mut line = String::new();
        push_cell(&mut line, text);
        line
    }

    #[test]
    fn no_cell_is_a_formula_and_none_leaves_its_line() {
        for (text, written) in [
            ("shop", "shop"),
            ("spiffe://example.org/shop/orders", "spiffe://example.org/shop/orders"),
            ("=cmd|' /C calc'!A0", "\"'=cmd|' /C calc'!A0\""),
            ("+1", "\"'+1\""),
            ("-1", "\"'-1\""),
            ("@SUM(A1)", "\"'@SUM(A1)\""),
            (" =1+1", "\"' =1+1\""),
            ("\t=1", "\"'\u{fffd}=1\""),
            ("\r\n=1", "\"'\u{fffd}\u{fffd}=1\""),
            ("＝1", "\"'＝1\""),
            ("a,\"b\"", "\"a,\"\"b\"\"\""),
            ("\u{1b}[2J\u{9b}31m", "\"'\u{fffd}[2J\u{fffd}31m\""),
            ("good\u{202e}live", "good\u{fffd}live"),
        ] {
            assert_eq!(cell(text), written, "{text:?}");
        }
    }

    #[test]
    fn a_serial_number_is_never_taken_for_a_number() {
        assert_eq!(with_colons("00112233e5"), "00:11:22:33:e5");
        assert_eq!(with_colons(""), "");
    }

    proptest! {
        #[test]
        fn whatever_a_text_is_it_is_read_back_from_json_and_harms_no_terminal(text: String) {
            let mut line = String::new();
            push_json(&mut line, &text);
            prop_assert!(!line.contains(is_hostile), "{line:?}");
            prop_assert_eq!(serde_json::from_str::<String>(&line).ok(), Some(text));
        }

        #[test]
        fn whatever_a_text_is_its_cell_is_one(text: String) {
            let written = cell(&text);
            prop_assert!(!written.contains(is_hostile), "{written:?}");
            match written.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')) {
                Some(within) => prop_assert!(!within.replace("\"\"", "").contains('"')),
                None => prop_assert!(!written.contains(['"', ','])),
            }
        }
    }
}
