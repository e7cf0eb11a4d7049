//! Text with attributes in it: `{k8s.service_account}.{k8s.namespace}.svc`.

use std::fmt;

use crate::attributes::{AttributeError, AttributeName, Attributes, UnknownAttribute};

/// What is between the separators of a name: path segments, or labels of a DNS name. An attribute fills a part of one and
/// never adds another.
#[derive(Clone, Debug)]
pub struct Template {
    text: Box<str>,
    alphabet: Alphabet,
    segments: Vec<Segment>,
}

#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Segment(Vec<Part>);

#[derive(Clone, Debug, Eq, PartialEq)]
enum Part {
    Text(Box<str>),
    Attribute(AttributeName),
}

/// Why text is no template.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum TemplateError {
    #[error("a `{{` without its `}}`, or the other way round")]
    Braces,
    #[error(transparent)]
    Unknown(#[from] UnknownAttribute),
    #[error("an empty {0}")]
    EmptySegment(&'static str),
    #[error("{character:?} may not be in a {segment}")]
    Character { character: char, segment: &'static str },
    #[error("a {segment} that is {never}")]
    Segment { segment: &'static str, never: &'static str },
    #[error("it is longer than {0} bytes")]
    TooLong(usize),
}

/// Why a caller's attributes do not fit into a template.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum RenderError {
    #[error(transparent)]
    Attribute(#[from] AttributeError),
    #[error("`{name}` is {value:?}, and {character:?} may not be in a {segment}")]
    Character { name: AttributeName, value: String, character: char, segment: &'static str },
    #[error("a {segment} would be {never}")]
    Segment { segment: &'static str, never: &'static str },
    #[error("it would be longer than {0} bytes")]
    TooLong(usize),
}

/// What may be in a segment, and what it is called.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Alphabet {
    separator: char,
    segment: &'static str,
    allows: fn(char) -> bool,
    /// Whether a segment of such characters is one.
    fits: fn(&str) -> bool,
    /// What it is else.
    never: &'static str,
    most: usize,
}

/// Of a SPIFFE ID's path (SPIFFE-ID §2.2).
pub(crate) const PATH: Alphabet = Alphabet {
    separator: '/',
    segment: "path segment",
    allows: |character| character.is_ascii_alphanumeric() || matches!(character, '.' | '-' | '_'),
    fits: |segment| !matches!(segment, "" | "." | ".."),
    never: "empty, `.` or `..`",
    most: 2048,
};

/// Of a DNS name, in lower case (RFC 5890 §2.3.1).
pub(crate) const DNS: Alphabet = Alphabet {
    separator: '.',
    segment: "DNS label",
    allows: |character| character.is_ascii_lowercase() || character.is_ascii_digit() || character == '-',
    fits: |label| (1..=63).contains(&label.len()) && !label.starts_with('-') && !label.ends_with('-'),
    never: "empty, longer than 63 bytes, or begins or ends with a dash",
    most: 253,
};

impl Template {
    pub(crate) fn parse(text: &str, alphabet: Alphabet) -> Result<Self, TemplateError> {
        if text.len() > alphabet.most {
            return Err(TemplateError::TooLong(alphabet.most));
        }
        let mut segments = Vec::new();
        let mut rest = text;
        let mut parts = Vec::new();
        loop {
            let end = rest.find(['{', '}', alphabet.separator]).unwrap_or(rest.len());
            let (piece, after) = rest.split_at(end);
            if let Some(character) = piece.chars().find(|character| !(alphabet.allows)(*character)) {
                return Err(TemplateError::Character { character, segment: alphabet.segment });
            }
            if !piece.is_empty() {
                parts.push(Part::Text(piece.into()));
            }
            let Some(next) = after.chars().next() else { break };
            rest = &after[next.len_utf8()..];
            if next == alphabet.separator {
                segments.push(Segment::of(std::mem::take(&mut parts), alphabet)?);
                continue;
            }
            let (name, after) = match next {
                '{' => rest.split_once('}').ok_or(TemplateError::Braces)?,
                _ => return Err(TemplateError::Braces),
            };
            parts.push(Part::Attribute(name.parse()?));
            rest = after;
        }
        segments.push(Segment::of(parts, alphabet)?);
        Ok(Self { text: text.into(), alphabet, segments })
    }

    pub fn as_str(&self) -> &str {
        &self.text
    }

    pub fn attributes(&self) -> impl Iterator<Item = &AttributeName> {
        self.segments.iter().flat_map(|segment| &segment.0).filter_map(|part| match part {
            Part::Attribute(name) => Some(name),
            Part::Text(_) => None,
        })
    }

    pub(crate) fn segments(&self) -> &[Segment] {
        &self.segments
    }

    pub(crate) fn render(&self, attributes: &Attributes) -> Result<String, RenderError> {
        let alphabet = self.alphabet;
        let mut text = String::with_capacity(2 * self.text.len());
        for (number, segment) in self.segments.iter().enumerate() {
            if number > 0 {
                text.push(alphabet.separator);
            }
            let from = text.len();
            for part in &segment.0 {
                match part {
                    Part::Text(piece) => text.push_str(piece),
                    Part::Attribute(name) => text.push_str(fitting(name, attributes, alphabet)?),
                }
            }
            if !(alphabet.fits)(&text[from..]) {
                return Err(RenderError::Segment { segment: alphabet.segment, never: alphabet.never });
            }
            if text.len() > alphabet.most {
                return Err(RenderError::TooLong(alphabet.most));
            }
        }
        Ok(text)
    }
}

/// The attribute's one value, if all of it may be in a segment.
fn fitting<'a>(name: &AttributeName, attributes: &'a Attributes, alphabet: Alphabet) -> Result<&'a str, RenderError> {
    let value = attributes.single(name)?;
    match value.chars().find(|character| !(alphabet.allows)(*character)) {
        None => Ok(value),
        Some(character) => Err(RenderError::Character {
            name: name.clone(),
            value: value.chars().take(64).collect(),
            character,
            segment: alphabet.segment,
        }),
    }
}

impl Segment {
    fn of(parts: Vec<Part>, alphabet: Alphabet) -> Result<Self, TemplateError> {
        match &parts[..] {
            [] => Err(TemplateError::EmptySegment(alphabet.segment)),
            [Part::Text(text)] if !(alphabet.fits)(text) => {
                Err(TemplateError::Segment { segment: alphabet.segment, never: alphabet.never })
            }
            _ => Ok(Self(parts)),
        }
    }

    /// What it always is, if it is always the same.
    pub(crate) fn literal(&self) -> Option<&str> {
        match &self.0[..] {
            [Part::Text(text)] => Some(text),
            _ => None,
        }
    }

    /// The text before the first attribute and behind the last.
    fn ends(&self) -> (&str, &str) {
        (self.0.first().map_or("", Part::text), self.0.last().map_or("", Part::text))
    }

    /// Whether both could come out the same. May say so where they can't.
    pub(crate) fn may_equal(&self, other: &Self) -> bool {
        match (self.literal(), other.literal()) {
            (Some(one), Some(two)) => one == two,
            (Some(text), None) => other.may_be(text),
            (None, Some(text)) => self.may_be(text),
            (None, None) => {
                let ((one_head, one_tail), (two_head, two_tail)) = (self.ends(), other.ends());
                (one_head.starts_with(two_head) || two_head.starts_with(one_head))
                    && (one_tail.ends_with(two_tail) || two_tail.ends_with(one_tail))
            }
        }
    }

    /// Whether it could come out as `text`.
    pub(crate) fn may_be(&self, text: &str) -> bool {
        match self.literal() {
            Some(literal) => literal == text,
            None => {
                let (head, tail) = self.ends();
                text.len() >= head.len() + tail.len() && text.starts_with(head) && text.ends_with(tail)
            }
        }
    }
}

impl Part {
    fn text(&self) -> &str {
        match self {
            Self::Text(text) => text,
            Self::Attribute(_) => "",
        }
    }
}

impl fmt::Display for Template {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}
