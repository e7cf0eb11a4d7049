//! `signet dev`: the whole mesh in one process, each part as a user would run it: from a configuration file, with a root
//! that the issuer never meets, and join tokens from the issuer's own administration.

mod addresses;
mod banner;
mod ceremony;
mod configuration;
mod echo;
mod parts;
mod rotations;
mod state;

use std::io::{self, Write as _};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use identity_issuer::root::{self, RootError};
use identity_issuer::{Passphrase, SealStrength};
use signet_identity::{SharedClock, SpiffeIdError, SystemClock, TrustDomain, WorkloadId};
use signet_process::logging::{self, LogHandle};
use signet_process::shutdown;

use crate::admin;
use crate::args::{DevOptions, IssuerOptions};
use crate::failure::Failure;
use crate::token;

use banner::Banner;
use ceremony::Ceremony;
use configuration::{GatewayIdentity, IssuerFile};
use echo::Echo;
use parts::{Parts, RunningGateway, RunningIssuer};
use rotations::Rotations;
use state::{State, damaged};

const ROOT_LIFE: Duration = Duration::from_secs(3650 * 86_400);
/// The tokens are used at once.
const TOKEN_LIFE: Duration = Duration::from_secs(60);

pub(crate) fn run(options: &DevOptions) -> Result<(), Failure> {
    let log = logging::init(logging::Format::auto());
    log.set_level(options.log);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::from_error(&error))?;
    runtime.block_on(async {
        let interrupted = shutdown::signals().map_err(|error| Failure::from_error(&error))?;
        let mut parts = Parts::default();
        let ran = tokio::select! {
            ran = start_and_watch(options, log, &mut parts) => ran,
            () = interrupted.cancelled() => Ok(()),
        };
        // The reason why it ends is worth more than what goes wrong while it ends.
        ran.and(parts.end().await)
    })
}

/// Returns only with a failure, or when nobody is left who could rotate.
async fn start_and_watch(options: &DevOptions, log: LogHandle, parts: &mut Parts) -> Result<(), Failure> {
    addresses::check(options)?;
    let state = State::open(&options.state, options.fresh)?;
    let ids = Ids::of(&options.trust_domain).map_err(|error| Failure::from_error(&error))?;
    let mesh = Mesh { options, state, ids, clock: Arc::new(SystemClock), log };
    let mut rotations = mesh.start(parts).await?;
    tokio::select! {
        failure = parts.failure() => Err(failure),
        () = rotations.print() => Ok(()),
    }
}

/// The state folder of the mesh whose issuer is named, where it is one of `signet dev`.
pub(crate) fn folder_of(issuer: &IssuerOptions) -> Option<PathBuf> {
    let socket = issuer.issuer.as_deref().unwrap_or(admin::SOCKETS[0]);
    let folder = Path::new(socket).parent()?;
    state::is_ours(folder).then(|| folder.to_owned())
}

/// Makes the next root of such a mesh, where there is none yet; returns its certificate.
pub(crate) fn next_root(folder: &Path) -> Result<PathBuf, Failure> {
    next_root_at(folder, &state::next_root_in(folder))
}

/// For a plan: the next root of such a mesh, or where there is none yet, one that is gone afterwards.
pub(crate) fn with_some_next_root(
    folder: &Path,
    plan: impl FnOnce(&Path) -> Result<(), Failure>,
) -> Result<(), Failure> {
    if state::next_root_in(folder).exists() {
        return plan(&next_root(folder)?);
    }
    let place = tempfile::tempdir().map_err(|error| {
        Failure::new(format!("no folder for a moment: {error}")).remedy("see that TMPDIR can be written to")
    })?;
    plan(&next_root_at(folder, &place.path().join("root"))?)
}

fn next_root_at(folder: &Path, next: &Path) -> Result<PathBuf, Failure> {
    ceremony::next_root(&state::root_in(folder), next, |trust_domain| {
        let file = state::draw_passphrase(next)?;
        let passphrase =
            Passphrase::from_file(&file).map_err(|error| damaged(&file, Failure::from_error(&error).cause()))?;
        root::init(next, trust_domain, &passphrase, SealStrength::STANDARD, ROOT_LIFE, &SystemClock)
            .map(drop)
            .map_err(|error| damaged(next, Failure::from_error(&error).cause()))
    })
}

struct Mesh<'a> {
    options: &'a DevOptions,
    state: State,
    ids: Ids,
    clock: SharedClock,
    log: LogHandle,
}

/// Who is who in the mesh.
struct Ids {
    trust_domain: TrustDomain,
    issuer: WorkloadId,
    inbound: WorkloadId,
    outbound: WorkloadId,
}

/// What stands behind the inbound gateway.
enum Upstream {
    /// The user's, as given.
    Named(String),
    /// The built-in one.
    Echo(SocketAddr),
}

impl Mesh<'_> {
    /// Starts every part in the order in which they need each other, and says so.
    async fn start(&self, parts: &mut Parts) -> Result<Rotations, Failure> {
        let Self { options, ids, .. } = self;
        self.root()?;
        let issuer = self.issuer(parts).await?;
        let upstream = self.upstream(parts).await?;

        let token = self.join_token("inbound", &ids.inbound).await?;
        let yaml = self.identity(&issuer, &token).inbound(options.gateway_admin, options.inbound, &upstream.url());
        let inbound = self.gateway(parts, "inbound", &yaml).await?;

        let token = self.join_token("outbound", &ids.outbound).await?;
        let identity = self.identity(&issuer, &token);
        let yaml = identity.outbound(options.outbound_admin, options.outbound, inbound.address, &ids.inbound);
        let outbound = self.gateway(parts, "outbound", &yaml).await?;

        let banner = Banner {
            ids,
            ttl: options.ttl,
            state: &options.state,
            issuer: &issuer,
            inbound: &inbound,
            outbound: &outbound,
            upstream: &upstream,
        };
        // A reader that went away does not end the mesh.
        let _ = write!(io::stdout(), "{banner}");
        Ok(Rotations::of(ids.issuer.clone(), &issuer, &inbound, &outbound))
    }

    /// The root of an earlier run, or a new one.
    fn root(&self) -> Result<(), Failure> {
        let folder = self.state.root();
        let passphrase = self.passphrase(&folder)?;
        let wanted = &self.options.trust_domain;
        let root = match root::show(&folder) {
            Err(RootError::Missing { .. }) => {
                root::init(&folder, wanted, &passphrase, SealStrength::STANDARD, ROOT_LIFE, &*self.clock)
            }
            shown => shown,
        };
        let root = root.map_err(|error| damaged(&folder, Failure::from_error(&error).cause()))?;
        if root.trust_domain != *wanted {
            return Err(Failure::new(format!("{} is of trust domain {}", folder.display(), root.trust_domain))
                .remedy("begin anew with --fresh, or keep both by naming another folder with --state"));
        }
        Ok(())
    }

    /// Starts the issuer, and plays the person with the root.
    async fn issuer(&self, parts: &mut Parts) -> Result<RunningIssuer, Failure> {
        let folder = self.state.issuer();
        self.passphrase(&folder)?;
        let file = IssuerFile {
            trust_domain: &self.options.trust_domain,
            state: &folder,
            listen: self.options.issuer,
            admin: self.options.issuer_admin,
            web: self.options.web,
            admin_socket: &self.state.admin_socket(),
            passphrase: &state::passphrase_of(&folder),
            authority: &folder.join("authority.pem"),
            trust_bundle: &self.state.root_certificate(),
            ttl: self.options.ttl,
        };
        let path = self.state.replace("issuer.yaml", &file.yaml())?;
        let mut issuer = parts.issuer(&path, self.clock.clone(), self.log.clone()).await?;
        let ceremony = Ceremony {
            trust_domain: self.options.trust_domain.clone(),
            root: self.state.root(),
            next: self.state.next_root(),
            certificate: issuer.certificate.clone(),
            clock: self.clock.clone(),
        };
        // What is wrong with the root is told at once.
        ceremony.sign(&issuer.requests.borrow(), &issuer.trusted.borrow())?;
        parts.ceremony(ceremony, &issuer);
        issuer.serving().await?;
        Ok(issuer)
    }

    async fn upstream(&self, parts: &mut Parts) -> Result<Upstream, Failure> {
        if let Some(url) = &self.options.upstream {
            return Ok(Upstream::Named(url.clone()));
        }
        let echo = Echo::bind().await.map_err(|error| Failure::from_error(&error))?;
        let address = echo.address().map_err(|error| Failure::from_error(&error))?;
        parts.echo(echo);
        Ok(Upstream::Echo(address))
    }

    async fn gateway(&self, parts: &mut Parts, name: &str, yaml: &str) -> Result<RunningGateway, Failure> {
        let path = self.state.replace(&format!("gateway-{name}.yaml"), yaml)?;
        parts.gateway(&path, self.log.clone()).await
    }

    fn identity<'a>(&'a self, issuer: &RunningIssuer, join_token: &'a PathBuf) -> GatewayIdentity<'a> {
        GatewayIdentity {
            trust_domain: &self.options.trust_domain,
            issuer: issuer.grpc,
            bundle: self.state.root_certificate(),
            join_token,
        }
    }

    async fn join_token(&self, name: &str, id: &WorkloadId) -> Result<PathBuf, Failure> {
        let client = admin::connect(&self.state.admin_socket()).await?;
        let answer = token::request(client, id, TOKEN_LIFE).await.map_err(|status| admin::refused(&status))?;
        self.state.replace(&format!("gateway-{name}.token"), &answer.join_token)
    }

    fn passphrase(&self, folder: &Path) -> Result<Passphrase, Failure> {
        let file = self.state.passphrase_file(folder)?;
        Passphrase::from_file(&file).map_err(|error| damaged(&file, Failure::from_error(&error).cause()))
    }
}

impl Ids {
    fn of(trust_domain: &TrustDomain) -> Result<Self, SpiffeIdError> {
        let id = |path: &str| format!("spiffe://{trust_domain}{path}").parse::<WorkloadId>();
        Ok(Self {
            issuer: id("/signet/issuer")?,
            inbound: id("/gateway/inbound")?,
            outbound: id("/gateway/outbound")?,
            trust_domain: trust_domain.clone(),
        })
    }
}

impl Upstream {
    fn url(&self) -> String {
        match self {
            Self::Named(url) => url.clone(),
            Self::Echo(address) => format!("http://{address}"),
        }
    }
}
