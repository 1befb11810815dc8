//! A request that has not ended, with what was said about it (PROTOCOL.md 10.4). Not here: which statement may be next.

use crate::checkpoint::Checkpoint;
use crate::decide::{Case, Verdict};
use crate::decision::Decision;
use crate::permit::Permission;
use crate::request::Request;
use crate::roster::Roster;
use crate::scalar::Time;
use crate::standing::Standing;
use crate::statement::Verified;

/// A request that has not ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pending {
    pub(super) request: Verified<Request>,
    pub(super) decisions: Vec<Verified<Decision>>,
    /// The checkpoint that each decision quotes, verified when it was recorded: it isn't verified again for each verdict.
    pub(super) seen: Vec<Checkpoint>,
    pub(super) permit: Option<Verified<Permission>>,
}

impl Pending {
    /// As it was kept. `seen` are the checkpoints that the decisions quote.
    pub(in crate::replay) fn resumed(
        request: Verified<Request>,
        decisions: Vec<Verified<Decision>>,
        seen: Vec<Checkpoint>,
        permit: Option<Verified<Permission>>,
    ) -> Self {
        Self {
            request,
            decisions,
            seen,
            permit,
        }
    }

    /// The request.
    #[must_use]
    pub fn request(&self) -> &Verified<Request> {
        &self.request
    }

    /// The decisions recorded so far, in transcript order.
    #[must_use]
    pub fn decisions(&self) -> &[Verified<Decision>] {
        &self.decisions
    }

    /// The permit, if it was given: then no decision counts any more.
    #[must_use]
    pub fn permit(&self) -> Option<&Verified<Permission>> {
        self.permit.as_ref()
    }

    /// What [`decide`](crate::decide::decide) says by what stands and this roster at this time.
    #[must_use]
    pub fn decide(&self, standing: &Standing, roster: &Verified<Roster>, now: Time) -> Verdict {
        self.case(standing, roster, now).verdict()
    }

    pub(super) fn case<'a>(&'a self, standing: &'a Standing, roster: &'a Verified<Roster>, now: Time) -> Case<'a> {
        Case {
            request: &self.request,
            decisions: &self.decisions,
            seen: self.seen.iter().map(|seen| Some(seen.size())).collect(),
            standing,
            roster,
            now,
        }
    }
}
