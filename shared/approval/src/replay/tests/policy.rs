//! The rules of 10.4 about what the policy says, and about a gate without admins.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use super::*;

pub(super) const CAREFUL: &str = r#"
[class.deploy]
quorum = 3
veto = false
four_eyes = true
number = true
expires = "5m"
[[rule]]
effect = "ask"
command = ["git", "push", { rest = true }]
class = "deploy"
[[rule]]
effect = "deny"
command = ["git", "gc"]
[[rule]]
effect = "allow"
command = ["git", "status"]
uses = 2
[[rule]]
effect = "allow"
tool = "issues/close"
"#;

#[test]
fn a_request_says_what_the_policy_says_about_it() {
    let world = World::two_of_three_under(CAREFUL);
    let good = world.request(command(&[b"git", b"push"]));
    assert_eq!(
        (good.need, good.veto, good.four_eyes, good.matching.is_some()),
        (3, false, true, true)
    );
    assert_eq!(good.risk.as_ref().map(crate::Name::as_str), Some("deploy"));
    let other = |edit: &dyn Fn(&mut Request)| {
        let mut request = good.clone();
        edit(&mut request);
        world.judge(GATE, request)
    };
    assert!(other(&|_| {}).is_ok());
    assert_eq!(
        kind(other(&|it| it.need = 2)),
        FindingKind::Need { expected: 3, found: 2 }
    );
    assert_eq!(kind(other(&|it| it.risk = None)), FindingKind::Risk);
    assert_eq!(
        kind(other(&|it| it.risk = Some("other".parse().unwrap()))),
        FindingKind::Risk
    );
    assert_eq!(kind(other(&|it| it.veto = true)), FindingKind::Risk);
    assert_eq!(kind(other(&|it| it.four_eyes = false)), FindingKind::Risk);
    assert_eq!(kind(other(&|it| it.matching = None)), FindingKind::Number);
    let longest = 300_000;
    assert!(other(&|it| it.expires = it.created.plus_millis(longest - 1)).is_ok());
    assert_eq!(
        kind(other(&|it| it.expires = it.created.plus_millis(longest + 1))),
        FindingKind::Life {
            longest,
            found: longest + 1
        }
    );
    let mut plain = world.request(command(&[b"git", b"fetch"]));
    plain.matching = Some(Digest::of(b"x"));
    assert_eq!(kind(world.judge(GATE, plain)), FindingKind::Number);
    let mut change = world.request(Action::Roster(world.contents(three(), 1, 1)));
    assert!(world.judge(GATE, change.clone()).is_ok());
    change.veto = false;
    assert_eq!(kind(world.judge(GATE, change)), FindingKind::Risk);
}

#[test]
fn a_permit_rests_on_what_opened_its_request() {
    let mut world = World::two_of_three_under(CAREFUL);
    let status = world.ask(command(&[b"git", b"status"]));
    let good = world.permission(status);
    assert_eq!(good.basis, Basis::Rule(2));
    let with = |world: &World, basis: Basis| {
        world.judge(
            GATE,
            Permission {
                basis,
                ..world.permission(status)
            },
        )
    };
    for other in [
        Basis::Rule(3),
        Basis::Mode(Nothing {}),
        Basis::Unenrolled(Nothing {}),
        Basis::Grant(Digest::of(b"x")),
        Basis::Decisions(Vec::new()),
    ] {
        assert_eq!(kind(with(&world, other)), FindingKind::OtherBasis);
    }
    let grant = world.granted(command(&[b"git", b"status"]), &Terms::exact());
    assert!(with(&world, Basis::Grant(grant)).is_ok());
    assert_eq!(
        kind(with(&world, Basis::Rule(2))),
        FindingKind::OtherBasis,
        "a grant goes first"
    );
    world.approve(ALICE, status);
    world.approve(CAROL, status);
    assert_eq!(
        kind(with(&world, Basis::Grant(grant))),
        FindingKind::OtherBasis,
        "people go first"
    );
}

#[test]
fn a_rules_uses_end_and_begin_anew_with_another_text() {
    let mut world = World::two_of_three_under(CAREFUL);
    let status = || command(&[b"git", b"status"]);
    for _ in 0..2 {
        let request = world.ask(status());
        world.permit(request);
    }
    let third = world.ask(status());
    let mut more = Permission {
        request: third,
        roster: world.roster().digest(),
        basis: Basis::Rule(2),
        confined: Vec::new(),
        time: world.time(),
    };
    assert_eq!(
        kind(world.judge(GATE, more.clone())),
        FindingKind::Undecided("too few people have approved")
    );
    // A change of something else leaves them counted.
    world.change(world.contents(three(), 1, 2), &[ALICE, BOB]);
    more.roster = world.roster().digest();
    more.time = world.time();
    assert_eq!(
        kind(world.judge(GATE, more.clone())),
        FindingKind::Undecided("too few people have approved")
    );
    let mut contents = world.contents(three(), 1, 2);
    contents.policy = Some(Policy::parse(&format!("{CAREFUL}\n")).unwrap());
    world.change(contents, &[ALICE, BOB]);
    more.roster = world.roster().digest();
    more.time = world.time();
    assert!(world.judge(GATE, more).is_ok());
}

#[test]
fn only_what_counts_is_kept_of_the_uses_of_rules() {
    let mut world = World::two_of_three_under(CAREFUL);
    for _ in 0..3 {
        let request = world.ask(tool("{}"));
        world.permit(request);
    }
    assert_eq!(world.replay.standing().times().count(), 0);
    let request = world.ask(command(&[b"git", b"status"]));
    world.permit(request);
    let times: Vec<_> = world
        .replay
        .standing()
        .times()
        .map(|(rule, times)| (rule, times.len()))
        .collect();
    assert_eq!(times, [(2, 1)]);
}

#[test]
fn forbidden_is_what_the_policy_forbids() {
    let mut world = World::two_of_three_under(CAREFUL);
    let never = world.ask(command(&[b"git", b"gc"]));
    let by = |rule| Ended::Forbidden(Forbidden { rule });
    for wrong in [None, Some(0), Some(2)] {
        assert_eq!(
            kind(world.judge(GATE, world.outcome(never, by(wrong)))),
            FindingKind::NotForbidden
        );
    }
    assert!(world.judge(GATE, world.outcome(never, by(Some(1)))).is_ok());
    let permit = Permission {
        request: never,
        roster: world.roster().digest(),
        basis: Basis::Mode(Nothing {}),
        confined: Vec::new(),
        time: world.time(),
    };
    assert_eq!(
        kind(world.judge(GATE, permit)),
        FindingKind::Undecided("the policy forbids it")
    );
    let asked = world.ask(command(&[b"git", b"fetch"]));
    assert_eq!(
        kind(world.judge(GATE, world.outcome(asked, by(None)))),
        FindingKind::NotForbidden
    );
    let denying = World::two_of_three_under("mode = \"deny\"");
    let mut denying = denying;
    let any = denying.ask(command(&[b"git", b"fetch"]));
    assert!(denying.judge(GATE, denying.outcome(any, by(None))).is_ok());
}

#[test]
fn forbidden_is_what_the_policy_forbids_when_it_ends() {
    let until = "[[rule]]\neffect = \"deny\"\ncommand = [\"git\", \"gc\"]\nuntil = UNTIL\n";
    let mut world = World::two_of_three_under(&until.replace("UNTIL", "2026-11-20T14:01:00Z"));
    let never = world.ask(command(&[b"git", b"gc"]));
    let by_rule = |world: &World| world.outcome(never, Ended::Forbidden(Forbidden { rule: Some(0) }));
    assert!(world.judge(GATE, by_rule(&world)).is_ok());
    world.wait(60_000);
    assert_eq!(kind(world.judge(GATE, by_rule(&world))), FindingKind::NotForbidden);
}

#[test]
fn a_tool_call_is_released_and_a_command_runs() {
    let mut world = World::two_of_three();
    let (call, run) = (world.ask(tool("{}")), world.ask(command(&[b"git"])));
    let change = world.ask(Action::Roster(world.contents(three(), 1, 1)));
    let secret = world.ask(Action::Secret(crate::sample::secret_use()));
    for request in [call, run, change, secret] {
        world.approve(ALICE, request);
        world.approve(BOB, request);
        world.permit(request);
    }
    let released = || Ended::Released(Nothing {});
    let end = |request, result| world.judge(GATE, world.outcome(request, result));
    assert!(end(call, released()).is_ok() && end(run, ran(Exit::Code(0), None)).is_ok());
    assert_eq!(kind(end(call, ran(Exit::Code(0), None))), FindingKind::NotACommand);
    assert!(end(secret, released()).is_ok());
    assert_eq!(kind(end(secret, ran(Exit::Code(0), None))), FindingKind::NotACommand);
    assert_eq!(kind(end(run, released())), FindingKind::NotReleasable);
    assert_eq!(kind(end(change, released())), FindingKind::NotReleasable);
    assert!(end(change, Ended::Unknown(Nothing {})).is_ok());
}

#[test]
fn what_happens_without_an_admin_stands_in_the_genesis() {
    let mut world = World::unenrolled(Unenrolled::Allow);
    let request = world.ask(command(&[b"git"]));
    assert_eq!(world.permission(request).basis, Basis::Unenrolled(Nothing {}));
    world.permit(request);
    world.end(request, ran(Exit::Code(0), None));
    let dora = vec![person("dora", Role::Auditor, &[(DORA, "desk")])];
    let mut stricter = world.next_roster(&world.contents(dora, 1, 1), None);
    assert!(world.judge(GATE, stricter.clone()).is_ok());
    stricter.unenrolled = Unenrolled::Refuse;
    assert_eq!(kind(world.judge(GATE, stricter)), FindingKind::Unenrolled);
    let enrolled = world.next_roster(&world.contents(three(), 1, 1), None);
    world.say(GATE, enrolled);
    let asked = world.ask(command(&[b"git"]));
    assert!(matches!(world.verdict(asked), Verdict::Waiting { .. }));

    let mut strict = World::new();
    let dora = vec![person("dora", Role::Auditor, &[(DORA, "desk")])];
    let mut freer = strict.next_roster(&strict.contents(dora, 1, 1), None);
    freer.unenrolled = Unenrolled::Allow;
    assert_eq!(kind(strict.judge(GATE, freer)), FindingKind::Unenrolled);
    let asked = strict.ask(command(&[b"git"]));
    let permit = Permission {
        request: asked,
        roster: strict.roster().digest(),
        basis: Basis::Unenrolled(Nothing {}),
        confined: Vec::new(),
        time: strict.time(),
    };
    assert_eq!(
        kind(strict.judge(GATE, permit)),
        FindingKind::Undecided("there is nobody to approve it")
    );
}
