//! What an admin reads, to the letter.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use super::*;
use crate::action::{Command, Stdin};
use crate::request::{Class, matching};
use crate::sample::*;
use crate::scalar::{Digest, Text};

mod fields;
mod sinks;

#[test]
fn a_command_is_shown_whole() {
    let mut command = command();
    command.argv.extend(["", "(empty)", "a  b"].map(bytes));
    command.env = vec![
        (bytes("A"), bytes("")),
        (bytes("B"), bytes(" =x")),
        (bytes("\\u{3d}="), bytes("=")),
    ];
    command.operands[0].file = bound("/srv/app/the production", 0x3c4d);
    let [deploy, yes, production] = ["deploy", "yes\n", "the production"].map(|held| Digest::of(held.as_bytes()));
    let expected = format!(
        r"command
  executable  /usr/bin/deploy
  sha256      {deploy}
  inode       fd01:1a2b
  argv[0]     deploy
  argv[1]     --to
  argv[2]     production
  argv[3]     \xff\xfe
  argv[4]     (empty)
  argv[5]     \u{{28}}empty)
  argv[6]     a\u{{20}}\u{{20}}b
  env         A=
  env         B=\u{{20}}=x
  env         \\u{{3d}}\u{{3d}}==
  directory   /srv/app
  inode       fd01:2
  stdin       sha256 {yes}, 4 bytes
  operand     argv[2] /srv/app/the\u{{20}}production sha256 {production} inode fd01:3c4d
  limits      wall 30000 ms, output 1048576 bytes, memory 268435456 bytes
  user        uid 1000
  mark        odd
  mark        writable
"
    );
    let text = render(&Action::Command(command.clone()));
    assert_eq!(text, expected);
    assert_eq!(parse(&text), Ok(Reading::Command(command.clone())));
    command.env.clear();
    command.stdin = Stdin::None;
    let text = render(&Action::Command(command.clone()));
    assert!(text.contains("  env         (empty)\n") && text.contains("  stdin       none\n"));
    assert_eq!(parse(&text), Ok(Reading::Command(command)));
}

#[test]
fn a_script_is_shown_with_its_interpreter() {
    let text = render(&Action::Command(script()));
    let python = Digest::of(b"python3.12");
    assert!(text.starts_with("command\n  executable  /srv/app/release notes.py\n"));
    assert!(text.contains(&format!(
        "  inode       fd01:5e6f\n  interpreter /usr/bin/python3.12 sha256 {python} inode fd01:7a8b\n  argv[0]     ./release notes.py\n"
    )));
    assert_eq!(parse(&text), Ok(Reading::Command(script())));
}

#[test]
fn a_tool_call_is_shown_whole() {
    let schema = Digest::of(b"schema of write_file");
    let expected = format!(
        r#"tool call
  server      files
  tool        write_file
  schema      {schema}
  arguments   {{"path":"/srv/app/café",\u{{20}}\u{{20}}"text":"\u{{202e}}"}}
"#
    );
    let action = Action::Tool(tool_call());
    assert_eq!(render(&action), expected);
    assert_eq!(parse(&expected), Ok(Reading::Tool(tool_call())));
}

#[test]
fn a_use_of_a_secret_is_shown_whole() {
    let expected = "use of a secret\n  name        registry-token\n  host        registry.example.org\n  method      PUT\n  \
                    path        /v2/app/manifests/latest\n";
    let action = Action::Secret(secret_use());
    assert_eq!(render(&action), expected);
    assert_eq!(parse(expected), Ok(Reading::Secret(secret_use())));
}

#[test]
fn a_roster_is_shown_whole_and_its_digests_are_read_back() {
    let contents = team_with(POLICY).contents();
    let action = Action::Roster(contents.clone());
    let text = render(&action);
    let lines: Vec<&str> = text.lines().collect();
    assert!(lines[3].starts_with("  device        csid1"));
    // The policy stands line by line between the quorum and the relays, its last line feed as an empty line.
    let quorum = lines.iter().position(|line| line.starts_with("  quorum ")).unwrap();
    assert_eq!(lines[quorum + 1], "  policy[0]   mode = \"allowlist\"");
    assert_eq!(lines[quorum + 2], "  policy[1]   (empty)");
    let policy = POLICY.split('\n').count();
    assert_eq!(lines[quorum + policy], format!("  policy[{}]  (empty)", policy - 1));
    assert_eq!(lines[quorum + policy + 1], "  relay       wss://relay.example");
    assert_eq!(lines.len(), quorum + policy + 2);
    let Reading::Roster(reading) = parse(&text).unwrap() else {
        panic!()
    };
    assert_eq!(Reading::Roster(reading.clone()), Reading::of(&action));
    assert_eq!(reading.policy.as_deref(), Some(POLICY));
    assert_eq!(reading.gate.digest, contents.gate_device.digest());
    let read = reading.people.iter().flat_map(|person| &person.devices);
    let devices = contents.people.iter().flat_map(|person| &person.devices);
    assert!(
        read.map(|device| device.digest)
            .eq(devices.map(|device| device.digest()))
    );
    assert!(render(&Action::Roster(team().contents())).contains("\n  policy      none\n"));
}

#[test]
fn a_policy_of_many_lines_keeps_its_labels_apart() {
    let team = Reading::of(&Action::Roster(team().contents()));
    let Reading::Roster(mut reading) = team else { panic!() };
    reading.policy = Some("#\n".repeat(10_000));
    let text = Reading::Roster(reading.clone()).to_string();
    assert!(text.contains("\n  policy[99]  #\n  policy[100] #\n"));
    assert!(text.contains("\n  policy[999] #\n  policy[1000] #\n"));
    assert!(text.contains("\n  policy[10000] (empty)\n"));
    assert_eq!(parse(&text), Ok(Reading::Roster(reading)));
}

fn one_of_each() -> [Action; 5] {
    [
        Action::Command(command()),
        Action::Command(script()),
        Action::Tool(tool_call()),
        Action::Secret(secret_use()),
        Action::Roster(team_with("# nothing but\n# words\n").contents()),
    ]
}

#[test]
fn every_changed_byte_of_a_text_reads_as_something_else_or_not_at_all() {
    for action in one_of_each() {
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
        let lines: Vec<&str> = text.split_inclusive('\n').collect();
        for at in 0..lines.len() {
            let (mut without, mut twice) = (lines.clone(), lines.clone());
            without.remove(at);
            twice.insert(at, lines[at]);
            for changed in [without.concat(), twice.concat()] {
                assert_ne!(parse(&changed), Ok(Reading::of(&action)), "line {at}");
            }
        }
    }
    assert_eq!(parse(""), Err(NotRendered));
}

#[test]
fn a_second_spelling_is_not_read() {
    let text = render(&Action::Command(command()));
    for (from, to) in [
        ("uid 1000", "uid 01000"),
        ("wall 30000", "wall +30000"),
        ("memory 268", "memory 0268"),
        (" 4 bytes", " 04 bytes"),
        ("argv[0]", "argv[00]"),
        ("operand     argv[2]", "operand     argv[02]"),
        ("fd01:1a2b", "fd01:01a2b"),
        ("fd01:1a2b", "FD01:1a2b"),
        ("mark        odd", "mark        Odd"),
        ("stdin       sha256", "stdin       none sha256"),
        ("user ", "user"),
    ] {
        assert!(text.contains(from), "{from}");
        assert_eq!(parse(&text.replacen(from, to, 1)), Err(NotRendered), "{to}");
    }
}

fn asked(edit: impl FnOnce(&mut Request)) -> String {
    render_request(request_with(&team(), edit).get())
}

#[test]
fn the_action_comes_first_and_the_agents_words_come_last() {
    let text = asked(|request| {
        request.reason = Text::new("fine\nterms\n  need 0").unwrap();
        request.asked_by.under = ["chief", "helper"].map(|name| name.parse().unwrap()).to_vec();
    });
    let action = render(&Action::Command(command()));
    let rest = text.strip_prefix(&action).unwrap();
    assert_eq!(
        rest,
        "what the gate saw
  odd         an argument holds characters that aren't plain: read every \\u{...} and \\x..
  writable    somebody other than root can replace it
asked by (as the agent says)
  agent       butler
  works for   helper
  works for   chief
  user        Erin \\u{202e}
  platform    matrix
terms
  need        2 to approve
  asked       2027-01-15 08:00:00Z
  expires     2027-01-15 08:01:00Z
the agent's words (untrusted)
| fine
| terms
| \\u{20}\\u{20}need 0
"
    );
}

#[test]
fn terms_that_are_not_the_usual_ones_are_said() {
    let usual = asked(|_| {});
    for word in ["risk", "veto", "four eyes", "number", "works for"] {
        assert!(!usual.contains(word), "{word}");
    }
    let text = asked(|request| {
        request.risk = Some("deploy".parse().unwrap());
        (request.need, request.veto, request.four_eyes) = (3, false, true);
        request.matching = Some(matching(&request.nonce, "407"));
    });
    assert!(text.contains(
        "terms\n  risk        deploy\n  need        3 to approve\n  veto        none: one denial alone doesn't stop it\n  \
         four eyes   whoever asks can't approve\n  number      an approval must repeat the three digits shown where it was asked\n"
    ));
    // It is shown where it was asked, and must come from there.
    let (_, around) = text.split_once("asked by").unwrap();
    let hash = matching(&crate::scalar::Id16([0x22; 16]), "407").to_string();
    assert!(!around.contains("407") && !text.contains(&hash));
}

#[test]
fn every_mark_is_explained_in_words_of_its_own() {
    let marks = [Mark::Odd, Mark::Runner, Mark::Setuid, Mark::Shell, Mark::Writable];
    let text = asked(|request| {
        let all = Command {
            marks: marks.to_vec(),
            ..command()
        };
        request.action = Action::Command(all);
    });
    for mark in marks {
        assert_eq!(text.matches(meaning(mark)).count(), 1, "{mark}");
    }
    let plain = asked(|request| request.action = Action::Command(plain_command()));
    assert!(!plain.contains("what the gate saw"));
}

#[test]
fn a_change_of_the_roster_is_nobodys_but_the_gates() {
    let text = asked(|request| {
        (request.class, request.need) = (Class::Roster, 3);
        request.action = Action::Roster(team().contents());
    });
    assert!(text.contains("proposed by (as the gate says)\n  who         butler\n"));
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
