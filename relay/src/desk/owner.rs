//! What the owner of a mailbox orders: reading, acknowledging, allowing, revoking, closing.

use std::collections::HashMap;

use wire::frame::{Close, Done, RelayFrame, Stored};
use wire::mailbox::CapabilityHash;

use super::{Desk, Seat};
use crate::mailbox::{Mailbox, RESERVE, Waiting};
use crate::outbox::Outbox;
use crate::store::Change;

impl Desk {
    pub(super) fn read(&mut self, key: [u8; 32], connection: u64, outbox: Outbox) {
        self.expire_mailbox(&key);
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
        max_envelopes: u32,
        max_bytes: u64,
        outbox: Outbox,
    ) {
        let known = self.mailboxes.get(&key);
        if known.is_none() && self.mailboxes.len() >= self.bounds.mailboxes {
            return outbox.close(Close::TooMany);
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
        self.next_capability = self.next_capability.max(number + 1);
        self.batch.changes.push(Change::Allow {
            mailbox: owner,
            number,
            hash: *hash.as_bytes(),
            max_envelopes,
            max_bytes,
        });
        self.answers.push((outbox, RelayFrame::Done(Done::Allow(hash))));
    }

    pub(super) fn revoke(&mut self, key: &[u8; 32], hash: CapabilityHash, outbox: Outbox) {
        let number = self.mailboxes.get_mut(key).and_then(|mailbox| mailbox.revoke(&hash));
        if let Some(number) = number {
            self.batch.changes.push(Change::Revoke { number });
        }
        // Also for an unknown one, but never before what was revoked earlier is flushed.
        self.answers.push((outbox, RelayFrame::Done(Done::Revoke(hash))));
    }

    pub(super) fn close(&mut self, key: &[u8; 32], outbox: Outbox) {
        let now = self.now();
        if let Some(mailbox) = self.mailboxes.get_mut(key).filter(|mailbox| mailbox.closed.is_none()) {
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
        self.answers.push((outbox, RelayFrame::Done(Done::CloseMailbox)));
    }
}
