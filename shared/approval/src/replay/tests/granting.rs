//! The rules of 10.4 about grants and revocations.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use super::*;

use super::policy::CAREFUL;

#[test]
fn a_grant_is_what_enough_people_said_with_the_same_terms() {
    let mut world = World::two_of_three();
    let request = world.ask(command(&[b"git", b"fetch", b"upstream"]));
    let terms = last_blank(2);
    let alice = world.approve_for_good(ALICE, request, &terms);
    assert_eq!(world.grantable(request), None);
    let tablet = world.approve_for_good(ALICE_TABLET, request, &terms);
    assert_eq!(world.grantable(request), None, "a person is one however many devices");
    let other = world.approve_for_good(BOB, request, &Terms::exact());
    assert_eq!(world.grantable(request), None, "other terms are another grant");
    let bob = world.approve_for_good(BOB, request, &terms);
    let good = world.grantable(request).unwrap();
    assert_eq!((&good.decisions, &good.terms), (&vec![alice, bob], &terms));
    let cites = |decisions: &[Digest]| {
        let grant = Grant {
            decisions: decisions.to_vec(),
            ..good.clone()
        };
        world.judge(GATE, grant)
    };
    assert_eq!(cites(&[alice, bob]).unwrap().did(), Did::Granted);
    assert_eq!(cites(&[tablet, bob]).unwrap().request(), Some((2, request)));
    let unknown = Digest::of(b"nothing");
    for wrong in [
        &[][..],
        &[alice],
        &[alice, alice],
        &[alice, tablet],
        &[bob, alice],
        &[alice, other],
        &[alice, tablet, bob],
        &[alice, bob, unknown],
    ] {
        assert_eq!(kind(cites(wrong)), FindingKind::NotCarried, "{wrong:?}");
    }
    let mut wider = good.clone();
    wider.terms.uses = Some(5);
    assert_eq!(kind(world.judge(GATE, wider)), FindingKind::NotCarried);
    assert_eq!(
        kind(world.judge(ALICE, good.clone())),
        FindingKind::NotByGate(Kind::Grant)
    );
    let mut old = good.clone();
    old.roster = Digest::of(b"old");
    assert_eq!(kind(world.judge(GATE, old)), FindingKind::OldRoster);
    world.say(GATE, good.clone());
    assert_eq!(
        kind(world.judge(
            GATE,
            Grant {
                time: world.time(),
                ..good.clone()
            }
        )),
        FindingKind::GrantedAlready
    );
    assert_eq!(world.grantable(request), None);
    world.permit(request);
    assert_eq!(
        kind(world.judge(
            GATE,
            Grant {
                time: world.time(),
                ..good
            }
        )),
        FindingKind::PermittedAlready
    );
}

#[test]
fn people_may_grant_several_things_at_once() {
    let mut world = World::two_of_three();
    let request = world.ask(command(&[b"git", b"fetch", b"upstream"]));
    for terms in [Terms::exact(), last_blank(2)] {
        world.approve_for_good(ALICE, request, &terms);
        world.approve_for_good(BOB, request, &terms);
    }
    let mut given = Vec::new();
    while let Some(grant) = world.grantable(request) {
        given.push(grant.terms.clone());
        world.say(GATE, grant);
    }
    assert_eq!(given, [Terms::exact(), last_blank(2)]);
}

#[test]
fn what_may_not_be_granted_is_not() {
    let mut world = World::two_of_three_under(CAREFUL);
    let good = |world: &mut World, action: Action, terms: &Terms| {
        let request = world.ask(action);
        let decisions = [ALICE, BOB].map(|seed| world.approve_for_good(seed, request, terms));
        Grant {
            request,
            roster: world.roster().digest(),
            decisions: decisions.to_vec(),
            terms: terms.clone(),
            time: world.time(),
        }
    };
    let is = |world: &World, grant: &Grant| {
        assert_eq!(world.grantable(grant.request), None);
        kind(world.judge(GATE, grant.clone()))
    };
    let roster = Action::Roster(world.contents(three(), 1, 1));
    let grant = good(&mut world, roster, &Terms::exact());
    assert_eq!(is(&world, &grant), FindingKind::NotGrantable(NotGrantable::Roster));
    let option = good(&mut world, command(&[b"git", b"fetch", b"--all"]), &last_blank(2));
    assert_eq!(is(&world, &option), FindingKind::NotGrantable(NotGrantable::Blank));
    let forbidden = good(&mut world, command(&[b"git", b"gc"]), &Terms::exact());
    assert_eq!(is(&world, &forbidden), FindingKind::Ungranted("the policy forbids it"));
    let fetch = good(&mut world, command(&[b"git", b"fetch"]), &Terms::exact());
    assert!(world.judge(GATE, fetch.clone()).is_ok());
    let mut denied = world.clone();
    denied.deny(CAROL, fetch.request);
    let late = Grant {
        time: denied.time(),
        ..fetch.clone()
    };
    assert_eq!(is(&denied, &late), FindingKind::Ungranted("an admin has denied it"));
    let mut expired = world.clone();
    expired.wait(600_000);
    let late = Grant {
        time: expired.time(),
        ..fetch
    };
    assert_eq!(is(&expired, &late), FindingKind::Ungranted("it had expired"));
    // Approvals that lack the number count for a grant as little as for a permit.
    let push = good(&mut world, command(&[b"git", b"push"]), &Terms::exact());
    assert_eq!(is(&world, &push), FindingKind::NotCarried);
}

#[test]
fn nobody_looks_through_more_than_ten_thousand_grants() {
    let mut world = World::two_of_three();
    let until = Terms {
        not_after: Some(world.time().plus_millis(100_000)),
        ..Terms::exact()
    };
    let grant = world.granted(command(&[b"git", b"fetch"]), &until);
    let held = world.replay.standing().get(&grant).unwrap().clone();
    for _ in 1..GRANTS - 1 {
        world.replay.rules.give(held.clone());
    }
    let request = world.ask(command(&[b"git", b"pull"]));
    world.approve_for_good(ALICE, request, &Terms::exact());
    world.approve_for_good(BOB, request, &Terms::exact());
    assert!(world.grantable(request).is_some());
    let refused = world.grantable(request).unwrap();
    world.replay.rules.give(held);
    assert_eq!(world.grantable(request), None);
    assert_eq!(kind(world.judge(GATE, refused)), FindingKind::TooManyGrants);
    world.wait(100_000);
    assert!(world.grantable(request).is_some(), "those that are over make room");
}

#[test]
fn one_admin_takes_a_grant_back_once() {
    let mut people = three();
    people.push(person("dora", Role::Auditor, &[(DORA, "desk")]));
    let mut world = World::with(people, 2, 2);
    let grant = world.granted(command(&[b"git", b"fetch"]), &Terms::exact());
    for stranger in [DORA, GATE, 66] {
        let theirs = world.revocation(stranger, grant);
        assert_eq!(kind(world.judge(stranger, theirs)), FindingKind::NotAdmin);
    }
    let unknown = world.revocation(ALICE, Digest::of(b"nothing"));
    assert_eq!(kind(world.judge(ALICE, unknown)), FindingKind::NoGrant);
    let entry = world.judge(CAROL, world.revocation(CAROL, grant)).unwrap();
    assert_eq!(
        (entry.did(), entry.request()),
        (
            Did::Revoked,
            Some((2, world.replay.standing().get(&grant).unwrap().request().digest()))
        )
    );
    let request = world.ask(command(&[b"git", b"fetch"]));
    let leave = world.permission(request);
    world.revoke(CAROL, grant);
    assert_eq!(
        kind(world.judge(ALICE, world.revocation(ALICE, grant))),
        FindingKind::RevokedAlready
    );
    let late = Permission {
        time: world.time(),
        ..leave
    };
    assert_eq!(
        kind(world.judge(GATE, late)),
        FindingKind::Undecided("too few people have approved")
    );
}

#[test]
fn a_grant_has_the_gates_time_and_a_revocation_any() {
    let mut world = World::two_of_three();
    let request = world.ask(command(&[b"git"]));
    world.approve_for_good(ALICE, request, &Terms::exact());
    world.approve_for_good(BOB, request, &Terms::exact());
    let good = world.grantable(request).unwrap();
    let early = Grant {
        time: Time::from_millis(1).unwrap(),
        ..good.clone()
    };
    assert!(matches!(kind(world.judge(GATE, early)), FindingKind::Time { .. }));
    let grant = world.say(GATE, good);
    let mut revocation = world.revocation(CAROL, grant);
    revocation.time = Time::from_millis(1).unwrap();
    assert!(world.judge(CAROL, revocation).is_ok());
}

#[test]
fn what_stands_is_shared_and_not_changed_by_whoever_goes_on() {
    let mut world = World::two_of_three();
    let grant = world.granted(command(&[b"git", b"fetch"]), &Terms::exact());
    let before = world.replay.clone();
    world.revoke(CAROL, grant);
    let revoked = |replay: &Replay| replay.standing().get(&grant).unwrap().revocation().is_some();
    assert!(!revoked(&before) && revoked(&world.replay));
    assert!(before.snapshot_weight() < world.replay.snapshot_weight() + 1 && before.snapshot_weight() >= 5);
}
