#![allow(clippy::unwrap_used, clippy::panic)]
use std::cell::RefCell;
use std::collections::HashMap;
use std::pin::pin;
use std::rc::Rc;

use signet_identity::Clock;
use signet_process::logging;
use signet_test_pki::Authority as Ca;
use time::OffsetDateTime;

use super::*;

/// An issuer and its parent, of which each call is counted.
struct Pair {
    world: Rc<RefCell<World>>,
    /// The authorities of the parent.
    above: [Ca; 2],
    tell: watch::Sender<Arc<[Vec<CertificateDer<'static>>]>>,
    health: Health,
}

struct World {
    clock: SharedClock,
    authorities: Vec<Authority>,
    /// What is certified of each key.
    keys: HashMap<String, Ca>,
    /// What the parent does where it is asked.
    answer: Answer,
    /// How long what it signs lives.
    life: time::Duration,
    calls: Calls,
}

/// For the certificate of the key that is asked about.
type Answer = Rc<dyn Fn(&Ca) -> Result<Vec<Vec<u8>>, parent::Refused>>;

#[derive(Clone, Debug, Default)]
struct Calls {
    listed: usize,
    asked: usize,
    given_up: usize,
    signed: usize,
    brought: usize,
    went_over: usize,
}

/// The runtime's, which is paused.
#[derive(Debug)]
struct Paused(OffsetDateTime, Instant);

impl Clock for Paused {
    fn now(&self) -> OffsetDateTime {
        self.0 + self.1.elapsed()
    }
}

impl World {
    fn make_request(&mut self, above: &Ca) {
        let ca = above.intermediate();
        let key = chain::key_of(ca.certificate()).unwrap();
        self.keys.insert(key.clone(), ca);
        let (stage, since, request) = (Stage::Requested, self.clock.now(), key.clone());
        self.authorities.push(Authority { key, stage, since, not_after: None, above: None, request });
    }

    fn count(&self, stage: Stage) -> usize {
        self.authorities.iter().filter(|authority| authority.stage == stage).count()
    }
}

impl Pair {
    /// The issuer's first request waits.
    fn new() -> Self {
        let root = Ca::root("example.org");
        let above = [root.intermediate(), root.intermediate()];
        let start = OffsetDateTime::from_unix_timestamp(1_800_000_000).unwrap();
        let clock: SharedClock = Arc::new(Paused(start, Instant::now()));
        let health = Health::start(None, clock.clone(), logging::init(logging::Format::Json)).unwrap();
        let nothing: Answer = Rc::new(|_| panic!("nothing is asked of the parent"));
        let mut world = World {
            clock,
            authorities: Vec::new(),
            keys: HashMap::new(),
            answer: nothing,
            life: time::Duration::days(7),
            calls: Calls::default(),
        };
        world.make_request(&above[0]);
        let pair = Self { world: Rc::new(RefCell::new(world)), above, tell: watch::Sender::new(Arc::new([])), health };
        pair.signs_below(0);
        pair
    }

    /// The issuer's authority signs, and another request waits.
    async fn with_an_authority() -> Self {
        let pair = Self::new();
        pair.follow_for(secs(5)).await;
        assert_eq!(pair.world.borrow().count(Stage::Active), 1);
        let mut world = pair.world.borrow_mut();
        world.make_request(&pair.above[0]);
        world.calls = Calls::default();
        drop(world);
        pair
    }

    fn signs_below(&self, number: usize) {
        let above = self.above[number].certificate().to_vec();
        self.answers(move |own| Ok(vec![own.certificate().to_vec(), above.clone()]));
    }

    fn answers(&self, answer: impl Fn(&Ca) -> Result<Vec<Vec<u8>>, parent::Refused> + 'static) {
        self.world.borrow_mut().answer = Rc::new(answer);
    }

    async fn follow_for(&self, time: Duration) {
        self.follow_while(time, std::future::pending()).await;
    }

    async fn follow_while(&self, time: Duration, meanwhile: impl Future<Output = ()>) {
        let clock = self.world.borrow().clock.clone();
        let following = Following::new(self, self, clock, self.tell.subscribe());
        let running = pin!(following.run(false, &self.health, CancellationToken::new()));
        tokio::select! {
            ended = running => panic!("it ended: {}", ended.is_ok()),
            () = meanwhile => panic!("nobody tells any more"),
            () = tokio::time::sleep(time) => {}
        }
    }

    /// Ten times a second, and each time something else.
    async fn tell(&self, words: impl Fn(u32) -> Vec<Vec<CertificateDer<'static>>>) {
        for number in 0.. {
            self.tell.send_replace(words(number).into());
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// A chain of the parent's authority.
    fn of(&self, number: usize) -> Vec<CertificateDer<'static>> {
        vec![self.above[number].certificate().clone()]
    }

    fn calls(&self) -> Calls {
        self.world.borrow().calls.clone()
    }
}

impl Issuer for &Pair {
    async fn authorities(&self) -> Result<Vec<Authority>, Failure> {
        let mut world = self.world.borrow_mut();
        world.calls.listed += 1;
        Ok(world.authorities.clone())
    }

    async fn ask(&self, discard: &[String]) -> Result<(), Failure> {
        let mut world = self.world.borrow_mut();
        world.calls.asked += 1;
        world.calls.given_up += discard.len();
        world.authorities.retain(|authority| !discard.contains(&authority.key));
        if world.count(Stage::Requested) == 0 {
            world.make_request(&self.above[0]);
        }
        Ok(())
    }

    async fn import(&self, certificates_pem: String) -> Result<(), Failure> {
        let mut world = self.world.borrow_mut();
        world.calls.brought += 1;
        let chain: Vec<_> =
            pem::parse_many(certificates_pem).unwrap().into_iter().map(pem::Pem::into_contents).collect();
        let (now, key) = (world.clock.now(), chain::key_of(&chain[0]).unwrap());
        let stage = if world.count(Stage::Active) == 0 { Stage::Active } else { Stage::Prepared };
        let not_after = Some(now + world.life);
        let authority = world.authorities.iter_mut().find(|authority| authority.key == key).unwrap();
        (authority.stage, authority.since, authority.not_after) = (stage, now, not_after);
        authority.above = chain.into_iter().nth(1);
        Ok(())
    }

    async fn rotate(&self, successor: &str) -> Result<bool, Failure> {
        let mut world = self.world.borrow_mut();
        world.calls.went_over += 1;
        let now = world.clock.now();
        for authority in &mut world.authorities {
            match authority.stage {
                Stage::Active => (authority.stage, authority.since) = (Stage::Over, now),
                _ if authority.key == successor => (authority.stage, authority.since) = (Stage::Active, now),
                Stage::Requested | Stage::Prepared | Stage::Over => {}
            }
        }
        Ok(true)
    }
}

impl Signer for &Pair {
    async fn sign(&mut self, request_pem: &str) -> Result<Vec<Vec<u8>>, parent::Refused> {
        let mut world = self.world.borrow_mut();
        world.calls.signed += 1;
        let answer = world.answer.clone();
        answer(&world.keys[request_pem])
    }
}

fn secs(number: u64) -> Duration {
    Duration::from_secs(number)
}

#[tokio::test(start_paused = true)]
async fn what_a_parent_adds_to_the_chain_that_it_was_asked_for_is_not_brought_and_counts_as_a_refusal() {
    let pair = Pair::with_an_authority().await;
    let (active, above) = {
        let world = pair.world.borrow();
        (world.keys[&world.authorities[0].key].certificate().to_vec(), pair.above[1].certificate().to_vec())
    };
    pair.answers(move |own| Ok([own.certificate(), above.as_slice(), &active, &above].map(<[u8]>::to_vec).to_vec()));
    pair.follow_for(secs(600)).await;
    let calls = pair.calls();
    assert_eq!(calls.brought, 0);
    // After a minute, two and four, and with another key each third time.
    assert_eq!((calls.signed, calls.given_up), (4, 1));
    assert_eq!(pair.health.count_of(Outcome::NotTaken), 4);
    assert!(pair.health.what_stands_in_the_way().contains("for several keys"));
    pair.signs_below(0);
    pair.follow_for(secs(5)).await;
    assert_eq!(pair.world.borrow().count(Stage::Prepared), 1);
    assert_eq!(pair.health.what_stands_in_the_way(), "");
}

fn other(number: u32) -> Vec<CertificateDer<'static>> {
    vec![number.to_be_bytes().to_vec().into()]
}

fn refused(retry_after: Option<Duration>) -> parent::Refused {
    let failure = Failure::new("the parent refused: no");
    parent::Refused { failure, retry_after, spoils_the_request: false, outcome: Outcome::Refused }
}

#[tokio::test(start_paused = true)]
async fn a_parent_that_spoils_each_request_and_tells_something_each_time_has_few_keys_made() {
    let pair = Pair::with_an_authority().await;
    pair.answers(|_| Err(parent::Refused { spoils_the_request: true, ..refused(None) }));
    pair.follow_while(secs(600), pair.tell(|number| vec![pair.of(0), other(number)])).await;
    let calls = pair.calls();
    assert_eq!((calls.signed, calls.given_up, calls.brought), (4, 4, 0));
    assert!(calls.listed <= 20, "{calls:?}");
    assert_eq!(pair.health.what_stands_in_the_way(), "the parent refused: no");
}

#[tokio::test(start_paused = true)]
async fn a_time_that_the_parent_names_is_waited_whatever_it_tells_meanwhile() {
    let pair = Pair::with_an_authority().await;
    pair.answers(|_| Err(refused(Some(secs(300)))));
    let mut told = pin!(pair.tell(|number| vec![pair.of(number as usize / 10 % 2), other(number)]));
    pair.follow_while(secs(299), &mut told).await;
    assert_eq!(pair.calls().signed, 1);
    assert!(pair.calls().listed <= 20, "{:?}", pair.calls());
}

#[tokio::test(start_paused = true)]
async fn a_change_of_side_cuts_a_pause_short_and_not_below_the_shortest() {
    let pair = Pair::with_an_authority().await;
    pair.follow_for(secs(90)).await;
    assert_eq!(pair.world.borrow().count(Stage::Prepared), 1);
    pair.signs_below(1);
    // It looks, and there is nothing to do for a minute.
    let told = async {
        tokio::time::sleep(secs(5)).await;
        assert_eq!(pair.calls().went_over, 0);
        pair.tell.send_replace(Arc::new([pair.of(1)]));
        std::future::pending().await
    };
    pair.follow_while(secs(10), told).await;
    assert_eq!(pair.calls().went_over, 1);

    // One that refuses, and goes to and fro.
    pair.world.borrow_mut().calls = Calls::default();
    pair.answers(|_| Err(refused(None)));
    pair.follow_while(secs(60), pair.tell(|number| vec![pair.of(number as usize % 2)])).await;
    let calls = pair.calls();
    assert!(calls.listed <= 60, "{calls:?}");
}

#[tokio::test(start_paused = true)]
async fn a_parent_that_signs_what_is_of_no_use_is_asked_for_a_handful_and_this_is_told() {
    let pair = Pair::with_an_authority().await;
    pair.signs_below(1);
    pair.tell.send_replace(Arc::new([other(0)]));
    pair.follow_for(secs(30)).await;
    assert_eq!(pair.calls().signed, 1);
    let told = pair.health.what_stands_in_the_way();
    assert!(told.contains("below an authority that it does not tell of"), "{told}");
    // Whoever begins anew does not know since when the parent is so: what was signed before is beside the four.
    pair.follow_for(secs(3600)).await;
    assert_eq!(pair.world.borrow().count(Stage::Prepared), 1 + 4);
    let told = pair.health.what_stands_in_the_way();
    assert!(told.contains("of no use") && told.contains("signet revoke authority"), "{told}");
    // They are of use once it tells.
    pair.tell.send_replace(Arc::new([pair.of(1)]));
    pair.follow_for(secs(5)).await;
    assert_eq!((pair.calls().went_over, pair.health.what_stands_in_the_way().as_str()), (1, ""));
}

#[tokio::test(start_paused = true)]
async fn a_parent_whose_certificates_end_too_soon_is_not_called_well() {
    let pair = Pair::with_an_authority().await;
    pair.world.borrow_mut().life = time::Duration::hours(1);
    pair.follow_for(secs(30)).await;
    assert_eq!(pair.health.what_stands_in_the_way(), "", "nothing waits");
    pair.world.borrow_mut().make_request(&pair.above[0]);
    pair.follow_for(secs(30)).await;
    assert_eq!(pair.calls().signed, 1);
    let told = pair.health.what_stands_in_the_way();
    assert!(told.contains("ends before the authority that it is to follow"), "{told}");
}
