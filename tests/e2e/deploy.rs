//! What `deploy/` ships works with the programs that it is for.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use signet_test_pki::{Authority, pem};
use signet_tests::address::Host;
use signet_tests::auditor::{state_of, url_of};
use signet_tests::issuer::signet;
use signet_tests::wait::until;
use signet_tests::witness::{Answer, FakeWitness};
use signet_tests::{Admin, Curl, Issuer, Mesh, Nginx, Recipe, program, secs};
use tempfile::TempDir;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

#[test]
fn each_example_is_taken_by_its_program() {
    let etc = Etc::with_examples();
    for (program, example) in EXAMPLES {
        let output = etc.check(program, example);
        assert!(output.status.success(), "{example}: {}", told(&output));
    }
}

#[test]
fn an_example_with_a_misspelt_key_is_refused_at_its_place() {
    let etc = Etc::with_examples();
    for (program, example) in EXAMPLES {
        let path = etc.0.path().join(example);
        let text = fs::read_to_string(&path).unwrap();
        fs::write(&path, format!("adnim: 127.0.0.1:1\n{text}")).unwrap();
        let output = etc.check(program, example);
        assert_eq!(output.status.code(), Some(1), "{example}");
        let told = told(&output);
        assert!(told.contains(&format!("{example}:1:1: unknown key `adnim`")), "{told}");
        assert!(told.contains("did you mean `admin`?"), "{told}");
    }
}

#[test]
fn the_examples_started_as_the_guide_says_make_a_mesh() {
    let (host, nginx) = (Host::new(), Nginx::start());
    let folder = tempfile::Builder::new().prefix("signet-deploy-").tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let (outbound, inbound, issuer) = (host.free(), host.free(), host.free());
    let admins = [host.free(), host.free(), host.free()];
    // Each machine has its own /etc/signet; what names a place of that machine is made to fit this one.
    let install = |machine: &str, example: &str, admin: usize| {
        let text = fs::read_to_string(deploy().join("examples").join(example)).unwrap();
        let mut text = text.replace("admin: 127.0.0.1:990", "admin: ADMIN #");
        for (from, to) in [
            ("ADMIN", admins[admin].to_string()),
            ("127.0.0.1:8081", issuer.to_string()),
            ("127.0.0.1:8080", outbound.to_string()),
            ("127.0.0.1:8443", inbound.to_string()),
            ("0.0.0.0:8443", inbound.to_string()),
            ("http://127.0.0.1:9000", nginx.url()),
            ("/var/lib/signet-issuer", at("state").display().to_string()),
            ("/run/signet/", format!("{}/", folder.path().display())),
        ] {
            text = text.replace(from, &to);
        }
        fs::create_dir_all(at(machine)).unwrap();
        fs::write(at(machine).join(example), text).unwrap();
        if machine != "issuer" {
            fs::copy(at("root/root.pem"), at(machine).join("root.pem")).unwrap();
        }
        Recipe::new(
            machine,
            program::ours(if machine == "issuer" { "identity-issuer" } else { "signet-gateway" }),
            &at(machine),
        )
        .arg("--config")
        .arg(example)
    };

    fs::write(at("passphrase"), "correct horse battery staple\n").unwrap();
    let (root, passphrase) = (at("root"), at("passphrase"));
    let keys = [("--dir", root.as_path()), ("--passphrase-file", passphrase.as_path())];
    signet(&["ca", "init", "--trust-domain", "example.org"], &keys);

    let recipe = install("issuer", "issuer.yaml", 0);
    fs::copy(at("root/root.pem"), at("issuer/root.pem")).unwrap();
    fs::write(at("issuer/passphrase"), "opens the issuer's key\n").unwrap();
    let mut process = recipe.start();
    let (request, authority) = (at("state/authority.csr"), at("issuer/authority.pem"));
    process.wait_until("a request", secs(30), |_| request.exists());
    signet(&["ca", "sign", "--yes"], &[keys[0], keys[1], ("--csr", &request), ("--out", &authority)]);
    process.wait_until("ready", secs(30), |_| Admin(admins[0]).is_ready());

    let socket = at("issuer-admin.sock");
    let mut gateways = Vec::new();
    for (number, name) in ["inbound", "outbound"].into_iter().enumerate() {
        let recipe = install(name, &format!("gateway-{name}.yaml"), number + 1);
        let token = at(name).join("join-token");
        let id = format!("spiffe://example.org/gateway/{name}");
        signet(&["token", "create", &id], &[("--out", &token), ("--issuer", &socket)]);
        let mut gateway = recipe.start();
        gateway.wait_until("ready", secs(30), |_| Admin(admins[number + 1]).is_ready());
        gateways.push(gateway);
    }
    let answer = Curl::get(format!("http://{outbound}/hello")).run().expect_status(200);
    assert_eq!(answer.text(), "hello from nginx\n");
}

#[test]
fn systemd_understands_the_units() {
    // Not on every machine, and not worth installing.
    let Some(systemd_analyze) = program::find("systemd-analyze") else { return };
    let folder = TempDir::new().unwrap();
    for (unit, program) in [
        ("signet-issuer.service", "identity-issuer"),
        ("signet-gateway.service", "signet-gateway"),
        ("signet-ca-follow.service", "signet"),
        ("signet-audit-stream.service", "signet"),
        ("signet-audit-monitor.service", "signet"),
    ] {
        let text = fs::read_to_string(deploy().join("systemd").join(unit)).unwrap();
        let installed = format!("/usr/bin/{program} ");
        assert!(text.contains(&installed), "{unit} starts another program");
        let text = text.replace(&installed, &format!("{} ", program::ours(program).display()));
        fs::write(folder.path().join(unit), text).unwrap();
        let output =
            Command::new(&systemd_analyze).args(["verify", "--man=no"]).arg(folder.path().join(unit)).output().unwrap();
        // It goes on about units of the machine too: what counts is what it says of ours.
        let complaints: Vec<_> = told(&output).lines().filter(|line| line.contains(unit)).map(str::to_owned).collect();
        assert_eq!(complaints, Vec::<String>::new());
    }
}

#[test]
fn the_alerts_fire_and_stay_silent_as_their_tests_say() {
    let folder = deploy().join("prometheus");
    for words in [["check", "rules", "alerts.yaml"], ["test", "rules", "alerts.test.yaml"]] {
        let output = Command::new(program::third_party("promtool")).args(words).current_dir(&folder).output().unwrap();
        assert!(output.status.success(), "promtool {words:?}: {}", told(&output));
    }
}

#[test]
fn every_metric_of_the_alerts_is_exported() {
    let nginx = Nginx::start();
    let mesh = Mesh::new().ttl(secs(60)).upstream(&nginx.url()).start();
    // What is told of each witness is there where there is one.
    let (folder, witness) = (TempDir::new().unwrap(), FakeWitness::start("w1.example", Answer::Cosign));
    let witnesses = format!("audit: {{ witnesses: [{{ url: '{}', key: '{}' }}] }}\n", witness.url(), witness.key);
    let witnessed = Issuer::start_with(folder.path(), "example.org", secs(60), &witnesses);
    let monitor = Host::new();
    let metrics = Admin(monitor.free());
    let key = state_of(&witnessed).join("audit/log.key.pub");
    let _monitoring = Recipe::new("monitor", program::ours("signet"), folder.path())
        .args(["audit", "monitor", &url_of(&witnessed), "--key-file", key.to_str().unwrap()])
        .args(["--metrics", &metrics.0.to_string()])
        .start();
    until("the monitor runs", secs(10), || Curl::get(metrics.url("/live")).run().status == 200);
    let alerts = fs::read_to_string(deploy().join("prometheus/alerts.yaml")).unwrap();
    let named: BTreeSet<&str> = alerts
        .split(|letter: char| !letter.is_ascii_alphanumeric() && letter != '_')
        .filter(|word| word.starts_with("signet_"))
        .collect();
    assert!(named.len() >= 6, "{named:?}");
    for metric in named {
        // Some are there a moment after the issuer serves.
        let admins = [mesh.inbound.admin, mesh.issuer.admin, witnessed.admin, metrics];
        let is_exported = || admins.iter().any(|admin| admin.metrics().has(metric));
        until(metric, secs(10), is_exported);
    }
}

#[test]
fn a_successor_is_exported_as_the_alert_reads_it_once_it_is_signed_and_until_it_signs() {
    let alerts = fs::read_to_string(deploy().join("prometheus/alerts.yaml")).unwrap();
    let alert = alerts.split("- alert: ").find(|alert| alert.starts_with("SignetNoSuccessor\n")).unwrap();
    let of = |before: &str| {
        let (_, series) = alert.split_once(before).unwrap_or_else(|| panic!("no `{before}` in {alert}"));
        let (name, label) = series.split('}').next().unwrap().split_once("{state=").unwrap();
        (name.to_owned(), label.trim_matches('"').to_owned())
    };
    let (active, prepared) = (of("expr: >-\n          "), of("unless on (instance) "));
    let folder = TempDir::new().unwrap();
    let issuer = Issuer::start(folder.path(), "example.org", secs(600));
    let ends = |(name, state): &(String, String)| {
        let metrics = issuer.admin.metrics();
        let count = metrics.label_values(name, "state").iter().filter(|found| *found == state).count();
        (count, metrics.sum(name, &[("state", state)]))
    };
    let told = |at: usize| {
        let text = issuer.operate_json(&["get", "authorities"])["authorities"][at]["not_after"].clone();
        OffsetDateTime::parse(text.as_str().unwrap(), &Rfc3339).unwrap().unix_timestamp() as f64
    };
    assert_eq!((ends(&active), ends(&prepared)), ((1, told(0)), (0, 0.0)));
    issuer.operate(&["ca", "csr", "--out", folder.path().join("asked.csr").to_str().unwrap()]);
    assert_eq!(ends(&prepared), (0, 0.0), "it is asked for, and not signed");
    issuer.hold_ceremony(&issuer.root, 1);
    assert_eq!((ends(&active), ends(&prepared)), ((1, told(0)), (1, told(1))));
    issuer.operate(&["rotate", "authority", "--apply", "--yes"]);
    assert_eq!((ends(&active), ends(&prepared)), ((1, told(1)), (0, 0.0)));
}

const EXAMPLES: [(&str, &str); 3] = [
    ("identity-issuer", "issuer.yaml"),
    ("signet-gateway", "gateway-inbound.yaml"),
    ("signet-gateway", "gateway-outbound.yaml"),
];

/// A folder as `/etc/signet` is after the installation of `deploy/README.md`.
struct Etc(TempDir);

impl Etc {
    fn with_examples() -> Self {
        let etc = Self(TempDir::new().unwrap());
        for (_, example) in EXAMPLES {
            fs::copy(deploy().join("examples").join(example), etc.0.path().join(example)).unwrap();
        }
        let root = Authority::root("example.org");
        fs::write(etc.0.path().join("root.pem"), pem("CERTIFICATE", root.root_certificate())).unwrap();
        fs::write(etc.0.path().join("passphrase"), "opens the issuer's key").unwrap();
        fs::write(etc.0.path().join("join-token"), "a token").unwrap();
        etc
    }

    fn check(&self, program: &str, example: &str) -> Output {
        Command::new(program::ours(program))
            .args(["--config", example, "--check"])
            .current_dir(self.0.path())
            .output()
            .unwrap()
    }
}

fn deploy() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy")
}

fn told(output: &Output) -> String {
    [output.stdout.as_slice(), output.stderr.as_slice()].map(String::from_utf8_lossy).concat()
}
