//! What an issuer has for itself: its folder, and its port.

use std::fs::{DirBuilder, File, TryLockError};
use std::net::SocketAddr;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::Path;

use tokio::net::{TcpListener, TcpSocket};

use super::RunError;

const BACKLOG: u32 = 1024;

pub(super) fn holds_anything(path: &Path) -> bool {
    std::fs::metadata(path).is_ok_and(|file| file.len() > 0)
}

/// The state folder, private, and ours alone until the returned file is closed.
pub(super) fn claim_state(path: &Path) -> Result<File, RunError> {
    let io = |source| RunError::State { path: path.to_owned(), source };
    DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(io)?;
    let mut permissions = std::fs::metadata(path).map_err(io)?.permissions();
    if permissions.mode() & 0o077 != 0 {
        permissions.set_mode(0o700);
        std::fs::set_permissions(path, permissions).map_err(io)?;
    }
    let lock = File::create(path.join("lock")).map_err(io)?;
    match lock.try_lock() {
        Ok(()) => Ok(lock),
        Err(TryLockError::WouldBlock) => Err(RunError::StateInUse { path: path.to_owned() }),
        Err(TryLockError::Error(source)) => Err(io(source)),
    }
}

/// Takes the port without listening yet: who calls before there is an authority is refused at once, not left waiting.
pub(super) fn reserve(address: SocketAddr) -> Result<(TcpSocket, SocketAddr), RunError> {
    let reserve = || {
        let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
        socket.set_reuseaddr(true)?;
        socket.bind(address)?;
        let bound = socket.local_addr()?;
        Ok((socket, bound))
    };
    reserve().map_err(|source| listen_error(address, source))
}

pub(super) fn listen(socket: TcpSocket, address: SocketAddr) -> Result<TcpListener, RunError> {
    socket.listen(BACKLOG).map_err(|source| listen_error(address, source))
}

fn listen_error(address: SocketAddr, source: std::io::Error) -> RunError {
    match source.kind() {
        std::io::ErrorKind::AddrInUse => RunError::AddressInUse { address },
        _ => RunError::Listen { address, source },
    }
}
