//! The audit log of this issuer: what [`Store`](crate::store::Store) records of each act becomes files that anybody can verify.
//!
//! ```text
//! acts ──► store: in the transaction of the act ──► LogPublisher ──► tiles and a signed checkpoint, twice a second
//!                                                                 ├──► web address, folders and buckets
//!                                                                 └──► witnesses, who sign that they saw it
//! ```
//! What an entry says is in `signet-audit`, and so is how it is verified.

mod export;
mod halt;
mod hours;
mod metrics;
mod place;
mod proofs;
mod publisher;
mod refusals;
mod reports;
mod scheduled;
mod seen;
mod steady;
mod witnesses;
mod writer;

pub(crate) use export::{LogTarget, checkpoint_at};
pub(crate) use halt::Halt;
pub(crate) use metrics::AuditMetrics;
pub use place::{AuditError, LEAVES_UNPUBLISHED, PREVIOUS, RESTORED};
pub(crate) use place::{LogPlace, last_checkpoint};
pub(crate) use proofs::LogProofs;
pub(crate) use publisher::{LogPublisher, Published};
pub(crate) use refusals::Refusals;
pub(crate) use reports::{MakeError, Part, Reports};
pub(crate) use scheduled::Schedule;
pub(crate) use witnesses::{Witness, Witnesses};
