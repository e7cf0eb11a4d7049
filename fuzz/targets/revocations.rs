//! Statements of what is revoked, as they come from an issuer: a statement, its signature and the signer's chain, each preceded
//! by its length in two bytes.
//!
//! The root that is trusted, and what is below it, have signed nothing but the seed, so whatever else is believed is a forgery.
#![no_main]

use std::{env, fs, path::PathBuf, sync::LazyLock};

use libfuzzer_sys::fuzz_target;
use rustls_pki_types::CertificateDer;
use signet_identity::{
    BundleSet, RevocationSet, RevocationStatement, Serial, SignedRevocations, TrustBundle, TrustDomain,
    VerifiedRevocations,
};
use time::OffsetDateTime;

struct Relying {
    trust_domain: TrustDomain,
    bundles: BundleSet,
    signed: Vec<u8>,
}

static RELYING: LazyLock<Relying> = LazyLock::new(|| {
    let folder = PathBuf::from(env::var_os("SIGNET_FUZZ_PKI").expect("fuzz/run sets the folder of the seeds' PKI"));
    let read = |name: &str| fs::read(folder.join(name)).expect("a file of the seeds' PKI");
    let trust_domain: TrustDomain = "example.org".parse().unwrap();
    let bundle = TrustBundle::from_pem(trust_domain.clone(), &read("root.pem")).unwrap();
    Relying { trust_domain, bundles: [bundle].into_iter().collect(), signed: read("statement") }
});

fuzz_target!(|data: &[u8]| {
    let parts = parts(data);
    let [statement, signature, chain @ ..] = &parts[..] else { return };
    let relying = &*RELYING;
    let nothing = RevocationSet::default();
    let chain: Vec<_> = chain.iter().map(|der| CertificateDer::from(*der)).collect();
    let signed = SignedRevocations { statement, signature, chain: &chain };
    if signed.verify(&relying.trust_domain, &relying.bundles, &nothing, OffsetDateTime::now_utc()).is_ok() {
        assert!(*statement == &relying.signed[..], "a forgery was believed");
    }
    let mut known = nothing;
    for statement in parts {
        if let Some(statement) = signet_sdk::decoded_revocations(statement) {
            known = applied(known, statement);
        }
    }
});

/// What is known after a statement, which keeps the laws of statements whatever it says.
fn applied(known: RevocationSet, statement: RevocationStatement) -> RevocationSet {
    let trust_domain = &RELYING.trust_domain;
    let now = OffsetDateTime::UNIX_EPOCH + time::Duration::days(20_000);
    let Ok(next) = known.with(VerifiedRevocations::of(trust_domain), statement.clone(), now) else { return known };
    let after = next.get(trust_domain).unwrap();
    assert_eq!(statement.trust_domain, trust_domain.as_str());
    assert_eq!((after.epoch(), &after.lineage()[..]), (statement.epoch, &statement.lineage[..]));
    assert_eq!(after.is_complete(), statement.epoch == statement.latest);
    if let Some(before) = known.get(trust_domain) {
        assert!(after.counts().all() >= before.counts().all(), "something was forgotten");
        let (has, begins) = (before.epoch(), statement.after);
        match before.lineage() == after.lineage() {
            true => assert!(begins <= has && has <= after.epoch(), "{begins} {has} {}", after.epoch()),
            false => assert_eq!(begins, 0),
        }
    }
    for revoked in &statement.serials {
        for (serial, not_after) in revoked.serials.iter().zip(&revoked.not_after) {
            let found = after.has_serial(&revoked.authority_key_id, &Serial::from_be_bytes(serial));
            assert!(found || *not_after < now.unix_timestamp(), "{serial:?} is not known");
        }
    }
    next
}

fn parts(mut data: &[u8]) -> Vec<&[u8]> {
    let mut parts = Vec::new();
    while let Some((length, rest)) = data.split_at_checked(2) {
        let length = usize::from(u16::from_be_bytes([length[0], length[1]])).min(rest.len());
        let (part, rest) = rest.split_at(length);
        parts.push(part);
        data = rest;
    }
    parts
}
