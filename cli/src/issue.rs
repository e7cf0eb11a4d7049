//! `signet issue`: a certificate for a key that the caller has already.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use pem::{EncodeConfig, LineEnding, Pem};
use serde::Serialize;
use signet_proto::identity::v1::identity_service_client::IdentityServiceClient;
use signet_proto::identity::v1::{CertificateRequest, IssueRequest, X509Svid, issue_result};
use time::OffsetDateTime;

use crate::args::IssueOptions;
use crate::failure::Failure;
use crate::output::{self, Format, Report};
use crate::{ca, network};

/// For the connection, and for the answer.
const PATIENCE: Duration = Duration::from_secs(10);

pub(crate) fn run(options: &IssueOptions, format: Format) -> Result<(), Failure> {
    let csr = read_csr(&options.csr)?;
    // Taken before anything is issued: a certificate that can't be kept should not exist.
    let mut out = options.out.as_deref().map(|path| ca::create(path).map(|file| (file, path))).transpose()?;
    let issued = request(options, csr).and_then(|issued| {
        let issued = Certificate::of(issued, options.out.clone());
        if let Some((file, path)) = &mut out {
            let written = file.write_all(issued.pem.as_bytes()).and_then(|()| file.sync_all());
            written.map_err(|error| Failure::new(format!("{}: {error}", path.display())))?;
        }
        Ok(issued)
    });
    match issued {
        // For a file, or another program.
        Ok(issued) if out.is_none() && format == Format::Table => output::print_text(&issued.pem),
        Ok(issued) => output::print(format, &issued),
        Err(failure) => {
            if let Some((_, path)) = out {
                // The file is ours and empty; the failure is what the caller must hear of.
                let _ = std::fs::remove_file(path);
            }
            Err(failure)
        }
    }
}

fn request(options: &IssueOptions, csr: Vec<u8>) -> Result<X509Svid, Failure> {
    let request = CertificateRequest {
        csr,
        profile: options.profile.clone(),
        spiffe_id: options.spiffe_id.as_ref().map(ToString::to_string).unwrap_or_default(),
        ttl: options.ttl.and_then(|ttl| prost_types::Duration::try_from(ttl).ok()),
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::from_error(&error))?;
    let answer = runtime.block_on(async {
        let channel = network::connect(&options.issuer, &options.identity, PATIENCE).await?;
        let asked = IdentityServiceClient::new(channel).issue(IssueRequest { requests: vec![request] }).await;
        asked.map_err(|status| refused(status.code(), status.message()))
    })?;
    match answer.into_inner().results.pop().and_then(|result| result.result) {
        Some(issue_result::Result::Certificate(svid)) => Ok(svid),
        Some(issue_result::Result::Refusal(refusal)) => {
            let message = refusal.message.strip_prefix("requests[0]: ").unwrap_or(&refusal.message);
            Err(refused(tonic::Code::from(refusal.code), message))
        }
        None => Err(Failure::new("the issuer answered nothing").remedy("is it of a newer version than this command?")),
    }
}

fn refused(code: tonic::Code, message: &str) -> Failure {
    let failure = Failure::new(format!("the issuer refused: {}", output::harmless(message)));
    match code {
        tonic::Code::PermissionDenied => failure.remedy(
            "a rule of this profile has to match you: `signet explain -a svid.spiffe_id=YOUR_ID` tells which do",
        ),
        tonic::Code::Unimplemented => failure.remedy("the issuer is older than this command"),
        tonic::Code::Unauthenticated => failure.remedy("renew your identity, and try again"),
        _ => failure,
    }
}

/// The request's DER.
fn read_csr(path: &Path) -> Result<Vec<u8>, Failure> {
    let remedy = "make one, for example: openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj / -keyout FILE";
    let bytes = ca::read_request(path, remedy)?;
    if !bytes.trim_ascii_start().starts_with(b"-----") {
        return Ok(bytes);
    }
    let wrong = || Failure::new(format!("{}: not one PEM block `CERTIFICATE REQUEST`", path.display())).remedy(remedy);
    let blocks = pem::parse_many(&bytes).map_err(|_| wrong())?;
    // What older versions of OpenSSL write.
    let is_request = |block: &&Pem| matches!(block.tag(), "CERTIFICATE REQUEST" | "NEW CERTIFICATE REQUEST");
    match &blocks.iter().filter(is_request).collect::<Vec<_>>()[..] {
        [request] => Ok(request.contents().to_vec()),
        _ => Err(wrong()),
    }
}

/// What was issued.
#[derive(Serialize)]
struct Certificate {
    spiffe_id: String,
    profile: String,
    not_before: Option<String>,
    not_after: Option<String>,
    /// The certificate, then its intermediates.
    pem: String,
    #[serde(skip)]
    expires: Option<OffsetDateTime>,
    #[serde(skip_serializing_if = "Option::is_none")]
    written_to: Option<PathBuf>,
}

impl Certificate {
    fn of(svid: X509Svid, written_to: Option<PathBuf>) -> Self {
        let config = EncodeConfig::new().set_line_ending(LineEnding::LF);
        let block = |der| pem::encode_config(&Pem::new("CERTIFICATE", der), config);
        Self {
            spiffe_id: svid.spiffe_id,
            profile: svid.profile,
            expires: svid.not_after.and_then(output::time_of),
            not_before: output::shown(svid.not_before),
            not_after: output::shown(svid.not_after),
            pem: svid.chain.into_iter().map(block).collect(),
            written_to,
        }
    }
}

impl Report for Certificate {
    fn rows(&self) -> Vec<(&'static str, String)> {
        let left = self.expires.map(|expires| output::distance(OffsetDateTime::now_utc(), expires));
        let not_after = self.not_after.clone().unwrap_or_default();
        let mut rows = vec![
            ("SPIFFE ID", self.spiffe_id.clone()),
            ("profile", self.profile.clone()),
            ("not after", format!("{not_after} ({})", left.unwrap_or_default())),
        ];
        rows.extend(self.written_to.as_ref().map(|path| ("written to", path.display().to_string())));
        rows
    }
}
