//! `countersign watch`: shows each request whole as it comes, asks, and tells what becomes of it, also when somebody else was faster.

use std::collections::{HashSet, VecDeque};
use std::time::{Duration, Instant};

use approval::Digest;
use approval::decision::Answer as Vote;
use approval::replay::{Did, Entry};
use clap::Args;

use super::admin::{Outage, now};
use super::terminal::{Failure, Lines, Outcome, complain, interactive, prompt, say, say_json, say_raw};
use super::{Context, shutdown};
use crate::member::{Member, Notice};
use crate::show;

/// The question under each request.
const ASK: &str = "approve? [y]es, [n]o REASON, [s]kip, [q]uit: ";

/// How long after a request vanished a line is taken to be meant for it and not for the next one on the screen.
const UNARMED: Duration = Duration::from_millis(1500);

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
        // One for all turns: a signal that comes between two turns must not be lost.
        let mut shutdown = std::pin::pin!(shutdown());
        loop {
            tokio::select! {
                woken = member.wait() => {
                    let notices = member.take(woken).await?;
                    for notice in notices {
                        watching.told(&member, notice)?;
                    }
                    watching.ask(&member, &mut lines);
                }
                line = lines.next() => {
                    watching.typed(&mut member, line.trim()).await?;
                    watching.ask(&member, &mut lines);
                }
                () = &mut shutdown => break,
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
    outage: Outage,
    /// Until when what is typed may still be meant for a request that vanished from under the person's fingers.
    unarmed_until: Option<Instant>,
    pub(super) done: bool,
}

impl Watching {
    pub(super) fn new(json: bool, silent: bool) -> Self {
        Self {
            json,
            silent,
            queue: VecDeque::new(),
            asking: None,
            answered: HashSet::new(),
            outage: Outage::default(),
            unarmed_until: None,
            done: false,
        }
    }

    pub(super) fn begin(&mut self, member: &Member) {
        self.queue
            .extend(member.open_requests().map(|open| open.request().digest()));
        if !member.connects() && !self.json {
            complain("another process of this home is connected; this one goes along with it");
        }
    }

    pub(super) fn told(&mut self, member: &Member, notice: Notice) -> Result<(), Failure> {
        match notice {
            Notice::Connected if !self.json => {
                self.outage.over();
                complain("connected; waiting for requests");
            }
            Notice::Offline(reason) if !self.json => self.outage.say(&reason),
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
                complain(&format!(
                    "WARNING: {what}; it is kept as evidence, see `countersign inbox`"
                ));
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
            say_json(
                &serde_json::json!({"v": 1, "index": entry.index(), "kind": entry.statement().kind().as_str(), "digest": entry.statement().digest(), "statement": statement}),
            );
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
            // A person's fingers are slower than the screen; a program reads the question before it answers.
            self.unarmed_until = interactive().then(|| Instant::now() + UNARMED);
        }
        Ok(())
    }

    /// Shows the next request that wants an answer of this person, whole, and asks.
    pub(super) fn ask(&mut self, member: &Member, lines: &mut Lines) {
        if self.silent || self.asking.is_some() {
            return;
        }
        while let Some(next) = self.queue.pop_front() {
            let Some(open) = member.open_requests().find(|open| open.request().digest() == next) else {
                continue;
            };
            if self.answered.contains(&next) || member.has_answered(open) {
                continue;
            }
            say("");
            say_raw(&show::whole(open, member.party.replay.roster(), now()));
            // Typed before this was on the screen: an answer to something else.
            lines.forget();
            prompt(ASK);
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
        if self.unarmed_until.take().is_some_and(|until| Instant::now() < until) {
            complain("that came just as the request before this one ended: not counted");
            prompt(ASK);
            return Ok(());
        }
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
        complain(if verdict == Vote::Approve {
            "signed: approve"
        } else {
            "signed: deny"
        });
        Ok(())
    }
}
