//! Clocks that are not those of everybody, for one process: what is signed with their date cannot be made older, or looked at for long, in any other way.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime};

use crate::program;

/// A library that, as `LD_PRELOAD`, has a program live so much later. Its monotonic clock is as it was.
pub fn later(folder: &Path, by: Duration) -> PathBuf {
    library(folder, "later", LATER, &format!("-DBY={}", by.as_secs()))
}

/// The same so much earlier.
pub fn earlier(folder: &Path, by: Duration) -> PathBuf {
    library(folder, "earlier", LATER, &format!("-DBY=-{}", by.as_secs()))
}

/// The same so much later only as long as there is a file `flag`.
pub fn later_while(folder: &Path, by: Duration, flag: &Path) -> PathBuf {
    library(folder, "jumps", LATER, &format!("-DBY={} -DWHILE=\"{}\"", by.as_secs(), flag.display()))
}

/// A clock that runs faster.
#[derive(Clone, Copy, Debug)]
pub struct Fast {
    /// Since when, Unix seconds.
    since: u64,
}

impl Fast {
    /// So many seconds pass for each one.
    pub const SPEED: u64 = 10;

    /// Begins now.
    #[expect(clippy::new_without_default, reason = "each is another one")]
    pub fn new() -> Self {
        Self { since: unix(SystemTime::now()).as_secs() }
    }

    /// What it shows, Unix seconds.
    pub fn now(self) -> u64 {
        let since = Duration::from_secs(self.since);
        self.since + ((unix(SystemTime::now()) - since) * Self::SPEED as u32).as_secs()
    }

    /// A library that, as `LD_PRELOAD`, has all of a program go by it: the wall clock, the monotonic one, and how long it waits for events.
    pub fn library(self, folder: &Path) -> PathBuf {
        library(folder, "fast", FAST, &format!("-DSINCE={} -DSPEED={}", self.since, Self::SPEED))
    }
}

fn unix(time: SystemTime) -> Duration {
    time.duration_since(SystemTime::UNIX_EPOCH).expect("a clock after 1970")
}

fn library(folder: &Path, name: &str, source: &str, defines: &str) -> PathBuf {
    let (path, library) = (folder.join(format!("{name}.c")), folder.join(format!("{name}.so")));
    fs::write(&path, source).expect("a file");
    let mut cc = Command::new(program::third_party("cc"));
    cc.args(["-shared", "-fPIC"]).args(defines.split(' ')).arg("-o").arg(&library).arg(&path);
    let output = cc.output().expect("a compiler");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    library
}

const LATER: &str = "#define _GNU_SOURCE
#include <stddef.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#ifndef WHILE
#define WHILE (const char *)NULL
#endif

int clock_gettime(clockid_t clock, struct timespec *now) {
    int failed = (int)syscall(SYS_clock_gettime, clock, now);
    if (!failed && clock == CLOCK_REALTIME && (!WHILE || !access(WHILE, F_OK))) now->tv_sec += BY;
    return failed;
}
";

const FAST: &str = "#define _GNU_SOURCE
#include <sys/epoll.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

static void scale(struct timespec *now, long long since) {
    long long nanos = ((long long)(now->tv_sec - since) * 1000000000LL + now->tv_nsec) * SPEED;
    now->tv_sec = since + nanos / 1000000000LL;
    now->tv_nsec = nanos % 1000000000LL;
}

int clock_gettime(clockid_t clock, struct timespec *now) {
    int failed = (int)syscall(SYS_clock_gettime, clock, now);
    if (!failed && clock == CLOCK_REALTIME) scale(now, SINCE);
    if (!failed && clock == CLOCK_MONOTONIC) scale(now, 0);
    return failed;
}

int epoll_wait(int epoll, struct epoll_event *events, int most, int timeout) {
    if (timeout > 0) timeout = (timeout + SPEED - 1) / SPEED;
    return (int)syscall(SYS_epoll_pwait, epoll, events, most, timeout, (void *)0, 8);
}
";
