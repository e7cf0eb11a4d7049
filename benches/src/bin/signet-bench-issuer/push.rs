//! How soon a change of the policy is an SVID in the hands of a workload that waits for it, while others hold streams.

use std::time::{Duration, Instant};

use signet_proto::identity::v1::{WatchRequest, WatchResponse};
use tonic::Streaming;

use signet_benches::issuer::caller::{attestation, new_request};
use signet_benches::issuer::place::Place;
use signet_benches::issuer::renewals::RULES;
use signet_benches::issuer::table::{Table, median, percentile};

const CHANGES: usize = 200;
const WAIT: Duration = Duration::from_secs(8);

pub(crate) async fn measure(table: &mut Table) -> anyhow::Result<()> {
    for (streams, bar, most) in [(1_000, "p99 < 100 ms", 100.0), (5_000, "p99 < 500 ms", 500.0)] {
        let mut took = changes(streams).await?;
        let (p50, p99) = (median(&mut took), percentile(&mut took, 0.99));
        let figure = format!("a change of the policy to an SVID in a waiting workload's hands, {streams} streams");
        table.row(figure, format!("p50 {p50:.1} ms, p99 {p99:.1} ms of {CHANGES}"), bar, p99 < most);
    }
    Ok(())
}

async fn changes(streams: usize) -> anyhow::Result<Vec<f64>> {
    let place = Place::start("limits: { watchers: 20000, attestations_per_minute: 60000000 }\n")?;
    place.apply(RULES).await?;
    let watching = watchers(&place, streams).await?;
    let mut took = Vec::with_capacity(CHANGES);
    for number in 0..CHANGES {
        let (_, csr) = new_request()?;
        let account = format!("waiter{number}");
        let request = attestation(place.tokens.token("waiting", &account)?, csr, Some(WAIT));
        let mut stranger = place.stranger().await?;
        let waiting = tokio::spawn(async move {
            let answer = stranger.attest(request).await;
            answer.map(|answer| (Instant::now(), answer.into_inner().svid))
        });
        // It has come to wait for a rule; were it late, the time would be shorter and not longer, so it is given plenty.
        tokio::time::sleep(Duration::from_millis(60)).await;
        let rule = format!(
            "{RULES}- {{ name: w, match: {{ k8s.namespace: waiting, k8s.service_account: {account} }}, spiffe_id: 'spiffe://example.org/waiting/{account}' }}\n"
        );
        let began = Instant::now();
        place.apply(&rule).await?;
        let (arrived, svid) = waiting.await??;
        anyhow::ensure!(svid.is_some(), "an answer without an SVID");
        took.push((arrived - began).as_secs_f64() * 1000.0);
    }
    drop(watching);
    Ok(took)
}

/// Clients with an identity, a connection and a stream each, which have heard all there is to hear.
pub(crate) async fn watchers(place: &Place, count: usize) -> anyhow::Result<Vec<Streaming<WatchResponse>>> {
    let mut watching = Vec::with_capacity(count);
    let mut stranger = place.stranger().await?;
    for number in 0..count {
        // A connection of a stranger lives for a minute.
        if number % 500 == 499 {
            stranger = place.stranger().await?;
        }
        let held = place.attest(&mut stranger, "bench", &format!("w{number}")).await?;
        let mut client = place.client_of(&held).await?;
        let says = tokio_stream::StreamExt::chain(
            tokio_stream::iter([WatchRequest::default()]),
            tokio_stream::pending::<WatchRequest>(),
        );
        let mut stream = client.watch(says).await?.into_inner();
        // Bundles, then what the policy gives.
        for _ in 0..2 {
            stream.message().await?;
        }
        watching.push(stream);
    }
    Ok(watching)
}
