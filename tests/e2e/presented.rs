//! What is presented to gateways, and the monitor that asks whether each certificate of it is in a log.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::fs;

use serde_json::Value;
use signet_tests::auditor::{ID, joined, state_of, url_of};
use signet_tests::wait::{throughout, until};
use signet_tests::{
    Curl, Gateway, GatewayPlan, IdentityFiles, Issuer, Nginx, Process, Recipe, Workload, program, secs,
};
use tempfile::TempDir;

/// Two issuers of one trust domain that know nothing of each other, and a gateway that trusts what both sign.
struct Stage {
    folder: TempDir,
    ours: Issuer,
    theirs: Issuer,
    gateway: Gateway,
    _app: Nginx,
}

impl Stage {
    fn new() -> Self {
        let folder = TempDir::new().unwrap();
        let [ours, theirs] = ["ours", "theirs"].map(|name| {
            let folder = folder.path().join(name);
            fs::create_dir(&folder).unwrap();
            Issuer::start(&folder, "example.org", secs(3600))
        });
        let roots = [&ours, &theirs].map(|issuer| fs::read_to_string(&issuer.bundle).unwrap());
        let bundle = folder.path().join("roots.pem");
        fs::write(&bundle, roots.concat()).unwrap();
        let app = Nginx::start();
        let mut own = Workload::of(ours.address);
        own.attest(&ours.join_token("spiffe://example.org/gateway/one")).unwrap();
        let own = own.svid().write(folder.path(), "gateway");
        let gateway = GatewayPlan::new("one").identity_from_files(&own, &bundle);
        let gateway = gateway.inbound(&["spiffe://example.org/**"], &app.url()).start();
        Self { folder, ours, theirs, gateway, _app: app }
    }

    /// Calls through the gateway with a new certificate of this issuer; returns its serial number.
    fn call(&self, issuer: &Issuer) -> String {
        let workload = joined(issuer);
        let files = workload.svid().write(self.folder.path(), &format!("client-{}", workload.svid().serial()));
        self.call_with(&files);
        workload.svid().serial()
    }

    fn call_with(&self, files: &IdentityFiles) {
        Curl::get(self.gateway.inbound_url("/")).identity(files).insecure().run().expect_status(200);
    }

    fn admin(&self) -> String {
        format!("http://{}", self.gateway.admin.0)
    }

    fn recipe(&self, name: &str, issuers: &[&Issuer], more: &[&str]) -> Recipe {
        let admin = self.admin();
        let words = ["audit", "-o", "json", "monitor", "--gateway", &admin, "--grace", "3s"];
        let mut recipe = Recipe::new(name, program::ours("signet"), self.folder.path()).args(words);
        for issuer in issuers {
            recipe = recipe.arg(url_of(issuer)).arg("--key-file").arg(state_of(issuer).join("audit/log.key.pub"));
        }
        recipe.args(more)
    }
}

fn alerts(monitor: &Process) -> Vec<Value> {
    alerts_in(&monitor.log())
}

fn alerts_in(output: &str) -> Vec<Value> {
    output.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
}

fn of_kind(monitor: &Process, kind: &str) -> Vec<Value> {
    alerts(monitor).into_iter().filter(|alert| alert["alert"] == kind).collect()
}

/// Without leading zeros.
fn serial(of: &Value) -> String {
    of["serial"].as_str().unwrap().trim_start_matches('0').to_owned()
}

#[test]
fn a_certificate_that_no_log_has_is_told_of_once_it_was_presented_and_those_of_the_log_are_not() {
    let stage = Stage::new();
    let before = stage.call(&stage.ours);
    let state = stage.folder.path().join("state");
    let words = ["--state", state.to_str().unwrap()];
    let monitor = stage.recipe("first", &[&stage.ours], &words).start();
    (0..3).for_each(|_| drop(stage.call(&stage.ours)));
    // As if whoever stole a key of an authority had made it.
    let stolen = stage.call(&stage.theirs);
    until("it is told of", secs(30), || !alerts(&monitor).is_empty());
    throughout("nothing else is", secs(5), || alerts(&monitor).len() == 1);
    let alert = alerts(&monitor).remove(0);
    assert_eq!((&alert["alert"], &alert["by"], serial(&alert)), (&"unlogged".into(), &"client".into(), stolen.clone()));
    assert_eq!((&alert["spiffe_id"], &alert["source"]), (&ID.into(), &stage.admin().into()));
    assert_ne!(before, stolen);

    // A monitor that goes on reads the logs again, and tells nothing twice; one that begins anew tells it again.
    drop(monitor);
    let monitor = stage.recipe("second", &[&stage.ours], &words).start();
    stage.call(&stage.ours);
    let another = stage.call(&stage.theirs);
    until("it is told of", secs(30), || !alerts(&monitor).is_empty());
    throughout("nothing else is", secs(5), || alerts(&monitor).len() == 1);
    assert_eq!(serial(&alerts(&monitor)[0]), another);
    let once = stage.recipe("anew", &[&stage.ours], &["--once"]).run(secs(30));
    let told: Vec<_> = alerts_in(&once.output).iter().map(serial).collect();
    assert!(!once.status.success() && told.contains(&stolen), "{}", once.output);

    // With the log that they are in, all is well.
    let once = stage.recipe("both", &[&stage.ours, &stage.theirs], &["--once"]).run(secs(30));
    assert!(once.status.success() && alerts_in(&once.output).is_empty(), "{}", once.output);
}

#[test]
fn nothing_is_said_of_a_certificate_while_a_log_is_away_but_that_it_waits() {
    let mut stage = Stage::new();
    let monitor = stage.recipe("both", &[&stage.ours, &stage.theirs], &[]).start();
    stage.call(&stage.ours);
    throughout("it is quiet", secs(6), || alerts(&monitor).is_empty());
    let client = joined(&stage.ours).svid().write(stage.folder.path(), "late");
    stage.ours.process.kill();
    until("the log is missed", secs(60), || !of_kind(&monitor, "unreadable").is_empty());
    stage.call_with(&client);
    until("it waits", secs(60), || !of_kind(&monitor, "waiting").is_empty());
    stage.ours.process.start_again();
    stage.ours.wait_until_ready();
    stage.call(&stage.ours);
    // Only with the log that came back can anybody say so.
    let other = stage.recipe("ours", &[&stage.ours], &[]).start();
    stage.call(&stage.theirs);
    until("the other monitor tells of it", secs(60), || !of_kind(&other, "unlogged").is_empty());
    assert_eq!(of_kind(&monitor, "unlogged"), [Value::Null; 0]);
}

#[test]
fn a_gateway_lists_each_certificate_once_of_callers_and_of_servers() {
    let stage = Stage::new();
    let mut own = Workload::of(stage.ours.address);
    own.attest(&stage.ours.join_token("spiffe://example.org/gateway/two")).unwrap();
    let own = own.svid().write(stage.folder.path(), "two");
    let outbound = GatewayPlan::new("two")
        .identity_from_files(&own, &stage.folder.path().join("roots.pem"))
        .outbound(stage.gateway.listener("inbound"), &["spiffe://example.org/gateway/one"])
        .start();
    for _ in 0..5 {
        Curl::get(outbound.outbound_url("/")).run().expect_status(200);
    }
    let serials: Vec<_> = (0..3).map(|_| stage.call(&stage.ours)).collect();
    let listed = outbound.admin.json("/peers");
    let [server] = &listed["peers"].as_array().unwrap()[..] else { panic!("{listed}") };
    assert_eq!((&server["by"], &server["spiffe_id"]), (&"server".into(), &"spiffe://example.org/gateway/one".into()));

    let listed = stage.gateway.admin.json("/peers");
    let ids: Vec<_> = listed["peers"].as_array().unwrap().iter().map(|peer| peer["spiffe_id"].clone()).collect();
    assert_eq!(ids, ["spiffe://example.org/gateway/two", ID, ID, ID]);
    let after = stage.gateway.admin.json("/peers/2");
    let told: Vec<_> = after["peers"].as_array().unwrap().iter().map(serial).collect();
    assert_eq!(told, serials[1..]);
}

#[test]
fn what_is_no_gateway_is_told_of() {
    let stage = Stage::new();
    let issuer = format!("http://{}", stage.ours.web);
    let words = ["audit", "-o", "json", "monitor", "--once", "--gateway", &issuer, &url_of(&stage.ours), "--key-file"];
    let recipe = Recipe::new("monitor", program::ours("signet"), stage.folder.path()).args(words);
    let key = state_of(&stage.ours).join("audit/log.key.pub");
    let told = recipe.arg(&key).run(secs(30)).output;
    assert!(told.contains("is it the admin address of a gateway?"), "{told}");
    let refused = stage.recipe("no-url", &[&stage.ours], &["--gateway", "localhost:1"]).run(secs(30)).output;
    assert!(refused.contains("localhost:1 is no URL"), "{refused}");
}
