//! The relay's SQLite file: what is in it, what goes wrong with it, and what is written to it at a time.
//!
//! What goes into a batch and what is answered after it are deliberately not here (see `office`). A file that isn't ours,
//! is damaged or is in use is refused and never replaced: an empty store would forget which puts it knows.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use sqlx::sqlite::SqliteConnection;

use crate::shared::Failure;

mod copy;
mod lock;
mod open;
mod read;
pub(crate) mod rows;
mod upgrade;
mod write;

use lock::Lock;
pub(crate) use read::Found;
use rows::{BundleRow, Head, PutRecord, PutsRows};

/// The newest layout that this program knows.
const LAYOUT: i64 = 3;

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
    /// The database can't be reached, or refuses.
    #[error("store: {detail}")]
    Database {
        /// What it says, which holds no password.
        detail: String,
    },
    /// A newer relay made the database's tables.
    #[error("the database has layout {found}, which is newer than this relay")]
    NewerDatabase {
        /// Its layout.
        found: i64,
    },
    /// Somebody copies the database.
    #[error("the database is being copied by `countersign-relay migrate`")]
    BeingCopied,
    /// Nodes run on a database that is to be copied.
    #[error("a relay runs on the database")]
    NodesRunning,
}

impl StoreError {
    pub(crate) fn database(failure: &Failure) -> Self {
        Self::Database {
            detail: failure.to_string(),
        }
    }

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
            Self::Database { .. } => "check the address, and that PostgreSQL runs and lets this relay in",
            Self::NewerDatabase { .. } => "run the newer relay",
            Self::BeingCopied => "wait until it is done",
            Self::NodesRunning => "stop every relay on it first",
        }
    }
}

/// What an owner changed.
#[derive(Debug)]
pub(crate) enum Change {
    Open {
        mailbox: i64,
        key: [u8; 32],
        next_sequence: u64,
    },
    Allow {
        mailbox: i64,
        number: i64,
        hash: [u8; 32],
        max_envelopes: u32,
        max_bytes: u64,
    },
    Revoke {
        number: i64,
    },
    /// The mailbox is closed, and goes on under another number: nothing that has the old one counts any more.
    Close {
        mailbox: i64,
        at: u64,
        goes_on_as: i64,
    },
    /// The owner was here.
    Seen {
        mailbox: i64,
        at: u64,
    },
    Forget {
        mailbox: i64,
    },
}

/// What is written in one transaction: the changes in their order, then the rest.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    pub(crate) changes: Vec<Change>,
    /// Envelopes.
    pub(crate) bundles: Vec<BundleRow>,
    /// The memory of their puts…
    pub(crate) puts: PutsRows,
    /// …and of those that were acknowledged before they were flushed.
    pub(crate) acknowledged_puts: PutsRows,
    /// Numbers of bundles to delete.
    pub(crate) empty: Vec<i64>,
    /// How far a mailbox is acknowledged where a bundle is only needed in part.
    pub(crate) acknowledged: BTreeMap<i64, u64>,
    /// First sequence number never given out, for each mailbox where it changes.
    pub(crate) reserved: BTreeMap<i64, u64>,
    /// Numbers of rows of puts that have all expired.
    pub(crate) forget: Vec<i64>,
    /// Write something, whatever else there is: is the disk well again?
    pub(crate) probe: bool,
}

impl Batch {
    pub(crate) fn is_empty(&self) -> bool {
        self.changes.is_empty()
            && self.bundles.is_empty()
            && self.puts.count() == 0
            && self.acknowledged_puts.count() == 0
            && self.empty.is_empty()
            && self.acknowledged.is_empty()
            && self.reserved.is_empty()
            && self.forget.is_empty()
            && !self.probe
    }

    /// How many puts it holds, for the operator.
    pub(crate) fn puts(&self) -> usize {
        self.puts.count() + self.acknowledged_puts.count()
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

/// One mailbox, capability, bundle, or row of puts, as read at the start.
pub(crate) enum Record {
    Mailbox {
        number: i64,
        key: [u8; 32],
        next_sequence: u64,
        acknowledged: u64,
        closed: Option<u64>,
        /// When the owner was last here; 0 if that isn't known.
        seen: u64,
    },
    Capability {
        mailbox: i64,
        number: i64,
        hash: [u8; 32],
        max_envelopes: u32,
        max_bytes: u64,
    },
    Bundle {
        number: i64,
        mailbox: i64,
        heads: Vec<Head>,
    },
    Puts {
        records: Vec<PutRecord>,
    },
}

/// An opened store: the connection that writes, the one that reads, and the lock that keeps other relays out.
pub(crate) struct Store {
    pub(crate) writer: Writer,
    pub(crate) reader: Reader,
}

/// Writes batches. Holds the lock as long as it lives.
pub(crate) struct Writer {
    connection: SqliteConnection,
    lock: Lock,
    /// How many batches were committed.
    commits: i64,
}

/// Reads beside the writer what is committed.
pub(crate) struct Reader {
    connection: SqliteConnection,
    path: PathBuf,
}

fn damaged(path: &Path, detail: &str) -> StoreError {
    StoreError::Damaged {
        path: path.to_owned(),
        detail: detail.to_owned(),
    }
}

/// SQLite's word that the file is malformed is damage, everything else an ordinary failure.
fn suspect(path: &Path, source: sqlx::Error) -> StoreError {
    // SQLITE_CORRUPT and SQLITE_NOTADB. So is a row that isn't as we write them.
    match (primary_code(&source), &source) {
        (Some(11 | 26), _) | (_, sqlx::Error::Decode(_) | sqlx::Error::ColumnDecode { .. }) => {
            damaged(path, &source.to_string())
        }
        _ => StoreError::Sql {
            path: path.to_owned(),
            source,
        },
    }
}

fn primary_code(error: &sqlx::Error) -> Option<u32> {
    let code: u32 = error.as_database_error()?.code()?.parse().ok()?;
    Some(code & 0xff)
}

/// SQLite's integers are signed; none of ours comes near the sign.
pub(crate) fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}
