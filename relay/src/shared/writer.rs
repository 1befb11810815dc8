//! The task that writes: each group of jobs in one transaction, a statement for many rows, `unnest`ed from arrays.
//!
//! What is accepted is deliberately not decided here (see `ledger`). A group that failed can be given again as it is: puts
//! are known by their ids, and all else is the same when done twice.

use std::sync::Arc;
use std::time::Duration;

use sqlx::Row;
use sqlx::postgres::{PgConnectOptions, PgConnection, PgRow};
use tokio::sync::mpsc;

mod load;
mod readers;
mod store;

use super::database::{self, Failure};
use super::job::{Job, Outcome, Verdict};
use super::ledger::{Ledger, Room};
use super::totals::Totals;
use crate::Clock;
use crate::desk::Bounds;
use crate::known::UNCOMPARED;

/// How long one group may take, everything included.
const GROUP: Duration = Duration::from_secs(20);

/// How often a group is tried before it fails.
const ATTEMPTS: usize = 3;

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
            return Ok(Outcome::default());
        }
        sqlx::query("BEGIN").execute(&mut *connection).await?;
        let mut ledger = Ledger {
            now: (self.clock)(),
            room: self.room(),
            ..Ledger::default()
        };
        load::make_mailboxes(connection, jobs, ledger.now, |new| {
            self.bounds.mailboxes as u64 > self.totals.mailboxes() + new
        })
        .await?;
        load::lock_mailboxes(connection, jobs, &mut ledger).await?;
        let mut verdicts = vec![Verdict::Done; jobs.len()];
        let gone = load::acknowledge(connection, jobs, &mut ledger, &mut verdicts).await?;
        load::load(connection, jobs, &mut ledger).await?;
        for (index, (job, verdict)) in jobs.iter().zip(&mut verdicts).enumerate() {
            if let Some(judged) = ledger.judge(index, job) {
                *verdict = judged;
            }
        }
        store::store(connection, jobs, &ledger).await?;
        let displaced = readers::seat_readers(connection, jobs, self.node, ledger.now, &mut verdicts).await?;
        sqlx::query("COMMIT").execute(&mut *connection).await?;
        self.totals
            .add(ledger.envelopes.iter().filter_map(|new| match jobs.get(new.job) {
                Some(Job::Put(put)) => Some(put.body.len() as u64),
                _ => None,
            }));
        self.totals.acknowledged(gone.envelopes, gone.bytes);
        Ok(Outcome {
            verdicts,
            displaced,
            acknowledged: gone.envelopes,
        })
    }

    fn room(&self) -> Room {
        Room {
            bytes: self.bounds.bytes.saturating_sub(self.totals.bytes()),
            puts: (self.bounds.puts as u64).saturating_sub(self.totals.puts()),
        }
    }
}

pub(super) fn array<const N: usize>(row: &PgRow, index: usize) -> Result<[u8; N], sqlx::Error> {
    let bytes: &[u8] = row.try_get(index)?;
    bytes.try_into().map_err(|error| sqlx::Error::Decode(Box::new(error)))
}

/// What tells the envelope of a put from another; older nodes kept what can't be compared.
pub(super) fn content(bytes: &[u8]) -> u64 {
    bytes.try_into().map_or(UNCOMPARED, u64::from_be_bytes)
}

pub(super) fn number<N: TryFrom<i64>>(row: &PgRow, index: usize) -> Result<N, sqlx::Error> {
    let number: i64 = row.try_get(index)?;
    N::try_from(number).map_err(|_| sqlx::Error::Decode("a number out of bounds".into()))
}
