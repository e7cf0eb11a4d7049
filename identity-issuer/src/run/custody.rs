//! Where the issuer's keys rest: those of its authorities, and those of its tokens.

use std::sync::Arc;

use super::RunError;
use crate::authority::custody::{Custody, Device, SealedFolder};
use crate::authority::{AuthorityError, Passphrase};
use crate::config::{Config, KeyPlace};

#[derive(Debug)]
pub(super) struct Custodies {
    pub(super) authorities: Arc<dyn Custody>,
    /// None where no tokens are made.
    pub(super) tokens: Option<Arc<dyn Custody>>,
}

/// A passphrase is read once: a descriptor is read to its end. Nothing is read or reached on a worker of the runtime.
pub(super) async fn open_custodies(config: &Config) -> Result<Custodies, RunError> {
    let (key, strength) = (config.authority.key.clone(), config.authority.seal_strength);
    let [authorities, tokens] = ["authorities", "jwt"].map(|folder| config.state.join(folder));
    let jwt = config.jwt.as_ref().map(|jwt| jwt.passphrase_file.clone());
    let opening = tokio::task::spawn_blocking(move || {
        let sealed =
            |folder, passphrase| -> Arc<dyn Custody> { Arc::new(SealedFolder::new(folder, passphrase, strength)) };
        let own = jwt.iter().flatten().next().map(|file| Passphrase::from_file(file)).transpose()?;
        let own = own.map(|passphrase| sealed(tokens.clone(), passphrase));
        let (authorities, beside) = match key {
            KeyPlace::Sealed { passphrase } => {
                let passphrase = Passphrase::from_file(&passphrase)?;
                (sealed(authorities, passphrase.clone()), sealed(tokens, passphrase))
            }
            KeyPlace::Token(place) => {
                // Its sessions are for both.
                let device = Device::open(place).map_err(|error| AuthorityError::Custody(error.into()))?;
                (Arc::new(device.clone()) as Arc<dyn Custody>, Arc::new(device) as Arc<dyn Custody>)
            }
        };
        Ok::<_, RunError>(Custodies { authorities, tokens: jwt.map(|_| own.unwrap_or(beside)) })
    });
    opening.await?
}
