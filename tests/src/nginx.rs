//! nginx as the upstream: serves files, stores what is PUT, and tells in its access log which requests reached it.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use crate::address::Host;
use crate::digest::{random_file, sha256_of};
use crate::process::{Process, Recipe, Signal};
use crate::program;
use crate::wait::secs;

/// A running nginx with a folder of its own.
#[derive(Debug)]
pub struct Nginx {
    process: Process,
    address: SocketAddr,
    folder: TempDir,
    // Keeps the port taken when nginx is killed and started again.
    _host: Host,
}

/// A request as nginx saw it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Access {
    pub method: String,
    pub target: String,
    pub status: u16,
    /// `x-forwarded-client-cert`, empty without.
    pub client_certificate: String,
}

impl Nginx {
    pub fn start() -> Self {
        let host = Host::new();
        let address = host.free();
        let folder = tempfile::Builder::new().prefix("signet-nginx-").tempdir().expect("a folder");
        for name in ["files", "stored", "temp"] {
            fs::create_dir(folder.path().join(name)).expect("a folder");
        }
        fs::write(folder.path().join("files/hello"), "hello from nginx\n").expect("a file");
        let configuration = folder.path().join("nginx.conf");
        fs::write(&configuration, configuration_text(address, folder.path())).expect("a file");

        let process = Recipe::new("nginx", program::third_party("nginx"), folder.path())
            .arg("-p")
            .arg(folder.path())
            .arg("-c")
            .arg(configuration)
            .start();
        let mut nginx = Self { process, address, folder, _host: host };
        nginx.wait_until_it_listens();
        nginx
    }

    /// `http://127.…:…`
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// A file of random bytes, served as `/NAME`. Returns its SHA-256.
    pub fn serve_random(&self, name: &str, bytes: u64) -> String {
        let path = self.folder.path().join("files").join(name);
        random_file(&path, bytes);
        sha256_of(&path)
    }

    /// Where `/NAME` comes from.
    pub fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join("files").join(name)
    }

    /// Where a PUT of `/stored/NAME` ends.
    pub fn stored(&self, name: &str) -> PathBuf {
        self.folder.path().join("stored").join(name)
    }

    /// Removes what was served or stored under this name.
    pub fn forget(&self, name: &str) {
        for path in [self.file(name), self.stored(name)] {
            // One of the two may not be there.
            drop(fs::remove_file(path));
        }
    }

    /// All requests that reached it so far.
    pub fn accesses(&self) -> Vec<Access> {
        let log = fs::read_to_string(self.folder.path().join("access.log")).unwrap_or_default();
        log.lines().map(Access::parse).collect()
    }

    /// Requests for `target` so far.
    pub fn accesses_of(&self, target: &str) -> Vec<Access> {
        self.accesses().into_iter().filter(|access| access.target == target).collect()
    }

    pub fn signal(&self, signal: Signal) {
        self.process.signal(signal);
    }

    pub fn kill(&mut self) {
        self.process.kill();
    }

    pub fn start_again(&mut self) {
        self.process.start_again();
        self.wait_until_it_listens();
    }

    fn wait_until_it_listens(&mut self) {
        let address = self.address;
        self.process.wait_until("listening", secs(30), |_| std::net::TcpStream::connect(address).is_ok());
    }
}

impl Access {
    fn parse(line: &str) -> Self {
        let fields: Vec<_> = line.split('\t').collect();
        let [method, target, status, client_certificate] = fields[..] else { panic!("not an access: {line}") };
        Self {
            method: method.to_owned(),
            target: target.to_owned(),
            status: status.parse().expect("a status"),
            client_certificate: client_certificate.trim_matches('-').to_owned(),
        }
    }
}

fn configuration_text(address: SocketAddr, folder: &Path) -> String {
    let folder = folder.display();
    format!(
        r#"daemon off;
# One process: what is killed is gone, and it keeps the rights of whoever runs the tests.
master_process off;
pid {folder}/nginx.pid;
error_log stderr info;
events {{ worker_connections 1024; }}
http {{
    log_format access "$request_method\t$request_uri\t$status\t$http_x_forwarded_client_cert";
    access_log {folder}/access.log access;
    client_body_temp_path {folder}/temp/body;
    proxy_temp_path {folder}/temp/proxy;
    fastcgi_temp_path {folder}/temp/fastcgi;
    uwsgi_temp_path {folder}/temp/uwsgi;
    scgi_temp_path {folder}/temp/scgi;
    client_max_body_size 0;
    sendfile on;
    default_type application/octet-stream;
    server {{
        listen {address};
        root {folder}/files;
        location = / {{ return 200 "nginx\n"; }}
        location = /client-certificate {{ return 200 "$http_x_forwarded_client_cert\n"; }}
        location = /not-modified {{ return 304; }}
        location = /no-content {{ return 204; }}
        # A response that lasts: 1 KiB each second.
        location /slow/ {{ alias {folder}/files/; limit_rate 1k; }}
        location /stored/ {{ root {folder}; dav_methods PUT DELETE; create_full_put_path on; }}
    }}
}}
"#
    )
}
