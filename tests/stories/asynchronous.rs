//! Asking without waiting: the answer wakes the agent, which comes back once and for the very same thing (abuse cases D01, D02, D11, D15, D17).

use approval::action::ToolCall;
use approval::outcome::Ended;
use approval::{Digest, Text};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use countersign::local::{ASKED, Answer, Ask, Fault, State, What};
use countersign_tests::world::World;

#[tokio::test]
async fn the_answer_wakes_the_agent_and_it_comes_back_once() {
    let (world, [alice]) = World::with(["alice"], 1).await;
    let mut listening = world.listens().await;
    let script = world.tallying("once");
    let argv = ["sh", "-c", script.as_str()];
    let requested = world.requests(&argv).await;
    assert_eq!((requested.need, requested.sentence.as_str()), (1, ASKED));
    let (kind, why) = world.redeems(&requested.id, world.what(&argv)).await.unwrap_err();
    assert_eq!((kind, why.as_str()), (Fault::NotYet, "not yet approved: 0 of 1"));
    alice.approves(&requested.id).await;
    let woken = listening.hears().await;
    assert_eq!((woken.id, woken.state), (requested.id.to_string(), State::Allowed));
    assert!(world.tally().is_empty(), "allowed, and nobody came for it yet");
    assert_eq!(world.gate.copy().await.permits(&requested.id), 0);
    let standing = world.standing(&requested.id).await;
    assert_eq!(
        (standing.state, standing.by.as_slice()),
        (State::Allowed, ["alice".to_owned()].as_slice())
    );
    let end = world.redeems(&requested.id, world.what(&argv)).await.unwrap();
    assert!(end.ran());
    assert_eq!(
        (end.stdout.as_slice(), end.approved_by.as_slice()),
        (&b"did once\n"[..], &["alice".to_owned()][..])
    );
    let (kind, why) = world.redeems(&requested.id, world.what(&argv)).await.unwrap_err();
    assert_eq!(kind, Fault::Used);
    assert!(why.contains("already used"), "{why}");
    assert_eq!(world.standing(&requested.id).await.state, State::Used);
    assert_eq!(world.tally(), ["once"]);
    world.is_sound().await;
}

#[tokio::test]
async fn one_of_sixteen_who_redeem_at_once_wins() {
    let (world, [alice]) = World::with(["alice"], 1).await;
    let script = world.tallying("once");
    let argv = ["sh", "-c", script.as_str()];
    let id = world.requests(&argv).await.id;
    alice.approves(&id).await;
    assert_eq!(world.learns(&id).await.state, State::Allowed);
    let all = (0..16).map(|_| world.redeems(&id, world.what(&argv)));
    let mut won = 0;
    for redeemed in futures_util::future::join_all(all).await {
        match redeemed {
            Ok(end) => {
                assert!(end.ran());
                won += 1;
            }
            Err((kind, why)) => assert_eq!(kind, Fault::Used, "{why}"),
        }
    }
    assert_eq!(won, 1);
    assert_eq!(world.tally(), ["once"]);
    assert_eq!(world.gate.copy().await.permits(&id), 1);
    world.is_sound().await;
}

#[tokio::test]
async fn another_action_is_refused_whatever_differs() {
    let (world, [alice]) = World::with(["alice"], 1).await;
    let script = world.place("script");
    std::fs::write(&script, "echo approved\n").unwrap();
    let path = script.to_str().unwrap();
    let requested = world.requests(&["sh", path]).await;
    alice.approves(&requested.id).await;
    world.learns(&requested.id).await;
    let refused = async |what: What, difference: &str| {
        let (kind, why) = world.redeems(&requested.id, what).await.unwrap_err();
        assert_eq!(kind, Fault::Another, "{why}");
        assert!(why.contains(difference), "{why}");
    };
    refused(world.what(&["sh", path, "more"]), "its arguments").await;
    refused(world.what(&["true"]), "its arguments").await;
    let change = |change: fn(&mut countersign::local::AskCommand)| {
        let What::Command(mut command) = world.what(&["sh", path]) else {
            panic!("a command")
        };
        change(&mut command);
        What::Command(command)
    };
    refused(
        change(|command| command.stdin = Some(STANDARD.encode("yes"))),
        "its standard input",
    )
    .await;
    refused(change(|command| command.wall_ms = Some(1)), "its limits").await;
    refused(
        change(|command| command.directory = approval::ByteString::new(*b"/").unwrap()),
        "its folder",
    )
    .await;
    let tool = ToolCall {
        server: Text::cut("s"),
        tool: Text::cut("t"),
        schema: Digest::of(b""),
        arguments: Text::cut("{}"),
    };
    refused(What::Tool(tool), "its kind").await;
    // The same bytes in another file, then other bytes in it.
    std::fs::remove_file(&script).unwrap();
    std::fs::write(&script, "echo approved\n").unwrap();
    std::fs::write(world.place("spare"), "").unwrap();
    let swapped = world.redeems(&requested.id, world.what(&["sh", path])).await;
    std::fs::write(&script, "echo something else\n").unwrap();
    refused(world.what(&["sh", path]), "the files that its arguments name").await;
    // A file system may give the number of a file that is gone to the next.
    if let Err((kind, why)) = swapped {
        assert_eq!(kind, Fault::Another, "{why}");
    }
    world.is_sound().await;
}

#[tokio::test]
async fn a_denial_says_why() {
    let (world, [alice]) = World::with(["alice"], 1).await;
    let mut listening = world.listens().await;
    let argv = ["sh", "-c", "echo never"];
    let requested = world.requests(&argv).await;
    alice.denies(&requested.id, "not on a friday").await;
    let woken = listening.hears().await;
    assert_eq!(
        (woken.state, woken.reason.as_deref()),
        (State::Denied, Some("not on a friday"))
    );
    let standing = world.learns(&requested.id).await;
    assert_eq!(
        (standing.state, standing.by.as_slice()),
        (State::Denied, ["alice".to_owned()].as_slice())
    );
    let (kind, why) = world.redeems(&requested.id, world.what(&argv)).await.unwrap_err();
    assert_eq!(kind, Fault::Refused);
    assert!(why.contains("not on a friday"), "{why}");
    world.is_sound().await;
}

#[tokio::test]
async fn a_denial_counts_until_it_is_redeemed() {
    let (world, [alice, bob]) = World::with(["alice", "bob"], 1).await;
    let argv = ["sh", "-c", "echo never"];
    let id = world.requests(&argv).await.id;
    alice.approves(&id).await;
    assert_eq!(world.learns(&id).await.state, State::Allowed);
    bob.denies(&id, "wait").await;
    alice.sees_the_end_of(&id).await;
    assert_eq!(
        world.redeems(&id, world.what(&argv)).await.unwrap_err().0,
        Fault::Refused
    );
    assert!(matches!(world.gate.copy().await.outcome(&id), Some(Ended::Denied(_))));
    world.is_sound().await;
}

#[tokio::test]
async fn what_nobody_came_for_expires() {
    let (world, [alice]) = World::with(["alice"], 1).await;
    let mut listening = world.listens().await;
    let argv = ["sh", "-c", "echo never"];
    let requested = world.requests(&argv).await;
    alice.approves(&requested.id).await;
    assert_eq!(listening.hears().await.state, State::Allowed);
    world.clock.passes(requested.expires - world.clock.wall());
    assert_eq!(listening.hears().await.state, State::Expired);
    let (kind, why) = world.redeems(&requested.id, world.what(&argv)).await.unwrap_err();
    assert_eq!(kind, Fault::Refused);
    assert!(why.contains("expired"), "{why}");
    world.is_sound().await;
}

#[tokio::test]
async fn everything_pending_outlives_the_gate() {
    let (world, [alice, bob]) = World::with(["alice", "bob"], 2).await;
    let scripts = ["one", "two", "three"].map(|line| world.tallying(line));
    let mut asked = Vec::new();
    for script in &scripts {
        asked.push(world.requests(&["sh", "-c", script]).await.id);
    }
    let [first, second, third] = asked[..] else {
        panic!("three")
    };
    alice.approves(&first).await;
    bob.approves(&first).await;
    assert_eq!(world.learns(&first).await.state, State::Allowed);
    alice.approves(&second).await;
    bob.sees_decisions(&second, 1).await;
    world.gate.crashes().await;
    bob.approves(&second).await;
    world.gate.starts().await.unwrap();
    let mut listening = world.listens().await;
    let mut allowed = [listening.hears().await, listening.hears().await].map(|woken| {
        assert_eq!(woken.state, State::Allowed);
        woken.id
    });
    allowed.sort();
    let mut expected = [first.to_string(), second.to_string()];
    expected.sort();
    assert_eq!(allowed, expected);
    assert_eq!(world.standing(&third).await.state, State::Pending);
    for (id, script) in [(first, &scripts[0]), (second, &scripts[1])] {
        assert!(
            world
                .redeems(&id, world.what(&["sh", "-c", script]))
                .await
                .unwrap()
                .ran()
        );
    }
    world.gate.restarts().await;
    assert_eq!(
        world
            .redeems(&first, world.what(&["sh", "-c", &scripts[0]]))
            .await
            .unwrap_err()
            .0,
        Fault::Used
    );
    assert_eq!(world.tally(), ["one", "two"]);
    world.is_sound().await;
}

#[tokio::test]
async fn what_a_command_reads_is_what_was_asked_also_after_a_restart() {
    let (world, [alice]) = World::with(["alice"], 1).await;
    let reads = |text: &str| -> Ask {
        let mut ask = world.wants(&["cat"]);
        if let What::Command(command) = &mut ask.what {
            command.stdin = Some(STANDARD.encode(text));
        }
        ask
    };
    let waiting = world.asks_for(reads("waiting")).await;
    let (id, later) = (waiting.id, world.requests_for(reads("later")).await);
    world.gate.restarts().await;
    let waiting = world.attaches(&id).await;
    alice.approves(&id).await;
    alice.approves(&later.id).await;
    assert_eq!(waiting.ends().await.stdout, b"waiting");
    world.learns(&later.id).await;
    assert_eq!(
        world.redeems(&later.id, reads("later").what).await.unwrap().stdout,
        b"later"
    );
    world.is_sound().await;
}

fn sends_mail(to: &str) -> What {
    What::Tool(ToolCall {
        server: Text::cut("mail"),
        tool: Text::cut("send"),
        schema: Digest::of(b"a schema"),
        arguments: Text::cut(&format!("{{\"to\":\"{to}\"}}")),
    })
}

#[tokio::test]
async fn a_tool_call_is_released_once_to_whoever_asked() {
    let (world, [alice]) = World::with(["alice"], 1).await;
    let id = world.requests_for(Ask::of(sends_mail("bob"))).await.id;
    alice.approves(&id).await;
    assert_eq!(world.learns(&id).await.state, State::Allowed);
    assert_eq!(
        world.redeems(&id, sends_mail("mallory")).await.unwrap_err().0,
        Fault::Another
    );
    let end = world.redeems(&id, sends_mail("bob")).await.unwrap();
    assert!(matches!(end.result, Ended::Released(_)));
    assert_eq!(end.approved_by, ["alice"]);
    assert_eq!(world.redeems(&id, sends_mail("bob")).await.unwrap_err().0, Fault::Used);
    // And in the waiting form.
    let asking = world.asks_for(Ask::of(sends_mail("carol"))).await;
    alice.approves(&asking.id).await;
    assert!(matches!(asking.ends().await.result, Ended::Released(_)));
    world.is_sound().await;
}

#[tokio::test]
async fn what_was_taken_back_leads_nowhere() {
    let (world, [alice]) = World::with(["alice"], 1).await;
    let argv = ["sh", "-c", "echo never"];
    let id = world.requests(&argv).await.id;
    alice.approves(&id).await;
    world.learns(&id).await;
    assert!(matches!(world.cancels(&id).await, Answer::Cancelled { .. }));
    assert_eq!(world.standing(&id).await.state, State::Withdrawn);
    assert_eq!(
        world.redeems(&id, world.what(&argv)).await.unwrap_err().0,
        Fault::Refused
    );
    match world.cancels(&Digest::of(b"nothing")).await {
        Answer::Error { kind, .. } => assert_eq!(kind, Fault::Unknown),
        other => panic!("cancelled: {other:?}"),
    }
    world.is_sound().await;
}

#[tokio::test]
async fn nobody_redeems_what_somebody_waits_for() {
    let (world, [alice]) = World::with(["alice"], 1).await;
    let script = world.tallying("once");
    let argv = ["sh", "-c", script.as_str()];
    let asking = world.asks(&argv).await;
    assert_eq!(
        world.redeems(&asking.id, world.what(&argv)).await.unwrap_err().0,
        Fault::Invalid
    );
    alice.approves(&asking.id).await;
    assert!(asking.ends().await.ran());
    assert_eq!(world.tally(), ["once"]);
}

#[tokio::test]
async fn waiting_has_an_end_of_its_own() {
    let (world, [_alice]) = World::with(["alice"], 1).await;
    let id = world.requests(&["true"]).await.id;
    assert_eq!(world.waits(&id, 1).await.state, State::Pending);
}
