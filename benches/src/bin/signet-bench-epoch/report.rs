//! What came out, as a table or as JSON.

use std::fmt;
use std::time::Duration;

use serde_json::{Value, json};

use crate::closing::Closed;
use crate::gateway::Change;

/// What came out.
pub(crate) struct Report {
    pub(crate) connections: usize,
    pub(crate) identities: usize,
    pub(crate) workers: u32,
    pub(crate) quiet: Duration,
    pub(crate) added: (Change, Duration),
    pub(crate) removed: (Change, Duration),
    pub(crate) closed: Closed,
    /// How many closed whose authority stays.
    pub(crate) others: usize,
}

impl Report {
    pub(crate) fn json(&self) -> Value {
        let change = |(change, longest): &(Change, Duration)| {
            json!({
                "judged_ms": ms(change.judged),
                "judging_ms": ms(change.judging),
                "cut_off": change.cut_off,
                "longest_echo_ms": ms(*longest),
            })
        };
        json!({
            "connections": self.connections,
            "identities": self.identities,
            "workers": self.workers,
            "quiet": { "longest_echo_ms": ms(self.quiet) },
            "authority_added": change(&self.added),
            "authority_removed": change(&self.removed),
            "closed": {
                "connections": self.closed.leaving,
                "first_ms": ms(self.closed.first),
                "last_ms": ms(self.closed.last),
                "others_closed": self.others,
            },
        })
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { connections, identities, workers, quiet, added, removed, closed, others } = self;
        writeln!(f, "{connections} connections, {identities} identities, {workers} worker(s)")?;
        writeln!(f, "                     published → all judged   at work    longest echo")?;
        writeln!(f, "nothing changes      {:>22}   {:>7}   {:>9.2} ms", "–", "–", ms(*quiet))?;
        for (what, (change, longest)) in [("authority added", added), ("authority removed", removed)] {
            let (judged, judging, longest) = (ms(change.judged), ms(change.judging), ms(*longest));
            writeln!(f, "{what:<18}   {judged:>19.2} ms   {judging:>4.1} ms   {longest:>9.2} ms")?;
        }
        let (first, last) = (ms(closed.first), ms(closed.last));
        writeln!(f, "{} connections closed {first:.1} to {last:.1} ms after the publication", closed.leaving)?;
        writeln!(f, "{others} of the {} others closed", connections - closed.leaving)
    }
}

fn ms(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}
