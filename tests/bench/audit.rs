//! `countersign audit verify` over a long transcript, as a process of its own, beside the bare checking of the signatures in it.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use countersign_tests::program::program;
use ed25519_dalek::{Signature, VerifyingKey};
use wire::identity::PartyId;

use crate::figures::{Sheet, spread};
use crate::machine::{Running, Spent, folder, peak_memory, thread_time};
use crate::transcript::export;

/// Rounds, of which the best is given: what disturbs a round only makes it slower.
const ROUNDS: usize = 3;

pub fn measure(sheet: &mut Sheet, quick: bool) -> Result<()> {
    let (few, many) = if quick { (500, 5_000) } else { (10_000, 100_000) };
    let (short, long) = (export(&folder()?, few)?, export(&folder()?, many)?);
    let mut rounds = Vec::new();
    for _ in 0..ROUNDS {
        let bare = Bare::measure(&long)?;
        rounds.push((verify(&long)?, bare));
    }
    let small = verify(&short)?;
    let ratio = |(verified, bare): &(Verified, Bare)| verified.processor.as_secs_f64() / bare.statements.as_secs_f64();
    let ratios: Vec<f64> = rounds.iter().map(ratio).collect();
    rounds.sort_by(|one, other| ratio(one).total_cmp(&ratio(other)));
    let best = rounds.first().context("a round")?;
    let (verified, bare) = best;
    let all = bare.statements + bare.checkpoints;

    sheet.part(format!(
        "audit verify of {many} entries, {} MiB",
        std::fs::metadata(&long)?.len() >> 20
    ));
    sheet.put(
        "entries a second",
        many as f64 / verified.wall.as_secs_f64(),
        "1/s",
        "by the clock, one thread",
    );
    sheet.put("processor time", verified.processor.as_secs_f64(), "s", "");
    sheet.put(
        "bare: signatures of statements",
        bare.statements.as_secs_f64(),
        "s",
        format!("verify_strict, {} times", bare.count),
    );
    sheet.put(
        "bare: checkpoints quoted in decisions",
        bare.checkpoints.as_secs_f64(),
        "s",
        format!("verify_strict, {} times", bare.quoted),
    );
    sheet.put(
        "over the statements' signatures",
        ratio(best),
        "times",
        spread(&ratios, "times"),
    );
    sheet.put(
        "over all signatures",
        verified.processor.as_secs_f64() / all.as_secs_f64(),
        "times",
        "",
    );
    sheet.put("peak memory", verified.peak as f64 / 1024.0, "MiB", "");
    sheet.put(
        format!("peak memory at {few} entries"),
        small.peak as f64 / 1024.0,
        "MiB",
        "the same: it is read once and forgotten",
    );
    let bars = [
        ("bare signatures of statements", bare.statements),
        ("bare signatures of all", all),
        ("audit verify", verified.processor),
    ];
    sheet.chart(
        format!("verifying {many} entries"),
        "s",
        bars.map(|(name, time)| (name.to_owned(), time.as_secs_f64())).to_vec(),
    );
    Ok(())
}

/// What one run of the program took.
struct Verified {
    wall: Duration,
    processor: Duration,
    /// KiB.
    peak: u64,
}

fn verify(file: &Path) -> Result<Verified> {
    let before = Spent::by(std::process::id())?.children;
    let began = Instant::now();
    let mut command = Command::new(program("countersign"));
    command
        .args(["audit", "verify"])
        .arg(file)
        .stdin(Stdio::null())
        .stdout(Stdio::null());
    let mut running = Running(command.spawn()?);
    let mut peak = 0;
    let status = loop {
        // It only grows, so the last look before the end is the answer.
        peak = peak_memory(running.0.id()).unwrap_or(0).max(peak);
        if let Some(status) = running.0.try_wait()? {
            break status;
        }
        std::thread::sleep(Duration::from_millis(5));
    };
    let wall = began.elapsed();
    ensure!(status.success(), "the transcript doesn't hold");
    let processor = Spent::by(std::process::id())?.children - before;
    Ok(Verified { wall, processor, peak })
}

/// The signatures alone: everything about them read and decoded beforehand.
struct Bare {
    statements: Duration,
    count: usize,
    checkpoints: Duration,
    quoted: usize,
}

impl Bare {
    fn measure(file: &Path) -> Result<Self> {
        let (mut bare, mut keys) = (
            Self {
                statements: Duration::ZERO,
                count: 0,
                checkpoints: Duration::ZERO,
                quoted: 0,
            },
            Keys::default(),
        );
        let mut file = BufReader::new(File::open(file)?).lines();
        file.next().context("a first line")??;
        // In pieces: the whole file needn't fit the memory.
        let (mut statements, mut checkpoints) = (Vec::new(), Vec::new());
        for line in file {
            let line = line?;
            if let Some(rest) = line.split_once(r#""statement":{"#).map(|(_, rest)| rest) {
                let (signed, quoted) = keys.read(rest).context("a statement")?;
                statements.push(signed);
                checkpoints.extend(quoted);
            }
            if statements.len() == 1000 {
                bare.check(&mut statements, &mut checkpoints);
            }
        }
        bare.check(&mut statements, &mut checkpoints);
        Ok(bare)
    }

    fn check(&mut self, statements: &mut Vec<Signed>, checkpoints: &mut Vec<Signed>) {
        for (signed, time, count) in [
            (statements, &mut self.statements, &mut self.count),
            (checkpoints, &mut self.checkpoints, &mut self.quoted),
        ] {
            let began = thread_time();
            let good = signed
                .iter()
                .all(|(key, message, signature)| key.verify_strict(message, signature).is_ok());
            *time += thread_time() - began;
            assert!(good, "a bad signature");
            *count += signed.len();
            signed.clear();
        }
    }
}

type Signed = (VerifyingKey, Vec<u8>, Signature);

/// Each key decoded once.
#[derive(Default)]
struct Keys {
    known: std::collections::HashMap<String, VerifyingKey>,
}

impl Keys {
    /// The parts of a statement, and of the checkpoint that it quotes.
    fn read(&mut self, text: &str) -> Option<(Signed, Option<Signed>)> {
        let (kind, rest) = text
            .strip_prefix(r#""payloadType":""#)?
            .split_once(r#"","payload":""#)?;
        let (payload, rest) = rest.split_once(r#"","signatures":[{"keyid":""#)?;
        let (keyid, rest) = rest.split_once(r#"","sig":""#)?;
        let signature = signature(rest.split('"').next()?, 0)?;
        let payload = STANDARD.decode(payload).ok()?;
        let quoted = kind.contains(".decision+").then(|| self.quoted(&payload)).flatten();
        let mut message = format!("DSSEv1 {} {kind} {} ", kind.len(), payload.len()).into_bytes();
        message.extend_from_slice(&payload);
        Some(((self.key(keyid)?, message, signature), quoted))
    }

    fn quoted(&mut self, payload: &[u8]) -> Option<Signed> {
        let payload: serde_json::Value = serde_json::from_slice(payload).ok()?;
        let (body, note) = payload.get("checkpoint")?.as_str()?.split_once("\n\n")?;
        let gate = body.lines().next()?.strip_prefix("countersign/")?.to_owned();
        let signature = signature(note.trim().rsplit(' ').next()?, 4)?;
        Some((self.key(&gate)?, format!("{body}\n").into_bytes(), signature))
    }

    fn key(&mut self, text: &str) -> Option<VerifyingKey> {
        if !self.known.contains_key(text) {
            let party: PartyId = text.parse().ok()?;
            self.known
                .insert(text.to_owned(), VerifyingKey::from_bytes(party.as_bytes()).ok()?);
        }
        self.known.get(text).copied()
    }
}

fn signature(text: &str, skip: usize) -> Option<Signature> {
    Some(Signature::from_bytes(
        STANDARD.decode(text).ok()?.get(skip..)?.try_into().ok()?,
    ))
}
