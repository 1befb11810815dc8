//! What a gate and a member have in common: keys, database, the transcript as replayed, and sealing what they say.
//! What they say, and when, is in `gate` and `member`.

use rand_core::{OsRng, RngCore};
use zeroize::Zeroizing;

use approval::Verified;
use approval::checkpoint::Checkpoint;
use approval::device::Device;
use approval::message::Message;
use approval::replay::{Replay, Snapshot};
use approval::roster::Roster;
use approval::transcript::leaf_hash;
use wire::envelope::{CannotOpen, Content, Envelope, EnvelopeSecret, SealError};
use wire::identity::{Identity, PartyId};
use wire::mailbox::MailboxKey;

use crate::channel::{ChannelError, Group, Leaf, LeafKey, Membership, Mls};
use crate::home::{Home, HomeError};
use crate::pace::Pace;
use crate::store::{NewPost, Outgoing, Peer, Store, StoreError, Tx};

/// File with the identity's secret key, in a party's home.
const IDENTITY_FILE: &str = "identity.key";

/// Under which name the state of the replay is kept.
const SNAPSHOT: &str = "replay";

/// How many entries are replayed at a time.
const REPLAY_CHUNK: u64 = 512;

/// Capability quota that a party gives each peer: PROTOCOL.md section 14's most.
pub const PEER_ENVELOPES: u32 = wire::limits::CAPABILITY_ENVELOPES_MAX;
/// The same in bytes.
pub const PEER_BYTES: u64 = wire::limits::CAPABILITY_BYTES_MAX;

/// How long the relay keeps what we send, in seconds: the protocol's most, a reader may be on holiday.
pub const TTL_SECONDS: u32 = wire::limits::TTL_SECONDS_MAX;

/// Which kind of party a home holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// The gate beside the agent.
    Gate,
    /// A person's device: admin or auditor.
    Member,
}

/// Why a party can't go on.
#[derive(Debug, thiserror::Error)]
pub enum PartyError {
    /// The folder.
    #[error(transparent)]
    Home(#[from] HomeError),
    /// The database.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The group.
    #[error("group: {0}")]
    Channel(#[from] ChannelError),
    /// An envelope can't be made.
    #[error("envelope: {0}")]
    Envelope(#[from] SealError),
    /// A statement can't be made.
    #[error("statement: {0}")]
    Statement(#[from] approval::statement::StatementError),
    /// The stored transcript doesn't hold.
    #[error("the stored transcript is wrong: {0}")]
    Transcript(#[from] approval::replay::Finding),
    /// A setting is missing or unreadable.
    #[error("the state here lacks {0}")]
    Lacks(&'static str),
    /// The home belongs to the other kind of party.
    #[error("this home belongs to {0}")]
    WrongKind(&'static str),
    /// A text or time is out of its bounds.
    #[error("{0}")]
    Text(approval::scalar::ScalarError),
    /// A pairing message can't be made.
    #[error("pairing: {0}")]
    Pairing(approval::pairing::PairingError),
    /// A roster can't follow the one in force.
    #[error("roster: {0}")]
    Roster(approval::roster::RosterError),
    /// A message is too long for the channel.
    #[error("message: {0}")]
    Message(#[from] approval::message::MessageError),
}

/// One party, loaded.
pub struct Party {
    /// Its folder.
    pub home: Home,
    /// Its database.
    pub store: Store,
    /// Gate or member.
    pub kind: Kind,
    /// Signs statements.
    pub identity: Identity,
    /// Signs group messages.
    pub leaf: LeafKey,
    /// Logs in to the relay.
    pub mailbox: MailboxKey,
    /// Opens envelopes; the newest first.
    pub envelopes: Vec<EnvelopeSecret>,
    /// The gate that it is or belongs to.
    pub gate: PartyId,
    /// The relay's url.
    pub relay: String,
    /// The transcript so far.
    pub replay: Replay,
    /// When it says again what wasn't answered.
    pub pace: Pace,
}

/// What a new party starts with.
pub struct Birth {
    /// Gate or member.
    pub kind: Kind,
    /// The gate's identity; `None` for a gate, which is its own.
    pub gate: Option<PartyId>,
    /// The relay's url.
    pub relay: String,
}

/// A fresh put or request id.
pub fn random16() -> [u8; 16] {
    let mut id = [0; 16];
    OsRng.fill_bytes(&mut id);
    id
}

fn key(bytes: Option<Vec<u8>>, what: &'static str) -> Result<Zeroizing<[u8; 32]>, PartyError> {
    let bytes = Zeroizing::new(bytes.ok_or(PartyError::Lacks(what))?);
    Ok(Zeroizing::new(
        bytes.as_slice().try_into().map_err(|_| PartyError::Lacks(what))?,
    ))
}

impl Party {
    /// Makes a party's keys and database. `fill` adds what its kind needs in the same transaction; the database
    /// appears under its name only when everything in it is complete.
    pub async fn create<F>(home: Home, birth: Birth, fill: F) -> Result<Self, PartyError>
    where
        F: AsyncFnOnce(&Identity, &LeafKey, &mut Tx) -> Result<(), PartyError>,
    {
        let path = home.database();
        // `Home::create` leaves an empty file, so that the journal gets its mode.
        if std::fs::metadata(&path).is_ok_and(|file| file.len() > 0) {
            return Err(StoreError::Exists { path }.into());
        }
        let identity = match home.read_secret(IDENTITY_FILE) {
            // An earlier try got this far and no further.
            Ok(text) => parse_identity(&text)?,
            Err(_) => {
                let identity = Identity::generate(&mut OsRng);
                home.write_secret(IDENTITY_FILE, identity.to_text().as_bytes())?;
                identity
            }
        };
        let unfinished = path.with_extension("new");
        for leftover in ["new", "new-wal", "new-shm"] {
            let _ = std::fs::remove_file(path.with_extension(leftover));
        }
        let store = Store::create(&unfinished).await?;
        let mut tx = store.begin().await?;
        let leaf = LeafKey::generate();
        tx.set_meta("kind", if birth.kind == Kind::Gate { b"gate" } else { b"member" })
            .await?;
        tx.set_meta("gate", birth.gate.unwrap_or(identity.party()).as_bytes())
            .await?;
        tx.set_meta("relay", birth.relay.as_bytes()).await?;
        tx.set_meta("leaf_key", &leaf.to_bytes()[..]).await?;
        tx.set_meta("mailbox_key", &MailboxKey::generate(&mut OsRng).to_bytes()[..])
            .await?;
        tx.set_meta("envelope_key", &EnvelopeSecret::generate(&mut OsRng).to_bytes()[..])
            .await?;
        tx.set_meta("envelope_since", crate::clock::wall().to_string().as_bytes())
            .await?;
        fill(&identity, &leaf, &mut tx).await?;
        tx.commit().await?;
        store.close().await;
        std::fs::rename(&unfinished, &path).map_err(|error| StoreError::Sql(sqlx::Error::Io(error)))?;
        home.sync()?;
        Self::open(home, birth.kind).await
    }

    /// Loads a party and replays its transcript.
    pub async fn open(home: Home, kind: Kind) -> Result<Self, PartyError> {
        let party = Self::open_any(home).await?;
        match (party.kind, kind) {
            (Kind::Gate, Kind::Member) => Err(PartyError::WrongKind("a gate, and an admin's is needed")),
            (Kind::Member, Kind::Gate) => Err(PartyError::WrongKind("an admin or auditor, and a gate's is needed")),
            _ => Ok(party),
        }
    }

    /// Loads whichever party lives in a home.
    pub async fn open_any(home: Home) -> Result<Self, PartyError> {
        let store = Store::open(&home.database()).await?;
        let identity = match home
            .read_secret(IDENTITY_FILE)
            .map_err(PartyError::from)
            .and_then(|text| parse_identity(&text))
        {
            Ok(identity) => identity,
            Err(error) => {
                // In good order, so that a home that is refused is left as it was found.
                store.close().await;
                return Err(error);
            }
        };
        let mut tx = store.begin().await?;
        let kind = match tx.meta_text("kind").await?.as_deref() {
            Some("gate") => Kind::Gate,
            Some("member") => Kind::Member,
            _ => return Err(PartyError::Lacks("its kind")),
        };
        let gate = PartyId::from_bytes(*key(tx.meta("gate").await?, "the gate's identity")?)
            .map_err(|_| PartyError::Lacks("the gate's identity"))?;
        let relay = tx
            .meta_text("relay")
            .await?
            .ok_or(PartyError::Lacks("the relay's url"))?;
        let leaf = LeafKey::from_bytes(&*key(tx.meta("leaf_key").await?, "the leaf key")?);
        let mailbox = MailboxKey::from_bytes(&*key(tx.meta("mailbox_key").await?, "the mailbox key")?);
        let envelopes = envelopes(&mut tx).await?;
        let replay = replay(&mut tx, gate).await?;
        tx.commit().await?;
        Ok(Self {
            home,
            store,
            kind,
            identity,
            leaf,
            mailbox,
            envelopes,
            gate,
            relay,
            replay,
            pace: Pace::default(),
        })
    }

    /// Forgets what memory holds of the transcript and replays the database: after a transaction that failed.
    pub async fn reload(&mut self) -> Result<(), PartyError> {
        let mut tx = self.store.begin().await?;
        self.replay = replay(&mut tx, self.gate).await?;
        self.envelopes = envelopes(&mut tx).await?;
        Ok(tx.commit().await?)
    }

    /// Opens a transaction with the group as it stands.
    pub async fn turn(&self) -> Result<Turn, PartyError> {
        let mut tx = self.store.begin().await?;
        let mls = tx.mls().await?;
        let group = Group::load(&mls)?;
        Ok(Turn { tx, mls, group })
    }

    /// Seals a message to a peer and puts it in the outbox.
    pub async fn post(
        &self,
        tx: &mut Tx,
        peer: &Peer,
        content: Content,
        message: &[u8],
        kind: Outgoing,
        covers: u64,
    ) -> Result<(), PartyError> {
        let envelope = wire::envelope::seal(&peer.envelope_key, &peer.mailbox, content, message, &mut OsRng)?;
        tx.post(
            random16(),
            &NewPost {
                peer,
                envelope: &envelope,
                kind,
                covers,
                about: &[],
                question: &[],
            },
        )
        .await?;
        Ok(())
    }

    /// Replaces the envelope key when it is old enough. The one before is kept until everybody was seen using the new one (PROTOCOL.md section 6), and
    /// long enough for a device that was paired with it and still waits for the admins.
    pub async fn rotate(&mut self, tx: &mut Tx) -> Result<(), PartyError> {
        let since = tx
            .meta_text("envelope_since")
            .await?
            .and_then(|text| text.parse::<u64>().ok())
            .unwrap_or(0);
        let now = crate::clock::wall();
        let age = now.saturating_sub(since);
        if self.envelopes.len() > 1 {
            if age >= self.pace.keep && tx.stragglers().await?.is_empty() {
                tx.remove_meta("envelope_key_before").await?;
                self.envelopes.truncate(1);
            }
            return Ok(());
        }
        if age < self.pace.rotate {
            return Ok(());
        }
        let fresh = EnvelopeSecret::generate(&mut OsRng);
        if let Some(before) = self.envelopes.first() {
            tx.set_meta("envelope_key_before", &before.to_bytes()[..]).await?;
        }
        tx.set_meta("envelope_key", &fresh.to_bytes()[..]).await?;
        tx.set_meta("envelope_since", now.to_string().as_bytes()).await?;
        tx.nobody_follows().await?;
        self.envelopes.insert(0, fresh);
        Ok(())
    }

    /// Tells the peers that haven't been seen using it what our newest envelope key is. Said again on every connection, so that nothing hangs on one message.
    pub async fn tell_address(&self, turn: &mut Turn) -> Result<(), PartyError> {
        let stragglers = turn.tx.stragglers().await?;
        let Some(newest) = self.envelopes.first() else {
            return Ok(());
        };
        if stragglers.is_empty() || turn.group.is_none() {
            return Ok(());
        }
        let sealed = turn.encrypt(
            &self.leaf,
            &Message::Address {
                envelope_key: newest.key(),
            },
        )?;
        for peer in stragglers {
            self.post(&mut turn.tx, &peer, Content::Mls, &sealed, Outgoing::Fleeting, 0)
                .await?;
        }
        Ok(())
    }

    /// Notes that a peer seals to the newest envelope key.
    pub async fn followed(&self, tx: &mut Tx, peer: &PartyId) -> Result<(), PartyError> {
        if self.envelopes.len() > 1 {
            tx.follows(peer).await?;
        }
        Ok(())
    }

    /// Opens an envelope that came to this party's own mailbox. The last value says whether it was sealed to the newest key.
    pub fn unseal(&self, envelope: &Envelope) -> Result<(Content, Zeroizing<Vec<u8>>, bool), CannotOpen> {
        let mailbox = self.mailbox.id();
        let opened = self.envelopes.iter().enumerate().find_map(|(age, secret)| {
            let (content, message) = wire::envelope::open(secret, &mailbox, envelope).ok()?;
            Some((content, message, age == 0))
        });
        opened.ok_or(CannotOpen)
    }
}

/// One transaction over database and group.
pub struct Turn {
    /// The database's.
    pub tx: Tx,
    /// The group's storage.
    pub mls: Mls,
    /// The group, if there is one yet.
    pub group: Option<Group>,
}

impl Turn {
    /// Encrypts a message to the group.
    pub fn encrypt(&mut self, leaf: &LeafKey, message: &Message) -> Result<Vec<u8>, PartyError> {
        let group = self
            .group
            .as_mut()
            .ok_or(PartyError::Lacks("a group: this device isn't in it yet"))?;
        Ok(group.encrypt(&mut self.mls, leaf, &message.encode()?)?)
    }

    /// Writes the group's changes and commits everything.
    pub async fn commit(mut self) -> Result<(), PartyError> {
        self.tx.save_mls(&mut self.mls).await?;
        Ok(self.tx.commit().await?)
    }
}

/// Who may be in the group according to a roster.
pub fn membership(roster: &Verified<Roster>) -> Membership {
    let leaf = |device: &Device| Leaf {
        party: device.party,
        leaf: device.leaf.0,
    };
    Membership {
        gate: leaf(roster.gate()),
        members: roster
            .people
            .iter()
            .flat_map(|person| &person.devices)
            .map(|device| leaf(device))
            .collect(),
        roster: *roster.digest().as_bytes(),
    }
}

fn parse_identity(text: &[u8]) -> Result<Identity, PartyError> {
    let text = std::str::from_utf8(text).map_err(|_| PartyError::Lacks("a readable identity key"))?;
    Identity::from_text(text.trim()).map_err(|_| PartyError::Lacks("a readable identity key"))
}

async fn envelopes(tx: &mut Tx) -> Result<Vec<EnvelopeSecret>, PartyError> {
    let mut envelopes = vec![EnvelopeSecret::from_bytes(&*key(
        tx.meta("envelope_key").await?,
        "the envelope key",
    )?)];
    if let Some(previous) = tx.meta("envelope_key_before").await? {
        envelopes.push(EnvelopeSecret::from_bytes(&*key(
            Some(previous),
            "the envelope key before",
        )?));
    }
    Ok(envelopes)
}

async fn replay(tx: &mut Tx, gate: PartyId) -> Result<Replay, PartyError> {
    let mut replay = resumed(tx, &gate).await?.unwrap_or_else(|| Replay::new(Some(gate)));
    let known = replay.size();
    loop {
        let chunk = tx.entries(replay.size(), REPLAY_CHUNK).await?;
        if chunk.is_empty() {
            break;
        }
        for signed in chunk {
            replay.next(signed.as_bytes())?;
        }
    }
    if replay.size() > known {
        keep_snapshot(tx, &replay).await?;
    }
    Ok(replay)
}

/// Keeps the state of the replay, in the transaction of the entries that led to it: the next start needn't read them all.
pub async fn keep_snapshot(tx: &mut Tx, replay: &Replay) -> Result<(), StoreError> {
    match replay.snapshot() {
        Some(snapshot) => tx.set_meta(SNAPSHOT, &snapshot.encode()).await,
        None => Ok(()),
    }
}

/// The state that was kept, if it fits the entries and the gate's checkpoint of its size. Everything in it is verified again; without it all is replayed.
async fn resumed(tx: &mut Tx, gate: &PartyId) -> Result<Option<Replay>, PartyError> {
    let Some(snapshot) = tx.meta(SNAPSHOT).await?.as_deref().and_then(Snapshot::decode) else {
        return Ok(None);
    };
    let Some(note) = tx.checkpoint_at(snapshot.size()).await? else {
        return Ok(None);
    };
    let Ok(checkpoint) = Checkpoint::verify(&note, gate) else {
        return Ok(None);
    };
    if tx.size().await? < snapshot.size() {
        return Ok(None);
    }
    let mut statements = Vec::new();
    for digest in snapshot.statements() {
        let Some(statement) = tx.statement(&digest).await? else {
            return Ok(None);
        };
        statements.push(statement);
    }
    let mut tail = Vec::new();
    let mut at = snapshot.tail();
    while at < snapshot.size() {
        let chunk = tx.entries(at, REPLAY_CHUNK.min(snapshot.size() - at)).await?;
        if chunk.is_empty() {
            return Ok(None);
        }
        at = at.saturating_add(chunk.len() as u64);
        tail.extend(chunk.iter().map(|signed| leaf_hash(signed.as_bytes())));
    }
    let resumed = snapshot.resume(&checkpoint, &tail, &statements);
    if resumed.is_none() {
        tracing::warn!("the state kept beside the transcript doesn't fit it; reading all of it");
    }
    Ok(resumed)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::gate::{Init, init};

    async fn opened(folder: &std::path::Path) -> Party {
        Party::open(Home::open(Some(folder.to_owned())).unwrap(), Kind::Gate)
            .await
            .unwrap()
    }

    async fn kept(party: &Party) -> Option<Vec<u8>> {
        let mut tx = party.store.begin().await.unwrap();
        let kept = tx.meta(SNAPSHOT).await.unwrap();
        tx.commit().await.unwrap();
        kept
    }

    #[tokio::test]
    async fn a_kept_state_is_resumed_and_a_bad_one_read_over() {
        let folder = tempfile::tempdir().unwrap();
        let home = folder.path().join("gate");
        let wish = Init {
            relay: "ws://127.0.0.1:1".to_owned(),
            name: "gate".to_owned(),
            policy: None,
            unenrolled: approval::roster::Unenrolled::Refuse,
        };
        let party = init(Home::create(Some(home.clone())).unwrap(), wish).await.unwrap();
        let (replay, good) = (party.replay.clone(), kept(&party).await.unwrap());
        assert_eq!(replay.size(), 1);
        let mut tx = party.store.begin().await.unwrap();
        assert_eq!(resumed(&mut tx, &party.gate).await.unwrap(), Some(replay.clone()));
        tx.commit().await.unwrap();
        party.store.close().await;

        let mut flipped = good.clone();
        flipped.iter_mut().for_each(|byte| *byte ^= 1);
        for bad in [flipped, Vec::new(), good.split_at(good.len() / 2).0.to_vec()] {
            let party = opened(&home).await;
            let mut tx = party.store.begin().await.unwrap();
            tx.set_meta(SNAPSHOT, &bad).await.unwrap();
            assert_eq!(resumed(&mut tx, &party.gate).await.unwrap(), None);
            tx.commit().await.unwrap();
            party.store.close().await;
            // Read over, and kept anew.
            let party = opened(&home).await;
            assert_eq!((&party.replay, kept(&party).await.as_ref()), (&replay, Some(&good)));
            party.store.close().await;
        }
    }

    #[tokio::test]
    async fn a_state_kept_for_more_entries_than_there_are_is_not_believed() {
        let folder = tempfile::tempdir().unwrap();
        let wish = |name: &str| Init {
            relay: "ws://127.0.0.1:1".to_owned(),
            name: name.to_owned(),
            policy: None,
            unenrolled: approval::roster::Unenrolled::Refuse,
        };
        let party = init(Home::create(Some(folder.path().join("gate"))).unwrap(), wish("gate"))
            .await
            .unwrap();
        let other = init(Home::create(Some(folder.path().join("other"))).unwrap(), wish("other"))
            .await
            .unwrap();
        let mut tx = party.store.begin().await.unwrap();
        // Of another gate: its checkpoint of the same size isn't this one's.
        tx.set_meta(SNAPSHOT, &kept(&other).await.unwrap()).await.unwrap();
        assert_eq!(resumed(&mut tx, &party.gate).await.unwrap(), None);
        // Of entries that are gone, although their checkpoint is still there.
        let mut longer = party.replay.clone();
        let roster = party.replay.roster().unwrap();
        let next = roster.contents().after(roster, None, roster.created).unwrap();
        longer
            .next(approval::sign(&party.identity, next).unwrap().signed().as_bytes())
            .unwrap();
        tx.add_checkpoint(&Checkpoint::sign(&party.identity, longer.size(), longer.root()))
            .await
            .unwrap();
        keep_snapshot(&mut tx, &longer).await.unwrap();
        assert_eq!(resumed(&mut tx, &party.gate).await.unwrap(), None);
        assert_eq!(replay(&mut tx, party.gate).await.unwrap(), party.replay);
    }
}
