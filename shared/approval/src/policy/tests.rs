//! What a policy lets through and what it doesn't, named after the abuse cases. Commands are in
//! `commands`, the rule by rule oracle in `model`, what is no policy at all in `refused`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod commands;
mod model;
mod refused;

use super::*;
use crate::action::{Bound, Command, Directory, Inode, Input, Limits, Mark, Operand, SecretUse, Stdin, ToolCall};
use crate::scalar::ByteString;

const NOON: u64 = 1_800_000_000_000;
const HOUR: u64 = 3_600_000;

fn at(millis: u64) -> Time {
    Time::from_millis(millis).unwrap()
}

fn name(text: &str) -> Name {
    text.parse().unwrap()
}

fn text(text: &str) -> Text {
    Text::new(text).unwrap()
}

fn bytes(bytes: impl AsRef<[u8]>) -> ByteString {
    ByteString::new(bytes.as_ref()).unwrap()
}

fn file(path: &str) -> Bound {
    Bound {
        path: bytes(path),
        inode: Inode { device: 1, number: 2 },
        sha256: Digest::of(path.as_bytes()),
    }
}

/// As the gate binds it: `/usr/bin/` before a program without a slash, its marks by its names.
fn command(argv: &[&str]) -> Command {
    let path = match argv[0].contains('/') {
        true => argv[0].to_owned(),
        false => format!("/usr/bin/{}", argv[0]),
    };
    let (runner, shell) = marks_of_program(path.as_bytes(), None, argv[0].as_bytes());
    let marks = [(runner, Mark::Runner), (shell, Mark::Shell)];
    Command {
        executable: file(&path),
        interpreter: None,
        argv: argv.iter().map(bytes).collect(),
        env: vec![
            (bytes("LANG"), bytes("C.UTF-8")),
            (bytes("PATH"), bytes("/usr/local/bin:/usr/bin:/bin")),
        ],
        directory: Directory {
            path: bytes("/srv"),
            inode: Inode { device: 1, number: 3 },
        },
        stdin: Stdin::None,
        operands: Vec::new(),
        limits: Limits {
            wall_ms: 30_000,
            output_bytes: 1 << 20,
            memory_bytes: 0,
        },
        uid: 1000,
        marks: marks
            .into_iter()
            .filter(|(seen, _)| *seen)
            .map(|(_, mark)| mark)
            .collect(),
    }
}

fn tool(server: &str, tool: &str) -> Action {
    Action::Tool(ToolCall {
        server: text(server),
        tool: text(tool),
        schema: Digest::of(b"schema"),
        arguments: Text::new("{}").unwrap(),
    })
}

fn secret(secret: &str) -> Action {
    Action::Secret(SecretUse {
        name: name(secret),
        host: text("api.example"),
        method: text("GET"),
        path: text("/"),
    })
}

fn butler() -> AskedBy {
    AskedBy {
        agent: name("butler"),
        under: Vec::new(),
        user: Some(text("erin")),
        conversation: Some(text("kitchen")),
        platform: Some(text("matrix")),
    }
}

/// When permits rested on which rule.
#[derive(Clone, Debug, Default)]
struct Log(Vec<(u32, u64)>);

impl Uses for Log {
    fn used(&self, rule: u32, since: Option<Time>) -> u32 {
        let counts = |(by, time): &&(u32, u64)| *by == rule && since.is_none_or(|since| *time > since.millis());
        u32::try_from(self.0.iter().filter(counts).count()).unwrap()
    }
}

fn policy(text: &str) -> Policy {
    Policy::parse(text).unwrap_or_else(|error| panic!("{error}\n{text}"))
}

fn says_to(policy: &Policy, action: &Action, asked_by: &AskedBy) -> Says {
    policy.judge(action, asked_by, at(NOON), &Log::default()).effect.says()
}

fn says(policy: &Policy, argv: &[&str]) -> Says {
    says_to(policy, &Action::Command(command(argv)), &butler())
}

#[test]
fn without_a_policy_everything_is_asked() {
    for action in [Action::Command(command(&["ls"])), tool("a", "b"), secret("s")] {
        let judged = judge(None, &action, &butler(), at(NOON), &Log::default());
        assert_eq!(judged, policy("").judge(&action, &butler(), at(NOON), &Log::default()));
        assert_eq!(judged.effect, Effect::Ask { rule: None });
        assert_eq!(judged.terms, RiskTerms::default());
    }
}

#[test]
fn a_policy_without_classes_asks_for_one_person() {
    assert_eq!(policy("").largest_quorum(), 1);
    assert_eq!(policy("[class.a]\nquorum = 3\n[class.b]\n").largest_quorum(), 3);
}

#[test]
fn an_answer_names_its_rule_and_a_mode_none() {
    let policy = policy("[[rule]]\neffect = \"ask\"\nsecret = \"s\"\n");
    let by = |action: &Action| policy.judge(action, &butler(), at(NOON), &Log::default()).effect.rule();
    assert_eq!((by(&secret("s")), by(&secret("t"))), (Some(0), None));
}

#[test]
fn d32_a_rule_ends_with_its_time_its_uses_and_its_arguments() {
    let policy = policy(
        "[[rule]]\neffect = \"allow\"\ncommand = [\"make-tea\"]\nuntil = 2027-01-15T08:00:00.001Z\nuses = 2\nper = \"1h\"\n",
    );
    let action = Action::Command(command(&["make-tea"]));
    let says = |action: &Action, now, log: &[(u32, u64)]| {
        policy
            .judge(action, &butler(), at(now), &Log(log.to_vec()))
            .effect
            .says()
    };
    assert_eq!(says(&action, NOON, &[]), Says::Allow);
    assert_eq!(says(&action, NOON + 1, &[]), Says::Ask, "strictly before");
    assert_eq!(says(&action, NOON, &[(0, NOON - 1)]), Says::Allow);
    assert_eq!(says(&action, NOON, &[(0, NOON - 1), (0, NOON)]), Says::Ask, "used up");
    assert_eq!(
        says(&action, NOON, &[(0, NOON - HOUR), (0, NOON)]),
        Says::Allow,
        "an hour ago counts no more"
    );
    assert_eq!(says(&action, NOON, &[(0, NOON - HOUR + 1), (0, NOON)]), Says::Ask);
    assert_eq!(
        says(&action, NOON, &[(1, NOON), (1, NOON)]),
        Says::Allow,
        "another rule's uses"
    );
    assert_eq!(
        says(&Action::Command(command(&["make-tea", "--twice"])), NOON, &[]),
        Says::Ask,
        "longer"
    );
}

#[test]
fn uses_without_a_span_count_since_the_text_is_in_force() {
    let policy = policy("[[rule]]\neffect = \"allow\"\nsecret = \"token\"\nuses = 1\n");
    let says = |log: &[(u32, u64)]| {
        policy
            .judge(&secret("token"), &butler(), at(NOON), &Log(log.to_vec()))
            .effect
            .says()
    };
    assert_eq!(says(&[]), Says::Allow);
    assert_eq!(says(&[(0, 0)]), Says::Ask);
}

#[test]
fn the_layer_of_the_user_holds_before_the_conversations_and_the_agents() {
    let layer = |whose: &str, mode: &str| format!("[[layer]]\n{whose}\nmode = \"{mode}\"\n");
    let user = layer("user = \"erin\"", "full");
    let conversation = layer("conversation = \"kitchen\"", "deny");
    let agent = layer("agent = \"butler\"", "full");
    let answer = |layers: &[&String], asked_by: &AskedBy| {
        let policy = policy(&layers.iter().map(|layer| layer.as_str()).collect::<String>());
        let explained = explain(Some(&policy), &secret("s"), asked_by, at(NOON), &Log::default());
        (explained.judgement.effect.says(), explained.answers[0].by)
    };
    let all = [&agent, &conversation, &user];
    assert_eq!(answer(&all, &butler()), (Says::Allow, Whose::UserLayer));
    let stranger = AskedBy {
        user: Some(text("mallory")),
        ..butler()
    };
    assert_eq!(answer(&all, &stranger), (Says::Deny, Whose::ConversationLayer));
    let alone = AskedBy {
        user: None,
        conversation: None,
        ..butler()
    };
    assert_eq!(answer(&all, &alone), (Says::Allow, Whose::AgentLayer));
    let other = AskedBy {
        agent: name("gardener"),
        ..alone
    };
    assert_eq!(answer(&all, &other), (Says::Ask, Whose::Mode));
    let twice = [&conversation, &layer("conversation = \"kitchen\"", "full")];
    assert_eq!(answer(&twice, &butler()).0, Says::Deny, "the first holds");
}

#[test]
fn being_in_a_group_grants_nothing() {
    let in_group = "[[rule]]\neffect = \"allow\"\nconversations = [\"kitchen\"]\nUSERStool = \"a/b\"\n";
    assert!(Policy::parse(&in_group.replace("USERS", "")).is_err());
    let policy = policy(&in_group.replace("USERS", "users = [\"erin\"]\n"));
    let asked_by = |user: Option<&str>, conversation: Option<&str>| AskedBy {
        user: user.map(text),
        conversation: conversation.map(text),
        ..butler()
    };
    assert_eq!(
        says_to(&policy, &tool("a", "b"), &asked_by(Some("erin"), Some("kitchen"))),
        Says::Allow
    );
    for (user, conversation) in [
        (Some("mallory"), Some("kitchen")),
        (None, Some("kitchen")),
        (Some("erin"), Some("cellar")),
        (Some("erin"), None),
        (Some("kitchen"), Some("erin")),
    ] {
        assert_eq!(
            says_to(&policy, &tool("a", "b"), &asked_by(user, conversation)),
            Says::Ask
        );
    }
}

#[test]
fn a_sub_agent_is_never_allowed_what_those_above_it_are_not() {
    let policy = policy(
        "[[rule]]\neffect = \"allow\"\nagents = [\"butler\", \"cook\"]\ntool = \"a/b\"\n\
         [[rule]]\neffect = \"allow\"\nagents = [\"maid\"]\ntool = \"a/b\"\n\
         [[rule]]\neffect = \"deny\"\nagents = [\"thief\"]\n",
    );
    let effect = |under: &[&str], agent: &str| {
        let asked_by = AskedBy {
            agent: name(agent),
            under: under.iter().map(|one| name(one)).collect(),
            ..butler()
        };
        policy
            .judge(&tool("a", "b"), &asked_by, at(NOON), &Log::default())
            .effect
    };
    assert_eq!(effect(&[], "maid"), Effect::Allow { rule: Some(1) });
    assert_eq!(
        effect(&["butler"], "maid"),
        Effect::Allow { rule: Some(0) },
        "the first of equals is the outermost's"
    );
    assert_eq!(effect(&["gardener"], "maid"), Effect::Ask { rule: None });
    assert_eq!(effect(&["butler"], "gardener"), Effect::Ask { rule: None });
    assert_eq!(effect(&["butler", "thief"], "cook"), Effect::Deny { rule: Some(2) });
    assert_eq!(effect(&["thief", "gardener"], "cook"), Effect::Deny { rule: Some(2) });
}

#[test]
fn d32_no_sub_agent_is_allowed_by_a_rule_that_is_counted() {
    let policy = policy(
        "[class.x]\nquorum = 2\n[[rule]]\neffect = \"allow\"\nsecret = \"token\"\nclass = \"x\"\nuses = 5\n\
         [[rule]]\neffect = \"allow\"\nsecret = \"token\"\nagents = [\"cook\"]\n",
    );
    let judged = |under: &[&str], agent: &str| {
        let asked_by = AskedBy {
            agent: name(agent),
            under: under.iter().map(|one| name(one)).collect(),
            ..butler()
        };
        explain(Some(&policy), &secret("token"), &asked_by, at(NOON), &Log::default())
    };
    assert_eq!(judged(&[], "butler").judgement.effect, Effect::Allow { rule: Some(0) });
    let below = judged(&["butler"], "maid");
    assert_eq!(below.judgement.effect, Effect::Ask { rule: None });
    assert_eq!(below.judgement.terms, RiskTerms::default(), "nor does its class count");
    assert!(
        below
            .considered
            .iter()
            .any(|rule| rule.rule == 0 && rule.fate == Err(WhyNot::SubAgent)),
        "{below:?}"
    );
    assert_eq!(
        judged(&["butler"], "butler").judgement.effect,
        Effect::Ask { rule: None }
    );
    assert_eq!(
        judged(&["cook"], "cook").judgement.effect,
        Effect::Allow { rule: Some(1) },
        "one that isn't counted still does"
    );
}

#[test]
fn d31_the_class_with_the_largest_quorum_holds_whatever_its_rule_says() {
    let policy = policy(
        "[class.low]\nveto = false\n[class.high]\nquorum = 3\nfour_eyes = true\nnumber = true\nexpires = \"10m\"\nfirst = [\"alice\"]\nafter = \"5m\"\n\
         [class.other]\nquorum = 3\n[class.long]\nexpires = \"7d\"\n\
         [[rule]]\neffect = \"ask\"\ntool = \"a/b\"\nclass = \"low\"\n\
         [[rule]]\neffect = \"allow\"\ntool = \"a/\"\nclass = \"high\"\n\
         [[rule]]\neffect = \"ask\"\nusers = [\"erin\"]\nplatforms = [\"matrix\"]\nclass = \"other\"\n\
         [[rule]]\neffect = \"ask\"\nsecret = \"s\"\nusers = [\"bob\"]\nclass = \"long\"\n",
    );
    let terms = |action: &Action, user: Option<&str>| {
        let asked_by = AskedBy {
            user: user.map(text),
            ..butler()
        };
        policy.judge(action, &asked_by, at(NOON), &Log::default()).terms
    };
    let high = RiskTerms {
        risk: Some(name("high")),
        quorum: 3,
        veto: true,
        four_eyes: true,
        number: true,
        life_ms: 600_000,
        first: vec![name("alice")],
        after_ms: Some(300_000),
    };
    assert_eq!(terms(&tool("a", "b"), Some("erin")), high, "the first of equals");
    assert_eq!(terms(&tool("a", "b"), None), high);
    assert_eq!(terms(&tool("x", "b"), Some("erin")).risk, Some(name("other")));
    assert_eq!(terms(&tool("x", "b"), None), RiskTerms::default());
    assert_eq!(
        terms(&secret("s"), Some("bob")).life_ms,
        LIFE_MS,
        "never longer than a request lives"
    );
    assert_eq!(policy.largest_quorum(), 3);
    assert_eq!(
        policy.class(&name("low")).map(|class| (class.quorum, class.veto)),
        Some((1, false))
    );
    assert_eq!(policy.classes().count(), 4);
}

#[test]
fn d29_a_user_is_a_person_by_name_or_by_the_list() {
    let policy = policy("[person.alice]\nusers = [\"telegram:4711\", \"alice@home\"]\n");
    let is = |person: &str, user: &str| policy.is_person(&name(person), &text(user));
    assert!(is("alice", "alice") && is("alice", "telegram:4711") && is("alice", "alice@home") && is("bob", "bob"));
    assert!(!is("bob", "telegram:4711") && !is("alice", "Alice") && !is("alice", "telegram:47111"));
    assert!(is_person(None, &name("alice"), &text("alice")) && !is_person(None, &name("alice"), &text("bob")));
}

#[test]
fn a_tool_that_would_be_denied_is_not_offered() {
    let offered = |policy: Option<&Policy>, server: &str, tool: &str| {
        tool_visible(policy, &butler(), &text(server), &text(tool), at(NOON), &Log::default())
    };
    let open = policy("[[rule]]\neffect = \"deny\"\ntool = \"files/delete\"\n");
    assert!(offered(None, "files", "delete"));
    assert!(offered(Some(&open), "files", "read") && !offered(Some(&open), "files", "delete"));
    let closed = policy(
        "mode = \"deny\"\n[[rule]]\neffect = \"ask\"\ntool = \"files/write\"\n[[rule]]\neffect = \"allow\"\ntool = \"clock/\"\n\
         [[rule]]\neffect = \"allow\"\nusers = [\"bob\"]\ntool = \"mail/send\"\n",
    );
    assert!(offered(Some(&closed), "files", "write") && offered(Some(&closed), "clock", "now"));
    assert!(!offered(Some(&closed), "files", "read") && !offered(Some(&closed), "mail", "send"));
}

#[test]
fn a_tool_is_cut_at_the_first_slash() {
    let policy = policy("[[rule]]\neffect = \"allow\"\ntool = \"git/hub/read\"\n");
    assert_eq!(says_to(&policy, &tool("git", "hub/read"), &butler()), Says::Allow);
    assert_eq!(says_to(&policy, &tool("git/hub", "read"), &butler()), Says::Ask);
    assert_eq!(says_to(&policy, &tool("GIT", "hub/read"), &butler()), Says::Ask);
}

#[test]
fn a_rule_is_named_by_the_line_of_its_header() {
    let policy = policy("# a policy\nmode = \"deny\"\n\n[[rule]]\neffect = \"ask\"\n\n  [[rule]]\neffect = \"deny\"\n");
    assert_eq!(
        (policy.line_of(0), policy.line_of(1), policy.line_of(2)),
        (Some(4), Some(7), None)
    );
    assert_eq!(policy.rules(), 2);
    let inline = Policy::parse("rule = [\n { effect = \"ask\" },\n { effect = \"deny\" },\n]\n").unwrap();
    assert_eq!((inline.line_of(0), inline.line_of(1)), (Some(2), Some(3)));
}

#[test]
fn the_explanation_says_why_each_rule_does_not_match() {
    let policy = policy(
        "[[rule]]\neffect = \"allow\"\ncommand = [\"ls\", \"-l\"]\n\
         [[rule]]\neffect = \"allow\"\ncommand = [\"ls\", \"-a\", \"b\", \"c\"]\n\
         [[rule]]\neffect = \"allow\"\ncommand = [\"ls\"]\n\
         [[rule]]\neffect = \"deny\"\nagents = [\"thief\"]\n\
         [[rule]]\neffect = \"ask\"\nsecret = \"s\"\n\
         [[rule]]\neffect = \"allow\"\nusers = [\"erin\"]\ncommand = [\"ls\", \"-a\", { like = \"?\" }]\nuntil = 2020-01-01T00:00:00Z\n\
         [[rule]]\neffect = \"ask\"\nusers = [\"bob\"]\nsecret = \"s\"\n\
         [[rule]]\neffect = \"allow\"\nplatforms = [\"matrix\"]\ncommand = [\"ls\", { rest = true }]\n",
    );
    let action = Action::Command(command(&["ls", "-a", "b"]));
    let explained = explain(Some(&policy), &action, &butler(), at(NOON), &Log::default());
    let fates: Vec<(u32, String)> = explained
        .considered
        .iter()
        .map(|rule| {
            let fate = rule
                .fate
                .as_ref()
                .map_or_else(ToString::to_string, |()| "matches".to_owned());
            (rule.rule, fate)
        })
        .collect();
    let expected = [
        (0, "argument 1 is another"),
        (1, "argument 3 is missing"),
        (2, "argument 1 is one too many"),
        (3, "it is for other agents"),
        (4, "it is about another kind of action"),
        (5, "it is over"),
        (7, "matches"),
    ];
    assert_eq!(fates, expected.map(|(rule, fate)| (rule, fate.to_owned())));
    assert_eq!(explained.judgement.effect, Effect::Allow { rule: Some(7) });
    assert_eq!(explained.answers[0].by, Whose::Rule(7));
    assert_eq!(explained.considered[0].line, 1);
}

#[test]
fn a_policy_is_its_text() {
    let one = policy("mode = \"full\"\n");
    let same = policy("mode = \"full\"\n");
    let spaced = policy("mode =  \"full\"\n");
    assert!(one == same && one != spaced);
    assert_eq!(one.digest(), Digest::of(b"mode = \"full\"\n"));
    let json = serde_json::to_string(&one).unwrap();
    assert_eq!(json, r#""mode = \"full\"\n""#);
    assert_eq!(serde_json::from_str::<Policy>(&json).unwrap(), one);
    assert!(serde_json::from_str::<Policy>(r#""mode = 1""#).is_err());
    assert!(serde_json::from_str::<Policy>("{}").is_err());
    assert!(!format!("{one:?}").contains("full"));
}

#[test]
fn a_change_of_the_roster_is_none_of_its_business() {
    // Every rule without a `what` would match; the mode, too, says nothing about it.
    let policy = policy("mode = \"full\"\n[class.x]\nquorum = 2\n[[rule]]\neffect = \"deny\"\nclass = \"x\"\n");
    let action = Action::Roster(roster_change());
    assert_eq!(
        policy.judge(&action, &butler(), at(NOON), &Log::default()),
        Judgement::by_nobody()
    );
    let explained = explain(Some(&policy), &action, &butler(), at(NOON), &Log::default());
    assert!(explained.considered.is_empty() && explained.answers[0].by == Whose::Mode);
}

fn roster_change() -> crate::roster::RosterContents {
    crate::sample::team().contents()
}
