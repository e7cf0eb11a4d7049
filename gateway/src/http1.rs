//! HTTP/1.1 as a proxy needs it, on both sides: heads, bodies, and the connections of callers. What speaks to upstreams is in
//! [`upstream::http1`](crate::upstream).
//!
//! hyper stays for HTTP/2. For HTTP/1.1 it is a client and a server that do not know of each other: a request crosses
//! channels and wakers between its two connections, and its parser takes heads that a gateway must refuse, so that a second
//! one had to stand in front of it. Here one strict parser reads each byte once, and the task of the caller's connection
//! reads and writes both sockets itself.

pub(crate) mod body;
pub(crate) mod head;
pub(crate) mod length;
pub(crate) mod outgoing;
pub(crate) mod server;
