//! The way to an issuer's administration: `signet.admin.v1` over its local socket, or over mTLS.

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use hyper_util::rt::TokioIo;
use signet_proto::admin::v1::admin_service_client::AdminServiceClient;
use tokio::net::UnixStream;
use tonic::transport::{Channel, Endpoint, Uri};

use crate::args::IssuerOptions;
use crate::failure::Failure;
use crate::network;

/// Where an issuer's socket is looked for, in this order, when none is named.
pub(crate) const SOCKETS: [&str; 2] = [".signet/issuer-admin.sock", "/run/signet/issuer-admin.sock"];

/// For one call: an issuer that hangs is told as such.
const PATIENCE: Duration = Duration::from_secs(10);

/// A policy with as many rules as there may be, each with its outcome.
const MAX_ANSWER: usize = 64 << 20;

/// Runs one administrative exchange to its end.
pub(crate) fn call<T>(
    options: &IssuerOptions,
    exchange: impl AsyncFnOnce(AdminServiceClient<Channel>) -> Result<T, tonic::Status>,
) -> Result<T, Failure> {
    let place = Place::of(options)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::from_error(&error))?;
    runtime.block_on(async {
        let client = match &place {
            Place::Socket(socket) => connect(socket).await?,
            Place::Network { address, identity } => {
                let channel = network::connect(address, identity, PATIENCE).await?;
                AdminServiceClient::new(channel).max_decoding_message_size(MAX_ANSWER)
            }
        };
        exchange(client).await.map_err(|status| refused(&status))
    })
}

/// A client of the issuer that listens at `socket`.
pub(crate) async fn connect(socket: &Path) -> Result<AdminServiceClient<Channel>, Failure> {
    let path = socket.to_owned();
    let channel = Endpoint::from_static("http://issuer.invalid")
        .connect_timeout(PATIENCE)
        .timeout(PATIENCE)
        .connect_with_connector(tower::service_fn(move |_: Uri| {
            let path = path.clone();
            async move { UnixStream::connect(path).await.map(TokioIo::new) }
        }))
        .await
        .map_err(|error| unreachable_issuer(socket, &error))?;
    Ok(AdminServiceClient::new(channel).max_decoding_message_size(MAX_ANSWER))
}

/// What the issuer said, told as a failure of the command.
pub(crate) fn refused(status: &tonic::Status) -> Failure {
    match status.code() {
        tonic::Code::PermissionDenied => Failure::new(format!("the issuer refused: {}", status.message()))
            .remedy("ask an administrator for the role, or run this as root or as the issuer's own user"),
        tonic::Code::DeadlineExceeded | tonic::Code::Cancelled => {
            Failure::new(format!("the issuer did not answer within {} s", PATIENCE.as_secs()))
                .remedy("look at its log and its /ready")
        }
        // It names the place, and on a second line what to do.
        tonic::Code::InvalidArgument => match status.message().split_once('\n') {
            Some((cause, fix)) => Failure::new(cause).remedy(fix),
            None => Failure::new(status.message()),
        },
        tonic::Code::Aborted if status.message().starts_with("page_token: ") => {
            Failure::new("what was listed last has left the record meanwhile").remedy("run it again")
        }
        tonic::Code::Aborted => Failure::new(in_words(status)).remedy("look at the difference and try again"),
        _ => Failure::new(format!("the issuer refused: {}", in_words(status))),
    }
}

/// Without the field of the request that it begins with: whoever typed a command has not written that.
fn in_words(status: &tonic::Status) -> &str {
    let message = status.message();
    ["expected_revision: ", "revision: "].into_iter().find_map(|field| message.strip_prefix(field)).unwrap_or(message)
}

fn unreachable_issuer(socket: &Path, error: &tonic::transport::Error) -> Failure {
    let failure = Failure::from_error(error);
    Failure::new(format!("{}: cannot reach the issuer ({})", socket.display(), failure.cause()))
        .remedy("is it running? `signet dev` starts one; name another by --issuer or SIGNET_ISSUER")
}

/// Where an issuer is administered.
enum Place {
    Socket(PathBuf),
    Network { address: String, identity: PathBuf },
}

impl Place {
    fn of(options: &IssuerOptions) -> Result<Self, Failure> {
        let Some(named) = &options.issuer else { return socket().map(Self::Socket) };
        if is_socket(named) {
            return Ok(Self::Socket(named.into()));
        }
        let identity = options.identity.clone().ok_or_else(|| {
            Failure::new(format!("{named}: an issuer on the network wants to know who you are"))
                .remedy("name the folder with your identity by --identity or SIGNET_IDENTITY")
        })?;
        Ok(Self::Network { address: named.clone(), identity })
    }
}

/// Of an issuer on this machine.
pub(crate) fn socket_of(named: Option<&str>) -> Result<PathBuf, Failure> {
    match named {
        None => socket(),
        Some(named) if is_socket(named) => Ok(named.into()),
        Some(named) => Err(Failure::new(format!("{named}: the issuer is to be one on this machine"))
            .remedy("name its admin socket by --issuer or SIGNET_ISSUER")),
    }
}

/// A path with a colon can be written with a slash: ./a:1
fn is_socket(named: &str) -> bool {
    named.contains('/') || !named.contains(':')
}

fn socket() -> Result<PathBuf, Failure> {
    let found = SOCKETS.iter().map(Path::new).find_map(|path| path.metadata().ok().map(|socket| (path, socket)));
    let Some((path, socket)) = found else {
        return Err(Failure::new(format!("no issuer found: neither {} nor {} is there", SOCKETS[0], SOCKETS[1]))
            .remedy("start one (`signet dev`), or name its socket by --issuer or SIGNET_ISSUER"));
    };
    if !is_believed(path, socket.uid(), rustix::process::geteuid().as_raw()) {
        return Err(Failure::new(format!("{}: it is user {}'s, not yours", path.display(), socket.uid()))
            .remedy("if you trust whoever put it into this folder, name it by --issuer"));
    }
    Ok(path.to_owned())
}

/// Whoever can write to the folder that somebody happens to be in could be its issuer. Where only an administrator puts things, it may
/// be any user's.
fn is_believed(path: &Path, owner: u32, own_user: u32) -> bool {
    path.is_absolute() || owner == own_user || owner == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_in_any_folder_is_believed_where_it_is_ones_own_or_roots() {
        let [here, system] = SOCKETS.map(Path::new);
        assert!(
            is_believed(here, 7, 7) && is_believed(here, 0, 7) && !is_believed(here, 8, 7) && !is_believed(here, 7, 0)
        );
        assert!(is_believed(system, 8, 7));
    }
}
