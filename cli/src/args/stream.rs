//! The options of `signet audit stream`.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use clap::{Args, ValueEnum};

use super::{LogOptions, duration};

#[derive(Args, Debug)]
#[command(after_help = "Examples:
  signet audit stream /var/lib/signet/audit/log --key-file log.key.pub --to jsonl:/var/log/signet/audit.jsonl --cursor audit.cursor
  signet audit stream https://issuer.example.org/audit --key-file log.key.pub --to syslog+tls://siem.example.org:6514 \\
      --ca-file siem-ca.pem --certificate exporter.pem --certificate-key exporter.key --cursor siem.cursor
  signet audit stream /srv/audit --key-file log.key.pub --to otlp://127.0.0.1:4317 --cursor otlp.cursor

Each entry is compared with the signed checkpoint before it is sent, and none is left out: the cursor is written after the receiver has what is
before it. After a start or an outage, what was sent last may come again. Ends with 1 where the log was set back, replaced or changed.")]
pub(crate) struct AuditStreamOptions {
    #[command(flatten)]
    pub(crate) log: LogOptions,
    /// Where to: jsonl:FILE (`-` for standard output), syslog+tls://HOST:PORT, otlp+tls://HOST:PORT, or otlp://HOST:PORT without TLS
    #[arg(long, value_name = "RECEIVER")]
    pub(crate) to: Target,
    /// File in which it is written down how far the receiver has the log; one for each receiver
    #[arg(long, value_name = "FILE")]
    pub(crate) cursor: PathBuf,
    /// Send what is there, and end; with 1 where that does not work at once
    #[arg(long)]
    pub(crate) once: bool,
    /// So many entries at a time, at most
    #[arg(long, default_value_t = 2000, value_name = "NUMBER", value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub(crate) batch: u32,
    /// The receiver has to answer within this time
    #[arg(long, value_parser = duration, default_value = "30s", value_name = "DURATION")]
    pub(crate) timeout: Duration,
    /// Authorities by which the receiver is believed, PEM [default: those of the system]
    #[arg(long, value_name = "FILE")]
    pub(crate) ca_file: Option<PathBuf>,
    /// Certificate to show to the receiver, with its chain, PEM
    #[arg(long, value_name = "FILE", requires = "certificate_key")]
    pub(crate) certificate: Option<PathBuf>,
    /// Its key, PEM
    #[arg(long, value_name = "FILE", requires = "certificate")]
    pub(crate) certificate_key: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) syslog: SyslogOptions,
}

/// How syslog messages are.
#[derive(Args, Debug)]
pub(crate) struct SyslogOptions {
    /// Facility of syslog messages
    #[arg(long, value_enum, default_value_t, value_name = "NAME")]
    pub(crate) facility: Facility,
    /// Longest syslog message; of a longer entry, only what it is about is sent. Bytes
    #[arg(long, default_value_t = 8192, value_name = "BYTES", value_parser = clap::value_parser!(u32).range(2048..=1_048_576))]
    pub(crate) max_message: u32,
    /// Put log, index, act, SPIFFE ID and serial number into structured data of this name, NAME@NUMBER with your private enterprise number
    #[arg(long, value_name = "NAME@NUMBER")]
    pub(crate) sd_id: Option<SdId>,
    /// Take the end of the connection for an answer, for receivers that end TLS without one
    #[arg(long)]
    pub(crate) accept_tcp_close: bool,
}

/// Whoever entries are sent to.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Target {
    Lines(PathBuf),
    Syslog(HostPort),
    Otlp {
        address: HostPort,
        /// Without TLS.
        is_plain: bool,
    },
}

/// An IPv6 address is without its brackets.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct HostPort {
    pub(crate) host: String,
    pub(crate) port: u16,
}

/// RFC 5424 §6.3.2: the name of structured data that no registry has.
#[derive(Clone, Debug)]
pub(crate) struct SdId(String);

/// RFC 5424 §6.2.1.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, ValueEnum)]
pub(crate) enum Facility {
    Daemon = 3,
    Auth = 4,
    Authpriv = 10,
    /// Log audit
    #[default]
    Audit = 13,
    Local0 = 16,
    Local1 = 17,
    Local2 = 18,
    Local3 = 19,
    Local4 = 20,
    Local5 = 21,
    Local6 = 22,
    Local7 = 23,
}

impl FromStr for Target {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if let Some(path) = text.strip_prefix("jsonl:").filter(|path| !path.is_empty()) {
            return Ok(Self::Lines(path.into()));
        }
        let address = |scheme| Some(text.strip_prefix(scheme)?.trim_end_matches('/').parse::<HostPort>());
        if let Some(address) = address("syslog+tls://") {
            return Ok(Self::Syslog(address?));
        }
        if let Some(address) = address("otlp://") {
            let address = address?;
            return match address.is_this_host() {
                true => Ok(Self::Otlp { address, is_plain: true }),
                false => Err(format!(
                    "{address} is another host: give otlp+tls://, what is sent is nobody else's to read or change"
                )),
            };
        }
        if let Some(address) = address("otlp+tls://") {
            return Ok(Self::Otlp { address: address?, is_plain: false });
        }
        Err("give jsonl:FILE, syslog+tls://HOST:PORT, otlp+tls://HOST:PORT or otlp://HOST:PORT".to_owned())
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Lines(path) => write!(f, "jsonl:{}", path.display()),
            Self::Syslog(address) => write!(f, "syslog+tls://{address}"),
            Self::Otlp { address, is_plain: true } => write!(f, "otlp://{address}"),
            Self::Otlp { address, is_plain: false } => write!(f, "otlp+tls://{address}"),
        }
    }
}

impl HostPort {
    /// Whether what is sent there never leaves this machine.
    fn is_this_host(&self) -> bool {
        let is_loopback = |address: std::net::IpAddr| address.is_loopback();
        self.host == "localhost" || self.host.parse().is_ok_and(is_loopback)
    }
}

impl FromStr for HostPort {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (host, port) = text.rsplit_once(':').ok_or("give the port, too, as HOST:PORT")?;
        let is_address = host.starts_with('[') && host.ends_with(']');
        let host = if is_address { &host[1..host.len() - 1] } else { host };
        let port = port.parse().ok().filter(|port| *port > 0).ok_or_else(|| format!("{port:?} is no port"))?;
        match !host.is_empty() && (is_address || !host.contains([':', '/', '@'])) {
            true => Ok(Self { host: host.to_owned(), port }),
            false => Err(format!("{host:?} is no host")),
        }
    }
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host.contains(':') {
            true => write!(f, "[{}]:{}", self.host, self.port),
            false => write!(f, "{}:{}", self.host, self.port),
        }
    }
}

impl SdId {
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for SdId {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let is_name = |name: &str| {
            !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_graphic() && !b"=]\"@".contains(&byte))
        };
        let is_number = |number: &str| !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit() || b == b'.');
        let is_one = text.len() <= 32 && text.split_once('@').is_some_and(|(a, b)| is_name(a) && is_number(b));
        match is_one {
            true => Ok(Self(text.to_owned())),
            false => Err("give NAME@NUMBER, at most 32 characters".to_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_receiver_is_read_as_it_is_written() {
        for text in [
            "jsonl:/var/log/a b",
            "jsonl:-",
            "syslog+tls://siem.example.org:6514",
            "syslog+tls://[::1]:1",
            "otlp://127.0.0.1:4317",
            "otlp://localhost:4317",
            "otlp://[::1]:4317",
            "otlp+tls://a:4317",
        ] {
            assert_eq!(text.parse::<Target>().unwrap().to_string(), text);
        }
        for wrong in [
            "",
            "jsonl:",
            "syslog://a:1",
            "syslog+tls://a",
            "syslog+tls://:1",
            "syslog+tls://a:0",
            "syslog+tls://::1:1",
            "otlp://collector:4317",
            "otlp://192.0.2.1:4317",
        ] {
            wrong.parse::<Target>().unwrap_err();
        }
    }

    #[test]
    fn the_name_of_structured_data_has_a_number() {
        for good in ["signet@1", "a@1.2"] {
            assert_eq!(good.parse::<SdId>().unwrap().as_str(), good);
        }
        for wrong in ["signet", "@1", "a@", "a@b", "a b@1", "a]@1", "a@1@2", "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa@1"] {
            wrong.parse::<SdId>().unwrap_err();
        }
    }
}
