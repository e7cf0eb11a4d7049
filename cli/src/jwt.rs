//! `signet fetch jwt`: a token for whoever takes no certificates.

use std::time::Duration;

use serde::Serialize;
use signet_proto::identity::v1::identity_service_client::IdentityServiceClient;
use signet_proto::identity::v1::{IssueJwtRequest, JwtSvid};

use crate::args::FetchJwtOptions;
use crate::failure::Failure;
use crate::network;
use crate::output::{self, Format, Report};

/// For the connection, and for the answer.
const PATIENCE: Duration = Duration::from_secs(10);

pub(crate) fn fetch(options: &FetchJwtOptions, format: Format) -> Result<(), Failure> {
    let svid = request(options)?;
    match format {
        // For another program, or a header.
        Format::Table => output::print_text(&format!("{}\n", svid.token)),
        Format::Json | Format::Yaml => output::print(format, &Token::of(svid)),
    }
}

fn request(options: &FetchJwtOptions) -> Result<JwtSvid, Failure> {
    let ttl = options.ttl.and_then(|ttl| prost_types::Duration::try_from(ttl).ok());
    let request = IssueJwtRequest { audience: options.audience.clone(), ttl };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::from_error(&error))?;
    let answer = runtime.block_on(async {
        let channel = network::connect(&options.issuer, &options.identity, PATIENCE).await?;
        let asked = IdentityServiceClient::new(channel).issue_jwt(request).await;
        asked.map_err(|status| refused(&status))
    })?;
    let nothing = || Failure::new("the issuer answered nothing").remedy("is it of a newer version than this command?");
    answer.into_inner().svid.ok_or_else(nothing)
}

fn refused(status: &tonic::Status) -> Failure {
    let failure = Failure::new(format!("the issuer refused: {}", output::harmless(status.message())));
    match status.code() {
        tonic::Code::Unimplemented => failure.remedy("put the section `jwt` into the issuer's configuration"),
        tonic::Code::Unauthenticated => failure.remedy("renew your identity, and try again"),
        _ => failure,
    }
}

#[derive(Serialize)]
struct Token {
    spiffe_id: String,
    token: String,
    issued_at: Option<String>,
    expires_at: Option<String>,
}

impl Token {
    fn of(svid: JwtSvid) -> Self {
        let JwtSvid { spiffe_id, token, issued_at, expires_at, hint: _ } = svid;
        Self { spiffe_id, token, issued_at: output::shown(issued_at), expires_at: output::shown(expires_at) }
    }
}

impl Report for Token {
    fn rows(&self) -> Vec<(&'static str, String)> {
        vec![("SPIFFE ID", self.spiffe_id.clone()), ("token", self.token.clone())]
    }
}
