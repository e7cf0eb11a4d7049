//! The gRPC services. Thin: they read requests, call what does the work, and say how it went.

mod admin;
mod agents;
mod attestors;
mod authorities;
mod backups;
mod bundles;
mod calls;
mod doorkeeper;
mod explanation;
mod federation;
mod identity;
mod issuing;
mod jwt_keys;
mod naming;
mod policy;
mod reports;
mod revocations;
mod svids;
mod tokens;
mod unattended;
mod watching;

use std::time::Duration;

use prost::Message as _;
use signet_identity::{BundleSet, TrustDomain, WorkloadId};
use signet_proto::identity::v1 as wire;
use time::OffsetDateTime;
use tonic::Status;
use tonic::server::NamedService;
use tonic_health::pb::health_server::{Health, HealthServer};
use tonic_reflection::server::v1::{ServerReflection, ServerReflectionServer};

use crate::admission::Refused;
use crate::agents::NoStanding;
use crate::authority::{CertifyError, SignError};
use crate::bundles::{jwt_told_to, told_to};
use crate::certificate::Certificate;
use crate::distribution::{Distribution, Version};
use crate::entitlement::{Entitlement, NotEntitled};
use crate::issuance::IssueError;
use crate::jwt::JwtBundles;
use crate::store::StoreError;

pub(crate) use admin::AdminApi;
pub(crate) use attestors::Attestors;
pub(crate) use authorities::AuthorityCalls;
pub(crate) use identity::IdentityApi;
pub(crate) use jwt_keys::JwtKeyCalls;

/// Health and reflection to stand beside `S`; they tell of it alone: whoever asks may be anybody.
async fn companions<S: NamedService>()
-> Result<(HealthServer<impl Health>, ServerReflectionServer<impl ServerReflection>), tonic_reflection::server::Error> {
    let (reporter, health) = tonic_health::server::health_reporter();
    reporter.set_serving::<S>().await;
    let reflection = tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(signet_proto::FILE_DESCRIPTOR_SET)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        .with_service_name(S::NAME)
        .with_service_name("grpc.health.v1.Health")
        .build_v1()?;
    Ok((health, reflection))
}

/// What a caller is told. It names the field that is wrong; what is wrong with us is logged instead.
impl From<IssueError> for Status {
    fn from(error: IssueError) -> Self {
        let text = error.to_string();
        match error {
            IssueError::Csr(_) | IssueError::KeyReused => Self::invalid_argument(text),
            IssueError::ProofUsed => Self::unauthenticated(text),
            IssueError::NotPermitted(_)
            | IssueError::Banned
            | IssueError::Evicted
            | IssueError::Revoked
            | IssueError::Certify(CertifyError::EntitlementExpired { .. }) => Self::permission_denied(text),
            IssueError::Certify(CertifyError::NoSubordinates | CertifyError::OtherPurpose { .. }) => {
                Self::failed_precondition(text)
            }
            // Ours to mend: whoever asked can do nothing about it.
            IssueError::Certify(CertifyError::Lint { .. }) => {
                tracing::error!(cause = text, "nothing issued");
                Self::internal(text)
            }
            IssueError::NoAuthority => Self::unavailable(text),
            IssueError::Certify(CertifyError::AuthorityExpired { .. }) => {
                tracing::error!(cause = text, "nothing issued");
                Self::unavailable(text)
            }
            IssueError::Certify(CertifyError::Sign(SignError::Token(_))) => {
                tracing::error!(cause = report(&error), "nothing issued");
                Self::unavailable("the issuer's key is out of reach")
            }
            IssueError::Certify(CertifyError::Cryptography(_) | CertifyError::Sign(_)) => {
                tracing::error!(cause = report(&error), "nothing issued");
                Self::internal("the certificate could not be made")
            }
            IssueError::Store(error) => store_status(&error),
        }
    }
}

impl From<NotEntitled> for Status {
    fn from(error: NotEntitled) -> Self {
        let text = format!("spiffe_id: {error}");
        match error {
            NotEntitled::Several { .. } => Self::invalid_argument(text),
            NotEntitled::NoProfile { .. } => Self::invalid_argument(format!("profile: {error}")),
            NotEntitled::NoRule { .. } | NotEntitled::NotGiven { .. } | NotEntitled::OtherThanNamed { .. } => {
                Self::permission_denied(text)
            }
        }
    }
}

impl From<Refused> for Status {
    fn from(refused: Refused) -> Self {
        too_many(refused.to_string(), refused.after)
    }
}

/// The metadata that tells a client when to try again, in milliseconds (gRPC A6, server pushback).
const PUSHBACK: &str = "grpc-retry-pushback-ms";

fn too_many(text: impl Into<String>, after: Duration) -> Status {
    let mut status = Status::resource_exhausted(text);
    if let Ok(value) = after.as_millis().to_string().parse() {
        status.metadata_mut().insert(PUSHBACK, value);
    }
    status
}

impl From<NoStanding> for Status {
    fn from(error: NoStanding) -> Self {
        match error {
            NoStanding::Store(error) => store_status(&error),
            NoStanding::NotOnRecord
            | NoStanding::SourceGone { .. }
            | NoStanding::Evicted
            | NoStanding::Revoked
            | NoStanding::Banned(_) => Self::permission_denied(error.to_string()),
        }
    }
}

fn store_status(error: &StoreError) -> Status {
    match error {
        StoreError::Busy => too_many("too many requests at once; try again later", BUSY),
        // The committer has logged a failed commit once for all that were in it.
        StoreError::Closed | StoreError::Commit(_) => Status::unavailable("nothing was issued: it cannot be recorded"),
        StoreError::Database(_) | StoreError::Record { .. } | StoreError::Randomness => {
            tracing::error!(cause = report(error), "the store failed");
            Status::unavailable("the store failed")
        }
    }
}

/// For the queue to the record, and whatever else is full for a moment.
const BUSY: Duration = Duration::from_secs(1);

fn report(error: &(dyn std::error::Error + 'static)) -> String {
    signet_process::start::Report::of(error).cause
}

fn parse_id(text: &str, field: &str) -> Result<WorkloadId, Status> {
    text.parse().map_err(|error| Status::invalid_argument(format!("{field}: {error}")))
}

/// One of this issuer's trust domain.
fn parse_own_id(text: &str, field: &str, trust_domain: &TrustDomain) -> Result<WorkloadId, Status> {
    let id = parse_id(text, field)?;
    match id.trust_domain() == trust_domain {
        true => Ok(id),
        false => {
            let text = format!("{field}: {id} is not in the trust domain {trust_domain} of this issuer");
            Err(Status::invalid_argument(text))
        }
    }
}

/// None of one that is negative or malformed. (The conversion of prost-types negates any number of seconds, and panics at one.)
fn span(value: prost_types::Duration) -> Option<Duration> {
    let (seconds, nanos) = (u64::try_from(value.seconds).ok()?, u32::try_from(value.nanos).ok()?);
    (nanos < 1_000_000_000).then(|| Duration::new(seconds, nanos))
}

/// How many entries of a list are wanted.
fn page(limit: u32) -> Result<u32, Status> {
    const DEFAULT: u32 = 100;
    const MOST: u32 = 1000;
    match limit {
        0 => Ok(DEFAULT),
        1..=MOST => Ok(limit),
        _ => Err(Status::invalid_argument(format!("limit: more than {MOST}"))),
    }
}

/// What an operator wrote for others to read; `most` bytes of it.
fn bounded_text(text: String, field: &str, most: usize) -> Result<String, Status> {
    if text.len() > most {
        return Err(Status::invalid_argument(format!("{field}: longer than {most} bytes")));
    }
    // It would tell a terminal what to do.
    match text.chars().any(char::is_control) {
        true => Err(Status::invalid_argument(format!("{field}: it has a control character"))),
        false => Ok(text),
    }
}

/// Why an operator did something, as they say it.
fn comment(text: String) -> Result<String, Status> {
    /// In bytes.
    const MAX_COMMENT: usize = 1024;
    bounded_text(text, "comment", MAX_COMMENT)
}

fn svid(certificate: Certificate, entitlement: &Entitlement, log: wire::LogPlace) -> wire::X509Svid {
    wire::X509Svid {
        spiffe_id: certificate.id.as_str().to_owned(),
        chain: certificate.chain.iter().map(|der| der.to_vec()).collect(),
        not_before: Some(timestamp(certificate.validity.not_before)),
        not_after: Some(timestamp(certificate.validity.not_after)),
        entitlement_version: entitlement.version().to_vec(),
        hint: entitlement.hint.clone().unwrap_or_default(),
        profile: entitlement.profile.name.to_string(),
        log: Some(log),
    }
}

/// What the holder of `entitlement` is to trust.
fn bundles(distribution: &Distribution, entitlement: &Entitlement) -> wire::TrustBundles {
    let (of, federates_with) = (entitlement.id.trust_domain(), &entitlement.federates_with);
    let jwt = jwt_told_to(&distribution.jwt_bundles(), of, federates_with);
    written(&told_to(&distribution.bundles(), of, federates_with), &jwt)
}

fn written(set: &BundleSet, jwt: &JwtBundles) -> wire::TrustBundles {
    let bundle = |bundle: &signet_identity::TrustBundle| wire::TrustBundle {
        trust_domain: bundle.trust_domain().as_str().to_owned(),
        x509_authorities: bundle.authorities().iter().map(|der| der.to_vec()).collect(),
        jwt_authorities: jwt
            .get(bundle.trust_domain())
            .map(|keys| keys.to_jwks().to_string().into())
            .unwrap_or_default(),
    };
    let mut bundles = wire::TrustBundles { bundles: set.iter().map(bundle).collect(), version: Vec::new() };
    bundles.version = Version::of(&bundles.encode_to_vec()).to_vec();
    bundles
}

fn timestamp(time: OffsetDateTime) -> prost_types::Timestamp {
    prost_types::Timestamp { seconds: time.unix_timestamp(), nanos: time.nanosecond().cast_signed() }
}
