//! PostgreSQL servers for tests: real ones, each in a folder of its own, reached by a Unix socket in it.
//!
//! Needs Debian's package `postgresql`, and `setpriv` where tests run as root, which PostgreSQL refuses to.

#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use std::fs::File;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, OnceLock, mpsc};
use std::time::{Duration, Instant};

/// One server; it ends with the process at the latest.
#[derive(Debug)]
pub struct Server {
    folder: tempfile::TempDir,
    programs: PathBuf,
    is_durable: bool,
    running: Mutex<Option<Child>>,
    databases: AtomicU64,
}

const USER: &str = "signet";
const PREFIX: &str = "signet-postgres-";
/// Holds the process that made the folder.
const OWNER: &str = "owner";
const PATIENCE: Duration = Duration::from_secs(60);

/// One for all tests of this process, which loses what it holds when the machine stops.
pub fn shared() -> &'static Server {
    static SHARED: OnceLock<Server> = OnceLock::new();
    SHARED.get_or_init(|| Server::start(false))
}

impl Server {
    /// `is_durable`: whether a commit waits for the disk.
    pub fn start(is_durable: bool) -> Self {
        remove_left_behind();
        let folder = tempfile::Builder::new().prefix(PREFIX).tempdir().unwrap();
        std::fs::write(folder.path().join(OWNER), std::process::id().to_string()).unwrap();
        let server =
            Self { programs: programs(), is_durable, running: Mutex::new(None), databases: AtomicU64::new(0), folder };
        if is_root() {
            let status = Command::new("chown").arg("postgres").arg(server.folder.path()).status().unwrap();
            assert!(status.success(), "there is no user `postgres`");
        }
        std::fs::set_permissions(server.folder.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
        let data = server.data();
        server.run("initdb", &["--no-sync", "--auth=trust", "--username", USER, "-D", data.to_str().unwrap()]);
        server.up();
        server
    }

    /// The address of a database that nobody else has.
    pub fn database(&self) -> String {
        let number = self.databases.fetch_add(1, Ordering::Relaxed);
        let name = format!("test{number}");
        self.run("createdb", &["-h", self.socket_folder(), "-U", USER, &name]);
        format!("postgres:///{name}?host={}&user={USER}", self.socket_folder())
    }

    /// Rows that `psql` finds, one a line.
    pub fn query(&self, url: &str, sql: &str) -> Vec<String> {
        let output = self.command("psql", &[]).args(["-X", "-A", "-t", "-c", sql, url]).output().unwrap();
        assert!(output.status.success(), "{sql}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect()
    }

    /// Ends it as an operator would who wants it back at once: connections break.
    pub fn down(&self) {
        let Some(mut child) = self.running.lock().unwrap().take() else { return };
        signal(&child, "INT");
        child.wait().unwrap();
    }

    pub fn up(&self) {
        let mut command = self.command("postgres", &["--pdeathsig", "INT"]);
        let durable = if self.is_durable { "on" } else { "off" };
        let log = File::create(self.folder.path().join("log")).unwrap();
        command
            .arg("-D")
            .arg(self.data())
            .args(["-k", self.socket_folder(), "-c", "listen_addresses=", "-c", "max_connections=200"])
            .args(["-c", &format!("fsync={durable}"), "-c", &format!("synchronous_commit={durable}")])
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log);
        // The signal comes with the end of the thread that started it: one that has no end but the process's.
        let (give, take) = mpsc::channel();
        std::thread::spawn(move || {
            give.send(command.spawn().unwrap()).unwrap();
            loop {
                std::thread::park();
            }
        });
        *self.running.lock().unwrap() = Some(take.recv().unwrap());
        let begun = Instant::now();
        while !self.command("pg_isready", &[]).args(["-q", "-h", self.socket_folder()]).status().unwrap().success() {
            assert!(begun.elapsed() < PATIENCE, "PostgreSQL is not ready: {}", self.log());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn run(&self, program: &str, arguments: &[&str]) {
        let output = self.command(program, &[]).args(arguments).output().unwrap();
        assert!(output.status.success(), "{program}: {}", String::from_utf8_lossy(&output.stderr));
    }

    /// As the user `postgres` where this process is root's.
    fn command(&self, program: &str, as_user: &[&str]) -> Command {
        let program = self.programs.join(program);
        let mut command = Command::new("setpriv");
        if is_root() {
            command.args(["--reuid=postgres", "--regid=postgres", "--clear-groups"]);
        }
        command.args(as_user).arg("--").arg(program);
        command.current_dir(self.folder.path()).env("LC_ALL", "C");
        command
    }

    fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    fn socket_folder(&self) -> &str {
        self.folder.path().to_str().unwrap()
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.down();
    }
}

/// Folders of processes that are gone: what is shared by all tests of one is never dropped.
fn remove_left_behind() {
    for entry in std::fs::read_dir(std::env::temp_dir()).into_iter().flatten().flatten() {
        let is_ours = entry.file_name().to_str().is_some_and(|name| name.starts_with(PREFIX));
        let owner = std::fs::read_to_string(entry.path().join(OWNER));
        if is_ours && owner.is_ok_and(|owner| !Path::new("/proc").join(owner).exists()) {
            // Another process may be doing the same.
            let _ = std::fs::remove_dir_all(entry.path());
        }
    }
}

fn signal(child: &Child, name: &str) {
    Command::new("kill").args(["-s", name, &child.id().to_string()]).status().unwrap();
}

fn is_root() -> bool {
    std::fs::metadata("/proc/self").unwrap().uid() == 0
}

/// Debian puts no server on the PATH.
fn programs() -> PathBuf {
    let of_debian = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let of_debian = of_debian.map(|version| version.path().join("bin"));
    let on_path = std::env::var_os("PATH").unwrap_or_default();
    let on_path: Vec<PathBuf> = std::env::split_paths(&on_path).collect();
    let has_all = |folder: &PathBuf| {
        ["initdb", "postgres", "createdb", "pg_isready", "psql"].iter().all(|program| exists(folder, program))
    };
    of_debian.chain(on_path).find(has_all).expect("PostgreSQL is not installed: tests/run does that")
}

fn exists(folder: &Path, program: &str) -> bool {
    folder.join(program).exists()
}
