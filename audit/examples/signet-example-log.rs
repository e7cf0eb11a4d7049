//! Makes the log of an invented month of an invented shop, for pictures of what is made of it: always the same.

#![forbid(unsafe_code)]

use std::error::Error;
use std::path::PathBuf;

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
use signet_audit::{Act, Checkpoint, Edge, Entry, Folder, Resource, Revocation, Text, VerifierKey, X509, sha256, sign};
use time::OffsetDateTime;

/// 2026-11-01.
const BEGIN: i64 = 1_793_491_200;
const DAYS: u64 = 30;
/// Path, replicas, life in hours.
const SERVICES: [(&str, u64, u64); 14] = [
    ("shop/orders", 12, 4),
    ("shop/cart", 9, 4),
    ("shop/checkout", 6, 1),
    ("shop/search", 10, 4),
    ("shop/catalog", 8, 4),
    ("payments/ledger", 4, 1),
    ("payments/gateway", 5, 1),
    ("warehouse/picking", 6, 8),
    ("warehouse/labels", 3, 24),
    ("analytics/ingest", 7, 8),
    ("analytics/reports", 2, 24),
    ("edge/inbound", 6, 4),
    ("ops/backup", 1, 168),
    ("ops/printer-7", 1, 720),
];
const METHODS: [&str; 4] = ["k8s_sa_token", "join_token", "oidc", "x509_pop"];

struct Month {
    edge: Edge,
    folder: Folder,
    drawn: u64,
}

impl Month {
    fn draw(&mut self, below: u64) -> u64 {
        self.drawn = self.drawn.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.drawn >> 33) % below
    }

    fn add(&mut self, seconds: u64, act: Act) -> Result<(), Box<dyn Error>> {
        let time = OffsetDateTime::from_unix_timestamp(BEGIN + seconds.cast_signed())?;
        let (mut files, entry) = (Vec::new(), Entry::new(time, act)?.encode()?);
        self.edge.append(&entry, |resource, bytes| files.push((resource, bytes)))?;
        files.into_iter().try_for_each(|(resource, bytes)| self.folder.write(resource, &bytes))?;
        Ok(())
    }

    fn certificate(&mut self, seconds: u64) -> X509 {
        let mut place = self.draw(SERVICES.iter().map(|(_, replicas, _)| replicas).sum());
        let (path, _, hours) = SERVICES
            .into_iter()
            .find(|(_, replicas, _)| {
                let is_it = place < *replicas;
                place = place.saturating_sub(*replicas);
                is_it
            })
            .unwrap_or(SERVICES[0]);
        let number = self.draw(6) + 1;
        let is_first = self.draw(12) == 0;
        let method = METHODS[(self.draw(10) as usize).saturating_sub(6)];
        let day = seconds / 86_400;
        let hash = hex::encode(sha256(&self.edge.size().to_be_bytes()));
        let not_before = BEGIN + seconds.cast_signed() - 60;
        X509 {
            serial: hash[..32].to_owned(),
            spiffe_id: if path.starts_with("ops/") {
                format!("spiffe://example.org/{path}")
            } else {
                format!("spiffe://example.org/{path}/{number}")
            },
            profile: match path {
                "edge/inbound" => "gateway",
                path if path.starts_with("ops/") => "long-lived",
                _ => "workload",
            }
            .to_owned(),
            rule: path.split('/').next().unwrap_or_default().to_owned(),
            not_before,
            not_after: not_before + 3600 * hours.cast_signed() + 60,
            authority: if day < 18 { "3fa1c87e5d0b6f2299e4" } else { "b7402ed91c35a8f64d0e" }.repeat(2),
            certificate: hash.clone(),
            key: hash.clone(),
            attestation: if is_first { method } else { "x509_svid" }.to_owned(),
            evidence: hash[32..].to_owned(),
        }
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let folder = PathBuf::from(std::env::args_os().nth(1).ok_or("name a folder that is not there yet")?);
    // For measurements: as many certificates as wanted, in the same month.
    let per_day: u64 = std::env::args().nth(2).map_or(Ok(1450), |text| text.parse::<u64>().map(|all| all / DAYS))?;
    std::fs::create_dir(&folder)?;
    let mut month = Month { edge: Edge::default(), folder: Folder::new(&folder), drawn: 7 };
    let mut revocations = 0;
    for day in 0..DAYS {
        // Less at the weekend, more as the sales begin.
        let weight = match day {
            day if day % 7 == 0 || day % 7 == 6 => 62,
            26..=29 => 148,
            day => 92 + month.draw(18) + day / 3,
        };
        let count = per_day * weight / 100;
        for number in 0..count {
            let seconds = day * 86_400 + number * 86_400 / count;
            let issued = month.certificate(seconds);
            let serial = issued.serial.clone();
            month.add(seconds, Act::X509Issued(issued))?;
            if month.draw(900) == 0 {
                revocations += 1;
                let reason = [1, 4, 4, 5, 5, 5, 9][month.draw(7) as usize];
                month.add(
                    seconds,
                    Act::Revoked(Revocation {
                        number: revocations,
                        kind: "serial".to_owned(),
                        target: Text::from(serial.as_str()),
                        reason,
                        actor: "spiffe://example.org/ops/oncall".to_owned(),
                        comment: Text::from(""),
                        certificates: 1,
                        agents: 0,
                        epoch: revocations.unsigned_abs(),
                    }),
                )?;
                let authority = "3fa1c87e5d0b6f2299e4".repeat(2);
                let epoch = revocations.unsigned_abs();
                month.add(
                    seconds,
                    Act::RevokedSerials { revocation: revocations, epoch, authority, serials: vec![serial] },
                )?;
            }
            if month.draw(if day == 12 { 60 } else { 420 }) == 0 {
                let reason = [
                    "the join token was used before",
                    "no rule allows it",
                    "no rule allows it",
                    "the token has expired",
                    "the agent is banned",
                ][month.draw(5) as usize];
                let (whom, reason) = (Text::from("10.4.7.21:51844"), Text::from(reason));
                month.add(seconds, Act::Refused { what: "attestation".to_owned(), whom, reason, left_out: 0 })?;
            }
        }
    }
    for (resource, bytes) in month.edge.partial() {
        month.folder.write(resource, &bytes)?;
    }
    let pair = Ed25519KeyPair::from_seed_unchecked(&[7; 32]).map_err(|_| "no key")?;
    let key = VerifierKey::new("example.org/audit/3f1c0d5a".parse()?, pair.public_key().as_ref().try_into()?);
    let checkpoint = Checkpoint { origin: key.origin().clone(), size: month.edge.size(), root: month.edge.root() };
    let time = (BEGIN + 86_400 * DAYS.cast_signed()).unsigned_abs();
    let note = sign(&checkpoint, &key, time, |message| pair.sign(message).as_ref().try_into())?;
    month.folder.write(Resource::Checkpoint, note.as_bytes())?;
    std::fs::write(folder.join("key.pub"), format!("{key}\n"))?;
    Ok(())
}
