//! Chains as a peer presents them: each certificate preceded by its length in two bytes.
//!
//! The root that is trusted signed nothing but the seeds, so whatever else is accepted is a forgery.
#![no_main]

use std::{collections::HashSet, env, fs, path::PathBuf, sync::LazyLock};

use libfuzzer_sys::fuzz_target;
use rustls_pki_types::CertificateDer;
use signet_identity::{
    ClientAuthentication, ClientCredentials, ClientKey, ClientPolicy, Material, RevocationSet, ServerKey, ServerPolicy,
    Snapshot, SystemClock, TlsPolicies, TrustBundle, X509Svid,
};

struct Verifier {
    snapshot: Snapshot,
    server: ServerKey,
    client: ClientKey,
    signed: HashSet<Vec<u8>>,
}

static VERIFIER: LazyLock<Verifier> = LazyLock::new(|| {
    let folder = PathBuf::from(env::var_os("SIGNET_FUZZ_PKI").expect("fuzz/run sets the folder of the seeds' PKI"));
    let read = |name: &str| fs::read(folder.join(name)).expect("a file of the seeds' PKI");
    let svid = X509Svid::from_pem(&read("own.pem"), &read("own.key")).unwrap();
    let bundle = TrustBundle::from_pem("example.org".parse().unwrap(), &read("root.pem")).unwrap();
    let mut policies = TlsPolicies::new(std::sync::Arc::new(SystemClock));
    let server = policies.server(ServerPolicy { alpn: Vec::new(), clients: ClientAuthentication::Optional });
    let servers = ["spiffe://example.org/**".parse().unwrap()].into_iter().collect();
    let client = policies.client(ClientPolicy { alpn: Vec::new(), servers, credentials: ClientCredentials::Svid });
    let signed = chain(&read("signed")).iter().map(|der| der.to_vec()).collect();
    let material = Material { svid, bundles: [bundle].into_iter().collect(), revocations: RevocationSet::default() };
    let snapshot = Snapshot::build(material, &policies, None).unwrap();
    Verifier { snapshot, server, client, signed }
});

fuzz_target!(|data: &[u8]| {
    let chain = chain(data);
    let verifier = &*VERIFIER;
    let client = verifier.snapshot.peer_of_server_connection(verifier.server, Some(&chain));
    let server = verifier.snapshot.peer_of_client_connection(verifier.client, Some(&chain));
    for peer in [client, server.map(Some)].into_iter().flatten().flatten() {
        assert_eq!(peer.id().trust_domain().as_str(), "example.org");
        assert!(verifier.signed.contains(&chain[0].to_vec()), "a forgery was accepted");
        assert!(peer.expires_at() <= peer.not_after());
        verifier.snapshot.still_accepts(&peer).unwrap();
    }
    let der = chain.into_iter().map(CertificateDer::into_owned).collect();
    let key = rustls_pki_types::PrivatePkcs8KeyDer::from(Vec::new()).into();
    assert!(X509Svid::from_der(der, key).is_err());
});

fn chain(mut data: &[u8]) -> Vec<CertificateDer<'_>> {
    let mut chain = Vec::new();
    while let Some((length, rest)) = data.split_at_checked(2) {
        let length = usize::from(u16::from_be_bytes([length[0], length[1]])).min(rest.len());
        let (der, rest) = rest.split_at(length);
        chain.push(der.into());
        data = rest;
    }
    chain
}
