//! A mailbox in memory: its capabilities and their quotas, what waits in it and in which order, and how far its reader
//! has come (`PROTOCOL.md`, section 5).
//!
//! Envelopes' bytes, storage, sockets and clocks are deliberately not here: everything is decided from arguments.

use std::collections::{HashMap, VecDeque};

use wire::frame::Reason;
use wire::limits::{CAPABILITIES_PER_MAILBOX, WINDOW_ENVELOPES};
use wire::mailbox::CapabilityHash;

/// How many sequence numbers are set aside on stable storage at a time, so that an envelope may be delivered before it is
/// flushed: after a crash numbering goes on behind the reserve, and no number that a reader saw is given out again.
pub(crate) const RESERVE: u64 = 2048;

/// Most bytes delivered and not yet acknowledged: 64 of the largest envelopes for each slow reader would be too much.
pub(crate) const WINDOW_BYTES: u64 = 1024 * 1024;

/// The two quotas of a capability, and what waits under it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Quota {
    /// Names the capability in the store.
    pub(crate) number: i64,
    /// Most envelopes waiting.
    pub(crate) max_envelopes: u32,
    /// Most bytes waiting.
    pub(crate) max_bytes: u64,
    envelopes: u32,
    bytes: u64,
}

/// An envelope that waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Waiting {
    /// Its number in the store, over all mailboxes.
    pub(crate) number: i64,
    /// Its number in this mailbox.
    pub(crate) sequence: u64,
    /// The number of the capability that it was put with.
    pub(crate) capability: i64,
    /// When it was accepted.
    pub(crate) received: u64,
    /// From when on it isn't delivered any more.
    pub(crate) expires: u64,
    /// Its length.
    pub(crate) bytes: u32,
}

/// What a mailbox is; see the module.
#[derive(Debug)]
pub(crate) struct Mailbox {
    /// Names the mailbox in the store.
    pub(crate) number: i64,
    /// When it was closed, if it is.
    pub(crate) closed: Option<u64>,
    /// When its owner was last here, as the store has it.
    pub(crate) seen: u64,
    next_sequence: u64,
    reserved: u64,
    capabilities: HashMap<CapabilityHash, Quota>,
    waiting: VecDeque<Waiting>,
    in_flight: usize,
    in_flight_bytes: u64,
}

/// What the reader can be given next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// This envelope.
    Deliver(Waiting),
    /// This envelope is past its ttl and was taken out.
    Expired(Waiting),
    /// Nothing: the window is full, nothing waits, or the next number isn't reserved yet.
    Nothing,
}

impl Mailbox {
    /// An empty mailbox whose numbering goes on at `next_sequence`, none of it reserved.
    pub(crate) fn new(number: i64, next_sequence: u64, closed: Option<u64>) -> Self {
        Self {
            number,
            closed,
            seen: 0,
            next_sequence,
            reserved: next_sequence,
            capabilities: HashMap::new(),
            waiting: VecDeque::new(),
            in_flight: 0,
            in_flight_bytes: 0,
        }
    }

    /// The number that the next accepted envelope gets.
    pub(crate) fn next_sequence(&self) -> u64 {
        self.next_sequence
    }

    /// How many envelopes wait.
    pub(crate) fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// How many capabilities it has.
    pub(crate) fn capabilities(&self) -> usize {
        self.capabilities.len()
    }

    /// How many envelopes are on their way to the reader.
    pub(crate) fn in_flight(&self) -> usize {
        self.in_flight
    }

    /// Takes a capability, or new quotas for a known one; `number` is for a new one. Says which number it has.
    pub(crate) fn allow(
        &mut self,
        hash: CapabilityHash,
        number: i64,
        max_envelopes: u32,
        max_bytes: u64,
    ) -> Option<i64> {
        if let Some(known) = self.capabilities.get_mut(&hash) {
            known.max_envelopes = max_envelopes;
            known.max_bytes = max_bytes;
            return Some(known.number);
        }
        if self.capabilities.len() >= CAPABILITIES_PER_MAILBOX {
            return None;
        }
        let quota = Quota {
            number,
            max_envelopes,
            max_bytes,
            envelopes: 0,
            bytes: 0,
        };
        self.capabilities.insert(hash, quota);
        Some(number)
    }

    /// Ends a capability; what was put with it stays. Says which number it had, if it was known.
    pub(crate) fn revoke(&mut self, hash: &CapabilityHash) -> Option<i64> {
        self.capabilities.remove(hash).map(|quota| quota.number)
    }

    /// The capability, if it may be used.
    pub(crate) fn capability(&self, hash: &CapabilityHash) -> Option<&Quota> {
        self.capabilities.get(hash)
    }

    /// Whether `bytes` more may wait under the capability.
    pub(crate) fn admits(&self, hash: &CapabilityHash, bytes: u32) -> Result<(), Reason> {
        let quota = self.capabilities.get(hash).ok_or(Reason::NotAllowed)?;
        if quota.envelopes >= quota.max_envelopes {
            Err(Reason::EnvelopeQuota)
        } else if quota.bytes + u64::from(bytes) > quota.max_bytes {
            Err(Reason::ByteQuota)
        } else {
            Ok(())
        }
    }

    /// Takes the next sequence number.
    pub(crate) fn take_sequence(&mut self) -> u64 {
        let sequence = self.next_sequence;
        self.next_sequence += 1;
        sequence
    }

    /// Puts an accepted (or, at the start, a stored) envelope behind all others and counts it.
    pub(crate) fn push(&mut self, waiting: Waiting) {
        self.next_sequence = self.next_sequence.max(waiting.sequence + 1);
        self.count(waiting.capability, |quota| {
            quota.envelopes += 1;
            quota.bytes += u64::from(waiting.bytes);
        });
        self.waiting.push_back(waiting);
    }

    /// What the store should hold as first number never given out, if its reserve runs low.
    pub(crate) fn wants_reserve(&self) -> Option<u64> {
        let low = self.reserved.saturating_sub(self.next_sequence) < RESERVE / 2;
        low.then(|| self.next_sequence.saturating_add(RESERVE))
    }

    /// The store holds `reserved` now.
    pub(crate) fn reserve(&mut self, reserved: u64) {
        self.reserved = self.reserved.max(reserved);
    }

    /// Whether the store's first number never given out stands ahead of ours.
    pub(crate) fn is_ahead(&self) -> bool {
        self.reserved != self.next_sequence
    }

    /// A new reader starts at the first unacknowledged envelope.
    pub(crate) fn rewind(&mut self) {
        self.in_flight = 0;
        self.in_flight_bytes = 0;
    }

    /// What can be delivered now. The same again until [`Mailbox::delivered`].
    pub(crate) fn next(&mut self, now: u64) -> Next {
        let window = usize::try_from(WINDOW_ENVELOPES).unwrap_or(usize::MAX);
        let Some(next) = self.waiting.get(self.in_flight).copied() else {
            return Next::Nothing;
        };
        if next.expires <= now {
            self.remove_at(self.in_flight);
            return Next::Expired(next);
        }
        let full = self.in_flight >= window
            || (self.in_flight > 0 && self.in_flight_bytes + u64::from(next.bytes) > WINDOW_BYTES);
        if full || next.sequence >= self.reserved {
            return Next::Nothing;
        }
        Next::Deliver(next)
    }

    /// The envelopes that the window has room for, from the next one on.
    pub(crate) fn ahead(&self) -> impl Iterator<Item = &Waiting> {
        let window = usize::try_from(WINDOW_ENVELOPES).unwrap_or(usize::MAX);
        let mut bytes = self.in_flight_bytes;
        self.waiting
            .iter()
            .take(window)
            .skip(self.in_flight)
            .take_while(move |waiting| {
                let first = bytes == 0;
                bytes += u64::from(waiting.bytes);
                first || bytes <= WINDOW_BYTES
            })
    }

    /// The envelope that [`Mailbox::next`] named is on its way.
    pub(crate) fn delivered(&mut self) {
        if let Some(waiting) = self.waiting.get(self.in_flight) {
            self.in_flight_bytes += u64::from(waiting.bytes);
            self.in_flight += 1;
        }
    }

    /// Takes out everything up to and including `sequence`.
    pub(crate) fn acknowledge(&mut self, sequence: u64) -> Vec<Waiting> {
        let end = self.waiting.partition_point(|waiting| waiting.sequence <= sequence);
        let gone: Vec<_> = self.waiting.drain(..end).collect();
        for (index, waiting) in gone.iter().enumerate() {
            self.uncount(waiting);
            if index < self.in_flight {
                self.in_flight_bytes -= u64::from(waiting.bytes);
            }
        }
        self.in_flight = self.in_flight.saturating_sub(end);
        gone
    }

    /// Takes one envelope out: it expired, or couldn't be stored.
    pub(crate) fn remove(&mut self, sequence: u64) -> Option<Waiting> {
        let index = self
            .waiting
            .binary_search_by_key(&sequence, |waiting| waiting.sequence)
            .ok()?;
        self.remove_at(index)
    }

    /// Takes out everything past its ttl.
    pub(crate) fn expire(&mut self, now: u64) -> Vec<Waiting> {
        let gone: Vec<_> = self
            .waiting
            .iter()
            .filter(|waiting| waiting.expires <= now)
            .copied()
            .collect();
        for waiting in &gone {
            self.remove(waiting.sequence);
        }
        gone
    }

    /// Ends every capability and takes out everything; only the numbering goes on.
    pub(crate) fn close(&mut self, now: u64) -> Vec<Waiting> {
        self.capabilities.clear();
        self.closed = Some(now);
        self.acknowledge(u64::MAX)
    }

    fn remove_at(&mut self, index: usize) -> Option<Waiting> {
        let waiting = self.waiting.remove(index)?;
        self.uncount(&waiting);
        if index < self.in_flight {
            self.in_flight -= 1;
            self.in_flight_bytes -= u64::from(waiting.bytes);
        }
        Some(waiting)
    }

    fn uncount(&mut self, waiting: &Waiting) {
        self.count(waiting.capability, |quota| {
            quota.envelopes = quota.envelopes.saturating_sub(1);
            quota.bytes = quota.bytes.saturating_sub(u64::from(waiting.bytes));
        });
    }

    fn count(&mut self, capability: i64, change: impl FnOnce(&mut Quota)) {
        // At most 256 of them. A revoked one isn't found, and then nothing is to count.
        let found = self.capabilities.values_mut().find(|quota| quota.number == capability);
        if let Some(quota) = found {
            change(quota);
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

    use super::*;

    const HASH: CapabilityHash = CapabilityHash::from_bytes([1; 32]);

    fn mailbox() -> Mailbox {
        let mut mailbox = Mailbox::new(1, 1, None);
        mailbox.allow(HASH, 7, 100, 1 << 20);
        mailbox.reserve(1000);
        mailbox
    }

    fn put(mailbox: &mut Mailbox, bytes: u32, expires: u64) -> u64 {
        let sequence = mailbox.take_sequence();
        mailbox.push(Waiting {
            number: i64::try_from(sequence).unwrap(),
            sequence,
            capability: 7,
            received: 0,
            expires,
            bytes,
        });
        sequence
    }

    fn deliver_all(mailbox: &mut Mailbox) -> Vec<u64> {
        let mut sequences = Vec::new();
        while let Next::Deliver(next) = mailbox.next(0) {
            sequences.push(next.sequence);
            mailbox.delivered();
        }
        sequences
    }

    #[test]
    fn delivery_is_in_order_and_within_the_window() {
        let mut mailbox = mailbox();
        for _ in 0..70 {
            put(&mut mailbox, 1024, 10);
        }
        assert_eq!(deliver_all(&mut mailbox), (1..=64).collect::<Vec<_>>());
        assert_eq!(mailbox.acknowledge(3).len(), 3);
        assert_eq!(deliver_all(&mut mailbox), [65, 66, 67]);
        mailbox.rewind();
        assert_eq!(deliver_all(&mut mailbox)[0], 4);
    }

    #[test]
    fn large_envelopes_fill_the_window_by_their_bytes() {
        let mut mailbox = mailbox();
        mailbox.allow(HASH, 7, 100, 1 << 30);
        for _ in 0..20 {
            put(&mut mailbox, 65_536, 10);
        }
        assert_eq!(mailbox.ahead().count(), 16);
        assert_eq!(deliver_all(&mut mailbox).len(), 16);
        mailbox.acknowledge(1);
        assert_eq!(mailbox.ahead().count(), 1);
        assert_eq!(deliver_all(&mut mailbox), [17]);
    }

    #[test]
    fn a_number_is_delivered_only_when_it_is_reserved() {
        let mut mailbox = Mailbox::new(1, 1, None);
        put(&mut mailbox, 1024, 10);
        assert_eq!(mailbox.next(0), Next::Nothing);
        assert_eq!(mailbox.wants_reserve(), Some(2 + RESERVE));
        mailbox.reserve(2 + RESERVE);
        assert_eq!(deliver_all(&mut mailbox), [1]);
        assert_eq!(mailbox.wants_reserve(), None);
    }

    #[test]
    fn quotas_count_what_waits_and_give_it_back() {
        let mut mailbox = mailbox();
        mailbox.allow(HASH, 99, 2, 3000);
        put(&mut mailbox, 1024, 10);
        assert_eq!(mailbox.admits(&HASH, 2048), Err(Reason::ByteQuota));
        put(&mut mailbox, 1024, 10);
        assert_eq!(mailbox.admits(&HASH, 1024), Err(Reason::EnvelopeQuota));
        mailbox.acknowledge(1);
        assert_eq!(mailbox.admits(&HASH, 1024), Ok(()));
        mailbox.revoke(&HASH);
        assert_eq!(mailbox.admits(&HASH, 1024), Err(Reason::NotAllowed));
        assert_eq!(mailbox.waiting(), 1);
    }

    #[test]
    fn an_envelope_lives_strictly_before_its_expiry() {
        let mut mailbox = mailbox();
        put(&mut mailbox, 1024, 10);
        put(&mut mailbox, 1024, 20);
        assert!(matches!(mailbox.next(9), Next::Deliver(first) if first.sequence == 1));
        assert!(matches!(mailbox.next(10), Next::Expired(first) if first.sequence == 1));
        assert!(matches!(mailbox.next(10), Next::Deliver(second) if second.sequence == 2));
        assert_eq!(mailbox.expire(20).len(), 1);
        assert_eq!(mailbox.next_sequence(), 3);
    }

    #[test]
    fn an_envelope_in_flight_that_expires_makes_room() {
        let mut mailbox = mailbox();
        for index in 0..65 {
            put(&mut mailbox, 1024, if index == 5 { 10 } else { 20 });
        }
        assert_eq!(deliver_all(&mut mailbox).len(), 64);
        assert_eq!(mailbox.expire(10).len(), 1);
        assert_eq!(deliver_all(&mut mailbox), [65]);
    }

    #[test]
    fn the_257th_capability_is_one_too_many() {
        let mut mailbox = Mailbox::new(1, 1, None);
        for byte in 0..=255 {
            assert!(
                mailbox
                    .allow(CapabilityHash::from_bytes([byte; 32]), byte.into(), 1, 1)
                    .is_some()
            );
        }
        let mut other = [0; 32];
        other[0] = 1;
        let other = CapabilityHash::from_bytes(other);
        assert_eq!(mailbox.allow(other, 300, 1, 1), None);
        assert_eq!(mailbox.allow(CapabilityHash::from_bytes([9; 32]), 300, 5, 5), Some(9));
        mailbox.revoke(&CapabilityHash::from_bytes([9; 32]));
        assert_eq!(mailbox.allow(other, 300, 1, 1), Some(300));
    }

    #[test]
    fn a_closed_mailbox_keeps_nothing_but_its_numbering() {
        let mut mailbox = mailbox();
        put(&mut mailbox, 1024, 10);
        assert_eq!(mailbox.close(5).len(), 1);
        assert_eq!(mailbox.admits(&HASH, 1024), Err(Reason::NotAllowed));
        assert_eq!((mailbox.waiting(), mailbox.next_sequence()), (0, 2));
    }
}
