//! What client and relay say to each other: one frame is one binary websocket message (`PROTOCOL.md`, section 4).
//!
//! Reading a socket, and what a relay does about a frame (section 5), are deliberately not here. An envelope inside a
//! frame is a slice of the frame's own bytes, never a copy.

use std::fmt;

use bytes::{BufMut, Bytes, BytesMut};

use crate::envelope::Envelope;
use crate::limits::{CAPABILITY_BYTES_MAX, CAPABILITY_ENVELOPES_MAX, FRAME_BYTES};
use crate::mailbox::{Capability, CapabilityHash};

/// The version of the protocol that this crate speaks.
pub const VERSION: u16 = 1;

/// The latest time that a frame may carry, in milliseconds since 1970: what a JSON number holds exactly.
pub const TIME_MAX: u64 = (1 << 53) - 1;

mod code;
#[cfg(test)]
mod tests;

pub use code::{Close, Reason, Stored};

mod kind {
    pub(super) const LOGIN: u8 = 0x01;
    pub(super) const PUT: u8 = 0x02;
    pub(super) const READ: u8 = 0x03;
    pub(super) const ACK: u8 = 0x04;
    pub(super) const ALLOW: u8 = 0x05;
    pub(super) const REVOKE: u8 = 0x06;
    pub(super) const CLOSE_MAILBOX: u8 = 0x07;
    pub(super) const CHALLENGE: u8 = 0x81;
    pub(super) const WELCOME: u8 = 0x82;
    pub(super) const STORED: u8 = 0x83;
    pub(super) const REFUSED: u8 = 0x84;
    pub(super) const DELIVER: u8 = 0x85;
    pub(super) const DISPLACED: u8 = 0x86;
    pub(super) const DONE: u8 = 0x87;
    pub(super) const READING: u8 = 0x88;
    pub(super) const GOODBYE: u8 = 0x89;
}

/// Names one `put` of a sender: the same id with the same envelope is the same put.
pub type PutId = [u8; 16];

/// What a client says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClientFrame {
    /// The answer to a challenge (section 3).
    Login {
        /// The version that the client chose.
        version: u16,
        /// The mailbox, not yet known to be a key at all.
        mailbox: [u8; 32],
        /// Its signature over the login (see [`login`](crate::login)).
        signature: [u8; 64],
    },
    /// Leave an envelope in a mailbox.
    Put(Put),
    /// Make this connection the mailbox's one live reader.
    Read,
    /// Everything up to and including `sequence` is safe with the reader and may be deleted.
    Ack {
        /// The last sequence number acknowledged.
        sequence: u64,
    },
    /// Let whoever holds the capability put envelopes into this mailbox.
    Allow {
        /// What names the capability.
        capability: CapabilityHash,
        /// Most envelopes that may wait under it: at most [`CAPABILITY_ENVELOPES_MAX`].
        max_envelopes: u32,
        /// Most bytes that may wait under it: at most [`CAPABILITY_BYTES_MAX`].
        max_bytes: u64,
    },
    /// End a capability.
    Revoke {
        /// What names the capability.
        capability: CapabilityHash,
    },
    /// Delete the mailbox and all that is in it.
    CloseMailbox,
}

/// A `put`. Its `Debug` shows neither capability nor envelope.
#[derive(Clone, PartialEq, Eq)]
pub struct Put {
    /// Chosen by the sender, for idempotence.
    pub id: PutId,
    /// The mailbox. Looked up only, so not decompressed: that would cost the relay more than the sender.
    pub mailbox: [u8; 32],
    /// The leave to put.
    pub capability: Capability,
    /// How long the relay may keep the envelope, in seconds. Its bounds are judged by the relay, which answers.
    pub ttl_seconds: u32,
    /// The envelope. Its length is judged by the relay, which answers.
    pub envelope: Bytes,
}

impl fmt::Debug for Put {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            formatter,
            "Put {{ ttl_seconds: {}, envelope: {} bytes }}",
            self.ttl_seconds,
            self.envelope.len()
        )
    }
}

/// What a relay says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RelayFrame {
    /// The first frame of every connection.
    Challenge {
        /// The highest version that the relay speaks.
        version: u16,
        /// Fresh random bytes, good for one login on this connection.
        nonce: [u8; 32],
    },
    /// The login is accepted.
    Welcome {
        /// The version spoken from now on.
        version: u16,
        /// Most envelopes delivered and not yet acknowledged.
        window_envelopes: u32,
    },
    /// The envelope of this put is safe.
    Stored {
        /// The put's id.
        id: PutId,
        /// Why it is safe.
        how: Stored,
    },
    /// The put isn't accepted.
    Refused {
        /// The put's id.
        id: PutId,
        /// Why not.
        reason: Reason,
        /// When to try again, in milliseconds; 0 if trying again changes nothing.
        retry_after_ms: u32,
    },
    /// An envelope for the reader.
    Deliver {
        /// Its number in this mailbox, from 1.
        sequence: u64,
        /// When the relay accepted it, in milliseconds since 1970 by the relay's clock.
        received: u64,
        /// The envelope.
        envelope: Envelope,
    },
    /// Another reader of this mailbox logged in.
    Displaced,
    /// A request of the mailbox's owner is done and on stable storage.
    Done(Done),
    /// This connection is the mailbox's reader.
    Reading {
        /// The number that the next accepted envelope will get: more than any given out so far.
        next_sequence: u64,
        /// Envelopes waiting.
        waiting: u64,
    },
    /// The relay is shutting down.
    Goodbye {
        /// When to connect again, in milliseconds.
        retry_after_ms: u32,
    },
}

/// Which request is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Done {
    /// The capability can be used.
    Allow(CapabilityHash),
    /// The capability can't be used any more.
    Revoke(CapabilityHash),
    /// The mailbox is gone.
    CloseMailbox,
}

/// Why bytes aren't a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// Longer than [`FRAME_BYTES`].
    #[error("frame of {bytes} bytes is too long")]
    TooLong {
        /// The length.
        bytes: usize,
    },
    /// No frame of this direction has this type.
    #[error("unknown frame type 0x{kind:02x}")]
    UnknownType {
        /// The type.
        kind: u8,
    },
    /// The frame ends inside a field.
    #[error("frame ends inside a field")]
    Short,
    /// Bytes are left over after the last field.
    #[error("bytes left over after the last field")]
    LeftOver,
    /// A field has a value outside its bounds.
    #[error("{field} is out of bounds")]
    OutOfBounds {
        /// The field's name in `PROTOCOL.md`.
        field: &'static str,
    },
}

impl Put {
    /// Reads a frame that lies in somebody else's buffer, if it is a `put`: only its envelope is copied, into bytes of its own.
    ///
    /// # Errors
    ///
    /// [`FrameError`]; the relay closes with [`Close::Malformed`].
    pub fn decode_borrowed(frame: &[u8]) -> Result<Option<Self>, FrameError> {
        if frame.first() != Some(&kind::PUT) {
            return Ok(None);
        }
        if frame.len() > FRAME_BYTES {
            return Err(FrameError::TooLong { bytes: frame.len() });
        }
        let rest = frame.get(1..).unwrap_or_default();
        let (id, rest) = rest.split_first_chunk().ok_or(FrameError::Short)?;
        let (mailbox, rest) = rest.split_first_chunk().ok_or(FrameError::Short)?;
        let (capability, rest) = rest.split_first_chunk().ok_or(FrameError::Short)?;
        let (ttl_seconds, envelope) = rest.split_first_chunk().ok_or(FrameError::Short)?;
        Ok(Some(Self {
            id: *id,
            mailbox: *mailbox,
            capability: Capability::from_bytes(capability),
            ttl_seconds: u32::from_be_bytes(*ttl_seconds),
            envelope: Bytes::copy_from_slice(envelope),
        }))
    }
}

impl ClientFrame {
    /// The sequence number of a frame that lies in somebody else's buffer, if it is an `ack` and whole: every second frame of a reader
    /// is one, and this takes no memory for it.
    #[must_use]
    pub fn acknowledges(frame: &[u8]) -> Option<u64> {
        match frame.split_first() {
            Some((&kind::ACK, sequence)) => sequence.try_into().ok().map(u64::from_be_bytes),
            _ => None,
        }
    }

    /// Reads a frame that a client sent.
    ///
    /// # Errors
    ///
    /// [`FrameError`]; the relay closes with [`Close::Malformed`].
    pub fn decode(bytes: Bytes) -> Result<Self, FrameError> {
        let mut fields = Fields::of(bytes)?;
        let frame = match fields.u8()? {
            kind::LOGIN => Self::Login {
                version: fields.u16()?,
                mailbox: fields.array()?,
                signature: fields.array()?,
            },
            kind::PUT => Self::Put(Put {
                id: fields.array()?,
                mailbox: fields.array()?,
                capability: Capability::from_bytes(&fields.array()?),
                ttl_seconds: fields.u32()?,
                envelope: fields.rest(),
            }),
            kind::READ => Self::Read,
            kind::ACK => Self::Ack {
                sequence: fields.u64()?,
            },
            kind::ALLOW => Self::Allow {
                capability: fields.capability()?,
                max_envelopes: bounded("max-envelopes", fields.u32()?, 0, CAPABILITY_ENVELOPES_MAX)?,
                max_bytes: bounded("max-bytes", fields.u64()?, 0, CAPABILITY_BYTES_MAX)?,
            },
            kind::REVOKE => Self::Revoke {
                capability: fields.capability()?,
            },
            kind::CLOSE_MAILBOX => Self::CloseMailbox,
            kind => return Err(FrameError::UnknownType { kind }),
        };
        fields.end(frame)
    }

    /// Writes the frame.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        match self {
            Self::Login {
                version,
                mailbox,
                signature,
            } => {
                let mut bytes = start(kind::LOGIN, 2 + 32 + 64);
                bytes.put_u16(*version);
                bytes.put_slice(mailbox);
                bytes.put_slice(signature);
                bytes.freeze()
            }
            Self::Put(put) => {
                let mut bytes = start(kind::PUT, 16 + 32 + 32 + 4 + put.envelope.len());
                bytes.put_slice(&put.id);
                bytes.put_slice(&put.mailbox);
                bytes.put_slice(put.capability.to_bytes().as_slice());
                bytes.put_u32(put.ttl_seconds);
                bytes.put_slice(&put.envelope);
                bytes.freeze()
            }
            Self::Read => start(kind::READ, 0).freeze(),
            Self::Ack { sequence } => {
                let mut bytes = start(kind::ACK, 8);
                bytes.put_u64(*sequence);
                bytes.freeze()
            }
            Self::Allow {
                capability,
                max_envelopes,
                max_bytes,
            } => {
                let mut bytes = start(kind::ALLOW, 32 + 4 + 8);
                bytes.put_slice(capability.as_bytes());
                bytes.put_u32(*max_envelopes);
                bytes.put_u64(*max_bytes);
                bytes.freeze()
            }
            Self::Revoke { capability } => {
                let mut bytes = start(kind::REVOKE, 32);
                bytes.put_slice(capability.as_bytes());
                bytes.freeze()
            }
            Self::CloseMailbox => start(kind::CLOSE_MAILBOX, 0).freeze(),
        }
    }
}

impl RelayFrame {
    /// Reads a frame that a relay sent.
    ///
    /// # Errors
    ///
    /// [`FrameError`]; the client leaves such a relay.
    pub fn decode(bytes: Bytes) -> Result<Self, FrameError> {
        let mut fields = Fields::of(bytes)?;
        let frame = match fields.u8()? {
            kind::CHALLENGE => Self::Challenge {
                version: fields.u16()?,
                nonce: fields.array()?,
            },
            kind::WELCOME => Self::Welcome {
                version: fields.u16()?,
                window_envelopes: fields.u32()?,
            },
            kind::STORED => Self::Stored {
                id: fields.array()?,
                how: known("how", Stored::from_code(fields.u8()?))?,
            },
            kind::REFUSED => Self::Refused {
                id: fields.array()?,
                reason: known("reason", Reason::from_code(fields.u8()?))?,
                retry_after_ms: fields.u32()?,
            },
            kind::DELIVER => Self::Deliver {
                sequence: bounded("sequence", fields.u64()?, 1, u64::MAX)?,
                received: bounded("received", fields.u64()?, 0, TIME_MAX)?,
                envelope: known("envelope", Envelope::from_bytes(fields.rest()).ok())?,
            },
            kind::DISPLACED => Self::Displaced,
            kind::DONE => Self::Done(done(fields.u8()?, fields.capability()?)?),
            kind::READING => Self::Reading {
                next_sequence: bounded("next-sequence", fields.u64()?, 1, u64::MAX)?,
                waiting: fields.u64()?,
            },
            kind::GOODBYE => Self::Goodbye {
                retry_after_ms: fields.u32()?,
            },
            kind => return Err(FrameError::UnknownType { kind }),
        };
        fields.end(frame)
    }

    /// Writes the frame.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let envelope = self.envelope().map_or(&[][..], |envelope| envelope.as_bytes());
        let mut bytes = BytesMut::with_capacity(Self::HEAD_BYTES + envelope.len());
        self.encode_head(&mut bytes);
        bytes.put_slice(envelope);
        bytes.freeze()
    }

    /// Longest head of any frame, in bytes: a challenge's and a done's.
    pub const HEAD_BYTES: usize = 1 + 2 + 32;

    /// The envelope that stands behind the head, if the frame carries one: for whoever writes both without copying it.
    #[must_use]
    pub fn envelope(&self) -> Option<&Envelope> {
        match self {
            Self::Deliver { envelope, .. } => Some(envelope),
            _ => None,
        }
    }

    /// Writes all but the envelope: at most [`RelayFrame::HEAD_BYTES`].
    pub fn encode_head(&self, bytes: &mut impl BufMut) {
        match self {
            Self::Challenge { version, nonce } => {
                bytes.put_u8(kind::CHALLENGE);
                bytes.put_u16(*version);
                bytes.put_slice(nonce);
            }
            Self::Welcome {
                version,
                window_envelopes,
            } => {
                bytes.put_u8(kind::WELCOME);
                bytes.put_u16(*version);
                bytes.put_u32(*window_envelopes);
            }
            Self::Stored { id, how } => {
                bytes.put_u8(kind::STORED);
                bytes.put_slice(id);
                bytes.put_u8(how.code());
            }
            Self::Refused {
                id,
                reason,
                retry_after_ms,
            } => {
                bytes.put_u8(kind::REFUSED);
                bytes.put_slice(id);
                bytes.put_u8(reason.code());
                bytes.put_u32(*retry_after_ms);
            }
            Self::Deliver { sequence, received, .. } => {
                bytes.put_u8(kind::DELIVER);
                bytes.put_u64(*sequence);
                bytes.put_u64(*received);
            }
            Self::Displaced => bytes.put_u8(kind::DISPLACED),
            Self::Done(done) => {
                let (request, capability) = match done {
                    Done::Allow(capability) => (kind::ALLOW, *capability.as_bytes()),
                    Done::Revoke(capability) => (kind::REVOKE, *capability.as_bytes()),
                    Done::CloseMailbox => (kind::CLOSE_MAILBOX, [0; 32]),
                };
                bytes.put_u8(kind::DONE);
                bytes.put_u8(request);
                bytes.put_slice(&capability);
            }
            Self::Reading { next_sequence, waiting } => {
                bytes.put_u8(kind::READING);
                bytes.put_u64(*next_sequence);
                bytes.put_u64(*waiting);
            }
            Self::Goodbye { retry_after_ms } => {
                bytes.put_u8(kind::GOODBYE);
                bytes.put_u32(*retry_after_ms);
            }
        }
    }
}

fn start(kind: u8, fields: usize) -> BytesMut {
    let mut bytes = BytesMut::with_capacity(1 + fields);
    bytes.put_u8(kind);
    bytes
}

fn done(request: u8, capability: CapabilityHash) -> Result<Done, FrameError> {
    match request {
        kind::ALLOW => Ok(Done::Allow(capability)),
        kind::REVOKE => Ok(Done::Revoke(capability)),
        kind::CLOSE_MAILBOX if capability.as_bytes() == &[0; 32] => Ok(Done::CloseMailbox),
        kind::CLOSE_MAILBOX => Err(FrameError::OutOfBounds {
            field: "capability-hash",
        }),
        _ => Err(FrameError::OutOfBounds { field: "request" }),
    }
}

fn bounded<N: PartialOrd>(field: &'static str, value: N, min: N, max: N) -> Result<N, FrameError> {
    if min <= value && value <= max {
        Ok(value)
    } else {
        Err(FrameError::OutOfBounds { field })
    }
}

fn known<T>(field: &'static str, value: Option<T>) -> Result<T, FrameError> {
    value.ok_or(FrameError::OutOfBounds { field })
}

/// The fields of a frame, taken from the front.
struct Fields {
    bytes: Bytes,
    /// How much of it is taken: splitting it for every field would cost more than all else.
    taken: usize,
}

impl Fields {
    fn of(bytes: Bytes) -> Result<Self, FrameError> {
        if bytes.len() > FRAME_BYTES {
            return Err(FrameError::TooLong { bytes: bytes.len() });
        }
        Ok(Self { bytes, taken: 0 })
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], FrameError> {
        let rest = self.bytes.get(self.taken..).unwrap_or_default();
        let array = *rest.first_chunk().ok_or(FrameError::Short)?;
        self.taken += N;
        Ok(array)
    }

    fn u8(&mut self) -> Result<u8, FrameError> {
        self.array().map(u8::from_be_bytes)
    }

    fn u16(&mut self) -> Result<u16, FrameError> {
        self.array().map(u16::from_be_bytes)
    }

    fn u32(&mut self) -> Result<u32, FrameError> {
        self.array().map(u32::from_be_bytes)
    }

    fn u64(&mut self) -> Result<u64, FrameError> {
        self.array().map(u64::from_be_bytes)
    }

    fn capability(&mut self) -> Result<CapabilityHash, FrameError> {
        self.array().map(CapabilityHash::from_bytes)
    }

    /// What is left, a slice of the frame's own bytes.
    fn rest(&mut self) -> Bytes {
        let rest = self.bytes.split_off(self.taken);
        self.taken = self.bytes.len();
        rest
    }

    fn end<T>(self, frame: T) -> Result<T, FrameError> {
        if self.taken == self.bytes.len() {
            Ok(frame)
        } else {
            Err(FrameError::LeftOver)
        }
    }
}
