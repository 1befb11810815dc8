//! What every command keeps to at the terminal: data on stdout, words on stderr, `error:` says what is wrong and `hint:` what to do; nothing is asked
//! where nobody can answer.

use std::collections::VecDeque;
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

/// Rings where somebody hears it.
pub fn bell() {
    if std::io::stderr().is_terminal() {
        prompt("\u{7}");
    }
}

/// Rows and columns of the screen behind this, where somebody sits before it who can turn pages.
fn screen(of: impl std::os::fd::AsFd) -> Option<(usize, usize)> {
    if !interactive() {
        return None;
    }
    let size = rustix::termios::tcgetwinsize(of).ok()?;
    (size.ws_row > 0 && size.ws_col > 0).then(|| (usize::from(size.ws_row), usize::from(size.ws_col)))
}

/// A text in pieces that fit the screen that data goes to, all of it; one piece where there is no screen to fit.
pub fn pages(text: &str) -> VecDeque<String> {
    fitting(text, screen(std::io::stdout()))
}

fn fitting(text: &str, screen: Option<(usize, usize)>) -> VecDeque<String> {
    match screen {
        // One line is the prompt's.
        Some((rows, columns)) => split(text, rows.saturating_sub(1).max(1), columns),
        None => VecDeque::from([text.to_owned()]),
    }
}

fn split(text: &str, rows: usize, columns: usize) -> VecDeque<String> {
    // A letter may be two columns wide: those that surely aren't are ASCII.
    let width = |line: &str| {
        line.chars()
            .map(|character| if character.is_ascii() { 1 } else { 2 })
            .sum::<usize>()
    };
    let mut pages = VecDeque::new();
    let (mut page, mut used) = (String::new(), 0);
    for line in text.split_inclusive('\n') {
        let needs = width(line.trim_end()).div_ceil(columns).max(1);
        if used + needs > rows && used > 0 {
            pages.push_back(std::mem::take(&mut page));
            used = 0;
        }
        // A line longer than the screen is cut into screens.
        if needs > rows {
            for character in line.chars() {
                page.push(character);
                if width(&page) + 2 > rows.saturating_mul(columns) {
                    pages.push_back(std::mem::take(&mut page));
                }
            }
            used = rows;
            continue;
        }
        page.push_str(line);
        used += needs;
    }
    if !page.is_empty() || pages.is_empty() {
        pages.push_back(page);
    }
    pages
}

/// What is asked between two pages.
pub fn more(left: usize) -> String {
    format!("-- not the end: {left} more of this; Enter shows on -- ")
}

/// Shows a text whole, page by page where there is a screen: as data, or among the words where the data is for a program. Returns whether its
/// end was shown.
pub async fn show_whole(lines: Option<&mut Lines>, text: &str, among_words: bool) -> bool {
    let (show, screen): (fn(&str), _) = if among_words {
        (prompt, screen(std::io::stderr()))
    } else {
        (say_raw, screen(std::io::stdout()))
    };
    let Some(lines) = lines else {
        show(text);
        return true;
    };
    let mut pages = fitting(text, screen);
    while let Some(page) = pages.pop_front() {
        show(&page);
        if pages.is_empty() {
            return true;
        }
        // Typed before this page was on the screen: it wasn't read yet.
        lines.forget();
        prompt(&more(pages.len()));
        if lines.next_or_end().await.is_none() {
            return false;
        }
    }
    true
}

/// Asks yes or no. No without an answer.
pub async fn confirmed(lines: &mut Lines, question: &str) -> bool {
    prompt(&format!("{question} [y/N] "));
    let answer = lines.next_or_end().await.unwrap_or_default();
    matches!(answer.trim().to_lowercase().as_str(), "y" | "yes")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
    use super::*;

    #[test]
    fn what_fits_is_one_page() {
        assert_eq!(split("a\nb\n", 2, 80).len(), 1);
        assert_eq!(split("", 2, 80).len(), 1);
    }

    #[test]
    fn nothing_is_left_out_and_no_page_is_higher_than_the_screen() {
        let long = "x".repeat(95);
        let text = format!("one\ntwo\n{long}\n\u{444}\u{444}\u{444}\u{444}\u{444}\u{444}\nlast");
        for (rows, columns) in [(1, 10), (2, 10), (3, 10), (5, 11), (24, 80)] {
            let pages = split(&text, rows, columns);
            assert_eq!(pages.iter().map(String::as_str).collect::<String>(), text);
            for page in &pages {
                let height: usize = page.lines().map(|line| line.len().div_ceil(columns).max(1)).sum();
                assert!(height <= rows + 1, "{rows}x{columns}: {page:?}");
            }
        }
    }

    #[test]
    fn the_end_of_a_long_line_is_on_another_page() {
        let pages = split(&format!("{}END\n", "x".repeat(1000)), 4, 20);
        assert!(pages.len() > 10 && !pages[0].contains("END") && pages.back().unwrap().contains("END"));
    }
}
