//! Tokens in files and in memory: join tokens, and those that others made.

use std::{
    fmt, io,
    path::{Path, PathBuf},
};

use tokio::io::AsyncReadExt as _;
use zeroize::Zeroizing;

/// More than any token needs: a wrong path must not read a disk image.
const MAX_TOKEN_BYTES: u64 = 16 << 10;

/// Where the join token is.
pub enum JoinToken {
    /// In a file, which is read at each attempt: a new token takes effect without a restart.
    File(PathBuf),
    /// In memory. It is good for one attestation: an identity that expires while the issuer is away is lost.
    Value(Zeroizing<String>),
}

impl JoinToken {
    pub(super) async fn read(&self) -> Result<Zeroizing<String>, TokenError> {
        match self {
            Self::Value(token) => Ok(token.clone()),
            Self::File(path) => read_file(path).await,
        }
    }

    /// What to do with a new token.
    pub(super) fn advice(&self) -> String {
        match self {
            Self::File(path) => format!("put it in {}, where it is taken up without a restart", path.display()),
            Self::Value(_) => "start this program again with it".to_owned(),
        }
    }
}

/// The one word in a file.
pub(super) async fn read_file(path: &Path) -> Result<Zeroizing<String>, TokenError> {
    let mut text = Zeroizing::new(Vec::with_capacity(MAX_TOKEN_BYTES as usize + 1));
    let read = async { tokio::fs::File::open(path).await?.take(MAX_TOKEN_BYTES + 1).read_to_end(&mut text).await };
    read.await.map_err(|source| TokenError::Unreadable { path: path.to_owned(), source })?;
    token_in(&text).ok_or_else(|| TokenError::NotAToken { path: path.to_owned() })
}

/// The one word that a token file holds.
fn token_in(text: &[u8]) -> Option<Zeroizing<String>> {
    if text.len() as u64 > MAX_TOKEN_BYTES {
        return None;
    }
    let token = std::str::from_utf8(text).ok()?.trim_ascii();
    let word = !token.is_empty() && token.bytes().all(|byte| byte.is_ascii_graphic());
    word.then(|| Zeroizing::new(token.to_owned()))
}

/// Why there is no token to show.
#[derive(Debug, thiserror::Error)]
pub(super) enum TokenError {
    #[error("token file {} cannot be read", path.display())]
    Unreadable { path: PathBuf, source: io::Error },
    #[error("token file {} does not hold a token, which is one word", path.display())]
    NotAToken { path: PathBuf },
}

impl fmt::Debug for JoinToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => f.debug_tuple("File").field(path).finish(),
            Self::Value(_) => f.write_str("Value(..)"),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;

    #[test]
    fn a_token_is_one_word_with_space_around_it() {
        assert_eq!(token_in(b"  abc-DEF_123\n").unwrap().as_str(), "abc-DEF_123");
        for refused in [&b""[..], b" \n", b"two words", b"\xff\xfe", &[b'a'; (16 << 10) + 1]] {
            assert!(token_in(refused).is_none(), "{refused:?}");
        }
    }

    #[tokio::test]
    async fn a_file_is_read_anew_each_time() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        let token = JoinToken::File(path.clone());
        assert!(token.read().await.is_err());
        for word in ["first", "second"] {
            std::fs::write(&path, word).unwrap();
            assert_eq!(token.read().await.unwrap().as_str(), word);
        }
    }

    #[test]
    fn a_token_is_never_shown() {
        let token = JoinToken::Value(Zeroizing::new("s3cret".to_owned()));
        assert!(!format!("{token:?}{}", token.advice()).contains("s3cret"));
    }
}
