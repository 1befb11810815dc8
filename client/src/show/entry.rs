//! One transcript entry in one line, for those who watch. The auditor's longer form is in `audit`.

use approval::decision::Answer as Vote;
use approval::escape::escape;
use approval::replay::{Entry, Replay};
use approval::roster::{Roster, Unenrolled};
use approval::statement::Statement;

use super::{basis, count, ended_by, summary, terms, who};

/// The line. `replay` is the transcript up to and including the entry, or further: then `names` are those behind decisions of requests that
/// may have ended since.
pub fn entry(entry: &Entry, replay: &Replay, names: &basis::Names) -> String {
    let roster = replay.roster();
    let said = match entry.statement().get() {
        Statement::Roster(new) => format!("roster   epoch {}: {}", new.epoch, people(new)),
        Statement::Request(request) => {
            format!(
                "request  {}: {}",
                entry.statement().digest().short(),
                summary(request, roster)
            )
        }
        Statement::Decision(decision) => {
            let verb = match (decision.verdict, &decision.grant) {
                (Vote::Approve, None) => "approves",
                (Vote::Approve, Some(_)) => "approves, and would always,",
                (Vote::Deny, _) => "denies",
            };
            let who = who(roster, &entry.statement().signer());
            let why = saying(decision.reason.as_untrusted());
            format!("decision {who} {verb} {}{why}", decision.request.short())
        }
        Statement::Permit(permit) => {
            let pending = replay.request(&permit.request);
            let basis = basis::of_permit(permit, pending, names, roster);
            format!("permit   for {}, {basis}", permit.request.short())
        }
        Statement::Outcome(outcome) => {
            let policy = roster.and_then(|roster| roster.policy.as_ref());
            format!(
                "outcome  of {}: {}",
                outcome.request.short(),
                ended_by(&outcome.result, policy)
            )
        }
        Statement::Grant(grant) => {
            let digest = entry.statement().digest();
            let held = replay.standing().get(&digest);
            let what = held.map_or_else(
                || format!("for {}", grant.request.short()),
                |held| {
                    let (request, terms) = (held.request(), &grant.terms);
                    format!(
                        "{}, {}",
                        terms::granted(request, terms),
                        terms::reach(terms, request, grant.time)
                    )
                },
            );
            format!("grant    {}: {what}", digest.short())
        }
        Statement::Revocation(revocation) => {
            let who = who(roster, &entry.statement().signer());
            let why = saying(revocation.reason.as_untrusted());
            format!("revoked  {who} takes the grant {} back{why}", revocation.grant.short())
        }
        Statement::Device(device) => format!("device   {}", device.name),
    };
    format!("{:>4}  {said}", entry.index())
}

/// Somebody's words behind what they did.
fn saying(reason: &str) -> String {
    if reason.is_empty() {
        String::new()
    } else {
        format!(", saying: {}", escape(reason))
    }
}

fn people(roster: &Roster) -> String {
    if roster.people.is_empty() {
        return match roster.unenrolled {
            Unenrolled::Refuse => "nobody yet".to_owned(),
            Unenrolled::Allow => "nobody yet, and everything is allowed until somebody is".to_owned(),
        };
    }
    let person = |person: &approval::roster::Person| {
        let devices = count(person.devices.len() as u64, "device");
        format!("{} ({}, {devices})", person.name, person.role)
    };
    let people: Vec<String> = roster.people.iter().map(person).collect();
    let policy = roster.policy.as_ref().map_or_else(String::new, |policy| {
        format!(
            "; policy {} of {}",
            policy.digest().short(),
            count(policy.rules() as u64, "rule")
        )
    });
    format!("{}; quorum {}{policy}", people.join(", "), roster.quorum.command)
}
