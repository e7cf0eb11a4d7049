//! Certificates for keys that their holder brings: what each profile makes, to whom it is given, and what it is no good for.

use std::time::Duration;

use identity_issuer::root;
use rcgen::{CertificateParams, KeyPair, PKCS_ED25519, PKCS_RSA_SHA256, RsaKeySize};
use signet_identity::SystemClock;
use signet_proto::admin::v1::{
    BanRequest, EvictAgentsRequest, GetStatusRequest, ImportAuthoritiesRequest, RequestAuthoritiesRequest,
    evict_agents_request,
};
use signet_proto::identity::v1::identity_service_client::IdentityServiceClient;
use signet_proto::identity::v1::{CertificateRequest, IssueRequest, IssueResult, Refusal, X509Svid, issue_result};
use tonic::{Code, Status};
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

use crate::harness::{ID, Identity, Issuer, Place, csr, hello, new_key, renew};
use crate::proving::{PODS, TOKENS, TokenMaker, of_cluster, prove};

const RULES: &str = "rules:
  - name: release
    match: { svid.spiffe_id: spiffe://example.org/shop/cart }
    spiffe_id: spiffe://example.org/signing/shop
    profile: code-signing
    ttl: 1h
  - name: database
    match: { svid.spiffe_id: 'spiffe://example.org/shop/*' }
    spiffe_id: spiffe://example.org/shop/db
    dns_names: [db.shop.example.org]
    profile: tls-server
  - name: legacy
    match: { svid.spiffe_id: spiffe://example.org/shop/cart }
    spiffe_id: spiffe://example.org/shop/legacy
    profile: tls-client
  - name: machine
    match: { svid.spiffe_id: spiffe://example.org/shop/cart }
    spiffe_id: spiffe://example.org/shop/machine
    profile: device
  - name: web
    match: { svid.spiffe_id: spiffe://example.org/shop/cart }
    spiffe_id: spiffe://example.org/shop/web
    dns_names: [web.example.org]
    profile: web
  - name: region
    match: { svid.spiffe_id: spiffe://example.org/shop/cart }
    spiffe_id: spiffe://example.org/region/eu
    profile: subordinate-ca
    ttl: 30m";

const WEB: &str = "profiles:
  - { name: web, like: tls-server, keys: [p256], permit: 'dns_names.all(name, name.endsWith(\".web.example.org\"))' }";

async fn issue(
    issuer: &Issuer,
    holder: &Identity,
    requests: Vec<CertificateRequest>,
) -> Result<Vec<IssueResult>, Status> {
    Ok(issuer.client_of(holder).await.issue(IssueRequest { requests }).await?.into_inner().results)
}

fn asks(profile: &str, csr: Vec<u8>) -> CertificateRequest {
    CertificateRequest { csr, profile: profile.to_owned(), ..CertificateRequest::default() }
}

/// What comes of one request.
async fn one(issuer: &Issuer, holder: &Identity, request: CertificateRequest) -> Result<X509Svid, Refusal> {
    let result = issue(issuer, holder, vec![request]).await.unwrap().pop().unwrap();
    match result.result.unwrap() {
        issue_result::Result::Certificate(certificate) => Ok(certificate),
        issue_result::Result::Refusal(refusal) => Err(refusal),
    }
}

fn parsed(svid: &X509Svid) -> X509Certificate<'_> {
    X509Certificate::from_der(&svid.chain[0]).unwrap().1
}

fn names(certificate: &X509Certificate<'_>) -> Vec<String> {
    let Some(names) = certificate.subject_alternative_name().unwrap() else { return Vec::new() };
    let name = |name: &GeneralName<'_>| match name {
        GeneralName::URI(name) | GeneralName::DNSName(name) => (*name).to_owned(),
        other => panic!("{other:?}"),
    };
    names.value.general_names.iter().map(name).collect()
}

async fn serving(settings: &str) -> (Place, Issuer, Identity) {
    let mut place = Place::with(&format!("{settings}\n{WEB}"));
    place.path_length = 1;
    let issuer = place.serve().await;
    issuer.apply(RULES).await;
    let holder = issuer.join(ID).await;
    (place, issuer, holder)
}

#[tokio::test(flavor = "multi_thread")]
async fn each_profile_makes_what_it_is_for_and_nothing_else() {
    let (place, issuer, holder) = serving("").await;
    let signing = one(&issuer, &holder, asks("code-signing", csr(&new_key()))).await.unwrap();
    let usage = parsed(&signing);
    let usage = usage.extended_key_usage().unwrap().unwrap().value;
    assert!(usage.code_signing && !usage.any && !usage.client_auth && !usage.server_auth);
    // No SPIFFE ID: some that verify X.509-SVIDs look at no purpose.
    assert!(names(&parsed(&signing)).is_empty());
    assert_eq!(parsed(&signing).subject().to_string(), "CN=example.org/signing/shop");
    assert_eq!(signing.spiffe_id, "spiffe://example.org/signing/shop");
    assert_eq!(signing.not_after.unwrap().seconds - signing.not_before.unwrap().seconds, 3600);
    assert_eq!(signing.profile, "code-signing");

    let rsa = KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, RsaKeySize::_2048).unwrap();
    let server = one(&issuer, &holder, asks("tls-server", csr(&rsa))).await.unwrap();
    let certificate = parsed(&server);
    assert_eq!(names(&certificate), ["db.shop.example.org"]);
    let usage = certificate.key_usage().unwrap().unwrap().value;
    assert!(usage.digital_signature() && usage.key_encipherment() && !usage.key_cert_sign());
    let usage = certificate.extended_key_usage().unwrap().unwrap().value;
    assert!(usage.server_auth && !usage.client_auth);
    assert_eq!(
        place
            .count("SELECT count(*) FROM issued WHERE profile = 'tls-server' AND attestation = 'x509_svid_beside'")
            .await,
        1
    );
    issuer.until_metric("signet_issuer_issued_total{profile=\"code-signing\",result=\"issued\"} 1").await;
    issuer.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_identity_opens_no_way_to_the_issuer() {
    let (_place, issuer, holder) = serving("").await;
    // In TLS 1.3 the refusal of the handshake comes only with the first answer: it is no answer of the issuer's.
    let refused = async |svid: X509Svid, key: &KeyPair| match issuer.channel_showing(svid.chain, key).await {
        Ok(channel) => {
            let answer = renew(&mut IdentityServiceClient::new(channel), csr(&new_key())).await;
            let told = format!("{:?}", answer.as_ref().err());
            assert!(answer.is_err() && told.contains("transport::Error"), "{told}");
            true
        }
        Err(_) => true,
    };
    for profile in ["code-signing", "tls-server", "tls-client", "subordinate-ca"] {
        let key = new_key();
        let svid = one(&issuer, &holder, asks(profile, csr(&key))).await.unwrap();
        assert!(refused(svid, &key).await, "{profile}");
    }
    // One that is, does: it is attested by whom it came from.
    let key = KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, RsaKeySize::_2048).unwrap();
    let device = one(&issuer, &holder, asks("device", csr(&key))).await.unwrap();
    let device = Identity::new(device, key);
    issuer.client_of(&device).await.watch(hello()).await.unwrap();
    issuer.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_is_given_what_no_rule_of_the_profile_gives() {
    let (_place, issuer, holder) = serving("").await;
    let other = issuer.join("spiffe://example.org/shop/other").await;
    let stranger = issuer.join("spiffe://example.org/billing/x").await;
    one(&issuer, &other, asks("tls-server", csr(&new_key()))).await.unwrap();
    let denied = i32::from(Code::PermissionDenied);
    let wrong = i32::from(Code::InvalidArgument);
    for (who, request, code, told) in [
        (
            &other,
            asks("code-signing", csr(&new_key())),
            denied,
            "no rule for svid.spiffe_id=spiffe://example.org/shop/other",
        ),
        (&stranger, asks("tls-server", csr(&new_key())), denied, "no rule for"),
        // A rule for another use is none for an identity.
        (&other, asks("", csr(&new_key())), denied, "no rule for"),
        (
            &holder,
            asks("gold", csr(&new_key())),
            wrong,
            "profile: there is no profile `gold`; there are code-signing, device,",
        ),
        (&holder, asks("web", csr(&new_key())), denied, "not such as the profile `web` permits"),
        (&holder, asks("web", csr(&KeyPair::generate_for(&PKCS_ED25519).unwrap())), wrong, "those accepted: p256"),
        (
            &holder,
            asks("code-signing", csr(&KeyPair::generate_for(&PKCS_ED25519).unwrap())),
            wrong,
            "those accepted: p256, p384, rsa3072",
        ),
        (&holder, asks("tls-server", Vec::new()), wrong, "csr: is empty"),
        (&holder, asks("tls-server", csr(&holder.key)), wrong, "its key was certified before"),
        (
            &holder,
            CertificateRequest { spiffe_id: ID.to_owned(), ..asks("tls-server", csr(&new_key())) },
            denied,
            "only spiffe://example.org/shop/db",
        ),
        (
            &holder,
            CertificateRequest {
                ttl: Some(prost_types::Duration { seconds: 3601, nanos: 0 }),
                ..asks("code-signing", csr(&new_key()))
            },
            wrong,
            "ttl: not between 10s and 1h",
        ),
        (
            &holder,
            CertificateRequest {
                ttl: Some(prost_types::Duration { seconds: 60, nanos: 0 }),
                ..asks("device", csr(&new_key()))
            },
            wrong,
            "ttl: an identity lives as long as its rule says",
        ),
        (
            &holder,
            CertificateRequest {
                ttl: Some(prost_types::Duration { seconds: -1, nanos: 0 }),
                ..asks("code-signing", csr(&new_key()))
            },
            wrong,
            "ttl: negative",
        ),
    ] {
        let refused = one(&issuer, who, request).await.unwrap_err();
        assert!(refused.code == code && refused.message.contains(told), "{told}: {refused:?}");
    }
    let shorter = CertificateRequest {
        ttl: Some(prost_types::Duration { seconds: 60, nanos: 0 }),
        ..asks("code-signing", csr(&new_key()))
    };
    let short = one(&issuer, &holder, shorter).await.unwrap();
    assert_eq!(short.not_after.unwrap().seconds - short.not_before.unwrap().seconds, 60);
    issuer.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_that_comes_out_too_long_for_a_profile_is_not_given() {
    let place = Place::with(TOKENS);
    let maker = TokenMaker::at(&place);
    let issuer = place.serve().await;
    let server = "\n  - { name: server, match: { k8s.cluster: prod }, spiffe_id: 'spiffe://example.org/db/{k8s.service_account}', profile: tls-server }";
    issuer.apply(&format!("{PODS}{server}")).await;
    for (account, fits) in [("a".repeat(49), true), ("a".repeat(50), false)] {
        let pod = prove(&issuer, of_cluster("prod", &maker.pod("shop", &account))).await.unwrap();
        match one(&issuer, &pod, asks("tls-server", csr(&new_key()))).await {
            Ok(_) => assert!(fits, "{account}"),
            Err(refused) => assert!(!fits && refused.message.contains("more than 64 characters"), "{refused:?}"),
        }
    }
    issuer.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn names_that_a_profile_permits_are_given() {
    let (_place, issuer, holder) = serving("").await;
    issuer.apply(&RULES.replace("[web.example.org]", "[shop.web.example.org]")).await;
    let web = one(&issuer, &holder, asks("web", csr(&new_key()))).await.unwrap();
    assert_eq!(names(&parsed(&web)), ["shop.web.example.org"]);
    issuer.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_request_of_many_that_is_refused_holds_up_no_other() {
    let (place, issuer, holder) = serving("").await;
    let twice = csr(&new_key());
    let mut requests: Vec<_> = (0..98).map(|_| asks("tls-server", csr(&new_key()))).collect();
    requests.insert(50, asks("tls-server", vec![0; 10]));
    requests.push(asks("tls-server", twice.clone()));
    let results = issue(&issuer, &holder, requests).await.unwrap();
    assert_eq!(results.len(), 100);
    for (index, result) in results.into_iter().enumerate() {
        match result.result.unwrap() {
            issue_result::Result::Certificate(_) => assert_ne!(index, 50),
            issue_result::Result::Refusal(refusal) => {
                assert_eq!(index, 50);
                assert_eq!(refusal.message, "requests[50]: csr: is not a PKCS#10 request in DER");
            }
        }
    }
    assert_eq!(place.count("SELECT count(*) FROM issued WHERE profile = 'tls-server'").await, 99);

    let both = issue(&issuer, &holder, vec![asks("tls-server", csr(&new_key())), asks("tls-server", twice)]).await;
    let certified = both.unwrap().into_iter().map(|result| result.result.unwrap());
    let certified = certified.filter(|result| matches!(result, issue_result::Result::Certificate(_))).count();
    assert_eq!(certified, 1, "a key that was certified before");
    for wrong in [0, 101] {
        let requests = (0..wrong).map(|_| asks("tls-server", Vec::new())).collect();
        let refused = issue(&issuer, &holder, requests).await.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument);
    }
    issuer.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn many_requests_at_once_take_as_many_turns() {
    let (_place, issuer, holder) = serving("limits: { renewals_per_minute: 20 }").await;
    let many = |count| (0..count).map(|_| asks("tls-server", csr(&new_key()))).collect();
    issue(&issuer, &holder, many(12)).await.unwrap();
    let refused = issue(&issuer, &holder, many(12)).await.unwrap_err();
    assert_eq!(refused.code(), Code::ResourceExhausted);
    assert!(refused.metadata().get("grpc-retry-pushback-ms").is_some());
    issue(&issuer, &holder, many(5)).await.unwrap();
    issuer.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_is_banned_takes_along_what_it_was_given_beside_its_identity() {
    let (_place, issuer, holder) = serving("").await;
    let key = new_key();
    let device = Identity::new(one(&issuer, &holder, asks("device", csr(&key))).await.unwrap(), key);
    let mut stream = issuer.client_of(&device).await.watch(hello()).await.unwrap().into_inner();
    assert!(stream.message().await.unwrap().is_some());
    let ban = BanRequest { spiffe_id: ID.to_owned(), reason: "stolen".to_owned() };
    issuer.admin().await.ban(ban).await.unwrap();
    while let Ok(Some(_)) = stream.message().await {}
    let refused = issuer.client_of(&device).await.watch(hello()).await.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied);
    let refused = issue(&issuer, &holder, vec![asks("tls-server", csr(&new_key()))]).await.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied);
    issuer.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leaf_lives_a_sixth_of_its_authoritys_life_at_most_and_operators_are_told() {
    let (place, issuer, holder) = serving("").await;
    let life = |svid: &X509Svid| svid.not_after.unwrap().seconds - svid.not_before.unwrap().seconds;
    // Twelve hours, and five minutes for clocks that are late.
    let sixth = (12 * 3600 + 300) / 6;
    let device = one(&issuer, &holder, asks("device", csr(&new_key()))).await.unwrap();
    assert_eq!(life(&device), sixth, "not the seven days of its profile");
    let signing = one(&issuer, &holder, asks("code-signing", csr(&new_key()))).await.unwrap();
    assert_eq!(life(&signing), 3600, "what is shorter stays as it is");
    // What the profile `device` and the web servers' two would have. An authority below this one is no leaf.
    let status = issuer.admin().await.get_status(GetStatusRequest {}).await.unwrap().into_inner();
    assert_eq!((status.authority.unwrap().longest_life.unwrap().seconds, status.lives_cut), (sixth, 3));
    issuer.until_metric("signet_issuer_lives_cut 3").await;

    let asked = issuer
        .admin()
        .await
        .request_authorities(RequestAuthoritiesRequest { count: 1, discard: Vec::new() })
        .await
        .unwrap();
    let asked = asked.into_inner().requests_pem;
    let signed = |life| {
        let root = root::sign(&place.path("root"), &place.passphrase(), asked.as_bytes(), 1, life, &SystemClock);
        ImportAuthoritiesRequest { certificates_pem: root.unwrap().to_pem() }
    };
    let short = signed(Duration::from_secs(3600));
    let told = issuer.admin().await.import_authorities(short).await.unwrap().into_inner();
    assert_eq!(told.authorities[0].longest_life.unwrap().seconds, 3900 / 6);
    let [warning] = &told.warnings[..] else { panic!("{:?}", told.warnings) };
    assert!(warning.contains("rule `machine` of the profile `device` (7d)") && warning.contains("42d"), "{warning}");
    issuer.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_issuer_below_another_one_is_believed_by_the_same_root() {
    let (place, issuer, holder) = serving("").await;
    let below = place.beside();
    let waiting = below.start().await.unwrap();
    let request = std::fs::read(below.path("state/authority.csr")).unwrap();
    let request = pem::parse(request).unwrap().into_contents();
    let ca = one(&issuer, &holder, asks("subordinate-ca", request)).await.unwrap();
    assert_eq!(names(&parsed(&ca)), ["spiffe://example.org"]);
    let constraints = parsed(&ca);
    let constraints = constraints.basic_constraints().unwrap().unwrap();
    assert!(constraints.value.ca && constraints.value.path_len_constraint == Some(0));
    let chain: String = ca.chain.iter().map(|der| pem::encode(&pem::Pem::new("CERTIFICATE", der.clone()))).collect();
    std::fs::write(below.path("authority.pem.new"), chain).unwrap();
    std::fs::rename(below.path("authority.pem.new"), below.path("authority.pem")).unwrap();
    let mut nested = waiting;
    nested.serving().await;
    // A member of the one is known to the other, by a chain of three.
    let member = nested.join("spiffe://example.org/shop/nested").await;
    assert_eq!(member.svid.chain().len(), 3);
    let refused = renew(&mut issuer.client_of(&member).await, csr(&new_key())).await.unwrap_err();
    assert!(refused.message().contains("not on record at this issuer"), "{}", refused.message());
    nested.stop().await;
    issuer.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_authority_that_may_sign_no_ca_signs_none() {
    let place = Place::with(WEB);
    let issuer = place.serve().await;
    issuer.apply(RULES).await;
    let holder = issuer.join(ID).await;
    let refused = one(&issuer, &holder, asks("subordinate-ca", csr(&new_key()))).await.unwrap_err();
    assert_eq!(refused.code, i32::from(Code::FailedPrecondition));
    assert_eq!(place.count("SELECT count(*) FROM issued WHERE profile = 'subordinate-ca'").await, 0);
    issuer.stop().await;
}

/// Of what a request says, only the key is taken.
#[tokio::test(flavor = "multi_thread")]
async fn names_and_usages_in_a_request_do_not_count() {
    let (_place, issuer, holder) = serving("").await;
    let mut params = CertificateParams::new(["bank.example".to_owned()]).unwrap();
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    params.key_usages = vec![rcgen::KeyUsagePurpose::KeyCertSign];
    let hostile = params.serialize_request(&new_key()).unwrap().der().to_vec();
    let server = one(&issuer, &holder, asks("tls-server", hostile)).await.unwrap();
    let certificate = parsed(&server);
    assert!(!certificate.basic_constraints().unwrap().unwrap().value.ca);
    assert!(!certificate.key_usage().unwrap().unwrap().value.key_cert_sign());
    assert_eq!(names(&certificate), ["db.shop.example.org"]);
    issuer.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_somebody_was_given_more_is_renewed_for_as_long_as_the_rule_is_there() {
    let (_place, issuer, holder) = serving("").await;
    let key = new_key();
    let device = Identity::new(one(&issuer, &holder, asks("", csr(&key))).await.unwrap(), key);
    assert_eq!(device.svid.id().to_string(), "spiffe://example.org/shop/machine");
    let key = new_key();
    let renewed = renew(&mut issuer.client_of(&device).await, csr(&key)).await.unwrap().into_inner().svid.unwrap();
    assert_eq!(renewed.profile, "device");
    let device = Identity::new(renewed, key);
    // The holder's own identity came by a token, and needs no rule. This one has nothing else.
    issuer.apply("rules: []").await;
    let refused = renew(&mut issuer.client_of(&device).await, csr(&new_key())).await.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied);
    renew(&mut issuer.client_of(&holder).await, csr(&new_key())).await.unwrap();
    issuer.stop().await;
}

/// Whoever signs below the issuer's authority chooses serial numbers as it likes.
#[tokio::test(flavor = "multi_thread")]
async fn a_serial_number_on_record_makes_nobody_of_a_certificate_that_is_not() {
    let (_place, issuer, holder) = serving("").await;
    let ca_key = new_key();
    let ca = one(&issuer, &holder, asks("subordinate-ca", csr(&ca_key))).await.unwrap();
    let below = rcgen::Issuer::from_ca_cert_der(&ca.chain[0].clone().into(), ca_key).unwrap();
    let own = holder.svid.chain()[0].clone();
    let (_, own) = X509Certificate::from_der(&own).unwrap();
    for (id, serial) in [(ID, own.raw_serial()), ("spiffe://example.org/people/root", own.raw_serial()), (ID, &[7; 16])]
    {
        let mut params = CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.subject_alt_names = vec![rcgen::SanType::URI(id.try_into().unwrap())];
        params.is_ca = rcgen::IsCa::ExplicitNoCa;
        params.key_usages = vec![rcgen::KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages =
            vec![rcgen::ExtendedKeyUsagePurpose::ServerAuth, rcgen::ExtendedKeyUsagePurpose::ClientAuth];
        params.use_authority_key_identifier_extension = true;
        params.serial_number = Some(rcgen::SerialNumber::from_slice(serial));
        params.not_before = time::OffsetDateTime::now_utc() - Duration::from_secs(60);
        params.not_after = time::OffsetDateTime::now_utc() + Duration::from_secs(600);
        let key = new_key();
        let leaf = params.signed_by(&key, &below).unwrap();
        let chain = [vec![leaf.der().to_vec()], ca.chain.clone()].concat();
        let channel = issuer.channel_showing(chain, &key).await.unwrap();
        let mut client = IdentityServiceClient::new(channel);
        let refused = renew(&mut client, csr(&new_key())).await.unwrap_err();
        assert_eq!(refused.code(), Code::PermissionDenied);
        assert!(refused.message().contains("not on record at this issuer"), "{}", refused.message());
        assert_eq!(client.watch(hello()).await.unwrap_err().code(), Code::PermissionDenied);
    }
    issuer.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_given_beside_an_identity_ends_with_it_and_gives_nothing_more() {
    let place = Place::with(TOKENS);
    let maker = TokenMaker::at(&place);
    let issuer = place.serve().await;
    let machine = "\n  - { name: machine, match: { svid.spiffe_id: 'spiffe://example.org/ns/shop/*' }, spiffe_id: 'spiffe://example.org/shop/machine', profile: device }
  - { name: more, match: { svid.spiffe_id: 'spiffe://example.org/shop/*' }, spiffe_id: 'spiffe://example.org/shop/more', profile: device }";
    issuer.apply(&format!("{PODS}{machine}")).await;
    let pod = prove(&issuer, of_cluster("prod", &maker.pod("shop", "cart"))).await.unwrap();
    let key = new_key();
    let device = Identity::new(one(&issuer, &pod, asks("device", csr(&key))).await.unwrap(), key);
    renew(&mut issuer.client_of(&device).await, csr(&new_key())).await.unwrap();
    // A second one from the first would outlive a ban of that.
    let refused = issue(&issuer, &device, vec![asks("device", csr(&new_key()))]).await.unwrap_err();
    assert!(refused.message().contains("ask as spiffe://example.org/ns/shop/sa/cart"), "{}", refused.message());

    // Its own rule is still there, and the one of the pod is not.
    issuer.apply(&format!("{}{machine}", PODS.replace("[prod, lab]", "[lab]"))).await;
    for refused in [
        renew(&mut issuer.client_of(&device).await, csr(&new_key())).await.unwrap_err(),
        renew(&mut issuer.client_of(&pod).await, csr(&new_key())).await.unwrap_err(),
    ] {
        assert_eq!(refused.code(), Code::PermissionDenied);
    }
    assert_eq!(
        one(&issuer, &pod, asks("device", csr(&new_key()))).await.unwrap_err().code,
        i32::from(Code::PermissionDenied)
    );
    issuer.apply(&format!("{PODS}{machine}")).await;
    renew(&mut issuer.client_of(&device).await, csr(&new_key())).await.unwrap();
    // To evict what was given is to evict what it came from.
    let agents = Some(evict_agents_request::Agents::SpiffeId("spiffe://example.org/shop/machine".to_owned()));
    let evicted = issuer.admin().await.evict_agents(EvictAgentsRequest { agents }).await.unwrap().into_inner();
    assert_eq!(evicted.agents, 1);
    for identity in [&device, &pod] {
        let refused = renew(&mut issuer.client_of(identity).await, csr(&new_key())).await.unwrap_err();
        assert_eq!(refused.code(), Code::PermissionDenied);
    }
    issuer.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_that_is_given_beside_an_identity_outlives_the_rule_of_that() {
    let place = Place::with(TOKENS);
    let maker = TokenMaker::at(&place);
    let issuer = place.serve().await;
    let soon = time::OffsetDateTime::now_utc() + Duration::from_secs(300);
    let soon = soon.replace_nanosecond(0).unwrap();
    let text = soon.format(&time::format_description::well_known::Rfc3339).unwrap();
    let rules = format!(
        "{}\n    expires: {text}\n  - {{ name: machine, match: {{ svid.spiffe_id: 'spiffe://example.org/ns/*' }}, spiffe_id: 'spiffe://example.org/shop/machine', profile: device }}",
        PODS
    );
    issuer.apply(&rules).await;
    let pod = prove(&issuer, of_cluster("prod", &maker.pod("shop", "cart"))).await.unwrap();
    let device = one(&issuer, &pod, asks("device", csr(&new_key()))).await.unwrap();
    assert_eq!(device.not_after.unwrap().seconds, soon.unix_timestamp());
    issuer.stop().await;
}
