//! A terminal with nobody at it but the test.

use std::fs::File;
use std::io::Write as _;
use std::process::Stdio;

use rustix::fs::{Mode, OFlags, open};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};

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
