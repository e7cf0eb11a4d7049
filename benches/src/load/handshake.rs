//! Handshake after handshake, each on a new connection.

use std::cell::RefCell;
use std::net::SocketAddr;
use std::rc::Rc;

use rustls::HandshakeKind;

use super::failure::Failure;
use super::link::Link;
use super::pace::Pace;
use super::plan::Mode;
use super::run::after_failure;
use super::slot_tls::{ClientTls, SlotTls};
use super::tally::{Bodies, Tally};

pub(super) async fn run_slot(
    target: SocketAddr,
    mode: Mode,
    mut tls: SlotTls,
    pace: Rc<Pace>,
    tally: Rc<RefCell<Tally>>,
) {
    while let Some(due) = pace.next().await {
        let done = match tls.next() {
            Ok(client) => one(target, mode, &client).await,
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

async fn one(target: SocketAddr, mode: Mode, client: &ClientTls) -> Result<HandshakeKind, Failure> {
    let before = client.tickets.arrived();
    let mut link = Link::open(target, Some(client)).await?;
    link.ticket_after(before, &client.tickets).await?;
    let kind = link.handshake_kind().unwrap_or(HandshakeKind::Full);
    link.abort()?;
    // The first of each identity has nothing to resume; it brings the ticket for the second.
    if mode == Mode::Resumed && before > 0 && kind != HandshakeKind::Resumed {
        return Err(Failure::NotResumed);
    }
    Ok(kind)
}
