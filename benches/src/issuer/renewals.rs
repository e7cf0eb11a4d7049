//! Renewals, as fast as they are answered or at a rate, one a request or a hundred.

use std::time::Duration;

use signet_proto::identity::v1::identity_service_client::IdentityServiceClient;
use signet_proto::identity::v1::{CertificateRequest, IssueRequest, RenewRequest, issue_result};
use tonic::transport::Channel;

use super::caller::requests;
use super::place::Place;
use super::work::{AsyncWork, Done, closed, open};

/// A renewal each.
#[derive(Clone, Debug)]
pub struct Renewing(pub IdentityServiceClient<Channel>);

/// A hundred in a request.
#[derive(Clone, Debug)]
pub struct Batches(pub IdentityServiceClient<Channel>);

const CONNECTIONS: usize = 8;
const AT_ONCE: usize = 64;
/// Certificates in a request: no request may be for more.
pub const BATCH: usize = 100;
/// Beyond what any of them does in the time.
const MOST_PER_SECOND: usize = 20_000;

/// One rule for the callers of the bench.
pub const RULES: &str = "rules:
- name: bench
  match: { k8s.namespace: bench }
  spiffe_id: spiffe://example.org/bench/{k8s.service_account}
  dns_names: ['{k8s.service_account}.bench.svc']
  ttl: 1h
";
/// The same, and a thousand that are others'.
pub fn many_rules() -> String {
    let other = |number| {
        format!(
            "- {{ name: r{number}, match: {{ k8s.namespace: n{number} }}, spiffe_id: 'spiffe://example.org/n{number}/x' }}\n"
        )
    };
    RULES.to_owned() + &(0..1000).map(other).collect::<String>()
}

/// For one that asks as fast as it can.
pub const UNLIMITED: &str = "limits: { renewals_per_minute: 60000000, attestations_per_minute: 60000000 }\n";

/// An issuer, and callers of it on a few connections.
#[derive(Debug)]
pub struct Renewers {
    _place: Place,
    clients: Vec<IdentityServiceClient<Channel>>,
}

impl Renewers {
    pub async fn start(database: &str, rules: &str) -> anyhow::Result<Self> {
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

    pub async fn singles(&self, time: Duration) -> anyhow::Result<Done> {
        let work = requests(MOST_PER_SECOND / 2 * time.as_secs() as usize)?;
        let workers = (0..AT_ONCE).map(|number| Renewing(self.clients[number % CONNECTIONS].clone())).collect();
        let done = closed(workers, work, time).await;
        done.all_done("renewals")?;
        Ok(done)
    }

    pub async fn batches(&self, time: Duration) -> anyhow::Result<f64> {
        let work = requests(MOST_PER_SECOND * time.as_secs() as usize)?;
        let batches: Vec<_> = work.chunks(BATCH).map(<[_]>::to_vec).collect();
        let workers = self.clients.iter().cloned().map(Batches).collect();
        let done = closed(workers, batches, time).await;
        done.all_done("batches")?;
        Ok(done.rate() * BATCH as f64)
    }

    pub async fn at_rate(&self, rate: f64, time: Duration) -> anyhow::Result<Done> {
        let work = requests((rate * time.as_secs_f64()) as usize)?;
        Ok(open(self.clients.iter().cloned().map(Renewing).collect(), work, rate).await)
    }
}

impl AsyncWork<Vec<u8>> for Renewing {
    async fn run(&mut self, csr: Vec<u8>) -> anyhow::Result<()> {
        self.0.renew(RenewRequest { csr, ..RenewRequest::default() }).await?;
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
