//! Grants and revocations: the transcript takes one exactly if the model would.

use approval::grant::Grant as Given;
use approval::revocation::Revocation;
use approval::{Digest, Text, sign};

use super::Life;
use crate::histories::model::{Answer, DEVICES, Grant, Terms};
use crate::histories::policies::BEGIN;
use crate::histories::world::{at, product_terms};

impl Life<'_> {
    pub(super) fn grant(&mut self) {
        let offered: Vec<usize> = self
            .heard
            .iter()
            .filter(|heard| heard.recorded.is_some() && heard.answer.grants.is_some())
            .map(|heard| heard.answer.about)
            .collect();
        let any = self.dice.below(self.requests.len() as u64) as usize;
        let number = if offered.is_empty() || self.dice.one_in(4) {
            any
        } else {
            *self.dice.pick(&offered)
        };
        self.grant_like(number);
    }

    /// The transcript takes a grant exactly if the model would.
    pub(super) fn grant_like(&mut self, number: usize) {
        let (recorded, now) = (self.recorded(number), self.now);
        let answers: Vec<Answer> = recorded.iter().map(|heard| heard.answer.clone()).collect();
        let mut offered: Vec<Terms> = answers.iter().filter_map(|answer| answer.grants.clone()).collect();
        let any = offered
            .iter()
            .any(|terms| self.model.grantable(number, &answers, terms, now).is_some());
        let digest = self.requests[number].digest();
        assert_eq!(
            self.replay.grantable(&digest, at(now)).is_some(),
            any,
            "a grant that only one would give"
        );
        offered.push(self.terms(number));
        let terms = self.dice.pick(&offered).clone();
        let carry = self.model.grantable(number, &answers, &terms, now);
        // Without enough of them: everybody who said yes to anything.
        let cited = carry
            .clone()
            .unwrap_or_else(|| (0..answers.len()).filter(|at| answers[*at].approves).collect());
        let grant = Given {
            request: digest,
            roster: self.roster().digest(),
            decisions: cited.iter().map(|at| recorded[*at].decision.digest()).collect(),
            terms: product_terms(&terms),
            time: at(now),
        };
        if self.dice.one_in(4) {
            let mut swollen = grant.clone();
            swollen
                .decisions
                .extend(grant.decisions.iter().copied().chain([Digest::of(b"nobody")]));
            assert!(
                self.says(swollen, now).is_err(),
                "a grant that cites more than there is"
            );
        }
        match (self.says(grant, now), carry) {
            (Ok(given), Some(carry)) => {
                let givers = carry.iter().map(|at| answers[*at].device).collect();
                self.model.grants.push(Grant {
                    like: number,
                    terms,
                    givers,
                    revoked: false,
                    used: 0,
                });
                self.grants.push(given);
                self.count("grants");
            }
            (Err(_), None) => self.count("grants refused"),
            (took, carry) => panic!("a grant on {terms:?}: {:?}, the model {carry:?}", took.map(|_| ())),
        }
    }

    pub(super) fn revoke(&mut self) {
        if self.grants.is_empty() {
            return;
        }
        let at_grant = self.dice.below(self.grants.len() as u64) as usize;
        let device = *self.dice.pick(&[0, 2, 4, 4, 5, 5]);
        let identity = &self.people.devices[device];
        let revocation = Revocation {
            party: identity.party(),
            grant: self.grants[at_grant].digest(),
            reason: Text::default(),
            time: at(BEGIN),
        };
        let revocation = sign(identity, revocation).unwrap();
        let takes = self.model.is_admin(device) && !self.model.grants[at_grant].revoked;
        let took = self.append(&revocation);
        assert_eq!(took.is_ok(), takes, "{took:?}: a revocation by {}", DEVICES[device]);
        self.model.grants[at_grant].revoked |= takes;
        self.count(if takes { "revocations" } else { "revocations refused" });
    }
}
