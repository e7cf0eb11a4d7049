//! `signet dev`: a whole mesh by one command.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::collections::BTreeSet;
use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use signet_tests::address::Host;
use signet_tests::metrics::Admin;
use signet_tests::wait::until;
use signet_tests::{Curl, Nginx, Process, Recipe, Signal, program, secs};
use tempfile::TempDir;

#[test]
fn one_command_runs_a_mesh_and_says_how_to_use_it() {
    let place = Place::new();
    let dev = place.start(&[]);
    let said = dev.log();
    for line in [
        format!("curl http://{}/", place.outbound),
        format!("http://{}/metrics", place.gateway_admin),
        format!("openssl s_client -connect {}", place.inbound),
    ] {
        assert!(said.contains(&line), "no `{line}` in {said}");
    }
    let echoed = place.curl("/any/path?a=b").run().expect_status(200).text();
    assert!(echoed.contains("/any/path?a=b"), "{echoed}");
    assert!(echoed.contains("x-forwarded-client-cert") && echoed.contains("spiffe://example.org/"), "{echoed}");
    assert_eq!(mode(&place.state()), 0o700);
}

#[test]
fn an_upstream_of_ones_own_stands_behind_it() {
    let place = Place::new();
    let nginx = Nginx::start();
    let _dev = place.start(&["--upstream", &nginx.url()]);
    let sent = nginx.serve_random("file", 1 << 20);
    for protocol in [Curl::http1, Curl::http2_by_preface] {
        assert_eq!(protocol(place.curl("/file")).run().expect_status(200).sha256(), sent);
    }
}

#[test]
fn the_lines_it_prints_can_be_copied_into_a_shell() {
    let place = Place::new();
    let dev = place.start(&[]);
    let said = dev.log();
    let commands: Vec<_> =
        said.lines().map(str::trim).filter(|line| line.starts_with("curl ") || line.starts_with("openssl ")).collect();
    assert!(commands.len() >= 3, "{said}");
    for command in commands {
        let output = std::process::Command::new("sh")
            .args(["-c", command])
            .current_dir(place.folder.path())
            .stdin(std::process::Stdio::null())
            .output()
            .unwrap();
        let told = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        // openssl has no certificate to show: it sees who the gateway is, and is turned away.
        let as_told =
            if command.starts_with("openssl") { told.contains("verify return:1") } else { output.status.success() };
        assert!(as_told, "{command}: {told}");
    }
}

#[test]
fn each_rotation_is_a_line() {
    let place = Place::new();
    let mut dev = place.start(&["--ttl", "5s"]);
    // Renewed at 40 to 60 % of five seconds.
    dev.wait_until("six rotations", secs(30), |dev| rotations(&dev.log()).len() >= 6);
    let lines = rotations(&dev.log());
    for who in ["inbound", "outbound"] {
        assert!(lines.iter().any(|line| line.contains(who)), "none of {who}: {lines:#?}");
    }
    place.curl("/").run().expect_status(200);
}

#[test]
fn a_second_start_takes_the_state_up_and_fresh_begins_anew() {
    let place = Place::new();
    let mut dev = place.start(&[]);
    let root = place.root();
    dev.signal(Signal::Interrupt);
    assert_eq!(dev.wait(secs(5)).code(), Some(0));

    let mut dev = place.start(&[]);
    assert_eq!(place.root(), root, "another root");
    place.curl("/").run().expect_status(200);
    dev.signal(Signal::Terminate);
    assert_eq!(dev.wait(secs(5)).code(), Some(0));

    let _dev = place.start(&["--fresh"]);
    assert_ne!(place.root(), root, "the old root");
    place.curl("/").run().expect_status(200);
}

#[test]
fn another_trust_domain_can_be_chosen() {
    let place = Place::new();
    let _dev = place.start(&["--trust-domain", "shop.example"]);
    let echoed = place.curl("/").run().expect_status(200).text();
    assert!(echoed.contains("spiffe://shop.example/"), "{echoed}");
}

#[test]
fn state_is_taken_up_after_sigkill() {
    let place = Place::new();
    let mut dev = place.start(&["--ttl", "5s"]);
    let root = place.root();
    for _ in 0..3 {
        place.curl("/").run().expect_status(200);
        dev.kill();
        dev.start_again();
        place.wait_until_it_serves(&mut dev);
        assert_eq!(place.root(), root, "another root");
    }
    place.curl("/").run().expect_status(200);
}

#[test]
fn ctrl_c_ends_it_within_five_seconds_even_at_work() {
    let place = Place::new();
    let nginx = Nginx::start();
    nginx.serve_random("long", 1 << 20);
    let mut dev = place.start(&["--upstream", &nginx.url()]);
    let slow = place.curl("/slow/long").start();
    until("a request is under way", secs(10), || slow.body_bytes() > 0);
    dev.signal(Signal::Interrupt);
    assert_eq!(dev.wait(secs(5)).code(), Some(0));
}

#[test]
fn a_port_in_use_is_one_clear_error() {
    let place = Place::new();
    for taken in [
        place.outbound,
        place.inbound,
        place.issuer,
        place.gateway_admin,
        place.issuer_admin,
        place.outbound_admin,
        place.web,
    ] {
        let listener = TcpListener::bind(taken).unwrap();
        let error = place.fails(&place.state(), &[]);
        assert!(error.contains(&taken.to_string()), "{error}");
        drop(listener);
    }
    let _dev = place.start(&[]);
    place.curl("/").run().expect_status(200);
}

#[test]
fn a_folder_that_cannot_be_used_is_one_clear_error() {
    let place = Place::new();
    let file = place.folder.path().join("file");
    fs::write(&file, "not a folder").unwrap();
    for state in [file.clone(), file.join("below")] {
        let error = place.fails(&state, &[]);
        assert!(error.contains(state.to_str().unwrap()), "{error}");
    }

    let foreign = place.folder.path().join("foreign");
    fs::create_dir(&foreign).unwrap();
    fs::write(foreign.join("holiday.jpg"), "sea").unwrap();
    for options in [&[][..], &["--fresh"]] {
        place.fails(&foreign, options);
        assert!(foreign.join("holiday.jpg").exists());
    }
}

#[test]
fn an_unwritable_folder_is_one_clear_error() {
    let place = Place::new();
    let locked = place.folder.path().join("locked");
    fs::create_dir(&locked).unwrap();
    fs::set_permissions(&locked, fs::Permissions::from_mode(0o555)).unwrap();
    fs::set_permissions(place.folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let state = locked.join("state");
    // Root may write anywhere, so it becomes nobody.
    let recipe = if fs::write(locked.join("probe"), "").is_ok() {
        fs::remove_file(locked.join("probe")).unwrap();
        Recipe::new("nobody", program::third_party("setpriv"), place.folder.path())
            .args(["--reuid=65534", "--regid=65534", "--clear-groups", "--"])
            .arg(program::ours("signet"))
    } else {
        Recipe::new("nobody", program::ours("signet"), place.folder.path())
    };
    let ended = recipe.args(place.arguments(&state)).run(secs(20));
    assert_eq!(ended.status.code(), Some(1), "{}", ended.output);
    let error = one_error(&ended.output);
    assert!(error.contains("locked") && error.to_lowercase().contains("permission denied"), "{error}");
}

#[test]
fn a_damaged_state_is_one_clear_error_and_fresh_is_the_way_out() {
    let place = Place::new();
    let mut dev = place.start(&[]);
    dev.signal(Signal::Interrupt);
    assert_eq!(dev.wait(secs(5)).code(), Some(0));
    let whole = place.folder.path().join("whole");
    copy(&place.state(), &whole);

    let key = fs::read_dir(place.state().join("issuer/authorities")).unwrap().next().unwrap().unwrap().file_name();
    let key = format!("issuer/authorities/{}", key.to_str().unwrap());
    for name in ["root/root.pem", "issuer/authorities.json", &key, "issuer/issuer.db", "issuer/passphrase"] {
        let file = place.state().join(name);
        assert!(file.exists(), "the state has no {name}: {:?}", list(&place.state()));
        let content = fs::read(&file).unwrap();
        println!("damaging {name}");
        for damage in [&content[..content.len() / 3], &[b'x'; 300][..]] {
            fs::remove_dir_all(place.state()).unwrap();
            copy(&whole, &place.state());
            fs::write(&file, damage).unwrap();
            let error = place.fails(&place.state(), &[]);
            assert!(error.contains(place.state().to_str().unwrap()), "{name}: {error}");
        }
    }
    let _dev = place.start(&["--fresh"]);
    place.curl("/").run().expect_status(200);
}

#[test]
fn a_mesh_goes_over_to_another_authority_and_another_root() {
    let place = Place::new();
    let mut dev = place.start(&[]);
    let root = || fs::read_to_string(place.state().join("root/root.pem")).unwrap();
    let before = root();
    let operate = |words: &[&str]| {
        let socket = place.state().join("issuer-admin.sock");
        let signet = Recipe::new("signet", program::ours("signet"), place.folder.path()).args(words);
        let told = signet.arg("--issuer").arg(&socket).run(secs(40)).success();
        // All runs write to one log.
        told.rsplit("\n$ ").next().unwrap_or_default().to_owned()
    };
    let kept = || {
        let names = fs::read_dir(place.state()).unwrap().map(|entry| entry.unwrap().file_name());
        let names: BTreeSet<_> = names.filter(|name| !name.to_string_lossy().contains("sqlite")).collect();
        let told = operate(&["get", "authorities", "-o", "json"]);
        let lines = told.lines().filter(|line| line.contains("\"key\"") || line.contains("\"stage\""));
        (names, lines.map(str::to_owned).collect::<Vec<_>>())
    };
    for what in ["authority", "root"] {
        let before = kept();
        assert!(operate(&["rotate", what, "--plan"]).contains("to come"));
        assert_eq!(kept(), before, "a plan of another {what} has done something");
        operate(&["rotate", what, "--apply", "--yes"]);
        place.curl("/").run().expect_status(200);
    }
    until("the next root is the root", secs(10), || root() != before);
    assert!(operate(&["get", "authorities"]).contains("tainted"), "nobody tainted what the root before had signed");
    dev.signal(Signal::Interrupt);
    assert_eq!(dev.wait(secs(5)).code(), Some(0));
    let _dev = place.start(&[]);
    place.curl("/").run().expect_status(200);
}

#[test]
fn wrong_usage_is_exit_2() {
    let place = Place::new();
    for wrong in [&["--ttl", "soon"][..], &["--outbound", "nowhere"], &["--nonsense"], &["--trust-domain", "NO_UPPER"]]
    {
        let ended =
            Recipe::new("usage", program::ours("signet"), place.folder.path()).arg("dev").args(wrong).run(secs(10));
        assert_eq!(ended.status.code(), Some(2), "{wrong:?}: {}", ended.output);
    }
}

/// Addresses and a folder for one `signet dev`.
struct Place {
    folder: TempDir,
    outbound: SocketAddr,
    inbound: SocketAddr,
    issuer: SocketAddr,
    gateway_admin: SocketAddr,
    issuer_admin: SocketAddr,
    web: SocketAddr,
    outbound_admin: SocketAddr,
    _host: Host,
}

impl Place {
    fn new() -> Self {
        let host = Host::new();
        Self {
            folder: tempfile::Builder::new().prefix("signet-dev-").tempdir().unwrap(),
            outbound: host.free(),
            inbound: host.free(),
            issuer: host.free(),
            gateway_admin: host.free(),
            issuer_admin: host.free(),
            web: host.free(),
            outbound_admin: host.free(),
            _host: host,
        }
    }

    fn state(&self) -> PathBuf {
        self.folder.path().join("state")
    }

    fn arguments(&self, state: &Path) -> Vec<String> {
        let mut arguments = vec!["dev".to_owned(), "--state".to_owned(), state.display().to_string()];
        for (option, address) in [
            ("--outbound", self.outbound),
            ("--inbound", self.inbound),
            ("--issuer", self.issuer),
            ("--gateway-admin", self.gateway_admin),
            ("--issuer-admin", self.issuer_admin),
            ("--web", self.web),
            ("--outbound-admin", self.outbound_admin),
        ] {
            arguments.extend([option.to_owned(), address.to_string()]);
        }
        arguments
    }

    fn recipe(&self, state: &Path, options: &[&str]) -> Recipe {
        Recipe::new("signet-dev", program::ours("signet"), self.folder.path()).args(self.arguments(state)).args(options)
    }

    /// Starts it and waits until it serves.
    fn start(&self, options: &[&str]) -> Process {
        let mut dev = self.recipe(&self.state(), options).start();
        self.wait_until_it_serves(&mut dev);
        dev
    }

    fn wait_until_it_serves(&self, dev: &mut Process) {
        let ready = || [self.gateway_admin, self.outbound_admin].into_iter().all(|admin| Admin(admin).is_ready());
        dev.wait_until("ready", secs(30), |_| ready());
        // What it says stands there once it serves.
        dev.wait_until("its lines", secs(5), |dev| dev.log().contains("curl "));
    }

    /// Exit 1 with one error, which is returned.
    #[track_caller]
    fn fails(&self, state: &Path, options: &[&str]) -> String {
        let folder = tempfile::tempdir().unwrap();
        let recipe = Recipe::new("failing", program::ours("signet"), folder.path());
        let ended = recipe.args(self.arguments(state)).args(options).run(secs(30));
        assert_eq!(ended.status.code(), Some(1), "{}", ended.output);
        one_error(&ended.output)
    }

    fn curl(&self, path: &str) -> Curl {
        Curl::get(format!("http://{}{path}", self.outbound))
    }

    fn root(&self) -> String {
        fs::read_to_string(self.state().join("root/root.pem")).unwrap()
    }
}

/// The one error in an output, with the line of advice below it.
#[track_caller]
fn one_error(output: &str) -> String {
    let lines: Vec<_> = output.lines().collect();
    let errors: Vec<_> = (0..lines.len()).filter(|at| lines[*at].starts_with("error: ")).collect();
    assert_eq!(errors.len(), 1, "{output}");
    assert!(!output.contains("panicked"), "{output}");
    lines[errors[0]..].iter().take(2).copied().collect::<Vec<_>>().join("\n")
}

fn rotations(log: &str) -> Vec<String> {
    let is_rotation = |line: &&str| line.contains("spiffe://") && line.contains("expires in");
    log.lines().filter(is_rotation).map(str::to_owned).collect()
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

fn copy(from: &Path, to: &Path) {
    let status = std::process::Command::new("cp").arg("-a").arg(from).arg(to).status().unwrap();
    assert!(status.success());
}

fn list(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { list(&path) } else { vec![path] }).collect()
}
