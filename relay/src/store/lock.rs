//! The file beside the store that keeps other relays out, and in which is noted how many batches the store has: SQLite forgives a
//! write-ahead log that is gone, cut short or of another time, and then silently has fewer.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

use rustix::fs::{FlockOperation, flock};

use super::StoreError;
use super::open::{beside, io_error};

/// The lock, until dropped. A file of its own: closing another descriptor of the database would drop SQLite's own locks on it.
pub(super) struct Lock {
    file: File,
}

impl Lock {
    pub(super) fn take(path: &Path) -> Result<Self, StoreError> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(beside(path, ".lock"))
            .map_err(|source| io_error(path, source))?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Self { file }),
            Err(rustix::io::Errno::WOULDBLOCK) => Err(StoreError::InUse { path: path.to_owned() }),
            Err(error) => Err(io_error(path, error.into())),
        }
    }

    /// How many batches the store should have at least; none if that was never noted.
    pub(super) fn commits(&self) -> i64 {
        let mut count = [0; 8];
        match self.file.read_exact_at(&mut count, 0) {
            Ok(()) => i64::from_be_bytes(count),
            Err(_) => 0,
        }
    }

    /// Notes how many it has, after they are flushed. Not flushed itself: after a power cut it may say less, which is no harm. Nor
    /// is it, for the same reason, if this can't be written.
    pub(super) fn note(&self, commits: i64) {
        if let Err(error) = self.file.write_all_at(&commits.to_be_bytes(), 0) {
            tracing::warn!(%error, "can't note in the lock file how far the store is");
        }
    }
}
