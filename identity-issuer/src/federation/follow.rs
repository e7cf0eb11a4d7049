//! Keeps the bundles of other trust domains in step with what they publish.

use std::collections::{BTreeMap, HashSet};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use http::HeaderMap;
use signet_identity::{BundleSet, SharedClock, TrustDomain};
use time::OffsetDateTime;
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::document::MAX_BYTES;
use super::kept::{Folder, Good, Kept};
use super::{Document, KeepError, Relationship, RelationshipError};
use crate::bundles::Bundles;
use crate::https;
use crate::metrics::Metrics;

/// Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Federation(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    own: TrustDomain,
    /// Those whose bundles are files of the configuration.
    by_file: HashSet<TrustDomain>,
    members: Mutex<BTreeMap<TrustDomain, Member>>,
    folder: Folder,
    in_force: watch::Sender<BundleSet>,
    bundles: Bundles,
    changed: Notify,
    metrics: Metrics,
    clock: SharedClock,
}

#[derive(Clone, Debug)]
struct Member {
    relationship: Relationship,
    origin: Origin,
    good: Option<Good>,
    /// When it is fetched next.
    due: Instant,
    /// Why what was fetched last was not taken.
    refused: Option<String>,
}

/// By whom a relationship is there.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Origin {
    Configuration,
    Command,
}

/// Whether a bundle has to follow the one that was taken last.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Continuity {
    Demanded,
    /// Somebody has said that it is right all the same.
    Waived,
}

/// What is known of one trust domain.
#[derive(Clone, Debug)]
pub(crate) struct Known {
    pub(crate) relationship: Relationship,
    /// Whether it can be removed by the command.
    pub(crate) is_configured: bool,
    pub(crate) document: Option<Document>,
    pub(crate) refreshed_at: Option<OffsetDateTime>,
    pub(crate) refused: Option<String>,
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum AddError {
    #[error(transparent)]
    Relationship(#[from] RelationshipError),
    #[error("{0} is this issuer's own trust domain")]
    Own(TrustDomain),
    #[error("{0} is there already")]
    Known(TrustDomain),
    #[error("there are {MOST} already")]
    TooMany,
    #[error("its bundle is not taken: {0}")]
    Refused(String),
    #[error(transparent)]
    Keep(#[from] KeepError),
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum NoSuch {
    #[error("there is no relationship with {0}; `signet federate list` shows them")]
    Unknown(TrustDomain),
    #[error("the configuration of this issuer names it: take it out there")]
    Configured,
    #[error("its bundle is not taken: {0}")]
    Refused(String),
    #[error(transparent)]
    Keep(#[from] KeepError),
}

/// A client takes so many trust domains, its own among them.
const MOST: usize = 63;
/// Less than an administrative call may take.
const TIMEOUT: Duration = Duration::from_secs(8);
const SETTLING: Duration = Duration::from_secs(1);
const DEFAULT_HINT: Duration = Duration::from_secs(300);
/// Between two fetches, whatever the other says.
const SHORTEST: Duration = Duration::from_secs(60);
const LONGEST: Duration = Duration::from_secs(3600);

impl Federation {
    /// With what was known when the issuer ran last.
    pub(crate) fn open(
        own: TrustDomain,
        by_file: HashSet<TrustDomain>,
        configured: Vec<Relationship>,
        folder: PathBuf,
        bundles: Bundles,
        metrics: Metrics,
        clock: SharedClock,
    ) -> Self {
        let folder = Folder(folder);
        let mut members = BTreeMap::new();
        let due = Instant::now();
        for relationship in configured {
            let origin = Origin::Configuration;
            let member = Member { relationship, origin, good: None, due, refused: None };
            members.insert(member.relationship.trust_domain.clone(), member);
        }
        for (trust_domain, Kept { added, good }) in folder.read() {
            match (members.get_mut(&trust_domain), added) {
                (Some(member), _) => member.good = good,
                (None, Some(relationship)) if !by_file.contains(&trust_domain) && trust_domain != own => {
                    let member = Member { relationship, origin: Origin::Command, good, due, refused: None };
                    members.insert(trust_domain, member);
                }
                // The configuration names it no more, or by a file.
                (None, _) => {
                    if let Err(error) = folder.remove(&trust_domain) {
                        tracing::warn!(%error, "a trust domain is federated with no more");
                    }
                }
            }
        }
        let federation = Self(Arc::new(Inner {
            own,
            by_file,
            members: Mutex::new(members),
            folder,
            in_force: watch::Sender::default(),
            bundles,
            changed: Notify::new(),
            metrics,
            clock,
        }));
        federation.put_in_force();
        federation
    }

    /// The last good bundle of each, as they change.
    pub(crate) fn in_force(&self) -> watch::Receiver<BundleSet> {
        self.0.in_force.subscribe()
    }

    /// Fetches each when it is due, until cancelled.
    pub(crate) async fn run(self) {
        loop {
            let now = Instant::now();
            let due: Vec<_> = {
                let members = self.members();
                members.values().filter(|member| member.due <= now).map(|member| member.relationship.clone()).collect()
            };
            let mut fetching = JoinSet::new();
            for relationship in due {
                let federation = self.clone();
                fetching.spawn(async move {
                    // Told and counted where it is taken.
                    let _ = federation.fetch_and_take(&relationship, Continuity::Demanded).await;
                });
            }
            fetching.join_all().await;
            let next = self.members().values().map(|member| member.due).min();
            let pause = next.map_or(LONGEST, |next| next.saturating_duration_since(Instant::now()));
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = self.0.changed.notified() => {}
            }
        }
    }

    pub(crate) fn list(&self) -> Vec<Known> {
        self.members().values().map(Known::of).collect()
    }

    /// Nothing is there afterwards that was not fetched and taken.
    pub(crate) async fn add(&self, relationship: Relationship) -> Result<Known, AddError> {
        relationship.check()?;
        let trust_domain = relationship.trust_domain.clone();
        self.check_new(&trust_domain)?;
        let (document, text) = self.fetch(&relationship).await.map_err(AddError::Refused)?;
        let good = Good { document, text, refreshed_at: self.0.clock.now() };
        let due = Instant::now() + good.document.pause();
        let member = Member {
            relationship: relationship.clone(),
            origin: Origin::Command,
            good: Some(good),
            due,
            refused: None,
        };
        let known = Known::of(&member);
        {
            let mut members = self.members();
            // Somebody else may have come first.
            self.check_new_among(&members, &trust_domain)?;
            self.0.folder.write(&trust_domain, &member.kept())?;
            members.insert(trust_domain.clone(), member);
        }
        tracing::info!(%trust_domain, url = %relationship.url, "federated");
        self.put_in_force();
        self.0.changed.notify_one();
        self.until_own_is_of(&trust_domain).await;
        Ok(known)
    }

    pub(crate) async fn refresh(&self, trust_domain: &TrustDomain, continuity: Continuity) -> Result<Known, NoSuch> {
        let unknown = || NoSuch::Unknown(trust_domain.clone());
        let relationship = self.members().get(trust_domain).map(|member| member.relationship.clone());
        self.fetch_and_take(&relationship.ok_or_else(unknown)?, continuity).await.map_err(NoSuch::Refused)?;
        self.until_own_is_of(trust_domain).await;
        self.members().get(trust_domain).map(Known::of).ok_or_else(unknown)
    }

    pub(crate) async fn remove(&self, trust_domain: &TrustDomain) -> Result<(), NoSuch> {
        {
            let mut members = self.members();
            match members.get(trust_domain).map(|member| member.origin) {
                None => return Err(NoSuch::Unknown(trust_domain.clone())),
                Some(Origin::Configuration) => return Err(NoSuch::Configured),
                Some(Origin::Command) => {}
            }
            self.0.folder.remove(trust_domain)?;
            members.remove(trust_domain);
        }
        tracing::info!(%trust_domain, "federated no more");
        self.0.metrics.federation_gone(trust_domain.as_str());
        self.put_in_force();
        self.until_own_is_of(trust_domain).await;
        Ok(())
    }

    /// Waits a moment for what was changed to be what this issuer trusts: whoever changed it goes on with that.
    async fn until_own_is_of(&self, trust_domain: &TrustDomain) {
        let wanted = self.0.in_force.borrow().get(trust_domain).cloned();
        let mut own = self.0.bundles.own();
        let there = own.wait_for(|own| own.get(trust_domain) == wanted.as_ref());
        // Where it takes longer, it comes all the same.
        let _ = tokio::time::timeout(SETTLING, there).await;
    }

    fn check_new(&self, trust_domain: &TrustDomain) -> Result<(), AddError> {
        self.check_new_among(&self.members(), trust_domain)
    }

    fn check_new_among(
        &self,
        members: &BTreeMap<TrustDomain, Member>,
        trust_domain: &TrustDomain,
    ) -> Result<(), AddError> {
        if *trust_domain == self.0.own {
            return Err(AddError::Own(trust_domain.clone()));
        }
        if self.0.by_file.contains(trust_domain) || members.contains_key(trust_domain) {
            return Err(AddError::Known(trust_domain.clone()));
        }
        if members.len() + self.0.by_file.len() >= MOST {
            return Err(AddError::TooMany);
        }
        Ok(())
    }

    async fn fetch(&self, relationship: &Relationship) -> Result<(Document, String), String> {
        let known = self.0.bundles.in_force().borrow().clone();
        let cause = |error: &dyn std::error::Error| error.to_string();
        let tls = relationship.tls(&known, &self.0.clock).map_err(|error| cause(&error))?;
        let body = https::get(&relationship.url, &tls, HeaderMap::new(), MAX_BYTES, TIMEOUT).await?;
        let document = Document::parse(&relationship.trust_domain, &body).map_err(|error| cause(&error))?;
        let text = String::from_utf8(body.to_vec()).map_err(|_| "it is no UTF-8 text".to_owned())?;
        Ok((document, text))
    }

    async fn fetch_and_take(&self, relationship: &Relationship, continuity: Continuity) -> Result<(), String> {
        let outcome = match self.fetch(relationship).await {
            Ok((document, text)) => self.take(relationship, document, text, continuity),
            Err(cause) => Err(cause),
        };
        self.note(relationship, outcome.as_ref().err());
        outcome
    }

    /// What is no good changes nothing.
    fn take(
        &self,
        relationship: &Relationship,
        document: Document,
        text: String,
        continuity: Continuity,
    ) -> Result<(), String> {
        let (trust_domain, now) = (&relationship.trust_domain, self.0.clock.now());
        {
            let mut members = self.members();
            // It may have been removed meanwhile, or be another one.
            let member = members.get_mut(trust_domain).filter(|member| member.relationship == *relationship);
            let member = member.ok_or_else(|| "it is federated with no more".to_owned())?;
            if let Some(known) = &member.good {
                match (document.check_follows(&known.document, now), continuity) {
                    (Err(error), Continuity::Demanded) => return Err(error.to_string()),
                    (Ok(()), _) | (Err(_), Continuity::Waived) => {}
                }
                let gone = document.gone_since(&known.document, now);
                if gone > 0 {
                    tracing::warn!(%trust_domain, gone, "authorities of a federated trust domain are trusted no more");
                }
            }
            let next = Member { good: Some(Good { document, text, refreshed_at: now }), ..member.clone() };
            // One that cannot be kept is good all the same, until a restart.
            if let Err(error) = self.0.folder.write(trust_domain, &next.kept()) {
                let cause = signet_process::start::Report::of(&error).cause;
                tracing::warn!(cause, "a federated bundle does not outlive a restart");
            }
            *member = next;
        }
        self.put_in_force();
        Ok(())
    }

    /// How a fetch ended, and when the next one is.
    fn note(&self, relationship: &Relationship, refused: Option<&String>) {
        let trust_domain = &relationship.trust_domain;
        let mut members = self.members();
        let Some(member) = members.get_mut(trust_domain) else { return };
        self.0.metrics.federation_refused(trust_domain.as_str(), refused.is_some());
        if let Some(cause) = refused.filter(|cause| member.refused.as_ref() != Some(cause)) {
            let kept = member.good.is_some();
            tracing::warn!(%trust_domain, url = %relationship.url, cause, kept, "federated bundle not taken");
        }
        member.refused = refused.cloned();
        let pause = member.good.as_ref().map_or(SHORTEST, |good| good.document.pause());
        member.due = Instant::now() + if member.refused.is_some() { SHORTEST } else { pause };
    }

    /// Tells those who look of the last good bundle of each.
    fn put_in_force(&self) {
        let members = self.members();
        let good = || members.iter().filter_map(|(trust_domain, member)| Some((trust_domain, member.good.as_ref()?)));
        for (trust_domain, good) in good() {
            self.0.metrics.federation_refreshed(trust_domain.as_str(), good.refreshed_at);
        }
        self.0.bundles.change_own_jwt(|jwt| {
            jwt.keys.retain(|trust_domain, _| *trust_domain == self.0.own);
            jwt.keys.extend(good().map(|(trust_domain, good)| (trust_domain.clone(), good.document.jwt.clone())));
        });
        let next: BundleSet = good().map(|(_, good)| good.document.bundle.clone()).collect();
        self.0.in_force.send_if_modified(|present| {
            let is_other = *present != next;
            *present = next;
            is_other
        });
    }

    /// Nothing panics while it is held.
    fn members(&self) -> MutexGuard<'_, BTreeMap<TrustDomain, Member>> {
        self.0.members.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Document {
    /// Before it is fetched again: a quarter of what the other says, as SPIRE does.
    fn pause(&self) -> Duration {
        (self.refresh_hint.unwrap_or(DEFAULT_HINT) / 4).clamp(SHORTEST, LONGEST)
    }
}

impl Member {
    fn kept(&self) -> Kept {
        let added = (self.origin == Origin::Command).then(|| self.relationship.clone());
        Kept { added, good: self.good.clone() }
    }
}

impl Known {
    fn of(member: &Member) -> Self {
        Self {
            relationship: member.relationship.clone(),
            is_configured: member.origin == Origin::Configuration,
            document: member.good.as_ref().map(|good| good.document.clone()),
            refreshed_at: member.good.as_ref().map(|good| good.refreshed_at),
            refused: member.refused.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;
    use serde_json::json;
    use signet_test_pki::Authority;

    use super::*;

    #[test]
    fn a_bundle_is_fetched_again_after_a_quarter_of_its_hint_between_a_minute_and_an_hour() {
        let domain: TrustDomain = "partner.example".parse().unwrap();
        let root = STANDARD.encode(Authority::root("partner.example").certificate());
        let pause = |hint: Option<u64>| {
            let mut document = json!({"keys": [{"use": "x509-svid", "x5c": [root]}]});
            hint.into_iter().for_each(|hint| document["spiffe_refresh_hint"] = json!(hint));
            Document::parse(&domain, document.to_string().as_bytes()).unwrap().pause().as_secs()
        };
        for (hint, expected) in [
            (Some(0), 60),
            (Some(239), 60),
            (Some(244), 61),
            (Some(3600), 900),
            (Some(14_396), 3599),
            (Some(14_404), 3600),
            (Some(u64::MAX), 3600),
            // Of one that says nothing, as of one that says five minutes.
            (None, 75),
        ] {
            assert_eq!(pause(hint), expected, "{hint:?}");
        }
    }
}
