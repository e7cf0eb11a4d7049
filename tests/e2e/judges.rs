//! What others say of our certificates and lists: OpenSSL, GnuTLS and pkilint, of the root, an intermediate, a certificate of each profile, and a
//! list of what is revoked.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;
use signet_tests::ceremony::Ceremony;
use signet_tests::issuer::signet;
use signet_tests::openssl::{openssl, openssl_ok};
use signet_tests::wait::until;
use signet_tests::{Curl, Issuer, Workload, program, secs};
use tempfile::TempDir;

/// Profiles, and what OpenSSL calls their purpose.
const PROFILES: [(&str, &str); 7] = [
    ("workload", "sslserver"),
    ("gateway", "sslserver"),
    ("device", "sslclient"),
    ("tls-server", "sslserver"),
    ("tls-client", "sslclient"),
    ("code-signing", "any"),
    // No leaf: the authority of an issuer below.
    ("subordinate-ca", "any"),
];
/// pkilint knows no URI whose scheme is `spiffe`: it says so of each certificate of ours, and of nothing else.
const OF_SPIFFE: &str = "pkix.invalid_uri_syntax";

/// Critical on a part of a list (RFC 5280 §5.2.5). GnuTLS does not know it.
const ISSUING_DISTRIBUTION_POINT: &str = "2.5.29.28 (critical)";

struct Bench {
    folder: TempDir,
    issuer: Issuer,
}

impl Bench {
    /// An issuer, and in `PROFILE.pem` a certificate of each profile with those above it.
    fn new() -> Self {
        Self::with("")
    }

    /// With more in the section of lists.
    fn with(more: &str) -> Self {
        let folder = TempDir::new().unwrap();
        let issuer = Issuer::start_above_others(
            folder.path(),
            "example.org",
            secs(3600),
            &format!("crl: {{ url: 'http://crl.example.org/crl'{more} }}\n"),
        );
        let rule = |(profile, _): &(&str, &str)| {
            let dns_names = match *profile {
                "subordinate-ca" => String::new(),
                _ => format!("    dns_names: [{profile}.example.org]\n"),
            };
            format!(
                "  - name: {profile}\n    match: {{ svid.spiffe_id: 'spiffe://example.org/ci' }}\n    \
                 spiffe_id: spiffe://example.org/{profile}\n{dns_names}    profile: {profile}\n"
            )
        };
        issuer.apply(&format!("rules:\n{}", PROFILES.iter().map(rule).collect::<String>()));
        let bench = Self { folder, issuer };
        let mut ci = Workload::of(bench.issuer.address);
        ci.attest(&bench.issuer.join_token("spiffe://example.org/ci")).unwrap();
        let identity = bench.path("identity");
        fs::create_dir(&identity).unwrap();
        fs::write(identity.join("svid.pem"), ci.svid().chain_pem()).unwrap();
        fs::write(identity.join("svid.key"), ci.svid().key_pem()).unwrap();
        fs::copy(&bench.issuer.bundle, identity.join("bundle.pem")).unwrap();
        PROFILES.iter().for_each(|(profile, _)| bench.issue(profile));
        bench
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn issue(&self, profile: &str) {
        let at = |end: &str| self.path(&format!("{profile}.{end}")).to_str().unwrap().to_owned();
        let key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-keyout", &at("key"), "-out", &at("csr")];
        openssl_ok(&[&["req", "-new", "-nodes", "-subj", "/CN=whatever"][..], &key].concat());
        let mut command = Command::new(program::ours("signet"));
        command.args(["issue", "--profile", profile, "--csr", &at("csr"), "--out", &at("pem")]);
        command.args(["--issuer", &self.issuer.address.to_string(), "--identity"]).arg(self.path("identity"));
        let issued = command.output().unwrap();
        assert!(issued.status.success(), "{profile}: {}", String::from_utf8_lossy(&issued.stderr));
        let chain = fs::read_to_string(at("pem")).unwrap();
        let end = chain.find("-----END CERTIFICATE-----").unwrap() + "-----END CERTIFICATE-----\n".len();
        fs::write(at("leaf"), &chain[..end]).unwrap();
        fs::write(self.path("intermediate"), &chain[end..]).unwrap();
    }

    /// The path of the list that a leaf names.
    fn list_of(&self, profile: &str) -> String {
        let leaf = self.path(&format!("{profile}.leaf"));
        let shown = openssl_ok(&["x509", "-in", leaf.to_str().unwrap(), "-noout", "-text"]);
        let path = shown.lines().find_map(|line| line.trim().strip_prefix("URI:http://crl.example.org"));
        path.expect(&shown).to_owned()
    }

    /// The list that a leaf names, as soon as so many entries are on it: DER, and in `list.pem` too.
    fn list(&self, profile: &str, entries: usize) -> PathBuf {
        self.list_at(&self.list_of(profile), entries)
    }

    fn list_at(&self, path: &str, entries: usize) -> PathBuf {
        let (der, pem) = (self.path("list.der"), self.path("list.pem"));
        until("the list", secs(10), || {
            let answer = Curl::get(format!("http://{}{path}", self.issuer.web)).run();
            if answer.status != 200 {
                return false;
            }
            fs::write(&der, answer.bytes()).unwrap();
            let (from, to) = (der.to_str().unwrap(), pem.to_str().unwrap());
            openssl_ok(&["crl", "-inform", "DER", "-in", from, "-out", to, "-text"]);
            fs::read_to_string(&pem).unwrap().matches("Serial Number:").count() == entries
        });
        der
    }

    fn revoke(&self, profile: &str) {
        let id = format!("spiffe://example.org/{profile}");
        self.issuer.operate(&["revoke", "id", &id, "--reason", "key-compromise", "--yes"]);
    }

    /// That of the root, in `root.crl`.
    fn list_of_root(&self) -> PathBuf {
        let (root, passphrase, out) = (&self.issuer.root, self.path("passphrase"), self.path("root.crl"));
        signet(&["ca", "crl", "--yes"], &[("--dir", root), ("--passphrase-file", &passphrase), ("--out", &out)]);
        out
    }

    /// What OpenSSL says of a leaf by the list in `list.pem` and that of the root.
    fn verified_by_all_lists(&self, profile: &str) -> (bool, String) {
        let (root, above, lists) = (&self.issuer.bundle, self.path("intermediate"), self.path("lists.pem"));
        let [own, of_root] = ["list.pem", "root.crl"].map(|name| fs::read_to_string(self.path(name)).unwrap());
        fs::write(&lists, own + &of_root).unwrap();
        let leaf = self.path(&format!("{profile}.leaf"));
        let [root, above, lists, leaf] = [root, &above, &lists, &leaf].map(|path| path.to_str().unwrap());
        let words = ["verify", "-x509_strict", "-crl_check_all", "-extended_crl", "-CAfile", root, "-untrusted", above];
        openssl(&[&words[..], &["-CRLfile", lists, leaf]].concat())
    }
}

/// What GnuTLS says, with these files.
fn certtool(words: &[&str], files: &[(&str, &Path)]) -> (bool, String) {
    let mut command = Command::new(program::third_party("certtool"));
    command.args(words);
    for (option, path) in files {
        command.arg(option).arg(path);
    }
    let output = command.output().unwrap();
    (output.status.success(), String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Neither pkilint, of the bytes, nor OpenSSL and GnuTLS, of the signature too, find fault with a list.
#[track_caller]
fn is_faultless(list: &Path, pem: &Path, signer: &Path) {
    let found = findings("lint_crl", &["-t", "CRL", "-p", "PKIX"], &[list]);
    assert!(found.is_empty(), "{}: {found:?}", list.display());
    let (good, told) = certtool(&["--verify-crl"], &[("--load-ca-certificate", signer), ("--infile", pem)]);
    assert!(good && told.contains("Verified."), "{told}");
    let (good, told) = certtool(&["--crl-info"], &[("--infile", pem)]);
    assert!(good && told.contains("CRL Number"), "{told}");
    let mut unknown = told.lines().filter(|line| line.contains("nknown extension"));
    assert!(unknown.all(|line| line.contains(ISSUING_DISTRIBUTION_POINT)), "{told}");
    let [pem, signer] = [pem, signer].map(|path| path.to_str().unwrap());
    let (good, told) = openssl(&["crl", "-verify", "-in", pem, "-CAfile", signer, "-noout"]);
    assert!(good && told.contains("verify OK"), "{told}");
}

/// What pkilint finds wrong.
fn findings(linter: &str, words: &[&str], files: &[&Path]) -> Vec<String> {
    let program = program::python().with_file_name(linter);
    let output =
        Command::new(program).arg("lint").args(words).args(["-f", "JSON", "-s", "WARNING"]).args(files).output();
    let output = output.unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let found: Value = serde_json::from_str(&text)
        .unwrap_or_else(|error| panic!("{linter}: {error}: {text}{}", String::from_utf8_lossy(&output.stderr)));
    let of_one = |result: &Value| -> Vec<String> {
        let descriptions = result["finding_descriptions"].as_array().unwrap();
        descriptions.iter().map(|finding| finding["code"].as_str().unwrap().to_owned()).collect()
    };
    found["results"].as_array().unwrap().iter().flat_map(of_one).collect()
}

#[test]
fn nobody_finds_fault_with_what_is_signed() {
    let bench = Bench::new();
    let (root, intermediate) = (bench.issuer.bundle.clone(), bench.path("intermediate"));
    for certificate in [&root, &intermediate] {
        assert_eq!(findings("lint_pkix_cert", &[], &[certificate]), [OF_SPIFFE], "{}", certificate.display());
    }
    let chain = "lint_pkix_signer_signee_cert_chain";
    assert!(findings(chain, &[], &[&root, &intermediate]).is_empty());
    for (profile, purpose) in PROFILES {
        let (leaf, chain_pem) = (bench.path(&format!("{profile}.leaf")), bench.path(&format!("{profile}.pem")));
        let has_uri = openssl_ok(&["x509", "-in", leaf.to_str().unwrap(), "-noout", "-text"]).contains("URI:spiffe");
        let expected: &[&str] = if has_uri { &[OF_SPIFFE] } else { &[] };
        assert_eq!(findings("lint_pkix_cert", &[], &[&leaf]), expected, "{profile}");
        assert!(findings(chain, &[], &[&intermediate, &leaf]).is_empty(), "{profile}");
        let [root, above, leaf] = [&root, &intermediate, &leaf].map(|path| path.to_str().unwrap());
        let words = ["verify", "-x509_strict", "-purpose", purpose, "-CAfile", root, "-untrusted", above, leaf];
        openssl_ok(&words);
        let certtool = Command::new(program::third_party("certtool"))
            .args(["--verify", "--verify-profile", "medium", "--load-ca-certificate", root, "--infile"])
            .arg(&chain_pem)
            .output()
            .unwrap();
        let told = String::from_utf8_lossy(&certtool.stdout);
        assert!(
            certtool.status.success() && told.contains("Verified. The certificate is trusted."),
            "{profile}: {told}"
        );
    }
}

#[test]
fn nobody_finds_fault_with_a_list_and_all_of_them_refuse_what_is_in_it() {
    // Whole, and in parts: of which part it is, a critical extension says then, and GnuTLS knows none of that.
    for (more, is_part) in [("", false), (", shards: 7", true)] {
        let bench = Bench::with(more);
        let (pem, intermediate, of_root) = (bench.path("list.pem"), bench.path("intermediate"), bench.list_of_root());
        is_faultless(&of_root, &of_root, &bench.issuer.bundle);

        // Nothing is revoked: a certificate of each profile is good by all lists.
        for (profile, _) in PROFILES {
            bench.list(profile, 0);
            let (good, told) = bench.verified_by_all_lists(profile);
            assert!(good, "{profile}: {told}");
        }
        bench.revoke("tls-client");
        let list = bench.list("tls-client", 1);
        is_faultless(&list, &pem, &intermediate);
        let (good, told) = bench.verified_by_all_lists("tls-client");
        assert!(!good && told.contains("certificate revoked"), "{told}");
        if !is_part {
            for (profile, is_good) in [("tls-client", false), ("tls-server", true)] {
                let chain = bench.path(&format!("{profile}.pem"));
                let files =
                    [("--load-ca-certificate", &*bench.issuer.bundle), ("--load-crl", &pem), ("--infile", &chain)];
                let (good, told) = certtool(&["--verify"], &files);
                assert_eq!(good, is_good, "{profile}: {told}");
                assert!(is_good || told.contains("revoked"), "{profile}: {told}");
            }
        }
        let shown = openssl_ok(&["crl", "-in", pem.to_str().unwrap(), "-noout", "-text"]);
        assert_eq!(shown.contains("X509v3 Issuing Distribution Point: critical"), is_part, "{shown}");
        // Every other one stays good, by the same list or by that of its part.
        for (profile, _) in PROFILES.into_iter().filter(|(profile, _)| *profile != "tls-client") {
            bench.list(profile, usize::from(bench.list_of("tls-client") == bench.list_of(profile)));
            let (good, told) = bench.verified_by_all_lists(profile);
            assert!(good, "{profile}: {told}");
        }
        if is_part {
            // One that calls nothing of it revoked is not taken for the part that a certificate names.
            let own = bench.list_of("tls-client");
            let (above, shard) = own.strip_suffix(".crl").unwrap().rsplit_once('/').unwrap();
            let next = (shard.parse::<u32>().unwrap() + 1) % 7;
            is_faultless(&bench.list_at(&format!("{above}/{next}.crl"), 0), &pem, &intermediate);
            let (good, told) = bench.verified_by_all_lists("tls-client");
            assert!(!good && told.contains("ifferent CRL scope"), "{told}");
        }
    }
}

#[test]
fn nobody_finds_fault_with_the_last_list_of_an_authority_that_is_revoked() {
    let bench = Bench::new();
    let first = bench.issuer.authority_keys()[0].clone();
    bench.issuer.hold_ceremony(&bench.issuer.root, 1);
    bench.issuer.operate(&["rotate", "authority", "--apply", "--yes"]);
    bench.issuer.operate(&["taint", &first]);
    bench.issuer.operate(&["revoke", "authority", &first, "--force", "--reason", "ca-compromise", "--yes"]);
    // All that it signed: those of the profiles, the issuer's own, the one that asked for them, and what was renewed meanwhile.
    let signed = "SELECT count(*) FROM issued WHERE authority_key_id = (SELECT authority_key_id FROM issued LIMIT 1)";
    let signed = bench.issuer.query(signed)[0].parse().unwrap();
    assert!(signed > PROFILES.len(), "{signed}");
    let list = bench.list("tls-client", signed);
    is_faultless(&list, &bench.path("list.pem"), &bench.path("intermediate"));
    bench.list_of_root();
    for (profile, _) in PROFILES {
        let (good, told) = bench.verified_by_all_lists(profile);
        assert!(!good && told.contains("certificate revoked"), "{profile}: {told}");
    }
}

#[test]
fn nobody_finds_fault_with_what_a_ceremony_signs() {
    let purposes = ["any", "workload", "gateway", "device", "code-signing", "subordinate"];
    let plain = purposes.map(|purpose| vec!["--purpose", purpose]);
    let named = vec!["--purpose", "workload", "--region", "eu-west-1", "--team", "shop"];
    let constrained = vec!["--permit-uri-domain", "example.org"];
    let ceremony = Ceremony::new();
    ceremony.init();
    let (root, out) = (ceremony.path("root/root.pem"), ceremony.path("authority.pem"));
    let [root, out] = [Path::new(&root), Path::new(&out)];
    for words in plain.into_iter().chain([named, constrained]) {
        drop(fs::remove_file(out));
        ceremony.request("prime256v1");
        ceremony.signet(&[&Ceremony::SIGN[..], &words].concat()).success();
        assert_eq!(findings("lint_pkix_cert", &[], &[out]), [OF_SPIFFE], "{words:?}");
        assert!(findings("lint_pkix_signer_signee_cert_chain", &[], &[root, out]).is_empty(), "{words:?}");
        openssl_ok(&["verify", "-x509_strict", "-CAfile", root.to_str().unwrap(), out.to_str().unwrap()]);
        let (good, told) = certtool(&["--verify"], &[("--load-ca-certificate", root), ("--infile", out)]);
        assert!(good && told.contains("Verified. The certificate is trusted."), "{words:?}: {told}");
    }
    let serial = openssl_ok(&["x509", "-in", out.to_str().unwrap(), "-noout", "-serial"]);
    let serial = serial.trim().strip_prefix("serial=").unwrap().to_lowercase();
    let revoke = ["--revoke", &serial, "--reason", "ca-compromise"];
    ceremony.signet(&[&["ca", "crl", "--yes", "--dir", "root", "--out", "root.crl"][..], &revoke].concat()).success();
    let list = ceremony.path("root.crl");
    is_faultless(Path::new(&list), Path::new(&list), root);
}
