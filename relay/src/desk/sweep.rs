//! What time takes away: envelopes and puts past their ttl, and the numbering of mailboxes long closed.

use std::hash::BuildHasher;

use wire::frame::PutId;
use wire::limits::TTL_SECONDS_MAX;

use super::Desk;
use crate::clerks::Question;
use crate::mailbox::{Mailbox, Waiting};
use crate::store::Change;

/// Most envelopes swept at a time, so that a sweep never holds up the others for long.
const SWEPT: usize = 500;

/// How long a closed mailbox's numbering is kept: longer than anything sent to it could live.
const CLOSED_FOR_MS: u64 = TTL_SECONDS_MAX as u64 * 1000;

impl Desk {
    /// Takes out what has expired, some of it; once a second.
    pub(crate) fn sweep(&mut self) {
        let now = self.now();
        for _ in 0..SWEPT {
            let Some((_, number, sequence)) = self.expiries.first().copied().filter(|first| first.0 <= now) else {
                break;
            };
            self.expiries.pop_first();
            let expired = self
                .by_number(number)
                .and_then(|(key, mailbox)| Some((key, mailbox.remove(sequence)?)));
            if let Some((key, waiting)) = expired {
                self.expire(&key, number, &waiting);
                self.pump(&key);
            }
        }
        if !self.sweeping {
            self.sweeping = true;
            self.questions.push(Question::Expired { now });
        }
        if self.failing {
            self.batch.probe = true;
        }
        self.sweeps += 1;
        // Once an hour is often enough for what is kept a month.
        if self.sweeps.is_multiple_of(3600) {
            self.close_abandoned(now);
            self.forget_closed(now);
        }
    }

    /// The store's answer with puts that have expired.
    pub(crate) fn expired(&mut self, now: u64, puts: Vec<(i64, PutId, u64)>) {
        self.sweeping = false;
        for (mailbox, id, expires) in puts {
            let print = self.fingerprint.hash_one(id);
            // One that was put again since is remembered anew.
            if self.known.get(&mailbox).and_then(|known| known.get(&print)) == Some(&expires) {
                self.forget_put(mailbox, &id);
            }
            self.batch.forget.push((mailbox, id));
        }
        self.batch.forget_before = self.batch.forget_before.max(now);
    }

    /// A mailbox whose owner hasn't come for long and in which nothing waits: else whoever once filled the relay with
    /// mailboxes would have filled it for good.
    pub(super) fn close_abandoned(&mut self, now: u64) {
        let readers: Vec<_> = self.seats.keys().copied().collect();
        for key in readers {
            self.saw(&key);
        }
        let limit = self.bounds.abandoned_ms;
        let is_abandoned = |mailbox: &Mailbox| {
            mailbox.closed.is_none() && mailbox.waiting() == 0 && now.saturating_sub(mailbox.seen) >= limit
        };
        let abandoned = self.mailboxes.iter().filter(|(_, mailbox)| is_abandoned(mailbox));
        let abandoned: Vec<_> = abandoned.map(|(key, _)| *key).take(SWEPT).collect();
        for key in abandoned {
            self.close_mailbox(&key);
        }
    }

    fn forget_closed(&mut self, now: u64) {
        let (batch, keys) = (&mut self.batch, &mut self.keys);
        self.mailboxes.retain(|_, mailbox| {
            let keep = mailbox
                .closed
                .is_none_or(|closed| now < closed.saturating_add(CLOSED_FOR_MS));
            if !keep {
                keys.remove(&mailbox.number);
                batch.changes.push(Change::Forget {
                    mailbox: mailbox.number,
                });
            }
            keep
        });
    }

    pub(super) fn expire_mailbox(&mut self, key: &[u8; 32]) {
        let now = self.now();
        let Some(mailbox) = self.mailboxes.get_mut(key) else {
            return;
        };
        let (number, gone) = (mailbox.number, mailbox.expire(now));
        for waiting in gone {
            self.expire(key, number, &waiting);
        }
    }

    /// An envelope left its mailbox unread. If it isn't flushed yet it is first written, then deleted.
    pub(super) fn expire(&mut self, key: &[u8; 32], mailbox: i64, waiting: &Waiting) {
        self.uncount(key, mailbox, waiting);
        self.health.metrics.expired.inc();
        self.batch.deleted.push(waiting.number);
    }

    pub(super) fn uncount(&mut self, key: &[u8; 32], mailbox: i64, waiting: &Waiting) {
        self.expiries.remove(&(waiting.expires, mailbox, waiting.sequence));
        self.waiting_bytes -= u64::from(waiting.bytes);
        if let Some(seat) = self.seats.get_mut(key) {
            seat.bodies.remove(&waiting.number);
        }
    }
}
