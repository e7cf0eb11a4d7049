//! The section `attestation`: whose tokens and certificates prove who a caller is.
//!
//! ```yaml
//! attestation:
//!   k8s_sa_token:
//!     - cluster: prod-1                  # what policy calls it: k8s.cluster
//!       issuer: https://kubernetes.default.svc
//!       jwks: { url: https://10.0.0.1:6443/openid/v1/jwks, ca: cluster-ca.pem, token_file: token }
//!   oidc:
//!     - provider: github                 # oidc.provider
//!       issuer: https://token.actions.githubusercontent.com
//!       jwks: { url: https://token.actions.githubusercontent.com/.well-known/jwks }
//!       claims: [repository, ref]        # default: all
//!   x509_pop:
//!     - { authority: datacenter-1, ca: datacenter-1.pem }   # x509.authority
//! ```
//! Without `audience`, tokens are for the issuer's SPIFFE ID. Without `ca`, the system's authorities are believed.

use std::collections::{HashMap, HashSet};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use http::Uri;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::CertificateDer;
use serde::Deserialize;
use signet_identity::TrustDomain;
use signet_process::config::{self, ConfigError, Located, Parsed};

use super::{Attestation, TokenIssuer};
use crate::attestation::{KeySet, Published, Remote, X509Anchor, X509Authority};
use crate::pem_files;

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct AttestationFile {
    k8s_sa_token: Vec<ClusterFile>,
    oidc: Vec<ProviderFile>,
    x509_pop: Vec<AuthorityFile>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ClusterFile {
    cluster: Located<String>,
    issuer: Located<String>,
    audience: Option<Located<String>>,
    jwks: Located<JwksFile>,
    /// Whether a token is good for one certificate, or until it expires.
    #[serde(default = "yes")]
    once: bool,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ProviderFile {
    provider: Located<String>,
    issuer: Located<String>,
    audience: Option<Located<String>>,
    jwks: Located<JwksFile>,
    #[serde(default)]
    claims: Vec<String>,
    #[serde(default = "yes")]
    once: bool,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct AuthorityFile {
    authority: Located<String>,
    ca: Located<PathBuf>,
}

/// Exactly one of `file` and `url`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct JwksFile {
    file: Option<PathBuf>,
    url: Option<Parsed<Uri>>,
    ca: Option<Located<PathBuf>>,
    token_file: Option<PathBuf>,
}

fn yes() -> bool {
    true
}

impl AttestationFile {
    pub(super) fn resolve(self, path: &Path, trust_domain: &TrustDomain) -> Result<Attestation, ConfigError> {
        let reading = Reading { path, audience: format!("{}/signet/issuer", trust_domain.id()) };
        let mut attestation = Attestation::default();
        let mut names = HashSet::new();
        for ClusterFile { cluster, issuer, audience, jwks, once } in self.k8s_sa_token {
            reading.name(&cluster, &mut names)?;
            attestation.clusters.push(reading.token_issuer(cluster, issuer, audience, &jwks, Vec::new(), once)?);
        }
        names.clear();
        for ProviderFile { provider, issuer, audience, jwks, claims, once } in self.oidc {
            reading.name(&provider, &mut names)?;
            attestation.providers.push(reading.token_issuer(provider, issuer, audience, &jwks, claims, once)?);
        }
        names.clear();
        let mut keys = HashMap::new();
        for AuthorityFile { authority, ca } in self.x509_pop {
            reading.name(&authority, &mut names)?;
            attestation.authorities.push(reading.authority(authority, &ca, &mut keys)?);
        }
        Ok(attestation)
    }
}

struct Reading<'a> {
    path: &'a Path,
    /// Where none is written.
    audience: String,
}

impl Reading<'_> {
    /// A name that rules can match, and that nobody else has.
    fn name(&self, name: &Located<String>, taken: &mut HashSet<String>) -> Result<(), ConfigError> {
        let allowed = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_');
        if name.is_empty() || name.len() > MAX_NAME || !name.bytes().all(allowed) {
            let fix = format!("write 1 to {MAX_NAME} of a-z, 0-9, dash, dot and underscore");
            return Err(name.error(self.path, format!("`{}` is no name", name.escape_debug()), fix));
        }
        if !taken.insert(name.value.clone()) {
            return Err(name.error(self.path, format!("there is another `{}`", name.value), "give it another name"));
        }
        Ok(())
    }

    fn token_issuer(
        &self,
        name: Located<String>,
        issuer: Located<String>,
        audience: Option<Located<String>>,
        jwks: &Located<JwksFile>,
        claims: Vec<String>,
        once: bool,
    ) -> Result<TokenIssuer, ConfigError> {
        if issuer.is_empty() {
            return Err(issuer.error(self.path, "`issuer` is empty", "write what tokens have as `iss`"));
        }
        if let Some(audience) = audience.as_ref().filter(|audience| audience.is_empty()) {
            return Err(audience.error(
                self.path,
                "`audience` is empty",
                "write what tokens have as `aud`, or leave it out",
            ));
        }
        let audience = audience.map_or_else(|| self.audience.clone(), |audience| audience.value);
        let (published, shown) = self.published(jwks)?;
        Ok(TokenIssuer { name: name.value, issuer: issuer.value, audience, published, shown, claims, once })
    }

    /// Where keys are, and how that is written.
    fn published(&self, jwks: &Located<JwksFile>) -> Result<(Published, String), ConfigError> {
        let wrong = |what: String, fix: &str| jwks.error(self.path, what, fix);
        let JwksFile { file, url, ca, token_file } = &jwks.value;
        match (file, url) {
            (Some(file), None) => {
                if ca.is_some() || token_file.is_some() {
                    let fix = "they are for a `url`: leave them out";
                    return Err(wrong("`jwks` has a `file`, and `ca` or `token_file`".to_owned(), fix));
                }
                let file = config::beside(self.path, file);
                // Read here only to say at once that it is the wrong one.
                KeySet::read_some(&file).map_err(|error| {
                    let cause = signet_process::start::Report::of(&error).cause;
                    wrong(
                        format!("jwks {}: {cause}", file.display()),
                        "name the key set that the tokens' issuer publishes",
                    )
                })?;
                let shown = format!("file: {}", quoted(&file.display()));
                Ok((Published::File(file), shown))
            }
            (None, Some(url)) => {
                if url.scheme() != Some(&http::uri::Scheme::HTTPS) || url.host().is_none_or(str::is_empty) {
                    let fix = "write https://HOST/PATH, where the tokens' issuer publishes its keys";
                    return Err(wrong(format!("`{}` is no https URL", url.0), fix));
                }
                // Shown in many places, as an address is.
                if url.authority().is_some_and(|authority| authority.as_str().contains('@')) {
                    let fix = "write the URL without it; a bearer token may stand in a file, `token_file`";
                    return Err(wrong("`url` holds a user or a password".to_owned(), fix));
                }
                let token_file = token_file.as_ref().map(|file| config::beside(self.path, file));
                let mut shown = format!("url: {}", quoted(&url.0));
                if let Some(ca) = ca {
                    let _ = write!(shown, ", ca: {}", quoted(&config::beside(self.path, ca).display()));
                }
                if let Some(file) = &token_file {
                    let _ = write!(shown, ", token_file: {}", quoted(&file.display()));
                }
                let tls = client_config(self.roots(jwks, ca.as_ref())?);
                let tls = tls.map_err(|error| wrong(error.to_string(), "this is a bug of this program"))?;
                let remote = Remote { url: url.0.clone(), tls, bearer_file: token_file };
                Ok((Published::Url(remote), shown))
            }
            _ => Err(wrong("`jwks` says not where the keys are, or says it twice".to_owned(), "write `file` or `url`")),
        }
    }

    fn roots(&self, jwks: &Located<JwksFile>, ca: Option<&Located<PathBuf>>) -> Result<RootCertStore, ConfigError> {
        let mut roots = RootCertStore::empty();
        let Some(ca) = ca else {
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
            if roots.is_empty() {
                let fix = "install ca-certificates, or name the PEM file with `ca`";
                return Err(jwks.error(self.path, "this system has no authorities to believe", fix));
            }
            return Ok(roots);
        };
        for certificate in self.certificates(ca)? {
            roots.add(certificate).map_err(|error| self.no_certificates(ca, &error.to_string()))?;
        }
        Ok(roots)
    }

    fn authority(
        &self,
        name: Located<String>,
        ca: &Located<PathBuf>,
        authorities: &mut HashMap<Vec<u8>, String>,
    ) -> Result<X509Authority, ConfigError> {
        let mut anchors = Vec::new();
        for certificate in self.certificates(ca)? {
            let anchor = X509Anchor::of(&certificate).map_err(|error| self.no_certificates(ca, &error.to_string()))?;
            let other = authorities.insert(anchor.name_and_key(), name.value.clone());
            if let Some(other) = other.filter(|other| *other != name.value) {
                let fix = "a CA has one name: leave it out of one of the two";
                return Err(ca.error(self.path, format!("one of its certificates is of `{other}` too"), fix));
            }
            anchors.push(anchor);
        }
        Ok(X509Authority { name: name.value, file: config::beside(self.path, ca), anchors })
    }

    fn certificates(&self, ca: &Located<PathBuf>) -> Result<Vec<CertificateDer<'static>>, ConfigError> {
        let file = config::beside(self.path, ca);
        let text = pem_files::read(&file).map_err(|error| self.no_certificates(ca, &error.to_string()))?;
        let found = pem_files::decode(pem_files::CERTIFICATE, &text);
        match found {
            Ok(found) if !found.is_empty() => Ok(found.into_iter().map(CertificateDer::from).collect()),
            _ => Err(self.no_certificates(ca, "it holds no certificate")),
        }
    }

    fn no_certificates(&self, ca: &Located<PathBuf>, cause: &str) -> ConfigError {
        let file = config::beside(self.path, ca);
        ca.error(self.path, format!("ca {}: {cause}", file.display()), "name a PEM file with the CA's certificates")
    }
}

pub(super) fn client_config(roots: RootCertStore) -> Result<Arc<ClientConfig>, rustls::Error> {
    let builder = ClientConfig::builder_with_provider(Arc::clone(signet_identity::provider()));
    let builder = builder.with_protocol_versions(&[&rustls::version::TLS13])?;
    let mut config = builder.with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

/// As it would be written in a file, with all defaults. Empty when there is nothing.
pub(super) fn shown(attestation: &Attestation) -> String {
    let Attestation { clusters, providers, authorities } = attestation;
    if clusters.is_empty() && providers.is_empty() && authorities.is_empty() {
        return String::new();
    }
    let mut text = "attestation:\n".to_owned();
    let token_issuers = |text: &mut String, section: &str, key: &str, issuers: &[TokenIssuer]| {
        if !issuers.is_empty() {
            let _ = writeln!(text, "  {section}:");
        }
        for TokenIssuer { name, issuer, audience, shown, claims, once, .. } in issuers {
            let (issuer, audience) = (quoted(issuer), quoted(audience));
            let _ = write!(text, "    - {{ {key}: {name}, issuer: {issuer}, audience: {audience}, jwks: {{ {shown} }}");
            if key == "provider" {
                let claims: Vec<_> = claims.iter().map(quoted).collect();
                let _ = write!(text, ", claims: [{}]", claims.join(", "));
            }
            let _ = writeln!(text, ", once: {once} }}");
        }
    };
    token_issuers(&mut text, "k8s_sa_token", "cluster", clusters);
    token_issuers(&mut text, "oidc", "provider", providers);
    if !authorities.is_empty() {
        text.push_str("  x509_pop:\n");
    }
    for X509Authority { name, file, .. } in authorities {
        let _ = writeln!(text, "    - {{ authority: {name}, ca: {} }}", quoted(&file.display()));
    }
    text
}

fn quoted(value: &impl ToString) -> String {
    format!("{:?}", value.to_string())
}

const MAX_NAME: usize = 64;
