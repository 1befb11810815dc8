//! Which commands a policy lets through (16.2, 16.5), named after the abuse cases.

use super::*;

fn with(argv: &[&str], edit: impl FnOnce(&mut Command)) -> Command {
    let mut command = command(argv);
    edit(&mut command);
    command
}

fn why_not(pattern: &str, command: Command) -> WhyNot {
    let policy = policy(&format!("[[rule]]\neffect = \"allow\"\ncommand = {pattern}\n"));
    let action = Action::Command(command);
    let explanation = explain(Some(&policy), &action, &butler(), at(NOON), &Log::default());
    explanation.considered[0].fate.clone().unwrap_err()
}

/// What a rule with this `command` and effect `allow` says of it.
fn allows(pattern: &str, command: Command) -> bool {
    let policy = policy(&format!("[[rule]]\neffect = \"allow\"\ncommand = {pattern}\n"));
    says_to(&policy, &Action::Command(command), &butler()) == Says::Allow
}

#[test]
fn the_default_policy_allows_everyday_reading_and_nothing_else() {
    let policy = policy(DEFAULT);
    assert_eq!(policy.warnings(), Vec::<String>::new());
    let rules = &policy.rules.rules;
    assert!(rules.len() >= 25, "{}", rules.len());
    for rule in rules {
        let rule::What::Command(pattern) = &rule.what else {
            panic!("line {}", rule.line)
        };
        assert!(!pattern.rest, "line {}: by exact arguments", rule.line);
        assert!(
            !pattern.program.contains('/') && !programs::runs_others(&pattern.program),
            "line {}",
            rule.line
        );
    }
    for argv in [
        &["ls", "-l"][..],
        &["pwd"],
        &["date", "-u"],
        &["ls", "-la", "notes.txt"],
        &["df", "-h"],
        &["wc", "-l", "a"],
    ] {
        assert_eq!(says(&policy, argv), Says::Allow, "{argv:?}");
    }
    for argv in [
        &["git", "--version"][..],
        &["echo", "hello"],
        &["/bin/echo", "hello"],
        &["sleep", "1"],
        &["sh", "-c", "ls"],
        &["cat", "notes.txt"],
        &["env"],
        &["printenv"],
        &["find", "."],
        &["ls", "/etc"],
        &["ls", "../secret"],
        &["ls", "-R"],
        &["ls", "--color"],
        &["wc", "--files0-from=x"],
        &["date", "-s", "2020-01-01"],
        &["date", "-f", "x"],
        &["hostname", "evil"],
        &["ps", "aux"],
        &["ps", "e"],
        &["/tmp/ls", "-l"],
        &["du", "-sh", "-x"],
        &["stat", "--printf=%n"],
        &["locale", "-a"],
    ] {
        assert_eq!(says(&policy, argv), Says::Ask, "{argv:?}");
    }
}

#[test]
fn d33_always_for_a_wrapper_is_no_policy() {
    for wrapper in [
        "env",
        "/usr/bin/env",
        "zsh",
        "sudo",
        "xargs",
        "find",
        "python3.12",
        "awk",
        "git",
        "ssh",
        "ld-linux-x86-64.so.2",
    ] {
        for rest in ["{ rest = true }", "{ like = \"*\" }", "\"-x\", { like = \"a*\" }"] {
            let text = format!("[[rule]]\neffect = \"allow\"\ncommand = [\"{wrapper}\", {rest}]\n");
            let error = Policy::parse(&text).unwrap_err().to_string();
            assert!(
                error.starts_with("line 3: ") && error.contains("run other programs"),
                "{error}"
            );
            policy(&text.replace("allow", "ask"));
            policy(&text.replace("allow", "deny"));
        }
    }
    assert!(allows(r#"["git", "--version"]"#, command(&["git", "--version"])));
    assert!(!allows(r#"["git", "--version"]"#, command(&["git", "--version", "-c"])));
}

#[test]
fn what_is_denied_is_denied_in_each_of_its_versions() {
    let policy = policy("mode = \"full\"\n[[rule]]\neffect = \"deny\"\ncommand = [\"tool-1\"]\n");
    for program in ["tool-1", "tool", "tool-2", "tool-1-2", "/opt/tool-1-2"] {
        assert_eq!(says(&policy, &[program]), Says::Deny, "{program}");
    }
    assert_eq!(says(&policy, &["tools"]), Says::Allow);
}

#[test]
fn d34_a_string_is_no_glob() {
    let literal = r#"["rm", "*", "?"]"#;
    assert!(allows(literal, command(&["rm", "*", "?"])));
    assert!(!allows(literal, command(&["rm", "a", "b"])));
    let warned = policy(&format!("[[rule]]\neffect = \"allow\"\ncommand = {literal}\n")).warnings();
    assert!(
        warned.len() == 1 && warned[0].starts_with("line 1: a string is matched literally"),
        "{warned:?}"
    );
}

#[test]
fn e01_e02_e03_nothing_is_split_or_expanded() {
    let pattern = r#"["ls", { like = "*" }]"#;
    for harmless in ["a;rm", "$(id)", "`id`", "~", "a&&b", "a|b", "*"] {
        assert!(allows(pattern, command(&["ls", harmless])), "{harmless} is a name");
        assert_eq!(says(&policy(DEFAULT), &["sh", "-c", harmless]), Says::Ask);
    }
    for other in ["a\nb", "a\rb", "<(a/b)"] {
        assert!(!allows(pattern, command(&["ls", other])), "{other}");
    }
}

#[test]
fn e05_an_option_that_is_not_written_down_is_asked() {
    assert!(!allows(
        r#"["sort-it", { like = "*" }]"#,
        command(&["sort-it", "--compress-prog=sh"])
    ));
    assert!(!allows(r#"["sort-it", { like = "?*" }]"#, command(&["sort-it", "-o"])));
    assert!(allows(r#"["sort-it", { like = "-n*" }]"#, command(&["sort-it", "-n5"])));
}

#[test]
fn e08_no_hook_stands_in_the_environment_of_what_is_allowed() {
    for hook in [
        "LD_PRELOAD",
        "GIT_EXEC_PATH",
        "BASH_ENV",
        "PYTHONPATH",
        "IFS",
        "PAGER",
        "LC_MESSAGES",
        "lang",
        "LOCPATH",
    ] {
        let hooked = with(&["ls"], |command| command.env.insert(0, (bytes(hook), bytes("x"))));
        assert!(!allows(r#"["ls"]"#, hooked.clone()), "{hook}");
        assert_eq!(why_not(r#"["ls"]"#, hooked), WhyNot::Environment(hook.to_owned()));
    }
    let path = |value: &str| with(&["ls"], |command| command.env[1].1 = bytes(value));
    assert!(allows(r#"["ls"]"#, path("/usr/local/bin:/usr/bin:/bin")));
    for bad in [
        "",
        ".",
        "/usr/local/bin:/usr/bin:/bin:",
        "/tmp:/usr/local/bin:/usr/bin:/bin",
    ] {
        assert_eq!(why_not(r#"["ls"]"#, path(bad)), WhyNot::Path);
    }
    assert_eq!(
        why_not(r#"["ls"]"#, with(&["ls"], |command| command.env.clear())),
        WhyNot::Path
    );
}

#[test]
fn e04_e06_no_rule_vouches_for_input_files_scripts_or_marks() {
    let input = Input {
        sha256: Digest::of(b"x"),
        bytes: 1,
    };
    let operand = Operand {
        argument: 1,
        file: file("/srv/a"),
    };
    let git = r#"["git", "a"]"#;
    let deploy = r#"["deploy", "a"]"#;
    assert_eq!(
        why_not(
            deploy,
            with(&["deploy", "a"], |command| command.stdin = Stdin::Bytes(input))
        ),
        WhyNot::Stdin
    );
    for mark in [Mark::Odd, Mark::Setuid, Mark::Writable] {
        let marked = with(&["git", "a"], |command| {
            command.marks.push(mark);
            command.marks.sort();
        });
        assert_eq!(why_not(git, marked), WhyNot::Mark(mark));
    }
    let script = with(&["deploy", "a"], |command| {
        command.interpreter = Some(file("/usr/bin/other"))
    });
    assert_eq!(why_not(deploy, script), WhyNot::Interpreter);
    let with_file = |argv: &[&str]| with(argv, |command| command.operands.push(operand.clone()));
    assert!(
        allows(deploy, with_file(&["deploy", "a"])),
        "a program that runs nothing else may read a file"
    );
    assert!(allows(git, command(&["git", "a"])));
    assert_eq!(why_not(git, with_file(&["git", "a"])), WhyNot::Operand);
}

#[test]
fn e09_more_arguments_never_weaken_a_rule() {
    let many: Vec<&str> = std::iter::once("ls").chain(std::iter::repeat_n("-l", 200)).collect();
    assert!(!allows(r#"["ls", "-l"]"#, command(&many)));
    let deny = policy("mode = \"full\"\n[[rule]]\neffect = \"deny\"\ncommand = [\"rm\", { rest = true }]\n");
    let many: Vec<&str> = std::iter::once("rm").chain(std::iter::repeat_n("a", 1000)).collect();
    assert_eq!(says(&deny, &many), Says::Deny);
    assert_eq!(says(&deny, &["rm"]), Says::Deny, "the rest may be nothing");
}

#[test]
fn e10_deny_beats_ask_beats_allow_wherever_they_stand() {
    let allow = "[[rule]]\neffect = \"allow\"\ntool = \"files/read\"\n";
    let ask = "[[rule]]\neffect = \"ask\"\ntool = \"files/\"\n";
    let deny = "[[rule]]\neffect = \"deny\"\nusers = [\"erin\"]\n";
    for (order, expected) in [
        (vec![allow], Effect::Allow { rule: Some(0) }),
        (vec![allow, ask], Effect::Ask { rule: Some(1) }),
        (vec![allow, deny, ask], Effect::Deny { rule: Some(1) }),
        (vec![deny, allow, deny], Effect::Deny { rule: Some(0) }),
        (vec![allow, allow], Effect::Allow { rule: Some(0) }),
    ] {
        let policy = policy(&order.concat());
        let judged = policy.judge(&tool("files", "read"), &butler(), at(NOON), &Log::default());
        assert_eq!(judged.effect, expected, "{order:?}");
    }
}

#[test]
fn e11_paths_are_compared_byte_by_byte() {
    for bad in [
        "/srv/Deploy",
        "/srv/deploy/",
        "/srv//deploy",
        "/srv/./deploy",
        "/srv/deployer",
    ] {
        assert!(!allows(r#"["/srv/deploy"]"#, command(&[bad])), "{bad}");
    }
    assert!(allows(r#"["/srv/deploy"]"#, command(&["/srv/deploy"])));
}

#[test]
fn e17_a_program_is_allowed_only_where_it_belongs_and_under_its_own_name() {
    let there = |path: &str| with(&["ls"], |command| command.executable = file(path));
    for path in ["/usr/bin/ls", "/bin/ls", "/usr/local/bin/ls"] {
        assert!(allows(r#"["ls"]"#, there(path)), "{path}");
    }
    for path in [
        "/tmp/ls",
        "/home/agent/bin/ls",
        "/usr/bin/../../tmp/ls",
        "/usr/sbin/ls",
        "/usr/bin/x/ls",
        "/sbin/ls",
    ] {
        assert!(!allows(r#"["ls"]"#, there(path)), "{path}");
    }
    let called = |called: &str| with(&["/bin/deploy"], |command| command.argv[0] = bytes(called));
    for good in ["/bin/deploy", "deploy"] {
        assert!(
            allows(r#"["/bin/deploy"]"#, called(good)) && allows(r#"["deploy"]"#, called(good)),
            "{good}"
        );
    }
    for bad in ["rm", "", "-deploy", "/tmp/deploy", "./deploy"] {
        assert!(
            !allows(r#"["/bin/deploy"]"#, called(bad)),
            "a multi-call program is what argv[0] says: {bad}"
        );
    }
}

#[test]
fn e13_a_copy_or_another_name_is_denied_all_the_same() {
    let deny = policy("mode = \"full\"\n[[rule]]\neffect = \"deny\"\ncommand = [\"rm\", { rest = true }]\n");
    for path in ["/usr/bin/rm", "/tmp/rm", "/home/agent/rm"] {
        assert_eq!(says(&deny, &[path, "-r", "/"]), Says::Deny, "{path}");
    }
    let renamed = with(&["/bin/busybox", "-r"], |command| command.argv[0] = bytes("x/rm"));
    assert_eq!(says_to(&deny, &Action::Command(renamed), &butler()), Says::Deny);
    assert_eq!(says(&deny, &["/usr/bin/rmdir"]), Says::Allow);
}

#[test]
fn e13_neither_another_version_nor_a_script_steps_around_a_denial() {
    let denying = |program: &str| {
        policy(&format!(
            "mode = \"full\"\n[[rule]]\neffect = \"deny\"\ncommand = [\"{program}\", {{ rest = true }}]\n"
        ))
    };
    for program in ["python", "python3", "/usr/bin/python3.12"] {
        for meant in ["python", "python3", "python2.7", "/opt/python-3", "/usr/bin/python3.12"] {
            assert_eq!(says(&denying(program), &[meant, "x"]), Says::Deny, "{program}: {meant}");
        }
        for other in ["pythonx", "python3x", "ython3", "3", "ls"] {
            assert_eq!(says(&denying(program), &[other]), Says::Allow, "{program}: {other}");
        }
        let script = with(&["/srv/deploy"], |command| {
            command.interpreter = Some(file("/usr/local/bin/python3.11"))
        });
        assert_eq!(
            says_to(&denying(program), &Action::Command(script), &butler()),
            Says::Deny,
            "{program} for a script"
        );
        let called = with(&["/srv/x"], |command| command.argv[0] = bytes("./python3.9"));
        assert_eq!(
            says_to(&denying(program), &Action::Command(called), &butler()),
            Says::Deny,
            "{program} by argv[0]"
        );
    }
    assert!(
        !allows(r#"["clang"]"#, command(&["clang-19"])) && allows(r#"["clang-19"]"#, command(&["clang-19"])),
        "what is allowed has exactly this version"
    );
}

#[test]
fn e13_no_odd_byte_steps_around_a_denial() {
    let denying = |effect: &str| {
        policy(&format!(
            "mode = \"full\"\n[[rule]]\neffect = \"{effect}\"\ncommand = [\"cat\", {{ like = \"*.key\" }}, {{ rest = true }}]\n"
        ))
    };
    let odd: [&[u8]; 7] = [
        b"a.key",
        b"/etc/a.key",
        b"-a.key",
        b"a\n.key",
        b"\xff.key",
        "é.key".as_bytes(),
        b".key",
    ];
    for argument in odd {
        let odd = Action::Command(with(&["cat", "x"], |command| command.argv[1] = bytes(argument)));
        assert_eq!(says_to(&denying("deny"), &odd, &butler()), Says::Deny, "{argument:?}");
        assert_eq!(says_to(&denying("ask"), &odd, &butler()), Says::Ask, "{argument:?}");
    }
    assert_eq!(says(&denying("deny"), &["cat", "a.pub"]), Says::Allow);
    assert_eq!(says(&denying("deny"), &["cat", "a.key.pub"]), Says::Allow);
}

#[test]
fn an_allowed_program_that_runs_others_is_warned_about() {
    let warned = |text: &str| policy(text).warnings();
    for program in ["git", "/usr/bin/git", "python3.12", "make"] {
        let text = format!("\n[[rule]]\neffect = \"allow\"\ncommand = [\"{program}\", \"x\"]\n");
        let warned = warned(&text);
        assert!(
            warned.len() == 1 && warned[0].starts_with("line 2: this program can run others: "),
            "{program}: {warned:?}"
        );
    }
    assert!(warned("[[rule]]\neffect = \"allow\"\ncommand = [\"ls\"]\n").is_empty());
    assert!(warned("[[rule]]\neffect = \"ask\"\ncommand = [\"git\"]\n").is_empty());
}

#[test]
fn e20_e22_only_the_mode_full_and_a_rule_allow() {
    let agents = "[[layer]]\nagent = \"butler\"\nmode = \"full\"\n";
    assert_eq!(says(&policy(""), &["rm"]), Says::Ask);
    assert_eq!(says(&policy("mode = \"allowlist\"\n"), &["rm"]), Says::Ask);
    assert_eq!(says(&policy("mode = \"deny\"\n"), &["rm"]), Says::Deny);
    assert_eq!(says(&policy("mode = \"full\"\n"), &["rm"]), Says::Allow);
    assert_eq!(says(&policy(agents), &["rm"]), Says::Allow);
}
