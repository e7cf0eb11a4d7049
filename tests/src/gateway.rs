//! A real `signet-gateway` process with a configuration written for the test.

use std::fmt::Write as _;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use crate::address::Host;
use crate::files::IdentityFiles;
use crate::metrics::Admin;
use crate::process::{Process, Recipe};
use crate::program;
use crate::wait::secs;

/// What a gateway is to be.
#[derive(Debug)]
pub struct GatewayPlan {
    name: String,
    identity: String,
    listeners: Vec<(&'static str, SocketAddr)>,
    listener_lines: String,
    upstream_lines: String,
    upstream_options: String,
    more: String,
    host: Host,
}

/// A running gateway with a folder of its own.
#[derive(Debug)]
pub struct Gateway {
    pub process: Process,
    pub admin: Admin,
    pub configuration: PathBuf,
    listeners: Vec<(&'static str, SocketAddr)>,
    _folder: TempDir,
    // Keeps its ports taken when it is killed and started again.
    _host: Host,
}

impl GatewayPlan {
    pub fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            identity: String::new(),
            listeners: Vec::new(),
            listener_lines: String::new(),
            upstream_lines: String::new(),
            upstream_options: String::new(),
            more: String::new(),
            host: Host::new(),
        }
    }

    pub fn identity_from_files(mut self, files: &IdentityFiles, bundle: &Path) -> Self {
        self.identity = format!(
            "identity:\n  files:\n    certificate: {}\n    key: {}\n    bundle: {}\n",
            files.certificate.display(),
            files.key.display(),
            bundle.display()
        );
        self
    }

    pub fn identity_from_issuer(self, issuer: SocketAddr, trust_domain: &str, bundle: &Path, token: &Path) -> Self {
        self.identity_by(issuer, trust_domain, bundle, &format!("join_token_file: {}", token.display()))
    }

    /// The same from whichever of several answers.
    pub fn identity_from_issuers(
        mut self,
        issuers: &[SocketAddr],
        trust_domain: &str,
        bundle: &Path,
        token: &Path,
    ) -> Self {
        self = self.identity_from_issuer(issuers[0], trust_domain, bundle, token);
        let all: Vec<_> = issuers.iter().map(|issuer| format!("\"{issuer}\"")).collect();
        self.identity = self.identity.replace(&issuers[0].to_string(), &format!("[{}]", all.join(", ")));
        self
    }

    /// With another way to prove who it is: one line of YAML.
    pub fn identity_by(mut self, issuer: SocketAddr, trust_domain: &str, bundle: &Path, credential: &str) -> Self {
        self.identity = format!(
            "identity:\n  issuer:\n    address: {issuer}\n    trust_domain: {trust_domain}\n    bundle: {}\n    \
             {credential}\n",
            bundle.display(),
        );
        self
    }

    /// A listener `inbound`: mTLS, open to `allow`, in front of the plain `upstream`.
    pub fn inbound(mut self, allow: &[&str], upstream: &str) -> Self {
        let address = self.host.free();
        self.listeners.push(("inbound", address));
        let allow = quoted(allow);
        self.listener(&format!("{{ name: inbound, mode: inbound, listen: {address}, allow: {allow}, upstream: app }}"))
            .upstream(&format!("{{ name: app, address: \"{upstream}\" }}"))
    }

    /// A listener `outbound`: plain, to the mTLS `peer`, which has to be one of `identities`.
    pub fn outbound(self, peer: SocketAddr, identities: &[&str]) -> Self {
        let address = self.host.free();
        self.outbound_at(address, peer, identities)
    }

    /// The same at an address of the test's choice.
    pub fn outbound_at(mut self, address: SocketAddr, peer: SocketAddr, identities: &[&str]) -> Self {
        self.listeners.push(("outbound", address));
        let identities = quoted(identities);
        self.listener(&format!("{{ name: outbound, mode: outbound, listen: {address}, upstream: peer }}"))
            .upstream(&format!("{{ name: peer, address: \"mtls://{peer}\", identity: {identities} }}"))
    }

    /// A further `key: value` of the upstreams that are named after this.
    pub fn upstream_option(mut self, yaml: &str) -> Self {
        yaml.clone_into(&mut self.upstream_options);
        self
    }

    /// Further top-level configuration.
    pub fn configure(mut self, yaml: &str) -> Self {
        self.more.push_str(yaml);
        self.more.push('\n');
        self
    }

    fn listener(mut self, yaml: &str) -> Self {
        writeln!(self.listener_lines, "  - {yaml}").expect("a string");
        self
    }

    fn upstream(mut self, yaml: &str) -> Self {
        let options = &self.upstream_options;
        let yaml = if options.is_empty() { yaml.to_owned() } else { yaml.replace(" }", &format!(", {options} }}")) };
        writeln!(self.upstream_lines, "  - {yaml}").expect("a string");
        self
    }

    /// Starts it and waits until it is ready.
    pub fn start(self) -> Gateway {
        let mut gateway = self.launch();
        gateway.wait_until_ready();
        gateway
    }

    /// Starts it.
    pub fn launch(self) -> Gateway {
        let folder = tempfile::Builder::new().prefix("signet-gateway-").tempdir().expect("a folder");
        let admin = self.host.free();
        let configuration = folder.path().join("gateway.yaml");
        let text = format!(
            "{}admin: {admin}\nlisteners:\n{}upstreams:\n{}{}",
            self.identity, self.listener_lines, self.upstream_lines, self.more
        );
        fs::write(&configuration, text).expect("a file");
        let process = Recipe::new(&self.name, program::ours("signet-gateway"), folder.path())
            .arg("--config")
            .arg(&configuration)
            .start();
        Gateway {
            process,
            admin: Admin(admin),
            configuration,
            listeners: self.listeners,
            _folder: folder,
            _host: self.host,
        }
    }
}

impl Gateway {
    /// Where the listener of this name listens.
    pub fn listener(&self, name: &str) -> SocketAddr {
        let found = self.listeners.iter().find(|(known, _)| *known == name);
        found.unwrap_or_else(|| panic!("no listener {name}")).1
    }

    /// `https://…PATH` on the listener `inbound`.
    pub fn inbound_url(&self, path: &str) -> String {
        format!("https://{}{path}", self.listener("inbound"))
    }

    /// `http://…PATH` on the listener `outbound`.
    pub fn outbound_url(&self, path: &str) -> String {
        format!("http://{}{path}", self.listener("outbound"))
    }

    #[track_caller]
    pub fn wait_until_ready(&mut self) {
        let admin = self.admin;
        self.process.wait_until("ready", secs(30), |_| admin.is_ready());
    }
}

fn quoted(patterns: &[&str]) -> String {
    format!("{patterns:?}")
}
