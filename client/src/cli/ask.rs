//! `countersign run`: asks the gate for one command, waits, passes its output on as it comes and its exit code at the end. Also the connection that
//! every command for the gate on this machine uses.

use std::ffi::OsString;
use std::io::Write;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;
use std::time::Duration;

use approval::outcome::{Ended, Exit};
use approval::scalar::{ByteString, Id16};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use clap::Args;
use serde::Serialize;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};

use super::terminal::{Failure, Outcome, complain};
use super::{Context, shutdown};
use crate::home::Home;
use crate::local::{Answer, Ask, Fault, MAX_LINE, Question};
use crate::party::random16;
use crate::show;

/// Exit code where Countersign itself failed.
pub(super) const FAILED: u8 = 125;
/// Exit code where the command was not permitted.
const REFUSED: u8 = 126;
/// Exit code where there is no such program.
const NO_PROGRAM: u8 = 127;
/// Exit code after an interrupt: 128 and SIGINT.
const INTERRUPTED: u8 = 130;

/// How long a gate that restarts may be away before waiting is given up.
const AWAY: Duration = Duration::from_secs(60);

/// A connection to the gate on this machine.
pub(super) struct Connection {
    read: BufReader<OwnedReadHalf>,
    write: OwnedWriteHalf,
}

impl Connection {
    /// Connects and asks.
    pub(super) async fn open(home: &Home, question: &impl Serialize) -> Result<Self, Failure> {
        let path = home.socket()?;
        let no_gate = |error: std::io::Error| {
            Failure::new(format!("the gate isn't running: {}: {error}", path.display()))
                .hint("start it: countersign gate serve")
        };
        let stream = UnixStream::connect(&path).await.map_err(no_gate)?;
        let gate = stream.peer_cred()?;
        if gate.uid() != rustix::process::geteuid().as_raw() {
            return Err(Failure::new(format!(
                "{} belongs to another user's process",
                path.display()
            )));
        }
        let (read, write) = stream.into_split();
        let mut connection = Self {
            read: BufReader::new(read),
            write,
        };
        connection.send(question).await?;
        Ok(connection)
    }

    /// Says something.
    pub(super) async fn send(&mut self, message: &impl Serialize) -> Result<(), Failure> {
        let mut line = serde_json::to_vec(message)?;
        line.push(b'\n');
        Ok(self.write.write_all(&line).await?)
    }

    /// The next answer, `None` when the gate hung up.
    pub(super) async fn next(&mut self) -> Result<Option<Answer>, Failure> {
        let mut line = Vec::new();
        // Output comes in pieces that are far smaller; a longer line isn't the gate's.
        (&mut self.read)
            .take(2 * MAX_LINE as u64)
            .read_until(b'\n', &mut line)
            .await?;
        if line.last() != Some(&b'\n') {
            return Ok(None);
        }
        Ok(Some(serde_json::from_slice(&line).map_err(|error| {
            Failure::new(format!("the gate's answer can't be read: {error}"))
        })?))
    }
}

/// What a program that calls `run` must know.
const EXIT_CODES: &str = "\
Exit code: the command's own, 128+n if signal n ended it; 125 where Countersign failed or a limit stopped the command;
126 where it was not approved: denied, expired, or nobody is enrolled; 127 where there is no such program; 130 after
an interrupt, which withdraws the request. With --json the words on stderr are JSON; stdout is the command's alone.";

#[derive(Args)]
#[command(after_help = EXIT_CODES)]
pub(super) struct Run {
    /// Why, in the agent's words: shown to the admins as untrusted
    #[arg(long, default_value = "", hide_default_value = true)]
    reason: String,
    /// Who asks: a name of a-z 0-9 . _ -
    #[arg(long, value_name = "NAME")]
    agent: Option<String>,
    /// For which user
    #[arg(long)]
    user: Option<String>,
    /// In which conversation
    #[arg(long)]
    conversation: Option<String>,
    /// On which platform
    #[arg(long)]
    platform: Option<String>,
    /// A variable more in the command's environment, which starts from empty; may be repeated
    #[arg(long = "env", value_name = "NAME=VALUE")]
    env: Vec<OsString>,
    /// Where it runs [default: here]
    #[arg(long, value_name = "DIR")]
    directory: Option<PathBuf>,
    /// How long it may run, in seconds [default: 30]
    #[arg(long, value_name = "SECONDS")]
    wall: Option<u64>,
    /// How much it may write, in bytes [default: 64 MiB]
    #[arg(long, value_name = "BYTES")]
    output: Option<u64>,
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

fn bytes(text: &OsString, what: &str) -> Result<ByteString, Failure> {
    ByteString::new(text.as_bytes().to_vec()).map_err(|error| Failure::new(format!("{what}: {error}")).code(FAILED))
}

impl Run {
    fn ask(&self) -> Result<Ask, Failure> {
        let directory = match &self.directory {
            Some(directory) => std::path::absolute(directory)?,
            None => std::env::current_dir()?,
        };
        let variable = |pair: &OsString| {
            let raw = pair.as_bytes();
            let at = raw
                .iter()
                .position(|byte| *byte == b'=')
                .ok_or_else(|| Failure::new("--env takes NAME=VALUE").hint("see `countersign run --help`"))?;
            let (name, value) = raw.split_at(at);
            let part = |part: &[u8]| bytes(&OsString::from_vec(part.to_vec()), "--env");
            Ok::<_, Failure>((part(name)?, part(value.get(1..).unwrap_or_default())?))
        };
        let ms = |seconds: Option<u64>| seconds.map(|seconds| seconds.saturating_mul(1000));
        Ok(Ask {
            argv: self
                .command
                .iter()
                .map(|argument| bytes(argument, "an argument"))
                .collect::<Result<_, _>>()?,
            directory: bytes(&directory.into_os_string(), "the directory")?,
            env: self.env.iter().map(variable).collect::<Result<_, _>>()?,
            reason: self.reason.clone(),
            agent: self.agent.clone(),
            user: self.user.clone(),
            conversation: self.conversation.clone(),
            platform: self.platform.clone(),
            wall_ms: ms(self.wall),
            output_bytes: self.output,
            expires_ms: ms(self.expires),
            ticket: Some(Id16(random16())),
        })
    }

    pub(super) async fn run(self, context: &Context) -> Outcome {
        let failed = |failure: Failure| {
            if context.json {
                complain(&serde_json::json!({"v": 1, "error": failure.message, "hint": failure.hint}).to_string());
                Ok(FAILED)
            } else {
                Err(failure.code(FAILED))
            }
        };
        tokio::select! {
            outcome = self.wait(context) => match outcome {
                Ok(code) => Ok(code),
                Err(failure) => failed(failure),
            },
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
        let mut id: Option<String> = None;
        loop {
            let Ok(Some(answer)) = gate.next().await else {
                gate = self.again(&home, &question, id.as_deref()).await?;
                continue;
            };
            if let Answer::Pending { id: new, .. } = &answer {
                id = Some(new.clone());
            }
            if let Some(code) = self.told(context, answer) {
                return Ok(code);
            }
        }
    }

    /// The gate went away in the middle: wait for it to come back, and ask again with the same ticket. What it took is in its transcript and goes on.
    async fn again(&self, home: &Home, question: &Question, id: Option<&str>) -> Result<Connection, Failure> {
        let which = id.map_or_else(String::new, |id| format!(" (request {})", short(id)));
        self.word(&format!("the gate went away; waiting for it to come back{which}"));
        let until = tokio::time::Instant::now() + AWAY;
        loop {
            match Connection::open(home, question).await {
                Ok(connection) => return Ok(connection),
                Err(failure) if tokio::time::Instant::now() >= until => return Err(failure),
                Err(_) => tokio::time::sleep(Duration::from_millis(200)).await,
            }
        }
    }

    fn word(&self, line: &str) {
        if !self.quiet {
            complain(line);
        }
    }

    /// Passes on what the gate says. The exit code when it was the last word.
    fn told(&self, context: &Context, answer: Answer) -> Option<u8> {
        match answer {
            Answer::Pending { id, expires, need, .. } => {
                if context.json {
                    complain(&serde_json::json!({"v": 1, "pending": id, "expires": expires, "need": need}).to_string());
                } else {
                    let left = show::duration(expires.saturating_sub(crate::clock::wall()));
                    self.word(&format!(
                        "request {}: waiting for {} to approve, at most {left}",
                        short(&id),
                        show::persons(need)
                    ));
                }
            }
            Answer::Progress { have, need } if !context.json => self.word(&format!("{have} of {need} have approved")),
            Answer::Permitted { by } if !context.json => self.word(&format!("approved by {}", by.join(", "))),
            Answer::Stdout(piece) => pass_on(&piece, &mut std::io::stdout()),
            Answer::Stderr(piece) => pass_on(&piece, &mut std::io::stderr()),
            Answer::Ended { id, result, by, reason } => {
                return Some(self.ended(context, &id, &result, &by, reason.as_deref()));
            }
            Answer::Error { kind, message, hint } => {
                let code = match kind {
                    Fault::NoProgram => NO_PROGRAM,
                    Fault::Refused => REFUSED,
                    Fault::Invalid | Fault::Broken => FAILED,
                };
                if context.json {
                    complain(&serde_json::json!({"v": 1, "error": message, "kind": kind, "hint": hint}).to_string());
                } else {
                    let hint =
                        hint.or_else(|| (kind == Fault::Invalid).then(|| "see `countersign run --help`".to_owned()));
                    Failure { message, hint, code }.report();
                }
                return Some(code);
            }
            _ => {}
        }
        None
    }

    fn ended(&self, context: &Context, id: &str, result: &Ended, by: &[String], reason: Option<&str>) -> u8 {
        let code = match result {
            Ended::Ran(ran) => match (ran.exit, ran.stopped) {
                (Exit::Code(code), None) => u8::try_from(code).unwrap_or(FAILED),
                (Exit::Signal(signal), None) => {
                    u8::try_from(signal).map_or(FAILED, |signal| signal.saturating_add(128))
                }
                // Our limit, not the command's own end.
                (_, Some(_)) => FAILED,
            },
            Ended::Failed(_) | Ended::Unknown(_) => FAILED,
            Ended::Denied(_) | Ended::Expired(_) | Ended::Withdrawn(_) => REFUSED,
        };
        if context.json {
            complain(
                &serde_json::json!({"v": 1, "request": id, "result": result, "by": by, "reason": reason, "exit": code})
                    .to_string(),
            );
            return code;
        }
        match result {
            Ended::Ran(ran) if ran.stopped.is_none() => {}
            Ended::Denied(_) => {
                let by = if by.is_empty() {
                    String::new()
                } else {
                    format!(" by {}", by.join(", "))
                };
                let reason = reason.map_or(String::new(), |reason| {
                    format!(": {}", approval::escape::escape(reason))
                });
                complain(&format!("error: denied{by}{reason}"));
            }
            other => complain(&format!("error: {}", show::ended(other))),
        }
        code
    }
}

fn short(id: &str) -> String {
    id.chars().take(8).collect()
}

/// Output goes on as the bytes that it is: whoever runs a command expects that command's bytes.
fn pass_on(piece: &str, to: &mut impl Write) {
    if let Ok(bytes) = STANDARD.decode(piece) {
        let _ = to.write_all(&bytes);
        let _ = to.flush();
    }
}
