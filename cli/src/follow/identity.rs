//! Who the command is at the parent.

use signet_identity::{TlsPolicies, TrustBundle, TrustDomain};
use signet_sdk::{Credential, FilePaths, FilesSource, IssuerSource, JoinToken, Starting};
use tokio_util::sync::CancellationToken;

use crate::args::{CaFollowOptions, CredentialDetails, CredentialOptions};
use crate::failure::Failure;

/// Within a tokio runtime.
pub(super) fn begin(
    options: &CaFollowOptions,
    trust_domain: TrustDomain,
    policies: TlsPolicies,
    shutdown: CancellationToken,
) -> Result<Starting, Failure> {
    let credential = match chosen(&options.credential, &options.details)? {
        Chosen::Files(folder) => {
            return Ok(signet_sdk::begin(FilesSource::new(folder), policies, shutdown));
        }
        Chosen::Shown(credential) => credential,
    };
    let path = options.trust_bundle.as_deref().ok_or_else(|| Failure::new("no --trust-bundle is named"))?;
    let pem = std::fs::read(path).map_err(|error| Failure::new(format!("{}: {error}", path.display())))?;
    let bundle = TrustBundle::from_pem(trust_domain, &pem)
        .map_err(|error| Failure::new(format!("{}: {}", path.display(), Failure::from_error(&error).cause())))?;
    let source = IssuerSource::at(options.parent.iter().map(String::as_str), bundle, credential);
    let source = source.map_err(|error| Failure::from_error(&error))?;
    let source = match &options.own_id {
        Some(id) => source.spiffe_id(id.clone()),
        None => source,
    };
    Ok(signet_sdk::begin(source, policies, shutdown))
}

enum Chosen {
    Files(FilePaths),
    Shown(Credential),
}

fn chosen(options: &CredentialOptions, more: &CredentialDetails) -> Result<Chosen, Failure> {
    let named = |name: &Option<String>| name.clone().unwrap_or_default();
    Ok(match options {
        CredentialOptions { identity: Some(folder), .. } => Chosen::Files(FilePaths::within(folder)),
        CredentialOptions { join_token_file: Some(file), .. } => Chosen::Shown(JoinToken::File(file.clone()).into()),
        CredentialOptions { k8s_token_file: Some(token), .. } => {
            let (cluster, token) = (named(&more.k8s_cluster), token.clone());
            Chosen::Shown(Credential::KubernetesToken { cluster, token })
        }
        CredentialOptions { oidc_token_file: Some(token), .. } => {
            let (provider, token) = (named(&more.oidc_provider), token.clone());
            Chosen::Shown(Credential::Oidc { provider, token })
        }
        CredentialOptions { x509_certificate: Some(certificate), .. } => {
            let key = more.x509_key.clone().ok_or_else(|| Failure::new("no --x509-key is named"))?;
            Chosen::Shown(Credential::X509 { certificate: certificate.clone(), key })
        }
        // clap demands one of them.
        _ => return Err(Failure::new("nothing is named that proves who this is")),
    })
}
