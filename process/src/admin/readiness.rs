//! Whether a process can do its work, component by component.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

/// What a process still waits for. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Readiness {
    components: Arc<Mutex<BTreeMap<&'static str, State>>>,
}

/// Whether one component can do its part.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum State {
    Ready,
    /// `reason` is for operators: the thing, the cause, no secret.
    NotReady {
        reason: String,
    },
}

impl Readiness {
    /// Not ready before each of `components` has said that it is.
    pub fn awaiting(components: impl IntoIterator<Item = &'static str>) -> Self {
        let readiness = Self::default();
        for component in components {
            readiness.set(component, State::NotReady { reason: "starting".to_owned() });
        }
        readiness
    }

    /// Notes a component's state.
    ///
    /// `identity` is judged by the admin address itself as soon as there is one; until then the reason given here says
    /// why there is none.
    pub fn set(&self, component: &'static str, state: State) {
        self.components.lock().unwrap_or_else(PoisonError::into_inner).insert(component, state);
    }

    /// The components that are not ready, with their reasons.
    pub fn reasons(&self) -> Vec<(&'static str, String)> {
        let components = self.components.lock().unwrap_or_else(PoisonError::into_inner);
        let waiting = components.iter().filter_map(|(component, state)| match state {
            State::Ready => None,
            State::NotReady { reason } => Some((*component, reason.clone())),
        });
        waiting.collect()
    }
}
