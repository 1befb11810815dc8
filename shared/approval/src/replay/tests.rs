//! Every rule of PROTOCOL.md 10.4, kept and broken.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use super::fixture::*;
use super::*;
use crate::action::Action;
use crate::decision::Answer;
use crate::grant::Terms;
use crate::outcome::{Ended, Exit, Forbidden, Nothing, Outcome};
use crate::permit::{Basis, Permission};
use crate::policy::Policy;
use crate::request::Request;
use crate::roster::{Role, Unenrolled};
use crate::scalar::Text;
use crate::statement::sign;

mod granting;
mod policy;

fn kind<T: std::fmt::Debug>(result: Result<T, Finding>) -> FindingKind {
    result.unwrap_err().kind
}

#[test]
fn a_season_holds_and_every_entry_is_told() {
    let world = season();
    let mut replay = Replay::new(None);
    let mut counts = std::collections::BTreeMap::new();
    for (index, entry) in world.entries.iter().enumerate() {
        let entry = replay.next(entry.as_bytes()).unwrap();
        assert_eq!(entry.index(), index as u64);
        *counts.entry(format!("{:?}", entry.did())).or_insert(0) += 1;
    }
    assert_eq!(
        (replay.size(), replay.root()),
        (world.replay.size(), world.replay.root())
    );
    assert_eq!(replay.gate(), Some(identity(GATE).party()));
    assert_eq!(counts["Began"] + counts["Enrolled"], 2);
    assert_eq!((counts["Changed"], counts["Asked"], counts["Ended"]), (4, 24, 18));
    assert_eq!((counts["Granted"], counts["Revoked"]), (2, 1));
    let left: Vec<_> = replay
        .open()
        .map(|pending| (pending.decisions().len(), pending.permit().is_some()))
        .collect();
    assert_eq!(left, [(2, true), (1, false)]);
}

#[test]
fn memory_is_bounded_by_what_is_open() {
    let mut world = World::two_of_three();
    let closed = world.ask(command(&[b"git"]));
    assert_eq!(world.replay.roots.len(), 1);
    let open = world.ask(command(&[b"git"]));
    world.approve(ALICE, open);
    assert_eq!(world.replay.roots.len(), 3);
    world.end(closed, Ended::Withdrawn(Nothing {}));
    assert_eq!(world.replay.roots.len(), 3);
    world.approve(BOB, open);
    world.permit(open);
    assert!(world.replay.roots.is_empty());
    world.end(open, ran(Exit::Code(0), None));
    assert_eq!(world.replay.open().count(), 0);
}

#[test]
fn a_finding_changes_nothing_and_check_changes_nothing() {
    let mut world = World::two_of_three();
    let before = (world.replay.size(), world.replay.root());
    let right = sign(&identity(GATE), world.request(command(&[b"git"]))).unwrap();
    assert!(world.replay.next(b"{}").is_err());
    let checked = world.replay.check(right.signed().as_bytes()).unwrap();
    assert_eq!(before, (world.replay.size(), world.replay.root()));
    assert_eq!(checked.entry().did(), Did::Asked);
    let stale = checked.clone();
    let entry = world.replay.admit(checked).unwrap();
    assert_eq!(entry.request(), Some((2, right.digest())));
    assert_eq!(kind(world.replay.admit(stale)), FindingKind::Stale);
    assert_eq!(world.replay.size(), 3);
}

#[test]
fn the_beginning_is_a_genesis_of_the_expected_gate() {
    let world = World::two_of_three();
    let genesis = world.entries[0].as_bytes();
    assert_eq!(
        kind(Replay::new(None).next(world.entries[1].as_bytes())),
        FindingKind::NotGenesis
    );
    let other = identity(99).party();
    assert_eq!(
        kind(Replay::new(Some(other)).next(genesis)),
        FindingKind::OtherGate {
            expected: other,
            found: identity(GATE).party()
        }
    );
    let mut replay = Replay::new(None);
    assert_eq!(replay.next(genesis).unwrap().did(), Did::Began);
    assert_eq!(kind(replay.next(genesis)), FindingKind::NotNext);
}

#[test]
fn what_is_no_statement_of_this_transcript_is_found() {
    let world = World::two_of_three();
    assert!(matches!(kind(world.replay.check(b"")), FindingKind::Statement(_)));
    let device = certificate(ALICE, "phone").signed().clone();
    assert_eq!(
        kind(world.replay.check(device.as_bytes())),
        FindingKind::Misplaced(Kind::Device)
    );
    // A request that another gate made and signed in its own name.
    let mut request = world.request(command(&[b"git"]));
    request.gate = identity(99).party();
    assert_eq!(kind(world.judge(99, request)), FindingKind::NotByGate(Kind::Request));
    // A roster that follows, but makes another gate of this one.
    let mut enrolling = World::new();
    let contents = enrolling.contents(three(), 1, 1);
    let mut roster = enrolling.next_roster(&contents, None);
    (roster.gate, roster.gate_device) = (identity(99).party(), certificate(99, "gate"));
    assert_eq!(kind(enrolling.judge(99, roster)), FindingKind::NotByGate(Kind::Roster));
    let good = enrolling.next_roster(&contents, None);
    enrolling.say(GATE, good);
}

#[test]
fn messages_about_hostile_payloads_are_escaped() {
    let payload = b"{\"v\":1,\"\x1b[2J\xe2\x80\xae\":1}";
    let kind = FindingKind::Statement(StatementError::Payload(String::from_utf8(payload.to_vec()).unwrap()));
    assert!(kind.to_string().chars().all(crate::escape::is_allowed));
}

#[test]
fn the_clock_of_the_gate_never_runs_backwards() {
    let mut world = World::two_of_three();
    let request = world.ask(command(&[b"git"]));
    world.now -= 701;
    let withdrawn = world.outcome(request, Ended::Withdrawn(Nothing {}));
    assert!(matches!(
        kind(world.judge(GATE, withdrawn.clone())),
        FindingKind::Time { .. }
    ));
    // A device's clock may be wrong.
    world.now -= 1_000_000;
    assert_eq!(
        world
            .judge(ALICE, world.decision(ALICE, request, Answer::Approve))
            .unwrap()
            .did(),
        Did::Decided
    );
    world.now += 1_000_001;
    assert!(
        world
            .judge(GATE, world.outcome(request, Ended::Withdrawn(Nothing {})))
            .is_ok()
    );
}

#[test]
fn nothing_that_the_gate_says_is_of_before_what_it_said_last() {
    let mut world = World::two_of_three();
    let contents = world.contents(three(), 1, 2);
    let change = world.ask(Action::Roster(contents.clone()));
    world.approve(ALICE, change);
    world.approve(BOB, change);
    world.permit(change);
    let run = world.ask(command(&[b"git"]));
    world.approve_for_good(ALICE, run, &Terms::exact());
    world.approve_for_good(BOB, run, &Terms::exact());
    let last = world.replay.time().unwrap();
    let said = |time: Time| {
        [
            world.judge(
                GATE,
                Roster {
                    created: time,
                    ..world.next_roster(&contents, Some(change))
                },
            ),
            world.judge(
                GATE,
                Request {
                    created: time,
                    ..world.request(command(&[b"git"]))
                },
            ),
            world.judge(
                GATE,
                Permission {
                    time,
                    ..world.permission(run)
                },
            ),
            world.judge(
                GATE,
                Grant {
                    time,
                    ..world.grantable(run).unwrap()
                },
            ),
            world.judge(
                GATE,
                Outcome {
                    time,
                    ..world.outcome(change, Ended::Unknown(Nothing {}))
                },
            ),
        ]
    };
    assert!(said(last).iter().all(Result::is_ok));
    let early = Time::from_millis(last.millis() - 1).unwrap();
    for judged in said(early) {
        assert_eq!(kind(judged), FindingKind::Time { from: last, to: early });
    }
    // And each of them is what the next is compared with.
    let (grant, now) = (world.grantable(run).unwrap(), world.time());
    world.say(GATE, grant);
    assert_eq!(world.replay.time(), Some(now));
    let (permit, now) = (world.permission(run), world.time());
    world.say(GATE, permit);
    assert_eq!(world.replay.time(), Some(now));
    let (next, now) = (world.next_roster(&contents, Some(change)), world.time());
    world.say(GATE, next);
    assert_eq!(world.replay.time(), Some(now));
    let (ended, now) = (world.outcome(run, ran(Exit::Code(0), None)), world.time());
    world.say(GATE, ended);
    assert_eq!(world.replay.time(), Some(now));
    let now = world.time();
    world.ask(command(&[b"git"]));
    assert_eq!(world.replay.time(), Some(now));
}

#[test]
fn a_roster_follows_the_one_before() {
    let world = World::new();
    let contents = world.contents(three(), 1, 1);
    let good = world.next_roster(&contents, None);
    assert_eq!(world.judge(GATE, good.clone()).unwrap().did(), Did::Enrolled);
    let mut skipped = good.clone();
    skipped.epoch += 1;
    assert_eq!(kind(world.judge(GATE, skipped)), FindingKind::NotNext);
    let mut orphan = good.clone();
    orphan.previous = Some(Digest::of(b"another"));
    assert_eq!(kind(world.judge(GATE, orphan)), FindingKind::NotNext);
    let mut based = good;
    based.basis = Some(Digest::of(b"nothing"));
    assert_eq!(kind(world.judge(GATE, based)), FindingKind::Basis);
}

#[test]
fn even_the_admins_cannot_leave_the_gate_alone_again() {
    let mut world = World::with(three(), 1, 1);
    let nobody = world.contents(vec![person("dora", Role::Auditor, &[(DORA, "desk")])], 1, 1);
    let request = world.ask(Action::Roster(nobody.clone()));
    world.approve(ALICE, request);
    world.permit(request);
    let orphaned = world.next_roster(&nobody, Some(request));
    assert_eq!(kind(world.judge(GATE, orphaned)), FindingKind::NobodyLeft);
    assert_eq!(
        kind(world.judge(GATE, world.outcome(request, ran(Exit::Code(0), None)))),
        FindingKind::NotACommand
    );
}

#[test]
fn the_gate_alone_cannot_change_who_says_yes() {
    let mut world = World::two_of_three();
    let mine = world.contents(vec![person("mallory", Role::Admin, &[(66, "phone")])], 1, 1);
    assert_eq!(
        kind(world.judge(GATE, world.next_roster(&mine, None))),
        FindingKind::NoBasis
    );
    let invented = world.next_roster(&mine, Some(Digest::of(b"x")));
    assert_eq!(kind(world.judge(GATE, invented)), FindingKind::NotPermittedBasis);

    let asked = world.contents(three(), 3, 3);
    let request = world.ask(Action::Roster(asked.clone()));
    let run = world.ask(command(&[b"git"]));
    let next = world.next_roster(&asked, Some(request));
    assert_eq!(kind(world.judge(GATE, next)), FindingKind::NotPermittedBasis);
    for approver in [ALICE, BOB] {
        world.approve(approver, request);
        world.approve(approver, run);
    }
    world.permit(request);
    world.permit(run);
    assert_eq!(
        kind(world.judge(GATE, world.next_roster(&asked, Some(run)))),
        FindingKind::NotPermittedBasis
    );
    assert_eq!(
        kind(world.judge(GATE, world.next_roster(&mine, Some(request)))),
        FindingKind::OtherRoster
    );
    let mut reordered = asked.clone();
    reordered.people.reverse();
    assert_eq!(
        kind(world.judge(GATE, world.next_roster(&reordered, Some(request)))),
        FindingKind::OtherRoster
    );
    // The same names, and another's key behind one of them.
    let mut swapped = asked.clone();
    swapped.people[2] = person("carol", Role::Admin, &[(66, "phone")]);
    assert_eq!(
        kind(world.judge(GATE, world.next_roster(&swapped, Some(request)))),
        FindingKind::OtherRoster
    );
    let next = world.next_roster(&asked, Some(request));
    let entry = world.judge(GATE, next.clone()).unwrap();
    assert_eq!((entry.did(), entry.request()), (Did::Changed, Some((2, request))));
    world.say(GATE, next);
    assert!(world.replay.request(&request).is_none());
    let again = world.next_roster(&asked, Some(request));
    assert_eq!(kind(world.judge(GATE, again)), FindingKind::NotPermittedBasis);
}

#[test]
fn a_request_belongs_to_its_place_its_roster_and_its_quorum() {
    let mut world = World::two_of_three();
    let good = world.request(command(&[b"git"]));
    let mut moved = good.clone();
    moved.index += 1;
    assert_eq!(kind(world.judge(GATE, moved)), FindingKind::Moved(3));
    let mut old = good.clone();
    old.roster = Digest::of(b"old");
    assert_eq!(kind(world.judge(GATE, old)), FindingKind::OldRoster);
    let mut cheap = good.clone();
    cheap.need = 1;
    assert_eq!(
        kind(world.judge(GATE, cheap)),
        FindingKind::Need { expected: 2, found: 1 }
    );
    let copy = sign(&identity(GATE), good).unwrap();
    world.replay.next(copy.signed().as_bytes()).unwrap();
    assert_eq!(kind(world.replay.next(copy.signed().as_bytes())), FindingKind::Moved(2));
}

#[test]
fn nobody_is_asked_more_than_they_can_read() {
    let mut world = World::two_of_three();
    for _ in 0..OPEN_REQUESTS {
        world.ask(command(&[b"git"]));
    }
    assert_eq!(
        kind(world.judge(GATE, world.request(command(&[b"git"])))),
        FindingKind::TooManyOpen
    );
    // Who is permitted waits for nobody.
    let first = world.replay.open().next().unwrap().request().digest();
    world.approve(ALICE, first);
    world.approve(BOB, first);
    world.permit(first);
    world.ask(command(&[b"git"]));
    assert_eq!(
        kind(world.judge(GATE, world.request(command(&[b"git"])))),
        FindingKind::TooManyOpen
    );
}

#[test]
fn a_decision_is_an_admins_about_an_open_request_and_recorded_once() {
    let mut world = World::two_of_three();
    let request = world.ask(command(&[b"git"]));
    let good = world.decision(ALICE, request, Answer::Approve);
    for stranger in [DORA, GATE] {
        let theirs = world.decision(stranger, request, Answer::Approve);
        assert_eq!(kind(world.judge(stranger, theirs)), FindingKind::NotAdmin);
    }
    let unknown = world.decision(ALICE, Digest::of(b"nothing"), Answer::Approve);
    assert_eq!(kind(world.judge(ALICE, unknown)), FindingKind::NotOpen);
    world.say(ALICE, good.clone());
    assert_eq!(kind(world.judge(ALICE, good.clone())), FindingKind::Repeated);
    let carols = world.decision(CAROL, request, Answer::Approve);
    // Bob's very same words are his own decision, and no repetition.
    let bobs = crate::decision::Decision {
        party: identity(BOB).party(),
        ..good
    };
    world.say(BOB, bobs);
    world.permit(request);
    assert_eq!(kind(world.judge(CAROL, carols)), FindingKind::PermittedAlready);
}

#[test]
fn an_auditor_has_no_say() {
    let mut people = three();
    people.push(person("dora", Role::Auditor, &[(DORA, "desk")]));
    let mut world = World::with(people, 1, 1);
    let request = world.ask(command(&[b"git"]));
    assert_eq!(
        kind(world.judge(DORA, world.decision(DORA, request, Answer::Deny))),
        FindingKind::NotAdmin
    );
}

#[test]
fn a_decision_witnesses_this_very_log() {
    let mut world = World::two_of_three();
    let before = world.checkpoint();
    let request = world.ask(command(&[b"git"]));
    let after = world.checkpoint();
    let other = world.ask(command(&[b"git", b"status"]));
    let quote = |checkpoint: &Checkpoint| {
        let mut decision = world.decision(ALICE, request, Answer::Approve);
        decision.checkpoint = checkpoint.as_str().to_owned();
        world.judge(ALICE, decision)
    };
    assert!(quote(&after).is_ok());
    assert!(quote(&world.checkpoint()).is_ok());
    assert_eq!(kind(quote(&before)), FindingKind::EarlyCheckpoint);
    let gate = identity(GATE);
    let longer = Checkpoint::sign(&gate, 5, [1; 32]);
    assert_eq!(kind(quote(&longer)), FindingKind::LateCheckpoint(5));
    for size in [3, 4] {
        let fork = Checkpoint::sign(&gate, size, [1; 32]);
        assert_eq!(kind(quote(&fork)), FindingKind::Fork(size));
    }
    let foreign = Checkpoint::sign(&identity(99), after.size(), after.root());
    assert_eq!(
        kind(quote(&foreign)),
        FindingKind::Checkpoint(CheckpointError::OtherGate)
    );
    let mut decision = world.decision(ALICE, other, Answer::Approve);
    decision.checkpoint = after.as_str().to_owned();
    assert_eq!(kind(world.judge(ALICE, decision)), FindingKind::EarlyCheckpoint);
    // What Bob has witnessed speaks for nobody else.
    let mut answered = world.clone();
    answered.approve(BOB, request);
    let quote = |checkpoint: &Checkpoint| {
        let mut decision = answered.decision(ALICE, request, Answer::Approve);
        decision.checkpoint = checkpoint.as_str().to_owned();
        answered.judge(ALICE, decision)
    };
    assert!(quote(&after).is_ok());
    assert_eq!(kind(quote(&before)), FindingKind::EarlyCheckpoint);
    assert_eq!(kind(quote(&Checkpoint::sign(&gate, 4, [1; 32]))), FindingKind::Fork(4));
    assert_eq!(
        kind(quote(&foreign)),
        FindingKind::Checkpoint(CheckpointError::OtherGate)
    );
}

#[test]
fn a_permit_needs_what_decide_needs() {
    let mut world = World::two_of_three();
    let request = world.ask(command(&[b"git"]));
    let first = world.approve(ALICE, request);
    let tablet = world.approve(ALICE_TABLET, request);
    let permit = |world: &World, decisions: &[Digest]| Permission {
        request,
        roster: world.roster().digest(),
        basis: Basis::Decisions(decisions.to_vec()),
        confined: Vec::new(),
        time: world.time(),
    };
    assert!(matches!(
        kind(world.judge(GATE, permit(&world, &[first, tablet]))),
        FindingKind::Undecided(_)
    ));
    let second = world.approve(BOB, request);
    assert_eq!(
        kind(world.judge(GATE, permit(&world, &[first, tablet]))),
        FindingKind::OtherDecisions
    );
    assert_eq!(
        kind(world.judge(GATE, permit(&world, &[second, first]))),
        FindingKind::OtherDecisions
    );
    assert_eq!(
        kind(world.judge(GATE, permit(&world, &[tablet, second]))),
        FindingKind::OtherDecisions
    );
    let mut old = permit(&world, &[first, second]);
    old.roster = Digest::of(b"old");
    assert_eq!(kind(world.judge(GATE, old)), FindingKind::OldRoster);
    assert_eq!(
        world.judge(GATE, permit(&world, &[first, second])).unwrap().did(),
        Did::Permitted
    );

    let mut late = world.clone();
    late.wait(600_000);
    assert_eq!(
        kind(late.judge(GATE, permit(&late, &[first, second]))),
        FindingKind::Undecided("it had expired")
    );
    let mut denied = world.clone();
    denied.deny(CAROL, request);
    assert_eq!(
        kind(denied.judge(GATE, permit(&denied, &[first, second]))),
        FindingKind::Undecided("an admin has denied it")
    );
    world.permit(request);
    assert_eq!(
        kind(world.judge(GATE, permit(&world, &[first, second]))),
        FindingKind::PermittedAlready
    );
    world.end(request, ran(Exit::Code(0), None));
    assert_eq!(
        kind(world.judge(GATE, permit(&world, &[first, second]))),
        FindingKind::NotOpen
    );
}

#[test]
fn somebody_who_left_is_not_counted_any_more() {
    let mut world = World::two_of_three();
    let request = world.ask(command(&[b"git"]));
    let bob = world.approve(BOB, request);
    let without_bob = vec![three()[0].clone(), three()[2].clone()];
    world.change(world.contents(without_bob, 2, 2), &[ALICE, CAROL]);
    assert_eq!(
        kind(world.judge(BOB, world.decision(BOB, request, Answer::Deny))),
        FindingKind::NotAdmin
    );
    let alice = world.approve(ALICE, request);
    let permit = Permission {
        request,
        roster: world.roster().digest(),
        basis: Basis::Decisions(vec![bob, alice]),
        confined: Vec::new(),
        time: world.time(),
    };
    assert_eq!(
        kind(world.judge(GATE, permit)),
        FindingKind::Undecided("too few people have approved")
    );
    world.approve(CAROL, request);
    world.permit(request);
}

#[test]
fn nobody_enrolled_means_no() {
    let mut world = World::new();
    let request = world.ask(command(&[b"git"]));
    let permit = Permission {
        request,
        roster: world.roster().digest(),
        basis: Basis::Decisions(Vec::new()),
        confined: Vec::new(),
        time: world.time(),
    };
    assert!(matches!(kind(world.judge(GATE, permit)), FindingKind::Undecided(_)));
}

#[test]
fn an_outcome_tells_how_it_really_ended() {
    let mut world = World::two_of_three();
    let request = world.ask(command(&[b"git"]));
    let nothing = Nothing {};
    assert_eq!(
        kind(world.judge(GATE, world.outcome(request, Ended::Denied(nothing)))),
        FindingKind::NotDenied
    );
    assert_eq!(
        kind(world.judge(GATE, world.outcome(request, Ended::Expired(nothing)))),
        FindingKind::NotExpired
    );
    let mut lie = world.outcome(request, ran(Exit::Code(0), None));
    lie.permit = Some(Digest::of(b"never"));
    assert_eq!(kind(world.judge(GATE, lie.clone())), FindingKind::NotPermitted);
    assert_eq!(
        kind(world.judge(ALICE, world.outcome(request, Ended::Withdrawn(nothing)))),
        FindingKind::NotByGate(Kind::Outcome)
    );
    assert!(
        world
            .judge(GATE, world.outcome(request, Ended::Withdrawn(nothing)))
            .is_ok()
    );
    let mut denied = world.clone();
    denied.deny(ALICE, request);
    assert!(
        denied
            .judge(GATE, denied.outcome(request, Ended::Denied(nothing)))
            .is_ok()
    );
    let mut expired = world.clone();
    expired.now = expired.replay.request(&request).unwrap().request().expires.millis();
    assert!(
        expired
            .judge(GATE, expired.outcome(request, Ended::Expired(nothing)))
            .is_ok()
    );
    expired.now -= 1;
    assert_eq!(
        kind(expired.judge(GATE, expired.outcome(request, Ended::Expired(nothing)))),
        FindingKind::NotExpired
    );

    world.approve(ALICE, request);
    world.approve(BOB, request);
    world.permit(request);
    lie.time = world.time();
    assert_eq!(kind(world.judge(GATE, lie)), FindingKind::OtherPermit);
    let mut withdrawn = world.outcome(request, Ended::Withdrawn(nothing));
    withdrawn.permit = None;
    assert_eq!(kind(world.judge(GATE, withdrawn)), FindingKind::PermittedAlready);
    let ended = world.outcome(request, ran(Exit::Code(0), None));
    world.say(GATE, ended.clone());
    assert_eq!(kind(world.judge(GATE, ended)), FindingKind::NotOpen);
}

#[test]
fn what_a_person_reads_comes_from_the_request_alone() {
    let mut world = World::two_of_three();
    let mut request = world.request(command(&[b"git"]));
    request.reason = Text::new("trust me\ncommand\n  executable  /bin/true").unwrap();
    let digest = world.say(GATE, request);
    let pending = world.replay.request(&digest).unwrap();
    let text = crate::render::render_request(pending.request());
    assert!(text.starts_with("command\n  executable  /usr/bin/git\n"));
    assert_eq!(text.matches("\n  executable").count(), 1);
    assert!(text.ends_with("| trust me\n| command\n| \\u{20}\\u{20}executable\\u{20}\\u{20}/bin/true\n"));
}
