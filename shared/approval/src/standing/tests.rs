//! What a grant opens and what it doesn't, in transcripts that give it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use proptest::prelude::*;

use super::*;
use crate::action::Action;
use crate::decide::Verdict;
use crate::grant::Terms;
use crate::permit::Basis;
use crate::replay::fixture::*;
use crate::roster::Role;
use crate::scalar::Text;

const FETCH: [&[u8]; 3] = [b"git", b"fetch", b"upstream"];

fn fetch() -> Action {
    command(&FETCH)
}

fn open_by(world: &mut World, action: Action) -> Option<Digest> {
    let request = world.ask(action);
    match world.verdict(request) {
        Verdict::Open(leave) => match leave.basis() {
            Basis::Grant(grant) => Some(*grant),
            other => panic!("{other:?}"),
        },
        Verdict::Waiting { .. } => None,
        other => panic!("{other:?}"),
    }
}

fn run(world: &mut World, action: Action) {
    let request = world.ask(action);
    world.permit(request);
}

fn state(world: &World, grant: Digest) -> State {
    let standing = world.replay.standing();
    standing.state(standing.get(&grant).unwrap(), world.roster(), world.time())
}

#[test]
fn a_grant_opens_what_is_like_its_request() {
    let mut world = World::two_of_three();
    let grant = world.granted(fetch(), &last_blank(2));
    assert_eq!(open_by(&mut world, fetch()), Some(grant));
    assert_eq!(
        open_by(&mut world, command(&[b"git", b"fetch", b"mirror"])),
        Some(grant)
    );
    for other in [&b"-v"[..], b"a/b", b"a b", b"", b"caf\xc3\xa9"] {
        assert_eq!(
            open_by(&mut world, command(&[b"git", b"fetch", other])),
            None,
            "{other:?}"
        );
    }
    assert_eq!(open_by(&mut world, command(&[b"git", b"push", b"mirror"])), None);
    // D32: never with another argument more.
    assert_eq!(open_by(&mut world, command(&[b"git", b"fetch", b"mirror", b"x"])), None);
    assert_eq!(open_by(&mut world, tool("{}")), None);
}

#[test]
fn an_approval_alone_grants_nothing() {
    let mut world = World::two_of_three();
    let request = world.ask(fetch());
    world.approve(ALICE, request);
    world.approve(BOB, request);
    assert_eq!(world.grantable(request), None);
    world.permit(request);
    assert_eq!(open_by(&mut world, fetch()), None);
}

#[test]
fn a_grant_used_up_opens_nothing() {
    let mut world = World::two_of_three();
    let terms = Terms {
        uses: Some(2),
        ..Terms::exact()
    };
    let grant = world.granted(fetch(), &terms);
    run(&mut world, fetch());
    assert_eq!(world.replay.standing().get(&grant).unwrap().uses_left(), Some(1));
    run(&mut world, fetch());
    let held = world.replay.standing().get(&grant).unwrap();
    assert_eq!((held.used(), held.uses_left()), (2, Some(0)));
    assert_eq!(held.last_use(), world.replay.time());
    assert_eq!(open_by(&mut world, fetch()), None);
    assert_eq!(state(&world, grant), State::UsedUp);
    let asked_by = world.request(fetch()).asked_by;
    assert!(world.replay.standing().alike(&fetch(), &asked_by).is_empty());
    // Nor is it looked at any more.
    assert!(world.replay.standing().index.candidates(&fetch(), &asked_by).is_empty());
    assert_eq!(world.replay.standing().unended(world.time()), 0);
}

#[test]
fn a_grant_stands_until_and_including_its_last_time() {
    let mut world = World::two_of_three();
    let last = world.time().plus_millis(60_000);
    let terms = Terms {
        not_after: Some(last),
        ..Terms::exact()
    };
    let grant = world.granted(fetch(), &terms);
    let request = world.ask(fetch());
    let at = |time| world.replay.decide(&request, time).unwrap();
    assert!(matches!(at(last), Verdict::Open(_)));
    assert!(matches!(at(last.plus_millis(1)), Verdict::Waiting { .. }));
    assert_eq!(state(&world, grant), State::Stands);
    assert_eq!(world.replay.standing().unended(last), 1);
    world.now = last.millis() + 1;
    assert_eq!(state(&world, grant), State::Over);
    assert_eq!(world.replay.standing().unended(world.time()), 0);
}

#[test]
fn a_revoked_grant_opens_nothing() {
    let mut world = World::two_of_three();
    let grant = world.granted(fetch(), &Terms::exact());
    let open = world.ask(fetch());
    assert!(matches!(world.verdict(open), Verdict::Open(_)));
    let revocation = world.revoke(CAROL, grant);
    assert!(matches!(world.verdict(open), Verdict::Waiting { have: 0, need: 2 }));
    let by = identity(CAROL).party();
    assert_eq!(state(&world, grant), State::Revoked { by, revocation });
}

#[test]
fn a_revoked_admins_grant_no_longer_stands() {
    let mut world = World::two_of_three();
    let grant = world.granted(fetch(), &Terms::exact());
    let people = world.replay.standing().get(&grant).unwrap().people(world.roster());
    assert_eq!(
        people.iter().map(|person| person.name.as_str()).collect::<Vec<_>>(),
        ["alice", "bob"]
    );
    let devices = [ALICE, BOB].map(|seed| identity(seed).party());
    assert_eq!(world.replay.standing().get(&grant).unwrap().devices(), devices);
    let without_bob = vec![three()[0].clone(), three()[2].clone()];
    world.change(world.contents(without_bob, 2, 2), &[ALICE, CAROL]);
    assert_eq!(open_by(&mut world, fetch()), None);
    assert_eq!(state(&world, grant), State::TooFewLeft { left: 1, need: 2 });
}

#[test]
fn a_device_lost_is_a_voice_lost_unless_its_person_gave_another() {
    let mut world = World::two_of_three();
    let request = world.ask(fetch());
    for seed in [ALICE, BOB, CAROL] {
        world.approve_for_good(seed, request, &Terms::exact());
    }
    let grant = world.grantable(request).unwrap();
    assert_eq!(grant.decisions.len(), 3);
    let grant = world.say(GATE, grant);
    let without_phone = vec![
        person("alice", Role::Admin, &[(ALICE_TABLET, "tablet")]),
        three()[1].clone(),
        three()[2].clone(),
    ];
    world.change(world.contents(without_phone, 2, 2), &[BOB, CAROL]);
    assert_eq!(open_by(&mut world, fetch()), Some(grant), "Bob and Carol still are two");
    let auditor = vec![
        person("alice", Role::Admin, &[(ALICE_TABLET, "tablet")]),
        person("bob", Role::Auditor, &[(BOB, "laptop")]),
        three()[2].clone(),
    ];
    world.change(world.contents(auditor, 2, 2), &[BOB, CAROL]);
    assert_eq!(open_by(&mut world, fetch()), None);
}

#[test]
fn two_devices_that_came_into_one_hand_are_one_voice() {
    let mut world = World::two_of_three();
    let grant = world.granted(fetch(), &Terms::exact());
    let merged = vec![
        person("alice", Role::Admin, &[(ALICE, "phone"), (BOB, "laptop")]),
        three()[2].clone(),
    ];
    world.change(world.contents(merged, 2, 2), &[BOB, CAROL]);
    assert_eq!(open_by(&mut world, fetch()), None);
    assert_eq!(state(&world, grant), State::TooFewLeft { left: 1, need: 2 });
    let people = world.replay.standing().get(&grant).unwrap().people(world.roster());
    assert_eq!(
        people.iter().map(|person| person.name.as_str()).collect::<Vec<_>>(),
        ["alice"]
    );
}

#[test]
fn a_quorum_raised_later_takes_the_grants_of_fewer_away() {
    let mut world = World::two_of_three();
    world.granted(fetch(), &Terms::exact());
    world.change(world.contents(three(), 3, 2), &[ALICE, BOB]);
    assert_eq!(open_by(&mut world, fetch()), None);
}

#[test]
fn another_class_of_risk_is_another_question() {
    let mut world = World::two_of_three();
    world.granted(fetch(), &Terms::exact());
    let mut contents = world.contents(three(), 2, 2);
    let policy = "[class.net]\n[[rule]]\neffect = \"ask\"\ncommand = [\"git\", { rest = true }]\nclass = \"net\"\n";
    contents.policy = Some(crate::policy::Policy::parse(policy).unwrap());
    world.change(contents, &[ALICE, BOB]);
    assert_eq!(open_by(&mut world, fetch()), None);
    let grant = world.granted(fetch(), &Terms::exact());
    assert_eq!(open_by(&mut world, fetch()), Some(grant));
}

#[test]
fn under_four_eyes_who_asks_gave_nothing() {
    let policy = "[class.c]\nfour_eyes = true\n[[rule]]\neffect = \"ask\"\nclass = \"c\"\n";
    let mut world = World::two_of_three_under(policy);
    let grant = world.granted(fetch(), &Terms::exact());
    let opens = |world: &mut World, user: &str| {
        let request = world.ask_of(fetch(), "builder", user);
        matches!(world.verdict(request), Verdict::Open(leave) if leave.basis() == &Basis::Grant(grant))
    };
    assert!(opens(&mut world, "Maria") && opens(&mut world, "carol"));
    assert!(!opens(&mut world, "alice") && !opens(&mut world, "bob"));
}

#[test]
fn without_four_eyes_who_asks_may_have_given_it() {
    let policy = |four_eyes: bool| {
        let text = format!("[class.c]\nfour_eyes = {four_eyes}\n[[rule]]\neffect = \"ask\"\nclass = \"c\"\n");
        crate::policy::Policy::parse(&text).unwrap()
    };
    let mut world = World::two_of_three_under(policy(false).text());
    let request = world.ask_of(fetch(), "builder", "alice");
    for seed in [ALICE, BOB] {
        world.approve_for_good(seed, request, &Terms::exact());
    }
    let grant = world.grantable(request).unwrap();
    let grant = world.say(GATE, grant);
    let opens = |world: &mut World, user: &str| {
        let request = world.ask_of(fetch(), "builder", user);
        matches!(world.verdict(request), Verdict::Open(leave) if leave.basis() == &Basis::Grant(grant))
    };
    assert!(opens(&mut world, "alice"));
    assert_eq!(state(&world, grant), State::Stands);
    let mut contents = world.contents(three(), 2, 2);
    contents.policy = Some(policy(true));
    world.change(contents, &[ALICE, BOB]);
    assert!(!opens(&mut world, "alice") && opens(&mut world, "Maria"));
    assert_eq!(state(&world, grant), State::TooFewLeft { left: 1, need: 2 });
}

#[test]
fn a_grant_is_for_the_agent_that_asked_and_for_whom_it_says() {
    let mut world = World::two_of_three();
    let mine = Terms {
        user: true,
        ..Terms::exact()
    };
    world.granted(fetch(), &mine);
    let anybodys = world.granted(tool("{}"), &Terms::exact());
    let opens = |world: &mut World, action: Action, agent: &str, user: &str| {
        let request = world.ask_of(action, agent, user);
        matches!(world.verdict(request), Verdict::Open(_))
    };
    assert!(opens(&mut world, fetch(), "builder", "Maria"));
    assert!(!opens(&mut world, fetch(), "builder", "Erin"));
    assert!(!opens(&mut world, fetch(), "other", "Maria"));
    assert!(opens(&mut world, tool("{}"), "builder", "Erin"));
    assert!(!opens(&mut world, tool("{ }"), "builder", "Erin"));
    let mut deep = world.request(tool("{}"));
    deep.asked_by.under = vec!["boss".parse().unwrap()];
    let deep = world.say(GATE, deep);
    assert!(
        matches!(world.verdict(deep), Verdict::Waiting { .. }),
        "not {anybodys:?} for one under another"
    );
}

#[test]
fn the_oldest_grant_that_stands_is_used() {
    let mut world = World::two_of_three();
    let once = Terms {
        uses: Some(1),
        ..Terms::exact()
    };
    let first = world.granted(command(&[b"git", b"fetch", b"upstream"]), &once);
    // Another shape, so another place in the index.
    let request = world.ask(command(&[b"git", b"fetch", b"backup"]));
    for seed in [BOB, CAROL] {
        world.approve_for_good(seed, request, &last_blank(2));
    }
    let second = world.grantable(request).unwrap();
    let second = world.say(GATE, second);
    let asked = world.ask(fetch());
    assert!(matches!(world.verdict(asked), Verdict::Open(leave) if leave.basis() == &Basis::Grant(first)));
    world.permit(asked);
    assert_eq!(open_by(&mut world, fetch()), Some(second));
    let listed: Vec<_> = world.replay.standing().iter().map(Held::digest).collect();
    assert_eq!(listed, [first, second]);
}

#[test]
fn a_smaller_limit_is_like_a_larger_one_and_not_the_reverse() {
    let with = |edit: &dyn Fn(&mut crate::action::Limits)| {
        let Action::Command(mut command) = fetch() else {
            panic!()
        };
        edit(&mut command.limits);
        Action::Command(command)
    };
    let mut world = World::two_of_three();
    world.granted(fetch(), &Terms::exact());
    assert!(open_by(&mut world, with(&|limits| limits.wall_ms -= 1)).is_some());
    assert!(open_by(&mut world, with(&|limits| limits.memory_bytes = 1 << 40)).is_some());
    assert!(open_by(&mut world, with(&|limits| limits.wall_ms += 1)).is_none());
    assert!(open_by(&mut world, with(&|limits| limits.output_bytes += 1)).is_none());
}

#[test]
fn a_rules_uses_are_counted_since_a_time_and_forgotten_with_its_text() {
    let mut standing = Standing::default();
    let time = |millis| Time::from_millis(millis).unwrap();
    for millis in [10, 20, 20, 30] {
        standing.use_rule(7, time(millis));
    }
    let used = |since: Option<u64>| standing.used(7, since.map(time));
    assert_eq!(
        (
            used(None),
            used(Some(9)),
            used(Some(10)),
            used(Some(20)),
            used(Some(30))
        ),
        (4, 4, 3, 1, 0)
    );
    assert_eq!(standing.used(8, None), 0);
    let before = standing.clone();
    standing.forget_uses();
    assert_eq!((standing.used(7, None), before.used(7, None)), (0, 4));
    assert_ne!(standing, before);
    (0..1500).for_each(|millis| standing.use_rule(7, time(millis)));
    assert_eq!((standing.used(7, None), standing.used(7, Some(time(1400)))), (1000, 99));
}

#[test]
fn what_somebody_says_of_uses_is_said_of_all_rules() {
    let mut standing = Standing::default();
    standing.use_rule(1, Time::from_millis(5).unwrap());
    let said = standing.said([2].into());
    assert_eq!((said.used(1, None), said.used(2, None)), (0, u32::MAX));
}

/// One signed grant for each combination is slow to make; what is signed doesn't matter to the index.
fn held(world: &World, action: &Action, user: &str, terms: &Terms) -> Held {
    let request = sign_of(world.request_of(action.clone(), "builder", user));
    let grant = Grant {
        request: request.digest(),
        roster: world.roster().digest(),
        decisions: Vec::new(),
        terms: terms.clone(),
        time: world.time(),
    };
    Held::new(sign_of(grant), request, Vec::new())
}

fn sign_of<T: crate::statement::Payload>(payload: T) -> Verified<T> {
    crate::statement::sign(&identity(GATE), payload).unwrap()
}

fn some_command() -> impl Strategy<Value = (Action, &'static str)> {
    let argument = prop::sample::select(vec![&b"a"[..], b"b", b"-x"]);
    let arguments = prop::collection::vec(argument, 0..4);
    (arguments, 0_u64..3, prop::sample::select(vec!["Maria", "Erin"])).prop_map(|(arguments, wall, user)| {
        let argv: Vec<&[u8]> = [&b"git"[..]].into_iter().chain(arguments).collect();
        let Action::Command(mut command) = command(&argv) else {
            panic!("not a command")
        };
        command.limits.wall_ms += wall;
        (Action::Command(command), user)
    })
}

fn some_terms() -> impl Strategy<Value = Terms> {
    (prop::collection::btree_set(1_u32..4, 0..3), any::<bool>()).prop_map(|(blanks, user)| Terms {
        blanks: blanks.into_iter().collect(),
        user,
        ..Terms::exact()
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn what_the_index_finds_is_what_looking_at_all_finds(
        granted in prop::collection::vec((some_command(), some_terms()), 1..12),
        asked in prop::collection::vec(some_command(), 1..12),
    ) {
        let world = World::two_of_three();
        let mut standing = Standing::default();
        for ((action, user), terms) in &granted {
            standing.give(held(&world, action, user, terms));
        }
        let used_up = standing.iter().next().unwrap().digest();
        standing.revoke(sign_by_carol(world.revocation(CAROL, used_up)));
        for (action, user) in &asked {
            let asked_by = world.request_of(action.clone(), "builder", user).asked_by;
            let all: Vec<_> = standing
                .iter()
                .filter(|held| held.revocation().is_none())
                .filter(|held| held.grant().terms.cover(held.request(), action, &asked_by))
                .map(Held::digest)
                .collect();
            let found: Vec<_> = standing.alike(action, &asked_by).into_iter().map(Held::digest).collect();
            prop_assert_eq!(found, all);
        }
    }
}

fn sign_by_carol(revocation: Revocation) -> Verified<Revocation> {
    crate::statement::sign(&identity(CAROL), revocation).unwrap()
}

#[test]
fn among_many_only_those_in_its_place_are_compared() {
    let world = World::two_of_three();
    let mut standing = Standing::default();
    assert!(standing.is_empty());
    for n in 0..300_u32 {
        let name = format!("r{n}");
        standing.give(held(
            &world,
            &command(&[b"git", b"fetch", name.as_bytes()]),
            "Maria",
            &Terms::exact(),
        ));
    }
    let asked_by = world.request(fetch()).asked_by;
    let found = standing
        .index
        .candidates(&command(&[b"git", b"fetch", b"r123"]), &asked_by);
    assert_eq!(found, [123]);
    assert!(!standing.is_empty());
    assert_ne!(standing, Standing::default());
    assert!(standing.index.candidates(&fetch(), &asked_by).is_empty());
}

#[test]
fn a_grant_keeps_its_place_until_and_including_its_last_time() {
    let mut world = World::two_of_three();
    let mut standing = Standing::default();
    let until = Terms {
        not_after: Some(world.time().plus_millis(10)),
        ..Terms::exact()
    };
    for wait in [10, 1, 0] {
        standing.give(held(&world, &fetch(), "Maria", &until));
        world.wait(wait);
    }
    let asked_by = world.request(fetch()).asked_by;
    assert_eq!(
        standing.index.candidates(&fetch(), &asked_by),
        [2],
        "the last came too late for the others"
    );
    let mut standing = Standing::default();
    world.now -= 11;
    for wait in [10, 0] {
        standing.give(held(&world, &fetch(), "Maria", &until));
        world.wait(wait);
    }
    assert_eq!(standing.index.candidates(&fetch(), &asked_by), [0, 1]);
}

#[test]
fn grants_that_are_over_leave_their_place_to_the_next() {
    let mut world = World::two_of_three();
    let mut standing = Standing::default();
    for _ in 0..50 {
        let terms = Terms {
            not_after: Some(world.time().plus_millis(10)),
            user: false,
            ..Terms::exact()
        };
        standing.give(held(&world, &fetch(), "Maria", &terms));
        world.wait(11);
    }
    let asked_by = world.request(fetch()).asked_by;
    assert_eq!(standing.index.candidates(&fetch(), &asked_by), [49]);
    assert_eq!((standing.len(), standing.unended(world.time())), (50, 0));
    assert_eq!(
        standing.iter().last().unwrap().request().asked_by.user,
        Some(Text::new("Maria").unwrap())
    );
}
