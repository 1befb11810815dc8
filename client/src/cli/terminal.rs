//! What every command keeps to at the terminal: data on stdout, words on stderr, `error:` says what is wrong and `hint:` what to do; nothing is asked
//! where nobody can answer.

use std::io::{BufRead, IsTerminal, Write};

use tokio::sync::mpsc;

/// A failure as the person sees it.
#[derive(Debug)]
pub struct Failure {
    /// What is wrong: lower case, no full stop.
    pub message: String,
    /// What to do about it.
    pub hint: Option<String>,
    /// The exit code.
    pub code: u8,
}

/// The result of a command: its exit code.
pub type Outcome = Result<u8, Failure>;

impl Failure {
    /// A failure with exit code 1.
    pub fn new(message: impl std::fmt::Display) -> Self {
        Self {
            message: message.to_string(),
            hint: None,
            code: 1,
        }
    }

    /// The same with a hint.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// The same with another exit code.
    #[must_use]
    pub fn code(mut self, code: u8) -> Self {
        self.code = code;
        self
    }

    /// Says it.
    pub fn report(&self) {
        complain(&format!("error: {}", self.message));
        if let Some(hint) = &self.hint {
            complain(&format!("hint: {hint}"));
        }
    }
}

macro_rules! failures {
    ($($error:ty),*) => {
        $(impl From<$error> for Failure {
            fn from(error: $error) -> Self {
                Self::new(error)
            }
        })*
    };
}

failures!(
    crate::store::StoreError,
    std::io::Error,
    approval::scalar::ScalarError,
    serde_json::Error
);

impl From<crate::home::HomeError> for Failure {
    fn from(error: crate::home::HomeError) -> Self {
        let hint = error.hint();
        Self {
            message: error.to_string(),
            hint,
            code: 1,
        }
    }
}

impl From<crate::member::JoinError> for Failure {
    fn from(error: crate::member::JoinError) -> Self {
        use crate::member::JoinError;
        use crate::party::PartyError;
        use crate::store::StoreError;
        match error {
            JoinError::Invite(_) => {
                Self::new(error).hint("give the whole link, between quotes, as `countersign gate invite` printed it")
            }
            JoinError::Expired => Self::new(error).hint("ask for a new one: `countersign gate invite` at the gate"),
            JoinError::Party(PartyError::Store(StoreError::Exists { .. })) => Self::new(error).hint(
                "a device joins once; take another folder with --home DIR, or go on with `countersign join` alone",
            ),
            JoinError::Party(error) => error.into(),
            JoinError::Name(_) => Self::new(error).hint("give another with --name"),
            error @ JoinError::Pairing(_) => Self::new(error),
        }
    }
}

impl From<crate::party::PartyError> for Failure {
    fn from(error: crate::party::PartyError) -> Self {
        use crate::party::PartyError;
        use crate::store::StoreError;
        match error {
            PartyError::Home(error) => error.into(),
            PartyError::Store(StoreError::Missing { .. }) => Self::new(error).hint(
                "set one up: `countersign gate init` beside an agent, `countersign join LINK` on an admin's machine",
            ),
            PartyError::WrongKind(_) => Self::new(error).hint("name the other folder with --home DIR"),
            PartyError::Store(StoreError::Exists { .. }) => {
                Self::new(error).hint("take another folder with --home DIR")
            }
            error => Self::new(error),
        }
    }
}

impl From<crate::gate::GateError> for Failure {
    fn from(error: crate::gate::GateError) -> Self {
        use crate::gate::GateError;
        match error {
            GateError::Party(error) => error.into(),
            GateError::Home(error) => error.into(),
            GateError::Running(_) => Self::new(error).hint("use that one, or stop it first"),
            error => Self::new(error),
        }
    }
}

/// Data: one line on stdout. A reader that went away ends it quietly.
pub fn say(line: &str) {
    let _ = writeln!(std::io::stdout(), "{line}");
}

/// Data without a line's end.
pub fn say_raw(text: &str) {
    let mut out = std::io::stdout();
    let _ = out.write_all(text.as_bytes());
    let _ = out.flush();
}

/// A value as one line of JSON on stdout.
pub fn say_json(value: &serde_json::Value) {
    say(&value.to_string());
}

/// Words: one line on stderr.
pub fn complain(line: &str) {
    let _ = writeln!(std::io::stderr(), "{line}");
}

/// Whether a person can answer.
pub fn interactive() -> bool {
    std::io::stdin().is_terminal()
}

/// A question without a line's end, on stderr.
pub fn prompt(text: &str) {
    let mut err = std::io::stderr();
    let _ = write!(err, "{text}");
    let _ = err.flush();
}

/// Lines that are typed, from a thread of its own: reading a terminal can't be given up.
pub struct Lines {
    lines: mpsc::Receiver<String>,
    ended: bool,
}

impl Lines {
    /// Begins to read stdin.
    pub fn of_stdin() -> Self {
        let (sender, lines) = mpsc::channel(16);
        std::thread::spawn(move || {
            for line in std::io::stdin().lock().lines() {
                let Ok(line) = line else { break };
                if sender.blocking_send(line).is_err() {
                    break;
                }
            }
        });
        Self { lines, ended: false }
    }

    /// The next line; waits for ever once stdin has ended. Can be dropped without losing a line.
    pub async fn next(&mut self) -> String {
        match self.lines.recv().await {
            Some(line) if !self.ended => line,
            _ => {
                self.ended = true;
                std::future::pending().await
            }
        }
    }

    /// Forgets what was typed so far: it was no answer to what is shown next.
    pub fn forget(&mut self) {
        while self.lines.try_recv().is_ok() {}
    }

    /// The next line, or `None` once stdin has ended.
    pub async fn next_or_end(&mut self) -> Option<String> {
        self.lines.recv().await
    }
}

/// Asks yes or no. No without an answer.
pub async fn confirmed(lines: &mut Lines, question: &str) -> bool {
    prompt(&format!("{question} [y/N] "));
    let answer = lines.next_or_end().await.unwrap_or_default();
    matches!(answer.trim().to_lowercase().as_str(), "y" | "yes")
}
