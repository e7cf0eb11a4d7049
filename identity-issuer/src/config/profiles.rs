//! The section `profiles`: certificate templates beside those that every issuer has.
//!
//! ```yaml
//! profiles:
//!   - name: web                          # what a rule's `profile` names
//!     like: tls-server                   # a built-in one; what is not said below is as there
//!     keys: [p256, rsa3072]              # p256, p384, ed25519, rsa2048, rsa3072, rsa4096
//!     ttl: 12h
//!     max_ttl: 30d
//!     key_usage: [digital_signature]     # RFC 5280 §4.2.1.3
//!     extended_key_usage: [server_auth, 1.3.6.1.5.5.7.3.17]
//!     subject: { organization: Example, organizational_unit: Web, country: DE }
//!     extensions: [{ oid: 1.3.6.1.4.1.99999.1, value: 0c0473686f70, critical: false }]   # DER, in hexadecimal
//!     permit: dns_names.all(name, name.endsWith(".web.example.org"))   # CEL over spiffe_id, path, dns_names, key_type, ttl_seconds
//! ```

use std::fmt::{Display, Write as _};
use std::path::Path;
use std::time::Duration;

use rcgen::{CustomExtension, DnType, ExtendedKeyUsagePurpose, KeyUsagePurpose};
use serde::Deserialize;
use signet_policy::DEFAULT_PROFILE;
use signet_process::config::{self, ConfigError, Located, Parsed};
use x509_parser::der_parser::parse_der;

use crate::key_type::{KeyType, listed};
use crate::profile::{BUILTIN, Form, Leaf, Permit, Profile, builtin};

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ProfileFile {
    name: Located<String>,
    like: Located<String>,
    keys: Option<Located<Vec<Parsed<KeyType>>>>,
    ttl: Option<Located<config::Duration>>,
    max_ttl: Option<Located<config::Duration>>,
    key_usage: Option<Located<Vec<Located<String>>>>,
    extended_key_usage: Option<Located<Vec<Located<String>>>>,
    subject: Option<Located<SubjectFile>>,
    #[serde(default)]
    extensions: Vec<Located<ExtensionFile>>,
    permit: Option<Located<String>>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct SubjectFile {
    organization: Option<String>,
    organizational_unit: Option<String>,
    country: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ExtensionFile {
    oid: Located<String>,
    value: Located<String>,
    #[serde(default)]
    critical: bool,
}

const KEY_USAGES: [(&str, KeyUsagePurpose); 5] = [
    ("digital_signature", KeyUsagePurpose::DigitalSignature),
    ("content_commitment", KeyUsagePurpose::ContentCommitment),
    ("key_encipherment", KeyUsagePurpose::KeyEncipherment),
    ("data_encipherment", KeyUsagePurpose::DataEncipherment),
    ("key_agreement", KeyUsagePurpose::KeyAgreement),
];
/// With the last arc of each (RFC 5280 §4.2.1.12).
const PURPOSES: [(&str, u64, ExtendedKeyUsagePurpose); 5] = [
    ("server_auth", 1, ExtendedKeyUsagePurpose::ServerAuth),
    ("client_auth", 2, ExtendedKeyUsagePurpose::ClientAuth),
    ("code_signing", 3, ExtendedKeyUsagePurpose::CodeSigning),
    ("email_protection", 4, ExtendedKeyUsagePurpose::EmailProtection),
    ("time_stamping", 8, ExtendedKeyUsagePurpose::TimeStamping),
];
const ID_KP: [u64; 8] = [1, 3, 6, 1, 5, 5, 7, 3];
const ANY_PURPOSE: [u64; 5] = [2, 5, 29, 37, 0];
const MAX_PROFILES: usize = 64;
const MAX_EXTENSIONS: usize = 16;
const MAX_EXTENSION_BYTES: usize = 1024;
/// ub-organization-name (RFC 5280, appendix A.1).
const MAX_SUBJECT: usize = 64;
const SHORTEST: Duration = Duration::from_secs(10);
const LONGEST: Duration = Duration::from_secs(10 * 366 * 86_400);

/// `identities` is the life of what workloads renew.
pub(super) fn resolve(
    path: &Path,
    files: Vec<ProfileFile>,
    identities: (Duration, Duration),
) -> Result<Vec<Profile>, ConfigError> {
    let mut profiles: Vec<Profile> = Vec::new();
    for file in files {
        if profiles.len() == MAX_PROFILES {
            return Err(file.name.error(
                path,
                format!("there are more than {MAX_PROFILES} profiles"),
                "leave some out",
            ));
        }
        let taken = BUILTIN.contains(&file.name.as_str()) || profiles.iter().any(|other| *other.name == **file.name);
        if taken {
            let what = format!("there is another profile `{}`", *file.name);
            return Err(file.name.error(path, what, "give it another name"));
        }
        profiles.push(Reading { path, file }.profile(identities)?);
    }
    Ok(profiles)
}

struct Reading<'a> {
    path: &'a Path,
    file: ProfileFile,
}

impl Reading<'_> {
    fn profile(self, (ttl, backdate): (Duration, Duration)) -> Result<Profile, ConfigError> {
        let Self { path, file } = &self;
        let is_name = |name: &str| {
            let allowed = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_');
            (1..=64).contains(&name.len()) && name.bytes().all(allowed)
        };
        if !is_name(&file.name) {
            let what = format!("`{}` is no name of a profile", file.name.escape_debug());
            return Err(file.name.error(path, what, "write 1 to 64 of a-z, 0-9, dash, dot and underscore"));
        }
        let mut profile = builtin(&file.like, ttl, backdate).ok_or_else(|| {
            let what = format!("there is no built-in profile `{}`", file.like.escape_debug());
            file.like.error(path, what, format!("write one of {}", BUILTIN.join(", ")))
        })?;
        profile.name = file.name.as_str().into();
        if let Some(keys) = &file.keys {
            profile.keys = keys.iter().map(|key| key.0).collect();
            if profile.keys.is_empty() {
                return Err(keys.error(path, "no key would do", format!("write some of {}", listed(&KeyType::ALL))));
            }
        }
        if let Some(max_ttl) = &file.max_ttl {
            profile.max_ttl = super::file::within(path, max_ttl, "max_ttl", SHORTEST..=LONGEST)?;
            profile.ttl = profile.ttl.min(profile.max_ttl);
        }
        if let Some(ttl) = &file.ttl {
            profile.ttl = super::file::within(path, ttl, "ttl", SHORTEST..=profile.max_ttl)?;
        }
        if let Some(permit) = &file.permit {
            let read = Permit::parse(permit).map_err(|error| {
                permit.error(path, format!("`permit`: {error}"), "write a CEL expression that comes to true or false")
            })?;
            profile.permit = Some(read);
        }
        match &mut profile.form {
            Form::Leaf(leaf) => self.leaf(leaf)?,
            Form::SubordinateCa => self.says_nothing_of_a_leaf()?,
        }
        if let Form::Leaf(leaf) = &profile.form
            && profile.is_identity()
            && leaf.extensions.iter().any(CustomExtension::criticality)
        {
            let what = "a critical extension would keep Signet's own peers from accepting it";
            return Err(file.name.error(path, what, "make it one that is not critical"));
        }
        profile.written = Some(written(&profile).into());
        Ok(profile)
    }

    fn leaf(&self, leaf: &mut Leaf) -> Result<(), ConfigError> {
        let Self { path, file } = self;
        if let Some(usages) = &file.key_usage {
            leaf.key_usages = usages.iter().map(|usage| self.key_usage(usage)).collect::<Result<_, _>>()?;
            if leaf.key_usages.is_empty() {
                return Err(usages.error(path, "a key that may do nothing", "write `digital_signature`"));
            }
        }
        if let Some(purposes) = &file.extended_key_usage {
            leaf.extended_key_usages =
                purposes.iter().map(|purpose| self.purpose(purpose)).collect::<Result<_, _>>()?;
            if leaf.extended_key_usages.is_empty() {
                let what = "without a purpose a certificate is good for everything (RFC 5280 §4.2.1.12)";
                return Err(purposes.error(path, what, "write what it is for, such as `server_auth`"));
            }
        }
        if let Some(subject) = &file.subject {
            leaf.subject = self.subject(subject)?;
        }
        if let Some(too_many) = file.extensions.get(MAX_EXTENSIONS) {
            return Err(too_many.error(
                path,
                format!("there are more than {MAX_EXTENSIONS} extensions"),
                "leave some out",
            ));
        }
        for extension in &file.extensions {
            let extension = self.extension(extension)?;
            if leaf.extensions.iter().any(|other| other.oid_components().eq(extension.oid_components())) {
                return Err(file.name.error(path, "an extension is there twice", "leave one of them out"));
            }
            leaf.extensions.push(extension);
        }
        Ok(())
    }

    fn key_usage(&self, usage: &Located<String>) -> Result<KeyUsagePurpose, ConfigError> {
        KEY_USAGES.iter().find(|(name, _)| *name == usage.as_str()).map(|(_, usage)| *usage).ok_or_else(|| {
            let known = KEY_USAGES.map(|(name, _)| name).join(", ");
            let fix = format!("there are {known}; only the profile subordinate-ca signs certificates");
            usage.error(self.path, format!("`{}` is no usage of a leaf's key", usage.escape_debug()), fix)
        })
    }

    fn purpose(&self, purpose: &Located<String>) -> Result<ExtendedKeyUsagePurpose, ConfigError> {
        let refuse = |what: &str| {
            let what = format!("`{}` {what}", purpose.escape_debug());
            let fix = format!("there are {}, or an OID", PURPOSES.map(|(name, ..)| name).join(", "));
            Err(purpose.error(self.path, what, fix))
        };
        let arcs = arcs(purpose);
        let known = PURPOSES.into_iter().find(|(name, last, _)| {
            *name == purpose.as_str() || arcs.as_ref().is_some_and(|arcs| *arcs == [&ID_KP[..], &[*last]].concat())
        });
        match (known, arcs) {
            (Some((.., known)), _) => Ok(known),
            (None, None) => refuse("is no purpose"),
            (None, Some(arcs)) if arcs == ANY_PURPOSE => refuse("is good for everything"),
            (None, Some(arcs)) if arcs == [&ID_KP[..], &[9]].concat() => {
                refuse("would answer for certificates of others")
            }
            (None, Some(arcs)) => Ok(ExtendedKeyUsagePurpose::Other(arcs)),
        }
    }

    fn subject(&self, subject: &Located<SubjectFile>) -> Result<Vec<(DnType, String)>, ConfigError> {
        let SubjectFile { organization, organizational_unit, country } = subject.value.clone();
        let attributes = [
            (DnType::CountryName, country),
            (DnType::OrganizationName, organization),
            (DnType::OrganizationalUnitName, organizational_unit),
        ];
        let mut written = Vec::new();
        for (attribute, value) in attributes {
            let Some(value) = value else { continue };
            let is_good = match attribute {
                // ISO 3166.
                DnType::CountryName => value.len() == 2 && value.bytes().all(|byte| byte.is_ascii_uppercase()),
                _ => (1..=MAX_SUBJECT).contains(&value.chars().count()) && !value.chars().any(char::is_control),
            };
            if !is_good {
                let what = format!("`{}` cannot stand in a subject", value.escape_debug());
                let fix = "write a country of two capital letters, and names of 1 to 64 characters";
                return Err(subject.error(self.path, what, fix));
            }
            written.push((attribute, value));
        }
        Ok(written)
    }

    fn extension(&self, extension: &ExtensionFile) -> Result<CustomExtension, ConfigError> {
        let ExtensionFile { oid, value, critical } = extension;
        let arcs = arcs(oid).ok_or_else(|| {
            oid.error(self.path, format!("`{}` is no OID", oid.escape_debug()), "write it as 1.3.6.1.4.1.99999.1")
        })?;
        // Those of RFC 5280 say what a certificate may do: profiles have words for that, and `lint` looks at them.
        if arcs.starts_with(&[2, 5, 29]) || arcs.starts_with(&[1, 3, 6, 1, 5, 5, 7, 1]) {
            let fix = "write extensions of your own here; the others follow from what the profile says";
            return Err(oid.error(self.path, format!("`{}` is for X.509 itself", oid.as_str()), fix));
        }
        let refuse = |what: &str| Err(value.error(self.path, what, "write one value in DER, in hexadecimal"));
        let Ok(der) = hex::decode(value.as_str()) else { return refuse("the value is not hexadecimal") };
        if der.len() > MAX_EXTENSION_BYTES {
            return refuse("the value is longer than 1 KiB");
        }
        if !parse_der(&der).is_ok_and(|(rest, _)| rest.is_empty()) {
            return refuse("the value is not DER");
        }
        let mut written = CustomExtension::from_oid_content(&arcs, der);
        written.set_criticality(*critical);
        Ok(written)
    }

    /// A CA's certificate says what every CA's does.
    fn says_nothing_of_a_leaf(&self) -> Result<(), ConfigError> {
        let ProfileFile { key_usage, extended_key_usage, subject, extensions, name, .. } = &self.file;
        match key_usage.is_none() && extended_key_usage.is_none() && subject.is_none() && extensions.is_empty() {
            true => Ok(()),
            false => Err(name.error(
                self.path,
                "usages, subject and extensions of a CA are fixed",
                "leave `key_usage`, `extended_key_usage`, `subject` and `extensions` out",
            )),
        }
    }
}

/// An OID that can be written in DER (X.690 §8.19).
fn arcs(oid: &str) -> Option<Vec<u64>> {
    const MOST: usize = 20;
    let arcs = oid.split('.').map(|arc| arc.parse::<u32>().ok().filter(|number| number.to_string() == arc));
    let arcs = arcs.map(|arc| arc.map(u64::from)).collect::<Option<Vec<_>>>()?;
    let begins = matches!(arcs[..], [0 | 1, 0..40, _, ..] | [2, _, _, ..]);
    (begins && arcs.len() <= MOST).then_some(arcs)
}

/// As they would be written in a file. Empty when there are none.
pub(super) fn shown(profiles: &[Profile]) -> String {
    let mut text = if profiles.is_empty() { "" } else { "profiles:\n" }.to_owned();
    for profile in profiles {
        let _ = writeln!(text, "  - {}", profile.written.as_deref().unwrap_or_default());
    }
    text
}

/// All that a profile says, in one line of YAML.
fn written(profile: &Profile) -> String {
    let Profile { name, form, keys, ttl, max_ttl, permit, .. } = profile;
    let duration = |value: &Duration| config::Duration(*value).to_string();
    let like = match form {
        Form::Leaf(_) => DEFAULT_PROFILE,
        Form::SubordinateCa => "subordinate-ca",
    };
    let mut text = format!("{{ name: {name}, like: {like}, keys: [{}]", listed(keys));
    // Writing to a String cannot fail.
    let mut add = |key: &str, value: &dyn Display| {
        let _ = write!(text, ", {key}: {value}");
    };
    add("ttl", &duration(ttl));
    add("max_ttl", &duration(max_ttl));
    if let Form::Leaf(Leaf { key_usages, extended_key_usages, subject, extensions }) = form {
        let usages = key_usages.iter().filter_map(|usage| KEY_USAGES.iter().find(|(_, known)| known == usage));
        add("key_usage", &format_args!("[{}]", usages.map(|(name, _)| *name).collect::<Vec<_>>().join(", ")));
        let purposes: Vec<_> = extended_key_usages.iter().map(purpose_shown).collect();
        add("extended_key_usage", &format_args!("[{}]", purposes.join(", ")));
        if !subject.is_empty() {
            let attributes: Vec<_> = subject.iter().filter_map(attribute_shown).collect();
            add("subject", &format_args!("{{ {} }}", attributes.join(", ")));
        }
        if !extensions.is_empty() {
            let extensions: Vec<_> = extensions.iter().map(extension_shown).collect();
            add("extensions", &format_args!("[{}]", extensions.join(", ")));
        }
    }
    if let Some(permit) = permit {
        add("permit", &format_args!("{:?}", permit.as_str()));
    }
    text + " }"
}

fn purpose_shown(purpose: &ExtendedKeyUsagePurpose) -> String {
    match purpose {
        ExtendedKeyUsagePurpose::Other(arcs) => dotted(arcs.iter().copied()),
        known => PURPOSES
            .iter()
            .find(|(.., purpose)| purpose == known)
            .map(|(name, ..)| *name)
            .unwrap_or_default()
            .to_owned(),
    }
}

fn attribute_shown((attribute, value): &(DnType, String)) -> Option<String> {
    let key = match attribute {
        DnType::CountryName => "country",
        DnType::OrganizationName => "organization",
        DnType::OrganizationalUnitName => "organizational_unit",
        _ => return None,
    };
    Some(format!("{key}: {value:?}"))
}

fn extension_shown(extension: &CustomExtension) -> String {
    let (oid, value) = (dotted(extension.oid_components()), hex::encode(extension.content()));
    format!("{{ oid: {oid}, value: {value:?}, critical: {} }}", extension.criticality())
}

fn dotted(arcs: impl Iterator<Item = u64>) -> String {
    arcs.map(|arc| arc.to_string()).collect::<Vec<_>>().join(".")
}

#[cfg(test)]
mod tests;
