//! What a transaction writes: everything that the ledger has decided, a statement for each table.

use sqlx::postgres::PgConnection;
use wire::frame::Stored;

use crate::shared::job::Job;
use crate::shared::ledger::{CapabilityRow, Ledger, MailboxRow};
use crate::store::signed;

/// Writes what the ledger has decided.
pub(super) async fn store(connection: &mut PgConnection, jobs: &[Job], ledger: &Ledger) -> Result<(), sqlx::Error> {
    if !ledger.litter.is_empty() {
        sqlx::query("INSERT INTO litter (mailbox) SELECT unnest($1::bigint[])")
            .bind(&ledger.litter)
            .execute(&mut *connection)
            .await?;
    }
    if !ledger.revoked.is_empty() {
        let (mailboxes, hashes): (Vec<i64>, Vec<&[u8]>) = ledger
            .revoked
            .iter()
            .map(|(mailbox, hash)| (*mailbox, hash.as_bytes().as_slice()))
            .unzip();
        sqlx::query(
            "DELETE FROM capabilities c USING unnest($1::bigint[], $2::bytea[]) AS w (mailbox, hash) \
             WHERE c.mailbox = w.mailbox AND c.hash = w.hash",
        )
        .bind(mailboxes)
        .bind(hashes)
        .execute(&mut *connection)
        .await?;
    }
    store_capabilities(connection, ledger).await?;
    store_envelopes(connection, jobs, ledger).await?;
    store_mailboxes(connection, ledger).await
}

async fn store_capabilities(connection: &mut PgConnection, ledger: &Ledger) -> Result<(), sqlx::Error> {
    let (allowed, counted): (Vec<_>, Vec<_>) = ledger
        .capabilities
        .iter()
        .filter(|(_, row)| row.allowed || row.changed)
        .partition(|(_, row)| row.allowed);
    if !allowed.is_empty() {
        let column = |value: fn(&CapabilityRow) -> i64| allowed.iter().map(|(_, row)| value(row)).collect::<Vec<_>>();
        sqlx::query(
            "INSERT INTO capabilities (mailbox, hash, number, max_envelopes, max_bytes, envelopes, bytes) \
             SELECT * FROM unnest($1::bigint[], $2::bytea[], $3::bigint[], $4::bigint[], $5::bigint[], $6::bigint[], $7::bigint[]) \
             ON CONFLICT (mailbox, hash) DO UPDATE SET max_envelopes = excluded.max_envelopes, \
             max_bytes = excluded.max_bytes, envelopes = excluded.envelopes, bytes = excluded.bytes",
        )
        .bind(allowed.iter().map(|((mailbox, _), _)| *mailbox).collect::<Vec<_>>())
        .bind(allowed.iter().map(|((_, hash), _)| hash.as_bytes().as_slice()).collect::<Vec<_>>())
        .bind(column(|row| row.number))
        .bind(column(|row| i64::from(row.max_envelopes)))
        .bind(column(|row| signed(row.max_bytes)))
        .bind(column(|row| signed(row.envelopes)))
        .bind(column(|row| signed(row.bytes)))
        .execute(&mut *connection)
        .await?;
    }
    if !counted.is_empty() {
        let column = |value: fn(&CapabilityRow) -> i64| counted.iter().map(|(_, row)| value(row)).collect::<Vec<_>>();
        sqlx::query(
            "UPDATE capabilities c SET envelopes = w.envelopes, bytes = w.bytes \
             FROM unnest($1::bigint[], $2::bigint[], $3::bigint[]) AS w (number, envelopes, bytes) WHERE c.number = w.number",
        )
        .bind(column(|row| row.number))
        .bind(column(|row| signed(row.envelopes)))
        .bind(column(|row| signed(row.bytes)))
        .execute(connection)
        .await?;
    }
    Ok(())
}

async fn store_envelopes(connection: &mut PgConnection, jobs: &[Job], ledger: &Ledger) -> Result<(), sqlx::Error> {
    let new: Vec<_> = ledger
        .envelopes
        .iter()
        .filter_map(|new| match jobs.get(new.job) {
            Some(Job::Put(put)) => Some((new, put)),
            _ => None,
        })
        .collect();
    if new.is_empty() {
        return Ok(());
    }
    let mailboxes: Vec<i64> = new.iter().map(|(new, _)| new.mailbox).collect();
    let expires: Vec<i64> = new.iter().map(|(new, _)| signed(new.expires)).collect();
    sqlx::query(
        "INSERT INTO envelopes (mailbox, sequence, capability, received, expires, body) \
         SELECT * FROM unnest($1::bigint[], $2::bigint[], $3::bigint[], $4::bigint[], $5::bigint[], $6::bytea[])",
    )
    .bind(&mailboxes)
    .bind(new.iter().map(|(new, _)| signed(new.sequence)).collect::<Vec<_>>())
    .bind(new.iter().map(|(new, _)| new.capability).collect::<Vec<_>>())
    .bind(new.iter().map(|(new, _)| signed(new.received)).collect::<Vec<_>>())
    .bind(&expires)
    .bind(new.iter().map(|(_, put)| &*put.body).collect::<Vec<&[u8]>>())
    .execute(&mut *connection)
    .await?;
    let contents: Vec<_> = new.iter().map(|(_, put)| put.content.to_be_bytes()).collect();
    // An id may come again after its ttl, before it was swept.
    sqlx::query(
        "INSERT INTO puts (mailbox, id, digest, expires, how) \
         SELECT mailbox, id, digest, expires, $5 FROM unnest($1::bigint[], $2::bytea[], $3::bytea[], $4::bigint[]) \
         AS w (mailbox, id, digest, expires) \
         ON CONFLICT (mailbox, id) DO UPDATE SET digest = excluded.digest, expires = excluded.expires, how = excluded.how",
    )
    .bind(&mailboxes)
    .bind(new.iter().map(|(_, put)| put.id.as_slice()).collect::<Vec<_>>())
    .bind(contents.iter().map(<[u8; 8]>::as_slice).collect::<Vec<_>>())
    .bind(&expires)
    .bind(i16::from(Stored::Flushed.code()))
    .execute(connection)
    .await?;
    Ok(())
}

async fn store_mailboxes(connection: &mut PgConnection, ledger: &Ledger) -> Result<(), sqlx::Error> {
    let changed: Vec<_> = ledger.mailboxes.iter().filter(|(_, row)| row.changed).collect();
    if changed.is_empty() {
        return Ok(());
    }
    let column = |value: fn(&MailboxRow) -> i64| changed.iter().map(|(_, row)| value(row)).collect::<Vec<_>>();
    sqlx::query(
        "UPDATE mailboxes m SET number = w.number, next_sequence = w.next_sequence, floor = w.floor, closed = w.closed, \
         seen = w.seen, waiting = w.waiting, bytes = w.bytes, remembered = w.remembered \
         FROM unnest($1::bytea[], $2::bigint[], $3::bigint[], $4::bigint[], $5::bigint[], $6::bigint[], $7::bigint[], \
         $8::bigint[], $9::bigint[]) \
         AS w (key, number, next_sequence, floor, closed, seen, waiting, bytes, remembered) WHERE m.key = w.key",
    )
    .bind(changed.iter().map(|(key, _)| key.as_slice()).collect::<Vec<_>>())
    .bind(column(|row| row.number))
    .bind(column(|row| signed(row.next_sequence)))
    .bind(column(|row| signed(row.floor)))
    .bind(changed.iter().map(|(_, row)| row.closed.map(signed)).collect::<Vec<_>>())
    .bind(column(|row| signed(row.seen)))
    .bind(column(|row| signed(row.waiting)))
    .bind(column(|row| signed(row.bytes)))
    .bind(column(|row| signed(row.remembered)))
    .execute(connection)
    .await?;
    Ok(())
}
