//! The memory of puts: which ids were used in which mailbox, for which content, and what their senders were told
//! (`PROTOCOL.md`, section 5). It is all in memory, so that a put costs no look at the store; the store has it for the start.
//!
//! What is written of it and when is deliberately not here (see `desk` and `store`).

use std::collections::HashMap;
use std::collections::hash_map::{Entry, RandomState};
use std::hash::{BuildHasher, BuildHasherDefault, Hasher};

use wire::frame::PutId;

/// Maps of which each grows by itself: one for all would stand still for half a second now and then to grow.
const SHARDS: usize = 1024;

/// The content of a put whose envelope nobody compared in the way of today's relays: it is taken for equal to any.
pub(crate) const UNCOMPARED: u64 = 0;

/// What tells apart two envelopes that came with the same id. It guards against a client's mistake, not against an attack:
/// whoever may put under an id deceives nobody but themselves with two envelopes that look alike here.
pub(crate) fn content(envelope: &[u8]) -> u64 {
    xxhash_rust::xxh3::xxh3_64(envelope).max(1)
}

/// How a put stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    /// Accepted, and neither flushed nor acknowledged.
    Fresh,
    Flushed,
    Acknowledged,
}

/// What is remembered of a put.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Remembered {
    pub(crate) content: u64,
    pub(crate) expires: u64,
    pub(crate) standing: Standing,
}

impl Remembered {
    /// Whether an envelope is the one that was put.
    pub(crate) fn is(&self, content: u64) -> bool {
        self.content == content || self.content == UNCOMPARED
    }
}

/// As it is kept: 16 bytes, because there are millions.
#[derive(Clone, Copy)]
struct Kept {
    content: u64,
    /// When it expires, in milliseconds, and in the two lowest bits how it stands.
    expires_and_standing: u64,
}

impl Kept {
    fn of(remembered: Remembered) -> Self {
        let standing = match remembered.standing {
            Standing::Fresh => 0,
            Standing::Flushed => 1,
            Standing::Acknowledged => 2,
        };
        Self {
            content: remembered.content,
            expires_and_standing: remembered.expires << 2 | standing,
        }
    }

    fn open(self) -> Remembered {
        let standing = match self.expires_and_standing & 3 {
            0 => Standing::Fresh,
            1 => Standing::Flushed,
            _ => Standing::Acknowledged,
        };
        Remembered {
            content: self.content,
            expires: self.expires_and_standing >> 2,
            standing,
        }
    }
}

/// Names a put in memory: a keyed hash, so that nobody can choose ids that meet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Print(u64);

/// A print is hashed already.
#[derive(Default)]
struct Plain(u64);

impl Hasher for Plain {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, _: &[u8]) {}

    fn write_u64(&mut self, print: u64) {
        self.0 = print;
    }
}

type Shard = HashMap<u64, Kept, BuildHasherDefault<Plain>>;

/// See the module.
pub(crate) struct Known {
    shards: Vec<Shard>,
    keys: RandomState,
    count: usize,
}

impl Known {
    pub(crate) fn new() -> Self {
        Self {
            shards: (0..SHARDS).map(|_| Shard::default()).collect(),
            keys: RandomState::new(),
            count: 0,
        }
    }

    /// How many puts are remembered.
    pub(crate) fn count(&self) -> usize {
        self.count
    }

    /// Names the put of this id into the mailbox of this number.
    pub(crate) fn print(&self, mailbox: i64, id: &PutId) -> Print {
        Print(self.keys.hash_one((mailbox, id)))
    }

    #[cfg(test)]
    pub(crate) fn get(&self, print: Print) -> Option<Remembered> {
        let shard = self.shards.get(shard(print))?;
        shard.get(&print.0).copied().map(Kept::open)
    }

    pub(crate) fn remember(&mut self, print: Print, remembered: Remembered) {
        if let Some(shard) = self.shards.get_mut(shard(print))
            && shard.insert(print.0, Kept::of(remembered)).is_none()
        {
            self.count += 1;
        }
    }

    /// What is remembered of a put, and the place to remember it anew: one look for both, because most looks miss every cache.
    pub(crate) fn look(&mut self, print: Print) -> Option<(Option<Remembered>, Place<'_>)> {
        let entry = self.shards.get_mut(shard(print))?.entry(print.0);
        let known = match &entry {
            Entry::Occupied(entry) => Some(entry.get().open()),
            Entry::Vacant(_) => None,
        };
        let count = &mut self.count;
        Some((known, Place { entry, count }))
    }

    /// Notes that a put that was fresh stands differently now.
    pub(crate) fn settle(&mut self, print: Print, standing: Standing) {
        if let Some(kept) = self
            .shards
            .get_mut(shard(print))
            .and_then(|shard| shard.get_mut(&print.0))
        {
            *kept = Kept::of(Remembered {
                standing,
                ..kept.open()
            });
        }
    }

    /// Forgets a put that expires by that time; one that was put again since is remembered anew.
    pub(crate) fn forget(&mut self, print: Print, expires: u64) {
        let Some(shard) = self.shards.get_mut(shard(print)) else {
            return;
        };
        if let Entry::Occupied(entry) = shard.entry(print.0)
            && entry.get().open().expires <= expires
        {
            entry.remove();
            self.count -= 1;
        }
        // A burst's room is given back.
        if shard.len() < shard.capacity() / 8 {
            shard.shrink_to(shard.len() * 2);
        }
    }
}

/// Where a put is remembered.
pub(crate) struct Place<'a> {
    entry: Entry<'a, u64, Kept>,
    count: &'a mut usize,
}

impl Place<'_> {
    pub(crate) fn remember(self, remembered: Remembered) {
        if matches!(self.entry, Entry::Vacant(_)) {
            *self.count += 1;
        }
        self.entry.insert_entry(Kept::of(remembered));
    }
}

/// By bits that the maps themselves use least.
fn shard(print: Print) -> usize {
    usize::try_from(print.0 >> 40).unwrap_or_default() % SHARDS
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

    use super::*;

    const PUT: Remembered = Remembered {
        content: 7,
        expires: 1_000,
        standing: Standing::Fresh,
    };

    #[test]
    fn a_put_is_remembered_as_it_stands_until_it_expires() {
        let mut known = Known::new();
        let print = known.print(1, &[1; 16]);
        assert_eq!(known.get(print), None);
        known.remember(print, PUT);
        known.settle(print, Standing::Acknowledged);
        let standing = Standing::Acknowledged;
        assert_eq!(known.get(print), Some(Remembered { standing, ..PUT }));
        // Another mailbox's put of the same id is another.
        assert_eq!(known.get(known.print(2, &[1; 16])), None);
        known.forget(print, 999);
        assert_eq!(known.count(), 1);
        known.forget(print, 1_000);
        assert_eq!((known.count(), known.get(print)), (0, None));
    }

    #[test]
    fn an_envelope_is_told_from_another_unless_nobody_compared_it() {
        let (one, other) = (content(&[1; 1024]), content(&[2; 1024]));
        let remembered = Remembered { content: one, ..PUT };
        assert!(remembered.is(one) && !remembered.is(other));
        let remembered = Remembered {
            content: UNCOMPARED,
            ..PUT
        };
        assert!(remembered.is(one));
    }
}
