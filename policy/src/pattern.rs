//! What an attribute must be: a value, or one with `*` for any characters.

use std::fmt;
use std::str::FromStr;

/// A value in which each `*` stands for any number of any characters, none included.
#[derive(Clone, Debug, Eq, PartialEq, Ord, PartialOrd, Hash)]
pub struct Pattern(Box<str>);

/// Why text is no pattern.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum PatternError {
    #[error("it is empty")]
    Empty,
    #[error("it has more than 1024 bytes")]
    TooLong,
    #[error("it has more than {MAX_STARS} `*`")]
    TooManyStars,
    #[error("it matches everything; leave the attribute out")]
    Everything,
}

impl Pattern {
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The only value it matches, if it is one.
    pub fn literal(&self) -> Option<&str> {
        (!self.0.contains('*')).then_some(&*self.0)
    }

    /// Takes time in proportion to the lengths' product at worst, which both are bounded for.
    pub fn matches(&self, value: &str) -> bool {
        let Some((head, rest)) = self.0.split_once('*') else { return *self.0 == *value };
        let Some(mut value) = value.strip_prefix(head) else { return false };
        let mut parts = rest.split('*');
        let last = parts.next_back().unwrap_or_default();
        for part in parts {
            // The leftmost place leaves most for what follows.
            let Some(at) = value.find(part) else { return false };
            value = &value[at + part.len()..];
        }
        value.ends_with(last)
    }

    /// What is before the first `*`: each value that it matches begins so.
    pub fn beginning(&self) -> &str {
        self.0.split('*').next().unwrap_or_default()
    }

    /// What is before the first `*`, and behind the last.
    fn ends(&self) -> (&str, &str) {
        let (head, rest) = self.0.split_once('*').unwrap_or_default();
        (head, rest.rsplit('*').next().unwrap_or_default())
    }

    /// Whether a value could match both. May say so where none does.
    pub(crate) fn may_overlap(&self, other: &Self) -> bool {
        match (self.literal(), other.literal()) {
            (Some(one), Some(two)) => one == two,
            (Some(value), None) => other.matches(value),
            (None, Some(value)) => self.matches(value),
            (None, None) => {
                let ((one_head, one_tail), (two_head, two_tail)) = (self.ends(), other.ends());
                (one_head.starts_with(two_head) || two_head.starts_with(one_head))
                    && (one_tail.ends_with(two_tail) || two_tail.ends_with(one_tail))
            }
        }
    }
}

impl FromStr for Pattern {
    type Err = PatternError;

    fn from_str(text: &str) -> Result<Self, PatternError> {
        if text.is_empty() {
            return Err(PatternError::Empty);
        }
        if text.len() > crate::attributes::MAX_VALUE {
            return Err(PatternError::TooLong);
        }
        if text.bytes().filter(|byte| *byte == b'*').count() > MAX_STARS {
            return Err(PatternError::TooManyStars);
        }
        if text.bytes().all(|byte| byte == b'*') {
            return Err(PatternError::Everything);
        }
        Ok(Self(text.into()))
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

const MAX_STARS: usize = 8;

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;

    fn pattern(text: &str) -> Pattern {
        text.parse().unwrap()
    }

    #[test]
    fn stars_stand_for_any_characters() {
        for (text, matching, others) in [
            ("shop", &["shop"][..], &["", "shops", "ashop", "SHOP"][..]),
            ("shop*", &["shop", "shop-a"], &["sho", "ashop"]),
            ("*-prod", &["a-prod", "-prod"], &["prod", "a-prod-b"]),
            ("a*b*c", &["abc", "axbxc", "abbc", "abcbc"], &["ab", "acb", "abcd"]),
            ("aa*aa", &["aaaa", "aaxaa"], &["aaa", "aa"]),
        ] {
            let pattern = pattern(text);
            assert!(matching.iter().all(|value| pattern.matches(value)), "{text}");
            assert!(!others.iter().any(|value| pattern.matches(value)), "{text}");
        }
    }

    #[test]
    fn what_is_no_condition_is_no_pattern() {
        for (text, error) in [
            ("", PatternError::Empty),
            ("*", PatternError::Everything),
            ("***", PatternError::Everything),
            ("a*a*a*a*a*a*a*a*a*", PatternError::TooManyStars),
        ] {
            assert_eq!(text.parse::<Pattern>(), Err(error));
        }
        assert_eq!("a".repeat(1025).parse::<Pattern>(), Err(PatternError::TooLong));
    }

    proptest! {
        /// Against the definition, letter by letter.
        #[test]
        fn it_matches_what_the_definition_says(text in "[ab*]{1,8}", value in "[ab]{0,8}") {
            fn defined(pattern: &[u8], value: &[u8]) -> bool {
                match pattern.split_first() {
                    None => value.is_empty(),
                    Some((b'*', rest)) => (0..=value.len()).any(|from| defined(rest, &value[from..])),
                    Some((letter, rest)) => value.first() == Some(letter) && defined(rest, &value[1..]),
                }
            }
            if let Ok(pattern) = text.parse::<Pattern>() {
                prop_assert_eq!(pattern.matches(&value), defined(text.as_bytes(), value.as_bytes()));
            }
        }

        #[test]
        fn two_that_match_one_value_overlap(one in "[ab*]{1,6}", two in "[ab*]{1,6}", value in "[ab]{0,6}") {
            if let (Ok(one), Ok(two)) = (one.parse::<Pattern>(), two.parse::<Pattern>())
                && one.matches(&value)
                && two.matches(&value)
            {
                prop_assert!(one.may_overlap(&two) && two.may_overlap(&one));
            }
        }
    }
}
