//! HTTP between a caller and an upstream: what is let through, what is changed, and how the bodies flow.

pub(crate) mod answer;
pub(crate) mod body;
pub(crate) mod expect;
pub(crate) mod frames;
pub(crate) mod headers;
pub(crate) mod proxy;
mod trailers;
