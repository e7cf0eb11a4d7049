//! Bundles in PEM, and in DER.
#![no_main]

use libfuzzer_sys::fuzz_target;
use signet_identity::TrustBundle;

fuzz_target!(|data: &[u8]| {
    let trust_domain = || "example.org".parse().unwrap();
    for bundle in
        [TrustBundle::from_pem(trust_domain(), data), TrustBundle::new(trust_domain(), vec![data.to_vec().into()])]
            .into_iter()
            .flatten()
    {
        assert_eq!(bundle.is_empty(), bundle.expires_at().is_none());
        let again = TrustBundle::from_pem(trust_domain(), bundle.to_pem().as_bytes()).unwrap();
        assert_eq!(again, bundle);
    }
});
