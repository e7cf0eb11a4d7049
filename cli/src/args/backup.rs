//! The options of backups.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::{IssuerOptions, KeyOptions};

#[derive(Args, Debug)]
#[command(
    args_conflicts_with_subcommands = true,
    subcommand_negates_reqs = true,
    after_help = "Examples:
  signet backup keygen --out backup.secret
  signet backup --to signet-backup-v1+5f0c1d2e+mBq… --out issuer.backup

It is made while the issuer works, and is as all was at one moment: records, keys as they are sealed, audit log. Keys in a token are not in it, nor
is what opens the sealed ones, nor a PostgreSQL database, which has backups of its own. The private key rests with whoever restores, away from the
issuer."
)]
pub(crate) struct BackupOptions {
    #[command(subcommand)]
    pub(crate) command: Option<BackupCommand>,
    #[command(flatten)]
    pub(crate) issuer: IssuerOptions,
    /// Public key to encrypt to
    #[arg(long, value_name = "KEY", required = true)]
    pub(crate) to: Option<String>,
    /// Where to write the backup; never overwrites
    #[arg(long, value_name = "FILE", required = true)]
    pub(crate) out: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum BackupCommand {
    /// Make the key that backups are encrypted to: the private one to a file, the public one is shown
    Keygen(BackupKeygenOptions),
}

#[derive(Args, Debug)]
#[command(after_help = "Example:\n  signet backup keygen --out backup.secret")]
pub(crate) struct BackupKeygenOptions {
    /// Where to write the private key; never overwrites
    #[arg(long, value_name = "FILE")]
    pub(crate) out: PathBuf,
}

#[derive(Args, Debug)]
#[command(after_help = "Examples:
  signet restore issuer.backup --secret-file backup.secret --key-file log.key.pub --to /var/lib/signet-issuer
  signet restore issuer.backup --secret-file backup.secret --key-file log.key.pub --to state --log https://issuer.example.org/audit

An audit log never forks: an issuer that was restored does not start before it is known what its log published last. Either say where that is by --log or
`audit.export`; it starts where the backup has all of it. Or run `signet audit new-log`: another log begins, which names this one.")]
pub(crate) struct RestoreOptions {
    /// What `signet backup` wrote
    #[arg(value_name = "FILE")]
    pub(crate) backup: PathBuf,
    /// File with the private key, as `signet backup keygen` wrote it
    #[arg(long, value_name = "FILE")]
    pub(crate) secret_file: PathBuf,
    #[command(flatten)]
    pub(crate) key: KeyOptions,
    /// State folder to restore into: one that is not there yet, or is empty
    #[arg(long, value_name = "DIR")]
    pub(crate) to: PathBuf,
    /// Folder or URL of the log as it was published last
    #[arg(long, value_name = "DIR|URL")]
    pub(crate) log: Option<String>,
}

#[derive(Args, Debug)]
#[command(after_help = "Examples:
  signet audit new-log --state /var/lib/signet-issuer --log s3-mirror/audit
  signet audit new-log --state /var/lib/signet-issuer

For an issuer that was restored from a backup, whose log others have seen more of. The issuer must not run. Its next start begins a log with another key and
name, whose first entry says what the old one was; the old one's files are kept beside it, and both are verified as before.")]
pub(crate) struct AuditNewLogOptions {
    /// State folder of the issuer
    #[arg(long, value_name = "DIR")]
    pub(crate) state: PathBuf,
    /// Folder or URL of the log as it was published last [default: what is in the state folder]
    #[arg(long, value_name = "DIR|URL")]
    pub(crate) log: Option<String>,
    /// Accept that what is on record and was not published is in no log
    #[arg(long)]
    pub(crate) leave_unpublished: bool,
}
