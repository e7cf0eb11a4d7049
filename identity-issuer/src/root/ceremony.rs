//! Signing with the root: planned and shown first, on record next, signed last.

use std::path::Path;

use aws_lc_rs::digest::{SHA256, digest};
use rcgen::PublicKeyData as _;
use signet_identity::{Clock, TrustDomain};
use time::OffsetDateTime;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer as _, X509Certificate};

use super::key::{self, Unlock};
use super::record::{Act, Record, Signing, Witness};
use super::terms::{Purpose, Terms, UriDomain};
use super::{CaSummary, RootError, check_is_valid, malformed, paths, read_root, requests};
use crate::authority::CaCertificate;
use crate::authority::certificate::Constraint;
use crate::authority::custody::Kind;
use crate::authority::hierarchy::{Level, ca_certificate, ca_validity};
use crate::csr::ProvenKey;
use crate::profile::lint::with_signature;
use crate::utc::Utc;

/// What is about to be signed. Holds the root's record, so that there is one at a time.
#[derive(Debug)]
pub struct Ceremony {
    root: CaCertificate,
    trust_domain: TrustDomain,
    folder: std::path::PathBuf,
    record: Record,
    planned: Vec<Planned>,
}

/// One intermediate, as it will be.
#[derive(Debug)]
pub struct Planned {
    /// Of its entry in the record.
    pub number: u64,
    pub trust_domain: TrustDomain,
    pub subject: String,
    /// Lower-case hexadecimal, as the serial and the digest.
    pub key_id: String,
    pub purpose: Purpose,
    pub path_length: u8,
    pub permitted_uri_domains: Vec<UriDomain>,
    pub serial: String,
    pub not_before: OffsetDateTime,
    pub not_after: OffsetDateTime,
    pub request_sha256: String,
    key: ProvenKey,
    /// The certificate with nothing for a signature.
    unsigned: Vec<u8>,
}

impl Ceremony {
    /// Reads the requests (PEM, one after another) and decides what each becomes. Needs no key, and changes nothing.
    ///
    /// Of a request only the public key is taken, after its signature proved possession.
    pub fn plan(folder: &Path, requested: &[u8], terms: &Terms, clock: &dyn Clock) -> Result<Self, RootError> {
        let (root, trust_domain) = read_root(folder)?;
        terms.check(&trust_domain)?;
        let requests = requests::read(requested, &trust_domain, &root.spki)?;
        let now = clock.now();
        check_is_valid(&root, now)?;
        let record = Record::open(folder, &root, now)?;
        let mut planned = Vec::new();
        for (number, request) in (record.next_number()..).zip(requests) {
            planned.push(Planned::new(number, request, terms, (&root, &trust_domain), now)?);
        }
        Ok(Self { root, trust_domain, folder: folder.to_owned(), record, planned })
    }

    pub fn planned(&self) -> &[Planned] {
        &self.planned
    }

    /// Signs all that was planned, in that order. Each is on record, durably, before the key signs it.
    pub fn sign(
        mut self,
        unlock: &Unlock<'_>,
        witness: &Witness,
        clock: &dyn Clock,
    ) -> Result<Vec<CaSummary>, RootError> {
        let key = key::open(&self.folder, &self.root, unlock)?;
        let mut signed = Vec::new();
        for planned in &self.planned {
            let tbs = planned.tbs(&self.root)?;
            self.record.append(Act::Sign(planned.entry(&tbs)), &key, witness, clock.now())?;
            let signature = key.sign(Kind::Certificate, &tbs)?;
            let intermediate = CaCertificate::parse(with_signature(&tbs, &signature).to_vec())
                .map_err(malformed(&paths(&self.folder).1))?;
            signed.push(CaSummary::new(intermediate, self.trust_domain.clone()));
        }
        Ok(signed)
    }
}

impl Planned {
    fn new(
        number: u64,
        request: requests::Request,
        terms: &Terms,
        (root, trust_domain): (&CaCertificate, &TrustDomain),
        now: OffsetDateTime,
    ) -> Result<Self, RootError> {
        let requests::Request { key, sha256: request_sha256 } = request;
        let validity = ca_validity(now, terms.life, Some(root.not_after));
        let path_length = terms.path_length();
        let mut params = ca_certificate(Level::Intermediate { path_length }, trust_domain, &key, validity)
            .map_err(RootError::Certify)?;
        let key_id = params.key_identifier(&key);
        terms.write_into(&mut params, &key_id);
        let unsigned = root.unsigned_issuer().and_then(|issuer| params.signed_by(&key, &issuer));
        let unsigned = unsigned.map_err(RootError::Certify)?.der().to_vec();
        let certificate = read_unsigned(&unsigned)?;
        Ok(Self {
            number,
            trust_domain: trust_domain.clone(),
            subject: certificate.subject.clone(),
            key_id: hex::encode(&key_id),
            purpose: terms.purpose,
            path_length,
            permitted_uri_domains: terms.permitted_uri_domains.clone(),
            serial: params.serial_number.map(|serial| hex::encode(serial.to_bytes())).unwrap_or_default(),
            not_before: validity.0,
            not_after: validity.1,
            request_sha256,
            key,
            unsigned,
        })
    }

    /// The bytes to be signed, which say what was shown: whoever made them may have been wrong, or a library that changed.
    fn tbs(&self, root: &CaCertificate) -> Result<Vec<u8>, RootError> {
        let certificate = read_unsigned(&self.unsigned)?;
        let (_, parsed) =
            X509Certificate::from_der(&self.unsigned).map_err(|_| not_as_planned("it is no certificate"))?;
        let trust_domain = self.trust_domain.id();
        let checks = [
            ("its issuer", certificate.issuer_der == root.subject_der),
            ("its subject", certificate.subject == self.subject),
            ("its key", certificate.spki == self.key.subject_public_key_info()),
            ("its key id", certificate.key_id.as_ref().is_some_and(|id| id.to_string() == self.key_id)),
            ("its path length", certificate.constraint == Constraint::PathLength(u32::from(self.path_length))),
            ("its trust domain", certificate.uris == [trust_domain.as_str()]),
            ("its serial", hex::encode(parsed.raw_serial()) == self.serial),
            ("its life", (certificate.not_before, certificate.not_after) == (self.not_before, self.not_after)),
            ("its end", certificate.not_after <= root.not_after),
            ("its constraints", permitted_uris(&parsed) == written(&self.permitted_uri_domains)),
            ("its usages", extended_key_usages(&parsed) == self.purpose.extended_key_usages().len()),
        ];
        match checks.into_iter().find(|(_, holds)| !holds) {
            Some((what, _)) => Err(not_as_planned(what)),
            None => Ok(parsed.tbs_certificate.as_ref().to_vec()),
        }
    }

    fn entry(&self, tbs: &[u8]) -> Signing {
        Signing {
            trust_domain: self.trust_domain.to_string(),
            subject: self.subject.clone(),
            key_id: self.key_id.clone(),
            purpose: self.purpose.to_string(),
            path_length: self.path_length,
            permitted_uri_domains: written(&self.permitted_uri_domains),
            serial: self.serial.clone(),
            not_before: Utc(self.not_before).to_string(),
            not_after: Utc(self.not_after).to_string(),
            request_sha256: self.request_sha256.clone(),
            tbs_sha256: hex::encode(digest(&SHA256, tbs)),
        }
    }
}

fn read_unsigned(unsigned: &[u8]) -> Result<CaCertificate, RootError> {
    CaCertificate::parse(unsigned.to_vec()).map_err(|_| not_as_planned("it is no certificate"))
}

fn not_as_planned(what: &'static str) -> RootError {
    RootError::NotAsPlanned { what }
}

fn written(domains: &[UriDomain]) -> Vec<String> {
    domains.iter().map(ToString::to_string).collect()
}

/// A constraint of another kind is none that was planned.
fn permitted_uris(certificate: &X509Certificate<'_>) -> Vec<String> {
    let Ok(Some(constraints)) = certificate.name_constraints() else { return Vec::new() };
    let constraints = constraints.value;
    let permitted = constraints.permitted_subtrees.iter().flatten().map(|subtree| match subtree.base {
        GeneralName::URI(uri) => uri.to_owned(),
        _ => "another kind".to_owned(),
    });
    permitted.chain(constraints.excluded_subtrees.iter().map(|_| "an exclusion".to_owned())).collect()
}

/// How many, known ones and others.
fn extended_key_usages(certificate: &X509Certificate<'_>) -> usize {
    let Ok(Some(usages)) = certificate.extended_key_usage() else { return 0 };
    let usages = usages.value;
    let known = [usages.any, usages.server_auth, usages.client_auth, usages.code_signing, usages.email_protection];
    let known = known.into_iter().chain([usages.time_stamping, usages.ocsp_signing]);
    known.filter(|has| *has).count() + usages.other.len()
}

#[cfg(test)]
mod tests;
