//! An issuer that has its authorities from another one, by the commands of the page: from nothing, and each that follows.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::fs;
use std::process::{Command, Output};
use std::time::Duration;

use serde_json::{Value, json};
use signet_test_pki::pem;
use signet_tests::address::Host;
use signet_tests::files::replace;
use signet_tests::foreign_ca::{EC, make_ca, make_leaf};
use signet_tests::openssl::openssl_ok;
use signet_tests::tokens::{PROVIDER, TokenMaker};
use signet_tests::wait::{throughout, until};
use signet_tests::workload::Svid;
use signet_tests::{Admin, Issuer, Process, Recipe, Workload, pages, program, secs};
use tempfile::TempDir;

/// The name by which the page's issuer asks.
const REGION: &str = "spiffe://example.org/issuers/eu-west-1";

/// A parent, an issuer below it for which nobody has signed yet, and what goes between them.
struct Two {
    folder: TempDir,
    parent: Issuer,
    child: Issuer,
    follow: Option<(Process, Admin)>,
    host: Host,
}

impl Two {
    /// The child's leaves live so long.
    fn new(ttl: Duration) -> Self {
        Self::within(TempDir::new().unwrap(), ttl, "")
    }

    /// With more in the configuration of the parent, which finds the files of `folder` at `..`.
    fn within(folder: TempDir, ttl: Duration, configuration: &str) -> Self {
        let [above, below] = ["parent", "child"].map(|name| folder.path().join(name));
        for folder in [&above, &below] {
            fs::create_dir(folder).unwrap();
        }
        let parent = Issuer::start_above_others(&above, "example.org", secs(60), configuration);
        let child = parent.start_below(&below, "example.org", ttl, "");
        Self { folder, parent, child, follow: None, host: Host::new() }
    }

    /// `signet WORDS` at the parent.
    fn at_parent(&self, words: &[&str]) -> Output {
        let folder = self.parent.configuration.parent().unwrap();
        let mut command = Command::new(program::ours("signet"));
        command.args(words).env("SIGNET_ISSUER", &self.parent.socket).current_dir(folder).output().unwrap()
    }

    #[track_caller]
    fn done_at_parent(&self, words: &[&str]) {
        let output = self.at_parent(words);
        assert!(output.status.success(), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
    }

    /// A token, and what the page says beside the child.
    fn follow(&mut self, words: &[&str]) {
        let folder = self.child.configuration.parent().unwrap();
        fs::write(folder.join("follow.token"), self.parent.join_token(REGION)).unwrap();
        fs::copy(&self.parent.bundle, folder.join("root.pem")).unwrap();
        let (parent, admin) = (self.parent.address.to_string(), self.host.free());
        let words = words.iter().map(|word| if *word == "parent.example.org:8081" { &parent } else { *word });
        let recipe = Recipe::new("follow", program::ours("signet"), folder).args(words);
        let recipe = recipe.arg("--admin").arg(admin.to_string());
        let process = recipe.env("SIGNET_ISSUER", self.child.socket.to_str().unwrap()).start();
        self.follow = Some((process, Admin(admin)));
    }

    fn rule(&self, ttl: &str) {
        self.rule_and(ttl, "");
    }

    fn rule_and(&self, ttl: &str, more: &str) {
        let rules = pages::fragment("parent.md", "rules").text.replace("ttl: 7d", &format!("ttl: {ttl}"));
        self.parent.apply(&(rules + more));
    }

    /// How the child proved who it is, the last time.
    fn last_proof(&self) -> String {
        let agents = self.parent.operate_json(&["get", "agents"]);
        let agents = agents["agents"].as_array().unwrap();
        let last = agents.iter().max_by_key(|agent| agent["id"].as_u64()).unwrap();
        assert_eq!(last["spiffe_id"], REGION);
        last["method"].as_str().unwrap().to_owned()
    }

    fn stages(&self) -> Vec<String> {
        let listed = self.child.operate_json(&["get", "authorities"]);
        let stage = |authority: &Value| authority["stage"].as_str().unwrap().to_owned();
        listed["authorities"].as_array().unwrap().iter().map(stage).collect()
    }

    /// Of a workload of the child's, which openssl believes by the root alone.
    fn joined(&self) -> Svid {
        let mut workload = Workload::of(self.child.address);
        let svid = workload.attest(&self.child.join_token("spiffe://example.org/shop/cart")).unwrap().clone();
        assert_eq!(svid.chain.len(), 3, "its own, the child's and the parent's");
        let at = |name: &str| self.folder.path().join(name).to_str().unwrap().to_owned();
        let encoded: Vec<_> = svid.chain.iter().map(|der| pem("CERTIFICATE", der)).collect();
        fs::write(at("leaf.pem"), &encoded[0]).unwrap();
        fs::write(at("above.pem"), encoded[1..].concat()).unwrap();
        let root = self.parent.bundle.to_str().unwrap();
        let words = ["verify", "-x509_strict", "-purpose", "sslclient", "-CAfile", root, "-untrusted"];
        openssl_ok(&[&words[..], &[&at("above.pem"), &at("leaf.pem")]].concat());
        svid
    }
}

#[test]
fn an_issuer_begins_with_nothing_and_each_of_its_authorities_comes_from_its_parent() {
    let mut two = Two::new(secs(6));
    let mut ran = Vec::new();
    for words in pages::commands("parent.md") {
        let mut words: Vec<&str> = words.iter().map(String::as_str).collect();
        ran.push(words[..2].join(" "));
        match words[1] {
            "follow" => two.follow(&words),
            _ => {
                if words[1] == "sign" || words.contains(&"--apply") {
                    words.push("--yes");
                }
                two.done_at_parent(&words);
            }
        }
    }
    assert_eq!(ran, ["ca csr", "ca sign", "ca import", "rotate authority", "ca follow"]);
    let (mut follow, admin) = two.follow.take().unwrap();

    // The rule of the page is not there yet.
    follow.wait_for_line_within("the parent refused: ", secs(30));
    follow.wait_until("its health tells", secs(10), |_| !admin.is_ready());
    assert_eq!(two.stages(), ["requested"]);
    two.rule("40s");
    two.child.wait_until_ready();
    follow.wait_until("all is well", secs(20), |_| admin.is_ready());
    let first = two.joined();

    // Neither side has to be there all the time.
    two.parent.process.kill();
    two.child.process.kill();
    two.parent.process.start_again();
    two.parent.wait_until_ready();
    two.child.process.start_again();
    two.child.wait_until_ready();
    follow.wait_until("the next one signs", secs(60), |_| two.stages() == ["retired", "active"]);
    let second = two.joined();
    assert_ne!(first.chain[1], second.chain[1]);
    assert_eq!(first.chain[2], second.chain[2]);
    assert!(admin.sum("signet_ca_follow_certificates_total", &[("result", "signed")]) >= 2.0);
    assert!(admin.sum("signet_ca_follow_certificates_total", &[("result", "refused")]) >= 1.0);
    assert!(follow.lines_with(&["panicked"]).is_empty());
    follow.signal(signet_tests::Signal::Terminate);
    assert!(follow.wait(secs(10)).success());
}

#[test]
fn where_the_parent_goes_over_to_another_authority_the_issuer_below_does_too() {
    let mut two = Two::new(secs(60));
    two.rule("1h");
    let words = ["ca", "follow", "--parent", "parent.example.org:8081", "--trust-bundle", "root.pem"];
    two.follow(&[&words[..], &["--join-token-file", "follow.token"]].concat());
    two.child.wait_until_ready();
    let first = two.joined();

    let sign = ["ca", "sign", "--dir", "root", "--passphrase-file", "passphrase", "--purpose", "subordinate", "--yes"];
    two.done_at_parent(&["ca", "csr", "--out", "next.csr"]);
    two.done_at_parent(&[&sign[..], &["--csr", "next.csr", "--out", "next.pem"]].concat());
    two.done_at_parent(&["ca", "import", "next.pem"]);
    assert_eq!(two.stages(), ["active"], "it signs nothing yet");
    two.done_at_parent(&["rotate", "authority", "--apply", "--yes"]);
    until("the child has gone over", secs(60), || two.stages() == ["retired", "active"]);
    let second = two.joined();
    assert_ne!(first.chain[2], second.chain[2]);
    let old = two.parent.operate_json(&["get", "authorities"])["authorities"][0]["key"].as_str().unwrap().to_owned();
    two.done_at_parent(&["taint", &old]);
    // What hangs on that one is the child's authority that has retired: to be revoked by force.
    let revoke = ["revoke", "authority", &old, "--reason", "ca-compromise", "--yes"];
    assert!(!two.at_parent(&revoke).status.success());
    two.done_at_parent(&[&revoke[..], &["--force"]].concat());
    two.joined();
}

#[test]
fn what_there_is_to_do_is_done_once_and_a_request_whose_answer_was_lost_is_given_up() {
    let mut two = Two::new(secs(60));
    two.rule("1h");
    let folder = two.child.configuration.parent().unwrap().to_owned();
    let identity = folder.join("identity");
    fs::create_dir(&identity).unwrap();
    let mut asking = Workload::of(two.parent.address);
    let svid = asking.attest(&two.parent.join_token(REGION)).unwrap();
    fs::write(identity.join("svid.pem"), svid.chain_pem()).unwrap();
    fs::write(identity.join("svid.key"), svid.key_pem()).unwrap();
    fs::copy(&two.parent.bundle, identity.join("bundle.pem")).unwrap();
    let (parent, socket) = (two.parent.address.to_string(), two.child.socket.clone());
    let follow = |more: &[&str]| {
        let mut command = Command::new(program::ours("signet"));
        command.args(["ca", "follow", "--parent", &parent, "--once"]).args(more).current_dir(&folder);
        command.env("SIGNET_ISSUER", &socket).output().unwrap()
    };
    let by_files = ["--identity", "identity", "-o", "json"];

    // As if the answer to this had been lost.
    let csr = folder.join("issuer/authority.csr");
    let words = ["issue", "--profile", "subordinate-ca", "--csr", csr.to_str().unwrap(), "--issuer", &parent];
    two.done_at_parent(&[&words[..], &["--identity", identity.to_str().unwrap()]].concat());
    let spoiled = follow(&by_files);
    let error = String::from_utf8_lossy(&spoiled.stderr).into_owned();
    assert_eq!(spoiled.status.code(), Some(1), "{error}");
    assert!(error.contains("its key was certified before"), "{error}");
    assert_eq!(two.stages(), ["revoked", "requested"]);

    let did: Value = serde_json::from_slice(&follow(&by_files).stdout).unwrap();
    assert_eq!((did["steps"].as_array().unwrap().len(), &did["steps"][0]["done"]), (1, &"signed by the parent".into()));
    two.child.wait_until_ready();
    two.joined();
    let nothing: Value = serde_json::from_slice(&follow(&by_files).stdout).unwrap();
    assert_eq!(nothing["steps"].as_array().unwrap().len(), 0);

    for wrong in [&[][..], &["--join-token-file", "a"], &["--identity", "identity", "--join-token-file", "a"]] {
        assert_eq!(follow(wrong).status.code(), Some(2), "{wrong:?}");
    }
    let elsewhere = follow(&["--identity", "identity", "--issuer", "issuer.example.org:8081"]);
    assert_eq!(elsewhere.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&elsewhere.stderr).contains("on this machine"));
}

#[test]
fn a_certificate_and_its_key_prove_who_an_issuer_is_also_after_a_restart() {
    let folder = TempDir::new().unwrap();
    make_ca(folder.path(), "datacenter-1", "Data centre 1");
    make_leaf(folder.path(), "datacenter-1", "eu-west-1", EC, "extendedKeyUsage=clientAuth\n");
    let authority = "attestation: { x509_pop: [{ authority: datacenter-1, ca: ../datacenter-1.pem }] }\n";
    let mut two = Two::within(folder, secs(60), authority);
    let by_name =
        "  - name: machine\n    match: { x509.authority: datacenter-1, x509.common_name: eu-west-1 }\n    spiffe_id: ";
    two.rule_and("1h", &format!("{by_name}{REGION}\n"));
    let [certificate, key] = ["pem", "key"].map(|end| two.folder.path().join(format!("eu-west-1.{end}")));
    let words = ["ca", "follow", "--parent", "parent.example.org:8081", "--trust-bundle", "root.pem"];
    let by = ["--x509-certificate", certificate.to_str().unwrap(), "--x509-key", key.to_str().unwrap()];
    assert!(by.iter().step_by(2).all(|option| pages::spans("parent.md").contains(&(*option).to_owned())));
    two.follow(&[&words[..], &by].concat());
    two.child.wait_until_ready();
    two.joined();
    assert_eq!(two.last_proof(), "x509_pop");
    assert_eq!(two.stages(), ["active"]);

    let (mut follow, _) = two.follow.take().unwrap();
    follow.kill();
    let another = two.folder.path().join("another.csr");
    two.child.operate(&["ca", "csr", "--out", another.to_str().unwrap()]);
    follow.start_again();
    follow.wait_until("it is signed", secs(30), |_| two.stages() == ["active", "prepared"]);
    assert_eq!(two.last_proof(), "x509_pop");
}

#[test]
fn a_token_that_something_else_keeps_fresh_in_a_file_proves_who_an_issuer_is() {
    let folder = TempDir::new().unwrap();
    let maker = TokenMaker::at(folder.path());
    let cluster = "{ cluster: prod, issuer: 'https://kubernetes.default.svc', jwks: { file: ../keys.json } }";
    let attestation = format!("{}  k8s_sa_token: [{cluster}]\n", PROVIDER.replace("keys.json", "../keys.json"));
    let mut two = Two::within(folder, secs(60), &attestation);
    let rule = |name: &str, attributes: &str| {
        format!("  - name: {name}\n    match: {{ {attributes} }}\n    spiffe_id: {REGION}\n")
    };
    let of_pods = rule("pod", "k8s.cluster: prod, k8s.service_account: eu-west-1");
    two.rule_and("1h", &(rule("job", "oidc.provider: ci, oidc.subject: eu-west-1") + &of_pods));
    let id_token = |name: &str| maker.token(name, json!({}));
    let of_account = |name: &str| {
        let pod = json!({"namespace": "signet", "serviceaccount": {"name": name, "uid": "1"}, "pod": {"name": "p", "uid": "2"}});
        let subject = format!("system:serviceaccount:signet:{name}");
        let claims = json!({"iss": "https://kubernetes.default.svc", "aud": ["spiffe://example.org/signet/issuer"]});
        let Value::Object(mut claims) = claims else { panic!("claims are an object") };
        claims.insert("kubernetes.io".to_owned(), pod);
        maker.token(&subject, claims.into())
    };
    let folder = two.child.configuration.parent().unwrap().to_owned();
    let words = ["ca", "follow", "--parent", "parent.example.org:8081", "--trust-bundle", "root.pem"];
    let ways = [
        ("--oidc-token-file", "oidc", &id_token as &dyn Fn(&str) -> String, "oidc.subject=elsewhere"),
        ("--k8s-token-file", "k8s_sa_token", &of_account, "k8s.service_account=elsewhere"),
    ];
    let stages = [&["requested"][..], &["active", "requested"], &["active", "prepared"]];
    for ((option, method, token, of_another), stages) in ways.into_iter().zip(stages.windows(2)) {
        assert!(pages::spans("parent.md").contains(&option.to_owned()));
        // One for somebody else first: what is in the file is what is shown, and the file is read again.
        fs::write(folder.join("token"), token("elsewhere")).unwrap();
        two.follow(&[&words[..], &[option, "token"]].concat());
        let (mut follow, _) = two.follow.take().unwrap();
        follow.wait_for_line_within(of_another, secs(30));
        assert_eq!(two.stages(), stages[0]);
        replace(&folder.join("token"), &token("eu-west-1"));
        follow.wait_until("it is signed", secs(60), |_| !two.stages().contains(&"requested".to_owned()));
        assert_eq!(two.last_proof(), method);
        follow.kill();
        if stages[1].contains(&"requested") {
            two.child.wait_until_ready();
            let another = folder.join("another.csr");
            two.child.operate(&["ca", "csr", "--out", another.to_str().unwrap()]);
        }
        assert_eq!(two.stages(), stages[1]);
    }
    two.joined();
}

#[test]
fn what_the_issuer_does_not_take_is_not_brought_again_because_the_parent_tells_something() {
    let mut two = Two::new(secs(60));
    two.rule("1h");
    // It believes another root than the parent's.
    let [trusted, other] = [&two.parent.bundle, &two.parent.make_root("elsewhere").join("root.pem")]
        .map(|path| path.to_str().unwrap().to_owned());
    let configuration = fs::read_to_string(&two.child.configuration).unwrap();
    fs::write(&two.child.configuration, configuration.replace(&trusted, &other)).unwrap();
    two.child.process.kill();
    two.child.process.start_again();
    let words = ["ca", "follow", "--parent", "parent.example.org:8081", "--trust-bundle", "root.pem"];
    two.follow(&[&words[..], &["--join-token-file", "follow.token"]].concat());
    let (mut follow, admin) = two.follow.take().unwrap();
    let not_taken = || admin.sum("signet_ca_follow_certificates_total", &[("result", "not_taken")]);
    follow.wait_for_line_within("the issuer does not follow its parent", secs(30));
    follow.wait_until("one is not taken", secs(30), |_| not_taken() >= 1.0);

    // The parent tells of the next, and goes over to it when this one has heard.
    let sign = ["ca", "sign", "--dir", "root", "--passphrase-file", "passphrase", "--purpose", "subordinate", "--yes"];
    two.done_at_parent(&["ca", "csr", "--out", "next.csr"]);
    two.done_at_parent(&[&sign[..], &["--csr", "next.csr", "--out", "next.pem"]].concat());
    two.done_at_parent(&["ca", "import", "next.pem"]);
    two.done_at_parent(&["rotate", "authority", "--apply", "--yes"]);
    assert_eq!(two.parent.stages(), ["retired", "active"]);
    throughout("it is brought once", secs(3), || not_taken() <= 1.0);
    assert!(!admin.is_ready(), "it is told as long as it is so");
    assert_eq!(two.stages(), ["requested"]);
}
