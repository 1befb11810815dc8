//! The one place that says yes (PROTOCOL.md 9). The gate asks it before acting, the admin's screen while waiting, the
//! auditor afterwards: live and offline can't disagree. Everything is verified beforehand; not here: whether the
//! statements stand in the log (`replay`), which grants there are (`standing`), what the policy's text says (`policy`).

use crate::action::Action;
use crate::checkpoint::Checkpoint;
use crate::decision::{Answer, Decision};
use crate::grant::{Grant, Terms};
use crate::outcome::Nothing;
use crate::permit::{Basis, Confined, Permission};
use crate::policy::{Effect, is_person, judge};
use crate::request::{AskedBy, Class, LIFE_MS, Request, matching};
use crate::roster::{Person, Roster, Unenrolled};
use crate::scalar::{Digest, Name, Time};
use crate::standing::Standing;
use crate::statement::Verified;

/// The answer to a request, as things stand.
#[derive(Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It may be done, once.
    Open(Permit),
    /// More people have to say yes.
    Waiting {
        /// How many have.
        have: usize,
        /// How many must.
        need: usize,
    },
    /// Somebody said no, and that is enough.
    Denied {
        /// Who was the first.
        by: Name,
        /// The digest of their decision.
        decision: Digest,
    },
    /// The policy says no: nobody is asked.
    Forbidden {
        /// The rule, counted from 0; none for the mode.
        rule: Option<u32>,
    },
    /// Time ran out.
    Expired,
    /// There is nobody to ask.
    Refused(Reason),
}

/// Why nobody can be asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// The request is another gate's.
    AnotherGate,
    /// The roster has no admin: nobody may say yes, so nobody did.
    NobodyEnrolled,
}

/// Leave to do what one request asks, once. Made by [`decide`] alone; running consumes it, so that it takes one value:
///
/// ```
/// # use approval::decide::Permit;
/// fn run(permit: Permit) {}
/// fn once(permit: Permit) {
///     run(permit);
/// }
/// ```
/// ```compile_fail
/// # use approval::decide::Permit;
/// fn run(permit: Permit) {}
/// fn twice(permit: Permit) {
///     run(permit);
///     run(permit);
/// }
/// ```
///
/// It can be looked at, not copied:
///
/// ```
/// # use approval::decide::Permit;
/// fn look(permit: &Permit) -> approval::Digest { permit.request() }
/// ```
/// ```compile_fail
/// # use approval::decide::Permit;
/// fn copy(permit: &Permit) -> Permit { permit.clone() }
/// ```
///
/// nor written down; its record can be:
///
/// ```
/// # use approval::permit::Permission;
/// fn write(record: &Permission) -> String { serde_json::to_string(record).unwrap() }
/// ```
/// ```compile_fail
/// # use approval::decide::Permit;
/// fn write(permit: &Permit) -> String { serde_json::to_string(permit).unwrap() }
/// ```
///
/// and nobody else makes one:
///
/// ```
/// # use approval::permit::{Basis, Permission};
/// fn record(request: approval::Digest, roster: approval::Digest, time: approval::Time) -> Permission {
///     Permission { request, roster, basis: Basis::Rule(0), confined: Vec::new(), time }
/// }
/// ```
/// ```compile_fail
/// # use approval::decide::Permit;
/// # use approval::permit::Basis;
/// fn make(request: approval::Digest, roster: approval::Digest) -> Permit {
///     Permit { request, roster, basis: Basis::Rule(0) }
/// }
/// ```
#[derive(Debug, PartialEq, Eq)]
pub struct Permit {
    request: Digest,
    roster: Digest,
    basis: Basis,
}

impl Permit {
    /// The digest of the request that may be done.
    pub fn request(&self) -> Digest {
        self.request
    }

    /// The digest of the roster by which it was decided.
    pub fn roster(&self) -> Digest {
        self.roster
    }

    /// Why it may be done.
    pub fn basis(&self) -> &Basis {
        &self.basis
    }

    /// The approvals that count, in transcript order, one for each person; none where it rests on something else.
    pub fn decisions(&self) -> &[Digest] {
        match &self.basis {
            Basis::Decisions(decisions) => decisions,
            _ => &[],
        }
    }

    /// The record of this permit, for the gate to sign and to log before it acts. `confined` is put in order.
    pub fn statement(&self, mut confined: Vec<Confined>, time: Time) -> Permission {
        confined.sort_unstable();
        confined.dedup();
        Permission {
            request: self.request,
            roster: self.roster,
            basis: self.basis.clone(),
            confined,
            time,
        }
    }
}

/// What the policy in force says about an action before anybody is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Demands {
    /// Whether it is denied, asked or allowed, and by which rule.
    pub effect: Effect,
    /// The class of risk.
    pub risk: Option<Name>,
    /// How many people must say yes.
    pub need: u16,
    /// Whether one denial is enough.
    pub veto: bool,
    /// Whether whoever asks can't approve.
    pub four_eyes: bool,
    /// Whether approvals must repeat a number.
    pub number: bool,
    /// The longest life of a request, in milliseconds.
    pub life_ms: u64,
}

impl Demands {
    /// By this roster at this time. `standing` knows how often rules were used.
    pub fn of(roster: &Roster, standing: &Standing, action: &Action, asked_by: &AskedBy, now: Time) -> Self {
        if action.class() == Class::Roster {
            // No policy makes a change of what it is itself any easier.
            return Self {
                effect: Effect::Ask { rule: None },
                risk: None,
                need: roster.quorum.roster,
                veto: true,
                four_eyes: false,
                number: false,
                life_ms: LIFE_MS,
            };
        }
        let judged = judge(roster.policy.as_ref(), action, asked_by, now, standing);
        let terms = judged.terms;
        Self {
            effect: judged.effect,
            need: terms.quorum.max(roster.quorum.of(action.class())),
            risk: terms.risk,
            veto: terms.veto,
            four_eyes: terms.four_eyes,
            number: terms.number,
            life_ms: terms.life_ms,
        }
    }

    /// The stricter of these and what the request says.
    fn stricter(self, request: &Request) -> Self {
        Self {
            need: self.need.max(request.need),
            veto: self.veto || request.veto,
            four_eyes: self.four_eyes || request.four_eyes,
            ..self
        }
    }
}

/// Whether the request may be done now. `decisions` are in transcript order.
pub fn decide(
    request: &Verified<Request>,
    decisions: &[Verified<Decision>],
    standing: &Standing,
    roster: &Verified<Roster>,
    now: Time,
) -> Verdict {
    let seen = |decision: &Verified<Decision>| {
        let seen = Checkpoint::verify(&decision.checkpoint, &roster.gate).ok()?;
        Some(seen.size())
    };
    let case = Case {
        request,
        decisions,
        seen: decisions.iter().map(seen).collect(),
        standing,
        roster,
        now,
    };
    case.verdict()
}

/// A request with all that its verdict depends on.
pub(crate) struct Case<'a> {
    pub(crate) request: &'a Verified<Request>,
    /// In transcript order.
    pub(crate) decisions: &'a [Verified<Decision>],
    /// For each decision the size of the checkpoint that it quotes, if it is one of the request's gate: whoever calls may have
    /// verified them already.
    pub(crate) seen: Vec<Option<u64>>,
    pub(crate) standing: &'a Standing,
    pub(crate) roster: &'a Verified<Roster>,
    pub(crate) now: Time,
}

/// The decisions that count.
struct Count<'a> {
    denials: Vec<(&'a Person, &'a Verified<Decision>)>,
    /// Without those of people who have denied.
    approvals: Vec<(&'a Person, &'a Verified<Decision>)>,
}

impl<'a> Case<'a> {
    /// The steps of PROTOCOL.md 9, in their order.
    pub(crate) fn verdict(&self) -> Verdict {
        let Self { request, roster, .. } = *self;
        if request.gate != roster.gate {
            return Verdict::Refused(Reason::AnotherGate);
        }
        if !roster.is_enrolled() {
            return self.unenrolled();
        }
        let demands = self.demands();
        if let Effect::Deny { rule } = demands.effect {
            return Verdict::Forbidden { rule };
        }
        let count = self.count(&demands);
        // Before the clock: that somebody said no stays true after the expiry.
        if let Some(denied) = self.denied(&demands, &count) {
            return denied;
        }
        if self.now >= request.expires {
            return Verdict::Expired;
        }
        let (approved, need) = (firsts(&count.approvals), usize::from(demands.need));
        if approved.len() >= need {
            return self.open(Basis::Decisions(approved));
        }
        if request.class != Class::Roster {
            if let Some(grant) = self.grant(&demands) {
                return self.open(Basis::Grant(grant));
            }
            match demands.effect {
                Effect::Allow { rule: Some(rule) } => return self.open(Basis::Rule(rule)),
                Effect::Allow { rule: None } => return self.open(Basis::Mode(Nothing {})),
                Effect::Ask { .. } | Effect::Deny { .. } => {}
            }
        }
        Verdict::Waiting {
            have: approved.len(),
            need,
        }
    }

    /// The grant that those who approved give with these terms: the ids of their approvals, if they are enough people.
    pub(crate) fn granted(&self, terms: &Terms) -> Option<Vec<Digest>> {
        let demands = self.demands();
        let mut carry = self.count(&demands).approvals;
        carry.retain(|(_, decision)| decision.grant.as_ref() == Some(terms));
        let decisions = firsts(&carry);
        (decisions.len() >= usize::from(demands.need)).then_some(decisions)
    }

    /// Whether these are approvals that count, carry the grant's terms, and are of different people and enough of them.
    pub(crate) fn carries(&self, grant: &Grant) -> bool {
        let demands = self.demands();
        let approvals = self.count(&demands).approvals;
        let (mut people, mut from) = (Vec::new(), 0);
        for digest in &grant.decisions {
            // Each after the one before: in transcript order, and none twice.
            let cited = approvals
                .iter()
                .enumerate()
                .skip(from)
                .find(|(_, (_, decision))| decision.digest() == *digest);
            let Some((at, (person, decision))) = cited else {
                return false;
            };
            if decision.grant.as_ref() != Some(&grant.terms) || people.contains(&&person.name) {
                return false;
            }
            people.push(&person.name);
            from = at.saturating_add(1);
        }
        people.len() >= usize::from(demands.need)
    }

    fn demands(&self) -> Demands {
        let request = self.request;
        let demands = Demands::of(self.roster, self.standing, &request.action, &request.asked_by, self.now);
        demands.stricter(request)
    }

    fn unenrolled(&self) -> Verdict {
        if self.roster.unenrolled == Unenrolled::Refuse || self.request.class == Class::Roster {
            return Verdict::Refused(Reason::NobodyEnrolled);
        }
        if self.now >= self.request.expires {
            return Verdict::Expired;
        }
        self.open(Basis::Unenrolled(Nothing {}))
    }

    fn count(&self, demands: &Demands) -> Count<'a> {
        let counting = self.decisions.iter().zip(&self.seen).filter_map(|(decision, seen)| {
            let person = self.answers(decision)?;
            (seen.as_ref()? > &self.request.index).then_some((person, decision))
        });
        let (denials, mut approvals): (Vec<_>, Vec<_>) =
            counting.partition(|(_, decision)| decision.verdict == Answer::Deny);
        approvals.retain(|(person, decision)| {
            let denied = denials.iter().any(|(who, _)| who.name == person.name);
            let asks = demands.four_eyes && is_asker(person, self.roster, &self.request.asked_by);
            !denied && !asks && self.repeats_number(decision)
        });
        Count { denials, approvals }
    }

    /// The admin whose answer to this request the decision is, if it is one.
    fn answers(&self, decision: &Verified<Decision>) -> Option<&'a Person> {
        if decision.request != self.request.digest() {
            return None;
        }
        self.roster.admin_of(&decision.signer())
    }

    fn repeats_number(&self, decision: &Decision) -> bool {
        let Some(wanted) = self.request.matching else {
            return true;
        };
        let number = decision.number.as_deref();
        number.is_some_and(|number| matching(&self.request.nonce, number) == wanted)
    }

    fn denied(&self, demands: &Demands, count: &Count<'_>) -> Option<Verdict> {
        let (person, first) = count.denials.first()?;
        let deniers = count.denials.iter().map(|(person, _)| &person.name);
        let left = self
            .roster
            .admins()
            .filter(|admin| deniers.clone().all(|name| *name != admin.name))
            .count();
        (demands.veto || left < usize::from(demands.need)).then(|| Verdict::Denied {
            by: person.name.clone(),
            decision: first.digest(),
        })
    }

    /// The oldest grant that stands for this.
    fn grant(&self, demands: &Demands) -> Option<Digest> {
        let Self {
            request, roster, now, ..
        } = *self;
        let alike = self.standing.alike(&request.action, &request.asked_by);
        let stands = |held: &&crate::standing::Held| {
            held.request().risk == request.risk
                && held.ended(now).is_none()
                && held.givers_left(roster, demands.four_eyes.then_some(&request.asked_by)) >= usize::from(demands.need)
        };
        alike.into_iter().find(stands).map(crate::standing::Held::digest)
    }

    fn open(&self, basis: Basis) -> Verdict {
        Verdict::Open(Permit {
            request: self.request.digest(),
            roster: self.roster.digest(),
            basis,
        })
    }
}

/// Each person's first. People, never keys: a second device of the same person adds nothing.
fn firsts(approvals: &[(&Person, &Verified<Decision>)]) -> Vec<Digest> {
    let mut first: Vec<(&Name, Digest)> = Vec::new();
    for (person, decision) in approvals {
        if first.iter().all(|(name, _)| *name != &person.name) {
            first.push((&person.name, decision.digest()));
        }
    }
    first.into_iter().map(|(_, digest)| digest).collect()
}

/// Whether this person is who asks: by their name, or by what the policy says of them.
pub(crate) fn is_asker(person: &Person, roster: &Roster, asked_by: &AskedBy) -> bool {
    let Some(user) = &asked_by.user else {
        return false;
    };
    is_person(roster.policy.as_ref(), &person.name, user)
}

#[cfg(test)]
mod tests;
