//! One unit of a device's work: a batch of the link's events, one transaction, and what is done once that is safe on disk.
//! What the gate's messages mean is in `hearing`, and what those of a pairing mean in `join`.

use std::time::Duration;

use approval::message::Message;
use approval::replay::Replay;
use wire::envelope::Content;

use super::{Member, Notice};
use crate::channel::{ChannelError, Group, Received};
use crate::link::LinkEvent;
use crate::outbox;
use crate::party::{PEER_BYTES, PEER_ENVELOPES, PartyError, Turn, keep_snapshot};
use crate::store::{Outgoing, Post};

/// What a batch came to.
#[derive(Default)]
pub(super) struct Batch {
    pub(super) notices: Vec<Notice>,
    sequence: Option<u64>,
    posts: Vec<Post>,
    /// Say what we have, because something came or a connection began.
    ack: bool,
    allow: bool,
    pub(super) replay: Option<Replay>,
}

impl Member {
    pub(super) async fn attempt(&mut self, events: &[LinkEvent]) -> Result<Batch, PartyError> {
        let mut turn = self.party.turn().await?;
        let mut batch = Batch::default();
        let ack_due = self
            .connection
            .as_ref()
            .is_some_and(|connection| connection.up && connection.ack_due <= tokio::time::Instant::now());
        batch.ack = ack_due;
        for event in events {
            self.event(&mut turn, &mut batch, event).await?;
        }
        if batch.ack && turn.group.is_some() {
            self.post_ack(&mut turn).await?;
        }
        if self.connection.as_ref().is_some_and(|connection| connection.up) {
            self.ask_overdue(&mut turn).await?;
            batch.posts = outbox::take_due(&mut turn.tx, &self.party.pace).await?;
        }
        if let Some(replay) = &batch.replay {
            keep_snapshot(&mut turn.tx, replay).await?;
        }
        turn.commit().await?;
        if let Some(replay) = batch.replay.take() {
            self.party.replay = replay;
        }
        Ok(batch)
    }

    pub(super) async fn finish(&mut self, batch: Batch) -> Vec<Notice> {
        if let Some(connection) = &mut self.connection {
            if batch.allow {
                connection.link.read().await;
            }
            if let Some(sequence) = batch.sequence {
                connection.link.ack(sequence).await;
            }
            if batch.ack {
                connection.ack_due = tokio::time::Instant::now() + Duration::from_millis(self.party.pace.ack_every);
            }
            outbox::send(&connection.link, batch.posts).await;
        }
        batch.notices
    }

    async fn event(&mut self, turn: &mut Turn, batch: &mut Batch, event: &LinkEvent) -> Result<(), PartyError> {
        match event {
            LinkEvent::Connected => {
                if let Some(connection) = &mut self.connection {
                    connection.up = true;
                    if let Some(issued) = turn.tx.meta("issued").await?.and_then(|bytes| bytes.try_into().ok()) {
                        connection
                            .link
                            .allow(
                                wire::mailbox::CapabilityHash::from_bytes(issued),
                                PEER_ENVELOPES,
                                PEER_BYTES,
                            )
                            .await;
                    }
                }
                turn.tx.due_again().await?;
                self.party.rotate(&mut turn.tx).await?;
                self.party.tell_address(turn).await?;
                batch.allow = true;
                batch.ack = true;
                batch.notices.push(Notice::Connected);
            }
            LinkEvent::Disconnected { reason } => {
                if let Some(connection) = &mut self.connection {
                    connection.up = false;
                }
                batch.notices.push(Notice::Offline(reason.to_string()));
            }
            LinkEvent::Reading { waiting, .. } => batch.notices.push(Notice::Waiting(*waiting)),
            LinkEvent::Delivered { sequence, envelope } => {
                match self.party.unseal(envelope) {
                    Ok((Content::Mls, message, newest)) => {
                        self.group_message(turn, batch, &message).await?;
                        batch.ack = true;
                        if newest {
                            let gate = self.party.gate;
                            self.party.followed(&mut turn.tx, &gate).await?;
                        }
                    }
                    Ok((Content::Pairing, message, _)) => self.pairing_message(turn, batch, &message).await?,
                    Err(_) => tracing::warn!("an envelope that can't be opened"),
                }
                batch.sequence = batch.sequence.max(Some(*sequence));
            }
            LinkEvent::Stored { .. } | LinkEvent::Refused { .. } => {
                outbox::settle(&mut turn.tx, event, &self.party.pace).await?
            }
            _ => {}
        }
        Ok(())
    }

    /// Takes one group message in, and after it whatever was held for it.
    async fn group_message(&mut self, turn: &mut Turn, batch: &mut Batch, message: &[u8]) -> Result<(), PartyError> {
        let mut progress = self.one_message(turn, batch, message).await?;
        while progress {
            progress = false;
            for held in turn.tx.take_held().await? {
                progress |= self.one_message(turn, batch, &held).await?;
            }
        }
        Ok(())
    }

    /// Whether the message moved anything, so that held ones are worth another try.
    async fn one_message(&mut self, turn: &mut Turn, batch: &mut Batch, message: &[u8]) -> Result<bool, PartyError> {
        let Some(group) = &mut turn.group else {
            let own = crate::channel::Leaf {
                party: self.party.identity.party(),
                leaf: self.party.leaf.public(),
            };
            match Group::join(&mut turn.mls, &own, &self.party.gate, message) {
                Ok(group) => {
                    turn.group = Some(group);
                    batch.notices.push(Notice::Joined);
                    return Ok(true);
                }
                Err(ChannelError::Broken(cause)) => return Err(ChannelError::Broken(cause).into()),
                // Not a welcome: it may belong to the group that we are about to be welcomed to.
                Err(_) => {
                    turn.tx.hold(message).await?;
                    return Ok(false);
                }
            }
        };
        let known = |digest: &[u8; 32]| self.rosters.get(digest).cloned();
        match group.receive(&mut turn.mls, message, &known)? {
            Received::Message { from, data } if from == self.party.gate => match Message::decode(&data) {
                Ok(message) => self.gate_says(turn, batch, message).await,
                Err(error) => {
                    tracing::warn!(%error, "a malformed message of the gate");
                    Ok(false)
                }
            },
            Received::Changed { .. } => {
                self.ask_again(turn).await?;
                Ok(true)
            }
            Received::Removed => {
                turn.tx.set_meta("removed", b"1").await?;
                batch.notices.push(Notice::Removed);
                Ok(false)
            }
            Received::Early => {
                turn.tx.hold(message).await?;
                Ok(false)
            }
            Received::Message { .. } | Received::Known => Ok(false),
            Received::Refused(refused) => {
                tracing::warn!(%refused, "a group message was refused");
                Ok(false)
            }
        }
    }

    async fn post_ack(&self, turn: &mut Turn) -> Result<(), PartyError> {
        let (Some(gate), Some(group)) = (turn.tx.peer(&self.party.gate).await?, &turn.group) else {
            return Ok(());
        };
        if turn.tx.meta("removed").await?.is_some() {
            return Ok(());
        }
        let ack = Message::Ack {
            epoch: group.epoch(),
            checkpoint: turn.tx.last_checkpoint().await?,
        };
        let sealed = turn.encrypt(&self.party.leaf, &ack)?;
        // An older one that never got out is worth nothing any more.
        turn.tx.drop_kind(&gate.party, Outgoing::Fleeting).await?;
        self.party
            .post(&mut turn.tx, &gate, Content::Mls, &sealed, Outgoing::Fleeting, 0)
            .await
    }
}
