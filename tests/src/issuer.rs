//! A real `identity-issuer` process under a root of its own, by the ceremony an operator walks: `signet ca init`, the issuer's
//! request, `signet ca sign`.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::address::Host;
use crate::files::replace;
use crate::metrics::Admin;
use crate::process::{Process, Recipe};
use crate::program;
use crate::softhsm::SoftHsm;
use crate::wait::secs;

/// A running issuer.
#[derive(Debug)]
pub struct Issuer {
    pub process: Process,
    /// gRPC over mTLS.
    pub address: SocketAddr,
    pub admin: Admin,
    /// What is published, plain.
    pub web: SocketAddr,
    /// The root's certificate.
    pub bundle: PathBuf,
    pub root: PathBuf,
    pub(crate) passphrase: PathBuf,
    pub configuration: PathBuf,
    pub database: PathBuf,
    pub socket: PathBuf,
    // Keeps its ports taken when it is killed and started again.
    _host: Host,
}

/// What is particular about one.
#[derive(Clone, Copy)]
enum Kind<'a> {
    Plain,
    /// It may sign other issuers' authorities.
    Parent,
    /// Nobody signs for it.
    Unsigned,
    /// Its keys are in a token.
    InToken(&'a SoftHsm),
}

impl Issuer {
    /// Makes the root in `folder/root`, starts the issuer with its state in `folder/issuer`, and signs what it asks for.
    pub fn start(folder: &Path, trust_domain: &str, ttl: Duration) -> Self {
        Self::start_with(folder, trust_domain, ttl, "")
    }

    /// The same with further lines of configuration.
    pub fn start_with(folder: &Path, trust_domain: &str, ttl: Duration, more: &str) -> Self {
        Self::start_as(folder, trust_domain, ttl, more, Kind::Plain)
    }

    /// The same with room for issuers below it.
    pub fn start_above_others(folder: &Path, trust_domain: &str, ttl: Duration, more: &str) -> Self {
        Self::start_as(folder, trust_domain, ttl, more, Kind::Parent)
    }

    /// The same with its keys in a token.
    pub fn start_in_token(folder: &Path, trust_domain: &str, ttl: Duration, more: &str, hsm: &SoftHsm) -> Self {
        Self::start_as(folder, trust_domain, ttl, more, Kind::InToken(hsm))
    }

    fn start_as(folder: &Path, trust_domain: &str, ttl: Duration, more: &str, kind: Kind<'_>) -> Self {
        let root = folder.join("root");
        let passphrase = folder.join("passphrase");
        fs::write(&passphrase, "the root's passphrase\n").expect("a file");
        make_private(&passphrase);
        signet(
            &["ca", "init", "--trust-domain", trust_domain],
            &[("--dir", &root), ("--passphrase-file", &passphrase)],
        );
        Self::under(folder, root, passphrase, trust_domain, ttl, more, kind)
    }

    /// Another one under the same root, with an intermediate of its own.
    pub fn beside(&self, folder: &Path, trust_domain: &str, ttl: Duration, more: &str) -> Self {
        Self::under(folder, self.root.clone(), self.passphrase.clone(), trust_domain, ttl, more, Kind::Plain)
    }

    /// One under the same root for which nobody signs: it waits for its first authority.
    pub fn start_below(&self, folder: &Path, trust_domain: &str, ttl: Duration, more: &str) -> Self {
        Self::under(folder, self.root.clone(), self.passphrase.clone(), trust_domain, ttl, more, Kind::Unsigned)
    }

    /// One whose root is elsewhere: only its certificate is here. The issuer waits for its first authority.
    pub fn start_away_from_root(folder: &Path, certificate: &Path, trust_domain: &str, ttl: Duration) -> Self {
        let (root, passphrase) = (folder.join("root"), folder.join("passphrase"));
        fs::create_dir(&root).expect("a folder");
        fs::copy(certificate, root.join("root.pem")).expect("a file");
        fs::write(&passphrase, "the issuer's passphrase\n").expect("a file");
        make_private(&passphrase);
        Self::under(folder, root, passphrase, trust_domain, ttl, "", Kind::Unsigned)
    }

    fn under(
        folder: &Path,
        root: PathBuf,
        passphrase: PathBuf,
        trust_domain: &str,
        ttl: Duration,
        more: &str,
        kind: Kind<'_>,
    ) -> Self {
        let state = folder.join("issuer");
        fs::create_dir(&state).expect("a folder");
        let host = Host::new();
        let (address, admin) = (host.free(), host.free());
        let socket = folder.join("issuer-admin.sock");
        let configuration = folder.join("issuer.yaml");
        let mut text = configuration_text(trust_domain, &root, &state, &passphrase, &socket, address, admin, ttl);
        let web = host.free();
        if !more.contains("web:") {
            text.push_str(&format!("web: {{ listen: \"{web}\" }}\n"));
        }
        // Whoever writes the section leaves this address to it.
        let more = more.replace("WEB", &web.to_string());
        let mut recipe =
            Recipe::new("issuer", program::ours("identity-issuer"), folder).arg("--config").arg(&configuration);
        if matches!(kind, Kind::Parent) {
            text = text.replace("  passphrase_file:", "  path_length: 1\n  passphrase_file:");
        }
        if let Kind::InToken(hsm) = kind {
            text = text.replace(&format!("passphrase_file: {}", passphrase.display()), &hsm.configuration());
            let (name, value) = hsm.environment();
            recipe = recipe.env(name, &value);
        }
        fs::write(&configuration, text + &more).expect("a file");
        let mut process = recipe.start();

        let (request, certificate) = (state.join("authority.csr"), state.join("authority.pem"));
        process.wait_until("a certificate request", secs(30), |_| request.exists());
        let purpose = if matches!(kind, Kind::Parent) { "subordinate" } else { "any" };
        if !matches!(kind, Kind::Unsigned) {
            signet(
                &["ca", "sign", "--yes", "--purpose", purpose],
                &[("--dir", &root), ("--passphrase-file", &passphrase), ("--csr", &request), ("--out", &certificate)],
            );
        }
        let mut issuer = Self {
            process,
            address,
            admin: Admin(admin),
            web,
            bundle: root.join("root.pem"),
            root,
            passphrase,
            configuration,
            database: state.join("issuer.db"),
            socket,
            _host: host,
        };
        if !matches!(kind, Kind::Unsigned) {
            issuer.wait_until_ready();
        }
        issuer
    }

    #[track_caller]
    pub fn wait_until_ready(&mut self) {
        let admin = self.admin;
        self.process.wait_until("ready", secs(30), |_| admin.is_ready());
    }

    /// A join token for this SPIFFE ID, by `signet token create`.
    pub fn join_token(&self, spiffe_id: &str) -> String {
        let told = signet(&["token", "create", spiffe_id, "-o", "json"], &[("--issuer", &self.socket)]);
        let answer: serde_json::Value = serde_json::from_str(&told).unwrap_or_else(|error| panic!("{error}: {told}"));
        answer["join_token"].as_str().unwrap_or_else(|| panic!("no token in {told}")).to_owned()
    }

    /// `signet WORDS` about this issuer, which has to succeed; returns its standard output.
    #[track_caller]
    pub fn operate(&self, words: &[&str]) -> String {
        signet(words, &[("--issuer", &self.socket)])
    }

    /// The same as JSON.
    #[track_caller]
    pub fn operate_json(&self, words: &[&str]) -> serde_json::Value {
        let told = self.operate(&[words, &["-o", "json"]].concat());
        serde_json::from_str(&told).unwrap_or_else(|error| panic!("{error}: {told}"))
    }

    /// Makes these rules the policy, by `signet apply`.
    #[track_caller]
    pub fn apply(&self, rules: &str) {
        let file = self.configuration.with_file_name("rules.yaml");
        replace(&file, rules);
        self.operate(&["apply", "--yes", "--prune", "-f", file.to_str().expect("a path of ours")]);
    }

    /// How much there is of what somebody gets by a proof: certificates, attestations, proofs used up.
    pub fn records(&self) -> [u64; 3] {
        ["issued", "attestations", "used_proofs"].map(|table| {
            let count = self.query(&format!("SELECT count(*) FROM {table}"));
            count[0].parse().expect("a number")
        })
    }

    /// Rows that `sqlite3` finds in the issuer's database, one a line. Reading does not disturb the issuer.
    pub fn query(&self, sql: &str) -> Vec<String> {
        let output = Command::new(program::third_party("sqlite3"))
            .arg("-readonly")
            .arg(&self.database)
            .args(["-cmd", ".timeout 5000", sql])
            .output()
            .expect("sqlite3");
        assert!(output.status.success(), "{sql}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect()
    }

    /// Changes the issuer's database by SQL, while it works.
    pub fn write_record(&self, sql: &str) {
        let mut sqlite = Command::new(program::third_party("sqlite3"));
        let output = sqlite.arg(&self.database).args(["-cmd", ".timeout 20000", sql]).output().expect("sqlite3");
        assert!(output.status.success(), "{sql}: {}", String::from_utf8_lossy(&output.stderr));
    }

    /// Puts so many certificates on record, like the one that was issued last, by the rule `many`: number `x` to this SPIFFE ID, and so many
    /// seconds ago, both in SQL. They are in no log, and exist nowhere else.
    pub fn pretend_to_have_issued(&self, count: usize, spiffe_id: &str, ago: &str) {
        self.write_record(&format!(
            "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n WHERE x < {count}) \
             INSERT INTO issued (serial, spiffe_id, key_sha256, not_before, not_after, issued_at, attestation, \
             authority_key_id, certificate_sha256, rule) SELECT CAST('A' || substr(hex(randomblob(8)), 2) AS BLOB), \
             {spiffe_id}, randomblob(32), not_before - {ago}, not_after - {ago}, issued_at, 'join_token', \
             authority_key_id, randomblob(32), 'many' FROM n, (SELECT * FROM issued ORDER BY position DESC LIMIT 1)"
        ));
    }
}

/// `signet WORDS --OPTION PATH…`, which has to succeed; returns its standard output.
///
/// # Panics
/// With what it said, if it fails.
#[track_caller]
pub fn signet(words: &[&str], paths: &[(&str, &Path)]) -> String {
    let mut command = Command::new(program::ours("signet"));
    command.args(words);
    for (option, path) in paths {
        command.arg(option).arg(path);
    }
    let output = command.output().expect("signet");
    let (told, error) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "signet {words:?} {paths:?}: {}\n{told}{error}", output.status);
    told.into_owned()
}

fn make_private(path: &Path) {
    use std::os::unix::fs::PermissionsExt as _;
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).expect("our own file");
}

#[expect(clippy::too_many_arguments, reason = "each is one line of the file")]
fn configuration_text(
    trust_domain: &str,
    root: &Path,
    state: &Path,
    passphrase: &Path,
    socket: &Path,
    address: SocketAddr,
    admin: SocketAddr,
    ttl: Duration,
) -> String {
    let (root, state, passphrase, socket) = (root.display(), state.display(), passphrase.display(), socket.display());
    let ttl = ttl.as_secs();
    format!(
        "trust_domain: {trust_domain}\nstate: {state}\ntrust_bundle: {root}/root.pem\n\
         authority:\n  certificate: {state}/authority.pem\n  passphrase_file: {passphrase}\n\
         listen: {address}\nadmin: {admin}\nadmin_socket: {socket}\nsvid: {{ ttl: {ttl}s }}\n"
    )
}
