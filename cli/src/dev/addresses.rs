//! The addresses of the mesh are looked at before anything is made, so that the error names the option that changes one.

use std::io;
use std::net::TcpListener;

use crate::args::DevOptions;
use crate::failure::Failure;

/// Whether each can be listened on, all at once. They are free again when this returns.
pub(crate) fn check(options: &DevOptions) -> Result<(), Failure> {
    let wanted = [
        ("--outbound", options.outbound),
        ("--inbound", options.inbound),
        ("--issuer", options.issuer),
        ("--web", options.web),
        ("--gateway-admin", options.gateway_admin),
        ("--issuer-admin", options.issuer_admin),
        ("--outbound-admin", options.outbound_admin),
    ];
    let mut held = Vec::new();
    for (option, address) in wanted {
        held.push(TcpListener::bind(address).map_err(|error| {
            match error.kind() {
                io::ErrorKind::AddrInUse => Failure::new(format!("{address} is in use"))
                    .remedy(format!("end the process that holds it, or choose another address by {option}")),
                _ => Failure::new(format!("cannot listen on {address}: {error}"))
                    .remedy(format!("choose another address by {option}")),
            }
        })?);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]
    use clap::Parser as _;

    use super::*;
    use crate::args::{Arguments, Command};

    fn options(arguments: &str) -> DevOptions {
        let free = "--outbound 127.0.0.1:0 --inbound 127.0.0.1:0 --issuer 127.0.0.1:0 --gateway-admin 127.0.0.1:0 \
                    --issuer-admin 127.0.0.1:0 --outbound-admin 127.0.0.1:0 --web 127.0.0.1:0";
        let words = ["signet", "dev"].into_iter().chain(free.split_whitespace()).chain(arguments.split_whitespace());
        match Arguments::try_parse_from(words).unwrap().command {
            Command::Dev(options) => options,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn an_address_in_use_is_told_with_the_option_that_changes_it() {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = taken.local_addr().unwrap();
        let mut wanted = options("");
        check(&wanted).unwrap();
        wanted.issuer_admin = address;
        let failure = check(&wanted).unwrap_err().to_string();
        assert!(failure.contains(&format!("{address} is in use")) && failure.contains("--issuer-admin"), "{failure}");
    }

    #[test]
    fn two_parts_cannot_share_an_address() {
        let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let mut wanted = options("");
        (wanted.inbound, wanted.outbound) = (free, free);
        assert!(check(&wanted).is_err());
    }
}
