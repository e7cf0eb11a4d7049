//! Just enough of HTTP/1.1 to know where an answer ends (RFC 9112 §6.3). No copy of a body is made.

use super::failure::Failure;
use super::link::Link;

/// An answer that was read to its end.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) body_bytes: u64,
    pub(super) connection: Afterwards,
}

/// What becomes of the connection.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Afterwards {
    Keep,
    Close,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Framing {
    Length(u64),
    Chunked(Chunk),
    UntilClose,
}

/// Where in a chunked body the next byte stands (RFC 9112 §7.1).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Chunk {
    Size {
        so_far: u64,
    },
    /// Extensions and the line's end.
    RestOfSize {
        size: u64,
    },
    Data {
        left: u64,
    },
    AfterData,
    /// Lines up to an empty one.
    Trailers {
        line_is_empty: bool,
    },
    End,
}

/// Reads one answer; `buffer` is what a head must fit in.
pub(super) async fn read(link: &mut Link, buffer: &mut [u8]) -> Result<Answer, Failure> {
    let mut filled = 0;
    let (mut head, length) = loop {
        let room = buffer.get_mut(filled..).filter(|room| !room.is_empty()).ok_or(Failure::BadResponse)?;
        match link.receive(room).await? {
            0 if filled == 0 => return Err(Failure::ClosedBeforeResponse),
            0 => return Err(Failure::ClosedInResponse),
            received => filled += received,
        }
        if let Some(found) = parse_final_head(&buffer[..filled])? {
            break found;
        }
    };

    let mut body_bytes = 0;
    let mut at = length;
    loop {
        body_bytes += head.framing.take(&buffer[at..filled])?;
        if head.framing.is_complete() {
            return Ok(Answer { status: head.status, body_bytes, connection: head.connection });
        }
        at = 0;
        filled = match link.receive(buffer).await {
            Ok(0) if head.framing == Framing::UntilClose => 0,
            Ok(0) | Err(Failure::ClosedBeforeResponse) => return Err(Failure::ClosedInResponse),
            received => received?,
        };
        if filled == 0 {
            return Ok(Answer { status: head.status, body_bytes, connection: Afterwards::Close });
        }
    }
}

#[derive(Debug, Eq, PartialEq)]
struct Head {
    status: u16,
    framing: Framing,
    connection: Afterwards,
}

/// The head of the final answer and where its body begins; `None` while it is not all there.
fn parse_final_head(bytes: &[u8]) -> Result<Option<(Head, usize)>, Failure> {
    let mut start = 0;
    loop {
        let Some(end) = find(&bytes[start..], b"\r\n\r\n") else { return Ok(None) };
        let head = parse_head(&bytes[start..start + end])?;
        start += end + 4;
        if head.status >= 200 {
            return Ok(Some((head, start)));
        }
    }
}

fn parse_head(bytes: &[u8]) -> Result<Head, Failure> {
    let mut lines = bytes.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii_end);
    let status_line = lines.next().unwrap_or_default();
    let status = match status_line {
        [b'H', b'T', b'T', b'P', b'/', b'1', b'.', _, b' ', digits @ ..] => {
            number(digits.get(..3).unwrap_or_default(), 10)
        }
        _ => None,
    };
    let status = status.and_then(|status| u16::try_from(status).ok()).ok_or(Failure::BadResponse)?;
    let mut framing = if matches!(status, 204 | 304) { Framing::Length(0) } else { Framing::UntilClose };
    let mut connection = Afterwards::Keep;
    for line in lines {
        let colon = line.iter().position(|byte| *byte == b':').ok_or(Failure::BadResponse)?;
        let (name, value) = (&line[..colon], line[colon + 1..].trim_ascii());
        if name.eq_ignore_ascii_case(b"content-length") {
            framing = Framing::Length(number(value, 10).ok_or(Failure::BadResponse)?);
        } else if name.eq_ignore_ascii_case(b"transfer-encoding") && value.eq_ignore_ascii_case(b"chunked") {
            framing = Framing::Chunked(Chunk::Size { so_far: 0 });
        } else if name.eq_ignore_ascii_case(b"connection") && value.eq_ignore_ascii_case(b"close") {
            connection = Afterwards::Close;
        }
    }
    Ok(Head { status, framing, connection })
}

impl Framing {
    /// Takes the next bytes and returns how many of them were the body's.
    fn take(&mut self, mut bytes: &[u8]) -> Result<u64, Failure> {
        match self {
            Self::UntilClose => Ok(bytes.len() as u64),
            Self::Length(left) => {
                // More than was announced belongs to no request of ours: none is sent ahead.
                *left = left.checked_sub(bytes.len() as u64).ok_or(Failure::BadResponse)?;
                Ok(bytes.len() as u64)
            }
            Self::Chunked(chunk) => {
                let mut body = 0;
                while let Some((&byte, rest)) = bytes.split_first() {
                    if let Chunk::Data { left } = chunk {
                        let here = bytes.len().min(usize::try_from(*left).unwrap_or(usize::MAX));
                        body += here as u64;
                        bytes = &bytes[here..];
                        *left -= here as u64;
                        if *left == 0 {
                            *chunk = Chunk::AfterData;
                        }
                    } else {
                        *chunk = chunk.after(byte)?;
                        bytes = rest;
                    }
                }
                Ok(body)
            }
        }
    }

    fn is_complete(self) -> bool {
        matches!(self, Self::Length(0) | Self::Chunked(Chunk::End))
    }
}

impl Chunk {
    fn after(self, byte: u8) -> Result<Self, Failure> {
        Ok(match (self, byte) {
            (Self::Size { so_far }, b'\n') | (Self::RestOfSize { size: so_far }, b'\n') => match so_far {
                0 => Self::Trailers { line_is_empty: true },
                left => Self::Data { left },
            },
            (Self::Size { so_far }, b'\r' | b';') => Self::RestOfSize { size: so_far },
            (Self::Size { so_far }, digit) => {
                let digit = number(&[digit], 16).ok_or(Failure::BadResponse)?;
                Self::Size { so_far: so_far.checked_mul(16).ok_or(Failure::BadResponse)? | digit }
            }
            (Self::RestOfSize { size }, _) => Self::RestOfSize { size },
            (Self::AfterData, b'\r') => Self::AfterData,
            (Self::AfterData, b'\n') => Self::Size { so_far: 0 },
            (Self::Trailers { line_is_empty: true }, b'\n') => Self::End,
            (Self::Trailers { .. }, b'\n') => Self::Trailers { line_is_empty: true },
            (Self::Trailers { line_is_empty }, b'\r') => Self::Trailers { line_is_empty },
            (Self::Trailers { .. }, _) => Self::Trailers { line_is_empty: false },
            (Self::AfterData | Self::Data { .. } | Self::End, _) => return Err(Failure::BadResponse),
        })
    }
}

fn number(digits: &[u8], radix: u32) -> Option<u64> {
    let text = std::str::from_utf8(digits).ok()?;
    if text.starts_with('+') { None } else { u64::from_str_radix(text, radix).ok() }
}

fn find(bytes: &[u8], what: &[u8]) -> Option<usize> {
    bytes.windows(what.len()).position(|window| window == what)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use super::*;

    /// The answer's status and body bytes, fed in two parts that meet at `cut`.
    fn parse_in_two(text: &str, cut: usize) -> Result<(u16, u64), Failure> {
        let (mut head, body) = parse_final_head(text.as_bytes())?.ok_or(Failure::ClosedInResponse)?;
        let (first, second) = text.as_bytes()[body..].split_at(cut);
        let bytes = head.framing.take(first)? + head.framing.take(second)?;
        if head.framing.is_complete() { Ok((head.status, bytes)) } else { Err(Failure::ClosedInResponse) }
    }

    #[test]
    fn a_chunked_body_is_read_wherever_it_is_cut() {
        let body = "5;a=b\r\nhello\r\nA\r\n0123456789\r\n0\r\nx: y\r\n\r\n";
        let text = format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{body}");
        for cut in 0..=body.len() {
            assert_eq!(parse_in_two(&text, cut).unwrap(), (200, 15), "cut at {cut}");
        }
    }

    #[test]
    fn a_bad_chunk_size_is_no_answer() {
        let text = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n";
        assert!(matches!(parse_in_two(text, 0), Err(Failure::BadResponse)));
    }

    #[test]
    fn an_interim_answer_is_passed_over() {
        let text = "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
        assert_eq!(parse_in_two(text, 1).unwrap(), (200, 2));
    }

    #[test]
    fn bytes_beyond_the_length_are_no_answer() {
        let text = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nokay";
        assert!(matches!(parse_in_two(text, 0), Err(Failure::BadResponse)));
    }

    #[test]
    fn what_is_not_http_is_no_answer() {
        assert!(matches!(parse_final_head(b"SSH-2.0-x\r\n\r\n"), Err(Failure::BadResponse)));
    }
}
