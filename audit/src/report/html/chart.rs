//! Bars, as SVG that takes whatever width it has; what is to be read is text beside it, in its own size.

use std::fmt::Write as _;

use super::super::figures::{OverTime, Part};
use super::text::{grouped, part, step, tick};

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Series {
    Issued,
    Revoked,
    Refused,
}

/// Under the bars, with the first and the last.
const TICKS: usize = 7;
/// Of the drawing, whatever size it is shown in.
const HEIGHT: u64 = 1000;

impl Series {
    pub(super) fn class(self) -> &'static str {
        match self {
            Self::Issued => "issued",
            Self::Revoked => "revoked",
            Self::Refused => "refused",
        }
    }

    fn of(self, part: &Part) -> u64 {
        match self {
            Self::Issued => part.issued,
            Self::Revoked => part.revoked,
            Self::Refused => part.refused,
        }
    }
}

pub(super) fn write(page: &mut String, over_time: &OverTime, series: Series) -> std::fmt::Result {
    let parts = &over_time.parts;
    let class = series.class();
    let highest = parts.iter().map(|part| series.of(part)).max().unwrap_or(0);
    let top = top_of_scale(highest);
    let size = if series == Series::Issued { "plot" } else { "plot small" };
    let middle = if series == Series::Issued && top.is_multiple_of(2) { Some(top / 2) } else { None };
    writeln!(page, "<figure>\n<div class=\"{size}\">\n<div class=\"scale\" aria-hidden=\"true\">")?;
    for mark in [Some(top), middle, Some(0)].into_iter().flatten() {
        writeln!(page, "<span>{}</span>", grouped(mark))?;
    }
    // A bar takes 8 of 10 parts of its place.
    let width = parts.len() * 10;
    let (name, total) = (step(over_time.step), parts.iter().map(|part| series.of(part)).sum::<u64>());
    writeln!(
        page,
        "</div>\n<svg viewBox=\"0 0 {width} {HEIGHT}\" preserveAspectRatio=\"none\" role=\"img\" aria-labelledby=\"{class}-title {class}-about\">\n\
         <title id=\"{class}-title\">{class} per {name}</title>\n\
         <desc id=\"{class}-about\">{} in all, at most {} in one {name}</desc>",
        grouped(total),
        grouped(highest)
    )?;
    let lines = if middle.is_some() { vec![0, HEIGHT / 2, HEIGHT] } else { vec![0, HEIGHT] };
    for y in lines {
        writeln!(page, "<line class=\"grid\" x1=\"0\" x2=\"{width}\" y1=\"{y}\" y2=\"{y}\"/>")?;
    }
    for (number, counts) in parts.iter().enumerate() {
        let count = series.of(counts);
        if count == 0 {
            continue;
        }
        // One is seen beside a million.
        let height = scaled(count, top, HEIGHT).max(HEIGHT / 80);
        let begins = part(over_time.begins(number), over_time.step);
        writeln!(
            page,
            "<rect class=\"part {class}\" x=\"{}\" y=\"{}\" width=\"8\" height=\"{height}\"><title>{begins}: {} {class}</title></rect>",
            number * 10 + 1,
            HEIGHT - height,
            grouped(count)
        )?;
    }
    page.push_str("</svg>\n<div class=\"days\" aria-hidden=\"true\">");
    let ticks = TICKS.min(parts.len()).max(2);
    for tick_number in 0..ticks {
        let number = tick_number * parts.len().saturating_sub(1) / (ticks - 1);
        write!(page, "<span>{}</span>", tick(over_time.begins(number), over_time.step))?;
        if parts.len() == 1 {
            break;
        }
    }
    page.push_str("</div>\n</div>\n</figure>\n");
    Ok(())
}

/// The same as numbers.
pub(super) fn table(page: &mut String, over_time: &OverTime) -> std::fmt::Result {
    let name = step(over_time.step);
    writeln!(
        page,
        "<details>\n<summary>As a table</summary>\n<div class=\"rows\">\n<table>\n<caption>Issued, revoked and refused per {name}</caption>\n\
         <thead><tr><th scope=\"col\">From</th><th scope=\"col\" class=\"number\">Issued</th><th scope=\"col\" class=\"number\">Revoked</th>\
         <th scope=\"col\" class=\"number\">Refused</th></tr></thead>\n<tbody>"
    )?;
    for (number, counts) in over_time.parts.iter().enumerate() {
        let begins = part(over_time.begins(number), over_time.step);
        write!(page, "<tr><th scope=\"row\">{begins}</th>")?;
        for count in [counts.issued, counts.revoked, counts.refused] {
            write!(page, "<td class=\"number\">{}</td>", grouped(count))?;
        }
        page.push_str("</tr>\n");
    }
    page.push_str("</tbody>\n</table>\n</div>\n</details>\n");
    Ok(())
}

/// One that lies under the name it belongs to; the number is beside it.
pub(super) fn bar(count: u64, highest: u64, class: &str) -> String {
    let width = scaled(count, highest, HEIGHT).max(u64::from(count > 0) * 4);
    format!(
        "<svg viewBox=\"0 0 {HEIGHT} 10\" preserveAspectRatio=\"none\" aria-hidden=\"true\"><rect class=\"track\" width=\"{HEIGHT}\" height=\"10\"/>\
         <rect class=\"{class}\" width=\"{width}\" height=\"10\"/></svg>"
    )
}

/// In integers: the same on any machine.
fn scaled(count: u64, of: u64, to: u64) -> u64 {
    u64::try_from(u128::from(count) * u128::from(to) / u128::from(of.max(1))).unwrap_or(to)
}

/// The lowest of 1, 2, 3, 4, 5, 6, 8 and 10 times a power of ten that nothing is above.
fn top_of_scale(highest: u64) -> u64 {
    let mut power = 1_u64;
    loop {
        for step in [1, 2, 3, 4, 5, 6, 8] {
            let top = power.saturating_mul(step);
            if top >= highest {
                return top;
            }
        }
        power = power.saturating_mul(10);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scale_ends_above_all_and_not_far_above() {
        assert_eq!(
            [0, 1, 3, 9, 10, 11, 60, 61, 999, 4_001].map(top_of_scale),
            [1, 1, 3, 10, 10, 20, 60, 80, 1000, 5000]
        );
        assert!(top_of_scale(u64::MAX) == u64::MAX);
    }
}
