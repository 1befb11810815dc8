//! What a batch holds and what it brings about: `stored` and `done` when it is flushed, refusals when it isn't.

use wire::frame::{Reason, RelayFrame, Stored};

use super::{Desk, GROUP, NEXT_SWEEP_MS, UNFLUSHED, UNFLUSHED_BYTES, refuse};
use crate::known::Standing;
use crate::mailbox::Fresh;
use crate::outbox::Out;
use crate::store::Batch;
use crate::store::rows::{BundleRow, Head, PutRecord};

impl Desk {
    /// Whether there is something for the store.
    pub(crate) fn gathers(&self) -> bool {
        let nothing = self.listed.is_empty() && self.batch.is_empty() && self.answers.is_empty();
        !nothing && (!self.failing || self.batch.probe)
    }

    /// Whether more should be taken while a batch is being written. What is acknowledged at once isn't slowed down by its own
    /// sender, who would otherwise be told that the relay is busy.
    pub(crate) fn has_room(&self) -> bool {
        self.held.fresh < UNFLUSHED / 2 && self.held.fresh_bytes < UNFLUSHED_BYTES / 2
    }

    /// Whether somebody waits for the batch: an owner, a sender whose reader is away, or a reader for the next numbers.
    pub(crate) fn is_urgent(&self) -> bool {
        let waits = self.urgent || self.batch.probe || !self.batch.changes.is_empty() || !self.answers.is_empty();
        waits && (!self.failing || self.batch.probe)
    }

    /// Whether an envelope that was there at the last look is neither acknowledged nor being written.
    pub(crate) fn is_overdue(&mut self) -> bool {
        let mut overdue = false;
        for at in &self.listed {
            let mailbox = self.places.get_mut(*at).and_then(Option::as_mut);
            let mailbox = mailbox.and_then(|place| place.mailbox.as_deref_mut());
            overdue |= mailbox.is_some_and(|mailbox| mailbox.look());
        }
        overdue
    }

    /// What goes to the store next, if anything. Envelopes whose reader is there and may still acknowledge them wait for the next but
    /// one, unless there are many of them, or `all` is to go.
    pub(crate) fn next_batch(&mut self, all: bool) -> Option<Box<Batch>> {
        if !self.gathers() {
            return None;
        }
        self.urgent = false;
        self.answers_in_flight = std::mem::take(&mut self.answers);
        self.reserves_in_flight = std::mem::take(&mut self.reserves);
        let mut batch = std::mem::take(&mut self.batch);
        let now = self.now();
        let all = all || self.held.fresh >= GROUP;
        for at in std::mem::take(&mut self.listed) {
            let mailbox = self.places.get_mut(at).and_then(Option::as_mut);
            let Some(mailbox) = mailbox.and_then(|place| place.mailbox.as_deref_mut()) else {
                continue;
            };
            let owner = mailbox.number;
            if mailbox.is_halfway() {
                batch.acknowledged.insert(owner, mailbox.acknowledged());
            }
            if mailbox.unwritten() > 0 && !(all || mailbox.hurry) {
                self.listed.push(at);
                continue;
            }
            mailbox.listed = false;
            mailbox.rest();
            if mailbox.unwritten() == 0 {
                continue;
            }
            let from = batch.bundles.len();
            mailbox.write(|waiting, fresh| {
                let head = Head {
                    sequence: waiting.sequence,
                    capability: waiting.capability,
                    received: waiting.received,
                    expires: waiting.expires,
                    bytes: waiting.bytes,
                };
                let bundle = batch.bundles.get_mut(from..).and_then(<[BundleRow]>::last_mut);
                if let Some(bundle) = bundle.filter(|bundle| bundle.admits(&head)) {
                    bundle.add(&head, fresh.body.clone());
                } else {
                    let number = self.next_bundle;
                    self.next_bundle += 1;
                    batch
                        .bundles
                        .push(BundleRow::new(number, owner, &head, fresh.body.clone()));
                }
                let put = PutRecord {
                    mailbox: owner,
                    id: fresh.id,
                    content: fresh.content,
                    expires: waiting.expires,
                    how: Stored::Flushed,
                };
                batch.puts.add(&put, now);
            });
            for bundle in batch.bundles.iter().skip(from) {
                mailbox.write_in(bundle.number, bundle.first, bundle.last);
            }
            self.writing.push(at);
        }
        // Those that were listed may have had nothing after all.
        if batch.is_empty() && self.answers_in_flight.is_empty() {
            return None;
        }
        Some(Box::new(batch))
    }

    /// The batch is flushed.
    pub(crate) fn written(&mut self, batch: &Batch) {
        self.now();
        self.failing = false;
        // What may be delivered now is delivered while it is still in memory.
        for at in std::mem::take(&mut self.reserves_in_flight) {
            if let Some(mailbox) = self.mailbox(at)
                && let Some(reserved) = batch.reserved.get(&mailbox.number)
            {
                mailbox.reserve(*reserved);
                self.pump(at);
            }
        }
        for at in std::mem::take(&mut self.writing) {
            let mailbox = self.places.get_mut(at).and_then(Option::as_mut);
            let Some(mailbox) = mailbox.and_then(|place| place.mailbox.as_deref_mut()) else {
                continue;
            };
            let mut flushed = 0;
            mailbox.written(&mut self.batch.empty, |fresh| {
                flushed += 1;
                self.held.settle(&fresh);
                self.known.settle(fresh.print, fresh.expires, Standing::Flushed);
                for sender in std::iter::once(fresh.sender).chain(fresh.repeated) {
                    let how = Stored::Flushed;
                    let answer = Out::Answer(RelayFrame::Stored { id: fresh.id, how });
                    // Woken when all of its answers are there.
                    self.wakers.extend(sender.queue(answer).ok().flatten());
                }
            });
            self.health.metrics.stored_flushed.inc_by(flushed);
        }
        for (outbox, frame) in self.answers_in_flight.drain(..) {
            outbox.answer(frame);
        }
        if !batch.forget.is_empty() && std::mem::take(&mut self.forgets_more) {
            let now = self.now();
            self.ask_expired(now);
        }
    }

    /// Nothing of the batch is on the disk: its puts are refused, the rest is tried again.
    pub(crate) fn refused(&mut self, batch: Batch) {
        self.failing = true;
        let mut places = std::mem::take(&mut self.writing);
        // Nor can what gathered meanwhile be stored.
        for at in std::mem::take(&mut self.listed) {
            if let Some(mailbox) = self.mailbox(at) {
                mailbox.listed = false;
                places.push(at);
            }
        }
        for at in places {
            let mailbox = self.places.get_mut(at).and_then(Option::as_mut);
            let Some(mailbox) = mailbox.and_then(|place| place.mailbox.as_deref_mut()) else {
                continue;
            };
            mailbox.refused(|waiting, fresh| {
                self.held.settle(&fresh);
                if !waiting.is_gone() {
                    self.held.uncount(waiting);
                }
                self.known.forget(fresh.print, fresh.expires);
                not_stored(fresh);
            });
            if mailbox.is_halfway() {
                self.list(at);
            }
        }
        let Batch {
            changes,
            acknowledged_puts,
            empty,
            reserved,
            forget,
            ..
        } = batch;
        let later = std::mem::replace(&mut self.batch.changes, changes);
        self.batch.changes.extend(later);
        self.batch.acknowledged_puts.extend(acknowledged_puts);
        self.batch.empty.extend(empty);
        self.batch.forget.extend(forget);
        for (mailbox, reserved) in reserved {
            self.batch.reserved.entry(mailbox).or_insert(reserved);
        }
        self.reserves.append(&mut self.reserves_in_flight);
        let later = std::mem::take(&mut self.answers);
        self.answers = std::mem::take(&mut self.answers_in_flight);
        self.answers.extend(later);
    }

    /// The store is lost: whoever waits for `stored` hears that it isn't.
    pub(crate) fn refuse_all(&mut self) {
        for place in self.places.iter_mut().flatten() {
            if let Some(mailbox) = &mut place.mailbox {
                mailbox.refused(|_, fresh| not_stored(fresh));
            }
        }
        (self.held.fresh, self.held.fresh_bytes) = (0, 0);
    }

    /// Before a clean stop: the numbering goes on exactly where it was left.
    pub(crate) fn settle(&mut self) {
        let mailboxes = self.places.iter().flatten().filter_map(|place| place.mailbox.as_ref());
        for mailbox in mailboxes.filter(|mailbox| mailbox.is_ahead()) {
            self.batch.reserved.insert(mailbox.number, mailbox.next_sequence());
        }
    }
}

fn not_stored(fresh: Fresh) {
    for sender in std::iter::once(fresh.sender).chain(fresh.repeated) {
        refuse(&sender, fresh.id, Reason::NotStored, NEXT_SWEEP_MS);
    }
}
