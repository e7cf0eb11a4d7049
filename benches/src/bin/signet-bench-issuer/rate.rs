//! Certificates a second: authorization, policy, signature and the durable record included.

use std::path::Path;
use std::time::Duration;

use signet_benches::issuer::renewals::{RULES, Renewers, many_rules};
use signet_benches::issuer::table::{Table, median, percentile, thousands};

use crate::bao::{Bao, Stored};

pub(crate) async fn measure(
    table: &mut Table,
    time: Duration,
    rounds: usize,
    bao: Option<&Path>,
) -> anyhow::Result<()> {
    let rules = many_rules();
    let server = signet_test_postgres::Server::start(true);
    let sqlite = Renewers::start("", &rules).await?;
    let postgres = format!("database: {{ url: \"{}\" }}\n", server.database());
    let postgres = Renewers::start(&postgres, &rules).await?;
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
    let sqlite = Renewers::start("", RULES).await?;
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
