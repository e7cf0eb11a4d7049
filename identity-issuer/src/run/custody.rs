//! Where the issuer's keys rest: those of its authorities, that of its audit log, and those of its tokens.

use std::sync::Arc;

use super::RunError;
use crate::authority::custody::{Custody, Device, SealedFolder};
use crate::authority::{AuthorityError, Passphrase};
use crate::config::{Config, KeyPlace};

#[derive(Debug)]
pub(super) struct Custodies {
    pub(super) authorities: Arc<dyn Custody>,
    /// Of the audit log.
    pub(super) log: Arc<dyn Custody>,
    /// None where no tokens are made.
    pub(super) tokens: Option<Arc<dyn Custody>>,
}

/// A passphrase is read once: a descriptor is read to its end. Nothing is read or reached on a worker of the runtime.
pub(super) async fn open_custodies(config: &Config) -> Result<Custodies, RunError> {
    let (key, strength) = (config.authority.key.clone(), config.authority.seal_strength);
    let [authorities, tokens, log] = ["authorities", "jwt", "audit/keys"].map(|folder| config.state.join(folder));
    let jwt = config.jwt.as_ref().map(|jwt| jwt.passphrase_file.clone());
    let audit = config.audit.passphrase_file.clone();
    let opening = tokio::task::spawn_blocking(move || {
        let sealed =
            |folder, passphrase| -> Arc<dyn Custody> { Arc::new(SealedFolder::new(folder, passphrase, strength)) };
        let own = jwt.iter().flatten().next().map(|file| Passphrase::from_file(file)).transpose()?;
        let own = own.map(|passphrase| sealed(tokens.clone(), passphrase));
        let own_log = audit.map(|file| Passphrase::from_file(&file)).transpose()?;
        let own_log = own_log.map(|passphrase| sealed(log.clone(), passphrase));
        let (authorities, beside, log) = match key {
            KeyPlace::Sealed { passphrase } => {
                let passphrase = Passphrase::from_file(&passphrase)?;
                (sealed(authorities, passphrase.clone()), sealed(tokens, passphrase.clone()), sealed(log, passphrase))
            }
            KeyPlace::Token(place) => {
                // Its sessions are for all.
                let device = Device::open(place).map_err(|error| AuthorityError::Custody(error.into()))?;
                let custody = || -> Arc<dyn Custody> { Arc::new(device.clone()) };
                (custody(), custody(), custody())
            }
        };
        let (tokens, log) = (jwt.map(|_| own.unwrap_or(beside)), own_log.unwrap_or(log));
        Ok::<_, RunError>(Custodies { authorities, log, tokens })
    });
    opening.await?
}
