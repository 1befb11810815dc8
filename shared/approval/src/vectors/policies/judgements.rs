//! What policies say about actions (PROTOCOL.md 16.2 to 16.4). Not here: what else stands between an action and its permit
//! (`decisions`).
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use serde_json::{Value, json};

use super::judged;
use crate::action::{Action, Command, Mark, SecretUse, Stdin, ToolCall};
use crate::request::AskedBy;
use crate::sample::*;
use crate::scalar::{ByteString, Text, Time};

struct Judged {
    policy: String,
    cases: Vec<Value>,
    used: Vec<Value>,
    now: Time,
}

fn asker() -> AskedBy {
    AskedBy {
        agent: "butler".parse().unwrap(),
        under: Vec::new(),
        user: Some(Text::new("erin").unwrap()),
        conversation: Some(Text::new("#ops").unwrap()),
        platform: Some(Text::new("matrix").unwrap()),
    }
}

/// A command of these words; the program without a slash is in /usr/bin.
fn run(argv: &[&str]) -> Command {
    let path = if argv[0].starts_with('/') {
        argv[0].to_owned()
    } else {
        format!("/usr/bin/{}", argv[0])
    };
    Command {
        executable: bound(&path, 1),
        argv: argv.iter().map(|argument| bytes(argument)).collect(),
        ..plain_command()
    }
}

fn call(server: &str, tool: &str) -> Action {
    Action::Tool(ToolCall {
        server: Text::new(server).unwrap(),
        tool: Text::new(tool).unwrap(),
        ..tool_call()
    })
}

impl Judged {
    fn under(&mut self, policy: &str) {
        policy.clone_into(&mut self.policy);
        self.used.clear();
        self.now = at(NOON);
    }

    fn whole(&mut self, name: &str, action: &Action, asked_by: &AskedBy) {
        let mut case = json!({
            "name": name,
            "policy": self.policy,
            "action": serde_json::to_string(action).unwrap(),
            "asked_by": asked_by,
            "used": self.used,
            "now": self.now,
        });
        case["expect"] = judged(&case);
        self.cases.push(case);
    }

    fn act(&mut self, name: &str, action: &Action) {
        self.whole(name, action, &asker());
    }

    fn command(&mut self, name: &str, argv: &[&str], edit: impl FnOnce(&mut Command)) {
        let mut command = run(argv);
        edit(&mut command);
        self.act(name, &Action::Command(command));
    }

    fn asked(&mut self, name: &str, edit: impl FnOnce(&mut AskedBy)) {
        let mut asked_by = asker();
        edit(&mut asked_by);
        self.whole(name, &Action::Command(run(&["ls"])), &asked_by);
    }
}

fn rule(effect: &str, lines: &str) -> String {
    format!("[[rule]]\neffect = \"{effect}\"\n{lines}\n")
}

pub(super) fn all() -> Vec<Value> {
    let mut judged = Judged {
        policy: String::new(),
        cases: Vec::new(),
        used: Vec::new(),
        now: at(NOON),
    };
    programs(&mut judged);
    arguments(&mut judged);
    what_allow_needs(&mut judged);
    who(&mut judged);
    others(&mut judged);
    effects(&mut judged);
    risks(&mut judged);
    judged.cases
}

fn programs(judged: &mut Judged) {
    judged.under(&rule("allow", "command = [\"ls\"]"));
    let at = |path: &'static str| move |command: &mut Command| command.executable.path = bytes(path);
    judged.command("a_program_in_usr_bin", &["ls"], |_| {});
    judged.command("a_program_in_usr_local_bin", &["ls"], at("/usr/local/bin/ls"));
    judged.command("a_program_in_bin", &["ls"], at("/bin/ls"));
    judged.command("a_program_in_a_folder_of_its_own", &["ls"], at("/home/me/bin/ls"));
    judged.command("a_program_in_a_folder_below", &["ls"], at("/usr/bin/x/ls"));
    judged.command("a_program_called_by_its_path", &["ls"], |command| {
        command.argv[0] = bytes("/usr/bin/ls")
    });
    judged.command("a_program_called_otherwise", &["ls"], |command| {
        command.argv[0] = bytes("cat")
    });
    judged.command("a_program_called_by_another_path", &["ls"], |command| {
        command.argv[0] = bytes("/bin/ls")
    });
    judged.command("an_argument_more_than_allowed", &["ls", ""], |_| {});
    judged.under(&rule("allow", "command = [\"/opt/x/ls\"]"));
    judged.command("a_path", &["/opt/x/ls"], |_| {});
    judged.command("a_path_called_by_its_last_part", &["ls"], at("/opt/x/ls"));
    judged.command("a_path_that_is_another", &["/usr/bin/ls"], |_| {});
    judged.under(&rule("deny", "command = [\"ls\", { rest = true }]"));
    judged.command("a_denied_program_anywhere", &["ls", "-l"], at("/home/me/ls"));
    judged.command("a_denied_program_by_argv_0", &["ls"], |command| {
        command.executable.path = bytes("/usr/bin/cat");
        command.argv[0] = bytes("/x/ls");
    });
    judged.command("a_denied_program_under_two_other_names", &["cat"], |_| {});
    judged.under(&rule("deny", "command = [\"/opt/x/ls\", { rest = true }]"));
    judged.command("a_denied_path_denies_its_name", &["ls"], |_| {});
    judged.under(&rule("deny", "command = [\"ls\"]"));
    judged.command("a_denial_of_exactly_these_arguments", &["ls", "-l"], |_| {});
    versions(judged);
}

/// What is denied under one name is denied under all that it goes by.
fn versions(judged: &mut Judged) {
    judged.under(&rule("deny", "command = [\"python\", { rest = true }]"));
    judged.command("a_denied_program_in_a_version", &["python3.12", "-c", "1"], |_| {});
    judged.command("a_denied_program_as_interpreter", &["/srv/tidy"], |command| {
        command.interpreter = script().interpreter;
    });
    judged.command("a_denied_program_in_a_version_by_argv_0", &["python3.12"], |command| {
        command.executable.path = bytes("/opt/tidy");
    });
    judged.command("a_program_that_only_begins_so", &["pythonic"], |_| {});
    judged.under(&rule("deny", "command = [\"python3\", { rest = true }]"));
    judged.command("a_denied_version_denies_the_program", &["python"], |_| {});
    judged.command("a_denied_version_denies_another", &["python3.12"], |_| {});
    judged.command("a_denied_version_as_interpreter", &["/srv/tidy"], |command| {
        command.interpreter = Some(bound("/usr/bin/python", 0x7a8b));
    });
    judged.under(&rule("ask", "command = [\"clang-19\"]"));
    judged.command("an_asked_version_with_a_hyphen", &["clang"], |_| {});
    judged.under(&rule("allow", "command = [\"ls\"]"));
    judged.command("an_allowed_program_in_a_version", &["ls2"], |_| {});
}

fn arguments(judged: &mut Judged) {
    judged.under(&rule("allow", "command = [\"ls\", \"-l\", { like = \"a*.?og\" }]"));
    for (name, argument) in [
        ("a_glob", "ab.log"),
        ("a_glob_with_an_empty_run", "a.log"),
        ("a_glob_with_no_character_for_one", "a.og"),
        ("a_glob_in_upper_case", "A.log"),
        ("a_glob_over_a_slash", "a/b.log"),
        ("a_glob_over_a_space", "a b.log"),
        ("a_glob_over_a_letter_beyond_ascii", "a\u{e9}.log"),
        ("a_glob_over_a_line_feed", "a\n.log"),
        ("a_glob_at_its_end", "a.logs"),
        ("a_glob_before_its_beginning", "ba.log"),
    ] {
        judged.command(name, &["ls", "-l", argument], |_| {});
    }
    judged.command("a_missing_argument", &["ls", "-l"], |_| {});
    judged.command("another_literal", &["ls", "-L", "a.log"], |_| {});
    judged.under(&rule("allow", "command = [\"ls\", { like = \"*\" }]"));
    judged.command("an_option_for_a_star", &["ls", "-R"], |_| {});
    judged.command("nothing_for_a_star", &["ls", ""], |_| {});
    judged.command("bytes_for_a_star", &["ls", "x"], |command| {
        command.argv[1] = ByteString::new(&b"\xff"[..]).unwrap();
    });
    judged.under(&rule("allow", "command = [\"ls\", { like = \"-*\" }]"));
    judged.command("an_option_for_a_glob_of_options", &["ls", "-R"], |_| {});
    judged.under(&rule("allow", "command = [\"ls\", { rest = true }]"));
    judged.command("rest_of_nothing", &["ls"], |_| {});
    judged.command("rest_of_anything", &["ls", "-R", "/", "", "\u{202e}"], |_| {});
    judged.under(&rule("allow", "command = [\"ls\", \"*\"]"));
    judged.command("a_literal_star", &["ls", "*"], |_| {});
    judged.command("no_glob_in_a_literal", &["ls", "a"], |_| {});
    for effect in ["deny", "ask"] {
        judged.under(&rule(effect, "command = [\"ls\", { like = \"a*.?og\" }]"));
        for (name, argument) in [
            ("over_a_slash", &b"a/b.log"[..]),
            ("over_a_line_feed", b"a\n.log"),
            ("over_no_text", b"a\xff.log"),
            ("one_byte_over_a_slash", b"a./og"),
            ("one_byte_of_no_text", b"a.\xffog"),
            ("one_byte_of_a_letter_of_two", "a.\u{e9}og".as_bytes()),
            ("of_nothing_for_one", b"a.og"),
            ("at_its_end", b"a.log\n"),
            ("before_its_beginning", b"/a.log"),
        ] {
            judged.command(&format!("{effect}_{name}"), &["ls", ""], |command| {
                command.argv[1] = ByteString::new(argument).unwrap();
            });
        }
        judged.under(&rule(effect, "command = [\"ls\", { like = \"*a\" }]"));
        judged.command(&format!("{effect}_over_an_option"), &["ls", "-a"], |_| {});
        judged.under(&rule(effect, "command = [\"ls\", { like = \"?a\" }]"));
        judged.command(&format!("{effect}_one_byte_of_an_option"), &["ls", "-a"], |_| {});
    }
}

fn what_allow_needs(judged: &mut Judged) {
    judged.under(&rule("allow", "command = [\"ls\", { rest = true }]"));
    for mark in [Mark::Odd, Mark::Runner, Mark::Setuid, Mark::Shell, Mark::Writable] {
        judged.command(&format!("allow_with_the_mark_{mark}"), &["ls"], |command| {
            command.marks = vec![mark]
        });
    }
    judged.command("allow_with_an_input", &["ls"], |given| given.stdin = command().stdin);
    judged.command("allow_without_a_path", &["ls"], |command| drop(command.env.pop()));
    judged.command("allow_with_another_path", &["ls"], |command| {
        command.env[1].1 = bytes("/usr/bin:/bin")
    });
    judged.command("allow_with_a_hook_in_the_environment", &["ls"], |command| {
        command.env.insert(1, (bytes("LD_PRELOAD"), bytes("")));
    });
    judged.command("allow_with_harmless_names", &["ls"], |command| {
        let names = [
            "HOME", "LANG", "LC_ALL", "LC_CTYPE", "LOGNAME", "PATH", "SHELL", "TERM", "TZ", "USER",
        ];
        let path = command.env[1].1.clone();
        let value = |name: &str| if name == "PATH" { path.clone() } else { bytes("x") };
        command.env = names.iter().map(|name| (bytes(name), value(name))).collect();
    });
    judged.command("allow_with_an_interpreter", &["ls"], |command| {
        command.interpreter = script().interpreter
    });
    judged.command("allow_with_an_operand", &["ls", "a", "b"], |given| {
        given.operands = command().operands
    });
    judged.command("allow_of_a_runner_with_an_operand", &["ls", "a", "b"], |given| {
        given.operands = command().operands;
        given.marks = vec![Mark::Runner];
    });
    judged.under(&rule("ask", "command = [\"ls\", { rest = true }]"));
    judged.command("ask_needs_nothing_of_this", &["ls"], |command| {
        command.marks = vec![Mark::Setuid];
        command.stdin = Stdin::None;
        command.env.clear();
    });
}

fn who(judged: &mut Judged) {
    let text = |words: &str| Some(Text::new(words).unwrap());
    let lists =
        "agents = [\"butler\", \"maid\"]\nusers = [\"erin\"]\nconversations = [\"#ops\"]\nplatforms = [\"matrix\"]\n";
    judged.under(&rule("allow", &format!("{lists}command = [\"ls\"]")));
    judged.asked("everybody_named", |_| {});
    judged.asked("the_other_agent", |asked| asked.agent = "maid".parse().unwrap());
    judged.asked("an_agent_not_named", |asked| asked.agent = "cook".parse().unwrap());
    judged.asked("a_user_not_named", |asked| asked.user = text("Erin"));
    judged.asked("no_user", |asked| asked.user = None);
    judged.asked("a_conversation_not_named", |asked| asked.conversation = text("#dev"));
    judged.asked("no_platform", |asked| asked.platform = None);
    judged.under(&(rule("allow", "agents = [\"butler\"]\ncommand = [\"ls\"]") + &rule("deny", "agents = [\"thief\"]")));
    judged.asked("under_one_who_may_not", |asked| {
        asked.under = vec!["cook".parse().unwrap()]
    });
    judged.asked("under_one_who_is_denied", |asked| {
        asked.under = ["butler", "thief", "cook"].map(|name| name.parse().unwrap()).to_vec();
    });
    judged.asked("under_itself", |asked| asked.under = vec!["butler".parse().unwrap()]);
    judged.asked("the_denied_under_the_allowed", |asked| {
        asked.under = vec!["butler".parse().unwrap()];
        asked.agent = "thief".parse().unwrap();
    });
    judged.under(
        "mode = \"deny\"\n[[layer]]\nagent = \"butler\"\nmode = \"full\"\n[[layer]]\nagent = \"butler\"\nmode = \"deny\"\n\
         [[layer]]\nconversation = \"#ops\"\nmode = \"allowlist\"\n[[layer]]\nuser = \"erin\"\nmode = \"full\"\n",
    );
    judged.asked("the_layer_of_the_user", |_| {});
    judged.asked("the_layer_of_the_conversation", |asked| asked.user = None);
    judged.asked("the_first_layer_of_the_agent", |asked| {
        (asked.user, asked.conversation) = (None, None)
    });
    judged.asked("no_layer", |asked| {
        (asked.user, asked.conversation) = (None, None);
        asked.agent = "cook".parse().unwrap();
    });
    judged.asked("the_layers_of_agents_above", |asked| {
        (asked.user, asked.conversation) = (None, None);
        asked.under = vec!["cook".parse().unwrap()];
    });
}

fn others(judged: &mut Judged) {
    judged.under(&rule("allow", "tool = \"files/read\""));
    judged.act("a_tool", &call("files", "read"));
    judged.act("another_tool", &call("files", "write"));
    judged.act("another_server", &call("file", "read"));
    judged.act("a_tool_in_upper_case", &call("files", "Read"));
    judged.under(&rule("allow", "tool = \"files/\""));
    judged.act("any_tool_of_the_server", &call("files", "x/y"));
    judged.act("a_tool_of_a_server_that_begins_so", &call("files2", "x"));
    judged.under(&rule("allow", "tool = \"files/a/b\""));
    judged.act("a_tool_with_a_slash", &call("files", "a/b"));
    judged.under(&rule("allow", "secret = \"registry-token\""));
    judged.act("a_secret", &Action::Secret(secret_use()));
    let other = SecretUse {
        name: "registry-token2".parse().unwrap(),
        ..secret_use()
    };
    judged.act("another_secret", &Action::Secret(other));
    judged.act("a_command_under_a_rule_for_secrets", &Action::Command(plain_command()));
}

fn effects(judged: &mut Judged) {
    let (allow, ask, deny) = (
        rule("allow", "command = [\"ls\"]"),
        rule("ask", "command = [\"ls\"]"),
        rule("deny", "command = [\"ls\"]"),
    );
    for (name, rules) in [
        ("deny_beats_all", [&allow, &ask, &deny].map(String::as_str).concat()),
        ("ask_beats_allow", [&allow, &ask].map(String::as_str).concat()),
        ("the_first_of_equals", [&allow, &allow].map(String::as_str).concat()),
        (
            "the_mode_where_no_rule_matches",
            format!("mode = \"full\"\n{}", deny.replace("ls", "rm")),
        ),
        ("a_rule_beats_the_mode", format!("mode = \"deny\"\n{allow}")),
        (
            "a_rule_that_denies_everything",
            format!("{allow}[[rule]]\neffect = \"deny\""),
        ),
        ("nothing_in_the_policy", String::new()),
    ] {
        judged.under(&rules);
        judged.asked(name, |_| {});
    }
    judged.under("mode = \"deny\"\n[[rule]]\neffect = \"deny\"");
    judged.act(
        "no_policy_for_a_change_of_the_roster",
        &Action::Roster(genesis().contents()),
    );
    judged.under(&rule("allow", "command = [\"ls\"]\nuntil = 2027-01-15T08:00:00Z"));
    judged.now = at(NOON - 1);
    judged.asked("a_millisecond_before_the_end", |_| {});
    judged.now = at(NOON);
    judged.asked("at_the_end", |_| {});
    judged.under(
        &(rule("allow", "command = [\"ls\"]\nuses = 2\nper = \"1m\"") + &rule("allow", "command = [\"ls\"]\nuses = 1")),
    );
    let used = |rule: u32, times: &[u64]| json!({"rule": rule, "times": times});
    judged.used = vec![used(0, &[NOON - MINUTE, NOON - MINUTE + 1])];
    judged.asked("a_use_exactly_a_span_ago_counts_no_more", |_| {});
    judged.used = vec![used(0, &[NOON - MINUTE + 1, NOON])];
    judged.asked("used_up_within_the_span", |_| {});
    judged.used = vec![used(0, &[NOON - MINUTE + 1, NOON]), used(1, &[1])];
    judged.asked("all_used_up", |_| {});
    uses_under_others(judged);
}

/// Rules that count are for no sub-agent: what they say, and their class, doesn't hold there.
fn uses_under_others(judged: &mut Judged) {
    let under = |asked: &mut AskedBy| asked.under = vec!["chief".parse().unwrap()];
    let counted = rule("allow", "command = [\"ls\"]\nclass = \"c\"\nuses = 2");
    let class = "[class.c]\nquorum = 3\nfour_eyes = true\n";
    judged.under(&format!("{class}{counted}"));
    judged.asked("a_rule_that_counts", |_| {});
    judged.asked("a_rule_that_counts_under_another", under);
    judged.asked("a_rule_that_counts_under_itself", |asked| {
        asked.under = vec![asked.agent.clone()];
    });
    judged.under(&format!("{class}{counted}{}", rule("allow", "command = [\"ls\"]")));
    judged.asked("a_rule_that_counts_before_one_that_does_not", |_| {});
    judged.asked("a_rule_that_counts_before_one_that_does_not_under_another", under);
    judged.under(&format!("mode = \"full\"\n{class}{counted}"));
    judged.asked("a_rule_that_counts_under_another_with_the_mode_full", under);
}

fn risks(judged: &mut Judged) {
    let classes = "[class.a]\nquorum = 2\n[class.b]\nquorum = 3\nveto = false\nfour_eyes = true\nnumber = true\nexpires = \"10m\"\n\
                   [class.d]\nquorum = 3\n[class.e]\nexpires = \"2d\"\n";
    let with = |rules: &[&str]| format!("{classes}{}", rules.concat());
    let [a, b, d, e] = ["a", "b", "d", "e"].map(|class| rule("ask", &format!("class = \"{class}\"")));
    for (name, policy) in [
        ("one_class", with(&[&a])),
        ("the_largest_quorum", with(&[&a, &b])),
        ("the_first_of_equal_quorums", with(&[&a, &b, &d])),
        ("the_other_first_of_equal_quorums", with(&[&d, &b])),
        ("a_class_without_a_quorum", with(&[&rule("ask", ""), &e])),
        ("a_life_beyond_24_hours", with(&[&e])),
        (
            "the_class_of_a_rule_that_has_not_won",
            with(&[
                &rule("allow", "command = [\"ls\"]\nclass = \"b\""),
                &rule("deny", "class = \"a\""),
            ]),
        ),
        (
            "the_class_of_a_rule_that_does_not_match",
            with(&[&rule("ask", "command = [\"rm\"]\nclass = \"b\"")]),
        ),
    ] {
        judged.under(&policy);
        judged.asked(name, |_| {});
    }
    judged.under(&with(&[
        &rule("ask", "agents = [\"chief\"]\nclass = \"b\""),
        &rule("ask", "agents = [\"butler\"]\nclass = \"a\""),
    ]));
    judged.asked("the_class_of_an_agent_above", |asked| {
        asked.under = vec!["chief".parse().unwrap()]
    });
}
