//! No two actions look the same, and nothing gets past the reader's eyes.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use super::*;
use crate::escape::is_allowed;
use crate::replay::fixture::{self, bytes, certificate, person};
use proptest::prelude::*;

fn roster() -> RosterContents {
    RosterContents {
        people: vec![
            person("alice", Role::Admin, &[(11, "phone"), (12, "tablet")]),
            person("dora", Role::Auditor, &[(41, "desk")]),
        ],
        quorum: Quorum { command: 1, roster: 1 },
        relays: vec![
            "wss://relay.example.org".parse().unwrap(),
            "ws://10.0.0.1:8080".parse().unwrap(),
        ],
        gate_device: certificate(1, "gate"),
    }
}

#[test]
fn a_command_is_shown_whole() {
    let Action::Command(mut command) = fixture::command(&[b"git", b"push", b"", b"(empty)", b"a  b\xff"]) else {
        panic!();
    };
    command.env = vec![
        (bytes("A"), bytes("")),
        (bytes("B"), bytes(" =x")),
        (bytes("\\u{3d}="), bytes("=")),
    ];
    let sha256 = command.executable.sha256;
    assert_eq!(
        render(&Action::Command(command.clone())),
        format!(
            "command\n  executable  /usr/bin/git\n  sha256      {sha256}\n  argv[0]     git\n  argv[1]     push\n  \
             argv[2]     (empty)\n  argv[3]     \\u{{28}}empty)\n  argv[4]     a\\u{{20}}\\u{{20}}b\\xff\n  \
             env         A=\n  env         B=\\u{{20}}=x\n  \
             env         \\\\u{{3d}}\\u{{3d}}==\n  directory   /srv/site\n  stdin       none\n  \
             limits      wall 30000 ms, output 1048576 bytes\n  user        uid 1000\n"
        )
    );
    let text = render(&Action::Command(command.clone()));
    assert_eq!(parse(&text), Ok(Reading::Command(command.clone())));
    command.env.clear();
    let text = render(&Action::Command(command.clone()));
    assert!(text.contains("  env         (empty)\n"));
    assert_eq!(parse(&text), Ok(Reading::Command(command)));
}

#[test]
fn a_roster_is_shown_whole_and_its_digests_are_read_back() {
    let contents = roster();
    let action = Action::Roster(contents.clone());
    let text = render(&action);
    assert_eq!(text.lines().count(), 10);
    assert!(text.lines().nth(3).unwrap().starts_with("  device        csid1"));
    let Reading::Roster(reading) = parse(&text).unwrap() else {
        panic!()
    };
    assert_eq!(Reading::Roster(reading.clone()), Reading::of(&action));
    assert_eq!(reading.gate.digest, contents.gate_device.digest());
    let digests = |people: &[PersonReading]| -> Vec<Digest> {
        people
            .iter()
            .flat_map(|person| &person.devices)
            .map(|device| device.digest)
            .collect()
    };
    let devices = contents.people.iter().flat_map(|person| &person.devices);
    assert_eq!(
        digests(&reading.people),
        devices.map(|device| device.digest()).collect::<Vec<_>>()
    );
}

#[test]
fn every_changed_byte_of_a_text_reads_as_something_else_or_not_at_all() {
    for action in [
        fixture::command(&[b"git", b"", b"\\x41 \xff"]),
        Action::Roster(roster()),
    ] {
        let text = render(&action);
        for at in 0..text.len() {
            for flip in [1, 2, 0x20, 0x40] {
                let mut changed = text.clone().into_bytes();
                changed[at] ^= flip;
                if let Ok(changed) = String::from_utf8(changed) {
                    assert_ne!(parse(&changed), Ok(Reading::of(&action)), "byte {at}: {changed}");
                }
            }
        }
        for wrong in [
            format!("{text}\n"),
            format!(" {text}"),
            text.replace('\n', "\r\n"),
            text.trim_end().to_owned(),
        ] {
            assert_eq!(parse(&wrong), Err(NotRendered));
        }
    }
    assert_eq!(parse(""), Err(NotRendered));
}

#[test]
fn a_second_spelling_is_not_read() {
    let text = render(&fixture::command(&[b"git"]));
    for (from, to) in [
        ("uid 1000", "uid 01000"),
        ("wall 30000", "wall +30000"),
        ("argv[0]", "argv[00]"),
        ("user ", "user"),
    ] {
        assert_eq!(parse(&text.replacen(from, to, 1)), Err(NotRendered), "{to}");
    }
}

#[test]
fn times_are_the_calendars() {
    for (millis, shown) in [
        (0, "1970-01-01 00:00:00Z"),
        (951_782_399_999, "2000-02-28 23:59:59Z"),
        (951_868_799_000, "2000-02-29 23:59:59Z"),
        (1_795_183_391_000, "2026-11-20 14:03:11Z"),
        (4_107_542_400_000, "2100-03-01 00:00:00Z"),
        ((1 << 53) - 1, "287396-10-12 08:59:00Z"),
    ] {
        assert_eq!(utc(Time::from_millis(millis).unwrap()), shown);
    }
}

fn any_bytes() -> impl Strategy<Value = ByteString> {
    let awkward = proptest::collection::vec(
        proptest::sample::select(b" \\u{}x2(empty)=\n\r\x1b\"'\xc3\xa9\xff\xe2\x80\x8b".to_vec()),
        0..16,
    );
    let wild = proptest::collection::vec(1..=255_u8, 0..32);
    prop_oneof![awkward, wild].prop_map(bytes)
}

prop_compose! {
    fn any_command()(
        path in any_bytes(),
        hash in any::<[u8; 32]>(),
        argv in proptest::collection::vec(any_bytes(), 0..12),
        env in proptest::collection::vec((any_bytes(), any_bytes()), 0..4),
        directory in any_bytes(),
        wall_ms in any::<u64>(),
        output_bytes in any::<u64>(),
        uid in any::<u32>(),
    ) -> Command {
        let executable = Executable { path, sha256: Digest(hash) };
        Command { executable, argv, env, directory, stdin: Stdin::None, limits: Limits { wall_ms, output_bytes }, uid }
    }
}

proptest! {
    #[test]
    fn what_is_rendered_reads_as_what_it_was(command in any_command()) {
        let text = render(&Action::Command(command.clone()));
        prop_assert!(text.lines().all(|line| line.chars().all(is_allowed)));
        prop_assert_eq!(parse(&text), Ok(Reading::Command(command)));
    }

    #[test]
    fn different_commands_never_look_the_same(one in any_command(), mut other in any_command(), shared in any::<u8>()) {
        // Make them nearly equal, so that the property is about what little differs.
        if shared & 1 != 0 { other.executable = one.executable.clone(); }
        if shared & 2 != 0 { other.env = one.env.clone(); other.directory = one.directory.clone(); }
        if shared & 4 != 0 { other.limits = one.limits; other.uid = one.uid; }
        if shared & 8 != 0 { other.argv = one.argv.clone(); }
        let same_text = render(&Action::Command(one.clone())) == render(&Action::Command(other.clone()));
        prop_assert_eq!(same_text, one == other);
    }

    #[test]
    fn no_text_breaks_the_parser(text in "(command|roster change)?\n?[ -~\n]{0,200}") {
        if let Ok(reading) = parse(&text) {
            prop_assert_eq!(reading.to_string(), text);
        }
    }
}
