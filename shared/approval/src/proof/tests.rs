//! One approval shown without the rest, and everything that doesn't show it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use super::*;
use crate::decision::Answer;
use crate::grant::Terms;
use crate::outcome::{Ended, Exit, Nothing};
use crate::permit::{Basis, Permission};
use crate::replay::Replay;
use crate::replay::fixture::*;
use crate::roster::Role;
use crate::scalar::{Digest, Time};
use crate::statement::sign;
use crate::transcript::Tree;

fn prove(world: &World, id: &str) -> Result<String, ProveError> {
    let mut prover = Prover::new(id)?;
    let mut replay = Replay::new(None);
    for entry in &world.entries {
        prover.take(&replay.next(entry.as_bytes()).unwrap());
    }
    prover.finish(&world.checkpoint())
}

fn check(text: &str) -> Result<Proven, ProofFileError> {
    verify(text.as_bytes(), &Expect::default())
}

fn small() -> (World, Digest) {
    let mut world = World::with(vec![person("alice", Role::Admin, &[(ALICE, "phone")])], 1, 1);
    let request = world.ask(command(&[b"git"]));
    world.approve(ALICE, request);
    world.ask(command(&[b"git", b"status"]));
    world.permit(request);
    world.end(request, ran(Exit::Code(0), None));
    (world, request)
}

/// The proof with its entries' inclusion proofs made anew, as a dishonest gate could.
fn forged(world: &World, entries: &[usize]) -> String {
    let tree: Tree = world.entries.iter().map(|entry| leaf_hash(entry.as_bytes())).collect();
    let checkpoint = Checkpoint::sign(&identity(GATE), tree.size(), {
        let mut log = crate::transcript::Log::new();
        world.entries.iter().for_each(|entry| {
            log.append(entry.as_bytes());
        });
        log.root()
    });
    let line = |index: &usize| Line {
        index: *index as u64,
        statement: world.entries[*index].clone(),
        proof: tree
            .prove_inclusion(tree.size(), *index as u64)
            .unwrap()
            .iter()
            .map(|hash| STANDARD.encode(hash))
            .collect(),
    };
    let file = File {
        countersign: "proof".to_owned(),
        v: 1,
        gate: identity(GATE).party(),
        checkpoint: checkpoint.as_str().to_owned(),
        entries: entries.iter().map(line).collect(),
    };
    write(&file).unwrap()
}

#[test]
fn every_request_of_a_season_can_be_shown_alone() {
    let world = season();
    let mut replay = Replay::new(None);
    let mut shown = 0;
    for entry in &world.entries {
        let entry = replay.next(entry.as_bytes()).unwrap();
        if entry.did() == Did::Asked {
            let digest = entry.statement().digest();
            let proven = check(&prove(&world, &digest.to_string()).unwrap()).unwrap();
            assert_eq!(proven.request().digest(), digest);
            assert_eq!(proven.pending().is_some(), world.replay.request(&digest).is_some());
            assert_eq!(proven.checkpoint(), &world.checkpoint());
            shown += 1;
        }
    }
    assert_eq!(shown, 24);
}

#[test]
fn a_change_of_roster_in_between_is_part_of_the_proof() {
    let mut world = World::two_of_three();
    let request = world.ask(command(&[b"git"]));
    world.approve(BOB, request);
    let without_bob = vec![three()[0].clone(), three()[2].clone()];
    world.change(world.contents(without_bob, 2, 2), &[ALICE, CAROL]);
    world.approve(ALICE, request);
    world.approve(CAROL, request);
    world.permit(request);
    let proven = check(&prove(&world, &request.to_string()).unwrap()).unwrap();
    assert_eq!(proven.rosters().len(), 2);
    assert!(proven.pending().unwrap().permit().is_some());
    let indexes: Vec<u64> = proven.entries().iter().map(|(index, _)| *index).collect();
    assert_eq!(indexes, [1, 2, 3, 8, 9, 10, 11]);
    // Without the change the permit names a roster that nobody knows.
    let error = check(&forged(&world, &[1, 2, 3, 9, 10, 11])).unwrap_err();
    assert_eq!(error.index(), Some(11), "{error}");
}

#[test]
fn an_id_may_be_shortened_while_it_is_unique() {
    let (world, request) = small();
    let id = request.to_string();
    assert_eq!(prove(&world, &id[..4]).unwrap(), prove(&world, &id).unwrap());
    for wrong in ["", "abc", "ABCD", "wxyz", &(id.clone() + "0")] {
        assert_eq!(prove(&world, wrong), Err(ProveError::Id));
    }
    let other = if id.starts_with("0000") { "1111" } else { "0000" };
    assert_eq!(prove(&world, other), Err(ProveError::NotFound));
    // Two requests of 64 ^ 2 / 2 pairs that begin alike would be luck; the prover is asked directly instead.
    let mut prover = Prover::new(&id).unwrap();
    prover.found = vec![request, request];
    assert_eq!(
        prover.finish(&world.checkpoint()),
        Err(ProveError::Ambiguous(vec![request, request]))
    );
}

#[test]
fn every_changed_byte_of_a_proof_is_found() {
    let (world, request) = small();
    let text = prove(&world, &request.to_string()).unwrap();
    check(&text).unwrap();
    let try_bytes = |part: usize| {
        let mut changed = text.clone().into_bytes();
        for at in (part..text.len()).step_by(2) {
            for other in [text.as_bytes()[at] ^ 1, b'\n'] {
                // A line feed is only tried here and there: it is never read as far as the signatures.
                if other == b'\n' && (at % 10 != part || text.as_bytes()[at] == other) {
                    continue;
                }
                let before = std::mem::replace(&mut changed[at], other);
                assert!(
                    verify(changed.as_slice(), &Expect::default()).is_err(),
                    "byte {at} changed to {other:#04x}"
                );
                changed[at] = before;
            }
        }
    };
    std::thread::scope(|scope| {
        scope.spawn(|| try_bytes(0));
        try_bytes(1);
    });
    for cut in 1..text.len() {
        if cut < 200 || cut % 97 == 0 {
            assert!(check(&text[..text.len() - cut]).is_err());
        }
    }
    assert!(check(&(text.clone() + "\n")).is_err());
    assert!(check(&text.replace(",\"v\":1", ", \"v\":1")).is_err());
}

#[test]
fn what_is_not_one_request_in_order_is_refused() {
    let (world, _) = small();
    // 0 genesis, 1 roster, 2 request, 3 decision, 4 another request, 5 permit, 6 outcome
    check(&forged(&world, &[1, 2, 3, 5, 6])).unwrap();
    check(&forged(&world, &[1, 2])).unwrap();
    for entries in [
        &[][..],
        &[1],
        &[2, 3],
        &[0, 1, 2, 3, 5, 6],
        &[1, 1, 2],
        &[1, 2, 2],
        &[1, 3, 2],
    ] {
        assert!(
            matches!(check(&forged(&world, entries)), Err(ProofFileError::Order)),
            "{entries:?}"
        );
    }
    for (entries, index) in [
        (&[0, 2, 3, 5, 6][..], 2),
        (&[1, 2, 5, 6], 5),
        (&[1, 2, 3, 6], 6),
        (&[1, 2, 3, 4, 5, 6], 4),
        (&[1, 4, 5], 5),
    ] {
        let error = check(&forged(&world, entries)).unwrap_err();
        assert_eq!(error.index(), Some(index), "{entries:?}: {error}");
    }
    let mut after = world.clone();
    let again = after.ask(command(&[b"git"]));
    after.end(again, Ended::Withdrawn(Nothing {}));
    assert!(matches!(
        check(&forged(&after, &[1, 2, 3, 5, 6, 7])),
        Err(ProofFileError::Order)
    ));
}

/// A gate may log whatever it likes; that doesn't make it an approval.
#[test]
fn a_gate_cannot_prove_what_nobody_approved() {
    let mut world = World::two_of_three();
    let request = world.ask(command(&[b"git"]));
    let first = world.approve(ALICE, request);
    let second = world.approve(ALICE_TABLET, request);
    let roster = world.roster().digest();
    let permit = Permission {
        request,
        roster,
        basis: Basis::Decisions(vec![first, second]),
        confined: Vec::new(),
        time: world.time(),
    };
    let permit = sign(&identity(GATE), permit).unwrap();
    world.entries.push(permit.signed().clone());
    let error = check(&forged(&world, &[1, 2, 3, 4, 5])).unwrap_err();
    assert_eq!(error.index(), Some(5), "{error}");
    // Nor does an entry that isn't in the log at all.
    let logged = {
        world.entries.pop();
        forged(&world, &[1, 2, 3])
    };
    let other = sign(&identity(BOB), world.decision(BOB, request, Answer::Approve)).unwrap();
    let swapped = logged.replace(world.entries[3].as_str(), other.signed().as_str());
    assert!(matches!(
        check(&swapped),
        Err(ProofFileError::Inclusion { index: 3, .. })
    ));
}

#[test]
fn what_somebody_expects_is_compared() {
    let (world, request) = small();
    let text = prove(&world, &request.to_string()).unwrap();
    let expect = |gate: Option<u8>, checkpoint: Option<Checkpoint>| {
        let gate = gate.map(|seed| identity(seed).party());
        verify(
            text.as_bytes(),
            &Expect {
                gate,
                checkpoint: checkpoint.map(|known| known.as_str().to_owned()),
            },
        )
    };
    expect(Some(GATE), Some(world.checkpoint())).unwrap();
    assert!(matches!(expect(Some(77), None), Err(ProofFileError::OtherGate { .. })));
    let fork = Checkpoint::sign(&identity(GATE), world.replay.size(), [1; 32]);
    assert!(matches!(expect(None, Some(fork)), Err(ProofFileError::Fork(7))));
    let foreign = Checkpoint::sign(&identity(77), 7, [1; 32]);
    assert!(matches!(expect(None, Some(foreign)), Err(ProofFileError::Known(_))));
}

/// 0 genesis, 1 roster, 2 granted request, 3 and 4 approvals, 5 grant, 6 permit, 7 outcome, 8 request, 9 permit, 10 outcome.
fn by_grant() -> (World, Digest, Digest) {
    let mut world = World::two_of_three();
    let grant = world.granted(command(&[b"git", b"fetch", b"upstream"]), &last_blank(2));
    let request = world.ask(command(&[b"git", b"fetch", b"mirror"]));
    world.permit(request);
    world.end(request, ran(Exit::Code(0), None));
    (world, grant, request)
}

#[test]
fn an_approval_by_a_grant_carries_the_grant() {
    let (world, _, request) = by_grant();
    let proven = check(&prove(&world, &request.to_string()).unwrap()).unwrap();
    let indexes: Vec<u64> = proven.entries().iter().map(|(index, _)| *index).collect();
    assert_eq!(indexes, [1, 2, 3, 4, 5, 8, 9, 10]);
    assert_eq!(proven.request().digest(), request);
    assert!(proven.pending().is_none());
    for (missing, index) in [(2, 3), (3, 4), (4, 5), (5, 5)] {
        let entries: Vec<usize> = [1, 2, 3, 4, 5, 8, 9, 10]
            .into_iter()
            .filter(|at| *at != missing)
            .collect();
        let error = check(&forged(&world, &entries)).unwrap_err();
        assert!(
            missing == 5 || error.index() == Some(index),
            "without {missing}: {error}"
        );
    }
    // What was granted can be shown as well, without the grant.
    let granted = world.entries[2].digest().to_string();
    let proven = check(&prove(&world, &granted).unwrap()).unwrap();
    assert_eq!(proven.entries().len(), 6);
}

#[test]
fn a_grant_given_before_a_roster_and_while_the_request_waits_is_carried_too() {
    let mut world = World::two_of_three();
    let waiting = world.ask(command(&[b"git", b"fetch"]));
    world.granted(command(&[b"git", b"fetch"]), &Terms::exact());
    world.permit(waiting);
    let proven = check(&prove(&world, &waiting.to_string()).unwrap()).unwrap();
    let indexes: Vec<u64> = proven.entries().iter().map(|(index, _)| *index).collect();
    assert_eq!(indexes, [1, 2, 3, 4, 5, 6, 9]);

    let (mut world, _, _) = by_grant();
    world.change(world.contents(three(), 2, 3), &[ALICE, BOB]);
    let later = world.ask(command(&[b"git", b"fetch", b"backup"]));
    world.permit(later);
    let proven = check(&prove(&world, &later.to_string()).unwrap()).unwrap();
    let indexes: Vec<u64> = proven.entries().iter().map(|(index, _)| *index).collect();
    assert_eq!(indexes, [2, 3, 4, 5, 15, 16, 17]);
    assert_eq!(proven.pending().unwrap().request().digest(), later);
}

#[test]
fn time_goes_on_from_the_grants_request_too() {
    let (mut world, _, _) = by_grant();
    world.change(world.contents(three(), 2, 3), &[ALICE, BOB]);
    let later = world.ask(command(&[b"git", b"fetch", b"backup"]));
    world.permit(later);
    let said = |at: usize| world.entries[at].verify().unwrap();
    let (roster, request, permit) = (said(15), said(16), said(17));
    let proof_with = |created: Time| {
        let mut world = world.clone();
        let roster = Roster {
            created,
            ..roster.roster().unwrap().get().clone()
        };
        let roster = sign(&identity(GATE), roster).unwrap();
        let request = Request {
            roster: roster.digest(),
            ..request.request().unwrap().get().clone()
        };
        let request = sign(&identity(GATE), request).unwrap();
        let permit = Permission {
            request: request.digest(),
            roster: roster.digest(),
            ..permit.permit().unwrap().get().clone()
        };
        let permit = sign(&identity(GATE), permit).unwrap();
        world.entries.truncate(15);
        world.entries.extend([
            roster.signed().clone(),
            request.signed().clone(),
            permit.signed().clone(),
        ]);
        check(&forged(&world, &[2, 3, 4, 5, 15, 16, 17]))
    };
    proof_with(roster.roster().unwrap().created).unwrap();
    let error = proof_with(Time::from_millis(0).unwrap()).unwrap_err();
    assert!(
        matches!(&error, ProofFileError::Entry(finding) if finding.index == 15 && matches!(finding.kind, FindingKind::Time { .. })),
        "{error}"
    );
}

#[test]
fn a_grant_of_the_very_request_that_it_opens_is_shown_with_it() {
    let policy = "[class.c]\nveto = false\n[[rule]]\neffect = \"ask\"\nclass = \"c\"\n";
    let mut world = World::two_of_three_under(policy);
    let request = world.ask(command(&[b"git", b"fetch"]));
    world.approve_for_good(ALICE, request, &Terms::exact());
    world.approve_for_good(BOB, request, &Terms::exact());
    let grant = world.grantable(request).unwrap();
    let grant = world.say(GATE, grant);
    // Alice changes her mind about this one time: her grant still stands.
    world.deny(ALICE, request);
    assert_eq!(world.permission(request).basis, Basis::Grant(grant));
    world.permit(request);
    let proven = check(&prove(&world, &request.to_string()).unwrap()).unwrap();
    assert_eq!(proven.entries().len(), 7);
}

#[test]
fn no_grant_is_of_before_its_request() {
    let mut world = World::two_of_three();
    let granted = world.ask(command(&[b"git", b"fetch"]));
    let asked = world.replay.time().unwrap();
    world.approve_for_good(ALICE, granted, &Terms::exact());
    world.approve_for_good(BOB, granted, &Terms::exact());
    let good = world.grantable(granted).unwrap();
    world.say(GATE, good.clone());
    let request = world.ask(command(&[b"git", b"fetch"]));
    // 2 granted request, 3 and 4 approvals, 5 grant, 6 request, 7 permit
    let given_at = |time: Time| {
        let mut world = world.clone();
        let grant = sign(&identity(GATE), crate::grant::Grant { time, ..good.clone() }).unwrap();
        let permit = Permission {
            request,
            roster: good.roster,
            basis: Basis::Grant(grant.digest()),
            confined: Vec::new(),
            time: world.time(),
        };
        let permit = sign(&identity(GATE), permit).unwrap();
        world.entries[5] = grant.signed().clone();
        world.entries.push(permit.signed().clone());
        check(&forged(&world, &[1, 2, 3, 4, 5, 6, 7]))
    };
    given_at(asked).unwrap();
    let error = given_at(Time::from_millis(asked.millis() - 1).unwrap()).unwrap_err();
    assert!(
        matches!(&error, ProofFileError::Entry(finding) if finding.index == 5 && matches!(finding.kind, FindingKind::Time { .. })),
        "{error}"
    );
}

#[test]
fn a_gate_cannot_prove_by_a_grant_that_nobody_gave() {
    let mut world = World::two_of_three();
    let granted = world.ask(command(&[b"git", b"fetch"]));
    let alice = world.approve_for_good(ALICE, granted, &Terms::exact());
    let bob = world.approve(BOB, granted);
    let request = world.ask(command(&[b"git", b"fetch"]));
    let (roster, time) = (world.roster().digest(), world.time());
    let sign = |world: &mut World, decisions: &[Digest]| {
        let grant = crate::grant::Grant {
            request: granted,
            roster,
            decisions: decisions.to_vec(),
            terms: Terms::exact(),
            time,
        };
        let grant = sign(&identity(GATE), grant).unwrap();
        let permit = Permission {
            request,
            roster,
            basis: Basis::Grant(grant.digest()),
            confined: Vec::new(),
            time,
        };
        let permit = sign(&identity(GATE), permit).unwrap();
        world.entries.truncate(6);
        world.entries.extend([grant.signed().clone(), permit.signed().clone()]);
    };
    // 2 granted request, 3 and 4 decisions, 5 request, 6 grant, 7 permit
    sign(&mut world, &[alice, bob]);
    let error = check(&forged(&world, &[1, 2, 3, 4, 5, 6, 7])).unwrap_err();
    assert_eq!(error.index(), Some(4), "Bob's approval grants nothing: {error}");
    sign(&mut world, &[alice]);
    let error = check(&forged(&world, &[1, 2, 3, 5, 6, 7])).unwrap_err();
    assert_eq!(error.index(), Some(7), "Alice alone isn't two: {error}");
    sign(&mut world, &[alice, alice]);
    let error = check(&forged(&world, &[1, 2, 3, 5, 6, 7])).unwrap_err();
    assert_eq!(error.index(), Some(6), "{error}");
}

const THRICE: &str = r#"
[class.careful]
quorum = 3
[[rule]]
effect = "allow"
command = ["git", "status"]
uses = 1
class = "careful"
[[rule]]
effect = "allow"
command = ["git", "status"]
uses = 1
[[rule]]
effect = "allow"
command = ["git", "status"]
agents = ["builder"]
uses = 1
"#;

#[test]
fn how_often_rules_were_used_is_the_gates_word() {
    let mut world = World::two_of_three_under(THRICE);
    let mut bases = Vec::new();
    for _ in 0..3 {
        let request = world.ask(command(&[b"git", b"status"]));
        bases.push(world.permission(request).basis);
        world.permit(request);
        let proven = check(&prove(&world, &request.to_string()).unwrap()).unwrap();
        assert!(proven.pending().unwrap().permit().is_some());
    }
    assert_eq!(bases, [Basis::Rule(0), Basis::Rule(1), Basis::Rule(2)]);
    let fourth = world.ask(command(&[b"git", b"status"]));
    for seed in [ALICE, CAROL] {
        world.approve(seed, fourth);
    }
    world.permit(fourth);
    check(&prove(&world, &fourth.to_string()).unwrap()).unwrap();
    // But no count makes a rule allow what it doesn't match.
    let other = world.ask(command(&[b"git", b"push"]));
    let permit = Permission {
        request: other,
        roster: world.roster().digest(),
        basis: Basis::Rule(1),
        confined: Vec::new(),
        time: world.time(),
    };
    let permit = sign(&identity(GATE), permit).unwrap();
    let at = world.entries.len();
    world.entries.push(permit.signed().clone());
    let error = check(&forged(&world, &[1, at - 1, at])).unwrap_err();
    assert_eq!(error.index(), Some(at as u64), "{error}");
}
