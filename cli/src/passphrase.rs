//! Where the operator says what opens a key: a passphrase in a file or an open descriptor, or the PIN of a token.

use std::path::PathBuf;

use identity_issuer::Passphrase;
use identity_issuer::root::Unlock;

use crate::args::UnlockOptions;
use crate::failure::Failure;

/// What opens a root's key.
pub(crate) enum Opener {
    Passphrase(Passphrase),
    PinFile(PathBuf),
}

impl Opener {
    pub(crate) fn read(options: &UnlockOptions) -> Result<Self, Failure> {
        let path = match (&options.passphrase_file, options.passphrase_fd, &options.pin_file) {
            (_, _, Some(file)) => return Ok(Self::PinFile(file.clone())),
            (Some(file), _, _) => file.clone(),
            // The kernel lends an open descriptor under this name; taking it by number would need unsafe code.
            (None, Some(descriptor), _) => PathBuf::from(format!("/dev/fd/{descriptor}")),
            // clap demands one of them.
            (None, None, None) => return Err(nothing()),
        };
        Passphrase::from_file(&path).map(Self::Passphrase).map_err(|error| Failure::from_error(&error))
    }

    pub(crate) fn unlock(&self) -> Unlock<'_> {
        match self {
            Self::Passphrase(passphrase) => Unlock::Passphrase(passphrase),
            Self::PinFile(path) => Unlock::PinFile(path),
        }
    }
}

fn nothing() -> Failure {
    Failure::new("nothing to open the key with").remedy("give --passphrase-file, --passphrase-fd or --pin-file")
}
