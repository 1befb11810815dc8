//! The rules of 10.4 about grants and revocations, and the grant that a gate may give. Not here: what rests on a grant
//! (`decide`).

use super::{Judged, Pending, Rules, Step};
use crate::decide::Verdict;
use crate::grant::{Grant, NotGrantable, Terms};
use crate::replay::{Did, FindingKind};
use crate::request::Class;
use crate::revocation::Revocation;
use crate::roster::Roster;
use crate::scalar::{Digest, Time};
use crate::standing::{GRANTS, Held};
use crate::statement::Verified;

impl Rules {
    pub(super) fn grant(&self, force: &Verified<Roster>, grant: Verified<Grant>) -> Result<Judged, FindingKind> {
        let (_, pending) = self.find_open(&grant.request)?;
        if grant.roster != force.digest() {
            return Err(FindingKind::OldRoster);
        }
        self.may_be_granted(pending, force, &grant.terms, grant.time)?;
        if !pending.case(&self.standing, force, grant.time).carries(&grant) {
            return Err(FindingKind::NotCarried);
        }
        let about = Some((pending.request.index, grant.request));
        let signer = |digest: &Digest| pending.decisions.iter().find(|decision| decision.digest() == *digest);
        let givers = grant
            .decisions
            .iter()
            .filter_map(signer)
            .map(Verified::signer)
            .collect();
        let held = Held::new(grant, pending.request.clone(), givers);
        Ok((Step::Grant(held), Did::Granted, about))
    }

    pub(super) fn revocation(
        &self,
        force: &Verified<Roster>,
        revocation: Verified<Revocation>,
    ) -> Result<Judged, FindingKind> {
        let held = self.standing.get(&revocation.grant).ok_or(FindingKind::NoGrant)?;
        if force.admin_of(&revocation.signer()).is_none() {
            return Err(FindingKind::NotAdmin);
        }
        if held.revocation().is_some() {
            return Err(FindingKind::RevokedAlready);
        }
        let about = Some((held.request().index, held.request().digest()));
        Ok((Step::Revocation(revocation), Did::Revoked, about))
    }

    /// The first grant that would be admitted now, by the order of the approvals that give it.
    pub(in crate::replay) fn grantable(&self, request: &Digest, now: Time) -> Option<Grant> {
        let (_, pending) = self.find_open(request).ok()?;
        let force = self.roster()?;
        pending.decisions.iter().find_map(|decision| {
            let terms = decision.grant.as_ref()?;
            self.may_be_granted(pending, force, terms, now).ok()?;
            let decisions = pending.case(&self.standing, force, now).granted(terms)?;
            Some(Grant {
                request: *request,
                roster: force.digest(),
                decisions,
                terms: terms.clone(),
                time: now,
            })
        })
    }

    /// All that is asked of a grant but who gives it.
    fn may_be_granted(
        &self,
        pending: &Pending,
        force: &Verified<Roster>,
        terms: &Terms,
        time: Time,
    ) -> Result<(), FindingKind> {
        let request = &pending.request;
        if request.class == Class::Roster {
            return Err(FindingKind::NotGrantable(NotGrantable::Roster));
        }
        terms.may_cover(&request.action).map_err(FindingKind::NotGrantable)?;
        match pending.decide(&self.standing, force, time) {
            Verdict::Open(_) | Verdict::Waiting { .. } => {}
            Verdict::Denied { .. } => return Err(FindingKind::Ungranted("an admin has denied it")),
            Verdict::Forbidden { .. } => return Err(FindingKind::Ungranted("the policy forbids it")),
            Verdict::Expired => return Err(FindingKind::Ungranted("it had expired")),
            Verdict::Refused(_) => return Err(FindingKind::Ungranted("there is nobody to approve it")),
        }
        let same = |held: &Held| held.request().digest() == request.digest() && held.grant().terms == *terms;
        // The latest first: a request's grants come soon after it.
        if self.standing.iter().rev().any(same) {
            return Err(FindingKind::GrantedAlready);
        }
        // Counted one by one only where there may be too many.
        if self.standing.len() >= GRANTS && self.standing.unended(time) >= GRANTS {
            return Err(FindingKind::TooManyGrants);
        }
        Ok(())
    }
}
