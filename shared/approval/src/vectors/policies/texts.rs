//! Texts of policies, the bad ones each with one flaw (PROTOCOL.md 16, 16.1). Not here: what the good ones say.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use serde_json::{Value, json};

use super::refused;
use crate::policy::POLICY_BYTES;
use crate::sample::POLICY;

const CLASS: &str = "[class.c]\nquorum = 2\nveto = true\nfour_eyes = false\nnumber = false\nexpires = \"10m\"\nfirst = [\"alice\"]\nafter = \"5m\"\n";

/// A rule that allows, with these lines more.
fn allow(lines: &str) -> String {
    format!("[[rule]]\neffect = \"allow\"\n{lines}\n")
}

fn command(elements: &str) -> String {
    allow(&format!("command = [{elements}]"))
}

pub(super) fn good() -> Vec<Value> {
    let good = |name: &str, input: &str| {
        assert_eq!(refused(input), "ok", "{name}");
        json!({"name": name, "input": input})
    };
    vec![
        good("nothing", ""),
        good("the_sample", POLICY),
        good("a_comment_of_16_kib", &"#".repeat(POLICY_BYTES)),
        good("carriage_returns", "# a\r\nmode = \"deny\"\r\n"),
        good("a_class_with_everything", CLASS),
        good("a_class_with_nothing", "[class.c]"),
        good(
            "spans",
            "[class.a]\nexpires = \"1s\"\n[class.b]\nexpires = \"366d\"\n[class.d]\nexpires = \"007m\"",
        ),
        good(
            "layers",
            "[[layer]]\nagent = \"a\"\nmode = \"full\"\n[[layer]]\nuser = \"U u\"\nmode = \"deny\"\n[[layer]]\nconversation = \"\"\nmode = \"allowlist\"",
        ),
        good("a_person", "[person.alice]\nusers = [\"matrix:alice\", \"Alice\"]"),
        good(
            "inline_tables",
            "class = { c = { quorum = 2 } }\nrule = [{ effect = \"deny\", class = \"c\" }]",
        ),
        good("a_rule_that_denies_everything", "[[rule]]\neffect = \"deny\""),
        good(
            "an_ask_in_a_conversation",
            "[[rule]]\neffect = \"ask\"\nconversations = [\"#ops\"]",
        ),
        good(
            "an_allow_in_a_conversation_of_users",
            &command("\"ls\"").replace("command", "conversations = [\"#ops\"]\nusers = [\"erin\"]\ncommand"),
        ),
        good("a_runner_with_literals", &command("\"bash\", \"-c\", \"true\"")),
        good(
            "a_runner_that_is_denied",
            "[[rule]]\neffect = \"deny\"\ncommand = [\"bash\", { rest = true }]",
        ),
        good(
            "a_runner_that_is_asked",
            "[[rule]]\neffect = \"ask\"\ncommand = [\"python3\", { like = \"*.py\" }]",
        ),
        good("sixty_four_elements", &command(&vec!["\"x\""; 64].join(", "))),
        good("a_tool", &allow("tool = \"files/read\"")),
        good("all_tools_of_a_server", &allow("tool = \"files/\"")),
        good("a_tool_with_a_slash", &allow("tool = \"files/a/b\"")),
        good("a_secret", &allow("secret = \"token\"")),
        good(
            "until_with_an_offset",
            &allow("secret = \"token\"\nuntil = 2027-01-01T01:00:00+01:00"),
        ),
        good(
            "until_with_a_fraction",
            &allow("secret = \"token\"\nuntil = 2027-01-01 00:00:00.123z"),
        ),
        good(
            "a_thousand_uses",
            &allow("secret = \"token\"\nuses = 1000\nper = \"1d\""),
        ),
        good("uses_in_hex", &allow("secret = \"token\"\nuses = 0x10")),
        good(
            "words_of_the_program_with_dots",
            &command("\"./x\"").replace("./x", "/opt/./x"),
        ),
        good(
            "a_literal_that_looks_like_a_glob",
            &command("\"ls\", \"*\", \"\u{e9}\""),
        ),
        good("multi_line_strings", &command("\"\"\"\nls\"\"\", '''-l'''")),
    ]
}

pub(super) fn bad() -> Vec<Value> {
    let bad = |name: &str, input: &str| {
        let expect = refused(input);
        assert_ne!(expect, "ok", "{name}");
        json!({"name": name, "input": input, "expect": expect})
    };
    let class = |name: &str, from: &str, to: &str| {
        assert!(CLASS.contains(from), "{name}");
        bad(name, &CLASS.replacen(from, to, 1))
    };
    let rule = |name: &str, lines: &str| bad(name, &allow(lines));
    let runs = |name: &str, elements: &str| bad(name, &command(elements));
    let mut all = vec![
        bad("16_kib_and_one_byte", &"#".repeat(POLICY_BYTES + 1)),
        bad("no_toml", "mode = "),
        bad("key_twice", "mode = \"deny\"\nmode = \"deny\""),
        bad("raw_control_character", "# \u{1}"),
        bad("unknown_field", "default = \"deny\""),
        bad("unknown_mode", "mode = \"ask\""),
        bad("mode_as_number", "mode = 1"),
        bad("mode_in_upper_case", "mode = \"Deny\""),
        bad("layer_without_a_mode", "[[layer]]\nagent = \"a\""),
        bad("layer_of_nobody", "[[layer]]\nmode = \"deny\""),
        bad(
            "layer_of_two",
            "[[layer]]\nagent = \"a\"\nuser = \"u\"\nmode = \"deny\"",
        ),
        bad(
            "layer_with_an_unknown_field",
            "[[layer]]\nagent = \"a\"\nplatform = \"p\"\nmode = \"deny\"",
        ),
        bad("layer_of_no_agents_name", "[[layer]]\nagent = \"A\"\nmode = \"deny\""),
        bad("layer_as_table", "[layer]\nagent = \"a\"\nmode = \"deny\""),
        bad("layers_empty", "layer = []"),
        bad("person_without_users", "[person.alice]"),
        bad("person_of_no_users", "[person.alice]\nusers = []"),
        bad(
            "person_with_an_unknown_field",
            "[person.alice]\nusers = [\"a\"]\nrole = \"admin\"",
        ),
        bad("person_in_upper_case", "[person.Alice]\nusers = [\"a\"]"),
        bad(
            "user_of_1_kib_and_one_byte",
            &format!("[person.alice]\nusers = [\"{}\"]", "a".repeat(1025)),
        ),
        class("class_in_upper_case", "class.c", "class.C"),
        class("class_with_an_unknown_field", "number", "numbers"),
        class("quorum_zero", "quorum = 2", "quorum = 0"),
        class("quorum_negative", "quorum = 2", "quorum = -2"),
        class("quorum_as_fraction", "quorum = 2", "quorum = 2.0"),
        class("quorum_beyond_u16", "quorum = 2", "quorum = 65536"),
        class("veto_as_text", "veto = true", "veto = \"true\""),
        class("number_as_number", "number = false", "number = 0"),
        class("span_without_a_unit", "\"10m\"", "\"10\""),
        class("span_of_nothing", "\"10m\"", "\"0s\""),
        class("span_beyond_366_days", "\"10m\"", "\"367d\""),
        class("span_with_a_sign", "\"10m\"", "\"+10m\""),
        class("span_with_a_space", "\"10m\"", "\"10 m\""),
        class("span_of_two", "\"10m\"", "\"1h10m\""),
        class("span_in_upper_case", "\"10m\"", "\"10M\""),
        class("span_in_weeks", "\"10m\"", "\"1w\""),
        class("span_as_number", "\"10m\"", "600"),
        class("span_of_other_digits", "\"10m\"", "\"\u{661}m\""),
        class("after_without_first", "first = [\"alice\"]\n", ""),
        class("first_without_after", "after = \"5m\"\n", ""),
        class("first_of_nobody", "[\"alice\"]", "[]"),
        bad("rule_without_effect", "[[rule]]\ncommand = [\"ls\"]"),
        bad(
            "rule_of_another_effect",
            "[[rule]]\neffect = \"permit\"\ncommand = [\"ls\"]",
        ),
        bad("rules_empty", "rule = []"),
        bad("rule_as_table", "[rule]\neffect = \"deny\""),
        bad("deny_with_uses", "[[rule]]\neffect = \"deny\"\nuses = 1"),
        bad("ask_with_uses", "[[rule]]\neffect = \"ask\"\nuses = 1"),
    ];
    all.extend([
        rule("rule_with_an_unknown_field", "tool = \"a/b\"\nnote = \"x\""),
        rule("allow_of_everything", ""),
        rule("allow_of_everything_for_somebody", "users = [\"erin\"]"),
        rule("allow_in_a_conversation", "conversations = [\"#ops\"]\ntool = \"a/b\""),
        rule("command_and_tool", "command = [\"ls\"]\ntool = \"a/b\""),
        rule("tool_and_secret", "tool = \"a/b\"\nsecret = \"s\""),
        rule("agents_empty", "agents = []\ntool = \"a/b\""),
        rule("agents_as_text", "agents = \"a\"\ntool = \"a/b\""),
        rule("agent_in_upper_case", "agents = [\"A\"]\ntool = \"a/b\""),
        rule("users_of_numbers", "users = [1]\ntool = \"a/b\""),
        rule("tool_without_a_slash", "tool = \"files\""),
        rule("tool_without_a_server", "tool = \"/read\""),
        rule("secret_in_upper_case", "secret = \"Token\""),
        rule("secrets_as_list", "secret = [\"token\"]"),
        rule("class_not_described", "tool = \"a/b\"\nclass = \"deploy\""),
        rule("until_as_text", "tool = \"a/b\"\nuntil = \"2027-01-01T00:00:00Z\""),
        rule("until_without_an_offset", "tool = \"a/b\"\nuntil = 2027-01-01T00:00:00"),
        rule("until_as_date", "tool = \"a/b\"\nuntil = 2027-01-01"),
        rule("until_before_1970", "tool = \"a/b\"\nuntil = 1969-12-31T23:59:59Z"),
        rule("until_on_no_day", "tool = \"a/b\"\nuntil = 2027-02-29T00:00:00Z"),
        rule("uses_zero", "tool = \"a/b\"\nuses = 0"),
        rule("uses_of_1001", "tool = \"a/b\"\nuses = 1001"),
        rule("uses_as_text", "tool = \"a/b\"\nuses = \"1\""),
        rule("per_without_uses", "tool = \"a/b\"\nper = \"1h\""),
        rule("per_of_a_millisecond", "tool = \"a/b\"\nuses = 1\nper = \"1ms\""),
        rule("command_as_text", "command = \"ls -l\""),
        rule("command_empty", "command = []"),
        runs("program_empty", "\"\""),
        runs("program_relative", "\"./ls\""),
        runs("program_with_a_slash_at_its_end", "\"bin/\""),
        runs("program_that_is_a_folder", "\"/usr/bin/\""),
        runs("program_that_is_the_root", "\"/\""),
        runs("program_like", "{ like = \"l?\" }"),
        runs("program_rest", "{ rest = true }"),
        runs("program_as_number", "1"),
        runs("argument_as_number", "\"ls\", 1"),
        runs("argument_with_an_unknown_field", "\"ls\", { glob = \"*\" }"),
        runs("argument_of_both", "\"ls\", { like = \"*\", rest = true }"),
        runs("argument_of_neither", "\"ls\", {}"),
        runs("like_with_a_slash", "\"ls\", { like = \"/tmp/*\" }"),
        runs("like_beyond_ascii", "\"ls\", { like = \"\u{e9}*\" }"),
        runs("like_with_a_tab", "\"ls\", { like = \"a\\t*\" }"),
        runs("rest_false", "\"ls\", { rest = false }"),
        runs("rest_before_the_end", "\"ls\", { rest = true }, \"x\""),
        runs("rest_twice", "\"ls\", { rest = true }, { rest = true }"),
        runs("sixty_five_elements", &vec!["\"x\""; 65].join(", ")),
        runs("a_runner_with_rest", "\"bash\", { rest = true }"),
        runs("a_runner_with_like", "\"env\", { like = \"*\" }"),
        runs("a_runner_by_its_path", "\"/opt/any/python3.12\", { like = \"*.py\" }"),
        runs("a_shell_with_rest", "\"/bin/sh\", { rest = true }"),
    ]);
    all
}
