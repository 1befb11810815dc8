//! How a request ends: in time, too late, given up, beside twenty others (PROTOCOL.md 8.6, 9).

use approval::outcome::{Ended, Stopped};
use countersign::local::Fault;
use countersign_tests::world::{World, command};

use crate::soak::Dice;

const MINUTE: u64 = 60_000;
const HOUR: u64 = 60 * MINUTE;

#[tokio::test]
async fn a_millisecond_before_its_expiry_a_request_lives() {
    let (world, [alice]) = World::with(["alice"], 1).await;
    let mut ask = command(&["sh", "-c", &world.tallying("once")], &world.place(""));
    ask.expires_ms = Some(MINUTE);
    let asking = world.asks_for(ask).await;
    world.clock.passes(MINUTE - 1);
    assert_eq!(world.status().await.pending, 1);
    alice.approves(&asking.id).await;
    assert!(asking.ends().await.ran());
    world.is_sound().await;
}

#[tokio::test]
async fn at_its_expiry_a_request_is_over() {
    let (world, [alice]) = World::with(["alice"], 1).await;
    let mut ask = command(&["sh", "-c", &world.tallying("never")], &world.place(""));
    ask.expires_ms = Some(MINUTE);
    let asking = world.asks_for(ask).await;
    let id = asking.id;
    alice.sees(&id).await;
    let late = alice.signs(&id, approval::decision::Answer::Approve).await;
    world.clock.passes(MINUTE);
    alice.sends(late.signed().clone()).await;
    assert!(matches!(asking.ends().await.result, Ended::Expired(_)));
    alice.sees_the_end_of(&id).await;
    assert!(world.tally().is_empty());
    assert_eq!(world.gate.copy().await.permits(&id), 0);
    world.is_sound().await;
}

#[tokio::test]
async fn a_clock_set_back_an_hour_revives_nothing_and_stops_nothing() {
    let (world, [alice]) = World::with(["alice"], 1).await;
    let mut ask = command(&["sh", "-c", &world.tallying("never")], &world.place(""));
    ask.expires_ms = Some(MINUTE);
    let first = world.asks_for(ask.clone()).await;
    let second = world.asks_for(ask).await;
    let noon = world.clock.wall();
    world.clock.is_set_to(noon - HOUR);
    assert!(world.status().await.clock_ahead_ms >= HOUR);
    // Time since boot goes on, and with it the request's life.
    world.clock.passes(MINUTE);
    assert!(matches!(first.ends().await.result, Ended::Expired(_)));
    assert!(matches!(second.ends().await.result, Ended::Expired(_)));
    // A restart doesn't forget how late it was.
    world.gate.restarts().await;
    assert!(world.status().await.clock_ahead_ms >= HOUR);
    let third = world.asks_to_tally("once").await;
    assert!(third.expires > noon + MINUTE);
    alice.approves(&third.id).await;
    assert!(third.ends().await.ran());
    assert_eq!(world.tally(), ["once"]);
    world.is_sound().await;
}

#[tokio::test]
async fn a_clock_set_forward_ends_what_waits() {
    let (world, [_alice]) = World::with(["alice"], 1).await;
    let asking = world.asks_to_tally("never").await;
    world.clock.is_set_to(world.clock.wall() + HOUR);
    assert!(matches!(asking.ends().await.result, Ended::Expired(_)));
    world.is_sound().await;
}

#[tokio::test]
async fn an_asker_who_leaves_withdraws() {
    let (world, [alice]) = World::with(["alice"], 1).await;
    let asking = world.asks_to_tally("never").await;
    let id = asking.id;
    alice.sees(&id).await;
    let late = alice.signs(&id, approval::decision::Answer::Approve).await;
    asking.leaves();
    alice.sees_the_end_of(&id).await;
    alice.sends(late.signed().clone()).await;
    assert_eq!(alice.is_refused(&late.digest()).await, "the request is no longer open");
    assert!(matches!(
        world.gate.copy().await.outcome(&id),
        Some(Ended::Withdrawn(_))
    ));
    assert!(world.tally().is_empty());
    world.is_sound().await;
}

#[tokio::test]
async fn an_asker_who_leaves_takes_the_running_command_along() {
    let (world, [alice]) = World::with(["alice"], 1).await;
    let script = format!("{}; sleep 300; {}", world.tallying("begun"), world.tallying("ended"));
    let mut asking = world.asks(&["sh", "-c", &script]).await;
    let id = asking.id;
    alice.approves(&id).await;
    asking.has_written().await;
    asking.leaves();
    alice.sees_the_end_of(&id).await;
    let outcome = world.gate.copy().await.outcome(&id);
    assert!(
        matches!(&outcome, Some(Ended::Ran(ran)) if ran.stopped == Some(Stopped::AskerLeft)),
        "{outcome:?}"
    );
    assert_eq!(world.tally(), ["begun"]);
    world.is_sound().await;
}

#[tokio::test]
async fn an_admin_who_was_away_learns_how_it_ended() {
    let (world, [alice, bob]) = World::with(["alice", "bob"], 1).await;
    bob.closes().await;
    let asking = world.asks_to_tally("once").await;
    let id = asking.id;
    alice.approves(&id).await;
    assert!(asking.ends().await.ran());
    alice.sees_the_end_of(&id).await;
    let bob = bob.comes_back().await;
    bob.sees_the_end_of(&id).await;
    assert_eq!(bob.copy().await.export(), world.gate.copy().await.export());
    world.is_sound().await;
}

#[tokio::test]
async fn one_more_than_agents_may_have_open_is_turned_away() {
    let (world, [alice]) = World::with(["alice"], 1).await;
    let mut asked = Vec::new();
    for number in 0..countersign::gate::Attention::default().all {
        asked.push(world.asks_to_tally(&number.to_string()).await);
    }
    let (kind, why) = world.is_turned_away(&["sh", "-c", &world.tallying("never")]).await;
    assert_eq!(kind, Fault::TooMuch);
    assert!(why.contains("too many"), "{why}");
    let last = asked.pop().unwrap();
    alice.denies(&last.id, "").await;
    last.ends().await;
    let next = world.asks_to_tally("next").await;
    alice.approves(&next.id).await;
    assert!(next.ends().await.ran());
    assert_eq!(world.tally(), ["next"]);
    world.is_sound().await;
}

#[tokio::test]
async fn twenty_at_once_are_never_mixed_up() {
    const MANY: usize = 20;
    let mut dice = Dice::thrown("twenty");
    let (world, [alice, bob]) = World::with(["alice", "bob"], 1).await;
    let mut asked = Vec::new();
    for number in 0..MANY {
        asked.push((number, world.asks_to_tally(&format!("line-{number}")).await));
    }
    dice.shuffle(&mut asked);
    let mut approved = Vec::new();
    for (number, asking) in &asked {
        let who = if dice.one_in(2) { &alice } else { &bob };
        if dice.one_in(2) {
            who.denies(&asking.id, &format!("no to {number}")).await;
        } else {
            who.approves(&asking.id).await;
            approved.push(format!("line-{number}"));
        }
    }
    dice.shuffle(&mut asked);
    for (number, asking) in asked {
        let end = asking.ends().await;
        if approved.contains(&format!("line-{number}")) {
            assert!(end.ran(), "{number}: {end:?}");
            assert_eq!(end.stdout, format!("did line-{number}\n").into_bytes());
        } else {
            assert!(matches!(end.result, Ended::Denied(_)), "{number}: {end:?}");
            assert_eq!(end.reason, Some(format!("no to {number}")));
        }
    }
    let mut tally = world.tally();
    tally.sort();
    approved.sort();
    assert_eq!(tally, approved);
    assert_eq!(world.is_sound().await.requests.ran, approved.len() as u64);
}
