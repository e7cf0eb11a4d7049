//! Calls with any bytes for messages: what a client of ours never sends.

use bytes::{Buf as _, BufMut as _};
use tonic::client::Grpc;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::transport::Channel;
use tonic::{Request, Response, Status, Streaming};

struct Bytes;

impl Codec for Bytes {
    type Encode = Vec<u8>;
    type Decode = Vec<u8>;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Bytes {
    type Item = Vec<u8>;
    type Error = Status;

    fn encode(&mut self, message: Vec<u8>, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buffer.put_slice(&message);
        Ok(())
    }
}

impl Decoder for Bytes {
    type Item = Vec<u8>;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<Vec<u8>>, Status> {
        Ok(Some(buffer.copy_to_bytes(buffer.remaining()).to_vec()))
    }
}

async fn ready(channel: Channel) -> Grpc<Channel> {
    let mut client = Grpc::new(channel);
    client.ready().await.unwrap();
    client
}

pub async fn call(channel: Channel, path: &str, message: Vec<u8>) -> Result<Response<Vec<u8>>, Status> {
    ready(channel).await.unary(Request::new(message), path.parse().unwrap(), Bytes).await
}

/// The client goes on saying what comes out of `messages`.
pub async fn stream(
    channel: Channel,
    path: &str,
    messages: tokio::sync::mpsc::Receiver<Vec<u8>>,
) -> Result<Response<Streaming<Vec<u8>>>, Status> {
    let messages = tokio_stream::wrappers::ReceiverStream::new(messages);
    ready(channel).await.streaming(Request::new(messages), path.parse().unwrap(), Bytes).await
}
