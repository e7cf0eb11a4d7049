//! `signet status`.

use serde::Serialize;
use signet_proto::admin::v1::{GetStatusRequest, GetStatusResponse};
use time::OffsetDateTime;

use crate::admin;
use crate::args::IssuerOptions;
use crate::failure::Failure;
use crate::output::{self, Format, Report};

pub(crate) fn show(options: &IssuerOptions, format: Format) -> Result<(), Failure> {
    let answer =
        admin::call(options, async |mut client| Ok(client.get_status(GetStatusRequest {}).await?.into_inner()))?;
    output::print(format, &Status::from(answer))
}

#[derive(Serialize)]
struct Status {
    trust_domain: String,
    version: String,
    authority: Option<Authority>,
    /// Authorities that are ready to follow.
    successors: u32,
    /// What the policy gives for longer than the authority does.
    lives_cut: u32,
    connected_clients: u32,
    live_svids: u64,
}

#[derive(Serialize)]
struct Authority {
    key_id: String,
    not_before: Option<String>,
    not_after: Option<String>,
    /// Of a leaf that it signs.
    longest_life_seconds: Option<u64>,
    /// From when on the issuer asks for a successor, where none is ready.
    successor_due: Option<String>,
    /// When it gives way to one that is ready.
    gives_way: Option<String>,
    #[serde(skip)]
    times: Times,
}

#[derive(Clone, Copy, Default)]
struct Times {
    expires: Option<OffsetDateTime>,
    successor_due: Option<OffsetDateTime>,
    gives_way: Option<OffsetDateTime>,
}

impl From<GetStatusResponse> for Status {
    fn from(answer: GetStatusResponse) -> Self {
        let time = |at: prost_types::Timestamp| OffsetDateTime::from_unix_timestamp(at.seconds).ok();
        let authority = answer.authority.map(|authority| {
            let [expires, successor_due, gives_way] =
                [authority.not_after, authority.successor_due, authority.gives_way].map(|at| at.and_then(time));
            Authority {
                key_id: authority.key_id,
                not_before: authority.not_before.and_then(time).map(output::timestamp),
                not_after: expires.map(output::timestamp),
                longest_life_seconds: authority.longest_life.and_then(|life| u64::try_from(life.seconds).ok()),
                successor_due: successor_due.map(output::timestamp),
                gives_way: gives_way.map(output::timestamp),
                times: Times { expires, successor_due, gives_way },
            }
        });
        Self {
            trust_domain: answer.trust_domain,
            version: answer.version,
            authority,
            successors: answer.successors,
            lives_cut: answer.lives_cut,
            connected_clients: answer.connected_clients,
            live_svids: answer.live_svids,
        }
    }
}

impl Report for Status {
    fn rows(&self) -> Vec<(&'static str, String)> {
        let authority = match &self.authority {
            None => "none yet: its certificate request waits to be signed (`signet ca sign`)".to_owned(),
            Some(authority) => match authority.times.expires {
                Some(at) => {
                    let left = output::distance(OffsetDateTime::now_utc(), at);
                    format!("{}, expires {} ({left})", authority.key_id, output::timestamp(at))
                }
                None => authority.key_id.clone(),
            },
        };
        let times = self.authority.as_ref().map(|authority| authority.times).unwrap_or_default();
        let successors = match self.successors {
            0 if self.authority.is_none() => "none".to_owned(),
            0 => no_successor(times, OffsetDateTime::now_utc()),
            ready => ready.to_string(),
        };
        let longest = self.authority.as_ref().and_then(|authority| authority.longest_life_seconds).map(output::span);
        let longest = longest.map(|longest| match self.lives_cut {
            0 => longest,
            cut => format!("{longest}; the policy gives longer ones ({cut}), which are cut to that: see the log"),
        });
        let mut rows = vec![
            ("trust domain", self.trust_domain.clone()),
            ("authority", authority),
            ("successors", successors),
            ("live identities", self.live_svids.to_string()),
            ("connected clients", self.connected_clients.to_string()),
            ("version", self.version.clone()),
        ];
        if let Some(longest) = longest {
            rows.insert(2, ("signs up to", longest));
        }
        rows
    }
}

/// Whether one is needed by now: from the first day on there is none, and for half of the authority's life nobody has to do anything.
fn no_successor(times: Times, now: OffsetDateTime) -> String {
    const HOW: &str = "(`signet ca csr`, `signet ca sign`, `signet ca import`)";
    let when = |at: OffsetDateTime| format!("{} ({})", output::timestamp(at), output::distance(now, at));
    match times {
        Times { successor_due: Some(due), .. } if now < due => format!("none, and none is due before {}", when(due)),
        Times { gives_way: Some(end), .. } if now < end => format!("none: have one signed before {} {HOW}", when(end)),
        Times { gives_way: Some(end), .. } => {
            format!("none: have one signed now {HOW}; the authority was to give way {}", when(end))
        }
        // An issuer that does not tell.
        Times { gives_way: None, .. } => format!("none: have one signed in time {HOW}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_needs_no_successor_yet_is_not_told_to_have_one_signed() {
        let begin = OffsetDateTime::UNIX_EPOCH;
        let day = |number: i64| begin + time::Duration::days(number);
        let times = Times { expires: Some(day(90)), successor_due: Some(day(45)), gives_way: Some(day(68)) };
        for (at, expected) in [
            (0, "none, and none is due before 1970-02-15T00:00:00Z (in 45 d)"),
            (44, "none, and none is due before 1970-02-15T00:00:00Z (in 1 d)"),
            (45, "none: have one signed before 1970-03-10T00:00:00Z (in 23 d) (`signet ca csr`"),
            (67, "none: have one signed before 1970-03-10T00:00:00Z (in 1 d) (`signet ca csr`"),
            (70, "none: have one signed now (`signet ca csr`"),
        ] {
            let told = no_successor(times, day(at));
            assert!(told.starts_with(expected), "{at}: {told}");
        }
        assert!(no_successor(times, day(70)).ends_with("was to give way 1970-03-10T00:00:00Z (2 d ago)"));
        assert!(no_successor(Times::default(), begin).starts_with("none: have one signed in time (`signet ca csr`"));
    }
}
