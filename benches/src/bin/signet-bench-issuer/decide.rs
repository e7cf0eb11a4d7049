//! How long the policy takes to decide with ten thousand rules.

use std::path::Path;
use std::time::{Duration, Instant};

use signet_policy::{Attributes, DEFAULT_PROFILE, Document, Policy, ProfileTerms, Surroundings};
use time::OffsetDateTime;

use signet_benches::issuer::table::{Table, median, percentile};

const RULES: usize = 10_000;
const DECISIONS: usize = 20_000;

pub(crate) fn measure(table: &mut Table) -> anyhow::Result<()> {
    for (what, namespace) in [("by a value", "team{}"), ("by a pattern", "'team{}-*'")] {
        let rules: String = (0..RULES)
            .map(|number| {
                let namespace = namespace.replace("{}", &number.to_string());
                format!("- {{ name: r{number}, match: {{ k8s.cluster: prod, k8s.namespace: {namespace} }}, spiffe_id: 'spiffe://example.org/t{number}/{{k8s.service_account}}' }}\n")
            })
            .collect();
        let mut document = Document::default();
        document.add(Path::new("bench.yaml"), &format!("rules:\n{rules}"))?;
        let workload = ProfileTerms {
            name: DEFAULT_PROFILE.to_owned(),
            max_ttl: Duration::from_secs(3600),
            is_identity: true,
            has_common_name: false,
        };
        let surroundings =
            Surroundings { trust_domain: "example.org".parse()?, protected: Vec::new(), profiles: vec![workload] };
        let policy = Policy::compile(&document.rules, &surroundings)?;
        let mut took = Vec::with_capacity(DECISIONS);
        for number in 0..DECISIONS {
            let team = number * 7919 % RULES;
            let namespace = if what == "by a value" { format!("team{team}") } else { format!("team{team}-a") };
            let pairs = [
                ("k8s.cluster", "prod".to_owned()),
                ("k8s.namespace", namespace),
                ("k8s.service_account", "cart".to_owned()),
                ("k8s.pod", format!("cart-{number}")),
            ];
            let attributes = Attributes::new(
                pairs
                    .into_iter()
                    .map(|(name, value)| Ok((name.parse()?, value)))
                    .collect::<anyhow::Result<Vec<_>>>()?,
            )?;
            let began = Instant::now();
            let grants = policy.decide(&attributes, OffsetDateTime::UNIX_EPOCH);
            took.push(began.elapsed().as_secs_f64() * 1e6);
            anyhow::ensure!(grants.len() == 1, "{} grants", grants.len());
        }
        let (p50, p99) = (median(&mut took), percentile(&mut took, 0.99));
        let told = format!("p50 {p50:.1} µs, p99 {p99:.1} µs");
        table.row(format!("a decision with {RULES} rules, told apart {what}"), told, "≤ 20 µs", p99 <= 20.0);
    }
    Ok(())
}
