//! What an attacker tries to have a statement believed that no authority of the trust domain made.

use super::*;

/// A trust domain whose intermediate signs.
struct Mesh {
    root: Authority,
    issuing: Authority,
}

impl Mesh {
    fn new() -> Self {
        let root = Authority::root("example.org");
        Self { issuing: root.intermediate(), root }
    }

    fn verify(&self, by: &Authority, chain: &[CertificateDer<'_>]) -> Result<(), RevocationError> {
        self.verify_knowing(&RevocationSet::default(), by, chain)
    }

    fn verify_knowing(
        &self,
        known: &RevocationSet,
        by: &Authority,
        chain: &[CertificateDer<'_>],
    ) -> Result<(), RevocationError> {
        let statement = b"a statement";
        let signature = by.sign(&SignedRevocations::signed_bytes(statement));
        check(SignedRevocations { statement, signature: &signature, chain }, &bundles(&[&self.root]), known)
    }
}

fn check(signed: SignedRevocations<'_>, bundles: &BundleSet, known: &RevocationSet) -> Result<(), RevocationError> {
    let verified = signed.verify(&domain(), bundles, known, now()).map(|verified| verified.statement().to_vec());
    verified.map(|statement| assert_eq!(statement, signed.statement))
}

fn not_under() -> RevocationError {
    RevocationError::NotUnderBundle { trust_domain: domain() }
}

#[test]
fn authorities_of_the_trust_domain_are_believed() {
    let mesh = Mesh::new();
    assert_eq!(mesh.verify(&mesh.issuing, mesh.issuing.chain()), Ok(()));
    assert_eq!(mesh.verify(&mesh.root, mesh.root.chain()), Ok(()), "a root that signs by itself");
    let deep = mesh.root.intermediate_with(|_| {}).intermediate_with(|_| {}).intermediate();
    assert_eq!(mesh.verify(&deep, deep.chain()), Ok(()));
    let whole = [mesh.issuing.chain(), mesh.root.chain()].concat();
    assert_eq!(mesh.verify(&mesh.issuing, &whole), Ok(()), "with the root behind it");
}

#[test]
fn others_are_not() {
    let mesh = Mesh::new();
    let same_name = Authority::root("example.org").intermediate();
    let other_domain = Authority::root("other.org").intermediate();
    assert_eq!(mesh.verify(&same_name, same_name.chain()), Err(not_under()));
    // Its root behind it does not help it.
    let with_root = [same_name.chain(), &[same_name.root_certificate().clone()]].concat();
    assert_eq!(mesh.verify(&same_name, &with_root), Err(not_under()));
    // Nor does an honest intermediate.
    let behind = [same_name.chain(), mesh.issuing.chain()].concat();
    assert_eq!(mesh.verify(&same_name, &behind), Err(RevocationError::ChainSignature { position: 1 }));
    let foreign = mesh.verify(&other_domain, other_domain.chain()).unwrap_err();
    let of_other_domain = AuthorityError::Foreign { trust_domain: domain() };
    assert_eq!(foreign, RevocationError::Signer { position: 1, source: of_other_domain });
    assert_eq!(mesh.verify(&mesh.issuing, &[]), Err(RevocationError::NoSigner));
    // A domain that is trusted speaks for itself alone: its authority is not asked about this one.
    let federated = Authority::root_with("other.org", |params| params.subject_alt_names.clear());
    let statement = b"a statement";
    let signature = federated.sign(&SignedRevocations::signed_bytes(statement));
    let signed = SignedRevocations { statement, signature: &signature, chain: federated.chain() };
    let both = bundles(&[&mesh.root, &federated]);
    assert_eq!(check(signed, &both, &RevocationSet::default()), Err(not_under()));
    let unknown = check(signed, &bundles(&[&federated]), &RevocationSet::default());
    assert_eq!(unknown, Err(RevocationError::UnknownTrustDomain { trust_domain: domain() }));
}

#[test]
fn a_workload_does_not_sign() {
    let mesh = Mesh::new();
    let leaf = mesh.issuing.leaf("spiffe://example.org/shop/cart").issue();
    let statement = b"a statement";
    let signature = leaf.sign(&SignedRevocations::signed_bytes(statement));
    let signed = SignedRevocations { statement, signature: &signature, chain: &leaf.chain };
    let refused = check(signed, &bundles(&[&mesh.root]), &RevocationSet::default());
    assert_eq!(refused, Err(RevocationError::Signer { position: 1, source: AuthorityError::NotACa }));
    // Not even with the certificate of who could.
    let signed = SignedRevocations { chain: mesh.issuing.chain(), ..signed };
    let refused = check(signed, &bundles(&[&mesh.root]), &RevocationSet::default());
    assert_eq!(refused, Err(RevocationError::Signature));
}

#[test]
fn an_authority_that_may_not_is_refused() {
    let mesh = Mesh::new();
    let refusal = |authority: &Authority| mesh.verify(authority, authority.chain()).unwrap_err();
    let no_certificates = mesh.root.intermediate_with(|params| params.key_usages = vec![KeyUsagePurpose::CrlSign]);
    let key_usage = RevocationError::Signer { position: 1, source: AuthorityError::KeyUsage };
    assert_eq!(refusal(&no_certificates), key_usage);
    let expired = mesh.root.intermediate_with(|params| params.not_after = now() - Duration::seconds(1));
    assert_eq!(refusal(&expired), RevocationError::SignerNotValidNow { position: 1 });
    let future = mesh.root.intermediate_with(|params| params.not_before = now() + Duration::hours(1));
    assert_eq!(refusal(&future), RevocationError::SignerNotValidNow { position: 1 });
    // No leaf could be below it.
    let too_deep = mesh.issuing.intermediate();
    assert_eq!(refusal(&too_deep), RevocationError::SignerConstrained { position: 2 });
    let short = Authority::root_with("example.org", |params| params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0)));
    let below = Mesh { issuing: short.intermediate(), root: short };
    let refused = below.verify(&below.issuing, below.issuing.chain());
    assert_eq!(refused, Err(RevocationError::SignerConstrained { position: 2 }));
    // [0] permits, [1] excludes (RFC 5280 §4.2.1.10).
    let constrained = |tag: u8, host: &str| {
        let size = host.len() as u8;
        let mut content = vec![0x30, size + 6, 0xa0 | tag, size + 4, 0x30, size + 2, 0x86, size];
        content.extend_from_slice(host.as_bytes());
        let mut extension = rcgen::CustomExtension::from_oid_content(&[2, 5, 29, 30], content);
        extension.set_criticality(true);
        mesh.root.intermediate_with(|params| params.custom_extensions.push(extension))
    };
    for (tag, host) in [(0, "other.org"), (0, ".example.org"), (1, "example.org"), (1, ".org")] {
        assert_eq!(
            refusal(&constrained(tag, host)),
            RevocationError::SignerConstrained { position: 1 },
            "{tag} {host}"
        );
    }
    for (tag, host) in [(0, "example.org"), (0, ".org"), (1, "other.org"), (1, ".example.org"), (1, "ample.org")] {
        let authority = constrained(tag, host);
        assert_eq!(mesh.verify(&authority, authority.chain()), Ok(()), "{tag} {host}");
    }
    let unknown = mesh.root.intermediate_with(|params| {
        let mut extension = rcgen::CustomExtension::from_oid_content(&[1, 3, 6, 1, 4, 1, 99_999, 1], vec![5, 0]);
        extension.set_criticality(true);
        params.custom_extensions.push(extension);
    });
    assert_eq!(refusal(&unknown), RevocationError::SignerConstrained { position: 1 });
}

#[test]
fn an_altered_statement_or_signature_is_refused() {
    let mesh = Mesh::new();
    let bundles = bundles(&[&mesh.root]);
    let statement = b"a statement".to_vec();
    let signature = mesh.issuing.sign(&SignedRevocations::signed_bytes(&statement));
    let check = |statement: &[u8], signature: &[u8]| {
        let signed = SignedRevocations { statement, signature, chain: mesh.issuing.chain() };
        check(signed, &bundles, &RevocationSet::default())
    };
    assert_eq!(check(&statement, &signature), Ok(()));
    for place in 0..statement.len() {
        let mut altered = statement.clone();
        altered[place] ^= 1;
        assert_eq!(check(&altered, &signature), Err(RevocationError::Signature));
    }
    for place in 0..signature.len() {
        let mut altered = signature.clone();
        altered[place] ^= 1;
        assert_eq!(check(&statement, &altered), Err(RevocationError::Signature));
    }
    assert_eq!(check(&statement, &[]), Err(RevocationError::Signature));
    assert_eq!(check(&statement, &[0x30; 81]), Err(RevocationError::Signature));
    // A signature of the bare statement is none: neither of a certificate, nor of anything else that this key signs.
    assert_eq!(check(&statement, &mesh.issuing.sign(&statement)), Err(RevocationError::Signature));
}

#[test]
fn what_is_too_large_is_not_looked_at() {
    let mesh = Mesh::new();
    let statement = vec![0; (1 << 20) + 1];
    let signed = SignedRevocations { statement: &statement, signature: &[], chain: &[] };
    let refused = check(signed, &bundles(&[&mesh.root]), &RevocationSet::default());
    assert_eq!(refused, Err(RevocationError::TooLarge { bytes: (1 << 20) + 1 }));
    let long = vec![mesh.issuing.certificate().clone(); 5];
    assert_eq!(mesh.verify(&mesh.issuing, &long), Err(RevocationError::ChainTooLarge));
    let large = [CertificateDer::from(vec![0; 8 * 1024 + 1])];
    assert_eq!(mesh.verify(&mesh.issuing, &large), Err(RevocationError::ChainTooLarge));
}

#[test]
fn who_is_revoked_is_not_believed_any_more() {
    let mesh = Mesh::new();
    let middle = mesh.root.intermediate_with(|_| {});
    let signer = middle.intermediate();
    let end = now() + Duration::days(1);
    let knowing = |change: &dyn Fn(&mut RevocationStatement)| {
        let mut statement = statement(0, 1, 1);
        change(&mut statement);
        with(&RevocationSet::default(), statement).unwrap()
    };
    for authority in [&signer, &middle, &mesh.root] {
        let sha256 = key_of(authority.certificate());
        let known = knowing(&|statement| statement.authorities = vec![RevokedKey::new(sha256, end)]);
        let refused = mesh.verify_knowing(&known, &signer, signer.chain());
        assert_eq!(refused, Err(RevocationError::SignerRevoked(Revoked::Authority { sha256 })));
        let known = knowing(&|statement| statement.keys = vec![RevokedKey::new(sha256, end)]);
        let refused = mesh.verify_knowing(&known, &signer, signer.chain());
        assert_eq!(refused, Err(RevocationError::SignerRevoked(Revoked::Key { sha256 })));
    }
    let serial = Revocable::of(&parse(signer.certificate()).unwrap(), None).serial;
    let known = knowing(&|statement| statement.serials = vec![serials(&id_of(&middle), &[serial.as_bytes()])]);
    let refused = mesh.verify_knowing(&known, &signer, signer.chain());
    assert_eq!(refused, Err(RevocationError::SignerRevoked(Revoked::Certificate { serial })));
    // Others go on.
    assert_eq!(mesh.verify_knowing(&known, &mesh.issuing, mesh.issuing.chain()), Ok(()));
}

#[test]
fn no_chain_with_a_bit_changed_is_believed() {
    let mesh = Mesh::new();
    let der = mesh.issuing.certificate().to_vec();
    for bit in 0..der.len() * 8 {
        let mut changed = der.clone();
        changed[bit / 8] ^= 1 << (bit % 8);
        assert!(mesh.verify(&mesh.issuing, &[changed.into()]).is_err(), "bit {bit}");
    }
}

proptest! {
    #[test]
    fn no_chain_that_is_made_up_is_believed(der in prop::collection::vec(any::<u8>(), 0..600)) {
        KNOWN.with(|mesh| {
            prop_assert!(mesh.verify(&mesh.issuing, &[der.into()]).is_err());
            Ok(())
        })?;
    }
}

thread_local! {
    static KNOWN: Mesh = Mesh::new();
}
