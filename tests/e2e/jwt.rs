//! Tokens, judged by those who take them: PyJWT and Authlib find the keys by OIDC discovery, curl gets an access token by its certificate.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Command, Output};

use serde_json::Value;
use signet_tests::address::Host;
use signet_tests::ceremony::Ended;
use signet_tests::{Curl, Issuer, Workload, foreign_ca, pages, program, secs};
use tempfile::TempDir;

const ID: &str = "spiffe://example.org/shop/cart";

/// An issuer with a name on the web, and somebody with an identity in files.
struct Web {
    issuer: Issuer,
    folder: TempDir,
    /// `https_web`, and the name of the issuer of tokens.
    web: SocketAddr,
    spiffe: SocketAddr,
    _host: Host,
}

impl Web {
    fn new(algorithm: &str) -> Self {
        let folder = TempDir::new().unwrap();
        let host = Host::new();
        let (web, spiffe) = (host.free(), host.free());
        let path = |name: &str| folder.path().join(name).display().to_string();
        foreign_ca::make_ca(folder.path(), "web-ca", "Web CA");
        let extensions = format!("subjectAltName = IP:{}\nextendedKeyUsage = serverAuth\n", web.ip());
        foreign_ca::make_leaf(folder.path(), "web-ca", "web", foreign_ca::EC, &extensions);
        let configuration = format!(
            "web:\n  listen: WEB\n  tls: {{ listen: '{web}', certificate: {}, key: {} }}\n  spiffe_listen: '{spiffe}'\n\
             jwt:\n  algorithm: {algorithm}\n  issuer: 'https://{web}'\n  access_tokens:\n    \
             - {{ profile: warehouse, audiences: ['https://warehouse.example.org'], scopes: [read, write], ttl: 2m }}\n",
            path("web.pem"),
            path("web.key"),
        );
        let issuer = Issuer::start_with(folder.path(), "example.org", secs(600), &configuration);
        issuer.apply(&pages::fragment("jwt.md", "rules").text);
        let mut cart = Workload::of(issuer.address);
        cart.attest(&issuer.join_token(ID)).unwrap();
        let identity = folder.path().join("identity");
        fs::create_dir(&identity).unwrap();
        fs::write(identity.join("svid.pem"), cart.svid().chain_pem()).unwrap();
        fs::write(identity.join("svid.key"), cart.svid().key_pem()).unwrap();
        fs::copy(&issuer.bundle, identity.join("bundle.pem")).unwrap();
        Self { issuer, folder, web, spiffe, _host: host }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn signet(&self, words: &[&str]) -> Output {
        let mut command = Command::new(program::ours("signet"));
        command.args(words).current_dir(self.folder.path());
        command.env("SIGNET_ISSUER", self.issuer.address.to_string()).env("SIGNET_IDENTITY", self.path("identity"));
        command.output().unwrap()
    }

    #[track_caller]
    fn token(&self, words: &[&str]) -> String {
        let output = self.signet(&[&["fetch", "jwt"], words].concat());
        assert!(output.status.success(), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    /// What an operator is told whose command is refused.
    #[track_caller]
    fn refused(&self, words: &[&str]) -> String {
        let mut command = Command::new(program::ours("signet"));
        Ended(command.args(words).arg("--issuer").arg(&self.issuer.socket).output().unwrap()).refused()
    }

    /// The one key of tokens at this stage.
    #[track_caller]
    fn key(&self, stage: &str) -> String {
        let told = self.issuer.operate_json(&["get", "jwt-keys"]);
        let keys = told["keys"].as_array().unwrap().iter().filter(|key| key["stage"] == stage);
        let [key] = &keys.collect::<Vec<_>>()[..] else { panic!("not one key is {stage}: {told}") };
        key["kid"].as_str().unwrap().to_owned()
    }

    /// What a program of Python says that is given the issuer's URL and these words. The web's CA is the system's there.
    fn python(&self, text: &str, words: &[&str]) -> Result<Value, String> {
        let mut command = Command::new(program::python());
        command.arg("-c").arg(text).arg(format!("https://{}", self.web)).args(words);
        command.env("SSL_CERT_FILE", self.path("web-ca.pem")).env("REQUESTS_CA_BUNDLE", self.path("web-ca.pem"));
        let output = command.output().unwrap();
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        if !output.status.success() {
            return Err(error);
        }
        Ok(serde_json::from_slice(&output.stdout).unwrap_or_else(|cause| panic!("{cause}: {error}")))
    }
}

/// As the documentation of PyJWT does it.
const PYJWT: &str = "
import json, sys, urllib.request, jwt
issuer, token, audience = sys.argv[1:4]
discovery = json.load(urllib.request.urlopen(issuer + '/.well-known/openid-configuration'))
assert discovery['issuer'] == issuer
key = jwt.PyJWKClient(discovery['jwks_uri']).get_signing_key_from_jwt(token)
algorithms = discovery['id_token_signing_alg_values_supported']
options = {'require': ['exp', 'iat', 'sub', 'aud', 'iss']}
claims = jwt.decode(token, key, algorithms=algorithms, audience=audience, issuer=issuer, options=options)
print(json.dumps(claims))
";

/// As a client of OpenID Connect does it, with Authlib.
const AUTHLIB: &str = "
import json, sys, urllib.request
from authlib.jose import JsonWebKey, JsonWebToken
from authlib.oidc.discovery import OpenIDProviderMetadata, get_well_known_url
issuer, token, audience = sys.argv[1:4]
metadata = OpenIDProviderMetadata(json.load(urllib.request.urlopen(get_well_known_url(issuer, external=True))))
for field in ['issuer', 'jwks_uri', 'response_types_supported', 'subject_types_supported', 'id_token_signing_alg_values_supported']:
    getattr(metadata, 'validate_' + field)()
assert metadata['issuer'] == issuer
keys = JsonWebKey.import_key_set(json.load(urllib.request.urlopen(metadata['jwks_uri'])))
wanted = {'iss': {'essential': True, 'value': issuer}, 'aud': {'essential': True, 'value': audience}, 'sub': {'essential': True}}
claims = JsonWebToken(metadata['id_token_signing_alg_values_supported']).decode(token, keys, claims_options=wanted)
claims.validate()
print(json.dumps(claims))
";

#[test]
fn pyjwt_and_an_oidc_client_verify_a_token_by_discovery() {
    for algorithm in ["ES256", "RS256"] {
        let web = Web::new(algorithm);
        let token = web.token(&["--audience", "db", "--audience", "cache"]);
        for program in [PYJWT, AUTHLIB] {
            let claims = web.python(program, &[&token, "db"]).unwrap();
            assert_eq!(claims["sub"], ID, "{algorithm}");
            assert!(claims["exp"].is_i64() && claims["iat"].is_i64(), "{claims}");
            let wrong = web.python(program, &[&token, "somebody"]).unwrap_err();
            assert!(wrong.contains("aud"), "{wrong}");
            let (signed, signature) = token.rsplit_once('.').unwrap();
            let altered = format!("{signed}.{}", signature.chars().rev().collect::<String>());
            web.python(program, &[&altered, "db"]).unwrap_err();
        }
        // The certificate's key and the token's are two: neither passes for the other.
        let [count] = &web.issuer.query("SELECT count(*) FROM issued_jwts")[..] else { panic!("one row") };
        assert_eq!(count, "1");
    }
}

#[test]
fn a_machine_gets_an_access_token_by_its_certificate_as_the_page_says() {
    let web = Web::new("ES256");
    let identity = web.path("identity");
    let url = format!("https://{}/oauth2/token", web.spiffe);
    let post = |body: &[&str]| {
        let curl = Curl::get(&url).insecure().arg("--cert").arg(identity.join("svid.pem"));
        let curl = curl.arg("--key").arg(identity.join("svid.key"));
        body.iter().fold(curl, |curl, parameter| curl.arg("--data-urlencode").arg(parameter)).run()
    };
    let answer = post(&["grant_type=client_credentials", "scope=read"]);
    let told: Value = serde_json::from_str(&answer.expect_status(200).text()).unwrap();
    assert_eq!(
        (&told["token_type"], &told["expires_in"], &told["scope"]),
        (&"Bearer".into(), &60.into(), &"read".into())
    );
    let token = told["access_token"].as_str().unwrap();
    let claims = web.python(PYJWT, &[token, "https://warehouse.example.org"]).unwrap();
    // As whoever takes the token sees it in the handshake (RFC 8705 §3.1).
    let der = foreign_ca::openssl_in(&identity, &["x509", "-in", "svid.pem", "-outform", "DER"]);
    let thumbprint = {
        use base64::Engine as _;
        let hash = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &der);
        base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(hash)
    };
    assert_eq!(claims["cnf"]["x5t#S256"], thumbprint.as_str());
    assert_eq!((&claims["sub"], &claims["scope"]), (&ID.into(), &"read".into()));

    let own = web.token(&["--audience", &format!("https://{}", web.web)]);
    let exchange = |token: &str| {
        post(&[
            "grant_type=urn:ietf:params:oauth:grant-type:token-exchange",
            "subject_token_type=urn:ietf:params:oauth:token-type:jwt",
            &format!("subject_token={token}"),
        ])
    };
    let told: Value = serde_json::from_str(&exchange(&own).expect_status(200).text()).unwrap();
    assert_eq!(
        (&told["issued_token_type"], &told["token_type"], &told["expires_in"]),
        (&"urn:ietf:params:oauth:token-type:access_token".into(), &"Bearer".into(), &60.into())
    );
    let exchanged = told["access_token"].as_str().unwrap();
    let claims = web.python(PYJWT, &[exchanged, "https://warehouse.example.org"]).unwrap();
    assert_eq!((&claims["sub"], &claims["cnf"]["x5t#S256"]), (&ID.into(), &thumbprint.as_str().into()));
    let refused = exchange(token).expect_status(400);
    assert!(refused.text().contains("invalid_grant"), "{}", refused.text());
    let refused = post(&["grant_type=client_credentials", "scope=admin"]).expect_status(400);
    assert!(refused.text().contains("invalid_scope"), "{}", refused.text());
    let stranger = Curl::get(&url).insecure().arg("--data").arg("grant_type=client_credentials").run();
    assert!(stranger.expect_status(401).text().contains("invalid_client"));
    web.issuer.operate(&["ban", ID]);
    assert!(post(&["grant_type=client_credentials"]).expect_status(401).text().contains("invalid_client"));
    assert_eq!(web.signet(&["fetch", "jwt", "--audience", "db"]).status.code(), Some(1));
}

#[test]
fn a_key_that_is_tainted_gives_way_and_one_that_is_revoked_verifies_nothing_any_more() {
    for algorithm in ["ES256", "RS256"] {
        let mut web = Web::new(algorithm);
        let (old, first) = (web.token(&["--audience", "db"]), web.key("active"));
        web.issuer.operate(&["taint", &first, "-m", "its host was broken into"]);
        let (new, second) = (web.token(&["--audience", "db"]), web.key("active"));
        assert_eq!((web.key("tainted"), second != first), (first.clone(), true), "{algorithm}");
        // Whoever fetches the keys anew knows both.
        for token in [&old, &new] {
            assert_eq!(web.python(PYJWT, &[token, "db"]).unwrap()["sub"], ID, "{algorithm}");
        }
        let by = ["--reason", "key-compromise", "--yes"];
        web.issuer.operate(&[&["revoke", "jwt-key", &first], &by[..]].concat());
        for _ in 0..2 {
            let refused = web.python(PYJWT, &[&old, "db"]).unwrap_err();
            assert!(refused.contains("Unable to find a signing key"), "{algorithm}: {refused}");
            assert_eq!(web.python(PYJWT, &[&new, "db"]).unwrap()["sub"], ID, "{algorithm}");
            // The same after a restart.
            web.issuer.process.kill();
            web.issuer.process.start_again();
            web.issuer.wait_until_ready();
        }
        assert_eq!((web.key("revoked"), web.key("active")), (first, second.clone()), "{algorithm}");
        let careful = web.refused(&[&["revoke", "jwt-key", &second], &by[..]].concat());
        assert!(careful.contains("signs tokens now"), "{careful}");
        web.issuer.operate(&[&["revoke", "jwt-key", &second, "--force"], &by[..]].concat());
        assert!(web.python(PYJWT, &[&new, "db"]).is_err());
        let token = web.token(&["--audience", "db"]);
        assert_eq!(web.python(PYJWT, &[&token, "db"]).unwrap()["sub"], ID, "{algorithm}");
    }
}

#[test]
fn the_commands_of_the_page_work() {
    let web = Web::new("ES256");
    let [line] = &pages::shell("jwt.md", &["curl"])[..] else { panic!("the page has another curl") };
    let line = line.replace("issuer.example.org:8444", &web.spiffe.to_string());
    let asked = Command::new("sh").args(["-c", &line]).current_dir(web.path("identity")).output().unwrap();
    let told: Value = serde_json::from_slice(&asked.stdout).unwrap();
    assert_eq!(told["scope"], "read", "{told}");
    let commands = pages::commands("jwt.md");
    assert_eq!(commands.len(), 7);
    let mut signed = web.key("active");
    for mut words in commands {
        if words[0] != "fetch" {
            // The page has a key that nobody has.
            let key = words.iter_mut().find(|word| word.len() == 40);
            key.into_iter().for_each(|key| key.clone_from(&signed));
            web.issuer.operate(&words.iter().map(String::as_str).collect::<Vec<_>>());
            if words[0] == "revoke" {
                signed = web.key("active");
            }
            continue;
        }
        let output = web.signet(&words.iter().map(String::as_str).collect::<Vec<_>>());
        assert!(output.status.success(), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
    }
}
