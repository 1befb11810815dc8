//! A mailbox in memory: its capabilities and their quotas, what waits in it and in which order, and how far its reader
//! has come (`PROTOCOL.md`, section 5).
//!
//! Storage, sockets and clocks are deliberately not here: everything is decided from arguments. What waits is first fresh, with
//! its bytes in memory, and then in a bundle of the store; the fresh always stand behind the stored.

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasherDefault, Hasher};

use bytes::Bytes;
use wire::frame::{PutId, Reason};
use wire::limits::{CAPABILITIES_PER_MAILBOX, WINDOW_ENVELOPES};
use wire::mailbox::CapabilityHash;

use crate::known::Print;
use crate::outbox::Outbox;

/// How many sequence numbers are set aside on stable storage at a time, so that an envelope may be delivered before it is
/// flushed: after a crash numbering goes on behind the reserve, and no number that a reader saw is given out again. Large,
/// because each time costs a flush.
pub(crate) const RESERVE: u64 = if cfg!(test) { 2048 } else { 1 << 20 };

/// Most bytes delivered and not yet acknowledged: 64 of the largest envelopes for each slow reader would be too much.
pub(crate) const WINDOW_BYTES: u64 = 1024 * 1024;

/// Room that an empty queue keeps.
const KEPT: usize = 4;

/// The leading bytes of what is a hash already. Whoever could make them meet would only harm their own mailbox.
#[derive(Default)]
struct Leading(u64);

impl Hasher for Leading {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        self.0 = bytes.first_chunk().map_or(0, |leading| u64::from_ne_bytes(*leading));
    }

    fn write_usize(&mut self, _: usize) {}
}

/// The two quotas of a capability, and what waits under it.
#[derive(Clone, Copy, Debug)]
struct Quota {
    /// Names the capability in the store.
    number: i64,
    max_envelopes: u32,
    max_bytes: u64,
    envelopes: u32,
    bytes: u64,
}

/// An envelope that waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Waiting {
    /// Its number in this mailbox.
    pub(crate) sequence: u64,
    /// When it was accepted.
    pub(crate) received: u64,
    /// From when on it isn't delivered any more.
    pub(crate) expires: u64,
    /// The number of the capability that it was put with.
    pub(crate) capability: i64,
    /// Its length.
    pub(crate) bytes: u32,
    /// Where that capability's quota is.
    slot: u16,
    /// It expired or was dropped, and only holds its place.
    gone: bool,
}

impl Waiting {
    /// Whether it only holds its place.
    pub(crate) fn is_gone(&self) -> bool {
        self.gone
    }
}

/// What is known of a waiting envelope only as long as it is neither flushed nor acknowledged.
#[derive(Debug)]
pub(crate) struct Fresh {
    pub(crate) id: PutId,
    /// Under which it is known, and until when.
    pub(crate) print: Print,
    pub(crate) expires: u64,
    pub(crate) content: u64,
    pub(crate) body: Bytes,
    /// Who hears `stored`…
    pub(crate) sender: Outbox,
    /// …and those who repeated it meanwhile.
    pub(crate) repeated: Vec<Outbox>,
}

/// Neighbours that lie together in the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Bundle {
    /// Names it in the store.
    pub(crate) number: i64,
    /// The sequence numbers of the first and of the last in it.
    pub(crate) first: u64,
    pub(crate) last: u64,
    /// How many of them still wait.
    live: u32,
}

/// What the reader can be given next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// This envelope, whose bytes are here, or in the store.
    Deliver(Waiting, Option<Bytes>),
    /// This envelope is past its ttl and was taken out.
    Expired(Waiting),
    /// Nothing: the window is full, nothing waits, or the next number isn't reserved yet.
    Nothing,
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
    /// The next look for what has expired is noted for this time; never, if the time is over all bounds.
    pub(crate) due: u64,
    /// It stands in the list of those with something for the next batch.
    pub(crate) listed: bool,
    /// What is fresh shouldn't wait for its reader's word any longer.
    pub(crate) hurry: bool,
    next_sequence: u64,
    reserved: u64,
    acknowledged: u64,
    /// The next number at the last look.
    looked_at: u64,
    capabilities: HashMap<CapabilityHash, u16, BuildHasherDefault<Leading>>,
    quotas: Vec<Option<Quota>>,
    waiting: VecDeque<Waiting>,
    /// Of the last of those waiting.
    fresh: VecDeque<Fresh>,
    /// How many of the fresh, from the first on, are being written, and in which bundles.
    writing: usize,
    pending: Vec<Bundle>,
    bundles: VecDeque<Bundle>,
    live: usize,
    /// How many of those waiting, tombs included, the reader was given or passed over.
    cursor: usize,
    in_flight: usize,
    in_flight_bytes: u64,
}

impl Mailbox {
    /// An empty mailbox whose numbering goes on at `next_sequence`, none of it reserved.
    pub(crate) fn new(number: i64, next_sequence: u64, acknowledged: u64, closed: Option<u64>) -> Self {
        Self {
            number,
            closed,
            seen: 0,
            due: u64::MAX,
            listed: false,
            hurry: false,
            next_sequence,
            reserved: next_sequence,
            acknowledged,
            looked_at: 0,
            capabilities: HashMap::default(),
            quotas: Vec::new(),
            waiting: VecDeque::new(),
            fresh: VecDeque::new(),
            writing: 0,
            pending: Vec::new(),
            bundles: VecDeque::new(),
            live: 0,
            cursor: 0,
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
        self.live
    }

    /// How many capabilities it has.
    pub(crate) fn capabilities(&self) -> usize {
        self.capabilities.len()
    }

    /// How many envelopes are on their way to the reader.
    pub(crate) fn in_flight(&self) -> usize {
        self.in_flight
    }

    /// The highest number acknowledged.
    pub(crate) fn acknowledged(&self) -> u64 {
        self.acknowledged
    }

    /// Whether the store should know how far it is acknowledged: some of what is lies in a bundle that is still needed.
    pub(crate) fn is_halfway(&self) -> bool {
        self.bundles
            .front()
            .is_some_and(|bundle| bundle.first <= self.acknowledged)
    }

    /// Whether a batch that holds some of it is being written.
    pub(crate) fn is_being_written(&self) -> bool {
        !self.pending.is_empty()
    }

    /// Takes a capability, or new quotas for a known one; `number` is for a new one. Says which number it has.
    pub(crate) fn allow(
        &mut self,
        hash: CapabilityHash,
        number: i64,
        max_envelopes: u32,
        max_bytes: u64,
    ) -> Option<i64> {
        if let Some(known) = self.capabilities.get(&hash).copied() {
            let known = self.quotas.get_mut(usize::from(known))?.as_mut()?;
            known.max_envelopes = max_envelopes;
            known.max_bytes = max_bytes;
            return Some(known.number);
        }
        if self.capabilities.len() >= CAPABILITIES_PER_MAILBOX {
            return None;
        }
        let quota = Some(Quota {
            number,
            max_envelopes,
            max_bytes,
            envelopes: 0,
            bytes: 0,
        });
        let slot = if let Some(slot) = self.quotas.iter().position(Option::is_none) {
            *self.quotas.get_mut(slot)? = quota;
            slot
        } else {
            self.quotas.push(quota);
            self.quotas.len() - 1
        };
        self.capabilities.insert(hash, u16::try_from(slot).ok()?);
        Some(number)
    }

    /// Ends a capability; what was put with it stays. Says which number it had, if it was known.
    pub(crate) fn revoke(&mut self, hash: &CapabilityHash) -> Option<i64> {
        let slot = self.capabilities.remove(hash)?;
        let quota = self.quotas.get_mut(usize::from(slot))?.take()?;
        Some(quota.number)
    }

    /// Where the capability's quota is, if it may be used.
    pub(crate) fn capability(&self, hash: &CapabilityHash) -> Option<u16> {
        self.capabilities.get(hash).copied()
    }

    /// Whether `bytes` more may wait under the capability.
    pub(crate) fn admits(&self, slot: u16, bytes: u32) -> Result<(), Reason> {
        let quota = self.quotas.get(usize::from(slot)).and_then(Option::as_ref);
        let quota = quota.ok_or(Reason::NotAllowed)?;
        if quota.envelopes >= quota.max_envelopes {
            Err(Reason::EnvelopeQuota)
        } else if quota.bytes + u64::from(bytes) > quota.max_bytes {
            Err(Reason::ByteQuota)
        } else {
            Ok(())
        }
    }

    /// Accepts an envelope: puts it behind all others and counts it. Says which number it got.
    pub(crate) fn accept(&mut self, slot: u16, received: u64, fresh: Fresh) -> u64 {
        let quota = self.quotas.get(usize::from(slot)).and_then(Option::as_ref);
        let waiting = Waiting {
            sequence: self.next_sequence,
            received,
            expires: fresh.expires,
            capability: quota.map_or(0, |quota| quota.number),
            bytes: u32::try_from(fresh.body.len()).unwrap_or(u32::MAX),
            slot,
            gone: false,
        };
        self.push(waiting);
        self.fresh.push_back(fresh);
        waiting.sequence
    }

    /// Takes an envelope of a bundle from the store, at the start and in order.
    pub(crate) fn restore(&mut self, sequence: u64, capability: i64, received: u64, expires: u64, bytes: u32) {
        let of = |quota: &Option<Quota>| quota.as_ref().is_some_and(|quota| quota.number == capability);
        // A revoked one isn't found, and then nothing is to count.
        let slot = self.quotas.iter().position(of);
        self.push(Waiting {
            sequence,
            received,
            expires,
            capability,
            bytes,
            slot: slot.and_then(|slot| u16::try_from(slot).ok()).unwrap_or(u16::MAX),
            gone: false,
        });
    }

    /// Takes a bundle from the store, at the start, after what still waits of it. Says whether anything does.
    pub(crate) fn restore_bundle(&mut self, number: i64, first: u64, last: u64) -> bool {
        let live = self.count_live(first, last);
        if live > 0 {
            self.bundles.push_back(Bundle {
                number,
                first,
                last,
                live,
            });
        }
        live > 0
    }

    fn push(&mut self, waiting: Waiting) {
        self.next_sequence = self.next_sequence.max(waiting.sequence + 1);
        if let Some(quota) = self.quota(&waiting) {
            quota.envelopes += 1;
            quota.bytes += u64::from(waiting.bytes);
        }
        self.live += 1;
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
        (self.cursor, self.in_flight, self.in_flight_bytes) = (0, 0, 0);
    }

    /// What can be delivered now. The same again until [`Mailbox::delivered`]. Numbers of bundles that nobody needs any more go to
    /// `empty`.
    pub(crate) fn next(&mut self, now: u64, empty: &mut Vec<i64>) -> Next {
        let window = usize::try_from(WINDOW_ENVELOPES).unwrap_or(usize::MAX);
        let next = loop {
            match self.waiting.get(self.cursor) {
                None => return Next::Nothing,
                Some(waiting) if waiting.gone => self.cursor += 1,
                Some(waiting) => break *waiting,
            }
        };
        if next.expires <= now {
            self.bury(self.cursor);
            if self.cursor < self.waiting.len() - self.fresh.len() {
                self.lighten(&next, empty);
            }
            return Next::Expired(next);
        }
        let full = self.in_flight >= window
            || (self.in_flight > 0 && self.in_flight_bytes + u64::from(next.bytes) > WINDOW_BYTES);
        if full || next.sequence >= self.reserved {
            return Next::Nothing;
        }
        let fresh = self.cursor.checked_sub(self.waiting.len() - self.fresh.len());
        let fresh = fresh.and_then(|index| self.fresh.get(index));
        Next::Deliver(next, fresh.map(|fresh| fresh.body.clone()))
    }

    /// The envelope that [`Mailbox::next`] named is on its way.
    pub(crate) fn delivered(&mut self) {
        if let Some(waiting) = self.waiting.get(self.cursor) {
            self.in_flight_bytes += u64::from(waiting.bytes);
            self.in_flight += 1;
            self.cursor += 1;
        }
    }

    /// The bundles that hold what the window has room for, from this number on.
    pub(crate) fn bundles_ahead(&self, from: u64) -> Vec<i64> {
        let start = self.bundles.partition_point(|bundle| bundle.last < from);
        let mut room = WINDOW_BYTES.saturating_sub(self.in_flight_bytes);
        let mut ahead = Vec::new();
        for bundle in self.bundles.range(start..) {
            if room == 0 && !ahead.is_empty() {
                break;
            }
            ahead.push(bundle.number);
            let from = self.waiting.partition_point(|waiting| waiting.sequence < bundle.first);
            let inside = self.waiting.range(from..);
            let inside = inside.take_while(|waiting| waiting.sequence <= bundle.last);
            room = room.saturating_sub(inside.map(|waiting| u64::from(waiting.bytes)).sum());
            if ahead.len() >= usize::try_from(WINDOW_ENVELOPES).unwrap_or(usize::MAX) {
                break;
            }
        }
        ahead
    }

    /// Takes out everything up to and including `sequence`, and hands over each, with what is known of it if it was fresh.
    /// Numbers of bundles that nobody needs any more go to `empty`.
    pub(crate) fn acknowledge(
        &mut self,
        sequence: u64,
        empty: &mut Vec<i64>,
        mut each: impl FnMut(&Waiting, Option<Fresh>),
    ) {
        while let Some(front) = self.waiting.front().copied().filter(|front| front.sequence <= sequence) {
            let fresh = if self.waiting.len() > self.fresh.len() {
                None
            } else {
                self.writing = self.writing.saturating_sub(1);
                self.fresh.pop_front()
            };
            self.waiting.pop_front();
            if self.cursor > 0 {
                self.cursor -= 1;
                if !front.gone {
                    self.in_flight -= 1;
                    self.in_flight_bytes -= u64::from(front.bytes);
                }
            }
            if !front.gone {
                self.uncount(&front);
            }
            self.acknowledged = self.acknowledged.max(front.sequence);
            if fresh.is_none() {
                self.lighten(&front, empty);
            }
            if !front.gone || fresh.is_some() {
                each(&front, fresh);
            }
        }
    }

    /// Gives back the room that a burst needed.
    pub(crate) fn rest(&mut self) {
        if self.fresh.is_empty() {
            self.fresh.shrink_to(KEPT);
        }
        if self.waiting.is_empty() {
            self.waiting.shrink_to(KEPT);
        }
    }

    /// Looks through some of those waiting, from `from` on, for what has expired and takes it out. Says where to go on, if there
    /// is more, and when the next of those seen expires.
    pub(crate) fn expire(
        &mut self,
        now: u64,
        from: u64,
        most: usize,
        empty: &mut Vec<i64>,
        mut each: impl FnMut(&Waiting),
    ) -> (Option<u64>, u64) {
        let start = self.waiting.partition_point(|waiting| waiting.sequence < from);
        let end = self.waiting.len().min(start + most);
        let mut soonest = u64::MAX;
        for index in start..end {
            let Some(waiting) = self.waiting.get(index).copied().filter(|waiting| !waiting.gone) else {
                continue;
            };
            if waiting.expires > now {
                soonest = soonest.min(waiting.expires);
                continue;
            }
            self.bury(index);
            if index < self.waiting.len() - self.fresh.len() {
                self.lighten(&waiting, empty);
            }
            each(&waiting);
        }
        let last = end.checked_sub(1).filter(|_| end == start + most);
        let more = last
            .and_then(|last| self.waiting.get(last))
            .map(|last| last.sequence + 1);
        self.drop_tombs(empty);
        (more, soonest)
    }

    /// Takes out what the store has lost.
    pub(crate) fn lose(&mut self, number: i64, mut each: impl FnMut(&Waiting)) {
        let Some(at) = self.bundles.iter().position(|bundle| bundle.number == number) else {
            return;
        };
        let Some(bundle) = self.bundles.remove(at) else { return };
        let start = self.waiting.partition_point(|waiting| waiting.sequence < bundle.first);
        for index in start..self.waiting.len() {
            match self.waiting.get(index).copied() {
                Some(waiting) if waiting.sequence > bundle.last => break,
                Some(waiting) if !waiting.gone => {
                    self.bury(index);
                    each(&waiting);
                }
                _ => {}
            }
        }
    }

    /// The fresh put of this id, for whoever repeats it.
    pub(crate) fn fresh(&mut self, id: &PutId) -> Option<&mut Fresh> {
        self.fresh.iter_mut().rev().find(|fresh| fresh.id == *id)
    }

    /// How many are fresh and not being written.
    pub(crate) fn unwritten(&self) -> usize {
        self.fresh.len() - self.writing
    }

    /// Whether something that was fresh at the last look still is, and isn't being written. Then it should be.
    pub(crate) fn look(&mut self) -> bool {
        let looked_at = std::mem::replace(&mut self.looked_at, self.next_sequence);
        let oldest = self.waiting.get(self.waiting.len() - self.unwritten());
        self.hurry |= oldest.is_some_and(|oldest| oldest.sequence < looked_at);
        self.hurry
    }

    /// Everything fresh goes into a batch; each is handed over in its order.
    pub(crate) fn write(&mut self, mut each: impl FnMut(&Waiting, &Fresh)) {
        let stored = self.waiting.len() - self.fresh.len();
        for (waiting, fresh) in self.waiting.range(stored..).zip(&self.fresh) {
            each(waiting, fresh);
        }
        self.writing = self.fresh.len();
        self.hurry = false;
    }

    /// In these bundles.
    pub(crate) fn write_in(&mut self, number: i64, first: u64, last: u64) {
        self.pending.push(Bundle {
            number,
            first,
            last,
            live: 0,
        });
    }

    /// The batch is flushed: hands over what is fresh no more. Numbers of bundles that nobody needs any more go to `empty`.
    pub(crate) fn written(&mut self, empty: &mut Vec<i64>, mut each: impl FnMut(Fresh)) {
        for fresh in self.fresh.drain(..self.writing) {
            each(fresh);
        }
        self.writing = 0;
        for mut bundle in std::mem::take(&mut self.pending) {
            bundle.live = self.count_live(bundle.first, bundle.last);
            if bundle.live > 0 {
                self.bundles.push_back(bundle);
            } else {
                empty.push(bundle.number);
            }
        }
        self.rest();
        self.drop_tombs(empty);
    }

    /// Nothing fresh can be stored: takes all of it back, and hands over each.
    pub(crate) fn refused(&mut self, mut each: impl FnMut(&Waiting, Fresh)) {
        let stored = self.waiting.len() - self.fresh.len();
        let as_they_were: Vec<_> = self.waiting.range(stored..).copied().collect();
        for index in stored..self.waiting.len() {
            if self.waiting.get(index).is_some_and(|waiting| !waiting.gone) {
                self.bury(index);
            }
        }
        self.waiting.truncate(stored);
        for (waiting, fresh) in as_they_were.iter().zip(self.fresh.drain(..)) {
            each(waiting, fresh);
        }
        self.cursor = self.cursor.min(stored);
        (self.writing, self.pending) = (0, Vec::new());
    }

    /// Ends every capability and takes out everything; only the numbering goes on, under another number in the store.
    pub(crate) fn close(
        &mut self,
        now: u64,
        number: i64,
        empty: &mut Vec<i64>,
        each: impl FnMut(&Waiting, Option<Fresh>),
    ) {
        self.capabilities = HashMap::default();
        self.quotas = Vec::new();
        self.closed = Some(now);
        self.acknowledge(u64::MAX, empty, each);
        self.number = number;
    }

    /// It expired or is lost: holds its place and counts no more.
    fn bury(&mut self, index: usize) {
        let Some(waiting) = self.waiting.get_mut(index) else {
            return;
        };
        waiting.gone = true;
        let waiting = *waiting;
        if index < self.cursor {
            self.in_flight -= 1;
            self.in_flight_bytes -= u64::from(waiting.bytes);
        }
        self.uncount(&waiting);
    }

    /// Tombs in front of all that waits serve nobody.
    fn drop_tombs(&mut self, empty: &mut Vec<i64>) {
        while self.waiting.len() > self.fresh.len() && self.waiting.front().is_some_and(|front| front.gone) {
            let Some(front) = self.waiting.pop_front() else { return };
            self.cursor = self.cursor.saturating_sub(1);
            while let Some(bundle) = self.bundles.front().filter(|bundle| bundle.last <= front.sequence) {
                empty.push(bundle.number);
                self.bundles.pop_front();
            }
        }
    }

    /// One less waits in the bundle of this one, which isn't fresh.
    fn lighten(&mut self, waiting: &Waiting, empty: &mut Vec<i64>) {
        let at = self.bundles.partition_point(|bundle| bundle.last < waiting.sequence);
        let Some(bundle) = self
            .bundles
            .get_mut(at)
            .filter(|bundle| bundle.first <= waiting.sequence)
        else {
            return;
        };
        if !waiting.gone {
            bundle.live = bundle.live.saturating_sub(1);
        }
        if bundle.live == 0 {
            empty.push(bundle.number);
            self.bundles.remove(at);
        }
    }

    fn count_live(&self, first: u64, last: u64) -> u32 {
        let start = self.waiting.partition_point(|waiting| waiting.sequence < first);
        let inside = self.waiting.range(start..);
        let live = inside
            .take_while(|waiting| waiting.sequence <= last)
            .filter(|waiting| !waiting.gone);
        u32::try_from(live.count()).unwrap_or(u32::MAX)
    }

    fn uncount(&mut self, waiting: &Waiting) {
        self.live -= 1;
        if let Some(quota) = self.quota(waiting) {
            quota.envelopes = quota.envelopes.saturating_sub(1);
            quota.bytes = quota.bytes.saturating_sub(u64::from(waiting.bytes));
        }
    }

    /// The quota that an envelope counts under, if its capability wasn't revoked since.
    fn quota(&mut self, waiting: &Waiting) -> Option<&mut Quota> {
        let quota = self.quotas.get_mut(usize::from(waiting.slot))?.as_mut()?;
        (quota.number == waiting.capability).then_some(quota)
    }
}

#[cfg(test)]
mod tests;
