//! Load by `signet-load`, and its report.

use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::files::IdentityFiles;
use crate::program;

/// A run to be made: an open loop, in which each request is due at its time whether the mesh keeps up or not.
#[derive(Debug)]
pub struct Load {
    command: Command,
}

/// One under way. Dropping it kills it.
#[derive(Debug)]
pub struct Running {
    child: Child,
}

/// What a run found.
#[derive(Debug)]
pub struct Report(serde_json::Value);

impl Load {
    pub fn http1(target: SocketAddr) -> Self {
        Self::of("http1", target).arg("--connections", "8")
    }

    pub fn http2(target: SocketAddr) -> Self {
        Self::of("http2", target).arg("--connections", "4").arg("--streams", "4")
    }

    /// Full handshakes, each on a new connection.
    pub fn handshakes(target: SocketAddr) -> Self {
        Self::of("handshake", target).arg("--connections", "8")
    }

    fn of(mode: &str, target: SocketAddr) -> Self {
        let mut command = Command::new(program::ours("signet-load"));
        command.args([mode, &target.to_string(), "--json"]);
        Self { command }
    }

    fn arg(mut self, name: &str, value: &str) -> Self {
        self.command.args([name, value]);
        self
    }

    pub fn plain(mut self) -> Self {
        self.command.arg("--plain");
        self
    }

    /// All identities in `folder`, followed as they are replaced.
    pub fn identities(mut self, folder: &Path, roots: &Path) -> Self {
        self.command.arg("--identities").arg(folder).arg("--roots").arg(roots).arg("--follow");
        self
    }

    pub fn identity(mut self, files: &IdentityFiles, roots: &Path) -> Self {
        self.command.arg("--cert").arg(&files.certificate).arg("--key").arg(&files.key).arg("--roots").arg(roots);
        self
    }

    /// Requests each second, and for how long.
    pub fn rate(self, per_second: u32, duration: Duration) -> Self {
        self.arg("--rate", &per_second.to_string()).arg("--duration", &duration.as_secs_f64().to_string())
    }

    pub fn path(self, path: &str) -> Self {
        self.arg("--path", path)
    }

    pub fn start(mut self) -> Running {
        let child = self.command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().expect("signet-load");
        Running { child }
    }
}

impl Running {
    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().expect("a child").is_none()
    }

    /// Waits for its end.
    ///
    /// # Panics
    /// If it could not run at all; failed requests are in the report.
    pub fn finish(mut self) -> Report {
        self.wait()
    }

    /// As [`finish`](Self::finish), of one that is kept.
    pub(crate) fn wait(&mut self) -> Report {
        let mut stdout = self.child.stdout.take().expect("a pipe");
        let mut text = String::new();
        std::io::Read::read_to_string(&mut stdout, &mut text).expect("text");
        let status = self.child.wait().expect("a child");
        let report =
            serde_json::from_str(&text).unwrap_or_else(|error| panic!("signet-load: {status}: {error}: {text}"));
        Report(report)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

impl Report {
    pub fn operations(&self) -> u64 {
        self.integer("operations")
    }

    /// Of the whole run, warm-up included.
    pub fn failed(&self) -> u64 {
        self.integer("failed")
    }

    /// Requests that met a kept connection as it closed, and went again over a new one.
    pub fn retried(&self) -> u64 {
        self.integer("retried")
    }

    pub fn server_certificates_seen(&self) -> u64 {
        self.integer("server_certificates_seen")
    }

    /// The largest age, from notBefore, that a server's certificate had when it was presented.
    pub fn oldest_peer_certificate_seconds(&self) -> f64 {
        self.0["oldest_peer_certificate_seconds"].as_f64().expect("a number")
    }

    fn integer(&self, name: &str) -> u64 {
        self.0[name].as_u64().unwrap_or_else(|| panic!("no {name} in {}", self.0))
    }

    /// # Panics
    /// If a request failed, or fewer than `at_least` were answered.
    #[track_caller]
    pub fn expect_no_failure(&self, at_least: u64) {
        assert_eq!(self.failed(), 0, "{:#}", self.0);
        assert!(self.operations() >= at_least, "fewer than {at_least} operations: {:#}", self.0);
    }
}

impl std::fmt::Display for Report {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "{:#}", self.0)
    }
}
