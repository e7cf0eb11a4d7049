//! Alerts, as somebody hears of them: a line each, and a metric.

use std::io::Write as _;
use std::sync::Arc;
use std::sync::mpsc::Receiver;

use prometheus::{IntCounterVec, Opts, Registry};
use signet_identity::SystemClock;
use signet_process::admin::{AdminBuilder, AdminServer, Readiness};
use signet_process::identity_slot::IdentitySlot;

use super::alert::Alert;
use crate::args::AuditMonitorOptions;
use crate::failure::Failure;
use crate::output::{self, Format};

pub(super) struct Telling {
    format: Format,
    alerts: IntCounterVec,
    told: u64,
    /// Serves until it is dropped.
    _server: Option<AdminServer>,
}

const KINDS: [&str; 10] =
    ["fork", "future", "issued", "late", "missed", "set_back", "tampered", "unlogged", "unreadable", "waiting"];

impl Telling {
    pub(super) fn start(options: &AuditMonitorOptions, format: Format) -> Result<Self, Failure> {
        let failed = |error: prometheus::Error| Failure::from_error(&error);
        let registry = Registry::new();
        let alerts = Opts::new("signet_audit_monitor_alerts_total", "Alerts of the audit monitor, by kind.");
        let alerts = IntCounterVec::new(alerts, &["kind"]).map_err(failed)?;
        registry.register(Box::new(alerts.clone())).map_err(failed)?;
        for kind in KINDS {
            alerts.with_label_values(&[kind]);
        }
        let server = options.metrics.map(|address| {
            let (readiness, identity) = (Readiness::awaiting([]), IdentitySlot::new(Arc::new(SystemClock)));
            let config = String::new();
            AdminBuilder {
                process: "signet",
                address,
                registry,
                readiness,
                identity,
                config,
                log: None,
                pages: Vec::new(),
            }
            .start()
        });
        let server = server.transpose().map_err(|error| Failure::from_error(&error))?;
        Ok(Self { format, alerts, told: 0, _server: server })
    }

    /// As long as there is anybody who may raise one.
    pub(super) fn tell_all(&mut self, raised: &Receiver<Alert>) -> Result<(), Failure> {
        while let Ok(alert) = raised.recv() {
            self.alerts.with_label_values(&[alert.what.kind()]).inc();
            self.told += 1;
            let mut text = match self.format {
                Format::Table => format!("{alert}\n"),
                Format::Json | Format::Yaml => output::json_line(&alert)?,
            };
            if self.format == Format::Table {
                for line in alert.evidence.iter().flat_map(|note| note.lines()) {
                    text.push_str(&format!("  {}\n", output::harmless(line)));
                }
            }
            let mut out = std::io::stdout().lock();
            out.write_all(text.as_bytes()).and_then(|()| out.flush()).map_err(|error| Failure::from_error(&error))?;
        }
        Ok(())
    }

    pub(super) fn told(&self) -> u64 {
        self.told
    }
}
