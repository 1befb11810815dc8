//! What the owner of a mailbox orders: reading, acknowledging, allowing, revoking, closing.

use std::collections::HashMap;

use tokio::time::Instant;
use wire::frame::{Close, Done, RelayFrame, Stored};
use wire::mailbox::CapabilityHash;

use super::{Desk, Seat};
use crate::addresses::Visitor;
use crate::mailbox::{Mailbox, RESERVE, Waiting};
use crate::metrics::Limit;
use crate::outbox::Outbox;
use crate::store::Change;

/// A day, in milliseconds.
const DAY_MS: u64 = 24 * 3600 * 1000;

impl Desk {
    pub(super) fn read(&mut self, key: [u8; 32], connection: u64, outbox: Outbox) {
        self.expire_mailbox(&key);
        self.saw(&key);
        let (next_sequence, waiting) = self
            .mailboxes
            .get(&key)
            .map_or((1, 0), |mailbox| (mailbox.next_sequence(), mailbox.waiting() as u64));
        outbox.answer(RelayFrame::Reading { next_sequence, waiting });
        // A reader that asks again gets nothing twice: one byte would fetch a megabyte.
        if self.seats.get(&key).is_some_and(|seat| seat.connection == connection) {
            return;
        }
        let seat = Seat {
            connection,
            outbox,
            asked: false,
            bodies: HashMap::new(),
        };
        if let Some(older) = self.seats.insert(key, seat) {
            older.outbox.displaced();
        }
        if let Some(mailbox) = self.mailboxes.get_mut(&key) {
            mailbox.rewind();
        }
        self.pump(&key);
    }

    pub(super) fn leave(&mut self, key: &[u8; 32], connection: u64) {
        if self.seats.get(key).is_some_and(|seat| seat.connection == connection) {
            self.seats.remove(key);
        }
    }

    pub(super) fn acknowledge(&mut self, key: &[u8; 32], sequence: u64) {
        let Some(mailbox) = self.mailboxes.get_mut(key) else {
            return;
        };
        let (number, gone) = (mailbox.number, mailbox.acknowledge(sequence));
        self.health.metrics.acknowledged.inc_by(gone.len() as u64);
        for waiting in gone {
            self.acknowledged(key, number, &waiting);
        }
        self.pump(key);
    }

    /// An envelope left its mailbox by its owner's word.
    fn acknowledged(&mut self, key: &[u8; 32], mailbox: i64, waiting: &Waiting) {
        self.uncount(key, mailbox, waiting);
        let Some(unwritten) = self.unwritten.get(&waiting.number) else {
            self.batch.deleted.push(waiting.number);
            return;
        };
        let put = unwritten.put;
        let Some(unflushed) = self.unflushed.get_mut(&put) else {
            return;
        };
        unflushed.acknowledged = true;
        self.health.metrics.stored_acknowledged.inc();
        for sender in unflushed.senders.drain(..) {
            sender.answer(RelayFrame::Stored {
                id: put.1,
                how: Stored::Acknowledged,
            });
        }
        if unflushed.batch == self.batch_number {
            // Not being written yet: the envelope needn't be at all, only the memory of its put.
            if let Some(Some(row)) = self.batch.puts.get_mut(unflushed.index) {
                row.envelope = None;
            }
            self.forget_body(waiting.number);
        } else {
            self.batch.deleted.push(waiting.number);
        }
    }

    pub(super) fn allow(
        &mut self,
        key: [u8; 32],
        hash: CapabilityHash,
        (max_envelopes, max_bytes): (u32, u64),
        visitor: &Visitor,
        outbox: Outbox,
    ) {
        let known = self.mailboxes.get(&key);
        if known.is_none() {
            let limit = if self.mailboxes.len() >= self.bounds.mailboxes || !visitor.opens_mailbox(Instant::now()) {
                Some(Limit::Mailboxes)
            } else {
                self.health.memory.is_full().then_some(Limit::Memory)
            };
            if let Some(limit) = limit {
                self.health.metrics.limited(limit);
                return outbox.close(Close::TooMany);
            }
        }
        let number = self.next_capability;
        let mailbox = self
            .mailboxes
            .entry(key)
            .or_insert_with(|| Mailbox::new(self.next_mailbox, 1, Some(0)));
        let owner = mailbox.number;
        if owner == self.next_mailbox {
            self.next_mailbox += 1;
            self.keys.insert(owner, key);
            // At once, so that the very first envelope needn't wait for a flush to be delivered.
            self.batch.reserved.insert(owner, 1 + RESERVE);
        }
        if mailbox.closed.take().is_some() {
            self.batch.changes.push(Change::Open {
                mailbox: owner,
                key,
                next_sequence: mailbox.next_sequence(),
            });
        }
        let Some(number) = mailbox.allow(hash, number, max_envelopes, max_bytes) else {
            return outbox.close(Close::TooMany);
        };
        if number == self.next_capability {
            self.next_capability += 1;
            self.capability_count += 1;
        }
        self.batch.changes.push(Change::Allow {
            mailbox: owner,
            number,
            hash: *hash.as_bytes(),
            max_envelopes,
            max_bytes,
        });
        self.answers.push((outbox, RelayFrame::Done(Done::Allow(hash))));
        self.saw(&key);
    }

    /// The owner is here: noted once a day, which is often enough to tell an abandoned mailbox from one in use.
    pub(super) fn saw(&mut self, key: &[u8; 32]) {
        let now = self.now();
        if let Some(mailbox) = self.mailboxes.get_mut(key)
            && now.saturating_sub(mailbox.seen) >= DAY_MS
        {
            mailbox.seen = now;
            self.batch.changes.push(Change::Seen {
                mailbox: mailbox.number,
                at: now,
            });
        }
    }

    pub(super) fn revoke(&mut self, key: &[u8; 32], hash: CapabilityHash, outbox: Outbox) {
        let number = self.mailboxes.get_mut(key).and_then(|mailbox| mailbox.revoke(&hash));
        if let Some(number) = number {
            self.capability_count -= 1;
            self.batch.changes.push(Change::Revoke { number });
        }
        // Also for an unknown one, but never before what was revoked earlier is flushed.
        self.answers.push((outbox, RelayFrame::Done(Done::Revoke(hash))));
    }

    pub(super) fn close(&mut self, key: &[u8; 32], outbox: Outbox) {
        self.close_mailbox(key);
        self.answers.push((outbox, RelayFrame::Done(Done::CloseMailbox)));
    }

    pub(super) fn close_mailbox(&mut self, key: &[u8; 32]) {
        let now = self.now();
        if let Some(mailbox) = self.mailboxes.get_mut(key).filter(|mailbox| mailbox.closed.is_none()) {
            self.capability_count -= mailbox.capabilities();
            let (number, gone) = (mailbox.number, mailbox.close(now));
            // Its owner has done with them: that is as good as acknowledged.
            for waiting in gone {
                self.acknowledged(key, number, &waiting);
            }
            self.unflushed.retain(|(owner, _), unflushed| {
                let ours = *owner == number;
                if ours
                    && unflushed.batch == self.batch_number
                    && let Some(row) = self.batch.puts.get_mut(unflushed.index)
                {
                    *row = None;
                }
                !ours
            });
            let known = self.known.remove(&number).map_or(0, |known| known.len());
            self.known_count -= known;
            self.batch.changes.push(Change::Close {
                mailbox: number,
                at: now,
            });
        }
    }
}
