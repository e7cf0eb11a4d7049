//! `k8s_sa_token`: a projected service-account token of a Kubernetes pod.
//!
//! The kubelet puts it into the pod for an audience of ours, and the cluster's API server signed it. It says which pod of which
//! service account on which node it was made for (Kubernetes, "Managing Service Accounts", bound tokens).

use serde::Deserialize;
use serde_json::Value;
use signet_policy::{AttributeName, Attributes, AttributesError};

use super::jwt::{TokenError, TokenVerifier};
use super::{Attested, Attestor, Evidence, Method, NotAttested, Subject, named};

/// Whose tokens are believed.
#[derive(Clone, Debug, Default)]
pub(crate) struct Clusters(pub(crate) Vec<Cluster>);

#[derive(Clone, Debug)]
pub(crate) struct Cluster {
    pub(crate) name: String,
    pub(crate) verifier: TokenVerifier,
    /// Whether a token is good for one certificate, or until it expires.
    pub(crate) once: bool,
}

/// The private claim `kubernetes.io`.
#[derive(Debug, Deserialize)]
struct Binding {
    namespace: String,
    serviceaccount: Object,
    pod: Option<Object>,
    node: Option<Object>,
}

#[derive(Debug, Deserialize)]
struct Object {
    name: String,
    uid: Option<String>,
}

impl Attestor for Clusters {
    type Proof = signet_proto::identity::v1::KubernetesToken;

    async fn attest(&self, proof: &Self::Proof, _: &[u8]) -> Result<Attested, NotAttested> {
        let cluster = named(&self.0, |cluster| &cluster.name, &proof.cluster, "cluster")?;
        let (mut claims, hash) = cluster.verifier.verify(&proof.token)?;
        let binding = claims.all.remove("kubernetes.io").ok_or(TokenError::Claim { claim: "kubernetes.io" })?;
        let attributes = attributes_of(&cluster.name, binding, &claims.subject)?;
        Ok(Attested {
            shown: None,
            subject: Subject::Proved(attributes),
            evidence: Evidence::Proof {
                method: Method::KubernetesToken,
                hash,
                once_until: cluster.once.then_some(claims.expires_at),
            },
        })
    }
}

pub(super) fn attributes_of(cluster: &str, binding: Value, subject: &str) -> Result<Attributes, NotAttested> {
    let wrong = TokenError::Claim { claim: "kubernetes.io" };
    let Ok(binding) = serde_json::from_value::<Binding>(binding) else { return Err(wrong.into()) };
    let Binding { namespace, serviceaccount, pod, node } = binding;
    if subject != format!("system:serviceaccount:{namespace}:{}", serviceaccount.name) {
        return Err(TokenError::Claim { claim: "sub" }.into());
    }
    // A token of a service account alone, made for use outside of the cluster, proves no workload.
    let pod = pod.ok_or(TokenError::NoPod)?;
    let pod_uid = pod.uid.ok_or(TokenError::NoPod)?;
    let node = node.map(|node| ("k8s.node", node.name));
    let proved = [
        ("k8s.cluster", cluster.to_owned()),
        ("k8s.namespace", namespace),
        ("k8s.service_account", serviceaccount.name),
        ("k8s.pod", pod.name),
        ("k8s.pod_uid", pod_uid),
    ];
    let pairs = proved.into_iter().chain(node).filter_map(|(name, value)| {
        // All of the list that the policy knows.
        Some((name.parse::<AttributeName>().ok()?, value))
    });
    Attributes::new(pairs).map_err(|error: AttributesError| error.into())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::json;
    use signet_proto::identity::v1::KubernetesToken;

    use super::super::jwt::tests::Signer;
    use super::*;

    fn clusters(signer: &Signer, once: bool) -> Clusters {
        Clusters(vec![Cluster { name: "prod".to_owned(), verifier: signer.verifier(), once }])
    }

    fn binding() -> Value {
        json!({
            "namespace": "shop",
            "serviceaccount": {"name": "cart", "uid": "u1"},
            "pod": {"name": "cart-0", "uid": "u2"},
            "node": {"name": "node-1", "uid": "u3"},
            "warnafter": 1,
        })
    }

    fn token(signer: &Signer, binding: Value, subject: &str) -> String {
        signer.sign(&signer.claims(json!({"sub": subject, "kubernetes.io": binding})))
    }

    async fn attest(clusters: &Clusters, token: String) -> Result<Attested, NotAttested> {
        clusters.attest(&KubernetesToken { cluster: "prod".to_owned(), token }, &[]).await
    }

    const SUBJECT: &str = "system:serviceaccount:shop:cart";

    #[tokio::test]
    async fn a_pod_is_what_its_token_says() {
        let signer = Signer::new();
        let attested = attest(&clusters(&signer, true), token(&signer, binding(), SUBJECT)).await.unwrap();
        let Subject::Proved(attributes) = attested.subject else { unreachable!() };
        let told: Vec<_> = attributes.iter().map(|(name, value)| format!("{name}={value}")).collect();
        assert_eq!(
            told,
            [
                "k8s.cluster=prod",
                "k8s.namespace=shop",
                "k8s.node=node-1",
                "k8s.pod=cart-0",
                "k8s.pod_uid=u2",
                "k8s.service_account=cart"
            ]
        );
        let Evidence::Proof { once_until: Some(until), .. } = attested.evidence else { unreachable!() };
        assert_eq!(until.unix_timestamp(), 1_800_000_060);
    }

    #[tokio::test]
    async fn a_token_may_be_good_until_it_expires() {
        let signer = Signer::new();
        let attested = attest(&clusters(&signer, false), token(&signer, binding(), SUBJECT)).await.unwrap();
        assert!(matches!(attested.evidence, Evidence::Proof { once_until: None, .. }));
    }

    #[tokio::test]
    async fn a_token_of_no_pod_or_of_two_minds_is_refused() {
        let signer = Signer::new();
        let clusters = clusters(&signer, true);
        let without = |key: &str| {
            let mut binding = binding();
            binding.as_object_mut().unwrap().remove(key);
            binding
        };
        for (binding, subject) in [
            (without("pod"), SUBJECT),
            (without("namespace"), SUBJECT),
            (without("serviceaccount"), SUBJECT),
            (json!("shop"), SUBJECT),
            (binding(), "system:serviceaccount:shop:admin"),
            (binding(), "system:serviceaccount:other:cart"),
            (binding(), "cart"),
        ] {
            attest(&clusters, token(&signer, binding, subject)).await.unwrap_err();
        }
        attest(&clusters, token(&signer, without("node"), SUBJECT)).await.unwrap();
        attest(&clusters, signer.sign(&signer.claims(json!({"sub": SUBJECT})))).await.unwrap_err();
    }

    #[tokio::test]
    async fn a_name_of_kilobytes_is_no_attribute() {
        let signer = Signer::new();
        let mut long = binding();
        long["pod"]["name"] = json!("a".repeat(2000));
        let refused = attest(&clusters(&signer, true), token(&signer, long, SUBJECT)).await.unwrap_err();
        assert_eq!(refused.reason(), "attributes");
    }
}
