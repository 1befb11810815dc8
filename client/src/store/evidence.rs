//! The rows of evidence against a peer: what was seen, and the bytes that show it. What counts as evidence is for `member` to say.

use sqlx::Row;

use super::{StoreError, Tx, to_i64, to_u64};

/// Evidence against a peer.
pub struct Evidence {
    /// When it was seen, wall time in ms.
    pub time: u64,
    /// What it shows.
    pub what: String,
}

impl Tx {
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
}
