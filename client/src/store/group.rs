//! The rows of the group: its state, as a map that only `channel` understands, and the messages that are kept back for a gap.

use sqlx::Row;

use super::{StoreError, Tx};
use crate::channel::Mls;

/// Group messages kept back for a gap (PROTOCOL.md section 14).
const MAX_HELD: i64 = 64;

impl Tx {
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
}
