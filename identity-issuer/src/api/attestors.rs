//! Each way in which a caller may prove who it is, as this issuer is configured.

use aws_lc_rs::error::Unspecified;
use signet_identity::SharedClock;
use signet_proto::identity::v1::attest_request::Proof;
use time::OffsetDateTime;

use crate::attestation::{
    Attested, Attestor as _, Challenges, Cluster, Clusters, Follower, JoinTokens, Jwks, Method, NotAttested, Provider,
    Providers, RegisteredAuthorities, Sources, TokenVerifier,
};
use crate::config::{Attestation, TokenIssuer};
use crate::metrics::Metrics;

#[derive(Debug)]
pub(crate) struct Attestors {
    join_tokens: JoinTokens,
    clusters: Clusters,
    providers: Providers,
    registered: RegisteredAuthorities,
}

impl Attestors {
    /// Beside them, what keeps their keys in step with what is published.
    pub(crate) fn new(
        configured: Attestation,
        join_tokens: JoinTokens,
        challenges: Challenges,
        metrics: &Metrics,
        clock: &SharedClock,
    ) -> (Self, Vec<Follower>) {
        let Attestation { clusters, providers, authorities } = configured;
        let mut following = Vec::new();
        let mut verifier = |issuer: &TokenIssuer, method: Method| {
            let keys = Jwks::none_yet();
            following.push(Follower {
                keys: keys.clone(),
                published: issuer.published.clone(),
                source: format!("{method} {}", issuer.name),
                read_at: metrics.token_keys_read_at(method.as_str(), &issuer.name),
                clock: clock.clone(),
            });
            let (issuer, audience) = (issuer.issuer.clone(), issuer.audience.clone());
            TokenVerifier { issuer, audience, keys, clock: clock.clone() }
        };
        let clusters = clusters.into_iter().map(|configured| Cluster {
            verifier: verifier(&configured, Method::KubernetesToken),
            name: configured.name,
            once: configured.once,
        });
        let clusters = Clusters(clusters.collect());
        let providers = providers.into_iter().map(|configured| Provider {
            verifier: verifier(&configured, Method::Oidc),
            name: configured.name,
            claims: configured.claims,
            once: configured.once,
        });
        let providers = Providers(providers.collect());
        let registered = RegisteredAuthorities { challenges, authorities, clock: clock.clone() };
        (Self { join_tokens, clusters, providers, registered }, following)
    }

    /// Those that are believed.
    pub(crate) fn sources(&self) -> Sources {
        let clusters = self.clusters.0.iter().map(|cluster| cluster.name.clone()).collect();
        let providers = self.providers.0.iter().map(|provider| provider.name.clone()).collect();
        let authorities = self.registered.authorities.iter().map(|authority| authority.name.clone()).collect();
        Sources::new([("k8s.cluster", clusters), ("oidc.provider", providers), ("x509.authority", authorities)])
    }

    pub(super) fn challenge(&self) -> Result<(Vec<u8>, OffsetDateTime), Unspecified> {
        self.registered.challenges.give()
    }

    pub(super) async fn attest(&self, proof: &Proof, csr: &[u8]) -> (Method, Result<Attested, NotAttested>) {
        match proof {
            Proof::JoinToken(token) => (Method::JoinToken, self.join_tokens.attest(token, csr).await),
            Proof::K8sSaToken(proof) => (Method::KubernetesToken, self.clusters.attest(proof, csr).await),
            Proof::Oidc(proof) => (Method::Oidc, self.providers.attest(proof, csr).await),
            Proof::X509Pop(proof) => (Method::X509Possession, self.registered.attest(proof, csr).await),
        }
    }
}
