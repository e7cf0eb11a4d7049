//! A report as one page: it asks for nothing, runs nothing, and is read without its colours and charts as well.

mod chart;
mod text;

use std::fmt::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::figures::{Figures, Longest, MOST_IDENTITIES, Tally};
use super::{Window, claim};
use crate::checkpoint::Checkpoint;
use crate::sha256;

use chart::Series;
use text::{Escaped, grouped, life, share};

const STYLE: &str = include_str!("html/style.css");
/// How a card begins: one of two beside each other, or one alone, for names that are long.
const HALF: &str = "<section>";
const WIDE: &str = "<section class=\"wide\">";
/// Names in a table.
const MOST_ROWS: usize = 10;

pub(super) fn page(checkpoint: &Checkpoint, window: &Window, figures: &Figures) -> String {
    let mut page = String::with_capacity(64 << 10);
    // Writing to a String cannot fail.
    let _ = head(&mut page, checkpoint, window);
    let _ = summary(&mut page, figures);
    let _ = cards(&mut page, figures);
    let _ = foot(&mut page, checkpoint, window);
    page
}

fn head(page: &mut String, checkpoint: &Checkpoint, window: &Window) -> std::fmt::Result {
    // What is not in this style sheet has no effect, whatever a name is.
    let style = STANDARD.encode(sha256(STYLE.as_bytes()));
    let origin = Escaped(checkpoint.origin.as_str());
    write!(
        page,
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'sha256-{style}'; base-uri 'none'; form-action 'none'\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta name=\"referrer\" content=\"no-referrer\">\n<meta name=\"robots\" content=\"noindex\">\n\
         <title>Certificates of {origin}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n<main>\n\
         <header>\n<p class=\"kind\">Signet audit report</p>\n<h1>{}</h1>\n\
         <p class=\"about\">What was issued, revoked and refused, as the log <span>{origin}</span> has it.</p>\n</header>\n",
        text::window(window)
    )
}

fn summary(page: &mut String, figures: &Figures) -> std::fmt::Result {
    let issued = figures.by_template.total();
    let identities = match figures.identities() {
        MOST_IDENTITIES => format!("{}+", grouped(MOST_IDENTITIES as u64)),
        few => grouped(few as u64),
    };
    let longest = figures.longest.all().first().map_or_else(|| "–".to_owned(), |longest| life(longest.seconds));
    let is_any = |count: u64, class| if count > 0 { class } else { "" };
    let (revoked, refused) = (figures.revoked.total(), figures.refused.total());
    page.push_str("<ul class=\"figures\">\n");
    for (class, figure, name) in [
        ("", grouped(issued), "certificates issued"),
        ("", identities, "identities"),
        ("", grouped(figures.by_authority.names() as u64), "authorities"),
        ("", longest, "longest life"),
        (is_any(revoked, "is-revoked"), grouped(revoked), "revoked"),
        (is_any(refused, "is-refused"), grouped(refused), "refused"),
    ] {
        writeln!(page, "<li class=\"{class}\"><b>{figure}</b><span>{name}</span></li>")?;
    }
    page.push_str("</ul>\n");
    Ok(())
}

fn cards(page: &mut String, figures: &Figures) -> std::fmt::Result {
    page.push_str("<div class=\"cards\">\n");
    let over_time = &figures.over_time;
    let step = text::step(over_time.step);
    writeln!(page, "<section class=\"wide\">\n<h2>Issued per {step}</h2>")?;
    match figures.by_template.total() {
        0 => page.push_str("<p class=\"none\">No certificate was issued in this time.</p>\n"),
        _ => {
            page.push_str("<p class=\"note\">Certificates, in UTC</p>\n");
            chart::write(page, over_time, Series::Issued)?;
            chart::table(page, over_time)?;
        }
    }
    page.push_str("</section>\n");
    tally(page, HALF, "By template", "Certificates issued under each profile", &figures.by_template)?;
    tally(page, HALF, "By attestation", "How whoever asked was recognized", &figures.by_attestation)?;
    for (title, note, series, counts) in [
        ("Revoked", "Certificates, by reason", Series::Revoked, &figures.revoked),
        ("Refused", "Requests and certificates that did not leave, by reason", Series::Refused, &figures.refused),
    ] {
        writeln!(page, "<section>\n<h2>{title}</h2>")?;
        match counts.total() {
            0 => page.push_str("<p class=\"none\">Nothing in this time.</p>\n"),
            _ => {
                writeln!(page, "<p class=\"note\">{note}</p>")?;
                chart::write(page, over_time, series)?;
                rows(page, title, series.class(), counts)?;
            }
        }
        page.push_str("</section>\n");
    }
    tally(page, WIDE, "By authority", "Certificates issued under each key", &figures.by_authority)?;
    longest(page, &figures.longest)?;
    page.push_str("</div>\n");
    Ok(())
}

fn tally(page: &mut String, section: &str, title: &str, note: &str, counts: &Tally) -> std::fmt::Result {
    if counts.total() == 0 {
        return Ok(());
    }
    writeln!(page, "{section}\n<h2>{title}</h2>\n<p class=\"note\">{note}</p>")?;
    rows(page, title, Series::Issued.class(), counts)?;
    page.push_str("</section>\n");
    Ok(())
}

/// A table whose names have bars under them.
fn rows(page: &mut String, title: &str, class: &str, counts: &Tally) -> std::fmt::Result {
    let (top, others) = counts.top(MOST_ROWS);
    let total = counts.total();
    let highest = top.first().map_or(0, |(_, count)| *count);
    writeln!(
        page,
        "<table>\n<caption>{title}</caption>\n<thead><tr><th scope=\"col\">Name</th><th scope=\"col\" class=\"number\">Count</th>\
         <th scope=\"col\" class=\"number share\">Share</th></tr></thead>\n<tbody>"
    )?;
    for (name, count) in top {
        let (shown, bar) = (if name.is_empty() { "none" } else { name }, chart::bar(count, highest, class));
        writeln!(
            page,
            "<tr><th scope=\"row\" class=\"name\">{}{bar}</th><td class=\"number\">{}</td><td class=\"number share\">{}</td></tr>",
            Escaped(shown),
            grouped(count),
            share(count, total)
        )?;
    }
    if others > 0 {
        writeln!(
            page,
            "<tr class=\"others\"><th scope=\"row\" class=\"name\">others</th><td class=\"number\">{}</td><td class=\"number share\">{}</td></tr>",
            grouped(others),
            share(others, total)
        )?;
    }
    page.push_str("</tbody>\n</table>\n");
    Ok(())
}

fn longest(page: &mut String, longest: &Longest) -> std::fmt::Result {
    let Some(first) = longest.all().first() else { return Ok(()) };
    writeln!(
        page,
        "{WIDE}\n<h2>Longest-lived</h2>\n<p class=\"note\">The {} identities with the longest certificates</p>\n<table>\n<caption>Longest-lived</caption>\n\
         <thead><tr><th scope=\"col\">Identity</th><th scope=\"col\" class=\"number\">Life</th></tr></thead>\n<tbody>",
        longest.all().len()
    )?;
    for lived in longest.all() {
        let (id, template) = (Escaped(&lived.id), Escaped(&lived.template));
        let bar = chart::bar(lived.seconds, first.seconds, "long");
        writeln!(
            page,
            "<tr><th scope=\"row\" class=\"name\">{id}<br><span class=\"others\">{template}, log entry {}</span>{bar}</th>\
             <td class=\"number\">{}</td></tr>",
            lived.index,
            life(lived.seconds)
        )?;
    }
    page.push_str("</tbody>\n</table>\n</section>\n");
    Ok(())
}

fn foot(page: &mut String, checkpoint: &Checkpoint, window: &Window) -> std::fmt::Result {
    let Checkpoint { origin, size, root } = checkpoint;
    write!(
        page,
        "<footer>\n<dl>\n<dt>log</dt><dd><code>{}</code></dd>\n<dt>entries</dt><dd>{}</dd>\n<dt>root</dt><dd><code>{root}</code></dd>\n\
         <dt>from</dt><dd>{}</dd>\n<dt>to, not included</dt><dd>{}</dd>\n</dl>\n\
         <p>This page follows from the first {} entries of the log and nothing else. Whoever has the log and its public key makes it again and compares:</p>\n\
         <code class=\"command\">signet audit verify-report FILE LOG --key-file log.key.pub</code>\n</footer>\n</main>\n</body>\n</html>\n",
        Escaped(origin.as_str()),
        grouped(*size),
        claim::shown(window.from()),
        claim::shown(window.to()),
        grouped(*size)
    )
}
