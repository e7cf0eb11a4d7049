//! A million revoked serial numbers in a gateway: its memory, how soon it serves, and how long it takes to look for one.

use std::path::Path;
use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};
use signet_benches::issuer::place::Place;
use signet_benches::issuer::table::{Table, thousands};
use signet_benches::revoked::{AUTHORITY, Domain, serials};
use signet_identity::RevocationSet;
use sqlx::{Connection as _, Executor as _};

use crate::gateways::{self, Gateway};
use crate::progress::say;

const MEGABYTE: f64 = 1_000_000.0;
/// What was freed on the way is given back after a while, when there is something to do.
const SETTLING: Duration = Duration::from_secs(12);

pub(crate) async fn measure(table: &mut Table, held: u64) -> anyhow::Result<()> {
    let mut place = Place::start("")?;
    let service = gateways::service().await?;
    let none = settled(&start(&place, service, "none").await?).await?;
    place.restart(async |folder| on_record(folder, held).await).await?;
    say(format_args!("{} revocations are on record", thousands(held as f64)));
    let began = Instant::now();
    let gateway = start(&place, service, "many").await?;
    let ready = began.elapsed().as_secs_f64();
    let known = gateway.metric("signet_revocation_epoch", "example.org").await?;
    anyhow::ensure!(known as u64 == held, "the gateway knows {known} of {held}");
    let with = settled(&gateway).await?;
    drop(gateway);

    let count = thousands(held as f64);
    let more = (with - none) / MEGABYTE;
    table.row(
        format!("further memory of a gateway process that holds {count} revoked serial numbers"),
        format!("{more:.1} MB, {:.1} MB without; it serves {ready:.1} s after its start", none / MEGABYTE),
        "≤ 64 MB",
        more <= 64.0,
    );
    looked_for(table, held)
}

async fn start(place: &Place, service: std::net::SocketAddr, name: &str) -> anyhow::Result<Gateway> {
    let mut started = gateways::start(place, service, &[name.to_owned()]).await?;
    let gateway = started.pop().ok_or_else(|| anyhow::anyhow!("no gateway"))?;
    gateway.wait_until_ready().await?;
    Ok(gateway)
}

async fn settled(gateway: &Gateway) -> anyhow::Result<f64> {
    let peak = gateway.memory()?;
    let began = Instant::now();
    while began.elapsed() < SETTLING {
        gateway.is_ready().await?;
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    let settled = gateway.memory()?;
    say(format_args!("{:.1} MB when it was ready, {:.1} MB later", peak / MEGABYTE, settled / MEGABYTE));
    Ok(settled)
}

/// As if an operator had revoked them, at an issuer that is not running: issuing a million first takes minutes.
async fn on_record(folder: &Path, count: u64) -> anyhow::Result<()> {
    let url = format!("sqlite://{}", folder.join("state/issuer.db").display());
    let mut database = sqlx::SqliteConnection::connect(&url).await?;
    let authority: String = AUTHORITY.iter().map(|byte| format!("{byte:02x}")).collect();
    let sql = format!(
        "BEGIN;
         INSERT INTO revocations (number, revoked_at, reason, actor, comment, kind, target)
             VALUES (1, unixepoch() * 1000000, 4, 'uid:0', '', 'serial', '');
         WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n WHERE x < {count})
             INSERT INTO revoked (epoch, revocation, kind, authority_key_id, value, not_after)
             SELECT x, 1, 0, x'{authority}', unhex('41' || hex(randomblob(15))), unixepoch() + 86400 FROM n;
         UPDATE revocation_epoch SET epoch = {count};
         COMMIT;"
    );
    database.execute(sqlx::AssertSqlSafe(sql)).await?;
    Ok(database.close().await?)
}

/// By what a gateway has of the library, in this process.
fn looked_for(table: &mut Table, held: u64) -> anyhow::Result<()> {
    let domain = Domain::new()?;
    let set = domain.add(&RevocationSet::default(), 0, held)?;
    let known = set.get(&domain.name).ok_or_else(|| anyhow::anyhow!("no revocations"))?;
    let mut nanoseconds = [0.0; 2];
    for ((from, is_revoked), took) in [(0, true), (held, false)].into_iter().zip(&mut nanoseconds) {
        let serials = serials(from, held);
        // Of the processor, so that a busy machine counts for less.
        let began = processor_time()?;
        let found = serials.iter().filter(|serial| known.has_serial(AUTHORITY, serial)).count();
        *took = (processor_time()? - began).as_nanos() as f64 / serials.len() as f64;
        anyhow::ensure!(found == if is_revoked { serials.len() } else { 0 }, "{found} of {} are found", serials.len());
    }
    let [revoked, others] = nanoseconds;
    table.row(
        format!("one is looked for among {} revoked", thousands(held as f64)),
        format!("{revoked:.0} ns where it is there, {others:.0} ns where it is not"),
        "≤ 200 ns",
        revoked.max(others) <= 200.0,
    );
    Ok(())
}

fn processor_time() -> anyhow::Result<Duration> {
    Ok(Duration::try_from(clock_gettime(ClockId::ThreadCPUTime))?)
}
