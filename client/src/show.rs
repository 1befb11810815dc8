//! How requests and transcript entries look to a person. The action itself is `approval::render`; everything that others wrote goes through the
//! escaper before it reaches a terminal.

mod changes;

use std::fmt::Write as _;

use approval::decision::Answer as Vote;
use approval::escape::escape;
use approval::outcome::{Ended, Exit, Ran, Stopped};
use approval::render::render_request;
use approval::replay::{Entry, Pending};
use approval::request::Request;
use approval::roster::Roster;
use approval::statement::Statement;
use approval::{Digest, Time, Verified};

/// A length of time as a person says it.
pub fn duration(ms: u64) -> String {
    let seconds = ms / 1000;
    match (seconds / 3600, seconds / 60 % 60, seconds % 60) {
        (0, 0, 0) => format!("{ms} ms"),
        (0, 0, seconds) => format!("{seconds} s"),
        (0, minutes, 0) => format!("{minutes} min"),
        (0, minutes, seconds) => format!("{minutes} min {seconds} s"),
        (hours, 0, _) => format!("{hours} h"),
        (hours, minutes, _) => format!("{hours} h {minutes} min"),
    }
}

/// A number of things: `1 device`, `2 devices`.
pub fn count(number: u64, thing: &str) -> String {
    if number == 1 {
        format!("1 {thing}")
    } else {
        format!("{number} {thing}s")
    }
}

/// A number of people.
pub fn persons(number: u16) -> String {
    if number == 1 {
        "1 person".to_owned()
    } else {
        format!("{number} people")
    }
}

/// The name of the person behind a party, or the party's short form where the roster doesn't know it.
pub fn who(roster: Option<&Verified<Roster>>, party: &wire::identity::PartyId) -> String {
    let person = roster
        .and_then(|roster| roster.person_of(party))
        .map(|(person, _)| person.name.to_string());
    person.unwrap_or_else(|| party.short())
}

/// One line for a list: id, what, who asks, how long there is.
pub fn line(open: &Pending, roster: Option<&Verified<Roster>>, now: Time) -> String {
    let request = open.request();
    let what = summary(request, roster);
    let left = duration(request.expires.millis().saturating_sub(now.millis()));
    format!(
        "{}  {what}  (asked by {}, {}, {left} left)",
        request.digest().short(),
        request.asked_by.agent,
        votes(open, roster)
    )
}

/// Who has said what so far.
fn votes(open: &Pending, roster: Option<&Verified<Roster>>) -> String {
    let need = roster.map_or(open.request().need, |roster| {
        open.request().need.max(roster.quorum.of(open.request().class))
    });
    let mut names: Vec<String> = Vec::new();
    for decision in open
        .decisions()
        .iter()
        .filter(|decision| decision.verdict == Vote::Approve)
    {
        let name = who(roster, &decision.signer());
        if !names.contains(&name) {
            names.push(name);
        }
    }
    match names.len() {
        0 => format!("0 of {}", count(u64::from(need), "approval")),
        have => format!("{have} of {}: {}", count(u64::from(need), "approval"), names.join(", ")),
    }
}

/// A request whole, as an admin must see it before answering: the action first, everything of it, then the agent's words.
pub fn whole(open: &Pending, roster: Option<&Verified<Roster>>, now: Time) -> String {
    let request = open.request();
    let mut text = String::new();
    let gate = roster.map_or_else(
        || request.gate.short(),
        |roster| format!("{} ({})", roster.gate().name, request.gate.short()),
    );
    let _ = writeln!(text, "request {} from the gate {gate}", request.digest().short());
    let _ = writeln!(text);
    text.push_str(&render_request(request));
    if !text.ends_with('\n') {
        text.push('\n');
    }
    if let (approval::action::Action::Roster(contents), Some(roster)) = (&request.action, roster) {
        text.push_str("compared with the roster in force\n");
        for change in changes::changes(roster, contents) {
            let _ = writeln!(text, "  {change}");
        }
    }
    let left = request.expires.millis().saturating_sub(now.millis());
    let _ = writeln!(text, "\n{}; {} left", votes(open, roster), duration(left));
    text
}

/// How a request ended, in a few words.
pub fn ended(result: &Ended) -> String {
    match result {
        Ended::Ran(ran) => finished(ran),
        Ended::Failed(failed) => format!("permitted, but never started: {}", escape(failed.error.as_untrusted())),
        Ended::Unknown(_) => {
            "permitted, and the gate can't say what happened (it stopped in between); it is not run again".to_owned()
        }
        Ended::Denied(_) => "denied".to_owned(),
        Ended::Expired(_) => "expired without an answer".to_owned(),
        Ended::Withdrawn(_) => "withdrawn by whoever asked".to_owned(),
    }
}

fn finished(ran: &Ran) -> String {
    let exit = match ran.exit {
        Exit::Code(code) => format!("ran, exit code {code}"),
        Exit::Signal(signal) => format!("ran, ended by signal {signal}"),
    };
    let stopped = match ran.stopped {
        None => "",
        Some(Stopped::WallLimit) => ", stopped at its time limit",
        Some(Stopped::OutputLimit) => ", stopped at its output limit",
        Some(Stopped::AskerLeft) => ", stopped because whoever asked left",
    };
    format!(
        "{exit}{stopped}, {}, {} of output",
        duration(ran.wall_ms),
        count(ran.stdout.bytes.saturating_add(ran.stderr.bytes), "byte")
    )
}

/// One transcript entry in one line, for those who watch.
pub fn entry(entry: &Entry, roster: Option<&Verified<Roster>>) -> String {
    let index = entry.index();
    match entry.statement().get() {
        Statement::Roster(new) => format!("{index:>4}  roster   epoch {}: {}", new.epoch, people(new)),
        Statement::Request(request) => {
            format!(
                "{index:>4}  request  {}: {}",
                entry.statement().digest().short(),
                summary(request, roster)
            )
        }
        Statement::Decision(decision) => {
            let verb = if decision.verdict == Vote::Approve {
                "approves"
            } else {
                "denies"
            };
            let reason = decision.reason.as_untrusted();
            let reason = if reason.is_empty() {
                String::new()
            } else {
                format!(", saying: {}", escape(reason))
            };
            format!(
                "{index:>4}  decision {} {verb} {}{reason}",
                who(roster, &entry.statement().signer()),
                decision.request.short()
            )
        }
        Statement::Permit(permit) => format!(
            "{index:>4}  permit   for {} by {}",
            permit.request.short(),
            count(permit.decisions.len() as u64, "approval")
        ),
        Statement::Outcome(outcome) => format!(
            "{index:>4}  outcome  of {}: {}",
            outcome.request.short(),
            ended(&outcome.result)
        ),
        Statement::Device(device) => format!("{index:>4}  device   {}", device.name),
    }
}

fn people(roster: &Roster) -> String {
    if roster.people.is_empty() {
        return "nobody yet".to_owned();
    }
    let person = |person: &approval::roster::Person| {
        format!(
            "{} ({}, {})",
            person.name,
            person.role,
            count(person.devices.len() as u64, "device")
        )
    };
    let people: Vec<String> = roster.people.iter().map(person).collect();
    format!("{}; quorum {}", people.join(", "), roster.quorum.command)
}

/// An action in one line; of a roster what it changes of the one in force.
pub fn summary(request: &Request, roster: Option<&Verified<Roster>>) -> String {
    match &request.action {
        approval::action::Action::Command(command) => command
            .argv
            .iter()
            .map(|argument| approval::escape::escape_field(argument.as_bytes()))
            .collect::<Vec<_>>()
            .join(" "),
        approval::action::Action::Roster(contents) => {
            let changes = roster
                .map(|roster| changes::changes(roster, contents))
                .unwrap_or_default();
            if changes.is_empty() {
                "a roster like the one in force".to_owned()
            } else {
                format!("a roster that {}", changes.join(", "))
            }
        }
    }
}

/// A roster as a person reads it.
pub fn roster(roster: &Verified<Roster>) -> String {
    let mut text = format!("gate {} {}\n", roster.gate().name, roster.gate);
    let _ = writeln!(text, "epoch {}, digest {}", roster.epoch, roster.digest());
    let _ = writeln!(
        text,
        "quorum: {} for a command, {} for a change of the roster",
        roster.quorum.command, roster.quorum.roster
    );
    for relay in &roster.relays {
        let _ = writeln!(text, "relay {}", relay.as_str());
    }
    for person in &roster.people {
        let _ = writeln!(text, "{} {}", person.role, person.name);
        for device in &person.devices {
            let _ = writeln!(text, "  {} {}", device.party, device.name);
        }
    }
    if roster.people.is_empty() {
        let _ = writeln!(text, "nobody is enrolled: everything is refused");
    }
    text
}

/// The open request that a shortened id means.
pub fn find<'a>(open: impl Iterator<Item = &'a Pending>, id: &str) -> Result<&'a Pending, String> {
    let matching: Vec<&Pending> = open
        .filter(|open| open.request().digest().to_string().starts_with(id))
        .collect();
    match matching.as_slice() {
        _ if id.len() < 4 => Err("an id needs at least 4 hex digits".to_owned()),
        [one] => Ok(one),
        [] => Err(format!("no open request {}", escape(id))),
        several => {
            let ids: Vec<String> = several.iter().map(|open| open.request().digest().short()).collect();
            Err(format!("{} means several requests: {}", escape(id), ids.join(", ")))
        }
    }
}

/// The same for a digest anywhere.
pub fn matches(digest: &Digest, id: &str) -> bool {
    id.len() >= 4 && digest.to_string().starts_with(id)
}
