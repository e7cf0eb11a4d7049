//! Files of any size, and what is in them.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use aws_lc_rs::digest::{Context, SHA256};

/// SHA-256 of a file, in hexadecimal.
pub fn sha256_of(path: &Path) -> String {
    let mut file = File::open(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let mut context = Context::new(&SHA256);
    let mut buffer = vec![0; 1 << 20];
    loop {
        match file.read(&mut buffer).unwrap_or_else(|error| panic!("{}: {error}", path.display())) {
            0 => return hex::encode(context.finish()),
            length => context.update(&buffer[..length]),
        }
    }
}

/// Fills a new file with so many random bytes: a block lost, doubled or moved shows in the checksum.
pub fn random_file(path: &Path, bytes: u64) {
    let random = File::open("/dev/urandom").expect("/dev/urandom");
    let mut file = File::create(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let written = io::copy(&mut random.take(bytes), &mut file).expect("space for a file");
    assert_eq!(written, bytes, "{}", path.display());
}
