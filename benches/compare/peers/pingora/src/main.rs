//! The smallest Pingora proxy that does what the others do: TLS 1.3 from clients that must show a certificate, HTTP/2 or
//! HTTP/1.1 by ALPN, in front of one upstream, plain or over mTLS.
//!
//! `pingora-peer LISTEN UPSTREAM PKI THREADS [mtls]`

#![forbid(unsafe_code)]

use std::net::SocketAddr;
use std::sync::Arc;

use async_trait::async_trait;
use pingora::listeners::tls::TlsSettings;
use pingora::prelude::*;
use pingora::protocols::ALPN;
use pingora::proxy::{ProxyHttp, Session};
use pingora::server::configuration::ServerConf;
use pingora::utils::tls::CertKey;
use rustls::RootCertStore;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;

fn main() -> std::result::Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (listen, upstream, pki, threads, mtls) = match arguments.as_slice() {
        [listen, upstream, pki, threads] => (listen, upstream, pki, threads, false),
        [listen, upstream, pki, threads, word] if word == "mtls" => (listen, upstream, pki, threads, true),
        _ => return Err("LISTEN UPSTREAM PKI THREADS [mtls]".into()),
    };
    let (chain, key) = (format!("{pki}/live/cur/server.pem"), format!("{pki}/live/cur/server.key"));
    let roots_file = format!("{pki}/roots.pem");

    // Before Pingora installs ring: aws-lc has the hybrid group, and the cipher is the same for all proxies.
    let provider = CryptoProvider {
        cipher_suites: vec![aws_lc_rs::cipher_suite::TLS13_AES_128_GCM_SHA256],
        kx_groups: vec![aws_lc_rs::kx_group::X25519MLKEM768, aws_lc_rs::kx_group::X25519],
        ..aws_lc_rs::default_provider()
    };
    provider.install_default().map_err(|_| "a provider is installed already")?;

    let mut roots = RootCertStore::empty();
    for root in CertificateDer::pem_file_iter(&roots_file)? {
        roots.add(root?)?;
    }
    let mut tls = TlsSettings::intermediate(&chain, &key)?;
    tls.set_client_cert_verifier(WebPkiClientVerifier::builder(Arc::new(roots)).build()?);
    tls.enable_h2();

    let conf = ServerConf {
        threads: threads.parse()?,
        upstream_keepalive_pool_size: 1024,
        ca_file: Some(roots_file),
        grace_period_seconds: Some(0),
        graceful_shutdown_timeout_seconds: Some(0),
        ..ServerConf::default()
    };
    let mut peer = HttpPeer::new(upstream.parse::<SocketAddr>()?, mtls, if mtls { "origin.example.org" } else { "" }.into());
    if mtls {
        let certificates = CertificateDer::pem_file_iter(&chain)?.map(|der| der.map(|der| der.to_vec()));
        let key = PrivateKeyDer::from_pem_file(&key)?.secret_der().to_vec();
        peer.client_cert_key = Some(Arc::new(CertKey::new(certificates.collect::<std::result::Result<_, _>>()?, key)));
        peer.options.alpn = ALPN::H1;
    }

    let mut server = Server::new_with_opt_and_conf(None, conf);
    server.bootstrap();
    let mut proxy = http_proxy_service(&server.configuration, Forward { peer });
    proxy.add_tls_with_settings(listen, None, tls);
    server.add_service(proxy);
    server.run_forever()
}

struct Forward {
    peer: HttpPeer,
}

#[async_trait]
impl ProxyHttp for Forward {
    type CTX = ();

    fn new_ctx(&self) {}

    async fn upstream_peer(&self, _: &mut Session, (): &mut ()) -> Result<Box<HttpPeer>> {
        Ok(Box::new(self.peer.clone()))
    }
}
