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
    #[serde(skip)]
    expires: Option<OffsetDateTime>,
}

impl From<GetStatusResponse> for Status {
    fn from(answer: GetStatusResponse) -> Self {
        let time = |at: prost_types::Timestamp| OffsetDateTime::from_unix_timestamp(at.seconds).ok();
        let authority = answer.authority.map(|authority| {
            let expires = authority.not_after.and_then(time);
            Authority {
                key_id: authority.key_id,
                not_before: authority.not_before.and_then(time).map(output::timestamp),
                not_after: expires.map(output::timestamp),
                longest_life_seconds: authority.longest_life.and_then(|life| u64::try_from(life.seconds).ok()),
                expires,
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
            Some(authority) => match authority.expires {
                Some(at) => {
                    let left = output::distance(OffsetDateTime::now_utc(), at);
                    format!("{}, expires {} ({left})", authority.key_id, output::timestamp(at))
                }
                None => authority.key_id.clone(),
            },
        };
        let successors = match self.successors {
            0 => "none: have one signed in time (`signet ca csr`, `signet ca sign`, `signet ca import`)".to_owned(),
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
