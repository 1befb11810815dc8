//! The readers that are connected to this node: how far each has come and what it has room for (`PROTOCOL.md`, section 5).
//!
//! Asking the database is deliberately not here (see `fetch`): what a reader wants is left for the office to ask. Whether
//! this node's reader is still the reader is only ever known from the database; until then it may be given what another
//! node's is given too, which its acknowledgements tell apart.

use std::collections::{HashMap, VecDeque};

use bytes::Bytes;
use wire::envelope::Envelope;
use wire::frame::RelayFrame;
use wire::limits::WINDOW_ENVELOPES;

use super::LARGEST;
use super::bus::{Alias, Names};
use super::fetch::{Found, Want};
use super::job::{Accepted, Key, Status};
use crate::health::Health;
use crate::mailbox::WINDOW_BYTES;
use crate::outbox::Outbox;

#[cfg(test)]
mod tests;

const WINDOW: usize = WINDOW_ENVELOPES as usize;

/// A live reader.
struct Seat {
    connection: u64,
    outbox: Outbox,
    /// Which reader it is; none until the database has said so.
    generation: Option<i64>,
    /// The last number that it was given, or that nothing waits below.
    cursor: u64,
    /// Given and not acknowledged: numbers and bytes.
    in_flight: VecDeque<(u64, u64)>,
    in_flight_bytes: u64,
    /// The database is being asked…
    asked: bool,
    /// …and there may be more than it will answer.
    behind: bool,
}

/// See the module.
pub(super) struct Seats {
    seats: HashMap<Key, Seat>,
    aliases: HashMap<Alias, Key>,
    names: Names,
    health: Health,
    /// For the office to ask.
    pub(super) wants: Vec<Want>,
}

/// What is to be done about a reader that asks.
pub(super) enum Sat {
    /// The database has to make it the reader.
    Claim,
    /// It is the reader already: one byte more mustn't fetch a megabyte again.
    Already,
}

/// What became of a reader that was looked after.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Looked {
    /// Nothing else is to be done.
    Well,
    /// The database doesn't know it any more: it has to claim the mailbox anew.
    Forgotten { connection: u64 },
}

impl Seats {
    pub(super) fn new(names: Names, health: Health) -> Self {
        Self {
            seats: HashMap::new(),
            aliases: HashMap::new(),
            names,
            health,
            wants: Vec::new(),
        }
    }

    /// How many readers there are.
    pub(super) fn len(&self) -> usize {
        self.seats.len()
    }

    /// The mailboxes that are read here.
    pub(super) fn keys(&self) -> impl Iterator<Item = &Key> {
        self.seats.keys()
    }

    /// A connection wants to read. The newest wins, on this node at once.
    pub(super) fn read(&mut self, key: Key, connection: u64, outbox: Outbox) -> Sat {
        if self.seats.get(&key).is_some_and(|seat| seat.connection == connection) {
            return Sat::Already;
        }
        let seat = Seat {
            connection,
            outbox,
            generation: None,
            cursor: 0,
            in_flight: VecDeque::new(),
            in_flight_bytes: 0,
            asked: false,
            behind: false,
        };
        self.aliases.insert(self.names.of(&key), key);
        if let Some(older) = self.seats.insert(key, seat) {
            older.outbox.displaced();
        }
        Sat::Claim
    }

    /// The connection is gone; says which reader it was, for the database to know.
    pub(super) fn leave(&mut self, key: &Key, connection: u64) -> Option<i64> {
        if self.seats.get(key).is_some_and(|seat| seat.connection == connection) {
            return self.remove(key)?.generation;
        }
        None
    }

    /// The connection is the reader now. Says how its mailbox stands, and begins to deliver.
    pub(super) fn claimed(&mut self, key: &Key, connection: u64, generation: i64, status: Status) {
        let Some(seat) = self.seats.get_mut(key).filter(|seat| seat.connection == connection) else {
            return;
        };
        if seat.generation.is_none() {
            seat.outbox.answer(RelayFrame::Reading {
                next_sequence: status.next_sequence,
                waiting: status.waiting,
            });
            seat.cursor = status.floor;
        }
        seat.generation = Some(generation);
        // What is still being asked is asked for the reader that it was.
        seat.asked = false;
        self.wake(key);
    }

    /// Which connection reads a mailbox, or is about to.
    pub(super) fn connection(&self, key: &Key) -> Option<u64> {
        self.seats.get(key).map(|seat| seat.connection)
    }

    /// Everything up to `sequence` is with its reader.
    pub(super) fn acknowledge(&mut self, key: &Key, sequence: u64) {
        let Some(seat) = self.seats.get_mut(key) else { return };
        while let Some((_, bytes)) = seat.in_flight.pop_front_if(|(first, _)| *first <= sequence) {
            seat.in_flight_bytes -= bytes;
        }
        if seat.behind {
            self.wake(key);
        }
    }

    /// An envelope of this node's own is committed. The reader gets it at once if it is the next one.
    pub(super) fn committed(&mut self, key: &Key, accepted: Accepted, body: &Bytes) {
        let has_room = self.has_room(key);
        let Some(seat) = self.seats.get_mut(key) else { return };
        let ours = seat.generation.is_some() && seat.generation == accepted.reader.map(|reader| reader.generation);
        let next = seat.cursor + 1 == accepted.sequence && !seat.behind && !seat.asked;
        if !ours || (has_room && !next) {
            self.wake(key);
        } else if has_room {
            self.deliver(key, accepted.sequence, accepted.received, body.clone());
        } else {
            seat.behind = true;
        }
    }

    /// Somebody says that there may be something for this mailbox, or another reader.
    pub(super) fn hinted(&mut self, alias: &Alias) {
        if let Some(key) = self.aliases.get(alias).copied() {
            self.wake(&key);
        }
    }

    /// Looks after everybody, hint or not.
    pub(super) fn poll(&mut self) {
        let keys: Vec<Key> = self.seats.keys().copied().collect();
        for key in keys {
            if self.seats.get(&key).is_some_and(|seat| !seat.asked) {
                self.wake(&key);
            }
        }
    }

    /// The database has answered for a reader.
    pub(super) fn found(&mut self, found: Found) -> Looked {
        let key = found.want.key;
        let current = |seat: &&mut Seat| seat.generation == Some(found.want.generation);
        let Some(seat) = self.seats.get_mut(&key).filter(current) else {
            return Looked::Well;
        };
        seat.asked = false;
        let again = std::mem::take(&mut seat.behind);
        match found.generation {
            Some(generation) if generation == found.want.generation => {}
            Some(_) => {
                seat.outbox.displaced();
                self.remove(&key);
                return Looked::Well;
            }
            None => {
                return Looked::Forgotten {
                    connection: seat.connection,
                };
            }
        }
        for (sequence, received, body) in found.envelopes {
            self.deliver(&key, sequence, received, body);
        }
        let Some(seat) = self.seats.get_mut(&key) else {
            return Looked::Well;
        };
        if found.complete {
            // What lies between was acknowledged or has expired.
            seat.cursor = seat.cursor.max(found.next_sequence.saturating_sub(1));
        }
        seat.behind = again || !found.complete;
        // Without room the next acknowledgement, or the next poll, comes back to it.
        if seat.behind && self.has_room(&key) {
            self.wake(&key);
        }
        Looked::Well
    }

    /// The database couldn't be asked; the next poll tries again.
    pub(super) fn unanswered(&mut self, wants: &[Want]) {
        for want in wants {
            let seat = self.seats.get_mut(&want.key);
            if let Some(seat) = seat.filter(|seat| seat.generation == Some(want.generation)) {
                seat.asked = false;
                seat.behind = true;
            }
        }
    }

    fn wake(&mut self, key: &Key) {
        let has_room = self.has_room(key);
        let Some(seat) = self.seats.get_mut(key) else { return };
        let Some(generation) = seat.generation else { return };
        if seat.asked {
            seat.behind = true;
            return;
        }
        // Without room it is only seen whether it still is the reader.
        seat.behind = !has_room;
        seat.asked = true;
        let room = if has_room { WINDOW - seat.in_flight.len() } else { 0 };
        self.wants.push(Want {
            key: *key,
            generation,
            cursor: seat.cursor,
            room,
            bytes: WINDOW_BYTES - seat.in_flight_bytes.min(WINDOW_BYTES),
        });
    }

    /// Whether the reader can be given the largest envelope that there is.
    fn has_room(&self, key: &Key) -> bool {
        self.seats.get(key).is_some_and(|seat| {
            // A reader that has something to acknowledge can wait for more until there is memory for it.
            let held_up = !seat.in_flight.is_empty() && self.health.memory.is_full();
            seat.in_flight.len() < WINDOW && seat.in_flight_bytes + LARGEST <= WINDOW_BYTES && !held_up
        })
    }

    fn deliver(&mut self, key: &Key, sequence: u64, received: u64, body: Bytes) {
        let Some(seat) = self.seats.get_mut(key) else { return };
        if sequence <= seat.cursor {
            return;
        }
        seat.cursor = sequence;
        let bytes = body.len();
        let Ok(envelope) = Envelope::from_bytes(body) else {
            tracing::error!("an envelope in the database has no envelope's length; passed over");
            return;
        };
        seat.in_flight.push_back((sequence, bytes as u64));
        seat.in_flight_bytes += bytes as u64;
        let deliver = RelayFrame::Deliver {
            sequence,
            received,
            envelope,
        };
        if seat.outbox.deliver(deliver, bytes).is_ok() {
            self.health.metrics.delivered.inc();
        } else {
            // Cut off; what it didn't get waits for the next reader.
            self.remove(key);
        }
    }

    fn remove(&mut self, key: &Key) -> Option<Seat> {
        self.aliases.remove(&self.names.of(key));
        self.seats.remove(key)
    }
}
