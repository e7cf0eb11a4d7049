//! `signet ca crl`: the list of the intermediates that a root revoked, in a ceremony like any other.

use identity_issuer::root::record::Revoked;
use identity_issuer::root::{ListTerms, Listing, PlannedList};
use serde::Serialize;
use signet_identity::SystemClock;
use time::OffsetDateTime;

use super::signing::{agree, into_new_file, witness};
use crate::args::CaCrlOptions;
use crate::failure::Failure;
use crate::output::{self, Format, Report};
use crate::passphrase::Opener;
use crate::revocations::{no_serial, read_serial};

pub(crate) fn crl(options: &CaCrlOptions, format: Format) -> Result<(), Failure> {
    let opener = Opener::read(&options.ceremony.unlock)?;
    let mut terms = ListTerms { revoke: Vec::new(), life: options.life };
    // clap demands a reason wherever there is a serial number.
    for (serial, reason) in options.revoke.iter().zip(options.reason.into_iter().cycle()) {
        terms.revoke.push((read_serial(serial).ok_or_else(|| no_serial(serial))?, reason));
    }
    let shown = into_new_file(&options.out, || {
        let listing = Listing::plan(&options.dir, &terms, &SystemClock).map_err(|error| Failure::from_error(&error))?;
        let shown = Shown::of(listing.planned());
        agree(&output::rendered(&shown), &options.ceremony, format)?;
        let signed = listing.sign(&opener.unlock(), &witness(&options.ceremony), &SystemClock);
        Ok((signed.map_err(|error| Failure::from_error(&error))?, shown))
    })?;
    match format {
        Format::Table => output::print_text(&format!("signed: {}\n", options.out.display())),
        Format::Json | Format::Yaml => {
            let told = Signed { written_to: options.out.display().to_string(), list: shown };
            output::print_text(&output::serialized(format, &told)?)
        }
    }
}

#[derive(Serialize)]
struct Signed {
    written_to: String,
    #[serde(flatten)]
    list: Shown,
}

/// A list, before and after it is signed.
#[derive(Serialize)]
struct Shown {
    entry: u64,
    trust_domain: String,
    issuer: String,
    this_update: String,
    next_update: String,
    #[serde(skip)]
    ends: OffsetDateTime,
    revoked: Vec<Revoked>,
}

impl Shown {
    fn of(planned: &PlannedList) -> Self {
        Self {
            entry: planned.number,
            trust_domain: planned.trust_domain.to_string(),
            issuer: planned.issuer.clone(),
            this_update: output::timestamp(planned.this_update),
            next_update: output::timestamp(planned.next_update),
            ends: planned.next_update,
            revoked: planned.revoked.clone(),
        }
    }
}

impl Report for Shown {
    fn rows(&self) -> Vec<(&'static str, String)> {
        let left = output::distance(OffsetDateTime::now_utc(), self.ends);
        let mut rows = vec![
            ("entry", self.entry.to_string()),
            ("trust domain", self.trust_domain.clone()),
            ("issuer", self.issuer.clone()),
            ("this update", self.this_update.clone()),
            ("next update", format!("{} ({left})", self.next_update)),
        ];
        if self.revoked.is_empty() {
            rows.push(("revoked", "nothing".to_owned()));
        }
        let line = |one: &Revoked| format!("{}  {}, since {}", one.serial, one.reason, one.revoked_at);
        rows.extend(self.revoked.iter().map(|one| ("revoked", line(one))));
        rows
    }
}
