//! Reading a transcript from its first entry on, as an auditor does: each entry is admitted by the rules, or it is a
//! finding and nothing is changed.
//!
//! PROTOCOL.md 10.3 and 10.4. The gate and the members of its group admit their entries through the very same replay. The
//! rules about a single entry are in `replay/rules.rs`; files are in [`crate::export`]; nothing here reads a file or a clock.

use std::collections::VecDeque;

use thiserror::Error;
use wire::identity::PartyId;

use crate::action::Action;
use crate::checkpoint::{Checkpoint, CheckpointError};
use crate::decide::{Demands, Verdict};
use crate::escape::escape;
use crate::grant::{Grant, NotGrantable};
use crate::request::AskedBy;
use crate::roster::Roster;
use crate::scalar::{Digest, Time};
use crate::standing::{GRANTS, Standing};
use crate::statement::{Kind, Signed, Statement, StatementError, Verified};
use crate::transcript::{Log, TreeHash, leaf_hash};

pub(crate) mod rules;
mod snapshot;

pub use rules::{OPEN_REQUESTS, Pending};
use rules::{Rules, Step};
pub use snapshot::Snapshot;

/// The first entry that may not stand where it stands.
#[derive(Debug, Error, Clone, PartialEq, Eq)]
#[error("entry {index}: {kind}")]
pub struct Finding {
    /// Its position in the transcript, from 0.
    pub index: u64,
    /// What is wrong with it.
    pub kind: FindingKind,
}

/// What is wrong with an entry. The messages are safe to show.
#[derive(Debug, Error, Clone, PartialEq, Eq)]
pub enum FindingKind {
    /// Not a signed statement whose signature and payload hold.
    #[error("{}", escape(&.0.to_string()))]
    Statement(StatementError),
    /// The first entry is something else than a roster of epoch 0.
    #[error("the first entry is not a genesis roster")]
    NotGenesis,
    /// A transcript of another gate than the expected one.
    #[error("of the gate {found}, not of {expected}")]
    OtherGate {
        /// The gate that was expected, or that began this transcript.
        expected: PartyId,
        /// The gate that the entry names.
        found: PartyId,
    },
    /// Only the gate may say this.
    #[error("a {0} that the gate did not sign")]
    NotByGate(Kind),
    /// A kind that doesn't belong in a transcript.
    #[error("a {0} has no place in a transcript")]
    Misplaced(Kind),
    /// The gate's clock ran backwards.
    #[error("time runs backwards, from {from} to {to} milliseconds", from = .from.millis(), to = .to.millis())]
    Time {
        /// The time of the gate's statement before.
        from: Time,
        /// The time of this one.
        to: Time,
    },
    /// The roster isn't the next one after the one in force.
    #[error("a roster that does not follow the one in force")]
    NotNext,
    /// A roster was changed by the gate alone although there are admins to ask.
    #[error("the roster is changed without the admins")]
    NoBasis,
    /// A roster cites a basis although nobody can have agreed to it.
    #[error("the roster cites a basis although there is no admin who could have agreed")]
    Basis,
    /// A roster without an admin after one with: the gate alone would say again who is one.
    #[error("the roster leaves nobody who may decide")]
    NobodyLeft,
    /// The basis isn't a roster request that was permitted.
    #[error("the roster's basis is not a permitted request for a roster")]
    NotPermittedBasis,
    /// The roster isn't the one that was permitted.
    #[error("the roster differs from the one that was permitted")]
    OtherRoster,
    /// A request that was made for another position.
    #[error("a request for position {0}")]
    Moved(u64),
    /// The statement names a roster that isn't in force.
    #[error("names a roster that is not in force")]
    OldRoster,
    /// Another answer for a gate without admins than the one that it began with.
    #[error("the roster changes what happens while there is no admin")]
    Unenrolled,
    /// The request's quorum isn't the policy's.
    #[error("the request needs {found} to approve where the policy in force says {expected}")]
    Need {
        /// What roster and policy say for its action.
        expected: u16,
        /// The request's.
        found: u16,
    },
    /// The request's class of risk, veto or four eyes aren't the policy's.
    #[error("the request's terms of risk are not those of the policy in force")]
    Risk,
    /// The request asks for a number although the policy doesn't, or the reverse.
    #[error("the request differs from the policy in force in whether approvals must repeat a number")]
    Number,
    /// The request lives longer than the policy says.
    #[error("the request lives {found} milliseconds where the policy in force says {longest} at most")]
    Life {
        /// What the policy says for its action.
        longest: u64,
        /// The request's.
        found: u64,
    },
    /// More requests open than anybody reads.
    #[error("more than {OPEN_REQUESTS} requests open at once")]
    TooManyOpen,
    /// The statement is about a request that isn't open here.
    #[error("about a request that is not open")]
    NotOpen,
    /// The statement is about a request that is permitted already.
    #[error("about a request that is permitted already")]
    PermittedAlready,
    /// The outcome needs a permit that wasn't given.
    #[error("an outcome of a request that was not permitted")]
    NotPermitted,
    /// The outcome cites another permit.
    #[error("cites another permit than the request's")]
    OtherPermit,
    /// The signer of a decision or revocation has no say.
    #[error("said by somebody who is not an admin")]
    NotAdmin,
    /// The decision stands in the log already.
    #[error("a decision that was recorded before")]
    Repeated,
    /// The decision quotes something that isn't the gate's checkpoint.
    #[error("the decision quotes {0}")]
    Checkpoint(CheckpointError),
    /// The decision quotes a checkpoint from before the request.
    #[error("the decision quotes a checkpoint from before the request")]
    EarlyCheckpoint,
    /// The decision quotes a checkpoint of a longer log than this one.
    #[error("the decision quotes a checkpoint of {0} entries: this log had been longer")]
    LateCheckpoint(u64),
    /// The gate has shown an admin another history.
    #[error("the gate has signed another history: the first {0} entries differ from those that an admin saw")]
    Fork(u64),
    /// The permit was given although it may not be.
    #[error("permitted although {0}")]
    Undecided(&'static str),
    /// The permit names other decisions than those that count.
    #[error("the permit names other decisions than those that count")]
    OtherDecisions,
    /// The permit rests on something else than what opened the request.
    #[error("the permit rests on something else than what opened the request")]
    OtherBasis,
    /// The grant was given although it may not be.
    #[error("granted although {0}")]
    Ungranted(&'static str),
    /// The action can't be granted so.
    #[error("{0}")]
    NotGrantable(NotGrantable),
    /// The grant cites approvals that don't carry it.
    #[error(
        "the grant cites other decisions than approvals that count and carry its terms, of enough people, each once"
    )]
    NotCarried,
    /// The same was granted before by the same approvals: its uses would be counted anew.
    #[error("the request was granted on these terms before")]
    GrantedAlready,
    /// More grants than anybody looks through.
    #[error("more than {GRANTS} grants stand")]
    TooManyGrants,
    /// The revocation is about nothing that was granted.
    #[error("revokes a grant that was never given")]
    NoGrant,
    /// The revocation comes after another.
    #[error("revokes a grant that is revoked already")]
    RevokedAlready,
    /// Something else than a command is said to have run.
    #[error("said to have run, but it was no command")]
    NotACommand,
    /// A command or a roster is said to be handed over.
    #[error("said to be handed over, but it was neither a tool call nor a secret")]
    NotReleasable,
    /// Said to be forbidden, but the policy doesn't forbid it, or by another rule.
    #[error("ended as forbidden, but the policy in force does not forbid it so")]
    NotForbidden,
    /// Said to be denied, but nobody denied it who may.
    #[error("ended as denied, but no admin has denied it")]
    NotDenied,
    /// Said to be expired before its time.
    #[error("ended as expired before it expired")]
    NotExpired,
    /// Checked against another state than it is admitted to.
    #[error("was checked against another state of the transcript")]
    Stale,
}

/// What an entry did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Did {
    /// Began the transcript.
    Began,
    /// Put another roster in force on the gate's word alone: there was no admin yet.
    Enrolled,
    /// Put the roster in force that the admins had agreed to, and so ended the request for it.
    Changed,
    /// Opened a request.
    Asked,
    /// Recorded a person's decision.
    Decided,
    /// Gave leave.
    Permitted,
    /// Gave leave for good, to what is like a request.
    Granted,
    /// Took such leave back.
    Revoked,
    /// Ended a request.
    Ended,
}

/// An entry that may stand where it stands.
#[derive(Debug, Clone)]
pub struct Entry {
    index: u64,
    statement: Verified<Statement>,
    did: Did,
    request: Option<(u64, Digest)>,
}

impl Entry {
    /// Its position, from 0.
    #[must_use]
    pub fn index(&self) -> u64 {
        self.index
    }

    /// What it says, verified.
    #[must_use]
    pub fn statement(&self) -> &Verified<Statement> {
        &self.statement
    }

    /// What it did.
    #[must_use]
    pub fn did(&self) -> Did {
        self.did
    }

    /// Position and digest of the request that it is about; for a request its own, for a revocation that of the grant.
    #[must_use]
    pub fn request(&self) -> Option<(u64, Digest)> {
        self.request
    }
}

/// An entry that passed [`Replay::check`] and waits to be admitted: the gate writes it to its store in between.
#[derive(Debug, Clone)]
pub struct Checked {
    entry: Entry,
    step: Step,
    /// Root of the log before it.
    before: TreeHash,
}

impl Checked {
    /// The entry.
    #[must_use]
    pub fn entry(&self) -> &Entry {
        &self.entry
    }
}

/// The state of a transcript after the entries read so far. Its memory grows with the requests that are open and with the
/// entries since the oldest of them. Cloning shares the statements.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Replay {
    log: Log,
    rules: Rules,
    /// Roots at every size since the oldest open request, the last one at the present size.
    roots: VecDeque<TreeHash>,
    /// The log as it was before the first of these roots, and the hashes of the entries since: what a [`Snapshot`] begins from.
    base: Log,
    leaves: VecDeque<TreeHash>,
}

impl Replay {
    /// Before the first entry. With `gate`, a transcript of any other gate is a finding.
    #[must_use]
    pub fn new(gate: Option<PartyId>) -> Self {
        Self {
            rules: Rules::new(gate),
            ..Self::default()
        }
    }

    /// Checks whether an entry with this exact text may come next. Changes nothing.
    ///
    /// # Errors
    /// The [`Finding`] that the entry would be.
    pub fn check(&self, leaf: &[u8]) -> Result<Checked, Finding> {
        let index = self.log.size();
        let checked = || {
            let statement = Signed::parse(leaf)
                .and_then(|signed| signed.verify())
                .map_err(FindingKind::Statement)?;
            let (step, did, request) = self.rules.step(index, &statement, &|seen| self.is_history(seen))?;
            Ok(Checked {
                entry: Entry {
                    index,
                    statement,
                    did,
                    request,
                },
                step,
                before: self.log.root(),
            })
        };
        checked().map_err(|kind| Finding { index, kind })
    }

    /// Admits an entry that was checked against exactly this state.
    ///
    /// # Errors
    /// [`FindingKind::Stale`] if another entry was admitted since; nothing is changed then.
    pub fn admit(&mut self, checked: Checked) -> Result<Entry, Finding> {
        let Checked { entry, step, before } = checked;
        if entry.index != self.log.size() || before != self.log.root() {
            return Err(Finding {
                index: entry.index,
                kind: FindingKind::Stale,
            });
        }
        self.rules.apply(step);
        let leaf = leaf_hash(entry.statement.signed().as_bytes());
        self.log.append_hash(leaf);
        self.keep_roots(leaf);
        Ok(entry)
    }

    /// Checks and admits the next entry.
    ///
    /// # Errors
    /// The [`Finding`]; nothing is changed then.
    pub fn next(&mut self, leaf: &[u8]) -> Result<Entry, Finding> {
        let checked = self.check(leaf)?;
        self.admit(checked)
    }

    /// Number of entries read.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.log.size()
    }

    /// Root over them.
    #[must_use]
    pub fn root(&self) -> TreeHash {
        self.log.root()
    }

    /// The log's frontier and size.
    #[must_use]
    pub fn log(&self) -> &Log {
        &self.log
    }

    /// The gate: the expected one, or the one that began the transcript.
    #[must_use]
    pub fn gate(&self) -> Option<PartyId> {
        self.rules.gate()
    }

    /// The roster in force. `None` before the first entry.
    #[must_use]
    pub fn roster(&self) -> Option<&Verified<Roster>> {
        self.rules.roster()
    }

    /// The latest time in a statement of the gate. `None` before the first entry.
    #[must_use]
    pub fn time(&self) -> Option<Time> {
        self.rules.time()
    }

    /// The requests that are open or permitted, the oldest first.
    pub fn open(&self) -> impl Iterator<Item = &Pending> {
        self.rules.pending()
    }

    /// The request with this digest, if it is open or permitted.
    #[must_use]
    pub fn request(&self, digest: &Digest) -> Option<&Pending> {
        self.open().find(|pending| pending.request().digest() == *digest)
    }

    /// The grants given so far and the uses of the policy's rules.
    #[must_use]
    pub fn standing(&self) -> &Standing {
        self.rules.standing()
    }

    /// What the policy in force says about an action before it is asked. `None` before the first entry.
    #[must_use]
    pub fn terms_for(&self, action: &Action, asked_by: &AskedBy, now: Time) -> Option<Demands> {
        Some(Demands::of(self.roster()?, self.standing(), action, asked_by, now))
    }

    /// What [`decide`](crate::decide::decide) says now about the request with this digest, if it is open or permitted.
    #[must_use]
    pub fn decide(&self, request: &Digest, now: Time) -> Option<Verdict> {
        let (pending, roster) = (self.request(request)?, self.roster()?);
        Some(pending.decide(self.standing(), roster, now))
    }

    /// A grant that enough people gave beside their approvals of this open request and that isn't in the transcript yet, for the
    /// gate to sign and to append before the permit. People may have given several: there is another one until it is `None`.
    #[must_use]
    pub fn grantable(&self, request: &Digest, now: Time) -> Option<Grant> {
        self.rules.grantable(request, now)
    }

    /// How much a [`Snapshot`] would cite, in statements and times. Where that is much it needn't be kept after every entry.
    #[must_use]
    pub fn snapshot_weight(&self) -> usize {
        let open = self.open().map(|pending| pending.decisions().len().saturating_add(2));
        open.fold(self.standing().weight(), usize::saturating_add)
    }

    /// Whether the quoted checkpoint is of this very log. Only asked about sizes after the oldest open request.
    fn is_history(&self, seen: &Checkpoint) -> Result<(), FindingKind> {
        let Some(back) = self.log.size().checked_sub(seen.size()) else {
            return Err(FindingKind::LateCheckpoint(seen.size()));
        };
        let root = usize::try_from(back)
            .ok()
            .and_then(|back| self.roots.iter().rev().nth(back));
        if root == Some(&seen.root()) {
            Ok(())
        } else {
            Err(FindingKind::Fork(seen.size()))
        }
    }

    fn keep_roots(&mut self, leaf: TreeHash) {
        let Some(oldest) = self.rules.oldest_open() else {
            self.roots.clear();
            self.leaves.clear();
            self.base = self.log.clone();
            return;
        };
        self.roots.push_back(self.log.root());
        self.leaves.push_back(leaf);
        // A decision quotes a size greater than its request's index.
        let needed = usize::try_from(self.log.size().saturating_sub(oldest)).unwrap_or(usize::MAX);
        let surplus = self.roots.len().saturating_sub(needed);
        self.roots.drain(..surplus);
        for leaf in self.leaves.drain(..surplus) {
            self.base.append_hash(leaf);
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
pub(crate) mod fixture;
#[cfg(test)]
mod tests;
