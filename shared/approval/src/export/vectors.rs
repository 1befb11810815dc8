//! The frozen files in `tests/vectors/transcript/`, each named after its flaw. They are written by this test when
//! `COUNTERSIGN_VECTORS=write` is set, and otherwise compared: a change of the bytes is a change of the protocol.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::path::PathBuf;

use super::*;
use crate::action::Action;
use crate::decision::Answer;
use crate::outcome::{Ended, Exit, Nothing, Outcome};
use crate::permit::{Basis, Permission};
use crate::replay::fixture::*;
use crate::roster::Role;
use crate::scalar::Digest;
use crate::statement::{Payload, Statement, Verified, sign};

mod files;
mod standing;

/// A gate that signs whatever it has.
#[derive(Clone)]
struct Dishonest {
    entries: Vec<Signed>,
}

impl Dishonest {
    fn after(world: &World) -> Self {
        Self {
            entries: world.entries.clone(),
        }
    }

    fn say<T: Payload>(mut self, by: u8, payload: T) -> Self {
        self.entries
            .push(sign(&identity(by), payload).unwrap().signed().clone());
        self
    }

    fn checkpoint(&self) -> Checkpoint {
        let mut log = Log::new();
        self.entries.iter().for_each(|entry| {
            log.append(entry.as_bytes());
        });
        Checkpoint::sign(&identity(GATE), log.size(), log.root())
    }

    fn export(&self) -> String {
        String::from_utf8(export(&self.entries, &self.checkpoint())).unwrap()
    }
}

struct Vectors {
    written: usize,
}

impl Vectors {
    fn folder() -> PathBuf {
        PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/vectors/transcript"))
    }

    fn file(&mut self, name: &str, contents: &str) {
        let path = Self::folder().join(name);
        if std::env::var_os("COUNTERSIGN_VECTORS").is_some_and(|wish| wish == "write") {
            std::fs::create_dir_all(Self::folder()).unwrap();
            std::fs::write(&path, contents).unwrap();
        }
        let frozen = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert!(frozen == contents, "{name} differs from what is written now");
        self.written += 1;
    }

    fn good(&mut self, name: &str, contents: &str) {
        verify(contents.as_bytes(), &Expect::default()).unwrap();
        self.file(&format!("good-{name}.jsonl"), contents);
    }

    /// Wrong as a file; the checkpoint is right, or no entry is to blame.
    fn bad_file(&mut self, name: &str, contents: &str) {
        let error = verify(contents.as_bytes(), &Expect::default()).unwrap_err();
        assert!(error.index().is_none(), "{name}: {error}");
        self.file(&format!("bad-file-{name}.jsonl"), contents);
    }

    /// Wrong from an entry on; where the gate itself is dishonest, under a checkpoint that it signed.
    fn bad_entry(&mut self, name: &str, contents: &str) {
        let error = verify(contents.as_bytes(), &Expect::default()).unwrap_err();
        let index = error.index().unwrap_or_else(|| panic!("{name}: {error}"));
        self.file(&format!("bad-entry-{index}-{name}.jsonl"), contents);
    }

    fn bad_last(&mut self, name: &str, gate: &Dishonest) {
        let contents = gate.export();
        let error = verify(contents.as_bytes(), &Expect::default()).unwrap_err();
        assert!(matches!(error, ExportError::Entry(_)), "{name}: {error}");
        assert_eq!(error.index(), Some(gate.entries.len() as u64 - 1), "{name}: {error}");
        self.bad_entry(name, &contents);
    }
}

fn alone() -> World {
    let dora = person("dora", Role::Auditor, &[(DORA, "desk")]);
    World::with(vec![person("alice", Role::Admin, &[(ALICE, "phone")]), dora], 1, 1)
}

fn of_two() -> World {
    let alice = person("alice", Role::Admin, &[(ALICE, "phone"), (ALICE_TABLET, "tablet")]);
    World::with(vec![alice, person("bob", Role::Admin, &[(BOB, "laptop")])], 2, 2)
}

#[test]
fn the_frozen_files_are_what_they_say() {
    let mut vectors = Vectors { written: 0 };
    // Line ends are what some of these files are about.
    vectors.file(".gitattributes", "* -text\n");
    vectors.file("gate.txt", &format!("{}\n", identity(GATE).party()));
    vectors.good("season", &String::from_utf8(season().export()).unwrap());
    vectors.good("genesis-only", &String::from_utf8(World::new().export()).unwrap());
    files::files(&mut vectors);
    requests(&mut vectors);
    decisions(&mut vectors);
    permits(&mut vectors);
    outcomes(&mut vectors);
    rosters(&mut vectors);
    files::checkpoints(&mut vectors);
    files::proofs(&mut vectors);
    files::proofs_with_more(&mut vectors);
    standing::policies(&mut vectors);
    standing::grants(&mut vectors);
    standing::revocations(&mut vectors);
    standing::unenrolled(&mut vectors);
    let frozen = std::fs::read_dir(Vectors::folder()).unwrap();
    let frozen = frozen
        .filter(|file| file.as_ref().unwrap().file_name() != "README.md")
        .count();
    assert_eq!(
        frozen, vectors.written,
        "a file that nothing writes, or a name used twice"
    );
}

fn requests(vectors: &mut Vectors) {
    let world = alone();
    let good = world.request(command(&[b"git", b"push"]));
    let bad = |change: &dyn Fn(&mut crate::request::Request)| {
        let mut request = good.clone();
        change(&mut request);
        Dishonest::after(&world).say(GATE, request)
    };
    vectors.bad_last("request-for-another-position", &bad(&|request| request.index = 3));
    vectors.bad_last(
        "request-under-an-old-roster",
        &bad(&|request| request.roster = Digest::of(b"old")),
    );
    vectors.bad_last("request-with-another-quorum", &bad(&|request| request.need = 2));
    let before = Time::from_millis(good.created.millis() - 701).unwrap();
    vectors.bad_last(
        "request-before-the-entry-before",
        &bad(&|request| request.created = before),
    );
    let mut foreign = good.clone();
    foreign.gate = identity(77).party();
    vectors.bad_last("request-by-another-gate", &Dishonest::after(&world).say(77, foreign));
    let device = certificate(ALICE, "phone");
    let mut misplaced = Dishonest::after(&world);
    misplaced.entries.push(device.signed().clone());
    vectors.bad_last("device-in-the-transcript", &misplaced);
}

fn decisions(vectors: &mut Vectors) {
    let mut world = alone();
    let before = world.checkpoint();
    let request = world.ask(command(&[b"git", b"push"]));
    let good = world.decision(ALICE, request, Answer::Approve);
    let quoting = |checkpoint: &Checkpoint| {
        let mut decision = good.clone();
        decision.checkpoint = checkpoint.as_str().to_owned();
        Dishonest::after(&world).say(ALICE, decision)
    };
    let gate = identity(GATE);
    vectors.bad_last(
        "decision-quoting-a-checkpoint-from-before-the-request",
        &quoting(&before),
    );
    vectors.bad_last(
        "decision-quoting-another-history",
        &quoting(&Checkpoint::sign(&gate, 3, [7; 32])),
    );
    vectors.bad_last(
        "decision-quoting-a-longer-log",
        &quoting(&Checkpoint::sign(&gate, 9, [7; 32])),
    );
    let foreign = Checkpoint::sign(&identity(77), 3, world.replay.root());
    vectors.bad_last("decision-quoting-another-gates-checkpoint", &quoting(&foreign));
    for (name, by) in [("an-auditor", DORA), ("a-stranger", 66), ("the-gate", GATE)] {
        let theirs = world.decision(by, request, Answer::Approve);
        vectors.bad_last(
            &format!("decision-by-{name}"),
            &Dishonest::after(&world).say(by, theirs),
        );
    }
    let mut unknown = good.clone();
    unknown.request = Digest::of(b"nothing");
    vectors.bad_last("decision-about-nothing", &Dishonest::after(&world).say(ALICE, unknown));
    world.say(ALICE, good.clone());
    vectors.bad_last("decision-recorded-twice", &Dishonest::after(&world).say(ALICE, good));
    let late = world.decision(ALICE, request, Answer::Deny);
    world.permit(request);
    vectors.bad_last("decision-after-the-permit", &Dishonest::after(&world).say(ALICE, late));
}

fn permits(vectors: &mut Vectors) {
    let mut world = of_two();
    let request = world.ask(command(&[b"git", b"push"]));
    let phone = world.approve(ALICE, request);
    let permit = |world: &World, decisions: &[Digest]| {
        let (roster, time) = (world.roster().digest(), world.time());
        Dishonest::after(world).say(
            GATE,
            Permission {
                request,
                roster,
                basis: Basis::Decisions(decisions.to_vec()),
                confined: Vec::new(),
                time,
            },
        )
    };
    vectors.bad_last("permit-with-one-of-two", &permit(&world, &[phone]));
    vectors.bad_last("permit-with-nobody", &permit(&world, &[]));
    let tablet = world.approve(ALICE_TABLET, request);
    vectors.bad_last(
        "permit-with-two-devices-of-one-person",
        &permit(&world, &[phone, tablet]),
    );
    let bob = world.approve(BOB, request);
    vectors.bad_last("permit-with-decisions-in-another-order", &permit(&world, &[bob, phone]));
    vectors.bad_last("permit-naming-a-second-approval", &permit(&world, &[tablet, bob]));
    vectors.bad_last("permit-naming-more-than-counts", &permit(&world, &[phone, tablet, bob]));
    let mut denied = world.clone();
    denied.deny(BOB, request);
    vectors.bad_last("permit-after-a-denial", &permit(&denied, &[phone, bob]));
    let mut late = world.clone();
    late.now = late.replay.request(&request).unwrap().request().expires.millis();
    vectors.bad_last("permit-at-the-moment-of-expiry", &permit(&late, &[phone, bob]));
    let roster = Digest::of(b"old");
    let old = Permission {
        request,
        roster,
        basis: Basis::Decisions(vec![phone, bob]),
        confined: Vec::new(),
        time: world.time(),
    };
    vectors.bad_last("permit-under-an-old-roster", &Dishonest::after(&world).say(GATE, old));
    let by_admin = Permission {
        roster: world.roster().digest(),
        ..world.permission(request)
    };
    vectors.bad_last("permit-by-an-admin", &Dishonest::after(&world).say(BOB, by_admin));
    world.permit(request);
    vectors.bad_last("permit-twice", &permit(&world, &[phone, bob]));
}

fn outcomes(vectors: &mut Vectors) {
    let mut world = alone();
    let request = world.ask(command(&[b"git", b"push"]));
    let nothing = Nothing {};
    let ended = |world: &World, permit: Option<Digest>, result: Ended| {
        Dishonest::after(world).say(
            GATE,
            Outcome {
                request,
                permit,
                result,
                time: world.time(),
            },
        )
    };
    let success = || ran(Exit::Code(0), None);
    vectors.bad_last(
        "outcome-ran-without-a-permit",
        &ended(&world, Some(Digest::of(b"none")), success()),
    );
    vectors.bad_last("outcome-denied-by-nobody", &ended(&world, None, Ended::Denied(nothing)));
    let mut early = world.clone();
    early.now = early.replay.request(&request).unwrap().request().expires.millis() - 1;
    vectors.bad_last(
        "outcome-expired-a-millisecond-early",
        &ended(&early, None, Ended::Expired(nothing)),
    );
    world.approve(ALICE, request);
    let permit = world.permit(request);
    vectors.bad_last(
        "outcome-citing-another-permit",
        &ended(&world, Some(request), success()),
    );
    vectors.bad_last(
        "outcome-withdrawn-after-the-permit",
        &ended(&world, None, Ended::Withdrawn(nothing)),
    );
    world.end(request, success());
    vectors.bad_last("outcome-twice", &ended(&world, Some(permit), success()));
}

fn rosters(vectors: &mut Vectors) {
    let mut world = World::new();
    let first = world.contents(vec![person("alice", Role::Admin, &[(ALICE, "phone")])], 1, 1);
    let good = world.next_roster(&first, None);
    let bad = |change: &dyn Fn(&mut crate::roster::Roster)| {
        let mut roster = good.clone();
        change(&mut roster);
        Dishonest::after(&world).say(GATE, roster)
    };
    vectors.bad_last("roster-skipping-an-epoch", &bad(&|roster| roster.epoch = 2));
    vectors.bad_last(
        "roster-after-another-one",
        &bad(&|roster| roster.previous = Some(Digest::of(b"other"))),
    );
    vectors.bad_last(
        "roster-with-a-basis-while-nobody-is-enrolled",
        &bad(&|roster| roster.basis = roster.previous),
    );
    let not_genesis = Dishonest { entries: Vec::new() }.say(GATE, good.clone());
    vectors.bad_last("not-a-genesis", &not_genesis);
    world.say(GATE, good);
    let mallory = world.contents(vec![person("mallory", Role::Admin, &[(66, "phone")])], 1, 1);
    let alone = world.next_roster(&mallory, None);
    vectors.bad_last(
        "roster-changed-by-the-gate-alone",
        &Dishonest::after(&world).say(GATE, alone),
    );
    let asked = world.contents(of_two().roster().people.clone(), 1, 1);
    let request = world.ask(Action::Roster(asked.clone()));
    let early = world.next_roster(&asked, Some(request));
    vectors.bad_last("roster-before-its-permit", &Dishonest::after(&world).say(GATE, early));
    world.approve(ALICE, request);
    world.permit(request);
    let other = world.next_roster(&mallory, Some(request));
    vectors.bad_last(
        "roster-other-than-permitted",
        &Dishonest::after(&world).say(GATE, other),
    );
    let ran = world.outcome(request, ran(Exit::Code(0), None));
    vectors.bad_last(
        "outcome-ran-of-a-roster-change",
        &Dishonest::after(&world).say(GATE, ran),
    );
    let nobody = world.contents(vec![person("dora", Role::Auditor, &[(DORA, "desk")])], 1, 1);
    let request = world.ask(Action::Roster(nobody.clone()));
    world.approve(ALICE, request);
    world.permit(request);
    let orphaned = world.next_roster(&nobody, Some(request));
    vectors.bad_last(
        "roster-that-leaves-nobody-who-decides",
        &Dishonest::after(&world).say(GATE, orphaned),
    );
}
