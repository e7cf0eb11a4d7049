//! What administrative calls name, for those who read afterwards what was done to what.

use signet_proto::admin::v1::evict_agents_request::Agents;
use signet_proto::admin::v1::explain_policy_request::Subject;
use signet_proto::admin::v1::revoke_request::Target as Revoked;
use signet_proto::admin::v1::{
    AddFederationRequest, ListFederationsRequest, RefreshFederationRequest, RemoveFederationRequest,
};
use signet_proto::admin::v1::{
    ApplyPolicyRequest, AuditReportRequest, BackupRequest, BanRequest, CreateJoinTokenRequest, EvictAgentsRequest,
    ExplainPolicyRequest, ForgetIssuerRequest, GetPolicyRequest, GetRevocationProgressRequest, GetStatusRequest,
    GetSvidRequest, ListAgentsRequest, ListBansRequest, ListBundlesRequest, ListPolicyRevisionsRequest,
    ListRevocationsRequest, ListSvidsRequest, RequestRenewalRequest, RevokeRequest, RollbackPolicyRequest,
    UnbanRequest,
};
use signet_proto::admin::v1::{
    CancelRotationRequest, GetRotationRequest, ImportAuthoritiesRequest, ListAuthoritiesRequest, ListJwtKeysRequest,
    RequestAuthoritiesRequest, RevokeJwtKeyRequest, RotateJwtKeyRequest, RotateRequest, TaintAuthorityRequest,
    TaintJwtKeyRequest, rotate_request::What,
};

/// A request, as far as it says more than for what a role is held. Nobody has looked at what stands in it yet.
pub(super) trait Naming {
    /// None where what the role is needed for says it all.
    fn named(&self) -> Option<String> {
        None
    }
}

impl Naming for ForgetIssuerRequest {
    fn named(&self) -> Option<String> {
        Some(format!("issuer {}", shown(&self.issuer)))
    }
}

impl Naming for EvictAgentsRequest {
    fn named(&self) -> Option<String> {
        match self.agents {
            Some(Agents::Number(number)) => Some(format!("agent {number}")),
            Some(Agents::SpiffeId(_)) | None => None,
        }
    }
}

impl Naming for RevokeRequest {
    fn named(&self) -> Option<String> {
        Some(match &self.target {
            Some(Revoked::Serials(list)) => {
                let serials: Vec<_> = list.serials.iter().take(MOST_NAMED).map(hex::encode).collect();
                let more = list.serials.len().saturating_sub(MOST_NAMED);
                let more = if more > 0 { format!(" and {more} more") } else { String::new() };
                format!("serials {}{more}", listed(serials.iter().map(String::as_str)))
            }
            Some(Revoked::SpiffeId(id)) => shown(id),
            Some(Revoked::KeySha256(hash)) => format!("key {}", shown(&hex::encode(hash))),
            Some(Revoked::Agent(number)) => format!("agent {number}"),
            Some(Revoked::Authority(key_id)) => format!("authority {}", shown(key_id)),
            Some(Revoked::Rule(name)) => format!("rule {}", shown(name)),
            None => "nothing".to_owned(),
        })
    }
}

impl Naming for ListJwtKeysRequest {
    fn named(&self) -> Option<String> {
        Some("JWT keys".to_owned())
    }
}

impl Naming for RotateJwtKeyRequest {
    fn named(&self) -> Option<String> {
        Some("JWT key".to_owned())
    }
}

impl Naming for TaintJwtKeyRequest {
    fn named(&self) -> Option<String> {
        Some(format!("JWT key {}", shown(&self.kid)))
    }
}

impl Naming for RevokeJwtKeyRequest {
    fn named(&self) -> Option<String> {
        Some(format!("JWT key {}", shown(&self.kid)))
    }
}

impl Naming for ListRevocationsRequest {
    fn named(&self) -> Option<String> {
        Some("revocations".to_owned())
    }
}

impl Naming for ListSvidsRequest {
    fn named(&self) -> Option<String> {
        Some(match self.spiffe_id.as_str() {
            "" => "SVIDs".to_owned(),
            pattern => format!("SVIDs of {}", shown(pattern)),
        })
    }
}

impl Naming for GetSvidRequest {
    fn named(&self) -> Option<String> {
        Some(format!("SVID {}", shown(&hex::encode(&self.serial))))
    }
}

impl Naming for GetRevocationProgressRequest {
    fn named(&self) -> Option<String> {
        Some(format!("revocations up to epoch {}", self.epoch))
    }
}

impl Naming for ApplyPolicyRequest {
    fn named(&self) -> Option<String> {
        let files = listed(self.files.iter().map(|file| file.name.as_str()));
        let planned = self.expected_revision.map(|revision| format!(", planned at revision {revision}"));
        Some(format!("policy by files {files}{}", planned.unwrap_or_default()))
    }
}

impl Naming for RollbackPolicyRequest {
    fn named(&self) -> Option<String> {
        let back_to = self.revision.map_or("policy back to the revision before".to_owned(), |revision| {
            format!("policy back to revision {revision}")
        });
        let planned = self.expected_revision.map(|revision| format!(", planned at revision {revision}"));
        Some(format!("{back_to}{}", planned.unwrap_or_default()))
    }
}

impl Naming for GetPolicyRequest {
    fn named(&self) -> Option<String> {
        let revision = self.revision.map(|revision| format!(", revision {revision}"));
        Some(format!("policy{}", revision.unwrap_or_default()))
    }
}

impl Naming for ListPolicyRevisionsRequest {
    fn named(&self) -> Option<String> {
        Some("policy".to_owned())
    }
}

impl Naming for ExplainPolicyRequest {
    fn named(&self) -> Option<String> {
        self.subject.as_ref().map(|subject| match subject {
            Subject::SpiffeId(id) => shown(id),
            Subject::Agent(number) => format!("agent {number}"),
            Subject::Attributes(list) => {
                let attributes: Vec<_> =
                    list.attributes.iter().map(|one| format!("{}={}", one.name, one.value)).collect();
                format!("attributes {}", listed(attributes.iter().map(String::as_str)))
            }
        })
    }
}

impl Naming for ListAgentsRequest {
    fn named(&self) -> Option<String> {
        Some(match self.spiffe_id.as_str() {
            "" => "agents".to_owned(),
            id => format!("agents of {}", shown(id)),
        })
    }
}

impl Naming for ListBansRequest {
    fn named(&self) -> Option<String> {
        Some("bans".to_owned())
    }
}

impl Naming for ListBundlesRequest {
    fn named(&self) -> Option<String> {
        Some("bundles".to_owned())
    }
}

impl Naming for AddFederationRequest {
    fn named(&self) -> Option<String> {
        Some(format!("trust domain {} at {}", shown(&self.trust_domain), shown(&self.url)))
    }
}

impl Naming for RefreshFederationRequest {
    fn named(&self) -> Option<String> {
        let whatever = if self.accept { ", whatever its bundle lacks" } else { "" };
        Some(format!("trust domain {}{whatever}", shown(&self.trust_domain)))
    }
}

impl Naming for RemoveFederationRequest {
    fn named(&self) -> Option<String> {
        Some(format!("trust domain {}", shown(&self.trust_domain)))
    }
}

impl Naming for ListFederationsRequest {
    fn named(&self) -> Option<String> {
        Some("federated trust domains".to_owned())
    }
}

impl Naming for ListAuthoritiesRequest {
    fn named(&self) -> Option<String> {
        Some("authorities".to_owned())
    }
}

impl Naming for RequestAuthoritiesRequest {
    fn named(&self) -> Option<String> {
        Some(match self.discard.len() {
            0 => format!("requests for {} authorities", self.count),
            discarded => format!("requests for {} authorities, {discarded} discarded", self.count),
        })
    }
}

impl Naming for ImportAuthoritiesRequest {
    fn named(&self) -> Option<String> {
        Some("certificates of authorities".to_owned())
    }
}

impl Naming for RotateRequest {
    fn named(&self) -> Option<String> {
        let what = match &self.what {
            Some(What::Authority(rotation)) if rotation.successor.is_empty() => "authority".to_owned(),
            Some(What::Authority(rotation)) => format!("authority to {}", shown(&rotation.successor)),
            Some(What::Root(_)) => "root".to_owned(),
            None => "nothing".to_owned(),
        };
        let hurry = if self.override_acknowledgements { ", without waiting" } else { "" };
        let comment = if self.comment.is_empty() { String::new() } else { format!(": {}", shown(&self.comment)) };
        Some(format!("{what}{hurry}{comment}"))
    }
}

impl Naming for GetRotationRequest {
    fn named(&self) -> Option<String> {
        Some("rotation".to_owned())
    }
}

impl Naming for CancelRotationRequest {
    fn named(&self) -> Option<String> {
        Some("rotation".to_owned())
    }
}

impl Naming for TaintAuthorityRequest {
    fn named(&self) -> Option<String> {
        let comment = if self.comment.is_empty() { String::new() } else { format!(": {}", shown(&self.comment)) };
        Some(format!("authority {}{comment}", shown(&self.key)))
    }
}

// These are about one identity, or about the issuer or all.
impl Naming for AuditReportRequest {
    fn named(&self) -> Option<String> {
        Some(format!("a report as {}", shown(&self.format)))
    }
}

impl Naming for BackupRequest {
    fn named(&self) -> Option<String> {
        Some(format!("a backup to the key {}", shown(&self.key)))
    }
}

impl Naming for BanRequest {}
impl Naming for CreateJoinTokenRequest {}
impl Naming for GetStatusRequest {}
impl Naming for RequestRenewalRequest {}
impl Naming for UnbanRequest {}

/// Some of several names.
pub(super) fn listed<'a>(names: impl ExactSizeIterator<Item = &'a str>) -> String {
    let more = names.len().saturating_sub(MOST_NAMED);
    let named: Vec<_> = names.take(MOST_NAMED).map(shown).collect();
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    format!("{}{more}", named.join(", "))
}

/// The beginning of a text, of printable characters.
fn shown(text: &str) -> String {
    let mut characters = text.chars().flat_map(char::escape_debug);
    let shown: String = characters.by_ref().take(MOST_SHOWN).collect();
    if characters.next().is_none() { shown } else { shown + "…" }
}

const MOST_NAMED: usize = 16;
/// In characters: a rule's name, and most SPIFFE IDs.
const MOST_SHOWN: usize = 128;

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use signet_proto::admin::v1::{Attribute, AttributeList, PolicyFile};

    use super::*;

    #[test]
    fn each_names_what_it_is_about() {
        let explain = |subject| ExplainPolicyRequest { subject: Some(subject) }.named();
        let pod = Attribute { name: "k8s.pod".to_owned(), value: "a".to_owned() };
        let files = vec![PolicyFile { name: "shop.yaml".to_owned(), text: String::new() }];
        let apply = ApplyPolicyRequest { files, expected_revision: Some(3), ..Default::default() };
        let back = RollbackPolicyRequest { revision: Some(1), expected_revision: Some(3), ..Default::default() };
        let evict = |agents| EvictAgentsRequest { agents: Some(agents) }.named();
        for (named, expected) in [
            (ForgetIssuerRequest { issuer: "3f1c".to_owned() }.named(), "issuer 3f1c"),
            (GetSvidRequest { serial: vec![0x41, 0xf0] }.named(), "SVID 41f0"),
            (ListSvidsRequest { spiffe_id: "*/cart".to_owned(), ..Default::default() }.named(), "SVIDs of */cart"),
            (evict(Agents::Number(17)), "agent 17"),
            (apply.named(), "policy by files shop.yaml, planned at revision 3"),
            (back.named(), "policy back to revision 1, planned at revision 3"),
            (RollbackPolicyRequest::default().named(), "policy back to the revision before"),
            (GetPolicyRequest { revision: Some(2) }.named(), "policy, revision 2"),
            (GetPolicyRequest::default().named(), "policy"),
            (explain(Subject::SpiffeId("spiffe://example.org/a".to_owned())), "spiffe://example.org/a"),
            (explain(Subject::Agent(4)), "agent 4"),
            (explain(Subject::Attributes(AttributeList { attributes: vec![pod] })), "attributes k8s.pod=a"),
            (
                ListAgentsRequest { spiffe_id: "spiffe://a/b".to_owned(), ..Default::default() }.named(),
                "agents of spiffe://a/b",
            ),
        ] {
            assert_eq!(named.unwrap(), expected);
        }
        // Its path says whose they are.
        assert_eq!(evict(Agents::SpiffeId("spiffe://example.org/a".to_owned())), None);
    }

    #[test]
    fn what_a_caller_writes_is_cut_and_cannot_draw_on_a_terminal() {
        let issuer = "\u{1b}[2J\n".to_owned() + &"x".repeat(1 << 20);
        let named = ForgetIssuerRequest { issuer }.named().unwrap();
        assert!(named.starts_with("issuer \\u{1b}[2J\\nxxx") && named.ends_with("x…"), "{named}");
        assert!(named.len() < 2 * MOST_SHOWN, "{named}");
        let attributes = vec![Attribute { name: "\u{202e}".repeat(1000), value: "b".repeat(1000) }; 1000];
        let subject = Some(Subject::Attributes(AttributeList { attributes }));
        let named = ExplainPolicyRequest { subject }.named().unwrap();
        assert!(named.ends_with(" and 984 more"), "{named}");
        assert!(!named.contains('\u{202e}') && named.len() < 2 * MOST_NAMED * MOST_SHOWN, "{named}");
    }
}
