//! What somebody writes in an afternoon, to compare with: hyper on rustls that requires client certificates, in front of a plain
//! HTTP/1.1 upstream, with a pool that is a list behind a lock. Nothing in it is tuned, and it decides nothing by identity.

#![forbid(unsafe_code)]

use std::io;
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use clap::Parser;
use http::header::HOST;
use http::{HeaderValue, Request, Response, StatusCode, Version};
use http_body_util::{BodyExt, Empty, combinators::BoxBody};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1::{self, SendRequest};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use rustls::crypto::aws_lc_rs;
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig, version};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use signet_benches::listen;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

/// An untuned mTLS proxy
#[derive(Debug, Parser)]
struct Options {
    /// Address to listen on
    listen: SocketAddr,
    /// Address of the plain HTTP/1.1 upstream
    upstream: SocketAddr,
    /// Server certificate, leaf first
    #[arg(long, value_name = "PEM")]
    cert: PathBuf,
    #[arg(long, value_name = "PEM")]
    key: PathBuf,
    /// Roots that clients must stand under
    #[arg(long, value_name = "PEM")]
    roots: PathBuf,
    #[arg(long, default_value = "1")]
    threads: NonZeroUsize,
}

fn main() -> anyhow::Result<()> {
    let options = Options::parse();
    let tls = TlsAcceptor::from(Arc::new(server_config(&options)?));
    let upstream = Arc::new(Upstream { address: options.upstream, idle: Mutex::default() });
    listen::on_each_thread(options.listen, options.threads, async move |listener| {
        serve(listener, tls.clone(), Arc::clone(&upstream)).await
    })?;
    Ok(())
}

fn server_config(options: &Options) -> anyhow::Result<ServerConfig> {
    let mut roots = RootCertStore::empty();
    for root in CertificateDer::pem_file_iter(&options.roots)? {
        roots.add(root?)?;
    }
    let provider = Arc::new(aws_lc_rs::default_provider());
    let clients = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider)).build()?;
    let chain = CertificateDer::pem_file_iter(&options.cert)?.collect::<Result<_, _>>()?;
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&version::TLS13])?
        .with_client_cert_verifier(clients)
        .with_single_cert(chain, PrivateKeyDer::from_pem_file(&options.key)?)?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    config.ticketer = aws_lc_rs::Ticketer::new()?;
    Ok(config)
}

async fn serve(listener: TcpListener, tls: TlsAcceptor, upstream: Arc<Upstream>) -> io::Result<()> {
    loop {
        let (tcp, _) = listener.accept().await?;
        tcp.set_nodelay(true)?;
        let (tls, upstream) = (tls.clone(), Arc::clone(&upstream));
        tokio::spawn(async move {
            let Ok(stream) = tls.accept(tcp).await else { return };
            let service = service_fn(move |request| {
                let upstream = Arc::clone(&upstream);
                async move { Ok::<_, hyper::Error>(upstream.forward(request).await.unwrap_or_else(|_| bad_gateway())) }
            });
            // A client that goes away in the middle is an ordinary end here.
            drop(auto::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(stream), service).await);
        });
    }
}

#[derive(Debug)]
struct Upstream {
    address: SocketAddr,
    idle: Mutex<Vec<SendRequest<Incoming>>>,
}

type ProxyBody = BoxBody<Bytes, hyper::Error>;

impl Upstream {
    async fn forward(self: &Arc<Self>, mut request: Request<Incoming>) -> anyhow::Result<Response<ProxyBody>> {
        if request.version() == Version::HTTP_2 {
            let authority = request.uri().authority().map(|authority| authority.as_str()).unwrap_or_default();
            let host = HeaderValue::from_str(authority)?;
            request.headers_mut().insert(HOST, host);
            *request.version_mut() = Version::HTTP_11;
        }
        let path = request.uri().path_and_query().cloned().map(Into::into);
        *request.uri_mut() = path.unwrap_or_default();

        let mut sender = self.sender().await?;
        let response = sender.send_request(request).await?;
        let upstream = Arc::clone(self);
        tokio::spawn(async move {
            // Ready again once the answer has been read to its end.
            if sender.ready().await.is_ok() {
                upstream.idle.lock().unwrap_or_else(PoisonError::into_inner).push(sender);
            }
        });
        Ok(response.map(BodyExt::boxed))
    }

    async fn sender(&self) -> anyhow::Result<SendRequest<Incoming>> {
        loop {
            let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
            match idle {
                Some(sender) if sender.is_ready() => return Ok(sender),
                Some(_) => {}
                None => break,
            }
        }
        let tcp = TcpStream::connect(self.address).await?;
        tcp.set_nodelay(true)?;
        let (sender, connection) = http1::handshake(TokioIo::new(tcp)).await?;
        // Its error reaches the request that it breaks.
        tokio::spawn(async move { drop(connection.await) });
        Ok(sender)
    }
}

fn bad_gateway() -> Response<ProxyBody> {
    let mut response = Response::new(Empty::new().map_err(|never| match never {}).boxed());
    *response.status_mut() = StatusCode::BAD_GATEWAY;
    response
}
