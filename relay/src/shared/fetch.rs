//! The task that reads for live readers, on a connection of its own: is this node's reader still the reader, and what
//! waits for it?
//!
//! Who is given what is deliberately not decided here (see `seats`).

use std::collections::HashMap;
use std::time::Duration;

use bytes::Bytes;
use sqlx::Row;
use sqlx::postgres::{PgConnectOptions, PgConnection};
use tokio::sync::mpsc;

use super::database::{self, Failure};
use super::job::Key;
use super::writer::{array, number};
use crate::Clock;
use crate::store::signed;

/// How long one look may take.
const LOOK: Duration = Duration::from_secs(10);

/// Readers looked after with one statement, and readers given envelopes with one: at most 16 MiB are held.
const LOOKED: usize = 512;
const GIVEN: usize = 16;

/// What a reader can be given.
#[derive(Clone, Copy, Debug)]
pub(super) struct Want {
    pub(super) key: Key,
    /// Which reader it is.
    pub(super) generation: i64,
    /// The last number that it was given.
    pub(super) cursor: u64,
    /// How many envelopes and how many bytes it has room for; no envelopes to only look.
    pub(super) room: usize,
    pub(super) bytes: u64,
}

/// What was found.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) want: Want,
    /// Which reader the mailbox has, if it has one.
    pub(super) generation: Option<i64>,
    /// The number that the next accepted envelope gets.
    pub(super) next_sequence: u64,
    /// Envelopes in order: number, receipt, bytes.
    pub(super) envelopes: Vec<(u64, u64, Bytes)>,
    /// Nothing more was there.
    pub(super) complete: bool,
}

/// What became of a look.
pub(super) enum Fetched {
    Found(Vec<Found>),
    /// The database couldn't be asked on behalf of these.
    Failed(Vec<Want>, Failure),
}

/// See the module.
pub(super) struct Fetcher {
    pub(super) options: PgConnectOptions,
    pub(super) connection: Option<PgConnection>,
    pub(super) clock: Clock,
}

impl Fetcher {
    /// Looks until nobody asks any more. An empty question asks only whether the database is there.
    pub(super) async fn run(
        mut self,
        mut questions: mpsc::UnboundedReceiver<Vec<Want>>,
        answers: mpsc::Sender<Fetched>,
    ) {
        while let Some(mut wants) = questions.recv().await {
            while wants.len() < LOOKED
                && let Ok(more) = questions.try_recv()
            {
                wants.extend(more);
            }
            if wants.is_empty() {
                let answer = match self.look(&mut [], &mut Vec::new()).await {
                    Ok(()) => Fetched::Found(Vec::new()),
                    Err(failure) => Fetched::Failed(Vec::new(), failure),
                };
                answers.send(answer).await.ok();
            }
            for wants in wants.chunks(LOOKED) {
                self.fetch(wants, &answers).await;
            }
        }
        database::close(self.connection).await;
    }

    async fn fetch(&mut self, wants: &[Want], answers: &mpsc::Sender<Fetched>) {
        let mut found: Vec<Found> = wants
            .iter()
            .map(|want| Found {
                want: *want,
                generation: None,
                next_sequence: 1,
                envelopes: Vec::new(),
                complete: false,
            })
            .collect();
        let mut mailboxes = Vec::new();
        if let Err(failure) = self.look(&mut found, &mut mailboxes).await {
            answers.send(Fetched::Failed(wants.to_vec(), failure)).await.ok();
            return;
        }
        // Only whoever is the reader, has room and isn't up to date is given anything.
        let (mut ready, mut hungry) = (Vec::new(), Vec::new());
        for (found, mailbox) in found.into_iter().zip(mailboxes) {
            let want = &found.want;
            let behind = found.next_sequence > want.cursor.saturating_add(1);
            match mailbox {
                Some((mailbox, floor)) if behind && want.room > 0 && found.generation == Some(want.generation) => {
                    hungry.push((found, mailbox, floor));
                }
                _ => ready.push(Found {
                    complete: !behind,
                    ..found
                }),
            }
        }
        answers.send(Fetched::Found(ready)).await.ok();
        for chunk in hungry.chunks_mut(GIVEN) {
            let answer = match self.give(chunk).await {
                Ok(()) => Fetched::Found(chunk.iter_mut().map(|(found, ..)| take(found)).collect()),
                Err(failure) => Fetched::Failed(chunk.iter().map(|(found, ..)| found.want).collect(), failure),
            };
            answers.send(answer).await.ok();
        }
    }

    /// Which reader each mailbox has, and where it stands: its number and what is acknowledged go to `mailboxes`.
    async fn look(&mut self, found: &mut [Found], mailboxes: &mut Vec<Option<(i64, u64)>>) -> Result<(), Failure> {
        mailboxes.resize(found.len(), None);
        let keys: Vec<&[u8]> = found.iter().map(|found| found.want.key.as_slice()).collect();
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => database::connect(&self.options).await?,
        };
        let rows = sqlx::query(
            "SELECT w.key, r.generation, m.next_sequence, m.number, m.floor FROM unnest($1::bytea[]) AS w (key) \
             LEFT JOIN readers r ON r.key = w.key LEFT JOIN mailboxes m ON m.key = w.key",
        )
        .bind(keys)
        .fetch_all(&mut connection);
        let rows = database::within(LOOK, rows).await?;
        let mut seen: HashMap<Key, _> = HashMap::new();
        for row in &rows {
            let mailbox = match row.try_get::<Option<i64>, _>(3)? {
                Some(mailbox) => Some((mailbox, number::<u64>(row, 2)?, number::<u64>(row, 4)?)),
                None => None,
            };
            seen.insert(array(row, 0)?, (row.try_get::<Option<i64>, _>(1)?, mailbox));
        }
        for (found, place) in found.iter_mut().zip(mailboxes) {
            let Some((generation, mailbox)) = seen.get(&found.want.key) else {
                continue;
            };
            found.generation = *generation;
            if let Some((mailbox, next_sequence, floor)) = mailbox {
                found.next_sequence = *next_sequence;
                *place = Some((*mailbox, *floor));
            }
        }
        self.connection = Some(connection);
        Ok(())
    }

    /// The envelopes behind each reader's last, within its room. Looked up after [`Fetcher::look`], and numbers are
    /// committed in order, so everything below the number seen there is seen here.
    async fn give(&mut self, readers: &mut [(Found, i64, u64)]) -> Result<(), Failure> {
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => database::connect(&self.options).await?,
        };
        let column = |value: fn(&(Found, i64, u64)) -> i64| readers.iter().map(value).collect::<Vec<_>>();
        // The length of a body is known without reading it, so that only those with room are read.
        let rows = sqlx::query(
            "SELECT w.place, e.sequence, e.received, e.body \
             FROM unnest($1::bigint[], $2::bigint[], $3::bigint[], $4::bigint[]) WITH ORDINALITY \
             AS w (mailbox, cursor, room, bytes, place) CROSS JOIN LATERAL ( \
               SELECT i.sequence, i.received, i.body, sum(octet_length(i.body)) OVER (ORDER BY i.sequence) AS total FROM ( \
                 SELECT sequence, received, body FROM envelopes \
                 WHERE mailbox = w.mailbox AND sequence > w.cursor AND expires > $5 ORDER BY sequence LIMIT w.room) i) e \
             WHERE e.total <= w.bytes ORDER BY w.place, e.sequence",
        )
        .bind(column(|(_, mailbox, _)| *mailbox))
        .bind(column(|(found, _, floor)| signed(found.want.cursor.max(*floor))))
        .bind(column(|(found, ..)| i64::try_from(found.want.room).unwrap_or(i64::MAX)))
        .bind(column(|(found, ..)| signed(found.want.bytes)))
        .bind(signed((self.clock)()))
        .fetch_all(&mut connection);
        let rows = database::within(LOOK, rows).await?;
        for row in rows {
            let place: usize = number(&row, 0)?;
            let Some((found, ..)) = readers.get_mut(place.wrapping_sub(1)) else {
                continue;
            };
            let body: Vec<u8> = row.try_get(3)?;
            found.envelopes.push((number(&row, 1)?, number(&row, 2)?, body.into()));
        }
        for (found, ..) in readers {
            let bytes: usize = found.envelopes.iter().map(|(.., body)| body.len()).sum();
            let left = found.want.bytes.saturating_sub(bytes as u64);
            // With less left than the largest there may be one that found no room.
            found.complete = found.envelopes.len() < found.want.room && left >= super::LARGEST;
        }
        self.connection = Some(connection);
        Ok(())
    }
}

fn take(found: &mut Found) -> Found {
    Found {
        envelopes: std::mem::take(&mut found.envelopes),
        ..*found
    }
}
