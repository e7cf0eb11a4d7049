//! Two trust domains that federate, each with an issuer, as processes: by both profiles, through a gateway, and when one is gone.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::fs;
use std::net::SocketAddr;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use signet_tests::address::Host;
use signet_tests::tokens::{PROVIDER, TokenMaker};
use signet_tests::wait::until;
use signet_tests::{Curl, GatewayPlan, IdentityFiles, Issuer, Nginx, Workload, foreign_ca, pages, secs};
use tempfile::TempDir;

const PARTNER: &str = "partner.example";

/// An issuer of the partner's, at both kinds of endpoints.
struct Partner {
    issuer: Issuer,
    configuration: String,
    folder: TempDir,
    web: SocketAddr,
    spiffe: SocketAddr,
    _host: Host,
}

impl Partner {
    fn new() -> Self {
        Self::of(PARTNER)
    }

    fn of(trust_domain: &str) -> Self {
        let folder = TempDir::new().unwrap();
        let host = Host::new();
        let (web, spiffe) = (host.free(), host.free());
        foreign_ca::make_ca(folder.path(), "web-ca", "Web CA");
        let extensions = format!("subjectAltName = IP:{}\nextendedKeyUsage = serverAuth\n", web.ip());
        foreign_ca::make_leaf(folder.path(), "web-ca", "web", foreign_ca::EC, &extensions);
        let path = |name: &str| folder.path().join(name).display().to_string();
        let configuration = format!(
            "web:\n  listen: WEB\n  tls: {{ listen: '{web}', certificate: {}, key: {} }}\n  spiffe_listen: '{spiffe}'\njwt: {{}}\n",
            path("web.pem"),
            path("web.key"),
        );
        let issuer = Issuer::start_with(folder.path(), trust_domain, secs(600), &configuration);
        Self { issuer, configuration, folder, web, spiffe, _host: host }
    }

    /// At the same addresses, with another root and nothing of what was.
    fn begin_anew(&mut self) {
        self.issuer.process.kill();
        let folder = self.folder.path().join("anew");
        fs::create_dir(&folder).unwrap();
        self.issuer = Issuer::start_with(&folder, PARTNER, secs(600), &self.configuration);
    }

    /// Somebody of the partner's, as files.
    fn workload(&self) -> IdentityFiles {
        let mut workload = Workload::of(self.issuer.address);
        workload.attest(&self.issuer.join_token("spiffe://partner.example/shop")).unwrap();
        workload.svid().write(self.folder.path(), "shop")
    }
}

fn federations(issuer: &Issuer) -> Vec<Value> {
    issuer.operate_json(&["federate", "list"])["federations"].as_array().unwrap().clone()
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[test]
fn the_commands_of_the_page_work_by_either_profile() {
    let partner = Partner::new();
    let folder = TempDir::new().unwrap();
    let issuer = Issuer::start(folder.path(), "example.org", secs(600));
    let commands = pages::commands("federation.md");
    assert_eq!(commands.len(), 5);
    let (spiffe, web_ca) = (format!("https://{}/", partner.spiffe), partner.folder.path().join("web-ca.pem"));
    for words in &commands {
        let words = words.iter().map(|word| match word.as_str() {
            "partner.pem" => text(&partner.issuer.bundle),
            url if url.starts_with("https://") => &spiffe,
            other => other,
        });
        issuer.operate(&words.collect::<Vec<_>>());
    }
    assert_eq!(federations(&issuer), Vec::<Value>::new());
    let url = format!("https://{}/bundle.json", partner.web);
    issuer.operate(&["federate", "add", PARTNER, "--url", &url, "--profile", "https_web", "--ca", text(&web_ca)]);
    let [known] = &federations(&issuer)[..] else { panic!("one") };
    assert_eq!((&known["x509_authorities"], &known["jwt_authorities"]), (&json!(1), &json!(1)));
    assert_eq!((&known["profile"], &known["refused"]), (&json!("https_web"), &json!("")));
}

#[test]
fn a_bundle_of_the_configuration_is_fetched_from_a_spiffe_endpoint_as_the_page_says() {
    let partner = Partner::of("spiffe.example");
    let page = pages::fragment("federation.md", "federation").text;
    // The last of its entries. The others are of partners that are not here.
    let entry = page.rsplit_once("  - trust_domain: ").expect("several entries").1;
    let entry = entry.replace("https://issuer.spiffe.example:8444/", &format!("https://{}/", partner.spiffe));
    let entry = entry.replace("bundle: spiffe.pem", &format!("bundle: {}", partner.issuer.bundle.display()));
    assert!(entry.starts_with("spiffe.example\n") && entry.contains("profile: https_spiffe"), "{entry}");
    let other = entry.replace("spiffe://spiffe.example/signet/issuer", "spiffe://spiffe.example/signet/other");
    assert_ne!(entry, other);
    for (entry, is_believed) in [(entry, true), (other, false)] {
        let folder = TempDir::new().unwrap();
        let configuration = format!("federation:\n  - trust_domain: {entry}");
        let issuer = Issuer::start_with(folder.path(), "example.org", secs(600), &configuration);
        let known = || federations(&issuer).pop().expect("the one of the configuration");
        // The file has no keys of tokens: they are from the endpoint.
        let is_settled = || known()["jwt_authorities"] == 1 || known()["refused"] != "";
        until("the endpoint was asked", secs(20), is_settled);
        let known = known();
        assert_eq!((&known["trust_domain"], &known["profile"]), (&json!("spiffe.example"), &json!("https_spiffe")));
        assert_eq!((known["jwt_authorities"] == 1, known["refused"] == ""), (is_believed, is_believed), "{known}");
    }
}

#[test]
fn a_partner_that_has_begun_anew_is_taken_by_the_word_of_an_operator_as_the_page_says() {
    let mut partner = Partner::new();
    let folder = TempDir::new().unwrap();
    let issuer = Issuer::start(folder.path(), "example.org", secs(600));
    let (url, web_ca) = (format!("https://{}/bundle.json", partner.web), partner.folder.path().join("web-ca.pem"));
    issuer.operate(&["federate", "add", PARTNER, "--url", &url, "--profile", "https_web", "--ca", text(&web_ca)]);
    let commands = pages::commands("federation.md");
    let refreshes = commands.iter().filter(|words| words[1] == "refresh");
    let refreshes: Vec<Vec<&str>> = refreshes.map(|words| words.iter().map(String::as_str).collect()).collect();
    let [plain, accepting] = &refreshes[..] else { panic!("two of the page: {refreshes:?}") };
    assert!(!plain.contains(&"--accept") && accepting.contains(&"--accept"), "{refreshes:?}");
    // Of the root that is trusted.
    let x5c = |issuer: &Issuer| {
        let der = foreign_ca::openssl_in(folder.path(), &["x509", "-in", text(&issuer.bundle), "-outform", "DER"]);
        STANDARD.encode(der)
    };
    let kept = || {
        let files = fs::read_dir(issuer.database.with_file_name("federation")).unwrap();
        files.map(|file| fs::read_to_string(file.unwrap().path()).unwrap()).collect::<String>()
    };
    let before = x5c(&partner.issuer);
    assert!(kept().contains(&before));

    partner.begin_anew();
    let after = x5c(&partner.issuer);
    let refused = issuer.signet_in(folder.path(), plain);
    let error = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(refused.status.code() == Some(1) && error.contains("--accept"), "{error}");
    assert!(federations(&issuer)[0]["refused"] != "" && kept().contains(&before) && !kept().contains(&after));

    issuer.operate(accepting);
    assert_eq!(federations(&issuer)[0]["refused"], "");
    assert!(kept().contains(&after) && !kept().contains(&before));
    issuer.operate(plain);
}

const RULES: &str = "rules:
  - name: gateway
    match: { oidc.provider: ci, oidc.claim.repository: acme/gateway }
    spiffe_id: spiffe://example.org/gateway
    federates_with: [partner.example]
";

#[test]
fn a_gateway_accepts_a_partners_workload_once_its_issuer_federates_and_until_it_does_no_more() {
    let partner = Partner::new();
    let folder = TempDir::new().unwrap();
    let maker = TokenMaker::at(folder.path());
    let mut issuer = Issuer::start_with(folder.path(), "example.org", secs(600), PROVIDER);
    let url = format!("https://{}/", partner.spiffe);
    let add = ["federate", "add", PARTNER, "--url", &url, "--profile", "https_spiffe"];
    let of = ["--spiffe-id", "spiffe://partner.example/signet/issuer", "--bundle", text(&partner.issuer.bundle)];
    issuer.operate(&[&add[..], &of].concat());
    issuer.apply(RULES);
    let token = folder.path().join("token");
    fs::write(&token, maker.token("gateway", json!({"repository": "acme/gateway"}))).unwrap();
    let nginx = Nginx::start();
    nginx.serve_random("page", 64);
    let credential = format!("oidc: {{ provider: ci, token_file: {} }}", token.display());
    let mut gateway = GatewayPlan::new("federated")
        .identity_by(issuer.address, "example.org", &issuer.bundle, &credential)
        .inbound(&["spiffe://partner.example/**"], &nginx.url())
        .start();
    let shop = partner.workload();
    let ask = || Curl::get(gateway.inbound_url("/page")).identity(&shop).run();
    ask().expect_status(200);

    // The partner's issuer is gone, and ours begins anew: what is known is enough.
    let Partner { issuer: mut gone, folder: _folder, .. } = partner;
    gone.process.kill();
    issuer.process.kill();
    issuer.process.start_again();
    issuer.wait_until_ready();
    until("the endpoint is missed", secs(20), || federations(&issuer).iter().any(|one| one["refused"] != ""));
    assert_eq!(federations(&issuer)[0]["x509_authorities"], 1);
    ask().expect_status(200);

    issuer.operate(&["federate", "remove", PARTNER]);
    until("the partner is trusted no more", secs(20), || ask().status == 0);
    assert!(gateway.process.is_running());
}
