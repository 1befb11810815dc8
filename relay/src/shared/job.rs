//! What one node has the database do in one transaction, and what came of it.
//!
//! Deciding is deliberately not here (see `ledger`), nor is SQL (see `writer`).

use bytes::Bytes;
use wire::frame::{PutId, Reason, Stored};
use wire::mailbox::CapabilityHash;

use crate::addresses::Visitor;
use crate::outbox::Outbox;

/// A mailbox, as its owner's public key.
pub(super) type Key = [u8; 32];

/// A put that waits for the next transaction.
pub(super) struct PutJob {
    pub(super) outbox: Outbox,
    pub(super) id: PutId,
    pub(super) key: Key,
    pub(super) capability: CapabilityHash,
    pub(super) ttl_seconds: u32,
    /// What tells its envelope from another.
    pub(super) content: u64,
    /// A copy: the frame's own bytes may pin a whole read buffer.
    pub(super) body: Bytes,
}

/// One thing to be done.
pub(super) enum Job {
    Put(PutJob),
    Allow {
        key: Key,
        hash: CapabilityHash,
        max_envelopes: u32,
        max_bytes: u64,
        /// Who is to answer for the mailbox, if this makes one.
        visitor: Visitor,
        outbox: Outbox,
    },
    Revoke {
        key: Key,
        hash: CapabilityHash,
        outbox: Outbox,
    },
    Close {
        key: Key,
        outbox: Outbox,
    },
    Ack {
        key: Key,
        sequence: u64,
    },
    /// This node's connection becomes the reader.
    Claim {
        key: Key,
        connection: u64,
    },
    /// How a mailbox stands, for a reader that asks again.
    Look {
        key: Key,
        outbox: Outbox,
    },
    /// The reader is still here.
    Seen {
        key: Key,
    },
    /// The reader is gone.
    Release {
        key: Key,
        generation: i64,
    },
}

impl Job {
    /// The mailbox that it changes or needs as it is, if it does.
    pub(super) fn locks(&self) -> Option<&Key> {
        match self {
            Self::Put(put) => Some(&put.key),
            Self::Allow { key, .. }
            | Self::Revoke { key, .. }
            | Self::Close { key, .. }
            | Self::Ack { key, .. }
            | Self::Claim { key, .. }
            | Self::Seen { key } => Some(key),
            Self::Look { .. } | Self::Release { .. } => None,
        }
    }

    /// The mailbox that it puts to, if it does.
    pub(super) fn puts_to(&self) -> Option<&Key> {
        match self {
            Self::Put(put) => Some(&put.key),
            _ => None,
        }
    }

    /// The capability that it is about, if it is.
    pub(super) fn capability(&self) -> Option<(&Key, &CapabilityHash)> {
        match self {
            Self::Put(put) => Some((&put.key, &put.capability)),
            Self::Allow { key, hash, .. } | Self::Revoke { key, hash, .. } => Some((key, hash)),
            _ => None,
        }
    }
}

/// What came of a job, once its transaction is committed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Accepted.
    Accepted(Accepted),
    /// Known already.
    Stored(Stored),
    /// Not accepted, and when to try again.
    Refused(Reason, u32),
    /// An owner's request is done.
    Done,
    /// One mailbox or capability more than allowed.
    TooMany,
    /// More is acknowledged than was deleted at once.
    Partly,
    /// The connection is the reader.
    Claimed { generation: i64, status: Status },
    /// How the mailbox stands.
    Seen(Status),
}

/// An accepted put.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Accepted {
    pub(super) sequence: u64,
    pub(super) received: u64,
    /// Who reads the mailbox, as the database knew it then.
    pub(super) reader: Option<Reader>,
}

/// Who reads a mailbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Reader {
    pub(super) generation: i64,
    pub(super) node: i64,
}

/// How a mailbox stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Status {
    pub(super) next_sequence: u64,
    pub(super) waiting: u64,
    pub(super) floor: u64,
}

impl Status {
    /// Of a mailbox that doesn't exist.
    pub(super) const NONE: Self = Self {
        next_sequence: 1,
        waiting: 0,
        floor: 0,
    };
}

/// What a committed transaction brought about.
#[derive(Default)]
pub(super) struct Outcome {
    /// For each job, in order.
    pub(super) verdicts: Vec<Verdict>,
    /// Readers that were taken over, by the node that had them.
    pub(super) displaced: Vec<(i64, Key)>,
    /// How many envelopes were deleted because their readers have them.
    pub(super) acknowledged: u64,
}
