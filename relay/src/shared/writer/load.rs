//! What a transaction begins with: the mailboxes that it is about are made and locked, acknowledged envelopes deleted, and
//! whatever the ledger needs is read, by then of nobody's changing but ours.

use std::collections::{BTreeSet, HashMap};

use sqlx::Row;
use sqlx::postgres::PgConnection;
use tokio::time::Instant;
use wire::frame::{PutId, Stored};
use wire::mailbox::CapabilityHash;

use super::{array, content, number};
use crate::shared::job::{Job, Key, Reader, Verdict};
use crate::shared::ledger::{CapabilityRow, KnownPut, Ledger, MailboxRow};
use crate::store::signed;

/// Most envelopes of one mailbox deleted at once, so that nobody holds up the others by acknowledging a million.
const DELETED: u64 = 1000;

/// Makes the mailboxes that are opened for the first time, in the order in which every node makes and locks them.
pub(super) async fn make_mailboxes(
    connection: &mut PgConnection,
    jobs: &[Job],
    now: u64,
    has_room: impl Fn(u64) -> bool,
) -> Result<(), sqlx::Error> {
    let mut visitors = HashMap::new();
    for job in jobs {
        if let Job::Allow { key, visitor, .. } = job {
            visitors.entry(*key).or_insert(visitor);
        }
    }
    if visitors.is_empty() {
        return Ok(());
    }
    let asked: Vec<&[u8]> = visitors.keys().map(Key::as_slice).collect();
    let known: Vec<Vec<u8>> = sqlx::query_scalar("SELECT key FROM mailboxes WHERE key = ANY($1)")
        .bind(asked)
        .fetch_all(&mut *connection)
        .await?;
    let mut new = BTreeSet::new();
    for (key, visitor) in &visitors {
        let is_new = !known.iter().any(|known| known == key);
        if is_new && has_room(new.len() as u64) && visitor.opens_mailbox(Instant::now()) {
            new.insert(key.as_slice());
        }
    }
    if new.is_empty() {
        return Ok(());
    }
    let new: Vec<&[u8]> = new.into_iter().collect();
    sqlx::query(
        "INSERT INTO mailboxes (key, seen) SELECT key, $2 FROM unnest($1::bytea[]) AS key ON CONFLICT DO NOTHING",
    )
    .bind(new)
    .bind(signed(now))
    .execute(connection)
    .await?;
    Ok(())
}

pub(super) async fn lock_mailboxes(
    connection: &mut PgConnection,
    jobs: &[Job],
    ledger: &mut Ledger,
) -> Result<(), sqlx::Error> {
    let keys: BTreeSet<&[u8]> = jobs.iter().filter_map(Job::locks).map(Key::as_slice).collect();
    if keys.is_empty() {
        return Ok(());
    }
    let rows = sqlx::query(
        "SELECT key, number, next_sequence, floor, closed, seen, waiting, bytes, remembered FROM mailboxes \
         WHERE key = ANY($1) ORDER BY key FOR UPDATE",
    )
    .bind(keys.into_iter().collect::<Vec<_>>())
    .fetch_all(&mut *connection)
    .await?;
    for row in rows {
        let mailbox = MailboxRow {
            number: row.try_get(1)?,
            next_sequence: number(&row, 2)?,
            floor: number(&row, 3)?,
            closed: row.try_get::<Option<i64>, _>(4)?.and_then(|at| u64::try_from(at).ok()),
            seen: number(&row, 5)?,
            waiting: number(&row, 6)?,
            bytes: number(&row, 7)?,
            remembered: number(&row, 8)?,
            reader: None,
            capabilities: 0,
            changed: false,
        };
        ledger.mailboxes.insert(array(&row, 0)?, mailbox);
    }
    // Asked once they are locked: who becomes the reader from now on sees what this transaction puts.
    let putting: BTreeSet<&[u8]> = jobs.iter().filter_map(Job::puts_to).map(Key::as_slice).collect();
    if putting.is_empty() {
        return Ok(());
    }
    let rows = sqlx::query("SELECT key, generation, node FROM readers WHERE key = ANY($1)")
        .bind(putting.into_iter().collect::<Vec<_>>())
        .fetch_all(connection)
        .await?;
    for row in rows {
        if let Some(mailbox) = ledger.mailboxes.get_mut(&array::<32>(&row, 0)?) {
            mailbox.reader = Some(Reader {
                generation: row.try_get(1)?,
                node: row.try_get(2)?,
            });
        }
    }
    Ok(())
}

/// What was deleted.
#[derive(Clone, Copy, Default)]
pub(super) struct Gone {
    pub(super) envelopes: u64,
    pub(super) bytes: u64,
}

/// Deletes what is acknowledged, before puts are judged: what an acknowledgement frees is free.
pub(super) async fn acknowledge(
    connection: &mut PgConnection,
    jobs: &[Job],
    ledger: &mut Ledger,
    verdicts: &mut [Verdict],
) -> Result<Gone, sqlx::Error> {
    let (mut numbers, mut floors, mut ends) = (Vec::new(), Vec::new(), Vec::new());
    for (job, verdict) in jobs.iter().zip(verdicts) {
        let Job::Ack { key, sequence } = job else { continue };
        ledger.saw(key);
        let Some(mailbox) = ledger.mailboxes.get_mut(key) else {
            continue;
        };
        // What doesn't exist yet can't be acknowledged.
        let mut end = (*sequence).min(mailbox.next_sequence.saturating_sub(1));
        if end <= mailbox.floor {
            continue;
        }
        if end - mailbox.floor > DELETED {
            end = mailbox.floor + DELETED;
            *verdict = Verdict::Partly;
        }
        numbers.push(mailbox.number);
        floors.push(signed(mailbox.floor));
        ends.push(signed(end));
        mailbox.floor = end;
        mailbox.changed = true;
    }
    let mut all = Gone::default();
    if numbers.is_empty() {
        return Ok(all);
    }
    // By place, which is never anything but a direct look; nobody moves a row whose mailbox is locked.
    let rows = sqlx::query(
        "WITH gone AS ( \
           DELETE FROM envelopes WHERE ctid = ANY (ARRAY( \
             SELECT e.ctid FROM unnest($1::bigint[], $2::bigint[], $3::bigint[]) AS w (mailbox, floor, until) \
             JOIN envelopes e ON e.mailbox = w.mailbox AND e.sequence > w.floor AND e.sequence <= w.until)) \
           RETURNING mailbox, capability, octet_length(body)::bigint AS bytes), \
         freed AS ( \
           UPDATE capabilities c SET envelopes = greatest(c.envelopes - g.envelopes, 0), bytes = greatest(c.bytes - g.bytes, 0) \
           FROM (SELECT capability, count(*) AS envelopes, sum(bytes)::bigint AS bytes FROM gone GROUP BY capability) g \
           WHERE c.number = g.capability) \
         SELECT mailbox, count(*), sum(bytes)::bigint FROM gone GROUP BY mailbox",
    )
    .bind(numbers)
    .bind(floors)
    .bind(ends)
    .fetch_all(connection)
    .await?;
    let mut gone = HashMap::new();
    for row in rows {
        gone.insert(
            row.try_get::<i64, _>(0)?,
            (number::<u64>(&row, 1)?, number::<u64>(&row, 2)?),
        );
    }
    for mailbox in ledger.mailboxes.values_mut() {
        if let Some((envelopes, bytes)) = gone.get(&mailbox.number) {
            mailbox.waiting = mailbox.waiting.saturating_sub(*envelopes);
            mailbox.bytes = mailbox.bytes.saturating_sub(*bytes);
            all.envelopes += envelopes;
            all.bytes += bytes;
        }
    }
    Ok(all)
}

/// Reads the capabilities and the remembered puts that the jobs are about, and sets numbers aside.
pub(super) async fn load(connection: &mut PgConnection, jobs: &[Job], ledger: &mut Ledger) -> Result<(), sqlx::Error> {
    let (mut mailboxes, mut hashes): (Vec<i64>, Vec<&[u8]>) = (Vec::new(), Vec::new());
    let (mut put_mailboxes, mut ids): (Vec<i64>, Vec<&[u8]>) = (Vec::new(), Vec::new());
    let (mut allowing, mut allows, mut closes) = (BTreeSet::new(), 0_i64, 0_i64);
    let mut seen = BTreeSet::new();
    for job in jobs {
        if let Some((key, hash)) = job.capability()
            && let Some(mailbox) = ledger.mailboxes.get(key)
            && seen.insert((mailbox.number, hash.as_bytes()))
        {
            mailboxes.push(mailbox.number);
            hashes.push(hash.as_bytes());
        }
        match job {
            Job::Put(put) => {
                if let Some(mailbox) = ledger.mailboxes.get(&put.key) {
                    put_mailboxes.push(mailbox.number);
                    ids.push(&put.id);
                }
            }
            Job::Allow { key, .. } => {
                allows += 1;
                allowing.extend(ledger.mailboxes.get(key).map(|mailbox| mailbox.number));
            }
            Job::Close { .. } => closes += 1,
            _ => {}
        }
    }
    if !mailboxes.is_empty() {
        let rows = sqlx::query(
            "SELECT c.mailbox, c.hash, c.number, c.max_envelopes, c.max_bytes, c.envelopes, c.bytes \
             FROM unnest($1::bigint[], $2::bytea[]) AS w (mailbox, hash) \
             JOIN capabilities c ON c.mailbox = w.mailbox AND c.hash = w.hash",
        )
        .bind(mailboxes)
        .bind(hashes)
        .fetch_all(&mut *connection)
        .await?;
        for row in rows {
            let capability = CapabilityRow {
                number: row.try_get(2)?,
                max_envelopes: row.try_get::<i32, _>(3)?.unsigned_abs(),
                max_bytes: number(&row, 4)?,
                envelopes: number(&row, 5)?,
                bytes: number(&row, 6)?,
                allowed: false,
                changed: false,
            };
            let hash = CapabilityHash::from_bytes(array(&row, 1)?);
            ledger.capabilities.insert((row.try_get(0)?, hash), capability);
        }
    }
    if !ids.is_empty() {
        let rows = sqlx::query(
            "SELECT p.mailbox, p.id, p.digest, p.expires, p.how \
             FROM unnest($1::bigint[], $2::bytea[]) AS w (mailbox, id) \
             JOIN puts p ON p.mailbox = w.mailbox AND p.id = w.id",
        )
        .bind(put_mailboxes)
        .bind(ids)
        .fetch_all(&mut *connection)
        .await?;
        for row in rows {
            let id: PutId = array(&row, 1)?;
            let how = u8::try_from(row.try_get::<i16, _>(4)?).ok().and_then(Stored::from_code);
            let known = KnownPut {
                content: content(row.try_get(2)?),
                expires: number(&row, 3)?,
                how: how.unwrap_or(Stored::Flushed),
            };
            ledger.puts.insert((row.try_get(0)?, id), known);
        }
    }
    if !allowing.is_empty() {
        let rows = sqlx::query("SELECT mailbox, count(*) FROM capabilities WHERE mailbox = ANY($1) GROUP BY mailbox")
            .bind(allowing.into_iter().collect::<Vec<_>>())
            .fetch_all(&mut *connection)
            .await?;
        let mut counts = HashMap::new();
        for row in rows {
            counts.insert(row.try_get::<i64, _>(0)?, number::<usize>(&row, 1)?);
        }
        for mailbox in ledger.mailboxes.values_mut() {
            mailbox.capabilities = counts.get(&mailbox.number).copied().unwrap_or(0);
        }
        let numbers: Vec<i64> = sqlx::query_scalar("SELECT nextval('capability_numbers') FROM generate_series(1, $1)")
            .bind(allows)
            .fetch_all(&mut *connection)
            .await?;
        ledger.capability_numbers = numbers.into();
    }
    if closes > 0 {
        let numbers: Vec<i64> = sqlx::query_scalar("SELECT nextval('mailbox_numbers') FROM generate_series(1, $1)")
            .bind(closes)
            .fetch_all(connection)
            .await?;
        ledger.mailbox_numbers = numbers.into();
    }
    Ok(())
}
