//! The keys of tokens: what operators do to them, and what becomes of the tokens.

use jsonwebtoken::decode_header;
use signet_proto::admin::v1::{
    JwtKey, ListJwtKeysRequest, ListJwtKeysResponse, RevocationReason, RevokeJwtKeyRequest, RotateJwtKeyRequest,
    TaintJwtKeyRequest,
};
use signet_proto::identity::v1::watch_response::Event;
use signet_proto::identity::v1::{Applied, Resource, WatchRequest};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status};

use crate::harness::{ID, Identity, Issuer, Place, eventually};
use crate::tokens::{keys_of, token, told, verify};

const TOKENS: &str = "jwt: { ttl: 5m, publish_ahead: 0s, issuer: \"https://oidc.example.org\" }";

pub(crate) async fn list(issuer: &Issuer) -> ListJwtKeysResponse {
    issuer.admin().await.list_jwt_keys(ListJwtKeysRequest {}).await.unwrap().into_inner()
}

/// Of the one key at this stage.
pub(crate) fn at(list: &ListJwtKeysResponse, stage: &str) -> JwtKey {
    let mut found = list.keys.iter().filter(|key| key.stage == stage);
    let (Some(key), None) = (found.next(), found.next()) else { panic!("not one key is {stage}: {list:?}") };
    key.clone()
}

pub(crate) async fn revoke(issuer: &Issuer, kid: &str, force: bool) -> Result<ListJwtKeysResponse, Status> {
    let request = RevokeJwtKeyRequest {
        kid: kid.to_owned(),
        reason: RevocationReason::KeyCompromise.into(),
        comment: "ticket 4711".to_owned(),
        dry_run: false,
        force,
    };
    Ok(issuer.admin().await.revoke_jwt_key(request).await?.into_inner())
}

async fn taint(issuer: &Issuer, kid: &str) -> Result<ListJwtKeysResponse, Status> {
    let request = TaintJwtKeyRequest { kid: kid.to_owned(), comment: "ticket 4711".to_owned() };
    Ok(issuer.admin().await.taint_jwt_key(request).await?.into_inner())
}

async fn rotate(issuer: &Issuer) -> Result<ListJwtKeysResponse, Status> {
    let request = RotateJwtKeyRequest { dry_run: false, comment: String::new() };
    Ok(issuer.admin().await.rotate_jwt_key(request).await?.into_inner())
}

async fn signed(issuer: &Issuer, holder: &Identity) -> (String, String) {
    let token = token(issuer, holder, &["db"], None).await.unwrap().token;
    let kid = decode_header(&token).unwrap().kid.unwrap();
    (token, kid)
}

#[tokio::test]
async fn a_tainted_key_gives_way_and_what_it_has_signed_stays_good() {
    let place = Place::with(TOKENS);
    let issuer = place.serve().await;
    let holder = issuer.join(ID).await;
    let (old, first) = signed(&issuer, &holder).await;
    let listed = taint(&issuer, &first).await.unwrap();
    assert_eq!((at(&listed, "tainted").kid, at(&listed, "tainted").comment), (first.clone(), "ticket 4711".to_owned()));
    let (new, second) = signed(&issuer, &holder).await;
    assert_eq!(at(&listed, "active").kid, second);
    eventually("both are known", async || {
        let keys = told(&issuer, &holder).await;
        verify(&old, &keys, "db").is_ok() && verify(&new, &keys, "db").is_ok()
    })
    .await;
    assert_eq!(taint(&issuer, &first).await.unwrap_err().code(), Code::FailedPrecondition);
    assert_eq!(taint(&issuer, &"00".repeat(20)).await.unwrap_err().code(), Code::NotFound);
    assert_eq!(taint(&issuer, "junk").await.unwrap_err().code(), Code::InvalidArgument);
    assert!(issuer.has_metric("signet_issuer_jwt_keys{state=\"tainted\"} 1").await);
    issuer.stop().await;

    let issuer = place.serve().await;
    assert_eq!(signed(&issuer, &holder).await.1, second);
    let told = at(&list(&issuer).await, "tainted");
    assert_eq!((told.kid, told.own, told.actor.starts_with("uid:")), (first, true, true));
    issuer.stop().await;
}

#[tokio::test]
async fn a_revoked_key_leaves_what_connected_clients_know_and_stays_away_after_a_restart() {
    let place = Place::with(TOKENS);
    let issuer = place.serve().await;
    let holder = issuer.join(ID).await;
    let (old, first) = signed(&issuer, &holder).await;
    let mut watcher = Watcher::new(&issuer, &holder).await;
    watcher.until_known(&first).await;
    let refused = revoke(&issuer, &first, false).await.unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition);
    assert!(refused.message().contains("signs tokens now"), "{refused:?}");
    assert!(revoke(&issuer, &"00".repeat(20), true).await.is_err_and(|status| status.code() == Code::NotFound));

    let listed = revoke(&issuer, &first, true).await.unwrap();
    let second = at(&listed, "active").kid;
    let keys = watcher.until_known(&second).await;
    assert_eq!(verify(&old, &keys, "db").unwrap_err(), "no such key");
    let (new, kid) = signed(&issuer, &holder).await;
    assert_eq!(kid, second);
    verify(&new, &keys, "db").unwrap();
    let told_of = at(&listed, "revoked");
    assert_eq!((told_of.kid.as_str(), told_of.reason()), (first.as_str(), RevocationReason::KeyCompromise));
    issuer.stop().await;

    let issuer = place.serve().await;
    let keys = told(&issuer, &holder).await;
    assert!(keys.find(&first).is_none() && keys.find(&second).is_some());
    assert_eq!(at(&list(&issuer).await, "revoked").kid, first);
    issuer.stop().await;
}

/// Somebody who is told of keys, and says what of that is in force.
struct Watcher {
    stream: tonic::Streaming<signet_proto::identity::v1::WatchResponse>,
    say: mpsc::Sender<WatchRequest>,
    version: Vec<u8>,
}

impl Watcher {
    async fn new(issuer: &Issuer, holder: &Identity) -> Self {
        let (say, said) = mpsc::channel(8);
        say.send(WatchRequest::default()).await.unwrap();
        let stream = issuer.client_of(holder).await.watch(ReceiverStream::new(said)).await.unwrap().into_inner();
        Self { stream, say, version: Vec::new() }
    }

    /// Says nothing of it.
    async fn until_known(&mut self, kid: &str) -> jsonwebtoken::jwk::JwkSet {
        let next = async {
            loop {
                if let Some(Event::Bundles(bundles)) = self.stream.message().await.unwrap().unwrap().event {
                    self.version = bundles.version.clone();
                    let keys = keys_of(&bundles);
                    if keys.find(kid).is_some() {
                        return keys;
                    }
                }
            }
        };
        tokio::time::timeout(std::time::Duration::from_secs(20), next).await.expect("the key in time")
    }

    async fn acknowledge(&self) {
        let resource = Resource::Bundles.into();
        let applied = vec![Applied { resource, version: self.version.clone(), refused: String::new() }];
        self.say.send(WatchRequest { applied, ..WatchRequest::default() }).await.unwrap();
    }
}

#[tokio::test]
async fn the_next_key_signs_once_all_that_are_connected_have_it_in_force() {
    let place = Place::with(TOKENS);
    let issuer = place.serve().await;
    let holder = issuer.join(ID).await;
    let (_, first) = signed(&issuer, &holder).await;
    let mut watcher = Watcher::new(&issuer, &holder).await;
    watcher.until_known(&first).await;
    watcher.acknowledge().await;
    eventually("what there is is known", async || {
        list(&issuer).await.acknowledgements.is_some_and(|told| (told.connected, told.acknowledged) == (1, 1))
    })
    .await;
    let listed = rotate(&issuer).await.unwrap();
    let second = at(&listed, "prepared").kid;
    assert!(listed.signs_at.is_some());
    assert_eq!(rotate(&issuer).await.unwrap_err().code(), Code::FailedPrecondition);
    watcher.until_known(&second).await;
    // The issuer has looked more than once meanwhile.
    for _ in 0..25 {
        let told = list(&issuer).await;
        assert_eq!((at(&told, "active").kid, at(&told, "prepared").kid), (first.clone(), second.clone()));
        assert_eq!(told.acknowledgements.unwrap().missing[0].spiffe_id, ID);
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    watcher.acknowledge().await;
    eventually("the next key signs", async || signed(&issuer, &holder).await.1 == second).await;
    let told = list(&issuer).await;
    assert_eq!((at(&told, "retired").kid, told.signs_at), (first, None));
    issuer.stop().await;
}

#[tokio::test]
async fn an_issuer_that_makes_no_tokens_has_no_keys_to_act_on() {
    let place = Place::new();
    let issuer = place.serve().await;
    assert!(list(&issuer).await.keys.is_empty());
    let kid = "00".repeat(20);
    for refused in [rotate(&issuer).await, taint(&issuer, &kid).await, revoke(&issuer, &kid, true).await] {
        let refused = refused.unwrap_err();
        assert_eq!(refused.code(), Code::FailedPrecondition);
        assert!(refused.message().contains("makes no tokens"), "{refused:?}");
    }
    let request = RevokeJwtKeyRequest { kid, ..RevokeJwtKeyRequest::default() };
    let refused = issuer.admin().await.revoke_jwt_key(request).await.unwrap_err();
    assert!(refused.message().starts_with("reason: missing"), "{refused:?}");
    issuer.stop().await;
}
