//! What an agent can't do with the admins' attention (abuse case D36).

use countersign::gate::Attention;
use countersign::local::{Answer, Ask, Fault, State};
use countersign_tests::world::{Wishes, World};

async fn bounded(attention: Attention) -> (World, [countersign_tests::world::Device; 1]) {
    let wishes = Wishes {
        attention,
        ..Wishes::default()
    };
    World::wished_with(wishes, ["alice"], 1).await
}

fn loose() -> Attention {
    Wishes::default().attention
}

/// What the gate says to one request too many; it writes nothing.
async fn is_too_much(world: &World, ask: Ask) -> String {
    let size = world.status().await.size;
    match world.answers(ask).await {
        Answer::Error { kind, message, .. } => {
            assert_eq!(kind, Fault::TooMuch, "{message}");
            assert_eq!(world.status().await.size, size);
            message
        }
        other => panic!("taken: {other:?}"),
    }
}

#[tokio::test]
async fn asking_again_is_the_same_request() {
    let (world, [alice]) = World::with(["alice"], 1).await;
    let script = world.tallying("once");
    let argv = ["sh", "-c", script.as_str()];
    let first = world.requests(&argv).await;
    for _ in 0..20 {
        assert_eq!(world.requests(&argv).await.id, first.id);
    }
    let mut other = world.wants(&argv);
    other.agent = Some("somebody-else".to_owned());
    assert_ne!(world.requests_for(other).await.id, first.id);
    assert_eq!(world.status().await.pending, 2);
    alice.approves(&first.id).await;
    world.learns(&first.id).await;
    // Allowed and not used: that is the answer.
    match world.answers(world.wants(&argv)).await {
        Answer::Allowed { id, .. } => assert_eq!(id, first.id.to_string()),
        other => panic!("not allowed: {other:?}"),
    }
    assert!(world.redeems(&first.id, world.what(&argv)).await.unwrap().ran());
    // Used: now it is another request.
    assert_ne!(world.requests(&argv).await.id, first.id);
    world.is_sound().await;
}

#[tokio::test]
async fn two_who_wait_for_the_same_share_one_run() {
    let (world, [alice]) = World::with(["alice"], 1).await;
    let (one, other) = (world.asks_to_tally("once").await, world.asks_to_tally("once").await);
    assert_eq!(one.id, other.id);
    alice.approves(&one.id).await;
    let (one, other) = tokio::join!(one.ends(), other.ends());
    assert!(one.ran() && other.ran());
    assert_eq!(
        (one.stdout.as_slice(), other.stdout.as_slice()),
        (&b"did once\n"[..], &b"did once\n"[..])
    );
    assert_eq!(world.tally(), ["once"]);
    world.is_sound().await;
}

#[tokio::test]
async fn one_of_two_who_wait_may_leave() {
    let (world, [alice]) = World::with(["alice"], 1).await;
    let (one, other) = (world.asks_to_tally("once").await, world.asks_to_tally("once").await);
    one.leaves();
    world.status().await;
    alice.approves(&other.id).await;
    assert!(other.ends().await.ran());
    assert_eq!(world.tally(), ["once"]);
}

#[tokio::test]
async fn an_agent_and_its_helpers_have_so_many_open() {
    let (world, [alice]) = bounded(Attention { agent: 3, ..loose() }).await;
    let ask = |agent: &str, word: &str| {
        let mut ask = world.wants(&["echo", word]);
        ask.agent = Some(agent.to_owned());
        ask
    };
    let first = world.requests_for(ask("main", "1")).await;
    world.requests_for(ask("main/helper", "2")).await;
    world.requests_for(ask("main/helper/other", "3")).await;
    let why = is_too_much(&world, ask("main/another", "4")).await;
    assert!(why.contains("of main are pending: 3"), "{why}");
    world.requests_for(ask("other", "5")).await;
    alice.denies(&first.id, "").await;
    assert_eq!(world.learns(&first.id).await.state, State::Denied);
    world.requests_for(ask("main/another", "6")).await;
}

#[tokio::test]
async fn a_user_has_so_many_open() {
    let (world, [_alice]) = bounded(Attention { user: 2, ..loose() }).await;
    let ask = |user: &str, platform: &str, word: &str| {
        let mut ask = world.wants(&["echo", word]);
        (ask.user, ask.platform) = (Some(user.to_owned()), Some(platform.to_owned()));
        ask
    };
    world.requests_for(ask("carol", "chat", "1")).await;
    world.requests_for(ask("carol", "chat", "2")).await;
    let why = is_too_much(&world, ask("carol", "chat", "3")).await;
    assert!(why.contains("for this user"), "{why}");
    world.requests_for(ask("carol", "mail", "4")).await;
    world.requests_for(ask("dave", "chat", "5")).await;
    world.requests_for(world.wants(&["echo", "6"])).await;
}

/// Abuse cases I12 and I17.
#[tokio::test]
async fn an_agent_asks_so_often_in_a_minute() {
    let (world, [_alice]) = bounded(Attention { minute: 3, ..loose() }).await;
    let ask = |word: &str| world.wants(&["echo", word]);
    for word in ["1", "2", "3"] {
        let id = world.requests_for(ask(word)).await.id;
        world.cancels(&id).await;
    }
    let why = is_too_much(&world, ask("4")).await;
    assert!(why.contains("in a minute"), "{why}");
    world.clock.passes(20_000);
    world.requests_for(ask("5")).await;
    is_too_much(&world, ask("6")).await;
    let mut other = ask("7");
    other.agent = Some("other".to_owned());
    world.requests_for(other).await;
}

#[tokio::test]
async fn agents_leave_room_for_the_admins() {
    let (world, [alice]) = World::with(["alice"], 1).await;
    for number in 0..Attention::default().all {
        world.requests(&["echo", &number.to_string()]).await;
    }
    let why = is_too_much(&world, world.wants(&["echo", "more"])).await;
    assert!(why.contains("too many requests are pending"), "{why}");
    let bob = world
        .enrols("bob", approval::roster::Role::Admin, None, &[&alice])
        .await;
    bob.has(world.status().await.size).await;
}
