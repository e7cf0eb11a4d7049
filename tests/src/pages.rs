//! The pages in `docs/`, as far as they can be run.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::program;

/// One top-level key of a YAML block, with all that is below it.
#[derive(Clone, Debug)]
pub struct Fragment {
    /// `PAGE:LINE`.
    pub place: String,
    pub key: String,
    pub text: String,
}

/// The commands of a page: lines of its code blocks that begin with `signet`, without what is said of them.
pub fn commands(page: &str) -> Vec<Vec<String>> {
    let page = text(page);
    let lines = page.lines().filter_map(|line| line.strip_prefix("signet "));
    let command = |line: &str| line.split("   ").next().unwrap_or(line).split_whitespace().map(str::to_owned).collect();
    lines.map(command).collect()
}

/// What a page shows to be typed: the lines behind `$ `.
pub fn typed(page: &str) -> Vec<String> {
    text(page).lines().filter_map(|line| line.strip_prefix("$ ")).map(str::to_owned).collect()
}

/// Types such a line into a shell, and returns what is printed.
///
/// # Panics
/// If it is for another program than `signet`, or is refused.
#[track_caller]
pub fn run(line: &str, folder: &Path, environment: &[(&str, &Path)]) -> String {
    let words = line.strip_prefix("signet ").unwrap_or_else(|| panic!("{line} is for another program"));
    let typed = format!("{} {words}", program::ours("signet").display());
    let environment = environment.iter().map(|(name, path)| (name, path));
    let output = Command::new("sh").arg("-c").arg(typed).current_dir(folder).envs(environment).output();
    let output = output.expect("a shell");
    assert!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Lines of a page's code blocks that begin with one of these programs, for a shell.
pub fn shell(page: &str, programs: &[&str]) -> Vec<String> {
    let page = text(page);
    let mut is_inside = false;
    let is_code = |line: &&str| {
        is_inside ^= line.starts_with("```");
        is_inside
    };
    let code: Vec<_> = page.lines().filter(is_code).collect();
    let is_of = |line: &&&str| line.split_whitespace().next().is_some_and(|first| programs.contains(&first));
    code.iter().filter(is_of).map(|line| (*line).to_owned()).collect()
}

/// What the YAML blocks of a page say, word for word.
pub fn fragments(page: &str) -> Vec<Fragment> {
    let mut found: Vec<Fragment> = Vec::new();
    let (mut is_yaml, mut is_inside) = (false, false);
    for (number, line) in text(page).lines().enumerate() {
        if let Some(language) = line.strip_prefix("```") {
            (is_yaml, is_inside) = (!is_inside && language == "yaml", !is_inside);
        } else if is_yaml {
            let begins = line.split_once(':').filter(|_| line.starts_with(|first: char| first.is_ascii_lowercase()));
            if let Some((key, _)) = begins {
                let place = format!("{page}:{}", number + 1);
                found.push(Fragment { place, key: key.to_owned(), text: String::new() });
            }
            if let Some(last) = found.last_mut().filter(|_| !line.starts_with('#')) {
                last.text.push_str(line);
                last.text.push('\n');
            }
        }
    }
    found
}

/// The only fragment of this key that a page has.
///
/// # Panics
/// If there is none, or another one.
#[track_caller]
pub fn fragment(page: &str, key: &str) -> Fragment {
    let found: Vec<_> = fragments(page).into_iter().filter(|fragment| fragment.key == key).collect();
    let [only] = &found[..] else { panic!("{page} has {} blocks with `{key}`", found.len()) };
    only.clone()
}

/// What stands between backticks in a page's text, on one line.
pub fn spans(page: &str) -> Vec<String> {
    let page = text(page);
    let lines = page.lines().filter(|line| !line.starts_with("```"));
    lines.flat_map(|line| line.split('`').skip(1).step_by(2)).map(str::to_owned).collect()
}

/// The names of all pages.
pub fn all() -> Vec<String> {
    let entries = std::fs::read_dir(folder()).expect("docs/ of this repository");
    let mut names: Vec<_> = entries.map(|entry| entry.expect("an entry").file_name()).collect();
    names.sort();
    names.into_iter().filter_map(|name| name.into_string().ok()).filter(|name| name.ends_with(".md")).collect()
}

impl Fragment {
    /// The same with one key misspelt: once for each key that is in it.
    pub fn misspelt(&self) -> Vec<Self> {
        let ends: Vec<_> = self.text.match_indices(':').map(|(end, _)| end).filter(|end| self.is_key(*end)).collect();
        let misspell = |end: usize| {
            let (before, after) = self.text.split_at(end);
            Self { text: format!("{before}x{after}"), ..self.clone() }
        };
        ends.into_iter().map(misspell).collect()
    }

    /// Whether a key ends here: a word at the beginning of a line, an entry or a brace, and a colon before a space.
    fn is_key(&self, end: usize) -> bool {
        let (before, after) = self.text.split_at(end);
        let line = before.rsplit('\n').next().unwrap_or_default();
        let word = line.len() - line.trim_end_matches(|c: char| c.is_ascii_alphanumeric() || "_.-".contains(c)).len();
        let lead = line[..line.len() - word].trim_end();
        let begins = ["", "-"].contains(&lead.trim_start()) || lead.ends_with(['{', ',', '[']);
        word > 0 && begins && !line.contains('#') && after[1..].starts_with([' ', '\n'])
    }
}

fn text(page: &str) -> String {
    let path = folder().join(page);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs")
}

#[cfg(test)]
mod tests {
    use super::Fragment;

    #[test]
    fn each_key_is_misspelt_and_nothing_else() {
        let text = "a:\n  - b: 1, c: x # d: e\n    f: { g: 'https://h', i: [j, k] }\n    l.m: n\n";
        let fragment = Fragment { place: String::new(), key: "a".to_owned(), text: text.to_owned() };
        let misspelt: Vec<_> = fragment.misspelt().into_iter().map(|one| one.text).collect();
        let expected = ["ax:", "- bx:", ", cx:", "fx:", "{ gx:", ", ix:", "l.mx:"];
        assert_eq!(misspelt.len(), expected.len(), "{misspelt:?}");
        for (text, key) in misspelt.iter().zip(expected) {
            assert!(text.contains(key), "{key} {text}");
        }
    }
}
