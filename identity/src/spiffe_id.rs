use std::{fmt, ops::Deref, str::FromStr, sync::Arc};

use crate::TrustDomain;

const SCHEME: &str = "spiffe://";

/// The longest SPIFFE ID in bytes, scheme included (SPIFFE-ID §2.3).
pub(crate) const MAX_BYTES: usize = 2048;

/// A SPIFFE ID: `spiffe://trust-domain` with an optional path (SPIFFE-ID §2). Cheap to clone.
///
/// As strict as go-spiffe: the scheme and the trust domain in lower case only, path segments of `A-Z`, `a-z`, `0-9`,
/// `.`, `-`, `_`, none of them empty, `.` or `..`, no trailing slash and no percent-encoding. So there is exactly one
/// spelling of each ID, and comparing bytes compares identities.
#[derive(Clone, Eq, PartialEq, Ord, PartialOrd, Hash)]
pub struct SpiffeId {
    text: Arc<str>,
    trust_domain: TrustDomain,
}

/// Why a string is not a SPIFFE ID, or not one of the kind that was asked for.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum SpiffeIdError {
    #[error("a SPIFFE ID begins with `spiffe://` in lower case")]
    Scheme,
    #[error("the trust domain is missing")]
    MissingTrustDomain,
    #[error("the trust domain contains {character:?}; it may hold only a-z, 0-9, dot, dash and underscore")]
    TrustDomainCharacter { character: char },
    #[error("the trust domain has {bytes} bytes; the limit is 255")]
    TrustDomainTooLong { bytes: usize },
    #[error("a path segment contains {character:?}; it may hold only letters, digits, dot, dash and underscore")]
    PathCharacter { character: char },
    #[error("a path segment is empty")]
    EmptySegment,
    #[error("a path segment is `.` or `..`")]
    DotSegment,
    #[error("the path ends with a slash")]
    TrailingSlash,
    #[error("the SPIFFE ID has {bytes} bytes; the limit is 2048")]
    TooLong { bytes: usize },
    #[error("`{id}` names a trust domain; a workload's ID has a path")]
    MissingPath { id: SpiffeId },
}

impl SpiffeId {
    /// The whole ID.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    pub fn trust_domain(&self) -> &TrustDomain {
        &self.trust_domain
    }

    /// `""` for the ID of a trust domain, else a path that begins with a slash: `/a/b`.
    pub fn path(&self) -> &str {
        &self.text[SCHEME.len() + self.trust_domain.as_str().len()..]
    }

    pub(crate) fn of_trust_domain(trust_domain: TrustDomain) -> Self {
        Self { text: format!("{SCHEME}{trust_domain}").into(), trust_domain }
    }
}

impl FromStr for SpiffeId {
    type Err = SpiffeIdError;

    fn from_str(text: &str) -> Result<Self, SpiffeIdError> {
        if text.len() > MAX_BYTES {
            return Err(SpiffeIdError::TooLong { bytes: text.len() });
        }
        let (trust_domain, path) = split(text)?;
        check_path(path)?;
        Ok(Self { text: text.into(), trust_domain })
    }
}

impl fmt::Display for SpiffeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for SpiffeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SpiffeId({self})")
    }
}

/// A SPIFFE ID with a path, as an X.509-SVID leaf must have (X509-SVID §3.1).
#[derive(Clone, Eq, PartialEq, Ord, PartialOrd, Hash)]
pub struct WorkloadId(SpiffeId);

impl TryFrom<SpiffeId> for WorkloadId {
    type Error = SpiffeIdError;

    fn try_from(id: SpiffeId) -> Result<Self, SpiffeIdError> {
        if id.path().is_empty() {
            return Err(SpiffeIdError::MissingPath { id });
        }
        Ok(Self(id))
    }
}

impl FromStr for WorkloadId {
    type Err = SpiffeIdError;

    fn from_str(text: &str) -> Result<Self, SpiffeIdError> {
        text.parse::<SpiffeId>()?.try_into()
    }
}

impl From<WorkloadId> for SpiffeId {
    fn from(id: WorkloadId) -> Self {
        id.0
    }
}

impl Deref for WorkloadId {
    type Target = SpiffeId;

    fn deref(&self) -> &SpiffeId {
        &self.0
    }
}

impl fmt::Display for WorkloadId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for WorkloadId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "WorkloadId({self})")
    }
}

/// Trust domain and path of an ID or of a pattern; the path is not yet checked and is empty or begins with a slash.
pub(crate) fn split(text: &str) -> Result<(TrustDomain, &str), SpiffeIdError> {
    let rest = text.strip_prefix(SCHEME).ok_or(SpiffeIdError::Scheme)?;
    let (name, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    Ok((name.parse()?, path))
}

pub(crate) fn check_segment(segment: &str) -> Result<(), SpiffeIdError> {
    match segment {
        "" => return Err(SpiffeIdError::EmptySegment),
        "." | ".." => return Err(SpiffeIdError::DotSegment),
        _ => {}
    }
    let allowed = |character: char| character.is_ascii_alphanumeric() || matches!(character, '.' | '-' | '_');
    match segment.chars().find(|character| !allowed(*character)) {
        Some(character) => Err(SpiffeIdError::PathCharacter { character }),
        None => Ok(()),
    }
}

fn check_path(path: &str) -> Result<(), SpiffeIdError> {
    let Some(segments) = path.strip_prefix('/') else { return Ok(()) };
    if path.ends_with('/') {
        return Err(SpiffeIdError::TrailingSlash);
    }
    segments.split('/').try_for_each(check_segment)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn an_id_is_taken_apart() {
        let id: SpiffeId = "spiffe://example.org/shop/Cart-1_x.y".parse().unwrap();
        assert_eq!(id.trust_domain().as_str(), "example.org");
        assert_eq!(id.path(), "/shop/Cart-1_x.y");
        assert_eq!(id.trust_domain().id().as_str(), "spiffe://example.org");
        assert_eq!(id.trust_domain().id(), "spiffe://example.org".parse().unwrap());
        assert_eq!(id.trust_domain().id().path(), "");
    }

    #[test]
    fn what_the_specification_forbids_is_refused() {
        use SpiffeIdError::*;
        for (text, error) in [
            ("", Scheme),
            ("spiffe:/example.org", Scheme),
            ("SPIFFE://example.org/a", Scheme),
            ("https://example.org/a", Scheme),
            (" spiffe://example.org/a", Scheme),
            ("spiffe://", MissingTrustDomain),
            ("spiffe:///a", MissingTrustDomain),
            ("spiffe://Example.org/a", TrustDomainCharacter { character: 'E' }),
            ("spiffe://example.org:8080/a", TrustDomainCharacter { character: ':' }),
            ("spiffe://user@example.org/a", TrustDomainCharacter { character: '@' }),
            ("spiffe://example.org?query", TrustDomainCharacter { character: '?' }),
            ("spiffe://example.org#fragment", TrustDomainCharacter { character: '#' }),
            ("spiffe://example.org/", TrailingSlash),
            ("spiffe://example.org/a/", TrailingSlash),
            ("spiffe://example.org//", TrailingSlash),
            ("spiffe://example.org//a", EmptySegment),
            ("spiffe://example.org/a//b", EmptySegment),
            ("spiffe://example.org/./a", DotSegment),
            ("spiffe://example.org/a/..", DotSegment),
            ("spiffe://example.org/a%2fb", PathCharacter { character: '%' }),
            ("spiffe://example.org/a?b", PathCharacter { character: '?' }),
            ("spiffe://example.org/a#b", PathCharacter { character: '#' }),
            ("spiffe://example.org/a b", PathCharacter { character: ' ' }),
            ("spiffe://example.org/a\0", PathCharacter { character: '\0' }),
            ("spiffe://example.org/ä", PathCharacter { character: 'ä' }),
            ("spiffe://example.org/*", PathCharacter { character: '*' }),
        ] {
            assert_eq!(text.parse::<SpiffeId>(), Err(error), "{text:?}");
        }
        assert!("spiffe://example.org/...".parse::<SpiffeId>().is_ok(), "only one and two dots are special");
    }

    #[test]
    fn the_longest_id_has_2048_bytes() {
        let id = |bytes: usize| format!("spiffe://a/{}", "b".repeat(bytes - "spiffe://a/".len()));
        assert_eq!(id(2048).parse::<SpiffeId>().unwrap().as_str().len(), 2048);
        assert_eq!(id(2049).parse::<SpiffeId>(), Err(SpiffeIdError::TooLong { bytes: 2049 }));
    }

    #[test]
    fn a_workload_has_a_path() {
        assert!("spiffe://example.org/a".parse::<WorkloadId>().is_ok());
        let id = "spiffe://example.org".parse::<SpiffeId>().unwrap();
        assert_eq!("spiffe://example.org".parse::<WorkloadId>(), Err(SpiffeIdError::MissingPath { id }));
    }

    proptest! {
        #[test]
        fn parsing_what_is_displayed_gives_the_same_id(
            text in "spiffe://[a-z0-9._-]{1,40}(/[A-Za-z0-9_-][A-Za-z0-9._-]{0,20}){0,6}",
        ) {
            let id: SpiffeId = text.parse().unwrap();
            prop_assert_eq!(id.to_string(), text);
            prop_assert_eq!(id.to_string().parse::<SpiffeId>().unwrap(), id);
        }

        #[test]
        fn random_text_never_panics_and_what_parses_is_canonical(text in "(spiffe://)?\\PC{0,80}") {
            if let Ok(id) = text.parse::<SpiffeId>() {
                prop_assert_eq!(id.as_str(), &text);
                prop_assert_eq!(format!("spiffe://{}{}", id.trust_domain(), id.path()), text);
            }
        }

        #[test]
        fn a_change_of_one_byte_changes_the_id(position in 0_usize..24, byte in 0_u8..128) {
            let text = "spiffe://example.org/a/b";
            let mut changed = text.as_bytes().to_vec();
            changed[position] = byte;
            let changed = String::from_utf8(changed).unwrap();
            if let Ok(id) = changed.parse::<SpiffeId>() {
                prop_assert_eq!(id == text.parse().unwrap(), changed == text);
            }
        }
    }
}
