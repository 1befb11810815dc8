//! One approval alone, taken out of a transcript so that a single case can be shown without the rest.
//!
//! PROTOCOL.md 15. What it shows: the gate signed a log that holds these entries at these positions, and by the rules of
//! 10.4 they lead to this end. What it can't show: that the log holds nothing else about the request, and how the roster
//! came into force; for these the whole transcript is needed ([`crate::export`]).

use std::io::{self, Read};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use thiserror::Error;
use wire::identity::PartyId;

use crate::checkpoint::{Checkpoint, CheckpointError};
use crate::export::Expect;
use crate::json::object;
use crate::replay::rules::{Rules, Step};
use crate::replay::{Did, Entry, Finding, FindingKind, Pending};
use crate::request::Request;
use crate::roster::Roster;
use crate::scalar::Digest;
use crate::statement::{Signed, Statement, Verified};
use crate::transcript::{ProofError, Tree, TreeHash, leaf_hash, verify_inclusion};

/// Bytes of a proof file: two statements for each of the 64 devices that a roster may have, and some rosters.
pub const PROOF_BYTES: usize = 16 * 1024 * 1024;

/// How every proof file begins.
pub const BEGINNING: &str = r#"{"countersign":"proof","#;

/// Requests that are named where a shortened id fits several.
const NAMED: usize = 10;

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

    /// All entries of the proof with their positions.
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
    Case::new(checkpoint).follow(&file.entries)
}

/// The rules of 10.4, as far as they concern the one request.
struct Case {
    checkpoint: Checkpoint,
    rules: Rules,
    entries: Vec<(u64, Verified<Statement>)>,
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
            entries: Vec::new(),
            rosters: Vec::new(),
            request: None,
            ended: false,
        }
    }

    fn follow(mut self, lines: &[Line]) -> Result<Proven, ProofFileError> {
        for line in lines {
            let ascends = self.entries.last().is_none_or(|(before, _)| *before < line.index);
            if !ascends || self.ended {
                return Err(ProofFileError::Order);
            }
            self.include(line)?;
            let wrong = |kind| {
                ProofFileError::Entry(Finding {
                    index: line.index,
                    kind,
                })
            };
            let statement = line
                .statement
                .verify()
                .map_err(|error| wrong(FindingKind::Statement(error)))?;
            match self.rosters.last().cloned() {
                None => self.begin(&statement)?,
                Some(force) => self.admit(line.index, &force, &statement).map_err(wrong)?,
            }
            self.entries.push((line.index, statement));
            // The request comes second: whatever else could come before it doesn't concern it.
            if self.entries.len() == 2 && self.request.is_none() {
                return Err(ProofFileError::Order);
            }
        }
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
    fn begin(&mut self, statement: &Verified<Statement>) -> Result<(), ProofFileError> {
        let roster = statement
            .roster()
            .filter(|roster| roster.gate == *self.checkpoint.gate());
        let roster = roster.ok_or(ProofFileError::Order)?;
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
            self.rules.said_by_gate(force, statement)?;
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
        let (step, did, _) = self.rules.step(index, statement, &within)?;
        match did {
            Did::Asked if self.request.is_some() => return Err(FindingKind::Misplaced(statement.kind())),
            Did::Asked => self.request = statement.request(),
            Did::Changed => self.rosters.extend(statement.roster()),
            _ => {}
        }
        self.ended = matches!(did, Did::Ended | Did::Changed);
        self.rules.apply(step);
        Ok(())
    }

    fn is_of_another_request(&self, roster: &Roster) -> bool {
        roster.basis.is_none() || roster.basis != self.request.as_ref().map(Verified::digest)
    }
}

/// Why no proof was made.
#[derive(Debug, Error, Clone, PartialEq, Eq)]
pub enum ProveError {
    /// Not 4 to 64 lower-case hex digits.
    #[error("an id has 4 to 64 digits of 0-9 a-f")]
    Id,
    /// No request has an id that begins so.
    #[error("no request has this id")]
    NotFound,
    /// Several have.
    #[error("several requests have an id that begins so")]
    Ambiguous(Vec<Digest>),
    /// The checkpoint isn't over the entries that were seen.
    #[error("the checkpoint is not over these entries")]
    Checkpoint,
}

/// Collects what concerns one request while a transcript is read.
#[derive(Debug, Clone)]
pub struct Prover {
    id: String,
    tree: Tree,
    /// The roster in force.
    force: Option<(u64, Signed)>,
    found: Vec<Digest>,
    entries: Vec<(u64, Signed)>,
    ended: bool,
}

impl Prover {
    /// For the one request whose digest begins with these hex digits.
    ///
    /// # Errors
    /// [`ProveError::Id`] if they can't be the beginning of a digest, or are fewer than four.
    pub fn new(id: &str) -> Result<Self, ProveError> {
        let hex = id.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        if !hex || !(4..=64).contains(&id.len()) {
            return Err(ProveError::Id);
        }
        let id = id.to_owned();
        Ok(Self {
            id,
            tree: Tree::new(),
            force: None,
            found: Vec::new(),
            entries: Vec::new(),
            ended: false,
        })
    }

    /// Takes in the next entry of the transcript: all of them, from the first on.
    pub fn take(&mut self, entry: &Entry) {
        let signed = entry.statement().signed();
        self.tree.append_hash(leaf_hash(signed.as_bytes()));
        let is_roster = matches!(entry.statement().get(), Statement::Roster(_));
        if is_roster {
            self.force = Some((entry.index(), signed.clone()));
        }
        let request = entry.request().map(|(_, digest)| digest);
        if entry.did() == Did::Asked {
            self.consider(entry);
        } else if !self.ended && !self.entries.is_empty() {
            let about = request.is_some() && request.as_ref() == self.found.first();
            if about || is_roster {
                self.entries.push((entry.index(), signed.clone()));
            }
            self.ended = about && matches!(entry.did(), Did::Ended | Did::Changed);
        }
    }

    fn consider(&mut self, asked: &Entry) {
        let digest = asked.statement().digest();
        if !digest.to_string().starts_with(&self.id) || self.found.len() >= NAMED {
            return;
        }
        self.found.push(digest);
        if self.entries.is_empty() {
            self.entries.extend(self.force.clone());
            self.entries.push((asked.index(), asked.statement().signed().clone()));
        }
    }

    /// The text of the proof file, once the whole transcript was taken in and held.
    ///
    /// # Errors
    /// [`ProveError`] if it isn't exactly one request, or the checkpoint isn't over the entries.
    pub fn finish(self, checkpoint: &Checkpoint) -> Result<String, ProveError> {
        match self.found.as_slice() {
            [] => return Err(ProveError::NotFound),
            [_] => {}
            several => return Err(ProveError::Ambiguous(several.to_vec())),
        }
        let prove = |(index, statement): &(u64, Signed)| {
            let hashes = self
                .tree
                .prove_inclusion(checkpoint.size(), *index)
                .map_err(|_| ProveError::Checkpoint)?;
            let leaf = leaf_hash(statement.as_bytes());
            verify_inclusion(&hashes, checkpoint.size(), &checkpoint.root(), *index, &leaf)
                .map_err(|_| ProveError::Checkpoint)?;
            let proof = hashes.iter().map(|hash| STANDARD.encode(hash)).collect();
            Ok(Line {
                index: *index,
                statement: statement.clone(),
                proof,
            })
        };
        let entries = self.entries.iter().map(prove).collect::<Result<_, _>>()?;
        let file = File {
            countersign: "proof".to_owned(),
            v: 1,
            gate: *checkpoint.gate(),
            checkpoint: checkpoint.as_str().to_owned(),
            entries,
        };
        write(&file).map_err(|_| ProveError::Checkpoint)
    }
}

#[cfg(test)]
mod tests;
