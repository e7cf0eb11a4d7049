//! The command line, as `--help` shows it.

mod agents;
mod audit;
mod authorities;
mod backup;
mod ca;
mod federation;
mod follow;
mod jwt;
mod jwt_keys;
mod policy;
mod reports;
mod revocations;
mod stream;
mod svids;
mod tail;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use clap_complete::Shell;
use signet_audit::report::Window;
use signet_process::logging::LogLevel;
use time::OffsetDateTime;

use crate::output::Format;

pub(crate) use agents::{AgentsOptions, BanOptions, EvictOptions, UnbanOptions, Whose};
pub(crate) use audit::{
    AuditCommand, AuditDigestCommand, AuditDigestVerifyOptions, AuditExportOptions, AuditMonitorOptions,
    AuditProveOptions, AuditVerifyOptions, AuditVerifyProofOptions, KeyOptions, LogOptions, WitnessOptions,
};
pub(crate) use authorities::{
    BeginOptions, CaCsrOptions, CaImportOptions, RotateAuthorityOptions, RotateCommand, RotateRootOptions,
    RotateStatusOptions, TaintOptions,
};
pub(crate) use backup::{AuditNewLogOptions, BackupCommand, BackupKeygenOptions, BackupOptions, RestoreOptions};
pub(crate) use ca::{
    CaCrlOptions, CaInitOptions, CaLogOptions, CaSignOptions, CaVerifyLogOptions, CeremonyOptions, UnlockOptions,
};
pub(crate) use federation::{AddOptions, FederateCommand, PartnerOptions, ProfileName, RefreshOptions};
pub(crate) use follow::{CaFollowOptions, CredentialDetails, CredentialOptions};
pub(crate) use jwt::{FetchCommand, FetchJwtOptions};
pub(crate) use jwt_keys::{RevokeJwtKeyOptions, RotateJwtKeyOptions};
pub(crate) use policy::{
    ApplyOptions, ChangeOptions, DiffOptions, ExplainOptions, HistoryOptions, RevisionOptions, RollbackOptions,
};

pub(crate) use reports::{AuditReportOptions, AuditVerifyReportOptions};
pub(crate) use revocations::{RevocationsOptions, RevokeCommand, RevokeOptions};
pub(crate) use stream::{AuditStreamOptions, Facility, HostPort, SdId, SyslogOptions, Target};
pub(crate) use svids::{DescribeOptions, SvidSort, SvidsOptions};
pub(crate) use tail::{AuditSearchOptions, AuditTailOptions, EntryFilter};

/// Short-lived cryptographic identity for every workload
#[derive(Debug, Parser)]
#[command(version, propagate_version = true, disable_help_subcommand = true)]
pub(crate) struct Arguments {
    /// How to print results
    #[arg(short, long, value_enum, default_value_t, global = true)]
    pub(crate) output: Format,
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run a whole mesh in this process: root, issuer and two gateways, with identities that rotate
    Dev(DevOptions),
    /// The offline root: make it, sign intermediates with it, look at it; and the issuer's side of that
    #[command(subcommand)]
    Ca(CaCommand),
    /// Join tokens, with which a workload gets its first identity
    #[command(subcommand)]
    Token(TokenCommand),
    /// A certificate for a key of your own: for a server, for code that you sign, for a CA below this one
    Issue(IssueOptions),
    /// What you get by the identity that you have
    #[command(subcommand)]
    Fetch(FetchCommand),
    /// What the policy gives you: your identity, and what you may have beside it
    Entitlements(EntitlementsOptions),
    /// Make the rules of some files the policy: who may be what
    Apply(ApplyOptions),
    /// What an issuer has
    #[command(subcommand)]
    Get(GetCommand),
    /// What is different between files and the policy, or between two revisions of it
    Diff(DiffOptions),
    /// The revisions of the policy: what was changed when and by whom
    History(HistoryOptions),
    /// Make an earlier revision the policy again
    Rollback(RollbackOptions),
    /// The whole life of one certificate: to whom, how and by what it was given, and what became of it
    Describe(DescribeOptions),
    /// Why a caller has an identity or has none: which rules were tried, and what each came to
    Explain(ExplainOptions),
    /// End what somebody attested: streams at once, and renewal
    Evict(EvictOptions),
    /// Keep an identity from being attested, renewed and watched
    Ban(BanOptions),
    /// Have the next authority, or the next root, take over: nobody is cut off
    #[command(subcommand)]
    Rotate(RotateCommand),
    /// Have all that an authority signed renewed; or have a key of tokens sign no more
    Taint(TaintOptions),
    /// Revoke certificates, or a key of tokens, before their time: whoever relies on them is told at once. Nothing of it can be taken back
    #[command(subcommand)]
    Revoke(RevokeCommand),
    /// Take back what an issuer that is gone for good had its clients trust
    Forget(ForgetOptions),
    /// Other trust domains: whose bundles are fetched, and told to those whose rules say so
    #[command(subcommand)]
    Federate(FederateCommand),
    /// The log of all that an issuer did: whoever has its files and its public key can verify it
    #[command(subcommand)]
    Audit(AuditCommand),
    /// All that an issuer has, encrypted to a key that rests elsewhere; made while it works
    Backup(BackupOptions),
    /// Make the state folder of an issuer from a backup
    Restore(RestoreOptions),
    /// Lift a ban
    Unban(UnbanOptions),
    /// What the issuer is and how long its authority lasts
    Status(IssuerOptions),
    /// Print the completion script of a shell
    #[command(after_help = "Example:\n  signet completions bash > /etc/bash_completion.d/signet")]
    Completions { shell: Shell },
}

#[derive(Debug, Subcommand)]
pub(crate) enum GetCommand {
    /// The rules, as the YAML that `signet apply` takes
    #[command(after_help = "Examples:\n  signet get policy > policy.yaml\n  signet get policy --revision 12")]
    Policy(RevisionOptions),
    /// The rules, one line for each
    #[command(after_help = "Example:\n  signet get rules")]
    Rules(RevisionOptions),
    /// Those who attested themselves and hold a valid certificate
    #[command(after_help = "Examples:\n  signet get agents\n  signet get agents -o json")]
    Agents(AgentsOptions),
    /// The certificates that were issued and are on record: those that have not expired, if nothing else is said
    #[command(after_help = "Examples:
  signet get svids --expiring 24h --sort expiry
  signet get svids --spiffe-id 'spiffe://example.org/shop/**' --all -o json
  signet get svids --revoked --rule cart-pods
  signet get svids --authority 3f1c0d5ab2e4987610fedcba9876543210fedcba --limit 100000 -o yaml")]
    Svids(SvidsOptions),
    /// The identities that are banned
    #[command(after_help = "Example:\n  signet get bans")]
    Bans(IssuerOptions),
    /// The issuer's authorities, and at which stage of their life they are
    #[command(after_help = "Example:\n  signet get authorities")]
    Authorities(IssuerOptions),
    /// The keys that sign tokens, and at which stage of their life they are; those of other issuers, too
    #[command(after_help = "Examples:\n  signet get jwt-keys\n  signet get jwt-keys -o json")]
    JwtKeys(IssuerOptions),
    /// What is revoked and has not expired by itself: when, why and by whom
    #[command(
        after_help = "Examples:\n  signet get revocations\n  signet get revocations --reason key-compromise --within 24h -o json"
    )]
    Revocations(RevocationsOptions),
    /// What is trusted, by the word of which issuer
    #[command(after_help = "Example:\n  signet get bundles")]
    Bundles(IssuerOptions),
}

#[derive(Args, Debug)]
#[command(after_help = "Example:
  signet forget 3f1c0d5ab2e4987610fedcba98765432

Everybody stops trusting what that issuer alone had its clients trust. One that was heard of within five minutes is not
forgotten.")]
pub(crate) struct ForgetOptions {
    /// As `signet get bundles` names it
    #[arg(value_name = "ISSUER")]
    pub(crate) which: String,
    #[command(flatten)]
    pub(crate) issuer: IssuerOptions,
}

#[derive(Debug, Subcommand)]
pub(crate) enum CaCommand {
    /// Make a root CA in a new folder
    Init(CaInitOptions),
    /// Turn issuers' certificate requests into intermediate CAs
    Sign(CaSignOptions),
    /// Show the root certificate
    Show(CaShowOptions),
    /// Have an issuer make keys, and get the requests for their certificates
    Csr(CaCsrOptions),
    /// Bring an issuer the certificates that were signed for it
    Import(CaImportOptions),
    /// Have another issuer sign an issuer's authorities, for as long as this runs
    Follow(CaFollowOptions),
    /// Revoke intermediates, and sign the list of those that are
    Crl(CaCrlOptions),
    /// What the root signed, when and by whom
    Log(CaLogOptions),
    /// Check a root's record, on any machine
    VerifyLog(CaVerifyLogOptions),
}

#[derive(Debug, Subcommand)]
pub(crate) enum TokenCommand {
    /// Make a join token: whoever presents it first gets the SPIFFE ID
    Create(TokenCreateOptions),
}

#[derive(Args, Debug)]
#[command(after_help = "Examples:
  signet dev                                      a mesh in front of a small echo service
  signet dev --upstream http://127.0.0.1:9000     in front of your own
  signet dev --ttl 10s                            identities that rotate every few seconds
  signet dev --fresh                              forget the last run")]
pub(crate) struct DevOptions {
    /// Service behind the inbound gateway; without it, an echo service is started
    #[arg(long, value_name = "URL", value_parser = upstream)]
    pub(crate) upstream: Option<String>,
    /// Life of each identity
    #[arg(long, value_parser = svid_life, default_value = "60s", value_name = "DURATION")]
    pub(crate) ttl: Duration,
    #[arg(long, default_value = "example.org", value_name = "NAME")]
    pub(crate) trust_domain: signet_identity::TrustDomain,
    /// Begin anew: remove the state of earlier runs
    #[arg(long)]
    pub(crate) fresh: bool,
    /// Folder of all state and sockets
    #[arg(long, default_value = ".signet", value_name = "DIR")]
    pub(crate) state: PathBuf,
    /// What is logged on stderr: off, error, warn, info, debug, trace
    #[arg(long, env = "SIGNET_LOG", default_value = "warn", value_name = "LEVEL", value_parser = log_level)]
    pub(crate) log: LogLevel,
    /// Outbound gateway, plain HTTP
    #[arg(long, default_value = "127.0.0.1:8080", value_name = "ADDRESS")]
    pub(crate) outbound: SocketAddr,
    /// Inbound gateway, mTLS
    #[arg(long, default_value = "127.0.0.1:8443", value_name = "ADDRESS")]
    pub(crate) inbound: SocketAddr,
    /// Issuer, gRPC
    #[arg(long, default_value = "127.0.0.1:8081", value_name = "ADDRESS")]
    pub(crate) issuer: SocketAddr,
    /// What the issuer publishes: bundle, keys of tokens
    #[arg(long, default_value = "127.0.0.1:8082", value_name = "ADDRESS")]
    pub(crate) web: SocketAddr,
    /// Admin of the inbound gateway
    #[arg(long, default_value = "127.0.0.1:9901", value_name = "ADDRESS")]
    pub(crate) gateway_admin: SocketAddr,
    /// Admin of the issuer
    #[arg(long, default_value = "127.0.0.1:9902", value_name = "ADDRESS")]
    pub(crate) issuer_admin: SocketAddr,
    /// Admin of the outbound gateway
    #[arg(long, default_value = "127.0.0.1:9904", value_name = "ADDRESS")]
    pub(crate) outbound_admin: SocketAddr,
}

#[derive(Args, Debug)]
#[command(after_help = "Example:\n  signet ca show --dir root")]
pub(crate) struct CaShowOptions {
    /// Folder of the root
    #[arg(long, value_name = "DIR")]
    pub(crate) dir: PathBuf,
}

/// How to reach an issuer's administration.
#[derive(Args, Debug)]
#[command(
    after_help = "Examples:\n  signet status\n  signet status --issuer /run/signet/issuer-admin.sock -o json\n  signet status --issuer issuer.example.org:8081 --identity ~/.signet/identity"
)]
pub(crate) struct IssuerOptions {
    /// Admin socket of the issuer, or its HOST:PORT [default: .signet/issuer-admin.sock, else
    /// /run/signet/issuer-admin.sock]
    #[arg(long, env = "SIGNET_ISSUER", value_name = "SOCKET|HOST:PORT")]
    pub(crate) issuer: Option<String>,
    /// Folder with your identity, for an issuer at HOST:PORT: svid.pem, svid.key and bundle.pem
    #[arg(long, env = "SIGNET_IDENTITY", value_name = "DIR")]
    pub(crate) identity: Option<PathBuf>,
}

#[derive(Args, Debug)]
#[command(after_help = "Example:
  signet token create spiffe://example.org/gateway/inbound --out /run/signet/gateway.token

The token is shown once; the issuer keeps only its hash.")]
pub(crate) struct TokenCreateOptions {
    /// The identity that the token is good for
    pub(crate) spiffe_id: signet_identity::WorkloadId,
    /// How long the token can be used
    #[arg(long, value_parser = duration, default_value = "10m", value_name = "DURATION")]
    pub(crate) ttl: Duration,
    /// Write the token to a new file (mode 0600) instead of printing it
    #[arg(long, value_name = "FILE")]
    pub(crate) out: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) issuer: IssuerOptions,
}

#[derive(Args, Debug)]
#[command(after_help = "Examples:
  signet issue --profile code-signing --csr release.csr --out release.pem
  signet issue --profile tls-server --csr db.csr --ttl 12h --issuer issuer.example.org:8081 --identity identity/

It is given by the rules of that profile which match your identity, or what you were attested as: `signet explain` tells
which do. The certificate and its intermediates are printed as PEM; the key never leaves you.")]
pub(crate) struct IssueOptions {
    /// What the certificate is for, as the policy's rules name it
    #[arg(long, value_name = "NAME")]
    pub(crate) profile: String,
    /// Certificate request, PEM or DER. Only its public key counts
    #[arg(long, value_name = "FILE")]
    pub(crate) csr: PathBuf,
    /// Which identity, where the policy gives several of this profile
    #[arg(long, value_name = "ID")]
    pub(crate) spiffe_id: Option<signet_identity::WorkloadId>,
    /// Life of the certificate; as long as the policy allows where it is not given
    #[arg(long, value_parser = duration, value_name = "DURATION")]
    pub(crate) ttl: Option<Duration>,
    /// Where to write the certificate and its intermediates, PEM; never overwrites
    #[arg(long, value_name = "FILE")]
    pub(crate) out: Option<PathBuf>,
    /// The issuer's HOST:PORT
    #[arg(long, env = "SIGNET_ISSUER", value_name = "HOST:PORT")]
    pub(crate) issuer: String,
    /// Folder with your identity: svid.pem, svid.key and bundle.pem
    #[arg(long, env = "SIGNET_IDENTITY", value_name = "DIR")]
    pub(crate) identity: PathBuf,
}

#[derive(Args, Debug)]
#[command(after_help = "Examples:
  signet entitlements --issuer issuer.example.org:8081 --identity identity/
  signet entitlements --watch -o json")]
pub(crate) struct EntitlementsOptions {
    /// Go on, and print it again whenever it changes
    #[arg(long, short)]
    pub(crate) watch: bool,
    /// The issuer's HOST:PORT
    #[arg(long, env = "SIGNET_ISSUER", value_name = "HOST:PORT")]
    pub(crate) issuer: String,
    /// Folder with your identity: svid.pem, svid.key and bundle.pem
    #[arg(long, env = "SIGNET_IDENTITY", value_name = "DIR")]
    pub(crate) identity: PathBuf,
}

/// `http://host:port`, which is all that a plain upstream is.
fn upstream(text: &str) -> Result<String, String> {
    let wanted = || "write http://HOST:PORT, for example http://127.0.0.1:9000".to_owned();
    let url: http::Uri = text.parse().map_err(|_| wanted())?;
    let has_port = url.authority().is_some_and(|authority| authority.port_u16().is_some_and(|port| port > 0));
    let plain =
        url.scheme() == Some(&http::uri::Scheme::HTTP) && matches!(url.path(), "" | "/") && url.query().is_none();
    if has_port && plain { Ok(text.trim_end_matches('/').to_owned()) } else { Err(wanted()) }
}

fn log_level(text: &str) -> Result<LogLevel, String> {
    text.parse().map_err(|_| "there are off, error, warn, info, debug and trace".to_owned())
}

/// What the issuer takes: whole seconds, from five.
fn svid_life(text: &str) -> Result<Duration, String> {
    let life = duration(text)?;
    if life < Duration::from_secs(5) || life > Duration::from_secs(31 * 86_400) || life.subsec_nanos() != 0 {
        return Err("must be whole seconds, from 5s to 31d".to_owned());
    }
    Ok(life)
}

/// A day (UTC), or a time of RFC 3339.
fn moment(text: &str) -> Result<OffsetDateTime, String> {
    Window::time(text).map_err(|error| error.to_string())
}

/// `500ms`, `10s`, `5m`, `24h`, `90d`.
fn duration(text: &str) -> Result<Duration, String> {
    let unit_at = text.find(|character: char| !character.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(unit_at);
    let number: u64 =
        number.parse().map_err(|_| "needs a number and a unit, for example 10s, 5m, 24h or 90d".to_owned())?;
    let milliseconds = match unit {
        "ms" => Some(number),
        "s" => number.checked_mul(1000),
        "m" => number.checked_mul(60 * 1000),
        "h" => number.checked_mul(3600 * 1000),
        "d" => number.checked_mul(86_400 * 1000),
        _ => return Err(format!("unknown unit `{unit}`; there are ms, s, m, h and d")),
    };
    match milliseconds {
        Some(0) => Err("must be more than nothing".to_owned()),
        Some(milliseconds) if milliseconds <= MAX_DURATION_MS => Ok(Duration::from_millis(milliseconds)),
        _ => Err("is more than a hundred years".to_owned()),
    }
}

const MAX_DURATION_MS: u64 = 36_500 * 86_400 * 1000;

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn the_command_line_is_well_formed() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn an_upstream_is_a_host_and_a_port() {
        assert_eq!(upstream("http://127.0.0.1:9000/").unwrap(), "http://127.0.0.1:9000");
        for wrong in ["foo", "https://x:1", "http://x", "http://x:1/path", "http://x:1/?q", "http://x:0", "mtls://x:1"]
        {
            assert!(upstream(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_moment_is_a_day_or_a_time() {
        let day = moment("2026-11-01").unwrap();
        assert_eq!(day, moment("2026-11-01T00:00:00Z").unwrap());
        assert_eq!(day, moment("2026-11-01T02:00:00+02:00").unwrap());
        for wrong in ["", "2026-11-1", "2026-13-01", "2026-11-01 00:00", "now", "2026-11-01T09"] {
            assert!(moment(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_duration_has_a_number_and_a_unit() {
        assert_eq!(duration("500ms").unwrap(), Duration::from_millis(500));
        assert_eq!(duration("90d").unwrap(), Duration::from_secs(90 * 86_400));
        for wrong in ["", "10", "s", "10 s", "-1s", "1y", "0s", "99999999999999999999s", "36501d"] {
            assert!(duration(wrong).is_err(), "{wrong}");
        }
    }
}
