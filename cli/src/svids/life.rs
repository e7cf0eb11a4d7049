//! The whole life of one certificate.

use serde::Serialize;
use signet_proto::admin::v1::{GetSvidRequest, Revocation, SvidDetails};
use time::OffsetDateTime;

use super::Line;
use crate::admin;
use crate::args::DescribeOptions;
use crate::failure::Failure;
use crate::output::{self, Format, Report};
use crate::policy::Attested;
use crate::revocations;

pub(crate) fn describe(options: &DescribeOptions, format: Format) -> Result<(), Failure> {
    let serial = revocations::read_serial(&options.serial).ok_or_else(|| revocations::no_serial(&options.serial))?;
    let details = admin::call(&options.issuer, async |mut client| {
        match client.get_svid(GetSvidRequest { serial: serial.clone() }).await {
            Err(status) if status.code() == tonic::Code::NotFound => Ok(None),
            answer => Ok(Some(answer?.into_inner())),
        }
    })?;
    let none = || {
        Failure::new(format!("{}: no certificate on record has this serial number", hex::encode(&serial))).remedy(
            "look at `signet get svids --all`; what has expired leaves the record after a while, and stays in the audit log",
        )
    };
    output::print(format, &Life::try_from(details.ok_or_else(none)?)?)
}

#[derive(Serialize)]
struct Life {
    #[serde(flatten)]
    svid: Line,
    key_sha256: String,
    certificate_sha256: String,
    /// That it was given for, of a renewal and of what was given beside an identity.
    #[serde(skip_serializing_if = "String::is_empty")]
    shown_serial: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    attested: Option<Attested>,
    #[serde(skip_serializing_if = "Option::is_none")]
    renewed: Option<Renewed>,
    #[serde(skip_serializing_if = "Option::is_none")]
    revoked: Option<Revoked>,
}

#[derive(Serialize)]
struct Renewed {
    by: String,
    at: Option<String>,
}

#[derive(Serialize)]
struct Revoked {
    epoch: u64,
    at: Option<String>,
    reason: String,
    actor: String,
    comment: String,
    by: String,
}

impl TryFrom<SvidDetails> for Life {
    type Error = Failure;

    fn try_from(details: SvidDetails) -> Result<Self, Failure> {
        let svid = details.svid.ok_or_else(|| Failure::new("the issuer sent no certificate"))?;
        let renewed = Renewed { by: details.renewed_by, at: output::shown(details.renewed_at) };
        Ok(Self {
            svid: Line::from(svid),
            key_sha256: details.key_sha256,
            certificate_sha256: details.certificate_sha256,
            shown_serial: details.shown_serial,
            attested: details.attested.map(Attested::from),
            renewed: Some(renewed).filter(|renewed| !renewed.by.is_empty()),
            revoked: details.revocation.map(Revoked::from),
        })
    }
}

impl From<Revocation> for Revoked {
    fn from(revocation: Revocation) -> Self {
        Self {
            epoch: revocation.epoch,
            at: output::shown(revocation.revoked_at),
            reason: revocations::reason_name(revocation.reason).unwrap_or_else(|| "unspecified".to_owned()),
            actor: revocation.actor,
            comment: revocation.comment,
            by: revocation.by,
        }
    }
}

impl Report for Life {
    /// In the order of its life, and then what it is made of.
    fn rows(&self) -> Vec<(&'static str, String)> {
        let svid = &self.svid;
        let at = |time: &Option<String>| time.clone().unwrap_or_default();
        let mut rows = vec![
            ("serial", svid.serial.clone()),
            ("SPIFFE ID", svid.spiffe_id.clone()),
            ("state", svid.state.clone()),
            ("issued", at(&svid.issued_at)),
            ("asked for by", self.asked_for()),
        ];
        rows.extend(self.attested.as_ref().map(|attested| ("attested", attested.told())));
        let mut some = |name, text: &str| rows.extend((!text.is_empty()).then(|| (name, text.to_owned())));
        some("rule", &svid.rule);
        some("profile", &svid.profile);
        some("authority", &svid.authority);
        some("valid from", &at(&svid.not_before));
        some("valid until", &self.until());
        if let Some(Renewed { by, at: when }) = &self.renewed {
            some("renewed", &format!("{}, by {by}", at(when)));
        }
        if let Some(revoked) = &self.revoked {
            some("revoked", &revoked.told());
            some("comment", &revoked.comment);
        }
        some("key SHA-256", &self.key_sha256);
        some("certificate SHA-256", &self.certificate_sha256);
        if let Some(log) = &svid.log {
            some("log", &log.origin);
            some("log index", &log.index.to_string());
        }
        rows
    }
}

impl Life {
    fn asked_for(&self) -> String {
        match (self.svid.attestation.as_str(), self.shown_serial.as_str()) {
            ("x509_svid", shown) => format!("renewal of {shown}"),
            ("x509_svid_beside", shown) => format!("holder of {shown}, beside it"),
            ("issuer", _) => "the issuer itself".to_owned(),
            (method, _) => method.to_owned(),
        }
    }

    fn until(&self) -> String {
        let until = self.svid.not_after.clone().unwrap_or_default();
        let distance = self.svid.expires.map(|at| output::distance(OffsetDateTime::now_utc(), at));
        distance.map_or_else(|| until.clone(), |distance| format!("{until} ({distance})"))
    }
}

impl Revoked {
    fn told(&self) -> String {
        let at = self.at.as_deref().unwrap_or_default();
        format!("{at}, {}, by {}: {} (epoch {})", self.reason, self.actor, self.by, self.epoch)
    }
}
