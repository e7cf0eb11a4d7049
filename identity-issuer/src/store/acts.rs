//! What the log says of what a transaction did.

use signet_audit::{Act, Jwt, Revocation, Text, X509};
use sqlx::AnyConnection;

use super::issued::NotRecorded;
use super::log::Appending;
use super::revocations::{Kind, NewRevocation, Recorded};
use super::{RenewalRequest, StandingChange};
use crate::attestation::NewJoinToken;
use crate::certificate::Certificate;
use crate::policy::Revision;

pub(super) fn of_certificate(certificate: &Certificate, outcome: Result<(), NotRecorded>) -> Act {
    let of = X509 {
        serial: hex::encode(certificate.serial),
        spiffe_id: certificate.id.to_string(),
        profile: certificate.profile.name.to_string(),
        rule: certificate.rule.as_ref().map_or_else(String::new, |rule| rule.as_str().to_owned()),
        not_before: certificate.validity.not_before.unix_timestamp(),
        not_after: certificate.validity.not_after.unix_timestamp(),
        authority: certificate.authority.to_string(),
        certificate: certificate.chain.first().map_or_else(String::new, |leaf| sha256(leaf)),
        key: hex::encode(certificate.key_hash.as_bytes()),
        attestation: certificate.attestation.kind().to_owned(),
        evidence: certificate.attestation.evidence().map_or_else(String::new, hex::encode),
    };
    match outcome {
        Ok(()) => Act::X509Issued(of),
        Err(reason) => Act::X509Refused { certificate: of, reason: reason.as_str().to_owned() },
    }
}

pub(super) fn of_jwt(jwt: &crate::jwt::Jwt, outcome: Result<(), NotRecorded>) -> Act {
    let of = Jwt {
        jti: hex::encode(jwt.jti),
        kind: jwt.kind.label().to_owned(),
        spiffe_id: jwt.id.to_string(),
        audience: jwt.audience.iter().take(MOST_AUDIENCES).map(|audience| Text::from(audience.as_str())).collect(),
        expires: jwt.expires_at.unix_timestamp(),
        key: jwt.kid.clone(),
        evidence: hex::encode(&jwt.serial),
    };
    match outcome {
        Ok(()) => Act::JwtIssued(of),
        Err(reason) => Act::JwtRefused { token: of, reason: reason.as_str().to_owned() },
    }
}

pub(super) fn of_token(token: &NewJoinToken) -> Act {
    Act::JoinTokenMade {
        token_sha256: hex::encode(token.hash.as_bytes()),
        spiffe_id: token.id.to_string(),
        expires: token.expires_at.unix_timestamp(),
        actor: token.created_by.as_str().to_owned(),
    }
}

/// `rules`: as they are on record.
pub(super) fn of_revision(revision: &Revision, rules: &str) -> Act {
    Act::PolicyRevised {
        revision: revision.head.number,
        rules: revision.head.rules as u64,
        removed: revision.removed as u64,
        sha256: sha256(rules.as_bytes()),
        actor: revision.head.actor.as_str().to_owned(),
        comment: Text::from(revision.head.comment.as_str()),
    }
}

/// `changed`: how many attestations are good no more.
pub(super) fn of_standing(change: &StandingChange, changed: u64) -> Act {
    match change {
        StandingChange::Ban(ban) => Act::Banned {
            spiffe_id: ban.id.to_string(),
            actor: ban.actor.as_str().to_owned(),
            reason: Text::from(ban.reason.as_str()),
        },
        StandingChange::Unban(id) => Act::Unbanned { spiffe_id: id.to_string() },
        StandingChange::EvictNumber(number, _) => Act::Evicted { agent: number.0.to_string(), agents: changed },
        StandingChange::EvictId(id, _) => Act::Evicted { agent: id.to_string(), agents: changed },
    }
}

pub(super) fn of_renewal_request(request: &RenewalRequest) -> Act {
    Act::RenewalAsked { whose: request.whose.to_string(), within: request.within.as_secs() }
}

/// What was asked, and then what it came to: each serial number is in the log.
pub(super) async fn of_revocation(
    connection: &mut AnyConnection,
    revocation: &NewRevocation,
    recorded: &Recorded,
    log: &mut Appending,
) -> Result<(), sqlx::Error> {
    log.push(Act::Revoked(Revocation {
        number: recorded.number,
        kind: revocation.target.kind().to_owned(),
        target: Text::from(revocation.target.name().as_str()),
        reason: revocation.reason.number(),
        actor: revocation.actor.as_str().to_owned(),
        comment: Text::from(revocation.comment.as_str()),
        certificates: recorded.certificates,
        agents: recorded.agents,
        epoch: recorded.epoch,
    }))?;
    let mut after = recorded.before.cast_signed();
    loop {
        let rows: Vec<(i64, Vec<u8>, Vec<u8>)> = sqlx::query_as(
            "SELECT epoch, authority_key_id, value FROM revoked \
             WHERE revocation = $1 AND epoch > $2 AND kind = $3 ORDER BY epoch LIMIT $4",
        )
        .bind(recorded.number)
        .bind(after)
        .bind(Kind::SERIAL)
        .bind(SERIALS)
        .fetch_all(&mut *connection)
        .await?;
        let Some((last, ..)) = rows.last() else { return Ok(()) };
        after = *last;
        for of_one in rows.chunk_by(|(_, one, _), (_, next, _)| one == next) {
            let [(epoch, authority, _), ..] = of_one else { continue };
            log.push(Act::RevokedSerials {
                revocation: recorded.number,
                epoch: epoch.unsigned_abs(),
                authority: hex::encode(authority),
                serials: of_one.iter().map(|(_, _, serial)| hex::encode(serial)).collect(),
            })?;
        }
    }
}

fn sha256(bytes: &[u8]) -> String {
    hex::encode(signet_audit::sha256(bytes))
}

/// In one entry: 43 bytes each.
const SERIALS: i64 = 1_000;
/// In one entry, of 1,024 characters at most each.
const MOST_AUDIENCES: usize = 8;
