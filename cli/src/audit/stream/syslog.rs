//! Syslog (RFC 5424) over TLS (RFC 5425).
//!
//! Syslog has no acknowledgement. What TLS has is the end of a session: whoever answers `close_notify` has read all that was before it (RFC
//! 5425 §4.4 demands the answer). So each batch is a session of its own, and was taken once the receiver has ended it as well.

mod message;

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{TcpStream, ToSocketAddrs as _};
use std::time::Duration;

use rustls::{ClientConnection, StreamOwned};
use rustls_pki_types::ServerName;
use signet_audit::Origin;

use super::tls::Tls;
use super::{Item, Receiver};
use crate::args::{AuditStreamOptions, HostPort};
use crate::failure::Failure;
use message::Form;

pub(super) struct Syslog {
    address: HostPort,
    name: ServerName<'static>,
    tls: Tls,
    form: Form,
    timeout: Duration,
    accept_tcp_close: bool,
}

type Session = StreamOwned<ClientConnection, TcpStream>;

/// Of what a receiver, which has nothing to say, may say all the same. Bytes.
const MAX_ANSWER: usize = 64 << 10;

impl Syslog {
    pub(super) fn new(address: HostPort, options: &AuditStreamOptions) -> Result<Self, Failure> {
        let name = ServerName::try_from(address.host.clone())
            .map_err(|_| Failure::new(format!("{:?} is no host that a certificate could be of", address.host)))?;
        let tls = Tls::new(options, &[]);
        // What is wrong from the beginning is told at once.
        tls.config()?;
        Ok(Self {
            address,
            name,
            tls,
            form: Form::new(&options.syslog),
            timeout: options.timeout,
            accept_tcp_close: options.syslog.accept_tcp_close,
        })
    }

    fn connect(&self) -> Result<Session, Failure> {
        let mut last = Failure::new("it has no address");
        let found = (self.address.host.as_str(), self.address.port).to_socket_addrs();
        for address in found.map_err(|error| Failure::from_error(&error))? {
            match TcpStream::connect_timeout(&address, self.timeout) {
                Ok(tcp) => {
                    let ready = tcp
                        .set_nodelay(true)
                        .and_then(|()| tcp.set_read_timeout(Some(self.timeout)))
                        .and_then(|()| tcp.set_write_timeout(Some(self.timeout)));
                    ready.map_err(|error| Failure::from_error(&error))?;
                    let connection = ClientConnection::new(self.tls.config()?, self.name.clone());
                    let connection = connection.map_err(|error| Failure::from_error(&error))?;
                    return Ok(StreamOwned::new(connection, tcp));
                }
                Err(error) => last = Failure::from_error(&error),
            }
        }
        Err(last)
    }

    fn send_all(&self, messages: &[u8]) -> Result<(), Failure> {
        let mut session = self.connect()?;
        session.write_all(messages).and_then(|()| session.flush()).map_err(|error| told(&error))?;
        session.conn.send_close_notify();
        while session.conn.wants_write() {
            session.conn.write_tls(&mut session.sock).map_err(|error| told(&error))?;
        }
        self.wait_for_end(&mut session)
    }

    /// A certificate that the receiver refuses is told of here as well: in TLS 1.3 the client has sent by then.
    fn wait_for_end(&self, session: &mut Session) -> Result<(), Failure> {
        let mut answer = [0; 1024];
        let mut read = 0;
        while read <= MAX_ANSWER {
            match session.read(&mut answer) {
                Ok(0) => return Ok(()),
                Ok(count) => read += count,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::UnexpectedEof => {
                    return match self.accept_tcp_close {
                        true => Ok(()),
                        false => Err(Failure::new(
                            "it ended the connection without an answer: whether it has the entries is not known (if it \
                             never answers the end of TLS, give --accept-tcp-close)",
                        )),
                    };
                }
                Err(error) => return Err(told(&error)),
            }
        }
        Err(Failure::new("it sends without end, as no receiver of syslog does"))
    }
}

impl Receiver for Syslog {
    fn send(&mut self, log: &Origin, items: &[Item]) -> Result<(), Failure> {
        let mut messages = Vec::new();
        items.iter().for_each(|item| self.form.push(&mut messages, log, item));
        self.send_all(&messages).map_err(|failure| Failure::new(format!("{}: {}", self.address, failure.cause())))
    }
}

fn told(error: &std::io::Error) -> Failure {
    match error.kind() {
        ErrorKind::WouldBlock | ErrorKind::TimedOut => Failure::new("it did not answer in time"),
        _ => Failure::from_error(error),
    }
}
