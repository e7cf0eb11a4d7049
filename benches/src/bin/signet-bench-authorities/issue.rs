//! That issuing keeps its bars.

use std::time::Duration;

use signet_benches::issuer::renewals::{Renewers, many_rules};
use signet_benches::issuer::table::{Table, median, thousands};

const ROUNDS: u32 = 3;

pub(crate) async fn measure(table: &mut Table, time: Duration) -> anyhow::Result<()> {
    let time = (time / ROUNDS).max(Duration::from_secs(1));
    let callers = Renewers::start("", &many_rules()).await?;
    let (mut batches, mut singles) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        batches.push(callers.batches(time).await?);
        singles.push(callers.singles(time).await?.rate());
    }
    let (batch, single) = (median(&mut batches), median(&mut singles));
    let rate = |rate: f64| format!("{}/s", thousands(rate));
    table.row("SVIDs, batches of 100, SQLite", rate(batch), "≥ 10,000/s", batch >= 10_000.0);
    table.row("SVIDs, one a request, SQLite", rate(single), "≥ 5,000/s", single >= 5_000.0);
    Ok(())
}
