//! A file of lines, each a JSON object, for whatever reads such files.

use std::fs::{File, OpenOptions};
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::path::PathBuf;

use signet_audit::Origin;

use super::item::BEGINNING;
use super::{Item, Receiver};
use crate::failure::Failure;
use crate::output;

/// `-` is the standard output.
pub(super) struct Lines {
    path: PathBuf,
}

impl Lines {
    pub(super) fn new(path: PathBuf) -> Self {
        Self { path }
    }

    /// Opened for each batch: whoever keeps such files small may have moved it away.
    fn append(&self, lines: &str) -> std::io::Result<()> {
        if self.path.as_os_str() == "-" {
            let mut out = std::io::stdout().lock();
            out.write_all(lines.as_bytes())?;
            return out.flush();
        }
        let mut file = OpenOptions::new().read(true).append(true).create(true).open(&self.path)?;
        // Others may write to it, the stream of another issuer's log for one.
        if file.metadata()?.is_file() {
            file.lock()?;
            cut_torn_line(&mut file)?;
        }
        file.write_all(lines.as_bytes())?;
        file.sync_data()
    }
}

impl Receiver for Lines {
    fn send(&mut self, log: &Origin, items: &[Item]) -> Result<(), Failure> {
        let lines: String = items.iter().map(|item| item.line(log) + "\n").collect();
        self.append(&lines).map_err(|error| Failure::new(format!("{}: {error}", self.path.display())))
    }
}

/// What was written when it broke off within a line: that entry comes again.
fn cut_torn_line(file: &mut File) -> std::io::Result<()> {
    const STEP: u64 = 4096;
    let length = file.metadata()?.len();
    let mut end = length;
    while end > 0 {
        let start = end.saturating_sub(STEP);
        let mut bytes = vec![0; (end - start) as usize];
        file.seek(SeekFrom::Start(start))?;
        file.read_exact(&mut bytes)?;
        if let Some(place) = bytes.iter().rposition(|byte| *byte == b'\n') {
            end = start + place as u64 + 1;
            break;
        }
        end = start;
    }
    if end == length {
        return Ok(());
    }
    let mut torn = [0; BEGINNING.len()];
    let torn = &mut torn[..BEGINNING.len().min((length - end) as usize)];
    file.seek(SeekFrom::Start(end))?;
    file.read_exact(torn)?;
    if !BEGINNING.as_bytes().starts_with(torn) {
        return Err(std::io::Error::other("its last line has no end, and is none of a log: name another file"));
    }
    // Whether anybody reads the warning does not matter.
    let _ = output::warn("the last line was written in part, and is written again");
    file.set_len(end)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_line_that_was_written_in_part_is_written_again() {
        let folder = tempfile::TempDir::new().unwrap();
        let path = folder.path().join("lines");
        for (before, after) in [
            (String::new(), "new\n".to_owned()),
            (BEGINNING[..3].to_owned(), "new\n".to_owned()),
            ("whole\n".to_owned(), "whole\nnew\n".to_owned()),
            (format!("whole\n{BEGINNING}{}", "torn".repeat(5000)), "whole\nnew\n".to_owned()),
        ] {
            std::fs::write(&path, before).unwrap();
            Lines::new(path.clone()).append("new\n").unwrap();
            assert_eq!(std::fs::read_to_string(&path).unwrap(), after);
        }
    }

    #[test]
    fn what_somebody_else_wrote_stays_as_it_is() {
        let folder = tempfile::TempDir::new().unwrap();
        let path = folder.path().join("notes");
        std::fs::write(&path, "one\nand no end").unwrap();
        let refused = Lines::new(path.clone()).append("new\n").unwrap_err().to_string();
        assert!(refused.contains("name another file"), "{refused}");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "one\nand no end");
    }

    #[test]
    fn several_streams_into_one_file_lose_nothing() {
        let folder = tempfile::TempDir::new().unwrap();
        let path = folder.path().join("lines");
        let batch = |stream: usize| format!("{BEGINNING}\"{stream}\"}}\n").repeat(400);
        std::thread::scope(|scope| {
            for stream in 0..4 {
                let path = path.clone();
                scope.spawn(move || (0..25).for_each(|_| Lines::new(path.clone()).append(&batch(stream)).unwrap()));
            }
        });
        assert_eq!(std::fs::read_to_string(&path).unwrap().lines().count(), 4 * 25 * 400);
    }
}
