//! What members say to the gate over the channel, and what it makes of it (PROTOCOL.md section 12): decisions, acknowledgements, proposals.
//! A decision is judged by `decide`; here it is only written down, and the verdict acted on.

use approval::action::Action;
use approval::change::Change;
use approval::checkpoint::Checkpoint;
use approval::decision::Decision;
use approval::message::{Message, RefusalCode};
use approval::request::{AskedBy, LIFE_MS};
use approval::revocation::Revocation;
use approval::roster::RosterContents;
use approval::{Digest, Id16, Signed, Text, Time, Verified, sign};
use wire::envelope::Content;
use wire::identity::PartyId;

use super::Gate;
use super::asynchronous::standing_of_end;
use super::prepare::fault;
use super::work::{Effect, Work};
use crate::local::Fault;
use crate::party::PartyError;
use crate::store::{AskedRow, Outgoing, Peer};

/// Answers of one device to one request: a person may mistype the number, change their mind, or agree to the terms of somebody else's grant.
const ANSWERS: usize = 4;

/// What a checkpoint that a member shows says about this state.
enum Shown {
    /// It is ours, of this size.
    Ours(u64),
    /// It isn't ours.
    Nothing,
    /// It is ours and not of this log.
    Contradiction(String),
}

impl Gate {
    pub(super) async fn member_says(
        &mut self,
        work: &mut Work,
        from: PartyId,
        message: Message,
    ) -> Result<(), PartyError> {
        let Some(peer) = work.turn.tx.peer(&from).await? else {
            return Ok(());
        };
        match message {
            Message::Decision(signed) => self.decision(work, &peer, &signed).await,
            Message::Revocation(signed) => self.revocation(work, &peer, &signed).await,
            Message::Ack { epoch, checkpoint } => self.acknowledged(work, peer, epoch, checkpoint.as_deref()).await,
            Message::Propose { id, change } => self.proposed(work, &peer, id, &change).await,
            Message::Address { envelope_key } => Ok(work.turn.tx.set_peer(&Peer { envelope_key, ..peer }).await?),
            // Only the gate says these.
            Message::Entries { .. } | Message::Refusal { .. } => Ok(()),
        }
    }

    async fn decision(&mut self, work: &mut Work, peer: &Peer, signed: &Signed) -> Result<(), PartyError> {
        let digest = signed.digest();
        if work.turn.tx.position_of(&digest).await?.is_some() {
            // Said again because our entries haven't reached them; their acknowledgement brings those.
            return Ok(());
        }
        let refuse = |code, text: &str| Message::Refusal {
            about: digest,
            code,
            text: Text::cut(text),
        };
        let decision = match signed.verify().ok().and_then(|verified| verified.decision()) {
            Some(decision) if decision.signer() == peer.party => decision,
            _ => {
                return self
                    .say(
                        work,
                        peer,
                        &refuse(RefusalCode::Malformed, "not a decision of this device"),
                    )
                    .await;
            }
        };
        if let Shown::Contradiction(reason) = self.compare(work, &decision.checkpoint).await? {
            self.halt(work, &reason).await?;
        }
        if let Some(halted) = &self.halted {
            let text = halted.clone();
            return self.say(work, peer, &refuse(RefusalCode::CannotSign, &text)).await;
        }
        let open = self
            .party
            .replay
            .request(&decision.request)
            .filter(|open| open.permit().is_none());
        if open.is_none() {
            return self
                .say(
                    work,
                    peer,
                    &refuse(RefusalCode::NotOpen, "the request is no longer open"),
                )
                .await;
        }
        let said = |open: &approval::replay::Pending| {
            let theirs = open.decisions().iter().filter(|known| known.signer() == peer.party);
            let same = |known: &Decision| {
                known.verdict == decision.verdict && known.number == decision.number && known.grant == decision.grant
            };
            theirs.clone().any(|known| same(known)) || theirs.count() >= ANSWERS
        };
        if open.is_some_and(said) {
            // One answer is one entry: a device can't fill the log with variations of it.
            return self
                .say(
                    work,
                    peer,
                    &refuse(RefusalCode::NotOpen, "this device has said so already"),
                )
                .await;
        }
        if self
            .party
            .replay
            .roster()
            .is_none_or(|roster| roster.admin_of(&peer.party).is_none())
        {
            return self
                .say(work, peer, &refuse(RefusalCode::NotAdmin, "only admins decide"))
                .await;
        }
        match self.append(work, signed).await {
            Ok(()) => {
                // Before the verdict: what was granted was granted while the request was open.
                self.grant(work, &decision.request).await?;
                self.judge(work, decision.request).await
            }
            Err(PartyError::Transcript(finding)) => {
                let text = finding.to_string();
                self.say(work, peer, &refuse(RefusalCode::Malformed, &text)).await
            }
            Err(error) => Err(error),
        }
    }

    /// An admin takes a grant back: one is enough.
    async fn revocation(&mut self, work: &mut Work, peer: &Peer, signed: &Signed) -> Result<(), PartyError> {
        let about = signed.digest();
        if work.turn.tx.position_of(&about).await?.is_some() {
            // Said again because our entries haven't reached them; their acknowledgement brings those.
            return Ok(());
        }
        let revocation = signed.verify().ok().and_then(|verified| verified.revocation());
        let refusal = match revocation.filter(|revocation| revocation.signer() == peer.party) {
            None => Some((RefusalCode::Malformed, "not a revocation by this device".to_owned())),
            Some(revocation) => self.irrevocable(&revocation),
        };
        let refusal = match refusal {
            Some(refusal) => refusal,
            None => match self.append(work, signed).await {
                Ok(()) => {
                    work.reconsider = true;
                    return Ok(());
                }
                Err(PartyError::Transcript(finding)) => (RefusalCode::Malformed, finding.to_string()),
                Err(error) => return Err(error),
            },
        };
        let (code, text) = refusal;
        let text = Text::cut(&text);
        self.say(work, peer, &Message::Refusal { about, code, text }).await
    }

    /// Why a revocation isn't taken, if so.
    fn irrevocable(&self, revocation: &Verified<Revocation>) -> Option<(RefusalCode, String)> {
        if let Some(halted) = &self.halted {
            return Some((RefusalCode::CannotSign, halted.clone()));
        }
        let replay = &self.party.replay;
        if replay
            .roster()
            .is_none_or(|roster| roster.admin_of(&revocation.signer()).is_none())
        {
            return Some((RefusalCode::NotAdmin, "only admins revoke".to_owned()));
        }
        match replay.standing().get(&revocation.grant) {
            Some(held) if held.revocation().is_none() => None,
            Some(_) => Some((RefusalCode::NotOpen, "the grant is revoked already".to_owned())),
            None => Some((RefusalCode::NotOpen, "there is no such grant".to_owned())),
        }
    }

    /// Compares a checkpoint that a member shows with this state. It contradicts only with our own signature on it: then this state is an old copy
    /// or a fork, or somebody else signs with our key. Without the signature it is a lie, and means nothing.
    async fn compare(&self, work: &mut Work, note: &str) -> Result<Shown, PartyError> {
        let size = note
            .lines()
            .nth(1)
            .and_then(|line| line.parse::<u64>().ok())
            .unwrap_or(0);
        if work.turn.tx.checkpoint_at(size).await?.as_deref() == Some(note) {
            return Ok(Shown::Ours(size));
        }
        if Checkpoint::verify(note, &self.party.gate).is_err() {
            return Ok(Shown::Nothing);
        }
        let ours = self.party.replay.size();
        Ok(Shown::Contradiction(format!(
            "a member holds our signature over {size} entries that aren't those of this state, which has {ours}"
        )))
    }

    async fn halt(&mut self, work: &mut Work, reason: &str) -> Result<(), PartyError> {
        tracing::error!(reason, "the gate stops signing");
        work.turn.tx.set_meta("halted", reason.as_bytes()).await?;
        self.halted = Some(reason.to_owned());
        // Nobody who waits here gets an answer any more.
        let askers = self.askers.values().flatten().chain(&self.listeners);
        let askers = askers.map(|asker| (asker.client, &asker.answers));
        let waiters = self.waiters.iter().map(|waiter| (waiter.client, &waiter.answers));
        for (client, answers) in askers.chain(waiters) {
            let message = format!("the gate stopped signing: {reason}");
            let answer = fault(Fault::Broken, message, Some("see `countersign gate status`"));
            work.effects.push(Effect::Hang(client, answers.clone(), answer));
        }
        Ok(())
    }

    async fn acknowledged(
        &mut self,
        work: &mut Work,
        peer: Peer,
        epoch: u64,
        note: Option<&str>,
    ) -> Result<(), PartyError> {
        let now = crate::clock::wall();
        let ours = self.party.replay.size();
        let size = match note {
            None => 0,
            Some(note) => match self.compare(work, note).await? {
                Shown::Ours(size) => size,
                Shown::Nothing => return Ok(()),
                Shown::Contradiction(reason) => return self.halt(work, &reason).await,
            },
        };
        work.turn.tx.acknowledged(&peer.party, size, epoch).await?;
        let peer = Peer {
            acked_size: size,
            acked_epoch: epoch,
            heard: now,
            ..peer
        };
        work.turn.tx.set_peer(&peer).await?;
        let at = work.turn.group.as_ref().map_or(0, crate::channel::Group::epoch);
        if epoch < at {
            // What it lacks was encrypted for epochs that are gone here: only the stored bytes, in their order, lead it on.
            if !work
                .turn
                .tx
                .in_flight(&peer.party, Outgoing::Epoch, now, &self.party.pace)
                .await?
            {
                work.turn.tx.resend(&peer.party).await?;
            }
            return Ok(());
        }
        if size < ours {
            if !work
                .turn
                .tx
                .in_flight(&peer.party, Outgoing::Entries, now, &self.party.pace)
                .await?
            {
                self.catch_up(work, &peer, size).await?;
            }
            return Ok(());
        }
        let last = self.heads.get(&peer.party).copied().unwrap_or(0);
        if now.saturating_sub(last) >= self.party.pace.head_every {
            self.heads.insert(peer.party, now);
            if let Some(checkpoint) = work.turn.tx.last_checkpoint().await? {
                self.say(
                    work,
                    &peer,
                    &Message::Entries {
                        first: ours,
                        checkpoint,
                        leaves: Vec::new(),
                    },
                )
                .await?;
            }
        }
        Ok(())
    }

    async fn proposed(&mut self, work: &mut Work, peer: &Peer, id: Id16, change: &Change) -> Result<(), PartyError> {
        if self
            .party
            .replay
            .roster()
            .is_none_or(|roster| roster.admin_of(&peer.party).is_none())
        {
            return Ok(());
        }
        let seen = format!("proposal {id}");
        if let Some(said) = work.turn.tx.meta(&seen).await? {
            // Asked again because the answer was lost: the same answer, never a second request.
            return match Message::decode(&said) {
                Ok(answer) => self.say(work, peer, &answer).await,
                Err(_) => Ok(()),
            };
        }
        let mut about = [0; 32];
        if let Some(start) = about.first_chunk_mut::<16>() {
            *start = id.0;
        }
        let by = self
            .names(std::iter::once(peer.party))
            .pop()
            .unwrap_or_else(|| "admin".to_owned());
        let refusal = match self.halted.clone() {
            Some(halted) => Message::Refusal {
                about: Digest(about),
                code: RefusalCode::CannotSign,
                text: Text::cut(&halted),
            },
            None => match self.propose(work, change, &by).await? {
                Ok(request) => Message::Refusal {
                    about: Digest(about),
                    code: RefusalCode::Taken,
                    text: Text::cut(&request.to_string()),
                },
                Err(text) => Message::Refusal {
                    about: Digest(about),
                    code: RefusalCode::CannotChange,
                    text: Text::cut(&text),
                },
            },
        };
        work.turn.tx.set_meta(&seen, &refusal.encode()?).await?;
        self.say(work, peer, &refusal).await
    }

    /// Makes a request of a change of the roster. The inner error says why that change can't be.
    pub(super) async fn propose(
        &mut self,
        work: &mut Work,
        change: &Change,
        by: &str,
    ) -> Result<Result<Digest, String>, PartyError> {
        let Some(roster) = self.party.replay.roster() else {
            return Err(PartyError::Lacks("a roster"));
        };
        match roster.contents().with(change) {
            Ok(contents) => Ok(Ok(self.request_roster(work, contents, by).await?)),
            Err(error) => Ok(Err(error.to_string())),
        }
    }

    pub(super) async fn request_roster(
        &mut self,
        work: &mut Work,
        contents: RosterContents,
        by: &str,
    ) -> Result<Digest, PartyError> {
        let asked_by = AskedBy {
            agent: by.parse().map_err(|_| PartyError::Lacks("a name to ask by"))?,
            under: Vec::new(),
            user: None,
            conversation: None,
            platform: None,
        };
        let reason = Text::cut("");
        let draft = self.draft(Action::Roster(contents), asked_by, reason, LIFE_MS)?;
        let request = draft.request.digest();
        self.append(work, draft.request.signed()).await?;
        let row = AskedRow {
            request,
            asynchronous: false,
            number: None,
        };
        work.turn.tx.add_asked(&row, None, crate::clock::wall()).await?;
        Ok(request)
    }

    /// Puts the next roster in force and the group in line with it, in this order: everybody learns the roster in the old epoch, then the
    /// commit that it justifies, then newcomers get their welcome.
    pub(super) async fn change_roster(
        &mut self,
        work: &mut Work,
        contents: RosterContents,
        basis: Option<Digest>,
        now: Time,
    ) -> Result<(), PartyError> {
        let before = self.party.replay.roster().ok_or(PartyError::Lacks("a roster"))?.clone();
        let next = contents.after(&before, basis, now).map_err(PartyError::Roster)?;
        let next = sign(&self.party.identity, next)?;
        let newcomers = self.newcomers(work, &next).await?;
        if let Some(request) = basis
            && let Some(open) = self.party.replay.request(&request)
        {
            let by = self.names(open.decisions().iter().map(|decision| decision.signer()));
            let standing = standing_of_end(open.request(), None, &by, None);
            self.keep_end(work, &standing, &request).await?;
            work.effects.push(Effect::Over(request));
        }
        self.append(work, next.signed()).await?;
        self.publish(work).await?;

        let gone: Vec<PartyId> = before
            .people
            .iter()
            .flat_map(|person| &person.devices)
            .map(|device| device.party)
            .filter(|party| next.person_of(party).is_none())
            .collect();
        let add: Vec<Vec<u8>> = newcomers.iter().map(|device| device.key_package().to_vec()).collect();
        let group = work.turn.group.as_mut().ok_or(PartyError::Lacks("a group"))?;
        let gone_from_group: Vec<PartyId> = group
            .leaves()
            .iter()
            .map(|leaf| leaf.party)
            .filter(|party| gone.contains(party))
            .collect();
        let change = group.change(
            &mut work.turn.mls,
            &self.party.leaf,
            &add,
            &gone_from_group,
            *next.digest().as_bytes(),
        )?;
        let epoch = group.epoch();
        for peer in work.turn.tx.peers().await? {
            self.party
                .post(
                    &mut work.turn.tx,
                    &peer,
                    Content::Mls,
                    &change.commit,
                    Outgoing::Epoch,
                    epoch,
                )
                .await?;
            if gone.contains(&peer.party) {
                work.turn.tx.remove_peer(&peer.party).await?;
                work.effects.push(Effect::Revoke(peer.issued));
            }
        }
        for device in newcomers {
            let peer = device.peer()?;
            work.turn.tx.set_peer(&peer).await?;
            // It was paired some time ago, perhaps with an older key.
            work.turn.tx.straggles(&peer.party).await?;
            work.turn.tx.remove_pairing(&peer.mailbox).await?;
            if let Some(welcome) = &change.welcome {
                self.party
                    .post(&mut work.turn.tx, &peer, Content::Mls, welcome, Outgoing::Epoch, epoch)
                    .await?;
            }
        }
        if let Some(request) = basis {
            tracing::info!(
                request = request.short(),
                epoch = next.epoch,
                "the admins changed the roster"
            );
        }
        // Decisions are judged by the roster in force: a changed one may leave less to wait for, or more; its policy may forbid what was asked.
        work.reconsider = true;
        Ok(())
    }
}
