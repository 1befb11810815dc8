//! A whole store as rows, to be copied from or to; only while no relay runs on it.
//!
//! What is copied where is deliberately not here (see `migrate`).

use bytes::Bytes;
use sqlx::sqlite::{SqliteConnection, SqliteRow};
use sqlx::{QueryBuilder, Row, Sqlite};
use wire::frame::Stored;

use super::read::{array, decode, number, puts};
use super::rows::{BundleRow, Head, PutRecord, PutsRows, apart};
use super::write::{add_bundles, add_puts};
use super::{Store, StoreError, signed, suspect};
use crate::migrate::{CapabilityRow, EnvelopeRow, MailboxRow, PutRow};

/// Rows in one statement: SQLite binds at most 32,766 values.
const ROWS: i64 = 1000;

/// The same of rows that hold many.
const LARGE_ROWS: i64 = 64;

impl Store {
    pub(crate) async fn is_empty(&mut self) -> Result<bool, StoreError> {
        let used: Result<bool, _> = sqlx::query_scalar(
            "SELECT EXISTS (SELECT 1 FROM mailboxes) OR EXISTS (SELECT 1 FROM bundles) OR EXISTS (SELECT 1 FROM remembered)",
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

    /// Envelopes behind the last bundle copied, whose number is moved on; some of them. None only at the end.
    pub(crate) async fn envelopes(&mut self, after: &mut i64) -> Result<Vec<EnvelopeRow>, StoreError> {
        loop {
            // A mailbox that isn't there left litter.
            let query = sqlx::query(
                "SELECT b.number, b.mailbox, b.heads, b.bodies, m.acknowledged FROM bundles b \
                 JOIN mailboxes m ON m.number = b.mailbox WHERE b.number > ? ORDER BY b.number LIMIT ?",
            );
            let query = query.bind(*after).bind(LARGE_ROWS);
            let bundles = query.fetch_all(self.connection()).await;
            let bundles = bundles.and_then(|rows| rows.iter().map(bundle).collect::<Result<Vec<_>, _>>());
            let bundles = bundles.map_err(|error| self.failed(error))?;
            let Some((last, _)) = bundles.last() else {
                return Ok(Vec::new());
            };
            *after = *last;
            let envelopes: Vec<_> = bundles.into_iter().flat_map(|(_, envelopes)| envelopes).collect();
            if !envelopes.is_empty() {
                return Ok(envelopes);
            }
        }
    }

    /// Puts behind the last row copied, whose number is moved on; some of them.
    pub(crate) async fn puts(&mut self, after: &mut i64) -> Result<Vec<PutRow>, StoreError> {
        let query = sqlx::query(
            "SELECT number, records, expires, how FROM remembered WHERE number > ? ORDER BY number LIMIT 1",
        );
        let row = query.bind(*after).fetch_optional(self.connection()).await;
        let row = row.and_then(|row| {
            row.map(|row| Ok((row.try_get::<i64, _>(0)?, puts(&row, 1)?)))
                .transpose()
        });
        let Some((number, records)) = row.map_err(|error| self.failed(error))? else {
            return Ok(Vec::new());
        };
        *after = number;
        let put = |record: &PutRecord| PutRow {
            mailbox: record.mailbox,
            id: record.id,
            content: record.content,
            expires: signed(record.expires),
            how: record.how.code().into(),
        };
        Ok(records.iter().map(put).collect())
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

    /// `last` is the number of the bundle written last; envelopes of one mailbox have to come in order.
    pub(crate) async fn add_envelopes(&mut self, rows: &[EnvelopeRow], last: &mut i64) -> Result<(), StoreError> {
        let mut bundles: Vec<BundleRow> = Vec::new();
        for row in rows {
            let unsigned = |number: i64| u64::try_from(number).unwrap_or(0);
            let head = Head {
                sequence: unsigned(row.sequence),
                capability: row.capability,
                received: unsigned(row.received),
                expires: unsigned(row.expires),
                bytes: u32::try_from(row.body.len()).unwrap_or(u32::MAX),
            };
            let body = Bytes::copy_from_slice(&row.body);
            match bundles.last_mut() {
                Some(bundle) if bundle.mailbox == row.mailbox && bundle.admits(&head) => bundle.add(&head, body),
                _ => {
                    *last += 1;
                    bundles.push(BundleRow::new(*last, row.mailbox, &head, body));
                }
            }
        }
        let added = add_bundles(self.connection(), &bundles).await;
        added.map_err(|error| self.failed(error))
    }

    pub(crate) async fn add_puts(&mut self, rows: &[PutRow], now: u64) -> Result<(), StoreError> {
        let record = |row: &PutRow| PutRecord {
            mailbox: row.mailbox,
            id: row.id,
            content: row.content,
            expires: u64::try_from(row.expires).unwrap_or(0),
            how: u8::try_from(row.how)
                .ok()
                .and_then(Stored::from_code)
                .unwrap_or(Stored::Flushed),
        };
        let mut puts = PutsRows::default();
        for row in rows {
            puts.add(&record(row), now);
        }
        let added = add_puts(self.connection(), puts.rows()).await;
        added.map_err(|error| self.failed(error))
    }
}

/// What still waits of a bundle.
fn bundle(row: &SqliteRow) -> Result<(i64, Vec<EnvelopeRow>), sqlx::Error> {
    let (number, mailbox) = (row.try_get(0)?, row.try_get(1)?);
    let acknowledged: u64 = self::number(row, 4)?;
    let envelopes = apart(row.try_get(2)?, Bytes::from(row.try_get::<Vec<u8>, _>(3)?)).map_err(decode)?;
    let waiting = envelopes.into_iter().filter(|(head, _)| head.sequence > acknowledged);
    let envelope = |(head, body): (Head, Bytes)| EnvelopeRow {
        mailbox,
        sequence: signed(head.sequence),
        capability: head.capability,
        received: signed(head.received),
        expires: signed(head.expires),
        body: body.into(),
    };
    Ok((number, waiting.map(envelope).collect()))
}
