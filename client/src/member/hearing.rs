//! What a device hears from its gate: above all parts of the transcript, of which nothing is kept before all was checked. A gate that contradicts
//! itself is written down. The rules of the transcript themselves are in `approval::replay`.

use approval::Signed;
use approval::checkpoint::Checkpoint;
use approval::message::Message;

use super::work::Batch;
use super::{Member, Notice};
use crate::clock::wall;
use crate::party::{PartyError, Turn, membership};

impl Member {
    pub(super) async fn gate_says(
        &mut self,
        turn: &mut Turn,
        batch: &mut Batch,
        message: Message,
    ) -> Result<bool, PartyError> {
        match message {
            Message::Entries {
                first,
                checkpoint,
                leaves,
            } => self.entries(turn, batch, first, &checkpoint, &leaves).await,
            Message::Refusal { about, code, text } => {
                let text = text.as_untrusted().to_owned();
                let answered = about.as_bytes();
                turn.tx.answered(answered).await?;
                turn.tx.answered(&answered[..16]).await?;
                turn.tx.add_refusal(answered, code.number(), &text).await?;
                batch.notices.push(Notice::Refused { about, code, text });
                Ok(false)
            }
            Message::Address { envelope_key } => {
                if let Some(gate) = turn.tx.peer(&self.party.gate).await? {
                    turn.tx.set_peer(&crate::store::Peer { envelope_key, ..gate }).await?;
                }
                Ok(false)
            }
            // Only devices say these.
            Message::Decision(_) | Message::Revocation(_) | Message::Ack { .. } | Message::Propose { .. } => Ok(false),
        }
    }

    /// Takes in a part of the transcript: nothing of it before all of it was checked, and its checkpoint is its root.
    async fn entries(
        &mut self,
        turn: &mut Turn,
        batch: &mut Batch,
        first: u64,
        note: &str,
        leaves: &[Signed],
    ) -> Result<bool, PartyError> {
        let replay = batch.replay.as_ref().unwrap_or(&self.party.replay);
        let size = replay.size();
        let Ok(checkpoint) = Checkpoint::verify(note, &self.party.gate) else {
            return self
                .accuse(turn, batch, "sent a checkpoint that it didn't sign", note.as_bytes())
                .await;
        };
        if checkpoint.size() != first.saturating_add(leaves.len() as u64) {
            return self
                .accuse(
                    turn,
                    batch,
                    "signed a checkpoint for other entries than it sent",
                    note.as_bytes(),
                )
                .await;
        }
        if first > size {
            // A gap: our acknowledgement at the end of the batch says where we are, and the gate sends the rest.
            return Ok(false);
        }
        let (old, new) = leaves.split_at(usize::try_from(size - first).unwrap_or(usize::MAX).min(leaves.len()));
        let kept = turn.tx.entries(first, old.len() as u64).await?;
        if kept
            .iter()
            .zip(old)
            .any(|(kept, sent)| kept.as_bytes() != sent.as_bytes())
        {
            return self
                .accuse(turn, batch, "rewrote entries that it had sent before", note.as_bytes())
                .await;
        }
        if checkpoint.size() <= size {
            let known = turn.tx.root_at(checkpoint.size()).await?;
            if known.is_some_and(|root| root != checkpoint.root()) {
                return self
                    .accuse(turn, batch, "signed two histories of the same size", note.as_bytes())
                    .await;
            }
            if checkpoint.size() == size {
                batch.notices.push(Notice::Head);
            }
            return Ok(false);
        }
        let mut next = replay.clone();
        let mut entries = Vec::with_capacity(new.len());
        for leaf in new {
            match next.next(leaf.as_bytes()) {
                Ok(entry) => entries.push(entry),
                Err(finding) => {
                    return self
                        .accuse(
                            turn,
                            batch,
                            &format!("broke the rules of the transcript: {finding}"),
                            leaf.as_bytes(),
                        )
                        .await;
                }
            }
        }
        if next.root() != checkpoint.root() {
            return self
                .accuse(
                    turn,
                    batch,
                    "signed a checkpoint that isn't the root of what it sent",
                    note.as_bytes(),
                )
                .await;
        }
        for entry in entries {
            let statement = entry.statement();
            turn.tx
                .add_entry(
                    entry.index(),
                    &statement.digest(),
                    statement.kind().as_str(),
                    statement.signed().as_bytes(),
                )
                .await?;
            turn.tx.answered(statement.digest().as_bytes()).await?;
            if let Some(roster) = statement.roster() {
                self.rosters.insert(*roster.digest().as_bytes(), membership(&roster));
            }
            batch.notices.push(Notice::Entry(Box::new(entry)));
        }
        turn.tx.add_checkpoint(&checkpoint).await?;
        batch.replay = Some(next);
        self.check_group(turn, batch).await?;
        Ok(true)
    }

    /// As soon as the roster that the group names is known, the group must be what that roster says.
    async fn check_group(&mut self, turn: &mut Turn, batch: &mut Batch) -> Result<(), PartyError> {
        let roster = batch.replay.as_ref().unwrap_or(&self.party.replay).roster().cloned();
        let (Some(group), Some(roster)) = (&turn.group, roster) else {
            return Ok(());
        };
        if group.roster() == *roster.digest().as_bytes()
            && let Err(refused) = group.check(&membership(&roster))
        {
            self.accuse(
                turn,
                batch,
                &format!("made a group that isn't what the roster says: {refused}"),
                &group.roster().clone(),
            )
            .await?;
        }
        Ok(())
    }

    async fn accuse(&self, turn: &mut Turn, batch: &mut Batch, what: &str, bytes: &[u8]) -> Result<bool, PartyError> {
        let what = format!("the gate {what}");
        turn.tx.add_evidence(wall(), &what, bytes).await?;
        batch.notices.push(Notice::Evidence(what));
        Ok(false)
    }
}
