//! The body of a request, read whole before the request is answered.
//!
//! Over HTTP/2 an answer that comes ahead of it resets the stream (RFC 9113 §8.1), and clients that are still sending tell of that and
//! not of the answer.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Limited};
use hyper::body::Body;

/// Nothing of a body that is too long or too slow is of use.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("its body is too long, or did not come in time")]
pub(super) struct Unread;

const MAX: usize = 16 << 10;
const TIMEOUT: Duration = Duration::from_secs(5);

pub(super) async fn read<B>(body: B) -> Result<Bytes, Unread>
where
    B: Body,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    match tokio::time::timeout(TIMEOUT, Limited::new(body, MAX).collect()).await {
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(_)) | Err(_) => Err(Unread),
    }
}

#[cfg(test)]
mod tests {
    use futures_util::stream;
    use http_body_util::{Full, StreamBody};
    use hyper::body::Frame;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_is_too_long_or_too_slow_is_not_read() {
        assert_eq!(read(Full::<Bytes>::from(vec![b'a'; MAX])).await.map(|body| body.len()), Ok(MAX));
        assert_eq!(read(Full::<Bytes>::from(vec![b'a'; MAX + 1])).await, Err(Unread));
        let silent = StreamBody::new(stream::pending::<Result<Frame<Bytes>, std::io::Error>>());
        assert_eq!(read(silent).await, Err(Unread));
    }
}
