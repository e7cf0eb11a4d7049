//! What the gateway counts. One registry for each gateway: several run in one process.
//!
//! What happens per request is counted in plain cells of the worker and added to the shared series at each tick; what happens
//! per connection or seldom goes to the shared series at once.

use std::cell::RefCell;
use std::sync::Arc;

use http::StatusCode;
use prometheus::local::{LocalHistogram, LocalIntCounter};
use prometheus::{
    Error, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
};

use crate::lifetime::Cause;

/// Every series of one gateway. Clones count into the same.
#[derive(Clone, Debug)]
pub(crate) struct Metrics {
    handshakes: IntCounterVec,
    handshake_duration: HistogramVec,
    connections: IntGaugeVec,
    refused: IntCounterVec,
    closed: IntCounterVec,
    accept_errors: IntCounterVec,
    requests: IntCounterVec,
    request_duration: HistogramVec,
    denied: IntCounterVec,
    malformed: IntCounterVec,
    upstream_connections: IntGaugeVec,
    upstream_connects: IntCounterVec,
    upstream_failures: IntCounterVec,
    upstream_retries: IntCounterVec,
}

impl Metrics {
    pub(crate) fn register(registry: &Registry) -> Result<Self, Error> {
        let counter = |name: &str, help: &str, labels: &[&str]| {
            let counter = IntCounterVec::new(Opts::new(format!("signet_gateway_{name}"), help), labels)?;
            registry.register(Box::new(counter.clone()))?;
            Ok::<_, Error>(counter)
        };
        let gauge = |name: &str, help: &str, labels: &[&str]| {
            let gauge = IntGaugeVec::new(Opts::new(format!("signet_gateway_{name}"), help), labels)?;
            registry.register(Box::new(gauge.clone()))?;
            Ok::<_, Error>(gauge)
        };
        let histogram = |name: &str, help: &str, buckets: &[f64], labels: &[&str]| {
            let options = HistogramOpts::new(format!("signet_gateway_{name}"), help).buckets(buckets.to_vec());
            let histogram = HistogramVec::new(options, labels)?;
            registry.register(Box::new(histogram.clone()))?;
            Ok::<_, Error>(histogram)
        };
        Ok(Self {
            handshakes: counter(
                "handshakes_total",
                "TLS handshakes of callers, by how they ended and whether a session was resumed.",
                &["listener", "result", "kind"],
            )?,
            handshake_duration: histogram(
                "handshake_duration_seconds",
                "How long the TLS handshakes that succeeded took.",
                HANDSHAKE_BUCKETS,
                &["listener"],
            )?,
            connections: gauge("connections", "Connections of callers that are open.", &["listener"])?,
            refused: counter(
                "connections_refused_total",
                "Connections that were closed before anything was read from them.",
                &["listener", "reason"],
            )?,
            closed: counter("connections_closed_total", "Connections of callers that ended, and why.", &["reason"])?,
            accept_errors: counter("accept_errors_total", "Connections that could not be accepted.", &["listener"])?,
            requests: counter("requests_total", "Requests answered.", &["listener", "code"])?,
            request_duration: histogram(
                "request_duration_seconds",
                "From the head of a request to the end of its answer.",
                REQUEST_BUCKETS,
                &["listener"],
            )?,
            denied: counter("denied_total", "Requests that the policy denied.", &["listener", "reason"])?,
            malformed: counter(
                "malformed_requests_total",
                "HTTP/1.1 requests that were refused for their framing.",
                &["listener", "reason"],
            )?,
            upstream_connections: gauge("upstream_connections", "Connections to an upstream.", &["upstream"])?,
            upstream_connects: counter(
                "upstream_connects_total",
                "Attempts to connect to an upstream, by how they ended.",
                &["upstream", "result"],
            )?,
            upstream_failures: counter(
                "upstream_failures_total",
                "Requests that an upstream did not answer.",
                &["upstream", "reason"],
            )?,
            upstream_retries: counter(
                "upstream_retries_total",
                "Requests sent again because a reused connection had been closed.",
                &["upstream"],
            )?,
        })
    }

    /// The handles of one listener in one worker.
    pub(crate) fn listener(&self, name: &str) -> ListenerMetrics {
        ListenerMetrics {
            name: name.into(),
            connections: self.connections.with_label_values(&[name]),
            accept_errors: self.accept_errors.with_label_values(&[name]),
            handshake_duration: self.handshake_duration.with_label_values(&[name]),
            closed: Cause::ALL.map(|cause| self.closed.with_label_values(&[cause.label()])),
            requests: RefCell::new(std::iter::repeat_with(|| None).take(CODES).collect()),
            request_duration: self.request_duration.with_label_values(&[name]).local(),
            all: self.clone(),
        }
    }

    /// The handles of one upstream.
    pub(crate) fn upstream(&self, name: &str) -> UpstreamMetrics {
        UpstreamMetrics {
            name: name.into(),
            connections: self.upstream_connections.with_label_values(&[name]),
            retries: self.upstream_retries.with_label_values(&[name]),
            all: self.clone(),
        }
    }
}

/// What one worker counts of one listener.
#[derive(Debug)]
pub(crate) struct ListenerMetrics {
    name: Arc<str>,
    pub(crate) connections: IntGauge,
    pub(crate) accept_errors: IntCounter,
    handshake_duration: Histogram,
    closed: [IntCounter; Cause::ALL.len()],
    /// By status code from 100 on, made when the first one is seen.
    requests: RefCell<Box<[Option<LocalIntCounter>]>>,
    request_duration: LocalHistogram,
    all: Metrics,
}

impl ListenerMetrics {
    /// One request that has its answer's head.
    pub(crate) fn answered(&self, status: StatusCode) {
        let make = || self.all.requests.with_label_values(&[&*self.name, status.as_str()]);
        let mut requests = self.requests.borrow_mut();
        match requests.get_mut(usize::from(status.as_u16()) - 100) {
            Some(counter) => counter.get_or_insert_with(|| make().local()).inc(),
            None => make().inc(),
        }
    }

    /// One request whose answer has ended.
    pub(crate) fn ended(&self, seconds: f64) {
        self.request_duration.observe(seconds);
    }

    pub(crate) fn handshake_succeeded(&self, kind: &'static str, seconds: f64) {
        self.handshake_duration.observe(seconds);
        self.all.handshakes.with_label_values(&[&*self.name, "ok", kind]).inc();
    }

    pub(crate) fn handshake_failed(&self, reason: &'static str, kind: &'static str) {
        self.all.handshakes.with_label_values(&[&*self.name, reason, kind]).inc();
    }

    pub(crate) fn refused(&self, reason: &'static str) {
        self.all.refused.with_label_values(&[&*self.name, reason]).inc();
    }

    pub(crate) fn closed(&self, cause: Cause) {
        self.closed[cause as usize].inc();
    }

    pub(crate) fn denied(&self, reason: &'static str) {
        self.all.denied.with_label_values(&[&*self.name, reason]).inc();
    }

    pub(crate) fn malformed(&self, reason: &'static str) {
        self.all.malformed.with_label_values(&[&*self.name, reason]).inc();
    }

    /// Adds what the worker counted to the shared series.
    pub(crate) fn flush(&self) {
        self.request_duration.flush();
        for counter in self.requests.borrow().iter().flatten() {
            counter.flush();
        }
    }
}

/// What is counted of one upstream.
#[derive(Clone, Debug)]
pub(crate) struct UpstreamMetrics {
    name: Arc<str>,
    pub(crate) connections: IntGauge,
    pub(crate) retries: IntCounter,
    all: Metrics,
}

impl UpstreamMetrics {
    pub(crate) fn connected(&self, result: &'static str) {
        self.all.upstream_connects.with_label_values(&[&*self.name, result]).inc();
    }

    pub(crate) fn failed(&self, reason: &'static str) {
        self.all.upstream_failures.with_label_values(&[&*self.name, reason]).inc();
    }
}

/// Keeps a gauge one higher for as long as it lives.
#[derive(Debug)]
pub(crate) struct Counted(IntGauge);

impl Counted {
    pub(crate) fn in_gauge(gauge: &IntGauge) -> Self {
        gauge.inc();
        Self(gauge.clone())
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.dec();
    }
}

/// The codes 100 to 599 have a place ready; others exist only in jest.
const CODES: usize = 500;
const HANDSHAKE_BUCKETS: &[f64] = &[0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 10.0];
const REQUEST_BUCKETS: &[f64] =
    &[0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 60.0];
