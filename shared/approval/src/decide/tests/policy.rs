//! The steps of 9 that ask the policy, and a gate without admins.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use super::*;

/// The team with another policy, in force after the one that a request was asked under.
fn under(policy: &str) -> Verified<Roster> {
    team_with(policy)
}

fn on(roster: &Verified<Roster>, argv: &[&str]) -> Verified<Request> {
    let argv: Vec<_> = argv.iter().map(|argument| bytes(argument)).collect();
    let path = format!("/usr/bin/{}", String::from_utf8_lossy(argv[0].as_bytes()));
    request_with(roster, |request| {
        request.action = Action::Command(crate::action::Command {
            executable: bound(&path, 1),
            argv,
            ..plain_command()
        });
    })
}

fn basis(verdict: Verdict) -> Basis {
    match verdict {
        Verdict::Open(permit) => permit.basis().clone(),
        other => panic!("not open: {other:?}"),
    }
}

#[test]
fn policy_denies_before_anybody_is_asked() {
    let roster = under(POLICY);
    let request = on(&roster, &["rm", "-r", "x"]);
    let forbidden = Verdict::Forbidden { rule: Some(0) };
    let yes = [yes(ALICE, &request), yes(BOB, &request), yes(CAROL, &request)];
    assert_eq!(decide(&request, &[], &roster, at(NOON)), forbidden);
    assert_eq!(decide(&request, &yes, &roster, at(NOON)), forbidden);
    // Before a denial and before the clock: it was never anybody's to decide.
    assert_eq!(
        decide(&request, &[no(ALICE, &request)], &roster, request.expires),
        forbidden
    );
    let guest = request_with(&roster, |request| {
        request.action = on(&roster, &["make"]).action.clone();
        request.asked_by.agent = "guest".parse().unwrap();
    });
    assert_eq!(
        decide(&guest, &[], &roster, at(NOON)),
        Verdict::Forbidden { rule: None }
    );
    // Asked before the policy said so, it is judged by what it says now.
    assert_eq!(decide(&on(&team(), &["rm"]), &yes, &roster, at(NOON)), forbidden);
}

#[test]
fn what_the_policy_allows_opens_by_its_rule_or_mode() {
    let roster = under(POLICY);
    let listed = on(&roster, &["ls", "-l", "a.log"]);
    assert_eq!(basis(decide(&listed, &[], &roster, at(NOON))), Basis::Rule(1));
    assert_eq!(decide(&listed, &[], &roster, listed.expires), Verdict::Expired);
    let denied = decide(&listed, &[no(BOB, &listed)], &roster, at(NOON));
    assert!(
        matches!(denied, Verdict::Denied { .. }),
        "one who says no is heard: {denied:?}"
    );
    let people = [yes(ALICE, &listed), yes(BOB, &listed)];
    let by_people = basis(decide(&listed, &people, &roster, at(NOON)));
    assert!(matches!(by_people, Basis::Decisions(_)), "{by_people:?}");
    assert_eq!(decide(&on(&roster, &["ls"]), &[], &roster, at(NOON)), waiting(0, 2));

    let full = under("mode = \"full\"");
    assert_eq!(
        basis(decide(&on(&full, &["ls"]), &[], &full, at(NOON))),
        Basis::Mode(Nothing {})
    );
    // Nothing that a policy says is about changing it.
    let change = request_with(&full, |request| {
        (request.class, request.need) = (Class::Roster, 3);
        request.action = Action::Roster(team().contents());
    });
    assert_eq!(decide(&change, &[], &full, at(NOON)), waiting(0, 3));
    assert_eq!(decide(&change, &[], &under("mode = \"deny\""), at(NOON)), waiting(0, 3));
}

#[test]
fn a_rule_used_up_is_asked_again() {
    let roster = under(POLICY);
    let listed = on(&roster, &["ls", "-l", "a.log"]);
    let mut standing = Standing::default();
    let at_noon = |standing: &Standing| crate::decide::decide(&listed, &[], standing, &roster, at(NOON));
    standing.use_rule(1, at(NOON - 5));
    assert_eq!(basis(at_noon(&standing)), Basis::Rule(1));
    standing.use_rule(1, at(NOON));
    assert_eq!(at_noon(&standing), waiting(0, 2));
    // An hour later the first use counts no more.
    let old = request_with(&roster, |request| {
        request.action = listed.action.clone();
        (request.created, request.expires) = (at(NOON), at(NOON + 90 * MINUTE));
    });
    let later = |millis| crate::decide::decide(&old, &[], &standing, &roster, at(millis));
    assert_eq!(later(NOON - 6 + 60 * MINUTE), waiting(0, 2));
    assert_eq!(basis(later(NOON - 5 + 60 * MINUTE)), Basis::Rule(1));
}

/// D30.
#[test]
fn the_stricter_quorum_holds() {
    let three = "[class.c]\nquorum = 3\n[[rule]]\neffect = \"ask\"\nclass = \"c\"\n";
    let asked = request(&team());
    let decisions = [yes(ALICE, &asked), yes(BOB, &asked), yes(CAROL, &asked)];
    assert_eq!(decide(&asked, &decisions[..2], &under(three), at(NOON)), waiting(2, 3));
    assert_eq!(opened(decide(&asked, &decisions, &under(three), at(NOON))).len(), 3);
    let careful = request_with(&under(three), |request| request.need = 3);
    let decisions = [yes(ALICE, &careful), yes(BOB, &careful)];
    assert_eq!(decide(&careful, &decisions, &team(), at(NOON)), waiting(2, 3));
    // A class below the roster's quorum doesn't lower it.
    let one = under(&three.replace('3', "1"));
    assert_eq!(decide(&asked, &decisions[..1], &one, at(NOON)), waiting(0, 2));
}

const NO_VETO: &str = "[class.c]\nveto = false\n[[rule]]\neffect = \"ask\"\nclass = \"c\"\n";

#[test]
fn without_veto_a_denial_ends_it_only_when_too_few_are_left() {
    let roster = under(NO_VETO);
    let asked = request_with(&roster, |request| request.veto = false);
    let (alice, bob, carol) = (yes(ALICE, &asked), yes(BOB, &asked), no(CAROL, &asked));
    assert_eq!(
        decide(&asked, &[carol.clone(), alice.clone()], &roster, at(NOON)),
        waiting(1, 2)
    );
    assert_eq!(
        opened(decide(
            &asked,
            &[carol.clone(), alice.clone(), bob.clone()],
            &roster,
            at(NOON)
        )),
        [alice.digest(), bob.digest()]
    );
    let denied = Verdict::Denied {
        by: "carol".parse().unwrap(),
        decision: carol.digest(),
    };
    let two_no = [carol.clone(), no(BOB, &asked)];
    assert_eq!(decide(&asked, &two_no, &roster, at(NOON)), denied);
    // The same person twice leaves as many as once.
    let twice = [no(ALICE, &asked), no(ALICES_PHONE, &asked)];
    assert_eq!(decide(&asked, &twice, &roster, at(NOON)), waiting(0, 2));
    // Either of then and now is enough for a veto.
    assert_eq!(decide(&asked, std::slice::from_ref(&carol), &team(), at(NOON)), denied);
    let strict = request(&roster);
    let verdict = decide(&strict, &[no(CAROL, &strict)], &roster, at(NOON));
    assert!(matches!(verdict, Verdict::Denied { .. }));
}

#[test]
fn who_has_denied_approves_nothing() {
    let roster = under(NO_VETO);
    let asked = request_with(&roster, |request| request.veto = false);
    let decisions = [yes(ALICE, &asked), no(ALICES_PHONE, &asked), yes(BOB, &asked)];
    assert_eq!(decide(&asked, &decisions, &roster, at(NOON)), waiting(1, 2));
    let afterwards = [no(ALICE, &asked), yes(ALICE, &asked), yes(BOB, &asked)];
    assert_eq!(decide(&asked, &afterwards, &roster, at(NOON)), waiting(1, 2));
}

#[test]
fn without_veto_nobody_who_is_missing_denies() {
    let asked = request_with(&team(), |request| (request.veto, request.need) = (false, 3));
    let two = roster(&TEAM[..3], quorum(1, 1));
    let two = sign(&identity(GATE), {
        let policy = Policy::parse(NO_VETO).unwrap();
        let mut contents = two.contents();
        contents.policy = Some(policy);
        contents.after(&genesis(), None, at(NOON)).unwrap()
    });
    assert_eq!(decide(&asked, &[], &two.unwrap(), at(NOON)), waiting(0, 3));
}

/// D29.
#[test]
fn the_requester_cannot_approve_under_four_eyes() {
    let roster = under(POLICY);
    let asked_by = |user: Option<&str>, argv: &[&str]| {
        let action = on(&roster, argv).action.clone();
        request_with(&roster, |request| {
            request.asked_by.user = user.map(|user| crate::Text::new(user).unwrap());
            request.action = action;
        })
    };
    let both = |request: &Verified<Request>| {
        let decisions = [yes(ALICE, request), yes(BOB, request)];
        decide(request, &decisions, &roster, at(NOON))
    };
    for user in ["alice", "matrix:alice"] {
        assert_eq!(both(&asked_by(Some(user), &["deploy"])), waiting(1, 2), "{user}");
        // Another class has no such rule.
        assert_eq!(opened(both(&asked_by(Some(user), &["make"]))).len(), 2);
    }
    for user in [Some("erin"), Some("Alice"), None] {
        assert_eq!(opened(both(&asked_by(user, &["deploy"]))).len(), 2, "{user:?}");
    }
    // It may have been so when it was asked. Saying no is everybody's.
    let then = request_with(&team(), |request| {
        request.four_eyes = true;
        request.asked_by.user = Some(crate::Text::new("alice").unwrap());
    });
    let decisions = [yes(ALICE, &then), yes(BOB, &then)];
    assert_eq!(decide(&then, &decisions, &team(), at(NOON)), waiting(1, 2));
    let denied = decide(&then, &[no(ALICE, &then)], &team(), at(NOON));
    assert!(matches!(denied, Verdict::Denied { .. }));
}

#[test]
fn without_the_number_an_approval_counts_nowhere() {
    let team = team();
    let request = request_with(&team, |request| {
        request.matching = Some(matching(&request.nonce, "042"))
    });
    let with = |seed, number: Option<&str>| {
        let decision = Decision {
            number: number.map(str::to_owned),
            ..yes(seed, &request).get().clone()
        };
        sign(&identity(seed), decision).unwrap()
    };
    let bob = with(BOB, Some("042"));
    for wrong in [None, Some("043"), Some("420")] {
        let decisions = [with(ALICE, wrong), bob.clone()];
        assert_eq!(
            decide(&request, &decisions, &team, at(NOON)),
            waiting(1, 2),
            "{wrong:?}"
        );
    }
    let decisions = [with(ALICE, Some("042")), bob];
    assert_eq!(opened(decide(&request, &decisions, &team, at(NOON))).len(), 2);
    let denied = decide(&request, &[no(ALICE, &request)], &team, at(NOON));
    assert!(matches!(denied, Verdict::Denied { .. }), "a denial takes no number");
}

#[test]
fn a_gate_without_admins_does_what_its_genesis_says() {
    let mut genesis = genesis().get().clone();
    genesis.unenrolled = Unenrolled::Allow;
    let free = sign(&identity(GATE), genesis).unwrap();
    let asked = request(&free);
    assert_eq!(
        basis(decide(&asked, &[], &free, at(NOON))),
        Basis::Unenrolled(Nothing {})
    );
    assert_eq!(decide(&asked, &[], &free, asked.expires), Verdict::Expired);
    let change = request_with(&free, |request| {
        request.class = Class::Roster;
        request.action = Action::Roster(team().contents());
    });
    let refused = Verdict::Refused(Reason::NobodyEnrolled);
    assert_eq!(decide(&change, &[], &free, at(NOON)), refused);
    // With an admin it is as everywhere.
    assert_eq!(decide(&asked, &[], &team(), at(NOON)), waiting(0, 2));
}
