//! How large a policy may be: so that it is read, kept and shown whole, and nobody can have it grow beyond what an issuer holds.

use std::ops::AddAssign;

use signet_process::config::Budget;

use crate::rule::Rule;

/// Of one policy. Each decision reads it.
pub const MAX_RULES: usize = 20_000;

/// Of one policy's YAML: as many rules as there may be, each with three attributes and four more values in its lists.
const MAX_NODES: usize = 32 * MAX_RULES;

/// Of all scalars of one policy's YAML, keys among them.
const MAX_BYTES: usize = 16 << 20;

/// What rules take as YAML: whatever way they are written in takes no more.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Size {
    rules: usize,
    nodes: usize,
    bytes: usize,
}

/// Why rules are no policy: there is too much of them.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum TooLarge {
    #[error("more than {MAX_RULES} rules in one policy")]
    Rules,
    #[error("more than {MAX_NODES} keys and values in one policy")]
    Nodes,
    #[error("more than {} MiB of text in one policy", MAX_BYTES >> 20)]
    Bytes,
}

impl Size {
    pub fn of<'a>(rules: impl IntoIterator<Item = &'a Rule>) -> Self {
        let mut size = Self::default();
        rules.into_iter().for_each(|rule| size += Self::of_one(rule));
        size
    }

    fn of_one(rule: &Rule) -> Self {
        let mut size = Self { rules: 1, nodes: NODES_OF_ANY, bytes: BYTES_OF_ANY };
        for (attribute, values) in &rule.matches {
            // The key, and a list that may hold one value alone.
            size.add(2, attribute.len());
            size.add_all(values);
        }
        let settings = &rule.settings;
        size.add_all(&settings.dns_names);
        size.add_all(&settings.federates_with);
        let texts = [Some(&rule.spiffe_id), settings.profile.as_ref(), settings.hint.as_ref()];
        size.add(0, rule.name.as_str().len() + texts.into_iter().flatten().map(String::len).sum::<usize>());
        size
    }

    fn add_all(&mut self, texts: &[String]) {
        self.add(texts.len(), texts.iter().map(String::len).sum());
    }

    fn add(&mut self, nodes: usize, bytes: usize) {
        self.nodes = self.nodes.saturating_add(nodes);
        self.bytes = self.bytes.saturating_add(bytes);
    }

    /// # Errors
    /// It is that of no policy.
    pub fn check(&self) -> Result<(), TooLarge> {
        match self {
            size if size.rules > MAX_RULES => Err(TooLarge::Rules),
            size if size.nodes > MAX_NODES => Err(TooLarge::Nodes),
            size if size.bytes > MAX_BYTES => Err(TooLarge::Bytes),
            _ => Ok(()),
        }
    }

    /// Whether it takes no more than `other`.
    pub fn is_within(&self, other: &Self) -> bool {
        self.rules <= other.rules && self.nodes <= other.nodes && self.bytes <= other.bytes
    }

    /// For a file of rules beside these.
    pub(crate) fn left(&self) -> Budget {
        // Around a file's rules there are a mapping, its key and a list.
        Budget {
            nodes: MAX_NODES.saturating_sub(self.nodes) + 3,
            scalar_bytes: MAX_BYTES.saturating_sub(self.bytes) + "rules".len(),
            aliases: 0,
        }
    }
}

impl AddAssign for Size {
    fn add_assign(&mut self, other: Self) {
        self.rules = self.rules.saturating_add(other.rules);
        self.add(other.nodes, other.bytes);
    }
}

/// A rule's mapping, and each of its nine keys with a value.
const NODES_OF_ANY: usize = 19;
/// Its keys, a lifetime, and a time of RFC 3339.
const BYTES_OF_ANY: usize = 128;

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::path::Path;

    use super::*;
    use crate::{Document, render};

    const FULL: &str = "match: { k8s.cluster: prod, k8s.namespace: [shop, billing] }, \
        spiffe_id: 'spiffe://example.org/ns/{k8s.namespace}/sa/cart', ttl: 10m, profile: workload, hint: main, \
        dns_names: [a.example, b.example], federates_with: [other.org], expires: 2027-01-31T12:00:00Z }";

    fn file(rules: std::ops::Range<usize>, rest: &str) -> String {
        let rules: String = rules.map(|number| format!("- {{ name: r{number}, {rest}\n")).collect();
        format!("rules:\n{rules}")
    }

    fn add(document: &mut Document, name: &str, text: &str) -> Result<(), String> {
        document.add(Path::new(name), text).map_err(|error| error.to_string())
    }

    #[test]
    fn a_policy_of_as_many_rules_as_there_may_be_is_read_as_it_is_rendered() {
        let mut document = Document::default();
        add(&mut document, "all.yaml", &file(0..MAX_RULES, FULL)).unwrap();
        Size::of(&document.rules).check().unwrap();
        let mut again = Document::default();
        add(&mut again, "answer", &render(&document.rules)).unwrap();
        assert_eq!(again.rules, document.rules);
        let one_more = add(&mut again, "more.yaml", &file(MAX_RULES..MAX_RULES + 1, FULL)).unwrap_err();
        assert_eq!(one_more, "more.yaml:2:11: more than 20000 rules in one policy");
    }

    #[test]
    fn what_a_parser_counts_of_rules_is_no_more_than_what_is_counted_of_them_here() {
        let empty =
            "match: {}, spiffe_id: a, dns_names: [], ttl: ~, profile: ~, hint: ~, federates_with: [], expires: ~ }";
        for rest in [FULL, empty, "match: { k8s.pod: [a] }, spiffe_id: a }"] {
            let text = file(0..100, rest);
            let mut document = Document::default();
            add(&mut document, "p.yaml", &text).unwrap();
            let Size { nodes, bytes, .. } = Size::of(&document.rules);
            let budget = Budget { nodes: nodes + 3, scalar_bytes: bytes + 5, aliases: 0 };
            signet_process::config::parse_within::<serde_json::Value>(Path::new("p.yaml"), &text, &budget).unwrap();
        }
    }

    #[test]
    fn lists_are_bounded_over_all_files_and_aliases_are_not_taken() {
        let list = vec!["a"; 100_000].join(",");
        let text =
            |name: &str| file(0..1, &format!("match: {{}}, spiffe_id: a, dns_names: [{list}] }}")).replace("r0", name);
        let mut document = Document::default();
        let refused = (0..7).find_map(|number| add(&mut document, "p.yaml", &text(&format!("n{number}"))).err());
        let refused = refused.unwrap();
        assert!(refused.starts_with("p.yaml:2:") && refused.contains("there is more in it"), "{refused}");
        assert_eq!(document.rules.len(), 6);

        // 22 KB that would be 1.5 MB, and so on in each file.
        let values = vec!["a".repeat(1024); 16].join(", ");
        let first = format!("- {{ name: a, spiffe_id: a, match: {{ k8s.pod: &all [{values}] }} }}");
        let more: String = (0..90)
            .map(|number| format!("- {{ name: b{number}, spiffe_id: a, match: {{ k8s.pod: *all }} }}\n"))
            .collect();
        let refused = add(&mut Document::default(), "p.yaml", &format!("rules:\n{first}\n{more}")).unwrap_err();
        assert!(refused.starts_with("p.yaml:2:") && refused.contains("write out what they stand for"), "{refused}");
    }
}
