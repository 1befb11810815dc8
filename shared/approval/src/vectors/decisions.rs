//! `decisions.json`: requests, answers, rosters and what stands, with what `decide` says of them (PROTOCOL.md 9). Statements
//! are given once and cited by position. Not here: bad statements (`statements`).
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use serde_json::{Value, json};

use super::frozen;
use crate::checkpoint::Checkpoint;
use crate::decide::{Reason, Verdict, decide};
use crate::decision::{Answer, Decision};
use crate::grant::Grant;
use crate::request::Request;
use crate::roster::{Role, Roster};
use crate::sample::*;
use crate::scalar::Time;
use crate::standing::{Held, Standing};
use crate::statement::{Signed, Statement, Verified, sign};

mod grants;
mod policies;

fn verdict(verdict: &Verdict) -> Value {
    match verdict {
        Verdict::Open(permit) => json!({"open": permit.basis()}),
        Verdict::Waiting { have, need } => json!({"waiting": {"have": have, "need": need}}),
        Verdict::Denied { by, decision } => json!({"denied": {"by": by, "decision": decision}}),
        Verdict::Forbidden { rule } => json!({"forbidden": {"rule": rule}}),
        Verdict::Expired => json!("expired"),
        Verdict::Refused(Reason::AnotherGate) => json!({"refused": "another_gate"}),
        Verdict::Refused(Reason::NobodyEnrolled) => json!({"refused": "nobody_enrolled"}),
    }
}

#[derive(Default)]
struct Cases {
    statements: Vec<String>,
    cases: Vec<Value>,
    grants: Vec<Value>,
    rules: Vec<Value>,
    standing: Standing,
}

impl Cases {
    fn cite<T>(&mut self, statement: &Verified<T>) -> usize {
        let text = statement.signed().as_str();
        self.statements
            .iter()
            .position(|known| known == text)
            .unwrap_or_else(|| {
                self.statements.push(text.to_owned());
                self.statements.len() - 1
            })
    }

    /// A grant that stands in the cases from here on.
    fn give(
        &mut self,
        grant: &Verified<Grant>,
        request: &Verified<Request>,
        carrying: &[Verified<Decision>],
        used: u32,
    ) {
        let decisions: Vec<_> = carrying.iter().map(|decision| self.cite(decision)).collect();
        let grant = json!({
            "grant": self.cite(grant),
            "request": self.cite(request),
            "decisions": decisions,
            "used": used,
            "revocation": null,
        });
        self.grants.push(grant);
        self.stand();
    }

    fn revoke(&mut self, place: usize, grant: &Verified<Grant>) {
        let revocation = revocation(CAROL, grant);
        self.grants[place]["revocation"] = self.cite(&revocation).into();
        self.stand();
    }

    /// From here on these permits rest on this rule.
    fn used(&mut self, rule: u32, times: &[Time]) {
        self.rules.push(json!({"rule": rule, "times": times}));
        self.stand();
    }

    fn nothing_stands(&mut self) {
        (self.grants, self.rules) = Default::default();
        self.stand();
    }

    fn stand(&mut self) {
        let standing = json!({"grants": self.grants, "rules": self.rules});
        self.standing = standing_of(&standing, &|position| verified(&self.statements[position]));
    }

    fn case(
        &mut self,
        name: &str,
        request: &Verified<Request>,
        answers: &[Verified<Decision>],
        roster: &Verified<Roster>,
        now: Time,
    ) {
        let cited: Vec<_> = answers.iter().map(|answer| self.cite(answer)).collect();
        let case = json!({
            "name": name,
            "request": self.cite(request),
            "decisions": cited,
            "standing": {"grants": self.grants, "rules": self.rules},
            "roster": self.cite(roster),
            "now": now,
            "expect": verdict(&decide(request, answers, &self.standing, roster, now)),
        });
        self.cases.push(case);
    }
}

fn verified(text: &str) -> Verified<Statement> {
    Signed::parse(text.as_bytes()).unwrap().verify().unwrap()
}

/// What stands, as a case says it.
fn standing_of(said: &Value, statement: &dyn Fn(usize) -> Verified<Statement>) -> Standing {
    let cited = |position: &Value| statement(position.as_u64().unwrap() as usize);
    let mut standing = Standing::default();
    for given in said["grants"].as_array().unwrap() {
        let (grant, request) = (
            cited(&given["grant"]).grant().unwrap(),
            cited(&given["request"]).request().unwrap(),
        );
        let carrying = given["decisions"].as_array().unwrap().iter();
        let givers = carrying.map(|position| cited(position).signer()).collect();
        let digest = grant.digest();
        standing.give(Held::new(grant, request, givers));
        for _ in 0..given["used"].as_u64().unwrap() {
            standing.use_grant(&digest, at(NOON));
        }
        if !given["revocation"].is_null() {
            standing.revoke(cited(&given["revocation"]).revocation().unwrap());
        }
    }
    for used in said["rules"].as_array().unwrap() {
        let times: Vec<Time> = serde_json::from_value(used["times"].clone()).unwrap();
        let rule = serde_json::from_value(used["rule"].clone()).unwrap();
        times.into_iter().for_each(|time| standing.use_rule(rule, time));
    }
    standing
}

fn made() -> Value {
    let mut cases = Cases::default();
    let (team, now) = (team(), at(NOON));
    let request = request(&team);
    let [alice, phone, bob, auditor, stranger] =
        [ALICE, ALICES_PHONE, BOB, AUDITOR, STRANGER].map(|seed| decision(seed, &request, Answer::Approve));
    let deny = decision(CAROL, &request, Answer::Deny);
    let both = [alice.clone(), bob.clone()];
    let last = at(request.expires.millis() - 1);
    let lowered = roster(&TEAM, quorum(1, 1));
    let raised = roster(&TEAM, quorum(3, 3));
    let without_bob = roster(
        &[("alice", Role::Admin, ALICE), ("carol", Role::Admin, CAROL)],
        quorum(2, 2),
    );
    let behind = decision_quoting(ALICE, &request, Answer::Approve, checkpoint(request.index));
    let other_log = Checkpoint::sign(&identity(OTHER_GATE), 9, [0; 32]).as_str().to_owned();
    let elsewhere = decision_quoting(ALICE, &request, Answer::Approve, other_log);
    let other = request_with(&team, |request| request.nonce.0[0] ^= 1);
    // The very same words at the very same time.
    let same_words = [ALICE, BOB].map(|seed| {
        let decision = Decision {
            party: identity(seed).party(),
            time: at(NOON + 1),
            ..alice.get().clone()
        };
        sign(&identity(seed), decision).unwrap()
    });
    let about_other = decision(ALICE, &other, Answer::Approve);

    cases.case("nobody_answered", &request, &[], &team, now);
    cases.case("one_of_two", &request, &both[..1], &team, now);
    cases.case("two_of_three_is_enough", &request, &both, &team, now);
    cases.case("the_same_words_of_two_people", &request, &same_words, &team, now);
    cases.case(
        "two_devices_of_one_person",
        &request,
        &[alice.clone(), phone.clone()],
        &team,
        now,
    );
    cases.case(
        "the_persons_first_is_cited",
        &request,
        &[phone, alice.clone(), bob.clone()],
        &team,
        now,
    );
    cases.case(
        "a_denial_outweighs",
        &request,
        &[alice.clone(), bob.clone(), deny.clone()],
        &team,
        now,
    );
    cases.case(
        "a_denial_after_the_expiry",
        &request,
        std::slice::from_ref(&deny),
        &team,
        request.expires,
    );
    cases.case("the_last_millisecond", &request, &both, &team, last);
    cases.case("exactly_at_the_expiry", &request, &both, &team, request.expires);
    cases.case("an_auditor_and_a_stranger", &request, &[auditor, stranger], &team, now);
    cases.case("an_admin_removed_since", &request, &both, &without_bob, now);
    cases.case("a_quorum_lowered_since", &request, &both[..1], &lowered, now);
    cases.case("a_quorum_raised_since", &request, &both, &raised, now);
    cases.case(
        "a_checkpoint_before_the_request",
        &request,
        &[behind, bob.clone()],
        &team,
        now,
    );
    cases.case(
        "a_checkpoint_of_another_gate",
        &request,
        &[elsewhere, bob.clone()],
        &team,
        now,
    );
    cases.case("about_another_request", &request, &[about_other, bob], &team, now);
    cases.case("nobody_enrolled", &request, &both, &genesis(), now);
    cases.case("another_gate", &request, &both, &genesis_of(OTHER_GATE), now);
    policies::add(&mut cases);
    grants::add(&mut cases);
    json!({"statements": cases.statements, "cases": cases.cases})
}

#[test]
fn every_case_is_decided_as_frozen() {
    let frozen = frozen("decisions.json", &made());
    let cited = |position: usize| verified(frozen["statements"][position].as_str().unwrap());
    let statement = |position: &Value| cited(position.as_u64().unwrap() as usize);
    for case in frozen["cases"].as_array().unwrap() {
        let request = statement(&case["request"]).request().unwrap();
        let roster = statement(&case["roster"]).roster().unwrap();
        let answers = case["decisions"].as_array().unwrap().iter();
        let answers: Vec<_> = answers
            .map(|position| statement(position).decision().unwrap())
            .collect();
        let now = serde_json::from_value(case["now"].clone()).unwrap();
        let standing = standing_of(&case["standing"], &cited);
        assert_eq!(
            verdict(&decide(&request, &answers, &standing, &roster, now)),
            case["expect"],
            "{}",
            case["name"]
        );
    }
}
