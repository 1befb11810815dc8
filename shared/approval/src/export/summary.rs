//! What a person wants to know of a transcript that holds. Whether it does is found out in [`super`].

use wire::identity::PartyId;

use crate::outcome::Ended;
use crate::permit::Basis;
use crate::replay::{Did, Entry, Pending};
use crate::scalar::Time;
use crate::statement::Statement;
use crate::transcript::TreeHash;

/// How many requests ended how, and everything else a person wants to know of a transcript that holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Summary {
    /// The gate.
    pub gate: PartyId,
    /// Number of entries.
    pub size: u64,
    /// Root over them, signed by the gate.
    pub root: TreeHash,
    /// The checkpoint's text.
    pub checkpoint: String,
    /// People in the roster in force.
    pub people: usize,
    /// Admins among them.
    pub admins: usize,
    /// The gate's time in the first entry.
    pub first: Option<Time>,
    /// The latest time that the gate stated.
    pub last: Option<Time>,
    /// How the requests ended.
    pub requests: Tally,
}

/// Requests by how they ended, permits by what they rest on, and standing permissions.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    /// Asked in all.
    pub asked: u64,
    /// Permitted, and run.
    pub ran: u64,
    /// Permitted, and handed to whoever asked.
    pub released: u64,
    /// Permitted, but never started.
    pub failed: u64,
    /// Permitted, and nobody can say what happened.
    pub unknown: u64,
    /// Permitted, and the roster was changed accordingly.
    pub changed: u64,
    /// An admin said no.
    pub denied: u64,
    /// The policy said no.
    pub forbidden: u64,
    /// Nobody said yes in time.
    pub expired: u64,
    /// Taken back.
    pub withdrawn: u64,
    /// Permitted, and not ended when the transcript was exported.
    pub permitted: u64,
    /// Not answered when the transcript was exported.
    pub open: u64,
    /// Permits that rest on a grant.
    pub by_grant: u64,
    /// Permits that rest on the policy alone.
    pub by_policy: u64,
    /// Permits that rest on nothing, because there was no admin yet.
    pub unenrolled: u64,
    /// Grants given.
    pub granted: u64,
    /// Grants taken back.
    pub revoked: u64,
}

impl Tally {
    /// Counts what an entry did.
    pub(super) fn count(&mut self, entry: &Entry) {
        let counter = match (entry.did(), entry.statement().get()) {
            (Did::Asked, _) => &mut self.asked,
            (Did::Changed, _) => &mut self.changed,
            (Did::Ended, Statement::Outcome(outcome)) => match outcome.result {
                Ended::Ran(_) => &mut self.ran,
                Ended::Released(_) => &mut self.released,
                Ended::Failed(_) => &mut self.failed,
                Ended::Unknown(_) => &mut self.unknown,
                Ended::Denied(_) => &mut self.denied,
                Ended::Forbidden(_) => &mut self.forbidden,
                Ended::Expired(_) => &mut self.expired,
                Ended::Withdrawn(_) => &mut self.withdrawn,
            },
            (_, Statement::Permit(permit)) => match permit.basis {
                Basis::Decisions(_) => return,
                Basis::Grant(_) => &mut self.by_grant,
                Basis::Rule(_) | Basis::Mode(_) => &mut self.by_policy,
                Basis::Unenrolled(_) => &mut self.unenrolled,
            },
            (_, Statement::Grant(_)) => &mut self.granted,
            (_, Statement::Revocation(_)) => &mut self.revoked,
            _ => return,
        };
        *counter += 1;
    }

    /// Counts a request that hasn't ended.
    pub(super) fn count_pending(&mut self, pending: &Pending) {
        if pending.permit().is_some() {
            self.permitted += 1;
        } else {
            self.open += 1;
        }
    }
}
