//! Giving a live reader what waits for it, from memory or from the store, in order and within its window.

use std::collections::HashSet;

use bytes::Bytes;
use wire::envelope::Envelope;
use wire::frame::RelayFrame;

use super::Desk;
use crate::clerks::Question;
use crate::mailbox::{Mailbox, Next, Waiting};

impl Desk {
    /// Gives the reader what it can have, and asks the store for what isn't in memory.
    pub(super) fn pump(&mut self, key: &[u8; 32]) {
        let now = self.now();
        while let (Some(mailbox), Some(seat)) = (self.mailboxes.get_mut(key), self.seats.get_mut(key)) {
            let next = match mailbox.next(now) {
                Next::Nothing => return,
                Next::Expired(waiting) => {
                    let number = mailbox.number;
                    self.expire(key, number, &waiting);
                    continue;
                }
                Next::Deliver(next) => next,
            };
            // A reader that has something to acknowledge can wait for more until there is room for it.
            if mailbox.in_flight() > 0 && self.health.memory.is_full() {
                seat.bodies.clear();
                return;
            }
            let unwritten = self.unwritten.get(&next.number).map(|unwritten| unwritten.body.clone());
            let Some(body) = unwritten.or_else(|| seat.bodies.remove(&next.number)) else {
                if !seat.asked {
                    seat.asked = true;
                    let missing = |waiting: &&Waiting| {
                        !self.unwritten.contains_key(&waiting.number) && !seat.bodies.contains_key(&waiting.number)
                    };
                    self.questions.push(Question::Bodies {
                        mailbox: *key,
                        connection: seat.connection,
                        numbers: mailbox.ahead().filter(missing).map(|waiting| waiting.number).collect(),
                    });
                }
                return;
            };
            mailbox.delivered();
            let bytes = body.len();
            let Ok(envelope) = Envelope::from_bytes(body) else {
                tracing::error!("an envelope in the store has no envelope's length; dropped");
                self.drop_envelope(key, next.sequence);
                continue;
            };
            let deliver = RelayFrame::Deliver {
                sequence: next.sequence,
                received: next.received,
                envelope,
            };
            if seat.outbox.deliver(deliver, bytes).is_ok() {
                self.health.metrics.delivered.inc();
            } else {
                // Cut off; what it didn't get waits for the next reader.
                self.seats.remove(key);
            }
        }
    }

    /// The store's answer with bodies for a reader, who may be gone by now.
    pub(crate) fn bodies(&mut self, key: &[u8; 32], connection: u64, asked: &[i64], found: Vec<(i64, Bytes)>) {
        let Some(seat) = self.seats.get_mut(key).filter(|seat| seat.connection == connection) else {
            return;
        };
        seat.asked = false;
        seat.bodies.extend(found);
        let ahead: Vec<Waiting> = self
            .mailboxes
            .get(key)
            .into_iter()
            .flat_map(Mailbox::ahead)
            .copied()
            .collect();
        // What was acknowledged meanwhile needn't stay.
        let numbers: HashSet<i64> = ahead.iter().map(|waiting| waiting.number).collect();
        seat.bodies.retain(|number, _| numbers.contains(number));
        // What waits but isn't in the store would be asked for again and again.
        let missing: Vec<u64> = ahead
            .iter()
            .filter(|waiting| asked.contains(&waiting.number) && !seat.bodies.contains_key(&waiting.number))
            .map(|waiting| waiting.sequence)
            .collect();
        for sequence in missing {
            tracing::error!("an envelope is missing from the store; dropped");
            self.drop_envelope(key, sequence);
        }
        self.pump(key);
    }

    fn drop_envelope(&mut self, key: &[u8; 32], sequence: u64) {
        let Some(mailbox) = self.mailboxes.get_mut(key) else {
            return;
        };
        let number = mailbox.number;
        if let Some(waiting) = mailbox.remove(sequence) {
            self.expire(key, number, &waiting);
        }
    }
}
