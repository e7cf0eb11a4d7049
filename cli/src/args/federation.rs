//! The options of `signet federate`.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};
use signet_identity::{TrustDomain, WorkloadId};

use super::IssuerOptions;

#[derive(Debug, Subcommand)]
pub(crate) enum FederateCommand {
    /// Take the bundle of another trust domain from where it publishes it, and keep it in step
    Add(AddOptions),
    /// The trust domains whose bundles are fetched
    #[command(after_help = "Examples:\n  signet federate list\n  signet federate list -o json")]
    List(IssuerOptions),
    /// Fetch a bundle now
    Refresh(RefreshOptions),
    /// Trust another trust domain no more
    Remove(PartnerOptions),
}

#[derive(Args, Debug)]
#[command(after_help = "Examples:
  signet federate add partner.example --url https://bundles.partner.example/bundle.json --profile https_web
  signet federate add partner.example --url https://issuer.partner.example:8444/ --profile https_spiffe \\
      --spiffe-id spiffe://partner.example/signet/issuer --bundle partner-root.pem

The bundle is fetched before anything is added. It is told to those whose rules name the trust domain in `federates_with`.")]
pub(crate) struct AddOptions {
    /// The other trust domain
    #[arg(value_name = "TRUST_DOMAIN")]
    pub(crate) trust_domain: TrustDomain,
    /// Where it publishes its bundle
    #[arg(long, value_name = "URL")]
    pub(crate) url: String,
    /// How the server there proves itself
    #[arg(long, value_enum)]
    pub(crate) profile: ProfileName,
    /// With https_spiffe: the SPIFFE ID of the server
    #[arg(long, value_name = "ID", required_if_eq("profile", "https_spiffe"))]
    pub(crate) spiffe_id: Option<WorkloadId>,
    /// With https_spiffe: root certificates by which the server is believed the first time, PEM
    #[arg(long, value_name = "FILE")]
    pub(crate) bundle: Option<PathBuf>,
    /// With https_web: whom to believe instead of the authorities of the issuer's system, PEM
    #[arg(long, value_name = "FILE")]
    pub(crate) ca: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) issuer: IssuerOptions,
}

/// As the standard names them.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub(crate) enum ProfileName {
    #[value(name = "https_web")]
    HttpsWeb,
    #[value(name = "https_spiffe")]
    HttpsSpiffe,
}

#[derive(Args, Debug)]
#[command(after_help = "Examples:
  signet federate refresh partner.example
  signet federate refresh partner.example --accept

A bundle that lacks most of what is trusted now is refused. Ask whoever runs the other trust domain before you accept it.")]
pub(crate) struct RefreshOptions {
    /// The other trust domain
    #[arg(value_name = "TRUST_DOMAIN")]
    pub(crate) trust_domain: TrustDomain,
    /// Take it even if most of what is trusted now is not in it, or its sequence goes back
    #[arg(long)]
    pub(crate) accept: bool,
    #[command(flatten)]
    pub(crate) issuer: IssuerOptions,
}

#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  signet federate remove partner.example")]
pub(crate) struct PartnerOptions {
    /// The other trust domain
    #[arg(value_name = "TRUST_DOMAIN")]
    pub(crate) trust_domain: TrustDomain,
    #[command(flatten)]
    pub(crate) issuer: IssuerOptions,
}
