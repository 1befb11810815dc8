//! The frozen files about how a file is put together: exports, checkpoints and proofs. Not here: what their entries say.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use super::*;
use crate::proof::{self, Prover};

pub(super) fn files(vectors: &mut Vectors) {
    let mut world = alone();
    let request = world.ask(command(&[b"git", b"push"]));
    world.approve(ALICE, request);
    let good = String::from_utf8(world.export()).unwrap();
    vectors.good("four-entries", &good);
    let lines: Vec<&str> = good.split_inclusive('\n').collect();
    for (name, contents) in [
        ("line-feed-after-the-end", good.clone() + "\n"),
        ("twice", good.clone() + &good),
        ("last-line-feed-missing", good.trim_end().to_owned()),
        ("checkpoint-missing", lines[..5].concat()),
        ("checkpoint-escaped-otherwise", good.replace('\u{2014}', "\\u2014")),
        ("header-version-2", good.replace("\"v\":1,\"gate\"", "\"v\":2,\"gate\"")),
        (
            "header-with-a-space",
            good.replace("\"v\":1,\"gate\"", "\"v\":1, \"gate\""),
        ),
        ("header-missing", lines[1..].concat()),
        ("empty", String::new()),
    ] {
        vectors.bad_file(name, &contents);
    }
    let flipped = |at: usize, from: usize| {
        let mut changed = good.clone().into_bytes();
        let start: usize = lines[..=at].iter().map(|line| line.len()).sum();
        changed[start + from] = if changed[start + from] == b'A' { b'B' } else { b'A' };
        String::from_utf8(changed).unwrap()
    };
    vectors.bad_entry("payload-character-changed", &flipped(1, 300));
    vectors.bad_entry("signature-character-changed", &flipped(3, lines[4].len() - 40));
    vectors.bad_entry("removed", &[lines[0], lines[1], lines[2], lines[4], lines[5]].concat());
    vectors.bad_entry("repeated", &[&lines[..4], &lines[3..]].concat().concat());
    vectors.bad_entry(
        "swapped",
        &[lines[0], lines[1], lines[3], lines[2], lines[4], lines[5]].concat(),
    );
    vectors.bad_entry("cut-tail", &[&lines[..4], &lines[5..]].concat().concat());
    vectors.bad_entry(
        "carriage-returns",
        &good.replace("}\n{\"index\":2", "}\r\n{\"index\":2"),
    );
    vectors.bad_entry("index-with-a-zero", &good.replace("\"index\":3", "\"index\":03"));
    vectors.bad_entry("size-larger", &good.replace("\"size\":4}", "\"size\":5}"));
    vectors.bad_entry(
        "gate-of-another",
        &good.replacen(
            &identity(GATE).party().to_string(),
            &identity(77).party().to_string(),
            1,
        ),
    );

    let gate = identity(GATE);
    let signed = |checkpoint: &Checkpoint| lines[..5].concat() + &checkpoint_line(checkpoint.as_str()).unwrap();
    vectors.bad_file(
        "checkpoint-over-another-root",
        &signed(&Checkpoint::sign(&gate, 4, [7; 32])),
    );
    vectors.bad_file(
        "checkpoint-over-fewer-entries",
        &signed(&Checkpoint::sign(&gate, 3, world.replay.root())),
    );
    vectors.bad_file(
        "checkpoint-by-another-gate",
        &signed(&Checkpoint::sign(&identity(77), 4, world.replay.root())),
    );
    vectors.bad_file("size-smaller", &good.replace("\"size\":4}", "\"size\":3}"));
}

pub(super) fn checkpoints(vectors: &mut Vectors) {
    let gate = identity(GATE);
    let good = Checkpoint::sign(&gate, 51, [0x5a; 32]);
    let text = good.as_str();
    let (body, signature) = text.split_once("\n\n").unwrap();
    let foreign = Checkpoint::sign(&identity(77), 51, [0x5a; 32]);
    let (_, foreign_signature) = foreign.as_str().split_once("\n\n").unwrap();
    assert_eq!(Checkpoint::verify(text, &gate.party()).unwrap(), good);
    vectors.file("checkpoint-good.txt", text);
    for (name, contents) in [
        ("another-gate", foreign.as_str().to_owned()),
        ("another-size", text.replace("\n51\n", "\n52\n")),
        ("carriage-returns", text.replace('\n', "\r\n")),
        ("extension-line", format!("{body}\nextension\n\n{signature}")),
        ("hyphen-for-dash", text.replace('\u{2014}', "-")),
        ("last-line-feed-missing", text.trim_end().to_owned()),
        ("leading-zero", text.replace("\n51\n", "\n051\n")),
        ("signature-twice", format!("{text}{signature}")),
        ("signed-by-another-too", format!("{text}{foreign_signature}")),
        ("signed-by-another", format!("{body}\n\n{foreign_signature}")),
        ("trailing-line-feed", format!("{text}\n")),
    ] {
        assert!(Checkpoint::verify(&contents, &gate.party()).is_err(), "{name}");
        vectors.file(&format!("checkpoint-bad-{name}.txt"), &contents);
    }
}

pub(super) fn proofs(vectors: &mut Vectors) {
    let mut world = of_two();
    let request = world.ask(command(&[b"git", b"push"]));
    world.approve(ALICE, request);
    world.ask(command(&[b"git", b"status"]));
    world.approve(BOB, request);
    world.permit(request);
    world.end(request, ran(Exit::Code(0), None));
    let mut prover = Prover::new(&request.to_string()).unwrap();
    let mut replay = Replay::new(None);
    let entries: Vec<Verified<Statement>> = world
        .entries
        .iter()
        .map(|entry| {
            let entry = replay.next(entry.as_bytes()).unwrap();
            prover.take(&entry);
            entry.statement().clone()
        })
        .collect();
    let good = prover.finish(&world.checkpoint()).unwrap();
    proof::verify(good.as_bytes(), &Expect::default()).unwrap();
    vectors.file("proof-good.json", &good);

    let line = |index: u64| {
        let start = good.find(&format!("{{\"index\":{index},")).unwrap();
        let end = start + good[start..].find("\"]}").unwrap() + 3;
        good[start..end].to_owned()
    };
    let first_hash = good.find("\"proof\":[\"").unwrap() + 10;
    let changed_hash = {
        let other = if good.as_bytes()[first_hash] == b'A' { "B" } else { "A" };
        format!("{}{other}{}", &good[..first_hash], &good[first_hash + 1..])
    };
    for (name, contents) in [
        ("hash-changed", changed_hash),
        ("approval-left-out", good.replace(&(line(5) + ","), "")),
        (
            "entry-twice",
            good.replace(&line(3), &format!("{},{}", line(3), line(3))),
        ),
        (
            "entries-swapped",
            good.replace(&line(3), "#")
                .replace(&line(5), &line(3))
                .replace('#', &line(5)),
        ),
        ("index-changed", good.replace("{\"index\":5,", "{\"index\":4,")),
        (
            "statement-exchanged",
            good.replace(entries[5].signed().as_str(), entries[3].signed().as_str()),
        ),
        ("line-feed-after-the-end", good.clone() + "\n"),
        (
            "another-gate",
            good.replacen(
                &identity(GATE).party().to_string(),
                &identity(77).party().to_string(),
                1,
            ),
        ),
        ("roster-left-out", good.replace(&(line(1) + ","), "")),
    ] {
        assert_ne!(contents, good, "{name}");
        assert!(
            proof::verify(contents.as_bytes(), &Expect::default()).is_err(),
            "{name}"
        );
        vectors.file(&format!("proof-bad-{name}.json"), &contents);
    }
}

fn prove(world: &World, request: Digest) -> String {
    let mut prover = Prover::new(&request.to_string()).unwrap();
    let mut replay = Replay::new(None);
    for entry in &world.entries {
        prover.take(&replay.next(entry.as_bytes()).unwrap());
    }
    let proof = prover.finish(&world.checkpoint()).unwrap();
    proof::verify(proof.as_bytes(), &Expect::default()).unwrap();
    proof
}

/// Proofs of what rests on more than its own entries.
pub(super) fn proofs_with_more(vectors: &mut Vectors) {
    let fetch = |from: &[u8]| command(&[b"git", b"fetch", from]);
    let mut world = World::two_of_three();
    let waiting = world.ask(fetch(b"upstream"));
    world.granted(fetch(b"upstream"), &last_blank(2));
    world.permit(waiting);
    vectors.file("proof-good-by-a-grant-while-it-waited.json", &prove(&world, waiting));
    world.change(world.contents(three(), 2, 3), &[ALICE, BOB]);
    let later = world.ask(fetch(b"mirror"));
    world.permit(later);
    world.end(later, ran(Exit::Code(0), None));
    let good = prove(&world, later);
    vectors.file("proof-good-by-a-grant-from-before-a-roster.json", &good);
    let (head, rest) = good.split_once("[{").unwrap();
    let lines: Vec<&str> = rest.strip_suffix("}]}\n").unwrap().split("},{").collect();
    for (at, name) in ["grants-request", "grants-approval", "grants-second-approval", "grant"]
        .into_iter()
        .enumerate()
    {
        let mut left = lines.clone();
        left.remove(at);
        let contents = format!("{head}[{{{}}}]}}\n", left.join("},{"));
        assert!(
            proof::verify(contents.as_bytes(), &Expect::default()).is_err(),
            "{name}"
        );
        vectors.file(&format!("proof-bad-the-{name}-left-out.json"), &contents);
    }

    let rules = "[[rule]]\neffect = \"allow\"\ncommand = [\"git\", \"status\"]\nuses = 2\n";
    let mut world = World::two_of_three_under(rules);
    let status = world.ask(command(&[b"git", b"status"]));
    world.permit(status);
    world.end(status, ran(Exit::Code(0), None));
    vectors.file("proof-good-by-a-rule.json", &prove(&world, status));
}
