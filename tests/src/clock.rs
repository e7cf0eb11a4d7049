//! A wall clock that is wrong, for one process: what is signed with its date cannot be made older in any other way.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::program;

/// A library that, as `LD_PRELOAD`, has a program live so much later. Its monotonic clock is as it was.
pub fn later(folder: &Path, by: Duration) -> PathBuf {
    let (source, library) = (folder.join("later.c"), folder.join("later.so"));
    fs::write(&source, SOURCE).expect("a file");
    let mut cc = Command::new(program::third_party("cc"));
    cc.args(["-shared", "-fPIC", &format!("-DBY={}", by.as_secs()), "-o"]).arg(&library).arg(&source);
    let output = cc.output().expect("a compiler");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    library
}

const SOURCE: &str = "#define _GNU_SOURCE
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

int clock_gettime(clockid_t clock, struct timespec *now) {
    int failed = (int)syscall(SYS_clock_gettime, clock, now);
    if (!failed && clock == CLOCK_REALTIME) now->tv_sec += BY;
    return failed;
}
";
