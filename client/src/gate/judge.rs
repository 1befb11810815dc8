//! Acting on the verdict over a request, as things stand now (PROTOCOL.md sections 8.5 to 8.7): a permit, an end, or waiting on. The verdict itself is
//! `approval::decide`'s, and running what was permitted is `running`'s.

use approval::action::Action;
use approval::decide::{Permit, Verdict};
use approval::outcome::{Ended, Forbidden, Nothing, Outcome};
use approval::permit::Basis;
use approval::replay::Pending;
use approval::{Digest, Time, sign};

use super::Gate;
use super::asynchronous::standing_of_end;
use super::work::{Effect, Work};
use crate::local::{Answer, Standing, State};
use crate::party::PartyError;

impl Gate {
    /// The verdict over an open request, if it is one and not permitted yet.
    pub(super) fn verdict(&self, request: &Digest, now: Time) -> Option<Verdict> {
        let replay = &self.party.replay;
        let open = replay.request(request)?;
        open.permit().is_none().then(|| replay.decide(request, now)).flatten()
    }

    /// Acts on the verdict over an open request.
    pub(super) async fn judge(&mut self, work: &mut Work, request: Digest) -> Result<(), PartyError> {
        let now = self.clock.now();
        let Some(verdict) = self.verdict(&request, now) else {
            return Ok(());
        };
        match verdict {
            Verdict::Open(permit) => self.open(work, permit, now).await,
            Verdict::Waiting { have, need } => {
                let people = |count: usize| u16::try_from(count).unwrap_or(u16::MAX);
                let (have, need) = (people(have), people(need));
                work.effects
                    .push(Effect::Tell(request, Answer::Progress { have, need }));
                if self.is_asynchronous(&request) {
                    // It may have been allowed before: a grant that was revoked, an admin who was removed.
                    work.effects.push(Effect::Forget(request));
                }
                Ok(())
            }
            Verdict::Denied { .. } => self.close(work, request, Ended::Denied(Nothing {}), now).await,
            Verdict::Forbidden { rule } => {
                let forbidden = Ended::Forbidden(Forbidden { rule });
                self.close(work, request, forbidden, now).await
            }
            Verdict::Expired => self.close(work, request, Ended::Expired(Nothing {}), now).await,
            Verdict::Refused(_) => Ok(()),
        }
    }

    /// It may be done. It is, if somebody is there to take it; else its agent is woken to come for it.
    async fn open(&mut self, work: &mut Work, permit: Permit, now: Time) -> Result<(), PartyError> {
        let request = permit.request();
        let Some(open) = self.party.replay.request(&request) else {
            return Ok(());
        };
        if let Action::Roster(contents) = &open.request().action {
            let contents = contents.clone();
            let permission = sign(&self.party.identity, permit.statement(Vec::new(), now))?;
            self.append(work, permission.signed()).await?;
            return self.change_roster(work, contents, Some(request), now).await;
        }
        if self.is_asynchronous(&request) {
            let woken = self.woken(&request, State::Allowed, None);
            work.effects.extend(woken.map(|woken| Effect::Wake(request, woken)));
            return Ok(());
        }
        // Nobody would take the output: it keeps until whoever asked is back, or the request expires.
        if self.askers.contains_key(&request) {
            self.permit(work, permit, now).await?;
        }
        Ok(())
    }

    /// Writes down that it is permitted, and hands it on: a command to be run once this is safe on disk, anything else to whoever asked.
    pub(super) async fn permit(&mut self, work: &mut Work, permit: Permit, now: Time) -> Result<(), PartyError> {
        let request = permit.request();
        let Some(open) = self.party.replay.request(&request) else {
            return Ok(());
        };
        let runs = matches!(open.request().action, Action::Command(_));
        let (by, because) = self.because(open, permit.basis());
        let confined = if runs { self.confined() } else { Vec::new() };
        let permission = sign(&self.party.identity, permit.statement(confined, now))?;
        self.append(work, permission.signed()).await?;
        work.effects
            .push(Effect::Tell(request, Answer::Permitted { by, because }));
        if runs {
            let stdin = work.turn.tx.stdin(&request).await?;
            work.effects.push(Effect::Run(permit, stdin));
            return Ok(());
        }
        let released = Outcome {
            request,
            permit: Some(permission.digest()),
            result: Ended::Released(Nothing {}),
            time: now,
        };
        self.end(work, released, Vec::new(), None).await
    }

    /// Closes a request that was never permitted.
    pub(super) async fn close(
        &mut self,
        work: &mut Work,
        request: Digest,
        result: Ended,
        now: Time,
    ) -> Result<(), PartyError> {
        let (by, reason) = match &result {
            Ended::Forbidden(forbidden) => (Vec::new(), Some(self.forbidding(forbidden.rule))),
            Ended::Denied(_) => self.who_denied(&request),
            _ => (Vec::new(), None),
        };
        let outcome = Outcome {
            request,
            permit: None,
            result,
            time: now,
        };
        self.end(work, outcome, by, reason).await?;
        self.forget_device(work, &request).await
    }

    /// Writes down how a request ended, and says so to all whom it concerns.
    pub(super) async fn end(
        &mut self,
        work: &mut Work,
        outcome: Outcome,
        by: Vec<String>,
        reason: Option<String>,
    ) -> Result<(), PartyError> {
        let (request, permitted) = (outcome.request, outcome.permit.is_some());
        let outcome = sign(&self.party.identity, outcome)?;
        if let Some(open) = self.party.replay.request(&request) {
            let standing = standing_of_end(open.request(), Some(&outcome.result), &by, reason.as_deref());
            // Whoever takes their own question back, or has come for the answer, needs no waking.
            if !permitted && standing.state != State::Withdrawn {
                let woken = self.woken(&request, standing.state, reason.as_deref());
                work.effects.extend(woken.map(|woken| Effect::Wake(request, woken)));
            }
            self.keep_end(work, &standing, &request).await?;
        }
        self.append(work, outcome.signed()).await?;
        let ended = Answer::Ended {
            id: request.to_string(),
            result: outcome.result.clone(),
            by,
            reason,
        };
        work.effects.push(Effect::End(request, ended));
        Ok(())
    }

    /// Keeps how a request ended for those who ask later.
    pub(super) async fn keep_end(
        &self,
        work: &mut Work,
        standing: &Standing,
        request: &Digest,
    ) -> Result<(), PartyError> {
        let kept = serde_json::to_string(standing).map_err(|_| PartyError::Lacks("an end that can be stored"))?;
        Ok(work.turn.tx.asked_ended(request, &kept, crate::clock::wall()).await?)
    }

    /// What an asynchronous request's asker hears who is refused at once.
    pub(super) async fn refuse_now(
        &mut self,
        work: &mut Work,
        request: Digest,
        verdict: Verdict,
    ) -> Result<Answer, PartyError> {
        if let Verdict::Forbidden { rule } = verdict {
            let now = self.clock.now();
            let forbidden = Ended::Forbidden(Forbidden { rule });
            self.close(work, request, forbidden, now).await?;
        }
        self.past(work, &request).await
    }

    /// Looks at everything open again: another roster or policy, a grant more or less may say something else about it. Each look may change more.
    pub(super) async fn reconsider(&mut self, work: &mut Work) -> Result<(), PartyError> {
        while std::mem::take(&mut work.reconsider) {
            let open: Vec<Digest> = self
                .party
                .replay
                .open()
                .filter(|open| open.permit().is_none())
                .map(|open| open.request().digest())
                .collect();
            for request in open {
                self.judge(work, request).await?;
            }
        }
        Ok(())
    }

    /// Appends the grants that the admins agreed on beside their approvals of a request.
    pub(super) async fn grant(&mut self, work: &mut Work, request: &Digest) -> Result<(), PartyError> {
        let now = self.clock.now();
        // One for each of the terms that enough people named: usually one.
        while let Some(grant) = self.party.replay.grantable(request, now) {
            let grant = sign(&self.party.identity, grant)?;
            self.append(work, grant.signed()).await?;
            tracing::info!(
                grant = grant.digest().short(),
                request = request.short(),
                "the admins granted it"
            );
            work.reconsider = true;
        }
        Ok(())
    }

    /// Who or what allows it: the people, and the same in words.
    pub(super) fn because(&self, open: &Pending, basis: &Basis) -> (Vec<String>, String) {
        match basis {
            Basis::Decisions(decisions) => {
                let signers = open
                    .decisions()
                    .iter()
                    .filter(|decision| decisions.contains(&decision.digest()));
                let by = self.names(signers.map(|decision| decision.signer()));
                let because = format!("approved by {}", by.join(", "));
                (by, because)
            }
            other => (Vec::new(), self.basis(other)),
        }
    }

    /// What a permit rests on, in words.
    pub(super) fn basis(&self, basis: &Basis) -> String {
        match basis {
            Basis::Decisions(_) => "approved".to_owned(),
            Basis::Grant(digest) => {
                let by = self.party.replay.standing().get(digest).map(|held| self.givers(held));
                format!("granted by {} ({})", by.unwrap_or_default().join(", "), digest.short())
            }
            Basis::Rule(rule) => format!("allowed by {}", self.rule(*rule)),
            Basis::Mode(_) => "allowed by the policy's mode full".to_owned(),
            Basis::Unenrolled(_) => {
                "nobody is enrolled yet, and this gate allows everything until somebody is".to_owned()
            }
        }
    }

    /// What in the policy says no.
    pub(super) fn forbidding(&self, rule: Option<u32>) -> String {
        match rule {
            Some(rule) => format!("forbidden by {}", self.rule(rule)),
            None => "forbidden by the policy's mode deny".to_owned(),
        }
    }

    /// A rule with its place in the policy's text.
    pub(super) fn rule(&self, rule: u32) -> String {
        match self.line_of(rule) {
            Some(line) => format!("rule {rule} of the policy (line {line})"),
            None => format!("rule {rule} of the policy"),
        }
    }

    pub(super) fn line_of(&self, rule: u32) -> Option<u32> {
        let policy = self.party.replay.roster()?.policy.as_ref()?;
        policy.line_of(rule).and_then(|line| u32::try_from(line).ok())
    }
}
