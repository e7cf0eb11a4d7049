//! A fleet that starts anew, and asks for more than the issuer can do: whoever has an identity keeps it, whoever wants one is told when
//! to come again.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Instant;

use serde_json::json;
use signet_proto::identity::v1::AttestRequest;
use signet_proto::identity::v1::identity_service_client::IdentityServiceClient;
use signet_tests::tokens::{PROVIDER, TokenMaker, proof};
use signet_tests::wait::until;
use signet_tests::workload::{new_request, stranger_from};
use signet_tests::{Issuer, Workload, millis, secs};
use tempfile::TempDir;
use tokio::task::JoinSet;
use tonic::{Code, Status};

const HOLDERS: usize = 50;
/// Of each holder, while the issuer turns others away.
const RENEWALS: usize = 20;
/// Together far more callers than may be in line for a first certificate, a few hundred, and than one address may be.
const ADDRESSES: u8 = 4;
const CONNECTIONS: usize = 4;
const CALLERS: usize = 64;

const RULES: &str = "rules:
  - { name: all, match: { oidc.provider: ci }, spiffe_id: 'spiffe://example.org/fleet/{oidc.subject}' }
";
const LIMITS: &str = "limits: { renewals_per_minute: 1000000, attestations_per_minute: 600 }\n";

/// Those who want their first identity, and come again sooner than they were told.
#[derive(Default)]
struct Flood {
    admitted: AtomicUsize,
    /// With RESOURCE_EXHAUSTED and a time to come again.
    told_when: AtomicUsize,
    /// With anything else.
    failed: Mutex<Vec<Status>>,
}

impl Flood {
    async fn run(self: Arc<Self>, issuer: SocketAddr, maker: Arc<TokenMaker>) {
        let mut callers = JoinSet::new();
        for address in 1..=ADDRESSES {
            for _ in 0..CONNECTIONS {
                let source = IpAddr::from(Ipv4Addr::new(127, 0, 0, address));
                let client = IdentityServiceClient::new(stranger_from(source, issuer).await.unwrap());
                for _ in 0..CALLERS {
                    let (flood, maker, mut client) = (Arc::clone(&self), Arc::clone(&maker), client.clone());
                    callers.spawn(async move {
                        loop {
                            let (token, csr) = (maker.token("newcomer", json!({})), new_request().1);
                            let request = AttestRequest { proof: Some(proof(&token)), csr, ..AttestRequest::default() };
                            let outcome = client.attest(request).await.map(drop);
                            flood.note(&outcome);
                            if outcome.is_err() {
                                tokio::time::sleep(millis(250)).await;
                            }
                        }
                    });
                }
            }
        }
        callers.join_all().await;
    }

    fn note(&self, outcome: &Result<(), Status>) {
        match outcome {
            Ok(()) => _ = self.admitted.fetch_add(1, Relaxed),
            Err(refused) if pushback(refused).is_some() => _ = self.told_when.fetch_add(1, Relaxed),
            Err(refused) => self.failed.lock().unwrap().push(refused.clone()),
        }
    }
}

/// When a refused caller is to come again, in milliseconds.
fn pushback(refused: &Status) -> Option<u64> {
    let after = refused.metadata().get("grpc-retry-pushback-ms")?.to_str().ok()?.parse().ok()?;
    (refused.code() == Code::ResourceExhausted && after > 0).then_some(after)
}

#[test]
fn whoever_has_an_identity_keeps_it_while_newcomers_ask_for_more_than_there_is() {
    let folder = TempDir::new().unwrap();
    let maker = Arc::new(TokenMaker::at(folder.path()));
    let issuer = Issuer::start_with(folder.path(), "example.org", secs(3600), &format!("{PROVIDER}{LIMITS}"));
    issuer.apply(RULES);
    let holders: Vec<_> = (0..HOLDERS)
        .map(|number| {
            let mut holder = Workload::of(issuer.address);
            holder.prove(|_| proof(&maker.token(&format!("holder-{number}"), json!({})))).unwrap();
            holder
        })
        .collect();

    let flood = Arc::new(Flood::default());
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    runtime.spawn(Arc::clone(&flood).run(issuer.address, Arc::clone(&maker)));
    until("some are turned away", secs(20), || flood.told_when.load(Relaxed) > 0);
    let before = [&flood.admitted, &flood.told_when].map(|count| count.load(Relaxed));

    let (over, deadline) = (AtomicBool::new(false), Instant::now() + secs(150));
    let renewals: Vec<_> = (0..HOLDERS).map(|_| AtomicUsize::new(0)).collect();
    let failed = thread::scope(|scope| {
        let renewing: Vec<_> = holders
            .into_iter()
            .zip(&renewals)
            .map(|(mut holder, renewals)| {
                let over = &over;
                scope.spawn(move || {
                    let mut failed = Vec::new();
                    // On a new connection each, with the certificate before.
                    while !over.load(Relaxed) && Instant::now() < deadline {
                        match holder.renew() {
                            Ok(_) => drop(renewals.fetch_add(1, Relaxed)),
                            Err(refused) => failed.push(refused),
                        }
                    }
                    failed
                })
            })
            .collect();
        until("all holders have renewed, again and again", secs(60), || {
            renewals.iter().all(|count| count.load(Relaxed) >= RENEWALS)
        });
        until("some newcomers are admitted, and some turned away, meanwhile", secs(60), || {
            flood.admitted.load(Relaxed) > before[0] && flood.told_when.load(Relaxed) > before[1] + 100
        });
        over.store(true, Relaxed);
        renewing.into_iter().flat_map(|holder| holder.join().unwrap()).collect::<Vec<_>>()
    });
    runtime.shutdown_background();
    let counts = [&flood.admitted, &flood.told_when].map(|count| count.load(Relaxed));
    let renewed: usize = renewals.iter().map(|count| count.load(Relaxed)).sum();
    println!("{renewed} renewals; {counts:?} newcomers admitted and turned away, {before:?} of them before");
    assert!(failed.is_empty(), "{} renewals failed: {:?}", failed.len(), failed[0]);
    let others = flood.failed.lock().unwrap();
    assert!(others.is_empty(), "{} were refused without a time to come again: {:?}", others.len(), others[0]);
    // As the issuer has them on record.
    assert_eq!(issuer.query("SELECT count(*) FROM issued WHERE attestation = 'x509_svid'"), [renewed.to_string()]);
}
