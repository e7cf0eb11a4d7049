//! How many files and connections a test and what it starts may have open.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// As many as the machine lets this user have; 1,024 are the rule where nobody asks. Those started from now on have it too.
///
/// # Panics
/// If that is less than `needed`.
pub fn allow(needed: u64) {
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum }).expect("what is allowed");
    let most = limit.maximum.unwrap_or(u64::MAX);
    assert!(most >= needed, "this user may have {most} files open (`ulimit -Hn`), and the test needs {needed}");
}
