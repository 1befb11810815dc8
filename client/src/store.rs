//! The database of one party: group state, transcript, outbox and pairing change together in one transaction or not at all.
//! What the rows mean is decided elsewhere (`gate`, `member`).

use std::io::Read as _;
use std::path::{Path, PathBuf};

use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{Row, Sqlite, SqlitePool, Transaction};

use approval::checkpoint::Checkpoint;
use approval::{Digest, Signed};
use wire::envelope::{Envelope, EnvelopeKey};
use wire::identity::PartyId;
use wire::mailbox::{Capability, CapabilityHash, MailboxId};

use crate::channel::Mls;
use crate::pace::Pace;

/// Marks a SQLite file as ours ("CSgn"), so that a foreign database is refused and never written to.
const APPLICATION_ID: i64 = 0x4353_676e;

/// Length of a SQLite file's header, in bytes.
const HEADER_BYTES: u64 = 100;

/// Group messages kept back for a gap (PROTOCOL.md section 14).
const MAX_HELD: i64 = 64;

/// How long a ticket is known, and what became of a request, in ms: longer than a request can live, and its asker can be away.
const TICKET_LIFE: u64 = 7 * 24 * 60 * 60 * 1000;

static MIGRATIONS: sqlx::migrate::Migrator = sqlx::migrate!("./migrations");

/// Why the database of a party can't be used.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// There is nothing here.
    #[error("{} has no state: nothing was set up here", path.display())]
    Missing {
        /// The database file that was looked for.
        path: PathBuf,
    },
    /// Something is here already.
    #[error("{} already holds a party's state", path.display())]
    Exists {
        /// The database file.
        path: PathBuf,
    },
    /// Another program's database, or not a database.
    #[error("{} is not a countersign database", path.display())]
    Foreign {
        /// The database file.
        path: PathBuf,
    },
    /// SQLite says that the file is damaged.
    #[error("{} is damaged: {report}", path.display())]
    Damaged {
        /// The database file.
        path: PathBuf,
        /// SQLite's own words.
        report: String,
    },
    /// A row doesn't hold what it must.
    #[error("the database holds {what} that can't be read")]
    Row {
        /// What the row should have been.
        what: &'static str,
    },
    /// SQLite refused.
    #[error("database: {0}")]
    Sql(#[from] sqlx::Error),
    /// The schema can't be brought up to date.
    #[error("database schema: {0}")]
    Schema(#[from] sqlx::migrate::MigrateError),
}

impl StoreError {
    /// Whether the disk failed in a way after which nothing that this process believes to be written can be trusted: an I/O error, a flush among them,
    /// which the kernel may report once and forget.
    pub fn is_fatal(&self) -> bool {
        const IO_ERROR: u32 = 10;
        const CORRUPT: u32 = 11;
        let Self::Sql(sqlx::Error::Database(error)) = self else {
            return false;
        };
        let code = error.code().and_then(|code| code.parse::<u32>().ok());
        // The low byte of SQLite's extended code is the primary one.
        code.is_some_and(|code| matches!(code & 0xff, IO_ERROR | CORRUPT))
    }
}

/// An open database.
#[derive(Clone)]
pub struct Store {
    pool: SqlitePool,
}

/// One transaction, holding the write lock from its start.
pub struct Tx {
    inner: Transaction<'static, Sqlite>,
}

/// Somebody whom this party can write to.
#[derive(Clone)]
pub struct Peer {
    /// Their identity.
    pub party: PartyId,
    /// Where their envelopes go.
    pub mailbox: MailboxId,
    /// What their envelopes are sealed to.
    pub envelope_key: EnvelopeKey,
    /// Lets us write to their mailbox.
    pub capability: Capability,
    /// Hash of the capability that lets them write to ours.
    pub issued: CapabilityHash,
    /// The transcript size that they last acknowledged, in entries.
    pub acked_size: u64,
    /// The MLS epoch that they last acknowledged.
    pub acked_epoch: u64,
    /// When they were last heard of, wall time in ms; 0 for never.
    pub heard: u64,
}

/// What an outgoing envelope holds, which is what decides when it is done with.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Outgoing {
    /// Transcript entries: done when the peer acknowledged the size. Can be rebuilt.
    Entries,
    /// A commit or a welcome: done when the peer acknowledged the epoch.
    Epoch,
    /// A decision or a proposal: done when the transcript or a refusal answers it.
    Question,
    /// Done when the relay stored it: what replaces it comes by itself.
    Fleeting,
}

impl Outgoing {
    fn code(self) -> i64 {
        match self {
            Self::Entries => 1,
            Self::Epoch => 2,
            Self::Question => 3,
            Self::Fleeting => 4,
        }
    }

    fn from_code(code: i64) -> Result<Self, StoreError> {
        Ok(match code {
            1 => Self::Entries,
            2 => Self::Epoch,
            3 => Self::Question,
            4 => Self::Fleeting,
            _ => {
                return Err(StoreError::Row {
                    what: "an outgoing kind",
                });
            }
        })
    }
}

/// An envelope to be put.
pub struct Post {
    /// Row.
    pub id: i64,
    /// Put id for the relay.
    pub put: [u8; 16],
    /// Mailbox it goes to.
    pub mailbox: MailboxId,
    /// Capability for that mailbox.
    pub capability: Capability,
    /// The sealed bytes.
    pub envelope: Envelope,
    /// What it holds.
    pub kind: Outgoing,
    /// Whether the relay said `stored` for this put id.
    pub stored: bool,
    /// How often it was put already.
    pub tries: u32,
}

/// An envelope to be added to the outbox.
pub struct NewPost<'a> {
    /// To whom.
    pub peer: &'a Peer,
    /// The sealed bytes.
    pub envelope: &'a Envelope,
    /// What it holds.
    pub kind: Outgoing,
    /// Transcript size or epoch that acknowledges it.
    pub covers: u64,
    /// Digest (or id) of what it asks, for a question.
    pub about: &'a [u8],
    /// The question as it was before encryption, else empty.
    pub question: &'a [u8],
}

/// What is kept about a request beside the transcript.
pub struct AskedRow {
    /// The request.
    pub request: Digest,
    /// Whether nobody waits for it: it is redeemed later.
    pub asynchronous: bool,
    /// The digits that only whoever asked is told.
    pub number: Option<String>,
}

/// An invite or an answer to one, in the middle of its messages.
pub struct PairingRow {
    /// The invite's mailbox.
    pub mailbox: MailboxId,
    /// When it dies, wall time in ms.
    pub expires: u64,
    /// Its state, as the pairing code serialised it.
    pub state: String,
}

/// Evidence against a peer.
pub struct Evidence {
    /// When it was seen, wall time in ms.
    pub time: u64,
    /// What it shows.
    pub what: String,
}

/// Judges the file before SQLite opens it, because opening a foreign or broken database could already change it.
fn check_header(path: &Path) -> Result<(), StoreError> {
    let io = |error| StoreError::Sql(sqlx::Error::Io(error));
    let file = std::fs::File::open(path).map_err(io)?;
    let mut header = Vec::new();
    (&file).take(HEADER_BYTES).read_to_end(&mut header).map_err(io)?;
    let number = |at: usize| {
        header
            .get(at..at + 4)
            .and_then(|bytes| bytes.try_into().ok())
            .map_or(0, u32::from_be_bytes)
    };
    let page = header
        .get(16..18)
        .and_then(|bytes| bytes.try_into().ok())
        .map_or(0, u16::from_be_bytes);
    if !header.starts_with(b"SQLite format 3\0") || i64::from(number(68)) != APPLICATION_ID {
        return Err(StoreError::Foreign { path: path.to_owned() });
    }
    // Pages that are missing here may stand in the log of a process that died; without a log they are lost.
    let wanted = u64::from(number(28)) * if page == 1 { 65_536 } else { u64::from(page) };
    let length = file.metadata().map_err(io)?.len();
    let mut log = path.as_os_str().to_owned();
    log.push("-wal");
    if length < wanted && !std::fs::metadata(&log).is_ok_and(|log| log.len() > 0) {
        return Err(StoreError::Damaged {
            path: path.to_owned(),
            report: format!("{length} bytes long, of {wanted}"),
        });
    }
    Ok(())
}

fn to_i64(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

fn to_u64(value: i64) -> u64 {
    u64::try_from(value).unwrap_or(0)
}

fn fixed<const N: usize>(bytes: &[u8], what: &'static str) -> Result<[u8; N], StoreError> {
    bytes.try_into().map_err(|_| StoreError::Row { what })
}

impl Store {
    /// Creates the database of a new party. Refuses to touch one that exists.
    pub async fn create(path: &Path) -> Result<Self, StoreError> {
        if path.exists() {
            return Err(StoreError::Exists { path: path.to_owned() });
        }
        // Made by us with the right mode before SQLite opens it.
        let made =
            std::os::unix::fs::OpenOptionsExt::mode(std::fs::OpenOptions::new().write(true).create_new(true), 0o600)
                .open(path);
        made.map_err(sqlx::Error::Io)?;
        let store = Self::connect(path).await?;
        sqlx::query(sqlx::AssertSqlSafe(format!("PRAGMA application_id = {APPLICATION_ID}")))
            .execute(&store.pool)
            .await?;
        MIGRATIONS.run(&store.pool).await?;
        Ok(store)
    }

    /// Opens the database of an existing party. A missing, foreign or damaged file is refused and never recreated:
    /// an empty one would forget what was already used.
    pub async fn open(path: &Path) -> Result<Self, StoreError> {
        if !std::fs::metadata(path).is_ok_and(|file| file.len() > 0) {
            return Err(StoreError::Missing { path: path.to_owned() });
        }
        check_header(path)?;
        let store = Self::connect(path).await.map_err(|error| StoreError::Damaged {
            path: path.to_owned(),
            report: error.to_string(),
        })?;
        let report: String = match sqlx::query("PRAGMA quick_check(1)").fetch_one(&store.pool).await {
            Ok(row) => row.get(0),
            Err(error) => error.to_string(),
        };
        if report != "ok" {
            // Closed in good order, so that SQLite takes its own files away and leaves what was found.
            store.close().await;
            return Err(StoreError::Damaged {
                path: path.to_owned(),
                report,
            });
        }
        MIGRATIONS.run(&store.pool).await?;
        Ok(store)
    }

    async fn connect(path: &Path) -> Result<Self, StoreError> {
        let options = SqliteConnectOptions::new()
            .filename(path)
            .journal_mode(SqliteJournalMode::Wal)
            // NORMAL could lose the last commits on a power cut, and a lost commit re-uses a message key.
            .synchronous(SqliteSynchronous::Full)
            .busy_timeout(std::time::Duration::from_secs(10))
            // Deleted message keys must not stay readable in free pages.
            .pragma("secure_delete", "ON")
            .foreign_keys(true);
        let pool = SqlitePoolOptions::new()
            .max_connections(1)
            .connect_with(options)
            .await?;
        Ok(Self { pool })
    }

    /// Begins a transaction that holds the write lock from the start.
    pub async fn begin(&self) -> Result<Tx, StoreError> {
        Ok(Tx {
            inner: self.pool.begin_with("BEGIN IMMEDIATE").await?,
        })
    }

    /// Closes the database, folding the log into the file.
    pub async fn close(&self) {
        self.pool.close().await;
    }
}

impl Tx {
    /// Makes everything done in this transaction durable. After an error the caller must assume nothing and start anew from the database.
    pub async fn commit(self) -> Result<(), StoreError> {
        Ok(self.inner.commit().await?)
    }

    /// A stored value.
    pub async fn meta(&mut self, key: &str) -> Result<Option<Vec<u8>>, StoreError> {
        let row = sqlx::query("SELECT value FROM meta WHERE key = ?")
            .bind(key)
            .fetch_optional(&mut *self.inner)
            .await?;
        Ok(row.map(|row| row.get(0)))
    }

    /// A stored text.
    pub async fn meta_text(&mut self, key: &str) -> Result<Option<String>, StoreError> {
        let bytes = self.meta(key).await?;
        bytes
            .map(|bytes| String::from_utf8(bytes).map_err(|_| StoreError::Row { what: "a setting" }))
            .transpose()
    }

    /// Stores a value.
    pub async fn set_meta(&mut self, key: &str, value: &[u8]) -> Result<(), StoreError> {
        sqlx::query(
            "INSERT INTO meta (key, value) VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value",
        )
        .bind(key)
        .bind(value)
        .execute(&mut *self.inner)
        .await?;
        Ok(())
    }

    /// The group state.
    pub async fn mls(&mut self) -> Result<Mls, StoreError> {
        let rows = sqlx::query("SELECT key, value FROM mls")
            .fetch_all(&mut *self.inner)
            .await?;
        Ok(Mls::new(rows.into_iter().map(|row| (row.get(0), row.get(1)))))
    }

    /// Writes what changed in the group state.
    pub async fn save_mls(&mut self, mls: &mut Mls) -> Result<(), StoreError> {
        for (key, value) in mls.take_changes() {
            match value {
                Some(value) => sqlx::query(
                    "INSERT INTO mls (key, value) VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value",
                )
                .bind(key)
                .bind(value)
                .execute(&mut *self.inner)
                .await?,
                None => {
                    sqlx::query("DELETE FROM mls WHERE key = ?")
                        .bind(key)
                        .execute(&mut *self.inner)
                        .await?
                }
            };
        }
        Ok(())
    }

    /// Forgets a value.
    pub async fn remove_meta(&mut self, key: &str) -> Result<(), StoreError> {
        sqlx::query("DELETE FROM meta WHERE key = ?")
            .bind(key)
            .execute(&mut *self.inner)
            .await?;
        Ok(())
    }

    /// Appends a statement to the transcript.
    pub async fn add_entry(
        &mut self,
        position: u64,
        digest: &Digest,
        kind: &str,
        leaf: &[u8],
    ) -> Result<(), StoreError> {
        sqlx::query("INSERT INTO entry (position, digest, kind, leaf) VALUES (?, ?, ?, ?)")
            .bind(to_i64(position))
            .bind(&digest.as_bytes()[..])
            .bind(kind)
            .bind(leaf)
            .execute(&mut *self.inner)
            .await?;
        Ok(())
    }

    /// Entries from a position on, at most `limit`, in order.
    pub async fn entries(&mut self, from: u64, limit: u64) -> Result<Vec<Signed>, StoreError> {
        let rows = sqlx::query("SELECT leaf FROM entry WHERE position >= ? ORDER BY position LIMIT ?")
            .bind(to_i64(from))
            .bind(to_i64(limit))
            .fetch_all(&mut *self.inner)
            .await?;
        let parse = |row: sqlx::sqlite::SqliteRow| {
            Signed::parse(row.get(0)).map_err(|_| StoreError::Row {
                what: "a transcript entry",
            })
        };
        rows.into_iter().map(parse).collect()
    }

    /// The statement with this digest, if the transcript holds it.
    pub async fn statement(&mut self, digest: &Digest) -> Result<Option<Signed>, StoreError> {
        let row = sqlx::query("SELECT leaf FROM entry WHERE digest = ?")
            .bind(&digest.as_bytes()[..])
            .fetch_optional(&mut *self.inner)
            .await?;
        row.map(|row| {
            Signed::parse(row.get(0)).map_err(|_| StoreError::Row {
                what: "a transcript entry",
            })
        })
        .transpose()
    }

    /// Whether the transcript holds a statement with this digest, and where.
    pub async fn position_of(&mut self, digest: &Digest) -> Result<Option<u64>, StoreError> {
        let row = sqlx::query("SELECT position FROM entry WHERE digest = ?")
            .bind(&digest.as_bytes()[..])
            .fetch_optional(&mut *self.inner)
            .await?;
        Ok(row.map(|row| to_u64(row.get(0))))
    }

    /// Entries of one kind, newest first, at most `limit`.
    pub async fn newest(&mut self, kind: &str, limit: u32) -> Result<Vec<Signed>, StoreError> {
        let rows = sqlx::query("SELECT leaf FROM entry WHERE kind = ? ORDER BY position DESC LIMIT ?")
            .bind(kind)
            .bind(limit)
            .fetch_all(&mut *self.inner)
            .await?;
        let parse = |row: sqlx::sqlite::SqliteRow| {
            Signed::parse(row.get(0)).map_err(|_| StoreError::Row {
                what: "a transcript entry",
            })
        };
        rows.into_iter().map(parse).collect()
    }

    /// Number of entries.
    pub async fn size(&mut self) -> Result<u64, StoreError> {
        let row = sqlx::query("SELECT COALESCE(MAX(position) + 1, 0) FROM entry")
            .fetch_one(&mut *self.inner)
            .await?;
        Ok(to_u64(row.get(0)))
    }

    /// Keeps a checkpoint that was signed (gate) or verified (member).
    pub async fn add_checkpoint(&mut self, checkpoint: &Checkpoint) -> Result<(), StoreError> {
        sqlx::query("INSERT INTO checkpoint (size, root, note) VALUES (?, ?, ?) ON CONFLICT (size) DO NOTHING")
            .bind(to_i64(checkpoint.size()))
            .bind(&checkpoint.root()[..])
            .bind(checkpoint.as_str())
            .execute(&mut *self.inner)
            .await?;
        Ok(())
    }

    /// The newest checkpoint's text.
    pub async fn last_checkpoint(&mut self) -> Result<Option<String>, StoreError> {
        let row = sqlx::query("SELECT note FROM checkpoint ORDER BY size DESC LIMIT 1")
            .fetch_optional(&mut *self.inner)
            .await?;
        Ok(row.map(|row| row.get(0)))
    }

    /// Checkpoints beyond a size, smallest first.
    pub async fn checkpoints_after(&mut self, size: u64, limit: u32) -> Result<Vec<(u64, String)>, StoreError> {
        let rows = sqlx::query("SELECT size, note FROM checkpoint WHERE size > ? ORDER BY size LIMIT ?")
            .bind(to_i64(size))
            .bind(limit)
            .fetch_all(&mut *self.inner)
            .await?;
        Ok(rows.into_iter().map(|row| (to_u64(row.get(0)), row.get(1))).collect())
    }

    /// The checkpoint of a size, if there is one.
    pub async fn checkpoint_at(&mut self, size: u64) -> Result<Option<String>, StoreError> {
        let row = sqlx::query("SELECT note FROM checkpoint WHERE size = ?")
            .bind(to_i64(size))
            .fetch_optional(&mut *self.inner)
            .await?;
        Ok(row.map(|row| row.get(0)))
    }

    /// The root that was signed for a size, if that size ever was.
    pub async fn root_at(&mut self, size: u64) -> Result<Option<[u8; 32]>, StoreError> {
        let row = sqlx::query("SELECT root FROM checkpoint WHERE size = ?")
            .bind(to_i64(size))
            .fetch_optional(&mut *self.inner)
            .await?;
        row.map(|row| fixed(row.get(0), "a checkpoint")).transpose()
    }

    /// Everybody whom we can write to.
    pub async fn peers(&mut self) -> Result<Vec<Peer>, StoreError> {
        let rows = sqlx::query("SELECT party, mailbox, envelope_key, capability, issued, acked_size, acked_epoch, heard FROM peer ORDER BY party")
            .fetch_all(&mut *self.inner)
            .await?;
        rows.into_iter()
            .map(|row| {
                Ok(Peer {
                    party: PartyId::from_bytes(fixed(row.get(0), "a party")?)
                        .map_err(|_| StoreError::Row { what: "a party" })?,
                    mailbox: MailboxId::from_bytes(fixed(row.get(1), "a mailbox")?)
                        .map_err(|_| StoreError::Row { what: "a mailbox" })?,
                    envelope_key: EnvelopeKey::from_bytes(fixed(row.get(2), "an envelope key")?).map_err(|_| {
                        StoreError::Row {
                            what: "an envelope key",
                        }
                    })?,
                    capability: Capability::from_bytes(&fixed(row.get(3), "a capability")?),
                    issued: CapabilityHash::from_bytes(fixed(row.get(4), "a capability")?),
                    acked_size: to_u64(row.get(5)),
                    acked_epoch: to_u64(row.get(6)),
                    heard: to_u64(row.get(7)),
                })
            })
            .collect()
    }

    /// Notes that a peer seals to our newest envelope key.
    pub async fn follows(&mut self, party: &PartyId) -> Result<(), StoreError> {
        sqlx::query("UPDATE peer SET follows = 1 WHERE party = ?")
            .bind(&party.as_bytes()[..])
            .execute(&mut *self.inner)
            .await?;
        Ok(())
    }

    /// Notes that a peer may know an older envelope key than our newest.
    pub async fn straggles(&mut self, party: &PartyId) -> Result<(), StoreError> {
        sqlx::query("UPDATE peer SET follows = 0 WHERE party = ?")
            .bind(&party.as_bytes()[..])
            .execute(&mut *self.inner)
            .await?;
        Ok(())
    }

    /// Notes that our envelope key is new: nobody has been seen using it.
    pub async fn nobody_follows(&mut self) -> Result<(), StoreError> {
        sqlx::query("UPDATE peer SET follows = 0")
            .execute(&mut *self.inner)
            .await?;
        Ok(())
    }

    /// The peers that haven't been seen using our newest envelope key.
    pub async fn stragglers(&mut self) -> Result<Vec<Peer>, StoreError> {
        let rows = sqlx::query("SELECT party FROM peer WHERE follows = 0")
            .fetch_all(&mut *self.inner)
            .await?;
        let behind: Vec<Vec<u8>> = rows.into_iter().map(|row| row.get(0)).collect();
        Ok(self
            .peers()
            .await?
            .into_iter()
            .filter(|peer| behind.iter().any(|party| party == peer.party.as_bytes()))
            .collect())
    }

    /// One peer.
    pub async fn peer(&mut self, party: &PartyId) -> Result<Option<Peer>, StoreError> {
        Ok(self.peers().await?.into_iter().find(|peer| peer.party == *party))
    }

    /// Adds or replaces a peer.
    pub async fn set_peer(&mut self, peer: &Peer) -> Result<(), StoreError> {
        sqlx::query(
            "INSERT INTO peer (party, mailbox, envelope_key, capability, issued, acked_size, acked_epoch, heard) VALUES (?, ?, ?, ?, ?, ?, ?, ?) \
             ON CONFLICT (party) DO UPDATE SET mailbox = excluded.mailbox, envelope_key = excluded.envelope_key, capability = excluded.capability, \
             issued = excluded.issued, acked_size = excluded.acked_size, acked_epoch = excluded.acked_epoch, heard = excluded.heard",
        )
            .bind(&peer.party.as_bytes()[..])
            .bind(&peer.mailbox.as_bytes()[..])
            .bind(&peer.envelope_key.as_bytes()[..])
            .bind(&peer.capability.to_bytes()[..])
            .bind(&peer.issued.as_bytes()[..])
            .bind(to_i64(peer.acked_size))
            .bind(to_i64(peer.acked_epoch))
            .bind(to_i64(peer.heard))
            .execute(&mut *self.inner)
            .await?;
        Ok(())
    }

    /// Forgets a peer. What is on its way to them stays until the relay has it: it is how they learn that they were removed.
    pub async fn remove_peer(&mut self, party: &PartyId) -> Result<(), StoreError> {
        sqlx::query("DELETE FROM peer WHERE party = ?")
            .bind(&party.as_bytes()[..])
            .execute(&mut *self.inner)
            .await?;
        sqlx::query("UPDATE outbox SET kind = ? WHERE party = ?")
            .bind(Outgoing::Fleeting.code())
            .bind(&party.as_bytes()[..])
            .execute(&mut *self.inner)
            .await?;
        Ok(())
    }

    /// Adds an envelope to the outbox under a fresh put id.
    pub async fn post(&mut self, put: [u8; 16], post: &NewPost<'_>) -> Result<(), StoreError> {
        sqlx::query("INSERT INTO outbox (put, party, mailbox, capability, envelope, kind, covers, about, question) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)")
            .bind(&put[..])
            .bind(&post.peer.party.as_bytes()[..])
            .bind(&post.peer.mailbox.as_bytes()[..])
            .bind(&post.peer.capability.to_bytes()[..])
            .bind(&post.envelope.as_bytes()[..])
            .bind(post.kind.code())
            .bind(to_i64(post.covers))
            .bind(post.about)
            .bind(post.question)
            .execute(&mut *self.inner)
            .await?;
        Ok(())
    }

    /// What is to be put at this time, oldest first.
    pub async fn due(&mut self, now: u64, limit: u32) -> Result<Vec<Post>, StoreError> {
        let rows = sqlx::query("SELECT id, put, mailbox, capability, envelope, kind, stored, tries FROM outbox WHERE due <= ? ORDER BY id LIMIT ?")
            .bind(to_i64(now))
            .bind(limit)
            .fetch_all(&mut *self.inner)
            .await?;
        rows.into_iter()
            .map(|row| {
                let envelope: Vec<u8> = row.get(4);
                Ok(Post {
                    id: row.get(0),
                    put: fixed(row.get(1), "a put id")?,
                    mailbox: MailboxId::from_bytes(fixed(row.get(2), "a mailbox")?)
                        .map_err(|_| StoreError::Row { what: "a mailbox" })?,
                    capability: Capability::from_bytes(&fixed(row.get(3), "a capability")?),
                    envelope: Envelope::from_bytes(envelope.into())
                        .map_err(|_| StoreError::Row { what: "an envelope" })?,
                    kind: Outgoing::from_code(row.get(5))?,
                    stored: row.get::<i64, _>(6) != 0,
                    tries: row.get(7),
                })
            })
            .collect()
    }

    /// Says when an envelope is to be put again, and under which id.
    pub async fn reschedule(&mut self, id: i64, put: [u8; 16], due: u64) -> Result<(), StoreError> {
        sqlx::query("UPDATE outbox SET put = ?, due = ?, tries = tries + 1 WHERE id = ?")
            .bind(&put[..])
            .bind(to_i64(due))
            .bind(id)
            .execute(&mut *self.inner)
            .await?;
        Ok(())
    }

    /// Makes everything that the relay hasn't stored yet due now: a new connection begins.
    pub async fn due_again(&mut self) -> Result<(), StoreError> {
        sqlx::query("UPDATE outbox SET due = 0 WHERE stored = 0")
            .execute(&mut *self.inner)
            .await?;
        Ok(())
    }

    /// The relay stored it, or says so. What needs no answer is done with; a question is asked again, after twice as long for each try; so is
    /// a commit or a welcome, because whom a welcome hasn't reached can't even say that it is missing; entries are parked until the peer's
    /// acknowledgement says that they are missing.
    pub async fn stored(&mut self, put: &[u8; 16], now: u64, pace: &Pace) -> Result<(), StoreError> {
        sqlx::query("DELETE FROM outbox WHERE put = ? AND kind = ?")
            .bind(&put[..])
            .bind(Outgoing::Fleeting.code())
            .execute(&mut *self.inner)
            .await?;
        sqlx::query("UPDATE outbox SET stored = 1, due = ? + CASE kind WHEN ? THEN ? << MIN(tries, 5) WHEN ? THEN ? << MIN(tries, 14) ELSE ? END WHERE put = ?")
            .bind(to_i64(now))
            .bind(Outgoing::Question.code())
            .bind(to_i64(pace.question_retry))
            .bind(Outgoing::Epoch.code())
            .bind(to_i64(pace.question_retry))
            .bind(to_i64(PARKED))
            .bind(&put[..])
            .execute(&mut *self.inner)
            .await?;
        Ok(())
    }

    /// The relay refused it for now.
    pub async fn postpone(&mut self, put: &[u8; 16], due: u64) -> Result<(), StoreError> {
        sqlx::query("UPDATE outbox SET due = ? WHERE put = ?")
            .bind(to_i64(due))
            .bind(&put[..])
            .execute(&mut *self.inner)
            .await?;
        Ok(())
    }

    /// Takes off what a peer's acknowledgement covers.
    pub async fn acknowledged(&mut self, party: &PartyId, size: u64, epoch: u64) -> Result<(), StoreError> {
        sqlx::query(
            "DELETE FROM outbox WHERE party = ? AND ((kind = ? AND covers <= ?) OR (kind = ? AND covers <= ?))",
        )
        .bind(&party.as_bytes()[..])
        .bind(Outgoing::Entries.code())
        .bind(to_i64(size))
        .bind(Outgoing::Epoch.code())
        .bind(to_i64(epoch))
        .execute(&mut *self.inner)
        .await?;
        Ok(())
    }

    /// Takes off everything of a kind for a peer (it can be rebuilt, or is replaced).
    pub async fn drop_kind(&mut self, party: &PartyId, kind: Outgoing) -> Result<(), StoreError> {
        sqlx::query("DELETE FROM outbox WHERE party = ? AND kind = ?")
            .bind(&party.as_bytes()[..])
            .bind(kind.code())
            .execute(&mut *self.inner)
            .await?;
        Ok(())
    }

    /// Whether something of a kind was put for a peer a moment ago, or is about to be.
    pub async fn in_flight(
        &mut self,
        party: &PartyId,
        kind: Outgoing,
        now: u64,
        pace: &Pace,
    ) -> Result<bool, StoreError> {
        // When it was stored follows from when it is due, as `stored` reckons.
        let row = sqlx::query("SELECT COUNT(*) FROM outbox WHERE party = ? AND kind = ? AND (stored = 0 OR due - CASE kind WHEN ? THEN ? << MIN(tries, 14) ELSE ? END > ?)")
            .bind(&party.as_bytes()[..])
            .bind(kind.code())
            .bind(Outgoing::Epoch.code())
            .bind(to_i64(pace.question_retry))
            .bind(to_i64(PARKED))
            .bind(to_i64(now.saturating_sub(pace.on_its_way)))
            .fetch_one(&mut *self.inner)
            .await?;
        Ok(row.get::<i64, _>(0) > 0)
    }

    /// The peers that haven't acknowledged something of a kind.
    pub async fn awaited(&mut self, kind: Outgoing) -> Result<Vec<PartyId>, StoreError> {
        let rows = sqlx::query("SELECT DISTINCT party FROM outbox WHERE kind = ?")
            .bind(kind.code())
            .fetch_all(&mut *self.inner)
            .await?;
        let party = |row: sqlx::sqlite::SqliteRow| {
            PartyId::from_bytes(fixed(row.get(0), "a party")?).map_err(|_| StoreError::Row { what: "a party" })
        };
        rows.into_iter().map(party).collect()
    }

    /// Puts everything that waits for a peer again: the same sealed bytes in their order, under new put ids.
    pub async fn resend(&mut self, party: &PartyId) -> Result<(), StoreError> {
        sqlx::query("UPDATE outbox SET put = randomblob(16), stored = 0, due = 0 WHERE party = ?")
            .bind(&party.as_bytes()[..])
            .execute(&mut *self.inner)
            .await?;
        Ok(())
    }

    /// The question about a statement was answered.
    pub async fn answered(&mut self, about: &[u8]) -> Result<(), StoreError> {
        sqlx::query("DELETE FROM outbox WHERE about = ? AND kind = ?")
            .bind(about)
            .bind(Outgoing::Question.code())
            .execute(&mut *self.inner)
            .await?;
        Ok(())
    }

    /// The questions that are still unanswered: what each is about, and its bytes before encryption.
    pub async fn questions(&mut self) -> Result<Vec<(Vec<u8>, Vec<u8>)>, StoreError> {
        let rows = sqlx::query("SELECT about, question FROM outbox WHERE kind = ? ORDER BY id")
            .bind(Outgoing::Question.code())
            .fetch_all(&mut *self.inner)
            .await?;
        Ok(rows.into_iter().map(|row| (row.get(0), row.get(1))).collect())
    }

    /// Questions that the relay stored and that the gate should have answered by now: the row of each, and its bytes before encryption.
    pub async fn overdue_questions(&mut self, now: u64, limit: u32) -> Result<Vec<(i64, Vec<u8>)>, StoreError> {
        let rows = sqlx::query(
            "SELECT id, question FROM outbox WHERE kind = ? AND stored = 1 AND due <= ? ORDER BY id LIMIT ?",
        )
        .bind(Outgoing::Question.code())
        .bind(to_i64(now))
        .bind(limit)
        .fetch_all(&mut *self.inner)
        .await?;
        Ok(rows.into_iter().map(|row| (row.get(0), row.get(1))).collect())
    }

    /// Puts other sealed bytes in place of those in the outbox.
    pub async fn reseal(&mut self, id: i64, envelope: &Envelope) -> Result<(), StoreError> {
        sqlx::query("UPDATE outbox SET envelope = ? WHERE id = ?")
            .bind(&envelope.as_bytes()[..])
            .bind(id)
            .execute(&mut *self.inner)
            .await?;
        Ok(())
    }

    /// Keeps a group message for later; the oldest gives way when there are too many.
    pub async fn hold(&mut self, message: &[u8]) -> Result<(), StoreError> {
        sqlx::query("INSERT INTO held (message) VALUES (?) ON CONFLICT (message) DO NOTHING")
            .bind(message)
            .execute(&mut *self.inner)
            .await?;
        sqlx::query("DELETE FROM held WHERE id NOT IN (SELECT id FROM held ORDER BY id DESC LIMIT ?)")
            .bind(MAX_HELD)
            .execute(&mut *self.inner)
            .await?;
        Ok(())
    }

    /// Takes out everything that is held.
    pub async fn take_held(&mut self) -> Result<Vec<Vec<u8>>, StoreError> {
        let rows = sqlx::query("DELETE FROM held RETURNING message")
            .fetch_all(&mut *self.inner)
            .await?;
        Ok(rows.into_iter().map(|row| row.get(0)).collect())
    }

    /// Open pairings.
    pub async fn pairings(&mut self) -> Result<Vec<PairingRow>, StoreError> {
        let rows = sqlx::query("SELECT mailbox, expires, state FROM pairing")
            .fetch_all(&mut *self.inner)
            .await?;
        rows.into_iter()
            .map(|row| {
                let mailbox = MailboxId::from_bytes(fixed(row.get(0), "a mailbox")?)
                    .map_err(|_| StoreError::Row { what: "a mailbox" })?;
                Ok(PairingRow {
                    mailbox,
                    expires: to_u64(row.get(1)),
                    state: row.get(2),
                })
            })
            .collect()
    }

    /// Adds or replaces a pairing.
    pub async fn set_pairing(&mut self, row: &PairingRow) -> Result<(), StoreError> {
        sqlx::query("INSERT OR REPLACE INTO pairing (mailbox, expires, state) VALUES (?, ?, ?)")
            .bind(&row.mailbox.as_bytes()[..])
            .bind(to_i64(row.expires))
            .bind(&row.state)
            .execute(&mut *self.inner)
            .await?;
        Ok(())
    }

    /// Ends a pairing.
    pub async fn remove_pairing(&mut self, mailbox: &MailboxId) -> Result<(), StoreError> {
        sqlx::query("DELETE FROM pairing WHERE mailbox = ?")
            .bind(&mailbox.as_bytes()[..])
            .execute(&mut *self.inner)
            .await?;
        Ok(())
    }

    /// The request that was made of a ticket.
    pub async fn ticketed(&mut self, ticket: &[u8; 16]) -> Result<Option<Digest>, StoreError> {
        let row = sqlx::query("SELECT request FROM ticket WHERE ticket = ?")
            .bind(&ticket[..])
            .fetch_optional(&mut *self.inner)
            .await?;
        row.map(|row| Ok(Digest(fixed(row.get(0), "a request of a ticket")?)))
            .transpose()
    }

    /// Keeps which request was made of a ticket, for a week.
    pub async fn set_ticket(&mut self, ticket: &[u8; 16], request: &Digest, now: u64) -> Result<(), StoreError> {
        sqlx::query("DELETE FROM ticket WHERE made < ?")
            .bind(to_i64(now.saturating_sub(TICKET_LIFE)))
            .execute(&mut *self.inner)
            .await?;
        sqlx::query("INSERT INTO ticket (ticket, request, made) VALUES (?, ?, ?)")
            .bind(&ticket[..])
            .bind(&request.as_bytes()[..])
            .bind(to_i64(now))
            .execute(&mut *self.inner)
            .await?;
        Ok(())
    }

    /// Keeps what a request needs beside the transcript, until it ends.
    pub async fn add_asked(&mut self, row: &AskedRow, stdin: Option<&[u8]>, now: u64) -> Result<(), StoreError> {
        sqlx::query("DELETE FROM asked WHERE ended < ?")
            .bind(to_i64(now.saturating_sub(TICKET_LIFE)))
            .execute(&mut *self.inner)
            .await?;
        sqlx::query("INSERT INTO asked (request, asynchronous, number, stdin) VALUES (?, ?, ?, ?)")
            .bind(&row.request.as_bytes()[..])
            .bind(row.asynchronous)
            .bind(&row.number)
            .bind(stdin)
            .execute(&mut *self.inner)
            .await?;
        Ok(())
    }

    /// What is kept about the requests that haven't ended.
    pub async fn asked(&mut self) -> Result<Vec<AskedRow>, StoreError> {
        let rows = sqlx::query("SELECT request, asynchronous, number FROM asked WHERE ended IS NULL")
            .fetch_all(&mut *self.inner)
            .await?;
        rows.into_iter()
            .map(|row| {
                Ok(AskedRow {
                    request: Digest(fixed(row.get(0), "a request")?),
                    asynchronous: row.get(1),
                    number: row.get(2),
                })
            })
            .collect()
    }

    /// The requests, open or ended, whose digest begins with these hex digits; two at most.
    pub async fn asked_like(&mut self, beginning: &str) -> Result<Vec<Digest>, StoreError> {
        // Digits only: nothing in it means anything to LIKE.
        if !beginning.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Ok(Vec::new());
        }
        let rows = sqlx::query("SELECT request FROM asked WHERE hex(request) LIKE ? || '%' LIMIT 2")
            .bind(beginning)
            .fetch_all(&mut *self.inner)
            .await?;
        rows.into_iter()
            .map(|row| Ok(Digest(fixed(row.get(0), "a request")?)))
            .collect()
    }

    /// What the command of a request is to read.
    pub async fn stdin(&mut self, request: &Digest) -> Result<Option<Vec<u8>>, StoreError> {
        let row = sqlx::query("SELECT stdin FROM asked WHERE request = ?")
            .bind(&request.as_bytes()[..])
            .fetch_optional(&mut *self.inner)
            .await?;
        Ok(row.and_then(|row| row.get(0)))
    }

    /// A request ended: what it needed is deleted, and how it ended is kept.
    pub async fn asked_ended(&mut self, request: &Digest, standing: &str, now: u64) -> Result<(), StoreError> {
        sqlx::query("UPDATE asked SET number = NULL, stdin = NULL, standing = ?, ended = ? WHERE request = ?")
            .bind(standing)
            .bind(to_i64(now))
            .bind(&request.as_bytes()[..])
            .execute(&mut *self.inner)
            .await?;
        Ok(())
    }

    /// How a request ended, if it did and that is still known.
    pub async fn asked_standing(&mut self, request: &Digest) -> Result<Option<String>, StoreError> {
        let row = sqlx::query("SELECT standing FROM asked WHERE request = ?")
            .bind(&request.as_bytes()[..])
            .fetch_optional(&mut *self.inner)
            .await?;
        Ok(row.and_then(|row| row.get(0)))
    }

    /// Keeps evidence against a peer.
    pub async fn add_evidence(&mut self, time: u64, what: &str, bytes: &[u8]) -> Result<(), StoreError> {
        // The same accusation comes again with every message; it is kept once, and no more than a person would read.
        sqlx::query(
            "INSERT INTO evidence (time, what, bytes) SELECT ?1, ?2, ?3 \
             WHERE NOT EXISTS (SELECT 1 FROM evidence WHERE what = ?2) AND (SELECT COUNT(*) FROM evidence) < 100",
        )
        .bind(to_i64(time))
        .bind(what)
        .bind(bytes)
        .execute(&mut *self.inner)
        .await?;
        Ok(())
    }

    /// All evidence, oldest first.
    pub async fn evidence(&mut self) -> Result<Vec<Evidence>, StoreError> {
        let rows = sqlx::query("SELECT time, what FROM evidence ORDER BY id")
            .fetch_all(&mut *self.inner)
            .await?;
        Ok(rows
            .into_iter()
            .map(|row| Evidence {
                time: to_u64(row.get(0)),
                what: row.get(1),
            })
            .collect())
    }

    /// Keeps a refusal of something that we asked.
    pub async fn add_refusal(&mut self, about: &[u8], code: u8, text: &str) -> Result<(), StoreError> {
        sqlx::query("INSERT OR REPLACE INTO refusal (about, code, text) VALUES (?, ?, ?)")
            .bind(about)
            .bind(code)
            .bind(text)
            .execute(&mut *self.inner)
            .await?;
        Ok(())
    }

    /// The refusal of something that we asked, if there was one.
    pub async fn refusal(&mut self, about: &[u8]) -> Result<Option<(u8, String)>, StoreError> {
        let row = sqlx::query("SELECT code, text FROM refusal WHERE about = ?")
            .bind(about)
            .fetch_optional(&mut *self.inner)
            .await?;
        Ok(row.map(|row| (row.get(0), row.get(1))))
    }
}

/// A row whose `due` lies this far ahead waits for its answer and is put again only when asked for (`resend`), in ms.
pub const PARKED: u64 = 1 << 50;
