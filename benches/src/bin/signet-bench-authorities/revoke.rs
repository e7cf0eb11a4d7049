//! Many serial numbers revoked by one command: how soon every gateway refuses them, and how soon they stand in the CRL.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use rustls::ClientConfig;
use signet_benches::issuer::caller::{Held, new_request, requests, serial_of};
use signet_benches::issuer::place::Place;
use signet_benches::issuer::renewals::{BATCH, RULES, UNLIMITED};
use signet_benches::issuer::table::{Table, thousands};
use signet_benches::issuer::web;
use signet_benches::issuer::work::{AsyncWork, closed};
use signet_proto::admin::v1::admin_service_client::AdminServiceClient;
use signet_proto::admin::v1::revoke_request::Target;
use signet_proto::admin::v1::{
    GetRevocationProgressRequest, GetStatusRequest, RevocationReason, RevokeRequest, RevokeResponse, Serials,
};
use signet_proto::identity::v1::identity_service_client::IdentityServiceClient;
use signet_proto::identity::v1::{CertificateRequest, IssueRequest, issue_result};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tonic::transport::Channel;

use crate::gateways::{self, Gateway, believing, served};
use crate::progress::{say, until};

/// In one call, as `signet revoke serial --file` does it.
const PER_CALL: usize = 16_384;
/// Of the revoked, tried at each gateway.
const TRIED: usize = 5;
const CONNECTIONS: usize = 8;
const PATIENCE: Duration = Duration::from_secs(60);
/// Handshakes at once, by those who try.
const AT_ONCE: usize = 16;

pub(crate) async fn measure(table: &mut Table, count: usize, gateways: usize) -> anyhow::Result<()> {
    let place = Place::start(UNLIMITED)?;
    place.apply(RULES).await?;
    let service = gateways::service().await?;
    let names: Vec<_> = (0..gateways).map(|number| format!("g{number}")).collect();
    let gateways = gateways::start(&place, service, &names).await?;
    for gateway in &gateways {
        gateway.wait_until_ready().await?;
    }
    say(format_args!("{} gateways are ready", gateways.len()));
    let (mut serials, tried) = issued(&place, count, gateways.len() * TRIED).await?;
    say(format_args!("{} certificates are issued", thousands(serials.len() as f64)));
    let believing = believing(&place)?;
    let good = place.attest(&mut place.stranger().await?, "bench", "good").await?.shown_by(&believing)?;
    let tried = tried.iter().map(|held| held.shown_by(&believing)).collect::<anyhow::Result<Vec<_>>>()?;
    anyhow::ensure!(serves(&gateways, &tried, 1).await? == gateways.len(), "somebody is refused before it is revoked");

    let mut admin = place.admin().await?;
    let began = Instant::now();
    let mut epoch = 0;
    for part in serials.chunks(PER_CALL) {
        epoch = revoke(&mut admin, part).await?.epoch;
    }
    let recorded = began.elapsed();
    until("all gateways have put it in force", PATIENCE, async || {
        let progress = admin.get_revocation_progress(GetRevocationProgressRequest { epoch }).await?.into_inner();
        Ok(progress.applied as usize >= gateways.len())
    })
    .await?;
    let in_force = began.elapsed();
    let accepted = serves(&gateways, &tried, TRIED).await?;
    let refused = began.elapsed();
    anyhow::ensure!(accepted == 0, "{accepted} of the revoked are accepted");
    // They refused these for that reason, and nobody else.
    let (mut for_it, mut others) = (0.0, 0);
    for gateway in &gateways {
        for_it += gateway.metric("signet_gateway_handshakes_total", "result=\"revoked\"").await?;
        others += usize::from(served(Arc::clone(&good), gateway.address).await.is_err());
    }
    anyhow::ensure!(for_it as usize == tried.len() && others == 0, "{for_it} refused as revoked, {others} others too");

    let (recorded, in_force, refused) = (recorded.as_secs_f64(), in_force.as_secs_f64(), refused.as_secs_f64());
    let revoked = thousands(serials.len() as f64);
    table.row(
        format!("{revoked} serial numbers are revoked, until each of {} gateway processes has refused {TRIED} of them, the last among them", gateways.len()),
        format!("{refused:.1} s; on record after {recorded:.1} s, in force at all after {in_force:.1} s"),
        "≤ 10 s",
        refused <= 10.0,
    );
    drop(gateways);

    // One more, so that there is a list to be signed of which the beginning is known.
    let (one, _) = issued(&place, 1, 1).await?;
    serials.extend_from_slice(&one);
    let took = listed(&place, &mut admin, &one, serials.len()).await?.as_secs_f64();
    table.row(
        format!("a CRL with {revoked} entries, from the command that adds one to the list at the web address"),
        format!("{took:.2} s, of which up to 0.05 s it is gathered"),
        "signed in ≤ 1 s",
        took <= 1.0,
    );
    Ok(())
}

pub(crate) async fn revoke(
    admin: &mut AdminServiceClient<Channel>,
    serials: &[Vec<u8>],
) -> anyhow::Result<RevokeResponse> {
    let request = RevokeRequest {
        target: Some(Target::Serials(Serials { serials: serials.to_vec() })),
        reason: RevocationReason::Superseded.into(),
        ..RevokeRequest::default()
    };
    Ok(admin.revoke(request).await?.into_inner())
}

/// How many connections are served of those that the holders try, so many at each gateway, each once: the last of all holders at all gateways.
async fn serves(gateways: &[Gateway], tried: &[Arc<ClientConfig>], each: usize) -> anyhow::Result<usize> {
    let turns = Arc::new(Semaphore::new(AT_ONCE));
    let mut trying = JoinSet::new();
    let last = tried.last().context("nobody to try")?;
    for (gateway, own) in gateways.iter().zip(tried.chunks(TRIED)) {
        for config in own.iter().take(each - 1).chain([last]) {
            let (config, address) = (Arc::clone(config), gateway.address);
            let turn = Arc::clone(&turns).acquire_owned().await?;
            trying.spawn(async move {
                let is_served = served(config, address).await.is_ok();
                drop(turn);
                is_served
            });
        }
    }
    Ok(trying.join_all().await.into_iter().filter(|is_served| *is_served).count())
}

/// The serial numbers of so many certificates, and the holders of some of them, which are spread over all; the last is one of them.
async fn issued(place: &Place, count: usize, held: usize) -> anyhow::Result<(Vec<Vec<u8>>, Vec<Held>)> {
    let mut clients = Vec::with_capacity(CONNECTIONS);
    let mut stranger = place.stranger().await?;
    for number in 0..CONNECTIONS {
        let holder = place.attest(&mut stranger, "bench", &format!("w{number}")).await?;
        clients.push(place.client_of(&holder).await?);
    }
    let mut holders = Vec::with_capacity(held);
    for number in 0..held {
        let (key, csr) = new_request()?;
        let request = IssueRequest { requests: vec![CertificateRequest { csr, ..Default::default() }] };
        let client = &mut clients[number % CONNECTIONS];
        let issued = client.issue(request).await?.into_inner().results.pop().and_then(|result| result.result);
        let Some(issue_result::Result::Certificate(svid)) = issued else { anyhow::bail!("not issued: {issued:?}") };
        holders.push(Held::of(svid, &key));
    }
    let collected = Arc::default();
    let work: Vec<_> = requests(count.saturating_sub(held))?.chunks(BATCH).map(<[_]>::to_vec).collect();
    let workers = clients.into_iter().map(|client| Collecting { client, serials: Arc::clone(&collected) }).collect();
    closed(workers, work, PATIENCE).await.all_done("batches")?;
    let collected = std::mem::take(&mut *collected.lock().unwrap_or_else(PoisonError::into_inner));
    let mut serials = Vec::with_capacity(count);
    let mut rest = collected.into_iter();
    for holder in &holders {
        serials.extend(rest.by_ref().take(count / held.max(1) - 1));
        serials.push(holder.serial()?);
    }
    let last = serials.pop();
    serials.extend(rest);
    serials.extend(last);
    anyhow::ensure!(serials.len() == count, "{} certificates instead of {count}", serials.len());
    Ok((serials, holders))
}

#[derive(Clone)]
struct Collecting {
    client: IdentityServiceClient<Channel>,
    serials: Arc<Mutex<Vec<Vec<u8>>>>,
}

impl AsyncWork<Vec<Vec<u8>>> for Collecting {
    async fn run(&mut self, batch: Vec<Vec<u8>>) -> anyhow::Result<()> {
        let requests = batch.into_iter().map(|csr| CertificateRequest { csr, ..Default::default() }).collect();
        let results = self.client.issue(IssueRequest { requests }).await?.into_inner().results;
        let mut serials = Vec::with_capacity(results.len());
        for result in results {
            let Some(issue_result::Result::Certificate(svid)) = result.result else {
                anyhow::bail!("not issued: {:?}", result.result)
            };
            serials.push(serial_of(svid.chain.first().context("a chain without a certificate")?)?);
        }
        self.serials.lock().unwrap_or_else(PoisonError::into_inner).extend(serials);
        Ok(())
    }
}

/// From one more revocation to the list with so many at the web address.
async fn listed(
    place: &Place,
    admin: &mut AdminServiceClient<Channel>,
    one: &[Vec<u8>],
    count: usize,
) -> anyhow::Result<Duration> {
    let status = admin.get_status(GetStatusRequest {}).await?.into_inner();
    let path = format!("/crl/{}/0.crl", status.authority.context("no authority")?.key_id);
    let entries = |der: &[u8]| -> anyhow::Result<usize> {
        let (_, list) = x509_parser::parse_x509_crl(der)?;
        Ok(list.iter_revoked_certificates().count())
    };
    let mut before = web::Document::default();
    until("the CRL has them", PATIENCE, async || {
        let Some(list) = web::get(place.web, &path, &before.etag).await? else { return Ok(false) };
        before = list;
        Ok(entries(&before.body)? == count - 1)
    })
    .await?;
    // So that none is being signed now.
    tokio::time::sleep(Duration::from_secs(3)).await;
    let began = Instant::now();
    revoke(admin, one).await?;
    let mut list = None;
    until("the CRL has one more", PATIENCE, async || {
        list = web::get(place.web, &path, &before.etag).await?;
        Ok(list.is_some())
    })
    .await?;
    let took = began.elapsed();
    let list = list.context("no list")?;
    anyhow::ensure!(entries(&list.body)? == count, "another list than expected");
    say(format_args!("the list has {} bytes", thousands(list.body.len() as f64)));
    Ok(took)
}
