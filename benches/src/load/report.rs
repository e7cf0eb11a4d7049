//! What a run found.

use std::fmt::{self, Display, Formatter};
use std::time::Duration;

use super::tally::Tally;

/// The figures of one run over all threads.
#[derive(Debug)]
pub struct Report {
    pub(super) tally: Tally,
    /// The measured time.
    pub(super) duration: Duration,
    /// CPU time of this process in the measured time.
    pub(super) cpu: Option<Duration>,
    /// The same of each watched server or proxy; none where a process of it ended.
    pub(super) watched: Vec<(String, Option<Duration>)>,
}

const QUANTILES: [(&str, f64); 4] = [("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("p99_9", 0.999)];

impl Report {
    /// Operations that were due and done within the measured time.
    pub fn operations(&self) -> u64 {
        self.tally.latency.len()
    }

    /// Failed operations of the whole run, warm-up included.
    pub fn failures(&self) -> u64 {
        self.tally.failures.values().map(|failures| failures.count).sum()
    }

    fn per_second(&self) -> f64 {
        self.operations() as f64 / self.duration.as_secs_f64()
    }

    fn micros_per_operation(&self, cpu: Duration) -> Option<f64> {
        let operations = self.operations();
        (operations > 0).then(|| cpu.as_secs_f64() * 1e6 / operations as f64)
    }

    /// Share of one core that was used.
    fn cores(&self, cpu: Duration) -> f64 {
        cpu.as_secs_f64() / self.duration.as_secs_f64()
    }

    /// For programs; names carry their units.
    pub fn to_json(&self) -> serde_json::Value {
        let latency = &self.tally.latency;
        let mut quantiles = serde_json::Map::new();
        for (name, quantile) in QUANTILES {
            quantiles.insert(name.to_owned(), micros(latency.value_at_quantile(quantile)).into());
        }
        quantiles.insert("max".to_owned(), micros(latency.max()).into());
        quantiles.insert("mean".to_owned(), (latency.mean() / 1e3).into());
        let failures: serde_json::Map<_, _> = self
            .tally
            .failures
            .iter()
            .map(|(kind, found)| ((*kind).to_owned(), serde_json::json!({"count": found.count, "first": found.first})))
            .collect();
        let servers = &self.tally.servers;
        let watched = self.watched.iter().map(|(name, cpu)| {
            let facts = serde_json::json!({
                "cpu_microseconds_per_operation": cpu.and_then(|cpu| self.micros_per_operation(cpu)),
                "cores": cpu.map(|cpu| self.cores(cpu)),
            });
            (name.clone(), facts)
        });
        let watched: serde_json::Map<_, _> = watched.collect();
        serde_json::json!({
            "seconds": self.duration.as_secs_f64(),
            "operations": self.operations(),
            "operations_per_second": self.per_second(),
            "latency_microseconds": quantiles,
            "failed": self.failures(),
            "failures": failures,
            "retried": self.tally.retried,
            "sent_bytes_per_second": self.tally.bodies.sent as f64 / self.duration.as_secs_f64(),
            "received_bytes_per_second": self.tally.bodies.received as f64 / self.duration.as_secs_f64(),
            "full_handshakes": self.tally.full_handshakes,
            "resumed_handshakes": self.tally.resumed_handshakes,
            "generator_cpu_microseconds_per_operation": self.cpu.and_then(|cpu| self.micros_per_operation(cpu)),
            "generator_cores": self.cpu.map(|cpu| self.cores(cpu)),
            "watched": watched,
            "server_certificates_seen": servers.serials.len(),
            "oldest_peer_certificate_seconds": servers.oldest_seconds,
            "least_left_of_peer_certificate_seconds": servers.least_left_seconds,
        })
    }
}

impl Display for Report {
    fn fmt(&self, out: &mut Formatter<'_>) -> fmt::Result {
        let tally = &self.tally;
        writeln!(
            out,
            "{:>12.0} operations/s ({} in {:.1} s)",
            self.per_second(),
            self.operations(),
            self.duration.as_secs_f64()
        )?;
        for (name, quantile) in QUANTILES {
            writeln!(out, "{:>12.1} µs {name}", micros(tally.latency.value_at_quantile(quantile)))?;
        }
        writeln!(out, "{:>12.1} µs max", micros(tally.latency.max()))?;
        let generator = ("the generator", self.cpu);
        let watched = self.watched.iter().map(|(name, cpu)| (name.as_str(), *cpu));
        for (who, cpu) in std::iter::once(generator).chain(watched) {
            let Some(cpu) = cpu else { continue };
            let (micros, cores) = (self.micros_per_operation(cpu).unwrap_or_default(), self.cores(cpu));
            writeln!(out, "{micros:>12.1} µs CPU of {who} per operation ({cores:.2} cores)")?;
        }
        for (bytes, way) in [(tally.bodies.received, "received"), (tally.bodies.sent, "sent")] {
            if bytes > 0 {
                writeln!(out, "{:>12.1} MB/s of bodies {way}", bytes as f64 / self.duration.as_secs_f64() / 1e6)?;
            }
        }
        if tally.full_handshakes + tally.resumed_handshakes > 0 {
            writeln!(out, "{:>12} full and {} resumed handshakes", tally.full_handshakes, tally.resumed_handshakes)?;
            writeln!(
                out,
                "{:>12} server certificates seen, the oldest {:.1} s after its notBefore",
                tally.servers.serials.len(),
                tally.servers.oldest_seconds,
            )?;
        }
        writeln!(out, "{:>12} retried on a new connection", tally.retried)?;
        write!(out, "{:>12} failed", self.failures())?;
        for (kind, failures) in &tally.failures {
            write!(out, "\n{:>12} {kind}: {}", failures.count, failures.first)?;
        }
        Ok(())
    }
}

fn micros(nanos: u64) -> f64 {
    nanos as f64 / 1e3
}
