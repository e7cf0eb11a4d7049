//! Certificates a second: authorization, policy, signature and the durable record included.

use std::path::Path;
use std::time::Duration;

use signet_proto::identity::v1::identity_service_client::IdentityServiceClient;
use signet_proto::identity::v1::{CertificateRequest, IssueRequest, RenewRequest, issue_result};
use tonic::transport::Channel;

use crate::bao::{Bao, Stored};
use crate::caller::requests;
use crate::load::{AsyncWork, Done, closed, open};
use crate::place::Place;
use crate::table::{Table, median, percentile, thousands};

/// A renewal each.
#[derive(Clone)]
pub(crate) struct Renewing(pub(crate) IdentityServiceClient<Channel>);

/// A hundred in a request.
#[derive(Clone)]
pub(crate) struct Batches(pub(crate) IdentityServiceClient<Channel>);

const CONNECTIONS: usize = 8;
const AT_ONCE: usize = 64;
pub(crate) const BATCH: usize = 100;
/// Beyond what any of them does in the time.
const MOST_PER_SECOND: usize = 20_000;

/// One rule for the callers of the bench, and others.
pub(crate) const RULES: &str = "rules:
- name: bench
  match: { k8s.namespace: bench }
  spiffe_id: spiffe://example.org/bench/{k8s.service_account}
  dns_names: ['{k8s.service_account}.bench.svc']
  ttl: 1h
";
/// For one that asks as fast as it can.
pub(crate) const UNLIMITED: &str = "limits: { renewals_per_minute: 60000000, attestations_per_minute: 60000000 }\n";

pub(crate) async fn measure(
    table: &mut Table,
    time: Duration,
    rounds: usize,
    bao: Option<&Path>,
) -> anyhow::Result<()> {
    let rules: String = (0..1000)
        .map(|number| format!("- {{ name: r{number}, match: {{ k8s.namespace: n{number} }}, spiffe_id: 'spiffe://example.org/n{number}/x' }}\n"))
        .collect();
    let server = signet_test_postgres::Server::start(true);
    let sqlite = Side::start("", &format!("{RULES}{rules}")).await?;
    let postgres = format!("database: {{ url: \"{}\" }}\n", server.database());
    let postgres = Side::start(&postgres, &format!("{RULES}{rules}")).await?;
    let peer = bao.map(Bao::start).transpose()?;

    let mut figures: [Vec<f64>; 6] = Default::default();
    for _ in 0..rounds {
        figures[0].push(sqlite.batches(time).await?);
        figures[1].push(sqlite.singles(time).await?.rate());
        figures[2].push(postgres.batches(time).await?);
        figures[3].push(postgres.singles(time).await?.rate());
        if let Some(peer) = &peer {
            figures[4].push(peer.sign(Stored::No, time).await?);
            figures[5].push(peer.sign(Stored::Yes, time).await?);
        }
    }
    let [batch, single, batch_pg, single_pg, unstored, stored] = figures.each_mut().map(|rates| median(rates));
    let rate = |rate: f64| format!("{}/s", thousands(rate));
    table.row("SVIDs, batches of 100, SQLite", rate(batch), "≥ 10,000/s", batch >= 10_000.0);
    table.row("SVIDs, one a request, SQLite", rate(single), "≥ 5,000/s", single >= 5_000.0);
    table.row("SVIDs, batches of 100, PostgreSQL", rate(batch_pg), "≥ 5,000/s", batch_pg >= 5_000.0);
    table.row("SVIDs, one a request, PostgreSQL", rate(single_pg), "≥ 5,000/s", single_pg >= 5_000.0);
    if peer.is_some() {
        table.row("OpenBao, `pki/sign`, not stored", rate(unstored), "", true);
        table.row("OpenBao, `pki/sign`, stored (raft)", rate(stored), "", true);
        for (what, ours) in [("one a request", single), ("batches", batch)] {
            let (to_unstored, to_stored) = (ours / unstored, ours / stored);
            table.row(
                format!("Signet on SQLite, {what}, by OpenBao, not stored"),
                format!("{to_unstored:.1} ×"),
                "≥ 2 ×",
                to_unstored >= 2.0,
            );
            table.row(
                format!("Signet on SQLite, {what}, by OpenBao, stored"),
                format!("{to_stored:.1} ×"),
                "≥ 5 ×",
                to_stored >= 5.0,
            );
        }
    }
    Ok(())
}

/// How long a renewal takes while there are half as many as there could be.
pub(crate) async fn latency(table: &mut Table, time: Duration) -> anyhow::Result<()> {
    let sqlite = Side::start("", RULES).await?;
    // On a record that is larger than any cache of it.
    let on_record = sqlite.batches(4 * time).await? * 4.0 * time.as_secs_f64();
    let half = sqlite.singles(time).await?.rate() / 2.0;
    let mut done = sqlite.at_rate(half, 2 * time).await?;
    done.all_done("renewals at half load")?;
    let [p50, p99, most] = [0.5, 0.99, 1.0].map(|share| percentile(&mut done.latencies, share));
    let told = format!("p50 {p50:.2} ms, p99 {p99:.2} ms, at most {most:.0} ms at {}/s", thousands(half));
    let on_record = thousands(on_record);
    let figure = format!("SVIDs, one a request, SQLite, at half load, {on_record} on record");
    table.row(figure, told, "p99 < 10 ms", p99 < 10.0);
    Ok(())
}

/// An issuer and its callers.
struct Side {
    _place: Place,
    clients: Vec<IdentityServiceClient<Channel>>,
}

impl Side {
    async fn start(database: &str, rules: &str) -> anyhow::Result<Self> {
        let place = Place::start(&format!("{database}{UNLIMITED}"))?;
        place.apply(rules).await?;
        let mut stranger = place.stranger().await?;
        let mut clients = Vec::new();
        for number in 0..CONNECTIONS {
            let held = place.attest(&mut stranger, "bench", &format!("w{number}")).await?;
            clients.push(place.client_of(&held).await?);
        }
        Ok(Self { _place: place, clients })
    }

    async fn singles(&self, time: Duration) -> anyhow::Result<Done> {
        let work = requests(MOST_PER_SECOND / 2 * time.as_secs() as usize)?;
        let workers = (0..AT_ONCE).map(|number| Renewing(self.clients[number % CONNECTIONS].clone())).collect();
        let done = closed(workers, work, time).await;
        done.all_done("renewals")?;
        Ok(done)
    }

    async fn batches(&self, time: Duration) -> anyhow::Result<f64> {
        let work = requests(MOST_PER_SECOND * time.as_secs() as usize)?;
        let batches: Vec<_> = work.chunks(BATCH).map(<[_]>::to_vec).collect();
        let workers = self.clients.iter().cloned().map(Batches).collect();
        let done = closed(workers, batches, time).await;
        done.all_done("batches")?;
        Ok(done.rate() * BATCH as f64)
    }

    async fn at_rate(&self, rate: f64, time: Duration) -> anyhow::Result<Done> {
        let work = requests((rate * time.as_secs_f64()) as usize)?;
        Ok(open(self.clients.iter().cloned().map(Renewing).collect(), work, rate).await)
    }
}

impl AsyncWork<Vec<u8>> for Renewing {
    async fn run(&mut self, csr: Vec<u8>) -> anyhow::Result<()> {
        self.0.renew(RenewRequest { csr }).await?;
        Ok(())
    }
}

impl AsyncWork<Vec<Vec<u8>>> for Batches {
    async fn run(&mut self, batch: Vec<Vec<u8>>) -> anyhow::Result<()> {
        let requests = batch.into_iter().map(|csr| CertificateRequest { csr, ..Default::default() }).collect();
        let results = self.0.issue(IssueRequest { requests }).await?.into_inner().results;
        let is_issued =
            |result: &Option<issue_result::Result>| matches!(result, Some(issue_result::Result::Certificate(_)));
        anyhow::ensure!(results.iter().all(|result| is_issued(&result.result)), "not all were issued: {results:?}");
        Ok(())
    }
}
