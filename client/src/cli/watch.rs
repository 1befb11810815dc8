//! `countersign watch`: shows each request whole as it comes, asks, and tells what becomes of it, also when somebody else was faster. What a typed
//! line means is in `words`, how far "always" reaches in `scope`; what is on the screen is in `watch/screen.rs`.

mod answering;
mod screen;

use std::collections::{HashMap, HashSet, VecDeque};
use std::time::{Duration, Instant};

use approval::Digest;
use approval::Time;
use approval::replay::{Did, Entry, Pending};
use approval::statement::Statement;
use clap::Args;

use super::admin::{Outage, now};
use super::terminal::{Failure, Lines, Outcome, bell, complain, interactive, say, say_json};
use super::{Context, shutdown};
use crate::member::attention::{quiet_until, reminders};
use crate::member::{Member, Notice};
use crate::show;
use screen::Asking;

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
                    watching.tick(&member, now());
                    watching.ask(&member, &mut lines).await?;
                }
                line = lines.next() => {
                    watching.typed(&mut member, line.trim()).await?;
                    watching.ask(&member, &mut lines).await?;
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
struct Watching {
    json: bool,
    silent: bool,
    queue: VecDeque<Digest>,
    /// Those that others are asked about first, and until when.
    quiet: Vec<(Digest, Time)>,
    asking: Option<Asking>,
    answered: HashSet<Digest>,
    /// The numbers of the list: each request keeps its own, so that none moves under a person's fingers.
    numbered: Vec<Digest>,
    /// Those whose end was on the screen.
    shown: HashSet<Digest>,
    /// How many reminders of each request there were.
    reminded: HashMap<Digest, u8>,
    /// Who made the decisions of requests that haven't ended.
    names: show::basis::Names,
    outage: Outage,
    /// Until when what is typed may still be meant for a request that vanished from under the person's fingers.
    unarmed_until: Option<Instant>,
    done: bool,
}

impl Watching {
    fn new(json: bool, silent: bool) -> Self {
        Self {
            json,
            silent,
            queue: VecDeque::new(),
            quiet: Vec::new(),
            asking: None,
            answered: HashSet::new(),
            numbered: Vec::new(),
            shown: HashSet::new(),
            reminded: HashMap::new(),
            names: show::basis::Names::new(),
            outage: Outage::default(),
            unarmed_until: None,
            done: false,
        }
    }

    fn begin(&mut self, member: &Member) {
        let now = now();
        for open in member.open_requests() {
            let id = open.request().digest();
            // What is due already was due before anybody watched.
            self.reminded.insert(id, reminders(open.request(), now));
            for decision in open.decisions() {
                let name = show::who(member.party.replay.roster(), &decision.signer());
                self.names.insert(decision.digest(), name);
            }
            self.came(member, open, now);
        }
        if !member.connects() && !self.json {
            complain("another process of this home is connected; this one goes along with it");
        }
    }

    /// A request to ask about, now or later.
    fn came(&mut self, member: &Member, open: &Pending, now: Time) {
        let (id, request) = (open.request().digest(), open.request());
        let policy = member.party.replay.roster().and_then(|roster| roster.policy.as_ref());
        let quiet = member.person().and_then(|person| quiet_until(policy, request, person));
        match quiet.filter(|until| now < *until && !self.silent) {
            Some(until) => {
                self.interrupt();
                say(&show::line(open, &member.party.replay, now));
                complain(&format!(
                    "others are asked first; you are at {}",
                    approval::render::utc(until)
                ));
                self.quiet.push((id, until));
                self.ask_again();
            }
            None => self.queue.push_back(id),
        }
    }

    fn told(&mut self, member: &Member, notice: Notice) -> Result<(), Failure> {
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
        if self.json {
            let statement: serde_json::Value = serde_json::from_slice(entry.statement().signed().as_bytes())?;
            say_json(
                &serde_json::json!({"v": 1, "index": entry.index(), "kind": entry.statement().kind().as_str(), "digest": entry.statement().digest(), "statement": statement}),
            );
            return Ok(());
        }
        let replay = &member.party.replay;
        if entry.did() == Did::Asked {
            let digest = entry.statement().digest();
            if self.silent {
                say(&show::entry(entry, replay, &self.names));
            }
            // It may be over already: its end came along.
            match replay.request(&digest) {
                Some(open) => self.came(member, open, now()),
                None => self.queue.push_back(digest),
            }
            return Ok(());
        }
        if let Statement::Decision(_) = entry.statement().get() {
            let name = show::who(replay.roster(), &entry.statement().signer());
            self.names.insert(entry.statement().digest(), name);
        }
        self.interrupt();
        say(&show::entry(entry, replay, &self.names));
        let about = entry.request().map(|(_, request)| request);
        let allowed = about.is_some_and(|request| show::is_allowed(replay, &request, now()));
        let over = allowed || matches!(entry.did(), Did::Permitted | Did::Ended | Did::Changed);
        if over && about.is_some() && self.asking.as_ref().map(|asking| asking.request) == about {
            complain(match entry.statement().get() {
                Statement::Permit(permit) if !matches!(permit.basis, approval::permit::Basis::Decisions(_)) => {
                    "nobody has to answer it any more: nothing is left to do"
                }
                _ => "answered by somebody else: nothing is left to do",
            });
            self.asking = None;
            // A person's fingers are slower than the screen; a program reads the question before it answers.
            self.unarmed_until = interactive().then(|| Instant::now() + UNARMED);
        } else {
            self.ask_again();
        }
        Ok(())
    }

    /// What time brings: whose turn it is now, and what is about to expire.
    fn tick(&mut self, member: &Member, now: Time) {
        if self.silent {
            return;
        }
        let (due, quiet): (Vec<_>, Vec<_>) = self.quiet.drain(..).partition(|(_, until)| now >= *until);
        self.quiet = quiet;
        self.queue.extend(due.into_iter().map(|(id, _)| id));
        for open in member.open_requests() {
            let id = open.request().digest();
            let due = reminders(open.request(), now);
            let said = self.reminded.entry(id).or_default();
            if due <= *said || self.answered.contains(&id) || member.has_answered(open) {
                continue;
            }
            *said = due;
            if self.quiet.iter().any(|(quiet, _)| *quiet == id) {
                continue;
            }
            self.interrupt();
            bell();
            complain(&format!("still open: {}", show::line(open, &member.party.replay, now)));
            self.ask_again();
        }
    }
}
