//! Taking one approval out of a transcript while that is read, with what its permit rests on (PROTOCOL.md 15). Not here:
//! believing it afterwards.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use thiserror::Error;

use super::{File, Line, write};
use crate::checkpoint::Checkpoint;
use crate::permit::Basis;
use crate::replay::{Did, Entry};
use crate::scalar::Digest;
use crate::statement::{Signed, Statement};
use crate::transcript::{Tree, leaf_hash, verify_inclusion};

/// Requests that are named where a shortened id fits several.
const NAMED: usize = 10;

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
    pub(super) found: Vec<Digest>,
    entries: Vec<(u64, Signed)>,
    /// What was said about the requests that haven't ended.
    open: BTreeMap<Digest, Vec<(u64, Signed)>>,
    /// Each grant with its request and decisions.
    grants: BTreeMap<Digest, Vec<(u64, Signed)>>,
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
            open: BTreeMap::new(),
            grants: BTreeMap::new(),
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
        self.remember(entry);
        let request = entry.request().map(|(_, digest)| digest);
        if matches!(entry.did(), Did::Granted | Did::Revoked) {
            // Only what the permit rests on belongs here, and that comes with it.
        } else if entry.did() == Did::Asked {
            self.consider(entry);
        } else if !self.ended && !self.entries.is_empty() {
            let about = request.is_some() && request.as_ref() == self.found.first();
            if about || is_roster {
                self.entries.push((entry.index(), signed.clone()));
            }
            if about && let Statement::Permit(permit) = entry.statement().get() {
                self.rest_on(&permit.basis);
            }
            self.ended = about && matches!(entry.did(), Did::Ended | Did::Changed);
        }
    }

    fn remember(&mut self, entry: &Entry) {
        let Some((_, request)) = entry.request() else {
            return;
        };
        let (index, signed) = (entry.index(), entry.statement().signed());
        match entry.statement().get() {
            Statement::Request(_) | Statement::Decision(_) => {
                self.open.entry(request).or_default().push((index, signed.clone()));
            }
            Statement::Grant(grant) => {
                let about = self.open.get(&request).into_iter().flatten();
                let needed = about.filter(|(_, signed)| {
                    let digest = signed.digest();
                    digest == request || grant.decisions.contains(&digest)
                });
                let itself = (index, signed.clone());
                self.grants
                    .insert(entry.statement().digest(), needed.cloned().chain([itself]).collect());
            }
            _ if matches!(entry.did(), Did::Ended | Did::Changed) => drop(self.open.remove(&request)),
            _ => {}
        }
    }

    fn rest_on(&mut self, basis: &Basis) {
        let Basis::Grant(grant) = basis else {
            return;
        };
        self.entries
            .extend(self.grants.get(grant).into_iter().flatten().cloned());
        self.entries.sort_by_key(|(index, _)| *index);
        self.entries.dedup_by_key(|(index, _)| *index);
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
