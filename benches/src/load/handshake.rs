//! Handshake after handshake, each on a new connection.

use std::cell::RefCell;
use std::rc::Rc;

use rustls::HandshakeKind;

use super::failure::Failure;
use super::http1::RequestBytes;
use super::link::Link;
use super::pace::Pace;
use super::plan::{Mode, Plan, Proof};
use super::response;
use super::run::after_failure;
use super::slot_tls::{ClientTls, SlotTls};
use super::tally::{Bodies, Tally};

pub(super) async fn run_slot(plan: Rc<Plan>, mut tls: SlotTls, pace: Rc<Pace>, tally: Rc<RefCell<Tally>>) {
    while let Some(due) = pace.next().await {
        let done = match tls.next() {
            Ok(client) => one(&plan, &client).await,
            Err(failure) => Err(failure),
        };
        match done {
            Ok(kind) => {
                let mut tally = tally.borrow_mut();
                match kind {
                    HandshakeKind::Resumed => tally.resumed_handshakes += 1,
                    HandshakeKind::Full | HandshakeKind::FullWithHelloRetryRequest => tally.full_handshakes += 1,
                }
                tally.done(due, Bodies::default());
            }
            Err(failure) => after_failure(&tally, &failure).await,
        }
    }
}

async fn one(plan: &Plan, client: &ClientTls) -> Result<HandshakeKind, Failure> {
    let before = client.tickets.arrived();
    let mut link = Link::open(plan.target, Some(client)).await?;
    match (plan.proof, plan.mode) {
        (Proof::Ticket, _) => link.ticket_after(before, &client.tickets).await?,
        (Proof::Close, Mode::Resumed) => ticket_by_request(plan, &mut link).await?,
        (Proof::Close, _) => link.closed_by_server().await?,
    }
    let kind = link.handshake_kind().unwrap_or(HandshakeKind::Full);
    link.abort()?;
    // The first of each identity has nothing to resume; it brings the ticket for the second.
    if plan.mode == Mode::Resumed && before > 0 && kind != HandshakeKind::Resumed {
        return Err(Failure::NotResumed);
    }
    Ok(kind)
}

/// A ticket stands before the first answer.
async fn ticket_by_request(plan: &Plan, link: &mut Link) -> Result<(), Failure> {
    RequestBytes::new(plan).send(link).await?;
    response::read(link, &mut vec![0; 8 * 1024]).await?;
    Ok(())
}
