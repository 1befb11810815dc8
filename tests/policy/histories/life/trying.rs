//! Asking both whether a request may be done, and trying to do it: honestly where it may be, by forgery where it mayn't.

use approval::decide::{self, Verdict as Said};
use approval::outcome::Nothing;
use approval::permit::{Basis as Claim, Permission};

use super::{Heard, Life};
use crate::histories::model::{Answer, Basis, State, Verdict};
use crate::histories::world::at;

impl Life<'_> {
    pub(super) fn try_one(&mut self) {
        let number = self.dice.below(self.requests.len() as u64) as usize;
        self.try_it(number, 1);
    }

    pub(super) fn try_all(&mut self, number: usize) {
        self.try_it(number, 2);
    }

    /// Both are asked; then the permit is given if it may be, and forged if it mayn't.
    pub(super) fn try_it(&mut self, number: usize, forgeries: u64) {
        let (digest, now) = (self.requests[number].digest(), self.now);
        if self.model.asked[number].state != State::Open {
            self.forge(number, now, forgeries, None);
            return;
        }
        let recorded = self.recorded(number);
        let answers: Vec<Answer> = recorded.iter().map(|heard| heard.answer.clone()).collect();
        let verdict = self.model.verdict(number, &answers, now);
        let said = self.replay.decide(&digest, at(now)).expect("an open request");
        self.is_same(number, verdict, &recorded, &said);
        // The same with everything that was ever heard, as somebody might who keeps no transcript.
        let heard = self.heard.clone();
        let everything: Vec<_> = heard.iter().map(|heard| heard.decision.clone()).collect();
        let answers: Vec<Answer> = heard.iter().map(|heard| heard.answer.clone()).collect();
        let by_hearsay = decide::decide(
            &self.requests[number],
            &everything,
            self.replay.standing(),
            &self.roster(),
            at(now),
        );
        self.is_same(number, self.model.verdict(number, &answers, now), &heard, &by_hearsay);

        self.count(match verdict {
            Verdict::Open(Basis::Decisions) => "open by decisions",
            Verdict::Open(Basis::Grant(_)) => "open by a grant",
            Verdict::Open(Basis::Rule(_)) => "open by a rule",
            Verdict::Open(Basis::Mode) => "open by the mode",
            Verdict::Open(Basis::Unenrolled) => "open unenrolled",
            Verdict::Waiting => "waiting",
            Verdict::Denied => "denied",
            Verdict::Forbidden(_) => "forbidden",
            Verdict::Expired => "expired",
            Verdict::Refused => "refused",
        });
        let (Verdict::Open(basis), Said::Open(leave)) = (verdict, said) else {
            self.forge(number, now, forgeries, None);
            return;
        };
        let true_claim = leave.basis().clone();
        self.forge(number, now, 1, Some(&true_claim));
        let permission = leave.statement(Vec::new(), at(now));
        let permit = self
            .says(permission.clone(), now)
            .expect("a permit that both say may be given");
        self.permits[number] = Some(permit.digest());
        self.model.asked[number].state = State::Permitted;
        match basis {
            Basis::Grant(grant) => self.model.grants[grant].used += 1,
            Basis::Rule(rule) => self.model.rules_used.push((rule, now)),
            _ => {}
        }
        // Once: neither the same bytes nor the same leave a moment later.
        assert!(self.append(&permit).is_err(), "the same permit twice");
        let later = Permission {
            time: at(now + 1),
            ..permission
        };
        assert!(self.says(later, now + 1).is_err(), "the same leave twice");
    }

    pub(super) fn is_same(&self, number: usize, verdict: Verdict, heard: &[Heard], said: &Said) {
        let digests = || {
            let answers: Vec<Answer> = heard.iter().map(|heard| heard.answer.clone()).collect();
            let approvals = self.model.approvals(number, &answers, self.now);
            let mut people = Vec::new();
            let firsts = approvals.into_iter().filter(|(_, name)| {
                let new = !people.contains(name);
                people.push(*name);
                new
            });
            Claim::Decisions(firsts.map(|(at, _)| heard[at].decision.digest()).collect())
        };
        let same = match (verdict, said) {
            (Verdict::Open(basis), Said::Open(leave)) => {
                *leave.basis()
                    == match basis {
                        Basis::Decisions => digests(),
                        Basis::Grant(at) => Claim::Grant(self.grants[at].digest()),
                        Basis::Rule(rule) => Claim::Rule(u32::try_from(rule).unwrap()),
                        Basis::Mode => Claim::Mode(Nothing {}),
                        Basis::Unenrolled => Claim::Unenrolled(Nothing {}),
                    }
            }
            (Verdict::Forbidden(rule), Said::Forbidden { rule: by }) => rule.map(|rule| rule as u32) == *by,
            (Verdict::Waiting, Said::Waiting { .. })
            | (Verdict::Denied, Said::Denied { .. })
            | (Verdict::Expired, Said::Expired)
            | (Verdict::Refused, Said::Refused(_)) => true,
            _ => false,
        };
        let asked = &self.model.asked[number];
        let (policy, uses) = (self.model.policy, &self.model.rules_used);
        assert!(
            same,
            "the model says {verdict:?}, the product {said:?} of {asked:?} at {} by policy {policy:?} used {uses:?}",
            self.now
        );
    }

    /// Tries to get a permit into the transcript that mayn't be there, on several grounds.
    pub(super) fn forge(&mut self, number: usize, time: u64, times: u64, but: Option<&Claim>) {
        let approvals = self
            .heard
            .iter()
            .filter(|heard| heard.answer.about == number && heard.answer.approves);
        let mut claims = vec![Claim::Decisions(
            approvals.map(|heard| heard.decision.digest()).collect(),
        )];
        claims.push(Claim::Decisions(
            self.recorded(number)
                .iter()
                .map(|heard| heard.decision.digest())
                .collect(),
        ));
        claims.push(Claim::Decisions(Vec::new()));
        claims.extend(self.grants.iter().map(|grant| Claim::Grant(grant.digest())));
        claims.extend((0..4).map(Claim::Rule));
        claims.extend([Claim::Mode(Nothing {}), Claim::Unenrolled(Nothing {})]);
        claims.retain(|claim| Some(claim) != but);
        for _ in 0..times {
            let basis = self.dice.pick(&claims).clone();
            let forged = Permission {
                request: self.requests[number].digest(),
                roster: self.roster().digest(),
                basis: basis.clone(),
                confined: Vec::new(),
                time: at(time),
            };
            let took = self.says(forged, time);
            let asked = &self.model.asked[number];
            assert!(
                took.is_err(),
                "UNAUTHORISED: {basis:?} at {time} for {asked:?} by policy {:?}",
                self.model.policy
            );
            self.count("forged permits refused");
        }
    }
}
