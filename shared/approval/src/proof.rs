//! One approval alone, taken out of a transcript so that a single case can be shown without the rest.
//!
//! PROTOCOL.md 15. What it shows: the gate signed a log that holds these entries at these positions, and by the rules of
//! 10.4 they lead to this end. What it can't show: that the log holds nothing else about the request, how the roster
//! came into force, and how often a grant or a rule was used before; for these the whole transcript is needed
//! ([`crate::export`]). What an approval rests on beside its own entries is in `proof/rests`.

use std::io::{self, Read};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use thiserror::Error;
use wire::identity::PartyId;

use crate::checkpoint::{Checkpoint, CheckpointError};
use crate::export::Expect;
use crate::json::object;
use crate::replay::rules::{Judged, Rules, Step};
use crate::replay::{Did, Finding, FindingKind, Pending};
use crate::request::Request;
use crate::roster::Roster;
use crate::statement::{Signed, Statement, Verified};
use crate::transcript::{ProofError, TreeHash, leaf_hash, verify_inclusion};

mod prover;
mod rests;

pub use prover::{ProveError, Prover};
use rests::Rests;

/// Bytes of a proof file: two statements for each of the 64 devices that a roster may have, and some rosters.
pub const PROOF_BYTES: usize = 16 * 1024 * 1024;

/// How every proof file begins.
pub const BEGINNING: &str = r#"{"countersign":"proof","#;

/// Why a proof file isn't believed.
#[derive(Debug, Error)]
pub enum ProofFileError {
    /// The file can't be read.
    #[error("cannot be read: {0}")]
    Read(#[from] io::Error),
    /// Something else than a proof file, or a longer one than any can be.
    #[error("not a proof of an approval")]
    NotAProof,
    /// The checkpoint that it was to be compared with can't be used.
    #[error("the known checkpoint cannot be used: {0}")]
    Known(CheckpointError),
    /// Not spelled as it must be.
    #[error("the proof is not spelled as it must be")]
    Spelling,
    /// The file is another gate's.
    #[error("a proof of the gate {found}, not of {expected}")]
    OtherGate {
        /// The gate that was expected.
        expected: PartyId,
        /// The gate that the file names.
        found: PartyId,
    },
    /// The checkpoint isn't the gate's.
    #[error("{0}")]
    Checkpoint(CheckpointError),
    /// The gate signed another log of the same size.
    #[error("the gate has signed two histories of {0} entries")]
    Fork(u64),
    /// The entries aren't a roster, a request, and what came of it, in this order.
    #[error("the entries are not a roster, a request and what became of it, in transcript order")]
    Order,
    /// An entry isn't where the proof says.
    #[error("entry {index}: {error}")]
    Inclusion {
        /// The entry's position.
        index: u64,
        /// What is wrong with its inclusion proof.
        error: ProofError,
    },
    /// An entry breaks a rule.
    #[error(transparent)]
    Entry(Finding),
}

impl ProofFileError {
    /// True if nothing can be said about the approval, because there is no proof to read.
    #[must_use]
    pub fn is_unreadable(&self) -> bool {
        matches!(self, Self::Read(_) | Self::NotAProof | Self::Known(_))
    }

    /// The first wrong entry, where it is one entry that is wrong.
    #[must_use]
    pub fn index(&self) -> Option<u64> {
        match self {
            Self::Inclusion { index, .. } => Some(*index),
            Self::Entry(finding) => Some(finding.index),
            _ => None,
        }
    }
}

/// One approval that holds.
#[derive(Debug, Clone)]
pub struct Proven {
    gate: PartyId,
    checkpoint: Checkpoint,
    rosters: Vec<Verified<Roster>>,
    request: Verified<Request>,
    entries: Vec<(u64, Verified<Statement>)>,
    pending: Option<Pending>,
}

impl Proven {
    /// The gate.
    #[must_use]
    pub fn gate(&self) -> PartyId {
        self.gate
    }

    /// The checkpoint that the entries are proven against.
    #[must_use]
    pub fn checkpoint(&self) -> &Checkpoint {
        &self.checkpoint
    }

    /// The request.
    #[must_use]
    pub fn request(&self) -> &Verified<Request> {
        &self.request
    }

    /// The roster in force when it was asked, and those that came into force until its end.
    #[must_use]
    pub fn rosters(&self) -> &[Verified<Roster>] {
        &self.rosters
    }

    /// All entries of the proof with their positions, those of the grant that the permit rests on among them.
    #[must_use]
    pub fn entries(&self) -> &[(u64, Verified<Statement>)] {
        &self.entries
    }

    /// The request as it stands after the entries, unless it has ended.
    #[must_use]
    pub fn pending(&self) -> Option<&Pending> {
        self.pending.as_ref()
    }
}

object! {
    /// The file as it is spelled.
    #[derive(Debug)]
    struct File {
        countersign: String,
        v: u64,
        gate: PartyId,
        checkpoint: String,
        entries: Vec<Line>,
    }
}

object! {
    #[derive(Debug)]
    struct Line {
        index: u64,
        statement: Signed,
        proof: Vec<String>,
    }
}

fn write(file: &File) -> Result<String, serde_json::Error> {
    Ok(serde_json::to_string(file)? + "\n")
}

/// Verifies a proof file from its first to its last byte.
///
/// # Errors
/// The first thing that is wrong.
pub fn verify(reader: impl Read, expect: &Expect) -> Result<Proven, ProofFileError> {
    let mut bytes = Vec::new();
    reader.take(PROOF_BYTES as u64 + 1).read_to_end(&mut bytes)?;
    if bytes.len() > PROOF_BYTES || !bytes.starts_with(BEGINNING.as_bytes()) {
        return Err(ProofFileError::NotAProof);
    }
    let file: File = serde_json::from_slice(&bytes).map_err(|_| ProofFileError::Spelling)?;
    let respelled = write(&file).map_err(|_| ProofFileError::Spelling)?;
    if file.v != 1 || respelled.as_bytes() != bytes {
        return Err(ProofFileError::Spelling);
    }
    if let Some(expected) = expect.gate.filter(|expected| *expected != file.gate) {
        return Err(ProofFileError::OtherGate {
            expected,
            found: file.gate,
        });
    }
    let checkpoint = Checkpoint::verify(&file.checkpoint, &file.gate).map_err(ProofFileError::Checkpoint)?;
    if let Some(known) = &expect.checkpoint {
        let known = Checkpoint::verify(known, &file.gate).map_err(ProofFileError::Known)?;
        if known.size() == checkpoint.size() && known.root() != checkpoint.root() {
            return Err(ProofFileError::Fork(known.size()));
        }
    }
    let case = Case::new(checkpoint);
    let entries = case.read(&file.entries)?;
    case.follow(entries)
}

/// The rules of 10.4, as far as they concern the one request.
struct Case {
    checkpoint: Checkpoint,
    rules: Rules,
    rests: Option<Rests>,
    entries: Vec<(u64, Verified<Statement>)>,
    /// Of these, the ones that are about the request itself.
    own: usize,
    rosters: Vec<Verified<Roster>>,
    request: Option<Verified<Request>>,
    ended: bool,
}

impl Case {
    fn new(checkpoint: Checkpoint) -> Self {
        let rules = Rules::new(Some(*checkpoint.gate()));
        Self {
            checkpoint,
            rules,
            rests: None,
            entries: Vec::new(),
            own: 0,
            rosters: Vec::new(),
            request: None,
            ended: false,
        }
    }

    /// Believes that the log holds these entries, and nothing else yet.
    fn read(&self, lines: &[Line]) -> Result<Vec<(u64, Verified<Statement>)>, ProofFileError> {
        let mut entries: Vec<(u64, Verified<Statement>)> = Vec::new();
        for line in lines {
            if entries.last().is_some_and(|(before, _)| *before >= line.index) {
                return Err(ProofFileError::Order);
            }
            self.include(line)?;
            let statement = line.statement.verify().map_err(|error| {
                ProofFileError::Entry(Finding {
                    index: line.index,
                    kind: FindingKind::Statement(error),
                })
            })?;
            entries.push((line.index, statement));
        }
        Ok(entries)
    }

    fn follow(mut self, entries: Vec<(u64, Verified<Statement>)>) -> Result<Proven, ProofFileError> {
        self.rests = Rests::of(&entries);
        for (index, statement) in &entries {
            self.take(*index, statement)?;
        }
        self.entries = entries;
        let pending = self.rules.pending().next().cloned();
        let Self {
            checkpoint,
            rosters,
            request,
            entries,
            ..
        } = self;
        let request = request.ok_or(ProofFileError::Order)?;
        Ok(Proven {
            gate: *checkpoint.gate(),
            checkpoint,
            rosters,
            request,
            entries,
            pending,
        })
    }

    fn take(&mut self, index: u64, statement: &Verified<Statement>) -> Result<(), ProofFileError> {
        let wrong = |kind| ProofFileError::Entry(Finding { index, kind });
        if self.ended {
            return Err(ProofFileError::Order);
        }
        if let Some(rests) = self.rests.as_mut().filter(|rests| rests.concerns(statement)) {
            let step = rests
                .take(index, &self.checkpoint, &self.rules, statement)
                .map_err(wrong)?;
            self.rules.heard(statement);
            if let Some(step) = step {
                self.rules.apply(step);
            }
            return Ok(());
        }
        match self.rosters.last().cloned() {
            None => self.begin(index, statement)?,
            Some(force) => self.admit(index, &force, statement).map_err(wrong)?,
        }
        self.own = self.own.saturating_add(1);
        // The request comes second: whatever else could come before it doesn't concern it.
        if self.own == 2 && self.request.is_none() {
            return Err(ProofFileError::Order);
        }
        Ok(())
    }

    fn include(&self, line: &Line) -> Result<(), ProofFileError> {
        let index = line.index;
        let hashes: Option<Vec<TreeHash>> = line
            .proof
            .iter()
            .map(|hash| STANDARD.decode(hash).ok()?.try_into().ok())
            .collect();
        let hashes = hashes.ok_or(ProofFileError::Spelling)?;
        let leaf = leaf_hash(line.statement.as_bytes());
        verify_inclusion(&hashes, self.checkpoint.size(), &self.checkpoint.root(), index, &leaf)
            .map_err(|error| ProofFileError::Inclusion { index, error })
    }

    /// The first entry: the roster that was in force, on the gate's word that it was.
    fn begin(&mut self, index: u64, statement: &Verified<Statement>) -> Result<(), ProofFileError> {
        let roster = statement.roster().ok_or(ProofFileError::Order)?;
        self.rules
            .said_by_gate(self.checkpoint.gate(), statement)
            .map_err(|kind| ProofFileError::Entry(Finding { index, kind }))?;
        self.rosters.push(roster.clone());
        self.rules.apply(Step::Roster { roster, closes: None });
        Ok(())
    }

    fn admit(
        &mut self,
        index: u64,
        force: &Verified<Roster>,
        statement: &Verified<Statement>,
    ) -> Result<(), FindingKind> {
        if let Some(roster) = statement.roster().filter(|roster| self.is_of_another_request(roster)) {
            self.rules.said_by_gate(&force.gate, statement)?;
            self.rules.is_next(force, &roster)?;
            match (force.is_enrolled(), roster.basis) {
                (true, None) => return Err(FindingKind::NoBasis),
                (false, Some(_)) => return Err(FindingKind::Basis),
                _ => {}
            }
            self.rosters.push(roster.clone());
            self.rules.apply(Step::Roster { roster, closes: None });
            return Ok(());
        }
        let within = |seen: &Checkpoint| {
            // Its root can't be compared without the entries; that the device saw no longer log than this can.
            if seen.size() <= index {
                Ok(())
            } else {
                Err(FindingKind::LateCheckpoint(seen.size()))
            }
        };
        let (step, did, _) = self.judged(statement, &|rules| rules.step(index, statement, &within))?;
        match did {
            Did::Revoked => return Err(FindingKind::Misplaced(statement.kind())),
            Did::Asked if self.request.is_some() => return Err(FindingKind::Misplaced(statement.kind())),
            Did::Asked => self.request = statement.request(),
            Did::Changed => self.rosters.extend(statement.roster()),
            _ => {}
        }
        self.ended = matches!(did, Did::Ended | Did::Changed);
        self.rules.apply(step);
        Ok(())
    }

    /// By the rules, and where these depend on how often rules of the policy were used, by the gate's word for that: it is enough
    /// that it could be so.
    fn judged(
        &self,
        statement: &Verified<Statement>,
        step: &dyn Fn(&Rules) -> Result<Judged, FindingKind>,
    ) -> Result<Judged, FindingKind> {
        let first = step(&self.rules);
        if first.is_ok() {
            return first;
        }
        let could_be = rests::could_be_used_up(&self.rules, self.request.as_ref(), statement);
        let mut others = could_be
            .into_iter()
            .map(|used_up| step(&self.rules.with_standing(self.rules.standing().said(used_up))));
        others.find(Result::is_ok).unwrap_or(first)
    }

    fn is_of_another_request(&self, roster: &Roster) -> bool {
        roster.basis.is_none() || roster.basis != self.request.as_ref().map(Verified::digest)
    }
}

#[cfg(test)]
mod tests;
