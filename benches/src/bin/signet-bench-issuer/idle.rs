//! What a stream costs that has nothing to say: memory of the issuer, and what it asks of the database.

use std::time::Duration;

use crate::push::watchers;
use signet_benches::issuer::place::Place;
use signet_benches::issuer::renewals::RULES;
use signet_benches::issuer::table::Table;

const STREAMS: usize = 5_000;
const QUIET: Duration = Duration::from_secs(20);

pub(crate) async fn measure(table: &mut Table) -> anyhow::Result<()> {
    let server = signet_test_postgres::Server::start(false);
    let url = server.database();
    let limits = "limits: { watchers: 20000, attestations_per_minute: 60000000 }\n";
    let place = Place::start(&format!("database: {{ url: \"{url}\" }}\n{limits}"))?;
    place.apply(RULES).await?;
    let transactions = || -> anyhow::Result<f64> {
        let rows = server.query(
            &url,
            "SELECT pg_stat_clear_snapshot(); SELECT xact_commit FROM pg_stat_database WHERE datname = current_database()",
        );
        Ok(rows.last().map_or("", String::as_str).parse()?)
    };
    // What it does anyway: the first thousand show it what such connections are.
    drop(watchers(&place, 1_000).await?);
    tokio::time::sleep(Duration::from_secs(12)).await;
    let (before, alone) = (place.memory()?, transactions()?);
    tokio::time::sleep(QUIET).await;
    let alone = transactions()? - alone;

    let watching = watchers(&place, STREAMS).await?;
    tokio::time::sleep(Duration::from_secs(12)).await;
    let with = transactions()?;
    tokio::time::sleep(QUIET).await;
    let with = transactions()? - with;
    let each = (place.memory()? - before) / STREAMS as f64 / 1024.0;
    let quiet = QUIET.as_secs();
    table.row(
        format!("memory of an idle stream, {STREAMS} of them, each with its connection"),
        format!("{each:.1} KiB"),
        "≤ 50 KB",
        each * 1.024 <= 50.0,
    );
    let told = format!("{with:.0} transactions in {quiet} s with {STREAMS} idle streams, {alone:.0} without");
    // The two looks at the statistics are among them, and what a background task does in one of the two times and not in the other.
    table.row("what idle streams ask of the database", told, "nothing", with <= alone + 6.0);
    drop(watching);
    Ok(())
}
