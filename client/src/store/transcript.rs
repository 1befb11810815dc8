//! The rows of the transcript: its entries and its checkpoints, as they were signed. Whether an entry may follow is for the replay to say.

use sqlx::Row;

use approval::checkpoint::Checkpoint;
use approval::{Digest, Signed};

use super::{StoreError, Tx, fixed, to_i64, to_u64};

impl Tx {
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
}
