//! A whole database as rows, to be copied from or to; only while no node runs on it.
//!
//! What is copied where is deliberately not here (see `migrate`).

use sqlx::postgres::{PgConnection, PgRow};
use sqlx::{Connection, Row};
use wire::frame::PutId;

use super::address::DatabaseUrl;
use super::database;
use super::writer::{array, content, number};
use crate::migrate::{CapabilityRow, EnvelopeRow, MailboxRow, PutRow};
use crate::store::{StoreError, signed};

/// Rows in one statement.
const ROWS: i64 = 1000;

/// A database that no node runs on.
pub(crate) struct Database {
    connection: PgConnection,
}

fn failed(error: sqlx::Error) -> StoreError {
    StoreError::database(&error.into())
}

impl Database {
    /// Connects, brings the layout up to date, and keeps nodes out. All that follows is one transaction.
    pub(crate) async fn open(url: &DatabaseUrl) -> Result<Self, StoreError> {
        let (mut connection, _) = database::open(&url.options()).await?;
        if !database::seize(&mut connection).await.map_err(failed)? {
            return Err(StoreError::NodesRunning);
        }
        // A store may be large.
        for patience in [
            "SET statement_timeout = 0",
            "SET idle_in_transaction_session_timeout = 0",
        ] {
            sqlx::query(patience).execute(&mut connection).await.map_err(failed)?;
        }
        let mut database = Self { connection };
        // As it is now, and locked: a node that lost its connection for a moment mustn't go on meanwhile.
        database.run("BEGIN ISOLATION LEVEL REPEATABLE READ").await?;
        database.run("LOCK TABLE mailboxes IN EXCLUSIVE MODE").await?;
        Ok(database)
    }

    pub(crate) async fn is_empty(&mut self) -> Result<bool, StoreError> {
        let used: bool = sqlx::query_scalar(
            "SELECT EXISTS (SELECT FROM mailboxes) OR EXISTS (SELECT FROM envelopes) OR EXISTS (SELECT FROM puts)",
        )
        .fetch_one(&mut self.connection)
        .await
        .map_err(failed)?;
        Ok(!used)
    }

    /// Counts what was written, and commits it: until then none of it is there.
    pub(crate) async fn commit(&mut self) -> Result<(), StoreError> {
        const COUNTED: [&str; 6] = [
            "UPDATE mailboxes m SET waiting = e.count, bytes = e.bytes FROM ( \
             SELECT mailbox, count(*) AS count, sum(octet_length(body))::bigint AS bytes FROM envelopes GROUP BY mailbox) e \
             WHERE e.mailbox = m.number",
            "UPDATE mailboxes m SET remembered = p.count FROM ( \
             SELECT mailbox, count(*) AS count FROM puts GROUP BY mailbox) p WHERE p.mailbox = m.number",
            "UPDATE capabilities c SET envelopes = e.count, bytes = e.bytes FROM ( \
             SELECT capability, count(*) AS count, sum(octet_length(body))::bigint AS bytes FROM envelopes GROUP BY capability) e \
             WHERE e.capability = c.number",
            "SELECT setval('mailbox_numbers', (SELECT coalesce(max(number), 0) + 1 FROM mailboxes))",
            "SELECT setval('capability_numbers', greatest( \
             (SELECT coalesce(max(number), 0) + 1 FROM capabilities), (SELECT coalesce(max(capability), 0) + 1 FROM envelopes)))",
            "COMMIT",
        ];
        for statement in COUNTED {
            self.run(statement).await?;
        }
        Ok(())
    }

    pub(crate) async fn close(self) -> Result<(), StoreError> {
        self.connection.close().await.map_err(failed)
    }

    async fn run(&mut self, statement: &'static str) -> Result<(), StoreError> {
        let done = sqlx::query(statement).execute(&mut self.connection).await;
        done.map(drop).map_err(failed)
    }

    /// Mailboxes whose number is above `after`, some of them.
    pub(crate) async fn mailboxes(&mut self, after: i64) -> Result<Vec<MailboxRow>, StoreError> {
        let rows = sqlx::query(
            "SELECT number, key, next_sequence, closed, seen FROM mailboxes WHERE number > $1 ORDER BY number LIMIT $2",
        )
        .bind(after)
        .bind(ROWS)
        .fetch_all(&mut self.connection);
        let mailbox = |row: &PgRow| {
            Ok(MailboxRow {
                number: row.try_get(0)?,
                key: array(row, 1)?,
                next_sequence: number(row, 2)?,
                closed: row.try_get(3)?,
                seen: row.try_get(4)?,
            })
        };
        let rows = rows.await.map_err(failed)?;
        rows.iter().map(mailbox).collect::<Result<_, _>>().map_err(failed)
    }

    /// Capabilities whose number is above `after`, some of them.
    pub(crate) async fn capabilities(&mut self, after: i64) -> Result<Vec<CapabilityRow>, StoreError> {
        let rows = sqlx::query(
            "SELECT c.number, c.mailbox, c.hash, c.max_envelopes, c.max_bytes FROM capabilities c \
             JOIN mailboxes m ON m.number = c.mailbox WHERE c.number > $1 ORDER BY c.number LIMIT $2",
        )
        .bind(after)
        .bind(ROWS)
        .fetch_all(&mut self.connection);
        let capability = |row: &PgRow| {
            Ok(CapabilityRow {
                number: row.try_get(0)?,
                mailbox: row.try_get(1)?,
                hash: array(row, 2)?,
                max_envelopes: row.try_get::<i32, _>(3)?.into(),
                max_bytes: row.try_get(4)?,
            })
        };
        let rows = rows.await.map_err(failed)?;
        rows.iter().map(capability).collect::<Result<_, _>>().map_err(failed)
    }

    /// Envelopes behind this mailbox and number, some of them.
    pub(crate) async fn envelopes(&mut self, (mailbox, sequence): (i64, i64)) -> Result<Vec<EnvelopeRow>, StoreError> {
        let rows = sqlx::query(
            "SELECT e.mailbox, e.sequence, e.capability, e.received, e.expires, e.body FROM envelopes e \
             JOIN mailboxes m ON m.number = e.mailbox \
             WHERE (e.mailbox, e.sequence) > ($1, $2) ORDER BY e.mailbox, e.sequence LIMIT $3",
        )
        .bind(mailbox)
        .bind(sequence)
        .bind(ROWS)
        .fetch_all(&mut self.connection);
        let envelope = |row: &PgRow| {
            Ok(EnvelopeRow {
                mailbox: row.try_get(0)?,
                sequence: row.try_get(1)?,
                capability: row.try_get(2)?,
                received: row.try_get(3)?,
                expires: row.try_get(4)?,
                body: row.try_get(5)?,
            })
        };
        let rows = rows.await.map_err(failed)?;
        rows.iter().map(envelope).collect::<Result<_, _>>().map_err(failed)
    }

    /// Puts behind this mailbox and id, some of them.
    pub(crate) async fn puts(&mut self, (mailbox, id): (i64, PutId)) -> Result<Vec<PutRow>, StoreError> {
        let rows = sqlx::query(
            "SELECT p.mailbox, p.id, p.digest, p.expires, p.how FROM puts p JOIN mailboxes m ON m.number = p.mailbox \
             WHERE (p.mailbox, p.id) > ($1, $2) ORDER BY p.mailbox, p.id LIMIT $3",
        )
        .bind(mailbox)
        .bind(id.as_slice())
        .bind(ROWS)
        .fetch_all(&mut self.connection);
        let put = |row: &PgRow| {
            Ok(PutRow {
                mailbox: row.try_get(0)?,
                id: array(row, 1)?,
                content: content(row.try_get(2)?),
                expires: row.try_get(3)?,
                how: row.try_get::<i16, _>(4)?.into(),
            })
        };
        let rows = rows.await.map_err(failed)?;
        rows.iter().map(put).collect::<Result<_, _>>().map_err(failed)
    }

    pub(crate) async fn add_mailboxes(&mut self, rows: &[MailboxRow]) -> Result<(), StoreError> {
        sqlx::query(
            "INSERT INTO mailboxes (number, key, next_sequence, closed, seen) \
             SELECT * FROM unnest($1::bigint[], $2::bytea[], $3::bigint[], $4::bigint[], $5::bigint[])",
        )
        .bind(rows.iter().map(|row| row.number).collect::<Vec<_>>())
        .bind(rows.iter().map(|row| row.key.as_slice()).collect::<Vec<_>>())
        .bind(rows.iter().map(|row| signed(row.next_sequence)).collect::<Vec<_>>())
        .bind(rows.iter().map(|row| row.closed).collect::<Vec<_>>())
        .bind(rows.iter().map(|row| row.seen).collect::<Vec<_>>())
        .execute(&mut self.connection)
        .await
        .map_err(failed)?;
        Ok(())
    }

    pub(crate) async fn add_capabilities(&mut self, rows: &[CapabilityRow]) -> Result<(), StoreError> {
        sqlx::query(
            "INSERT INTO capabilities (number, mailbox, hash, max_envelopes, max_bytes) \
             SELECT * FROM unnest($1::bigint[], $2::bigint[], $3::bytea[], $4::bigint[], $5::bigint[])",
        )
        .bind(rows.iter().map(|row| row.number).collect::<Vec<_>>())
        .bind(rows.iter().map(|row| row.mailbox).collect::<Vec<_>>())
        .bind(rows.iter().map(|row| row.hash.as_slice()).collect::<Vec<_>>())
        .bind(rows.iter().map(|row| row.max_envelopes).collect::<Vec<_>>())
        .bind(rows.iter().map(|row| row.max_bytes).collect::<Vec<_>>())
        .execute(&mut self.connection)
        .await
        .map_err(failed)?;
        Ok(())
    }

    pub(crate) async fn add_envelopes(&mut self, rows: &[EnvelopeRow]) -> Result<(), StoreError> {
        sqlx::query(
            "INSERT INTO envelopes (mailbox, sequence, capability, received, expires, body) \
             SELECT * FROM unnest($1::bigint[], $2::bigint[], $3::bigint[], $4::bigint[], $5::bigint[], $6::bytea[])",
        )
        .bind(rows.iter().map(|row| row.mailbox).collect::<Vec<_>>())
        .bind(rows.iter().map(|row| row.sequence).collect::<Vec<_>>())
        .bind(rows.iter().map(|row| row.capability).collect::<Vec<_>>())
        .bind(rows.iter().map(|row| row.received).collect::<Vec<_>>())
        .bind(rows.iter().map(|row| row.expires).collect::<Vec<_>>())
        .bind(rows.iter().map(|row| row.body.as_slice()).collect::<Vec<_>>())
        .execute(&mut self.connection)
        .await
        .map_err(failed)?;
        Ok(())
    }

    /// Says how many there were: a put that comes again counts once, as it came last, and one of a mailbox that isn't there not at all.
    pub(crate) async fn add_puts(&mut self, rows: &[PutRow]) -> Result<u64, StoreError> {
        let contents: Vec<_> = rows.iter().map(|row| row.content.to_be_bytes()).collect();
        let added = sqlx::query(
            "INSERT INTO puts (mailbox, id, digest, expires, how) \
             SELECT DISTINCT ON (w.mailbox, w.id) w.mailbox, w.id, w.digest, w.expires, w.how \
             FROM unnest($1::bigint[], $2::bytea[], $3::bytea[], $4::bigint[], $5::bigint[]) WITH ORDINALITY \
             AS w (mailbox, id, digest, expires, how, place) JOIN mailboxes m ON m.number = w.mailbox \
             ORDER BY w.mailbox, w.id, w.place DESC \
             ON CONFLICT (mailbox, id) DO UPDATE SET digest = excluded.digest, expires = excluded.expires, how = excluded.how",
        )
        .bind(rows.iter().map(|row| row.mailbox).collect::<Vec<_>>())
        .bind(rows.iter().map(|row| row.id.as_slice()).collect::<Vec<_>>())
        .bind(contents.iter().map(<[u8; 8]>::as_slice).collect::<Vec<_>>())
        .bind(rows.iter().map(|row| row.expires).collect::<Vec<_>>())
        .bind(rows.iter().map(|row| row.how).collect::<Vec<_>>())
        .execute(&mut self.connection)
        .await
        .map_err(failed)?;
        Ok(added.rows_affected())
    }
}
