//! The Unix socket for operators, whom the kernel names. Of mode 0600, unless a role is bound to a user other than the issuer's own.

use std::os::unix::fs::{DirBuilderExt, FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::service::Routes;

use crate::administration::Administrators;
use crate::config::Limits;
use crate::server::{Caller, Work, serve_http2};

#[derive(Debug)]
pub(crate) struct AdminSocket {
    listener: UnixListener,
    path: PathBuf,
}

#[derive(Debug, thiserror::Error)]
pub enum AdminSocketError {
    #[error("another process serves the admin socket {}\nend it, or set another `admin_socket`", path.display())]
    InUse { path: PathBuf },
    #[error(
        "the admin socket {} cannot be made: something else is there\nremove it, or set another `admin_socket`",
        path.display()
    )]
    NotASocket { path: PathBuf },
    #[error(
        "the admin socket {} cannot be made\nset `admin_socket` to a path in a folder of the issuer's user",
        path.display()
    )]
    Io { path: PathBuf, source: std::io::Error },
}

const MAX_CONNECTIONS: usize = 64;
/// Of users whom a role is bound to, beside the issuer's own and root.
const MAX_OF_OTHERS: usize = 48;
/// Of users without a role.
const MAX_OF_STRANGERS: usize = 4;
const PAUSE: Duration = Duration::from_millis(100);

impl AdminSocket {
    /// Binds `path`, for users other than the issuer's own too if `others` is set. The socket of a process that is gone is replaced; one that somebody listens on is not.
    pub(crate) async fn bind(path: &Path, others: bool) -> Result<Self, AdminSocketError> {
        let io = |source| AdminSocketError::Io { path: path.to_owned(), source };
        if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
            std::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(io)?;
        }
        remove_stale(path).await?;
        let listener = UnixListener::bind(path).map_err(|source| match source.kind() {
            std::io::ErrorKind::AddrInUse => AdminSocketError::InUse { path: path.to_owned() },
            _ => AdminSocketError::Io { path: path.to_owned(), source },
        })?;
        // Whoever connects before this is still asked for their user.
        let mode = if others { 0o666 } else { 0o600 };
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).map_err(io)?;
        Ok(Self { listener, path: path.to_owned() })
    }

    /// Connections of other users leave places to the issuer's own and root.
    pub(crate) async fn serve(
        self,
        routes: Routes,
        administrators: Administrators,
        limits: Limits,
        (stop, drain): (CancellationToken, Duration),
    ) {
        let Self { listener, path } = self;
        let connections = TaskTracker::new();
        let places = |number| Arc::new(Semaphore::new(number));
        let (places, of_others, of_strangers) =
            (places(MAX_CONNECTIONS), places(MAX_OF_OTHERS), places(MAX_OF_STRANGERS));
        let accepting = async {
            loop {
                // Never closed. When all are taken, callers wait in the kernel's queue.
                let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
                match listener.accept().await {
                    Ok((stream, _)) => {
                        let Ok(user) = stream.peer_cred().map(|credentials| credentials.uid()) else { continue };
                        let places_of_kind = match administrators.user(user) {
                            Some(permissions) if permissions.is_owner() => None,
                            Some(_) => Some(&of_others),
                            // They are told so by the doorkeeper, as long as they do not all stay.
                            None => Some(&of_strangers),
                        };
                        let place_of_kind = places_of_kind.map(|places| Arc::clone(places).try_acquire_owned());
                        let Ok(place_of_kind) = place_of_kind.transpose() else { continue };
                        let (routes, stop) = (routes.clone(), stop.clone());
                        connections.spawn(async move {
                            let _places = (place, place_of_kind);
                            let (ending, work) = (CancellationToken::new(), Work::default());
                            let local_user = Some(user);
                            let caller = Caller { peer: None, address: None, local_user, ending, work };
                            serve_http2(stream, routes, caller, &limits, std::future::pending(), (stop, drain)).await;
                        });
                    }
                    Err(error) => {
                        tracing::warn!(%error, "accept failed on the admin socket");
                        tokio::time::sleep(PAUSE).await;
                    }
                }
            }
        };
        stop.run_until_cancelled(accepting).await;
        connections.close();
        connections.wait().await;
        // A next start replaces it anyway.
        let _ = std::fs::remove_file(path);
    }
}

/// The effective user of this process, as the kernel names it to a peer. What is at a path may be somebody else's.
pub(crate) fn own_user() -> std::io::Result<u32> {
    let (socket, _peer) = UnixStream::pair()?;
    Ok(socket.peer_cred()?.uid())
}

async fn remove_stale(path: &Path) -> Result<(), AdminSocketError> {
    let io = |source| AdminSocketError::Io { path: path.to_owned(), source };
    match std::fs::symlink_metadata(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(io(error)),
        Ok(found) if !found.file_type().is_socket() => {
            return Err(AdminSocketError::NotASocket { path: path.to_owned() });
        }
        Ok(_) => {}
    }
    match UnixStream::connect(path).await {
        Err(error) if error.kind() == std::io::ErrorKind::ConnectionRefused => std::fs::remove_file(path).map_err(io),
        Err(error) => Err(io(error)),
        Ok(_) => Err(AdminSocketError::InUse { path: path.to_owned() }),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[tokio::test]
    async fn a_socket_is_private_and_one_that_is_left_behind_is_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("run/admin.sock");
        drop(AdminSocket::bind(&path, false).await.unwrap());
        let _again = AdminSocket::bind(&path, false).await.unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(matches!(AdminSocket::bind(&path, false).await, Err(AdminSocketError::InUse { .. })));
    }

    #[tokio::test]
    async fn the_own_user_is_the_one_of_this_process() {
        use std::os::unix::fs::MetadataExt;
        let mine = tempfile::NamedTempFile::new().unwrap().as_file().metadata().unwrap().uid();
        assert_eq!(own_user().unwrap(), mine);
    }

    #[tokio::test]
    async fn what_is_no_socket_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("admin.sock");
        std::fs::write(&path, "precious").unwrap();
        assert!(matches!(AdminSocket::bind(&path, false).await, Err(AdminSocketError::NotASocket { .. })));
        assert_eq!(std::fs::read(&path).unwrap(), b"precious");
    }
}
