//! The database of one party: group state, transcript, outbox and pairing change together in one transaction or not at all.
//! Here are the file and its settings; each kind of rows has a file of its own. What they mean is decided elsewhere (`gate`, `member`).

mod asked;
mod evidence;
mod group;
mod outbox;
mod pairings;
mod peers;
mod questions;
mod transcript;

use std::io::Read as _;
use std::path::{Path, PathBuf};

use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{Row, Sqlite, SqlitePool, Transaction};

pub use asked::AskedRow;
pub use evidence::Evidence;
pub use outbox::{NewPost, Outgoing, Post};
pub use pairings::PairingRow;
pub use peers::Peer;

/// Marks a SQLite file as ours ("CSgn"), so that a foreign database is refused and never written to.
const APPLICATION_ID: i64 = 0x4353_676e;

/// Length of a SQLite file's header, in bytes.
const HEADER_BYTES: u64 = 100;

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
        // What marks it as ours must be in the file itself: whoever opens it looks there before SQLite may touch it.
        sqlx::query("PRAGMA wal_checkpoint(TRUNCATE)")
            .execute(&store.pool)
            .await?;
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

    /// Forgets a value.
    pub async fn remove_meta(&mut self, key: &str) -> Result<(), StoreError> {
        sqlx::query("DELETE FROM meta WHERE key = ?")
            .bind(key)
            .execute(&mut *self.inner)
            .await?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
    use super::*;

    #[tokio::test]
    async fn a_new_database_is_ours_while_whoever_made_it_still_lives() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state.db");
        let first = Store::create(&path).await.unwrap();
        let second = Store::open(&path).await.unwrap();
        let mut tx = first.begin().await.unwrap();
        tx.set_meta("kind", b"gate").await.unwrap();
        tx.commit().await.unwrap();
        let mut tx = second.begin().await.unwrap();
        assert_eq!(tx.meta_text("kind").await.unwrap().as_deref(), Some("gate"));
    }

    #[tokio::test]
    async fn a_new_database_is_ours_though_whoever_made_it_was_killed() {
        let folder = tempfile::tempdir().unwrap();
        let (made, left) = (folder.path().join("state.db"), folder.path().join("left.db"));
        let _alive = Store::create(&made).await.unwrap();
        // What a kill leaves is what is in the files now.
        std::fs::copy(&made, &left).unwrap();
        let store = Store::open(&left).await.unwrap();
        let mut tx = store.begin().await.unwrap();
        assert_eq!(tx.meta_text("kind").await.unwrap(), None);
    }
}
