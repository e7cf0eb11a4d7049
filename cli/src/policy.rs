//! `signet apply`, `get`, `diff`, `history`, `rollback`, `explain`: who may be what.

mod change;
mod explanation;
mod files;
mod reading;

pub(crate) use change::{apply, diff, roll_back};
pub(crate) use explanation::{Attested, explain};
pub(crate) use reading::{get, history, rules};
