//! A terminal with nobody at it but the test.

use std::fs::File;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use rustix::fs::{Mode, OFlags, open};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};

use crate::wait::{secs, until, until_some};

/// What a program is given as its standard input, for what it asks of a person.
#[derive(Debug)]
pub struct Terminal {
    keyboard: File,
    screen: File,
}

impl Terminal {
    pub fn new() -> Self {
        let keyboard = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).expect("a pseudo-terminal");
        grantpt(&keyboard).expect("our own");
        unlockpt(&keyboard).expect("our own");
        let name = ptsname(&keyboard, Vec::new()).expect("its name");
        let screen = open(name.as_c_str(), OFlags::RDWR | OFlags::NOCTTY, Mode::empty()).expect("its other side");
        Self { keyboard: keyboard.into(), screen: screen.into() }
    }

    pub fn stdin(&self) -> Stdio {
        self.screen.try_clone().expect("a second handle").into()
    }

    pub fn type_line(&mut self, text: &str) {
        writeln!(self.keyboard, "{text}").expect("a terminal that reads");
    }
}

impl Default for Terminal {
    fn default() -> Self {
        Self::new()
    }
}

/// A program with a person who was asked and has not answered yet.
#[derive(Debug)]
pub struct Asked {
    terminal: Terminal,
    child: Child,
    told: PathBuf,
}

impl Asked {
    /// What the command says goes to `told`; returns once it has asked this.
    pub fn by(mut command: Command, told: PathBuf, question: &str) -> Self {
        let terminal = Terminal::new();
        let output = File::create(&told).expect("a file of ours");
        command.stdin(terminal.stdin()).stdout(output.try_clone().expect("a second handle")).stderr(output);
        let asked = Self { terminal, child: command.spawn().expect("a program"), told };
        until("it asks", secs(10), || asked.told().ends_with(question));
        asked
    }

    pub fn told(&self) -> String {
        std::fs::read_to_string(&self.told).expect("a file of ours")
    }

    /// The exit code, and all that was told.
    pub fn answer(mut self, text: &str) -> (Option<i32>, String) {
        self.terminal.type_line(text);
        let ended = until_some("its end", secs(10), || self.child.try_wait().expect("a child"));
        (ended.code(), self.told())
    }
}

impl Drop for Asked {
    fn drop(&mut self) {
        // Mostly gone already.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}
