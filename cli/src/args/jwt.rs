//! The options of `signet fetch`.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand};

#[derive(Debug, Subcommand)]
pub(crate) enum FetchCommand {
    /// A JWT-SVID of your own identity
    Jwt(FetchJwtOptions),
}

#[derive(Args, Debug)]
#[command(after_help = "Examples:
  signet fetch jwt --audience https://db.example.org --issuer issuer.example.org:8081 --identity identity/
  curl -H \"Authorization: Bearer $(signet fetch jwt --audience api)\" https://api.example.org/

Whoever holds a token can use it until it expires: hand it to nobody but whom it is for.")]
pub(crate) struct FetchJwtOptions {
    /// Who is to take the token; several where it is given several times
    #[arg(long, value_name = "AUDIENCE", required = true)]
    pub(crate) audience: Vec<String>,
    /// Life of the token; as long as the issuer allows where it is not given
    #[arg(long, value_parser = super::duration, value_name = "DURATION")]
    pub(crate) ttl: Option<Duration>,
    /// The issuer's HOST:PORT
    #[arg(long, env = "SIGNET_ISSUER", value_name = "HOST:PORT")]
    pub(crate) issuer: String,
    /// Folder with your identity: svid.pem, svid.key and bundle.pem
    #[arg(long, env = "SIGNET_IDENTITY", value_name = "DIR")]
    pub(crate) identity: PathBuf,
}
