//! A report that is there, and the same made again: line by line, neither of them held in memory.

use std::io::{BufRead, Read as _, Write};

use aws_lc_rs::digest::{Context, SHA256};

/// Is written to what a file ought to be.
pub struct Comparison<R> {
    file: R,
    /// Of what was read of it.
    hash: Context,
    /// Of the line that ought to be next.
    line: Vec<u8>,
    /// Lines that are the same.
    same: u64,
    difference: Option<Difference>,
}

/// What a comparison came to.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Compared {
    /// None where the file is what was written.
    pub difference: Option<Difference>,
    /// Of the whole file.
    pub sha256: [u8; 32],
}

/// The first line that is not what the log says.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Difference {
    /// From 1.
    pub line: u64,
    /// None where there ought to be none.
    pub expected: Option<String>,
    /// None where the file ends before.
    pub found: Option<String>,
}

/// In bytes, of a line of the file: more than any entry makes. What is longer differs.
const MOST: u64 = 1 << 20;

impl<R: BufRead> Comparison<R> {
    pub fn with(file: R) -> Self {
        Self { file, hash: Context::new(&SHA256), line: Vec::new(), same: 0, difference: None }
    }

    pub fn end(mut self) -> std::io::Result<Compared> {
        if !self.line.is_empty() {
            self.compare()?;
        }
        let mut more = self.next_line()?;
        if self.difference.is_none() && !more.is_empty() {
            self.difference = Some(self.differs(None, Some(&more)));
        }
        while !more.is_empty() {
            more = self.next_line()?;
        }
        let mut sha256 = [0; 32];
        sha256.copy_from_slice(self.hash.finish().as_ref());
        Ok(Compared { difference: self.difference, sha256 })
    }

    fn compare(&mut self) -> std::io::Result<()> {
        let expected = std::mem::take(&mut self.line);
        if self.difference.is_some() {
            return Ok(());
        }
        let found = self.next_line()?;
        match found == expected {
            true => self.same += 1,
            false => {
                let found = (!found.is_empty()).then_some(&found[..]);
                self.difference = Some(self.differs(Some(&expected), found));
            }
        }
        Ok(())
    }

    /// Empty at the end.
    fn next_line(&mut self) -> std::io::Result<Vec<u8>> {
        let mut line = Vec::new();
        self.file.by_ref().take(MOST).read_until(b'\n', &mut line)?;
        self.hash.update(&line);
        Ok(line)
    }

    fn differs(&self, expected: Option<&[u8]>, found: Option<&[u8]>) -> Difference {
        let text = |line: &[u8]| String::from_utf8_lossy(line).trim_end_matches('\n').to_owned();
        Difference { line: self.same + 1, expected: expected.map(text), found: found.map(text) }
    }
}

impl<R: BufRead> Write for Comparison<R> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            self.line.extend_from_slice(piece);
            if piece.ends_with(b"\n") {
                self.compare()?;
            }
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl<R> std::fmt::Debug for Comparison<R> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Comparison").field("same", &self.same).field("difference", &self.difference).finish()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn difference(file: &str, made: &[&str]) -> Option<(u64, Option<String>, Option<String>)> {
        let mut comparison = Comparison::with(file.as_bytes());
        made.iter().for_each(|piece| comparison.write_all(piece.as_bytes()).unwrap());
        let compared = comparison.end().unwrap();
        assert_eq!(compared.sha256, crate::sha256(file.as_bytes()));
        compared.difference.map(|Difference { line, expected, found }| (line, expected, found))
    }

    #[test]
    fn the_first_line_that_differs_is_told() {
        let some = |text: &str| Some(text.to_owned());
        assert_eq!(difference("a\nb\n", &["a\n", "b\n"]), None);
        assert_eq!(difference("a\nb\n", &["a", "\nb", "\n"]), None);
        assert_eq!(difference("", &[]), None);
        assert_eq!(difference("a\nx\ny\n", &["a\nb\nc\n"]), Some((2, some("b"), some("x"))));
        assert_eq!(difference("a\n", &["a\nb\n"]), Some((2, some("b"), None)));
        assert_eq!(difference("a\nb\n", &["a\n"]), Some((2, None, some("b"))));
        assert_eq!(difference("a\nb", &["a\nb\n"]), Some((2, some("b"), some("b"))));
        assert_eq!(difference("a\r\n", &["a\n"]), Some((1, some("a"), some("a\r"))));
    }
}
