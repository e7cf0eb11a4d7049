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
    pub(crate) web: SocketAddr,
    pub(crate) admin_socket: &'a Path,
    pub(crate) passphrase: &'a Path,
    pub(crate) authority: &'a Path,
    pub(crate) trust_bundle: &'a Path,
    pub(crate) ttl: Duration,
}

impl IssuerFile<'_> {
    pub(crate) fn yaml(&self) -> String {
        let Self { trust_domain, listen, admin, web, .. } = self;
        format!(
            "# Written by `signet dev` at each start.
trust_domain: \"{trust_domain}\"
state: {}
listen: \"{listen}\"
admin: \"{admin}\"
admin_socket: {}
trust_bundle: {}
authority:
  certificate: {}
  passphrase_file: {}
svid:
  ttl: {}s
web:
  listen: \"{web}\"
jwt: {{}}
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
    address: \"{issuer}\"
    trust_domain: \"{trust_domain}\"
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
            "{}admin: \"{admin}\"
shutdown:
  drain: 2s
listeners:
  - name: inbound
    mode: inbound
    listen: \"{listen}\"
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
            "{}admin: \"{admin}\"
shutdown:
  drain: 2s
listeners:
  - name: outbound
    mode: outbound
    listen: \"{listen}\"
    upstream: inbound-gateway
upstreams:
  - name: inbound-gateway
    address: \"mtls://{server}\"
    identity: [\"{id}\"]
",
            self.yaml(),
        )
    }
}

/// A path as YAML takes it, whatever is in it: JSON strings are YAML.
fn quoted(path: &Path) -> String {
    serde_json::Value::from(path.to_string_lossy()).to_string()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use signet_gateway::config::Gateway;
    use signet_test_pki::{Authority, pem};

    use super::*;

    /// A folder whose name YAML would take for something else, with a bundle in it.
    fn folder() -> (tempfile::TempDir, PathBuf) {
        let parent = tempfile::tempdir().unwrap();
        let folder = parent.path().join("it's: a \"folder\" #1");
        std::fs::create_dir(&folder).unwrap();
        std::fs::write(folder.join("root.pem"), pem("CERTIFICATE", Authority::root("1234").root_certificate()))
            .unwrap();
        (parent, folder)
    }

    #[test]
    fn what_is_written_is_read_whatever_the_names_and_addresses_are() {
        let (_parent, folder) = folder();
        let trust_domain: TrustDomain = "1234".parse().unwrap();
        let (v6, v4): (SocketAddr, SocketAddr) = ("[::1]:18080".parse().unwrap(), "127.0.0.1:1".parse().unwrap());
        let identity = GatewayIdentity {
            trust_domain: &trust_domain,
            issuer: v6,
            bundle: folder.join("root.pem"),
            join_token: &folder.join("token"),
        };
        let name = folder.join("gateway.yaml");
        let id: WorkloadId = "spiffe://1234/gateway/inbound".parse().unwrap();
        let inbound = Gateway::parse(&name, &identity.inbound(v6, v4, "http://127.0.0.1:9000")).unwrap();
        assert_eq!((inbound.admin, inbound.listeners[0].listen), (v6, v4));
        let outbound = Gateway::parse(&name, &identity.outbound(v4, v6, v6, &id)).unwrap();
        assert_eq!(outbound.listeners[0].listen, v6);

        let issuer = IssuerFile {
            trust_domain: &trust_domain,
            state: &folder,
            listen: v6,
            admin: v6,
            web: v4,
            admin_socket: &folder.join("admin.sock"),
            passphrase: &folder.join("passphrase"),
            authority: &folder.join("authority.pem"),
            trust_bundle: &folder.join("root.pem"),
            ttl: Duration::from_secs(60),
        };
        let config = identity_issuer::Config::parse(&folder.join("issuer.yaml"), &issuer.yaml()).unwrap();
        assert_eq!((config.listen, config.web.listen, config.state), (v6, v4, folder));
    }
}
