//! The authorities that clients are told of, so that they say whether they would believe what each of them signs.

use std::collections::BTreeMap;
use std::sync::Arc;

use prost::Message as _;
use rustls_pki_types::CertificateDer;
use signet_proto::identity::v1 as wire;
use tokio::sync::watch;

use super::KeyName;
use crate::distribution::Version;

/// Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Publication(watch::Sender<Arc<Published>>);

/// By the names of their keys, so that they are the same at each issuer that knows of them.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct Published {
    chains: BTreeMap<KeyName, Vec<CertificateDer<'static>>>,
    version: Version,
}

impl Publication {
    pub(crate) fn new() -> Self {
        Self(watch::Sender::new(Arc::new(Published::of(BTreeMap::new()))))
    }

    /// As they change.
    pub(crate) fn followed(&self) -> watch::Receiver<Arc<Published>> {
        self.0.subscribe()
    }

    pub(crate) fn current(&self) -> Arc<Published> {
        Arc::clone(&self.0.borrow())
    }

    pub(crate) fn publish(&self, chains: BTreeMap<KeyName, Vec<CertificateDer<'static>>>) {
        let next = Published::of(chains);
        self.0.send_if_modified(|present| {
            let is_other = **present != next;
            if is_other {
                *present = Arc::new(next);
            }
            is_other
        });
    }
}

impl Published {
    fn of(chains: BTreeMap<KeyName, Vec<CertificateDer<'static>>>) -> Self {
        let mut published = Self { chains, version: Version::default() };
        published.version = Version::of(&published.written().encode_to_vec());
        published
    }

    pub(crate) fn version(&self) -> Version {
        self.version
    }

    pub(crate) fn has(&self, name: &KeyName) -> bool {
        self.chains.contains_key(name)
    }

    /// Their own certificates first, those above them behind.
    pub(crate) fn chains(&self) -> impl Iterator<Item = &[CertificateDer<'static>]> {
        self.chains.values().map(Vec::as_slice)
    }

    pub(crate) fn to_wire(&self) -> wire::Authorities {
        wire::Authorities { version: self.version.to_vec(), ..self.written() }
    }

    fn written(&self) -> wire::Authorities {
        let chain =
            |chain: &Vec<CertificateDer<'_>>| wire::Authority { chain: chain.iter().map(|der| der.to_vec()).collect() };
        wire::Authorities { authorities: self.chains.values().map(chain).collect(), version: Vec::new() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chains(names: &[&str]) -> BTreeMap<KeyName, Vec<CertificateDer<'static>>> {
        names
            .iter()
            .map(|name| (KeyName::of(name.as_bytes()), vec![CertificateDer::from(name.as_bytes().to_vec())]))
            .collect()
    }

    #[test]
    fn the_same_authorities_are_one_version_in_whatever_order_they_came() {
        let publication = Publication::new();
        let mut followed = publication.followed();
        publication.publish(chains(&["one", "other"]));
        assert!(followed.has_changed().is_ok_and(|changed| changed));
        let version = followed.borrow_and_update().version();
        publication.publish(chains(&["other", "one"]));
        assert!(followed.has_changed().is_ok_and(|changed| !changed));
        publication.publish(chains(&["one"]));
        assert_ne!(followed.borrow_and_update().version(), version);
        assert!(publication.current().has(&KeyName::of(b"one")) && !publication.current().has(&KeyName::of(b"other")));
        assert_eq!(publication.current().to_wire().authorities.len(), 1);
    }
}
