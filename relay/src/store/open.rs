//! Opening a store with distrust: the lock, the header before SQLite sees it, the contents before anything is changed.

use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};
use sqlx::migrate::Migrator;
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection, SqliteJournalMode, SqliteSynchronous};
use sqlx::{ConnectOptions, Connection};

use super::upgrade::upgrade;
use super::{LAYOUT, Reader, Store, StoreError, Writer, damaged, suspect};

static MIGRATIONS: Migrator = sqlx::migrate!("./migrations");

/// `CSRY`, in the header of every store of ours.
const APPLICATION_ID: u32 = 0x4353_5259;

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
        let mut connection = options(path)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .pragma("wal_autocheckpoint", "16000")
            // A statement for many rows keeps what it changes until it is done; in a file, that alone would be a tenth of the
            // time. And of the 2 MiB that are kept otherwise, a group of puts with scattered ids spills most.
            .pragma("temp_store", "MEMORY")
            .pragma("cache_size", "-16384")
            .connect()
            .await
            .map_err(|source| suspect(path, source))?;
        let reader = match prepare(path, &mut connection).await {
            Ok(reader) => reader,
            Err(error) => {
                // Not left to a thread that still touches the file when the lock is gone.
                connection.close().await.ok();
                return Err(error);
            }
        };
        Ok(Self {
            writer: Writer {
                connection,
                _lock: lock,
            },
            reader: Reader {
                connection: reader,
                path: path.to_owned(),
            },
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
    let ours =
        header.starts_with(b"SQLite format 3\0") && header.get(68..72) == Some(APPLICATION_ID.to_be_bytes().as_slice());
    if ours {
        Ok(())
    } else {
        Err(StoreError::Foreign { path: path.to_owned() })
    }
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
    let sql = |source| StoreError::Sql {
        path: path.to_owned(),
        source,
    };
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

/// Looks at everything before anything is changed, then brings the layout up to date and opens a second connection.
async fn prepare(path: &Path, connection: &mut SqliteConnection) -> Result<SqliteConnection, StoreError> {
    check_contents(path, connection).await?;
    MIGRATIONS
        .run(&mut *connection)
        .await
        .map_err(|error| suspect(path, error.into()))?;
    upgrade(connection).await.map_err(|error| suspect(path, error))?;
    options(path).connect().await.map_err(|source| suspect(path, source))
}

async fn check_contents(path: &Path, connection: &mut SqliteConnection) -> Result<(), StoreError> {
    let sql = |source| suspect(path, source);
    let found: i64 = sqlx::query_scalar("PRAGMA user_version")
        .fetch_one(&mut *connection)
        .await
        .map_err(sql)?;
    if found > LAYOUT {
        return Err(StoreError::Newer {
            path: path.to_owned(),
            found,
        });
    }
    let verdict: String = sqlx::query_scalar("PRAGMA quick_check(1)")
        .fetch_one(&mut *connection)
        .await
        .map_err(sql)?;
    if verdict == "ok" {
        Ok(())
    } else {
        Err(damaged(path, &verdict))
    }
}

fn options(path: &Path) -> SqliteConnectOptions {
    SqliteConnectOptions::new().filename(path).disable_statement_logging()
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

fn io_error(path: &Path, source: io::Error) -> StoreError {
    StoreError::Io {
        path: path.to_owned(),
        source,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

    use super::*;
    use crate::store::{Batch, Change, Record};

    #[tokio::test]
    async fn a_store_of_the_first_layout_is_brought_up_to_date_and_keeps_what_it_has() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("relay.db");
        let mut store = Store::open(&path).await.unwrap();
        let batch = Batch {
            changes: vec![Change::Open {
                mailbox: 1,
                key: [7; 32],
                next_sequence: 5,
            }],
            ..Batch::default()
        };
        store.writer.write(&batch).await.unwrap();
        for step in [
            "ALTER TABLE mailboxes DROP COLUMN seen",
            "DELETE FROM _sqlx_migrations WHERE version = 2",
            "PRAGMA user_version = 1",
        ] {
            sqlx::query(step).execute(&mut store.writer.connection).await.unwrap();
        }
        store.reader.close().await.unwrap();
        store.writer.close().await.unwrap();
        let mut store = Store::open(&path).await.unwrap();
        let mut found = Vec::new();
        store
            .reader
            .load(|record| match record {
                Record::Mailbox {
                    next_sequence, seen, ..
                } => found.push((next_sequence, seen)),
                _ => panic!("nothing else was written"),
            })
            .await
            .unwrap();
        assert_eq!(found, [(5, 0)]);
    }
}
