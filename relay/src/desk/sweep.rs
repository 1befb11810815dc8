//! What time takes away: envelopes and puts past their ttl, and the numbering of mailboxes long closed.

use wire::limits::TTL_SECONDS_MAX;

use super::Desk;
use crate::clerks::Question;
use crate::mailbox::Mailbox;
use crate::store::Change;

/// Most envelopes looked at, and most mailboxes closed, at a time, so that a sweep never holds up the others for long.
pub(super) const SWEPT: usize = 2000;

/// Parts of the memory of puts that are looked through for what has expired, each second: all of them in half a minute.
const PARTS_SWEPT: usize = 32;

/// How finely the time of the next look at a mailbox is noted, in milliseconds.
const LOOK_EVERY_MS: u64 = 1000;

/// How long a closed mailbox's numbering is kept: longer than anything sent to it could live.
const CLOSED_FOR_MS: u64 = TTL_SECONDS_MAX as u64 * 1000;

/// A look through a mailbox that isn't at its end.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Look {
    at: usize,
    from: u64,
    soonest: u64,
}

impl Desk {
    /// Begins a sweep; once a second.
    pub(crate) fn sweep(&mut self) {
        let now = self.now();
        if !self.forgets_more {
            self.ask_expired(now);
        }
        if self.failing {
            self.batch.probe = true;
        }
        for _ in 0..PARTS_SWEPT {
            self.known.sweep(now);
        }
        self.sweeps += 1;
        // Once an hour is often enough for what is kept a month.
        if self.sweeps.is_multiple_of(3600) {
            self.close_abandoned(now);
            self.forget_closed(now);
        }
    }

    /// Asks the store which puts have expired.
    pub(super) fn ask_expired(&mut self, now: u64) {
        if !std::mem::replace(&mut self.sweeping, true) {
            // A clerk that is gone is noticed by its reports.
            self.questions.send(Question::Expired { now }).ok();
        }
    }

    /// Takes out some of what has expired. Says where to go on, if that wasn't all.
    pub(crate) fn expire(&mut self, look: Option<Look>) -> Option<Look> {
        let now = self.now();
        let look = match look {
            Some(look) => look,
            None => self.next_look(now)?,
        };
        let place = self.places.get_mut(look.at).and_then(Option::as_mut);
        let mailbox = place.and_then(|place| place.mailbox.as_deref_mut());
        let mut more = None;
        let mut soonest = look.soonest;
        if let Some(mailbox) = mailbox {
            let mut gone = 0;
            let seen = mailbox.expire(now, look.from, SWEPT, &mut self.batch.empty, |waiting| {
                gone += 1;
                self.held.uncount(waiting);
            });
            self.health.metrics.expired.inc_by(gone);
            more = seen.0;
            soonest = soonest.min(seen.1);
            if gone > 0 {
                self.pump(look.at);
            }
        }
        if let Some(from) = more {
            return Some(Look { from, soonest, ..look });
        }
        self.look_by(look.at, soonest);
        self.next_look(now)
    }

    /// The next mailbox in which something has expired by now.
    fn next_look(&mut self, now: u64) -> Option<Look> {
        loop {
            let mut first = self.due.first_entry().filter(|first| *first.key() <= now)?;
            let at = first.get_mut().pop();
            let Some(at) = at else {
                first.remove();
                continue;
            };
            if let Some(mailbox) = self.mailbox(at) {
                mailbox.due = u64::MAX;
                return Some(Look {
                    at,
                    from: 0,
                    soonest: u64::MAX,
                });
            }
        }
    }

    /// Something in this mailbox expires then.
    pub(super) fn look_by(&mut self, at: usize, expires: u64) {
        if expires == u64::MAX {
            return;
        }
        // Never too early, because then it hasn't expired, and not much too late.
        let due = expires.div_ceil(LOOK_EVERY_MS) * LOOK_EVERY_MS;
        let mailbox = self.places.get_mut(at).and_then(Option::as_mut);
        if let Some(mailbox) = mailbox.and_then(|place| place.mailbox.as_deref_mut())
            && due < mailbox.due
        {
            mailbox.due = due;
            self.due.entry(due).or_default().push(at);
        }
    }

    /// Takes out what has expired among the first, for whoever asks how many wait.
    pub(super) fn expire_first(&mut self, at: usize) {
        let now = self.now();
        let place = self.places.get_mut(at).and_then(Option::as_mut);
        let Some(mailbox) = place.and_then(|place| place.mailbox.as_deref_mut()) else {
            return;
        };
        let mut gone = 0;
        mailbox.expire(now, 0, SWEPT, &mut self.batch.empty, |waiting| {
            gone += 1;
            self.held.uncount(waiting);
        });
        self.health.metrics.expired.inc_by(gone);
    }

    /// All puts of these rows have expired: the store can forget them; and whether there are more.
    pub(crate) fn forget(&mut self, rows: Vec<i64>, more: bool) {
        self.batch.forget.extend(rows);
        self.sweeping = false;
        // Asked for only when these are gone from the store, else they would come again.
        self.forgets_more = more;
        self.urgent |= more;
    }

    /// A mailbox whose owner hasn't come for long and in which nothing waits: else whoever once filled the relay with
    /// mailboxes would have filled it for good.
    pub(super) fn close_abandoned(&mut self, now: u64) {
        let read = self.places.iter().flatten().filter(|place| place.seat.is_some());
        let read: Vec<_> = read.map(|place| place.key).collect();
        for key in read {
            self.saw(&key);
        }
        let limit = self.bounds.abandoned_ms;
        let is_abandoned = |mailbox: &Mailbox| {
            mailbox.closed.is_none() && mailbox.waiting() == 0 && now.saturating_sub(mailbox.seen) >= limit
        };
        let abandoned = self.places.iter().enumerate().filter_map(|(at, place)| {
            let mailbox = place.as_ref()?.mailbox.as_deref()?;
            is_abandoned(mailbox).then_some(at)
        });
        let abandoned: Vec<_> = abandoned.take(SWEPT).collect();
        for at in abandoned {
            self.close_mailbox(at);
        }
    }

    fn forget_closed(&mut self, now: u64) {
        for at in 0..self.places.len() {
            let Some(place) = self.places.get_mut(at).and_then(Option::as_mut) else {
                continue;
            };
            let over = |mailbox: &mut Box<Mailbox>| {
                let closed = mailbox
                    .closed
                    .is_some_and(|closed| now >= closed.saturating_add(CLOSED_FOR_MS));
                closed && !mailbox.is_being_written() && !mailbox.listed
            };
            if let Some(mailbox) = place.mailbox.take_if(over) {
                self.mailbox_count -= 1;
                self.batch.changes.push(Change::Forget {
                    mailbox: mailbox.number,
                });
                self.clear(at);
            }
        }
    }
}
