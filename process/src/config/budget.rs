//! How much a document may hold.

/// What is counted while a document is read, and refused with its place where it is too much.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Budget {
    /// Mappings, sequences and scalars, keys among them.
    pub nodes: usize,
    /// Of all scalars, with what aliases stand for as often as they do.
    pub scalar_bytes: usize,
    /// Each lets a few bytes stand for many. Where there may be none, there is no anchor either.
    pub aliases: usize,
}

impl Budget {
    /// For a file that an operator of this machine wrote, of 1 MiB at most.
    pub const CONFIGURATION: Self = Self { nodes: 250_000, scalar_bytes: 4 << 20, aliases: 1000 };

    pub(super) fn of_parser(self) -> Option<serde_saphyr::Budget> {
        serde_saphyr::budget! {
            // Each node has at most two; the document and the stream have theirs.
            max_events: self.nodes.saturating_mul(2).saturating_add(16),
            max_nodes: self.nodes,
            max_total_scalar_bytes: self.scalar_bytes,
            max_aliases: self.aliases,
            max_anchors: self.aliases,
            max_recorded_anchor_events: self.nodes,
            max_recorded_anchor_bytes: self.scalar_bytes,
            max_documents: 2,
        }
    }
}
