//! Renewals while newcomers ask for three times as much as the issuer can do.

use std::time::Duration;

use signet_proto::identity::v1::AttestRequest;
use signet_proto::identity::v1::identity_service_client::IdentityServiceClient;
use tonic::transport::Channel;

use signet_benches::issuer::caller::{attestation, requests};
use signet_benches::issuer::place::Place;
use signet_benches::issuer::renewals::{BATCH, Batches, RULES, Renewing, UNLIMITED};
use signet_benches::issuer::table::{Table, median, percentile, thousands};
use signet_benches::issuer::work::{AsyncWork, Done, closed, open};

/// Who renew, each as often as anybody may.
const HOLDERS: usize = 200;
const RENEWALS_PER_SECOND: f64 = 1_000.0;
const STRANGERS: usize = 16;
const TIMES: f64 = 3.0;

#[derive(Clone)]
struct Newcomer(IdentityServiceClient<Channel>);

impl AsyncWork<AttestRequest> for Newcomer {
    async fn run(&mut self, request: AttestRequest) -> anyhow::Result<()> {
        self.0.attest(request).await?;
        Ok(())
    }
}

pub(crate) async fn measure(table: &mut Table, time: Duration) -> anyhow::Result<()> {
    let place = Place::start("")?;
    place.apply(RULES).await?;
    let mut stranger = place.stranger().await?;
    let mut holders = Vec::new();
    for number in 0..HOLDERS {
        let held = place.attest(&mut stranger, "bench", &format!("w{number}")).await?;
        holders.push(Renewing(place.client_of(&held).await?));
    }
    let newcomers = async |count: usize, from: usize| -> anyhow::Result<Vec<AttestRequest>> {
        let requests = requests(count)?.into_iter().enumerate();
        requests
            .map(|(number, csr)| {
                Ok(attestation(place.tokens.token("bench", &format!("n{}", from + number))?, csr, None))
            })
            .collect()
    };
    let strangers = async || -> anyhow::Result<Vec<Newcomer>> {
        let mut all = Vec::new();
        for _ in 0..STRANGERS {
            all.push(Newcomer(place.stranger().await?));
        }
        Ok(all)
    };

    // What it can do of such, with nothing else to do.
    let work = newcomers(8_000 * time.as_secs() as usize, 0).await?;
    let workers = strangers().await?.into_iter().flat_map(|one| [one.clone(), one]).collect();
    let capacity = closed(workers, work, time).await.rate();

    let renewals = async || -> anyhow::Result<Done> {
        let work = requests((RENEWALS_PER_SECOND * time.as_secs_f64()) as usize)?;
        Ok(open(holders.clone(), work, RENEWALS_PER_SECOND).await)
    };
    let mut alone = renewals().await?;
    let offered = TIMES * capacity;
    let work = newcomers((offered * time.as_secs_f64()) as usize, 1_000_000).await?;
    let flood = tokio::spawn(open(strangers().await?, work, offered));
    let mut under = renewals().await?;
    let flood = flood.await?;

    let rate = thousands(RENEWALS_PER_SECOND);
    table.row(format!("renewals, {rate}/s offered, nothing else"), told(&mut alone), "", true);
    let all = under.failed == 0;
    let figure = format!(
        "renewals, {rate}/s offered, and {}/s first certificates, three times what it can do",
        thousands(offered)
    );
    table.row(figure, told(&mut under), "all of them", all);
    let told = format!(
        "{} done, {} told to come again",
        thousands(flood.latencies.len() as f64),
        thousands(flood.failed as f64)
    );
    table.row("the first certificates of that time", told, "", true);
    drop(place);
    by_agents(table, time).await
}

/// The same while agents ask for batches, as those do that start anew with all that runs on their hosts.
async fn by_agents(table: &mut Table, time: Duration) -> anyhow::Result<()> {
    let place = Place::start(UNLIMITED)?;
    place.apply(RULES).await?;
    let mut stranger = place.stranger().await?;
    let (mut holders, mut agents) = (Vec::new(), Vec::new());
    for number in 0..HOLDERS {
        let held = place.attest(&mut stranger, "bench", &format!("w{number}")).await?;
        holders.push(Renewing(place.client_of(&held).await?));
    }
    for number in 0..STRANGERS {
        let held = place.attest(&mut stranger, "bench", &format!("agent{number}")).await?;
        agents.push(Batches(place.client_of(&held).await?));
    }
    let batches = |count: usize| -> anyhow::Result<Vec<Vec<Vec<u8>>>> {
        Ok(requests(count * BATCH)?.chunks(BATCH).map(<[_]>::to_vec).collect())
    };
    let capacity = closed(agents.clone(), batches(250 * time.as_secs() as usize)?, time).await.rate();
    let offered = TIMES * capacity;
    let work = batches((offered * time.as_secs_f64()) as usize)?;
    let flood = tokio::spawn(open(agents, work, offered));
    let work = requests((RENEWALS_PER_SECOND * time.as_secs_f64()) as usize)?;
    let mut under = open(holders, work, RENEWALS_PER_SECOND).await;
    let flood = flood.await?;
    let (rate, offered) = (thousands(RENEWALS_PER_SECOND), thousands(offered * BATCH as f64));
    let figure =
        format!("renewals, {rate}/s offered, and {offered}/s in batches of agents, three times what it can do");
    let all = under.failed == 0;
    table.row(figure, told(&mut under), "all of them", all);
    let told = format!(
        "{} done, {} batches with some told to come again",
        thousands(flood.latencies.len() as f64),
        thousands(flood.failed as f64)
    );
    table.row("the batches of that time", told, "", true);
    Ok(())
}

fn told(done: &mut Done) -> String {
    let (p50, p99) = (median(&mut done.latencies), percentile(&mut done.latencies, 0.99));
    let count = thousands(done.latencies.len() as f64);
    format!("{count} done, {} failed, p50 {p50:.1} ms, p99 {p99:.1} ms", done.failed)
}
