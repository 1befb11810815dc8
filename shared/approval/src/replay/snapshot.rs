//! The state of a replay in short, so that a party with a long transcript needn't read all of it at each start. Kept beside the
//! entries and never believed over them: it is bound to a checkpoint, cites statements instead of holding them, and each of these is
//! verified again. Where anything doesn't fit, the whole transcript is read as if there were no snapshot.
//!
//! Deliberately not here: where it is kept; and files, which an auditor always reads whole.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use super::Replay;
use super::rules::{Pending, Rules, time_of};
use crate::checkpoint::Checkpoint;
use crate::decision::{Answer, Decision};
use crate::json::object;
use crate::request::Request;
use crate::scalar::{Digest, Time};
use crate::standing::{Held, Standing};
use crate::statement::{Signed, Statement, Verified};
use crate::transcript::{Log, TreeHash, leaf_hash};

object! {
    /// What a replay knows, in digests of statements.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct Snapshot v 1 {
        /// Number of entries.
        size: u64,
        /// Number of entries before the oldest request that decisions may still be about; `size` if there is none.
        base: u64,
        /// The log's frontier at that size. What comes after it is read again, for the roots that decisions may quote.
        frontier: Vec<Digest>,
        /// The latest time of the gate.
        time: Time,
        /// The roster in force.
        roster: Digest,
        /// The requests that have not ended, in their order.
        open: Vec<Open>,
        /// All grants, in their order.
        grants: Vec<Given>,
        /// The times of the last permits by each rule of the policy in force.
        rules: Vec<(u32, Vec<Time>)>,
    }
}

object! {
    /// A request that has not ended.
    #[derive(Clone, Debug, PartialEq, Eq)]
    struct Open {
        request: Digest,
        decisions: Vec<Digest>,
        permit: Option<Digest>,
    }
}

object! {
    /// A grant and what became of it.
    #[derive(Clone, Debug, PartialEq, Eq)]
    struct Given {
        grant: Digest,
        used: u32,
        last_use: Option<Time>,
        revoked: Option<Digest>,
        request: Digest,
        decisions: Vec<Digest>,
    }
}

/// Bytes of the checksum before the text.
const CHECKSUM: usize = 32;

impl Replay {
    /// The state now; nothing before the first entry.
    #[must_use]
    pub fn snapshot(&self) -> Option<Snapshot> {
        let open = |pending: &Pending| Open {
            request: pending.request().digest(),
            decisions: pending.decisions().iter().map(Verified::digest).collect(),
            permit: pending.permit().map(Verified::digest),
        };
        Some(Snapshot {
            size: self.size(),
            base: self.base.size(),
            frontier: self.base.frontier().iter().copied().map(Digest).collect(),
            time: self.time()?,
            roster: self.roster()?.digest(),
            open: self.open().map(open).collect(),
            grants: self.standing().iter().map(given).collect(),
            rules: self
                .standing()
                .times()
                .map(|(rule, times)| (rule, times.iter().copied().collect()))
                .collect(),
        })
    }
}

fn given(held: &Held) -> Given {
    Given {
        grant: held.digest(),
        used: held.used(),
        last_use: held.last_use(),
        revoked: held.revocation().map(Verified::digest),
        request: held.request().digest(),
        decisions: held.grant().decisions.clone(),
    }
}

impl Snapshot {
    /// For a store. The checksum is against damage; against anything else the entries and the checkpoint are.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        // Nothing in it has a way to fail; no text would be refused when it is read.
        let text = serde_json::to_vec(self).unwrap_or_default();
        [Digest::of(&text).as_bytes(), text.as_slice()].concat()
    }

    /// What was encoded; nothing if it was damaged or is of another version.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let (checksum, text) = bytes.split_first_chunk::<CHECKSUM>()?;
        (Digest::of(text).as_bytes() == checksum).then_some(())?;
        serde_json::from_slice(text).ok()
    }

    /// Number of entries that it is about: a checkpoint of this size is needed to resume.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size
    }

    /// The first entry whose hash is needed to resume; those from there to [`size`](Self::size) are.
    #[must_use]
    pub fn tail(&self) -> u64 {
        self.base
    }

    /// Digests of the statements that are needed to resume, some of them more than once.
    pub fn statements(&self) -> impl Iterator<Item = Digest> {
        let grants = self.grants.iter().flat_map(|given| {
            let first = [given.grant, given.request].into_iter();
            first.chain(given.decisions.iter().copied()).chain(given.revoked)
        });
        let open = self.open.iter().flat_map(|open| {
            let first = std::iter::once(open.request);
            first.chain(open.decisions.iter().copied()).chain(open.permit)
        });
        std::iter::once(self.roster).chain(open).chain(grants)
    }

    /// The replay as it was, if all of this fits together: the gate's checkpoint of this size, the hashes of the entries from
    /// [`tail`](Self::tail) on, and the statements, in any order. Each statement is verified again.
    #[must_use]
    pub fn resume(&self, checkpoint: &Checkpoint, tail: &[TreeHash], statements: &[Signed]) -> Option<Replay> {
        let base = Log::restore(self.base, self.frontier.iter().map(|hash| hash.0).collect())?;
        let (mut log, mut roots) = (base.clone(), VecDeque::with_capacity(tail.len()));
        for leaf in tail {
            log.append_hash(*leaf);
            roots.push_back(log.root());
        }
        let signed = (checkpoint.size(), checkpoint.root());
        if signed != (log.size(), log.root()) || log.size() != self.size {
            return None;
        }
        let cited = Cited {
            gate: checkpoint,
            base: self.base,
            tail: tail.iter().collect(),
            statements: statements.iter().map(|signed| (signed.digest(), signed)).collect(),
        };
        let roster = cited.by_gate(&self.roster)?.roster()?;
        let pending: Vec<Pending> = self
            .open
            .iter()
            .map(|open| cited.pending(open))
            .collect::<Option<_>>()?;
        let in_order = pending
            .iter()
            .zip(pending.iter().skip(1))
            .all(|(one, next)| one.request().index < next.request().index);
        let latest = pending.iter().flat_map(|pending| {
            let permitted = pending.permit().map(|permit| permit.time);
            permitted.into_iter().chain([pending.request().created])
        });
        let standing = self.standing(&cited)?;
        let granted = standing
            .iter()
            .map(|held| held.grant().time.max(held.last_use().unwrap_or(roster.created)));
        let used = standing.times().flat_map(|(_, times)| times.iter().copied());
        let latest = latest.chain(granted).chain(used).max().max(Some(roster.created));
        let rules = Rules::resumed(
            *checkpoint.gate(),
            roster,
            self.time,
            pending.into_iter().map(Arc::new).collect(),
            standing,
        );
        // The roots that decisions may quote are exactly those since the oldest open request.
        let since = rules.oldest_open().unwrap_or(self.size);
        let fits = in_order && latest <= Some(self.time) && since == self.base;
        fits.then(|| Replay {
            log,
            rules,
            roots,
            base,
            leaves: tail.iter().copied().collect(),
        })
    }

    fn standing(&self, cited: &Cited<'_>) -> Option<Standing> {
        let grants: Vec<Held> = self
            .grants
            .iter()
            .map(|given| cited.given(given))
            .collect::<Option<_>>()?;
        let in_order = |one: &Held, next: &Held| one.grant().time <= next.grant().time;
        let grants_in_order = grants
            .iter()
            .zip(grants.iter().skip(1))
            .all(|(one, next)| in_order(one, next));
        let distinct = grants.iter().map(Held::digest).collect::<BTreeSet<_>>().len() == grants.len();
        let times_in_order = |times: &Vec<Time>| times.iter().zip(times.iter().skip(1)).all(|(one, next)| one <= next);
        let rules: BTreeMap<u32, VecDeque<Time>> = self
            .rules
            .iter()
            .map(|(rule, times)| (*rule, times.iter().copied().collect()))
            .collect();
        let fits = grants_in_order
            && distinct
            && rules.len() == self.rules.len()
            && self
                .rules
                .iter()
                .all(|(_, times)| times_in_order(times) && !times.is_empty());
        fits.then(|| Standing::resumed(grants, rules))
    }
}

/// The statements that a snapshot cites.
struct Cited<'a> {
    gate: &'a Checkpoint,
    base: u64,
    tail: BTreeSet<&'a TreeHash>,
    statements: BTreeMap<Digest, &'a Signed>,
}

impl Cited<'_> {
    fn find(&self, digest: &Digest) -> Option<Verified<Statement>> {
        self.statements.get(digest)?.verify().ok()
    }

    fn by_gate(&self, digest: &Digest) -> Option<Verified<Statement>> {
        self.find(digest)
            .filter(|statement| statement.signer() == *self.gate.gate() && time_of(statement).is_some())
    }

    fn pending(&self, open: &Open) -> Option<Pending> {
        let request = self.by_gate(&open.request)?.request()?;
        let mut texts = vec![request.signed().clone()];
        let (mut decisions, mut seen) = (Vec::new(), Vec::new());
        for digest in &open.decisions {
            let (decision, quoted) = self.decision(digest, &request)?;
            texts.push(decision.signed().clone());
            decisions.push(decision);
            seen.push(quoted);
        }
        let permit = match &open.permit {
            Some(digest) => Some(
                self.by_gate(digest)?
                    .permit()
                    .filter(|permit| permit.request == open.request)?,
            ),
            None => None,
        };
        texts.extend(permit.as_ref().map(|permit| permit.signed().clone()));
        self.holds(&request, &texts)
            .then(|| Pending::resumed(request, decisions, seen, permit))
    }

    fn decision(&self, digest: &Digest, request: &Verified<Request>) -> Option<(Verified<Decision>, Checkpoint)> {
        let decision = self.find(digest)?.decision()?;
        let quoted = Checkpoint::verify(&decision.checkpoint, self.gate.gate()).ok()?;
        (decision.request == request.digest() && quoted.size() > request.index).then_some((decision, quoted))
    }

    fn given(&self, given: &Given) -> Option<Held> {
        let grant = self.by_gate(&given.grant)?.grant()?;
        let request = self.by_gate(&given.request)?.request()?;
        let same = grant.request == given.request && grant.decisions == given.decisions;
        (same && grant.terms.may_cover(&request.action).is_ok()).then_some(())?;
        let mut texts = vec![request.signed().clone(), grant.signed().clone()];
        let mut givers = Vec::new();
        for digest in &given.decisions {
            let (decision, _) = self.decision(digest, &request)?;
            let carries = decision.verdict == Answer::Approve && decision.grant.as_ref() == Some(&grant.terms);
            carries.then_some(())?;
            texts.push(decision.signed().clone());
            givers.push(decision.signer());
        }
        let revoked = match &given.revoked {
            Some(digest) => Some(
                self.find(digest)?
                    .revocation()
                    .filter(|revocation| revocation.grant == given.grant)?,
            ),
            None => None,
        };
        texts.extend(revoked.as_ref().map(|revoked| revoked.signed().clone()));
        let used = (given.used == 0) == given.last_use.is_none()
            && grant.terms.uses.is_none_or(|uses| given.used <= uses)
            && given.last_use.is_none_or(|last| grant.time <= last);
        let known = used && self.holds(&request, &texts);
        known.then(|| Held::new(grant, request, givers).resumed(given.used, given.last_use, revoked))
    }

    /// Of what came after the tail's beginning it is known that the log holds it.
    fn holds(&self, request: &Verified<Request>, about: &[Signed]) -> bool {
        let held = |signed: &Signed| self.tail.contains(&leaf_hash(signed.as_bytes()));
        (request.index < self.base || about.iter().all(held)) && request.index < self.gate.size()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

    use super::super::fixture::*;
    use super::*;
    use crate::decision::Answer;

    /// What a store would give back for a snapshot.
    fn resume(snapshot: &Snapshot, checkpoint: &Checkpoint, entries: &[Signed]) -> Option<Replay> {
        let statements: Vec<Signed> = snapshot
            .statements()
            .map(|digest| entries.iter().find(|entry| entry.digest() == digest).cloned())
            .collect::<Option<_>>()?;
        let tail = entries.get(usize::try_from(snapshot.tail()).unwrap()..usize::try_from(snapshot.size()).unwrap())?;
        let tail: Vec<TreeHash> = tail.iter().map(|entry| leaf_hash(entry.as_bytes())).collect();
        snapshot.resume(checkpoint, &tail, &statements)
    }

    fn checkpoint(replay: &Replay) -> Checkpoint {
        Checkpoint::sign(&identity(GATE), replay.size(), replay.root())
    }

    /// Three seasons, one after the other would be another gate's: so a long one, with requests that overlap for long.
    fn long() -> World {
        let mut world = season();
        for turn in 0..40_u8 {
            let first = world.ask(command(&[b"git", &[b'a' + turn % 26]]));
            let second = world.ask(command(&[b"git", b"log"]));
            world.approve(ALICE, first);
            world.approve(CAROL, second);
            if turn % 3 == 0 {
                world.deny(ALICE, second);
            }
            world.approve(CAROL, first);
            world.permit(first);
            if turn % 5 != 0 {
                world.end(first, ran(crate::outcome::Exit::Code(0), None));
            }
            if turn % 7 != 0 {
                world.end(second, crate::outcome::Ended::Withdrawn(crate::outcome::Nothing {}));
            }
        }
        world
    }

    #[test]
    fn resumed_is_replayed_after_every_entry() {
        let world = long();
        let mut replay = Replay::new(Some(identity(GATE).party()));
        assert!(replay.snapshot().is_none());
        for (at, entry) in world.entries.iter().enumerate() {
            replay.next(entry.as_bytes()).unwrap();
            let snapshot = Snapshot::decode(&replay.snapshot().unwrap().encode()).unwrap();
            let mut resumed = resume(&snapshot, &checkpoint(&replay), &world.entries).unwrap();
            assert_eq!(resumed, replay, "after entry {at}");
            // And goes on the same.
            for next in world.entries.iter().skip(at + 1).take(12) {
                resumed.next(next.as_bytes()).unwrap();
            }
        }
        assert_eq!(replay, world.replay);
    }

    #[test]
    fn a_decision_about_an_old_checkpoint_is_still_judged_the_same() {
        let mut world = World::two_of_three();
        let open = world.ask(command(&[b"git"]));
        let early = world.decision(BOB, open, Answer::Approve);
        for _ in 0..20 {
            let other = world.ask(command(&[b"git", b"gc"]));
            world.end(other, crate::outcome::Ended::Withdrawn(crate::outcome::Nothing {}));
        }
        let snapshot = world.replay.snapshot().unwrap();
        world.replay = resume(&snapshot, &world.checkpoint(), &world.entries).unwrap();
        assert!(world.judge(BOB, early).is_ok());
        let mut forked = world.decision(BOB, open, Answer::Approve);
        forked.checkpoint = Checkpoint::sign(&identity(GATE), 10, [7; 32]).as_str().to_owned();
        assert_eq!(
            world.judge(BOB, forked).unwrap_err().kind,
            super::super::FindingKind::Fork(10)
        );
    }

    #[test]
    fn every_damaged_byte_is_noticed() {
        let bytes = long().replay.snapshot().unwrap().encode();
        for at in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[at] ^= 1;
            assert!(Snapshot::decode(&damaged).is_none(), "byte {at}");
        }
        assert!(Snapshot::decode(&bytes[..bytes.len() - 1]).is_none() && Snapshot::decode(b"").is_none());
    }

    #[test]
    fn what_does_not_fit_the_entries_is_not_believed() {
        let world = season();
        let good = world.replay.snapshot().unwrap();
        assert!(resume(&good, &world.checkpoint(), &world.entries).is_some());
        let refused = |edit: &dyn Fn(&mut Snapshot)| {
            let mut bad = good.clone();
            edit(&mut bad);
            assert!(
                bad != good && resume(&bad, &world.checkpoint(), &world.entries).is_none(),
                "{bad:?}"
            );
        };
        refused(&|it| it.size -= 1);
        refused(&|it| it.base -= 1);
        refused(&|it| it.base += 1);
        refused(&|it| it.frontier[0].0[0] ^= 1);
        refused(&|it| _ = it.frontier.pop());
        refused(&|it| it.time = Time::from_millis(0).unwrap());
        refused(&|it| it.roster = it.open[0].request);
        refused(&|it| it.open[0].request = it.roster);
        refused(&|it| it.open.swap(0, 1));
        // The one that is open: without it decisions would be about roots that aren't kept.
        refused(&|it| drop(it.open.pop()));
        refused(&|it| it.open[1].decisions = it.open[0].decisions.clone());
        refused(&|it| it.open[1].permit = it.open[0].permit);
        refused(&|it| it.open[0].permit = None);
        refused(&|it| it.grants[0].grant = it.grants[1].grant);
        refused(&|it| it.grants[0] = it.grants[1].clone());
        refused(&|it| it.grants.swap(0, 1));
        refused(&|it| it.grants[0].request = it.grants[1].request);
        refused(&|it| _ = it.grants[0].decisions.pop());
        refused(&|it| it.grants[0].decisions.swap(0, 1));
        refused(&|it| it.grants[0].revoked = Some(it.grants[0].grant));
        refused(&|it| it.grants[0].last_use = None);
        refused(&|it| it.grants[1].used = 1);
        refused(&|it| it.grants[0].last_use = Some(it.time.plus_millis(1)));
        refused(&|it| it.rules[0].1.reverse());
        refused(&|it| it.rules[0].1.clear());
        refused(&|it| it.rules[0].1[1] = it.time.plus_millis(1));
        refused(&|it| it.rules.push(it.rules[0].clone()));
        let other = Checkpoint::sign(&identity(GATE), world.replay.size(), [7; 32]);
        assert!(resume(&good, &other, &world.entries).is_none());
        let (stranger, replay) = (identity(ALICE), &world.replay);
        let strangers = Checkpoint::sign(&stranger, replay.size(), replay.root());
        assert!(resume(&good, &strangers, &world.entries).is_none());
    }
}
