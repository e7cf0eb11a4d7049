//! A million workloads that one rule names: what they cost the issuer's memory.

use std::time::Duration;

use signet_proto::identity::v1::AttestRequest;
use signet_proto::identity::v1::identity_service_client::IdentityServiceClient;
use tonic::transport::Channel;

use signet_benches::issuer::caller::{attestation, requests};
use signet_benches::issuer::place::Place;
use signet_benches::issuer::renewals::{RULES, UNLIMITED};
use signet_benches::issuer::table::{Table, thousands};
use signet_benches::issuer::work::{AsyncWork, closed};

const AT_ONCE: usize = 16;
/// By one of those who bring them, on one connection: it lives a minute at most.
const PER_CONNECTION: usize = 1_000;
const PER_PART: usize = 20_000;
const FOR_EVER: Duration = Duration::from_secs(3600);
/// Of what a million more workloads may add to the memory: what an allocator moves about.
const FLAT: f64 = 16.0;

pub(crate) async fn measure(table: &mut Table, workloads: usize) -> anyhow::Result<()> {
    let place = std::sync::Arc::new(Place::start(UNLIMITED)?);
    place.apply(RULES).await?;
    let mut told = Vec::new();
    let mut memory = |count: usize| -> anyhow::Result<()> {
        told.push((count, place.memory()? / 1024.0 / 1024.0));
        eprintln!("{} workloads: {:.1} MiB", thousands(count as f64), told[told.len() - 1].1);
        Ok(())
    };
    let parts = workloads.div_ceil(PER_PART);

    for part in 0..parts {
        let first = part * PER_PART;
        let mut work = Vec::with_capacity(PER_PART);
        for (number, csr) in requests(PER_PART)?.into_iter().enumerate() {
            let workload = format!("w{}", first + number);
            work.push(attestation(place.tokens.token("bench", &workload)?, csr, None));
        }
        let bringing = (0..AT_ONCE).map(|_| Bringer { place: place.clone(), open: None });
        closed(bringing.collect(), work, FOR_EVER).await.all_done("attestations")?;
        if part == 0 || (part + 1) * 10 / parts != part * 10 / parts {
            memory(first + PER_PART)?;
        }
    }
    let tenth = told.iter().find(|(count, _)| *count * 10 >= workloads).map_or(0.0, |(_, memory)| *memory);
    let all = told.last().map_or(0.0, |(_, memory)| *memory);
    let figure = format!("memory of an issuer that one rule has made know {} workloads", thousands(workloads as f64));
    let value = format!("{all:.0} MiB, {tenth:.0} MiB with a tenth of them");
    table.row(figure, value, "no more than 16 MiB in the other nine tenths", all - tenth <= FLAT);
    Ok(())
}

/// Attests one workload after the other.
#[derive(Clone)]
struct Bringer {
    place: std::sync::Arc<Place>,
    /// And for how many more.
    open: Option<(IdentityServiceClient<Channel>, usize)>,
}

impl AsyncWork<AttestRequest> for Bringer {
    async fn run(&mut self, request: AttestRequest) -> anyhow::Result<()> {
        let (mut client, left) = match self.open.take() {
            Some(open) => open,
            None => (self.place.stranger().await?, PER_CONNECTION),
        };
        client.attest(request).await?;
        self.open = (left > 1).then_some((client, left - 1));
        Ok(())
    }
}
