//! Windows: how many bytes one side may still send, on a stream or in the session.

use crate::frame::MAX_31_BITS;

/// The window of every stream and session before anybody says otherwise, in bytes (draft 3.1, section 2.6.8).
pub(crate) const INITIAL_WINDOW: u32 = 64 << 10;

/// What is known of the peer's flow control.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Peer {
    /// Nothing yet. It is sent as much as the connection takes, and told of our windows.
    Unknown,
    /// It minds windows: both sides' are kept.
    Windows,
    /// It sent more than it was allowed without ever having spoken of windows. None is kept, and it hears no more
    /// of them: spdystream queues each WINDOW_UPDATE behind data that nobody reads.
    NoWindows,
}

/// A window that the peer grants us. It is negative when a peer shrinks it below what was sent, or speaks of windows
/// only after more was sent.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SendWindow(i64);

impl SendWindow {
    pub(crate) fn new(size: u32) -> Self {
        Self(size.into())
    }

    /// Bytes that may be sent.
    pub(crate) fn available(self) -> usize {
        usize::try_from(self.0).unwrap_or(0)
    }

    pub(crate) fn sent(&mut self, bytes: usize) {
        self.0 = self.0.saturating_sub_unsigned(bytes as u64);
    }

    /// Moves the window by an increment, or by the change of the initial size; false if that is no window any more.
    #[must_use]
    pub(crate) fn shift(&mut self, delta: i64) -> bool {
        self.0 = self.0.saturating_add(delta);
        self.0 <= i64::from(MAX_31_BITS)
    }
}

/// A window that we grant the peer.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ReceiveWindow {
    size: u32,
    left: i64,
    consumed: u32,
}

impl ReceiveWindow {
    pub(crate) fn new(size: u32) -> Self {
        Self { size, left: size.into(), consumed: 0 }
    }

    /// Counts bytes that came; false if they were too many.
    #[must_use]
    pub(crate) fn receive(&mut self, bytes: usize) -> bool {
        self.left = self.left.saturating_sub_unsigned(bytes as u64);
        self.left >= 0
    }

    /// Counts bytes that their owner took; true if enough have come together to tell the peer.
    #[must_use]
    pub(crate) fn consume(&mut self, bytes: usize) -> bool {
        self.consumed = self.consumed.saturating_add(u32::try_from(bytes).unwrap_or(u32::MAX));
        self.consumed >= self.size / 2
    }

    /// Reopens the window by what was consumed, and says by how much.
    pub(crate) fn grant(&mut self) -> u32 {
        let delta = std::mem::take(&mut self.consumed);
        self.left += i64::from(delta);
        delta
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_send_window_may_be_overdrawn_but_not_overflow() {
        let mut window = SendWindow::new(10);
        window.sent(25);
        assert_eq!(window.available(), 0);
        assert!(window.shift(20));
        assert_eq!(window.available(), 5);
        assert!(window.shift(i64::from(MAX_31_BITS) - 5));
        assert!(!window.shift(1));
    }

    #[test]
    fn a_receive_window_reopens_in_halves() {
        let mut window = ReceiveWindow::new(100);
        assert!(window.receive(100));
        assert!(!window.consume(49));
        assert!(window.consume(1));
        assert_eq!(window.grant(), 50);
        assert!(window.receive(50));
        assert!(!window.receive(1));
    }
}
