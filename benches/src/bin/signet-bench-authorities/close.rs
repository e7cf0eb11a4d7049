//! How soon live connections end whose callers are revoked, with clients all of whom are told of it.

use std::time::{Duration, Instant};

use signet_benches::issuer::place::Place;
use signet_benches::issuer::renewals::UNLIMITED;
use signet_benches::issuer::table::{Table, median, percentile};
use signet_proto::admin::v1::GetRevocationProgressRequest;
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

use crate::fleet::{self, Client};
use crate::gateways::{self, ask, served};
use crate::progress::{say, until};
use crate::revoke::revoke;

/// Revoked one by one: a tenth of all at most, and then a half of the rest at once.
const ONE_BY_ONE: usize = 10;
const PATIENCE: Duration = Duration::from_secs(30);
/// For those one by one.
const LONGEST: Duration = Duration::from_secs(45);
const SECOND: f64 = 1000.0;

/// A client with a live connection to the gateway.
struct Caller {
    client: Client,
    stream: TlsStream<TcpStream>,
}

pub(crate) async fn measure(table: &mut Table, clients: usize) -> anyhow::Result<()> {
    let place = Place::start(UNLIMITED)?;
    let service = gateways::service().await?;
    let gateways = gateways::start(&place, service, &["g".to_owned()]).await?;
    let [gateway] = &gateways[..] else { anyhow::bail!("no gateway") };
    gateway.wait_until_ready().await?;
    let mut callers = Vec::with_capacity(clients);
    for client in fleet::join(&place, clients).await? {
        let stream = served(client.config(), gateway.address).await?;
        callers.push(Caller { client, stream });
    }
    say(format_args!("{} clients are connected to the issuer and to the gateway", callers.len()));

    let mut admin = place.admin().await?;
    let (mut took, since) = (Vec::with_capacity(clients / ONE_BY_ONE), Instant::now());
    for _ in 0..clients / ONE_BY_ONE {
        let Some(Caller { client, stream }) = callers.pop() else { break };
        let (serial, config) = (client.serial()?, client.config());
        let ending = tokio::spawn(end_of(stream));
        let began = Instant::now();
        let epoch = revoke(&mut admin, &[serial]).await?.epoch;
        took.push((ending.await?? - began).as_secs_f64() * 1000.0);
        anyhow::ensure!(served(config, gateway.address).await.is_err(), "a new connection of who is revoked is served");
        drop(client);
        // The next one begins when nobody is busy with this one: here all clients are on the gateway's cores.
        until("all have put it in force", PATIENCE, async || {
            let progress = admin.get_revocation_progress(GetRevocationProgressRequest { epoch }).await?.into_inner();
            Ok(progress.applied >= progress.following)
        })
        .await?;
        if since.elapsed() > LONGEST {
            break;
        }
    }
    let (p50, p99) = (median(&mut took), percentile(&mut took, 0.99));
    table.row(
        format!("a live connection of one who is revoked ends, {clients} clients connected, each with one"),
        format!("p50 {p50:.0} ms, p99 {p99:.0} ms of {}", took.len()),
        "p99 ≤ 1 s",
        p99 <= SECOND,
    );

    let leaving: Vec<_> = callers.drain(callers.len() / 2..).collect();
    let serials = leaving.iter().map(|caller| caller.client.serial()).collect::<anyhow::Result<Vec<_>>>()?;
    let (ending, leavers): (Vec<_>, Vec<_>) =
        leaving.into_iter().map(|Caller { client, stream }| (tokio::spawn(end_of(stream)), client)).unzip();
    let began = Instant::now();
    revoke(&mut admin, &serials).await?;
    let mut took = Vec::with_capacity(ending.len());
    for end in ending {
        took.push((end.await?? - began).as_secs_f64() * 1000.0);
    }
    drop(leavers);
    let (p50, p99) = (median(&mut took), percentile(&mut took, 0.99));
    table.row(
        format!("the same of {} who are revoked at once", took.len()),
        format!("p50 {p50:.0} ms, p99 {p99:.0} ms"),
        "p99 ≤ 1 s",
        p99 <= SECOND,
    );

    let (mut closed, others) = (0, callers.len());
    for caller in &mut callers {
        closed += usize::from(ask(&mut caller.stream).await.is_err());
    }
    let revoked = gateway.metric("signet_gateway_connections_closed_total", "reason=\"revoked\"").await?;
    anyhow::ensure!(revoked as usize == clients - others, "the gateway says that it closed {revoked}");
    table.row("connections of the others that ended meanwhile", format!("{closed} of {others}"), "none", closed == 0);
    Ok(())
}

/// When the other side ends it.
async fn end_of(mut stream: TlsStream<TcpStream>) -> anyhow::Result<Instant> {
    // An end, or an error that is one.
    let ended = tokio::time::timeout(PATIENCE, stream.read(&mut [0])).await?;
    anyhow::ensure!(!ended.is_ok_and(|read| read > 0), "something was said that nobody asked for");
    Ok(Instant::now())
}
