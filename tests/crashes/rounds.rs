//! SIGKILL in rounds: relay, gate or admin dies at a random moment of a steady stream of approvals, comes back, and everything goes on by itself.
//! Fifteen rounds of each, 200 in CI, `COUNTERSIGN_CRASH_ROUNDS` for more.

use std::time::{Duration, Instant};

use countersign_tests::process::{World, until};

use crate::dice::Dice;
use crate::reckoning::{Reckoning, is_beginning, reckon};
use crate::stream::Stream;

/// How long after something happened the blow falls, at most.
const DELAY: Duration = Duration::from_millis(80);

/// Askers at a time.
const ASKERS: usize = 3;

/// Whoever tries again waits twice as long after each connection that was short. A relay that dies every second would soon be waited for half a minute;
/// after so many of its deaths the others are restarted in good order.
const RELAY_DEATHS: u64 = 3;

/// After so many rounds both transcripts are looked at while everything goes on; they are in any case at the end.
const LOOK: u64 = 10;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Victim {
    Relay,
    Gate,
    Admin,
}

impl Victim {
    fn crash(self, world: &mut World) {
        match self {
            Self::Relay => world.relay.crash(),
            Self::Gate => world.gate.crash(),
            Self::Admin => world.admin.crash(),
        }
    }

    fn begin(self, world: &mut World) {
        match self {
            Self::Relay => world.relay.begin(),
            Self::Gate => world.gate.begin(),
            Self::Admin => world.admin.watch("y"),
        }
    }
}

fn rounds() -> u64 {
    let asked = std::env::var("COUNTERSIGN_CRASH_ROUNDS")
        .ok()
        .map(|rounds| rounds.parse().expect("COUNTERSIGN_CRASH_ROUNDS is a number"));
    asked.unwrap_or(if std::env::var_os("CI").is_some() { 200 } else { 15 })
}

fn survive(victim: Victim) -> Reckoning {
    let mut dice = Dice::of(&format!("{victim:?}"));
    let mut world = World::new();
    world.admin.watch("y");
    let marks = world.folder().join("marks");
    let stream = Stream::begin(&world.gate.home, &marks, &world.bell, ASKERS);
    until("the first command ran", || stream.has_run_since(0));
    let begun = Instant::now();
    let rounds = rounds();
    for round in 1..=rounds {
        let seen = world.bell.count();
        world.bell.wait_beyond(seen + dice.below(6), Duration::from_secs(1));
        std::thread::sleep(dice.within(DELAY));
        victim.crash(&mut world);
        // Sometimes it dies again while it starts.
        if dice.below(3) == 0 {
            victim.begin(&mut world);
            std::thread::sleep(dice.within(DELAY));
            victim.crash(&mut world);
        }
        victim.begin(&mut world);
        let since = stream.next();
        until("a command ran that was asked for after the crash", || {
            stream.has_run_since(since)
        });
        if round % LOOK == 0 {
            // In this order: the copy may be behind, never ahead.
            let (copy, gate) = (world.admin.export(), world.gate.export());
            assert!(
                is_beginning(&copy, &gate),
                "round {round}: the admin's copy isn't the beginning of the gate's transcript"
            );
        }
        if victim == Victim::Relay && round % RELAY_DEATHS == 0 {
            assert!(world.gate.stop().success() && world.admin.stop().success());
            world.gate.start();
            world.admin.watch("y");
        }
    }
    let took = begun.elapsed();
    let told = stream.finish();
    let unheard = told.iter().filter(|told| !told.pending).count();
    world.settle(unheard as u64);
    assert!(world.admin.stop().success() && world.gate.stop().success() && world.relay.stop().success());
    let reckoning = reckon(&told, &marks, &world.gate.export(), &world.admin.export());
    println!(
        "{victim:?}: {rounds} rounds in {took:?}, {} asked, {:?}, {} unheard",
        told.len(),
        reckoning.summary.requests,
        reckoning.unheard
    );
    reckoning
}

/// Abuse case H01.
#[test]
fn a_relay_that_dies_at_any_moment_loses_nothing() {
    survive(Victim::Relay);
}

#[test]
fn a_gate_that_dies_at_any_moment_runs_nothing_twice() {
    survive(Victim::Gate);
}

/// Abuse cases A09 and H01.
#[test]
fn an_admin_who_dies_at_any_moment_decides_all_the_same() {
    let reckoning = survive(Victim::Admin);
    assert_eq!(reckoning.summary.requests.unknown, 0, "the gate lived all the time");
}
