//! A gateway whose identity comes from files that something else writes, well or badly.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::fs;

use signet_test_pki::{Authority, Issued, pem};
use signet_tests::files::replace;
use signet_tests::tls::TlsClient;
use signet_tests::wait::{throughout, until};
use signet_tests::workload::serial_of;
use signet_tests::{Curl, Gateway, GatewayPlan, IdentityFiles, Nginx, Pki, millis, secs};
use tempfile::TempDir;

const SERVER: &str = "spiffe://example.org/gateway/inbound";

#[test]
fn a_new_certificate_is_live_at_the_next_handshake_without_a_restart() {
    let watched = Watched::start();
    let before = watched.serial_shown();
    let next = watched.pki.issuing.leaf(SERVER).issue();
    watched.pki.write("server", &next);
    let expected = serial_of(&next.chain[0]);
    assert_ne!(before, expected);
    until("the new certificate is shown", secs(5), || watched.serial_shown() == expected);
    until("the rotation is counted", secs(5), || watched.rotations("rotated") >= 2.0);
    watched.serves();
}

#[test]
fn open_connections_stay_when_the_certificate_changes() {
    let watched = Watched::start();
    let mut open = signet_tests::SClient::to(watched.gateway.listener("inbound")).identity(&watched.client).start();
    open.send("GET /hello HTTP/1.1\r\nhost: test\r\n\r\n");
    open.wait_for("hello from nginx", secs(5));

    let next = watched.pki.issuing.leaf(SERVER).issue();
    watched.pki.write("server", &next);
    until("the new certificate is shown", secs(5), || watched.serial_shown() == serial_of(&next.chain[0]));
    throughout("the old connection is open", secs(1), || !open.has_ended());
    open.send("GET /missing HTTP/1.1\r\nhost: test\r\n\r\n");
    open.wait_for("404 Not Found", secs(5));
}

#[test]
fn an_update_that_is_unusable_leaves_the_old_identity_and_is_counted() {
    let good = |watched: &Watched| watched.pki.issuing.leaf(SERVER).issue();
    type Update = fn(&Watched, &Issued) -> (String, String);
    let updates: [(&str, Update); 7] = [
        ("half a certificate", |_, next| {
            let chain = next.chain_pem();
            (chain[..chain.len() / 3].to_owned(), next.key_pem())
        }),
        ("an empty certificate", |_, next| (String::new(), next.key_pem())),
        ("noise", |_, next| ("\0\u{1}noise".to_owned(), next.key_pem())),
        ("half a key", |_, next| (next.chain_pem(), next.key_pem()[..80].to_owned())),
        ("the key of another certificate", |watched, next| {
            (next.chain_pem(), watched.pki.issuing.leaf(SERVER).issue().key_pem())
        }),
        ("an expired certificate", |watched, _| {
            let now = time::OffsetDateTime::now_utc();
            let old = watched.pki.issuing.leaf(SERVER);
            let old = old.valid(now - time::Duration::hours(2), now - time::Duration::hours(1)).issue();
            (old.chain_pem(), old.key_pem())
        }),
        ("a certificate of another CA", |_, _| {
            let stranger = Authority::root("example.org").intermediate().leaf(SERVER).issue();
            (stranger.chain_pem(), stranger.key_pem())
        }),
    ];
    let watched = Watched::start();
    for (what, update) in updates {
        let before = watched.serial_shown();
        let refused = watched.rotations("refused");
        let (chain, key) = update(&watched, &good(&watched));
        IdentityFiles::write_pem(watched.pki.folder(), "server", &chain, &key);

        until(&format!("{what} is counted"), secs(5), || watched.rotations("refused") > refused);
        assert_eq!(watched.serial_shown(), before, "{what}");
        watched.serves();

        let next = good(&watched);
        watched.pki.write("server", &next);
        let expected = serial_of(&next.chain[0]);
        until(&format!("a good one after {what}"), secs(5), || watched.serial_shown() == expected);
    }
}

#[test]
fn a_file_written_in_two_halves_is_taken_up_whole() {
    let watched = Watched::start();
    let before = watched.serial_shown();
    let next = watched.pki.issuing.leaf(SERVER).issue();
    let chain = next.chain_pem();
    // In place, as a careless script does it.
    fs::write(&watched.server.key, next.key_pem()).unwrap();
    fs::write(&watched.server.certificate, &chain[..chain.len() / 2]).unwrap();
    throughout("the old identity is served", secs(1), || watched.serial_shown() == before);
    fs::write(&watched.server.certificate, chain).unwrap();
    until("the new certificate is shown", secs(5), || watched.serial_shown() == serial_of(&next.chain[0]));
    watched.serves();
}

#[test]
fn files_that_vanish_leave_the_old_identity() {
    let watched = Watched::start();
    let before = watched.serial_shown();
    fs::remove_file(&watched.server.certificate).unwrap();
    fs::remove_file(&watched.server.key).unwrap();
    throughout("the old identity is served", secs(1), || watched.serial_shown() == before);
    watched.serves();
}

#[test]
fn a_bundle_that_loses_an_authority_ends_the_connections_it_vouched_for() {
    let watched = Watched::start();
    let other = Authority::root("example.org");
    let both =
        format!("{}{}", fs::read_to_string(&watched.pki.bundle).unwrap(), pem("CERTIFICATE", other.certificate()));
    replace(&watched.pki.bundle, &both);
    let guest = watched.pki.write("guest", &other.intermediate().leaf("spiffe://example.org/guest").issue());
    let get = |who: &IdentityFiles| Curl::get(watched.gateway.inbound_url("/hello")).identity(who).run().status;
    until("the second authority's client is served", secs(5), || get(&guest) == 200);

    let open = |who: &IdentityFiles| {
        let mut connection = signet_tests::SClient::to(watched.gateway.listener("inbound")).identity(who).start();
        connection.send("GET /hello HTTP/1.1\r\nhost: test\r\n\r\n");
        connection.wait_for("hello from nginx", secs(5));
        connection
    };
    let (mut guests, mut own) = (open(&guest), open(&watched.client));
    replace(&watched.pki.bundle, &pem("CERTIFICATE", watched.pki.root.certificate()));
    // The files are looked at several times a second; from then on it is a second.
    until("the guest's connection has ended", secs(3), || guests.has_ended());
    assert_eq!(get(&guest), 0);
    throughout("our client's connection is open", millis(500), || !own.has_ended());
    watched.serves();
}

#[test]
fn without_an_identity_a_gateway_accepts_nobody_and_says_why() {
    let folder = tempfile::tempdir().unwrap();
    let pki = Pki::new(folder.path(), "example.org");
    let client = pki.identity("client", "/client");
    let nginx = Nginx::start();
    let missing = IdentityFiles { certificate: folder.path().join("later.pem"), key: folder.path().join("later.key") };
    let mut gateway = GatewayPlan::new("inbound")
        .identity_from_files(&missing, &pki.bundle)
        .inbound(&["spiffe://example.org/**"], &nginx.url())
        .launch();
    let ready = || Curl::get(gateway.admin.url("/ready")).max_time(secs(5)).run();
    until("the admin address says why it is not ready", secs(10), || {
        let answer = ready();
        answer.status == 503 && answer.text().contains("later.pem")
    });
    let get = || Curl::get(gateway.inbound_url("/hello")).identity(&client).max_time(secs(3)).run();
    assert_eq!(get().status, 0);
    assert_eq!(nginx.accesses(), []);

    pki.identity("later", "/gateway/inbound");
    gateway.wait_until_ready();
    let get = || Curl::get(gateway.inbound_url("/hello")).identity(&client).max_time(secs(3)).run();
    get().expect_status(200);
}

/// An inbound gateway with its identity in files, in front of nginx.
struct Watched {
    gateway: Gateway,
    server: IdentityFiles,
    client: IdentityFiles,
    pki: Pki,
    _nginx: Nginx,
    _folder: TempDir,
}

impl Watched {
    fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let pki = Pki::new(folder.path(), "example.org");
        let nginx = Nginx::start();
        let server = pki.identity("server", "/gateway/inbound");
        let gateway = GatewayPlan::new("inbound")
            .identity_from_files(&server, &pki.bundle)
            .inbound(&["spiffe://example.org/**"], &nginx.url())
            .start();
        Self { gateway, server, client: pki.identity("client", "/client"), pki, _nginx: nginx, _folder: folder }
    }

    /// The serial that a handshake made now meets.
    fn serial_shown(&self) -> String {
        let client = TlsClient::connect(self.gateway.listener("inbound"), &self.client, &["http/1.1"]).unwrap();
        serial_of(&client.server_chain()[0])
    }

    fn rotations(&self, result: &str) -> f64 {
        self.gateway.admin.sum("signet_svid_rotations_total", &[("result", result)])
    }

    #[track_caller]
    fn serves(&self) {
        Curl::get(self.gateway.inbound_url("/hello")).identity(&self.client).run().expect_status(200);
    }
}
