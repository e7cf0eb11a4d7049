//! What was revoked, and who showed which certificate: what the first reading keeps for the second.

use std::collections::HashMap;
use std::rc::Rc;

use time::OffsetDateTime;

use super::act::{Certificate, Found};
use super::{MOST_REVOKED, ReportError, Window};
use crate::entry::Act;

#[derive(Debug, Default)]
pub(super) struct Revocations {
    /// Those that no certificate was found for yet. Serial numbers are random: those of two authorities differ.
    by_serial: HashMap<Serial, OfSerial>,
    /// By key identifier: with an authority, whatever it has issued is revoked, and not listed.
    by_authority: HashMap<Rc<str>, Revoked>,
    /// An authority was revoked within the window.
    authority_in_window: bool,
    /// The last that was asked for, which the serial numbers behind it belong to: its number and reason.
    last: Option<(i64, i64)>,
    /// Authorities, each once.
    authorities: Vec<Rc<str>>,
    /// Certificates that were shown to have another, and whose they are.
    shown: HashMap<Serial, Option<Rc<str>>>,
    /// SPIFFE IDs, each once.
    ids: HashMap<Rc<str>, ()>,
}

/// When, why, and where the log says it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Revoked {
    pub(super) at: OffsetDateTime,
    /// As RFC 5280 §5.3.1 numbers it.
    pub(super) reason: i64,
    pub(super) index: u64,
}

#[derive(Debug)]
struct OfSerial {
    revoked: Revoked,
    /// Its place among `authorities`.
    authority: usize,
}

/// At most 20 octets (RFC 5280 §4.1.2.2).
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
struct Serial {
    length: u8,
    bytes: [u8; 20],
}

/// Certificates that were shown, by the first that were in the window: some 40 bytes of memory each. Of others the serial number is told.
const MOST_SHOWN: usize = 500_000;

impl Revocations {
    pub(super) fn note(&mut self, index: u64, found: Found<'_>, window: &Window) -> Result<(), ReportError> {
        match found {
            Found::Shown { serial } => {
                if let Some(serial) = Serial::parse(&serial)
                    && self.shown.len() < MOST_SHOWN
                {
                    self.shown.entry(serial).or_default();
                }
            }
            Found::Revoked { at, act } => self.note_revoked(index, at, *act, window),
        }
        match self.by_serial.len() + self.by_authority.len() > MOST_REVOKED {
            true => Err(ReportError::TooManyRevoked),
            false => Ok(()),
        }
    }

    fn note_revoked(&mut self, index: u64, at: OffsetDateTime, act: Act, window: &Window) {
        match act {
            Act::Revoked(asked) => {
                self.last = Some((asked.number, asked.reason));
                if asked.kind == "authority" {
                    let revoked = Revoked { at, reason: asked.reason, index };
                    self.by_authority.entry(asked.target.as_str().into()).or_insert(revoked);
                    self.authority_in_window |= window.holds(at);
                }
            }
            Act::RevokedSerials { revocation, authority, serials, .. } => {
                let asked = self.last.filter(|(number, _)| *number == revocation);
                let revoked = Revoked { at, reason: asked.map_or(UNSPECIFIED, |(_, reason)| reason), index };
                let authority = self.place_of(&authority);
                for serial in serials.iter().filter_map(|serial| Serial::parse(serial)) {
                    // The first counts: nothing is revoked twice.
                    self.by_serial.entry(serial).or_insert(OfSerial { revoked, authority });
                }
            }
            // The first look finds no other.
            _ => {}
        }
    }

    /// Whether a certificate counts though it was not issued in the window.
    pub(super) fn matters(&self, serial: &str) -> bool {
        let is_known = |serial| self.by_serial.contains_key(&serial) || self.shown.contains_key(&serial);
        self.authority_in_window || Serial::parse(serial).is_some_and(is_known)
    }

    /// How a certificate was revoked whose entry has this index. Remembers whose it is, where that is asked later.
    pub(super) fn of(&mut self, index: u64, certificate: &Certificate<'_>) -> Option<Revoked> {
        let serial = Serial::parse(&certificate.serial)?;
        if self.shown.contains_key(&serial) {
            let id = self.id(&certificate.spiffe_id);
            self.shown.insert(serial, Some(id));
        }
        let itself = self.by_serial.remove(&serial).map(|of| of.revoked);
        let with_authority = self.by_authority.get(&*certificate.authority).copied();
        // What had expired by then, or came later, was not meant.
        let with_authority = with_authority
            .filter(|revoked| revoked.index > index && certificate.not_after >= revoked.at.unix_timestamp());
        [itself, with_authority].into_iter().flatten().min_by_key(|revoked| revoked.index)
    }

    /// Whoever asked for a certificate by showing another one: its SPIFFE ID, or None where this log does not know.
    pub(super) fn requester(&self, certificate: &Certificate<'_>) -> Option<Rc<str>> {
        self.shown.get(&Serial::parse(&certificate.evidence)?)?.clone()
    }

    /// What was revoked in the window and is of another log of the same database: serial numbers, authorities, and how.
    pub(super) fn of_other_logs(self, window: &Window) -> impl Iterator<Item = (String, String, Revoked)> {
        let Self { by_serial, authorities, .. } = self;
        let mut left: Vec<(u64, Serial, OfSerial)> = by_serial
            .into_iter()
            .filter(|(_, of)| window.holds(of.revoked.at))
            .map(|(serial, of)| (of.revoked.index, serial, of))
            .collect();
        left.sort_unstable_by_key(|(index, serial, _)| (*index, *serial));
        left.into_iter()
            .map(move |(_, serial, of)| (serial.to_hex(), authorities[of.authority].to_string(), of.revoked))
    }

    fn place_of(&mut self, authority: &str) -> usize {
        self.authorities.iter().rposition(|known| &**known == authority).unwrap_or_else(|| {
            self.authorities.push(authority.into());
            self.authorities.len() - 1
        })
    }

    fn id(&mut self, id: &str) -> Rc<str> {
        if let Some((known, ())) = self.ids.get_key_value(id) {
            return known.clone();
        }
        let id: Rc<str> = id.into();
        self.ids.insert(id.clone(), ());
        id
    }
}

const UNSPECIFIED: i64 = 0;

impl Serial {
    /// From hexadecimal.
    fn parse(hex: &str) -> Option<Self> {
        let mut bytes = [0; 20];
        let length = hex.len() / 2;
        hex::decode_to_slice(hex, bytes.get_mut(..length)?).ok()?;
        Some(Self { length: u8::try_from(length).ok()?, bytes })
    }

    fn to_hex(self) -> String {
        hex::encode(&self.bytes[..usize::from(self.length)])
    }
}
