//! The pages in `docs/`, as far as they can be run.

use std::path::Path;

/// The commands of a page: lines of its code blocks that begin with `signet`, without what is said of them.
pub fn commands(page: &str) -> Vec<Vec<String>> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs").join(page);
    let page = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let lines = page.lines().filter_map(|line| line.strip_prefix("signet "));
    let command = |line: &str| line.split("   ").next().unwrap_or(line).split_whitespace().map(str::to_owned).collect();
    lines.map(command).collect()
}
