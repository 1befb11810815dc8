//! Commands of an admin (or auditor) that end by themselves: look and answer. A request is always shown whole before it is answered. Joining and
//! watching are in `join` and `watch`.

use std::time::Duration;

use approval::decision::Answer as Vote;
use approval::replay::{Did, Pending};
use approval::statement::Statement;
use approval::{Digest, Time};
use clap::Args;
use tokio::time::Instant;

use super::Context;
use super::terminal::{Failure, Outcome, complain, say, say_json, say_raw};
use crate::clock::wall;
use crate::member::{Member, Notice};
use crate::show;

/// How long a look at the relay may take before what is known is shown.
const LOOK: Duration = Duration::from_secs(5);

/// How long after the last news a look is over.
const QUIET: Duration = Duration::from_millis(400);

/// How long to wait for the gate to take a decision.
const TAKEN: Duration = Duration::from_secs(15);

/// Exit code where the decision came too late or wasn't taken.
const NOT_TAKEN: u8 = 4;

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
async fn look(member: &mut Member, offline: bool) -> Result<(), Failure> {
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
        let party = crate::party::Party::open_any(home).await?;
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

    async fn list(&self, context: &Context, party: &crate::party::Party) -> Result<(), Failure> {
        let roster = party.replay.roster();
        let open: Vec<&Pending> = party.replay.open().collect();
        for pending in &open {
            if context.json {
                say_json(&request_json(pending)?);
            } else {
                let state = if pending.permit().is_some() { "  running" } else { "" };
                say(&format!("{}{state}", show::line(pending, roster, now())));
            }
        }
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
                        show::ended(&outcome.result)
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

fn request_json(pending: &Pending) -> Result<serde_json::Value, Failure> {
    let request = pending.request();
    let decisions: Vec<_> = pending.decisions().iter().map(|decision| serde_json::json!({"by": decision.signer(), "verdict": decision.verdict, "digest": decision.digest()})).collect();
    Ok(
        serde_json::json!({"v": 1, "id": request.digest(), "request": serde_json::to_value(request.get())?, "decisions": decisions, "permitted": pending.permit().is_some()}),
    )
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
        let party = crate::party::Party::open_any(context.home()?).await?;
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

    async fn print(&self, context: &Context, party: &crate::party::Party) -> Outcome {
        let missing = match show::find(party.replay.open(), &self.id) {
            Ok(pending) => {
                if context.json {
                    say_json(&request_json(pending)?);
                } else {
                    say_raw(&show::whole(pending, party.replay.roster(), now()));
                }
                return Ok(0);
            }
            Err(missing) => missing,
        };
        // It may be over: then its statements stand in the transcript.
        let mut tx = party.store.begin().await?;
        let mut found = false;
        for kind in ["request", "outcome"] {
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
                    Statement::Outcome(outcome) if show::matches(&outcome.request, &self.id) => {
                        if context.json {
                            say_json(&serde_json::json!({"v": 1, "ended": outcome.result, "time": outcome.time}));
                        } else {
                            say(&format!(
                                "{}  {}",
                                approval::render::utc(outcome.time),
                                show::ended(&outcome.result)
                            ));
                        }
                    }
                    _ => {}
                }
            }
        }
        tx.commit().await?;
        if found {
            Ok(0)
        } else {
            Err(Failure::new(missing).hint("`countersign inbox --all` lists them"))
        }
    }
}

#[derive(Args)]
pub(super) struct Approve {
    /// The request's id; may be shortened
    id: String,
    /// A remark for the transcript
    #[arg(long, default_value = "", hide_default_value = true)]
    reason: String,
}

#[derive(Args)]
pub(super) struct Deny {
    /// The request's id; may be shortened
    id: String,
    /// Why: the agent is told, and the transcript keeps it
    #[arg(long, default_value = "", hide_default_value = true)]
    reason: String,
}

impl Approve {
    pub(super) async fn run(self, context: &Context) -> Outcome {
        answer(context, &self.id, Vote::Approve, &self.reason).await
    }
}

impl Deny {
    pub(super) async fn run(self, context: &Context) -> Outcome {
        answer(context, &self.id, Vote::Deny, &self.reason).await
    }
}

async fn answer(context: &Context, id: &str, verdict: Vote, reason: &str) -> Outcome {
    let mut member = Member::open(context.home()?).await?;
    look(&mut member, false).await?;
    let request = match show::find(member.open_requests(), id) {
        Ok(pending) => {
            if !context.json {
                say_raw(&show::whole(pending, member.party.replay.roster(), now()));
            }
            pending.request().digest()
        }
        Err(missing) => {
            return Err(Failure::new(missing)
                .hint("see `countersign inbox`; a request that is over can't be answered")
                .code(NOT_TAKEN));
        }
    };
    let decision = member.decide(&request, verdict, reason).await?;
    let taken = wait_until_taken(&mut member, &request, &decision, context).await;
    member.close().await;
    taken
}

async fn wait_until_taken(member: &mut Member, request: &Digest, decision: &Digest, context: &Context) -> Outcome {
    let verdict = |text: &str, code: u8| {
        if context.json {
            say_json(
                &serde_json::json!({"v": 1, "request": request, "decision": decision, "result": text, "exit": code}),
            );
        } else {
            say(text);
        }
        Ok(code)
    };
    let until = Instant::now() + TAKEN;
    let mut seen = false;
    let mut outage = Outage::default();
    loop {
        let woken = tokio::select! {
            woken = member.wait() => woken,
            () = tokio::time::sleep_until(until) => {
                return verdict("signed; the gate hasn't taken it yet, it is sent again by `countersign watch` or `inbox`", 0);
            }
        };
        for notice in member.take(woken).await? {
            match notice {
                Notice::Entry(entry) => {
                    seen |= entry.statement().digest() == *decision;
                    if entry.request().is_some_and(|(_, about)| about == *request) {
                        match (entry.did(), seen) {
                            (Did::Permitted | Did::Changed, true) => return verdict("approved: it is permitted", 0),
                            (Did::Ended, true) => {
                                return verdict(&show::entry(&entry, member.party.replay.roster()), 0);
                            }
                            (Did::Permitted | Did::Ended | Did::Changed, false) => {
                                return verdict("too late: another answer was faster", NOT_TAKEN);
                            }
                            _ => {}
                        }
                    }
                }
                Notice::Refused { about, text, .. } if about == *decision => {
                    return verdict(&format!("not taken: {}", approval::escape::escape(&text)), NOT_TAKEN);
                }
                Notice::Connected => outage.over(),
                Notice::Offline(reason) => outage.say(&reason),
                Notice::Evidence(what) => complain(&format!("WARNING: {what}")),
                _ => {}
            }
        }
        // The decision and what follows from it come in one message: still open means that more are needed.
        if seen
            && let Some(open) = member
                .party
                .replay
                .request(request)
                .filter(|open| open.permit().is_none())
        {
            return verdict(
                &format!("taken; {}", show::line(open, member.party.replay.roster(), now())),
                0,
            );
        }
        if let Some((_, text)) = member.refusal(decision.as_bytes()).await? {
            return verdict(&format!("not taken: {}", approval::escape::escape(&text)), NOT_TAKEN);
        }
    }
}
