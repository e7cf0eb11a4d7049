//! The section `administration`: who may administer what, beside the issuer's own user and root.
//!
//! ```yaml
//! administration:
//!   - { role: operator, scope: /shop, spiffe_ids: ["spiffe://example.org/people/shop/*"] }   # over mTLS
//!   - { role: viewer, users: [1001] }                                                      # by the local socket
//! ```

use std::fmt::Write as _;
use std::path::Path;

use serde::Deserialize;
use signet_identity::{SpiffeIdPattern, TrustDomain};
use signet_process::config::{ConfigError, Located, Parsed};

use crate::administration::{Binding, Role, Scope};

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct BindingFile {
    role: Located<RoleName>,
    /// The whole trust domain where there is none.
    scope: Option<Located<String>>,
    #[serde(default)]
    users: Vec<u32>,
    #[serde(default)]
    spiffe_ids: Vec<Located<Parsed<SpiffeIdPattern>>>,
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
enum RoleName {
    Viewer,
    Operator,
    Administrator,
}

pub(super) fn resolve(
    path: &Path,
    bindings: Vec<BindingFile>,
    trust_domain: &TrustDomain,
) -> Result<Vec<Binding>, ConfigError> {
    bindings.into_iter().map(|binding| binding.resolve(path, trust_domain)).collect()
}

impl BindingFile {
    fn resolve(self, path: &Path, trust_domain: &TrustDomain) -> Result<Binding, ConfigError> {
        if self.users.is_empty() && self.spiffe_ids.is_empty() {
            return Err(self.role.error(path, "the role is bound to nobody", "write `users` or `spiffe_ids`"));
        }
        for pattern in &self.spiffe_ids {
            if pattern.value.0.trust_domain() != trust_domain {
                let fix = "administrators are members of this issuer's trust domain";
                return Err(pattern.error(path, format!("`{}` is of another trust domain", pattern.value.0), fix));
            }
        }
        let scope = match &self.scope {
            None => Scope::default(),
            Some(text) => Scope::parse(text).ok_or_else(|| {
                text.error(path, format!("`{}` is no path", text.escape_debug()), "write it as `/shop` or `/shop/eu`")
            })?,
        };
        Ok(Binding {
            role: match *self.role {
                RoleName::Viewer => Role::Viewer,
                RoleName::Operator => Role::Operator,
                RoleName::Administrator => Role::Administrator,
            },
            scope,
            users: self.users,
            identities: self.spiffe_ids.into_iter().map(|pattern| pattern.value.0).collect(),
        })
    }
}

/// As it would be written in a file. Empty when there is nothing.
pub(super) fn shown(bindings: &[Binding]) -> String {
    let mut text = String::new();
    for Binding { role, scope, users, identities } in bindings {
        if text.is_empty() {
            text.push_str("administration:\n");
        }
        let identities: Vec<_> = identities.iter().map(|pattern| format!("{:?}", pattern.to_string())).collect();
        let identities = identities.join(", ");
        let scope = scope.as_str();
        let _ = writeln!(text, "  - {{ role: {role}, scope: {scope}, users: {users:?}, spiffe_ids: [{identities}] }}");
    }
    text
}
