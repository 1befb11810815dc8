//! Reading the store: all of it at the start, then what isn't in memory.

use bytes::Bytes;
use futures_util::TryStreamExt;
use sqlx::sqlite::SqliteRow;
use sqlx::{Connection, QueryBuilder, Row, Sqlite};
use wire::frame::{PutId, Stored};

use super::{KnownPut, Reader, Record, StoreError, primary_code, signed, suspect};

impl Reader {
    /// Hands every record to `take`: mailboxes first, envelopes in the order of their acceptance.
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

    /// The bytes of these envelopes, as many as are there.
    pub(crate) async fn bodies(&mut self, numbers: &[i64]) -> Result<Vec<(i64, Bytes)>, sqlx::Error> {
        let mut query = QueryBuilder::<Sqlite>::new("SELECT number, body FROM envelopes WHERE number IN (");
        let mut list = query.separated(", ");
        for number in numbers {
            list.push_bind(*number);
        }
        query.push(")");
        let rows = query.build().persistent(false).fetch_all(&mut self.connection).await?;
        rows.into_iter()
            .map(|row| Ok((row.try_get(0)?, Bytes::from(row.try_get::<Vec<u8>, _>(1)?))))
            .collect()
    }

    /// What is remembered of a put.
    pub(crate) async fn put(&mut self, mailbox: i64, id: &PutId) -> Result<Option<KnownPut>, sqlx::Error> {
        let row = sqlx::query("SELECT digest, expires, how FROM puts WHERE mailbox = ? AND id = ?")
            .bind(mailbox)
            .bind(id.to_vec())
            .fetch_optional(&mut self.connection)
            .await?;
        row.map(|row| {
            Ok(KnownPut {
                digest: array(&row, 0)?,
                expires: number(&row, 1)?,
                how: Stored::from_code(number(&row, 2)?).unwrap_or(Stored::Flushed),
            })
        })
        .transpose()
    }

    /// Some of the puts that have expired.
    pub(crate) async fn expired_puts(&mut self, now: u64) -> Result<Vec<(i64, PutId, u64)>, sqlx::Error> {
        let rows = sqlx::query("SELECT mailbox, id, expires FROM puts WHERE expires <= ? LIMIT 500")
            .bind(signed(now))
            .fetch_all(&mut self.connection)
            .await?;
        rows.iter()
            .map(|row| Ok((row.try_get(0)?, array(row, 1)?, number(row, 2)?)))
            .collect()
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
}

type Decode = fn(&SqliteRow) -> Result<Record, sqlx::Error>;

const RECORDS: [(&str, Decode); 4] = [
    (
        "SELECT number, key, next_sequence, closed, seen FROM mailboxes",
        |row| {
            Ok(Record::Mailbox {
                number: row.try_get(0)?,
                key: array(row, 1)?,
                next_sequence: number(row, 2)?,
                closed: row.try_get::<Option<i64>, _>(3)?.and_then(|at| u64::try_from(at).ok()),
                seen: number(row, 4)?,
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
    // `length` doesn't read the body.
    (
        "SELECT mailbox, number, sequence, capability, received, expires, length(body) FROM envelopes ORDER BY number",
        |row| {
            Ok(Record::Envelope {
                mailbox: row.try_get(0)?,
                number: row.try_get(1)?,
                sequence: number(row, 2)?,
                capability: row.try_get(3)?,
                received: number(row, 4)?,
                expires: number(row, 5)?,
                bytes: number(row, 6)?,
            })
        },
    ),
    ("SELECT mailbox, id, expires FROM puts", |row| {
        Ok(Record::Put {
            mailbox: row.try_get(0)?,
            id: array(row, 1)?,
            expires: number(row, 2)?,
        })
    }),
];

pub(super) fn array<const N: usize>(row: &SqliteRow, index: usize) -> Result<[u8; N], sqlx::Error> {
    let bytes: &[u8] = row.try_get(index)?;
    bytes.try_into().map_err(|error| sqlx::Error::Decode(Box::new(error)))
}

pub(super) fn number<N: TryFrom<i64>>(row: &SqliteRow, index: usize) -> Result<N, sqlx::Error> {
    let number: i64 = row.try_get(index)?;
    N::try_from(number).map_err(|_| sqlx::Error::Decode("a number out of bounds".into()))
}
