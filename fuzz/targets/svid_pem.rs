//! The files of an SVID: one text that holds the chain and the key.
#![no_main]

use libfuzzer_sys::fuzz_target;
use signet_identity::X509Svid;

fuzz_target!(|data: &[u8]| {
    if let Ok(svid) = X509Svid::from_pem(data, data) {
        assert!(svid.not_before() <= svid.renew_at() && svid.renew_at() <= svid.not_after());
        assert!((1..=4).contains(&svid.chain().len()));
        assert!(!svid.id().path().is_empty());
    }
});
