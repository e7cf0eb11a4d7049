//! `signet entitlements`: what the policy gives to the holder of an identity.

use std::time::Duration;

use serde::Serialize;
use signet_proto::identity::v1::identity_service_client::IdentityServiceClient;
use signet_proto::identity::v1::{Applied, Entitlements, Resource, WatchRequest, watch_response::Event};

use crate::args::EntitlementsOptions;
use crate::failure::Failure;
use crate::network;
use crate::output::{self, Format, List};

/// For the connection, and for the first answer.
const PATIENCE: Duration = Duration::from_secs(10);

pub(crate) fn run(options: &EntitlementsOptions, format: Format) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::from_error(&error))?;
    runtime.block_on(follow(options, format))
}

/// Prints what there is, and with `--watch` each change of it.
async fn follow(options: &EntitlementsOptions, format: Format) -> Result<(), Failure> {
    let channel = network::connect(&options.issuer, &options.identity, PATIENCE).await?;
    let request = WatchRequest { also: vec![Resource::Entitlements.into()], ..WatchRequest::default() };
    let (say, said) = tokio::sync::mpsc::channel(8);
    // There is room.
    let _ = say.try_send(request);
    let said = tokio_stream::wrappers::ReceiverStream::new(said);
    let refused = |status: tonic::Status| {
        Failure::new(format!("the issuer refused: {}", output::harmless(status.message())))
            .remedy("renew your identity, and try again")
    };
    let mut stream = IdentityServiceClient::new(channel).watch(said).await.map_err(refused)?.into_inner();
    loop {
        let message = stream.message();
        let message = match options.watch {
            true => message.await,
            false => tokio::time::timeout(PATIENCE, message).await.map_err(|_| {
                Failure::new("the issuer does not say what you may have").remedy("is it older than this command?")
            })?,
        };
        let Some(message) = message.map_err(refused)? else {
            return Err(Failure::new("the issuer ended the stream"));
        };
        // Nothing of it has to be put in force here: whose stream it is, is not behind for that.
        if let Some(applied) = message.event.as_ref().and_then(applied)
            && say.send(WatchRequest { applied: vec![applied], ..WatchRequest::default() }).await.is_err()
        {
            return Err(Failure::new("the issuer ended the stream"));
        }
        if let Some(Event::Entitlements(entitlements)) = message.event {
            output::print_list(format, &Given::from(entitlements))?;
            if !options.watch {
                return Ok(());
            }
        }
    }
}

fn applied(event: &Event) -> Option<Applied> {
    let (resource, version) = match event {
        Event::Bundles(told) => (Resource::Bundles, &told.version),
        Event::Entitlement(told) => (Resource::Entitlement, &told.version),
        Event::Entitlements(told) => (Resource::Entitlements, &told.version),
        Event::RenewNow(_) | Event::Revocations(_) | Event::Authorities(_) => return None,
    };
    Some(Applied { resource: resource.into(), version: version.clone(), refused: String::new() })
}

#[derive(Serialize)]
struct Given {
    entitlements: Vec<Line>,
    /// There are more.
    truncated: bool,
}

#[derive(Serialize)]
struct Line {
    spiffe_id: String,
    profile: String,
    hint: String,
}

impl From<Entitlements> for Given {
    fn from(told: Entitlements) -> Self {
        let line = |offer: signet_proto::identity::v1::Offer| Line {
            spiffe_id: offer.spiffe_id,
            profile: offer.profile,
            hint: offer.hint,
        };
        Self { entitlements: told.offers.into_iter().map(line).collect(), truncated: told.truncated }
    }
}

impl List for Given {
    const COLUMNS: &'static [&'static str] = &["spiffe id", "profile", "hint"];

    fn lines(&self) -> Vec<Vec<String>> {
        let line = |line: &Line| vec![line.spiffe_id.clone(), line.profile.clone(), line.hint.clone()];
        let more = self.truncated.then(|| vec!["… and more".to_owned(), String::new(), String::new()]);
        self.entitlements.iter().map(line).chain(more).collect()
    }

    fn nothing(&self) -> &'static str {
        "the policy gives you nothing"
    }
}
