//! What a device says to its gate: signed decisions and revocations, and proposals. Each stays in the outbox until the transcript or a refusal
//! answers it, and is encrypted anew where the gate may have become deaf to its bytes. Asking the person is in `cli`.

use approval::change::Change;
use approval::decision::{Answer as Vote, Decision};
use approval::grant::Terms;
use approval::message::Message;
use approval::revocation::Revocation;
use approval::{Digest, Id16, Text, Time, sign};
use wire::envelope::Content;

use super::Member;
use crate::clock::wall;
use crate::party::{PartyError, Turn, random16};
use crate::store::{NewPost, Outgoing};

/// Overdue questions that are encrypted anew at a time: no more than are put at a time.
const OVERDUE: u32 = 64;

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

impl Member {
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

    /// The gate's refusal of what we said, if there was one.
    pub async fn refusal(&mut self, about: &[u8; 32]) -> Result<Option<(u8, String)>, PartyError> {
        let mut tx = self.party.store.begin().await?;
        let refusal = tx.refusal(about).await?;
        tx.commit().await?;
        Ok(refusal)
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

    /// After a change of epoch: what the gate hasn't answered is encrypted anew, since it may have dropped the keys of the epoch before.
    pub(super) async fn ask_again(&self, turn: &mut Turn) -> Result<(), PartyError> {
        let questions = turn.tx.questions().await?;
        for (about, question) in questions {
            turn.tx.answered(&about).await?;
            self.post_question(turn, &question, &about).await?;
        }
        Ok(())
    }

    /// What the gate should have answered by now is encrypted anew: it may have heard it, and its answer may be what was lost; to the same bytes
    /// it would be deaf, as to any replay.
    pub(super) async fn ask_overdue(&self, turn: &mut Turn) -> Result<(), PartyError> {
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
}
