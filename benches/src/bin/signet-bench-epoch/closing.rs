//! The end of the fleet: who is cut off, how soon, and whether anybody else is.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use time::OffsetDateTime;
use tokio::io::AsyncReadExt as _;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::connection::{Connection, ask};
use crate::{AT_ONCE, PATIENCE};

/// When the fleet's connections end.
pub(crate) struct Closing {
    leaving: JoinSet<OffsetDateTime>,
    others: Others,
}

/// Those that are to stay. They listen until they are asked whether they are alive.
pub(crate) struct Others {
    staying: JoinSet<anyhow::Result<()>>,
    asked: Arc<Semaphore>,
}

pub(crate) struct Closed {
    pub(crate) leaving: usize,
    pub(crate) first: Duration,
    pub(crate) last: Duration,
}

impl Closing {
    pub(crate) fn begin(fleet: Vec<Connection>) -> Self {
        let others = Others { staying: JoinSet::new(), asked: Arc::new(Semaphore::new(0)) };
        let mut closing = Self { leaving: JoinSet::new(), others };
        for Connection { mut stream, stays } in fleet {
            if stays {
                let asked = closing.others.asked.clone();
                closing.others.staying.spawn(async move {
                    let mut byte = [0];
                    let _place = tokio::select! {
                        _ = stream.read(&mut byte) => anyhow::bail!("closed"),
                        place = asked.acquire() => place?,
                    };
                    ask(&mut stream).await
                });
            } else {
                closing.leaving.spawn(async move {
                    // An end or an error.
                    let _ = stream.read(&mut [0]).await;
                    OffsetDateTime::now_utc()
                });
            }
        }
        closing
    }

    pub(crate) async fn finish(mut self, published: OffsetDateTime) -> anyhow::Result<(Closed, Others)> {
        let all = async {
            let mut ends = Vec::with_capacity(self.leaving.len());
            while let Some(end) = self.leaving.join_next().await {
                ends.push((end? - published).unsigned_abs());
            }
            anyhow::Ok(ends)
        };
        let ends = tokio::time::timeout(PATIENCE, all).await.context("connections that should be closed are not")??;
        let first = ends.iter().min().copied().unwrap_or_default();
        let last = ends.iter().max().copied().unwrap_or_default();
        Ok((Closed { leaving: ends.len(), first, last }, self.others))
    }
}

impl Others {
    pub(crate) async fn count_closed(mut self) -> anyhow::Result<usize> {
        self.asked.add_permits(AT_ONCE);
        let mut closed = 0;
        while let Some(answered) = self.staying.join_next().await {
            closed += usize::from(answered?.is_err());
        }
        Ok(closed)
    }
}
