//! `signet`: the operator's command. Each verb is one module; this is their table of contents.

#![forbid(unsafe_code)]

mod admin;
mod args;
mod ca;
mod completions;
mod dev;
mod failure;
mod output;
mod passphrase;
mod status;
mod token;

use std::process::ExitCode;

use clap::Parser as _;

use args::{Arguments, CaCommand, Command, TokenCommand};

fn main() -> ExitCode {
    // clap prints usage errors itself and leaves with 2.
    let Arguments { output, command } = Arguments::parse();
    signet_process::start::main(|| match &command {
        Command::Dev(options) => dev::run(options),
        Command::Ca(CaCommand::Init(options)) => ca::init(options, output),
        Command::Ca(CaCommand::Sign(options)) => ca::sign(options, output),
        Command::Ca(CaCommand::Show(options)) => ca::show(options, output),
        Command::Token(TokenCommand::Create(options)) => token::create(options, output),
        Command::Status(options) => status::show(options, output),
        Command::Completions { shell } => completions::print(*shell),
    })
}
