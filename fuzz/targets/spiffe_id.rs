//! IDs and patterns: what parses is spelled in the one way there is.
#![no_main]

use libfuzzer_sys::fuzz_target;
use signet_identity::{SpiffeId, SpiffeIdPattern, SpiffeIdPatterns, TrustDomain, WorkloadId};

fuzz_target!(|text: &str| {
    if let Ok(id) = text.parse::<SpiffeId>() {
        assert_eq!(id.to_string(), text);
        assert_eq!(format!("{}{}", id.trust_domain().id(), id.path()), text);
        assert_eq!(text.parse::<WorkloadId>().is_ok(), !id.path().is_empty());
    }
    if let Ok(id) = text.parse::<WorkloadId>() {
        assert!(SpiffeIdPatterns::from(&id).matches(&id));
        // An ID that is read as a pattern stands for itself.
        assert_eq!(text.parse::<SpiffeIdPattern>().unwrap(), SpiffeIdPattern::from(&id));
    }
    if let Ok(pattern) = text.parse::<SpiffeIdPattern>() {
        assert_eq!(pattern.to_string(), text);
    }
    if let Ok(trust_domain) = text.parse::<TrustDomain>() {
        assert_eq!(trust_domain.as_str(), text);
        assert_eq!(trust_domain.id().trust_domain(), &trust_domain);
    }
});
