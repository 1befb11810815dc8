//! Which commit a member believes (`PROTOCOL.md`, section 12): MLS lets every member commit, here only the gate does, and only
//! to a roster that this member has verified in the transcript.
//!
//! Making a commit is deliberately not here; that is the gate's part, in `group`.

use openmls::prelude::{
    PrivateMessageIn, ProcessedMessageContent, Proposal, ProposalOrRefType, ProtocolMessage, Sender, StagedCommit,
};

use super::group::verdict;
use super::{ChannelError, Context, Group, Leaf, Membership, Mls, Received, Refused};

impl Group {
    /// Processes a commit of the current epoch, on a copy that is kept only if everything is as it must be: opening a commit
    /// uses its key up, so that one refused (or too early) in place could never be given again.
    pub(super) fn receive_commit(
        &mut self,
        mls: &mut Mls,
        message: PrivateMessageIn,
        membership: &dyn Fn(&[u8; 32]) -> Option<Membership>,
    ) -> Result<Received, ChannelError> {
        let Some(in_force) = membership(&self.roster()) else {
            return Ok(Received::Early);
        };
        let scratch = mls.scratch();
        let mut next = Self::load_from(mls, &scratch)?;
        let processed = match next.inner.process_message(&scratch, ProtocolMessage::from(message)) {
            Ok(processed) => processed,
            Err(error) => return verdict(error),
        };
        let sender = processed.sender().clone();
        let staged = match processed.into_content() {
            ProcessedMessageContent::StagedCommitMessage(staged) => staged,
            ProcessedMessageContent::OwnPrivateMessage => return Ok(Received::Known),
            _ => return Ok(Received::Refused(Refused::BadCommit)),
        };
        let context = match self.judge(&staged, &sender, &in_force) {
            Ok(context) => context,
            Err(refused) => return Ok(Received::Refused(refused)),
        };
        let Some(then) = membership(&context.roster) else {
            return Ok(Received::Early);
        };
        let forgot_past = staged.remove_proposals().next().is_some();
        let removed = staged.self_removed();
        next.inner
            .merge_staged_commit(&scratch, *staged)
            .map_err(ChannelError::broken)?;
        if let Err(refused) = next.check(&then) {
            return Ok(Received::Refused(refused));
        }
        if removed {
            // Nothing of a group that we aren't in is worth keeping, its secrets least of all; a key package for the way back is.
            mls.keep(mls.scratch_without_group());
            *self = next;
            return Ok(Received::Removed);
        }
        if forgot_past {
            next.forget_past(&scratch)?;
        }
        mls.keep(scratch);
        *self = next;
        Ok(Received::Changed {
            epoch: self.epoch(),
            forgot_past,
        })
    }

    /// Looks at a commit before it is applied: who made it, what it holds, and which context it leads to.
    fn judge(&self, staged: &StagedCommit, sender: &Sender, in_force: &Membership) -> Result<Context, Refused> {
        let now = Context::read(self.inner.extensions())?;
        let Sender::Member(index) = sender else {
            return Err(Refused::NotTheGate);
        };
        let committer = self.inner.member_at(*index).ok_or(Refused::NotTheGate)?;
        let is_gate = Leaf::of_member(&committer) == Ok(in_force.gate);
        if !is_gate || in_force.gate.party != now.gate {
            return Err(Refused::NotTheGate);
        }
        let allowed = staged.queued_proposals().all(|proposal| {
            let known = matches!(
                proposal.proposal(),
                Proposal::Add(_) | Proposal::Remove(_) | Proposal::GroupContextExtensions(_)
            );
            known && proposal.proposal_or_ref_type() == ProposalOrRefType::Proposal && proposal.sender() == sender
        });
        if !allowed {
            return Err(Refused::OtherProposals);
        }
        let then = Context::read(staged.group_context().extensions())?;
        (then.gate == now.gate).then_some(then).ok_or(Refused::Context)
    }
}
