//! Who may be what: `signet apply`, `get`, `diff`, `history`, `rollback` and `explain`, against a real issuer.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;
use signet_tests::terminal::Asked;
use signet_tests::{Issuer, pages, program, secs};
use tempfile::TempDir;

const RULES: &str = "
rules:
- name: pods
  match: {k8s.cluster: prod, k8s.namespace: [shop, billing]}
  spiffe_id: spiffe://example.org/ns/{k8s.namespace}/sa/{k8s.service_account}
  ttl: 1h
- name: ci
  match: {oidc.provider: ci}
  spiffe_id: spiffe://example.org/ci/{oidc.subject}
";

struct Operator {
    issuer: Issuer,
    // After the issuer, whose log is in it and is shown when a test fails.
    folder: TempDir,
}

impl Operator {
    fn new() -> Self {
        let folder = TempDir::new().unwrap();
        let issuer = Issuer::start(folder.path(), "example.org", secs(60));
        Self { folder, issuer }
    }

    fn write(&self, name: &str, text: &str) {
        let path = self.folder.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn run(&self, words: &[&str]) -> Output {
        let mut command = Command::new(program::ours("signet"));
        command.args(words).current_dir(self.folder.path()).env("SIGNET_ISSUER", &self.issuer.socket).output().unwrap()
    }

    #[track_caller]
    fn told(&self, words: &[&str]) -> String {
        let output = self.run(words);
        let (told, error) = (text(&output.stdout), text(&output.stderr));
        assert!(output.status.success(), "signet {words:?}: {}\n{told}{error}", output.status);
        told
    }

    #[track_caller]
    fn json(&self, words: &[&str]) -> Value {
        let told = self.told(&[words, &["-o", "json"]].concat());
        serde_json::from_str(&told).unwrap_or_else(|error| panic!("{error}: {told}"))
    }

    /// What a command that fails says.
    #[track_caller]
    fn refused(&self, words: &[&str]) -> String {
        let output = self.run(words);
        assert_eq!(output.status.code(), Some(1), "signet {words:?}: {}", text(&output.stdout));
        text(&output.stderr)
    }
}

/// Users who are not the one that the issuer runs as.
impl Operator {
    fn run_as(&self, uid: u32, words: &[&str]) -> Output {
        assert_eq!(
            fs::metadata("/proc/self").unwrap().uid(),
            0,
            "only root becomes another user: run this test as root"
        );
        // Where others come to it: what was built may lie in a private folder.
        let signet = self.folder.path().join("signet");
        if !signet.exists() {
            fs::copy(program::ours("signet"), &signet).unwrap();
            fs::set_permissions(self.folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
        }
        let mut command = Command::new(program::third_party("setpriv"));
        command.args([format!("--reuid={uid}"), format!("--regid={uid}")]).args(["--clear-groups", "--"]).arg(signet);
        command.args(words).current_dir(self.folder.path()).env("SIGNET_ISSUER", &self.issuer.socket).output().unwrap()
    }

    #[track_caller]
    fn told_as(&self, uid: u32, words: &[&str]) -> String {
        let output = self.run_as(uid, words);
        assert!(output.status.success(), "signet {words:?}: {}", text(&output.stderr));
        text(&output.stdout)
    }

    #[track_caller]
    fn refused_as(&self, uid: u32, words: &[&str]) -> String {
        let output = self.run_as(uid, words);
        assert_eq!(output.status.code(), Some(1), "signet {words:?}: {}", text(&output.stdout));
        text(&output.stderr)
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn a_policy_is_applied_as_one_revision_and_can_be_rolled_back() {
    let operator = Operator::new();
    operator.write("policy/rules.yaml", RULES);
    assert_eq!(operator.json(&["get", "rules"])["rules"], Value::Array(Vec::new()));

    let plan = operator.told(&["apply", "-f", "policy", "--dry-run"]);
    assert!(plan.contains("+ pods") && plan.contains("2 to create, 0 to update, 0 to delete"), "{plan}");
    assert!(operator.json(&["history"])["revisions"].as_array().unwrap().is_empty(), "a dry run changes nothing");
    let unasked = operator.refused(&["apply", "-f", "policy"]);
    assert!(unasked.contains("there is nobody to ask") && unasked.contains("--yes"), "{unasked}");
    let applied = operator.told(&["apply", "-f", "policy", "--yes", "-m", "the first"]);
    assert!(applied.ends_with("applied: the policy is at revision 1\n"), "{applied}");
    let again = operator.told(&["apply", "-f", "policy", "--yes"]);
    assert_eq!(again, "nothing changes: the policy is at revision 1\n");

    operator.write("policy/rules.yaml", &RULES.replace("ttl: 1h", "ttl: 2h").replace("name: ci", "name: jobs"));
    let clash = operator.refused(&["apply", "-f", "policy", "--yes"]);
    assert!(
        clash.contains("policy/rules.yaml:9:14: spiffe_id: a caller could get the same identity by rule `ci`"),
        "{clash}"
    );
    let plan = operator.told(&["diff", "-f", "policy", "--prune"]);
    assert!(plan.contains("-   ttl: 1h\n  +   ttl: 2h") && plan.contains("- ci") && plan.contains("+ jobs"), "{plan}");
    assert_eq!(operator.run(&["diff", "-f", "policy", "--prune", "--exit-code"]).status.code(), Some(1));
    operator.told(&["apply", "-f", "policy", "--prune", "--yes"]);
    assert!(operator.told(&["get", "policy"]).contains("ttl: 2h"));
    assert!(operator.told(&["diff", "1"]).contains("1 to create, 1 to update, 1 to delete, 0 unchanged"));

    operator.told(&["rollback", "--yes", "-m", "not like this"]);
    assert_eq!(operator.told(&["get", "policy"]), operator.told(&["get", "policy", "--revision", "1"]));
    let history = operator.json(&["history"]);
    let revisions = history["revisions"].as_array().unwrap();
    let told: Vec<_> = revisions.iter().map(|one| (one["revision"].as_u64(), one["comment"].as_str())).collect();
    assert_eq!(told, [(Some(3), Some("not like this")), (Some(2), Some("")), (Some(1), Some("the first"))]);
    let uid = text(&Command::new("id").arg("-u").output().unwrap().stdout);
    assert!(revisions.iter().all(|one| one["actor"] == format!("uid:{}", uid.trim())), "{history}");
    assert!(operator.refused(&["rollback", "77", "--yes"]).contains("there is no revision 77"));

    // What was printed can be applied.
    operator.write("printed.yaml", &operator.told(&["get", "policy"]));
    let same = operator.told(&["apply", "-f", "printed.yaml", "--prune", "--yes"]);
    assert_eq!(same, "nothing changes: the policy is at revision 3\n");
}

#[test]
fn a_policy_outlives_its_issuer() {
    let mut operator = Operator::new();
    operator.write("rules.yaml", RULES);
    operator.told(&["apply", "-f", "rules.yaml", "--yes"]);
    let before = operator.told(&["get", "policy"]);
    operator.issuer.process.kill();
    operator.issuer.process.start_again();
    operator.issuer.wait_until_ready();
    assert_eq!(operator.told(&["get", "policy"]), before);
    operator.told(&["rollback", "--yes"]);
    assert_eq!(operator.json(&["history"])["revisions"][0]["revision"], 2);
}

#[test]
fn somebody_without_an_identity_is_told_why() {
    let operator = Operator::new();
    operator.write("rules.yaml", RULES);
    operator.told(&["apply", "-f", "rules.yaml", "--yes"]);
    let explain = |pairs: &[&str]| {
        let words: Vec<&str> = ["explain"].into_iter().chain(pairs.iter().flat_map(|pair| ["-a", pair])).collect();
        operator.json(&words)["outcomes"].as_array().unwrap().clone()
    };
    let cart = explain(&["k8s.cluster=prod", "k8s.namespace=shop", "k8s.service_account=cart"]);
    assert_eq!(cart[0]["spiffe_id"], "spiffe://example.org/ns/shop/sa/cart");
    let stranger = explain(&["k8s.cluster=prod", "k8s.namespace=ops", "k8s.service_account=cart"]);
    assert_eq!(stranger[0]["why"], "k8s.namespace is ops, shop|billing is wanted");
    let hostile = explain(&["k8s.cluster=prod", "k8s.namespace=shop", "k8s.service_account=../../signet/issuer"]);
    assert_eq!(hostile[0]["outcome"], "no name");
    assert!(hostile[0]["why"].as_str().unwrap().contains("'/' may not be in a path segment"), "{hostile:?}");

    let whom = operator.told(&["explain", "spiffe://example.org/ns/shop/sa/cart"]);
    assert!(whom.contains("k8s.cluster=prod k8s.namespace=shop|billing"), "{whom}");
    let nobody = operator.told(&["explain", "spiffe://example.org/elsewhere"]);
    assert!(nobody.contains("by join token only"), "{nobody}");
    let unknown = operator.refused(&["explain", "-a", "shoe.size=43"]);
    assert!(unknown.contains("no attestor proves an attribute `shoe.size`"), "{unknown}");
}

#[test]
fn files_that_are_no_policy_are_refused_with_their_place() {
    let operator = Operator::new();
    let refused = |text: &str| {
        operator.write("p.yaml", text);
        operator.refused(&["apply", "-f", "p.yaml", "--yes"])
    };
    for (wrong, told) in [
        ("rules: [{name: a}]", "p.yaml:1:"),
        ("rulez: []", "unknown key `rulez`"),
        ("rules:\n- {name: A, match: {k8s.pod: a}, spiffe_id: spiffe://example.org/a}", "p.yaml:2:10"),
        ("rules:\n- {name: a, match: {k8s.pod: a}, spiffe_id: spiffe://example.org/signet/issuer}", "the issuer's own"),
        (
            "rules:\n- {name: a, match: {k8s.pod: a}, spiffe_id: 'spiffe://example.org/{k8s.pod}'}",
            "it could be anybody",
        ),
        ("rules:\n- {name: a, match: {k8s.pod: a}, spiffe_id: spiffe://example.org/a/../b}", "`.` or `..`"),
        ("rules:\n- {name: a, match: {k8s.pod: a}, spiffe_id: spiffe://other.org/a}", "this issuer's trust domain"),
        ("a: &a [x, x]\nb: &b [*a, *a]\nc: &c [*b, *b]\nrules: *c", "unknown key `a`"),
        ("{", "p.yaml:1:"),
    ] {
        let error = refused(wrong);
        assert!(error.contains(told), "{wrong}: {error}");
    }
    for number in 0..40 {
        let values = vec!["a".repeat(1000); 16].join(", ");
        let id = "spiffe_id: spiffe://example.org/a";
        let first = format!("- {{name: a{number}, match: {{k8s.pod: &all [{values}]}}, {id}}}\n");
        let bombs = (0..90).map(|other| format!("- {{name: b{number}-{other}, match: {{k8s.pod: *all}}, {id}}}\n"));
        operator.write(&format!("bombs/{number}.yaml"), &format!("rules:\n{first}{}", bombs.collect::<String>()));
    }
    let error = operator.refused(&["diff", "-f", "bombs"]);
    assert!(error.contains("bombs/0.yaml:2:") && error.contains("write out what they stand for"), "{error}");
    assert!(operator.refused(&["apply", "-f", "nowhere", "--yes"]).contains("nowhere"));
    assert!(operator.json(&["history"])["revisions"].as_array().unwrap().is_empty());
    assert!(Path::new(&operator.issuer.socket).exists());
}

#[test]
fn the_commands_of_the_pages_work() {
    let operator = Operator::new();
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/examples/policy.yaml");
    operator.write("policy/policy.yaml", &fs::read_to_string(example).unwrap());
    let id = "spiffe://example.org/machine/edge-3";
    let mut workload = signet_tests::Workload::of(operator.issuer.address);
    workload.attest(&operator.issuer.join_token(id)).unwrap();
    let number = operator.json(&["get", "agents"])["agents"][0]["number"].to_string();

    let mut ran = Vec::new();
    for page in ["policy.md", "attestation.md"] {
        for mut words in pages::commands(page) {
            let asks = matches!(words[0].as_str(), "apply" | "rollback") && !words.contains(&"--dry-run".to_owned());
            if asks {
                words.push("--yes".to_owned());
            }
            if words[0] == "evict" || words[0] == "explain" && words[1] == "1" {
                words[1].clone_from(&number);
            }
            operator.told(&words.iter().map(String::as_str).collect::<Vec<_>>());
            ran.push(words[0].clone());
        }
    }
    for verb in ["apply", "diff", "history", "rollback", "get", "explain", "evict", "ban", "unban"] {
        assert!(ran.iter().any(|word| word == verb), "{verb} is on none of the pages");
    }
}

#[test]
fn an_operator_far_away_is_confined_to_its_part() {
    let folder = TempDir::new().unwrap();
    let roles = "administration: [{ role: operator, scope: /shop, spiffe_ids: [\"spiffe://example.org/people/*\"] }]\n";
    let issuer = Issuer::start_with(folder.path(), "example.org", secs(60), roles);
    let operator = Operator { folder, issuer };
    let mut ann = signet_tests::Workload::of(operator.issuer.address);
    ann.attest(&operator.issuer.join_token("spiffe://example.org/people/ann")).unwrap();
    let identity = operator.folder.path().join("ann");
    fs::create_dir(&identity).unwrap();
    fs::write(identity.join("svid.pem"), ann.svid().chain_pem()).unwrap();
    fs::write(identity.join("svid.key"), ann.svid().key_pem()).unwrap();
    fs::copy(&operator.issuer.bundle, identity.join("bundle.pem")).unwrap();

    let address = operator.issuer.address.to_string();
    let place = ["--issuer", &address, "--identity", identity.to_str().unwrap()];
    fn with<'a>(words: &[&'a str], place: &[&'a str]) -> Vec<&'a str> {
        [words, place].concat()
    }
    let rule = |name: &str| {
        format!("rules: [{{ name: {name}, match: {{ k8s.pod: a }}, spiffe_id: 'spiffe://example.org/{name}/a' }}]")
    };
    operator.write("shop.yaml", &rule("shop"));
    operator.write("billing.yaml", &rule("billing"));
    operator.told(&with(&["apply", "--yes", "-f", "shop.yaml"], &place));
    let refused = operator.refused(&with(&["apply", "--yes", "-f", "billing.yaml"], &place));
    assert!(
        refused.contains("rule `billing`: it is, or would be, of a part of the trust domain that is not"),
        "{refused}"
    );
    operator.told(&with(&["token", "create", "spiffe://example.org/shop/cart"], &place));
    operator.refused(&with(&["token", "create", "spiffe://example.org/billing/pay"], &place));
    assert_eq!(operator.json(&with(&["history"], &place))["revisions"][0]["actor"], "spiffe://example.org/people/ann");
    let refused = operator.refused(&["status", "--issuer", &address]);
    assert!(refused.contains("--identity"), "{refused}");
    // Somebody without a role, and a file that is larger than any policy.
    let mut eve = signet_tests::Workload::of(operator.issuer.address);
    eve.attest(&operator.issuer.join_token("spiffe://example.org/eve")).unwrap();
    fs::write(identity.join("svid.pem"), eve.svid().chain_pem()).unwrap();
    fs::write(identity.join("svid.key"), eve.svid().key_pem()).unwrap();
    operator.refused(&with(&["status"], &place));
    operator.write("large.yaml", &format!("# {}\nrules: []\n", "x".repeat(9 << 20)));
    operator.refused(&["apply", "--yes", "-f", "large.yaml"]);
    // Each event says of what it is: whoever reads the log later sees that from nothing else.
    operator.refused(&["forget", "3f1c0d5ab2e4987610fedcba98765432"]);
    operator.refused(&["forget", "3f1c\u{1b}[2J"]);
    operator.refused(&["evict", "4711"]);
    operator.refused(&["explain", "4711"]);
    operator.told(&["explain", "-a", "k8s.pod=a"]);
    operator.told(&["get", "policy", "--revision", "1"]);
    operator.told(&["get", "agents", "--spiffe-id", "spiffe://example.org/people/ann"]);
    operator.refused(&["rollback", "4711", "--yes"]);
    let number =
        operator.json(&["get", "agents", "--spiffe-id", "spiffe://example.org/people/ann"])["agents"][0]["number"]
            .to_string();
    operator.told(&["evict", &number]);
    let log = operator.issuer.process.log();
    let events: Vec<Value> = log.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    let told = |actor: &str, action: &str, target: &str, outcome: &str| {
        let begins = |event: &Value, key: &str, text: &str| event[key].as_str().is_some_and(|it| it.starts_with(text));
        let is_it = |event: &Value| {
            begins(event, "actor", actor)
                && begins(event, "outcome", outcome)
                && event["action"] == action
                && event["target"] == target
        };
        assert!(events.iter().any(is_it), "{actor} {action} {target} {outcome} is not in {log}");
    };
    let (ann, eve) = ("spiffe://example.org/people/ann", "spiffe://example.org/eve");
    told(ann, "ApplyPolicy", "rules shop, revision 1", "done");
    told(ann, "ApplyPolicy (dry run)", "policy by files billing.yaml", "refused: rule `billing`");
    // She has a role: whoever gives such identities needs it for everything.
    told("uid:", "CreateJoinToken", "/people/ann", "done");
    told(ann, "CreateJoinToken", "/shop/cart", "done");
    told(ann, "CreateJoinToken", "/billing/pay", "refused: ");
    told(eve, "GetStatus", "unknown", "refused: ");
    told("uid:", "ApplyPolicy", "unknown", "refused: ");
    told("uid:", "ForgetIssuer", "issuer 3f1c0d5ab2e4987610fedcba98765432", "refused: ");
    told("uid:", "ForgetIssuer", "issuer 3f1c\\u{1b}[2J", "refused: ");
    told("uid:", "EvictAgents", "agent 4711", "refused: ");
    told("uid:", "EvictAgents", &format!("agent {number}, /people/ann"), "done");
    told("uid:", "ExplainPolicy", "agent 4711", "refused: ");
    told("uid:", "ExplainPolicy", "attributes k8s.pod=a", "done");
    told("uid:", "GetPolicy", "policy, revision 1", "done");
    told("uid:", "ListAgents", "agents of spiffe://example.org/people/ann", "done");
    told("uid:", "RollbackPolicy (dry run)", "policy back to revision 4711", "refused: ");
}

#[test]
fn users_of_this_machine_may_do_what_their_role_says() {
    const VIEWER: u32 = 4711;
    const SHOPKEEPER: u32 = 4712;
    const STRANGER: u32 = 4713;
    let folder = TempDir::new().unwrap();
    let roles = format!(
        "administration: [{{ role: viewer, users: [{VIEWER}] }}, {{ role: operator, scope: /shop, users: [{SHOPKEEPER}] }}]\n"
    );
    let issuer = Issuer::start_with(folder.path(), "example.org", secs(60), &roles);
    let operator = Operator { folder, issuer };
    let rule = |name: &str| {
        format!("rules: [{{ name: {name}, match: {{ k8s.pod: a }}, spiffe_id: 'spiffe://example.org/{name}/a' }}]")
    };
    operator.write("shop.yaml", &rule("shop"));
    operator.write("billing.yaml", &rule("billing"));

    assert!(operator.told_as(VIEWER, &["get", "rules", "-o", "json"]).contains("\"rules\": []"));
    operator.told_as(VIEWER, &["status"]);
    for words in [
        &["apply", "--yes", "-f", "shop.yaml"][..],
        &["token", "create", "spiffe://example.org/shop/cart"],
        &["ban", "spiffe://example.org/shop/cart"],
        &["forget", "3f1c0d5ab2e4987610fedcba98765432"],
    ] {
        let refused = operator.refused_as(VIEWER, words);
        assert!(refused.contains("uid:4711 is no "), "{words:?}: {refused}");
    }
    for words in [&["status"][..], &["get", "rules"], &["apply", "--yes", "-f", "shop.yaml"]] {
        let refused = operator.refused_as(STRANGER, words);
        assert!(refused.contains("uid:4713 has no role at this issuer"), "{words:?}: {refused}");
    }
    operator.told_as(SHOPKEEPER, &["apply", "--yes", "-f", "shop.yaml"]);
    let refused = operator.refused_as(SHOPKEEPER, &["apply", "--yes", "-f", "billing.yaml"]);
    assert!(refused.contains("of a part of the trust domain that is not yours"), "{refused}");
    assert!(operator.told_as(VIEWER, &["get", "policy"]).contains("spiffe://example.org/shop/a"));
    let revisions = operator.json(&["history"])["revisions"].clone();
    assert_eq!((revisions.as_array().unwrap().len(), &revisions[0]["actor"]), (1, &"uid:4712".into()));

    // Where nobody else has a role, nobody else comes to the socket.
    let private = Operator::new();
    let refused = private.refused_as(VIEWER, &["status"]);
    assert!(refused.contains("ermission denied"), "{refused}");
    assert!(!private.issuer.process.log().contains("uid:4711"));
}

/// `signet apply` or `rollback` with a person who has seen the plan and not answered yet.
fn asked(operator: &Operator, words: &[&str]) -> Asked {
    let mut command = Command::new(program::ours("signet"));
    command.args(words).current_dir(operator.folder.path()).env("SIGNET_ISSUER", &operator.issuer.socket);
    Asked::by(command, operator.folder.path().join("told"), "apply this? [y/N] ")
}

#[test]
fn whoever_is_asked_and_says_no_changes_nothing_and_a_yes_is_for_what_was_shown() {
    let operator = Operator::new();
    let revisions = || operator.json(&["history"])["revisions"].as_array().unwrap().len();
    operator.write("rules.yaml", RULES);
    for no in ["n", "", "yep", "no"] {
        let (code, told) = asked(&operator, &["apply", "-f", "rules.yaml"]).answer(no);
        assert!(told.contains("+ pods") && told.contains("2 to create"), "the plan comes first: {told}");
        assert!(code == Some(1) && told.contains("nothing was changed"), "{no}: {told}");
    }
    assert_eq!(revisions(), 0);
    let (code, told) = asked(&operator, &["apply", "-f", "rules.yaml"]).answer("y");
    assert!(code == Some(0) && told.ends_with("applied: the policy is at revision 1\n"), "{told}");

    // Somebody else is faster, with the same rule and with another one.
    operator.write("rules.yaml", &RULES.replace("ttl: 1h", "ttl: 2h"));
    let ours = asked(&operator, &["apply", "-f", "rules.yaml"]);
    operator.write("theirs.yaml", &RULES.replace("ttl: 1h", "ttl: 3h"));
    operator.told(&["apply", "--yes", "-f", "theirs.yaml"]);
    let (code, told) = ours.answer("y");
    assert_eq!(code, Some(1), "{told}");
    assert!(told.contains("the policy is at revision 2 by now, not 1: somebody else has changed it"), "{told}");
    assert!(told.contains("look at the difference and try again"), "{told}");
    assert!(revisions() == 2 && operator.told(&["get", "policy"]).contains("ttl: 3h"));

    // What a rollback goes back to would be another.
    let ours = asked(&operator, &["rollback"]);
    operator.told(&["apply", "--yes", "-f", "rules.yaml"]);
    let (code, told) = ours.answer("y");
    assert!(code == Some(1) && told.contains("at revision 3 by now, not 2"), "{told}");
    let (code, told) = asked(&operator, &["rollback"]).answer("yes");
    assert!(code == Some(0) && told.ends_with("applied: the policy is at revision 4\n"), "{told}");
    assert!(operator.told(&["get", "policy"]).contains("ttl: 3h"));
}
