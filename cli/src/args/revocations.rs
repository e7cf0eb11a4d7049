//! The options of the verbs that are about what is revoked.

use std::path::PathBuf;
use std::time::Duration;

use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser};
use clap::{Args, Subcommand};
use identity_issuer::root::Reason;
use signet_identity::WorkloadId;

use super::{IssuerOptions, RevokeJwtKeyOptions, duration};

#[derive(Debug, Subcommand)]
pub(crate) enum RevokeCommand {
    /// One certificate, or those of a file
    #[command(after_help = "Examples:
  signet revoke serial 4198f02b6c1ad34e5f60718293a4b5c6 --reason key-compromise
  signet revoke serial --file serials.txt --reason superseded --yes        one to a line, hexadecimal")]
    Serial(RevokeSerialOptions),
    /// All that an identity has, and what was given beside it; what was attested for it is evicted
    #[command(
        after_help = "Example:\n  signet revoke id spiffe://example.org/shop/cart --reason key-compromise -m 'ticket 4711'"
    )]
    Id(RevokeIdOptions),
    /// A key: no certificate for it is good, whoever signed it, and none is issued any more
    #[command(after_help = "Example:
  openssl x509 -in leaked.pem -noout -pubkey > leaked.pub
  signet revoke key leaked.pub --reason key-compromise")]
    Key(RevokeKeyOptions),
    /// All that one attestation has; it is evicted
    #[command(
        after_help = "Example:\n  signet revoke agent 17 --reason privilege-withdrawn      as `signet get agents` numbers it"
    )]
    Agent(RevokeAgentOptions),
    /// A CA that does not sign any more: nothing that it has signed is good
    #[command(
        after_help = "Example:\n  signet revoke authority 3f1c0d5ab2e4987610fedcba9876543210fedcba --reason ca-compromise"
    )]
    Authority(RevokeAuthorityOptions),
    /// A key of tokens: nothing that it has signed is good, and it is published no more
    #[command(
        after_help = "Example:\n  signet revoke jwt-key 3f1c0d5ab2e4987610fedcba98765432deadbeef --reason key-compromise --force"
    )]
    JwtKey(RevokeJwtKeyOptions),
    /// All that was issued by a rule of the policy
    #[command(after_help = "Example:
  signet revoke rule cart-pods --reason affiliation-changed

As long as the rule is there, whoever it matches may attest itself again.")]
    Rule(RevokeRuleOptions),
}

#[derive(Args, Debug)]
pub(crate) struct RevokeSerialOptions {
    /// Serial number, hexadecimal, as `signet get agents -o json` shows it
    #[arg(value_name = "SERIAL", required_unless_present = "file", conflicts_with = "file")]
    pub(crate) serial: Option<String>,
    /// File of serial numbers, one to a line
    #[arg(long, value_name = "FILE")]
    pub(crate) file: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) revoke: RevokeOptions,
}

#[derive(Args, Debug)]
pub(crate) struct RevokeIdOptions {
    #[arg(value_name = "ID")]
    pub(crate) spiffe_id: WorkloadId,
    #[command(flatten)]
    pub(crate) revoke: RevokeOptions,
}

#[derive(Args, Debug)]
pub(crate) struct RevokeKeyOptions {
    /// File with a PEM block `PUBLIC KEY`, or the SHA-256 of a SubjectPublicKeyInfo, hexadecimal
    #[arg(value_name = "FILE|SHA256")]
    pub(crate) key: String,
    #[command(flatten)]
    pub(crate) revoke: RevokeOptions,
}

#[derive(Args, Debug)]
pub(crate) struct RevokeAgentOptions {
    /// As `signet get agents` numbers it
    #[arg(value_name = "NUMBER")]
    pub(crate) number: u64,
    #[command(flatten)]
    pub(crate) revoke: RevokeOptions,
}

#[derive(Args, Debug)]
pub(crate) struct RevokeAuthorityOptions {
    /// Its subject key identifier, as `signet status` shows it
    #[arg(value_name = "KEY_ID")]
    pub(crate) key_id: String,
    /// Also where valid certificates hang on it
    #[arg(long)]
    pub(crate) force: bool,
    #[command(flatten)]
    pub(crate) revoke: RevokeOptions,
}

#[derive(Args, Debug)]
pub(crate) struct RevokeRuleOptions {
    #[arg(value_name = "NAME")]
    pub(crate) rule: String,
    #[command(flatten)]
    pub(crate) revoke: RevokeOptions,
}

/// How something is revoked.
#[derive(Args, Debug)]
pub(crate) struct RevokeOptions {
    /// Why: it stands in the CRL, too
    #[arg(long, short, value_parser = reason(), value_name = "REASON")]
    pub(crate) reason: Reason,
    /// The same in words, for those who read the list
    #[arg(long, short, alias = "comment", default_value = "", hide_default_value = true, value_name = "TEXT")]
    pub(crate) message: String,
    /// Show what it would come to, and revoke nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Do not ask
    #[arg(long, short)]
    pub(crate) yes: bool,
    /// Do not wait for connected clients to put it in force
    #[arg(long, conflicts_with = "wait")]
    pub(crate) no_wait: bool,
    /// How long to wait for them
    #[arg(long, value_parser = duration, default_value = "10s", value_name = "DURATION")]
    pub(crate) wait: Duration,
    #[command(flatten)]
    pub(crate) issuer: IssuerOptions,
}

/// A CRLReason by its name.
pub(super) fn reason() -> impl TypedValueParser<Value = Reason> {
    let values = Reason::ALL.map(|reason| PossibleValue::new(reason.as_str()).help(meaning(reason)));
    let named = |name: String| Reason::ALL.into_iter().find(|reason| reason.as_str() == name);
    PossibleValuesParser::new(values).try_map(move |name| named(name).ok_or("no reason"))
}

fn meaning(reason: Reason) -> &'static str {
    match reason {
        Reason::KeyCompromise => "Somebody else has the key, or may have it",
        Reason::CaCompromise => "Of a CA: somebody else has its key, or may have it",
        Reason::AffiliationChanged => "Its name is not right any more",
        Reason::Superseded => "There is another one instead",
        Reason::CessationOfOperation => "It is needed no more",
        Reason::PrivilegeWithdrawn => "It was allowed something that it is allowed no more",
    }
}

#[derive(Args, Debug)]
pub(crate) struct RevocationsOptions {
    /// Only those for this reason
    #[arg(long, value_parser = reason(), value_name = "REASON")]
    pub(crate) reason: Option<Reason>,
    /// Only those of the last 10m, 24h, 7d …
    #[arg(long, value_parser = duration, value_name = "DURATION")]
    pub(crate) within: Option<Duration>,
    #[command(flatten)]
    pub(crate) issuer: IssuerOptions,
}
