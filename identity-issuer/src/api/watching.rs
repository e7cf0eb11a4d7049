//! One Watch stream: what a client has, what it is to have, and what it says of that.
//!
//! A version is a hash of what it is of. So a client that comes back, to this issuer or to another, is sent what it lacks and nothing
//! else, and nothing has to be remembered of it.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use prost::Message as _;
use signet_identity::{SharedClock, WorkloadId};
use signet_proto::identity::v1::{
    self as wire, Applied, Entitlements, Offer, RenewNow, Resource as WireResource, WatchRequest, WatchResponse,
    watch_response,
};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tonic::{Status, Streaming};

use super::{BUSY, too_many, written};
use crate::bundles::{jwt_told_to, told_to};
use crate::distribution::{Event, Resource, Subscription, Version};
use crate::entitlement::{self, Entitlement, Grounds, Wanted, entitle};
use crate::metrics::Counted;
use crate::policy::Policies;
use crate::revocation::{IsAhead, Revocations, SignedStatement, StatementError, Told};

/// Who watches.
#[derive(Debug)]
pub(super) struct Holder {
    pub(super) id: WorkloadId,
    pub(super) grounds: Grounds,
    pub(super) policies: Policies,
    pub(super) revocations: Revocations,
    pub(super) clock: SharedClock,
}

#[derive(Debug)]
pub(super) struct Watching {
    holder: Holder,
    subscription: Subscription,
    /// The connection's end: it comes with its certificate's.
    ending: CancellationToken,
    policy_changes: watch::Receiver<u64>,
    revoked: watch::Receiver<Told>,
    /// What the client says; none when it has no more to say.
    saying: Option<Streaming<WatchRequest>>,
    /// How often it has said something since it was last sent something.
    said: usize,
    /// What it has, or was sent.
    bundles: Option<Version>,
    entitlement: Option<Version>,
    entitlements: Option<Version>,
    authorities: Option<Version>,
    /// Whether it wants to be told of authorities.
    wants_authorities: bool,
    /// The epoch of revocations.
    revocations: Option<u64>,
    /// Whether it wants to be told of all that it may have.
    wants_entitlements: bool,
    wants_revocations: bool,
    /// What could not be said a moment ago.
    owes_revocations: bool,
    /// It has heard of more than there is on record,
    is_ahead: Option<IsAhead>,
    /// and is yet to be told how far that goes.
    owes_end: bool,
    /// What it is to be told next of them, as long as that is yet to be signed.
    signing: JoinSet<Signing>,
    ready: VecDeque<WatchResponse>,
    has_greeted: bool,
    _counted: Counted,
}

/// For the first word of a client.
const PATIENCE: Duration = Duration::from_secs(5);
/// For what could not be signed.
const RETRY: Duration = Duration::from_secs(1);
/// For what it is sent, one word is enough.
const MOST_WORDS: usize = 64;
/// Of which it can say something at once.
const MOST_RESOURCES: usize = 5;
/// Each takes 3 KiB at most.
const MOST_OFFERS: usize = 256;
/// In characters.
const MOST_REASON: usize = 256;

type Signing = Result<Option<Arc<SignedStatement>>, StatementError>;

/// What comes next for a stream.
enum Next {
    Event(Event),
    Policy,
    Revoked,
    Signed(Signing),
    Said(WatchRequest),
    NothingMoreSaid,
    /// What was said is no message, or one that is too long.
    Garbled(Status),
    End,
}

impl Watching {
    pub(super) fn new(
        holder: Holder,
        subscription: Subscription,
        saying: Streaming<WatchRequest>,
        ending: CancellationToken,
        counted: Counted,
    ) -> Self {
        Self {
            policy_changes: holder.policies.changes(),
            revoked: holder.revocations.told(),
            holder,
            subscription,
            ending,
            saying: Some(saying),
            said: 0,
            bundles: None,
            entitlement: None,
            entitlements: None,
            authorities: None,
            wants_authorities: false,
            revocations: None,
            wants_entitlements: false,
            wants_revocations: false,
            owes_revocations: false,
            is_ahead: None,
            owes_end: false,
            signing: JoinSet::new(),
            ready: VecDeque::new(),
            has_greeted: false,
            _counted: counted,
        }
    }

    pub(super) async fn next(watching: Option<Self>) -> Option<(Result<WatchResponse, Status>, Option<Self>)> {
        let mut watching = watching?;
        if !watching.has_greeted
            && let Err(status) = watching.greet().await
        {
            return Some((Err(status), None));
        }
        loop {
            if let Some(response) = watching.ready.pop_front() {
                watching.said = 0;
                return Some((Ok(response), Some(watching)));
            }
            // One after the other, as fast as the client reads them: none is held in memory for it. A key that takes its time to sign
            // them holds up nothing else.
            watching.ask_for_revocations();
            match watching.wait().await {
                Next::Event(Event::Bundles) => {
                    let entitled = watching.entitled();
                    watching.offer_bundles(entitled.as_ref());
                }
                Next::Event(Event::Authorities) => watching.offer_authorities(),
                Next::Event(Event::RenewNow(renew_now)) => {
                    // Bounded by the administrator's API to far less than a Duration holds.
                    let within = prost_types::Duration::try_from(renew_now.within).ok();
                    watching.note_sent(Resource::Renewal, Some(renew_now.version));
                    let version = renew_now.version.to_vec();
                    watching.send(watch_response::Event::RenewNow(RenewNow { within, version }));
                }
                Next::Policy => watching.offer_all(),
                // What is next is asked for above.
                Next::Revoked => watching.owes_revocations = false,
                Next::Signed(signed) => watching.offer_revocations(signed),
                Next::Said(request) => {
                    watching.said += 1;
                    if watching.said > MOST_WORDS {
                        let status = too_many("too much is said of what was sent", BUSY);
                        return Some((Err(status), None));
                    }
                    if let Err(status) = watching.hear(request) {
                        return Some((Err(status), None));
                    }
                }
                Next::Garbled(status) => return Some((Err(status), None)),
                Next::NothingMoreSaid => watching.saying = None,
                Next::End if watching.subscription.is_taken() => {
                    return Some((Err(Status::permission_denied("it was banned, evicted or revoked")), None));
                }
                // An end that the caller can tell from a broken connection: it opens another stream.
                Next::End => {
                    return Some((Err(Status::unavailable("this connection ends; watch on a new one")), None));
                }
            }
        }
    }

    /// Hears what the client has, and sends the rest; or a word that says that there is none.
    async fn greet(&mut self) -> Result<(), Status> {
        self.has_greeted = true;
        let first = tokio::time::timeout(PATIENCE, next_of(&mut self.saying));
        match self.ending.run_until_cancelled(first).await {
            Some(Ok(Ok(Some(request)))) => {
                self.has(&request)?;
                self.note_revocations().await;
            }
            Some(Ok(Ok(None))) => self.saying = None,
            Some(Ok(Err(status))) => return Err(status),
            Some(Err(_)) | None => {}
        }
        self.policy_changes.mark_unchanged();
        self.offer_all();
        if self.ready.is_empty() && !self.wants_revocations {
            self.ready.push_back(WatchResponse::default());
        }
        Ok(())
    }

    async fn wait(&mut self) -> Next {
        tokio::select! {
            biased;
            () = self.ending.cancelled() => Next::End,
            event = self.subscription.next() => event.map_or(Next::End, Next::Event),
            changed = self.policy_changes.changed() => if changed.is_ok() { Next::Policy } else { Next::End },
            changed = self.revoked.changed(), if self.wants_revocations => match changed {
                Ok(()) => Next::Revoked,
                Err(_) => Next::End,
            },
            Some(signed) = self.signing.join_next() => Next::Signed(signed.unwrap_or(Err(StatementError::Ended))),
            () = tokio::time::sleep(RETRY), if self.owes_revocations => Next::Revoked,
            said = next_of(&mut self.saying) => match said {
                Ok(said) => said.map_or(Next::NothingMoreSaid, Next::Said),
                Err(status) => Next::Garbled(status),
            },
        }
    }

    fn offer_all(&mut self) {
        let revision = self.holder.policies.current().revision.head.number;
        let entitled = self.entitled();
        self.offer_bundles(entitled.as_ref());
        self.offer_entitlement(entitled.as_ref());
        if self.wants_entitlements {
            self.offer_entitlements();
        }
        // Behind the bundles that they are believed by.
        self.offer_authorities();
        self.subscription.held_against(revision);
    }

    /// None where nothing is given any more.
    fn entitled(&self) -> Option<Entitlement> {
        let Holder { id, grounds, policies, clock, .. } = &self.holder;
        entitle(&policies.current(), grounds, Wanted::identity(Some(id)), clock.now()).ok()
    }

    fn offer_bundles(&mut self, entitled: Option<&Entitlement>) {
        let trust_domain = self.holder.id.trust_domain();
        let federates_with = entitled.map_or(&[][..], |entitlement| &entitlement.federates_with);
        let jwt = jwt_told_to(&self.subscription.jwt_bundles(), trust_domain, federates_with);
        let bundles = written(&told_to(&self.subscription.bundles(), trust_domain, federates_with), &jwt);
        let keys = jwt.get(trust_domain).cloned().unwrap_or_default().version();
        let version = Version::read(&bundles.version);
        if self.bundles != version {
            self.bundles = version;
            self.note_sent(Resource::Bundles, version);
            self.send(watch_response::Event::Bundles(bundles));
        }
        self.subscription.sent_jwt(keys);
    }

    fn offer_entitlement(&mut self, entitled: Option<&Entitlement>) {
        let given = entitled.is_some();
        let version = entitled.map_or_else(|| Version::of(&[]), Entitlement::version);
        if self.entitlement != Some(version) {
            self.entitlement = Some(version);
            self.note_sent(Resource::Entitlement, Some(version));
            let within = prost_types::Duration::try_from(self.subscription.spread()).ok();
            let told = wire::Entitlement { given, within, version: version.to_vec() };
            self.send(watch_response::Event::Entitlement(told));
        }
    }

    fn offer_entitlements(&mut self) {
        let Holder { id, grounds, policies, clock, .. } = &self.holder;
        let given = entitlement::all(&policies.current(), id, grounds, clock.now());
        let offer = |entitlement: &Entitlement| Offer {
            spiffe_id: entitlement.id.to_string(),
            profile: entitlement.profile.name.to_string(),
            hint: entitlement.hint.clone().unwrap_or_default(),
            version: entitlement.version().to_vec(),
        };
        let offers = given.iter().take(MOST_OFFERS).map(offer).collect();
        let mut told = Entitlements { offers, truncated: given.len() > MOST_OFFERS, version: Vec::new() };
        let version = Version::of(&told.encode_to_vec());
        if self.entitlements != Some(version) {
            self.entitlements = Some(version);
            self.note_sent(Resource::Entitlements, Some(version));
            told.version = version.to_vec();
            self.send(watch_response::Event::Entitlements(told));
        }
    }

    fn offer_authorities(&mut self) {
        let published = self.subscription.authorities();
        let version = Some(published.version());
        if self.wants_authorities && self.authorities != version {
            self.authorities = version;
            self.note_sent(Resource::Authorities, version);
            self.send(watch_response::Event::Authorities(published.to_wire()));
        }
    }

    /// The next that it lacks of what is revoked.
    fn ask_for_revocations(&mut self) {
        if !self.wants_revocations || self.owes_revocations || !self.signing.is_empty() {
            return;
        }
        self.revoked.mark_unchanged();
        let (revocations, has) = (self.holder.revocations.clone(), self.revocations);
        if self.owes_end {
            self.signing.spawn(async move { revocations.end().await.map(Some) });
        } else if revocations.lacks(has) {
            self.signing.spawn(async move { revocations.next_for(has).await });
        }
    }

    /// What cannot be said now is said once it can.
    fn offer_revocations(&mut self, signed: Signing) {
        let revocations = &self.holder.revocations;
        match signed {
            Ok(Some(next)) => {
                self.owes_end = false;
                self.revocations = Some(next.epoch());
                self.note_sent(Resource::Revocations, Some(revocations.lineage().version(next.epoch())));
                self.send(watch_response::Event::Revocations(next.told.clone()));
            }
            Ok(None) => {}
            Err(error) => {
                self.owes_revocations = true;
                revocations.complain(&error);
            }
        }
    }

    fn note_sent(&self, resource: Resource, version: Option<Version>) {
        if let Some(version) = version {
            self.subscription.sent(resource, version, self.holder.clock.now());
        }
    }

    fn send(&mut self, event: watch_response::Event) {
        self.ready.push_back(WatchResponse { event: Some(event) });
    }

    /// What the client had before.
    fn has(&mut self, request: &WatchRequest) -> Result<(), Status> {
        for (index, applied) in request.applied.iter().enumerate() {
            let Some(resource) = resource(applied.resource) else { continue };
            let version = Some(version(index, applied)?).filter(|_| applied.refused.is_empty());
            match resource {
                Resource::Bundles => self.bundles = version,
                Resource::Entitlement => self.entitlement = version,
                Resource::Entitlements => self.entitlements = version,
                Resource::Authorities => self.authorities = version,
                Resource::Revocations => {
                    // Of another database, it is nothing.
                    let lineage = self.holder.revocations.lineage();
                    self.revocations = version.and_then(|version| lineage.epoch_of(version));
                }
                Resource::Renewal => {}
            }
        }
        self.wants_revocations = request.also.contains(&WireResource::Revocations.into());
        self.wants_entitlements = request.also.contains(&WireResource::Entitlements.into());
        self.wants_authorities = request.also.contains(&WireResource::Authorities.into());
        if self.wants_authorities {
            self.subscription.asks_for_authorities(self.authorities);
        }
        Ok(())
    }

    /// How far it says that it has come, where that can be.
    async fn note_revocations(&mut self) {
        if !self.wants_revocations {
            return;
        }
        let has = self.revocations.unwrap_or_default();
        match self.holder.revocations.is_ahead(has, &self.holder.id).await {
            Ok(None) => self.subscription.has_revocations(has),
            Ok(is_ahead) => {
                // What is revoked next it will not have in force: it refuses to go back.
                (self.owes_end, self.is_ahead) = (true, is_ahead);
                self.subscription.has_revocations(0);
            }
            // Whoever can read the record knows better.
            Err(error) => {
                self.subscription.has_revocations(0);
                self.holder.revocations.complain(&error.into());
            }
        }
    }

    /// It has put in force what it was sent up to here; of what it was not sent, it may say what it likes.
    fn has_revocations(&self, version: Version) {
        let epoch = self.holder.revocations.lineage().epoch_of(version);
        if let Some(epoch) = epoch.filter(|epoch| self.revocations.is_some_and(|sent| *epoch <= sent)) {
            self.subscription.has_revocations(epoch);
        }
    }

    /// What the client says of what it was sent.
    fn hear(&self, request: WatchRequest) -> Result<(), Status> {
        for (index, applied) in request.applied.into_iter().enumerate().take(MOST_RESOURCES) {
            let Some(resource) = resource(applied.resource) else { continue };
            let version = version(index, &applied)?;
            let reason = applied.refused.chars().take(MOST_REASON).flat_map(char::escape_debug).collect();
            if resource == Resource::Revocations && applied.refused.is_empty() {
                self.has_revocations(version);
            }
            self.subscription.applied(resource, version, reason, self.holder.clock.now());
        }
        Ok(())
    }
}

fn version(index: usize, applied: &Applied) -> Result<Version, Status> {
    let wrong = || format!("applied[{index}].version: {} bytes, as no version has", applied.version.len());
    Version::read(&applied.version).ok_or_else(|| Status::invalid_argument(wrong()))
}

/// None for a newer kind that a client may know.
fn resource(number: i32) -> Option<Resource> {
    match WireResource::try_from(number).ok()? {
        WireResource::Unspecified => None,
        WireResource::Bundles => Some(Resource::Bundles),
        WireResource::Entitlement => Some(Resource::Entitlement),
        WireResource::Entitlements => Some(Resource::Entitlements),
        WireResource::Authorities => Some(Resource::Authorities),
        WireResource::Revocations => Some(Resource::Revocations),
    }
}

/// None when there is nothing more to come; never, when that was known before.
async fn next_of(saying: &mut Option<Streaming<WatchRequest>>) -> Result<Option<WatchRequest>, Status> {
    match saying {
        Some(stream) => stream.message().await,
        None => std::future::pending().await,
    }
}
