//! Who is let in to the administration at all, how many at once, and how much each may say: before a message is read.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use signet_identity::SharedClock;
use tonic::body::Body;
use tonic::server::NamedService;
use tonic::service::Interceptor;
use tonic::{Request, Status};
use tower_service::Service;

use super::BUSY;
use crate::administration::{Administrators, Permissions};
use crate::admission::{Admission, Limit};
use crate::policy::Actor;
use crate::server::Caller;

/// Lets nobody near a request who has no role at all.
#[derive(Clone, Debug)]
pub(crate) struct Doorkeeper {
    pub(super) administrators: Administrators,
    pub(super) admission: Admission,
    pub(super) clock: SharedClock,
    pub(super) places: Places,
}

/// Calls that are under way, of each who makes them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Places(Arc<Mutex<HashMap<Actor, usize>>>);

/// In the extensions of each request that was let in. It takes a place until the last copy is dropped.
#[derive(Clone, Debug)]
pub(super) struct Admitted(Arc<Place>);

#[derive(Debug)]
struct Place {
    permissions: Permissions,
    places: Places,
}

impl Interceptor for Doorkeeper {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        let caller = request.extensions().get::<Caller>();
        let caller = caller.ok_or_else(|| Status::internal("a connection without a caller"))?;
        let permissions = match (&caller.peer, caller.local_user) {
            (Some(peer), _) if self.clock.now() > peer.expires_at() => {
                return Err(Status::unauthenticated("the client certificate has expired"));
            }
            (Some(peer), _) => self.administrators.peer(peer.id()).ok_or_else(|| peer.id().to_string()),
            (None, Some(user)) => self.administrators.user(user).ok_or_else(|| format!("uid:{user}")),
            (None, None) => return Err(Status::unauthenticated("a client certificate is needed")),
        };
        let permissions =
            permissions.map_err(|actor| Status::permission_denied(format!("{actor} has no role at this issuer")))?;
        let place = self.places.take(permissions);
        let place = place.ok_or_else(|| self.admission.refuse(Limit::Administration, BUSY))?;
        request.extensions_mut().insert(Admitted(Arc::new(place)));
        Ok(request)
    }
}

impl Places {
    /// None where there is no room.
    fn take(&self, permissions: Permissions) -> Option<Place> {
        let mut taken = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let own = taken.get(&permissions.actor).copied().unwrap_or_default();
        if own >= MAX_CALLS_OF_ONE || taken.values().sum::<usize>() >= MAX_CALLS {
            return None;
        }
        taken.insert(permissions.actor.clone(), own + 1);
        Some(Place { permissions, places: self.clone() })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.places.0.lock().unwrap_or_else(PoisonError::into_inner);
        match taken.get_mut(&self.permissions.actor) {
            Some(own) if *own > 1 => *own -= 1,
            _ => drop(taken.remove(&self.permissions.actor)),
        }
    }
}

impl Admitted {
    pub(super) fn permissions(&self) -> &Permissions {
        &self.0.permissions
    }
}

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Cuts off what is longer than its method needs: a few bytes on the wire may take many in memory.
#[derive(Clone, Debug)]
pub(crate) struct Bounded<S>(pub(super) S);

impl<S: Service<http::Request<Body>>> Service<http::Request<Body>> for Bounded<S> {
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.0.poll_ready(context)
    }

    fn call(&mut self, request: http::Request<Body>) -> S::Future {
        let most = match request.uri().path().rsplit('/').next() {
            Some("ApplyPolicy") => MAX_POLICY,
            Some("Revoke") => MAX_REVOCATION,
            _ => MAX_MESSAGE,
        };
        let cut = |body| Limited::new(body, most + PREFIX).map_err(move |error| too_long(error, most));
        self.0.call(request.map(|body| Body::new(cut(body))))
    }
}

/// What tonic itself says of a message that is too long.
fn too_long(error: BoxError, most: usize) -> BoxError {
    match error.is::<LengthLimitError>() {
        true => Status::out_of_range(format!("the message is longer than {most} bytes")).into(),
        false => error,
    }
}

impl<S: NamedService> NamedService for Bounded<S> {
    const NAME: &'static str = S::NAME;
}

const MAX_CALLS: usize = 16;
const MAX_CALLS_OF_ONE: usize = 2;
/// For a policy with as many rules as there may be.
pub(super) const MAX_POLICY: usize = 8 << 20;
/// For as many serial numbers as one call may name.
const MAX_REVOCATION: usize = 512 << 10;
const MAX_MESSAGE: usize = 64 << 10;
/// Of a message: whether it is compressed, and its length.
const PREFIX: usize = 5;

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn one_who_calls_much_leaves_places_to_others() {
        let places = Places::default();
        let of = |user: u32| Administrators::new(&[], user).user(user).unwrap();
        let mut mine: Vec<_> = (0..MAX_CALLS_OF_ONE).map(|_| places.take(of(7)).unwrap()).collect();
        assert!(places.take(of(7)).is_none());
        places.take(of(8)).unwrap();
        mine.pop();
        mine.push(places.take(of(7)).unwrap());
        let others: Vec<_> = (100..).map_while(|user| places.take(of(user))).collect();
        assert_eq!(mine.len() + others.len(), MAX_CALLS);
        drop((mine, others));
        assert!(places.0.lock().unwrap().is_empty());
    }
}
