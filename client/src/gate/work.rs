//! One unit of the gate's work: a batch of events, one transaction, and what is done once that is safe on disk.
//! Order is everything here: verify, append, flush, and only then run, send or tell.

mod effect;
mod publish;

use std::collections::HashMap;
use std::time::Duration;

use approval::Digest;
use approval::message::Message;
use approval::outcome::{Ended, Nothing};
use wire::envelope::Content;
use wire::identity::PartyId;

use super::prepare::How;
use super::{Event, Gate, GateError, Prepared};
use crate::link::LinkEvent;
use crate::local::{Answer, Fault};
use crate::outbox;
use crate::party::{PartyError, Turn, keep_snapshot};
use crate::store::Post;

pub(super) use effect::Effect;
use publish::Appended;

/// How much a state of the replay may cite that is kept at every commit: some dozens of grants beside what is open. With more, reading a few entries again
/// at a start is cheaper than writing all of it with each permit.
const EVERY_COMMIT: usize = 512;
/// Entries between two states that are kept, where they cite more than that.
const BETWEEN: u64 = 256;

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
