//! Requests that nobody waits for: how they are, waking whoever asked, taking them back, and redeeming what was allowed, once and only for the very
//! same action (abuse cases D01, D02, D11). Such a request lives in the transcript and the database alone, so that it outlives every connection and
//! every restart.

use std::time::Duration;

use tokio::sync::mpsc;

use approval::action::Action;
use approval::decide::Verdict;
use approval::outcome::{Ended, Nothing};
use approval::request::Request;
use approval::{Digest, Verified};

use super::ask::sentence_of_pending;
use super::prepare::{Redeemed, fault, invalid};
use super::work::{Effect, Work};
use super::{Asker, ClientId, Gate, Waiter};
use crate::local::{Answer, Fault, Standing, State, Woken};
use crate::party::PartyError;

/// The longest that somebody may wait in one question: a connection isn't a place to live.
const PATIENCE: Duration = Duration::from_secs(60 * 60);

impl Gate {
    /// Says how a request is once it isn't pending any more, or when the time is over. `None` when that comes later.
    pub(super) async fn wait(
        &mut self,
        work: &mut Work,
        client: ClientId,
        id: &str,
        timeout_ms: u64,
        answers: &mpsc::Sender<Answer>,
    ) -> Result<Option<Answer>, PartyError> {
        let request = match self.find(work, id).await? {
            Ok(request) => request,
            Err(answer) => return Ok(Some(answer)),
        };
        match self.standing(work, &request).await? {
            Some(standing) if standing.state == State::Pending && timeout_ms > 0 => {}
            Some(standing) => return Ok(Some(Answer::State(Box::new(standing)))),
            None => return Ok(Some(unknown(id))),
        }
        self.waiters.retain(|waiter| waiter.client != client);
        self.waiters.push(Waiter {
            client,
            request,
            until: tokio::time::Instant::now() + Duration::from_millis(timeout_ms).min(PATIENCE),
            answers: answers.clone(),
        });
        Ok(None)
    }

    /// Tells those whose waiting is over.
    pub(super) async fn tell_waiters(&mut self, work: &mut Work) -> Result<(), PartyError> {
        let now = tokio::time::Instant::now();
        let waiters = self.waiters.iter();
        let concerned: Vec<(ClientId, Digest, bool, mpsc::Sender<Answer>)> = waiters
            .filter(|waiter| work.changed || waiter.until <= now)
            .map(|waiter| {
                (
                    waiter.client,
                    waiter.request,
                    waiter.until <= now,
                    waiter.answers.clone(),
                )
            })
            .collect();
        for (client, request, over, answers) in concerned {
            let answer = match self.standing(work, &request).await? {
                Some(standing) if !over && standing.state == State::Pending => continue,
                Some(standing) => Answer::State(Box::new(standing)),
                None => unknown(&request.to_string()),
            };
            work.effects.push(Effect::Answer(answers, answer));
            work.effects.push(Effect::Waited(client));
        }
        Ok(())
    }

    /// Somebody wants to be woken. What may be redeemed already is told at once: it may have been said while nobody listened.
    pub(super) fn listen(&mut self, work: &mut Work, client: ClientId, answers: &mpsc::Sender<Answer>) {
        let now = self.clock.now();
        let allowed: Vec<Digest> = self
            .party
            .replay
            .open()
            .map(|open| open.request().digest())
            .filter(|request| self.is_asynchronous(request) && self.is_open(request, now))
            .collect();
        for request in allowed {
            let woken = self.woken(&request, State::Allowed, None);
            let event = woken.map(|woken| Effect::Answer(answers.clone(), Answer::Event(woken)));
            work.effects.extend(event);
        }
        if self.listeners.iter().all(|listener| listener.client != client) {
            self.listeners.push(Asker {
                client,
                answers: answers.clone(),
            });
        }
    }

    fn is_open(&self, request: &Digest, now: approval::Time) -> bool {
        matches!(self.verdict(request, now), Some(Verdict::Open(_)))
    }

    /// What an agent is told that asked without waiting; nothing about other requests.
    pub(super) fn woken(&self, request: &Digest, state: State, reason: Option<&str>) -> Option<Woken> {
        let open = self
            .party
            .replay
            .request(request)
            .filter(|_| self.is_asynchronous(request))?;
        Some(Woken {
            id: request.to_string(),
            asked_by: open.request().asked_by.clone(),
            state,
            sentence: sentence(state, None, reason),
            reason: reason.map(str::to_owned),
        })
    }

    /// Says something to everybody who wants to be woken. Whoever doesn't keep up is hung up on, and hears on its next connection what may still be
    /// redeemed.
    pub(super) fn wake(&mut self, woken: &Woken) {
        let told = |listener: &Asker| listener.answers.try_send(Answer::Event(woken.clone())).is_ok();
        self.listeners.retain(told);
    }

    /// What whoever asks without waiting is answered at once: how the request is.
    pub(super) async fn at_once(&mut self, work: &mut Work, request: &Digest) -> Result<Option<Answer>, PartyError> {
        let now = self.clock.now();
        match self.verdict(request, now) {
            Some(Verdict::Open(permit)) => Ok(self.party.replay.request(request).map(|open| Answer::Allowed {
                id: request.to_string(),
                expires: open.request().expires.millis(),
                sentence: sentence(State::Allowed, None, None),
                because: self.because(open, permit.basis()).1,
            })),
            Some(_) => Ok(self.pending(request)),
            None if self.party.replay.request(request).is_some() => Ok(Some(used())),
            None => self.past(work, request).await.map(Some),
        }
    }

    /// How a request is, as far as that is still known.
    pub(super) async fn standing(&mut self, work: &mut Work, request: &Digest) -> Result<Option<Standing>, PartyError> {
        let now = self.clock.now();
        let Some(open) = self.party.replay.request(request) else {
            return self.ended(work, request).await;
        };
        let (state, by) = match (open.permit(), self.verdict(request, now)) {
            (Some(permit), _) => (State::Running, self.because(open, &permit.basis).0),
            (None, Some(Verdict::Open(permit))) => (State::Allowed, self.because(open, permit.basis()).0),
            (None, _) => (State::Pending, Vec::new()),
        };
        let number = match state {
            State::Pending => self.asked.get(request).and_then(|kept| kept.number.clone()),
            _ => None,
        };
        Ok(Some(Standing {
            id: request.to_string(),
            asked_by: open.request().asked_by.clone(),
            state,
            sentence: sentence(state, number.as_deref(), None),
            reason: None,
            by,
            expires: open.request().expires.millis(),
            number,
            result: None,
        }))
    }

    /// How a request ended, as far as that is still known.
    async fn ended(&mut self, work: &mut Work, request: &Digest) -> Result<Option<Standing>, PartyError> {
        let kept = work.turn.tx.asked_standing(request).await?;
        Ok(kept.and_then(|text| serde_json::from_str(&text).ok()))
    }

    /// How a request ended, as whoever waited for it would have been told.
    pub(super) async fn past(&mut self, work: &mut Work, request: &Digest) -> Result<Answer, PartyError> {
        Ok(match self.ended(work, request).await? {
            Some(Standing {
                id,
                result: Some(result),
                by,
                reason,
                ..
            }) => Answer::Ended { id, result, by, reason },
            Some(standing) => Answer::State(Box::new(standing)),
            None => unknown(&request.to_string()),
        })
    }

    /// Takes a request back.
    pub(super) async fn cancel(&mut self, work: &mut Work, id: &str) -> Result<Answer, PartyError> {
        if let Some(answer) = self.mute() {
            return Ok(answer);
        }
        let request = match self.find(work, id).await? {
            Ok(request) => request,
            Err(answer) => return Ok(answer),
        };
        match self.party.replay.request(&request) {
            None => return self.spent(work, &request).await,
            Some(open) if open.permit().is_some() => return Ok(used()),
            Some(open) if matches!(open.request().action, Action::Roster(_)) => {
                // Whoever asks here is no admin: they must not keep a change from those who decide about it.
                return Ok(invalid("a change of the roster is the admins' to deny", None));
            }
            Some(_) => {}
        }
        let now = self.clock.now();
        self.close(work, request, Ended::Withdrawn(Nothing {}), now).await?;
        Ok(Answer::Cancelled {
            id: request.to_string(),
        })
    }

    /// Does what was allowed. Of any number who try, one gets past the check that no permit was given, because the permit is written in the same step.
    pub(super) async fn redeem(
        &mut self,
        work: &mut Work,
        client: ClientId,
        redeemed: &Redeemed,
        answers: &mpsc::Sender<Answer>,
    ) -> Result<(), PartyError> {
        if let Some(answer) = self.redeeming(work, client, redeemed, answers).await? {
            work.effects.push(Effect::Answer(answers.clone(), answer));
        }
        Ok(())
    }

    /// `None` when it is done, and the answers come as those of a question that waits.
    async fn redeeming(
        &mut self,
        work: &mut Work,
        client: ClientId,
        redeemed: &Redeemed,
        answers: &mpsc::Sender<Answer>,
    ) -> Result<Option<Answer>, PartyError> {
        if let Some(answer) = self.mute() {
            return Ok(Some(answer));
        }
        let request = match self.find(work, &redeemed.id).await? {
            Ok(request) => request,
            Err(answer) => return Ok(Some(answer)),
        };
        let Some(open) = self.party.replay.request(&request) else {
            return self.spent(work, &request).await.map(Some);
        };
        if !self.is_asynchronous(&request) {
            return Ok(Some(invalid("somebody waits for this request: it is theirs", None)));
        }
        if let Some(difference) = differs(&open.request().action, &redeemed.action) {
            return Ok(Some(fault(
                Fault::Another,
                format!("another action than the one that was asked: {difference}"),
                Some("ask for this one"),
            )));
        }
        let now = self.clock.now();
        match self.verdict(&request, now) {
            None => Ok(Some(used())),
            Some(Verdict::Open(permit)) => {
                self.listens(request, client, answers);
                if let Some(kept) = self.asked.get_mut(&request)
                    && kept.held.is_none()
                {
                    kept.held = redeemed.held.take();
                }
                self.permit(work, permit, now).await?;
                Ok(None)
            }
            Some(Verdict::Waiting { have, need }) => Ok(Some(fault(
                Fault::NotYet,
                format!("not yet approved: {have} of {need}"),
                Some("wait until you are notified"),
            ))),
            Some(_) => {
                self.judge(work, request).await?;
                self.spent(work, &request).await.map(Some)
            }
        }
    }

    /// Why a request that is over leads to nothing any more.
    async fn spent(&mut self, work: &mut Work, request: &Digest) -> Result<Answer, PartyError> {
        if self.party.replay.request(request).is_some() {
            return Ok(self.nobody());
        }
        Ok(match self.ended(work, request).await? {
            None => unknown(&request.to_string()),
            Some(standing) if standing.state == State::Used => used(),
            Some(standing) => fault(Fault::Refused, standing.sentence, Some("ask anew")),
        })
    }
}

pub(super) fn unknown(id: &str) -> Answer {
    fault(
        Fault::Unknown,
        format!("no request {}", approval::escape::escape(id)),
        Some("see `countersign inbox` in the gate's home"),
    )
}

fn used() -> Answer {
    fault(
        Fault::Used,
        "already used: what is allowed is done once",
        Some("ask anew"),
    )
}

/// The first thing that isn't as it was asked, in words.
fn differs(asked: &Action, now: &Action) -> Option<&'static str> {
    if asked == now {
        return None;
    }
    let (Action::Command(asked), Action::Command(now)) = (asked, now) else {
        return Some(if asked.class() == now.class() {
            "its details"
        } else {
            "its kind"
        });
    };
    let parts = [
        (asked.argv == now.argv, "its arguments"),
        (asked.executable == now.executable, "its program"),
        (asked.interpreter == now.interpreter, "its interpreter"),
        (asked.operands == now.operands, "the files that its arguments name"),
        (asked.directory == now.directory, "its folder"),
        (asked.env == now.env, "its environment"),
        (asked.stdin == now.stdin, "its standard input"),
        (asked.limits == now.limits, "its limits"),
    ];
    let differing = parts.into_iter().find_map(|(same, what)| (!same).then_some(what));
    differing.or(Some("what the gate sees about it"))
}

/// What is kept of a request's end. A change of the roster that is in force has no result of its own.
pub(super) fn standing_of_end(
    request: &Verified<Request>,
    result: Option<&Ended>,
    by: &[String],
    reason: Option<&str>,
) -> Standing {
    let state = match result {
        None | Some(Ended::Ran(_) | Ended::Released(_) | Ended::Failed(_) | Ended::Unknown(_)) => State::Used,
        Some(Ended::Denied(_)) => State::Denied,
        Some(Ended::Expired(_)) => State::Expired,
        Some(Ended::Withdrawn(_)) => State::Withdrawn,
        Some(Ended::Forbidden(_)) => State::Forbidden,
    };
    Standing {
        id: request.digest().to_string(),
        asked_by: request.asked_by.clone(),
        state,
        sentence: sentence(state, None, reason),
        reason: reason.map(str::to_owned),
        by: by.to_vec(),
        expires: request.expires.millis(),
        number: None,
        result: result.cloned(),
    }
}

/// What to tell the model. A person's words are passed on as they came: to a model they are data, and it is told so by their place.
fn sentence(state: State, number: Option<&str>, reason: Option<&str>) -> String {
    let with = |words: &str| match reason {
        Some(reason) => format!("{words}: {}", approval::escape::escape(reason)),
        None => words.to_owned(),
    };
    match state {
        State::Pending => sentence_of_pending(number),
        State::Allowed => "allowed: do exactly this action now, with the request's id; it is allowed once".to_owned(),
        State::Running => "permitted, and running".to_owned(),
        State::Used => "already used: what is allowed is done once".to_owned(),
        State::Denied => with("an admin denied this action"),
        State::Forbidden => with("this action isn't allowed here"),
        State::Expired => "this request has expired; ask anew if it is still needed".to_owned(),
        State::Withdrawn => "this request was taken back".to_owned(),
    }
}
