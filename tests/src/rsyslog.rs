//! rsyslog as the receiver of syslog over TLS: keeps each message as it came, and believes whoever has a certificate of its CA.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use crate::files::{IdentityFiles, replace};
use crate::process::{Process, Recipe};
use crate::program;
use crate::wait::{secs, until};

#[derive(Debug)]
pub struct Rsyslog {
    pub process: Process,
    pub address: SocketAddr,
    kept: PathBuf,
}

impl Rsyslog {
    /// With the certificate of `own`; `authorities` is a PEM file, and `peer` a DNS name that clients have.
    pub fn start(folder: &Path, address: SocketAddr, own: &IdentityFiles, authorities: &Path, peer: &str) -> Self {
        let (kept, configuration) = (folder.join("kept"), folder.join("rsyslog.conf"));
        let text = format!(
            r#"global(workDirectory="{work}" maxMessageSize="128k" defaultNetstreamDriver="ossl" defaultNetstreamDriverCAFile="{ca}"
    defaultNetstreamDriverCertFile="{certificate}" defaultNetstreamDriverKeyFile="{key}")
module(load="imtcp" streamDriver.name="ossl" streamDriver.mode="1" streamDriver.authMode="x509/name" permittedPeer="{peer}")
template(name="raw" type="string" string="%rawmsg%\n")
input(type="imtcp" address="{ip}" port="{port}")
if $programname == "signet" then action(type="omfile" file="{kept}" template="raw")
"#,
            work = folder.display(),
            ca = authorities.display(),
            certificate = own.certificate.display(),
            key = own.key.display(),
            ip = address.ip(),
            port = address.port(),
            kept = kept.display(),
        );
        replace(&configuration, &text);
        let process = Recipe::new("rsyslog", program::third_party("rsyslogd"), folder)
            .args(["-n", "-f"])
            .arg(&configuration)
            .arg("-i")
            .arg(folder.join("rsyslog.pid"))
            .start();
        let rsyslog = Self { process, address, kept };
        rsyslog.wait_until_it_listens();
        rsyslog
    }

    pub fn wait_until_it_listens(&self) {
        until("rsyslog listens", secs(10), || std::net::TcpStream::connect(self.address).is_ok());
    }

    /// Each message, as it came.
    pub fn messages(&self) -> Vec<String> {
        let kept = fs::read(&self.kept).unwrap_or_default();
        String::from_utf8_lossy(&kept).lines().map(str::to_owned).collect()
    }
}
