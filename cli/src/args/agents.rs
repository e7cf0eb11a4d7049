//! The options of the verbs that are about those who attested themselves.

use clap::Args;
use signet_identity::WorkloadId;

use super::IssuerOptions;

#[derive(Args, Debug)]
pub(crate) struct AgentsOptions {
    /// Only those of this SPIFFE ID
    #[arg(long, value_name = "ID")]
    pub(crate) spiffe_id: Option<WorkloadId>,
    #[command(flatten)]
    pub(crate) issuer: IssuerOptions,
}

#[derive(Args, Debug)]
#[command(after_help = "Examples:
  signet evict spiffe://example.org/shop/cart     all of an identity
  signet evict 17                                 one of them, as `signet get agents` numbers it

Streams end at once and nothing is renewed. Certificates that are out stay valid until they expire. Whoever can prove who it is may
come back; to keep it out, ban it.")]
pub(crate) struct EvictOptions {
    /// A SPIFFE ID, or a number of `signet get agents`
    #[arg(value_name = "ID|NUMBER", value_parser = whose)]
    pub(crate) whose: Whose,
    #[command(flatten)]
    pub(crate) issuer: IssuerOptions,
}

#[derive(Clone, Debug)]
pub(crate) enum Whose {
    Id(WorkloadId),
    Number(u64),
}

#[derive(Args, Debug)]
#[command(after_help = "Example:
  signet ban spiffe://example.org/gateway/edge-3 --reason 'stolen, ticket 4711'

Streams end at once, and the identity can neither be attested nor renewed. Certificates that are out stay valid until they expire.")]
pub(crate) struct BanOptions {
    pub(crate) spiffe_id: WorkloadId,
    /// Why, for those who read the list
    #[arg(long, short, default_value = "", hide_default_value = true, value_name = "TEXT")]
    pub(crate) reason: String,
    #[command(flatten)]
    pub(crate) issuer: IssuerOptions,
}

#[derive(Args, Debug)]
pub(crate) struct UnbanOptions {
    pub(crate) spiffe_id: WorkloadId,
    #[command(flatten)]
    pub(crate) issuer: IssuerOptions,
}

pub(super) fn whose(text: &str) -> Result<Whose, String> {
    match text.parse::<u64>() {
        Ok(number) => Ok(Whose::Number(number)),
        Err(_) => text.parse().map(Whose::Id).map_err(|error| format!("no number, and no SPIFFE ID: {error}")),
    }
}
