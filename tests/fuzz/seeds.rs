//! Replays the seeds of every fuzz target, and mutations of them that are the same each time, without a fuzzer. A seed
//! that made a decoder break its promise once is tried here for ever.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::thread;

use countersign::local::Question;
use countersign_tests::decoders::{TARGETS, Target, local_line};

/// Mutations of each target's seeds.
const MUTATIONS: usize = 2000;

/// The targets that take everything that they are given.
const TOTAL: [&str; 2] = ["rendering", "escaping"];

fn targets() -> Vec<Target> {
    let question = Target {
        name: "question",
        run: local_line::<Question>,
    };
    TARGETS.iter().copied().chain([question]).collect()
}

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz").join(name)
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths
}

fn names(paths: &[PathBuf]) -> BTreeSet<String> {
    paths
        .iter()
        .map(|path| path.file_stem().unwrap().to_str().unwrap().to_owned())
        .collect()
}

fn seeds(target: &str) -> Vec<(PathBuf, Vec<u8>)> {
    let read = |path: PathBuf| {
        let bytes = fs::read(&path).unwrap();
        (path, bytes)
    };
    files(&folder("seeds").join(target)).into_iter().map(read).collect()
}

/// Runs the target and says, if it panics, with what.
fn run(target: &Target, origin: &Path, bytes: &[u8]) -> bool {
    struct Blame<'a>(&'a Target, &'a Path, &'a [u8]);

    impl Drop for Blame<'_> {
        fn drop(&mut self) {
            if thread::panicking() {
                let Self(target, origin, bytes) = self;
                eprintln!(
                    "target {}, from {}: \"{}\"",
                    target.name,
                    origin.display(),
                    bytes.escape_ascii()
                );
            }
        }
    }

    let _blame = Blame(target, origin, bytes);
    (target.run)(bytes)
}

/// Does this to every target, on two threads: most of the time goes into signatures.
fn each_target(work: impl Fn(&Target) + Sync) {
    let targets = targets();
    let (even, odd): (Vec<_>, Vec<_>) = targets.iter().enumerate().partition(|(number, _)| number % 2 == 0);
    thread::scope(|scope| {
        for half in [even, odd] {
            let work = &work;
            scope.spawn(move || half.into_iter().for_each(|(_, target)| work(target)));
        }
    });
}

#[test]
fn every_target_has_a_body_a_program_and_seeds() {
    let bodies: BTreeSet<String> = targets().iter().map(|target| target.name.to_owned()).collect();
    assert_eq!(bodies.len(), targets().len(), "two targets of one name");
    assert_eq!(
        names(&files(&folder("fuzz_targets"))),
        bodies,
        "tests/fuzz/fuzz_targets/ and targets! differ"
    );
    assert_eq!(
        names(&files(&folder("seeds"))),
        bodies,
        "tests/fuzz/seeds/ and targets! differ"
    );
    let manifest = fs::read_to_string(folder("Cargo.toml")).unwrap();
    for body in &bodies {
        assert!(
            manifest.contains(&format!("\"fuzz_targets/{body}.rs\"")),
            "{body} isn't in tests/fuzz/Cargo.toml"
        );
    }
}

#[test]
fn every_target_takes_some_seeds_and_refuses_others() {
    each_target(|target| {
        let (taken, refused): (Vec<_>, Vec<_>) = seeds(target.name)
            .into_iter()
            .partition(|(path, bytes)| run(target, path, bytes));
        assert!(
            !taken.is_empty(),
            "{}: no seed is taken, so none goes deep",
            target.name
        );
        assert_eq!(
            refused.is_empty(),
            TOTAL.contains(&target.name),
            "{}: refuses {}",
            target.name,
            refused.len()
        );
    });
}

#[test]
fn a_proof_or_transcript_named_bad_is_refused() {
    for target in targets()
        .iter()
        .filter(|target| ["export", "proof", "checkpoint"].contains(&target.name))
    {
        for (path, bytes) in seeds(target.name) {
            let bad = path.to_string_lossy().contains("bad-");
            assert_eq!(run(target, &path, &bytes), !bad, "{}", path.display());
        }
    }
}

#[test]
fn no_mutation_of_a_seed_breaks_a_promise() {
    each_target(|target| {
        let seeds = seeds(target.name);
        assert!(!seeds.is_empty(), "{} has no seeds", target.name);
        let mut chance = Chance(0x9e37_79b9_7f4a_7c15);
        for turn in 0..MUTATIONS {
            let (path, seed) = &seeds[turn % seeds.len()];
            let (_, other) = &seeds[chance.below(seeds.len())];
            run(target, path, &chance.mutation(seed, other));
        }
    });
}

/// Marsaglia's xorshift: the same numbers on every machine.
struct Chance(u64);

impl Chance {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, end: usize) -> usize {
        (self.next() % end.max(1) as u64) as usize
    }

    fn mutation(&mut self, seed: &[u8], other: &[u8]) -> Vec<u8> {
        let mut bytes = seed.to_vec();
        for _ in 0..=self.below(3) {
            self.mutate(&mut bytes, other);
        }
        bytes
    }

    fn mutate(&mut self, bytes: &mut Vec<u8>, other: &[u8]) {
        const TELLING: [&[u8]; 14] = [
            b"0",
            b"-1",
            b"18446744073709551616",
            b"\"",
            b"\\",
            b"\n",
            b"\0",
            b"\xff\xff\xff\xff",
            b"null",
            b"{}",
            b" ",
            b"\x1b",
            "\u{202e}".as_bytes(),
            b"\x80",
        ];
        let (at, end) = (self.below(bytes.len() + 1), bytes.len());
        let stretch = at..end.min(at + 1 + self.below(16));
        match self.below(8) {
            0 if at < end => bytes[at] ^= 1 << self.below(8),
            1 if at < end => bytes[at] = self.next() as u8,
            2 => bytes.truncate(at),
            3 => drop(bytes.drain(stretch)),
            4 => drop(bytes.splice(at..at, bytes[stretch].to_vec())),
            5 => drop(bytes.splice(stretch, TELLING[self.below(TELLING.len())].iter().copied())),
            6 => {
                // Digits are where numbers, lengths and hex are.
                let digits: Vec<usize> = (0..end).filter(|at| bytes[*at].is_ascii_digit()).collect();
                if let Some(digit) = digits.get(self.below(digits.len())) {
                    bytes[*digit] = b'0' + self.below(10) as u8;
                }
            }
            _ => {
                let from = self.below(other.len() + 1);
                let to = other.len().min(from + self.below(64));
                drop(bytes.splice(stretch, other[from..to].iter().copied()));
            }
        }
    }
}
