//! Channels over a WebSocket: a byte before each message says which (Kubernetes' `channel.k8s.io` protocols).

use std::{io, sync::Arc, time::Duration};

use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::{BufMut, Bytes, BytesMut};
use futures::{Sink, SinkExt, Stream, StreamExt};
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt, DuplexStream, duplex},
    sync::mpsc,
    time::sleep,
};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{
        self, Message, Utf8Bytes,
        protocol::{CloseFrame, Role, WebSocketConfig, frame::coding::CloseCode},
    },
};
use tracing::debug;

use super::transport::{Activity, Transport, Watched};

/// The longest message that is taken: clients send 32 KiB at once.
const MESSAGE_BYTES: usize = 1 << 20;
/// What of a channel is kept for a reader that is slow.
const PIPE_BYTES: usize = 256 * 1024;
/// Messages on their way to the connection.
const QUEUE: usize = 4;
/// v5: the first byte of a message that says which channel has ended.
const CLOSE: u8 = 255;
/// While a channel's reader is waited for nothing is read from the connection: whether the client is still there shows
/// in writing, the second time after it has gone.
const PROBE: Duration = Duration::from_millis(500);

/// What the messages look like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Codec {
    /// Text in base64 after a digit, instead of bytes after a byte.
    pub base64: bool,
    /// A message may say that a channel has ended.
    pub close: bool,
}

/// The sending end of a channel.
#[derive(Debug, Clone)]
pub struct Sender {
    channel: u8,
    codec: Codec,
    queue: mpsc::Sender<Message>,
}

impl Sender {
    /// Sends a message, as soon as the client keeps up.
    ///
    /// # Errors
    /// The client has gone.
    pub async fn send(&self, bytes: &[u8]) -> io::Result<()> {
        let message = self.codec.encode(self.channel, bytes);
        self.queue.send(message).await.map_err(|_| io::ErrorKind::BrokenPipe.into())
    }
}

impl Codec {
    fn encode(self, channel: u8, bytes: &[u8]) -> Message {
        if self.base64 {
            let mut text = String::from(char::from(b'0' + channel));
            STANDARD.encode_string(bytes, &mut text);
            return Message::Text(text.into());
        }
        let mut message = BytesMut::with_capacity(1 + bytes.len());
        message.put_u8(channel);
        message.put_slice(bytes);
        Message::Binary(message.freeze())
    }

    fn decode(self, message: &[u8]) -> Result<Event, &'static str> {
        let Some((&first, rest)) = message.split_first() else { return Ok(Event::Nothing) };
        if self.close && first == CLOSE {
            return match rest {
                [channel] => Ok(Event::End(*channel)),
                _ => Err("one byte follows the sign of a channel's end"),
            };
        }
        if !self.base64 {
            return Ok(Event::Data(first, Bytes::copy_from_slice(rest)));
        }
        let bytes = STANDARD.decode(rest).map_err(|_| "a message is not base64")?;
        Ok(Event::Data(first.wrapping_sub(b'0'), bytes.into()))
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Event {
    Data(u8, Bytes),
    End(u8),
    Nothing,
}

/// The channels of a connection. What comes on a channel that is not read is dropped.
#[derive(Debug)]
pub struct Channels {
    /// For each channel that was asked to be read, by its number.
    pub inputs: Vec<Option<DuplexStream>>,
    codec: Codec,
    queue: mpsc::Sender<Message>,
}

impl Channels {
    /// The sending end of a channel. The connection is closed when the last is dropped, and these channels with it.
    pub fn sender(&self, channel: u8) -> Sender {
        Sender { channel, codec: self.codec, queue: self.queue.clone() }
    }
}

/// What the bounds of a connection are.
pub fn config() -> WebSocketConfig {
    WebSocketConfig::default().max_message_size(Some(MESSAGE_BYTES)).max_frame_size(Some(MESSAGE_BYTES))
}

/// Takes over a connection after its handshake. `read` says which channels are read.
pub async fn open(
    connection: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    codec: Codec,
    read: &[bool],
    idle: Duration,
) -> (Channels, Transport) {
    let (mut inputs, mut pipes) = (Vec::new(), Vec::new());
    for &wanted in read {
        let (near, far) = if wanted { Some(duplex(PIPE_BYTES)).unzip() } else { (None, None) };
        inputs.push(near);
        pipes.push(far);
    }
    let (queue, messages) = mpsc::channel(QUEUE);
    let (connection, writing) = Watched::new(connection);
    let stream = WebSocketStream::from_raw_socket(connection, Role::Server, Some(config())).await;
    let transport = Transport::run(drive(stream, codec, pipes, messages, idle), writing);
    (Channels { inputs, codec, queue }, transport)
}

async fn drive(
    stream: WebSocketStream<impl AsyncRead + AsyncWrite + Unpin>,
    codec: Codec,
    pipes: Vec<Option<DuplexStream>>,
    messages: mpsc::Receiver<Message>,
    idle: Duration,
) {
    let (sink, stream) = stream.split();
    let activity = Arc::new(Activity::new(idle));
    let (probe, probes) = mpsc::channel(1);
    let ended = tokio::select! {
        ended = receive(stream, codec, pipes, probe, &activity) => ended,
        ended = transmit(sink, messages, probes, &activity) => ended,
        () = activity.idle() => Err("nothing has happened for too long".into()),
    };
    if let Err(error) = ended {
        debug!(%error, "a WebSocket connection ended");
    }
}

type Failure = Box<dyn std::error::Error + Send + Sync>;

async fn receive(
    mut stream: impl Stream<Item = tungstenite::Result<Message>> + Unpin,
    codec: Codec,
    mut pipes: Vec<Option<DuplexStream>>,
    probe: mpsc::Sender<()>,
    activity: &Activity,
) -> Result<(), Failure> {
    while let Some(message) = stream.next().await {
        let event = match message? {
            Message::Binary(bytes) => codec.decode(&bytes)?,
            Message::Text(text) => codec.decode(text.as_bytes())?,
            Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => continue,
            Message::Close(_) => return Ok(()),
        };
        activity.note();
        match event {
            Event::Data(channel, bytes) => {
                let Some(Some(pipe)) = pipes.get_mut(usize::from(channel)) else { continue };
                // A reader that has gone wants nothing more; the others do.
                let _ = hand_on(pipe, &bytes, &probe).await;
            }
            Event::End(channel) => {
                let pipe = pipes.get_mut(usize::from(channel));
                *pipe.ok_or("the end of a channel that there is none of")? = None;
            }
            Event::Nothing => {}
        }
    }
    Ok(())
}

async fn hand_on(pipe: &mut DuplexStream, bytes: &[u8], probe: &mpsc::Sender<()>) -> io::Result<()> {
    let mut written = std::pin::pin!(pipe.write_all(bytes));
    loop {
        tokio::select! {
            done = &mut written => return done,
            () = sleep(PROBE) => {
                // Full: a probe waits to be written already.
                let _ = probe.try_send(());
            }
        }
    }
}

async fn transmit(
    mut sink: impl Sink<Message, Error = tungstenite::Error> + Unpin,
    mut messages: mpsc::Receiver<Message>,
    mut probes: mpsc::Receiver<()>,
    activity: &Activity,
) -> Result<(), Failure> {
    loop {
        let message = tokio::select! {
            message = messages.recv() => message,
            Some(()) = probes.recv() => {
                // Its own pings are not read meanwhile, and Kubernetes' clients give up without a pong for a minute.
                sink.send(Message::Pong(Bytes::new())).await?;
                continue;
            }
        };
        let Some(message) = message else {
            let normal = CloseFrame { code: CloseCode::Normal, reason: Utf8Bytes::default() };
            sink.send(Message::Close(Some(normal))).await?;
            // The client's own close, or its going, is what the other half waits for.
            return std::future::pending().await;
        };
        sink.send(message).await?;
        activity.note();
    }
}

#[cfg(test)]
mod tests {
    use tokio::{io::AsyncReadExt, time::Instant};

    use super::*;

    const V5: Codec = Codec { base64: false, close: true };
    const IDLE: Duration = Duration::from_secs(3600);

    #[test]
    fn messages_are_read_by_their_codec() {
        let base64 = Codec { base64: true, close: false };
        assert_eq!(base64.decode(b"0Zm9vCg==").unwrap(), Event::Data(0, "foo\n".into()));
        assert!(base64.decode(b"0Zm9vCg").is_err());
        assert_eq!(base64.encode(1, b"\n"), Message::Text("1Cg==".into()));
        assert_eq!(V5.decode(&[255, 0]).unwrap(), Event::End(0));
        assert!(V5.decode(&[255, 0, 1]).is_err());
        let v4 = Codec { close: false, ..V5 };
        assert_eq!(v4.decode(&[255, 0]).unwrap(), Event::Data(255, Bytes::from_static(&[0])));
        assert_eq!(v4.decode(&[]).unwrap(), Event::Nothing);
    }

    async fn pair(read: &[bool]) -> (WebSocketStream<DuplexStream>, Channels, Transport) {
        let (near, far) = duplex(1024);
        let (channels, transport) = open(far, V5, read, IDLE).await;
        (WebSocketStream::from_raw_socket(near, Role::Client, None).await, channels, transport)
    }

    #[tokio::test]
    async fn a_channel_ends_by_its_sign_and_the_others_go_on() {
        let (mut client, mut channels, _transport) = pair(&[true, false, true]).await;
        client.send(Message::Binary(Bytes::from_static(b"\0hello"))).await.unwrap();
        client.send(Message::Binary(Bytes::from_static(b"\x01nobody reads this"))).await.unwrap();
        client.send(Message::Binary(Bytes::from_static(&[255, 0]))).await.unwrap();
        client.send(Message::Binary(Bytes::from_static(b"\x02more"))).await.unwrap();
        let mut first = String::new();
        channels.inputs[0].take().unwrap().read_to_string(&mut first).await.unwrap();
        assert_eq!(first, "hello");
        let mut more = [0; 4];
        channels.inputs[2].as_mut().unwrap().read_exact(&mut more).await.unwrap();
        assert_eq!(&more, b"more");
    }

    #[tokio::test]
    async fn the_last_sender_closes_the_connection_after_what_was_sent() {
        let (mut client, channels, transport) = pair(&[]).await;
        channels.sender(1).send(b"bye").await.unwrap();
        drop(channels);
        assert_eq!(client.next().await.unwrap().unwrap(), Message::Binary(Bytes::from_static(b"\x01bye")));
        assert!(matches!(client.next().await.unwrap().unwrap(), Message::Close(_)));
        drop(client);
        transport.finish().await;
    }

    /// It hears pongs, as its pings cannot be read, until it goes or the session is idle for too long.
    #[tokio::test(start_paused = true)]
    async fn a_client_whose_input_nobody_reads_is_told_that_we_are_there() {
        for goes in [true, false] {
            let (mut client, _channels, transport) = pair(&[true]).await;
            client.send(Message::Binary(Bytes::from(vec![0; PIPE_BYTES + 1000]))).await.unwrap();
            let (pong, start) = (Message::Pong(Bytes::new()), Instant::now());
            for _ in 0..3 {
                assert_eq!(client.next().await.unwrap().unwrap(), pong);
            }
            if goes {
                drop(client);
            } else {
                while client.next().await.is_some_and(|message| message.is_ok()) {}
            }
            transport.gone().cancelled().await;
            assert_eq!(start.elapsed() < IDLE, goes);
        }
    }

    #[tokio::test]
    async fn a_client_that_goes_is_noticed() {
        let (client, channels, transport) = pair(&[true]).await;
        drop(client);
        transport.gone().cancelled().await;
        assert!(channels.sender(1).send(b"x").await.is_err());
    }
}
