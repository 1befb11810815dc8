//! What an admin reads: one function from the action to text, and one back, so that two different actions never look
//! the same.
//!
//! PROTOCOL.md 11. How single fields are made harmless is in [`crate::escape`]; whether to say yes is the reader's part.

mod read;
mod reading;
mod write;

pub use reading::{DeviceReading, PersonReading, Reading, RosterReading};

use thiserror::Error;

use crate::action::{Action, Mark};
use crate::escape::{escape_field, fence};
use crate::request::{AskedBy, Request};
use crate::scalar::Time;

/// The text isn't one that [`render`] writes.
#[derive(Debug, Error, Clone, Copy, PartialEq, Eq)]
#[error("not the text of an action in its exact spelling")]
pub struct NotRendered;

/// The action as an admin reads it: whole, one field on each line, every line ended by a line feed.
#[must_use]
pub fn render(action: &Action) -> String {
    Reading::of(action).to_string()
}

/// Reads back what [`render`] wrote.
///
/// # Errors
/// [`NotRendered`] for every other text.
pub fn parse(text: &str) -> Result<Reading, NotRendered> {
    // Writing it again catches every second spelling, of numbers for instance, and lines left over.
    read::Lines::of(text)
        .reading()
        .filter(|reading| reading.to_string() == text)
        .ok_or(NotRendered)
}

/// The whole question to an admin: the action first, then what the gate saw about it, for whom it is, on what terms, and
/// last the agent's words, fenced. The number that an approval must repeat isn't in it: only that there is one.
#[must_use]
pub fn render_request(request: &Request) -> String {
    let mut text = render(&request.action);
    if let Action::Command(command) = &request.action
        && !command.marks.is_empty()
    {
        text.push_str("what the gate saw\n");
        for mark in &command.marks {
            text.push_str(&line(mark.as_str(), meaning(*mark)));
        }
    }
    text.push_str(&asker(&request.action, &request.asked_by));
    text.push_str(&terms(request));
    let reason = request.reason.as_untrusted();
    if !reason.is_empty() {
        text.push_str("the agent's words (untrusted)\n");
        text.push_str(&fence(reason));
    }
    text
}

/// What a mark means for whoever says yes.
#[must_use]
pub fn meaning(mark: Mark) -> &'static str {
    match mark {
        Mark::Odd => "an argument holds characters that aren't plain: read every \\u{...} and \\x..",
        Mark::Runner => "can run other programs: its arguments may be a program themselves",
        Mark::Setuid => "runs with the rights of another user, such as root",
        Mark::Shell => "a shell: runs whatever its script says",
        Mark::Writable => "somebody other than root can replace it",
    }
}

fn asker(action: &Action, asked: &AskedBy) -> String {
    let mut text = String::new();
    match action {
        Action::Command(_) | Action::Tool(_) | Action::Secret(_) => {
            text.push_str("asked by (as the agent says)\n");
            text.push_str(&line("agent", asked.agent.as_str()));
        }
        // Nothing of this is an agent's: the gate writes down who proposed it.
        Action::Roster(_) => {
            text.push_str("proposed by (as the gate says)\n");
            text.push_str(&line("who", asked.agent.as_str()));
        }
    }
    // The nearest first, so that it reads as a chain.
    for above in asked.under.iter().rev() {
        text.push_str(&line("works for", above.as_str()));
    }
    for (label, words) in [
        ("user", &asked.user),
        ("conversation", &asked.conversation),
        ("platform", &asked.platform),
    ] {
        if let Some(words) = words {
            text.push_str(&line(label, &escape_field(words.as_untrusted().as_bytes())));
        }
    }
    text
}

/// On what terms it is asked; what is as usual (one denial is enough, anybody may approve, no number) isn't said.
fn terms(request: &Request) -> String {
    let mut text = "terms\n".to_owned();
    if let Some(risk) = &request.risk {
        text.push_str(&line("risk", risk.as_str()));
    }
    text.push_str(&line("need", &format!("{} to approve", request.need)));
    if !request.veto {
        text.push_str(&line("veto", "none: one denial alone doesn't stop it"));
    }
    if request.four_eyes {
        text.push_str(&line("four eyes", "whoever asks can't approve"));
    }
    if request.matching.is_some() {
        text.push_str(&line(
            "number",
            "an approval must repeat the three digits shown where it was asked",
        ));
    }
    text.push_str(&line("asked", &utc(request.created)));
    text.push_str(&line("expires", &utc(request.expires)));
    text
}

/// A time as people read it: `2026-11-20 14:03:11Z`, in UTC, fractions of a second dropped.
#[must_use]
pub fn utc(time: Time) -> String {
    let seconds = time.millis() / 1000;
    let (days, second) = (seconds / 86_400, seconds % 86_400);
    let (year, month, day) = civil(days);
    format!(
        "{year:04}-{month:02}-{day:02} {:02}:{:02}:{:02}Z",
        second / 3600,
        second / 60 % 60,
        second % 60
    )
}

/// The Gregorian date so many days after 1970-01-01. Years are counted from March, so that the leap day comes last.
fn civil(days: u64) -> (u64, u64, u64) {
    const DAYS_TO_1970_FROM_MARCH_OF_YEAR_0: u64 = 719_468;
    const DAYS_IN_400_YEARS: u64 = 146_097;
    let days = days + DAYS_TO_1970_FROM_MARCH_OF_YEAR_0;
    let (cycle, day) = (days / DAYS_IN_400_YEARS, days % DAYS_IN_400_YEARS);
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day_of_year = day - (365 * year + year / 4 - year / 100);
    let march_month = (5 * day_of_year + 2) / 153;
    let day_of_month = day_of_year - (153 * march_month + 2) / 5 + 1;
    let month = if march_month < 10 {
        march_month + 3
    } else {
        march_month - 9
    };
    (cycle * 400 + year + u64::from(month <= 2), month, day_of_month)
}

/// What a line begins with: the name in a column of its own, and a space behind it also where it is longer than that.
fn label(name: &str) -> String {
    format!("  {name:<11} ")
}

/// A line of the text. Fields never hold two spaces side by side, so nothing in a field can look like a label, not even
/// where a terminal wraps it.
fn line(name: &str, value: &str) -> String {
    format!("{}{value}\n", label(name))
}

#[cfg(test)]
mod tests;
