//! Who may be what. Attestation proves [`Attributes`] of a caller; rules turn them into identities.
//!
//! ```text
//! YAML ──► document ──► Rule (what an operator wrote) ──► Policy (compiled, immutable) ──► decide ──► Grant
//!                                                             └──────────────────────────► explain
//! ```
//! One rule serves a million workloads: its identity is a template over attributes, `spiffe://example.org/ns/{k8s.namespace}`.
//! What comes out of a template is checked like what a stranger sends, and an attribute never adds a path segment. Rules that
//! could give one caller the same identity in two ways, or anybody a name of Signet's own, do not compile.
//!
//! Absent: how attributes are proved, and where policies are kept (both identity-issuer).

#![forbid(unsafe_code)]

mod attributes;
mod collision;
mod decision;
mod document;
mod index;
mod pattern;
mod policy;
mod rule;
mod size;
mod template;

pub use attributes::{AttributeError, AttributeName, Attributes, AttributesError, Family, UnknownAttribute};
pub use decision::{Grant, Outcome, Unrenderable};
pub use document::{Document, render};
pub use pattern::Pattern;
pub use policy::{DEFAULT_PROFILE, MAX_COMMON_NAME, Policy, PolicyError, ProfileTerms, Surroundings};
pub use rule::{Field, Rule, RuleName, Settings};
pub use size::{MAX_RULES, Size, TooLarge};
pub use template::{Template, TemplateError};
