//! Ends that nobody planned: restarts, crashes, an old copy of the state, a disk that takes nothing more.

use approval::change::Change;
use approval::outcome::Ended;
use approval::roster::Quorum;
use countersign::local::Fault;
use countersign_tests::world::{Does, Said, World};
use sqlx::Connection as _;
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
use wire::frame::ClientFrame;

#[tokio::test]
async fn a_gate_that_restarts_still_knows_what_it_asked() {
    let (world, [alice]) = World::with(["alice"], 1).await;
    let mut asking = world.asks_to_tally("once").await;
    let id = asking.id;
    alice.sees(&id).await;
    world.gate.stops().await;
    asking.is_hung_up_on().await;
    world.gate.starts().await.unwrap();
    let again = world.attaches(&id).await;
    assert_eq!((again.id, again.expires, again.need), (id, asking.expires, asking.need));
    alice.approves(&id).await;
    assert!(again.ends().await.ran());
    assert_eq!(world.tally(), ["once"]);
    world.is_sound().await;
}

#[tokio::test]
async fn a_decision_sent_while_the_gate_is_down_arrives_when_it_is_back() {
    let (world, [alice]) = World::with(["alice"], 1).await;
    let asking = world.asks_to_tally("once").await;
    let id = asking.id;
    alice.sees(&id).await;
    world.gate.crashes().await;
    alice.approves(&id).await;
    world.gate.starts().await.unwrap();
    alice.sees_decisions(&id, 1).await;
    assert!(
        world.tally().is_empty(),
        "approved, and nobody is there to take the output"
    );
    let again = world.attaches(&id).await;
    assert!(again.ends().await.ran());
    assert_eq!(world.tally(), ["once"]);
    world.is_sound().await;
}

#[tokio::test]
async fn a_member_who_restarts_goes_on_where_it_was() {
    let (world, [alice, bob]) = World::with(["alice", "bob"], 2).await;
    let mut asking = world.asks_to_tally("once").await;
    let id = asking.id;
    alice.approves(&id).await;
    asking.has(1).await;
    bob.sees(&id).await;
    bob.closes().await;
    alice.closes().await;
    let (bob, alice) = (bob.comes_back().await, alice.comes_back().await);
    bob.approves(&id).await;
    assert!(asking.ends().await.ran());
    alice
        .until("the end", move |member, _| member.party.replay.open().count() == 0)
        .await;
    world.is_sound().await;
}

/// Abuse case A09.
#[tokio::test]
async fn a_member_whose_power_is_cut_after_signing_says_it_again() {
    let (world, [alice]) = World::with(["alice"], 1).await;
    let asking = world.asks_to_tally("once").await;
    let of = *alice.mailbox.as_bytes();
    alice.sees(&asking.id).await;
    world.hand.rule(move |passing| {
        if passing.of == of && passing.put().is_some() {
            Does::Drop
        } else {
            Does::Pass
        }
    });
    alice.approves(&asking.id).await;
    let alice = alice.comes_back().await;
    world.hand.lets_go();
    assert!(asking.ends().await.ran());
    alice
        .until("the end", |member, _| member.party.replay.open().count() == 0)
        .await;
    assert_eq!(world.tally(), ["once"]);
    world.is_sound().await;
}

#[tokio::test]
async fn two_gates_dont_work_on_one_home() {
    let (world, [alice]) = World::with(["alice"], 1).await;
    let why = world.gate.starts().await.unwrap_err();
    assert!(why.contains("already running"), "{why}");
    let asking = world.asks_to_tally("once").await;
    alice.approves(&asking.id).await;
    assert!(asking.ends().await.ran());
}

#[tokio::test]
async fn a_crash_between_permit_and_outcome_is_unknown_and_never_run_again() {
    let (world, [alice]) = World::with(["alice"], 1).await;
    let mut asking = world
        .asks(&["sh", "-c", &format!("{}; sleep 300", world.tallying("once"))])
        .await;
    let id = asking.id;
    alice.approves(&id).await;
    asking.has_written().await;
    world.gate.crashes().await;
    assert_eq!(world.gate.copy().await.outcome(&id), None);
    world.gate.starts().await.unwrap();
    alice.sees_the_end_of(&id).await;
    assert!(matches!(world.gate.copy().await.outcome(&id), Some(Ended::Unknown(_))));
    // Once more, and with the approval said again: nothing comes of it.
    world.gate.restarts().await;
    let late = alice.signs(&id, approval::decision::Answer::Approve).await;
    alice.sends(late.signed().clone()).await;
    alice.is_refused(&late.digest()).await;
    assert_eq!(world.tally(), ["once"]);
    assert_eq!(world.is_sound().await.requests.unknown, 1);
}

/// What SQLite is told so that it can't write a permit down.
async fn isnt_run(obstacle: &'static str) {
    let (world, [alice]) = World::with(["alice"], 1).await;
    let options = SqliteConnectOptions::new().filename(world.gate.home.join("state.db"));
    let mut disk = SqliteConnection::connect_with(&options).await.unwrap();
    sqlx::raw_sql(obstacle).execute(&mut disk).await.unwrap();

    let (blocked, other) = (world.asks_to_tally("once").await, world.asks_to_tally("never").await);
    let id = blocked.id;
    alice.approves(&id).await;
    // The mailbox is in order: when this one is over, the gate has tried the one before.
    alice.denies(&other.id, "").await;
    assert!(matches!(other.ends().await.result, Ended::Denied(_)));
    assert!(world.tally().is_empty(), "it ran without its permit on the disk");
    assert_eq!(world.gate.copy().await.permits(&id), 0);

    sqlx::raw_sql("DROP TRIGGER obstacle").execute(&mut disk).await.unwrap();
    assert!(blocked.ends().await.ran());
    assert_eq!(world.tally(), ["once"]);
    world.is_sound().await;
}

#[tokio::test]
async fn what_cant_be_written_isnt_run() {
    isnt_run("CREATE TRIGGER obstacle BEFORE INSERT ON entry WHEN NEW.kind = 'permit' BEGIN SELECT RAISE(ABORT, 'no room'); END")
        .await;
}

#[tokio::test]
async fn what_is_written_and_cant_be_committed_isnt_run() {
    // A broken reference that SQLite notices only at the commit, when everything else has gone well.
    isnt_run(
        "CREATE TABLE parent (id INTEGER PRIMARY KEY);
         CREATE TABLE doubt (id INTEGER REFERENCES parent (id) DEFERRABLE INITIALLY DEFERRED);
         CREATE TRIGGER obstacle AFTER INSERT ON entry WHEN NEW.kind = 'permit' BEGIN INSERT INTO doubt VALUES (1); END",
    )
    .await;
}

#[tokio::test]
async fn an_old_copy_of_the_state_beside_its_mark_signs_nothing() {
    let (world, [alice]) = World::with(["alice"], 1).await;
    let backup = world.place("backup");
    world.gate.stops().await;
    world.gate.is_copied_to(&backup);
    world.gate.starts().await.unwrap();
    let asking = world.asks_to_tally("once").await;
    alice.approves(&asking.id).await;
    assert!(asking.ends().await.ran());
    world.gate.stops().await;

    // The database goes back, the mark beside it stays.
    std::fs::copy(world.gate.home.join("head"), backup.join("head")).unwrap();
    world.gate.is_restored_from(&backup);
    world.gate.starts().await.unwrap();
    assert!(world.status().await.halted.unwrap().contains("old copy"));
    let (kind, why) = world.is_turned_away(&["sh", "-c", &world.tallying("never")]).await;
    assert_eq!(kind, Fault::Broken);
    assert!(why.contains("doesn't sign"), "{why}");
    assert_eq!(world.tally(), ["once"]);
}

#[tokio::test]
async fn an_old_copy_of_everything_is_stopped_by_the_first_admin_who_knows_better() {
    let (world, [alice]) = World::with(["alice"], 1).await;
    let backup = world.place("backup");
    world.gate.stops().await;
    world.gate.is_copied_to(&backup);
    world.gate.starts().await.unwrap();
    let asking = world.asks_to_tally("once").await;
    let id = asking.id;
    alice.approves(&id).await;
    assert!(asking.ends().await.ran());
    alice.sees_the_end_of(&id).await;
    world.gate.stops().await;

    world.gate.is_restored_from(&backup);
    world.gate.starts().await.unwrap();
    let why = world.halts().await;
    assert!(why.contains("our signature over"), "{why}");
    assert_eq!(world.is_turned_away(&["true"]).await.0, Fault::Broken);
    // It stays so.
    world.gate.restarts().await;
    assert!(world.status().await.halted.is_some());
    assert_eq!(world.tally(), ["once"]);
}

#[tokio::test]
async fn an_old_copy_from_before_a_change_of_the_group_hears_nobody_who_is_ahead_of_it() {
    let (world, [alice, bob]) = World::with(["alice", "bob"], 1).await;
    let backup = world.place("backup");
    world.gate.stops().await;
    world.gate.is_copied_to(&backup);
    world.gate.starts().await.unwrap();
    let proposal = alice.proposes(Change::Quorum(Quorum { command: 2, roster: 1 })).await;
    let change = alice.has_its_request(proposal).await;
    alice.approves(&change).await;
    alice.sees_the_end_of(&change).await;
    bob.sees_the_end_of(&change).await;
    world.gate.stops().await;

    // The old copy would need one voice where two were agreed upon.
    world.gate.is_restored_from(&backup);
    world.gate.starts().await.unwrap();
    let asking = world.asks_to_tally("never").await;
    assert_eq!(asking.need, 1);
    let gate = *world.gate.mailbox.as_bytes();
    for device in [&alice, &bob] {
        let decision = device.signs(&asking.id, approval::decision::Answer::Approve).await;
        device.sends(decision.signed().clone()).await;
    }
    world
        .hand
        .touches(move |passing| passing.of == gate && matches!(passing.said, Said::Up(ClientFrame::Ack { .. })));
    world.hand.has_touched(4).await;
    world.clock.passes(24 * 60 * 60 * 1000);
    // An acknowledgement from before the change may still have been on its way: then the old copy is found out. Else it hears nobody.
    if let Some(end) = asking.ends_or_hears_that_the_gate_stopped().await {
        assert!(matches!(end.result, Ended::Expired(_)));
    }
    assert!(world.tally().is_empty());
}
