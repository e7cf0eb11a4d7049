//! The issuer that has its authorities from the parent: `signet.admin.v1` over its socket, a connection for each call.

use std::path::PathBuf;
use std::str::FromStr as _;
use std::time::Duration;

use signet_identity::TrustDomain;
use signet_proto::admin::v1::admin_service_client::AdminServiceClient;
use signet_proto::admin::v1::rotate_request::What;
use signet_proto::admin::v1::{
    AuthorityDetail, AuthorityRotation, GetStatusRequest, ImportAuthoritiesRequest, ListAuthoritiesRequest,
    RequestAuthoritiesRequest, RotateRequest,
};
use tonic::Code;
use tonic::transport::Channel;

use super::plan::{Authority, Stage};
use super::rounds::Issuer;
use crate::admin;
use crate::failure::Failure;
use crate::output;

pub(super) struct Child {
    socket: PathBuf,
}

/// Between attempts to find it.
const LOOK: Duration = Duration::from_secs(1);
/// Why the issuer goes over.
const COMMENT: &str = "the parent's authority above the one before signs no more";

impl Child {
    pub(super) fn at(named: Option<&str>) -> Result<Self, Failure> {
        Ok(Self { socket: admin::socket_of(named)? })
    }

    /// That of the issuer, and so of its parent. Waits for it, unless that is to be done once.
    pub(super) async fn trust_domain(&self, once: bool) -> Result<TrustDomain, Failure> {
        let mut is_told = false;
        loop {
            match self.status().await {
                Err(failure) if !once => {
                    if !std::mem::replace(&mut is_told, true) {
                        tracing::warn!(cause = failure.cause(), "the issuer is awaited");
                    }
                    tokio::time::sleep(LOOK).await;
                }
                told => return told,
            }
        }
    }

    async fn status(&self) -> Result<TrustDomain, Failure> {
        let status = self.client().await?.get_status(GetStatusRequest {}).await;
        let status = status.map_err(|status| admin::refused(&status))?.into_inner();
        TrustDomain::from_str(&status.trust_domain).map_err(|error| Failure::from_error(&error))
    }

    async fn client(&self) -> Result<AdminServiceClient<Channel>, Failure> {
        admin::connect(&self.socket).await
    }
}

impl Issuer for Child {
    async fn authorities(&self) -> Result<Vec<Authority>, Failure> {
        let listed = self.client().await?.list_authorities(ListAuthoritiesRequest {}).await;
        let listed = listed.map_err(|status| admin::refused(&status))?.into_inner().authorities;
        listed.into_iter().map(authority).collect()
    }

    async fn ask(&self, discard: &[String]) -> Result<(), Failure> {
        let request = RequestAuthoritiesRequest { count: 1, discard: discard.to_vec() };
        let asked = self.client().await?.request_authorities(request).await;
        asked.map(drop).map_err(|status| admin::refused(&status))
    }

    async fn import(&self, certificates_pem: String) -> Result<(), Failure> {
        let request = ImportAuthoritiesRequest { certificates_pem };
        let imported = self.client().await?.import_authorities(request).await;
        let imported = imported.map_err(|status| admin::refused(&status))?.into_inner();
        for warning in imported.warnings {
            tracing::warn!(warning, "certificate taken");
        }
        Ok(())
    }

    async fn rotate(&self, successor: &str) -> Result<bool, Failure> {
        let what = What::Authority(AuthorityRotation { successor: successor.to_owned() });
        let request = RotateRequest { what: Some(what), comment: COMMENT.to_owned(), ..RotateRequest::default() };
        match self.client().await?.rotate(request).await {
            Ok(_) => Ok(true),
            Err(status) if status.code() == Code::FailedPrecondition => Ok(false),
            Err(status) => Err(admin::refused(&status)),
        }
    }
}

fn authority(detail: AuthorityDetail) -> Result<Authority, Failure> {
    let strange = |what: &str| Failure::new(format!("the issuer told of an authority {what}"));
    let chain = pem::parse_many(&detail.certificates_pem).map_err(|_| strange("whose certificate is not PEM"))?;
    let since = detail.since.and_then(output::time_of).ok_or_else(|| strange("without a time"))?;
    Ok(Authority {
        key: detail.key,
        stage: match detail.stage.as_str() {
            "requested" => Stage::Requested,
            "prepared" => Stage::Prepared,
            "active" => Stage::Active,
            _ => Stage::Over,
        },
        since,
        not_after: detail.not_after.and_then(output::time_of),
        above: chain.into_iter().nth(1).map(pem::Pem::into_contents),
        request: detail.request_pem,
    })
}
