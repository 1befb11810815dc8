//! What the gate says to its members: each entry of the transcript under a checkpoint, once when it is appended and again to whoever lacks it.
//! What becomes an entry is decided elsewhere.

use approval::Signed;
use approval::checkpoint::Checkpoint;
use approval::message::Message;
use wire::envelope::Content;

use super::Work;
use crate::gate::Gate;
use crate::party::PartyError;
use crate::store::{Outgoing, Peer};

/// Leaves of one `entries` message, in bytes: what a channel message holds, less its checkpoint and lengths.
const ENTRIES_BYTES: usize = 62_000;

/// A statement appended in this unit, with the tree as it was right after it.
pub(super) struct Appended {
    signed: Signed,
    size: u64,
    root: [u8; 32],
}

impl Gate {
    /// Appends a statement to transcript and database. What the replay refuses is not appended.
    pub(in crate::gate) async fn append(&mut self, work: &mut Work, statement: &Signed) -> Result<(), PartyError> {
        let position = self.party.replay.size();
        let entry = self.party.replay.next(statement.as_bytes())?;
        let statement = entry.statement();
        work.turn
            .tx
            .add_entry(
                position,
                &statement.digest(),
                statement.kind().as_str(),
                statement.signed().as_bytes(),
            )
            .await?;
        let appended = Appended {
            signed: statement.signed().clone(),
            size: self.party.replay.size(),
            root: self.party.replay.root(),
        };
        work.appended.push(appended);
        work.changed = true;
        Ok(())
    }

    /// Sends what was appended since the last call to every member, under the group's present epoch.
    pub(in crate::gate) async fn publish(&mut self, work: &mut Work) -> Result<(), PartyError> {
        let appended = std::mem::take(&mut work.appended);
        let mut rest = appended.as_slice();
        while let Some(first) = rest.first() {
            let mut bytes = 0;
            let count = rest.iter().take_while(|entry| {
                bytes += entry.signed.as_bytes().len() + 4;
                bytes <= ENTRIES_BYTES || bytes == entry.signed.as_bytes().len() + 4
            });
            let (now, later) = rest.split_at(count.count().max(1));
            rest = later;
            let Some(last) = now.last() else { break };
            let checkpoint = Checkpoint::sign(&self.party.identity, last.size, last.root);
            work.turn.tx.add_checkpoint(&checkpoint).await?;
            let leaves = now.iter().map(|entry| entry.signed.clone()).collect();
            let message = Message::Entries {
                first: first.size - 1,
                checkpoint: checkpoint.as_str().to_owned(),
                leaves,
            };
            self.broadcast(work, &message, last.size).await?;
        }
        Ok(())
    }

    async fn broadcast(&mut self, work: &mut Work, message: &Message, covers: u64) -> Result<(), PartyError> {
        let peers = work.turn.tx.peers().await?;
        if peers.is_empty() {
            return Ok(());
        }
        let sealed = work.turn.encrypt(&self.party.leaf, message)?;
        for peer in peers {
            self.party
                .post(
                    &mut work.turn.tx,
                    &peer,
                    Content::Mls,
                    &sealed,
                    Outgoing::Entries,
                    covers,
                )
                .await?;
        }
        Ok(())
    }

    /// Sends one member the transcript from a size on, a few messages' worth.
    pub(in crate::gate) async fn catch_up(
        &mut self,
        work: &mut Work,
        peer: &Peer,
        from: u64,
    ) -> Result<(), PartyError> {
        const MESSAGES: usize = 8;
        work.turn.tx.drop_kind(&peer.party, Outgoing::Entries).await?;
        let mut from = from;
        for _ in 0..MESSAGES {
            let checkpoints = work.turn.tx.checkpoints_after(from, 256).await?;
            let Some((furthest, _)) = checkpoints.last() else { break };
            let entries = work.turn.tx.entries(from, furthest.saturating_sub(from)).await?;
            let mut bytes = 0;
            let fit = entries.iter().take_while(|entry| {
                bytes += entry.as_bytes().len() + 4;
                bytes <= ENTRIES_BYTES
            });
            // At least up to the next checkpoint: it was published in one message before.
            let fit = from.saturating_add(fit.count() as u64);
            let Some((size, note)) = checkpoints
                .iter()
                .rfind(|(size, _)| *size <= fit)
                .or(checkpoints.first())
            else {
                break;
            };
            let count = usize::try_from(size.saturating_sub(from)).unwrap_or(usize::MAX);
            let leaves = entries.into_iter().take(count).collect();
            let message = Message::Entries {
                first: from,
                checkpoint: note.clone(),
                leaves,
            };
            let sealed = work.turn.encrypt(&self.party.leaf, &message)?;
            self.party
                .post(&mut work.turn.tx, peer, Content::Mls, &sealed, Outgoing::Entries, *size)
                .await?;
            from = *size;
        }
        Ok(())
    }

    /// Somebody speaks in an epoch whose keys are gone here, so it can't be heard who. Whoever hasn't acknowledged a commit gets everything again that leads
    /// up to it: without that a member whom the relay kept a commit from would be deaf and mute for good.
    pub(super) async fn lead_on(&mut self, work: &mut Work) -> Result<(), PartyError> {
        let now = crate::clock::wall();
        for party in work.turn.tx.awaited(Outgoing::Epoch).await? {
            if !work
                .turn
                .tx
                .in_flight(&party, Outgoing::Epoch, now, &self.party.pace)
                .await?
            {
                work.turn.tx.resend(&party).await?;
            }
        }
        Ok(())
    }

    /// Says something to one member that is replaced by what comes later: no acknowledgement is waited for.
    pub(in crate::gate) async fn say(
        &mut self,
        work: &mut Work,
        peer: &Peer,
        message: &Message,
    ) -> Result<(), PartyError> {
        let sealed = work.turn.encrypt(&self.party.leaf, message)?;
        self.party
            .post(&mut work.turn.tx, peer, Content::Mls, &sealed, Outgoing::Fleeting, 0)
            .await
    }
}
