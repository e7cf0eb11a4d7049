//! The options of those who read entries of an audit log.

use clap::Args;
use signet_policy::Pattern;
use time::OffsetDateTime;

use super::{LogOptions, moment};
use crate::revocations::read_serial;

/// Which entries are shown: those that all of it fits.
#[derive(Args, Debug)]
pub(crate) struct EntryFilter {
    /// Of this kind, such as `x509_issued`; several by commas
    #[arg(long, value_delimiter = ',', value_name = "ACT")]
    pub(crate) act: Vec<String>,
    /// By whoever did it, as `uid:0` or a SPIFFE ID
    #[arg(long, value_name = "ACTOR")]
    pub(crate) actor: Option<String>,
    /// About these SPIFFE IDs; `*` stands for any characters
    #[arg(long, value_name = "PATTERN")]
    pub(crate) identity: Option<Pattern>,
    /// About the certificate with this serial number, hexadecimal
    #[arg(long, value_parser = serial, value_name = "SERIAL")]
    pub(crate) serial: Option<String>,
}

#[derive(Args, Debug)]
#[command(after_help = "Examples:
  signet audit tail http://127.0.0.1:8082/audit --key-file .signet/issuer/audit/log.key.pub --follow
  signet audit tail /srv/audit --key-file log.key.pub -n 1000 --act revoked,banned
  signet audit tail https://issuer.example.org/audit --key-file log.key.pub --follow -o json | jq .

What is shown was compared with the signed checkpoint before. --follow goes on while the log is away, and ends with 1 where it was set back, replaced or
changed. With -o json, each line is an object: `index` and `entry`.")]
pub(crate) struct AuditTailOptions {
    #[command(flatten)]
    pub(crate) log: LogOptions,
    #[command(flatten)]
    pub(crate) filter: EntryFilter,
    /// So many of the last entries; of those that fit a filter, among the last 100,000
    #[arg(short = 'n', long, default_value_t = 10, value_name = "NUMBER")]
    pub(crate) lines: u32,
    /// Show what is logged from now on, too, until interrupted
    #[arg(short, long)]
    pub(crate) follow: bool,
}

#[derive(Args, Debug)]
#[command(after_help = "Examples:
  signet audit search /srv/audit --key-file log.key.pub --identity 'spiffe://example.org/shop/*' --from 2026-11-01
  signet audit search https://issuer.example.org/audit --key-file log.key.pub --serial 6d1f0c5ab2e4987610fedcba98765432 -o json
  signet audit search /srv/audit --key-file log.key.pub --actor uid:0 --act administered,policy_revised

The whole log is read and compared with its signed checkpoint. With -o json, each line is an object: `index` and `entry`.")]
pub(crate) struct AuditSearchOptions {
    #[command(flatten)]
    pub(crate) log: LogOptions,
    #[command(flatten)]
    pub(crate) filter: EntryFilter,
    /// From this day (UTC) or time on, as 2026-11-01 or 2026-11-01T09:00:00Z
    #[arg(long, value_parser = moment, value_name = "TIME")]
    pub(crate) from: Option<OffsetDateTime>,
    /// Until before this day or time
    #[arg(long, value_parser = moment, value_name = "TIME")]
    pub(crate) to: Option<OffsetDateTime>,
    /// Show so many at most
    #[arg(long, value_name = "NUMBER")]
    pub(crate) limit: Option<u64>,
}

/// As entries have it, however it is written elsewhere.
fn serial(text: &str) -> Result<String, String> {
    read_serial(text).map(hex::encode).ok_or_else(|| "no serial number: write it in hexadecimal".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_serial_number_is_read_as_reports_and_others_print_it() {
        for text in ["6d0F", "6D:0f", "0x6d0f", " 6d0f"] {
            assert_eq!(serial(text).as_deref(), Ok("6d0f"), "{text}");
        }
        for text in ["", "zz", "6d-0f"] {
            assert!(serial(text).is_err(), "{text}");
        }
    }
}
