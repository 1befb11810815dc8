//! What time takes away, swept by one node at a time: envelopes and puts past their ttl, what closed mailboxes left behind,
//! and mailboxes that nobody owns any more. And the relay's totals, which every node measures for itself.
//!
//! Whether an envelope may still be delivered is deliberately not decided here: that is asked when it is fetched.

use std::sync::Arc;
use std::time::Duration;

use sqlx::postgres::{PgConnectOptions, PgConnection};
use tokio::time::{MissedTickBehavior, interval};
use wire::limits::TTL_SECONDS_MAX;

use super::database::{self, Failure, SWEEPER};
use super::totals::Totals;
use super::writer::number;
use crate::Clock;
use crate::health::Health;
use crate::store::signed;

/// How often it is swept, how many sweeps apart totals are measured, and how many apart what is kept for days is looked at.
const EVERY: Duration = Duration::from_secs(1);
const MEASURED: u64 = 5;
const SELDOM: u64 = 3600;

/// Most rows swept in one transaction: their mailboxes are locked meanwhile.
const SWEPT: i64 = 500;

/// Transactions in one sweep, so that it comes to an end.
const ROUNDS: usize = 20;

/// How long one transaction may take.
const STATEMENT: Duration = Duration::from_secs(20);

/// How long a closed mailbox's numbering is kept: longer than anything sent to it could live.
const CLOSED_FOR_MS: u64 = TTL_SECONDS_MAX as u64 * 1000;

/// How long the reader of a mailbox that doesn't exist is remembered: its node may have died.
const READER_FOR_MS: u64 = 24 * 3600 * 1000;

/// See the module.
pub(super) struct Sweeper {
    pub(super) options: PgConnectOptions,
    pub(super) connection: Option<PgConnection>,
    pub(super) totals: Arc<Totals>,
    pub(super) abandoned_ms: u64,
    pub(super) clock: Clock,
    pub(super) health: Health,
}

impl Sweeper {
    /// Sweeps for ever.
    pub(super) async fn run(mut self) {
        let mut tick = interval(EVERY);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        for count in 0_u64.. {
            tick.tick().await;
            // The office notices by itself that the database is away.
            self.visit(count).await.ok();
        }
    }

    async fn visit(&mut self, count: u64) -> Result<(), Failure> {
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => {
                let mut connection = database::connect(&self.options).await?;
                // Whoever copies the store meanwhile would miss what we change; they don't while a node runs.
                database::within(STATEMENT, database::share(&mut connection)).await?;
                connection
            }
        };
        if count.is_multiple_of(MEASURED) {
            database::within(STATEMENT, self.measure(&mut connection)).await?;
        }
        if database::within(STATEMENT, alone(&mut connection)).await? {
            self.sweep(&mut connection, count).await?;
            database::within(STATEMENT, release(&mut connection)).await?;
        }
        self.connection = Some(connection);
        Ok(())
    }

    async fn measure(&self, connection: &mut PgConnection) -> Result<(), sqlx::Error> {
        let row = sqlx::query(
            "SELECT count(*), coalesce(sum(waiting), 0)::bigint, coalesce(sum(bytes), 0)::bigint, \
             coalesce(sum(remembered), 0)::bigint FROM mailboxes",
        )
        .fetch_one(connection)
        .await?;
        self.totals
            .set([number(&row, 0)?, number(&row, 1)?, number(&row, 2)?, number(&row, 3)?]);
        Ok(())
    }

    async fn sweep(&self, connection: &mut PgConnection, count: u64) -> Result<(), Failure> {
        let now = (self.clock)();
        for _ in 0..ROUNDS {
            let gone = database::within(STATEMENT, expire_envelopes(connection, now)).await?;
            self.health.metrics.expired.inc_by(gone);
            if gone < SWEPT.unsigned_abs() {
                break;
            }
        }
        for _ in 0..ROUNDS {
            if database::within(STATEMENT, expire_puts(connection, now)).await? < SWEPT.unsigned_abs() {
                break;
            }
        }
        for _ in 0..ROUNDS {
            if !database::within(STATEMENT, clear_litter(connection)).await? {
                break;
            }
        }
        if count.is_multiple_of(SELDOM) {
            database::within(STATEMENT, self.close_abandoned(connection, now)).await?;
            database::within(STATEMENT, forget(connection, now)).await?;
        }
        Ok(())
    }

    /// A mailbox whose owner hasn't come for long and in which nothing waits: else whoever once filled the relay with
    /// mailboxes would have filled it for good.
    async fn close_abandoned(&self, connection: &mut PgConnection, now: u64) -> Result<(), sqlx::Error> {
        sqlx::query(
            "WITH old AS ( \
               SELECT key, number FROM mailboxes WHERE closed IS NULL AND waiting = 0 AND seen <= $1 \
               ORDER BY key LIMIT $2 FOR UPDATE), \
             done AS ( \
               UPDATE mailboxes m SET number = nextval('mailbox_numbers'), closed = $3, floor = next_sequence - 1, \
               waiting = 0, bytes = 0, remembered = 0 FROM old WHERE m.key = old.key) \
             INSERT INTO litter SELECT number FROM old",
        )
        .bind(signed(now.saturating_sub(self.abandoned_ms)))
        .bind(SWEPT)
        .bind(signed(now))
        .execute(connection)
        .await?;
        Ok(())
    }
}

/// Whether no other node is sweeping.
async fn alone(connection: &mut PgConnection) -> Result<bool, sqlx::Error> {
    sqlx::query_scalar("SELECT pg_try_advisory_lock($1)")
        .bind(SWEEPER)
        .fetch_one(connection)
        .await
}

async fn release(connection: &mut PgConnection) -> Result<(), sqlx::Error> {
    sqlx::query("SELECT pg_advisory_unlock($1)")
        .bind(SWEEPER)
        .execute(connection)
        .await?;
    Ok(())
}

/// Deletes some envelopes past their ttl and gives back what they took of their quotas; says how many.
async fn expire_envelopes(connection: &mut PgConnection, now: u64) -> Result<u64, sqlx::Error> {
    sqlx::query("BEGIN").execute(&mut *connection).await?;
    let mailboxes: Vec<i64> = sqlx::query_scalar(
        "SELECT DISTINCT mailbox FROM (SELECT mailbox FROM envelopes WHERE expires <= $1 ORDER BY expires LIMIT $2) e",
    )
    .bind(signed(now))
    .bind(SWEPT)
    .fetch_all(&mut *connection)
    .await?;
    lock(connection, &mailboxes).await?;
    let gone: i64 = sqlx::query_scalar(
        "WITH gone AS ( \
           DELETE FROM envelopes WHERE ctid = ANY (ARRAY( \
             SELECT place FROM ( \
               SELECT ctid AS place, mailbox FROM envelopes WHERE expires <= $1 ORDER BY expires LIMIT $2) old \
             WHERE mailbox = ANY ($3))) \
           RETURNING mailbox, capability, octet_length(body)::bigint AS bytes), \
         freed AS ( \
           UPDATE capabilities c SET envelopes = greatest(c.envelopes - g.envelopes, 0), bytes = greatest(c.bytes - g.bytes, 0) \
           FROM (SELECT capability, count(*) AS envelopes, sum(bytes)::bigint AS bytes FROM gone GROUP BY capability) g \
           WHERE c.number = g.capability), \
         counted AS ( \
           UPDATE mailboxes m SET waiting = greatest(m.waiting - g.envelopes, 0), bytes = greatest(m.bytes - g.bytes, 0) \
           FROM (SELECT mailbox, count(*) AS envelopes, sum(bytes)::bigint AS bytes FROM gone GROUP BY mailbox) g \
           WHERE m.number = g.mailbox) \
         SELECT count(*) FROM gone",
    )
    .bind(signed(now))
    .bind(SWEPT)
    .bind(mailboxes)
    .fetch_one(&mut *connection)
    .await?;
    sqlx::query("COMMIT").execute(connection).await?;
    Ok(gone.unsigned_abs())
}

/// Forgets some puts past their ttl; says how many.
async fn expire_puts(connection: &mut PgConnection, now: u64) -> Result<u64, sqlx::Error> {
    sqlx::query("BEGIN").execute(&mut *connection).await?;
    let mailboxes: Vec<i64> = sqlx::query_scalar(
        "SELECT DISTINCT mailbox FROM (SELECT mailbox FROM puts WHERE expires <= $1 ORDER BY expires LIMIT $2) p",
    )
    .bind(signed(now))
    .bind(SWEPT)
    .fetch_all(&mut *connection)
    .await?;
    lock(connection, &mailboxes).await?;
    let gone: i64 = sqlx::query_scalar(
        "WITH gone AS ( \
           DELETE FROM puts WHERE ctid = ANY (ARRAY( \
             SELECT place FROM ( \
               SELECT ctid AS place, mailbox FROM puts WHERE expires <= $1 ORDER BY expires LIMIT $2) old \
             WHERE mailbox = ANY ($3))) \
           RETURNING mailbox), \
         counted AS ( \
           UPDATE mailboxes m SET remembered = greatest(m.remembered - g.puts, 0) \
           FROM (SELECT mailbox, count(*) AS puts FROM gone GROUP BY mailbox) g WHERE m.number = g.mailbox) \
         SELECT count(*) FROM gone",
    )
    .bind(signed(now))
    .bind(SWEPT)
    .bind(mailboxes)
    .fetch_one(&mut *connection)
    .await?;
    sqlx::query("COMMIT").execute(connection).await?;
    Ok(gone.unsigned_abs())
}

/// In the order in which every node locks them.
async fn lock(connection: &mut PgConnection, mailboxes: &[i64]) -> Result<(), sqlx::Error> {
    sqlx::query("SELECT number FROM mailboxes WHERE number = ANY ($1) ORDER BY key FOR UPDATE")
        .bind(mailboxes)
        .execute(connection)
        .await?;
    Ok(())
}

/// Deletes some of what a closed mailbox left behind; false if there is nothing.
async fn clear_litter(connection: &mut PgConnection) -> Result<bool, sqlx::Error> {
    let litter: Option<i64> = sqlx::query_scalar("SELECT mailbox FROM litter LIMIT 1")
        .fetch_optional(&mut *connection)
        .await?;
    let Some(mailbox) = litter else { return Ok(false) };
    let cleared: i64 = sqlx::query_scalar(
        "WITH e AS ( \
           DELETE FROM envelopes WHERE ctid = ANY (ARRAY( \
             SELECT ctid FROM envelopes WHERE mailbox = $1 LIMIT $2)) RETURNING 1), \
         p AS ( \
           DELETE FROM puts WHERE ctid = ANY (ARRAY(SELECT ctid FROM puts WHERE mailbox = $1 LIMIT $2)) RETURNING 1), \
         c AS (DELETE FROM capabilities WHERE mailbox = $1 RETURNING 1) \
         SELECT (SELECT count(*) FROM e) + (SELECT count(*) FROM p) + (SELECT count(*) FROM c)",
    )
    .bind(mailbox)
    .bind(SWEPT)
    .fetch_one(&mut *connection)
    .await?;
    if cleared == 0 {
        sqlx::query("DELETE FROM litter WHERE mailbox = $1")
            .bind(mailbox)
            .execute(connection)
            .await?;
    }
    Ok(true)
}

/// Forgets the numbering of mailboxes long closed, and readers that nobody can have any more.
async fn forget(connection: &mut PgConnection, now: u64) -> Result<(), sqlx::Error> {
    sqlx::query("DELETE FROM mailboxes WHERE closed <= $1")
        .bind(signed(now.saturating_sub(CLOSED_FOR_MS)))
        .execute(&mut *connection)
        .await?;
    sqlx::query(
        "DELETE FROM readers r WHERE r.since <= $1 AND NOT EXISTS (SELECT FROM mailboxes m WHERE m.key = r.key)",
    )
    .bind(signed(now.saturating_sub(READER_FOR_MS)))
    .execute(connection)
    .await?;
    Ok(())
}
