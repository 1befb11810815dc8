//! Reading the store: all of it at the start, then what isn't in memory.

use bytes::Bytes;
use futures_util::TryStreamExt;
use sqlx::sqlite::SqliteRow;
use sqlx::{Connection, QueryBuilder, Row, Sqlite};
use wire::frame::Stored;

use super::rows::{Head, PutRecord, apart, heads_of, records};
use super::{Reader, Record, StoreError, primary_code, signed, suspect};

/// Rows of expired puts taken out at a time.
const EXPIRED_ROWS: usize = 64;

/// A bundle as it was read.
pub(crate) type Found = (i64, Vec<(Head, Bytes)>);

impl Reader {
    /// Hands every record to `take`: mailboxes first, bundles in the order of their acceptance.
    pub(crate) async fn load(&mut self, mut take: impl FnMut(Record)) -> Result<(), StoreError> {
        let path = self.path.clone();
        let sql = |source| suspect(&path, source);
        for (query, record) in RECORDS {
            let mut rows = sqlx::query(query).fetch(&mut self.connection);
            while let Some(row) = rows.try_next().await.map_err(sql)? {
                take(record(&row).map_err(sql)?);
            }
        }
        Ok(())
    }

    /// These bundles, as many as are there.
    pub(crate) async fn bundles(&mut self, numbers: &[i64]) -> Result<Vec<Found>, sqlx::Error> {
        let mut query = QueryBuilder::<Sqlite>::new("SELECT number, heads, bodies FROM bundles WHERE number IN (");
        let mut list = query.separated(", ");
        for number in numbers {
            list.push_bind(*number);
        }
        query.push(") ORDER BY number");
        let rows = query.build().persistent(false).fetch_all(&mut self.connection).await?;
        let mut found = Vec::new();
        for row in rows {
            let bodies = Bytes::from(row.try_get::<Vec<u8>, _>(2)?);
            found.push((row.try_get(0)?, apart(row.try_get(1)?, bodies).map_err(decode)?));
        }
        Ok(found)
    }

    /// Some of the rows whose puts have all expired, by their numbers, and whether there may be more.
    pub(crate) async fn expired_puts(&mut self, now: u64) -> Result<(Vec<i64>, bool), sqlx::Error> {
        let rows: Vec<i64> =
            sqlx::query_scalar("SELECT number FROM remembered WHERE expires <= ? ORDER BY expires LIMIT ?")
                .bind(signed(now))
                .bind(i64::try_from(EXPIRED_ROWS).unwrap_or(i64::MAX))
                .fetch_all(&mut self.connection)
                .await?;
        let more = rows.len() == EXPIRED_ROWS;
        Ok((rows, more))
    }

    /// Folds what is committed into the file, off the path of the commits.
    pub(crate) async fn checkpoint(&mut self) -> Result<(), sqlx::Error> {
        let result = sqlx::query("PRAGMA wal_checkpoint(PASSIVE)")
            .fetch_all(&mut self.connection)
            .await;
        match result {
            // A full disk or a lock: the log stays as it is until later.
            Err(error) if matches!(primary_code(&error), Some(13 | 5 | 6)) => Ok(()),
            result => result.map(drop),
        }
    }

    pub(crate) async fn close(self) -> Result<(), sqlx::Error> {
        self.connection.close().await
    }

    /// What it means that something can't be read.
    pub(crate) fn suspect(&self, error: sqlx::Error) -> StoreError {
        suspect(&self.path, error)
    }
}

type Decode = fn(&SqliteRow) -> Result<Record, sqlx::Error>;

const RECORDS: [(&str, Decode); 4] = [
    (
        "SELECT number, key, next_sequence, acknowledged, closed, seen FROM mailboxes",
        |row| {
            Ok(Record::Mailbox {
                number: row.try_get(0)?,
                key: array(row, 1)?,
                next_sequence: number(row, 2)?,
                acknowledged: number(row, 3)?,
                closed: row.try_get::<Option<i64>, _>(4)?.and_then(|at| u64::try_from(at).ok()),
                seen: number(row, 5)?,
            })
        },
    ),
    (
        "SELECT mailbox, number, hash, max_envelopes, max_bytes FROM capabilities",
        |row| {
            Ok(Record::Capability {
                mailbox: row.try_get(0)?,
                number: row.try_get(1)?,
                hash: array(row, 2)?,
                max_envelopes: number(row, 3)?,
                max_bytes: number(row, 4)?,
            })
        },
    ),
    // The bodies are only looked at: what is damaged is better found now.
    (
        "SELECT number, mailbox, heads, bodies FROM bundles ORDER BY number",
        |row| {
            Ok(Record::Bundle {
                number: row.try_get(0)?,
                mailbox: row.try_get(1)?,
                heads: heads_of(row.try_get(2)?, row.try_get(3)?).map_err(decode)?,
            })
        },
    ),
    ("SELECT records, expires, how FROM remembered ORDER BY number", |row| {
        Ok(Record::Puts { records: puts(row, 0)? })
    }),
];

/// Of columns `records`, `expires` and `how`, from this one on.
pub(super) fn puts(row: &SqliteRow, index: usize) -> Result<Vec<PutRecord>, sqlx::Error> {
    let how = Stored::from_code(number(row, index + 2)?).unwrap_or(Stored::Flushed);
    records(row.try_get(index)?, number(row, index + 1)?, how).map_err(decode)
}

pub(super) fn decode(error: impl std::error::Error + Send + Sync + 'static) -> sqlx::Error {
    sqlx::Error::Decode(Box::new(error))
}

pub(super) fn array<const N: usize>(row: &SqliteRow, index: usize) -> Result<[u8; N], sqlx::Error> {
    let bytes: &[u8] = row.try_get(index)?;
    bytes.try_into().map_err(decode)
}

pub(super) fn number<N: TryFrom<i64>>(row: &SqliteRow, index: usize) -> Result<N, sqlx::Error> {
    let number: i64 = row.try_get(index)?;
    N::try_from(number).map_err(|_| sqlx::Error::Decode("a number out of bounds".into()))
}
