//! The relay's SQLite file: opening it with distrust, reading it at the start, and writing one batch at a time.
//!
//! What goes into a batch and what is answered after it are deliberately not here (see `office`). A file that isn't ours,
//! is damaged or is in use is refused and never replaced: an empty store would forget which puts it knows.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use rustix::fs::{FlockOperation, flock};
use sqlx::migrate::Migrator;
use sqlx::sqlite::{
    SqliteConnectOptions, SqliteConnection, SqliteJournalMode, SqliteRow, SqliteSynchronous,
};
use sqlx::{ConnectOptions, Connection, QueryBuilder, Row, Sqlite};
use wire::frame::{PutId, Stored};

static MIGRATIONS: Migrator = sqlx::migrate!("./migrations");

/// `CSRY`, in the header of every store of ours.
const APPLICATION_ID: u32 = 0x4353_5259;

/// The newest layout that this program knows.
const LAYOUT: i64 = 1;

/// Rows in one statement: SQLite binds at most 32,766 values, and a row has up to 7.
const ROWS: usize = 1000;

/// Why the store can't be used. Each names the file and what to do about it.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Another relay runs on it.
    #[error("store {} is in use by another relay", path.display())]
    InUse {
        /// The file.
        path: PathBuf,
    },
    /// It isn't a relay's store.
    #[error("{} isn't a relay's store", path.display())]
    Foreign {
        /// The file.
        path: PathBuf,
    },
    /// It was a relay's store and can't be trusted any more.
    #[error("store {} is damaged: {detail}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        detail: String,
    },
    /// A newer relay wrote it.
    #[error("store {} has layout {found}, this relay knows {LAYOUT}", path.display())]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its layout.
        found: i64,
    },
    /// The file system refuses.
    #[error("store {}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// SQLite refuses.
    #[error("store {}: {source}", path.display())]
    Sql {
        /// The file.
        path: PathBuf,
        /// Why.
        source: sqlx::Error,
    },
    /// A commit failed in a way that leaves open what is on the disk: only a restart can tell.
    #[error("store: a commit failed and it isn't known what is on the disk: {source}")]
    Unknown {
        /// Why.
        source: sqlx::Error,
    },
    /// The task that writes is gone.
    #[error("store: the writing task stopped")]
    Stopped,
}

impl StoreError {
    /// What a person can do about it.
    #[must_use]
    pub fn hint(&self) -> &'static str {
        match self {
            Self::InUse { .. } => "stop the other relay, or give this one a store of its own with --store",
            Self::Foreign { .. } => "give another path with --store; the file was left as it is",
            Self::Damaged { .. } => {
                "restore it from a copy, or move it away to begin with an empty store (waiting envelopes are lost)"
            }
            Self::Newer { .. } => "run the newer relay",
            Self::Io { .. } | Self::Sql { .. } => "check the disk, the path and its permissions",
            Self::Unknown { .. } | Self::Stopped => "check the disk, then start the relay again",
        }
    }
}

/// An envelope as it is written.
#[derive(Debug)]
pub(crate) struct EnvelopeRow {
    pub(crate) number: i64,
    pub(crate) sequence: u64,
    pub(crate) capability: i64,
    pub(crate) received: u64,
    pub(crate) body: Bytes,
}

/// The memory of a put, with its envelope unless that was acknowledged already.
#[derive(Debug)]
pub(crate) struct PutRow {
    pub(crate) mailbox: i64,
    pub(crate) id: PutId,
    pub(crate) digest: [u8; 32],
    pub(crate) expires: u64,
    pub(crate) envelope: Option<EnvelopeRow>,
}

/// What an owner changed.
#[derive(Debug)]
pub(crate) enum Change {
    Open { mailbox: i64, key: [u8; 32], next_sequence: u64 },
    Allow { mailbox: i64, number: i64, hash: [u8; 32], max_envelopes: u32, max_bytes: u64 },
    Revoke { number: i64 },
    Close { mailbox: i64, at: u64 },
    Forget { mailbox: i64 },
}

/// What is written in one transaction: the changes in their order, then the rest.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    pub(crate) changes: Vec<Change>,
    /// Puts; one that was taken back leaves a gap.
    pub(crate) puts: Vec<Option<PutRow>>,
    /// Numbers of envelopes to delete.
    pub(crate) deleted: Vec<i64>,
    /// First sequence number never given out, for each mailbox where it changes.
    pub(crate) reserved: BTreeMap<i64, u64>,
    /// Forget puts that expired at or before this time, some of them.
    pub(crate) forget: Vec<(i64, PutId)>,
    pub(crate) forget_before: u64,
    /// Write something, whatever else there is: is the disk well again?
    pub(crate) probe: bool,
}

impl Batch {
    pub(crate) fn is_empty(&self) -> bool {
        self.changes.is_empty()
            && self.puts.is_empty()
            && self.deleted.is_empty()
            && self.reserved.is_empty()
            && self.forget.is_empty()
            && !self.probe
    }
}

/// How a batch failed.
#[derive(Debug)]
pub(crate) enum BatchError {
    /// Nothing of it is on the disk, and later batches may succeed: the disk is full.
    Refused(sqlx::Error),
    /// It isn't known what is on the disk.
    Unknown(sqlx::Error),
}

/// What a put is remembered as.
#[derive(Clone, Copy, Debug)]
pub(crate) struct KnownPut {
    pub(crate) digest: [u8; 32],
    pub(crate) expires: u64,
    pub(crate) how: Stored,
}

/// One mailbox, capability, envelope or put, as read at the start.
pub(crate) enum Record {
    Mailbox { number: i64, key: [u8; 32], next_sequence: u64, closed: Option<u64> },
    Capability { mailbox: i64, number: i64, hash: [u8; 32], max_envelopes: u32, max_bytes: u64 },
    Envelope { mailbox: i64, number: i64, sequence: u64, capability: i64, received: u64, expires: u64, bytes: u32 },
    Put { mailbox: i64, id: PutId, expires: u64 },
}

/// An opened store: the connection that writes, the one that reads, and the lock that keeps other relays out.
pub(crate) struct Store {
    pub(crate) writer: Writer,
    pub(crate) reader: Reader,
}

/// Writes batches. Holds the lock as long as it lives.
pub(crate) struct Writer {
    connection: SqliteConnection,
    _lock: File,
}

/// Reads beside the writer what is committed.
pub(crate) struct Reader {
    connection: SqliteConnection,
    path: PathBuf,
}

impl Store {
    /// Opens the store at `path`, or makes a new one where there is nothing.
    pub(crate) async fn open(path: &Path) -> Result<Self, StoreError> {
        make_folder(path)?;
        let lock = lock(path)?;
        if exists(path)? {
            check_header(path)?;
        } else {
            create(path).await?;
        }
        let sql = |source| suspect(path, source);
        let mut connection = options(path)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .pragma("wal_autocheckpoint", "16000")
            .connect()
            .await
            .map_err(sql)?;
        check_contents(path, &mut connection).await?;
        MIGRATIONS
            .run(&mut connection)
            .await
            .map_err(|error| suspect(path, error.into()))?;
        let reader = options(path).connect().await.map_err(sql)?;
        Ok(Self {
            writer: Writer { connection, _lock: lock },
            reader: Reader { connection: reader, path: path.to_owned() },
        })
    }
}

fn make_folder(path: &Path) -> Result<(), StoreError> {
    let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) else {
        return Ok(());
    };
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(folder)
        .map_err(|source| io_error(path, source))
}

/// A file of its own: closing another descriptor of the database would drop SQLite's own locks on it.
fn lock(path: &Path) -> Result<File, StoreError> {
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(beside(path, ".lock"))
        .map_err(|source| io_error(path, source))?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(file),
        Err(rustix::io::Errno::WOULDBLOCK) => Err(StoreError::InUse { path: path.to_owned() }),
        Err(error) => Err(io_error(path, error.into())),
    }
}

fn exists(path: &Path) -> Result<bool, StoreError> {
    let there = |path: &Path| path.try_exists().map_err(|source| io_error(path, source));
    if there(path)? {
        return Ok(true);
    }
    if there(&beside(path, "-wal"))? {
        return Err(damaged(path, "the file is gone, but its write-ahead log is there"));
    }
    Ok(false)
}

/// Judges the file before SQLite opens it, because opening a foreign database could already change it.
fn check_header(path: &Path) -> Result<(), StoreError> {
    let mut header = [0; 100];
    let mut file = File::open(path).map_err(|source| io_error(path, source))?;
    match file.read_exact(&mut header) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
            let length = file.metadata().map_or(0, |about| about.len());
            return Err(damaged(path, &format!("only {length} bytes long")));
        }
        Err(error) => return Err(io_error(path, error)),
    }
    let ours = header.starts_with(b"SQLite format 3\0")
        && header.get(68..72) == Some(APPLICATION_ID.to_be_bytes().as_slice());
    if ours { Ok(()) } else { Err(StoreError::Foreign { path: path.to_owned() }) }
}

/// Makes a new store under another name and moves it into place, so that a crash leaves a whole one or none.
async fn create(path: &Path) -> Result<(), StoreError> {
    let new = beside(path, ".new");
    for leftover in [new.clone(), beside(&new, "-journal")] {
        match std::fs::remove_file(&leftover) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(io_error(path, error));
            }
            _ => {}
        }
    }
    let file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&new)
        .map_err(|source| io_error(path, source))?;
    let sql = |source| StoreError::Sql { path: path.to_owned(), source };
    let mut connection = options(&new)
        .synchronous(SqliteSynchronous::Full)
        .connect()
        .await
        .map_err(sql)?;
    MIGRATIONS
        .run(&mut connection)
        .await
        .map_err(|error| sql(error.into()))?;
    connection.close().await.map_err(sql)?;
    let place = || {
        file.sync_all()?;
        std::fs::rename(&new, path)?;
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
        File::open(folder.unwrap_or(Path::new(".")))?.sync_all()
    };
    place().map_err(|source| io_error(path, source))
}

async fn check_contents(path: &Path, connection: &mut SqliteConnection) -> Result<(), StoreError> {
    let sql = |source| suspect(path, source);
    let found: i64 = sqlx::query_scalar("PRAGMA user_version")
        .fetch_one(&mut *connection)
        .await
        .map_err(sql)?;
    if found > LAYOUT {
        return Err(StoreError::Newer { path: path.to_owned(), found });
    }
    let verdict: String = sqlx::query_scalar("PRAGMA quick_check(1)")
        .fetch_one(&mut *connection)
        .await
        .map_err(sql)?;
    if verdict == "ok" { Ok(()) } else { Err(damaged(path, &verdict)) }
}

fn options(path: &Path) -> SqliteConnectOptions {
    SqliteConnectOptions::new()
        .filename(path)
        .disable_statement_logging()
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

fn io_error(path: &Path, source: io::Error) -> StoreError {
    StoreError::Io { path: path.to_owned(), source }
}

fn damaged(path: &Path, detail: &str) -> StoreError {
    StoreError::Damaged { path: path.to_owned(), detail: detail.to_owned() }
}

/// SQLite's word that the file is malformed is damage, everything else an ordinary failure.
fn suspect(path: &Path, source: sqlx::Error) -> StoreError {
    // SQLITE_CORRUPT and SQLITE_NOTADB.
    match primary_code(&source) {
        Some(11 | 26) => damaged(path, &source.to_string()),
        _ => StoreError::Sql { path: path.to_owned(), source },
    }
}

fn primary_code(error: &sqlx::Error) -> Option<u32> {
    let code: u32 = error.as_database_error()?.code()?.parse().ok()?;
    Some(code & 0xff)
}

/// SQLite's integers are signed; none of ours comes near the sign.
fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

impl Writer {
    /// Writes the batch and flushes it.
    pub(crate) async fn write(&mut self, batch: &Batch) -> Result<(), BatchError> {
        let prepared = async {
            sqlx::query("BEGIN IMMEDIATE").execute(&mut self.connection).await?;
            fill(&mut self.connection, batch).await
        };
        let result = match prepared.await {
            Ok(()) => sqlx::query("COMMIT").execute(&mut self.connection).await.map(drop),
            Err(error) => Err(error),
        };
        let Err(error) = result else { return Ok(()) };
        // Only a full disk (SQLITE_FULL), or another program's lock (BUSY), leaves no doubt. After a failed fsync nothing
        // that the kernel says later can be trusted.
        if !matches!(primary_code(&error), Some(13 | 5)) {
            return Err(BatchError::Unknown(error));
        }
        // SQLite rolls back by itself in some cases; then this says that there is no transaction.
        match sqlx::query("ROLLBACK").execute(&mut self.connection).await {
            Err(rollback) if primary_code(&rollback) != Some(1) => Err(BatchError::Unknown(rollback)),
            _ => Err(BatchError::Refused(error)),
        }
    }

    /// Folds the log into the file and closes it.
    pub(crate) async fn close(self) -> Result<(), sqlx::Error> {
        self.connection.close().await
    }
}

async fn fill(connection: &mut SqliteConnection, batch: &Batch) -> Result<(), sqlx::Error> {
    if batch.probe {
        // Writes the first page, always.
        sqlx::query("PRAGMA user_version = 1").execute(&mut *connection).await?;
    }
    for change in &batch.changes {
        apply(connection, change).await?;
    }
    let envelopes: Vec<_> = batch
        .puts
        .iter()
        .flatten()
        .filter_map(|put| put.envelope.as_ref().map(|envelope| (put, envelope)))
        .collect();
    for rows in envelopes.chunks(ROWS) {
        let mut query = QueryBuilder::<Sqlite>::new(
            "INSERT INTO envelopes (number, mailbox, sequence, capability, received, expires, body) ",
        );
        query.push_values(rows, |mut row, (put, envelope)| {
            row.push_bind(envelope.number)
                .push_bind(put.mailbox)
                .push_bind(signed(envelope.sequence))
                .push_bind(envelope.capability)
                .push_bind(signed(envelope.received))
                .push_bind(signed(put.expires))
                .push_bind(envelope.body.to_vec());
        });
        query.build().persistent(false).execute(&mut *connection).await?;
    }
    let puts: Vec<_> = batch.puts.iter().flatten().collect();
    for rows in puts.chunks(ROWS) {
        // An id may come again after its ttl, before it was swept.
        let mut query = QueryBuilder::<Sqlite>::new(
            "INSERT OR REPLACE INTO puts (mailbox, id, digest, expires, how) ",
        );
        query.push_values(rows, |mut row, put| {
            let how = if put.envelope.is_some() { Stored::Flushed } else { Stored::Acknowledged };
            row.push_bind(put.mailbox)
                .push_bind(put.id.to_vec())
                .push_bind(put.digest.to_vec())
                .push_bind(signed(put.expires))
                .push_bind(i64::from(how.code()));
        });
        query.build().persistent(false).execute(&mut *connection).await?;
    }
    for numbers in batch.deleted.chunks(ROWS) {
        let mut query = QueryBuilder::<Sqlite>::new("DELETE FROM envelopes WHERE number IN (");
        let mut list = query.separated(", ");
        for number in numbers {
            list.push_bind(*number);
        }
        query.push(")");
        query.build().persistent(false).execute(&mut *connection).await?;
    }
    for (mailbox, next_sequence) in &batch.reserved {
        sqlx::query("UPDATE mailboxes SET next_sequence = ? WHERE number = ?")
            .bind(signed(*next_sequence))
            .bind(mailbox)
            .execute(&mut *connection)
            .await?;
    }
    for (mailbox, id) in &batch.forget {
        sqlx::query("DELETE FROM puts WHERE mailbox = ? AND id = ? AND expires <= ?")
            .bind(mailbox)
            .bind(id.to_vec())
            .bind(signed(batch.forget_before))
            .execute(&mut *connection)
            .await?;
    }
    Ok(())
}

async fn apply(connection: &mut SqliteConnection, change: &Change) -> Result<(), sqlx::Error> {
    match change {
        Change::Open { mailbox, key, next_sequence } => {
            sqlx::query(
                "INSERT INTO mailboxes (number, key, next_sequence) VALUES (?, ?, ?) ON CONFLICT (number) DO UPDATE SET closed = NULL",
            )
            .bind(mailbox)
            .bind(key.to_vec())
            .bind(signed(*next_sequence))
            .execute(connection)
            .await?;
        }
        Change::Allow { mailbox, number, hash, max_envelopes, max_bytes } => {
            sqlx::query(
                "INSERT INTO capabilities (number, mailbox, hash, max_envelopes, max_bytes) VALUES (?, ?, ?, ?, ?) \
                 ON CONFLICT (number) DO UPDATE SET max_envelopes = excluded.max_envelopes, max_bytes = excluded.max_bytes",
            )
            .bind(number)
            .bind(mailbox)
            .bind(hash.to_vec())
            .bind(max_envelopes)
            .bind(signed(*max_bytes))
            .execute(connection)
            .await?;
        }
        Change::Revoke { number } => {
            sqlx::query("DELETE FROM capabilities WHERE number = ?")
                .bind(number)
                .execute(connection)
                .await?;
        }
        Change::Close { mailbox, at } => {
            // The envelopes are deleted by their numbers.
            sqlx::query("DELETE FROM capabilities WHERE mailbox = ?")
                .bind(mailbox)
                .execute(&mut *connection)
                .await?;
            sqlx::query("DELETE FROM puts WHERE mailbox = ?")
                .bind(mailbox)
                .execute(&mut *connection)
                .await?;
            sqlx::query("UPDATE mailboxes SET closed = ? WHERE number = ?")
                .bind(signed(*at))
                .bind(mailbox)
                .execute(connection)
                .await?;
        }
        Change::Forget { mailbox } => {
            sqlx::query("DELETE FROM mailboxes WHERE number = ? AND closed IS NOT NULL")
                .bind(mailbox)
                .execute(connection)
                .await?;
        }
    }
    Ok(())
}

impl Reader {
    /// Hands every record to `take`: mailboxes first, envelopes in the order of their acceptance.
    pub(crate) async fn load(&mut self, mut take: impl FnMut(Record)) -> Result<(), StoreError> {
        use futures_util::TryStreamExt as _;
        let path = self.path.clone();
        let sql = |source| suspect(&path, source);
        for (query, record) in RECORDS {
            let mut rows = sqlx::query(query).fetch(&mut self.connection);
            while let Some(row) = rows.try_next().await.map_err(sql)? {
                take(record(&row).map_err(sql)?);
            }
        }
        Ok(())
    }

    /// The bytes of these envelopes, as many as are there.
    pub(crate) async fn bodies(&mut self, numbers: &[i64]) -> Result<Vec<(i64, Bytes)>, sqlx::Error> {
        let mut query = QueryBuilder::<Sqlite>::new("SELECT number, body FROM envelopes WHERE number IN (");
        let mut list = query.separated(", ");
        for number in numbers {
            list.push_bind(*number);
        }
        query.push(")");
        let rows = query.build().persistent(false).fetch_all(&mut self.connection).await?;
        rows.into_iter()
            .map(|row| Ok((row.try_get(0)?, Bytes::from(row.try_get::<Vec<u8>, _>(1)?))))
            .collect()
    }

    /// What is remembered of a put.
    pub(crate) async fn put(&mut self, mailbox: i64, id: &PutId) -> Result<Option<KnownPut>, sqlx::Error> {
        let row = sqlx::query("SELECT digest, expires, how FROM puts WHERE mailbox = ? AND id = ?")
            .bind(mailbox)
            .bind(id.to_vec())
            .fetch_optional(&mut self.connection)
            .await?;
        row.map(|row| {
            Ok(KnownPut {
                digest: array(&row, 0)?,
                expires: number(&row, 1)?,
                how: Stored::from_code(number(&row, 2)?).unwrap_or(Stored::Flushed),
            })
        })
        .transpose()
    }

    /// Some of the puts that have expired.
    pub(crate) async fn expired_puts(&mut self, now: u64) -> Result<Vec<(i64, PutId, u64)>, sqlx::Error> {
        let rows = sqlx::query("SELECT mailbox, id, expires FROM puts WHERE expires <= ? LIMIT 500")
            .bind(signed(now))
            .fetch_all(&mut self.connection)
            .await?;
        rows.iter()
            .map(|row| Ok((row.try_get(0)?, array(row, 1)?, number(row, 2)?)))
            .collect()
    }

    /// Folds what is committed into the file, off the path of the commits.
    pub(crate) async fn checkpoint(&mut self) -> Result<(), sqlx::Error> {
        let result = sqlx::query("PRAGMA wal_checkpoint(PASSIVE)")
            .fetch_all(&mut self.connection)
            .await;
        match result {
            // A full disk or a lock: the log stays as it is until later.
            Err(error) if matches!(primary_code(&error), Some(13 | 5 | 6)) => Ok(()),
            result => result.map(drop),
        }
    }

    pub(crate) async fn close(self) -> Result<(), sqlx::Error> {
        self.connection.close().await
    }
}

type Decode = fn(&SqliteRow) -> Result<Record, sqlx::Error>;

const RECORDS: [(&str, Decode); 4] = [
    ("SELECT number, key, next_sequence, closed FROM mailboxes", |row| {
        Ok(Record::Mailbox {
            number: row.try_get(0)?,
            key: array(row, 1)?,
            next_sequence: number(row, 2)?,
            closed: row.try_get::<Option<i64>, _>(3)?.and_then(|at| u64::try_from(at).ok()),
        })
    }),
    ("SELECT mailbox, number, hash, max_envelopes, max_bytes FROM capabilities", |row| {
        Ok(Record::Capability {
            mailbox: row.try_get(0)?,
            number: row.try_get(1)?,
            hash: array(row, 2)?,
            max_envelopes: number(row, 3)?,
            max_bytes: number(row, 4)?,
        })
    }),
    // `length` doesn't read the body.
    (
        "SELECT mailbox, number, sequence, capability, received, expires, length(body) FROM envelopes ORDER BY number",
        |row| {
            Ok(Record::Envelope {
                mailbox: row.try_get(0)?,
                number: row.try_get(1)?,
                sequence: number(row, 2)?,
                capability: row.try_get(3)?,
                received: number(row, 4)?,
                expires: number(row, 5)?,
                bytes: number(row, 6)?,
            })
        },
    ),
    ("SELECT mailbox, id, expires FROM puts", |row| {
        Ok(Record::Put { mailbox: row.try_get(0)?, id: array(row, 1)?, expires: number(row, 2)? })
    }),
];

fn array<const N: usize>(row: &SqliteRow, index: usize) -> Result<[u8; N], sqlx::Error> {
    let bytes: &[u8] = row.try_get(index)?;
    bytes.try_into().map_err(|error| sqlx::Error::Decode(Box::new(error)))
}

fn number<N: TryFrom<i64>>(row: &SqliteRow, index: usize) -> Result<N, sqlx::Error> {
    let number: i64 = row.try_get(index)?;
    N::try_from(number).map_err(|_| sqlx::Error::Decode("a number out of bounds".into()))
}
