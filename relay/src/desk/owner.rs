//! What the owner of a mailbox orders: reading, acknowledging, allowing, revoking, closing.

use std::collections::VecDeque;
use std::task::Waker;

use tokio::time::Instant;
use wire::frame::{Close, Done, RelayFrame, Stored};
use wire::mailbox::CapabilityHash;

use super::{Desk, Held, REMEMBERED, Seat};
use crate::addresses::Visitor;
use crate::known::{Known, Standing};
use crate::mailbox::{Fresh, Mailbox, RESERVE, Waiting};
use crate::metrics::Limit;
use crate::outbox::{Outbox, Soon};
use crate::store::Change;
use crate::store::rows::{PutRecord, PutsRows};

/// A day, in milliseconds.
const DAY_MS: u64 = 24 * 3600 * 1000;

impl Desk {
    pub(super) fn read(&mut self, key: [u8; 32], connection: u64, outbox: Outbox) {
        self.saw(&key);
        let at = self.place(key);
        self.expire_first(at);
        let Some(place) = self.at(at) else { return };
        let mailbox = place.mailbox.as_deref_mut();
        let (next_sequence, waiting) =
            mailbox.map_or((1, 0), |mailbox| (mailbox.next_sequence(), mailbox.waiting() as u64));
        outbox.answer(RelayFrame::Reading { next_sequence, waiting });
        // A reader that asks again gets nothing twice: one byte would fetch a megabyte.
        if place.seat.as_ref().is_some_and(|seat| seat.connection == connection) {
            return;
        }
        let seat = Seat {
            connection,
            outbox,
            asked: false,
            bodies: VecDeque::new(),
        };
        let older = place.seat.replace(seat);
        if let Some(mailbox) = &mut place.mailbox {
            mailbox.rewind();
        }
        match older {
            Some(older) => older.outbox.displaced(),
            None => self.reader_count += 1,
        }
        self.pump(at);
    }

    pub(super) fn leave(&mut self, key: &[u8; 32], connection: u64) {
        let Some(at) = self.by_key.find(key) else {
            return;
        };
        let Some(place) = self.at(at) else { return };
        if place.seat.take_if(|seat| seat.connection == connection).is_some() {
            self.reader_count -= 1;
            self.clear(at);
        }
    }

    pub(super) fn acknowledge(&mut self, key: &[u8; 32], sequence: u64) {
        let Some(at) = self.by_key.find(key) else {
            return;
        };
        let Some(place) = self.places.get_mut(at).and_then(Option::as_mut) else {
            return;
        };
        let Some(mailbox) = place.mailbox.as_deref_mut() else {
            return;
        };
        let mut left = Left {
            mailbox: mailbox.number,
            held: &mut self.held,
            known: &mut self.known,
            puts: &mut self.batch.acknowledged_puts,
            now: self.latest,
            wakers: &mut self.wakers,
            soon: &mut self.soon,
            early: 0,
        };
        let mut gone = 0;
        mailbox.acknowledge(sequence, &mut self.batch.empty, |waiting, fresh| {
            gone += 1;
            left.leaves(waiting, fresh);
        });
        let early = left.early;
        let halfway = mailbox.is_halfway();
        self.health.metrics.acknowledged.inc_by(gone);
        self.health.metrics.stored_acknowledged.inc_by(early);
        self.urgent |= self.batch.acknowledged_puts.count() >= REMEMBERED;
        if halfway {
            self.list(at);
        }
        self.pump(at);
    }

    pub(super) fn allow(
        &mut self,
        key: [u8; 32],
        hash: CapabilityHash,
        (max_envelopes, max_bytes): (u32, u64),
        visitor: &Visitor,
        outbox: Outbox,
    ) {
        let is_known = self.find(&key).is_some();
        if !is_known {
            let limit = if self.mailbox_count >= self.bounds.mailboxes || !visitor.opens_mailbox(Instant::now()) {
                Some(Limit::Mailboxes)
            } else {
                self.health.memory.is_full().then_some(Limit::Memory)
            };
            if let Some(limit) = limit {
                self.health.metrics.limited(limit);
                return outbox.close(Close::TooMany);
            }
        }
        let at = self.place(key);
        if !is_known {
            let owner = self.next_mailbox;
            self.next_mailbox += 1;
            self.set_mailbox(at, Mailbox::new(owner, 1, 0, Some(0)));
            // At once, so that the very first envelope needn't wait for a flush to be delivered.
            self.batch.reserved.insert(owner, 1 + RESERVE);
            self.reserves.push(at);
        }
        let (next, place) = (self.next_capability, self.places.get_mut(at).and_then(Option::as_mut));
        let Some(mailbox) = place.and_then(|place| place.mailbox.as_deref_mut()) else {
            return;
        };
        if mailbox.closed.take().is_some() {
            self.batch.changes.push(Change::Open {
                mailbox: mailbox.number,
                key,
                next_sequence: mailbox.next_sequence(),
            });
        }
        let Some(number) = mailbox.allow(hash, next, max_envelopes, max_bytes) else {
            return outbox.close(Close::TooMany);
        };
        self.batch.changes.push(Change::Allow {
            mailbox: mailbox.number,
            number,
            hash: *hash.as_bytes(),
            max_envelopes,
            max_bytes,
        });
        if number == next {
            self.next_capability += 1;
            self.capability_count += 1;
        }
        self.answers.push((outbox, RelayFrame::Done(Done::Allow(hash))));
        self.saw(&key);
    }

    /// The owner is here: noted once a day, which is often enough to tell an abandoned mailbox from one in use.
    pub(super) fn saw(&mut self, key: &[u8; 32]) {
        let now = self.now();
        if let Some((_, mailbox)) = self.find(key)
            && now.saturating_sub(mailbox.seen) >= DAY_MS
        {
            mailbox.seen = now;
            let mailbox = mailbox.number;
            self.batch.changes.push(Change::Seen { mailbox, at: now });
        }
    }

    pub(super) fn revoke(&mut self, key: &[u8; 32], hash: CapabilityHash, outbox: Outbox) {
        if let Some(number) = self.find(key).and_then(|(_, mailbox)| mailbox.revoke(&hash)) {
            self.capability_count -= 1;
            self.batch.changes.push(Change::Revoke { number });
        }
        // Also for an unknown one, but never before what was revoked earlier is flushed.
        self.answers.push((outbox, RelayFrame::Done(Done::Revoke(hash))));
    }

    pub(super) fn close(&mut self, key: &[u8; 32], outbox: Outbox) {
        if let Some(at) = self.by_key.find(key) {
            self.close_mailbox(at);
        }
        self.answers.push((outbox, RelayFrame::Done(Done::CloseMailbox)));
    }

    /// Closes a mailbox, if it isn't. It goes on under a new number, so that nothing that was remembered of it counts any more.
    pub(super) fn close_mailbox(&mut self, at: usize) {
        let now = self.now();
        let goes_on_as = self.next_mailbox;
        let place = self.places.get_mut(at).and_then(Option::as_mut);
        let Some(mailbox) = place.and_then(|place| place.mailbox.as_deref_mut()) else {
            return;
        };
        if mailbox.closed.is_some() {
            return;
        }
        self.next_mailbox += 1;
        self.capability_count -= mailbox.capabilities();
        let number = mailbox.number;
        let mut left = Left {
            mailbox: number,
            held: &mut self.held,
            known: &mut self.known,
            puts: &mut self.batch.acknowledged_puts,
            now: self.latest,
            wakers: &mut self.wakers,
            soon: &mut self.soon,
            early: 0,
        };
        // Its owner has done with what waits: that is as good as acknowledged.
        mailbox.close(now, goes_on_as, &mut self.batch.empty, |waiting, fresh| {
            left.leaves(waiting, fresh);
        });
        let early = left.early;
        self.health.metrics.stored_acknowledged.inc_by(early);
        if let Some(reserved) = self.batch.reserved.remove(&number) {
            self.batch.reserved.insert(goes_on_as, reserved);
        }
        self.batch.changes.push(Change::Close {
            mailbox: number,
            at: now,
            goes_on_as,
        });
    }
}

/// What envelopes touch that leave their mailbox by its owner's word.
struct Left<'a> {
    mailbox: i64,
    held: &'a mut Held,
    known: &'a mut Known,
    puts: &'a mut PutsRows,
    now: u64,
    wakers: &'a mut Vec<Waker>,
    soon: &'a mut Vec<Outbox>,
    /// How many of them weren't flushed.
    early: u64,
}

impl Left<'_> {
    fn leaves(&mut self, waiting: &Waiting, fresh: Option<Fresh>) {
        if !waiting.is_gone() {
            self.held.uncount(waiting);
        }
        if let Some(fresh) = fresh {
            self.early += 1;
            self.held.settle(&fresh);
            self.early(waiting, fresh);
        }
    }

    /// As good as flushed, and it needn't be any more, only the memory of its put. One that is just being written is written all the
    /// same.
    fn early(&mut self, waiting: &Waiting, fresh: Fresh) {
        self.known.settle(fresh.print, fresh.expires, Standing::Acknowledged);
        let put = PutRecord {
            mailbox: self.mailbox,
            id: fresh.id,
            content: fresh.content,
            expires: waiting.expires,
            how: Stored::Acknowledged,
        };
        self.puts.add(&put, self.now);
        for sender in std::iter::once(fresh.sender).chain(fresh.repeated) {
            let stored = RelayFrame::Stored {
                id: fresh.id,
                how: Stored::Acknowledged,
            };
            match sender.answer_soon(stored) {
                Soon::Wake(waker) => self.wakers.extend(waker),
                Soon::Nudge => self.soon.push(sender),
            }
        }
    }
}
