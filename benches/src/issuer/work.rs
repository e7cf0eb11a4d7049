//! Work that is offered to a server, and how it was done.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use tokio::task::JoinSet;

/// What came of it.
#[derive(Debug, Default)]
pub struct Done {
    /// Milliseconds, of each that succeeded.
    pub latencies: Vec<f64>,
    pub failed: usize,
    /// What the first of them was told.
    pub why: Option<String>,
    pub elapsed: Duration,
}

impl Done {
    pub fn rate(&self) -> f64 {
        self.latencies.len() as f64 / self.elapsed.as_secs_f64()
    }

    fn note(&mut self, began: Instant, outcome: &anyhow::Result<()>) {
        match outcome {
            Ok(()) => self.latencies.push(began.elapsed().as_secs_f64() * 1000.0),
            Err(error) => self.fail(error),
        }
    }

    fn fail(&mut self, error: &anyhow::Error) {
        self.failed += 1;
        self.why.get_or_insert_with(|| format!("{error:#}"));
    }

    /// # Errors
    /// Some of it failed.
    pub fn all_done(&self, what: &str) -> anyhow::Result<()> {
        let why = self.why.as_deref().unwrap_or_default();
        anyhow::ensure!(self.failed == 0, "{} {what} failed: {why}", self.failed);
        Ok(())
    }
}

/// Each of the workers does one piece of work after the other until the time is over, or there is no more.
pub async fn closed<W, T>(workers: Vec<W>, work: Vec<T>, time: Duration) -> Done
where
    W: AsyncWork<T> + Send + 'static,
    T: Send + Sync + Clone + 'static,
{
    let (work, next, is_over) = (Arc::new(work), Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
    let began = Instant::now();
    let mut running = JoinSet::new();
    for mut worker in workers {
        let (work, next, is_over) = (Arc::clone(&work), Arc::clone(&next), Arc::clone(&is_over));
        running.spawn(async move {
            let mut done = Done::default();
            while !is_over.load(Ordering::Relaxed) {
                let Some(piece) = work.get(next.fetch_add(1, Ordering::Relaxed)) else { break };
                let began = Instant::now();
                let outcome = worker.run(piece.clone()).await;
                done.note(began, &outcome);
            }
            done
        });
    }
    let mut all = Done::default();
    let over = tokio::time::sleep(time);
    tokio::pin!(over);
    loop {
        tokio::select! {
            () = &mut over, if !is_over.load(Ordering::Relaxed) => is_over.store(true, Ordering::Relaxed),
            ended = running.join_next() => match ended {
                Some(Ok(done)) => {
                    all.latencies.extend(done.latencies);
                    all.failed += done.failed;
                    all.why = all.why.or(done.why);
                }
                Some(Err(_)) => all.failed += 1,
                None => break,
            },
        }
    }
    all.elapsed = began.elapsed();
    all
}

/// Pieces of work at a steady rate, whether those before are done or not. Counted from when each was due.
pub async fn open<W, T>(workers: Vec<W>, work: Vec<T>, rate: f64) -> Done
where
    W: AsyncWork<T> + Clone + Send + 'static,
    T: Send + 'static,
{
    let began = Instant::now();
    let mut running = JoinSet::new();
    let (count, total) = (workers.len(), work.len());
    for (index, piece) in work.into_iter().enumerate() {
        let due = began + Duration::from_secs_f64(index as f64 / rate);
        tokio::time::sleep_until(due.into()).await;
        let mut worker = workers[index % count].clone();
        running.spawn(async move {
            let outcome = worker.run(piece).await;
            (due, Instant::now(), outcome)
        });
    }
    let mut all = Done { elapsed: Duration::from_secs_f64(total as f64 / rate), ..Done::default() };
    while let Some(ended) = running.join_next().await {
        match ended {
            Ok((due, done, Ok(()))) => all.latencies.push((done - due).as_secs_f64() * 1000.0),
            Ok((.., Err(error))) => all.fail(&error),
            Err(_) => all.failed += 1,
        }
    }
    all
}

/// Something that does work.
pub trait AsyncWork<T> {
    fn run(&mut self, piece: T) -> impl Future<Output = anyhow::Result<()>> + Send;
}
