//! One transaction's view of the mailboxes that it holds locked: puts and owners' requests are judged here, in order, and
//! what is then to be written is left behind (`PROTOCOL.md`, section 5).
//!
//! SQL is deliberately not here, nor is anything remembered from one transaction to the next: what another node changed
//! meanwhile counts.

use std::collections::{HashMap, VecDeque};

use wire::frame::{PutId, Reason, Stored};
use wire::limits::CAPABILITIES_PER_MAILBOX;
use wire::mailbox::CapabilityHash;

use super::job::{Accepted, Job, Key, PutJob, Reader, Verdict};
use crate::known::UNCOMPARED;

/// What a put is remembered as.
#[derive(Clone, Copy, Debug)]
pub(super) struct KnownPut {
    /// What tells its envelope from another.
    pub(super) content: u64,
    pub(super) expires: u64,
    pub(super) how: Stored,
}

/// When to try again, in milliseconds, if a quota is used up or the relay is full.
const QUOTA_MS: u32 = 10_000;
const LATER_MS: u32 = 60_000;

/// A day, in milliseconds.
const DAY_MS: u64 = 24 * 3600 * 1000;

/// A mailbox's row.
#[derive(Clone, Debug)]
pub(super) struct MailboxRow {
    pub(super) number: i64,
    pub(super) next_sequence: u64,
    pub(super) floor: u64,
    pub(super) closed: Option<u64>,
    pub(super) seen: u64,
    pub(super) waiting: u64,
    pub(super) bytes: u64,
    pub(super) remembered: u64,
    pub(super) reader: Option<Reader>,
    /// How many capabilities it has; counted only where one is to be allowed.
    pub(super) capabilities: usize,
    pub(super) changed: bool,
}

/// A capability's row.
#[derive(Clone, Debug)]
pub(super) struct CapabilityRow {
    pub(super) number: i64,
    pub(super) max_envelopes: u32,
    pub(super) max_bytes: u64,
    pub(super) envelopes: u64,
    pub(super) bytes: u64,
    /// Allowed in this transaction: it may have no row yet.
    pub(super) allowed: bool,
    pub(super) changed: bool,
}

/// An envelope to be written; its put is the job's.
#[derive(Clone, Copy, Debug)]
pub(super) struct NewEnvelope {
    /// Which of the jobs it is.
    pub(super) job: usize,
    pub(super) mailbox: i64,
    pub(super) sequence: u64,
    pub(super) capability: i64,
    pub(super) received: u64,
    pub(super) expires: u64,
}

/// How much more the relay takes, over all mailboxes and nodes; about right.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Room {
    pub(super) bytes: u64,
    pub(super) puts: u64,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    pub(super) mailboxes: HashMap<Key, MailboxRow>,
    pub(super) capabilities: HashMap<(i64, CapabilityHash), CapabilityRow>,
    pub(super) puts: HashMap<(i64, PutId), KnownPut>,
    pub(super) room: Room,
    pub(super) now: u64,
    /// Fresh numbers, one for each that could be needed.
    pub(super) mailbox_numbers: VecDeque<i64>,
    pub(super) capability_numbers: VecDeque<i64>,
    /// To be written.
    pub(super) envelopes: Vec<NewEnvelope>,
    pub(super) revoked: Vec<(i64, CapabilityHash)>,
    pub(super) litter: Vec<i64>,
}

impl Ledger {
    /// Judges whatever changes a mailbox, but for acknowledgements; `index` is its place among the jobs.
    pub(super) fn judge(&mut self, index: usize, job: &Job) -> Option<Verdict> {
        match job {
            Job::Put(put) => Some(self.put(index, put)),
            Job::Allow {
                key,
                hash,
                max_envelopes,
                max_bytes,
                ..
            } => Some(self.allow(key, *hash, *max_envelopes, *max_bytes)),
            Job::Revoke { key, hash, .. } => Some(self.revoke(key, *hash)),
            Job::Close { key, .. } => Some(self.close(key)),
            Job::Seen { key } | Job::Claim { key, .. } => {
                self.saw(key);
                Some(Verdict::Done)
            }
            Job::Ack { .. } | Job::Look { .. } | Job::Release { .. } => None,
        }
    }

    fn put(&mut self, index: usize, put: &PutJob) -> Verdict {
        const NOT_ALLOWED: Verdict = Verdict::Refused(Reason::NotAllowed, 0);
        // One answer for an unknown mailbox and for an unknown capability, before anything that depends on the mailbox.
        let Some(mailbox) = self.mailboxes.get_mut(&put.key) else {
            return NOT_ALLOWED;
        };
        let Some(capability) = self.capabilities.get_mut(&(mailbox.number, put.capability)) else {
            return NOT_ALLOWED;
        };
        let id = (mailbox.number, put.id);
        let known = self.puts.get(&id);
        if let Some(known) = known.filter(|known| known.expires > self.now) {
            return if known.content == put.content || known.content == UNCOMPARED {
                Verdict::Stored(known.how)
            } else {
                Verdict::Refused(Reason::IdUsed, 0)
            };
        }
        let bytes = put.body.len() as u64;
        if capability.envelopes >= u64::from(capability.max_envelopes) {
            return Verdict::Refused(Reason::EnvelopeQuota, QUOTA_MS);
        }
        if capability.bytes + bytes > capability.max_bytes {
            return Verdict::Refused(Reason::ByteQuota, QUOTA_MS);
        }
        if self.room.bytes < bytes || self.room.puts == 0 {
            return Verdict::Refused(Reason::Busy, LATER_MS);
        }
        // One remembered past its ttl, and not swept yet, is replaced.
        if known.is_none() {
            mailbox.remembered += 1;
            self.room.puts -= 1;
        }
        self.room.bytes -= bytes;
        let expires = self.now + u64::from(put.ttl_seconds) * 1000;
        let sequence = mailbox.next_sequence;
        mailbox.next_sequence += 1;
        mailbox.waiting += 1;
        mailbox.bytes += bytes;
        mailbox.changed = true;
        capability.envelopes += 1;
        capability.bytes += bytes;
        capability.changed = true;
        self.envelopes.push(NewEnvelope {
            job: index,
            mailbox: mailbox.number,
            sequence,
            capability: capability.number,
            received: self.now,
            expires,
        });
        let known = KnownPut {
            content: put.content,
            expires,
            how: Stored::Flushed,
        };
        self.puts.insert(id, known);
        Verdict::Accepted(Accepted {
            sequence,
            received: self.now,
            reader: mailbox.reader,
        })
    }

    fn allow(&mut self, key: &Key, hash: CapabilityHash, max_envelopes: u32, max_bytes: u64) -> Verdict {
        // Where there is room for one more mailbox its row was made before.
        self.saw(key);
        let Some(mailbox) = self.mailboxes.get_mut(key) else {
            return Verdict::TooMany;
        };
        if let Some(known) = self.capabilities.get_mut(&(mailbox.number, hash)) {
            known.max_envelopes = max_envelopes;
            known.max_bytes = max_bytes;
            known.allowed = true;
            return Verdict::Done;
        }
        if mailbox.capabilities >= CAPABILITIES_PER_MAILBOX {
            return Verdict::TooMany;
        }
        let Some(number) = self.capability_numbers.pop_front() else {
            return Verdict::TooMany;
        };
        mailbox.capabilities += 1;
        mailbox.changed |= mailbox.closed.take().is_some();
        let row = CapabilityRow {
            number,
            max_envelopes,
            max_bytes,
            envelopes: 0,
            bytes: 0,
            allowed: true,
            changed: false,
        };
        self.capabilities.insert((mailbox.number, hash), row);
        Verdict::Done
    }

    /// The owner is here: noted once a day, which is often enough to tell an abandoned mailbox from one in use.
    pub(super) fn saw(&mut self, key: &Key) {
        if let Some(mailbox) = self.mailboxes.get_mut(key)
            && self.now.saturating_sub(mailbox.seen) >= DAY_MS
        {
            mailbox.seen = self.now;
            mailbox.changed = true;
        }
    }

    fn revoke(&mut self, key: &Key, hash: CapabilityHash) -> Verdict {
        if let Some(mailbox) = self.mailboxes.get_mut(key)
            && self.capabilities.remove(&(mailbox.number, hash)).is_some()
        {
            mailbox.capabilities = mailbox.capabilities.saturating_sub(1);
            self.revoked.push((mailbox.number, hash));
        }
        Verdict::Done
    }

    /// The mailbox goes on under a new number: whatever had the old one, this transaction's own envelopes included, is
    /// litter at once, however much it is.
    fn close(&mut self, key: &Key) -> Verdict {
        if let Some(mailbox) = self.mailboxes.get_mut(key).filter(|mailbox| mailbox.closed.is_none())
            && let Some(number) = self.mailbox_numbers.pop_front()
        {
            self.litter.push(std::mem::replace(&mut mailbox.number, number));
            mailbox.closed = Some(self.now);
            mailbox.floor = mailbox.next_sequence.saturating_sub(1);
            mailbox.waiting = 0;
            mailbox.bytes = 0;
            mailbox.remembered = 0;
            mailbox.capabilities = 0;
            mailbox.changed = true;
        }
        Verdict::Done
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

    use super::*;
    use crate::memory::Memory;
    use crate::outbox::outbox;

    const KEY: Key = [1; 32];
    const HASH: CapabilityHash = CapabilityHash::from_bytes([2; 32]);

    fn ledger() -> Ledger {
        let mailbox = MailboxRow {
            number: 1,
            next_sequence: 5,
            floor: 0,
            closed: None,
            seen: 1000,
            waiting: 0,
            bytes: 0,
            remembered: 0,
            reader: None,
            capabilities: 1,
            changed: false,
        };
        let capability = CapabilityRow {
            number: 7,
            max_envelopes: 2,
            max_bytes: 1 << 20,
            envelopes: 0,
            bytes: 0,
            allowed: false,
            changed: false,
        };
        Ledger {
            mailboxes: HashMap::from([(KEY, mailbox)]),
            capabilities: HashMap::from([((1, HASH), capability)]),
            room: Room {
                bytes: 1 << 20,
                puts: 100,
            },
            now: 1000,
            mailbox_numbers: VecDeque::from([2]),
            capability_numbers: VecDeque::from([8]),
            ..Ledger::default()
        }
    }

    fn put(id: u8, content: u64) -> Job {
        Job::Put(PutJob {
            outbox: outbox(Memory::default()).0,
            id: [id; 16],
            key: KEY,
            capability: HASH,
            ttl_seconds: 1,
            content,
            body: vec![0; 1024].into(),
        })
    }

    fn sequence(verdict: Option<Verdict>) -> u64 {
        match verdict {
            Some(Verdict::Accepted(accepted)) => accepted.sequence,
            other => panic!("not accepted but {other:?}"),
        }
    }

    #[test]
    fn a_put_that_comes_twice_in_one_transaction_is_one_envelope() {
        let mut ledger = ledger();
        assert_eq!(sequence(ledger.judge(0, &put(1, 1))), 5);
        assert_eq!(ledger.judge(1, &put(1, 1)), Some(Verdict::Stored(Stored::Flushed)));
        assert_eq!(ledger.judge(2, &put(1, 2)), Some(Verdict::Refused(Reason::IdUsed, 0)));
        assert_eq!(sequence(ledger.judge(3, &put(2, 1))), 6);
        assert_eq!(
            ledger.judge(4, &put(3, 1)),
            Some(Verdict::Refused(Reason::EnvelopeQuota, QUOTA_MS))
        );
        assert_eq!(ledger.envelopes.len(), 2);
        assert_eq!(ledger.mailboxes[&KEY].remembered, 2);
    }

    #[test]
    fn an_id_may_come_again_at_the_end_of_its_ttl_and_is_remembered_once() {
        let mut ledger = ledger();
        let known = KnownPut {
            content: 9,
            expires: 1000,
            how: Stored::Flushed,
        };
        ledger.puts.insert((1, [1; 16]), known);
        assert_eq!(sequence(ledger.judge(0, &put(1, 1))), 5);
        assert_eq!(ledger.mailboxes[&KEY].remembered, 0);
    }

    #[test]
    fn a_full_relay_is_busy() {
        let mut ledger = ledger();
        ledger.room.bytes = 1023;
        assert_eq!(
            ledger.judge(0, &put(1, 1)),
            Some(Verdict::Refused(Reason::Busy, LATER_MS))
        );
    }

    #[test]
    fn a_revoked_capability_ends_within_the_transaction_and_comes_back_under_another_number() {
        let mut ledger = ledger();
        let outbox = outbox(Memory::default()).0;
        sequence(ledger.judge(0, &put(1, 1)));
        let revoke = Job::Revoke {
            key: KEY,
            hash: HASH,
            outbox,
        };
        assert_eq!(ledger.judge(1, &revoke), Some(Verdict::Done));
        assert_eq!(
            ledger.judge(2, &put(2, 1)),
            Some(Verdict::Refused(Reason::NotAllowed, 0))
        );
        assert_eq!(ledger.allow(&KEY, HASH, 1, 1 << 20), Verdict::Done);
        assert_eq!(sequence(ledger.judge(3, &put(2, 1))), 6);
        assert_eq!(ledger.capabilities[&(1, HASH)].number, 8);
        assert_eq!(ledger.revoked, [(1, HASH)]);
    }

    #[test]
    fn a_closed_mailbox_knows_nothing_but_goes_on_counting() {
        let mut ledger = ledger();
        sequence(ledger.judge(0, &put(1, 1)));
        assert_eq!(ledger.close(&KEY), Verdict::Done);
        assert_eq!(
            ledger.judge(1, &put(2, 1)),
            Some(Verdict::Refused(Reason::NotAllowed, 0))
        );
        ledger.allow(&KEY, HASH, 1, 1 << 20);
        assert_eq!(sequence(ledger.judge(2, &put(1, 2))), 6);
        assert_eq!(ledger.litter, [1]);
        let mailbox = &ledger.mailboxes[&KEY];
        assert_eq!((mailbox.number, mailbox.floor, mailbox.waiting), (2, 5, 1));
        assert_eq!(mailbox.closed, None);
    }

    #[test]
    fn the_257th_capability_is_one_too_many() {
        let mut ledger = ledger();
        ledger.mailboxes.get_mut(&KEY).unwrap().capabilities = CAPABILITIES_PER_MAILBOX;
        let other = CapabilityHash::from_bytes([3; 32]);
        assert_eq!(ledger.allow(&KEY, other, 1, 1), Verdict::TooMany);
        assert_eq!(ledger.allow(&KEY, HASH, 9, 9), Verdict::Done);
        assert_eq!(ledger.capabilities[&(1, HASH)].max_envelopes, 9);
        assert_eq!(ledger.allow(&[8; 32], HASH, 1, 1), Verdict::TooMany);
    }
}
