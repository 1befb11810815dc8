//! Writing one batch in one transaction, a statement for many rows: a statement for each would cost several times as much.

use sqlx::sqlite::SqliteConnection;
use sqlx::{Connection, QueryBuilder, Sqlite};
use wire::frame::Stored;

use super::{Batch, BatchError, Change, Writer, primary_code, signed};

/// Rows in one statement: SQLite binds at most 32,766 values, and a row has up to 7.
const ROWS: usize = 1000;

impl Writer {
    /// Writes the batch and flushes it.
    pub(crate) async fn write(&mut self, batch: &Batch) -> Result<(), BatchError> {
        let prepared = async {
            sqlx::query("BEGIN IMMEDIATE").execute(&mut self.connection).await?;
            fill(&mut self.connection, batch).await
        };
        let result = match prepared.await {
            Ok(()) => sqlx::query("COMMIT").execute(&mut self.connection).await.map(drop),
            Err(error) => Err(error),
        };
        let Err(error) = result else { return Ok(()) };
        // Only a full disk (SQLITE_FULL), or another program's lock (BUSY), leaves no doubt. After a failed fsync nothing
        // that the kernel says later can be trusted.
        if !matches!(primary_code(&error), Some(13 | 5)) {
            return Err(BatchError::Unknown(error));
        }
        // SQLite rolls back by itself in some cases; then this says that there is no transaction.
        match sqlx::query("ROLLBACK").execute(&mut self.connection).await {
            Err(rollback) if primary_code(&rollback) != Some(1) => Err(BatchError::Unknown(rollback)),
            _ => Err(BatchError::Refused(error)),
        }
    }

    /// Folds the log into the file and closes it.
    pub(crate) async fn close(self) -> Result<(), sqlx::Error> {
        self.connection.close().await
    }
}

async fn fill(connection: &mut SqliteConnection, batch: &Batch) -> Result<(), sqlx::Error> {
    if batch.probe {
        // Writes the first page, always.
        sqlx::query("PRAGMA user_version = 1").execute(&mut *connection).await?;
    }
    for change in &batch.changes {
        apply(connection, change).await?;
    }
    let envelopes: Vec<_> = batch
        .puts
        .iter()
        .flatten()
        .filter_map(|put| put.envelope.as_ref().map(|envelope| (put, envelope)))
        .collect();
    for rows in envelopes.chunks(ROWS) {
        let mut query = QueryBuilder::<Sqlite>::new(
            "INSERT INTO envelopes (number, mailbox, sequence, capability, received, expires, body) ",
        );
        query.push_values(rows, |mut row, (put, envelope)| {
            row.push_bind(envelope.number)
                .push_bind(put.mailbox)
                .push_bind(signed(envelope.sequence))
                .push_bind(envelope.capability)
                .push_bind(signed(envelope.received))
                .push_bind(signed(put.expires))
                .push_bind(envelope.body.to_vec());
        });
        query.build().persistent(false).execute(&mut *connection).await?;
    }
    let mut puts: Vec<_> = batch.puts.iter().flatten().collect();
    // In the table's own order: neighbours share a page. Stable, because the later of two is the one to stay.
    puts.sort_by_key(|put| (put.mailbox, put.id));
    for rows in puts.chunks(ROWS) {
        // An id may come again after its ttl, before it was swept.
        let mut query = QueryBuilder::<Sqlite>::new("INSERT OR REPLACE INTO puts (mailbox, id, digest, expires, how) ");
        query.push_values(rows, |mut row, put| {
            let how = if put.envelope.is_some() {
                Stored::Flushed
            } else {
                Stored::Acknowledged
            };
            row.push_bind(put.mailbox)
                .push_bind(put.id.to_vec())
                .push_bind(put.digest.to_vec())
                .push_bind(signed(put.expires))
                .push_bind(i64::from(how.code()));
        });
        query.build().persistent(false).execute(&mut *connection).await?;
    }
    for numbers in batch.deleted.chunks(ROWS) {
        let mut query = QueryBuilder::<Sqlite>::new("DELETE FROM envelopes WHERE number IN (");
        let mut list = query.separated(", ");
        for number in numbers {
            list.push_bind(*number);
        }
        query.push(")");
        query.build().persistent(false).execute(&mut *connection).await?;
    }
    for (mailbox, next_sequence) in &batch.reserved {
        sqlx::query("UPDATE mailboxes SET next_sequence = ? WHERE number = ?")
            .bind(signed(*next_sequence))
            .bind(mailbox)
            .execute(&mut *connection)
            .await?;
    }
    for (mailbox, id) in &batch.forget {
        sqlx::query("DELETE FROM puts WHERE mailbox = ? AND id = ? AND expires <= ?")
            .bind(mailbox)
            .bind(id.to_vec())
            .bind(signed(batch.forget_before))
            .execute(&mut *connection)
            .await?;
    }
    Ok(())
}

async fn apply(connection: &mut SqliteConnection, change: &Change) -> Result<(), sqlx::Error> {
    match change {
        Change::Open {
            mailbox,
            key,
            next_sequence,
        } => {
            sqlx::query(
                "INSERT INTO mailboxes (number, key, next_sequence) VALUES (?, ?, ?) ON CONFLICT (number) DO UPDATE SET closed = NULL",
            )
            .bind(mailbox)
            .bind(key.to_vec())
            .bind(signed(*next_sequence))
            .execute(connection)
            .await?;
        }
        Change::Allow {
            mailbox,
            number,
            hash,
            max_envelopes,
            max_bytes,
        } => {
            sqlx::query(
                "INSERT INTO capabilities (number, mailbox, hash, max_envelopes, max_bytes) VALUES (?, ?, ?, ?, ?) \
                 ON CONFLICT (number) DO UPDATE SET max_envelopes = excluded.max_envelopes, max_bytes = excluded.max_bytes",
            )
            .bind(number)
            .bind(mailbox)
            .bind(hash.to_vec())
            .bind(max_envelopes)
            .bind(signed(*max_bytes))
            .execute(connection)
            .await?;
        }
        Change::Revoke { number } => {
            sqlx::query("DELETE FROM capabilities WHERE number = ?")
                .bind(number)
                .execute(connection)
                .await?;
        }
        Change::Close { mailbox, at } => {
            // The envelopes are deleted by their numbers.
            sqlx::query("DELETE FROM capabilities WHERE mailbox = ?")
                .bind(mailbox)
                .execute(&mut *connection)
                .await?;
            sqlx::query("DELETE FROM puts WHERE mailbox = ?")
                .bind(mailbox)
                .execute(&mut *connection)
                .await?;
            sqlx::query("UPDATE mailboxes SET closed = ? WHERE number = ?")
                .bind(signed(*at))
                .bind(mailbox)
                .execute(connection)
                .await?;
        }
        Change::Seen { mailbox, at } => {
            sqlx::query("UPDATE mailboxes SET seen = ? WHERE number = ?")
                .bind(signed(*at))
                .bind(mailbox)
                .execute(connection)
                .await?;
        }
        Change::Forget { mailbox } => {
            sqlx::query("DELETE FROM mailboxes WHERE number = ? AND closed IS NOT NULL")
                .bind(mailbox)
                .execute(connection)
                .await?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

    use super::*;
    use crate::store::{EnvelopeRow, PutRow, Record, Store};

    fn batch(number: i64, length: usize) -> Batch {
        Batch {
            puts: vec![Some(PutRow {
                mailbox: 1,
                id: [u8::try_from(number).unwrap(); 16],
                digest: [0; 32],
                expires: 5,
                envelope: Some(EnvelopeRow {
                    number,
                    sequence: 1,
                    capability: 1,
                    received: 1,
                    body: vec![0; length].into(),
                }),
            })],
            ..Batch::default()
        }
    }

    #[tokio::test]
    async fn a_full_disk_refuses_the_whole_batch_and_takes_the_next_that_fits() {
        let folder = tempfile::tempdir().unwrap();
        let mut store = Store::open(&folder.path().join("relay.db")).await.unwrap();
        sqlx::query("PRAGMA max_page_count = 20")
            .execute(&mut store.writer.connection)
            .await
            .unwrap();
        let refused = store.writer.write(&batch(1, 1_000_000)).await;
        assert!(matches!(refused, Err(BatchError::Refused(_))), "{refused:?}");
        store.writer.write(&batch(2, 1024)).await.unwrap();
        let mut numbers = Vec::new();
        store
            .reader
            .load(|record| match record {
                Record::Envelope { number, bytes, .. } => numbers.push((number, bytes)),
                Record::Put { id, .. } => assert_eq!(id, [2; 16]),
                _ => panic!("nothing else was written"),
            })
            .await
            .unwrap();
        assert_eq!(numbers, [(2, 1024)]);
    }

    #[tokio::test]
    async fn a_constraint_that_breaks_is_no_full_disk() {
        let folder = tempfile::tempdir().unwrap();
        let mut store = Store::open(&folder.path().join("relay.db")).await.unwrap();
        store.writer.write(&batch(1, 1024)).await.unwrap();
        // The same number again: our own mistake, after which nothing is known.
        let result = store.writer.write(&batch(1, 1024)).await;
        assert!(matches!(result, Err(BatchError::Unknown(_))), "{result:?}");
    }
}
