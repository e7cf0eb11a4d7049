//! The options of reports of the audit log.

use std::path::PathBuf;

use clap::Args;
use signet_audit::VerifierKey;
use signet_audit::report::Format;
use time::OffsetDateTime;

use super::{IssuerOptions, KeyOptions, moment};

#[derive(Args, Debug)]
#[command(after_help = "Examples:
  signet audit report --from 2026-11-01 --to 2026-12-01 --out november.html
  signet audit report --format csv --out issued.csv
  signet audit report --from 2026-11-28T08:00:00Z --format json | jq length
  signet audit report /srv/audit --key-file log.key.pub --from 2026-11-01 --out november.csv

The issuer signs its reports: beside FILE there is FILE.sig, for `signet audit verify-report`. What is made of a copy of a log is not signed, and the
same to the byte. Dates are UTC, and begin at midnight; --to is not in the report.")]
pub(crate) struct AuditReportOptions {
    /// Folder or URL of a log, to make it of that instead of asking an issuer
    #[arg(value_name = "DIR|URL", requires = "log_key")]
    pub(crate) log: Option<String>,
    #[command(flatten)]
    pub(crate) key: LogKeyOptions,
    /// Begin of the time that is reported [default: 30 days before its end]
    #[arg(long, value_name = "TIME", value_parser = moment)]
    pub(crate) from: Option<OffsetDateTime>,
    /// End of it, which is over where the issuer makes the report [default: now]
    #[arg(long, value_name = "TIME", value_parser = moment)]
    pub(crate) to: Option<OffsetDateTime>,
    /// csv, json or html [default: as FILE ends, else csv]
    #[arg(long, value_name = "FORMAT")]
    pub(crate) format: Option<Format>,
    /// Where to write the report; never overwrites [default: standard output]
    #[arg(long, value_name = "FILE")]
    pub(crate) out: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) issuer: IssuerOptions,
}

/// As [`KeyOptions`], where a log is named.
#[derive(Args, Debug)]
#[group(id = "log_key", multiple = false, requires = "log")]
pub(crate) struct LogKeyOptions {
    /// The log's public key, as ORIGIN+HASH+KEY
    #[arg(long, value_name = "KEY")]
    pub(crate) key: Option<VerifierKey>,
    /// File with the log's public key
    #[arg(long, value_name = "FILE")]
    pub(crate) key_file: Option<PathBuf>,
}

#[derive(Args, Debug)]
#[command(after_help = "Example:
  signet audit verify-report november.csv https://issuer.example.org/audit --key-file log.key.pub

Checks that the issuer signed the report, and that its log still begins with what the report was made of; then makes it again, and compares line by
line. The log is read and verified as by `signet audit verify`.")]
pub(crate) struct AuditVerifyReportOptions {
    /// What `signet audit report` wrote
    #[arg(value_name = "FILE")]
    pub(crate) report: PathBuf,
    /// Folder or URL of the log
    #[arg(value_name = "DIR|URL")]
    pub(crate) log: String,
    #[command(flatten)]
    pub(crate) key: KeyOptions,
    /// What the issuer signed [default: FILE.sig]
    #[arg(long, value_name = "FILE")]
    pub(crate) signature: Option<PathBuf>,
}
