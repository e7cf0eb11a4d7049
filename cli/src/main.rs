//! `signet`: the operator's command. Each verb is one module; this is their table of contents.

#![forbid(unsafe_code)]

mod admin;
mod agents;
mod args;
mod asking;
mod audit;
mod authorities;
mod backup;
mod bundles;
mod ca;
mod completions;
mod dev;
mod entitlements;
mod failure;
mod federation;
mod follow;
mod issue;
mod jwt;
mod jwt_keys;
mod network;
mod output;
mod passphrase;
mod policy;
mod revocations;
mod rotate;
mod status;
mod svids;
mod token;

use std::process::ExitCode;

use clap::Parser as _;

use args::{
    Arguments, AuditCommand, AuditDigestCommand, CaCommand, Command, FederateCommand, FetchCommand, GetCommand,
    RotateCommand, TokenCommand,
};

fn main() -> ExitCode {
    // clap prints usage errors itself and leaves with 2.
    let Arguments { output, command } = Arguments::parse();
    signet_process::start::main(|| match &command {
        Command::Dev(options) => dev::run(options),
        Command::Ca(CaCommand::Init(options)) => ca::init(options, output),
        Command::Ca(CaCommand::Sign(options)) => ca::sign(options, output),
        Command::Ca(CaCommand::Show(options)) => ca::show(options, output),
        Command::Ca(CaCommand::Csr(options)) => authorities::request(options, output),
        Command::Ca(CaCommand::Import(options)) => authorities::import(options, output),
        Command::Ca(CaCommand::Follow(options)) => follow::run(options, output),
        Command::Ca(CaCommand::Crl(options)) => ca::crl(options, output),
        Command::Ca(CaCommand::Log(options)) => ca::log(options, output),
        Command::Ca(CaCommand::VerifyLog(options)) => ca::verify_log(options, output),
        Command::Token(TokenCommand::Create(options)) => token::create(options, output),
        Command::Issue(options) => issue::run(options, output),
        Command::Fetch(FetchCommand::Jwt(options)) => jwt::fetch(options, output),
        Command::Entitlements(options) => entitlements::run(options, output),
        Command::Apply(options) => policy::apply(options, output),
        Command::Get(GetCommand::Policy(options)) => policy::get(options, output),
        Command::Get(GetCommand::Rules(options)) => policy::rules(options, output),
        Command::Get(GetCommand::Agents(options)) => agents::list(options, output),
        Command::Get(GetCommand::Svids(options)) => svids::list(options, output),
        Command::Describe(options) => svids::describe(options, output),
        Command::Get(GetCommand::Bans(options)) => agents::bans(options, output),
        Command::Get(GetCommand::Bundles(options)) => bundles::list(options, output),
        Command::Get(GetCommand::Authorities(options)) => authorities::list(options, output),
        Command::Rotate(RotateCommand::Authority(options)) => rotate::authority(options, output),
        Command::Rotate(RotateCommand::Root(options)) => rotate::root(options, output),
        Command::Get(GetCommand::JwtKeys(options)) => jwt_keys::list(options, output),
        Command::Rotate(RotateCommand::JwtKey(options)) => jwt_keys::rotate(options, output),
        Command::Rotate(RotateCommand::Status(options)) => rotate::status(options, output),
        Command::Rotate(RotateCommand::Cancel(options)) => rotate::cancel(options, output),
        Command::Taint(options) => authorities::taint(options, output),
        Command::Get(GetCommand::Revocations(options)) => revocations::list(options, output),
        Command::Revoke(command) => revocations::revoke(command, output),
        Command::Forget(options) => bundles::forget(options, output),
        Command::Federate(FederateCommand::Add(options)) => federation::add(options, output),
        Command::Federate(FederateCommand::List(options)) => federation::list(options, output),
        Command::Federate(FederateCommand::Refresh(options)) => federation::refresh(options, output),
        Command::Federate(FederateCommand::Remove(options)) => federation::remove(options, output),
        Command::Audit(AuditCommand::Verify(options)) => audit::verify(options, output),
        Command::Audit(AuditCommand::Prove(options)) => audit::prove(options),
        Command::Audit(AuditCommand::VerifyProof(options)) => audit::verify_proof(options, output),
        Command::Audit(AuditCommand::Tail(options)) => audit::tail(options, output),
        Command::Audit(AuditCommand::Search(options)) => audit::search(options, output),
        Command::Audit(AuditCommand::Stream(options)) => audit::stream(options),
        Command::Audit(AuditCommand::Export(options)) => audit::export(options, output),
        Command::Audit(AuditCommand::Digest(AuditDigestCommand::Verify(options))) => {
            audit::verify_digests(options, output)
        }
        Command::Audit(AuditCommand::Monitor(options)) => audit::monitor(options, output),
        Command::Audit(AuditCommand::NewLog(options)) => audit::new_log(options, output),
        Command::Backup(options) => backup::run(options, output),
        Command::Restore(options) => backup::restore(options, output),
        Command::Audit(AuditCommand::Report(options)) => audit::report(options, output),
        Command::Audit(AuditCommand::VerifyReport(options)) => audit::verify_report(options, output),
        Command::Evict(options) => agents::evict(options, output),
        Command::Ban(options) => agents::ban(options, output),
        Command::Unban(options) => agents::unban(options, output),
        Command::Diff(options) => policy::diff(options, output),
        Command::History(options) => policy::history(options, output),
        Command::Rollback(options) => policy::roll_back(options, output),
        Command::Explain(options) => policy::explain(options, output),
        Command::Status(options) => status::show(options, output),
        Command::Completions { shell } => completions::print(*shell),
    })
}
