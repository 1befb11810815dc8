//! From the layout with a row for each envelope and each put to the one with many in a row.
//!
//! What the old tables hold is moved in one transaction, which drops them: a crash leaves either the one or the other.

use bytes::Bytes;
use sqlx::Row;
use sqlx::sqlite::SqliteConnection;
use wire::frame::Stored;

use super::read::{array, number};
use super::rows::{BundleRow, Head, PutRecord, PutsRows};
use super::write::{add_bundles, add_puts};
use crate::known::UNCOMPARED;

/// Rows moved at a time.
const ROWS: i64 = 1000;

/// Moves what there is to move.
pub(super) async fn upgrade(connection: &mut SqliteConnection) -> Result<(), sqlx::Error> {
    let old: bool =
        sqlx::query_scalar("SELECT EXISTS (SELECT 1 FROM sqlite_schema WHERE type = 'table' AND name = 'envelopes')")
            .fetch_one(&mut *connection)
            .await?;
    if !old {
        return Ok(());
    }
    sqlx::query("BEGIN IMMEDIATE").execute(&mut *connection).await?;
    let moved = async {
        envelopes(connection).await?;
        puts(connection).await?;
        for table in ["DROP TABLE envelopes", "DROP TABLE puts"] {
            sqlx::query(table).execute(&mut *connection).await?;
        }
        sqlx::query("COMMIT").execute(&mut *connection).await
    };
    moved.await.map(drop)
}

async fn envelopes(connection: &mut SqliteConnection) -> Result<(), sqlx::Error> {
    let mut after = i64::MIN;
    loop {
        let rows = sqlx::query(
            "SELECT number, mailbox, sequence, capability, received, expires, body FROM envelopes \
             WHERE number > ? ORDER BY number LIMIT ?",
        )
        .bind(after)
        .bind(ROWS)
        .fetch_all(&mut *connection)
        .await?;
        let mut bundles = Vec::new();
        for row in &rows {
            after = row.try_get(0)?;
            let body = Bytes::from(row.try_get::<Vec<u8>, _>(6)?);
            let head = Head {
                sequence: number(row, 2)?,
                capability: row.try_get(3)?,
                received: number(row, 4)?,
                expires: number(row, 5)?,
                bytes: u32::try_from(body.len()).unwrap_or(u32::MAX),
            };
            bundles.push(BundleRow::new(after, row.try_get(1)?, &head, body));
        }
        if bundles.is_empty() {
            return Ok(());
        }
        add_bundles(connection, &bundles).await?;
    }
}

async fn puts(connection: &mut SqliteConnection) -> Result<(), sqlx::Error> {
    let (mut mailbox, mut id) = (i64::MIN, Vec::new());
    loop {
        let rows = sqlx::query(
            "SELECT mailbox, id, expires, how FROM puts WHERE (mailbox, id) > (?, ?) ORDER BY mailbox, id LIMIT ?",
        )
        .bind(mailbox)
        .bind(id.as_slice())
        .bind(ROWS)
        .fetch_all(&mut *connection)
        .await?;
        let mut puts = PutsRows::default();
        for row in &rows {
            (mailbox, id) = (row.try_get(0)?, row.try_get(1)?);
            let put = PutRecord {
                mailbox,
                id: array(row, 1)?,
                content: UNCOMPARED,
                expires: number(row, 2)?,
                how: Stored::from_code(number(row, 3)?).unwrap_or(Stored::Flushed),
            };
            puts.add(&put, 0);
        }
        if puts.count() == 0 {
            return Ok(());
        }
        add_puts(connection, puts.rows()).await?;
    }
}
