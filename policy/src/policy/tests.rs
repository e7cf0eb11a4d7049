#![allow(clippy::unwrap_used, clippy::panic)]

use std::path::Path;

use proptest::prelude::*;

use super::*;
use crate::decision::Unrenderable;
use crate::document::{Document, render};

fn surroundings() -> Surroundings {
    Surroundings {
        trust_domain: "example.org".parse().unwrap(),
        protected: vec!["spiffe://example.org/ops/*".parse().unwrap()],
        profiles: [("workload", 1, true), ("device", 7, true), ("tls-server", 90, false)]
            .map(|(name, days, is_identity)| ProfileTerms {
                name: name.to_owned(),
                max_ttl: Duration::from_secs(days * 24 * 3600),
                is_identity,
                has_common_name: !is_identity,
            })
            .to_vec(),
    }
}

fn document(text: &str) -> Document {
    let mut document = Document::default();
    document.add(Path::new("policy.yaml"), text).unwrap();
    document
}

fn policy(text: &str) -> Policy {
    let document = document(text);
    Policy::compile(&document.rules, &surroundings())
        .unwrap_or_else(|error| panic!("{}", document.locate(&error).unwrap()))
}

/// What an operator is told.
fn refused(text: &str) -> String {
    let mut document = Document::default();
    if let Err(error) = document.add(Path::new("policy.yaml"), text) {
        return error.to_string();
    }
    let error = Policy::compile(&document.rules, &surroundings()).unwrap_err();
    document.locate(&error).unwrap().to_string()
}

fn caller(pairs: &[(&str, &str)]) -> Attributes {
    Attributes::new(pairs.iter().map(|(name, value)| (name.parse().unwrap(), (*value).to_owned()))).unwrap()
}

fn now() -> OffsetDateTime {
    OffsetDateTime::from_unix_timestamp(1_800_000_000).unwrap()
}

fn ids(policy: &Policy, caller: &Attributes) -> Vec<String> {
    policy.decide(caller, now()).into_iter().map(|grant| grant.id.to_string()).collect()
}

const PODS: &str = "
rules:
  - name: pods
    match:
      k8s.cluster: prod
      k8s.namespace: [shop, 'team-*']
    spiffe_id: spiffe://example.org/ns/{k8s.namespace}/sa/{k8s.service_account}
    dns_names: ['{k8s.service_account}.{k8s.namespace}.svc']
    ttl: 30m
    hint: internal
    federates_with: [partner.example]
";

const CART: &[(&str, &str)] =
    &[("k8s.cluster", "prod"), ("k8s.namespace", "shop"), ("k8s.service_account", "cart"), ("k8s.pod", "cart-1")];

#[test]
fn one_rule_gives_each_of_its_callers_a_name_of_his_own() {
    let policy = policy(PODS);
    let [grant] = &policy.decide(&caller(CART), now())[..] else { panic!("one grant") };
    assert_eq!(grant.id.to_string(), "spiffe://example.org/ns/shop/sa/cart");
    assert_eq!(grant.dns_names, ["cart.shop.svc"]);
    assert_eq!(grant.ttl, Some(Duration::from_secs(1800)));
    assert_eq!(grant.hint.as_deref(), Some("internal"));
    assert_eq!(grant.federates_with, ["partner.example".parse().unwrap()]);
    let team = [("k8s.cluster", "prod"), ("k8s.namespace", "team-a"), ("k8s.service_account", "web")];
    assert_eq!(ids(&policy, &caller(&team)), ["spiffe://example.org/ns/team-a/sa/web"]);
}

#[test]
fn whoever_lacks_one_attribute_is_told_which() {
    let policy = policy(PODS);
    let other = caller(&[("k8s.cluster", "test"), ("k8s.namespace", "shop"), ("k8s.service_account", "cart")]);
    assert!(policy.decide(&other, now()).is_empty());
    let [(_, outcome)] = &policy.explain(std::slice::from_ref(&other), now(), |_| true)[..] else { panic!("one rule") };
    let no_match = Outcome::NoMatch {
        attribute: "k8s.cluster".parse().unwrap(),
        wanted: vec!["prod".to_owned()],
        found: vec!["test".to_owned()],
    };
    assert_eq!(*outcome, no_match);
    assert!(policy.decide(&Attributes::default(), now()).is_empty());
}

#[test]
fn an_attribute_never_adds_a_segment_or_a_label() {
    let policy = policy(PODS);
    for hostile in ["../admin", "a/b", "/", "..", ".", "", "a%2fb", "a\0b", "é", "a b", "{k8s.pod}", "a\nb"] {
        let pairs = [("k8s.cluster", "prod"), ("k8s.namespace", "shop"), ("k8s.service_account", hostile)];
        let attributes = caller(&pairs);
        assert!(policy.decide(&attributes, now()).is_empty(), "{hostile:?}");
        let [(_, Outcome::Unrenderable(_))] = &policy.explain(std::slice::from_ref(&attributes), now(), |_| true)[..]
        else {
            panic!("{hostile:?}")
        };
    }
    // What a path takes, a DNS name need not.
    for hostile in ["A", "a.b", "a_b"] {
        let pairs = [("k8s.cluster", "prod"), ("k8s.namespace", "shop"), ("k8s.service_account", hostile)];
        let outcomes = policy.explain(&[caller(&pairs)], now(), |_| true);
        let [(_, Outcome::Unrenderable(Unrenderable::DnsName { .. }))] = &outcomes[..] else { panic!("{hostile:?}") };
    }
}

#[test]
fn a_dns_name_is_one_whatever_is_attested() {
    let text = "rules: [{name: r, match: {oidc.provider: ci}, spiffe_id: 'spiffe://example.org/ci/x', dns_names: ['{oidc.subject}.a']}]";
    let policy = policy(text);
    let names = |subject: &str| {
        let caller = caller(&[("oidc.provider", "ci"), ("oidc.subject", subject)]);
        policy.decide(&caller, now()).into_iter().flat_map(|grant| grant.dns_names).collect::<Vec<_>>()
    };
    assert_eq!(names(&"b".repeat(63)), [format!("{}.a", "b".repeat(63))]);
    for none in ["", "-b", "b-", "b.c", "B", "*", &"b".repeat(64)] {
        assert!(names(none).is_empty(), "{none}");
    }
}

#[test]
fn a_name_is_no_longer_than_it_may_be() {
    let labels = ["{oidc.subject}"; 5].join(".");
    let segments = ["{oidc.claim.a}"; 3].join("/");
    let text = format!(
        "rules: [{{name: r, match: {{oidc.provider: ci}}, spiffe_id: 'spiffe://example.org/x/{segments}', dns_names: ['{labels}']}}]"
    );
    let policy = policy(&text);
    let ids = |label: usize, segment: usize| {
        let (label, segment) = ("b".repeat(label), "b".repeat(segment));
        ids(&policy, &caller(&[("oidc.provider", "ci"), ("oidc.subject", &label), ("oidc.claim.a", &segment)]))
    };
    assert_eq!(ids(49, 600).len(), 1);
    assert!(ids(51, 600).is_empty(), "a DNS name of 259 bytes");
    assert!(ids(49, 700).is_empty(), "a SPIFFE ID of 2,125 bytes");
}

#[test]
fn a_part_of_a_segment_may_come_from_an_attribute_and_dots_may_not() {
    let text = "rules: [{name: r, match: {oidc.provider: ci}, spiffe_id: 'spiffe://example.org/ci/.{oidc.subject}'}]";
    let policy = policy(text);
    let subject = |value: &str| ids(&policy, &caller(&[("oidc.provider", "ci"), ("oidc.subject", value)]));
    assert_eq!(subject("x"), ["spiffe://example.org/ci/.x"]);
    assert!(subject(".").is_empty(), "it would be `..`");
}

#[test]
fn a_rule_ends_when_it_says() {
    let text = "rules: [{name: r, match: {oidc.provider: ci}, spiffe_id: 'spiffe://example.org/ci/x', expires: 2027-01-15T08:00:00Z}]";
    let policy = policy(text);
    let ci = caller(&[("oidc.provider", "ci")]);
    let end = OffsetDateTime::from_unix_timestamp(1_800_000_000).unwrap();
    assert_eq!(policy.decide(&ci, end - Duration::from_secs(1)).len(), 1);
    assert!(policy.decide(&ci, end).is_empty());
    assert!(matches!(policy.explain(std::slice::from_ref(&ci), end, |_| true)[0].1, Outcome::Expired { .. }));
}

#[test]
fn what_is_wrong_is_told_with_its_place_and_what_to_do() {
    let rule = |rest: &str| format!("rules:\n- name: r\n  match: {{k8s.namespace: shop}}\n{rest}");
    let id = "  spiffe_id: spiffe://example.org/ns/x\n";
    for (text, told) in [
        (
            "rules:\n- name: r\n  match: {k8s.namspace: shop}\n  spiffe_id: spiffe://example.org/a\n".to_owned(),
            "policy.yaml:3:25: match.k8s.namspace: no attestor proves an attribute `k8s.namspace`\ndid you mean `k8s.namespace`?",
        ),
        (
            rule("  spiffe_id: spiffe://example.org/{k8s.namespace}/x\n"),
            "policy.yaml:4:14: spiffe_id: its first path segment comes from an attribute, so that it could be anybody\n\
             begin it with a fixed segment, such as `spiffe://example.org/ns/`",
        ),
        (
            rule("  spiffe_id: spiffe://other.org/x\n"),
            "policy.yaml:4:14: spiffe_id: it is not an identity of this issuer's trust domain\nbegin it with `spiffe://example.org/`",
        ),
        (
            rule("  spiffe_id: spiffe://example.org/signet/issuer\n"),
            "policy.yaml:4:14: spiffe_id: what is below `/signet` is the issuer's own\nchoose another path",
        ),
        (
            rule("  spiffe_id: spiffe://example.org/ops/{k8s.pod}\n"),
            "policy.yaml:4:14: spiffe_id: it could give an administrator's identity, `spiffe://example.org/ops/*`\n\
             administrators are named in the issuer's configuration, and join with a token",
        ),
        (rule("  spiffe_id: spiffe://example.org/ns//x\n"), "policy.yaml:4:14: spiffe_id: an empty path segment"),
        (
            rule("  spiffe_id: spiffe://example.org/ns/../x\n"),
            "policy.yaml:4:14: spiffe_id: a path segment that is empty, `.` or `..`",
        ),
        (
            rule("  spiffe_id: spiffe://example.org/ns/{k8s.pod\n"),
            "policy.yaml:4:14: spiffe_id: a `{` without its `}`, or the other way round",
        ),
        (
            rule("  spiffe_id: spiffe://example.org/ns/{oidc.subject}\n"),
            "policy.yaml:4:14: spiffe_id: `oidc.subject` and `k8s.namespace` are proved by two attestors\n\
             a caller is attested by one: write a rule for each",
        ),
        (rule(&format!("{id}  ttl: 2d\n")), "policy.yaml:5:8: ttl: it is not between 10s and 1d"),
        (rule(&format!("{id}  ttl: 8d\n  profile: device\n")), "policy.yaml:5:8: ttl: it is not between 10s and 7d"),
        (
            rule(&format!("{id}  profile: gold\n")),
            "policy.yaml:5:12: profile: there is no profile `gold`\nknown profiles: workload, device, tls-server",
        ),
        (rule(&format!("{id}  dns_names: [a, B]\n")), "policy.yaml:5:18: dns_names[1]: 'B' may not be in a DNS label"),
        (
            rule(&format!("{id}  federates_with: [Partner]\n")),
            "policy.yaml:5:20: federates_with[0]: the trust domain contains 'P'; it may hold only a-z, 0-9, dot, dash and underscore",
        ),
        (
            rule(&format!("{id}  dns_names: [a-.b]\n")),
            "policy.yaml:5:15: dns_names[0]: a DNS label that is empty, longer than 63 bytes, or begins or ends with a dash",
        ),
        (
            rule(&format!("{id}  dns_names:\n{}", "  - a.b\n".repeat(33))),
            "policy.yaml:38:5: dns_names[32]: a rule gives 32 names at most",
        ),
        (
            rule(&format!("{id}  federates_with:\n{}", "  - a.example\n".repeat(16))),
            "policy.yaml:21:5: federates_with[15]: a rule federates with 15 trust domains at most",
        ),
        (rule(&format!("{id}  hint: \"a\\e[2J\"\n")), "policy.yaml:5:9: hint: it has a control character"),
        (
            rule(&format!("  spiffe_id: spiffe://example.org/{}\n  profile: tls-server\n", "a".repeat(53))),
            "policy.yaml:4:14: spiffe_id: it is too long for the profile `tls-server`\n\
             without `spiffe://`, make it 64 characters at most",
        ),
        (
            rule(&format!("{id}  hint: {}\n", "a".repeat(1025))),
            "policy.yaml:5:9: hint: it is empty or longer than 1024 bytes",
        ),
        (
            "rules:\n- name: r\n  match: {k8s.pod: []}\n  spiffe_id: spiffe://example.org/a\n".to_owned(),
            "policy.yaml:3:20: match.k8s.pod: it has no value, or more than 256",
        ),
        (
            format!("rules:\n- name: r\n  match: {{k8s.pod: [{}]}}\n  {}", ["a"; 257].join(", "), id.trim_start()),
            "policy.yaml:3:20: match.k8s.pod: it has no value, or more than 256",
        ),
        (
            "rules:\n- name: r\n  match: {}\n  spiffe_id: spiffe://example.org/a\n".to_owned(),
            "policy.yaml:2:9: rule `r`: it matches everybody\nsay in `match` whom it is for: at least one attribute",
        ),
        (
            "rules:\n- name: r\n  match: {k8s.pod: '*'}\n  spiffe_id: spiffe://example.org/a\n".to_owned(),
            "policy.yaml:3:20: match.k8s.pod: it matches everything; leave the attribute out",
        ),
        (
            format!("{}- name: r\n  match: {{k8s.pod: a}}\n{id}", rule(id)),
            "policy.yaml:5:9: there is another rule `r`: policy.yaml:2:9\ngive one of them another name",
        ),
    ] {
        assert_eq!(refused(&text), told, "{text}");
    }
    assert!(refused(&rule(&format!("{id}  tll: 1h\n"))).contains("unknown key `tll`"));
    policy(&rule(&format!("{id}  dns_names:\n{}", "  - a.b\n".repeat(32))));
    policy(&rule(&format!("  spiffe_id: spiffe://example.org/{}\n  profile: tls-server\n", "a".repeat(52))));
    policy(&rule(&format!("  spiffe_id: spiffe://example.org/{}\n  profile: device\n", "a".repeat(53))));
}

#[test]
fn one_name_may_be_given_once_for_each_use() {
    let rule = |name: &str, matches: &str, profile: &str| {
        format!(
            "- {{name: {name}, match: {{{matches}}}, spiffe_id: 'spiffe://example.org/shop/x', profile: {profile}}}\n"
        )
    };
    let together =
        |rules: &[String]| Policy::compile(&document(&format!("rules:\n{}", rules.concat())).rules, &surroundings());
    let (pod, svid) = ("k8s.pod: a", "svid.spiffe_id: 'spiffe://example.org/*'");
    together(&[rule("a", pod, "workload"), rule("b", pod, "tls-server")]).unwrap();
    together(&[rule("a", pod, "workload"), rule("b", "x509.authority: a", "workload")]).unwrap();
    together(&[rule("a", pod, "tls-server"), rule("b", svid, "device")]).unwrap();
    for refused in [
        // Of the two identities, which is renewed?
        [rule("a", pod, "workload"), rule("b", pod, "device")],
        [rule("a", pod, "tls-server"), rule("b", pod, "tls-server")],
        // Whoever was attested as that pod may have that SVID too.
        [rule("a", pod, "tls-server"), rule("b", svid, "tls-server")],
        [rule("a", svid, "workload"), rule("b", pod, "workload")],
    ] {
        let error = together(&refused).unwrap_err();
        assert!(error.what.contains("could get the same identity"), "{error}");
    }
}

#[test]
fn two_rules_that_could_give_a_caller_one_identity_are_refused() {
    let two = |one: &str, two: &str| format!("rules:\n- {{name: one, {one}}}\n- {{name: two, {two}}}\n");
    let id = "spiffe_id: 'spiffe://example.org/ns/{k8s.namespace}'";
    for (one, other) in [
        (format!("match: {{k8s.cluster: a}}, {id}"), format!("match: {{k8s.node: b}}, {id}")),
        (format!("match: {{k8s.cluster: a}}, {id}"), format!("match: {{k8s.cluster: [a, b]}}, {id}")),
        (format!("match: {{k8s.cluster: 'a*'}}, {id}"), format!("match: {{k8s.cluster: '*b'}}, {id}")),
        (
            format!("match: {{k8s.pod: a}}, {id}"),
            "match: {k8s.pod: a}, spiffe_id: 'spiffe://example.org/ns/shop'".into(),
        ),
        (
            "match: {x509.dns: a}, spiffe_id: 'spiffe://example.org/ns/{x509.serial}'".into(),
            "match: {x509.dns: b}, spiffe_id: 'spiffe://example.org/ns/{x509.serial}'".into(),
        ),
    ] {
        let told = refused(&two(&one, &other));
        assert!(told.contains("a caller could get the same identity by rule `one`"), "{told}");
    }
    for (one, other) in [
        (format!("match: {{k8s.cluster: a}}, {id}"), format!("match: {{k8s.cluster: b}}, {id}")),
        (format!("match: {{k8s.cluster: 'a*'}}, {id}"), format!("match: {{k8s.cluster: 'b*'}}, {id}")),
        (format!("match: {{k8s.pod: a}}, {id}"), "match: {k8s.pod: a}, spiffe_id: 'spiffe://example.org/pod/x'".into()),
        (
            format!("match: {{k8s.pod: a}}, {id}"),
            "match: {oidc.provider: a}, spiffe_id: 'spiffe://example.org/ns/{oidc.subject}'".into(),
        ),
    ] {
        policy(&two(&one, &other));
    }
}

#[test]
fn the_example_is_good_and_gives_what_it_says() {
    let policy = policy(include_str!("../../../deploy/examples/policy.yaml"));
    let pod = [("k8s.cluster", "production"), ("k8s.namespace", "team-a"), ("k8s.service_account", "web")];
    assert_eq!(ids(&policy, &caller(&pod)), ["spiffe://example.org/ns/team-a/sa/web"]);
    let job =
        [("oidc.provider", "ci"), ("oidc.claim.repository", "example/shop"), ("oidc.claim.ref", "refs/heads/main")];
    assert_eq!(ids(&policy, &caller(&job)), ["spiffe://example.org/ci/shop-deploy"]);
    assert!(ids(&policy, &caller(&job[..2])).is_empty());
    let machine = [("x509.authority", "datacenter-1"), ("x509.common_name", "rack4-07")];
    assert_eq!(ids(&policy, &caller(&machine)), ["spiffe://example.org/machine/rack4-07"]);
    let sensor = [("x509.authority", "acme-devices"), ("x509.common_name", "sensor-7"), ("x509.serial", "0a17")];
    let [grant] = &policy.decide(&caller(&sensor), now())[..] else { panic!("one grant") };
    assert_eq!((grant.id.path(), grant.profile.as_deref()), ("/device/acme/0a17", Some("device")));
}

#[test]
fn a_name_stands_for_one_rule_wherever_the_rules_come_from() {
    let rule = document("rules: [{name: r, match: {k8s.pod: a}, spiffe_id: 'spiffe://example.org/a'}]").rules.remove(0);
    let other = Rule { spiffe_id: "spiffe://example.org/b".to_owned(), ..rule.clone() };
    let error = Policy::compile(&[rule, other], &surroundings()).unwrap_err();
    assert_eq!(error.to_string(), "rule `r`: there is another of this name");
}

#[test]
fn rules_are_written_as_they_are_read() {
    let rules = document(PODS).rules;
    let text = render(&rules);
    assert_eq!(document(&text).rules, rules, "{text}");
    assert!(text.contains("ttl: 30m"), "{text}");
    let json = serde_json::to_string(&rules).unwrap();
    assert_eq!(serde_json::from_str::<Vec<Rule>>(&json).unwrap(), rules, "{json}");
}

#[test]
fn many_rules_are_not_looked_at_one_by_one() {
    let rules: Vec<String> = (0..2_000)
        .map(|number| {
            format!(
                "- {{name: r{number}, match: {{k8s.cluster: prod, k8s.namespace: ns{number}}}, \
                 spiffe_id: 'spiffe://example.org/ns{number}/sa/{{k8s.service_account}}'}}\n"
            )
        })
        .collect();
    let policy = policy(&format!("rules:\n{}", rules.concat()));
    let pod = caller(&[("k8s.cluster", "prod"), ("k8s.namespace", "ns77"), ("k8s.service_account", "a")]);
    assert_eq!(policy.index.candidates(&pod), [77]);
    assert_eq!(ids(&policy, &pod), ["spiffe://example.org/ns77/sa/a"]);
    assert_eq!(policy.rules_for("/ns77/sa/zzz").map(RuleName::as_str).collect::<Vec<_>>(), ["r77"]);
}

#[test]
fn rules_that_would_take_for_ever_to_compare_are_refused() {
    let patterns: Vec<String> = (0..256).map(|number| format!("'a{number}-*-z'")).collect();
    let rules: Vec<String> = (0..100)
        .map(|rule| {
            let patterns: Vec<_> = patterns.iter().map(|pattern| pattern.replace("-z", &format!("-{rule}z"))).collect();
            let matches = format!("k8s.pod: [{}]", patterns.join(", "));
            format!("- {{name: r{rule}, match: {{{matches}}}, spiffe_id: 'spiffe://example.org/p/{{k8s.pod}}'}}\n")
        })
        .collect();
    let error = refused(&format!("rules:\n{}", rules.concat()));
    assert!(error.contains("too many rules that no value of an attribute tells"), "{error}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// What the comparison leaves out does not collide.
    #[test]
    fn rules_are_refused_as_if_each_was_compared_with_each(
        values in prop::collection::vec((0..5_u8, 0..5_u8, 0..3_u8), 1..7),
    ) {
        let rules: Vec<String> = values.iter().enumerate().map(|(number, (cluster, node, shape))| {
            let cluster = match cluster { 4 => "'c*'".to_owned(), one => format!("[c{one}, c{}]", (one + 1) % 4) };
            let node = match node { 4 => String::new(), one => format!(", k8s.node: n{one}") };
            let path = ["ns/{k8s.namespace}", "ns/shop", "pod/{k8s.pod}"][usize::from(*shape)];
            format!("- {{name: r{number}, match: {{k8s.cluster: {cluster}{node}}}, spiffe_id: 'spiffe://example.org/{path}'}}\n")
        }).collect();
        let together = |rules: &[&String]| {
            let text: String = rules.iter().map(|rule| rule.as_str()).collect();
            Policy::compile(&document(&format!("rules:\n{text}")).rules, &surroundings()).is_ok()
        };
        let pairs = (0..rules.len()).flat_map(|one| (0..one).map(move |two| (two, one)));
        let each_with_each = pairs.into_iter().all(|(two, one)| together(&[&rules[two], &rules[one]]));
        prop_assert_eq!(together(&rules.iter().collect::<Vec<_>>()), each_with_each);
    }
}

proptest! {
    /// What is not looked at does not match.
    #[test]
    fn a_decision_is_what_all_rules_together_say(
        patterns in prop::collection::vec(("[ab*é]{1,3}", "[ab*]{1,3}", any::<bool>()), 1..12),
        namespace in "[abé]{0,4}",
        pod in "[ab]{0,4}",
    ) {
        let is_good = |pattern: &str| pattern.parse::<Pattern>().is_ok();
        let rules: String = patterns.iter().filter(|(one, two, _)| is_good(one) && is_good(two)).enumerate().map(
            |(number, (one, two, both))| {
                let second = if *both { format!(", k8s.pod: ['{two}', c]") } else { String::new() };
                format!("- {{name: r{number}, match: {{k8s.namespace: '{one}'{second}}}, spiffe_id: 'spiffe://example.org/r{number}'}}\n")
            },
        ).collect();
        prop_assume!(!rules.is_empty());
        let policy = policy(&format!("rules:\n{rules}"));
        let caller = caller(&[("k8s.namespace", &namespace), ("k8s.pod", &pod)]);
        let decided: Vec<_> = policy.decide(&caller, now()).into_iter().map(|grant| grant.rule).collect();
        let all = policy.explain(std::slice::from_ref(&caller), now(), |_| true).into_iter();
        let granted: Vec<_> = all.filter_map(|(_, outcome)| outcome.granted()).map(|grant| grant.rule).collect();
        prop_assert_eq!(decided, granted);
    }
}

proptest! {
    /// Whatever is attested, what comes out is an identity of the trust domain, with the template's number of segments and
    /// its fixed ones, and never one of Signet's own.
    #[test]
    fn nothing_attested_leads_out_of_a_template(account in "\\PC{0,12}", namespace in "[a-z./{}*-]{0,8}") {
        let policy = policy(
            "rules: [{name: r, match: {k8s.cluster: c}, \
             spiffe_id: 'spiffe://example.org/ns/{k8s.namespace}/sa-{k8s.service_account}/x'}]",
        );
        let pairs = [("k8s.cluster", "c"), ("k8s.namespace", &namespace), ("k8s.service_account", &account)];
        for grant in policy.decide(&caller(&pairs), now()) {
            let segments: Vec<&str> = grant.id.path().split('/').collect();
            let expected = ["", "ns", &namespace, &format!("sa-{account}"), "x"];
            prop_assert_eq!(segments, expected);
        }
    }

    /// The index leaves out no rule that would hold.
    #[test]
    fn the_index_finds_all_that_hold(values in prop::collection::vec((0..4_u8, 0..4_u8, any::<bool>()), 1..12), cluster in 0..4_u8, pod in 0..4_u8) {
        let rules: Vec<String> = values.iter().enumerate().map(|(number, (cluster, pod, is_pattern))| {
            let star = if *is_pattern { "*" } else { "" };
            format!("- {{name: r{number}, match: {{k8s.cluster: 'c{cluster}{star}', k8s.pod: [p{pod}, p9]}}, spiffe_id: 'spiffe://example.org/r{number}'}}\n")
        }).collect();
        let policy = policy(&format!("rules:\n{}", rules.concat()));
        let caller = caller(&[("k8s.cluster", &format!("c{cluster}")), ("k8s.pod", &format!("p{pod}"))]);
        let all = policy.explain(std::slice::from_ref(&caller), now(), |_| true).into_iter().filter_map(|(_, outcome)| outcome.granted());
        prop_assert_eq!(policy.decide(&caller, now()), all.collect::<Vec<_>>());
    }

    #[test]
    fn no_text_is_more_than_refused(text in "\\PC{0,200}") {
        let mut document = Document::default();
        if document.add(Path::new("p"), &text).is_ok() {
            let _ = Policy::compile(&document.rules, &surroundings());
        }
    }
}
