//! Gateways that prove who they are by what others gave them: a machine certificate and a service-account token, both made by
//! OpenSSL, the token's keys served by it over HTTPS.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::fs;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};
use signet_tests::address::Host;
use signet_tests::foreign_ca::{RSA, make_ca, make_leaf, openssl_in};
use signet_tests::{Admin, Curl, Gateway, GatewayPlan, Issuer, Process, Recipe, program, secs};
use tempfile::TempDir;

const TRUST_DOMAIN: &str = "example.org";

const RULES: &str = "rules:
  - name: machines
    match: { x509.authority: datacenter-1 }
    spiffe_id: spiffe://example.org/machine/{x509.common_name}
  - name: pods
    match: { k8s.cluster: prod }
    spiffe_id: spiffe://example.org/ns/{k8s.namespace}/sa/{k8s.service_account}
";

/// An RSA key that signs tokens, and its key set.
struct Cluster {
    folder: PathBuf,
}

impl Cluster {
    fn in_folder(folder: &Path) -> Self {
        openssl_in(folder, &["genrsa", "-out", "tokens.key", "2048"]);
        let modulus =
            String::from_utf8(openssl_in(folder, &["rsa", "-in", "tokens.key", "-noout", "-modulus"])).unwrap();
        let modulus = hex::decode(modulus.trim().strip_prefix("Modulus=").unwrap()).unwrap();
        let key = json!({"kty": "RSA", "alg": "RS256", "kid": "k", "n": URL_SAFE_NO_PAD.encode(modulus), "e": "AQAB"});
        fs::write(folder.join("jwks"), json!({"keys": [key]}).to_string()).unwrap();
        Self { folder: folder.to_owned() }
    }

    /// As the kubelet would write it for a pod.
    fn token(&self, namespace: &str, account: &str) -> String {
        let now = time::OffsetDateTime::now_utc();
        let claims = json!({
            "iss": "https://kubernetes.default.svc", "aud": ["spiffe://example.org/signet/issuer"],
            "sub": format!("system:serviceaccount:{namespace}:{account}"),
            "iat": now.unix_timestamp(), "exp": now.unix_timestamp() + 600, "jti": now.unix_timestamp_nanos().to_string(),
            "kubernetes.io": {
                "namespace": namespace, "serviceaccount": {"name": account, "uid": "1"}, "pod": {"name": "p", "uid": "2"},
            },
        });
        let part = |json: &Value| URL_SAFE_NO_PAD.encode(json.to_string());
        let signed = format!("{}.{}", part(&json!({"alg": "RS256", "kid": "k"})), part(&claims));
        fs::write(self.folder.join("signed"), &signed).unwrap();
        let signature = openssl_in(&self.folder, &["dgst", "-sha256", "-sign", "tokens.key", "signed"]);
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
    }

    /// Serves the folder over HTTPS.
    fn serve(&self, host: &Host) -> (Process, String) {
        make_ca(&self.folder, "web-ca", "web-ca");
        let address = host.free();
        make_leaf(&self.folder, "web-ca", "web", RSA, &format!("subjectAltName=IP:{}\n", address.ip()));
        let mut server = Recipe::new("s_server", program::third_party("openssl"), &self.folder)
            .arg("s_server")
            .arg("-WWW")
            .arg("-accept")
            .arg(address.to_string())
            .args(["-cert", "web.pem", "-key", "web.key"])
            .start();
        server.wait_until("listening", secs(10), |_| std::net::TcpStream::connect(address).is_ok());
        (server, format!("https://{address}/jwks"))
    }
}

fn gateway(issuer: &Issuer, name: &str, credential: &str) -> Gateway {
    GatewayPlan::new(name)
        .identity_by(issuer.address, TRUST_DOMAIN, &issuer.bundle, credential)
        .inbound(&["spiffe://example.org/**"], "127.0.0.1:1")
        .launch()
}

fn agents(issuer: &Issuer) -> Vec<(String, String, bool)> {
    let listed = issuer.operate_json(&["get", "agents"]);
    let agents = listed["agents"].as_array().unwrap().iter();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    agents.map(|agent| (text(&agent["spiffe_id"]), text(&agent["method"]), agent["connected"] == true)).collect()
}

/// Why a process is not ready; nothing while it does not listen.
fn reasons(admin: Admin) -> String {
    Curl::get(admin.url("/ready")).max_time(secs(5)).run().text()
}

#[test]
fn a_machine_gets_its_identity_by_its_certificate_and_loses_it_when_it_is_banned() {
    let folder = TempDir::new().unwrap();
    let path = folder.path();
    make_ca(path, "datacenter-1", "Data centre 1");
    make_leaf(path, "datacenter-1", "edge-3", RSA, "extendedKeyUsage=clientAuth\n");
    let more = "attestation: { x509_pop: [{ authority: datacenter-1, ca: datacenter-1.pem }] }\n";
    let issuer = Issuer::start_with(path, TRUST_DOMAIN, secs(10), more);
    fs::write(path.join("rules.yaml"), RULES).unwrap();
    let rules = path.join("rules.yaml");
    issuer.operate(&["apply", "--yes", "-f", rules.to_str().unwrap()]);

    let files = format!("x509_pop: {{ certificate: {0}/edge-3.pem, key: {0}/edge-3.key }}", path.display());
    let mut gateway = gateway(&issuer, "edge", &files);
    gateway.wait_until_ready();
    let id = "spiffe://example.org/machine/edge-3";
    let expected = vec![(id.to_owned(), "x509_pop".to_owned(), true)];
    gateway.process.wait_until("connected", secs(10), |_| agents(&issuer) == expected);

    issuer.operate(&["ban", id, "--reason", "stolen"]);
    assert_eq!(issuer.operate_json(&["get", "bans"])["bans"][0]["spiffe_id"], id);
    // Its stream is gone at once; its last certificate runs out, and no other takes its place.
    gateway.process.wait_until("disconnected", secs(5), |_| agents(&issuer).iter().all(|(.., connected)| !connected));
    let admin = gateway.admin;
    gateway.process.wait_until("not ready", secs(30), |_| !admin.is_ready());
    for refused in ["(spiffe://example.org/machine/edge-3 is banned); nor does attesting again help", "(it is banned)"]
    {
        gateway.process.wait_for_line(refused);
    }
    gateway.process.wait_until("forgotten", secs(10), |_| agents(&issuer).is_empty());

    // Nobody has to go there when the ban is lifted.
    issuer.operate(&["unban", id]);
    gateway.process.wait_until("ready again", secs(60), |_| admin.is_ready());
    assert_eq!(issuer.query("SELECT count(*) FROM attestations WHERE method = 'x509_pop'"), ["2"]);
}

#[test]
fn a_pod_gets_its_identity_by_its_token_and_keys_come_over_https() {
    let folder = TempDir::new().unwrap();
    let path = folder.path();
    let host = Host::new();
    let cluster = Cluster::in_folder(path);
    let (_server, url) = cluster.serve(&host);
    let more = format!(
        "attestation:\n  k8s_sa_token:\n    - {{ cluster: prod, issuer: \"https://kubernetes.default.svc\", \
         jwks: {{ url: \"{url}\", ca: web-ca.pem }} }}\n"
    );
    let issuer = Issuer::start_with(path, TRUST_DOMAIN, secs(60), &more);
    let rules = path.join("rules.yaml");
    fs::write(&rules, RULES).unwrap();

    // The token is there before the rule: refused, not used up, and taken once the policy says so.
    fs::write(path.join("token"), cluster.token("shop", "cart")).unwrap();
    let token = format!("k8s_sa_token: {{ token_file: {}/token }}", path.display());
    let mut gateway = gateway(&issuer, "pod", &token);
    let admin = gateway.admin;
    gateway.process.wait_until("told why not", secs(20), |_| {
        reasons(admin).contains("no rule for k8s.cluster=prod k8s.namespace=shop")
    });
    issuer.operate(&["apply", "--yes", "-f", rules.to_str().unwrap()]);
    gateway.process.wait_until("ready", secs(60), |_| admin.is_ready());
    let expected = vec![("spiffe://example.org/ns/shop/sa/cart".to_owned(), "k8s_sa_token".to_owned(), true)];
    gateway.process.wait_until("connected", secs(10), |_| agents(&issuer) == expected);

    // The same token once more, by another process: it was good once.
    let mut thief = self::gateway(&issuer, "thief", &token);
    let told = thief.admin;
    thief.process.wait_until("refused", secs(20), |_| reasons(told).contains("the proof was used before"));
    // A new one is taken up without a restart.
    fs::write(path.join("token"), cluster.token("shop", "web")).unwrap();
    thief.process.wait_until("ready", secs(20), |_| told.is_ready());
}
