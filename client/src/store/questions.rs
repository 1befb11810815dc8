//! The questions of a device: the rows of the outbox that the transcript or a refusal answers, and the refusals. When they are put is the outbox's.

use sqlx::Row;

use wire::envelope::Envelope;

use super::{Outgoing, StoreError, Tx, to_i64};

impl Tx {
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
