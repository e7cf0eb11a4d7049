//! A wire tap: passes TCP connections on and keeps what the server says first, from which the facts of a TLS handshake between
//! two processes can be read without being either of them (a ServerHello is not encrypted, RFC 8446 §4.1.3).

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Instant;

/// Enough for a ServerHello with a post-quantum key share.
const KEPT_BYTES: usize = 4096;

/// A listening tap. It ends with the test's process.
#[derive(Debug)]
pub struct Tap {
    address: SocketAddr,
    connections: Arc<Mutex<Vec<Arc<Mutex<Tapped>>>>>,
    is_severed: Arc<AtomicBool>,
}

/// One connection that went through.
#[derive(Clone, Debug)]
pub struct Tapped {
    pub opened: Instant,
    /// When either side ended it.
    pub closed: Option<Instant>,
    from_server: Vec<u8>,
    sockets: Option<(Arc<TcpStream>, Arc<TcpStream>)>,
}

/// What a ServerHello says.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct ServerHello {
    pub version: u16,
    /// NamedGroup of the key share; 0 without one.
    pub group: u16,
}

impl ServerHello {
    pub const TLS13: u16 = 0x0304;
    pub const X25519_MLKEM768: u16 = 0x11ec;
}

impl Tap {
    pub fn before(target: SocketAddr) -> Self {
        let listener = TcpListener::bind((target.ip(), 0)).expect("a port");
        let address = listener.local_addr().expect("an address");
        let connections = Arc::<Mutex<Vec<_>>>::default();
        let kept = connections.clone();
        let is_severed = Arc::<AtomicBool>::default();
        let severed = is_severed.clone();
        thread::spawn(move || {
            for client in listener.incoming() {
                let Ok(client) = client else { continue };
                // Held while it is decided, so that none comes through between the two.
                let mut kept = kept.lock().expect("a whole list");
                if severed.load(Ordering::SeqCst) {
                    continue;
                }
                let Ok(server) = TcpStream::connect(target) else { continue };
                let (client, server) = (Arc::new(client), Arc::new(server));
                let tapped = Arc::new(Mutex::new(Tapped {
                    opened: Instant::now(),
                    closed: None,
                    from_server: Vec::new(),
                    sockets: Some((client.clone(), server.clone())),
                }));
                kept.push(tapped.clone());
                drop(kept);
                let (to_client, from_server) = (client.clone(), server.clone());
                let second = tapped.clone();
                thread::spawn(move || pass(&client, &server, &second, false));
                thread::spawn(move || pass(&from_server, &to_client, &tapped, true));
            }
        });
        Self { address, connections, is_severed }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub fn connections(&self) -> Vec<Tapped> {
        let connections = self.connections.lock().expect("a whole list");
        connections.iter().map(|tapped| tapped.lock().expect("a whole entry").clone()).collect()
    }

    /// Cuts every connection that is open, as a failing network does.
    pub fn cut(&self) {
        for (client, server) in self.connections().into_iter().filter_map(|tapped| tapped.sockets) {
            // Already closed is as good.
            drop(client.shutdown(Shutdown::Both));
            drop(server.shutdown(Shutdown::Both));
        }
    }

    /// Cuts every connection that is open, and ends those that are made until it is mended.
    pub fn sever(&self) {
        self.is_severed.store(true, Ordering::SeqCst);
        self.cut();
    }

    pub fn mend(&self) {
        self.is_severed.store(false, Ordering::SeqCst);
    }
}

fn pass(mut from: &TcpStream, mut to: &TcpStream, tapped: &Mutex<Tapped>, is_from_server: bool) {
    let mut buffer = vec![0; 64 * 1024];
    let mut pass_one = || -> io::Result<bool> {
        let length = from.read(&mut buffer)?;
        if is_from_server {
            let kept = &mut tapped.lock().expect("a whole entry").from_server;
            let room = KEPT_BYTES.saturating_sub(kept.len()).min(length);
            kept.extend_from_slice(&buffer[..room]);
        }
        to.write_all(&buffer[..length])?;
        Ok(length > 0)
    };
    while let Ok(true) = pass_one() {}
    drop(to.shutdown(Shutdown::Write));
    let mut tapped = tapped.lock().expect("a whole entry");
    tapped.closed.get_or_insert_with(Instant::now);
}

impl Tapped {
    /// The server's answer to the client's hello, or none if it never came.
    pub fn server_hello(&self) -> Option<ServerHello> {
        parse_server_hello(&self.from_server)
    }
}

/// The first record has to be a handshake record that begins with a whole ServerHello.
fn parse_server_hello(bytes: &[u8]) -> Option<ServerHello> {
    const HANDSHAKE: u8 = 22;
    const SERVER_HELLO: u8 = 2;
    const SUPPORTED_VERSIONS: u16 = 43;
    const KEY_SHARE: u16 = 51;
    let u16_at = |bytes: &[u8], at: usize| Some(u16::from_be_bytes([*bytes.get(at)?, *bytes.get(at + 1)?]));

    let record = bytes.get(5..5 + usize::from(u16_at(bytes, 3)?))?;
    if bytes[0] != HANDSHAKE || *record.first()? != SERVER_HELLO {
        return None;
    }
    // Header 4, version 2, random 32, session id, cipher suite 2, compression 1, length of extensions 2.
    let version = u16_at(record, 4)?;
    let session_id = usize::from(*record.get(38)?);
    let mut at = 39 + session_id + 5;
    let mut hello = ServerHello { version, group: 0 };
    while let (Some(kind), Some(length)) = (u16_at(record, at), u16_at(record, at + 2)) {
        match kind {
            SUPPORTED_VERSIONS => hello.version = u16_at(record, at + 4)?,
            KEY_SHARE => hello.group = u16_at(record, at + 4)?,
            _ => {}
        }
        at += 4 + usize::from(length);
    }
    Some(hello)
}
