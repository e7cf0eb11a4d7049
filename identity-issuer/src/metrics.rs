//! The issuer's metrics. Those that follow from state are read when they are scraped.

use std::fmt;
use std::sync::Mutex;
use std::time::Duration;

use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{GaugeVec, Histogram, HistogramOpts, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry};
use time::OffsetDateTime;

use crate::admission::Limit;
use crate::authority::Authorities;
use crate::profile::Profiles;
use crate::store::{Counts, HORIZONS};

#[derive(Clone)]
pub(crate) struct Metrics {
    issued: IntCounterVec,
    issue_duration: Histogram,
    identities: IntGaugeVec,
    identities_ending: IntGaugeVec,
    connections: IntGauge,
    connections_refused: IntCounterVec,
    connected_clients: IntGauge,
    attestations_refused: IntCounterVec,
    token_keys_read_at: IntGaugeVec,
    policy_refused: IntGauge,
    keys_out_of_reach: IntGauge,
    bundles_refused: IntGaugeVec,
    shed: IntCounterVec,
    revocations_ahead: IntGauge,
    crl_next_update: IntGaugeVec,
    crl_failures: IntCounterVec,
    web_requests: IntCounterVec,
    bundle_refreshed_at: IntGaugeVec,
    federation_refused: IntGaugeVec,
    jwts: IntCounterVec,
    jwt_key_expires_at: IntGauge,
    jwt_keys: IntGaugeVec,
    lives_cut: IntGauge,
}

/// How one request for a certificate ended.
#[derive(Copy, Clone, Debug, Eq, PartialEq)]
pub(crate) enum IssueResult {
    Issued,
    /// The caller's fault.
    Refused,
    /// Ours.
    Failed,
    /// Too many at once.
    Shed,
}

impl Metrics {
    pub(crate) fn register(registry: &Registry, profiles: &Profiles) -> Result<Self, prometheus::Error> {
        let counters = |name: &str, help: &str, labels: &[&str]| {
            let counters = IntCounterVec::new(Opts::new(name, help), labels)?;
            registry.register(Box::new(counters.clone()))?;
            Ok::<_, prometheus::Error>(counters)
        };
        let gauge = |name: &str, help: &str| {
            let gauge = IntGauge::new(name, help)?;
            registry.register(Box::new(gauge.clone()))?;
            Ok::<_, prometheus::Error>(gauge)
        };
        let issued = counters(
            "signet_issuer_issued_total",
            "Requests for certificates, by profile and by how they ended.",
            &["profile", "result"],
        )?;
        for (profile, result) in profiles.names().flat_map(|name| IssueResult::ALL.map(|result| (name, result))) {
            issued.with_label_values(&[profile, result.label()]);
        }
        let issue_duration = Histogram::with_opts(
            HistogramOpts::new(
                "signet_issuer_issue_duration_seconds",
                "From an attested request to its certificate's durable record.",
            )
            .buckets(vec![0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0]),
        )?;
        registry.register(Box::new(issue_duration.clone()))?;
        let identities = IntGaugeVec::new(
            Opts::new(
                "signet_issuer_identities",
                "Certificates on record: valid, expiring (past 70 % of their life), revoked (and not expired) or expired.",
            ),
            &["state"],
        )?;
        registry.register(Box::new(identities.clone()))?;
        let identities_ending = IntGaugeVec::new(
            Opts::new(
                "signet_issuer_identities_ending",
                "Certificates on record that have not expired and will within this time, those of shorter times included.",
            ),
            &["within"],
        )?;
        registry.register(Box::new(identities_ending.clone()))?;
        let token_keys_read_at = IntGaugeVec::new(
            Opts::new(
                "signet_issuer_token_keys_read_timestamp_seconds",
                "When the keys of an issuer of tokens were last seen to be those it publishes, in Unix time; 0 for never.",
            ),
            &["attestation", "source"],
        )?;
        registry.register(Box::new(token_keys_read_at.clone()))?;
        let bundles_refused = IntGaugeVec::new(
            Opts::new(
                "signet_issuer_bundles_refused",
                "1 while trust bundles of this issuer's files, or of the record, are not put in force, and the last good ones stay.",
            ),
            &["source"],
        )?;
        registry.register(Box::new(bundles_refused.clone()))?;
        let bundle_refreshed_at = IntGaugeVec::new(
            Opts::new(
                "signet_bundle_refreshed_timestamp_seconds",
                "When the bundle of a federated trust domain was last fetched and taken, in Unix time.",
            ),
            &["trust_domain"],
        )?;
        registry.register(Box::new(bundle_refreshed_at.clone()))?;
        let federation_refused = IntGaugeVec::new(
            Opts::new(
                "signet_issuer_federation_refused",
                "1 while the bundle of a federated trust domain cannot be fetched or taken, and the last good one stays.",
            ),
            &["trust_domain"],
        )?;
        registry.register(Box::new(federation_refused.clone()))?;
        let crl_next_update = IntGaugeVec::new(
            Opts::new(
                "signet_issuer_crl_next_update_timestamp_seconds",
                "Until when the CRL of an authority, or a part of it, is good, in Unix time.",
            ),
            &["authority", "shard"],
        )?;
        registry.register(Box::new(crl_next_update.clone()))?;
        let crl_failures = counters(
            "signet_issuer_crl_failures_total",
            "CRLs that were not signed, or not exported, and are tried again.",
            &["step"],
        )?;
        CRL_STEPS.iter().for_each(|step| drop(crl_failures.with_label_values(&[step])));
        let jwt_keys = IntGaugeVec::new(
            Opts::new(
                "signet_issuer_jwt_keys",
                "Keys that sign tokens, by state: prepared, active, retired, tainted, revoked.",
            ),
            &["state"],
        )?;
        registry.register(Box::new(jwt_keys.clone()))?;
        let shed = counters(
            "signet_issuer_shed_total",
            "Requests that were refused because there were too many, and told when to come again, by whose share was used up.",
            &["limit"],
        )?;
        Limit::ALL.iter().for_each(|limit| drop(shed.with_label_values(&[limit.label()])));
        let revocations_ahead = IntGauge::new(
            "signet_issuer_revocations_ahead_clients",
            "Connected clients that know of revocations which are not on record any more.",
        )?;
        registry.register(Box::new(revocations_ahead.clone()))?;
        Ok(Self {
            issued,
            issue_duration,
            identities,
            identities_ending,
            connections: gauge("signet_issuer_connections", "Open connections to the gRPC address.")?,
            connections_refused: counters(
                "signet_issuer_connections_refused_total",
                "Connections refused before any request, by reason.",
                &["reason"],
            )?,
            connected_clients: gauge("signet_issuer_connected_clients", "Clients that hold a Watch stream.")?,
            attestations_refused: counters(
                "signet_issuer_attestations_refused_total",
                "Callers whose proof of who they are was not accepted, by kind of proof and reason.",
                &["attestation", "reason"],
            )?,
            token_keys_read_at,
            keys_out_of_reach: gauge(
                "signet_issuer_keys_out_of_reach",
                "1 while the CA keys cannot be reached, so that nothing is signed.",
            )?,
            policy_refused: gauge(
                "signet_issuer_policy_refused",
                "1 while the policy on record is not put in force, and the last good one stays.",
            )?,
            bundles_refused,
            shed,
            revocations_ahead,
            bundle_refreshed_at,
            federation_refused,
            crl_next_update,
            crl_failures,
            jwts: counters(
                "signet_issuer_jwts_total",
                "Requests for tokens, by kind (jwt_svid, access_token) and by how they ended.",
                &["kind", "result"],
            )?,
            jwt_keys,
            jwt_key_expires_at: gauge(
                "signet_issuer_jwt_key_expiration_timestamp_seconds",
                "When the key that signs tokens now ends, in Unix time; 0 where there is none.",
            )?,
            lives_cut: gauge(
                "signet_issuer_lives_cut",
                "Rules, and the profile `workload`, whose certificates would live longer than a sixth of the authority's life, and do not.",
            )?,
            web_requests: counters(
                "signet_issuer_web_requests_total",
                "Requests to the web addresses, by what was asked for and by status code.",
                &["route", "code"],
            )?,
        })
    }

    pub(crate) fn issue(&self, profile: &str, result: IssueResult, duration: Duration) {
        self.issued.with_label_values(&[profile, result.label()]).inc();
        if result == IssueResult::Issued {
            self.issue_duration.observe(duration.as_secs_f64());
        }
    }

    pub(crate) fn jwt(&self, kind: &str, result: IssueResult) {
        self.jwts.with_label_values(&[kind, result.label()]).inc();
    }

    /// When the key that signs tokens ends.
    pub(crate) fn jwt_keys(&self, state: &str, count: usize) {
        self.jwt_keys.with_label_values(&[state]).set(i64::try_from(count).unwrap_or(i64::MAX));
    }

    pub(crate) fn jwt_key(&self, ends: Option<OffsetDateTime>) {
        self.jwt_key_expires_at.set(ends.map_or(0, OffsetDateTime::unix_timestamp));
    }

    /// Clients that know more than the record does.
    pub(crate) fn revocations_ahead(&self) -> IntGauge {
        self.revocations_ahead.clone()
    }

    /// How many.
    pub(crate) fn lives_cut(&self, cut: usize) {
        self.lives_cut.set(i64::try_from(cut).unwrap_or(i64::MAX));
    }

    pub(crate) fn federation_refreshed(&self, trust_domain: &str, at: OffsetDateTime) {
        self.bundle_refreshed_at.with_label_values(&[trust_domain]).set(at.unix_timestamp());
    }

    pub(crate) fn federation_refused(&self, trust_domain: &str, refused: bool) {
        self.federation_refused.with_label_values(&[trust_domain]).set(refused.into());
    }

    pub(crate) fn federation_gone(&self, trust_domain: &str) {
        // There may be none of it.
        let _ = self.bundle_refreshed_at.remove_label_values(&[trust_domain]);
        let _ = self.federation_refused.remove_label_values(&[trust_domain]);
    }

    pub(crate) fn web_request(&self, route: &str, status: http::StatusCode) {
        self.web_requests.with_label_values(&[route, status.as_str()]).inc();
    }

    pub(crate) fn identities(&self, counts: Counts) {
        let Counts { valid, expiring, revoked, expired, within } = counts;
        let shown = |count: u64| i64::try_from(count).unwrap_or(i64::MAX);
        for (state, count) in [("valid", valid), ("expiring", expiring), ("revoked", revoked), ("expired", expired)] {
            self.identities.with_label_values(&[state]).set(shown(count));
        }
        for ((label, _), count) in HORIZONS.iter().zip(within) {
            self.identities_ending.with_label_values(&[label]).set(shown(count));
        }
    }

    pub(crate) fn connection_refused(&self, reason: &'static str) {
        self.connections_refused.with_label_values(&[reason]).inc();
    }

    pub(crate) fn attestation_refused(&self, attestation: &'static str, reason: &'static str) {
        self.attestations_refused.with_label_values(&[attestation, reason]).inc();
    }

    pub(crate) fn shed(&self, limit: &'static str) {
        self.shed.with_label_values(&[limit]).inc();
    }

    pub(crate) fn crl_next_update(&self, authority: &str, shard: u32, next_update: OffsetDateTime) {
        let shard = shard.to_string();
        self.crl_next_update.with_label_values(&[authority, &*shard]).set(next_update.unix_timestamp());
    }

    /// Its authority is over.
    pub(crate) fn forget_crl(&self, authority: &str, shard: u32) {
        // That there was none yet is no error.
        let _ = self.crl_next_update.remove_label_values(&[authority, &*shard.to_string()]);
    }

    /// One of [`CRL_STEPS`].
    pub(crate) fn crl_failed(&self, step: &'static str) {
        self.crl_failures.with_label_values(&[step]).inc();
    }

    /// Whether they were before.
    pub(crate) fn keys_out_of_reach(&self, are: bool) -> bool {
        let were = self.keys_out_of_reach.get() == 1;
        self.keys_out_of_reach.set(i64::from(are));
        were
    }

    /// Returns whether that is new.
    pub(crate) fn policy_refused(&self, refused: bool) -> bool {
        let was = self.policy_refused.get() == 1;
        self.policy_refused.set(i64::from(refused));
        was != refused
    }

    /// Returns whether that is new.
    pub(crate) fn bundles_refused(&self, source: &'static str, refused: bool) -> bool {
        let gauge = self.bundles_refused.with_label_values(&[source]);
        let was = gauge.get() == 1;
        gauge.set(i64::from(refused));
        was != refused
    }

    /// Of the keys of one cluster or provider.
    pub(crate) fn token_keys_read_at(&self, attestation: &'static str, source: &str) -> IntGauge {
        self.token_keys_read_at.with_label_values(&[attestation, source])
    }

    /// Counts a connection until it is dropped.
    pub(crate) fn connection(&self) -> Counted {
        Counted::new(self.connections.clone())
    }

    /// Counts a Watch stream until it is dropped.
    pub(crate) fn client(&self) -> Counted {
        Counted::new(self.connected_clients.clone())
    }
}

/// What may fail of a CRL.
const CRL_STEPS: [&str; 2] = ["sign", "export"];

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

impl IssueResult {
    const ALL: [Self; 4] = [Self::Issued, Self::Refused, Self::Failed, Self::Shed];

    fn label(self) -> &'static str {
        match self {
            Self::Issued => "issued",
            Self::Refused => "refused",
            Self::Failed => "failed",
            Self::Shed => "shed",
        }
    }
}

#[derive(Debug)]
pub(crate) struct Counted(IntGauge);

impl Counted {
    fn new(gauge: IntGauge) -> Self {
        gauge.inc();
        Self(gauge)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.dec();
    }
}

/// Adds what is told of the authorities.
pub(crate) fn register_authorities(registry: &Registry, authorities: Authorities) -> Result<(), prometheus::Error> {
    registry.register(Box::new(AuthorityCollector::new(authorities)?))
}

/// Exports the authorities as they are when the scrape comes, those that have a certificate.
struct AuthorityCollector {
    authorities: Authorities,
    /// Locked while a scrape fills it: two at once must not clear each other's series.
    gauges: Mutex<AuthorityGauges>,
    described: Vec<Desc>,
}

struct AuthorityGauges {
    expiration: GaugeVec,
    leaf_life: GaugeVec,
}

impl AuthorityCollector {
    fn new(authorities: Authorities) -> Result<Self, prometheus::Error> {
        let gauge = |name: &str, help: &str| GaugeVec::new(Opts::new(name, help), &["authority", "state"]);
        let expiration = gauge(
            "signet_ca_expiration_timestamp_seconds",
            "When an authority's chain expires, in Unix time, by subject key identifier and state.",
        )?;
        let leaf_life = gauge(
            "signet_ca_leaf_life_seconds",
            "The longest life of a leaf that an authority signs, which is a sixth of its own.",
        )?;
        let described = expiration.desc().into_iter().chain(leaf_life.desc()).cloned().collect();
        Ok(Self { authorities, gauges: Mutex::new(AuthorityGauges { expiration, leaf_life }), described })
    }
}

impl Collector for AuthorityCollector {
    fn desc(&self) -> Vec<&Desc> {
        self.described.iter().collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let gauges = self.gauges.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let AuthorityGauges { expiration, leaf_life } = &*gauges;
        expiration.reset();
        leaf_life.reset();
        for member in self.authorities.all() {
            if let Some(authority) = &member.authority {
                let key_id = authority.key_id().to_string();
                let labels = [key_id.as_str(), member.stage.label()];
                expiration.with_label_values(&labels).set(authority.not_after().unix_timestamp() as f64);
                leaf_life.with_label_values(&labels).set(authority.longest_leaf().as_secs_f64());
            }
        }
        expiration.collect().into_iter().chain(leaf_life.collect()).collect()
    }
}
