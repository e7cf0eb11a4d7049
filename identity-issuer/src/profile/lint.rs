//! The last look at a certificate before it is signed: everything in it is what its profile and its holder's entitlement say, and
//! nothing else is in it.
//!
//! The bytes that were looked at are the bytes that are signed. Whoever made them may have been wrong, or a library that changed.

use rcgen::{ExtendedKeyUsagePurpose, KeyUsagePurpose, SigningKey};
use rustls_pki_types::CertificateDer;
use x509_parser::extensions::{BasicConstraints, ExtendedKeyUsage, GeneralName, KeyUsage, ParsedExtension};
use x509_parser::oid_registry::{
    OID_SIG_ECDSA_WITH_SHA256, OID_X509_EXT_AUTHORITY_KEY_IDENTIFIER, OID_X509_EXT_BASIC_CONSTRAINTS,
    OID_X509_EXT_EXTENDED_KEY_USAGE, OID_X509_EXT_KEY_USAGE, OID_X509_EXT_SUBJECT_ALT_NAME,
    OID_X509_EXT_SUBJECT_KEY_IDENTIFIER, Oid,
};
use x509_parser::prelude::{FromDer, X509Certificate, X509Extension, X509Version};

use super::{Form, Profile, Validity};
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
        extensions(&certificate, expected)?;
        Ok(Self { tbs: certificate.tbs_certificate.as_ref().to_vec() })
    }

    /// ECDSA with SHA-256 (RFC 5758 §3.2).
    pub(crate) fn sign(self, key: &impl SigningKey) -> Result<CertificateDer<'static>, rcgen::Error> {
        let signature = key.sign(&self.tbs)?;
        let der = yasna::construct_der(|writer| {
            writer.write_sequence(|writer| {
                writer.next().write_der(&self.tbs);
                writer.next().write_sequence(|writer| {
                    writer.next().write_oid(&yasna::models::ObjectIdentifier::from_slice(&[1, 2, 840, 10045, 4, 3, 2]));
                });
                writer.next().write_bitvec_bytes(&signature, signature.len() * 8);
            });
        });
        Ok(der.into())
    }
}

fn finding(what: &'static str, source_of: &'static str) -> Finding {
    Finding { what, source_of }
}

fn require(holds: bool, what: &'static str, source_of: &'static str) -> Result<(), Finding> {
    if holds { Ok(()) } else { Err(finding(what, source_of)) }
}

fn basic_fields(certificate: &X509Certificate<'_>, expected: &Expected<'_>) -> Result<(), Finding> {
    let Validity { not_before, not_after } = expected.validity;
    require(certificate.version() == X509Version::V3, "it is not of version 3", "RFC 5280 §4.1.2.1")?;
    let serial = certificate.raw_serial();
    require(serial == expected.serial, "its serial number is another", "RFC 5280 §4.1.2.2")?;
    let is_positive = serial.first().is_some_and(|first| (1..0x80).contains(first)) && serial.len() <= 20;
    require(is_positive, "its serial number is not positive, or longer than 20 octets", "RFC 5280 §4.1.2.2")?;
    let algorithm = &certificate.tbs_certificate.signature.algorithm;
    require(*algorithm == OID_SIG_ECDSA_WITH_SHA256, "it names another signature algorithm", "RFC 5280 §4.1.2.3")?;
    require(
        certificate.issuer().as_raw() == expected.authority.subject,
        "it names another issuer",
        "RFC 5280 §4.1.2.4",
    )?;
    let validity = certificate.validity();
    let (begin, end) = (validity.not_before.to_datetime(), validity.not_after.to_datetime());
    require((begin, end) == (not_before, not_after), "its validity is another", "RFC 5280 §4.1.2.5")?;
    require(begin < end, "it ends before it begins", "RFC 5280 §4.1.2.5")?;
    let longest = expected.profile.max_ttl;
    require(end - begin <= longest, "it lives longer than its profile allows", "profile")?;
    require(end <= expected.authority.not_after, "it outlives its authority", "X.509 profile §1")?;
    require(certificate.public_key().raw == expected.spki, "it is for another key", "RFC 5280 §4.1.2.7")?;
    require(
        expected.profile.keys.contains(&expected.key_type),
        "its key is of a type that its profile has not",
        "profile",
    )
}

/// Each extension once, and each looked at.
fn extensions(certificate: &X509Certificate<'_>, expected: &Expected<'_>) -> Result<(), Finding> {
    let is_unique = certificate.extensions_map().is_ok();
    require(is_unique, "an extension is there twice", "RFC 5280 §4.2")?;
    let found = |oid: &Oid<'_>| certificate.extensions().iter().find(|extension| extension.oid == *oid);
    names(certificate, found(&OID_X509_EXT_SUBJECT_ALT_NAME), expected)?;
    basic_constraints(found(&OID_X509_EXT_BASIC_CONSTRAINTS), expected)?;
    key_usage(found(&OID_X509_EXT_KEY_USAGE), expected)?;
    extended_key_usage(found(&OID_X509_EXT_EXTENDED_KEY_USAGE), expected)?;
    key_ids(found(&OID_X509_EXT_AUTHORITY_KEY_IDENTIFIER), found(&OID_X509_EXT_SUBJECT_KEY_IDENTIFIER), expected)?;
    let known = [
        OID_X509_EXT_SUBJECT_ALT_NAME,
        OID_X509_EXT_BASIC_CONSTRAINTS,
        OID_X509_EXT_KEY_USAGE,
        OID_X509_EXT_EXTENDED_KEY_USAGE,
        OID_X509_EXT_AUTHORITY_KEY_IDENTIFIER,
        OID_X509_EXT_SUBJECT_KEY_IDENTIFIER,
    ];
    let mut others = certificate.extensions().iter().filter(|extension| !known.contains(&extension.oid));
    let mut wanted = match &expected.profile.form {
        Form::Leaf(leaf) => leaf.extensions.iter(),
        Form::SubordinateCa => [].iter(),
    };
    loop {
        match (others.next(), wanted.next()) {
            (None, None) => return Ok(()),
            (Some(found), Some(wanted)) => {
                let is_it = found.value == wanted.content()
                    && found.critical == wanted.criticality()
                    && found.oid.iter().is_some_and(|arcs| arcs.eq(wanted.oid_components()));
                require(is_it, "an extension is not as its profile has it", "profile")?;
            }
            (Some(_), None) => return Err(finding("an extension is there that its profile has not", "profile")),
            (None, Some(_)) => return Err(finding("an extension of its profile is missing", "profile")),
        }
    }
}

/// subjectAltName: one SPIFFE ID, the DNS names, nothing else.
fn names(
    certificate: &X509Certificate<'_>,
    extension: Option<&X509Extension<'_>>,
    expected: &Expected<'_>,
) -> Result<(), Finding> {
    const SOURCE: &str = "RFC 5280 §4.2.1.6";
    let extension = extension.ok_or_else(|| finding("it has no subjectAltName", SOURCE))?;
    let ParsedExtension::SubjectAlternativeName(names) = extension.parsed_extension() else {
        return Err(finding("its subjectAltName is malformed", SOURCE));
    };
    let has_subject = certificate.subject().iter().next().is_some();
    require(extension.critical != has_subject, "its subjectAltName is critical, or not, against its subject", SOURCE)?;
    let id = &expected.entitlement.id;
    let domain = id.trust_domain().id();
    let (uri, dns_names) = match &expected.profile.form {
        Form::Leaf(leaf) => {
            require(has_subject != leaf.subject.is_empty(), "its subject is not its profile's", "profile")?;
            (id.as_str(), &expected.entitlement.dns_names[..])
        }
        Form::SubordinateCa => {
            require(has_subject, "a CA has no subject", "RFC 5280 §4.1.2.6")?;
            (domain.as_str(), &[][..])
        }
    };
    let mut found = names.general_names.iter();
    let is_id = matches!(found.next(), Some(GeneralName::URI(found)) if *found == uri);
    require(is_id, "its first name is not its SPIFFE ID", "X509-SVID §2")?;
    let others = found.map(|name| match name {
        GeneralName::DNSName(name) => Some(*name),
        _ => None,
    });
    let are_these = others.eq(dns_names.iter().map(|name| Some(name.as_str())));
    require(are_these, "it has a name that nobody gave it, or lacks one", "X509-SVID §2")
}

fn basic_constraints(extension: Option<&X509Extension<'_>>, expected: &Expected<'_>) -> Result<(), Finding> {
    const SOURCE: &str = "RFC 5280 §4.2.1.9";
    let extension = extension.ok_or_else(|| finding("it has no basicConstraints", SOURCE))?;
    let ParsedExtension::BasicConstraints(BasicConstraints { ca, path_len_constraint }) = extension.parsed_extension()
    else {
        return Err(finding("its basicConstraints are malformed", SOURCE));
    };
    require(extension.critical, "its basicConstraints are not critical", SOURCE)?;
    match expected.profile.form {
        Form::Leaf(_) => require(!ca && path_len_constraint.is_none(), "a leaf is a CA", SOURCE),
        Form::SubordinateCa => {
            let allowed = expected.authority.path_length.checked_sub(1).map(u32::from);
            let fits = *ca && allowed.is_some() && *path_len_constraint == allowed;
            require(fits, "a CA reaches further than its authority allows", SOURCE)
        }
    }
}

fn key_usage(extension: Option<&X509Extension<'_>>, expected: &Expected<'_>) -> Result<(), Finding> {
    const SOURCE: &str = "RFC 5280 §4.2.1.3";
    let extension = extension.ok_or_else(|| finding("it has no keyUsage", SOURCE))?;
    let ParsedExtension::KeyUsage(KeyUsage { flags }) = extension.parsed_extension() else {
        return Err(finding("its keyUsage is malformed", SOURCE));
    };
    require(extension.critical, "its keyUsage is not critical", SOURCE)?;
    let wanted = expected.profile.key_usages(expected.key_type).iter().fold(0, |flags, usage| flags | flag(*usage));
    require(*flags == wanted, "its keyUsage is not its profile's", "profile")?;
    let signs = flags & (flag(KeyUsagePurpose::KeyCertSign) | flag(KeyUsagePurpose::CrlSign)) != 0;
    let may_sign = matches!(expected.profile.form, Form::SubordinateCa);
    require(signs == may_sign, "a leaf may sign certificates or CRLs", "X509-SVID §4.3")
}

/// As x509-parser numbers the bits.
fn flag(usage: KeyUsagePurpose) -> u16 {
    match usage {
        KeyUsagePurpose::DigitalSignature => 1,
        KeyUsagePurpose::ContentCommitment => 1 << 1,
        KeyUsagePurpose::KeyEncipherment => 1 << 2,
        KeyUsagePurpose::DataEncipherment => 1 << 3,
        KeyUsagePurpose::KeyAgreement => 1 << 4,
        KeyUsagePurpose::KeyCertSign => 1 << 5,
        KeyUsagePurpose::CrlSign => 1 << 6,
        KeyUsagePurpose::EncipherOnly => 1 << 7,
        KeyUsagePurpose::DecipherOnly => 1 << 8,
    }
}

fn extended_key_usage(extension: Option<&X509Extension<'_>>, expected: &Expected<'_>) -> Result<(), Finding> {
    const SOURCE: &str = "RFC 5280 §4.2.1.12";
    let wanted = match &expected.profile.form {
        Form::Leaf(leaf) => &leaf.extended_key_usages[..],
        Form::SubordinateCa => &[],
    };
    let Some(extension) = extension else {
        return require(wanted.is_empty(), "it has no extKeyUsage, and so is good for everything", SOURCE);
    };
    let ParsedExtension::ExtendedKeyUsage(found) = extension.parsed_extension() else {
        return Err(finding("its extKeyUsage is malformed", SOURCE));
    };
    require(
        purposes(found).is_some_and(|found| found == purposes_of(wanted)),
        "its extKeyUsage is not its profile's",
        "profile",
    )
}

/// In their order; None where it is good for any.
fn purposes(found: &ExtendedKeyUsage<'_>) -> Option<Vec<Vec<u64>>> {
    if found.any {
        return None;
    }
    let named = [
        (found.server_auth, ExtendedKeyUsagePurpose::ServerAuth),
        (found.client_auth, ExtendedKeyUsagePurpose::ClientAuth),
        (found.code_signing, ExtendedKeyUsagePurpose::CodeSigning),
        (found.email_protection, ExtendedKeyUsagePurpose::EmailProtection),
        (found.time_stamping, ExtendedKeyUsagePurpose::TimeStamping),
        (found.ocsp_signing, ExtendedKeyUsagePurpose::OcspSigning),
    ];
    let named = named.iter().filter(|(is_there, _)| *is_there).map(|(_, purpose)| arcs(purpose));
    let others = found.other.iter().map(|oid| oid.iter().map(Iterator::collect));
    let mut all = named.map(Some).chain(others).collect::<Option<Vec<Vec<u64>>>>()?;
    all.sort();
    Some(all)
}

fn purposes_of(wanted: &[ExtendedKeyUsagePurpose]) -> Vec<Vec<u64>> {
    let mut all: Vec<_> = wanted.iter().map(arcs).collect();
    all.sort();
    all
}

/// The OID.
fn arcs(purpose: &ExtendedKeyUsagePurpose) -> Vec<u64> {
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

fn key_ids(
    authority: Option<&X509Extension<'_>>,
    subject: Option<&X509Extension<'_>>,
    expected: &Expected<'_>,
) -> Result<(), Finding> {
    let authority = match authority.map(|extension| (extension.critical, extension.parsed_extension())) {
        Some((false, ParsedExtension::AuthorityKeyIdentifier(found))) => found.key_identifier.as_ref().map(|id| id.0),
        _ => None,
    };
    require(
        authority == Some(expected.authority.key_id),
        "its authority's key identifier is another",
        "RFC 5280 §4.2.1.1",
    )?;
    let subject = match subject.map(|extension| (extension.critical, extension.parsed_extension())) {
        Some((false, ParsedExtension::SubjectKeyIdentifier(found))) => Some(found.0),
        _ => None,
    };
    let has_one = subject.is_some_and(|id| !id.is_empty() && id != expected.authority.key_id);
    require(has_one, "it has no key identifier of its own", "RFC 5280 §4.2.1.2")
}

#[cfg(test)]
mod tests;
