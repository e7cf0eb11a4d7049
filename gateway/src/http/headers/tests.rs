#![allow(clippy::unwrap_used)]

use http::Request;

use super::*;

fn request(version: Version, uri: &str, headers: &[(&str, &str)]) -> request::Parts {
    let mut request = Request::builder().version(version).uri(uri);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.body(()).unwrap().into_parts().0
}

/// The header that an HTTP/1.1 upstream gets, sorted; the caller is called `CALLER`.
fn forwarded(headers: &[(&str, &str)]) -> Result<Vec<String>, Refused> {
    let mut head = request(Version::HTTP_11, "/", headers);
    let caller = HeaderValue::from_static("CALLER");
    let outline = of_request(&mut head, Some(&caller))?;
    let mut request = Request::from_parts(head, String::new());
    outline.to_http1(&mut request, &HeaderValue::from_static("upstream:1"));
    let mut lines: Vec<String> =
        request.headers().iter().map(|(name, value)| format!("{name}: {}", value.to_str().unwrap())).collect();
    lines.sort();
    Ok(lines)
}

#[test]
fn what_a_caller_claims_of_itself_is_removed_however_it_is_spelled() {
    for name in [
        "x-forwarded-client-cert",
        "X-Forwarded-Client-Cert",
        "x_forwarded_client_cert",
        "X-Forwarded_Client-Cert",
        "x-forwarded-client_CERT",
        "x.forwarded.client.cert",
        "x-forwarded~client!cert",
        "transfer_encoding",
        "Content_Length",
        "content.length",
    ] {
        let lines = forwarded(&[("host", "a"), (name, "By=spiffe://example.org/admin"), (name, "again")]).unwrap();
        assert_eq!(lines, ["host: a", "x-forwarded-client-cert: CALLER"], "{name}");
    }
}

#[test]
fn an_outbound_caller_cannot_claim_anything_either() {
    let mut head = request(Version::HTTP_11, "/", &[("host", "a"), ("x-forwarded-client-cert", "x")]);
    of_request(&mut head, None).unwrap();
    assert!(!head.headers.contains_key(FORWARDED_CLIENT_CERT));
}

#[test]
fn the_identity_header_cannot_be_removed_by_listing_it_in_connection() {
    let lines = forwarded(&[("host", "a"), ("connection", "x-forwarded-client-cert")]).unwrap();
    assert_eq!(lines, ["host: a", "x-forwarded-client-cert: CALLER"]);
}

#[test]
fn hop_by_hop_fields_end_here() {
    let lines = forwarded(&[
        ("host", "a"),
        ("connection", "keep-alive, X-Hop"),
        ("connection", "x-other"),
        ("x-hop", "1"),
        ("x-other", "2"),
        ("keep-alive", "timeout=5"),
        ("proxy-connection", "keep-alive"),
        ("proxy-authorization", "secret"),
        ("transfer-encoding", "chunked"),
        ("te", "gzip"),
        ("upgrade", "h2c"),
        ("http2-settings", "AAMAAABkAAQAAP__"),
        ("x-end-to-end", "stays"),
    ]);
    assert_eq!(lines.unwrap(), ["host: a", "x-end-to-end: stays", "x-forwarded-client-cert: CALLER"]);
}

#[test]
fn the_framing_cannot_be_removed_by_listing_it_in_connection() {
    for listed in ["content-length", "Transfer-Encoding", "host", "close, host", "not a name"] {
        let refused = forwarded(&[("host", "a"), ("content-length", "5"), ("connection", listed)]);
        assert_eq!(refused, Err(Refused::ConnectionHeader), "{listed}");
    }
}

#[test]
fn trailers_stay_acceptable_over_the_next_hop() {
    let lines = forwarded(&[("host", "a"), ("te", "gzip, Trailers"), ("connection", "te")]).unwrap();
    assert_eq!(lines, ["connection: te", "host: a", "te: trailers", "x-forwarded-client-cert: CALLER"]);
}

#[test]
fn upgrades_and_unknown_expectations_are_refused() {
    for (name, value, refused) in
        [("upgrade", "websocket", Refused::Upgrade), ("expect", "200-maybe", Refused::Expectation)]
    {
        assert_eq!(forwarded(&[("host", "a"), (name, value)]), Err(refused), "{name}");
    }
    let mut connect = request(Version::HTTP_11, "a:443", &[("host", "a:443")]);
    connect.method = Method::CONNECT;
    assert_eq!(of_request(&mut connect, None).unwrap_err(), Refused::Connect);
}

#[test]
fn an_absolute_target_leaves_as_its_path_and_query() {
    for (target, path) in [
        ("http://a", "/"),
        ("http://a/", "/"),
        ("http://a/x?y", "/x?y"),
        ("http://a?y", "/?y"),
        ("http://a?/y", "/?/y"),
        ("http://a?", "/?"),
    ] {
        let mut head = request(Version::HTTP_11, target, &[("host", "a")]);
        let outline = of_request(&mut head, None).unwrap();
        let mut request = Request::from_parts(head, ());
        outline.to_http1(&mut request, &HeaderValue::from_static("upstream"));
        let mut written = Vec::new();
        crate::http1::head::write_request(&mut written, &request, crate::http1::body::Length::Exact(0));
        assert!(written.starts_with(format!("GET {path} HTTP/1.1\r\n").as_bytes()), "{}", written.escape_ascii());
        outline.to_http2(&mut request, &HeaderValue::from_static("upstream")).unwrap();
        assert_eq!(request.uri().path_and_query().unwrap(), path, "{target}");
    }
}

#[test]
fn crumbs_of_a_cookie_are_joined_and_empty_ones_left_out() {
    for (crumbs, joined) in
        [(&["a=1", "b=2"][..], "a=1; b=2"), (&["a=1", ""], "a=1"), (&["", "a=1"], "a=1"), (&["", ""], "")]
    {
        let crumbs: Vec<_> = crumbs.iter().map(|crumb| ("cookie", *crumb)).collect();
        let lines = forwarded(&[&[("host", "a")], &crumbs[..]].concat()).unwrap();
        assert!(lines.contains(&format!("cookie: {joined}")), "{crumbs:?}: {lines:?}");
    }
}

#[test]
fn a_request_has_one_host() {
    use Version as V;
    for (version, uri, hosts, expected) in [
        (V::HTTP_11, "/x", &["a"][..], Ok("a")),
        (V::HTTP_11, "/x", &["[::1]:80"], Ok("[::1]:80")),
        (V::HTTP_11, "/x", &[], Err(Refused::Host)),
        (V::HTTP_10, "/x", &[], Ok("upstream:1")),
        (V::HTTP_11, "/x", &["a", "a"], Err(Refused::Host)),
        (V::HTTP_11, "/x", &["a", "b"], Err(Refused::Host)),
        (V::HTTP_11, "/x", &["a/b"], Err(Refused::Host)),
        (V::HTTP_11, "/x", &["a, b"], Err(Refused::Host)),
        (V::HTTP_11, "/x", &["user@a"], Err(Refused::Host)),
        (V::HTTP_11, "/x", &[""], Err(Refused::Host)),
        (V::HTTP_11, "http://a/x", &["a"], Ok("a")),
        (V::HTTP_11, "http://a/x", &["A"], Ok("a")),
        (V::HTTP_11, "http://a/x", &["b"], Err(Refused::Host)),
        (V::HTTP_11, "http://a/x", &[], Err(Refused::Host)),
        (V::HTTP_2, "https://a/x", &[], Ok("a")),
        (V::HTTP_2, "https://a/x", &["a"], Ok("a")),
        (V::HTTP_2, "https://a/x", &["b"], Err(Refused::Host)),
        (V::HTTP_2, "https://user@a/x", &[], Err(Refused::Host)),
    ] {
        let headers: Vec<_> = hosts.iter().map(|host| ("host", *host)).collect();
        let mut head = request(version, uri, &headers);
        let result = of_request(&mut head, None).map(|outline| {
            let mut request = Request::from_parts(head, String::new());
            outline.to_http1(&mut request, &HeaderValue::from_static("upstream:1"));
            assert_eq!(request.uri(), "/x");
            request.headers()[HOST].to_str().unwrap().to_owned()
        });
        assert_eq!(result, expected.map(str::to_owned), "{version:?} {uri} {hosts:?}");
    }
}

#[test]
fn paths_are_forwarded_as_they_are() {
    for uri in ["/a//b/../c%2f?x=%00&y", "/", "/?", "*"] {
        let mut head = request(Version::HTTP_11, uri, &[("host", "a")]);
        let outline = of_request(&mut head, None).unwrap();
        let mut request = Request::from_parts(head, String::new());
        outline.to_http1(&mut request, &HeaderValue::from_static("u"));
        assert_eq!(request.uri(), uri);
        outline.to_http2(&mut request, &HeaderValue::from_static("u")).unwrap();
        assert_eq!(request.uri().path_and_query().unwrap().as_str(), uri);
        assert_eq!(request.uri().authority().unwrap(), "a");
        outline.to_http1(&mut request, &HeaderValue::from_static("u"));
        assert_eq!(
            (request.uri().to_string().as_str(), &request.headers()[HOST]),
            (uri, &HeaderValue::from_static("a"))
        );
    }
}
