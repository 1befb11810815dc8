//! A connection to the database and how it fails.
//!
//! What is asked and written is deliberately not here (see `writer`, `fetch` and `sweep`).

use std::time::Duration;

use rand_core::{OsRng, RngCore};
use sqlx::migrate::{MigrateError, Migrator};
use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{ConnectOptions, Connection};
use tokio::time::timeout;

use crate::store::StoreError;

static MIGRATIONS: Migrator = sqlx::migrate!("./migrations-postgres");

/// How long connecting, or one statement beside the writer, may take.
const CONNECT: Duration = Duration::from_secs(5);

/// Advisory locks, in the database of this relay alone: held shared by each node and alone by whoever copies a store, and
/// held by the node that sweeps.
const IN_USE: i64 = 0x4353_5259_0001;
pub(super) const SWEEPER: i64 = 0x4353_5259_0002;

/// Why the database didn't do what it was asked.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// It can't be reached, or lost us; whether a commit happened isn't known.
    #[error("the database is away: {0}")]
    Away(sqlx::Error),
    /// It doesn't answer.
    #[error("the database doesn't answer")]
    Silent,
    /// It refuses what we ask, and would again.
    #[error("the database refuses: {0}")]
    Refused(sqlx::Error),
    /// Somebody holds what we need; nothing was changed.
    #[error("the database is contended: {0}")]
    Contended(sqlx::Error),
}

impl From<sqlx::Error> for Failure {
    fn from(error: sqlx::Error) -> Self {
        let code = error.as_database_error().and_then(|error| error.code());
        match code.as_deref() {
            // Serialization, deadlock, lock timeout.
            Some("40001" | "40P01" | "55P03") => Self::Contended(error),
            // Data, constraint, syntax or access: classes of our own mistakes.
            Some(code) if code.starts_with("22") || code.starts_with("23") || code.starts_with("42") => {
                Self::Refused(error)
            }
            _ => Self::Away(error),
        }
    }
}

/// Connects, for as long as that may take.
pub(super) async fn connect(options: &PgConnectOptions) -> Result<PgConnection, Failure> {
    let connected = timeout(CONNECT, options.connect()).await;
    Ok(connected.map_err(|_| Failure::Silent)??)
}

/// Waits for an answer only so long.
pub(super) async fn within<T>(
    limit: Duration,
    work: impl Future<Output = Result<T, sqlx::Error>>,
) -> Result<T, Failure> {
    Ok(timeout(limit, work).await.map_err(|_| Failure::Silent)??)
}

/// Connects for the first time: brings the layout up to date and gives the secret that all nodes share.
pub(crate) async fn open(options: &PgConnectOptions) -> Result<(PgConnection, [u8; 32]), StoreError> {
    let lost = |failure: Failure| StoreError::database(&failure);
    let sql = |source: sqlx::Error| lost(source.into());
    let mut connection = connect(options).await.map_err(lost)?;
    let migrated = timeout(Duration::from_secs(60), MIGRATIONS.run(&mut connection)).await;
    match migrated.map_err(|_| lost(Failure::Silent))? {
        Ok(()) => {}
        Err(MigrateError::VersionMissing(found) | MigrateError::VersionTooNew(found, _)) => {
            return Err(StoreError::NewerDatabase { found });
        }
        Err(error) => {
            return Err(StoreError::Database {
                detail: error.to_string(),
            });
        }
    }
    let flushes: String = sqlx::query_scalar("SHOW fsync")
        .fetch_one(&mut connection)
        .await
        .map_err(sql)?;
    if flushes != "on" {
        tracing::warn!("the database has fsync off: what it calls committed isn't safe");
    }
    let mut secret = [0; 32];
    OsRng.fill_bytes(&mut secret);
    sqlx::query("INSERT INTO relay (secret) VALUES ($1) ON CONFLICT DO NOTHING")
        .bind(secret.as_slice())
        .execute(&mut connection)
        .await
        .map_err(sql)?;
    let secret: Vec<u8> = sqlx::query_scalar("SELECT secret FROM relay")
        .fetch_one(&mut connection)
        .await
        .map_err(sql)?;
    let secret = secret.try_into().map_err(|_| StoreError::Database {
        detail: "the nodes' secret has a wrong length".to_owned(),
    })?;
    Ok((connection, secret))
}

/// Says that a node runs on the database, for as long as the connection lives; false while somebody copies it.
pub(crate) async fn share(connection: &mut PgConnection) -> Result<bool, sqlx::Error> {
    sqlx::query_scalar("SELECT pg_try_advisory_lock_shared($1)")
        .bind(IN_USE)
        .fetch_one(connection)
        .await
}

/// Keeps every node out for as long as the connection lives; false if one runs.
pub(crate) async fn seize(connection: &mut PgConnection) -> Result<bool, sqlx::Error> {
    sqlx::query_scalar("SELECT pg_try_advisory_lock($1)")
        .bind(IN_USE)
        .fetch_one(connection)
        .await
}

/// Says goodbye, so that the server needn't find out.
pub(super) async fn close(connection: Option<PgConnection>) {
    if let Some(connection) = connection {
        timeout(Duration::from_secs(1), connection.close()).await.ok();
    }
}
