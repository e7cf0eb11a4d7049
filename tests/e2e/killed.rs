//! An issuer that is killed at any moment of taking something back: a taint, the revocation of an authority or of a key of tokens, a
//! rotation of the root. The record is a file, or in a PostgreSQL that outlives it.
//!
//! Each command is given until it is known to be done, and the issuer is killed at a random moment after each time. What an operator has been
//! told is done stays done; what was not heard is not done by half.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeMap;
use std::path::Path;
use std::thread;
use std::time::Instant;

use signet_test_postgres::Server;
use signet_tests::openssl::openssl;
use signet_tests::wait::until;
use signet_tests::workload::Svid;
use signet_tests::{Curl, Issuer, SoftHsm, Workload, millis, secs};
use tempfile::TempDir;

/// With those of `authorities.rs` and `revoking.rs`, more than a hundred.
const KILLS: usize = 66;
/// Of these, in rotations of the root.
const OF_ROOTS: usize = 25;
/// Another one for another run.
const SEED: u64 = 0x5369_676e_6574;
const STAGES: [&str; 6] = ["requested", "prepared", "active", "retired", "tainted", "revoked"];

struct Bench {
    folder: TempDir,
    issuer: Issuer,
    random: u64,
    kills: usize,
    /// By authorities, in their order, how far each has come.
    reached: Vec<usize>,
    /// What nobody may be let in with any more.
    revoked: Vec<Svid>,
    /// By keys of tokens, how far each has come.
    of_tokens: BTreeMap<String, usize>,
    /// Where the record is kept there, and not in a file.
    postgres: Option<(Server, String)>,
}

impl Bench {
    fn on_postgres() -> Self {
        let server = Server::start(true);
        let url = server.database();
        let bench = Self::new(&format!("database: {{ url: \"{url}\" }}\n"));
        Self { postgres: Some((server, url)), ..bench }
    }

    fn new(more: &str) -> Self {
        let folder = TempDir::new().unwrap();
        let generous = format!("limits: {{ renewals_per_minute: 60000 }}\n{more}");
        // Keys in a token are found at once, where each sealed one takes its time to be opened at a start.
        let hsm = SoftHsm::new(folder.path(), "issuing");
        let issuer = Issuer::start_in_token(folder.path(), "example.org", secs(3600), &generous, &hsm);
        println!("seed {SEED:#x}");
        let (reached, revoked, of_tokens) = (Vec::new(), Vec::new(), BTreeMap::new());
        Self { folder, issuer, random: SEED, kills: 0, reached, revoked, of_tokens, postgres: None }
    }

    fn below(&mut self, end: u64) -> u64 {
        self.random = self.random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.random >> 33) % end
    }

    fn join(&self, name: &str) -> Workload {
        let mut workload = Workload::of(self.issuer.address);
        workload.attest(&self.issuer.join_token(&format!("spiffe://example.org/{name}"))).unwrap();
        workload
    }

    /// Gives a command, and kills the issuer less than so many milliseconds later. Whether the command was told that it is done.
    fn kill_within(&mut self, span: u64, words: &[&str]) -> bool {
        let after = millis(self.below(span));
        let is_done = thread::scope(|scope| {
            let (issuer, folder) = (&self.issuer, self.folder.path());
            let told = scope.spawn(move || words.is_empty() || issuer.signet_in(folder, words).status.success());
            thread::sleep(after);
            issuer.process.signal(signet_tests::Signal::Kill);
            told.join().unwrap()
        });
        self.issuer.process.kill();
        self.issuer.process.start_again();
        self.issuer.wait_until_ready();
        self.kills += 1;
        self.check();
        is_done
    }

    /// What holds whenever the issuer was killed.
    fn check(&mut self) {
        let (keys, stages): (Vec<_>, Vec<_>) = self.issuer.authorities().into_iter().unzip();
        let now: Vec<_> = stages.iter().map(|stage| STAGES.iter().position(|known| known == stage).unwrap()).collect();
        assert_eq!(stages.iter().filter(|stage| *stage == "active").count(), 1, "{stages:?}");
        assert!(now.len() >= self.reached.len(), "an authority is gone: {stages:?}");
        for (position, reached) in self.reached.iter().enumerate() {
            assert!(now[position] >= *reached, "authority {position} was {} before: {stages:?}", STAGES[*reached]);
        }
        // What is kept beside the database follows what is in it, and is never ahead.
        let on_record = self.revoked_authorities();
        for (key, stage) in keys.iter().zip(&stages) {
            assert!(stage != "revoked" || on_record.contains(key), "{key}: {stages:?}, on record {on_record:?}");
        }
        let is_written_down = |stages: &[String]| {
            keys.iter().zip(stages).all(|(key, stage)| !on_record.contains(key) || stage == "revoked")
        };
        if !is_written_down(&stages) {
            until("what is on record is written down", secs(10), || is_written_down(&self.issuer.stages()));
        }
        self.reached = now;
        let epochs = self.query("SELECT count(*) || ' ' || (SELECT epoch FROM revocation_epoch) FROM revoked");
        let (count, epoch) = epochs[0].split_once(' ').unwrap();
        assert_eq!(count, epoch, "a gap, or half of one");
        for svid in &self.revoked {
            assert!(!self.is_accepted(svid), "{} is revoked", svid.spiffe_id);
        }
        self.check_bundle();
    }

    /// Who comes now gets a certificate that is good by the roots that are published now.
    fn check_bundle(&self) {
        let text = Curl::get(format!("http://{}/bundle.json", self.issuer.web)).run().expect_status(200).text();
        let bundle: serde_json::Value = serde_json::from_str(&text).unwrap();
        let keys = bundle["keys"].as_array().unwrap().iter();
        let pem = |der: &str| format!("-----BEGIN CERTIFICATE-----\n{der}\n-----END CERTIFICATE-----\n");
        let roots: Vec<_> = keys.filter_map(|key| key["x5c"][0].as_str()).map(pem).collect();
        assert!((1..=2).contains(&roots.len()), "{text}");
        let at = |name: &str| self.folder.path().join(name);
        std::fs::write(at("roots.pem"), roots.concat()).unwrap();
        std::fs::write(at("new.pem"), self.join("new").svid().chain_pem()).unwrap();
        let (roots, new) = (at("roots.pem"), at("new.pem"));
        let [roots, new] = [&roots, &new].map(|path| path.to_str().unwrap());
        let (is_good, told) = openssl(&["verify", "-x509_strict", "-CAfile", roots, "-untrusted", new, new]);
        assert!(is_good, "{told}: {text}");
    }

    fn query(&self, sql: &str) -> Vec<String> {
        match &self.postgres {
            Some((server, url)) => server.query(url, sql),
            None => self.issuer.query(sql),
        }
    }

    fn revoked_authorities(&self) -> Vec<String> {
        let key =
            if self.postgres.is_some() { "encode(authority_key_id, 'hex')" } else { "lower(hex(authority_key_id))" };
        self.query(&format!("SELECT {key} FROM revoked WHERE kind = 2"))
    }

    fn is_accepted(&self, svid: &Svid) -> bool {
        Workload::of(self.issuer.address).renew_as(Some(svid)).is_ok()
    }

    fn stage(&self, position: usize) -> String {
        self.issuer.stages()[position].clone()
    }

    /// So many authorities that have signed for somebody each, and whom; another one signs now.
    fn one_after_the_other(&mut self, count: usize) -> (Vec<String>, Vec<Svid>) {
        self.issuer.hold_ceremony(&self.issuer.root, u32::try_from(count).unwrap());
        let mut holders = Vec::new();
        for number in 0..count {
            holders.push(self.join(&format!("of/{number}")).svid().clone());
            self.issuer.operate(&["rotate", "authority", "--apply", "--yes", "--override"]);
        }
        self.check();
        (self.issuer.authority_keys(), holders)
    }

    /// Taints and revokes an authority that has retired, with a kill after each time that a command is given.
    fn take_back(&mut self, position: usize, key: &str, holder: Svid) {
        let mut spans = spans();
        while self.stage(position) == "retired" {
            let is_done = self.kill_within(spans.next().expect("it is done at last"), &["taint", key]);
            assert!(!is_done || self.stage(position) == "tainted", "{key} was told to be tainted");
        }
        assert!(self.is_accepted(&holder), "a taint refuses nobody");
        let revoke = ["revoke", "authority", key, "--reason", "ca-compromise", "--yes", "--force", "--no-wait"];
        let mut spans = self::spans();
        while self.stage(position) == "tainted" {
            if !self.is_accepted(&holder) {
                // A database may have carried out what it was asked by one that is no more.
                until("it is written down as revoked", secs(10), || self.stage(position) == "revoked");
                break;
            }
            let is_done = self.kill_within(spans.next().expect("it is done at last"), &revoke);
            assert!(!is_done || self.stage(position) == "revoked", "{key} was told to be revoked");
        }
        self.revoked.push(holder);
    }

    /// The keys of tokens, each with its stage.
    fn keys_of_tokens(&self) -> BTreeMap<String, String> {
        let told = self.issuer.operate_json(&["get", "jwt-keys"]);
        let text = |key: &serde_json::Value, what: &str| key[what].as_str().unwrap().to_owned();
        told["keys"].as_array().unwrap().iter().map(|key| (text(key, "kid"), text(key, "stage"))).collect()
    }

    fn active_of_tokens(&self) -> String {
        let keys = self.keys_of_tokens();
        keys.into_iter().find(|(_, stage)| stage == "active").expect("one that signs").0
    }

    /// Gives a command about a key of tokens until it has come that far, with a kill after each time.
    fn kill_until(&mut self, key: &str, stage: &str, words: &[&str]) {
        let mut spans = spans();
        while self.keys_of_tokens()[key] != stage {
            let is_done = self.kill_within(spans.next().expect("it is done at last"), words);
            self.check_keys_of_tokens();
            assert!(!is_done || self.keys_of_tokens()[key] == stage, "{words:?} was told to be done");
        }
    }

    /// What holds of them whenever the issuer was killed.
    fn check_keys_of_tokens(&mut self) {
        let now = self.keys_of_tokens();
        assert_eq!(now.values().filter(|stage| *stage == "active").count(), 1, "{now:?}");
        for (key, stage) in &now {
            let reached = STAGES.iter().position(|known| known == stage).unwrap();
            let before = self.of_tokens.insert(key.clone(), reached).unwrap_or_default();
            assert!(reached >= before, "{key} was {} before: {now:?}", STAGES[before]);
        }
        let is_gone = |key: &&String| !now.contains_key(*key);
        assert_eq!(self.of_tokens.keys().find(is_gone), None, "one is forgotten: {now:?}");
        let published = Curl::get(format!("http://{}/bundle.json", self.issuer.web)).run().expect_status(200).text();
        for (key, stage) in &now {
            assert_eq!(published.contains(key.as_str()), stage != "revoked", "{key}: {now:?}, {published}");
        }
    }
}

#[test]
fn an_issuer_that_is_killed_at_any_moment_of_changing_keys_of_tokens_has_done_it_or_not() {
    const KEYS: usize = 4;
    let began = Instant::now();
    let mut bench = Bench::new("jwt: { issuer: 'https://tokens.example.org', publish_ahead: 0s }\n");
    bench.check_keys_of_tokens();
    let by = ["--reason", "key-compromise", "--yes", "--no-wait"];
    for round in 0..KEYS {
        let key = bench.active_of_tokens();
        if round % 2 == 0 {
            // Whether it was heard or not, and after the restart those who were connected are given time to come back.
            for _ in 0..3 {
                bench.kill_within(200, &["rotate", "jwt-key", "--apply", "--yes"]);
                bench.check_keys_of_tokens();
            }
            let rotate = ["rotate", "jwt-key", "--apply", "--yes"];
            drop(bench.issuer.signet_in(bench.folder.path(), &rotate));
            until("the next one signs", secs(60), || bench.active_of_tokens() != key);
        }
        bench.kill_until(&key, "tainted", &["taint", &key]);
        bench.kill_until(&key, "revoked", &[&["revoke", "jwt-key", &key], &by[..]].concat());
    }
    println!("{} kills after {:?}", bench.kills, began.elapsed());
    assert!(bench.kills >= 3 * KEYS, "{}", bench.kills);
}

#[test]
fn an_issuer_on_postgresql_that_is_killed_at_any_moment_of_changing_or_taking_back_has_done_it_or_not() {
    const AUTHORITIES: usize = 3;
    let began = Instant::now();
    let mut bench = Bench::on_postgres();
    let (keys, holders) = bench.one_after_the_other(AUTHORITIES);
    drop(bench.query(SLOW));
    for (position, (key, holder)) in keys.iter().zip(holders).enumerate() {
        bench.take_back(position, key, holder);
    }

    bench.issuer.hold_ceremony(&bench.issuer.root, 1);
    let next = bench.issuer.authority_keys().len() - 1;
    let mut spans = spans();
    while bench.stage(next) == "prepared" && !bench.issuer.is_rotating() {
        let rotate = ["rotate", "authority", "--apply", "--yes", "--override", "--no-wait"];
        let is_done = bench.kill_within(spans.next().expect("it is done at last"), &rotate);
        assert!(!is_done || bench.stage(next) == "active" || bench.issuer.is_rotating(), "it was told to begin");
    }
    until("the next one signs", secs(40), || !bench.issuer.is_rotating());
    assert_eq!(bench.stage(next), "active");
    rotate_root(&mut bench, 0);
    println!("{} kills after {:?}", bench.kills, began.elapsed());
    assert!(bench.kills >= 2 * AUTHORITIES + 5, "{}", bench.kills);
}

#[test]
fn an_issuer_that_is_killed_at_any_moment_of_taking_something_back_has_done_it_or_not() {
    const AUTHORITIES: usize = 8;
    let began = Instant::now();
    let mut bench = Bench::new("");
    let (keys, holders) = bench.one_after_the_other(AUTHORITIES);
    println!("prepared after {:?}", began.elapsed());

    for (position, (key, holder)) in keys.iter().zip(holders).enumerate() {
        bench.take_back(position, key, holder);
    }
    println!("{} kills after {:?}", bench.kills, began.elapsed());

    let (before_roots, mut rotations) = (bench.kills, 0);
    // What hangs on a root that is trusted no more is refused for that.
    bench.revoked.clear();
    while bench.kills < KILLS || bench.kills < before_roots + OF_ROOTS {
        rotate_root(&mut bench, rotations);
        rotations += 1;
    }
    println!("{} kills, {rotations} rotations of the root, after {:?}", bench.kills, began.elapsed());
    assert_eq!(bench.issuer.query("PRAGMA integrity_check"), ["ok"]);
}

/// Over several kills, until the root before is trusted no more.
fn rotate_root(bench: &mut Bench, number: usize) {
    let bad = bench.join(&format!("bad/{number}"));
    bench.issuer.operate(&["revoke", "id", &bad.svid().spiffe_id, "--reason", "key-compromise", "--yes", "--no-wait"]);
    bench.revoked.push(bad.svid().clone());
    let next = bench.issuer.make_root(&format!("next-{number}"));
    let certificate = next.join("root.pem");
    let rotate = ["rotate", "root", "--root", text(&certificate), "--apply", "--yes", "--override", "--no-wait"];
    while !bench.issuer.is_rotating() {
        let is_done = bench.kill_within(120, &rotate);
        assert!(!is_done || bench.issuer.is_rotating(), "it was told to begin");
    }
    let is_requested = |bench: &Bench| bench.issuer.stages().contains(&"requested".to_owned());
    bench.kill_within(400, &[]);
    until("a request", secs(10), || is_requested(bench));
    let signed = bench.issuer.have_signed(&next, 1);
    while is_requested(bench) {
        let is_done = bench.kill_within(400, &["ca", "import", text(&signed)]);
        assert!(!is_done || !is_requested(bench), "it was told to be taken");
    }
    while bench.issuer.is_rotating() {
        bench.kill_within(700, &[]);
    }
    let roots = Curl::get(format!("http://{}/bundle.json", bench.issuer.web)).run().text().matches("\"x5c\"").count();
    assert_eq!(roots, 1, "only the next root is trusted");
    assert_eq!(bench.stage(bench.reached.len() - 1), "active");
    bench.revoked.clear();
}

/// Each commit of a revocation takes a second: whoever is killed meanwhile does not know what becomes of it.
const SLOW: &str = "
    CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM pg_sleep(1); RETURN NULL; END';
    CREATE CONSTRAINT TRIGGER slow AFTER INSERT ON revoked DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION slow();
";

/// In milliseconds, how long one command after the other has at most: where all is slow, nothing is done in the first of them.
fn spans() -> impl Iterator<Item = u64> {
    (1..=40).map(|attempt| 60 * attempt)
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}
