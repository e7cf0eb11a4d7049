//! Which client identity the next connection of a slot has, and the rustls configuration for it.

use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;

use rustls::client::{ClientSessionStore, Resumption};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{ClientConfig, version};

use super::failure::Failure;
use super::plan::{Curve, Mode, TlsPlan};
use super::server_check::{ServerCheck, ServersSeen};
use super::ticket::{Keep, TicketBox};

/// What the slots of one thread share: the checked server and the algorithms.
#[derive(Debug)]
pub(super) struct ThreadTls {
    plan: TlsPlan,
    mode: Mode,
    provider: Arc<CryptoProvider>,
    check: Arc<ServerCheck>,
}

/// The identities that one slot goes round.
#[derive(Debug)]
pub(super) struct SlotTls {
    thread: Rc<ThreadTls>,
    /// Of all slots of the run.
    slot: usize,
    slots: usize,
    turn: usize,
    generation: u64,
    ready: HashMap<usize, ClientTls>,
}

/// One client identity, ready to connect.
#[derive(Clone, Debug)]
pub(super) struct ClientTls {
    pub(super) config: Arc<ClientConfig>,
    pub(super) tickets: Arc<TicketBox>,
    /// Of the files this identity was read from.
    pub(super) generation: u64,
}

impl ThreadTls {
    pub(super) fn new(plan: TlsPlan, mode: Mode) -> Self {
        let provider = Arc::new(CryptoProvider {
            kx_groups: vec![match plan.curve {
                Curve::X25519 => aws_lc_rs::kx_group::X25519,
                Curve::X25519MlKem768 => aws_lc_rs::kx_group::X25519MLKEM768,
            }],
            cipher_suites: vec![aws_lc_rs::cipher_suite::TLS13_AES_128_GCM_SHA256],
            ..aws_lc_rs::default_provider()
        });
        let algorithms = provider.signature_verification_algorithms;
        let check = Arc::new(ServerCheck::new(Arc::clone(&plan.roots), algorithms, plan.signatures));
        Self { plan, mode, provider, check }
    }

    pub(super) fn slot(self: &Rc<Self>, slot: usize, slots: usize) -> SlotTls {
        SlotTls { thread: Rc::clone(self), slot, slots, turn: 0, generation: 0, ready: HashMap::new() }
    }

    pub(super) fn servers(&self) -> ServersSeen {
        self.check.seen()
    }

    fn configure(&self, identity: &CertifiedKey, generation: u64) -> Result<ClientTls, Failure> {
        let keep = if self.mode == Mode::Resumed { Keep::Newest } else { Keep::Nothing };
        let tickets = Arc::new(TicketBox::new(keep));
        let mut config = ClientConfig::builder_with_provider(Arc::clone(&self.provider))
            .with_protocol_versions(&[&version::TLS13])
            .map_err(Failure::ClientIdentity)?
            .dangerous()
            .with_custom_certificate_verifier(Arc::clone(&self.check) as _)
            .with_client_cert_resolver(Arc::new(SingleCertAndKey::from(identity.clone())));
        config.resumption = Resumption::store(Arc::clone(&tickets) as Arc<dyn ClientSessionStore>);
        config.alpn_protocols = vec![match self.mode {
            Mode::Http2 | Mode::Grpc => b"h2".to_vec(),
            Mode::Handshake | Mode::Resumed | Mode::Http1 | Mode::Idle => b"http/1.1".to_vec(),
        }];
        config.enable_sni = false;
        Ok(ClientTls { config: Arc::new(config), tickets, generation })
    }
}

impl SlotTls {
    /// The identity for the next connection: the slots share out the fleet, each goes round its part of it.
    pub(super) fn next(&mut self) -> Result<ClientTls, Failure> {
        let fleet = self.thread.plan.clients.current();
        if fleet.generation() != self.generation {
            self.generation = fleet.generation();
            self.ready.clear();
        }
        let share = fleet.len().saturating_sub(self.slot).div_ceil(self.slots).max(1);
        let number = self.slot + (self.turn % share) * self.slots;
        self.turn = self.turn.wrapping_add(1);
        if let Some(ready) = self.ready.get(&number) {
            return Ok(ready.clone());
        }
        let made = self.thread.configure(fleet.member(number), self.generation)?;
        self.ready.insert(number, made.clone());
        Ok(made)
    }

    /// Whether the identity files have changed since `made`.
    pub(super) fn is_outdated(&self, generation: u64) -> bool {
        self.thread.plan.clients.current().generation() != generation
    }
}
