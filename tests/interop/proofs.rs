//! Proofs of one approval (PROTOCOL.md 15): honest ones, ones put together otherwise, and ones out of a transcript that a gate
//! or an admin signed lies into. Not here: whole transcripts.

use anyhow::{Context, Result, ensure};
use approval::checkpoint::Checkpoint;
use approval::transcript::{Log, Tree, leaf_hash};
use approval::{Digest, Signed};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use wire::identity::Identity;

use crate::lies::{dsse, mutants, payload_of};
use crate::seasons::{by_a_grant, by_a_rule, season};
use crate::transcript::World;
use crate::{compare, some};

#[test]
fn a_proof_across_a_change_of_roster_is_right_for_both() -> Result<()> {
    is_right_for_both(&season()?)
}

#[test]
fn a_proof_resting_on_a_grant_is_right_for_both() -> Result<()> {
    is_right_for_both(&by_a_grant()?)
}

#[test]
fn a_proof_resting_on_a_rule_is_right_for_both() -> Result<()> {
    is_right_for_both(&by_a_rule()?)
}

fn is_right_for_both((world, approved): &(World, Digest)) -> Result<()> {
    let proof = world.prove(*approved)?;
    assert_eq!(compare(&[("the proof".to_owned(), proof.into_bytes())])?, 1);
    Ok(())
}

const NEXT_ENTRY: &str = "},{\"index\"";

/// A proof's entries, without what stands between them, and what comes before them.
fn parts(proof: &str) -> Result<(&str, Vec<&str>)> {
    let (head, entries) = proof.split_once("[{").context("no entries")?;
    Ok((
        head,
        entries
            .strip_suffix("}]}\n")
            .context("no end")?
            .split(NEXT_ENTRY)
            .collect(),
    ))
}

/// The proof with each of its entries left out, repeated, or with another inclusion proof.
fn put_together_otherwise(proof: &str) -> Result<Vec<(String, Vec<u8>)>> {
    let (head, entries) = parts(proof)?;
    let whole = |entries: &[&str]| format!("{head}[{{{}}}]}}\n", entries.join(NEXT_ENTRY));
    assert_eq!(whole(&entries), proof);
    let mut files = vec![("no entries".to_owned(), format!("{head}[]}}\n"))];
    for (at, entry) in entries.iter().enumerate() {
        let with = |others: &[&str]| {
            whole(
                &[
                    entries.get(..at).unwrap_or_default(),
                    others,
                    entries.get(at + 1..).unwrap_or_default(),
                ]
                .concat(),
            )
        };
        files.push((format!("entry {at} twice"), with(&[entry, entry])));
        // The last one missing is a request that hasn't ended: as right as what it says.
        if at + 1 < entries.len() {
            files.push((format!("without entry {at}"), with(&[])));
        }
        let (_, hashes) = entry.split_once("\"proof\":[").context("no proof")?;
        // The last entry of a log may need only one.
        let Some((first, _)) = hashes.split_once(',') else {
            continue;
        };
        let first = format!("{first},");
        let (less, more) = (
            entry.replacen(&first, "", 1),
            entry.replacen(&first, &first.repeat(2), 1),
        );
        files.push((format!("a hash less for entry {at}"), with(&[&less])));
        files.push((format!("a hash more for entry {at}"), with(&[&more])));
    }
    Ok(files
        .into_iter()
        .map(|(name, text)| (name, text.into_bytes()))
        .collect())
}

#[test]
fn a_proof_put_together_otherwise_is_refused_by_both() -> Result<()> {
    for (world, approved) in [by_a_grant()?, by_a_rule()?] {
        assert_eq!(compare(&put_together_otherwise(&world.prove(approved)?)?)?, 0);
    }
    let (world, approved) = season()?;
    let proof = world.prove(approved)?;
    let mut files = put_together_otherwise(&proof)?;
    let (head, entries) = parts(&proof)?;
    let mut add = |name: &str, entries: &[&str]| {
        let text = format!("{head}[{{{}}}]}}\n", entries.join(NEXT_ENTRY));
        files.push((name.to_owned(), text.into_bytes()));
    };
    let open = world
        .replay
        .open()
        .next()
        .context("no open request")?
        .request()
        .digest();
    let other = world.prove(open)?;
    let (_, others) = parts(&other)?;
    let more = others.get(1..).unwrap_or_default();
    add("going on after the end", &[entries.as_slice(), more].concat());
    add(
        "of two requests",
        &[entries.get(..3).unwrap_or_default(), more].concat(),
    );
    assert_eq!(compare(&files)?, 0);
    Ok(())
}

/// The transcript with this payload in this place, and everything after it citing that instead.
fn forged(world: &World, at: usize, mutant: &str) -> Result<Vec<Signed>> {
    let (before, after) = world.entries.split_at_checked(at).context("no such entry")?;
    let (mut entries, mut cited) = (before.to_vec(), Vec::<(String, String)>::new());
    for entry in after {
        let said: Value = serde_json::from_str(entry.as_str())?;
        let (kind, by) = (said["payloadType"].as_str(), said["signatures"][0]["keyid"].as_str());
        let kind = kind
            .and_then(|kind| kind.strip_prefix("application/vnd.countersign.")?.strip_suffix("+json"))
            .context("no kind")?;
        let everybody = [&world.cast.gate, &world.cast.alice, &world.cast.bob];
        let by = everybody
            .into_iter()
            .find(|one| Some(one.party().to_string().as_str()) == by)
            .context("signed by a stranger")?;
        let mut payload = if cited.is_empty() {
            mutant.to_owned()
        } else {
            payload_of(entry)?
        };
        for (was, is) in &cited {
            payload = payload.replace(was, is);
        }
        let signed = dsse(by, kind, &payload)?;
        cited.push((entry.digest().to_string(), signed.digest().to_string()));
        entries.push(signed);
    }
    Ok(entries)
}

/// A proof of these entries. Not with the crate's prover: it is for the honest.
fn prove(gate: &Identity, entries: &[Signed], which: &[u64]) -> Result<Vec<u8>> {
    let (mut log, mut tree) = (Log::new(), Tree::new());
    for entry in entries {
        log.append(entry.as_bytes());
        tree.append_hash(leaf_hash(entry.as_bytes()));
    }
    let checkpoint = Checkpoint::sign(gate, log.size(), log.root());
    let mut lines = Vec::new();
    for index in which {
        let entry = entries.get(usize::try_from(*index)?).context("no such entry")?;
        let proof = tree.prove_inclusion(log.size(), *index)?;
        let proof: Vec<_> = proof.iter().map(|hash| STANDARD.encode(hash)).collect();
        lines.push(format!(
            r#"{{"index":{index},"statement":{},"proof":{}}}"#,
            entry.as_str(),
            json!(proof)
        ));
    }
    let (party, checkpoint) = (gate.party(), json!(checkpoint.as_str()));
    let head = format!(r#"{{"countersign":"proof","v":1,"gate":"{party}","checkpoint":{checkpoint},"entries":["#);
    Ok(format!("{head}{}]}}\n", lines.join(",")).into_bytes())
}

/// How many lies about one entry are tried where not all are.
const LIES: usize = 100;

fn compare_lies((world, approved): &(World, Digest)) -> Result<()> {
    let gate = &world.cast.gate;
    let honest = world.prove(*approved)?;
    let file: Value = serde_json::from_str(&honest)?;
    let lines = file["entries"].as_array().context("no entries")?;
    let which: Vec<u64> = lines.iter().filter_map(|line| line["index"].as_u64()).collect();
    ensure!(
        prove(gate, &world.entries, &which)? == honest.as_bytes(),
        "made otherwise than the prover makes it"
    );
    let mut files = vec![("the honest one".to_owned(), honest.into_bytes())];
    for index in &which {
        let at = usize::try_from(*index)?;
        let payload = payload_of(world.entries.get(at).context("no such entry")?)?;
        for (name, mutant) in some(mutants(&payload), LIES)? {
            let proof = prove(gate, &forged(world, at, &mutant)?, &which)?;
            files.push((format!("entry {index}: {name}"), proof));
        }
    }
    let right = compare(&files)?;
    ensure!(
        right > which.len() && right < files.len() / 2,
        "{right} of {} right",
        files.len()
    );
    Ok(())
}

#[test]
fn lies_in_a_proof_across_a_change_of_roster() -> Result<()> {
    compare_lies(&season()?)
}

#[test]
fn lies_in_a_proof_resting_on_a_grant() -> Result<()> {
    compare_lies(&by_a_grant()?)
}

#[test]
fn lies_in_a_proof_resting_on_a_rule() -> Result<()> {
    compare_lies(&by_a_rule()?)
}
