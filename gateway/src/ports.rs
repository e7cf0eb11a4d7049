//! The listeners' addresses are claimed before anything is served, one socket for each worker, and opened when there is an
//! identity: until then callers are refused by the kernel instead of waiting for nothing.

use std::io;
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::sync::Arc;

use socket2::{Domain, Protocol, Socket, Type};

use crate::config::Listener;

/// One listener's sockets: bound, not yet listening.
#[derive(Debug)]
pub(crate) struct Claimed {
    pub(crate) address: SocketAddr,
    pub(crate) sockets: Vec<Socket>,
}

/// An address cannot be listened on.
#[derive(Debug, thiserror::Error)]
pub enum PortError {
    #[error(
        "listener `{listener}`: {address} is in use\nstop the process that holds it, or set another `listen` address"
    )]
    InUse { listener: Arc<str>, address: SocketAddr },
    #[error(
        "listener `{listener}`: {address} is not an address of this machine\nset `listen` to one of its interfaces"
    )]
    NotOurs { listener: Arc<str>, address: SocketAddr },
    #[error(
        "listener `{listener}`: not permitted to listen on {address}\nchoose a port above 1023, or grant \
         CAP_NET_BIND_SERVICE"
    )]
    NotPermitted { listener: Arc<str>, address: SocketAddr },
    #[error("listener `{listener}`: cannot listen on {address}\nset another `listen` address")]
    Other {
        listener: Arc<str>,
        address: SocketAddr,
        #[source]
        cause: io::Error,
    },
}

/// Binds a listener's address once for each worker.
pub(crate) fn claim(listener: &Listener, workers: NonZeroUsize) -> Result<Claimed, PortError> {
    let error = |cause| PortError::of(listener, cause);
    probe(listener.listen).map_err(error)?;
    let first = bind(listener.listen).map_err(error)?;
    // With port 0 the first socket decides.
    let address = first
        .local_addr()
        .and_then(|address| address.as_socket().ok_or_else(|| io::Error::other("not an internet address")));
    let address = address.map_err(error)?;
    let mut sockets = vec![first];
    for _ in 1..workers.get() {
        sockets.push(bind(address).map_err(error)?);
    }
    Ok(Claimed { address, sockets })
}

/// Whether nobody has begun to listen on a claimed address since: two gateways that start together both find it free.
pub(crate) fn check_again(listener: &Listener, address: SocketAddr) -> Result<(), PortError> {
    probe(address).map_err(|cause| PortError::of(listener, cause))
}

/// Lets connections come.
pub(crate) fn open(socket: Socket) -> io::Result<tokio::net::TcpListener> {
    // What is accepted inherits it: waiting for more to send only makes small answers late.
    socket.set_tcp_nodelay(true)?;
    socket.listen(BACKLOG)?;
    socket.set_nonblocking(true)?;
    tokio::net::TcpListener::from_std(socket.into())
}

/// Sockets with SO_REUSEPORT share an address with any other of the same user, also with another gateway's: without this
/// one would take half of the other's connections and nobody would notice.
fn probe(address: SocketAddr) -> io::Result<()> {
    if address.port() == 0 {
        return Ok(());
    }
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())
}

fn bind(address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    // A restart must not wait for connections of the last run to be forgotten.
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    socket.bind(&address.into())?;
    Ok(socket)
}

impl PortError {
    fn of(listener: &Listener, cause: io::Error) -> Self {
        let (listener, address) = (listener.name.clone(), listener.listen);
        match cause.kind() {
            io::ErrorKind::AddrInUse => Self::InUse { listener, address },
            io::ErrorKind::AddrNotAvailable => Self::NotOurs { listener, address },
            io::ErrorKind::PermissionDenied => Self::NotPermitted { listener, address },
            _ => Self::Other { listener, address, cause },
        }
    }
}

const BACKLOG: i32 = 4_096;

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::config::{Mode, UpstreamIndex};

    fn listener(listen: SocketAddr) -> Listener {
        Listener { name: "a".into(), listen, mode: Mode::Outbound, upstream: UpstreamIndex(0) }
    }

    #[test]
    fn workers_share_a_port_that_the_kernel_chose() {
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let claimed = claim(&listener(any), NonZeroUsize::new(3).unwrap()).unwrap();
        assert_eq!(claimed.sockets.len(), 3);
        assert_ne!(claimed.address.port(), 0);
    }

    #[test]
    fn a_port_that_another_listens_on_is_not_shared_with_it() {
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let ours = claim(&listener(any), NonZeroUsize::MIN).unwrap();
        for socket in &ours.sockets {
            socket.listen(1).unwrap();
        }
        let theirs = claim(&listener(ours.address), NonZeroUsize::MIN);
        assert!(matches!(theirs, Err(PortError::InUse { .. })), "{theirs:?}");
    }

    #[test]
    fn the_second_of_two_that_claimed_a_port_together_finds_it_taken() {
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let ours = claim(&listener(any), NonZeroUsize::MIN).unwrap();
        let theirs = claim(&listener(ours.address), NonZeroUsize::MIN).unwrap();
        check_again(&listener(any), ours.address).unwrap();
        ours.sockets[0].listen(1).unwrap();
        let taken = check_again(&listener(any), theirs.address);
        assert!(matches!(taken, Err(PortError::InUse { .. })), "{taken:?}");
    }
}
