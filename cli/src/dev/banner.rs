//! What the user reads when the mesh runs: what it is, and lines to copy.

use std::fmt;
use std::path::Path;

use super::parts::{RunningGateway, RunningIssuer};
use super::{Ids, Upstream};
use crate::admin;
use crate::output;

pub(crate) struct Banner<'a> {
    pub(crate) ids: &'a Ids,
    pub(crate) ttl: std::time::Duration,
    /// The folder as the user named it, from where the user is.
    pub(crate) state: &'a Path,
    pub(crate) issuer: &'a RunningIssuer,
    pub(crate) inbound: &'a RunningGateway,
    pub(crate) outbound: &'a RunningGateway,
    pub(crate) upstream: &'a Upstream,
}

impl fmt::Display for Banner<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { ids, issuer, inbound, outbound, upstream, .. } = self;
        let root = quoted(&self.state.join("root/root.pem"));
        let socket = self.state.join("issuer-admin.sock");
        // Where the commands look by themselves.
        let found = admin::SOCKETS.iter().any(|known| Path::new(known) == socket);
        let issuer_option = if found { String::new() } else { format!(" --issuer {}", quoted(&socket)) };
        let program = quoted(Path::new(&std::env::args_os().next().unwrap_or_else(|| "signet".into())));
        let ttl = output::span(self.ttl.as_secs());
        writeln!(
            out,
            "\
A mesh of trust domain {} is running; its identities live {ttl}.

  issuer             {:<21}  {}
  outbound gateway   {:<21}  {}
  inbound gateway    {:<21}  {}
  {upstream}

  plain HTTP → outbound gateway → mTLS (TLS 1.3, X25519MLKEM768) → inbound gateway → upstream

  curl http://{}/
  curl -s http://{}/metrics | grep signet_svid_expiration
  curl -s http://{}/metrics | grep signet_ca_expiration
  curl -s http://{}/identity
  curl -s http://{}/bundle.json
  openssl s_client -connect {} -CAfile {root} </dev/null
  {program} status{issuer_option}
  {program} token create spiffe://{}/me{issuer_option}

Ctrl-C ends it. From here on, a line for each identity that becomes live:
",
            ids.trust_domain,
            issuer.grpc,
            ids.issuer,
            outbound.address,
            ids.outbound,
            inbound.address,
            ids.inbound,
            outbound.address,
            inbound.admin,
            issuer.admin,
            outbound.admin,
            issuer.web,
            inbound.address,
            ids.trust_domain,
        )
    }
}

impl fmt::Display for Upstream {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Named(url) => write!(out, "upstream           {url}"),
            Self::Echo(address) => write!(out, "upstream           {address:<21}  (a small echo service)"),
        }
    }
}

/// A path as a shell takes it.
fn quoted(path: &Path) -> String {
    let text = path.to_string_lossy();
    let plain = |character: char| character.is_ascii_alphanumeric() || "/._-+:@%".contains(character);
    if text.chars().all(plain) { text.into_owned() } else { format!("'{}'", text.replace('\'', "'\\''")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_can_be_pasted_into_a_shell() {
        assert_eq!(quoted(Path::new("/tmp/state/root.pem")), "/tmp/state/root.pem");
        assert_eq!(quoted(Path::new("/tmp/a b'c")), r"'/tmp/a b'\''c'");
    }
}
