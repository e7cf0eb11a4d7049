//! What a process tells on its admin address.

use std::net::SocketAddr;

use crate::curl::Curl;
use crate::wait::secs;

/// An admin address.
#[derive(Clone, Copy, Debug)]
pub struct Admin(pub SocketAddr);

/// One scrape, parsed.
#[derive(Clone, Debug)]
pub struct Metrics {
    text: String,
    samples: Vec<Sample>,
}

#[derive(Clone, Debug, PartialEq)]
struct Sample {
    name: String,
    labels: Vec<(String, String)>,
    value: f64,
}

impl Admin {
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.0)
    }

    pub fn is_ready(&self) -> bool {
        Curl::get(self.url("/ready")).max_time(secs(5)).run().status == 200
    }

    pub fn metrics(&self) -> Metrics {
        Metrics::parse(Curl::get(self.url("/metrics")).run().expect_status(200).text())
    }

    /// The sum over all series of `name` that carry `labels`.
    pub fn sum(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        self.metrics().sum(name, labels)
    }

    pub fn json(&self, path: &str) -> serde_json::Value {
        let text = Curl::get(self.url(path)).run().text();
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{path}: {error}: {text}"))
    }
}

impl Metrics {
    pub fn parse(text: String) -> Self {
        let samples = text.lines().filter(|line| !line.starts_with('#')).filter_map(Sample::parse).collect();
        Self { text, samples }
    }

    /// As it was sent.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The sum over all series of `name` that carry `labels`; 0 when there is none.
    pub fn sum(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        self.of(name, labels).map(|sample| sample.value).sum()
    }

    pub fn has(&self, name: &str) -> bool {
        self.of(name, &[]).next().is_some()
    }

    /// Values of one label over all series of `name`.
    pub fn label_values(&self, name: &str, label: &str) -> Vec<String> {
        let labels = self.of(name, &[]).flat_map(|sample| &sample.labels);
        labels.filter(|(key, _)| key == label).map(|(_, value)| value.clone()).collect()
    }

    fn of(&self, name: &str, labels: &[(&str, &str)]) -> impl Iterator<Item = &Sample> {
        self.samples.iter().filter(move |sample| {
            let carries = |(key, value): &(&str, &str)| sample.labels.iter().any(|(k, v)| k == key && v == value);
            sample.name == name && labels.iter().all(carries)
        })
    }
}

impl Sample {
    /// `name{label="value",…} 1.5`. Label values of these tests hold no escaped quotes.
    fn parse(line: &str) -> Option<Self> {
        let (series, value) = line.rsplit_once(' ')?;
        let value = value.parse().ok()?;
        let Some((name, labels)) = series.split_once('{') else {
            return Some(Self { name: series.to_owned(), labels: Vec::new(), value });
        };
        let labels = labels.trim_end_matches('}').split("\",").filter_map(|pair| {
            let (key, value) = pair.split_once("=\"")?;
            Some((key.to_owned(), value.trim_end_matches('"').to_owned()))
        });
        Some(Self { name: name.to_owned(), labels: labels.collect(), value })
    }
}

#[cfg(test)]
mod tests {
    use super::Metrics;

    #[test]
    fn series_are_summed_over_the_labels_that_are_not_asked_for() {
        let metrics = Metrics::parse(
            "# HELP denied x\n# TYPE denied counter\ndenied{listener=\"in\",reason=\"a\"} 2\n\
             denied{listener=\"in\",reason=\"b, c\"} 3\ndenied{listener=\"out\",reason=\"a\"} 5\nup 1\n"
                .to_owned(),
        );
        assert_eq!(metrics.sum("denied", &[("reason", "a")]), 7.0);
        assert_eq!(metrics.sum("denied", &[("listener", "in"), ("reason", "b, c")]), 3.0);
        assert_eq!(metrics.sum("up", &[]), 1.0);
        assert_eq!(metrics.sum("absent", &[]), 0.0);
        assert!(metrics.has("up") && !metrics.has("absent"));
    }
}
