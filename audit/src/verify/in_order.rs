//! Each entry of a log in its order, and each verified before it is shown.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, sync_channel};

use super::{Fault, Walk, read_edge};
use crate::TILE;
use crate::bundle::Bundle;
use crate::checkpoint::Checkpoint;
use crate::resource::Width;
use crate::source::Source;

/// Why a log was not read to its end.
#[derive(Debug)]
pub enum Unread<E> {
    /// In the order of the log; at least one.
    Faults(Vec<Fault>),
    /// Of whoever was shown the entries.
    Told(E),
}

/// Bundles that each thread may be ahead: memory does not grow with the log.
const AHEAD: usize = 8;

/// Shows all entries under a checkpoint that is believed to `show`, bundle by bundle, with the index of the first. `threads` verify ahead.
/// After an error, nothing more is shown; what was shown was all right.
pub fn read_in_order<E>(
    source: &impl Source,
    checkpoint: &Checkpoint,
    threads: usize,
    show: impl FnMut(u64, &mut dyn Iterator<Item = &[u8]>) -> Result<(), E>,
) -> Result<(), Unread<E>> {
    read_in_order_from(source, checkpoint, 0, threads, show)
}

/// The same from entry `from` on. What is before it is not looked at: whoever has seen it has to see that this log begins with that.
pub fn read_in_order_from<E>(
    source: &impl Source,
    checkpoint: &Checkpoint,
    from: u64,
    threads: usize,
    mut show: impl FnMut(u64, &mut dyn Iterator<Item = &[u8]>) -> Result<(), E>,
) -> Result<(), Unread<E>> {
    let edge = read_edge(source, checkpoint).map_err(Unread::Faults)?;
    let walk = Walk {
        source,
        edge: &edge,
        size: checkpoint.size,
        faults: std::sync::Mutex::default(),
        enough: AtomicBool::new(false),
    };
    let (start, bundles, threads) = (from / TILE, checkpoint.size.div_ceil(TILE), threads.max(1));
    let told = std::thread::scope(|scope| {
        // The first has the bundles 0, n, 2n, … from the start on; so whose turn it is, is known.
        let receivers: Vec<Receiver<Bundle>> = (0..threads as u64)
            .map(|first| {
                let (sender, receiver) = sync_channel(AHEAD);
                let walk = &walk;
                scope.spawn(move || {
                    let mut path = Vec::new();
                    for bundle in (start + first..bundles).step_by(threads) {
                        let Some(width) = Width::of(walk.size - bundle * TILE) else { return };
                        if walk.enough.load(Ordering::Relaxed) {
                            return;
                        }
                        let sent = match walk.verify_bundle(bundle, width, &mut path) {
                            Ok(verified) => sender.send(verified),
                            Err(fault) => return walk.tell(bundle, fault),
                        };
                        // Nobody reads any more.
                        if sent.is_err() {
                            return;
                        }
                    }
                });
                receiver
            })
            .collect();
        for bundle in start..bundles {
            // Whoever ends early has a fault to tell.
            let Ok(verified) = receivers[((bundle - start) % threads as u64) as usize].recv() else { break };
            let first = from.max(bundle * TILE);
            if let Err(error) = show(first, &mut verified.entries().skip((first - bundle * TILE) as usize)) {
                walk.enough.store(true, Ordering::Relaxed);
                return Err(error);
            }
        }
        Ok(())
    });
    told.map_err(Unread::Told)?;
    let faults = walk.into_faults();
    if faults.is_empty() { Ok(()) } else { Err(Unread::Faults(faults)) }
}
