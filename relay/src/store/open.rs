//! Opening a store with distrust: the lock, the header before SQLite sees it, the contents before anything is changed.

use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use sqlx::migrate::Migrator;
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection, SqliteJournalMode, SqliteSynchronous};
use sqlx::{ConnectOptions, Connection};

use super::lock::Lock;
use super::upgrade::upgrade;
use super::{LAYOUT, Reader, Store, StoreError, Writer, damaged, suspect};

static MIGRATIONS: Migrator = sqlx::migrate!("./migrations");

/// The first layout in which commits are counted.
const COUNTED: i64 = 3;

/// `CSRY`, in the header of every store of ours.
const APPLICATION_ID: u32 = 0x4353_5259;

impl Store {
    /// Opens the store at `path`, or makes a new one where there is nothing.
    pub(crate) async fn open(path: &Path) -> Result<Self, StoreError> {
        make_folder(path)?;
        let lock = Lock::take(path)?;
        if exists(path)? {
            check_header(path)?;
        } else {
            create(path).await?;
        }
        let commits = look_through(path, &lock).await?;
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
                lock,
                commits,
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

/// Looks at everything before anything is changed, by a connection that can't: the last one to close a store folds its log into
/// it, and what is refused is to be left as it is. Says how many batches it has.
async fn look_through(path: &Path, lock: &Lock) -> Result<i64, StoreError> {
    let looker = options(path).read_only(true).connect().await;
    let mut looker = looker.map_err(|source| suspect(path, source))?;
    let looked = check_contents(path, &mut looker).await;
    looker.close().await.ok();
    let commits = looked?;
    let noted = lock.commits();
    if commits >= noted {
        return Ok(commits);
    }
    let lacking = noted - commits;
    let detail = format!(
        "it lacks the last {lacking} of {noted} batches that were flushed: its write-ahead log is gone or damaged, or it is an older \
         copy (if that was put back on purpose, remove {} too)",
        beside(path, ".lock").display()
    );
    Err(damaged(path, &detail))
}

/// Brings the layout up to date and opens a second connection.
async fn prepare(path: &Path, connection: &mut SqliteConnection) -> Result<SqliteConnection, StoreError> {
    MIGRATIONS
        .run(&mut *connection)
        .await
        .map_err(|error| suspect(path, error.into()))?;
    upgrade(connection).await.map_err(|error| suspect(path, error))?;
    options(path).connect().await.map_err(|source| suspect(path, source))
}

/// Says how many batches were committed.
async fn check_contents(path: &Path, connection: &mut SqliteConnection) -> Result<i64, StoreError> {
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
    if verdict != "ok" {
        // On one line, as errors are.
        return Err(damaged(path, &verdict.replace('\n', "; ")));
    }
    if found < COUNTED {
        return Ok(0);
    }
    let commits = sqlx::query_scalar("SELECT count FROM commits")
        .fetch_one(connection)
        .await;
    commits.map_err(sql)
}

fn options(path: &Path) -> SqliteConnectOptions {
    SqliteConnectOptions::new().filename(path).disable_statement_logging()
}

pub(super) fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

pub(super) fn io_error(path: &Path, source: io::Error) -> StoreError {
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
            "ALTER TABLE mailboxes DROP COLUMN acknowledged",
            "DROP TABLE bundles",
            "DROP TABLE remembered",
            "DROP TABLE commits",
            "CREATE TABLE envelopes (number INTEGER PRIMARY KEY, mailbox INTEGER NOT NULL, sequence INTEGER NOT NULL, \
             capability INTEGER NOT NULL, received INTEGER NOT NULL, expires INTEGER NOT NULL, body BLOB NOT NULL) STRICT",
            "CREATE TABLE puts (mailbox INTEGER NOT NULL, id BLOB NOT NULL, digest BLOB NOT NULL, expires INTEGER NOT NULL, \
             how INTEGER NOT NULL, PRIMARY KEY (mailbox, id)) STRICT, WITHOUT ROWID",
            "INSERT INTO envelopes VALUES (1, 1, 5, 3, 1000, 2000, zeroblob(1024)), (2, 1, 6, 3, 1000, 2000, zeroblob(2048))",
            "INSERT INTO puts VALUES (1, randomblob(16), randomblob(32), 2000, 1), (1, zeroblob(16), zeroblob(32), 2000, 2)",
            "DELETE FROM _sqlx_migrations WHERE version > 1",
            "PRAGMA user_version = 1",
        ] {
            sqlx::query(step).execute(&mut store.writer.connection).await.unwrap();
        }
        store.writer.lock.note(0);
        store.reader.close().await.unwrap();
        store.writer.close().await.unwrap();
        let mut store = Store::open(&path).await.unwrap();
        let (mut found, mut bytes, mut puts) = (Vec::new(), Vec::new(), 0);
        store
            .reader
            .load(|record| match record {
                Record::Mailbox {
                    next_sequence, seen, ..
                } => found.push((next_sequence, seen)),
                Record::Bundle { heads, .. } => bytes.extend(heads.iter().map(|head| (head.sequence, head.bytes))),
                Record::Puts { records } => puts += records.len(),
                Record::Capability { .. } => panic!("none was allowed"),
            })
            .await
            .unwrap();
        assert_eq!((found, puts), (vec![(5, 0)], 2));
        assert_eq!(bytes, [(5, 1024), (6, 2048)]);
        let bundles = store.reader.bundles(&[1, 2]).await.unwrap();
        assert_eq!(bundles[1].1[0].1.len(), 2048);
    }

    async fn committed(path: &Path, batches: usize) {
        let mut store = Store::open(path).await.unwrap();
        for _ in 0..batches {
            store.writer.write(&Batch::default()).await.unwrap();
        }
        // As it is after a kill: nothing is folded into the file.
        let kept = [path.to_owned(), beside(path, "-wal")].map(|file| (file.clone(), std::fs::read(file).unwrap()));
        store.reader.close().await.unwrap();
        store.writer.close().await.unwrap();
        for (file, bytes) in kept {
            std::fs::write(file, bytes).unwrap();
        }
    }

    #[tokio::test]
    async fn a_store_that_lacks_what_was_flushed_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("relay.db");
        committed(&path, 3).await;
        let log = std::fs::read(beside(&path, "-wal")).unwrap();
        for lost in [0, log.len() / 2, log.len() - 1] {
            std::fs::write(beside(&path, "-wal"), &log[..lost]).unwrap();
            let refused = Store::open(&path).await.err().unwrap();
            assert!(matches!(refused, StoreError::Damaged { .. }), "{lost}: {refused}");
        }
        std::fs::write(beside(&path, "-wal"), &log).unwrap();
        Store::open(&path).await.unwrap();
    }
}
