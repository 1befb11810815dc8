//! The relay is blind: a word that runs through a whole denial and a whole approval is nowhere in its files, its log or its memory, and what it keeps
//! has one of five lengths. Each search is held against something that it must find.

use std::collections::BTreeSet;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE};
use countersign_tests::process::{World, beside, until};
use rand_core::{OsRng, RngCore};

/// How much of a process's memory is read at once, in bytes.
const PIECE: usize = 16 << 20;

/// A word that occurs nowhere else, fit for a name.
fn word(kind: &str) -> String {
    format!("{kind}{:016x}{:016x}", OsRng.next_u64(), OsRng.next_u64())
}

/// The ways in which a word can stand in bytes: as it is, in hex, and in base64 at each of the three alignments.
struct Needles {
    forms: Vec<Vec<u8>>,
    /// Which two bytes a form begins with.
    beginnings: Vec<bool>,
}

impl Needles {
    fn of(word: &str) -> Self {
        let mut forms = vec![
            word.as_bytes().to_vec(),
            word.bytes()
                .flat_map(|byte| format!("{byte:02x}").into_bytes())
                .collect(),
        ];
        for before in 0..3 {
            let shifted = [vec![b' '; before], word.as_bytes().to_vec()].concat();
            // Only the characters that are made of the word's own bits.
            let (from, to) = ((before * 8).div_ceil(6), shifted.len() * 8 / 6);
            forms.extend(
                [STANDARD.encode(&shifted), URL_SAFE.encode(&shifted)].map(|text| text.as_bytes()[from..to].to_vec()),
            );
        }
        let mut beginnings = vec![false; 1 << 16];
        for form in &forms {
            beginnings[usize::from(u16::from_be_bytes([form[0], form[1]]))] = true;
        }
        Self { forms, beginnings }
    }

    fn longest(&self) -> usize {
        self.forms.iter().map(Vec::len).max().unwrap_or(0)
    }

    fn are_in(&self, bytes: &[u8]) -> bool {
        let begins = |at: &usize| self.beginnings[usize::from(u16::from_be_bytes([bytes[*at], bytes[*at + 1]]))];
        (0..bytes.len().saturating_sub(1))
            .filter(begins)
            .any(|at| self.forms.iter().any(|form| bytes[at..].starts_with(form)))
    }

    fn are_in_any(&self, files: &[PathBuf]) -> bool {
        assert!(!files.is_empty(), "no file to search");
        files
            .iter()
            .any(|file| self.are_in(&std::fs::read(file).expect("a file to search")))
    }

    /// Whether they are in the memory of a process. Code and constants are passed over: nothing that came in is there.
    fn are_in_memory(&self, id: u32) -> bool {
        let maps = std::fs::read_to_string(format!("/proc/{id}/maps")).expect("the process runs");
        let memory = File::open(format!("/proc/{id}/mem")).expect("its memory can be read");
        let mut read = 0;
        let mut buffer = vec![0; PIECE];
        let mut found = false;
        for region in maps.lines() {
            let mut fields = region.split_whitespace();
            let (Some(range), Some(mode), Some(inode)) = (fields.next(), fields.next(), fields.nth(2)) else {
                continue;
            };
            let (from, to) = range.split_once('-').expect("a range");
            let [from, to] = [from, to].map(|end| u64::from_str_radix(end, 16).expect("an address"));
            if !mode.starts_with('r') || (inode != "0" && !mode.contains('w')) {
                continue;
            }
            let mut at = from;
            while at < to {
                let wanted = usize::try_from(to - at).unwrap_or(PIECE).min(PIECE);
                // Some of the kernel's own pages can't be read.
                let Ok(count) = memory.read_at(&mut buffer[..wanted], at) else {
                    break;
                };
                read += count;
                found |= self.are_in(&buffer[..count]);
                // The next piece begins within this one's end, so that nothing is missed between them.
                let step = if at + count as u64 == to {
                    count
                } else {
                    count.saturating_sub(self.longest())
                };
                if step == 0 {
                    break;
                }
                at += step as u64;
            }
        }
        assert!(read > 1 << 20, "only {read} bytes of memory were read");
        found
    }
}

fn nowhere_at_the_relay(world: &World, canary: &Needles, control: &Needles) {
    assert!(
        !canary.are_in_any(&world.relay.files()),
        "the relay's files hold the canary"
    );
    assert!(
        !canary.are_in(world.relay.log().as_bytes()),
        "the relay's log holds the canary"
    );
    let id = world.relay.process().id();
    assert!(!canary.are_in_memory(id), "the relay's memory holds the canary");
    assert!(
        control.are_in_memory(id),
        "the search of the relay's memory doesn't find what is there"
    );
}

#[test]
fn the_relay_never_holds_a_word_of_what_it_carries() {
    let (canary, control) = (word("canary"), word("control"));
    let (needles, control_needles) = (Needles::of(&canary), Needles::of(&control));
    let named = control.clone();
    let mut world = World::named(&canary, &canary, &canary, move |address| {
        ["--log-level", "debug", "--name", address, "--name", &named]
            .map(str::to_owned)
            .to_vec()
    });
    let variable = format!("CANARY={canary}");
    let options = [
        "--reason",
        &canary,
        "--agent",
        &canary,
        "--user",
        &canary,
        "--conversation",
        &canary,
        "--platform",
        &canary,
        "--env",
        &variable,
    ];
    let command = ["/bin/echo", &canary];

    // While the admin is away, everything lies at the relay.
    let mut denied = world.ask(&options, &command);
    assert!(denied.is_pending());
    nowhere_at_the_relay(&world, &needles, &control_needles);
    let deny: &'static str = format!("n {canary}").leak();
    world.admin.watch(deny);
    assert_eq!(denied.code(), Some(126));
    let reason = format!("error: denied by {canary}: {canary}\n");
    assert!(
        denied.process.stderr().ends_with(&reason),
        "{}",
        denied.process.stderr()
    );
    assert!(world.admin.stop().success());

    world.admin.watch("y");
    let mut approved = world.ask(&options, &command);
    assert_eq!(
        (approved.code(), approved.process.stdout()),
        (Some(0), format!("{canary}\n"))
    );
    world.settle(0);
    nowhere_at_the_relay(&world, &needles, &control_needles);

    // Where it must be found, by the same search: as base64, within signed statements.
    for home in [&world.gate.home, &world.admin.home] {
        assert!(
            needles.are_in_any(&beside(&home.join("state.db"))),
            "the search doesn't find what is in {}",
            home.display()
        );
    }
    assert!(needles.are_in(&world.gate.export()) && needles.are_in(&world.admin.export()));
    assert!(
        world.relay.log().contains("listening on"),
        "the relay's log isn't what was searched: {}",
        world.relay.log()
    );
    assert!(world.admin.stop().success() && world.gate.stop().success() && world.relay.stop().success());
    assert!(
        !needles.are_in_any(&world.relay.files()),
        "the relay's files hold the canary after it ended"
    );
    assert!(
        !needles.are_in(world.relay.log().as_bytes()),
        "the relay's last words hold the canary"
    );
}

#[test]
fn what_lies_at_the_relay_has_one_of_five_lengths() {
    let mut world = World::new();
    let mut seen = BTreeSet::new();
    let mut waiting = Vec::new();
    // Nobody reads what the gate sends.
    let (first, last) = (1, 20 * 1024);
    for size in [first, 60, 500, 1500, 2500, 6000, 9000, 14_000, last] {
        let argument = "x".repeat(size);
        let asking = world.ask(&[], &["/bin/true", &argument]);
        assert!(asking.is_pending(), "{}", asking.process.stderr());
        waiting.push(asking);
        let count = waiting.len();
        until("the request lies at the relay", || world.relay.lengths().len() >= count);
    }
    seen.extend(world.relay.lengths());
    // Now nobody reads what the admin sends.
    assert!(world.gate.stop().success());
    world.admin.look_on();
    until("the admin's words lie at the relay", || {
        let now = world.relay.lengths();
        let fewer = now.len() < waiting.len();
        seen.extend(now);
        fewer && seen.contains(&1024)
    });
    println!("lengths at the relay: {seen:?}");
    let five = BTreeSet::from([1024, 2048, 4096, 16384, 65536]);
    assert!(seen.is_subset(&five), "{seen:?}");
    assert!(seen.len() >= 4, "only {seen:?} occurred");
}
