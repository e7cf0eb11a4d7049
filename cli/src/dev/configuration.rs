//! The configuration files of the mesh, as a user would write them: what `signet dev` runs can be read, changed and
//! taken elsewhere.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use signet_identity::{TrustDomain, WorkloadId};

pub(crate) struct IssuerFile<'a> {
    pub(crate) trust_domain: &'a TrustDomain,
    pub(crate) state: &'a Path,
    pub(crate) listen: SocketAddr,
    pub(crate) admin: SocketAddr,
    pub(crate) admin_socket: &'a Path,
    pub(crate) passphrase: &'a Path,
    pub(crate) authority: &'a Path,
    pub(crate) trust_bundle: &'a Path,
    pub(crate) ttl: Duration,
}

impl IssuerFile<'_> {
    pub(crate) fn yaml(&self) -> String {
        let Self { trust_domain, listen, admin, .. } = self;
        format!(
            "# Written by `signet dev` at each start.
trust_domain: {trust_domain}
state: {}
listen: {listen}
admin: {admin}
admin_socket: {}
trust_bundle: {}
authority:
  certificate: {}
  passphrase_file: {}
svid:
  ttl: {}s
shutdown:
  drain: 1s
",
            quoted(self.state),
            quoted(self.admin_socket),
            quoted(self.trust_bundle),
            quoted(self.authority),
            quoted(self.passphrase),
            self.ttl.as_secs(),
        )
    }
}

/// What both gateways say of where their identity comes from.
pub(crate) struct GatewayIdentity<'a> {
    pub(crate) trust_domain: &'a TrustDomain,
    pub(crate) issuer: SocketAddr,
    pub(crate) bundle: PathBuf,
    pub(crate) join_token: &'a Path,
}

impl GatewayIdentity<'_> {
    fn yaml(&self) -> String {
        let Self { trust_domain, issuer, .. } = self;
        format!(
            "# Written by `signet dev` at each start.
identity:
  issuer:
    address: {issuer}
    trust_domain: {trust_domain}
    bundle: {}
    join_token_file: {}
",
            quoted(&self.bundle),
            quoted(self.join_token),
        )
    }

    /// mTLS from the whole trust domain, to a plain upstream.
    pub(crate) fn inbound(&self, admin: SocketAddr, listen: SocketAddr, upstream: &str) -> String {
        format!(
            "{}admin: {admin}
shutdown:
  drain: 2s
listeners:
  - name: inbound
    mode: inbound
    listen: {listen}
    allow: [\"spiffe://{}/**\"]
    upstream: service
upstreams:
  - name: service
    address: {}
",
            self.yaml(),
            self.trust_domain,
            serde_json::Value::from(upstream),
        )
    }

    /// Plain from this host, to the inbound gateway and to nobody else.
    pub(crate) fn outbound(
        &self,
        admin: SocketAddr,
        listen: SocketAddr,
        server: SocketAddr,
        id: &WorkloadId,
    ) -> String {
        format!(
            "{}admin: {admin}
shutdown:
  drain: 2s
listeners:
  - name: outbound
    mode: outbound
    listen: {listen}
    upstream: inbound-gateway
upstreams:
  - name: inbound-gateway
    address: mtls://{server}
    identity: [{id}]
",
            self.yaml(),
        )
    }
}

/// A path as YAML takes it, whatever is in it: JSON strings are YAML.
fn quoted(path: &Path) -> String {
    serde_json::Value::from(path.to_string_lossy()).to_string()
}
