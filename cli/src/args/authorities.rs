//! The options of the verbs that are about the issuer's authorities.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::{IssuerOptions, RotateJwtKeyOptions};

#[derive(Args, Debug)]
#[command(after_help = "Examples:
  signet ca csr --out authority.csr             a request for the next authority
  signet ca csr --count 4 --out authority.csr   for four, to be signed in one ceremony

The issuer makes the keys, which never leave it. Those that wait for a certificate already are among them. Take the file to
the root, `signet ca sign` it, and bring the result back by `signet ca import`.")]
pub(crate) struct CaCsrOptions {
    /// How many requests are to wait
    #[arg(long, value_name = "NUMBER", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=16))]
    pub(crate) count: u32,
    /// Give up a request that waits, by its key, which is destroyed; may be given several times
    #[arg(long, value_name = "KEY")]
    pub(crate) discard: Vec<String>,
    /// Where to write them, PEM; never overwrites
    #[arg(long, value_name = "FILE")]
    pub(crate) out: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) issuer: IssuerOptions,
}

#[derive(Args, Debug)]
#[command(after_help = "Example:
  signet ca import authority.pem

All certificates of the file are taken, or none. An issuer without an authority signs with the first one at once; else they
are ready to follow, and `signet rotate authority` has them do so.")]
pub(crate) struct CaImportOptions {
    /// What `signet ca sign` wrote
    #[arg(value_name = "FILE")]
    pub(crate) certificates: PathBuf,
    #[command(flatten)]
    pub(crate) issuer: IssuerOptions,
}

#[derive(Debug, Subcommand)]
pub(crate) enum RotateCommand {
    /// Have the next authority sign, once all that are connected would believe it
    Authority(RotateAuthorityOptions),
    /// Replace the root, once nobody needs it any more
    Root(RotateRootOptions),
    /// Have another key sign tokens, once it is known
    JwtKey(RotateJwtKeyOptions),
    /// How far the rotation has come, and who has not acknowledged it
    Status(RotateStatusOptions),
    /// End the rotation that is under way; what it has done stays
    #[command(after_help = "Example:\n  signet rotate cancel")]
    Cancel(IssuerOptions),
}

/// How a rotation is begun.
#[derive(Args, Debug)]
pub(crate) struct BeginOptions {
    /// Show what would be done, and do nothing (the default)
    #[arg(long, conflicts_with = "apply")]
    pub(crate) plan: bool,
    /// Do it, and follow it to its end
    #[arg(long)]
    pub(crate) apply: bool,
    /// Do not ask
    #[arg(long, short, requires = "apply")]
    pub(crate) yes: bool,
    /// Do not follow it: the issuer carries it out by itself
    #[arg(long, requires = "apply")]
    pub(crate) no_wait: bool,
    /// Wait for nobody who has not acknowledged it; also for a rotation that is under way. On record, with your name
    #[arg(long = "override", requires = "apply")]
    pub(crate) hurry: bool,
    /// Why, for those who read afterwards
    #[arg(long, short, default_value = "", hide_default_value = true, value_name = "TEXT")]
    pub(crate) message: String,
    #[command(flatten)]
    pub(crate) issuer: IssuerOptions,
}

#[derive(Args, Debug)]
#[command(after_help = "Examples:
  signet rotate authority                   what would be done
  signet rotate authority --apply           do it
  signet rotate authority --apply --yes --override -m 'two hosts are gone'

Against `signet dev` the next authority is signed by itself.")]
pub(crate) struct RotateAuthorityOptions {
    /// Which one, by its key; else the one whose certificate came first
    #[arg(long, value_name = "KEY")]
    pub(crate) successor: Option<String>,
    #[command(flatten)]
    pub(crate) begin: BeginOptions,
}

#[derive(Args, Debug)]
#[command(after_help = "Examples:
  signet rotate root --root next/root.pem           what would be done
  signet rotate root --root next/root.pem --apply   do it
  signet rotate root --apply                        against `signet dev`, which makes the next root itself

The next root is made by `signet ca init` where it stays offline. Once it is trusted beside the one before, the issuer waits
for an authority that it has signed (`signet ca csr`, `signet ca sign`, `signet ca import`).")]
pub(crate) struct RotateRootOptions {
    /// The next root's certificate, PEM
    #[arg(long, value_name = "FILE")]
    pub(crate) root: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) begin: BeginOptions,
}

#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  signet rotate status\n  signet rotate status --watch")]
pub(crate) struct RotateStatusOptions {
    /// Follow it to its end
    #[arg(long, short)]
    pub(crate) watch: bool,
    #[command(flatten)]
    pub(crate) issuer: IssuerOptions,
}

#[derive(Args, Debug)]
#[command(after_help = "Example:
  signet taint 3f1c0d5ab2e4987610fedcba98765432deadbeef -m 'its host was broken into'

All who hold a certificate that the authority signed renew it, spread so that there is room for others. It must have retired:
rotate first. A key of tokens signs no more, and another one does at once; what it has signed stays good until it expires.")]
pub(crate) struct TaintOptions {
    /// The authority's key, as `signet get authorities` has it; or a key of tokens, as `signet get jwt-keys` does
    pub(crate) key: String,
    /// Why, for those who read afterwards
    #[arg(long, short, default_value = "", hide_default_value = true, value_name = "TEXT")]
    pub(crate) message: String,
    #[command(flatten)]
    pub(crate) issuer: IssuerOptions,
}
