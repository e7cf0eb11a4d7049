//! The whole rotation of a root, while clients are connected: from the command to the withdrawal of the root before.

use std::time::{Duration, Instant};

use anyhow::Context as _;
use signet_benches::issuer::place::Place;
use signet_benches::issuer::renewals::UNLIMITED;
use signet_benches::issuer::table::Table;
use signet_proto::admin::v1::rotate_request::What;
use signet_proto::admin::v1::{
    GetRotationRequest, ImportAuthoritiesRequest, RequestAuthoritiesRequest, RootRotation, RotateRequest,
};

use crate::fleet;
use crate::progress::{say, until};

const PATIENCE: Duration = Duration::from_secs(100);

pub(crate) async fn measure(table: &mut Table, clients: usize) -> anyhow::Result<()> {
    let place = Place::start(UNLIMITED)?;
    let fleet = fleet::join(&place, clients).await?;
    say(format_args!("{} clients are connected", fleet.len()));
    let next = place.new_root("next")?;
    let mut admin = place.admin().await?;

    let began = Instant::now();
    let what = What::Root(RootRotation { root_pem: next.to_pem() });
    admin.rotate(RotateRequest { what: Some(what), ..RotateRequest::default() }).await?;
    let request =
        admin.request_authorities(RequestAuthoritiesRequest { count: 1, ..Default::default() }).await?.into_inner();
    let certificates_pem = place.sign("next", &request.requests_pem)?;
    admin.import_authorities(ImportAuthoritiesRequest { certificates_pem }).await?;
    let mut state = String::new();
    until("the root before is withdrawn", PATIENCE, async || {
        let status = admin.get_rotation(GetRotationRequest {}).await?.into_inner();
        let now = status.steps.iter().find(|step| step.state == "now").map_or("", |step| &step.description);
        if status.rotation.is_some() && state != now {
            state = now.to_owned();
            say(format_args!("{:.1} s: {state}", began.elapsed().as_secs_f64()));
        }
        Ok(status.rotation.is_none())
    })
    .await?;
    let withdrawn = began.elapsed();
    // Each has an identity below the next root, and believes nobody else.
    let domain = place.bundle.trust_domain();
    until("all trust the next root alone", PATIENCE, async || {
        Ok(fleet.iter().all(|client| {
            let live = client.running.live.load();
            let trusted = live.bundles().get(domain).map(|bundle| bundle.authorities());
            trusted.is_some_and(|roots| *roots == [next.certificate.clone()])
        }))
    })
    .await?;
    let all = began.elapsed();
    let last = fleet.last().context("no client")?.running.live.load_full();
    say(format_args!("{} is trusted, in generation {}", next.key_id, last.generation().get()));

    table.row(
        format!("a root is rotated with {clients} connected clients, until all trust the next one alone"),
        format!(
            "{:.1} s; the issuer had withdrawn the one before after {:.1} s",
            all.as_secs_f64(),
            withdrawn.as_secs_f64()
        ),
        "≤ 60 s",
        all.as_secs_f64() <= 60.0,
    );
    Ok(())
}
