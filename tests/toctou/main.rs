//! Between the look and the act: somebody swaps what was approved, as fast as they can, while it waits and while it starts. Whatever
//! runs must be what was approved. Abuse cases D14 to D16.
//!
//! `COUNTERSIGN_TOCTOU` says how many attempts; 20,000 where `CI` is set, else a few hundred.

#[path = "approved.rs"]
mod approved;
#[path = "ground.rs"]
mod ground;

use std::future::pending;
use std::sync::atomic::{AtomicUsize, Ordering};

use approval::outcome::Ended;
use countersign::runner::{Chunk, Confinement, Launcher, bind, run};
use tokio::sync::mpsc;

use approved::Team;
use ground::{BOUND, Ground, OPEN, Prey};

/// What became of the attempts on one prey.
#[derive(Debug, Default)]
struct Score {
    /// Swapped already while it was being bound.
    not_bound: usize,
    /// Bound, and refused at the last look.
    refused: usize,
    /// Ran, and was what was approved.
    ran: usize,
    /// Ran a mixture of both versions, which had been approved.
    mixed: usize,
    /// Something else ran.
    slipped: usize,
}

fn attempts() -> usize {
    let asked = std::env::var("COUNTERSIGN_TOCTOU")
        .ok()
        .and_then(|number| number.parse().ok());
    asked.unwrap_or(if std::env::var_os("CI").is_some() { 20_000 } else { 600 })
}

async fn attempt(team: &Team, launcher: &Launcher, ground: &Ground, score: &mut Score) {
    let Ok((command, held)) = bind(&ground.asking()) else {
        score.not_bound += 1;
        return;
    };
    let expected = ground.expected(&command);
    let (permit, request) = team.permit(command);
    let (sender, mut receiver) = mpsc::channel(4);
    let collect = async {
        let mut text = Vec::new();
        while let Some(chunk) = receiver.recv().await {
            match chunk {
                Chunk::Stdout(bytes) => text.extend_from_slice(&bytes),
                Chunk::Stderr(_) => {}
            }
        }
        String::from_utf8(text).unwrap()
    };
    let (ended, text) = tokio::join!(run(launcher, permit, &request, held, sender, pending()), collect);
    match (ended, expected) {
        (Ended::Failed(_), _) => {
            assert_eq!(text, "");
            score.refused += 1;
        }
        (Ended::Ran(_), Some(expected)) if text == expected => score.ran += 1,
        (Ended::Ran(_), None) => score.mixed += 1,
        (Ended::Ran(_), Some(expected)) => {
            println!("{:?}: approved {expected:?}, ran {text:?}", ground.prey);
            score.slipped += 1;
        }
        (ended, _) => panic!("{ended:?}"),
    }
}

/// As many attempts on each prey, two at a time.
fn race(preys: &[Prey], attempts: usize) -> Vec<(Prey, Score)> {
    let home = tempfile::tempdir().unwrap();
    let bare = Launcher::at(countersign_tests::program::program("countersign"));
    let hiding = bare.clone().hiding(home.path());
    let confinement = Confinement::probe(&hiding);
    println!("{confinement:?}");
    let launchers = [bare, hiding.confined(confinement)];
    let next = AtomicUsize::new(0);
    let each = attempts.div_ceil(preys.len());
    let work = || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let team = Team::new();
        let mut scores = Vec::new();
        while let Some(prey) = preys.get(next.fetch_add(1, Ordering::Relaxed)) {
            let ground = Ground::new(*prey);
            let mut score = Score::default();
            for number in 0..each {
                runtime.block_on(attempt(&team, &launchers[number % 2], &ground, &mut score));
            }
            println!("{prey:?}: {score:?}");
            scores.push((*prey, score));
        }
        scores
    };
    std::thread::scope(|scope| {
        let workers = [scope.spawn(work), scope.spawn(work)];
        workers.into_iter().flat_map(|worker| worker.join().unwrap()).collect()
    })
}

#[test]
fn nothing_runs_but_what_was_approved() {
    let scores = race(BOUND, attempts());
    for (prey, score) in &scores {
        assert_eq!(score.slipped, 0, "{prey:?}");
        assert!(score.ran > 0, "{prey:?} never ran: that proves nothing");
        assert!(
            score.refused + score.not_bound > 0,
            "{prey:?} was never swapped in time: that proves nothing"
        );
    }
    assert_eq!(scores.len(), BOUND.len());
}

/// Not asserted: how wide the two doors are that remain open, for the documentation.
#[test]
fn the_moments_that_remain_are_measured() {
    // Of few on a busy machine, each may come too late.
    for (prey, score) in race(OPEN, (attempts() / 10).max(400)) {
        let ended = score.ran + score.slipped;
        println!(
            "{prey:?}: {} of {ended} runs got something else at the last moment",
            score.slipped
        );
        assert!(ended > 0);
    }
}
