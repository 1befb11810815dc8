//! Other people's code says the same as ours: a verifier in Python about transcripts, an HPKE in JavaScript about envelopes.
//! Not here: the frozen vectors themselves, and what is right.
#![allow(missing_docs)]

mod envelopes;
mod lies;
mod proofs;
mod seasons;
mod transcript;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use approval::export::{self, Expect};
use approval::proof;
use countersign_tests::interop::{Python, verify_with_python};
use rand_core::{OsRng, RngCore};

use crate::seasons::{ruled, season, unenrolled};
use crate::transcript::World;

const FOLDER: &str = env!("CARGO_TARGET_TMPDIR");

/// What a verifier says of a file: nothing, or the index of the entry that is wrong, if it is one.
type Verdict = Result<(), Option<u64>>;

fn is_proof(file: &[u8]) -> bool {
    file.starts_with(proof::BEGINNING.as_bytes())
}

fn ours(file: &[u8]) -> Verdict {
    if is_proof(file) {
        proof::verify(file, &Expect::default())
            .map(|_| ())
            .map_err(|error| error.index())
    } else {
        export::verify(file, &Expect::default())
            .map(|_| ())
            .map_err(|error| error.index())
    }
}

fn theirs(line: &str) -> Result<Verdict> {
    if line.starts_with("ok ") {
        return Ok(Ok(()));
    }
    let wrong = line.strip_prefix("wrong: ").with_context(|| line.to_owned())?;
    let index = wrong
        .strip_prefix("entry ")
        .and_then(|rest| rest.split_once(':')?.0.parse().ok());
    ensure!(index.is_some() || wrong.starts_with("file:"), "{line}");
    Ok(Err(index))
}

/// Gives both verifiers the same files, each with a name for people, and compares their verdicts. How many were right.
fn compare(files: &[(String, Vec<u8>)]) -> Result<usize> {
    let python = Python::set_up(FOLDER)?;
    let folder = tempfile::tempdir()?;
    let mut right = 0;
    // In batches, because a command line has an end.
    for batch in files.chunks(500) {
        let paths: Vec<PathBuf> = (0..batch.len()).map(|n| folder.path().join(n.to_string())).collect();
        for (path, (_, contents)) in paths.iter().zip(batch) {
            fs::write(path, contents)?;
        }
        for ((name, contents), line) in batch.iter().zip(python.verify(&paths)?) {
            let (ours, theirs) = (ours(contents), theirs(&line)?);
            // A proof is believed as a whole or not at all: which of its entries is named first means nothing.
            let same = if is_proof(contents) {
                ours.is_ok() == theirs.is_ok()
            } else {
                ours == theirs
            };
            ensure!(same, "{name}: we say {ours:?}, the other says {line}");
            right += usize::from(ours.is_ok());
        }
    }
    Ok(right)
}

/// So many of very many, others each time, and four times as many where `CI` is set. A failure prints the seed: with it in
/// `COUNTERSIGN_SEED` the same ones are drawn again.
fn some<T>(mut all: Vec<T>, most: usize) -> Result<Vec<T>> {
    let most = if std::env::var_os("CI").is_some() {
        4 * most
    } else {
        most
    };
    if all.len() <= most {
        return Ok(all);
    }
    let mut state = match std::env::var("COUNTERSIGN_SEED") {
        Ok(seed) => seed.parse()?,
        Err(_) => OsRng.next_u64(),
    };
    println!("COUNTERSIGN_SEED={state}");
    for at in 0..most {
        // Knuth's MMIX generator; its upper half is random enough for drawing lots.
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        let left = all.len() - at;
        all.swap(at, at + (state >> 33) as usize % left);
    }
    all.truncate(most);
    Ok(all)
}

#[test]
fn the_other_verifier_agrees_on_the_frozen_vectors() -> Result<()> {
    let vectors = Path::new(env!("CARGO_MANIFEST_DIR")).join("vectors");
    let said = Python::set_up(FOLDER)?.compare_vectors(&vectors)?;
    ensure!(said.starts_with("ok: "), "{said}");
    Ok(())
}

#[test]
fn a_fresh_transcript_is_right_for_both() -> Result<()> {
    is_right_for_both(&season()?.0)
}

#[test]
fn what_a_policy_allowed_and_forbade_is_right_for_both() -> Result<()> {
    is_right_for_both(&ruled()?)
}

#[test]
fn what_was_done_before_there_was_an_admin_is_right_for_both() -> Result<()> {
    is_right_for_both(&unenrolled()?)
}

fn is_right_for_both(world: &World) -> Result<()> {
    let file = world.export()?;
    assert_eq!(ours(&file), Ok(()));
    let path = tempfile::NamedTempFile::new()?;
    fs::write(&path, file)?;
    let said = verify_with_python(FOLDER, path.path())?;
    assert!(said.contains(&world.cast.gate.party().to_string()), "{said}");
    assert!(said.contains(&format!("{} entries", world.entries.len())), "{said}");
    Ok(())
}

#[test]
fn a_flipped_bit_is_refused_by_both() -> Result<()> {
    let (world, approved) = season()?;
    for file in [world.export()?, world.prove(approved)?.into_bytes()] {
        let flipped = |at: usize| {
            let mut file = file.clone();
            // The top bit makes it no UTF-8, the others other characters.
            file.get_mut(at).into_iter().for_each(|byte| *byte ^= 1 << (at % 8));
            (format!("a bit flipped in byte {at}"), file)
        };
        let step = file.len() / 300 + 1;
        let files: Vec<_> = (0..file.len()).step_by(step).map(flipped).collect();
        assert_eq!(compare(&files)?, 0);
    }
    Ok(())
}

#[test]
fn a_file_cut_short_or_patched_together_is_refused_by_both() -> Result<()> {
    let (world, approved) = season()?;
    let file = String::from_utf8(world.export()?)?;
    let lines: Vec<_> = file.split_inclusive('\n').collect();
    let mut files = vec![("nothing".to_owned(), String::new())];
    for at in 0..lines.len() {
        let (before, after) = lines.split_at(at);
        let (Some(line), rest) = (after.first(), after.get(1..).unwrap_or_default()) else {
            continue;
        };
        files.push((format!("without line {at}"), [before.concat(), rest.concat()].concat()));
        files.push((
            format!("line {at} twice"),
            [before.concat(), line.repeat(2), rest.concat()].concat(),
        ));
        files.push((format!("cut before line {at}"), before.concat()));
        files.push((
            format!("line {at} without its end"),
            [&before.concat(), line.trim_end()].concat(),
        ));
        files.push((
            format!("line {at} with a space"),
            [&before.concat(), " ", line, &rest.concat()].concat(),
        ));
        files.push((
            format!("carriage return in line {at}"),
            [&before.concat(), line.trim_end(), "\r\n", &rest.concat()].concat(),
        ));
    }
    files.push(("twice".to_owned(), file.repeat(2)));
    files.push(("with a proof".to_owned(), file.clone() + &world.prove(approved)?));
    let files: Vec<_> = files
        .into_iter()
        .map(|(name, text)| (name, text.into_bytes()))
        .collect();
    assert_eq!(compare(&files)?, 0);
    Ok(())
}
