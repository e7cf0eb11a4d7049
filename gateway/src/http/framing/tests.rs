use proptest::prelude::*;

use super::*;

fn framing() -> Framing {
    Framing { at: At::Head, head: Vec::new(), max_head: 65_536, heads: Heads::default() }
}

/// Whether `bytes` pass and end where a head may begin, or why they are refused; the same in whatever pieces they come.
fn passes(bytes: &[u8]) -> Result<bool, Malformed> {
    let mut whole = framing();
    let at_head = |framing: &Framing| framing.at == At::Head && framing.head.is_empty();
    let result = whole.advance(bytes).map(|()| at_head(&whole)).map_err(|(_, malformed)| malformed);
    let mut bytewise = framing();
    let piecemeal = bytes.iter().try_for_each(|byte| bytewise.advance(&[*byte]).map_err(|(_, malformed)| malformed));
    assert_eq!(piecemeal.map(|()| at_head(&bytewise)), result, "{}", bytes.escape_ascii());
    result
}

#[test]
fn honest_requests_pass_with_their_bodies() {
    for bytes in [
        "GET / HTTP/1.1\r\nhost: a\r\n\r\n",
        "\r\n\r\nGET / HTTP/1.1\r\nhost: a\r\n\r\nGET / HTTP/1.1\r\nhost: a\r\n\r\n",
        "POST / HTTP/1.1\r\nContent-Length: 5\r\n\r\nhelloGET / HTTP/1.1\r\nhost: a\r\n\r\n",
        "POST / HTTP/1.1\r\ncontent-length:0\r\n\r\nGET / HTTP/1.1\r\n\r\n",
        "POST / HTTP/1.1\r\nTransfer-Encoding: Chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\nGET / HTTP/1.1\r\n\r\n",
        "POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\nA;x=\"y z\"\r\n\r\n\r\n\r\n\r\n\r\n\r\n0\r\na: b\r\nc: d\r\n\r\n",
        "POST / HTTP/1.1\r\ncontent-length: 37\r\n\r\nGET / HTTP/1.1\r\ncontent-length: 1\r\n\r\n",
        "GET / HTTP/1.1\r\nx-content-length: 5\r\ncontent-lengthy: a\r\ntransfer-encodings: b\r\n\r\n",
    ] {
        assert_eq!(passes(bytes.as_bytes()), Ok(true), "{bytes:?}");
    }
}

#[test]
fn heads_that_two_parsers_may_cut_differently_are_refused() {
    use Malformed::*;
    for (lines, malformed) in [
        ("content-length: 5\r\ntransfer-encoding: chunked", LengthAndEncoding),
        ("Transfer-Encoding: chunked\r\nContent-Length: 5", LengthAndEncoding),
        ("content-length: 0\r\ntransfer-encoding: chunked", LengthAndEncoding),
        ("content-length: 5\r\ncontent-length: 5", SeveralLengths),
        ("content-length: 5\r\ncontent-length: 6", SeveralLengths),
        ("content-length: 5, 5", Length),
        ("content-length: +5", Length),
        ("content-length: -1", Length),
        ("content-length: 0x5", Length),
        ("content-length:", Length),
        ("content-length: 99999999999999999999", Length),
        ("transfer-encoding: chunked\r\ntransfer-encoding: chunked", SeveralEncodings),
        ("transfer-encoding: chunked, chunked", Encoding),
        ("transfer-encoding: gzip, chunked", Encoding),
        ("transfer-encoding: identity", Encoding),
        ("transfer-encoding: xchunked", Encoding),
        ("transfer-encoding: \x0bchunked", Encoding),
        ("a: b\r\n c", FoldedLine),
        ("a: b\r\n\tc", FoldedLine),
        ("a: b\nc: d", LineEnd),
        ("transfer-encoding: chunked\n", LineEnd),
    ] {
        let request = format!("POST / HTTP/1.1\r\nhost: a\r\n{lines}\r\n\r\n");
        assert_eq!(passes(request.as_bytes()), Err(malformed), "{lines:?}");
    }
    assert_eq!(passes(b"GET / HTTP/1.1\nhost: a\n\n"), Err(LineEnd));
    assert_eq!(passes(b"GET / HTTP/1.1\r\nhost: a\r\n\n"), Err(LineEnd));
}

#[test]
fn bad_chunks_are_refused() {
    for body in [
        "x\r\n",
        "\r\n",
        "5\nhello\r\n0\r\n\r\n",
        "5\r\nhello0\r\n\r\n",
        "5\r\nhello\n0\r\n\r\n",
        "-1\r\n",
        "0x5\r\nhello\r\n",
        "5 \r\nhello\r\n",
        "ffffffffffffffffff\r\n",
        "5;a\nb\r\nhello",
        "5\rX",
        "0\r\n\n",
        "0\r\na: b\n\r\n",
        "0\r\n a: b\r\n\r\n",
    ] {
        let request = format!("POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n{body}");
        assert!(passes(request.as_bytes()).is_err(), "{body:?}");
    }
}

#[test]
fn what_comes_before_a_refused_request_is_passed_on() {
    let good = "GET /a HTTP/1.1\r\nhost: a\r\n\r\n";
    let bytes = format!("{good}GET /b HTTP/1.1\r\ncontent-length: 1\r\ncontent-length: 1\r\n\r\n");
    assert_eq!(framing().advance(bytes.as_bytes()), Err((good.len(), Malformed::SeveralLengths)));
}

#[test]
fn an_endless_head_is_not_kept() {
    let mut framing = framing();
    for _ in 0..100 {
        assert_eq!(framing.advance(&[b'a'; 10_000]), Ok(()));
    }
    assert_eq!(framing.head.len(), framing.max_head + 1);
}

proptest! {
    #[test]
    fn any_bytes_get_one_verdict_in_whatever_pieces(
        bytes in "(GET / HTTP/1.1\r\n|content-length: [0-9]{1,2}\r\n|transfer-encoding: chunked\r\n|\r\n|[0-9a-f]{1,2}\r\n|[a\n\r:; ]){0,20}",
        cut in 0usize..200,
    ) {
        let bytes = bytes.as_bytes();
        let cut = cut.min(bytes.len());
        let mut whole = framing();
        let mut pieces = framing();
        let together = whole.advance(bytes).map_err(|(_, malformed)| malformed);
        let apart = pieces.advance(&bytes[..cut]).and_then(|()| pieces.advance(&bytes[cut..]));
        prop_assert_eq!(apart.map_err(|(_, malformed)| malformed), together);
        prop_assert_eq!(pieces.at, whole.at);
    }
}
