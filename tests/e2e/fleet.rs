//! A thousand clients of one rule: what it gives reaches all of them, and so does the way back.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::HashMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;

use serde_json::Value;
use signet_identity::{SystemClock, TlsPolicies, TrustBundle};
use signet_sdk::{Credential, IssuerSource, RotationResult, Running, StartError};
use signet_tests::tokens::{PROVIDER, TokenMaker};
use signet_tests::wait::until;
use signet_tests::{Issuer, open_files, secs};
use tempfile::TempDir;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use x509_parser::prelude::{FromDer as _, GeneralName, X509Certificate};

const TRUST_DOMAIN: &str = "example.org";
const CLIENTS: usize = 1000;
/// Handshakes under way at once: fewer than an issuer lets one address have.
const AT_ONCE: usize = 64;

/// One rule for the fleet, and one that stays as it is.
fn rules(dns_name: &str, ttl: &str) -> String {
    format!(
        "rules:
  - name: fleet
    match: {{ oidc.subject: 'unit-*' }}
    spiffe_id: spiffe://example.org/fleet/{{oidc.subject}}
    dns_names: ['{{oidc.subject}}.{dns_name}']
    ttl: {ttl}
  - name: bystander
    match: {{ oidc.subject: bystander }}
    spiffe_id: spiffe://example.org/bystander
"
    )
}

/// Programs with the SDK, each with a certificate of its own.
struct Fleet {
    units: Vec<Running>,
    // What they run on.
    _runtime: tokio::runtime::Runtime,
}

impl Fleet {
    /// Each attests itself by a token in a file.
    fn join(issuer: &Issuer, maker: &TokenMaker, folder: &Path, names: impl Iterator<Item = String>) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let bundle = TrustBundle::from_pem(TRUST_DOMAIN.parse().unwrap(), &fs::read(&issuer.bundle).unwrap()).unwrap();
        let address = issuer.address.to_string();
        let start = |name: &str| {
            let token = folder.join(format!("{name}.token"));
            fs::write(&token, maker.token(name, serde_json::json!({}))).unwrap();
            let credential = Credential::Oidc { provider: "ci".to_owned(), token };
            let source = IssuerSource::new(&address, bundle.clone(), credential).unwrap();
            signet_sdk::start(source, TlsPolicies::new(Arc::new(SystemClock)), CancellationToken::new())
        };
        let units = runtime.block_on(async {
            let mut starting = JoinSet::<Result<Running, StartError>>::new();
            let mut units = Vec::new();
            for name in names {
                if starting.len() == AT_ONCE {
                    units.push(starting.join_next().await.unwrap().unwrap().unwrap());
                }
                starting.spawn(start(&name));
            }
            units.extend(starting.join_all().await.into_iter().map(Result::unwrap));
            units
        });
        Self { units, _runtime: runtime }
    }

    /// How many hold a certificate of this kind now.
    fn holding(&self, dns_name: &str, seconds: i64) -> usize {
        let unit_holds = |unit: &&Running| {
            let live = unit.live.load();
            let (name, svid) = (live.svid().id().as_str().rsplit('/').next().unwrap(), live.svid());
            let life = (svid.not_after() - svid.not_before()).whole_seconds();
            dns_names(svid.leaf()) == [format!("{name}.{dns_name}")] && life == seconds
        };
        self.units.iter().filter(unit_holds).count()
    }

    fn rotations(&self, result: RotationResult) -> u64 {
        self.units.iter().map(|unit| unit.monitor.rotations(result)).sum()
    }
}

fn dns_names(certificate: &[u8]) -> Vec<String> {
    let (_, certificate) = X509Certificate::from_der(certificate).unwrap();
    let names = certificate.subject_alternative_name().unwrap().unwrap();
    let names = names.value.general_names.iter();
    names
        .filter_map(|name| if let GeneralName::DNSName(name) = name { Some((*name).to_owned()) } else { None })
        .collect()
}

/// What `signet get agents` says of the fleet: by SPIFFE ID, whether it has put all that it was sent in force.
fn applied(issuer: &Issuer) -> HashMap<String, bool> {
    let listed = issuer.operate_json(&["get", "agents"]);
    let agents = listed["agents"].as_array().unwrap().iter();
    let of_fleet = agents.filter(|agent| agent["spiffe_id"].as_str().unwrap().contains("/fleet/"));
    let told = |agent: &Value| {
        assert!(agent["applied"]["refused"].is_null(), "{agent}");
        (
            agent["spiffe_id"].as_str().unwrap().to_owned(),
            agent["connected"] == true && agent["applied"]["current"] == true,
        )
    };
    of_fleet.map(told).collect()
}

fn current(issuer: &Issuer) -> usize {
    applied(issuer).into_values().filter(|current| *current).count()
}

#[test]
fn a_rollback_reaches_a_thousand_clients_and_each_says_so() {
    // A client has one connection, and two while its next certificate takes over; what goes on beside that needs few.
    open_files::allow(2 * CLIENTS as u64 + 500);
    let folder = TempDir::new().unwrap();
    let maker = TokenMaker::at(folder.path());
    let issuer = Issuer::start_with(folder.path(), TRUST_DOMAIN, secs(3600), PROVIDER);
    issuer.apply(&rules("fleet.example.org", "50m"));
    let fleet = Fleet::join(&issuer, &maker, folder.path(), (0..CLIENTS).map(|number| format!("unit-{number}")));
    let bystander = Fleet::join(&issuer, &maker, folder.path(), ["bystander".to_owned()].into_iter());
    let serial = || bystander.units[0].live.load().svid().serial().to_string();
    let before = serial();
    assert_eq!(fleet.holding("fleet.example.org", 3000), CLIENTS);
    until("all watch, and have what they were sent", secs(60), || current(&issuer) == CLIENTS);

    issuer.apply(&rules("fleet.example.net", "40m"));
    until("some are seen to be behind", secs(10), || current(&issuer) < CLIENTS);
    until("all have the new names and life", secs(60), || fleet.holding("fleet.example.net", 2400) == CLIENTS);
    until("all have said so", secs(60), || current(&issuer) == CLIENTS);

    issuer.operate(&["rollback", "--yes"]);
    until("some are seen to be behind again", secs(10), || current(&issuer) < CLIENTS);
    until("all have the former names and life", secs(60), || fleet.holding("fleet.example.org", 3000) == CLIENTS);
    until("all have said so again", secs(60), || current(&issuer) == CLIENTS);
    assert_eq!(issuer.operate_json(&["history"])["revisions"][0]["revision"], 3);

    // Each got one certificate for each revision, and whom it was not about got none.
    assert_eq!(fleet.rotations(RotationResult::Failed) + fleet.rotations(RotationResult::Refused), 0);
    let issued = issuer.query("SELECT count(*) FROM issued WHERE spiffe_id LIKE '%/fleet/%'");
    assert_eq!(issued, [(3 * CLIENTS).to_string()]);
    assert_eq!(serial(), before);
}
