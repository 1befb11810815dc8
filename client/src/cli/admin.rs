//! Commands of an admin (or auditor) that look: what waits, and one request whole. Answering is in `answer`, joining and watching are in `join` and
//! `watch`.

use std::time::Duration;

use approval::Time;
use approval::decision::Answer as Vote;
use approval::permit::Basis;
use approval::replay::{Pending, Replay};
use approval::statement::Statement;
use clap::Args;
use tokio::time::Instant;

use super::Context;
use super::terminal::{Failure, Outcome, complain, say, say_json, say_raw};
use crate::clock::wall;
use crate::member::{Member, Notice, names, past};
use crate::party::Party;
use crate::show;
use crate::show::compare::alike;

/// How long a look at the relay may take before what is known is shown.
const LOOK: Duration = Duration::from_secs(5);

/// How long after the last news a look is over.
const QUIET: Duration = Duration::from_millis(400);

pub(super) fn now() -> Time {
    Time::of_clock(wall())
}

/// What was said of the relay's absence: every try fails alike, and is no news.
#[derive(Default)]
pub(super) struct Outage {
    said: Option<String>,
}

impl Outage {
    pub(super) fn say(&mut self, reason: &str) {
        if self.said.as_deref() != Some(reason) {
            complain(&format!("{reason}; trying again"));
            self.said = Some(reason.to_owned());
        }
    }

    pub(super) fn over(&mut self) {
        self.said = None;
    }
}

/// Takes in what waits at the relay, for at most [`LOOK`].
pub(super) async fn look(member: &mut Member, offline: bool) -> Result<(), Failure> {
    if offline || !member.connects() {
        return Ok(());
    }
    let deadline = Instant::now() + LOOK;
    let mut quiet = deadline;
    loop {
        let woken = tokio::select! {
            woken = member.wait() => woken,
            () = tokio::time::sleep_until(quiet.min(deadline)) => return Ok(()),
        };
        for notice in member.take(woken).await? {
            match notice {
                Notice::Offline(reason) => {
                    complain(&format!("{reason}; this is what was known before"));
                    return Ok(());
                }
                Notice::Evidence(what) => complain(&format!("WARNING: {what}")),
                // Once something was heard, a short silence means that this was all.
                Notice::Waiting(0) | Notice::Entry(_) | Notice::Head => quiet = Instant::now() + QUIET,
                _ => {}
            }
        }
    }
}

#[derive(Args)]
pub(super) struct Inbox {
    /// Only what is known here already
    #[arg(long)]
    offline: bool,
    /// With the latest requests that are over
    #[arg(short, long)]
    all: bool,
}

impl Inbox {
    pub(super) async fn run(self, context: &Context) -> Outcome {
        let home = context.home()?;
        let party = Party::open_any(home).await?;
        if party.kind == crate::party::Kind::Gate {
            self.list(context, &party).await?;
            return Ok(0);
        }
        party.store.close().await;
        let mut member = if self.offline {
            Member::offline(context.home()?).await?
        } else {
            Member::open(context.home()?).await?
        };
        look(&mut member, self.offline).await?;
        self.list(context, &member.party).await?;
        member.close().await;
        Ok(0)
    }

    async fn list(&self, context: &Context, party: &Party) -> Result<(), Failure> {
        let open: Vec<&Pending> = party.replay.open().collect();
        if context.json {
            for pending in &open {
                say_json(&request_json(pending, &party.replay)?);
            }
        } else {
            listed(&open, &party.replay).iter().for_each(|line| say(line));
        }
        let policy = party.replay.roster().and_then(|roster| roster.policy.as_ref());
        if self.all {
            let mut tx = party.store.begin().await?;
            for signed in tx.newest("outcome", 50).await? {
                let Some(outcome) = signed.verify().ok().and_then(|verified| verified.outcome()) else {
                    continue;
                };
                if context.json {
                    say_json(
                        &serde_json::json!({"v": 1, "request": outcome.request, "ended": outcome.result, "time": outcome.time}),
                    );
                } else {
                    say(&format!(
                        "{}  {}  {}",
                        outcome.request.short(),
                        approval::render::utc(outcome.time),
                        show::ended_by(&outcome.result, policy)
                    ));
                }
            }
            tx.commit().await?;
        }
        if open.is_empty() && !context.json {
            complain("nothing waits");
        }
        let mut tx = party.store.begin().await?;
        for evidence in tx.evidence().await? {
            complain(&format!(
                "WARNING: {} ({})",
                evidence.what,
                approval::render::utc(Time::of_clock(evidence.time))
            ));
        }
        tx.commit().await?;
        Ok(())
    }
}

/// What waits, a line each, those of one kind together: many of the same are one thing to think about.
fn listed(open: &[&Pending], replay: &Replay) -> Vec<String> {
    let mut groups: Vec<Vec<&Pending>> = Vec::new();
    for pending in open {
        let kin = |group: &&mut Vec<&Pending>| {
            let first = group.first();
            first.is_some_and(|first| alike(&first.request().action, &pending.request().action))
        };
        match groups.iter_mut().find(kin) {
            Some(group) => group.push(pending),
            None => groups.push(vec![pending]),
        }
    }
    groups.iter().flat_map(|group| grouped(group, replay)).collect()
}

fn grouped(group: &[&Pending], replay: &Replay) -> Vec<String> {
    let line = |pending: &Pending, same: bool| {
        let line = if same {
            show::listed(pending, replay, now(), "the same once more")
        } else {
            show::line(pending, replay, now())
        };
        let state = if let Some(permit) = pending.permit() {
            format!("  permitted, {}", show::basis::in_force(permit, replay))
        } else if show::offers(pending, replay.roster()).is_empty() {
            String::new()
        } else {
            "  with a grant offered".to_owned()
        };
        format!("{line}{state}")
    };
    if let [only] = group {
        return vec![line(only, false)];
    }
    let mut said = vec![format!("{} of one kind", group.len())];
    for (at, pending) in group.iter().enumerate() {
        let before = at.checked_sub(1).and_then(|before| group.get(before));
        let same = before.is_some_and(|before| before.request().action == pending.request().action);
        said.push(format!("  {}", line(pending, same)));
    }
    said
}

fn request_json(pending: &Pending, replay: &Replay) -> Result<serde_json::Value, Failure> {
    let request = pending.request();
    let decision = |decision: &approval::Verified<approval::decision::Decision>| {
        serde_json::json!({
            "by": decision.signer(), "person": show::who(replay.roster(), &decision.signer()), "verdict": decision.verdict,
            "grant": decision.grant, "digest": decision.digest(),
        })
    };
    let decisions: Vec<_> = pending.decisions().iter().map(decision).collect();
    let basis = pending
        .permit()
        .map(|permit| serde_json::to_value(&permit.basis))
        .transpose()?;
    Ok(serde_json::json!({
        "v": 1, "id": request.digest(), "request": serde_json::to_value(request.get())?, "decisions": decisions,
        "permitted": pending.permit().is_some(), "basis": basis,
    }))
}

#[derive(Args)]
pub(super) struct Show {
    /// The request's id; may be shortened
    id: String,
    /// Only what is known here already
    #[arg(long)]
    offline: bool,
}

impl Show {
    pub(super) async fn run(self, context: &Context) -> Outcome {
        let party = Party::open_any(context.home()?).await?;
        if party.kind == crate::party::Kind::Gate || self.offline {
            return self.print(context, &party).await;
        }
        party.store.close().await;
        let mut member = Member::open(context.home()?).await?;
        look(&mut member, false).await?;
        let shown = self.print(context, &member.party).await;
        member.close().await;
        shown
    }

    async fn print(&self, context: &Context, party: &Party) -> Outcome {
        let missing = match show::find(party.replay.open(), &self.id) {
            Ok(pending) => {
                if context.json {
                    say_json(&request_json(pending, &party.replay)?);
                } else {
                    let past = past(party, pending.request()).await?;
                    say_raw(&show::whole(pending, &party.replay, past.as_ref(), now()));
                    if let Some(permit) = pending.permit() {
                        say(&format!("permitted, {}", show::basis::in_force(permit, &party.replay)));
                    }
                }
                return Ok(0);
            }
            Err(missing) => missing,
        };
        // It may be over: then its statements stand in the transcript.
        let mut tx = party.store.begin().await?;
        let mut found = false;
        let policy = party.replay.roster().and_then(|roster| roster.policy.as_ref());
        for kind in ["request", "decision", "grant", "permit", "outcome"] {
            // The newest come first; what was said of one request is told in its order.
            let mut said: Vec<String> = Vec::new();
            for signed in tx.newest(kind, 1024).await? {
                let statement = signed.verify().map_err(Failure::new)?;
                match statement.get() {
                    Statement::Request(request) if show::matches(&statement.digest(), &self.id) => {
                        found = true;
                        if context.json {
                            say_json(
                                &serde_json::json!({"v": 1, "id": statement.digest(), "request": serde_json::to_value(request)?}),
                            );
                        } else {
                            say(&format!("request {}", statement.digest()));
                            say_raw(&approval::render::render_request(request));
                        }
                    }
                    Statement::Decision(decision) if !context.json && show::matches(&decision.request, &self.id) => {
                        let verb = if decision.verdict == Vote::Approve {
                            "approves"
                        } else {
                            "denies"
                        };
                        let who = show::who(party.replay.roster(), &statement.signer());
                        said.push(format!("{}  {who} {verb}", approval::render::utc(decision.time)));
                    }
                    Statement::Grant(grant) if !context.json && show::matches(&grant.request, &self.id) => {
                        let id = statement.digest().short();
                        said.push(format!(
                            "{}  granted from now on: {id}",
                            approval::render::utc(grant.time)
                        ));
                    }
                    Statement::Permit(permit) if show::matches(&permit.request, &self.id) => {
                        if context.json {
                            say_json(&serde_json::json!({"v": 1, "permitted": permit.basis, "time": permit.time}));
                            continue;
                        }
                        let names = match &permit.basis {
                            Basis::Decisions(cited) => names(party, &mut tx, cited).await?,
                            _ => Vec::new(),
                        };
                        let basis = show::basis::basis(&permit.basis, &names, policy);
                        said.push(format!("{}  permitted, {basis}", approval::render::utc(permit.time)));
                    }
                    Statement::Outcome(outcome) if show::matches(&outcome.request, &self.id) => {
                        if context.json {
                            say_json(&serde_json::json!({"v": 1, "ended": outcome.result, "time": outcome.time}));
                        } else {
                            said.push(format!(
                                "{}  {}",
                                approval::render::utc(outcome.time),
                                show::ended_by(&outcome.result, policy)
                            ));
                        }
                    }
                    _ => {}
                }
            }
            said.iter().rev().for_each(|line| say(line));
        }
        tx.commit().await?;
        if found {
            Ok(0)
        } else {
            Err(Failure::new(missing).hint("`countersign inbox --all` lists them"))
        }
    }
}
