//! `GET /crl/KEY_ID/SHARD.crl`: the certificate revocation lists (RFC 5280 §4.2.1.13, RFC 2585 §3).

use http::StatusCode;
use http::header::{CACHE_CONTROL, HeaderMap, HeaderValue, LAST_MODIFIED};

use super::Answer;
use super::answer::text;
use crate::crl::{Crls, Place};

/// In seconds: a cache that keeps one for longer keeps what was revoked meanwhile from whoever asks it.
const MOST_KEPT: i64 = 300;

/// The list that a path names.
pub(super) fn place(path: &str) -> Option<Place> {
    let (authority, shard) = path.strip_prefix("/crl/")?.strip_suffix(".crl")?.split_once('/')?;
    let is_key_id =
        (2..=128).contains(&authority.len()) && authority.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    let is_number = (1..=9).contains(&shard.len()) && shard.bytes().all(|byte| byte.is_ascii_digit());
    // Each list has one address only, which caches know it by.
    let is_written_so = shard == "0" || !shard.starts_with('0');
    (is_key_id && is_number && is_written_so)
        .then(|| Some(Place { authority: authority.to_owned(), shard: shard.parse().ok()? }))?
}

pub(super) fn answer(crls: &Crls, place: &Place, asked: &HeaderMap) -> Answer {
    let Some(list) = crls.get(place) else { return text(StatusCode::NOT_FOUND, "there is no such list\n") };
    let mut answer = list.document.answer(asked);
    let left = (list.next_update - crls.now()).whole_seconds().clamp(0, MOST_KEPT);
    let headers = answer.headers_mut();
    if let Ok(value) = HeaderValue::try_from(format!("public, max-age={left}, must-revalidate")) {
        headers.insert(CACHE_CONTROL, value);
    }
    let modified = httpdate::fmt_http_date(list.this_update.into());
    if let Ok(value) = HeaderValue::try_from(modified) {
        headers.insert(LAST_MODIFIED, value);
    }
    answer
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_names_one_list_in_one_way() {
        let place = place("/crl/3f1c0d5a/12.crl");
        assert_eq!(place, Some(Place { authority: "3f1c0d5a".to_owned(), shard: 12 }));
        for wrong in [
            "/crl/3f1c/12",
            "/crl/3F1C/12.crl",
            "/crl//12.crl",
            "/crl/3f1c/.crl",
            "/crl/3f1c/-1.crl",
            "/crl/3f1c/01.crl",
            "/crl/3f1c/9999999999.crl",
            "/crl/3f1c/1/2.crl",
            "/crl/../0.crl",
            "/crl/3f1c/0.crl/",
        ] {
            assert_eq!(super::place(wrong), None, "{wrong}");
        }
    }
}
