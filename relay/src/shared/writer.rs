//! The task that writes: each group of jobs in one transaction, a statement for many rows, `unnest`ed from arrays.
//!
//! What is accepted is deliberately not decided here (see `ledger`). A group that failed can be given again as it is: puts
//! are known by their ids, and all else is the same when done twice.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use sqlx::Row;
use sqlx::postgres::{PgConnectOptions, PgConnection, PgRow};
use tokio::sync::mpsc;
use tokio::time::Instant;
use wire::frame::{PutId, Stored};
use wire::mailbox::CapabilityHash;

use super::database::{self, Failure};
use super::job::{Job, Key, Outcome, Reader, Status, Verdict};
use super::ledger::{CapabilityRow, Ledger, MailboxRow, Room};
use super::totals::Totals;
use crate::Clock;
use crate::desk::Bounds;
use crate::store::{KnownPut, signed};

/// How long one group may take, everything included.
const GROUP: Duration = Duration::from_secs(20);

/// How often a group is tried before it fails.
const ATTEMPTS: usize = 3;

/// Most envelopes of one mailbox deleted at once, so that nobody holds up the others by acknowledging a million.
const DELETED: i64 = 1000;

/// What became of a group.
pub(super) struct Written {
    pub(super) jobs: Vec<Job>,
    pub(super) outcome: Result<Outcome, Failure>,
}

/// See the module.
pub(super) struct Writer {
    pub(super) options: PgConnectOptions,
    pub(super) connection: Option<PgConnection>,
    pub(super) node: i64,
    pub(super) bounds: Bounds,
    pub(super) totals: Arc<Totals>,
    pub(super) clock: Clock,
}

impl Writer {
    /// Writes groups until there are no more to come.
    pub(super) async fn run(mut self, mut groups: mpsc::Receiver<Vec<Job>>, written: mpsc::UnboundedSender<Written>) {
        while let Some(jobs) = groups.recv().await {
            let outcome = self.write(&jobs).await;
            written.send(Written { jobs, outcome }).ok();
        }
        database::close(self.connection).await;
    }

    async fn write(&mut self, jobs: &[Job]) -> Result<Outcome, Failure> {
        let mut attempt = 1;
        loop {
            let used = self.connection.is_some();
            let failure = match self.attempt(jobs).await {
                Ok(outcome) => return Ok(outcome),
                Err(failure) => failure,
            };
            // A connection that was idle may have died long ago; that is worth another one.
            let again = match failure {
                Failure::Contended(_) => true,
                Failure::Away(_) => used,
                Failure::Silent | Failure::Refused(_) => false,
            };
            if !again || attempt == ATTEMPTS {
                return Err(failure);
            }
            attempt += 1;
        }
    }

    /// Leaves no connection behind if it fails: whatever it was in the middle of is rolled back.
    async fn attempt(&mut self, jobs: &[Job]) -> Result<Outcome, Failure> {
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => database::connect(&self.options).await?,
        };
        let outcome = database::within(GROUP, self.transact(&mut connection, jobs)).await?;
        self.connection = Some(connection);
        Ok(outcome)
    }

    async fn transact(&self, connection: &mut PgConnection, jobs: &[Job]) -> Result<Outcome, sqlx::Error> {
        if jobs.is_empty() {
            // Is it back? Asked so that a standby says no.
            sqlx::query("SELECT nextval('reader_generations')")
                .execute(connection)
                .await?;
            return Ok(Outcome {
                verdicts: Vec::new(),
                displaced: Vec::new(),
            });
        }
        sqlx::query("BEGIN").execute(&mut *connection).await?;
        let mut ledger = Ledger {
            now: (self.clock)(),
            room: self.room(),
            ..Ledger::default()
        };
        make_mailboxes(connection, jobs, ledger.now, |new| {
            self.bounds.mailboxes as u64 > self.totals.mailboxes() + new
        })
        .await?;
        lock_mailboxes(connection, jobs, &mut ledger).await?;
        let mut verdicts = vec![Verdict::Done; jobs.len()];
        acknowledge(connection, jobs, &mut ledger, &mut verdicts, &self.totals).await?;
        load(connection, jobs, &mut ledger).await?;
        for (index, (job, verdict)) in jobs.iter().zip(&mut verdicts).enumerate() {
            if let Some(judged) = ledger.judge(index, job) {
                *verdict = judged;
            }
        }
        store(connection, jobs, &ledger).await?;
        let displaced = seat_readers(connection, jobs, self.node, ledger.now, &mut verdicts).await?;
        sqlx::query("COMMIT").execute(&mut *connection).await?;
        self.totals
            .add(ledger.envelopes.iter().filter_map(|new| match jobs.get(new.job) {
                Some(Job::Put(put)) => Some(put.body.len() as u64),
                _ => None,
            }));
        Ok(Outcome { verdicts, displaced })
    }

    fn room(&self) -> Room {
        Room {
            bytes: self.bounds.bytes.saturating_sub(self.totals.bytes()),
            puts: (self.bounds.puts as u64).saturating_sub(self.totals.puts()),
        }
    }
}

/// Makes the mailboxes that are opened for the first time, in the order in which every node makes and locks them.
async fn make_mailboxes(
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

async fn lock_mailboxes(connection: &mut PgConnection, jobs: &[Job], ledger: &mut Ledger) -> Result<(), sqlx::Error> {
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

/// Deletes what is acknowledged, before puts are judged: what an acknowledgement frees is free.
async fn acknowledge(
    connection: &mut PgConnection,
    jobs: &[Job],
    ledger: &mut Ledger,
    verdicts: &mut [Verdict],
    totals: &Totals,
) -> Result<(), sqlx::Error> {
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
        if end - mailbox.floor > DELETED.unsigned_abs() {
            end = mailbox.floor + DELETED.unsigned_abs();
            *verdict = Verdict::Partly;
        }
        numbers.push(mailbox.number);
        floors.push(signed(mailbox.floor));
        ends.push(signed(end));
        mailbox.floor = end;
        mailbox.changed = true;
    }
    if numbers.is_empty() {
        return Ok(());
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
            totals.acknowledged(*envelopes, *bytes);
        }
    }
    Ok(())
}

/// Reads the capabilities and the remembered puts that the jobs are about, and sets numbers aside.
async fn load(connection: &mut PgConnection, jobs: &[Job], ledger: &mut Ledger) -> Result<(), sqlx::Error> {
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
                digest: array(&row, 2)?,
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

/// Writes what the ledger has decided.
async fn store(connection: &mut PgConnection, jobs: &[Job], ledger: &Ledger) -> Result<(), sqlx::Error> {
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
    // An id may come again after its ttl, before it was swept.
    sqlx::query(
        "INSERT INTO puts (mailbox, id, digest, expires, how) \
         SELECT mailbox, id, digest, expires, $5 FROM unnest($1::bigint[], $2::bytea[], $3::bytea[], $4::bigint[]) \
         AS w (mailbox, id, digest, expires) \
         ON CONFLICT (mailbox, id) DO UPDATE SET digest = excluded.digest, expires = excluded.expires, how = excluded.how",
    )
    .bind(&mailboxes)
    .bind(new.iter().map(|(_, put)| put.id.as_slice()).collect::<Vec<_>>())
    .bind(new.iter().map(|(_, put)| put.digest.as_slice()).collect::<Vec<_>>())
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

/// Makes new readers the readers, says whom they took over from, and how their mailboxes stand.
async fn seat_readers(
    connection: &mut PgConnection,
    jobs: &[Job],
    node: i64,
    now: u64,
    verdicts: &mut [Verdict],
) -> Result<Vec<(i64, Key)>, sqlx::Error> {
    let (mut claimed, mut looked) = (BTreeSet::new(), BTreeSet::new());
    let (mut released, mut generations): (Vec<&[u8]>, Vec<i64>) = (Vec::new(), Vec::new());
    for job in jobs {
        match job {
            Job::Claim { key, .. } => {
                claimed.insert(key.as_slice());
                looked.insert(key.as_slice());
            }
            Job::Look { key, .. } => {
                looked.insert(key.as_slice());
            }
            Job::Release { key, generation } => {
                released.push(key);
                generations.push(*generation);
            }
            _ => {}
        }
    }
    if !released.is_empty() {
        sqlx::query(
            "DELETE FROM readers r USING unnest($1::bytea[], $2::bigint[]) AS w (key, generation) \
             WHERE r.key = w.key AND r.generation = w.generation",
        )
        .bind(released)
        .bind(generations)
        .execute(&mut *connection)
        .await?;
    }
    if looked.is_empty() {
        return Ok(Vec::new());
    }
    let (displaced, seats) = claim(connection, claimed, node, now).await?;
    let rows = sqlx::query("SELECT key, next_sequence, waiting, floor FROM mailboxes WHERE key = ANY($1)")
        .bind(looked.into_iter().collect::<Vec<_>>())
        .fetch_all(connection)
        .await?;
    let mut standing: HashMap<Key, Status> = HashMap::new();
    for row in rows {
        let status = Status {
            next_sequence: number(&row, 1)?,
            waiting: number(&row, 2)?,
            floor: number(&row, 3)?,
        };
        standing.insert(array(&row, 0)?, status);
    }
    for (job, verdict) in jobs.iter().zip(verdicts) {
        let status = |key| standing.get(key).copied().unwrap_or(Status::NONE);
        match job {
            Job::Claim { key, .. } => {
                if let Some(generation) = seats.get(key) {
                    *verdict = Verdict::Claimed {
                        generation: *generation,
                        status: status(key),
                    };
                }
            }
            Job::Look { key, .. } => *verdict = Verdict::Seen(status(key)),
            _ => {}
        }
    }
    Ok(displaced)
}

type Seats = HashMap<Key, i64>;

async fn claim(
    connection: &mut PgConnection,
    keys: BTreeSet<&[u8]>,
    node: i64,
    now: u64,
) -> Result<(Vec<(i64, Key)>, Seats), sqlx::Error> {
    let (mut displaced, mut seats) = (Vec::new(), HashMap::new());
    if keys.is_empty() {
        return Ok((displaced, seats));
    }
    let keys: Vec<&[u8]> = keys.into_iter().collect();
    let rows = sqlx::query("SELECT node, key FROM readers WHERE key = ANY($1) AND node <> $2 ORDER BY key FOR UPDATE")
        .bind(&keys)
        .bind(node)
        .fetch_all(&mut *connection)
        .await?;
    for row in rows {
        displaced.push((row.try_get(0)?, array(&row, 1)?));
    }
    let rows = sqlx::query(
        "INSERT INTO readers (key, generation, node, since) \
         SELECT key, nextval('reader_generations'), $2, $3 FROM unnest($1::bytea[]) AS key \
         ON CONFLICT (key) DO UPDATE SET generation = excluded.generation, node = excluded.node, since = excluded.since \
         RETURNING key, generation",
    )
    .bind(&keys)
    .bind(node)
    .bind(signed(now))
    .fetch_all(connection)
    .await?;
    for row in rows {
        seats.insert(array(&row, 0)?, row.try_get(1)?);
    }
    Ok((displaced, seats))
}

pub(super) fn array<const N: usize>(row: &PgRow, index: usize) -> Result<[u8; N], sqlx::Error> {
    let bytes: &[u8] = row.try_get(index)?;
    bytes.try_into().map_err(|error| sqlx::Error::Decode(Box::new(error)))
}

pub(super) fn number<N: TryFrom<i64>>(row: &PgRow, index: usize) -> Result<N, sqlx::Error> {
    let number: i64 = row.try_get(index)?;
    N::try_from(number).map_err(|_| sqlx::Error::Decode("a number out of bounds".into()))
}
