//! The examples of the SDK do what they say.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::fs;
use std::path::PathBuf;

use signet_test_pki::{Authority, pem};
use signet_tests::issuer::Issuer;
use signet_tests::mesh::TRUST_DOMAIN;
use signet_tests::{Recipe, Signal, program, secs};
use tempfile::TempDir;

#[test]
fn a_server_and_a_client_of_the_examples_know_each_other_across_renewals() {
    let folder = TempDir::new().unwrap();
    let mut issuer = Issuer::start(folder.path(), TRUST_DOMAIN, secs(6));
    issuer.wait_until_ready();
    let token = |name: &str| {
        let path = folder.path().join(format!("{name}.token"));
        fs::write(&path, issuer.join_token(&format!("spiffe://{TRUST_DOMAIN}/{name}"))).unwrap();
        path
    };
    let start = |example: &str, token: PathBuf, address: &str| {
        Recipe::new(example, example_program(example), folder.path())
            .arg(issuer.address.to_string())
            .arg(&issuer.bundle)
            .arg(token)
            .arg(address)
            .start()
    };
    let mut server = start("hyper_server", token("hello"), "127.0.0.1:0");
    let listening = server.wait_for_line("listening on ");
    let address = listening.rsplit(' ').next().unwrap().trim().to_owned();
    let mut client = start("hyper_client", token("me"), &address);
    // One a second: longer than the life of the first identities.
    client.wait_until("ten greetings", secs(60), |client| {
        client.lines_with(&["hello, spiffe://example.org/me"]).len() >= 10
    });
    client.kill();
    server.signal(Signal::Interrupt);
    assert!(server.wait(secs(6)).success(), "{}", server.log());
}

#[test]
fn the_grpc_example_serves_and_calls_itself_from_files() {
    let folder = TempDir::new().unwrap();
    let authority = Authority::root(TRUST_DOMAIN).intermediate();
    let issued = authority.leaf("spiffe://example.org/shop/cart").issue();
    fs::write(folder.path().join("svid.pem"), issued.chain_pem()).unwrap();
    fs::write(folder.path().join("svid.key"), issued.key_pem()).unwrap();
    fs::write(folder.path().join("bundle.pem"), pem("CERTIFICATE", authority.root_certificate())).unwrap();
    let run = |expected: &str| {
        let example = Recipe::new("grpc", example_program("grpc"), folder.path());
        example.arg(folder.path()).arg(expected).run(secs(20))
    };
    assert!(run("spiffe://example.org/shop/*").success().contains("Serving"));
    assert!(!run("spiffe://example.org/bank/*").status.success(), "a server that is somebody else");
}

/// Examples lie beside the programs; `cargo test` builds them.
fn example_program(name: &str) -> PathBuf {
    program::ours(&format!("examples/{name}"))
}
