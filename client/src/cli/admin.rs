//! Commands of an admin (or auditor): join, look, answer, watch. A request is always shown whole before it is answered.

use std::collections::{HashSet, VecDeque};
use std::time::Duration;

use approval::decision::Answer as Vote;
use approval::pairing::Pairing;
use approval::replay::{Did, Entry, Pending};
use approval::statement::Statement;
use approval::{Digest, Time};
use clap::Args;
use tokio::time::Instant;

use super::terminal::{Failure, Lines, Outcome, complain, confirmed, interactive, prompt, say, say_json, say_raw};
use super::{Context, shutdown};
use crate::clock::wall;
use crate::member::{Begun, Member, Notice};
use crate::show;

/// How long a look at the relay may take before what is known is shown.
const LOOK: Duration = Duration::from_secs(5);

/// How long after the last news a look is over.
const QUIET: Duration = Duration::from_millis(400);

/// How long to wait for the gate to take a decision.
const TAKEN: Duration = Duration::from_secs(15);

/// Exit code where the decision came too late or wasn't taken.
const NOT_TAKEN: u8 = 4;

fn now() -> Time {
    Time::of_clock(wall())
}

#[derive(Args)]
pub(super) struct Join {
    /// The link that `countersign gate invite` printed; without one, an interrupted join goes on
    link: Option<String>,
    /// This device's name [default: this machine's]
    #[arg(long)]
    name: Option<String>,
    /// Don't ask before joining
    #[arg(short, long)]
    yes: bool,
}

impl Join {
    pub(super) async fn run(self, context: &Context) -> Outcome {
        let mut member = match &self.link {
            Some(link) => {
                let begun = Begun::read(link)?;
                let invite = &begun.invite;
                complain(&format!("you would join as {} ({})", invite.person, invite.role));
                complain(&format!("gate   {}", invite.gate));
                complain(&format!("relay  {}", invite.relay.as_str()));
                if !self.yes {
                    if !interactive() {
                        return Err(Failure::new("nobody can be asked here").hint("say --yes if gate and relay are the right ones"));
                    }
                    if !confirmed(&mut Lines::of_stdin(), "go on?").await {
                        return Err(Failure::new("not joined"));
                    }
                }
                let name = self.name.clone().unwrap_or_else(|| super::gate::machine_name("device"));
                begun.join(context.new_home()?, &name).await?
            }
            None => Member::open(context.home()?).await?,
        };
        let joined = wait_to_be_in(&mut member, context).await;
        member.close().await;
        joined
    }
}

async fn wait_to_be_in(member: &mut Member, context: &Context) -> Outcome {
    loop {
        if member.enrolled() && member.in_group().await? {
            let party = member.party.identity.party();
            let roster = member.party.replay.roster();
            let (person, role) = roster.and_then(|roster| roster.person_of(&party)).map_or((String::new(), String::new()), |(person, _)| (person.name.to_string(), person.role.to_string()));
            if context.json {
                say_json(&serde_json::json!({"v": 1, "joined": person, "role": role, "party": party.to_string()}));
            } else {
                say(&format!("joined as {person} ({role})"));
                complain("next: countersign watch");
            }
            return Ok(0);
        }
        let woken = tokio::select! {
            woken = member.wait() => woken,
            () = shutdown() => {
                complain("interrupted; `countersign join` without a link goes on");
                return Ok(130);
            }
        };
        for notice in member.take(woken).await? {
            match notice {
                Notice::Code(code) if context.json => say_json(&serde_json::json!({"v": 1, "code": code})),
                Notice::Code(code) => {
                    say(&format!("code {code}"));
                    complain("the gate must show the same code; whoever is there confirms it");
                }
                Notice::Answered(answer) => match answer.verdict {
                    Pairing::Refused => return Err(Failure::new(format!("refused: {}", approval::escape::escape(answer.text.as_untrusted()))).hint("ask for a new invite; this folder can be deleted")),
                    Pairing::Waiting => complain(&format!("confirmed; {}", approval::escape::escape(answer.text.as_untrusted()))),
                    Pairing::Confirmed => complain("confirmed"),
                },
                Notice::Offline(reason) => complain(&format!("relay: {reason}")),
                Notice::Evidence(what) => return Err(Failure::new(what)),
                _ => {}
            }
        }
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
                    complain(&format!("relay: {reason}; this is what was known before"));
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
        let mut member = if self.offline { Member::offline(context.home()?).await? } else { Member::open(context.home()?).await? };
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
                let Some(outcome) = signed.verify().ok().and_then(|verified| verified.outcome()) else { continue };
                if context.json {
                    say_json(&serde_json::json!({"v": 1, "request": outcome.request, "ended": outcome.result, "time": outcome.time}));
                } else {
                    say(&format!("{}  {}  {}", outcome.request.short(), approval::render::utc(outcome.time), show::ended(&outcome.result)));
                }
            }
            tx.commit().await?;
        }
        if open.is_empty() && !context.json {
            complain("nothing waits");
        }
        let mut tx = party.store.begin().await?;
        for evidence in tx.evidence().await? {
            complain(&format!("WARNING: {} ({})", evidence.what, approval::render::utc(Time::of_clock(evidence.time))));
        }
        tx.commit().await?;
        Ok(())
    }
}

fn request_json(pending: &Pending) -> Result<serde_json::Value, Failure> {
    let request = pending.request();
    let decisions: Vec<_> = pending.decisions().iter().map(|decision| serde_json::json!({"by": decision.signer(), "verdict": decision.verdict, "digest": decision.digest()})).collect();
    Ok(serde_json::json!({"v": 1, "id": request.digest(), "request": serde_json::to_value(request.get())?, "decisions": decisions, "permitted": pending.permit().is_some()}))
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
                            say_json(&serde_json::json!({"v": 1, "id": statement.digest(), "request": serde_json::to_value(request)?}));
                        } else {
                            say(&format!("request {}", statement.digest()));
                            say_raw(&approval::render::render_request(request));
                        }
                    }
                    Statement::Outcome(outcome) if show::matches(&outcome.request, &self.id) => {
                        if context.json {
                            say_json(&serde_json::json!({"v": 1, "ended": outcome.result, "time": outcome.time}));
                        } else {
                            say(&format!("{}  {}", approval::render::utc(outcome.time), show::ended(&outcome.result)));
                        }
                    }
                    _ => {}
                }
            }
        }
        tx.commit().await?;
        if found { Ok(0) } else { Err(Failure::new(missing).hint("`countersign inbox --all` lists them")) }
    }
}

#[derive(Args)]
pub(super) struct Approve {
    /// The request's id; may be shortened
    id: String,
    /// A remark for the transcript
    #[arg(long, default_value = "")]
    reason: String,
}

#[derive(Args)]
pub(super) struct Deny {
    /// The request's id; may be shortened
    id: String,
    /// Why: the agent is told, and the transcript keeps it
    #[arg(long, default_value = "")]
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
        Err(missing) => return Err(Failure::new(missing).hint("see `countersign inbox`; a request that is over can't be answered").code(NOT_TAKEN)),
    };
    let decision = member.decide(&request, verdict, reason).await?;
    let taken = wait_until_taken(&mut member, &request, &decision, context).await;
    member.close().await;
    taken
}

async fn wait_until_taken(member: &mut Member, request: &Digest, decision: &Digest, context: &Context) -> Outcome {
    let verdict = |text: &str, code: u8| {
        if context.json {
            say_json(&serde_json::json!({"v": 1, "request": request, "decision": decision, "result": text, "exit": code}));
        } else {
            say(text);
        }
        Ok(code)
    };
    let until = Instant::now() + TAKEN;
    let mut seen = false;
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
                            (Did::Ended, true) => return verdict(&show::entry(&entry, member.party.replay.roster()), 0),
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
                Notice::Offline(reason) => complain(&format!("relay: {reason}; trying again")),
                Notice::Evidence(what) => complain(&format!("WARNING: {what}")),
                _ => {}
            }
        }
        // The decision and what follows from it come in one message: still open means that more are needed.
        if seen && let Some(open) = member.party.replay.request(request).filter(|open| open.permit().is_none()) {
            return verdict(&format!("taken; {}", show::line(open, member.party.replay.roster(), now())), 0);
        }
        if let Some((_, text)) = member.refusal(decision.as_bytes()).await? {
            return verdict(&format!("not taken: {}", approval::escape::escape(&text)), NOT_TAKEN);
        }
    }
}

#[derive(Args)]
pub(super) struct Watch {
    /// Only show, ask nothing
    #[arg(long)]
    no_ask: bool,
}

impl Watch {
    pub(super) async fn run(self, context: &Context) -> Outcome {
        let mut member = Member::open(context.home()?).await?;
        let mut lines = Lines::of_stdin();
        let mut watching = Watching::new(context.json, self.no_ask || context.json || !member.is_admin());
        watching.begin(&member);
        loop {
            tokio::select! {
                woken = member.wait() => {
                    let notices = member.take(woken).await?;
                    for notice in notices {
                        watching.told(&member, notice)?;
                    }
                    watching.ask(&member);
                }
                line = lines.next() => {
                    watching.typed(&mut member, line.trim()).await?;
                    watching.ask(&member);
                }
                () = shutdown() => break,
            }
            if watching.done {
                break;
            }
        }
        member.close().await;
        Ok(0)
    }
}

/// What is on the screen of somebody who watches.
pub(super) struct Watching {
    json: bool,
    silent: bool,
    queue: VecDeque<Digest>,
    asking: Option<Digest>,
    answered: HashSet<Digest>,
    pub(super) done: bool,
}

impl Watching {
    pub(super) fn new(json: bool, silent: bool) -> Self {
        Self { json, silent, queue: VecDeque::new(), asking: None, answered: HashSet::new(), done: false }
    }

    pub(super) fn begin(&mut self, member: &Member) {
        self.queue.extend(member.open_requests().map(|open| open.request().digest()));
        if !member.connects() && !self.json {
            complain("another process of this home is connected; this one goes along with it");
        }
    }

    pub(super) fn told(&mut self, member: &Member, notice: Notice) -> Result<(), Failure> {
        match notice {
            Notice::Connected if !self.json => complain("connected; waiting for requests"),
            Notice::Offline(reason) if !self.json => complain(&format!("relay: {reason}; trying again")),
            Notice::Entry(entry) => self.entry(member, &entry)?,
            Notice::Refused { text, .. } => {
                self.interrupt();
                complain(&format!("the gate didn't take it: {}", approval::escape::escape(&text)));
            }
            Notice::Removed => {
                complain("this device was removed from the group");
                self.done = true;
            }
            Notice::Evidence(what) => {
                self.interrupt();
                complain(&format!("WARNING: {what}; it is kept as evidence, see `countersign inbox`"));
            }
            _ => {}
        }
        Ok(())
    }

    fn interrupt(&self) {
        if self.asking.is_some() {
            complain("");
        }
    }

    fn entry(&mut self, member: &Member, entry: &Entry) -> Result<(), Failure> {
        let roster = member.party.replay.roster();
        if self.json {
            let statement: serde_json::Value = serde_json::from_slice(entry.statement().signed().as_bytes())?;
            say_json(&serde_json::json!({"v": 1, "index": entry.index(), "kind": entry.statement().kind().as_str(), "digest": entry.statement().digest(), "statement": statement}));
            return Ok(());
        }
        if entry.did() == Did::Asked {
            self.queue.push_back(entry.statement().digest());
            if self.silent {
                say(&show::entry(entry, roster));
            }
            return Ok(());
        }
        let over = matches!(entry.did(), Did::Permitted | Did::Ended | Did::Changed);
        let about = entry.request().map(|(_, request)| request);
        self.interrupt();
        say(&show::entry(entry, roster));
        if over && about.is_some() && self.asking == about {
            complain("answered by somebody else: nothing is left to do");
            self.asking = None;
        }
        Ok(())
    }

    /// Shows the next request that wants an answer of this person, whole, and asks.
    pub(super) fn ask(&mut self, member: &Member) {
        if self.silent || self.asking.is_some() {
            return;
        }
        while let Some(next) = self.queue.pop_front() {
            let Some(open) = member.open_requests().find(|open| open.request().digest() == next) else { continue };
            if self.answered.contains(&next) || member.has_answered(open) {
                continue;
            }
            say("");
            say_raw(&show::whole(open, member.party.replay.roster(), now()));
            prompt("approve? [y]es, [n]o REASON, [s]kip, [q]uit: ");
            self.asking = Some(next);
            return;
        }
    }

    pub(super) async fn typed(&mut self, member: &mut Member, line: &str) -> Result<(), Failure> {
        let (word, rest) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
        let Some(request) = self.asking else {
            self.done = matches!(word, "q" | "quit");
            return Ok(());
        };
        let verdict = match word.to_lowercase().as_str() {
            "y" | "yes" | "approve" => Vote::Approve,
            "n" | "no" | "deny" => Vote::Deny,
            "s" | "skip" => {
                self.asking = None;
                return Ok(());
            }
            "q" | "quit" => {
                self.done = true;
                return Ok(());
            }
            _ => {
                prompt("y to approve, n REASON to deny, s to skip, q to quit: ");
                return Ok(());
            }
        };
        self.asking = None;
        if member.open_requests().all(|open| open.request().digest() != request) {
            complain("it is over already: nothing was signed");
            return Ok(());
        }
        member.decide(&request, verdict, rest.trim()).await?;
        self.answered.insert(request);
        complain(if verdict == Vote::Approve { "signed: approve" } else { "signed: deny" });
        Ok(())
    }
}
