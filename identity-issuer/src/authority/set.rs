//! All authorities of an issuer: one signs, some are ready to follow it, some have signed what is still good.

use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arc_swap::ArcSwapOption;
use aws_lc_rs::digest::{SHA256, digest};
use rcgen::PublicKeyData as _;
use signet_identity::{SharedClock, TrustBundle, TrustDomain};
use time::OffsetDateTime;
use tokio::sync::watch;

use super::Authority;
use super::acts;
use super::custody::{CaKey, Custody, CustodyError, KeyName, Purpose};
use super::intermediate::{self, IntermediateError};
use super::journal::{Journal, Rotation};
use super::member::{Kept, Member, StepError, find, find_at, request_of};
use super::stage::Stage;
use crate::pem_files;
use crate::store::Outbox;
use crate::utc::{Utc, of_microseconds};

/// Cheap to clone.
#[derive(Clone)]
pub(crate) struct Authorities(Arc<Inner>);

struct Inner {
    active: ArcSwapOption<Authority>,
    state: watch::Sender<AuthorityState>,
    /// Counts the changes of what is in `kept`.
    changes: watch::Sender<u64>,
    /// Held for moments only: it is looked into on workers of the runtime.
    kept: Mutex<Kept>,
    /// Held by whoever changes it, until the change is on disk.
    changing: Mutex<()>,
    /// Those that are awaited.
    requests: watch::Sender<String>,
    /// Held by whoever makes keys.
    making: Mutex<()>,
    place: Place,
    clock: SharedClock,
}

/// Where the issuer keeps its authorities.
#[derive(Debug)]
pub(crate) struct Place {
    pub(crate) trust_domain: TrustDomain,
    pub(crate) custody: Arc<dyn Custody>,
    /// What is remembered of them.
    pub(crate) journal: PathBuf,
    /// Where the requests for their certificates are written, those that have none.
    pub(crate) request: PathBuf,
    /// How many CAs a certificate may allow below it.
    pub(crate) path_length: u8,
    /// Where what becomes of them is told for the audit log.
    pub(crate) outbox: Outbox,
}

/// Whether the issuer has an authority.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum AuthorityState {
    /// There is no certificate yet; what to do.
    Awaited { reason: String },
    /// There is one that does not do; why.
    Refused { reason: String },
    /// Certificates are signed.
    Active,
}

#[derive(Debug, thiserror::Error)]
pub enum AuthorityError {
    #[error(transparent)]
    Custody(#[from] CustodyError),
    #[error("{} cannot be written", path.display())]
    Write { path: PathBuf, source: std::io::Error },
    #[error(
        "what the issuer remembers of its authorities, {}, is damaged: {what}\nrestore it from a backup of the state folder",
        path.display()
    )]
    Journal { path: PathBuf, what: String },
    #[error("the certificate request cannot be made")]
    MakeRequest(#[source] rcgen::Error),
    #[error("there are {MOST} authorities already\nhave those signed that wait for it, or remove those that are over")]
    TooMany,
}

/// A certificate that was taken.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Imported {
    pub(crate) name: KeyName,
    pub(crate) stage: Stage,
}

/// Certificates of an issuer are a few; what is beyond that is a mistake.
pub(crate) const MOST: usize = 32;

impl Authorities {
    /// Opens all keys, and makes one where there is none yet. What the chains are worth is judged under the bundle as it is now.
    pub(crate) fn open(place: Place, bundle: Option<&TrustBundle>, clock: SharedClock) -> Result<Self, AuthorityError> {
        let journal = Journal::read(&place.journal)?;
        let mut members = Vec::with_capacity(journal.authorities.len());
        for entry in &journal.authorities {
            let damaged = |what: &str| AuthorityError::Journal { path: place.journal.clone(), what: what.to_owned() };
            let name = KeyName::parse(&entry.key).ok_or_else(|| damaged("it names a key as no key is named"))?;
            let key = match place.custody.open(&name) {
                Ok(key) => key,
                // It was destroyed when it was over, and then the journal could not be written.
                Err(CustodyError::Gone { .. }) if entry.is_over(clock.now()) => continue,
                Err(error) => return Err(error.into()),
            };
            members.push(Member {
                request: request_of(&place.trust_domain, &key, entry.stage)?,
                key,
                stage: entry.stage,
                since: of_microseconds(entry.since).ok_or_else(|| damaged("it has a time that is none"))?,
                chain: entry.chain.clone(),
                authority: None,
            });
        }
        let starting = AuthorityState::Awaited { reason: "starting".to_owned() };
        let authorities = Self(Arc::new(Inner {
            active: ArcSwapOption::empty(),
            state: watch::Sender::new(starting),
            changes: watch::Sender::new(0),
            kept: Mutex::new(Kept { members, taken: journal.taken, rotation: journal.rotation, roots: journal.roots }),
            changing: Mutex::default(),
            requests: watch::Sender::new(String::new()),
            making: Mutex::default(),
            place,
            clock,
        }));
        acts::between(&Kept::default(), &authorities.kept()).for_each(|act| authorities.0.place.outbox.post(act));
        if authorities.kept().members.is_empty() {
            authorities.request(1)?;
        }
        authorities.write_requests()?;
        authorities.judge_again(bundle.map(|bundle| authorities.trusted(bundle)).as_ref());
        Ok(authorities)
    }

    /// The one that signs now.
    pub(crate) fn active(&self) -> Option<Arc<Authority>> {
        self.0.active.load_full()
    }

    pub(crate) fn state(&self) -> watch::Receiver<AuthorityState> {
        self.0.state.subscribe()
    }

    /// Told of each change of what [`all`](Self::all) gives.
    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.0.changes.subscribe()
    }

    /// In the order in which their keys were made.
    pub(crate) fn all(&self) -> Vec<Member> {
        self.kept().members.clone()
    }

    /// By which other issuers know this one: its authority's, or that of the one to be.
    pub(crate) fn name(&self) -> Option<KeyName> {
        let kept = self.kept();
        kept.active().or(kept.members.first()).map(Member::name)
    }

    /// Whether one of them has this key.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.kept().members.iter().any(|member| member.name().as_str() == name)
    }

    /// The requests for certificates that are awaited, PEM, as they change.
    pub(crate) fn requests(&self) -> watch::Receiver<String> {
        self.0.requests.subscribe()
    }

    /// Whether what keeps the keys answers. Blocks for as long as that takes.
    pub(crate) fn check_keys(&self) -> Result<(), CustodyError> {
        self.0.place.custody.check()
    }

    /// Makes keys until so many wait for a certificate. Blocks for as long as the custody takes.
    pub(crate) fn request(&self, count: usize) -> Result<(), AuthorityError> {
        // Of two who ask at once, one finds what the other has made.
        let _making = self.0.making.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            let (waiting, all) = {
                let members = &self.kept().members;
                (members.iter().filter(|member| member.stage == Stage::Requested).count(), members.len())
            };
            if waiting >= count {
                return self.write_requests();
            }
            if all >= MOST {
                return Err(AuthorityError::TooMany);
            }
            let key = self.0.place.custody.make()?;
            let since = self.0.clock.now();
            tracing::info!(authority = %key.name(), "key made for an authority");
            let (stage, chain, authority) = (Stage::Requested, None, None);
            let request = request_of(&self.0.place.trust_domain, &key, stage)?;
            let member = Member { key, request, stage, since, chain, authority };
            self.change(|kept, _| {
                kept.members.push(member);
                Ok::<_, AuthorityError>(())
            })?;
        }
    }

    /// Gives up requests for certificates, all of these or none. Their keys are destroyed with the next [`sweep`](Self::sweep): they can
    /// sign nothing.
    pub(crate) fn discard(&self, names: &[KeyName]) -> Result<(), StepError> {
        if names.is_empty() {
            return Ok(());
        }
        self.change(|kept, now| {
            for name in names {
                let member = find(&mut kept.members, name)?;
                match member.stage {
                    Stage::Requested => member.advance(Stage::Revoked, now),
                    // It was given up before. One that has a certificate was revoked.
                    Stage::Revoked if member.chain.is_none() => {}
                    stage => return Err(StepError::Stage { name: name.clone(), stage, wanted: Stage::Requested }),
                }
            }
            Ok(())
        })?;
        Ok(self.write_requests()?)
    }

    /// Takes certificates: each for one of the keys, followed by those above it. All are taken, or none.
    pub(crate) fn import(&self, pem: &[u8], bundle: &TrustBundle) -> Result<Vec<Imported>, ImportError> {
        let now = self.0.clock.now();
        let path_length = self.0.place.path_length;
        let chains = intermediate::split(pem, |spki| self.has(KeyName::of(spki).as_str()))?;
        let mut judged = Vec::with_capacity(chains.len());
        for chain in chains {
            let key = self.kept().members.iter().map(|member| &member.key).find(|key| chain.is_for(key)).cloned();
            let key = key.ok_or(IntermediateError::OtherKey)?;
            let checked = chain.check(&key.subject_public_key_info(), bundle, path_length, now)?;
            judged.push((key.name(), chain.to_pem(), Arc::new(Authority::new(key, checked)?)));
        }
        let imported = self.change(|kept, now| {
            let mut imported = Vec::with_capacity(judged.len());
            for (name, pem, authority) in judged {
                let has_active = kept.active().is_some();
                let goes_over = kept.rotation.as_ref().is_some_and(|rotation| rotation.root.is_some());
                let member = find(&mut kept.members, &name)?;
                // What is on record, in lists and in guards of what it has signed is known by the identifier that it signed under.
                if member.signed_under().is_some_and(|before| before != *authority.key_id()) {
                    return Err(StepError::OtherKeyId { name });
                }
                if member.stage == Stage::Active && goes_over && member.chain.as_ref() != Some(&pem) {
                    return Err(StepError::Rotating { name });
                }
                match member.stage {
                    Stage::Requested if has_active => member.advance(Stage::Prepared, now),
                    Stage::Requested => member.advance(Stage::Active, now),
                    // Another certificate for the same key.
                    Stage::Prepared | Stage::Active | Stage::Retired | Stage::Tainted | Stage::Revoked => {}
                }
                (member.chain, member.authority) = (Some(pem), Some(authority));
                imported.push(Imported { name, stage: member.stage });
            }
            Ok::<_, StepError>(imported)
        })?;
        self.write_requests()?;
        for Imported { name, stage } in &imported {
            tracing::info!(authority = %name, stage = stage.label(), "certificate taken");
        }
        Ok(imported)
    }

    /// Of a retired one, the key identifier by which what it signed is known, where there is a good certificate.
    pub(crate) fn taintable(&self, name: &KeyName) -> Result<Option<Vec<u8>>, StepError> {
        self.inspect(|kept| {
            let member = kept.get(name).ok_or_else(|| StepError::Unknown { name: name.clone() })?;
            match member.stage {
                Stage::Retired => Ok(member.authority.as_ref().map(|authority| authority.key_id().as_bytes().to_vec())),
                stage => Err(StepError::Stage { name: name.clone(), stage, wanted: Stage::Retired }),
            }
        })
    }

    /// What it signed is to be replaced.
    pub(crate) fn taint(&self, name: &KeyName) -> Result<(), StepError> {
        self.change(|kept, now| {
            find_at(&mut kept.members, name, Stage::Retired)?.advance(Stage::Tainted, now);
            Ok(())
        })
    }

    /// It is on record as revoked, and nothing that it has signed is good any more; or it has signed nothing, and is about to be.
    pub(crate) fn revoke(&self, name: &KeyName) -> Result<(), StepError> {
        self.change::<_, StepError>(|kept, now| {
            let member = find(&mut kept.members, name)?;
            match member.stage {
                stage @ Stage::Active => Err(StepError::Stage { name: name.clone(), stage, wanted: Stage::Tainted }),
                _ => {
                    member.advance(Stage::Revoked, now);
                    Ok(())
                }
            }
        })?;
        // Where it waited for a certificate, it does no more.
        Ok(self.write_requests()?)
    }

    pub(crate) fn inspect<T>(&self, look: impl FnOnce(&Kept) -> T) -> T {
        look(&self.kept())
    }

    /// Forgets those whose certificates have long been over, and destroys their keys.
    pub(crate) fn sweep(&self) -> Result<(), StepError> {
        let now = self.0.clock.now();
        let over: Vec<_> = self.kept().members.iter().filter(|member| member.is_over(now)).map(Member::name).collect();
        for name in over {
            // It is tried again as long as it stands in the journal, also after a restart.
            self.0.place.custody.destroy(&name, Purpose::Authority).map_err(AuthorityError::from)?;
            self.change(|kept, _| {
                kept.members.retain(|member| member.name() != name);
                Ok::<_, StepError>(())
            })?;
            tracing::info!(authority = %name, "authority expired: its key is destroyed");
        }
        Ok(())
    }

    /// Under another bundle a chain may be good that was not, or end at another time. The one that signs goes on where its chain leads
    /// nowhere any more: nothing better is there.
    pub(crate) fn judge_again(&self, bundle: Option<&TrustBundle>) {
        let Some(bundle) = bundle else { return };
        let _changing = self.changing();
        let mut kept = self.kept();
        for member in &mut kept.members {
            let Some(chain) = &member.chain else { continue };
            match self.judge(&member.key, chain.as_bytes(), bundle) {
                Ok(authority) => member.authority = Some(Arc::new(authority)),
                Err(error) => {
                    let reason = format!("the certificate of authority {} {error}", member.name());
                    tracing::warn!(reason, stage = member.stage.label(), "authority not usable");
                    match member.stage {
                        Stage::Active => self.keep_waiting(AuthorityState::Refused { reason }),
                        // It is not ready to follow any more.
                        Stage::Prepared => member.authority = None,
                        // They sign their lists as before.
                        Stage::Requested | Stage::Retired | Stage::Tainted | Stage::Revoked => {}
                    }
                }
            }
        }
        self.publish(&kept);
    }

    fn judge(&self, key: &CaKey, chain: &[u8], bundle: &TrustBundle) -> Result<Authority, IntermediateError> {
        let spki = key.subject_public_key_info();
        let checked = intermediate::check(chain, &spki, bundle, self.0.place.path_length, self.0.clock.now())?;
        Authority::new(key.clone(), checked)
    }

    /// Whether an authority would sign under this bundle: the one that does now, or what these certificates make.
    pub(crate) fn is_ready_for(&self, bundle: &TrustBundle, pem: Option<&[u8]>) -> bool {
        let active = self.kept().active().cloned();
        let Some(Member { key, chain, .. }) = active else { return true };
        let candidates = [chain.as_deref().map(str::as_bytes), pem];
        candidates.into_iter().flatten().any(|pem| self.judge(&key, pem, bundle).is_ok())
    }

    /// Why there is no authority yet. One that is active stays so.
    pub(crate) fn keep_waiting(&self, waiting: AuthorityState) {
        self.0.state.send_if_modified(|state| {
            let changes = *state != AuthorityState::Active && *state != waiting;
            if changes {
                *state = waiting;
            }
            changes
        });
    }

    /// Of the file in which certificates are dropped: whether this is what was taken from it last.
    pub(crate) fn has_taken(&self, dropped: &[u8]) -> bool {
        self.kept().taken == Some(fingerprint(dropped))
    }

    pub(crate) fn note_taken(&self, dropped: &[u8]) -> Result<(), AuthorityError> {
        self.change(|kept, _| {
            kept.taken = Some(fingerprint(dropped));
            Ok(())
        })
    }

    /// What is trusted where the bundle file says this.
    pub(crate) fn trusted(&self, file: &TrustBundle) -> TrustBundle {
        let roots = self.kept().roots.clone();
        roots.applied_to(file)
    }

    /// The rotation that is under way.
    pub(crate) fn rotation(&self) -> Option<Rotation> {
        self.kept().rotation.clone()
    }

    /// Makes a step durable, then puts it in force: it is made, or nothing has changed.
    pub(crate) fn change<T, E: From<AuthorityError>>(
        &self,
        step: impl FnOnce(&mut Kept, OffsetDateTime) -> Result<T, E>,
    ) -> Result<T, E> {
        // One change after the other; whoever looks meanwhile does not wait for the disk.
        let _changing = self.changing();
        let mut next = self.kept().clone();
        let outcome = step(&mut next, self.0.clock.now())?;
        next.journal().write(&self.0.place.journal)?;
        let mut kept = self.kept();
        // Before it has an effect: what is signed from now on is behind it in the log.
        acts::between(&kept, &next).for_each(|act| self.0.place.outbox.post(act));
        *kept = next;
        self.publish(&kept);
        Ok(outcome)
    }

    fn publish(&self, kept: &Kept) {
        if let Some(authority) = kept.active().and_then(|member| member.authority.clone()) {
            let present = self.active();
            if present.is_none_or(|present| present.certificate() != authority.certificate()) {
                tracing::info!(authority = %authority.key_id(), not_after = %Utc(authority.not_after()), "authority active");
            }
            self.0.active.store(Some(authority));
            self.0.state.send_replace(AuthorityState::Active);
        }
        self.0.changes.send_modify(|changes| *changes += 1);
    }

    /// For whoever holds the root. Where nothing is awaited, what was asked for before may be signed again.
    fn write_requests(&self) -> Result<(), AuthorityError> {
        let path = &self.0.place.request;
        let requests: String = {
            let kept = self.kept();
            let requested = kept.members.iter().filter(|member| member.stage == Stage::Requested);
            requested.map(|member| member.request.as_str()).collect()
        };
        if !requests.is_empty() {
            pem_files::write_whole(path, requests.as_bytes())
                .map_err(|source| AuthorityError::Write { path: path.clone(), source })?;
        }
        self.0.requests.send_if_modified(|present| {
            let is_other = *present != requests;
            *present = requests;
            is_other
        });
        Ok(())
    }

    fn changing(&self) -> MutexGuard<'_, ()> {
        self.0.changing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Nothing panics while it is held.
    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.0.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Why certificates are not taken.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ImportError {
    #[error("the certificate {0}")]
    Intermediate(#[from] IntermediateError),
    #[error(transparent)]
    Step(#[from] StepError),
    #[error(transparent)]
    Keep(#[from] AuthorityError),
}

fn fingerprint(bytes: &[u8]) -> String {
    hex::encode(digest(&SHA256, bytes))
}

impl fmt::Debug for Authorities {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authorities").field("active", &self.active()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
