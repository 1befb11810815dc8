//! `countersign run`: asks the gate for one command, waits, passes its output on as it comes and its exit code at the end. Also the connection that
//! every command for the gate on this machine uses, and how a stream of answers is told, which `redeem` shares.

use std::ffi::OsString;
use std::io::Write;
use std::time::Duration;

use approval::outcome::Ended;
use approval::scalar::Id16;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use clap::Args;
use serde::Serialize;

use super::action::{Surroundings, Who};
use super::terminal::{Failure, Outcome, complain};
use super::{Context, shutdown};
use crate::caller::{CallError, Caller, exit_code};
use crate::home::Home;
use crate::local::{Answer, Ask, Fault, Question};
use crate::party::random16;
use crate::show;

pub(super) use crate::caller::{FAILED, REFUSED};

/// Exit code where there is no such program.
const NO_PROGRAM: u8 = 127;
/// Exit code after an interrupt: 128 and SIGINT.
pub(super) const INTERRUPTED: u8 = 130;

/// How long a gate that restarts may be away before waiting is given up.
const AWAY: Duration = Duration::from_secs(60);

/// A connection to the gate on this machine.
pub(super) struct Connection(Caller);

impl Connection {
    /// Connects and asks.
    pub(super) async fn open(home: &Home, question: &impl Serialize) -> Result<Self, Failure> {
        Ok(Self(Caller::open(&home.socket()?, question).await?))
    }

    /// Says something.
    pub(super) async fn send(&mut self, message: &impl Serialize) -> Result<(), Failure> {
        Ok(self.0.send(message).await?)
    }

    /// The next answer, `None` when the gate hung up.
    pub(super) async fn next(&mut self) -> Result<Option<Answer>, Failure> {
        Ok(self.0.next().await?)
    }

    /// The one answer of a question that has one. What the gate can't do is the failure.
    pub(super) async fn answer(home: &Home, question: &Question) -> Result<Answer, Failure> {
        match Self::open(home, question).await?.next().await? {
            Some(Answer::Error { kind, message, hint }) => Err(Failure {
                message,
                hint,
                code: fault_code(kind),
            }),
            Some(answer) => Ok(answer),
            None => Err(Failure::new("the gate ended the connection").code(FAILED)),
        }
    }
}

impl From<CallError> for Failure {
    fn from(error: CallError) -> Self {
        let hint = matches!(error, CallError::NoGate { .. }).then(|| "start it: countersign gate serve".to_owned());
        Self {
            message: error.to_string(),
            hint,
            code: 1,
        }
    }
}

/// What a refusal by the gate means to a shell.
fn fault_code(kind: Fault) -> u8 {
    match kind {
        Fault::NoProgram => NO_PROGRAM,
        Fault::Refused | Fault::NotYet | Fault::Used | Fault::Another => REFUSED,
        Fault::Invalid | Fault::TooMuch | Fault::Unknown | Fault::Broken => FAILED,
    }
}

/// What a program that calls `run` must know.
const EXIT_CODES: &str = "\
Exit code: the command's own, 128+n if signal n ended it; 125 where Countersign failed or a limit
stopped the command; 126 where it was not approved: denied, forbidden, expired, or nobody is
enrolled; 127 where there is no such program; 130 after an interrupt, which withdraws the request.
With --json the words on stderr are JSON; stdout is the command's alone.";

#[derive(Args)]
#[command(after_help = EXIT_CODES)]
pub(super) struct Run {
    /// Why, in the agent's words: shown to the admins as untrusted
    #[arg(long, default_value = "", hide_default_value = true)]
    reason: String,
    #[command(flatten)]
    who: Who,
    #[command(flatten)]
    surroundings: Surroundings,
    /// How long the admins have, in seconds [default: 600]
    #[arg(long, value_name = "SECONDS")]
    expires: Option<u64>,
    /// No words on stderr while waiting
    #[arg(short, long)]
    quiet: bool,
    /// The command, after --
    #[arg(required = true, trailing_var_arg = true, value_name = "CMD")]
    command: Vec<OsString>,
}

/// Turns a failure of Countersign's own into the exit code that says so, as JSON where that is wanted.
pub(super) fn failed(context: &Context, failure: Failure) -> Outcome {
    let code = if failure.code == 1 { FAILED } else { failure.code };
    if context.json {
        complain(&serde_json::json!({"v": 1, "error": failure.message, "hint": failure.hint}).to_string());
        Ok(code)
    } else {
        Err(failure.code(code))
    }
}

impl Run {
    fn ask(&self) -> Result<Ask, Failure> {
        Ok(Ask {
            reason: self.reason.clone(),
            expires_ms: self.expires.map(|seconds| seconds.saturating_mul(1000)),
            ticket: Some(Id16(random16())),
            ..self.who.asks(self.surroundings.of(&self.command)?)
        })
    }

    pub(super) async fn run(self, context: &Context) -> Outcome {
        tokio::select! {
            outcome = self.wait(context) => outcome.or_else(|failure| failed(context, failure)),
            // Hanging up withdraws the request, or ends the command.
            () = shutdown() => {
                if !self.quiet {
                    complain("interrupted: the request is withdrawn");
                }
                Ok(INTERRUPTED)
            }
        }
    }

    async fn wait(&self, context: &Context) -> Outcome {
        let home = context.home()?;
        let question = Question::Ask(Box::new(self.ask()?));
        let mut gate = Connection::open(&home, &question).await?;
        let telling = self.telling(context);
        let mut id: Option<String> = None;
        loop {
            let Ok(Some(answer)) = gate.next().await else {
                gate = self.again(&home, &question, id.as_deref()).await?;
                continue;
            };
            if let Answer::Pending { id: new, .. } = &answer {
                id = Some(new.clone());
            }
            if let Some(code) = telling.told(answer) {
                return Ok(code);
            }
        }
    }

    /// The gate went away in the middle: wait for it to come back, and ask again with the same ticket. What it took is in its transcript and goes on.
    async fn again(&self, home: &Home, question: &Question, id: Option<&str>) -> Result<Connection, Failure> {
        let which = id.map_or_else(String::new, |id| format!(" (request {})", short(id)));
        if !self.quiet {
            complain(&format!("the gate went away; waiting for it to come back{which}"));
        }
        let until = tokio::time::Instant::now() + AWAY;
        loop {
            match Connection::open(home, question).await {
                Ok(connection) => return Ok(connection),
                Err(failure) if tokio::time::Instant::now() >= until => return Err(failure),
                Err(_) => tokio::time::sleep(Duration::from_millis(200)).await,
            }
        }
    }

    fn telling(&self, context: &Context) -> Telling {
        Telling {
            json: context.json,
            quiet: self.quiet,
            command: "run",
        }
    }
}

/// How the answers to a question that runs something are told: words on stderr, the command's bytes as they are.
pub(super) struct Telling {
    pub(super) json: bool,
    pub(super) quiet: bool,
    /// The command whose help is pointed to.
    pub(super) command: &'static str,
}

impl Telling {
    fn word(&self, line: &str) {
        if !self.quiet {
            complain(line);
        }
    }

    /// Passes on what the gate says. The exit code when it was the last word.
    pub(super) fn told(&self, answer: Answer) -> Option<u8> {
        match answer {
            Answer::Pending {
                id,
                expires,
                need,
                number,
                ..
            } => self.pending(&id, expires, need, number.as_deref()),
            Answer::Progress { have, need } if !self.json => self.word(&format!("{have} of {need} have approved")),
            Answer::Permitted { because, .. } if !self.json => self.word(&because),
            Answer::Stdout(piece) => pass_on(&piece, &mut std::io::stdout()),
            Answer::Stderr(piece) => pass_on(&piece, &mut std::io::stderr()),
            Answer::Ended { id, result, by, reason } => {
                return Some(self.ended(&id, &result, &by, reason.as_deref()));
            }
            Answer::Error { kind, message, hint } => {
                let code = fault_code(kind);
                if self.json {
                    complain(&serde_json::json!({"v": 1, "error": message, "kind": kind, "hint": hint}).to_string());
                } else {
                    let see = || format!("see `countersign {} --help`", self.command);
                    let hint = hint.or_else(|| (kind == Fault::Invalid).then(see));
                    Failure { message, hint, code }.report();
                }
                return Some(code);
            }
            _ => {}
        }
        None
    }

    fn pending(&self, id: &str, expires: u64, need: u16, number: Option<&str>) {
        if self.json {
            let pending =
                serde_json::json!({"v": 1, "pending": id, "expires": expires, "need": need, "number": number});
            complain(&pending.to_string());
            return;
        }
        let left = show::duration(expires.saturating_sub(crate::clock::wall()));
        let people = show::persons(need);
        self.word(&format!(
            "request {}: waiting for {people} to approve, at most {left}",
            short(id)
        ));
        if let Some(number) = number {
            // Without it nobody can approve, so not even a quiet run keeps it to itself.
            complain(&tell_number(number));
        }
    }

    fn ended(&self, id: &str, result: &Ended, by: &[String], reason: Option<&str>) -> u8 {
        let code = exit_code(result);
        if self.json {
            complain(
                &serde_json::json!({"v": 1, "request": id, "result": result, "by": by, "reason": reason, "exit": code})
                    .to_string(),
            );
            return code;
        }
        let reason = reason.map(approval::escape::escape);
        match result {
            Ended::Ran(ran) if ran.stopped.is_none() => {}
            Ended::Released(_) => {}
            Ended::Denied(_) => {
                let by = match by {
                    [] => String::new(),
                    by => format!(" by {}", by.join(", ")),
                };
                let reason = reason.map_or(String::new(), |reason| format!(": {reason}"));
                complain(&format!("error: denied{by}{reason}"));
            }
            Ended::Forbidden(_) => {
                let reason = reason.unwrap_or_else(|| show::ended(result));
                complain(&format!("error: {reason}"));
                complain("hint: see why: countersign policy explain");
            }
            other => complain(&format!("error: {}", show::ended(other))),
        }
        code
    }
}

/// What is said about a number that an approval must repeat.
pub(super) fn tell_number(number: &str) -> String {
    format!("number {number}: tell it to whoever approves")
}

/// A request's id as people say it.
pub(super) fn short(id: &str) -> String {
    id.chars().take(8).collect()
}

/// Output goes on as the bytes that it is: whoever runs a command expects that command's bytes.
fn pass_on(piece: &str, to: &mut impl Write) {
    if let Ok(bytes) = STANDARD.decode(piece) {
        let _ = to.write_all(&bytes);
        let _ = to.flush();
    }
}
