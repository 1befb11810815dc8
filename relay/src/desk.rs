//! Where orders are decided: every mailbox, who reads it, which puts are known, and what the next batch holds
//! (`PROTOCOL.md`, section 5).
//!
//! Nothing here waits: whoever has an order comes to the desk, is served, and goes. An envelope goes to a live reader at once;
//! its sender hears `stored` only when it is flushed, or acknowledged by that reader.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::task::Waker;

use bytes::Bytes;
use wire::envelope::Envelope;
use wire::frame::{PutId, Reason, RelayFrame, Stored};
use wire::mailbox::CapabilityHash;

mod delivery;
mod flush;
mod keys;
mod owner;
mod sweep;
#[cfg(test)]
mod tests;

use self::keys::Keys;
use crate::Clock;
use crate::clerks::Questions;
use crate::health::Health;
use crate::known::{Known, Print, Remembered, Standing};
use crate::mailbox::{Fresh, Mailbox, Waiting};
use crate::memory::Charge;
use crate::metrics::measure;
use crate::office::{Order, OwnerOrder, PutOrder};
use crate::outbox::Outbox;
use crate::store::{Batch, Record};

/// Most puts accepted and not yet flushed: they are in memory.
const UNFLUSHED: usize = 8 * 1024;

/// Most bytes of them.
const UNFLUSHED_BYTES: usize = 64 * 1024 * 1024;

/// As many puts are written without waiting for more: beyond, a larger group is hardly cheaper.
const GROUP: usize = 1024;

/// As many acknowledged puts are written down without waiting for more.
const REMEMBERED: usize = 64 * 1024;

/// When to try again, in milliseconds: after the next flush, or after the next look at the disk, or when things changed.
const SOON_MS: u32 = 100;
const NEXT_SWEEP_MS: u32 = 1000;
const QUOTA_MS: u32 = 10_000;
const LATER_MS: u32 = 60_000;

/// What a relay keeps at most, over all mailboxes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    pub(crate) mailboxes: usize,
    pub(crate) bytes: u64,
    pub(crate) puts: usize,
    /// After how long without its owner an empty mailbox is closed, in milliseconds.
    pub(crate) abandoned_ms: u64,
}

/// About what each takes in memory, in bytes, with what the collections set aside.
const WAITING_COST: usize = 80;
const PUT_COST: usize = 42;
const MAILBOX_COST: usize = 768;
const CAPABILITY_COST: usize = 128;

/// The live reader of a mailbox.
struct Seat {
    connection: u64,
    outbox: Outbox,
    /// The store was asked for bundles.
    asked: bool,
    /// What the store answered and isn't delivered yet, in order.
    bodies: VecDeque<(u64, Bytes)>,
}

/// A place at the desk: a mailbox, its reader, or both. A reader may be there before the mailbox is.
struct Place {
    key: [u8; 32],
    mailbox: Option<Box<Mailbox>>,
    seat: Option<Seat>,
}

/// Envelopes that wait, and those of them that are neither flushed nor acknowledged, which are in memory.
#[derive(Default)]
struct Held {
    waiting: usize,
    waiting_bytes: u64,
    fresh: usize,
    fresh_bytes: usize,
}

impl Held {
    fn accept(&mut self, bytes: usize) {
        self.waiting += 1;
        self.waiting_bytes += bytes as u64;
        self.fresh += 1;
        self.fresh_bytes += bytes;
    }

    /// One waits no more.
    fn uncount(&mut self, waiting: &Waiting) {
        self.waiting -= 1;
        self.waiting_bytes -= u64::from(waiting.bytes);
    }

    /// One isn't fresh any more.
    fn settle(&mut self, fresh: &Fresh) {
        self.fresh -= 1;
        self.fresh_bytes -= fresh.body.len();
    }
}

/// See the module.
pub(crate) struct Desk {
    bounds: Bounds,
    clock: Clock,
    health: Health,
    /// What all of this takes in memory.
    charge: Charge,
    latest: u64,
    places: Vec<Option<Place>>,
    vacant: Vec<usize>,
    by_key: Keys,
    mailbox_count: usize,
    capability_count: usize,
    reader_count: usize,
    /// Which mailboxes to look through for what has expired, and when, in milliseconds.
    due: BTreeMap<u64, Vec<usize>>,
    known: Known,
    held: Held,
    /// Places with something for the next batch, and those in the one that is being written.
    listed: Vec<usize>,
    writing: Vec<usize>,
    /// What gathers for the next batch, but for the envelopes, which are in their mailboxes.
    batch: Batch,
    /// Places whose numbering the batch reserves, and those of the one that is being written.
    reserves: Vec<usize>,
    reserves_in_flight: Vec<usize>,
    /// Somebody waits for the batch.
    urgent: bool,
    /// What is said when the batch that gathers is flushed…
    answers: Vec<(Outbox, RelayFrame)>,
    /// …and when the one being written is.
    answers_in_flight: Vec<(Outbox, RelayFrame)>,
    next_bundle: i64,
    next_mailbox: i64,
    next_capability: i64,
    /// The store was asked what has expired, and whether it has more of it.
    sweeping: bool,
    forgets_more: bool,
    sweeps: u64,
    /// The store took nothing the last time.
    failing: bool,
    questions: Questions,
    /// Since the last visit.
    accepted: u64,
    delivered: u64,
    /// Whom to wake when all is decided, and whom soon.
    wakers: Vec<Waker>,
    soon: Vec<Outbox>,
}

impl Desk {
    pub(crate) fn new(bounds: Bounds, clock: Clock, health: Health, questions: Questions) -> Self {
        Self {
            bounds,
            clock,
            charge: health.memory.charge(0),
            health,
            latest: 0,
            places: Vec::new(),
            vacant: Vec::new(),
            by_key: Keys::new(),
            mailbox_count: 0,
            capability_count: 0,
            reader_count: 0,
            due: BTreeMap::new(),
            known: Known::new(),
            held: Held::default(),
            listed: Vec::new(),
            writing: Vec::new(),
            batch: Batch::default(),
            reserves: Vec::new(),
            reserves_in_flight: Vec::new(),
            urgent: false,
            answers: Vec::new(),
            answers_in_flight: Vec::new(),
            next_bundle: 1,
            next_mailbox: 1,
            next_capability: 1,
            sweeping: false,
            forgets_more: false,
            sweeps: 0,
            failing: false,
            questions,
            accepted: 0,
            delivered: 0,
            wakers: Vec::new(),
            soon: Vec::new(),
        }
    }

    /// Takes what the store holds, at the start; `numbers` finds mailboxes by their number there.
    pub(crate) fn load(&mut self, record: Record, numbers: &mut HashMap<i64, usize>) {
        match record {
            Record::Mailbox {
                number,
                key,
                next_sequence,
                acknowledged,
                closed,
                seen,
            } => {
                self.next_mailbox = self.next_mailbox.max(number + 1);
                let mut mailbox = Mailbox::new(number, next_sequence, acknowledged, closed);
                mailbox.seen = if seen == 0 { self.now() } else { seen };
                let at = self.place(key);
                self.set_mailbox(at, mailbox);
                numbers.insert(number, at);
            }
            Record::Capability {
                mailbox,
                number,
                hash,
                max_envelopes,
                max_bytes,
            } => {
                self.next_capability = self.next_capability.max(number + 1);
                self.capability_count += 1;
                if let Some(mailbox) = numbers.get(&mailbox).and_then(|at| self.mailbox(*at)) {
                    let hash = CapabilityHash::from_bytes(hash);
                    mailbox.allow(hash, number, max_envelopes, max_bytes);
                }
            }
            Record::Bundle {
                number,
                mailbox: owner,
                heads,
            } => {
                self.next_bundle = self.next_bundle.max(number + 1);
                let at = numbers.get(&owner).copied();
                let Some((at, mailbox)) = at.and_then(|at| Some((at, self.mailbox(at)?))) else {
                    return self.batch.empty.push(number);
                };
                let (first, last) = (heads.first(), heads.last());
                let ends = first.zip(last).map(|(first, last)| (first.sequence, last.sequence));
                let acknowledged = mailbox.acknowledged();
                let (mut count, mut bytes, mut soonest) = (0, 0, u64::MAX);
                for head in heads.into_iter().filter(|head| head.sequence > acknowledged) {
                    mailbox.restore(head.sequence, head.capability, head.received, head.expires, head.bytes);
                    (count, bytes) = (count + 1, bytes + u64::from(head.bytes));
                    soonest = soonest.min(head.expires);
                }
                if !ends.is_some_and(|(first, last)| mailbox.restore_bundle(number, first, last)) {
                    self.batch.empty.push(number);
                }
                self.held.waiting += count;
                self.held.waiting_bytes += bytes;
                self.look_by(at, soonest);
            }
            Record::Puts { records } => {
                for put in records {
                    let print = self.known.print(put.mailbox, &put.id);
                    let standing = match put.how {
                        Stored::Flushed => Standing::Flushed,
                        Stored::Acknowledged => Standing::Acknowledged,
                    };
                    let remembered = Remembered {
                        content: put.content,
                        expires: put.expires,
                        standing,
                    };
                    self.known.remember(print, remembered);
                }
            }
        }
    }

    /// Takes some orders, all of them at one moment.
    pub(crate) fn take(&mut self, orders: &mut Vec<Order>) {
        self.now();
        if orders.len() > 1 {
            self.look_ahead(orders);
        }
        for order in orders.drain(..) {
            self.serve(order);
        }
    }

    /// Looks at what remembering these puts will need, so that the processor waits for all of it at once.
    fn look_ahead(&mut self, orders: &mut [Order]) {
        for order in orders.iter_mut() {
            if let Order::Put(put) = order
                && let Some((_, mailbox)) = self.find(&put.mailbox)
            {
                let number = mailbox.number;
                put.sought = Some((number, self.known.print(number, &put.id)));
            }
        }
        self.known.look_ahead(orders.iter().filter_map(|order| match order {
            Order::Put(put) => put.sought.map(|(_, print)| print),
            Order::Owner { .. } => None,
        }));
    }

    fn serve(&mut self, order: Order) {
        match order {
            Order::Put(order) => self.put(order),
            Order::Owner {
                mailbox,
                connection,
                outbox,
                order,
            } => match order {
                OwnerOrder::Read => self.read(mailbox, connection, outbox),
                OwnerOrder::Ack { sequence } => self.acknowledge(&mailbox, sequence),
                OwnerOrder::Allow {
                    capability,
                    max_envelopes,
                    max_bytes,
                    visitor,
                } => {
                    let quota = (max_envelopes, max_bytes);
                    self.allow(mailbox, capability, quota, &visitor, outbox);
                }
                OwnerOrder::Revoke { capability } => self.revoke(&mailbox, capability, outbox),
                OwnerOrder::Close => self.close(&mailbox, outbox),
                OwnerOrder::Leave => self.leave(&mailbox, connection),
            },
        }
    }

    fn put(&mut self, order: PutOrder) {
        match self.judge(&order) {
            Ok(place) => self.accept(place, order),
            Err(Verdict::Wait) => {}
            Err(Verdict::Stored(how)) => order.outbox.answer(RelayFrame::Stored { id: order.id, how }),
            Err(Verdict::Refuse(reason, retry_after_ms)) => refuse(&order.outbox, order.id, reason, retry_after_ms),
        }
    }

    /// Whether a put may be accepted, and where: its mailbox's place, its capability's quota, and its name in memory.
    fn judge(&mut self, order: &PutOrder) -> Result<(usize, u16, Print), Verdict> {
        const NOT_ALLOWED: Verdict = Verdict::Refuse(Reason::NotAllowed, 0);
        // One answer for an unknown mailbox and for an unknown capability, before anything that depends on the mailbox.
        let at = self.by_key.find(&order.mailbox).ok_or(NOT_ALLOWED)?;
        let mailbox = self.places.get_mut(at).and_then(Option::as_mut);
        let mailbox = mailbox
            .and_then(|place| place.mailbox.as_deref_mut())
            .ok_or(NOT_ALLOWED)?;
        let slot = mailbox.capability(&order.capability).ok_or(NOT_ALLOWED)?;
        let sought = order.sought.filter(|(number, _)| *number == mailbox.number);
        let print = sought.map_or_else(|| self.known.print(mailbox.number, &order.id), |(_, print)| print);
        if let Some(known) = self.known.get(print).filter(|known| known.expires > self.latest) {
            if !known.is(order.content) {
                return Err(Verdict::Refuse(Reason::IdUsed, 0));
            }
            match known.standing {
                Standing::Flushed => return Err(Verdict::Stored(Stored::Flushed)),
                Standing::Acknowledged => return Err(Verdict::Stored(Stored::Acknowledged)),
                Standing::Fresh => {
                    if let Some(fresh) = mailbox.fresh(&order.id) {
                        fresh.repeated.push(order.outbox.clone());
                        return Err(Verdict::Wait);
                    }
                }
            }
        }
        let bytes = u32::try_from(order.envelope.bucket()).unwrap_or(u32::MAX);
        mailbox
            .admits(slot, bytes)
            .map_err(|reason| Verdict::Refuse(reason, QUOTA_MS))?;
        if self.failing {
            return Err(Verdict::Refuse(Reason::NotStored, NEXT_SWEEP_MS));
        }
        if self.held.fresh >= UNFLUSHED || self.held.fresh_bytes >= UNFLUSHED_BYTES {
            return Err(Verdict::Refuse(Reason::Busy, SOON_MS));
        }
        let full = self.held.waiting_bytes + u64::from(bytes) > self.bounds.bytes;
        if full || self.known.count() >= self.bounds.puts {
            return Err(Verdict::Refuse(Reason::Busy, LATER_MS));
        }
        Ok((at, slot, print))
    }

    fn accept(&mut self, (at, slot, print): (usize, u16, Print), order: PutOrder) {
        let now = self.latest;
        let expires = now + u64::from(order.ttl_seconds) * 1000;
        let body = order.envelope.into_bytes();
        let bytes = body.len();
        let fresh = Fresh {
            id: order.id,
            print,
            expires,
            content: order.content,
            body,
            sender: order.outbox,
            repeated: Vec::new(),
        };
        let Some(mailbox) = self.mailbox(at) else { return };
        mailbox.accept(slot, now, fresh);
        let number = mailbox.number;
        if let Some(reserve) = mailbox.wants_reserve() {
            if self.batch.reserved.insert(number, reserve).is_none() {
                self.reserves.push(at);
            }
            self.urgent = true;
        }
        let remembered = Remembered {
            content: order.content,
            expires,
            standing: Standing::Fresh,
        };
        self.known.remember(print, remembered);
        self.accepted += 1;
        self.held.accept(bytes);
        self.look_by(at, expires);
        self.list(at);
        if self.at(at).is_some_and(|place| place.seat.is_none()) {
            if let Some(mailbox) = self.mailbox(at) {
                mailbox.hurry = true;
            }
            self.urgent = true;
        }
        self.urgent |= self.held.fresh >= GROUP;
        self.pump(at);
    }

    /// Says how much there is, for the operator and for the ceiling on memory.
    pub(crate) fn report(&mut self) {
        self.charge.set(
            self.held.fresh_bytes
                + self.held.waiting * WAITING_COST
                + self.known.count() * PUT_COST
                + self.mailbox_count * MAILBOX_COST
                + self.capability_count * CAPABILITY_COST,
        );
        let metrics = &self.health.metrics;
        metrics.waiting_envelopes.set(measure(self.held.waiting));
        metrics
            .waiting_bytes
            .set(i64::try_from(self.held.waiting_bytes).unwrap_or(i64::MAX));
        metrics.unflushed.set(measure(self.held.fresh));
        metrics.mailboxes.set(measure(self.mailbox_count));
        metrics.readers.set(measure(self.reader_count));
        metrics.puts_known.set(measure(self.known.count()));
    }

    /// No more questions to the store, whose clerk waits for their end.
    pub(crate) fn dismiss(&mut self) {
        self.questions = tokio::sync::mpsc::unbounded_channel().0;
    }

    /// The place of this key, which is made if it isn't there.
    fn place(&mut self, key: [u8; 32]) -> usize {
        if let Some(at) = self.by_key.find(&key) {
            return at;
        }
        let place = Some(Place {
            key,
            mailbox: None,
            seat: None,
        });
        let at = match self.vacant.pop() {
            Some(at) => at,
            None => {
                self.places.push(None);
                self.places.len() - 1
            }
        };
        if let Some(vacant) = self.places.get_mut(at) {
            *vacant = place;
        }
        self.by_key.insert(key, at);
        at
    }

    /// Clears a place that nothing holds any more.
    fn clear(&mut self, at: usize) {
        let Some(place) = self.places.get_mut(at) else { return };
        if let Some(empty) = place.take_if(|place| place.mailbox.is_none() && place.seat.is_none()) {
            self.by_key.remove(&empty.key);
            self.vacant.push(at);
        }
    }

    fn at(&mut self, at: usize) -> Option<&mut Place> {
        self.places.get_mut(at)?.as_mut()
    }

    fn mailbox(&mut self, at: usize) -> Option<&mut Mailbox> {
        self.at(at)?.mailbox.as_deref_mut()
    }

    fn set_mailbox(&mut self, at: usize, mailbox: Mailbox) {
        if let Some(place) = self.at(at) {
            place.mailbox = Some(Box::new(mailbox));
            self.mailbox_count += 1;
        }
    }

    /// The mailbox of a key, and where.
    fn find(&mut self, key: &[u8; 32]) -> Option<(usize, &mut Mailbox)> {
        let at = self.by_key.find(key)?;
        Some((at, self.mailbox(at)?))
    }

    /// The mailbox has something for the next batch.
    fn list(&mut self, at: usize) {
        if let Some(mailbox) = self.mailbox(at)
            && !std::mem::replace(&mut mailbox.listed, true)
        {
            self.listed.push(at);
        }
    }

    /// Ends a visit at the desk: counts what came of it, and says whom to wake; `spare` is for those to come.
    pub(crate) fn wakers(&mut self, spare: Vec<Waker>) -> Vec<Waker> {
        let metrics = &self.health.metrics;
        for (counter, count) in [
            (&metrics.accepted, &mut self.accepted),
            (&metrics.delivered, &mut self.delivered),
        ] {
            if *count > 0 {
                counter.inc_by(std::mem::take(count));
            }
        }
        std::mem::replace(&mut self.wakers, spare)
    }

    /// Whether somebody has to be nudged, and whom to wake for that.
    pub(crate) fn waits_for_a_nudge(&self) -> bool {
        !self.soon.is_empty()
    }

    pub(crate) fn nudge(&mut self) {
        let soon = self.soon.drain(..);
        self.wakers.extend(soon.filter_map(|outbox| outbox.nudge()));
    }

    /// Never runs backwards: what has expired stays so.
    fn now(&mut self) -> u64 {
        self.latest = self.latest.max((self.clock)());
        self.latest
    }
}

/// Why a put isn't accepted anew.
enum Verdict {
    /// Answered with the first of its kind, when that is flushed.
    Wait,
    Stored(Stored),
    Refuse(Reason, u32),
}

fn refuse(outbox: &Outbox, id: PutId, reason: Reason, retry_after_ms: u32) {
    outbox.answer(RelayFrame::Refused {
        id,
        reason,
        retry_after_ms,
    });
}

fn deliver(sequence: u64, received: u64, envelope: Envelope) -> RelayFrame {
    RelayFrame::Deliver {
        sequence,
        received,
        envelope,
    }
}
