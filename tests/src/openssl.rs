//! `openssl` as the client and as the judge of certificates.

use std::ffi::OsStr;
use std::io::{Read as _, Write as _};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::files::IdentityFiles;
use crate::program;
use crate::wait::{secs, until_some};

/// `openssl ARGUMENTS`: success, and what it said on both streams.
pub fn openssl(arguments: &[impl AsRef<OsStr>]) -> (bool, String) {
    let output =
        Command::new(program::third_party("openssl")).args(arguments).stdin(Stdio::null()).output().expect("openssl");
    (output.status.success(), String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned())
}

/// The same where it has to succeed.
///
/// # Panics
/// When it does not.
#[track_caller]
pub fn openssl_ok(arguments: &[impl AsRef<OsStr> + std::fmt::Debug]) -> String {
    let (success, told) = openssl(arguments);
    assert!(success, "openssl {arguments:?}: {told}");
    told
}

/// `openssl s_client` to be started.
#[derive(Debug)]
pub struct SClient {
    command: Command,
}

/// One under way. Dropping it kills it.
#[derive(Debug)]
pub struct SConnection {
    child: Child,
    input: Option<ChildStdin>,
    output: Arc<Mutex<Vec<u8>>>,
    readers: Vec<JoinHandle<()>>,
}

impl SClient {
    pub fn to(address: SocketAddr) -> Self {
        let mut command = Command::new(program::third_party("openssl"));
        command.args(["s_client", "-connect", &address.to_string(), "-ign_eof", "-nocommands"]);
        Self { command }
    }

    pub fn arg(mut self, argument: impl AsRef<OsStr>) -> Self {
        self.command.arg(argument);
        self
    }

    /// Ends the handshake unless the server's chain leads to this root.
    pub fn trusting(self, roots: &Path) -> Self {
        self.arg("-verify_return_error").arg("-CAfile").arg(roots)
    }

    pub fn identity(self, files: &IdentityFiles) -> Self {
        // The file holds leaf and intermediates; -cert alone would send only the leaf.
        self.arg("-cert").arg(&files.certificate).arg("-cert_chain").arg(&files.certificate).arg("-key").arg(&files.key)
    }

    pub fn start(mut self) -> SConnection {
        let mut child =
            self.command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("openssl");
        let output = Arc::new(Mutex::new(Vec::new()));
        let mut readers = Vec::new();
        for mut stream in [
            Box::new(child.stdout.take().expect("a pipe")) as Box<dyn std::io::Read + Send>,
            Box::new(child.stderr.take().expect("a pipe")),
        ] {
            let output = output.clone();
            readers.push(std::thread::spawn(move || {
                let mut buffer = [0; 4096];
                while let Ok(length @ 1..) = stream.read(&mut buffer) {
                    output.lock().expect("a whole vector").extend_from_slice(&buffer[..length]);
                }
            }));
        }
        let input = child.stdin.take();
        SConnection { child, input, output, readers }
    }

    /// Sends one `GET PATH` and waits until the server has closed the connection. Returns all that openssl said.
    pub fn get(self, path: &str) -> String {
        let mut connection = self.start();
        connection.send(&format!("GET {path} HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n"));
        connection.wait_for_end(secs(15));
        connection.output()
    }
}

impl SConnection {
    pub fn send(&mut self, text: &str) {
        let input = self.input.as_mut().expect("an open pipe");
        // A refused client is gone before it is spoken to; what it said tells more than a broken pipe.
        drop(input.write_all(text.as_bytes()).and_then(|()| input.flush()));
    }

    pub fn output(&self) -> String {
        String::from_utf8_lossy(&self.output.lock().expect("a whole vector")).into_owned()
    }

    #[track_caller]
    pub fn wait_for(&self, text: &str, within: Duration) {
        until_some(&format!("`{text}` from openssl s_client"), within, || self.output().contains(text).then_some(()));
    }

    #[track_caller]
    pub fn wait_for_end(&mut self, within: Duration) {
        until_some("the end of openssl s_client", within, || self.child.try_wait().expect("a child"));
        // What it said last may still be in the pipes.
        for reader in self.readers.drain(..) {
            reader.join().expect("a reader that does not panic");
        }
    }

    pub fn has_ended(&mut self) -> bool {
        self.child.try_wait().expect("a child").is_some()
    }
}

impl Drop for SConnection {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}
