//! The files of secrets that a configuration names.

use std::path::{Path, PathBuf};

use super::{Audit, Config, KeyPlace};
use crate::attestation::Published;
use crate::target::Target;

impl Config {
    /// All of them: no backup has them, wherever they are.
    pub(crate) fn secret_files(&self) -> Vec<PathBuf> {
        // Each is named here, so that one that comes is not forgotten.
        let Audit { passphrase_file: log, export, reports, .. } = &self.audit;
        let authority = match &self.authority.key {
            KeyPlace::Sealed { passphrase } => passphrase,
            KeyPlace::Token(place) => &place.pin_file,
        };
        let tokens = self.jwt.as_ref().and_then(|jwt| jwt.passphrase_file.as_ref());
        let web = self.web.tls.as_ref().map(|tls| &tls.files.key);
        let attestation = self.attestation.clusters.iter().chain(&self.attestation.providers);
        let bearers = attestation.filter_map(|issuer| match &issuer.published {
            Published::File(_) => None,
            Published::Url(remote) => remote.bearer_file.as_ref(),
        });
        let exports = [
            self.crl.export.as_ref(),
            export.as_ref().map(|export| &export.to),
            reports.as_ref().map(|reports| &reports.to),
        ];
        let buckets = exports.into_iter().flatten().filter_map(|target| match target {
            Target::Folder(_) => None,
            Target::Bucket(bucket) => Some([&bucket.access_key_id_file, &bucket.secret_access_key_file]),
        });
        let files = [Some(authority), tokens, log.as_ref(), web].into_iter().flatten();
        let files = files.chain(bearers).chain(buckets.flatten()).map(PathBuf::as_path);
        files.chain(self.database.password_file()).map(Path::to_owned).collect()
    }
}
