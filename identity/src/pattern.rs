use std::{fmt, str::FromStr};

use crate::{
    SpiffeIdError, TrustDomain, WorkloadId,
    spiffe_id::{MAX_BYTES, check_segment, split},
};

/// A pattern for workload IDs: `spiffe://example.org/shop/*`.
///
/// The trust domain is always spelled out. `*` stands for one whole path segment, `**` for one or more segments and may
/// only come last. So `spiffe://example.org/**` is every workload of the domain, and `…/shop/**` does not include
/// `…/shop` itself.
#[derive(Clone, Eq, PartialEq)]
pub struct SpiffeIdPattern {
    trust_domain: TrustDomain,
    segments: Vec<Segment>,
}

/// Any of several patterns. Empty matches nothing.
#[derive(Clone, Default, Eq, PartialEq)]
pub struct SpiffeIdPatterns(Vec<SpiffeIdPattern>);

#[derive(Clone, Eq, PartialEq)]
enum Segment {
    Exactly(Box<str>),
    Any,
    Rest,
}

/// What a pattern says of a segment of a path.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum PatternSegment<'a> {
    Exactly(&'a str),
    /// One, whatever it is.
    Any,
    /// It and all that follow.
    Rest,
}

/// Why a string is not a pattern for SPIFFE IDs.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum PatternError {
    #[error(transparent)]
    Id(#[from] SpiffeIdError),
    #[error("a pattern needs a path: end it with `/**` for every workload of the trust domain")]
    MissingPath,
    #[error("`**` stands for the rest of the path and may only come last")]
    RestNotLast,
    #[error("`*` stands for one whole path segment, not for a part of `{segment}`")]
    PartOfSegment { segment: String },
}

impl SpiffeIdPattern {
    /// Whether the ID is one of those that the pattern stands for. Does not allocate.
    pub fn matches(&self, id: &WorkloadId) -> bool {
        if id.trust_domain() != &self.trust_domain {
            return false;
        }
        // The path of a workload begins with a slash, so what comes before the first one is empty.
        let mut path = id.path().split('/').skip(1);
        for segment in &self.segments {
            let Some(part) = path.next() else { return false };
            match segment {
                Segment::Exactly(name) if **name != *part => return false,
                Segment::Exactly(_) | Segment::Any => {}
                Segment::Rest => return true,
            }
        }
        path.next().is_none()
    }

    pub fn trust_domain(&self) -> &TrustDomain {
        &self.trust_domain
    }

    /// The path's.
    pub fn segments(&self) -> impl Iterator<Item = PatternSegment<'_>> {
        self.segments.iter().map(|segment| match segment {
            Segment::Exactly(name) => PatternSegment::Exactly(name),
            Segment::Any => PatternSegment::Any,
            Segment::Rest => PatternSegment::Rest,
        })
    }
}

impl FromStr for SpiffeIdPattern {
    type Err = PatternError;

    fn from_str(text: &str) -> Result<Self, PatternError> {
        if text.len() > MAX_BYTES {
            return Err(SpiffeIdError::TooLong { bytes: text.len() }.into());
        }
        let (trust_domain, path) = split(text)?;
        let path = path.strip_prefix('/').ok_or(PatternError::MissingPath)?;
        if path.is_empty() || path.ends_with('/') {
            return Err(SpiffeIdError::TrailingSlash.into());
        }
        let segments = path.split('/').map(Segment::parse).collect::<Result<Vec<_>, _>>()?;
        if segments.iter().rev().skip(1).any(|segment| *segment == Segment::Rest) {
            return Err(PatternError::RestNotLast);
        }
        Ok(Self { trust_domain, segments })
    }
}

impl Segment {
    fn parse(text: &str) -> Result<Self, PatternError> {
        match text {
            "*" => Ok(Self::Any),
            "**" => Ok(Self::Rest),
            _ if text.contains('*') => Err(PatternError::PartOfSegment { segment: text.to_owned() }),
            _ => {
                check_segment(text)?;
                Ok(Self::Exactly(text.into()))
            }
        }
    }
}

/// The pattern that matches this ID and no other.
impl From<&WorkloadId> for SpiffeIdPattern {
    fn from(id: &WorkloadId) -> Self {
        let segments = id.path().split('/').skip(1).map(|segment| Segment::Exactly(segment.into())).collect();
        Self { trust_domain: id.trust_domain().clone(), segments }
    }
}

impl fmt::Display for SpiffeIdPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "spiffe://{}", self.trust_domain)?;
        for segment in &self.segments {
            match segment {
                Segment::Exactly(name) => write!(f, "/{name}")?,
                Segment::Any => f.write_str("/*")?,
                Segment::Rest => f.write_str("/**")?,
            }
        }
        Ok(())
    }
}

impl fmt::Debug for SpiffeIdPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SpiffeIdPattern({self})")
    }
}

impl SpiffeIdPatterns {
    pub fn matches(&self, id: &WorkloadId) -> bool {
        self.0.iter().any(|pattern| pattern.matches(id))
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn iter(&self) -> impl Iterator<Item = &SpiffeIdPattern> {
        self.0.iter()
    }
}

impl FromIterator<SpiffeIdPattern> for SpiffeIdPatterns {
    fn from_iter<I: IntoIterator<Item = SpiffeIdPattern>>(patterns: I) -> Self {
        Self(patterns.into_iter().collect())
    }
}

/// The patterns that match this ID and no other.
impl From<&WorkloadId> for SpiffeIdPatterns {
    fn from(id: &WorkloadId) -> Self {
        Self(vec![id.into()])
    }
}

impl fmt::Display for SpiffeIdPatterns {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, pattern) in self.0.iter().enumerate() {
            let separator = if index == 0 { "" } else { ", " };
            write!(f, "{separator}{pattern}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for SpiffeIdPatterns {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(&self.0).finish()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;

    fn matches(pattern: &str, id: &str) -> bool {
        pattern.parse::<SpiffeIdPattern>().unwrap().matches(&id.parse().unwrap())
    }

    #[test]
    fn patterns_match_whole_segments() {
        for (pattern, id, expected) in [
            ("spiffe://a/shop/cart", "spiffe://a/shop/cart", true),
            ("spiffe://a/shop/cart", "spiffe://a/shop/carts", false),
            ("spiffe://a/shop/cart", "spiffe://a/shop", false),
            ("spiffe://a/shop/cart", "spiffe://a/shop/cart/x", false),
            ("spiffe://a/shop/cart", "spiffe://a/Shop/cart", false),
            ("spiffe://a/shop/*", "spiffe://a/shop/cart", true),
            ("spiffe://a/shop/*", "spiffe://a/shop", false),
            ("spiffe://a/shop/*", "spiffe://a/shop/cart/x", false),
            ("spiffe://a/*/cart", "spiffe://a/shop/cart", true),
            ("spiffe://a/*/cart", "spiffe://a/cart", false),
            ("spiffe://a/**", "spiffe://a/shop", true),
            ("spiffe://a/**", "spiffe://a/shop/cart/x", true),
            ("spiffe://a/**", "spiffe://b/shop", false),
            ("spiffe://a/**", "spiffe://a.b/shop", false),
            ("spiffe://a/shop/**", "spiffe://a/shop/cart", true),
            ("spiffe://a/shop/**", "spiffe://a/shop", false),
            ("spiffe://a/shop/**", "spiffe://a/shopping/cart", false),
            ("spiffe://a/*/**", "spiffe://a/shop/cart/x", true),
        ] {
            assert_eq!(matches(pattern, id), expected, "{pattern} {id}");
        }
    }

    #[test]
    fn malformed_patterns_are_refused_with_what_to_do() {
        use PatternError::*;
        for (pattern, error) in [
            ("spiffe://a", MissingPath),
            ("spiffe://a/", Id(SpiffeIdError::TrailingSlash)),
            ("spiffe://a/b/", Id(SpiffeIdError::TrailingSlash)),
            ("spiffe://*/b", Id(SpiffeIdError::TrustDomainCharacter { character: '*' })),
            ("spiffe://a/**/b", RestNotLast),
            ("spiffe://a/**/**", RestNotLast),
            ("spiffe://a/b*", PartOfSegment { segment: "b*".into() }),
            ("spiffe://a/***", PartOfSegment { segment: "***".into() }),
            ("spiffe://a//b", Id(SpiffeIdError::EmptySegment)),
            ("spiffe://a/../b", Id(SpiffeIdError::DotSegment)),
            ("*", Id(SpiffeIdError::Scheme)),
        ] {
            assert_eq!(pattern.parse::<SpiffeIdPattern>(), Err(error), "{pattern}");
        }
    }

    #[test]
    fn no_patterns_match_nothing() {
        assert!(!SpiffeIdPatterns::default().matches(&"spiffe://a/b".parse().unwrap()));
    }

    proptest! {
        #[test]
        fn a_pattern_displays_as_it_was_written(text in "spiffe://[a-z.]{1,9}(/([a-z]{1,5}|\\*)){1,4}(/\\*\\*)?") {
            let pattern: SpiffeIdPattern = text.parse().unwrap();
            prop_assert_eq!(pattern.to_string(), text);
        }

        #[test]
        fn the_pattern_of_an_id_matches_that_id_alone(
            one in "spiffe://[ab]/[ab]{1,2}(/[ab]){0,2}", other in "spiffe://[ab]/[ab]{1,2}(/[ab]){0,2}",
        ) {
            let (one, other): (WorkloadId, WorkloadId) = (one.parse().unwrap(), other.parse().unwrap());
            prop_assert!(SpiffeIdPattern::from(&one).matches(&one));
            prop_assert_eq!(SpiffeIdPattern::from(&one).matches(&other), one == other);
        }

        #[test]
        fn random_text_never_panics(text in "(spiffe://)?\\PC{0,60}") {
            let _either_is_fine = text.parse::<SpiffeIdPattern>();
        }
    }
}
