//! Many hands at the same leave: exactly one takes it. What consumes leave is the permit's entry in the gate's transcript, and three
//! things stand between it and a second one, each of them raced here by itself, without the other two:
//!
//! * the state of the transcript: threads admit different permits for one request to one `Replay`, each checked beforehand;
//! * the store: tasks write different permits to one position through the gate's own transactions, on one connection as in one
//!   process, and on two as two processes that had got past the lock;
//! * the gate's lock: processes take it around each consumption (a real gate holds it as long as it lives).
//!
//! Not here: a gate killed in the middle (`crashes`), and a second `countersign gate` on one home, which is told so (`terminal`).

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Barrier, Mutex};
use std::time::Instant;

use approval::Digest;
use approval::replay::{Checked, FindingKind, Replay};
use countersign::home::Home;
use countersign::store::{Store, StoreError};
use tempfile::TempDir;

use crate::histories::permits_of_one_request;

/// Whoever reaches for one permit at once.
const CONTENDERS: usize = 4;

fn races() -> u64 {
    crate::how_many("COUNTERSIGN_RACES", 100_000, 2_000)
}

/// In memory where there is such a folder: what is raced isn't the disk.
fn folder() -> TempDir {
    let memory = Path::new("/dev/shm");
    let made = if memory.is_dir() {
        tempfile::tempdir_in(memory)
    } else {
        tempfile::tempdir()
    };
    made.unwrap()
}

#[test]
fn d02_one_of_many_threads_takes_the_leave() {
    let (replay, permits) = permits_of_one_request(CONTENDERS as u64);
    let (races, began) = (races(), Instant::now());
    let shared = Mutex::new(replay.clone());
    let (start, end) = (Barrier::new(CONTENDERS + 1), Barrier::new(CONTENDERS + 1));
    let wins: Vec<AtomicU64> = (0..CONTENDERS).map(|_| AtomicU64::new(0)).collect();
    let (stale, mut wrong) = (AtomicU64::new(0), None);
    std::thread::scope(|scope| {
        for (permit, won) in permits.iter().zip(&wins) {
            let (shared, start, end, stale) = (&shared, &start, &end, &stale);
            scope.spawn(move || {
                for _ in 0..races {
                    start.wait();
                    let permit = permit.clone();
                    match shared.lock().unwrap().admit(permit) {
                        Ok(_) => won.fetch_add(1, Ordering::Relaxed),
                        Err(finding) => {
                            stale.fetch_add(u64::from(finding.kind == FindingKind::Stale), Ordering::Relaxed)
                        }
                    };
                    end.wait();
                }
            });
        }
        // Whoever panicked in between would leave the others waiting: what went wrong is told at the end.
        for race in 1..=races {
            *shared.lock().unwrap() = replay.clone();
            start.wait();
            end.wait();
            let taken: u64 = wins.iter().map(|won| won.load(Ordering::Relaxed)).sum();
            let size = shared.lock().unwrap().size();
            if (taken, size) != (race, replay.size() + 1) {
                wrong = wrong.or(Some((race, taken, size)));
            }
        }
    });
    println!(
        "{races} races of {CONTENDERS} threads for a transcript in {:.1} s, won {wins:?}",
        began.elapsed().as_secs_f64()
    );
    assert_eq!(wrong, None, "one permit in each race (race, permits so far, size)");
    assert_eq!(
        stale.into_inner(),
        races * (CONTENDERS as u64 - 1),
        "and all others are told so"
    );
}

/// Whether this contender's permit got to this position of the transcript.
async fn consume(store: &Store, position: u64, race: u64, permit: &Checked) -> bool {
    let leaf = permit.entry().statement().signed().as_bytes();
    // Each race is for another request: its permits have other digests.
    let digest = Digest::of(&[&race.to_be_bytes(), leaf].concat());
    let mut tx = store.begin().await.unwrap();
    match tx.add_entry(position, &digest, "permit", leaf).await {
        Ok(()) => {
            tx.commit().await.unwrap();
            true
        }
        Err(StoreError::Sql(error)) => {
            let taken = error
                .as_database_error()
                .is_some_and(|error| error.is_unique_violation());
            assert!(taken, "refused for another reason: {error}");
            false
        }
        Err(error) => panic!("{error}"),
    }
}

#[test]
fn d02_one_of_many_transactions_takes_the_place_in_the_store() {
    let (_, permits) = permits_of_one_request(2);
    let (races, began, folder) = (races(), Instant::now(), folder());
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    let wins = runtime.block_on(async {
        let path = folder.path().join("store.db");
        Store::create(&path).await.unwrap().close().await;
        let store = Store::open(&path).await.unwrap();
        let other = Store::open(&path).await.unwrap();
        let permits: Arc<[Checked]> = permits.into();
        let mut wins = [0u64; 2];
        for race in 0..races {
            // A connection of its own waits for the other's lock by sleeping: those races are few.
            let stores = [
                store.clone(),
                if race % 100 == 0 { other.clone() } else { store.clone() },
            ];
            let gate = Arc::new(tokio::sync::Barrier::new(2));
            let contend = |number: usize| {
                let (store, gate, permits) = (stores[number].clone(), gate.clone(), permits.clone());
                tokio::spawn(async move {
                    gate.wait().await;
                    consume(&store, race, race, &permits[number]).await
                })
            };
            let (one, two) = tokio::join!(contend(0), contend(1));
            let won = [one.unwrap(), two.unwrap()];
            assert_ne!(won[0], won[1], "race {race}: one of the two");
            let winner = usize::from(won[1]);
            wins[winner] += 1;
            let mut tx = store.begin().await.unwrap();
            if race % 50 == 0 {
                let stored = tx.entries(race, 2).await.unwrap();
                assert_eq!(stored.len(), 1);
                assert_eq!(
                    stored[0].as_bytes(),
                    permits[winner].entry().statement().signed().as_bytes()
                );
            }
            assert_eq!(tx.size().await.unwrap(), race + 1);
        }
        store.close().await;
        other.close().await;
        wins
    });
    println!(
        "{races} races of 2 transactions for a place in the store in {:.1} s, won {wins:?}",
        began.elapsed().as_secs_f64()
    );
    assert!(
        races < 1000 || wins.iter().all(|won| *won > 0),
        "no race at all: {wins:?}"
    );
}

/// Where the processes meet, and how often; set for those that this test starts.
const MEETING: &str = "COUNTERSIGN_RACE_FOLDER";
const TURNS: &str = "COUNTERSIGN_RACE_TURNS";

/// A process that this test started; it doesn't outlive it.
struct Contender(Child);

impl Drop for Contender {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Contender {
    fn start(folder: &Path, turns: u64) -> Self {
        let itself = std::env::current_exe().unwrap();
        let mut command = Command::new(itself);
        command.args(["--exact", "races::contender", "--nocapture"]);
        command
            .env(MEETING, folder)
            .env(TURNS, turns.to_string())
            .stdout(Stdio::piped());
        Self(command.spawn().unwrap())
    }

    /// What it said: turns taken, and how often the lock was the other's.
    fn end(mut self) -> (u64, u64) {
        let mut said = String::new();
        std::io::Read::read_to_string(&mut self.0.stdout.take().unwrap(), &mut said).unwrap();
        assert!(self.0.wait().unwrap().success(), "{said}");
        let line = said
            .lines()
            .find_map(|line| line.split_once("took ").map(|(_, rest)| rest.to_owned()));
        let line = line.unwrap_or_else(|| panic!("{said}"));
        let (took, waited) = line.split_once(" waited ").unwrap();
        (took.parse().unwrap(), waited.parse().unwrap())
    }
}

#[test]
fn d02_one_of_two_processes_holds_the_gates_lock() {
    let (races, began, folder) = (races(), Instant::now(), folder());
    drop(Home::create(Some(folder.path().join("gate"))).unwrap());
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let store = folder.path().join("store.db");
    runtime.block_on(async { Store::create(&store).await.unwrap().close().await });
    let contenders = [
        Contender::start(folder.path(), races),
        Contender::start(folder.path(), races),
    ];
    let ends = contenders.map(Contender::end);
    let entries = runtime.block_on(async {
        let store = Store::open(&store).await.unwrap();
        let size = store.begin().await.unwrap().size().await.unwrap();
        store.close().await;
        size
    });
    println!(
        "{races} turns of 2 processes under the gate's lock in {:.1} s, (took, waited) {ends:?}, {entries} of them in the store",
        began.elapsed().as_secs_f64()
    );
    assert_eq!(ends.iter().map(|(took, _)| took).sum::<u64>(), races, "each turn once");
    assert_eq!(entries, races.div_ceil(STORED), "none twice, none left out");
    let raced = ends.iter().all(|(took, _)| *took > 0) && ends.iter().any(|(_, waited)| *waited > 0);
    assert!(races < 1000 || raced, "no race at all: {ends:?}");
}

/// Every so many turns one entry is written: it waits for SQLite.
const STORED: u64 = 20;

/// How many processes have come.
fn here(folder: &Path) -> usize {
    let names = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name());
    names.filter(|name| name.to_string_lossy().starts_with("here-")).count()
}

/// Takes the gate's lock for each turn until all are taken. Inside it is alone, or it fails. For the process that the test above starts:
/// by itself it has nobody to meet.
#[test]
fn contender() {
    let Some(folder) = std::env::var_os(MEETING).map(PathBuf::from) else {
        return;
    };
    let turns: u64 = std::env::var(TURNS).unwrap().parse().unwrap();
    let (_, permits) = permits_of_one_request(1);
    let home = Home::open(Some(folder.join("gate"))).unwrap();
    let (counter, inside) = (folder.join("turns"), folder.join("inside"));
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let store = runtime.block_on(Store::open(&folder.join("store.db"))).unwrap();
    std::fs::File::create_new(folder.join(format!("here-{}", std::process::id()))).unwrap();
    while here(&folder) < 2 {
        std::thread::yield_now();
    }
    let (mut took, mut waited) = (0, 0);
    loop {
        let Some(lock) = home.try_lock("gate.lock").unwrap() else {
            waited += 1;
            std::thread::yield_now();
            continue;
        };
        std::fs::File::create_new(&inside).expect("nobody else inside");
        let turn: u64 = std::fs::read_to_string(&counter).map_or(0, |text| text.parse().expect("a number"));
        if turn < turns {
            if turn.is_multiple_of(STORED) {
                let position = turn / STORED;
                assert!(
                    runtime.block_on(consume(&store, position, position, &permits[0])),
                    "turn {turn} was taken before"
                );
            }
            std::fs::write(&counter, (turn + 1).to_string()).unwrap();
            took += 1;
        }
        std::fs::remove_file(&inside).unwrap();
        drop(lock);
        if turn >= turns {
            break;
        }
        std::thread::yield_now();
    }
    runtime.block_on(store.close());
    println!("\ntook {took} waited {waited}");
}

/// The sequel: an admitted permit makes every other one stale, also for whoever checks anew.
#[test]
fn d01_the_second_is_told_that_it_is_permitted_already() {
    let (mut replay, permits): (Replay, _) = permits_of_one_request(2);
    let [one, two] = <[Checked; 2]>::try_from(permits).unwrap();
    let text = two.entry().statement().signed().as_bytes().to_vec();
    replay.admit(one).unwrap();
    assert_eq!(replay.admit(two).unwrap_err().kind, FindingKind::Stale);
    assert_eq!(replay.check(&text).unwrap_err().kind, FindingKind::PermittedAlready);
}
