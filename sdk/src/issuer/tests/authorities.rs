//! An authority that is to sign is judged by what is in force here, before it does.

use rustls_pki_types::CertificateDer;
use signet_proto::identity::v1::{self, Applied, Resource};
use signet_test_pki::Authority;

use super::*;

fn said_of(issuer: &FakeIssuer, version: &[u8]) -> Option<Applied> {
    let said = issuer.said.lock().unwrap();
    said.iter().find(|said| said.resource() == Resource::Authorities && said.version == version).cloned()
}

async fn told(issuer: &FakeIssuer, version: &[u8], chains: &[&[CertificateDer<'_>]]) -> String {
    let authority =
        |chain: &&[CertificateDer<'_>]| v1::Authority { chain: chain.iter().map(|der| der.to_vec()).collect() };
    let authorities = chains.iter().map(authority).collect();
    issuer.wish_authorities(v1::Authorities { authorities, version: version.to_vec() });
    so(|| said_of(issuer, version).is_some()).await;
    said_of(issuer, version).unwrap().refused
}

#[tokio::test]
async fn an_authority_is_acknowledged_where_its_leaves_would_be_believed_and_no_other() {
    let issuer = FakeIssuer::new(LONG);
    let serving = issuer.serve().await;
    let (running, _events) = joined(&issuer, &serving).await;
    let (good, stranger) = (issuer.another_authority(), Authority::root("example.org").intermediate());
    let foreign = Authority::root("other.org").intermediate();
    assert_eq!(told(&issuer, b"version of the 1", &[good.chain(), good.chain()]).await, "");
    let mut known = running.monitor.authorities();
    assert_eq!(known.borrow()[..], [good.chain(), good.chain()]);
    for (version, chains, refusal) in [
        (b"version of the 2", vec![good.chain(), stranger.chain()], "authority 2: "),
        (b"version of the 3", vec![foreign.chain()], "authority 1: "),
        (b"version of the 4", vec![&good.chain()[..0]], "authority 1: "),
        (b"version of the 5", vec![&[CertificateDer::from(&b"junk"[..])][..]], "authority 1: "),
    ] {
        let refused = told(&issuer, version, &chains).await;
        assert!(refused.starts_with(refusal), "{refused}");
    }
    // It goes on with what it has.
    assert_eq!(told(&issuer, b"version of the 6", &[good.chain()]).await, "");
    assert_eq!(known.borrow_and_update()[..], [good.chain()]);
    // The same again is no news, under whatever version.
    assert_eq!(told(&issuer, b"version of the 7", &[good.chain()]).await, "");
    assert!(!known.has_changed().unwrap());
    assert_eq!(told(&issuer, b"version of the 8", &[good.chain(), good.chain()]).await, "");
    assert!(known.has_changed().unwrap());
    drop(running);
}
