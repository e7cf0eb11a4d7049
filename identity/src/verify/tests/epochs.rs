//! What one trust epoch takes over from the one before, and what it must not.

use rcgen::{GeneralSubtree, NameConstraints};

use super::*;

impl Trust {
    /// The next epoch, in which the one domain trusts these certificates.
    fn then(&self, authorities: &[&CertificateDer<'static>]) -> Self {
        self.next([domain_of(authorities)].into_iter().collect(), RevocationSet::default(), now())
    }
}

/// An epoch that begins without a cache.
fn fresh(authorities: &[&CertificateDer<'static>]) -> Trust {
    trust([domain_of(authorities)])
}

fn domain_of(authorities: &[&CertificateDer<'static>]) -> TrustBundle {
    let authorities = authorities.iter().copied().cloned().collect();
    TrustBundle::new("example.org".parse().unwrap(), authorities).unwrap()
}

#[test]
fn while_their_authority_stays_peers_are_not_verified_again() {
    let (domain, joining) = (Domain::new("example.org"), Domain::new("example.org"));
    let issued = domain.issuing.leaf(CART).issue();
    let first = trust([domain.bundle()]);
    let peer = judge(&first, &issued.chain, now()).unwrap();
    let (ours, other) = (domain.root.certificate(), joining.root.certificate());

    let second = first.then(&[other, ours]);
    assert_eq!(second.epoch(), first.epoch().next());
    assert!(Arc::ptr_eq(&judge(&second, &issued.chain, now()).unwrap(), &peer));
    let third = second.then(&[ours]);
    assert!(Arc::ptr_eq(&judge(&third, &issued.chain, now()).unwrap(), &peer));

    let unknowing = fresh(&[ours, other]);
    assert_eq!(unknowing.still_accepts(&peer, now()), Ok(()));
    assert_eq!(unknowing.cache(Role::Client).len(), 0, "nothing was verified, so nothing was remembered");
}

#[test]
fn a_peer_leaves_with_its_authority_and_takes_nobody_with_it() {
    let (leaving, staying) = (Domain::new("example.org"), Domain::new("example.org"));
    let (gone, kept) = (leaving.issuing.leaf(CART).issue(), staying.issuing.leaf(CART).issue());
    let first = fresh(&[leaving.root.certificate(), staying.root.certificate()]);
    let (gone_peer, kept_peer) =
        (judge(&first, &gone.chain, now()).unwrap(), judge(&first, &kept.chain, now()).unwrap());
    let second = first.then(&[staying.root.certificate()]);
    assert_eq!(second.cache(Role::Client).len(), 1);
    assert_eq!(second.still_accepts(&gone_peer, now()).unwrap_err().reason(), "untrusted_authority");
    assert_eq!(judge(&second, &gone.chain, now()).unwrap_err().reason(), "untrusted_authority");
    assert_eq!(second.still_accepts(&kept_peer, now()), Ok(()));
    assert!(Arc::ptr_eq(&judge(&second, &kept.chain, now()).unwrap(), &kept_peer));

    let back = second.then(&[leaving.root.certificate()]);
    assert_eq!(back.cache(Role::Client).len(), 0);
    assert_eq!(back.still_accepts(&gone_peer, now()), Ok(()), "trusted again, and found out anew");
    let empty = first.then(&[]);
    assert_eq!(empty.still_accepts(&kept_peer, now()).unwrap_err().reason(), "untrusted_authority");
    assert_eq!(empty.cache(Role::Client).len(), 0);
}

#[test]
fn only_the_very_same_certificate_is_the_same_authority() {
    let domain = Domain::new("example.org");
    let issued = domain.issuing.leaf(CART).dns("cart.internal").issue();
    let first = trust([domain.bundle()]);
    let peer = judge(&first, &issued.chain, now()).unwrap();
    let no_intermediates =
        domain.root.reissued_with(|params| params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0)));
    let expired = domain.root.reissued_with(|params| params.not_after = now() - Duration::seconds(1));
    let constrained = domain.root.reissued_with(|params| {
        let excluded_subtrees = vec![GeneralSubtree::DnsName("internal".to_owned())];
        params.name_constraints = Some(NameConstraints { permitted_subtrees: Vec::new(), excluded_subtrees });
    });
    for (authority, reason) in [(no_intermediates, "path"), (expired, "expired"), (constrained, "path")] {
        let second = first.then(&[&authority]);
        assert_eq!(second.still_accepts(&peer, now()).unwrap_err().reason(), reason);
        assert_eq!(judge(&second, &issued.chain, now()).unwrap_err().reason(), reason);
    }
    let renewed = domain.root.reissued_with(|params| params.not_after = now() + Duration::days(9));
    assert_eq!(first.then(&[&renewed]).still_accepts(&peer, now()), Ok(()), "the same key vouches for the same chain");
}

#[test]
fn an_authority_that_moves_to_another_trust_domain_takes_nobody_along() {
    let root = Authority::root_with("example.org", |params| params.subject_alt_names.clear());
    let issued = root.leaf(CART).issue();
    let first = fresh(&[root.certificate()]);
    let peer = judge(&first, &issued.chain, now()).unwrap();
    let moved = TrustBundle::new("other.org".parse().unwrap(), vec![root.certificate().clone()]).unwrap();
    for bundles in [vec![moved.clone()], vec![moved, domain_of(&[])]] {
        let second = first.next(bundles.into_iter().collect(), RevocationSet::default(), now());
        assert!(second.still_accepts(&peer, now()).is_err());
        assert!(judge(&second, &issued.chain, now()).is_err());
        assert_eq!(second.cache(Role::Client).len(), 0);
    }
}

#[test]
fn a_live_peer_is_refused_outside_the_validity_of_any_certificate_of_its_path() {
    let start = now().replace_nanosecond(0).unwrap();
    let at = |minutes: i64| start + Duration::minutes(minutes);
    for (starts, ends) in [([-1, -9, -9], [1, 9, 9]), ([-9, -1, -9], [9, 1, 9]), ([-9, -9, -1], [9, 9, 1])] {
        let root = Authority::root_with("example.org", |params| {
            (params.not_before, params.not_after) = (at(starts[2]), at(ends[2]));
        });
        let issuing = root.intermediate_with(|params| {
            (params.not_before, params.not_after) = (at(starts[1]), at(ends[1]));
        });
        let issued = issuing.leaf(CART).valid(at(starts[0]), at(ends[0])).issue();
        let first = fresh(&[root.certificate()]);
        let peer = judge(&first, &issued.chain, start).unwrap();
        let second = first.then(&[root.certificate(), Authority::root("example.org").certificate()]);
        for trust in [&first, &second] {
            assert_eq!(trust.still_accepts(&peer, at(1)), Ok(()));
            let late = at(1) + Duration::milliseconds(1);
            assert_eq!(trust.still_accepts(&peer, late), Err(PeerError::Expired { not_after: at(1) }));
            assert_eq!(judge(trust, &issued.chain, late).unwrap_err().reason(), "expired");
            // The clock may also be set back, and forth again.
            let early = at(-1) - Duration::milliseconds(1);
            assert_eq!(trust.still_accepts(&peer, early), Err(PeerError::NotYetValid { not_before: at(-1) }));
            assert_eq!(judge(trust, &issued.chain, early).unwrap_err().reason(), "not_yet_valid");
            assert_eq!(trust.still_accepts(&peer, at(-1)), Ok(()));
        }
    }
}

#[test]
fn what_was_believed_in_one_role_is_not_believed_in_the_other() {
    let root = Authority::root("example.org");
    let clients_only = root.intermediate_with(|params| {
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    });
    let issued = clients_only.leaf(CART).issue();
    let first = fresh(&[root.certificate()]);
    judge(&first, &issued.chain, now()).unwrap();
    let second = first.then(&[root.certificate(), Authority::root("example.org").certificate()]);
    for trust in [&first, &second] {
        assert_eq!(trust.cache(Role::Client).len(), 1);
        let as_server = trust.judge(Role::Server, &issued.chain[0], &issued.chain[1..], now());
        assert_eq!(as_server.unwrap_err().reason(), "extended_key_usage");
        assert_eq!(trust.cache(Role::Server).len(), 0);
    }
}

#[test]
fn a_longer_lived_certificate_of_the_authority_counts_from_the_next_epoch_on() {
    let end = now().replace_nanosecond(0).unwrap() + Duration::minutes(9);
    let root = Authority::root_until("example.org", end);
    let renewed = root.reissued_with(|params| params.not_after = end + Duration::days(9));
    let issued = root.leaf(CART).issue();
    let first = fresh(&[root.certificate()]);
    assert_eq!(judge(&first, &issued.chain, now()).unwrap().expires_at(), end);
    let peer = judge(&first.then(&[root.certificate(), &renewed]), &issued.chain, now()).unwrap();
    assert_eq!(peer.expires_at(), peer.not_after());
}

#[test]
fn no_epoch_keeps_an_earlier_one_in_memory() {
    let domain = Domain::new("example.org");
    let peers: Vec<_> = (0..8).map(|_| domain.issuing.leaf(CART).issue()).collect();
    let mut current = Arc::new(trust([domain.bundle()]));
    let first = Arc::downgrade(&current);
    for peer in peers.iter().cycle().take(32) {
        judge(&current, &peer.chain, now()).unwrap();
        let another = Authority::root("example.org");
        current = Arc::new(current.then(&[domain.root.certificate(), another.certificate()]));
    }
    assert!(first.upgrade().is_none());
    assert_eq!(current.cache(Role::Client).len(), peers.len());
}
