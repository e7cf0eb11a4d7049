#![allow(clippy::unwrap_used)]

use proptest::prelude::*;

use super::*;
use crate::tls::shake::Side as _;
use crate::tls::tests::{Ends, sockets};
use crate::tls::{accept, connect};

/// A server's and a client's records after one handshake.
async fn pair() -> (Records, Records) {
    let ends = Ends::new();
    let (server, client) = sockets().await;
    let client = connect(ends.snapshot.client(ends.client).clone(), "localhost".try_into().unwrap(), client);
    let (server, client) = tokio::join!(accept(ends.snapshot.server(ends.server).clone(), server), client);
    let (server, mut client) =
        (server.unwrap().side.into_records().unwrap(), client.unwrap().side.into_records().unwrap());
    // The server's ticket was sent on the sockets, which are gone.
    client.to_open = server.to_seal;
    (server, client)
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

impl Records {
    fn record(&mut self, kind: ContentType, payload: &[u8]) -> BytesMut {
        let mut sealed = VecDeque::new();
        self.seal_one(kind, OutboundChunks::Single(payload), &mut sealed).unwrap();
        sealed.make_contiguous().concat()[..].into()
    }

    fn data(&mut self, payload: &[u8]) -> BytesMut {
        self.record(ContentType::ApplicationData, payload)
    }

    fn open_all(&mut self, mut received: BytesMut) -> Result<Vec<Opened>, RecordError> {
        let mut all = Vec::new();
        while let Some(opened) = self.open(&mut received)? {
            all.push(opened);
        }
        assert!(received.is_empty());
        Ok(all)
    }
}

fn data(bytes: &[u8]) -> Opened {
    Opened::Data(bytes.into())
}

#[tokio::test]
async fn records_come_in_the_order_in_which_they_were_sealed_or_not_at_all() {
    let (mut server, mut client) = pair().await;
    let (one, two) = (client.data(b"one"), client.data(b"two"));
    assert!(matches!(server.open_all(two), Err(RecordError::NotAuthentic)));
    let (mut server, mut client) = pair().await;
    let again = client.data(b"one");
    assert_eq!(server.open_all(again.clone()).unwrap(), [data(b"one")]);
    assert!(matches!(server.open_all(again), Err(RecordError::NotAuthentic)), "a record that is sent twice");
    assert!(matches!(server.open_all(one), Err(RecordError::NotAuthentic)), "one of another connection");
    // Nobody gets his own back.
    let own = server.data(b"mine");
    assert!(matches!(server.open_all(own), Err(RecordError::NotAuthentic)));
}

#[tokio::test]
async fn nothing_comes_unencrypted_after_the_handshake() {
    for kind in [20, 21, 22, 24, 0, 255] {
        let (mut server, _) = pair().await;
        let plain = BytesMut::from(&[kind, 3, 3, 0, 2, 1, 0][..]);
        assert!(matches!(server.open_all(plain), Err(RecordError::Unexpected(_))), "{kind}");
    }
}

#[tokio::test]
async fn a_record_is_no_longer_than_it_may_be() {
    let (mut server, mut client) = pair().await;
    let longest = client.data(&[7; MOST_PLAIN]);
    assert_eq!(server.open_all(longest).unwrap(), [data(&[7; MOST_PLAIN])]);
    let plain_too_long = client.data(&[7; MOST_PLAIN + 1]);
    assert!(matches!(server.open_all(plain_too_long), Err(RecordError::TooLong)));
    let (mut server, _) = pair().await;
    let [high, low] = (MOST_SEALED as u16 + 1).to_be_bytes();
    // It is refused before it has come.
    assert!(matches!(server.open(&mut BytesMut::from(&[23, 3, 3, high, low][..])), Err(RecordError::TooLong)));
}

#[tokio::test]
async fn a_peer_cannot_keep_us_busy_with_records_that_say_nothing() {
    let nothings: [(ContentType, &[u8]); 3] =
        [(ContentType::ApplicationData, b""), (ContentType::Handshake, &KEY_UPDATE), (ContentType::Alert, &[1, 90])];
    for (kind, payload) in nothings {
        let (mut server, mut client) = pair().await;
        let say_nothing = |times: u32, server: &mut Records, client: &mut Records| {
            (0..times).try_for_each(|_| {
                let nothing = client.record(kind, payload);
                if kind == ContentType::Handshake {
                    let (next, secrets) = client.keys.next_ours().unwrap();
                    (client.sealing, client.to_seal) = (sealing(client.suite, secrets).unwrap(), next);
                }
                server.open_all(nothing).map(drop)
            })
        };
        say_nothing(MOST_WITHOUT_DATA, &mut server, &mut client).unwrap();
        assert_eq!(server.open_all(client.data(b"x")).unwrap(), [data(b"x")]);
        say_nothing(MOST_WITHOUT_DATA, &mut server, &mut client).unwrap();
        assert!(matches!(say_nothing(1, &mut server, &mut client), Err(RecordError::Unexpected(_))), "{kind:?}");
    }
}

#[tokio::test]
async fn a_key_is_changed_before_it_has_sealed_too_much() {
    let (mut server, mut client) = pair().await;
    server.most_with_one_key = 10;
    for number in 0..100 {
        let sealed = server.data(&[number]);
        let opened = client.open_all(sealed).unwrap();
        assert_eq!(opened.last(), Some(&data(&[number])));
        assert!(server.to_seal <= 10);
    }
}

#[tokio::test]
async fn a_change_of_key_is_well_formed_and_the_last_in_its_record() {
    for wrong in [&[24, 0, 0, 1, 2][..], &[24, 0, 0, 0], &[24, 0, 0, 2, 0, 0]] {
        let (mut server, mut client) = pair().await;
        let sealed = client.record(ContentType::Handshake, wrong);
        assert!(matches!(server.open_all(sealed), Err(RecordError::Malformed(_))), "{wrong:?}");
    }
    let (mut server, mut client) = pair().await;
    let sealed = client.record(ContentType::Handshake, &[KEY_UPDATE, KEY_UPDATE].concat());
    assert!(matches!(server.open_all(sealed), Err(RecordError::Unexpected(_))));
}

#[tokio::test]
async fn an_answer_to_a_change_of_key_comes_once_and_asks_for_nothing() {
    let (mut server, mut client) = pair().await;
    let asking = client.record(ContentType::Handshake, &[24, 0, 0, 1, KEY_REQUESTED]);
    server.open_all(asking).unwrap();
    let before = server.to_seal;
    let answered = server.data(b"x");
    assert_eq!(client.open_all(answered).unwrap(), [Opened::Control, data(b"x")]);
    assert!(!client.key_is_asked_for);
    assert!(server.to_seal < before + 1);
    let next = server.data(b"y");
    assert_eq!(client.open_all(next).unwrap(), [data(b"y")]);
}

#[tokio::test]
async fn a_message_may_be_cut_but_nothing_comes_between_its_parts() {
    let (mut server, mut client) = pair().await;
    let one = client.record(ContentType::Handshake, &KEY_UPDATE[..2]);
    let two = client.record(ContentType::Handshake, &KEY_UPDATE[2..]);
    server.open_all(one).unwrap();
    server.open_all(two).unwrap();
    assert_eq!(server.to_open, 0, "it has the next key");
    for between in [ContentType::ApplicationData, ContentType::Alert] {
        let (mut server, mut client) = pair().await;
        let one = client.record(ContentType::Handshake, &KEY_UPDATE[..2]);
        let two = client.record(between, &[1, 0]);
        server.open_all(one).unwrap();
        assert!(matches!(server.open_all(two), Err(RecordError::Unexpected(_))));
    }
}

#[tokio::test]
async fn only_what_a_handshake_is_followed_by_is_taken() {
    for kind in [ContentType::ChangeCipherSpec, ContentType::Heartbeat, ContentType::Unknown(99)] {
        let (mut server, mut client) = pair().await;
        let sealed = client.record(kind, &[1]);
        assert!(matches!(server.open_all(sealed), Err(RecordError::Unexpected(_))), "{kind:?}");
    }
    // A ClientHello, a ticket for a server, a request for a certificate.
    for kind in [1, 4, 13] {
        let (mut server, mut client) = pair().await;
        let sealed = client.record(ContentType::Handshake, &[kind, 0, 0, 0]);
        assert!(matches!(server.open_all(sealed), Err(RecordError::Unexpected(_))), "{kind}");
    }
    let (mut server, mut client) = pair().await;
    let too_long = client.record(ContentType::Handshake, &[4, 1, 0, 0]);
    assert!(matches!(server.open_all(too_long), Err(RecordError::Malformed(_))));
}

#[tokio::test]
async fn an_alert_ends_the_connection_whatever_its_level() {
    for level in [WARNING, FATAL] {
        let (mut server, mut client) = pair().await;
        let sealed = client.record(ContentType::Alert, &[level, AlertDescription::AccessDenied.into()]);
        assert!(matches!(server.open_all(sealed), Err(RecordError::Alert(AlertDescription::AccessDenied))));
    }
    let (mut server, mut client) = pair().await;
    let goodbye = client.record(ContentType::Alert, &[WARNING, AlertDescription::CloseNotify.into()]);
    assert_eq!(server.open_all(goodbye).unwrap(), [Opened::Closed]);
    let (mut server, mut client) = pair().await;
    let cut = client.record(ContentType::Alert, &[WARNING]);
    assert!(matches!(server.open_all(cut), Err(RecordError::Malformed(_))));
}

#[test]
fn what_is_told_of_a_connection_says_nothing_of_its_keys() {
    let (server, _) = block_on(pair());
    let told = format!("{server:?}");
    assert!(told.contains("TLS13_AES_128_GCM_SHA256"), "{told}");
    assert!(told.len() < 100, "{told}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    /// However the bytes are cut into reads, the same data comes.
    #[test]
    fn the_pieces_do_not_matter(
        sizes in prop::collection::vec(1_usize..40_000, 1..6),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..12),
    ) {
        let (mut server, mut client) = block_on(pair());
        let mut sealed = VecDeque::new();
        let mut expected = Vec::new();
        for (number, size) in sizes.into_iter().enumerate() {
            let bytes = vec![number as u8; size];
            let (front, back) = bytes.split_at(size / 3);
            prop_assert_eq!(client.seal(&[front, &[], back], 4, &mut sealed).unwrap(), size);
            expected.extend(bytes);
        }
        let bytes = sealed.make_contiguous().concat();
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).chain([bytes.len()]).collect();
        cuts.sort_unstable();
        let (mut received, mut opened, mut from) = (BytesMut::new(), Vec::new(), 0);
        for cut in cuts {
            received.extend_from_slice(&bytes[from..cut]);
            from = cut;
            while let Some(Opened::Data(data)) = server.open(&mut received).unwrap() {
                opened.extend_from_slice(&data);
            }
        }
        prop_assert!(received.is_empty() && opened == expected);
    }

    /// A peer that has proved who it is may still say anything, to a server or to a client.
    #[test]
    fn no_message_of_a_peer_is_more_than_refused(
        kind in prop::sample::select(vec![20_u8, 21, 22, 23, 24]),
        start in prop::sample::select(vec![vec![], vec![24, 0, 0, 1], vec![4, 0, 0, 20], vec![4]]),
        rest in prop::collection::vec(any::<u8>(), 0..64),
    ) {
        let payload = [start, rest].concat();
        let (mut server, mut client) = block_on(pair());
        let (to_server, to_client) = (client.record(kind.into(), &payload), server.record(kind.into(), &payload));
        for opened in [server.open_all(to_server), client.open_all(to_client)] {
            prop_assert!(opened.is_err() || kind > 20);
        }
    }

    /// Whoever changes one bit, or sends what he likes, is noticed.
    #[test]
    fn no_forgery_is_opened(at in any::<prop::sample::Index>(), bit in 0_u8..8, noise in prop::collection::vec(any::<u8>(), 0..200)) {
        let (mut server, mut client) = block_on(pair());
        let mut record = client.data(b"a payload of some length");
        let at = at.index(record.len());
        record[at] ^= 1 << bit;
        record.extend_from_slice(&noise);
        // The version of a record is not looked at for any purpose (RFC 8446 §5.1).
        let opened = server.open(&mut record);
        if at == 1 || at == 2 {
            prop_assert_eq!(opened.unwrap(), Some(data(b"a payload of some length")));
        } else {
            prop_assert!(matches!(opened, Err(_) | Ok(None)));
        }
    }
}
