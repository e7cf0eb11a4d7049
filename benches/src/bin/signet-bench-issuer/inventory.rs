//! How long a page of what was issued takes where very much was, whatever is asked for; and what a certificate takes of the database.

use std::path::Path;
use std::time::Instant;

use signet_benches::issuer::place::Place;
use signet_benches::issuer::table::{Table, median, percentile, thousands};
use signet_proto::admin::v1::admin_service_client::AdminServiceClient;
use signet_proto::admin::v1::{GetSvidRequest, ListSvidsRequest, SvidOrder, SvidSelection};
use sqlx::{Connection as _, Executor as _};
use tonic::transport::Channel;

/// Of each list, at most.
const PAGES: usize = 40;
/// Workloads that were given them, one after the other.
const WORKLOADS: u64 = 100_000;
const BAR: f64 = 100.0;
const KIBIBYTE: f64 = 1024.0;

pub(crate) async fn measure(table: &mut Table, records: u64) -> anyhow::Result<()> {
    let mut place = Place::start("")?;
    let mut size = 0.0;
    place
        .restart(async |folder| {
            size = fill(folder, records).await?;
            Ok(())
        })
        .await?;
    let mut admin = place.admin().await?;
    let count = thousands(records as f64);
    table.row(
        format!("the SQLite database, for each of {count} certificates on record, indexes included"),
        format!("{size:.0} bytes"),
        "≤ 1 KiB",
        size <= KIBIBYTE,
    );
    for (name, request) in lists() {
        let mut times = Vec::new();
        let mut found = 0;
        let mut request = ListSvidsRequest { limit: 100, ..request };
        loop {
            let began = Instant::now();
            let page = admin.list_svids(request.clone()).await?.into_inner();
            times.push(began.elapsed().as_secs_f64() * 1e3);
            found += page.svids.len();
            request.page_token = page.next_page_token;
            if request.page_token.is_empty() || times.len() >= PAGES {
                break;
            }
        }
        let (pages, p50, most) = (times.len(), median(&mut times), percentile(&mut times, 1.0));
        let rest = if request.page_token.is_empty() { "all of it" } else { "and there is more" };
        table.row(
            format!("a page of {name}, of {count} certificates"),
            format!("p50 {p50:.1} ms, at most {most:.1} ms; {found} in {pages} pages, {rest}"),
            "≤ 100 ms",
            most <= BAR,
        );
    }
    let took = described(&mut admin).await?;
    table.row(format!("one of {count} certificates, all about it"), format!("{took:.1} ms"), "≤ 100 ms", took <= BAR);
    Ok(())
}

fn lists() -> Vec<(&'static str, ListSvidsRequest)> {
    let list = ListSvidsRequest::default;
    let ids = |pattern: &str| ListSvidsRequest { spiffe_id: pattern.to_owned(), ..list() };
    let all = |request| ListSvidsRequest { selection: SvidSelection::All.into(), ..request };
    vec![
        ("those that are valid", list()),
        ("all, the latest first", {
            let order = SvidOrder::Issued.into();
            all(ListSvidsRequest { order, descending: true, ..list() })
        }),
        ("all, by SPIFFE ID", all(ListSvidsRequest { order: SvidOrder::SpiffeId.into(), ..list() })),
        ("those that expire within an hour", {
            let within = prost_types::Duration { seconds: 3600, nanos: 0 };
            ListSvidsRequest { expiring_within: Some(within), ..list() }
        }),
        ("`spiffe://example.org/ns/n7/**`", ids("spiffe://example.org/ns/n7/**")),
        ("all of one SPIFFE ID", all(ids("spiffe://example.org/ns/n7/sa/w7"))),
        ("`*/w7`, of all", all(ids("*/w7"))),
        ("all of one agent", all(ListSvidsRequest { agent: 8, ..list() })),
        ("a rule that gave few, of all", all(ListSvidsRequest { rule: "rare".to_owned(), ..list() })),
        ("a rule that gave none, by SPIFFE ID", {
            let order = SvidOrder::SpiffeId.into();
            all(ListSvidsRequest { rule: "none".to_owned(), order, ..list() })
        }),
        ("another authority's", ListSvidsRequest { authority: "41".repeat(20), ..list() }),
        ("those that are revoked", ListSvidsRequest { selection: SvidSelection::Revoked.into(), ..list() }),
        ("those that are revoked, by their ends", {
            let (selection, order) = (SvidSelection::Revoked.into(), SvidOrder::Expiry.into());
            ListSvidsRequest { selection, order, ..list() }
        }),
    ]
}

async fn described(admin: &mut AdminServiceClient<Channel>) -> anyhow::Result<f64> {
    let page = admin.list_svids(ListSvidsRequest { limit: 1, ..ListSvidsRequest::default() }).await?.into_inner();
    let one = page.svids.first().ok_or_else(|| anyhow::anyhow!("there is none"))?;
    let digits = one.serial.as_bytes().chunks(2).map(|two| Ok(u8::from_str_radix(std::str::from_utf8(two)?, 16)?));
    let serial = digits.collect::<anyhow::Result<Vec<u8>>>()?;
    let began = Instant::now();
    admin.get_svid(GetSvidRequest { serial }).await?;
    Ok(began.elapsed().as_secs_f64() * 1e3)
}

/// As if they had been issued by a renewal each in the last ninety days, nine of ten of them over: issuing a million first takes minutes.
/// Returns what the database has grown by for each, in bytes.
async fn fill(folder: &Path, records: u64) -> anyhow::Result<f64> {
    let file = folder.join("state/issuer.db");
    let mut database = sqlx::SqliteConnection::connect(&format!("sqlite://{}", file.display())).await?;
    let agents = format!(
        "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n WHERE x < {WORKLOADS})
             INSERT INTO attestations (number, spiffe_id, method, attributes, proof, attested_at)
             SELECT x, 'spiffe://example.org/ns/n' || (x % 1000) || '/sa/w' || x, 'k8s_sa_token', '[]', x'00', 0 FROM n
             WHERE x > (SELECT coalesce(max(number), 0) FROM attestations);
         PRAGMA wal_checkpoint(TRUNCATE);"
    );
    database.execute(sqlx::AssertSqlSafe(agents)).await?;
    let before = std::fs::metadata(&file)?.len();
    // In the order of their times, as serial numbers are; keys are at random.
    let sql = format!(
        "PRAGMA cache_size = -400000;
         BEGIN;
         WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n WHERE x < {records}),
             times(x, begins) AS (SELECT x, unixepoch() - 7776000 + 7776000 * x / {records} FROM n)
             INSERT INTO issued (serial, spiffe_id, key_sha256, not_before, not_after, issued_at, attestation, evidence,
                 authority_key_id, certificate_sha256, attestation_number, profile, rule, log, log_index)
             SELECT unhex(printf('41%014x', x) || hex(randomblob(8))),
                 'spiffe://example.org/ns/n' || (x % 1000) || '/sa/w' || (x % {WORKLOADS}), randomblob(32), begins, begins + 777600,
                 begins * 1000000, 'x509_svid', randomblob(16), x'3f1c0d5ab2e4987610fedcba9876543210fedcba', randomblob(32),
                 1 + x % {WORKLOADS}, 'workload', CASE WHEN x % 100000 = 7 THEN 'rare' ELSE 'pods' END, 1, x FROM times;
         COMMIT;
         PRAGMA wal_checkpoint(TRUNCATE);"
    );
    database.execute(sqlx::AssertSqlSafe(sql)).await?;
    let after = std::fs::metadata(&file)?.len();
    let revoked = "BEGIN;
         INSERT INTO revocations (number, revoked_at, reason, actor, comment, kind, target)
             VALUES (1, unixepoch() * 1000000, 4, 'uid:0', '', 'serial', '');
         INSERT INTO revoked (epoch, revocation, kind, authority_key_id, value, not_after)
             SELECT row_number() OVER (ORDER BY position), 1, 0, authority_key_id, serial, not_after FROM issued
             WHERE position % 1000 = 0;
         UPDATE revocation_epoch SET epoch = (SELECT max(epoch) FROM revoked);
         COMMIT;";
    database.execute(revoked).await?;
    database.close().await?;
    Ok((after - before) as f64 / records as f64)
}
