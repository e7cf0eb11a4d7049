//! A connection without a layer more than it needs: the socket, and rustls pumped by hand.

use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use rustls::{ClientConnection, HandshakeKind};
use rustls_pki_types::ServerName;
use tokio::net::TcpStream;

use super::failure::Failure;
use super::slot_tls::ClientTls;
use super::ticket::TicketBox;

/// A plain or TLS connection to the target.
#[derive(Debug)]
pub(super) struct Link {
    tcp: TcpStream,
    tls: Option<Box<ClientConnection>>,
}

pub(super) async fn connect(target: SocketAddr) -> Result<TcpStream, Failure> {
    let tcp = TcpStream::connect(target).await.map_err(Failure::Connect)?;
    tcp.set_nodelay(true).map_err(Failure::Connect)?;
    Ok(tcp)
}

/// The name that rustls wants; SNI is off, and the certificate is not compared with it.
pub(super) fn server_name(target: IpAddr) -> ServerName<'static> {
    ServerName::IpAddress(target.into())
}

impl Link {
    pub(super) async fn open(target: SocketAddr, tls: Option<&ClientTls>) -> Result<Self, Failure> {
        let mut link = Self { tcp: connect(target).await?, tls: None };
        if let Some(tls) = tls {
            let connection = ClientConnection::new(Arc::clone(&tls.config), server_name(target.ip()))?;
            link.tls = Some(Box::new(connection));
            link.handshake().await?;
        }
        Ok(link)
    }

    /// `None` on a plain connection.
    pub(super) fn handshake_kind(&self) -> Option<HandshakeKind> {
        self.tls.as_ref().and_then(|tls| tls.handshake_kind())
    }

    /// Waits for a session ticket beyond the first `before`.
    pub(super) async fn ticket_after(&mut self, before: usize, tickets: &TicketBox) -> Result<(), Failure> {
        let Some(tls) = self.tls.as_mut() else { return Ok(()) };
        while tickets.arrived() == before {
            pull(&self.tcp, tls).await?;
        }
        Ok(())
    }

    /// Says that nothing more will be sent, and waits for the server to close; an alert is a failure.
    pub(super) async fn closed_by_server(&mut self) -> Result<(), Failure> {
        let Some(tls) = self.tls.as_mut() else { return Ok(()) };
        tls.send_close_notify();
        push(&self.tcp, tls).await?;
        loop {
            match pull(&self.tcp, tls).await {
                Err(Failure::ClosedBeforeResponse) => return Ok(()),
                more => more?,
            }
        }
    }

    /// Sends the whole of `bytes`.
    pub(super) async fn send(&mut self, mut bytes: &[u8]) -> Result<(), Failure> {
        while !bytes.is_empty() {
            let taken = match self.tls.as_mut() {
                Some(tls) => {
                    let taken = tls.writer().write(bytes)?;
                    push(&self.tcp, tls).await?;
                    taken
                }
                None => write_some(&self.tcp, bytes).await?,
            };
            bytes = &bytes[taken..];
        }
        Ok(())
    }

    /// Receives what is there, at least one byte; 0 is the end of the stream.
    pub(super) async fn receive(&mut self, buffer: &mut [u8]) -> Result<usize, Failure> {
        let Some(tls) = self.tls.as_mut() else {
            loop {
                match self.tcp.try_read(buffer) {
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.tcp.readable().await?,
                    done => return Ok(done?),
                }
            }
        };
        loop {
            match tls.reader().read(buffer) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => pull(&self.tcp, tls).await?,
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(0),
                done => return Ok(done?),
            }
        }
    }

    /// Ends the connection at once, without the minute of TIME_WAIT that would use up the ports of this host.
    pub(super) fn abort(self) -> Result<(), Failure> {
        Ok(self.tcp.set_zero_linger()?)
    }

    async fn handshake(&mut self) -> Result<(), Failure> {
        let Some(tls) = self.tls.as_mut() else { return Ok(()) };
        loop {
            push(&self.tcp, tls).await?;
            if !tls.is_handshaking() {
                return Ok(());
            }
            pull(&self.tcp, tls).await?;
        }
    }
}

/// Reads from the socket into rustls once, and sends what that calls for.
async fn pull(tcp: &TcpStream, tls: &mut ClientConnection) -> Result<(), Failure> {
    let mut socket = NonBlocking(tcp);
    loop {
        match tls.read_tls(&mut socket) {
            Ok(0) => return Err(Failure::ClosedBeforeResponse),
            Ok(_) => break,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => tcp.readable().await?,
            Err(error) => return Err(error.into()),
        }
    }
    let processed = tls.process_new_packets();
    // An alert that says why is worth sending even where the connection is lost.
    push(tcp, tls).await?;
    processed?;
    Ok(())
}

/// Sends all that rustls has to send.
async fn push(tcp: &TcpStream, tls: &mut ClientConnection) -> Result<(), Failure> {
    let mut socket = NonBlocking(tcp);
    while tls.wants_write() {
        match tls.write_tls(&mut socket) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => tcp.writable().await?,
            done => {
                done?;
            }
        }
    }
    Ok(())
}

async fn write_some(tcp: &TcpStream, bytes: &[u8]) -> io::Result<usize> {
    loop {
        match tcp.try_write(bytes) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => tcp.writable().await?,
            done => return done,
        }
    }
}

/// The socket as rustls wants it: what would block is an error.
struct NonBlocking<'a>(&'a TcpStream);

impl Read for NonBlocking<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.try_read(buffer)
    }
}

impl Write for NonBlocking<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.try_write(bytes)
    }

    fn write_vectored(&mut self, parts: &[io::IoSlice<'_>]) -> io::Result<usize> {
        self.0.try_write_vectored(parts)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
