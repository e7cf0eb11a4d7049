//! What others say of our certificates and lists: OpenSSL, GnuTLS and pkilint, of the root, an intermediate, a certificate of each profile, and a
//! list of what is revoked.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;
use signet_tests::openssl::openssl_ok;
use signet_tests::wait::until;
use signet_tests::{Issuer, Workload, program, secs};
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

struct Bench {
    folder: TempDir,
    issuer: Issuer,
}

impl Bench {
    /// An issuer, and in `PROFILE.pem` a certificate of each profile with those above it.
    fn new() -> Self {
        let folder = TempDir::new().unwrap();
        let issuer = Issuer::start_above_others(
            folder.path(),
            "example.org",
            secs(3600),
            "crl: { url: 'http://crl.example.org/crl' }\n",
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

    /// The list that is served, as soon as it has an entry.
    fn list(&self) -> PathBuf {
        let key_id = self.issuer.operate_json(&["status"])["authority"]["key_id"].as_str().unwrap().to_owned();
        let (der, pem) = (self.path("list.der"), self.path("list.pem"));
        until("the list", secs(10), || {
            let mut tcp = TcpStream::connect(self.issuer.web).unwrap();
            write!(tcp, "GET /crl/{key_id}/0.crl HTTP/1.1\r\nhost: issuer\r\nconnection: close\r\n\r\n").unwrap();
            let mut answer = Vec::new();
            tcp.read_to_end(&mut answer).unwrap();
            let end = answer.windows(4).position(|window| window == b"\r\n\r\n").expect("a head");
            fs::write(&der, &answer[end + 4..]).unwrap();
            let (from, to) = (der.to_str().unwrap(), pem.to_str().unwrap());
            openssl_ok(&["crl", "-inform", "DER", "-in", from, "-out", to, "-text"]);
            fs::read_to_string(&pem).unwrap().contains("Serial Number:")
        });
        der
    }
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
    let bench = Bench::new();
    bench.issuer.operate(&["revoke", "id", "spiffe://example.org/tls-client", "--reason", "key-compromise", "--yes"]);
    let list = bench.list();
    assert!(findings("lint_crl", &["-t", "CRL", "-p", "PKIX"], &[&list]).is_empty());
    let intermediate = bench.path("intermediate");
    let certtool = |words: &[&str], files: &[(&str, &Path)]| {
        let mut command = Command::new(program::third_party("certtool"));
        command.args(words);
        for (option, path) in files {
            command.arg(option).arg(path);
        }
        let output = command.output().unwrap();
        (output.status.success(), String::from_utf8_lossy(&output.stdout).into_owned())
    };
    let (good, told) =
        certtool(&["--verify-crl"], &[("--load-ca-certificate", &intermediate), ("--infile", &bench.path("list.pem"))]);
    assert!(good && told.contains("Verified."), "{told}");
    for (profile, is_good) in [("tls-client", false), ("tls-server", true)] {
        let chain = bench.path(&format!("{profile}.pem"));
        let (good, told) = certtool(
            &["--verify"],
            &[
                ("--load-ca-certificate", &bench.issuer.bundle),
                ("--load-crl", &bench.path("list.pem")),
                ("--infile", &chain),
            ],
        );
        assert_eq!(good, is_good, "{profile}: {told}");
        assert!(is_good || told.contains("revoked"), "{profile}: {told}");
    }
}
