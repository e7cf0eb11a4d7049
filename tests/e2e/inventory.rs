//! `signet get svids` and `signet describe`: what was issued is found again, by whom it was given to, by its end, by what became of it.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;
use signet_tests::wait::until;
use signet_tests::{Issuer, Workload, pages, program, secs};
use tempfile::TempDir;

fn attested(issuer: &Issuer, id: &str) -> Workload {
    let mut workload = Workload::of(issuer.address);
    workload.attest(&issuer.join_token(id)).unwrap();
    workload
}

/// The serial number as the issuer has it: 16 bytes.
fn serial(workload: &Workload) -> String {
    format!("{:0>32}", workload.svid().serial())
}

fn signet(issuer: &Issuer, words: &[&str]) -> Output {
    Command::new(program::ours("signet")).args(words).env("SIGNET_ISSUER", &issuer.socket).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// One field of each certificate that `signet get svids WORDS` lists.
#[track_caller]
fn listed(issuer: &Issuer, words: &[&str], field: &str) -> Vec<String> {
    let list = issuer.operate_json(&[&["get", "svids"], words].concat());
    let svids = list["svids"].as_array().unwrap();
    svids.iter().map(|svid| svid[field].as_str().unwrap_or_default().to_owned()).collect()
}

#[test]
fn what_was_issued_is_found_and_told_with_all_that_became_of_it() {
    const SHOP: &str = "spiffe://example.org/shop/**";
    let folder = TempDir::new().unwrap();
    let issuer = Issuer::start(folder.path(), "example.org", secs(3600));
    let mut carts: Vec<_> = (0..3).map(|_| attested(&issuer, "spiffe://example.org/shop/cart")).collect();
    let till = attested(&issuer, "spiffe://example.org/shop/till");
    let db = attested(&issuer, "spiffe://example.org/db");
    let first = serial(&carts[0]);
    carts[0].renew().unwrap();
    let (second, revoked) = (serial(&carts[0]), serial(&carts[1]));
    issuer.operate(&["revoke", "serial", &revoked, "--reason", "key-compromise", "-m", "leaked", "--yes"]);
    // As no issuer takes it; but who knows what wrote to this database.
    let hostile = "leaked\u{1b}[2J in ticket 4711";
    issuer.write_record("UPDATE revocations SET comment = 'leaked' || char(27) || '[2J in ticket 4711'");
    issuer.write_record("UPDATE issued SET profile = char(27) || '[2J' WHERE spiffe_id LIKE '%/till'");

    // By whom it was given to.
    let of_shop = [&first, &second, &revoked, &serial(&carts[2]), &serial(&till)];
    let mut found = listed(&issuer, &["--spiffe-id", SHOP], "serial");
    found.sort_unstable();
    let mut expected = of_shop.map(String::clone);
    expected.sort_unstable();
    assert_eq!(found, expected);
    assert_eq!(listed(&issuer, &["--spiffe-id", "*/till"], "serial"), [serial(&till)]);
    assert_eq!(listed(&issuer, &["--spiffe-id", "spiffe://example.org/db"], "serial"), [serial(&db)]);
    let number = issuer.operate_json(&["describe", &first])["agent"].to_string();
    assert_eq!(listed(&issuer, &["--agent", &number], "serial"), [first.clone(), second.clone()]);
    assert_eq!(listed(&issuer, &["--agent", &number, "--descending"], "serial"), [second.clone(), first.clone()]);
    // By who signed it, by its end, by what became of it.
    let key_id = issuer.authority_keys()[0].clone();
    let shop_of = |words: &[&str]| listed(&issuer, &[&["--spiffe-id", SHOP], words].concat(), "serial").len();
    assert_eq!((shop_of(&["--authority", &key_id]), shop_of(&["--authority", "3f1c"])), (5, 0));
    assert_eq!((shop_of(&["--expiring", "24h"]), shop_of(&["--expiring", "1m"]), shop_of(&["--expired"])), (5, 0, 0));
    assert_eq!((shop_of(&["--profile", "workload"]), shop_of(&["--rule", "none"])), (4, 0));
    assert_eq!(listed(&issuer, &["--revoked"], "serial"), [revoked.as_str()]);
    let sorted = listed(&issuer, &["--sort", "spiffe-id", "--all"], "spiffe_id");
    assert!(sorted.is_sorted() && sorted.len() >= 6, "{sorted:?}");
    let one = issuer.operate_json(&["get", "svids", "--limit", "1"]);
    assert!(one["more"] == true && one["svids"].as_array().unwrap().len() == 1, "{one}");

    // One of them, its whole life.
    let life = issuer.operate_json(&["describe", &first]);
    assert_eq!((&life["state"], &life["renewed"]["by"]), (&Value::from("valid"), &Value::from(second.clone())));
    assert_eq!((&life["attested"]["method"], &life["attestation"]), (&"join_token".into(), &"join_token".into()));
    assert_eq!(life["authority"], key_id);
    let sha256 = |words: &[&str]| {
        let path = folder.path().join("cart.pem");
        std::fs::write(&path, carts[0].svid().chain_pem()).unwrap();
        let openssl = Command::new(program::third_party("openssl")).args(words).arg("-in").arg(&path).output().unwrap();
        text(&openssl.stdout).trim().rsplit('=').next().unwrap().replace(':', "").to_lowercase()
    };
    let next = issuer.operate_json(&["describe", &second.to_uppercase()]);
    assert_eq!(next["certificate_sha256"], sha256(&["x509", "-noout", "-fingerprint", "-sha256"]));
    assert_eq!((&next["shown_serial"], &next["attestation"]), (&Value::from(first.clone()), &"x509_svid".into()));
    assert!(next["renewed"].is_null() && next["revoked"].is_null(), "{next}");
    assert!(next["log"]["index"].as_u64() > life["log"]["index"].as_u64(), "{next} after {life}");
    assert!(!next["log"]["origin"].as_str().unwrap().is_empty(), "{next}");
    let life = issuer.operate_json(&["describe", &revoked]);
    assert_eq!((&life["state"], &life["revoked"]["reason"]), (&"revoked".into(), &"key-compromise".into()));
    assert_eq!(life["revoked"]["comment"], hostile);
    let shown = issuer.operate(&["describe", &revoked]);
    assert!(shown.contains("\\u{1b}[2J in ticket 4711") && !shown.contains('\u{1b}'), "{shown}");
    let shown = issuer.operate(&["get", "svids", "--spiffe-id", SHOP]);
    assert_eq!(shown.lines().count(), 6, "{shown}");
    assert!(shown.contains("\\u{1b}[2J") && !shown.contains('\u{1b}'), "{shown}");

    // All that the page says can be said.
    let commands = pages::commands("inventory.md");
    assert!(commands.len() >= 7, "{commands:?}");
    for words in commands {
        let words: Vec<_> =
            words.iter().map(|word| if word.starts_with("4198") { first.as_str() } else { word }).collect();
        issuer.operate(&words);
    }

    // What is not there, and what cannot be meant.
    for (words, code, told) in [
        (&["describe", "4711"][..], 1, "4711: no certificate on record has this serial number"),
        (&["describe", "cart"], 1, "cart: no serial number"),
        (&["get", "svids", "--authority", "x\u{1b}"], 1, "signet get authorities"),
        (&["get", "svids", "--spiffe-id", "*"], 2, "it matches everything"),
        (&["get", "svids", "--expired", "--all"], 2, "cannot be used with"),
        (&["get", "svids", "--expiring", "soon"], 2, "needs a number and a unit"),
    ] {
        let refused = signet(&issuer, words);
        assert_eq!(refused.status.code(), Some(code), "{words:?}");
        assert!(text(&refused.stderr).contains(told), "{words:?}: {}", text(&refused.stderr));
    }
    let counted = |state| issuer.admin.sum("signet_issuer_identities", &[("state", state)]);
    until("the revoked one is counted", secs(60), || counted("revoked") == 1.0);
    let within = |time| issuer.admin.sum("signet_issuer_identities_ending", &[("within", time)]);
    assert!(counted("valid") >= 5.0 && within("6h") >= 6.0, "{}", issuer.admin.metrics().text());
}

#[test]
fn many_pages_come_as_one_list_and_what_has_expired_is_one_of_its_own() {
    const MANY: usize = 2_500;
    let folder = TempDir::new().unwrap();
    let issuer = Issuer::start(folder.path(), "example.org", secs(3600));
    attested(&issuer, "spiffe://example.org/one");
    // As if they had been issued; each fifth has expired.
    let (id, ago) = ("'spiffe://example.org/many/' || (x % 100)", "5000 * (x % 5 = 0)");
    issuer.pretend_to_have_issued(MANY, id, ago);
    for sort in [&["--sort", "issued"][..], &["--sort", "expiry"], &["--sort", "spiffe-id", "--descending"], &[]] {
        let of = |words: &[&str]| {
            let words = [words, sort, &["--rule", "many", "--limit", "10000"]].concat();
            let mut serials = listed(&issuer, &words, "serial");
            serials.sort_unstable();
            serials.dedup();
            serials.len()
        };
        assert_eq!((of(&["--all"]), of(&["--expired"]), of(&[])), (MANY, MANY / 5, MANY / 5 * 4), "{sort:?}");
        assert_eq!(of(&["--all", "--spiffe-id", "spiffe://example.org/many/1*"]), MANY / 100 * 11, "{sort:?}");
    }
}

#[test]
fn whoever_sees_a_part_is_told_of_nothing_beside_it() {
    let folder = TempDir::new().unwrap();
    let roles = "administration: [{ role: viewer, scope: /shop, spiffe_ids: [\"spiffe://example.org/people/*\"] }]\n";
    let issuer = Issuer::start_with(folder.path(), "example.org", secs(3600), roles);
    let (cart, db) =
        (attested(&issuer, "spiffe://example.org/shop/cart"), attested(&issuer, "spiffe://example.org/db"));
    let address = issuer.address.to_string();
    let by = |who: &str| {
        let workload = attested(&issuer, who);
        let identity = folder.path().join(who.rsplit('/').next().unwrap());
        write_identity(&identity, &workload, &issuer.bundle);
        let (address, issuer) = (&address, &issuer);
        move |words: &[&str]| {
            let place = ["-o", "json", "--issuer", address, "--identity", identity.to_str().unwrap()];
            signet(issuer, &[words, &place].concat())
        }
    };
    let ann = by("spiffe://example.org/people/ann");
    let list = ann(&["get", "svids", "--all"]);
    let list: Value = serde_json::from_slice(&list.stdout).unwrap_or_else(|_| panic!("{}", text(&list.stderr)));
    let serials: Vec<_> = list["svids"].as_array().unwrap().iter().map(|svid| svid["serial"].clone()).collect();
    assert_eq!(serials, [Value::from(serial(&cart))]);
    assert!(ann(&["describe", &serial(&cart)]).status.success());
    let refused = ann(&["describe", &serial(&db)]);
    let unknown = ann(&["describe", &serial(&db).replace('a', "b").replace('0', "1")]);
    for refused in [&refused, &unknown] {
        assert_eq!(refused.status.code(), Some(1));
        assert!(text(&refused.stderr).contains("no certificate on record"), "{}", text(&refused.stderr));
    }
    let eve = by("spiffe://example.org/eve");
    for words in [&["get", "svids"][..], &["describe", &serial(&cart)]] {
        let refused = eve(words);
        assert_eq!(refused.status.code(), Some(1));
        assert!(text(&refused.stderr).contains("the issuer refused"), "{}", text(&refused.stderr));
    }
}

fn write_identity(folder: &Path, workload: &Workload, bundle: &Path) {
    std::fs::create_dir(folder).unwrap();
    std::fs::write(folder.join("svid.pem"), workload.svid().chain_pem()).unwrap();
    std::fs::write(folder.join("svid.key"), workload.svid().key_pem()).unwrap();
    std::fs::copy(bundle, folder.join("bundle.pem")).unwrap();
}
