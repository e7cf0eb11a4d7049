//! The profiles that every issuer has.

use std::time::Duration;

use rcgen::{ExtendedKeyUsagePurpose as Purpose, KeyUsagePurpose};
use signet_policy::DEFAULT_PROFILE;

use super::{Form, Leaf, Profile};
use crate::key_type::KeyType;

pub(crate) const BUILTIN: [&str; 7] =
    [DEFAULT_PROFILE, "gateway", "tls-server", "tls-client", "device", "code-signing", "subordinate-ca"];

const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(86_400);

/// `ttl` and `backdate` are those of what workloads renew.
pub(crate) fn builtin(name: &str, ttl: Duration, backdate: Duration) -> Option<Profile> {
    let any = KeyType::ALL.to_vec();
    let strong = vec![KeyType::P256, KeyType::P384, KeyType::Rsa3072, KeyType::Rsa4096];
    let profile = |purposes: &[Purpose], keys, ttl, max_ttl| Profile {
        name: name.into(),
        form: Form::Leaf(leaf(purposes)),
        keys,
        ttl,
        max_ttl,
        backdate,
        permit: None,
        written: None,
    };
    Some(match name {
        DEFAULT_PROFILE => workload(ttl, backdate),
        // As a workload, by a name that an authority of its own can be told by.
        "gateway" => Profile { name: name.into(), ..workload(ttl, backdate) },
        // Away from its issuer for days at a time, and with the key that its maker gave it.
        "device" => profile(&[Purpose::ServerAuth, Purpose::ClientAuth], any, 7 * DAY, 90 * DAY),
        // For servers and clients that know nothing of SPIFFE. Neither passes for the other, nor for an identity.
        "tls-server" => profile(&[Purpose::ServerAuth], any, DAY, 90 * DAY),
        "tls-client" => profile(&[Purpose::ClientAuth], any, ttl, 31 * DAY),
        // A signature is checked when its certificate is long gone, by its time stamp.
        "code-signing" => profile(&[Purpose::CodeSigning], strong, HOUR, 90 * DAY),
        "subordinate-ca" => {
            Profile { form: Form::SubordinateCa, ..profile(&[], KeyType::ELLIPTIC.to_vec(), 7 * DAY, 90 * DAY) }
        }
        _ => return None,
    })
}

pub(super) fn workload(ttl: Duration, backdate: Duration) -> Profile {
    Profile {
        name: DEFAULT_PROFILE.into(),
        form: Form::Leaf(leaf(&[Purpose::ServerAuth, Purpose::ClientAuth])),
        keys: KeyType::ELLIPTIC.to_vec(),
        ttl,
        max_ttl: ttl.max(DAY),
        backdate,
        permit: None,
        written: None,
    }
}

fn leaf(purposes: &[Purpose]) -> Leaf {
    Leaf {
        key_usages: vec![KeyUsagePurpose::DigitalSignature],
        extended_key_usages: purposes.to_vec(),
        ..Leaf::default()
    }
}
