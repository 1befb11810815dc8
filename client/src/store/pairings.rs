//! The rows of invites, of answers to one, and of devices that wait. Their state is a text that only the pairing code understands.

use sqlx::Row;

use wire::mailbox::MailboxId;

use super::{StoreError, Tx, fixed, to_i64, to_u64};

/// An invite or an answer to one, in the middle of its messages.
pub struct PairingRow {
    /// The invite's mailbox.
    pub mailbox: MailboxId,
    /// When it dies, wall time in ms.
    pub expires: u64,
    /// Its state, as the pairing code serialised it.
    pub state: String,
}

impl Tx {
    /// Open pairings.
    pub async fn pairings(&mut self) -> Result<Vec<PairingRow>, StoreError> {
        let rows = sqlx::query("SELECT mailbox, expires, state FROM pairing")
            .fetch_all(&mut *self.inner)
            .await?;
        rows.into_iter()
            .map(|row| {
                let mailbox = MailboxId::from_bytes(fixed(row.get(0), "a mailbox")?)
                    .map_err(|_| StoreError::Row { what: "a mailbox" })?;
                Ok(PairingRow {
                    mailbox,
                    expires: to_u64(row.get(1)),
                    state: row.get(2),
                })
            })
            .collect()
    }

    /// Adds or replaces a pairing.
    pub async fn set_pairing(&mut self, row: &PairingRow) -> Result<(), StoreError> {
        sqlx::query("INSERT OR REPLACE INTO pairing (mailbox, expires, state) VALUES (?, ?, ?)")
            .bind(&row.mailbox.as_bytes()[..])
            .bind(to_i64(row.expires))
            .bind(&row.state)
            .execute(&mut *self.inner)
            .await?;
        Ok(())
    }

    /// Ends a pairing.
    pub async fn remove_pairing(&mut self, mailbox: &MailboxId) -> Result<(), StoreError> {
        sqlx::query("DELETE FROM pairing WHERE mailbox = ?")
            .bind(&mailbox.as_bytes()[..])
            .execute(&mut *self.inner)
            .await?;
        Ok(())
    }
}
