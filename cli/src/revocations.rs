//! `signet revoke`, `get revocations`: what is revoked before its time, and how far clients have come with it.

mod listing;
mod progress;

use std::io::{self, BufRead as _};
use std::path::Path;

use aws_lc_rs::digest::{SHA256, digest};
use identity_issuer::root::Reason;
use serde::Serialize;
use signet_proto::admin::v1::revoke_request::Target;
use signet_proto::admin::v1::{RevokeRequest, RevokeResponse, Serials};

pub(crate) use listing::list;

use crate::admin;
use crate::args::{RevokeCommand, RevokeOptions};
use crate::asking::confirm;
use crate::failure::Failure;
use crate::jwt_keys;
use crate::output::{self, Format, Report};
use progress::Progress;

/// In one call.
const MOST_SERIALS: usize = 16_384;
/// A file of more is none of serial numbers.
const MAX_FILE: u64 = 256 << 20;

pub(crate) fn revoke(command: &RevokeCommand, format: Format) -> Result<(), Failure> {
    let (what, targets, options) = match command {
        RevokeCommand::Serial(options) => {
            let serials = match (&options.serial, &options.file) {
                (Some(serial), _) => vec![read_serial(serial).ok_or_else(|| no_serial(serial))?],
                (None, Some(file)) => read_serials(file)?,
                (None, None) => Vec::new(),
            };
            let what = match (&options.serial, &options.file) {
                (None, Some(file)) => format!("the {} serial numbers of {}", serials.len(), file.display()),
                _ => format!("the serial number {}", options.serial.as_deref().unwrap_or_default()),
            };
            let chunks = serials.chunks(MOST_SERIALS).map(|chunk| Target::Serials(Serials { serials: chunk.to_vec() }));
            (what, chunks.collect(), &options.revoke)
        }
        RevokeCommand::Id(options) => {
            let id = options.spiffe_id.to_string();
            (id.clone(), vec![Target::SpiffeId(id)], &options.revoke)
        }
        RevokeCommand::Key(options) => {
            let hash = read_key(&options.key)?;
            (format!("the key {}", hex::encode(&hash)), vec![Target::KeySha256(hash)], &options.revoke)
        }
        RevokeCommand::Agent(options) => {
            (format!("agent {}", options.number), vec![Target::Agent(options.number)], &options.revoke)
        }
        RevokeCommand::Authority(options) => {
            (format!("authority {}", options.key_id), vec![Target::Authority(options.key_id.clone())], &options.revoke)
        }
        // No certificate, and no epoch: it leaves the bundle.
        RevokeCommand::JwtKey(options) => return jwt_keys::revoke(options, format),
        RevokeCommand::Rule(options) => {
            (format!("rule {}", options.rule), vec![Target::Rule(options.rule.clone())], &options.revoke)
        }
    };
    let force = matches!(command, RevokeCommand::Authority(options) if options.force);
    let requests: Vec<_> = targets.into_iter().map(|target| request(target, options, force)).collect();
    carry_out(&what, &requests, options, format)
}

/// Tells what it comes to before it is done, and how far it has come afterwards.
fn carry_out(what: &str, requests: &[RevokeRequest], options: &RevokeOptions, format: Format) -> Result<(), Failure> {
    if options.dry_run || !options.yes {
        let plan = ask_all(requests, options, true)?;
        if options.dry_run {
            return output::print(format, &Revoked::planned(plan));
        }
        let RevokeResponse { certificates, connected, .. } = plan;
        let what = output::harmless(what);
        confirm(&format!(
            "{what}: {certificates} valid certificates, {connected} connected clients. Nothing of it can be taken back.\nrevoke?"
        ))?;
    }
    let done = ask_all(requests, options, false)?;
    let progress = if options.no_wait { None } else { Some(progress::wait(options, done.epoch)?) };
    let of_certificates =
        !matches!(requests, [RevokeRequest { target: Some(Target::KeySha256(_) | Target::Authority(_)), .. }]);
    if of_certificates && done.certificates == 0 && done.agents == 0 {
        return Err(Failure::new(format!("{what}: there is nothing to be revoked"))
            .remedy("what has expired, or is revoked already, needs no more: look at `signet get revocations`"));
    }
    output::print(format, &Revoked::done(done, progress))
}

fn request(target: Target, options: &RevokeOptions, force: bool) -> RevokeRequest {
    let (reason, comment) = (wire_reason(options.reason), options.message.clone());
    RevokeRequest { target: Some(target), reason, comment, dry_run: false, force }
}

/// As `RevocationReason` numbers it, which is as RFC 5280 does.
pub(crate) fn wire_reason(reason: Reason) -> i32 {
    i32::try_from(reason.number()).unwrap_or_default()
}

/// None where there is none.
pub(crate) fn reason_name(number: i32) -> Option<String> {
    Reason::of_number(number.into()).map(|reason| reason.to_string())
}

/// One after the other; the sum of all.
fn ask_all(requests: &[RevokeRequest], options: &RevokeOptions, dry_run: bool) -> Result<RevokeResponse, Failure> {
    admin::call(&options.issuer, async |mut client| {
        let mut all = RevokeResponse::default();
        for request in requests {
            let answer = client.revoke(RevokeRequest { dry_run, ..request.clone() }).await?.into_inner();
            all.epoch = answer.epoch;
            all.certificates += answer.certificates;
            all.agents += answer.agents;
            all.connected += answer.connected;
        }
        Ok(all)
    })
}

pub(crate) fn no_serial(text: &str) -> Failure {
    Failure::new(format!("{}: no serial number", output::harmless(text)))
        .remedy("write it in hexadecimal, as `signet get agents -o json` shows it")
}

/// As this command and others show it: colons, spaces and a prefix do no harm.
pub(crate) fn read_serial(text: &str) -> Option<Vec<u8>> {
    let digits: String = text.trim().trim_start_matches("0x").chars().filter(|character| *character != ':').collect();
    let even = if digits.len() % 2 == 1 { format!("0{digits}") } else { digits };
    hex::decode(even).ok().filter(|bytes| (1..=20).contains(&bytes.len()))
}

fn read_serials(file: &Path) -> Result<Vec<Vec<u8>>, Failure> {
    let failed = |error: io::Error| Failure::new(format!("{}: cannot be read: {error}", file.display()));
    let opened = std::fs::File::open(file).map_err(failed)?;
    let lines = io::BufReader::new(io::Read::take(opened, MAX_FILE)).lines();
    let mut serials = Vec::new();
    for (index, line) in lines.enumerate() {
        let line = line.map_err(failed)?;
        if line.trim().is_empty() {
            continue;
        }
        let wrong = || {
            Failure::new(format!("{}:{}: no serial number", file.display(), index + 1))
                .remedy("write one to a line, in hexadecimal")
        };
        serials.push(read_serial(&line).ok_or_else(wrong)?);
    }
    match serials.is_empty() {
        true => {
            Err(Failure::new(format!("{}: it is empty", file.display())).remedy("write one serial number to a line"))
        }
        false => Ok(serials),
    }
}

/// SHA-256 of a SubjectPublicKeyInfo.
fn read_key(text: &str) -> Result<Vec<u8>, Failure> {
    if let Ok(hash) = hex::decode(text)
        && hash.len() == 32
    {
        return Ok(hash);
    }
    let remedy = "make one of a certificate: openssl x509 -in CERTIFICATE -noout -pubkey > FILE";
    let failed = |error: io::Error| Failure::new(format!("{text}: cannot be read: {error}")).remedy(remedy);
    let opened = std::fs::File::open(text).map_err(failed)?;
    let mut pem = Vec::new();
    io::Read::read_to_end(&mut io::Read::take(opened, MAX_KEY), &mut pem).map_err(failed)?;
    let wrong = || Failure::new(format!("{text}: not one PEM block `PUBLIC KEY`")).remedy(remedy);
    match &pem::parse_many(&pem).map_err(|_| wrong())?[..] {
        [block] if block.tag() == "PUBLIC KEY" => Ok(digest(&SHA256, block.contents()).as_ref().to_vec()),
        _ => Err(wrong()),
    }
}

const MAX_KEY: u64 = 64 << 10;

/// What a revocation has come to, or would.
#[derive(Serialize)]
struct Revoked {
    revoked: bool,
    epoch: u64,
    certificates: u64,
    evicted: u32,
    connected: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    in_force: Option<Progress>,
}

impl Revoked {
    fn planned(plan: RevokeResponse) -> Self {
        Self { revoked: false, ..Self::done(plan, None) }
    }

    fn done(done: RevokeResponse, in_force: Option<Progress>) -> Self {
        let RevokeResponse { epoch, certificates, agents, connected } = done;
        Self { revoked: true, epoch, certificates, evicted: agents, connected, in_force }
    }
}

impl Report for Revoked {
    fn rows(&self) -> Vec<(&'static str, String)> {
        let mut rows = vec![
            ("revoked", if self.revoked { "yes" } else { "no, this would come to it" }.to_owned()),
            ("certificates", self.certificates.to_string()),
            ("connected with them", self.connected.to_string()),
            ("evicted", self.evicted.to_string()),
            ("epoch", self.epoch.to_string()),
        ];
        rows.extend(self.in_force.as_ref().map(|progress| ("in force", progress.to_string())));
        rows
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_serial_number_is_read_as_programs_show_it() {
        for text in ["41f0", "41:F0", "0x41f0", " 41f0 "] {
            assert_eq!(read_serial(text).unwrap(), [0x41, 0xf0], "{text}");
        }
        assert_eq!(read_serial("1f0").unwrap(), [0x01, 0xf0]);
        for wrong in ["", "xyz", "41 f0", &"41".repeat(21)] {
            assert!(read_serial(wrong).is_none(), "{wrong}");
        }
    }

    #[test]
    fn a_key_is_a_file_or_its_hash_and_the_line_that_is_wrong_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        let path = file.to_str().unwrap();
        std::fs::write(&file, pem::encode(&pem::Pem::new("PUBLIC KEY", [1, 2, 3]))).unwrap();
        let hash = digest(&SHA256, &[1, 2, 3]);
        assert_eq!(read_key(path).unwrap(), hash.as_ref());
        assert_eq!(read_key(&hex::encode(hash)).unwrap(), hash.as_ref());
        std::fs::write(&file, pem::encode(&pem::Pem::new("PRIVATE KEY", [1, 2, 3]))).unwrap();
        assert!(read_key(path).unwrap_err().cause().contains("not one PEM block `PUBLIC KEY`"));

        std::fs::write(&file, "41f0\n\n41f1\n").unwrap();
        assert_eq!(read_serials(&file).unwrap().len(), 2);
        std::fs::write(&file, "41f0\nspiffe://a/b\n").unwrap();
        assert!(read_serials(&file).unwrap_err().cause().ends_with("file:2: no serial number"));
    }
}
