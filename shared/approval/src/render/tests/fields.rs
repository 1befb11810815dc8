//! Two actions that differ in anything never look the same: by properties over all kinds, and field by field.

use proptest::prelude::*;

use super::*;
use crate::action::{Bound, Directory, Inode, Input, Limits, Operand, SecretUse, ToolCall};
use crate::escape::is_allowed;
use crate::roster::{Quorum, Role};
use crate::scalar::{ByteString, LeafKey, Name, RelayUrl};

fn any_text<const MAX: usize>() -> impl Strategy<Value = Text<MAX>> {
    let awkward = proptest::collection::vec(
        proptest::sample::select(
            " \\u{}x2(empty)=\n\r\x1b\"'é\u{202e}\u{200b}中"
                .chars()
                .collect::<Vec<_>>(),
        ),
        0..16,
    )
    .prop_map(String::from_iter);
    prop_oneof![awkward, any::<String>()].prop_map(|text| Text::cut(&text))
}

fn any_bytes() -> impl Strategy<Value = ByteString> {
    let awkward = proptest::collection::vec(
        proptest::sample::select(b" \\u{}x2(empty)=\n\r\x1b\"'\xc3\xa9\xff\xe2\x80\x8b".to_vec()),
        0..16,
    );
    let wild = proptest::collection::vec(1..=255_u8, 0..32);
    prop_oneof![awkward, wild].prop_map(|bytes| ByteString::new(bytes).unwrap())
}

fn any_digest() -> impl Strategy<Value = Digest> {
    any::<[u8; 32]>().prop_map(Digest)
}

fn any_inode() -> impl Strategy<Value = Inode> {
    any::<(u64, u64)>().prop_map(|(device, number)| Inode { device, number })
}

prop_compose! {
    fn any_file()(path in any_bytes(), inode in any_inode(), sha256 in any_digest()) -> Bound {
        Bound { path, inode, sha256 }
    }
}

fn any_stdin() -> impl Strategy<Value = Stdin> {
    let bytes = (any_digest(), any::<u64>()).prop_map(|(sha256, bytes)| Stdin::Bytes(Input { sha256, bytes }));
    prop_oneof![Just(Stdin::None), bytes]
}

fn any_mark() -> impl Strategy<Value = Mark> {
    proptest::sample::select(vec![Mark::Odd, Mark::Runner, Mark::Setuid, Mark::Shell, Mark::Writable])
}

prop_compose! {
    fn any_limits()(wall_ms in any::<u64>(), output_bytes in any::<u64>(), memory_bytes in any::<u64>()) -> Limits {
        Limits { wall_ms, output_bytes, memory_bytes }
    }
}

prop_compose! {
    fn any_command()(
        (executable, interpreter) in (any_file(), proptest::option::of(any_file())),
        argv in proptest::collection::vec(any_bytes(), 0..12),
        env in proptest::collection::vec((any_bytes(), any_bytes()), 0..4),
        (path, inode) in (any_bytes(), any_inode()),
        stdin in any_stdin(),
        operands in proptest::collection::vec(
            (any::<u32>(), any_file()).prop_map(|(argument, file)| Operand { argument, file }), 0..3),
        limits in any_limits(),
        uid in any::<u32>(),
        marks in proptest::collection::vec(any_mark(), 0..6),
    ) -> Command {
        let directory = Directory { path, inode };
        Command { executable, interpreter, argv, env, directory, stdin, operands, limits, uid, marks }
    }
}

prop_compose! {
    fn any_tool()(server in any_text(), tool in any_text(), schema in any_digest(), arguments in any_text()) -> ToolCall {
        ToolCall { server, tool, schema, arguments }
    }
}

fn any_name() -> impl Strategy<Value = Name> {
    "[a-z0-9][a-z0-9._-]{0,63}".prop_map(|name| name.parse().unwrap())
}

prop_compose! {
    fn any_secret()(name in any_name(), host in any_text(), method in any_text(), path in any_text()) -> SecretUse {
        SecretUse { name, host, method, path }
    }
}

prop_compose! {
    fn any_device()(seed in 1..=255_u8, name in any_name(), leaf in any::<[u8; 32]>(), created in 0..1_u64 << 53, digest in any_digest()) -> DeviceReading {
        DeviceReading { party: identity(seed).party(), name, leaf: LeafKey(leaf), created: at(created), digest }
    }
}

prop_compose! {
    fn any_person()(name in any_name(), admin in any::<bool>(), devices in proptest::collection::vec(any_device(), 0..3)) -> PersonReading {
        PersonReading { name, role: if admin { Role::Admin } else { Role::Auditor }, devices }
    }
}

fn any_relay() -> impl Strategy<Value = RelayUrl> {
    "[!-~]{1,40}".prop_map(|url| url.parse().unwrap())
}

prop_compose! {
    fn any_roster()(
        gate in any_device(),
        people in proptest::collection::vec(any_person(), 0..3),
        (command, roster) in any::<(u16, u16)>(),
        policy in proptest::option::of(any_text::<1024>().prop_map(|text| text.as_untrusted().to_owned())),
        relays in proptest::collection::vec(any_relay(), 0..3),
    ) -> RosterReading {
        RosterReading { gate, people, quorum: Quorum { command, roster }, policy, relays }
    }
}

fn any_reading() -> impl Strategy<Value = Reading> {
    prop_oneof![
        any_command().prop_map(Reading::Command),
        any_tool().prop_map(Reading::Tool),
        any_secret().prop_map(Reading::Secret),
        any_roster().prop_map(Reading::Roster),
    ]
}

/// Makes the other nearly equal to the one, so that a property is about what little differs.
fn share(one: &Command, other: &mut Command, shared: u16) {
    let keep = |bit: u16| shared & 1 << bit != 0;
    let one = one.clone();
    type Share<'a> = (u16, &'a dyn Fn(&mut Command));
    let fields: [Share<'_>; 10] = [
        (0, &|other| other.executable = one.executable.clone()),
        (1, &|other| other.interpreter = one.interpreter.clone()),
        (2, &|other| other.argv = one.argv.clone()),
        (3, &|other| other.env = one.env.clone()),
        (4, &|other| other.directory = one.directory.clone()),
        (5, &|other| other.stdin = one.stdin),
        (6, &|other| other.operands = one.operands.clone()),
        (7, &|other| other.limits = one.limits),
        (8, &|other| other.uid = one.uid),
        (9, &|other| other.marks = one.marks.clone()),
    ];
    fields
        .iter()
        .filter(|(bit, _)| keep(*bit))
        .for_each(|(_, field)| field(other));
}

proptest! {
    #[test]
    fn what_is_rendered_reads_as_what_it_was(reading in any_reading()) {
        let text = reading.to_string();
        prop_assert!(text.lines().all(|line| line.chars().all(is_allowed)));
        prop_assert_eq!(parse(&text), Ok(reading));
    }

    #[test]
    fn different_actions_never_look_the_same(one in any_reading(), other in any_reading()) {
        prop_assert_eq!(one.to_string() == other.to_string(), one == other);
    }

    #[test]
    fn nearly_equal_commands_never_look_the_same(one in any_command(), mut other in any_command(), shared in any::<u16>()) {
        share(&one, &mut other, shared);
        let same_text = render(&Action::Command(one.clone())) == render(&Action::Command(other.clone()));
        prop_assert_eq!(same_text, one == other);
    }

    #[test]
    fn no_text_breaks_the_parser(text in "(command|tool call|use of a secret|roster change)?\n?[ -~\n]{0,200}") {
        if let Ok(reading) = parse(&text) {
            prop_assert_eq!(reading.to_string(), text);
        }
    }
}

/// Each edit of what was said looks like nothing else, and reads as itself.
fn each_edit_shows<T: Clone>(good: &T, edits: &[&dyn Fn(&mut T)], reading: impl Fn(T) -> Reading) {
    let mut seen = vec![reading(good.clone()).to_string()];
    for (number, edit) in edits.iter().enumerate() {
        let mut edited = good.clone();
        edit(&mut edited);
        let edited = reading(edited);
        let text = edited.to_string();
        assert_eq!(parse(&text), Ok(edited), "edit {number}");
        assert!(!seen.contains(&text), "edit {number} doesn't show:\n{text}");
        seen.push(text);
    }
}

#[test]
fn each_field_of_a_command_shows() {
    let whole = Command {
        interpreter: script().interpreter,
        ..command()
    };
    let flip = |digest: &mut Digest| digest.0[31] ^= 1;
    each_edit_shows(
        &whole,
        &[
            &|command| command.executable.path = bytes("/usr/bin/deplοy"),
            &|command| command.executable.inode.device += 1,
            &|command| command.executable.inode.number += 1,
            &|command| flip(&mut command.executable.sha256),
            &|command| command.interpreter = None,
            &|command| command.interpreter.as_mut().unwrap().path = bytes("/usr/bin/python3.12 "),
            &|command| command.interpreter.as_mut().unwrap().inode.number += 1,
            &|command| flip(&mut command.interpreter.as_mut().unwrap().sha256),
            &|command| command.interpreter = Some(command.executable.clone()),
            &|command| command.argv[1] = bytes("--tо"),
            &|command| command.argv.swap(1, 2),
            &|command| command.argv.push(bytes("")),
            &|command| command.argv.push(bytes("(empty)")),
            &|command| command.argv[1..3].clone_from_slice(&[bytes("--to production"), bytes("")]),
            &|command| drop(command.argv.splice(1..3, [bytes("--to production")])),
            &|command| command.env[0].0 = bytes("LANG="),
            &|command| command.env[0] = (bytes("LANG=C"), bytes("UTF-8")),
            &|command| command.env[0].1 = bytes("C.UTF-8 "),
            &|command| command.env.clear(),
            &|command| command.env = vec![(bytes("(empty)"), bytes(""))],
            &|command| command.directory.path = bytes("/srv/app/"),
            &|command| command.directory.inode.number += 1,
            &|command| command.directory.inode.device += 1,
            &|command| command.stdin = Stdin::None,
            &|command| {
                let Stdin::Bytes(input) = &mut command.stdin else {
                    panic!()
                };
                input.bytes += 1;
            },
            &|command| {
                let Stdin::Bytes(input) = &mut command.stdin else {
                    panic!()
                };
                flip(&mut input.sha256);
            },
            &|command| command.operands.clear(),
            &|command| command.operands.push(command.operands[0].clone()),
            &|command| command.operands[0].argument += 1,
            &|command| command.operands[0].file.path = bytes("/srv/app/production sha256"),
            &|command| command.operands[0].file.inode.number += 1,
            &|command| flip(&mut command.operands[0].file.sha256),
            &|command| command.limits.wall_ms += 1,
            &|command| command.limits.output_bytes += 1,
            &|command| command.limits.memory_bytes = 0,
            &|command| command.uid = 0,
            &|command| command.marks.clear(),
            &|command| command.marks = vec![Mark::Odd, Mark::Shell],
        ],
        Reading::Command,
    );
}

#[test]
fn each_field_of_a_tool_call_and_of_a_secret_shows() {
    let text = |words: &str| Text::new(words).unwrap();
    each_edit_shows(
        &tool_call(),
        &[
            &|call| call.server = text("files "),
            &|call| call.server = text(""),
            &|call| call.server = text("(empty)"),
            &|call| call.tool = text("write_file\n  schema      none"),
            &|call| (call.server, call.tool) = (call.tool.clone(), call.server.clone()),
            &|call| call.schema.0[0] ^= 1,
            &|call| call.arguments = Text::new("{}").unwrap(),
            &|call| call.arguments = Text::new("{} ").unwrap(),
            &|call| call.arguments = Text::new("{ }").unwrap(),
            &|call| call.arguments = Text::new("{\n}").unwrap(),
        ],
        Reading::Tool,
    );
    each_edit_shows(
        &secret_use(),
        &[
            &|secret| secret.name = "registry-tоken".replace('о', "0").parse().unwrap(),
            &|secret| secret.host = text("registry.example.org\u{200b}"),
            &|secret| secret.host = text("registry.example.org."),
            &|secret| secret.method = text("put"),
            &|secret| secret.path = text(""),
            &|secret| secret.path = text("/v2/app/manifests/latest?force"),
        ],
        Reading::Secret,
    );
}

#[test]
fn each_field_of_a_roster_change_shows() {
    let Reading::Roster(whole) = Reading::of(&Action::Roster(team_with("# a\n").contents())) else {
        panic!()
    };
    let policy = |text: &str| Some(text.to_owned());
    each_edit_shows(
        &whole,
        &[
            &|roster| roster.gate.party = identity(OTHER_GATE).party(),
            &|roster| roster.gate.name = "gate".parse().unwrap(),
            &|roster| roster.gate.leaf.0[0] ^= 1,
            &|roster| roster.gate.created = at(NOON + 1),
            &|roster| roster.gate.digest.0[0] ^= 1,
            &|roster| roster.people[0].name = "alicia".parse().unwrap(),
            &|roster| roster.people[0].role = Role::Auditor,
            &|roster| roster.people.swap(0, 1),
            &|roster| drop(roster.people.remove(2)),
            &|roster| roster.people[0].devices.swap(0, 1),
            &|roster| {
                let moved = roster.people[0].devices.remove(1);
                roster.people[1].devices.push(moved);
            },
            &|roster| roster.people[1].devices[0].digest.0[0] ^= 1,
            &|roster| roster.quorum.command = 1,
            &|roster| roster.quorum.roster = 1,
            &|roster| roster.policy = None,
            &|roster| roster.policy = policy(""),
            &|roster| roster.policy = policy("\n"),
            &|roster| roster.policy = policy("none"),
            &|roster| roster.policy = policy("(empty)"),
            &|roster| roster.policy = policy("# a"),
            &|roster| roster.policy = policy("# a\r\n"),
            &|roster| roster.policy = policy("# a\n\n"),
            &|roster| roster.policy = policy("# a\n  relay       wss://relay.example"),
            &|roster| roster.relays.clear(),
            &|roster| roster.relays.push("none".parse().unwrap()),
        ],
        Reading::Roster,
    );
}
