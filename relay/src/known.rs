//! The memory of puts: which ids were used in which mailbox, for which content, and what their senders were told
//! (`PROTOCOL.md`, section 5). It is all in memory, so that a put costs no look at the store; the store has it for the start.
//!
//! What is written of it and when is deliberately not here (see `desk` and `store`).

use std::collections::HashMap;
use std::collections::hash_map::{Entry, RandomState};
use std::hash::{BuildHasher, BuildHasherDefault, Hasher};

use wire::frame::PutId;

/// Logs of which each grows by itself: one for all would stand still for half a second now and then to grow.
const LOGS: usize = 1024;

/// So many are kept in front of the logs at most.
const LATELY: usize = 1024;

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

/// Puts that are fresh no more, in the order in which that came about. Nobody looks for one of them unless somebody repeats a put, or
/// the filter errs.
#[derive(Default)]
struct Log {
    prints: Vec<u64>,
    puts: Vec<Kept>,
}

impl Log {
    /// The last of this print.
    fn get(&self, print: Print) -> Option<Kept> {
        // Many are compared at a time before one after the other.
        if !self.prints.contains(&print.0) {
            return None;
        }
        let at = self.prints.iter().rposition(|known| *known == print.0)?;
        self.puts.get(at).copied()
    }

    fn push(&mut self, print: Print, kept: Kept) {
        self.prints.push(print.0);
        self.puts.push(kept);
    }

    /// Forgets those that have expired, and gives back a burst's room. Says how many there were.
    fn sweep(&mut self, now: u64) -> usize {
        let before = self.puts.len();
        let mut puts = self.puts.iter();
        self.prints
            .retain(|_| puts.next().is_some_and(|kept| kept.open().expires > now));
        self.puts.retain(|kept| kept.open().expires > now);
        if self.puts.len() < self.puts.capacity() / 4 {
            self.prints.shrink_to(self.puts.len() * 2);
            self.puts.shrink_to(self.puts.len() * 2);
        }
        before - self.puts.len()
    }
}

/// A Bloom filter in front of a log. All bits of one print are in one word, so that a look waits for one place in memory.
struct Filter(Vec<u64>);

impl Filter {
    fn over(log: &Log) -> Self {
        let mut filter = Self(vec![0; Self::words(log)]);
        for print in &log.prints {
            filter.tell(Print(*print));
        }
        filter
    }

    /// How long the filter is: eight to sixteen bits for each put that there is room for.
    fn words(log: &Log) -> usize {
        log.prints.capacity().div_ceil(8).next_power_of_two()
    }

    /// The word of a print, and its bits there.
    fn bits(&self, print: Print) -> (usize, u64) {
        let word = usize::try_from(print.0 & u64::from(u32::MAX)).unwrap_or_default();
        let bit = |shift: u32| 1 << (print.0 >> shift & 63);
        (word & self.0.len().wrapping_sub(1), bit(22) | bit(28) | bit(34))
    }

    fn may_hold(&self, print: Print) -> bool {
        let (word, bits) = self.bits(print);
        self.0.get(word).is_some_and(|word| word & bits == bits)
    }

    fn tell(&mut self, print: Print) {
        let (word, bits) = self.bits(print);
        if let Some(word) = self.0.get_mut(word) {
            *word |= bits;
        }
    }
}

/// See the module.
pub(crate) struct Known {
    fresh: HashMap<u64, Kept, BuildHasherDefault<Plain>>,
    /// Those that were fresh until lately, and the rest in many logs, of which each grows and is swept by itself. They go there many
    /// at a time: so the processor waits for the memory of several at once.
    lately: Log,
    logs: Vec<Log>,
    /// Over each of those, and what of the others will be in it.
    filters: Vec<Filter>,
    /// How many are in the logs, and which is swept next.
    logged: usize,
    swept: usize,
    keys: RandomState,
}

impl Known {
    pub(crate) fn new() -> Self {
        let logs: Vec<_> = (0..LOGS).map(|_| Log::default()).collect();
        Self {
            fresh: HashMap::default(),
            lately: Log::default(),
            filters: logs.iter().map(Filter::over).collect(),
            logs,
            logged: 0,
            swept: 0,
            keys: RandomState::new(),
        }
    }

    /// How many puts are remembered, some of them a while longer than they have to be.
    pub(crate) fn count(&self) -> usize {
        self.fresh.len() + self.lately.puts.len() + self.logged
    }

    /// Names the put of this id into the mailbox of this number.
    pub(crate) fn print(&self, mailbox: i64, id: &PutId) -> Print {
        Print(self.keys.hash_one((mailbox, id)))
    }

    /// What is remembered of a put.
    pub(crate) fn get(&self, print: Print) -> Option<Remembered> {
        let kept = match self.fresh.get(&print.0) {
            Some(fresh) => *fresh,
            None if !self.may_be_settled(print) => return None,
            None => self
                .lately
                .get(print)
                .or_else(|| self.logs.get(log(print))?.get(print))?,
        };
        Some(kept.open())
    }

    /// Whether it is worth looking among those that aren't fresh.
    fn may_be_settled(&self, print: Print) -> bool {
        let filter = self.filters.get(log(print));
        filter.is_some_and(|filter| filter.may_hold(print))
    }

    /// Has the filters at hand for these.
    pub(crate) fn look_ahead(&self, prints: impl Iterator<Item = Print>) {
        // Else nothing of it would be done.
        std::hint::black_box(prints.filter(|print| self.may_be_settled(*print)).count());
    }

    /// Remembers a put, or remembers it anew.
    pub(crate) fn remember(&mut self, print: Print, remembered: Remembered) {
        // Now, because it was looked at just before.
        if let Some(filter) = self.filters.get_mut(log(print)) {
            filter.tell(print);
        }
        let kept = Kept::of(remembered);
        if remembered.standing == Standing::Fresh {
            self.fresh.insert(print.0, kept);
        } else {
            self.settled(print, kept);
        }
    }

    fn settled(&mut self, print: Print, kept: Kept) {
        self.lately.push(print, kept);
        if self.lately.puts.len() >= LATELY {
            self.put_away();
        }
    }

    /// Notes that a put that was fresh, and expires then, stands differently now.
    pub(crate) fn settle(&mut self, print: Print, expires: u64, standing: Standing) {
        if let Some(fresh) = self.take_fresh(print, expires) {
            let settled = Remembered { standing, ..fresh };
            self.settled(print, Kept::of(settled));
        }
    }

    /// A fresh put wasn't taken after all.
    pub(crate) fn forget(&mut self, print: Print, expires: u64) {
        self.take_fresh(print, expires);
    }

    /// Not another that was put under the same id when this one had expired.
    fn take_fresh(&mut self, print: Print, expires: u64) -> Option<Remembered> {
        match self.fresh.entry(print.0) {
            Entry::Occupied(entry) if entry.get().open().expires == expires => Some(entry.remove().open()),
            _ => None,
        }
    }

    /// Forgets some of what has expired: each call looks through the next of many parts.
    pub(crate) fn sweep(&mut self, now: u64) {
        self.put_away();
        let gone = self.logs.get_mut(self.swept).map_or(0, |log| log.sweep(now));
        if gone > 0 {
            self.logged -= gone;
            self.filter_anew(self.swept);
        }
        self.swept = (self.swept + 1) % LOGS;
    }

    fn put_away(&mut self) {
        let mut lately = std::mem::take(&mut self.lately);
        self.logged += lately.puts.len();
        let mut grown = Vec::new();
        for (print, kept) in lately.prints.drain(..).zip(lately.puts.drain(..)) {
            let at = log(Print(print));
            if let Some(log) = self.logs.get_mut(at) {
                let is_full = log.prints.len() == log.prints.capacity();
                log.push(Print(print), kept);
                if is_full {
                    grown.push(at);
                }
            }
        }
        self.lately = lately;
        grown.into_iter().for_each(|at| self.filter_anew(at));
    }

    fn filter_anew(&mut self, at: usize) {
        let (Some(over), Some(filter)) = (self.logs.get(at), self.filters.get_mut(at)) else {
            return;
        };
        *filter = Filter::over(over);
        let others = self.fresh.keys().chain(&self.lately.prints).map(|print| Print(*print));
        for print in others.filter(|print| log(*print) == at) {
            filter.tell(print);
        }
    }
}

/// By bits that the filter doesn't use.
fn log(print: Print) -> usize {
    usize::try_from(print.0 >> 40).unwrap_or_default() % LOGS
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
        known.settle(print, PUT.expires, Standing::Acknowledged);
        let standing = Standing::Acknowledged;
        assert_eq!(known.get(print), Some(Remembered { standing, ..PUT }));
        // Another mailbox's put of the same id is another.
        assert_eq!(known.get(known.print(2, &[1; 16])), None);
        sweep(&mut known, 999);
        assert_eq!(known.count(), 1);
        sweep(&mut known, 1_000);
        assert_eq!((known.count(), known.get(print)), (0, None));
    }

    #[test]
    fn one_that_was_not_taken_is_forgotten() {
        let mut known = Known::new();
        let print = known.print(1, &[1; 16]);
        known.remember(print, PUT);
        known.forget(print, 999);
        assert_eq!(known.get(print), Some(PUT));
        known.forget(print, PUT.expires);
        assert_eq!((known.count(), known.get(print)), (0, None));
    }

    fn sweep(known: &mut Known, now: u64) {
        (0..LOGS).for_each(|_| known.sweep(now));
    }

    const MANY: u32 = 20_000;

    fn many(known: &Known) -> Vec<Print> {
        let id = |number: u32| u128::from(number).to_be_bytes();
        (0..MANY).map(|number| known.print(1, &id(number))).collect()
    }

    const FLUSHED: Remembered = Remembered {
        standing: Standing::Flushed,
        ..PUT
    };

    #[test]
    fn of_many_each_is_remembered_and_forgotten_in_its_time() {
        let mut known = Known::new();
        let prints = many(&known);
        for (print, expires) in prints.iter().zip(1..) {
            assert_eq!(known.get(*print), None);
            known.remember(*print, Remembered { expires, ..PUT });
            known.settle(*print, expires, Standing::Flushed);
        }
        assert_eq!(known.count(), prints.len());
        sweep(&mut known, 15_000);
        for (print, expires) in prints.iter().zip(1..) {
            let remembered = Remembered { expires, ..FLUSHED };
            assert_eq!(known.get(*print), (expires > 15_000).then_some(remembered));
        }
        assert_eq!(known.count(), 5_000);
        let room: usize = known.logs.iter().map(|log| log.prints.capacity()).sum();
        assert!(room < prints.len(), "a burst's room is given back: {room}");
    }

    #[test]
    fn one_that_was_fresh_all_the_while_is_remembered_when_it_settles() {
        let mut known = Known::new();
        let prints = many(&known);
        let (slow, others) = prints.split_at(100);
        slow.iter().for_each(|print| known.remember(*print, PUT));
        others.iter().for_each(|print| known.remember(*print, FLUSHED));
        sweep(&mut known, 0);
        for print in slow {
            known.settle(*print, PUT.expires, Standing::Flushed);
            assert_eq!(known.get(*print), Some(FLUSHED));
        }
    }

    #[test]
    fn one_put_again_after_it_expired_is_known_as_it_was_put_last() {
        let mut known = Known::new();
        let prints = many(&known);
        prints.iter().for_each(|print| known.remember(*print, FLUSHED));
        let again = Remembered {
            expires: 2_000,
            content: 8,
            ..FLUSHED
        };
        known.remember(prints[0], again);
        assert_eq!(known.get(prints[0]), Some(again));
        sweep(&mut known, PUT.expires);
        assert_eq!((known.get(prints[0]), known.count()), (Some(again), 1));
    }

    #[test]
    fn nearly_every_new_put_is_told_from_the_known_by_the_filter() {
        let mut known = Known::new();
        let prints = many(&known);
        let (old, new) = prints.split_at(10_000);
        old.iter().for_each(|print| known.remember(*print, FLUSHED));
        let may_be = |print: &&Print| known.may_be_settled(**print);
        assert_eq!(old.iter().filter(may_be).count(), old.len());
        let errors = new.iter().filter(may_be).count();
        assert!(errors < new.len() / 20, "{errors} of {}", new.len());
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
