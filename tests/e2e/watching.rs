//! Clients that hold a Watch stream and read nothing of it, while all that they are to be told of changes.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::fs;
use std::path::Path;
use std::time::Duration;

use hyper_util::rt::TokioIo;
use serde_json::json;
use signet_proto::admin::v1::admin_service_client::AdminServiceClient;
use signet_proto::admin::v1::{ApplyPolicyRequest, PolicyFile};
use signet_proto::identity::v1::identity_service_client::IdentityServiceClient;
use signet_proto::identity::v1::watch_response::Event;
use signet_proto::identity::v1::{Entitlements, Resource, TrustBundles, WatchRequest, WatchResponse};
use signet_test_pki::{Authority, pem};
use signet_tests::files::replace;
use signet_tests::tokens::{PROVIDER, TokenMaker, proof};
use signet_tests::workload::{Svid, channel_of};
use signet_tests::{Issuer, Process, Workload, millis, secs};
use tempfile::TempDir;
use tokio::net::UnixStream;
use tokio::time::{Instant, timeout};
use tonic::Streaming;
use tonic::transport::{Channel, Endpoint};

/// Of one identity, each attested by itself, and streams of each: none may have many.
const WORKLOADS: usize = 4;
const STREAMS: usize = 5;
const CHANGES: usize = 1000;
/// After so many, whatever is kept of the latest few is there.
const WARM_UP: usize = 200;
/// In bytes. So many changes cost two thirds of it where nobody watches.
const MOST_GROWTH: u64 = 24 << 20;

#[test]
fn who_reads_nothing_costs_no_memory_and_comes_to_the_latest_state_when_it_reads() {
    let folder = TempDir::new().unwrap();
    let partner = folder.path().join("partner.pem");
    let roots: Vec<_> = (0..12).map(|_| pem("CERTIFICATE", Authority::root("partner.example").certificate())).collect();
    fs::write(&partner, roots.concat()).unwrap();
    let maker = TokenMaker::at(folder.path());
    let configuration = format!("{PROVIDER}federation: [{{ trust_domain: partner.example, bundle: partner.pem }}]\n");
    let issuer = Issuer::start_with(folder.path(), "example.org", secs(3600), &configuration);
    issuer.apply(&rules(0));
    let attest = || {
        let token = maker.token("slow", json!({}));
        Workload::of(issuer.address).prove(|_| proof(&token)).unwrap().clone()
    };
    let svids: Vec<_> = (0..WORKLOADS).map(|_| attest()).collect();

    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    runtime.block_on(async {
        let mut unread = Vec::new();
        for svid in svids.iter().flat_map(|svid| [svid; STREAMS]) {
            unread.push(watch(svid, &issuer).await);
        }
        let mut admin = operator(&issuer.socket).await;
        let mut resident = 0;
        for number in 1..=WARM_UP + CHANGES {
            apply(&mut admin, rules(number)).await;
            // One certificate less, one more.
            replace(&partner, &roots[..roots.len() - number % 2].concat());
            if number == WARM_UP {
                resident = resident_bytes(&issuer.process);
            }
        }
        let after = resident_bytes(&issuer.process);
        println!("{} KiB before, {} KiB after {CHANGES} changes", resident >> 10, after >> 10);
        assert!(after < resident + MOST_GROWTH, "from {resident} bytes to {after}");
        assert!(issuer.admin.sum("signet_issuer_connected_clients", &[]) >= unread.len() as f64);

        // The file may be looked at a moment later.
        let deadline = Instant::now() + secs(20);
        let latest = loop {
            let state = State::of(&mut watch(&svids[0], &issuer).await, State::is_whole).await;
            if state.authorities() == roots.len() {
                break state;
            }
            assert!(Instant::now() < deadline, "{} authorities", state.authorities());
            tokio::time::sleep(millis(100)).await;
        };
        let kept = (CHANGES * WORKLOADS * STREAMS * latest.offered_bytes()) as u64;
        assert!(kept > 2 * MOST_GROWTH, "were all kept that they were not told, {kept} bytes would not show");
        assert_eq!(latest.hints(), [format!("round-{}", WARM_UP + CHANGES)]);
        for stream in &mut unread {
            let mut state = State::of(stream, |state| state.versions() == latest.versions()).await;
            assert!(state.messages < CHANGES / 10, "{} messages were kept", state.messages);
            while let Ok(message) = timeout(millis(200), stream.message()).await {
                state.hear(message.unwrap().unwrap());
            }
            assert_eq!((state.bundles, state.entitlements), (latest.bundles.clone(), latest.entitlements.clone()));
        }
        // They are told of the next one as before.
        apply(&mut admin, rules(0)).await;
        for stream in &mut unread {
            State::of(stream, |state| state.hints() == ["round-0"]).await;
        }
    });
}

/// What a client knows that has read some messages.
#[derive(Default)]
struct State {
    bundles: Option<TrustBundles>,
    entitlements: Option<Entitlements>,
    messages: usize,
}

impl State {
    /// Reads until it is `complete`.
    async fn of(stream: &mut Streaming<WatchResponse>, complete: impl Fn(&Self) -> bool) -> Self {
        let (mut state, deadline) = (Self::default(), Instant::now() + secs(20));
        while !complete(&state) {
            let message = tokio::time::timeout_at(deadline, stream.message()).await;
            state.hear(message.expect("the latest state in time").unwrap().expect("no end"));
        }
        state
    }

    fn hear(&mut self, message: WatchResponse) {
        self.messages += 1;
        match message.event.unwrap() {
            Event::Bundles(bundles) => self.bundles = Some(bundles),
            Event::Entitlements(entitlements) => self.entitlements = Some(entitlements),
            Event::Entitlement(_) | Event::RenewNow(_) | Event::Revocations(_) | Event::Authorities(_) => {}
        }
    }

    fn is_whole(&self) -> bool {
        self.bundles.is_some() && self.entitlements.is_some()
    }

    fn versions(&self) -> [Option<&[u8]>; 2] {
        [
            self.bundles.as_ref().map(|bundles| &bundles.version[..]),
            self.entitlements.as_ref().map(|entitlements| &entitlements.version[..]),
        ]
    }

    /// Of the partner.
    fn authorities(&self) -> usize {
        let bundles = self.bundles.iter().flat_map(|bundles| &bundles.bundles);
        bundles.filter(|one| one.trust_domain == "partner.example").map(|one| one.x509_authorities.len()).sum()
    }

    fn offered_bytes(&self) -> usize {
        let offers = self.entitlements.iter().flat_map(|entitlements| &entitlements.offers);
        offers.map(|offer| offer.spiffe_id.len() + offer.profile.len() + offer.hint.len() + offer.version.len()).sum()
    }

    /// Of all that it may have beside its identity.
    fn hints(&self) -> Vec<String> {
        let offers = self.entitlements.iter().flat_map(|entitlements| &entitlements.offers);
        let mut hints: Vec<_> = offers.map(|offer| offer.hint.clone()).filter(|hint| !hint.is_empty()).collect();
        hints.dedup();
        hints
    }
}

/// Of fifty certificates beside one's identity, each another one in each round.
fn rules(round: usize) -> String {
    let own = "  - { name: own, match: { oidc.subject: slow }, \
               spiffe_id: spiffe://example.org/client/slow, federates_with: [partner.example] }\n";
    let beside = (0..50).map(|number| {
        format!(
            "  - {{ name: beside-{number}, match: {{ svid.spiffe_id: 'spiffe://example.org/client/*' }}, \
             spiffe_id: spiffe://example.org/beside/{number}, profile: tls-client, hint: round-{round} }}\n"
        )
    });
    format!("rules:\n{own}{}", beside.collect::<String>())
}

async fn watch(svid: &Svid, issuer: &Issuer) -> Streaming<WatchResponse> {
    let mut client = IdentityServiceClient::new(channel_of(svid, issuer.address).await.unwrap());
    let also = vec![Resource::Entitlements.into()];
    let said = tokio_stream::once(WatchRequest { also, ..WatchRequest::default() });
    client.watch(said).await.unwrap().into_inner()
}

async fn operator(socket: &Path) -> AdminServiceClient<Channel> {
    let socket = socket.to_owned();
    let connect = tower::service_fn(move |_: http::Uri| {
        let socket = socket.clone();
        async move { UnixStream::connect(socket).await.map(TokioIo::new) }
    });
    AdminServiceClient::new(Endpoint::from_static("http://issuer").connect_with_connector(connect).await.unwrap())
}

async fn apply(admin: &mut AdminServiceClient<Channel>, text: String) {
    let files = vec![PolicyFile { name: "rules.yaml".to_owned(), text }];
    let request = ApplyPolicyRequest { files, prune: true, ..ApplyPolicyRequest::default() };
    let applied = timeout(Duration::from_secs(10), admin.apply_policy(request)).await;
    applied.expect("an answer in time").unwrap();
}

fn resident_bytes(process: &Process) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", process.pid())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim_end_matches("kB").trim().parse::<u64>().unwrap() << 10
}
