//! Copying everything that a relay keeps from one kind of store to the other, while no relay runs on either.
//!
//! Numbering goes on where it was, and every put stays known: clients notice nothing but the pause. The copied store is
//! left as it is.

use wire::frame::PutId;

use crate::Store;
use crate::shared::Database;
use crate::store::{self, StoreError};

/// A mailbox as it is copied. Times are milliseconds since 1970.
pub(crate) struct MailboxRow {
    pub(crate) number: i64,
    pub(crate) key: [u8; 32],
    pub(crate) next_sequence: u64,
    pub(crate) closed: Option<i64>,
    pub(crate) seen: i64,
}

/// A capability as it is copied.
pub(crate) struct CapabilityRow {
    pub(crate) number: i64,
    pub(crate) mailbox: i64,
    pub(crate) hash: [u8; 32],
    pub(crate) max_envelopes: i64,
    pub(crate) max_bytes: i64,
}

/// An envelope as it is copied.
pub(crate) struct EnvelopeRow {
    pub(crate) mailbox: i64,
    pub(crate) sequence: i64,
    pub(crate) capability: i64,
    pub(crate) received: i64,
    pub(crate) expires: i64,
    pub(crate) body: Vec<u8>,
}

/// A put as it is copied.
pub(crate) struct PutRow {
    pub(crate) mailbox: i64,
    pub(crate) id: PutId,
    /// What tells its envelope from another (see `known`).
    pub(crate) content: u64,
    pub(crate) expires: i64,
    pub(crate) how: i64,
}

/// Why nothing was copied.
#[derive(Debug, thiserror::Error)]
pub enum MigrateError {
    /// Both are of the same kind.
    #[error("both stores are of the same kind: copy the file, or use pg_dump")]
    Same,
    /// There is nothing to copy from.
    #[error("there is no store to copy from")]
    Nothing,
    /// The target holds something.
    #[error("the store to copy to isn't empty")]
    NotEmpty,
    /// One of them can't be used.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl MigrateError {
    /// What a person can do about it.
    #[must_use]
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Same => "name a file and a postgres:// address",
            Self::Nothing => "name the file of the relay's store first, then where it is to go",
            Self::NotEmpty => "name a new file or an empty database; nothing was changed",
            Self::Store(error) => error.hint(),
        }
    }
}

/// How much was copied.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Copied {
    /// Mailboxes, closed ones included.
    pub mailboxes: u64,
    /// Capabilities.
    pub capabilities: u64,
    /// Envelopes.
    pub envelopes: u64,
    /// Puts remembered.
    pub puts: u64,
}

/// Copies everything from one store to the other, which has to be empty; `progress` is told now and then.
///
/// # Errors
///
/// [`MigrateError`]; the target is then as empty as it was.
pub async fn migrate(from: &Store, to: &Store, progress: impl FnMut(&Copied)) -> Result<Copied, MigrateError> {
    let copied = match (from, to) {
        (Store::Sqlite(path), Store::Postgres(url)) => {
            if !path.exists() {
                return Err(MigrateError::Nothing);
            }
            let (mut from, mut to) = (store::Store::open(path).await?, Database::open(url).await?);
            if !to.is_empty().await? {
                return Err(MigrateError::NotEmpty);
            }
            let copied = to_database(&mut from, &mut to, progress).await?;
            to.close().await?;
            from.close().await?;
            copied
        }
        (Store::Postgres(url), Store::Sqlite(path)) => {
            let (mut from, mut to) = (Database::open(url).await?, store::Store::open(path).await?);
            if !to.is_empty().await? {
                return Err(MigrateError::NotEmpty);
            }
            let copied = to_file(&mut from, &mut to, progress).await?;
            to.close().await?;
            from.close().await?;
            copied
        }
        _ => return Err(MigrateError::Same),
    };
    Ok(copied)
}

async fn to_database(
    from: &mut store::Store,
    to: &mut Database,
    mut progress: impl FnMut(&Copied),
) -> Result<Copied, StoreError> {
    let mut copied = Copied::default();
    let mut after = i64::MIN;
    loop {
        let rows = from.mailboxes(after).await?;
        let Some(last) = rows.last() else { break };
        after = last.number;
        to.add_mailboxes(&rows).await?;
        copied.mailboxes += rows.len() as u64;
    }
    after = i64::MIN;
    loop {
        let rows = from.capabilities(after).await?;
        let Some(last) = rows.last() else { break };
        after = last.number;
        to.add_capabilities(&rows).await?;
        copied.capabilities += rows.len() as u64;
    }
    after = i64::MIN;
    loop {
        let rows = from.envelopes(&mut after).await?;
        if rows.is_empty() {
            break;
        }
        to.add_envelopes(&rows).await?;
        copied.envelopes += rows.len() as u64;
        progress(&copied);
    }
    after = i64::MIN;
    loop {
        let rows = from.puts(&mut after).await?;
        if rows.is_empty() {
            break;
        }
        copied.puts += to.add_puts(&rows).await?;
        progress(&copied);
    }
    to.commit().await?;
    Ok(copied)
}

async fn to_file(
    from: &mut Database,
    to: &mut store::Store,
    mut progress: impl FnMut(&Copied),
) -> Result<Copied, StoreError> {
    let mut copied = Copied::default();
    let now = (crate::Config::default().clock)();
    to.begin().await?;
    let mut after = i64::MIN;
    loop {
        let rows = from.mailboxes(after).await?;
        let Some(last) = rows.last() else { break };
        after = last.number;
        to.add_mailboxes(&rows).await?;
        copied.mailboxes += rows.len() as u64;
    }
    after = i64::MIN;
    loop {
        let rows = from.capabilities(after).await?;
        let Some(last) = rows.last() else { break };
        after = last.number;
        to.add_capabilities(&rows).await?;
        copied.capabilities += rows.len() as u64;
    }
    let (mut after, mut number) = ((i64::MIN, i64::MIN), 0);
    loop {
        let rows = from.envelopes(after).await?;
        let Some(last) = rows.last() else { break };
        after = (last.mailbox, last.sequence);
        to.add_envelopes(&rows, &mut number).await?;
        copied.envelopes += rows.len() as u64;
        progress(&copied);
    }
    let mut after = (i64::MIN, PutId::default());
    loop {
        let rows = from.puts(after).await?;
        let Some(last) = rows.last() else { break };
        after = (last.mailbox, last.id);
        to.add_puts(&rows, now).await?;
        copied.puts += rows.len() as u64;
        progress(&copied);
    }
    to.commit().await?;
    Ok(copied)
}
