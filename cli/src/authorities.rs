//! `signet get authorities`, `ca csr`, `ca import`, `taint`.

use serde::Serialize;
use signet_proto::admin::v1::{
    AuthorityDetail, ImportAuthoritiesRequest, ListAuthoritiesRequest, RequestAuthoritiesRequest,
    TaintAuthorityRequest, TaintAuthorityResponse,
};
use time::OffsetDateTime;

use crate::admin;
use crate::args::{CaCsrOptions, CaImportOptions, IssuerOptions, TaintOptions};
use crate::ca;
use crate::failure::Failure;
use crate::jwt_keys;
use crate::output::{self, Format, List, Report};

pub(crate) fn list(options: &IssuerOptions, format: Format) -> Result<(), Failure> {
    let answer = admin::call(options, async |mut client| {
        Ok(client.list_authorities(ListAuthoritiesRequest {}).await?.into_inner())
    })?;
    output::print_list(format, &Authorities::from(answer.authorities))
}

pub(crate) fn request(options: &CaCsrOptions, format: Format) -> Result<(), Failure> {
    // What cannot be written is not asked for.
    let file = options.out.as_deref().map(ca::create).transpose()?;
    let request = RequestAuthoritiesRequest { count: options.count, discard: options.discard.clone() };
    let answer =
        admin::call(&options.issuer, async |mut client| Ok(client.request_authorities(request).await?.into_inner()));
    let (answer, path) = match (answer, &options.out) {
        (Ok(answer), path) => (answer, path),
        (Err(failure), Some(path)) => {
            // It is empty, and ours.
            let _ = std::fs::remove_file(path);
            return Err(failure);
        }
        (Err(failure), None) => return Err(failure),
    };
    let (Some(mut file), Some(path)) = (file, path) else { return output::print_text(&answer.requests_pem) };
    std::io::Write::write_all(&mut file, answer.requests_pem.as_bytes())
        .map_err(|error| Failure::new(format!("{}: {error}", path.display())))?;
    output::print(format, &Requested { requests: answer.count, written_to: path.display().to_string() })
}

pub(crate) fn import(options: &CaImportOptions, format: Format) -> Result<(), Failure> {
    let path = &options.certificates;
    let certificates_pem = std::fs::read_to_string(path).map_err(|error| {
        Failure::new(format!("{}: {error}", path.display())).remedy("name the file that `signet ca sign` wrote")
    })?;
    let request = ImportAuthoritiesRequest { certificates_pem };
    let answer =
        admin::call(&options.issuer, async |mut client| Ok(client.import_authorities(request).await?.into_inner()))?;
    for warning in &answer.warnings {
        output::warn(warning)?;
    }
    output::print_list(format, &Authorities::from(answer.authorities))
}

pub(crate) fn taint(options: &TaintOptions, format: Format) -> Result<(), Failure> {
    // Both kinds of keys are named alike, and no two keys have one name.
    if jwt_keys::has(&options.issuer, &options.key)? {
        return jwt_keys::taint(options, format);
    }
    let request = TaintAuthorityRequest { key: options.key.clone(), comment: options.message.clone() };
    let answer =
        admin::call(&options.issuer, async |mut client| Ok(client.taint_authority(request).await?.into_inner()))?;
    output::print(format, &Tainted::new(options.key.clone(), answer))
}

#[derive(Serialize)]
struct Requested {
    requests: u32,
    written_to: String,
}

impl Report for Requested {
    fn rows(&self) -> Vec<(&'static str, String)> {
        vec![("requests", self.requests.to_string()), ("written to", self.written_to.clone())]
    }
}

#[derive(Serialize)]
struct Authorities {
    authorities: Vec<Authority>,
}

/// One, as operators see it.
#[derive(Serialize)]
pub(crate) struct Authority {
    pub(crate) key: String,
    pub(crate) stage: String,
    since: Option<String>,
    key_id: String,
    not_before: Option<String>,
    pub(crate) not_after: Option<String>,
    pub(crate) live_certificates: u64,
    /// Of a leaf that it signs.
    longest_life_seconds: Option<u64>,
    #[serde(skip)]
    expires: Option<OffsetDateTime>,
    #[serde(skip)]
    came_at: Option<OffsetDateTime>,
}

impl From<Vec<AuthorityDetail>> for Authorities {
    fn from(authorities: Vec<AuthorityDetail>) -> Self {
        Self { authorities: authorities.into_iter().map(Authority::from).collect() }
    }
}

impl From<AuthorityDetail> for Authority {
    fn from(detail: AuthorityDetail) -> Self {
        let AuthorityDetail {
            key,
            stage,
            since,
            key_id,
            not_before,
            not_after,
            live_certificates,
            longest_life,
            // For programs that have it signed and verified.
            request_pem: _,
            certificates_pem: _,
        } = detail;
        Self {
            key,
            stage,
            since: output::shown(since),
            key_id,
            not_before: output::shown(not_before),
            not_after: output::shown(not_after),
            live_certificates,
            longest_life_seconds: longest_life.and_then(|life| u64::try_from(life.seconds).ok()),
            expires: not_after.and_then(output::time_of),
            came_at: since.and_then(output::time_of),
        }
    }
}

impl List for Authorities {
    const COLUMNS: &'static [&'static str] = &["key", "stage", "since", "expires", "signs up to", "live certificates"];

    fn lines(&self) -> Vec<Vec<String>> {
        let now = OffsetDateTime::now_utc();
        let line = |authority: &Authority| {
            let expires = match (authority.expires, authority.stage.as_str()) {
                (Some(at), _) => output::distance(now, at),
                (None, "requested") => String::new(),
                (None, _) => "not under the trust bundle".to_owned(),
            };
            vec![
                authority.key.clone(),
                authority.stage.clone(),
                authority.came_at.map(|at| output::distance(now, at)).unwrap_or_default(),
                expires,
                authority.longest_life_seconds.map(output::span).unwrap_or_default(),
                authority.live_certificates.to_string(),
            ]
        };
        self.authorities.iter().map(line).collect()
    }

    fn nothing(&self) -> &'static str {
        "there is no authority"
    }
}

#[derive(Serialize)]
struct Tainted {
    tainted: String,
    live_certificates: u64,
    clients: u32,
    within_seconds: u64,
}

impl Tainted {
    fn new(tainted: String, answer: TaintAuthorityResponse) -> Self {
        let TaintAuthorityResponse { live_certificates, clients, within } = answer;
        let within = within.and_then(|within| u64::try_from(within.seconds).ok()).unwrap_or_default();
        Self { tainted, live_certificates, clients, within_seconds: within }
    }
}

impl Report for Tainted {
    fn rows(&self) -> Vec<(&'static str, String)> {
        vec![
            ("tainted", self.tainted.clone()),
            ("certificates without a successor", self.live_certificates.to_string()),
            ("connected clients that renew", self.clients.to_string()),
            ("within", output::span(self.within_seconds)),
        ]
    }
}
