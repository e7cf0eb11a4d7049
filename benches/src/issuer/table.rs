//! Figures with their bars, as Markdown.

use std::fmt::Write as _;

#[derive(Debug, Default)]
pub struct Table(Vec<Row>);

#[derive(Debug)]
struct Row {
    figure: String,
    value: String,
    bar: &'static str,
    met: bool,
}

impl Table {
    pub fn row(&mut self, figure: impl Into<String>, value: impl Into<String>, bar: &'static str, met: bool) {
        let row = Row { figure: figure.into(), value: value.into(), bar, met };
        eprintln!("{}: {} ({})", row.figure, row.value, row.verdict());
        self.0.push(row);
    }

    pub fn to_markdown(&self) -> String {
        let mut text = "| figure | measured | bar |\n|---|---|---|\n".to_owned();
        for row in &self.0 {
            // Writing to a String cannot fail.
            let _ = writeln!(text, "| {} | {} | {} |", row.figure, row.value, row.verdict());
        }
        text
    }
}

impl Row {
    fn verdict(&self) -> String {
        match (self.bar, self.met) {
            ("", _) => "–".to_owned(),
            (bar, true) => format!("met: {bar}"),
            (bar, false) => format!("**missed:** {bar}"),
        }
    }
}

/// The value that this share of them does not exceed. They are sorted by this.
pub fn percentile(values: &mut [f64], share: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    let at = (values.len() as f64 * share).ceil() as usize;
    values.get(at.saturating_sub(1)).copied().unwrap_or_default()
}

pub fn median(values: &mut [f64]) -> f64 {
    percentile(values, 0.5)
}

/// `12,345`
pub fn thousands(number: f64) -> String {
    let digits = format!("{number:.0}");
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}
