//! Other trust domains, whose bundles are fetched where they publish them (SPIFFE Federation §5).
//!
//! ```text
//! configuration ─┐                        ┌─ good: kept in the state folder, told to those whom policy lets federate
//!                ├─ relationships ─ fetch ┤
//! signet federate┘   each by its hint     └─ no good: refused with the reason; the last good one stays
//! ```
//! A relationship is with one trust domain, at one URL, by one profile, and nothing of it is inferred. Bundles of different trust domains
//! are never merged. What the command adds is kept in this issuer's state folder; the other issuers on the database have its bundle by
//! this one's signed statement.

mod document;
mod follow;
mod kept;
mod relationship;

pub(crate) use document::Document;
pub(crate) use follow::{AddError, Continuity, Federation, Known, NoSuch};
pub(crate) use kept::KeepError;
pub(crate) use relationship::{Profile, Relationship, RelationshipError};
