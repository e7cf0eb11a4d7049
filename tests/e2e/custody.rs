//! Where CA keys rest. In an HSM, as SoftHSM2 is one: made inside, never out, and an issuer that outlives its token's absence.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::fs;
use std::process::Command;
use std::time::{Duration, Instant};

use signet_tests::ceremony::Ended;
use signet_tests::openssl::{openssl, openssl_ok};
use signet_tests::wait::{throughout, until};
use signet_tests::{Curl, Direct, GatewayPlan, Issuer, Load, Nginx, Process, Recipe, SoftHsm, Workload, program, secs};
use tempfile::TempDir;
use tonic::Code;

const WORKLOAD: &str = "spiffe://example.org/shop/cart";

/// Nobody who asks often is told to come later.
const GENEROUS: &str = "limits: { renewals_per_minute: 60000 }\n";
const LOG_IN_A_FILE: &str = "audit: { passphrase_file: audit-passphrase }\n";

struct Place {
    issuer: Issuer,
    hsm: SoftHsm,
    folder: TempDir,
}

impl Place {
    fn new() -> Self {
        let folder = TempDir::new().unwrap();
        let hsm = SoftHsm::new(folder.path(), "issuing");
        Self::at(folder, hsm, GENEROUS)
    }

    /// And who serves it. What p11-kit hands on is without Ed25519, so that the key of the audit log is in a file.
    fn remote() -> (Self, Process) {
        let folder = TempDir::new().unwrap();
        let hsm = SoftHsm::remote(folder.path(), "issuing");
        let server = hsm.serve();
        fs::write(folder.path().join("audit-passphrase"), "the log's\n").unwrap();
        (Self::at(folder, hsm, &format!("{GENEROUS}{LOG_IN_A_FILE}")), server)
    }

    fn at(folder: TempDir, hsm: SoftHsm, more: &str) -> Self {
        let issuer = Issuer::start_in_token(folder.path(), "example.org", secs(3600), more, &hsm);
        Self { issuer, hsm, folder }
    }

    fn workload(&self) -> Workload {
        let mut workload = Workload::of(self.issuer.address);
        workload.attest(&self.issuer.join_token(WORKLOAD)).unwrap();
        workload
    }

    /// The status of `/ready`, and what it says.
    fn readiness(&self) -> String {
        Curl::get(self.issuer.admin.url("/ready")).run().text()
    }
}

#[test]
fn an_issuers_keys_are_made_in_its_token_and_nobody_gets_them_out() {
    let place = Place::new();
    let workload = place.workload();
    let chain = place.folder.path().join("chain.pem");
    fs::write(&chain, workload.svid().chain_pem()).unwrap();
    let (root, chain) = (place.issuer.bundle.to_str().unwrap(), chain.to_str().unwrap());
    openssl_ok(&["verify", "-x509_strict", "-CAfile", root, "-untrusted", chain, chain]);

    // No file holds one, sealed or not.
    let state = place.issuer.database.parent().unwrap();
    let sealed = walk(state).into_iter().filter(|text| text.contains("KEY-----")).count();
    assert_eq!(sealed, 0, "a key in a file of the state folder");

    let words = [SoftHsm::MODULE, place.hsm.label, SoftHsm::PIN];
    let told = place.hsm.run(program::ours("signet-test-thief"), &words);
    // The authority's, and the audit log's.
    assert_eq!(told, "keys 2\n");
}

/// As whoever takes a token has it, who knows the key set and nothing else.
const PYJWT: &str = "
import json, sys, jwt
keys, token, audience = sys.argv[1:4]
key = jwt.PyJWKSet.from_dict(json.loads(keys))[jwt.get_unverified_header(token)['kid']]
print(json.dumps(jwt.decode(token, key, algorithms=[key.algorithm_name], audience=audience)))
";

#[test]
fn tokens_are_signed_in_the_hsm_by_keys_that_nobody_gets_out_and_that_outlive_a_restart() {
    for algorithm in ["ES256", "RS256"] {
        let folder = TempDir::new().unwrap();
        let hsm = SoftHsm::new(folder.path(), "issuing");
        let configuration = format!("jwt: {{ algorithm: {algorithm}, issuer: 'https://oidc.example.org' }}\n");
        let issuer = Issuer::start_in_token(folder.path(), "example.org", secs(3600), &configuration, &hsm);
        let mut place = Place { issuer, hsm, folder };
        let identity = place.folder.path().join("identity");
        let workload = place.workload();
        fs::create_dir(&identity).unwrap();
        fs::write(identity.join("svid.pem"), workload.svid().chain_pem()).unwrap();
        fs::write(identity.join("svid.key"), workload.svid().key_pem()).unwrap();
        fs::copy(&place.issuer.bundle, identity.join("bundle.pem")).unwrap();
        let token = |place: &Place| {
            let mut command = Command::new(program::ours("signet"));
            command.args(["fetch", "jwt", "--audience", "db", "--issuer", &place.issuer.address.to_string()]);
            let output = command.arg("--identity").arg(&identity).output().unwrap();
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            String::from_utf8(output.stdout).unwrap().trim().to_owned()
        };
        let keys = |place: &Place| {
            let url = format!("http://{}/keys", place.issuer.web);
            Curl::get(&url).arg("--header").arg("Host: oidc.example.org").run().text()
        };
        until("a key set", secs(20), || keys(&place).contains("\"kid\""));
        let before = keys(&place);
        let subject = |keys: &str, token: &str| {
            let output = Command::new(program::python()).args(["-c", PYJWT, keys, token, "db"]).output();
            let output = output.unwrap();
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            let claims: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
            claims["sub"].as_str().unwrap().to_owned()
        };
        let first = token(&place);
        assert_eq!(subject(&before, &first), WORKLOAD);

        place.issuer.process.kill();
        place.issuer.process.start_again();
        place.issuer.wait_until_ready();
        until("the key set", secs(20), || keys(&place) == before);
        assert_eq!(subject(&before, &token(&place)), WORKLOAD);
        assert_eq!(subject(&before, &first), WORKLOAD, "{algorithm}");

        let state = place.issuer.database.parent().unwrap();
        assert_eq!(walk(state).into_iter().filter(|text| text.contains("KEY-----")).count(), 0);
        let words = [SoftHsm::MODULE, place.hsm.label, SoftHsm::PIN];
        // The authority's, the audit log's, and the tokens'.
        assert_eq!(place.hsm.run(program::ours("signet-test-thief"), &words), "keys 3\n");
    }
}

/// All files below a folder, as text.
fn walk(folder: &std::path::Path) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
        if entry.file_type().unwrap().is_dir() {
            found.extend(walk(&entry.path()));
        } else if entry.file_type().unwrap().is_file() {
            found.push(String::from_utf8_lossy(&fs::read(entry.path()).unwrap()).into_owned());
        }
    }
    found
}

#[test]
fn a_thousand_certificates_are_signed_in_a_token_by_many_at_once() {
    let place = Place::new();
    let workloads: Vec<Workload> = (0..10).map(|_| place.workload()).collect();
    let began = Instant::now();
    std::thread::scope(|scope| {
        for mut workload in workloads {
            scope.spawn(move || {
                for _ in 0..99 {
                    workload.renew().unwrap();
                }
            });
        }
    });
    println!("990 certificates took {:?}", began.elapsed());
    // And the issuer's own.
    assert!(place.issuer.records()[0] > 1000);
    assert_eq!(place.issuer.admin.sum("signet_issuer_issued_total", &[("result", "failed")]), 0.0);
}

#[test]
fn a_token_that_is_taken_out_stops_issuing_and_it_goes_on_by_itself_once_it_is_back() {
    let mut place = Place::new();
    let mut workload = place.workload();
    let pid = place.issuer.process.pid();
    for _ in 0..2 {
        place.hsm.take_out();
        let refused = workload.renew().unwrap_err();
        assert_eq!(refused.code(), Code::Unavailable, "{refused:?}");
        assert!(refused.message().contains("key is out of reach"), "{refused:?}");
        let admin = place.issuer.admin;
        place.issuer.process.wait_until("not ready", secs(10), |_| !admin.is_ready());
        let reasons = place.readiness();
        assert!(reasons.contains("keys") && reasons.contains("issuing"), "{reasons}");
        assert_eq!(admin.sum("signet_issuer_keys_out_of_reach", &[]), 1.0);
        // What is out stays good, and is served: the stream of bundles needs no key.
        assert!(!workload.svid().chain_pem().is_empty());

        place.hsm.put_back();
        place.issuer.wait_until_ready();
        workload.renew().unwrap();
        assert_eq!(admin.sum("signet_issuer_keys_out_of_reach", &[]), 0.0);
    }
    assert_eq!(place.issuer.process.pid(), pid);
    assert!(!place.issuer.process.log().contains(SoftHsm::PIN), "the PIN in a log");
}

#[test]
fn sessions_that_were_lost_are_opened_anew() {
    let (place, mut server) = Place::remote();
    let mut workload = place.workload();
    for _ in 0..3 {
        // With all its sessions and logins.
        of_connections(&server, "KILL");
        server.kill();
        server = place.hsm.serve();
        until("a certificate", secs(20), || workload.renew().is_ok());
    }
    // Connections alone, while the server stays: nobody notices more than one refusal.
    of_connections(&server, "KILL");
    until("a certificate", secs(20), || workload.renew().is_ok());
}

#[test]
fn an_hsm_that_hangs_is_out_of_reach_and_holds_up_nothing_else() {
    let (mut place, server) = Place::remote();
    let mut workload = place.workload();
    of_connections(&server, "STOP");
    let admin = place.issuer.admin;
    place.issuer.process.wait_until("not ready", secs(30), |_| !admin.is_ready());
    assert!(place.readiness().contains("does not answer"), "{}", place.readiness());
    // Once it is known to hang, callers are told at once.
    let began = Instant::now();
    let refused = workload.renew().unwrap_err();
    assert_eq!(refused.code(), Code::Unavailable, "{refused:?}");
    assert!(began.elapsed() < secs(4), "{:?}", began.elapsed());
    // What needs no key is served: status, policy, join tokens.
    for _ in 0..12 {
        place.issuer.operate(&["status"]);
        place.issuer.join_token(WORKLOAD);
    }
    of_connections(&server, "CONT");
    place.issuer.wait_until_ready();
    workload.renew().unwrap();
}

/// A signal to those who serve one connection each.
fn of_connections(server: &Process, signal: &str) {
    let children = fs::read_to_string(format!("/proc/{0}/task/{0}/children", server.pid())).unwrap();
    assert!(!children.trim().is_empty(), "nobody is connected");
    for child in children.split_whitespace() {
        let sent = Command::new("kill").args(["-s", signal, child]).status().unwrap();
        assert!(sent.success());
    }
}

#[test]
fn with_an_hsm_that_knows_no_ed25519_the_audit_logs_key_is_in_a_file_or_the_issuer_says_so_and_ends() {
    let folder = TempDir::new().unwrap();
    let at = |name: &str| folder.path().join(name);
    let hsm = SoftHsm::remote(folder.path(), "issuing");
    let _server = hsm.serve();
    fs::write(at("root-passphrase"), "the root's\n").unwrap();
    fs::write(at("audit-passphrase"), "the log's\n").unwrap();
    let paths = [("--dir", &*at("root")), ("--passphrase-file", &*at("root-passphrase"))];
    signet_tests::issuer::signet(&["ca", "init", "--trust-domain", "example.org"], &paths);
    let start = |more: &str| {
        let authority = hsm.configuration();
        let text = format!(
            "trust_domain: example.org\nstate: state\ntrust_bundle: root/root.pem\nlisten: 127.0.0.1:0\nadmin: 127.0.0.1:0\n\
             authority: {{ certificate: authority.pem, {authority} }}\n{more}"
        );
        fs::write(at("issuer.yaml"), text).unwrap();
        let (name, value) = hsm.environment();
        let recipe = Recipe::new("issuer", program::ours("identity-issuer"), folder.path());
        recipe.args(["--config", "issuer.yaml"]).env(name, &value).start()
    };
    let mut refused = start("");
    assert!(!refused.wait(secs(30)).success());
    let log = refused.log();
    assert!(log.contains("no keys of Ed25519") && log.contains("`audit.passphrase_file`"), "{log}");

    let mut issuer = start(LOG_IN_A_FILE);
    issuer.wait_until("a request", secs(30), |_| at("state/authority.csr").exists());
    assert_eq!(fs::read_dir(at("state/audit/keys")).unwrap().count(), 1);
}

#[test]
fn a_restarted_issuer_finds_its_keys_in_the_token_again() {
    let mut place = Place::new();
    let mut workload = place.workload();
    let before = issuing_key(&workload);
    place.issuer.process.kill();
    place.issuer.process.start_again();
    place.issuer.wait_until_ready();
    workload.renew().unwrap();
    assert_eq!(issuing_key(&workload), before);
}

/// The certificate of the authority that signed it.
fn issuing_key(workload: &Workload) -> String {
    workload.svid().chain_pem().split("-----BEGIN CERTIFICATE-----").nth(2).unwrap().to_owned()
}

#[test]
fn an_authority_and_its_successor_are_in_the_token_and_both_sign_lists() {
    let folder = TempDir::new().unwrap();
    let hsm = SoftHsm::new(folder.path(), "issuing");
    let with_lists = format!("{GENEROUS}crl: {{ url: 'http://crl.example.org/crl' }}\n");
    let place = Place {
        issuer: Issuer::start_in_token(folder.path(), "example.org", secs(3600), &with_lists, &hsm),
        hsm,
        folder,
    };
    let (issuer, root) = (&place.issuer, place.issuer.bundle.to_str().unwrap());
    let at = |name: &str| place.folder.path().join(name).to_str().unwrap().to_owned();
    let one_and_the_other = |authority: &str| {
        ["revoked", "good"].map(|what| {
            let mut workload = Workload::of(issuer.address);
            workload.attest(&issuer.join_token(&format!("spiffe://example.org/{authority}/{what}"))).unwrap();
            fs::write(at(&format!("{authority}-{what}.pem")), workload.svid().chain_pem()).unwrap();
            workload
        })
    };
    let of_first = one_and_the_other("first");
    issuer.hold_ceremony(&issuer.root, 1);
    issuer.operate(&["rotate", "authority", "--apply", "--yes"]);
    assert_eq!(issuer.stages(), ["retired", "active"]);
    let of_second = one_and_the_other("second");
    assert_ne!(issuing_key(&of_first[1]), issuing_key(&of_second[1]));

    for (authority, key) in ["first", "second"].into_iter().zip(issuer.authority_keys()) {
        issuer.operate(&[
            "revoke",
            "id",
            &format!("spiffe://example.org/{authority}/revoked"),
            "--reason",
            "superseded",
            "--yes",
        ]);
        let (der, list_pem) = (at(&format!("{authority}.der")), at(&format!("{authority}.list")));
        until("the list has an entry", secs(10), || {
            let url = format!("http://{}/crl/{key}/0.crl", issuer.web);
            let list = Command::new(program::third_party("curl")).args(["--disable", "-sf", "-o", &der, &url]).status();
            list.unwrap().success()
                && openssl_ok(&["crl", "-inform", "DER", "-in", &der, "-out", &list_pem, "-text"]).is_empty()
                && fs::read_to_string(&list_pem).unwrap().contains("Serial Number:")
        });
        let verify = |what: &str| {
            let chain = at(&format!("{authority}-{what}.pem"));
            let words =
                ["verify", "-x509_strict", "-crl_check", "-CAfile", root, "-untrusted", &chain, "-CRLfile", &list_pem];
            openssl(&[&words[..], &[&chain]].concat())
        };
        let (good, told) = verify("good");
        assert!(good, "{authority}: {told}");
        let (good, told) = verify("revoked");
        assert!(!good && told.contains("certificate revoked"), "{authority}: {told}");
    }
    let words = [SoftHsm::MODULE, place.hsm.label, SoftHsm::PIN];
    // Theirs, and the audit log's.
    assert_eq!(place.hsm.run(program::ours("signet-test-thief"), &words), "keys 3\n");
}

#[test]
fn a_token_that_is_away_holds_up_lists_and_neither_bundles_nor_what_is_on_record() {
    let mut place = Place::new();
    let bad = place.workload();
    let admin = place.issuer.admin;
    let failures = || admin.sum("signet_issuer_crl_failures_total", &[("step", "sign")]);
    let next_update = || admin.sum("signet_issuer_crl_next_update_timestamp_seconds", &[]);
    let key = place.issuer.authority_keys()[0].clone();
    let web = place.issuer.web;
    let list = || Curl::get(format!("http://{web}/crl/{key}/0.crl")).run();
    until("a first list", secs(10), || list().status == 200);
    let (first, until_then) = (list().expect_status(200).sha256(), next_update());
    assert!(until_then > 0.0 && failures() == 0.0);

    place.hsm.take_out();
    place.issuer.process.wait_until("not ready", secs(10), |_| !admin.is_ready());
    place.issuer.operate(&["revoke", "id", &bad.svid().spiffe_id, "--reason", "key-compromise", "--yes", "--no-wait"]);
    until("that no list can be signed is counted", secs(20), || failures() > 0.0);
    // What was signed before is served, with its end in the metric that the alert watches.
    assert_eq!((list().expect_status(200).sha256(), next_update()), (first.clone(), until_then));
    let listed = place.issuer.operate_json(&["get", "revocations"]);
    assert_eq!(listed["revocations"].as_array().unwrap().len(), 1, "{listed}");
    // Another root beside the first reaches whoever fetches the bundle.
    let bundle = || Curl::get(format!("http://{web}/bundle.json")).run().text().matches("\"x5c\"").count();
    assert_eq!(bundle(), 1);
    let next = place.issuer.make_root("next");
    let both = [&place.issuer.bundle, &next.join("root.pem")].map(|path| fs::read_to_string(path).unwrap()).concat();
    fs::write(&place.issuer.bundle, both).unwrap();
    until("both roots", secs(20), || bundle() == 2);
    place.issuer.join_token(WORKLOAD);

    place.hsm.put_back();
    place.issuer.wait_until_ready();
    until("the list has it", secs(20), || list().expect_status(200).sha256() != first);
    assert!(next_update() >= until_then);
    let failed = failures();
    throughout("lists are signed again", secs(3), || failures() == failed);
}

#[test]
fn a_wrong_pin_is_tried_once_and_not_until_the_token_locks_itself() {
    let mut place = Place::new();
    let mut workload = place.workload();
    fs::write(place.hsm.pin_file(), "0000-wrong\n").unwrap();
    let admin = place.issuer.admin;
    // The sessions are lost, so that the PIN is asked for.
    place.hsm.take_out();
    place.issuer.process.wait_until("not ready", secs(10), |_| !admin.is_ready());
    place.hsm.put_back();
    let asked = || Curl::get(admin.url("/ready")).run().text();
    place.issuer.process.wait_until("the PIN's refusal", secs(15), |_| asked().contains("not the PIN"));
    for _ in 0..20 {
        workload.renew().unwrap_err();
    }
    assert!(!asked().contains("0000-wrong"));
    assert_eq!(place.issuer.process.lines_with(&["the token refused the PIN"]).len(), 1);
    fs::write(place.hsm.pin_file(), format!("{}\n", SoftHsm::PIN)).unwrap();
    place.issuer.wait_until_ready();
    workload.renew().unwrap();
}

#[test]
fn a_roots_key_may_be_in_a_token_too() {
    let folder = TempDir::new().unwrap();
    let hsm = SoftHsm::new(folder.path(), "root");
    let at = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let (root, pin) = (at("root"), hsm.pin_file());
    let pin = pin.to_str().unwrap();
    let signet = |words: &[&str]| {
        let mut command = Command::new(program::ours("signet"));
        Ended(command.args(words).env("SOFTHSM2_CONF", hsm.settings()).output().unwrap())
    };
    let token = ["--pkcs11-module", SoftHsm::MODULE, "--pkcs11-token", "root", "--pin-file", pin];
    signet(&[&["ca", "init", "--dir", &root, "--trust-domain", "example.org"][..], &token].concat()).success();
    assert!(!fs::exists(at("root/root.key")).unwrap());

    openssl_ok(&["ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", &at("a.key")]);
    openssl_ok(&["req", "-new", "-key", &at("a.key"), "-subj", "/CN=a", "-out", &at("a.csr")]);
    let (csr, out) = (at("a.csr"), at("a.pem"));
    let sign = ["ca", "sign", "--yes", "--dir", &root, "--csr", &csr, "--out", &out];
    fs::write(at("passphrase"), "a passphrase\n").unwrap();
    let refused = signet(&[&sign[..], &["--passphrase-file", &at("passphrase")]].concat()).refused();
    assert!(refused.contains("--pin-file"), "{refused}");
    fs::write(at("wrong-pin"), "0000-wrong\n").unwrap();
    let refused = signet(&[&sign[..], &["--pin-file", &at("wrong-pin")]].concat()).refused();
    assert!(refused.contains("PIN") && !refused.contains("0000-wrong"), "{refused}");

    signet(&[&sign[..], &["--pin-file", pin]].concat()).success();
    openssl_ok(&["verify", "-x509_strict", "-CAfile", &at("root/root.pem"), &out]);
    signet(&["ca", "verify-log", "--dir", &root, "--certificate", &out]).success();
    let words = [SoftHsm::MODULE, "root", SoftHsm::PIN];
    assert_eq!(hsm.run(program::ours("signet-test-thief"), &words), "keys 1\n");
}

#[test]
fn a_mesh_under_load_goes_over_to_a_root_in_a_token_and_from_then_on_all_keys_are_in_tokens() {
    const LOAD: Duration = secs(20);
    const RATE: u32 = 20;
    let folder = TempDir::new().unwrap();
    let hsm = SoftHsm::new(folder.path(), "issuing");
    let offline = folder.path().join("offline");
    fs::create_dir(&offline).unwrap();
    let of_root = SoftHsm::new(&offline, "root");
    let issuer = Issuer::start_in_token(folder.path(), "example.org", secs(60), GENEROUS, &hsm);
    let at = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let (root, pin) = (offline.join("root"), of_root.pin_file());
    let pin = pin.to_str().unwrap();
    let ca = |words: &[&str]| {
        let mut command = Command::new(program::ours("signet"));
        command.arg("ca").args(words).arg("--dir").arg(&root).env("SOFTHSM2_CONF", of_root.settings());
        Ended(command.args(["--pin-file", pin]).output().unwrap()).success();
    };
    let token = ["--pkcs11-module", SoftHsm::MODULE, "--pkcs11-token", "root"];
    ca(&[&["init", "--trust-domain", "example.org"][..], &token].concat());
    let next = root.join("root.pem");

    let nginx = Nginx::start();
    let gateway = |name: &str| {
        let token = folder.path().join(format!("{name}.token"));
        fs::write(&token, issuer.join_token(&format!("spiffe://example.org/gateway/{name}"))).unwrap();
        GatewayPlan::new(name).identity_from_issuer(issuer.address, "example.org", &issuer.bundle, &token)
    };
    let callers = ["spiffe://example.org/gateway/outbound", "spiffe://example.org/client/**"];
    let inbound = gateway("inbound").inbound(&callers, &nginx.url()).start();
    let peer = inbound.listener("inbound");
    let outbound = gateway("outbound").outbound(peer, &["spiffe://example.org/gateway/inbound"]).start();
    let mut client = Workload::of(issuer.address);
    client.attest(&issuer.join_token("spiffe://example.org/client/load")).unwrap();
    let mut direct = Direct::start(client, &[&*issuer.bundle, &*next], peer, RATE, LOAD);
    let plain = Load::http1(outbound.listener("outbound")).plain().rate(RATE, LOAD).start();

    issuer.operate(&["rotate", "root", "--root", next.to_str().unwrap(), "--apply", "--yes", "--no-wait"]);
    let (request, signed) = (at("next.csr"), at("next.pem"));
    issuer.operate(&["ca", "csr", "--out", &request]);
    ca(&["sign", "--yes", "--csr", &request, "--out", &signed]);
    issuer.operate(&["ca", "import", &signed]);
    until("the root before is trusted no more", LOAD, || !issuer.is_rotating());
    assert!(direct.is_running(), "the load was over before");
    direct.expect_no_failure();
    let report = plain.finish();
    report.expect_no_failure(u64::from(RATE) * LOAD.as_secs() * 9 / 10);
    assert_eq!(report.retried(), 0, "{report}");

    let mut workload = Workload::of(issuer.address);
    workload.attest(&issuer.join_token(WORKLOAD)).unwrap();
    fs::write(at("chain.pem"), workload.svid().chain_pem()).unwrap();
    let (next, chain) = (next.to_str().unwrap(), at("chain.pem"));
    openssl_ok(&["verify", "-x509_strict", "-CAfile", next, "-untrusted", &chain, &chain]);
    // Nobody has any of them out, nor that of the audit log.
    for (hsm, keys) in [(&hsm, 3), (&of_root, 1)] {
        let words = [SoftHsm::MODULE, hsm.label, SoftHsm::PIN];
        assert_eq!(hsm.run(program::ours("signet-test-thief"), &words), format!("keys {keys}\n"));
    }
}

#[test]
fn an_issuers_passphrase_may_come_from_a_descriptor_and_be_in_no_file() {
    let folder = TempDir::new().unwrap();
    let at = |name: &str| folder.path().join(name);
    fs::write(at("root-passphrase"), "the root's\n").unwrap();
    let paths = [("--dir", &*at("root")), ("--passphrase-file", &*at("root-passphrase"))];
    signet_tests::issuer::signet(&["ca", "init", "--trust-domain", "example.org"], &paths);
    let configuration = |keys: &str| {
        format!(
            "trust_domain: example.org\nstate: state\ntrust_bundle: root/root.pem\nlisten: 127.0.0.1:0\nadmin: 127.0.0.1:0\n\
             authority: {{ certificate: authority.pem, {keys} }}\n"
        )
    };
    fs::write(at("issuer.yaml"), configuration("passphrase_fd: 3")).unwrap();
    let start = |passphrase: &str| {
        let script = "exec \"$0\" --config issuer.yaml 3<<.\n$PASSPHRASE\n.\n";
        let recipe = Recipe::new("issuer", "/bin/sh", folder.path()).args(["-c", script]);
        recipe.arg(program::ours("identity-issuer")).env("PASSPHRASE", passphrase).start()
    };
    let mut issuer = start("opens the issuer's key");
    issuer.wait_until("a request", secs(30), |_| at("state/authority.csr").exists());
    issuer.kill();
    let sealed = fs::read_dir(at("state/authorities")).unwrap().count();
    assert_eq!(sealed, 1);

    let mut again = start("opens nothing");
    assert!(!again.wait(secs(30)).success());
    let log = again.log();
    assert!(log.contains("the passphrase does not open") && !log.contains("opens nothing"), "{log}");
}
