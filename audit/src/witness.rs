//! What others say of a log: that they saw a checkpoint, and that it follows all that they saw of this log before (C2SP tlog-cosignature).
//!
//! ```text
//! example.org/audit/3f1c0d5a
//! 20852163
//! CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=
//!
//! — example.org/audit/3f1c0d5a Az3grlgt…                                the log's own
//! — witness.example.net/w1 jWbPPwAAAABkGFDLEZMHwSRa…                    a witness's: its time, and its signature
//! ```

use std::fmt;
use std::str::FromStr;

use aws_lc_rs::signature::{ED25519, ML_DSA_44, UnparsedPublicKey};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use signed_note::{Signature, key_id};

use crate::checkpoint::{Checkpoint, Origin, OriginError, timed};

/// A witness's public key, as `name+hash+base64` (C2SP signed-note, “Verifier keys”).
#[derive(Clone, Eq, PartialEq)]
pub struct WitnessKey {
    name: Origin,
    algorithm: Algorithm,
    public: Vec<u8>,
}

/// With which cosignatures are made, by the type that is in a key.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Algorithm {
    Ed25519 = 0x04,
    MlDsa44 = 0x06,
}

#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum WitnessKeyError {
    #[error("it is not written as NAME+HASH+KEY")]
    Form,
    #[error("its name cannot be one")]
    Name(#[from] OriginError),
    #[error("it is not for cosignatures: those are of type 4 (Ed25519) or 6 (ML-DSA-44)")]
    Algorithm,
    #[error("its hash is not that of its key and its name: it was changed, or is not copied whole")]
    Hash,
}

/// One that is right.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Cosignature {
    /// When the witness signed, in Unix seconds.
    pub time: u64,
    /// As it stands below a checkpoint.
    pub line: String,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum CosignatureError {
    #[error("it has not cosigned")]
    Absent,
    #[error("its cosignature is wrong: it is of another checkpoint, or was changed")]
    Wrong,
    #[error("its cosignature is of the future: {ahead} s ahead of this clock, and of what it may be off")]
    Future { ahead: u64 },
}

/// In bytes, of a public key.
const ED25519_KEY: usize = 32;
/// The same (FIPS 204 §4).
pub const ML_DSA_44_KEY: usize = 1312;
/// How a message begins that ML-DSA-44 signs.
const SUBTREE: &[u8; 12] = b"subtree/v1\n\0";
/// More lines nobody looks at.
const MOST_LINES: usize = 100;

impl WitnessKey {
    /// Of whoever cosigns by ML-DSA-44. `public`: as FIPS 204 §7.2 encodes it.
    pub fn ml_dsa_44(name: Origin, public: &[u8; ML_DSA_44_KEY]) -> Self {
        Self { name, algorithm: Algorithm::MlDsa44, public: public.to_vec() }
    }

    pub fn name(&self) -> &str {
        self.name.as_str()
    }

    /// Whether both are the same key, whatever its name.
    pub(crate) fn is_same_key(&self, other: &Self) -> bool {
        self.public == other.public
    }

    /// Whether this is the second key of the log with this name.
    pub(crate) fn is_second_of(&self, log: &Origin) -> bool {
        self.algorithm == Algorithm::MlDsa44 && self.name == *log
    }

    /// The line below a checkpoint that says that it was seen at `time`, in Unix seconds. `signing` signs with this key.
    pub fn cosign<E>(
        &self,
        checkpoint: &Checkpoint,
        time: u64,
        signing: impl FnOnce(&[u8]) -> Result<Vec<u8>, E>,
    ) -> Result<String, E> {
        let signature = signing(&self.message(time, checkpoint))?;
        let signature = [&time.to_be_bytes(), &signature[..]].concat();
        // Its name is one that a key may have.
        let line = Signature::new(self.name().to_owned(), self.key_id(), signature);
        Ok(line.map(|line| String::from_utf8_lossy(&line.to_bytes()).into_owned()).unwrap_or_default())
    }

    /// The cosignature of this witness among the lines below a checkpoint. Those of others are passed over.
    pub fn find(&self, lines: &str, checkpoint: &Checkpoint) -> Result<Cosignature, CosignatureError> {
        let id = self.key_id();
        let mut found = CosignatureError::Absent;
        for line in lines.lines().take(MOST_LINES) {
            let Ok(signature) = Signature::from_bytes(line.as_bytes()) else { continue };
            if signature.id() != id || signature.name() != self.name() {
                continue;
            }
            match self.time_of(signature.signature(), checkpoint) {
                Some(time) => return Ok(Cosignature { time, line: format!("{line}\n") }),
                None => found = CosignatureError::Wrong,
            }
        }
        Err(found)
    }

    fn time_of(&self, signature: &[u8], checkpoint: &Checkpoint) -> Option<u64> {
        let (time, signature) = signature.split_first_chunk()?;
        let time = u64::from_be_bytes(*time);
        // A witness says when. 0 says nothing.
        if time == 0 || time > i64::MAX.cast_unsigned() {
            return None;
        }
        let message = self.message(time, checkpoint);
        let is_right = match self.algorithm {
            Algorithm::Ed25519 => UnparsedPublicKey::new(&ED25519, &self.public).verify(&message, signature),
            Algorithm::MlDsa44 => UnparsedPublicKey::new(&ML_DSA_44, &self.public).verify(&message, signature),
        };
        is_right.is_ok().then_some(time)
    }

    /// What is signed.
    fn message(&self, time: u64, checkpoint: &Checkpoint) -> Vec<u8> {
        match self.algorithm {
            Algorithm::Ed25519 => timed(time, &checkpoint.text()).into_bytes(),
            Algorithm::MlDsa44 => cosigned_message(&self.name, time, checkpoint),
        }
    }

    fn key_id(&self) -> u32 {
        key_id(self.name(), &self.typed())
    }

    fn typed(&self) -> Vec<u8> {
        [&[self.algorithm as u8], &self.public[..]].concat()
    }
}

/// C2SP tlog-cosignature, “ML-DSA-44 signed message”.
fn cosigned_message(cosigner: &Origin, time: u64, checkpoint: &Checkpoint) -> Vec<u8> {
    let mut message = SUBTREE.to_vec();
    let mut named = |name: &Origin, behind: &[&[u8]]| {
        // An origin has 255 bytes at most.
        message.push(u8::try_from(name.as_str().len()).unwrap_or(u8::MAX));
        message.extend_from_slice(name.as_str().as_bytes());
        behind.iter().for_each(|bytes| message.extend_from_slice(bytes));
    };
    named(cosigner, &[&time.to_be_bytes()]);
    let start: u64 = 0;
    named(&checkpoint.origin, &[&start.to_be_bytes(), &checkpoint.size.to_be_bytes(), &checkpoint.root.0]);
    message
}

impl fmt::Display for WitnessKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}+{:08x}+{}", self.name, self.key_id(), STANDARD.encode(self.typed()))
    }
}

impl fmt::Debug for WitnessKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "WitnessKey({}, {:?})", self.name, self.algorithm)
    }
}

impl FromStr for WitnessKey {
    type Err = WitnessKeyError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (name, rest) = text.split_once('+').ok_or(WitnessKeyError::Form)?;
        // Base64 has a + too.
        let (hash, key) = rest.split_once('+').ok_or(WitnessKeyError::Form)?;
        let typed = STANDARD.decode(key).map_err(|_| WitnessKeyError::Form)?;
        let (kind, public) = typed.split_first().ok_or(WitnessKeyError::Form)?;
        let algorithm = match (*kind, public.len()) {
            (0x04, ED25519_KEY) => Algorithm::Ed25519,
            (0x06, ML_DSA_44_KEY) => Algorithm::MlDsa44,
            _ => return Err(WitnessKeyError::Algorithm),
        };
        let key = Self { name: name.parse()?, algorithm, public: public.to_vec() };
        match format!("{:08x}", key.key_id()) == hash {
            true => Ok(key),
            false => Err(WitnessKeyError::Hash),
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    #![allow(clippy::unwrap_used)]
    use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _, ML_DSA_44_SIGNING, PqdsaKeyPair};
    use proptest::prelude::*;

    use super::*;

    /// A witness that signs whatever it is given.
    pub(crate) struct Signer {
        pub(crate) key: WitnessKey,
        pair: Pair,
    }

    enum Pair {
        Ed25519(Ed25519KeyPair),
        MlDsa44(PqdsaKeyPair),
    }

    impl Signer {
        pub(crate) fn ed25519(name: &str, seed: u8) -> Self {
            let pair = Ed25519KeyPair::from_seed_unchecked(&[seed; 32]).unwrap();
            let public = pair.public_key().as_ref().to_vec();
            let key = WitnessKey { name: name.parse().unwrap(), algorithm: Algorithm::Ed25519, public };
            Self { key, pair: Pair::Ed25519(pair) }
        }

        pub(crate) fn ml_dsa(name: &str) -> Self {
            let pair = PqdsaKeyPair::generate(&ML_DSA_44_SIGNING).unwrap();
            let public = pair.public_key().as_ref().to_vec();
            let key = WitnessKey::ml_dsa_44(name.parse().unwrap(), &public.try_into().unwrap());
            Self { key, pair: Pair::MlDsa44(pair) }
        }

        pub(crate) fn cosign(&self, checkpoint: &Checkpoint, time: u64) -> String {
            let signing = |message: &[u8]| match &self.pair {
                Pair::Ed25519(pair) => Ok::<_, ()>(pair.sign(message).as_ref().to_vec()),
                Pair::MlDsa44(pair) => {
                    let mut signature = vec![0; 2420];
                    pair.sign(message, &mut signature).unwrap();
                    Ok(signature)
                }
            };
            self.key.cosign(checkpoint, time, signing).unwrap()
        }
    }

    pub(crate) fn checkpoint(size: u64) -> Checkpoint {
        Checkpoint { origin: "example.org/audit".parse().unwrap(), size, root: tlog_tiles::Hash([7; 32]) }
    }

    #[test]
    fn a_cosignature_of_either_kind_is_found_among_others() {
        let signers = [Signer::ed25519("w.example/1", 1), Signer::ml_dsa("w.example/2")];
        let lines: String = signers.iter().map(|signer| signer.cosign(&checkpoint(9), 1_800_000_000)).collect();
        for signer in &signers {
            let found = signer.key.find(&lines, &checkpoint(9)).unwrap();
            assert_eq!((found.time, lines.contains(&found.line)), (1_800_000_000, true));
            assert_eq!(signer.key.find(&lines, &checkpoint(8)), Err(CosignatureError::Wrong));
            assert_eq!(signer.key.to_string().parse(), Ok(signer.key.clone()));
        }
        let other = Signer::ed25519("w.example/1", 3);
        assert_eq!(other.key.find(&lines, &checkpoint(9)), Err(CosignatureError::Absent));
    }

    #[test]
    fn a_cosignature_that_says_no_time_is_none() {
        let signer = Signer::ed25519("w.example/1", 1);
        assert_eq!(signer.key.find(&signer.cosign(&checkpoint(9), 0), &checkpoint(9)), Err(CosignatureError::Wrong));
        let never = signer.cosign(&checkpoint(9), u64::MAX);
        assert_eq!(signer.key.find(&never, &checkpoint(9)), Err(CosignatureError::Wrong));
    }

    #[test]
    fn a_key_that_is_not_for_cosignatures_or_was_changed_is_refused() {
        let text = Signer::ed25519("w.example/1", 1).key.to_string();
        let parse = |text: &str| text.parse::<WitnessKey>();
        assert_eq!(parse(&text.replace("w.e", "v.e")), Err(WitnessKeyError::Hash));
        let log = crate::VerifierKey::new("example.org/audit".parse().unwrap(), [7; 32]).to_string();
        assert_eq!(parse(&log), Err(WitnessKeyError::Algorithm));
        assert_eq!(parse("w.example/1"), Err(WitnessKeyError::Form));
    }

    proptest! {
        #[test]
        fn no_text_does_harm(text: String, lines: String) {
            let _ = text.parse::<WitnessKey>();
            let _ = Signer::ed25519("w.example/1", 1).key.find(&lines, &checkpoint(9));
        }
    }
}
