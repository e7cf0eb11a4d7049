use std::{fmt, str::FromStr, sync::Arc};

use crate::{SpiffeId, SpiffeIdError};

/// The longest trust domain name in bytes (SPIFFE-ID §2.3).
const MAX_BYTES: usize = 255;

/// The name of a trust domain, such as `example.org` (SPIFFE-ID §2.1): 1 to 255 bytes of `a-z`, `0-9`, `.`, `-`, `_`.
///
/// Upper case is refused, not folded: two spellings of one domain would be two keys everywhere else.
#[derive(Clone, Eq, PartialEq, Ord, PartialOrd, Hash)]
pub struct TrustDomain(Arc<str>);

impl TrustDomain {
    /// The bare name, without scheme.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The ID of the trust domain itself: `spiffe://example.org`.
    pub fn id(&self) -> SpiffeId {
        SpiffeId::of_trust_domain(self.clone())
    }
}

impl FromStr for TrustDomain {
    type Err = SpiffeIdError;

    fn from_str(name: &str) -> Result<Self, SpiffeIdError> {
        if name.is_empty() {
            return Err(SpiffeIdError::MissingTrustDomain);
        }
        if name.len() > MAX_BYTES {
            return Err(SpiffeIdError::TrustDomainTooLong { bytes: name.len() });
        }
        match name.chars().find(|character| !is_allowed(*character)) {
            Some(character) => Err(SpiffeIdError::TrustDomainCharacter { character }),
            None => Ok(Self(name.into())),
        }
    }
}

impl fmt::Display for TrustDomain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for TrustDomain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TrustDomain({self})")
    }
}

fn is_allowed(character: char) -> bool {
    matches!(character, 'a'..='z' | '0'..='9' | '.' | '-' | '_')
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn names_within_the_character_set_are_accepted() {
        for name in ["example.org", "a", "1.2.3.4", "under_score", "-", "..", &"a".repeat(255)] {
            assert_eq!(name.parse::<TrustDomain>().unwrap().as_str(), name);
        }
    }

    #[test]
    fn other_names_are_refused() {
        assert_eq!("".parse::<TrustDomain>(), Err(SpiffeIdError::MissingTrustDomain));
        assert_eq!("a".repeat(256).parse::<TrustDomain>(), Err(SpiffeIdError::TrustDomainTooLong { bytes: 256 }));
        for (name, character) in [
            ("Example.org", 'E'),
            ("a:80", ':'),
            ("user@a", '@'),
            ("a/b", '/'),
            ("a%20", '%'),
            ("ä", 'ä'),
            ("[::1]", '['),
        ] {
            assert_eq!(name.parse::<TrustDomain>(), Err(SpiffeIdError::TrustDomainCharacter { character }), "{name}");
        }
    }
}
