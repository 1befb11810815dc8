//! Random histories of a gate against a small model that was written on its own: whenever the model says that something isn't
//! authorised, no permit for it gets into the transcript on any ground, and whenever it says that it is, `decide` opens on the same
//! ground. A failure prints its seed; `COUNTERSIGN_HISTORY_SEED` repeats that history alone.

mod dice;
mod life;
mod model;
mod policies;
mod world;

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use approval::decide::Verdict;
use approval::replay::{Checked, Replay};

use life::{Beginning, Life, Tally};
use model::{ASKERS, Answer, Asked, Demands, State, THINGS};
use policies::BEGIN;
use world::{People, at};

/// Seeds of different runs are the same on purpose: what passed here passes there.
const FIRST_SEED: u64 = 1;

#[test]
fn no_history_holds_a_permit_that_the_model_does_not_know() {
    if let Ok(seed) = std::env::var("COUNTERSIGN_HISTORY_SEED") {
        let people = People::new();
        let tally = Life::new(&people, &Beginning::all(&people), seed.parse().expect("a number"))
            .aloud()
            .live();
        println!("{tally:#?}");
        return;
    }
    let many = crate::how_many("COUNTERSIGN_HISTORIES", 50_000, 2_000);
    let (next, began) = (AtomicU64::new(0), Instant::now());
    let workers = std::thread::available_parallelism().map_or(1, usize::from);
    let tallies: Vec<Tally> = std::thread::scope(|scope| {
        let work = || work(&next, many);
        let threads: Vec<_> = (0..workers).map(|_| scope.spawn(work)).collect();
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap_or_else(|panic| resume_unwind(panic)))
            .collect()
    });
    let mut all = Tally::new();
    for (what, count) in tallies.into_iter().flatten() {
        *all.entry(what).or_default() += count;
    }
    println!(
        "{many} histories in {:.1} s, 0 unauthorised permits: {all:?}",
        began.elapsed().as_secs_f64()
    );
    for what in [
        "open by decisions",
        "open by a grant",
        "open by a rule",
        "open by the mode",
        "open unenrolled",
        "waiting",
        "denied",
        "forbidden",
        "expired",
        "refused",
        "grants",
        "revocations",
        "changes",
        "crashes",
        "enrolments",
        "forged permits refused",
    ] {
        let count = all.get(what).copied().unwrap_or_default();
        assert!(count >= many / 200, "hardly ever: {what} ({count})");
    }
}

fn work(next: &AtomicU64, many: u64) -> Tally {
    let people = People::new();
    let beginnings = Beginning::all(&people);
    let mut all = Tally::new();
    loop {
        let number = next.fetch_add(1, Ordering::Relaxed);
        if number >= many {
            return all;
        }
        let seed = FIRST_SEED + number;
        let lived = catch_unwind(AssertUnwindSafe(|| Life::new(&people, &beginnings, seed).live()));
        let tally = lived.unwrap_or_else(|panic| {
            eprintln!("repeat it: COUNTERSIGN_HISTORY_SEED={seed}");
            next.store(many, Ordering::Relaxed);
            resume_unwind(panic)
        });
        for (what, count) in tally {
            *all.entry(what).or_default() += count;
        }
    }
}

/// A transcript whose one request may be permitted now, and so many different permits for it, each of them checked: what as many
/// gates would have in their hands that know nothing of each other.
pub(crate) fn permits_of_one_request(contenders: u64) -> (Replay, Vec<Checked>) {
    let people = People::new();
    let mut replay = Replay::new(Some(people.gate.party()));
    let genesis = people.genesis(false);
    replay.next(genesis.signed().as_bytes()).unwrap();
    let roster = people.enrolled(&genesis, 1, None, BEGIN);
    replay.next(roster.signed().as_bytes()).unwrap();
    let asked = Asked {
        thing: THINGS[0],
        asker: ASKERS[0],
        demands: Demands {
            risk: None,
            need: 1,
            veto: true,
            four_eyes: false,
            number: false,
        },
        index: replay.size(),
        expires: BEGIN + 3_600_000,
        state: State::Open,
    };
    let request = people.say(world::request(&people, &asked, &roster, 1, BEGIN));
    replay.next(request.signed().as_bytes()).unwrap();
    let answer = Answer {
        about: 0,
        device: 0,
        approves: true,
        right_number: true,
        grants: None,
        ours: true,
        seen: replay.size(),
    };
    let checkpoint = people.checkpoint(replay.size(), replay.root());
    let decision = people.decision(&answer, &request, &checkpoint);
    replay.next(decision.signed().as_bytes()).unwrap();
    let permit = |time: u64| {
        let Some(Verdict::Open(leave)) = replay.decide(&request.digest(), at(time)) else {
            panic!("a request that isn't open");
        };
        let permit = people.say(leave.statement(Vec::new(), at(time)));
        replay.check(permit.signed().as_bytes()).unwrap()
    };
    let permits = (0..contenders).map(|number| permit(BEGIN + number)).collect();
    (replay, permits)
}
