//! A log's public key, as those who verify are given it: `origin+hash+base64` (C2SP signed-note, “Verifier keys”).

use std::fmt;
use std::str::FromStr;

use aws_lc_rs::signature::{ED25519, UnparsedPublicKey};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use signed_note::{Verifier, key_id};

use crate::checkpoint::{Origin, OriginError, timed};
use crate::witness::{WitnessKey, WitnessKeyError};

/// Ed25519. The key of a log signs its checkpoints twice: plainly, and with the time. A log may have a second key, of ML-DSA-44, that signs
/// them as well: whoever is given both demands both. It is written, and known, by the first alone.
#[derive(Clone, Eq, PartialEq)]
pub struct VerifierKey {
    origin: Origin,
    public: [u8; 32],
    second: Option<WitnessKey>,
}

#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum VerifierKeyError {
    #[error("it is not written as ORIGIN+HASH+KEY")]
    Form,
    #[error("its origin cannot be one")]
    Origin(#[from] OriginError),
    #[error("it is not for Ed25519")]
    Algorithm,
    #[error("its hash is not that of its key and its origin: it was changed, or is not copied whole")]
    Hash,
    #[error("the log's second key: {0}")]
    Second(#[from] WitnessKeyError),
    #[error("a second key stands behind the first one of the same log, and is of ML-DSA-44")]
    NotSecond,
}

/// What a signature is of, as the second part of its key's identifier says (C2SP signed-note, “Signature types”).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum SignatureType {
    /// Of the text.
    Ed25519 = 0x01,
    /// Of the time and the text (C2SP tlog-cosignature).
    Cosignature = 0x04,
}

impl VerifierKey {
    /// `public`: as RFC 8032 §5.1.5 has it.
    pub fn new(origin: Origin, public: [u8; 32]) -> Self {
        Self { origin, public, second: None }
    }

    /// Those of some text, each in its line: the one of a log, and behind it its second one, if it has one.
    pub fn read(text: &str) -> Result<Vec<Self>, VerifierKeyError> {
        let mut keys: Vec<Self> = Vec::new();
        for line in text.lines().map(str::trim).filter(|line| !line.is_empty()) {
            match line.parse() {
                Ok(key) => keys.push(key),
                Err(VerifierKeyError::Algorithm) => {
                    let second: WitnessKey = line.parse()?;
                    let is_behind = |key: &&mut Self| key.second.is_none() && second.is_second_of(&key.origin);
                    let key = keys.last_mut().filter(is_behind).ok_or(VerifierKeyError::NotSecond)?;
                    key.second = Some(second);
                }
                Err(error) => return Err(error),
            }
        }
        Ok(keys)
    }

    /// Whether the log is the same, by its first key.
    pub fn is_same_log(&self, other: &Self) -> bool {
        self.origin == other.origin && self.public == other.public
    }

    /// The first key alone: for what somebody kept from before there was a second one.
    #[must_use]
    pub fn first(&self) -> Self {
        Self { second: None, ..self.clone() }
    }

    pub(crate) fn second(&self) -> Option<&WitnessKey> {
        self.second.as_ref()
    }

    pub fn origin(&self) -> &Origin {
        &self.origin
    }

    pub(crate) fn key_id(&self, of: SignatureType) -> u32 {
        key_id(self.origin.as_str(), &self.typed(of))
    }

    pub(crate) fn verifier(&self, of: SignatureType) -> NoteVerifier {
        NoteVerifier { id: self.key_id(of), of, key: self.clone() }
    }

    fn has_signed(&self, message: &[u8], signature: &[u8]) -> bool {
        UnparsedPublicKey::new(&ED25519, self.public).verify(message, signature).is_ok()
    }

    fn typed(&self, of: SignatureType) -> Vec<u8> {
        [&[of as u8], &self.public[..]].concat()
    }
}

/// Verifies one type of a log's signatures.
pub(crate) struct NoteVerifier {
    id: u32,
    of: SignatureType,
    key: VerifierKey,
}

impl Verifier for NoteVerifier {
    fn name(&self) -> &str {
        self.key.origin.as_str()
    }

    fn key_id(&self) -> u32 {
        self.id
    }

    fn verify(&self, text: &[u8], signature: &[u8]) -> bool {
        match self.of {
            SignatureType::Ed25519 => self.key.has_signed(text, signature),
            SignatureType::Cosignature => {
                let (Some((time, signature)), Ok(text)) = (signature.split_first_chunk(), std::str::from_utf8(text))
                else {
                    return false;
                };
                self.key.has_signed(timed(u64::from_be_bytes(*time), text).as_bytes(), signature)
            }
        }
    }
}

impl fmt::Display for VerifierKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let typed = self.typed(SignatureType::Ed25519);
        write!(f, "{}+{:08x}+{}", self.origin, self.key_id(SignatureType::Ed25519), STANDARD.encode(typed))
    }
}

impl fmt::Debug for VerifierKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "VerifierKey({self})")
    }
}

impl FromStr for VerifierKey {
    type Err = VerifierKeyError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (origin, rest) = text.split_once('+').ok_or(VerifierKeyError::Form)?;
        // Base64 has a + too.
        let (hash, key) = rest.split_once('+').ok_or(VerifierKeyError::Form)?;
        let is_hash = hash.len() == 8 && hash.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        let typed = STANDARD.decode(key).ok().filter(|_| is_hash).ok_or(VerifierKeyError::Form)?;
        let (kind, public) = typed.split_first().ok_or(VerifierKeyError::Form)?;
        if *kind != SignatureType::Ed25519 as u8 {
            return Err(VerifierKeyError::Algorithm);
        }
        let public = public.try_into().map_err(|_| VerifierKeyError::Algorithm)?;
        let key = Self::new(origin.parse()?, public);
        match format!("{:08x}", key.key_id(SignatureType::Ed25519)) == hash {
            true => Ok(key),
            false => Err(VerifierKeyError::Hash),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
    use signed_note::{StandardVerifier, Verifier as _};

    use super::*;
    use crate::witness::tests::Signer;

    #[test]
    fn a_key_is_read_as_it_is_written_and_as_others_read_it() {
        let public = Ed25519KeyPair::from_seed_unchecked(&[7; 32]).unwrap().public_key().as_ref().try_into().unwrap();
        let key = VerifierKey::new("example.org/audit/0001".parse().unwrap(), public);
        let text = key.to_string();
        assert_eq!(text.parse(), Ok(key.clone()));
        let theirs = StandardVerifier::new(&text).unwrap();
        assert_eq!((theirs.name(), theirs.key_id()), ("example.org/audit/0001", key.key_id(SignatureType::Ed25519)));
    }

    #[test]
    fn a_second_key_stands_behind_the_first_of_its_log() {
        let key = |name: &str| VerifierKey::new(name.parse().unwrap(), [7; 32]);
        let second = |name: &str| Signer::ml_dsa(name).key;
        let (one, other) = (key("a.example/1"), key("a.example/2"));
        let behind = second("a.example/1");
        let read = VerifierKey::read(&format!("\n{one}\n {behind}\n\n{other}")).unwrap();
        assert_eq!(read, [VerifierKey { second: Some(behind.clone()), ..one.clone() }, other.clone()]);
        assert!(read[0].is_same_log(&one) && !read[0].is_same_log(&other));
        assert_eq!(read[0].first(), one);
        assert_eq!(read[0].to_string(), one.to_string());
        for wrong in [
            behind.to_string(),
            format!("{other}\n{behind}"),
            format!("{one}\n{other}\n{behind}"),
            format!("{one}\n{behind}\n{}", second("a.example/1")),
            format!("{one}\n{}", Signer::ed25519("a.example/1", 1).key),
        ] {
            assert_eq!(VerifierKey::read(&wrong), Err(VerifierKeyError::NotSecond), "{wrong}");
        }
        let changed = format!("{one}\n{}", behind.to_string().replace("/1+", "/3+"));
        assert_eq!(VerifierKey::read(&changed), Err(VerifierKeyError::Second(WitnessKeyError::Hash)));
        assert_eq!(VerifierKey::read(&format!("{one}\nx")), Err(VerifierKeyError::Form));
    }

    #[test]
    fn a_key_that_was_changed_is_refused() {
        let text = VerifierKey::new("example.org/audit".parse().unwrap(), [7; 32]).to_string();
        let parse = |text: &str| text.parse::<VerifierKey>();
        assert_eq!(parse(&text.replace("org", "com")), Err(VerifierKeyError::Hash));
        assert_eq!(parse(&text.replace("BwcH", "BwcI")), Err(VerifierKeyError::Hash));
        assert_eq!(parse(&text[..text.len() - 4]), Err(VerifierKeyError::Algorithm));
        assert_eq!(parse("example.org/audit"), Err(VerifierKeyError::Form));
        assert_eq!(parse("example.org/audit+0123456g+AQ=="), Err(VerifierKeyError::Form));
        assert!(matches!(parse(&format!(" {text}")), Err(VerifierKeyError::Origin(_))));
    }
}
