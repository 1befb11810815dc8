//! Where orders are decided: every mailbox, who reads it, which puts are known, and what the next batch holds
//! (`PROTOCOL.md`, section 5).
//!
//! Nothing here waits: questions to the store and batches for it are left for the office to send. An envelope goes to a
//! live reader at once; its sender hears `stored` only when it is flushed, or acknowledged by that reader.

use std::collections::hash_map::RandomState;
use std::collections::{BTreeSet, HashMap};
use std::hash::BuildHasher;

use bytes::Bytes;
use wire::envelope::Envelope;
use wire::frame::{PutId, Reason, RelayFrame, Stored};
use wire::mailbox::CapabilityHash;

mod delivery;
mod flush;
mod owner;
mod sweep;
#[cfg(test)]
mod tests;

use crate::Clock;
use crate::clerks::Question;
use crate::health::Health;
use crate::mailbox::{Mailbox, Waiting};
use crate::memory::Charge;
use crate::metrics::measure;
use crate::office::{Order, OwnerOrder, PutOrder};
use crate::outbox::Outbox;
use crate::store::{Batch, EnvelopeRow, KnownPut, PutRow, Record};

/// Most puts accepted and not yet flushed: they are in memory.
const UNFLUSHED: usize = 8 * 1024;

/// Most bytes of them.
const UNFLUSHED_BYTES: usize = 64 * 1024 * 1024;

/// As many puts are written without waiting for more: beyond, a larger group is hardly cheaper.
const GROUP: usize = 1024;

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
const WAITING_COST: usize = 160;
const PUT_COST: usize = 40;
const MAILBOX_COST: usize = 512;
const CAPABILITY_COST: usize = 128;

/// The live reader of a mailbox.
struct Seat {
    connection: u64,
    outbox: Outbox,
    /// The store was asked for bodies.
    asked: bool,
    /// What the store answered and isn't delivered yet.
    bodies: HashMap<i64, Bytes>,
}

/// A put that isn't flushed.
struct Unflushed {
    digest: [u8; 32],
    mailbox: [u8; 32],
    sequence: u64,
    /// Who hears `stored`: the first sender, and those who repeated it meanwhile.
    senders: Vec<Outbox>,
    acknowledged: bool,
    /// Which batch holds it, and where.
    batch: u64,
    index: usize,
}

/// The body of an envelope that isn't flushed.
struct Unwritten {
    put: (i64, PutId),
    body: Bytes,
}

/// See the module.
pub(crate) struct Desk {
    bounds: Bounds,
    clock: Clock,
    health: Health,
    /// What all of this takes in memory.
    charge: Charge,
    latest: u64,
    mailboxes: HashMap<[u8; 32], Mailbox>,
    keys: HashMap<i64, [u8; 32]>,
    seats: HashMap<[u8; 32], Seat>,
    /// (expires, mailbox, sequence) of all that waits.
    expiries: BTreeSet<(u64, i64, u64)>,
    /// By mailbox: a fingerprint of each put remembered and its expiry. What it names is looked up in the store.
    known: HashMap<i64, HashMap<u64, u64>>,
    fingerprint: RandomState,
    known_count: usize,
    capability_count: usize,
    waiting_bytes: u64,
    unflushed: HashMap<(i64, PutId), Unflushed>,
    unwritten: HashMap<i64, Unwritten>,
    unwritten_bytes: usize,
    batch: Batch,
    batch_number: u64,
    /// Somebody waits for the batch, and how many puts it had at the last look.
    urgent: bool,
    looked_at: usize,
    /// What is said when the batch that gathers is flushed…
    answers: Vec<(Outbox, RelayFrame)>,
    /// …and when the one being written is.
    answers_in_flight: Vec<(Outbox, RelayFrame)>,
    next_number: i64,
    next_mailbox: i64,
    next_capability: i64,
    sweeping: bool,
    sweeps: u64,
    /// The store took nothing the last time.
    failing: bool,
    /// For the office to send.
    pub(crate) questions: Vec<Question>,
}

impl Desk {
    pub(crate) fn new(bounds: Bounds, clock: Clock, health: Health) -> Self {
        Self {
            bounds,
            clock,
            charge: health.memory.charge(0),
            health,
            latest: 0,
            mailboxes: HashMap::new(),
            keys: HashMap::new(),
            seats: HashMap::new(),
            expiries: BTreeSet::new(),
            known: HashMap::new(),
            fingerprint: RandomState::new(),
            known_count: 0,
            capability_count: 0,
            waiting_bytes: 0,
            unflushed: HashMap::new(),
            unwritten: HashMap::new(),
            unwritten_bytes: 0,
            batch: Batch::default(),
            batch_number: 0,
            urgent: false,
            looked_at: 0,
            answers: Vec::new(),
            answers_in_flight: Vec::new(),
            next_number: 1,
            next_mailbox: 1,
            next_capability: 1,
            sweeping: false,
            sweeps: 0,
            failing: false,
            questions: Vec::new(),
        }
    }

    /// Takes what the store holds, at the start.
    pub(crate) fn load(&mut self, record: Record) {
        match record {
            Record::Mailbox {
                number,
                key,
                next_sequence,
                closed,
                seen,
            } => {
                self.next_mailbox = self.next_mailbox.max(number + 1);
                self.keys.insert(number, key);
                let mut mailbox = Mailbox::new(number, next_sequence, closed);
                mailbox.seen = if seen == 0 { self.now() } else { seen };
                self.mailboxes.insert(key, mailbox);
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
                if let Some((_, mailbox)) = self.by_number(mailbox) {
                    let hash = CapabilityHash::from_bytes(hash);
                    mailbox.allow(hash, number, max_envelopes, max_bytes);
                }
            }
            Record::Envelope {
                mailbox: owner,
                number,
                sequence,
                capability,
                received,
                expires,
                bytes,
            } => {
                self.next_number = self.next_number.max(number + 1);
                if let Some((_, mailbox)) = self.by_number(owner) {
                    mailbox.push(Waiting {
                        number,
                        sequence,
                        capability,
                        received,
                        expires,
                        bytes,
                    });
                    self.expiries.insert((expires, owner, sequence));
                    self.waiting_bytes += u64::from(bytes);
                }
            }
            Record::Put { mailbox, id, expires } => self.remember(mailbox, &id, expires),
        }
    }

    /// Takes an order.
    pub(crate) fn take(&mut self, order: Order) {
        match order {
            Order::Put(order) => self.put(order, None),
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

    /// Decides a put; `looked_up` is what the store remembers of it, if it was asked.
    pub(crate) fn put(&mut self, order: Box<PutOrder>, looked_up: Option<Option<KnownPut>>) {
        let now = self.now();
        match self.judge(&order, looked_up, now) {
            Verdict::Accept => self.accept(*order, now),
            Verdict::Ask { number } => self.questions.push(Question::Put { number, order }),
            Verdict::Wait => {}
            Verdict::Stored(how) => order.outbox.answer(RelayFrame::Stored { id: order.id, how }),
            Verdict::Refuse(reason, retry_after_ms) => {
                refuse(&order.outbox, order.id, reason, retry_after_ms);
            }
        }
    }

    fn judge(&mut self, order: &PutOrder, looked_up: Option<Option<KnownPut>>, now: u64) -> Verdict {
        // One answer for an unknown mailbox and for an unknown capability, before anything that depends on the mailbox.
        let Some(mailbox) = self.mailboxes.get(&order.mailbox) else {
            return Verdict::Refuse(Reason::NotAllowed, 0);
        };
        if mailbox.capability(&order.capability).is_none() {
            return Verdict::Refuse(Reason::NotAllowed, 0);
        }
        let number = mailbox.number;
        if let Some(unflushed) = self.unflushed.get_mut(&(number, order.id)) {
            if unflushed.digest != order.digest {
                return Verdict::Refuse(Reason::IdUsed, 0);
            }
            if unflushed.acknowledged {
                return Verdict::Stored(Stored::Acknowledged);
            }
            unflushed.senders.push(order.outbox.clone());
            return Verdict::Wait;
        }
        match looked_up {
            Some(Some(known)) if known.expires > now => {
                return if known.digest == order.digest {
                    Verdict::Stored(known.how)
                } else {
                    Verdict::Refuse(Reason::IdUsed, 0)
                };
            }
            None if self.knows(number, &order.id, now) => return Verdict::Ask { number },
            _ => {}
        }
        let bytes = length(&order.envelope);
        if let Err(reason) = mailbox.admits(&order.capability, bytes) {
            return Verdict::Refuse(reason, QUOTA_MS);
        }
        if self.failing {
            return Verdict::Refuse(Reason::NotStored, NEXT_SWEEP_MS);
        }
        if self.unflushed.len() >= UNFLUSHED || self.unwritten_bytes >= UNFLUSHED_BYTES {
            return Verdict::Refuse(Reason::Busy, SOON_MS);
        }
        if self.waiting_bytes + u64::from(bytes) > self.bounds.bytes || self.known_count >= self.bounds.puts {
            return Verdict::Refuse(Reason::Busy, LATER_MS);
        }
        Verdict::Accept
    }

    fn accept(&mut self, order: PutOrder, now: u64) {
        let Some(mailbox) = self.mailboxes.get_mut(&order.mailbox) else {
            return;
        };
        let Some(capability) = mailbox.capability(&order.capability).map(|quota| quota.number) else {
            return;
        };
        let (owner, sequence, number) = (mailbox.number, mailbox.take_sequence(), self.next_number);
        self.next_number += 1;
        self.health.metrics.accepted.inc();
        let expires = now + u64::from(order.ttl_seconds) * 1000;
        let bytes = length(&order.envelope);
        mailbox.push(Waiting {
            number,
            sequence,
            capability,
            received: now,
            expires,
            bytes,
        });
        if let Some(reserve) = mailbox.wants_reserve() {
            self.batch.reserved.insert(owner, reserve);
            self.urgent = true;
        }
        self.urgent |= !self.seats.contains_key(&order.mailbox) || self.batch.puts.len() >= GROUP;
        self.expiries.insert((expires, owner, sequence));
        self.waiting_bytes += u64::from(bytes);
        self.remember(owner, &order.id, expires);
        // A copy for the queue: the frame's own bytes may pin a whole read buffer.
        let body = Bytes::copy_from_slice(order.envelope.as_bytes());
        self.unwritten_bytes += body.len();
        self.unwritten.insert(
            number,
            Unwritten {
                put: (owner, order.id),
                body: body.clone(),
            },
        );
        self.unflushed.insert(
            (owner, order.id),
            Unflushed {
                digest: order.digest,
                mailbox: order.mailbox,
                sequence,
                senders: vec![order.outbox],
                acknowledged: false,
                batch: self.batch_number,
                index: self.batch.puts.len(),
            },
        );
        self.batch.puts.push(Some(PutRow {
            mailbox: owner,
            id: order.id,
            digest: order.digest,
            expires,
            envelope: Some(EnvelopeRow {
                number,
                sequence,
                capability,
                received: now,
                body,
            }),
        }));
        self.pump(&order.mailbox);
    }

    fn knows(&self, mailbox: i64, id: &PutId, now: u64) -> bool {
        let print = self.fingerprint.hash_one(id);
        self.known
            .get(&mailbox)
            .and_then(|known| known.get(&print))
            .is_some_and(|expires| *expires > now)
    }

    fn remember(&mut self, mailbox: i64, id: &PutId, expires: u64) {
        let print = self.fingerprint.hash_one(id);
        let known = self.known.entry(mailbox).or_default();
        if known.insert(print, expires).is_none() {
            self.known_count += 1;
        }
    }

    fn forget_put(&mut self, mailbox: i64, id: &PutId) {
        let print = self.fingerprint.hash_one(id);
        if let Some(known) = self.known.get_mut(&mailbox)
            && known.remove(&print).is_some()
        {
            self.known_count -= 1;
        }
    }

    /// Says how much there is, for the operator and for the ceiling on memory.
    pub(crate) fn report(&mut self) {
        self.charge.set(
            self.unwritten_bytes
                + self.expiries.len() * WAITING_COST
                + self.known_count * PUT_COST
                + self.mailboxes.len() * MAILBOX_COST
                + self.capability_count * CAPABILITY_COST,
        );
        let metrics = &self.health.metrics;
        metrics.waiting_envelopes.set(measure(self.expiries.len()));
        metrics
            .waiting_bytes
            .set(i64::try_from(self.waiting_bytes).unwrap_or(i64::MAX));
        metrics.unflushed.set(measure(self.unflushed.len()));
        metrics.mailboxes.set(measure(self.mailboxes.len()));
        metrics.readers.set(measure(self.seats.len()));
        metrics.puts_known.set(measure(self.known_count));
    }

    fn by_number(&mut self, number: i64) -> Option<([u8; 32], &mut Mailbox)> {
        let key = self.keys.get(&number)?;
        Some((*key, self.mailboxes.get_mut(key)?))
    }

    /// Never runs backwards: what has expired stays so.
    fn now(&mut self) -> u64 {
        self.latest = self.latest.max((self.clock)());
        self.latest
    }
}

enum Verdict {
    Accept,
    Ask {
        number: i64,
    },
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

fn length(envelope: &Envelope) -> u32 {
    u32::try_from(envelope.bucket()).unwrap_or(u32::MAX)
}
