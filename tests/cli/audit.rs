//! The auditor's commands on a transcript that real processes made: what holds, what doesn't, and what can't be read.

use std::fs;
use std::io::Write;
use std::process::{Command, Stdio};

use super::site::{Ended, Site, ended, fails, like};

#[test]
fn an_auditor_checks_reads_and_cuts_out() {
    let site = Site::with(&["alice"]);
    let mut watch = site.start("alice", &["watch"]);
    let older = site.path("older.jsonl");
    fs::rename(site.export(), &older).unwrap();
    assert_eq!(site.answered(&mut watch, "y", &["--", "echo", "hello"]).code, 0);
    assert_eq!(
        site.answered(&mut watch, "n no", &["--reason", "\u{202e}evil", "--", "true"])
            .code,
        126
    );
    let file = site.export();
    let audit = |arguments: &[&str]| ended(audit(&site).args(arguments));

    let verified = audit(&["verify", "transcript.jsonl"]);
    assert_eq!((verified.code, verified.stderr.as_str()), (0, ""));
    assert!(
        verified.text().starts_with("holds: 9 entries\n  gate        csid1"),
        "{}",
        verified.text()
    );
    assert!(
        verified.text().contains("\n  requests    2: 1 ran, 1 denied\n"),
        "{}",
        verified.text()
    );
    // The admin's own copy says the same.
    let copy = site.at("alice", &["gate", "export"]);
    assert_eq!(copy.stdout, fs::read(&file).unwrap());
    assert!(
        copy.stderr.ends_with("\nthis is the copy that this device verified\n"),
        "{}",
        copy.stderr
    );
    // Through a pipe as well.
    assert_eq!(
        piped(audit_verify(&site), &fs::read(&file).unwrap()).stdout,
        verified.stdout
    );

    let shown = audit(&["show", "transcript.jsonl"]);
    assert!(
        shown.text().contains("alice (alice-laptop) denies #6\n      | no\n"),
        "{}",
        shown.text()
    );
    assert!(shown.text().contains("      | \\u{202e}evil\n"), "{}", shown.text());

    let id = shown
        .text()
        .lines()
        .find_map(|line| line.split_once("asks to run a command: "))
        .unwrap()
        .1;
    let proof = audit(&["prove", "transcript.jsonl", &id[..8]]);
    assert_eq!(proof.code, 0);
    fs::write(site.path("proof.json"), &proof.stdout).unwrap();
    let proven = audit(&["verify", "proof.json"]);
    assert_eq!(proven.code, 0);
    assert!(
        like(
            proven.text(),
            &format!(
                "holds: request {id}\n  gate        …\n  entry       #2 of 9\n  result      ran, exit code 0\n  permitted   approved by alice\n  root        …\n  …\n"
            )
        ),
        "{}",
        proven.text()
    );

    assert_eq!(
        audit(&["verify", "--checkpoint", "older.jsonl", "transcript.jsonl"]).code,
        0
    );
    let shorter = audit(&["verify", "--checkpoint", "transcript.jsonl", "older.jsonl"]);
    assert_eq!(
        (shorter.code, shorter.text()),
        (
            3,
            "does not hold: the file ends after 2 entries, but the gate has signed 9\n"
        )
    );
    let stranger = wire::identity::Identity::from_bytes(&[7; 32]).party().to_string();
    assert_eq!(audit(&["verify", "--gate", &stranger, "transcript.jsonl"]).code, 3);
}

#[test]
fn the_first_wrong_entry_is_named() {
    let site = Site::with(&["alice"]);
    let mut watch = site.start("alice", &["watch"]);
    assert_eq!(site.answered(&mut watch, "y", &["--", "true"]).code, 0);
    let text = fs::read_to_string(site.export()).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    let touched = |change: &dyn Fn(&mut Vec<String>)| {
        let mut lines: Vec<String> = lines.iter().map(|line| (*line).to_owned()).collect();
        change(&mut lines);
        piped(audit_verify(&site), format!("{}\n", lines.join("\n")).as_bytes())
    };
    assert_eq!(touched(&|_| {}).code, 0);

    // Line 0 is the header, so entry 3 is line 4: the decision.
    let changed = touched(&|lines| lines[4] = lines[4].replacen("\"sig\":\"", "\"sig\":\"AAAA", 1));
    assert_eq!((changed.code, changed.stderr.as_str()), (3, ""));
    assert!(
        changed.text().starts_with("does not hold: entry 3: "),
        "{}",
        changed.text()
    );
    // The same statement a second time.
    let doubled = touched(&|lines| lines[5] = lines[4].replace("\"index\":3", "\"index\":4"));
    assert!(
        doubled.code == 3 && doubled.text().starts_with("does not hold: entry 4: "),
        "{}",
        doubled.text()
    );
    let removed = touched(&|lines| drop(lines.remove(4)));
    assert!(
        removed.code == 3 && removed.text().starts_with("does not hold: entry 3: "),
        "{}",
        removed.text()
    );
    let cut = touched(&|lines| lines.truncate(4));
    assert!(
        cut.code == 3 && cut.text().starts_with("does not hold: entry 3: missing"),
        "{}",
        cut.text()
    );
}

#[test]
fn what_is_no_transcript_is_said() {
    let site = Site::new();
    let hint = "give a file that `countersign gate export` or `countersign audit prove` wrote";
    fs::write(site.path("letter.txt"), "dear auditor\n").unwrap();
    fs::write(site.path("empty"), "").unwrap();
    let file = site.export();
    for verb in ["verify", "show"] {
        fails(
            &ended(audit(&site).args([verb, "nowhere"])),
            1,
            "nowhere cannot be read: …",
            hint,
        );
        fails(
            &ended(audit(&site).args([verb, "letter.txt"])),
            1,
            "not an exported transcript",
            hint,
        );
        fails(
            &ended(audit(&site).args([verb, "empty"])),
            1,
            "not an exported transcript",
            hint,
        );
        fails(&ended(audit(&site).args([verb, "."])), 1, ". cannot be read: …", hint);
    }
    let path = file.to_str().unwrap();
    let known = "give an older export, or a checkpoint alone, of the same gate";
    fails(
        &ended(audit(&site).args(["verify", path, "--checkpoint", "letter.txt"])),
        1,
        "the known checkpoint …",
        known,
    );
    fails(
        &ended(audit(&site).args(["prove", path, "abcdef"])),
        1,
        "no request has this id",
        "`countersign audit show FILE` lists the requests",
    );
    fails(
        &ended(audit(&site).args(["prove", path, "abc"])),
        1,
        "an id has 4 to 64 digits of 0-9 a-f",
        "see `countersign audit prove --help`",
    );
    fails(
        &ended(audit(&site).args(["verify", path, "--gate", "csid1abc"])),
        2,
        "invalid value 'csid1abc' for '--gate <CSID>': …",
        "see `countersign audit verify --help`",
    );
}

fn audit(site: &Site) -> Command {
    let mut command = super::site::command("countersign", site.folder.path());
    command.arg("audit");
    command
}

fn audit_verify(site: &Site) -> Command {
    let mut command = audit(site);
    command.args(["verify", "-"]);
    command
}

fn piped(mut command: Command, input: &[u8]) -> Ended {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // Whoever refuses the first lines doesn't read the rest.
    let _ = child.stdin.take().unwrap().write_all(input);
    let output = child.wait_with_output().unwrap();
    Ended {
        code: output.status.code().unwrap_or(-1),
        stdout: output.stdout,
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}
