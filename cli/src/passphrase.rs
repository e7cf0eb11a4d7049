//! Where the operator says a passphrase is: a file, or an open descriptor.

use std::path::PathBuf;

use identity_issuer::Passphrase;

use crate::args::PassphraseOptions;
use crate::failure::Failure;

pub(crate) fn read(options: &PassphraseOptions) -> Result<Passphrase, Failure> {
    let path = match (&options.passphrase_file, options.passphrase_fd) {
        (Some(file), _) => file.clone(),
        // The kernel lends an open descriptor under this name; taking it by number would need unsafe code.
        (None, Some(descriptor)) => PathBuf::from(format!("/dev/fd/{descriptor}")),
        // clap demands one of the two.
        (None, None) => return Err(Failure::new("no passphrase").remedy("give --passphrase-file or --passphrase-fd")),
    };
    Passphrase::from_file(&path).map_err(|error| Failure::from_error(&error))
}
