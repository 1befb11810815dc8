//! The numbers in frames and close frames, and what they mean (`PROTOCOL.md`, section 4).

/// Why an envelope is safe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Stored {
    /// It is on stable storage.
    Flushed = 1,
    /// Its reader has acknowledged it.
    Acknowledged = 2,
}

impl Stored {
    /// The number in the frame.
    #[must_use]
    pub const fn code(self) -> u8 {
        self as u8
    }

    /// The meaning of a number, if it has one.
    #[must_use]
    pub const fn from_code(code: u8) -> Option<Self> {
        match code {
            1 => Some(Self::Flushed),
            2 => Some(Self::Acknowledged),
            _ => None,
        }
    }
}

/// Why a put is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
#[repr(u8)]
pub enum Reason {
    /// Unknown mailbox, unknown or revoked capability: one answer for all, so that nobody learns which mailboxes exist.
    #[error("not allowed")]
    NotAllowed = 1,
    /// Too many envelopes wait under this capability.
    #[error("quota of envelopes used up")]
    EnvelopeQuota = 2,
    /// Too many bytes wait under this capability.
    #[error("quota of bytes used up")]
    ByteQuota = 3,
    /// The envelope has none of the five lengths.
    #[error("not an envelope's length")]
    Length = 4,
    /// The relay couldn't write.
    #[error("not stored: the relay couldn't write")]
    NotStored = 5,
    /// The ttl is out of bounds.
    #[error("ttl out of bounds")]
    Ttl = 6,
    /// The relay has too much to do, or to keep.
    #[error("the relay is busy")]
    Busy = 7,
    /// The id was used for another envelope.
    #[error("the id was used for another envelope")]
    IdUsed = 8,
}

impl Reason {
    /// The number in the frame.
    #[must_use]
    pub const fn code(self) -> u8 {
        self as u8
    }

    /// The meaning of a number, if it has one.
    #[must_use]
    pub const fn from_code(code: u8) -> Option<Self> {
        match code {
            1 => Some(Self::NotAllowed),
            2 => Some(Self::EnvelopeQuota),
            3 => Some(Self::ByteQuota),
            4 => Some(Self::Length),
            5 => Some(Self::NotStored),
            6 => Some(Self::Ttl),
            7 => Some(Self::Busy),
            8 => Some(Self::IdUsed),
            _ => None,
        }
    }
}

/// Why a relay closes a connection: the code of the websocket's close frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
#[repr(u16)]
pub enum Close {
    /// Not websocket as RFC 6455 has it.
    #[error("websocket protocol error")]
    Protocol = 1002,
    /// A text message.
    #[error("text message refused")]
    Unsupported = 1003,
    /// A text message that isn't even text.
    #[error("invalid text message")]
    Invalid = 1007,
    /// A longer frame than allowed at this time.
    #[error("frame too long")]
    TooLong = 1009,
    /// A frame that doesn't decode.
    #[error("malformed frame")]
    Malformed = 4400,
    /// The login failed, or something else came before it.
    #[error("login failed")]
    Login = 4401,
    /// The request had an `Origin`: a browser sent it.
    #[error("origin refused")]
    Origin = 4403,
    /// A deadline passed.
    #[error("too slow")]
    TooSlow = 4408,
    /// Another reader of the mailbox took over.
    #[error("displaced by another reader")]
    Displaced = 4409,
    /// More than allowed, of connections, mailboxes, capabilities or pings.
    #[error("too many")]
    TooMany = 4429,
    /// The relay is shutting down.
    #[error("the relay is shutting down")]
    ShuttingDown = 4503,
}

impl Close {
    /// The number in the close frame.
    #[must_use]
    pub const fn code(self) -> u16 {
        self as u16
    }

    /// The meaning of a number, if it has one here.
    #[must_use]
    pub const fn from_code(code: u16) -> Option<Self> {
        match code {
            1002 => Some(Self::Protocol),
            1003 => Some(Self::Unsupported),
            1007 => Some(Self::Invalid),
            1009 => Some(Self::TooLong),
            4400 => Some(Self::Malformed),
            4401 => Some(Self::Login),
            4403 => Some(Self::Origin),
            4408 => Some(Self::TooSlow),
            4409 => Some(Self::Displaced),
            4429 => Some(Self::TooMany),
            4503 => Some(Self::ShuttingDown),
            _ => None,
        }
    }
}
