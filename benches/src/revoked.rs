//! What is revoked, as a client that follows an issuer gets it: in signed statements, one after the other.

use signet_identity::{
    BundleSet, RevocationSet, RevocationStatement, RevokedSerials, Serial, SignedRevocations, TrustBundle, TrustDomain,
};
use signet_test_pki::Authority;
use time::OffsetDateTime;

/// In one statement.
pub const MOST: u64 = 16_384;

/// Whose certificates they are: its subject key identifier.
pub const AUTHORITY: &[u8] = &[7; 20];

/// An authority, and those who believe it.
#[derive(Debug)]
pub struct Domain {
    authority: Authority,
    pub name: TrustDomain,
    bundles: BundleSet,
    now: OffsetDateTime,
}

impl Domain {
    pub fn new() -> anyhow::Result<Self> {
        let authority = Authority::root("example.org");
        let name: TrustDomain = "example.org".parse()?;
        let bundle = TrustBundle::new(name.clone(), vec![authority.root_certificate().clone()])?;
        Ok(Self { authority, name, bundles: [bundle].into_iter().collect(), now: OffsetDateTime::now_utc() })
    }

    /// With the revocations from this number on, in statements as large as they may be, their signatures verified.
    pub fn add(&self, known: &RevocationSet, from: u64, to: u64) -> anyhow::Result<RevocationSet> {
        let signature = self.authority.sign(&SignedRevocations::signed_bytes(&[]));
        let signed = SignedRevocations { statement: &[], signature: &signature, chain: self.authority.chain() };
        let mut known = known.clone();
        let mut after = from;
        while after < to {
            let epoch = to.min(after + MOST);
            let verified = signed.verify(&self.name, &self.bundles, &known, self.now)?;
            known = known.with(verified, statement(after, epoch, to), self.now)?;
            after = epoch;
        }
        Ok(known)
    }
}

fn statement(after: u64, epoch: u64, latest: u64) -> RevocationStatement {
    let serials = RevokedSerials {
        authority_key_id: AUTHORITY.to_vec(),
        serials: (after..epoch).map(|number| serial(number).to_vec()).collect(),
        not_after: vec![i64::MAX; (epoch - after) as usize],
    };
    let (trust_domain, lineage) = ("example.org".to_owned(), vec![1; 8]);
    RevocationStatement { trust_domain, lineage, after, epoch, latest, serials: vec![serials], ..Default::default() }
}

/// Sixteen bytes that look drawn.
fn serial(number: u64) -> [u8; 16] {
    let mut serial = [0; 16];
    let mixed = |number: u64| (number ^ number >> 31).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29);
    serial[..8].copy_from_slice(&(mixed(mixed(number + 1)) | 1 << 63).to_be_bytes());
    serial[8..].copy_from_slice(&mixed(number + 0x5851_f42d).to_be_bytes());
    serial
}

/// Of so many from this one on, in an order that no cache foresees.
pub fn serials(from: u64, count: u64) -> Vec<Serial> {
    let place = |number: u64| number.wrapping_mul(0x9e37_79b9_7f4a_7c15) % count;
    (0..1 << 20).map(|number| Serial::from_be_bytes(&serial(from + place(number)))).collect()
}
