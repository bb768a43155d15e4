//! A SPDY/3.1 server: many streams over one connection, as Kubernetes' clients speak it for exec, attach and
//! port-forward. It knows nothing of what the streams carry, and takes any connection that tokio can read and write:
//! it begins where an HTTP upgrade ends.
//!
//! ```no_run
//! # async fn serve(connection: tokio::net::TcpStream) -> Result<(), Box<dyn std::error::Error>> {
//! use a3s_box_spdy::{Config, Headers, Session};
//!
//! let (mut session, driver) = Session::new(connection, &Config::default());
//! let owner = async move {
//!     while let Some(incoming) = session.accept().await {
//!         let kind = incoming.headers().get("streamtype").unwrap_or("none").to_owned();
//!         let mut stream = incoming.reply(&Headers::new())?;
//!         stream.send.send(kind.into()).await?;
//!         stream.send.finish()?;
//!     }
//!     Ok::<_, a3s_box_spdy::StreamError>(())
//! };
//! let (ended, served) = tokio::join!(driver.run(), owner);
//! # ended?; served?; Ok(()) }
//! ```
//!
//! # Life and end
//!
//! Whoever holds a thing owns its end, and dropping it is never a leak:
//!
//! | dropped | what the peer sees |
//! |---|---|
//! | [`SendHalf`] after `finish` | all data, then FIN |
//! | [`SendHalf`] unfinished | RST_STREAM(CANCEL) |
//! | [`RecvHalf`] | nothing; after our FIN, RST_STREAM(CANCEL) if it was not done sending |
//! | [`Incoming`] | RST_STREAM(REFUSED_STREAM) |
//! | [`Session`] | further streams refused; when the last one is over and written, GOAWAY and the end |
//! | [`Driver`] | the connection closed at once |
//!
//! # Flow control
//!
//! SPDY/3.1 has a window for each stream and one for the session. Go's `spdystream`, which is in `kubectl`, `crictl` and
//! the kubelet, implements neither: it sends without regard to windows and never reopens one. To wait for its
//! WINDOW_UPDATE would be to wait for ever. So a peer's windows are kept as the draft has it from the moment in which the
//! peer shows that it minds them, by a WINDOW_UPDATE or an initial window in SETTINGS; and ours are announced, reopened
//! as owners read, and enforced against such a peer. A peer that sends beyond a window without having shown that is
//! let be, and hears no more of windows ([`FlowControl`]).
//!
//! What always holds is the bound on memory: a stream has a buffer of [`Config::stream_window`], the session one of
//! [`Config::session_window`] for all. A peer that minds windows never fills them. For one that does not, the
//! connection is simply not read while the next bytes in it find no room. That holds up the session's other streams
//! too, until the owner reads or lets go of his half: with a sender that does not ask, the choice is between that,
//! unbounded memory, and lost bytes. A full stream alone holds up nobody, only bytes behind it that have no place; and
//! 1 MiB of place is about what spdystream itself takes for a stream (50 frames of 32 KiB) before its own other
//! streams wait. While nothing is read the peer's going away is found out by writing to it: an empty SETTINGS twice a
//! second, which has no answer and no effect.
//!
//! In the other direction a stream whose owner sends faster than the peer reads makes him wait at 64 KiB, and streams
//! take turns.
//!
//! # Hostile peers
//!
//! Every number a peer sends is checked against a bound before memory is spent on it: frames, header blocks before and
//! after decompression, headers, streams at once (those of which an owner has not let go included), bytes unread. Frames
//! that call for an answer are not read while 64 answers wait to be written; frames that call for none cost the peer
//! more than us. Ids must be odd and grow. What is wrong within a stream resets the stream; what leaves framing,
//! compression or the session's window in doubt ends the session with a GOAWAY.
//!
//! # What is not there
//!
//! Streams opened by the server, HEADERS from the server, priorities (streams take turns), the CREDENTIAL frame that
//! draft 3.1 dropped (ignored, like any unknown control frame), and persisted SETTINGS.
//!
//! The protocol's text is "SPDY Protocol - Draft 3.1" of the Chromium project.

#![forbid(unsafe_code)]

mod config;
mod error;
pub mod frame;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzzing;
pub mod headers;
mod session;
mod stream;
#[cfg(test)]
mod tests;

pub use config::{Config, FlowControl};
pub use error::{Ended, SessionError, StreamError};
pub use frame::{ResetStatus, StreamId};
pub use headers::Headers;
pub use session::{Driver, Session};
pub use stream::{Incoming, RecvHalf, SendHalf, Stream};
