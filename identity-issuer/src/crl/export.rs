//! Lists are put where others serve them.
//!
//! What cannot be put is tried again, after longer and longer; nothing waits for it.

use std::collections::BTreeMap;
use std::time::Duration;

use super::{Crls, Place};
use crate::complaint::Complaint;
use crate::target::{ServedAs, Target, TargetError};

const SERVED: ServedAs =
    ServedAs { content_type: "application/pkix-crl", cache_control: "public, max-age=300, must-revalidate" };
const FIRST_WAIT: Duration = Duration::from_secs(1);
const LONGEST_WAIT: Duration = Duration::from_secs(60);

/// Until cancelled.
pub(crate) async fn run(crls: Crls, to: Target) {
    let mut changes = crls.changes();
    let mut put: BTreeMap<Place, u128> = BTreeMap::new();
    let (mut complaint, mut wait) = (Complaint::default(), FIRST_WAIT);
    loop {
        changes.mark_unchanged();
        match export(&crls, &to, &mut put).await {
            Ok(()) => {
                complaint.clear();
                wait = FIRST_WAIT;
                if changes.changed().await.is_err() {
                    return;
                }
            }
            Err(error) => {
                crls.export_failed();
                if let Some(cause) = complaint.of(&error) {
                    tracing::error!(cause, "CRLs are not exported, and are tried again");
                }
                tokio::time::sleep(wait).await;
                wait = (wait * 2).min(LONGEST_WAIT);
            }
        }
    }
}

/// Puts what is newer than what was put.
async fn export(crls: &Crls, to: &Target, put: &mut BTreeMap<Place, u128>) -> Result<(), TargetError> {
    let all = crls.all();
    put.retain(|place, _| all.iter().any(|(found, _)| found == place));
    let newer: Vec<_> = all.into_iter().filter(|(place, list)| put.get(place) != Some(&list.number)).collect();
    if newer.is_empty() {
        return Ok(());
    }
    let to = to.open()?;
    for (place, list) in newer {
        let name = format!("{}/{}.crl", place.authority, place.shard);
        to.put(&name, list.der.clone(), SERVED).await?;
        put.insert(place, list.number);
    }
    Ok(())
}
