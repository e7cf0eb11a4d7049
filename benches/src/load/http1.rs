//! HTTP/1.1 over connections that are kept: the request is bytes made once, the answer is read and not kept.

use std::cell::RefCell;
use std::rc::Rc;

use tokio::sync::Semaphore;

use super::failure::Failure;
use super::link::Link;
use super::pace::Pace;
use super::plan::Plan;
use super::response::{self, Afterwards, Answer};
use super::run::after_failure;
use super::slot_tls::SlotTls;
use super::tally::{Bodies, Tally};

/// What a head and the first part of a body are read into.
const BUFFER: usize = 64 * 1024;

/// One request, ready to be sent.
#[derive(Debug)]
pub(super) struct RequestBytes {
    /// The head, and as much of the body as goes well with it in one write.
    first: Vec<u8>,
    /// Bytes of the body after that, sent from `filler`.
    rest: usize,
    filler: Vec<u8>,
}

/// A connection and the generation of the identity that it was made with.
struct Kept {
    link: Link,
    generation: u64,
}

pub(super) async fn run_slot(
    plan: Rc<Plan>,
    request: Rc<RequestBytes>,
    mut tls: Option<SlotTls>,
    doors: Rc<Semaphore>,
    pace: Rc<Pace>,
    tally: Rc<RefCell<Tally>>,
) {
    let mut buffer = vec![0; BUFFER];
    let mut kept = None;
    while let Some(due) = pace.next().await {
        match exchange(&plan, &request, tls.as_mut(), &doors, &mut kept, &mut buffer, &tally).await {
            Ok(answer) => {
                let bodies = Bodies { sent: plan.body as u64, received: answer.body_bytes };
                tally.borrow_mut().done(due, bodies);
            }
            Err(failure) => after_failure(&tally, &failure).await,
        }
    }
}

/// One request and its answer, on the kept connection if it is still good.
async fn exchange(
    plan: &Plan,
    request: &RequestBytes,
    mut tls: Option<&mut SlotTls>,
    doors: &Semaphore,
    kept: &mut Option<Kept>,
    buffer: &mut [u8],
    tally: &RefCell<Tally>,
) -> Result<Answer, Failure> {
    let outdated = |kept: &Kept| tls.as_ref().is_some_and(|tls| tls.is_outdated(kept.generation));
    if let Some(mut reused) = kept.take().filter(|kept| !outdated(kept)) {
        match send_and_read(&mut reused.link, request, buffer).await {
            Err(failure) if failure.is_stale_connection() => tally.borrow_mut().retried += 1,
            answered => return settle(answered?, reused, kept),
        }
    }
    // Never closed.
    let door = doors.acquire().await.ok();
    let client = tls.as_mut().map(|tls| tls.next()).transpose()?;
    let generation = client.as_ref().map_or(0, |client| client.generation);
    let mut fresh = Kept { link: Link::open(plan.target, client.as_ref()).await?, generation };
    if client.is_some() {
        tally.borrow_mut().full_handshakes += 1;
    }
    drop(door);
    let answer = send_and_read(&mut fresh.link, request, buffer).await?;
    settle(answer, fresh, kept)
}

fn settle(answer: Answer, used: Kept, kept: &mut Option<Kept>) -> Result<Answer, Failure> {
    if answer.connection == Afterwards::Keep {
        *kept = Some(used);
    }
    if (200..400).contains(&answer.status) { Ok(answer) } else { Err(Failure::Status(answer.status)) }
}

async fn send_and_read(link: &mut Link, request: &RequestBytes, buffer: &mut [u8]) -> Result<Answer, Failure> {
    request.send(link).await?;
    response::read(link, buffer).await
}

impl RequestBytes {
    pub(super) fn new(plan: &Plan) -> Self {
        let (path, host) = (&plan.path, &plan.authority);
        if plan.body == 0 {
            let first = format!("GET {path} HTTP/1.1\r\nhost: {host}\r\n\r\n").into_bytes();
            return Self { first, rest: 0, filler: Vec::new() };
        }
        let mut first =
            format!("POST {path} HTTP/1.1\r\nhost: {host}\r\ncontent-length: {}\r\n\r\n", plan.body).into_bytes();
        let with_head = plan.body.min(BUFFER - first.len().min(BUFFER));
        first.resize(first.len() + with_head, b'u');
        Self { first, rest: plan.body - with_head, filler: vec![b'u'; plan.body.min(BUFFER)] }
    }

    pub(super) async fn send(&self, link: &mut Link) -> Result<(), Failure> {
        link.send(&self.first).await?;
        let mut rest = self.rest;
        while rest > 0 {
            let part = rest.min(self.filler.len());
            link.send(&self.filler[..part]).await?;
            rest -= part;
        }
        Ok(())
    }
}
