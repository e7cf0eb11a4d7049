//! One PKI for every bench: a P-256 root, one intermediate, a server SVID, a fleet of client SVIDs, and a stranger of the same
//! trust domain name under another root. No CA key is ever written: what rotates is rotated by the process that made it.
//!
//! ```text
//! DIR/roots.pem                      trust bundle
//! DIR/live/cur/server.{pem,key}      `cur` is a link, swapped by rename: the pair changes as one
//! DIR/origin/server.{pem,key}        of an upstream that demands mTLS; has a DNS name too, for proxies that insist on one
//! DIR/clients/cur/0000.{pem,key}     one pair for each client identity
//! DIR/foreign/{roots.pem,client.pem,client.key}
//! ```

use std::fs;
use std::io;
use std::os::unix::fs::{OpenOptionsExt as _, symlink};
use std::path::Path;
use std::time::Duration;

use rustls_pki_types::CertificateDer;
use signet_test_pki::{Authority, Issued, pem};

pub const TRUST_DOMAIN: &str = "example.org";
pub const SERVER_ID: &str = "spiffe://example.org/gateway/inbound";
pub const ORIGIN_ID: &str = "spiffe://example.org/bench/origin";
pub const ORIGIN_NAME: &str = "origin.example.org";

/// The authorities of one bench.
#[derive(Debug)]
pub struct BenchPki {
    issuing: Authority,
    stranger: Authority,
}

impl BenchPki {
    pub fn new() -> Self {
        Self {
            issuing: Authority::root(TRUST_DOMAIN).intermediate(),
            stranger: Authority::root(TRUST_DOMAIN).intermediate(),
        }
    }

    /// A server SVID with a new key, valid for `ttl` from now.
    pub fn server(&self, ttl: Duration) -> Issued {
        self.issuing.leaf(SERVER_ID).ttl(ttl).issue()
    }

    /// The SVID of an upstream.
    pub fn origin(&self, ttl: Duration) -> Issued {
        self.issuing.leaf(ORIGIN_ID).dns(ORIGIN_NAME).ttl(ttl).issue()
    }

    /// The SVID of client `number`, with a new key, valid for `ttl` from now.
    pub fn client(&self, number: usize, ttl: Duration) -> Issued {
        self.issuing.leaf(&client_id(number)).ttl(ttl).issue()
    }

    /// A client that claims to be client 0 and whose root nobody trusts.
    pub fn stranger(&self, ttl: Duration) -> Issued {
        self.stranger.leaf(&client_id(0)).ttl(ttl).issue()
    }

    /// What the trust bundle holds: the self-signed root.
    pub fn root(&self) -> &CertificateDer<'static> {
        self.issuing.root_certificate()
    }

    /// Writes what does not rotate: trust bundle, upstream and stranger.
    pub fn write_fixed(&self, dir: &Path, ttl: Duration) -> io::Result<()> {
        let foreign = dir.join("foreign");
        fs::create_dir_all(&foreign)?;
        fs::write(dir.join("roots.pem"), pem("CERTIFICATE", self.root()))?;
        fs::write(foreign.join("roots.pem"), pem("CERTIFICATE", self.stranger.root_certificate()))?;
        write_pair(&foreign, "client", &self.stranger(ttl))?;
        let origin = dir.join("origin");
        fs::create_dir_all(&origin)?;
        write_pair(&origin, "server", &self.origin(ttl))
    }

    /// Issues a server SVID and makes it `DIR/live/cur`.
    pub fn rotate_server(&self, dir: &Path, generation: u64, ttl: Duration) -> io::Result<Issued> {
        let issued = self.server(ttl);
        make_current(&dir.join("live"), generation, |folder| write_pair(folder, "server", &issued))?;
        Ok(issued)
    }

    /// Issues `count` client SVIDs and makes them `DIR/clients/cur`.
    pub fn rotate_clients(&self, dir: &Path, generation: u64, count: usize, ttl: Duration) -> io::Result<()> {
        make_current(&dir.join("clients"), generation, |folder| {
            (0..count).try_for_each(|number| write_pair(folder, &format!("{number:04}"), &self.client(number, ttl)))
        })
    }
}

impl Default for BenchPki {
    fn default() -> Self {
        Self::new()
    }
}

fn client_id(number: usize) -> String {
    format!("spiffe://{TRUST_DOMAIN}/bench/client-{number:04}")
}

/// Fills a new folder and points `cur` at it; the generation before the last one is removed.
fn make_current(parent: &Path, generation: u64, fill: impl FnOnce(&Path) -> io::Result<()>) -> io::Result<()> {
    let name = format!("g{generation}");
    let folder = parent.join(&name);
    fs::create_dir_all(&folder)?;
    fill(&folder)?;

    let link = parent.join("next");
    if link.symlink_metadata().is_ok() {
        fs::remove_file(&link)?;
    }
    symlink(&name, &link)?;
    fs::rename(&link, parent.join("cur"))?;

    // Readers may still be in the previous one; nobody is in the one before.
    if let Some(old) = generation.checked_sub(2) {
        match fs::remove_dir_all(parent.join(format!("g{old}"))) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

fn write_pair(folder: &Path, name: &str, issued: &Issued) -> io::Result<()> {
    fs::write(folder.join(format!("{name}.pem")), issued.chain_pem())?;
    let mut key = fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(folder.join(format!("{name}.key")))?;
    io::Write::write_all(&mut key, issued.key_pem().as_bytes())
}
