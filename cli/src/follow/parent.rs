//! The issuer above: `signet.identity.v1` over mTLS, with whatever identity is live.

use std::time::Duration;

use signet_identity::{
    ClientCredentials, ClientKey, ClientPolicy, LiveIdentity, SharedClock, SpiffeIdPatterns, TrustDomain,
};
use signet_proto::identity::v1::identity_service_client::IdentityServiceClient;
use signet_proto::identity::v1::{CertificateRequest, IssueRequest, Refusal, issue_result};
use signet_sdk::hyper::MtlsConnector;
use signet_sdk::tonic::MtlsChannel;
use tonic::transport::Endpoint;
use tonic::{Code, Status};

use super::health::Outcome;
use super::rounds::Signer;
use crate::args::CaFollowOptions;
use crate::failure::Failure;
use crate::output;

pub(super) struct Parent {
    /// Each with its address; the first is asked.
    channels: Vec<(String, IdentityServiceClient<MtlsChannel>)>,
    profile: String,
    spiffe_id: String,
}

/// Why there is no certificate.
pub(super) struct Refused {
    pub(super) failure: Failure,
    pub(super) retry_after: Option<Duration>,
    /// Whether it would be refused for ever.
    pub(super) spoils_the_request: bool,
    pub(super) outcome: Outcome,
}

/// For the connection, and for the answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// Whatever the parent says.
const LONGEST_RETRY: Duration = Duration::from_secs(600);
/// In bytes: a certificate and those above it.
const MAX_ANSWER: usize = 1 << 20;

/// The parent is the issuer of the trust domain.
pub(super) fn policy(trust_domain: &TrustDomain) -> Result<ClientPolicy, Failure> {
    let issuer = format!("{}/signet/issuer", trust_domain.id());
    Ok(ClientPolicy {
        alpn: vec![b"h2".to_vec()],
        servers: SpiffeIdPatterns::from_iter([issuer.parse().map_err(|error| Failure::from_error(&error))?]),
        credentials: ClientCredentials::Svid,
    })
}

impl Parent {
    /// Within a tokio runtime. Connects when something is asked.
    pub(super) fn new(
        options: &CaFollowOptions,
        live: &LiveIdentity,
        key: ClientKey,
        clock: &SharedClock,
    ) -> Result<Self, Failure> {
        let channel = |address: &String| {
            let endpoint = Endpoint::from_shared(format!("http://{address}"));
            let endpoint = endpoint.map_err(|_| Failure::new(format!("{address} is no host and port")))?;
            let endpoint = endpoint.connect_timeout(PATIENCE).timeout(PATIENCE);
            let channel = MtlsChannel::new(endpoint, MtlsConnector::new(live.clone(), key, clock.clone()));
            Ok((address.clone(), IdentityServiceClient::new(channel).max_decoding_message_size(MAX_ANSWER)))
        };
        Ok(Self {
            channels: options.parent.iter().map(channel).collect::<Result<_, Failure>>()?,
            profile: options.profile.clone(),
            spiffe_id: options.spiffe_id.as_ref().map(ToString::to_string).unwrap_or_default(),
        })
    }
}

impl Signer for Parent {
    async fn sign(&mut self, request_pem: &str) -> Result<Vec<Vec<u8>>, Refused> {
        let request =
            pem::parse(request_pem).map_err(|_| Refused::failed(Failure::new("the issuer's request is not PEM")))?;
        let request = CertificateRequest {
            csr: request.into_contents(),
            profile: self.profile.clone(),
            spiffe_id: self.spiffe_id.clone(),
            ttl: None,
        };
        let asked = IssueRequest { requests: vec![request] };
        let Some((address, client)) = self.channels.first_mut() else {
            return Err(Refused::failed(Failure::new("no parent is named")));
        };
        let answer = client.issue(asked).await.map_err(|status| Refused::call(address, &status));
        if answer.as_ref().is_err_and(|refused| refused.outcome == Outcome::Failed) {
            // The next attempt is another's.
            self.channels.rotate_left(1);
        }
        match answer?.into_inner().results.pop().and_then(|result| result.result) {
            Some(issue_result::Result::Certificate(svid)) => Ok(svid.chain),
            Some(issue_result::Result::Refusal(refusal)) => Err(Refused::answer(&refusal)),
            None => Err(Refused::failed(Failure::new("the parent answered nothing"))),
        }
    }
}

impl Refused {
    fn failed(failure: Failure) -> Self {
        Self { failure, retry_after: None, spoils_the_request: false, outcome: Outcome::Failed }
    }

    /// The whole call came to nothing.
    fn call(address: &str, status: &Status) -> Self {
        let message = output::harmless(status.message());
        let failure = Failure::new(format!("the parent at {address} does not answer: {message}"));
        match status.code() {
            Code::PermissionDenied | Code::Unauthenticated | Code::InvalidArgument => Self {
                failure: Failure::new(format!("the parent refused: {message}")),
                outcome: Outcome::Refused,
                ..Self::failed(failure)
            },
            _ => Self::failed(failure),
        }
    }

    fn answer(refusal: &Refusal) -> Self {
        let said = refusal.message.strip_prefix("requests[0]: ").unwrap_or(&refusal.message);
        let failure = Failure::new(format!("the parent refused: {}", output::harmless(said)));
        let code = Code::from(refusal.code);
        let failure = match code {
            Code::PermissionDenied => failure.remedy("it needs a rule of this profile for the identity that asks"),
            _ => failure,
        };
        let retry_after = refusal.retry_after.and_then(|after| Duration::try_from(after).ok());
        Self {
            failure,
            retry_after: retry_after.map(|after| after.min(LONGEST_RETRY)),
            // It names the field; what an issuer of Signet writes is in order, so that it is the key.
            spoils_the_request: code == Code::InvalidArgument && said.starts_with("csr:"),
            outcome: Outcome::Refused,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(code: Code, message: &str) -> Refused {
        Refused::answer(&Refusal { code: code.into(), message: message.to_owned(), retry_after: None })
    }

    #[test]
    fn a_request_is_given_up_where_its_key_is_refused_and_kept_where_something_else_is() {
        let certified =
            refused(Code::InvalidArgument, "requests[0]: csr: its key was certified before; make a new one");
        assert!(certified.spoils_the_request);
        for (code, message) in [
            (
                Code::InvalidArgument,
                "requests[0]: the policy gives several identities, and the request names none of them",
            ),
            (Code::PermissionDenied, "requests[0]: csr: no"),
            (Code::Unavailable, "requests[0]: no authority yet"),
        ] {
            assert!(!refused(code, message).spoils_the_request, "{message}");
        }
    }

    #[test]
    fn no_time_that_a_parent_names_is_too_long_or_does_harm() {
        let after = |seconds| {
            let retry_after = Some(prost_types::Duration { seconds, nanos: 0 });
            Refused::answer(&Refusal { code: 8, message: String::new(), retry_after }).retry_after
        };
        assert_eq!(after(3), Some(Duration::from_secs(3)));
        assert_eq!(after(i64::MAX), Some(LONGEST_RETRY));
        assert_eq!(after(-1), None);
    }
}
