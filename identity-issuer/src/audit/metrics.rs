//! The log's metrics.

use prometheus::{Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry};

#[derive(Clone, Debug)]
pub(crate) struct AuditMetrics {
    size: IntGauge,
    waiting: IntGauge,
    checkpoint_at: IntGauge,
    halted: IntGauge,
    failures: IntCounter,
    exported_size: IntGauge,
    exported_at: IntGauge,
    export_failures: IntCounter,
    reported_until: IntGauge,
    report_failures: IntCounter,
    cosigned_at: IntGaugeVec,
    witness_failures: IntCounterVec,
    witnessed_size: IntGauge,
    witnessed_at: IntGauge,
    commits: Histogram,
}

impl AuditMetrics {
    pub(crate) fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let gauge = |name: &str, help: &str| {
            let gauge = IntGauge::new(name, help)?;
            registry.register(Box::new(gauge.clone()))?;
            Ok::<_, prometheus::Error>(gauge)
        };
        let failures = IntCounter::new(
            "signet_audit_publish_failures_total",
            "How often the audit log was not published, and was tried again.",
        )?;
        registry.register(Box::new(failures.clone()))?;
        let export_failures = IntCounter::new(
            "signet_audit_export_failures_total",
            "How often the audit log was not put into its folder or bucket, and was tried again.",
        )?;
        registry.register(Box::new(export_failures.clone()))?;
        let report_failures = IntCounter::new(
            "signet_audit_report_failures_total",
            "How often a report of `audit.reports` was not made or not put, and was tried again.",
        )?;
        registry.register(Box::new(report_failures.clone()))?;
        let cosigned_at = Opts::new(
            "signet_audit_cosignature_timestamp_seconds",
            "When a witness has cosigned the audit log last, in Unix time.",
        );
        let cosigned_at = IntGaugeVec::new(cosigned_at, &["witness"])?;
        registry.register(Box::new(cosigned_at.clone()))?;
        let witness_failures = Opts::new(
            "signet_audit_witness_failures_total",
            "How often a witness has not cosigned the audit log, and was asked again.",
        );
        let witness_failures = IntCounterVec::new(witness_failures, &["witness"])?;
        registry.register(Box::new(witness_failures.clone()))?;
        let commits = HistogramOpts::new(
            "signet_audit_commit_duration_seconds",
            "How long a transaction took that made acts and their entries in the audit log durable.",
        );
        let buckets = vec![0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0];
        let commits = Histogram::with_opts(commits.buckets(buckets))?;
        registry.register(Box::new(commits.clone()))?;
        Ok(Self {
            size: gauge(
                "signet_audit_log_size",
                "Entries of the audit log that are published under a signed checkpoint.",
            )?,
            waiting: gauge("signet_audit_unpublished_entries", "Entries on record that are not published yet.")?,
            checkpoint_at: gauge(
                "signet_audit_checkpoint_timestamp_seconds",
                "When the latest checkpoint of the audit log was signed, in Unix time; 0 for never.",
            )?,
            halted: gauge(
                "signet_audit_halted",
                "1 where the audit log is not signed any more, as its exported copy is another history; else 0.",
            )?,
            failures,
            exported_size: gauge(
                "signet_audit_exported_entries",
                "Entries of the audit log that are in its folder or bucket under a signed checkpoint.",
            )?,
            exported_at: gauge(
                "signet_audit_exported_checkpoint_timestamp_seconds",
                "When the checkpoint was signed that is in the log's folder or bucket, in Unix time; 0 for none.",
            )?,
            export_failures,
            reported_until: gauge(
                "signet_audit_reported_until_timestamp_seconds",
                "The end of the last time whose reports are there, in Unix time; 0 for none.",
            )?,
            report_failures,
            cosigned_at,
            witness_failures,
            witnessed_size: gauge(
                "signet_audit_witnessed_entries",
                "Entries of the audit log that a quorum of witnesses has cosigned.",
            )?,
            witnessed_at: gauge(
                "signet_audit_witnessed_timestamp_seconds",
                "When the last witness of a quorum has cosigned the audit log, in Unix time; 0 for never.",
            )?,
            commits,
        })
    }

    /// At `time` in Unix seconds.
    pub(super) fn cosigned(&self, witness: &str, time: u64) {
        self.cosigned_at.with_label_values(&[witness]).set(i64::try_from(time).unwrap_or(i64::MAX));
    }

    /// Before the first answer of a witness: none has failed.
    pub(super) fn asks(&self, witness: &str) {
        self.witness_failures.with_label_values(&[witness]).inc_by(0);
    }

    pub(super) fn witness_failed(&self, witness: &str) {
        self.witness_failures.with_label_values(&[witness]).inc();
    }

    /// By a quorum, at `time` in Unix seconds.
    pub(super) fn witnessed(&self, size: u64, time: u64) {
        self.witnessed_size.set(i64::try_from(size).unwrap_or(i64::MAX));
        self.witnessed_at.set(i64::try_from(time).unwrap_or(i64::MAX));
    }

    /// Of a database that nobody watches.
    #[cfg(test)]
    pub(crate) fn unwatched() -> Self {
        #![allow(clippy::unwrap_used)]
        Self::register(&Registry::new()).unwrap()
    }

    pub(crate) fn committed(&self, took: std::time::Duration) {
        self.commits.observe(took.as_secs_f64());
    }

    /// `size` of `on_record` entries, at `time` in Unix seconds.
    pub(super) fn published(&self, size: u64, on_record: u64, time: u64) {
        let number = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
        self.size.set(number(size));
        self.waiting.set(number(on_record.saturating_sub(size)));
        self.checkpoint_at.set(number(time));
    }

    /// `size` entries, under a checkpoint of `time` in Unix seconds.
    pub(super) fn exported(&self, size: u64, time: u64) {
        self.exported_size.set(i64::try_from(size).unwrap_or(i64::MAX));
        self.exported_at.set(i64::try_from(time).unwrap_or(i64::MAX));
    }

    /// The reports of what is before `until` in Unix seconds are there.
    pub(super) fn reported(&self, until: u64) {
        self.reported_until.set(i64::try_from(until).unwrap_or(i64::MAX));
    }

    pub(super) fn report_failed(&self) {
        self.report_failures.inc();
    }

    pub(super) fn export_failed(&self) {
        self.export_failures.inc();
    }

    pub(super) fn halted(&self) {
        self.halted.set(1);
    }

    pub(super) fn failed(&self) {
        self.failures.inc();
    }
}
