//! Files that were damaged or torn: the relay refuses them and leaves them as they are, or serves what is in them. It never
//! begins anew in their place.

use std::path::{Path, PathBuf};

use rustix::process::Signal;
use tempfile::TempDir;
use wire::frame::Reason;

use crate::client::{Client, Lost, put};
use crate::program::{Ending, Program, in_ci};

const MAILBOXES: u8 = 3;
const ENVELOPES: u8 = 40;
/// Acknowledged of each mailbox.
const READ: u8 = 10;

/// SplitMix64: enough for mischief.
struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((mixed ^ (mixed >> 31)) % bound as u64).unwrap()
    }
}

/// A number of 16 bytes that says whose put it is, and which.
fn id(mailbox: u8, number: u8) -> [u8; 16] {
    let mut id = [mailbox; 16];
    id[1] = number;
    id
}

fn words(mailbox: u8, number: u8) -> Vec<u8> {
    (0..1024_u32)
        .map(|at| (at.wrapping_mul(u32::from(mailbox) * 251 + u32::from(number) + 1) >> 3) as u8)
        .collect()
}

fn envelope(mailbox: u8, number: u8) -> wire::frame::Put {
    put(mailbox, id(mailbox, number), &words(mailbox, number))
}

/// Opens the mailboxes and puts these into each.
async fn put_some(program: &Program, numbers: std::ops::Range<u8>) {
    let address = program.address().unwrap();
    let mut sender = Client::login(address, 99).await.unwrap();
    for mailbox in 1..=MAILBOXES {
        let mut owner = Client::login(address, mailbox).await.unwrap();
        owner.allow(mailbox, 1000).await.unwrap();
        for number in numbers.clone() {
            assert_eq!(sender.put(envelope(mailbox, number)).await.unwrap(), Ok(()));
        }
    }
}

async fn read_some(program: &Program) {
    for mailbox in 1..=MAILBOXES {
        let mut owner = Client::login(program.address().unwrap(), mailbox).await.unwrap();
        owner.read().await.unwrap();
        owner.ack(u64::from(READ)).await.unwrap();
        owner.settle().await.unwrap();
    }
}

/// The store of a relay that was used and ended by this signal.
async fn used(signal: Signal) -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let store = folder.path().join("s/relay.db");
    let program = Program::start(&store, &[]);
    put_some(&program, 0..ENVELOPES).await;
    read_some(&program).await;
    program.signal(signal);
    program.end();
    (folder, store)
}

/// Whether everything that waits is delivered as it was put, and everything that was put is known. If not, why not.
async fn serves_whole(program: &Program) -> Result<Option<String>, Lost> {
    let mut sender = Client::login(program.address().unwrap(), 99).await?;
    for mailbox in 1..=MAILBOXES {
        let mut owner = Client::login(program.address().unwrap(), mailbox).await?;
        if let Some(why) = lacks(&mut owner, &mut sender, mailbox).await? {
            return Ok(Some(format!("mailbox {mailbox}: {why}")));
        }
    }
    Ok(None)
}

async fn lacks(owner: &mut Client, sender: &mut Client, mailbox: u8) -> Result<Option<String>, Lost> {
    let (next, waiting) = owner.read().await?;
    let expected = (u64::from(ENVELOPES) + 1, u64::from(ENVELOPES - READ));
    // A relay that was killed may go on with a higher number.
    if next < expected.0 || waiting != expected.1 {
        return Ok(Some(format!("{:?}, not {expected:?}", (next, waiting))));
    }
    let mut last = u64::from(READ);
    for number in READ..ENVELOPES {
        let (sequence, bytes) = owner.delivery().await?;
        // In order; and after a kill numbers go on behind the reserve.
        if sequence <= last || *bytes != *words(mailbox, number) {
            return Ok(Some(format!("{sequence} isn't what was put")));
        }
        last = sequence;
    }
    for number in 0..ENVELOPES {
        let again = sender.put(envelope(mailbox, number)).await?;
        let other = sender.put(put(mailbox, id(mailbox, number), b"another")).await?;
        if (again, other) != (Ok(()), Err(Reason::IdUsed)) {
            return Ok(Some(format!("put {number} isn't known: {again:?}, {other:?}")));
        }
    }
    let (again, _) = owner.read().await?;
    Ok((again != next).then(|| "a repeat was taken as new".to_owned()))
}

/// It was refused by its name.
fn is_exact(ending: &Ending, store: &Path) -> bool {
    let name = store.to_str().unwrap();
    let says = |line: &str| line.starts_with("error: ") && line.contains(name);
    ending.is_refusal() && ending.words.lines().any(says)
}

/// What became of a store.
#[derive(Debug, PartialEq, Eq)]
enum Fate {
    ServedWhole,
    Refused,
}

/// Starts the relay on a store that something was done to. An error is what is neither of the two.
async fn start(store: &Path) -> Result<Fate, String> {
    // SQLite may leave a log with nothing in it.
    let read = |name: &str| std::fs::read(format!("{}{name}", store.display())).unwrap_or_default();
    let files = || ["", "-wal"].map(read);
    let before = files();
    let program = Program::start(store, &[]);
    if program.address().is_some() {
        let served = serves_whole(&program).await;
        program.signal(Signal::TERM);
        let ending = program.end();
        return match served {
            Ok(None) => Ok(Fate::ServedWhole),
            Ok(Some(why)) => Err(format!("it starts, and {why}: {}", ending.words)),
            // Found later than at the start, but said.
            Err(_) if ending.is_refusal() => Ok(Fate::Refused),
            Err(_) => Err(format!("it hangs up and doesn't say why: {}", ending.words)),
        };
    }
    let ending = program.end();
    if !is_exact(&ending, store) {
        return Err(format!("refused in other words: {}", ending.words));
    }
    if files() != before {
        return Err(format!("refused and changed: {}", ending.words));
    }
    Ok(Fate::Refused)
}

/// A page of the database.
const PAGE: usize = 4096;

fn dice() -> Dice {
    let since = std::time::UNIX_EPOCH.elapsed().unwrap();
    let given = std::env::var("COUNTERSIGN_DAMAGE_SEED").ok();
    let seed = given.map_or(u64::from(since.subsec_nanos()), |seed| seed.parse().unwrap());
    eprintln!("COUNTERSIGN_DAMAGE_SEED={seed}");
    Dice(seed)
}

fn rounds() -> usize {
    if in_ci() { 150 } else { 25 }
}

/// The database and its log, and what is noted of them, as they are.
fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to.parent().unwrap()).unwrap();
    for name in ["", "-wal", ".lock"] {
        let (from, to) = (format!("{}{name}", from.display()), format!("{}{name}", to.display()));
        if Path::new(&from).exists() {
            std::fs::copy(from, to).unwrap();
        }
    }
}

#[tokio::test]
async fn an_undamaged_copy_is_served_whole() {
    for signal in [Signal::TERM, Signal::KILL] {
        let (folder, whole) = used(signal).await;
        let store = folder.path().join("c/relay.db");
        copy(&whole, &store);
        assert_eq!(start(&store).await, Ok(Fate::ServedWhole));
    }
}

/// Abuse case H05: a page of rubbish is noticed, wherever it is, or nothing depended on it.
#[tokio::test]
async fn a_database_with_a_page_of_rubbish_is_refused_or_served_whole() {
    let mut dice = dice();
    let (folder, whole) = used(Signal::TERM).await;
    let bytes = std::fs::read(&whole).unwrap();
    let (mut refused, mut wrong) = (0, Vec::new());
    for _ in 0..rounds() {
        let store = folder.path().join("damaged/relay.db");
        copy(&whole, &store);
        let mut damaged = bytes.clone();
        let page = dice.below(bytes.len() / PAGE);
        for byte in &mut damaged[page * PAGE..(page + 1) * PAGE] {
            *byte = 1 + dice.below(255) as u8;
        }
        std::fs::write(&store, damaged).unwrap();
        match start(&store).await {
            Ok(Fate::Refused) => refused += 1,
            Ok(Fate::ServedWhole) => {}
            Err(why) => wrong.push(format!("page {page}: {why}")),
        }
        std::fs::remove_dir_all(store.parent().unwrap()).unwrap();
    }
    assert!(wrong.is_empty(), "{} are wrong:\n{}", wrong.len(), wrong.join("\n"));
    assert!(refused * 2 > rounds(), "only {refused} of {} were noticed", rounds());
}

/// Abuse case H04: of what was written since the last flush, a power cut leaves any part, in pieces of a sector. What was told
/// to be stored before is whole.
#[tokio::test]
async fn a_power_cut_tears_only_what_was_never_flushed() {
    const SECTOR: usize = 512;
    let folder = tempfile::tempdir().unwrap();
    let store = folder.path().join("s/relay.db");
    let program = Program::start(&store, &[]);
    put_some(&program, 0..ENVELOPES / 2).await;
    // Everything put so far is flushed, and nobody asks for anything.
    let flushed = ["", "-wal"].map(|name| std::fs::read(format!("{}{name}", store.display())).unwrap());
    let noted = std::fs::read(format!("{}.lock", store.display())).unwrap();
    put_some(&program, ENVELOPES / 2..ENVELOPES).await;
    program.signal(Signal::KILL);
    program.end();
    let written = ["", "-wal"].map(|name| std::fs::read(format!("{}{name}", store.display())).unwrap());
    assert!(flushed[0] == written[0], "the log was moved into the database between");
    assert!(flushed[1] != written[1], "nothing was written");
    let mut dice = dice();
    for round in 0..rounds() {
        let mut torn = flushed[1].clone();
        torn.resize(written[1].len(), 0);
        // A prefix, or any of the sectors; and it may be longer than what is in it.
        let (prefix, odds) = (dice.below(torn.len()), 1 + dice.below(4));
        for (number, sector) in torn.chunks_mut(SECTOR).enumerate() {
            let at = number * SECTOR;
            let arrives = if round % 2 == 0 {
                at < prefix
            } else {
                dice.below(4) < odds
            };
            if arrives {
                sector.copy_from_slice(&written[1][at..at + sector.len()]);
            }
        }
        let place = folder.path().join("torn/relay.db");
        copy(&store, &place);
        std::fs::write(format!("{}-wal", place.display()), torn).unwrap();
        // What is noted in it is only noted after the flush.
        std::fs::write(format!("{}.lock", place.display()), &noted).unwrap();
        let program = Program::start(&place, &[]);
        assert!(program.address().is_some(), "{}", program.words());
        for mailbox in 1..=MAILBOXES {
            let mut owner = Client::login(program.address().unwrap(), mailbox).await.unwrap();
            let (next, waiting) = owner.read().await.unwrap();
            assert!(
                waiting >= u64::from(ENVELOPES / 2) && next > waiting,
                "mailbox {mailbox}: {waiting} are left"
            );
            for number in 0..u8::try_from(waiting).unwrap() {
                let (sequence, bytes) = owner.delivery().await.unwrap();
                assert_eq!(sequence, u64::from(number) + 1);
                assert!(*bytes == *words(mailbox, number), "{number} isn't what was put");
            }
        }
        program.signal(Signal::KILL);
        program.end();
        std::fs::remove_dir_all(place.parent().unwrap()).unwrap();
    }
}

/// Abuse case H07: what an operator copies after a clean stop is whole without the log.
#[tokio::test]
async fn after_a_clean_stop_the_log_isnt_needed() {
    let (_folder, store) = used(Signal::TERM).await;
    std::fs::remove_file(format!("{}-wal", store.display())).ok();
    assert_eq!(start(&store).await, Ok(Fate::ServedWhole));
}

/// Abuse case H05: SQLite's files carry no sums of what they hold, so what waits does.
#[tokio::test]
async fn a_bit_flipped_in_what_waits_is_refused() {
    let mut dice = dice();
    let (folder, whole) = used(Signal::TERM).await;
    let bytes = std::fs::read(&whole).unwrap();
    // Where envelopes are: sealed bytes of ours, which are like nothing else in it.
    let places: Vec<_> = (READ..ENVELOPES)
        .filter_map(|number| {
            let words = words(1, number);
            bytes.windows(16).position(|window| window == &words[..16])
        })
        .collect();
    assert!(!places.is_empty(), "no envelope was found in the database");
    for _ in 0..rounds() {
        let store = folder.path().join("damaged/relay.db");
        copy(&whole, &store);
        let mut damaged = bytes.clone();
        let at = places[dice.below(places.len())] + dice.below(16);
        damaged[at] ^= 1 << dice.below(8);
        std::fs::write(&store, damaged).unwrap();
        assert_eq!(start(&store).await, Ok(Fate::Refused), "a bit of byte {at}");
        std::fs::remove_dir_all(store.parent().unwrap()).unwrap();
    }
}

/// Abuse case H05: a log that is damaged before its end isn't one that a power cut tore: what comes after the damage was flushed.
#[tokio::test]
async fn a_log_that_is_damaged_in_the_middle_is_refused() {
    let (folder, whole) = used(Signal::KILL).await;
    let log = std::fs::read(format!("{}-wal", whole.display())).unwrap();
    let length = log.iter().rposition(|byte| *byte != 0).unwrap();
    let mut dice = dice();
    let mut wrong = Vec::new();
    for _ in 0..rounds() {
        let store = folder.path().join("damaged/relay.db");
        copy(&whole, &store);
        let mut damaged = log.clone();
        let at = dice.below(length / 2);
        damaged[at] ^= 1 << dice.below(8);
        std::fs::write(format!("{}-wal", store.display()), damaged).unwrap();
        if let Err(why) = start(&store).await {
            wrong.push(format!("a bit of byte {at}: {why}"));
        }
        std::fs::remove_dir_all(store.parent().unwrap()).unwrap();
    }
    assert!(wrong.is_empty(), "{} are wrong:\n{}", wrong.len(), wrong.join("\n"));
}

/// Abuse case H07.
#[tokio::test]
async fn a_log_that_was_taken_away_is_missed() {
    let (_folder, store) = used(Signal::KILL).await;
    std::fs::remove_file(format!("{}-wal", store.display())).unwrap();
    assert_eq!(start(&store).await, Ok(Fate::Refused));
}

/// Abuse case H07: a log of one time and a database of another.
#[tokio::test]
async fn a_log_of_another_time_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let store = folder.path().join("s/relay.db");
    let older = folder.path().join("older/relay.db");
    let program = Program::start(&store, &[]);
    put_some(&program, 0..ENVELOPES / 2).await;
    program.signal(Signal::KILL);
    program.end();
    copy(&store, &older);
    let program = Program::start(&store, &[]);
    put_some(&program, ENVELOPES / 2..ENVELOPES).await;
    read_some(&program).await;
    program.signal(Signal::KILL);
    program.end();
    for (database, log) in [(&store, &older), (&older, &store)] {
        let mixed = folder.path().join("mixed/relay.db");
        copy(database, &mixed);
        let log = format!("{}-wal", log.display());
        std::fs::copy(log, format!("{}-wal", mixed.display())).unwrap();
        start(&mixed).await.unwrap();
        std::fs::remove_dir_all(mixed.parent().unwrap()).unwrap();
    }
}
