//! The upstream of a bench. `GET /` answers a few bytes, `GET /bytes/N` answers N, whatever is sent with a body is read to its end
//! and answered with its length, and a gRPC call gets its own message back. Plain, or over TLS to those who show a certificate.
//!
//! It stands on the generator's core, so it must cost little: a `GET` over HTTP/1.1 is answered by hand ([`gets`]). From the
//! first request that is anything else on, the connection is hyper's ([`answer`]).

mod answer;
mod gets;

use std::io;
use std::sync::Arc;

use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig, version};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use gets::Next;

/// What is offered by ALPN.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Offer {
    Http1,
    Http2AndHttp1,
}

/// Whom the origin is and whom it believes.
#[derive(Debug)]
pub struct Identity {
    pub chain: Vec<CertificateDer<'static>>,
    pub key: PrivateKeyDer<'static>,
    pub roots: Arc<RootCertStore>,
}

/// TLS 1.3 with the bench's one cipher, for clients with a certificate under the roots.
pub fn tls(identity: Identity, offer: Offer) -> Result<TlsAcceptor, Box<dyn std::error::Error + Send + Sync>> {
    let provider = Arc::new(CryptoProvider {
        cipher_suites: vec![aws_lc_rs::cipher_suite::TLS13_AES_128_GCM_SHA256],
        ..aws_lc_rs::default_provider()
    });
    let clients =
        WebPkiClientVerifier::builder_with_provider(Arc::clone(&identity.roots), Arc::clone(&provider)).build()?;
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&version::TLS13])?
        .with_client_cert_verifier(clients)
        .with_single_cert(identity.chain, identity.key)?;
    config.alpn_protocols = match offer {
        Offer::Http1 => vec![b"http/1.1".to_vec()],
        Offer::Http2AndHttp1 => vec![b"h2".to_vec(), b"http/1.1".to_vec()],
    };
    Ok(TlsAcceptor::from(Arc::new(config)))
}

/// Serves until the listener fails.
pub async fn serve(listener: TcpListener, tls: Option<TlsAcceptor>) -> io::Result<()> {
    loop {
        let (tcp, _) = listener.accept().await?;
        tcp.set_nodelay(true)?;
        let tls = tls.clone();
        tokio::spawn(async move {
            match tls {
                None => serve_connection(tcp).await,
                Some(tls) => {
                    // Who shows no certificate gets no further than this.
                    let Ok(stream) = tls.accept(tcp).await else { return };
                    serve_connection(stream).await;
                }
            }
        });
    }
}

async fn serve_connection(mut stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static) {
    // A client that goes away in the middle is an ordinary end here.
    let Ok(Next::Hyper { unread }) = gets::answer(&mut stream).await else { return };
    let stream = gets::Prefixed { unread, stream };
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http2()
        .max_concurrent_streams(STREAMS)
        .initial_stream_window_size(WINDOW)
        .initial_connection_window_size(WINDOW);
    drop(builder.serve_connection(TokioIo::new(stream), service_fn(answer::answer)).await);
}

/// More than any proxy sends before it has read what is allowed.
const STREAMS: u32 = 1024;

/// Large enough that an upload is not held up by the origin.
const WINDOW: u32 = 8 * 1024 * 1024;
