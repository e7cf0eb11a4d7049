//! Addresses that no other test has: each place gets a loopback address of its own and the kernel picks its ports there, so that
//! tests run side by side, and no outgoing connection of another test takes a port between choice and use.

use std::collections::HashSet;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::process;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU8, Ordering};

/// A loopback address of its own.
#[derive(Debug)]
pub struct Host {
    address: IpAddr,
    given: Mutex<HashSet<u16>>,
}

impl Host {
    pub fn new() -> Self {
        static NEXT: AtomicU8 = AtomicU8::new(1);
        let [_, _, high, low] = process::id().to_be_bytes();
        // 127.0.x.x is where people's own programs listen.
        let address = Ipv4Addr::new(127, high | 0x80, low, NEXT.fetch_add(1, Ordering::Relaxed));
        Self { address: address.into(), given: Mutex::default() }
    }

    pub fn ip(&self) -> IpAddr {
        self.address
    }

    /// An address that nobody listens on, never the same twice.
    pub fn free(&self) -> SocketAddr {
        loop {
            let listener = TcpListener::bind((self.address, 0)).expect("a port of the loopback network");
            let address = listener.local_addr().expect("the address of a listener");
            if self.given.lock().expect("no test panics here").insert(address.port()) {
                return address;
            }
        }
    }
}

impl Default for Host {
    fn default() -> Self {
        Self::new()
    }
}
