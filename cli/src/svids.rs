//! `signet get svids`, `signet describe`: what was issued, as long as it is on record.

mod life;

pub(crate) use life::describe;

use serde::Serialize;
use signet_proto::admin::v1::{ListSvidsRequest, Svid, SvidOrder, SvidSelection};
use time::OffsetDateTime;

use crate::admin;
use crate::args::{SvidSort, SvidsOptions};
use crate::failure::Failure;
use crate::output::{self, Format, List};

/// In one answer.
const PAGE: usize = 1000;

/// Page by page, until there are as many as are wanted. A page may be empty though there are more.
pub(crate) fn list(options: &SvidsOptions, format: Format) -> Result<(), Failure> {
    let wanted = options.limit as usize;
    let mut request = request(options);
    let (svids, more) = admin::call(&options.issuer, async |mut client| {
        let mut all: Vec<Svid> = Vec::new();
        loop {
            request.limit = u32::try_from((wanted - all.len()).min(PAGE)).unwrap_or(u32::MAX);
            let page = client.list_svids(request.clone()).await?.into_inner();
            all.extend(page.svids);
            request.page_token = page.next_page_token;
            if request.page_token.is_empty() || all.len() >= wanted {
                all.truncate(wanted);
                return Ok((all, !request.page_token.is_empty()));
            }
        }
    })?;
    output::print_list(format, &SvidList { svids: svids.into_iter().map(Line::from).collect(), more })?;
    match (format, more) {
        (Format::Table, true) => output::tell(&format!("there may be more than these {wanted}: raise --limit")),
        _ => Ok(()),
    }
}

fn request(options: &SvidsOptions) -> ListSvidsRequest {
    let selection = match (options.revoked, options.expired, options.all) {
        (true, ..) => SvidSelection::Revoked,
        (_, true, _) => SvidSelection::Expired,
        (.., true) => SvidSelection::All,
        (false, false, false) => SvidSelection::Unspecified,
    };
    let order = match options.sort {
        None => SvidOrder::Unspecified,
        Some(SvidSort::Issued) => SvidOrder::Issued,
        Some(SvidSort::Expiry) => SvidOrder::Expiry,
        Some(SvidSort::SpiffeId) => SvidOrder::SpiffeId,
    };
    ListSvidsRequest {
        selection: selection.into(),
        spiffe_id: options.spiffe_id.as_ref().map(|pattern| pattern.as_str().to_owned()).unwrap_or_default(),
        expiring_within: options.expiring.and_then(|within| prost_types::Duration::try_from(within).ok()),
        authority: options.authority.clone().unwrap_or_default(),
        agent: options.agent.unwrap_or_default(),
        rule: options.rule.clone().unwrap_or_default(),
        profile: options.profile.clone().unwrap_or_default(),
        order: order.into(),
        descending: options.descending,
        page_token: String::new(),
        limit: 0,
    }
}

#[derive(Serialize)]
struct SvidList {
    svids: Vec<Line>,
    /// There may be more than were wanted.
    more: bool,
}

/// One certificate, as a list has it and as its own description begins.
#[derive(Serialize)]
struct Line {
    serial: String,
    spiffe_id: String,
    state: String,
    issued_at: Option<String>,
    not_before: Option<String>,
    not_after: Option<String>,
    profile: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    rule: String,
    authority: String,
    attestation: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    agent: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    log: Option<LogPlace>,
    #[serde(skip)]
    expires: Option<OffsetDateTime>,
}

#[derive(Serialize)]
struct LogPlace {
    origin: String,
    index: u64,
}

impl From<Svid> for Line {
    fn from(svid: Svid) -> Self {
        let log = LogPlace { origin: svid.log_origin, index: svid.log_index };
        Self {
            serial: svid.serial,
            spiffe_id: svid.spiffe_id,
            state: svid.state,
            issued_at: output::shown(svid.issued_at),
            not_before: output::shown(svid.not_before),
            not_after: output::shown(svid.not_after),
            profile: svid.profile,
            rule: svid.rule,
            authority: svid.authority,
            attestation: svid.attestation,
            agent: Some(svid.agent).filter(|agent| *agent != 0),
            log: Some(log).filter(|log| !log.origin.is_empty()),
            expires: svid.not_after.and_then(output::time_of),
        }
    }
}

impl List for SvidList {
    const COLUMNS: &'static [&'static str] =
        &["serial", "spiffe id", "state", "expires", "issued", "attestation", "agent", "rule", "profile", "log index"];

    fn lines(&self) -> Vec<Vec<String>> {
        let now = OffsetDateTime::now_utc();
        let line = |line: &Line| {
            vec![
                line.serial.clone(),
                line.spiffe_id.clone(),
                line.state.clone(),
                line.expires.map(|at| output::distance(now, at)).unwrap_or_default(),
                line.issued_at.clone().unwrap_or_default(),
                line.attestation.clone(),
                line.agent.map(|agent| agent.to_string()).unwrap_or_default(),
                line.rule.clone(),
                line.profile.clone(),
                line.log.as_ref().map(|log| log.index.to_string()).unwrap_or_default(),
            ]
        };
        self.svids.iter().map(line).collect()
    }

    fn nothing(&self) -> &'static str {
        match self.more {
            true => "none of those that were looked at",
            false => "there is none on record",
        }
    }
}
