//! What a CA certificate says, read once.

use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1, UnparsedPublicKey};
use rcgen::Issuer;
use rustls_pki_types::CertificateDer;
use time::OffsetDateTime;
use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::oid_registry::OID_X509_EXT_EXTENDED_KEY_USAGE;
use x509_parser::prelude::{FromDer, X509Certificate};
use x509_parser::x509::SubjectPublicKeyInfo;

use super::{KeyId, Unsigned};

/// A CA certificate, parsed. Nothing is verified yet.
#[derive(Clone, Debug)]
pub(crate) struct CaCertificate {
    pub(crate) der: CertificateDer<'static>,
    /// For people.
    pub(crate) subject: String,
    /// The subject's DER, for comparison.
    pub(crate) subject_der: Vec<u8>,
    pub(crate) issuer_der: Vec<u8>,
    /// SubjectPublicKeyInfo, DER.
    pub(crate) spki: Vec<u8>,
    pub(crate) key_id: Option<KeyId>,
    /// Big endian.
    pub(crate) serial: Vec<u8>,
    /// Of the key that signed it, where it says so.
    pub(crate) authority_key_id: Option<KeyId>,
    pub(crate) not_before: OffsetDateTime,
    pub(crate) not_after: OffsetDateTime,
    pub(crate) constraint: Constraint,
    pub(crate) signs_certificates: bool,
    pub(crate) uris: Vec<String>,
    /// What verifiers take certificates below it for, as object identifiers. Empty: anything.
    pub(crate) purposes: Vec<Vec<u64>>,
    pub(crate) constrains_names: bool,
    pub(crate) unknown_critical_extension: Option<String>,
}

/// basicConstraints (RFC 5280 §4.2.1.9).
#[derive(Copy, Clone, Debug, Eq, PartialEq)]
pub(crate) enum Constraint {
    NotCritical,
    NoCa,
    Unconstrained,
    PathLength(u32),
}

#[derive(Debug, thiserror::Error)]
#[error("not a certificate in DER, version 3")]
pub(crate) struct MalformedCertificate;

impl CaCertificate {
    pub(crate) fn parse(der: Vec<u8>) -> Result<Self, MalformedCertificate> {
        let certificate = parse_whole(&der)?;
        let constraint = match certificate.basic_constraints().map_err(|_| MalformedCertificate)? {
            None => Constraint::NoCa,
            Some(found) if !found.value.ca => Constraint::NoCa,
            Some(found) if !found.critical => Constraint::NotCritical,
            Some(found) => found.value.path_len_constraint.map_or(Constraint::Unconstrained, Constraint::PathLength),
        };
        let usage = certificate.key_usage().map_err(|_| MalformedCertificate)?;
        let names = certificate.subject_alternative_name().map_err(|_| MalformedCertificate)?;
        let uris = names.iter().flat_map(|names| &names.value.general_names).filter_map(|name| match name {
            GeneralName::URI(uri) => Some((*uri).to_owned()),
            _ => None,
        });
        Ok(Self {
            subject: certificate.subject().to_string(),
            subject_der: certificate.subject().as_raw().to_vec(),
            issuer_der: certificate.issuer().as_raw().to_vec(),
            spki: certificate.public_key().raw.to_vec(),
            key_id: certificate.iter_extensions().find_map(|extension| match extension.parsed_extension() {
                ParsedExtension::SubjectKeyIdentifier(id) => Some(KeyId::new(id.0)),
                _ => None,
            }),
            serial: certificate.raw_serial().to_vec(),
            authority_key_id: certificate.iter_extensions().find_map(|extension| match extension.parsed_extension() {
                ParsedExtension::AuthorityKeyIdentifier(id) => id.key_identifier.as_ref().map(|id| KeyId::new(id.0)),
                _ => None,
            }),
            not_before: certificate.validity().not_before.to_datetime(),
            not_after: certificate.validity().not_after.to_datetime(),
            constraint,
            signs_certificates: usage.is_some_and(|usage| usage.critical && usage.value.key_cert_sign()),
            uris: uris.collect(),
            purposes: purposes(&certificate)?,
            constrains_names: certificate.name_constraints().map_err(|_| MalformedCertificate)?.is_some(),
            unknown_critical_extension: certificate
                .iter_extensions()
                .find(|extension| extension.critical && extension.parsed_extension().unsupported())
                .map(|extension| extension.oid.to_id_string()),
            der: der.clone().into(),
        })
    }

    /// Whether the key of `above` made this certificate's signature, and its name is the issuer named here.
    pub(crate) fn is_signed_by(&self, above: &Self) -> bool {
        let (Ok(this), Ok((_, key))) = (parse_whole(&self.der), SubjectPublicKeyInfo::from_der(&above.spki)) else {
            return false;
        };
        self.issuer_der == above.subject_der && this.verify_signature(Some(&key)).is_ok()
    }

    /// Whether its key, on P-256, made this signature (ECDSA with SHA-256, ASN.1).
    pub(crate) fn has_signed(&self, message: &[u8], signature: &[u8]) -> bool {
        let Ok((_, spki)) = SubjectPublicKeyInfo::from_der(&self.spki) else { return false };
        let key = UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, &spki.subject_public_key.data);
        key.verify(message, signature).is_ok()
    }

    /// In whose name something is written that its key signs afterwards.
    pub(crate) fn unsigned_issuer(&self) -> Result<Issuer<'static, Unsigned>, rcgen::Error> {
        let (_, spki) =
            SubjectPublicKeyInfo::from_der(&self.spki).map_err(|_| rcgen::Error::CouldNotParseCertificate)?;
        Issuer::from_ca_cert_der(&self.der, Unsigned::of(&spki.subject_public_key.data))
    }
}

/// extKeyUsage (RFC 5280 §4.2.1.12), as most verifiers read it in a CA certificate: for all that is below.
fn purposes(certificate: &X509Certificate<'_>) -> Result<Vec<Vec<u64>>, MalformedCertificate> {
    const ANY: [u64; 5] = [2, 5, 29, 37, 0];
    let Some(extension) =
        certificate.get_extension_unique(&OID_X509_EXT_EXTENDED_KEY_USAGE).map_err(|_| MalformedCertificate)?
    else {
        return Ok(Vec::new());
    };
    let listed = yasna::parse_der(extension.value, |reader| {
        reader.collect_sequence_of(|reader| Ok(reader.read_oid()?.components().clone()))
    });
    let listed = listed.map_err(|_| MalformedCertificate)?;
    Ok(if listed.iter().any(|purpose| *purpose == ANY) { Vec::new() } else { listed })
}

fn parse_whole(der: &[u8]) -> Result<X509Certificate<'_>, MalformedCertificate> {
    match X509Certificate::from_der(der) {
        Ok(([], certificate)) if certificate.version() == x509_parser::x509::X509Version::V3 => Ok(certificate),
        Ok(_) | Err(_) => Err(MalformedCertificate),
    }
}
