//! A real process: its own log file, an end with its test, and its log in the test's output when the test fails.

use std::ffi::{OsStr, OsString};
use std::fmt::Write as _;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use crate::program;
use crate::wait::{secs, until_some};

/// How a process is started, and started again.
#[derive(Clone, Debug)]
pub struct Recipe {
    name: String,
    program: PathBuf,
    arguments: Vec<OsString>,
    environment: Vec<(OsString, OsString)>,
    folder: PathBuf,
    log: PathBuf,
}

/// A started process. Dropping it kills it.
#[derive(Debug)]
pub struct Process {
    recipe: Recipe,
    child: Child,
}

/// What a process is sent with [`Process::signal`].
#[derive(Clone, Copy, Debug)]
pub enum Signal {
    /// Ctrl-C.
    Interrupt,
    Terminate,
    Kill,
    Stop,
    Continue,
}

/// Lines of each log that a failed test shows.
const SHOWN_LINES: usize = 120;

impl Recipe {
    /// Runs `program` in `folder`, its standard output and error in `folder/name.log`.
    pub fn new(name: &str, program: impl Into<PathBuf>, folder: &Path) -> Self {
        Self {
            name: name.to_owned(),
            program: program.into(),
            arguments: Vec::new(),
            environment: Vec::new(),
            folder: folder.to_owned(),
            log: folder.join(format!("{name}.log")),
        }
    }

    pub fn arg(mut self, argument: impl AsRef<OsStr>) -> Self {
        self.arguments.push(argument.as_ref().to_owned());
        self
    }

    pub fn args(mut self, arguments: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Self {
        self.arguments.extend(arguments.into_iter().map(|argument| argument.as_ref().to_owned()));
        self
    }

    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.into(), value.into()));
        self
    }

    pub fn start(self) -> Process {
        let child = self.spawn();
        Process { recipe: self, child }
    }

    /// Runs to the end.
    pub fn run(self, within: Duration) -> Finished {
        let mut process = self.start();
        let status = process.wait(within);
        Finished { status, output: process.log() }
    }

    fn spawn(&self) -> Child {
        let mut log =
            File::options().create(true).append(true).open(&self.log).unwrap_or_else(|e| panic!("{:?}: {e}", self.log));
        std::io::Write::write_all(&mut log, format!("$ {}\n", self.command_line()).as_bytes()).expect("a log");
        program::dies_with_parent(&self.program)
            .args(&self.arguments)
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .current_dir(&self.folder)
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a second handle of the log"))
            .stderr(log)
            .spawn()
            .unwrap_or_else(|error| panic!("{}: {error}", self.program.display()))
    }

    fn command_line(&self) -> String {
        let mut line = self.program.display().to_string();
        for argument in &self.arguments {
            write!(line, " {}", argument.display()).expect("a string");
        }
        line
    }
}

/// A process that has ended.
#[derive(Debug)]
pub struct Finished {
    pub status: ExitStatus,
    /// Standard output and error, in the order of writing.
    pub output: String,
}

impl Finished {
    /// # Panics
    /// Unless the process ended with 0.
    #[track_caller]
    pub fn success(self) -> String {
        assert!(self.status.success(), "{}: {}", self.status, self.output);
        self.output
    }
}

impl Process {
    pub fn name(&self) -> &str {
        &self.recipe.name
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// All that it has written, over all its starts.
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.recipe.log).unwrap_or_default()).into_owned()
    }

    pub fn signal(&self, signal: Signal) {
        let signal = match signal {
            Signal::Interrupt => "INT",
            Signal::Terminate => "TERM",
            Signal::Kill => "KILL",
            Signal::Stop => "STOP",
            Signal::Continue => "CONT",
        };
        // The shell's own `kill` is there on every machine.
        let sent = Command::new("sh").arg("-c").arg(format!("kill -{signal} {}", self.pid())).status();
        assert!(sent.is_ok_and(|status| status.success()), "{}: no process to send SIG{signal} to", self.name());
    }

    /// SIGKILL, and waits until it is gone.
    pub fn kill(&mut self) {
        self.child.kill().expect("a child of this process");
        self.child.wait().expect("a child of this process");
    }

    /// The same program with the same arguments once more.
    pub fn start_again(&mut self) {
        assert!(!self.is_running(), "{} still runs", self.name());
        self.child = self.recipe.spawn();
    }

    /// The same with another variable in its environment, now and at each further start.
    pub fn start_again_with(&mut self, name: &str, value: &str) {
        self.recipe.environment.push((name.into(), value.into()));
        self.start_again();
    }

    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().expect("a child of this process").is_none()
    }

    /// Waits for its end.
    ///
    /// # Panics
    /// If it still runs after `within`.
    #[track_caller]
    pub fn wait(&mut self, within: Duration) -> ExitStatus {
        let what = format!("the end of {}", self.name());
        until_some(&what, within, || self.child.try_wait().expect("a child of this process"))
    }

    /// Waits until `condition` holds of this process.
    ///
    /// # Panics
    /// If it ends before, or after `within`.
    #[track_caller]
    pub fn wait_until(&mut self, what: &str, within: Duration, mut condition: impl FnMut(&Self) -> bool) {
        let what = format!("{}: {what}", self.name());
        until_some(&what, within, || {
            if condition(self) {
                return Some(());
            }
            if let Some(status) = self.child.try_wait().expect("a child of this process") {
                panic!("{} ended ({status}) before: {what}", self.name());
            }
            None
        });
    }

    /// Waits until its log has a line with `text` and returns the first such line.
    #[track_caller]
    pub fn wait_for_line(&mut self, text: &str) -> String {
        self.wait_for_line_within(text, secs(30))
    }

    #[track_caller]
    pub fn wait_for_line_within(&mut self, text: &str, within: Duration) -> String {
        self.wait_until(&format!("a line with `{text}`"), within, |process| process.log().contains(text));
        self.log().lines().find(|line| line.contains(text)).unwrap_or_default().to_owned()
    }

    /// Lines of the log with each of `texts` in them.
    pub fn lines_with(&self, texts: &[&str]) -> Vec<String> {
        self.log().lines().filter(|line| texts.iter().all(|text| line.contains(text))).map(str::to_owned).collect()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Already gone is as good.
        drop(self.child.kill());
        drop(self.child.wait());
        if std::thread::panicking() {
            let log = self.log();
            let lines: Vec<_> = log.lines().collect();
            let shown = &lines[lines.len().saturating_sub(SHOWN_LINES)..];
            println!("──── {} ({} of {} lines)\n{}", self.name(), shown.len(), lines.len(), shown.join("\n"));
        }
    }
}
