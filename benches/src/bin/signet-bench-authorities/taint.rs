//! What others notice while all is renewed that an authority has signed, which is tainted.
//!
//! Agents hold its certificates, each a hundred for workloads of its host, and follow the issuer. Told to renew within a time, they
//! renew each at a moment drawn from it. The others hold certificates of the authority that signs now, and renew at a steady rate.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context as _;
use signet_benches::issuer::caller::{Held, attestation, new_request, requests};
use signet_benches::issuer::place::Place;
use signet_benches::issuer::renewals::{RULES, Renewing, UNLIMITED};
use signet_benches::issuer::table::{Table, percentile, thousands};
use signet_benches::issuer::work::{AsyncWork, Done, closed, open};
use signet_proto::admin::v1::rotate_request::What;
use signet_proto::admin::v1::{
    AuthorityRotation, GetRotationRequest, GetStatusRequest, ImportAuthoritiesRequest, ListAuthoritiesRequest,
    RequestAuthoritiesRequest, RotateRequest, TaintAuthorityRequest,
};
use signet_proto::identity::v1::identity_service_client::IdentityServiceClient;
use signet_proto::identity::v1::watch_response::Event;
use signet_proto::identity::v1::{
    AttestRequest, CertificateRequest, IssueRequest, WatchRequest, WatchResponse, issue_result,
};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tonic::Streaming;
use tonic::transport::Channel;

use crate::progress::{say, until};

/// One agent's.
const EACH: usize = 100;
const OTHERS: usize = 200;
const RATE: f64 = 1_000.0;
const PATIENCE: Duration = Duration::from_secs(60);
/// Of what agents do, some more than is due: it is drawn.
const MORE: f64 = 1.5;

pub(crate) async fn measure(table: &mut Table, certificates: usize, time: Duration) -> anyhow::Result<()> {
    let place = Place::start(UNLIMITED)?;
    place.apply(&rules()).await?;
    let agents = agents(&place, certificates.div_ceil(EACH)).await?;
    let held = agents.len() * EACH;
    say(format_args!("{} agents hold {} certificates", agents.len(), thousands(held as f64)));
    let before = replace_authority(&place).await?;
    let mut others = Vec::with_capacity(OTHERS);
    let mut stranger = place.stranger().await?;
    for number in 0..OTHERS {
        let holder = place.attest(&mut stranger, "bench", &format!("w{number}")).await?;
        others.push(Renewing(place.client_of(&holder).await?));
    }
    let renewals = async |time: Duration| -> anyhow::Result<Done> {
        let work = requests((RATE * time.as_secs_f64()) as usize)?;
        Ok(open(others.clone(), work, RATE).await)
    };
    // Connections and caches are warm.
    renewals(Duration::from_secs(2)).await?;
    say(format_args!("renewals of the others, and nothing else"));
    let mut alone = renewals(time).await?;

    // 5 ms for each of them: that is what the issuer is to ask for.
    let due = Duration::from_millis(5) * u32::try_from(held)?;
    let within_time = held as f64 * ((2 * time).as_secs_f64() / due.as_secs_f64()).min(1.0);
    let pool = Arc::new(Mutex::new(requests((within_time * MORE) as usize + EACH)?));
    let did = Arc::new(Did::default());
    let mut renewing: JoinSet<_> =
        agents.into_iter().map(|agent| agent.renew_when_asked(Arc::clone(&pool), Arc::clone(&did))).collect();
    let mut admin = place.admin().await?;
    // The command itself, and what it looks for in the record, is among what others may notice.
    let (under, tainted) = tokio::join!(renewals(2 * time), async {
        tokio::time::sleep(time / 10).await;
        say(format_args!("the authority is tainted"));
        admin.taint_authority(TaintAuthorityRequest { key: before, ..TaintAuthorityRequest::default() }).await
    });
    let (mut under, tainted) = (under?, tainted?.into_inner());
    renewing.abort_all();
    let (done, failed) = (did.renewed.load(Ordering::Relaxed), did.failed.load(Ordering::Relaxed));
    anyhow::ensure!(tainted.live_certificates as usize == held, "{} live certificates", tainted.live_certificates);
    anyhow::ensure!(done > 0, "nothing is renewed, though {} were asked", tainted.clients);
    alone.all_done("renewals with nothing else")?;
    under.all_done("renewals beside a taint")?;

    let of = |done: &mut Done| {
        let [p50, p99] = [0.5, 0.99].map(|share| percentile(&mut done.latencies, share));
        (p50, p99)
    };
    let ((p50_alone, p99_alone), (p50, p99)) = (of(&mut alone), of(&mut under));
    let within = tainted.within.map_or(0, |within| within.seconds);
    let (rate, held) = (thousands(RATE), thousands(held as f64));
    table.row(
        format!("renewals, {rate}/s, nothing else"),
        format!("p50 {p50_alone:.2} ms, p99 {p99_alone:.2} ms"),
        "",
        true,
    );
    table.row(
        format!(
            "the same while {held} live certificates of a tainted authority are renewed over {within} s by {} agents",
            tainted.clients
        ),
        format!(
            "p50 {p50:.2} ms, p99 {p99:.2} ms, {:.2} ×; {} of those renewed in {} s, {failed} failed",
            p99 / p99_alone,
            thousands(done as f64),
            (2 * time).as_secs()
        ),
        "p99 ≤ 2 ×",
        p99 <= 2.0 * p99_alone && failed == 0,
    );
    Ok(())
}

/// One for the others, and one for each workload of an agent's host.
fn rules() -> String {
    let rule = |number| {
        format!(
            "- {{ name: a{number}, match: {{ k8s.namespace: agents }}, spiffe_id: 'spiffe://example.org/agents/{{k8s.service_account}}/w{number}', ttl: 1h }}\n"
        )
    };
    RULES.to_owned() + &(0..EACH).map(rule).collect::<String>()
}

/// One host's.
struct Agent {
    name: String,
    client: IdentityServiceClient<Channel>,
    told: Streaming<WatchResponse>,
}

#[derive(Debug, Default)]
struct Did {
    renewed: AtomicUsize,
    failed: AtomicUsize,
}

/// Asks for all that an agent holds.
#[derive(Clone)]
struct Asking;

impl AsyncWork<(IdentityServiceClient<Channel>, IssueRequest)> for Asking {
    async fn run(
        &mut self,
        (mut client, request): (IdentityServiceClient<Channel>, IssueRequest),
    ) -> anyhow::Result<()> {
        issue(&mut client, request).await
    }
}

async fn issue(client: &mut IdentityServiceClient<Channel>, request: IssueRequest) -> anyhow::Result<()> {
    let results = client.issue(request).await?.into_inner().results;
    let refused =
        results.into_iter().find(|result| !matches!(result.result, Some(issue_result::Result::Certificate(_))));
    anyhow::ensure!(refused.is_none(), "not issued: {refused:?}");
    Ok(())
}

/// With their identities, what they hold beside, and their streams.
async fn agents(place: &Place, count: usize) -> anyhow::Result<Vec<Agent>> {
    let mut agents = Vec::with_capacity(count);
    let mut stranger = place.stranger().await?;
    for number in 0..count {
        // A connection of a stranger lives for a minute.
        if number % 500 == 499 {
            stranger = place.stranger().await?;
        }
        let name = format!("n{number}");
        let (key, csr) = new_request()?;
        let spiffe_id = workload(&name, 0);
        let request = AttestRequest { spiffe_id, ..attestation(place.tokens.token("agents", &name)?, csr, None) };
        let svid = stranger.attest(request).await?.into_inner().svid.context("an answer without an SVID")?;
        let mut client = place.client_of(&Held::of(svid, &key)).await?;
        let says = tokio_stream::StreamExt::chain(
            tokio_stream::iter([WatchRequest::default()]),
            tokio_stream::pending::<WatchRequest>(),
        );
        let told = client.watch(says).await?.into_inner();
        agents.push(Agent { name, client, told });
    }
    let mut keys = requests(count * (EACH - 1))?.into_iter();
    let batch = |agent: &Agent| {
        let request = |number: usize| {
            Some(CertificateRequest {
                csr: keys.next()?,
                spiffe_id: workload(&agent.name, number),
                ..Default::default()
            })
        };
        (agent.client.clone(), IssueRequest { requests: (1..EACH).map_while(request).collect() })
    };
    let work: Vec<_> = agents.iter().map(batch).collect();
    closed(vec![Asking; 8], work, PATIENCE).await.all_done("batches")?;
    Ok(agents)
}

fn workload(agent: &str, number: usize) -> String {
    format!("spiffe://example.org/agents/{agent}/w{number}")
}

impl Agent {
    /// Renews each of its certificates once it is asked to, as long as there are requests.
    async fn renew_when_asked(mut self, pool: Arc<Mutex<Vec<Vec<u8>>>>, did: Arc<Did>) -> anyhow::Result<()> {
        let within = loop {
            let message = self.told.message().await?.context("the stream has ended")?;
            if let Some(Event::RenewNow(wish)) = message.event {
                break Duration::try_from(wish.within.unwrap_or_default()).unwrap_or_default();
            }
        };
        let told = Instant::now();
        let mut moments =
            (0..EACH).map(|number| Ok((within.mul_f64(drawn()?), number))).collect::<anyhow::Result<Vec<_>>>()?;
        moments.sort_unstable();
        for (after, number) in moments {
            tokio::time::sleep_until(told + after).await;
            let Some(csr) = pool.lock().unwrap_or_else(PoisonError::into_inner).pop() else { break };
            let request = CertificateRequest { csr, spiffe_id: workload(&self.name, number), ..Default::default() };
            let counted = match issue(&mut self.client, IssueRequest { requests: vec![request] }).await {
                Ok(()) => &did.renewed,
                Err(_) => &did.failed,
            };
            counted.fetch_add(1, Ordering::Relaxed);
        }
        Ok(())
    }
}

/// Between 0 and 1.
fn drawn() -> anyhow::Result<f64> {
    let mut bytes = [0; 4];
    aws_lc_rs::rand::fill(&mut bytes)?;
    Ok(f64::from(u32::from_be_bytes(bytes)) / f64::from(u32::MAX))
}

/// Another authority signs from now on. Tells the key of the one before.
async fn replace_authority(place: &Place) -> anyhow::Result<String> {
    let mut admin = place.admin().await?;
    let request =
        admin.request_authorities(RequestAuthoritiesRequest { count: 1, ..Default::default() }).await?.into_inner();
    let certificates_pem = place.sign("root", &request.requests_pem)?;
    admin.import_authorities(ImportAuthoritiesRequest { certificates_pem }).await?;
    let before = admin.get_status(GetStatusRequest {}).await?.into_inner().authority.context("no authority")?.key_id;
    let what = What::Authority(AuthorityRotation::default());
    admin.rotate(RotateRequest { what: Some(what), ..RotateRequest::default() }).await?;
    until("another authority signs", PATIENCE, async || {
        Ok(admin.get_rotation(GetRotationRequest {}).await?.into_inner().rotation.is_none())
    })
    .await?;
    let all = admin.list_authorities(ListAuthoritiesRequest {}).await?.into_inner().authorities;
    let retired = all.into_iter().find(|one| one.key_id == before && one.stage == "retired");
    Ok(retired.context("no authority is retired")?.key)
}
