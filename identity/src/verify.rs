use std::{cell::RefCell, sync::Arc};

use aws_lc_rs::digest::{SHA256, digest};
use rustls_pki_types::{CertificateDer, UnixTime};
use time::OffsetDateTime;
use webpki::{EndEntityCert, KeyUsage, VerifiedPath};

use crate::{
    BundleSet, LeafError, PeerError, PeerIdentity, RevocationSet, Revocations, Revoked, TrustBundle, TrustDomain,
    TrustEpoch, WorkloadId, authority,
    bundle::{AnchorFacts, AnchorId},
    certificate::{Validity, check_limits, parse, validity},
    chain_cache::{ChainCache, ChainKey},
    leaf::Leaf,
    revocation::{KeySha256, Revocable, key_id},
    tls::provider,
};

/// What the peer is in the handshake.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Role {
    Client,
    Server,
}

/// Whom this process trusts during one trust epoch, and whom it found trustworthy so far.
pub(crate) struct Trust {
    epoch: TrustEpoch,
    bundles: BundleSet,
    revocations: RevocationSet,
    clients: ChainCache,
    servers: ChainCache,
}

/// A verified peer, and whether its chain may be remembered.
struct Verified {
    peer: PeerIdentity,
    order: PresentedOrder,
}

/// How the presented intermediates relate to the path.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum PresentedOrder {
    /// Exactly those of the path, in its order.
    OfThePath,
    Other,
}

/// What is known of a path that leads to an anchor and follows the rules for authorities.
struct Path {
    /// When all its certificates are valid.
    validity: Validity,
    anchor: AnchorId,
    anchor_key: KeySha256,
    /// The key identifier of who signed the leaf.
    signer: Option<Box<[u8]>>,
    /// The intermediates, that of the leaf's signer first.
    intermediates: Vec<Revocable>,
    order: PresentedOrder,
}

impl Trust {
    pub(crate) fn new(epoch: TrustEpoch, bundles: BundleSet, revocations: RevocationSet) -> Self {
        Self { epoch, bundles, revocations, clients: ChainCache::new(), servers: ChainCache::new() }
    }

    /// The next epoch, which goes on with what was found in this one and still holds: an authority that joins or leaves,
    /// and a peer that is revoked, cost the others no new verification. The entries are shared, the caches are not, so that
    /// no epoch keeps an earlier one in memory.
    pub(crate) fn next(&self, bundles: BundleSet, revocations: RevocationSet, now: OffsetDateTime) -> Self {
        let next = Self::new(self.epoch.next(), bundles, revocations);
        for (from, to) in [(&self.clients, &next.clients), (&self.servers, &next.servers)] {
            // What its authority's certificate ends first could last longer under another one for the same key.
            let lasts = |peer: &PeerIdentity, anchor: &AnchorFacts| peer.path.not_after < anchor.validity.not_after;
            to.take_over(from, |peer| next.anchor_of(peer, now).is_some_and(|anchor| lasts(peer, anchor)));
        }
        next
    }

    pub(crate) fn epoch(&self) -> TrustEpoch {
        self.epoch
    }

    pub(crate) fn bundles(&self) -> &BundleSet {
        &self.bundles
    }

    pub(crate) fn revocations(&self) -> &RevocationSet {
        &self.revocations
    }

    /// Who the presented chain belongs to, if it can be trusted now. The same for full and for resumed handshakes.
    ///
    /// A chain seen before costs one SHA-256 and no lock; benchmark: `handshake`.
    pub(crate) fn judge(
        &self,
        role: Role,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: OffsetDateTime,
    ) -> Result<Arc<PeerIdentity>, PeerError> {
        check_limits(std::iter::once(leaf).chain(intermediates))?;
        let key = ChainKey::new(std::iter::once(leaf).chain(intermediates));
        if let Some(peer) = self.cache(role).get(&key, now) {
            return Ok(peer);
        }
        let verified = verify(&self.bundles, &self.revocations, role, leaf, intermediates, now)?;
        let peer = Arc::new(verified.peer);
        if verified.order == PresentedOrder::OfThePath {
            self.cache(role).insert(key, &peer, now);
        }
        Ok(peer)
    }

    /// Whether a peer that was verified earlier, maybe in another epoch, is to be believed now.
    ///
    /// Budget: 1 µs for each live connection when trust changes, as long as the authority stays; benchmark:
    /// `signet-bench-epoch`.
    pub(crate) fn still_accepts(&self, peer: &PeerIdentity, now: OffsetDateTime) -> Result<(), PeerError> {
        if self.anchor_of(peer, now).is_some() {
            return Ok(());
        }
        self.without_any_path(peer)?;
        // Another authority of the domain, one for the same key perhaps, may vouch for it. If not, this says why.
        let (leaf, intermediates) = peer.chain.split_first().ok_or(PeerError::NoCertificate)?;
        self.judge(peer.role, leaf, intermediates, now).map(drop)
    }

    /// The end of the path that was once found for the peer, if that is a path under these bundles now: then a new
    /// verification could only confirm it.
    ///
    /// Besides the algorithms and rules, which are this program's, the verdict on a path depends on the presented
    /// chain and the role, which are the peer's own and never change; on time, only through the validity of each
    /// certificate on the path, whose intersection is `peer.path`; and on its anchor: name, key, name constraints,
    /// path length and validity, all of them read from the one certificate that the anchor's ID is the hash of. It must
    /// be in the bundle of the peer's own trust domain, for that bundle alone judges it. Other anchors may open
    /// other paths, but close none. What is revoked of the path closes it, at each change of trust for cached chains and
    /// live connections alike. Whatever else comes to decide about a peer is asked here too.
    fn anchor_of(&self, peer: &PeerIdentity, now: OffsetDateTime) -> Option<&AnchorFacts> {
        if !peer.path.contains(now) {
            return None;
        }
        if let Some(revocations) = self.revocations.get(peer.id.trust_domain())
            && check_revoked(revocations, &peer.revocable, peer.anchor_key).is_err()
        {
            return None;
        }
        self.bundles.get(peer.id.trust_domain())?.find(peer.anchor)
    }

    /// Refuses a peer that no other path can help: its own certificate is revoked, or the key that signed it. So many may
    /// be revoked at once that their paths are not to be built for nothing.
    fn without_any_path(&self, peer: &PeerIdentity) -> Result<(), Revoked> {
        let Some(revocations) = self.revocations.get(peer.id.trust_domain()) else { return Ok(()) };
        let Some((leaf, above)) = peer.revocable.split_first() else { return Ok(()) };
        revocations.check(leaf)?;
        revocations.check_key(above.first().map_or(peer.anchor_key, |signer| signer.key))
    }

    pub(crate) fn cache(&self, role: Role) -> &ChainCache {
        match role {
            Role::Client => &self.clients,
            Role::Server => &self.servers,
        }
    }
}

/// Trust domain, its bundle, the path, the leaf: in this order.
fn verify(
    bundles: &BundleSet,
    revocations: &RevocationSet,
    role: Role,
    leaf_der: &CertificateDer<'_>,
    intermediates: &[CertificateDer<'_>],
    now: OffsetDateTime,
) -> Result<Verified, PeerError> {
    let leaf = Leaf::parse(leaf_der)?;
    let id = leaf.claimed_id()?;
    let bundle = bundle_of(bundles, id.trust_domain())?;
    let revocations = revocations.get(id.trust_domain());
    let path = build_path(bundle, revocations, role, leaf_der, intermediates, now)?;
    leaf.check()?;
    let whole = leaf.validity().intersection(path.validity);
    // webpki counts whole seconds.
    check_time(whole, now)?;
    let revocable = leaf.revocable(path.signer.as_deref());
    if let Some(revocations) = revocations {
        revocations.check(&revocable)?;
    }
    let (order, path) = (path.order, Path { validity: whole, ..path });
    Ok(Verified { peer: identity(id, &leaf, revocable, path, leaf_der, intermediates, role), order })
}

/// When a chain expires that is judged as if nothing was revoked. Nothing of that is remembered.
pub(crate) fn verify_unrevoked(
    bundles: &BundleSet,
    role: Role,
    leaf: &CertificateDer<'_>,
    intermediates: &[CertificateDer<'_>],
    now: OffsetDateTime,
) -> Result<OffsetDateTime, PeerError> {
    verify(bundles, &RevocationSet::default(), role, leaf, intermediates, now)
        .map(|verified| verified.peer.expires_at())
}

/// Whether anything of a path is revoked.
fn check_revoked(revocations: &Revocations, path: &[Revocable], anchor: KeySha256) -> Result<(), Revoked> {
    path.iter().try_for_each(|certificate| revocations.check(certificate))?;
    revocations.check_key(anchor)
}

fn bundle_of<'b>(bundles: &'b BundleSet, trust_domain: &TrustDomain) -> Result<&'b TrustBundle, PeerError> {
    bundles.get(trust_domain).ok_or_else(|| PeerError::UnknownTrustDomain { trust_domain: trust_domain.clone() })
}

/// Builds a path from the leaf over the presented intermediates to an anchor of this one bundle.
fn build_path(
    bundle: &TrustBundle,
    revocations: Option<&Revocations>,
    role: Role,
    leaf: &CertificateDer<'_>,
    intermediates: &[CertificateDer<'_>],
    now: OffsetDateTime,
) -> Result<Path, PeerError> {
    let end_entity = EndEntityCert::try_from(leaf).map_err(|_| LeafError::Malformed)?;
    // webpki goes on to other candidates after a refusal, so the last word counts.
    let judged = RefCell::new(None);
    let judge = |candidate: &VerifiedPath<'_>| {
        let path = check_authorities(candidate, bundle, revocations, intermediates, now);
        let verdict = if path.is_ok() { Ok(()) } else { Err(webpki::Error::UnknownIssuer) };
        judged.replace(Some(path));
        verdict
    };
    let usage = match role {
        Role::Client => KeyUsage::client_auth(),
        Role::Server => KeyUsage::server_auth(),
    };
    let built = end_entity.verify_for_usage(
        provider().signature_verification_algorithms.all,
        bundle.anchors(),
        intermediates,
        unix_time(now),
        usage,
        None,
        Some(&judge),
    );
    match (built.map(drop), judged.take()) {
        (Ok(()), Some(path)) | (Err(webpki::Error::UnknownIssuer), Some(path)) => path,
        // Every path that webpki accepts was judged.
        (Ok(()), None) => Err(PeerError::Path(webpki::Error::UnknownIssuer)),
        (Err(error), _) => Err(of_webpki(error, bundle.trust_domain())),
    }
}

/// What webpki does not check of a path: the anchor's validity and path length, the rules for a trust domain's
/// authorities, and what is revoked of them.
fn check_authorities(
    candidate: &VerifiedPath<'_>,
    bundle: &TrustBundle,
    revocations: Option<&Revocations>,
    presented: &[CertificateDer<'_>],
    now: OffsetDateTime,
) -> Result<Path, PeerError> {
    let position = bundle.anchors().iter().position(|anchor| std::ptr::eq(anchor, candidate.anchor()));
    let untrusted = || PeerError::UntrustedAuthority { trust_domain: bundle.trust_domain().clone() };
    let anchor = position.and_then(|position| bundle.facts().get(position)).ok_or_else(untrusted)?;
    let mut authorities = anchor.validity;
    let mut used = 0;
    let mut in_order = true;
    let mut intermediates = Vec::new();
    let mut signer = None;
    for intermediate in candidate.intermediate_certificates() {
        let der = intermediate.der();
        let certificate = parse(&der).map_err(|malformed| PeerError::Authority(malformed.into()))?;
        authority::check(&certificate, bundle.trust_domain())?;
        authorities = authorities.intersection(validity(&certificate));
        in_order &= presented.get(used).is_some_and(|presented| *presented == der);
        if used == 0 {
            signer = key_id(&certificate).map(Into::into);
        }
        intermediates.push(Revocable::of(&certificate, None));
        used += 1;
    }
    if used == 0 {
        signer.clone_from(&anchor.key_id);
    }
    if anchor.path_length.is_some_and(|length| used > length as usize) {
        return Err(PeerError::Path(webpki::Error::PathLenConstraintViolated));
    }
    check_time(authorities, now)?;
    if let Some(revocations) = revocations {
        check_revoked(revocations, &intermediates, anchor.key)?;
    }
    let order = if in_order && used == presented.len() { PresentedOrder::OfThePath } else { PresentedOrder::Other };
    Ok(Path { validity: authorities, anchor: anchor.id, anchor_key: anchor.key, signer, intermediates, order })
}

fn check_time(validity: Validity, now: OffsetDateTime) -> Result<(), PeerError> {
    if now > validity.not_after {
        return Err(PeerError::Expired { not_after: validity.not_after });
    }
    if now < validity.not_before {
        return Err(PeerError::NotYetValid { not_before: validity.not_before });
    }
    Ok(())
}

fn identity(
    id: WorkloadId,
    leaf: &Leaf<'_>,
    revocable: Revocable,
    path: Path,
    leaf_der: &CertificateDer<'_>,
    intermediates: &[CertificateDer<'_>],
    role: Role,
) -> PeerIdentity {
    let mut leaf_sha256 = [0; 32];
    leaf_sha256.copy_from_slice(digest(&SHA256, leaf_der).as_ref());
    let chain = std::iter::once(leaf_der).chain(intermediates).map(|der| der.clone().into_owned()).collect();
    let revocable = std::iter::once(revocable).chain(path.intermediates).collect();
    PeerIdentity {
        id,
        serial: leaf.serial(),
        leaf: leaf.validity(),
        path: path.validity,
        anchor: path.anchor,
        anchor_key: path.anchor_key,
        revocable,
        leaf_sha256,
        chain,
        role,
    }
}

fn of_webpki(error: webpki::Error, trust_domain: &TrustDomain) -> PeerError {
    use webpki::Error::*;
    match error {
        CertExpired { not_after, .. } => PeerError::Expired { not_after: date_time(not_after) },
        CertNotValidYet { not_before, .. } => PeerError::NotYetValid { not_before: date_time(not_before) },
        UnknownIssuer | InvalidSignatureForPublicKey => {
            PeerError::UntrustedAuthority { trust_domain: trust_domain.clone() }
        }
        CaUsedAsEndEntity => LeafError::CaAsLeaf.into(),
        EmptyEkuExtension | RequiredEkuNotFoundContext(_) => LeafError::ExtendedKeyUsage.into(),
        UnsupportedSignatureAlgorithmContext(_) | UnsupportedSignatureAlgorithmForPublicKeyContext(_) => {
            PeerError::UnsupportedAlgorithm
        }
        BadDer
        | BadDerTime
        | TrailingData(_)
        | ExtensionValueInvalid
        | InvalidSerialNumber
        | UnsupportedCertVersion
        | SignatureAlgorithmMismatch => LeafError::Malformed.into(),
        other => PeerError::Path(other),
    }
}

/// Certificates count whole seconds; before 1970 nothing is valid.
pub(crate) fn unix_time(now: OffsetDateTime) -> UnixTime {
    UnixTime::since_unix_epoch(std::time::Duration::from_secs(now.unix_timestamp().try_into().unwrap_or(0)))
}

fn date_time(time: UnixTime) -> OffsetDateTime {
    i64::try_from(time.as_secs())
        .ok()
        .and_then(|seconds| OffsetDateTime::from_unix_timestamp(seconds).ok())
        .unwrap_or(OffsetDateTime::UNIX_EPOCH)
}

#[cfg(test)]
mod tests;
