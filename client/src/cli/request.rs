//! Asking without waiting: `request` asks, `wait` and `events` tell what became of it, `cancel` takes it back, `redeem` does what was allowed.
//! Deliberately not here: the waiting form of the same thing (`ask`).

use std::time::Duration;

use approval::escape::escape;
use approval::scalar::Id16;
use clap::Args;
use tokio::time::Instant;

use super::action::{Wanted, Who};
use super::ask::{Connection, FAILED, INTERRUPTED, REFUSED, Telling, failed, short, tell_number};
use super::terminal::{Failure, Outcome, complain, say, say_json};
use super::{Context, shutdown};
use crate::local::{Answer, Ask, Question, Standing, State};
use crate::party::random16;

/// Exit code where the time was over first, as `timeout` has it.
const TOO_LATE: u8 = 124;

/// The longest that one question to the gate waits; more is asked again.
const ONE_WAIT: Duration = Duration::from_secs(300);

/// What a program that calls `request` must know.
const REQUEST_CODES: &str = "\
Exit code: 0 where people are asked or it is allowed already; 126 where the policy forbids it or
nobody is enrolled; 127 where there is no such program; 125 where Countersign failed.";

#[derive(Args)]
#[command(after_help = REQUEST_CODES)]
pub(super) struct Request {
    /// Why, in the agent's words: shown to the admins as untrusted
    #[arg(long, default_value = "", hide_default_value = true)]
    reason: String,
    #[command(flatten)]
    who: Who,
    #[command(flatten)]
    wanted: Wanted,
    /// How long the admins have, in seconds [default: 4 hours]
    #[arg(long, value_name = "SECONDS")]
    expires: Option<u64>,
}

impl Request {
    pub(super) async fn run(self, context: &Context) -> Outcome {
        match self.ask(context).await {
            Ok(code) => Ok(code),
            Err(failure) => failed(context, failure),
        }
    }

    async fn ask(&self, context: &Context) -> Outcome {
        let ask = Ask {
            reason: self.reason.clone(),
            expires_ms: self.expires.map(|seconds| seconds.saturating_mul(1000)),
            ticket: Some(Id16(random16())),
            ..self.who.asks(self.wanted.what()?)
        };
        let home = context.home()?;
        match Connection::answer(&home, &Question::Request(Box::new(ask))).await? {
            Answer::Pending {
                id,
                expires,
                need,
                number,
                sentence,
                ..
            } => {
                if context.json {
                    say_json(
                        &serde_json::json!({"v": 1, "id": id, "state": State::Pending, "sentence": sentence, "expires": expires, "need": need, "number": number}),
                    );
                } else {
                    say_state(&id, State::Pending, &sentence);
                    if let Some(number) = number {
                        complain(&tell_number(&number));
                    }
                }
                Ok(0)
            }
            Answer::Allowed {
                id,
                expires,
                sentence,
                because,
            } => {
                if context.json {
                    say_json(
                        &serde_json::json!({"v": 1, "id": id, "state": State::Allowed, "sentence": sentence, "expires": expires, "because": because}),
                    );
                } else {
                    say_state(&id, State::Allowed, &sentence);
                    complain(&because);
                }
                Ok(0)
            }
            // It never will be. How it is says it in the words that a model is told.
            Answer::Ended { id, .. } => {
                let standing = how(context, &id, Duration::ZERO).await?;
                Ok(told(context, &standing))
            }
            Answer::State(standing) => Ok(told(context, &standing)),
            _ => Err(astray()),
        }
    }
}

fn astray() -> Failure {
    Failure::new("the gate gave another answer than the one asked for")
}

/// The three lines of a request for people; its whole id, since it is what the other commands take.
fn say_state(id: &str, state: State, sentence: &str) {
    say(&format!("request {id}"));
    say(&format!("state {}", word(state)));
    say(sentence);
}

/// A state in the word that programs read.
fn word(state: State) -> &'static str {
    match state {
        State::Pending => "pending",
        State::Allowed => "allowed",
        State::Running => "running",
        State::Used => "used",
        State::Denied => "denied",
        State::Forbidden => "forbidden",
        State::Expired => "expired",
        State::Withdrawn => "withdrawn",
    }
}

/// What a state means to a shell that waits for a yes.
fn state_code(state: State) -> u8 {
    match state {
        State::Allowed | State::Running | State::Used => 0,
        State::Pending => TOO_LATE,
        State::Denied | State::Forbidden | State::Expired | State::Withdrawn => REFUSED,
    }
}

/// Says how a request is. Returns the exit code.
fn told(context: &Context, standing: &Standing) -> u8 {
    if context.json {
        let mut value = serde_json::to_value(standing).unwrap_or_default();
        if let Some(object) = value.as_object_mut() {
            object.insert("v".to_owned(), 1.into());
        }
        say_json(&value);
    } else {
        say_state(&standing.id, standing.state, &standing.sentence);
        if !standing.by.is_empty() {
            complain(&format!("by {}", standing.by.join(", ")));
        }
    }
    state_code(standing.state)
}

async fn how(context: &Context, id: &str, longest: Duration) -> Result<Standing, Failure> {
    let question = Question::Wait {
        id: id.to_owned(),
        timeout_ms: u64::try_from(longest.as_millis()).unwrap_or(u64::MAX),
    };
    match Connection::answer(&context.home()?, &question).await? {
        Answer::State(standing) => Ok(*standing),
        _ => Err(astray()),
    }
}

/// What a program that calls `wait` must know.
const WAIT_CODES: &str = "\
Exit code: 0 where it is allowed; 126 where it was denied, forbidden, taken back, or has expired;
124 where nobody had decided when the time was over; 125 where Countersign failed.";

#[derive(Args)]
#[command(after_help = WAIT_CODES)]
pub(super) struct Wait {
    /// The request's id; may be shortened
    id: String,
    /// The longest to wait, in seconds [default: until it is decided or expires]
    #[arg(long, value_name = "SECONDS")]
    timeout: Option<u64>,
}

impl Wait {
    pub(super) async fn run(self, context: &Context) -> Outcome {
        match self.wait(context).await {
            Ok(standing) => Ok(told(context, &standing)),
            Err(failure) => failed(context, failure),
        }
    }

    async fn wait(&self, context: &Context) -> Result<Standing, Failure> {
        let until = self
            .timeout
            .and_then(|seconds| Instant::now().checked_add(Duration::from_secs(seconds)));
        loop {
            let left = until.map_or(ONE_WAIT, |until| until.saturating_duration_since(Instant::now()));
            let standing = how(context, &self.id, left.min(ONE_WAIT)).await?;
            if standing.state != State::Pending || until.is_some_and(|until| Instant::now() >= until) {
                return Ok(standing);
            }
        }
    }
}

#[derive(Args)]
pub(super) struct Cancel {
    /// The request's id; may be shortened
    id: String,
}

impl Cancel {
    pub(super) async fn run(self, context: &Context) -> Outcome {
        match Connection::answer(&context.home()?, &Question::Cancel { id: self.id }).await {
            Ok(Answer::Cancelled { id }) if context.json => {
                say_json(&serde_json::json!({"v": 1, "id": id, "state": State::Withdrawn}));
                Ok(0)
            }
            Ok(Answer::Cancelled { id }) => {
                say(&format!("request {} is taken back", short(&id)));
                Ok(0)
            }
            Ok(_) => Err(astray()),
            Err(failure) => failed(context, failure),
        }
    }
}

/// What a program that calls `redeem` must know.
const REDEEM_CODES: &str = "\
Exit code: as of `countersign run`; 126 also where it isn't allowed yet, was redeemed already, or
another action was asked. A tool call or a secret is released: exit 0, and the caller does it.";

#[derive(Args)]
#[command(after_help = REDEEM_CODES)]
pub(super) struct Redeem {
    /// The request's id; may be shortened
    id: String,
    #[command(flatten)]
    wanted: Wanted,
    /// No words on stderr
    #[arg(short, long)]
    quiet: bool,
}

impl Redeem {
    pub(super) async fn run(self, context: &Context) -> Outcome {
        tokio::select! {
            outcome = self.redeem(context) => outcome.or_else(|failure| failed(context, failure)),
            // Hanging up ends the command.
            () = shutdown() => {
                if !self.quiet {
                    complain("interrupted: the command is ended");
                }
                Ok(INTERRUPTED)
            }
        }
    }

    async fn redeem(&self, context: &Context) -> Outcome {
        let question = Question::Redeem {
            id: self.id.clone(),
            what: Box::new(self.wanted.what()?),
        };
        let telling = Telling {
            json: context.json,
            quiet: self.quiet,
            command: "redeem",
        };
        let mut gate = Connection::open(&context.home()?, &question).await?;
        while let Some(answer) = gate.next().await? {
            if let Some(code) = telling.told(answer) {
                return Ok(code);
            }
        }
        Err(Failure::new("the gate went away")
            .hint(format!("it may have run: see `countersign wait {}`", self.id))
            .code(FAILED))
    }
}

#[derive(Args)]
pub(super) struct Events {}

impl Events {
    pub(super) async fn run(self, context: &Context) -> Outcome {
        let mut gate = Connection::open(&context.home()?, &Question::Events {}).await?;
        let mut shutdown = std::pin::pin!(shutdown());
        loop {
            let answer = tokio::select! {
                answer = gate.next() => answer?,
                () = &mut shutdown => return Ok(0),
            };
            match answer {
                Some(Answer::Event(woken)) if context.json => {
                    let mut value = serde_json::to_value(&woken)?;
                    if let Some(object) = value.as_object_mut() {
                        object.insert("v".to_owned(), 1.into());
                    }
                    say_json(&value);
                }
                Some(Answer::Event(woken)) => {
                    let sentence = escape(&woken.sentence);
                    say(&format!("{} {} {sentence}", short(&woken.id), word(woken.state)));
                }
                Some(Answer::Error { message, hint, .. }) => return Err(super::gate::failure(message, hint)),
                Some(_) => {}
                None => return Err(Failure::new("the gate went away").hint("start it: countersign gate serve")),
            }
        }
    }
}
