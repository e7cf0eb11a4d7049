//! `signet revoke`: what the page says, what an issuer remembers that is killed at it, and how long a hundred thousand take.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read as _, Write as _};
use std::path::Path;
use std::process::{Command, Output};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;
use signet_tests::wait::until;
use signet_tests::{Issuer, Workload, millis, pages, program, secs};
use tempfile::TempDir;
use tonic::Code;

const RULE: &str = "rules:
  - name: cart-pods
    match: { svid.spiffe_id: 'spiffe://example.org/shop/cart' }
    spiffe_id: spiffe://example.org/db/orders
    profile: tls-client
";

fn attested(issuer: &Issuer, id: &str) -> Workload {
    let mut workload = Workload::of(issuer.address);
    workload.attest(&issuer.join_token(id)).unwrap();
    workload
}

/// The serial number as the issuer has it: 16 bytes.
fn serial(workload: &Workload) -> String {
    format!("{:0>32}", workload.svid().serial())
}

/// `signet WORDS` in a folder, about this issuer.
fn signet(issuer: &Issuer, folder: &Path, words: &[&str]) -> Output {
    let mut command = Command::new(program::ours("signet"));
    command.args(words).env("SIGNET_ISSUER", &issuer.socket).current_dir(folder).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[track_caller]
fn told(output: &Output) -> Value {
    assert!(output.status.success(), "{}{}", text(&output.stdout), text(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {}", text(&output.stdout)))
}

/// The CRL of its authority, as it is served.
fn crl(issuer: &Issuer) -> Vec<u8> {
    let key_id = issuer.operate_json(&["status"])["authority"]["key_id"].as_str().unwrap().to_owned();
    let mut tcp = std::net::TcpStream::connect(issuer.web).unwrap();
    write!(tcp, "GET /crl/{key_id}/0.crl HTTP/1.1\r\nhost: issuer\r\nconnection: close\r\n\r\n").unwrap();
    let mut answer = Vec::new();
    tcp.read_to_end(&mut answer).unwrap();
    let end = answer.windows(4).position(|window| window == b"\r\n\r\n").expect("a head");
    answer.split_off(end + 4)
}

#[test]
fn the_commands_of_the_page_do_what_it_says() {
    const CART: &str = "spiffe://example.org/shop/cart";
    let folder = TempDir::new().unwrap();
    let at = |name: &str| folder.path().join(name);
    let issuer = Issuer::start(folder.path(), "example.org", secs(3600));
    issuer.apply(RULE);
    // One that has retired, and on which nothing hangs.
    let first = issuer.authority_keys()[0].clone();
    issuer.hold_ceremony(&issuer.root, 1);
    issuer.operate(&["rotate", "authority", "--apply", "--yes", "--override"]);
    let mut till = attested(&issuer, "spiffe://example.org/shop/till");
    let two = attested(&issuer, "spiffe://example.org/two");
    let mut carts: Vec<_> = (0..6).map(|_| attested(&issuer, CART)).collect();
    // What the rule gives to a cart that stays.
    let identity = at("identity");
    fs::create_dir(&identity).unwrap();
    fs::write(identity.join("svid.pem"), till.svid().chain_pem()).unwrap();
    let give = |cart: &Workload| {
        fs::write(identity.join("svid.pem"), cart.svid().chain_pem()).unwrap();
        fs::write(identity.join("svid.key"), cart.svid().key_pem()).unwrap();
        fs::copy(&issuer.bundle, identity.join("bundle.pem")).unwrap();
        let words = ["req", "-new", "-nodes", "-subj", "/", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"];
        let openssl = Command::new(program::third_party("openssl"));
        let made =
            { openssl }.args(words).args(["-keyout", "db.key", "-out", "db.csr"]).current_dir(folder.path()).output();
        assert!(made.unwrap().status.success());
        let mut command = Command::new(program::ours("signet"));
        command.args(["issue", "--profile", "tls-client", "--csr", "db.csr", "--issuer", &issuer.address.to_string()]);
        let issued = command.arg("--identity").arg(&identity).current_dir(folder.path()).output().unwrap();
        assert!(issued.status.success(), "{}", text(&issued.stderr));
    };
    let mut leaked = attested(&issuer, "spiffe://example.org/shop/leaked");
    leaked.renew().unwrap();
    fs::write(at("leaked.pem"), leaked.svid().chain_pem()).unwrap();
    let mut ran = 0;
    for words in pages::commands("revocation.md") {
        let words: Vec<String> = words
            .into_iter()
            .map(|word| if word.len() == 32 && word.starts_with("4198") { serial(&carts[1]) } else { word })
            .collect();
        let mut words: Vec<&str> = words.iter().map(String::as_str).collect();
        ran += 1;
        if words[0] == "get" {
            assert!(signet(&issuer, folder.path(), &words).status.success(), "{words:?}");
            continue;
        }
        words.extend(["--yes", "-o", "json"]);
        let wanted = match (words[1], words[2]) {
            ("authority", _) => {
                let refused = signet(&issuer, folder.path(), &words);
                assert_eq!(refused.status.code(), Some(1));
                assert!(text(&refused.stderr).contains("there is no authority 3f1c"), "{}", text(&refused.stderr));
                words[2] = &first;
                0
            }
            ("serial", "--file") => {
                fs::write(at("serials.txt"), format!("{}\n{}\n", serial(&carts[2]), serial(&carts[3]))).unwrap();
                2
            }
            ("serial", _) => 1,
            ("key", _) => {
                let pem = Command::new(program::third_party("openssl"))
                    .args(["x509", "-in", "leaked.pem", "-noout", "-pubkey"])
                    .current_dir(folder.path())
                    .output()
                    .unwrap();
                fs::write(at("leaked.pub"), pem.stdout).unwrap();
                1
            }
            ("agent", _) => 1,
            ("rule", _) => {
                give(&attested(&issuer, CART));
                1
            }
            ("id", _) => 6,
            other => panic!("{other:?}"),
        };
        if words[1] == "id" {
            // Those of the file and the serial are of carts that came later.
            let done = told(&signet(&issuer, folder.path(), &words));
            assert_eq!((done["certificates"].as_u64(), done["evicted"].as_u64()), (Some(wanted), Some(6)), "{done}");
            for cart in &mut carts {
                assert_eq!(cart.renew().unwrap_err().code(), Code::PermissionDenied);
            }
            let spare = carts.remove(0);
            carts = (0..4).map(|_| attested(&issuer, CART)).collect();
            carts.push(spare);
            continue;
        }
        let done = told(&signet(&issuer, folder.path(), &words));
        assert_eq!(done["certificates"].as_u64(), Some(wanted), "{words:?}: {done}");
        assert!(done["revoked"] == true && done["in_force"]["following"] == 0, "{done}");
    }
    assert!(ran >= 10, "{ran}");
    till.renew().unwrap();
    // By its key.
    assert_eq!(leaked.renew().unwrap_err().code(), Code::PermissionDenied);
    drop(two);
    // Nobody is asked, and nothing is done, where there is nobody and `--yes` is not given.
    let words = ["revoke", "serial", &serial(&till), "--reason", "superseded"];
    let refused = signet(&issuer, folder.path(), &words);
    assert_eq!(refused.status.code(), Some(1));
    assert!(text(&refused.stderr).contains("there is nobody to ask"), "{}", text(&refused.stderr));
    assert_eq!(signet(&issuer, folder.path(), &words[..3]).status.code(), Some(2), "without a reason");
    till.renew().unwrap();
    let list = issuer.operate_json(&["get", "revocations", "--reason", "superseded"]);
    assert_eq!(list["revocations"].as_array().unwrap().len(), 3, "{list}");
    // Who, what, why and how many.
    let log = issuer.process.log();
    let event = log.lines().find(|line| line.contains("\"action\":\"Revoke\"")).unwrap();
    for part in ["\"reason\":\"key-compromise\"", "\"certificates\":6", "\"actor\":\"uid:"] {
        assert!(event.contains(part), "{event}");
    }
}

#[test]
fn what_was_revoked_stays_so_whenever_the_issuer_is_killed() {
    const KILLS: u64 = 20;
    const EACH: usize = 6;
    let folder = TempDir::new().unwrap();
    let mut issuer = Issuer::start(folder.path(), "example.org", secs(3600));
    // Serial number, and the epoch that was told.
    let mut acknowledged: BTreeMap<String, u64> = BTreeMap::new();
    let mut last_epoch = 0;
    for round in 0..KILLS {
        let mut workloads: Vec<_> =
            (0..EACH).map(|number| attested(&issuer, &format!("spiffe://example.org/r{round}/{number}"))).collect();
        let serials: Vec<_> = workloads.iter().map(serial).collect();
        let done = Mutex::new(Vec::new());
        let over = AtomicBool::new(false);
        thread::scope(|scope| {
            for serials in serials.chunks(EACH / 2) {
                let (done, over, issuer, folder) = (&done, &over, &issuer, folder.path());
                scope.spawn(move || {
                    for serial in serials.iter().filter(|_| !over.load(Ordering::Relaxed)) {
                        let words = [
                            "revoke",
                            "serial",
                            serial,
                            "--reason",
                            "key-compromise",
                            "--yes",
                            "--no-wait",
                            "-o",
                            "json",
                        ];
                        let output = signet(issuer, folder, &words);
                        if output.status.success() {
                            let epoch = told(&output)["epoch"].as_u64().unwrap();
                            done.lock().unwrap().push((serial.clone(), epoch));
                        }
                    }
                });
            }
            // At another moment each time.
            thread::sleep(millis(20 + (round * 37) % 260));
            issuer.process.signal(signet_tests::Signal::Kill);
            over.store(true, Ordering::Relaxed);
        });
        issuer.process.kill();
        issuer.process.start_again();
        issuer.wait_until_ready();
        acknowledged.extend(done.into_inner().unwrap());

        let rows = issuer.query("SELECT epoch || ' ' || lower(hex(value)) FROM revoked ORDER BY epoch");
        let listed: BTreeMap<String, u64> = rows
            .iter()
            .map(|row| row.split_once(' ').unwrap())
            .map(|(epoch, serial)| (serial.to_owned(), epoch.parse().unwrap()))
            .collect();
        for (serial, epoch) in &acknowledged {
            assert_eq!(listed.get(serial), Some(epoch), "acknowledged in round {round} or before");
        }
        let epoch = issuer.query("SELECT epoch FROM revocation_epoch")[0].parse().unwrap();
        assert_eq!(listed.len() as u64, epoch, "a gap, or half of one");
        assert!(epoch >= last_epoch && acknowledged.values().all(|acknowledged| *acknowledged <= epoch));
        last_epoch = epoch;
        for workload in &mut workloads {
            let is_revoked = listed.contains_key(&serial(workload));
            let renewed = workload.renew().map(drop).map_err(|status| status.code());
            assert_eq!(renewed, if is_revoked { Err(Code::PermissionDenied) } else { Ok(()) });
        }
    }
    println!("{} acknowledged of {last_epoch} over {KILLS} kills", acknowledged.len());
    assert!(!acknowledged.is_empty(), "killed too early each time");
    assert_eq!(issuer.query("PRAGMA integrity_check"), ["ok"]);
}

#[test]
fn a_hundred_thousand_serial_numbers_of_a_file_are_revoked_by_one_command() {
    const MANY: usize = 100_000;
    let folder = TempDir::new().unwrap();
    let issuer = Issuer::start(folder.path(), "example.org", secs(3600));
    attested(&issuer, "spiffe://example.org/one");
    // As if they had been issued: what is on record is what counts.
    issuer.pretend_to_have_issued(MANY, "'spiffe://example.org/many'", "0");
    let serials = issuer.query("SELECT hex(serial) FROM issued WHERE rule = 'many'");
    assert_eq!(serials.len(), MANY);
    fs::write(folder.path().join("serials.txt"), serials.join("\n")).unwrap();
    let began = Instant::now();
    let words = ["revoke", "serial", "--file", "serials.txt", "--reason", "superseded", "--yes", "-o", "json"];
    let done = told(&signet(&issuer, folder.path(), &words));
    let took = began.elapsed();
    assert_eq!(done["certificates"].as_u64(), Some(MANY as u64), "{done}");
    println!("{MANY} serial numbers revoked in {took:?}");
    // Of a debug build, beside other tests; 10 s are demanded of a release.
    assert!(took < Duration::from_secs(40), "{took:?}");
    // 35 bytes each, and what stands around them.
    let began = Instant::now();
    until("the CRL has them", secs(30), || crl(&issuer).len() > 35 * MANY);
    println!("and in the CRL {:?} later", began.elapsed());
}
