//! The gate: the process beside the agent that asks the admins, keeps the transcript and is the only thing that runs what was approved.
//! It is one task that owns all state and takes one event after the other; sockets, links and running commands are tasks around it.
//! Who may say yes is decided in `approval::decide`, never here.

mod admission;
mod ask;
mod asynchronous;
mod attention;
mod explain;
mod genesis;
mod judge;
mod members;
mod pairing;
mod prepare;
mod running;
mod socket;
mod work;

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use tokio::sync::mpsc;

use approval::outcome::Ended;
use approval::permit::Confined;
use approval::roster::Unenrolled;
use approval::{Digest, Id16, Time};
use wire::envelope::EnvelopeKey;

use crate::clock::{Clock, Source, System};
use crate::home::{Home, Lock};
use crate::link::{self, LinkEvent, LinkHandle};
use crate::local::{Answer, Question, State};
use crate::pace::Pace;
use crate::party::{Kind, Party, PartyError};
use crate::runner::{Confinement, Held, Launcher};

pub use admission::Admission;
pub use attention::Attention;
pub(crate) use explain::lines as considered;
pub use genesis::{Init, init};
pub(crate) use prepare::foreseen;
use prepare::{Asked, Redeemed};

/// Name of the lock that makes a gate the only process on its state.
const LOCK: &str = "gate.lock";

/// Events that are taken into one transaction at most.
const BATCH: usize = 64;

/// How long a gate that is told to end waits for what it runs.
const LAST_WAIT: Duration = Duration::from_secs(5);

/// Events that wait for the engine.
const EVENTS: usize = 1024;

/// The identifier of one local connection.
pub(crate) type ClientId = u64;

/// What the engine is told.
pub(crate) enum Event {
    /// The gate's own mailbox.
    Link(LinkEvent),
    /// A program on this machine asks; answers go to the sender until it is dropped.
    Local {
        client: ClientId,
        question: Prepared,
        answers: mpsc::Sender<Answer>,
    },
    /// That program went away.
    Left(ClientId),
    /// A command is over.
    Ran { request: Digest, result: Ended },
    /// A device was paired and confirmed.
    Admit(Box<Admission>),
    /// This process begins: what was decided while there was none is acted on.
    Began,
}

/// A local question after everything slow about it was done outside the engine.
pub(crate) enum Prepared {
    /// An action, resolved and hashed; whoever asks waits.
    Ask(Box<Asked>),
    /// The same, and nobody waits.
    Request(Box<Asked>),
    /// The same, and nobody is asked.
    Explain(Box<Asked>),
    /// An action that was asked earlier, resolved and hashed again.
    Redeem(Box<Redeemed>),
    /// Any other question that needs the engine.
    Other(Box<Question>),
}

/// What can go wrong with a gate as a whole.
#[derive(Debug, thiserror::Error)]
pub enum GateError {
    /// Its state.
    #[error(transparent)]
    Party(#[from] PartyError),
    /// Its folder.
    #[error(transparent)]
    Home(#[from] crate::home::HomeError),
    /// Another gate process works on the same home.
    #[error("another gate is already running on {0}")]
    Running(String),
    /// Its socket can't be opened.
    #[error("can't listen on {path}: {source}")]
    Socket {
        /// Where.
        path: String,
        /// Why.
        source: std::io::Error,
    },
    /// Its name or relay can't be used.
    #[error("{0}")]
    Invalid(String),
}

/// One running command.
struct Running {
    /// Ends it early, because whoever asked has left.
    stop: tokio::sync::watch::Sender<bool>,
}

/// What the gate has in memory about a request that hasn't ended.
#[derive(Default)]
struct Kept {
    /// Nobody waits for it: it is redeemed later.
    asynchronous: bool,
    /// The digits that only whoever asked is told.
    number: Option<String>,
    /// The files of its command, open since it was asked; none after a restart.
    held: Option<Held>,
    /// What its agent was last told that became of it.
    told: Option<State>,
}

/// A program that waits for a request to be something else than pending.
struct Waiter {
    client: ClientId,
    request: Digest,
    until: tokio::time::Instant,
    answers: mpsc::Sender<Answer>,
}

/// Somebody who waits for a request.
struct Asker {
    client: ClientId,
    answers: mpsc::Sender<Answer>,
}

/// The engine.
pub(crate) struct Gate {
    party: Party,
    clock: Clock,
    incarnation: Id16,
    link: LinkHandle,
    connected: bool,
    events: mpsc::Sender<Event>,
    /// Who waits for a request. Several who asked for the same share its one run.
    askers: HashMap<Digest, Vec<Asker>>,
    running: HashMap<Digest, Running>,
    asked: HashMap<Digest, Kept>,
    waiters: Vec<Waiter>,
    /// Who is told what becomes of requests that nobody waits for.
    listeners: Vec<Asker>,
    attention: Attention,
    haste: attention::Haste,
    /// Sequences of envelopes that broke the group's state and are passed over when they come again.
    poison: HashSet<u64>,
    /// Why nothing is signed any more, if so.
    halted: Option<String>,
    /// When each member last got a bare head.
    heads: HashMap<wire::identity::PartyId, u64>,
    /// Our newest envelope key, for those who pair.
    address: tokio::sync::watch::Sender<EnvelopeKey>,
    /// When this process began.
    started: std::time::Instant,
    /// The size that was last left beside the database.
    marked: Option<u64>,
    /// The size at which the replay's state was last kept.
    kept: u64,
    launcher: Launcher,
    _lock: Lock,
}

/// What a gate takes from outside; tests put their own in.
pub struct Surroundings {
    /// Where it reads the time.
    pub clock: Box<dyn Source>,
    /// The program that starts commands: this one.
    pub launcher: Launcher,
    /// When it says again what wasn't answered.
    pub pace: Pace,
    /// How much may be asked of the admins.
    pub attention: Attention,
}

impl Default for Surroundings {
    fn default() -> Self {
        Self {
            clock: Box::new(System),
            launcher: Launcher::current(),
            pace: Pace::default(),
            attention: Attention::default(),
        }
    }
}

/// Runs the gate in this home until `shutdown` resolves. `ready` is told when it listens.
///
/// # Errors
/// [`GateError`] when it can't start, or can't even read its state any more.
pub async fn serve(
    home: Home,
    surroundings: Surroundings,
    shutdown: impl Future<Output = ()>,
    ready: impl FnOnce(&std::path::Path),
) -> Result<(), GateError> {
    let Some(lock) = home.try_lock(LOCK)? else {
        return Err(GateError::Running(home.path().display().to_string()));
    };
    let mut party = Party::open(home, Kind::Gate).await?;
    party.pace = surroundings.pace;
    let path = party.home.socket()?;
    let listener = socket::listen(&path)?;
    let (sender, mut events) = mpsc::channel(EVENTS);
    let (link, mut link_events) = link::spawn(
        &party.relay,
        wire::mailbox::MailboxKey::from_bytes(&party.mailbox.to_bytes()),
    );
    let incarnation = incarnation(&mut party).await?;
    let floor = party.replay.time().map_or(0, Time::millis);
    let halted = rolled_back(&mut party).await?;
    let address = party
        .envelopes
        .first()
        .ok_or(PartyError::Lacks("the envelope key"))?
        .key();
    let launcher = confined(surroundings.launcher.hiding(party.home.path())).await;
    // The socket takes no other user's connections, so whoever asks can read this process's files (abuse case J13).
    tracing::warn!(
        "agents ask as the gate's own user: nothing but the confinement of commands keeps them from its keys"
    );
    let kept = party.replay.size();
    let mut gate = Gate {
        clock: Clock::new(surroundings.clock, floor),
        incarnation,
        link: link.clone(),
        connected: false,
        events: sender.clone(),
        askers: HashMap::new(),
        running: HashMap::new(),
        asked: HashMap::new(),
        waiters: Vec::new(),
        listeners: Vec::new(),
        attention: surroundings.attention,
        haste: attention::Haste::default(),
        poison: HashSet::new(),
        halted,
        heads: HashMap::new(),
        address: tokio::sync::watch::Sender::new(address),
        started: std::time::Instant::now(),
        marked: None,
        kept,
        launcher,
        _lock: lock,
        party,
    };
    gate.take_up().await?;
    let server = tokio::spawn(socket::accept(
        listener,
        socket::Doors {
            events: sender,
            link,
            seed: gate.pairing_seed(),
            hide: gate.party.home.path().into(),
        },
    ));
    ready(&path);

    tokio::pin!(shutdown);
    let mut batch = Vec::with_capacity(BATCH);
    loop {
        let wait = gate.until_next_expiry();
        tokio::select! {
            biased;
            () = &mut shutdown => break,
            event = link_events.recv() => match event {
                Some(event) => batch.push(Event::Link(event)),
                None => break,
            },
            _ = events.recv_many(&mut batch, BATCH) => {}
            () = tokio::time::sleep(wait) => {}
        }
        while batch.len() < BATCH {
            match link_events.try_recv() {
                Ok(event) => batch.push(Event::Link(event)),
                Err(_) => break,
            }
        }
        // Both doors at every turn: a relay or a member that never stops talking must not keep those on this machine waiting.
        while batch.len() < 2 * BATCH {
            match events.try_recv() {
                Ok(event) => batch.push(event),
                Err(_) => break,
            }
        }
        gate.handle(std::mem::take(&mut batch)).await?;
    }
    gate.finish(&mut events).await?;
    server.abort();
    let _ = std::fs::remove_file(&path);
    gate.party.store.close().await;
    Ok(())
}

/// Tries once what this machine holds commands in with; from then on every command is held in by all of it.
async fn confined(launcher: Launcher) -> Launcher {
    let probing = launcher.clone();
    let probed = tokio::task::spawn_blocking(move || Confinement::probe(&probing)).await;
    let confinement = probed.unwrap_or_default();
    let names: Vec<&str> = confinement.names().into_iter().map(Confined::as_str).collect();
    tracing::info!(confined = names.join(", "), "what holds commands in");
    launcher.confined(confinement)
}

async fn incarnation(party: &mut Party) -> Result<Id16, PartyError> {
    let mut tx = party.store.begin().await?;
    let stored = tx
        .meta("incarnation")
        .await?
        .ok_or(PartyError::Lacks("its incarnation"))?;
    tx.commit().await?;
    Ok(Id16(
        stored.try_into().map_err(|_| PartyError::Lacks("its incarnation"))?,
    ))
}

/// Compares the database with the mark that is written beside it after each commit: a database older than its mark was restored from a
/// backup, and going on would fork the transcript.
async fn rolled_back(party: &mut Party) -> Result<Option<String>, PartyError> {
    let mut tx = party.store.begin().await?;
    let halted = tx.meta_text("halted").await?;
    tx.commit().await?;
    if halted.is_some() {
        return Ok(halted);
    }
    let mark = std::fs::read_to_string(party.home.path().join("head"))
        .ok()
        .and_then(|text| text.trim().parse::<u64>().ok());
    let size = party.replay.size();
    Ok(mark.filter(|mark| *mark > size).map(|mark| {
        format!("the transcript here has {size} entries and had {mark}: this is an old copy of the gate's state")
    }))
}

impl Gate {
    /// Before the end: what runs may come to its own end for a moment, so that its outcome is known. What doesn't is `unknown` after the next start.
    async fn finish(&mut self, events: &mut mpsc::Receiver<Event>) -> Result<(), GateError> {
        let deadline = tokio::time::Instant::now() + LAST_WAIT;
        while !self.running.is_empty() {
            match tokio::time::timeout_at(deadline, events.recv()).await {
                Ok(Some(event @ Event::Ran { .. })) => self.handle(vec![event]).await?,
                Ok(Some(_)) => {}
                Ok(None) | Err(_) => break,
            }
        }
        Ok(())
    }

    /// After a start: what was running when the process ended has an unknown outcome, and is never run again; what is open goes on.
    async fn take_up(&mut self) -> Result<(), GateError> {
        let mut tx = self.party.store.begin().await.map_err(PartyError::from)?;
        let rows = tx.asked().await.map_err(PartyError::from)?;
        tx.commit().await.map_err(PartyError::from)?;
        for row in rows {
            let kept = Kept {
                asynchronous: row.asynchronous,
                number: row.number,
                ..Kept::default()
            };
            self.asked.insert(row.request, kept);
        }
        if self.halted.is_some() {
            return Ok(());
        }
        let lost: Vec<Digest> = self
            .party
            .replay
            .open()
            .filter(|open| open.permit().is_some())
            .map(|open| open.request().digest())
            .collect();
        let ended = lost.into_iter().map(|request| Event::Ran {
            request,
            result: Ended::Unknown(approval::outcome::Nothing {}),
        });
        self.handle(ended.chain([Event::Began]).collect()).await
    }

    fn until_next_expiry(&mut self) -> Duration {
        let longest = Duration::from_millis(self.party.pace.idle);
        let now = self.clock.now().millis();
        let waits = self
            .party
            .replay
            .open()
            .filter(|open| open.permit().is_none())
            .map(|open| open.request().expires.millis().saturating_sub(now));
        let patience = self
            .waiters
            .iter()
            .map(|waiter| waiter.until.saturating_duration_since(tokio::time::Instant::now()));
        waits
            .map(Duration::from_millis)
            .chain(patience)
            .min()
            .map_or(longest, |wait| wait.min(longest))
    }

    fn pairing_seed(&self) -> pairing::Seed {
        let (relay, mailbox) = (self.party.relay.clone(), self.party.mailbox.id());
        pairing::Seed {
            gate: self.party.gate,
            relay,
            mailbox,
            envelope_key: self.address.subscribe(),
        }
    }

    /// Whether anything may be asked: there is an admin, or it is allowed until there is one.
    fn answers(&self) -> bool {
        self.party
            .replay
            .roster()
            .is_some_and(|roster| roster.is_enrolled() || roster.unenrolled == Unenrolled::Allow)
    }

    /// Whether an admin is enrolled.
    fn enrolled(&self) -> bool {
        self.party.replay.roster().is_some_and(|roster| roster.is_enrolled())
    }

    /// What of it holds every command in, for permits.
    fn confined(&self) -> Vec<Confined> {
        self.launcher.confinement().names()
    }
}
