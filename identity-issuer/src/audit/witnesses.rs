//! Witnesses are shown each step of the log, and sign that it only grew (C2SP tlog-witness): whoever wants to show somebody another log
//! would have to have them on their side.
//!
//! Nothing waits for a witness. A slow one costs the pace of this task, and one that fails is asked again after longer and longer.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use http::{StatusCode, Uri};
use signet_audit::{
    Checkpoint, CosignatureError, Folder, ProofError, Quorum, Resource, SignedCheckpoint, Source as _, WitnessKey,
    proof_of_growth,
};
use signet_identity::SharedClock;
use tokio::sync::watch;
use tokio::time::Instant;

use super::metrics::AuditMetrics;
use super::place::LogPlace;
use super::publisher::Published;
use crate::complaint::Complaint;
use crate::https;

/// Who they are, and how many of them have to agree.
#[derive(Clone, Debug)]
pub(crate) struct Witnesses {
    pub(crate) witnesses: Vec<Witness>,
    pub(crate) quorum: Quorum,
    /// Between two rounds.
    pub(crate) interval: Duration,
}

#[derive(Clone, Debug)]
pub(crate) struct Witness {
    /// The submission prefix.
    pub(crate) url: Uri,
    pub(crate) key: WitnessKey,
    /// None for a witness on this machine.
    pub(crate) tls: Option<Arc<rustls::ClientConfig>>,
}

/// What witnesses have signed last, for whoever publishes the same tree again.
#[derive(Debug, Default)]
pub(crate) struct Cosigned {
    pub(super) checkpoint: Option<Checkpoint>,
    pub(super) lines: String,
}

#[derive(Debug)]
pub(crate) struct Witnessing {
    pub(super) witnesses: Witnesses,
    pub(super) place: LogPlace,
    pub(super) metrics: AuditMetrics,
    pub(super) clock: SharedClock,
    pub(super) latest: watch::Receiver<Option<Arc<Published>>>,
    pub(super) cosigned: watch::Sender<Arc<Cosigned>>,
}

/// What is known of one of them.
#[derive(Debug)]
struct Asked<'a> {
    witness: &'a Witness,
    /// The size that it has cosigned last; 0 where nobody knows.
    size: u64,
    due: Instant,
    wait: Duration,
    complaint: Complaint,
}

#[derive(Debug, thiserror::Error)]
enum AskError {
    #[error("{0}")]
    Fetch(String),
    #[error("it does not know this log: give its operator the log's public key (404)")]
    Unknown,
    #[error("it has another public key for this log (403)")]
    OtherKey,
    #[error(
        "it has seen {seen} entries of this log, which has {size}: the log went back, or another issuer writes it too"
    )]
    Ahead { seen: u64, size: u64 },
    #[error(
        "it has seen another log of {size} entries by this name: somebody else has this log's key, or its files were replaced"
    )]
    Forked { size: u64 },
    #[error(
        "it has seen {seen} entries of this log that it does not begin with: somebody else has this log's key, or its files were replaced (422)"
    )]
    NotConsistent { seen: u64 },
    #[error("it answers {0}")]
    Status(StatusCode),
    #[error("it answers 409 without the size that it has seen")]
    NoSize,
    #[error("its answer is not believed: {0}")]
    Cosignature(#[from] CosignatureError),
    #[error("its cosignature is {0} s away from this machine's time")]
    Time(u64),
    #[error("the log's own files do not give a proof")]
    Proof(#[from] ProofError),
    #[error("reading broke off")]
    BrokeOff(#[from] tokio::task::JoinError),
}

/// For one request and its answer.
pub(super) const TIMEOUT: Duration = Duration::from_secs(5);
const FIRST_WAIT: Duration = Duration::from_secs(1);
const LONGEST_WAIT: Duration = Duration::from_secs(60);
/// In bytes: a handful of lines, the longest of them with an ML-DSA signature.
pub(super) const MOST_ANSWER: usize = 32 << 10;
/// Seconds that the clock of a witness may be off.
const SKEW: u64 = 60;

impl Witnessing {
    /// Until cancelled.
    pub(crate) async fn run(mut self) {
        let witnesses = self.witnesses.witnesses.clone();
        let mut asked: Vec<_> = witnesses.iter().map(Asked::of).collect();
        witnesses.iter().for_each(|witness| self.metrics.asks(witness.key.name()));
        let mut witnessed = self.witnessed_before();
        loop {
            let latest = self.latest.borrow_and_update().clone();
            if let Some(latest) = latest {
                self.round(&latest, &mut asked, &mut witnessed).await;
            }
            tokio::time::sleep(self.witnesses.interval).await;
            if self.latest.changed().await.is_err() {
                return;
            }
        }
    }

    /// All that are due, at the same time. What one has signed is published without waiting for the others.
    async fn round(&self, latest: &Arc<Published>, asked: &mut [Asked<'_>], witnessed: &mut u64) {
        let now = Instant::now();
        let mut asking: FuturesUnordered<_> = asked
            .iter_mut()
            .filter(|asked| asked.due <= now)
            .map(|asked| async move {
                let answer = self.ask(asked, latest).await;
                (asked, answer)
            })
            .collect();
        let mut lines = String::new();
        while let Some((asked, answer)) = asking.next().await {
            let name = asked.witness.key.name();
            match answer {
                Ok(cosignature) => {
                    asked.works();
                    self.metrics.cosigned(name, cosignature.time);
                    lines.push_str(&cosignature.line);
                    let checkpoint = Some(latest.checkpoint.clone());
                    self.cosigned.send_replace(Arc::new(Cosigned { checkpoint, lines: lines.clone() }));
                    self.publish(latest, &lines, witnessed).await;
                }
                Err(error) => {
                    self.metrics.witness_failed(name);
                    if let Some(cause) = asked.fails(&error) {
                        tracing::error!(
                            witness = name,
                            cause,
                            "a witness has not cosigned the audit log, and is asked again"
                        );
                    }
                }
            }
        }
    }

    async fn ask(&self, asked: &mut Asked<'_>, latest: &Published) -> Result<signet_audit::Cosignature, AskError> {
        // The second time with the size that it has said.
        for is_last in [false, true] {
            let body = self.request(asked.size, latest).await?;
            let Witness { url, tls, key } = asked.witness;
            let (status, answer) =
                https::post(url, tls.as_ref(), body, MOST_ANSWER, TIMEOUT).await.map_err(AskError::Fetch)?;
            let answer = String::from_utf8_lossy(&answer);
            match status {
                StatusCode::OK => {
                    let cosignature = key.find(&answer, &latest.checkpoint)?;
                    let now = u64::try_from(self.clock.now().unix_timestamp()).unwrap_or(0);
                    let apart = now.abs_diff(cosignature.time);
                    if apart > SKEW {
                        return Err(AskError::Time(apart));
                    }
                    asked.size = latest.checkpoint.size;
                    return Ok(cosignature);
                }
                StatusCode::CONFLICT => {
                    let size = latest.checkpoint.size;
                    let seen: u64 = answer.trim_end().parse().map_err(|_| AskError::NoSize)?;
                    if seen > size {
                        return Err(AskError::Ahead { seen, size });
                    }
                    if seen == asked.size || is_last {
                        return Err(AskError::Forked { size: seen });
                    }
                    asked.size = seen;
                }
                StatusCode::FORBIDDEN => return Err(AskError::OtherKey),
                StatusCode::NOT_FOUND => return Err(AskError::Unknown),
                StatusCode::UNPROCESSABLE_ENTITY => return Err(AskError::NotConsistent { seen: asked.size }),
                status => return Err(AskError::Status(status)),
            }
        }
        Err(AskError::NoSize)
    }

    /// C2SP tlog-witness, “add-checkpoint”.
    async fn request(&self, before: u64, latest: &Published) -> Result<Bytes, AskError> {
        let (files, checkpoint) = (Folder::new(&self.place.files), latest.checkpoint.clone());
        let proof = tokio::task::spawn_blocking(move || proof_of_growth(&files, before, &checkpoint)).await??;
        let proof: String = proof.iter().map(|hash| format!("{hash}\n")).collect();
        let note = String::from_utf8_lossy(&latest.signed);
        Ok(format!("old {before}\n{proof}\n{note}").into())
    }

    /// Where a quorum has signed, that is a file of the log, for whoever wants to see no less.
    async fn publish(&self, latest: &Published, lines: &str, witnessed: &mut u64) {
        let checkpoint = &latest.checkpoint;
        let note = [&latest.signed[..], lines.as_bytes()].concat();
        // How far each may be ahead was seen to when it answered.
        let witnessed_by = self.witnesses.quorum.of(&note, checkpoint, u64::MAX);
        let Some(since) = witnessed_by.since.filter(|_| checkpoint.size >= *witnessed) else { return };
        let files = Folder::new(&self.place.files);
        let written = tokio::task::spawn_blocking(move || files.write(Resource::Witnessed, &note)).await;
        match written.map_err(std::io::Error::from).flatten() {
            Ok(()) => {
                *witnessed = checkpoint.size;
                self.metrics.witnessed(checkpoint.size, since);
            }
            // It is written again in the next round.
            Err(error) => tracing::error!(%error, "the checkpoint that witnesses have cosigned cannot be written"),
        }
    }

    /// Entries that a quorum has seen already.
    fn witnessed_before(&self) -> u64 {
        let note = Folder::new(&self.place.files).file(Resource::Witnessed).ok();
        let signed = note.and_then(|note| SignedCheckpoint::open(&note, &self.place.verifier).ok());
        signed.map_or(0, |signed| signed.checkpoint.size)
    }
}

impl<'a> Asked<'a> {
    fn of(witness: &'a Witness) -> Self {
        Self { witness, size: 0, due: Instant::now(), wait: FIRST_WAIT, complaint: Complaint::default() }
    }

    fn works(&mut self) {
        self.complaint.clear();
        self.wait = FIRST_WAIT;
    }

    fn fails(&mut self, error: &AskError) -> Option<&str> {
        self.due = Instant::now() + self.wait;
        self.wait = (self.wait * 2).min(LONGEST_WAIT);
        self.complaint.of(error)
    }
}
