//! An identity for the unit tests of this crate, with a clock that they set.

use std::sync::Arc;

use signet_identity::{
    BundleSet, IdentityPublisher, KeySha256, LiveIdentity, ManualClock, Material, RevocationSet, RevocationStatement,
    RevokedKey, RevokedSerials, SignedRevocations, Snapshot, TlsPolicies, TrustBundle, X509Svid, live,
};
use signet_test_pki::Authority;
use time::{Duration, OffsetDateTime};

use crate::identity_slot::IdentitySlot;

/// A certificate of 100 s that began at `start`, in trust domain `example.org`.
pub(crate) struct TestIdentity {
    root: Authority,
    issuing: Authority,
    pub(crate) clock: Arc<ManualClock>,
    pub(crate) start: OffsetDateTime,
    pub(crate) slot: IdentitySlot,
    policies: TlsPolicies,
}

impl TestIdentity {
    pub(crate) fn new() -> Self {
        let root = Authority::root("example.org");
        let issuing = root.intermediate();
        let now = OffsetDateTime::now_utc();
        // Certificates hold whole seconds.
        let start = now - Duration::nanoseconds(i64::from(now.nanosecond()));
        let clock = Arc::new(ManualClock::new(start));
        let slot = IdentitySlot::new(clock.clone());
        let policies = TlsPolicies::new(clock.clone());
        Self { root, issuing, clock, start, slot, policies }
    }

    pub(crate) fn go_live(&self) -> (IdentityPublisher, LiveIdentity) {
        let (publisher, identity) = live(self.snapshot(self.start, None));
        assert!(self.slot.fill(identity.clone()), "filled once");
        (publisher, identity)
    }

    /// A snapshot whose certificate of 100 s begins at `from`.
    pub(crate) fn snapshot(&self, from: OffsetDateTime, previous: Option<&Snapshot>) -> Snapshot {
        let leaf =
            self.issuing.leaf("spiffe://example.org/shop/cart").valid(from, from + Duration::seconds(100)).issue();
        let svid = X509Svid::from_der(leaf.chain.clone(), leaf.key()).unwrap();
        let domain = "example.org".parse().unwrap();
        let bundle = TrustBundle::new(domain, vec![self.root.root_certificate().clone()]).unwrap();
        let bundles: BundleSet = [bundle].into_iter().collect();
        Snapshot::build(Material { svid, bundles, revocations: RevocationSet::default() }, &self.policies, previous)
            .unwrap()
    }

    /// The same with two serial numbers revoked and its own authority, which is number 7.
    pub(crate) fn revoked(&self, before: &Snapshot) -> Snapshot {
        let trust_domain = "example.org".parse().unwrap();
        let signature = self.issuing.sign(&SignedRevocations::signed_bytes(&[]));
        let signed = SignedRevocations { statement: &[], signature: &signature, chain: self.issuing.chain() };
        let known = before.revocations();
        let verified = signed.verify(&trust_domain, before.bundles(), known, self.start).unwrap();
        let (_, authority) = x509_parser::parse_x509_certificate(self.issuing.certificate()).unwrap();
        let authority = KeySha256::of(authority.public_key().raw);
        let serials =
            RevokedSerials { authority_key_id: vec![1], serials: vec![vec![1], vec![2]], not_after: vec![i64::MAX; 2] };
        let statement = RevocationStatement {
            at: 0,
            trust_domain: "example.org".to_owned(),
            lineage: vec![0; 8],
            after: 0,
            epoch: 7,
            latest: 7,
            serials: vec![serials],
            keys: Vec::new(),
            authorities: vec![RevokedKey::new(authority, self.start)],
        };
        let revocations = known.with(verified, statement, self.start).unwrap();
        let (svid, bundles) = (before.svid().clone(), before.bundles().clone());
        Snapshot::build(Material { svid, bundles, revocations }, &self.policies, Some(before)).unwrap()
    }
}
