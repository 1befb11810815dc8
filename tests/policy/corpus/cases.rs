//! Section E of the abuse cases (allowlist and command parsing), each case as a test named after it. Of the environment (E07,
//! E08), links (E13) and writable folders (E17) this is the policy's half. The other half, what the gate itself sees and starts,
//! is in `client/tests/runner.rs` and the runner's own tests, as are E21 (nothing is read from the working directory), E23 and E24
//! (`it_has_no_terminal_no_new_privileges_no_core_dump_and_no_inherited_file`, `a_daemon_in_a_session_of_its_own_ends_with_the_command`).
//! E14, E18 and E19 don't exist, and E25 is about a system that isn't supported.

use approval::action::{ARGV_BYTES, Action, Command, Mark};
use approval::grant::{NotGrantable, Terms};
use approval::policy::{DEFAULT, Effect, Policy, judge};
use approval::render::{Reading, parse, render};
use approval::standing::Standing;
use approval::{ByteString, Text, sign};
use wire::identity::Identity;

use super::gate::{asked_by, bytes, command, command_of, now, request};
use super::words::split;

fn policy(text: &str) -> Policy {
    Policy::parse(text).unwrap()
}

fn allowing(command: &str) -> Policy {
    policy(&format!("[[rule]]\neffect = \"allow\"\ncommand = {command}\n"))
}

fn is_refused(command: &str) -> bool {
    Policy::parse(&format!("[[rule]]\neffect = \"allow\"\ncommand = {command}\n")).is_err()
}

fn effect(policy: &Policy, command: &Command) -> Effect {
    judge(
        Some(policy),
        &Action::Command(command.clone()),
        &asked_by(),
        now(),
        &Standing::default(),
    )
    .effect
}

fn is_allowed(policy: &Policy, command: &Command) -> bool {
    matches!(effect(policy, command), Effect::Allow { .. })
}

fn is_asked(policy: &Policy, command: &Command) -> bool {
    matches!(effect(policy, command), Effect::Ask { .. })
}

fn is_denied(policy: &Policy, command: &Command) -> bool {
    matches!(effect(policy, command), Effect::Deny { .. })
}

/// What somebody who says "always" gets at most: every argument blank that may be.
fn may_leave_blank(command: &Command, at: u32) -> Result<(), NotGrantable> {
    let terms = Terms {
        blanks: vec![at],
        ..Terms::exact()
    };
    terms.may_cover(&Action::Command(command.clone()))
}

fn covers(terms: &Terms, granted: &Command, asked: &Command) -> bool {
    let granted = request(Action::Command(granted.clone()));
    terms.cover(&granted, &Action::Command(asked.clone()), &asked_by())
}

fn exactly_covers(granted: &Command, asked: &Command) -> bool {
    covers(&Terms::exact(), granted, asked)
}

fn shell(line: &str) -> Command {
    command(&["sh", "-c", line])
}

/// `ls` with anything behind it may run, and so nothing but `ls` may.
fn only_ls(line: &str) {
    let policy = allowing(r#"["ls", { rest = true }]"#);
    assert_eq!(split(line), None, "{line:?} takes a shell");
    let asked = shell(line);
    assert!(asked.has(Mark::Shell) && is_asked(&policy, &asked), "{line:?}");
    assert!(
        !exactly_covers(&shell("ls"), &asked) && !exactly_covers(&command(&["ls"]), &asked),
        "{line:?}"
    );
    assert_eq!(may_leave_blank(&asked, 2), Err(NotGrantable::Runner), "{line:?}");
}

#[test]
fn e01_chaining_is_no_way_behind_an_allowed_command() {
    for line in [
        "ls; id", "ls && id", "ls || id", "ls | id", "ls\nid", "ls\rid", "ls & id", "ls |& id",
    ] {
        only_ls(line);
    }
    // Without a shell these are names of files.
    let policy = allowing(r#"["ls", { rest = true }]"#);
    assert!(is_allowed(&policy, &command(&["ls", ";", "id"])));
    assert!(is_refused(r#"["sh", "-c", { rest = true }]"#));
}

#[test]
fn e02_a_substitution_is_no_way_into_an_allowed_command() {
    for line in [
        "ls $(id)",
        "ls `id`",
        "ls <(id)",
        "ls >(id)",
        "ls ${x:-id}",
        "ls \"$(id)\"",
        "ls $((id))",
    ] {
        only_ls(line);
    }
}

#[test]
fn e03_nothing_is_expanded_after_the_check() {
    let literal = allowing(r#"["ls", "*.log"]"#);
    assert!(is_allowed(&literal, &command(&["ls", "*.log"])));
    for other in ["a.log", "*.lo", "x*.log", "*.log "] {
        assert!(is_asked(&literal, &command(&["ls", other])), "{other}");
    }
    let granted = command(&["rm", "*"]);
    assert!(exactly_covers(&granted, &granted) && !exactly_covers(&granted, &command(&["rm", "notes.txt"])));
    for argument in ["$HOME", "~", "{a,b}", "!!"] {
        let text = render(&Action::Command(command(&["ls", argument])));
        assert!(text.contains(&format!("argv[1]     {argument}\n")), "{text}");
    }
}

#[test]
fn e04_a_wrapper_at_any_depth_is_asked() {
    let policy = policy(DEFAULT);
    assert!(is_allowed(&policy, &command(&["ls"])));
    for wrapper in [
        "env",
        "nice",
        "timeout 5",
        "xargs",
        "busybox",
        "nohup",
        "setsid",
        "stdbuf -oL",
        "sudo",
        "doas",
        "ionice",
        "time",
        "env -S",
        "env nice timeout 5 env",
        "flock /tmp/x",
        "chroot /",
        "unshare",
        "nsenter",
        "watch",
        "strace",
        "ld.so",
    ] {
        let argv: Vec<&str> = wrapper.split(' ').chain(["ls"]).collect();
        let wrapped = command(&argv);
        assert!(wrapped.has(Mark::Runner) && is_asked(&policy, &wrapped), "{wrapper}");
        let last = u32::try_from(argv.len() - 1).unwrap();
        assert_eq!(may_leave_blank(&wrapped, last), Err(NotGrantable::Runner), "{wrapper}");
        assert!(is_refused(&format!("[{:?}, {{ like = \"*\" }}]", argv[0])), "{wrapper}");
        assert!(is_refused(&format!("[{:?}, {{ rest = true }}]", argv[0])), "{wrapper}");
    }
    // Under another name, and another program under its name.
    assert!(is_asked(&policy, &command_of("/usr/bin/env", &["ls"])));
    assert!(is_asked(&policy, &command_of("/usr/bin/busybox", &["ls"])));
    assert!(is_asked(&policy, &command_of("/usr/bin/ls", &["env"])));
}

#[test]
fn e05_an_option_that_was_not_written_down_is_asked() {
    let policy = allowing(r#"["wc", "-l", { like = "*" }]"#);
    assert!(is_allowed(&policy, &command(&["wc", "-l", "notes.txt"])));
    for arguments in [
        vec!["-l", "--files0-from=x"],
        vec!["-l", "--files0-f=x"],
        vec!["-l", "-"],
        vec!["--lin", "notes.txt"],
        vec!["-lw", "notes.txt"],
        vec!["-l", "-l", "notes.txt"],
        vec!["-l", "notes.txt", "-w"],
        vec!["-l", "a", "b"],
        vec!["-l"],
        vec!["--", "-l", "a"],
    ] {
        let argv: Vec<&str> = std::iter::once("wc").chain(arguments).collect();
        assert!(is_asked(&policy, &command(&argv)), "{argv:?}");
    }
    // An option that runs a program: there is no way to allow it but in full.
    assert!(is_refused(r#"["sort", { like = "*" }]"#) && is_refused(r#"["tar", { rest = true }]"#));
    let granted = command(&["cat", "notes.txt"]);
    let blank = Terms {
        blanks: vec![1],
        ..Terms::exact()
    };
    assert!(covers(&blank, &granted, &command(&["cat", "b.txt"])));
    assert!(!covers(&blank, &granted, &command(&["cat", "--show-all"])));
}

#[test]
fn e06_a_program_that_runs_others_by_an_option_is_asked_and_never_granted_with_blanks() {
    let policy = policy(DEFAULT);
    for line in [
        "find . -exec id ;",
        "find . -execdir id ;",
        "find . -ok id ;",
        "sed 1e",
        "sed -n w/x",
        "awk BEGIN{system(0)}",
        "rg --pre id x",
        "git -c core.pager=id log",
        "git --exec-path=x status",
        "tar --to-command=id -xf a.tar",
        "tar -I id -xf a.tar",
        "sort --compress-program=id a",
        "man -P id ls",
        "less a",
        "vim -c x",
        "gdb -ex x",
        "nmap --script x",
        "zip -TT id a",
        "rsync -e id a b",
        "ssh -oProxyCommand=id x",
        "make x",
        "npm run x",
        "cargo run",
        "docker run x",
        "python3 x.py",
        "xargs id",
    ] {
        let argv: Vec<&str> = line.split(' ').collect();
        let asked = command(&argv);
        assert!(is_asked(&policy, &asked), "{line}");
        assert!(asked.has(Mark::Runner), "{line}");
        assert!(is_refused(&format!("[{:?}, {{ like = \"*\" }}]", argv[0])), "{line}");
        for at in 1..u32::try_from(argv.len()).unwrap() {
            assert_eq!(may_leave_blank(&asked, at), Err(NotGrantable::Runner), "{line}");
        }
    }
}

#[test]
fn e07_no_environment_outlives_a_command() {
    let policy = policy(DEFAULT);
    for line in [
        "export PAGER=id",
        "typeset -x A=b",
        "declare -x A=b",
        "set -a",
        ". ./env",
        "alias ls=id",
        "A=b ls",
    ] {
        let asked = split(line).map_or_else(|| shell(line), |argv| command(&argv));
        assert!(is_asked(&policy, &asked), "{line}");
    }
    // What somebody put into the environment is part of what is asked, each time.
    let mut poisoned = command(&["ls"]);
    poisoned.env.insert(0, (bytes("A"), bytes("b")));
    assert!(is_asked(&policy, &poisoned) && !exactly_covers(&command(&["ls"]), &poisoned));
}

#[test]
fn e08_a_variable_that_changes_what_runs_is_asked() {
    let (policy, plain) = (policy(DEFAULT), command(&["ls"]));
    for name in [
        "LD_PRELOAD",
        "LD_LIBRARY_PATH",
        "LD_AUDIT",
        "BASH_ENV",
        "ENV",
        "GIT_EXEC_PATH",
        "GIT_EXTERNAL_DIFF",
        "GIT_SSH_COMMAND",
        "IFS",
        "LESSOPEN",
        "PAGER",
        "EDITOR",
        "PYTHONPATH",
        "PYTHONSTARTUP",
        "NODE_OPTIONS",
        "PERL5OPT",
        "PERL5LIB",
        "RUBYOPT",
        "JAVA_TOOL_OPTIONS",
        "GCONV_PATH",
        "LOCPATH",
        "TERMINFO",
        "LS_COLORS",
        "HOSTALIASES",
        "RES_OPTIONS",
        "TMPDIR",
        "home",
        "LANGUAGE",
        "BASH_FUNC_ls%%",
    ] {
        let mut asked = plain.clone();
        asked.env.push((bytes(name), bytes("x")));
        asked.env.sort();
        assert!(is_asked(&policy, &asked), "{name}");
        assert!(!exactly_covers(&plain, &asked), "{name}");
    }
    for path in [
        "/tmp:/usr/bin",
        ".:/usr/bin:/bin",
        "",
        "/usr/local/bin:/usr/bin:/bin:",
        "/usr/bin:/bin",
    ] {
        let mut asked = plain.clone();
        asked.env.retain(|(name, _)| name.as_bytes() != b"PATH");
        asked.env.push((bytes("PATH"), bytes(path)));
        assert!(is_asked(&policy, &asked), "{path}");
    }
    assert!(is_allowed(&policy, &plain));
}

#[test]
fn e09_no_length_makes_the_policy_weaker() {
    let text = "mode = \"full\"\n[[rule]]\neffect = \"deny\"\ncommand = [\"rm\", { rest = true }]\n";
    let (forbidding, default) = (policy(text), policy(DEFAULT));
    for length in [50, 51, 63, 64, 65, 1023] {
        let argv: Vec<String> = std::iter::once("rm".to_owned())
            .chain((0..length).map(|at| format!("a{at}")))
            .collect();
        assert!(is_denied(&forbidding, &command(&argv)), "{length}");
        let listed: Vec<&str> = std::iter::once("ls")
            .chain(argv.iter().skip(1).map(String::as_str))
            .collect();
        assert!(is_asked(&default, &command(&listed)), "{length}");
    }
    // As many rules as there may be: the last one is read like the first.
    let filler = "[[rule]]\neffect=\"ask\"\nsecret=\"s\"\n";
    let rules = filler.repeat(300);
    let last = policy(&format!(
        "mode=\"full\"\n{rules}[[rule]]\neffect=\"deny\"\ncommand=[\"rm\",{{rest=true}}]\n"
    ));
    assert!(is_denied(&last, &command(&["rm", "a"])) && is_allowed(&last, &command(&["ls"])));
    assert!(
        Policy::parse(&format!("{}x", "#".repeat(16 * 1024))).is_err(),
        "too long is refused, not cut"
    );
}

#[test]
fn e10_all_rules_are_read_and_the_strictest_holds() {
    let rule = |effect: &str, command: &str| format!("[[rule]]\neffect = {effect:?}\ncommand = {command}\n");
    let all = [
        ("allow", r#"["ls", "-l"]"#),
        ("ask", r#"["ls", { rest = true }]"#),
        ("deny", r#"["ls", { like = "-*" }]"#),
    ];
    for order in [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]] {
        let text: String = order.iter().map(|at| rule(all[*at].0, all[*at].1)).collect();
        assert!(is_denied(&policy(&text), &command(&["ls", "-l"])), "{text}");
        let without: String = order
            .iter()
            .filter(|at| **at != 2)
            .map(|at| rule(all[*at].0, all[*at].1))
            .collect();
        assert!(is_asked(&policy(&without), &command(&["ls", "-l"])), "{without}");
    }
    assert!(is_allowed(&allowing(all[0].1), &command(&["ls", "-l"])));
}

#[test]
fn e11_bytes_are_compared_and_no_wildcard_crosses_a_slash() {
    let policy = allowing(r#"["ls", { like = "?*.log" }]"#);
    assert!(is_allowed(&policy, &command(&["ls", "app.log"])));
    for argument in [
        "/etc/app.log",
        "a/b.log",
        "../a.log",
        "./a.log",
        "app.LOG",
        ".log",
        "app.log/",
        "-a.log",
        "app.log\n",
    ] {
        assert!(is_asked(&policy, &command(&["ls", argument])), "{argument:?}");
    }
    assert!(is_asked(&policy, &command_of("/usr/bin/LS", &["LS", "app.log"])));
    assert!(is_refused(r#"["ls", { like = "/srv/*" }]"#));
}

#[test]
fn e12_where_it_runs_is_part_of_what_is_granted() {
    assert_eq!(split("cd / && ls"), None);
    assert_eq!(split("cd /"), None);
    let here = command(&["rm", "notes.txt"]);
    let mut there = here.clone();
    there.directory.path = bytes("/home/agent");
    let terms = Terms {
        blanks: vec![1],
        ..Terms::exact()
    };
    assert!(covers(&terms, &here, &here) && !covers(&terms, &here, &there));
    assert_eq!(
        may_leave_blank(&command(&["rm", "../notes.txt"]), 1),
        Err(NotGrantable::Blank)
    );
    assert!(!covers(&terms, &here, &command(&["rm", "../notes.txt"])));
}

#[test]
fn e13_a_link_defeats_no_rule_that_denies() {
    let policy = policy("mode = \"full\"\n[[rule]]\neffect = \"deny\"\ncommand = [\"rm\", { rest = true }]\n");
    assert!(is_denied(&policy, &command(&["rm", "a"])));
    // `tidy` is a link to it; `rm` is a link to something else.
    assert!(is_denied(&policy, &command_of("/usr/bin/rm", &["tidy", "a"])));
    assert!(is_denied(&policy, &command_of("/opt/tools/rm", &["tidy", "a"])));
    assert!(is_denied(&policy, &command_of("/usr/bin/coreutils", &["rm", "a"])));
    assert!(is_denied(
        &policy,
        &command_of("/usr/bin/coreutils", &["/tmp/x/rm", "a"])
    ));
    // What is denied by an argument is so whatever the argument looks like.
    let denied =
        Policy::parse("mode = \"full\"\n[[rule]]\neffect = \"deny\"\ncommand = [\"rm\", { like = \"*\" }]\n").unwrap();
    for argument in ["a", "-rf", "/etc/passwd", "a\nb", "caf\u{e9}", ""] {
        assert!(is_denied(&denied, &command(&["rm", argument])), "{argument:?}");
    }
    // To allow, the place and the name must both be right.
    let policy = allowing(r#"["ls"]"#);
    for (path, argv0) in [
        ("/tmp/ls", "ls"),
        ("/usr/bin/rm", "ls"),
        ("/usr/bin/ls", "x"),
        ("/home/agent/bin/ls", "ls"),
    ] {
        assert!(is_asked(&policy, &command_of(path, &[argv0])), "{path} {argv0}");
    }
}

#[test]
fn e15_odd_bytes_are_shown_and_asked_and_a_zero_byte_is_no_argument() {
    assert!(ByteString::new(&b"a\0b"[..]).is_err());
    let policy = allowing(r#"["ls", { rest = true }]"#);
    for argument in [
        "a\nb",
        "a\rb",
        "\u{1b}[2J",
        "caf\u{e9}",
        "a\u{202e}b",
        "a\tb",
        "\u{200b}",
    ] {
        let asked = command(&["ls", argument]);
        assert!(asked.has(Mark::Odd) && is_asked(&policy, &asked), "{argument:?}");
        assert_eq!(may_leave_blank(&asked, 1), Err(NotGrantable::Runner));
        let action = Action::Command(asked);
        let text = render(&action);
        assert!(text.bytes().all(|byte| byte == b'\n' || byte >= b' '), "{text:?}");
        assert_eq!(parse(&text), Ok(Reading::of(&action)));
    }
    let mut asked = command(&["ls", "x"]);
    asked.argv[1] = bytes(&b"\xff\xfe"[..]);
    asked.marks = vec![Mark::Odd];
    assert!(is_asked(&policy, &asked));
    assert!(render(&Action::Command(asked)).contains("\\xff\\xfe"));
}

#[test]
fn e16_a_command_line_too_long_to_be_read_is_no_request() {
    let gate = Identity::from_bytes(&[1; 32]);
    let asks = |argv: &[String]| sign(&gate, request(Action::Command(command(argv)))).is_ok();
    let of = |bytes: usize| vec!["ls".to_owned(), "a".repeat(bytes - 2)];
    assert!(asks(&of(ARGV_BYTES)) && !asks(&of(ARGV_BYTES + 1)));
}

#[test]
fn e17_a_program_that_others_can_replace_is_asked_each_time() {
    let gate = Identity::from_bytes(&[1; 32]);
    let mut relative = command(&["ls"]);
    relative.executable.path = bytes("bin/ls");
    assert!(sign(&gate, request(Action::Command(relative))).is_err());
    for mark in [Mark::Writable, Mark::Setuid] {
        let mut asked = command(&["ls"]);
        asked.marks = vec![mark];
        assert!(is_asked(&allowing(r#"["/usr/bin/ls"]"#), &asked), "{mark:?}");
        let refused = Terms::exact().may_cover(&Action::Command(asked));
        assert_eq!(refused, Err(NotGrantable::Mark));
    }
}

#[test]
fn e20_a_gate_whose_roster_has_no_policy_asks_everything() {
    for argv in [vec!["ls"], vec!["pwd"], vec!["true"], vec!["date"]] {
        let action = Action::Command(command(&argv));
        assert!(is_allowed(&policy(DEFAULT), &command(&argv)));
        let without = judge(None, &action, &asked_by(), now(), &Standing::default());
        assert_eq!(without.effect, Effect::Ask { rule: None });
    }
}

#[test]
fn e22_there_is_no_setting_that_approves_by_itself() {
    for text in [
        "auto_approve = true",
        "mode = \"yolo\"",
        "mode = true",
        "[[rule]]\neffect = \"approve\"",
        "[[rule]]\neffect = \"allow\"",
        "include = \"local.toml\"",
        "[[rule]]\neffect = \"allow\"\ncommand = [{ rest = true }]",
        "[[rule]]\neffect = \"allow\"\ncommand = []",
        "[[rule]]\neffect = \"allow\"\nconversations = [\"kitchen\"]\ncommand = [\"ls\"]",
        "[class.x]\nquorum = 0",
        "unenrolled = \"allow\"",
    ] {
        assert!(Policy::parse(text).is_err(), "{text}");
    }
    // What the agent says about itself changes nothing.
    let mut boasting = request(Action::Command(command(&["rm", "a"])));
    boasting.reason = Text::new("already approved by alice; mode = full").unwrap();
    let action = &boasting.action;
    let judged = judge(
        Some(&policy(DEFAULT)),
        action,
        &boasting.asked_by,
        now(),
        &Standing::default(),
    );
    assert_eq!(judged.effect, Effect::Ask { rule: None });
}
