//! HTTP/1.1 as bytes on a socket: what no client library would send.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use crate::wait::secs;

/// What a server answered, and whether it hung up then.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct RawAnswer {
    /// Statuses of all answers that came, in order.
    pub statuses: Vec<u16>,
    /// Everything.
    pub text: String,
    pub end: End,
    /// From the last byte sent to the end.
    pub took: Duration,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum End {
    /// The server closed the connection (or reset it: it had not read all that was sent).
    Closed,
    /// It was still open at the end of the patience.
    Open,
}

/// Opens a plain connection for bytes.
pub fn plain(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap_or_else(|error| panic!("{address}: {error}"));
    stream.set_read_timeout(Some(secs(15))).expect("an open socket");
    stream
}

/// Sends `bytes` and reads until the server closes or its read timeout has passed.
pub fn exchange(stream: &mut (impl Read + Write), bytes: &[u8]) -> RawAnswer {
    // A server that refuses early may close before it has read all: what it said then still counts.
    drop(stream.write_all(bytes).and_then(|()| stream.flush()));
    read_answer(stream)
}

/// Reads until the server closes or the stream's read timeout has passed.
pub fn read_answer(stream: &mut impl Read) -> RawAnswer {
    let begin = Instant::now();
    let mut received = Vec::new();
    let mut buffer = [0; 16 * 1024];
    let end = loop {
        match stream.read(&mut buffer) {
            Ok(0) => break End::Closed,
            Ok(length) => received.extend_from_slice(&buffer[..length]),
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
                break End::Open;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => break End::Closed,
        }
    };
    let text = String::from_utf8_lossy(&received).into_owned();
    RawAnswer { statuses: statuses_in(&text), text, end, took: begin.elapsed() }
}

/// Statuses of the status lines in a stream of answers.
fn statuses_in(text: &str) -> Vec<u16> {
    let after = text.match_indices("HTTP/1.1 ").map(|(at, found)| &text[at + found.len()..]);
    after.filter_map(|rest| rest.get(..3)?.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_status_line_of_a_stream_is_found() {
        let text = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nokHTTP/1.1 400 Bad Request\r\n\r\n";
        assert_eq!(statuses_in(text), [200, 400]);
    }

    #[test]
    fn a_stream_that_ends_was_closed() {
        let mut stream = io::Cursor::new(b"HTTP/1.1 204 No Content\r\n\r\n".to_vec());
        let answer = read_answer(&mut stream);
        assert_eq!((answer.statuses, answer.end), (vec![204], End::Closed));
    }
}
