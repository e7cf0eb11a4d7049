//! JWT-SVIDs and the keys that sign them.
//!
//! ```text
//! made ─► prepared ─► active ─► retired ──────────► gone
//!          │ published  │ signs   │ published until the last token that it signed has expired
//!          └────────────┴─────────┴─► tainted ─► gone      the same, because somebody wants it
//!                                  └─► revoked             published no more, named as one to be refused
//! ```
//! A key is published well before it signs, so that whoever is shown a token knows the key already. Tokens are bearer tokens: what they
//! say of their holder is what an X.509-SVID proved a moment before, and they live for minutes.

mod acts;
mod journal;
mod jwk;
mod key;
mod keys;
mod plan;
mod readers;
mod tokens;
mod verify;

pub(crate) use acts::{ActError, Insistence, Listed};
pub(crate) use journal::{Act, MOST_NAMED};
pub(crate) use jwk::{JwksError, JwtAuthorities, JwtBundles, JwtTrust, RevokedKeys, key_parameters};
pub use keys::JwtKeysError;
pub(crate) use keys::{JwtKeys, Place};
pub(crate) use plan::Schedule;
pub(crate) use readers::Readers;
pub(crate) use tokens::{Jwt, Kind, NotIssued, Tokens, Wanted};
pub(crate) use verify::verify_own;
