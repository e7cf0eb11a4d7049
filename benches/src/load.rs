//! The load generator. One thread, one current-thread runtime, one [`tally`](mod@tally) each; nothing is shared between threads
//! but the client identities. A *slot* is one thing that has at most one operation under way: a connection, an HTTP/2 stream,
//! or a place from which handshake after handshake is made.

mod cpu;
mod failure;
mod fleet;
mod grpc;
mod handshake;
mod http1;
mod http2;
mod idle;
mod link;
mod pace;
mod plan;
mod report;
mod response;
mod run;
mod server_check;
mod slot_tls;
mod tally;
mod ticket;

pub use fleet::{Fleet, FleetError, FleetSource};
pub use idle::{Held, Step, idle};
pub use plan::{Curve, Loop, Mode, Plan, Proof, Signatures, TlsPlan, Watched};
pub use report::Report;
pub use run::{LoadError, run};
