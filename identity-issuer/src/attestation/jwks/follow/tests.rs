#![allow(clippy::unwrap_used)]
use serde_json::json;
use signet_identity::SystemClock;

use super::super::super::jwt::tests::Signer;
use super::super::Remote;
use super::*;

fn set(keys: usize) -> String {
    let keys: Vec<_> = (0..keys).map(|_| Signer::new().jwk()).collect();
    json!({"keys": keys}).to_string()
}

struct Followed {
    keys: Jwks,
    read_at: IntGauge,
    following: tokio::task::JoinHandle<()>,
}

fn follow(path: &Path) -> Followed {
    let (keys, read_at) = (Jwks::none_yet(), IntGauge::new("read_at", "test").unwrap());
    let follower = Follower {
        keys: keys.clone(),
        published: Published::File(path.to_owned()),
        source: "test".to_owned(),
        read_at: read_at.clone(),
        clock: std::sync::Arc::new(SystemClock),
    };
    Followed { keys, read_at, following: tokio::spawn(follower.run()) }
}

impl Followed {
    fn count(&self) -> Option<usize> {
        self.keys.current().map(|set| set.len())
    }

    async fn until(&self, wanted: Option<usize>) {
        while self.count() != wanted {
            tokio::time::sleep(LOOK_AT_FILE / 4).await;
        }
    }
}

impl Drop for Followed {
    fn drop(&mut self) {
        self.following.abort();
    }
}

#[tokio::test]
async fn a_bad_file_never_replaces_good_keys_and_an_empty_set_does() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("keys.json");
    std::fs::write(&path, set(1)).unwrap();
    let followed = follow(&path);
    followed.until(Some(1)).await;
    let read_at = followed.read_at.get();
    assert!(read_at > 0);
    std::fs::write(&path, "{").unwrap();
    tokio::time::sleep(LOOK_AT_FILE * 2).await;
    assert_eq!(followed.count(), Some(1));
    std::fs::remove_file(&path).unwrap();
    std::fs::write(&path, set(2)).unwrap();
    followed.until(Some(2)).await;
    assert!(followed.read_at.get() > read_at);
    std::fs::write(&path, set(0)).unwrap();
    followed.until(Some(0)).await;
}

#[tokio::test]
async fn a_file_that_was_given_its_old_time_is_read_again() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("keys.json");
    std::fs::write(&path, set(1)).unwrap();
    let modified = std::fs::metadata(&path).unwrap().modified().unwrap();
    let followed = follow(&path);
    followed.until(Some(1)).await;
    std::fs::write(&path, set(2)).unwrap();
    std::fs::File::options().write(true).open(&path).unwrap().set_modified(modified).unwrap();
    followed.until(Some(2)).await;
}

#[tokio::test(start_paused = true)]
async fn keys_that_cannot_be_had_for_a_day_are_believed_no_more() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("keys.json");
    std::fs::write(&path, set(1)).unwrap();
    let followed = follow(&path);
    followed.until(Some(1)).await;
    std::fs::remove_file(&path).unwrap();
    let removed = Instant::now();
    followed.until(None).await;
    assert!(removed.elapsed() >= MAX_AGE - LOOK_AT_FILE);
    std::fs::write(&path, set(2)).unwrap();
    followed.until(Some(2)).await;
}

#[test]
fn a_pipe_is_no_key_set() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("pipe");
    assert!(std::process::Command::new("mkfifo").arg(&path).status().unwrap().success());
    assert!(matches!(KeySet::read(&path), Err(JwksError::NoFile { .. })));
}

#[tokio::test(start_paused = true)]
async fn whoever_shows_a_key_that_is_not_known_makes_the_set_fetched_again_but_not_sooner() {
    let (keys, read_at) = (Jwks::none_yet(), IntGauge::new("read_at", "test").unwrap());
    keys.replace(KeySet::parse(set(1).as_bytes()).unwrap());
    let follower = Follower {
        keys: keys.clone(),
        // As one that is fetched, which has the longest pause.
        published: Published::Url(Remote {
            url: "https://127.0.0.1:1/keys".parse().unwrap(),
            tls: super::super::fetch::tests::nobody(),
            bearer_file: None,
        }),
        source: "test".to_owned(),
        read_at,
        clock: std::sync::Arc::new(SystemClock),
    };
    let begun = Instant::now();
    keys.look_again();
    follower.pause().await;
    assert_eq!(begun.elapsed().as_secs(), NOT_SOONER.as_secs());
    let begun = Instant::now();
    follower.pause().await;
    assert_eq!(begun.elapsed().as_secs(), REFRESH.as_secs());
}
