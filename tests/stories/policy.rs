//! What the policy answers without anybody being asked, and what it makes of asking (PROTOCOL.md 16).

use approval::Statement;
use approval::change::Change;
use approval::outcome::{Ended, Forbidden};
use approval::permit::Basis;
use approval::policy::Policy;
use approval::roster::Unenrolled;
use countersign::local::{Answer, Fault, Question, State, ToolName, Would};
use countersign::member::Saying;
use countersign_tests::world::{Wishes, World};

const EVERYDAY: &str = r#"
[[rule]]
effect = "allow"
command = ["mkdir", "made"]

[[rule]]
effect = "deny"
command = ["rmdir", { rest = true }]
"#;

async fn bases(world: &World) -> Vec<Basis> {
    let copy = world.gate.copy().await;
    let permits = copy.statements().filter_map(|statement| match statement {
        Statement::Permit(permit) => Some(permit.basis),
        _ => None,
    });
    permits.collect()
}

#[tokio::test]
async fn what_a_rule_allows_runs_and_nobody_is_asked() {
    let (world, [alice]) = World::under(EVERYDAY, ["alice"], 1).await;
    let end = world.does(&["mkdir", "made"]).await.unwrap();
    assert!(end.ran(), "{end:?}");
    assert_eq!(end.because, "allowed by rule 0 of the policy (line 2)");
    assert!(end.approved_by.is_empty());
    assert!(world.place("made").is_dir());
    assert_eq!(bases(&world).await.last(), Some(&Basis::Rule(0)));
    // One argument more is another matter.
    let asking = world.asks(&["mkdir", "made", "another"]).await;
    alice.denies(&asking.id, "").await;
    assert!(matches!(asking.ends().await.result, Ended::Denied(_)));
    world.is_sound().await;
}

#[tokio::test]
async fn what_the_policy_denies_isnt_even_asked() {
    let (world, [alice]) = World::under(EVERYDAY, ["alice"], 1).await;
    let end = world.does(&["rmdir", "anything"]).await.unwrap();
    assert_eq!(end.result, Ended::Forbidden(Forbidden { rule: Some(1) }));
    assert_eq!(
        end.reason.as_deref(),
        Some("forbidden by rule 1 of the policy (line 6)")
    );
    match world.answers(world.wants(&["rmdir", "else"])).await {
        Answer::Ended { result, reason, .. } => {
            assert_eq!(result, end.result);
            assert_eq!(reason, end.reason);
        }
        other => panic!("not forbidden: {other:?}"),
    }
    alice.has(world.status().await.size).await;
    assert_eq!(
        bases(&world)
            .await
            .iter()
            .filter(|basis| !matches!(basis, Basis::Decisions(_)))
            .count(),
        0
    );
    world.is_sound().await;
}

#[tokio::test]
async fn a_rule_that_is_used_up_leads_to_the_admins() {
    const TWICE: &str = r#"
[[rule]]
effect = "allow"
command = ["echo", "hello"]
uses = 2
per = "1h"
"#;
    let (world, [alice]) = World::under(TWICE, ["alice"], 1).await;
    for _ in 0..2 {
        assert_eq!(world.does(&["echo", "hello"]).await.unwrap().stdout, b"hello\n");
    }
    let asking = world.asks(&["echo", "hello"]).await;
    alice.approves(&asking.id).await;
    assert_eq!(asking.ends().await.approved_by, ["alice"]);
    world.clock.passes(60 * 60 * 1000 + 1);
    assert!(world.does(&["echo", "hello"]).await.unwrap().ran());
    world.is_sound().await;
}

#[tokio::test]
async fn an_explanation_says_what_will_happen_and_writes_nothing() {
    let (world, [_alice, _bob]) = World::under(EVERYDAY, ["alice", "bob"], 2).await;
    let size = world.status().await.size;
    let allowed = world.explains(world.wants(&["mkdir", "made"])).await;
    assert_eq!(
        (allowed.verdict, allowed.rule, allowed.line),
        (Would::Allow, Some(0), Some(2))
    );
    let forbidden = world.explains(world.wants(&["rmdir", "x"])).await;
    assert_eq!(
        (forbidden.verdict, forbidden.rule, forbidden.line),
        (Would::Forbid, Some(1), Some(6))
    );
    let asked = world.explains(world.wants(&["mkdir", "other"])).await;
    assert_eq!((asked.verdict, asked.need), (Would::Ask, 2));
    assert_eq!(asked.people, ["alice", "bob"]);
    let why = asked.considered.join("\n");
    assert!(why.contains("argument 1 is another"), "{why}");
    assert!(asked.shown.starts_with("command\n"), "{}", asked.shown);
    assert_eq!(world.status().await.size, size);
    assert!(!world.place("made").exists());
}

#[tokio::test]
async fn another_policy_is_judged_by_the_admins_and_then_judges_what_is_open() {
    let (world, [alice]) = World::with(["alice"], 1).await;
    let waiting = world.asks(&["mkdir", "made"]).await;
    let later = world.requests(&["rmdir", "made"]).await;
    let policy = Policy::parse(EVERYDAY).unwrap();
    let proposal = alice.proposes(Change::Policy(Some(policy))).await;
    let change = alice.has_its_request(proposal).await;
    assert!(!world.place("made").exists(), "proposed is not in force");
    alice.approves(&change).await;
    let end = waiting.ends().await;
    assert!(end.ran());
    assert!(end.because.contains("rule 0"), "{}", end.because);
    let standing = world.learns(&later.id).await;
    assert_eq!(standing.state, State::Forbidden);
    assert!(standing.reason.unwrap().contains("rule 1"));
    world.is_sound().await;
}

const HOUSE: &str = r#"
[[layer]]
conversation = "group"
mode = "deny"

[[rule]]
effect = "deny"
agents = ["main"]
tool = "mail/send"

[[rule]]
effect = "ask"
users = ["carol"]
conversations = ["group"]
tool = "mail/read"
"#;

#[tokio::test]
async fn only_tools_that_could_be_used_are_shown() {
    let (world, [_alice]) = World::under(HOUSE, ["alice"], 1).await;
    let name = |tool: &str| ToolName {
        server: "mail".to_owned(),
        tool: tool.to_owned(),
    };
    let tools = vec![name("send"), name("read")];
    let visible = async |agent: &str, user: Option<&str>, conversation: Option<&str>| {
        let question = Question::Tools {
            agent: Some(agent.to_owned()),
            under: Vec::new(),
            user: user.map(str::to_owned),
            conversation: conversation.map(str::to_owned),
            platform: None,
            tools: tools.clone(),
        };
        match world.hears(&question).await {
            Answer::Tools { visible } => visible,
            other => panic!("no tools: {other:?}"),
        }
    };
    assert_eq!(visible("other", None, None).await, tools);
    assert_eq!(visible("main", None, None).await, [name("read")]);
    assert_eq!(
        visible("main/other", None, None).await,
        [name("read")],
        "narrower than the one above it"
    );
    assert_eq!(visible("other", None, Some("group")).await, []);
    assert_eq!(visible("other", Some("carol"), Some("group")).await, [name("read")]);
}

#[tokio::test]
async fn the_first_admin_ends_doing_without() {
    let world = World::wished(Wishes {
        unenrolled: Unenrolled::Allow,
        ..Wishes::default()
    })
    .await;
    let end = world.does(&["sh", "-c", &world.tallying("free")]).await.unwrap();
    assert!(end.ran());
    assert!(end.because.contains("nobody is enrolled"), "{}", end.because);
    let allowed = match world
        .answers(world.wants(&["sh", "-c", &world.tallying("later")]))
        .await
    {
        Answer::Allowed { id, .. } => id.parse().unwrap(),
        other => panic!("not allowed: {other:?}"),
    };
    let alice = world.enrols("alice", approval::roster::Role::Admin, None, &[]).await;
    // Allowed and not yet used: now she is asked.
    assert_eq!(world.standing(&allowed).await.state, State::Pending);
    let what = || world.what(&["sh", "-c", &world.tallying("later")]);
    assert_eq!(world.redeems(&allowed, what()).await.unwrap_err().0, Fault::NotYet);
    assert_eq!(world.tally(), ["free"]);
    alice.approves(&allowed).await;
    world.learns(&allowed).await;
    assert!(world.redeems(&allowed, what()).await.unwrap().ran());
    let asking = world.asks_to_tally("asked").await;
    alice.denies(&asking.id, "").await;
    assert!(matches!(asking.ends().await.result, Ended::Denied(_)));
    assert_eq!(world.tally(), ["free", "later"]);
    world.is_sound().await;
}

const NUMBERED: &str = r#"
[class.danger]
number = true

[[rule]]
effect = "ask"
command = ["sh", { rest = true }]
class = "danger"
"#;

#[tokio::test]
async fn an_approval_must_repeat_the_number_that_only_the_asker_sees() {
    let (world, [alice]) = World::under(NUMBERED, ["alice"], 1).await;
    let mut asking = world.asks_to_tally("once").await;
    let number = asking.number.clone().expect("a number");
    assert!(
        number.len() == 3 && number.bytes().all(|digit| digit.is_ascii_digit()),
        "{number}"
    );
    for entry in &alice.copy().await.entries {
        let statement = entry.verify().unwrap();
        if let Some(request) = statement.request() {
            assert!(request.matching.is_some() || request.action.class() == approval::request::Class::Roster);
        }
    }
    let wrong = format!("{:03}", (number.parse::<u32>().unwrap() + 1) % 1000);
    let with = |number: Option<String>| Saying {
        number,
        ..Saying::once()
    };
    alice.says(&asking.id, with(None)).await;
    asking.has(0).await;
    alice.says(&asking.id, with(Some(wrong))).await;
    alice.sees_decisions(&asking.id, 2).await;
    assert!(world.tally().is_empty(), "neither counts");
    alice.says(&asking.id, with(Some(number))).await;
    assert!(asking.ends().await.ran());
    assert_eq!(world.tally(), ["once"]);
    world.is_sound().await;
}

const FOUR_EYES: &str = r#"
[class.money]
four_eyes = true

[person.alice]
users = ["telegram:1"]

[[rule]]
effect = "ask"
command = ["sh", { rest = true }]
class = "money"
"#;

#[tokio::test]
async fn who_asks_doesnt_approve_where_four_eyes_are_wanted() {
    let (world, [alice, bob]) = World::under(FOUR_EYES, ["alice", "bob"], 1).await;
    let mut ask = world.wants(&["sh", "-c", &world.tallying("once")]);
    ask.user = Some("telegram:1".to_owned());
    assert_eq!(world.explains(ask.clone()).await.people, ["bob"]);
    let asking = world.asks_for(ask).await;
    alice.approves(&asking.id).await;
    bob.sees_decisions(&asking.id, 1).await;
    assert!(world.tally().is_empty());
    bob.approves(&asking.id).await;
    assert_eq!(asking.ends().await.approved_by, ["bob"]);
    world.is_sound().await;
}
