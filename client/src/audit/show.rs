//! How transcript entries look to an auditor: a line for each, and the whole request. Whatever others wrote is escaped.
//! Deciding whether an entry may stand there is not done here.

use approval::decision::Answer;
use approval::escape::escape;
use approval::export::{Summary, Tally};
use approval::outcome::{Ended, Exit, Outcome, Stopped, Stream};
use approval::proof::Proven;
use approval::render::{render_request, utc};
use approval::request::Class;
use approval::roster::Roster;
use approval::{Digest, Statement, Time, Verified};
use serde_json::{Value, json};
use wire::identity::PartyId;

/// What is put before each line of a block under its entry.
const INDENT: &str = "      ";

/// An entry with everything it says. `about` is the position of the request that it is about, `roster` the one in force.
pub(super) fn entry(
    index: u64,
    statement: &Verified<Statement>,
    about: Option<u64>,
    roster: Option<&Verified<Roster>>,
) -> String {
    let (time, block) = match statement.get() {
        Statement::Roster(roster) => (roster.created, block(&people(roster))),
        Statement::Request(request) => (request.created, block(&render_request(request))),
        Statement::Decision(decision) => {
            let reason = decision.reason.as_untrusted();
            let words = if reason.is_empty() {
                String::new()
            } else {
                approval::escape::fence(reason)
            };
            (decision.time, block(&words))
        }
        Statement::Permit(permit) => (permit.time, String::new()),
        Statement::Outcome(outcome) => (outcome.time, block(&result(outcome))),
        Statement::Device(device) => (device.created, String::new()),
    };
    let who = who(&statement.signer(), roster);
    format!(
        "{}  #{index:<4} {who:<20} {}\n{block}",
        utc(time),
        what(statement, about)
    )
}

fn what(statement: &Verified<Statement>, about: Option<u64>) -> String {
    let about = about.map_or_else(|| "?".to_owned(), |index| format!("#{index}"));
    match statement.get() {
        Statement::Roster(roster) if roster.epoch == 0 => "begins the transcript".to_owned(),
        Statement::Roster(roster) if roster.basis.is_none() => {
            format!("puts roster {} in force, before there is an admin", roster.epoch)
        }
        Statement::Roster(roster) => format!("puts roster {} in force, as permitted by {about}", roster.epoch),
        Statement::Request(request) => {
            let class = match request.class {
                Class::Command => "to run a command",
                Class::Roster => "to change the roster",
            };
            format!("asks {class}: {}", statement.digest())
        }
        Statement::Decision(decision) => match decision.verdict {
            Answer::Approve => format!("approves {about}"),
            Answer::Deny => format!("denies {about}"),
        },
        Statement::Permit(permit) => {
            let approvals = match permit.decisions.len() {
                1 => "1 approval that counts".to_owned(),
                several => format!("{several} approvals that count"),
            };
            format!("permits {about}, by {approvals}")
        }
        Statement::Outcome(outcome) => format!("ends {about}: {}", ended(&outcome.result)),
        Statement::Device(_) => "a device".to_owned(),
    }
}

/// Whose key signed: the gate, a person and their device, or a party that the roster doesn't know (any more).
fn who(signer: &PartyId, roster: Option<&Verified<Roster>>) -> String {
    let Some(roster) = roster else {
        return signer.short();
    };
    if *signer == roster.gate {
        return "gate".to_owned();
    }
    match roster.person_of(signer) {
        Some((person, device)) => format!("{} ({})", person.name, device.name),
        None => signer.short(),
    }
}

fn people(roster: &Roster) -> String {
    let mut text = String::new();
    for person in &roster.people {
        for device in &person.devices {
            text += &format!(
                "{:<8} {} ({}) {}\n",
                person.role, person.name, device.name, device.party
            );
        }
    }
    if text.is_empty() {
        return "nobody is enrolled yet\n".to_owned();
    }
    let quorum = roster.quorum;
    text + &format!(
        "quorum   {} for a command, {} for a change of the roster\n",
        quorum.command, quorum.roster
    )
}

fn ended(result: &Ended) -> String {
    match result {
        Ended::Ran(ran) => {
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
            format!("{exit}{stopped}")
        }
        Ended::Failed(_) => "permitted, but never started".to_owned(),
        Ended::Unknown(_) => "permitted, and nobody can say what happened".to_owned(),
        Ended::Denied(_) => "denied".to_owned(),
        Ended::Expired(_) => "expired without a permit".to_owned(),
        Ended::Withdrawn(_) => "withdrawn".to_owned(),
    }
}

fn result(outcome: &Outcome) -> String {
    let stream = |name: &str, stream: &Stream| {
        format!(
            "{name:<8} {}, sha256 {}\n",
            crate::show::count(stream.bytes, "byte"),
            stream.sha256
        )
    };
    match &outcome.result {
        Ended::Ran(ran) => {
            let wall = format!("took     {} ms\n", ran.wall_ms);
            wall + &stream("stdout", &ran.stdout) + &stream("stderr", &ran.stderr)
        }
        Ended::Failed(failed) => format!("error    {}\n", escape(failed.error.as_untrusted())),
        _ => String::new(),
    }
}

fn block(text: &str) -> String {
    text.lines().map(|line| format!("{INDENT}{line}\n")).collect()
}

/// An entry as JSON: its payload as it was signed, and what is known beside it.
pub(super) fn entry_json(index: u64, statement: &Verified<Statement>) -> Value {
    let payload = match statement.get() {
        Statement::Device(payload) => serde_json::to_value(payload),
        Statement::Roster(payload) => serde_json::to_value(payload),
        Statement::Request(payload) => serde_json::to_value(payload),
        Statement::Decision(payload) => serde_json::to_value(payload),
        Statement::Permit(payload) => serde_json::to_value(payload),
        Statement::Outcome(payload) => serde_json::to_value(payload),
    };
    json!({
        "v": 1,
        "index": index,
        "kind": statement.kind().to_string(),
        "digest": statement.digest().to_string(),
        "signer": statement.signer().to_string(),
        "payload": payload.unwrap_or(Value::Null),
    })
}

/// What is to be known of a transcript that holds.
pub(super) fn summary(summary: &Summary) -> String {
    let time = |time: Option<Time>| time.map_or_else(|| "-".to_owned(), utc);
    format!(
        "holds: {} entries\n  gate        {}\n  from        {}\n  to          {}\n  people      {}, of whom {} may decide\n  \
         requests    {}\n  root        {}\n  What the gate said after this checkpoint, if anything, is not in the file.\n",
        summary.size,
        summary.gate,
        time(summary.first),
        time(summary.last),
        summary.people,
        summary.admins,
        tally(&summary.requests),
        Digest(summary.root),
    )
}

fn tally(tally: &Tally) -> String {
    let parts = [
        (tally.ran, "ran"),
        (tally.changed, "changed the roster"),
        (tally.denied, "denied"),
        (tally.expired, "expired"),
        (tally.withdrawn, "withdrawn"),
        (tally.failed, "never started"),
        (tally.unknown, "unknown"),
        (tally.permitted, "permitted and not ended"),
        (tally.open, "open"),
    ];
    let parts: Vec<String> = parts
        .iter()
        .filter(|(count, _)| *count > 0)
        .map(|(count, what)| format!("{count} {what}"))
        .collect();
    if parts.is_empty() {
        "none".to_owned()
    } else {
        format!("{}: {}", tally.asked, parts.join(", "))
    }
}

/// What is to be known of a single approval that holds.
pub(super) fn proven(proven: &Proven) -> String {
    let checkpoint = proven.checkpoint();
    format!(
        "holds: request {}\n  gate        {}\n  entry       #{} of {}\n  result      {}\n  root        {}\n  \
         What else the log says about it, and how its roster came into force, only the whole transcript shows.\n",
        proven.request().digest(),
        proven.gate(),
        proven.request().index,
        checkpoint.size(),
        result_of(proven),
        Digest(checkpoint.root()),
    )
}

fn result_of(proven: &Proven) -> String {
    match (
        proven.pending(),
        proven.entries().last().map(|(_, statement)| statement.get()),
    ) {
        (Some(pending), _) if pending.permit().is_some() => "permitted, and not ended".to_owned(),
        (Some(_), _) => "open".to_owned(),
        (None, Some(Statement::Outcome(outcome))) => ended(&outcome.result),
        (None, _) => "changed the roster".to_owned(),
    }
}

/// The result in one word, for programs.
pub(super) fn result_word(proven: &Proven) -> &'static str {
    match (
        proven.pending(),
        proven.entries().last().map(|(_, statement)| statement.get()),
    ) {
        (Some(pending), _) if pending.permit().is_some() => "permitted",
        (Some(_), _) => "open",
        (None, Some(Statement::Outcome(outcome))) => match outcome.result {
            Ended::Ran(_) => "ran",
            Ended::Failed(_) => "failed",
            Ended::Unknown(_) => "unknown",
            Ended::Denied(_) => "denied",
            Ended::Expired(_) => "expired",
            Ended::Withdrawn(_) => "withdrawn",
        },
        (None, _) => "changed",
    }
}
