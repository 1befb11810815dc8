//! What differs, and what is easily overlooked.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use super::*;
use crate::show::example::{self, NOON, bytes};
use approval::action::{Input, Mark, Operand};

fn past(argv: &[&str]) -> Past {
    Past {
        request: example::request(argv),
        id: Digest([0x3f; 32]),
        by: vec!["alice".to_owned()],
        time: Time::from_millis(NOON).unwrap(),
    }
}

fn said(was: &[&str], is: &[&str]) -> String {
    compared(&past(was), &example::request(is))
}

fn changed(edit: impl FnOnce(&mut Command)) -> String {
    let past = past(&["deploy", "file"]);
    let mut request = past.request.clone();
    let Action::Command(command) = &mut request.action else {
        panic!()
    };
    edit(command);
    compared(&past, &request)
}

const BEFORE: &str = "what alice approved on 2027-01-15 08:00:00Z (3f3f3f3f)";

#[test]
fn the_same_again_is_said_to_be() {
    assert_eq!(
        said(&["git", "status"], &["git", "status"]),
        format!("the same as {BEFORE}\n")
    );
}

#[test]
fn an_argument_that_differs_is_shown_under_the_old_one() {
    assert_eq!(
        said(&["deploy", "--to", "staging"], &["deploy", "--to", "production"]),
        format!("differs from {BEFORE}\n  argv[2] was staging\n          is  production\n")
    );
}

#[test]
fn a_lookalike_is_warned_of() {
    let lines = [
        "  argv[1] was production",
        "          is  prodution",
        "                   ^",
        "WARNING: that is all, and one field differs in only 1 character: look closely",
    ];
    assert_eq!(
        said(&["deploy", "production"], &["deploy", "prodution"]),
        format!("differs from {BEFORE}\n{}\n", lines.join("\n"))
    );
}

#[test]
fn a_short_word_or_one_of_several_is_no_lookalike() {
    assert!(!said(&["ls", "-l"], &["ls", "-a"]).contains("WARNING"));
    assert!(!said(&["cp", "source1", "target1"], &["cp", "source2", "target2"]).contains("WARNING"));
    assert!(!said(&["deploy", "production"], &["deploy", "development"]).contains("WARNING"));
}

#[test]
fn one_argument_more_moves_no_other() {
    assert_eq!(
        said(
            &["git", "push", "origin", "main"],
            &["git", "push", "--force", "origin", "main"]
        ),
        format!("differs from {BEFORE}\n  argv[2] is new: --force\n")
    );
    assert_eq!(
        said(&["git", "push", "--dry-run", "origin"], &["git", "push", "origin"]),
        format!("differs from {BEFORE}\n  argv[2] is gone, it was --dry-run\n")
    );
}

#[test]
fn every_field_that_is_approved_is_compared() {
    let bound = |contents: &str| Bound {
        path: bytes("/srv/app/file"),
        inode: approval::action::Inode { device: 1, number: 3 },
        sha256: Digest::of(contents.as_bytes()),
    };
    for (field, text) in [
        (
            "executable sha256 was ",
            changed(|it| it.executable.sha256 = Digest([9; 32])),
        ),
        (
            "interpreter was none\n",
            changed(|it| it.interpreter = Some(bound("perl"))),
        ),
        (
            "directory was /srv/app\n",
            changed(|it| it.directory.path = bytes("/tmp")),
        ),
        ("env LANG was C\n", changed(|it| it.env[0].1 = bytes("de"))),
        ("env LANG is gone, it was C\n", changed(|it| drop(it.env.remove(0)))),
        (
            "env TZ is new: UTC\n",
            changed(|it| it.env.push((bytes("TZ"), bytes("UTC")))),
        ),
        (
            "stdin sha256 was none\n",
            changed(|it| {
                it.stdin = Stdin::Bytes(Input {
                    sha256: Digest([1; 32]),
                    bytes: 4,
                });
            }),
        ),
        ("uid was 1000\n", changed(|it| it.uid = 0)),
        ("limits was 30000 ms", changed(|it| it.limits.wall_ms = 60_000)),
        ("marks was none\n", changed(|it| it.marks.push(Mark::Writable))),
    ] {
        assert!(
            text.starts_with("differs from ") && text.contains(field),
            "{field}: {text}"
        );
    }
    let with = |contents: &str| Operand {
        argument: 1,
        file: bound(contents),
    };
    let mut past = past(&["deploy", "file"]);
    let mut request = past.request.clone();
    let Action::Command(was) = &mut past.request.action else {
        panic!()
    };
    was.operands.push(with("old"));
    let Action::Command(is) = &mut request.action else {
        panic!()
    };
    is.operands.push(with("new"));
    assert!(compared(&past, &request).contains("contents of argv[1], sha256 was "));
}

#[test]
fn a_tools_arguments_are_compared_one_by_one() {
    let call = |arguments: &str| {
        Action::Tool(ToolCall {
            server: approval::Text::new("mail").unwrap(),
            tool: approval::Text::new("send").unwrap(),
            schema: Digest([1; 32]),
            arguments: approval::Text::new(arguments).unwrap(),
        })
    };
    let (was, is) = (call(r#"{"to":"a","cc":"b"}"#), call(r#"{"to":"x","bcc":"c"}"#));
    let found: Vec<String> = differences(&was, &is).iter().map(ToString::to_string).collect();
    let text = found.concat();
    assert!(text.contains("argument to was \"a\"\n") && text.contains("argument bcc is new: \"c\"\n"));
    assert!(text.contains("argument cc is gone, it was \"b\"\n"));
    let spaced = differences(&was, &call(r#"{"to": "a","cc":"b"}"#));
    assert_eq!(spaced.len(), 1);
    assert_eq!(spaced[0].field, "arguments as text");
    assert!(alike(&was, &is) && !alike(&was, &example::request(&["mail"]).action));
}

#[test]
fn what_differs_is_escaped() {
    let text = said(&["echo", "plain"], &["echo", "\u{202e}\u{1b}[2J"]);
    assert!(text.contains("\\u{202e}\\u{1b}[2J"), "{text}");
}
