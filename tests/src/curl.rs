//! curl as the client.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use tempfile::TempDir;

use crate::digest::sha256_of;
use crate::files::IdentityFiles;
use crate::program;

/// A request to be made. Nothing of a proxy or a configuration file of the machine plays a part.
#[derive(Debug)]
pub struct Curl {
    command: Command,
    folder: TempDir,
}

/// What came of it.
#[derive(Debug)]
pub struct Answer {
    /// curl's own exit code; 0 when there is an answer.
    pub exit: i32,
    /// 0 without an answer.
    pub status: u16,
    /// `1.1` or `2`.
    pub http_version: String,
    pub headers: Vec<(String, String)>,
    /// Where curl's connection came from, as its peer logs it.
    pub local_address: String,
    /// What curl said on standard error.
    pub error: String,
    body: PathBuf,
    _folder: TempDir,
}

impl Curl {
    pub fn get(url: impl AsRef<str>) -> Self {
        let folder = tempfile::Builder::new().prefix("signet-curl-").tempdir().expect("a folder");
        let mut command = Command::new(program::third_party("curl"));
        command
            .args(["--disable", "--silent", "--show-error", "--noproxy", "*", "--max-time", "120"])
            .arg("--output")
            .arg(folder.path().join("body"))
            .arg("--dump-header")
            .arg(folder.path().join("head"))
            .args(["--write-out", "%{http_code} %{http_version} 127.0.0.1:%{local_port}"])
            // What has come is in the file at once.
            .arg("--no-buffer")
            .arg(url.as_ref())
            .stdin(Stdio::null());
        Self { command, folder }
    }

    /// PUTs a file.
    pub fn put(url: impl AsRef<str>, file: &Path) -> Self {
        Self::get(url).arg("--upload-file").arg(file)
    }

    pub fn arg(mut self, argument: impl AsRef<OsStr>) -> Self {
        self.command.arg(argument);
        self
    }

    pub fn header(self, header: &str) -> Self {
        self.arg("--header").arg(header)
    }

    /// HTTP/2 without TLS, by its preface.
    pub fn http2_by_preface(self) -> Self {
        self.arg("--http2-prior-knowledge")
    }

    /// HTTP/2 by ALPN.
    pub fn http2(self) -> Self {
        self.arg("--http2")
    }

    pub fn http1(self) -> Self {
        self.arg("--http1.1")
    }

    /// Shows this client certificate. The server's is not checked: SPIFFE certificates name no host, which curl insists on.
    pub fn identity(self, files: &IdentityFiles) -> Self {
        self.insecure().arg("--cert").arg(&files.certificate).arg("--key").arg(&files.key)
    }

    pub fn insecure(self) -> Self {
        self.arg("--insecure")
    }

    pub fn max_time(self, time: Duration) -> Self {
        self.arg("--max-time").arg(time.as_secs_f64().to_string())
    }

    pub fn run(mut self) -> Answer {
        let output = self.command.output().expect("curl");
        let told = String::from_utf8_lossy(&output.stdout);
        let mut words = told.split(' ');
        let mut word = || words.next().unwrap_or_default().to_owned();
        let (status, http_version, local_address) = (word(), word(), word());
        let head = fs::read(self.folder.path().join("head")).unwrap_or_default();
        Answer {
            exit: output.status.code().unwrap_or(-1),
            status: status.parse().unwrap_or_default(),
            http_version,
            headers: headers_of(&String::from_utf8_lossy(&head)),
            local_address,
            error: String::from_utf8_lossy(&output.stderr).trim().to_owned(),
            body: self.folder.path().join("body"),
            _folder: self.folder,
        }
    }

    /// Starts it without waiting; the folder of its answer goes with the process.
    pub fn start(mut self) -> Running {
        let child = self.command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("curl");
        Running { child, folder: self.folder }
    }
}

/// A curl under way. Dropping it kills it.
#[derive(Debug)]
pub struct Running {
    child: std::process::Child,
    folder: TempDir,
}

impl Running {
    /// How much of the body has come so far.
    pub fn body_bytes(&self) -> u64 {
        fs::metadata(self.folder.path().join("body")).map_or(0, |facts| facts.len())
    }

    pub fn exit(&mut self) -> Option<i32> {
        self.child.try_wait().expect("a child of this process").and_then(|status| status.code())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

impl Answer {
    /// # Panics
    /// Unless the answer has `status`.
    #[track_caller]
    pub fn expect_status(self, status: u16) -> Self {
        assert_eq!((self.exit, self.status), (0, status), "{}\n{:?}\n{}", self.error, self.headers, self.text());
        self
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.bytes()).into_owned()
    }

    pub fn bytes(&self) -> Vec<u8> {
        fs::read(&self.body).unwrap_or_default()
    }

    /// SHA-256 of the body, in hexadecimal.
    pub fn sha256(&self) -> String {
        // curl makes no file for an empty body.
        if !self.body.exists() {
            fs::write(&self.body, "").expect("a file");
        }
        sha256_of(&self.body)
    }
}

/// The headers of the last head: one of `100 Continue` may stand before it.
fn headers_of(heads: &str) -> Vec<(String, String)> {
    let last = heads.trim_end().rsplit("\r\n\r\n").next().unwrap_or_default();
    last.lines()
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.trim().to_owned(), value.trim().to_owned()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::headers_of;

    #[test]
    fn the_headers_are_those_of_the_last_head() {
        let heads = "HTTP/1.1 100 Continue\r\nx-early: 1\r\n\r\nHTTP/1.1 200 OK\r\nserver: nginx\r\nx-a: b: c\r\n\r\n";
        let expected = [("server".to_owned(), "nginx".to_owned()), ("x-a".to_owned(), "b: c".to_owned())];
        assert_eq!(headers_of(heads), expected);
    }
}
