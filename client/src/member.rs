//! A person's device, admin or auditor: keeps its own copy of the transcript, checks every entry and every change of the group by itself, and
//! signs decisions. Here is the device as others use it; what it shows and asks at the terminal is in `cli`.

pub mod attention;
mod hearing;
mod join;
mod past;
mod saying;
mod work;

use std::collections::HashMap;
use std::time::Duration;

use tokio::sync::mpsc;

use approval::message::RefusalCode;
use approval::replay::{Entry, Pending};
use approval::{Digest, Name, Verified};

use crate::channel::Membership;
use crate::home::{Home, Lock};
use crate::link::{self, LinkEvent, LinkHandle};
use crate::party::{Kind, Party, PartyError, membership};

pub use join::{Begun, JoinError};
pub use past::{names, past};
pub use saying::Saying;

/// Name of the lock of the process that is connected for this home. Others write to the same database and leave the sending to it.
const LOCK: &str = "link.lock";

/// How often the database is looked at for what another process of this home did.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// How many of the latest rosters are kept in memory: a group is never further behind than that.
const ROSTERS: usize = 64;

/// Link events that are taken into one transaction at most.
const BATCH: usize = 64;

/// What a person may want to know.
#[derive(Clone, Debug)]
pub enum Notice {
    /// The relay is reached.
    Connected,
    /// The relay isn't reached, and why.
    Offline(String),
    /// The relay says how much waits for this device.
    Waiting(u64),
    /// The transcript grew by this entry.
    Entry(Box<Entry>),
    /// The gate was heard: its log ends where ours does.
    Head,
    /// The gate didn't take what we said.
    Refused {
        /// Digest of the decision, or the proposal's id.
        about: Digest,
        /// Why.
        code: RefusalCode,
        /// In the gate's words.
        text: String,
    },
    /// Pairing: the short code to compare.
    Code(String),
    /// Pairing: how the gate's side ended.
    Answered(approval::pairing::Answer),
    /// This device is in the group.
    Joined,
    /// This device was removed from the group.
    Removed,
    /// The gate contradicted itself or broke a rule. It was written down.
    Evidence(String),
}

/// A device.
pub struct Member {
    /// Its keys, database and transcript.
    pub party: Party,
    connection: Option<Connection>,
    /// What each roster that was verified says about the group. A commit is checked by the one before it and the one it leads to.
    rosters: HashMap<[u8; 32], Membership>,
    /// Something was said here that hasn't been handed to the link yet.
    said: bool,
}

struct Connection {
    link: LinkHandle,
    events: mpsc::Receiver<LinkEvent>,
    up: bool,
    ack_due: tokio::time::Instant,
    _lock: Lock,
}

/// What [`Member::wait`] woke up for; given back to [`Member::take`].
pub struct Woken(Vec<LinkEvent>);

impl Member {
    /// Loads the device of this home. Connects unless another process of this home is connected already.
    pub async fn open(home: Home) -> Result<Self, PartyError> {
        let mut member = Self::offline(home).await?;
        member.connect()?;
        Ok(member)
    }

    /// Loads the device of this home without connecting.
    pub async fn offline(home: Home) -> Result<Self, PartyError> {
        Self::load(Party::open(home, Kind::Member).await?).await
    }

    async fn load(party: Party) -> Result<Self, PartyError> {
        let mut rosters = HashMap::new();
        let mut tx = party.store.begin().await?;
        // From the one in force backwards, each by its digest: no search through the transcript.
        let mut next = party.replay.roster().map(Verified::digest);
        while let Some(digest) = next.filter(|_| rosters.len() < ROSTERS) {
            let Some(roster) = (match tx.statement(&digest).await? {
                Some(signed) => signed.verify()?.roster(),
                None => None,
            }) else {
                break;
            };
            rosters.insert(*digest.as_bytes(), membership(&roster));
            next = roster.previous;
        }
        tx.commit().await?;
        Ok(Self {
            party,
            connection: None,
            rosters,
            said: false,
        })
    }

    fn connect(&mut self) -> Result<(), PartyError> {
        let Some(lock) = self.party.home.try_lock(LOCK)? else {
            return Ok(());
        };
        let key = wire::mailbox::MailboxKey::from_bytes(&self.party.mailbox.to_bytes());
        let (link, events) = link::spawn(&self.party.relay, key);
        self.connection = Some(Connection {
            link,
            events,
            up: false,
            ack_due: tokio::time::Instant::now(),
            _lock: lock,
        });
        Ok(())
    }

    /// Whether this process is the one that talks to the relay for this home.
    pub fn connects(&self) -> bool {
        self.connection.is_some()
    }

    /// Waits until there is something to do. Can be dropped at any time without losing anything.
    pub async fn wait(&mut self) -> Woken {
        let Some(connection) = &mut self.connection else {
            tokio::time::sleep(LOOK_EVERY).await;
            return Woken(Vec::new());
        };
        let mut events = Vec::new();
        // A decision goes out now, not when something comes in.
        if !self.said {
            tokio::select! {
                event = connection.events.recv() => events.extend(event),
                () = tokio::time::sleep(LOOK_EVERY) => {}
            }
        }
        while events.len() < BATCH {
            match connection.events.try_recv() {
                Ok(event) => events.push(event),
                Err(_) => break,
            }
        }
        Woken(events)
    }

    /// Takes in what came: durably, then acknowledged, then told. Must not be dropped midway; losing the process is fine.
    pub async fn take(&mut self, woken: Woken) -> Result<Vec<Notice>, PartyError> {
        let mut notices = Vec::new();
        self.said = false;
        if self.connection.is_none() {
            notices.extend(self.look().await?);
            // The process that was connected may be gone: then this one takes over.
            self.connect()?;
            return Ok(notices);
        }
        match self.attempt(&woken.0).await {
            Ok(batch) => notices.extend(self.finish(batch).await),
            Err(error) => {
                // The group in memory may be ahead of the disk; both are read anew. The relay delivers again what wasn't acknowledged.
                self.party.reload().await?;
                return Err(error);
            }
        }
        Ok(notices)
    }

    /// Looks into the database for what the connected process of this home took in.
    async fn look(&mut self) -> Result<Vec<Notice>, PartyError> {
        let mut notices = Vec::new();
        let mut tx = self.party.store.begin().await?;
        for signed in tx.entries(self.party.replay.size(), 512).await? {
            notices.push(Notice::Entry(Box::new(self.party.replay.next(signed.as_bytes())?)));
        }
        tx.commit().await?;
        Ok(notices)
    }

    /// Whether this device's person stands in the roster in force.
    pub fn enrolled(&self) -> bool {
        self.party
            .replay
            .roster()
            .is_some_and(|roster| roster.person_of(&self.party.identity.party()).is_some())
    }

    /// Whether this device's person is an admin in the roster in force.
    pub fn is_admin(&self) -> bool {
        self.party
            .replay
            .roster()
            .is_some_and(|roster| roster.admin_of(&self.party.identity.party()).is_some())
    }

    /// Whether the group has let this device in.
    pub async fn in_group(&mut self) -> Result<bool, PartyError> {
        let turn = self.party.turn().await?;
        let inside = turn.group.is_some();
        turn.tx.commit().await?;
        Ok(inside)
    }

    /// The person whose device this is, in the roster in force.
    pub fn person(&self) -> Option<&Name> {
        let roster = self.party.replay.roster()?;
        roster
            .person_of(&self.party.identity.party())
            .map(|(person, _)| &person.name)
    }

    /// Whether this person, with whichever device, has answered a request.
    pub fn has_answered(&self, open: &Pending) -> bool {
        let (Some(roster), Some(own)) = (self.party.replay.roster(), self.person()) else {
            return false;
        };
        open.decisions().iter().any(|decision| {
            roster
                .person_of(&decision.signer())
                .is_some_and(|(person, _)| person.name == *own)
        })
    }

    /// The requests that wait for a decision, oldest first.
    pub fn open_requests(&self) -> impl Iterator<Item = &Pending> {
        self.party.replay.open().filter(|open| open.permit().is_none())
    }

    /// Ends the connection in good order.
    pub async fn close(mut self) {
        if let Some(connection) = self.connection.take() {
            connection.link.finish().await;
        }
        self.party.store.close().await;
    }
}
