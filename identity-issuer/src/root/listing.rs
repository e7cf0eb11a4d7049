//! The list of the intermediates that a root revoked (RFC 5280 §5): planned and shown first, on record next, signed last.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use aws_lc_rs::digest::{SHA256, digest};
use rcgen::{CertificateRevocationListParams, KeyIdMethod, RevokedCertParams, SerialNumber};
use signet_identity::{Clock, TrustDomain};
use time::OffsetDateTime;
use x509_parser::prelude::FromDer as _;
use x509_parser::revocation_list::TbsCertList;

use super::key::{self, Unlock};
use super::record::{Act, Entry, Listed, Record, Revoked, Witness, time_of};
use super::{Reason, RootError, check_is_valid, check_life, read_root};
use crate::authority::custody::Kind;
use crate::authority::{CaCertificate, tbs_of_list};
use crate::crl::reason_code;
use crate::pem_files;
use crate::profile::lint::with_signature;
use crate::utc::Utc;

/// At once. An entry of the record has room for so many.
const MAX_REVOKED: usize = 64;

/// What a list is to say.
#[derive(Clone, Debug)]
pub struct ListTerms {
    /// Serial numbers of intermediates, big endian, and why: beside those that were revoked before.
    pub revoke: Vec<(Vec<u8>, Reason)>,
    /// From thisUpdate to nextUpdate; cut off at the root's end.
    pub life: Duration,
}

/// A list that is about to be signed. Holds the root's record, so that there is one at a time.
#[derive(Debug)]
pub struct Listing {
    root: CaCertificate,
    folder: PathBuf,
    record: Record,
    planned: PlannedList,
    /// How many of `planned.revoked`, its last ones, are new.
    new: usize,
}

/// A list, as it will be.
#[derive(Debug)]
pub struct PlannedList {
    /// Of its entry in the record, and of the list: it grows with each (RFC 5280 §5.2.3).
    pub number: u64,
    pub trust_domain: TrustDomain,
    /// Who signs it, as RFC 4514 writes it.
    pub issuer: String,
    pub this_update: OffsetDateTime,
    pub next_update: OffsetDateTime,
    /// All that is on it.
    pub revoked: Vec<Revoked>,
}

impl Listing {
    /// Decides what the list says. Needs no key, and changes nothing.
    pub fn plan(folder: &Path, terms: &ListTerms, clock: &dyn Clock) -> Result<Self, RootError> {
        let (root, trust_domain) = read_root(folder)?;
        check_life(terms.life)?;
        let now = clock.now();
        let now = now.replace_nanosecond(0).unwrap_or(now);
        check_is_valid(&root, now)?;
        if terms.revoke.len() > MAX_REVOKED {
            return Err(RootError::Terms { what: format!("more than {MAX_REVOKED} at once\nuse several ceremonies") });
        }
        let record = Record::open(folder, &root, now)?;
        let mut standing = Standing::of(record.entries());
        for (serial, reason) in &terms.revoke {
            standing.revoke(serial, *reason, now)?;
        }
        let planned = PlannedList {
            number: record.next_number(),
            trust_domain,
            issuer: root.subject.clone(),
            this_update: now,
            next_update: root
                .not_after
                .min(now.checked_add(terms.life.try_into().unwrap_or(time::Duration::MAX)).unwrap_or(root.not_after)),
            revoked: standing.revoked,
        };
        Ok(Self { root, folder: folder.to_owned(), record, planned, new: terms.revoke.len() })
    }

    pub fn planned(&self) -> &PlannedList {
        &self.planned
    }

    /// The list as PEM. It is on record, durably, before the key signs it.
    pub fn sign(mut self, unlock: &Unlock<'_>, witness: &Witness, clock: &dyn Clock) -> Result<String, RootError> {
        let key = key::open(&self.folder, &self.root, unlock)?;
        let tbs = self.planned.tbs(&self.root)?;
        let (_, new) = self.planned.revoked.split_at(self.planned.revoked.len() - self.new);
        let listed = Listed {
            this_update: Utc(self.planned.this_update).to_string(),
            next_update: Utc(self.planned.next_update).to_string(),
            revoked: new.to_vec(),
            entries: self.planned.revoked.len(),
            tbs_sha256: hex::encode(digest(&SHA256, &tbs)),
        };
        self.record.append(Act::List(listed), &key, witness, clock.now())?;
        let signature = key.sign(Kind::RevocationList, &tbs)?;
        Ok(pem_files::encode(pem_files::REVOCATION_LIST, &with_signature(&tbs, &signature)))
    }
}

impl PlannedList {
    /// The bytes to be signed, which say what was shown.
    fn tbs(&self, root: &CaCertificate) -> Result<Vec<u8>, RootError> {
        let key_id = root.key_id.as_ref().map(|id| id.as_bytes().to_vec()).unwrap_or_default();
        let revoked = self.revoked.iter().map(listed).collect::<Option<_>>();
        let params = CertificateRevocationListParams {
            this_update: self.this_update,
            next_update: self.next_update,
            crl_number: SerialNumber::from(self.number),
            issuing_distribution_point: None,
            revoked_certs: revoked.ok_or(NOT_AS_PLANNED)?,
            key_identifier_method: KeyIdMethod::PreSpecified(key_id),
        };
        let tbs =
            root.unsigned_issuer().and_then(|issuer| tbs_of_list(&params, &issuer)).map_err(RootError::Certify)?;
        let (_, parsed) = TbsCertList::from_der(&tbs).map_err(|_| NOT_AS_PLANNED)?;
        let serials = parsed.revoked_certificates.iter().map(|revoked| hex::encode(revoked.raw_serial()));
        let holds = serials.eq(self.revoked.iter().map(|revoked| revoked.serial.clone()))
            && parsed.issuer.as_raw() == root.subject_der
            && parsed.this_update.to_datetime() == self.this_update
            && parsed.next_update.is_some_and(|next| next.to_datetime() == self.next_update);
        if holds { Ok(tbs) } else { Err(NOT_AS_PLANNED) }
    }
}

const NOT_AS_PLANNED: RootError = RootError::NotAsPlanned { what: "the revocation list" };

fn listed(revoked: &Revoked) -> Option<RevokedCertParams> {
    Some(RevokedCertParams {
        serial_number: SerialNumber::from(hex::decode(&revoked.serial).ok()?),
        revocation_time: time_of(&revoked.revoked_at)?,
        reason_code: Some(reason_code(Reason::named(&revoked.reason)?)),
        invalidity_date: None,
    })
}

/// What the record says of intermediates.
#[derive(Debug, Default)]
struct Standing {
    /// When each ends that the root ever signed, by serial number.
    signed: BTreeMap<String, Option<OffsetDateTime>>,
    revoked: Vec<Revoked>,
}

impl Standing {
    fn of(entries: &[Entry]) -> Self {
        let mut standing = Self::default();
        for entry in entries {
            match &entry.act {
                Act::Init { .. } => {}
                Act::Sign(signing) => drop(standing.signed.insert(signing.serial.clone(), time_of(&signing.not_after))),
                Act::List(list) => {
                    standing.revoked.extend(list.revoked.iter().cloned());
                    // What ended before this list was on it for the last time (RFC 5280 §3.3).
                    let at = time_of(&list.this_update);
                    let ends = |revoked: &Revoked| standing.signed.get(&revoked.serial).copied().flatten();
                    standing.revoked.retain(|revoked| ends(revoked).is_none_or(|ends| Some(ends) >= at));
                }
            }
        }
        standing
    }

    fn revoke(&mut self, serial: &[u8], reason: Reason, now: OffsetDateTime) -> Result<(), RootError> {
        let serial = hex::encode(serial);
        match self.signed.get(&serial) {
            None => return Err(RootError::NeverSigned { serial }),
            Some(ends) if ends.is_some_and(|ends| ends < now) => return Err(RootError::Ended { serial }),
            Some(_) => {}
        }
        if let Some(before) = self.revoked.iter().find(|revoked| revoked.serial == serial) {
            return Err(RootError::RevokedBefore { serial, at: before.revoked_at.clone() });
        }
        self.revoked.push(Revoked { serial, reason: reason.to_string(), revoked_at: Utc(now).to_string() });
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::sync::atomic::{AtomicI64, Ordering};

    use tempfile::TempDir;
    use x509_parser::prelude::X509Certificate;
    use x509_parser::revocation_list::CertificateRevocationList;

    use super::super::{init, sign};
    use super::*;
    use crate::authority::custody::{CaKey, Passphrase, SealStrength};
    use crate::authority::hierarchy::intermediate_request;
    use crate::key::P256Key;

    const DAY: Duration = Duration::from_secs(86_400);

    #[derive(Debug)]
    struct At(AtomicI64);

    impl Clock for At {
        fn now(&self) -> OffsetDateTime {
            OffsetDateTime::from_unix_timestamp(self.0.load(Ordering::Relaxed)).unwrap()
        }
    }

    struct Root {
        folder: TempDir,
        clock: At,
    }

    impl Root {
        fn new() -> Self {
            let folder = tempfile::tempdir().unwrap();
            let clock = At(AtomicI64::new(1_800_000_000));
            let trust_domain = "example.org".parse().unwrap();
            init(folder.path(), &trust_domain, &passphrase(), SealStrength::MINIMAL, 100 * DAY, &clock).unwrap();
            Self { folder, clock }
        }

        /// The serial number of another intermediate.
        fn sign(&self, life: Duration) -> String {
            let key = CaKey::from(P256Key::generate().unwrap());
            let request = intermediate_request(&"example.org".parse().unwrap(), &key).unwrap();
            let request = pem_files::encode(pem_files::REQUEST, &request);
            let signed = sign(self.folder.path(), &passphrase(), request.as_bytes(), 0, life, &self.clock).unwrap();
            let (_, certificate) = X509Certificate::from_der(&signed.certificate).unwrap();
            hex::encode(certificate.raw_serial())
        }

        fn plan(&self, revoke: &[&str], life: Duration) -> Result<Listing, RootError> {
            let revoke = revoke.iter().map(|serial| (hex::decode(serial).unwrap(), Reason::CaCompromise)).collect();
            Listing::plan(self.folder.path(), &ListTerms { revoke, life }, &self.clock)
        }

        /// What a list says that this root signed: number, serials, and when the next one is due.
        fn list(&self, revoke: &[&str], life: Duration) -> (u64, Vec<String>, OffsetDateTime) {
            let witness = Witness { operator: "Ada".to_owned(), host: "vault".to_owned() };
            let listing = self.plan(revoke, life).unwrap();
            let pem = listing.sign(&Unlock::Passphrase(&passphrase()), &witness, &self.clock).unwrap();
            let der = pem::parse(pem).unwrap().into_contents();
            let (_, list) = CertificateRevocationList::from_der(&der).unwrap();
            let (root, _) = read_root(self.folder.path()).unwrap();
            let (_, root) = X509Certificate::from_der(&root.der).unwrap();
            list.verify_signature(root.public_key()).unwrap();
            let number = list.crl_number().unwrap().try_into().unwrap();
            let serials = list.iter_revoked_certificates().map(|revoked| hex::encode(revoked.raw_serial())).collect();
            (number, serials, list.next_update().unwrap().to_datetime())
        }
    }

    fn passphrase() -> Passphrase {
        Passphrase::read(&b"open sesame"[..]).unwrap()
    }

    #[test]
    fn what_was_revoked_stays_on_each_list_until_one_after_its_end() {
        let root = Root::new();
        let (short, long) = (root.sign(2 * DAY), root.sign(50 * DAY));
        assert_eq!(root.list(&[], DAY).1, Vec::<String>::new());
        let (number, serials, _) = root.list(&[&short], DAY);
        assert_eq!(serials, std::slice::from_ref(&short));
        let (later, serials, _) = root.list(&[&long], DAY);
        assert_eq!(serials, [short.clone(), long.clone()]);
        assert!(later > number);
        root.clock.0.fetch_add(3 * 86_400, Ordering::Relaxed);
        assert_eq!(root.list(&[], DAY).1, [short, long.clone()]);
        assert_eq!(root.list(&[], DAY).1, [long]);
    }

    #[test]
    fn only_what_the_root_signed_is_revoked_and_once() {
        let root = Root::new();
        let (one, short) = (root.sign(50 * DAY), root.sign(DAY));
        root.clock.0.fetch_add(2 * 86_400, Ordering::Relaxed);
        assert!(matches!(root.plan(&["4711"], DAY), Err(RootError::NeverSigned { .. })));
        assert!(matches!(root.plan(&[&short], DAY), Err(RootError::Ended { .. })));
        assert!(matches!(root.plan(&[&one, &one], DAY), Err(RootError::RevokedBefore { .. })));
        root.list(&[&one], DAY);
        assert!(matches!(root.plan(&[&one], DAY), Err(RootError::RevokedBefore { .. })));
        let many = vec![one.as_str(); MAX_REVOKED + 1];
        assert!(matches!(root.plan(&many, DAY), Err(RootError::Terms { .. })));
    }

    #[test]
    fn a_list_ends_with_its_root_and_none_is_signed_after_it() {
        let root = Root::new();
        let (certificate, _) = read_root(root.folder.path()).unwrap();
        assert_eq!(root.list(&[], 200 * DAY).2, certificate.not_after);
        assert!(matches!(root.plan(&[], Duration::ZERO), Err(RootError::Life { .. })));
        root.clock.0.fetch_add(101 * 86_400, Ordering::Relaxed);
        assert!(matches!(root.plan(&[], DAY), Err(RootError::Expired { .. })));
    }
}
