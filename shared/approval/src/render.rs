//! What an admin reads: one function from the action to text, and one back, so that two different actions never look
//! the same.
//!
//! PROTOCOL.md 11. How single fields are made harmless is in [`crate::escape`]; whether to say yes is the reader's part.

use std::fmt;
use std::str::FromStr;

use thiserror::Error;
use wire::identity::PartyId;

use crate::action::{Action, Command, Executable, Limits, Stdin};
use crate::device::Certificate;
use crate::escape::{EMPTY, decode, escape, escape_bytes, escape_field, fence, unescape, unescape_field};
use crate::request::Request;
use crate::roster::{Quorum, Role, RosterContents};
use crate::scalar::{ByteString, Digest, LeafKey, Name, RelayUrl, Time};

/// What the text of an action tells its reader. For a roster each device is identified by its statement's digest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reading {
    /// A command, whole.
    Command(Command),
    /// A change of roster.
    Roster(RosterReading),
}

/// A change of roster as it is read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RosterReading {
    /// The gate's own certificate.
    pub gate: DeviceReading,
    /// Everybody, in the roster's order.
    pub people: Vec<PersonReading>,
    /// How many must say yes.
    pub quorum: Quorum,
    /// Where the gate may be found.
    pub relays: Vec<RelayUrl>,
}

/// A person as they are read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PersonReading {
    /// Unique in the roster.
    pub name: Name,
    /// What they may do.
    pub role: Role,
    /// Their devices, in the roster's order.
    pub devices: Vec<DeviceReading>,
}

/// A device as it is read. The digest stands for the whole certificate; the rest is shown for the reader.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceReading {
    /// The device's identity.
    pub party: PartyId,
    /// What its owner calls it.
    pub name: Name,
    /// The key of its leaf in the group.
    pub leaf: LeafKey,
    /// When it was made, by its own clock.
    pub created: Time,
    /// The digest of its certificate.
    pub digest: Digest,
}

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
    let mut lines = Lines { rest: text };
    let reading = match lines.next() {
        Some("command") => lines.command().map(Reading::Command),
        Some("roster change") => lines.roster().map(Reading::Roster),
        _ => None,
    };
    // Writing it again catches every second spelling, of numbers for instance, and lines left over.
    reading.filter(|reading| reading.to_string() == text).ok_or(NotRendered)
}

/// The whole question to an admin: the action first, then for whom, until when, and last the agent's words, fenced.
#[must_use]
pub fn render_request(request: &Request) -> String {
    let mut text = render(&request.action);
    let asked = &request.asked_by;
    match request.action {
        Action::Command(_) => {
            text.push_str("asked by (as the agent says)\n");
            text.push_str(&line("agent", asked.agent.as_str()));
        }
        // Nothing of this is an agent's: the gate writes down who proposed it.
        Action::Roster(_) => {
            text.push_str("proposed by (as the gate says)\n");
            text.push_str(&line("who", asked.agent.as_str()));
        }
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
    text.push_str("terms\n");
    text.push_str(&line("need", &format!("{} to approve", request.need)));
    text.push_str(&line("asked", &utc(request.created)));
    text.push_str(&line("expires", &utc(request.expires)));
    let reason = request.reason.as_untrusted();
    if !reason.is_empty() {
        text.push_str("the agent's words (untrusted)\n");
        text.push_str(&fence(reason));
    }
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

impl Reading {
    /// What the reader of this action's text is told.
    #[must_use]
    pub fn of(action: &Action) -> Self {
        match action {
            Action::Command(command) => Self::Command(command.clone()),
            Action::Roster(contents) => Self::Roster(RosterReading::of(contents)),
        }
    }
}

impl RosterReading {
    fn of(contents: &RosterContents) -> Self {
        Self {
            gate: DeviceReading::of(&contents.gate_device),
            people: contents
                .people
                .iter()
                .map(|person| PersonReading {
                    name: person.name.clone(),
                    role: person.role,
                    devices: person.devices.iter().map(DeviceReading::of).collect(),
                })
                .collect(),
            quorum: contents.quorum,
            relays: contents.relays.clone(),
        }
    }
}

impl DeviceReading {
    fn of(device: &Certificate) -> Self {
        Self {
            party: device.party,
            name: device.name.clone(),
            leaf: device.leaf,
            created: device.created,
            digest: device.digest(),
        }
    }
}

impl fmt::Display for Reading {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Command(command) => write_command(f, command),
            Self::Roster(roster) => write_roster(f, roster),
        }
    }
}

impl fmt::Display for DeviceReading {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            party,
            name,
            leaf,
            created,
            digest,
        } = self;
        write!(
            f,
            "{party} {name} leaf {leaf} created {} digest {digest}",
            created.millis()
        )
    }
}

/// A line of the text. Fields never hold two spaces side by side, so nothing in a field can look like a label, not even
/// where a terminal wraps it.
fn line(label: &str, value: &str) -> String {
    format!("  {label:<12}{value}\n")
}

fn write_command(f: &mut fmt::Formatter<'_>, command: &Command) -> fmt::Result {
    f.write_str("command\n")?;
    f.write_str(&line("executable", &escape_field(command.executable.path.as_bytes())))?;
    f.write_str(&line("sha256", &command.executable.sha256.to_string()))?;
    for (index, argument) in command.argv.iter().enumerate() {
        f.write_str(&line(&format!("argv[{index}]"), &escape_field(argument.as_bytes())))?;
    }
    for (name, value) in &command.env {
        f.write_str(&line(
            "env",
            &format!("{}={}", escape_name(name), escape_bytes(value.as_bytes())),
        ))?;
    }
    if command.env.is_empty() {
        f.write_str(&line("env", EMPTY))?;
    }
    f.write_str(&line("directory", &escape_field(command.directory.as_bytes())))?;
    let Stdin::None = command.stdin;
    f.write_str(&line("stdin", "none"))?;
    let Limits { wall_ms, output_bytes } = command.limits;
    f.write_str(&line(
        "limits",
        &format!("wall {wall_ms} ms, output {output_bytes} bytes"),
    ))?;
    f.write_str(&line("user", &format!("uid {}", command.uid)))
}

/// The name of a variable, with `=` spelled out: the first one in the line ends the name.
fn escape_name(name: &ByteString) -> String {
    escape_bytes(name.as_bytes()).replace('=', "\\u{3d}")
}

fn unescape_name(shown: &str) -> Option<Vec<u8>> {
    decode(shown).filter(|name| ByteString::new(name.as_slice()).is_ok_and(|name| escape_name(&name) == shown))
}

fn write_roster(f: &mut fmt::Formatter<'_>, roster: &RosterReading) -> fmt::Result {
    f.write_str("roster change\n")?;
    f.write_str(&line("gate", &roster.gate.to_string()))?;
    for person in &roster.people {
        f.write_str(&line("person", &format!("{} {}", person.name, role_word(person.role))))?;
        for device in &person.devices {
            f.write_str(&line("device", &format!("  {device}")))?;
        }
    }
    let Quorum {
        command,
        roster: change,
    } = roster.quorum;
    f.write_str(&line("quorum", &format!("command {command}, roster {change}")))?;
    for relay in &roster.relays {
        f.write_str(&line("relay", &escape(relay.as_str())))?;
    }
    Ok(())
}

fn role_word(role: Role) -> &'static str {
    match role {
        Role::Admin => "admin",
        Role::Auditor => "auditor",
    }
}

/// The lines that haven't been read yet.
struct Lines<'a> {
    rest: &'a str,
}

impl<'a> Lines<'a> {
    fn next(&mut self) -> Option<&'a str> {
        let (first, rest) = self.rest.split_once('\n')?;
        self.rest = rest;
        Some(first)
    }

    /// The value of the next line if it has this label; otherwise the line stays.
    fn field(&mut self, label: &str) -> Option<&'a str> {
        let (first, rest) = self.rest.split_once('\n')?;
        let (shown, value) = first.strip_prefix("  ")?.split_at_checked(12)?;
        if shown.trim_end() != label {
            return None;
        }
        self.rest = rest;
        Some(value)
    }

    fn bytes(&mut self, label: &str) -> Option<ByteString> {
        ByteString::new(unescape_field(self.field(label)?)?).ok()
    }

    fn command(&mut self) -> Option<Command> {
        let path = self.bytes("executable")?;
        let sha256 = self.field("sha256")?.parse().ok()?;
        let mut argv = Vec::new();
        while let Some(argument) = self.field(&format!("argv[{}]", argv.len())) {
            argv.push(ByteString::new(unescape_field(argument)?).ok()?);
        }
        let mut env = Vec::new();
        while let Some(variable) = self.field("env") {
            if variable == EMPTY {
                break;
            }
            let (name, value) = variable.split_once('=')?;
            env.push((
                ByteString::new(unescape_name(name)?).ok()?,
                ByteString::new(unescape(value)?).ok()?,
            ));
        }
        let directory = self.bytes("directory")?;
        if self.field("stdin")? != "none" {
            return None;
        }
        let (wall, output) = self
            .field("limits")?
            .strip_prefix("wall ")?
            .split_once(" ms, output ")?;
        let limits = Limits {
            wall_ms: wall.parse().ok()?,
            output_bytes: output.strip_suffix(" bytes")?.parse().ok()?,
        };
        let uid = self.field("user")?.strip_prefix("uid ")?.parse().ok()?;
        Some(Command {
            executable: Executable { path, sha256 },
            argv,
            env,
            directory,
            stdin: Stdin::None,
            limits,
            uid,
        })
    }

    fn roster(&mut self) -> Option<RosterReading> {
        let gate = self.field("gate")?.parse().ok()?;
        let mut people = Vec::new();
        while let Some(person) = self.field("person") {
            let (name, role) = person.split_once(' ')?;
            let role = [Role::Admin, Role::Auditor]
                .into_iter()
                .find(|known| role_word(*known) == role)?;
            let mut devices = Vec::new();
            while let Some(device) = self.field("device") {
                devices.push(device.strip_prefix("  ")?.parse().ok()?);
            }
            people.push(PersonReading {
                name: name.parse().ok()?,
                role,
                devices,
            });
        }
        let (command, change) = self
            .field("quorum")?
            .strip_prefix("command ")?
            .split_once(", roster ")?;
        let quorum = Quorum {
            command: command.parse().ok()?,
            roster: change.parse().ok()?,
        };
        let mut relays = Vec::new();
        while let Some(relay) = self.field("relay") {
            relays.push(String::from_utf8(unescape(relay)?).ok()?.parse().ok()?);
        }
        Some(RosterReading {
            gate,
            people,
            quorum,
            relays,
        })
    }
}

impl FromStr for DeviceReading {
    type Err = NotRendered;

    fn from_str(text: &str) -> Result<Self, NotRendered> {
        let words: Vec<&str> = text.split(' ').collect();
        let [party, name, "leaf", leaf, "created", created, "digest", digest] = words.as_slice() else {
            return Err(NotRendered);
        };
        let created = created
            .parse()
            .ok()
            .and_then(|millis| Time::from_millis(millis).ok())
            .ok_or(NotRendered)?;
        Ok(Self {
            party: party.parse().map_err(|_| NotRendered)?,
            name: name.parse().map_err(|_| NotRendered)?,
            leaf: leaf.parse().map_err(|_| NotRendered)?,
            created,
            digest: digest.parse().map_err(|_| NotRendered)?,
        })
    }
}

#[cfg(test)]
mod tests;
