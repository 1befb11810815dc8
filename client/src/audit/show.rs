//! How transcript entries look to an auditor: a line for each, and the whole request. Whatever others wrote is escaped.
//! Deciding whether an entry may stand there is not done here.

use approval::decision::{Answer, Decision};
use approval::escape::escape;
use approval::export::{Summary, Tally};
use approval::grant::Grant;
use approval::outcome::{Ended, Exit, Outcome, Stopped, Stream};
use approval::permit::{Basis, Permission};
use approval::policy::Policy;
use approval::proof::Proven;
use approval::render::{render_request, utc};
use approval::replay::Pending;
use approval::request::{Class, Request};
use approval::roster::{Roster, Unenrolled};
use approval::{Digest, Statement, Time, Verified};
use serde_json::{Value, json};
use wire::identity::PartyId;

/// What is put before each line of a block under its entry.
const INDENT: &str = "      ";

/// What is known beside an entry.
#[derive(Default)]
pub(super) struct Known<'a> {
    /// The position of the request that it is about.
    pub(super) about: Option<u64>,
    /// The roster in force.
    pub(super) roster: Option<&'a Verified<Roster>>,
    /// The request that it is about, while that hasn't ended.
    pub(super) pending: Option<&'a Pending>,
    /// The request whose like is granted.
    pub(super) request: Option<&'a Request>,
    /// On what a permit rests, where that is known already.
    pub(super) basis: Option<String>,
}

impl Known<'_> {
    fn basis_of(&self, permit: &Permission) -> String {
        if let Some(basis) = &self.basis {
            return basis.clone();
        }
        crate::show::basis::of_permit(permit, self.pending, &crate::show::basis::Names::new(), self.roster)
    }
}

/// An entry with everything it says.
pub(super) fn entry(index: u64, statement: &Verified<Statement>, known: &Known<'_>) -> String {
    let roster = known.roster;
    let (time, block) = match statement.get() {
        Statement::Roster(roster) => (roster.created, block(&people(roster))),
        Statement::Request(request) => (request.created, block(&render_request(request))),
        Statement::Decision(decision) => {
            let mut text = offered(decision, known);
            if decision.number.is_some() {
                text += "with the number shown where it was asked\n";
            }
            (decision.time, block(&(text + &words(decision.reason.as_untrusted()))))
        }
        Statement::Permit(permit) => (permit.time, block(&crate::show::basis::confined(&permit.confined))),
        Statement::Grant(grant) => (grant.time, block(&granted(grant, known))),
        Statement::Revocation(revocation) => (revocation.time, block(&words(revocation.reason.as_untrusted()))),
        Statement::Outcome(outcome) => (outcome.time, block(&result(outcome))),
        Statement::Device(device) => (device.created, String::new()),
    };
    let who = who(&statement.signer(), roster);
    format!(
        "{}  #{index:<4} {who:<20} {}\n{block}",
        utc(time),
        what(statement, known)
    )
}

/// Somebody's words, fenced.
fn words(text: &str) -> String {
    if text.is_empty() {
        String::new()
    } else {
        approval::escape::fence(text)
    }
}

/// What an approval would grant beside this one time.
fn offered(decision: &Decision, known: &Known<'_>) -> String {
    match (&decision.grant, known.request) {
        (Some(terms), Some(request)) => {
            format!(
                "would grant it: {}\n",
                crate::show::terms::reach(terms, request, decision.time)
            )
        }
        (Some(_), None) => "would grant what is like it\n".to_owned(),
        (None, _) => String::new(),
    }
}

/// What a grant covers, and who gave it.
fn granted(grant: &Grant, known: &Known<'_>) -> String {
    let given = |digest: &Digest| {
        let decisions = known.pending?.decisions();
        let decision = decisions.iter().find(|decision| decision.digest() == *digest)?;
        Some(crate::show::who(known.roster, &decision.signer()))
    };
    let names: Option<Vec<String>> = grant.decisions.iter().map(given).collect();
    let by = match names {
        Some(names) => format!("given by {}\n", crate::show::and(&names)),
        None => format!(
            "given by {}\n",
            crate::show::count(grant.decisions.len() as u64, "approval")
        ),
    };
    let what = known.request.map_or_else(String::new, |request| {
        let reach = crate::show::terms::reach(&grant.terms, request, grant.time);
        format!("{}\n{reach}\n", crate::show::terms::granted(request, &grant.terms))
    });
    what + &by
}

fn what(statement: &Verified<Statement>, known: &Known<'_>) -> String {
    let about = known.about.map_or_else(|| "?".to_owned(), |index| format!("#{index}"));
    match statement.get() {
        Statement::Roster(roster) if roster.epoch == 0 => "begins the transcript".to_owned(),
        Statement::Roster(roster) if roster.basis.is_none() => {
            format!("puts roster {} in force, before there is an admin", roster.epoch)
        }
        Statement::Roster(roster) => format!("puts roster {} in force, as permitted by {about}", roster.epoch),
        Statement::Request(request) => {
            let class = match request.class {
                Class::Command => "to run a command",
                Class::Tool => "to call a tool",
                Class::Secret => "to use a secret",
                Class::Roster => "to change the roster",
            };
            format!("asks {class}: {}", statement.digest())
        }
        Statement::Decision(decision) => match decision.verdict {
            Answer::Approve if decision.grant.is_some() => format!("approves {about}, and its like from now on"),
            Answer::Approve => format!("approves {about}"),
            Answer::Deny => format!("denies {about}"),
        },
        Statement::Permit(permit) => {
            format!("permits {about}, {}", known.basis_of(permit))
        }
        Statement::Grant(_) => format!("grants what is like {about} from now on: {}", statement.digest()),
        Statement::Revocation(revocation) => format!("takes the grant {} back", revocation.grant.short()),
        Statement::Outcome(outcome) => {
            let policy = known.roster.and_then(|roster| roster.policy.as_ref());
            format!("ends {about}: {}", ended(&outcome.result, policy))
        }
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
        let open = match roster.unenrolled {
            Unenrolled::Refuse => "",
            Unenrolled::Allow => ", and everything is allowed until somebody is",
        };
        return format!("nobody is enrolled yet{open}\n") + &policy(roster);
    }
    let quorum = roster.quorum;
    text += &format!(
        "quorum   {} for a command, {} for a change of the roster\n",
        quorum.command, quorum.roster
    );
    text + &policy(roster)
}

/// The policy whole: it says what was never asked.
fn policy(roster: &Roster) -> String {
    let Some(policy) = &roster.policy else {
        return String::new();
    };
    let rules = crate::show::count(policy.rules() as u64, "rule");
    let mut text = format!("policy   {}, {rules}\n", policy.digest());
    for (number, line) in policy.text().split('\n').enumerate() {
        text += format!("  {:>4}  {}", number + 1, escape(line)).trim_end();
        text.push('\n');
    }
    text
}

fn ended(result: &Ended, policy: Option<&Policy>) -> String {
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
        Ended::Released(_) => "permitted, and released to whoever asked".to_owned(),
        Ended::Forbidden(forbidden) => match forbidden.rule {
            Some(number) => format!("forbidden {}", crate::show::basis::rule(number, policy)),
            None => "forbidden by the policy's mode".to_owned(),
        },
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
        Statement::Grant(payload) => serde_json::to_value(payload),
        Statement::Revocation(payload) => serde_json::to_value(payload),
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
    let lines = [
        ("grants", grants(&summary.requests)),
        ("unasked", unasked(&summary.requests)),
    ];
    let lines: String = lines
        .into_iter()
        .filter(|(_, text)| !text.is_empty())
        .map(|(label, text)| format!("  {label:<11} {text}\n"))
        .collect();
    format!(
        "holds: {} entries\n  gate        {}\n  from        {}\n  to          {}\n  people      {}, of whom {} may decide\n  \
         requests    {}\n{lines}  root        {}\n  What the gate said after this checkpoint, if anything, is not in the file.\n",
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

fn grants(tally: &Tally) -> String {
    match (tally.granted, tally.revoked) {
        (0, _) => String::new(),
        (given, 0) => format!("{given} given"),
        (given, revoked) => format!("{given} given, {revoked} taken back"),
    }
}

/// What nobody was asked about, by what let it pass.
fn unasked(tally: &Tally) -> String {
    let parts = [
        (tally.by_grant, "permitted by a grant"),
        (tally.by_policy, "permitted by the policy"),
        (tally.unenrolled, "permitted because nobody was enrolled yet"),
    ];
    counted(&parts)
}

fn counted(parts: &[(u64, &str)]) -> String {
    let parts: Vec<String> = parts
        .iter()
        .filter(|(count, _)| *count > 0)
        .map(|(count, what)| format!("{count} {what}"))
        .collect();
    parts.join(", ")
}

fn tally(tally: &Tally) -> String {
    let parts = [
        (tally.ran, "ran"),
        (tally.released, "released"),
        (tally.changed, "changed the roster"),
        (tally.denied, "denied"),
        (tally.forbidden, "forbidden"),
        (tally.expired, "expired"),
        (tally.withdrawn, "withdrawn"),
        (tally.failed, "never started"),
        (tally.unknown, "unknown"),
        (tally.permitted, "permitted and not ended"),
        (tally.open, "open"),
    ];
    let parts = counted(&parts);
    if parts.is_empty() {
        "none".to_owned()
    } else {
        format!("{}: {parts}", tally.asked)
    }
}

/// What is to be known of a single approval that holds.
pub(super) fn proven(proven: &Proven) -> String {
    let checkpoint = proven.checkpoint();
    format!(
        "holds: request {}\n  gate        {}\n  entry       #{} of {}\n  result      {}\n{}  root        {}\n  \
         What else the log says about it, and how its roster came into force, only the whole transcript shows.\n",
        proven.request().digest(),
        proven.gate(),
        proven.request().index,
        checkpoint.size(),
        result_of(proven),
        permitted(proven),
        Digest(checkpoint.root()),
    )
}

/// On what its permit rests.
fn permitted(proven: &Proven) -> String {
    let request = proven.request().digest();
    let permit = proven
        .entries()
        .iter()
        .find_map(|(_, statement)| match statement.get() {
            Statement::Permit(permit) if permit.request == request => Some(permit),
            _ => None,
        });
    permit.map_or_else(String::new, |permit| {
        format!("  permitted   {}\n", basis_of(proven, permit))
    })
}

pub(super) fn basis_of(proven: &Proven, permit: &Permission) -> String {
    let cited: &[Digest] = match &permit.basis {
        Basis::Decisions(cited) => cited,
        _ => &[],
    };
    // Whoever was an admin then may have left: each roster is asked, the latest first.
    let name = |signer: &PartyId| {
        let person = proven
            .rosters()
            .iter()
            .rev()
            .find_map(|roster| roster.person_of(signer));
        person.map_or_else(|| signer.short(), |(person, _)| person.name.to_string())
    };
    let mut names = Vec::new();
    for digest in cited {
        let decision = proven
            .entries()
            .iter()
            .find(|(_, statement)| statement.digest() == *digest);
        names.extend(decision.map(|(_, statement)| name(&statement.signer())));
    }
    let roster = proven.rosters().iter().find(|roster| roster.digest() == permit.roster);
    crate::show::basis::basis(&permit.basis, &names, roster.and_then(|roster| roster.policy.as_ref()))
}

fn result_of(proven: &Proven) -> String {
    match (
        proven.pending(),
        proven.entries().last().map(|(_, statement)| statement.get()),
    ) {
        (Some(pending), _) if pending.permit().is_some() => "permitted, and not ended".to_owned(),
        (Some(_), _) => "open".to_owned(),
        (None, Some(Statement::Outcome(outcome))) => {
            let policy = proven.rosters().last().and_then(|roster| roster.policy.as_ref());
            ended(&outcome.result, policy)
        }
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
            Ended::Released(_) => "released",
            Ended::Forbidden(_) => "forbidden",
        },
        (None, _) => "changed",
    }
}

/// On what its permit rests, for programs; null without one.
pub(super) fn basis_json(proven: &Proven) -> Value {
    let request = proven.request().digest();
    let permit = proven
        .entries()
        .iter()
        .find_map(|(_, statement)| match statement.get() {
            Statement::Permit(permit) if permit.request == request => serde_json::to_value(&permit.basis).ok(),
            _ => None,
        });
    permit.unwrap_or(Value::Null)
}
