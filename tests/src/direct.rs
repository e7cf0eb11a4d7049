//! Callers with an identity of their own at a gateway's door, while authorities and roots follow each other: new handshakes, and requests over
//! connections that are kept.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use tempfile::TempDir;

use crate::load::{Load, Running};
use crate::wait::secs;
use crate::workload::Workload;

/// Load under way. The identity is renewed each second, as by whoever is told of each change.
#[derive(Debug)]
pub struct Direct {
    running: [Running; 3],
    renewing: Option<JoinHandle<()>>,
    over: Arc<AtomicBool>,
    due: u64,
    _folder: TempDir,
}

impl Direct {
    /// So many handshakes each second, and as many requests over HTTP/1.1 and HTTP/2 each. The server stands under one of the roots.
    pub fn start(client: Workload, roots: &[&Path], target: SocketAddr, rate: u32, duration: Duration) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let (link, bundle) = (folder.path().join("current"), folder.path().join("roots.pem"));
        let roots: String = roots.iter().map(|root| std::fs::read_to_string(root).expect("a root")).collect();
        std::fs::write(&bundle, roots).expect("a file");
        client.svid().write_behind_link(&link, "client");
        let over = Arc::<AtomicBool>::default();
        let (is_over, followed) = (over.clone(), link.clone());
        let renewing = Some(thread::spawn(move || client.keep_renewing(&followed, secs(1), &is_over)));
        let loads = [Load::handshakes(target), Load::http1(target), Load::http2(target)];
        let running = loads.map(|load| load.identities(&link, &bundle).rate(rate, duration).start());
        Self { running, renewing, over, due: u64::from(rate) * duration.as_secs(), _folder: folder }
    }

    pub fn is_running(&mut self) -> bool {
        self.running.iter_mut().all(Running::is_running)
    }

    /// Waits for its end.
    ///
    /// # Panics
    /// If a handshake, a request or a renewal failed, or there were fewer than were due.
    #[track_caller]
    pub fn expect_no_failure(mut self) {
        let due = self.due * 9 / 10;
        for report in self.running.each_mut().map(Running::wait) {
            report.expect_no_failure(due);
            assert!(report.server_certificates_seen() > 1, "the server has never changed its certificate: {report}");
        }
        self.over.store(true, Ordering::Relaxed);
        if let Some(renewing) = self.renewing.take() {
            renewing.join().expect("renewals");
        }
    }
}

impl Drop for Direct {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
    }
}
