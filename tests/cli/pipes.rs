//! Output that isn't a terminal's: no colours there, and a reader that goes away is no crash.

use std::process::{Command, Stdio};

use super::site::{Site, command, ended};

/// Runs with a stdout whose reader is gone already.
fn into_nothing(command: &mut Command) -> (i32, String) {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let output = command.stdin(Stdio::null()).stdout(writer).output().unwrap();
    (
        output.status.code().unwrap_or(-1),
        String::from_utf8(output.stderr).unwrap(),
    )
}

#[test]
fn a_reader_that_goes_away_is_no_crash() {
    let site = Site::with(&["alice"]);
    site.export();
    for (home, arguments) in [
        ("gate", &["--help"][..]),
        ("gate", &["--version"]),
        ("gate", &["completions", "bash"]),
        ("gate", &["gate", "status"]),
        ("gate", &["gate", "export"]),
        ("gate", &["inbox", "--all"]),
        ("gate", &["roster", "show"]),
        ("gate", &["audit", "show", "transcript.jsonl"]),
        ("gate", &["audit", "verify", "transcript.jsonl"]),
        ("alice", &["inbox"]),
        ("alice", &["--json", "roster", "show"]),
    ] {
        let (code, said) = into_nothing(&mut site.command(home, arguments));
        assert!(
            code != 101 && code != -1 && !said.contains("panicked"),
            "{arguments:?}: {code} {said}"
        );
    }
    // A transcript that nobody could read wasn't written.
    assert_ne!(into_nothing(&mut site.command("gate", &["gate", "export"])).0, 0);
    assert_ne!(
        into_nothing(&mut site.command("gate", &["audit", "verify", "transcript.jsonl"])).0,
        0
    );
}

#[test]
fn nothing_but_a_terminal_gets_colours() {
    let site = Site::with(&["alice"]);
    let file = site.export();
    for (home, arguments) in [
        ("gate", &["--help"][..]),
        ("gate", &["run", "--bogus"]),
        ("gate", &["gate", "status", "-vv"]),
        ("gate", &["roster", "show"]),
        ("gate", &["inbox", "--all"]),
        ("alice", &["inbox", "-vv"]),
        ("alice", &["approve", "abcd"]),
        ("gate", &["audit", "show", file.to_str().unwrap()]),
    ] {
        let mut command = site.command(home, arguments);
        let said = ended(command.env("CLICOLOR", "1").env("TERM", "xterm-256color"));
        assert!(
            !said.stdout.contains(&0x1b) && !said.stderr.contains('\x1b'),
            "{arguments:?}: {said:?}"
        );
    }
    let gate = site.gate.as_ref().unwrap();
    assert!(!gate.stdout.so_far().contains('\x1b') && !gate.stderr.so_far().contains('\x1b'));
    assert!(!site.relay.stdout.so_far().contains('\x1b') && !site.relay.stderr.so_far().contains('\x1b'));
}

#[test]
fn every_shell_gets_its_completions() {
    let folder = tempfile::TempDir::new().unwrap();
    for shell in ["bash", "elvish", "fish", "powershell", "zsh"] {
        let said = ended(command("countersign", folder.path()).args(["completions", shell]));
        assert_eq!((said.code, said.stderr.as_str()), (0, ""), "{shell}");
        assert!(
            said.text().contains("countersign") && said.text().contains("invite"),
            "{shell}"
        );
    }
}
