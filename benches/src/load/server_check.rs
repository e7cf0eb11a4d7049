//! The server's certificate: checked, and its facts noted.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::verify_server_cert_signed_by_trust_anchor;
use rustls::crypto::{WebPkiSupportedAlgorithms, verify_tls13_signature};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, DigitallySignedStruct, Error, PeerIncompatible, RootCertStore, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use x509_parser::prelude::{FromDer as _, X509Certificate};

use super::Signatures;

/// Serials kept for the report; a server that rotates each second for an hour stays below.
const MAX_SERIALS: usize = 10_000;

/// Verifies against the roots alone: a SPIFFE server has no DNS name, and whether its ID is the right one is the target's own
/// business, not the generator's. One for each thread, so that its lock is never waited for.
#[derive(Debug)]
pub(super) struct ServerCheck {
    roots: Arc<RootCertStore>,
    algorithms: WebPkiSupportedAlgorithms,
    signatures: Signatures,
    seen: Mutex<Seen>,
}

/// What a thread saw of its server's certificates.
#[derive(Clone, Debug, Default)]
pub(super) struct ServersSeen {
    pub(super) serials: BTreeSet<Vec<u8>>,
    /// Seconds between notBefore and the handshake that presented it: the largest.
    pub(super) oldest_seconds: f64,
    /// Seconds that were left until notAfter at a handshake: the smallest.
    pub(super) least_left_seconds: Option<f64>,
}

#[derive(Debug, Default)]
struct Seen {
    current: Option<Leaf>,
    servers: ServersSeen,
}

#[derive(Debug)]
struct Leaf {
    der: CertificateDer<'static>,
    not_before: i64,
    not_after: i64,
    signature: Signature,
}

#[derive(Debug, Eq, PartialEq)]
enum Signature {
    Unchecked,
    Checked,
}

impl ServerCheck {
    pub(super) fn new(
        roots: Arc<RootCertStore>,
        algorithms: WebPkiSupportedAlgorithms,
        signatures: Signatures,
    ) -> Self {
        Self { roots, algorithms, signatures, seen: Mutex::default() }
    }

    pub(super) fn seen(&self) -> ServersSeen {
        self.lock().servers.clone()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn verify_chain(&self, leaf: &CertificateDer<'_>, rest: &[CertificateDer<'_>], now: UnixTime) -> Result<(), Error> {
        let parsed = ParsedCertificate::try_from(leaf)?;
        verify_server_cert_signed_by_trust_anchor(&parsed, &self.roots, rest, now, self.algorithms.all)
    }
}

impl ServerCertVerifier for ServerCheck {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        rest: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let mut seen = self.lock();
        let known = seen.current.as_ref().is_some_and(|current| current.der == *leaf);
        // A known chain was verified but may have ended since: that is asked each time.
        let ended = seen.current.as_ref().is_some_and(|current| now.as_secs() as i64 > current.not_after);
        if !known || ended || self.signatures == Signatures::Always {
            self.verify_chain(leaf, rest, now)?;
        }
        if !known {
            seen.enter(leaf)?;
        }
        seen.note_handshake();
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let mut seen = self.lock();
        let checked = seen
            .current
            .as_ref()
            .is_some_and(|current| current.der == *leaf && current.signature == Signature::Checked);
        if checked && self.signatures == Signatures::Once {
            return Ok(HandshakeSignatureValid::assertion());
        }
        let valid = verify_tls13_signature(message, leaf, signed, &self.algorithms)?;
        if let Some(current) = seen.current.as_mut() {
            current.signature = Signature::Checked;
        }
        Ok(valid)
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(Error::PeerIncompatible(PeerIncompatible::Tls12NotOffered))
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

impl Seen {
    fn enter(&mut self, der: &CertificateDer<'_>) -> Result<(), Error> {
        let (_, parsed) = X509Certificate::from_der(der).map_err(|_| CertificateError::BadEncoding)?;
        if self.servers.serials.len() < MAX_SERIALS {
            self.servers.serials.insert(parsed.raw_serial().to_vec());
        }
        self.current = Some(Leaf {
            der: der.clone().into_owned(),
            not_before: parsed.validity().not_before.timestamp(),
            not_after: parsed.validity().not_after.timestamp(),
            signature: Signature::Unchecked,
        });
        Ok(())
    }

    fn note_handshake(&mut self) {
        let Some(leaf) = &self.current else { return };
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64());
        let left = leaf.not_after as f64 - now;
        self.servers.oldest_seconds = self.servers.oldest_seconds.max(now - leaf.not_before as f64);
        self.servers.least_left_seconds = Some(self.servers.least_left_seconds.map_or(left, |least| least.min(left)));
    }
}

impl ServersSeen {
    pub(super) fn merge(&mut self, other: Self) {
        self.serials.extend(other.serials);
        self.oldest_seconds = self.oldest_seconds.max(other.oldest_seconds);
        self.least_left_seconds = match (self.least_left_seconds, other.least_left_seconds) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        };
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use std::time::Duration;

    use signet_test_pki::Issued;

    use super::*;
    use crate::pki::BenchPki;

    const LIFE: Duration = Duration::from_secs(60);

    fn server_check(pki: &BenchPki) -> ServerCheck {
        let mut roots = RootCertStore::empty();
        roots.add(pki.root().clone()).unwrap();
        let algorithms = rustls::crypto::aws_lc_rs::default_provider().signature_verification_algorithms;
        ServerCheck::new(Arc::new(roots), algorithms, Signatures::Once)
    }

    fn present(check: &ServerCheck, server: &Issued, after: Duration) -> Result<(), Error> {
        let now = UnixTime::since_unix_epoch(Duration::from_secs(UnixTime::now().as_secs()) + after);
        let name = ServerName::try_from("127.0.0.1").unwrap();
        check.verify_server_cert(&server.chain[0], &server.chain[1..], &name, &[], now).map(drop)
    }

    #[test]
    fn a_known_certificate_is_refused_once_it_has_expired() {
        let pki = BenchPki::new();
        let (check, server) = (server_check(&pki), pki.server(LIFE));
        present(&check, &server, Duration::ZERO).unwrap();
        present(&check, &server, LIFE / 2).unwrap();
        let refused = present(&check, &server, LIFE * 2).unwrap_err();
        assert!(matches!(refused, Error::InvalidCertificate(CertificateError::ExpiredContext { .. })), "{refused}");
    }

    #[test]
    fn a_server_of_another_root_is_refused_and_not_noted() {
        let pki = BenchPki::new();
        let check = server_check(&pki);
        let refused = present(&check, &pki.stranger(LIFE), Duration::ZERO).unwrap_err();
        assert!(matches!(refused, Error::InvalidCertificate(_)), "{refused}");
        assert!(check.seen().serials.is_empty());
    }

    #[test]
    fn each_rotation_of_the_server_is_seen_once() {
        let pki = BenchPki::new();
        let check = server_check(&pki);
        let (first, second) = (pki.server(LIFE), pki.server(LIFE));
        for server in [&first, &first, &second, &first] {
            present(&check, server, Duration::ZERO).unwrap();
        }
        assert_eq!(check.seen().serials.len(), 2);
    }
}
