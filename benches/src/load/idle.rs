//! Connections that do nothing, to see what they cost a server.

use std::num::NonZeroUsize;
use std::rc::Rc;

use tokio::task::{JoinSet, LocalSet};

use super::LoadError;
use super::failure::Failure;
use super::http1::RequestBytes;
use super::link::Link;
use super::plan::{Plan, Proof};
use super::response;
use super::slot_tls::{SlotTls, ThreadTls};

/// Handshakes or requests under way at once: servers and the accept queue are not to be overrun.
const AT_ONCE: usize = 64;

/// How far the connections have come.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Step {
    /// Handshakes are done, accepted by the server, and no request was made.
    Opened,
    /// Each has had one request and its answer.
    Requested,
}

/// What there was to hold.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Held {
    pub step: Step,
    pub connections: usize,
    pub failed: usize,
}

/// Opens [`Plan::connections`], and makes a request on each. After each step they are handed to `hold`, which blocks for as long
/// as they are to be left alone.
pub fn idle(plan: &Plan, mut hold: impl FnMut(Held)) -> Result<(), LoadError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(LoadError::Thread)?;
    LocalSet::new().block_on(&runtime, async {
        let tls = plan.tls.clone().map(|tls| Rc::new(ThreadTls::new(tls, plan.mode)));
        let plan = Rc::new(plan.clone());

        let fresh = (0..plan.connections.get()).map(|number| {
            let (plan, tls) = (plan.clone(), tls.as_ref().map(|tls| tls.slot(number, plan.connections.get())));
            open(plan, tls)
        });
        let opened = all(fresh, AT_ONCE).await;
        hold(held(Step::Opened, &plan.connections, &opened));

        let request = Rc::new(RequestBytes::new(&plan));
        let asked = opened.into_iter().flatten().map(|link| one_request(link, request.clone()));
        let requested = all(asked, AT_ONCE).await;
        hold(held(Step::Requested, &plan.connections, &requested));

        // No minute of TIME_WAIT for thousands of ports; a connection that is lost already needs none.
        requested.into_iter().flatten().for_each(|link| drop(link.abort()));
    });
    Ok(())
}

fn held(step: Step, wanted: &NonZeroUsize, outcomes: &[Result<Link, Failure>]) -> Held {
    let connections = outcomes.iter().filter(|outcome| outcome.is_ok()).count();
    Held { step, connections, failed: wanted.get() - connections }
}

async fn open(plan: Rc<Plan>, mut tls: Option<SlotTls>) -> Result<Link, Failure> {
    let client = tls.as_mut().map(SlotTls::next).transpose()?;
    let mut link = Link::open(plan.target, client.as_ref()).await?;
    match client {
        Some(client) if plan.proof == Proof::Ticket => link.ticket_after(0, &client.tickets).await?,
        // A refusal shows when the request is made.
        _ => {}
    }
    Ok(link)
}

async fn one_request(mut link: Link, request: Rc<RequestBytes>) -> Result<Link, Failure> {
    // Small: thousands of these are alive, and an answer's head fits.
    let mut buffer = vec![0; 8 * 1024];
    request.send(&mut link).await?;
    let answer = response::read(&mut link, &mut buffer).await?;
    if (200..300).contains(&answer.status) { Ok(link) } else { Err(Failure::Status(answer.status)) }
}

/// Runs all to their ends, `at_once` of them at a time.
async fn all<T: 'static>(tasks: impl Iterator<Item = impl Future<Output = T> + 'static>, at_once: usize) -> Vec<T> {
    let (mut running, mut done) = (JoinSet::new(), Vec::new());
    for task in tasks {
        if running.len() >= at_once {
            done.extend(running.join_next().await.and_then(Result::ok));
        }
        running.spawn_local(task);
    }
    while let Some(outcome) = running.join_next().await {
        done.extend(outcome.ok());
    }
    done
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn all_are_run_and_never_more_at_once_than_allowed() {
        let under_way = Rc::new(std::cell::Cell::new(0));
        let task = |number: usize| {
            let under_way = under_way.clone();
            async move {
                under_way.set(under_way.get() + 1);
                assert!(under_way.get() <= 3);
                tokio::task::yield_now().await;
                under_way.set(under_way.get() - 1);
                number
            }
        };
        let mut done = LocalSet::new().run_until(all((0..10).map(task), 3)).await;
        done.sort_unstable();
        assert_eq!(done, (0..10).collect::<Vec<_>>());
    }
}
