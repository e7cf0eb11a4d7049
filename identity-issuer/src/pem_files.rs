//! Certificates, requests and revocation lists in files, as PEM (RFC 7468).

use std::io::{ErrorKind, Read};
use std::path::Path;

use tokio::runtime::{Handle, RuntimeFlavor};

/// `\n` line ends on every platform.
pub(crate) const LINE_FEEDS: pem::EncodeConfig = pem::EncodeConfig::new().set_line_ending(pem::LineEnding::LF);

pub(crate) const CERTIFICATE: &str = "CERTIFICATE";
pub(crate) const REQUEST: &str = "CERTIFICATE REQUEST";
/// As OpenSSL has it, and RFC 7468 §6.
pub(crate) const REVOCATION_LIST: &str = "X509 CRL";

/// More than any chain needs.
pub(crate) const MAX_FILE: u64 = 256 * 1024;

/// One PEM block of `label`.
pub(crate) fn encode(label: &str, der: &[u8]) -> String {
    pem::encode_config(&pem::Pem::new(label, der), LINE_FEEDS)
}

/// The contents of each block of `label` in `text`, others left out.
pub(crate) fn decode(label: &str, text: &[u8]) -> Result<Vec<Vec<u8>>, pem::PemError> {
    let blocks = pem::parse_many(text)?;
    Ok(blocks.into_iter().filter(|block| block.tag() == label).map(pem::Pem::into_contents).collect())
}

/// Reads a small file whole, or not at all.
pub(crate) fn read(path: &Path) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    std::fs::File::open(path)?.take(MAX_FILE + 1).read_to_end(&mut bytes)?;
    match bytes.len() as u64 > MAX_FILE {
        true => Err(std::io::Error::new(ErrorKind::FileTooLarge, format!("it is larger than {} KiB", MAX_FILE / 1024))),
        false => Ok(bytes),
    }
}

/// Writes `text` to `path` so that a reader sees the old contents or the new ones, never a part.
///
/// A disk may take its time: where this is a worker of a runtime that has others, they take over what waits for it.
pub(crate) fn write_whole(path: &Path, text: &[u8]) -> std::io::Result<()> {
    match Handle::try_current().map(|runtime| runtime.runtime_flavor()) {
        Ok(RuntimeFlavor::MultiThread) => tokio::task::block_in_place(|| write(path, text)),
        Ok(_) | Err(_) => write(path, text),
    }
}

fn write(path: &Path, text: &[u8]) -> std::io::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let name = path.file_name().unwrap_or_default();
    let mut temporary = std::ffi::OsString::from(".");
    temporary.push(name);
    temporary.push(".new");
    let temporary = folder.join(temporary);
    let mut file = std::fs::File::create(&temporary)?;
    std::io::Write::write_all(&mut file, text)?;
    file.sync_all()?;
    std::fs::rename(&temporary, path)?;
    // The new name outlives a loss of power too.
    std::fs::File::open(folder)?.sync_all()
}
