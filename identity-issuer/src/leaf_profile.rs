//! What an X.509-SVID leaf looks like (X509-SVID §4, and what real verifiers enforce beyond it).

use std::time::Duration;

use rcgen::{
    CertificateParams, DistinguishedName, ExtendedKeyUsagePurpose, IsCa, KeyUsagePurpose, SanType, SerialNumber,
};
use time::OffsetDateTime;

use crate::entitlement::Entitlement;

/// How long leaves live.
#[derive(Clone, Debug)]
pub(crate) struct LeafProfile {
    ttl: Duration,
    backdate: Duration,
}

#[derive(Copy, Clone, Debug, Eq, PartialEq)]
pub(crate) struct Validity {
    pub(crate) not_before: OffsetDateTime,
    pub(crate) not_after: OffsetDateTime,
}

impl LeafProfile {
    /// `ttl` is the whole of notBefore to notAfter, so that none is ever older than it. `backdate` is the part of it
    /// that lies before the making, for verifiers whose clocks are late; more than a tenth of `ttl` is cut to that.
    pub(crate) fn new(ttl: Duration, backdate: Duration) -> Self {
        Self { ttl, backdate: backdate.min(ttl / 10) }
    }

    /// The same with another life.
    pub(crate) fn with_ttl(&self, ttl: Option<Duration>) -> Self {
        ttl.map_or_else(|| self.clone(), |ttl| Self::new(ttl, self.backdate))
    }

    /// Whole seconds (RFC 5280 §4.1.2.5), and not beyond `end`. None if nothing would be left.
    pub(crate) fn validity(&self, now: OffsetDateTime, end: OffsetDateTime) -> Option<Validity> {
        let now = now.replace_nanosecond(0).unwrap_or(now);
        let end = end.replace_nanosecond(0).unwrap_or(end);
        let not_before = now - Duration::from_secs(self.backdate.as_secs());
        let not_after = (not_before + Duration::from_secs(self.ttl.as_secs())).min(end);
        (not_after > now).then_some(Validity { not_before, not_after })
    }

    pub(crate) fn params(
        &self,
        entitlement: &Entitlement,
        serial: &[u8],
        validity: Validity,
    ) -> Result<CertificateParams, rcgen::Error> {
        let mut params = CertificateParams::default();
        // An empty subject makes rcgen write the SAN as critical (RFC 5280 §4.2.1.6).
        params.distinguished_name = DistinguishedName::new();
        params.subject_alt_names = vec![SanType::URI(entitlement.id.as_str().try_into()?)];
        for name in &entitlement.dns_names {
            params.subject_alt_names.push(SanType::DnsName(name.as_str().try_into()?));
        }
        // Written out: SPIFFE libraries in Rust and Python refuse leaves without basicConstraints.
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.use_authority_key_identifier_extension = true;
        params.serial_number = Some(SerialNumber::from_slice(serial));
        params.not_before = validity.not_before;
        params.not_after = validity.not_after;
        Ok(params)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn at(seconds: i64) -> OffsetDateTime {
        OffsetDateTime::from_unix_timestamp(1_800_000_000 + seconds).unwrap()
    }

    #[test]
    fn the_whole_validity_is_the_ttl_and_the_backdate_a_tenth_of_it_at_most() {
        for (ttl, backdate, before, after) in
            [(3600, 60, -60, 3540), (60, 60, -6, 54), (10, 60, -1, 9), (5, 60, 0, 5), (10, 0, 0, 10)]
        {
            let profile = LeafProfile::new(Duration::from_secs(ttl), Duration::from_secs(backdate));
            let now = at(0) + Duration::from_millis(999);
            let validity = profile.validity(now, at(1_000_000)).unwrap();
            assert_eq!(validity, Validity { not_before: at(before), not_after: at(after) }, "{ttl}");
        }
    }

    #[test]
    fn no_leaf_outlives_its_issuer() {
        let profile = LeafProfile::new(Duration::from_secs(3600), Duration::from_secs(60));
        assert_eq!(profile.validity(at(0), at(100)).unwrap().not_after, at(100));
        assert_eq!(profile.validity(at(0), at(0)), None);
        assert_eq!(profile.validity(at(0), at(-1)), None);
    }
}
