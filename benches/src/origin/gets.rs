//! `GET` over HTTP/1.1, read and answered by hand: a fifth of what hyper takes for it. Whatever asks for more than that, a body,
//! another version or method, an upgrade, is left unread for others.

use std::cell::RefCell;
use std::io;
use std::io::Write as _;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::{Buf as _, Bytes};
use time::OffsetDateTime;
use time::format_description::FormatItem;
use time::macros::format_description;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadBuf};

pub(super) const SMALL: &[u8] = b"a small answer of the origin\n";
pub(super) const FILL: &[u8] = &[b'd'; 256 * 1024];

/// Heads of more than this are hyper's.
const LONGEST_HEAD: usize = 16 * 1024;

/// How a connection goes on when there was a request that is not for us, or none any more.
#[derive(Debug)]
pub(super) enum Next {
    Closed,
    Hyper { unread: Bytes },
}

/// What one request asks for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Asked {
    Small,
    Bytes(u64),
}

#[derive(Debug, Eq, PartialEq)]
enum Head {
    Incomplete,
    Get { asked: Asked, length: usize },
    Other,
}

/// Answers requests, several at once if they come so, until the connection is closed or somebody else's.
pub(super) async fn answer(stream: &mut (impl AsyncRead + AsyncWrite + Unpin)) -> io::Result<Next> {
    let (mut buffer, mut filled) = (vec![0; LONGEST_HEAD], 0);
    let mut answers = Vec::with_capacity(1024);
    loop {
        let received = stream.read(&mut buffer[filled..]).await?;
        if received == 0 {
            return Ok(Next::Closed);
        }
        filled += received;
        let mut taken = 0;
        loop {
            match parse(&buffer[taken..filled]) {
                Head::Get { asked, length } => {
                    taken += length;
                    write(stream, &mut answers, asked).await?;
                }
                Head::Incomplete if filled - taken < LONGEST_HEAD => break,
                Head::Incomplete | Head::Other => {
                    stream.write_all(&answers).await?;
                    return Ok(Next::Hyper { unread: Bytes::copy_from_slice(&buffer[taken..filled]) });
                }
            }
        }
        stream.write_all(&answers).await?;
        stream.flush().await?;
        answers.clear();
        buffer.copy_within(taken..filled, 0);
        filled -= taken;
    }
}

/// Small answers are collected; a large one is sent.
async fn write(stream: &mut (impl AsyncWrite + Unpin), answers: &mut Vec<u8>, asked: Asked) -> io::Result<()> {
    let length = match asked {
        Asked::Small => SMALL.len() as u64,
        Asked::Bytes(length) => length,
    };
    DATE.with_borrow_mut(|date| {
        write!(answers, "HTTP/1.1 200 OK\r\ncontent-length: {length}\r\ndate: {}\r\n\r\n", date.now())
    })?;
    let Asked::Bytes(mut left) = asked else {
        answers.extend_from_slice(SMALL);
        return Ok(());
    };
    stream.write_all(answers).await?;
    answers.clear();
    while left > 0 {
        let part = &FILL[..FILL.len().min(usize::try_from(left).unwrap_or(usize::MAX))];
        stream.write_all(part).await?;
        left -= part.len() as u64;
    }
    Ok(())
}

fn parse(bytes: &[u8]) -> Head {
    // What cannot become a GET over HTTP/1.1 need not be waited for: HTTP/2 sends a preface that has no end of ours.
    if !bytes.starts_with(&b"GET /"[..bytes.len().min(5)]) {
        return Head::Other;
    }
    let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") else { return Head::Incomplete };
    let mut lines = bytes[..end].split(|byte| *byte == b'\n').map(|line| line.strip_suffix(b"\r").unwrap_or(line));
    let target =
        lines.next().and_then(|line| line.strip_prefix(b"GET ")).and_then(|line| line.strip_suffix(b" HTTP/1.1"));
    let asked = match target {
        Some(b"/") => Some(Asked::Small),
        target => target.and_then(|target| target.strip_prefix(b"/bytes/")).and_then(number).map(Asked::Bytes),
    };
    match asked {
        Some(asked) if lines.all(is_for_us) => Head::Get { asked, length: end + 4 },
        _ => Head::Other,
    }
}

/// Whether a field changes nothing about how the request is to be answered.
fn is_for_us(line: &[u8]) -> bool {
    let Some(colon) = line.iter().position(|byte| *byte == b':') else { return false };
    let (name, value) = (&line[..colon], line[colon + 1..].trim_ascii());
    if name.eq_ignore_ascii_case(b"connection") {
        return value.eq_ignore_ascii_case(b"keep-alive");
    }
    let others: [&[u8]; 5] = [b"content-length", b"content-type", b"transfer-encoding", b"expect", b"upgrade"];
    !others.iter().any(|other| name.eq_ignore_ascii_case(other))
}

fn number(digits: &[u8]) -> Option<u64> {
    std::str::from_utf8(digits).ok().filter(|digits| !digits.starts_with('+'))?.parse().ok()
}

thread_local! {
    static DATE: RefCell<Date> = const { RefCell::new(Date { text: String::new(), made: None }) };
}

/// The `date` of answers (RFC 9110 §5.6.7), made anew twice a second.
struct Date {
    text: String,
    made: Option<Instant>,
}

const IMF_FIXDATE: &[FormatItem<'_>] =
    format_description!("[weekday repr:short], [day] [month repr:short] [year] [hour]:[minute]:[second] GMT");

impl Date {
    fn now(&mut self) -> &str {
        let now = Instant::now();
        if self.made.is_none_or(|made| now.duration_since(made) > Duration::from_millis(500)) {
            self.made = Some(now);
            self.text = OffsetDateTime::now_utc().format(IMF_FIXDATE).unwrap_or_default();
        }
        &self.text
    }
}

/// A stream of which the first bytes were read already.
pub(super) struct Prefixed<S> {
    pub(super) unread: Bytes,
    pub(super) stream: S,
}

impl<S: AsyncRead + Unpin> AsyncRead for Prefixed<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.unread.is_empty() {
            return Pin::new(&mut self.stream).poll_read(cx, buf);
        }
        let part = self.unread.len().min(buf.remaining());
        buf.put_slice(&self.unread[..part]);
        self.unread.advance(part);
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Prefixed<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, parts)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use super::*;

    #[test]
    fn a_get_is_recognized_with_what_follows_it_left_alone() {
        let request = b"GET /bytes/17 HTTP/1.1\r\nHost: a\r\nconnection: keep-alive\r\n\r\nGET";
        assert_eq!(parse(request), Head::Get { asked: Asked::Bytes(17), length: request.len() - 3 });
        for cut in 0..request.len() - 3 {
            assert_eq!(parse(&request[..cut]), Head::Incomplete, "cut at {cut}");
        }
    }

    #[test]
    fn what_needs_more_than_a_get_is_left_to_hyper() {
        for request in [
            "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 1\r\n\r\n",
            "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
            "GET / HTTP/1.0\r\n\r\n",
            "GET /elsewhere HTTP/1.1\r\nhost: a\r\n\r\n",
            "GET / HTTP/1.1\r\nhost: a\r\nContent-Length: 3\r\n\r\n",
            "GET / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n",
            "GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n",
            "GET / HTTP/1.1\r\nhost: a\r\nexpect: 100-continue\r\n\r\n",
            "GET / HTTP/1.1\r\nnot a field\r\n\r\n",
        ] {
            assert_eq!(parse(request.as_bytes()), Head::Other, "{request}");
        }
    }

    #[tokio::test]
    async fn requests_that_come_together_are_all_answered_and_the_rest_is_handed_on() {
        let (mut client, mut server) = tokio::io::duplex(64 * 1024);
        client.write_all(b"GET / HTTP/1.1\r\n\r\nGET /bytes/3 HTTP/1.1\r\n\r\nPUT").await.unwrap();
        let Next::Hyper { unread } = answer(&mut server).await.unwrap() else { panic!("closed") };
        assert_eq!(&unread[..], b"PUT");
        drop(server);
        let mut answers = String::new();
        client.read_to_string(&mut answers).await.unwrap();
        assert_eq!(answers.matches("HTTP/1.1 200 OK\r\n").count(), 2);
        assert!(answers.contains("a small answer of the origin\n") && answers.ends_with("\r\n\r\nddd"), "{answers}");
    }
}
