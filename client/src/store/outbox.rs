//! The rows of what is on its way: each envelope with when it is put next, and what ends it. Putting it is in `crate::outbox`.

use sqlx::Row;

use wire::envelope::Envelope;
use wire::identity::PartyId;
use wire::mailbox::{Capability, MailboxId};

use super::{Peer, StoreError, Tx, fixed, to_i64};
use crate::pace::Pace;

/// A row whose `due` lies this far ahead waits for its answer and is put again only when asked for (`resend`), in ms.
const PARKED: u64 = 1 << 50;

/// What an outgoing envelope holds, which is what decides when it is done with.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Outgoing {
    /// Transcript entries: done when the peer acknowledged the size. Can be rebuilt.
    Entries,
    /// A commit or a welcome: done when the peer acknowledged the epoch.
    Epoch,
    /// A decision or a proposal: done when the transcript or a refusal answers it.
    Question,
    /// Done when the relay stored it: what replaces it comes by itself.
    Fleeting,
}

impl Outgoing {
    pub(super) fn code(self) -> i64 {
        match self {
            Self::Entries => 1,
            Self::Epoch => 2,
            Self::Question => 3,
            Self::Fleeting => 4,
        }
    }

    fn from_code(code: i64) -> Result<Self, StoreError> {
        Ok(match code {
            1 => Self::Entries,
            2 => Self::Epoch,
            3 => Self::Question,
            4 => Self::Fleeting,
            _ => {
                return Err(StoreError::Row {
                    what: "an outgoing kind",
                });
            }
        })
    }
}

/// An envelope to be put.
pub struct Post {
    /// Row.
    pub id: i64,
    /// Put id for the relay.
    pub put: [u8; 16],
    /// Mailbox it goes to.
    pub mailbox: MailboxId,
    /// Capability for that mailbox.
    pub capability: Capability,
    /// The sealed bytes.
    pub envelope: Envelope,
    /// What it holds.
    pub kind: Outgoing,
    /// Whether the relay said `stored` for this put id.
    pub stored: bool,
    /// How often it was put already.
    pub tries: u32,
}

/// An envelope to be added to the outbox.
pub struct NewPost<'a> {
    /// To whom.
    pub peer: &'a Peer,
    /// The sealed bytes.
    pub envelope: &'a Envelope,
    /// What it holds.
    pub kind: Outgoing,
    /// Transcript size or epoch that acknowledges it.
    pub covers: u64,
    /// Digest (or id) of what it asks, for a question.
    pub about: &'a [u8],
    /// The question as it was before encryption, else empty.
    pub question: &'a [u8],
}

impl Tx {
    /// Adds an envelope to the outbox under a fresh put id.
    pub async fn post(&mut self, put: [u8; 16], post: &NewPost<'_>) -> Result<(), StoreError> {
        sqlx::query("INSERT INTO outbox (put, party, mailbox, capability, envelope, kind, covers, about, question) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)")
            .bind(&put[..])
            .bind(&post.peer.party.as_bytes()[..])
            .bind(&post.peer.mailbox.as_bytes()[..])
            .bind(&post.peer.capability.to_bytes()[..])
            .bind(&post.envelope.as_bytes()[..])
            .bind(post.kind.code())
            .bind(to_i64(post.covers))
            .bind(post.about)
            .bind(post.question)
            .execute(&mut *self.inner)
            .await?;
        Ok(())
    }

    /// What is to be put at this time, oldest first.
    pub async fn due(&mut self, now: u64, limit: u32) -> Result<Vec<Post>, StoreError> {
        let rows = sqlx::query("SELECT id, put, mailbox, capability, envelope, kind, stored, tries FROM outbox WHERE due <= ? ORDER BY id LIMIT ?")
            .bind(to_i64(now))
            .bind(limit)
            .fetch_all(&mut *self.inner)
            .await?;
        rows.into_iter()
            .map(|row| {
                let envelope: Vec<u8> = row.get(4);
                Ok(Post {
                    id: row.get(0),
                    put: fixed(row.get(1), "a put id")?,
                    mailbox: MailboxId::from_bytes(fixed(row.get(2), "a mailbox")?)
                        .map_err(|_| StoreError::Row { what: "a mailbox" })?,
                    capability: Capability::from_bytes(&fixed(row.get(3), "a capability")?),
                    envelope: Envelope::from_bytes(envelope.into())
                        .map_err(|_| StoreError::Row { what: "an envelope" })?,
                    kind: Outgoing::from_code(row.get(5))?,
                    stored: row.get::<i64, _>(6) != 0,
                    tries: row.get(7),
                })
            })
            .collect()
    }

    /// Says when an envelope is to be put again, and under which id.
    pub async fn reschedule(&mut self, id: i64, put: [u8; 16], due: u64) -> Result<(), StoreError> {
        sqlx::query("UPDATE outbox SET put = ?, due = ?, tries = tries + 1 WHERE id = ?")
            .bind(&put[..])
            .bind(to_i64(due))
            .bind(id)
            .execute(&mut *self.inner)
            .await?;
        Ok(())
    }

    /// Makes everything that the relay hasn't stored yet due now: a new connection begins.
    pub async fn due_again(&mut self) -> Result<(), StoreError> {
        sqlx::query("UPDATE outbox SET due = 0 WHERE stored = 0")
            .execute(&mut *self.inner)
            .await?;
        Ok(())
    }

    /// The relay stored it, or says so. What needs no answer is done with; a question is asked again, after twice as long for each try; so is
    /// a commit or a welcome, because whom a welcome hasn't reached can't even say that it is missing; entries are parked until the peer's
    /// acknowledgement says that they are missing.
    pub async fn stored(&mut self, put: &[u8; 16], now: u64, pace: &Pace) -> Result<(), StoreError> {
        sqlx::query("DELETE FROM outbox WHERE put = ? AND kind = ?")
            .bind(&put[..])
            .bind(Outgoing::Fleeting.code())
            .execute(&mut *self.inner)
            .await?;
        sqlx::query("UPDATE outbox SET stored = 1, due = ? + CASE kind WHEN ? THEN ? << MIN(tries, 5) WHEN ? THEN ? << MIN(tries, 14) ELSE ? END WHERE put = ?")
            .bind(to_i64(now))
            .bind(Outgoing::Question.code())
            .bind(to_i64(pace.question_retry))
            .bind(Outgoing::Epoch.code())
            .bind(to_i64(pace.question_retry))
            .bind(to_i64(PARKED))
            .bind(&put[..])
            .execute(&mut *self.inner)
            .await?;
        Ok(())
    }

    /// The relay refused it for now.
    pub async fn postpone(&mut self, put: &[u8; 16], due: u64) -> Result<(), StoreError> {
        sqlx::query("UPDATE outbox SET due = ? WHERE put = ?")
            .bind(to_i64(due))
            .bind(&put[..])
            .execute(&mut *self.inner)
            .await?;
        Ok(())
    }

    /// Takes off what a peer's acknowledgement covers.
    pub async fn acknowledged(&mut self, party: &PartyId, size: u64, epoch: u64) -> Result<(), StoreError> {
        sqlx::query(
            "DELETE FROM outbox WHERE party = ? AND ((kind = ? AND covers <= ?) OR (kind = ? AND covers <= ?))",
        )
        .bind(&party.as_bytes()[..])
        .bind(Outgoing::Entries.code())
        .bind(to_i64(size))
        .bind(Outgoing::Epoch.code())
        .bind(to_i64(epoch))
        .execute(&mut *self.inner)
        .await?;
        Ok(())
    }

    /// Takes off everything of a kind for a peer (it can be rebuilt, or is replaced).
    pub async fn drop_kind(&mut self, party: &PartyId, kind: Outgoing) -> Result<(), StoreError> {
        sqlx::query("DELETE FROM outbox WHERE party = ? AND kind = ?")
            .bind(&party.as_bytes()[..])
            .bind(kind.code())
            .execute(&mut *self.inner)
            .await?;
        Ok(())
    }

    /// Whether something of a kind was put for a peer a moment ago, or is about to be.
    pub async fn in_flight(
        &mut self,
        party: &PartyId,
        kind: Outgoing,
        now: u64,
        pace: &Pace,
    ) -> Result<bool, StoreError> {
        // When it was stored follows from when it is due, as `stored` reckons.
        let row = sqlx::query("SELECT COUNT(*) FROM outbox WHERE party = ? AND kind = ? AND (stored = 0 OR due - CASE kind WHEN ? THEN ? << MIN(tries, 14) ELSE ? END > ?)")
            .bind(&party.as_bytes()[..])
            .bind(kind.code())
            .bind(Outgoing::Epoch.code())
            .bind(to_i64(pace.question_retry))
            .bind(to_i64(PARKED))
            .bind(to_i64(now.saturating_sub(pace.on_its_way)))
            .fetch_one(&mut *self.inner)
            .await?;
        Ok(row.get::<i64, _>(0) > 0)
    }

    /// The peers that haven't acknowledged something of a kind.
    pub async fn awaited(&mut self, kind: Outgoing) -> Result<Vec<PartyId>, StoreError> {
        let rows = sqlx::query("SELECT DISTINCT party FROM outbox WHERE kind = ?")
            .bind(kind.code())
            .fetch_all(&mut *self.inner)
            .await?;
        let party = |row: sqlx::sqlite::SqliteRow| {
            PartyId::from_bytes(fixed(row.get(0), "a party")?).map_err(|_| StoreError::Row { what: "a party" })
        };
        rows.into_iter().map(party).collect()
    }

    /// Puts everything that waits for a peer again: the same sealed bytes in their order, under new put ids.
    pub async fn resend(&mut self, party: &PartyId) -> Result<(), StoreError> {
        sqlx::query("UPDATE outbox SET put = randomblob(16), stored = 0, due = 0 WHERE party = ?")
            .bind(&party.as_bytes()[..])
            .execute(&mut *self.inner)
            .await?;
        Ok(())
    }
}
