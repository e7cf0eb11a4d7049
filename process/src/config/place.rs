//! Where a position of the file is, in the file's own words: `upstream` in listener `orders`.

use std::fmt;

use serde::de::{IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_saphyr::Spanned;

use super::Budget;

/// The key at a position and the named thing that holds it. Empty when the document cannot be walked.
#[derive(Debug, Default)]
pub(super) struct Place {
    /// The key whose value the position is in or before.
    key: Option<String>,
    /// What the mapping at the position is called, from the inside out: [`listener `orders`], or [`tls`, listener …].
    container: Vec<String>,
    /// Whether the position is in the value of `key`, not at the key.
    in_value: bool,
    /// What a mapping that begins at the position is called.
    inside: Vec<String>,
}

impl Place {
    /// Walks `text` again to name the position. Only done to explain an error.
    pub(super) fn find(text: &str, budget: &Budget, line: u32, column: u32) -> Self {
        let options = serde_saphyr::options! {
            budget: budget.of_parser(),
            duplicate_keys: serde_saphyr::DuplicateKeyPolicy::LastWins,
            with_snippet: false,
        };
        let Ok(document) = serde_saphyr::from_str_with_options::<Spanned<Node>>(text, options) else {
            return Self::default();
        };
        let mut place = Self::default();
        place.descend(&document.value, "", (u64::from(line), u64::from(column)));
        place.container.reverse();
        place.inside.reverse();
        place
    }

    /// ` in listener `orders``, or nothing at the top of the file.
    pub(super) fn container_suffix(&self) -> String {
        suffix(&self.container)
    }

    /// The same for the mapping that begins at the position.
    pub(super) fn inside_suffix(&self) -> String {
        suffix(&self.inside)
    }

    /// ``header_timeout` in `limits`: `, to stand before what is wrong with a value.
    pub(super) fn value_prefix(&self) -> String {
        match &self.key {
            Some(key) if self.in_value => format!("`{}`{}: ", key.escape_debug(), self.container_suffix()),
            _ => String::new(),
        }
    }

    fn descend(&mut self, node: &Node, key: &str, target: (u64, u64)) {
        match node {
            Node::Mapping(entries) => {
                let Some((found, value)) = entries.iter().rev().find(|(name, _)| start(name) <= target) else {
                    return;
                };
                self.key = Some(found.value.clone());
                self.container = self.inside.clone();
                self.in_value = start(value) <= target;
                if self.in_value {
                    if let Node::Mapping(_) = value.value {
                        self.inside.push(format!("`{}`", found.value.escape_debug()));
                    }
                    self.descend(&value.value, &found.value, target);
                }
            }
            Node::Sequence(items) => {
                let Some((index, item)) = items.iter().enumerate().rev().find(|(_, item)| start(item) <= target) else {
                    return;
                };
                if let Node::Mapping(entries) = &item.value {
                    self.inside.push(item_name(key, index, entries));
                }
                self.descend(&item.value, key, target);
            }
            Node::Scalar(_) => {}
        }
    }
}

fn suffix(containers: &[String]) -> String {
    if containers.is_empty() { String::new() } else { format!(" in {}", containers.join(" of ")) }
}

/// `listener `orders`` for an item with a name, else `listener 2`.
fn item_name(key: &str, index: usize, entries: &[(Spanned<String>, Spanned<Node>)]) -> String {
    let kind = key.strip_suffix('s').unwrap_or(key).escape_debug();
    let name = entries.iter().find_map(|(key, value)| match &value.value {
        Node::Scalar(name) if key.value == "name" => Some(name),
        _ => None,
    });
    match name {
        Some(name) => format!("{kind} `{}`", name.escape_debug()),
        None => format!("{kind} {}", index + 1),
    }
}

fn start<T>(node: &Spanned<T>) -> (u64, u64) {
    (node.referenced.line(), node.referenced.column())
}

/// Any YAML, with the positions that `Place` needs.
enum Node {
    Mapping(Vec<(Spanned<String>, Spanned<Node>)>),
    Sequence(Vec<Spanned<Node>>),
    Scalar(String),
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(NodeVisitor)
    }
}

struct NodeVisitor;

impl<'de> Visitor<'de> for NodeVisitor {
    type Value = Node;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any value")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Node, A::Error> {
        let mut entries = Vec::new();
        while let Some(entry) = map.next_entry()? {
            entries.push(entry);
        }
        Ok(Node::Mapping(entries))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Node, A::Error> {
        let mut sequence = Vec::new();
        while let Some(item) = items.next_element()? {
            sequence.push(item);
        }
        Ok(Node::Sequence(sequence))
    }

    fn visit_str<E>(self, text: &str) -> Result<Node, E> {
        Ok(Node::Scalar(text.to_owned()))
    }

    fn visit_bool<E>(self, value: bool) -> Result<Node, E> {
        Ok(Node::Scalar(value.to_string()))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Node, E> {
        Ok(Node::Scalar(value.to_string()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Node, E> {
        Ok(Node::Scalar(value.to_string()))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Node, E> {
        Ok(Node::Scalar(value.to_string()))
    }

    fn visit_unit<E>(self) -> Result<Node, E> {
        Ok(Node::Scalar(String::new()))
    }

    fn visit_none<E>(self) -> Result<Node, E> {
        Ok(Node::Scalar(String::new()))
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Node, D::Error> {
        Node::deserialize(deserializer)
    }

    fn visit_newtype_struct<D: Deserializer<'de>>(self, deserializer: D) -> Result<Node, D::Error> {
        Node::deserialize(deserializer)
    }

    fn visit_enum<A: serde::de::EnumAccess<'de>>(self, data: A) -> Result<Node, A::Error> {
        let (IgnoredAny, _) = data.variant()?;
        Ok(Node::Scalar(String::new()))
    }
}
