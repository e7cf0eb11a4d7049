//! Certificate revocation lists, as OpenSSL judges them, and where they are put.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeSet;
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::Command;

use signet_tests::clock::Fast;
use signet_tests::issuer::signet;
use signet_tests::openssl::{openssl, openssl_ok};
use signet_tests::wait::{until, until_some};
use signet_tests::{Issuer, S3, Workload, pages, program, secs};
use tempfile::TempDir;

/// An issuer whose leaves name their lists.
struct Bench {
    folder: TempDir,
    issuer: Issuer,
}

impl Bench {
    fn new(more: &str) -> Self {
        let folder = TempDir::new().unwrap();
        let crl = format!("crl: {{ url: 'http://crl.example.org/crl'{more} }}\n");
        let issuer = Issuer::start_with(folder.path(), "example.org", secs(3600), &crl);
        Self { folder, issuer }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn key_id(&self) -> String {
        self.issuer.operate_json(&["status"])["authority"]["key_id"].as_str().unwrap().to_owned()
    }

    /// A workload, its certificate in `NAME.pem` and those above it in `NAME.above`.
    fn join(&self, name: &str) -> Workload {
        let mut workload = Workload::of(self.issuer.address);
        workload.attest(&self.issuer.join_token(&format!("spiffe://example.org/{name}"))).unwrap();
        let chain = workload.svid().chain_pem();
        let end = chain.find("-----END CERTIFICATE-----").unwrap() + "-----END CERTIFICATE-----\n".len();
        fs::write(self.path(&format!("{name}.pem")), &chain[..end]).unwrap();
        fs::write(self.path(&format!("{name}.above")), &chain[end..]).unwrap();
        workload
    }

    /// The list that a certificate names, fetched from the issuer, as PEM. Until it has so many entries.
    fn list(&self, name: &str, entries: usize) -> PathBuf {
        let shown =
            openssl_ok(&["x509", "-in", self.path(&format!("{name}.pem")).to_str().unwrap(), "-noout", "-text"]);
        let uri = shown.lines().find_map(|line| line.trim().strip_prefix("URI:http://crl.example.org")).expect(&shown);
        let (der, pem) = (self.path("list.der"), self.path("list.pem"));
        until("the list", secs(10), || {
            let Some(list) = fetch(&self.issuer, uri) else { return false };
            fs::write(&der, list).unwrap();
            let words = ["crl", "-inform", "DER", "-in", der.to_str().unwrap(), "-out", pem.to_str().unwrap(), "-text"];
            let text = openssl_ok(&words);
            drop(text);
            fs::read_to_string(&pem).unwrap().matches("Serial Number:").count() == entries
        });
        pem
    }

    /// What OpenSSL says of a certificate with this list.
    fn verify(&self, name: &str, list: &Path) -> (bool, String) {
        self.verify_at(name, list, &[])
    }

    fn verify_at(&self, name: &str, list: &Path, when: &[&str]) -> (bool, String) {
        let (leaf, above) = (self.path(&format!("{name}.pem")), self.path(&format!("{name}.above")));
        let paths =
            [&self.issuer.bundle, &above, &list.to_owned(), &leaf].map(|path| path.to_str().unwrap().to_owned());
        let [root, above, list, leaf] = &paths;
        let words = ["verify", "-x509_strict", "-crl_check", "-extended_crl", "-CAfile", root, "-untrusted", above];
        openssl(&[&words[..], when, &["-CRLfile", list, leaf]].concat())
    }
}

fn fetch(issuer: &Issuer, path: &str) -> Option<Vec<u8>> {
    let mut tcp = TcpStream::connect(issuer.web).unwrap();
    write!(tcp, "GET {path} HTTP/1.1\r\nhost: issuer\r\nconnection: close\r\n\r\n").unwrap();
    let mut answer = Vec::new();
    tcp.read_to_end(&mut answer).unwrap();
    let end = answer.windows(4).position(|window| window == b"\r\n\r\n").expect("a head");
    let body = answer.split_off(end + 4);
    answer.starts_with(b"HTTP/1.1 200").then_some(body)
}

/// Runs the lines of a page in a folder, one after the other, as far as they go; what they said.
fn in_shell(lines: &[String], folder: &Path) -> (bool, String) {
    let mut shell = Command::new("sh");
    let output = shell.args(["-e", "-c", &lines.join("\n")]).current_dir(folder).output().unwrap();
    let told = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8(told).unwrap())
}

fn revoke(issuer: &Issuer, id: &str, reason: &str) {
    let id = format!("spiffe://example.org/{id}");
    issuer.operate(&["revoke", "id", &id, "--reason", reason, "--yes"]);
}

#[test]
fn openssl_checks_a_whole_path_by_the_lists_of_root_and_issuer() {
    let bench = Bench::new("");
    let _workload = bench.join("w0");
    let [of_root, both] = ["root.crl", "both.crl"].map(|name| bench.path(name));
    let passphrase = bench.path("passphrase");
    let root = [("--dir", &*bench.issuer.root), ("--passphrase-file", &passphrase), ("--out", &of_root)];
    signet(&["ca", "crl", "--yes"], &root);
    let verified = |lists: &Path| {
        let (leaf, above) = (bench.path("w0.pem"), bench.path("w0.above"));
        let paths = [&bench.issuer.bundle, &above, lists, &leaf].map(|path| path.to_str().unwrap().to_owned());
        let [root, above, lists, leaf] = &paths;
        let words = ["verify", "-x509_strict", "-crl_check_all", "-CAfile", root, "-untrusted", above];
        openssl(&[&words[..], &["-CRLfile", lists, leaf]].concat())
    };
    let with_roots = |list: &Path| {
        fs::write(&both, fs::read_to_string(list).unwrap() + &fs::read_to_string(&of_root).unwrap()).unwrap();
        verified(&both)
    };
    let (good, told) = with_roots(&bench.list("w0", 0));
    assert!(good, "{told}");
    // It does look for both.
    let (good, told) = verified(&bench.list("w0", 0));
    assert!(!good && told.contains("unable to get certificate CRL"), "{told}");
    revoke(&bench.issuer, "w0", "key-compromise");
    let (good, told) = with_roots(&bench.list("w0", 1));
    assert!(!good && told.contains("certificate revoked"), "{told}");
}

#[test]
fn the_commands_of_the_page_fetch_the_list_and_check_a_certificate_by_it() {
    let bench = Bench::new("");
    let _workload = bench.join("w0");
    let _first = bench.list("w0", 0);
    let place =
        |line: String| line.replace("127.0.0.1:8082", &bench.issuer.web.to_string()).replace("KEY_ID", &bench.key_id());
    let lines: Vec<_> = pages::shell("revocation.md", &["curl", "openssl"]).into_iter().map(place).collect();
    assert_eq!(lines.len(), 4);
    for (name, from) in [("root.pem", &bench.issuer.bundle), ("authority.pem", &bench.path("w0.above"))] {
        fs::copy(from, bench.path(name)).unwrap();
    }
    fs::copy(bench.path("w0.pem"), bench.path("leaf.pem")).unwrap();
    let (good, told) = in_shell(&lines, bench.folder.path());
    assert!(good && told.contains("No Revoked Certificates") && told.contains("leaf.pem: OK"), "{told}");
    revoke(&bench.issuer, "w0", "key-compromise");
    let _second = bench.list("w0", 1);
    let (good, told) = in_shell(&lines, bench.folder.path());
    assert!(!good && told.contains("Key Compromise") && told.contains("certificate revoked"), "{told}");
}

#[test]
fn openssl_refuses_what_is_revoked_and_nothing_else() {
    for (more, is_part) in [("", false), (", shards: 5", true)] {
        let bench = Bench::new(more);
        let names: Vec<String> = (0..6).map(|number| format!("w{number}")).collect();
        let _workloads: Vec<_> = names.iter().map(|name| bench.join(name)).collect();
        let list = bench.list("w0", 0);
        let (good, told) = bench.verify("w0", &list);
        assert!(good, "{told}");
        revoke(&bench.issuer, "w0", "key-compromise");
        let list = bench.list("w0", 1);
        let (good, told) = bench.verify("w0", &list);
        assert!(!good && told.contains("certificate revoked"), "{told}");
        let above = bench.path("w0.above");
        let words = ["crl", "-in", list.to_str().unwrap(), "-noout", "-text", "-CAfile", above.to_str().unwrap()];
        let text = openssl_ok(&words);
        for wanted in
            ["verify OK", "Version 2", "X509v3 CRL Number", "X509v3 Authority Key Identifier", "Key Compromise"]
        {
            assert!(text.contains(wanted), "{wanted}: {text}");
        }
        assert_eq!(text.contains("X509v3 Issuing Distribution Point: critical"), is_part, "{text}");
        for name in &names[1..] {
            let list = until_some("its own list", secs(10), || {
                let shown = openssl_ok(&[
                    "x509",
                    "-in",
                    bench.path(&format!("{name}.pem")).to_str().unwrap(),
                    "-noout",
                    "-text",
                ]);
                let uri =
                    shown.lines().find_map(|line| line.trim().strip_prefix("URI:http://crl.example.org"))?.to_owned();
                let (der, pem) = (bench.path("own.der"), bench.path("own.pem"));
                fs::write(&der, fetch(&bench.issuer, &uri)?).unwrap();
                openssl_ok(&["crl", "-inform", "DER", "-in", der.to_str()?, "-out", pem.to_str()?]);
                Some(pem)
            });
            let (good, told) = bench.verify(name, &list);
            assert!(good, "{name}: {told}");
        }
        let (good, told) = bench.verify("w0", &bench.list("w0", 1));
        assert!(!good && told.contains("certificate revoked"), "{told}");
    }
}

#[test]
fn no_list_that_is_served_is_ever_near_its_end() {
    const LIFE: u64 = 60;
    const LIVES: u64 = 4;
    let mut bench = Bench::new(", life: 1m");
    // An issuer to which a minute is six seconds.
    let clock = Fast::new();
    bench.issuer.process.kill();
    bench.issuer.process.start_again_with("LD_PRELOAD", clock.library(bench.folder.path()).to_str().unwrap());
    bench.issuer.wait_until_ready();
    bench.join("w0");
    let next_update = || bench.issuer.admin.sum("signet_issuer_crl_next_update_timestamp_seconds", &[]) as u64;
    bench.list("w0", 0);

    let (began, mut ends) = (clock.now(), BTreeSet::new());
    while clock.now() < began + LIVES * LIFE {
        let list = bench.list("w0", 0);
        let (told, now) = (next_update(), clock.now());
        let (good, verdict) = bench.verify_at("w0", &list, &["-attime", &now.to_string()]);
        assert!(good, "{now}: {verdict}");
        assert!(ends.last().is_none_or(|last| *last <= told), "{told} after {ends:?}");
        ends.insert(told);
        // The last one that could be fetched is good for a while yet.
        assert!(told > now + LIFE / 4, "{told} at {now}");
    }
    println!("{} lists in {LIVES} lives of one", ends.len());
    assert!(ends.len() as u64 >= 2 * LIVES, "{ends:?}");
    assert_eq!(bench.issuer.admin.sum("signet_issuer_crl_failures_total", &[]), 0.0);
}

#[test]
fn lists_are_put_into_a_folder_and_a_folder_that_is_none_holds_up_nothing() {
    let folder = TempDir::new().unwrap();
    let put = folder.path().join("put");
    // A file is in its place at first.
    fs::write(&put, "").unwrap();
    let bench = Bench::new(&format!(", export: {{ url: 'file://{}' }}", put.display()));
    let failures = || bench.issuer.admin.sum("signet_issuer_crl_failures_total", &[("step", "export")]);
    until("failures are counted", secs(10), || failures() > 1.0);
    bench.join("w0");
    revoke(&bench.issuer, "w0", "superseded");
    let list = fs::read(bench.list("w0", 1)).unwrap();
    assert!(!list.is_empty());
    fs::remove_file(&put).unwrap();
    let path = put.join(bench.key_id()).join("0.crl");
    until("it is put there", secs(20), || {
        fs::read(&path).is_ok_and(|put| Some(put) == fetch(&bench.issuer, &format!("/crl/{}/0.crl", bench.key_id())))
    });
}

#[test]
fn lists_are_put_into_a_bucket_and_a_wrong_key_is_told_of_and_replaced() {
    let folder = TempDir::new().unwrap();
    let s3 = S3::start(&folder.path().join("s3"), "pki-example");
    let address = s3.address;
    let (id, secret) = (folder.path().join("id"), folder.path().join("secret"));
    fs::write(&id, format!("{}\n", S3::KEY_ID)).unwrap();
    fs::write(&secret, "not-the-secret\n").unwrap();
    let bench = Bench::new(&format!(
        ", export: {{ url: 's3://pki-example/a/crl', endpoint: 'http://{address}', access_key_id_file: {}, secret_access_key_file: {} }}",
        id.display(),
        secret.display()
    ));
    let failures = || bench.issuer.admin.sum("signet_issuer_crl_failures_total", &[("step", "export")]);
    until("failures are counted", secs(20), || failures() > 0.0);
    assert!(!bench.issuer.process.log().contains("not-the-secret"));
    fs::write(&secret, format!("{}\n", S3::SECRET)).unwrap();
    let object = folder.path().join("s3/pki-example/a/crl").join(bench.key_id()).join("0.crl");
    let is_as_served = || {
        fs::read(&object).is_ok_and(|put| Some(put) == fetch(&bench.issuer, &format!("/crl/{}/0.crl", bench.key_id())))
    };
    until("the first list is in the bucket", secs(30), is_as_served);
    bench.join("w0");
    let before = fs::read(&object).unwrap();
    revoke(&bench.issuer, "w0", "superseded");
    until("and the next one", secs(30), || is_as_served() && fs::read(&object).unwrap() != before);
}

#[test]
fn a_revoked_authority_that_the_record_has_lost_is_told_of_and_nothing_that_it_signed_is_called_good_again() {
    let mut bench = Bench::new("");
    let first = bench.issuer.authority_keys()[0].clone();
    bench.join("below");
    bench.issuer.hold_ceremony(&bench.issuer.root, 1);
    bench.issuer.operate(&["rotate", "authority", "--apply", "--yes", "--override"]);
    bench.issuer.operate(&["revoke", "authority", &first, "--reason", "ca-compromise", "--yes", "--force"]);
    let signed = format!("SELECT count(*) FROM issued WHERE lower(hex(authority_key_id)) = '{first}'");
    let signed: usize = bench.issuer.query(&signed)[0].parse().unwrap();
    let (_, told) = bench.verify("below", &bench.list("below", signed));
    assert!(told.contains("certificate revoked"), "{told}");

    // As in a backup that is older than the revocation.
    bench.issuer.process.kill();
    let sql = "DELETE FROM revoked WHERE kind = 2; DELETE FROM revocations";
    let sqlite = Command::new(program::third_party("sqlite3")).arg(&bench.issuer.database).arg(sql).output().unwrap();
    assert!(sqlite.status.success(), "{}", String::from_utf8_lossy(&sqlite.stderr));
    bench.issuer.process.start_again();
    bench.issuer.wait_until_ready();
    let (_, told) = bench.verify("below", &bench.list("below", signed));
    assert!(told.contains("certificate revoked"), "{told}");
    let line = bench.issuer.process.wait_for_line_within("the record does not have it", secs(40));
    assert!(line.contains(&first), "{line}");
    bench.issuer.operate(&["revoke", "authority", &first, "--reason", "ca-compromise", "--yes", "--force"]);
    assert_eq!(bench.issuer.query("SELECT count(*) FROM revoked WHERE kind = 2"), ["1"]);
}
