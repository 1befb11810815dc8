//! What each entry of a transcript must fulfil, given what stands before it.
//!
//! PROTOCOL.md 10.4. Positions, roots and hashes are the caller's: a whole transcript knows them all ([`super::Replay`]), the
//! proof of a single approval only some ([`crate::proof`]).

use std::sync::Arc;

use wire::identity::PartyId;

use super::{Did, FindingKind};
use crate::action::Action;
use crate::checkpoint::Checkpoint;
use crate::decide::{Verdict, decide_with};
use crate::decision::Decision;
use crate::outcome::{Ended, Outcome};
use crate::permit::Permission;
use crate::request::Request;
use crate::roster::Roster;
use crate::scalar::{Digest, Time};
use crate::statement::{Statement, Verified};

/// Requests open at once at most: nobody reads more. Those that are permitted and still running aren't counted.
pub const OPEN_REQUESTS: usize = 64;

/// A request that has not ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pending {
    request: Verified<Request>,
    decisions: Vec<Verified<Decision>>,
    /// The checkpoint that each decision quotes, verified when it was recorded: it isn't verified again for each verdict.
    seen: Vec<Checkpoint>,
    permit: Option<Verified<Permission>>,
}

impl Pending {
    /// As it was kept. `seen` are the checkpoints that the decisions quote.
    pub(super) fn resumed(
        request: Verified<Request>,
        decisions: Vec<Verified<Decision>>,
        seen: Vec<Checkpoint>,
        permit: Option<Verified<Permission>>,
    ) -> Self {
        Self {
            request,
            decisions,
            seen,
            permit,
        }
    }

    /// The request.
    #[must_use]
    pub fn request(&self) -> &Verified<Request> {
        &self.request
    }

    /// The decisions recorded so far, in transcript order.
    #[must_use]
    pub fn decisions(&self) -> &[Verified<Decision>] {
        &self.decisions
    }

    /// The permit, if it was given: then no decision counts any more.
    #[must_use]
    pub fn permit(&self) -> Option<&Verified<Permission>> {
        self.permit.as_ref()
    }

    /// What [`decide`](crate::decide::decide) says by this roster at this time.
    #[must_use]
    pub fn decide(&self, roster: &Verified<Roster>, now: Time) -> Verdict {
        let seen = |at: usize, _: &_| self.seen.get(at).map(Checkpoint::size);
        decide_with(&self.request, &self.decisions, roster, now, &seen)
    }
}

/// How an entry changes the state. `at` is a position among the pending requests.
#[derive(Debug, Clone)]
pub(crate) enum Step {
    Roster {
        roster: Verified<Roster>,
        closes: Option<usize>,
    },
    Request(Verified<Request>),
    Decision {
        at: usize,
        decision: Verified<Decision>,
        seen: Checkpoint,
    },
    Permit {
        at: usize,
        permit: Verified<Permission>,
    },
    Outcome {
        at: usize,
        time: Time,
    },
}

/// A step, what it does, and position and digest of the request that it is about.
pub(crate) type Judged = (Step, Did, Option<(u64, Digest)>);

/// Asks the caller whether a checkpoint, already verified, is of this log.
pub(crate) type IsHistory<'a> = &'a dyn Fn(&Checkpoint) -> Result<(), FindingKind>;

/// The roster in force, the clock and the pending requests.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Rules {
    gate: Option<PartyId>,
    roster: Option<Arc<Verified<Roster>>>,
    time: Option<Time>,
    pending: Vec<Arc<Pending>>,
}

impl Rules {
    pub(crate) fn new(gate: Option<PartyId>) -> Self {
        Self {
            gate,
            ..Self::default()
        }
    }

    /// As they were kept.
    pub(super) fn resumed(gate: PartyId, roster: Verified<Roster>, time: Time, pending: Vec<Arc<Pending>>) -> Self {
        Self {
            gate: Some(gate),
            roster: Some(Arc::new(roster)),
            time: Some(time),
            pending,
        }
    }

    pub(crate) fn gate(&self) -> Option<PartyId> {
        self.gate
    }

    pub(crate) fn roster(&self) -> Option<&Verified<Roster>> {
        self.roster.as_deref()
    }

    pub(crate) fn time(&self) -> Option<Time> {
        self.time
    }

    pub(crate) fn pending(&self) -> impl Iterator<Item = &Pending> {
        self.pending.iter().map(|pending| &**pending)
    }

    /// Position of the oldest request that decisions may still be about.
    pub(crate) fn oldest_open(&self) -> Option<u64> {
        self.pending()
            .find(|pending| pending.permit.is_none())
            .map(|pending| pending.request.index)
    }

    /// Judges the entry at `index`.
    pub(crate) fn step(
        &self,
        index: u64,
        statement: &Verified<Statement>,
        is_history: IsHistory<'_>,
    ) -> Result<Judged, FindingKind> {
        let Some(force) = self.roster() else {
            return self.genesis(statement);
        };
        if !matches!(statement.get(), Statement::Decision(_) | Statement::Device(_)) {
            self.said_by_gate(force, statement)?;
        }
        if let Some(roster) = statement.roster() {
            return self.change(force, roster);
        }
        if let Some(request) = statement.request() {
            return self.request(index, force, request);
        }
        if let Some(decision) = statement.decision() {
            return self.decision(force, decision, is_history);
        }
        if let Some(permit) = statement.permit() {
            return self.permit(force, permit);
        }
        match statement.outcome() {
            Some(outcome) => self.outcome(force, &outcome),
            None => Err(FindingKind::Misplaced(statement.kind())),
        }
    }

    /// Takes over what [`step`](Self::step) judged, for this state.
    pub(crate) fn apply(&mut self, step: Step) {
        match step {
            Step::Roster { roster, closes } => {
                self.time = Some(roster.created);
                self.gate = Some(roster.gate);
                self.roster = Some(Arc::new(roster));
                if let Some(at) = closes.filter(|at| *at < self.pending.len()) {
                    self.pending.remove(at);
                }
            }
            Step::Request(request) => {
                self.time = Some(request.created);
                self.pending.push(Arc::new(Pending {
                    request,
                    decisions: Vec::new(),
                    seen: Vec::new(),
                    permit: None,
                }));
            }
            Step::Decision { at, decision, seen } => {
                if let Some(pending) = self.pending.get_mut(at) {
                    let pending = Arc::make_mut(pending);
                    pending.decisions.push(decision);
                    pending.seen.push(seen);
                }
            }
            Step::Permit { at, permit } => {
                self.time = Some(permit.time);
                if let Some(pending) = self.pending.get_mut(at) {
                    Arc::make_mut(pending).permit = Some(permit);
                }
            }
            Step::Outcome { at, time } => {
                self.time = Some(time);
                if at < self.pending.len() {
                    self.pending.remove(at);
                }
            }
        }
    }

    /// Whether a roster is the next one after the one in force, whatever it rests on.
    pub(crate) fn is_next(&self, force: &Verified<Roster>, roster: &Roster) -> Result<(), FindingKind> {
        let follows = force.epoch.checked_add(1) == Some(roster.epoch) && roster.previous == Some(force.digest());
        if follows { Ok(()) } else { Err(FindingKind::NotNext) }
    }

    /// The gate signed it, and its clock didn't run backwards.
    pub(crate) fn said_by_gate(
        &self,
        force: &Verified<Roster>,
        statement: &Verified<Statement>,
    ) -> Result<(), FindingKind> {
        if statement.signer() != force.gate {
            return Err(FindingKind::NotByGate(statement.kind()));
        }
        match (self.time, time_of(statement)) {
            (Some(from), Some(to)) if to < from => Err(FindingKind::Time { from, to }),
            _ => Ok(()),
        }
    }

    fn genesis(&self, statement: &Verified<Statement>) -> Result<Judged, FindingKind> {
        let roster = statement
            .roster()
            .filter(|roster| roster.epoch == 0)
            .ok_or(FindingKind::NotGenesis)?;
        if let Some(expected) = self.gate.filter(|gate| *gate != roster.gate) {
            return Err(FindingKind::OtherGate {
                expected,
                found: roster.gate,
            });
        }
        // What 8.2 asks of a genesis beyond its epoch was checked when the payload was read.
        Ok((Step::Roster { roster, closes: None }, Did::Began, None))
    }

    fn change(&self, force: &Verified<Roster>, roster: Verified<Roster>) -> Result<Judged, FindingKind> {
        self.is_next(force, &roster)?;
        if !force.is_enrolled() {
            return match roster.basis {
                None => Ok((Step::Roster { roster, closes: None }, Did::Enrolled, None)),
                Some(_) => Err(FindingKind::Basis),
            };
        }
        let basis = roster.basis.ok_or(FindingKind::NoBasis)?;
        if !roster.is_enrolled() {
            return Err(FindingKind::NobodyLeft);
        }
        let (at, pending) = self.find(&basis).map_err(|_| FindingKind::NotPermittedBasis)?;
        match (&pending.request.action, &pending.permit) {
            (Action::Roster(contents), Some(_)) if roster.has_contents(contents) => {
                let about = Some((pending.request.index, basis));
                Ok((
                    Step::Roster {
                        roster,
                        closes: Some(at),
                    },
                    Did::Changed,
                    about,
                ))
            }
            (Action::Roster(_), Some(_)) => Err(FindingKind::OtherRoster),
            _ => Err(FindingKind::NotPermittedBasis),
        }
    }

    fn request(&self, index: u64, force: &Verified<Roster>, request: Verified<Request>) -> Result<Judged, FindingKind> {
        if request.index != index {
            return Err(FindingKind::Moved(request.index));
        }
        if request.roster != force.digest() {
            return Err(FindingKind::OldRoster);
        }
        let expected = force.quorum.of(request.class);
        if request.need != expected {
            return Err(FindingKind::Need {
                expected,
                found: request.need,
            });
        }
        if self.pending().filter(|pending| pending.permit.is_none()).count() >= OPEN_REQUESTS {
            return Err(FindingKind::TooManyOpen);
        }
        let about = Some((index, request.digest()));
        Ok((Step::Request(request), Did::Asked, about))
    }

    fn decision(
        &self,
        force: &Verified<Roster>,
        decision: Verified<Decision>,
        is_history: IsHistory<'_>,
    ) -> Result<Judged, FindingKind> {
        let (at, pending) = self.find_open(&decision.request)?;
        if force.admin_of(&decision.signer()).is_none() {
            return Err(FindingKind::NotAdmin);
        }
        if pending
            .decisions
            .iter()
            .any(|recorded| recorded.digest() == decision.digest())
        {
            return Err(FindingKind::Repeated);
        }
        // Admins who answer together quote the same text: verified once, by the one gate that a transcript has.
        let same = pending.seen.iter().find(|seen| seen.as_str() == decision.checkpoint);
        let seen = match same {
            Some(seen) => seen.clone(),
            None => Checkpoint::verify(&decision.checkpoint, &force.gate).map_err(FindingKind::Checkpoint)?,
        };
        if seen.size() <= pending.request.index {
            return Err(FindingKind::EarlyCheckpoint);
        }
        is_history(&seen)?;
        let about = Some((pending.request.index, decision.request));
        Ok((Step::Decision { at, decision, seen }, Did::Decided, about))
    }

    fn permit(&self, force: &Verified<Roster>, permit: Verified<Permission>) -> Result<Judged, FindingKind> {
        let (at, pending) = self.find_open(&permit.request)?;
        if permit.roster != force.digest() {
            return Err(FindingKind::OldRoster);
        }
        let leave = match pending.decide(force, permit.time) {
            Verdict::Open(leave) => leave,
            Verdict::Waiting { .. } => return Err(FindingKind::Undecided("too few people have approved")),
            Verdict::Denied { .. } => return Err(FindingKind::Undecided("an admin has denied it")),
            Verdict::Expired => return Err(FindingKind::Undecided("it had expired")),
            Verdict::Refused(_) => return Err(FindingKind::Undecided("there is nobody to approve it")),
        };
        if leave.decisions() != permit.decisions {
            return Err(FindingKind::OtherDecisions);
        }
        let about = Some((pending.request.index, permit.request));
        Ok((Step::Permit { at, permit }, Did::Permitted, about))
    }

    fn outcome(&self, force: &Verified<Roster>, outcome: &Verified<Outcome>) -> Result<Judged, FindingKind> {
        let (at, pending) = self.find(&outcome.request)?;
        match (outcome.permit, &pending.permit) {
            (Some(_), None) => return Err(FindingKind::NotPermitted),
            (None, Some(_)) => return Err(FindingKind::PermittedAlready),
            (Some(cited), Some(given)) if cited != given.digest() => return Err(FindingKind::OtherPermit),
            _ => {}
        }
        match &outcome.result {
            Ended::Denied(_) if !matches!(pending.decide(force, outcome.time), Verdict::Denied { .. }) => {
                return Err(FindingKind::NotDenied);
            }
            Ended::Expired(_) if outcome.time < pending.request.expires => return Err(FindingKind::NotExpired),
            Ended::Ran(_) if !matches!(pending.request.action, Action::Command(_)) => {
                return Err(FindingKind::NotACommand);
            }
            // That a result and its permit go together was checked when the payload was read.
            _ => {}
        }
        let about = Some((pending.request.index, outcome.request));
        Ok((Step::Outcome { at, time: outcome.time }, Did::Ended, about))
    }

    fn find(&self, request: &Digest) -> Result<(usize, &Pending), FindingKind> {
        self.pending()
            .enumerate()
            .find(|(_, pending)| pending.request.digest() == *request)
            .ok_or(FindingKind::NotOpen)
    }

    fn find_open(&self, request: &Digest) -> Result<(usize, &Pending), FindingKind> {
        let (at, pending) = self.find(request)?;
        if pending.permit.is_some() {
            return Err(FindingKind::PermittedAlready);
        }
        Ok((at, pending))
    }
}

/// When the gate said it. A decision's time is by the device's clock and for display only.
pub(crate) fn time_of(statement: &Verified<Statement>) -> Option<Time> {
    match statement.get() {
        Statement::Roster(roster) => Some(roster.created),
        Statement::Request(request) => Some(request.created),
        Statement::Permit(permit) => Some(permit.time),
        Statement::Outcome(outcome) => Some(outcome.time),
        Statement::Device(_) | Statement::Decision(_) => None,
    }
}
