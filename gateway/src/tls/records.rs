//! The record layer of TLS 1.3 once the handshake is done (RFC 8446 §5): which record follows which, what may be in one, and
//! when keys change. The ciphers, their nonces and the padding are rustls', and so is the derivation of keys.

use std::collections::VecDeque;
use std::fmt;

use bytes::{Buf as _, BytesMut};
use rustls::client::ClientConnectionData;
use rustls::crypto::cipher::{
    AeadKey, InboundOpaqueMessage, Iv, MessageDecrypter, MessageEncrypter, OutboundChunks, OutboundPlainMessage,
};
use rustls::kernel::KernelConnection;
use rustls::server::ServerConnectionData;
use rustls::{
    AlertDescription, ConnectionTrafficSecrets, ContentType, ExtractedSecrets, HandshakeType, ProtocolVersion,
    SupportedCipherSuite, Tls13CipherSuite,
};

/// Both directions of one connection.
pub(crate) struct Records {
    opening: Box<dyn MessageDecrypter>,
    sealing: Box<dyn MessageEncrypter>,
    /// The sequence numbers of the next record of each direction.
    to_open: u64,
    to_seal: u64,
    suite: &'static Tls13CipherSuite,
    /// How many records are sealed with one key.
    most_with_one_key: u64,
    keys: Keys,
    /// The beginning of a handshake message that goes on in the next record.
    partial: Vec<u8>,
    /// Records since the last with data.
    without_data: u32,
    /// The peer has asked for a change of our key.
    key_is_asked_for: bool,
}

/// What rustls keeps of a connection: its secrets, and where a client puts its tickets.
pub(crate) enum Keys {
    Server(KernelConnection<ServerConnectionData>),
    Client(KernelConnection<ClientConnectionData>),
}

impl Keys {
    fn suite(&self) -> SupportedCipherSuite {
        match self {
            Self::Server(kernel) => kernel.negotiated_cipher_suite(),
            Self::Client(kernel) => kernel.negotiated_cipher_suite(),
        }
    }

    /// What we seal with next, and the number of the first record.
    fn next_ours(&mut self) -> Result<(u64, ConnectionTrafficSecrets), rustls::Error> {
        match self {
            Self::Server(kernel) => kernel.update_tx_secret(),
            Self::Client(kernel) => kernel.update_tx_secret(),
        }
    }

    fn next_theirs(&mut self) -> Result<(u64, ConnectionTrafficSecrets), rustls::Error> {
        match self {
            Self::Server(kernel) => kernel.update_rx_secret(),
            Self::Client(kernel) => kernel.update_rx_secret(),
        }
    }
}

/// What was in a record.
#[derive(Debug, Eq, PartialEq)]
pub(crate) enum Opened {
    /// Not empty.
    Data(BytesMut),
    /// Something between the two layers.
    Control,
    /// `close_notify`: nothing more comes.
    Closed,
}

/// Why a connection cannot go on. There is no way back from any of them.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RecordError {
    #[error("a record was not sealed with the key of this connection, or not in this place")]
    NotAuthentic,
    #[error("a record is longer than 16 KiB")]
    TooLong,
    #[error("a record may not come here: {0}")]
    Unexpected(&'static str),
    #[error("a message is malformed: {0}")]
    Malformed(&'static str),
    #[error("the peer has broken off: {0:?}")]
    Alert(AlertDescription),
    #[error("{0}")]
    Rustls(rustls::Error),
}

impl RecordError {
    /// What the peer is told of it (RFC 8446 §6.2).
    pub(crate) fn alert(&self) -> Option<AlertDescription> {
        match self {
            Self::NotAuthentic => Some(AlertDescription::BadRecordMac),
            Self::TooLong => Some(AlertDescription::RecordOverflow),
            Self::Unexpected(_) => Some(AlertDescription::UnexpectedMessage),
            Self::Malformed(_) => Some(AlertDescription::DecodeError),
            Self::Alert(_) => None,
            Self::Rustls(_) => Some(AlertDescription::InternalError),
        }
    }
}

impl Records {
    /// Goes on where the handshake has ended.
    pub(crate) fn new(secrets: ExtractedSecrets, keys: Keys) -> Result<Self, RecordError> {
        let suite = keys.suite().tls13().ok_or(RecordError::Unexpected("no TLS 1.3"))?;
        let ((to_seal, ours), (to_open, theirs)) = (secrets.tx, secrets.rx);
        Ok(Self {
            opening: opening(suite, theirs)?,
            sealing: sealing_from(to_seal, suite, ours)?,
            to_open,
            to_seal,
            suite,
            most_with_one_key: suite.common.confidentiality_limit.min(MOST_WITH_ONE_KEY),
            keys,
            partial: Vec::new(),
            without_data: 0,
            key_is_asked_for: false,
        })
    }

    /// Takes the next record from the front of `received` and decrypts it there; none while it has not come whole.
    pub(crate) fn open(&mut self, received: &mut BytesMut) -> Result<Option<Opened>, RecordError> {
        let Some(&[kind, _, _, high, low]) = received.first_chunk::<HEADER>() else { return Ok(None) };
        if ContentType::from(kind) != ContentType::ApplicationData {
            return Err(RecordError::Unexpected("it is not encrypted"));
        }
        let length = usize::from(u16::from_be_bytes([high, low]));
        if length > MOST_SEALED {
            return Err(RecordError::TooLong);
        }
        if received.len() < HEADER + length {
            return Ok(None);
        }
        let mut record = received.split_to(HEADER + length);
        record.advance(HEADER);
        let sealed = InboundOpaqueMessage::new(ContentType::ApplicationData, ProtocolVersion::TLSv1_2, &mut record);
        let plain = self.opening.decrypt(sealed, self.to_open).map_err(|error| match error {
            rustls::Error::PeerSentOversizedRecord => RecordError::TooLong,
            rustls::Error::PeerMisbehaved(_) => RecordError::Unexpected("it says not what it is"),
            _ => RecordError::NotAuthentic,
        })?;
        let (kind, length) = (plain.typ, plain.payload.len());
        // It was decrypted in place, from its first byte on.
        record.truncate(length);
        self.to_open = self.to_open.checked_add(1).ok_or(RecordError::Unexpected("they are too many"))?;
        self.opened(kind, record).map(Some)
    }

    fn opened(&mut self, kind: ContentType, payload: BytesMut) -> Result<Opened, RecordError> {
        if kind == ContentType::ApplicationData && !payload.is_empty() && self.partial.is_empty() {
            self.without_data = 0;
            return Ok(Opened::Data(payload));
        }
        self.without_data += 1;
        if self.without_data > MOST_WITHOUT_DATA {
            return Err(RecordError::Unexpected("there are too many without data"));
        }
        match kind {
            ContentType::Handshake if !payload.is_empty() => {
                self.handshake(&payload)?;
                Ok(Opened::Control)
            }
            _ if !self.partial.is_empty() => Err(RecordError::Unexpected("a handshake message goes on")),
            ContentType::ApplicationData => Ok(Opened::Control),
            ContentType::Alert => alert(&payload),
            _ => Err(RecordError::Unexpected("of this kind there is none after the handshake")),
        }
    }

    /// The messages that may come after a handshake (RFC 8446 §4.6): tickets for a client, and changes of key.
    fn handshake(&mut self, payload: &[u8]) -> Result<(), RecordError> {
        let mut messages = std::mem::take(&mut self.partial);
        messages.extend_from_slice(payload);
        let mut rest = &messages[..];
        while let Some((&[kind, high, middle, low], body)) = rest.split_first_chunk() {
            let length = u32::from_be_bytes([0, high, middle, low]) as usize;
            if length > MOST_MESSAGE {
                return Err(RecordError::Malformed("it is too long"));
            }
            let Some((body, after)) = body.split_at_checked(length) else { break };
            match (HandshakeType::from(kind), &mut self.keys) {
                (HandshakeType::NewSessionTicket, Keys::Client(kernel)) => {
                    kernel.handle_new_session_ticket(body).map_err(|_| RecordError::Malformed("a ticket"))?;
                }
                // What comes after it has another key, so that it must be the last in its record (RFC 8446 §5.1).
                (HandshakeType::KeyUpdate, _) if after.is_empty() => self.change_their_key(body)?,
                _ => return Err(RecordError::Unexpected("the handshake is done")),
            }
            rest = after;
        }
        self.partial = rest.to_vec();
        Ok(())
    }

    fn change_their_key(&mut self, body: &[u8]) -> Result<(), RecordError> {
        match body {
            [KEY_NOT_REQUESTED] => {}
            [KEY_REQUESTED] => self.key_is_asked_for = true,
            _ => return Err(RecordError::Malformed("a change of key")),
        }
        let (next, secrets) = self.keys.next_theirs().map_err(RecordError::Rustls)?;
        self.opening = opening(self.suite, secrets)?;
        self.to_open = next;
        Ok(())
    }

    /// Seals as much of `chunks` as fits into `most` records, and appends them to `sealed`; returns how many bytes that was.
    pub(crate) fn seal(
        &mut self,
        chunks: &[&[u8]],
        most: usize,
        sealed: &mut VecDeque<Vec<u8>>,
    ) -> Result<usize, RecordError> {
        let mut left = OutboundChunks::new(chunks);
        let whole = left.len();
        for _ in 0..most {
            if left.is_empty() {
                break;
            }
            let (now, later) = left.split_at(MOST_PLAIN);
            self.seal_one(ContentType::ApplicationData, now, sealed)?;
            left = later;
        }
        Ok(whole - left.len())
    }

    /// Seals a last record, which says why.
    pub(crate) fn seal_alert(
        &mut self,
        description: AlertDescription,
        sealed: &mut VecDeque<Vec<u8>>,
    ) -> Result<(), RecordError> {
        let level = if description == AlertDescription::CloseNotify { WARNING } else { FATAL };
        let alert = [level, description.into()];
        self.seal_one(ContentType::Alert, OutboundChunks::Single(&alert), sealed)
    }

    fn seal_one(
        &mut self,
        kind: ContentType,
        payload: OutboundChunks<'_>,
        sealed: &mut VecDeque<Vec<u8>>,
    ) -> Result<(), RecordError> {
        if self.key_is_asked_for || self.to_seal >= self.most_with_one_key {
            self.key_is_asked_for = false;
            self.encrypt(ContentType::Handshake, OutboundChunks::Single(&KEY_UPDATE), sealed)?;
            let (next, secrets) = self.keys.next_ours().map_err(RecordError::Rustls)?;
            self.sealing = sealing(self.suite, secrets)?;
            self.to_seal = next;
        }
        self.encrypt(kind, payload, sealed)
    }

    fn encrypt(
        &mut self,
        typ: ContentType,
        payload: OutboundChunks<'_>,
        sealed: &mut VecDeque<Vec<u8>>,
    ) -> Result<(), RecordError> {
        let plain = OutboundPlainMessage { typ, version: ProtocolVersion::TLSv1_2, payload };
        let record = self.sealing.encrypt(plain, self.to_seal).map_err(RecordError::Rustls)?;
        self.to_seal += 1;
        sealed.push_back(record.encode());
        Ok(())
    }
}

fn alert(payload: &[u8]) -> Result<Opened, RecordError> {
    let &[_level, description] = payload else { return Err(RecordError::Malformed("an alert")) };
    // The level says nothing (RFC 8446 §6); the two that do not end a connection for good are these.
    match AlertDescription::from(description) {
        AlertDescription::CloseNotify => Ok(Opened::Closed),
        AlertDescription::UserCanceled => Ok(Opened::Control),
        fatal => Err(RecordError::Alert(fatal)),
    }
}

fn opening(
    suite: &Tls13CipherSuite,
    secrets: ConnectionTrafficSecrets,
) -> Result<Box<dyn MessageDecrypter>, RecordError> {
    key_of(secrets).map(|(key, iv)| suite.aead_alg.decrypter(key, iv))
}

fn sealing(
    suite: &Tls13CipherSuite,
    secrets: ConnectionTrafficSecrets,
) -> Result<Box<dyn MessageEncrypter>, RecordError> {
    key_of(secrets).map(|(key, iv)| suite.aead_alg.encrypter(key, iv))
}

/// The ciphers of TLS 1.3 differ in what they do with them.
fn key_of(secrets: ConnectionTrafficSecrets) -> Result<(AeadKey, Iv), RecordError> {
    match secrets {
        ConnectionTrafficSecrets::Aes128Gcm { key, iv }
        | ConnectionTrafficSecrets::Aes256Gcm { key, iv }
        | ConnectionTrafficSecrets::Chacha20Poly1305 { key, iv } => Ok((key, iv)),
        _ => Err(RecordError::Unexpected("no cipher of TLS 1.3")),
    }
}

/// The same for a key that has sealed records before.
fn sealing_from(
    next: u64,
    suite: &Tls13CipherSuite,
    secrets: ConnectionTrafficSecrets,
) -> Result<Box<dyn MessageEncrypter>, RecordError> {
    let mut sealing = sealing(suite, secrets)?;
    if next > 0 {
        // aws-lc takes the first nonce that it sees for that of record 0, and refuses every later one that does not follow
        // from it. So it is shown that one. What comes out is not sent: to seal twice under one nonce is safe only so.
        let payload = OutboundChunks::Single(&[]);
        let version = ProtocolVersion::TLSv1_2;
        let nothing = OutboundPlainMessage { typ: ContentType::ApplicationData, version, payload };
        let _not_sent = sealing.encrypt(nothing, 0).map_err(RecordError::Rustls)?;
    }
    Ok(sealing)
}

impl fmt::Debug for Records {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Records")
            .field("suite", &self.suite.common.suite)
            .field("to_open", &self.to_open)
            .field("to_seal", &self.to_seal)
            .finish_non_exhaustive()
    }
}

/// Kind, version and length of a record (RFC 8446 §5.1).
const HEADER: usize = 5;
/// What one record carries at most (RFC 8446 §5.1), and how long it may be then (§5.2).
const MOST_PLAIN: usize = 1 << 14;
const MOST_SEALED: usize = MOST_PLAIN + 256;
/// Of a message after the handshake; a ticket is the longest (RFC 8446 §4.6.1).
const MOST_MESSAGE: usize = 0xffff;
/// A peer could keep us busy with records that say nothing. OpenSSL draws the same line.
const MOST_WITHOUT_DATA: u32 = 32;
/// Where a suite sets no limit to the records under one key, this is far below that of any.
const MOST_WITH_ONE_KEY: u64 = 1 << 48;

/// `update_not_requested` and `update_requested` (RFC 8446 §4.6.3).
const KEY_NOT_REQUESTED: u8 = 0;
const KEY_REQUESTED: u8 = 1;
/// A message that says that our next record has another key, and asks for nothing.
const KEY_UPDATE: [u8; 5] = [24, 0, 0, 1, KEY_NOT_REQUESTED];

const WARNING: u8 = 1;
const FATAL: u8 = 2;

#[cfg(test)]
mod tests;
