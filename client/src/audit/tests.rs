//! The auditor's commands on the frozen files, which were written by other code than they are read by.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::path::PathBuf;

use super::*;

fn vectors() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/vectors/transcript"))
}

struct Said {
    code: u8,
    out: String,
    err: String,
}

fn run(command: impl FnOnce(&mut dyn Write, &mut dyn Write) -> u8) -> Said {
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let code = command(&mut out, &mut err);
    let said = Said {
        code,
        out: String::from_utf8(out).unwrap(),
        err: String::from_utf8(err).unwrap(),
    };
    for line in said.out.lines().chain(said.err.lines()) {
        // A proof file holds a checkpoint, and that a dash.
        assert!(
            line.chars()
                .all(|character| character == '\u{2014}' || approval::escape::is_allowed(character)),
            "{line:?}"
        );
    }
    said
}

fn verify_file(name: &str, json: bool) -> Said {
    run(|out, err| verify(&vectors().join(name), None, None, json, out, err))
}

fn show_file(name: &str, json: bool) -> Said {
    run(|out, err| show(&vectors().join(name), json, out, err))
}

fn first_request(name: &str) -> String {
    let said = show_file(name, true);
    let entries = said
        .out
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap());
    let request = entries
        .into_iter()
        .find(|entry| entry["kind"] == "request" && entry["payload"]["class"] == "command");
    request.unwrap()["digest"].as_str().unwrap().to_owned()
}

const NOT_AN_EXPORT: &str = "error: not an exported transcript\nhint: give a file that `countersign gate export` or `countersign audit prove` wrote\n";

#[test]
fn a_good_file_holds_and_says_what_is_in_it() {
    let said = verify_file("good-season.jsonl", false);
    assert_eq!((said.code, said.err.as_str()), (HOLDS, ""));
    assert!(said.out.starts_with("holds: "), "{}", said.out);
    assert!(said.out.contains("  people      3, of whom 2 may decide\n"));
    for line in [
        "  requests    24: 7 ran, 1 released, 4 changed the roster, 1 denied, 1 forbidden, 1 expired, ",
        "  grants      2 given, 1 taken back\n",
        "  unasked     2 permitted by a grant, 3 permitted by the policy\n",
    ] {
        assert!(said.out.contains(line), "{line}\n{}", said.out);
    }
    let json: Value = serde_json::from_str(&verify_file("good-season.jsonl", true).out).unwrap();
    assert_eq!(
        (&json["holds"], &json["requests"]["asked"], &json["admins"]),
        (&json!(true), &json!(24), &json!(2))
    );
    assert_eq!(
        (
            &json["grants"],
            &json["unasked"]["by_grant"],
            &json["requests"]["forbidden"]
        ),
        (&json!({"given": 2, "revoked": 1}), &json!(2), &json!(1))
    );
}

#[test]
fn every_bad_file_is_refused_and_its_first_wrong_entry_named() {
    let mut bad = 0;
    for file in std::fs::read_dir(vectors()).unwrap() {
        let name = file.unwrap().file_name().into_string().unwrap();
        let Some(flaw) = name.strip_prefix("bad-").or_else(|| name.strip_prefix("proof-bad-")) else {
            continue;
        };
        let (text, json) = (verify_file(&name, false), verify_file(&name, true));
        assert_eq!(text.code, json.code);
        if matches!(name.as_str(), "bad-file-empty.jsonl" | "bad-file-header-missing.jsonl") {
            assert_eq!((text.code, text.err.as_str()), (UNREADABLE, NOT_AN_EXPORT), "{name}");
            continue;
        }
        assert_eq!(text.code, BROKEN, "{name}: {}{}", text.out, text.err);
        assert!(text.out.starts_with("does not hold: "), "{name}");
        let said: Value = serde_json::from_str(&json.out).unwrap();
        if let Some(numbered) = flaw.strip_prefix("entry-").filter(|_| name.starts_with("bad-")) {
            let index: u64 = numbered.split_once('-').unwrap().0.parse().unwrap();
            assert_eq!(said["entry"], json!(index), "{name}");
            assert!(
                text.out.starts_with(&format!("does not hold: entry {index}: ")),
                "{name}: {}",
                text.out
            );
        }
        bad += 1;
    }
    assert!(bad > 50, "{bad}");
}

#[test]
fn showing_tells_every_entry_and_the_end() {
    let said = show_file("good-season.jsonl", false);
    assert_eq!(said.code, HOLDS);
    for line in [
        "2026-11-20 14:00:00Z  #0    gate                 begins the transcript\n      nobody is enrolled yet\n",
        "alice (phone)        approves #2\n",
        "puts roster 2 in force, as permitted by #2\n",
        "      command\n        executable  /usr/bin/git\n",
        "ran, ended by signal 9, stopped at its time limit\n",
        "      error    the program is gone\n",
        "        argv[3]     café\\u{20}\\u{20}\\xff\\xfe\\u{1b}[2J\n        argv[4]     (empty)\n",
        "      the agent's words (untrusted)\n      | the release is ready\n",
    ] {
        assert!(said.out.contains(line), "{line}\n{}", said.out);
    }
    let verified = verify_file("good-season.jsonl", false);
    assert!(said.out.ends_with(&verified.out));
    let json = show_file("good-season.jsonl", true);
    assert!(json.out.is_ascii());
    let lines: Vec<Value> = json
        .out
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(lines.last().unwrap()["size"], json!(lines.len() - 1));
}

#[test]
fn grants_and_what_rests_on_them_are_told() {
    let said = show_file("good-season.jsonl", false);
    let reach = "with any plain word in place of argv[2], without end, whoever asks through the agent builder";
    for told in [
        "permits #6, approved by bob\n".to_owned(),
        format!("approves #39, and its like from now on\n      would grant it: {reach}\n"),
        format!("      git fetch <any>\n      {reach}\n      given by alice and bob\n"),
        "takes the grant f1e0e011 back\n".to_owned(),
        "permits #45, by the grant f1e0e011\n".to_owned(),
        "permits #59, by rule 0 of the policy, line 2\n".to_owned(),
        "ends #67: forbidden by rule 1 of the policy, line 6\n".to_owned(),
        "ends #69: permitted, and released to whoever asked\n".to_owned(),
    ] {
        assert!(said.out.contains(&told), "{told}\n{}", said.out);
    }
    let said = show_file("good-unenrolled.jsonl", false);
    assert!(said.out.contains(", nobody enrolled yet\n"), "{}", said.out);
    assert!(
        said.out.contains("and everything is allowed until somebody is\n"),
        "{}",
        said.out
    );
}

#[test]
fn showing_a_bad_file_stops_at_the_wrong_entry() {
    let said = show_file("bad-entry-3-decision-quoting-another-history.jsonl", false);
    assert_eq!(said.code, BROKEN);
    assert!(said.out.contains("#2    gate") && !said.out.contains("approves"));
    assert!(
        said.out
            .lines()
            .last()
            .unwrap()
            .starts_with("does not hold: entry 3: the gate has signed another history")
    );
}

#[test]
fn one_approval_is_taken_out_and_holds_alone() {
    let id = first_request("good-season.jsonl");
    let season = vectors().join("good-season.jsonl");
    let proof = run(|out, err| prove(&season, &id[..8], out, err));
    assert_eq!((proof.code, proof.err.as_str()), (HOLDS, ""));
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("proof.json");
    std::fs::write(&file, &proof.out).unwrap();
    let checked = run(|out, err| verify(&file, Some(&season), None, false, out, err));
    assert_eq!(checked.code, HOLDS, "{}{}", checked.out, checked.err);
    assert!(checked.out.starts_with(&format!("holds: request {id}\n")));
    assert!(checked.out.contains("  result      ran, exit code 0\n"));
    assert!(checked.out.contains("  permitted   approved by "), "{}", checked.out);
    let json = run(|out, err| verify(&file, None, None, true, out, err));
    assert_eq!(
        serde_json::from_str::<Value>(&json.out).unwrap()["result"],
        json!("ran")
    );
    let shown = run(|out, err| show(&file, false, out, err));
    assert!(shown.out.contains("bob (laptop)") && shown.out.ends_with(&checked.out));
}

#[test]
fn an_id_that_means_nothing_is_said_to() {
    let season = vectors().join("good-season.jsonl");
    for (id, why) in [
        ("abc", "error: an id has 4 to 64"),
        ("00000000", "error: no request has this id"),
        ("zzzz", "error: an id"),
    ] {
        let said = run(|out, err| prove(&season, id, out, err));
        assert_eq!((said.code, said.out.as_str()), (UNREADABLE, ""));
        assert!(said.err.starts_with(why), "{}", said.err);
    }
}

#[test]
fn nothing_is_proven_from_a_transcript_that_does_not_hold() {
    let id = first_request("good-four-entries.jsonl");
    let cut = vectors().join("bad-file-line-feed-after-the-end.jsonl");
    let said = run(|out, err| prove(&cut, &id, out, err));
    assert_eq!(said.code, BROKEN);
    assert!(said.out.starts_with("does not hold: "));
}

#[test]
fn what_the_auditor_knows_is_compared() {
    let gate: PartyId = std::fs::read_to_string(vectors().join("gate.txt"))
        .unwrap()
        .trim()
        .parse()
        .unwrap();
    let knowing = |name: &str, known: &str| {
        let known = vectors().join(known);
        run(|out, err| verify(&vectors().join(name), Some(&known), Some(gate), false, out, err))
    };
    assert_eq!(knowing("good-season.jsonl", "good-season.jsonl").code, HOLDS);
    assert_eq!(knowing("good-season.jsonl", "good-genesis-only.jsonl").code, HOLDS);
    let shorter = knowing("good-genesis-only.jsonl", "good-season.jsonl");
    assert_eq!(shorter.code, BROKEN);
    assert!(shorter.out.contains("the file ends after 1 entries"), "{}", shorter.out);
    let fork = knowing("good-season.jsonl", "good-four-entries.jsonl");
    assert_eq!(fork.code, BROKEN);
    assert!(fork.out.contains("two histories"), "{}", fork.out);
    for unusable in ["another-size", "another-gate", "leading-zero"] {
        let said = knowing("good-season.jsonl", &format!("checkpoint-bad-{unusable}.txt"));
        assert_eq!((said.code, said.out.as_str()), (UNREADABLE, ""), "{unusable}");
    }
    let other = Some(wire::identity::Identity::from_bytes(&[99; 32]).party());
    let season = vectors().join("good-season.jsonl");
    assert_eq!(
        run(|out, err| verify(&season, None, other, false, out, err)).code,
        BROKEN
    );
    let missing = verify_file("nothing", false);
    assert_eq!(missing.code, UNREADABLE);
    assert!(missing.err.contains(" cannot be read: ") && missing.err.contains("\nhint: "));
}

#[test]
fn a_closed_pipe_is_not_a_success() {
    struct Closed;
    impl Write for Closed {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(io::ErrorKind::BrokenPipe.into())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let mut err = Vec::new();
    let season = vectors().join("good-season.jsonl");
    assert_eq!(verify(&season, None, None, false, &mut Closed, &mut err), UNREADABLE);
    assert!(err.is_empty());
}
