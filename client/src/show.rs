//! How requests and transcript entries look to a person. The action itself is `approval::render`; everything that others wrote goes through the
//! escaper before it reaches a terminal.

pub mod basis;
mod changes;
pub mod compare;
mod entry;
#[cfg(test)]
pub(crate) mod example;
mod letters;
pub mod terms;

use std::fmt::Write as _;

use approval::action::Action;
use approval::decide::Verdict;
use approval::decision::{Answer as Vote, Decision};
use approval::escape::{escape, escape_field};
use approval::outcome::{Ended, Exit, Ran, Stopped};
use approval::policy::Policy;
use approval::render::render_request;
use approval::replay::{Pending, Replay};
use approval::request::Request;
use approval::roster::{Roster, Unenrolled};
use approval::{Digest, Time, Verified};

use compare::Past;
pub use entry::entry;

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

/// Names as they are said: `alice`, `alice and bob`, `alice, bob and carol`.
pub fn and(names: &[String]) -> String {
    match names {
        [] => String::new(),
        [only] => only.clone(),
        [most @ .., last] => format!("{} and {last}", most.join(", ")),
    }
}

/// One line for a list: id, what, who asks, how long there is.
pub fn line(open: &Pending, replay: &Replay, now: Time) -> String {
    let request = open.request();
    listed(open, replay, now, &summary(request, replay.roster()))
}

/// The same in other words than the action's.
pub fn listed(open: &Pending, replay: &Replay, now: Time, what: &str) -> String {
    let request = open.request();
    let risk = request
        .risk
        .as_ref()
        .map_or_else(String::new, |risk| format!(", risk {risk}"));
    let left = duration(request.expires.millis().saturating_sub(now.millis()));
    format!(
        "{}  {what}  (asked by {}{risk}, {}, {left} left)",
        request.digest().short(),
        request.asked_by.agent,
        votes(open, replay, now)
    )
}

/// Everybody's last word so far, in the order in which they first spoke.
fn voices<'a>(open: &'a Pending, roster: Option<&Verified<Roster>>) -> Vec<(String, &'a Verified<Decision>)> {
    let mut voices: Vec<(String, &Verified<Decision>)> = Vec::new();
    for decision in open.decisions() {
        let name = who(roster, &decision.signer());
        match voices.iter_mut().find(|(other, _)| *other == name) {
            // A denial outweighs what the same person says before and after.
            Some((_, said)) if said.verdict == Vote::Approve => *said = decision,
            Some(_) => {}
            None => voices.push((name, decision)),
        }
    }
    voices
}

/// Whether nobody has to answer a request any more: it may be done, and waits for its agent.
pub fn is_allowed(replay: &Replay, request: &Digest, now: Time) -> bool {
    matches!(replay.decide(request, now), Some(Verdict::Open(_)))
}

/// Who has said what so far.
fn votes(open: &Pending, replay: &Replay, now: Time) -> String {
    let request = open.request();
    let need = match replay.decide(&request.digest(), now) {
        Some(Verdict::Waiting { need, .. }) => need as u64,
        _ => u64::from(request.need),
    };
    let voices = voices(open, replay.roster());
    let of = |verdict: Vote| -> Vec<String> {
        let of = voices.iter().filter(|(_, decision)| decision.verdict == verdict);
        of.map(|(name, _)| name.clone()).collect()
    };
    let (yes, no) = (of(Vote::Approve), of(Vote::Deny));
    let mut text = format!("{} of {}", yes.len(), count(need, "approval"));
    if !yes.is_empty() {
        let _ = write!(text, ": {}", yes.join(", "));
    }
    if !no.is_empty() {
        let _ = write!(text, "; denied by {}", and(&no));
    }
    if open.permit().is_none() && is_allowed(replay, &request.digest(), now) {
        text.push_str("; allowed, waits for its agent");
    }
    text
}

/// What others would grant beside this one time, with their names.
pub fn offers(open: &Pending, roster: Option<&Verified<Roster>>) -> Vec<(String, approval::grant::Terms)> {
    let voices = voices(open, roster);
    let offer = |(name, decision): (String, &Verified<Decision>)| Some((name, decision.grant.clone()?));
    voices.into_iter().filter_map(offer).collect()
}

/// A request whole, as an admin must see it before answering: the action first, everything of it, then the agent's words. `past` is the
/// last of its kind that people approved.
pub fn whole(open: &Pending, replay: &Replay, past: Option<&Past>, now: Time) -> String {
    let (request, roster) = (open.request(), replay.roster());
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
    if let (Action::Roster(contents), Some(roster)) = (&request.action, roster) {
        text.push_str("compared with the roster in force\n");
        for change in changes::changes(roster, contents) {
            let _ = writeln!(text, "  {change}");
        }
        text.push_str(&changes::policy(roster.policy.as_ref(), contents.policy.as_ref()));
    }
    for warning in letters::warnings(&request.action) {
        let _ = writeln!(text, "{warning}");
    }
    if let Some(past) = past {
        text.push_str(&compare::compared(past, request));
    }
    let left = request.expires.millis().saturating_sub(now.millis());
    let _ = writeln!(text, "\n{}; {} left", votes(open, replay, now), duration(left));
    text.push_str(&said(open, roster));
    text
}

/// Who said what beside yes and no: reasons, and what they would grant.
fn said(open: &Pending, roster: Option<&Verified<Roster>>) -> String {
    let mut text = String::new();
    for (name, decision) in voices(open, roster) {
        if let Some(terms) = &decision.grant {
            let reach = terms::reach(terms, open.request(), decision.time);
            let _ = writeln!(text, "{name} would grant it: {reach}");
        }
        let reason = decision.reason.as_untrusted();
        if !reason.is_empty() {
            let verb = if decision.verdict == Vote::Approve {
                "approves"
            } else {
                "denies"
            };
            let _ = writeln!(text, "{name} {verb}, saying: {}", escape(reason));
        }
    }
    text
}

/// How a request ended, in a few words.
pub fn ended(result: &Ended) -> String {
    ended_by(result, None)
}

/// The same where the policy is known that may have said no.
pub fn ended_by(result: &Ended, policy: Option<&Policy>) -> String {
    match result {
        Ended::Ran(ran) => finished(ran),
        Ended::Failed(failed) => format!("permitted, but never started: {}", escape(failed.error.as_untrusted())),
        Ended::Unknown(_) => {
            "permitted, and the gate can't say what happened (it stopped in between); it is not run again".to_owned()
        }
        Ended::Denied(_) => "denied".to_owned(),
        Ended::Expired(_) => "expired without an answer".to_owned(),
        Ended::Withdrawn(_) => "withdrawn by whoever asked".to_owned(),
        Ended::Released(_) => "permitted, and released to whoever asked".to_owned(),
        Ended::Forbidden(forbidden) => match forbidden.rule {
            Some(number) => format!("forbidden {}", basis::rule(number, policy)),
            None => "forbidden by the policy's mode".to_owned(),
        },
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

/// An action in one line; of a roster what it changes of the one in force.
pub fn summary(request: &Request, roster: Option<&Verified<Roster>>) -> String {
    let field = |text: &approval::Text| escape_field(text.as_untrusted().as_bytes());
    match &request.action {
        Action::Command(command) => command
            .argv
            .iter()
            .map(|argument| escape_field(argument.as_bytes()))
            .collect::<Vec<_>>()
            .join(" "),
        Action::Tool(call) => {
            let arguments = escape(call.arguments.as_untrusted());
            format!("tool {}/{} {arguments}", field(&call.server), field(&call.tool))
        }
        Action::Secret(secret) => format!(
            "secret {} for {} {} {}",
            secret.name,
            field(&secret.method),
            field(&secret.host),
            field(&secret.path)
        ),
        Action::Roster(contents) => {
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
    if let Some(policy) = &roster.policy {
        let rules = count(policy.rules() as u64, "rule");
        let _ = writeln!(text, "policy {}, {rules}", policy.digest().short());
    }
    if roster.people.is_empty() {
        let _ = writeln!(
            text,
            "{}",
            match roster.unenrolled {
                Unenrolled::Refuse => "nobody is enrolled: everything is refused",
                Unenrolled::Allow => "nobody is enrolled: everything is ALLOWED until somebody is",
            }
        );
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
