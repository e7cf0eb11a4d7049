//! Syslog (RFC 5424) over TLS (RFC 5425).
//!
//! Syslog has no acknowledgement. What TLS has is the end of a session: whoever answers `close_notify` has read all that was before it (RFC
//! 5425 §4.4 demands the answer). So each batch is a session of its own, and was taken once the receiver has ended it as well.
//!
//! ```text
//! ├─ messages ─┼─ all acknowledged by TCP ─┼─ grace: nothing comes ─┼─ close_notify ─┼─ close_notify ─┼─ end of TCP, no reset ─┤
//! ```
//! A receiver that ends a session by itself, because it refuses the client or is stopped, may throw away what it was sent, and its
//! `close_notify` looks the same: hence the grace. One that ends it unread in that moment is found out by TCP's reset (RFC 1122 §4.2.2.13).

mod acknowledged;
mod message;

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{TcpStream, ToSocketAddrs as _};
use std::time::{Duration, Instant};

use rustls::{ClientConnection, StreamOwned};
use rustls_pki_types::ServerName;
use signet_audit::Origin;

use super::tls::Tls;
use super::{Item, Receiver};
use crate::args::{AuditStreamOptions, HostPort};
use crate::failure::Failure;
use acknowledged::wait_until_acknowledged;
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

/// Within this, a receiver that refuses a client has ended the session.
const GRACE: Duration = Duration::from_millis(200);
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
        let begun = Instant::now();
        let mut session = self.connect()?;
        let round_trip = begun.elapsed();
        session.write_all(messages).and_then(|()| session.flush()).map_err(|error| told(&error))?;
        wait_until_acknowledged(&session.sock, self.timeout).map_err(|error| told(&error))?;
        self.wait_for_nothing(&mut session, GRACE + 4 * round_trip)?;
        session.conn.send_close_notify();
        while session.conn.wants_write() {
            session.conn.write_tls(&mut session.sock).map_err(|error| told(&error))?;
        }
        self.wait_for_end(&mut session)?;
        match session.sock.read(&mut [0]) {
            Ok(0) => {}
            Ok(_) => return Err(Failure::new("it says more after the end of TLS")),
            Err(error) => return Err(told(&error)),
        }
        wait_until_acknowledged(&session.sock, self.timeout).map_err(|error| told(&error))
    }

    /// A certificate that the receiver refuses is told of here: in TLS 1.3 the client has sent by then.
    fn wait_for_nothing(&self, session: &mut Session, grace: Duration) -> Result<(), Failure> {
        let deadline = Instant::now() + grace;
        let set = |session: &Session, limit| session.sock.set_read_timeout(Some(limit)).map_err(|error| told(&error));
        let mut answer = [0; 1024];
        let mut read = 0;
        while read <= MAX_ANSWER {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return set(session, self.timeout);
            }
            set(session, left)?;
            match session.read(&mut answer) {
                Ok(0) => return Err(refused()),
                Ok(count) => read += count,
                Err(error) => match error.kind() {
                    ErrorKind::Interrupted | ErrorKind::WouldBlock | ErrorKind::TimedOut => {}
                    ErrorKind::UnexpectedEof => return Err(refused()),
                    _ => return Err(told(&error)),
                },
            }
        }
        Err(Failure::new("it sends without end, as no receiver of syslog does"))
    }

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

fn refused() -> Failure {
    Failure::new("it ended the connection by itself (does it refuse this client's certificate?)")
}

fn told(error: &std::io::Error) -> Failure {
    match error.kind() {
        ErrorKind::WouldBlock | ErrorKind::TimedOut => Failure::new("it did not answer in time"),
        ErrorKind::ConnectionReset | ErrorKind::BrokenPipe => refused(),
        _ => Failure::from_error(error),
    }
}
