//! The rows of what the gate keeps about a request beside the transcript: the ticket that it came with, its standard input, its number, and how it ended.

use sqlx::Row;

use approval::Digest;

use super::{StoreError, Tx, fixed, to_i64};

/// How long a ticket is known, and what became of a request, in ms: longer than a request can live, and its asker can be away.
const TICKET_LIFE: u64 = 7 * 24 * 60 * 60 * 1000;

/// What is kept about a request beside the transcript.
pub struct AskedRow {
    /// The request.
    pub request: Digest,
    /// Whether nobody waits for it: it is redeemed later.
    pub asynchronous: bool,
    /// The digits that only whoever asked is told.
    pub number: Option<String>,
}

impl Tx {
    /// The request that was made of a ticket.
    pub async fn ticketed(&mut self, ticket: &[u8; 16]) -> Result<Option<Digest>, StoreError> {
        let row = sqlx::query("SELECT request FROM ticket WHERE ticket = ?")
            .bind(&ticket[..])
            .fetch_optional(&mut *self.inner)
            .await?;
        row.map(|row| Ok(Digest(fixed(row.get(0), "a request of a ticket")?)))
            .transpose()
    }

    /// Keeps which request was made of a ticket, for a week.
    pub async fn set_ticket(&mut self, ticket: &[u8; 16], request: &Digest, now: u64) -> Result<(), StoreError> {
        sqlx::query("DELETE FROM ticket WHERE made < ?")
            .bind(to_i64(now.saturating_sub(TICKET_LIFE)))
            .execute(&mut *self.inner)
            .await?;
        sqlx::query("INSERT INTO ticket (ticket, request, made) VALUES (?, ?, ?)")
            .bind(&ticket[..])
            .bind(&request.as_bytes()[..])
            .bind(to_i64(now))
            .execute(&mut *self.inner)
            .await?;
        Ok(())
    }

    /// Keeps what a request needs beside the transcript, until it ends.
    pub async fn add_asked(&mut self, row: &AskedRow, stdin: Option<&[u8]>, now: u64) -> Result<(), StoreError> {
        sqlx::query("DELETE FROM asked WHERE ended < ?")
            .bind(to_i64(now.saturating_sub(TICKET_LIFE)))
            .execute(&mut *self.inner)
            .await?;
        sqlx::query("INSERT INTO asked (request, asynchronous, number, stdin) VALUES (?, ?, ?, ?)")
            .bind(&row.request.as_bytes()[..])
            .bind(row.asynchronous)
            .bind(&row.number)
            .bind(stdin)
            .execute(&mut *self.inner)
            .await?;
        Ok(())
    }

    /// What is kept about the requests that haven't ended.
    pub async fn asked(&mut self) -> Result<Vec<AskedRow>, StoreError> {
        let rows = sqlx::query("SELECT request, asynchronous, number FROM asked WHERE ended IS NULL")
            .fetch_all(&mut *self.inner)
            .await?;
        rows.into_iter()
            .map(|row| {
                Ok(AskedRow {
                    request: Digest(fixed(row.get(0), "a request")?),
                    asynchronous: row.get(1),
                    number: row.get(2),
                })
            })
            .collect()
    }

    /// The requests, open or ended, whose digest begins with these hex digits; two at most.
    pub async fn asked_like(&mut self, beginning: &str) -> Result<Vec<Digest>, StoreError> {
        // Digits only: nothing in it means anything to LIKE.
        if !beginning.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Ok(Vec::new());
        }
        let rows = sqlx::query("SELECT request FROM asked WHERE hex(request) LIKE ? || '%' LIMIT 2")
            .bind(beginning)
            .fetch_all(&mut *self.inner)
            .await?;
        rows.into_iter()
            .map(|row| Ok(Digest(fixed(row.get(0), "a request")?)))
            .collect()
    }

    /// What the command of a request is to read.
    pub async fn stdin(&mut self, request: &Digest) -> Result<Option<Vec<u8>>, StoreError> {
        let row = sqlx::query("SELECT stdin FROM asked WHERE request = ?")
            .bind(&request.as_bytes()[..])
            .fetch_optional(&mut *self.inner)
            .await?;
        Ok(row.and_then(|row| row.get(0)))
    }

    /// A request ended: what it needed is deleted, and how it ended is kept.
    pub async fn asked_ended(&mut self, request: &Digest, standing: &str, now: u64) -> Result<(), StoreError> {
        sqlx::query("UPDATE asked SET number = NULL, stdin = NULL, standing = ?, ended = ? WHERE request = ?")
            .bind(standing)
            .bind(to_i64(now))
            .bind(&request.as_bytes()[..])
            .execute(&mut *self.inner)
            .await?;
        Ok(())
    }

    /// How a request ended, if it did and that is still known.
    pub async fn asked_standing(&mut self, request: &Digest) -> Result<Option<String>, StoreError> {
        let row = sqlx::query("SELECT standing FROM asked WHERE request = ?")
            .bind(&request.as_bytes()[..])
            .fetch_optional(&mut *self.inner)
            .await?;
        Ok(row.and_then(|row| row.get(0)))
    }
}
