//! A whole mesh of real processes: a root made by `signet ca`, an issuer, and two gateways with identities from it.
//!
//! ```text
//! curl ─plain─► outbound gateway ─mTLS─► inbound gateway ─plain─► upstream
//!                      └───── identity-issuer ────┘
//! ```

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tempfile::TempDir;

use crate::curl::Curl;
use crate::files::replace;
use crate::gateway::{Gateway, GatewayPlan};
use crate::issuer::Issuer;
use crate::tap::Tap;
use crate::wait::secs;
use crate::workload::Workload;

/// What a mesh is to be.
#[derive(Debug)]
pub struct MeshPlan {
    ttl: Duration,
    upstream: String,
    tapped: bool,
    issuer_tapped: bool,
}

/// A running mesh of trust domain `example.org`.
#[derive(Debug)]
pub struct Mesh {
    pub outbound: Gateway,
    pub inbound: Gateway,
    pub issuer: Issuer,
    /// Stands between the gateways, if asked for.
    pub tap: Option<Tap>,
    /// Stands between the inbound gateway and the issuer, if asked for.
    pub issuer_tap: Option<Tap>,
    folder: TempDir,
}

pub const TRUST_DOMAIN: &str = "example.org";
const INBOUND: &str = "spiffe://example.org/gateway/inbound";
const OUTBOUND: &str = "spiffe://example.org/gateway/outbound";

impl MeshPlan {
    /// Life of the SVIDs.
    pub fn ttl(mut self, ttl: Duration) -> Self {
        self.ttl = ttl;
        self
    }

    /// URL of what stands behind the inbound gateway.
    pub fn upstream(mut self, url: &str) -> Self {
        url.clone_into(&mut self.upstream);
        self
    }

    /// Puts a wire tap between the gateways.
    pub fn tapped(mut self) -> Self {
        self.tapped = true;
        self
    }

    /// Puts a wire tap between the inbound gateway and the issuer.
    pub fn issuer_tapped(mut self) -> Self {
        self.issuer_tapped = true;
        self
    }

    /// Starts it part by part and waits until all are ready.
    pub fn start(self) -> Mesh {
        let folder = tempfile::Builder::new().prefix("signet-mesh-").tempdir().expect("a folder");
        let issuer = Issuer::start(folder.path(), TRUST_DOMAIN, self.ttl);

        let issuer_tap = self.issuer_tapped.then(|| Tap::before(issuer.address));
        let issuer_address = issuer_tap.as_ref().map_or(issuer.address, Tap::address);
        let inbound = gateway("inbound", INBOUND, (&issuer, issuer_address), folder.path())
            .inbound(&["spiffe://example.org/gateway/outbound", "spiffe://example.org/client/**"], &self.upstream)
            .start();
        let peer = inbound.listener("inbound");
        let tap = self.tapped.then(|| Tap::before(peer));
        let peer = tap.as_ref().map_or(peer, Tap::address);
        let outbound =
            gateway("outbound", OUTBOUND, (&issuer, issuer.address), folder.path()).outbound(peer, &[INBOUND]).start();
        Mesh { outbound, inbound, issuer, tap, issuer_tap, folder }
    }
}

/// Which asks the issuer at this address.
fn gateway(name: &str, id: &str, (issuer, address): (&Issuer, SocketAddr), folder: &Path) -> GatewayPlan {
    let token = token_file(folder, name);
    replace(&token, &issuer.join_token(id));
    GatewayPlan::new(name).identity_from_issuer(address, TRUST_DOMAIN, &issuer.bundle, &token)
}

fn token_file(folder: &Path, gateway: &str) -> PathBuf {
    folder.join(format!("{gateway}.token"))
}

impl Mesh {
    /// A mesh with SVIDs of a minute.
    #[expect(clippy::new_ret_no_self, reason = "reads as what it makes")]
    pub fn new() -> MeshPlan {
        MeshPlan { ttl: secs(60), upstream: String::new(), tapped: false, issuer_tapped: false }
    }

    /// A request by the whole path, to be sent.
    pub fn curl(&self, path: &str) -> Curl {
        Curl::get(self.outbound.outbound_url(path))
    }

    pub fn outbound_address(&self) -> SocketAddr {
        self.outbound.listener("outbound")
    }

    pub fn inbound_address(&self) -> SocketAddr {
        self.inbound.listener("inbound")
    }

    /// A workload that has its first identity, `spiffe://example.org/client/NAME`.
    pub fn client(&self, name: &str) -> Workload {
        let mut workload = Workload::of(self.issuer.address);
        let token = self.issuer.join_token(&format!("spiffe://{TRUST_DOMAIN}/client/{name}"));
        workload.attest(&token).expect("a first identity");
        workload
    }

    /// Makes a new join token for `inbound` or `outbound`, in the file that it knows.
    pub fn write_join_token(&self, gateway: &str) {
        let token = self.issuer.join_token(&format!("spiffe://{TRUST_DOMAIN}/gateway/{gateway}"));
        replace(&token_file(self.folder.path(), gateway), &token);
    }

    /// A place for a test's own files.
    pub fn folder(&self) -> PathBuf {
        let folder = self.folder.path().join("test");
        fs::create_dir_all(&folder).expect("a folder");
        folder
    }
}
