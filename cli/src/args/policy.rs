//! The options of the verbs that are about the policy.

use std::path::PathBuf;

use clap::Args;

use super::IssuerOptions;

#[derive(Args, Debug)]
#[command(after_help = "Examples:
  signet apply -f policy/                 show what would change, ask, apply
  signet apply -f policy/ --dry-run       show it and change nothing
  signet apply -f policy/ --prune --yes   make the policy exactly what the folder says

Rules that are in none of the files stay as they are, unless --prune is given.")]
pub(crate) struct ApplyOptions {
    /// File, or folder of files, with rules; may be given several times
    #[arg(short, long = "file", value_name = "PATH", required = true)]
    pub(crate) files: Vec<PathBuf>,
    /// Remove the rules that are in none of the files
    #[arg(long)]
    pub(crate) prune: bool,
    #[command(flatten)]
    pub(crate) change: ChangeOptions,
    #[command(flatten)]
    pub(crate) issuer: IssuerOptions,
}

/// How the policy is changed.
#[derive(Args, Debug)]
pub(crate) struct ChangeOptions {
    /// Show what would change, and change nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Do not ask
    #[arg(long, short)]
    pub(crate) yes: bool,
    /// Why, for those who read the history
    #[arg(long, short, default_value = "", hide_default_value = true, value_name = "TEXT")]
    pub(crate) message: String,
}

#[derive(Args, Debug)]
pub(crate) struct RevisionOptions {
    /// An earlier revision; the present one where none is given
    #[arg(long, value_name = "NUMBER")]
    pub(crate) revision: Option<u64>,
    #[command(flatten)]
    pub(crate) issuer: IssuerOptions,
}

#[derive(Args, Debug)]
#[command(after_help = "Examples:
  signet diff -f policy/      what `signet apply` would change
  signet diff 12              what has changed since revision 12
  signet diff 12 14           what changed between the two")]
pub(crate) struct DiffOptions {
    /// Compare files with the policy in force
    #[arg(short, long = "file", value_name = "PATH", conflicts_with = "from")]
    pub(crate) files: Vec<PathBuf>,
    /// With -f: show the rules that are in none of the files as removed
    #[arg(long, requires = "files")]
    pub(crate) prune: bool,
    /// The older revision
    #[arg(value_name = "REVISION", required_unless_present = "files")]
    pub(crate) from: Option<u64>,
    /// The newer one; the present one where none is given
    #[arg(value_name = "REVISION")]
    pub(crate) to: Option<u64>,
    /// Leave with 1 when there is a difference
    #[arg(long)]
    pub(crate) exit_code: bool,
    #[command(flatten)]
    pub(crate) issuer: IssuerOptions,
}

#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  signet history\n  signet history --limit 1000 -o json")]
pub(crate) struct HistoryOptions {
    /// How many revisions, the latest first
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=1000), value_name = "NUMBER")]
    pub(crate) limit: u32,
    #[command(flatten)]
    pub(crate) issuer: IssuerOptions,
}

#[derive(Args, Debug)]
#[command(after_help = "Examples:
  signet rollback           undo the last change
  signet rollback 12        make revision 12 the policy again

A rollback is a new revision: it can be rolled back too.")]
pub(crate) struct RollbackOptions {
    /// The revision to go back to; the one before the present one where none is given
    pub(crate) revision: Option<u64>,
    #[command(flatten)]
    pub(crate) change: ChangeOptions,
    #[command(flatten)]
    pub(crate) issuer: IssuerOptions,
}

#[derive(Args, Debug)]
#[command(after_help = "Examples:
  signet explain spiffe://example.org/ns/shop/sa/cart
  signet explain 17
  signet explain -a k8s.cluster=prod -a k8s.namespace=shop -a k8s.service_account=cart")]
pub(crate) struct ExplainOptions {
    /// A SPIFFE ID: which rules could give it and to whom; or an agent's number: what its attributes come to. With what was issued
    #[arg(required_unless_present = "attributes", conflicts_with = "attributes", value_name = "SPIFFE_ID|NUMBER", value_parser = super::agents::whose)]
    pub(crate) whose: Option<super::Whose>,
    /// What a caller with these attributes may be, and what each rule says of it
    #[arg(short, long = "attribute", value_name = "NAME=VALUE", value_parser = attribute)]
    pub(crate) attributes: Vec<(String, String)>,
    #[command(flatten)]
    pub(crate) issuer: IssuerOptions,
}

fn attribute(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("write NAME=VALUE, for example k8s.namespace=shop")?;
    Ok((name.to_owned(), value.to_owned()))
}
