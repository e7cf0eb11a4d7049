//! On which terms a root signs an intermediate: for what, where, how deep, how long.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use rcgen::{CertificateParams, CustomExtension, DnType, ExtendedKeyUsagePurpose};
use signet_identity::TrustDomain;
use yasna::Tag;

use super::RootError;
use crate::authority::hierarchy;

/// What one ceremony gives to all that it signs.
#[derive(Clone, Debug)]
pub struct Terms {
    pub purpose: Purpose,
    /// CAs below it; as its purpose has it where it is not given.
    pub path_length: Option<u8>,
    pub life: Duration,
    /// Where it is used, in its subject.
    pub region: Option<Label>,
    /// Whose it is, in its subject.
    pub team: Option<Label>,
    /// Hosts that URI names below it may have. Empty: any.
    pub permitted_uri_domains: Vec<UriDomain>,
}

/// What an intermediate is for. It stands in its subject; what else it means, [`extended_key_usages`](Self::extended_key_usages) says.
#[derive(Copy, Clone, Debug, Default, Eq, PartialEq)]
pub enum Purpose {
    /// Whatever its issuer's profiles describe.
    #[default]
    Any,
    Workload,
    Gateway,
    Device,
    CodeSigning,
    /// An issuer that signs other issuers.
    Subordinate,
}

/// A region or a team: letters, digits, `.`, `-`, `_` and blanks within; 64 of them at most.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Label(String);

/// The host part of URIs, as name constraints have it (RFC 5280 §4.2.1.10): `example.org` is that host alone, `.example.org` what is below it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct UriDomain(String);

const MAX_CONSTRAINTS: usize = 16;

impl Purpose {
    pub const ALL: [Self; 6] =
        [Self::Any, Self::Workload, Self::Gateway, Self::Device, Self::CodeSigning, Self::Subordinate];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Any => "any",
            Self::Workload => "workload",
            Self::Gateway => "gateway",
            Self::Device => "device",
            Self::CodeSigning => "code-signing",
            Self::Subordinate => "subordinate",
        }
    }

    pub(super) fn path_length(self) -> u8 {
        match self {
            Self::Any | Self::Workload | Self::Gateway | Self::Device | Self::CodeSigning => 0,
            Self::Subordinate => 1,
        }
    }

    /// What verifiers take certificates below it for, as people say it.
    pub fn restriction(self) -> &'static str {
        match self {
            Self::Any | Self::Subordinate => "not restricted",
            Self::Workload | Self::Gateway | Self::Device => "TLS servers and clients",
            Self::CodeSigning => "code signing, TLS servers and clients",
        }
    }

    /// For whatever is below it too, as OpenSSL, Go, GnuTLS and rustls-webpki read it. An issuer's own SVID is signed by its intermediate,
    /// so that none goes without TLS. None: all.
    pub(super) fn extended_key_usages(self) -> Vec<ExtendedKeyUsagePurpose> {
        use ExtendedKeyUsagePurpose::{ClientAuth, CodeSigning, ServerAuth};
        match self {
            Self::Any | Self::Subordinate => Vec::new(),
            Self::Workload | Self::Gateway | Self::Device => vec![ServerAuth, ClientAuth],
            Self::CodeSigning => vec![CodeSigning, ServerAuth, ClientAuth],
        }
    }
}

impl Terms {
    /// Any purpose, no CA below it.
    pub fn of(life: Duration) -> Self {
        Self {
            purpose: Purpose::Any,
            path_length: None,
            life,
            region: None,
            team: None,
            permitted_uri_domains: Vec::new(),
        }
    }

    pub(super) fn path_length(&self) -> u8 {
        self.path_length.unwrap_or(self.purpose.path_length())
    }

    /// Whether they make sense for a root of this trust domain.
    pub(super) fn check(&self, trust_domain: &TrustDomain) -> Result<(), RootError> {
        super::check_life(self.life)?;
        let contradiction = |what: String| Err(RootError::Terms { what });
        if self.purpose == Purpose::Subordinate && self.path_length() == 0 {
            return contradiction(
                "an intermediate of purpose `subordinate` with a path length of 0 could sign no CA\n\
                 leave --path-length away, or give another purpose"
                    .to_owned(),
            );
        }
        let permitted = &self.permitted_uri_domains;
        if permitted.len() > MAX_CONSTRAINTS {
            return contradiction(format!("more than {MAX_CONSTRAINTS} constraints on URIs"));
        }
        if !permitted.is_empty() && !permitted.iter().any(|domain| domain.permits(trust_domain)) {
            return contradiction(format!(
                "the constraint permits no URI of {trust_domain}, so that whoever reads it refuses all that is signed below\n\
                 add --permit-uri-domain {trust_domain}, or leave the constraint away"
            ));
        }
        Ok(())
    }

    /// Writes them into the certificate of a key, whose identifier has 20 octets.
    pub(super) fn write_into(&self, params: &mut CertificateParams, key_id: &[u8]) {
        let name = match self.purpose {
            Purpose::Any => hierarchy::INTERMEDIATE.to_owned(),
            purpose => format!("{purpose} {}", hierarchy::INTERMEDIATE),
        };
        let mut subject = rcgen::DistinguishedName::new();
        let [organization, common_name] = hierarchy::subject(&name, key_id);
        subject.push(organization.0, organization.1);
        for (attribute, label) in [(DnType::OrganizationalUnitName, &self.team), (DnType::LocalityName, &self.region)] {
            if let Some(Label(label)) = label {
                subject.push(attribute, label.as_str());
            }
        }
        subject.push(common_name.0, common_name.1);
        params.distinguished_name = subject;
        params.extended_key_usages = self.purpose.extended_key_usages();
        if !self.permitted_uri_domains.is_empty() {
            params.custom_extensions.push(name_constraints(&self.permitted_uri_domains));
        }
    }
}

impl UriDomain {
    fn permits(&self, trust_domain: &TrustDomain) -> bool {
        match self.0.starts_with('.') {
            true => trust_domain.as_str().ends_with(&self.0),
            false => trust_domain.as_str() == self.0,
        }
    }
}

/// permittedSubtrees with one uniformResourceIdentifier each. Critical (RFC 5280 §4.2.1.10).
fn name_constraints(permitted: &[UriDomain]) -> CustomExtension {
    const NAME_CONSTRAINTS: [u64; 4] = [2, 5, 29, 30];
    const URI: u64 = 6;
    let value = yasna::construct_der(|writer| {
        writer.write_sequence(|writer| {
            writer.next().write_tagged_implicit(Tag::context(0), |writer| {
                writer.write_sequence(|writer| {
                    for UriDomain(domain) in permitted {
                        writer.next().write_sequence(|writer| {
                            writer
                                .next()
                                .write_tagged_implicit(Tag::context(URI), |writer| writer.write_ia5_string(domain));
                        });
                    }
                });
            });
        });
    });
    let mut extension = CustomExtension::from_oid_content(&NAME_CONSTRAINTS, value);
    extension.set_criticality(true);
    extension
}

impl fmt::Display for Purpose {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Purpose {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let known = || Self::ALL.map(Self::as_str).join(", ");
        let found = Self::ALL.into_iter().find(|purpose| purpose.as_str() == text);
        found.ok_or_else(|| format!("no purpose of an intermediate; there are {}", known()))
    }
}

impl FromStr for Label {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let fits = |character: char| character.is_ascii_alphanumeric() || ".-_ ".contains(character);
        match (1..=64).contains(&text.len()) && text.chars().all(fits) && text.trim() == text {
            true => Ok(Self(text.to_owned())),
            false => Err("may have up to 64 letters, digits, `.`, `-`, `_`, and blanks within".to_owned()),
        }
    }
}

impl fmt::Display for UriDomain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for UriDomain {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.contains([':', '/']) {
            return Err("a constraint on URIs is on their host: write example.org, without scheme and path".to_owned());
        }
        let name = text.strip_prefix('.').unwrap_or(text);
        let label = |label: &str| {
            let fits = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
            (1..=63).contains(&label.len())
                && label.bytes().all(fits)
                && !label.starts_with('-')
                && !label.ends_with('-')
        };
        // What verifiers take for a host: an underscore, or an address of numbers, they do not.
        let last_is_word =
            name.rsplit('.').next().is_some_and(|last| last.bytes().any(|byte| byte.is_ascii_lowercase()));
        match name.len() <= 253 && name.split('.').all(label) && last_is_word {
            true => Ok(Self(text.to_owned())),
            false => Err("is no host name in small letters; verifiers would not read it as one".to_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_constraint_is_a_host_and_nothing_else() {
        for good in ["example.org", ".example.org", "xn--bcher-kva.example", "a"] {
            assert_eq!(good.parse::<UriDomain>().unwrap().to_string(), good);
        }
        for wrong in [
            "",
            ".",
            "spiffe://example.org",
            "example.org/a",
            "EXAMPLE.org",
            "10.0.0.1",
            "a_b.org",
            "a..b",
            "-a",
            "*.a",
        ] {
            assert!(wrong.parse::<UriDomain>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_constraint_that_would_refuse_everything_is_refused() {
        let trust_domain: TrustDomain = "shop.example.org".parse().unwrap();
        let check = |domains: &[&str]| {
            let permitted_uri_domains = domains.iter().map(|domain| domain.parse().unwrap()).collect();
            Terms { permitted_uri_domains, ..Terms::of(Duration::from_secs(60)) }.check(&trust_domain)
        };
        for good in [&[][..], &["shop.example.org"], &[".example.org"], &["other.org", "shop.example.org"]] {
            check(good).unwrap();
        }
        for wrong in [&["example.org"][..], &[".shop.example.org"], &["other.org"]] {
            assert!(matches!(check(wrong), Err(RootError::Terms { .. })), "{wrong:?}");
        }
    }

    #[test]
    fn names_in_a_subject_are_short_and_plain() {
        for good in ["eu-west-1", "Payments Berlin", "a"] {
            good.parse::<Label>().unwrap();
        }
        for wrong in ["", " a", "a,CN=b", "a=b", "ü", "a\nb", &"a".repeat(65)] {
            assert!(wrong.parse::<Label>().is_err(), "{wrong}");
        }
    }
}
