//! `renderings.json`: actions with their text, whole requests with theirs, and texts that are no action's (PROTOCOL.md 11).
//! Actions are the JSON text that a request holds. Not here: single code points (`render`'s own tests).
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use serde_json::{Value, json};

use super::{frozen, text};
use crate::action::{Action, Command, Mark, Stdin};
use crate::render::{Reading, parse, render, render_request};
use crate::request::{Request, matching};
use crate::sample::*;
use crate::scalar::{ByteString, Text};
use crate::statement::Signed;

fn good(name: &str, action: &Action) -> Value {
    json!({"name": name, "action": serde_json::to_string(action).unwrap(), "text": render(action)})
}

fn with(edit: impl FnOnce(&mut Command)) -> Action {
    let mut command = command();
    edit(&mut command);
    Action::Command(command)
}

fn words(argument: &str) -> Action {
    with(|command| command.argv = vec![bytes("echo"), bytes(argument)])
}

/// Strings that would look like something else if they weren't spelled out.
const HOSTILE: [(&str, &str); 16] = [
    ("empty", ""),
    ("the_word_for_empty", "(empty)"),
    ("a_space", " "),
    ("spaces_at_the_ends", " a "),
    ("two_spaces", "a  b"),
    ("a_line_of_its_own", "a\n  user        uid 0"),
    ("carriage_return", "safe\rrm -rf /"),
    ("escape_sequence", "\u{1b}[2Jcommand"),
    ("control_of_eight_bits", "\u{9b}2J"),
    ("backslash", "\\u{20}"),
    ("override_of_direction", "exe\u{202e}txt.sh"),
    ("invisible", "a\u{200b}b\u{2060}\u{feff}"),
    ("combining", "a\u{301}\u{20dd}"),
    ("right_to_left", "\u{5d0}\u{627}\u{661}"),
    (
        "letters_of_many_scripts",
        "\u{e9}\u{416}\u{4e2d}\u{3042}\u{d55c}\u{967}",
    ),
    ("tags_and_emoji", "\u{1f600}\u{e0041}\u{fe0f}"),
];

fn actions() -> Vec<Value> {
    let mut all = vec![
        good("command", &Action::Command(command())),
        good("command_of_a_script", &Action::Command(script())),
        good("command_without_environment", &with(|command| command.env.clear())),
        good("command_without_input", &with(|command| command.stdin = Stdin::None)),
        good(
            "command_without_limit_of_memory",
            &with(|command| command.limits.memory_bytes = 0),
        ),
        good(
            "command_with_every_mark",
            &with(|command| {
                command.marks = vec![Mark::Odd, Mark::Runner, Mark::Setuid, Mark::Shell, Mark::Writable];
            }),
        ),
        good(
            "command_with_spaces_in_its_paths",
            &with(|command| {
                command.interpreter = Some(bound("/opt/my tools/py  thon", 3));
                command.operands[0].file = bound("/srv/app/sha256 inode", 4);
            }),
        ),
        good(
            "command_of_bytes",
            &with(|command| {
                command
                    .argv
                    .push(ByteString::new(&b"\xc3\xa9\xc3 \x80\xed\xa0\x80"[..]).unwrap())
            }),
        ),
        good(
            "environment_with_equals",
            &with(|command| command.env = vec![(bytes("A"), bytes("=b=")), (bytes("B \u{202e}"), bytes(" "))]),
        ),
        good("tool", &Action::Tool(tool_call())),
        good("secret", &Action::Secret(secret_use())),
        good("roster", &Action::Roster(team().contents())),
        good("roster_of_nobody", &Action::Roster(genesis().contents())),
        good("roster_with_a_policy", &Action::Roster(team_with(POLICY).contents())),
    ];
    for (name, policy) in [
        ("empty", ""),
        ("of_one_line_feed", "\n"),
        ("that_ends_without_a_line_feed", "mode = \"full\""),
        ("with_carriage_returns", "# a\r\n# b\r\n"),
        ("of_a_hundred_and_two_lines", &"#\n".repeat(101)),
        ("that_looks_like_a_relay", "#\n#  relay       wss://elsewhere"),
    ] {
        all.push(good(
            &format!("policy_{name}"),
            &Action::Roster(team_with(policy).contents()),
        ));
    }
    for (name, hostile) in HOSTILE {
        let said = || Text::new(hostile).unwrap();
        all.push(good(&format!("argument_{name}"), &words(hostile)));
        let mut call = tool_call();
        (call.server, call.tool) = (said(), said());
        all.push(good(&format!("tool_{name}"), &Action::Tool(call)));
        let mut secret = secret_use();
        (secret.host, secret.method, secret.path) = (said(), said(), said());
        all.push(good(&format!("secret_{name}"), &Action::Secret(secret)));
    }
    all
}

fn requests() -> Vec<Value> {
    let request = |name: &str, edit: &dyn Fn(&mut Request)| {
        let request = request_with(&team(), edit);
        json!({"name": name, "request": request.signed().as_str(), "text": render_request(&request)})
    };
    vec![
        request("usual", &|_| {}),
        request("nothing_seen_and_nothing_said", &|request| {
            request.action = Action::Command(plain_command());
            request.reason = Text::default();
        }),
        request("on_careful_terms", &|request| {
            request.risk = Some("deploy".parse().unwrap());
            (request.need, request.veto, request.four_eyes) = (3, false, true);
            request.matching = Some(matching(&request.nonce, "407"));
            request.asked_by.under = ["chief", "helper"].map(|name| name.parse().unwrap()).to_vec();
            request.asked_by.conversation = Some(Text::new("#ops").unwrap());
        }),
        request("words_of_several_lines", &|request| {
            request.reason =
                Text::new(format!("{}\n\n  need        0 to approve\u{202e}", "long ".repeat(40))).unwrap();
        }),
        request("change_of_the_roster", &|request| {
            request.action = Action::Roster(team().contents());
            (request.class, request.need) = (request.action.class(), 3);
        }),
    ]
}

fn bad_texts() -> Vec<Value> {
    let good = render(&Action::Command(command()));
    let tool = render(&Action::Tool(tool_call()));
    let roster = render(&Action::Roster(team_with("# a\n# b").contents()));
    let flaw = |name: &str, text: &str, from: &str, to: &str| {
        assert!(text.contains(from), "{name}");
        json!({"name": name, "text": text.replacen(from, to, 1)})
    };
    vec![
        json!({"name": "empty", "text": ""}),
        json!({"name": "title_alone", "text": "command\n"}),
        flaw(
            "last_line_feed_missing",
            &good,
            "mark        writable\n",
            "mark        writable",
        ),
        flaw(
            "a_line_more",
            &good,
            "mark        writable\n",
            "mark        writable\n\n",
        ),
        flaw("carriage_returns", &good, "\n", "\r\n"),
        flaw("a_leading_zero", &good, "uid 1000", "uid 01000"),
        flaw("a_plus", &good, "wall 30000", "wall +30000"),
        flaw("a_number_beyond_u64", &good, "wall 30000", "wall 18446744073709551616"),
        flaw("arguments_out_of_order", &good, "argv[1]", "argv[3]"),
        flaw("raw_escape", &good, "deploy\n", "\u{1b}deploy\n"),
        flaw(
            "letter_spelled_out",
            &good,
            "argv[0]     deploy",
            "argv[0]     \\u{64}eploy",
        ),
        flaw("hex_in_upper_case", &good, "\\xff", "\\xFF"),
        flaw("inode_with_a_leading_zero", &good, "fd01:1a2b", "fd01:01a2b"),
        flaw("unknown_mark", &good, "mark        odd", "mark        even"),
        flaw(
            "operand_with_a_raw_space",
            &good,
            "/srv/app/production sha256",
            "/srv/app/the production sha256",
        ),
        flaw("memory_limit_missing", &good, ", memory 268435456 bytes", ""),
        flaw("directory_without_its_inode", &good, "  inode       fd01:2\n", ""),
        flaw("label_moved", &good, "  user        uid", "  user       uid"),
        flaw("tool_without_a_schema", &tool, "  schema", "  scheme"),
        flaw("tool_of_another_title", &tool, "tool call", "command"),
        flaw("policy_lines_out_of_order", &roster, "policy[1]", "policy[2]"),
        flaw("policy_missing", &roster, "policy[0]   # a\n  policy[1]   # b\n  ", ""),
        flaw("policy_none_and_a_text", &roster, "policy[0]   # a", "policy      none"),
        flaw("unknown_role", &roster, "dora auditor", "dora owner"),
    ]
}

#[test]
fn every_action_is_shown_and_read_as_frozen() {
    let made = json!({"actions": actions(), "requests": requests(), "bad_texts": bad_texts()});
    let frozen = frozen("renderings.json", &made);
    let mut seen = std::collections::BTreeSet::new();
    for vector in frozen["actions"].as_array().unwrap() {
        let action: Action = serde_json::from_str(text(vector, "action")).unwrap();
        let shown = text(vector, "text");
        assert_eq!(render(&action), shown, "{}", vector["name"]);
        assert_eq!(parse(shown), Ok(Reading::of(&action)), "{}", vector["name"]);
        assert!(seen.insert(shown), "{} looks like another", vector["name"]);
    }
    for vector in frozen["requests"].as_array().unwrap() {
        let request = Signed::parse(text(vector, "request").as_bytes())
            .unwrap()
            .verify()
            .unwrap();
        assert_eq!(
            render_request(&request.request().unwrap()),
            text(vector, "text"),
            "{}",
            vector["name"]
        );
    }
    for vector in frozen["bad_texts"].as_array().unwrap() {
        assert!(parse(text(vector, "text")).is_err(), "{}", vector["name"]);
    }
}
