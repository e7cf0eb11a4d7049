//! The options of the verbs that are about what was issued.

use std::time::Duration;

use clap::{Args, ValueEnum};
use signet_policy::Pattern;

use super::{IssuerOptions, duration};

#[derive(Args, Debug)]
pub(crate) struct SvidsOptions {
    /// Only those whose SPIFFE ID is it; each `*` stands for any characters, `/` too
    #[arg(long, value_name = "PATTERN")]
    pub(crate) spiffe_id: Option<Pattern>,
    /// Only those that are valid, and will not be in 10m, 24h, 7d …
    #[arg(long, value_parser = duration, value_name = "DURATION", conflicts_with_all = ["expired", "all"])]
    pub(crate) expiring: Option<Duration>,
    /// Only those that this authority signed, as `signet get authorities` shows it
    #[arg(long, value_name = "KEY_ID")]
    pub(crate) authority: Option<String>,
    /// Only those of one attestation, as `signet get agents` numbers it
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) agent: Option<u64>,
    /// Only those that this rule of the policy gave
    #[arg(long, value_name = "NAME")]
    pub(crate) rule: Option<String>,
    /// Only those of this profile
    #[arg(long, value_name = "NAME")]
    pub(crate) profile: Option<String>,
    /// Only those that are revoked, by themselves or with their authority; expired or not
    #[arg(long, conflicts_with_all = ["expired", "all"])]
    pub(crate) revoked: bool,
    /// Only those that have expired, as far as they are on record
    #[arg(long, conflicts_with = "all")]
    pub(crate) expired: bool,
    /// Also those that have expired
    #[arg(long)]
    pub(crate) all: bool,
    /// In which order; without it, in the one in which they are found soonest
    #[arg(long, value_enum, value_name = "ORDER")]
    pub(crate) sort: Option<SvidSort>,
    /// The other way round
    #[arg(long)]
    pub(crate) descending: bool,
    /// How many, at most
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=1_000_000), value_name = "NUMBER")]
    pub(crate) limit: u32,
    #[command(flatten)]
    pub(crate) issuer: IssuerOptions,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum SvidSort {
    /// As they were issued
    Issued,
    /// The first to expire first
    Expiry,
    /// By their SPIFFE IDs
    SpiffeId,
}

#[derive(Args, Debug)]
#[command(after_help = "Examples:
  signet describe 4198f02b6c1ad34e5f60718293a4b5c6
  signet describe 41:98:F0:2B:6C:1A:D3:4E:5F:60:71:82:93:A4:B5:C6 -o json")]
pub(crate) struct DescribeOptions {
    /// Serial number, hexadecimal, as `signet get svids` and other programs show it
    #[arg(value_name = "SERIAL")]
    pub(crate) serial: String,
    #[command(flatten)]
    pub(crate) issuer: IssuerOptions,
}
