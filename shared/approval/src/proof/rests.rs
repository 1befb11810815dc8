//! What a proven approval rests on beside its own entries: the grant, with the request and the decisions by which it was given;
//! and how often rules were used, which is the gate's word (PROTOCOL.md 15). Not here: the approval itself.

use std::collections::BTreeSet;

use wire::identity::PartyId;

use crate::checkpoint::Checkpoint;
use crate::decide::Demands;
use crate::decision::Answer;
use crate::grant::Grant;
use crate::permit::Basis;
use crate::policy::Effect;
use crate::replay::FindingKind;
use crate::replay::rules::{Rules, Step, time_of};
use crate::request::{Request, matching};
use crate::roster::Roster;
use crate::scalar::Time;
use crate::standing::{Held, counted};
use crate::statement::{Statement, Verified};

/// A grant on its way to be believed: first its request, then its decisions, then itself.
pub(super) struct Rests {
    grant: Verified<Grant>,
    request: Option<Verified<Request>>,
    givers: Vec<PartyId>,
}

impl Rests {
    /// The grant that a permit among these entries rests on. A grant of the very request that it opened comes with that
    /// request's own entries.
    pub(super) fn of(entries: &[(u64, Verified<Statement>)]) -> Option<Self> {
        let mut statements = entries.iter().map(|(_, statement)| statement);
        let permit = statements.clone().find_map(Verified::<Statement>::permit)?;
        let Basis::Grant(basis) = &permit.basis else {
            return None;
        };
        let grant = statements.find(|statement| statement.digest() == *basis)?.grant()?;
        (grant.request != permit.request).then_some(Self {
            grant,
            request: None,
            givers: Vec::new(),
        })
    }

    pub(super) fn concerns(&self, statement: &Verified<Statement>) -> bool {
        let digest = statement.digest();
        digest == self.grant.digest() || digest == self.grant.request || self.grant.decisions.contains(&digest)
    }

    /// The rules of 10.4 for a grant, without those that need the roster by which it was given: whether its people are enough is
    /// asked when something rests on it. The grant itself leads to a step.
    pub(super) fn take(
        &mut self,
        index: u64,
        gate: &Checkpoint,
        rules: &Rules,
        statement: &Verified<Statement>,
    ) -> Result<Option<Step>, FindingKind> {
        match statement.get() {
            Statement::Request(request) if request.index != index => Err(FindingKind::Moved(request.index)),
            Statement::Request(_) => {
                rules.said_by_gate(gate.gate(), statement)?;
                self.request = statement.request();
                Ok(None)
            }
            Statement::Decision(_) => self.decision(index, gate, statement).map(|()| None),
            Statement::Grant(_) => {
                rules.said_by_gate(gate.gate(), statement)?;
                self.whole().map(|held| Some(Step::Grant(held)))
            }
            _ => Err(FindingKind::Misplaced(statement.kind())),
        }
    }

    fn decision(&mut self, index: u64, gate: &Checkpoint, statement: &Verified<Statement>) -> Result<(), FindingKind> {
        let request = self.request.as_ref().ok_or(FindingKind::NotOpen)?;
        let decision = statement.decision().ok_or(FindingKind::NotCarried)?;
        let seen = Checkpoint::verify(&decision.checkpoint, gate.gate()).map_err(FindingKind::Checkpoint)?;
        if seen.size() <= request.index {
            return Err(FindingKind::EarlyCheckpoint);
        }
        if seen.size() > index {
            return Err(FindingKind::LateCheckpoint(seen.size()));
        }
        let number = decision.number.as_deref();
        let repeats = |wanted| number.is_some_and(|number| matching(&request.nonce, number) == wanted);
        let carries = decision.request == request.digest()
            && decision.verdict == Answer::Approve
            && decision.grant.as_ref() == Some(&self.grant.terms)
            && request.matching.is_none_or(repeats)
            // In the order in which the grant cites them.
            && self.grant.decisions.get(self.givers.len()) == Some(&decision.digest());
        if !carries {
            return Err(FindingKind::NotCarried);
        }
        self.givers.push(decision.signer());
        Ok(())
    }

    fn whole(&self) -> Result<Held, FindingKind> {
        let request = self.request.clone().ok_or(FindingKind::NotOpen)?;
        if self.givers.len() != self.grant.decisions.len() {
            return Err(FindingKind::NotCarried);
        }
        let may_cover = self.grant.terms.may_cover(&request.action);
        may_cover.map_err(FindingKind::NotGrantable)?;
        if self.grant.time >= request.expires {
            return Err(FindingKind::Ungranted("it had expired"));
        }
        Ok(Held::new(self.grant.clone(), request, self.givers.clone()))
    }
}

/// In which ways rules could have been used up, beside not at all, that lead to different words about this statement. The terms of
/// risk are those of one rule: it is enough to try each alone. A permit by a rule means that those that would have been named before
/// it were used up.
pub(super) fn could_be_used_up(
    rules: &Rules,
    request: Option<&Verified<Request>>,
    statement: &Verified<Statement>,
) -> Vec<BTreeSet<u32>> {
    let asked = statement.request();
    let (Some(roster), Some(request)) = (rules.roster(), asked.as_ref().or(request)) else {
        return Vec::new();
    };
    let now = time_of(statement).or(rules.time()).unwrap_or(request.created);
    let counted = counted(roster, &request.action, &request.asked_by, now);
    if counted.is_empty() {
        return Vec::new();
    }
    let without = |rule: &u32| counted.iter().copied().filter(|other| other != rule).collect();
    let alone = counted.iter().map(without).collect::<Vec<BTreeSet<u32>>>();
    let before = statement.permit().and_then(|permit| match permit.basis {
        Basis::Rule(rule) => Some(used_up_before(rules, roster, rule, request, permit.time)),
        _ => None,
    });
    [counted.clone()].into_iter().chain(before).chain(alone).collect()
}

fn used_up_before(rules: &Rules, roster: &Roster, rule: u32, request: &Request, now: Time) -> BTreeSet<u32> {
    let mut used_up = BTreeSet::new();
    loop {
        let said = rules.standing().said(used_up.clone());
        match Demands::of(roster, &said, &request.action, &request.asked_by, now).effect {
            Effect::Allow { rule: Some(named) } if named != rule && used_up.insert(named) => {}
            _ => return used_up,
        }
    }
}
