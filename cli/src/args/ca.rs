//! The options of the ceremony with the offline root, and of its record.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use identity_issuer::root::{Label, Purpose, Reason, UriDomain};

use super::duration;
use super::revocations::reason;

#[derive(Args, Debug)]
#[command(after_help = "Examples:
  signet ca init --dir root --trust-domain example.org --passphrase-file passphrase
  signet ca init --dir root --trust-domain example.org --pin-file pin \\
      --pkcs11-module /usr/lib/softhsm/libsofthsm2.so --pkcs11-token root

Writes root.pem (public: the trust bundle), and the root key, encrypted, or the name of the token that it was made in and never leaves.
Do it on a machine without a network.")]
pub(crate) struct CaInitOptions {
    /// Folder for the root; made if it is not there
    #[arg(long, value_name = "DIR")]
    pub(crate) dir: PathBuf,
    #[arg(long, value_name = "NAME")]
    pub(crate) trust_domain: signet_identity::TrustDomain,
    /// Life of the root certificate
    #[arg(long, value_parser = duration, default_value = "3650d", value_name = "DURATION")]
    pub(crate) life: Duration,
    #[command(flatten)]
    pub(crate) unlock: UnlockOptions,
    #[command(flatten)]
    pub(crate) token: TokenOptions,
}

#[derive(Args, Debug)]
#[command(after_help = "Examples:
  signet ca sign --dir root --passphrase-file passphrase --csr authority.csr --out authority.pem
  signet ca sign --dir root --passphrase-file passphrase --csr successors.csr --out successors.pem \\
      --purpose workload --region eu-west-1 --life 90d --operator 'Ada Lovelace'

Shows what it is about to sign, asks, writes it down in the root's record, and signs. The file may hold several requests, one after the
other; what is written is one intermediate for each, in the same order.")]
pub(crate) struct CaSignOptions {
    /// Folder of the root
    #[arg(long, value_name = "DIR")]
    pub(crate) dir: PathBuf,
    /// The issuer's certificate request, or several, PEM
    #[arg(long, value_name = "FILE")]
    pub(crate) csr: PathBuf,
    /// Where to write the intermediate certificates, PEM; never overwrites
    #[arg(long, value_name = "FILE")]
    pub(crate) out: PathBuf,
    /// What they are for: any, workload, gateway, device, code-signing, or subordinate for an issuer that signs other issuers
    #[arg(long, value_name = "PURPOSE", default_value_t)]
    pub(crate) purpose: Purpose,
    /// How many CAs there may be below the intermediate; with 0 it signs no CA [default: 1 for the purpose subordinate, else 0]
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u8).range(0..=4))]
    pub(crate) path_length: Option<u8>,
    /// Life of the intermediates
    #[arg(long, value_parser = duration, default_value = "90d", value_name = "DURATION")]
    pub(crate) life: Duration,
    /// Where they are used, for their subject
    #[arg(long, value_name = "NAME")]
    pub(crate) region: Option<Label>,
    /// Whose they are, for their subject
    #[arg(long, value_name = "NAME")]
    pub(crate) team: Option<Label>,
    /// Let whoever reads name constraints refuse URIs of other hosts below. Programs on rustls, those of Signet too, then refuse all
    /// of them
    #[arg(long, value_name = "HOST")]
    pub(crate) permit_uri_domain: Vec<UriDomain>,
    #[command(flatten)]
    pub(crate) ceremony: CeremonyOptions,
}

#[derive(Args, Debug)]
#[command(after_help = "Examples:
  signet ca crl --dir root --passphrase-file passphrase --out root.crl
  signet ca crl --dir root --passphrase-file passphrase --out root-2.crl \\
      --revoke 4198f02b6c1ad34e5f60718293a4b5c6 --reason ca-compromise --operator 'Ada Lovelace'

Shows what it is about to sign, asks, writes it down in the root's record, and signs. Whatever was revoked before is on the list again until it
has expired. Where a list is demanded, it has to be replaced before its time is over: sign the next one while the root is out of its safe.")]
pub(crate) struct CaCrlOptions {
    /// Folder of the root
    #[arg(long, value_name = "DIR")]
    pub(crate) dir: PathBuf,
    /// Where to write the list, PEM; never overwrites
    #[arg(long, value_name = "FILE")]
    pub(crate) out: PathBuf,
    /// Serial number of an intermediate to revoke, hexadecimal, as `signet ca log` shows it; may be given several times
    #[arg(long, value_name = "SERIAL", requires = "reason")]
    pub(crate) revoke: Vec<String>,
    /// Why: it stands in the list, too
    #[arg(long, value_parser = reason(), value_name = "REASON", requires = "revoke")]
    pub(crate) reason: Option<Reason>,
    /// How long the list is good
    #[arg(long, value_parser = duration, default_value = "90d", value_name = "DURATION")]
    pub(crate) life: Duration,
    #[command(flatten)]
    pub(crate) ceremony: CeremonyOptions,
}

/// How the root's key is used.
#[derive(Args, Debug)]
pub(crate) struct CeremonyOptions {
    /// Your name, for the record [default: the user's]
    #[arg(long, value_name = "NAME")]
    pub(crate) operator: Option<String>,
    /// Do not ask
    #[arg(long)]
    pub(crate) yes: bool,
    #[command(flatten)]
    pub(crate) unlock: UnlockOptions,
}

/// What opens the root's key: never on the command line, which other users can read.
#[derive(Args, Debug)]
#[group(required = true, multiple = false)]
pub(crate) struct UnlockOptions {
    /// File whose first line is the passphrase
    #[arg(long, value_name = "FILE")]
    pub(crate) passphrase_file: Option<PathBuf>,
    /// Open file descriptor to read the passphrase from
    #[arg(long, value_name = "FD")]
    pub(crate) passphrase_fd: Option<u32>,
    /// File whose first line is the PIN of the token (PKCS#11) that the key is in
    #[arg(long, value_name = "FILE")]
    pub(crate) pin_file: Option<PathBuf>,
}

/// A token (PKCS#11) in which the root's key is made.
#[derive(Args, Debug)]
pub(crate) struct TokenOptions {
    /// Make the key in a token: the library that the HSM's vendor gives
    #[arg(long, value_name = "FILE", requires_all = ["pkcs11_token", "pin_file"])]
    pub(crate) pkcs11_module: Option<PathBuf>,
    /// The token's label
    #[arg(long, value_name = "LABEL", requires = "pkcs11_module")]
    pub(crate) pkcs11_token: Option<String>,
}

#[derive(Args, Debug)]
#[command(after_help = "Example:\n  signet ca log --dir root")]
pub(crate) struct CaLogOptions {
    /// Folder of the root
    #[arg(long, value_name = "DIR")]
    pub(crate) dir: PathBuf,
}

#[derive(Args, Debug)]
#[command(after_help = "Examples:
  signet ca verify-log --dir root
  signet ca verify-log --record ceremonies.jsonl --root root.pem --head 5d41402abc4b2a76b9719d911017c592ae3f1bd44b0d4a9c9b86c4f3d2f0e111
  signet ca verify-log --dir root --certificate authority.pem

Each entry is signed by the root and names the one before it. That the end is not missing, a copy cannot tell by itself: note the head that
this command prints, and give it the next time.")]
pub(crate) struct CaVerifyLogOptions {
    /// Folder of the root
    #[arg(long, value_name = "DIR", required_unless_present = "record", conflicts_with_all = ["record", "root"])]
    pub(crate) dir: Option<PathBuf>,
    /// The record, or a copy of it
    #[arg(long, value_name = "FILE", requires = "root")]
    pub(crate) record: Option<PathBuf>,
    /// The root certificate, PEM
    #[arg(long, value_name = "FILE", requires = "record")]
    pub(crate) root: Option<PathBuf>,
    /// A head that was noted earlier: the record must have grown from it
    #[arg(long, value_name = "SHA256")]
    pub(crate) head: Option<String>,
    /// Certificates that must be on record, PEM
    #[arg(long, value_name = "FILE")]
    pub(crate) certificate: Option<PathBuf>,
}
