//! A whole store as rows, to be copied from or to; only while no relay runs on it.
//!
//! What is copied where is deliberately not here (see `migrate`).

use sqlx::sqlite::{SqliteConnection, SqliteRow};
use sqlx::{QueryBuilder, Row, Sqlite};
use wire::frame::PutId;

use super::read::{array, number};
use super::{Store, StoreError, signed, suspect};
use crate::migrate::{CapabilityRow, EnvelopeRow, MailboxRow, PutRow};

/// Rows in one statement: SQLite binds at most 32,766 values.
const ROWS: i64 = 1000;

impl Store {
    pub(crate) async fn is_empty(&mut self) -> Result<bool, StoreError> {
        let used: Result<bool, _> = sqlx::query_scalar(
            "SELECT EXISTS (SELECT 1 FROM mailboxes) OR EXISTS (SELECT 1 FROM envelopes) OR EXISTS (SELECT 1 FROM puts)",
        )
        .fetch_one(self.connection())
        .await;
        used.map(|used| !used).map_err(|error| self.failed(error))
    }

    /// Everything written from here to [`Store::commit`] is there as a whole or not at all.
    pub(crate) async fn begin(&mut self) -> Result<(), StoreError> {
        self.run("BEGIN IMMEDIATE").await
    }

    pub(crate) async fn commit(&mut self) -> Result<(), StoreError> {
        self.run("COMMIT").await
    }

    pub(crate) async fn close(self) -> Result<(), StoreError> {
        let Self { writer, reader } = self;
        let path = reader.path.clone();
        let closed = async {
            reader.close().await?;
            writer.close().await
        };
        closed.await.map_err(|error| suspect(&path, error))
    }

    fn connection(&mut self) -> &mut SqliteConnection {
        &mut self.writer.connection
    }

    fn failed(&self, error: sqlx::Error) -> StoreError {
        suspect(&self.reader.path, error)
    }

    async fn run(&mut self, statement: &'static str) -> Result<(), StoreError> {
        let done = sqlx::query(statement).execute(self.connection()).await;
        done.map(drop).map_err(|error| self.failed(error))
    }

    async fn read<T>(
        &mut self,
        query: sqlx::query::Query<'_, Sqlite, sqlx::sqlite::SqliteArguments>,
        row: impl Fn(&SqliteRow) -> Result<T, sqlx::Error>,
    ) -> Result<Vec<T>, StoreError> {
        let rows = query.bind(ROWS).fetch_all(self.connection()).await;
        let rows = rows.and_then(|rows| rows.iter().map(row).collect());
        rows.map_err(|error| self.failed(error))
    }

    async fn add(&mut self, mut query: QueryBuilder<Sqlite>) -> Result<(), StoreError> {
        let done = query.build().persistent(false).execute(self.connection()).await;
        done.map(drop).map_err(|error| self.failed(error))
    }

    /// Mailboxes whose number is above `after`, some of them.
    pub(crate) async fn mailboxes(&mut self, after: i64) -> Result<Vec<MailboxRow>, StoreError> {
        let query = sqlx::query(
            "SELECT number, key, next_sequence, closed, seen FROM mailboxes WHERE number > ? ORDER BY number LIMIT ?",
        );
        self.read(query.bind(after), |row| {
            Ok(MailboxRow {
                number: row.try_get(0)?,
                key: array(row, 1)?,
                next_sequence: number(row, 2)?,
                closed: row.try_get(3)?,
                seen: row.try_get(4)?,
            })
        })
        .await
    }

    /// Capabilities whose number is above `after`, some of them.
    pub(crate) async fn capabilities(&mut self, after: i64) -> Result<Vec<CapabilityRow>, StoreError> {
        let query = sqlx::query(
            "SELECT number, mailbox, hash, max_envelopes, max_bytes FROM capabilities WHERE number > ? ORDER BY number LIMIT ?",
        );
        self.read(query.bind(after), |row| {
            Ok(CapabilityRow {
                number: row.try_get(0)?,
                mailbox: row.try_get(1)?,
                hash: array(row, 2)?,
                max_envelopes: row.try_get(3)?,
                max_bytes: row.try_get(4)?,
            })
        })
        .await
    }

    /// Envelopes behind the last `number` copied, which is moved on; some of them.
    pub(crate) async fn envelopes(&mut self, after: &mut i64) -> Result<Vec<EnvelopeRow>, StoreError> {
        let query = sqlx::query(
            "SELECT number, mailbox, sequence, capability, received, expires, body FROM envelopes \
             WHERE number > ? ORDER BY number LIMIT ?",
        );
        let rows = self.read(query.bind(*after), |row| {
            let envelope = EnvelopeRow {
                mailbox: row.try_get(1)?,
                sequence: row.try_get(2)?,
                capability: row.try_get(3)?,
                received: row.try_get(4)?,
                expires: row.try_get(5)?,
                body: row.try_get(6)?,
            };
            Ok((row.try_get::<i64, _>(0)?, envelope))
        });
        let rows = rows.await?;
        *after = rows.last().map_or(*after, |(number, _)| *number);
        Ok(rows.into_iter().map(|(_, envelope)| envelope).collect())
    }

    /// Puts behind this mailbox and id, some of them.
    pub(crate) async fn puts(&mut self, (mailbox, id): (i64, PutId)) -> Result<Vec<PutRow>, StoreError> {
        let query = sqlx::query(
            "SELECT mailbox, id, digest, expires, how FROM puts WHERE (mailbox, id) > (?, ?) ORDER BY mailbox, id LIMIT ?",
        );
        self.read(query.bind(mailbox).bind(id.to_vec()), |row| {
            Ok(PutRow {
                mailbox: row.try_get(0)?,
                id: array(row, 1)?,
                digest: array(row, 2)?,
                expires: row.try_get(3)?,
                how: row.try_get(4)?,
            })
        })
        .await
    }

    pub(crate) async fn add_mailboxes(&mut self, rows: &[MailboxRow]) -> Result<(), StoreError> {
        let mut query = QueryBuilder::new("INSERT INTO mailboxes (number, key, next_sequence, closed, seen) ");
        query.push_values(rows, |mut values, row| {
            values
                .push_bind(row.number)
                .push_bind(row.key.to_vec())
                .push_bind(signed(row.next_sequence))
                .push_bind(row.closed)
                .push_bind(row.seen);
        });
        self.add(query).await
    }

    pub(crate) async fn add_capabilities(&mut self, rows: &[CapabilityRow]) -> Result<(), StoreError> {
        let mut query =
            QueryBuilder::new("INSERT INTO capabilities (number, mailbox, hash, max_envelopes, max_bytes) ");
        query.push_values(rows, |mut values, row| {
            values
                .push_bind(row.number)
                .push_bind(row.mailbox)
                .push_bind(row.hash.to_vec())
                .push_bind(row.max_envelopes)
                .push_bind(row.max_bytes);
        });
        self.add(query).await
    }

    /// `last` is the number of the envelope written last; those of one mailbox have to come in order.
    pub(crate) async fn add_envelopes(&mut self, rows: &[EnvelopeRow], last: &mut i64) -> Result<(), StoreError> {
        let mut query = QueryBuilder::new(
            "INSERT INTO envelopes (number, mailbox, sequence, capability, received, expires, body) ",
        );
        query.push_values(rows, |mut values, row| {
            *last += 1;
            values
                .push_bind(*last)
                .push_bind(row.mailbox)
                .push_bind(row.sequence)
                .push_bind(row.capability)
                .push_bind(row.received)
                .push_bind(row.expires)
                .push_bind(row.body.clone());
        });
        self.add(query).await
    }

    pub(crate) async fn add_puts(&mut self, rows: &[PutRow]) -> Result<(), StoreError> {
        let mut query = QueryBuilder::new("INSERT INTO puts (mailbox, id, digest, expires, how) ");
        query.push_values(rows, |mut values, row| {
            values
                .push_bind(row.mailbox)
                .push_bind(row.id.to_vec())
                .push_bind(row.digest.to_vec())
                .push_bind(row.expires)
                .push_bind(row.how);
        });
        self.add(query).await
    }
}
