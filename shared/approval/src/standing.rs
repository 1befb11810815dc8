//! What stands when a request comes: the grants given in this transcript, with what became of them, and how often the rules
//! of the policy in force were used (PROTOCOL.md 9.8, 10.4). Cloning shares all of it. Not here: whether a grant may be
//! given (`replay`), and what opens a request (`decide`).

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use wire::identity::PartyId;

use crate::action::Action;
use crate::decide::{Demands, is_asker};
use crate::grant::Grant;
use crate::policy::{Uses, judge};
use crate::request::{AskedBy, Request};
use crate::revocation::Revocation;
use crate::roster::{Person, Roster};
use crate::scalar::{Digest, Time};
use crate::statement::Verified;

mod index;

use index::Index;

/// Grants that are neither revoked, over nor used up: so many can still be looked through by people.
pub const GRANTS: usize = 10_000;

/// Times kept of each rule's permits: no rule counts further (PROTOCOL.md 14).
const TIMES: usize = 1000;

/// A grant and what became of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Held {
    grant: Verified<Grant>,
    request: Verified<Request>,
    /// The devices whose approvals carry it, in the order in which the grant cites these.
    givers: Vec<PartyId>,
    used: u32,
    last_use: Option<Time>,
    revoked: Option<Verified<Revocation>>,
}

/// How it is with a grant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// It opens what is like its request.
    Stands,
    /// Somebody took it back.
    Revoked {
        /// The device that did.
        by: PartyId,
        /// The digest of the revocation.
        revocation: Digest,
    },
    /// Its time has passed.
    Over,
    /// So many permits rest on it as were granted.
    UsedUp,
    /// Of those who gave it too few are admins.
    TooFewLeft {
        /// How many are.
        left: usize,
        /// How many it takes.
        need: usize,
    },
}

impl Held {
    /// Everything verified; `givers` are the signers of the decisions that the grant cites.
    pub(crate) fn new(grant: Verified<Grant>, request: Verified<Request>, givers: Vec<PartyId>) -> Self {
        Self {
            grant,
            request,
            givers,
            used: 0,
            last_use: None,
            revoked: None,
        }
    }

    /// The same with what became of it.
    pub(crate) fn resumed(self, used: u32, last_use: Option<Time>, revoked: Option<Verified<Revocation>>) -> Self {
        Self {
            used,
            last_use,
            revoked,
            ..self
        }
    }

    /// What permits and revocations cite it by.
    pub fn digest(&self) -> Digest {
        self.grant.digest()
    }

    /// The grant, with its terms.
    pub fn grant(&self) -> &Verified<Grant> {
        &self.grant
    }

    /// The request whose like is granted.
    pub fn request(&self) -> &Verified<Request> {
        &self.request
    }

    /// The devices whose approvals carry it, in the order in which the grant cites them.
    pub fn devices(&self) -> &[PartyId] {
        &self.givers
    }

    /// The people whose devices gave it and who are in this roster, each once.
    pub fn people<'r>(&self, roster: &'r Roster) -> Vec<&'r Person> {
        let mut people: Vec<&Person> = Vec::new();
        for (person, _) in self.givers.iter().filter_map(|giver| roster.person_of(giver)) {
            if people.iter().all(|other| other.name != person.name) {
                people.push(person);
            }
        }
        people
    }

    /// Permits that rest on it.
    pub fn used(&self) -> u32 {
        self.used
    }

    /// Permits that may still rest on it; none if there is no bound.
    pub fn uses_left(&self) -> Option<u32> {
        self.grant.terms.uses.map(|uses| uses.saturating_sub(self.used))
    }

    /// When the last of these permits was given.
    pub fn last_use(&self) -> Option<Time> {
        self.last_use
    }

    /// How it was taken back, if it was.
    pub fn revocation(&self) -> Option<&Verified<Revocation>> {
        self.revoked.as_ref()
    }

    /// How it ended by itself or by somebody's word, whoever is left; nothing while it hasn't.
    pub fn ended(&self, now: Time) -> Option<State> {
        if let Some(revocation) = &self.revoked {
            return Some(State::Revoked {
                by: revocation.signer(),
                revocation: revocation.digest(),
            });
        }
        if self.grant.terms.not_after.is_some_and(|last| now > last) {
            return Some(State::Over);
        }
        (self.uses_left() == Some(0)).then_some(State::UsedUp)
    }

    /// How many of those who gave it are admins; without the one who is asking, where that one can't approve.
    pub(crate) fn givers_left(&self, roster: &Roster, asked_by: Option<&AskedBy>) -> usize {
        let mut names = BTreeSet::new();
        for admin in self.givers.iter().filter_map(|giver| roster.admin_of(giver)) {
            if !asked_by.is_some_and(|asked_by| is_asker(admin, roster, asked_by)) {
                names.insert(&admin.name);
            }
        }
        names.len()
    }

    fn is_live(&self) -> bool {
        self.revoked.is_none() && self.uses_left() != Some(0)
    }
}

/// The grants of a transcript and the uses of its policy's rules. Finding the grants for an action takes the logarithm of
/// their number for each way in which grants of this very program leave blanks.
#[derive(Debug, Clone, Default)]
pub struct Standing {
    /// In transcript order.
    held: Arc<Vec<Arc<Held>>>,
    index: Arc<Index>,
    uses: Counted,
}

/// How often rules were used.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Counted {
    /// The times of the last permits by each rule that counts them, since the policy's text is in force.
    Known(Arc<BTreeMap<u32, VecDeque<Time>>>),
    /// Nothing is known but what somebody says: these are used up, the others are unused. For the proof of a single approval.
    Said(BTreeSet<u32>),
}

/// The rules of the policy in force that match this, asked now, and count their uses.
pub(crate) fn counted(roster: &Roster, action: &Action, asked_by: &AskedBy, now: Time) -> BTreeSet<u32> {
    /// Whoever counts asks.
    struct Asked(RefCell<BTreeSet<u32>>);

    impl Uses for Asked {
        fn used(&self, rule: u32, _: Option<Time>) -> u32 {
            self.0.borrow_mut().insert(rule);
            0
        }
    }

    let asked = Asked(RefCell::default());
    judge(roster.policy.as_ref(), action, asked_by, now, &asked);
    asked.0.into_inner()
}

impl Default for Counted {
    fn default() -> Self {
        Self::Known(Arc::default())
    }
}

/// The index follows from the grants.
impl PartialEq for Standing {
    fn eq(&self, other: &Self) -> bool {
        self.held == other.held && self.uses == other.uses
    }
}

impl Eq for Standing {}

impl Uses for Standing {
    fn used(&self, rule: u32, since: Option<Time>) -> u32 {
        match &self.uses {
            Counted::Said(used_up) if used_up.contains(&rule) => u32::MAX,
            Counted::Said(_) => 0,
            Counted::Known(times) => {
                let times = times.get(&rule);
                let within = |time: &&Time| since.is_none_or(|since| **time > since);
                let count = times.map_or(0, |times| times.iter().rev().take_while(within).count());
                u32::try_from(count).unwrap_or(u32::MAX)
            }
        }
    }
}

impl Standing {
    /// With these grants in transcript order and these times of permits by rules.
    pub(crate) fn resumed(held: Vec<Held>, uses: BTreeMap<u32, VecDeque<Time>>) -> Self {
        let mut standing = Self {
            uses: Counted::Known(Arc::new(uses)),
            ..Self::default()
        };
        for one in held {
            standing.give(one);
        }
        standing
    }

    /// All grants of the transcript, the oldest first, whatever became of them.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = &Held> {
        self.held.iter().map(|held| &**held)
    }

    /// Number of grants in the transcript.
    pub fn len(&self) -> usize {
        self.held.len()
    }

    /// Whether nothing was ever granted.
    pub fn is_empty(&self) -> bool {
        self.held.is_empty()
    }

    /// The grant with this digest.
    pub fn get(&self, digest: &Digest) -> Option<&Held> {
        self.index
            .position(digest)
            .and_then(|at| self.held.get(at))
            .map(|held| &**held)
    }

    /// How it is with a grant now, for what is exactly its request.
    pub fn state(&self, held: &Held, roster: &Roster, now: Time) -> State {
        if let Some(ended) = held.ended(now) {
            return ended;
        }
        let request = &held.request;
        let demands = Demands::of(roster, self, &request.action, &request.asked_by, now);
        let asked_by = demands.four_eyes.then_some(&request.asked_by);
        let (left, need) = (held.givers_left(roster, asked_by), usize::from(demands.need));
        if left < need {
            State::TooFewLeft { left, need }
        } else {
            State::Stands
        }
    }

    /// The grants for what is like this action, asked by this one, the oldest first. Some of them may be over, or have too few left.
    pub fn alike(&self, action: &Action, asked_by: &AskedBy) -> Vec<&Held> {
        let found = self.index.candidates(action, asked_by);
        let held = found.into_iter().filter_map(|at| self.held.get(at)).map(|held| &**held);
        held.filter(|held| held.is_live() && held.grant.terms.cover(&held.request, action, asked_by))
            .collect()
    }

    /// How many grants have ended neither by themselves nor by somebody's word.
    pub fn unended(&self, now: Time) -> usize {
        self.iter().filter(|held| held.ended(now).is_none()).count()
    }

    /// How many digests and times a snapshot holds for this.
    pub(crate) fn weight(&self) -> usize {
        let grants = self.iter().map(|held| held.givers.len().saturating_add(3));
        let times = match &self.uses {
            Counted::Known(times) => times.values().map(VecDeque::len).sum(),
            Counted::Said(_) => 0,
        };
        grants.fold(times, usize::saturating_add)
    }

    /// The times of permits by each rule.
    pub(crate) fn times(&self) -> impl Iterator<Item = (u32, &VecDeque<Time>)> {
        let known = match &self.uses {
            Counted::Known(times) => Some(times),
            Counted::Said(_) => None,
        };
        known
            .into_iter()
            .flat_map(|times| times.iter().map(|(rule, times)| (*rule, times)))
    }

    pub(crate) fn give(&mut self, held: Held) {
        let at = self.held.len();
        Arc::make_mut(&mut self.index).insert(at, &held, &self.held);
        Arc::make_mut(&mut self.held).push(Arc::new(held));
    }

    pub(crate) fn revoke(&mut self, revocation: Verified<Revocation>) {
        let grant = revocation.grant;
        self.change(&grant, |held| held.revoked = Some(revocation));
    }

    /// One more permit rests on this grant.
    pub(crate) fn use_grant(&mut self, grant: &Digest, time: Time) {
        self.change(grant, |held| {
            held.used = held.used.saturating_add(1);
            held.last_use = Some(time);
        });
    }

    /// One more permit rests on this rule.
    pub(crate) fn use_rule(&mut self, rule: u32, time: Time) {
        if let Counted::Known(times) = &mut self.uses {
            let times = Arc::make_mut(times).entry(rule).or_default();
            times.push_back(time);
            if times.len() > TIMES {
                times.pop_front();
            }
        }
    }

    /// Another policy: its rules are others.
    pub(crate) fn forget_uses(&mut self) {
        if let Counted::Known(times) = &mut self.uses {
            *times = Arc::default();
        }
    }

    /// The same with these rules used up and all others unused, on somebody's word.
    pub(crate) fn said(&self, used_up: BTreeSet<u32>) -> Self {
        Self {
            uses: Counted::Said(used_up),
            ..self.clone()
        }
    }

    fn change(&mut self, grant: &Digest, edit: impl FnOnce(&mut Held)) {
        let Some(at) = self.index.position(grant) else {
            return;
        };
        let Some(held) = Arc::make_mut(&mut self.held).get_mut(at) else {
            return;
        };
        edit(Arc::make_mut(held));
        if !held.is_live() {
            Arc::make_mut(&mut self.index).forget(at, held);
        }
    }
}

#[cfg(test)]
mod tests;
