//! `signet ca log`, `signet ca verify-log`: what a root signed, and whether its record can be believed.

use std::path::{Path, PathBuf};

use identity_issuer::root::record::{self, Act, Entry, Verified};
use serde::Serialize;

use crate::args::{CaLogOptions, CaVerifyLogOptions};
use crate::failure::Failure;
use crate::output::{self, Format, List, Report};

/// More than the file of one ceremony holds.
const MAX_CERTIFICATES_BYTES: u64 = 1024 * 1024;

pub(crate) fn log(options: &CaLogOptions, format: Format) -> Result<(), Failure> {
    let verified = record::verify(&options.dir).map_err(|error| Failure::from_error(&error))?;
    output::print_list(format, &Log(verified.entries))
}

pub(crate) fn verify_log(options: &CaVerifyLogOptions, format: Format) -> Result<(), Failure> {
    let (path, verified) = read(options)?;
    let failure = |error: record::RecordError| Failure::from_error(&error);
    if let Some(noted) = &options.head {
        verified.grew_from(&path, noted).map_err(failure)?;
    }
    let certificates = options.certificate.as_deref().map(read_certificates).transpose()?.unwrap_or_default();
    let on_record = certificates.iter().map(|der| verified.entry_of(&path, der).map(|entry| entry.number));
    let on_record = on_record.collect::<Result<Vec<_>, _>>().map_err(failure)?;
    let times = |entry: Option<&Entry>| entry.map(|entry| entry.time.clone()).unwrap_or_default();
    let told = Believed {
        record: path,
        entries: verified.entries.len(),
        first: times(verified.entries.first()),
        last: times(verified.entries.last()),
        head: verified.head.sha256,
        certificates: on_record,
    };
    output::print(format, &told)
}

fn read(options: &CaVerifyLogOptions) -> Result<(PathBuf, Verified), Failure> {
    let verified = match (&options.dir, &options.record, &options.root) {
        (Some(folder), _, _) => record::verify(folder).map(|verified| (folder.clone(), verified)),
        (None, Some(record), Some(root)) => Verified::read(record, root).map(|verified| (record.clone(), verified)),
        // clap demands one or the other.
        (None, _, _) => return Err(Failure::new("no record").remedy("give --dir, or --record and --root")),
    };
    verified.map_err(|error| Failure::from_error(&error))
}

fn read_certificates(path: &Path) -> Result<Vec<Vec<u8>>, Failure> {
    use std::io::Read as _;
    let failure = |error: &dyn std::fmt::Display| {
        Failure::new(format!("{}: {error}", path.display())).remedy("give what `signet ca sign` wrote")
    };
    let mut text = Vec::new();
    let file = std::fs::File::open(path).map_err(|error| failure(&error))?;
    file.take(MAX_CERTIFICATES_BYTES + 1).read_to_end(&mut text).map_err(|error| failure(&error))?;
    if text.len() as u64 > MAX_CERTIFICATES_BYTES {
        return Err(failure(&"is larger than what one ceremony signs"));
    }
    let blocks = pem::parse_many(&text).map_err(|error| failure(&error))?;
    // One that is damaged is left out by the parser; here it would count as looked at.
    if blocks.len() != String::from_utf8_lossy(&text).matches("-----BEGIN ").count() {
        return Err(failure(&"holds a block that is no PEM"));
    }
    let certificates: Vec<_> =
        blocks.into_iter().filter(|block| block.tag() == "CERTIFICATE").map(pem::Pem::into_contents).collect();
    if certificates.is_empty() { Err(failure(&"holds no certificate")) } else { Ok(certificates) }
}

#[derive(Serialize)]
struct Log(Vec<Entry>);

impl List for Log {
    const COLUMNS: &'static [&'static str] =
        &["entry", "time", "operator", "host", "what", "subject", "serial", "until"];

    fn lines(&self) -> Vec<Vec<String>> {
        self.0.iter().map(line).collect()
    }

    fn nothing(&self) -> &'static str {
        "nothing was signed"
    }
}

fn line(entry: &Entry) -> Vec<String> {
    let (what, subject, serial, until) = match &entry.act {
        Act::Init { trust_domain, not_after, .. } => {
            ("root made".to_owned(), trust_domain.clone(), String::new(), not_after.clone())
        }
        Act::Sign(signing) => {
            let what = format!("{}, path length {}", signing.purpose, signing.path_length);
            (what, signing.subject.clone(), signing.serial.clone(), signing.not_after.clone())
        }
        Act::List(list) => {
            let serials: Vec<_> = list.revoked.iter().map(|revoked| revoked.serial.as_str()).collect();
            let what = format!("revocation list, {} on it, {} new", list.entries, serials.len());
            (what, String::new(), serials.join(" "), list.next_update.clone())
        }
    };
    let Entry { number, time, operator, host, .. } = entry;
    vec![number.to_string(), time.clone(), operator.clone(), host.clone(), what, subject, serial, until]
}

/// A record in which nothing was altered.
#[derive(Serialize)]
struct Believed {
    record: PathBuf,
    entries: usize,
    first: String,
    last: String,
    head: String,
    /// Of those that were asked for: the entry of each.
    certificates: Vec<u64>,
}

impl Report for Believed {
    fn rows(&self) -> Vec<(&'static str, String)> {
        let mut rows = vec![
            ("record", format!("{}: whole, and signed by its root", self.record.display())),
            ("entries", self.entries.to_string()),
            ("first", self.first.clone()),
            ("last", self.last.clone()),
            ("head", self.head.clone()),
        ];
        let entries = self.certificates.iter().map(|number| format!("entry {number}")).collect::<Vec<_>>();
        if !entries.is_empty() {
            rows.push(("certificates", entries.join(", ")));
        }
        rows
    }
}
