//! `signet ca sign`: the ceremony. What is about to be signed is shown, a person agrees, it is written down, and signed.

use std::fs;
use std::io::{self, Write as _};
use std::path::Path;

use identity_issuer::LEAF_LIVES;
use identity_issuer::root::record::Witness;
use identity_issuer::root::{CaSummary, Ceremony, MAX_REQUESTS, Planned, Terms};
use serde::Serialize;
use signet_identity::SystemClock;
use time::OffsetDateTime;

use super::{create, read_requests};
use crate::args::{CaSignOptions, CeremonyOptions};
use crate::asking::confirm;
use crate::failure::Failure;
use crate::output::{self, Format, Report};
use crate::passphrase::Opener;

pub(crate) fn sign(options: &CaSignOptions, format: Format) -> Result<(), Failure> {
    let opener = Opener::read(&options.ceremony.unlock)?;
    let requests = read_requests(&options.csr, MAX_REQUESTS, "the issuer writes its request when it starts")?;
    let terms = Terms {
        purpose: options.purpose,
        path_length: options.path_length,
        life: options.life,
        region: options.region.clone(),
        team: options.team.clone(),
        permitted_uri_domains: options.permit_uri_domain.clone(),
    };
    let (signed, shown) = into_new_file(&options.out, || {
        let ceremony = Ceremony::plan(&options.dir, &requests, &terms, &SystemClock);
        let ceremony = ceremony.map_err(|error| Failure::from_error(&error))?;
        let shown: Vec<Shown> = ceremony.planned().iter().map(Shown::of).collect();
        let text = shown.iter().map(output::rendered).collect::<Vec<_>>().join("\n");
        agree(&format!("{text}\n"), &options.ceremony, format)?;
        let signed = ceremony.sign(&opener.unlock(), &witness(&options.ceremony), &SystemClock);
        let signed = signed.map_err(|error| Failure::from_error(&error))?;
        Ok((signed.iter().map(CaSummary::to_pem).collect(), (signed, shown)))
    })?;
    tell(&signed, shown, &options.out, format)
}

/// Writes what is signed into `path`, which is taken first: what can't be kept should not exist. Where nothing is signed, it is gone again.
pub(super) fn into_new_file<T>(path: &Path, sign: impl FnOnce() -> Result<(String, T), Failure>) -> Result<T, Failure> {
    let mut out = create(path)?;
    let written = sign().and_then(|(text, told)| {
        let written = out.write_all(text.as_bytes()).and_then(|()| out.sync_all());
        written.map(|()| told).map_err(|error| Failure::new(format!("{}: {error}", path.display())))
    });
    if written.is_err() {
        // The file is ours and empty; the failure is what the operator must hear of.
        let _ = fs::remove_file(path);
    }
    written
}

/// Shows what is about to be signed, and asks.
pub(super) fn agree(shown: &str, options: &CeremonyOptions, format: Format) -> Result<(), Failure> {
    match format {
        Format::Table => output::print_text(shown)?,
        // A person who is asked sees it; what a program reads is told at the end.
        Format::Json | Format::Yaml if !options.yes => {
            write!(io::stderr(), "{shown}").map_err(|error| Failure::from_error(&error))?;
        }
        Format::Json | Format::Yaml => {}
    }
    if options.yes { Ok(()) } else { confirm("sign this?") }
}

/// Of this process, under the name that was given.
pub(super) fn witness(options: &CeremonyOptions) -> Witness {
    let witness = Witness::of_this_process();
    match &options.operator {
        Some(operator) => Witness { operator: operator.clone(), ..witness },
        None => witness,
    }
}

fn tell(signed: &[CaSummary], mut shown: Vec<Shown>, out: &Path, format: Format) -> Result<(), Failure> {
    for (shown, signed) in shown.iter_mut().zip(signed) {
        shown.sha256 = Some(signed.sha256.clone());
    }
    match format {
        Format::Table => {
            let mut text = format!("signed: {} in {}\n", counted(signed.len()), out.display());
            for shown in &shown {
                text.push_str(&format!(
                    "  entry {}  SHA-256 {}\n",
                    shown.entry,
                    shown.sha256.as_deref().unwrap_or_default()
                ));
            }
            output::print_text(&text)
        }
        Format::Json | Format::Yaml => {
            let told = Signed { written_to: &out.display().to_string(), certificates: &shown };
            output::print_text(&output::serialized(format, &told)?)
        }
    }
}

fn counted(signed: usize) -> String {
    if signed == 1 { "1 intermediate".to_owned() } else { format!("{signed} intermediates") }
}

#[derive(Serialize)]
struct Signed<'a> {
    written_to: &'a str,
    certificates: &'a [Shown],
}

/// An intermediate, before and after it is signed.
#[derive(Serialize)]
struct Shown {
    entry: u64,
    trust_domain: String,
    subject: String,
    key_id: String,
    purpose: &'static str,
    #[serde(skip)]
    restriction: &'static str,
    path_length: u8,
    permitted_uri_domains: Vec<String>,
    serial: String,
    not_before: String,
    not_after: String,
    /// Of a leaf below it.
    longest_life_seconds: u64,
    #[serde(skip)]
    ends: OffsetDateTime,
    request_sha256: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    sha256: Option<String>,
}

impl Shown {
    fn of(planned: &Planned) -> Self {
        Self {
            entry: planned.number,
            trust_domain: planned.trust_domain.to_string(),
            subject: planned.subject.clone(),
            key_id: planned.key_id.clone(),
            purpose: planned.purpose.as_str(),
            restriction: planned.purpose.restriction(),
            path_length: planned.path_length,
            permitted_uri_domains: planned.permitted_uri_domains.iter().map(ToString::to_string).collect(),
            serial: planned.serial.clone(),
            not_before: output::timestamp(planned.not_before),
            not_after: output::timestamp(planned.not_after),
            longest_life_seconds: longest_life(planned.not_after - planned.not_before),
            ends: planned.not_after,
            request_sha256: planned.request_sha256.clone(),
            sha256: None,
        }
    }
}

/// An issuer signs no leaf for longer, in seconds.
fn longest_life(life: time::Duration) -> u64 {
    u64::try_from(life.whole_seconds()).unwrap_or_default() / u64::from(LEAF_LIVES)
}

/// What an issuer gives by default (`svid.ttl`), in seconds.
const SHORT: u64 = 3600;

impl Report for Shown {
    fn rows(&self) -> Vec<(&'static str, String)> {
        let left = output::distance(OffsetDateTime::now_utc(), self.ends);
        let depth = match self.path_length {
            0 => "0: signs no CA".to_owned(),
            length => format!("{length}: signs CAs, whatever names they have"),
        };
        let constraint = match &self.permitted_uri_domains[..] {
            [] => "none".to_owned(),
            domains => format!("{} (programs on rustls, those of Signet too, refuse all below)", domains.join(", ")),
        };
        let longest = output::span(self.longest_life_seconds);
        let longest = match self.longest_life_seconds < SHORT {
            true => format!(
                "{longest}, a sixth of its life: less than the hour that issuers give where nothing else is said"
            ),
            false => format!("{longest}, a sixth of its life"),
        };
        vec![
            ("entry", self.entry.to_string()),
            ("trust domain", self.trust_domain.clone()),
            ("subject", self.subject.clone()),
            ("key id", self.key_id.clone()),
            ("purpose", format!("{} ({})", self.purpose, self.restriction)),
            ("path length", depth),
            ("permitted URIs", constraint),
            ("serial", self.serial.clone()),
            ("not before", self.not_before.clone()),
            ("not after", format!("{} ({left})", self.not_after)),
            ("signs up to", longest),
            ("request", format!("SHA-256 {}", self.request_sha256)),
        ]
    }
}
