//! The ceremony with the offline root: what it shows, asks, signs and writes down, judged by openssl.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use serde_json::Value;
use signet_tests::ceremony::Ceremony;
use signet_tests::openssl::{openssl, openssl_ok};
use signet_tests::program;
use signet_tests::terminal::Asked;

fn at_a_terminal(ceremony: &Ceremony, words: &[&str]) -> Asked {
    let mut command = Command::new(program::ours("signet"));
    let words: Vec<_> = words.iter().filter(|word| **word != "--yes").collect();
    command.args(words).args(["--passphrase-file", "passphrase"]).current_dir(ceremony.folder.path());
    Asked::by(command, ceremony.folder.path().join("told"), "sign this? [y/N] ")
}

fn log(ceremony: &Ceremony) -> Vec<Value> {
    let output = ceremony.run(&["ca", "log", "--dir", "root", "-o", "json"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// So many requests, one after the other in `authority.csr`.
fn requests(ceremony: &Ceremony, count: usize) {
    let mut all = String::new();
    for _ in 0..count {
        ceremony.request("prime256v1");
        all.push_str(&fs::read_to_string(ceremony.path("authority.csr")).unwrap());
    }
    fs::write(ceremony.path("authority.csr"), all).unwrap();
}

fn exists(ceremony: &Ceremony, name: &str) -> bool {
    Path::new(&ceremony.path(name)).exists()
}

#[test]
fn a_person_sees_all_of_it_first_and_a_no_signs_nothing() {
    let ceremony = Ceremony::new();
    ceremony.init();
    ceremony.request("prime256v1");
    let more = ["--purpose", "gateway", "--region", "eu-west-1", "--team", "Edge", "--operator", "Ada Lovelace"];
    let words = [&Ceremony::SIGN[..], &more].concat();

    let asked = at_a_terminal(&ceremony, &words);
    let key_id = {
        let told = asked.told();
        for expected in ["example.org", "gateway (TLS servers and clients)", "0: signs no CA", "OU=Edge", "L=eu-west-1"]
        {
            assert!(told.contains(expected), "no `{expected}` in {told}");
        }
        told.lines().find_map(|line| line.strip_prefix("key id")).unwrap().trim().to_owned()
    };
    let (code, told) = asked.answer("n");
    assert_eq!(code, Some(1), "{told}");
    assert!(told.contains("nothing was changed"), "{told}");
    assert!(!exists(&ceremony, "authority.pem"));
    assert_eq!(log(&ceremony).len(), 1);

    let (code, told) = at_a_terminal(&ceremony, &words).answer("y");
    assert_eq!(code, Some(0), "{told}");
    let text = ceremony.text("authority.pem");
    let subject = "O = Signet, OU = Edge, L = eu-west-1, CN = gateway intermediate";
    assert!(text.contains(subject), "{text}");
    assert!(text.replace(':', "").to_lowercase().contains(&key_id), "no key id {key_id} in {text}");
    let entry = &log(&ceremony)[1];
    assert_eq!((&entry["operator"], &entry["act"]["sign"]["key_id"]), (&"Ada Lovelace".into(), &key_id.into()));
}

#[test]
fn where_nobody_can_be_asked_nothing_is_signed_without_a_word_to_that_effect() {
    let ceremony = Ceremony::new();
    ceremony.init();
    ceremony.request("prime256v1");
    let words: Vec<_> = Ceremony::SIGN.into_iter().filter(|word| *word != "--yes").collect();
    let error = ceremony.signet(&words).refused();
    assert!(error.contains("nothing was changed") && error.contains("--yes"), "{error}");
    assert!(!exists(&ceremony, "authority.pem"));
}

#[test]
fn successors_are_signed_in_one_ceremony_in_their_order() {
    let ceremony = Ceremony::new();
    ceremony.init();
    requests(&ceremony, 3);
    let told = ceremony.signet(&[&Ceremony::SIGN[..], &["-o", "json"]].concat()).told();
    let told: Value = serde_json::from_str(&told).unwrap();
    let keys: Vec<_> = told["certificates"].as_array().unwrap().iter().map(|one| one["key_id"].clone()).collect();
    assert_eq!(keys.len(), 3);
    let on_record: Vec<_> = log(&ceremony)[1..].iter().map(|entry| entry["act"]["sign"]["key_id"].clone()).collect();
    assert_eq!(keys, on_record);

    let chains = fs::read_to_string(ceremony.path("authority.pem")).unwrap();
    let (root, one) = (ceremony.path("root/root.pem"), ceremony.path("one.pem"));
    let blocks: Vec<_> = chains.split_inclusive("-----END CERTIFICATE-----\n").collect();
    assert_eq!(blocks.len(), 3, "{chains}");
    for (block, key) in blocks.iter().zip(&keys) {
        fs::write(&one, block).unwrap();
        openssl_ok(&["verify", "-x509_strict", "-CAfile", &root, &one]);
        let text = ceremony.text("one.pem").replace(':', "").to_lowercase();
        assert!(text.contains(key.as_str().unwrap()), "{text}");
    }
}

#[test]
fn a_hundred_requests_or_half_of_one_are_refused_as_a_whole() {
    let ceremony = Ceremony::new();
    ceremony.init();
    ceremony.request("prime256v1");
    let one = fs::read_to_string(ceremony.path("authority.csr")).unwrap();
    for (wrong, why) in [(one.repeat(100), "100"), (one.repeat(2), "same key"), (one.clone() + &one[..200], "PEM")] {
        fs::write(ceremony.path("authority.csr"), wrong).unwrap();
        let error = ceremony.sign().refused();
        assert!(error.contains(why), "{error}");
    }
    assert_eq!(log(&ceremony).len(), 1);
}

#[test]
fn what_a_purpose_restricts_is_enforced_by_openssl() {
    let ceremony = Ceremony::new();
    ceremony.init();
    let root = ceremony.path("root/root.pem");
    for (purpose, is_restricted, depth) in [
        ("any", false, 0),
        ("workload", true, 0),
        ("gateway", true, 0),
        ("device", true, 0),
        ("code-signing", true, 0),
        ("subordinate", false, 1),
    ] {
        let out = ceremony.path("authority.pem");
        drop(fs::remove_file(&out));
        ceremony.request("prime256v1");
        ceremony.signet(&[&Ceremony::SIGN[..], &["--purpose", purpose]].concat()).success();
        assert!(ceremony.text("authority.pem").contains(&format!("pathlen:{depth}")), "{purpose}");
        // OpenSSL knows no purpose of signed code before 3.2; how rustls-webpki sees it, a test of the issuer tells.
        for (usage, verified_as, expected) in [
            ("emailProtection", "smimesign", !is_restricted),
            ("serverAuth", "sslserver", true),
            ("clientAuth", "sslclient", true),
        ] {
            let leaf = leaf(&ceremony, "spiffe://example.org/a", &format!("extendedKeyUsage = {usage}"));
            let words =
                ["verify", "-x509_strict", "-purpose", verified_as, "-CAfile", &root, "-untrusted", &out, &leaf];
            let (verified, told) = openssl(&words);
            assert_eq!(verified, expected, "{purpose}, {usage}: {told}");
        }
    }
    let nothing_below = [&Ceremony::SIGN[..], &["--purpose", "subordinate", "--path-length", "0"]].concat();
    drop(fs::remove_file(ceremony.path("authority.pem")));
    assert!(ceremony.signet(&nothing_below).refused().contains("no CA"));
}

#[test]
fn a_constraint_on_uris_is_enforced_by_openssl() {
    let ceremony = Ceremony::new();
    ceremony.init();
    ceremony.request("prime256v1");
    let wrong = [&Ceremony::SIGN[..], &["--permit-uri-domain", "other.org"]].concat();
    assert!(ceremony.signet(&wrong).refused().contains("example.org"));
    let malformed = ceremony.signet(&[&Ceremony::SIGN[..], &["--permit-uri-domain", "spiffe://example.org"]].concat());
    assert_eq!(malformed.0.status.code(), Some(2));

    ceremony.signet(&[&Ceremony::SIGN[..], &["--permit-uri-domain", "example.org"]].concat()).success();
    let text = ceremony.text("authority.pem");
    assert!(text.contains("Name Constraints: critical") && text.contains("URI:example.org"), "{text}");
    let (root, out) = (ceremony.path("root/root.pem"), ceremony.path("authority.pem"));
    for (id, expected) in [("spiffe://example.org/a", true), ("spiffe://other.org/a", false)] {
        let leaf = leaf(&ceremony, id, "");
        let (verified, told) = openssl(&["verify", "-x509_strict", "-CAfile", &root, "-untrusted", &out, &leaf]);
        assert_eq!(verified, expected, "{id}: {told}");
    }
}

/// A leaf with this name, signed by the intermediate.
fn leaf(ceremony: &Ceremony, id: &str, extension: &str) -> String {
    let at = |name: &str| ceremony.path(name);
    openssl_ok(&["ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", &at("leaf.key")]);
    openssl_ok(&["req", "-new", "-key", &at("leaf.key"), "-subj", "/CN=leaf", "-out", &at("leaf.csr")]);
    let extensions = format!(
        "basicConstraints = critical, CA:FALSE\nkeyUsage = critical, digitalSignature\nsubjectAltName = URI:{id}\n\
         subjectKeyIdentifier = hash\nauthorityKeyIdentifier = keyid:always\n{extension}\n"
    );
    fs::write(at("leaf.cnf"), extensions).unwrap();
    let (csr, out, ca, key) = (at("leaf.csr"), at("leaf.pem"), at("authority.pem"), at("authority.key"));
    let words = ["x509", "-req", "-in", &csr, "-out", &out, "-CA", &ca, "-CAkey", &key, "-days", "1", "-sha256"];
    openssl_ok(&[&words[..], &["-set_serial", "4711", "-extfile", &at("leaf.cnf")]].concat());
    out
}

#[test]
fn the_record_is_verified_on_any_machine_and_by_openssl() {
    let ceremony = Ceremony::new();
    ceremony.init();
    requests(&ceremony, 2);
    ceremony.sign().success();
    let elsewhere = Ceremony::new();
    for file in ["root/root.pem", "root/ceremonies.jsonl", "authority.pem"] {
        fs::copy(ceremony.path(file), elsewhere.path(Path::new(file).file_name().unwrap().to_str().unwrap())).unwrap();
    }
    let verify = ["ca", "verify-log", "--record", "ceremonies.jsonl", "--root", "root.pem"];
    let told = elsewhere.run(&[&verify[..], &["--certificate", "authority.pem", "-o", "json"]].concat());
    assert!(told.status.success(), "{}", String::from_utf8_lossy(&told.stderr));
    let told: Value = serde_json::from_slice(&told.stdout).unwrap();
    assert_eq!((&told["entries"], &told["certificates"]), (&3.into(), &serde_json::json!([2, 3])));
    let head = told["head"].as_str().unwrap();
    assert!(elsewhere.run(&[&verify[..], &["--head", head]].concat()).status.success());
    // What cannot be read is not passed over.
    let whole = fs::read_to_string(elsewhere.path("authority.pem")).unwrap();
    fs::write(elsewhere.path("damaged.pem"), format!("{whole}{}", &whole[..200])).unwrap();
    let damaged = elsewhere.run(&[&verify[..], &["--certificate", "damaged.pem"]].concat());
    assert_eq!(damaged.status.code(), Some(1), "{}", String::from_utf8_lossy(&damaged.stdout));

    // As the page says.
    let record = fs::read_to_string(elsewhere.path("ceremonies.jsonl")).unwrap();
    let public = openssl_ok(&["x509", "-in", &elsewhere.path("root.pem"), "-noout", "-pubkey"]);
    fs::write(elsewhere.path("root.pub"), public).unwrap();
    for line in record.lines() {
        let (signed, signature) = line.rsplit_once(",\"signature\":\"").unwrap();
        let message = format!("{}signet ceremony record v1\0{signed}", " ".repeat(64));
        fs::write(elsewhere.path("message"), message).unwrap();
        fs::write(elsewhere.path("signature"), hex::decode(signature.strip_suffix("\"}").unwrap()).unwrap()).unwrap();
        let (key, signature, message) =
            (elsewhere.path("root.pub"), elsewhere.path("signature"), elsewhere.path("message"));
        openssl_ok(&["dgst", "-sha256", "-verify", &key, "-signature", &signature, &message]);
    }

    // Who leaves out what was signed last is found by whoever noted the head.
    let shorter: String = record.lines().take(2).map(|line| format!("{line}\n")).collect();
    fs::write(elsewhere.path("ceremonies.jsonl"), shorter).unwrap();
    assert!(elsewhere.run(&verify).status.success());
    for more in [["--head", head], ["--certificate", "authority.pem"]] {
        assert_eq!(elsewhere.run(&[&verify[..], &more].concat()).status.code(), Some(1), "{more:?}");
    }
}

#[test]
fn openssl_refuses_an_intermediate_that_the_root_revoked_and_no_other() {
    let ceremony = Ceremony::new();
    ceremony.init();
    requests(&ceremony, 2);
    let told: Value =
        serde_json::from_str(&ceremony.signet(&[&Ceremony::SIGN[..], &["-o", "json"]].concat()).told()).unwrap();
    let serials: Vec<_> = (0..2).map(|at| told["certificates"][at]["serial"].as_str().unwrap().to_owned()).collect();
    let chains = fs::read_to_string(ceremony.path("authority.pem")).unwrap();
    for (at, block) in chains.split_inclusive("-----END CERTIFICATE-----\n").enumerate() {
        fs::write(ceremony.path(&format!("{at}.pem")), block).unwrap();
    }
    let verified = |list: &str, at: usize| {
        let (root, list, one) =
            (ceremony.path("root/root.pem"), ceremony.path(list), ceremony.path(&format!("{at}.pem")));
        openssl(&["verify", "-x509_strict", "-crl_check_all", "-CAfile", &root, "-CRLfile", &list, &one])
    };
    let crl = ["ca", "crl", "--dir", "root", "--out"];
    ceremony.signet(&[&crl[..], &["empty.crl", "--yes"]].concat()).success();
    for at in 0..2 {
        let (is_good, told) = verified("empty.crl", at);
        assert!(is_good, "{told}");
    }

    let revoke = [&crl[..], &["revoked.crl", "--revoke", &serials[0], "--reason", "ca-compromise"]].concat();
    assert!(ceremony.signet(&revoke).refused().contains("nobody to ask"));
    assert!(!exists(&ceremony, "revoked.crl"));
    let (code, told) = at_a_terminal(&ceremony, &revoke).answer("y");
    assert!(code == Some(0) && told.contains(&serials[0]) && told.contains("ca-compromise"), "{told}");
    // The next one, in which nobody names it.
    ceremony.signet(&[&crl[..], &["next.crl", "--yes"]].concat()).success();
    for list in ["revoked.crl", "next.crl"] {
        let (is_good, told) = verified(list, 0);
        assert!(!is_good && told.contains("revoked"), "{list}: {told}");
        let (is_good, told) = verified(list, 1);
        assert!(is_good, "{list}: {told}");
    }
    let acts = log(&ceremony);
    let lists: Vec<_> = acts.iter().filter_map(|entry| entry["act"].get("list")).collect();
    let counts: Vec<_> =
        lists.iter().map(|list| (list["entries"].as_u64(), list["revoked"].as_array().map(Vec::len))).collect();
    assert_eq!(counts, [(Some(0), Some(0)), (Some(1), Some(1)), (Some(1), Some(0))]);

    let again = [&crl[..], &["again.crl", "--yes", "--revoke", &serials[0], "--reason", "superseded"]].concat();
    assert!(ceremony.signet(&again).refused().contains("revoked before"));
    let foreign = [&crl[..], &["again.crl", "--yes", "--revoke", "4711", "--reason", "superseded"]].concat();
    assert!(ceremony.signet(&foreign).refused().contains("never signed"));
    assert!(!exists(&ceremony, "again.crl"));
    let unreasoned = ceremony.signet(&[&crl[..], &["again.crl", "--yes", "--revoke", &serials[1]]].concat());
    assert_eq!(unreasoned.0.status.code(), Some(2));
}

#[test]
fn a_record_that_was_changed_is_refused_by_whoever_reads_or_adds_to_it() {
    let ceremony = Ceremony::new();
    ceremony.init();
    ceremony.request("prime256v1");
    ceremony.sign().success();
    let path = ceremony.path("root/ceremonies.jsonl");
    let record = fs::read_to_string(&path).unwrap();
    let without_last: String = record.lines().take(1).map(|line| format!("{line}\n")).collect();
    for changed in [record.replace("\"path_length\":0", "\"path_length\":1"), without_last, String::new()] {
        fs::write(&path, changed).unwrap();
        for words in [&["ca", "log", "--dir", "root"][..], &["ca", "verify-log", "--dir", "root"]] {
            assert_eq!(ceremony.run(words).status.code(), Some(1), "{words:?}");
        }
        drop(fs::remove_file(ceremony.path("authority.pem")));
        ceremony.sign().refused();
        assert!(!exists(&ceremony, "authority.pem"));
    }
    fs::write(&path, &record).unwrap();
    ceremony.sign().success();
}

#[test]
fn a_ceremony_that_is_killed_at_any_point_leaves_a_record_that_holds() {
    let ceremony = Ceremony::new();
    ceremony.init();
    requests(&ceremony, 3);
    let began = Instant::now();
    ceremony.sign().success();
    let whole = began.elapsed();
    let (out, verify) = (ceremony.path("authority.pem"), ["ca", "verify-log", "--dir", "root"]);
    for round in 0..30 {
        drop(fs::remove_file(&out));
        let mut command = Command::new(program::ours("signet"));
        command.args(Ceremony::SIGN).args(["--passphrase-file", "passphrase"]).current_dir(ceremony.folder.path());
        command.stdout(Stdio::null()).stderr(Stdio::null());
        let mut signing = command.spawn().unwrap();
        // Most of the time is argon2's; what comes after it is tried more often.
        std::thread::sleep(whole * 3 / 4 + whole * round / 60);
        signing.kill().unwrap();
        signing.wait().unwrap();

        // What came out, if anything did, is on record; and the record is whole, or mended by the next ceremony.
        let has_certificates = fs::read_to_string(&out).is_ok_and(|text| text.contains("END CERTIFICATE"));
        if has_certificates {
            let told = ceremony.run(&[&verify[..], &["--certificate", "authority.pem"]].concat());
            assert!(told.status.success(), "{round}: {}", String::from_utf8_lossy(&told.stderr));
        }
        let told = ceremony.run(&verify);
        let error = String::from_utf8_lossy(&told.stderr);
        assert!(told.status.success() || error.contains("ends within a line"), "{round}: {error}");
    }
    drop(fs::remove_file(&out));
    ceremony.sign().success();
    let told = ceremony.run(&[&verify[..], &["--certificate", "authority.pem"]].concat());
    assert!(told.status.success(), "{}", String::from_utf8_lossy(&told.stderr));
    let numbers: Vec<_> = log(&ceremony).iter().map(|entry| entry["number"].as_u64().unwrap()).collect();
    assert!(numbers.iter().copied().eq(1..=numbers.len() as u64) && numbers.len() > 7, "{numbers:?}");
}
