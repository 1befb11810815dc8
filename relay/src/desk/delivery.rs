//! Giving a live reader what waits for it, from memory or from the store, in order and within its window.

use bytes::Bytes;
use wire::envelope::Envelope;

use super::{Desk, deliver};
use crate::clerks::Question;
use crate::mailbox::Next;
use crate::outbox::{Gone, Out};
use crate::store::Found;

impl Desk {
    /// Gives the reader what it can have, and asks the store for what isn't in memory.
    pub(super) fn pump(&mut self, at: usize) {
        let now = self.latest;
        loop {
            let Some(place) = self.places.get_mut(at).and_then(Option::as_mut) else {
                return;
            };
            let (Some(mailbox), Some(seat)) = (place.mailbox.as_deref_mut(), place.seat.as_mut()) else {
                return;
            };
            let (next, fresh) = match mailbox.next(now, &mut self.batch.empty) {
                Next::Nothing => return,
                Next::Expired(waiting) => {
                    self.held.uncount(&waiting);
                    self.health.metrics.expired.inc();
                    continue;
                }
                Next::Deliver(next, fresh) => (next, fresh),
            };
            // A reader that has something to acknowledge can wait for more until there is room for it.
            if mailbox.in_flight() > 0 && self.health.memory.is_full() {
                seat.bodies.clear();
                return;
            }
            let Some(body) = fresh.or_else(|| take(&mut seat.bodies, next.sequence)) else {
                if !seat.asked {
                    seat.asked = true;
                    let question = Question::Bundles {
                        mailbox: place.key,
                        connection: seat.connection,
                        numbers: mailbox.bundles_ahead(next.sequence),
                    };
                    // A clerk that is gone is noticed by its reports.
                    self.questions.send(question).ok();
                }
                return;
            };
            mailbox.delivered();
            let bytes = body.len();
            // Its length was looked at when it was put, or when its bundle was taken apart.
            let Ok(envelope) = Envelope::from_bytes(body) else {
                tracing::error!("an envelope in the store has no envelope's length; passed over");
                continue;
            };
            let frame = deliver(next.sequence, next.received, envelope);
            match seat.outbox.queue(Out::Deliver(frame, bytes)) {
                Ok(waker) => {
                    self.wakers.extend(waker);
                    self.delivered += 1;
                }
                Err(Gone) => {
                    // Cut off; what it didn't get waits for the next reader.
                    place.seat = None;
                    self.reader_count -= 1;
                    return;
                }
            }
        }
    }

    /// The store's answer with bundles for a reader, who may be gone by now.
    pub(crate) fn bundles(&mut self, key: &[u8; 32], connection: u64, asked: &[i64], found: Vec<Found>) {
        self.now();
        let Some(at) = self.by_key.find(key) else {
            return;
        };
        let Some(place) = self.places.get_mut(at).and_then(Option::as_mut) else {
            return;
        };
        let (Some(mailbox), Some(seat)) = (place.mailbox.as_deref_mut(), place.seat.as_mut()) else {
            return;
        };
        if seat.connection != connection {
            return;
        }
        seat.asked = false;
        // What waits but isn't in the store would be asked for again and again.
        let missing = asked
            .iter()
            .filter(|number| !found.iter().any(|(found, _)| found == *number));
        let mut lost = 0;
        for number in missing {
            mailbox.lose(*number, |waiting| {
                lost += 1;
                self.held.uncount(waiting);
            });
        }
        let bodies = found.into_iter().flat_map(|(_, envelopes)| envelopes);
        seat.bodies.extend(bodies.map(|(head, body)| (head.sequence, body)));
        if lost > 0 {
            tracing::error!(lost, "envelopes are missing from the store; passed over");
        }
        self.pump(at);
    }
}

/// The body of this number; those before it aren't needed any more.
fn take(bodies: &mut std::collections::VecDeque<(u64, Bytes)>, sequence: u64) -> Option<Bytes> {
    while bodies.front().is_some_and(|(first, _)| *first < sequence) {
        bodies.pop_front();
    }
    bodies
        .pop_front_if(|(first, _)| *first == sequence)
        .map(|(_, body)| body)
}
