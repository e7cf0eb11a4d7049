//! Where an identity comes from.

use signet_identity::TlsPolicies;

use crate::Delivery;

/// Delivers whole [`Material`](signet_identity::Material) — certificate, key and bundles together — whenever there is
/// something new. What becomes of it is the driver's business: a source learns the verdict and paces itself.
pub trait Source: Send + 'static {
    /// Keys of the TLS policies that the source itself needs, as for its own connections to an issuer.
    type Keys: Send;

    /// Adds those policies. Called once, before the first snapshot is built.
    fn register(&self, policies: &mut TlsPolicies) -> Self::Keys;

    /// Delivers until it is dropped, which happens at shutdown: it may be dropped at any await.
    fn run(self, keys: Self::Keys, delivery: Delivery) -> impl Future<Output = ()> + Send;
}
