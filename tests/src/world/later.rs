//! Asking without waiting, as a story tells it: a request that lives on its own, being woken, and coming back to redeem what was allowed.

use approval::Digest;
use countersign::local::{Answer, Ask, Explained, Fault, GrantStatus, Question, Standing, What, Woken};

use super::{End, Local, World, command, line};

/// A request that nobody waits for.
#[derive(Debug)]
pub struct Requested {
    /// The request.
    pub id: Digest,
    /// When it expires, ms since 1970.
    pub expires: u64,
    /// How many must approve.
    pub need: u16,
    /// What only whoever asked is shown.
    pub number: Option<String>,
    /// What to tell the model.
    pub sentence: String,
}

/// Somebody who wants to be woken.
pub struct Listening(Local);

impl Listening {
    /// The next thing that became of a request.
    pub async fn hears(&mut self) -> Woken {
        match self.0.hears().await {
            Some(Answer::Event(woken)) => woken,
            other => panic!("not woken: {other:?}"),
        }
    }
}

impl World {
    /// A command in the world's folder, to be asked for.
    #[must_use]
    pub fn wants(&self, argv: &[&str]) -> Ask {
        command(argv, &self.place(""))
    }

    /// The same, to be redeemed.
    #[must_use]
    pub fn what(&self, argv: &[&str]) -> What {
        What::Command(line(argv, &self.place("")))
    }

    /// The one answer to a question.
    pub async fn hears(&self, question: &Question) -> Answer {
        let answer = Local::asks(&self.gate.home, question).await.hears().await;
        answer.expect("the gate answers")
    }

    /// What the gate answers at once to somebody who doesn't wait.
    pub async fn answers(&self, ask: Ask) -> Answer {
        self.hears(&Question::Request(Box::new(ask))).await
    }

    /// An agent asks for exactly this and goes on.
    pub async fn requests_for(&self, ask: Ask) -> Requested {
        match self.answers(ask).await {
            Answer::Pending {
                id,
                expires,
                need,
                number,
                sentence,
                ..
            } => Requested {
                id: id.parse().expect("a digest"),
                expires,
                need,
                number,
                sentence,
            },
            other => panic!("not pending: {other:?}"),
        }
    }

    /// An agent asks for a command and goes on.
    pub async fn requests(&self, argv: &[&str]) -> Requested {
        self.requests_for(self.wants(argv)).await
    }

    /// How a request is now.
    pub async fn standing(&self, request: &Digest) -> Standing {
        self.waits(request, 0).await
    }

    /// How a request is once it isn't pending any more.
    pub async fn learns(&self, request: &Digest) -> Standing {
        self.waits(request, 600_000).await
    }

    /// How a request is once it isn't pending any more, or after so many ms.
    pub async fn waits(&self, request: &Digest, timeout_ms: u64) -> Standing {
        let id = request.to_string();
        match self.hears(&Question::Wait { id, timeout_ms }).await {
            Answer::State(standing) => *standing,
            other => panic!("no standing: {other:?}"),
        }
    }

    /// An agent comes back to do what was allowed.
    ///
    /// # Errors
    /// Why it may not.
    pub async fn redeems(&self, request: &Digest, what: What) -> Result<End, (Fault, String)> {
        let (id, what) = (request.to_string(), Box::new(what));
        self.does_as(&Question::Redeem { id, what }).await
    }

    /// An agent asks and waits for something about which nobody need be asked.
    ///
    /// # Errors
    /// Why the gate refuses to ask.
    pub async fn does(&self, argv: &[&str]) -> Result<End, (Fault, String)> {
        self.does_for(self.wants(argv)).await
    }

    /// The same for exactly this.
    ///
    /// # Errors
    /// Why the gate refuses to ask.
    pub async fn does_for(&self, ask: Ask) -> Result<End, (Fault, String)> {
        self.does_as(&Question::Ask(Box::new(ask))).await
    }

    async fn does_as(&self, question: &Question) -> Result<End, (Fault, String)> {
        let mut local = Local::asks(&self.gate.home, question).await;
        let mut heard = Vec::new();
        loop {
            match local.hears().await.expect("the gate goes on") {
                Answer::Error { kind, message, .. } => return Err((kind, message)),
                Answer::Pending { shown, .. } => panic!("somebody is asked: {shown}"),
                answer => heard.push(answer),
            }
            if let Some(end) = End::of(&heard) {
                return Ok(end);
            }
        }
    }

    /// An agent takes its question back.
    pub async fn cancels(&self, request: &Digest) -> Answer {
        let id = request.to_string();
        self.hears(&Question::Cancel { id }).await
    }

    /// Somebody wants to be woken.
    pub async fn listens(&self) -> Listening {
        let listening = Local::asks(&self.gate.home, &Question::Events {}).await;
        // Answered after the question before it was taken in.
        self.status().await;
        Listening(listening)
    }

    /// What would be said of this, and why.
    pub async fn explains(&self, ask: Ask) -> Explained {
        match self.hears(&Question::Explain(Box::new(ask))).await {
            Answer::Explained(explained) => *explained,
            other => panic!("not explained: {other:?}"),
        }
    }

    /// The grants that stand.
    pub async fn grants(&self) -> Vec<GrantStatus> {
        match self.hears(&Question::Grants {}).await {
            Answer::Grants { grants } => grants,
            other => panic!("no grants: {other:?}"),
        }
    }
}
