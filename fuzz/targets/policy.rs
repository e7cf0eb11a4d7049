//! Policy files: whatever is read and compiled can be written, and comes back as it was; whatever it grants is of the trust domain.

#![no_main]

use std::path::Path;
use std::time::Duration;

use signet_policy::{Attributes, DEFAULT_PROFILE, Document, Policy, ProfileTerms, Surroundings, render};

libfuzzer_sys::fuzz_target!(|text: &str| {
    let mut document = Document::default();
    if document.add(Path::new("policy.yaml"), text).is_err() {
        return;
    }
    let written = render(&document.rules);
    let mut again = Document::default();
    again.add(Path::new("again.yaml"), &written).expect("what was written can be read");
    assert_eq!(document.rules, again.rules, "{written}");
    let trust_domain: signet_identity::TrustDomain = "example.org".parse().expect("a trust domain");
    let surroundings = Surroundings {
        trust_domain: trust_domain.clone(),
        protected: Vec::new(),
        profiles: [(DEFAULT_PROFILE, true), ("tls-server", false)]
            .map(|(name, is_identity)| ProfileTerms {
                name: name.to_owned(),
                max_ttl: Duration::from_secs(86_400),
                is_identity,
                has_common_name: !is_identity,
            })
            .to_vec(),
    };
    let Ok(policy) = Policy::compile(&document.rules, &surroundings) else { return };
    let value = text.chars().rev().take(16).collect::<String>();
    let names = ["k8s.cluster", "k8s.namespace", "k8s.service_account", "k8s.pod", "k8s.node"];
    let pairs = names.map(|name| (name.parse().expect("a known name"), value.clone()));
    let attributes = Attributes::new(pairs).expect("few and short");
    for grant in policy.decide(&attributes, time::OffsetDateTime::UNIX_EPOCH) {
        assert_eq!(*grant.id.trust_domain(), trust_domain);
        assert!(!grant.id.path().starts_with("/signet/") && grant.id.path() != "/signet");
    }
});
