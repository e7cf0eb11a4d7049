//! Who may administer what.
//!
//! A role is held for a part of the trust domain: a path and all below it. It is bound to SPIFFE IDs, which prove themselves over
//! mTLS, and to users of this machine, whom the kernel names. The issuer's own user and root are administrators of everything.

use std::fmt;

use signet_identity::{SpiffeIdPattern, SpiffeIdPatterns, WorkloadId};

use crate::policy::Actor;

/// Each may do what those before it may.
#[derive(Copy, Clone, Debug, Eq, PartialEq, Ord, PartialOrd)]
pub(crate) enum Role {
    /// Sees.
    Viewer,
    /// Changes rules, also back, makes join tokens, evicts and bans.
    Operator,
    /// Decides over identities that roles are bound to, where it has the role for the whole trust domain.
    Administrator,
}

/// A path and all below it; the whole trust domain where it is empty.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct Scope(Box<str>);

/// One line of the configuration.
#[derive(Clone, Debug)]
pub(crate) struct Binding {
    pub(crate) role: Role,
    pub(crate) scope: Scope,
    pub(crate) users: Vec<u32>,
    pub(crate) identities: Vec<SpiffeIdPattern>,
}

/// All bindings. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Administrators(std::sync::Arc<[Bound]>);

#[derive(Debug)]
struct Bound {
    role: Role,
    scope: Scope,
    users: Vec<u32>,
    identities: SpiffeIdPatterns,
}

/// What somebody may do. In the extensions of each administrative request.
#[derive(Clone, Debug)]
pub(crate) struct Permissions {
    pub(crate) actor: Actor,
    held: Vec<(Role, Scope)>,
}

/// What an action is about.
#[derive(Copy, Clone, Debug)]
pub(crate) enum Target<'a> {
    /// Nothing that is below any path.
    Issuer,
    /// The whole trust domain.
    Everything,
    /// One path, which begins with a slash.
    Path(&'a str),
}

#[derive(Debug, thiserror::Error)]
#[error("{} is no {needed} of {target}", actor.as_str())]
pub(crate) struct Denied {
    actor: Actor,
    needed: Role,
    target: String,
}

impl Administrators {
    /// `own_user` is who this process runs as.
    pub(crate) fn new(bindings: &[Binding], own_user: u32) -> Self {
        let mut users = vec![own_user, ROOT];
        users.dedup();
        let owner = Bound {
            role: Role::Administrator,
            scope: Scope::default(),
            users,
            identities: SpiffeIdPatterns::default(),
        };
        let bound = bindings.iter().map(|binding| Bound {
            role: binding.role,
            scope: binding.scope.clone(),
            users: binding.users.clone(),
            identities: binding.identities.iter().cloned().collect(),
        });
        Self(std::iter::once(owner).chain(bound).collect())
    }

    /// Whether a role is bound to a user other than `own` and root.
    pub(crate) fn has_other_users(&self, own: u32) -> bool {
        self.0.iter().any(|bound| bound.users.iter().any(|user| ![own, ROOT].contains(user)))
    }

    /// Whoever has one of these has a role.
    pub(crate) fn identities(&self) -> impl Iterator<Item = &SpiffeIdPattern> {
        self.0.iter().flat_map(|bound| bound.identities.iter())
    }

    /// None for somebody without any role.
    pub(crate) fn user(&self, uid: u32) -> Option<Permissions> {
        self.held_by(Actor::user(uid), |bound| bound.users.contains(&uid))
    }

    /// None for somebody without any role.
    pub(crate) fn peer(&self, id: &WorkloadId) -> Option<Permissions> {
        self.held_by(Actor::identity(id), |bound| bound.identities.matches(id))
    }

    /// Whether an identity is one that a role is bound to. Whoever gives it away gives the role away.
    pub(crate) fn is_bound(&self, id: &WorkloadId) -> bool {
        self.0.iter().any(|bound| bound.identities.matches(id))
    }

    /// Who may see what is at a path.
    pub(crate) fn who_see(&self, path: &str) -> impl Iterator<Item = Binding> {
        let sees = |bound: &&Bound| bound.scope.covers(Target::Path(path));
        self.0.iter().filter(sees).map(|bound| Binding {
            role: bound.role,
            scope: bound.scope.clone(),
            users: bound.users.clone(),
            identities: bound.identities.iter().cloned().collect(),
        })
    }

    fn held_by(&self, actor: Actor, holds: impl Fn(&Bound) -> bool) -> Option<Permissions> {
        let held: Vec<_> =
            self.0.iter().filter(|bound| holds(bound)).map(|bound| (bound.role, bound.scope.clone())).collect();
        (!held.is_empty()).then_some(Permissions { actor, held })
    }
}

impl Permissions {
    pub(crate) fn need(&self, needed: Role, target: Target<'_>) -> Result<(), Denied> {
        match self.may(needed, target) {
            true => Ok(()),
            false => Err(Denied { actor: self.actor.clone(), needed, target: target.to_string() }),
        }
    }

    pub(crate) fn may(&self, needed: Role, target: Target<'_>) -> bool {
        self.held.iter().any(|(role, scope)| *role >= needed && scope.covers(target))
    }

    /// Whether everything may be done, as by the issuer's own user and root.
    pub(crate) fn is_owner(&self) -> bool {
        self.may(Role::Administrator, Target::Everything)
    }

    /// Whether what is at a path, or made by a template that begins with it, may be shown.
    pub(crate) fn sees(&self, path: &str) -> bool {
        self.may(Role::Viewer, Target::Path(path))
    }
}

impl Scope {
    /// None for what is no path: it begins with a slash, ends with none, and has no empty segment.
    pub(crate) fn parse(path: &str) -> Option<Self> {
        if path == "/" {
            return Some(Self::default());
        }
        let segments = path.strip_prefix('/')?;
        let good = |segment: &str| {
            !segment.is_empty()
                && !matches!(segment, "." | "..")
                && segment.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(&byte))
        };
        segments.split('/').all(good).then(|| Self(path.into()))
    }

    pub(crate) fn as_str(&self) -> &str {
        if self.0.is_empty() { "/" } else { &self.0 }
    }

    fn covers(&self, target: Target<'_>) -> bool {
        match target {
            Target::Issuer => true,
            Target::Everything => self.0.is_empty(),
            Target::Path(path) => {
                path.strip_prefix(&*self.0).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
            }
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Viewer => "viewer",
            Self::Operator => "operator",
            Self::Administrator => "administrator",
        })
    }
}

impl fmt::Display for Target<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Issuer => f.write_str("this issuer"),
            Self::Everything => f.write_str("the whole trust domain"),
            Self::Path(path) => write!(f, "{}", path.escape_debug()),
        }
    }
}

const ROOT: u32 = 0;

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn shop() -> Administrators {
        let binding = Binding {
            role: Role::Operator,
            scope: Scope::parse("/shop").unwrap(),
            users: vec![1001],
            identities: vec!["spiffe://example.org/people/*".parse().unwrap()],
        };
        Administrators::new(&[binding], 990)
    }

    #[test]
    fn an_operator_of_one_part_has_no_say_in_another() {
        for permissions in
            [shop().user(1001).unwrap(), shop().peer(&"spiffe://example.org/people/ann".parse().unwrap()).unwrap()]
        {
            for path in ["/shop", "/shop/cart", "/shop/a/b"] {
                permissions.need(Role::Operator, Target::Path(path)).unwrap();
                permissions.need(Role::Viewer, Target::Path(path)).unwrap();
                assert!(!permissions.may(Role::Administrator, Target::Path(path)));
            }
            for path in ["/billing", "/shops", "/shop{x}/y", "/", "", "/a/shop"] {
                assert!(!permissions.may(Role::Viewer, Target::Path(path)), "{path}");
            }
            assert!(!permissions.may(Role::Viewer, Target::Everything));
            assert!(permissions.may(Role::Viewer, Target::Issuer));
        }
    }

    #[test]
    fn the_issuers_own_user_and_root_may_do_all_and_strangers_nothing() {
        for user in [990, 0] {
            shop().user(user).unwrap().need(Role::Administrator, Target::Everything).unwrap();
        }
        assert!(shop().user(1002).is_none());
        assert!(shop().peer(&"spiffe://example.org/people/ann/laptop".parse().unwrap()).is_none());
        assert!(shop().peer(&"spiffe://example.org/signet/issuer".parse().unwrap()).is_none());
        assert!(shop().is_bound(&"spiffe://example.org/people/bob".parse().unwrap()));
    }

    #[test]
    fn a_scope_is_a_path() {
        assert_eq!(Scope::parse("/").unwrap().as_str(), "/");
        for wrong in ["", "shop", "/shop/", "//shop", "/shop//a", "/shop/..", "/shop/*", "/sh op"] {
            assert!(Scope::parse(wrong).is_none(), "{wrong}");
        }
    }
}
