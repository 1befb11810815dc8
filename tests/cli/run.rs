//! `countersign run`, as an agent's program sees it: the command's own bytes and exit code, and Countersign's where there is no command.

use rustix::process::Signal;

use super::site::{Site, command, ended, fails, like};

#[test]
fn what_ran_gives_its_own_bytes_and_exit_code() {
    let site = Site::with(&["alice"]);
    let mut watch = site.start("alice", &["watch"]);
    let mut ran = |arguments: &[&str]| site.answered(&mut watch, "y", arguments);

    let said = ran(&["--", "git", "--version"]);
    assert!(said.text().starts_with("git version "), "{said:?}");
    assert!(
        like(
            &said.stderr,
            "request …: waiting for 1 person to approve, at most 9 min 5…\napproved by alice\n"
        ),
        "{}",
        said.stderr
    );
    assert_eq!(said.code, 0);

    assert_eq!(ran(&["--", "false"]).code, 1);
    assert_eq!(ran(&["--", "sh", "-c", "exit 7"]).code, 7);
    assert_eq!(ran(&["--", "sh", "-c", "kill -KILL $$"]).code, 128 + 9);

    // Not a byte more or less, each stream on its own.
    let said = ran(&[
        "--quiet",
        "--",
        "sh",
        "-c",
        r"printf '\377\000\033[31m'; printf 'to err' >&2",
    ]);
    assert_eq!(
        (said.code, said.stdout.as_slice(), said.stderr.as_str()),
        (0, &b"\xff\0\x1b[31m"[..], "to err")
    );

    // An argument is one argument, whatever is in it.
    let said = ran(&["--quiet", "--", "printf", "%s|", "a b", "", "$HOME", "--", "*"]);
    assert_eq!(said.text(), "a b||$HOME|--|*|");

    // The environment starts from empty.
    let said = ran(&[
        "--quiet",
        "--env",
        "COLOUR=blue",
        "--",
        "sh",
        "-c",
        "echo $COLOUR $COUNTERSIGN_HOME",
    ]);
    assert_eq!(said.text(), "blue\n");

    let said = ran(&["--quiet", "--directory", "/", "--", "pwd"]);
    assert_eq!(said.text(), "/\n");

    let said = ran(&["--quiet", "--wall", "1", "--", "sleep", "50"]);
    assert_eq!(said.code, 125);
    assert!(
        like(
            &said.stderr,
            "error: ran, …, stopped at its time limit, …, 0 bytes of output\n"
        ),
        "{}",
        said.stderr
    );

    let said = ran(&["--quiet", "--output", "10", "--", "printf", "0123456789abcdef"]);
    assert_eq!((said.code, said.text()), (125, "0123456789"), "{}", said.stderr);
    assert!(said.stderr.contains("stopped at its output limit"), "{}", said.stderr);
}

#[test]
fn what_is_not_approved_does_not_run_and_says_why() {
    let site = Site::with(&["alice"]);
    let mut watch = site.start("alice", &["watch"]);
    let ran = site.path("ran");
    let touch = ["--", "touch", ran.to_str().unwrap()];

    let said = site.answered(&mut watch, "n ask the owner first", &touch);
    assert_eq!((said.code, said.text()), (126, ""));
    assert!(
        said.stderr.ends_with("\nerror: denied by alice: ask the owner first\n"),
        "{}",
        said.stderr
    );

    // Nothing that a person types reaches the agent's terminal as it is.
    let said = site.answered(&mut watch, "n \u{1b}[2Jgone", &touch);
    assert!(
        said.stderr.ends_with("error: denied by alice: \\u{1b}[2Jgone\n"),
        "{:?}",
        said.stderr
    );

    let said = site.answered(&mut watch, "n", &touch);
    assert!(said.stderr.ends_with("error: denied by alice\n"), "{}", said.stderr);

    let said = site.gate(&[&["run", "--quiet", "--expires", "1"], &touch[..]].concat());
    assert_eq!(
        (said.code, said.stderr.as_str()),
        (126, "error: expired without an answer\n")
    );
    assert!(!ran.exists());
}

#[test]
fn an_interrupt_withdraws_the_request() {
    let site = Site::with(&["alice"]);
    let (asking, id) = site.asks(&["--", "true"]);
    asking.signal(Signal::INT);
    let said = asking.end();
    assert_eq!(said.code, 130);
    assert!(
        said.stderr.ends_with("interrupted: the request is withdrawn\n"),
        "{}",
        said.stderr
    );
    // What the gate knows of it, once it has noticed.
    let watch = site.start("alice", &["watch", "--no-ask"]);
    if !site.gate(&["inbox", "--all"]).text().contains("withdrawn") {
        watch.says(&format!("   4  outcome  of {id}: withdrawn by whoever asked"));
    }
    let said = site.gate(&["inbox", "--all"]);
    assert!(
        like(said.text(), &format!("{id}  …  withdrawn by whoever asked\n")),
        "{said:?}"
    );
    assert_eq!(said.stderr, "nothing waits\n");
    let late = site.at("alice", &["approve", &id]);
    fails(
        &late,
        4,
        &format!("no open request {id}"),
        "see `countersign inbox`; a request that is over can't be answered",
    );
}

#[test]
fn a_gate_that_restarts_is_waited_for() {
    let mut site = Site::with(&["alice"]);
    let (asking, id) = site.asks(&["--", "echo", "here"]);
    let gate = site.gate.take().unwrap();
    gate.signal(Signal::TERM);
    assert_eq!(gate.end().code, 0);
    asking.complains("the gate went away; waiting for it to come back");
    site.serve();
    let approved = site.at("alice", &["approve", &id]);
    assert_eq!(approved.code, 0, "{approved:?}");
    let said = asking.end();
    assert_eq!((said.code, said.text()), (0, "here\n"), "{}", said.stderr);
}

#[test]
fn what_cannot_be_asked_is_said_with_its_exit_code() {
    let site = Site::new();
    let refused = site.gate(&["run", "--", "git", "--version"]);
    fails(
        &refused,
        126,
        "nobody is enrolled who could approve",
        "enrol the first admin: countersign gate invite --person NAME",
    );
    let none = site.gate(&["run", "--", "no-such-program"]);
    fails(
        &none,
        127,
        "no program no-such-program in …",
        "programs are looked up in /usr/local/bin, /usr/bin and /bin; give another one's absolute path",
    );

    let mistyped = site.gate(&["run", "--reson", "x", "--", "true"]);
    fails(
        &mistyped,
        125,
        "unexpected argument '--reson' found",
        "a similar argument exists: '--reason'; see `countersign run --help`",
    );
    for (arguments, error) in [
        (
            &["run"][..],
            "the following required arguments were not provided:\n  <CMD>...",
        ),
        (
            &["run", "--wall", "soon", "--", "true"],
            "invalid value 'soon' for '--wall <SECONDS>': invalid digit found in string",
        ),
    ] {
        fails(&site.gate(arguments), 125, error, "see `countersign run --help`");
    }
    for (arguments, error) in [
        (
            &["--", "./here"][..],
            "./here is a relative path: give an absolute one, or a bare name",
        ),
        (
            &["--env", "LD_PRELOAD=/tmp/x.so", "--", "true"],
            "LD_PRELOAD is refused: …",
        ),
        (&["--env", "NOTHING", "--", "true"], "--env takes NAME=VALUE"),
        (&["--agent", "An Agent", "--", "true"], "the agent's name: …"),
        (&["--wall", "0", "--", "true"], "wall time of nothing"),
        (&["--wall", "1000000", "--", "true"], "wall time beyond 86400000"),
        (&["--directory", "/nowhere", "--", "true"], "/nowhere: …"),
    ] {
        let said = site.gate(&[&["run"], arguments].concat());
        fails(&said, 125, error, "…");
    }
    let nobody = ended(command("countersign", site.folder.path()).args(["--home", "nowhere", "run", "--", "true"]));
    fails(
        &nobody,
        125,
        "nowhere doesn't exist",
        "`countersign gate init` makes a gate, `countersign join LINK` a device",
    );
}
