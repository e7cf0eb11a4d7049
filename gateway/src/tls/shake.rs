//! The handshake: rustls over a socket until both sides are proved, then its keys for [`records`](super::records).

use std::fmt;
use std::io;
use std::ops::Deref;
use std::sync::Arc;

use bytes::{Buf as _, BytesMut};
use rustls::client::{ClientConnectionData, UnbufferedClientConnection};
use rustls::server::{ServerConnectionData, UnbufferedServerConnection};
use rustls::unbuffered::{ConnectionState, EncodeError, EncodeTlsData, UnbufferedConnectionCommon, UnbufferedStatus};
use rustls::{ClientConfig, CommonState, ServerConfig};
use rustls_pki_types::ServerName;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::records::{Keys, Records};
use super::stream::{self, TlsStream};

/// Takes a caller's handshake.
///
/// # Errors
/// A [`rustls::Error`] within, unless the socket failed. The peer has been told of it.
pub(crate) async fn accept(
    config: Arc<ServerConfig>,
    tcp: TcpStream,
) -> io::Result<Shaken<UnbufferedServerConnection>> {
    shake(Box::new(UnbufferedServerConnection::new(config).map_err(of_rustls)?), tcp).await
}

/// Makes a handshake with a server.
///
/// # Errors
/// As of [`accept`].
pub(crate) async fn connect(
    config: Arc<ClientConfig>,
    name: ServerName<'static>,
    tcp: TcpStream,
) -> io::Result<Shaken<UnbufferedClientConnection>> {
    shake(Box::new(UnbufferedClientConnection::new(config, name).map_err(of_rustls)?), tcp).await
}

/// A handshake that is done; what it came to can be asked of [`CommonState`].
pub(crate) struct Shaken<S> {
    pub(super) side: Box<S>,
    tcp: TcpStream,
    /// What came behind the handshake: as far as rustls has decrypted it, and the beginning of the next record.
    plain: BytesMut,
    received: BytesMut,
    is_closed: bool,
}

impl<S: Side> Shaken<S> {
    pub(crate) fn into_stream(self) -> io::Result<TlsStream> {
        let records = self.side.into_records()?;
        Ok(TlsStream::new(self.tcp, records, self.received, self.plain, self.is_closed))
    }
}

impl<S: Side> Deref for Shaken<S> {
    type Target = CommonState;

    fn deref(&self) -> &CommonState {
        self.side.common()
    }
}

impl<S> fmt::Debug for Shaken<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shaken").field("tcp", &self.tcp).finish_non_exhaustive()
    }
}

/// A server's or a client's part in rustls.
pub(crate) trait Side {
    type Data;
    fn process<'c, 'i>(&'c mut self, received: &'i mut [u8]) -> UnbufferedStatus<'c, 'i, Self::Data>;
    fn common(&self) -> &UnbufferedConnectionCommon<Self::Data>;
    fn into_records(self: Box<Self>) -> io::Result<Records>;
}

impl Side for UnbufferedServerConnection {
    type Data = ServerConnectionData;

    fn process<'c, 'i>(&'c mut self, received: &'i mut [u8]) -> UnbufferedStatus<'c, 'i, Self::Data> {
        self.process_tls_records(received)
    }

    fn common(&self) -> &UnbufferedConnectionCommon<Self::Data> {
        self
    }

    fn into_records(self: Box<Self>) -> io::Result<Records> {
        let (secrets, kernel) = self.dangerous_into_kernel_connection().map_err(of_rustls)?;
        Records::new(secrets, Keys::Server(kernel)).map_err(stream::broken)
    }
}

impl Side for UnbufferedClientConnection {
    type Data = ClientConnectionData;

    fn process<'c, 'i>(&'c mut self, received: &'i mut [u8]) -> UnbufferedStatus<'c, 'i, Self::Data> {
        self.process_tls_records(received)
    }

    fn common(&self) -> &UnbufferedConnectionCommon<Self::Data> {
        self
    }

    fn into_records(self: Box<Self>) -> io::Result<Records> {
        let (secrets, kernel) = self.dangerous_into_kernel_connection().map_err(of_rustls)?;
        Records::new(secrets, Keys::Client(kernel)).map_err(stream::broken)
    }
}

/// What rustls wants next.
enum Next {
    Go,
    Write,
    Read,
    Done,
}

async fn shake<S: Side>(side: Box<S>, tcp: TcpStream) -> io::Result<Shaken<S>> {
    let received = BytesMut::with_capacity(READ);
    let mut shaken = Shaken { side, tcp, plain: BytesMut::new(), received, is_closed: false };
    let mut to_send = Vec::new();
    loop {
        let UnbufferedStatus { discard, state } = shaken.side.process(&mut shaken.received);
        let next = match state {
            Ok(ConnectionState::EncodeTlsData(encoding)) => {
                encode(encoding, &mut to_send);
                Next::Go
            }
            Ok(ConnectionState::TransmitTlsData(transmission)) => {
                transmission.done();
                Next::Write
            }
            Ok(ConnectionState::BlockedHandshake) => Next::Read,
            Ok(ConnectionState::WriteTraffic(_)) => Next::Done,
            Ok(ConnectionState::ReadTraffic(mut traffic)) => {
                while let Some(record) = traffic.next_record() {
                    shaken.plain.extend_from_slice(record.map_err(of_rustls)?.payload);
                }
                Next::Go
            }
            Ok(ConnectionState::PeerClosed) => {
                shaken.is_closed = true;
                Next::Go
            }
            Ok(_) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Err(error) => {
                shaken.received.advance(discard);
                explain(&mut *shaken.side, &mut shaken.received, &mut to_send);
                // What it says is for the peer; that it was not heard changes nothing.
                let _heard = shaken.tcp.write_all(&to_send).await;
                return Err(of_rustls(error));
            }
        };
        shaken.received.advance(discard);
        match next {
            Next::Go => {}
            Next::Write => {
                shaken.tcp.write_all(&to_send).await?;
                to_send.clear();
            }
            Next::Read => read(&mut shaken).await?,
            Next::Done => return Ok(shaken),
        }
    }
}

async fn read<S>(shaken: &mut Shaken<S>) -> io::Result<()> {
    if shaken.received.len() >= MOST_RECEIVED {
        return Err(of_rustls(rustls::InvalidMessage::MessageTooLarge.into()));
    }
    shaken.received.reserve(READ);
    match shaken.tcp.read_buf(&mut shaken.received).await? {
        0 => Err(io::ErrorKind::UnexpectedEof.into()),
        _ => Ok(()),
    }
}

/// What rustls has to say of an error: one alert. It is asked once: it would go on to what is behind the error.
fn explain<S: Side>(side: &mut S, received: &mut BytesMut, to_send: &mut Vec<u8>) {
    if let Ok(ConnectionState::EncodeTlsData(encoding)) = side.process(received).state {
        encode(encoding, to_send);
    }
}

fn encode<D>(mut encoding: EncodeTlsData<'_, D>, to_send: &mut Vec<u8>) {
    let from = to_send.len();
    // It says how much room it needs when it has none.
    if let Err(EncodeError::InsufficientSize(needed)) = encoding.encode(&mut []) {
        to_send.resize(from + needed.required_size, 0);
        let _fits = encoding.encode(&mut to_send[from..]);
    }
}

/// As tokio-rustls wraps it.
fn of_rustls(error: rustls::Error) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

/// For most flights.
const READ: usize = 4 << 10;
/// As much as the longest message of a handshake that rustls takes.
const MOST_RECEIVED: usize = 64 << 10;
