//! CI jobs that prove who they are by an ID token: good once, for this issuer, in its time, and by the provider's key.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::fs;
use std::sync::Arc;

use serde_json::{Value, json};
use signet_identity::{SystemClock, TlsPolicies, TrustBundle};
use signet_sdk::{Credential, IssuerSource};
use signet_tests::tokens::{PROVIDER, TokenMaker, proof};
use signet_tests::{GatewayPlan, Issuer, Workload, secs};
use tempfile::TempDir;
use time::OffsetDateTime;
use tokio_util::sync::CancellationToken;
use tonic::{Code, Status};

const TRUST_DOMAIN: &str = "example.org";
const DEPLOY: &str = "spiffe://example.org/ci/deploy";

const RULES: &str = "rules:
  - name: deploy
    match: { oidc.provider: ci, oidc.claim.repository: acme/shop, oidc.claim.ref: refs/heads/main }
    spiffe_id: spiffe://example.org/ci/deploy
    ttl: 10m
";

struct Ci {
    issuer: Issuer,
    maker: TokenMaker,
    folder: TempDir,
}

impl Ci {
    fn new() -> Self {
        let folder = TempDir::new().unwrap();
        let maker = TokenMaker::at(folder.path());
        let issuer = Issuer::start_with(folder.path(), TRUST_DOMAIN, secs(3600), PROVIDER);
        issuer.apply(RULES);
        Self { issuer, maker, folder }
    }

    fn refused(&self, token: &str) -> Status {
        Workload::of(self.issuer.address).prove(|_| proof(token)).expect_err("a refusal")
    }

    fn refusals(&self, reason: &str) -> f64 {
        let labels = [("attestation", "oidc"), ("reason", reason)];
        self.issuer.admin.sum("signet_issuer_attestations_refused_total", &labels)
    }

    fn agents(&self) -> Vec<Value> {
        self.issuer.operate_json(&["get", "agents"])["agents"].as_array().unwrap().clone()
    }
}

/// What the provider writes of a job on the main branch.
fn main_branch() -> Value {
    json!({"repository": "acme/shop", "ref": "refs/heads/main"})
}

/// The same, but for these.
fn but(claims: Value) -> Value {
    let mut all = main_branch();
    all.as_object_mut().unwrap().extend(claims.as_object().unwrap().clone());
    all
}

#[test]
fn a_job_gets_its_identity_by_its_token_and_nobody_else_by_the_same() {
    let ci = Ci::new();
    let token = ci.maker.token("repo:acme/shop", main_branch());
    let file = ci.folder.path().join("token");
    fs::write(&file, &token).unwrap();
    let credential = format!("oidc: {{ provider: ci, token_file: {} }}", file.display());
    let mut gateway = GatewayPlan::new("job")
        .identity_by(ci.issuer.address, TRUST_DOMAIN, &ci.issuer.bundle, &credential)
        .inbound(&["spiffe://example.org/**"], "127.0.0.1:1")
        .start();
    let is_there =
        |agent: &Value| agent["spiffe_id"] == DEPLOY && agent["method"] == "oidc" && agent["connected"] == true;
    gateway.process.wait_until("connected", secs(10), |_| matches!(&ci.agents()[..], [agent] if is_there(agent)));
    let attributes = ci.agents()[0]["attributes"].clone();
    let repository = json!({"name": "oidc.claim.repository", "value": "acme/shop"});
    assert!(attributes.as_array().unwrap().contains(&repository), "{attributes}");

    let before = ci.issuer.records();
    for _ in 0..3 {
        let again = ci.refused(&token);
        assert_eq!(again.code(), Code::Unauthenticated);
        assert_eq!(again.message(), "oidc: the proof was used before, or has expired");
    }
    assert_eq!(ci.refusals("used"), 3.0);
    assert_eq!((ci.issuer.records(), ci.agents().len()), (before, 1));
}

#[test]
fn a_program_with_the_sdk_gets_what_the_policy_gives_its_job() {
    let ci = Ci::new();
    let token = ci.folder.path().join("token");
    fs::write(&token, ci.maker.token("repo:acme/shop", main_branch())).unwrap();
    let bundle = TrustBundle::from_pem(TRUST_DOMAIN.parse().unwrap(), &fs::read(&ci.issuer.bundle).unwrap()).unwrap();
    let credential = Credential::Oidc { provider: String::new(), token };
    let source = IssuerSource::new(&ci.issuer.address.to_string(), bundle, credential).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let starting = signet_sdk::start(source, TlsPolicies::new(Arc::new(SystemClock)), CancellationToken::new());
    let job = runtime.block_on(starting).unwrap();
    let snapshot = job.live.load();
    assert_eq!(snapshot.svid().id().as_str(), DEPLOY);
    assert_eq!((snapshot.svid().not_after() - snapshot.svid().not_before()).whole_seconds(), 600);
}

#[test]
fn a_token_that_is_no_good_is_refused_by_the_name_of_what_is_wrong_and_leaves_nothing() {
    let ci = Ci::new();
    let now = OffsetDateTime::now_utc().unix_timestamp();
    let stranger = TokenMaker::new("one");
    let of_another_name = TokenMaker::new("two");
    let signed = |claims| ci.maker.token("repo:acme/shop", but(claims));
    let before = ci.issuer.records();
    let denied = "spiffe_id: the policy (revision 1) has no rule for ";
    for (token, code, told, field, reason) in [
        (
            signed(json!({"aud": "somebody"})),
            Code::Unauthenticated,
            "oidc: its audience is somebody, not signet.example.org",
            "",
            "audience",
        ),
        (signed(json!({"aud": ["a", "b"]})), Code::Unauthenticated, "oidc: its audience is ", "", "audience"),
        (
            signed(json!({"iss": "https://other.example"})),
            Code::Unauthenticated,
            "oidc: its issuer is https://other.example, not https://ci.example",
            "",
            "issuer",
        ),
        (signed(json!({"exp": now - 1})), Code::Unauthenticated, "oidc: it expired at ", "(`exp`)", "expired"),
        (signed(json!({"exp": null})), Code::Unauthenticated, "oidc: its claim `exp` is missing", "", "malformed"),
        (
            signed(json!({"nbf": now + 300})),
            Code::Unauthenticated,
            "oidc: it is not valid before ",
            "(`nbf`)",
            "not_yet_valid",
        ),
        (
            signed(json!({"iat": now + 300})),
            Code::Unauthenticated,
            "oidc: it is not valid before ",
            "(`iat`)",
            "not_yet_valid",
        ),
        (
            stranger.token("repo:acme/shop", main_branch()),
            Code::Unauthenticated,
            "oidc: its signature is wrong",
            "",
            "signature",
        ),
        (
            of_another_name.token("repo:acme/shop", main_branch()),
            Code::Unauthenticated,
            "oidc: none of the issuer's keys is `two`",
            "",
            "unknown_key",
        ),
        ("no token".to_owned(), Code::Unauthenticated, "oidc: it is not a JSON Web Token", "", "malformed"),
        (
            signed(json!({"ref": "refs/pull/7/merge"})),
            Code::PermissionDenied,
            denied,
            "oidc.claim.ref=refs/pull/7/merge",
            "not_entitled",
        ),
    ] {
        let counted = ci.refusals(reason);
        let refused = ci.refused(&token);
        assert_eq!(refused.code(), code, "{}", refused.message());
        assert!(refused.message().starts_with(told) && refused.message().contains(field), "{}", refused.message());
        assert_eq!(ci.refusals(reason), counted + 1.0, "{reason}");
    }
    assert_eq!(ci.issuer.records(), before);
    assert!(ci.agents().is_empty());

    // Refused for what was wrong with them: the next one is right.
    let mut job = Workload::of(ci.issuer.address);
    assert_eq!(job.prove(|_| proof(&signed(json!({})))).unwrap().spiffe_id, DEPLOY);
    assert_eq!(ci.issuer.records(), before.map(|count| count + 1));
}
