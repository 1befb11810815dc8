//! From what a local program asks for to a request (PROTOCOL.md section 8.3): whether it may be asked at all, what it is asked as, and who waits for it.
//! Who may say yes isn't decided here, and what became of a request that nobody waits for is in `asynchronous`.

use rand_core::{OsRng, RngCore};
use tokio::sync::mpsc;

use approval::action::Action;
use approval::decide::{Demands, Verdict, decide};
use approval::outcome::{Ended, Nothing};
use approval::request::{AskedBy, Request, matching};
use approval::scalar::REASON_BYTES;
use approval::{Digest, Id16, Text, Verified, sign};

use super::asynchronous::unknown;
use super::attention::too_many;
use super::prepare::{Asked, How, fault, invalid};
use super::work::{Effect, Work};
use super::{Asker, ClientId, Gate, Kept};
use crate::local::{ASKED, Answer, Fault, Question, State};
use crate::party::{PartyError, random16};
use crate::store::AskedRow;

/// How much of a digest names a request at least.
pub(super) const SHORTEST: usize = 4;

/// A request that could be made: signed, and written nowhere.
pub(super) struct Draft {
    pub(super) request: Verified<Request>,
    pub(super) demands: Demands,
    number: Option<String>,
}

impl Gate {
    /// Why nothing can be signed now, if so.
    pub(super) fn mute(&self) -> Option<Answer> {
        let halted = self.halted.as_ref()?;
        Some(fault(
            Fault::Broken,
            format!("the gate doesn't sign: {halted}"),
            Some("see `countersign gate status`"),
        ))
    }

    pub(super) fn nobody(&self) -> Answer {
        fault(
            Fault::Refused,
            "nobody is enrolled who could approve",
            Some("enrol the first admin: countersign gate invite --person NAME"),
        )
    }

    /// Makes a request without writing it anywhere. Its nonce, position and terms are the gate's, never the asker's.
    pub(super) fn draft(
        &mut self,
        action: Action,
        asked_by: AskedBy,
        reason: Text<REASON_BYTES>,
        expires_ms: u64,
    ) -> Result<Draft, PartyError> {
        let created = self.clock.now();
        let replay = &self.party.replay;
        let roster = replay.roster().ok_or(PartyError::Lacks("a roster"))?;
        let demands = Demands::of(roster, replay.standing(), &action, &asked_by, created);
        let nonce = Id16(random16());
        let number = demands.number.then(three_digits);
        let request = Request {
            gate: self.party.gate,
            incarnation: self.incarnation,
            index: replay.size(),
            nonce,
            roster: roster.digest(),
            class: action.class(),
            risk: demands.risk.clone(),
            need: demands.need,
            veto: demands.veto,
            four_eyes: demands.four_eyes,
            matching: number.as_ref().map(|number| matching(&nonce, number)),
            action,
            asked_by,
            reason,
            created,
            expires: created.plus_millis(expires_ms.min(demands.life_ms)),
        };
        Ok(Draft {
            request: sign(&self.party.identity, request)?,
            demands,
            number,
        })
    }

    /// What would be said of a draft if nobody is asked.
    pub(super) fn foresee(&mut self, draft: &Draft) -> Result<Verdict, PartyError> {
        let now = self.clock.now();
        let replay = &self.party.replay;
        let roster = replay.roster().ok_or(PartyError::Lacks("a roster"))?;
        Ok(decide(&draft.request, &[], replay.standing(), roster, now))
    }

    /// Asks. Whoever waits hears the rest as it comes; whoever doesn't is answered at once.
    pub(super) async fn ask(
        &mut self,
        work: &mut Work,
        client: ClientId,
        asked: &Asked,
        how: How,
        answers: &mpsc::Sender<Answer>,
    ) -> Result<(), PartyError> {
        let answer = match self.asking(work, client, asked, how, answers).await? {
            Some(answer) => answer,
            None => return Ok(()),
        };
        work.effects.push(Effect::Answer(answers.clone(), answer));
        Ok(())
    }

    /// `None` when the answers come later.
    async fn asking(
        &mut self,
        work: &mut Work,
        client: ClientId,
        asked: &Asked,
        how: How,
        answers: &mpsc::Sender<Answer>,
    ) -> Result<Option<Answer>, PartyError> {
        if let Some(ticket) = &asked.ticket
            && let Some(request) = work.turn.tx.ticketed(&ticket.0).await?
        {
            return self.again(work, client, request, how, answers).await;
        }
        if let Some(answer) = self.mute() {
            return Ok(Some(answer));
        }
        if !self.answers() {
            return Ok(Some(self.nobody()));
        }
        if let Some(request) = self.identical(asked, how) {
            if let Some(ticket) = &asked.ticket {
                work.turn
                    .tx
                    .set_ticket(&ticket.0, &request, crate::clock::wall())
                    .await?;
            }
            return self.again(work, client, request, how, answers).await;
        }
        let draft = self.draft(
            asked.action.clone(),
            asked.asked_by.clone(),
            asked.reason.clone(),
            asked.expires_ms,
        );
        let draft = match draft {
            Ok(draft) => draft,
            Err(PartyError::Statement(error)) => {
                let hint = "a request must fit one message: shorten its arguments";
                return Ok(Some(invalid(error, Some(hint))));
            }
            Err(error) => return Err(error),
        };
        let verdict = self.foresee(&draft)?;
        if matches!(verdict, Verdict::Refused(_)) {
            return Ok(Some(self.nobody()));
        }
        if let Some(answer) = self.too_much(&draft, &verdict) {
            return Ok(Some(answer));
        }
        self.opened(work, client, asked, how, draft, verdict, answers).await
    }

    /// Writes the request down and acts on what is said of it already.
    #[allow(clippy::too_many_arguments)]
    async fn opened(
        &mut self,
        work: &mut Work,
        client: ClientId,
        asked: &Asked,
        how: How,
        draft: Draft,
        verdict: Verdict,
        answers: &mpsc::Sender<Answer>,
    ) -> Result<Option<Answer>, PartyError> {
        let request = draft.request.digest();
        let asynchronous = how == How::Asynchronous;
        self.append(work, draft.request.signed()).await?;
        let row = AskedRow {
            request,
            asynchronous,
            number: draft.number.clone(),
        };
        let now = crate::clock::wall();
        work.turn.tx.add_asked(&row, asked.stdin.as_deref(), now).await?;
        if let Some(ticket) = &asked.ticket {
            work.turn.tx.set_ticket(&ticket.0, &request, now).await?;
        }
        let waiting = matches!(verdict, Verdict::Waiting { .. });
        if asynchronous && matches!(verdict, Verdict::Forbidden { .. }) {
            // Whoever asks hears it now: there is nobody to wake.
            return self.refuse_now(work, request, verdict).await.map(Some);
        }
        let kept = Kept {
            asynchronous,
            number: draft.number,
            held: asked.held.take(),
            told: (asynchronous && !waiting).then_some(State::Allowed),
        };
        self.asked.insert(request, kept);
        if asynchronous {
            return self.at_once(work, &request).await;
        }
        self.listens(request, client, answers);
        if waiting {
            return Ok(self.pending(&request));
        }
        self.judge(work, request).await?;
        Ok(None)
    }

    /// Asking again for what is asked already leads to the same request.
    async fn again(
        &mut self,
        work: &mut Work,
        client: ClientId,
        request: Digest,
        how: How,
        answers: &mpsc::Sender<Answer>,
    ) -> Result<Option<Answer>, PartyError> {
        match how {
            How::Waiting => self.attach(work, client, &request.to_string(), answers).await,
            How::Asynchronous => self.at_once(work, &request).await,
        }
    }

    /// The request that asks for exactly this in the same way, and isn't permitted yet.
    fn identical(&self, asked: &Asked, how: How) -> Option<Digest> {
        let same = |open: &&approval::replay::Pending| {
            let request = open.request();
            open.permit().is_none() && request.asked_by == asked.asked_by && request.action == asked.action
        };
        let mut identical = self
            .party
            .replay
            .open()
            .filter(same)
            .map(|open| open.request().digest());
        identical.find(|request| match how {
            How::Asynchronous => self.is_asynchronous(request),
            // Somebody waits for it: output of one run goes to both.
            How::Waiting => !self.is_asynchronous(request) && self.askers.contains_key(request),
        })
    }

    pub(super) fn is_asynchronous(&self, request: &Digest) -> bool {
        self.asked.get(request).is_some_and(|kept| kept.asynchronous)
    }

    /// Why the admins' attention isn't asked for, if so.
    fn too_much(&mut self, draft: &Draft, verdict: &Verdict) -> Option<Answer> {
        let asked_by = &draft.request.asked_by;
        if let Some((message, hint)) = too_many(&self.party.replay, asked_by, &self.attention) {
            return Some(fault(Fault::TooMuch, message, Some(hint)));
        }
        // What is allowed beforehand costs nobody's attention.
        if matches!(verdict, Verdict::Open(_)) {
            return None;
        }
        let now = draft.request.created.millis();
        if self.haste.takes(asked_by, now, &self.attention) {
            return None;
        }
        let message = format!("too many requests in a minute, {} are taken", self.attention.minute);
        Some(fault(
            Fault::TooMuch,
            message,
            Some("ask again in a minute, and for less"),
        ))
    }

    /// Somebody hears what becomes of a request from now on.
    pub(super) fn listens(&mut self, request: Digest, client: ClientId, answers: &mpsc::Sender<Answer>) {
        let askers = self.askers.entry(request).or_default();
        // A unit of work that is tried again comes here again.
        if askers.iter().all(|asker| asker.client != client) {
            askers.push(Asker {
                client,
                answers: answers.clone(),
            });
        }
    }

    /// What whoever asked is told while people are asked.
    pub(super) fn pending(&self, request: &Digest) -> Option<Answer> {
        let open = self.party.replay.request(request)?;
        let number = self.asked.get(request).and_then(|kept| kept.number.clone());
        Some(Answer::Pending {
            id: request.to_string(),
            expires: open.request().expires.millis(),
            need: open.request().need,
            shown: approval::render::render(&open.request().action),
            sentence: sentence_of_pending(number.as_deref()),
            number,
        })
    }

    pub(super) async fn question(
        &mut self,
        work: &mut Work,
        client: ClientId,
        question: &Question,
        answers: &mpsc::Sender<Answer>,
    ) -> Result<(), PartyError> {
        let answer = match question {
            Question::Attach { id } => self.attach(work, client, id, answers).await?,
            Question::Wait { id, timeout_ms } => self.wait(work, client, id, *timeout_ms, answers).await?,
            Question::Cancel { id } => Some(self.cancel(work, id).await?),
            Question::Events {} => {
                self.listen(work, client, answers);
                None
            }
            Question::Tools {
                agent,
                under,
                user,
                conversation,
                platform,
                tools,
            } => {
                let who = [user.clone(), conversation.clone(), platform.clone()];
                match super::prepare::asked_by(agent.clone(), under.clone(), who) {
                    Ok(asked_by) => Some(self.tools(&asked_by, tools)),
                    Err(answer) => Some(*answer),
                }
            }
            Question::Grants {} => Some(self.grants()),
            Question::Propose { change } => Some(self.proposing(work, change).await?),
            Question::Status {} => Some(Answer::Status(Box::new(self.status(work).await?))),
            // Prepared before the engine, or a pairing of its own.
            Question::Ask(_)
            | Question::Request(_)
            | Question::Explain(_)
            | Question::Redeem { .. }
            | Question::Invite { .. } => Some(invalid("not a question for the engine", None)),
        };
        work.effects
            .extend(answer.map(|answer| Effect::Answer(answers.clone(), answer)));
        Ok(())
    }

    async fn proposing(&mut self, work: &mut Work, change: &approval::change::Change) -> Result<Answer, PartyError> {
        if let Some(answer) = self.mute() {
            return Ok(answer);
        }
        if !self.enrolled() {
            return Ok(self.nobody());
        }
        Ok(match self.propose(work, change, "operator").await? {
            Ok(id) => Answer::Proposed {
                id: id.to_string(),
                need: self.party.replay.request(&id).map_or(0, |open| open.request().need),
            },
            Err(message) => invalid(message, None),
        })
    }

    /// Takes up waiting for a request again, or as one more. `None` when the answer comes later.
    async fn attach(
        &mut self,
        work: &mut Work,
        client: ClientId,
        id: &str,
        answers: &mpsc::Sender<Answer>,
    ) -> Result<Option<Answer>, PartyError> {
        let request = match self.find(work, id).await? {
            Ok(request) => request,
            Err(answer) => return Ok(Some(answer)),
        };
        let Some(open) = self.party.replay.request(&request) else {
            return self.past(work, &request).await.map(Some);
        };
        // A change of the roster is the admins' own: whoever attached to it could take it back by leaving.
        if self.is_asynchronous(&request) || matches!(open.request().action, Action::Roster(_)) {
            return Ok(Some(invalid(
                "nobody waits for this request: it was asked without waiting",
                Some("see how it is, and redeem it when it is allowed"),
            )));
        }
        if open.permit().is_some() && self.askers.contains_key(&request) {
            return Ok(Some(fault(
                Fault::Refused,
                "somebody waits for this request already",
                Some("its output goes to them"),
            )));
        }
        self.listens(request, client, answers);
        work.effects.extend(
            self.pending(&request)
                .map(|answer| Effect::Answer(answers.clone(), answer)),
        );
        self.judge(work, request).await?;
        Ok(None)
    }

    /// The request that a digest or its beginning names. The inner error is the answer.
    pub(super) async fn find(&mut self, work: &mut Work, id: &str) -> Result<Result<Digest, Answer>, PartyError> {
        let mut found = match id.len() {
            SHORTEST..=64 => work.turn.tx.asked_like(id).await?,
            _ => Vec::new(),
        };
        let changes = self.party.replay.open().map(|open| open.request().digest());
        for digest in changes.filter(|digest| id.len() >= SHORTEST && digest.to_string().starts_with(id)) {
            if !found.contains(&digest) {
                found.push(digest);
            }
        }
        Ok(match found.as_slice() {
            [request] => Ok(*request),
            [] => Err(unknown(id)),
            _ => Err(invalid("more than one request begins so", Some("give more of its id"))),
        })
    }

    /// Withdraws what nobody waits for any more: asked before this start, by somebody who hasn't come back in time. An admin's yes would lead nowhere.
    /// What was asked without waiting stays.
    pub(super) async fn withdraw_orphans(&mut self, work: &mut Work) -> Result<(), PartyError> {
        if self.started.elapsed().as_millis() < u128::from(self.party.pace.orphans) {
            return Ok(());
        }
        let now = self.clock.now();
        let orphan = |open: &&approval::replay::Pending| {
            let request = open.request();
            open.permit().is_none()
                && !matches!(request.action, Action::Roster(_))
                && !self.is_asynchronous(&request.digest())
                && !self.askers.contains_key(&request.digest())
        };
        let orphans: Vec<Digest> = self
            .party
            .replay
            .open()
            .filter(orphan)
            .map(|open| open.request().digest())
            .collect();
        for request in orphans {
            self.close(work, request, Ended::Withdrawn(Nothing {}), now).await?;
        }
        Ok(())
    }

    /// A program went away: what nobody waits for any more is withdrawn, and what runs for nobody is ended.
    pub(super) async fn left(&mut self, work: &mut Work, client: ClientId) -> Result<(), PartyError> {
        self.waiters.retain(|waiter| waiter.client != client);
        self.listeners.retain(|listener| listener.client != client);
        let mut abandoned = Vec::new();
        self.askers.retain(|request, askers| {
            let before = askers.len();
            askers.retain(|asker| asker.client != client);
            if askers.is_empty() && before > 0 {
                abandoned.push(*request);
            }
            !askers.is_empty()
        });
        for request in abandoned {
            if let Some(running) = self.running.get(&request) {
                let _ = running.stop.send(true);
            }
            let open = self
                .party
                .replay
                .request(&request)
                .is_some_and(|open| open.permit().is_none());
            if open && self.halted.is_none() && !self.is_asynchronous(&request) {
                let now = self.clock.now();
                self.close(work, request, Ended::Withdrawn(Nothing {}), now).await?;
            }
        }
        Ok(())
    }
}

/// What to tell the model while people are asked.
pub(super) fn sentence_of_pending(number: Option<&str>) -> String {
    match number {
        None => ASKED.to_owned(),
        Some(number) => format!("{ASKED}; whoever approves must enter the number {number}: show it to your user"),
    }
}

/// Drawn evenly: what would make some numbers likelier is drawn again.
fn three_digits() -> String {
    let drawn = std::iter::repeat_with(|| OsRng.next_u32() & 0x3ff).find(|drawn| *drawn < 1000);
    format!("{:03}", drawn.unwrap_or_default())
}
