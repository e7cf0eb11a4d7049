//! What is revoked before its time: how it is recorded, kept in memory, and told.
//!
//! ```text
//! signet revoke ──► Revoker ──► the record (numbers it, one transaction) ──► live ──► streams of its holders end
//!                                     ▲ other issuers read it                  ├───► statement, signed ──► Watch streams
//!                                                                              └───► CRLs
//! ```
//! The record decides over renewals and first certificates: no certificate slips through between it and what is in memory.

mod ahead;
mod entry;
mod live;
mod revoker;
mod signers;
mod statement;

use std::time::Duration;

pub(crate) use ahead::IsAhead;
pub use entry::Reason;
pub(crate) use entry::{Entry, SerialNumber, What};
pub(crate) use live::{Revocations, StatementError, Told};
pub(crate) use revoker::{MOST, Plan, RevokeError, Revoker};
pub(crate) use signers::Signers;
pub(crate) use statement::{Lineage, SignedStatement};

/// How long what has expired is kept in memory: until it stood in a CRL past its end (RFC 5280 §3.3), of which there is a new one at
/// least as often.
const KEPT_AFTER_EXPIRY: Duration = Duration::from_secs(2 * 86_400);
