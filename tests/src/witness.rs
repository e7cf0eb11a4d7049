//! Witnesses of an audit log: `litewitness`, which is not ours, and one that does what a test says.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use signet_audit::{Checkpoint, Hash, VerifierKey, sign};

use crate::process::{Process, Recipe};
use crate::program;
use crate::wait::{secs, until};

/// filippo.io/torchwood/cmd/litewitness, its key in an ssh-agent.
#[derive(Debug)]
pub struct Litewitness {
    pub process: Process,
    _agent: Process,
    address: SocketAddr,
    /// NAME+HASH+KEY
    pub key: String,
    database: std::path::PathBuf,
}

impl Litewitness {
    pub fn start(folder: &Path, name: &str) -> Self {
        fs::create_dir_all(folder).unwrap();
        let (agent_at, key, database) = (folder.join("agent"), folder.join("key"), folder.join("witness.db"));
        let agent = program::third_party("ssh-agent");
        let agent = Recipe::new("ssh-agent", agent, folder).arg("-D").arg("-a").arg(&agent_at).start();
        until("an ssh-agent", secs(10), || agent_at.exists());
        let run = |program: &str, words: &[&str]| {
            let mut command = Command::new(program::third_party(program));
            let output = command.args(words).env("SSH_AUTH_SOCK", &agent_at).stdin(Stdio::null()).output().unwrap();
            assert!(output.status.success(), "{program}: {}", String::from_utf8_lossy(&output.stderr));
            String::from_utf8(output.stdout).unwrap()
        };
        let key = key.to_str().unwrap();
        run("ssh-keygen", &["-q", "-t", "ed25519", "-N", "", "-f", key]);
        run("ssh-add", &["-q", key]);
        let fingerprint = run("ssh-keygen", &["-l", "-f", key]);
        let fingerprint = fingerprint.split(' ').nth(1).unwrap();
        let address = free();
        let mut process = Recipe::new("litewitness", program::go("litewitness"), folder)
            .args(["-name", name, "-key", fingerprint, "-listen", &address.to_string()])
            .arg("-ssh-agent")
            .arg(&agent_at)
            .arg("-db")
            .arg(&database)
            .start();
        let line = process.wait_for_line("vkey=");
        let key = line.split("vkey=").nth(1).unwrap().split_whitespace().next().unwrap().trim_matches('"').to_owned();
        process.wait_until("it listens", secs(10), |_| TcpStream::connect(address).is_ok());
        Self { process, _agent: agent, address, key, database }
    }

    /// What `witnessctl add-log` and `add-key` do.
    pub fn know(&self, log: &str) {
        let origin = log.split('+').next().unwrap();
        let empty = STANDARD.encode(signet_audit::sha256(b""));
        let sql =
            format!("INSERT INTO log VALUES ('{origin}', 0, '{empty}'); INSERT INTO key VALUES ('{origin}', '{log}');");
        let mut command = Command::new(program::third_party("sqlite3"));
        let output = command.arg("-cmd").arg(".timeout 5000").arg(&self.database).arg(sql).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }
}

/// What a witness answers.
#[derive(Clone, Debug)]
pub enum Answer {
    /// As it should.
    Cosign,
    /// A root that nobody has asked for.
    CosignAnother,
    /// By a key that is not its own.
    CosignByAnother,
    Status(u16, &'static str),
    /// So many bytes.
    Huge(usize),
    /// Nothing, for as long as one waits.
    Silence,
}

/// One that signs what it is shown, or does worse. It remembers nothing.
#[derive(Debug)]
pub struct FakeWitness {
    address: SocketAddr,
    pub key: String,
    pub answer: Arc<Mutex<Answer>>,
}

impl FakeWitness {
    pub fn start(name: &str, answer: Answer) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let pair = Ed25519KeyPair::generate().unwrap();
        let typed = [&[4], pair.public_key().as_ref()].concat();
        let hash = signet_audit::sha256(&[name.as_bytes(), b"\n", &typed].concat());
        let hash = u32::from_be_bytes(*hash.first_chunk().unwrap());
        let key = format!("{name}+{hash:08x}+{}", STANDARD.encode(&typed));
        let answer = Arc::new(Mutex::new(answer));
        let (name, answers) = (name.to_owned(), Arc::clone(&answer));
        // It ends with the test.
        std::thread::spawn(move || {
            let mut held = Vec::new();
            while let Ok((tcp, _)) = listener.accept() {
                let answer = answers.lock().unwrap().clone();
                // Whoever hangs up is heard no more.
                if let Some(tcp) = serve(tcp, &name, &pair, &answer).ok().flatten() {
                    held.push(tcp);
                }
            }
        });
        Self { address, key, answer }
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }
}

/// The connection, where it is to be kept open.
fn serve(tcp: TcpStream, name: &str, pair: &Ed25519KeyPair, answer: &Answer) -> std::io::Result<Option<TcpStream>> {
    let mut reader = BufReader::new(tcp);
    let mut length = 0;
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        if line.trim_end().is_empty() {
            break;
        }
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().unwrap();
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    let body = String::from_utf8(body).unwrap();
    let mut lines = body.split_once("\n\n").unwrap().1.lines();
    let (origin, size, root) = (lines.next().unwrap(), lines.next().unwrap(), lines.next().unwrap());
    let mut checkpoint = Checkpoint {
        origin: origin.parse().unwrap(),
        size: size.parse().unwrap(),
        root: Hash::parse_hash(root).unwrap(),
    };
    let other = Ed25519KeyPair::generate().unwrap();
    let (status, told) = match answer {
        Answer::Cosign => (200, cosign(&checkpoint, name, pair, pair)),
        Answer::CosignAnother => {
            checkpoint.root = Hash([7; 32]);
            (200, cosign(&checkpoint, name, pair, pair))
        }
        Answer::CosignByAnother => (200, cosign(&checkpoint, name, pair, &other)),
        Answer::Status(status, told) => (*status, (*told).to_owned()),
        Answer::Huge(bytes) => (200, "x".repeat(*bytes)),
        Answer::Silence => return Ok(Some(reader.into_inner())),
    };
    let head = format!("HTTP/1.1 {status} -\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", told.len());
    reader.get_mut().write_all(&[head.as_bytes(), told.as_bytes()].concat())?;
    Ok(None)
}

/// By `by`, as if it were by `pair`.
fn cosign(checkpoint: &Checkpoint, name: &str, pair: &Ed25519KeyPair, by: &Ed25519KeyPair) -> String {
    let key = VerifierKey::new(name.parse().unwrap(), pair.public_key().as_ref().try_into().unwrap());
    let now = time::OffsetDateTime::now_utc().unix_timestamp().cast_unsigned();
    let signing = |message: &[u8]| Ok::<[u8; 64], ()>(by.sign(message).as_ref().try_into().unwrap());
    let note = sign(checkpoint, &key, now, signing).unwrap();
    // The second of its two signatures is the one with the time.
    format!("{}\n", note.lines().last().unwrap())
}

/// On the address that plain HTTP is allowed to.
fn free() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}
