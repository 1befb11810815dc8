//! What each entry of a transcript must fulfil, given what stands before it.
//!
//! PROTOCOL.md 10.4. Positions, roots and hashes are the caller's: a whole transcript knows them all ([`super::Replay`]), the
//! proof of a single approval only some ([`crate::proof`]). Not here: the rules of grants, in `granting`.

use std::sync::Arc;

use wire::identity::PartyId;

use super::{Did, FindingKind};
use crate::action::Action;
use crate::checkpoint::Checkpoint;
use crate::decide::{Demands, Verdict};
use crate::decision::Decision;
use crate::outcome::{Ended, Outcome};
use crate::permit::{Basis, Permission};
use crate::request::Request;
use crate::revocation::Revocation;
use crate::roster::Roster;
use crate::scalar::{Digest, Time};
use crate::standing::{Held, Standing, counted};
use crate::statement::{Statement, Verified};

mod granting;
mod pending;

pub use pending::Pending;

/// Requests open at once at most: nobody reads more. Those that are permitted and still running aren't counted.
pub const OPEN_REQUESTS: usize = 64;

/// How an entry changes the state. `at` is a position among the pending requests.
#[derive(Debug, Clone)]
#[allow(clippy::large_enum_variant)]
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
        /// Whether it is by a rule that counts its uses.
        counts: bool,
    },
    Grant(Held),
    Revocation(Verified<Revocation>),
    Outcome {
        at: usize,
        time: Time,
    },
}

/// A step, what it does, and position and digest of the request that it is about.
pub(crate) type Judged = (Step, Did, Option<(u64, Digest)>);

/// Asks the caller whether a checkpoint, already verified, is of this log.
pub(crate) type IsHistory<'a> = &'a dyn Fn(&Checkpoint) -> Result<(), FindingKind>;

/// The roster in force, the clock, the pending requests and the grants.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Rules {
    gate: Option<PartyId>,
    roster: Option<Arc<Verified<Roster>>>,
    time: Option<Time>,
    pending: Vec<Arc<Pending>>,
    standing: Standing,
}

impl Rules {
    pub(crate) fn new(gate: Option<PartyId>) -> Self {
        Self {
            gate,
            ..Self::default()
        }
    }

    /// As they were kept.
    pub(super) fn resumed(
        gate: PartyId,
        roster: Verified<Roster>,
        time: Time,
        pending: Vec<Arc<Pending>>,
        standing: Standing,
    ) -> Self {
        Self {
            gate: Some(gate),
            roster: Some(Arc::new(roster)),
            time: Some(time),
            pending,
            standing,
        }
    }

    /// The same where it isn't known how often rules were used: with what somebody says of it.
    pub(crate) fn with_standing(&self, standing: Standing) -> Self {
        Self {
            standing,
            ..self.clone()
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

    pub(crate) fn standing(&self) -> &Standing {
        &self.standing
    }

    /// One more grant, whoever gave it.
    #[cfg(test)]
    pub(super) fn give(&mut self, held: Held) {
        self.standing.give(held);
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
        if !matches!(
            statement.get(),
            Statement::Decision(_) | Statement::Revocation(_) | Statement::Device(_)
        ) {
            self.said_by_gate(&force.gate, statement)?;
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
        if let Some(grant) = statement.grant() {
            return self.grant(force, grant);
        }
        if let Some(revocation) = statement.revocation() {
            return self.revocation(force, revocation);
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
                if self.roster().is_some_and(|before| before.policy != roster.policy) {
                    self.standing.forget_uses();
                }
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
            Step::Permit { at, permit, counts } => {
                self.time = Some(permit.time);
                match &permit.basis {
                    Basis::Grant(grant) => self.standing.use_grant(grant, permit.time),
                    Basis::Rule(rule) if counts => self.standing.use_rule(*rule, permit.time),
                    Basis::Rule(_) | Basis::Decisions(_) | Basis::Mode(_) | Basis::Unenrolled(_) => {}
                }
                if let Some(pending) = self.pending.get_mut(at) {
                    Arc::make_mut(pending).permit = Some(permit);
                }
            }
            Step::Grant(held) => {
                self.time = Some(held.grant().time);
                self.standing.give(held);
            }
            Step::Revocation(revocation) => self.standing.revoke(revocation),
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
    /// Notes when the gate said this, without anything that follows from it.
    pub(crate) fn heard(&mut self, statement: &Verified<Statement>) {
        self.time = time_of(statement).or(self.time);
    }

    pub(crate) fn said_by_gate(&self, gate: &PartyId, statement: &Verified<Statement>) -> Result<(), FindingKind> {
        if statement.signer() != *gate {
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
        if !roster.is_enrolled() && roster.unenrolled != force.unenrolled {
            return Err(FindingKind::Unenrolled);
        }
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
        let (action, asked_by) = (&request.action, &request.asked_by);
        demanded(
            &request,
            &Demands::of(force, &self.standing, action, asked_by, request.created),
        )?;
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
        let leave = match pending.decide(&self.standing, force, permit.time) {
            Verdict::Open(leave) => leave,
            Verdict::Waiting { .. } => return Err(FindingKind::Undecided("too few people have approved")),
            Verdict::Denied { .. } => return Err(FindingKind::Undecided("an admin has denied it")),
            Verdict::Forbidden { .. } => return Err(FindingKind::Undecided("the policy forbids it")),
            Verdict::Expired => return Err(FindingKind::Undecided("it had expired")),
            Verdict::Refused(_) => return Err(FindingKind::Undecided("there is nobody to approve it")),
        };
        if leave.basis() != &permit.basis {
            return Err(match (leave.basis(), &permit.basis) {
                (Basis::Decisions(_), Basis::Decisions(_)) => FindingKind::OtherDecisions,
                _ => FindingKind::OtherBasis,
            });
        }
        let about = Some((pending.request.index, permit.request));
        let counts = match permit.basis {
            Basis::Rule(rule) => {
                let request = &pending.request;
                counted(force, &request.action, &request.asked_by, permit.time).contains(&rule)
            }
            _ => false,
        };
        Ok((Step::Permit { at, permit, counts }, Did::Permitted, about))
    }

    fn outcome(&self, force: &Verified<Roster>, outcome: &Verified<Outcome>) -> Result<Judged, FindingKind> {
        let (at, pending) = self.find(&outcome.request)?;
        match (outcome.permit, &pending.permit) {
            (Some(_), None) => return Err(FindingKind::NotPermitted),
            (None, Some(_)) => return Err(FindingKind::PermittedAlready),
            (Some(cited), Some(given)) if cited != given.digest() => return Err(FindingKind::OtherPermit),
            _ => {}
        }
        let decided = || pending.decide(&self.standing, force, outcome.time);
        match (&outcome.result, &pending.request.action) {
            (Ended::Denied(_), _) if !matches!(decided(), Verdict::Denied { .. }) => {
                return Err(FindingKind::NotDenied);
            }
            (Ended::Forbidden(by), _) if decided() != (Verdict::Forbidden { rule: by.rule }) => {
                return Err(FindingKind::NotForbidden);
            }
            (Ended::Expired(_), _) if outcome.time < pending.request.expires => return Err(FindingKind::NotExpired),
            (Ended::Ran(_), Action::Tool(_) | Action::Secret(_) | Action::Roster(_)) => {
                return Err(FindingKind::NotACommand);
            }
            (Ended::Released(_), Action::Command(_) | Action::Roster(_)) => return Err(FindingKind::NotReleasable),
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

/// Whether a request says what the policy in force says about it.
fn demanded(request: &Request, demands: &Demands) -> Result<(), FindingKind> {
    if request.need != demands.need {
        return Err(FindingKind::Need {
            expected: demands.need,
            found: request.need,
        });
    }
    let risk = (&request.risk, request.veto, request.four_eyes);
    if risk != (&demands.risk, demands.veto, demands.four_eyes) {
        return Err(FindingKind::Risk);
    }
    if request.matching.is_some() != demands.number {
        return Err(FindingKind::Number);
    }
    let life = request.expires.millis().saturating_sub(request.created.millis());
    if life > demands.life_ms {
        return Err(FindingKind::Life {
            longest: demands.life_ms,
            found: life,
        });
    }
    Ok(())
}

/// When the gate said it. A decision's or revocation's time is by the device's clock and for display only.
pub(crate) fn time_of(statement: &Verified<Statement>) -> Option<Time> {
    match statement.get() {
        Statement::Roster(roster) => Some(roster.created),
        Statement::Request(request) => Some(request.created),
        Statement::Permit(permit) => Some(permit.time),
        Statement::Outcome(outcome) => Some(outcome.time),
        Statement::Grant(grant) => Some(grant.time),
        Statement::Device(_) | Statement::Decision(_) | Statement::Revocation(_) => None,
    }
}
