//! The options of the audit log.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand};
use signet_audit::{VerifierKey, WitnessKey};
use time::OffsetDateTime;

use signet_policy::Pattern;

use super::{
    AuditNewLogOptions, AuditReportOptions, AuditSearchOptions, AuditStreamOptions, AuditTailOptions,
    AuditVerifyReportOptions, IssuerOptions, duration, moment,
};

#[derive(Debug, Subcommand)]
pub(crate) enum AuditCommand {
    /// Check a whole log: each entry, each hash, and that it only grew since it was checked last
    Verify(AuditVerifyOptions),
    /// Make a proof that a log has the entry of a certificate, or any other entry
    Prove(AuditProveOptions),
    /// Check such a proof: with the public key of the log, and nothing else
    VerifyProof(AuditVerifyProofOptions),
    /// The last entries of a log, and those that come
    Tail(AuditTailOptions),
    /// The entries of a log that somebody, or something, is about
    Search(AuditSearchOptions),
    /// Hand a log on to a receiver as it grows: a file of JSON lines, syslog, or OpenTelemetry
    Stream(AuditStreamOptions),
    /// Copy a log's files
    Export(AuditExportOptions),
    /// Follow logs, and tell of what is wrong with them, and of what is issued for identities that you watch
    Monitor(AuditMonitorOptions),
    /// The digests of a log: what was logged in each hour
    #[command(subcommand)]
    Digest(AuditDigestCommand),
    /// End the log of an issuer that was restored from a backup: its next start begins another, which names this one
    NewLog(AuditNewLogOptions),
    /// Report what was issued and revoked in some time: for spreadsheets, for programs, or as a page
    Report(AuditReportOptions),
    /// Check a report: its signature, and that the log says the same
    VerifyReport(AuditVerifyReportOptions),
}

#[derive(Debug, Subcommand)]
pub(crate) enum AuditDigestCommand {
    /// Check the digests of a log: that none was changed or taken out, and that the log is still what they say
    Verify(AuditDigestVerifyOptions),
}

/// A log, and its public key.
#[derive(Args, Debug)]
pub(crate) struct LogOptions {
    /// Folder or URL of the log: what is below it is `checkpoint` and `tile/`
    #[arg(value_name = "DIR|URL")]
    pub(crate) log: String,
    #[command(flatten)]
    pub(crate) key: KeyOptions,
}

#[derive(Args, Debug)]
#[group(required = true, multiple = false)]
pub(crate) struct KeyOptions {
    /// The log's public key, as ORIGIN+HASH+KEY
    #[arg(long, value_name = "KEY")]
    pub(crate) key: Option<VerifierKey>,
    /// File with the log's public key, such as `audit/log.key.pub` in the issuer's state folder
    #[arg(long, value_name = "FILE")]
    pub(crate) key_file: Option<PathBuf>,
}

#[derive(Args, Debug)]
#[command(after_help = "Examples:
  signet audit verify /var/lib/signet/audit/log --key-file log.key.pub
  signet audit verify https://issuer.example.org/audit --key-file log.key.pub --max-age 1m
  signet audit verify https://issuer.example.org/audit --key-file log.key.pub --policy witnesses.policy
  signet audit verify https://issuer.example.org/audit --key-file log.key.pub --witness w1.example.net+… --witness w2.example.net+… --quorum 1

Have the public key from the people who run the issuer, not from the place that the log is in. What was verified is written down, so that
the next time only what is new is read, and a log that was replaced or set back is found out.")]
pub(crate) struct AuditVerifyOptions {
    #[command(flatten)]
    pub(crate) log: LogOptions,
    /// Refuse a checkpoint that is older
    #[arg(long, value_parser = duration, value_name = "DURATION")]
    pub(crate) max_age: Option<Duration>,
    /// Where it is written down how far the log was verified [default: a file for each key in ~/.local/state/signet/audit]
    #[arg(long, value_name = "FILE")]
    pub(crate) state: Option<PathBuf>,
    /// Read all of it again
    #[arg(long)]
    pub(crate) whole: bool,
    #[command(flatten)]
    pub(crate) witnesses: WitnessOptions,
}

/// Who has to have cosigned a log.
#[derive(Args, Debug)]
pub(crate) struct WitnessOptions {
    /// Public key of a witness that has to have cosigned, as NAME+HASH+KEY; may be given again
    #[arg(long, value_name = "KEY")]
    pub(crate) witness: Vec<WitnessKey>,
    /// So many of them are enough [default: all]
    #[arg(long, value_name = "NUMBER", requires = "witness")]
    pub(crate) quorum: Option<usize>,
    /// File with the witnesses and their quorum, as c2sp.org/tlog-policy has it
    #[arg(long, value_name = "FILE", conflicts_with = "witness")]
    pub(crate) policy: Option<PathBuf>,
}

#[derive(Args, Debug)]
#[command(after_help = "Examples:
  signet audit prove 6d1f0c5ab2e4987610fedcba98765432 --log https://issuer.example.org/audit --key-file log.key.pub
  signet audit prove --index 70000 --log /var/lib/signet/audit/log --key-file log.key.pub --out entry.tlog-proof

The proof holds the entry, and is for whoever has the log's public key. By a serial number, the log is read from its end until the entry is
found; an issuer that is there (--issuer, SIGNET_ISSUER) knows its place. What it says is compared with the log.")]
pub(crate) struct AuditProveOptions {
    /// Serial number of a certificate, hexadecimal
    #[arg(value_name = "SERIAL", required_unless_present = "index", conflicts_with = "index")]
    pub(crate) serial: Option<String>,
    /// Number of an entry, from 0
    #[arg(long, value_name = "NUMBER")]
    pub(crate) index: Option<u64>,
    /// Folder or URL of the log
    #[arg(long, value_name = "DIR|URL")]
    pub(crate) log: String,
    #[command(flatten)]
    pub(crate) key: KeyOptions,
    #[command(flatten)]
    pub(crate) issuer: IssuerOptions,
    /// Where to write the proof; never overwrites [default: standard output]
    #[arg(long, value_name = "FILE")]
    pub(crate) out: Option<PathBuf>,
    /// From the last checkpoint that a quorum of witnesses has cosigned
    #[arg(long)]
    pub(crate) witnessed: bool,
}

#[derive(Args, Debug)]
#[command(after_help = "Examples:
  signet audit verify-proof certificate.tlog-proof --key-file log.key.pub
  signet audit verify-proof certificate.tlog-proof --key-file log.key.pub --certificate svid.pem
  signet audit verify-proof certificate.tlog-proof --key-file log.key.pub --policy witnesses.policy")]
pub(crate) struct AuditVerifyProofOptions {
    /// What `signet audit prove` wrote
    #[arg(value_name = "FILE")]
    pub(crate) proof: PathBuf,
    #[command(flatten)]
    pub(crate) key: KeyOptions,
    /// That the entry is the issuing of this certificate, PEM
    #[arg(long, value_name = "FILE")]
    pub(crate) certificate: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) witnesses: WitnessOptions,
}

#[derive(Args, Debug)]
#[command(after_help = "Example:
  signet audit export https://issuer.example.org/audit --key-file log.key.pub --to /srv/audit

Only what is not there yet is copied; a copy that broke off goes on where it was. The checkpoint comes last.")]
pub(crate) struct AuditExportOptions {
    #[command(flatten)]
    pub(crate) log: LogOptions,
    /// Folder to copy into; made if it is not there
    #[arg(long, value_name = "DIR")]
    pub(crate) to: PathBuf,
}

#[derive(Args, Debug)]
#[command(after_help = "Examples:
  signet audit monitor https://eu-1.example.org/audit https://eu-2.example.org/audit --key-file eu-1.pub --key-file eu-2.pub --state /var/lib/monitor
  signet audit monitor https://issuer.example.org/audit /srv/audit --key-file log.key.pub --watch 'spiffe://example.org/payments/*' -o json
  signet audit monitor https://issuer.example.org/audit --key-file log.key.pub --state /var/lib/monitor --once

One line for each alert: fork, set_back, tampered, unreadable, late, future, issued. What lasts is told of once, and again when it comes back.
Several places that show the same log are held against each other. A log that was not seen before is read from its first entry.")]
pub(crate) struct AuditMonitorOptions {
    /// Folders and URLs of logs; several may be of the same log
    #[arg(value_name = "DIR|URL", required = true, num_args = 1..)]
    pub(crate) logs: Vec<String>,
    /// The public key of a log, as ORIGIN+HASH+KEY; may be given again
    #[arg(long, value_name = "KEY")]
    pub(crate) key: Vec<VerifierKey>,
    /// File with the public key of a log; may be given again
    #[arg(long, value_name = "FILE")]
    pub(crate) key_file: Vec<PathBuf>,
    /// Tell of each certificate and token that is issued for such a SPIFFE ID; each `*` stands for any characters, `/` too; may be given again
    #[arg(long, value_name = "PATTERN")]
    pub(crate) watch: Vec<Pattern>,
    /// Admin address of a gateway, as http://127.0.0.1:9901: tell of each certificate presented to it that is in none of the logs; may be given
    /// again
    #[arg(long, value_name = "URL")]
    pub(crate) gateway: Vec<String>,
    /// A certificate is to be in a log that was signed so long after it was presented
    #[arg(long, value_parser = duration, value_name = "DURATION", default_value = "30s")]
    pub(crate) grace: Duration,
    /// Tell of a checkpoint that is older
    #[arg(long, value_parser = duration, value_name = "DURATION", default_value = "10s")]
    pub(crate) max_age: Duration,
    /// Between two looks
    #[arg(long, value_parser = duration, value_name = "DURATION", default_value = "1s")]
    pub(crate) interval: Duration,
    /// Folder for what was seen of the logs; without it, each start reads all of them
    #[arg(long, value_name = "DIR")]
    pub(crate) state: Option<PathBuf>,
    /// Where to serve metrics, as 127.0.0.1:9904
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) metrics: Option<SocketAddr>,
    /// Look once, and end with 1 where there was an alert
    #[arg(long)]
    pub(crate) once: bool,
}

#[derive(Args, Debug)]
#[command(after_help = "Examples:
  signet audit digest verify https://issuer.example.org/audit --key-file log.key.pub
  signet audit digest verify /srv/audit --key-file log.key.pub --from 2026-11-01

There is one for each hour, also where nothing was logged: signed, chained to the one before, and with the size and root that the log had at its end.")]
pub(crate) struct AuditDigestVerifyOptions {
    #[command(flatten)]
    pub(crate) log: LogOptions,
    /// Go back no further than this: a day (UTC) or a time, as 2026-11-01 or 2026-11-01T09:00:00Z [default: the first one]
    #[arg(long, value_parser = moment, value_name = "TIME")]
    pub(crate) from: Option<OffsetDateTime>,
}
