//! TLS 1.3 on a caller's or an upstream's connection.
//!
//! rustls makes the handshake ([`shake`]) and then gives the connection out of its hands, with its keys: it is made for who
//! does the record layer himself, as a kernel does. [`records`] is that layer, over rustls' own ciphers, and [`stream`] puts
//! it on a socket. What is gained is what rustls' buffers cost: a record is decrypted where the socket's read has put it and
//! goes on from there, and a connection at rest holds two keys and no buffer.
//!
//! Absent: who a peer is (signet-identity verifies it within the handshake), TLS 1.2.

mod records;
mod shake;
mod stream;

pub(crate) use shake::{accept, connect};
pub(crate) use stream::TlsStream;

#[cfg(test)]
mod tests;
