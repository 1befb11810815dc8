//! The policy once more, written down from PROTOCOL.md 16 without index, trie or shortcut, over rules of its own that
//! are only written out as TOML: what `judge` says of random policies and actions must be what this says.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use proptest::prelude::*;
use proptest::sample::{select, subsequence};

use super::*;

type List = Option<Vec<&'static str>>;

#[derive(Clone, Debug)]
struct ModelRule {
    says: Says,
    agents: List,
    users: List,
    conversations: List,
    platforms: List,
    what: ModelWhat,
    class: Option<&'static str>,
    /// Seconds after noon.
    until: Option<u64>,
    /// How often, and in so many seconds.
    uses: Option<(u32, Option<u64>)>,
}

#[derive(Clone, Debug)]
enum ModelWhat {
    Anything,
    Command(&'static str, Vec<Part>),
    Tool(&'static str, &'static str),
    Secret(&'static str),
}

#[derive(Clone, Debug, PartialEq)]
enum Part {
    Literal(&'static str),
    Like(&'static str),
    Rest,
}

#[derive(Clone, Debug)]
struct ModelPolicy {
    mode: &'static str,
    layers: Vec<(&'static str, &'static str, &'static str)>,
    classes: BTreeMap<&'static str, u16>,
    rules: Vec<ModelRule>,
}

const AGENTS: [&str; 3] = ["butler", "cook", "maid"];
const USERS: [&str; 3] = ["erin", "bob", "kitchen"];
const CONVERSATIONS: [&str; 2] = ["kitchen", "cellar"];
const PLATFORMS: [&str; 2] = ["matrix", "erin"];
const PROGRAMS: [&str; 9] = [
    "ls",
    "/usr/bin/ls",
    "/opt/ls",
    "git",
    "sh",
    "python3",
    "python",
    "ls-2.1",
    "/opt/ls-2",
];
const PATHS: [&str; 12] = [
    "/usr/bin/ls-2.1",
    "/bin/ls-2",
    "/opt/python3.12",
    "/usr/bin/ls",
    "/bin/ls",
    "/usr/local/bin/ls",
    "/opt/ls",
    "/tmp/ls",
    "/usr/bin/git",
    "/bin/sh",
    "/usr/bin/python3",
    "/usr/bin/env",
];
const CALLED: [&str; 4] = ["x/ls", "x/ls-2", "./python3.1", ""];
const LITERALS: [&str; 5] = ["-l", "a", "a/b", "*", ""];
const GLOBS: [&str; 7] = ["*", "?", "a*", "*b", "-*", "", "a?b"];
const ARGUMENTS: [&[u8]; 11] = [
    b"-l", b"a", b"a/b", b"*", b"", b"ab", b"acb", b"-", b"a\n", b"a\xffb", b"\x7f",
];
const MODES: [&str; 3] = ["deny", "allowlist", "full"];
const CLASSES: [&str; 3] = ["low", "mid", "high"];

fn list(all: &'static [&'static str]) -> impl Strategy<Value = List> {
    prop_oneof![2 => Just(None), 1 => subsequence(all, 1..=all.len()).prop_map(Some)]
}

fn what() -> impl Strategy<Value = ModelWhat> {
    let part =
        prop_oneof![3 => select(&LITERALS[..]).prop_map(Part::Literal), 2 => select(&GLOBS[..]).prop_map(Part::Like)];
    let command = (select(&PROGRAMS[..]), prop::collection::vec(part, 0..3), any::<bool>()).prop_map(
        |(program, mut parts, rest)| {
            parts.extend(rest.then_some(Part::Rest));
            ModelWhat::Command(program, parts)
        },
    );
    prop_oneof![
        1 => Just(ModelWhat::Anything),
        6 => command,
        2 => (select(vec!["files", "mail"]), select(vec!["", "read", "send", "a/b"])).prop_map(|(server, tool)| ModelWhat::Tool(server, tool)),
        1 => select(vec!["token", "pass"]).prop_map(ModelWhat::Secret),
    ]
}

fn model_rule() -> impl Strategy<Value = ModelRule> {
    (
        prop_oneof![1 => Just(Says::Deny), 2 => Just(Says::Ask), 4 => Just(Says::Allow)],
        (list(&AGENTS), list(&USERS), list(&CONVERSATIONS), list(&PLATFORMS)),
        what(),
        prop::option::weighted(0.4, select(&CLASSES[..])),
        prop::option::weighted(0.2, 0..3u64),
        prop::option::weighted(0.3, (1..4u32, prop::option::of(1..4u64))),
    )
        .prop_map(
            |(says, (agents, users, conversations, platforms), what, class, until, uses)| {
                let mut rule = ModelRule {
                    says,
                    agents,
                    users,
                    conversations,
                    platforms,
                    what,
                    class,
                    until,
                    uses,
                };
                rule.make_valid();
                rule
            },
        )
}

impl ModelRule {
    /// What 16.1 refuses is changed into something near.
    fn make_valid(&mut self) {
        let runs_others = matches!(&self.what, ModelWhat::Command("git" | "sh" | "python3" | "python", parts)
            if parts.iter().any(|part| !matches!(part, Part::Literal(_))));
        if self.says == Says::Allow && (runs_others || matches!(self.what, ModelWhat::Anything)) {
            self.says = Says::Ask;
        }
        if self.says == Says::Allow && self.users.is_none() {
            self.conversations = None;
        }
        if self.says != Says::Allow {
            self.uses = None;
        }
    }

    fn write(&self, text: &mut String) {
        writeln!(text, "[[rule]]\neffect = \"{}\"", self.says).unwrap();
        let lists = [
            ("agents", &self.agents),
            ("users", &self.users),
            ("conversations", &self.conversations),
            ("platforms", &self.platforms),
        ];
        for (field, list) in lists {
            if let Some(list) = list {
                writeln!(text, "{field} = {list:?}").unwrap();
            }
        }
        match &self.what {
            ModelWhat::Anything => {}
            ModelWhat::Command(program, parts) => {
                let parts = parts.iter().map(|part| match part {
                    Part::Literal(literal) => format!(", {literal:?}"),
                    Part::Like(glob) => format!(", {{ like = {glob:?} }}"),
                    Part::Rest => ", { rest = true }".to_owned(),
                });
                writeln!(text, "command = [{program:?}{}]", parts.collect::<String>()).unwrap();
            }
            ModelWhat::Tool(server, tool) => writeln!(text, "tool = \"{server}/{tool}\"").unwrap(),
            ModelWhat::Secret(secret) => writeln!(text, "secret = {secret:?}").unwrap(),
        }
        if let Some(class) = self.class {
            writeln!(text, "class = {class:?}").unwrap();
        }
        if let Some(seconds) = self.until {
            writeln!(text, "until = 2027-01-15T08:00:{seconds:02}Z").unwrap();
        }
        if let Some((uses, per)) = self.uses {
            writeln!(text, "uses = {uses}").unwrap();
            if let Some(per) = per {
                writeln!(text, "per = \"{per}s\"").unwrap();
            }
        }
    }

    fn matches(&self, number: u32, action: &Action, agent: &str, asked_by: &AskedBy, now: u64, log: &Log) -> bool {
        let within = |list: &List, one: Option<&str>| match (list, one) {
            (None, _) => true,
            (Some(_), None) => false,
            (Some(list), Some(one)) => list.contains(&one),
        };
        let who = within(&self.agents, Some(agent))
            && within(&self.users, asked_by.user.as_ref().map(Text::as_untrusted))
            && within(
                &self.conversations,
                asked_by.conversation.as_ref().map(Text::as_untrusted),
            )
            && within(&self.platforms, asked_by.platform.as_ref().map(Text::as_untrusted));
        let what = match (&self.what, action) {
            (ModelWhat::Anything, _) => true,
            (ModelWhat::Command(program, parts), Action::Command(command)) => self.is_command(program, parts, command),
            (ModelWhat::Tool(server, tool), Action::Tool(call)) => {
                call.server.as_untrusted() == *server && (tool.is_empty() || call.tool.as_untrusted() == *tool)
            }
            (ModelWhat::Secret(name), Action::Secret(secret)) => secret.name.as_str() == *name,
            _ => false,
        };
        let over = self.until.is_some_and(|seconds| now >= NOON + seconds * 1000);
        let used_up = self.uses.is_some_and(|(uses, per)| {
            let counts = |(by, time): &&(u32, u64)| *by == number && per.is_none_or(|per| *time + per * 1000 > now);
            log.0.iter().filter(counts).count() >= uses as usize
        });
        let counted_below = self.uses.is_some() && !asked_by.under.is_empty();
        who && what && !over && !used_up && !counted_below
    }

    fn is_command(&self, program: &str, parts: &[Part], command: &Command) -> bool {
        let string = |bytes: &ByteString| String::from_utf8(bytes.as_bytes().to_vec()).unwrap();
        let last = |path: &str| path.split('/').next_back().unwrap().to_owned();
        let (path, called) = (string(&command.executable.path), string(&command.argv[0]));
        let right = if self.says == Says::Allow {
            let paths = match program.starts_with('/') {
                true => vec![program.to_owned()],
                false => ["/usr/local/bin/", "/usr/bin/", "/bin/"]
                    .map(|folder| format!("{folder}{program}"))
                    .to_vec(),
            };
            paths.contains(&path) && [program.to_owned(), last(program), path.clone()].contains(&called)
        } else {
            let interpreter = command.interpreter.as_ref().map(|file| string(&file.path));
            let names = [Some(path), Some(called), interpreter];
            names.into_iter().flatten().any(|path| {
                let (given, meant) = (last(&path), last(program));
                let (bare_given, bare_meant) = (bare(&given), bare(&meant));
                given == meant || given == bare_meant || bare_given == meant || bare_given == bare_meant
            })
        };
        let arguments: Vec<&[u8]> = command.argv[1..].iter().map(ByteString::as_bytes).collect();
        let loosely = self.says != Says::Allow;
        right && fits(parts, &arguments, loosely) && (loosely || allowable(command))
    }
}

/// Without its version.
fn bare(name: &str) -> String {
    let cut = name.trim_end_matches(|character: char| character.is_ascii_digit() || character == '.');
    cut.strip_suffix('-').unwrap_or(cut).to_owned()
}

fn fits(parts: &[Part], arguments: &[&[u8]], loosely: bool) -> bool {
    let rest = || fits(&parts[1..], &arguments[1..], loosely);
    match (parts.first(), arguments.first()) {
        (Some(Part::Rest), _) => true,
        (None, None) => true,
        (Some(Part::Literal(literal)), Some(argument)) => *argument == literal.as_bytes() && rest(),
        (Some(Part::Like(glob)), Some(argument)) => {
            let printable = argument.iter().all(|byte| (b' '..=b'~').contains(byte));
            let option = argument.first() == Some(&b'-') && !glob.starts_with('-');
            like(glob.as_bytes(), argument, loosely) && (loosely || (printable && !option)) && rest()
        }
        _ => false,
    }
}

fn like(glob: &[u8], text: &[u8], loosely: bool) -> bool {
    let wild = |byte: &u8| loosely || *byte != b'/';
    match glob.first() {
        None => text.is_empty(),
        Some(b'*') => {
            (0..=text.len()).any(|run| text[..run].iter().all(wild) && like(&glob[1..], &text[run..], loosely))
        }
        Some(wanted) => text.first().is_some_and(|byte| {
            let here = if *wanted == b'?' { wild(byte) } else { byte == wanted };
            here && like(&glob[1..], &text[1..], loosely)
        }),
    }
}

fn allowable(command: &Command) -> bool {
    let known = [
        "HOME", "LANG", "LC_ALL", "LC_CTYPE", "LOGNAME", "PATH", "SHELL", "TERM", "TZ", "USER",
    ];
    let runner = command.has(Mark::Runner) || command.has(Mark::Shell);
    [Mark::Odd, Mark::Setuid, Mark::Writable]
        .iter()
        .all(|mark| !command.has(*mark))
        && command.stdin == Stdin::None
        && command
            .env
            .iter()
            .all(|(name, _)| known.iter().any(|known| known.as_bytes() == name.as_bytes()))
        && command
            .env
            .contains(&(bytes("PATH"), bytes("/usr/local/bin:/usr/bin:/bin")))
        && command.interpreter.is_none()
        && (!runner || command.operands.is_empty())
}

impl ModelPolicy {
    fn text(&self) -> String {
        let mut text = format!("mode = \"{}\"\n", self.mode);
        for (field, whose, mode) in &self.layers {
            writeln!(text, "[[layer]]\n{field} = {whose:?}\nmode = {mode:?}").unwrap();
        }
        for (class, quorum) in &self.classes {
            writeln!(text, "[class.{class}]\nquorum = {quorum}").unwrap();
        }
        for rule in &self.rules {
            rule.write(&mut text);
        }
        text
    }

    fn judge(
        &self,
        action: &Action,
        asked_by: &AskedBy,
        now: u64,
        log: &Log,
    ) -> (Says, Option<u32>, Option<&'static str>) {
        let mut answers = Vec::new();
        let mut all = Vec::new();
        let agents = asked_by.under.iter().chain([&asked_by.agent]);
        for agent in agents {
            let matching: Vec<(u32, &ModelRule)> = (0..)
                .zip(&self.rules)
                .filter(|(number, rule)| rule.matches(*number, action, agent.as_str(), asked_by, now, log))
                .collect();
            let by_rule = [Says::Deny, Says::Ask, Says::Allow].into_iter().find_map(|says| {
                matching
                    .iter()
                    .find(|(_, rule)| rule.says == says)
                    .map(|(number, _)| (says, Some(*number)))
            });
            answers.push(by_rule.unwrap_or_else(|| (self.mode_for(agent.as_str(), asked_by), None)));
            all.extend(matching);
        }
        let strictest = answers.iter().map(|(says, _)| *says).min().unwrap();
        let (says, rule) = *answers.iter().find(|(says, _)| *says == strictest).unwrap();
        all.sort_by_key(|(number, _)| *number);
        let classes = || all.iter().filter_map(|(_, rule)| rule.class);
        let largest = classes().map(|class| self.classes[class]).max();
        let class = classes().find(|class| Some(self.classes[class]) == largest);
        (says, rule, class)
    }

    fn mode_for(&self, agent: &str, asked_by: &AskedBy) -> Says {
        let one = |text: &Option<Text>| text.as_ref().map(|text| text.as_untrusted().to_owned());
        let order = [
            ("user", one(&asked_by.user)),
            ("conversation", one(&asked_by.conversation)),
            ("agent", Some(agent.to_owned())),
        ];
        let layer = order.iter().find_map(|(field, whose)| {
            let whose = whose.as_deref()?;
            self.layers.iter().find(|layer| layer.0 == *field && layer.1 == whose)
        });
        match layer.map_or(self.mode, |layer| layer.2) {
            "deny" => Says::Deny,
            "full" => Says::Allow,
            _ => Says::Ask,
        }
    }
}

fn model_policy() -> impl Strategy<Value = ModelPolicy> {
    let layer = prop_oneof![
        (Just("agent"), select(&AGENTS[..]), select(&MODES[..])),
        (Just("user"), select(&USERS[..]), select(&MODES[..])),
        (Just("conversation"), select(&CONVERSATIONS[..]), select(&MODES[..])),
    ];
    (
        select(&MODES[..]),
        prop::collection::vec(layer, 0..4),
        prop::collection::vec(1..4u16, 3),
        prop::collection::vec(model_rule(), 0..24),
    )
        .prop_map(|(mode, layers, quorums, rules)| ModelPolicy {
            mode,
            layers,
            classes: CLASSES.into_iter().zip(quorums).collect(),
            rules,
        })
}

fn asker() -> impl Strategy<Value = AskedBy> {
    let optional = |all: &'static [&'static str]| prop::option::weighted(0.8, select(all).prop_map(text));
    (
        select(&AGENTS[..]).prop_map(name),
        prop::collection::vec(select(&AGENTS[..]).prop_map(name), 0..3),
        optional(&USERS),
        optional(&CONVERSATIONS),
        optional(&PLATFORMS),
    )
        .prop_map(|(agent, under, user, conversation, platform)| AskedBy {
            agent,
            under,
            user,
            conversation,
            platform,
        })
}

/// Mostly as the gate binds it, sometimes with one thing that no rule allows.
fn model_command() -> impl Strategy<Value = Command> {
    let usual = (select(vec!["ls", "/opt/ls", "git", "sh", "python3", "python", "ls-2.1"]))
        .prop_map(|program| (command(&[program]).executable, program));
    let called = prop_oneof![select(&PROGRAMS[..]), select(&CALLED[..])];
    let unusual = (select(&PATHS[..]).prop_map(file), called);
    let edit = prop_oneof![4 => Just(0), 1 => 1..8u8];
    (
        prop_oneof![2 => usual, 1 => unusual],
        prop::collection::vec(select(&ARGUMENTS[..]), 0..4),
        edit,
    )
        .prop_map(|((executable, called), arguments, edit)| {
            let path = executable.path.clone();
            let mut command = command(&["ls"]);
            command.executable = executable;
            command.argv = [called.as_bytes()].iter().chain(&arguments).map(bytes).collect();
            let (runner, shell) = marks_of_program(path.as_bytes(), None, called.as_bytes());
            command.marks.extend(runner.then_some(Mark::Runner));
            command.marks.extend(shell.then_some(Mark::Shell));
            match edit {
                1 => command.marks.push(Mark::Writable),
                2 => command.env.push((bytes("X"), bytes("y"))),
                3 => command.env.clear(),
                4 => command.interpreter = Some(file("/opt/ls-3")),
                5 => {
                    command.stdin = Stdin::Bytes(Input {
                        sha256: Digest::of(b""),
                        bytes: 0,
                    })
                }
                6 => command.env[1].1 = bytes("/tmp"),
                7 if !arguments.is_empty() => command.operands.push(Operand {
                    argument: 1,
                    file: file("/srv/a"),
                }),
                _ => {}
            }
            command
        })
}

fn model_action() -> impl Strategy<Value = Action> {
    prop_oneof![
        6 => model_command().prop_map(Action::Command),
        2 => (select(vec!["files", "mail", "x"]), select(vec!["read", "send", "a/b", ""])).prop_map(|(server, called)| tool(server, called)),
        1 => select(vec!["token", "pass", "x"]).prop_map(secret),
    ]
}

fn log() -> impl Strategy<Value = Log> {
    prop::collection::vec((0..24u32, NOON - 4000..=NOON), 0..60).prop_map(Log)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn judging_by_index_is_judging_rule_by_rule(
        model in model_policy(),
        actions in prop::collection::vec((model_action(), asker()), 1..12),
        log in log(),
        seconds in 0..3u64,
    ) {
        let text = model.text();
        let policy = Policy::parse(&text).unwrap_or_else(|error| panic!("{error}\n{text}"));
        let now = NOON + seconds * 1000;
        for (action, asked_by) in &actions {
            let (says, rule, class) = model.judge(action, asked_by, now, &log);
            let judged = policy.judge(action, asked_by, at(now), &log);
            prop_assert_eq!(judged.effect, Effect::new(says, rule), "{}\n{:?} {:?}", text, action, asked_by);
            prop_assert_eq!(judged.terms.risk.as_ref().map(Name::as_str), class, "{}", text);

            let explained = explain(Some(&policy), action, asked_by, at(now), &log);
            let strictest = explained.answers.iter().min_by_key(|answer| answer.says).unwrap();
            prop_assert_eq!((strictest.says, strictest.by.rule()), (says, rule));
            prop_assert_eq!(explained.judgement, judged);
        }
    }

    #[test]
    fn a_sub_agent_gets_at_most_what_each_above_it_gets(
        model in model_policy(),
        action in model_action(),
        asked_by in asker(),
    ) {
        let policy = Policy::parse(&model.text()).unwrap();
        let whole = says_to(&policy, &action, &asked_by);
        for above in asked_by.under.iter().chain([&asked_by.agent]) {
            let alone = AskedBy { agent: above.clone(), under: Vec::new(), ..asked_by.clone() };
            prop_assert!(whole <= says_to(&policy, &action, &alone));
        }
    }
}
