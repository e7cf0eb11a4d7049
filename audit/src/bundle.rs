//! Entry bundles: entries in a row, each after its length in two bytes, most significant first (C2SP tlog-tiles, “Log entries”).

use crate::resource::Width;

/// In bytes: what the length of an entry has room for.
pub const MAX_ENTRY: usize = u16::MAX as usize;

/// A bundle that is whole in itself: whether its entries are those that were logged is another question.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Bundle {
    bytes: Vec<u8>,
    /// Where each entry stands.
    entries: Vec<(usize, usize)>,
}

#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum BundleError {
    #[error("it ends within entry {number}")]
    Truncated { number: usize },
    #[error("it has {found} entries, not {expected}")]
    Count { found: usize, expected: usize },
    /// Which of them, only its tile could say.
    #[error("its entries are not those that were logged")]
    Content,
}

/// Puts an entry behind others. It has at most [`MAX_ENTRY`] bytes: None, and nothing is done, where it has more.
pub fn push_entry(bundle: &mut Vec<u8>, entry: &[u8]) -> Option<()> {
    let length = u16::try_from(entry.len()).ok()?;
    bundle.extend_from_slice(&length.to_be_bytes());
    bundle.extend_from_slice(entry);
    Some(())
}

impl Bundle {
    /// Of exactly so many entries.
    pub fn parse(bytes: Vec<u8>, width: Width) -> Result<Self, BundleError> {
        let entries = places(&bytes)?;
        match entries.len() == width.count() {
            true => Ok(Self { bytes, entries }),
            false => Err(BundleError::Count { found: entries.len(), expected: width.count() }),
        }
    }

    /// Of however many there are.
    pub fn parse_all(bytes: Vec<u8>) -> Result<Self, BundleError> {
        let entries = places(&bytes)?;
        Ok(Self { bytes, entries })
    }

    /// The first so many; a whole bundle stands in for a partial one.
    pub(crate) fn cut(mut self, width: Width) -> Self {
        self.entries.truncate(width.count());
        self
    }

    pub fn entries(&self) -> impl ExactSizeIterator<Item = &[u8]> {
        self.entries.iter().map(|(start, end)| &self.bytes[*start..*end])
    }

    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        for entry in self.entries() {
            // It comes from a bundle.
            let _ = push_entry(&mut bytes, entry);
        }
        bytes
    }
}

fn places(bytes: &[u8]) -> Result<Vec<(usize, usize)>, BundleError> {
    let mut entries = Vec::new();
    let mut at = 0;
    while at < bytes.len() {
        let truncated = BundleError::Truncated { number: entries.len() };
        let Some(length) = bytes[at..].first_chunk::<2>() else { return Err(truncated) };
        let (start, end) = (at + 2, at + 2 + usize::from(u16::from_be_bytes(*length)));
        if end > bytes.len() {
            return Err(truncated);
        }
        entries.push((start, end));
        at = end;
    }
    Ok(entries)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_was_put_in_comes_out(entries: Vec<Vec<u8>>) {
            let mut bytes = Vec::new();
            for entry in &entries {
                push_entry(&mut bytes, entry).unwrap();
            }
            let bundle = Bundle::parse_all(bytes.clone()).unwrap();
            prop_assert!(bundle.entries().eq(entries.iter().map(Vec::as_slice)));
            let cut = Bundle::parse_all(bytes[..bytes.len().saturating_sub(1)].to_vec());
            prop_assert_eq!(cut.is_err(), !bytes.is_empty() && entries.last() != Some(&Vec::new()) || entries.last() == Some(&Vec::new()));
        }

        #[test]
        fn no_bytes_do_harm(bytes: Vec<u8>, count in 1_u64..=256) {
            let _ = Bundle::parse(bytes, Width::of(count).unwrap());
        }
    }

    #[test]
    fn an_entry_that_is_too_long_is_not_put_in() {
        let mut bytes = vec![1];
        assert_eq!(push_entry(&mut bytes, &vec![0; MAX_ENTRY + 1]), None);
        assert_eq!(bytes, [1]);
        push_entry(&mut bytes, &vec![0; MAX_ENTRY]).unwrap();
    }

    #[test]
    fn a_bundle_of_another_length_is_refused() {
        let width = Width::of(2).unwrap();
        assert_eq!(Bundle::parse(vec![0, 1, 7], width), Err(BundleError::Count { found: 1, expected: 2 }));
        assert_eq!(Bundle::parse(vec![0, 1, 7, 0, 2, 7], width), Err(BundleError::Truncated { number: 1 }));
        assert_eq!(Bundle::parse(vec![0, 1, 7, 0, 0], width).unwrap().entries().count(), 2);
    }
}
