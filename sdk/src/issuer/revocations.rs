//! What an issuer says is revoked: believed by its signature, then decoded, then added to what is known.

use prost::Message as _;
use rustls_pki_types::CertificateDer;
use signet_identity::{
    RevocationError, RevocationSet, RevocationStatement, RevokedKey, RevokedSerials, SignedRevocations, Snapshot,
    TrustDomain,
};
use signet_proto::identity::v1;
use time::OffsetDateTime;

/// Why a statement is not in force. What was known stays.
#[derive(Debug, thiserror::Error)]
pub(super) enum StatementError {
    #[error(transparent)]
    Refused(#[from] RevocationError),
    #[error("what was signed is no statement of revocations")]
    Malformed(#[source] prost::DecodeError),
    #[error("nothing was told within {seconds} s of what is revoked, or not all of it")]
    NotTold { seconds: f64 },
}

impl StatementError {
    /// Whether what is told next could not be put in force without what this was about. More is known already than what goes back.
    pub(super) fn leaves_a_gap(&self) -> bool {
        !matches!(self, Self::Refused(RevocationError::GoesBack { .. }))
    }
}

/// What is known with a statement of an authority of `trust_domain`, of which `held` says whom to believe.
pub(super) fn added(
    sent: &v1::Revocations,
    trust_domain: &TrustDomain,
    held: &Snapshot,
    now: OffsetDateTime,
) -> Result<RevocationSet, StatementError> {
    let chain: Vec<_> = sent.chain.iter().map(|der| CertificateDer::from(&der[..])).collect();
    let signed = SignedRevocations { statement: &sent.statement, signature: &sent.signature, chain: &chain };
    let known = held.revocations();
    let verified = signed.verify(trust_domain, held.bundles(), known, now)?;
    let statement = decoded(verified.statement())?;
    Ok(known.with(verified, statement, now)?)
}

/// How far the revocations of `trust_domain` are known, for [`Applied`](v1::Applied). Empty where they are not.
pub(super) fn version(held: &Snapshot, trust_domain: &TrustDomain) -> Vec<u8> {
    let version = held.revocations().get(trust_domain).map(|known| [known.lineage(), known.epoch().to_be_bytes()]);
    version.map(|both| both.concat()).unwrap_or_default()
}

/// Whether there is nothing more to be told.
pub(super) fn is_complete(held: &Snapshot, trust_domain: &TrustDomain) -> bool {
    held.revocations().get(trust_domain).is_some_and(|known| known.is_complete())
}

pub(super) fn decoded(statement: &[u8]) -> Result<RevocationStatement, StatementError> {
    let statement = v1::RevocationStatement::decode(statement).map_err(StatementError::Malformed)?;
    let serials = |of_authority: v1::RevokedSerials| RevokedSerials {
        authority_key_id: of_authority.authority_key_id,
        serials: of_authority.serials,
        not_after: of_authority.not_after,
    };
    let key = |sha256, not_after| RevokedKey { sha256, not_after };
    Ok(RevocationStatement {
        at: statement.at.map_or(0, |at| at.seconds),
        trust_domain: statement.trust_domain,
        lineage: statement.lineage,
        after: statement.after,
        epoch: statement.epoch,
        latest: statement.latest,
        serials: statement.serials.into_iter().map(serials).collect(),
        keys: statement.keys.into_iter().map(|revoked| key(revoked.sha256, revoked.not_after)).collect(),
        authorities: statement.authorities.into_iter().map(|revoked| key(revoked.sha256, revoked.not_after)).collect(),
    })
}
