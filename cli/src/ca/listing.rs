//! `signet ca crl`: the list of the intermediates that a root revoked, in a ceremony like any other.

use std::io::{self, Write as _};

use identity_issuer::root::record::Revoked;
use identity_issuer::root::{ListTerms, Listing, PlannedList};
use serde::Serialize;
use signet_identity::SystemClock;
use time::OffsetDateTime;

use super::signing::{into_new_file, witness};
use crate::args::CaCrlOptions;
use crate::asking::confirm;
use crate::failure::Failure;
use crate::output::{self, Format, Report};
use crate::passphrase::Opener;

pub(crate) fn crl(options: &CaCrlOptions, format: Format) -> Result<(), Failure> {
    let opener = Opener::read(&options.unlock)?;
    let reason = options.reason;
    let revoke = options.revoke.iter().filter_map(|serial| Some((serial.clone(), reason?))).collect();
    let terms = ListTerms { revoke, life: options.life };
    let shown = into_new_file(&options.out, || {
        let listing = Listing::plan(&options.dir, &terms, &SystemClock).map_err(|error| Failure::from_error(&error))?;
        let shown = Shown::of(listing.planned());
        agree(&shown, options.yes, format)?;
        let signed = listing.sign(&opener.unlock(), &witness(options.operator.as_deref()), &SystemClock);
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

/// Shows what is on the list, and asks.
fn agree(shown: &Shown, yes: bool, format: Format) -> Result<(), Failure> {
    match format {
        Format::Table => output::print_text(&output::rendered(shown))?,
        Format::Json | Format::Yaml if !yes => {
            write!(io::stderr(), "{}", output::rendered(shown)).map_err(|error| Failure::from_error(&error))?;
        }
        Format::Json | Format::Yaml => {}
    }
    if yes { Ok(()) } else { confirm("sign this?") }
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
