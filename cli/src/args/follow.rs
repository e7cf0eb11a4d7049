//! The options of `signet ca follow`.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::Args;
use signet_identity::WorkloadId;

#[derive(Args, Debug)]
#[command(after_help = "Examples:
  signet ca follow --parent issuer.example.org:8081 --identity /run/signet/identity
  signet ca follow --parent issuer.example.org:8081 --trust-bundle root.pem \\
      --x509-certificate machine.pem --x509-key machine.key --admin 127.0.0.1:9905
  signet ca follow --parent issuer.example.org:8081 --identity identity --once

Runs beside an issuer that has no root of its own: what that asks for (`signet ca csr`, or by itself at half of its authority's life), the
parent signs, and the issuer takes it. Where the authority of the parent that signed the issuer's does not sign any more, the issuer
is given a successor at once and goes over to it. Nothing is asked for where nothing waits. The parent needs a rule of the profile
`subordinate-ca`, an intermediate with room below it (`signet ca sign --purpose subordinate`), and `authority.path_length: 1`.")]
pub(crate) struct CaFollowOptions {
    /// The parent's HOST:PORT; of several issuers on one database each may be named
    #[arg(long, value_name = "HOST:PORT", required = true)]
    pub(crate) parent: Vec<String>,
    /// The roots by which the parent is believed to begin with, PEM
    #[arg(long, value_name = "FILE", required_unless_present = "identity", conflicts_with = "identity")]
    pub(crate) trust_bundle: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) credential: CredentialOptions,
    #[command(flatten)]
    pub(crate) details: CredentialDetails,
    /// Which identity to be at the parent, where its policy gives several
    #[arg(long = "as", value_name = "SPIFFE_ID", conflicts_with = "identity")]
    pub(crate) own_id: Option<WorkloadId>,
    /// The parent's profile
    #[arg(long, value_name = "NAME", default_value = "subordinate-ca")]
    pub(crate) profile: String,
    /// Which certificate to ask for, where the parent's policy gives several of the profile
    #[arg(long, value_name = "SPIFFE_ID")]
    pub(crate) spiffe_id: Option<WorkloadId>,
    /// Do what there is to do, and end
    #[arg(long)]
    pub(crate) once: bool,
    /// Metrics and health, on this address
    #[arg(long, value_name = "ADDRESS", conflicts_with = "once")]
    pub(crate) admin: Option<SocketAddr>,
    /// Admin socket of the issuer beside it [default: .signet/issuer-admin.sock, else /run/signet/issuer-admin.sock]
    #[arg(long, env = "SIGNET_ISSUER", value_name = "SOCKET")]
    pub(crate) issuer: Option<String>,
}

/// How to prove to the parent who this is. Files are read again at each attempt.
#[derive(Args, Debug)]
#[group(required = true, multiple = false)]
pub(crate) struct CredentialOptions {
    /// Folder with an identity of the parent's that something else keeps fresh: svid.pem, svid.key and bundle.pem
    #[arg(long, value_name = "DIR")]
    pub(crate) identity: Option<PathBuf>,
    /// File with a join token
    #[arg(long, value_name = "FILE")]
    pub(crate) join_token_file: Option<PathBuf>,
    /// File with the pod's service-account token
    #[arg(long, value_name = "FILE")]
    pub(crate) k8s_token_file: Option<PathBuf>,
    /// File with an ID token
    #[arg(long, value_name = "FILE")]
    pub(crate) oidc_token_file: Option<PathBuf>,
    /// Certificate of a CA that the parent knows, PEM
    #[arg(long, value_name = "FILE", requires = "x509_key")]
    pub(crate) x509_certificate: Option<PathBuf>,
}

/// What goes with one of them.
#[derive(Args, Debug)]
pub(crate) struct CredentialDetails {
    /// The key of that certificate, PEM
    #[arg(long, value_name = "FILE", requires = "x509_certificate")]
    pub(crate) x509_key: Option<PathBuf>,
    /// The cluster, as the parent's configuration names it
    #[arg(long, value_name = "NAME", requires = "k8s_token_file")]
    pub(crate) k8s_cluster: Option<String>,
    /// The provider, as the parent's configuration names it
    #[arg(long, value_name = "NAME", requires = "oidc_token_file")]
    pub(crate) oidc_provider: Option<String>,
}
