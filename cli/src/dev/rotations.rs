//! A line for each identity that becomes live, on stdout: who, serial, how long it lasts.

use std::io::{self, Write as _};

use identity_issuer::Issued;
use signet_identity::WorkloadId;
use signet_sdk::Event;
use time::OffsetDateTime;
use time::macros::format_description;
use tokio::sync::broadcast::{Receiver, error::RecvError};

use super::parts::{RunningGateway, RunningIssuer};

pub(crate) struct Rotations {
    issuer: WorkloadId,
    issued: Receiver<Issued>,
    inbound: Receiver<Event>,
    outbound: Receiver<Event>,
}

impl Rotations {
    /// Everything from now on.
    pub(crate) fn of(
        id: WorkloadId,
        issuer: &RunningIssuer,
        inbound: &RunningGateway,
        outbound: &RunningGateway,
    ) -> Self {
        Self {
            issuer: id,
            issued: issuer.issued.resubscribe(),
            inbound: inbound.identity.events(),
            outbound: outbound.identity.events(),
        }
    }

    /// Prints until nobody is left who could rotate.
    pub(crate) async fn print(&mut self) {
        loop {
            let line = tokio::select! {
                Some(line) = next(&mut self.issued, |issued| of_issuer(&self.issuer, issued)) => line,
                Some(line) = next(&mut self.inbound, of_gateway) => line,
                Some(line) = next(&mut self.outbound, of_gateway) => line,
                else => return,
            };
            // A reader that went away does not end the mesh.
            let _ = writeln!(io::stdout(), "{line}");
        }
    }
}

/// The next event that makes a line; none once the sender is gone. What was missed is missed: the next one says more.
async fn next<T: Clone>(events: &mut Receiver<T>, line: impl Fn(&T) -> Option<String>) -> Option<String> {
    loop {
        match events.recv().await {
            Ok(event) => {
                if let Some(line) = line(&event) {
                    return Some(line);
                }
            }
            Err(RecvError::Lagged(_)) => {}
            Err(RecvError::Closed) => return None,
        }
    }
}

/// The gateways tell of themselves; of what the issuer issues, its own certificate is left.
fn of_issuer(issuer: &WorkloadId, issued: &Issued) -> Option<String> {
    (issued.spiffe_id == *issuer).then(|| rotated(&issued.spiffe_id, &issued.serial, issued.not_after))
}

fn of_gateway(event: &Event) -> Option<String> {
    let now = clock_time(OffsetDateTime::now_utc());
    match event {
        Event::Rotated { spiffe_id, serial, not_after, .. } => {
            Some(rotated(spiffe_id, &serial.to_string(), *not_after))
        }
        Event::BundlesChanged { trust_epoch, .. } => {
            Some(format!("{now}  trust bundles changed: trust epoch {trust_epoch}"))
        }
        Event::RevocationsChanged { trust_epoch, .. } => {
            Some(format!("{now}  revocations are in force: trust epoch {trust_epoch}"))
        }
        Event::Refused { reason } => Some(format!("{now}  refused a new identity, the old one stays: {reason}")),
        Event::RenewalFailed { cause } => Some(format!("{now}  renewal failed, it is tried again: {cause}")),
        Event::Connected | Event::Disconnected { .. } => None,
    }
}

fn rotated(id: &WorkloadId, serial: &str, not_after: OffsetDateTime) -> String {
    let now = OffsetDateTime::now_utc();
    let left = (not_after - now).whole_seconds();
    format!("{}  {id}  serial {serial}  expires in {left} s", clock_time(now))
}

fn clock_time(time: OffsetDateTime) -> String {
    time.format(format_description!("[hour]:[minute]:[second]")).unwrap_or_default()
}
