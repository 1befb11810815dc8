//! What a batch brings about: `stored` and `done` when it is flushed, refusals when it isn't.

use wire::frame::{Reason, RelayFrame, Stored};

use super::{Desk, NEXT_SWEEP_MS, UNFLUSHED, UNFLUSHED_BYTES, refuse};
use crate::store::{Batch, PutRow};

impl Desk {
    /// Whether there is something for the store.
    pub(crate) fn gathers(&self) -> bool {
        let nothing = self.batch.is_empty() && self.answers.is_empty();
        !nothing && (!self.failing || self.batch.probe)
    }

    /// Whether more should be taken while a batch is being written. What is acknowledged at once isn't slowed down by its own
    /// sender, who would otherwise be told that the relay is busy.
    pub(crate) fn has_room(&self) -> bool {
        self.unflushed.len() < UNFLUSHED / 2 && self.unwritten_bytes < UNFLUSHED_BYTES / 2
    }

    /// Whether somebody waits for the batch: an owner, a sender whose reader is away, or a reader for the next numbers.
    pub(crate) fn is_urgent(&self) -> bool {
        self.urgent || self.batch.probe || !self.batch.changes.is_empty() || !self.answers.is_empty()
    }

    /// Whether an envelope that was in the batch at the last look isn't acknowledged yet.
    pub(crate) fn is_overdue(&mut self) -> bool {
        let before = std::mem::replace(&mut self.looked_at, self.batch.puts.len());
        let mut puts = self.batch.puts.iter().take(before).flatten();
        puts.any(|put| put.envelope.is_some())
    }

    /// What goes to the store next, if anything.
    pub(crate) fn next_batch(&mut self) -> Option<Box<Batch>> {
        if self.failing && !self.batch.probe {
            return None;
        }
        if self.batch.is_empty() && self.answers.is_empty() {
            return None;
        }
        self.batch_number += 1;
        (self.urgent, self.looked_at) = (false, 0);
        self.answers_in_flight = std::mem::take(&mut self.answers);
        Some(Box::new(std::mem::take(&mut self.batch)))
    }

    /// The batch is flushed.
    pub(crate) fn written(&mut self, batch: Batch) {
        self.failing = false;
        let number = self.batch_number - 1;
        // First, while the bodies are still in memory.
        for (mailbox, reserved) in batch.reserved {
            if let Some((key, mailbox)) = self.by_number(mailbox) {
                mailbox.reserve(reserved);
                self.pump(&key);
            }
        }
        for row in batch.puts.iter().flatten() {
            if let Some(envelope) = &row.envelope {
                self.forget_body(envelope.number);
            }
            let put = (row.mailbox, row.id);
            if self
                .unflushed
                .get(&put)
                .is_none_or(|unflushed| unflushed.batch != number)
            {
                continue;
            }
            if self
                .unflushed
                .get(&put)
                .is_some_and(|unflushed| !unflushed.acknowledged)
            {
                self.health.metrics.stored_flushed.inc();
            }
            let senders = self.unflushed.remove(&put).map(|unflushed| unflushed.senders);
            for sender in senders.into_iter().flatten() {
                sender.answer(RelayFrame::Stored {
                    id: row.id,
                    how: Stored::Flushed,
                });
            }
        }
        for (outbox, frame) in self.answers_in_flight.drain(..) {
            outbox.answer(frame);
        }
    }

    /// Nothing of the batch is on the disk: its puts are refused, the rest is tried again.
    pub(crate) fn refused(&mut self, batch: Batch) {
        self.failing = true;
        let number = self.batch_number - 1;
        // Nor can what gathered meanwhile be stored.
        let gathered = std::mem::take(&mut self.batch.puts);
        let rows = batch.puts.into_iter().map(|row| (number, row));
        let rows: Vec<_> = rows
            .chain(gathered.into_iter().map(|row| (self.batch_number, row)))
            .collect();
        for (number, row) in rows {
            let Some(row) = row else { continue };
            self.take_back(number, row);
        }
        let later = std::mem::replace(&mut self.batch.changes, batch.changes);
        self.batch.changes.extend(later);
        self.batch.deleted.extend(batch.deleted);
        for (mailbox, reserved) in batch.reserved {
            self.batch.reserved.entry(mailbox).or_insert(reserved);
        }
        let later = std::mem::take(&mut self.answers);
        self.answers = std::mem::take(&mut self.answers_in_flight);
        self.answers.extend(later);
    }

    fn take_back(&mut self, number: u64, mut row: PutRow) {
        let put = (row.mailbox, row.id);
        let envelope = row.envelope.take();
        if let Some(envelope) = &envelope {
            self.forget_body(envelope.number);
        }
        let index = self.batch.puts.len();
        let Some(unflushed) = self
            .unflushed
            .get_mut(&put)
            .filter(|unflushed| unflushed.batch == number)
        else {
            return;
        };
        if unflushed.acknowledged {
            // Its sender was told so: the memory of it must get there.
            unflushed.batch = self.batch_number;
            unflushed.index = index;
            self.batch.puts.push(Some(row));
            return;
        }
        let (key, sequence) = (unflushed.mailbox, unflushed.sequence);
        for sender in unflushed.senders.drain(..) {
            refuse(&sender, put.1, Reason::NotStored, NEXT_SWEEP_MS);
        }
        self.unflushed.remove(&put);
        self.forget_put(put.0, &put.1);
        if let Some(mailbox) = self.mailboxes.get_mut(&key)
            && let Some(waiting) = mailbox.remove(sequence)
        {
            self.uncount(&key, put.0, &waiting);
        }
    }

    /// The store is lost: whoever waits for `stored` hears that it isn't.
    pub(crate) fn refuse_all(&mut self) {
        for ((_, id), unflushed) in self.unflushed.drain() {
            for sender in unflushed.senders {
                refuse(&sender, id, Reason::NotStored, NEXT_SWEEP_MS);
            }
        }
    }

    /// Before a clean stop: the numbering goes on exactly where it was left.
    pub(crate) fn settle(&mut self) {
        for mailbox in self.mailboxes.values().filter(|mailbox| mailbox.is_ahead()) {
            self.batch.reserved.insert(mailbox.number, mailbox.next_sequence());
        }
    }

    pub(super) fn forget_body(&mut self, number: i64) {
        if let Some(unwritten) = self.unwritten.remove(&number) {
            self.unwritten_bytes -= unwritten.body.len();
        }
    }
}
