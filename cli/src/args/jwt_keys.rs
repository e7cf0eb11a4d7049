//! The options of the verbs that are about the keys of tokens.

use clap::Args;

use super::{IssuerOptions, RevokeOptions};

#[derive(Args, Debug)]
#[command(after_help = "Examples:
  signet rotate jwt-key                     the keys as they are
  signet rotate jwt-key --apply             have another one sign

The next key is published at once. It signs once it was published for `jwt.publish_ahead`, and the connected clients have it in
force; `signet get jwt-keys` shows how far that is.")]
pub(crate) struct RotateJwtKeyOptions {
    /// Show the keys as they are, and do nothing (the default)
    #[arg(long, conflicts_with = "apply")]
    pub(crate) plan: bool,
    /// Do it
    #[arg(long)]
    pub(crate) apply: bool,
    /// Do not ask
    #[arg(long, short, requires = "apply")]
    pub(crate) yes: bool,
    /// Why, for those who read afterwards
    #[arg(long, short, default_value = "", hide_default_value = true, value_name = "TEXT")]
    pub(crate) message: String,
    #[command(flatten)]
    pub(crate) issuer: IssuerOptions,
}

#[derive(Args, Debug)]
pub(crate) struct RevokeJwtKeyOptions {
    /// As `signet get jwt-keys` shows it
    #[arg(value_name = "KID")]
    pub(crate) kid: String,
    /// Also the one that signs now: another one does at once
    #[arg(long)]
    pub(crate) force: bool,
    #[command(flatten)]
    pub(crate) revoke: RevokeOptions,
}
