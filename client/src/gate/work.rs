//! One unit of the gate's work: a batch of events, one transaction, and what is done once that is safe on disk.
//! Order is everything here: verify, append, flush, and only then run, send or tell.

use std::collections::HashMap;
use std::time::Duration;

use tokio::sync::mpsc;

use approval::checkpoint::Checkpoint;
use approval::decide::Permit;
use approval::message::Message;
use approval::outcome::{Ended, Nothing};
use approval::{Digest, Signed};
use wire::envelope::Content;
use wire::identity::PartyId;
use wire::mailbox::CapabilityHash;

use super::prepare::How;
use super::{ClientId, Event, Gate, GateError, Prepared};
use crate::link::LinkEvent;
use crate::local::{Answer, Fault, Woken};
use crate::outbox;
use crate::party::{PEER_BYTES, PEER_ENVELOPES, PartyError, Turn, keep_snapshot};
use crate::store::{Outgoing, Peer, Post};

/// Leaves of one `entries` message, in bytes: what a channel message holds, less its checkpoint and lengths.
const ENTRIES_BYTES: usize = 62_000;

/// How much a state of the replay may cite that is kept at every commit: some dozens of grants beside what is open. With more, reading a few entries again
/// at a start is cheaper than writing all of it with each permit.
const EVERY_COMMIT: usize = 512;
/// Entries between two states that are kept, where they cite more than that.
const BETWEEN: u64 = 256;

/// A statement appended in this unit, with the tree as it was right after it.
struct Appended {
    signed: Signed,
    size: u64,
    root: [u8; 32],
}

/// What is done after the commit.
pub(super) enum Effect {
    /// Say something to one local program.
    Answer(mpsc::Sender<Answer>, Answer),
    /// Say something to whoever waits for a request.
    Tell(Digest, Answer),
    /// Say the last thing to whoever waits for a request.
    End(Digest, Answer),
    /// Say the last thing to one program that waits.
    Hang(ClientId, mpsc::Sender<Answer>, Answer),
    /// Run what was permitted, with what it is to read.
    Run(Permit, Option<Vec<u8>>),
    /// Wake whoever asked without waiting.
    Wake(Digest, Woken),
    /// Forget what was in memory about a request that is over without a last word.
    Over(Digest),
    /// What was told about a request doesn't hold any more: it may be told again.
    Forget(Digest),
    /// A program was told how a request is and waits no more.
    Waited(ClientId),
    /// Begin to read our mailbox.
    Read,
    /// Let a device write to us.
    Allow(CapabilityHash),
    /// Stop a device writing to us.
    Revoke(CapabilityHash),
    /// Tell the pairing how it ended.
    Admitted(mpsc::Sender<super::pairing::Admitted>, super::pairing::Admitted),
}

/// The unit itself.
pub(super) struct Work {
    pub(super) turn: Turn,
    appended: Vec<Appended>,
    pub(super) effects: Vec<Effect>,
    /// Whether anything was appended.
    pub(super) changed: bool,
    /// Whether what changed may say something else about other requests that are open.
    pub(super) reconsider: bool,
    acked: Option<u64>,
    posts: Vec<Post>,
}

/// What is left to do once a unit is safe on disk.
struct Done {
    effects: Vec<Effect>,
    acked: Option<u64>,
    posts: Vec<Post>,
}

/// Why a unit was rolled back.
enum Failure {
    /// This envelope broke the group's state in memory: pass it over.
    Poison(u64),
    /// Everything else.
    Party(PartyError),
}

impl<E: Into<PartyError>> From<E> for Failure {
    fn from(error: E) -> Self {
        Self::Party(error.into())
    }
}

impl Gate {
    /// Takes in a batch of events: all of it durably, or none of it. One that can't be written is tried again event by event, so that what is wrong with
    /// one holds up no other.
    pub(super) async fn handle(&mut self, batch: Vec<Event>) -> Result<(), GateError> {
        let Err((batch, error)) = self.all_or_nothing(batch).await? else {
            return Ok(());
        };
        if batch.len() == 1 {
            self.put_back(batch, &error);
            return Ok(());
        }
        for event in batch {
            if let Err((batch, error)) = self.all_or_nothing(vec![event]).await? {
                self.put_back(batch, &error);
            }
        }
        Ok(())
    }

    /// The inner error gives the batch back, of which nothing was kept.
    async fn all_or_nothing(&mut self, batch: Vec<Event>) -> Result<Result<(), (Vec<Event>, PartyError)>, GateError> {
        loop {
            match self.attempt(&batch).await {
                Ok(done) => {
                    self.perform(done).await;
                    return Ok(Ok(()));
                }
                Err(Failure::Poison(sequence)) => {
                    tracing::warn!(sequence, "an envelope broke the group's state and is passed over");
                    self.poison.insert(sequence);
                    self.party.reload().await?;
                }
                Err(Failure::Party(PartyError::Store(error))) if error.is_fatal() => {
                    // Going on could sign over a log that isn't on the disk. A restart reads what really is there.
                    return Err(PartyError::Store(error).into());
                }
                Err(Failure::Party(error)) => {
                    tracing::error!(%error, events = batch.len(), "nothing was kept of a batch of events");
                    self.party.reload().await?;
                    let replay = &self.party.replay;
                    self.asked.retain(|request, _| replay.request(request).is_some());
                    return Ok(Err((batch, error)));
                }
            }
        }
    }

    /// What must not be lost comes again; who waits at this machine is told.
    fn put_back(&mut self, batch: Vec<Event>, error: &PartyError) {
        let events = self.events.clone();
        let mut again = Vec::new();
        for event in batch {
            if let Event::Link(LinkEvent::Delivered { sequence, .. }) = &event
                && !matches!(error, PartyError::Store(_))
            {
                // Not the disk's fault: it would fail for ever. What it asks is asked again by its sender, if that means anything.
                self.poison.insert(*sequence);
            }
            match event {
                Event::Local { client, answers, .. } => {
                    self.forget_client(client);
                    let answer = Answer::Error {
                        kind: Fault::Broken,
                        message: format!("the gate can't keep its records: {error}"),
                        hint: Some("nothing was asked and nothing ran; check the disk of the gate's home".to_owned()),
                    };
                    let _ = answers.try_send(answer);
                }
                // Whoever waits for it learns that it failed by its channel's end.
                Event::Admit(_) => {}
                other => again.push(other),
            }
        }
        let wait = Duration::from_millis(self.party.pace.again);
        tokio::spawn(async move {
            tokio::time::sleep(wait).await;
            for event in again {
                if events.send(event).await.is_err() {
                    return;
                }
            }
        });
    }

    async fn attempt(&mut self, batch: &[Event]) -> Result<Done, Failure> {
        if self.concerns_outbox_alone(batch) {
            return self.settle(batch).await;
        }
        let turn = self.party.turn().await?;
        let mut work = Work {
            turn,
            appended: Vec::new(),
            effects: Vec::new(),
            changed: false,
            reconsider: false,
            acked: None,
            posts: Vec::new(),
        };
        for event in batch {
            match event {
                Event::Link(event) => self.link_event(&mut work, event).await?,
                Event::Local {
                    client,
                    question,
                    answers,
                } => match question {
                    Prepared::Ask(asked) => self.ask(&mut work, *client, asked, How::Waiting, answers).await?,
                    Prepared::Request(asked) => self.ask(&mut work, *client, asked, How::Asynchronous, answers).await?,
                    Prepared::Explain(asked) => self.explain(&mut work, asked, answers)?,
                    Prepared::Redeem(redeemed) => self.redeem(&mut work, *client, redeemed, answers).await?,
                    Prepared::Other(question) => self.question(&mut work, *client, question, answers).await?,
                },
                Event::Left(client) => self.left(&mut work, *client).await?,
                Event::Ran { request, result } => self.ran(&mut work, *request, result).await?,
                Event::Admit(admission) => self.admit(&mut work, admission).await?,
                Event::Began => work.reconsider = true,
            }
        }
        if self.halted.is_none() {
            self.expire(&mut work).await?;
            self.reconsider(&mut work).await?;
            self.withdraw_orphans(&mut work).await?;
        }
        self.tell_waiters(&mut work).await?;
        self.publish(&mut work).await?;
        if self.connected {
            work.posts = outbox::take_due(&mut work.turn.tx, &self.party.pace).await?;
        }
        let kept = self.keeps_state();
        if kept {
            keep_snapshot(&mut work.turn.tx, &self.party.replay).await?;
        }
        let Work {
            turn,
            effects,
            acked,
            posts,
            ..
        } = work;
        turn.commit().await?;
        if kept {
            self.kept = self.party.replay.size();
        }
        self.mark();
        Ok(Done { effects, acked, posts })
    }

    /// Whether the state of the replay is to be kept with this unit.
    fn keeps_state(&self) -> bool {
        let replay = &self.party.replay;
        if self.marked == Some(replay.size()) {
            return false;
        }
        replay.snapshot_weight() <= EVERY_COMMIT || replay.size().saturating_sub(self.kept) >= BETWEEN
    }

    /// Whether nothing happened but that the relay answered: a good part of all batches.
    fn concerns_outbox_alone(&mut self, batch: &[Event]) -> bool {
        let answer = |event: &Event| matches!(event, Event::Link(LinkEvent::Stored { .. } | LinkEvent::Refused { .. }));
        let expired = self.halted.is_none() && self.until_next_expiry().is_zero();
        // With nothing at all it is the time that passed: others may have something to do then.
        !batch.is_empty() && batch.iter().all(answer) && !expired && self.marked.is_some()
    }

    /// Takes in the relay's answers. The group isn't read: nothing is said or heard.
    async fn settle(&mut self, batch: &[Event]) -> Result<Done, Failure> {
        let mut tx = self.party.store.begin().await?;
        for event in batch {
            if let Event::Link(event) = event {
                outbox::settle(&mut tx, event, &self.party.pace).await?;
            }
        }
        let posts = if self.connected {
            outbox::take_due(&mut tx, &self.party.pace).await?
        } else {
            Vec::new()
        };
        tx.commit().await?;
        Ok(Done {
            effects: Vec::new(),
            acked: None,
            posts,
        })
    }

    /// Leaves the size beside the database, so that an old copy of the database is noticed at the next start.
    fn mark(&mut self) {
        let size = self.party.replay.size();
        if self.marked == Some(size) {
            return;
        }
        self.marked = Some(size);
        let path = self.party.home.path().join("head");
        let fresh = path.with_extension("new");
        let written = std::fs::write(&fresh, size.to_string());
        if let Err(error) = written.and_then(|()| std::fs::rename(&fresh, &path)) {
            tracing::warn!(%error, "can't leave the transcript's size beside the database");
        }
    }

    async fn link_event(&mut self, work: &mut Work, event: &LinkEvent) -> Result<(), Failure> {
        match event {
            LinkEvent::Connected => {
                self.connected = true;
                for peer in work.turn.tx.peers().await? {
                    work.effects.push(Effect::Allow(peer.issued));
                }
                for waiting in self.waiting_devices(work).await? {
                    work.effects.push(Effect::Allow(waiting.issued()));
                }
                work.turn.tx.due_again().await?;
                self.party.rotate(&mut work.turn.tx).await?;
                if let Some(newest) = self.party.envelopes.first() {
                    self.address.send_replace(newest.key());
                }
                self.party.tell_address(&mut work.turn).await?;
                work.effects.push(Effect::Read);
            }
            LinkEvent::Disconnected { .. } => self.connected = false,
            LinkEvent::Delivered { sequence, envelope } => {
                // Never taken out again: a unit that fails is tried from its start, and must pass over all that broke it so far.
                if !self.poison.contains(sequence) {
                    match self.party.unseal(envelope) {
                        Ok((Content::Mls, message, newest)) => {
                            self.group_message(work, *sequence, &message, newest).await?
                        }
                        Ok((Content::Pairing, ..)) => tracing::debug!("a pairing message at the gate's own mailbox"),
                        Err(_) => tracing::warn!("an envelope that can't be opened"),
                    }
                }
                work.acked = work.acked.max(Some(*sequence));
            }
            LinkEvent::Stored { .. } | LinkEvent::Refused { .. } => {
                outbox::settle(&mut work.turn.tx, event, &self.party.pace).await?
            }
            LinkEvent::Displaced => tracing::warn!("another connection reads the gate's mailbox"),
            _ => {}
        }
        Ok(())
    }

    async fn group_message(
        &mut self,
        work: &mut Work,
        sequence: u64,
        message: &[u8],
        newest: bool,
    ) -> Result<(), Failure> {
        use crate::channel::{Received, Refused};
        let Some(group) = work.turn.group.as_mut() else {
            return Ok(());
        };
        // The gate is the only committer: no roster that anybody names leads to a commit that it would follow.
        match group.receive(&mut work.turn.mls, message, &|_| None) {
            Ok(Received::Message { from, data }) => match Message::decode(&data) {
                Ok(message) => {
                    if newest {
                        self.party.followed(&mut work.turn.tx, &from).await?;
                    }
                    Ok(self.member_says(work, from, message).await?)
                }
                Err(error) => {
                    tracing::warn!(from = from.short(), %error, "a malformed message");
                    Ok(())
                }
            },
            Ok(Received::Refused(refused)) => {
                tracing::warn!(%refused, "a group message was refused");
                if refused == Refused::TooOld {
                    self.lead_on(work).await?;
                }
                Ok(())
            }
            Ok(_) => Ok(()),
            Err(_) => Err(Failure::Poison(sequence)),
        }
    }

    /// Somebody speaks in an epoch whose keys are gone here, so it can't be heard who. Whoever hasn't acknowledged a commit gets everything again that leads
    /// up to it: without that a member whom the relay kept a commit from would be deaf and mute for good.
    async fn lead_on(&mut self, work: &mut Work) -> Result<(), PartyError> {
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

    /// Appends a statement to transcript and database. What the replay refuses is not appended.
    pub(super) async fn append(&mut self, work: &mut Work, statement: &Signed) -> Result<(), PartyError> {
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

    async fn expire(&mut self, work: &mut Work) -> Result<(), PartyError> {
        let now = self.clock.now();
        let over = |open: &&approval::replay::Pending| open.permit().is_none() && now >= open.request().expires;
        let expired: Vec<Digest> = self
            .party
            .replay
            .open()
            .filter(over)
            .map(|open| open.request().digest())
            .collect();
        for request in expired {
            self.close(work, request, Ended::Expired(Nothing {}), now).await?;
        }
        Ok(())
    }

    /// Sends what was appended since the last call to every member, under the group's present epoch.
    pub(super) async fn publish(&mut self, work: &mut Work) -> Result<(), PartyError> {
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
    pub(super) async fn catch_up(&mut self, work: &mut Work, peer: &Peer, from: u64) -> Result<(), PartyError> {
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

    /// Says something to one member that is replaced by what comes later: no acknowledgement is waited for.
    pub(super) async fn say(&mut self, work: &mut Work, peer: &Peer, message: &Message) -> Result<(), PartyError> {
        let sealed = work.turn.encrypt(&self.party.leaf, message)?;
        self.party
            .post(&mut work.turn.tx, peer, Content::Mls, &sealed, Outgoing::Fleeting, 0)
            .await
    }

    /// Everything that had to wait for the commit.
    async fn perform(&mut self, done: Done) {
        let Done { effects, acked, posts } = done;
        outbox::send(&self.link, posts).await;
        if let Some(sequence) = acked {
            self.link.ack(sequence).await;
        }
        for effect in effects {
            match effect {
                Effect::Answer(to, answer) => drop(to.try_send(answer)),
                Effect::Tell(request, answer) => {
                    for asker in self.askers.get(&request).into_iter().flatten() {
                        drop(asker.answers.try_send(answer.clone()));
                    }
                }
                Effect::End(request, answer) => {
                    self.asked.remove(&request);
                    for asker in self.askers.remove(&request).into_iter().flatten() {
                        let answer = answer.clone();
                        // Behind the output, which may fill the queue: the last word waits for its turn.
                        tokio::spawn(async move { drop(asker.answers.send(answer).await) });
                    }
                }
                Effect::Hang(client, to, answer) => {
                    self.forget_client(client);
                    tokio::spawn(async move { drop(to.send(answer).await) });
                }
                Effect::Run(permit, stdin) => self.start(permit, stdin),
                Effect::Wake(request, woken) => {
                    let kept = self.asked.entry(request).or_default();
                    // Told once for each thing that becomes of it.
                    if kept.told.replace(woken.state) != Some(woken.state) {
                        self.wake(&woken);
                    }
                }
                Effect::Over(request) => drop(self.asked.remove(&request)),
                Effect::Forget(request) => {
                    if let Some(kept) = self.asked.get_mut(&request) {
                        kept.told = None;
                    }
                }
                Effect::Waited(client) => self.waiters.retain(|waiter| waiter.client != client),
                Effect::Read => self.link.read().await,
                Effect::Allow(hash) => self.link.allow(hash, PEER_ENVELOPES, PEER_BYTES).await,
                Effect::Revoke(hash) => self.link.revoke(hash).await,
                Effect::Admitted(to, admitted) => drop(to.try_send(admitted)),
            }
        }
    }

    /// A program that was told that nothing came of its question waits for nothing.
    fn forget_client(&mut self, client: ClientId) {
        self.waiters.retain(|waiter| waiter.client != client);
        self.listeners.retain(|listener| listener.client != client);
        self.askers.retain(|_, askers| {
            askers.retain(|asker| asker.client != client);
            !askers.is_empty()
        });
    }

    /// Who denied a request, and why, for whoever asked.
    pub(super) fn who_denied(&self, request: &Digest) -> (Vec<String>, Option<String>) {
        let (Some(open), Some(roster)) = (self.party.replay.request(request), self.party.replay.roster()) else {
            return (Vec::new(), None);
        };
        let denial = open
            .decisions()
            .iter()
            .find(|decision| decision.verdict == approval::decision::Answer::Deny);
        let Some(denial) = denial else {
            return (Vec::new(), None);
        };
        let person = roster.admin_of(&denial.signer()).map(|person| person.name.to_string());
        let reason = Some(denial.reason.as_untrusted().to_owned()).filter(|reason| !reason.is_empty());
        (person.into_iter().collect(), reason)
    }

    /// Names of the people behind decisions, for those who read at the terminal.
    pub(super) fn names(&self, parties: impl Iterator<Item = PartyId>) -> Vec<String> {
        let Some(roster) = self.party.replay.roster() else {
            return Vec::new();
        };
        let mut seen = HashMap::new();
        parties
            .filter_map(|party| roster.person_of(&party).map(|(person, _)| person.name.to_string()))
            .filter(|name| seen.insert(name.clone(), ()).is_none())
            .collect()
    }
}
