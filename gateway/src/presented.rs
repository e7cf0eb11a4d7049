//! Which certificates peers have proved here, callers and servers alike: so that an auditor can ask whether each of them is in the issuer's
//! log.
//!
//! ```text
//! handshake ──► Teller (one for each worker: no lock for what it has told) ──► Presented ──► /peers at the admin address
//! ```

use std::cell::RefCell;
use std::collections::{HashSet, VecDeque};
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use serde::Serialize;
use signet_identity::{PeerIdentity, Serial, SharedClock, WorkloadId};
use signet_process::admin::Page;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// The certificates that were presented last, each of them once, numbered from 1 on. Bounded: older ones make room.
pub(crate) struct Presented {
    clock: SharedClock,
    /// Tells this list from that of an earlier run, whose numbers were others.
    begun: String,
    listed: Mutex<Listed>,
}

#[derive(Default)]
struct Listed {
    /// Of the last one.
    number: u64,
    ring: VecDeque<Certificate>,
    held: HashSet<[u8; 32]>,
}

#[derive(Clone)]
struct Certificate {
    id: WorkloadId,
    serial: Serial,
    sha256: [u8; 32],
    not_after: OffsetDateTime,
    presented: OffsetDateTime,
    by: Side,
}

/// Who presents a certificate.
#[derive(Clone, Copy, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Side {
    Client,
    Server,
}

/// What `/peers` answers; `/peers/N` with those after number N.
#[derive(Serialize)]
struct Peers {
    begun: String,
    now: String,
    /// The number of the first one that is still listed; one more than the last where there is none.
    oldest: u64,
    /// Up to which number this is, to ask on from.
    last: u64,
    /// Whether there are more after it.
    more: bool,
    peers: Vec<Peer>,
}

#[derive(Serialize)]
struct Peer {
    number: u64,
    spiffe_id: String,
    serial: String,
    /// SHA-256 of its DER.
    certificate: String,
    not_after: String,
    presented: String,
    by: Side,
}

impl Presented {
    pub(crate) fn new(clock: SharedClock) -> Arc<Self> {
        let begun = written(clock.now());
        Arc::new(Self { clock, begun, listed: Mutex::default() })
    }

    fn list(&self, certificate: Certificate) {
        let mut listed = self.listed.lock().unwrap_or_else(PoisonError::into_inner);
        if !listed.held.insert(certificate.sha256) {
            return;
        }
        if listed.ring.len() >= MOST
            && let Some(oldest) = listed.ring.pop_front()
        {
            listed.held.remove(&oldest.sha256);
        }
        listed.number += 1;
        listed.ring.push_back(certificate);
    }

    fn after(&self, number: u64) -> Peers {
        let (now, next) = (written(self.clock.now()), number.saturating_add(1));
        let (oldest, newest, certificates) = {
            let listed = self.listed.lock().unwrap_or_else(PoisonError::into_inner);
            let oldest = listed.number + 1 - listed.ring.len() as u64;
            let skipped = usize::try_from(next.saturating_sub(oldest)).unwrap_or(usize::MAX);
            let page: Vec<_> = listed.ring.iter().skip(skipped).take(PAGE).cloned().collect();
            (oldest, listed.number, page)
        };
        let first = next.max(oldest);
        let peers: Vec<_> =
            (first..).zip(certificates).map(|(number, certificate)| certificate.numbered(number)).collect();
        // Whoever asks for what is not there yet is not sent back.
        let last = peers.last().map_or(number.max(newest), |last| last.number);
        Peers { begun: self.begun.clone(), now, oldest, last, more: last < newest, peers }
    }

    pub(crate) fn page(self: &Arc<Self>) -> Page {
        let presented = self.clone();
        let answer = move |below: &str| {
            let number = match below.strip_prefix('/') {
                None => 0,
                Some(number) => number.parse().ok()?,
            };
            serde_json::to_value(presented.after(number)).ok()
        };
        Page { path: "/peers", answer: Arc::new(answer) }
    }
}

impl Certificate {
    fn numbered(self, number: u64) -> Peer {
        Peer {
            number,
            spiffe_id: self.id.to_string(),
            serial: self.serial.to_string(),
            certificate: hex::encode(self.sha256),
            not_after: written(self.not_after),
            presented: written(self.presented),
            by: self.by,
        }
    }
}

impl fmt::Debug for Presented {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Presented").field("begun", &self.begun).finish_non_exhaustive()
    }
}

/// One worker's way to the list. What it told of is known by one look at a table of its own.
#[derive(Debug)]
pub(crate) struct Teller {
    presented: Arc<Presented>,
    told: RefCell<Box<[[u8; 32]]>>,
}

impl Teller {
    pub(crate) fn new(presented: Arc<Presented>) -> Self {
        Self { presented, told: RefCell::new(vec![[0; 32]; TOLD].into()) }
    }

    /// The peer has proved, in a handshake, that this is its certificate.
    pub(crate) fn tell(&self, peer: &PeerIdentity, by: Side) {
        self.tell_once(peer.leaf_sha256(), |presented| Certificate {
            id: peer.id().clone(),
            serial: peer.serial().clone(),
            sha256: *peer.leaf_sha256(),
            not_after: peer.not_after(),
            presented,
            by,
        });
    }

    fn tell_once(&self, sha256: &[u8; 32], certificate: impl FnOnce(OffsetDateTime) -> Certificate) {
        let place = usize::from(u16::from_be_bytes([sha256[0], sha256[1]])) % TOLD;
        let told = &mut self.told.borrow_mut()[place];
        if told != sha256 {
            self.presented.list(certificate(self.presented.clock.now()));
            *told = *sha256;
        }
    }
}

/// RFC 3339, with the fraction of a second that there is.
fn written(time: OffsetDateTime) -> String {
    time.format(&Rfc3339).unwrap_or_else(|_| time.unix_timestamp().to_string())
}

/// At most 16 MiB, if every SPIFFE ID were as long as may be.
const MOST: usize = 8192;
const PAGE: usize = 1000;
const TOLD: usize = 1024;

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use signet_identity::SystemClock;

    use super::*;

    fn certificate(number: u64) -> Certificate {
        let mut sha256 = [0; 32];
        sha256[24..].copy_from_slice(&number.to_be_bytes());
        let id = format!("spiffe://example.org/shop/{number}").parse().unwrap();
        let (now, by) = (OffsetDateTime::UNIX_EPOCH, Side::Client);
        Certificate { id, serial: Serial::from_be_bytes(&[0x6d]), sha256, not_after: now, presented: now, by }
    }

    #[test]
    fn a_certificate_is_listed_once_whoever_tells_of_it() {
        let presented = Presented::new(Arc::new(SystemClock));
        let (one, other) = (Teller::new(presented.clone()), Teller::new(presented.clone()));
        for teller in [&one, &other, &one] {
            for number in 1..=3 {
                let certificate = certificate(number);
                // They have the same place in a worker's table: what it forgets, the list still knows.
                teller.tell_once(&certificate.sha256.clone(), |_| certificate);
            }
        }
        let listed = presented.after(0);
        let numbers: Vec<_> = listed.peers.iter().map(|peer| peer.number).collect();
        assert_eq!((numbers, listed.oldest, listed.last, listed.more), (vec![1, 2, 3], 1, 3, false));
        assert_eq!(listed.peers[1].spiffe_id, "spiffe://example.org/shop/2");
        assert_eq!(listed.peers[1].certificate, format!("{:064x}", 2));
        assert_eq!(presented.after(2).peers.len(), 1);
        let none = presented.after(3);
        assert_eq!((none.peers.len(), none.last, none.more), (0, 3, false));
    }

    #[test]
    fn the_list_is_bounded_and_says_from_where_on_it_goes() {
        let presented = Presented::new(Arc::new(SystemClock));
        let most = MOST as u64;
        (1..=most + 1).for_each(|number| presented.list(certificate(number)));
        let page = presented.after(0);
        assert_eq!((page.oldest, page.peers.len(), page.last, page.more), (2, PAGE, 1001, true));
        let last = presented.after(most);
        assert_eq!((last.peers.len(), last.last, last.more), (1, most + 1, false));
        assert_eq!(presented.listed.lock().unwrap().held.len(), MOST);
        // One that made room is listed anew.
        presented.list(certificate(1));
        assert_eq!(presented.after(0).oldest, 3);
        assert_eq!(presented.after(most + 1).peers[0].spiffe_id, "spiffe://example.org/shop/1");
    }

    #[test]
    fn pages_are_asked_for_by_the_last_number_of_the_one_before() {
        let presented = Presented::new(Arc::new(SystemClock));
        (1..=3).for_each(|number| presented.list(certificate(number)));
        let page = presented.page();
        let numbers = |below: &str| {
            let peers = (page.answer)(below).map(|answer| answer["peers"].as_array().unwrap().len());
            peers.unwrap_or(usize::MAX)
        };
        assert_eq!([numbers(""), numbers("/1"), numbers("/18446744073709551615")], [3, 2, 0]);
        assert_eq!([numbers("/"), numbers("/a"), numbers("/-1"), numbers("/1/2")], [usize::MAX; 4]);
    }
}
