//! An audit log that grows as a test wants it, written as an issuer writes it.

use std::fs::File;
use std::path::Path;

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
use signet_audit::report::{Claim, Format, Terms, Window, write};
use signet_audit::{Checkpoint, Edge, Folder, Resource, VerifierKey, sign};
use time::OffsetDateTime;

#[derive(Debug)]
pub struct GrowingLog {
    folder: Folder,
    pair: Ed25519KeyPair,
    key: VerifierKey,
    edge: Edge,
}

impl GrowingLog {
    /// An empty one in `folder/log`, its public key in `folder/log.key.pub`.
    pub fn new(folder: &Path) -> Self {
        let pair = Ed25519KeyPair::generate().unwrap();
        let key = VerifierKey::new("example.org/audit/grows".parse().unwrap(), public(&pair));
        std::fs::write(folder.join("log.key.pub"), key.to_string()).unwrap();
        let mut log = Self { folder: Folder::new(folder.join("log")), pair, key, edge: Edge::default() };
        log.grow(&[]);
        log
    }

    pub fn size(&self) -> u64 {
        self.edge.size()
    }

    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    pub fn grow(&mut self, entries: &[String]) {
        for entry in entries {
            let whole = |resource: Resource, bytes: Vec<u8>| self.folder.write(resource, &bytes).unwrap();
            self.edge.append(entry.as_bytes(), whole).unwrap();
        }
        for (resource, bytes) in self.edge.partial() {
            self.folder.write(resource, &bytes).unwrap();
        }
        let time = OffsetDateTime::now_utc().unix_timestamp().cast_unsigned();
        let note = sign(&self.checkpoint(), &self.key, time, |message| self.signature(message)).unwrap();
        self.folder.write(Resource::Checkpoint, note.as_bytes()).unwrap();
    }

    /// A CSV report of the log as it is now, and beside it what its key signs, whether the time is over or not.
    pub fn report(&self, from: &str, to: &str, path: &Path) {
        let window = Window::new(Window::time(from).unwrap(), Window::time(to).unwrap()).unwrap();
        let (terms, checkpoint) = (Terms { window, format: Format::Csv }, self.checkpoint());
        let made = write(&self.folder, &checkpoint, terms, 1, &mut File::create(path).unwrap(), &()).unwrap();
        let statement = Claim::new(&checkpoint, terms, &made).statement();
        let note = statement.sign(&self.key, |message| self.signature(message)).unwrap();
        std::fs::write(path.with_extension("csv.sig"), note).unwrap();
    }

    fn checkpoint(&self) -> Checkpoint {
        Checkpoint { origin: self.key.origin().clone(), size: self.edge.size(), root: self.edge.root() }
    }

    fn signature(&self, message: &[u8]) -> Result<[u8; 64], ()> {
        Ok(self.pair.sign(message).as_ref().try_into().unwrap())
    }
}

fn public(pair: &Ed25519KeyPair) -> [u8; 32] {
    pair.public_key().as_ref().try_into().unwrap()
}
