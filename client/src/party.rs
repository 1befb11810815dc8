//! What a gate and a member have in common: keys, database, the transcript as replayed, and sealing what they say.
//! What they say, and when, is in `gate` and `member`.

mod envelopes;
mod snapshot;

use rand_core::{OsRng, RngCore};
use zeroize::Zeroizing;

use approval::Verified;
use approval::device::Device;
use approval::message::Message;
use approval::replay::Replay;
use approval::roster::Roster;
use wire::envelope::{Content, EnvelopeSecret, SealError};
use wire::identity::{Identity, PartyId};
use wire::mailbox::MailboxKey;

use crate::channel::{ChannelError, Group, Leaf, LeafKey, Membership, Mls};
use crate::home::{Home, HomeError};
use crate::pace::Pace;
use crate::store::{NewPost, Outgoing, Peer, Store, StoreError, Tx};
use envelopes::envelopes;
use snapshot::replay;

pub use snapshot::keep_snapshot;

/// File with the identity's secret key, in a party's home.
const IDENTITY_FILE: &str = "identity.key";

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
