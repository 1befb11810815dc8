//! Who reads which mailbox: the newest wins, and what its row says then is what counts on every node.

use std::collections::{BTreeSet, HashMap};

use sqlx::Row;
use sqlx::postgres::PgConnection;

use super::{array, number};
use crate::shared::job::{Job, Key, Status, Verdict};
use crate::store::signed;

/// Makes new readers the readers, says whom they took over from, and how their mailboxes stand.
pub(super) async fn seat_readers(
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
