//! A fleet that starts at once: each workload with a connection and a token of its own, or behind an agent that asks for a hundred.

use std::time::{Duration, Instant};

use signet_proto::identity::v1::AttestRequest;

use signet_benches::issuer::caller::{attestation, requests};
use signet_benches::issuer::place::Place;
use signet_benches::issuer::renewals::{Batches, RULES, UNLIMITED};
use signet_benches::issuer::table::{Table, thousands};
use signet_benches::issuer::work::{AsyncWork, closed};

const AT_ONCE: usize = 64;
const PER_AGENT: usize = 100;
const FOR_EVER: Duration = Duration::from_secs(3600);

pub(crate) async fn measure(table: &mut Table, identities: usize) -> anyhow::Result<()> {
    let took = each_by_itself(identities).await?;
    let told = |took: Duration| {
        format!("{:.1} s, {}/s", took.as_secs_f64(), thousands(identities as f64 / took.as_secs_f64()))
    };
    let count = thousands(identities as f64);
    let figure = format!("a cold start of {count} identities, each with a handshake and a token");
    table.row(figure, told(took), "≤ 60 s", took.as_secs() < 60);
    let took = by_agents(identities).await?;
    let figure =
        format!("a cold start of {count} identities behind {} agents", thousands(identities as f64 / PER_AGENT as f64));
    table.row(figure, told(took), "≤ 60 s", took.as_secs() < 60);
    Ok(())
}

/// Attests on a connection of its own.
#[derive(Clone)]
struct Newcomer(std::sync::Arc<Place>);

async fn each_by_itself(identities: usize) -> anyhow::Result<Duration> {
    let place = std::sync::Arc::new(Place::start(UNLIMITED)?);
    place.apply(RULES).await?;
    let mut work = Vec::with_capacity(identities);
    for (number, csr) in requests(identities)?.into_iter().enumerate() {
        work.push(attestation(place.tokens.token("bench", &format!("w{number}"))?, csr, None));
    }
    let began = Instant::now();
    let done = closed((0..AT_ONCE).map(|_| Newcomer(place.clone())).collect(), work, FOR_EVER).await;
    done.all_done("attestations")?;
    Ok(began.elapsed())
}

impl AsyncWork<AttestRequest> for Newcomer {
    async fn run(&mut self, request: AttestRequest) -> anyhow::Result<()> {
        self.0.stranger().await?.attest(request).await?;
        Ok(())
    }
}

async fn by_agents(identities: usize) -> anyhow::Result<Duration> {
    let place = std::sync::Arc::new(Place::start("")?);
    place.apply(RULES).await?;
    let work: Vec<_> = requests(identities)?.chunks(PER_AGENT).map(<[_]>::to_vec).enumerate().collect();
    let began = Instant::now();
    let agents = (0..AT_ONCE).map(|_| Agent(place.clone())).collect();
    let done = closed(agents, work, FOR_EVER).await;
    done.all_done("agents")?;
    Ok(began.elapsed())
}

/// Attests itself, then asks for what its workloads need.
#[derive(Clone)]
struct Agent(std::sync::Arc<Place>);

impl AsyncWork<(usize, Vec<Vec<u8>>)> for Agent {
    async fn run(&mut self, (number, batch): (usize, Vec<Vec<u8>>)) -> anyhow::Result<()> {
        let mut stranger = self.0.stranger().await?;
        let held = self.0.attest(&mut stranger, "bench", &format!("agent{number}")).await?;
        Batches(self.0.client_of(&held).await?).run(batch).await
    }
}
