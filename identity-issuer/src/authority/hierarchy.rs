//! What CA certificates look like: the root that signs itself, and the intermediate it signs.

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, KeyIdMethod, KeyUsagePurpose, PublicKeyData,
    SanType, SerialNumber,
};
use signet_identity::TrustDomain;
use time::{Duration, OffsetDateTime};

use super::CaKey;
use super::custody::Kind;
use crate::serial::new_serial;

/// How far a CA's notBefore lies before its making, so that verifiers whose clocks are late accept it at once.
const BACKDATE: Duration = Duration::minutes(5);

#[derive(Copy, Clone, Debug, Eq, PartialEq)]
pub(crate) enum Level {
    Root,
    /// With so many CAs below it; without any, it signs leaves only.
    Intermediate {
        path_length: u8,
    },
}

/// A CA certificate to be signed, of `life` from now, cut off at the end of the one above it.
///
/// Its subject is unique for each key: path builders that look authorities up by name mix them up otherwise.
pub(crate) fn ca_certificate(
    level: Level,
    trust_domain: &TrustDomain,
    key: &impl PublicKeyData,
    validity: (OffsetDateTime, OffsetDateTime),
) -> Result<CertificateParams, rcgen::Error> {
    let mut params = CertificateParams::default();
    let key_id = params.key_identifier(key);
    let (name, constraint) = match level {
        Level::Root => (ROOT, BasicConstraints::Unconstrained),
        Level::Intermediate { path_length } => (INTERMEDIATE, BasicConstraints::Constrained(path_length)),
    };
    params.distinguished_name = DistinguishedName::new();
    for (attribute, value) in subject(name, &key_id) {
        params.distinguished_name.push(attribute, value);
    }
    params.subject_alt_names = vec![SanType::URI(trust_domain.id().as_str().try_into()?)];
    params.is_ca = IsCa::Ca(constraint);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.use_authority_key_identifier_extension = true;
    params.key_identifier_method = KeyIdMethod::PreSpecified(key_id);
    (params.not_before, params.not_after) = validity;
    let serial = new_serial(params.not_before).map_err(|_| rcgen::Error::RingUnspecified)?;
    params.serial_number = Some(SerialNumber::from_slice(&serial));
    Ok(params)
}

/// Of the CA of a key, whose identifier has 20 octets.
pub(crate) fn subject(name: &str, key_id: &[u8]) -> [(DnType, String); 2] {
    let common_name = format!("{name} {}", hex::encode(&key_id[..16]));
    [(DnType::OrganizationName, "Signet".to_owned()), (DnType::CommonName, common_name)]
}

const ROOT: &str = "root";
pub(crate) const INTERMEDIATE: &str = "intermediate";

/// From a little before `now`, for `life`, in whole seconds, and not beyond `end`.
pub(crate) fn ca_validity(
    now: OffsetDateTime,
    life: std::time::Duration,
    end: Option<OffsetDateTime>,
) -> (OffsetDateTime, OffsetDateTime) {
    let now = now.replace_nanosecond(0).unwrap_or(now);
    let not_after = now + life;
    (now - BACKDATE, end.map_or(not_after, |end| end.min(not_after)))
}

/// The request for an intermediate: who asks is in the name for the eyes of the one who signs; only the key counts.
pub(crate) fn intermediate_request(trust_domain: &TrustDomain, key: &CaKey) -> Result<Vec<u8>, rcgen::Error> {
    let mut params = CertificateParams::default();
    let key_id = params.key_identifier(key);
    params.distinguished_name = DistinguishedName::new();
    for (attribute, value) in subject(INTERMEDIATE, &key_id) {
        params.distinguished_name.push(attribute, value);
    }
    params.subject_alt_names = vec![SanType::URI(trust_domain.id().as_str().try_into()?)];
    Ok(params.serialize_request(&key.signer(Kind::Request))?.der().to_vec())
}
