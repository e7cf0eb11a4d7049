//! What attestation proves of a caller.

use std::fmt;
use std::str::FromStr;

/// The name of an attribute: one of a fixed list, or `oidc.claim.NAME`.
#[derive(Clone, Debug, Eq, PartialEq, Ord, PartialOrd, Hash)]
pub struct AttributeName(Box<str>);

/// The attestor that proves an attribute. A caller is attested by one.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Ord, PartialOrd, Hash)]
pub enum Family {
    Kubernetes,
    Oidc,
    X509,
    /// The X.509-SVID that a caller shows: by it, whoever was attested already is given more.
    Svid,
}

/// A name that no attestor proves.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("no attestor proves an attribute `{name}`")]
pub struct UnknownAttribute {
    name: String,
    /// What was probably meant.
    pub suggestion: Option<&'static str>,
}

/// An attribute that cannot be had.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum AttributeError {
    #[error("the caller has no `{0}`")]
    Missing(AttributeName),
    #[error("the caller has more than one `{0}`")]
    Several(AttributeName),
}

/// Why attributes are not taken from an attestor.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum AttributesError {
    #[error("more than {MAX_ATTRIBUTES} attributes")]
    TooMany,
    #[error("an attribute of more than {MAX_VALUE} bytes")]
    TooLong,
    #[error("attributes of two attestors")]
    Mixed,
}

/// The attributes of one caller: at most 64, of at most 1 KiB each, all proved by one attestor.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Attributes {
    /// In order.
    pairs: Vec<(AttributeName, String)>,
}

impl AttributeName {
    pub fn as_str(&self) -> &str {
        &self.0
    }

    pub fn family(&self) -> Family {
        match self.0.split('.').next() {
            Some("k8s") => Family::Kubernetes,
            Some("oidc") => Family::Oidc,
            Some("svid") => Family::Svid,
            // The list below has no other.
            _ => Family::X509,
        }
    }

    /// Whether a caller can have it with two values at once.
    pub(crate) fn may_have_several_values(&self) -> bool {
        matches!(&*self.0, "x509.dns" | "x509.uri") || self.0.starts_with(CLAIM)
    }

    /// All but the claims, with what they are.
    pub fn known() -> impl Iterator<Item = (&'static str, &'static str)> {
        KNOWN.iter().copied()
    }
}

impl FromStr for AttributeName {
    type Err = UnknownAttribute;

    fn from_str(name: &str) -> Result<Self, UnknownAttribute> {
        let is_claim = name.strip_prefix(CLAIM).is_some_and(is_claim_name);
        if is_claim || KNOWN.iter().any(|(known, _)| *known == name) {
            return Ok(Self(name.into()));
        }
        let nearest = KNOWN.iter().map(|(known, _)| (strsim::damerau_levenshtein(known, name), *known)).min();
        let suggestion = nearest.and_then(|(distance, known)| (distance <= MOST_TYPOS).then_some(known));
        Err(UnknownAttribute { name: name.chars().take(64).collect(), suggestion })
    }
}

fn is_claim_name(name: &str) -> bool {
    !name.is_empty()
        && name.len() <= 64
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-'))
}

impl fmt::Display for AttributeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Attributes {
    /// # Errors
    /// More than the limits above.
    pub fn new(pairs: impl IntoIterator<Item = (AttributeName, String)>) -> Result<Self, AttributesError> {
        let mut pairs: Vec<_> = pairs.into_iter().take(MAX_ATTRIBUTES + 1).collect();
        if pairs.len() > MAX_ATTRIBUTES {
            return Err(AttributesError::TooMany);
        }
        if pairs.iter().any(|(_, value)| value.len() > MAX_VALUE) {
            return Err(AttributesError::TooLong);
        }
        if pairs.windows(2).any(|pair| pair[0].0.family() != pair[1].0.family()) {
            return Err(AttributesError::Mixed);
        }
        pairs.sort();
        pairs.dedup();
        Ok(Self { pairs })
    }

    pub fn iter(&self) -> impl Iterator<Item = (&AttributeName, &str)> {
        self.pairs.iter().map(|(name, value)| (name, value.as_str()))
    }

    /// By which attestor they were proved; none where there are none.
    pub fn family(&self) -> Option<Family> {
        self.pairs.first().map(|(name, _)| name.family())
    }

    /// All values of one name.
    pub fn values<'a>(&'a self, name: &AttributeName) -> impl Iterator<Item = &'a str> + use<'a> {
        let from = self.pairs.partition_point(|(other, _)| other < name);
        let count = self.pairs[from..].partition_point(|(other, _)| other <= name);
        self.pairs[from..from + count].iter().map(|(_, value)| value.as_str())
    }

    /// The one value that a template needs.
    pub fn single(&self, name: &AttributeName) -> Result<&str, AttributeError> {
        let mut values = self.values(name);
        match (values.next(), values.next()) {
            (Some(value), None) => Ok(value),
            (None, _) => Err(AttributeError::Missing(name.clone())),
            (Some(_), Some(_)) => Err(AttributeError::Several(name.clone())),
        }
    }
}

pub(crate) const MAX_ATTRIBUTES: usize = 64;
pub(crate) const MAX_VALUE: usize = 1 << 10;
const MOST_TYPOS: usize = 3;
const CLAIM: &str = "oidc.claim.";

const KNOWN: &[(&str, &str)] = &[
    ("k8s.cluster", "the cluster, by the name that the issuer's configuration gives it"),
    ("k8s.namespace", "the pod's namespace"),
    ("k8s.node", "the node that the pod runs on"),
    ("k8s.pod", "the pod's name"),
    ("k8s.pod_uid", "the pod's UID"),
    ("k8s.service_account", "the pod's service account"),
    ("oidc.provider", "the provider, by the name that the issuer's configuration gives it"),
    ("oidc.subject", "the token's `sub`"),
    ("svid.spiffe_id", "the SPIFFE ID of the certificate that the caller shows, for `signet issue`"),
    ("x509.authority", "the registered CA that vouches for the certificate, by its name"),
    ("x509.common_name", "the certificate's common name"),
    ("x509.dns", "a DNS name of the certificate"),
    ("x509.serial", "the certificate's serial number, in lower-case hexadecimal"),
    ("x509.sha256", "the SHA-256 of the certificate, in lower-case hexadecimal"),
    ("x509.uri", "a URI of the certificate"),
];

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]
    use super::*;

    fn pair(name: &str, value: &str) -> (AttributeName, String) {
        (name.parse().unwrap(), value.to_owned())
    }

    #[test]
    fn a_name_that_is_unknown_is_refused_with_what_was_meant() {
        let error = "k8s.namspace".parse::<AttributeName>().unwrap_err();
        assert_eq!(error.suggestion, Some("k8s.namespace"));
        for unknown in ["", "k8s", "shoe.size", "oidc.claim.", "oidc.claim.a b", "oidc.claim.a/b", "K8s.namespace"] {
            unknown.parse::<AttributeName>().unwrap_err();
        }
        assert_eq!("oidc.claim.repository_id".parse::<AttributeName>().unwrap().family(), Family::Oidc);
    }

    #[test]
    fn each_known_name_is_of_its_family() {
        for (name, _) in AttributeName::known() {
            let family = match &name[..name.find('.').unwrap()] {
                "k8s" => Family::Kubernetes,
                "oidc" => Family::Oidc,
                "x509" => Family::X509,
                "svid" => Family::Svid,
                other => panic!("{other}"),
            };
            assert_eq!(name.parse::<AttributeName>().unwrap().family(), family);
        }
        assert!(KNOWN.is_sorted());
    }

    #[test]
    fn a_template_needs_one_value_and_a_match_any() {
        let attributes = Attributes::new([pair("x509.dns", "b"), pair("x509.serial", "1"), pair("x509.dns", "a")]);
        let attributes = attributes.unwrap();
        let (dns, serial) = ("x509.dns".parse().unwrap(), "x509.serial".parse().unwrap());
        assert_eq!(attributes.values(&dns).collect::<Vec<_>>(), ["a", "b"]);
        assert_eq!(attributes.single(&serial), Ok("1"));
        assert_eq!(attributes.single(&dns), Err(AttributeError::Several(dns)));
        let missing: AttributeName = "x509.uri".parse().unwrap();
        assert_eq!(attributes.single(&missing), Err(AttributeError::Missing(missing)));
    }

    #[test]
    fn a_caller_has_no_more_than_a_few_attributes_and_all_of_one_attestor() {
        let many = |count: usize| (0..count).map(|number| pair("x509.dns", &number.to_string()));
        Attributes::new(many(MAX_ATTRIBUTES)).unwrap();
        assert_eq!(Attributes::new(many(MAX_ATTRIBUTES + 1)), Err(AttributesError::TooMany));
        Attributes::new([pair("x509.dns", &"a".repeat(MAX_VALUE))]).unwrap();
        assert_eq!(Attributes::new([pair("x509.dns", &"a".repeat(MAX_VALUE + 1))]), Err(AttributesError::TooLong));
        let mixed = [pair("x509.dns", "a"), pair("k8s.pod", "a")];
        assert_eq!(Attributes::new(mixed), Err(AttributesError::Mixed));
    }
}
