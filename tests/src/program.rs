//! Where the programs of these tests are: ours beside the test that runs, third-party ones on the machine.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::LazyLock;

/// A program of this workspace, as `cargo build --workspace` left it.
///
/// # Panics
/// If it has not been built.
pub fn ours(name: &str) -> PathBuf {
    static FOLDER: LazyLock<PathBuf> = LazyLock::new(|| {
        // target/PROFILE/deps/TEST-HASH
        let test = env::current_exe().expect("the path of this test");
        test.ancestors().nth(2).expect("a test lies in target/PROFILE/deps").to_owned()
    });
    let path = FOLDER.join(name);
    assert!(path.exists(), "{} is not built: `cargo build --workspace` first, or use tests/run", path.display());
    path
}

/// A third-party program.
///
/// # Panics
/// If it is not on this machine.
pub fn third_party(name: &str) -> PathBuf {
    find(name).unwrap_or_else(|| panic!("{name} is not on this machine; tests/run installs what the tests need"))
}

/// Python with the libraries that `tests/run` installs.
///
/// # Panics
/// If they are not there.
pub fn python() -> PathBuf {
    // target/PROFILE/deps/TEST-HASH
    let test = env::current_exe().expect("the path of this test");
    let path = test.ancestors().nth(3).expect("a test lies in target/PROFILE/deps").join("python/bin/python");
    assert!(path.exists(), "{} is not there; tests/run makes it", path.display());
    path
}

/// A program in Go that `tests/run` installs.
///
/// # Panics
/// If it is not there.
pub fn go(name: &str) -> PathBuf {
    // target/PROFILE/deps/TEST-HASH
    let test = env::current_exe().expect("the path of this test");
    let path = test.ancestors().nth(3).expect("a test lies in target/PROFILE/deps").join("go/bin").join(name);
    assert!(path.exists(), "{} is not there; tests/run makes it", path.display());
    path
}

/// A third-party program that tests can do without.
pub fn find(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    // Daemons live where only root's PATH looks.
    env::split_paths(&path).chain(["/usr/sbin".into(), "/sbin".into()]).map(|dir| dir.join(name)).find(|p| p.is_file())
}

/// A command that is killed when the test that started it is, however that ends.
pub(crate) fn dies_with_parent(program: &Path) -> Command {
    match find("setpriv") {
        Some(setpriv) => {
            let mut command = Command::new(setpriv);
            command.args(["--pdeathsig", "KILL", "--"]).arg(program);
            command
        }
        None => Command::new(program),
    }
}
