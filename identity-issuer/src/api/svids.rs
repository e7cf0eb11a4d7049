//! `signet.admin.v1`, as far as it is about what was issued.

use std::time::Duration;

use signet_policy::Pattern;
use signet_proto::admin::v1::{
    ListSvidsRequest, ListSvidsResponse, Svid, SvidDetails as Details, SvidOrder, SvidSelection,
};
use time::OffsetDateTime;
use tonic::Status;

use super::agents::number_of_wire;
use super::{explanation, page, revocations, span, store_status, timestamp};
use crate::administration::Permissions;
use crate::revocation::SerialNumber;
use crate::store::{
    Cursor, Direction, Order, PageError, PageStart, Selection, Store, SvidDetails, SvidFilter, SvidRecord,
};

/// A hundred years.
const LONGEST: Duration = Duration::from_secs(36_500 * 86_400);
/// Of a subject key identifier, in bytes.
const MAX_KEY_ID: usize = 64;
/// Of the name of a rule or a profile, and of what a page ended with, in bytes.
const MAX_TEXT: usize = 256;

/// A page of what the caller may see; the rest costs reading, and nothing of it is told.
pub(super) async fn list(
    store: &Store,
    permissions: &Permissions,
    request: ListSvidsRequest,
    now: OffsetDateTime,
) -> Result<ListSvidsResponse, Status> {
    let limit = page(request.limit)?;
    let start = start(&request)?;
    let filter = filter(request, now)?;
    let read = store.svids(&filter, start, limit as usize, now, |id| permissions.sees(id.path())).await;
    let read = read.map_err(|error| match error {
        PageError::OtherFilters => Status::invalid_argument(format!("page_token: {error}")),
        PageError::Gone => Status::aborted(format!("page_token: {error}; begin again")),
        PageError::Store(error) => store_status(&error),
    })?;
    Ok(ListSvidsResponse {
        svids: read.svids.into_iter().map(|record| told(record, now)).collect(),
        next_page_token: read.next.map(|cursor| cursor.to_string()).unwrap_or_default(),
    })
}

fn start(request: &ListSvidsRequest) -> Result<PageStart, Status> {
    if !request.page_token.is_empty() {
        let token = bounded("page_token", &request.page_token)?;
        let cursor =
            token.parse::<Cursor>().map_err(|error| Status::invalid_argument(format!("page_token: {error}")))?;
        return Ok(PageStart::Behind(cursor));
    }
    let order = match SvidOrder::try_from(request.order) {
        Ok(SvidOrder::Unspecified) => None,
        Ok(SvidOrder::Issued) => Some(Order::Issued),
        Ok(SvidOrder::Expiry) => Some(Order::Expiry),
        Ok(SvidOrder::SpiffeId) => Some(Order::Id),
        Err(_) => return Err(Status::invalid_argument(format!("order: there is none with number {}", request.order))),
    };
    let direction = if request.descending { Direction::Down } else { Direction::Up };
    Ok(PageStart::First(order, direction))
}

fn filter(request: ListSvidsRequest, now: OffsetDateTime) -> Result<SvidFilter, Status> {
    let selection = match SvidSelection::try_from(request.selection) {
        Ok(SvidSelection::Unspecified) => Selection::Unexpired,
        Ok(SvidSelection::Expired) => Selection::Expired,
        Ok(SvidSelection::Revoked) => Selection::Revoked,
        Ok(SvidSelection::All) => Selection::All,
        Err(_) => {
            let text = format!("selection: there is none with number {}", request.selection);
            return Err(Status::invalid_argument(text));
        }
    };
    let ids = match request.spiffe_id.as_str() {
        "" => None,
        text => {
            let pattern = without_control("spiffe_id", text)?.parse::<Pattern>();
            Some(pattern.map_err(|error| Status::invalid_argument(format!("spiffe_id: {error}")))?)
        }
    };
    let expiring_until = match request.expiring_within {
        None => None,
        Some(within) => {
            let within = span(within).filter(|within| *within <= LONGEST);
            let within =
                within.ok_or_else(|| Status::invalid_argument("expiring_within: no time of up to 100 years"))?;
            now.checked_add(within.try_into().unwrap_or(time::Duration::MAX))
        }
    };
    let authority = match request.authority.as_str() {
        "" => None,
        text => {
            let key_id = hex::decode(text.trim()).ok().filter(|key_id| key_id.len() <= MAX_KEY_ID);
            let wrong =
                || Status::invalid_argument("authority: no key identifier, as `signet get authorities` shows it");
            Some(key_id.ok_or_else(wrong)?)
        }
    };
    let named = |field, text: String| {
        bounded(field, &text)?;
        Ok::<_, Status>((!text.is_empty()).then_some(text))
    };
    Ok(SvidFilter {
        selection,
        ids,
        expiring_until,
        authority,
        agent: (request.agent != 0).then(|| number_of_wire(request.agent)),
        rule: named("rule", request.rule)?,
        profile: named("profile", request.profile)?,
    })
}

fn bounded<'a>(field: &str, text: &'a str) -> Result<&'a str, Status> {
    match text.len() <= MAX_TEXT {
        true => without_control(field, text),
        false => Err(Status::invalid_argument(format!("{field}: longer than {MAX_TEXT} bytes"))),
    }
}

/// PostgreSQL takes no text with a NUL in it.
fn without_control<'a>(field: &str, text: &'a str) -> Result<&'a str, Status> {
    match text.chars().any(char::is_control) {
        true => Err(Status::invalid_argument(format!("{field}: it has a control character"))),
        false => Ok(text),
    }
}

pub(super) async fn get(
    store: &Store,
    permissions: &Permissions,
    serial: &[u8],
    now: OffsetDateTime,
) -> Result<Details, Status> {
    let wrong = || Status::invalid_argument("serial: no serial number of 1 to 20 bytes");
    let serial = SerialNumber::from_be_bytes(serial).ok_or_else(wrong)?;
    let found = store.svid(serial.as_bytes()).await.map_err(|error| store_status(&error))?;
    let found = found.filter(|details| permissions.sees(details.svid.id.path()));
    let none = || Status::not_found("serial: no certificate on record has it");
    let SvidDetails { svid, attested, is_banned, revocation, successor } = found.ok_or_else(none)?;
    let shown_serial = match svid.attestation.as_str() {
        "x509_svid" | "x509_svid_beside" => svid.evidence.as_deref().map(hex::encode).unwrap_or_default(),
        _ => String::new(),
    };
    let (renewed_by, renewed_at) =
        successor.map(|later| (hex::encode(later.serial), timestamp(later.issued_at))).unzip();
    Ok(Details {
        key_sha256: hex::encode(&svid.key_sha256),
        certificate_sha256: hex::encode(&svid.certificate_sha256),
        shown_serial,
        attested: attested
            .filter(|record| permissions.sees(record.id.path()))
            .map(|record| explanation::attestation(record, is_banned)),
        renewed_by: renewed_by.unwrap_or_default(),
        renewed_at,
        revocation: revocation.map(|record| revocations::told(permissions, record)),
        svid: Some(told(svid, now)),
    })
}

fn told(record: SvidRecord, now: OffsetDateTime) -> Svid {
    let (log_origin, log_index) = record.log.as_ref().map(|log| (log.origin.clone(), log.index)).unwrap_or_default();
    Svid {
        state: record.state(now).as_str().to_owned(),
        serial: hex::encode(record.serial),
        spiffe_id: record.id.to_string(),
        issued_at: Some(timestamp(record.issued_at)),
        not_before: Some(timestamp(record.not_before)),
        not_after: Some(timestamp(record.not_after)),
        profile: record.profile,
        rule: record.rule,
        authority: hex::encode(record.authority),
        attestation: record.attestation,
        agent: record.agent.map_or(0, |number| number.0.cast_unsigned()),
        log_origin,
        log_index,
    }
}
