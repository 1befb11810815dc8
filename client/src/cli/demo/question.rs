//! The demo's one question, from the agent's asking to the end of the command. Who may answer was settled before, in `admin`.

use std::path::Path;

use approval::Digest;
use approval::decision::Answer as Vote;
use approval::outcome::Exit;
use approval::scalar::ByteString;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::admin::{Admin, pump};
use super::{Demo, REASON};
use crate::cli::ask::Connection;
use crate::cli::terminal::{Failure, Lines, prompt, say, say_raw};
use crate::clock::wall;
use crate::home::Home;
use crate::local::{Answer, Ask, AskCommand, Question, What};
use crate::show;

impl Demo {
    /// From the question to its end. Returns the exit code that `countersign run` would.
    pub(super) async fn approve(&self, home: &Path, admins: &mut [Admin]) -> Result<u8, Failure> {
        use std::os::unix::ffi::OsStrExt;
        let here = std::env::current_dir()?;
        let command = AskCommand {
            argv: self
                .argv()
                .iter()
                .map(|argument| ByteString::new(argument.as_bytes()))
                .collect::<Result<_, _>>()?,
            directory: ByteString::new(here.as_os_str().as_bytes())?,
            env: Vec::new(),
            stdin: None,
            wall_ms: None,
            output_bytes: None,
            memory_bytes: None,
        };
        let ask = Ask {
            reason: REASON.to_owned(),
            agent: Some("demo-agent".to_owned()),
            ..Ask::of(What::Command(command))
        };
        let mut asking = Connection::open(&Home::open(Some(home.to_owned()))?, &Question::Ask(Box::new(ask))).await?;
        let request = match asking.next().await? {
            Some(Answer::Pending { id, .. }) => {
                say(&format!(
                    "   the gate signed request {} and sealed it to each admin; the agent waits",
                    id.chars().take(8).collect::<String>()
                ));
                id.parse::<Digest>()?
            }
            Some(Answer::Error { message, hint, .. }) => return Err(Failure { message, hint, code: 1 }),
            _ => return Err(Failure::new("the gate gave no answer")),
        };
        say("");
        say("4. What an admin sees");
        let mut lines = (!self.yes && !self.deny).then(Lines::of_stdin);
        let turns = if self.deny { 1 } else { usize::from(self.quorum) };
        for turn in 0..turns {
            pump(admins, |admins| {
                admins
                    .get(turn)
                    .is_some_and(|admin| admin.member.party.replay.request(&request).is_some())
            })
            .await?;
            let Some(admin) = admins.get_mut(turn) else { break };
            if turn == 0
                && let Some(open) = admin.member.party.replay.request(&request)
            {
                let now = approval::Time::of_clock(wall());
                let whole = show::whole(open, &admin.member.party.replay, None, now);
                for line in whole.lines() {
                    say(format!("   | {line}").trim_end());
                }
            }
            let (verdict, reason) = self.verdict(admin, lines.as_mut()).await;
            admin.member.decide(&request, verdict, &reason).await?;
            say(&format!(
                "   {} signed: {}",
                admin.name,
                if verdict == Vote::Approve { "approve" } else { "deny" }
            ));
            if verdict == Vote::Deny {
                break;
            }
        }
        // The admins go on taking in what comes, and are not stopped midway, which would tear what they hold.
        let code = std::cell::OnceCell::new();
        let ending = async {
            let _ = code.set(end(&mut asking).await);
            std::future::pending::<()>().await;
        };
        tokio::select! {
            () = ending => {}
            pumped = pump(admins, |_| code.get().is_some()) => pumped?,
        }
        let code = code
            .into_inner()
            .unwrap_or_else(|| Err(Failure::new("the gate gave no answer")))?;
        // Everybody learns how it ended.
        pump(admins, |admins| {
            admins
                .iter()
                .all(|admin| admin.member.party.replay.request(&request).is_none())
        })
        .await?;
        Ok(code)
    }

    async fn verdict(&self, admin: &Admin, lines: Option<&mut Lines>) -> (Vote, String) {
        let Some(lines) = lines else {
            return (if self.deny { Vote::Deny } else { Vote::Approve }, String::new());
        };
        loop {
            prompt(&format!("   {}, approve? [y]es, [n]o REASON: ", admin.name));
            let Some(line) = lines.next_or_end().await else {
                return (Vote::Deny, "nobody answered".to_owned());
            };
            let (word, rest) = line.trim().split_once(' ').unwrap_or((line.trim(), ""));
            match word.to_lowercase().as_str() {
                "y" | "yes" => return (Vote::Approve, String::new()),
                "n" | "no" => return (Vote::Deny, rest.trim().to_owned()),
                _ => {}
            }
        }
    }
}

/// Passes the command's output on, and says how it ended.
async fn end(asking: &mut Connection) -> Result<u8, Failure> {
    while let Some(answer) = asking.next().await? {
        match answer {
            Answer::Permitted { by, .. } => say(&format!(
                "   the gate wrote the permit down, approved by {}, and runs it:",
                by.join(", ")
            )),
            Answer::Stdout(piece) | Answer::Stderr(piece) => {
                let bytes = STANDARD.decode(piece).unwrap_or_default();
                say_raw(
                    &String::from_utf8_lossy(&bytes)
                        .lines()
                        .map(|line| format!("   > {}\n", approval::escape::escape(line)))
                        .collect::<String>(),
                );
            }
            Answer::Ended { result, .. } => {
                say(&format!("   {}", show::ended(&result)));
                return Ok(match result {
                    approval::outcome::Ended::Ran(ran) => match ran.exit {
                        Exit::Code(code) => u8::try_from(code).unwrap_or(125),
                        Exit::Signal(signal) => u8::try_from(signal).map_or(125, |signal| signal.saturating_add(128)),
                    },
                    approval::outcome::Ended::Denied(_)
                    | approval::outcome::Ended::Expired(_)
                    | approval::outcome::Ended::Forbidden(_)
                    | approval::outcome::Ended::Withdrawn(_) => 126,
                    _ => 125,
                });
            }
            Answer::Error { message, hint, .. } => {
                return Err(Failure {
                    message,
                    hint,
                    code: 125,
                });
            }
            _ => {}
        }
    }
    Err(Failure::new("the gate ended the connection"))
}
