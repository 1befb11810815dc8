//! Writing one batch in one transaction: few statements, each for many.

use std::sync::LazyLock;

use sqlx::sqlite::SqliteConnection;
use sqlx::{AssertSqlSafe, Connection, QueryBuilder, Sqlite};

use super::rows::{BundleRow, PutsRow};
use super::{Batch, BatchError, Change, Writer, primary_code, signed};

/// Rows in one statement: SQLite binds at most 32,766 values.
const ROWS: usize = 1000;

/// Bundles written by one statement, which is prepared once.
const BUNDLES: usize = 16;

impl Writer {
    /// Writes the batch and flushes it.
    pub(crate) async fn write(&mut self, batch: &Batch) -> Result<(), BatchError> {
        let commits = self.commits + 1;
        let prepared = async {
            sqlx::query("BEGIN IMMEDIATE").execute(&mut self.connection).await?;
            fill(&mut self.connection, batch).await?;
            sqlx::query("UPDATE commits SET count = ?")
                .bind(commits)
                .execute(&mut self.connection)
                .await
        };
        let result = match prepared.await {
            Ok(_) => sqlx::query("COMMIT").execute(&mut self.connection).await.map(drop),
            Err(error) => Err(error),
        };
        let Err(error) = result else {
            self.commits = commits;
            self.lock.note(commits);
            return Ok(());
        };
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

/// A batch that only probes whether the disk is well writes the count of commits, as all do.
async fn fill(connection: &mut SqliteConnection, batch: &Batch) -> Result<(), sqlx::Error> {
    for change in &batch.changes {
        apply(connection, change).await?;
    }
    add_bundles(connection, &batch.bundles).await?;
    add_puts(connection, batch.puts.rows().chain(batch.acknowledged_puts.rows())).await?;
    delete(connection, "DELETE FROM bundles WHERE number IN (", &batch.empty).await?;
    for (mailbox, acknowledged) in &batch.acknowledged {
        sqlx::query("UPDATE mailboxes SET acknowledged = ? WHERE number = ?")
            .bind(signed(*acknowledged))
            .bind(mailbox)
            .execute(&mut *connection)
            .await?;
    }
    for (mailbox, next_sequence) in &batch.reserved {
        sqlx::query("UPDATE mailboxes SET next_sequence = ? WHERE number = ?")
            .bind(signed(*next_sequence))
            .bind(mailbox)
            .execute(&mut *connection)
            .await?;
    }
    delete(connection, "DELETE FROM remembered WHERE number IN (", &batch.forget).await
}

pub(super) async fn add_bundles(connection: &mut SqliteConnection, rows: &[BundleRow]) -> Result<(), sqlx::Error> {
    static MANY: LazyLock<String> = LazyLock::new(|| {
        let rows = ["(?, ?, ?, ?)"; BUNDLES].join(", ");
        format!("INSERT INTO bundles (number, mailbox, heads, bodies) VALUES {rows}")
    });
    let (many, rest) = rows.as_chunks::<BUNDLES>();
    for rows in many {
        let mut query = sqlx::query(AssertSqlSafe(MANY.as_str()));
        for row in rows {
            query = query
                .bind(row.number)
                .bind(row.mailbox)
                .bind(row.heads())
                .bind(row.joined());
        }
        query.execute(&mut *connection).await?;
    }
    for row in rest {
        sqlx::query("INSERT INTO bundles (number, mailbox, heads, bodies) VALUES (?, ?, ?, ?)")
            .bind(row.number)
            .bind(row.mailbox)
            .bind(row.heads())
            .bind(row.joined())
            .execute(&mut *connection)
            .await?;
    }
    Ok(())
}

pub(super) async fn add_puts<'a>(
    connection: &mut SqliteConnection,
    rows: impl Iterator<Item = &'a PutsRow>,
) -> Result<(), sqlx::Error> {
    for row in rows {
        sqlx::query("INSERT INTO remembered (expires, how, records) VALUES (?, ?, ?)")
            .bind(signed(row.expires))
            .bind(i64::from(row.how.code()))
            .bind(row.records())
            .execute(&mut *connection)
            .await?;
    }
    Ok(())
}

async fn delete(
    connection: &mut SqliteConnection,
    statement: &'static str,
    numbers: &[i64],
) -> Result<(), sqlx::Error> {
    for numbers in numbers.chunks(ROWS) {
        let mut query = QueryBuilder::<Sqlite>::new(statement);
        let mut list = query.separated(", ");
        for number in numbers {
            list.push_bind(*number);
        }
        query.push(")");
        query.build().persistent(false).execute(&mut *connection).await?;
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
            .bind(key.as_slice())
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
            .bind(hash.as_slice())
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
        Change::Close {
            mailbox,
            at,
            goes_on_as,
        } => {
            // The bundles are deleted by their numbers; the puts, which name the old number, count no more.
            sqlx::query("DELETE FROM capabilities WHERE mailbox = ?")
                .bind(mailbox)
                .execute(&mut *connection)
                .await?;
            sqlx::query("UPDATE mailboxes SET closed = ?, number = ? WHERE number = ?")
                .bind(signed(*at))
                .bind(goes_on_as)
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

    use wire::frame::Stored;

    use super::*;
    use crate::store::rows::{Head, PutRecord};
    use crate::store::{Record, Store};

    fn batch(number: i64, bytes: u32) -> Batch {
        let head = Head {
            sequence: 1,
            capability: 1,
            received: 1,
            expires: 5,
            bytes,
        };
        let put = PutRecord {
            mailbox: 1,
            id: [u8::try_from(number).unwrap(); 16],
            content: 1,
            expires: 5,
            how: Stored::Flushed,
        };
        let mut batch = Batch::default();
        batch
            .bundles
            .push(BundleRow::new(number, 1, &head, vec![0; bytes as usize].into()));
        batch.puts.add(&put, 1);
        batch
    }

    #[tokio::test]
    async fn a_full_disk_refuses_the_whole_batch_and_takes_the_next_that_fits() {
        let folder = tempfile::tempdir().unwrap();
        let mut store = Store::open(&folder.path().join("relay.db")).await.unwrap();
        sqlx::query("PRAGMA max_page_count = 25")
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
                Record::Bundle { number, heads, .. } => numbers.push((number, heads[0].bytes)),
                Record::Puts { records } => assert_eq!(records[0].id, [2; 16]),
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
