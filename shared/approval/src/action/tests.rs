//! What a gate can ask for, and what it can't.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
use super::*;

use proptest::prelude::*;

use crate::request::Request;
use crate::sample::*;
use crate::statement::{StatementError, sign};

/// Whether the gate can ask for this command.
fn takes(edit: impl FnOnce(&mut Command)) -> Result<(), StatementError> {
    let request: Request = request(&team()).get().clone();
    let mut command = plain_command();
    edit(&mut command);
    sign(
        &identity(GATE),
        Request {
            action: Action::Command(command),
            ..request
        },
    )
    .map(|_| ())
}

fn refused(edit: impl FnOnce(&mut Command)) -> String {
    match takes(edit) {
        Err(StatementError::Payload(rule)) => rule,
        other => panic!("not refused: {other:?}"),
    }
}

fn entry(name: &str) -> (ByteString, ByteString) {
    (bytes(name), bytes("x"))
}

fn relative() -> Bound {
    Bound {
        path: bytes("bin/sh"),
        ..bound("/bin/sh", 1)
    }
}

fn operand(argument: u32) -> Operand {
    Operand {
        argument,
        file: bound("/srv/app/x", 9),
    }
}

#[test]
fn operands_are_arguments_in_their_order_and_not_too_many() {
    assert!(takes(|command| command.operands = vec![operand(1), operand(2)]).is_ok());
    for bad in [vec![operand(2), operand(1)], vec![operand(1), operand(1)]] {
        assert!(refused(|command| command.operands = bad).contains("ascending"));
    }
    for bad in [0, 3] {
        assert!(refused(|command| command.operands = vec![operand(bad)]).contains("no argument"));
    }
    let many = |command: &mut Command, count: u32| {
        command.argv = vec![bytes("x"); 70];
        command.operands = (1..=count).map(operand).collect();
    };
    // So many files with their digests fit no statement beside the longest arguments, but beside short ones.
    assert!(takes(|command| many(command, 64)).is_ok());
    assert!(refused(|command| many(command, 65)).contains("too many operands"));
}

#[test]
fn marks_are_sorted_and_once() {
    assert!(takes(|command| command.marks = vec![Mark::Odd, Mark::Writable]).is_ok());
    for bad in [vec![Mark::Writable, Mark::Odd], vec![Mark::Odd, Mark::Odd]] {
        assert!(refused(|command| command.marks = bad).contains("marks"));
    }
    let words = [Mark::Odd, Mark::Runner, Mark::Setuid, Mark::Shell, Mark::Writable].map(Mark::as_str);
    assert!(words.is_sorted(), "sorted in JSON as here");
}

#[test]
fn stdin_is_none_or_a_mebibyte_at_most() {
    let with = |bytes| {
        let sha256 = Digest::of(b"");
        takes(move |command| command.stdin = Stdin::Bytes(Input { sha256, bytes }))
    };
    assert!(with(STDIN_BYTES).is_ok() && with(STDIN_BYTES + 1).is_err());
    let read = |text: &str| serde_json::from_str::<Stdin>(text).ok();
    assert_eq!(read(r#""none""#), Some(Stdin::None));
    let text = serde_json::to_string(&command().stdin).unwrap();
    assert_eq!(read(&text), Some(command().stdin));
    for bad in [r#""inherit""#, "null", "{}", "[]", r#"{"sha256":"00","bytes":1}"#] {
        assert_eq!(read(bad), None, "{bad}");
    }
}

#[test]
fn an_inode_has_one_spelling() {
    let read = |text: &str| text.parse::<Inode>().ok();
    assert_eq!(
        read("fd01:1a2b"),
        Some(Inode {
            device: 0xfd01,
            number: 0x1a2b
        })
    );
    assert_eq!(read("0:0").unwrap().to_string(), "0:0");
    for bad in [
        "",
        ":",
        "1",
        "01:1",
        "1:01",
        "A:1",
        "+1:1",
        "1:1:1",
        "1: 1",
        "10000000000000000:1",
    ] {
        assert_eq!(read(bad), None, "{bad}");
    }
}

#[test]
fn what_a_tool_is_given_is_text_as_it_came() {
    let with = |arguments: &str| {
        let call = ToolCall {
            arguments: Text::new(arguments).unwrap(),
            ..tool_call()
        };
        Action::Tool(call).check().is_ok()
    };
    // JSON readers differ about some of these, so none of them is asked.
    for arguments in [
        "{}",
        " { } ",
        "",
        "[]",
        "{}x",
        "{\"a\":1,\"a\":2}",
        "{\"a\":1e999}",
        "\u{feff}{}",
    ] {
        assert!(with(arguments), "{arguments}");
    }
}

#[test]
fn a_tool_is_one_that_a_policy_can_name() {
    let named = |server: &str, tool: &str| {
        let call = ToolCall {
            server: Text::new(server).unwrap(),
            tool: Text::new(tool).unwrap(),
            ..tool_call()
        };
        Action::Tool(call).check().is_ok()
    };
    assert!(named("files", "read") && named("files", "a/b") && named("files", "/"));
    assert!(!named("", "read") && !named("files", "") && !named("files/read", "x") && !named("/", "x"));
}

#[test]
fn paths_are_absolute() {
    assert!(refused(|command| command.executable.path = bytes("bin/sh")).contains("executable"));
    assert!(refused(|command| command.directory.path = bytes("")).contains("directory"));
    assert!(refused(|command| command.interpreter = Some(relative())).contains("interpreter"));
    let relative = Operand {
        argument: 1,
        file: relative(),
    };
    assert!(refused(|command| command.operands = vec![relative]).contains("operand"));
}

#[test]
fn argv_is_bounded_and_never_empty() {
    assert!(takes(|command| command.argv = vec![bytes(""); ARGV_ELEMENTS]).is_ok());
    assert!(refused(|command| command.argv = vec![bytes(""); ARGV_ELEMENTS + 1]).contains("too many arguments"));
    assert!(takes(|command| command.argv = vec![bytes(&"a".repeat(ARGV_BYTES))]).is_ok());
    assert!(refused(|command| command.argv = vec![bytes(&"a".repeat(ARGV_BYTES + 1))]).contains("too long"));
    assert!(refused(|command| command.argv.clear()).contains("argv[0]"));
}

#[test]
fn the_environment_is_sorted_named_and_bounded() {
    assert!(takes(|command| command.env.clear()).is_ok());
    assert!(refused(|command| command.env.reverse()).contains("sorted"));
    assert!(refused(|command| command.env = vec![entry("A"), entry("A")]).contains("twice"));
    assert!(refused(|command| command.env = vec![entry("")]).contains("empty"));
    assert!(refused(|command| command.env = vec![entry("A=B")]).contains('='));
    let many = |count| (0..count).map(|n| entry(&format!("N{n:03}"))).collect::<Vec<_>>();
    assert!(takes(|command| command.env = many(ENV_ENTRIES)).is_ok());
    assert!(refused(|command| command.env = many(ENV_ENTRIES + 1)).contains("too many"));
    let long = |length: usize| vec![(bytes("A"), bytes(&"x".repeat(length - 1)))];
    assert!(takes(|command| command.env = long(ENV_BYTES)).is_ok());
    assert!(refused(|command| command.env = long(ENV_BYTES + 1)).contains("too long"));
}

#[test]
fn limits_are_limited() {
    assert!(
        takes(|command| command.limits = Limits {
            wall_ms: WALL_MS,
            output_bytes: OUTPUT_BYTES,
            memory_bytes: 0
        })
        .is_ok()
    );
    assert!(refused(|command| command.limits.wall_ms = WALL_MS + 1).contains("24 hours"));
    assert!(refused(|command| command.limits.output_bytes = OUTPUT_BYTES + 1).contains("1 GiB"));
}

#[test]
fn an_action_is_one_thing() {
    let command = serde_json::to_string(&plain_command()).unwrap();
    let read = |text: &str| serde_json::from_str::<Action>(text).is_ok();
    assert!(read(&format!(r#"{{"command":{command}}}"#)));
    assert!(!read(&format!(r#"{{"command":{command},"command":{command}}}"#)));
    assert!(!read(&format!(r#"{{"program":{command}}}"#)));
    assert!(!read(r#"{"command":null}"#) && !read(r#""command""#) && !read("{}"));
    assert!(!read(
        &format!(r#"{{"command":{command}}}"#).replace("\"none\"", "\"inherit\"")
    ));
}

proptest! {
    #[test]
    fn any_argv_arrives_as_it_was_asked(argv in proptest::collection::vec(proptest::collection::vec(1u8.., 0..40), 1..20)) {
        let argv: Vec<_> = argv.into_iter().map(|bytes| ByteString::new(bytes).unwrap()).collect();
        let request = request_with(&team(), |request| {
            request.action = Action::Command(Command { argv: argv.clone(), ..plain_command() });
        });
        let read = request.signed().verify().unwrap().request().unwrap();
        let Action::Command(command) = &read.action else { panic!("not a command") };
        prop_assert_eq!(&command.argv, &argv);
    }
}
