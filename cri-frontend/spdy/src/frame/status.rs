//! Why a stream or a session ended, in the numbers of the wire.

use std::fmt;

/// Why a stream was reset (draft 3.1, section 2.6.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ResetStatus {
    /// 1: any error that has no number of its own.
    ProtocolError,
    /// 2: a frame for a stream that is not open.
    InvalidStream,
    /// 3: refused before anything was done for it.
    RefusedStream,
    /// 4: the recipient does not speak this version.
    UnsupportedVersion,
    /// 5: no longer needed.
    Cancel,
    /// 6: the sender failed.
    InternalError,
    /// 7: more was sent than the window allowed.
    FlowControlError,
    /// 8: a second SYN_REPLY.
    StreamInUse,
    /// 9: data after the end of data.
    StreamAlreadyClosed,
    /// 10: a client certificate problem; unused since draft 3.1.
    InvalidCredentials,
    /// 11: a frame was larger than its recipient takes.
    FrameTooLarge,
    /// Any other number.
    Other(u32),
}

impl From<u32> for ResetStatus {
    fn from(code: u32) -> Self {
        match code {
            1 => Self::ProtocolError,
            2 => Self::InvalidStream,
            3 => Self::RefusedStream,
            4 => Self::UnsupportedVersion,
            5 => Self::Cancel,
            6 => Self::InternalError,
            7 => Self::FlowControlError,
            8 => Self::StreamInUse,
            9 => Self::StreamAlreadyClosed,
            10 => Self::InvalidCredentials,
            11 => Self::FrameTooLarge,
            other => Self::Other(other),
        }
    }
}

impl From<ResetStatus> for u32 {
    fn from(status: ResetStatus) -> Self {
        match status {
            ResetStatus::ProtocolError => 1,
            ResetStatus::InvalidStream => 2,
            ResetStatus::RefusedStream => 3,
            ResetStatus::UnsupportedVersion => 4,
            ResetStatus::Cancel => 5,
            ResetStatus::InternalError => 6,
            ResetStatus::FlowControlError => 7,
            ResetStatus::StreamInUse => 8,
            ResetStatus::StreamAlreadyClosed => 9,
            ResetStatus::InvalidCredentials => 10,
            ResetStatus::FrameTooLarge => 11,
            ResetStatus::Other(other) => other,
        }
    }
}

impl fmt::Display for ResetStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ProtocolError => f.write_str("PROTOCOL_ERROR"),
            Self::InvalidStream => f.write_str("INVALID_STREAM"),
            Self::RefusedStream => f.write_str("REFUSED_STREAM"),
            Self::UnsupportedVersion => f.write_str("UNSUPPORTED_VERSION"),
            Self::Cancel => f.write_str("CANCEL"),
            Self::InternalError => f.write_str("INTERNAL_ERROR"),
            Self::FlowControlError => f.write_str("FLOW_CONTROL_ERROR"),
            Self::StreamInUse => f.write_str("STREAM_IN_USE"),
            Self::StreamAlreadyClosed => f.write_str("STREAM_ALREADY_CLOSED"),
            Self::InvalidCredentials => f.write_str("INVALID_CREDENTIALS"),
            Self::FrameTooLarge => f.write_str("FRAME_TOO_LARGE"),
            Self::Other(code) => write!(f, "status {code}"),
        }
    }
}

/// Why a side goes away (draft 3.1, section 2.6.6).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GoAwayStatus {
    /// 0: nothing is wrong.
    Ok,
    /// 1: the other side broke the protocol.
    ProtocolError,
    /// 2: the sender failed.
    InternalError,
    /// Any other number.
    Other(u32),
}

impl From<u32> for GoAwayStatus {
    fn from(code: u32) -> Self {
        match code {
            0 => Self::Ok,
            1 => Self::ProtocolError,
            2 => Self::InternalError,
            other => Self::Other(other),
        }
    }
}

impl From<GoAwayStatus> for u32 {
    fn from(status: GoAwayStatus) -> Self {
        match status {
            GoAwayStatus::Ok => 0,
            GoAwayStatus::ProtocolError => 1,
            GoAwayStatus::InternalError => 2,
            GoAwayStatus::Other(other) => other,
        }
    }
}
