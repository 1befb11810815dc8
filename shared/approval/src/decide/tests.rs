//! Every step of PROTOCOL.md 9. Those about grants are beside `standing`, where transcripts give them.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
use super::*;
use crate::action::Action;
use crate::policy::Policy;
use crate::request::Class;
use crate::roster::Role;
use crate::sample::*;
use crate::statement::sign;

mod policy;

/// With nothing granted and no rule used.
fn decide(
    request: &Verified<Request>,
    decisions: &[Verified<Decision>],
    roster: &Verified<Roster>,
    now: Time,
) -> Verdict {
    super::decide(request, decisions, &Standing::default(), roster, now)
}

fn yes(seed: u8, request: &Verified<Request>) -> Verified<Decision> {
    decision(seed, request, Answer::Approve)
}

fn no(seed: u8, request: &Verified<Request>) -> Verified<Decision> {
    decision(seed, request, Answer::Deny)
}

/// The decisions that the permit cites.
fn opened(verdict: Verdict) -> Vec<Digest> {
    match verdict {
        Verdict::Open(permit) => permit.decisions().to_vec(),
        other => panic!("not open: {other:?}"),
    }
}

fn waiting(have: usize, need: usize) -> Verdict {
    Verdict::Waiting { have, need }
}

#[test]
fn two_of_three_is_enough() {
    let (team, now) = (team(), at(NOON));
    let request = request(&team);
    let (alice, bob, carol) = (yes(ALICE, &request), yes(BOB, &request), yes(CAROL, &request));
    assert_eq!(decide(&request, &[], &team, now), waiting(0, 2));
    assert_eq!(
        decide(&request, std::slice::from_ref(&alice), &team, now),
        waiting(1, 2)
    );
    let both = opened(decide(&request, &[bob.clone(), alice.clone()], &team, now));
    assert_eq!(both, [bob.digest(), alice.digest()]);
    let all = opened(decide(
        &request,
        &[bob.clone(), alice.clone(), carol.clone()],
        &team,
        now,
    ));
    assert_eq!(all, [bob.digest(), alice.digest(), carol.digest()]);
}

#[test]
fn the_permit_and_its_record_name_the_request_and_the_roster() {
    let team = team();
    let request = request(&team);
    let decisions = [yes(ALICE, &request), yes(BOB, &request)];
    let Verdict::Open(permit) = decide(&request, &decisions, &team, at(NOON)) else {
        panic!("not open")
    };
    assert_eq!((permit.request(), permit.roster()), (request.digest(), team.digest()));
    let record = permit.statement(vec![Confined::Mounts, Confined::Cgroup], at(NOON + 5));
    assert_eq!(
        (record.request, record.roster, record.time),
        (request.digest(), team.digest(), at(NOON + 5))
    );
    assert_eq!(record.basis, Basis::Decisions(permit.decisions().to_vec()));
    assert_eq!(record.confined, [Confined::Cgroup, Confined::Mounts]);
}

#[test]
fn two_devices_of_one_person_count_once() {
    let team = team();
    let request = request(&team);
    let (first, second) = (yes(ALICES_PHONE, &request), yes(ALICE, &request));
    assert_eq!(
        decide(&request, &[first.clone(), second.clone()], &team, at(NOON)),
        waiting(1, 2)
    );
    let bob = yes(BOB, &request);
    let cited = opened(decide(&request, &[first.clone(), second, bob.clone()], &team, at(NOON)));
    assert_eq!(cited, [first.digest(), bob.digest()]);
}

#[test]
fn two_people_who_say_exactly_the_same_are_two() {
    let team = team();
    let request = request(&team);
    let words = yes(ALICE, &request).get().clone();
    let same = [ALICE, BOB].map(|seed| {
        let party = identity(seed).party();
        sign(&identity(seed), Decision { party, ..words.clone() }).unwrap()
    });
    assert_ne!(
        same[0].digest(),
        same[1].digest(),
        "the payload says whose words they are"
    );
    assert!(matches!(decide(&request, &same, &team, at(NOON)), Verdict::Open(_)));
}

#[test]
fn the_same_decision_twice_counts_once() {
    let team = team();
    let request = request(&team);
    let alice = yes(ALICE, &request);
    assert_eq!(
        decide(&request, &[alice.clone(), alice], &team, at(NOON)),
        waiting(1, 2)
    );
}

#[test]
fn one_denial_outweighs_all_approvals() {
    let team = team();
    let request = request(&team);
    let denial = no(CAROL, &request);
    let decisions = [yes(ALICE, &request), yes(BOB, &request), denial.clone()];
    let denied = Verdict::Denied {
        by: "carol".parse().unwrap(),
        decision: denial.digest(),
    };
    assert_eq!(decide(&request, &decisions, &team, at(NOON)), denied);
}

#[test]
fn a_change_of_mind_to_no_counts_and_to_yes_does_not() {
    let team = team();
    let request = request(&team);
    let (denial, bob) = (no(ALICE, &request), yes(BOB, &request));
    let denied = || Verdict::Denied {
        by: "alice".parse().unwrap(),
        decision: denial.digest(),
    };
    let then_no = [yes(ALICE, &request), denial.clone(), bob.clone()];
    assert_eq!(decide(&request, &then_no, &team, at(NOON)), denied());
    let then_yes = [denial.clone(), yes(ALICES_PHONE, &request), bob];
    assert_eq!(decide(&request, &then_yes, &team, at(NOON)), denied());
}

#[test]
fn a_request_lives_strictly_before_its_expiry() {
    let team = team();
    let request = request(&team);
    let expiry = request.expires.millis();
    let decisions = [yes(ALICE, &request), yes(BOB, &request)];
    assert!(matches!(
        decide(&request, &decisions, &team, at(expiry - 1)),
        Verdict::Open(_)
    ));
    assert_eq!(decide(&request, &decisions, &team, at(expiry)), Verdict::Expired);
    assert_eq!(decide(&request, &decisions, &team, at(expiry + 1)), Verdict::Expired);
    assert_eq!(decide(&request, &[], &team, at(expiry)), Verdict::Expired);
}

#[test]
fn a_denial_is_still_a_denial_after_the_expiry() {
    let team = team();
    let request = request(&team);
    let verdict = decide(&request, &[no(BOB, &request)], &team, request.expires);
    assert!(matches!(verdict, Verdict::Denied { .. }));
}

#[test]
fn nobody_enrolled_means_no() {
    let genesis = genesis();
    let request = request(&genesis);
    let refused = Verdict::Refused(Reason::NobodyEnrolled);
    assert_eq!(decide(&request, &[], &genesis, at(NOON)), refused);
    let auditors = roster(&[("dora", Role::Auditor, AUDITOR)], quorum(1, 1));
    assert_eq!(
        decide(&request, &[yes(AUDITOR, &request)], &auditors, at(NOON)),
        refused
    );
}

#[test]
fn another_gates_roster_decides_nothing() {
    let request = request(&team());
    let refused = Verdict::Refused(Reason::AnotherGate);
    assert_eq!(decide(&request, &[], &genesis_of(OTHER_GATE), at(NOON)), refused);
}

#[test]
fn only_admins_of_this_roster_count() {
    let team = team();
    let request = request(&team);
    let decisions = [
        yes(AUDITOR, &request),
        yes(STRANGER, &request),
        yes(GATE, &request),
        yes(ALICE, &request),
    ];
    assert_eq!(decide(&request, &decisions, &team, at(NOON)), waiting(1, 2));
    let denials = [no(AUDITOR, &request), no(STRANGER, &request), no(GATE, &request)];
    assert_eq!(decide(&request, &denials, &team, at(NOON)), waiting(0, 2));
}

#[test]
fn an_admin_removed_since_counts_no_more() {
    let request = request(&team());
    let decisions = [yes(ALICE, &request), yes(BOB, &request)];
    let without_bob = roster(
        &[("alice", Role::Admin, ALICE), ("carol", Role::Admin, CAROL)],
        quorum(2, 2),
    );
    assert_eq!(decide(&request, &decisions, &without_bob, at(NOON)), waiting(1, 2));
}

#[test]
fn a_decision_about_another_request_is_passed_over() {
    let team = team();
    let (request, other) = (request(&team), request_with(&team, |request| request.nonce.0[0] ^= 1));
    let decisions = [yes(ALICE, &request), yes(BOB, &other), no(CAROL, &other)];
    assert_eq!(decide(&request, &decisions, &team, at(NOON)), waiting(1, 2));
}

#[test]
fn the_stricter_of_need_then_and_quorum_now_applies() {
    let request = request(&team());
    let decisions = [yes(ALICE, &request), yes(BOB, &request)];
    let lowered = roster(&TEAM, quorum(1, 1));
    assert_eq!(decide(&request, &decisions[..1], &lowered, at(NOON)), waiting(1, 2));
    let raised = roster(&TEAM, quorum(3, 3));
    assert_eq!(decide(&request, &decisions, &raised, at(NOON)), waiting(2, 3));
}

#[test]
fn a_roster_change_takes_the_quorum_of_its_class() {
    let team = team();
    let request = request_with(&team, |request| {
        (request.class, request.need) = (Class::Roster, 3);
        request.action = Action::Roster(team.contents());
    });
    let decisions = [yes(ALICE, &request), yes(BOB, &request), yes(CAROL, &request)];
    assert_eq!(decide(&request, &decisions[..2], &team, at(NOON)), waiting(2, 3));
    assert!(matches!(
        decide(&request, &decisions, &team, at(NOON)),
        Verdict::Open(_)
    ));
}

#[test]
fn a_decision_counts_only_with_a_checkpoint_that_holds_the_request() {
    let team = team();
    let request = request(&team);
    let quoting = |checkpoint: String| {
        let verdict = decision_quoting(ALICE, &request, Answer::Approve, checkpoint);
        decide(&request, &[verdict, yes(BOB, &request)], &team, at(NOON))
    };
    assert!(matches!(quoting(checkpoint(request.index + 1)), Verdict::Open(_)));
    assert_eq!(quoting(checkpoint(request.index)), waiting(1, 2));
    assert_eq!(quoting(String::new()), waiting(1, 2));
    let others = Checkpoint::sign(&identity(OTHER_GATE), 9, [0; 32]).as_str().to_owned();
    assert_eq!(quoting(others), waiting(1, 2));
    let own = Checkpoint::sign(&identity(ALICE), 9, [0; 32]).as_str().to_owned();
    assert_eq!(quoting(own), waiting(1, 2), "nobody is a witness of their own log");
    let denial = decision_quoting(ALICE, &request, Answer::Deny, checkpoint(request.index));
    assert_eq!(decide(&request, &[denial], &team, at(NOON)), waiting(0, 2));
}
