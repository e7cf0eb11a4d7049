//! The CPU time that processes have used.

use std::time::Duration;

/// `USER_HZ`: Linux reports process times in hundredths of a second on every architecture that Signet runs on (proc(5)).
const TICK: Duration = Duration::from_millis(10);

/// User and system time of all threads of these processes so far; `None` when one of them is gone.
pub(super) fn used_by(processes: &[u32]) -> Option<Duration> {
    processes.iter().map(|process| scheduled(*process).or_else(|| in_ticks(*process))).sum()
}

fn in_ticks(process: u32) -> Option<Duration> {
    parse(&std::fs::read_to_string(format!("/proc/{process}/stat")).ok()?)
}

/// The time that its threads ran: the first number in each thread's `schedstat`. A tick is a tenth of what a light load takes.
fn scheduled(process: u32) -> Option<Duration> {
    let nanos = std::fs::read_dir(format!("/proc/{process}/task")).ok()?.map(|thread| {
        let times = std::fs::read_to_string(thread.ok()?.path().join("schedstat")).ok()?;
        times.split_ascii_whitespace().next()?.parse::<u64>().ok()
    });
    nanos.sum::<Option<u64>>().map(Duration::from_nanos)
}

fn parse(stat: &str) -> Option<Duration> {
    // The second field is the program's name in parentheses and may itself hold spaces and parentheses.
    let (_, fields) = stat.rsplit_once(')')?;
    let mut times = fields.split_ascii_whitespace().skip(11).map(str::parse::<u32>);
    let (user, system) = (times.next()?.ok()?, times.next()?.ok()?);
    Some(TICK * user + TICK * system)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use super::*;

    #[test]
    fn the_time_of_its_threads_is_the_time_of_a_process() {
        let before = used_by(&[std::process::id()]).unwrap();
        let start = std::time::Instant::now();
        while start.elapsed() < Duration::from_millis(20) {}
        assert!(used_by(&[std::process::id()]).unwrap() > before);
        assert_eq!(used_by(&[std::process::id(), u32::MAX]), None);
    }

    #[test]
    fn the_name_of_the_program_does_not_confuse() {
        let stat = "7 (a) b) S 1 1 1 0 -1 4194560 900 0 0 0 150 25 0 0 20 0 1 0 5 6 7";
        assert_eq!(parse(stat), Some(Duration::from_millis(1750)));
        assert_eq!(parse("7 (a) S 1"), None);
    }
}
