//! `countersign demo` as it is typed: with flags, with nobody at the terminal, and with a person.

use std::process::Command;

use tempfile::TempDir;

use super::screen::Screen;
use super::site::{Ended, command, ended, fails};

fn demo(folder: &TempDir, arguments: &[&str]) -> Ended {
    ended(command("countersign", folder.path()).arg("demo").args(arguments))
}

#[test]
fn a_denied_demo_ends_as_a_denied_run_does() {
    let folder = TempDir::new().unwrap();
    let said = demo(&folder, &["--deny", "--keep", "kept"]);
    assert_eq!(said.code, 126, "{said:?}");
    assert!(
        said.text().contains("   alice signed: deny\n   denied\n"),
        "{}",
        said.text()
    );
    assert!(
        said.text().contains("\n   everything is kept in kept\n"),
        "{}",
        said.text()
    );
    let verified = ended(command("countersign", folder.path()).args(["audit", "verify", "kept/transcript.jsonl"]));
    assert_eq!(verified.code, 0);
    assert!(
        verified
            .text()
            .contains("\n  requests    2: 1 changed the roster, 1 denied\n"),
        "{}",
        verified.text()
    );
    fails(&demo(&folder, &["--yes", "--keep", "kept"]), 1, "kept isn't empty", "…");
}

#[test]
fn two_of_three_sign_and_another_command_runs() {
    let folder = TempDir::new().unwrap();
    let said = demo(
        &folder,
        &[
            "--admins",
            "3",
            "--quorum",
            "2",
            "--yes",
            "--",
            "sh",
            "-c",
            "echo out; echo err >&2; exit 3",
        ],
    );
    assert_eq!(said.code, 3, "{said:?}");
    for line in [
        "1. A relay, a gate and 3 admins, each with a home of its own, on this machine\n",
        "   alice signed: approve\n   bob signed: approve\n   the gate wrote the permit down, approved by ",
        "   > out\n",
        "   > err\n",
        "   ran, exit code 3, ",
        "permits #11, approved by ",
        ": 0 found\n",
    ] {
        assert!(said.text().contains(line), "{line}\n{}", said.text());
    }
    // Which of the two is written down first, the relay decides.
    assert!(
        [" alice, bob, and runs it:\n", " bob, alice, and runs it:\n"]
            .iter()
            .any(|order| said.text().contains(order)),
        "{}",
        said.text()
    );
    assert!(
        !said.text().contains('\x1b') && said.text().lines().all(|line| line.trim_end() == line),
        "{}",
        said.text()
    );
    assert_eq!(said.stderr, "the demo's folder is deleted; --keep DIR keeps it\n");
}

#[test]
fn with_nobody_to_ask_the_demo_says_so() {
    let folder = TempDir::new().unwrap();
    fails(
        &demo(&folder, &[]),
        1,
        "nobody is at the terminal to answer",
        "add --yes or --deny",
    );
    fails(
        &demo(&folder, &["--yes", "--quorum", "3"]),
        1,
        "3 of 2 admins can't approve",
        "…",
    );
}

#[test]
fn a_person_answers_the_demo() {
    let folder = TempDir::new().unwrap();
    let mut typed: Command = command("countersign", folder.path());
    typed.arg("demo");
    let mut screen = Screen::open(&typed);
    let before = screen.shows("   alice, approve? [y]es, [n]o REASON: ");
    assert!(before.contains("4. What an admin sees"), "{before}");
    screen.types("what?");
    screen.shows("   alice, approve? [y]es, [n]o REASON: ");
    screen.types("n not today");
    let (rest, status) = screen.end();
    assert!(rest.contains("\n   alice signed: deny\n   denied\n"), "{rest}");
    assert!(rest.contains("      | not today\n"), "{rest}");
    assert_eq!(status.code(), Some(126));
}
