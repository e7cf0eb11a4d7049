//! The issuer as a whole: what is started in which order, and how it ends.

mod authorities;
mod custody;
mod jwt;
mod log;
mod place;
mod record;
mod started;
mod web;

use std::fs::File;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use prometheus::Registry;
use signet_identity::{ClientAuthentication, ServerPolicy, SharedClock, TlsPolicies};
use signet_process::admin::{AdminBuilder, AdminServer, Readiness, State};
use signet_process::identity_metrics::IdentityMetrics;
use signet_process::identity_slot::IdentitySlot;
use time::OffsetDateTime;
use tokio::net::TcpSocket;
use tokio::sync::{broadcast, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::admin_socket::{AdminSocket, AdminSocketError, own_user};
use crate::administration::Administrators;
use crate::admission::Admission;
use crate::agents::Agents;
use crate::api::{AdminApi, Attestors, AuthorityCalls, IdentityApi, JwtKeyCalls};
use crate::attestation::{Challenges, JoinTokens};
use crate::audit::{AuditMetrics, Halt, LogPublisher, Refusals};
use crate::authority::{Authorities, Intake, Publication, Reach};
use crate::backup::Backups;
use crate::bundles::{self, Bundles, Shared};
use crate::certificate::issuer_id;
use crate::config::{Config, Environment, Limits};
use crate::crl::{self, Crls};
use crate::distribution::Distribution;
use crate::federation::Federation;
use crate::issuance::{Issuance, Issued, Parts};
use crate::jwt::{JwtKeys, Readers, Tokens};
use crate::lives;
use crate::metrics::{self, Metrics};
use crate::own_identity::OwnIdentity;
use crate::policy::{self, KeptPolicy, Policies};
use crate::profile::Profiles;
use crate::replicas::Replica;
use crate::revocation::{self, Revocations, Revoker};
use crate::rotation::{self, Rotations};
use crate::server::Server;
use crate::sharing::Sharing;
use crate::store::{AuditLog, Location, OpenError, STORE, Store, StoreTask};
use crate::web::{BundlePage, Door, Exchange, OidcPages, Publisher, Site};
use authorities::{first_identity, open_authorities, report_authority, request_file};
use custody::open_custodies;
use log::{open_log, published};
use place::{claim_state, holds_anything, listen, reserve};
use record::{count, sweep};
use web::WebDoors;

pub use started::{Phase, RunError, Started};
pub use web::{WebAddresses, WebError};

const AUTHORITY: &str = "authority";
const LISTENER: &str = "listener";
const RETRY: Duration = Duration::from_secs(1);
const ANNOUNCEMENTS: usize = 64;

/// Runs an issuer until `shutdown`. `started` is told once everything is in place that needs no authority.
pub async fn run(
    config: Config,
    environment: Environment,
    started: impl FnOnce(Started) + Send,
    shutdown: CancellationToken,
) -> Result<(), RunError> {
    let issuer = Issuer::start(config, environment).await?;
    let (phase, phases) = watch::channel(Phase::AwaitingIntermediate);
    started(issuer.started(phases));
    issuer.serve(phase, shutdown).await
}

/// An issuer with everything but an authority.
struct Issuer {
    config: Config,
    clock: SharedClock,
    _lock: File,
    socket: TcpSocket,
    grpc: SocketAddr,
    web: WebDoors,
    admin: AdminServer,
    admin_socket: AdminSocket,
    administrators: Administrators,
    readiness: Readiness,
    identity: IdentitySlot,
    identity_metrics: IdentityMetrics,
    metrics: Metrics,
    authorities: Authorities,
    store: Store,
    store_task: StoreTask,
    audit: LogPublisher,
    policies: Policies,
    profiles: Profiles,
    issuance: Issuance,
    jwt_keys: Option<JwtKeys>,
    federation: Federation,
    bundles: Bundles,
    shared_bundles: Shared,
    distribution: Distribution,
    revocations: Revocations,
    announce: broadcast::Sender<Issued>,
    publication: Publication,
}

impl Issuer {
    async fn start(config: Config, environment: Environment) -> Result<Self, RunError> {
        let Environment { clock, log } = environment;
        let issuer_id = issuer_id(&config.trust_domain)
            .ok_or_else(|| RunError::TrustDomain { trust_domain: config.trust_domain.clone() })?;
        let lock = claim_state(&config.state)?;
        let (socket, grpc) = reserve(config.listen)?;
        let web = WebDoors::open(&config.web)?;

        let registry = Registry::new();
        let readiness = Readiness::awaiting([AUTHORITY, STORE, LISTENER]);
        let identity = IdentitySlot::new(clock.clone());
        let profiles = Profiles::new((config.svid.ttl, config.svid.backdate), config.profiles.clone());
        let token_profiles = config.jwt.iter().flat_map(|jwt| &jwt.access_tokens);
        let profiles = profiles.with_tokens(token_profiles.map(|tokens| (tokens.profile.clone(), tokens.ttl)));
        let metrics = Metrics::register(&registry, &profiles)?;
        let identity_metrics = IdentityMetrics::register(&registry, identity.clone())?;
        let admin = AdminBuilder {
            process: "identity-issuer",
            address: config.admin,
            registry: registry.clone(),
            readiness: readiness.clone(),
            identity: identity.clone(),
            config: config.redacted.clone(),
            log,
            pages: Vec::new(),
        }
        .start()?;
        let own_user =
            own_user().map_err(|source| AdminSocketError::Io { path: config.admin_socket.clone(), source })?;
        let administrators = Administrators::new(&config.administration, own_user);
        let admin_socket = AdminSocket::bind(&config.admin_socket, administrators.has_other_users(own_user)).await?;

        let journal = config.state.join("authorities.json");
        let database = config.database.clone();
        let pending = config.limits.pending;
        // The key is made after the database: where there is a key, there is a record of what it signed.
        if let Location::File(path) = &database
            && journal.exists()
            && !holds_anything(path)
        {
            return Err(RunError::Database(OpenError::Missing { path: path.clone() }));
        }
        let custodies = open_custodies(&config).await?;
        let audit_metrics = AuditMetrics::register(&registry)?;
        let audit = open_log(&config, custodies.log).await?;
        let published = published(&config, &audit).await?;
        let (key, follows) = (audit.verifier.clone(), audit.follows());
        let log = AuditLog { key, published, follows, metrics: audit_metrics.clone() };
        let opening = Store::open(&database, &config.trust_domain, log, pending, clock.clone(), readiness.clone());
        let (store, store_task) = opening.await?;
        audit.goes_on()?;
        store.begin_log(&config.trust_domain, audit.previous.clone()).await.map_err(RunError::Records)?;
        let audit = LogPublisher::new(
            audit,
            store.clone(),
            audit_metrics.clone(),
            Halt::new(audit_metrics, readiness.clone()),
            clock.clone(),
        );
        let protected = administrators.identities().cloned().collect();
        let bundles = Bundles::new(config.bundle_files().map(|file| file.bundle.clone()).collect());
        let kept = KeptPolicy::at(config.state.join("policy.json"));
        let (policies, refused) = Policies::load(policy::Parts {
            trust_domain: config.trust_domain.clone(),
            protected,
            profiles: profiles.clone(),
            bundles: bundles.in_force(),
            kept: kept.clone(),
            most_lost_percent: config.limits.lost_rules_percent,
            store: store.clone(),
            clock: clock.clone(),
        })
        .await?;
        if let Some(refused) = refused {
            let (cause, path) = (signet_process::start::Report::of(&refused).cause, kept.path().display());
            tracing::error!(
                cause,
                "the policy on record is not put in force; the last good one stays. To take up what is on record all the same, remove {path} and start again"
            );
            metrics.policy_refused(true);
        }
        let own_bundle = bundles.own().borrow().get(&config.trust_domain).cloned();
        let authorities =
            open_authorities(&config, custodies.authorities, (journal, store.outbox()), own_bundle, clock.clone())
                .await?;
        metrics::register_authorities(&registry, authorities.clone())?;
        let own = config.bundle_files().enumerate().map(|(index, file)| match index {
            0 => authorities.trusted(&file.bundle),
            _ => file.bundle.clone(),
        });
        let federation = Federation::open(
            config.trust_domain.clone(),
            config.federation.iter().map(|file| file.bundle.trust_domain().clone()).collect(),
            config.federated_endpoints.iter().map(|endpoint| endpoint.relationship.clone()).collect(),
            config.state.join("federation"),
            bundles.clone(),
            metrics.clone(),
            clock.clone(),
        );
        let federated = federation.in_force().borrow().clone();
        // Nobody else has said anything yet.
        let _ = bundles.set_own(own.chain(federated.iter().cloned()).collect());
        let jwt_keys =
            jwt::open_keys(&config, custodies.tokens, store.outbox(), metrics.clone(), clock.clone()).await?;
        if let Some(keys) = &jwt_keys {
            keys.tell(&bundles, &config.trust_domain);
        }
        let announce = broadcast::Sender::new(ANNOUNCEMENTS);
        let issuance = Issuance::new(Parts {
            issuer: issuer_id,
            authorities: authorities.clone(),
            crl_points: config.crl.points.clone(),
            store: store.clone(),
            clock: clock.clone(),
            metrics: metrics.clone(),
            announce: announce.clone(),
            refusals: Refusals::new(store.outbox()),
        });
        let publication = Publication::new();
        let Limits { watchers, watchers_per_identity, .. } = config.limits;
        let distribution = Distribution::new((bundles.clone(), publication.clone()), watchers, watchers_per_identity);
        let distribution = if store.is_shared() { distribution.shared() } else { distribution };
        let asked = store.renewal_requests(OffsetDateTime::UNIX_EPOCH).await.map_err(RunError::Records)?;
        for request in &asked {
            distribution.request_renewal(request);
        }
        let revocations = Revocations::load(
            config.trust_domain.clone(),
            store.clone(),
            authorities.clone(),
            distribution.clone(),
            clock.clone(),
            &metrics,
        );
        let revocations = revocations.await.map_err(RunError::Records)?;
        let shared_bundles = Shared::new(
            bundles.clone(),
            config.trust_domain.clone(),
            store.clone(),
            (authorities.clone(), publication.clone()),
            revocations.clone(),
            metrics.clone(),
            clock.clone(),
        );
        // Without them, whoever is served by this issuer would refuse those who are served by the others.
        shared_bundles.catch_up().await.map_err(RunError::Records)?;
        Ok(Self {
            config,
            clock,
            _lock: lock,
            socket,
            grpc,
            web,
            admin,
            admin_socket,
            administrators,
            readiness,
            identity,
            identity_metrics,
            metrics,
            authorities,
            store,
            store_task,
            audit,
            policies,
            profiles,
            issuance,
            jwt_keys,
            federation,
            bundles,
            shared_bundles,
            distribution,
            revocations,
            announce,
            publication,
        })
    }

    fn started(&self, phase: watch::Receiver<Phase>) -> Started {
        Started {
            grpc: self.grpc,
            admin: self.admin.address(),
            web: self.web.addresses,
            admin_socket: self.config.admin_socket.clone(),
            certificate_request: request_file(&self.config),
            certificate: self.config.authority.certificate.clone(),
            requests: self.authorities.requests(),
            trusted: self.bundles.own(),
            authority: self.authorities.state(),
            phase,
            issued: self.announce.subscribe(),
        }
    }

    /// Waits for an authority, then serves; ends everything in the reverse order once `shutdown` comes.
    async fn serve(self, phase: watch::Sender<Phase>, shutdown: CancellationToken) -> Result<(), RunError> {
        let bundle_files: Vec<_> = self.config.bundle_files().cloned().collect();
        let request = request_file(&self.config);
        let secrets = self.config.secret_files();
        let join_tokens = JoinTokens::new(self.store.clone(), self.clock.clone());
        let mut background = JoinSet::new();
        let challenges = Challenges::new(self.clock.clone()).map_err(|_| RunError::Randomness)?;
        let (attestors, following) =
            Attestors::new(self.config.attestation, join_tokens.clone(), challenges, &self.metrics, &self.clock);
        following.into_iter().for_each(|follower| until(&shutdown, &mut background, follower.run()));
        let agents = Agents {
            store: self.store.clone(),
            distribution: self.distribution.clone(),
            sources: attestors.sources(),
            clock: self.clock.clone(),
        };
        let revoker = Revoker {
            trust_domain: self.config.trust_domain.clone(),
            store: self.store.clone(),
            revocations: self.revocations.clone(),
            distribution: self.distribution.clone(),
            authorities: self.authorities.clone(),
            bundles: self.shared_bundles.clone(),
            clock: self.clock.clone(),
        };
        until(&shutdown, &mut background, self.revocations.clone().run());
        until(&shutdown, &mut background, revoker.clone().follow_authorities());
        let limits = &self.config.limits;
        let admission =
            Admission::new(limits.renewals_per_minute, limits.attestations_per_minute, self.metrics.clone());
        let rotations = Rotations::new(rotation::Parts {
            trust_domain: self.config.trust_domain.clone(),
            authorities: self.authorities.clone(),
            publication: self.publication,
            bundles: self.bundles.clone(),
            shared: self.shared_bundles.clone(),
            distribution: self.distribution.clone(),
            store: self.store.clone(),
            patience: self.config.authority.patience,
            clock: self.clock.clone(),
            unneeded: Mutex::default(),
            began: tokio::time::Instant::now(),
            resumes: self.authorities.rotation().is_some(),
        });
        let readers = Readers {
            trust_domain: self.config.trust_domain.clone(),
            distribution: self.distribution.clone(),
            store: self.store.clone(),
            shared: self.shared_bundles.clone(),
            patience: self.config.authority.patience,
            began: (tokio::time::Instant::now(), self.clock.now()),
            clock: self.clock.clone(),
        };
        let backups = Backups::new(
            (self.config.state.clone(), secrets),
            self.config.trust_domain.clone(),
            self.audit.place().clone(),
            self.store.clone(),
            self.clock.clone(),
        );
        let reports = self.audit.reports();
        let admin = Arc::new(AdminApi {
            backups,
            reports: reports.clone(),
            trust_domain: self.config.trust_domain.clone(),
            administrators: self.administrators.clone(),
            join_tokens: join_tokens.clone(),
            authorities: AuthorityCalls {
                rotations: rotations.clone(),
                policies: self.policies.clone(),
                store: self.store.clone(),
                trust_domain: self.config.trust_domain.clone(),
            },
            jwt_keys: JwtKeyCalls {
                keys: self.jwt_keys.clone(),
                bundles: self.bundles.clone(),
                readers: readers.clone(),
            },
            distribution: self.distribution.clone(),
            policies: self.policies.clone(),
            agents: agents.clone(),
            revoker,
            bundles: self.shared_bundles.clone(),
            federation: self.federation.clone(),
            admission: admission.clone(),
            store: self.store.clone(),
            clock: self.clock.clone(),
        })
        .guarded();
        let admin_routes = AdminApi::routes(admin.clone()).await?;
        let replica = Replica {
            store: self.store.clone(),
            policies: self.policies.clone(),
            distribution: self.distribution.clone(),
            bundles: self.shared_bundles.clone(),
            revocations: self.revocations.clone(),
            metrics: self.metrics.clone(),
            clock: self.clock.clone(),
        };
        until(&shutdown, &mut background, replica.run());
        let sharing = Sharing {
            store: self.store.clone(),
            distribution: self.distribution.clone(),
            bundles: self.shared_bundles.clone(),
        };
        until(&shutdown, &mut background, sharing.clone().run());
        let following = bundles::Follower::new(
            self.bundles.clone(),
            self.shared_bundles,
            bundle_files,
            (self.authorities.clone(), self.config.authority.certificate.clone()),
            self.federation.in_force(),
            self.metrics.clone(),
            self.clock.clone(),
        );
        let tokens = self.config.jwt.as_ref().zip(self.jwt_keys.clone()).map(|(jwt, keys)| Tokens {
            keys,
            issuer: jwt.oidc.as_ref().map(|oidc| oidc.issuer.clone()),
            longest: jwt.ttl,
            access_audiences: Arc::new(jwt.access_tokens.iter().flat_map(|tokens| tokens.audiences.clone()).collect()),
            store: self.store.clone(),
            metrics: self.metrics.clone(),
            clock: self.clock.clone(),
        });
        let exchange = self.config.jwt.as_ref().zip(tokens.clone()).filter(|(jwt, _)| !jwt.access_tokens.is_empty());
        let refusals = Refusals::new(self.store.outbox());
        let exchange = exchange.map(|(jwt, tokens)| Exchange {
            trust_domain: self.config.trust_domain.clone(),
            issuer: self.issuance.issuer().clone(),
            profiles: jwt.access_tokens.clone().into(),
            tokens,
            keys: self.bundles.jwt_in_force(),
            agents: agents.clone(),
            policies: self.policies.clone(),
            admission: admission.clone(),
            refusals: refusals.clone(),
            clock: self.clock.clone(),
        });
        let page = BundlePage::default();
        let oidc = self.config.jwt.as_ref().and_then(|jwt| jwt.oidc.clone()).map(OidcPages::new);
        let publisher = Publisher {
            trust_domain: self.config.trust_domain.clone(),
            bundles: self.bundles.clone(),
            store: self.store.clone(),
            refresh_hint: self.config.web.refresh_hint,
            page: page.clone(),
            oidc: oidc.clone(),
        };
        until(&shutdown, &mut background, publisher.run());
        let crls = Crls::new(crl::Parts {
            revocations: self.revocations.clone(),
            authorities: self.authorities.clone(),
            store: self.store.clone(),
            points: self.config.crl.points.clone(),
            life: self.config.crl.life,
            most_entries: revocation::MOST,
            metrics: self.metrics.clone(),
            clock: self.clock.clone(),
        });
        until(&shutdown, &mut background, crls.clone().run());
        if let Some(to) = self.config.crl.export.clone() {
            until(&shutdown, &mut background, crl::export(crls.clone(), to));
        }
        let (audit, log_proofs) = (self.audit.files(), self.audit.proofs());
        let config = (&self.config.audit, &*self.config.state);
        log::tend(self.audit, reports, config, &shutdown, &mut background);
        let site = Site { bundle: page, oidc, exchange, crls, audit, metrics: self.metrics.clone() };
        let web = crate::web::Server::new(site, self.config.web.connections, self.config.drain);
        let spiffe_door = self.web.serve(&web, &mut background, &shutdown);
        until(&shutdown, &mut background, self.policies.clone().tell_of_ends());
        let cut = lives::watch(self.authorities.clone(), self.policies.clone(), self.metrics.clone());
        until(&shutdown, &mut background, cut);
        until(&shutdown, &mut background, following.run());
        until(&shutdown, &mut background, self.federation.run());
        if let Some(keys) = self.jwt_keys {
            until(&shutdown, &mut background, keys.clone().follow(readers));
            until(&shutdown, &mut background, jwt::heed(keys.clone(), self.bundles.clone()));
            let publish = jwt::publish_keys(keys, self.bundles.clone(), self.config.trust_domain.clone());
            until(&shutdown, &mut background, publish);
        }
        let routes = IdentityApi {
            attestors,
            agents,
            policies: self.policies,
            issuance: self.issuance.clone(),
            tokens,
            distribution: self.distribution.clone(),
            revocations: self.revocations.clone(),
            metrics: self.metrics.clone(),
            clock: self.clock.clone(),
            admission,
            longest_wait: self.config.limits.request_timeout * 4 / 5,
            refusals,
            log_proofs,
        }
        .into_routes(admin)
        .await?;

        background.spawn(self.admin_socket.serve(
            admin_routes,
            self.administrators,
            self.config.limits,
            (shutdown.clone(), self.config.drain),
        ));
        let intake = Intake {
            authorities: self.authorities.clone(),
            request,
            certificate: self.config.authority.certificate,
            trust_domain: self.config.trust_domain,
            bundles: self.bundles.own(),
        };
        until(&shutdown, &mut background, intake.run());
        until(&shutdown, &mut background, rotations.run());
        until(&shutdown, &mut background, report_authority(self.authorities.clone(), self.readiness.clone()));
        let reach = Reach::of(self.authorities.clone(), self.readiness.clone(), self.metrics.clone());
        until(&shutdown, &mut background, reach.run());
        until(&shutdown, &mut background, count(self.store.clone(), self.metrics.clone(), self.clock.clone()));
        until(&shutdown, &mut background, sweep(self.store.clone(), self.config.inventory.keep_expired));

        let mut policies = TlsPolicies::new(self.clock.clone());
        let server_key =
            policies.server(ServerPolicy { alpn: vec![b"h2".to_vec()], clients: ClientAuthentication::Optional });
        let web_key = policies.server(ServerPolicy {
            alpn: vec![b"h2".to_vec(), b"http/1.1".to_vec()],
            clients: ClientAuthentication::Optional,
        });
        let own = OwnIdentity::new(
            self.issuance,
            self.profiles.workload(),
            self.bundles.in_force(),
            policies,
            self.revocations,
            self.identity_metrics,
            self.clock.clone(),
        );
        self.readiness.set(LISTENER, State::NotReady { reason: "waits for an authority".to_owned() });
        let first = first_identity(&own, &self.authorities, &self.readiness);
        if let Some((publisher, live)) = shutdown.run_until_cancelled(first).await {
            self.identity.fill(live.clone());
            until(&shutdown, &mut background, own.keep_fresh(publisher));
            if let Some(listener) = spiffe_door {
                let door = Door::Svid { live: live.clone(), key: web_key };
                background.spawn(web.serve(listener, door, shutdown.clone()));
            }
            let listener = listen(self.socket, self.grpc)?;
            self.readiness.set(LISTENER, State::Ready);
            phase.send_replace(Phase::Serving);
            tracing::info!(address = %self.grpc, "serving");
            let server =
                Server::new(live, server_key, routes, self.config.limits, self.config.drain, self.metrics, self.clock);
            server.serve(listener, shutdown).await;
        }

        while let Some(ended) = background.join_next().await {
            if let Err(error) = ended {
                tracing::error!(%error, "a task ended abnormally");
            }
        }
        sharing.end().await;
        self.store_task.finish().await;
        // It waits for its thread.
        let admin = self.admin;
        tokio::task::spawn_blocking(move || admin.stop()).await?;
        Ok(())
    }
}

fn until(shutdown: &CancellationToken, background: &mut JoinSet<()>, work: impl Future<Output = ()> + Send + 'static) {
    let shutdown = shutdown.clone();
    background.spawn(async move {
        // None: it was cancelled, as all work is in the end.
        let _ = shutdown.run_until_cancelled(work).await;
    });
}
