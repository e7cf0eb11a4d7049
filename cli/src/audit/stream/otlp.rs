//! OpenTelemetry logs, over gRPC (OTLP 1.x): a batch is a request, and was taken once it is answered.

mod wire;

use std::time::Duration;

use hyper_util::rt::TokioIo;
use rustls_pki_types::ServerName;
use signet_audit::Origin;
use time::OffsetDateTime;
use tokio::net::TcpStream;
use tokio::runtime::Runtime;
use tokio_rustls::TlsConnector;
use tonic::client::Grpc;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::{Channel, Endpoint};
use tonic_prost::ProstCodec;

use super::tls::Tls;
use super::{Item, Receiver};
use crate::args::{AuditStreamOptions, HostPort};
use crate::failure::Failure;
use crate::output;
use wire::{ExportRequest, ExportResponse, KeyValue, LogRecord, Resource, ResourceLogs, Scope, ScopeLogs};

pub(super) struct Otlp {
    address: HostPort,
    /// None for a receiver on this machine, which is spoken to plainly.
    tls: Option<(Tls, ServerName<'static>)>,
    timeout: Duration,
    runtime: Runtime,
    /// For as long as it works.
    channel: Option<Channel>,
}

/// `SeverityNumber` of OpenTelemetry: INFO2, which it has for syslog's notice, and WARN.
const NOTICE: i32 = 10;
const WARNING: i32 = 13;
/// Of an answer. Bytes.
const MAX_ANSWER: usize = 64 << 10;

impl Otlp {
    pub(super) fn new(address: HostPort, is_plain: bool, options: &AuditStreamOptions) -> Result<Self, Failure> {
        let tls = match is_plain {
            true => None,
            false => {
                let name = ServerName::try_from(address.host.clone()).map_err(|_| {
                    Failure::new(format!("{:?} is no host that a certificate could be of", address.host))
                })?;
                let tls = Tls::new(options, &["h2"]);
                // What is wrong from the beginning is told at once.
                tls.config()?;
                Some((tls, name))
            }
        };
        let runtime = Runtime::new().map_err(|error| Failure::from_error(&error))?;
        Ok(Self { address, tls, timeout: options.timeout, runtime, channel: None })
    }

    fn connect(&self) -> Result<Channel, Failure> {
        let address = self.address.to_string();
        let tls = self.tls.as_ref().map(|(tls, name)| Ok::<_, Failure>((tls.config()?, name.clone()))).transpose()?;
        let scheme = if tls.is_some() { "https" } else { "http" };
        let endpoint = Endpoint::from_shared(format!("{scheme}://{address}"));
        let endpoint = endpoint.map_err(|error| Failure::from_error(&error))?.connect_timeout(self.timeout);
        let connector = tower::service_fn(move |_| {
            let (address, tls) = (address.clone(), tls.clone());
            async move {
                let tcp = TcpStream::connect(address).await?;
                tcp.set_nodelay(true)?;
                Ok::<_, std::io::Error>(match tls {
                    Some((config, name)) => {
                        TokioIo::new(Box::new(TlsConnector::from(config).connect(name, tcp).await?) as Box<dyn Io>)
                    }
                    None => TokioIo::new(Box::new(tcp) as Box<dyn Io>),
                })
            }
        });
        let connected = self.runtime.block_on(endpoint.connect_with_connector(connector));
        connected.map_err(|error| Failure::from_error(&error))
    }

    fn export(&mut self, request: ExportRequest) -> Result<ExportResponse, Failure> {
        let channel = match self.channel.take() {
            Some(channel) => channel,
            None => self.connect()?,
        };
        let exporting = async {
            let mut grpc = Grpc::new(channel.clone()).max_decoding_message_size(MAX_ANSWER);
            grpc.ready().await.map_err(|error| Failure::from_error(&error))?;
            let codec = ProstCodec::<ExportRequest, ExportResponse>::default();
            let answer = grpc.unary(tonic::Request::new(request), PathAndQuery::from_static(wire::EXPORT), codec).await;
            answer.map(tonic::Response::into_inner).map_err(|status| {
                Failure::new(format!("it answered {:?}: {}", status.code(), output::harmless(status.message())))
            })
        };
        let answered = self.runtime.block_on(async { tokio::time::timeout(self.timeout, exporting).await });
        let answer = answered.map_err(|_| Failure::new("it did not answer in time"))??;
        self.channel = Some(channel);
        Ok(answer)
    }
}

/// What a connection is made of.
trait Io: tokio::io::AsyncRead + tokio::io::AsyncWrite + Send + Unpin {}

impl<T: tokio::io::AsyncRead + tokio::io::AsyncWrite + Send + Unpin> Io for T {}

impl Receiver for Otlp {
    fn send(&mut self, log: &Origin, items: &[Item]) -> Result<(), Failure> {
        let named = |failure: Failure, address: &HostPort| Failure::new(format!("{address}: {}", failure.cause()));
        let answer = self.export(request(log, items)).map_err(|failure| named(failure, &self.address))?;
        match answer.partial_success.filter(|partial| partial.rejected_log_records > 0) {
            None => Ok(()),
            // OTLP forbids to send them again.
            Some(partial) => output::warn(&format!(
                "{}: it refused {} of the entries {} to {}, for good: {}",
                self.address,
                partial.rejected_log_records,
                items.first().map_or(0, |item| item.index),
                items.last().map_or(0, |item| item.index),
                partial.error_message
            )),
        }
    }
}

fn request(log: &Origin, items: &[Item]) -> ExportRequest {
    let version = env!("CARGO_PKG_VERSION");
    let resource = vec![
        KeyValue::new("service.name", "signet"),
        KeyValue::new("service.version", version),
        KeyValue::new("signet.log", log.as_str()),
    ];
    let observed = nanoseconds(OffsetDateTime::now_utc());
    let scope = Scope { name: "signet.audit".to_owned(), version: version.to_owned() };
    let log_records = items.iter().map(|item| record(item, observed)).collect();
    let scope_logs = vec![ScopeLogs { scope: Some(scope), log_records }];
    ExportRequest {
        resource_logs: vec![ResourceLogs { resource: Some(Resource { attributes: resource }), scope_logs }],
    }
}

fn record(item: &Item, observed: u64) -> LogRecord {
    let (severity_number, severity_text) = if item.is_warning() { (WARNING, "WARN") } else { (NOTICE, "INFO") };
    let mut attributes = vec![KeyValue::new("signet.index", item.index)];
    for member in ["act", "spiffe_id", "serial", "actor"] {
        attributes.extend(item.text(member).map(|text| KeyValue::new(&format!("signet.{member}"), text)));
    }
    LogRecord {
        time_unix_nano: item.time().map_or(0, nanoseconds),
        severity_number,
        severity_text: severity_text.to_owned(),
        body: Some(item.json().into()),
        attributes,
        observed_time_unix_nano: observed,
        event_name: format!("signet.{}", item.act()),
    }
}

fn nanoseconds(time: OffsetDateTime) -> u64 {
    u64::try_from(time.unix_timestamp_nanos()).unwrap_or_default()
}
