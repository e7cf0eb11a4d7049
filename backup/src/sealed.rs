//! The encrypted stream: `signet-backup/v1`, the hash of the key that it is for, the encapsulated secret, and pieces of 64 KiB, each sealed by the
//! next nonce of one HPKE context (RFC 9180 §5.2). The last piece says that it is the last: a stream that was cut off is found out.

use std::fmt;
use std::io::{Error, ErrorKind, Read, Result, Write};

use rustls::crypto::hpke::{EncapsulatedSecret, HpkeOpener, HpkeSealer};
use zeroize::{Zeroize as _, Zeroizing};

use crate::key::{BackupKey, BackupSecret, KEY, KEY_HASH, SUITE};

/// Encrypts what is written. Nothing can be read of it before [`finish`](Self::finish).
pub struct Sealer<W> {
    to: W,
    context: Box<dyn HpkeSealer>,
    piece: Zeroizing<Vec<u8>>,
}

/// Decrypts what is read. What it gives was sealed to its end: an error comes before any byte that was not.
pub struct Opener<R> {
    from: R,
    context: Box<dyn HpkeOpener>,
    piece: Zeroizing<Vec<u8>>,
    given: usize,
    /// What was read beyond the piece.
    ahead: Vec<u8>,
    ended: bool,
}

const MAGIC: &[u8] = b"signet-backup/v1\n";
/// What both sides agree on beside the key (RFC 9180 §5.1, `info`).
const INFO: &[u8] = b"signet-backup/v1";
/// In bytes, of what is sealed at once.
const PIECE: usize = 64 << 10;
/// In bytes, of AES-GCM.
const TAG: usize = 16;
/// Authenticated with each piece.
const MORE: &[u8] = &[0];
const LAST: &[u8] = &[1];

impl<W: Write> Sealer<W> {
    pub fn new(mut to: W, key: &BackupKey) -> Result<Self> {
        let (secret, context) = SUITE.setup_sealer(INFO, &key.hpke()).map_err(Error::other)?;
        to.write_all(MAGIC)?;
        to.write_all(&key.hash())?;
        to.write_all(&secret.0)?;
        Ok(Self { to, context, piece: Zeroizing::new(Vec::with_capacity(PIECE)) })
    }

    /// Writes what says that nothing follows.
    pub fn finish(mut self) -> Result<W> {
        self.seal(LAST)?;
        self.to.flush()?;
        Ok(self.to)
    }

    fn seal(&mut self, which: &[u8]) -> Result<()> {
        let sealed = self.context.seal(which, &self.piece).map_err(Error::other)?;
        self.piece.zeroize();
        self.to.write_all(&sealed)
    }
}

impl<W: Write> Write for Sealer<W> {
    fn write(&mut self, bytes: &[u8]) -> Result<usize> {
        // The last piece is not sealed before it is known as such.
        if self.piece.len() == PIECE {
            self.seal(MORE)?;
        }
        let count = bytes.len().min(PIECE - self.piece.len());
        self.piece.extend_from_slice(&bytes[..count]);
        Ok(count)
    }

    /// Of what is sealed.
    fn flush(&mut self) -> Result<()> {
        self.to.flush()
    }
}

impl<R: Read> Opener<R> {
    pub fn new(mut from: R, secret: &BackupSecret) -> Result<Self> {
        let mut head = [0; MAGIC.len() + KEY_HASH + KEY];
        from.read_exact(&mut head).map_err(|_| invalid("it is no backup"))?;
        let (magic, rest) = head.split_at(MAGIC.len());
        let (hash, encapsulated) = rest.split_at(KEY_HASH);
        if magic != MAGIC {
            return Err(invalid("it is no backup"));
        }
        if hash != secret.public.hash() {
            return Err(invalid("it is encrypted to another key"));
        }
        let encapsulated = EncapsulatedSecret(encapsulated.to_vec());
        let context = SUITE.setup_opener(&encapsulated, INFO, &secret.secret).map_err(|_| changed())?;
        Ok(Self { from, context, piece: Zeroizing::default(), given: 0, ahead: Vec::new(), ended: false })
    }

    fn open(&mut self) -> Result<()> {
        let want = PIECE + TAG + 1;
        let mut sealed = std::mem::take(&mut self.ahead);
        let missing = want - sealed.len();
        self.from.by_ref().take(missing as u64).read_to_end(&mut sealed)?;
        // One byte beyond a whole piece: another one follows.
        let which = match sealed.len() == want {
            true => {
                self.ahead = sealed.split_off(PIECE + TAG);
                MORE
            }
            false => {
                self.ended = true;
                LAST
            }
        };
        self.piece = Zeroizing::new(self.context.open(which, &sealed).map_err(|_| changed())?);
        self.given = 0;
        Ok(())
    }
}

impl<R: Read> Read for Opener<R> {
    fn read(&mut self, into: &mut [u8]) -> Result<usize> {
        while self.given == self.piece.len() {
            if self.ended {
                return Ok(0);
            }
            self.open()?;
        }
        let count = into.len().min(self.piece.len() - self.given);
        into[..count].copy_from_slice(&self.piece[self.given..self.given + count]);
        self.given += count;
        Ok(count)
    }
}

fn invalid(what: &str) -> Error {
    Error::new(ErrorKind::InvalidData, what)
}

fn changed() -> Error {
    invalid("it was changed, or is not whole")
}

impl<W> fmt::Debug for Sealer<W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sealer").finish_non_exhaustive()
    }
}

impl<R> fmt::Debug for Opener<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Opener").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn sealed(content: &[u8], secret: &BackupSecret) -> Vec<u8> {
        let mut sealer = Sealer::new(Vec::new(), secret.public()).unwrap();
        sealer.write_all(content).unwrap();
        sealer.finish().unwrap()
    }

    fn opened(sealed: &[u8], secret: &BackupSecret) -> Result<Vec<u8>> {
        let mut content = Vec::new();
        Opener::new(sealed, secret)?.read_to_end(&mut content)?;
        Ok(content)
    }

    #[test]
    fn what_is_sealed_is_opened_by_its_key_and_by_no_other() {
        let (secret, other) = (BackupSecret::generate().unwrap(), BackupSecret::generate().unwrap());
        for length in [0, 1, PIECE - 1, PIECE, PIECE + 1, 2 * PIECE, 3 * PIECE + 7] {
            let content: Vec<u8> = (0..length).map(|number| (number % 251) as u8).collect();
            let sealed = sealed(&content, &secret);
            assert_eq!(opened(&sealed, &secret).unwrap(), content, "{length}");
            let refused = opened(&sealed, &other).unwrap_err().to_string();
            assert_eq!(refused, "it is encrypted to another key");
        }
    }

    #[test]
    fn nothing_of_it_can_be_changed_left_out_moved_or_added() {
        let secret = BackupSecret::generate().unwrap();
        let content = vec![7; 2 * PIECE + 100];
        let good = sealed(&content, &secret);
        let head = MAGIC.len() + KEY_HASH + KEY;
        let piece = PIECE + TAG;
        for position in (0..head).chain([head, head + piece - 1, head + piece, good.len() - 1]) {
            let mut changed = good.clone();
            changed[position] ^= 1;
            assert!(opened(&changed, &secret).is_err(), "{position}");
        }
        // At the end of a piece, and anywhere.
        for end in [0, head, head + 1, head + piece, head + 2 * piece, good.len() - 1] {
            assert!(opened(&good[..end], &secret).is_err(), "{end}");
        }
        assert!(opened(&[&good[..], b"x"].concat(), &secret).is_err());
        let moved = [&good[..head], &good[head + piece..head + 2 * piece], &good[head..head + piece]].concat();
        assert!(opened(&[&moved[..], &good[head + 2 * piece..]].concat(), &secret).is_err());
        let left_out = [&good[..head + piece], &good[head + 2 * piece..]].concat();
        assert!(opened(&left_out, &secret).is_err());
    }

    #[test]
    fn the_same_is_never_sealed_in_the_same_way() {
        let secret = BackupSecret::generate().unwrap();
        assert_ne!(sealed(b"content", &secret), sealed(b"content", &secret));
    }
}
