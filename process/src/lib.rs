//! What every Signet process shares, so that an operator meets the same behaviour in each of them.
//!
//! In reading order: [`start`] is the frame of a binary's `main`, [`config`] reads its file, [`logging`] and
//! [`shutdown`] set it up and end it, [`log_limit`] is for what strangers make it say, [`admin`] answers on its admin
//! address, and [`identity_slot`] with [`identity_metrics`] tell there how long its identity still lasts.
//!
//! Absent: anything on a request's path. The admin server lives on a thread of its own for that reason.

#![forbid(unsafe_code)]

pub mod admin;
pub mod config;
pub mod identity_metrics;
pub mod identity_slot;
pub mod log_limit;
pub mod logging;
pub mod shutdown;
pub mod start;

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod test_identity;
