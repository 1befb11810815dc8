//! A person's device, admin or auditor: keeps its own copy of the transcript, checks every entry and every change of the group by itself, and
//! signs decisions. What it shows and asks at the terminal is in `cli`.

pub mod attention;
mod join;
mod past;

use std::collections::HashMap;
use std::time::Duration;

use tokio::sync::mpsc;

use approval::change::Change;
use approval::checkpoint::Checkpoint;
use approval::decision::{Answer as Vote, Decision};
use approval::grant::Terms;
use approval::message::{Message, RefusalCode};
use approval::replay::{Entry, Pending, Replay};
use approval::revocation::Revocation;
use approval::{Digest, Id16, Name, Signed, Text, Time, Verified, sign};
use wire::envelope::Content;

use crate::channel::{ChannelError, Group, Membership, Received};
use crate::clock::wall;
use crate::home::{Home, Lock};
use crate::link::{self, LinkEvent, LinkHandle};
use crate::outbox;
use crate::party::{Kind, PEER_BYTES, PEER_ENVELOPES, Party, PartyError, Turn, keep_snapshot, membership, random16};
use crate::store::{NewPost, Outgoing, Post};

pub use join::{Begun, JoinError};
pub use past::{names, past};

/// Name of the lock of the process that is connected for this home. Others write to the same database and leave the sending to it.
const LOCK: &str = "link.lock";

/// How often the database is looked at for what another process of this home did.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// How many of the latest rosters are kept in memory: a group is never further behind than that.
const ROSTERS: usize = 64;

/// Overdue questions that are encrypted anew at a time: no more than are put at a time.
const OVERDUE: u32 = 64;

/// Link events that are taken into one transaction at most.
const BATCH: usize = 64;

/// What a person may want to know.
#[derive(Clone, Debug)]
pub enum Notice {
    /// The relay is reached.
    Connected,
    /// The relay isn't reached, and why.
    Offline(String),
    /// The relay says how much waits for this device.
    Waiting(u64),
    /// The transcript grew by this entry.
    Entry(Box<Entry>),
    /// The gate was heard: its log ends where ours does.
    Head,
    /// The gate didn't take what we said.
    Refused {
        /// Digest of the decision, or the proposal's id.
        about: Digest,
        /// Why.
        code: RefusalCode,
        /// In the gate's words.
        text: String,
    },
    /// Pairing: the short code to compare.
    Code(String),
    /// Pairing: how the gate's side ended.
    Answered(approval::pairing::Answer),
    /// This device is in the group.
    Joined,
    /// This device was removed from the group.
    Removed,
    /// The gate contradicted itself or broke a rule. It was written down.
    Evidence(String),
}

/// A device.
pub struct Member {
    /// Its keys, database and transcript.
    pub party: Party,
    connection: Option<Connection>,
    /// What each roster that was verified says about the group. A commit is checked by the one before it and the one it leads to.
    rosters: HashMap<[u8; 32], Membership>,
    /// Something was said here that hasn't been handed to the link yet.
    said: bool,
}

struct Connection {
    link: LinkHandle,
    events: mpsc::Receiver<LinkEvent>,
    up: bool,
    ack_due: tokio::time::Instant,
    _lock: Lock,
}

/// What a batch came to.
#[derive(Default)]
struct Batch {
    notices: Vec<Notice>,
    sequence: Option<u64>,
    posts: Vec<Post>,
    /// Say what we have, because something came or a connection began.
    ack: bool,
    allow: bool,
    replay: Option<Replay>,
}

/// An answer to a request, before it is signed.
#[derive(Clone, Debug)]
pub struct Saying {
    /// Yes or no.
    pub verdict: Vote,
    /// The number that was shown where it was asked; with an approval only.
    pub number: Option<String>,
    /// What is granted beside this one time; with an approval only.
    pub grant: Option<Terms>,
    /// Why, in the person's words.
    pub reason: String,
}

impl Saying {
    /// Yes, this one time.
    pub fn once() -> Self {
        Self {
            verdict: Vote::Approve,
            number: None,
            grant: None,
            reason: String::new(),
        }
    }

    /// No.
    pub fn deny(reason: impl Into<String>) -> Self {
        Self {
            verdict: Vote::Deny,
            reason: reason.into(),
            ..Self::once()
        }
    }
}

/// What [`Member::wait`] woke up for; given back to [`Member::take`].
pub struct Woken(Vec<LinkEvent>);

impl Member {
    /// Loads the device of this home. Connects unless another process of this home is connected already.
    pub async fn open(home: Home) -> Result<Self, PartyError> {
        let mut member = Self::offline(home).await?;
        member.connect()?;
        Ok(member)
    }

    /// Loads the device of this home without connecting.
    pub async fn offline(home: Home) -> Result<Self, PartyError> {
        Self::load(Party::open(home, Kind::Member).await?).await
    }

    async fn load(party: Party) -> Result<Self, PartyError> {
        let mut rosters = HashMap::new();
        let mut tx = party.store.begin().await?;
        // From the one in force backwards, each by its digest: no search through the transcript.
        let mut next = party.replay.roster().map(Verified::digest);
        while let Some(digest) = next.filter(|_| rosters.len() < ROSTERS) {
            let Some(roster) = (match tx.statement(&digest).await? {
                Some(signed) => signed.verify()?.roster(),
                None => None,
            }) else {
                break;
            };
            rosters.insert(*digest.as_bytes(), membership(&roster));
            next = roster.previous;
        }
        tx.commit().await?;
        Ok(Self {
            party,
            connection: None,
            rosters,
            said: false,
        })
    }

    fn connect(&mut self) -> Result<(), PartyError> {
        let Some(lock) = self.party.home.try_lock(LOCK)? else {
            return Ok(());
        };
        let key = wire::mailbox::MailboxKey::from_bytes(&self.party.mailbox.to_bytes());
        let (link, events) = link::spawn(&self.party.relay, key);
        self.connection = Some(Connection {
            link,
            events,
            up: false,
            ack_due: tokio::time::Instant::now(),
            _lock: lock,
        });
        Ok(())
    }

    /// Whether this process is the one that talks to the relay for this home.
    pub fn connects(&self) -> bool {
        self.connection.is_some()
    }

    /// Waits until there is something to do. Can be dropped at any time without losing anything.
    pub async fn wait(&mut self) -> Woken {
        let Some(connection) = &mut self.connection else {
            tokio::time::sleep(LOOK_EVERY).await;
            return Woken(Vec::new());
        };
        let mut events = Vec::new();
        // A decision goes out now, not when something comes in.
        if !self.said {
            tokio::select! {
                event = connection.events.recv() => events.extend(event),
                () = tokio::time::sleep(LOOK_EVERY) => {}
            }
        }
        while events.len() < BATCH {
            match connection.events.try_recv() {
                Ok(event) => events.push(event),
                Err(_) => break,
            }
        }
        Woken(events)
    }

    /// Takes in what came: durably, then acknowledged, then told. Must not be dropped midway; losing the process is fine.
    pub async fn take(&mut self, woken: Woken) -> Result<Vec<Notice>, PartyError> {
        let mut notices = Vec::new();
        self.said = false;
        if self.connection.is_none() {
            notices.extend(self.look().await?);
            // The process that was connected may be gone: then this one takes over.
            self.connect()?;
            return Ok(notices);
        }
        match self.attempt(&woken.0).await {
            Ok(batch) => notices.extend(self.finish(batch).await),
            Err(error) => {
                // The group in memory may be ahead of the disk; both are read anew. The relay delivers again what wasn't acknowledged.
                self.party.reload().await?;
                return Err(error);
            }
        }
        Ok(notices)
    }

    async fn attempt(&mut self, events: &[LinkEvent]) -> Result<Batch, PartyError> {
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

    async fn finish(&mut self, batch: Batch) -> Vec<Notice> {
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

    /// After a change of epoch: what the gate hasn't answered is encrypted anew, since it may have dropped the keys of the epoch before.
    async fn ask_again(&self, turn: &mut Turn) -> Result<(), PartyError> {
        let questions = turn.tx.questions().await?;
        for (about, question) in questions {
            turn.tx.answered(&about).await?;
            self.post_question(turn, &question, &about).await?;
        }
        Ok(())
    }

    /// What the gate should have answered by now is encrypted anew: it may have heard it, and its answer may be what was lost; to the same bytes
    /// it would be deaf, as to any replay.
    async fn ask_overdue(&self, turn: &mut Turn) -> Result<(), PartyError> {
        let overdue = turn.tx.overdue_questions(wall(), OVERDUE).await?;
        if overdue.is_empty() || turn.tx.meta("removed").await?.is_some() {
            return Ok(());
        }
        let (Some(gate), Some(group)) = (turn.tx.peer(&self.party.gate).await?, turn.group.as_mut()) else {
            return Ok(());
        };
        for (id, question) in overdue {
            let sealed = group.encrypt(&mut turn.mls, &self.party.leaf, &question)?;
            let envelope = wire::envelope::seal(
                &gate.envelope_key,
                &gate.mailbox,
                Content::Mls,
                &sealed,
                &mut rand_core::OsRng,
            )?;
            turn.tx.reseal(id, &envelope).await?;
        }
        Ok(())
    }

    async fn gate_says(&mut self, turn: &mut Turn, batch: &mut Batch, message: Message) -> Result<bool, PartyError> {
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

    async fn post_question(&self, turn: &mut Turn, question: &[u8], about: &[u8]) -> Result<(), PartyError> {
        let gate = turn
            .tx
            .peer(&self.party.gate)
            .await?
            .ok_or(PartyError::Lacks("the gate's address: this device isn't paired yet"))?;
        let group = turn
            .group
            .as_mut()
            .ok_or(PartyError::Lacks("a group: this device isn't in it yet"))?;
        let sealed = group.encrypt(&mut turn.mls, &self.party.leaf, question)?;
        let envelope = wire::envelope::seal(
            &gate.envelope_key,
            &gate.mailbox,
            Content::Mls,
            &sealed,
            &mut rand_core::OsRng,
        )?;
        let post = NewPost {
            peer: &gate,
            envelope: &envelope,
            kind: Outgoing::Question,
            covers: 0,
            about,
            question,
        };
        turn.tx.post(random16(), &post).await?;
        Ok(())
    }

    /// Signs an answer to an open request and puts it on its way, without number and grant: see [`Member::answer`].
    pub async fn decide(&mut self, request: &Digest, verdict: Vote, reason: &str) -> Result<Digest, PartyError> {
        let saying = Saying {
            verdict,
            reason: reason.to_owned(),
            ..Saying::once()
        };
        self.answer(request, saying).await
    }

    /// Signs an answer to an open request and puts it on its way. Returns the decision's digest, by which the transcript or a refusal will answer.
    pub async fn answer(&mut self, request: &Digest, saying: Saying) -> Result<Digest, PartyError> {
        let reason = Text::new(saying.reason).map_err(PartyError::Text)?;
        let mut turn = self.party.turn().await?;
        let checkpoint = turn
            .tx
            .last_checkpoint()
            .await?
            .ok_or(PartyError::Lacks("a checkpoint"))?;
        let decision = Decision {
            party: self.party.identity.party(),
            request: *request,
            verdict: saying.verdict,
            number: saying.number,
            grant: saying.grant,
            reason,
            time: Time::of_clock(wall()),
            checkpoint,
        };
        let decision = sign(&self.party.identity, decision)?;
        let question = Message::Decision(decision.signed().clone()).encode()?;
        self.post_question(&mut turn, &question, decision.digest().as_bytes())
            .await?;
        turn.commit().await?;
        self.said = true;
        Ok(decision.digest())
    }

    /// Signs that a grant is taken back and puts it on its way. Returns the revocation's digest, by which the transcript or a refusal will answer.
    pub async fn revoke(&mut self, grant: &Digest, reason: &str) -> Result<Digest, PartyError> {
        let revocation = Revocation {
            party: self.party.identity.party(),
            grant: *grant,
            reason: Text::new(reason).map_err(PartyError::Text)?,
            time: Time::of_clock(wall()),
        };
        let revocation = sign(&self.party.identity, revocation)?;
        let question = Message::Revocation(revocation.signed().clone()).encode()?;
        let mut turn = self.party.turn().await?;
        self.post_question(&mut turn, &question, revocation.digest().as_bytes())
            .await?;
        turn.commit().await?;
        self.said = true;
        Ok(revocation.digest())
    }

    /// Proposes a change of the roster to the gate. Returns the id under which it answers.
    pub async fn propose(&mut self, change: Change) -> Result<Id16, PartyError> {
        let id = Id16(random16());
        let mut turn = self.party.turn().await?;
        let question = Message::Propose { id, change }.encode()?;
        self.post_question(&mut turn, &question, &id.0).await?;
        turn.commit().await?;
        self.said = true;
        Ok(id)
    }

    /// Looks into the database for what the connected process of this home took in.
    async fn look(&mut self) -> Result<Vec<Notice>, PartyError> {
        let mut notices = Vec::new();
        let mut tx = self.party.store.begin().await?;
        for signed in tx.entries(self.party.replay.size(), 512).await? {
            notices.push(Notice::Entry(Box::new(self.party.replay.next(signed.as_bytes())?)));
        }
        tx.commit().await?;
        Ok(notices)
    }

    /// The gate's refusal of what we said, if there was one.
    pub async fn refusal(&mut self, about: &[u8; 32]) -> Result<Option<(u8, String)>, PartyError> {
        let mut tx = self.party.store.begin().await?;
        let refusal = tx.refusal(about).await?;
        tx.commit().await?;
        Ok(refusal)
    }

    /// Whether this device's person stands in the roster in force.
    pub fn enrolled(&self) -> bool {
        self.party
            .replay
            .roster()
            .is_some_and(|roster| roster.person_of(&self.party.identity.party()).is_some())
    }

    /// Whether this device's person is an admin in the roster in force.
    pub fn is_admin(&self) -> bool {
        self.party
            .replay
            .roster()
            .is_some_and(|roster| roster.admin_of(&self.party.identity.party()).is_some())
    }

    /// Whether the group has let this device in.
    pub async fn in_group(&mut self) -> Result<bool, PartyError> {
        let turn = self.party.turn().await?;
        let inside = turn.group.is_some();
        turn.tx.commit().await?;
        Ok(inside)
    }

    /// The person whose device this is, in the roster in force.
    pub fn person(&self) -> Option<&Name> {
        let roster = self.party.replay.roster()?;
        roster
            .person_of(&self.party.identity.party())
            .map(|(person, _)| &person.name)
    }

    /// Whether this person, with whichever device, has answered a request.
    pub fn has_answered(&self, open: &Pending) -> bool {
        let (Some(roster), Some(own)) = (self.party.replay.roster(), self.person()) else {
            return false;
        };
        open.decisions().iter().any(|decision| {
            roster
                .person_of(&decision.signer())
                .is_some_and(|(person, _)| person.name == *own)
        })
    }

    /// The requests that wait for a decision, oldest first.
    pub fn open_requests(&self) -> impl Iterator<Item = &Pending> {
        self.party.replay.open().filter(|open| open.permit().is_none())
    }

    /// Ends the connection in good order.
    pub async fn close(mut self) {
        if let Some(connection) = self.connection.take() {
            connection.link.finish().await;
        }
        self.party.store.close().await;
    }
}
