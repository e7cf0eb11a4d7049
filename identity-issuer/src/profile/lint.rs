//! The last look at a certificate before it is signed: everything in it is what its profile and its holder's entitlement say, and
//! nothing else is in it.
//!
//! The bytes that were looked at are the bytes that are signed. Whoever made them may have been wrong, or a library that changed.

use aws_lc_rs::digest::{SHA256, digest};
use rcgen::{DnType, ExtendedKeyUsagePurpose, KeyUsagePurpose};
use rustls_pki_types::CertificateDer;
use x509_parser::oid_registry::OID_SIG_ECDSA_WITH_SHA256;
use x509_parser::prelude::{FromDer, X509Certificate, X509Version};
use yasna::Tag;
use yasna::models::{GeneralizedTime, ObjectIdentifier, UTCTime};

use super::{Form, Profile, Validity};
use crate::authority::custody::{CaKey, Kind, SignError};
use crate::entitlement::Entitlement;
use crate::key_type::KeyType;

/// What the certificate has to be.
#[derive(Debug)]
pub(crate) struct Expected<'a> {
    pub(crate) profile: &'a Profile,
    pub(crate) entitlement: &'a Entitlement,
    pub(crate) key_type: KeyType,
    /// SubjectPublicKeyInfo, DER.
    pub(crate) spki: &'a [u8],
    pub(crate) serial: &'a [u8],
    pub(crate) validity: Validity,
    /// Where the list is that it would stand in.
    pub(crate) crl: Option<&'a str>,
    pub(crate) authority: Above<'a>,
}

/// The authority that is to sign it.
#[derive(Copy, Clone, Debug)]
pub(crate) struct Above<'a> {
    /// Its subject, DER.
    pub(crate) subject: &'a [u8],
    pub(crate) key_id: &'a [u8],
    pub(crate) not_after: time::OffsetDateTime,
    pub(crate) path_length: u8,
}

/// A certificate without its signature, in which everything is in order. [`sign`](Self::sign) uses it up.
#[derive(Debug)]
pub(crate) struct LintedCertificate {
    /// TBSCertificate, DER (RFC 5280 §4.1.2).
    tbs: Vec<u8>,
}

/// What is not in order, and where that is required.
#[derive(Copy, Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("{what} ({source_of})")]
pub struct Finding {
    what: &'static str,
    source_of: &'static str,
}

/// A TLS peer takes no larger one, and no profile makes one.
const MAX_BYTES: usize = 8 * 1024;

impl LintedCertificate {
    /// `unsigned` is the whole certificate with anything for a signature.
    pub(crate) fn check(unsigned: &[u8], expected: &Expected<'_>) -> Result<Self, Finding> {
        if unsigned.len() > MAX_BYTES {
            return Err(finding("it is larger than 8 KiB", "X.509 profile"));
        }
        let (rest, certificate) =
            X509Certificate::from_der(unsigned).map_err(|_| finding("it is no certificate in DER", "RFC 5280 §4.1"))?;
        require(rest.is_empty(), "something follows it", "RFC 5280 §4.1")?;
        basic_fields(&certificate, expected)?;
        let wanted = wanted_extensions(expected);
        extensions(&certificate, &wanted, expected)?;
        // Whatever a parser overlooks.
        let tbs = certificate.tbs_certificate.as_ref();
        require(tbs == encoded(expected, &wanted), "it is encoded in another way than DER's", "X.690 §10")?;
        Ok(Self { tbs: tbs.to_vec() })
    }

    /// ECDSA with SHA-256 (RFC 5758 §3.2).
    pub(crate) fn sign(self, key: &CaKey) -> Result<CertificateDer<'static>, SignError> {
        Ok(with_signature(&self.tbs, &key.sign(Kind::Certificate, &self.tbs)?).into())
    }
}

/// What is to be signed, and its signature: ECDSA with SHA-256 (RFC 5758 §3.2).
pub(crate) fn with_signature(tbs: &[u8], signature: &[u8]) -> Vec<u8> {
    yasna::construct_der(|writer| {
        writer.write_sequence(|writer| {
            writer.next().write_der(tbs);
            ecdsa_with_sha256(writer.next());
            writer.next().write_bitvec_bytes(signature, signature.len() * 8);
        });
    })
}

fn finding(what: &'static str, source_of: &'static str) -> Finding {
    Finding { what, source_of }
}

fn require(holds: bool, what: &'static str, source_of: &'static str) -> Result<(), Finding> {
    if holds { Ok(()) } else { Err(finding(what, source_of)) }
}

fn basic_fields(certificate: &X509Certificate<'_>, expected: &Expected<'_>) -> Result<(), Finding> {
    let Validity { not_before, not_after } = expected.validity;
    let tbs = &certificate.tbs_certificate;
    require(certificate.version() == X509Version::V3, "it is not of version 3", "RFC 5280 §4.1.2.1")?;
    let serial = certificate.raw_serial();
    require(serial == expected.serial, "its serial number is another", "RFC 5280 §4.1.2.2")?;
    let is_positive = serial.first().is_some_and(|first| (1..0x80).contains(first)) && serial.len() <= 20;
    require(is_positive, "its serial number is not positive, or longer than 20 octets", "RFC 5280 §4.1.2.2")?;
    let is_ecdsa = tbs.signature.algorithm == OID_SIG_ECDSA_WITH_SHA256 && tbs.signature.parameters.is_none();
    require(is_ecdsa, "it names another signature algorithm", "RFC 5758 §3.2")?;
    let issuer = certificate.issuer().as_raw();
    require(issuer == expected.authority.subject, "it names another issuer", "RFC 5280 §4.1.2.4")?;
    let validity = certificate.validity();
    let (begin, end) = (validity.not_before.to_datetime(), validity.not_after.to_datetime());
    require((begin, end) == (not_before, not_after), "its validity is another", "RFC 5280 §4.1.2.5")?;
    require(begin < end, "it ends before it begins", "RFC 5280 §4.1.2.5")?;
    let longest = expected.profile.max_ttl;
    require(end - begin <= longest, "it lives longer than its profile allows", "profile")?;
    require(end <= expected.authority.not_after, "it outlives its authority", "X.509 profile §1")?;
    require(certificate.subject().as_raw() == subject(expected), "its subject is not its profile's", "profile")?;
    require(certificate.public_key().raw == expected.spki, "it is for another key", "RFC 5280 §4.1.2.7")?;
    let has_key = expected.profile.keys.contains(&expected.key_type);
    require(has_key, "its key is of a type that its profile has not", "profile")?;
    let has_unique_ids = tbs.issuer_uid.is_some() || tbs.subject_uid.is_some();
    require(!has_unique_ids, "it has a unique identifier", "RFC 5280 §4.1.2.8")
}

/// Each extension that belongs there, once, as it should be; and no other.
fn extensions(certificate: &X509Certificate<'_>, wanted: &[Wanted], expected: &Expected<'_>) -> Result<(), Finding> {
    let may_have_no_ca_below = expected.authority.path_length == 0;
    let is_ca = matches!(expected.profile.form, Form::SubordinateCa);
    require(!(is_ca && may_have_no_ca_below), "its authority may have no CA below it", "RFC 5280 §4.2.1.9")?;
    for Wanted { oid, name, critical, value } in wanted {
        let is_it = |found: &&x509_parser::prelude::X509Extension<'_>| {
            found.oid.iter().is_some_and(|arcs| arcs.eq(oid.iter().copied()))
        };
        let mut found = certificate.extensions().iter().filter(is_it);
        let (Some(only), None) = (found.next(), found.next()) else {
            return Err(finding(name.once, "RFC 5280 §4.2"));
        };
        require(only.critical == *critical && only.value == value, name.differs, name.source_of)?;
    }
    let has_others = certificate.extensions().len() != wanted.len();
    require(!has_others, "an extension is there that its profile has not", "profile")
}

struct Wanted {
    oid: Vec<u64>,
    name: &'static Name,
    critical: bool,
    /// DER.
    value: Vec<u8>,
}

/// What is said of an extension.
struct Name {
    once: &'static str,
    differs: &'static str,
    source_of: &'static str,
}

macro_rules! name {
    ($name:literal, $source:literal) => {
        &Name {
            once: concat!("its ", $name, " is missing, or there twice"),
            differs: concat!("its ", $name, " is not what it should be"),
            source_of: $source,
        }
    };
}

/// In the order in which rcgen writes them.
fn wanted_extensions(expected: &Expected<'_>) -> Vec<Wanted> {
    let id_ce = |last| vec![2, 5, 29, last];
    let mut wanted = Vec::new();
    let mut want = |oid, name, critical, value| wanted.push(Wanted { oid, name, critical, value });
    let authority_key_id = yasna::construct_der(|writer| {
        writer
            .write_sequence(|writer| tagged(writer.next(), 0, |writer| writer.write_bytes(expected.authority.key_id)));
    });
    want(id_ce(35), name!("authorityKeyIdentifier", "RFC 5280 §4.2.1.1"), false, authority_key_id);
    if let Some(names) = names(expected) {
        let has_no_subject = expected.profile.subject(expected.entitlement, expected.spki).is_empty();
        want(id_ce(17), name!("subjectAltName", "X509-SVID §2"), has_no_subject, names);
    }
    want(id_ce(15), name!("keyUsage", "RFC 5280 §4.2.1.3"), true, key_usage(expected));
    if let Form::Leaf(leaf) = &expected.profile.form {
        let purposes = yasna::construct_der(|writer| {
            writer.write_sequence(|writer| {
                for purpose in &leaf.extended_key_usages {
                    writer.next().write_oid(&ObjectIdentifier::new(arcs(purpose)));
                }
            });
        });
        want(id_ce(37), name!("extKeyUsage", "RFC 5280 §4.2.1.12"), false, purposes);
    }
    if let Some(uri) = expected.crl {
        want(id_ce(31), name!("cRLDistributionPoints", "RFC 5280 §4.2.1.13"), false, crl_distribution_points(uri));
    }
    // Method (1) of RFC 7093 §2: the leftmost 160 bits.
    let key_id = &digest(&SHA256, expected.spki).as_ref()[..20].to_vec();
    let key_id = yasna::construct_der(|writer| writer.write_bytes(key_id));
    want(id_ce(14), name!("subjectKeyIdentifier", "RFC 5280 §4.2.1.2"), false, key_id);
    want(id_ce(19), name!("basicConstraints", "RFC 5280 §4.2.1.9"), true, basic_constraints(expected));
    if let Form::Leaf(leaf) = &expected.profile.form {
        for extension in &leaf.extensions {
            let oid = extension.oid_components().collect();
            want(oid, name!("extension", "profile"), extension.criticality(), extension.content().to_vec());
        }
    }
    wanted
}

/// TBSCertificate (RFC 5280 §4.1.2), written once more, by other code than that which made the certificate.
fn encoded(expected: &Expected<'_>, extensions: &[Wanted]) -> Vec<u8> {
    let Validity { not_before, not_after } = expected.validity;
    yasna::construct_der(|writer| {
        writer.write_sequence(|writer| {
            // v3
            writer.next().write_tagged(Tag::context(0), |writer| writer.write_u8(2));
            writer.next().write_bigint_bytes(expected.serial, true);
            ecdsa_with_sha256(writer.next());
            writer.next().write_der(expected.authority.subject);
            writer.next().write_sequence(|writer| [not_before, not_after].map(|at| time(writer.next(), at)));
            writer.next().write_der(&subject(expected));
            writer.next().write_der(expected.spki);
            writer.next().write_tagged(Tag::context(3), |writer| {
                writer.write_sequence(|writer| {
                    for Wanted { oid, critical, value, .. } in extensions {
                        writer.next().write_sequence(|writer| {
                            writer.next().write_oid(&ObjectIdentifier::from_slice(oid));
                            if *critical {
                                writer.next().write_bool(true);
                            }
                            writer.next().write_bytes(value);
                        });
                    }
                });
            });
        });
    })
}

fn ecdsa_with_sha256(writer: yasna::DERWriter<'_>) {
    writer.write_sequence(|writer| {
        writer.next().write_oid(&ObjectIdentifier::from_slice(&[1, 2, 840, 10045, 4, 3, 2]));
    });
}

/// UTCTime until 2049, GeneralizedTime from then on (RFC 5280 §4.1.2.5).
fn time(writer: yasna::DERWriter<'_>, at: time::OffsetDateTime) {
    match at.year() {
        1950..2050 => writer.write_utctime(&UTCTime::from_datetime(at)),
        _ => writer.write_generalized_time(&GeneralizedTime::from_datetime(at)),
    }
}

fn tagged(writer: yasna::DERWriter<'_>, tag: u64, write: impl FnOnce(yasna::DERWriter<'_>)) {
    writer.write_tagged_implicit(Tag::context(tag), write);
}

/// GeneralNames (RFC 5280 §4.2.1.6); none where the subject is the only name.
fn names(expected: &Expected<'_>) -> Option<Vec<u8>> {
    const DNS_NAME: u64 = 2;
    const URI: u64 = 6;
    let Entitlement { id, dns_names, .. } = expected.entitlement;
    let domain = id.trust_domain().id();
    let (uri, dns_names) = match &expected.profile.form {
        Form::Leaf(_) if expected.profile.is_identity() => (Some(id.as_str()), &dns_names[..]),
        Form::Leaf(_) => (None, &dns_names[..]),
        Form::SubordinateCa => (Some(domain.as_str()), &[][..]),
    };
    (uri.is_some() || !dns_names.is_empty()).then(|| {
        yasna::construct_der(|writer| {
            writer.write_sequence(|writer| {
                let uri = uri.map(|uri| (URI, uri));
                for (tag, name) in uri.into_iter().chain(dns_names.iter().map(|name| (DNS_NAME, name.as_str()))) {
                    tagged(writer.next(), tag, |writer| writer.write_ia5_string(name));
                }
            });
        })
    })
}

/// Bit 0 is the first, and no zeros stand behind the last that is set (X.690 §11.2.2).
fn key_usage(expected: &Expected<'_>) -> Vec<u8> {
    let usages = expected.profile.key_usages(expected.key_type);
    let bits: Vec<usize> = usages.into_iter().map(bit).collect();
    let count = bits.iter().max().map_or(0, |last| last + 1);
    let mut bytes = vec![0_u8; count.div_ceil(8)];
    bits.iter().for_each(|bit| bytes[bit / 8] |= 0x80 >> (bit % 8));
    yasna::construct_der(|writer| writer.write_bitvec_bytes(&bytes, count))
}

/// One point, of one name (RFC 5280 §4.2.1.13).
fn crl_distribution_points(uri: &str) -> Vec<u8> {
    yasna::construct_der(|writer| {
        writer.write_sequence(|writer| {
            writer.next().write_sequence(|writer| {
                // DistributionPointName is a CHOICE: its tag is explicit.
                writer.next().write_tagged(Tag::context(0), |writer| {
                    tagged(writer, 0, |writer| {
                        writer.write_sequence(|writer| {
                            tagged(writer.next(), 6, |writer| writer.write_ia5_string(uri));
                        });
                    });
                });
            });
        });
    })
}

fn bit(usage: KeyUsagePurpose) -> usize {
    match usage {
        KeyUsagePurpose::DigitalSignature => 0,
        KeyUsagePurpose::ContentCommitment => 1,
        KeyUsagePurpose::KeyEncipherment => 2,
        KeyUsagePurpose::DataEncipherment => 3,
        KeyUsagePurpose::KeyAgreement => 4,
        KeyUsagePurpose::KeyCertSign => 5,
        KeyUsagePurpose::CrlSign => 6,
        KeyUsagePurpose::EncipherOnly => 7,
        KeyUsagePurpose::DecipherOnly => 8,
    }
}

fn basic_constraints(expected: &Expected<'_>) -> Vec<u8> {
    yasna::construct_der(|writer| {
        writer.write_sequence(|writer| match (&expected.profile.form, expected.authority.path_length.checked_sub(1)) {
            (Form::SubordinateCa, Some(below)) => {
                writer.next().write_bool(true);
                writer.next().write_u8(below);
            }
            (Form::Leaf(_), _) | (Form::SubordinateCa, None) => {}
        });
    })
}

/// The OID (RFC 5280 §4.2.1.12).
pub(crate) fn arcs(purpose: &ExtendedKeyUsagePurpose) -> Vec<u64> {
    let id_kp = |last| vec![1, 3, 6, 1, 5, 5, 7, 3, last];
    match purpose {
        ExtendedKeyUsagePurpose::Any => vec![2, 5, 29, 37, 0],
        ExtendedKeyUsagePurpose::ServerAuth => id_kp(1),
        ExtendedKeyUsagePurpose::ClientAuth => id_kp(2),
        ExtendedKeyUsagePurpose::CodeSigning => id_kp(3),
        ExtendedKeyUsagePurpose::EmailProtection => id_kp(4),
        ExtendedKeyUsagePurpose::TimeStamping => id_kp(8),
        ExtendedKeyUsagePurpose::OcspSigning => id_kp(9),
        ExtendedKeyUsagePurpose::Other(arcs) => arcs.clone(),
    }
}

/// A Name with one attribute in each RDN (RFC 5280 §4.1.2.6).
fn subject(expected: &Expected<'_>) -> Vec<u8> {
    yasna::construct_der(|writer| {
        writer.write_sequence(|writer| {
            for (attribute, value) in expected.profile.subject(expected.entitlement, expected.spki) {
                let last = match attribute {
                    DnType::CommonName => 3,
                    DnType::CountryName => 6,
                    DnType::OrganizationName => 10,
                    DnType::OrganizationalUnitName => 11,
                    // Of those no profile has any: the certificate is refused for what it has instead.
                    _ => 0,
                };
                writer.next().write_set(|writer| {
                    writer.next().write_sequence(|writer| {
                        writer.next().write_oid(&ObjectIdentifier::from_slice(&[2, 5, 4, last]));
                        match attribute {
                            DnType::CountryName => writer.next().write_printable_string(&value),
                            _ => writer.next().write_utf8_string(&value),
                        }
                    });
                });
            }
        });
    })
}

#[cfg(test)]
mod tests;
