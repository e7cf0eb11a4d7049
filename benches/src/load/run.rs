//! One run: threads with their slots, measured over the same window.

use std::cell::RefCell;
use std::io;
use std::rc::Rc;
use std::time::{Duration, Instant};

use tokio::sync::Semaphore;
use tokio::task::{JoinSet, LocalSet};

use super::failure::Failure;
use super::pace::{Pace, Window};
use super::plan::{Loop, Mode, Plan};
use super::slot_tls::ThreadTls;
use super::tally::Tally;
use super::{Report, cpu, handshake, http1, http2};

/// A slot whose operation failed waits this long, so that a server that is down is not met by a storm.
const PAUSE_AFTER_FAILURE: Duration = Duration::from_millis(5);

/// Connections that a thread opens at once: thousands would meet the limits that servers have for handshakes.
const CONNECTING_AT_ONCE: usize = 512;

/// Why a run could not be made at all; what happens in it is in the report.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    #[error("no thread or runtime for the generator")]
    Thread(#[source] io::Error),
    #[error("no timer for the open loop")]
    Timer(#[source] io::Error),
    #[error("handshakes need TLS")]
    HandshakeWithoutTls,
    #[error("idle connections have no operations to measure")]
    Idle,
    #[error("path or authority do not make a request")]
    Request(#[from] http::Error),
    #[error("a thread of the generator ended early")]
    ThreadLost,
}

/// Runs `plan` to its end.
pub fn run(plan: &Plan) -> Result<Report, LoadError> {
    let start = Instant::now();
    let measured_from = start + plan.warmup;
    let window = Window { start, measured_from, end: measured_from + plan.duration };

    let mut threads = Vec::new();
    for thread in 0..plan.threads.get() {
        let plan = plan.clone();
        let spawned = std::thread::Builder::new()
            .name(format!("load-{thread}"))
            .spawn(move || run_thread(plan, thread, window))
            .map_err(LoadError::Thread)?;
        threads.push(spawned);
    }

    sleep_until(measured_from);
    let before = used(plan);
    sleep_until(window.end);
    let after = used(plan);

    let mut tally = Tally::new(window);
    for thread in threads {
        tally.merge(thread.join().map_err(|_| LoadError::ThreadLost)??);
    }
    let watched = plan.watched.iter().zip(after.watched.into_iter().zip(before.watched));
    Ok(Report {
        tally,
        duration: plan.duration,
        cpu: difference(after.own, before.own),
        watched: watched.map(|(who, (after, before))| (who.name.clone(), difference(after, before))).collect(),
    })
}

/// CPU times at one moment.
struct Used {
    own: Option<Duration>,
    watched: Vec<Option<Duration>>,
}

fn used(plan: &Plan) -> Used {
    Used {
        own: cpu::used_by(&[std::process::id()]),
        watched: plan.watched.iter().map(|who| cpu::used_by(&who.processes)).collect(),
    }
}

fn difference(after: Option<Duration>, before: Option<Duration>) -> Option<Duration> {
    after?.checked_sub(before?)
}

fn run_thread(plan: Plan, thread: usize, window: Window) -> Result<Tally, LoadError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(LoadError::Thread)?;
    let tally = Rc::new(RefCell::new(Tally::new(window)));
    let tls = plan.tls.clone().map(|tls| Rc::new(ThreadTls::new(tls, plan.mode)));
    let pace = Rc::new(pace(&plan, thread, window));

    let ticking = pace
        .schedule()
        .map(|schedule| std::thread::Builder::new().name(format!("pace-{thread}")).spawn(move || schedule.tick()));
    let ticking = ticking.transpose().map_err(LoadError::Thread)?;

    LocalSet::new().block_on(&runtime, async {
        let mut slots = spawn_slots(&Rc::new(plan.clone()), thread, tls.as_ref(), &pace, &tally)?;
        let patience = tokio::time::Instant::from_std(window.end + plan.patience);
        let all_done = async { while slots.join_next().await.is_some() {} };
        if tokio::time::timeout_at(patience, all_done).await.is_err() {
            for _ in 0..slots.len() {
                tally.borrow_mut().failed_as("hangs", || "no answer long after the end of the run".to_owned());
            }
        }
        Ok::<_, LoadError>(())
    })?;
    if let Some(ticking) = ticking {
        ticking.join().map_err(|_| LoadError::ThreadLost)?.map_err(LoadError::Timer)?;
    }
    // Slots that hang hold the tally too; they end with their runtime, but their copy of the pointer need not be waited for.
    let mut tally = tally.replace(Tally::new(window));
    if let Some(tls) = tls {
        tally.servers = tls.servers();
    }
    Ok(tally)
}

fn spawn_slots(
    plan: &Rc<Plan>,
    thread: usize,
    tls: Option<&Rc<ThreadTls>>,
    pace: &Rc<Pace>,
    tally: &Rc<RefCell<Tally>>,
) -> Result<JoinSet<()>, LoadError> {
    let mut slots = JoinSet::new();
    let doors = Rc::new(Semaphore::new(CONNECTING_AT_ONCE));
    let connections = plan.connections.get();
    // The connections of this thread, by their number in the whole run.
    for number in (thread..connections).step_by(plan.threads.get()) {
        let tls = tls.map(|tls| tls.slot(number, connections));
        let (pace, tally) = (Rc::clone(pace), Rc::clone(tally));
        match plan.mode {
            Mode::Handshake | Mode::Resumed => {
                let tls = tls.ok_or(LoadError::HandshakeWithoutTls)?;
                slots.spawn_local(handshake::run_slot(Rc::clone(plan), tls, pace, tally));
            }
            Mode::Http1 => {
                let request = Rc::new(http1::RequestBytes::new(plan));
                slots.spawn_local(http1::run_slot(Rc::clone(plan), request, tls, Rc::clone(&doors), pace, tally));
            }
            Mode::Idle => return Err(LoadError::Idle),
            Mode::Http2 | Mode::Grpc => {
                let shared = Rc::new(http2::SharedConnection::new(Rc::clone(plan), tls, Rc::clone(&tally)));
                for _ in 0..plan.streams.get() {
                    let (shared, call) = (Rc::clone(&shared), http2::Call::new(plan)?);
                    slots.spawn_local(http2::run_slot(shared, call, Rc::clone(&pace), Rc::clone(&tally)));
                }
            }
        }
    }
    Ok(slots)
}

fn pace(plan: &Plan, thread: usize, window: Window) -> Pace {
    match plan.pace {
        Loop::Closed => Pace::closed(window),
        Loop::Open { per_second } => {
            let share = per_second / plan.threads.get() as f64;
            Pace::open(window, share, Duration::from_secs_f64(thread as f64 / per_second))
        }
    }
}

/// Counts a failure and holds the slot back a little.
pub(super) async fn after_failure(tally: &RefCell<Tally>, failure: &Failure) {
    tally.borrow_mut().failed(failure);
    tokio::time::sleep(PAUSE_AFTER_FAILURE).await;
}

fn sleep_until(time: Instant) {
    std::thread::sleep(time.saturating_duration_since(Instant::now()));
}
